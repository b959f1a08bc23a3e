"""Share of the diffusivity that rests on unsettled barriers."""

import numpy as np
import pytest

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.kinetics.rates import rates_from_barriers
from ase_kinoson.kinetics.unsettled import unsettled_shares
from tests.barriers.bad_luck import small_study

TEMPERATURE_K = 900.0


@pytest.fixture(scope="module")
def barriers():
    states, network = small_study(4)
    rng = np.random.default_rng(4)
    barrier = rng.uniform(0.5, 1.0, (len(states), network.n_jumps))
    descents = np.where(rng.random(barrier.shape) < 0.2, "unsettled", "both-ends")
    return Barriers.from_arrays(states, network, barrier, reverse_barrier=barrier, descents=descents)


def test_closing_unsettled_jumps_lowers_the_uncorrelated_value_by_their_share(barriers):
    states = barriers.states.with_weights([0.4, 0.3, 0.2, 0.1])
    weighted = Barriers.from_arrays(
        states, barriers.network, barriers.barrier, reverse_barrier=barriers.barrier, descents=barriers.descents
    )

    def value(closed, species):
        rates = rates_from_barriers(np.where(closed, np.inf, barriers.barrier), TEMPERATURE_K)
        own = np.ones(rates.shape, bool) if species == "carrier" else barriers.moving_species == code(species)
        return float((states.weights[:, None] * rates * own).sum())  # all jumps are equally long

    def code(species):
        return states.supercell.species.index(species)

    def right(found):
        for species, share in found.items():
            fall = 1.0 - value(weighted.unsettled, species) / value(np.zeros_like(weighted.unsettled), species)
            assert share == pytest.approx(fall, rel=1e-9) and 0 < share < 1

    found = unsettled_shares(weighted, TEMPERATURE_K)
    assert set(found) == {"carrier", "Cu", "Ni"}
    right(found)
    with pytest.raises(AssertionError):  # the twin that forgets the weights of the states
        right(unsettled_shares(barriers, TEMPERATURE_K))
    with pytest.raises(AssertionError):  # the twin that counts jumps
        right(dict.fromkeys(found, weighted.n_unsettled / weighted.n_barriers))


def test_settled_barriers_carry_everything(barriers):
    plain = Barriers.from_arrays(barriers.states, barriers.network, barriers.barrier, reverse_barrier=barriers.barrier)
    assert set(unsettled_shares(plain, TEMPERATURE_K).values()) == {0.0}
