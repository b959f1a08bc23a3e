"""Vacancy wind and interdiffusion from the Onsager matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.derived import interdiffusion, intrinsic_diffusivities, vacancy_wind
from ase_kinoson.validation import hcp_interstitials, parent, tiny_cell

RATES = {"Ag": 0.1, "Cu": 1.0}


@pytest.fixture(scope="module")
def alike(tiny):
    cell, network = tiny
    return ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}))


@pytest.fixture(scope="module")
def unlike(tiny):
    cell, network = tiny
    return ak.exact_transport(cell, network, ak.SpeciesRates(RATES))


@pytest.fixture(scope="module")
def drawn(tiny):
    """A sampled result with errors and without relaxation: an upper bound."""
    cell, network = tiny
    states = ak.sample_states(cell, 300, seed=3)
    states = replace(states, ensemble="equilibrium")  # of a gas of species rates, all arrangements weigh the same
    return ak.transport(states, network, ak.SpeciesRates(RATES), n_resamples=100)


def test_equal_atoms_interdiffuse_like_tracers_without_common_drift(alike):
    """D_A = D_B = D̃ = c_v N/(N−2) (f − 1/(N−1)) D_v: names mix as single atoms part from each other."""
    n, f = 9, float(alike.correlation_factor["Cu"])
    assert f == pytest.approx(7 / 11)
    site_fraction = alike.composition.fractions.sum() / 2
    expected = (f - 1 / (n - 1)) / (n - 2) * 4 / site_fraction * float(alike.vacancy_diffusivity)
    found = interdiffusion(alike, 1.0)
    for q in (found.coefficient, *found.intrinsic.values()):
        assert float(q) == pytest.approx(expected, rel=1e-12, abs=0)
        assert (q.kind, q.error, q.unit) == ("exact", 0.0, "m^2/s per c_v")
    assert abs(float(found.kirkendall)) < 1e-12 * expected
    wind = vacancy_wind(alike)
    s = (f - 1 / (n - 1)) * (n - 1) / (n - 2) / f  # 1 in the infinite crystal
    assert float(wind.darken_manning_factor) == pytest.approx(s, rel=1e-12)
    for q in wind.wind_factor.values():
        assert float(q) == pytest.approx(s, rel=1e-12)
    # broken twin: without the off-diagonal coefficient the identity fails
    bare = np.array(alike.averages.collective)
    bare[:, [0, 1], [1, 0]] = 0.0
    broken = replace(alike, averages=replace(alike.averages, collective=bare))
    assert abs(float(interdiffusion(broken, 1.0).coefficient) / expected - 1) > 0.1


def test_formulas_against_onsager_coefficients_in_si(tiny, pair_model):
    """D_A = k_BT Ω (L_AA/x_A − L_AB/x_B) φ from the Onsager matrix itself, with unit and c_v."""
    cell, network = tiny
    t, cv = 600.0, 1e-6
    result = ak.exact_transport(cell, network, pair_model, t, vacancy_fraction=cv)
    matrix, x = np.asarray(result.onsager_matrix.value), result.composition.fractions
    area, kt = 1e-20, 1.380649e-23 * t  # unit square lattice
    expected = [kt * area * (matrix[a, a] / x[a] - matrix[a, 1 - a] / x[1 - a]) * 1.7 for a in range(2)]
    found = intrinsic_diffusivities(result, 1.7)
    assert [float(q) for q in found.values()] == pytest.approx(expected, rel=1e-5, abs=0)
    both = interdiffusion(result, 1.7)
    assert both.coefficient.unit == "m^2/s"
    mixed = 0.5 * (expected[0] + expected[1])  # as many atoms of one kind as of the other
    assert float(both.coefficient) == pytest.approx(mixed, rel=1e-5, abs=0)
    assert float(both.kirkendall) == pytest.approx(expected[0] - expected[1], rel=1e-4, abs=0)
    tracers = [float(result.tracer_diffusivity[a]) for a in result.species]
    darken = 0.5 * sum(tracers) * 1.7
    assert float(both.coefficient) == pytest.approx(darken * float(both.darken_manning_factor), rel=1e-12, abs=0)


def test_random_alloy_sum_rule_fixes_the_drag_ratio(unlike):
    """Σ_b Λ_ab w_a/w_b = Λ_aa[0] leaves one independent number: Λ_AB = (Λ_aa[0] − Λ_aa) w_b/w_a."""
    wind = vacancy_wind(unlike)
    diagonal = np.diag(np.asarray(unlike.lambda_matrix.value))
    for i, (a, b) in enumerate((("Ag", "Cu"), ("Cu", "Ag"))):
        bare = diagonal[i] / float(unlike.collective_correlation_factor[a])
        mixed = (bare - diagonal[i]) * RATES[b] / RATES[a]
        expected = -1.0 - mixed / diagonal[i]
        assert float(wind.drag_ratio[a]) == pytest.approx(expected, rel=1e-10)
        assert expected < -1  # the atoms of a random alloy flow against the vacancies
        # broken twin: rates exchanged
        assert abs(-1.0 - (bare - diagonal[i]) * RATES[a] / RATES[b] / diagonal[i] - expected) > 0.1


def test_intrinsic_diffusivities_of_a_random_alloy_go_like_the_rates():
    """By the sum rule D_A/D_B = w_A/w_B in every cell and at every composition; tracers do not obey it."""
    for counts in ({"Ag": 4, "Cu": 4}, {"Ag": 2, "Cu": 6}, {"Ag": 7, "Cu": 1}):
        cell, network = tiny_cell(counts)
        result = ak.exact_transport(cell, network, ak.SpeciesRates(RATES))
        d = intrinsic_diffusivities(result, 1.0)
        assert float(d["Ag"]) / float(d["Cu"]) == pytest.approx(0.1, rel=1e-10)
        # broken twin
        tracers = float(result.tracer_diffusivity["Ag"]) / float(result.tracer_diffusivity["Cu"])
        assert abs(tracers - 0.1) > 0.01


def test_a_bound_solute_is_dragged():
    """In fcc a vacancy bound to a solute circles around it and takes it along; without the binding it does not."""
    cell = parent("fcc").supercell(2)
    network = ak.JumpNetwork.from_supercell(cell)
    ratios = []
    for energy in (-0.3, 0.0):
        pairs = ak.PairEnergy.from_interactions(cell, {("Cu", "X"): energy})
        model = ak.PairBarriers(pairs, {"Ag": 0.5, "Cu": 0.5})
        counts = {"Ag": 30, "Cu": 1}
        ratios.append(vacancy_wind(ak.exact_transport(cell, network, model, 600.0, counts=counts)).drag_ratio["Cu"])
    assert float(ratios[0]) > 0.2
    assert float(ratios[1]) < -1.0
    assert ratios[0].unit == "1"


def test_errors_come_from_the_resamples(drawn):
    found = interdiffusion(drawn, (1.3, 0.1))
    wind = vacancy_wind(drawn)
    assert {found.coefficient.kind, wind.drag_ratio["Ag"].kind, wind.darken_manning_factor.kind} == {"estimate"}
    only = interdiffusion(drawn, 1.3).coefficient
    assert only.error > 0
    assert found.coefficient.error == pytest.approx(np.hypot(only.error, float(only) * 0.1 / 1.3), rel=1e-9, abs=0)
    rows = drawn.averages.collective.trace(axis1=3, axis2=4) / 2
    x = drawn.composition.fractions
    draws = rows[1:, 0, 0] / x[0] - rows[1:, 0, 1] / x[1]
    excess = max(0.0, stats.kurtosis(draws))  # by hand, from the page about error bars
    excess = np.clip(excess**2 / (excess + np.sqrt(24 / len(draws))), 1e-6, 1.0)
    by_hand = draws.std(ddof=1) * stats.t.ppf(stats.norm.cdf(1.0), 1 / excess) * 1e-20
    assert intrinsic_diffusivities(drawn, 1.0)["Ag"].error == pytest.approx(by_hand, rel=1e-6, abs=0)
    for kind in ("corrected", "not a bound"):
        other = replace(drawn, vacancy_diffusivity=replace(drawn.vacancy_diffusivity, kind=kind))
        assert interdiffusion(other, 1.0).coefficient.kind == kind
    assert found.as_dict()["thermodynamic_factor"] == {"value": 1.3, "error": 0.1}
    assert wind.as_dict()["darken_manning_factor"]["unit"] == "1"


def test_exact_numbers_with_a_measured_factor_are_estimates(unlike):
    assert interdiffusion(unlike, (2.0, 0.2)).coefficient.kind == "estimate"
    assert interdiffusion(unlike, 2.0).coefficient.kind == "exact"


def test_refusals(unlike):
    for bad in (0.0, -1.0, float("nan"), (1.0, -0.1), "one", (1.0, 2.0, 3.0)):
        with pytest.raises(KinosonError, match="thermodynamic_factor"):
            interdiffusion(unlike, bad)
    cell, network = tiny_cell({"Ag": 3, "Cu": 3, "Pd": 2})
    ternary = ak.exact_transport(cell, network, ak.SpeciesRates({**RATES, "Pd": 0.5}), tracers=False)
    with pytest.raises(KinosonError, match="binary"):
        intrinsic_diffusivities(ternary, 1.0)
    wind = vacancy_wind(ternary)
    assert set(wind.drag_ratio) == {"Ag", "Cu", "Pd"}
    assert wind.wind_factor is wind.darken_manning_factor is None
    assert wind.as_dict()["wind_factor"] is None
    hcp = hcp_interstitials()
    free = ak.exact_transport(hcp.supercell, hcp, ak.SiteBarriers((0.0, 0.0), (0.0, 0.0, 0.0)), 1000.0)
    with pytest.raises(KinosonError, match="interstitial"):
        vacancy_wind(free)
    with pytest.raises(KinosonError, match="averages"):
        vacancy_wind(replace(unlike, averages=None))
    assert vacancy_wind(replace(unlike, states=None)).drag_ratio["Cu"].value == pytest.approx(
        vacancy_wind(unlike).drag_ratio["Cu"].value
    )
