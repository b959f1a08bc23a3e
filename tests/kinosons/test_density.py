"""The density of kinosons and what it says about temperature."""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase import units

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, KinosonWarning
from ase_kinoson.kinosons.jump_classes import carrying_jumps
from ase_kinoson.kinosons.temperature_models import compare_slopes, fit_temperature_models
from ase_kinoson.plotting import plot_cumulative_shares


@pytest.fixture(scope="module")
def series(tiny, pair_model):
    cell, network = tiny
    return {t: ak.exact_transport(cell, network, pair_model, t, tracers=False) for t in (590.0, 600.0, 610.0)}


def test_hellmann_feynman_slope_is_the_finite_difference(series):
    low, high = series[590.0], series[610.0]
    beta = [1 / (units.kB * t) for t in (590.0, 610.0)]
    slope = -(np.log(float(high.vacancy_diffusivity)) - np.log(float(low.vacancy_diffusivity))) / (beta[1] - beta[0])
    density = ak.KinosonDensity.from_result(series[600.0])
    assert density.activation_energy().value == pytest.approx(slope, abs=2e-4)
    # broken twin: the slope at frozen weights is another number
    assert abs(density.mean_barrier().value - slope) > 5e-3


def test_density_integrates_to_the_coefficient(series):
    result = series[600.0]
    density = ak.KinosonDensity.from_result(result)
    assert density.total * 1e-20 == pytest.approx(float(result.vacancy_diffusivity), rel=1e-12, abs=0)
    for histogram in (density.over_barrier(20), density.over_log_kinoson(20)):
        assert histogram.total.sum() == pytest.approx(1.0, rel=1e-9)
    assert sum(float(q) for q in density.share_by_species().values()) == pytest.approx(1.0)
    shares = density.shares()
    assert 0 < shares[0.5] < shares[0.9] < 0.9


def test_models_are_cumulants_of_the_measured_density(series):
    density = ak.KinosonDensity.from_result(series[600.0])
    models = density.fit_models()
    at = np.array([600.0])
    for model in models.values():
        np.testing.assert_allclose(model.predict(at), density.predict(at), rtol=1e-12)
    near = np.array([560.0])
    errors = {n: abs(np.log(m.predict(near) / density.predict(near))[0]) for n, m in models.items()}
    assert errors["third cumulant"] < errors["gaussian"] < errors["arrhenius"]
    assert errors["third cumulant"] < 1e-5


def test_plot_and_refusals(series, tiny):
    density = ak.KinosonDensity.from_result(series[600.0], quantity="Cu")
    _, axes = plt.subplots(1, 2)
    assert density.plot(axes[0]) is axes[0]
    assert "eV" in axes[0].get_xlabel()
    density.plot(axes[1], over="log_kinoson")
    plt.close("all")
    with pytest.raises(KinosonError, match="choose one"):
        density.plot(over="nothing")
    with pytest.raises(KinosonError, match="expected one of"):
        ak.KinosonDensity.from_result(series[600.0], quantity="Fe")
    cell, network = tiny
    gas = ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}))
    with pytest.raises(KinosonError, match="barriers"):
        ak.KinosonDensity.from_result(gas).over_barrier()


# -- sampled results, errors, classes of jumps ---------------------------------------------------------------------


def sample(exact, n, seed, per_group=1):
    """Independent states drawn from an enumerated equilibrium."""
    states = exact.states
    rows = np.random.default_rng(seed).choice(len(states), size=n, p=states.weights)
    return replace(
        states[rows].with_weights(np.full(n, 1.0)),
        groups=np.arange(n) // per_group,
        source="drawn from the exact weights",
    )


@pytest.fixture(scope="module")
def relaxation(pair_relaxation):
    """The cell has few states, and training has seen most: forgotten here, since errors are tested, not bounds."""
    return replace(pair_relaxation, report={})


@pytest.fixture(scope="module")
def drawn(series, tiny, pair_model, relaxation):
    """States of the pair model at 600 K, evaluated with a trained relaxation."""
    return ak.transport(sample(series[600.0], 240, 5, 6), tiny[1], pair_model, relaxation, 600.0, n_resamples=200)


@pytest.fixture(scope="module")
def broad(tiny):
    """Results of a pair model with a broad density at six temperatures, solved exactly."""
    cell, network = tiny
    energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03})
    model = ak.PairBarriers(energy, {"Ag": 0.75, "Cu": 0.5})
    return [ak.exact_transport(cell, network, model, t) for t in (450.0, 520.0, 600.0, 700.0, 850.0, 1000.0)]


def test_histograms_have_errors_and_counts(drawn, series):
    density = ak.KinosonDensity.from_result(drawn)
    for histogram in (density.over_barrier(6), density.over_log_kinoson(6), density.over_displacement(6)):
        assert histogram.total.sum() == pytest.approx(1.0)
        assert histogram.counts.sum() == pytest.approx(1.0)
        assert np.all(histogram.total_error[histogram.total > 0] >= 0)
        assert histogram.total_error.max() > 0
        assert np.all(histogram.total_error < 0.3)
    # one interval holds everything: no error; the error of a species agrees with that of its share
    one = density.over_barrier(1)
    assert one.total_error[0] == pytest.approx(0.0, abs=1e-12)
    for s, q in density.share_by_species().items():
        assert one.errors[s][0] == pytest.approx(q.error, rel=1e-6)
        share, fraction = density.over_species()[s]
        assert (share.value, share.error) == pytest.approx((q.value, q.error), rel=1e-6)
        assert fraction.value == pytest.approx(0.5, abs=0.1)
    exact = ak.KinosonDensity.from_result(series[600.0]).over_barrier(4)
    assert exact.total_error.max() == 0.0


def test_displacement_of_the_carrier_gives_its_kinosons(series):
    """κ_v = W |δx + Δy|²/(2d) row by row."""
    density = ak.KinosonDensity.from_result(series[600.0])
    rate = series[600.0].kinosons["rate"]
    np.testing.assert_allclose(density.kinoson, rate * density.displacement**2 / 4, rtol=1e-9)


def test_neighbours_of_a_jump_by_hand(tiny, drawn):
    cell, network = tiny
    density = ak.KinosonDensity.from_result(drawn)
    names, counts = density.neighbours()
    assert names == ("Ag", "Cu")
    states = drawn.states
    position = cell.to_atoms(states.occupations[0], int(states.carriers[0]))  # for the lattice vectors only
    assert len(position) == 8
    for row in (0, 7, 100, 500):
        n, k = density.state[row], density.jump[row]
        here = int(states.carriers[n])
        there = int(network.targets(np.array([here]))[0, k])
        around = [int(x) for end in (here, there) for x in network.targets(np.array([end]))[0]]
        inside = [x for x in around if x not in (here, there)]
        expected = [sum(cell.species[states.occupations[n, x]] == s for x in inside) for s in names]
        assert counts[row].tolist() == expected
    histogram = density.over_neighbours("Cu")
    assert histogram.total.sum() == pytest.approx(1.0)
    fraction = counts[:, 1] / counts.sum(axis=1)
    mean = histogram.total @ ((histogram.edges[1:] + histogram.edges[:-1]) / 2)
    assert mean == pytest.approx(density.contribution @ fraction / density.total, abs=0.1)
    with pytest.raises(KinosonError, match="expected one of"):
        density.over_neighbours("Fe")


def test_ranking_adds_up_and_finds_the_fast_jumps(drawn):
    density = ak.KinosonDensity.from_result(drawn)
    for by in ("barrier", "neighbours", "species"):
        rows = density.rank_classes(by)
        assert sum(float(r.share) for r in rows) == pytest.approx(1.0)
        assert sum(float(r.fraction_of_jumps) for r in rows) == pytest.approx(1.0)
        assert sum(r.n_jumps for r in rows) == len(density.kinoson)
        assert [float(r.share) for r in rows] == sorted((float(r.share) for r in rows), reverse=True)
        assert all(r.share.kind == "estimate" for r in rows)
        assert float(rows[0].enrichment) == pytest.approx(float(rows[0].share) / float(rows[0].fraction_of_jumps))
    best = density.rank_classes("barrier", bins=4, n=1)[0]
    edges = np.histogram_bin_edges(density.barrier, bins=4)
    i = np.searchsorted(edges, best.mean_barrier) - 1
    assert best.label == f"{best.species}, {edges[i]:.3g} to {edges[i + 1]:.3g} eV"
    below = density.barrier <= edges[4] if i == 3 else density.barrier < edges[i + 1]
    inside = (density.species == best.species) & (density.barrier >= edges[i]) & below
    assert float(best.share) == pytest.approx(density.contribution[inside].sum() / density.total)
    assert best.n_jumps == inside.sum()
    top = density.top_jumps(5)
    assert [t.share for t in top] == sorted((t.share for t in top), reverse=True)
    worth = density.contribution.max()
    assert top[0].share == pytest.approx(worth / density.total)
    assert top[0].weight * top[0].kinoson == pytest.approx(worth)
    assert 0 <= top[0].jump < 4
    with pytest.raises(KinosonError, match="choose one"):
        density.rank_classes("colour")


def test_how_many_jumps_carry_every_coefficient(drawn):
    found = carrying_jumps(drawn)
    assert set(found) == {"kinoson_vacancy", "kinoson_Ag", "kinoson_Cu", "tracer_Ag", "tracer_Cu"}
    density = ak.KinosonDensity.from_result(drawn)
    plain = density.shares()
    for name, counts in found.items():
        half, most = counts[0.5], counts[0.9]
        assert 0 < half.fraction_of_jumps.value < most.fraction_of_jumps.value < 1
        assert 1 <= half.number.value < most.number.value <= len(density.kinoson)
        assert 0 < half.fraction_of_jumps.error < 0.1, name
    assert found["kinoson_vacancy"][0.9].fraction_of_jumps.value == pytest.approx(plain[0.9])
    # broken twin: the smallest kinosons first need far more
    order = np.argsort(density.kinoson)
    needed = np.searchsorted(np.cumsum(density.contribution[order]), 0.5 * density.total)
    assert needed > 2 * found["kinoson_vacancy"][0.5].number.value
    with pytest.raises(KinosonError, match="fractions"):
        density.carrying((1.5,))


def test_bootstrap_error_is_the_scatter_of_independent_samples(series, tiny, pair_model):
    """Errors of a share and of the number of jumps, against fresh samples."""
    shares, halves = [], []
    for seed in range(30):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KinosonWarning)  # one of many samples drifts beyond three errors
            found = ak.transport(sample(series[600.0], 80, seed), tiny[1], pair_model, None, 600.0, n_resamples=20)
        density = ak.KinosonDensity.from_result(found)
        shares.append(density.over_species()["Cu"][0])
        halves.append(density.carrying((0.5,))[0.5].fraction_of_jumps)
    for found in (shares, halves):
        scatter = np.std([float(q) for q in found], ddof=1)
        assert np.mean([q.error for q in found]) == pytest.approx(scatter, rel=0.45)


def test_density_refuses_what_it_does_not_know(series, drawn):
    bare = ak.KinosonDensity.from_result(series[600.0])  # an exact result has no relaxation and so no network
    with pytest.raises(KinosonError, match="states and jumps"):
        bare.neighbours()
    known = ak.KinosonDensity.from_result(series[600.0], network=drawn.relaxation.network)
    assert known.neighbours()[1].sum(axis=1).max() == 6
    with pytest.raises(KinosonError, match="displacements"):
        replace(bare, displacement=None).over_displacement()
    with pytest.raises(KinosonError, match="barriers"):
        replace(bare, barrier=np.full_like(bare.barrier, np.nan)).rank_classes()


# -- temperature -------------------------------------------------------------------------------------------------------


def test_frozen_relaxation_bounds_every_temperature(broad):
    """Λ_{y(T₀)}(T) ≥ Λ(T), with equality and equal slope at T₀; with frozen weights it is no bound."""
    at = np.array([r.temperature_K for r in broad])
    truth = np.array([float(r.vacancy_diffusivity) for r in broad]) * 1e20
    violated = False
    for i, result in enumerate(broad):
        density = ak.KinosonDensity.from_result(result)
        curve = density.bound_curve(at)
        assert curve.kind == "bound"
        assert curve.value[i] == pytest.approx(truth[i], rel=1e-10)
        assert np.all(curve.value >= truth * (1 - 1e-10))
        assert np.all(curve.error == 0)
        near = at[i] * np.array([0.999, 1.001])
        beta = 1 / (units.kB * near)
        slope = -np.diff(np.log(density.bound_curve(near).value))[0] / np.diff(beta)[0]
        assert slope == pytest.approx(density.activation_energy().value, abs=1e-5)
        violated |= bool(np.any(density.predict(at) < truth * (1 - 1e-3)))
    assert violated  # broken twin


def test_bound_curve_of_a_sample_collapses_openly(drawn, series, pair_model, tiny):
    density = ak.KinosonDensity.from_result(drawn)
    curve = density.bound_curve([590.0, 600.0])
    assert curve.value[1] == pytest.approx(density.total)
    own = drawn.vacancy_diffusivity
    assert curve.error[1] == pytest.approx(own.error * 1e20, rel=0.25)
    assert curve.value[0] > float(series[590.0].vacancy_diffusivity) * 1e20 - 3 * curve.error[0]
    assert 10 < curve.effective_sample_size[0] <= curve.effective_sample_size[1] * 1.1
    spread = np.random.default_rng(0).normal(0, 0.3, size=240)  # eV, as in a large cell
    large = replace(density, state_energy=spread[density.state])
    with pytest.warns(KinosonWarning, match="effective groups"):
        cold = large.bound_curve([300.0, 600.0])
    assert np.isnan(cold.value[0])
    assert np.isnan(cold.error[0])
    assert cold.effective_sample_size[0] < 10
    assert cold.value[1] == pytest.approx(density.total)


def test_quenched_reweighting_keeps_the_weight_of_each_arrangement(tiny, pair_model):
    cell, network = tiny
    states = ak.sample_states(
        cell,
        200,
        method="monte-carlo",
        model=pair_model,
        temperature_K=600.0,
        ensemble="quenched",
        n_chains=20,
        seed=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)  # atoms frozen: the energy drifts
        result = ak.transport(states, network, pair_model, None, 600.0, n_resamples=20)
    density = ak.KinosonDensity.from_result(result)
    curve = density.bound_curve([600.0, 500.0])
    assert curve.value[0] == pytest.approx(density.total)
    x = 1 / (units.kB * 500.0) - 1 / (units.kB * 600.0)
    expected = 0.0
    for g in np.unique(states.groups):
        own = states.groups == g
        rows = np.isin(density.state, np.flatnonzero(own))
        energy = result.kinosons["state_energy"]
        first = np.unique(result.kinosons["state"], return_index=True)[1]
        w = np.where(own, states.weights * np.exp(-x * energy[first]), 0.0)
        w *= states.weights[own].sum() / w.sum()
        expected += (w[density.state] * density.kinoson * np.exp(-x * density.barrier))[rows].sum()
    assert curve.value[1] == pytest.approx(expected, rel=1e-9)
    # broken twin: normalised over all arrangements together
    plain = replace(density, ensemble="equilibrium").bound_curve([500.0], smallest_sample=1.0)
    assert abs(plain.value[0] / expected - 1) > 1e-3


def test_models_of_several_temperatures(broad):
    """A density of several barriers bends: the Gaussian beats Arrhenius on temperatures left out."""
    fits = fit_temperature_models(broad)
    assert set(fits.models) == {"arrhenius", "gaussian", "third cumulant", "measured density"}
    assert fits["arrhenius"].left_out_rms > fits["gaussian"].left_out_rms > fits["third cumulant"].left_out_rms
    assert fits["arrhenius"].rms_residual > fits["gaussian"].rms_residual
    assert fits.best == "third cumulant"
    assert "best: third cumulant" in str(fits)
    truth = np.exp(fits.log_value)
    np.testing.assert_allclose(fits["third cumulant"].predict(fits.temperatures_K), truth, rtol=1e-3)
    slope = fits["arrhenius"].parameters["mean_barrier"]
    energies = [ak.KinosonDensity.from_result(r).activation_energy().value for r in broad]
    assert min(energies) < slope.value < max(energies)
    assert slope.unit == "eV"
    with pytest.raises(KinosonError, match="no parameters"):
        fits["measured density"].predict(600.0)
    same = ak.KinosonDensity.from_result(broad[0], quantity="Cu").fit_models(results=broad)
    assert same.quantity == "kinoson_Cu"
    assert same.log_value[2] == pytest.approx(np.log(np.asarray(broad[2].lambda_matrix.value)[1, 1]), abs=1e-9)
    # an exact solution knows its tracers, but lists no kinosons of them
    tracer = fit_temperature_models(broad, quantity="tracer_Cu")
    share = broad[0].composition.fractions[1]
    assert np.exp(tracer.log_value[0]) == pytest.approx(float(broad[0].tracer_diffusivity["Cu"]) * 1e20 * share)
    assert "add up to" in tracer.refused["measured density"]
    with pytest.raises(KinosonError, match="add up to"):
        ak.KinosonDensity.from_result(broad[0], quantity="tracer_Cu")
    assert "tracer_Cu" not in carrying_jumps(broad[0])
    with pytest.raises(KinosonError, match="expected one of"):
        fit_temperature_models(broad, quantity="Fe")


def test_known_cumulants_are_found(broad):
    """ln Λ made from given parameters: the fit returns them, and its errors are those of the resamples."""
    t = np.array([450.0, 520.0, 600.0, 700.0, 850.0, 1000.0])
    beta = 1 / (units.kB * t)
    logs = 30.0 - 0.8 * beta + 0.01 / 2 * beta**2
    noise = np.random.default_rng(0).normal(0, 0.02, size=(400, len(t)))
    made = []
    for i, r in enumerate(broad):
        rows = np.exp(logs[i] + np.concatenate([[0.0], noise[:, i]]))
        own = np.einsum("r,xy->rxy", rows / 2, np.diag([1.0, 1.0, 0.0]))[:, None, None]
        pair = np.zeros((401, 2, 2, 3, 3))
        pair[:, :1, :1] = own * 2
        averages = replace(r.averages, collective=pair, exact=False)
        d = replace(r.vacancy_diffusivity, value=rows[0] * 1e-20, kind="bound")
        made.append(replace(r, averages=averages, vacancy_diffusivity=d))
    fits = fit_temperature_models(made)
    found = fits["gaussian"].parameters
    assert found["log_prefactor"].value == pytest.approx(30.0, abs=1e-6)
    assert found["mean_barrier"].value == pytest.approx(0.8, abs=1e-7)
    assert found["variance"].value == pytest.approx(0.01, abs=1e-8)
    design = np.stack([np.ones(6), -beta, beta**2 / 2], axis=1) / 0.02
    expected = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    for q, e in zip(found.values(), expected, strict=True):
        assert q.error == pytest.approx(e, rel=0.15)
    assert fits.best in ("gaussian", "third cumulant")
    assert fits["gaussian"].aicc < fits["arrhenius"].aicc
    # broken twin: the variance with its sign turned does not describe the data
    bad = 30.0 - 0.8 * beta - 0.01 / 2 * beta**2
    assert np.abs(bad - logs).max() > 1


def test_few_temperatures_are_treated_honestly(broad):
    two = fit_temperature_models(broad[:2])
    assert set(two.models) == {"arrhenius", "measured density"}
    assert "3 parameters for 2" in two.refused["gaussian"]
    assert np.isnan(two["arrhenius"].left_out_rms)
    assert two.best is None
    assert two["arrhenius"].rms_residual < 1e-10
    three = fit_temperature_models(broad[:3])
    assert "third cumulant" in three.refused
    assert np.isnan(three["gaussian"].aicc)
    for bad in ([broad[0]], [broad[0], broad[0]], [broad[0], replace(broad[1], temperature_K=None)]):
        with pytest.raises(KinosonError, match="temperatures"):
            fit_temperature_models(bad)


def test_slopes_agree(series, broad):
    low, high = compare_slopes([series[610.0], series[590.0], series[600.0]])
    assert low.temperatures_K == (590.0, 600.0)
    for pair in (low, high):
        assert pair.difference.value == pytest.approx(0.0, abs=1e-5)
        assert pair.finite_difference.error == 0.0
    # broken twin: the mean barrier alone is no activation energy
    means = [ak.KinosonDensity.from_result(series[t]).mean_barrier().value for t in (590.0, 600.0)]
    assert abs(np.mean(means) - low.finite_difference.value) > 5e-3
    tracer = compare_slopes(broad, quantity="Cu")
    assert len(tracer) == 5
    with pytest.raises(KinosonError, match="two or more"):
        compare_slopes(broad[:1])


@pytest.mark.filterwarnings("ignore:.*worse than none")  # trained for one temperature, asked at others
def test_slopes_of_a_sample_have_errors(broad, tiny, pair_model, relaxation):
    energy = ak.PairEnergy.from_interactions(tiny[0], {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03})
    model = ak.PairBarriers(energy, {"Ag": 0.75, "Cu": 0.5})
    chosen = {r.temperature_K: sample(r, 400, i) for i, r in enumerate(broad[1:3])}
    found = [ak.transport(states, tiny[1], model, relaxation, t, n_resamples=100) for t, states in chosen.items()]
    tracer = fit_temperature_models(found, quantity="tracer_Cu")
    own = [r.averages.tracer[0, 1].trace() / 2 for r in found]
    np.testing.assert_allclose(tracer.log_value, np.log(own), rtol=1e-12)
    for error, r in zip(tracer.log_error, found, strict=True):
        q = r.tracer_diffusivity["Cu"]
        assert error == pytest.approx(q.error / q.value, rel=0.1)
    (pair,) = compare_slopes(found)
    assert 0 < pair.hellmann_feynman.error < 0.05
    assert 0 < pair.finite_difference.error < 0.2
    assert abs(pair.difference.value) < 3 * pair.difference.error + 0.01


def test_cumulative_plot(drawn):
    densities = {n: ak.KinosonDensity.from_result(drawn, quantity=n) for n in ("vacancy", "Cu")}
    axes = plot_cumulative_shares(densities)
    assert axes.get_xscale() == "log"
    assert len(axes.get_legend().get_texts()) == 2
    densities["vacancy"].plot(over="displacement")
    plt.close("all")
