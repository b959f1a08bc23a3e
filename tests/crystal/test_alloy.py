"""Alloy: every way in, reduction to the primitive cell, and refusals in one clear sentence."""

import warnings

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pymatgen.core import Lattice, Structure

from ase_kinoson.crystal import Alloy
from ase_kinoson.errors import KinosonWarning, StructureError

HALF = {"Cu": 0.5, "Ni": 0.5}
FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def cif(occupancies, a=3.56):
    """A disordered fcc alloy in P1, one row per site and species."""
    rows = [
        f"{symbol}{i}{symbol} {symbol} {x} {y} {z} {amount}"
        for i, (x, y, z) in enumerate(FCC)
        for symbol, amount in occupancies.items()
    ]
    head = [f"_cell_length_{v} {a}" for v in "abc"] + [f"_cell_angle_{v} 90" for v in ("alpha", "beta", "gamma")]
    symmetry = ["loop_", "_symmetry_equiv_pos_site_id", "_symmetry_equiv_pos_as_xyz", "1 'x, y, z'"]
    columns = ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy"]
    lines = ["data_alloy", "_symmetry_space_group_name_H-M 'P 1'", *head, *symmetry, "loop_"]
    return "\n".join([*lines, *(f"_atom_site_{c}" for c in columns), *rows, ""])


def one_sentence(error):
    text = str(error.value)
    assert "expected" in text and "\n" not in text and text.count(";") >= 1 and len(text) < 600
    return text


# -- ways in ----------------------------------------------------------------------------------------------------


def test_from_structure_takes_occupancies_as_composition():
    alloy = Alloy.from_structure(Structure(Lattice.cubic(3.6), [{"Cu": 0.7, "Ni": 0.3}] * 4, FCC))
    assert alloy.n_basis == 1 and alloy.species == ("X", "Cu", "Ni")
    assert dict(alloy.sublattices[0].composition) == {"Cu": 0.7, "Ni": 0.3}
    assert alloy.sublattices[0].name == "Cu0.7Ni0.3" and alloy.sublattices[0].is_disordered
    assert alloy.supercell((3, 3, 3)).counts == ({"Cu": 75, "Ni": 32},)


def test_from_structure_strips_oxidation_states():
    oxide = Structure(
        Lattice.cubic(4.2),
        [{"Mg2+": 0.5, "Fe2+": 0.25, "Fe3+": 0.25}, {"O2-": 1.0}],
        [[0, 0, 0], [0.5, 0.5, 0.5]],
    )
    alloy = Alloy.from_structure(oxide)
    assert alloy.species == ("X", "Fe", "Mg", "O")
    metal = next(s for s in alloy.sublattices if s.is_disordered)
    assert dict(metal.composition) == {"Fe": 0.5, "Mg": 0.5} and metal.mobile
    assert [s.mobile for s in alloy.sublattices if s.species == ("O",)] == [False]


@pytest.mark.parametrize("mobile", [None, ["O0.9"]])
def test_vacant_sites_are_reported(mobile):
    oxide = Structure(Lattice.cubic(4.2), [{"Mg": 0.5, "Fe": 0.5}, {"O": 0.9}], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.warns(KinosonWarning, match=r"sublattice 'O0\.9' has 10 % vacant sites") as caught:
        alloy = Alloy.from_structure(oxide, mobile=mobile)
    assert len(caught) == 1
    oxygen = next(s for s in alloy.sublattices if s.name == "O0.9")
    assert oxygen.vacant_fraction == pytest.approx(0.1) and oxygen.occupancy == pytest.approx(0.9)
    counts = alloy.supercell(4).counts[alloy.sublattices.index(oxygen)]
    assert counts == ({"O": 63} if mobile else {"O": 58})
    assert "10 % vacant sites" in alloy.summary()


def test_a_full_structure_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Alloy.from_structure(Structure(Lattice.cubic(3.6), [{"Cu": 1 / 3, "Ni": 1 / 3, "Pd": 1 / 3}], [[0, 0, 0]]))


def test_an_ordered_crystal_is_mobile_everywhere():
    alloy = Alloy.from_structure(Structure(Lattice.cubic(2.9), ["Ni", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    assert all(s.mobile for s in alloy.sublattices) and alloy.mobile_basis.all()


def test_mobile_chooses_sublattices():
    b2 = Structure(Lattice.cubic(2.9), [{"Ni": 0.6, "Cu": 0.4}, {"Al": 0.7, "Ti": 0.3}], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert Alloy.from_structure(b2).mobile_basis.all()
    alloy = Alloy.from_structure(b2, mobile=["Cu0.4Ni0.6"])
    assert alloy.mobile_basis.sum() == 1 and alloy.varying_basis.all()
    with pytest.raises(StructureError, match="mobile names the sublattice 'Fe'") as error:
        Alloy.from_structure(b2, mobile=["Fe"])
    assert "Cu0.4Ni0.6" in one_sentence(error)


def test_from_file_reads_a_disordered_cif(tmp_path):
    path = tmp_path / "alloy.cif"
    path.write_text(cif({"Cu": 0.7, "Ni": 0.3}))
    alloy = Alloy.from_file(path)
    assert alloy.n_basis == 1 and dict(alloy.sublattices[0].composition) == {"Cu": 0.7, "Ni": 0.3}
    assert alloy.supercell((3, 3, 3)).n_sites == 108
    assert Alloy.from_file(str(path)) == alloy


def test_a_cif_with_vacant_sites_warns(tmp_path):
    path = tmp_path / "alloy.cif"
    path.write_text(cif({"Cu": 0.7, "Ni": 0.2}))
    with pytest.warns(KinosonWarning, match="10 % vacant sites"):
        Alloy.from_file(path)


def test_a_cif_with_occupancies_above_one_is_refused(tmp_path):
    path = tmp_path / "alloy.cif"
    path.write_text(cif({"Cu": 0.9, "Ni": 0.3}))
    with pytest.raises(StructureError, match="occupanc") as error:
        Alloy.from_file(path)
    one_sentence(error)


@pytest.mark.parametrize(("name", "format"), [("POSCAR", "vasp"), ("lattice.vasp", "vasp"), ("a.extxyz", "extxyz")])
def test_from_file_takes_a_lattice_and_a_composition(tmp_path, name, format):
    path = tmp_path / name
    ase.io.write(path, bulk("Cu", "fcc", a=3.6, cubic=True), format=format)
    alloy = Alloy.from_file(path, {"Cu": HALF})
    assert alloy == Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": HALF})
    assert alloy.n_basis == 1 and alloy.species == ("X", "Cu", "Ni")


def test_a_composition_replaces_the_occupancies_of_a_cif(tmp_path):
    path = tmp_path / "alloy.cif"
    path.write_text(cif({"Cu": 0.7, "Ni": 0.3}))
    alloy = Alloy.from_file(path, {"Cu": {"Cu": 0.2, "Pd": 0.8}})
    assert dict(alloy.sublattices[0].composition) == {"Cu": 0.2, "Pd": 0.8}


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(StructureError, match="found no file") as error:
        Alloy.from_file(tmp_path / "none.cif")
    one_sentence(error)
    for name in ("junk.cif", "junk.extxyz"):
        (tmp_path / name).write_text("this is no structure\n")
        with pytest.raises(StructureError, match="cannot read") as error:
            Alloy.from_file(tmp_path / name)
        assert "Traceback" not in str(error.value)


def test_sublattice_numbers_serve_as_keys():
    l12 = Atoms("Cu4", scaled_positions=FCC, cell=[3.6] * 3, pbc=True)
    l12.arrays["sublattice"] = np.array([0, 1, 1, 1])
    alloy = Alloy.from_atoms(l12, {0: {"Al": 0.9, "Ti": 0.1}, 1: {"Ni": 1.0}})
    assert alloy.n_basis == 4 and sorted(s.name for s in alloy.sublattices) == ["0", "1"]
    assert alloy.mobile_basis.sum() == 1
    assert Alloy.from_atoms(l12, {0: {"Al": 1.0}, 1: {"Ni": 1.0}}, mobile=["1"]).mobile_basis.sum() == 3


# -- the parent lattice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0, 37])
@pytest.mark.parametrize(
    ("crystal", "n_basis"),
    [
        (bulk("Cu", "sc", a=2.6) * (2, 3, 1), 1),
        (bulk("Cu", "bcc", a=2.9, cubic=True) * 2, 1),
        (bulk("Cu", "fcc", a=3.6, cubic=True) * 2, 1),
        (bulk("Cu", "diamond", a=5.4, cubic=True), 2),
        (bulk("Cu", "hcp", a=2.6, c=4.1) * (2, 1, 2), 2),
        (bulk("NaCl", "rocksalt", a=5.6, cubic=True), 2),
        (Atoms("Cu4", scaled_positions=np.array(FCC), cell=[1, 2, 10], pbc=(1, 1, 0)), 2),
        (Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0)) * (3, 2, 1), 1),
    ],
)
def test_reduction_to_the_primitive_cell_keeps_every_site(crystal, n_basis, turn):
    crystal = crystal.copy()
    crystal.rotate(turn, "z" if not crystal.pbc.all() else (1, 2, 3), rotate_cell=True)
    alloy = Alloy.from_atoms(crystal)
    assert alloy.n_basis == n_basis
    assert np.linalg.det(alloy.cell) * len(crystal) / n_basis == pytest.approx(crystal.cell.volume, rel=1e-6)
    whole = np.array(crystal.cell) @ np.linalg.inv(alloy.cell)
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-6)
    # every atom of the input is a site of the lattice, where it was
    scaled = crystal.positions @ np.linalg.inv(alloy.cell)
    gap = scaled[:, None] - alloy.scaled_positions[None]
    distance = np.linalg.norm((gap - np.rint(gap)) @ alloy.cell, axis=-1)
    np.testing.assert_allclose(distance.min(axis=1), 0, atol=1e-5)
    if not turn:
        assert abs(np.linalg.det(alloy.conventional)) * n_basis >= n_basis


@pytest.mark.parametrize(
    ("crystal", "n_ops", "n_conventional"),
    [
        (bulk("Cu", "sc", a=2.6), 48, 1),
        (bulk("Cu", "bcc", a=2.9), 48, 2),
        (bulk("Cu", "fcc", a=3.6), 48, 4),
        (bulk("Cu", "fcc", a=3.6, cubic=True) * 2, 48, 4),
        (bulk("Cu", "diamond", a=5.4), 48, 8),
        (bulk("Cu", "hcp", a=2.6, c=4.1), 24, 2),
        (Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0)), 16, 1),
    ],
)
def test_group_and_conventional_cell(crystal, n_ops, n_conventional):
    alloy = Alloy.from_atoms(crystal)
    assert alloy.space_group.n_ops == n_ops
    assert alloy.supercell(1).n_sites == n_conventional
    cell = alloy.supercell(1).cell
    if n_ops == 48:
        np.testing.assert_allclose(cell @ cell.T, np.diag(np.diag(cell @ cell.T)), atol=1e-9)


def test_group_maps_sites_exactly():
    alloy = Alloy.from_atoms(bulk("Cu", "diamond", a=5.4))
    group = alloy.space_group
    rng = np.random.default_rng(0)
    basis, cells = rng.integers(2, size=50), rng.integers(-5, 6, size=(50, 3))
    points = (alloy.scaled_positions[basis] + cells) @ alloy.cell
    for op in range(group.n_ops):
        b, n = group.apply(op, basis, cells)
        image = (alloy.scaled_positions[b] + n) @ alloy.cell
        turned = points @ group.cartesian[op].T
        np.testing.assert_allclose(image - image[0], turned - turned[0], atol=1e-5)


def test_dimension_and_flat_lattices_keep_their_vacuum():
    alloy = Alloy.from_atoms(Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0)) * (2, 2, 1), {"Cu": HALF})
    assert alloy.dimension == 2 and alloy.n_basis == 1
    np.testing.assert_allclose(np.linalg.norm(alloy.cell, axis=1), [1, 1, 10], atol=1e-9)
    assert Alloy.from_atoms(bulk("Cu")).dimension == 3


def test_composition_breaks_symmetry_and_order_does_not_matter():
    b2 = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    assert Alloy.from_atoms(b2, {"Ni": HALF, "Al": HALF}).n_basis == 2  # sublattices keep their names
    first = Alloy.from_atoms(bulk("Cu"), {"Cu": {"Cu": 0.5, "Ni": 0.5}})
    assert first == Alloy.from_atoms(bulk("Cu"), {"Cu": {"Ni": 0.5, "Cu": 0.5}})
    assert first != Alloy.from_atoms(bulk("Cu"), {"Cu": {"Ni": 0.4, "Cu": 0.6}})
    assert first != "something else" and len({first, first}) == 1


def test_interstitial_sites_are_completed_by_symmetry():
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True)).with_interstitials("C", [[0.5, 0.5, 0]])
    assert alloy.n_basis == 4 and alloy.is_interstitial and alloy.mobile_basis.sum() == 3
    assert not alloy.varying_basis.any()
    tetrahedral = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87)).with_interstitials("C", [[0.5, 0.25, 0]])
    assert tetrahedral.mobile_basis.sum() == 6
    assert "interstitial" in alloy.summary() and "Fe 1" in alloy.summary()


# -- refusals ---------------------------------------------------------------------------------------------------


def test_atoms_read_from_a_disordered_cif_are_refused(tmp_path):
    path = tmp_path / "alloy.cif"
    path.write_text(cif({"Cu": 0.7, "Ni": 0.3}))
    atoms = ase.io.read(path)
    assert "occupancy" in atoms.info  # what ASE leaves behind
    with pytest.raises(StructureError, match=r"info\['occupancy'\]") as error:
        Alloy.from_atoms(atoms)
    assert "Alloy.from_file" in one_sentence(error)


@pytest.mark.parametrize(
    ("composition", "message"),
    [
        ({"Cu": {"Cu": 0.8, "Ni": 0.3}}, r"sum to 1\.1"),
        ({"Cu": {}}, "holds no atoms"),
        ({"Cu": {"Ni": 0.0}}, "holds no atoms"),
        ({"Cu": {"Cu": 1.0, "Ni": -0.2}}, "occupancy -0.2 of Ni"),
        ({"Cu": {"Cu": 0.5, "Zz": 0.5}}, "species 'Zz'"),
        ({"Cu": {"Cu": 0.5, "X": 0.5}}, "species 'X'"),
        ({"Ni": {"Ni": 1.0}}, "names 'Ni', which no site carries"),
        ({"Cu": {"Cu": float("nan"), "Ni": 0.5}}, "nan"),
    ],
)
def test_bad_compositions_are_refused(composition, message):
    with pytest.raises(StructureError, match=message) as error:
        Alloy.from_atoms(bulk("Cu"), composition)
    one_sentence(error)


def test_dummy_species_are_refused():
    from pymatgen.core import DummySpecies

    with pytest.raises(StructureError, match="expected chemical elements"):
        Alloy.from_structure(Structure(Lattice.cubic(3), [DummySpecies("Xx")], [[0, 0, 0]]))


@pytest.mark.parametrize("atoms", [Atoms(), Atoms("Cu"), Atoms("Cu", cell=[1, 1, 0])])
def test_no_crystal_is_refused(atoms):
    with pytest.raises(StructureError, match="expected a crystal") as error:
        Alloy.from_atoms(atoms)
    one_sentence(error)


def test_overlapping_sites_are_refused():
    with pytest.raises(StructureError, match="overlapping sites"):
        Alloy.from_atoms(Atoms("Cu2", scaled_positions=[[0, 0, 0], [0, 0, 1e-6]], cell=[3] * 3, pbc=True))


def test_sites_on_their_own_images_are_refused():
    """An angle of half a degree: the cell is not flat, and the pairs of its sites would be without number."""
    cell = Atoms("Ti", cell=[2.95, 2.95, 4.68, 90, 90, 0.5], pbc=True)
    with pytest.raises(StructureError, match=r"0\.0257 Å from its own periodic image"):
        Alloy.from_atoms(cell)
    Alloy.from_atoms(Atoms("Ti", cell=[2.95, 2.95, 4.68, 90, 90, 5.0], pbc=True))  # strange, and a crystal
    sheared = np.array([[2.9, 0, 0], [29.0, 2.9, 0], [0, 0, 2.9]])  # a cube, written with a long vector
    Alloy.from_atoms(Atoms("Ti", cell=sheared, pbc=True))
