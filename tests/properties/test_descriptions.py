"""One alloy in other words, the same coefficients: another description, symbols, vectors, a doubled cell."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import assume, reject
from hypothesis import strategies as st

import ase_kinoson as ak
from ase_kinoson import testing
from ase_kinoson.errors import StructureError
from ase_kinoson.testing.cells import embedded, repeated
from tests.properties.running import breaks, holds
from tests.properties.strategies import VACANCY, View, models, networks, problems, seeds, skewed, views

SI = 1e-20
"""Å²/s in m²/s."""


def same_coefficients(one, two, names=None, rotation=None):
    """Scalars and matrices by species; tensors turn along with the crystal."""
    names = names or {s: s for s in one.species}
    assert {names[s] for s in one.species} == set(two.species)
    order = [two.species.index(names[s]) for s in one.species]
    turn = np.eye(3) if rotation is None else rotation
    scale = np.abs(one.averages.collective_bare[0]).max()
    assert np.isclose(float(one.vacancy_diffusivity), float(two.vacancy_diffusivity), rtol=1e-6, atol=1e-9 * scale * SI)
    assert np.allclose(
        one.lambda_matrix.value, np.array(two.lambda_matrix.value)[np.ix_(order, order)], rtol=1e-6, atol=1e-8 * scale
    )
    turned = np.einsum("ix,abxy,jy->abij", turn, one.averages.collective[0], turn)
    assert np.allclose(turned, two.averages.collective[0][np.ix_(order, order)], rtol=0, atol=1e-7 * scale)
    for s, q in one.correlation_factor.items():
        other = two.correlation_factor[names[s]].value
        assert np.isclose(q.value, other, rtol=1e-6, atol=1e-8, equal_nan=True)


ANALYTIC = ("rates", "pairs")
"""Models made of numbers for species. The others number what is around a jump: another order is another landscape."""


def described_alike(view_of):
    """Rotated, shifted, sites renumbered, the parent's cell doubled or sheared: the same coefficients."""

    def check(problem, view):
        two = problem.solve(view_of(view).network(problem.recipe))
        same_coefficients(problem.solve(), two, rotation=view.rotation)

    return check


def test_coefficients_do_not_depend_on_the_description_of_the_crystal():
    holds(described_alike(lambda view: view), problems(kinds=ANALYTIC), views, n=8)


def test_tensors_that_do_not_turn_along_are_noticed():
    other = lambda view: View(view.seed + 1)  # noqa: E731
    breaks(described_alike(other), problems(("hcp", "square", "honeycomb"), ANALYTIC), views)


@st.composite
def same_lattice(draw):
    """A problem, and other vectors of its supercell."""
    problem = draw(problems())
    return problem, skewed(draw, problem.recipe.matrix, problem.recipe.cell.alloy.dimension)


def on_cell(problem, matrix):
    return problem.recipe.network.with_supercell(ak.Supercell(problem.recipe.alloy, matrix))


def other_vectors(network_of):
    """Other vectors of the same lattice of periodicity: the same coefficients."""

    def check(drawn):
        problem, matrix = drawn
        same_coefficients(problem.solve(), problem.solve(network_of(problem, np.array(matrix))))

    return check


def test_coefficients_do_not_depend_on_the_vectors_of_the_supercell():
    holds(other_vectors(on_cell), same_lattice(), n=7)


def test_another_lattice_of_periodicity_is_noticed():
    def exchanged(problem, matrix):
        """As many sites, but the carrier has other images."""
        try:
            return on_cell(problem, matrix[:, [1, 0, 2]])
        except StructureError:  # so narrow that a jump sees its own image
            reject()

    breaks(other_vectors(exchanged), same_lattice(), n=60)


def renamed(names_of):
    """Species by other symbols, in another alphabetical order: the same numbers under the new names."""

    def check(problem, seed):
        species = problem.recipe.cell.species[1:]
        names = dict(zip(species, np.random.default_rng(seed).permutation(species).tolist(), strict=True))
        one = problem.solve()
        two = problem.solve(testing.relabelled(problem.recipe.network, names), names)
        same_coefficients(one, two, names_of(names))

    return check


def test_symbols_are_only_names():
    holds(renamed(lambda names: names), problems(VACANCY, ANALYTIC), seeds, n=7)


def test_a_matrix_read_in_the_old_order_is_noticed():
    breaks(renamed(lambda names: {s: s for s in names}), problems(VACANCY, ANALYTIC), seeds)


def doubled(tamper):
    """States continued into a doubled cell, one carrier in each: the same bare coefficients and kinosons.

    Exact coefficients are those of one carrier in a periodic cell and do depend on its size: equal are, per carrier,
    the terms at y = 0 of a gas of rates, state by state.
    """

    def check(recipe, model, seed):
        network = recipe.network
        assume(not recipe.cell.alloy.is_interstitial)
        states = ak.sample_states(recipe.cell, 3, seed=seed % 1000)
        larger = network.with_supercell(repeated(recipe.cell, 2))
        big = tamper(embedded(states, larger.supercell, seed=seed))
        source = model.make(network)
        with warnings.catch_warnings():  # three states say little of a mean
            warnings.simplefilter("ignore", ak.KinosonWarning)
            one, two = (ak.transport(s, n, source, n_resamples=2) for s, n in ((states, network), (big, larger)))
        assert np.isclose(float(one.vacancy_diffusivity), float(two.vacancy_diffusivity), rtol=1e-12, atol=0)
        for name in ("rate", "kinoson_vacancy", "weight"):
            assert np.allclose(one.kinosons[name], two.kinosons[name], rtol=1e-12, atol=0)
        assert np.array_equal(one.kinosons["species"], two.kinosons["species"])

    return check


def test_a_doubled_cell_has_the_same_kinosons():
    holds(doubled(lambda states: states), networks(VACANCY, most=24), models(("rates",)), seeds, n=7)


def test_other_states_in_the_doubled_cell_are_noticed():
    breaks(doubled(lambda states: states[::-1]), networks(VACANCY, most=24), models(("rates",)), seeds)
