"""Equivariance of y by construction, and files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.testing import equivariance_defect, symmetry_operations
from ase_kinoson.validation import parent

CASES = {
    "fcc": lambda: parent("fcc").supercell(3),
    "bcc": lambda: parent("bcc").supercell(4),
    "diamond": lambda: parent("diamond").supercell(2),
    "hcp": lambda: ak.Alloy.from_atoms(bulk("Mg"), {"Mg": {"Ag": 0.5, "Cu": 0.5}}).supercell((4, 4, 3)),
    "honeycomb": lambda: parent("honeycomb").supercell(5),
    "square": lambda: parent("square").supercell(5),
}


def random_relaxation(network: ak.JumpNetwork, lookahead: int, dtype: torch.dtype) -> ak.Relaxation:
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    made = ak.Relaxation.create(network, rates=rates, lookahead=lookahead, hidden=6, seed=1)
    generator = torch.Generator().manual_seed(3)
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    return made.to(dtype)


@pytest.mark.parametrize("lattice", CASES)
@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_equivariance(lattice, lookahead):
    cell = CASES[lattice]()
    network = ak.JumpNetwork.from_supercell(cell)
    states = sample_states(cell, 2, seed=1)
    assert len(symmetry_operations(cell)) >= 8
    double = random_relaxation(network, lookahead, torch.float64)
    scale = np.abs(double(states.occupations, states.carriers)).max()
    assert scale > 1e-3
    assert equivariance_defect(double, states) < 1e-12 * max(scale, 1.0)
    single = random_relaxation(network, lookahead, torch.float32)
    assert equivariance_defect(single, states) < 1e-5 * max(scale, 1.0)


@pytest.mark.parametrize("lattice", ["fcc", "hcp"])
def test_a_broken_network_is_not_equivariant(lattice):
    cell = CASES[lattice]()
    states = sample_states(cell, 2, seed=1)
    broken = random_relaxation(ak.JumpNetwork.from_supercell(cell), 0, torch.float64)
    part = broken.field.parts[0]
    part.in_perm = part.in_perm[torch.roll(torch.arange(part.n_ops), 1)]
    assert equivariance_defect(broken, states) > 1e-3


def test_lookahead_one_without_network_is_the_bias():
    cell = CASES["fcc"]()
    network = ak.JumpNetwork.from_supercell(cell)
    states = sample_states(cell, 3, seed=2)
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    y = ak.Relaxation.create(network, rates=rates, lookahead=1)(states.occupations, states.carriers)
    w = rates(states.occupations, states.carriers)
    p = w / w.sum(axis=1, keepdims=True)
    expected = np.zeros_like(y)
    targets = network.targets(states.carriers)
    for n in range(3):
        expected[n, targets[n]] = -p[n][:, None] * network.vectors[0]
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_save_and_load(tmp_path):
    cell = CASES["square"]()
    network = ak.JumpNetwork.from_supercell(cell)
    states = sample_states(cell, 2, seed=1)
    made = random_relaxation(network, 1, torch.float32)
    made.report["note"] = 1
    made.save(tmp_path / "y")
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    again = ak.Relaxation.load(tmp_path / "y", network, model=gas)
    np.testing.assert_array_equal(again(states.occupations, states.carriers), made(states.occupations, states.carriers))
    assert again.report == made.report
    with pytest.raises(ModelError, match="pass model="):
        ak.Relaxation.load(tmp_path / "y", network)
    other = ak.JumpNetwork.from_supercell(CASES["fcc"]())
    with pytest.raises(ModelError, match="trained on other jumps"):
        ak.Relaxation.load(tmp_path / "y", other, model=gas)
    weights = tmp_path / "y.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="does not match"):
        ak.Relaxation.load(tmp_path / "y", network, model=gas)


def test_bad_lookahead():
    network = ak.JumpNetwork.from_supercell(CASES["square"]())
    with pytest.raises(KinosonError, match="0 or more"):
        ak.Relaxation.create(network, lookahead=-1)
    with pytest.raises(KinosonError, match="at most 2"):
        ak.Relaxation.create(network, lookahead=3)
    with pytest.raises(KinosonError, match="neither a network nor a look-ahead"):
        ak.Relaxation.create(network, lookahead=0, hidden=0)
    for wrong in ({"closure": "none"}, {"form": "linear"}):
        with pytest.raises(KinosonError, match="choose one"):
            ak.Relaxation.create(network, lookahead=0, **wrong)
    with pytest.raises(KinosonError, match="without model rates"):
        ak.Relaxation.create(network, lookahead=1)
