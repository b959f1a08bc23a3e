"""Rates, weights and trajectories: Boltzmann factors over many decades, detailed balance, and two ways to jump."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import units
from hypothesis import assume
from hypothesis import strategies as st

import ase_kinoson as ak
from ase_kinoson.compiled import SWITCH, can_compile
from ase_kinoson.kinetics.rates import rates_from_barriers
from ase_kinoson.kinetics.weights import energy_drift
from ase_kinoson.kinosons.exact import StateSpace
from tests.properties.running import breaks, holds
from tests.properties.strategies import (
    ENERGETIC,
    KINDS,
    VACANCY,
    arrangement,
    models,
    networks,
    problems,
    seeds,
    temperatures,
)

barriers = st.lists(st.floats(-0.5, 8.0), min_size=2, max_size=6)


def boltzmann(rates):
    """ln W = ln ν − Q/k_BT to rounding, over all that a double can hold; an infinite barrier is no jump."""

    def check(q, temperature, decades):
        q, kT = np.array([*q, np.inf]), units.kB * temperature
        w = rates(q, temperature, 10.0**decades)
        assert w[-1] == 0 and np.all(w >= 0)
        assume(max(q[:-1]) / kT < 650 and min(q[:-1]) / kT > -600)
        want = decades * np.log(10.0) - q[:-1] / kT
        assert np.abs(np.log(w[:-1]) - want).max() <= 1e-14 * max(1.0, np.abs(want).max()) + 1e-13

    return check


def own(q, temperature, frequency):
    return rates_from_barriers(q, temperature, attempt_frequency=frequency)


frequencies = st.floats(9.0, 15.0)
hot_and_cold = st.floats(50.0, 5000.0)


def test_rates_are_boltzmann_factors_over_all_decades():
    holds(boltzmann(own), barriers, hot_and_cold, frequencies, n=100)


@pytest.mark.parametrize("broken", ["single precision", "old constant", "clipped"])
def test_other_factors_are_noticed(broken):
    def rates(q, temperature, frequency):
        w = (
            own(q.astype(np.float32), temperature, frequency)
            if broken == "single precision"
            else own(q, temperature, frequency)
        )
        if broken == "old constant":
            w = own(q * (units.kB / 8.617e-5), temperature, frequency)
        return np.where(np.isfinite(q), np.maximum(w, 1e-30), 0.0) if broken == "clipped" else w

    breaks(boltzmann(rates), barriers, hot_and_cold, frequencies, n=200)


# -- detailed balance -----------------------------------------------------------------------------------------------


def balanced(of):
    """ln π + ln W is the same for a jump and its reverse, and with_reverse knows the rate back."""

    def check(recipe, model, seed, temperature):
        network = recipe.network
        rates = ak.Rates.of(model.make(network), network, temperature_K=temperature)
        occ, c = arrangement(recipe, seed, 3)
        w, home = rates.with_reverse(occ, c)
        assert np.array_equal(w, rates(occ, c))
        basis, here = network.basis_of(c), of(rates).log_weights(occ)
        for k in range(network.n_jumps):
            rows = np.flatnonzero(network.exists[basis, k])
            after, there = network.apply(occ[rows], c[rows], np.full(len(rows), k))
            back = rates(after, there)[np.arange(len(rows)), network.reverse[basis[rows], k]]
            assert np.allclose(np.log(back), np.log(home[rows, k]), rtol=0, atol=1e-7)
            forth = here[rows] + np.log(w[rows, k])
            assert np.abs(forth - of(rates).log_weights(after) - np.log(back)).max(initial=0.0) < 1e-7

    return check


@pytest.mark.parametrize("kind", KINDS)
def test_rates_balance_the_weights(kind):
    holds(balanced(lambda rates: rates), networks(), models((kind,)), seeds, temperatures, n=4)


def test_weights_of_another_temperature_are_noticed():
    hotter = lambda rates: replace(rates, temperature_K=1.01 * rates.temperature_K)  # noqa: E731
    breaks(balanced(hotter), networks(), models(("pairs",)), seeds, temperatures)


# -- states and weights ----------------------------------------------------------------------------------------------


def drifts(weigh):
    """Σ π W ΔE = 0 over all states, for all atoms and for each species: nothing is gained in equilibrium."""

    def check(problem):
        network, temperature = problem.recipe.network, problem.temperature_K
        space = StateSpace.enumerate(network, counts=problem.counts and dict(problem.counts))
        rates = ak.Rates.of(problem.model.make(network), network, temperature_K=temperature)
        weights = weigh(space, rates)
        assert abs(weights.sum() - 1) < 1e-12 and weights.min() >= 0
        states = space.states(weights, ensemble="equilibrium", temperature_K=temperature)
        found = rates.energies(space.occupations, space.carriers)
        moving = network.moving_species(space.occupations, space.carriers)
        drift = energy_drift(states, rates(space.occupations, space.carriers), found.delta_e, moving)
        assert abs(drift.value) < 1e-7
        assert all(abs(value) < 1e-7 for value, _ in drift.by_species.values())

    return check


def test_nothing_drifts_in_equilibrium():
    holds(drifts(StateSpace.weights), problems(kinds=ENERGETIC, least=4))


def test_equal_weights_drift():
    equal = lambda space, rates: np.full(len(space), 1.0 / len(space))  # noqa: E731
    breaks(drifts(equal), problems(VACANCY, ("pairs",)))


def weights_normalised(weigh):
    """Σ w = 1 for states, selections and reweighted states; only ratios count; a constant energy changes nothing."""

    def check(recipe, seed, decades, n):
        rng = np.random.default_rng(seed)
        occ, c = arrangement(recipe, seed, n)
        raw = 10.0 ** rng.uniform(-decades, decades, n)
        states = ak.States.from_occupations(recipe.cell, occ, carriers=c, weights=raw)
        again = weigh(states, raw * 1e-5)
        some = states[rng.permutation(n)[: max(1, n // 2)]]
        for one in (states, again, some):
            assert abs(one.weights.sum() - 1) < 1e-12 and one.weights.min() > 0
            assert 1 - 1e-9 <= one.effective_sample_size <= len(one) * (1 + 1e-9)
            assert abs(sum(one.composition().values()) - 1) < 1e-12
        assert np.allclose(again.weights, states.weights, rtol=1e-12, atol=0)

    return check


def test_weights_are_normalised_and_only_their_ratios_count():
    holds(weights_normalised(ak.States.with_weights), networks(), seeds, st.floats(0, 15), st.integers(1, 30), n=10)


def test_raw_weights_are_noticed():
    raw = lambda states, weights: replace(states, weights=weights)  # noqa: E731
    breaks(weights_normalised(raw), networks(), seeds, st.floats(0, 15), st.integers(1, 30))


# -- trajectories ------------------------------------------------------------------------------------------------------

walks = st.sampled_from([3, 64, 70])


def walker(recipe, model, seed, temperature, follow=True):
    network = recipe.network
    occ, c = arrangement(recipe, seed, 5)
    states = ak.States.from_occupations(recipe.cell, occ, carriers=c)
    rates = ak.Rates.of(model.make(network), network, temperature_K=temperature)
    return ak.KineticMonteCarlo(states, network, rates, n_walkers=4, seed=seed, follow_atoms=follow)


def one_way_is_the_other(monkeypatch, other):
    """Compiled loops and NumPy: the same jumps from the same random numbers, the same sums to rounding."""

    def check(recipe, model, seed, temperature, n_jumps, follow):
        monkeypatch.setenv(SWITCH, "0")
        plain = walker(recipe, model, seed, temperature, follow)
        plain.run(n_jumps)
        monkeypatch.setenv(SWITCH, "1")
        fast = other(walker(recipe, model, seed, temperature, follow))
        fast.run(n_jumps)
        names = ("occupations", "carriers") + ("atoms",) * follow
        assert all(np.array_equal(getattr(plain, name), getattr(fast, name)) for name in names)
        scale = np.abs(recipe.network.vectors).max()
        assert np.allclose(plain.times, fast.times, rtol=1e-12, atol=0)
        assert np.allclose(plain.shares(), fast.shares(), rtol=1e-11, atol=1e-13)
        assert np.allclose(plain.expected_squares(), fast.expected_squares(), rtol=1e-11, atol=1e-12 * scale**2)
        assert plain.ladder.n_blocks == fast.ladder.n_blocks
        pairs = [*zip(plain.ladder.collective, fast.ladder.collective, strict=True)]
        if follow:
            assert np.allclose(plain.displacements, fast.displacements, rtol=0, atol=1e-10 * scale)
            pairs += [*zip(plain.ladder.tracer, fast.ladder.tracer, strict=True)]
            assert np.array_equal(plain.last_jumps()[0], fast.last_jumps()[0])
        assert all(np.allclose(a, b, rtol=1e-10, atol=1e-9 * scale**2) for a, b in pairs)

    return check


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_and_plain_trajectories_are_the_same(kind, monkeypatch):
    if not can_compile():
        pytest.skip("nothing is compiled without numba")
    check = one_way_is_the_other(monkeypatch, lambda kmc: kmc)
    holds(check, networks(), models((kind,), 10.0), seeds, temperatures, walks, st.booleans(), n=4)


def test_a_walker_with_other_random_numbers_is_noticed(monkeypatch):
    def other(kmc):
        kmc._rng.random(kmc.n_walkers)
        return kmc

    check = one_way_is_the_other(monkeypatch, other)
    breaks(check, networks(), models(("rates",)), seeds, temperatures, st.just(64), st.booleans(), n=10)


def conserved(spoil):
    """Atoms are conserved; each is where its displacement says; they move against the vacancy; time goes on."""

    def check(recipe, model, seed, temperature, n_jumps):
        kmc, cell = walker(recipe, model, seed, temperature), recipe.cell
        before = kmc.occupations.copy()
        kmc.run(n_jumps)
        spoil(kmc)
        assert np.array_equal(np.sort(before, axis=1), np.sort(kmc.occupations, axis=1))
        assert [cell.find_carrier(row) for row in kmc.occupations] == kmc.carriers.tolist()
        assert kmc.times.min() > 0 and abs(kmc.shares().sum() - 1) < 1e-12
        for i in range(kmc.n_walkers):
            assert np.array_equal(np.sort(kmc.atoms[i]), np.arange(cell.n_sites))
            assert np.array_equal(kmc.occupations[i], before[i][kmc.atoms[i]])
            full = np.flatnonzero(kmc.occupations[i] > 0)
            start = kmc.atoms[i][full]
            miss = cell.positions[full] - cell.positions[start] - kmc.displacements[i][start]
            scaled = miss @ np.linalg.inv(cell.cell)
            assert np.abs(scaled - np.rint(scaled) * cell.pbc).max() < 1e-8

    return check


def test_atoms_are_conserved_and_where_their_displacements_say():
    holds(conserved(lambda kmc: None), networks(), models(decades=10.0), seeds, temperatures, walks, n=8)


def test_displacements_of_the_wrong_sign_are_noticed():
    def turn(kmc):
        kmc.displacements *= -1

    breaks(conserved(turn), networks(), models(("rates",)), seeds, temperatures, st.just(3))


def test_species_swapped_between_two_atoms_are_noticed():
    def swap(kmc):
        kmc.atoms[:, [0, 1]] = kmc.atoms[:, [1, 0]]

    breaks(conserved(swap), networks(), models(("rates",)), seeds, temperatures, st.just(3))
