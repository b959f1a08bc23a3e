"""Transport coefficients: what holds of Λ whatever the alloy, the rates and the relaxation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st

import ase_kinoson as ak
from ase_kinoson import testing
from tests.properties.running import breaks, holds
from tests.properties.strategies import KINDS, VACANCY, Model, Problem, Recipe, problems, seeds

SI = 1e-20
"""Å²/s in m²/s."""


def lowest(matrix):
    """Smallest eigenvalue of tensors, shape (n, n, 3, 3), as one symmetric matrix."""
    flat = matrix.transpose(0, 2, 1, 3).reshape(3 * len(matrix), -1)
    return float(np.linalg.eigvalsh((flat + flat.T) / 2)[0])


def of_vacancy(result):
    return result.network.mechanism == "vacancy"


# -- the exact solution ------------------------------------------------------------------------------------------


def solved_rightly(tamper):
    """Λ symmetric, positive semidefinite, below Λ[0]; the species sum to the carrier, the kinosons to Λ."""

    def check(problem):
        result = tamper(problem.solve())
        network, d = problem.recipe.network, problem.recipe.network.dimension
        matrix, bare = result.averages.collective[0], result.averages.collective_bare[0]
        scale = np.abs(bare).max()
        assert scale > 0
        assert np.abs(matrix - matrix.transpose(1, 0, 3, 2)).max() < 1e-9 * scale
        assert lowest(matrix) > -1e-8 * scale and lowest(bare - matrix) > -1e-8 * scale
        scalar = np.einsum("abxy,xy->ab", matrix, network.projector) / d
        assert np.allclose(result.lambda_matrix.value, scalar, rtol=1e-9, atol=1e-12 * scale)
        assert np.isclose(float(result.vacancy_diffusivity), scalar.sum() * SI, rtol=1e-7, atol=1e-9 * scale * SI)
        factors = {**result.collective_correlation_factor, **result.correlation_factor}
        assert all(-1e-8 < float(q.value) < 1 + 1e-8 for q in factors.values() if np.isfinite(q.value))
        # the kinosons
        table = result.kinosons
        _, first = np.unique(table["state"], return_index=True)
        assert abs(table["weight"][first].sum() - 1) < 1e-9
        who = "vacancy" if of_vacancy(result) else "carrier"
        found = table["weight"] @ table[f"kinoson_{who}"]
        assert np.isclose(found, scalar.sum(), rtol=1e-7, atol=1e-9 * scale)
        for a, species in enumerate(result.species):
            own = table["weight"] @ table[f"kinoson_{species}"]
            assert np.isclose(own, scalar[a, a], rtol=1e-7, atol=1e-9 * scale)
        assert np.all(table["rate"] >= 0) and np.all(table[f"kinoson_{who}"] >= 0)

    return check


def one_sided(result):
    """Λ_ab without Λ_ba."""
    matrix = result.averages.collective.copy()
    matrix[:, 0, -1] *= 1.01
    return replace(result, averages=replace(result.averages, collective=matrix))


def without_weights(result):
    """The weights of the states forgotten."""
    table = result.kinosons
    columns = {**table.columns, "weight": np.full(len(table), 1.0 / result.n_states)}
    return replace(result, kinosons=replace(table, columns=columns))


def without_relaxation_off_the_diagonal(result):
    n = range(len(result.species))
    matrix = result.averages.collective_bare.copy()
    matrix[:, n, n] = result.averages.collective[:, n, n]
    return replace(result, averages=replace(result.averages, collective=matrix))


def test_the_exact_solution_is_a_transport_matrix_and_the_sum_of_its_kinosons():
    holds(solved_rightly(lambda result: result), problems(), n=14)


@pytest.mark.parametrize("tamper", [one_sided, without_weights, without_relaxation_off_the_diagonal])
def test_matrices_and_kinosons_that_are_none_are_noticed(tamper):
    breaks(solved_rightly(tamper), problems(VACANCY, ("pairs",)))


def sums_rule(power):
    """Σ_b Λ_ab w_a/w_b = Λ_aa[0] in any cell, if all states have the same energy (Moleko and Allnatt).

    The jump vectors of a site must sum to zero: otherwise Σ_b δx^b/w_b drives a relaxation of its own.
    """

    def check(problem):
        assume(np.abs(problem.recipe.network.vectors.sum(axis=1)).max() < 1e-6)
        result = problem.solve()
        table = problem.model.make(problem.recipe.network).rates
        w = np.array([table[s] for s in result.species]) ** power
        matrix, bare = result.averages.collective[0], result.averages.collective_bare[0]
        assert testing.sum_rule_defect(matrix, bare, w) < 1e-6

    return check


def test_species_rates_obey_the_sum_rule():
    holds(sums_rule(1.0), problems(VACANCY, ("rates",), 2.0), n=8)


def test_a_wrong_power_of_the_rates_breaks_the_sum_rule():
    breaks(sums_rule(0.9), problems(VACANCY, ("rates",), 2.0))


def in_any_unit_of_time(decades):
    """All rates times 10ⁿ, |n| ≤ 15: Λ too, correlation factors not at all."""

    def check(problem, power):
        network = problem.recipe.network
        table = problem.model.make(network).rates
        one, two = (
            ak.exact_transport(network.supercell, network, ak.SpeciesRates(rates), counts=dict(problem.counts))
            for rates in (table, {s: w * 10.0 ** (power * decades) for s, w in table.items()})
        )
        scale = 10.0**power
        assert np.allclose(two.lambda_matrix.value, np.array(one.lambda_matrix.value) * scale, rtol=1e-8, atol=0)
        for s, q in one.correlation_factor.items():
            assert np.isclose(q.value, two.correlation_factor[s].value, rtol=1e-8, atol=1e-12)

    return check


def test_coefficients_follow_the_unit_of_time_over_thirty_decades():
    holds(in_any_unit_of_time(1.0), problems(VACANCY, ("rates",), 1.0), st.integers(-15, 15), n=6)


def test_a_slightly_other_unit_of_time_is_noticed():
    breaks(in_any_unit_of_time(1.01), problems(VACANCY, ("rates",), 1.0), st.integers(1, 15))


# -- any relaxation ----------------------------------------------------------------------------------------------


@st.composite
def relaxations(draw):
    """How a relaxation with random weights is made."""
    ahead = draw(st.integers(0, 2))
    return ahead, draw(st.sampled_from(["exact", "learned"])), draw(seeds), draw(st.sampled_from([0.3, 3.0, 30.0]))


def random_relaxation(problem: Problem, how) -> ak.Relaxation:
    ahead, closure, seed, size = how
    network = problem.recipe.network
    rates = ak.Rates.of(problem.model.make(network), network, temperature_K=problem.temperature_K)
    y = ak.Relaxation.create(
        network, rates=rates, lookahead=ahead, closure=closure, hidden=3, n_blocks=1, gates=3, seed=seed % 1000
    )
    y = y.to(torch.float64)  # so that y is one function of the state to twelve digits
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in y.modules.named_parameters():
            value += (
                size ** ("project" in name) * 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
            )
    return y


def bounds(tamper):
    """Λ[y] ≥ Λ for any y, as a matrix and for tracers. One field gives both: a species of one atom is its tracer."""

    def check(problem, how):
        exact = problem.solve()
        result = tamper(problem.bound(exact, random_relaxation(problem, how)))
        found, best = result.averages.collective[0], exact.averages.collective[0]
        scale = max(np.abs(found).max(), np.abs(best).max())
        assert np.abs(found - found.transpose(1, 0, 3, 2)).max() < 1e-9 * scale
        assert lowest(found - best) > -1e-8 * scale
        tracer, least = result.averages.tracer[0], exact.averages.tracer[0]
        counts = dict(problem.counts or {s: 1 for s in result.species})
        d = problem.recipe.network.dimension
        for a, species in enumerate(result.species):
            assert lowest((tracer[a] - least[a])[None, None]) > -1e-8 * scale
            if counts[species] == 1:
                assert np.allclose(tracer[a], found[a, a], rtol=0, atol=1e-9 * scale)
                assert np.allclose(least[a], best[a, a], rtol=0, atol=1e-7 * scale)
            # n atoms: the square of a sum is at most n times the sum of squares
            assert lowest((counts[species] * tracer[a] - found[a, a])[None, None]) > -1e-8 * scale
            own = result.kinosons["weight"] @ result.kinosons[f"tracer_{species}"]
            trace = np.einsum("xy,xy->", tracer[a], problem.recipe.network.projector) / d
            assert np.isclose(own, trace, rtol=1e-8, atol=1e-10 * scale)
        who = "vacancy" if of_vacancy(result) else "carrier"
        own = result.kinosons["weight"] @ result.kinosons[f"kinoson_{who}"]
        assert np.isclose(own * SI, float(result.vacancy_diffusivity), rtol=1e-8, atol=1e-10 * scale * SI)

    return check


def swapped_tracers(result):
    tracer = result.averages.tracer[:, ::-1]
    return replace(result, averages=replace(result.averages, tracer=tracer))


def damped(result):
    """As if relaxed displacements were nine tenths of what they are: no difference of one function of the state."""
    parts = {name: 0.81 * getattr(result.averages, name) for name in ("collective", "tracer")}
    return replace(result, averages=replace(result.averages, **parts))


def test_any_relaxation_bounds_the_matrix_and_the_tracers():
    holds(bounds(lambda result: result), problems(), relaxations(), n=12)


def test_any_relaxation_bounds_averages_over_states_of_unlike_weight():
    holds(bounds(lambda result: result), problems(VACANCY, ("pairs",), least=4), relaxations(), n=8)


@pytest.mark.parametrize("tamper", [swapped_tracers, damped])
def test_what_is_no_relaxation_is_noticed(tamper):
    breaks(bounds(tamper), problems(VACANCY, ("rates", "pairs")), st.just((1, "exact", 0, 0.3)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_an_interstitial_in_a_pure_host_sees_no_sites_at_all(kind, ahead):
    recipe = Recipe("octahedra of bcc", ("Ag",), (1,), ((2, 0, 0), (0, 2, 0), (0, 0, 2)))
    problem = Problem(recipe, None, Model(kind, 1), 1000.0)
    bounds(lambda result: result)(problem, (ahead, "learned", 0, 0.3))


def turns_along(twin):
    """y(gχ) = R_g y(χ) for every operation of the supercell, whatever the weights."""

    def check(problem, how):
        states = problem.solve().states
        some = states[np.random.default_rng(how[2]).integers(len(states), size=4)]
        y = twin(random_relaxation(problem, how))
        size = np.abs(y(some.occupations, some.carriers)).max()
        assert testing.equivariance_defect(y, some) < 1e-8 * max(size, 1.0)

    return check


class Blown:
    """A wind in one direction."""

    def __init__(self, y):
        self.y = y

    def __call__(self, occupations, carriers):
        found = self.y(occupations, carriers)
        return found + [0.1, 0.0, 0.0] * (found != 0)


def test_every_relaxation_turns_with_the_crystal():
    holds(turns_along(lambda y: y), problems(limit=60), relaxations(), n=6)


def test_a_relaxation_with_a_preferred_direction_is_noticed():
    breaks(turns_along(Blown), problems(VACANCY, limit=60), relaxations())
