"""PairEnergy: local differences are exact, in wrapped cells too; the fit recovers what made the data."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.errors import ModelError
from ase_kinoson.kinetics.sampling import random_occupations

TERNARY = {"Cu": 0.4, "Ni": 0.35, "Pd": 0.25}


def fcc(size=2, of="conventional"):
    return Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": TERNARY}).supercell(size, of=of)


def square(n=3, species=("Cu", "Ni")):
    atoms = Atoms("Cu", cell=[2.5, 2.5, 10], pbc=(1, 1, 0))
    return Alloy.from_atoms(atoms, {"Cu": {s: 1 / len(species) for s in species}}).supercell((n, n, 1))


def b2(mobile=None):
    atoms = bulk("CsCl", "cesiumchloride", a=2.9)
    atoms.symbols = ["Ni", "Al"]
    composition = {"Ni": {"Ni": 0.6, "Cu": 0.4}, "Al": {"Al": 0.7, "Ti": 0.3}}
    return Alloy.from_atoms(atoms, composition, mobile=mobile).supercell(3)


def hcp():
    return Alloy.from_atoms(bulk("Mg", "hcp", a=3.2, c=5.2), {"Mg": {"Mg": 0.5, "Zn": 0.5}}).supercell((3, 3, 2))


def interstitial():
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.6, "Cr": 0.4}})
    cell = alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(2)
    return cell, JumpNetwork.from_supercell(cell)


def some_energy(cell, cutoff, seed=0, network=None, triplet_cutoff=0.0):
    clusters = PairClusters.build(cell, cutoff=cutoff, network=network, triplet_cutoff=triplet_cutoff)
    return PairEnergy(clusters, np.random.default_rng(seed).normal(0, 0.1, clusters.n_features), 3.0)


CASES = {
    "fcc": lambda: (fcc(2), 5.2),
    "fcc, wrapped": lambda: (fcc(1), 8.0),
    "fcc, one cell": lambda: (fcc((2, 1, 1), of="primitive"), 6.0),
    "square, wrapped": lambda: (square(3), 8.0),
    "B2, both mobile": lambda: (b2(), 4.2),
    "B2, one mobile": lambda: (b2(["Ni"]), 4.2),
    "hcp": lambda: (hcp(), 5.3),
}


def direct_energy(model, row):
    """Sum over all pairs, image by image, from the definition."""
    cell = model.supercell
    table = model.clusters.table
    basis = cell.basis_index
    columns = model.clusters
    total = model.constant
    for site in range(cell.n_sites):
        b = basis[site]
        if table.site_class[b] < 0:
            continue
        total += model.coefficients[columns.site_columns[table.site_class[b], row[site]]]
        near = table.neighbors(np.array([site]))[0]
        for k, other in enumerate(near):
            if other >= 0:
                column = columns.pair_columns[table.orbit[b, k], int(table.swapped[b, k]), row[site], row[other]]
                total += 0.5 * model.coefficients[column]
    return total


@pytest.mark.parametrize("name", CASES)
def test_swap_delta_is_the_full_difference(name):
    cell, cutoff = CASES[name]()
    model = some_energy(cell, cutoff)
    assert isinstance(model, EnergyModel)
    rng = np.random.default_rng(1)
    occ, _ = random_occupations(cell, 60, rng)
    p, q = rng.integers(cell.n_sites, size=(2, 60))
    near = model.clusters.neighbors[p[:30]]
    q[:30] = near[np.arange(30), rng.integers(near.shape[1], size=30)]  # adjacent sites
    moved = occ.copy()
    rows = np.arange(60)
    moved[rows, p], moved[rows, q] = occ[rows, q], occ[rows, p]
    fixed = model.clusters.table.site_class[cell.basis_index] < 0
    keep = ~fixed[p] & ~fixed[q]
    full = model.energies(moved) - model.energies(occ)
    assert np.abs(model.swap_delta(occ, p, q) - full)[keep].max() < 1e-10
    assert np.allclose(model.energies(occ), [direct_energy(model, row) for row in occ], atol=1e-9)
    assert np.allclose(model.features(occ) @ model.coefficients + model.constant, model.energies(occ), atol=1e-10)


@pytest.mark.parametrize("name", ["fcc", "B2, both mobile", "B2, one mobile", "hcp"])
def test_jump_delta_is_the_full_difference(name):
    cell, cutoff = CASES[name]()
    if name == "fcc":
        cell = fcc(3)
    network = JumpNetwork.from_supercell(cell)
    check_jumps(some_energy(cell, cutoff), network)


@pytest.mark.parametrize("name", ["fcc", "fcc, small", "B2, both mobile", "B2, one mobile", "hcp"])
def test_triplets_around_the_carrier(name):
    cell, cutoff = (fcc(2), 4.0) if name == "fcc, small" else CASES[name]()
    cell = fcc(3) if name == "fcc" else cell
    network = JumpNetwork.from_supercell(cell)
    model = some_energy(cell, cutoff, network=network, triplet_cutoff=1.5 * network.lengths.min())
    assert model.clusters.carrier.n_features > 0
    check_jumps(model, network)
    rng = np.random.default_rng(3)
    occ, carriers = random_occupations(cell, 60, rng)
    mobile = cell.mobile_sites
    p, q = rng.choice(mobile, 60), rng.choice(mobile, 60)
    p[:20] = carriers[:20]
    p[20:40] = network.targets(carriers[20:40])[:, 0]  # sites next to the carrier
    moved = occ.copy()
    rows = np.arange(60)
    moved[rows, p], moved[rows, q] = occ[rows, q], occ[rows, p]
    full = model.energies(moved) - model.energies(occ)
    assert np.abs(model.swap_delta(occ, p, q) - full).max() < 1e-10
    assert np.allclose(model.features(occ) @ model.coefficients + model.constant, model.energies(occ), atol=1e-10)


@pytest.mark.parametrize("triplet_cutoff", [0.0, 2.2])
def test_interstitial_carrier_energy(triplet_cutoff):
    cell, network = interstitial()
    model = some_energy(cell, 3.5, network=network, triplet_cutoff=triplet_cutoff)
    check_jumps(model, network)
    rng = np.random.default_rng(3)
    occ, carriers = random_occupations(cell, 40, rng)
    hosts = np.flatnonzero(cell.sublattice == 0)
    for p, q in (
        (rng.choice(hosts, 40), rng.choice(hosts, 40)),
        (carriers, rng.choice(cell.mobile_sites, 40)),
    ):
        moved = occ.copy()
        rows = np.arange(40)
        moved[rows, p], moved[rows, q] = occ[rows, q], occ[rows, p]
        assert np.allclose(model.swap_delta(occ, p, q), model.energies(moved) - model.energies(occ), atol=1e-10)


def check_jumps(model, network):
    occ, carriers = random_occupations(network.supercell, 12, np.random.default_rng(2))
    delta = model.jump_delta(occ, carriers, network)
    features = model.clusters.jump_features(occ, carriers, network)
    exists = network.targets(carriers) >= 0
    assert delta.shape == exists.shape
    assert np.all(delta[~exists] == 0)
    for k in range(network.n_jumps):
        rows = np.flatnonzero(exists[:, k])
        new, _ = network.apply(occ[rows], carriers[rows], np.full(len(rows), k))
        full = model.energies(new) - model.energies(occ[rows])
        assert np.abs(delta[rows, k] - full).max() < 1e-10
        assert np.abs(features[rows, k] @ model.coefficients - full).max() < 1e-10


def test_interactions_by_hand():
    cell = square(3)
    model = PairEnergy.from_interactions(cell, {("Cu", "Ni"): -0.05, ("X", "Ni"): -0.1})
    row = np.array([[0, 1, 1, 2, 1, 2, 2, 1, 2]], dtype=np.int8)
    grid = row.reshape(3, 3)
    energy = 0.0
    table = {(1, 2): -0.05, (0, 2): -0.1}
    for i, j in itertools.product(range(3), range(3)):
        for other in (grid[(i + 1) % 3, j], grid[i, (j + 1) % 3]):
            energy += table.get(tuple(sorted((int(grid[i, j]), int(other)))), 0.0)
    assert model.energies(row)[0] == pytest.approx(energy, abs=1e-12)
    two = PairEnergy.from_interactions(fcc(3), {("Cu", "Ni"): (-0.05, 0.02)})
    assert [float(v[1, 2]) for v in two.pair_energies] == [-0.05, 0.02]
    with pytest.raises(ModelError, match="'Au'"):
        PairEnergy.from_interactions(cell, {("Cu", "Au"): 1.0})


def test_fit_recovers_energies():
    cell = fcc(3)
    network = JumpNetwork.from_supercell(cell)
    truth = some_energy(cell, 4.0, seed=5)
    occ, carriers = random_occupations(cell, 60, np.random.default_rng(0))
    states = States.from_occupations(cell, occ, carriers=carriers)
    delta = truth.jump_delta(occ, carriers, network)
    model = PairEnergy.fit(
        states[:40], truth.energies(occ[:40]), network=network, delta_e=delta[:40], cutoff=4.0, ridge=1e-6
    )
    assert np.abs(model.jump_delta(occ[40:], carriers[40:], network) - delta[40:]).max() < 1e-5
    gap = model.energies(occ[40:]) - truth.energies(occ[40:])
    assert np.abs(gap).max() < 1e-4
    only = PairEnergy.fit(states[:40], network=network, delta_e=delta[:40], cutoff=4.0)
    assert np.corrcoef(only.jump_delta(occ[40:], carriers[40:], network).ravel(), delta[40:].ravel())[0, 1] > 0.99
    with pytest.raises(ModelError, match="no energies"):
        PairEnergy.fit(states[:5], np.full(5, np.nan))


def full_difference(model, occ, p, q):
    moved = occ.copy()
    moved[:, [p, q]] = occ[:, [q, p]]
    return model.energies(moved) - model.energies(occ)


def test_other_supercells_and_species():
    cell = fcc(3)
    model = some_energy(cell, 4.0, network=JumpNetwork.from_supercell(cell), triplet_cutoff=3.7)
    again = PairEnergy.from_arrays(model.clusters, model.to_arrays())
    occ, _ = random_occupations(cell, 5, np.random.default_rng(0))
    assert np.array_equal(again.energies(occ), model.energies(occ))
    wide = model.on(fcc((6, 3, 3)))
    gaps = cell.minimum_image(wide.supercell.positions[:, None] - cell.positions)
    fold = np.linalg.norm(gaps, axis=-1).argmin(axis=1)
    double = occ[:, fold]
    pairs, wide_pairs = some_energy(cell, 4.0), some_energy(wide.supercell, 4.0)
    assert np.allclose(wide_pairs.energies(double) - 3.0, 2 * (pairs.energies(occ) - 3.0), atol=1e-9)
    assert np.allclose(wide.swap_delta(double[:, :], [5] * 5, [7] * 5), full_difference(wide, double, 5, 7), atol=1e-9)
    binary = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": {"Cu": 0.5, "Pd": 0.5}}).supercell(3)
    small = model.on(binary)
    codes = np.array([0, 1, 3])
    row, _ = random_occupations(binary, 4, np.random.default_rng(0))
    assert np.allclose(small.energies(row), model.energies(codes[row]), atol=1e-12)
    with pytest.raises(ModelError, match="does not know"):
        small.on(cell)
    with pytest.raises(ModelError, match="expected"):
        model.energies(occ[:, :10])
