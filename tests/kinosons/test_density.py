"""The density of kinosons and what it says about temperature."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase import units

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError


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
