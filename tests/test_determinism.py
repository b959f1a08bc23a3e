"""The same seed gives the same bits: twice, in another process, with other executors, in whatever order tasks end."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pytest

from tests.reproducible import CONTROLS, LONG, SHORT, Shuffled, digest, digests, mapped, reference, streamed

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def here():
    return digests()


def elsewhere(names, **environment):
    """Digests of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reproducible", *names],
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_seeded_function_gives_the_same_bits_again(here):
    again = digests()
    assert {name for name in SHORT if here[name] != again[name]} == set()
    assert len(set(here.values())) == len(SHORT)


def test_and_in_a_fresh_process_that_orders_sets_differently(here):
    """The control is an order of a set, which the seed of hashes changes: the comparison sees it."""
    order = "the order of a set"
    mine = os.environ.get("PYTHONHASHSEED", "random")
    there = elsewhere([*SHORT, order], PYTHONHASHSEED="54321" if mine == "12345" else "12345")
    assert {name for name in SHORT if here[name] != there[name]} == set()
    assert there[order] != digests([order])[order]


def test_what_has_no_seed_is_seen():
    unseeded = "a generator without a seed"
    assert digests([unseeded]) != digests([unseeded])
    assert set(CONTROLS) == {unseeded, "the order of a set"}


def test_digests_see_one_bit():
    x = np.array([1.0, 2.0])
    assert digest({"x": x, "seconds": 3.0}) == digest({"x": x.copy(), "seconds": 4.0})
    others = [np.nextafter(x, 2), x.astype(np.float32), x[:, None], -x, x.astype("<U3"), [1.0, 2.0], x.astype(int)]
    assert len({digest({"x": y}) for y in (x, *others)}) == 1 + len(others)
    assert digest(0.0) != digest(-0.0) and digest({"a": 1, "b": 2}) != digest({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="say how to take it apart"):
        digest(object())


EXECUTORS = {
    "one thread": lambda: ThreadPoolExecutor(1),
    "two threads": lambda: ThreadPoolExecutor(2),
    "several, shuffled": lambda: Shuffled(2, seed=1),
    "several, shuffled otherwise": lambda: Shuffled(5, seed=2),
}


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize(
    ("call", "of"), [(streamed, "stream_transport"), (mapped, "composition_map"), (reference, "compute_barriers")]
)
@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")
def test_executors_give_the_same_bits(here, call, of, name):
    with EXECUTORS[name]() as executor:
        assert digest(call(executor)) == here[of]
    assert "several" not in name or any(executor.order)  # something waited and was overtaken


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")
def test_processes_give_the_same_bits(here):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert digest(streamed(executor)) == here["stream_transport"]


def test_a_sum_in_the_order_of_completion_is_seen():
    """The control: numbers of unlike size added as they arrive differ in their last bits."""
    numbers = np.random.default_rng(0).normal(size=12) * 10.0 ** np.arange(-6, 6)

    def total(seed, ordered):
        with Shuffled(4, seed) as executor:
            futures = [executor.submit(float, x) for x in numbers]
            return digest(sum(f.result() for f in (futures if ordered else as_completed(futures))))

    assert len({total(seed, ordered=False) for seed in range(4)}) > 1
    assert len({total(seed, ordered=True) for seed in range(4)}) == 1


@pytest.mark.skipif(not os.environ.get("KINOSON_DETERMINISM"), reason="minutes; set KINOSON_DETERMINISM=1")
def test_long_ones():
    names = [*LONG, *SHORT]
    one = elsewhere(names, PYTHONHASHSEED="1")
    assert one == elsewhere(names, PYTHONHASHSEED="2")
