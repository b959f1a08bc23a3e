"""Linear systems that are nearly singular: regularised, reported, and still a bound; ladders that leave rounding."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import ase_kinoson as ak
from ase_kinoson.errors import IllConditioned, KinosonError
from ase_kinoson.kinosons import galerkin
from ase_kinoson.kinosons.correction import _root_ratio
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda
from ase_kinoson.kinosons.galerkin import _Krylov, _units, solve_linear
from ase_kinoson.kinosons.ladder import Rungs, _widened
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.validation import tiny_cell


def problem(rates, counts=None):
    """All states of a tiny cell, whose clusters depend on each other, as training states."""
    counts = counts or {"Ag": 4, "Cu": 4}
    _, network = tiny_cell(counts)
    bound = ak.Rates.of(ak.SpeciesRates(rates), network)
    space = StateSpace.enumerate(network, counts=counts)
    states = space.states(space.weights(bound), ensemble="equilibrium")
    made = ak.Relaxation.create(network, rates=bound, lookahead=1, form="clusters").to(torch.float64)
    return made, states, space, bound


def solve(made, states, **options):
    exactly = {"ridge": 0.0, "steps": 400, "tolerance": 0.0, "validate": False} | options
    return solve_linear(made, Objective.of(made, states), list(made.parameters()), **exactly)


@pytest.mark.parametrize(("slow", "ridge"), [(0.1, 0.0), (1e-30, 1e-4), (0.0, 0.0)])
def test_bound_stays_a_bound_with_dependent_clusters(slow, ridge):
    made, states, space, rates = problem({"Ag": slow, "Cu": 1.0})
    about = solve(made, states, ridge=ridge)
    assert about.steps < about.n_parameters  # they do depend on each other
    assert 1 < about.condition < 1e5
    assert made.report["linear"]["condition"] == about.condition
    assert all(torch.isfinite(p).all() for p in made.parameters())
    exact, bare, _ = exact_lambda(space, rates)
    ratios = Objective.of(made, states).evaluate(made)[1]
    for a, symbol in enumerate(("Ag", "Cu")):
        if bare[a, a].any():
            assert ratios[symbol] > np.trace(exact[a, a]) / np.trace(bare[a, a]) - 1e-12


def test_parameters_without_effect_are_counted_and_stay():
    """Ag never moves: the coefficients of its field do nothing."""
    made, states, _, _ = problem({"Ag": 0.0, "Cu": 1.0})
    before = [p.detach().clone() for p in made.parameters()]
    about = solve(made, states)
    same = sum(int((p == q).sum()) for p, q in zip(made.parameters(), before, strict=True))
    assert 0 < about.n_without_effect <= same
    # twin: with Ag in motion most of them do something
    moving, states, _, _ = problem({"Ag": 0.1, "Cu": 1.0})
    assert solve(moving, states).n_without_effect < about.n_without_effect


def test_y_that_can_do_nothing():
    """One species in one state: its atoms together go where they go, only single ones gain."""
    made, states, _, _ = problem({"Ag": 1.0}, {"Ag": 8})
    solve(made, states)
    ratios = Objective.of(made, states).evaluate(made)[1]
    assert ratios["Ag"] == pytest.approx(1.0, abs=1e-12) and 7 / 11 - 1e-12 <= ratios["tracer Ag"] < 1.0


def test_a_bad_condition_is_warned_of_with_its_number(monkeypatch):
    made, states, _, _ = problem({"Ag": 0.1, "Cu": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        about = solve(made.to(torch.float64), states)
    monkeypatch.setattr(galerkin, "ILL", 0.5 * about.condition)
    with pytest.warns(IllConditioned, match="condition number") as caught:
        solve(made, states)
    assert caught[0].message.number == pytest.approx(about.condition)
    assert "ridge" in caught[0].message.advice


def test_parameters_given_twice_are_refused():
    made, states, _, _ = problem({"Ag": 0.1, "Cu": 1.0})
    twice = [*made.parameters(), next(iter(made.parameters()))]
    with pytest.raises(KinosonError, match="twice"):
        solve_linear(made, Objective.of(made, states), twice)


def test_gradients_that_are_no_numbers_are_refused():
    made, states, _, _ = problem({"Ag": 0.1, "Cu": 1.0})
    objective = Objective.of(made, states)
    with torch.no_grad():
        next(iter(made.parameters())).fill_(float("nan"))
    with pytest.raises(KinosonError, match="inf or NaN"):
        solve_linear(made, objective, list(made.parameters()))


def krylov(matrix, right):
    size = float(right.norm())
    made = _Krylov(right / size, lambda v: matrix @ v)
    while made.grow():
        pass
    return made, size


@pytest.mark.parametrize("twin", ["field twice", "nearly twice", "sum of two"])
def test_dependent_fields_give_the_shortest_solution(twin):
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(30, 6))
    extra = {
        "field twice": fields[:, 0],
        "nearly twice": fields[:, 0] + 1e-13 * rng.normal(size=30),
        "sum of two": fields[:, 1] + fields[:, 2],
    }[twin]
    design, target = np.column_stack([fields, extra]), rng.normal(size=30)
    made, size = krylov(torch.as_tensor(design.T @ design), torch.as_tensor(design.T @ target))
    x = size * made.solve(0.0)[0].numpy()
    best = np.linalg.pinv(design, rcond=1e-10) @ target
    np.testing.assert_allclose(x, best, atol=1e-9)
    assert np.square(design @ x - target).sum() <= np.square(target).sum()
    assert made.condition(0.0) < 1e8
    # broken twin: solving the equations as they are gives coefficients without a meaning
    if twin == "nearly twice":
        assert np.abs(np.linalg.solve(design.T @ design, design.T @ target)).max() > 10 * np.abs(best).max()


def test_curvature_that_is_rounding_makes_no_unit():
    """A parameter without effect whose gradient rounds differently must not be scaled up by 1e8."""
    origin = torch.tensor([1.0, 1.0], dtype=torch.float64)
    curvature = torch.tensor([2.0, 3e-16], dtype=torch.float64)
    unit = _units([lambda v: curvature * v], torch.ones(2, dtype=torch.float64), torch.tensor([-1, -2]), (origin,))
    assert float(unit[0]) == pytest.approx(2.0**-0.5, rel=1e-3)
    assert float(unit[1]) == 0.0
    # twin: where gradients are small, so may curvatures be
    unit = _units(
        [lambda v: curvature * v], torch.ones(2, dtype=torch.float64), torch.tensor([-1, -2]), (1e-10 * origin,)
    )
    assert float(unit[1]) > 1e6


# -- ladder -----------------------------------------------------------------------------------------------------------


def corrected(rates, counts, **options):
    cell, network = tiny_cell(counts)
    gas = ak.SpeciesRates(rates)
    result = ak.transport(ak.sample_states(cell, 60, seed=1), network, gas)
    return ak.correct(result, gas, n_steps=8, n_trajectories=128, n_resamples=30, **options)


@pytest.mark.parametrize("slow", [1e-12, 1e-30])
def test_a_trapped_carrier_leaves_nothing_but_rounding(slow):
    """One fast atom goes back and forth: the ladder takes off all of its bound; D* used to come out negative."""
    with pytest.raises(KinosonError, match=r"rounding.*trapped"):
        corrected({"Ag": slow, "Cu": 1.0}, {"Ag": 7, "Cu": 1})


def test_a_carrier_that_is_not_trapped_is_corrected():
    """Twin of the test above, at 30 decades: the values are positive and below the bound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ak.KinosonWarning)
        result = corrected({"Ag": 1e-30, "Cu": 1.0}, {"Ag": 4, "Cu": 4})
    values = np.diag(np.asarray(result.lambda_matrix.value))
    assert np.all(values > 0) and np.all(np.isfinite(result.lambda_matrix.error))
    assert np.all(values <= np.einsum("aaxx->a", result.averages.collective_bare[0]) / 2 * (1 + 1e-9))
    assert all(float(q.value) > 0 for q in result.tracer_diffusivity.values())


def test_atoms_that_never_move_have_no_ladder_and_do_no_harm():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", ak.KinosonWarning)
        result = corrected({"Ag": 0.0, "Cu": 1.0}, {"Ag": 1, "Cu": 7})
    matrix = np.asarray(result.lambda_matrix.value)
    assert matrix[0, 0] == 0.0 and matrix[1, 1] > 0
    assert np.isnan(result.diagnosis.looseness["Ag"].value)


def test_pieces_of_the_ladder_without_motion():
    still = Rungs(np.zeros(2), np.zeros(2), np.zeros(1), np.zeros(1), 1, 0.1)
    np.testing.assert_array_equal(_widened(still, np.array([-1.0, 1.0])), [1.0, 1.0])
    found = _root_ratio(np.array([4.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(found, [2.0, 1.0, np.nan])


def test_a_model_in_which_nothing_moves_gives_no_ratio():
    cell, network = tiny_cell({"Ag": 1, "Cu": 7})
    result = ak.transport(ak.sample_states(cell, 60, seed=1), network, ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}))
    with pytest.raises(KinosonError, match="no motion of Ag"):
        ak.correct(result, ak.SpeciesRates({"Ag": 0.0, "Cu": 1.0}), n_steps=8, n_trajectories=128, n_resamples=30)
