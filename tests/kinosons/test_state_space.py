"""Enumeration: all arrangements once, in a fixed order, and every jump leads where it should."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

import ase_kinoson as ak
from ase_kinoson.errors import ModelError
from ase_kinoson.kinosons.exact import exact_lambda
from ase_kinoson.kinosons.state_space import StateSpace, _combinations, _multiset
from ase_kinoson.validation import hcp_interstitials, parent


def square():
    cell = parent("square", {"Ag": 0.4, "Cu": 0.3, "Ni": 0.3}).supercell((4, 3, 1))
    return ak.JumpNetwork.from_supercell(cell), {"Ag": 6, "Cu": 3, "Ni": 2}


def honeycomb():
    return ak.JumpNetwork.from_supercell(parent("honeycomb").supercell(3)), {"Ag": 15, "Cu": 2}


def fixed_sublattice():
    sheet = Atoms("CuNi", cell=[2.5, 2.5, 10], positions=[[0, 0, 5], [1.25, 1.25, 6]], pbc=(1, 1, 0))
    alloy = ak.Alloy.from_atoms(sheet, {"Cu": {"Ag": 0.7, "Cu": 0.3}, "Ni": {"Ni": 0.8, "Fe": 0.2}}, mobile=["Cu"])
    return ak.JumpNetwork.from_supercell(alloy.supercell((3, 3, 1))), None


def interstitial():
    return hcp_interstitials(), None


CASES = [square, honeycomb, fixed_sublattice, interstitial]


@pytest.mark.parametrize(("n", "k"), [(5, 0), (5, 1), (6, 3), (4, 4)])
def test_choices_are_those_of_itertools(n, k):
    np.testing.assert_array_equal(_combinations(n, k), list(itertools.combinations(range(n), k)))


def test_arrangements_are_complete_distinct_and_in_lexicographic_order():
    rows = _multiset(7, {1: 3, 2: 2, 3: 2})
    assert rows.dtype == np.int8
    assert len(rows) == len(set(map(bytes, rows))) == math.factorial(7) // (6 * 2 * 2)
    assert all(np.array_equal(np.bincount(r, minlength=4), [0, 3, 2, 2]) for r in rows)
    places = [(*np.flatnonzero(r == 2), *np.flatnonzero(r[r != 2] == 3)) for r in rows]
    assert places == sorted(places)
    # sites that no species fills stay empty
    assert np.bincount(_multiset(4, {1: 1})[0], minlength=2).tolist() == [3, 1]


@pytest.mark.parametrize("case", CASES)
def test_every_jump_leads_to_the_state_it_makes(case):
    network, counts = case()
    space = StateSpace.enumerate(network, counts=counts)
    cell, sites = network.supercell, np.arange(network.supercell.n_sites)
    index = {row.tobytes(): i for i, row in enumerate(space.occupations)}
    assert len(index) == len(space)
    exists = network.exists[network.basis_of(space.carriers)]
    np.testing.assert_array_equal(space.next_state >= 0, exists)
    for i in np.random.default_rng(0).integers(len(space), size=30):
        for k in np.flatnonzero(exists[i]):
            occupation, carrier = network.apply(space.occupations[[i]], space.carriers[[i]], [k])
            home = occupation[0, cell.translate(sites, cell.cell_coordinates(carrier[0] // cell.alloy.n_basis))]
            assert space.next_state[i, k] == index[home.tobytes()]


def test_wrong_links_are_noticed():
    network, counts = square()
    space = StateSpace.enumerate(network, counts=counts)
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 0.1, "Ni": 0.5}), network)
    exact_lambda(space, rates)
    # broken twin: two jumps lead to each other's states
    with pytest.raises(ModelError, match="detailed balance"):
        exact_lambda(replace(space, next_state=space.next_state[:, [1, 0, 2, 3]]), rates)


def test_quenched_weights_move_the_vacancy_only(tiny, pair_model):
    cell, network = tiny
    space = StateSpace.enumerate(network)
    rates = ak.Rates.of(pair_model, network, temperature_K=600.0)
    boltzmann = np.exp(rates.log_weights(space.occupations))
    index = {row.tobytes(): i for i, row in enumerate(space.occupations)}
    expected = np.zeros(len(space))
    for row, carrier in zip(space.occupations, space.carriers, strict=True):
        images = []
        for site in cell.mobile_sites:
            moved = row.copy()
            moved[carrier], moved[site] = row[site], 0
            home = cell.translate(np.arange(cell.n_sites), cell.cell_coordinates(site // cell.alloy.n_basis))
            images.append(index[moved[home].tobytes()])
        share = boltzmann[images]
        np.add.at(expected, images, share / share.sum() / len(space))
    weights = space.weights(rates, ensemble="quenched")
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    # broken twin: in equilibrium the other atoms order as well
    assert np.abs(space.weights(rates) - expected).max() > 0.05 * expected.max()
