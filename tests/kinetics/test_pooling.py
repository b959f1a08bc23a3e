"""States of several temperatures, pooled and weighted to one."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonWarning, StatesError
from ase_kinoson.kinetics import pooling
from ase_kinoson.kinetics.pooling import free_energies, pool_states
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.units import thermal_energy

TEMPERATURES = (100.0, 200.0, 400.0, 900.0)


@pytest.fixture(scope="module")
def space(tiny):
    """All states of the tiny cell, a model of their energies, and reference energies that differ from it."""
    cell, network = tiny
    own = StateSpace.enumerate(network)
    states = own.states(np.ones(len(own)), ensemble="equilibrium", source="enumerated")
    model = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03}).energies(
        states.occupations
    )
    reference = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.06, ("Ag", "X"): 0.01})
    return states, model - model.mean(), reference.energies(states.occupations)


def drawn(space, temperature_K, n, seed, *, shift=0.0):
    """Independent draws from the exact weights of the model, with their reference energies."""
    states, model, reference = space
    p = np.exp(-model / thermal_energy(temperature_K))
    rows = np.random.default_rng([seed, int(temperature_K)]).choice(len(states), size=n, p=p / p.sum())
    own = ak.States.from_occupations(
        states.supercell,
        states.occupations[rows],
        carriers=states.carriers[rows],
        ensemble="equilibrium",
        temperature_K=temperature_K,
        model_energies=model[rows] + shift,
        source="drawn",
    )
    return own, reference[rows]


def exact_mean(space, temperature_K):
    """⟨E_ref⟩ at a temperature over all states."""
    p = np.exp(-(space[2] - space[2].min()) / thermal_energy(temperature_K))
    return float(p @ space[2] / p.sum())


def estimates(space, temperature_K, *, n=60, repeats=60, temperatures=TEMPERATURES, **options):
    """Pooled ⟨E_ref⟩ of many independent repeats, and its errors over groups."""
    values, errors = [], []
    for k in range(repeats):
        sets = [drawn(space, t, n, k) for t in temperatures]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KinosonWarning)
            pooled = pool_states(sets, temperature_K, **{"smallest_sample": 1.0, **options})
        energy = np.concatenate([e for _, e in sets])
        mean, error, _ = pooling._mean(energy, pooled.groups, pooled.weights)
        values.append(mean)
        errors.append(error)
    return np.array(values), np.array(errors)


def bias_in_errors(values, truth):
    return (values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))


def test_free_energies_are_those_of_the_partition_function(space):
    sets = [drawn(space, t, 4000, 1) for t in TEMPERATURES]
    beta = np.array([1.0 / thermal_energy(t) for t in TEMPERATURES])
    energies = np.concatenate([s.model_energies for s, _ in sets])
    found = free_energies(energies, beta, np.repeat(np.arange(4), 4000))
    exact = np.array([-np.log(np.exp(-b * space[1]).sum()) for b in beta])
    np.testing.assert_allclose(found, exact - exact[0], atol=0.1)
    assert np.ptp(exact) > 0.5


@pytest.mark.parametrize("temperature_K", [150.0, 500.0])
def test_pooled_average_is_exact_within_its_error_and_better_than_one_set(space, temperature_K):
    truth = exact_mean(space, temperature_K)
    pooled, errors = estimates(space, temperature_K)
    assert abs(bias_in_errors(pooled, truth)) < 3.0
    scatter = pooled.std(ddof=1)
    # the error bar is the scatter of repeats
    assert errors.mean() == pytest.approx(scatter, rel=0.35)
    near = min(TEMPERATURES, key=lambda t: abs(t - temperature_K))
    alone, _ = estimates(space, temperature_K, temperatures=(near,))
    assert scatter < 0.8 * alone.std(ddof=1)


def test_broken_weights_are_seen(space, monkeypatch):
    """Without f_i, and with β of the wrong set, the average is far off."""
    truth = exact_mean(space, 150.0)
    right = pooling.free_energies
    monkeypatch.setattr(pooling, "free_energies", lambda e, b, m: np.zeros(len(b)))
    assert abs(bias_in_errors(estimates(space, 150.0)[0], truth)) > 6
    monkeypatch.setattr(pooling, "free_energies", right)
    mixture = pooling._log_mixture
    monkeypatch.setattr(pooling, "_log_mixture", lambda e, b, n, f: mixture(e, b[::-1], n, f))
    assert abs(bias_in_errors(estimates(space, 150.0)[0], truth)) > 6


def test_sets_of_different_models_are_weighted_apart(space):
    truth = exact_mean(space, 500.0)
    values, _ = estimates(space, 500.0, temperatures=(420.0, 600.0), one_model=False)
    assert abs(bias_in_errors(values, truth)) < 3.5  # self-normalised: biased by about one part in 60
    # as one model, sets whose energies have different zeros contradict each other
    sets = [drawn(space, 420.0, 300, 0), drawn(space, 600.0, 300, 0, shift=0.2)]
    with pytest.warns(KinosonWarning, match="expected sets of one energy model"):
        pool_states(sets, 500.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apart = pool_states(sets, 500.0, one_model=False)
        same = pool_states([sets[0], drawn(space, 600.0, 300, 0)], 500.0, one_model=False)
    np.testing.assert_allclose(apart.weights, same.weights, rtol=1e-9)  # a zero of its own changes nothing
    one, two = apart.report["pooled"]
    assert one["share"] / two["share"] == pytest.approx(one["effective_sample_size"] / two["effective_sample_size"])
    assert one["share"] != pytest.approx(0.5, abs=0.01)


def test_report_and_groups(space):
    sets = [drawn(space, t, 50, 3) for t in TEMPERATURES]
    sets = [(replace(s, groups=np.arange(50) // 5), e) for s, e in sets]  # the same chain numbers in every set
    pooled = pool_states(sets, 200.0, smallest_sample=1.0)
    assert len(np.unique(pooled.groups)) == 4 * 10
    assert pooled.temperature_K == 200.0
    assert pooled.ensemble == "equilibrium"
    rows = pooled.report["pooled"]
    assert [r["temperature_K"] for r in rows] == list(TEMPERATURES)
    assert sum(r["share"] for r in rows) == pytest.approx(1.0)
    assert rows[1]["share"] > rows[3]["share"]
    assert pooled.report["effective_sample_size"] == pytest.approx(pooled.effective_sample_size)
    assert pooled.report["effective_groups"] <= 40
    # weighted to the model itself, they are a sample of the model like any other
    own = pool_states([(s, s.model_energies) for s, _ in sets], 200.0, smallest_sample=1.0)
    assert "reweighted" not in own.report
    assert pooled.report["reweighted"]
    np.testing.assert_allclose(pooled.report["drawn_weights"], own.weights, rtol=1e-9)


def test_one_set_at_its_own_temperature_is_reweighted(space):
    states, reference = drawn(space, 600.0, 200, 5)
    pooled = pool_states([(states, reference)], 600.0)
    np.testing.assert_allclose(pooled.weights, ak.reweight(states, reference, 600.0).weights, rtol=1e-10)
    near = pool_states([(states, reference)], 560.0)
    assert near.effective_sample_size < pooled.effective_sample_size


def test_a_pool_that_collapses_is_refused(space):
    sets = []
    for t in (1500.0, 1800.0):  # energies of a large cell: a Gaussian density of states of 0.3 eV
        states, _ = drawn(space, t, 100, 7)
        energies = np.random.default_rng(int(t)).normal(-(0.3**2) / thermal_energy(t), 0.3, size=100)
        sets.append((replace(states, model_energies=energies), energies))
    with pytest.raises(StatesError, match=r"effective independent groups of 200 .* 1500, 1800 K .* 400 K; expected"):
        pool_states(sets, 400.0)
    with pytest.warns(KinosonWarning, match="are left when states drawn"):
        pool_states(sets, 400.0, smallest_sample=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool_states(sets, 1600.0)
    # a few states are not refused for being few
    few = [drawn(space, t, 3, 7) for t in (600.0, 620.0)]
    assert len(pool_states(few, 610.0)) == 6


def test_what_is_no_sample_is_refused(space, tiny):
    states, reference = drawn(space, 600.0, 20, 1)
    with pytest.raises(StatesError, match="expected at least one set"):
        pool_states([], 600.0)
    with pytest.raises(StatesError, match="twice"):
        pool_states([(states, reference), (states, reference)], 600.0)
    with pytest.raises(StatesError, match="as they were drawn"):
        pool_states([(ak.reweight(states, reference, 600.0), reference)], 600.0)
    for bad in (replace(states, ensemble="quenched"), replace(states, model_energies=None)):
        with pytest.raises(StatesError, match="expected Monte Carlo states"):
            pool_states([(bad, reference)], 600.0)
    with pytest.raises(StatesError, match="one per state"):
        pool_states([(states, reference[:-1])], 600.0)
    with pytest.raises(StatesError, match="finite"):
        pool_states([(states, np.full(20, np.nan))], 600.0)
    # a state without energy has no weight
    lost = reference.copy()
    lost[3] = np.nan
    assert pool_states([(states, lost)], 600.0).weights[3] == 0


def test_sets_of_one_model_do_not_contradict_each_other(space):
    """A set says of another temperature what its own weights say; with the mixture of all sets it said too little."""
    for seed in range(5):
        sets = [drawn(space, t, 2000, seed) for t in (200.0, 400.0)]
        with warnings.catch_warnings():
            warnings.simplefilter("error", KinosonWarning)
            pool_states(sets, 300.0)
    wrong, energies = drawn(space, 900.0, 2000, 0)
    with pytest.warns(KinosonWarning, match="mean model energy of set"):  # drawn at 900 K, said to be of 300 K
        pool_states([sets[0], (replace(wrong, temperature_K=300.0), energies)], 250.0)
