"""Coefficients in CASM's normalisation against its definition, applied to displacements of trajectories."""

import json

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinosons.casm import casm_coefficients
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.validation import hcp_interstitials, tiny_cell

T = 600.0


@pytest.fixture(scope="module")
def alloy():
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    return cell, network, gas, ak.exact_transport(cell, network, gas)


@pytest.fixture(scope="module")
def displacements(alloy):
    """Sums over the atoms of each species, all atoms, and times of 600 walkers of 1024 jumps."""
    _, network, gas, exact = alloy
    engine = KineticMonteCarlo(exact.states, network, ak.Rates.of(gas, network), n_walkers=600, seed=4)
    start = engine.occupations.copy()
    engine.run(1024)
    own = [engine.displacements * (start == c)[..., None] for c in (1, 2)]
    return np.stack([x.sum(axis=1) for x in own], axis=1), own, engine.times


def estimate(samples, times, scale):
    """Mean over walkers of samples over mean time, and its standard error."""
    values = samples / times.mean() * scale
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize(("sites", "agrees"), [(9, True), (8, False)])
def test_the_definition_of_van_der_ven(alloy, displacements, sites, agrees):
    """L̃_ab = ⟨(ΣΔR_a)·(ΣΔR_b)⟩/(2dtM) with M sites; over the atoms it would be something else."""
    _, _, _, exact = alloy
    sums, _, times = displacements
    products = np.einsum("wax,wbx->wab", sums, sums)
    value, error = estimate(products, times, 1 / (2 * 2 * sites))
    ours = casm_coefficients(exact, vacancy_fraction=1 / 9)
    off = np.abs(value - ours.per_site.value) / error
    assert error[0, 0] < 0.07 * value[0, 0]
    assert np.all(off < 3) if agrees else np.max(np.abs(value - ours.per_site.value) / value) > 0.05


def test_tracers_by_the_definition(alloy, displacements):
    _, _, _, exact = alloy
    _, own, times = displacements
    ours = casm_coefficients(exact, vacancy_fraction=1 / 9).tracer
    for q, moved in zip(ours.values(), own, strict=True):
        value, error = estimate(np.square(moved).sum(axis=(1, 2)) / 4, times, 1 / 4)
        assert abs(value - float(q)) < 3 * error and q.unit == "Å^2/s"


def test_per_volume_is_the_onsager_matrix_in_other_units(tiny, pair_model):
    cell, network = tiny
    given = ak.exact_transport(cell, network, pair_model, T, vacancy_fraction=1e-4)
    ours = casm_coefficients(given)
    assert ours.vacancy_fraction == 1e-4 and ours.per_volume.unit == "1/(eV s)"
    # 1/(J s) of a plane are 1.602e-19/(eV s)
    assert np.allclose(ours.per_volume.value, given.onsager_matrix.value * 1.602176634e-19, rtol=1e-7)
    assert float(ours.tracer["Cu"]) == pytest.approx(float(given.tracer_diffusivity["Cu"]) * 1e20, rel=1e-12, abs=0)
    other = casm_coefficients(ak.exact_transport(cell, network, pair_model, T), vacancy_fraction=1e-4)
    for name in ("per_site", "per_volume"):
        assert np.allclose(getattr(other, name).value, getattr(ours, name).value, rtol=1e-12)
    bare = casm_coefficients(ak.exact_transport(cell, network, pair_model, T))
    assert bare.per_site.unit == bare.tracer["Cu"].unit == "Å^2/s per c_v"
    assert np.allclose(bare.per_site.value * 1e-4, ours.per_site.value, rtol=1e-12)


def test_names_are_unrolled_as_casm_does(alloy):
    _, _, _, exact = alloy
    ours = casm_coefficients(exact, vacancy_fraction=0.01)
    data = json.loads(json.dumps(ours.as_dict()))
    assert data["L_isotropic"]["component_names"] == ["Ag,Ag", "Ag,Cu", "Cu,Cu"]
    matrix = ours.per_site.value
    assert data["L_isotropic"]["value"] == [matrix[0, 0], matrix[0, 1], matrix[1, 1]]
    assert data["D_tracer_isotropic"]["component_names"] == ["Ag", "Cu"] and data["L_per_volume"] is None


def test_the_error_of_the_vacancy_fraction_enters(tiny, pair_model):
    cell, network = tiny
    states = ak.sample_states(
        cell, 30, method="monte-carlo", model=pair_model.energy, temperature_K=T, n_chains=30, sweeps=20, seed=0
    )
    doubtful = VacancyFraction.constant(1e-4, 2e-5)
    one = ak.transport(states, network, pair_model, temperature_K=T, vacancy_fraction=doubtful)
    ours = casm_coefficients(one)
    plain = casm_coefficients(one, vacancy_fraction=1e-4)
    for with_it, without in ((ours.per_site, plain.per_site), (ours.tracer["Cu"], plain.tracer["Cu"])):
        expected = np.hypot(without.error, 0.2 * np.abs(without.value))
        assert np.allclose(with_it.error, expected, rtol=1e-9) and np.max(without.error) < 0.6 * np.max(with_it.error)
    # the errors without it are those of an evaluation per c_v
    bare = ak.transport(states, network, pair_model, temperature_K=T)
    assert float(plain.tracer["Cu"].error) == pytest.approx(
        float(bare.tracer_diffusivity["Cu"].error) * 1e16, rel=1e-6, abs=0
    )


def test_bad_input_is_one_sentence(alloy):
    _, _, _, exact = alloy
    with pytest.raises(KinosonError, match="above 0 and at most 1"):
        casm_coefficients(exact, vacancy_fraction=1.5)
    network = hcp_interstitials()
    hydrogen = ak.exact_transport(network.supercell, network, ak.SpeciesRates({"H": 1.0}))
    with pytest.raises(KinosonError, match="result of an interstitial"):
        casm_coefficients(hydrogen)
