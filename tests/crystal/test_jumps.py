"""JumpNetwork: numbers, classes and geometry on every lattice; interstitial diffusivities against exact numbers."""

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import KinosonError, MappingError, StructureError
from ase_kinoson.kinetics.lattice_gas import SiteBarriers
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda

HALF = {"Cu": 0.5, "Ni": 0.5}
TRICLINIC = [[3, 1, 0], [0, 3, 1], [1, 0, 4]]
HEXAGON = [[2.5, 0, 0], [-1.25, 2.165063509461097, 0], [0, 0, 12]]


def flat(cell, positions=((0.0, 0.0, 0.0),)):
    return Atoms(f"Cu{len(positions)}", scaled_positions=positions, cell=cell, pbc=(1, 1, 0))


def vacancy(atoms, size, of="conventional", composition=None):
    alloy = Alloy.from_atoms(atoms, composition or {"Cu": HALF})
    return JumpNetwork.from_supercell(alloy.supercell(size, of=of))


def b2(mobile=None):
    atoms = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    alloy = Alloy.from_atoms(atoms, {"Ni": {"Ni": 0.6, "Cu": 0.4}}, mobile=mobile)
    return JumpNetwork.from_supercell(alloy.supercell(4))


def octahedral():
    cell = Alloy.from_atoms(bulk("Fe", "bcc", a=2.8553, cubic=True)).supercell(2)
    return JumpNetwork.from_supercell(cell, mechanism="interstitial", sites=[[0.5, 0.5, 0.0]], species="C")


def hexagonal_interstitials(cutoff=2.5):
    a = 3.0
    c = a * np.sqrt(8 / 3)
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]]
    metal = Atoms("Mg2", scaled_positions=[[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]], cell=cell, pbc=True)
    alloy = Alloy.from_atoms(metal).with_interstitials("H", [[0, 0, 0], [1 / 3, 2 / 3, 5 / 8]])
    return JumpNetwork.from_supercell(alloy.supercell((3, 3, 2)), cutoff=cutoff)


# name: network, jumps of each mobile site, classes without and with direction
CASES = {
    "sc": (lambda: vacancy(bulk("Cu", "sc", a=2.6), 3), 6, 1, 1),
    "bcc": (lambda: vacancy(bulk("Cu", "bcc", a=2.9), 3), 8, 1, 1),
    "fcc": (lambda: vacancy(bulk("Cu", "fcc", a=3.6), 2), 12, 1, 1),
    "diamond": (lambda: vacancy(bulk("Cu", "diamond", a=5.4), 2), 4, 1, 1),
    "hcp, ideal": (lambda: vacancy(bulk("Cu", "hcp", a=2.6, c=2.6 * np.sqrt(8 / 3)), (3, 3, 2)), 12, 2, 2),
    "hcp, not ideal": (lambda: vacancy(bulk("Cu", "hcp", a=2.6, c=4.1), (3, 3, 2)), 12, 2, 2),
    "square": (lambda: vacancy(flat([1, 1, 10]), (3, 3, 1)), 4, 1, 1),
    "honeycomb": (
        lambda: vacancy(flat(HEXAGON, ((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5))), (3, 3, 1)),
        3,
        1,
        1,
    ),
    "triangular": (lambda: vacancy(flat(HEXAGON), (3, 3, 1)), 6, 1, 1),
    "B2, one mobile": (b2, 6, 1, 1),
    "B2, both mobile": (lambda: b2(["Ni", "Al"]), 8, 1, 2),
    "rock salt, anions fixed": (
        lambda: vacancy(bulk("NaCl", "rocksalt", a=5.6), 2, composition={"Na": {"Na": 0.5, "K": 0.5}}),
        12,
        1,
        1,
    ),
    "triclinic": (lambda: vacancy(bulk("Cu", "fcc", a=3.6), TRICLINIC, of="primitive"), 12, 1, 1),
    "octahedral sites of bcc": (octahedral, 4, 1, 1),
    # 2 oct along c and 6 tet from an octahedral site; 1 tet along c, 3 tet across and 3 oct from a tetrahedral one
    "interstitials of hcp": (hexagonal_interstitials, None, 4, 5),
}
BUILT = {}


def built(name):
    if name not in BUILT:
        BUILT[name] = CASES[name][0]()
    return BUILT[name]


@pytest.fixture(params=list(CASES))
def case(request):
    return (built(request.param), *CASES[request.param][1:])


def one_sentence(error):
    text = str(error.value)
    assert "expected" in text and "\n" not in text and len(text) < 600
    return text


def check_closed(network, vectors, labels):
    """Every operation maps the jumps of a site onto those of its image, class by class."""
    group = network.supercell.alloy.space_group
    for op in range(group.n_ops):
        for b in np.flatnonzero(network.exists.any(axis=1)):
            image = group.basis_map[op, b]
            turned = vectors[b][network.exists[b]] @ group.cartesian[op].T
            other, kinds = vectors[image][network.exists[image]], labels[image][network.exists[image]]
            gap = np.linalg.norm(turned[:, None] - other[None], axis=-1)
            assert len(set(gap.argmin(axis=1))) == len(other)
            np.testing.assert_allclose(gap.min(axis=1), 0, atol=1e-6)
            np.testing.assert_array_equal(kinds[gap.argmin(axis=1)], labels[b][network.exists[b]])


def test_number_of_jumps_and_classes(case):
    network, n_jumps, n_classes, n_directed = case
    alloy = network.supercell.alloy
    per_site = network.exists.sum(axis=1)
    np.testing.assert_array_equal(per_site > 0, alloy.mobile_basis)
    if n_jumps is not None:
        assert set(per_site[alloy.mobile_basis]) == {n_jumps}
    assert network.n_classes == n_classes
    assert network.directed_class.max() + 1 == n_directed
    assert network.n_jumps == per_site.max()


def test_interstitials_of_hcp_have_two_kinds_of_sites():
    network = built("interstitials of hcp")
    mobile = network.supercell.alloy.mobile_basis
    assert sorted(network.exists.sum(axis=1)[mobile]) == [7, 7, 7, 7, 8, 8]
    np.testing.assert_allclose(np.sort(network.lengths), [1.224745, 1.837117, 2.121320, 2.449490], atol=1e-5)


def test_jumps_are_closed_under_the_group(case):
    network = case[0]
    check_closed(network, network.vectors, network.directed_class)
    check_closed(network, network.vectors, network.jump_class)


def test_the_closure_check_sees_a_broken_network():
    network = built("hcp, not ideal")
    with pytest.raises(AssertionError):
        check_closed(network, network.vectors, np.roll(network.jump_class, 1, axis=1))
    bent = network.vectors.copy()
    bent[0, 0] *= 1.01
    with pytest.raises(AssertionError):
        check_closed(network, bent, network.jump_class)


def test_padded_rows_are_empty(case):
    network = case[0]
    assert np.all(network.vectors[~network.exists] == 0)
    assert np.all(network.jump_class[~network.exists] == -1)
    assert np.all(network.jump_class[network.exists] >= 0)


def test_reverse_of_reverse_and_opposite_vectors(case):
    network = case[0]
    for b, k in np.argwhere(network.exists):
        c, r = network.target_basis[b, k], network.reverse[b, k]
        assert network.exists[c, r] and network.target_basis[c, r] == b and network.reverse[c, r] == k
        np.testing.assert_allclose(network.vectors[c, r], -network.vectors[b, k], atol=1e-12)
        np.testing.assert_array_equal(network.target_cell[c, r], -network.target_cell[b, k])
        assert network.jump_class[c, r] == network.jump_class[b, k]


def test_targets_lie_at_the_jump_vectors(case):
    network = case[0]
    cell = network.supercell
    carriers = cell.mobile_sites
    targets = network.targets(carriers)
    basis = network.basis_of(carriers)
    np.testing.assert_array_equal(targets >= 0, network.exists[basis])
    rows, jumps = np.nonzero(targets >= 0)
    miss = cell.positions[targets[rows, jumps]] - cell.positions[carriers[rows]] - network.vectors[basis[rows], jumps]
    scaled = miss @ np.linalg.inv(cell.cell)
    assert np.abs(scaled - np.rint(scaled)).max() < 1e-8
    assert set(targets[rows, jumps]) <= set(carriers)


def test_a_jump_and_its_reverse_restore_the_state(case):
    network = case[0]
    cell = network.supercell
    rng = np.random.default_rng(0)
    carriers = rng.choice(cell.mobile_sites, 20)
    occupations = rng.integers(1, len(cell.species), size=(20, cell.n_sites)).astype(np.int8)
    interstitial = network.mechanism == "interstitial"
    if interstitial:
        occupations[:, cell.mobile_sites] = 0
    occupations[np.arange(20), carriers] = cell.species.index(cell.species[1]) if interstitial else 0
    basis = network.basis_of(carriers)
    jumps = np.array([rng.choice(np.flatnonzero(network.exists[b])) for b in basis])
    moved = network.moving_species(occupations, carriers)[np.arange(20), jumps]
    new, where = network.apply(occupations, carriers, jumps)
    assert np.all(new[np.arange(20), where] == occupations[np.arange(20), carriers])
    assert np.all((new != occupations).sum(axis=1) == 2)
    back = network.reverse[basis, jumps]
    np.testing.assert_array_equal(network.moving_species(new, where)[np.arange(20), back], moved)
    again, home = network.apply(new, where, back)
    np.testing.assert_array_equal(again, occupations)
    np.testing.assert_array_equal(home, carriers)


def test_classes_list_pairs_and_displacements(case):
    network = case[0]
    assert sum(map(len, network.classes)) == network.exists.sum()
    for label, members in enumerate(network.classes):
        for (i, j), dx in members:
            assert network.supercell.alloy.mobile_basis[[i, j]].all()
            assert np.linalg.norm(dx) == pytest.approx(network.lengths[label], abs=1e-6)


def test_restrict_keeps_whole_classes_and_reverses():
    network = built("hcp, not ideal")
    for label in range(2):
        part = network.restrict([label])
        assert part.n_classes == 1 and set(part.exists.sum(axis=1)) == {6}
        check_closed(part, part.vectors, part.jump_class)
        assert part.lengths[0] == pytest.approx(network.lengths[label])
        for b, k in np.argwhere(part.exists):
            c, r = part.target_basis[b, k], part.reverse[b, k]
            np.testing.assert_allclose(part.vectors[c, r], -part.vectors[b, k], atol=1e-12)
    assert network.restrict([0, 1]).fingerprint == network.fingerprint
    assert network.restrict([0]).fingerprint != network.fingerprint


def test_a_cutoff_adds_shells():
    cell = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": HALF}).supercell(3)
    assert JumpNetwork.from_supercell(cell, cutoff=3.7).exists.sum() == 12 + 6
    with pytest.raises(StructureError, match="found no jump"):
        JumpNetwork.from_supercell(cell, cutoff=1.0)


def test_other_supercells_of_the_lattice_share_the_fingerprint():
    network = built("fcc")
    other = network.with_supercell(network.supercell.alloy.supercell(3))
    assert other.fingerprint == network.fingerprint and other.supercell.n_sites == 108
    assert built("triclinic").fingerprint == network.fingerprint
    assert built("bcc").fingerprint != network.fingerprint
    with pytest.raises(StructureError, match="another alloy"):
        network.with_supercell(built("bcc").supercell)


@pytest.mark.parametrize("size", [1, (1, 3, 3), (2, 2, 1)])
def test_a_cell_so_small_that_a_jump_sees_its_image_is_refused(size):
    with pytest.raises(StructureError, match="so small that a jump sees its own periodic image") as error:
        vacancy(bulk("Cu", "sc", a=2.6), size)
    assert "use a larger supercell" in one_sentence(error)


def test_mechanism_and_sites_are_checked():
    cell = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True)).supercell(2)
    with pytest.raises(StructureError, match="mechanism='interstitial'") as error:
        JumpNetwork.from_supercell(cell, mechanism="interstitial")
    one_sentence(error)
    with pytest.raises(StructureError, match="found sites="):
        JumpNetwork.from_supercell(cell, sites=[[0.5, 0.5, 0]])
    with pytest.raises(StructureError, match="from a host site") as error:
        JumpNetwork.from_supercell(cell, mechanism="interstitial", sites=[[0.5, 0.5, 0.5]], species="C")
    one_sentence(error)
    with pytest.raises(StructureError, match="found interstitial species 'Zz'"):
        JumpNetwork.from_supercell(cell, mechanism="interstitial", sites=[[0.5, 0.5, 0]], species="Zz")


def test_a_jump_that_does_not_exist_is_refused():
    network = built("interstitials of hcp")
    cell = network.supercell
    site = next(s for s in cell.mobile_sites if not network.exists[s % cell.alloy.n_basis].all())
    with pytest.raises(MappingError, match="does not exist"):
        network.apply(np.zeros((1, cell.n_sites), dtype=np.int8), [site], [network.n_jumps - 1])


# -- exact diffusivities of interstitials -----------------------------------------------------------------------


def diffusivity(network, symbol, barriers, temperature_K, frequency):
    """Exact diffusion tensor of the interstitial and its value without correlation, Å²/s."""
    rates = Rates.of(barriers, network, temperature_K=temperature_K, attempt_frequency=frequency)
    matrix, bare, _ = exact_lambda(StateSpace.enumerate(network), rates)
    a = network.supercell.species.index(symbol) - 1
    return matrix[a, a], bare[a, a]


def three_classes():
    """Tet-tet along c, oct-tet, oct-oct along c: the network of the reference numbers, shortest first."""
    network = hexagonal_interstitials()
    order = np.argsort(network.lengths)
    network = network.restrict(order[[0, 1, 3]])
    np.testing.assert_allclose(network.lengths, [1.224745, 1.837117, 2.449490], atol=1e-5)
    return network


@pytest.mark.parametrize(
    ("thermal_energy", "sites", "saddles", "tensor"),
    [
        (1.0, (0.0, 1.0), (1.25, 1.5, 3.0), (1.15694147, 1.15694147, 0.705694102)),
        (0.5, (0.0, 1.0), (1.25, 1.5, 3.0), (0.352635551, 0.352635551, 0.196350125)),
        (1.0, (0.0, 0.0), (0.0, 0.0, 0.0), (3.0, 3.0, 3.2)),
    ],
)
def test_interstitial_in_hcp_has_the_exact_tensor(thermal_energy, sites, saddles, tensor):
    found, _ = diffusivity(three_classes(), "H", SiteBarriers(sites, saddles), thermal_energy / ase.units.kB, 1.0)
    np.testing.assert_allclose(found, np.diag(tensor), rtol=1e-6, atol=1e-9)


def test_interstitial_in_hcp_does_not_depend_on_the_supercell():
    network = three_classes()
    other = network.with_supercell(network.supercell.alloy.supercell([[3, 0, 1], [0, 4, 0], [0, 1, 2]]))
    gas = SiteBarriers((0.0, 1.0), (1.25, 1.5, 3.0))
    first, second = (diffusivity(n, "H", gas, 1.0 / ase.units.kB, 1.0)[0] for n in (network, other))
    np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12)


def test_carbon_in_iron_has_the_published_prefactor():
    network = octahedral()
    found, bare = diffusivity(network, "C", SiteBarriers((0.0,), (0.816,)), 1000.0, 1e13)
    prefactor = found / np.exp(-0.816 / (ase.units.kB * 1000.0)) * 1e-20
    np.testing.assert_allclose(prefactor, 1.3588e-7 * np.eye(3), rtol=1e-5, atol=1e-14)
    np.testing.assert_allclose(prefactor[0, 0], 2.8553**2 * 1e13 / 6 * 1e-20, rtol=1e-12)
    np.testing.assert_allclose(found, bare, rtol=1e-9, atol=1e-9 * bare.max())


def test_wrong_numbers_of_site_and_saddle_energies_are_refused():
    with pytest.raises(KinosonError, match="expected 2 and 3") as error:
        SiteBarriers((0.0,), (1.0,)).bind(three_classes())
    one_sentence(error)
