"""Trainings that test_distributed.py runs in one process and, as `trained_together.py FOLDER RANK`, in two."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ase_kinoson as ak
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons import distributed
from ase_kinoson.kinosons.distributed import Ranks, SharedObjective
from ase_kinoson.validation import parent, tiny_cell

GAS = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
SMALL = {"hidden": 4, "n_blocks": 1, "batch_size": 9, "closure_epochs": 1, "epochs": 2, "seed": 7}


def lopsided(cell: ak.Supercell, n: int) -> ak.States:
    """States in groups of unequal size and with unequal weights: shares of them are never equal."""
    rng = np.random.default_rng(3)
    groups = rng.choice([2, 3, 5, 8, 13, 21, 34], p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1], size=n)
    made = sample_states(cell, n, seed=4)
    return ak.States.from_occupations(
        cell, made.occupations, carriers=made.carriers, groups=groups, weights=rng.uniform(0.2, 3.0, size=n)
    )


def network_and_gates() -> ak.Relaxation:
    """Two basis sites, closed form of the factors, gates, and the network by steps."""
    cell = parent("honeycomb").supercell((3, 3, 1))
    jumps = ak.JumpNetwork.from_supercell(cell)
    return ak.train_relaxation(
        cell, jumps, GAS, states=lopsided(cell, 70), form="network", lookahead=1, gates=4, **SMALL
    )


def clusters() -> ak.Relaxation:
    """The closed form, whose ridge is chosen on states left out."""
    cell, jumps = tiny_cell({"Ag": 4, "Cu": 4})
    return ak.train_relaxation(cell, jumps, GAS, states=lopsided(cell, 90), form="clusters", gates=0, **SMALL)


def fresh_states() -> ak.Relaxation:
    """Monte Carlo chains that go on while the network learns."""
    cell, jumps = tiny_cell({"Ag": 4, "Cu": 4})
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.05}), {"Ag": 0.6, "Cu": 0.5})
    return ak.train_relaxation(
        cell, jumps, model, temperature_K=600.0, n_states=230, refresh=0.5, form="network", lookahead=1, gates=0,
        **SMALL,
    )  # fmt: skip


def fine_tuned() -> ak.Relaxation:
    """Other rates than those that y was made for."""
    cell, jumps = tiny_cell({"Ag": 4, "Cu": 4})
    wrong = ak.Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}), jumps)
    y = ak.Relaxation.create(jumps, rates=wrong, lookahead=1, form="paths", gates=4, seed=1)
    return ak.fine_tune(y, lopsided(cell, 70), GAS, epochs=2, batch_size=9, learning_rate=1e-2, seed=2)


CASES: dict[str, Callable[[], ak.Relaxation]] = {
    f.__name__: f for f in (network_and_gates, clusters, fresh_states, fine_tuned)
}


def outcome(y: ak.Relaxation) -> dict[str, Any]:
    """What two trainings are compared by."""
    return {
        "weights": torch.cat([p.detach().double().reshape(-1) for p in y.parameters()]),
        "history": y.report["history"],
        "bounds": y.report["bound_ratios"],
        "keys": y.report["training_keys"],
    }


def own_mean(self: SharedObjective, relaxation: ak.Relaxation, which: int, rows: torch.Tensor) -> torch.Tensor:
    """Broken: each process averages over its own states of a batch, and all processes count alike."""
    pool, where = self._local[which]
    here = where[rows]
    here = here[here >= 0]
    if pool is None or not len(here):
        return torch.zeros(())
    return self.local.parts(relaxation, pool, here).mean() / len(here) / self.ranks.size


def refusals(rank: int) -> list[str]:
    """What is said where the two processes are asked for unlike things; nothing where they differ by rounding."""
    cell, jumps = tiny_cell({"Ag": 4, "Cu": 4})
    said = []
    for options, gas in (
        ({"seed": rank}, GAS),
        ({"n_states": 60 + rank}, GAS),
        ({}, ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0 + rank})),
        ({}, ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0 + 1e-12 * rank})),
    ):
        try:
            ak.train_relaxation(cell, jumps, gas, **{"n_states": 60, "form": "paths", "gates": 0, "seed": 1} | options)
            said.append("")
        except ak.KinosonError as error:
            said.append(str(error))
    return said


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=rank, world_size=2)
    with distributed.join_processes() as ranks:  # a group that is there is taken as it is
        assert ranks == Ranks(rank, 2) and ranks.first == (rank == 0)
        found = {name: outcome(case()) for name, case in CASES.items()}
        right = Ranks.sum_gradients, SharedObjective.loss
        Ranks.sum_gradients = lambda self, parameters: None
        found["no sum"] = outcome(network_and_gates())
        Ranks.sum_gradients, SharedObjective.loss = right[0], own_mean
        found["no weights"] = outcome(network_and_gates())
        Ranks.sum_gradients, SharedObjective.loss = right
        found["unlike"] = refusals(rank)
    torch.distributed.destroy_process_group()
    torch.save(found, folder / f"found-{rank}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore", ak.KinosonWarning)
    main(Path(sys.argv[1]), int(sys.argv[2]))
