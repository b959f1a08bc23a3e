"""Tables of JumpNetwork, entry by entry, against what geometry says."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork, Supercell
from ase_kinoson.errors import MappingError, StructureError
from ase_kinoson.validation import parent

HALF = {"Cu": 0.5, "Ni": 0.5}


def network_of(atoms, size, **options):
    return JumpNetwork.from_supercell(Alloy.from_atoms(atoms, {"Cu": HALF}).supercell(size), **options)


def tetragonal(ratio):
    return Atoms("Cu", cell=[2.5, 2.5, 2.5 * ratio], pbc=True)


def interstitials():
    """Octahedra and tetrahedra of hcp: sites with unlike numbers of jumps, so that rows are padded."""
    a, c = 3.0, 3.0 * np.sqrt(8 / 3)
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]]
    metal = Atoms("Mg2", scaled_positions=[[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]], cell=cell, pbc=True)
    alloy = Alloy.from_atoms(metal).with_interstitials("H", [[0, 0, 0], [1 / 3, 2 / 3, 5 / 8]])
    return JumpNetwork.from_supercell(alloy.supercell((3, 3, 2)), cutoff=2.5)


def ordered():
    atoms = Atoms("CuZn", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    return JumpNetwork.from_supercell(Alloy.from_atoms(atoms, {"Cu": HALF}, mobile=["Cu", "Zn"]).supercell(3))


# -- which jumps there are --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "n_jumps"), [(1.0, 6), (1.099, 6), (1.101, 4), (0.911, 6), (0.908, 2)])
def test_bonds_up_to_a_tenth_longer_than_the_shortest_are_jumps(ratio, n_jumps):
    network = network_of(tetragonal(ratio), 3)
    assert network.exists.sum() == network.n_jumps == n_jumps
    lengths = {1.0: [2.5], 1.099: [2.5, 2.5 * 1.099], 1.101: [2.5], 0.911: [2.5 * 0.911, 2.5], 0.908: [2.5 * 0.908]}
    np.testing.assert_allclose(sorted(network.lengths), lengths[ratio], rtol=1e-6)
    assert network.n_classes == len(lengths[ratio])


def test_the_end_with_the_longer_bond_decides():
    """Bonds of 2, 3 and 3 Å in a row: the third site has no shorter one, so both of its bonds are jumps."""
    row = Atoms("Cu3", positions=[[0, 0, 0], [2.0, 0, 0], [5.0, 0, 0]], cell=[8.0, 12.0, 12.0], pbc=True)
    network = network_of(row, (3, 1, 1))
    assert network.exists.sum(axis=1).tolist() == [2, 2, 2]
    np.testing.assert_allclose(np.sort(np.abs(network.vectors[..., 0]).ravel()), [2, 2, 3, 3, 3, 3], atol=1e-9)
    np.testing.assert_allclose(network.vectors[..., 1:], 0, atol=1e-9)


@pytest.mark.parametrize(
    ("cutoff", "n_jumps"), [(2.5455, 0), (2.5456, 12), (3.599, 12), (3.6, 18), (4.40, 18), (4.41, 42)]
)
def test_a_cutoff_takes_all_pairs_up_to_it(cutoff, n_jumps):
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    if n_jumps == 0:
        with pytest.raises(StructureError, match=r"found no jump.*expected at least one.*increase cutoff="):
            network_of(atoms, 3, cutoff=cutoff)
    else:
        assert network_of(atoms, 3, cutoff=cutoff).n_jumps == n_jumps


@pytest.mark.parametrize(
    ("size", "fine"), [((3, 3, 3), True), ((2, 3, 3), False), ((3, 2, 3), False), ((3, 3, 1), False)]
)
def test_two_jumps_of_a_site_lead_to_two_sites(size, fine):
    if fine:
        assert len(set(network_of(tetragonal(1.0), size).targets([0])[0].tolist())) == 6
    else:
        with pytest.raises(StructureError, match="sees its own periodic image"):
            network_of(tetragonal(1.0), size)
    whole = network_of(tetragonal(1.0), 3)
    cell = Supercell(whole.supercell.alloy, np.diag(size))
    if fine:
        assert whole.with_supercell(cell).supercell == cell
    else:
        with pytest.raises(StructureError, match="sees its own periodic image"):
            whole.with_supercell(cell)


# -- tables ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["padded", "two sublattices", "one site"])
def network(request):
    make = {"padded": interstitials, "two sublattices": ordered, "one site": lambda: network_of(tetragonal(1.05), 3)}
    return make[request.param]()


def test_every_entry_is_that_of_its_pair_of_sites(network):
    alloy, exists = network.supercell.alloy, network.exists
    positions = alloy.scaled_positions @ alloy.cell
    for b, k in np.argwhere(exists):
        t, cell = network.target_basis[b, k], network.target_cell[b, k]
        np.testing.assert_allclose(network.vectors[b, k], positions[t] + cell @ alloy.cell - positions[b], atol=1e-9)
        row = network.pair_row[b, k]
        assert network.pairs.start[row] == b and network.pairs.partner[row] == t
        np.testing.assert_array_equal(network.pairs.vector[row], network.vectors[b, k])
        back = network.reverse[b, k]
        assert network.target_basis[t, back] == b and exists[t, back]
        np.testing.assert_allclose(network.vectors[t, back], -network.vectors[b, k], atol=1e-9)
    # rows begin with what exists; the rest is empty
    assert np.array_equal(exists, np.arange(network.n_jumps) < exists.sum(axis=1)[:, None])
    for table, empty in ((network.target_basis, 0), (network.reverse, 0), (network.jump_class, -1)):
        assert np.all(table[~exists] == empty)
    assert np.all(network.directed_class[~exists] == -1)
    assert not network.target_cell[~exists].any() and not network.vectors[~exists].any()


def test_classes_are_numbered_without_gaps_and_hold_equal_lengths(network):
    exists = network.exists
    for labels in (network.jump_class[exists], network.directed_class[exists]):
        assert sorted(set(labels.tolist())) == list(range(labels.max() + 1))
    assert network.n_classes == network.jump_class.max() + 1 == len(network.classes) == len(network.lengths)
    # each directed class lies within one class, its reverse within the same one
    for b, k in np.argwhere(exists):
        t, back = network.target_basis[b, k], network.reverse[b, k]
        assert network.jump_class[b, k] == network.jump_class[t, back]
        same = network.directed_class == network.directed_class[b, k]
        assert set(network.jump_class[same].tolist()) == {int(network.jump_class[b, k])}
    listed = 0
    for label, members in enumerate(network.classes):
        listed += len(members)
        for (i, j), dx in members:
            assert np.isclose(np.linalg.norm(dx), network.lengths[label], rtol=1e-6)
            assert any(
                network.jump_class[i, k] == label
                and network.target_basis[i, k] == j
                and np.all(network.vectors[i, k] == dx)
                for k in np.flatnonzero(exists[i])
            )
    assert listed == exists.sum()


def test_jumps_between_unlike_sites_have_a_direction():
    network = ordered()
    assert network.n_classes == 1 and set(network.directed_class[network.exists].tolist()) == {0, 1}
    one, other = (set(network.directed_class[b][network.exists[b]].tolist()) for b in range(2))
    assert len(one) == len(other) == 1 and one != other


def test_restricted_networks_keep_their_rows():
    whole = interstitials()
    assert whole.n_classes == 4
    for chosen in ([0], [1, 3], [3, 1], [0, 1, 2, 3]):
        part = whole.restrict(chosen)
        kept = np.isin(whole.jump_class, chosen) & whole.exists
        assert part.exists.sum() == kept.sum() and part.n_classes == len(chosen)
        assert sorted(part.pair_row[part.exists].tolist()) == sorted(whole.pair_row[kept].tolist())
        assert part.n_jumps == kept.sum(axis=1).max()
        np.testing.assert_allclose(part.lengths, whole.lengths[sorted(chosen)])
        assert part.supercell == whole.supercell
    with pytest.raises(StructureError, match="found no jump"):
        whole.restrict([])
    with pytest.raises(StructureError, match="found no jump"):
        whole.restrict([7])


# -- description -------------------------------------------------------------------------------------------------


def test_projectors_keep_what_lies_in_the_periodic_directions():
    np.testing.assert_allclose(network_of(tetragonal(1.0), 3).projector, np.eye(3), atol=1e-12)
    cell = np.array([[2.5, 0, 0], [0.4, 2.7, 0.6], [0.0, 0.0, 12.0]])
    layer = network_of(Atoms("Cu", cell=cell, pbc=(1, 1, 0)), (3, 3, 1))
    assert layer.dimension == 2 and layer.supercell.alloy.dimension == 2
    normal = np.cross(cell[0], cell[1])
    normal /= np.linalg.norm(normal)
    np.testing.assert_allclose(layer.projector, np.eye(3) - np.outer(normal, normal), atol=1e-12)


def test_fingerprints_tell_lattices_and_mechanisms_apart():
    first = network_of(tetragonal(1.0), 3)
    same = [network_of(tetragonal(1.0), 4), network_of(Atoms("Cu", cell=[2.5 + 1e-7] * 3, pbc=True), 3)]
    other = [network_of(Atoms("Cu", cell=[2.5 + 1e-3] * 3, pbc=True), 3), network_of(tetragonal(1.0), 5, cutoff=3.6)]
    assert {n.fingerprint for n in same} == {first.fingerprint} and len(first.fingerprint) == 16
    assert first.fingerprint not in {n.fingerprint for n in other}
    assert other[0].fingerprint != other[1].fingerprint


def test_what_is_printed():
    assert repr(network_of(tetragonal(1.05), 3)) == (
        "JumpNetwork(vacancy, up to 6 jumps per site, 2 classes of length 2.500, 2.625 Å)"
    )
    assert repr(interstitials()).startswith("JumpNetwork(interstitial, up to 8 jumps per site, 4 classes of length ")
    assert interstitials().mechanism == "interstitial" and ordered().mechanism == "vacancy"


# -- acting on states --------------------------------------------------------------------------------------------


def test_the_atom_that_moves_is_the_one_at_the_other_end(network):
    cell, rng = network.supercell, np.random.default_rng(3)
    carriers = rng.choice(cell.mobile_sites, 30)
    codes = rng.integers(1, len(cell.species), size=(30, cell.n_sites)).astype(np.int8)
    own = cell.species.index("H") if network.mechanism == "interstitial" else 0
    if own:
        codes[:, cell.mobile_sites] = 0
    codes[np.arange(30), carriers] = own
    kept, moved, targets = codes.copy(), network.moving_species(codes, carriers), network.targets(carriers)
    assert moved.shape == targets.shape == (30, network.n_jumps)
    for i, c in enumerate(carriers):
        for k in range(network.n_jumps):
            if not network.exists[c % cell.alloy.n_basis, k]:
                assert moved[i, k] == targets[i, k] == -1
                with pytest.raises(MappingError, match="does not exist"):
                    network.apply(codes[[i]], carriers[[i]], [k])
                continue
            expected = codes[i, c] if own else codes[i, targets[i, k]]
            assert moved[i, k] == expected
            after, there = network.apply(codes[[i]], carriers[[i]], [k])
            assert there[0] == targets[i, k]
            changed = np.flatnonzero(after[0] != codes[i])
            assert set(changed.tolist()) == {int(c), int(there[0])}
            assert after[0, c] == codes[i, there[0]] and after[0, there[0]] == codes[i, c]
    np.testing.assert_array_equal(codes, kept)
    assert np.array_equal(network.basis_of(carriers), carriers % cell.alloy.n_basis)


def test_one_carrier_may_be_given_as_a_number():
    network = network_of(tetragonal(1.0), 3)
    assert network.targets(5).shape == (1, 6)
    np.testing.assert_array_equal(network.targets(5), network.targets([5]))


def test_sites_and_mechanism_belong_together():
    cell = parent("bcc").supercell(3)
    with pytest.raises(StructureError, match=r"mechanism=None and species='C'.*expected mechanism='interstitial'"):
        JumpNetwork.from_supercell(cell, sites="octahedral", species="C")
    with pytest.raises(StructureError, match="species=None"):
        JumpNetwork.from_supercell(cell, mechanism="interstitial", sites="octahedral")
    with pytest.raises(StructureError, match="for an alloy with vacancy sites; expected 'vacancy'"):
        JumpNetwork.from_supercell(cell, mechanism="interstitial")
    assert JumpNetwork.from_supercell(cell, mechanism="vacancy").mechanism == "vacancy"
