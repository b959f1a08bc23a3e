"""A few faults of every kind; ``tests/faults/scenarios.py`` injects the hundreds."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.campaigns import (
    Tally,
    bad_calculator,
    clock_jumps,
    dead_workers,
    full_disk,
    interrupted,
    kill_pairs,
    kill_recovery,
    kill_single,
    read_only,
    undisturbed,
)
from tests.faults.forks import Nursery, scratch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def here():
    with scratch() as folder, Nursery() as nursery:
        yield nursery, folder, undisturbed(nursery, folder / "plain")


def survived(tally: Tally, faults: int) -> None:
    outcome = tally.outcome()
    assert outcome.problems == () and outcome.lost == 0
    assert outcome.survived == outcome.faults >= faults


def test_single_writers_are_killed(here):
    tally = kill_single(*here, 8, random.Random(1))
    survived(tally, 8)
    assert sum(n for moment, n in tally.moments.items() if "transaction" in moment or "commit" in moment) >= 2


def test_two_writers_are_killed(here):
    survived(kill_pairs(*here, 4, random.Random(2)), 4)


def test_killed_while_a_killed_transaction_is_taken_back(here):
    survived(kill_recovery(*here, 4, random.Random(3)), 4)


def test_what_else_goes_wrong(here):
    rng = random.Random(4)
    survived(interrupted(*here, 1, rng), 1)
    survived(full_disk(*here, 2, rng), 2)
    survived(read_only(*here, 1, rng), 1)
    survived(clock_jumps(*here, 1, rng), 1)
    survived(bad_calculator(*here, 1, rng, "down"), 1)
    survived(bad_calculator(*here, 1, rng, "nan-forces"), 1)
    survived(bad_calculator(*here, 1, rng, "die"), 1)
    survived(dead_workers(*here, 1, rng, "own"), 1)


@pytest.mark.parametrize("how", ["late", "twice"])  # all of them: scenarios.controls()
def test_a_defect_that_is_built_in_is_seen(here, how):
    nursery, folder, plain = here
    (folder / how).mkdir()
    outcome = kill_single(nursery, folder / how, plain, 5, random.Random(0), broken=how).outcome()
    assert outcome.lost > 0 and outcome.survived < outcome.faults
