"""Supercell: indexing, translations, composition, and Atoms to occupation and back on every lattice."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ase_kinoson.crystal import Alloy
from ase_kinoson.crystal.supercell import largest_remainder
from ase_kinoson.errors import MappingError, StructureError

HALF = {"Cu": 0.5, "Ni": 0.5}
TRICLINIC = [[3, 1, 0], [0, 3, 1], [1, 0, 4]]


def flat(cell, positions=((0.0, 0.0, 0.0),)):
    return Atoms(f"Cu{len(positions)}", scaled_positions=positions, cell=cell, pbc=(1, 1, 0))


def lattice(atoms, size, of="conventional"):
    return Alloy.from_atoms(atoms, {"Cu": HALF}).supercell(size, of=of)


def iron_carbon():
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.7, "Cr": 0.3}})
    return alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(2)


def nickel_aluminium():
    b2 = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    return Alloy.from_atoms(b2, {"Ni": {"Ni": 0.6, "Cu": 0.4}}).supercell(3)


def rock_salt():
    return Alloy.from_atoms(bulk("NaCl", "rocksalt", a=5.6), {"Na": {"Na": 0.5, "K": 0.5}}).supercell(2)


HONEYCOMB = ([[2.5, 0, 0], [-1.25, 2.165063509461097, 0], [0, 0, 12]], ((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5)))
CELLS = {
    "sc": lambda: lattice(bulk("Cu", "sc", a=2.6), 4),
    "bcc": lambda: lattice(bulk("Cu", "bcc", a=2.9), 3),
    "fcc": lambda: lattice(bulk("Cu", "fcc", a=3.6), 2),
    "diamond": lambda: lattice(bulk("Cu", "diamond", a=5.4), 2),
    "hcp": lambda: lattice(bulk("Cu", "hcp", a=2.6, c=4.1), (3, 3, 2)),
    "square": lambda: lattice(flat([1, 1, 10]), (5, 5, 1)),
    "honeycomb": lambda: lattice(flat(*HONEYCOMB), (4, 4, 1)),
    "triangular": lambda: lattice(flat(HONEYCOMB[0]), (5, 5, 1)),
    "B2, one mobile": nickel_aluminium,
    "rock salt, anions fixed": rock_salt,
    "triclinic": lambda: lattice(bulk("Cu", "fcc", a=3.6), TRICLINIC, of="primitive"),
    "strongly sheared": lambda: lattice(bulk("Cu", "fcc", a=3.6), [[3, 0, 0], [7, 3, 0], [0, 5, 3]], of="primitive"),
    "octahedral sites of bcc": iron_carbon,
}
BUILT = {}


@pytest.fixture(params=list(CELLS))
def cell(request):
    if request.param not in BUILT:
        BUILT[request.param] = CELLS[request.param]()
    return BUILT[request.param]


def random_state(cell, seed):
    rng = np.random.default_rng(seed)
    occupation = np.zeros(cell.n_sites, dtype=np.int8)
    for i, counts in enumerate(cell.counts):
        sites = np.flatnonzero(cell.sublattice == i)
        codes = np.repeat([cell.species.index(s) for s in counts], list(counts.values()))
        occupation[rng.permutation(sites)[: len(codes)]] = codes
    return occupation


def one_sentence(error):
    text = str(error.value)
    assert "expected" in text and "\n" not in text and text.count(";") >= 1 and len(text) < 600
    return text


def shift_of(cell, found, true):
    """The one lattice translation that carries all true sites onto those found."""
    by = cell.cell_coordinates(found[0] // cell.alloy.n_basis) - cell.cell_coordinates(true[0] // cell.alloy.n_basis)
    np.testing.assert_array_equal(cell.translate(true, np.tile(by, (len(true), 1))), found)
    return by


# -- indexing ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(-4, 4), min_size=9, max_size=9), st.integers(0, 2**32 - 1))
def test_hermite_indexing_is_that_of_the_lattice(entries, seed):
    matrix = np.array(entries).reshape(3, 3)
    volume = abs(round(np.linalg.det(matrix)))
    assume(0 < volume <= 60)
    cell = Alloy.from_atoms(bulk("Po", "sc", a=1.0)).supercell(matrix, of="primitive")
    assert cell.n_cells == volume
    points = np.random.default_rng(seed).integers(-7, 8, size=(40, 3))
    index = cell.cell_index(points)
    assert index.min() >= 0 and index.max() < volume
    np.testing.assert_array_equal(cell.cell_index(cell.cell_coordinates(np.arange(volume))), np.arange(volume))
    # brute force: two points are one cell where their difference is a whole combination of the rows
    steps = (points[:, None] - points[None]) @ np.linalg.inv(matrix)
    same = np.abs(steps - np.rint(steps)).max(axis=-1) < 1e-9
    np.testing.assert_array_equal(index[:, None] == index[None], same)
    assert np.array_equal(cell.hermite, np.triu(cell.hermite)) and np.diag(cell.hermite).min() > 0


def test_site_positions_are_distinct_and_inside(cell):
    inside = cell.positions @ np.linalg.inv(cell.cell)
    assert inside[:, cell.pbc].min() > -1e-8 and inside[:, cell.pbc].max() < 1 - 1e-10
    gap = inside[:, None] - inside[None]
    distance = np.linalg.norm((gap - np.rint(gap) * cell.pbc) @ cell.cell, axis=-1)
    assert distance[~np.eye(cell.n_sites, dtype=bool)].min() > 0.5
    assert cell.n_sites == cell.n_cells * cell.alloy.n_basis
    volume = abs(np.linalg.det(cell.cell)) / abs(np.linalg.det(cell.alloy.cell))
    assert volume == pytest.approx(cell.n_cells)


def test_neighbors_are_translation_invariant_and_where_they_should_be(cell):
    rng = np.random.default_rng(1)
    sites = rng.integers(cell.n_sites, size=30)
    basis = rng.integers(cell.alloy.n_basis, size=7)
    offsets = rng.integers(-3, 4, size=(7, 3)) * cell.pbc
    found = cell.neighbors(sites, basis, offsets)
    by = rng.integers(-5, 6, size=(30, 3)) * cell.pbc
    np.testing.assert_array_equal(
        cell.neighbors(cell.translate(sites, by), basis, offsets), cell.translate(found, by[:, None, :])
    )
    scaled = cell.alloy.scaled_positions
    step = (scaled[basis] + offsets - scaled[sites % cell.alloy.n_basis][:, None]) @ cell.alloy.cell
    miss = (cell.positions[found] - cell.positions[sites][:, None] - step) @ np.linalg.inv(cell.cell)
    assert np.abs(miss - np.rint(miss)).max() < 1e-8


def test_translations_form_a_group(cell):
    rng = np.random.default_rng(2)
    sites = np.arange(cell.n_sites)
    a, b = rng.integers(-4, 5, size=(2, 3)) * cell.pbc
    once = cell.translate(cell.translate(sites, a), b)
    np.testing.assert_array_equal(once, cell.translate(sites, a + b))
    np.testing.assert_array_equal(np.sort(once), sites)
    np.testing.assert_array_equal(cell.translate(sites, cell.matrix[0]), sites)


def test_equal_cells_are_equal_and_different_ones_are_not():
    assert CELLS["fcc"]() == CELLS["fcc"]() and hash(CELLS["fcc"]()) == hash(CELLS["fcc"]())
    assert CELLS["fcc"]() != CELLS["triclinic"]()


def test_non_primitive_input_keeps_orientation_and_conventional_cell():
    big = bulk("Cu", "fcc", a=3.6, cubic=True) * 2
    alloy = Alloy.from_atoms(big, {"Cu": HALF})
    assert alloy.n_basis == 1
    whole = np.array(big.cell) @ np.linalg.inv(alloy.cell)
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-9)
    assert alloy.supercell(1).n_sites == 4
    cubic = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": HALF}).supercell((3, 3, 3))
    assert cubic.n_sites == 108
    np.testing.assert_allclose(cubic.cell, 10.8 * np.eye(3), atol=1e-9)


# -- composition ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.integers(1, 2000))
def test_largest_remainder_sums_to_the_total_and_rounds_by_less_than_one(raw, total):
    fractions = np.array(raw) / sum(raw)
    counts = largest_remainder(fractions, total)
    assert sum(counts) == total
    assert np.abs(np.array(counts) - fractions * total).max() < 1


def test_largest_remainder_ties_go_to_the_earlier():
    assert largest_remainder([0.5, 0.5], 7) == [4, 3]
    assert largest_remainder([1 / 3, 1 / 3, 1 / 3], 8) == [3, 3, 2]
    assert largest_remainder([0.7, 0.3], 107) == [75, 32]
    assert largest_remainder([0.25, 0.25], 8) == [2, 2]  # half the sites are vacant


def test_counts_leave_one_carrier(cell):
    occupation = random_state(cell, 0)
    carrier = cell.find_carrier(occupation)
    assert cell.alloy.mobile_basis[carrier % cell.alloy.n_basis]
    for name, shares in cell.rounding().items():
        assert abs(sum(shares.values())) < 1e-12, name
        assert max(map(abs, shares.values())) < 0.1


def test_a_cell_that_would_lose_a_sublattice_is_refused():
    with pytest.raises(StructureError, match="would hold no atom") as error:
        _ = nickel_aluminium().alloy.supercell(1).counts
    one_sentence(error)


# -- Atoms to occupation and back -------------------------------------------------------------------------------


def test_ideal_atoms_round_trip(cell):
    occupation = random_state(cell, 3)
    carrier = cell.find_carrier(occupation)
    atoms = cell.to_atoms(occupation, carrier)
    assert atoms.info["carrier_site"] == carrier
    mapped = cell.map_atoms(atoms)
    np.testing.assert_array_equal(mapped.occupation, occupation)
    assert mapped.carrier == carrier
    np.testing.assert_array_equal(mapped.atom_of_site[atoms.arrays["site"]], np.arange(len(atoms)))
    assert (mapped.atom_of_site < 0).sum() == cell.n_sites - len(atoms)
    np.testing.assert_allclose(mapped.displacements, 0, atol=1e-9)


@pytest.mark.parametrize("drifting", [False, True])
def test_displaced_shuffled_wrapped_strained_atoms_round_trip(cell, drifting):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        occupation = random_state(cell, seed)
        atoms = cell.to_atoms(occupation)[rng.permutation(int((occupation > 0).sum()))]
        true = atoms.arrays["site"].copy()
        kick = rng.normal(size=(len(atoms), 3)) * 0.06 * cell.shortest_distance
        kick -= kick.mean(axis=0)
        atoms.positions += kick
        if drifting:
            atoms.positions += rng.uniform(-8, 8, 3) * cell.shortest_distance * cell.pbc
        strain = np.eye(3) + rng.normal(size=(3, 3)) * 0.004
        atoms.set_cell(atoms.cell @ np.where(np.outer(cell.pbc, cell.pbc) | np.eye(3, dtype=bool), strain, 0), True)
        atoms.wrap()
        mapped = cell.map_atoms(atoms)
        found = np.empty(len(atoms), dtype=int)
        filled = np.flatnonzero(mapped.atom_of_site >= 0)
        found[mapped.atom_of_site[filled]] = filled
        if drifting:
            by = shift_of(cell, found, true)
            everywhere = cell.translate(np.arange(cell.n_sites), np.tile(by, (cell.n_sites, 1)))
            np.testing.assert_array_equal(mapped.occupation[everywhere], occupation)
        else:
            np.testing.assert_array_equal(found, true)
            np.testing.assert_array_equal(mapped.occupation, occupation)
        assert mapped.carrier == cell.find_carrier(mapped.occupation)
        np.testing.assert_allclose(mapped.displacements, kick, atol=0.08 * cell.shortest_distance)


def test_mobile_species_may_exchange_between_mobile_sublattices():
    b2 = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    cell = Alloy.from_atoms(b2, mobile=["Ni", "Al"]).supercell(2)
    occupation = random_state(cell, 0)
    ni, al = cell.species.index("Ni"), cell.species.index("Al")
    a = np.flatnonzero(occupation == ni)[0]
    b = np.flatnonzero(occupation == al)[0]
    occupation[[a, b]] = al, ni
    np.testing.assert_array_equal(cell.map_atoms(cell.to_atoms(occupation)).occupation, occupation)


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.fixture
def copper():
    cell = lattice(bulk("Cu", "fcc", a=3.6, cubic=True), 2)
    return cell, cell.to_atoms(random_state(cell, 1))


def test_an_average_structure_is_refused(copper):
    cell, atoms = copper
    atoms.info["occupancy"] = {"0": {"Cu": 0.5, "Ni": 0.5}}
    with pytest.raises(MappingError, match=r"info\['occupancy'\]") as error:
        cell.map_atoms(atoms)
    one_sentence(error)


def test_an_atom_far_from_its_site_is_named_with_its_distance(copper):
    cell, atoms = copper
    vacancy = cell.positions[cell.find_carrier(cell.occupation_from_atoms(atoms))]
    i = int(np.argmax([np.linalg.norm(cell.minimum_image(p - vacancy)) for p in atoms.positions]))
    atoms.positions[i] += [1.3, 0.0, 0.0]
    with pytest.raises(MappingError, match=rf"atom {i} \({atoms.symbols[i]}\) lies 1\.2\d Å") as error:
        cell.map_atoms(atoms)
    assert "at most 1.15 Å" in one_sentence(error)
    assert cell.map_atoms(atoms, tolerance=1.5).occupation.shape == (32,)


@pytest.mark.parametrize(("remove", "found"), [(1, "2 vacancies"), (3, "4 vacancies")])
def test_two_vacancies_are_refused(copper, remove, found):
    cell, atoms = copper
    with pytest.raises(MappingError, match=found) as error:
        cell.map_atoms(atoms[remove:])
    one_sentence(error)


def test_no_vacancy_and_too_many_atoms_are_refused(copper):
    cell, atoms = copper
    full = atoms + Atoms("Cu", positions=[cell.positions[cell.find_carrier(cell.occupation_from_atoms(atoms))]])
    with pytest.raises(MappingError, match="no vacancy"):
        cell.map_atoms(full)
    with pytest.raises(MappingError, match="more atoms than sites"):
        cell.map_atoms(full + Atoms("Cu", positions=[[1, 1, 1]]))
    with pytest.raises(MappingError, match="found 0 atoms"):
        cell.map_atoms(atoms[:0])


def test_two_vacancies_in_an_occupation_are_refused(copper):
    cell, atoms = copper
    occupation = cell.occupation_from_atoms(atoms)
    occupation[np.flatnonzero(occupation)[:1]] = 0
    with pytest.raises(MappingError, match="found 2 vacancies") as error:
        cell.find_carrier(occupation)
    one_sentence(error)
    carbon = iron_carbon()
    none = random_state(carbon, 0)
    none[carbon.find_carrier(none)] = 0
    with pytest.raises(MappingError, match="found 0 interstitial atoms"):
        carbon.find_carrier(none)


def test_a_wrong_cell_is_refused(copper):
    cell, atoms = copper
    for wrong in (atoms.cell * 1.2, np.roll(np.array(atoms.cell), 1, axis=0), np.zeros((3, 3))):
        other = atoms.copy()
        other.set_cell(wrong)
        with pytest.raises(MappingError, match="found the cell") as error:
            cell.map_atoms(other)
        one_sentence(error)


def test_an_unknown_species_is_named(copper):
    cell, atoms = copper
    atoms.symbols[4] = "Au"
    with pytest.raises(MappingError, match=r"atom 4 is Au; expected one of \('Cu', 'Ni'\)") as error:
        cell.map_atoms(atoms)
    one_sentence(error)


def test_a_species_on_a_forbidden_sublattice_is_refused():
    cell = nickel_aluminium()
    occupation = random_state(cell, 0)
    atoms = cell.to_atoms(occupation)
    atoms.symbols[int(np.flatnonzero(atoms.symbols == "Ni")[0])] = "Al"
    with pytest.raises(MappingError, match="do not fit the sublattices"):
        cell.map_atoms(atoms)


@pytest.mark.parametrize(
    "size", [[[1, 0, 0], [0, 1, 0], [1, 1, 0]], 0, (2, 0, 2), [1, 2], 1.5, np.zeros((3, 3)), (1, 2, 3, 4)]
)
def test_a_singular_or_malformed_size_is_refused(size):
    with pytest.raises(StructureError, match="found supercell size") as error:
        Alloy.from_atoms(bulk("Cu")).supercell(size)
    one_sentence(error)


def test_repeating_a_non_periodic_direction_is_refused():
    alloy = Alloy.from_atoms(flat([1, 1, 10]), {"Cu": HALF})
    for size in ((3, 3, 2), [[3, 0, 1], [0, 3, 0], [0, 0, 1]]):
        with pytest.raises(StructureError, match="non-periodic"):
            alloy.supercell(size)
    assert alloy.supercell(3).n_sites == 9


def test_malformed_occupations_are_refused(copper):
    cell, atoms = copper
    occupation = cell.occupation_from_atoms(atoms)
    with pytest.raises(MappingError, match=r"found occupations of shape \(31,\)"):
        cell.check_occupation(occupation[:-1])
    with pytest.raises(MappingError, match="found species codes from"):
        cell.check_occupation(occupation + 2)


def test_of_must_be_known():
    with pytest.raises(StructureError, match="'primitive'"):
        Alloy.from_atoms(bulk("Cu")).supercell(2, of="cubic")


def test_every_translated_state_is_found_again(copper):
    cell, atoms = copper
    occupation = cell.occupation_from_atoms(atoms)
    sites = np.arange(cell.n_sites)
    for by in itertools.product((0, 1), repeat=3):
        moved = np.empty_like(occupation)
        moved[cell.translate(sites, np.array(by))] = occupation
        np.testing.assert_array_equal(cell.map_atoms(cell.to_atoms(moved)).occupation, moved)
