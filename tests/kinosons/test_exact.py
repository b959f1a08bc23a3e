"""Exact solutions against published and independently computed numbers."""

from __future__ import annotations

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda
from ase_kinoson.kinosons.functional import bare_displacements
from ase_kinoson.kinosons.transport import transport
from ase_kinoson.validation import (
    FINITE_CELLS,
    INFINITE,
    TINY,
    hcp_tensor,
    infinite_factor,
    parent,
    tiny_cell,
    tracer_factor,
)

MORE_CELLS = [
    ("fcc", 3, "conventional", 0.790729),
    ("fcc", 4, "conventional", 0.785453),
    ("fcc", 5, "conventional", 0.783523),
    ("fcc", 6, "conventional", 0.782658),
    ("bcc", 4, "conventional", 0.734194),
    ("bcc", 8, "conventional", 0.728135),
]


@pytest.mark.parametrize(("lattice", "size", "of", "reference"), [*FINITE_CELLS, *MORE_CELLS])
def test_tracer_factor_of_finite_cells(lattice, size, of, reference):
    assert tracer_factor(parent(lattice).supercell(size, of=of)) == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize(("lattice", "sizes", "reference"), INFINITE)
def test_tracer_factor_of_infinite_crystals(lattice, sizes, reference):
    extrapolated = infinite_factor(lattice, sizes)
    assert extrapolated == pytest.approx(reference, abs=1e-3)
    # the finite cell itself would fail: nearly all of the difference is drift of the centre of mass
    small = tracer_factor(parent(lattice).supercell(min(sizes[0], 5), of="primitive"))
    assert abs(small - reference) > 1e-3


@pytest.mark.parametrize(("counts", "rates", "reference"), TINY)
def test_tiny_random_alloys(counts, rates, reference):
    cell, network = tiny_cell(counts)
    result = ak.exact_transport(cell, network, ak.SpeciesRates(rates))
    ours = np.asarray(result.lambda_matrix.value)
    np.testing.assert_allclose(ours, reference, atol=1e-9)
    # sum rule, and its broken twin: without relaxation it does not hold for the off-diagonal part
    w = np.array([rates[s] for s in result.species])
    bare = np.asarray(transport(result.states, network, ak.SpeciesRates(rates)).lambda_matrix.value)
    np.testing.assert_allclose((ours * w[:, None] / w).sum(axis=1), np.diag(bare), rtol=1e-12)
    wrong = ours * 1.001
    assert np.abs((wrong * w[:, None] / w).sum(axis=1) - np.diag(bare)).max() > 1e-6


def test_tiny_tracers():
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    slow = ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}))
    assert slow.correlation_factor["Cu"].value == pytest.approx(0.3390268992, abs=1e-9)
    equal = ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}))
    for species in ("Ag", "Cu"):
        assert equal.correlation_factor[species].value == pytest.approx(7 / 11, abs=1e-12)


@pytest.mark.parametrize(
    ("energies", "saddles", "thermal", "reference"),
    [
        ((0.0, 1.0), {2.4495: 3.0, 1.8371: 1.5, 1.2247: 1.25}, 1.0, (1.15694147, 1.15694147, 0.705694102)),
        ((0.0, 1.0), {2.4495: 3.0, 1.8371: 1.5, 1.2247: 1.25}, 0.5, (0.352635551, 0.352635551, 0.196350125)),
        ((0.0, 0.0), {2.4495: 0.0, 1.8371: 0.0, 1.2247: 0.0}, 1.0, (3.0, 3.0, 3.2)),
    ],
)
def test_hcp_interstitial_tensor(energies, saddles, thermal, reference):
    np.testing.assert_allclose(hcp_tensor(energies, saddles, thermal), reference, atol=1e-6)


def test_both_solvers_agree(tiny, pair_model, monkeypatch):
    cell, network = tiny
    direct = ak.exact_transport(cell, network, pair_model, 600.0, tracers=False)
    monkeypatch.setattr("ase_kinoson.kinosons.exact.DIRECT_LIMIT", 1)
    iterative = ak.exact_transport(cell, network, pair_model, 600.0, tracers=False)
    np.testing.assert_allclose(iterative.lambda_matrix.value, direct.lambda_matrix.value, rtol=1e-10)


@pytest.fixture(scope="module")
def large():
    """75 075 states of three species on a 4×4 square lattice, and their rates."""
    cell = parent("square", {"Ag": 0.6, "Cu": 0.27, "Ni": 0.13}).supercell((4, 4, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    space = StateSpace.enumerate(network, counts={"Ag": 9, "Cu": 4, "Ni": 2})
    w = {"Ag": 1.0, "Cu": 0.1, "Ni": 0.3}
    return space, ak.Rates.of(ak.SpeciesRates(w), network), np.array(list(w.values()))


def test_sum_rule_of_many_states(large):
    space, rates, w = large
    assert len(space) == 75_075
    tensors, zero, _ = exact_lambda(space, rates)
    matrix, bare = np.einsum("abxx->ab", tensors) / 2, np.einsum("aaxx->a", zero) / 2
    np.testing.assert_allclose((matrix * w[:, None] / w).sum(axis=1), bare, rtol=1e-9)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-9)
    assert np.all(np.diag(matrix) < bare)
    # broken twin: without the correlations between species
    assert np.abs(np.diag(matrix) / bare - 1).max() > 0.01


def drift_left(space, rates, y):
    """Largest Σ_k W_k (δx_k + Δ_k y) of all states, relative to that with y = 0."""
    w = rates(space.occupations, space.carriers)
    bare = bare_displacements(space.network, space.occupations, space.carriers)
    left = np.einsum("nk,nksx->nsx", w, bare + y[space.next_state] - y[:, None])
    return np.linalg.norm(left) / np.linalg.norm(np.einsum("nk,nksx->nsx", w, bare))


def test_no_drift_is_left(large, monkeypatch):
    space, rates, _ = large
    _, _, y = exact_lambda(space, rates)
    assert drift_left(space, rates, y) < 1e-10
    # broken twin: a solver that stops too early
    monkeypatch.setattr("ase_kinoson.kinosons.exact.TOLERANCE", 1e-6)
    assert drift_left(space, rates, exact_lambda(space, rates)[2]) > 1e-8


@pytest.mark.parametrize("slow", [1e-3, 0.0])
def test_both_solvers_agree_for_degenerate_rates(slow, monkeypatch):
    cell = parent("square").supercell((4, 3, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    space = StateSpace.enumerate(network, counts={"Ag": 6, "Cu": 5})
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": slow, "Cu": 1.0}), network)
    direct, _, _ = exact_lambda(space, rates)
    monkeypatch.setattr("ase_kinoson.kinosons.exact.DIRECT_LIMIT", 1)
    iterative, _, _ = exact_lambda(space, rates)
    np.testing.assert_allclose(iterative, direct, rtol=1e-9, atol=1e-13)


def test_tensor_has_the_symmetry_of_the_lattice_and_is_positive(tiny, pair_model):
    cell, network = tiny
    result = ak.exact_transport(cell, network, pair_model, 600.0)
    matrix = np.asarray(result.lambda_matrix.value)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0
    tensor = np.asarray(result.vacancy_diffusivity_tensor.value)
    np.testing.assert_allclose(tensor[:2, :2] / tensor[0, 0], np.eye(2), atol=1e-9)


def test_rates_without_detailed_balance_are_refused(tiny, pair_model):
    _, network = tiny
    space = StateSpace.enumerate(network)
    rates = ak.Rates.of(pair_model, network, temperature_K=600.0)
    equal = np.full(len(space), 1.0 / len(space))
    with pytest.raises(ModelError, match="detailed balance"):
        exact_lambda(space, rates, weights=equal)
    exact_lambda(space, rates)


def test_large_spaces_and_wrong_counts_are_refused(tiny):
    cell, network = tiny
    gas = ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0})
    with pytest.raises(KinosonError, match="at most 10"):
        ak.exact_transport(cell, network, gas, limit=10)
    with pytest.raises(KinosonError, match="expected 8"):
        ak.exact_transport(cell, network, gas, counts={"Ag": 4, "Cu": 5})
