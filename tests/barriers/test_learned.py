"""BarrierModel: detailed balance and invariance by construction, learning, files; broken twins fail the same
checks."""

import json
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from ase.build import bulk

from ase_kinoson.barriers.carrier_network import CarrierNetwork, NetworkEnergy
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.kra import KraModel, KraNetwork
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.source import BarrierSource, EnergyModel, JumpEnergies
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment
from ase_kinoson.errors import BarrierError, ModelError
from ase_kinoson.kinetics.sampling import random_occupations, sample_states
from ase_kinoson.seals import seal
from ase_kinoson.testing import loop_defect, reverse_defect, symmetry_defect
from tests.barriers.synthetic import synthetic

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


def random_model(network, seed=0, hidden=8, precision="double"):
    """A model with arbitrary weights: what holds for it holds by construction."""
    cell = network.supercell
    bond = network.lengths.min()
    clusters = PairClusters.build(cell, cutoff=2.01 * bond, network=network, triplet_cutoff=1.2 * bond)
    pairs = PairEnergy(clusters, np.random.default_rng(seed).normal(0, 0.1, clusters.n_features))
    carrier = CarrierNetwork.build(CarrierEnvironment.build(network), hidden=hidden // 2, layers=1)
    kra = KraModel.build(JumpEnvironment.build(network), len(cell.species) - 1, hidden=hidden, layers=1)
    generator = torch.Generator().manual_seed(seed)
    for net in (*kra.networks, *carrier.networks):
        net.double()
        for tensor in net.state_dict().values():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return BarrierModel(network, NetworkEnergy(pairs, carrier), kra).with_precision(precision)


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
    rounded = model.with_precision("single").jump_energies(occ, c)
    assert 0 < np.abs(rounded.barrier - found.barrier)[exists].max() < 1e-5


@pytest.mark.parametrize("name", LATTICES)
def test_network_energy_is_a_state_function(name):
    """Energy changes of jumps and swaps are differences of the energies, whatever the weights are."""
    model = random_model(lattice(name))
    energy, cell = model.energy, model.supercell
    assert isinstance(energy, EnergyModel)
    rng = np.random.default_rng(1)
    occ, c = random_occupations(cell, 30, rng)
    before = energy.energies(occ)
    assert energy.carrier.energies(occ).std() > 1e-3
    delta, carrier_alone = energy.jump_delta(occ, c, model.network), energy.pairs.jump_delta(occ, c, model.network)
    assert np.abs(delta - carrier_alone).max() > 1e-3
    for k in range(model.network.n_jumps):
        rows = np.flatnonzero(model.network.targets(c)[:, k] >= 0)
        new, _ = model.network.apply(occ[rows], c[rows], np.full(len(rows), k))
        assert np.abs(energy.energies(new) - before[rows] - delta[rows, k]).max(initial=0.0) < 1e-10
    p = rng.choice(np.flatnonzero(cell.alloy.varying_basis[cell.basis_index]), (2, 30))
    if not cell.alloy.is_interstitial:
        p[0, :10] = c[:10]
    moved = occ.copy()
    rows = np.arange(30)
    moved[rows, p[0]], moved[rows, p[1]] = occ[rows, p[1]], occ[rows, p[0]]
    assert np.abs(energy.swap_delta(occ, p[0], p[1]) - (energy.energies(moved) - before)).max() < 1e-10


def test_detailed_balance_of_trained_model(data):
    """A network takes what pairs and triplets leave of ΔE, and all loops still close."""
    many = synthetic(data.network, n=200, many_body=0.2)
    options = {"seed": 3, "epochs": 20, "test_fraction": 0.2, "weight_decay": 0.1}
    trained, linear = (BarrierModel.fit(many, hidden=h, **options) for h in (24, 0))
    assert isinstance(trained.energy, NetworkEnergy) and isinstance(linear.energy, PairEnergy)
    error = [m.report["held_out"]["all"]["delta_e"]["model"]["mae"] for m in (trained, linear)]
    assert error[0] < 0.5 * error[1]
    exact = trained.with_precision("double")
    assert loop_defect(exact) < 1e-10
    assert reverse_defect(exact, drawn(exact)) < 1e-10
    assert symmetry_defect(exact, drawn(exact)) < 1e-10
    assert loop_defect(trained) < 1e-5  # single precision
    assert loop_defect(Broken(trained, "direction")) > 1e-4
    assert loop_defect(Broken(trained, "no state function")) > 1e-4


def test_network_without_group_mean_is_not_invariant(trained):
    """Taking one orientation instead of all breaks the symmetry: the mean over the group is what makes it."""
    model = random_model(trained.network)
    environment = model.kra.environment
    kind = environment.classes[0]
    one = replace(kind, permutations=kind.permutations[:1], rotations=kind.rotations[:1])
    nets = []
    for net in model.kra.networks:
        twin = KraNetwork(one, net.n_atoms, hidden=net.hidden).double()
        state = {k: v for k, v in net.state_dict().items() if k != "linear"}
        twin.load_state_dict(state, strict=False)
        nets.append(twin)
    broken = BarrierModel(model.network, model.energy, KraModel(environment, nets, torch.float64))
    assert symmetry_defect(broken, drawn(trained)) > 1e-4


# -- learning ----------------------


def test_learns_and_reports(trained, data):
    assert isinstance(trained.energy, PairEnergy)  # a network that gains nothing is left out
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


def test_a_network_that_learns_nothing_is_left_out(data):
    """Noise teaches nothing: the linear part stays; without validation states the last epoch is kept instead."""
    states, exists = data.states[:30], data.valid[:30]
    noise = np.random.default_rng(0).normal(1.0, 0.1, exists.shape)
    spoilt = replace(
        data,
        states=states,
        barrier=noise,
        delta_e=np.zeros(exists.shape),
        energy_initial=np.zeros(30),
        valid=exists,
    )
    options = {
        "hidden": 16,
        "epochs": 16,
        "learning_rate": 0.02,
        "test_fraction": 0.0,
        "weight_decay": 0.0,
        "dropout": 0.0,
    }
    stopped, last = (BarrierModel.fit(spoilt, validation_fraction=f, **options) for f in (0.3, 0.0))
    assert stopped.report["kra"][0]["best_epoch"] <= 2 and last.report["kra"][0]["best_epoch"] == 16
    history = stopped.report["kra"][0]["validation_mae"]
    assert len(history) == 17 and history[-1] > 1.1 * history[0]


def test_unknown_device_and_precision(trained, data):
    with pytest.raises(ModelError, match="'abacus'"):
        BarrierModel.fit(data, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no GPU"):
            BarrierModel.fit(data, device="cuda")
    with pytest.raises(ModelError, match="'half'"):
        trained.with_precision("half")


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
        again = BarrierModel.load(tmp_path / path, network).with_precision("double")
        assert again.supercell == model.supercell
        assert np.array_equal(again.jump_energies(occ, c).barrier, expected)


def test_a_model_that_was_sent_to_a_process_still_predicts():
    """Tensors pickled for another process move to shared memory: a view kept of one would point to nothing."""
    model = random_model(lattice("fcc"))
    occ, c = random_occupations(model.supercell, 5, np.random.default_rng(0))
    before, kra = model.jump_energies(occ, c), model.kra.kra(occ, c)
    for mean, net in zip(model.kra._means, model.kra.networks, strict=True):
        assert np.shares_memory(net.mean.numpy(), net.mean.detach().numpy())  # the broken twin
        assert not np.shares_memory(mean, net.mean.detach().numpy())
    ForkingPickler.dumps(model)
    assert np.array_equal(model.jump_energies(occ, c).barrier, before.barrier)
    assert np.array_equal(model.kra.kra(occ, c), kra)


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
        (json.dumps(seal({k: v for k, v in data.items() if k != "alloy"})), "incomplete"),
        (json.dumps(seal({**data, "energy_cutoff": 3.0})), "coefficients"),
        (json.dumps({**data, "energy_cutoff": 3.0}), "damaged or was changed"),
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
    assert np.allclose(found, same, atol=1e-5)
    exact = trained.with_precision("double")
    same = exact.jump_energies(np.array([0, 1, 3])[occ], c).barrier
    assert np.allclose(exact.on(subset).jump_energies(occ, c).barrier, same, atol=1e-12)
    foreign = Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Au": 0.5}}).supercell(3)
    with pytest.raises(ModelError, match="Au"):
        trained.on(foreign)
    with pytest.raises(ModelError, match="another lattice"):
        trained.on(lattice("bcc").supercell)
