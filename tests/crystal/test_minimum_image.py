"""Nearest periodic images in cells of any shape, against all images within reach."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase.build import bulk

from ase_kinoson.crystal import Alloy, Supercell
from ase_kinoson.crystal.mapping import minimum_image
from ase_kinoson.validation import parent

FCC = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6))
CELLS = {
    "cube": FCC.supercell(2),
    "primitive": Supercell(FCC, 3 * np.eye(3, dtype=int)),
    "leaning": Supercell(FCC, np.array([[4, 0, 0], [2, 3, 0], [1, 1, 3]])),
    "needle": Supercell(FCC, np.array([[1, 0, 7], [0, 1, 11], [0, 0, 24]])),
    "skewed many times over": Supercell(FCC, np.array([[3, 0, 0], [9, 3, 0], [-14, 8, 3]])),
    "skewed layer": Supercell(parent("honeycomb"), np.array([[3, 0, 0], [10, 3, 0], [0, 0, 1]])),
}


def nearest(cell, vectors):
    """Every image along the shortest vectors that a search over many combinations finds."""
    steps = [range(-9, 10) if p else (0,) for p in cell.pbc]
    images = np.array(list(itertools.product(*steps))) @ cell.cell
    images = images[np.linalg.norm(images, axis=1) < 60.0]
    return np.array([np.linalg.norm(v + images, axis=1).min() for v in vectors])


def images_are_nearest(cell, of):
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1.0, 1.0, (150, 3)) * cell.pbc @ cell.cell
    vectors -= np.rint(vectors @ np.linalg.inv(cell.cell)) @ cell.cell  # within reach of the search
    short = of(cell, vectors)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), nearest(cell, vectors), rtol=0, atol=1e-9)
    whole = (short - vectors) @ np.linalg.inv(cell.cell)
    np.testing.assert_allclose(whole, np.rint(whole) * cell.pbc, atol=1e-8)


@pytest.mark.parametrize("name", CELLS)
def test_images_are_the_nearest_of_all(name):
    images_are_nearest(CELLS[name], minimum_image)


def test_images_by_each_axis_alone_are_not():
    def wrapped(cell, vectors):
        return vectors - np.rint(vectors @ np.linalg.inv(cell.cell)) * cell.pbc @ cell.cell

    for name in ("primitive", "leaning", "needle", "skewed layer"):
        with pytest.raises(AssertionError):
            images_are_nearest(CELLS[name], wrapped)


def test_neighbours_of_the_vectors_of_a_skewed_cell_are_not():
    def around(cell, vectors):
        near = np.array(list(itertools.product((-1, 0, 1), repeat=3))) * cell.pbc @ cell.cell
        trial = vectors[:, None] + near
        return trial[np.arange(len(vectors)), np.linalg.norm(trial, axis=-1).argmin(axis=1)]

    images_are_nearest(CELLS["leaning"], around)
    for name in ("needle", "skewed many times over", "skewed layer"):
        with pytest.raises(AssertionError):
            images_are_nearest(CELLS[name], around)


def test_atoms_of_a_skewed_cell_are_found():
    """Displacements are those that were made, whatever the vectors of the cell."""
    cell, rng = CELLS["skewed many times over"], np.random.default_rng(1)
    occupation = np.ones(cell.n_sites, dtype=np.int8)
    occupation[4] = 0
    atoms = cell.to_atoms(occupation)
    kicks = 0.2 * rng.uniform(-1.0, 1.0, (len(atoms), 3))
    atoms.positions += kicks + rng.integers(-2, 3, (len(atoms), 3)) @ cell.cell
    mapped = cell.map_atoms(atoms)
    assert mapped.carrier == 4
    np.testing.assert_allclose(mapped.displacements, kicks - kicks.mean(axis=0), atol=1e-9)
