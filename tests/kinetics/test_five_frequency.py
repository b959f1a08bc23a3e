"""The five-frequency model: its rates, their detailed balance, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.barriers.source import BarrierSource, EnergyModel
from ase_kinoson.errors import KinosonError, ModelError, StructureError
from ase_kinoson.kinetics.five_frequency import FiveFrequency
from ase_kinoson.kinosons.state_space import StateSpace
from ase_kinoson.testing import reverse_defect
from ase_kinoson.units import thermal_energy
from ase_kinoson.validation import parent

T = 800.0
GAS = FiveFrequency("Cu", 1.0, 2.0, 3.0, 4.0, 5.0, temperature_K=T)


@pytest.fixture(scope="module")
def space():
    """One Cu and one vacancy among 108 sites."""
    network = ak.JumpNetwork.from_supercell(parent("fcc").supercell(3))
    return StateSpace.enumerate(network, counts={"Ag": 106, "Cu": 1})


def test_every_jump_has_its_rate(space):
    network = space.network
    w = ak.Rates.of(GAS, network, temperature_K=T)(space.occupations, space.carriers)
    near = space.occupations[:, network.targets([0])[0]] == 2
    exchange = near.argmax(axis=1)
    # 12 states next to the solute: 1 exchange, 4 jumps around it, 7 away; each of the 7 × 12 comes back
    assert near.any(axis=1).sum() == 12
    for row, k in zip(w[near.any(axis=1)], exchange[near.any(axis=1)], strict=True):
        assert row[k] == pytest.approx(3.0)
        np.testing.assert_allclose(np.sort(np.delete(row, k)), [2.0] * 4 + [4.0] * 7)
    far = w[~near.any(axis=1)]
    assert np.isclose(far, 5.0).sum() == 7 * 12
    assert np.isclose(far, 1.0).sum() == far.size - 7 * 12


def test_detailed_balance(space):
    source = GAS.bind(space.network)
    assert isinstance(source, BarrierSource)
    assert isinstance(source.energy, EnergyModel)
    states = space.states(np.ones(len(space)))
    assert reverse_defect(source, states) < 1e-12
    energies = source.energy.energies(space.occupations)
    found = source.jump_energies(space.occupations, space.carriers)
    np.testing.assert_allclose(found.delta_e, energies[space.next_state] - energies[:, None], atol=1e-14)
    assert energies.min() == pytest.approx(-thermal_energy(T) * np.log(5.0 / 4.0))
    # broken twin: a binding of its own, not that of w3 and w4
    broken = replace(source, energy=replace(source.energy, energy=0.3))
    changed = broken.energy.energies(space.occupations)
    assert np.abs(found.delta_e - changed[space.next_state] + changed[:, None]).max() > 0.1


def test_energy_of_an_exchange(space):
    energy = GAS.bind(space.network).energy
    rng = np.random.default_rng(1)
    occupations = space.occupations[rng.integers(len(space), size=400)]
    solute, vacancy = (occupations == 2).argmax(axis=1), (occupations == 0).argmax(axis=1)
    other = rng.integers(108, size=400)
    rows = np.arange(400)
    for first, second in [(vacancy, other), (other, solute), (solute, vacancy), (other, other[::-1])]:
        after = occupations.copy()
        after[rows, first], after[rows, second] = occupations[rows, second], occupations[rows, first]
        expected = energy.energies(after) - energy.energies(occupations)
        np.testing.assert_allclose(energy.swap_delta(occupations, first, second), expected, atol=1e-14)


def test_a_rate_of_zero_is_no_jump(space):
    w = ak.Rates.of(replace(GAS, w2=0.0), space.network, temperature_K=T)(space.occupations, space.carriers)
    assert (w == 0).sum() == 12


@pytest.mark.parametrize("lattice", ["sc", "bcc", "diamond", "square"])
def test_other_lattices_are_refused(lattice):
    network = ak.JumpNetwork.from_supercell(parent(lattice).supercell(4))
    with pytest.raises(StructureError, match="in fcc"):
        GAS.bind(network)


def test_twelve_other_jumps_are_refused():
    cell = parent("sc").supercell(5)
    both = ak.JumpNetwork.from_supercell(cell, cutoff=3.0 * 1.5)
    second = both.restrict([int(np.argmax(both.lengths))])
    assert second.n_jumps == 12
    with pytest.raises(StructureError, match="in fcc"):
        GAS.bind(second)
    hcp = ak.Alloy.from_atoms(bulk("Mg"), {"Mg": {"Ag": 0.5, "Cu": 0.5}}).supercell(3)
    with pytest.raises(StructureError, match="in fcc"):
        GAS.bind(ak.JumpNetwork.from_supercell(hcp))


def test_what_is_no_dilute_alloy_is_refused(space):
    with pytest.raises(KinosonError, match="solute 'Zn'"):
        replace(GAS, solute="Zn").bind(space.network)
    ternary = parent("fcc", {"Ag": 0.5, "Cu": 0.25, "Ni": 0.25}).supercell(3)
    with pytest.raises(KinosonError, match="one of two species"):
        GAS.bind(ak.JumpNetwork.from_supercell(ternary))
    two = space.occupations[:1].copy()
    two[0, np.flatnonzero(two[0] == 1)[0]] = 2
    with pytest.raises(ModelError, match="more than one solute"):
        GAS.bind(space.network).jump_energies(two, space.carriers[:1])


@pytest.mark.parametrize("change", [{"w3": 0.0}, {"w0": -1.0}, {"w1": np.inf}, {"attempt_frequency": 0.0}])
def test_wrong_numbers_are_refused(change):
    with pytest.raises(KinosonError, match="found"):
        replace(GAS, **change)
