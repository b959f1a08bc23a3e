"""Model alloys obey detailed balance exactly and have the symmetry of the lattice."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.errors import BarrierError, KinosonError, ModelError
from ase_kinoson.kinetics.rates import rates_from_barriers
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.validation import parent


def forward_and_reverse(source, states):
    """Barriers of all jumps and of their reverses, eV, shape (n_states, J) each, and ΔE forward and back."""
    network = states.supercell and source.network
    there = source.jump_energies(states.occupations, states.carriers)
    back = np.full_like(there.barrier, np.inf)
    delta = np.zeros_like(back)
    rows = np.arange(len(states))
    basis = network.basis_of(states.carriers)
    for k in range(network.n_jumps):
        ok = network.exists[basis, k]
        occ, carriers = network.apply(states.occupations[ok], states.carriers[ok], np.full(ok.sum(), k))
        e = source.jump_energies(occ, carriers)
        reverse = network.reverse[basis[ok], k]
        back[rows[ok], k] = e.barrier[np.arange(ok.sum()), reverse]
        delta[rows[ok], k] = e.delta_e[np.arange(ok.sum()), reverse]
    return there, back, delta


@pytest.mark.parametrize("lattice", ["fcc", "hcp", "honeycomb", "square"])
def test_random_barriers_are_equal_both_ways(lattice):
    if lattice == "hcp":
        cell = ak.Alloy.from_atoms(bulk("Mg"), {"Mg": {"Ag": 0.5, "Cu": 0.5}}).supercell((4, 4, 3))
    else:
        cell = parent(lattice).supercell(3 if lattice != "honeycomb" else 4)
    source = ak.RandomBarriers(mean=0.8, std=0.1, seed=1).bind(ak.JumpNetwork.from_supercell(cell))
    states = sample_states(cell, 20, seed=2)
    there, back, _ = forward_and_reverse(source, states)
    finite = np.isfinite(there.barrier)
    np.testing.assert_array_equal(there.barrier[finite], back[finite])
    values = np.unique(there.barrier[finite])
    # broken twin: another landscape for the way back would differ
    other = ak.RandomBarriers(mean=0.8, std=0.1, seed=2).bind(source.network)
    assert np.abs(there.barrier - other.jump_energies(states.occupations, states.carriers).barrier)[finite].max() > 0.05
    if lattice != "square":
        assert values.mean() == pytest.approx(0.8, abs=4 * 0.1 / np.sqrt(len(values)))
        assert values.std() == pytest.approx(0.1, rel=0.3)


def test_pair_barriers_obey_detailed_balance(tiny, pair_model):
    cell, network = tiny
    source = pair_model.bind(network)
    states = sample_states(cell, 50, seed=3)
    there, back, delta = forward_and_reverse(source, states)
    np.testing.assert_allclose(there.delta_e, -delta, atol=1e-14)
    np.testing.assert_allclose(there.barrier - there.delta_e, back, atol=1e-14)
    assert np.abs(there.barrier - back).max() > 1e-3


def test_bound_gases_refuse_wrong_species(tiny):
    _, network = tiny
    with pytest.raises(KinosonError, match="one for each mobile species"):
        ak.SpeciesRates({"Ag": 1.0, "Fe": 1.0}).bind(network)
    with pytest.raises(KinosonError, match="≥ 0"):
        ak.SpeciesRates({"Ag": 1.0, "Cu": -1.0}).bind(network)
    with pytest.raises(KinosonError, match="one per symmetry class"):
        ak.SiteBarriers((0.0, 0.0), (1.0,)).bind(network)


def test_rates_from_barriers():
    rates = rates_from_barriers(np.array([0.5, np.inf]), 1000.0, attempt_frequency=1e13)
    assert rates[1] == 0.0
    assert rates[0] == pytest.approx(1e13 * np.exp(-0.5 / 0.08617330), rel=1e-6)
    with pytest.raises(BarrierError, match="NaN"):
        rates_from_barriers(np.array([np.nan]), 1000.0)
    with pytest.raises(KinosonError, match="positive number of kelvin"):
        rates_from_barriers(np.array([0.5]), 0.0)


def test_a_model_of_another_lattice_is_refused(tiny, pair_model):
    other = ak.JumpNetwork.from_supercell(parent("fcc").supercell(3))
    with pytest.raises(ModelError, match="other jumps"):
        ak.Rates.of(pair_model.bind(tiny[1]), other, temperature_K=600.0)
