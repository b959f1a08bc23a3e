"""States that walkers are in, weighted by their residence times, are an equilibrium sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.kinosons.exact import StateSpace


def equilibrium(snapshot, rates, space):
    """Γ of the states that are visited has the mean and the mean inverse of all states."""
    exact = rates(space.occupations, space.carriers).sum(axis=1)
    found = rates(snapshot.occupations, snapshot.carriers).sum(axis=1)
    for value in (lambda gamma: gamma, lambda gamma: 1.0 / gamma):
        mean = snapshot.weights @ value(found)
        error = np.sqrt((snapshot.weights**2) @ (value(found) - mean) ** 2)
        assert abs(mean - value(exact).mean()) < 4 * error
        assert error < 0.05 * mean


@pytest.mark.parametrize("n_jumps", [0, 20])
def test_residence_times_weigh_the_states_that_walkers_are_in(tiny, n_jumps):
    _, network = tiny
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.05, "Cu": 1.0}), network)
    space = StateSpace.enumerate(network)
    states = space.states(space.weights(rates), ensemble="equilibrium")
    walkers = ak.KineticMonteCarlo(states, network, rates, n_walkers=8000, seed=3)
    walkers.run(n_jumps)
    snapshot = walkers.snapshot(states)
    equilibrium(snapshot, rates, space)
    with pytest.raises(AssertionError):  # the chain of jumps visits states as often as they are left
        equilibrium(replace(snapshot, weights=np.full(len(snapshot), 1 / len(snapshot))), rates, space)
