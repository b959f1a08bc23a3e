"""Interstitial sites found from the structure, and the jumps that are open between them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_kinoson.crystal import Alloy, JumpNetwork, interstitial_sites, passages
from ase_kinoson.crystal.interstitial_sites import find_interstitial_sites
from ase_kinoson.errors import KinosonWarning, StructureError

FCC = bulk("Pd", "fcc", a=4.0, cubic=True)
BCC = bulk("Fe", "bcc", a=2.8553, cubic=True)
HCP = bulk("Mg", "hcp", a=3.0, c=3.0 * np.sqrt(8 / 3))
BOTH = ["octahedral", "tetrahedral"]

# crystal: kind, copies in the conventional cell, one position, coordination, radius
CASES = {
    "fcc, octahedral": (FCC, "octahedral", 4, (0.5, 0.5, 0.5), 6, 2.0),
    "fcc, tetrahedral": (FCC, "tetrahedral", 8, (0.25, 0.25, 0.25), 4, np.sqrt(3.0)),
    "bcc, octahedral": (BCC, "octahedral", 6, (0.5, 0.5, 0.0), 6, 2.8553 / 2),
    "bcc, tetrahedral": (BCC, "tetrahedral", 12, (0.5, 0.25, 0.0), 4, 2.8553 * np.sqrt(5) / 4),
    "hcp, octahedral": (HCP, "octahedral", 2, (2 / 3, 1 / 3, 0.25), 6, 3.0 / np.sqrt(2)),
    "hcp, tetrahedral": (HCP, "tetrahedral", 4, (0.0, 0.0, 0.375), 4, 3.0 * np.sqrt(3 / 8)),
    "sc, cubic": (bulk("Po", "sc", a=3.0), "cubic", 1, (0.5, 0.5, 0.5), 8, 1.5 * np.sqrt(3)),
    "diamond, tetrahedral": (bulk("Si", cubic=True), "tetrahedral", 8, (0.5, 0.5, 0.5), 4, 5.43 * np.sqrt(3) / 4),
    "rock salt, cubic": (bulk("NaCl", "rocksalt", a=5.6, cubic=True), "cubic", 8, (0.25,) * 3, 8, 1.4 * np.sqrt(3)),
}


def apart(sites, position):
    delta = sites - np.asarray(position)
    return np.linalg.norm(delta - np.rint(delta), axis=1).min()


@pytest.mark.parametrize("name", CASES)
def test_sites_of_known_crystals(name):
    atoms, kind, copies, position, coordination, radius = CASES[name]
    (site,) = find_interstitial_sites(atoms, kind)
    assert (site.kind, site.multiplicity, site.coordination) == (kind, copies, coordination)
    assert apart(site.positions, position) < 1e-9
    assert site.radius == pytest.approx(radius, rel=1e-9)
    assert site.label == f"{kind} {copies}{site.label[-1]}"


@pytest.mark.parametrize("atoms", [FCC, BCC, HCP], ids=["fcc", "bcc", "hcp"])
def test_every_copy_has_the_same_surroundings(atoms):
    for site in find_interstitial_sites(atoms):
        for place in site.positions @ atoms.cell:
            near = np.sort((atoms.repeat(5).positions - place - 2 * np.sum(atoms.cell, axis=0)) ** 2 @ np.ones(3))
            assert np.sqrt(near[: site.coordination]) == pytest.approx(site.distances, rel=1e-6)


def test_bcc_octahedral_site_is_no_voronoi_vertex_and_is_found_in_the_faces(monkeypatch):
    (site,) = find_interstitial_sites(BCC, "octahedral")
    assert site.distances / 2.8553 == pytest.approx([0.5, 0.5, *[np.sqrt(0.5)] * 4])
    whole = interstitial_sites.Voronoi
    monkeypatch.setattr(interstitial_sites, "Voronoi", lambda p: without_faces(whole(p)))
    with pytest.raises(StructureError, match=r"no 'octahedral'.*tetrahedral 12d"):
        find_interstitial_sites(BCC, "octahedral")


def without_faces(diagram):
    diagram.ridge_points = diagram.ridge_points[:0]
    return diagram


@pytest.mark.parametrize("ratio", [1.0, 1.1, 1.3, 1.36, np.sqrt(2)])
def test_octahedra_survive_on_the_way_from_bcc_to_fcc(ratio):
    cell = Atoms("Fe2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.8, 2.8, 2.8 * ratio], pbc=True)
    alloy = Alloy.from_atoms(cell)
    conventional = alloy.conventional @ alloy.cell  # another one where the lattice is fcc
    sites = find_interstitial_sites(cell, "octahedral")
    centre = np.array([1.4, 1.4, 0.0]) @ np.linalg.inv(conventional)
    assert min(apart(s.positions, centre) for s in sites) < 1e-9
    # the corners of one hole are not counted as further holes
    places = np.concatenate([s.positions for s in find_interstitial_sites(cell)]) @ conventional
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9.0 * np.eye(len(places))
    assert gaps.min() > 0.5


def test_sublattices_split_the_sites_of_an_ordered_host():
    b2 = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    sites = find_interstitial_sites(b2, "octahedral")
    assert sorted(s.neighbors[:2] for s in sites) == [("Al", "Al"), ("Ni", "Ni")]
    alloy = Alloy.from_atoms(FCC, {"Pd": {"Pd": 0.7, "Ag": 0.3}})  # disorder is an average: it splits nothing
    assert len(find_interstitial_sites(alloy, "octahedral")) == 1


def test_lithium_sites_of_olivine_are_found():
    """In FePO4 (heterosite; Pnma) lithium goes to the octahedral 4a sites, which line up along b."""
    iron_phosphate = crystal(
        ["Fe", "P", "O", "O", "O"],
        [
            (0.2822, 0.25, 0.9747),
            (0.0948, 0.25, 0.4182),
            (0.0968, 0.25, 0.7428),
            (0.4571, 0.25, 0.2060),
            (0.1656, 0.0465, 0.2848),
        ],
        spacegroup=62,
        cellpar=[10.33, 6.01, 4.69, 90, 90, 90],
    )
    (site,) = find_interstitial_sites(iron_phosphate, "octahedral", min_distance=2.0)
    assert site.label == "octahedral 4a" and set(site.neighbors) == {"O"}
    assert apart(site.positions, (0, 0, 0)) < 1e-6
    alloy = Alloy.from_atoms(iron_phosphate).with_interstitials("Li", site)
    with pytest.warns(KinosonWarning, match="1 of 3 directions"):
        network = JumpNetwork.from_supercell(alloy.supercell((1, 3, 2)))
    assert network.n_open_directions == 1
    assert np.abs(network.vectors[network.exists]) == pytest.approx(np.tile([0, 6.01 / 2, 0], (8, 1)), abs=1e-6)


def test_what_is_not_there_is_said():
    with pytest.raises(StructureError, match=r"no 'octahedral'.*cubic 1b"):
        find_interstitial_sites(bulk("Po", "sc", a=3.0), "octahedral")
    with pytest.raises(StructureError, match="periodic in three directions"):
        find_interstitial_sites(Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0)))
    with pytest.raises(StructureError, match="found a list"):
        find_interstitial_sites([1, 2])
    with pytest.raises(StructureError, match="rows of three"):
        Alloy.from_atoms(FCC).with_interstitials("H", [0.5, 0.5])
    with pytest.raises(StructureError, match="interstitial sites already"):
        Alloy.from_atoms(FCC).with_interstitials("H", "octahedral").with_interstitials("H", "tetrahedral")
    assert all(s.radius > 1.9 for s in find_interstitial_sites(FCC, min_distance=1.9))


# -- jumps ----------------------------------------------------------------------------------------------------------

# crystal and kinds: jumps per site of each kind, lengths in units of the lattice constant
NETWORKS = {
    "fcc, octahedral": (FCC, "octahedral", [12], [np.sqrt(0.5)]),
    "fcc, tetrahedral": (FCC, "tetrahedral", [6], [0.5]),
    "fcc, both": (FCC, BOTH, [8, 4], [np.sqrt(3) / 4]),
    "bcc, octahedral": (BCC, "octahedral", [4], [0.5]),
    "bcc, tetrahedral": (BCC, "tetrahedral", [4], [np.sqrt(1 / 8)]),
    "bcc, both": (BCC, BOTH, [4, 6], [0.25, np.sqrt(1 / 8)]),
    "hcp, both": (HCP, BOTH, [8, 4], [np.sqrt(1 / 6), np.sqrt(3 / 8), np.sqrt(2 / 3)]),
}


def network_of(name, size=3):
    atoms, kinds, *_ = NETWORKS[name]
    cell = Alloy.from_atoms(atoms).supercell(size)
    return JumpNetwork.from_supercell(cell, mechanism="interstitial", sites=kinds, species="H")


@pytest.mark.parametrize("name", NETWORKS)
def test_default_jumps(name):
    atoms, _, numbers, lengths = NETWORKS[name]
    network = network_of(name)
    per_site = network.exists.sum(axis=1)[network.supercell.alloy.mobile_basis]
    assert list(dict.fromkeys(per_site.tolist())) == numbers
    assert network.lengths / atoms.cell.lengths()[0] == pytest.approx(lengths, rel=1e-5)
    assert network.n_open_directions == 3
    reverse = network.vectors[network.target_basis, network.reverse][network.exists]
    assert np.allclose(reverse, -network.vectors[network.exists])


def closest(network, points):
    """Smallest distance of any point from the inner part of any jump, Å."""
    alloy = network.supercell.alloy
    where = alloy.scaled_positions @ alloy.cell
    shifts = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ alloy.cell
    far = (where[points][:, None] + shifts[None]).reshape(-1, 3)
    best = np.inf
    for b, k in np.argwhere(network.exists):
        for t in np.linspace(0.2, 0.8, 13):
            best = min(best, np.linalg.norm(far - where[b] - t * network.vectors[b, k], axis=1).min())
    return best


@pytest.mark.parametrize("name", NETWORKS)
def test_no_jump_passes_through_an_atom_or_over_a_site(name):
    network = network_of(name)
    mobile = network.supercell.alloy.mobile_basis
    atoms = NETWORKS[name][0]
    bond = np.sort(atoms.get_all_distances(mic=True)[0])
    nearest = bond[bond > 0].min() if len(atoms) > 1 else atoms.cell.lengths()[0]
    assert closest(network, ~mobile) > 0.49 * nearest
    assert closest(network, mobile) > 0.19 * network.lengths.min()


def test_without_the_rules_jumps_are_squeezed_through_edges(monkeypatch):
    monkeypatch.setattr(passages, "_has_wider_detour", lambda *a: False)
    network = network_of("fcc, both")
    assert network.n_classes > 1  # octahedra would exchange through shared edges


@pytest.mark.parametrize("ratio", [0.97, 1.04, 1.08])
def test_martensite_has_the_jumps_of_bcc(ratio, monkeypatch):
    """A small tetragonal strain splits sites and jumps into classes, and opens no new jumps (bcc: 4 per site)."""
    strained = Atoms("Fe2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[2.86, 2.86, 2.86 * ratio], pbc=True)

    def octahedral() -> JumpNetwork:
        cell = Alloy.from_atoms(strained).supercell(3)
        return JumpNetwork.from_supercell(cell, mechanism="interstitial", sites="octahedral", species="C")

    network = octahedral()
    assert set(network.exists.sum(axis=1)[network.supercell.alloy.mobile_basis]) == {4}
    assert network.lengths == pytest.approx(sorted([1.43, 1.43 * ratio]))
    # over a long detour only: with none, sites of the first kind would exchange across half the cell
    monkeypatch.setattr(passages, "_has_wider_detour", lambda *a: False)
    assert octahedral().lengths.max() > 2.0


def test_an_octahedral_channel_says_that_it_is_one():
    cell = Alloy.from_atoms(HCP).supercell((3, 3, 2))
    with pytest.warns(KinosonWarning, match="1 of 3 directions"):
        network = JumpNetwork.from_supercell(cell, mechanism="interstitial", sites="octahedral", species="H")
    assert network.n_open_directions == 1
    network = JumpNetwork.from_supercell(cell, mechanism="interstitial", sites="octahedral", species="H", cutoff=3.0)
    assert network.n_open_directions == 3


def test_open_directions_of_layers_and_of_vacancies():
    layer = Atoms("Cu", cell=[2.5, 2.5, 8.0], pbc=True)
    network = JumpNetwork.from_supercell(Alloy.from_atoms(layer).supercell((3, 3, 2)))
    assert (network.n_open_directions, network.restrict([0]).n_open_directions) == (2, 2)
    assert JumpNetwork.from_supercell(Alloy.from_atoms(FCC).supercell(2)).n_open_directions == 3


def test_kind_and_positions_make_the_same_network():
    by_kind = network_of("bcc, octahedral")
    cell = Alloy.from_atoms(BCC).supercell(3)
    for sites in ([[0.5, 0.5, 0.0]], find_interstitial_sites(BCC, "octahedral"), [0.501, 0.5, 0.0]):
        given = JumpNetwork.from_supercell(cell, mechanism="interstitial", sites=sites, species="H")
        assert given.n_jumps == by_kind.n_jumps and given.lengths == pytest.approx(by_kind.lengths)
