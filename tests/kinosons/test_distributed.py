"""Training on two processes against one: the same batches, the same sums, hence the same relaxation to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import ase_kinoson as ak
from ase_kinoson.errors import StatesError
from ase_kinoson.kinosons import distributed
from ase_kinoson.kinosons.distributed import Columns, Ranks, owners

from . import trained_together

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"),
    pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning"),
]


@pytest.fixture(scope="module")
def together() -> list[dict]:
    """What each of two processes found."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(ak.__file__).parents[1]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
        command = [sys.executable, trained_together.__file__, name]
        jobs = [
            subprocess.Popen([*command, str(r)], env=environment, stderr=subprocess.PIPE, text=True) for r in range(2)
        ]
        try:
            errors = [job.communicate(timeout=300)[1] for job in jobs]
        finally:
            for job in jobs:
                job.kill()
        assert [job.returncode for job in jobs] == [0, 0], errors
        return [torch.load(Path(name) / f"found-{r}.pt") for r in range(2)]


def differ(one: dict, other: dict) -> float:
    """Largest difference of weights and bounds."""
    gaps = [(one["weights"] - other["weights"]).abs().max()]
    gaps += [abs(a - b) for a, b in zip(one["history"], other["history"], strict=True)]
    gaps += [abs(one["bounds"][q] - other["bounds"][q]) for q in one["bounds"]]
    return float(max(gaps))


@pytest.mark.parametrize("name", list(trained_together.CASES))
def test_two_processes_train_what_one_does(together, name):
    first, second = (found[name] for found in together)
    assert torch.equal(first["weights"], second["weights"]) and first["history"] == second["history"]
    alone = trained_together.outcome(trained_together.CASES[name]())
    assert differ(first, alone) < 2e-5
    assert first["keys"] == second["keys"] == alone["keys"]
    assert len(set(alone["history"])) > 1  # it did learn
    if name == "network_and_gates":
        # broken twins: gradients of one share only, and shares of unequal size that count alike
        assert differ(together[0]["no sum"], alone) > 1e-3
        assert differ(together[0]["no weights"], alone) > 1e-3


def test_unlike_arguments_are_refused_by_all(together):
    first, second = (found["unlike"] for found in together)
    assert first == second
    seed, states, rates, rounding = first
    assert seed.startswith("found seed=0 in process 0 and 1 in process 1; expected")
    assert states.startswith("found n_states=60 in process 0 and 61 in process 1")
    assert rates.startswith("found rates of the first state=")
    assert rounding == ""


def test_processes_that_cannot_meet_are_named(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(ak.KinosonError, match=r"found RANK=0 of 2 processes.*MASTER_ADDR.*start them by torchrun"),
        distributed.join_processes(),
    ):
        pass
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(ak.KinosonError, match=r"without torch\.distributed"), distributed.join_processes():
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")  # a cluster sets it for single processes too
    with distributed.join_processes() as ranks:
        assert ranks == Ranks(0, 1)


def test_groups_are_shared_out_whole():
    groups = np.repeat([4, 9, 1, 7, 8], [2, 10, 1, 3, 6])
    who = owners(groups, Ranks(0, 2))
    assert all(len(set(who[groups == g])) == 1 for g in groups)
    assert np.bincount(who).tolist() == [11, 11]
    with pytest.raises(StatesError, match="found 6 processes for 5 groups"):
        owners(groups, Ranks(0, 6))


def test_a_chain_has_one_stream_for_any_number_of_processes():
    every = np.random.default_rng(5)
    own = Columns(np.random.default_rng(5), 7, np.array([1, 4]))
    for _ in range(2):
        np.testing.assert_array_equal(every.random((3, 7))[:, [1, 4]], own.random((3, 2)))
        np.testing.assert_array_equal(every.integers(9, size=(3, 7))[:, [1, 4]], own.integers(9, size=(3, 2)))


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with distributed.join_processes() as ranks:
        assert ranks == Ranks(0, 1) and ranks.first
        assert not torch.distributed.is_initialized()
