"""Details that other tests of the jumps do not see: the reach of the search, the fingerprint, kinds of arguments."""

import warnings
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment
from ase_kinoson.crystal.jumps import _longest_nearest
from ase_kinoson.crystal.pair_table import PairTable
from ase_kinoson.crystal.symmetry import PairOrbits, SpaceGroup
from ase_kinoson.errors import ClosedDirections, StructureError

HALF = {"Cu": 0.5, "Ni": 0.5}


def longest(atoms, composition, mobile=None, size=2):
    cell = Alloy.from_atoms(atoms, composition, mobile=mobile).supercell(size, of="primitive")
    return _longest_nearest(cell, cell.alloy.mobile_basis)


def test_of_sites_that_are_not_alike_the_most_isolated_one_sets_the_reach():
    # a close pair, and a site whose nearest neighbour is 3.0 Å off
    atoms = Atoms("Cu3", positions=[[0, 0, 0], [1.5, 0, 0], [4.5, 0, 0]], cell=[8.0, 9.0, 9.0], pbc=True)
    assert longest(atoms, {"Cu": HALF}) == pytest.approx(3.0)
    assert longest(atoms[[2, 1, 0]], {"Cu": HALF}) == pytest.approx(3.0)
    assert longest(atoms[[0, 1]], {"Cu": HALF}) == pytest.approx(1.5)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0]])
def test_each_site_has_its_own_nearest_neighbours(order):
    """Two pairs, 1.5 and 2.9 Å wide and 3.0 Å apart: no site of the close pair jumps out of it alone."""
    atoms = Atoms("Cu4", positions=[[x, 0, 0] for x in (0.0, 1.5, 4.5, 7.4)], cell=[11.0, 12.0, 12.0], pbc=True)
    alloy = Alloy.from_atoms(atoms[order], {"Cu": HALF})
    network = JumpNetwork.from_supercell(alloy.supercell((3, 1, 1), of="primitive"))
    # 3.0 Å is within a tenth of 2.9 Å, so that the wide pair reaches the close one; its far site has one jump
    assert sorted(network.exists.sum(axis=1).tolist()) == [1, 1, 2, 2]
    np.testing.assert_allclose(sorted(np.abs(network.vectors[network.exists][:, 0])), [1.5, 1.5, 2.9, 2.9, 3.0, 3.0])


@pytest.mark.parametrize("scale", [0.2, 1.0, 12.0])
def test_jumps_do_not_depend_on_the_unit_of_length(scale):
    """A tetragonal cell whose bonds differ by 8 %: both kinds are jumps, in small and in huge crystals."""
    atoms = Atoms("Cu", cell=np.array([2.5, 2.5, 2.7]) * scale, pbc=True)
    network = JumpNetwork.from_supercell(Alloy.from_atoms(atoms, {"Cu": HALF}).supercell(3))
    assert network.exists.sum() == 6


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
        "879f6179cc5c451c": Atoms(
            "Fe2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.4123456]], cell=[2.8, 2.8, 3.9], pbc=True
        ),
    }
    found = [
        JumpNetwork.from_supercell(Alloy.from_atoms(a, {a.symbols[0]: HALF}).supercell(3)).fingerprint
        for a in cells.values()
    ]
    assert found == list(cells)


@pytest.mark.parametrize("scale", [1e-6, 1e-5, 5e-5])
@pytest.mark.parametrize(
    ("make", "cutoff"),
    [
        (lambda: bulk("Cu", "fcc", a=3.6, cubic=True), 3.6),
        (lambda: bulk("Fe", "bcc", a=2.9, cubic=True), 2.9),
        (lambda: bulk("Mg", "hcp", a=3.2), 3.2),
    ],
)
def test_cells_that_are_symmetric_within_the_tolerance_have_whole_shells(make, cutoff, scale):
    """The cutoff is the length of a bond: noise moves bonds that symmetry makes equal to both of its sides."""

    def shells(noise, cutoff):
        atoms = make()
        shift = noise * np.random.default_rng(3).standard_normal((3, 3))
        atoms.set_cell(np.array(atoms.cell) + shift, scale_atoms=True)
        alloy = Alloy.from_atoms(atoms, {atoms.symbols[0]: HALF})
        network = JumpNetwork.from_supercell(alloy.supercell((3, 3, 3)), cutoff=cutoff)
        around = JumpEnvironment.build(network, cutoff=cutoff), CarrierEnvironment.build(network, cutoff=cutoff)
        pairs = PairTable.build(network.supercell, cutoff)
        sizes = [[len(kind.permutations[0]) for kind in one.classes] for one in around]
        return network.n_classes, network.exists.sum(axis=1).tolist(), *sizes, pairs.n_orbits

    below, above, found = shells(0.0, cutoff - 0.01), shells(0.0, cutoff + 0.01), shells(scale, cutoff)
    assert (found[0], found[1], found[4]) == (above[0], above[1], above[4])  # some bonds are shorter: all are there
    assert found[1] != below[1]
    for one, most in zip(found[2:4], above[2:4], strict=True):  # around a jump, shells that its own symmetry keeps
        assert all(0 < n <= m for n, m in zip(one, most, strict=True))


def test_operations_that_are_no_group_are_refused():
    """The turn by 120° without that by 240°: what it makes of a bond has an image that nothing makes of the bond."""
    cell = [[3.0, 0, 0], [-1.5, 1.5 * np.sqrt(3), 0], [0, 0, 5.0]]
    alloy = Alloy.from_atoms(Atoms("Cu", cell=cell, pbc=True), {"Cu": HALF})
    group, one = alloy.space_group, np.array([[0, 0, 1, 0, 0]])
    where = group, alloy.cell, alloy.scaled_positions, one, alloy.cell[:1]
    found = PairOrbits._classified(*where)  # all six bonds of the layer follow from one
    assert len(found.start) == 6 and set(found.undirected) == {0}
    turn = np.array([[0, -1, 0], [1, -1, 0], [0, 0, 1]])
    keep = [op for op in range(group.n_ops) if any(np.array_equal(group.rotations[op], w) for w in (np.eye(3), turn))]
    some = SpaceGroup(*(getattr(group, f.name)[keep] for f in fields(SpaceGroup)))
    with pytest.raises(StructureError, match="form no group"):
        PairOrbits._classified(some, *where[1:])


def test_networks_cannot_be_changed_and_serve_as_keys():
    cell = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6), {"Cu": HALF}).supercell(2)
    one, other = JumpNetwork.from_supercell(cell), JumpNetwork.from_supercell(cell)
    with pytest.raises(FrozenInstanceError):
        one.exists = other.exists
    assert one != other and len({one, other, one}) == 2


def test_alloys_and_mechanisms_are_compared_by_value():
    cell = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6), {"Cu": HALF}).supercell(2)
    equal = Alloy.from_dict(cell.alloy.as_dict())
    assert equal is not cell.alloy
    larger = JumpNetwork.from_supercell(cell).with_supercell(equal.supercell(3))
    assert larger.supercell.n_sites == 108
    read = "".join(["vac", "ancy"])  # as it comes out of a file: an equal text, another object
    assert JumpNetwork.from_supercell(cell, mechanism=read).mechanism == read


def test_a_mechanism_that_the_alloy_does_not_have_is_refused():
    iron = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87)).supercell(3)
    carbon = JumpNetwork.from_supercell(iron, mechanism="interstitial", sites="octahedral", species="C").supercell
    for cell, mechanism in ((iron, "interstitial"), (carbon, "vacancy"), (iron, "exchange"), (carbon, "zeal")):
        with pytest.raises(StructureError, match=f"found mechanism='{mechanism}' for an alloy with"):
            JumpNetwork.from_supercell(cell, mechanism=mechanism)


def test_the_warning_of_closed_directions_points_at_the_caller():
    cell = Alloy.from_atoms(bulk("Mg", "hcp", a=3.2, c=5.2)).supercell((3, 3, 2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        JumpNetwork.from_supercell(cell, mechanism="interstitial", sites="octahedral", species="H")
    (found,) = [w for w in caught if issubclass(w.category, ClosedDirections)]
    assert found.filename == __file__


def test_the_refusal_of_a_small_cell_names_its_size():
    slanted = Atoms("Cu", cell=[[2.5, 0, 0], [0, 2.6, 0], [0.3, 0.4, 2.6]], pbc=True)
    cell = Alloy.from_atoms(slanted, {"Cu": HALF}).supercell((1, 3, 3), of="primitive")
    with pytest.raises(StructureError, match=r"vectors of \[2\.5, 7\.8, 7\.94\] Å, 9 sites\)"):
        JumpNetwork.from_supercell(cell)


def test_options_are_named():
    cell = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6), {"Cu": HALF}).supercell(2)
    with pytest.raises(TypeError, match="positional"):
        JumpNetwork.from_supercell(cell, 3.0)
