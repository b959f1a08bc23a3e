"""Rates from barriers and from gases, and the range of numbers they may have."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from ase import units

import ase_kinoson as ak
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.errors import BarrierError, KinosonError, ModelError
from ase_kinoson.kinetics.rates import (
    LARGEST_RATE,
    SMALLEST_RATE,
    Rates,
    check_scale,
    check_total,
    rates_from_barriers,
)
from ase_kinoson.validation import parent, tiny_cell

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


# -- barriers to rates ------------------------------------------------------------------------------------------------


def test_rates_are_those_of_the_formula():
    kT = units.kB * T
    barrier = np.array([[0.0, 0.5, np.inf], [-0.2, 10.0, 1e308]])
    expected = np.array([[1.0, np.exp(-0.5 / kT), 0.0], [np.exp(0.2 / kT), np.exp(-10.0 / kT), 0.0]])
    np.testing.assert_allclose(rates_from_barriers(barrier, T), 1e13 * expected, rtol=1e-13)
    np.testing.assert_allclose(rates_from_barriers(barrier, T, attempt_frequency=2e12), 2e12 * expected, rtol=1e-13)
    own = np.array([1e12, 2e12, 3e12])
    np.testing.assert_allclose(rates_from_barriers(barrier, T, attempt_frequency=own), own * expected, rtol=1e-13)
    one = rates_from_barriers(0.5, T)
    assert np.ndim(one) == 0 and float(one) == pytest.approx(1e13 * expected[0, 1], rel=1e-13)
    assert rates_from_barriers(np.zeros((0, 4)), T).shape == (0, 4)


def test_rates_span_300_decades():
    """1 eV at 50 K is 1e-88 s⁻¹; at 10 eV no number is left, and the rate is 0."""
    barrier = np.linspace(0.0, 3.0, 31)
    rates = rates_from_barriers(barrier, 50.0)
    np.testing.assert_allclose(np.log(rates), np.log(1e13) - barrier / (units.kB * 50.0), rtol=1e-12)
    assert 1e-89 < rates[10] < 1e-87 and 1e-290 < rates[30] < 1e-288
    assert rates_from_barriers(10.0, 50.0) == 0.0
    assert float(np.log10(rates_from_barriers(10.0, 5000.0))) == pytest.approx(2.921, abs=1e-3)


@pytest.mark.parametrize("n", [1, 2])
def test_barriers_that_are_nan_are_counted(n):
    barrier = np.array([0.5, 0.5, *[np.nan] * n])
    with pytest.raises(BarrierError, match=f"found {n} barriers that are NaN; expected numbers in eV"):
        rates_from_barriers(barrier, T)


@pytest.mark.parametrize("lowest", [-5.0, -np.inf])
def test_rates_beyond_all_numbers_are_refused(lowest):
    with pytest.raises(BarrierError, match=f"found a barrier of {lowest:g} eV, whose rate at 50 K exceeds"):
        rates_from_barriers(np.array([0.1, lowest, np.inf]), 50.0)


@pytest.mark.parametrize("frequency", [0.0, -1e13, np.inf, np.nan, "1e13", True, None, 1e13 + 0j])
def test_attempt_frequencies_that_are_no_positive_numbers_are_refused(frequency):
    with pytest.raises(KinosonError) as error:
        rates_from_barriers(np.array([0.5]), T, attempt_frequency=frequency)
    assert f"found attempt_frequency={frequency!r}; expected a positive number in s⁻¹" in str(error.value)


def test_the_first_bad_attempt_frequency_is_named():
    with pytest.raises(KinosonError, match=r"found attempt_frequency=-3\.0; expected"):
        rates_from_barriers(np.full(3, 0.5), T, attempt_frequency=np.array([1e13, -3.0, 0.0]))
    assert rates_from_barriers(np.array([0.0]), T, attempt_frequency=7)[0] == 7.0
    assert rates_from_barriers(np.array([0.0]), T, attempt_frequency=0.5)[0] == 0.5
    assert rates_from_barriers(np.array([0.0]), T, attempt_frequency=np.float32(8))[0] == 8.0


# -- the range of numbers ---------------------------------------------------------------------------------------------


def total(mean, *, allowed=True, has_barriers=True, temperature_K=None):
    check_total(mean, allowed=allowed, has_barriers=has_barriers, temperature_K=temperature_K)


def test_limits_of_the_total_rate():
    assert (SMALLEST_RATE, LARGEST_RATE) == (1e-250, 1e250)
    for fine in (1e-250, 1e-88, 1.0, 1e250):
        total(fine)
    for bad in (0.0, 9e-251, 1.1e250, np.inf, np.nan, -1.0):
        with pytest.raises(KinosonError, match=r"mean total rate of .*; expected 1e-250 to 1e\+250"):
            total(bad)


def test_a_total_of_zero_may_be_right():
    total(0.0, allowed=False)  # no jump at all has a barrier
    total(0.0, has_barriers=False)  # a gas in which nothing moves
    total(0.0, allowed=False, has_barriers=False)
    for more in ({"allowed": False}, {"has_barriers": False}):
        with pytest.raises(KinosonError, match="mean total rate of 1e-300"):
            total(1e-300, **more)
        with pytest.raises(KinosonError, match="mean total rate of -1 "):
            total(-1.0, **more)


def test_the_temperature_is_named_where_it_is_known():
    with pytest.raises(KinosonError, match=r"rate of 0 s⁻¹ at 50 K; expected"):
        total(0.0, temperature_K=50.0)
    with pytest.raises(KinosonError, match=r"rate of 0 s⁻¹; expected"):
        total(0.0)


def test_the_mean_is_over_weighted_states():
    rates = np.array([[0.0, 0.0], [1e-249, 3e-249]])
    check_scale(rates, np.array([0.5, 0.5]))
    with pytest.raises(KinosonError, match="rate of 4e-251 s⁻¹ at 9 K"):
        check_scale(rates, np.array([0.99, 0.01]), temperature_K=9.0)
    nothing = np.zeros((2, 2))
    check_scale(nothing, np.array([0.5, 0.5]))  # a gas
    check_scale(nothing, np.array([0.5, 0.5]), barrier=np.full((2, 2), np.inf))
    barrier = np.full((2, 2), np.inf)
    barrier[1, 0] = 10.0
    with pytest.raises(KinosonError, match="rate of 0 "):
        check_scale(nothing, np.array([0.5, 0.5]), barrier=barrier)


# -- Rates ------------------------------------------------------------------------------------------------------------


def test_rates_of_rates_keep_their_temperature_and_frequency(tiny, pair_model):
    _, network = tiny
    first = Rates.of(pair_model, network, temperature_K=T, attempt_frequency=2e12)
    for again in (Rates.of(first, network), Rates.of(first, network, temperature_K=T)):
        assert (again.temperature_K, again.attempt_frequency) == (T, 2e12)
        assert again.source is first.source and again.network is network
    with pytest.raises(KinosonError, match=r"temperature_K=800.0 for rates of 900.0 K"):
        Rates.of(first, network, temperature_K=800.0)
    plain = Rates(first.source, network)
    assert (plain.temperature_K, plain.attempt_frequency) == (None, 1e13)
    assert Rates.of(plain, network, temperature_K=T).temperature_K == T
    with pytest.raises(KinosonError, match="found no temperature for barriers"):
        Rates.of(plain, network)


def test_temperatures_of_gases_are_kept_and_checked(tiny):
    _, network = tiny
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    assert Rates.of(gas, network).temperature_K is None
    assert Rates.of(gas, network, temperature_K=T).temperature_K == T
    with pytest.raises(KinosonError, match="positive number of kelvin"):
        Rates.of(gas, network, temperature_K=-1.0)


def test_sources_of_other_lattices_species_and_cells_are_refused(tiny, pair_model):
    cell, network = tiny
    with pytest.raises(ModelError, match="found int as a source of barriers"):
        Rates.of(3, network, temperature_K=T)
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    gold = ak.JumpNetwork.from_supercell(tiny_cell({"Ag": 4, "Au": 4})[0])
    with pytest.raises(ModelError, match=r"knows the species \('Ag', 'Cu'\); expected \('Ag', 'Au'\)"):
        Rates.of(pair_model.bind(network), gold, temperature_K=T)
    with pytest.raises(ModelError, match=r"knows the species \('Ag', 'Au'\); expected \('Ag', 'Cu'\)"):
        Rates.of(ak.SpeciesRates({"Ag": 0.1, "Au": 0.2}).bind(gold), network)
    other = ak.JumpNetwork.from_supercell(parent("fcc", {"Ag": 0.5, "Cu": 0.5}).supercell(2))
    with pytest.raises(ModelError, match="the barrier source knows other jumps"):
        Rates.of(pair_model.bind(network), other, temperature_K=T)
    with pytest.raises(ModelError, match="the barrier source knows other jumps"):
        Rates.of(gas.bind(other), network)
    larger = network.with_supercell(cell.alloy.supercell((4, 4, 1)))
    with pytest.raises(ModelError, match="bound to a supercell of 9 sites; expected the one of 16"):
        Rates.of(pair_model.bind(network), larger, temperature_K=T)

    class Movable:
        """A bound source that can be carried to another cell."""

        def __init__(self, network):
            self.network = network

        def jump_rates(self, occupations, carriers):
            return np.ones((len(occupations), 4))

        def on(self, supercell):
            return Movable(self.network.with_supercell(supercell))

    assert Rates.of(Movable(network), larger).source.network.supercell == larger.supercell
    assert Rates.of(Movable(network), network).source.network is network


def test_what_a_source_was_made_for_is_compared_by_value(tiny):
    cell, network = tiny
    equal = ak.Alloy.from_dict(cell.alloy.as_dict()).supercell((3, 3, 1))
    assert equal == cell and equal is not cell and equal.species is not cell.species

    class Bound:
        """A source of one cell, that cannot be carried to another."""

        def __init__(self):
            self.network = ak.JumpNetwork.from_supercell(equal)

        def jump_rates(self, occupations, carriers):
            return np.ones((len(occupations), 4))

    assert Rates.of(Bound(), network).source.network.supercell is equal


def test_options_are_named_and_rates_cannot_be_changed(tiny):
    _, network = tiny
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    for call in (
        lambda: rates_from_barriers(np.array([0.5]), T, 1e13),
        lambda: check_scale(np.ones((1, 1)), np.ones(1), np.ones((1, 1))),
        lambda: check_total(1.0, True, True, None),
        lambda: Rates.of(gas, network, T),
    ):
        with pytest.raises(TypeError, match="positional"):
            call()
    one, other = Rates.of(gas, network), Rates.of(gas, network)
    with pytest.raises(FrozenInstanceError):
        one.temperature_K = 300.0
    assert one != other and len({one, other, one}) == 2


def test_energies_rates_and_weights_of_each_kind_of_source(tiny, pair_model):
    cell, network = tiny
    states = ak.sample_states(cell, 3, seed=1)
    occupations, carriers = states.occupations, states.carriers
    barriers = Rates.of(pair_model, network, temperature_K=T)
    energies = barriers.energies(occupations, carriers)
    model = barriers.source.energy
    assert np.array_equal(energies.barrier, barriers.source.jump_energies(occupations, carriers).barrier)
    assert np.array_equal(barriers(occupations, carriers), rates_from_barriers(energies.barrier, T))
    assert np.array_equal(barriers.state_energies(occupations), model.energies(occupations))
    np.testing.assert_allclose(
        barriers.log_weights(occupations), -model.energies(occupations) / (units.kB * T), rtol=1e-13
    )
    gas = Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    assert gas.energies(occupations, carriers) is None
    w = gas(occupations, carriers)
    assert set(np.unique(w)) <= {0.1, 1.0}
    forward, backward = gas.with_reverse(occupations, carriers)
    assert np.array_equal(forward, w) and np.array_equal(backward, w)
    assert np.array_equal(gas.state_energies(occupations), np.zeros(3))
    assert np.array_equal(gas.log_weights(occupations), np.zeros(3))


def test_a_gas_may_know_its_reverse_rates_and_the_energies_of_its_states(tiny):
    _, network = tiny

    class Gas:
        def __init__(self, network):
            self.network = network

        def jump_rates(self, occupations, carriers):
            return np.full((len(occupations), 4), 2.0)

        def reverse_rates(self, occupations, carriers):
            return np.full((len(occupations), 4), 3.0)

    rates = Rates.of(Gas(network), network)
    occupations = np.zeros((2, 9), dtype=np.int8)
    forward, backward = rates.with_reverse(occupations, np.zeros(2, int))
    assert np.all(forward == 2.0) and np.all(backward == 3.0)
    assert rates.state_energies(occupations) is None
    assert np.array_equal(rates.log_weights(occupations), np.zeros(2))
    rates.source.state_energies = lambda occupations: [1, 2]
    found = rates.state_energies(occupations)
    assert found.dtype == float and found.tolist() == [1.0, 2.0]


def test_rejected_jumps_have_no_rate_in_either_direction(pair):
    states, network, barrier, reverse, _ = pair
    closed, open_back = barrier.copy(), reverse.copy()
    closed[0, 1] = open_back[0, 1] = np.inf
    rates = Rates.of(
        ak.Barriers.from_arrays(states, network, closed, reverse_barrier=open_back), network, temperature_K=T
    )
    forward, backward = rates.with_reverse(states.occupations, states.carriers)
    assert forward[0, 1] == 0.0 == backward[0, 1]
    assert np.all(np.delete(forward[0], 1) > 0) and np.all(np.delete(backward[0], 1) > 0)


def test_own_frequencies_that_are_no_numbers_are_not_replaced(pair):
    """NaN says that a frequency is not known; infinity would be taken for the common one."""
    states, network, barrier, reverse, _ = pair
    energies = JumpEnergies(barrier, barrier - reverse, np.full(barrier.shape, np.inf))
    rates = Rates.of(
        ak.Barriers.from_arrays(states, network, barrier, reverse_barrier=reverse), network, temperature_K=T
    )
    with pytest.raises(KinosonError, match=r"attempt_frequency=inf"):
        rates_from_barriers(barrier, T, attempt_frequency=rates._frequency(energies))
