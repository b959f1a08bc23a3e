"""Shared model alloys."""

from __future__ import annotations

import pytest
import torch

import ase_kinoson as ak
from ase_kinoson.validation import tiny_cell

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> tuple[ak.Supercell, ak.JumpNetwork]:
    """3×3 square lattice with 4 Ag, 4 Cu and a vacancy: 70 states up to translation."""
    return tiny_cell({"Ag": 4, "Cu": 4})


@pytest.fixture(scope="session")
def pair_model(tiny: tuple[ak.Supercell, ak.JumpNetwork]) -> ak.PairBarriers:
    """Pair energies and one activation per species on the tiny cell."""
    cell, _ = tiny
    energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03})
    return ak.PairBarriers(energy, {"Ag": 0.6, "Cu": 0.5})


@pytest.fixture(scope="session")
def pair_relaxation(tiny: tuple[ak.Supercell, ak.JumpNetwork], pair_model: ak.PairBarriers) -> ak.Relaxation:
    """A relaxation trained on equilibrium states of the pair model at 600 K."""
    cell, network = tiny
    return ak.train_relaxation(
        cell, network, pair_model, temperature_K=600.0, n_states=400, epochs=15, hidden=12, seed=2
    )
