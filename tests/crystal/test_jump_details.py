"""Details that other tests of the jumps do not see: the reach of the search, the fingerprint, arguments by keyword."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.crystal.jumps import _longest_nearest
from ase_kinoson.kinosons.functional import jump_terms

HALF = {"Cu": 0.5, "Ni": 0.5}


def longest(atoms, composition, mobile=None, size=2):
    cell = Alloy.from_atoms(atoms, composition, mobile=mobile).supercell(size, of="primitive")
    return _longest_nearest(cell, cell.alloy.mobile_basis)


def test_of_sites_that_are_not_alike_the_most_isolated_one_sets_the_reach():
    # a close pair, and a site whose nearest neighbour is 3.0 Å off
    atoms = Atoms("Cu3", positions=[[0, 0, 0], [1.5, 0, 0], [4.5, 0, 0]], cell=[8.0, 9.0, 9.0], pbc=True)
    assert longest(atoms, {"Cu": HALF}) == pytest.approx(3.0)
    assert longest(atoms[[0, 1]], {"Cu": HALF}) == pytest.approx(1.5)


def test_fixed_atoms_are_no_neighbours():
    # Ni to Al is 0.87 a, from mobile to mobile it is a; in either order of the sites
    for symbols in ("NiAl", "AlNi"):
        b2 = Atoms(symbols, scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3.0] * 3, pbc=True)
        assert longest(b2, {"Ni": {"Ni": 0.5, "Cu": 0.5}}, ["Ni"]) == pytest.approx(3.0)
        assert longest(b2, {"Ni": {"Ni": 0.5, "Cu": 0.5}}, ["Ni", "Al"]) == pytest.approx(3.0 * np.sqrt(3) / 2)


def test_fingerprints_stay_what_they_are():
    """They are in stores and models: a change of the recipe would orphan all of them."""
    cells = {
        "6d64448e5325b22a": bulk("Cu", "fcc", a=3.6123456789),
        "227763d652eef33c": bulk("Fe", "bcc", a=2.8654321987),
    }
    found = [
        JumpNetwork.from_supercell(Alloy.from_atoms(a, {a.symbols[0]: HALF}).supercell(2)).fingerprint
        for a in cells.values()
    ]
    assert found == list(cells)


def test_options_are_named():
    cell = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6), {"Cu": HALF}).supercell(2)
    with pytest.raises(TypeError, match="positional"):
        JumpNetwork.from_supercell(cell, 3.0)
    network = JumpNetwork.from_supercell(cell)
    with pytest.raises(TypeError, match="positional"):
        jump_terms(None, np.ones((1, cell.n_sites), dtype=np.int8), [0], network)
