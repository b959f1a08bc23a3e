"""Barriers that follow a trajectory are those of the model, depend on the state alone, and keep detailed balance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_kinoson import Alloy, BarrierModel, JumpNetwork, sample_states
from ase_kinoson.barriers.carrier_network import CarrierNetwork, NetworkEnergy
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.incremental import UNIT, IncrementalModel
from ase_kinoson.barriers.incremental_work import Workspace
from ase_kinoson.barriers.kra import KraModel
from ase_kinoson.compiled import can_compile
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment

if not can_compile():
    pytest.skip("numba is not installed or switched off", allow_module_level=True)

from ase_kinoson.barriers.incremental_loops import energies_of_states

COCRNI = {"Cu": {"Co": 0.4, "Cr": 0.3, "Ni": 0.3}}
BINARY = {"Fe": {"Fe": 0.6, "Cr": 0.4}}
CASES = {
    "fcc": (bulk("Cu", cubic=True), COCRNI, (4, 4, 4), {}),
    "wrapped": (bulk("Cu", cubic=True), COCRNI, (2, 2, 2), {}),
    "bcc": (bulk("Fe", cubic=True), BINARY, (4, 4, 4), {}),
    "hcp": (bulk("Mg", "hcp", a=3.2, c=5.3), {"Mg": {"Mg": 0.7, "Al": 0.3}}, (4, 4, 3), {}),
    "sublattices": (
        bulk("NiAl", "cesiumchloride", a=2.9, cubic=True),
        {"Ni": {"Ni": 0.8, "Fe": 0.2}, "Al": {"Al": 0.7, "Fe": 0.3}},
        (4, 4, 4),
        {},
    ),
    "linear": (bulk("Cu", cubic=True), COCRNI, (3, 3, 3), {"hidden": 0}),
    "deep": (bulk("Cu", cubic=True), COCRNI, (3, 3, 3), {"hidden": 24, "layers": 2}),
    "odd": (bulk("Cu", cubic=True), COCRNI, (3, 3, 3), {"hidden": 21, "layers": 3}),
    # more sites are counted in pairs than any network sees
    "corners": (bulk("Cu", cubic=True), COCRNI, (4, 4, 4), {"hidden": 0, "corner": 1.8, "cutoff": 1.01}),
    # no symmetry at all
    "oblique": (
        Atoms("CuAu", [(0, 0, 0), (1.4, 1.2, 1.6)], cell=[(2.7, 0.1, 0), (0.3, 2.9, 0.2), (0.4, 0.1, 3.1)], pbc=True),
        {"Cu": {"Cu": 0.6, "Au": 0.4}, "Au": {"Cu": 0.4, "Au": 0.6}},
        (3, 3, 3),
        {"hidden": 5},
    ),
}


def model_of(case, *, seed=0, precision="single"):
    """A model with arbitrary weights, of the size of trained ones."""
    atoms, composition, size, about = CASES[case]
    network = JumpNetwork.from_supercell(Alloy.from_atoms(atoms, composition).supercell(size))
    hidden, layers = about.get("hidden", 8), about.get("layers", 1)
    cell, bond = network.supercell, network.lengths.min()
    clusters = PairClusters.build(
        cell, cutoff=2.01 * bond, network=network, triplet_cutoff=about.get("corner", 1.2) * bond
    )
    energy = PairEnergy(clusters, np.random.default_rng(seed).normal(0, 0.05, clusters.n_features))
    kra = KraModel.build(
        JumpEnvironment.build(network, cutoff=about["cutoff"] * bond if "cutoff" in about else None),
        len(cell.species) - 1,
        hidden=hidden,
        layers=layers,
    )
    generator, nets = torch.Generator().manual_seed(seed), list(kra.networks)
    if hidden:
        carrier = CarrierNetwork.build(CarrierEnvironment.build(network), hidden=hidden // 2, layers=layers)
        nets += carrier.networks
        energy = NetworkEnergy(energy, carrier)
    for net in nets:
        net.double()
        for name, value in net.state_dict().items():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_((0.02 if name in ("readout", "linear") else 0.2) * drawn)
        if hasattr(net, "mean"):
            net.mean.fill_(0.7)
    return BarrierModel(network, energy, kra).with_precision(precision)


def along(model, n_walkers, n_jumps, *, seed=0):
    """States along random jumps of some walkers, one after another, and the jumps."""
    states = sample_states(model.supercell, n_walkers, seed=seed)
    rng, network = np.random.default_rng(seed), model.network
    occupations, carriers, jumps = [], [], []
    for occupation, carrier in zip(states.occupations.astype(np.int8), states.carriers, strict=True):
        now, at = occupation.copy(), int(carrier)
        for _ in range(n_jumps):
            targets = network.targets(np.array([at]))[0]
            k = int(rng.choice(np.flatnonzero(targets >= 0)))
            occupations.append(now.copy())
            carriers.append(at)
            jumps.append(k)
            now[at], now[targets[k]], at = now[targets[k]], now[at], int(targets[k])
    return np.array(occupations), np.array(carriers, dtype=np.int64), np.array(jumps)


def found(model, occupations, carriers, work=None):
    """2 Q and ΔE as integers."""
    taken = model if isinstance(model, IncrementalModel) else IncrementalModel.of(model)
    twice, delta = np.zeros((2, len(carriers), taken.sites.exists.shape[1]), dtype=np.int64)
    work = Workspace.of(taken) if work is None else work
    energies_of_states(taken.sites, taken.terms, taken.carrier, taken.kra, work, occupations, carriers, twice, delta)
    return twice, delta


@pytest.mark.parametrize("case", CASES)
def test_barriers_along_trajectories_are_those_of_the_model(case):
    model = model_of(case)
    occupations, carriers, _ = along(model, 6, 60 if case == "fcc" else 25)
    twice, delta = found(model, occupations, carriers)
    exact = model.with_precision("double").jump_energies(occupations, carriers)
    exists = np.isfinite(exact.barrier)
    assert np.ptp(exact.barrier[exists]) > 0.1
    assert np.abs(twice / 2 / UNIT - exact.barrier)[exists].max() < 1e-6
    assert np.abs(delta / UNIT - exact.delta_e).max() < 1e-6
    assert not twice[~exists].any()
    # broken twin: the barriers of the state before
    both = exists[1:] & exists[:-1]
    assert np.abs(twice[:-1] / 2 / UNIT - exact.barrier[1:])[both].max() > 1e-2


def test_models_moved_to_another_cell_and_fewer_species():
    model = model_of("fcc")
    alloy = Alloy.from_atoms(bulk("Cu", a=3.5, cubic=True), {"Cu": {"Cr": 0.5, "Ni": 0.5}})
    moved = model.on(alloy.supercell((3, 3, 4)))
    occupations, carriers, _ = along(moved, 3, 20)
    twice, _ = found(moved, occupations, carriers)
    exact = moved.with_precision("double").jump_energies(occupations, carriers).barrier
    assert np.abs(twice / 2 / UNIT - exact).max() < 1e-6
    assert np.abs(twice[:-1] / 2 / UNIT - exact[1:]).max() > 1e-2  # broken twin: the state before


@pytest.mark.parametrize("case", ["fcc", "wrapped", "sublattices", "hcp"])
def test_detailed_balance_is_exact(case):
    model = model_of(case)
    occupations, carriers, jumps = along(model, 4, 25, seed=1)
    twice, delta = found(model, occupations, carriers)
    rows = np.flatnonzero(np.arange(1, len(carriers) + 1) % 25)  # states that are followed by one more
    back = model.network.reverse[model.network.basis_of(carriers[rows]), jumps[rows]]
    assert np.array_equal(delta[rows + 1, back], -delta[rows, jumps[rows]])
    assert np.array_equal(twice[rows, jumps[rows]] - twice[rows + 1, back], 2 * delta[rows, jumps[rows]])
    assert np.abs(delta[rows, jumps[rows]]).max() > 0.01 * UNIT
    single = model.jump_energies(occupations, carriers).delta_e  # the broken twin: sums of floats
    assert not np.array_equal(single[rows + 1, back], -single[rows, jumps[rows]])


def test_closed_loops_sum_to_exactly_zero():
    model = model_of("fcc")
    network, state = model.network, sample_states(model.supercell, 1, seed=3)
    carrier = int(state.carriers[0])
    around = network.targets(np.array([carrier]))[0]
    occupations, carriers, steps = [], [], []
    for first in around:
        second = next(s for s in network.targets(np.array([first]))[0] if s in around)
        now, at = state.occupations[0].astype(np.int8), carrier
        for target in (first, second, carrier, first, second, carrier):  # once around exchanges the two atoms
            occupations.append(now.copy())
            carriers.append(at)
            steps.append(int(np.flatnonzero(network.targets(np.array([at]))[0] == target)[0]))
            now[at], now[target], at = now[target], now[at], int(target)
        assert np.array_equal(now, state.occupations[0])
    occupations, carriers, rows = np.array(occupations), np.array(carriers, dtype=np.int64), np.arange(len(steps))
    delta = found(model, occupations, carriers)[1][rows, steps].reshape(-1, 6)
    assert np.abs(delta).max() > 0.01 * UNIT
    assert not delta.sum(axis=1).any()
    single = model.jump_energies(occupations, carriers).delta_e[rows, steps].reshape(-1, 6)
    assert single.sum(axis=1).any()  # the broken twin: sums of floats


@pytest.mark.parametrize("case", ["fcc", "wrapped"])
def test_a_state_has_the_same_bits_however_it_was_reached(case):
    taken = IncrementalModel.of(model_of(case))
    occupations, carriers, _ = along(model_of(case), 4, 25, seed=2)
    straight = found(taken, occupations, carriers)
    order = np.random.default_rng(0).permutation(len(carriers))
    shuffled = found(taken, occupations[order], carriers[order])
    little = found(taken, occupations, carriers, Workspace.of(taken, centres=2, bonds=2, states=2))
    for one, two, three in zip(straight, shuffled, little, strict=True):
        assert np.array_equal(one[order], two)
        assert np.array_equal(one, three)


def test_there_is_room_for_every_list_of_sites():
    """Compiled loops do not look whether an index is in its array."""
    taken = IncrementalModel.of(model_of("corners"))
    corners = taken.sites.corner.shape[2]
    assert corners > max(taken.sites.bond.shape[2], taken.sites.centre.shape[2])
    assert len(Workspace.of(taken).codes) >= corners


def changed(model, change):
    """A copy with other weights of the symmetric part."""
    with torch.no_grad():
        for net in model.kra.networks:
            change(net)
    return model


@pytest.mark.parametrize("name", ["mean", "linear", "gate", "own.0.weight"])
def test_weights_that_are_no_numbers_are_left_to_the_model(name):
    def spoil(net):
        net.state_dict()[name].view(-1)[0] = float("nan")

    assert IncrementalModel.of(changed(model_of("fcc"), spoil)) is None
    assert IncrementalModel.of(changed(model_of("fcc"), lambda net: net.mean.fill_(1e3))) is not None


def test_pair_energies_beyond_an_integer_are_left_to_the_model():
    model = model_of("linear")
    huge = replace(model.energy, coefficients=1e4 * model.energy.coefficients)
    assert IncrementalModel.of(BarrierModel(model.network, huge, model.kra).with_precision("single")) is None


@pytest.mark.parametrize("level", [1e9, -1e9])
def test_a_huge_barrier_keeps_its_sign(level):
    """Numbers beyond the integers would wrap around: an infinite barrier would become a jump without one."""
    model = changed(model_of("fcc"), lambda net: net.mean.fill_(level))
    occupations, carriers, _ = along(model, 1, 3)
    twice, delta = found(model, occupations, carriers)
    assert np.array_equal(np.sign(twice), np.full(twice.shape, np.sign(level)))
    assert np.array_equal(delta, found(model_of("fcc"), occupations, carriers)[1])
    with np.errstate(invalid="ignore"):
        assert np.array(1e9 * UNIT).astype(np.int64) < 0  # the broken twin: the cast alone


def test_sums_of_floats_drift():
    """The broken twin of integer rows: what is added and taken away again in single precision is not what it was."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 16))
    whole, single = np.rint(rows * 2**20).astype(np.int32), rows.astype(np.float32)
    kept, drifting = whole[0].copy(), single[0].copy()
    for a in (whole, single):
        total = kept if a is whole else drifting
        for i in range(1, 200):
            total += a[i]
        for i in rng.permutation(np.arange(1, 200)):
            total -= a[i]
    assert np.array_equal(kept, whole[0])
    assert not np.array_equal(drifting, single[0])


def test_what_is_not_covered_is_left_to_the_model():
    assert IncrementalModel.of(model_of("fcc", precision="double")) is None
    alloy = Alloy.from_atoms(*CASES["bcc"][:2]).with_interstitials("C", [[0.5, 0.5, 0.0]])
    network = JumpNetwork.from_supercell(alloy.supercell(3))
    clusters = PairClusters.build(network.supercell, cutoff=3.0, network=network)
    energy = PairEnergy(clusters, np.zeros(clusters.n_features))
    kra = KraModel.build(JumpEnvironment.build(network), len(network.supercell.species) - 1, hidden=0, layers=1)
    assert IncrementalModel.of(BarrierModel(network, energy, kra)) is None
