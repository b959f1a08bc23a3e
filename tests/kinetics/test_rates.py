"""Rates from barriers: attempt frequencies of jumps of their own."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units

import ase_kinoson as ak

T = 900.0


@pytest.fixture(scope="module")
def pair(tiny):
    """A state, its neighbour behind jump 0, and barriers between them that agree."""
    cell, network = tiny
    first = ak.sample_states(cell, 1, seed=2)
    after, where = network.apply(first.occupations, first.carriers, [0])
    occupations = np.concatenate([first.occupations, after])
    states = ak.States.from_occupations(cell, occupations, carriers=np.append(first.carriers, where))
    barrier = np.full((2, network.n_jumps), 0.5)
    back = int(network.reverse[network.basis_of(first.carriers)[0], 0])
    barrier[1, back] = 0.4
    reverse = np.full_like(barrier, 0.45)
    reverse[0, 0], reverse[1, back] = 0.4, 0.5
    return states, network, barrier, reverse, back


def test_own_frequencies_replace_the_common_one(pair):
    states, network, barrier, reverse, back = pair
    own = np.full(barrier.shape, np.nan)
    own[0, 0] = own[1, back] = 3e12
    plain, found = (
        ak.Barriers.from_arrays(states, network, barrier, reverse_barrier=reverse, attempt_frequency=f)
        for f in (None, own)
    )
    common = ak.Rates.of(plain, network, temperature_K=T, attempt_frequency=1e13)
    rates = ak.Rates.of(found, network, temperature_K=T, attempt_frequency=1e13)
    w = rates(states.occupations, states.carriers)
    assert w[0, 0] == pytest.approx(3e12 * np.exp(-0.5 / (units.kB * T)), rel=1e-12)
    assert w[0, 1] == common(states.occupations, states.carriers)[0, 1]
    # detailed balance: forward and backward differ by the energies alone, whichever way they are asked for
    forward, backward = rates.with_reverse(states.occupations, states.carriers)
    assert forward[0, 0] / forward[1, back] == pytest.approx(np.exp(-0.1 / (units.kB * T)), rel=1e-12)
    assert backward[0, 0] == pytest.approx(forward[1, back], rel=1e-12)
    # broken twin: prefactors of the two directions instead of their mean
    own[1, back] = 5e12
    broken = ak.Barriers.from_arrays(states, network, barrier, reverse_barrier=reverse, attempt_frequency=own)
    w = ak.Rates.of(broken, network, temperature_K=T)(states.occupations, states.carriers)
    assert w[0, 0] / w[1, back] != pytest.approx(np.exp(-0.1 / (units.kB * T)), rel=0.1)
    # parts keep what belongs to them
    assert np.array_equal(found[[1]].attempt_frequency, found.attempt_frequency[[1]], equal_nan=True)
