"""From small periodic cells to the infinite crystal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.finite_size import extrapolate, finite_size_corrected
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.validation import hcp_interstitials, parent

CELLS = {
    # lattice: two sizes and the tracer correlation factor of the infinite crystal (Onsager package, D. R. Trinkle)
    "fcc": ((4, 6), "conventional", 0.78145142),
    "bcc": ((6, 8), "conventional", 0.72719414),
    "sc": ((8, 10), "conventional", 0.65310884),
    "square": ((8, 12), "conventional", 1 / (np.pi - 1)),
}
FIVE_FREQUENCY = {0.1: 0.972794, 1.0: 0.781451, 10.0: 0.263387}
"""Exchange rate of the solute in fcc, all others 1: its correlation factor (Onsager package, D. R. Trinkle)."""


def solute(lattice: str, size: int, rate: float = 1.0, of: str = "conventional") -> ak.Transport:
    """One Cu among Ag and one vacancy, solved exactly."""
    cell = parent(lattice).supercell(size, of=of)
    network = ak.JumpNetwork.from_supercell(cell)
    counts = {"Ag": cell.n_sites - 2, "Cu": 1}
    gas = ak.SpeciesRates({"Ag": 1.0, "Cu": rate})
    result = ak.exact_transport(cell, network, gas, counts=counts, tracers=False)
    # a single atom is its own tracer
    own, bare = result.averages.collective, result.averages.collective_bare
    averages = replace(
        result.averages, tracer=np.einsum("raaxy->raxy", own), tracer_bare=np.einsum("raaxy->raxy", bare)
    )
    f = result.collective_correlation_factor
    return replace(result, averages=averages, correlation_factor={a: f[a] for a in result.species})


def relative_to_centre_of_mass(result: ak.Transport) -> float:
    """f of the solute where displacements are counted from the centre of mass of all atoms (the broken twin)."""
    own, n = np.asarray(result.lambda_matrix.value), result.states.supercell.n_sites
    drift = -2 * own[1].sum() / (n - 1) + own.sum() / (n - 1) ** 2
    return float(result.correlation_factor["Cu"]) * (1 + drift / own[1, 1])


@pytest.mark.parametrize("lattice", CELLS)
def test_images_explain_the_size_of_the_cell(lattice):
    """The error of the tracer factor falls from order 1/N, (1 + f)²/(d N), to higher order."""
    sizes, of, infinite = CELLS[lattice]
    raw, corrected, n = [], [], []
    for size in sizes:
        result = solute(lattice, size, of=of)
        n.append(result.states.supercell.n_sites)
        raw.append(float(result.correlation_factor["Cu"]) - infinite)
        corrected.append(float(finite_size_corrected(result).correlation_factor["Cu"]) - infinite)
    for x, y, size in zip(raw, corrected, n, strict=True):
        assert abs(y) < 0.08 * x
        dimension = 2 if lattice == "square" else 3
        assert x * size == pytest.approx((1 + infinite) ** 2 / dimension, rel=0.09)
    assert abs(corrected[1] * n[1]) < 0.95 * abs(corrected[0] * n[0])  # of higher order than 1/N


@pytest.mark.parametrize("rate", FIVE_FREQUENCY)
def test_solutes_of_other_rates(rate):
    """The correction holds for slow and fast solutes; the drift of the centre of mass only for equal rates."""
    result = solute("fcc", 4, rate)
    raw = float(result.correlation_factor["Cu"])
    found = finite_size_corrected(result)
    infinite = FIVE_FREQUENCY[rate]
    assert abs(float(found.correlation_factor["Cu"]) - infinite) < 0.06 * (raw - infinite)
    assert found.correlation_factor["Cu"].kind == "estimate"
    twin = relative_to_centre_of_mass(result)
    if rate == 1.0:
        assert abs(twin - infinite) < 0.03 * (raw - infinite)
    else:
        assert abs(twin - infinite) > 0.4 * (raw - infinite)
    if rate < 1:  # more than uncorrelated: the twin is absurd
        assert twin > 1
    tensor = np.asarray(found.tracer_diffusivity_tensor["Cu"].value)
    np.testing.assert_allclose(tensor, float(found.tracer_diffusivity["Cu"]) * np.eye(3), atol=1e-9 * tensor[0, 0])
    for name in ("vacancy_diffusivity", "lambda_matrix", "collective_correlation_factor"):
        assert getattr(found, name) is getattr(result, name)


@pytest.mark.parametrize(("lattice", "size", "factor"), [("fcc", 3, 0.78145142), ("bcc", 4, 0.72719414)])
def test_diffusivity_of_a_pure_crystal_is_that_of_the_infinite_one(lattice, size, factor):
    """D* = f z w l²/6 c_v: the site that the vacancy of the cell takes from the atoms is an effect of its size too."""
    cell = ak.Alloy.from_atoms(bulk("Cu", lattice, a=1.0, cubic=True)).supercell((size,) * 3)
    network = ak.JumpNetwork.from_supercell(cell)
    result = ak.exact_transport(cell, network, ak.SpeciesRates({"Cu": 1.0}))
    ideal = factor * np.square(network.vectors[0]).sum() / 6 * 1e-20
    assert float(finite_size_corrected(result).tracer_diffusivity["Cu"]) == pytest.approx(ideal, rel=2e-3, abs=0)
    assert float(result.tracer_diffusivity["Cu"]) > 1.015 * ideal
    doubtful = ak.exact_transport(
        cell, network, ak.SpeciesRates({"Cu": 1.0}), vacancy_fraction=VacancyFraction.constant(1e-4, 3e-5)
    )
    found = finite_size_corrected(doubtful).tracer_diffusivity["Cu"]
    assert float(found.error) == pytest.approx(0.3 * float(found), rel=1e-9, abs=0)


def test_every_tracer_of_a_concentrated_alloy(tiny, pair_model):
    """By hand on exact scalars of the 4+4 cell, d = 2."""
    cell, network = tiny
    result = ak.exact_transport(cell, network, pair_model, 600.0, vacancy_fraction=1e-4)
    found = finite_size_corrected(result)
    matrix = np.asarray(result.lambda_matrix.value)
    for a, symbol in enumerate(result.species):
        x = result.composition.fractions[a]
        tracer = float(result.tracer_diffusivity[symbol]) * 1e20 / 1e-4 * x
        less = tracer - (tracer + matrix[a].sum()) ** 2 / (2 * 4 * matrix.sum())
        share = x / result.composition.fractions.sum()  # of the atoms: a dilute vacancy leaves no site out
        assert float(found.tracer_diffusivity[symbol]) == pytest.approx(less * 1e-24 / share, rel=1e-9, abs=0)
        ratio = float(found.correlation_factor[symbol]) / float(result.correlation_factor[symbol])
        assert ratio == pytest.approx(less / tracer, rel=1e-9)
    with pytest.raises(KinosonError, match="already"):
        finite_size_corrected(found)


def test_a_corrected_bound_is_an_estimate_with_an_error(tiny):
    cell, network = tiny
    states = replace(ak.sample_states(cell, 60, seed=1), ensemble="equilibrium")
    result = ak.transport(states, network, ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), n_resamples=50)
    found = finite_size_corrected(result).tracer_diffusivity["Cu"]
    assert result.tracer_diffusivity["Cu"].kind == "bound"
    assert found.kind == "estimate"
    assert 0 < found.error < 0.2 * float(found)


def test_extrapolation_of_exact_cells():
    results = [solute("fcc", n, of="primitive") for n in (5, 6, 8)]
    infinite = CELLS["fcc"][2]
    found = extrapolate(results)
    plain = found.correlation_factor["Cu"]
    assert float(plain) == pytest.approx(infinite, abs=2e-4)
    assert abs(float(plain) - infinite) < 0.1 * (float(results[-1].correlation_factor["Cu"]) - infinite)
    assert 0 < plain.error < 2e-4
    assert found.slopes["correlation_factor Cu"].value == pytest.approx((1 + infinite) ** 2 / 3, rel=0.05)
    assert found.lambda_matrix.value.shape == (2, 2)
    assert float(found.vacancy_diffusivity) == pytest.approx(float(results[-1].vacancy_diffusivity), rel=1e-9, abs=0)
    assert found.n_sites == (125, 216, 512)
    better = extrapolate([finite_size_corrected(r) for r in results]).correlation_factor["Cu"]
    assert abs(float(better) - infinite) < 1e-4
    assert np.isnan(extrapolate(results[1:]).correlation_factor["Cu"].error)  # two exact cells tell no error
    # broken twin: sizes exchanged
    twisted = extrapolate([replace(results[0], correlation_factor=results[2].correlation_factor), *results[1:]])
    assert abs(float(twisted.correlation_factor["Cu"]) - infinite) > 1e-3
    assert found.as_dict()["onsager_matrix"] is None


def test_errors_of_the_extrapolation():
    """A weighted line through numbers with known errors, against the normal equations."""
    base = [solute("sc", n) for n in (3, 4, 5)]
    n = np.array([27.0, 64.0, 125.0])
    error, noise = np.array([0.3, 0.1, 0.2]), np.array([0.1, -0.05, 0.12])
    value = 5.0 + 40.0 / n + noise
    given = [
        replace(r, vacancy_diffusivity=ak.Quantity(v, e, "m^2/s", "bound"))
        for r, v, e in zip(base, value, error, strict=True)
    ]
    found = extrapolate(given)
    design = np.stack([np.ones(3), 1 / n], axis=1) / error[:, None]
    covariance = np.linalg.inv(design.T @ design)
    best = covariance @ design.T @ (value / error)
    assert found.vacancy_diffusivity.value == pytest.approx(best[0], rel=1e-6, abs=0)
    assert found.slopes["vacancy_diffusivity"].value == pytest.approx(best[1], rel=1e-6, abs=0)
    assert found.vacancy_diffusivity.error == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-6, abs=0)
    assert found.slopes["vacancy_diffusivity"].error == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-6, abs=0)
    assert found.reduced_chi_squared["vacancy_diffusivity"] < 1
    assert found.vacancy_diffusivity.kind == "estimate"
    # numbers that lie on no line get larger errors
    bent = [
        replace(r, vacancy_diffusivity=ak.Quantity(v, e, "m^2/s", "bound"))
        for r, v, e in zip(base, value + np.array([0, 2, 0]), error, strict=True)
    ]
    assert extrapolate(bent).vacancy_diffusivity.error > 3 * found.vacancy_diffusivity.error


def test_refusals(tiny):
    one, two = solute("sc", 3), solute("sc", 4)
    with pytest.raises(KinosonError, match="two sizes"):
        extrapolate([one, one])
    with pytest.raises(KinosonError, match="without its states"):
        extrapolate([one, replace(two, states=None)])
    with pytest.raises(KinosonError, match="without its states"):
        finite_size_corrected(replace(one, states=None))
    with pytest.raises(KinosonError, match="temperature_K"):
        extrapolate([one, replace(two, temperature_K=300.0)])
    with pytest.raises(KinosonError, match="correct all or none"):
        extrapolate([one, finite_size_corrected(two)])
    cell, network = tiny
    half = ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}), tracers=False)
    with pytest.raises(KinosonError, match="compositions"):
        extrapolate([one, half])
    with pytest.raises(KinosonError, match="without tracer"):
        finite_size_corrected(half)
    hcp = hcp_interstitials()
    free = ak.exact_transport(hcp.supercell, hcp, ak.SiteBarriers((0.0, 0.0), (0.0, 0.0, 0.0)), 1000.0)
    with pytest.raises(KinosonError, match="interstitial"):
        finite_size_corrected(free)
