"""BarrierModel: detailed balance and invariance by construction, learning, files; broken twins fail the same
checks."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.kra import KraModel, KraNetwork
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.source import BarrierSource, JumpEnergies
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.crystal.environment import JumpEnvironment
from ase_kinoson.errors import BarrierError, ModelError
from ase_kinoson.kinetics.sampling import random_occupations, sample_states
from ase_kinoson.testing import loop_defect, reverse_defect, symmetry_defect

LATTICES = {
    "fcc": (bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": {"Cu": 0.4, "Ni": 0.35, "Pd": 0.25}}, 3, None),
    "fcc, wrapped": (bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": {"Cu": 0.5, "Ni": 0.5}}, 2, None),
    "bcc": (bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.6, "Cr": 0.4}}, 3, None),
    "hcp": (bulk("Mg", "hcp", a=3.2, c=5.1), {"Mg": {"Mg": 0.5, "Zn": 0.5}}, (3, 3, 2), None),
    "diamond": (bulk("Si", "diamond", a=5.4, cubic=True), {"Si": {"Si": 0.5, "Ge": 0.5}}, 2, None),
    "interstitial": (
        bulk("Fe", "bcc", a=2.87, cubic=True),
        {"Fe": {"Fe": 0.6, "Cr": 0.4}},
        3,
        [[0.5, 0.5, 0.0]],
    ),
}


def lattice(name):
    atoms, composition, size, sites = LATTICES[name]
    alloy = Alloy.from_atoms(atoms, composition)
    if sites is not None:
        alloy = alloy.with_interstitials("C", sites)
    return JumpNetwork.from_supercell(alloy.supercell(size))


def random_model(network, seed=0, hidden=8):
    """A model with arbitrary weights: what holds for it holds by construction."""
    cell = network.supercell
    bond = network.lengths.min()
    clusters = PairClusters.build(cell, cutoff=2.01 * bond, network=network, triplet_cutoff=1.2 * bond)
    energy = PairEnergy(clusters, np.random.default_rng(seed).normal(0, 0.1, clusters.n_features))
    environment = JumpEnvironment.build(network)
    generator = torch.Generator().manual_seed(seed)
    nets = [KraNetwork(c, len(cell.species) - 1, hidden=hidden).double() for c in environment.classes]
    for net in nets:
        for tensor in net.state_dict().values():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return BarrierModel(network, energy, KraModel(environment, nets))


@dataclass
class Synthetic:
    """Stand-in for computed barriers."""

    states: States
    network: JumpNetwork
    barrier: np.ndarray
    delta_e: np.ndarray
    energy_initial: np.ndarray
    energy_final: np.ndarray
    valid: np.ndarray
    moving_species: np.ndarray


def synthetic(network, n=50, seed=0, noise=0.0):
    """Pair energies, and K from the moving species and the Ni atoms next to both ends (symmetric)."""
    cell = network.supercell
    rng = np.random.default_rng(seed)
    occ, carriers = random_occupations(cell, n, rng)
    states = States.from_occupations(cell, occ, carriers=carriers)
    truth = PairEnergy.from_interactions(cell, {("Cu", "Ni"): -0.04, ("X", "Pd"): -0.05, ("Pd", "Pd"): 0.03})
    delta = truth.jump_delta(occ, carriers, network)
    moving = network.moving_species(occ, carriers)
    targets = network.targets(carriers)
    near = network.targets(np.arange(cell.n_sites))
    ni = cell.species.index("Ni")
    kra = np.zeros(delta.shape)
    for i in range(n):
        for k, t in enumerate(targets[i]):
            around = [s for s in (*near[carriers[i]], *near[t]) if s not in (carriers[i], t)]
            count = sum(occ[i, s] == ni for s in around)
            both = sum(occ[i, s] == ni for s in set(near[carriers[i]]) & set(near[t]))
            kra[i, k] = 0.6 + 0.1 * moving[i, k] + 0.02 * count + 0.04 * (both == 2)
    barrier = kra + delta / 2 + noise * rng.normal(size=delta.shape)
    energy = truth.energies(occ)
    valid = np.ones(delta.shape, dtype=bool)
    valid[0, 0] = False
    barrier[0, 0] = np.inf
    return Synthetic(states, network, barrier, delta, energy, energy[:, None] + delta, valid, moving)


@pytest.fixture(scope="module")
def data():
    return synthetic(lattice("fcc"))


@pytest.fixture(scope="module")
def trained(data):
    return BarrierModel.fit(data, seed=3, hidden=8, epochs=25)


# -- what must hold by construction ----------------------


def drawn(model):
    """A few random states."""
    return sample_states(model.supercell, 4, seed=1)


class Broken:
    """A twin that spoils one thing."""

    def __init__(self, model, what):
        self.model, self.what, self.network = model, what, model.network

    def jump_energies(self, occupations, carriers):
        found = self.model.jump_energies(occupations, carriers)
        moving = self.network.moving_species(occupations, carriers)
        x = self.network.vectors[self.network.basis_of(carriers)] @ [1.0, 0.3, 0.2]
        if self.what == "direction":
            return JumpEnergies(found.barrier + 0.1 * x * found.kra, found.delta_e)
        delta = np.where(moving == 2, 1.1, 1.0) * found.delta_e
        return JumpEnergies(found.barrier + 0.5 * (delta - found.delta_e), delta)


@pytest.mark.parametrize("name", LATTICES)
def test_symmetry_by_construction(name):
    model = random_model(lattice(name))
    assert isinstance(model, BarrierSource)
    occ, c = random_occupations(model.supercell, 20, np.random.default_rng(0))
    found = model.jump_energies(occ, c)
    exists = model.network.targets(c) >= 0
    assert np.all(np.isinf(found.barrier[~exists])) and np.all(np.isfinite(found.barrier[exists]))
    assert found.barrier[exists].std() > 0.05
    assert reverse_defect(model, drawn(model)) < 1e-10
    assert symmetry_defect(model, drawn(model)) < 1e-10
    assert reverse_defect(Broken(model, "direction"), drawn(model)) > 1e-3
    assert symmetry_defect(Broken(model, "direction"), drawn(model)) > 1e-3


def test_detailed_balance_of_trained_model(trained):
    assert loop_defect(trained) < 1e-10
    assert reverse_defect(trained, drawn(trained)) < 1e-10
    assert symmetry_defect(trained, drawn(trained)) < 1e-10
    assert loop_defect(Broken(trained, "direction")) > 1e-4
    assert loop_defect(Broken(trained, "no state function")) > 1e-4


def test_network_without_group_mean_is_not_invariant(trained):
    """Taking one orientation instead of all breaks the symmetry: the mean over the group is what makes it."""
    environment = trained.kra.environment
    kind = environment.classes[0]
    one = replace(kind, permutations=kind.permutations[:1], rotations=kind.rotations[:1])
    model = random_model(trained.network)
    nets = []
    for net in model.kra.networks:
        twin = KraNetwork(one, net.n_atoms, hidden=net.hidden).double()
        state = {k: v for k, v in net.state_dict().items() if k != "linear"}
        twin.load_state_dict(state, strict=False)
        nets.append(twin)
    broken = BarrierModel(model.network, model.energy, KraModel(environment, nets))
    assert symmetry_defect(broken, drawn(trained)) > 1e-4


# -- learning ----------------------


def test_learns_and_reports(trained, data):
    held = trained.report["held_out"]
    assert set(held) == {"all", "Cu", "Ni", "Pd"}
    for entry in held.values():
        assert entry["barrier"]["model"]["mae"] < 0.5 * entry["barrier"]["baseline"]["mae"]
    assert held["all"]["barrier"]["model"]["mae"] < 0.02
    assert held["all"]["delta_e"]["model"]["rmse"] < 0.02
    report = trained.report
    assert report["n_barriers"] == data.barrier.size - 1 and report["n_rejected"] == 1
    assert report["n_train"] + report["n_validation"] + report["n_test"] == report["n_barriers"]
    assert json.loads(json.dumps(report)) == report
    assert "held-out MAE" in repr(trained)


def test_same_seed_same_model(data):
    one, two, other = (BarrierModel.fit(data, seed=s, hidden=4, epochs=3) for s in (1, 1, 2))
    assert np.array_equal(one.predict(data.states), two.predict(data.states))
    assert not np.array_equal(one.predict(data.states), other.predict(data.states))


def test_groups_stay_together(data):
    grouped = replace(data, states=replace(data.states, groups=np.arange(50) // 2))
    model = BarrierModel.fit(grouped, hidden=0)
    assert model.report["n_groups"] == 25
    lonely = replace(data, states=replace(data.states, groups=np.zeros(50, dtype=int)))
    with pytest.raises(BarrierError, match="independent groups"):
        BarrierModel.fit(lonely)
    assert BarrierModel.fit(lonely, test_fraction=0, validation_fraction=0).report["held_out"] == {}
    with pytest.raises(BarrierError, match="no valid barrier"):
        BarrierModel.fit(replace(data, valid=np.zeros_like(data.valid)))


# -- files and other cells ----------------------


@pytest.mark.parametrize("name", ["fcc", "hcp", "interstitial"])
def test_round_trip(name, tmp_path):
    model = random_model(lattice(name))
    model.save(tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    occ, c = random_occupations(model.supercell, 5, np.random.default_rng(0))
    expected = model.jump_energies(occ, c).barrier
    for path, network in (("model", None), ("model.json", model.network), ("model.safetensors", None)):
        again = BarrierModel.load(tmp_path / path, network)
        assert again.supercell == model.supercell
        assert np.array_equal(again.jump_energies(occ, c).barrier, expected)


def test_damaged_files(tmp_path):
    model = random_model(lattice("fcc"))
    stem = tmp_path / "m"
    with pytest.raises(ModelError, match="found no file"):
        BarrierModel.load(stem)
    model.save(stem)
    weights, about = stem.with_name("m.safetensors"), stem.with_name("m.json")
    full, text = weights.read_bytes(), about.read_text()
    weights.write_bytes(full[: len(full) // 2])
    with pytest.raises(ModelError, match="truncated"):
        BarrierModel.load(stem)
    weights.write_bytes(full)
    data = json.loads(text)
    for content, match in (
        (text[: len(text) // 2], "no readable JSON"),
        ("[1, 2]", "something else"),
        (json.dumps({**data, "version": 99}), "version 99"),
        (json.dumps({k: v for k, v in data.items() if k != "alloy"}), "incomplete"),
        (json.dumps({**data, "energy_cutoff": 3.0}), "coefficients"),
    ):
        about.write_text(content)
        with pytest.raises(ModelError, match=match):
            BarrierModel.load(stem)
    about.write_text(text)
    with pytest.raises(ModelError, match="belongs to other jumps"):
        BarrierModel.load(stem, lattice("bcc"))


def test_other_supercells(trained):
    atoms, composition, _, _ = LATTICES["fcc"]
    big = Alloy.from_atoms(atoms, composition).supercell((3, 3, 4))
    occ, c = random_occupations(big, 3, np.random.default_rng(0))
    states = States.from_occupations(big, occ, carriers=c)
    assert trained.predict(states).shape == (3, 12)
    with pytest.raises(ModelError, match="on\\(supercell\\)"):
        trained.jump_energies(occ, c)
    subset = Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.9, "Pd": 0.1}}).supercell(3)
    occ, c = random_occupations(subset, 3, np.random.default_rng(0))
    found = trained.predict(States.from_occupations(subset, occ, carriers=c))
    same = trained.jump_energies(np.array([0, 1, 3])[occ], c).barrier
    assert np.allclose(found, same, atol=1e-12)
    foreign = Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Au": 0.5}}).supercell(3)
    with pytest.raises(ModelError, match="Au"):
        trained.on(foreign)
    with pytest.raises(ModelError, match="another lattice"):
        trained.on(lattice("bcc").supercell)
