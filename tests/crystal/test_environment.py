"""Sites around carriers and jumps: every operation permutes them as it turns space."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment, PairTable

HALF = {"Cu": 0.5, "Ni": 0.5}
HEXAGON = [[2.5, 0, 0], [-1.25, 2.165063509461097, 0], [0, 0, 12]]


def flat(cell, positions=((0.0, 0.0, 0.0),)):
    return Atoms(f"Cu{len(positions)}", scaled_positions=positions, cell=cell, pbc=(1, 1, 0))


def vacancy(atoms, size, composition=None, of="conventional", mobile=None):
    alloy = Alloy.from_atoms(atoms, composition or {"Cu": HALF}, mobile=mobile)
    return JumpNetwork.from_supercell(alloy.supercell(size, of=of))


def b2(mobile):
    atoms = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    composition = {"Ni": {"Ni": 0.6, "Cu": 0.4}, "Al": {"Al": 0.7, "Ti": 0.3}}
    return vacancy(atoms, 4, composition, mobile=mobile)


def interstitial(crystal, sites):
    symbol = crystal.symbols[0]
    alloy = Alloy.from_atoms(crystal, {symbol: {symbol: 0.6, "Cr": 0.4}}).with_interstitials("C", sites)
    return JumpNetwork.from_supercell(alloy.supercell(3))


CASES = {
    "sc": lambda: vacancy(bulk("Cu", "sc", a=2.6), 5),
    "bcc": lambda: vacancy(bulk("Cu", "bcc", a=2.9, cubic=True), 4),
    "fcc": lambda: vacancy(bulk("Cu", "fcc", a=3.6, cubic=True), 4),
    "diamond": lambda: vacancy(bulk("Cu", "diamond", a=5.4, cubic=True), 3),
    "hcp": lambda: vacancy(bulk("Cu", "hcp", a=2.6, c=4.1), (5, 5, 4)),
    "square": lambda: vacancy(flat([1, 1, 10]), (6, 6, 1)),
    "honeycomb": lambda: vacancy(flat(HEXAGON, ((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5))), (6, 6, 1)),
    "triangular": lambda: vacancy(flat(HEXAGON), (6, 6, 1)),
    "B2, one mobile": lambda: b2(["Ni"]),
    "B2, both mobile": lambda: b2(["Ni", "Al"]),
    "rock salt, anions fixed": lambda: vacancy(
        bulk("NaCl", "rocksalt", a=5.6, cubic=True), 3, {"Na": {"Na": 0.5, "K": 0.5}}
    ),
    "triclinic": lambda: vacancy(bulk("Cu", "fcc", a=3.6), [[5, 1, 0], [0, 5, 1], [1, 0, 6]], of="primitive"),
    "octahedral sites of bcc": lambda: interstitial(bulk("Fe", "bcc", a=2.87, cubic=True), [[0.5, 0.5, 0]]),
    "interstitials of hcp": lambda: interstitial(
        Atoms(
            "Mg2",
            scaled_positions=[[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]],
            cell=[3, 3, 4.8, 90, 90, 120],
            pbc=True,
        ),
        [[0, 0, 0], [1 / 3, 2 / 3, 0.63]],
    ),
}
BUILT = {}


@pytest.fixture(params=list(CASES))
def network(request):
    if request.param not in BUILT:
        BUILT[request.param] = CASES[request.param]()
    return BUILT[request.param]


def check_permutations(kind, permutations):
    """Operation g carries site e, at vector r_e, onto site permutations[g, e], at R_g r_e, of the same kind."""
    turned = np.einsum("gij,ej->gei", kind.rotations, kind.vectors)
    np.testing.assert_allclose(kind.vectors[permutations], turned, atol=1e-6)
    for line in permutations:
        assert sorted(line) == list(range(kind.n_sites))


def check_group(rotations):
    """Products of operations are operations."""
    product = np.einsum("gij,hjk->ghik", rotations, rotations).reshape(-1, 9)
    gap = np.abs(product[:, None] - rotations.reshape(1, -1, 9)).max(axis=-1)
    assert gap.min(axis=1).max() < 1e-6


def relative(alloy, basis, cells, origin):
    return (alloy.scaled_positions[basis] + cells) @ alloy.cell - origin


def test_carrier_environment_is_permuted_by_the_group(network):
    environment = CarrierEnvironment.build(network)
    alloy = network.supercell.alloy
    for kind in environment.classes:
        check_permutations(kind, kind.permutations)
        check_group(kind.rotations)
        for g in range(kind.n_ops):
            np.testing.assert_array_equal(kind.inverse_permutations[g][kind.permutations[g]], np.arange(kind.n_sites))
            sublattice = alloy.site_sublattice[kind.basis]
            np.testing.assert_array_equal(sublattice[kind.permutations[g]], sublattice)
        assert np.linalg.norm(kind.vectors, axis=1).max(initial=0) <= environment.cutoff + 1e-9


@pytest.mark.parametrize("name", ["fcc", "hcp", "honeycomb", "octahedral sites of bcc"])
def test_the_permutation_check_sees_a_broken_table(name):
    kind = CarrierEnvironment.build(CASES[name]()).classes[0]
    with pytest.raises(AssertionError):
        check_permutations(kind, np.roll(kind.permutations, 1, axis=1))
    with pytest.raises(AssertionError):
        check_permutations(kind, np.roll(kind.permutations, 1, axis=0))
    swapped = kind.permutations.copy()
    swapped[-1, [0, 1]] = swapped[-1, [1, 0]]
    with pytest.raises(AssertionError):
        check_permutations(kind, swapped)


def test_equivalent_carrier_sites_see_the_same_in_their_frames(network):
    environment = CarrierEnvironment.build(network)
    alloy = network.supercell.alloy
    for b in np.flatnonzero(alloy.mobile_basis):
        kind = environment.classes[environment.class_of_basis[b]]
        own = relative(alloy, environment.basis[b], environment.cells[b], alloy.scaled_positions[b] @ alloy.cell)
        np.testing.assert_allclose(own, kind.vectors @ environment.frames[b].T, atol=1e-6)
        np.testing.assert_array_equal(alloy.site_sublattice[environment.basis[b]], alloy.site_sublattice[kind.basis])
    assert np.all(environment.class_of_basis[~alloy.mobile_basis] == -1)


def test_carrier_environment_is_complete_and_varying(network):
    environment = CarrierEnvironment.build(network)
    cell = network.supercell
    for b in np.flatnonzero(cell.alloy.mobile_basis):
        found = environment.sites([b], int(b))[0]
        distance = np.linalg.norm(cell.minimum_image(cell.positions - cell.positions[b]), axis=1)
        varying = cell.alloy.varying_basis[cell.basis_index]
        expected = np.flatnonzero((distance < environment.cutoff - 1e-6) & (distance > 1e-6) & varying)
        assert set(expected) <= set(found)
        if not environment.is_wrapped:
            np.testing.assert_array_equal(np.sort(found), expected)


def test_number_of_sites_and_operations():
    fcc = CarrierEnvironment.build(CASES["fcc"]())
    assert [k.n_sites for k in fcc.classes] == [54] and fcc.classes[0].n_ops == 48
    bcc = CarrierEnvironment.build(CASES["bcc"]())
    assert [k.n_sites for k in bcc.classes] == [58] and bcc.classes[0].n_ops == 48
    hcp = CarrierEnvironment.build(CASES["hcp"]())
    assert len(hcp.classes) == 1 and hcp.classes[0].n_ops == 12
    assert len(np.unique(fcc.classes[0].site_orbits)) == 4
    small = CarrierEnvironment.build(vacancy(bulk("Cu", "fcc", a=3.6, cubic=True), 2))
    assert small.is_wrapped and not fcc.is_wrapped


def test_jump_environment_is_permuted_by_the_group(network):
    environment = JumpEnvironment.build(network)
    for kind in environment.classes:
        check_permutations(kind, kind.permutations)
        check_group(kind.rotations)
    if any(k.n_sites > 1 for k in environment.classes):
        kind = max(environment.classes, key=lambda k: k.n_sites)
        with pytest.raises(AssertionError):
            check_permutations(kind, np.roll(kind.permutations, 1, axis=1))


def check_jumps_correspond(network, environment, basis):
    """The list of every jump is that of its class, turned: distances to each other and to both ends agree."""
    alloy = network.supercell.alloy
    for b, k in np.argwhere(network.exists):
        kind = environment.classes[network.jump_class[b, k]]
        n = kind.n_sites
        middle = alloy.scaled_positions[b] @ alloy.cell + network.vectors[b, k] / 2
        own = relative(alloy, basis[b, k, :n], environment.cells[b, k, :n], middle)
        np.testing.assert_allclose(own @ own.T, kind.vectors @ kind.vectors.T, atol=1e-5)
        along = own @ network.vectors[b, k]
        rep_b, rep_k = np.argwhere(network.jump_class == network.jump_class[b, k])[0]
        rep = relative(
            alloy,
            environment.basis[rep_b, rep_k, :n],
            environment.cells[rep_b, rep_k, :n],
            alloy.scaled_positions[rep_b] @ alloy.cell + network.vectors[rep_b, rep_k] / 2,
        )
        # which end is first may differ: a jump and its reverse are of one class
        expected = rep @ network.vectors[rep_b, rep_k]
        assert min(np.abs(along - expected).max(initial=0), np.abs(along + expected).max(initial=0)) < 1e-5


def test_jump_environments_correspond_within_a_class(network):
    environment = JumpEnvironment.build(network)
    check_jumps_correspond(network, environment, environment.basis)


def test_the_jump_check_sees_a_broken_table():
    network = CASES["hcp"]()
    environment = JumpEnvironment.build(network)
    with pytest.raises(AssertionError):
        check_jumps_correspond(network, environment, np.where(environment.basis >= 0, 1 - environment.basis, -1))


def test_a_jump_and_its_reverse_share_one_environment(network):
    environment = JumpEnvironment.build(network)
    rng = np.random.default_rng(0)
    cell = network.supercell
    for carrier in rng.choice(cell.mobile_sites, min(6, len(cell.mobile_sites)), replace=False):
        b = carrier % cell.alloy.n_basis
        targets = network.targets([carrier])[0]
        own = environment.sites([carrier])[0]
        for k in np.flatnonzero(targets >= 0):
            other = environment.sites([targets[k]])[0, network.reverse[b, k]]
            kind = environment.classes[network.jump_class[b, k]]
            n = kind.n_sites
            assert np.all(own[k, n:] == -1) and np.all(other[n:] == -1)
            assert {int(carrier), int(targets[k])}.isdisjoint(own[k])
            # equal up to an operation of the class
            assert any(np.array_equal(own[k, :n][line], other[:n]) for line in kind.permutations)


def test_environments_are_translation_invariant(network):
    cell = network.supercell
    carrier = int(cell.mobile_sites[0])
    by = np.array([1, 2, 1]) * cell.pbc
    there = int(cell.translate(carrier, by))
    carriers = CarrierEnvironment.build(network)
    basis = carrier % cell.alloy.n_basis
    np.testing.assert_array_equal(cell.translate(carriers.sites([carrier], basis), by), carriers.sites([there], basis))
    jumps = JumpEnvironment.build(network)
    here = jumps.sites([carrier])
    moved = np.where(here >= 0, cell.translate(np.maximum(here, 0), by), -1)
    np.testing.assert_array_equal(moved, jumps.sites([there]))


def test_in_a_wrapped_cell_the_ends_of_a_jump_are_hidden_from_it():
    network = vacancy(flat([1, 1, 10]), (3, 3, 1))
    environment = JumpEnvironment.build(network, cutoff=3.1)
    for carrier in range(9):
        sites = environment.sites([carrier])[0]
        for k, target in enumerate(network.targets([carrier])[0]):
            assert {carrier, int(target)}.isdisjoint(sites[k])


def test_pairs_are_counted_from_both_ends(network):
    cell = network.supercell
    table = PairTable.build(cell, 1.3 * float(network.lengths.min()))
    varying = np.flatnonzero(cell.alloy.varying_basis[cell.basis_index])
    partners = table.neighbors(varying)
    labels = table.orbit[varying % cell.alloy.n_basis]
    seen = {}
    for site, line, orbit in zip(varying, partners, labels, strict=True):
        for other, o in zip(line[line >= 0], orbit[line >= 0], strict=True):
            seen[site, other, o] = seen.get((site, other, o), 0) + 1
            distance = np.linalg.norm(cell.minimum_image(cell.positions[other] - cell.positions[site]))
            assert distance == pytest.approx(table.lengths[o], abs=1e-6)
    assert all(seen.get((b, a, o)) == n for (a, b, o), n in seen.items())
