"""Neighbours drawn by the probability of their jumps, and the barriers of both."""

from __future__ import annotations

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics import neighbors
from ase_kinoson.validation import tiny_cell

GAS = ak.RandomBarriers(mean=0.6, std=0.1, seed=3)
T = 900.0


@pytest.fixture
def square():
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    return network, ak.sample_states(cell, 40, seed=0)


def test_neighbors_are_one_jump_away_and_drawn_by_their_rates(square):
    network, states = square
    rates = ak.Rates.of(GAS, network, temperature_K=T)
    w = rates(states.occupations, states.carriers)
    p = w / w.sum(axis=1, keepdims=True)
    counts = np.zeros_like(p)
    for seed in range(300):
        drawn = ak.draw_neighbors(states, network, GAS, temperature_K=T, seed=seed)
        jumps = np.array(drawn.report["jumps"])
        counts[np.arange(40), jumps] += 1
    occupations, carriers = network.apply(states.occupations, states.carriers, jumps)
    np.testing.assert_array_equal(drawn.occupations, occupations)
    np.testing.assert_array_equal(drawn.carriers, carriers)
    np.testing.assert_array_equal(drawn.groups, states.groups)
    weighted = states.with_weights(np.arange(1.0, 41.0))
    after = ak.draw_neighbors(weighted, network, GAS, temperature_K=T)
    np.testing.assert_array_equal(after.weights, weighted.weights)
    np.testing.assert_allclose(drawn.report["probabilities"], p[np.arange(40), jumps])

    def chi2(expected):
        return ((counts - 300 * expected) ** 2 / (300 * expected)).sum()

    assert chi2(p) < 120 + 4 * np.sqrt(240)  # 40 states with 3 degrees of freedom each
    assert chi2(np.full_like(p, 0.25)) > 300  # broken twin: every jump alike


def test_a_state_that_nothing_leaves_is_refused(square):
    network, states = square
    with pytest.raises(StatesError, match="no jump leaves"):
        ak.draw_neighbors(states, network, ak.SpeciesRates({"Ag": 0.0, "Cu": 0.0}))


def test_pairs_ask_for_the_neighbors_of_the_barriers_just_found(square, monkeypatch):
    network, states = square
    asked = []

    def compute(part, jumps, calculator, **options):
        asked.append((len(part), options))
        energies = calculator().bind(jumps).jump_energies(part.occupations, part.carriers)
        return ak.Barriers.from_arrays(part, jumps, energies.barrier, reverse_barrier=energies.barrier)

    monkeypatch.setattr(neighbors, "compute_barriers", compute)
    barriers, drawn = ak.compute_pairs(states[:20], network, lambda: GAS, temperature_K=T, seed=4, store="here")
    assert asked == [(20, {"store": "here"}), (20, {"store": "here"})]
    expected = ak.draw_neighbors(states[:20], network, GAS, temperature_K=T, seed=4)
    np.testing.assert_array_equal(drawn.occupations, expected.occupations)
    assert len(barriers.states) == 40
    again = ak.compute_pairs(states[:20], network, lambda: GAS, temperature_K=T, seed=4)[1]
    np.testing.assert_array_equal(drawn.occupations, again.occupations)  # a store finds them again
