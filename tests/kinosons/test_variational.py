"""The variational principle: bounds, ensembles, trained relaxations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonWarning, StatesError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.validation import tiny_cell

T = 600.0


def evaluate(states, network, model, relaxation=None):
    """Transport without the warning about states that are no equilibrium sample (they are the subject here)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        return ak.transport(states, network, model, relaxation, T)


@pytest.fixture(scope="module")
def space(tiny):
    return StateSpace.enumerate(tiny[1])


@pytest.mark.parametrize("ensemble", ["equilibrium", "quenched"])
def test_monte_carlo_states_agree_with_enumeration(tiny, pair_model, pair_relaxation, space, ensemble):
    cell, network = tiny
    rates = ak.Rates.of(pair_model, network, temperature_K=T)
    whole = space.states(space.weights(rates, ensemble=ensemble), ensemble=ensemble)
    exact = evaluate(whole, network, pair_model, pair_relaxation)
    drawn = sample_states(
        cell, 1500, method="monte-carlo", model=rates.source, temperature_K=T, ensemble=ensemble, seed=3, n_chains=500
    )
    ours = evaluate(drawn, network, pair_model, pair_relaxation)
    random = evaluate(sample_states(cell, 1500, seed=3), network, pair_model, pair_relaxation)

    def deviations(result) -> np.ndarray:
        pairs = [(result.vacancy_diffusivity, exact.vacancy_diffusivity)]
        pairs += [(result.tracer_diffusivity[s], exact.tracer_diffusivity[s]) for s in exact.species]
        return np.array([abs(float(a) - float(b)) / float(a.error) for a, b in pairs])

    assert deviations(ours).max() < 4.0
    # broken twin: unweighted random states are another average
    assert deviations(random).max() > 4.0


def test_reweighting_repairs_a_wrong_model(tiny, pair_model, pair_relaxation, space):
    cell, network = tiny
    rough = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.03}), {"Ag": 0.6, "Cu": 0.5})
    rough_rates = ak.Rates.of(rough, network, temperature_K=T)
    drawn = sample_states(
        cell, 3000, method="monte-carlo", model=rough_rates.source, temperature_K=T, seed=5, n_chains=1000
    )
    reference = pair_model.energy.energies(drawn.occupations)
    weighted = ak.reweight(drawn, reference, T)
    rates = ak.Rates.of(pair_model, network, temperature_K=T)
    exact = evaluate(space.states(space.weights(rates), ensemble="equilibrium"), network, pair_model, pair_relaxation)
    good = evaluate(weighted, network, pair_model, pair_relaxation)
    bad = evaluate(drawn, network, pair_model, pair_relaxation)
    assert abs(float(good.vacancy_diffusivity) - float(exact.vacancy_diffusivity)) < 3 * good.vacancy_diffusivity.error
    assert abs(float(bad.vacancy_diffusivity) - float(exact.vacancy_diffusivity)) > 3 * bad.vacancy_diffusivity.error
    assert good.drift.consistent
    assert not bad.drift.consistent


def test_random_states_are_called_no_bound(tiny, pair_model):
    cell, network = tiny
    with pytest.warns(KinosonWarning, match="energy drifts"):
        result = ak.transport(sample_states(cell, 500, seed=1), network, pair_model, None, T)
    assert result.vacancy_diffusivity.kind == "not a bound"


def test_every_y_is_an_upper_bound(tiny, pair_model, pair_relaxation, space):
    cell, network = tiny
    exact = ak.exact_transport(cell, network, pair_model, T)
    rates = ak.Rates.of(pair_model, network, temperature_K=T)
    whole = space.states(space.weights(rates), ensemble="equilibrium")
    bias = ak.Relaxation.create(network, rates=rates, lookahead=1)
    for relaxation in (None, bias, pair_relaxation):
        ours = evaluate(whole, network, pair_model, relaxation)
        assert float(ours.vacancy_diffusivity) >= float(exact.vacancy_diffusivity) * (1 - 1e-7)
        for s in exact.species:
            assert float(ours.tracer_diffusivity[s]) >= float(exact.tracer_diffusivity[s]) * (1 - 1e-7)
        diagonal = np.diag(np.asarray(ours.lambda_matrix.value)) / np.diag(np.asarray(exact.lambda_matrix.value))
        assert diagonal.min() >= 1 - 1e-7


@pytest.mark.parametrize("lookahead", [0, 1])
def test_trained_relaxation_is_within_ten_percent(lookahead):
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    exact = ak.exact_transport(cell, network, gas)
    options = {"form": "network", "n_states": 500, "epochs": 20, "hidden": 16}
    y = ak.train_relaxation(cell, network, gas, lookahead=lookahead, seed=1, **options)
    assert y.report["trained_bound_ratio"] < y.report["untrained_bound_ratio"]
    ours = ak.transport(exact.states, network, gas, y)
    for a, b in [
        (ours.vacancy_diffusivity, exact.vacancy_diffusivity),
        *((ours.tracer_diffusivity[s], exact.tracer_diffusivity[s]) for s in exact.species),
    ]:
        assert 1 - 1e-7 <= float(a) / float(b) < 1.10
    # broken twin: without relaxation the bound is far away
    assert float(ak.transport(exact.states, network, gas).vacancy_diffusivity) > 1.1 * float(exact.vacancy_diffusivity)


def test_training_is_reproducible(tiny):
    cell, network = tiny
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    runs = [ak.train_relaxation(cell, network, gas, n_states=100, epochs=2, hidden=4, seed=s) for s in (4, 4, 5)]
    assert runs[0].report["history"] == runs[1].report["history"]
    assert runs[0].report["history"] != runs[2].report["history"]


def test_training_refuses_random_states_of_a_model_with_energies(tiny, pair_model):
    cell, network = tiny
    with pytest.raises(StatesError, match="equilibrium"):
        ak.train_relaxation(cell, network, pair_model, temperature_K=T, states=sample_states(cell, 50, seed=0))
