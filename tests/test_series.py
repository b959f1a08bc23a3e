"""Several temperatures together: models that predict a temperature left out, activation energies, tables, pictures."""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase import Atoms

import ase_kinoson as ak
from ase_kinoson.arrhenius_plot import inverse_temperature_axes, plot_measured, plot_series
from ase_kinoson.errors import KinosonError, KinosonWarning, StatesError
from ase_kinoson.kinosons.temperature_curves import betas
from ase_kinoson.kinosons.temperature_models import log_rows
from ase_kinoson.measured import MeasuredDiffusivity, read_measured_diffusivity
from ase_kinoson.series import TemperatureSeries, temperature_series

ROUGH = (1000.0, 1150.0, 1350.0, 1600.0, 2000.0, 2600.0)
STD = 0.15
TEMPERATURES = (500.0, 600.0, 720.0)
FORMATION = 1.1
"""Formation energy of the vacancies, eV."""


@pytest.fixture(scope="module")
def square():
    parent = Atoms("Cu", cell=[2.0, 2.0, 10], pbc=(1, 1, 0))
    cell = ak.Alloy.from_atoms(parent, {"Cu": {"Ag": 0.5, "Cu": 0.5}}).supercell((6, 6, 1))
    return ak.JumpNetwork.from_supercell(cell)


@pytest.fixture(scope="module")
def rough(square):
    """Uncorrelated diffusivities of a Gaussian landscape, states of each temperature on its own."""
    # a reach that makes a million different jumps: the barriers that occur are then as good as Gaussian
    gas = ak.RandomBarriers(mean=0.8, std=STD, seed=1, cutoff=5.0)
    return temperature_series(
        gas,
        square,
        temperatures_K=ROUGH,
        relaxations=dict.fromkeys(ROUGH),
        n_states=3000,
        sampling={"sweeps": 1, "n_chains": 3000},
        pool=False,
        n_resamples=200,
        seed=4,
    )


def reference(model, network, states):
    """Barriers of a model, as if they were computed."""
    source = model.bind(network)
    energies = source.jump_energies(states.occupations, states.carriers)
    start = source.energy.energies(states.occupations)
    return ak.Barriers.from_arrays(
        states,
        network,
        energies.barrier,
        reverse_barrier=energies.reverse_barrier,
        energy_initial=start,
        energy_final=start[:, None] + energies.delta_e,
    )


@pytest.fixture(scope="module")
def hard(tiny):
    """Reference energies and barriers that differ from those of the pair model."""
    energy = ak.PairEnergy.from_interactions(tiny[0], {("Ag", "Cu"): -0.055, ("Cu", "X"): -0.025})
    return ak.PairBarriers(energy, {"Ag": 0.63, "Cu": 0.5})


@pytest.fixture(scope="module")
def sets(tiny, pair_model, hard):
    """Reference barriers of states that the pair model drew at three temperatures."""
    cell, network = tiny
    found = []
    for i, t in enumerate(TEMPERATURES):
        states = ak.sample_states(
            cell, 120, method="monte-carlo", model=pair_model.bind(network), temperature_K=t, seed=50 + i, sweeps=20
        )
        found.append(reference(hard, network, states))
    return found


@pytest.fixture(scope="module")
def pooled(sets, tiny):
    return temperature_series(
        sets,
        tiny[1],
        relaxations=dict.fromkeys(TEMPERATURES),
        vacancy_fraction={t: float(np.exp(1.5 - FORMATION * betas(t)[0])) for t in TEMPERATURES},
        n_resamples=100,
    )


# -- models ------------------------------------------------------------------------------------------------------------


def test_gaussian_and_measured_density_predict_what_arrhenius_does_not(rough):
    rows = rough.predict_left_out()
    z = {name: np.array([r.z_score for r in rows if r.model == name]) for name in ("arrhenius", "gaussian")}
    assert len(z["arrhenius"]) == len(ROUGH)
    assert np.abs(z["gaussian"]).max() < 2.5
    assert np.abs(z["arrhenius"]).max() > 5.0
    assert np.abs(z["arrhenius"]).mean() > 3 * np.abs(z["gaussian"]).mean()
    measured = np.array([r.z_score for r in rows if r.model == "measured density"])
    assert len(measured) == len(ROUGH)
    assert np.abs(measured).max() < 2.5
    # broken twin: kinosons carried with half of their barriers
    density = ak.KinosonDensity.from_result(rough.results[2])
    halved = replace(density, barrier=0.5 * density.barrier)
    target = float(rough.results[1].vacancy_diffusivity) * 1e20
    assert abs(np.log(halved.bound_curve([1150.0]).value[0] / target)) > 0.2
    # y = 0 leaves nothing to gain: the carried kinosons are the coefficient itself
    assert abs(np.log(density.bound_curve([1150.0]).value[0] / target)) < 0.2


def test_the_fitted_cumulants_are_those_of_the_landscape(rough):
    """ln Λ[0] = ln(ν a²) − βQ̄ + β²σ²/2 on the square lattice, in m²/s."""
    found = rough.fit_models()["gaussian"]
    assert found.unit == "m^2/s"
    expected = {"log_prefactor": np.log(1e13 * 4e-20), "mean_barrier": 0.8, "variance": STD**2}
    for name, value in expected.items():
        q = found.parameters[name]
        assert abs(float(q) - value) < 3.5 * float(q.error), name
    assert float(found.parameters["variance"]) > 3.5 * float(found.parameters["variance"].error)
    # broken twin: the straight line gives another barrier and prefactor, by far more than its errors
    line = rough.fit_models()["arrhenius"].parameters
    assert abs(float(line["mean_barrier"]) - 0.8) > 10 * float(line["mean_barrier"].error)
    between = found.prediction([1450.0])
    exact = 1e13 * 4e-20 * np.exp(-0.8 * betas(1450.0) + (betas(1450.0) * STD) ** 2 / 2)
    assert abs(between.value - exact)[0] < 3.5 * between.error[0] < 0.1 * exact[0]


def test_errors_of_predictions_are_the_scatter_of_repeats(square):
    """z of a right model has unit width over independent series."""
    gas = ak.RandomBarriers(mean=0.8, std=0.05, seed=1)
    z = []
    for seed in range(8):
        series = temperature_series(
            gas,
            square,
            temperatures_K=(800.0, 1000.0, 1200.0, 1500.0),
            relaxations=dict.fromkeys((800.0, 1000.0, 1200.0, 1500.0)),
            n_states=150,
            sampling={"sweeps": 3, "n_chains": 150},
            pool=False,
            n_resamples=100,
            seed=seed,
        )
        z += [r.z_score for r in series.predict_left_out() if r.model == "gaussian"]
    assert 0.6 < np.sqrt(np.mean(np.square(z))) < 1.5


# -- pooled reference barriers -----------------------------------------------------------------------------------------


def test_pooled_barriers_give_the_exact_series(pooled, tiny, hard):
    """Bounds with y = 0 at every temperature, against all states weighted exactly."""
    cell, network = tiny
    assert pooled.temperatures_K.tolist() == list(TEMPERATURES)
    for result in pooled.results:
        t = result.temperature_K
        exact = ak.exact_transport(cell, network, hard, t, tracers=False)
        truth = ak.transport(exact.states, network, hard, None, t)
        assert result.vacancy_diffusivity.kind == "bound"
        assert result.n_states == 3 * 120
        assert result.effective_sample_size > 130  # more than the 120 states drawn at it
        for q, p in (
            (result.vacancy_diffusivity, truth.vacancy_diffusivity),
            (result.correlation_factor["Cu"], truth.correlation_factor["Cu"]),
        ):
            assert abs(float(q) - float(p)) <= 3.5 * float(q.error) + 1e-12
        own = result.vacancy_diffusivity
        assert float(own.error) < 0.05 * float(own)


def test_states_that_are_not_weighted_are_no_bound(sets, tiny, hard):
    """Broken twin: concatenated barriers as they are."""
    joined = ak.Barriers.concatenate(sets)
    states = replace(joined.states, ensemble="equilibrium", temperature_K=600.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        result = ak.transport(states, tiny[1], joined, None, 600.0, n_resamples=20)
    assert result.vacancy_diffusivity.kind == "not a bound"


def test_activation_energies_agree_with_the_slopes(pooled, tiny, hard):
    energies = pooled.activation_energies()
    assert set(energies) == {"vacancy", "Ag", "Cu"}
    for name, found in energies.items():
        for pair in found.slopes:
            assert abs(float(pair.difference)) < 3.5 * float(pair.difference.error) + 2e-3, name
        assert np.all(found.hellmann_feynman.error < 0.05)
    # D* contains the formation energy and D_v does not
    copper = energies["Cu"]
    assert float(copper.vacancy) == pytest.approx(FORMATION, rel=1e-9)
    assert energies["vacancy"].vacancy is None
    without = float(copper.fitted) - float(copper.vacancy)
    assert min(copper.hellmann_feynman.value) - 0.02 < without < max(copper.hellmann_feynman.value) + 0.02
    assert "from c_v" in str(copper)
    # the Hellmann-Feynman energy is that of the exact series of the reference, not of the mean barrier
    exact = [ak.exact_transport(*tiny, hard, t, tracers=False).states for t in (590.0, 610.0)]
    d = [float(ak.transport(s, tiny[1], hard, None, s.temperature_K).vacancy_diffusivity) for s in exact]
    slope = -np.diff(np.log(d))[0] / np.diff(betas([590.0, 610.0]))[0]
    assert abs(energies["vacancy"].hellmann_feynman.value[1] - slope) < 0.02
    mean = ak.KinosonDensity.from_result(pooled.results[1]).mean_barrier()
    assert abs(float(mean) - slope) > abs(energies["vacancy"].hellmann_feynman.value[1] - slope)


def test_error_of_c_v_is_common_to_all_temperatures(pooled):
    """An uncertain formation energy δE shifts the slope of D* by δE and bends nothing."""
    wobbly = [
        replace(r, vacancy_fraction_error=0.1 * betas(r.temperature_K)[0] * r.vacancy_fraction) for r in pooled.results
    ]
    plain = pooled.fit_models("Cu")["arrhenius"].parameters["mean_barrier"]
    series = TemperatureSeries(tuple(wobbly))
    loose = series.fit_models("Cu")["arrhenius"].parameters["mean_barrier"]
    assert float(loose) == pytest.approx(float(plain), abs=0.02)
    assert float(loose.error) == pytest.approx(0.1, rel=0.2)
    assert float(series.activation_energies()["Cu"].vacancy.error) == pytest.approx(0.1, rel=0.2)
    assert float(plain.error) < 0.02


def test_a_prediction_has_the_error_of_c_v_like_the_value_itself(pooled):
    """A common error of c_v drops out of ln(predicted/found), not out of the prediction."""
    wobbly = [replace(r, vacancy_fraction_error=0.3 * r.vacancy_fraction) for r in pooled.results]
    series = TemperatureSeries(tuple(wobbly))
    rows = series.predict_left_out("Cu")
    bound, sure = (x.bound_curve(600.0, [560.0, 640.0], name="Cu") for x in (series, pooled))
    np.testing.assert_allclose(bound.error, np.hypot(sure.error, 0.3 * sure.value), rtol=1e-9)
    plain = pooled.predict_left_out("Cu")
    assert {r.model for r in rows} == {"arrhenius", "measured density"}
    for with_error, without in zip(rows, plain, strict=True):
        relative = with_error.predicted.error / float(with_error.predicted)
        assert relative == pytest.approx(np.hypot(0.3, without.predicted.error / float(without.predicted)), rel=0.2)
        assert with_error.z_score == pytest.approx(without.z_score, rel=1e-6)
        # states of all temperatures serve each: what prediction and value have in common is no error of either less
        assert without.predicted.error > 0.2 * without.found.error


def test_exact_values_have_the_error_of_c_v(tiny, pair_model):
    c_v = ak.VacancyFraction.from_formation(FORMATION, energy_error=0.1)
    exact = [ak.exact_transport(*tiny, pair_model, t, vacancy_fraction=c_v) for t in TEMPERATURES]
    series = TemperatureSeries(tuple(exact))
    slope = series.activation_energies()["Cu"].fitted
    assert float(slope.error) == pytest.approx(0.1, rel=0.15)
    assert series.activation_energies()["vacancy"].fitted.error == 0.0
    # broken twin: without that error nothing is uncertain
    sure = [ak.exact_transport(*tiny, pair_model, t, vacancy_fraction=1e-5) for t in TEMPERATURES]
    assert TemperatureSeries(tuple(sure)).activation_energies()["Cu"].fitted.error == 0.0


def test_noise_is_common_to_all_results_of_the_same_states(pooled, sets, tiny, hard):
    """Also where the first temperature has states of its own: the others still share theirs."""
    alone = ak.transport(
        ak.pool_states([sets[0]], TEMPERATURES[0]).states, tiny[1], hard, None, TEMPERATURES[0], n_resamples=100
    )
    rows = log_rows((alone, *pooled.results[1:]))
    noise = np.corrcoef([r[1:101] for r in rows])
    assert noise[1, 2] > 0.7
    assert np.abs(noise[0, 1:]).max() < 0.4
    own = np.corrcoef([r[1:] for r in log_rows(pooled.results)])
    assert noise[1, 2] == pytest.approx(own[1, 2], rel=1e-9)


def test_error_of_a_difference_of_slopes_is_its_scatter(square):
    """Over repeats: what Hellmann-Feynman energy and finite difference have in common is in no error twice."""
    t, found = (1000.0, 1060.0), []
    for seed in range(30):
        gas = ak.RandomBarriers(mean=0.8, std=0.1, seed=1, cutoff=5.0)
        states = [ak.sample_states(square.supercell, 40, seed=seed, method="random")] * 2
        pair = [ak.transport(s, square, gas, None, x, n_resamples=50) for s, x in zip(states, t, strict=True)]
        found += ak.compare_slopes(pair)
    for name, least in (("finite_difference", 0.7), ("hellmann_feynman", 0.7), ("difference", 0.5)):
        scatter = np.std([float(getattr(f, name)) for f in found], ddof=1)
        stated = np.mean([float(getattr(f, name).error) for f in found])
        assert least < stated / scatter < 1 / least, name
    # broken twin: in quadrature, as of independent numbers
    scatter = np.std([float(f.difference) for f in found], ddof=1)
    assert np.hypot(found[0].hellmann_feynman.error, found[0].finite_difference.error) > 5 * scatter


def test_training_goes_from_hot_to_cold(tiny, pair_model):
    _, network = tiny
    small = {"lookahead": 1, "n_states": 80, "epochs": 0, "closure_epochs": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)  # a tiny cell: states of the training are met again
        series = temperature_series(
            pair_model,
            network,
            temperatures_K=(600.0, 500.0),
            training=small,
            n_states=80,
            sampling={"sweeps": 10},
            correct={"n_steps": 2, "n_trajectories": 32},
            n_resamples=50,
        )
    assert [r.relaxation.report["temperature_K"] for r in series.results] == [500.0, 600.0]
    cold, hot = (r.relaxation.report["untrained_bound_ratio"] for r in series.results)
    assert cold < 0.8 * hot  # it begins with what the hot one has learned
    assert len(series.corrected) == 2
    for bound, value in zip(series.results, series.corrected, strict=True):
        gain = float(bound.vacancy_diffusivity) - float(value.vacancy_diffusivity)
        assert gain > -3.0 * float(value.vacancy_diffusivity.error)
        assert float(bound.collective_correlation_factor["vacancy"]) < 1
    assert "corrected values" in series.fit_models().refused["measured density"]
    assert "not a bound" not in series.diffusivity("Cu")[1].kind


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_said(pooled, sets, tiny, pair_model):
    _, network = tiny
    with pytest.raises(KinosonError, match="expected one of"):
        pooled.diffusivity("Fe")
    with pytest.raises(KinosonError, match="choose one"):
        pooled.bound_curve(610.0, [600.0])
    with pytest.raises(KinosonError, match="no model to train"):
        temperature_series(sets, network)
    with pytest.raises(KinosonError, match="expected Barriers"):
        temperature_series([pair_model], network, temperatures_K=[600.0])
    with pytest.raises(KinosonError, match="no temperatures"):
        temperature_series(pair_model, network)
    with pytest.raises(KinosonError, match="no relaxation for"):
        temperature_series(sets, network, relaxations={500.0: None})
    with pytest.raises(KinosonError, match="drawn at 650 K"):
        temperature_series(sets, network, temperatures_K=[650.0], relaxations={650.0: None}, pool=False)
    with pytest.raises(KinosonError, match="different temperatures"):
        TemperatureSeries((pooled.results[0], pooled.results[0]))
    noise = np.random.default_rng(0).normal(0.0, 0.4, size=120)  # of a model that knows little of the energies
    rough = replace(sets[0], states=replace(sets[0].states, model_energies=sets[0].states.model_energies + noise))
    with pytest.raises(StatesError, match=r"effective independent groups of 120 .* 500 K; expected at least 10"):
        temperature_series([rough], network, relaxations={500.0: None})


# -- tables and pictures -----------------------------------------------------------------------------------------------


def write(tmp_path, text):
    path = tmp_path / "measured.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_measured_points_come_with_their_units(tmp_path):
    path = write(
        tmp_path,
        "# radiotracer\nspecies, temperature [C], diffusivity [cm^2/s], error [m2/s], source\n"
        'Cu, 326.85, 2e-9, 1e-14, "Doe, 1970"\n\nNi, 426.85, 4e-9,,\n',
    )
    found = read_measured_diffusivity(path)
    np.testing.assert_allclose(found.temperature_K, [600.0, 700.0])
    np.testing.assert_allclose(found.diffusivity, [2e-13, 4e-13], rtol=1e-12)
    assert found.error[0] == pytest.approx(1e-14, rel=1e-9, abs=0)
    assert np.isnan(found.error[1])
    assert found.source[0] == "Doe, 1970"
    assert len(found.of("Ni")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature, diffusivity [m2/s]\n600, 1e-13\n", "'temperature' without a unit"),
        ("temperature [K], diffusivity\n600, 1e-13\n", "'diffusivity' without a unit"),
        ("temperature [F], diffusivity [m2/s]\n600, 1e-13\n", "unit 'F'"),
        ("T [K], diffusivity [m2/s]\n600, 1e-13\n", "rename them"),
        ("temperature [K], diffusivity [m2/s]\n600, x\n", "'x' in line 2"),
        ("temperature [C], diffusivity [m2/s]\n-300, 1e-13\n", "above 0 K"),
        ("temperature [K], diffusivity [m2/s]\n600, -1e-13\n", "diffusivity above 0"),
        ("temperature [K], diffusivity [m2/s]\n", "no measured points"),
        ("temperature [K], diffusivity [m2/s], error\n600, 1e-13, 1e-14\n", "'error' without a unit"),
    ],
)
def test_a_table_without_units_or_numbers_is_refused(tmp_path, text, message):
    with pytest.raises(KinosonError, match=message):
        read_measured_diffusivity(write(tmp_path, text))


def test_columns_without_a_name_are_passed_over(tmp_path):
    """Spreadsheets end lines with commas."""
    found = read_measured_diffusivity(write(tmp_path, "temperature [K],diffusivity [m2/s],,\n900,1e-16,,\n"))
    assert found.temperature_K.tolist() == [900.0] and found.diffusivity.tolist() == [1e-16]
    with pytest.raises(KinosonError, match="two columns 'temperature'"):
        read_measured_diffusivity(write(tmp_path, "temperature [K],temperature [C],diffusivity [m2/s]\n900,1,1e-16\n"))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(KinosonError, match=r"found no file .*expected a CSV file"):
        read_measured_diffusivity(tmp_path / "nothing.csv")


def test_arrhenius_plot_holds_points_curve_bound_and_measured(pooled):
    measured = MeasuredDiffusivity(
        np.array([550.0, 650.0]),
        np.array([1e-18, 1e-17]),
        np.array([1e-19, np.nan]),
        np.array(["Cu", "Fe"]),
        np.array(["Doe", "Doe"]),
    )
    axes = pooled.plot(["Cu"], measured=measured, bound_from=600.0)
    t, value = pooled.diffusivity("Cu")
    assert value.unit == "m^2/s"
    points = axes.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), 1e4 / t)
    np.testing.assert_allclose(points.get_ydata(), np.log10(value.value))
    assert len(axes.containers) == 2  # the point of Fe is not drawn
    np.testing.assert_allclose(axes.containers[1].lines[0].get_xdata(), [1e4 / 550.0])
    assert axes.containers[1].lines[0].get_markerfacecolor() == "none"
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 101]
    assert [line.get_linestyle() for line in curves] == ["-", ":"]
    at = np.interp(1e4 / 600.0, curves[0].get_xdata(), curves[0].get_ydata())
    assert at == pytest.approx(np.log10(value.value[1]), abs=0.05)
    touched = np.interp(1e4 / 600.0, curves[1].get_xdata(), curves[1].get_ydata())
    assert touched == pytest.approx(np.log10(value.value[1]), abs=0.1)
    assert "10^4" in axes.get_xlabel()
    plt.close("all")
    axes = plot_series(pooled, melting_temperature_K=1200.0, top="K")
    assert axes.get_xlabel() == "$T_m$ / $T$"
    np.testing.assert_allclose(axes.containers[0].lines[0].get_xdata(), 1200.0 / t)
    assert len(axes.containers) == 2  # D* of the two species, since c_v is known
    plt.close("all")
    assert plot_measured(measured).get_legend() is None
    plt.close("all")
    for bad in ({"top": "F"}, {"melting_temperature_K": -1.0}):
        with pytest.raises(KinosonError, match="found"):
            inverse_temperature_axes(**bad)
    with pytest.raises(KinosonError, match="choose one"):
        plot_series(pooled, model="parabola")
    plt.close("all")


def test_measured_points_need_absolute_diffusivities(pooled, rough):
    measured = MeasuredDiffusivity(*(np.array([x]) for x in (600.0, 1e-17, 1e-18, "Cu", "Doe")))
    with pytest.raises(KinosonError, match="vacancy fraction"):
        plot_series(rough, ["Cu"], measured=measured)
    plt.close("all")


def test_table_of_the_series(pooled):
    rows = pooled.as_rows()
    assert len(rows) == 3 * 3
    assert rows[0]["unit"] == "m^2/s"
    assert {r["name"] for r in rows} == {"vacancy", "Ag", "Cu"}
    pd = pytest.importorskip("pandas")
    frame = pooled.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert "temperature [K]" in frame.columns
    assert frame["diffusivity"].tolist() == [r["diffusivity"] for r in rows]
