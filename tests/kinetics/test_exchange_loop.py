"""The compiled loops of Metropolis exchanges make the decisions of the NumPy step, whoever shares the chains out."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_kinoson import Alloy, JumpNetwork
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.compiled import SWITCH, can_compile
from ase_kinoson.kinetics.exchange_tables import pair_tables, sum_plan
from ase_kinoson.kinetics.sampling import MonteCarlo
from ase_kinoson.units import thermal_energy

if not can_compile():
    pytest.skip("numba is not installed or switched off", allow_module_level=True)

from ase_kinoson.kinetics.exchange_loop import ExchangeLoop, _total
from ase_kinoson.kinetics.exchange_network import NetworkExchangeLoop
from tests.barriers.test_incremental import model_of

T = 900.0
BINARY = {"Cu": {"Cu": 0.5, "Ni": 0.5}}
SQUARE = Atoms("Cu", cell=[2.5, 2.5, 10], pbc=(1, 1, 0))


def pairs_of(case, seed=0):
    """Arbitrary energies of pairs, sites, and what the carrier adds."""
    if case == "square":  # a cell so small that sites are their own neighbours
        cell, cutoff, triplets = Alloy.from_atoms(SQUARE, BINARY).supercell((2, 2, 1)), 5.1, 0.0
    elif case == "fcc":
        cell, cutoff, triplets = Alloy.from_atoms(bulk("Cu", a=3.6), BINARY).supercell(6), 3.7, 2.6
    elif case == "far":  # more than 128 partners
        cell, cutoff, triplets = Alloy.from_atoms(bulk("Cu", a=3.6), BINARY).supercell(5), 7.7, 4.5
    elif case == "fixed":
        atoms = bulk("NiAl", "cesiumchloride", a=2.9)
        composition = {"Ni": {"Ni": 0.62, "Cu": 0.38}, "Al": {"Al": 0.7, "Ti": 0.3}}
        cell, cutoff, triplets = Alloy.from_atoms(atoms, composition, mobile=["Ni"]).supercell(3), 4.2, 3.0
    else:
        composition = {"Fe": {"Fe": 0.6, "Cr": 0.4}} if case == "interstitial" else {"Fe": {"Fe": 1.0}}
        alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), composition)
        cell, cutoff, triplets = alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(2), 3.0, 2.1
    network = JumpNetwork.from_supercell(cell) if triplets else None
    clusters = PairClusters.build(cell, cutoff=cutoff, network=network, triplet_cutoff=triplets)
    return PairEnergy(clusters, np.random.default_rng(seed).normal(0, 0.05, clusters.n_features))


def chains_of(energy, monkeypatch, *, compiled=True, n_chains=11, seed=3, steps=(150, 1, 60)):
    """Chains after some calls."""
    monkeypatch.setenv(SWITCH, "1" if compiled else "0")
    chain = MonteCarlo(energy.supercell, energy, T, n_chains=n_chains, seed=seed)
    for n in steps:
        chain.attempt(n)
    assert (chain._loop is not None) == compiled
    return chain


def decisions(chain):
    return chain.occupations, chain.carriers, chain._tried, chain._accepted


def same(one, two):
    return all(np.array_equal(x, y) for x, y in zip(decisions(one), decisions(two), strict=True))


@pytest.mark.parametrize("case", ["square", "fcc", "far", "fixed", "interstitial", "ordered"])
def test_exchanges_are_those_of_the_numpy_step(case, monkeypatch):
    energy = pairs_of(case)
    fast, slow = (chains_of(energy, monkeypatch, compiled=c) for c in (True, False))
    assert same(fast, slow)
    np.testing.assert_array_equal(fast.energies, slow.energies)  # to the last bit
    assert fast._accepted.sum() > 100
    np.testing.assert_allclose(fast.energies, energy.energies(fast.occupations), atol=1e-9)


def test_sums_are_those_of_numpy():
    rng = np.random.default_rng(0)
    other = 0
    for n in (*range(41), 66, 127, 128, 129, 200, 257, 300, 1000, 4100):
        values = rng.normal(size=(3, n))
        found = [_total(row, *sum_plan(n), np.empty(64)) for row in values]
        np.testing.assert_array_equal(found, values.sum(axis=1))
        other += sum(found) != sum(sum(row) for row in values)  # one after another
    assert other > 10


def test_another_energy_makes_other_exchanges(monkeypatch):
    """The broken twin: one pair energy that is wrong by little changes energies, by more, decisions."""
    energy = pairs_of("fcc")
    slow = chains_of(energy, monkeypatch, compiled=False)
    for wrong, agree in ((1e-9, True), (0.1, False)):
        tables = pair_tables(energy)
        tables.difference[:] *= 1.0 + wrong
        monkeypatch.setattr("ase_kinoson.kinetics.exchange_loop.pair_tables", lambda energy, t=tables: t)
        fast = chains_of(energy, monkeypatch)
        assert same(fast, slow) == agree
        assert not np.array_equal(fast.energies, slow.energies)
        assert (np.abs(fast.energies - energy.energies(fast.occupations)).max() > 1e-3) != agree


@pytest.mark.parametrize("case", ["fcc", "wrapped", "hcp", "sublattices", "deep"])
def test_network_makes_the_same_exchanges(case, monkeypatch):
    energy = model_of(case).energy
    fast, slow = (chains_of(energy, monkeypatch, compiled=c, steps=(60, 40)) for c in (True, False))
    assert isinstance(fast._loop, NetworkExchangeLoop) and same(fast, slow)
    assert fast._accepted.min() > 20
    np.testing.assert_allclose(fast.energies, slow.energies, atol=1e-5)  # single precision
    np.testing.assert_allclose(fast.energies, energy.energies(fast.occupations), atol=1e-5)
    pairs = energy.pairs.energies(fast.occupations)
    assert np.std(energy.energies(fast.occupations) - pairs) > 1e-3  # the network counts
    # the broken twin: what the carrier saw before is not what it sees now
    loop = fast._loop
    loop.around[:, 0] = loop.around[:, 1]
    fast.attempt(100)
    assert np.abs(fast.energies - energy.energies(fast.occupations)).max() > 1e-4


def test_other_precision_and_other_models_are_left_to_numpy(monkeypatch):
    energy = model_of("fcc", precision="double").energy
    assert chains_of(energy, monkeypatch, compiled=False, steps=(5,))._loop is None
    monkeypatch.setenv(SWITCH, "1")
    for model in (energy, type("Own", (PairEnergy,), {})(energy.clusters, energy.pairs.coefficients)):
        chain = MonteCarlo(energy.supercell, model, T, n_chains=4)
        chain.attempt(5)
        assert chain._loop is None


@pytest.mark.parametrize("network", [False, True])
def test_results_do_not_depend_on_threads_and_parts(network, monkeypatch):
    energy = model_of("fcc").energy if network else pairs_of("fcc")
    monkeypatch.setattr(ExchangeLoop, "least", 1)
    monkeypatch.setattr(NetworkExchangeLoop, "least", 1)
    about = {"n_chains": 29, "steps": (40,)}
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(chains_of(energy, monkeypatch, **about))
    finally:
        torch.set_num_threads(before)
    one, three = found
    assert same(one, three)
    np.testing.assert_array_equal(one.energies, three.energies)
    other = chains_of(energy, monkeypatch, seed=4, **about)
    assert not same(one, other)


def test_other_layouts_are_left_to_numpy(monkeypatch):
    energy = pairs_of("fcc")
    fast, slow = (chains_of(energy, monkeypatch, steps=(20,)) for _ in range(2))
    slow.occupations = np.asfortranarray(slow.occupations)
    for chain in (fast, slow):
        chain.attempt(30)
    assert slow._compiled() is None and same(fast, slow)


def test_long_chains_against_enumeration(monkeypatch):
    """Share of every energy level of a tiny cell: the distribution, not its mean alone."""
    cell = Alloy.from_atoms(SQUARE, BINARY).supercell((3, 3, 1))
    network = JumpNetwork.from_supercell(cell)
    clusters = PairClusters.build(cell, cutoff=2.6, network=network, triplet_cutoff=2.6)
    energy = PairEnergy(clusters, np.random.default_rng(1).normal(0, 0.06, clusters.n_features))
    rows = []
    for vacancy in range(9):
        rest = [s for s in range(9) if s != vacancy]
        for chosen in itertools.combinations(rest, 4):
            row = np.ones(9, dtype=np.int8)
            row[list(chosen)], row[vacancy] = 2, 0
            rows.append(row)
    levels, of = np.unique(energy.energies(np.array(rows)).round(6), return_inverse=True)
    degenerate = np.bincount(of)

    def worst(temperature):
        chain = MonteCarlo(cell, energy, temperature, n_chains=400, seed=2)
        chain.run(30)
        counts = np.zeros((400, len(levels)))
        for _ in range(60):
            chain.run(3)
            counts[np.arange(400), np.searchsorted(levels, chain.energies - 1e-5)] += 1 / 60
        assert isinstance(chain._loop, ExchangeLoop)
        weight = degenerate * np.exp(-(levels - levels[0]) / thermal_energy(T))
        mean, error = counts.mean(axis=0), counts.std(axis=0, ddof=1) / 20
        seen = mean > 0.01
        return np.abs(mean - weight / weight.sum())[seen] / error[seen]

    assert worst(T).max() < 4.5
    assert worst(1.2 * T).max() > 10  # another temperature is seen
