"""DeviceModel: the numbers of the model it came from on every lattice, whatever its chunks and tables; all tensors
where they belong. Broken twins fail the same checks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.barriers.carrier_network import CarrierNetwork, CarrierSamples
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.device_model import DeviceModel, exact_pieces
from ase_kinoson.barriers.device_sites import DeviceSites
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.ensemble import BarrierEnsemble
from ase_kinoson.barriers.invariant import FrozenNetwork, InvariantNetwork, TrainingPlan
from ase_kinoson.barriers.kra import JumpSamples, KraModel
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.surroundings import Surroundings
from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment
from ase_kinoson.device import deterministic
from ase_kinoson.errors import ModelError
from tests.barriers.synthetic import synthetic
from tests.barriers.test_learned import LATTICES, lattice, random_model
from tests.pretended_device import pretended_device

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def two_classes():
    """fcc octahedra and tetrahedra: three basis sites that the carrier visits, two classes of sites."""
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.6, "Ni": 0.4}})
    alloy = alloy.with_interstitials("H", [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])
    return JumpNetwork.from_supercell(alloy.supercell(2))


def missing_jumps():
    """A layer of hcp: jumps that one basis site has and the other has not are left out."""
    network = lattice("hcp")
    return network.restrict([0])


NETWORKS = {name: lambda name=name: lattice(name) for name in LATTICES}
NETWORKS |= {"two classes": two_classes, "some jumps": missing_jumps}


def states_of(network, n=9, seed=0):
    return ak.sample_states(network.supercell, n, method="random", seed=seed)


def tensors(states, device="cpu"):
    occupations = torch.tensor(states.occupations, dtype=torch.int8, device=device)
    return occupations, torch.tensor(states.carriers, dtype=torch.int64, device=device)


def defects(model, states, laid_out=None):
    """Largest differences of barriers and ΔE from what the parts of a model say in NumPy, eV."""
    laid_out = laid_out or DeviceModel.of(model, device="cpu")
    barrier, delta = (x.cpu().numpy() for x in laid_out.jump_energies(*tensors(states, laid_out.device)))
    exists = model.network.exists[model.network.basis_of(states.carriers)]
    right = model.energy.jump_delta(states.occupations, states.carriers, model.network)
    kra = model.kra.kra(states.occupations, states.carriers)
    assert np.all(np.isinf(barrier[~exists])) and not delta[~exists].any()
    return np.abs((barrier - kra - 0.5 * right)[exists]).max(), np.abs(delta - right).max()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["single", "double"])
def test_the_numbers_of_the_model(name, precision):
    network = NETWORKS[name]()
    model = random_model(network, precision=precision)
    assert max(defects(model, states_of(network))) < (1e-12 if precision == "double" else 1e-5)


def test_an_exchange_that_is_forgotten_is_noticed(monkeypatch):
    network = lattice("fcc")
    monkeypatch.setattr(Surroundings, "exchanged", lambda self, basis, jump, slots: slots)
    assert defects(random_model(network), states_of(network))[1] > 1e-3


@pytest.mark.parametrize("name", ["fcc", "hcp", "two classes"])
def test_chunks_and_tables_change_nothing(name):
    network = NETWORKS[name]()
    model, states = random_model(network), states_of(network)
    for choice in ({"chunk": 2}, {"table_limit": 0}):
        assert max(defects(model, states, DeviceModel.of(model, device="cpu", **choice))) < 1e-12


def test_computed_sites_are_those_of_the_table():
    """Also in cells whose vectors are not those of the primitive cell."""
    alloy = lattice("hcp").supercell.alloy
    sizes = ([[3, 1, 0], [0, 3, 1], [1, 0, 2]], [[2, -1, 0], [1, 3, 0], [0, 0, 3]], [[3, 1, 2], [0, 3, 1], [0, 0, 3]])
    for size in sizes:
        network = JumpNetwork.from_supercell(alloy.supercell(np.array(size), of="primitive"))
        model, carriers = random_model(network), torch.arange(network.supercell.n_sites)
        read = [DeviceModel.of(model, device="cpu", table_limit=n).sites for n in (0, 10**6)]
        assert read[0]._table is None and read[1]._table is not None
        assert torch.equal(read[0].sites(carriers), read[1].sites(carriers))


def test_large_cells_keep_no_table():
    """10⁶ sites: no table of them, and nothing beyond the sites around the carrier is looked at."""
    small = random_model(lattice("fcc"), precision="single")
    model = small.on(small.supercell.alloy.supercell(63))
    laid_out = DeviceModel.of(model, device="cpu")
    assert model.supercell.n_sites > 1_000_000 and laid_out.sites._table is None
    states = states_of(model.network, 2)
    around = np.unique(laid_out.sites.sites(torch.tensor(states.carriers)).numpy())
    other = states.occupations.copy()
    other[:, np.setdiff1d(np.arange(other.shape[1]), around)] = 1
    found = laid_out.jump_energies(*tensors(states))[0]
    assert torch.equal(found, laid_out.jump_energies(torch.tensor(other), tensors(states)[1])[0])


def test_of_an_ensemble_the_mean_and_of_an_energy_half_its_change():
    network = lattice("fcc")
    states = states_of(network)
    ensemble = BarrierEnsemble(tuple(random_model(network, seed) for seed in (1, 2)), 1.0, {})
    barrier, delta = DeviceModel.of(ensemble, device="cpu").jump_energies(*tensors(states))
    right = ensemble.jump_energies(states.occupations, states.carriers)
    assert np.allclose(barrier, right.barrier, atol=1e-12) and np.allclose(delta, right.delta_e, atol=1e-12)
    again = ensemble.with_device("cpu").jump_energies(states.occupations, states.carriers)
    assert np.array_equal(again.barrier, right.barrier)
    energy = ensemble.members[0].energy
    barrier, delta = DeviceModel.of(energy, network, device="cpu").jump_energies(*tensors(states))
    assert torch.equal(barrier, 0.5 * delta)
    assert np.allclose(delta, energy.jump_delta(states.occupations, states.carriers, network), atol=1e-12)
    with pytest.raises(ModelError, match="found SpeciesRates to be laid out on a device; expected a BarrierModel"):
        DeviceModel.of(ak.SpeciesRates({"Cu": 1.0}), network)


def test_sums_of_pieces_are_exact():
    values = np.random.default_rng(0).normal(size=(600, 4))
    pieces = torch.tensor(exact_pieces(values, 100))
    rows = torch.randint(600, (50, 100), generator=torch.Generator().manual_seed(0))

    def worst(table):
        found = torch.nn.functional.embedding_bag(rows, table, mode="sum").view(50, -1, 4).double().sum(dim=1)
        return np.abs(found.numpy() - values[rows].sum(axis=1)).max()

    assert worst(pieces) < 1e-13
    assert worst(torch.tensor(values).float()) > 1e-7


def test_a_product_gives_the_sums_that_a_gather_gives():
    network = lattice("fcc")
    model = random_model(network)
    states, frozen = states_of(network), model.kra._frozen[0]
    rows = torch.tensor(model.kra.lookup.codes(states.occupations, states.carriers)).flatten(0, 1)
    assert torch.allclose(frozen._gathered(rows), frozen._multiplied(rows), rtol=0, atol=1e-12)
    assert not torch.allclose(frozen._gathered(rows), frozen._multiplied(rows.roll(1, 1)), rtol=0, atol=1e-3)


def test_a_model_on_a_device_answers_in_numpy():
    network = lattice("hcp")
    model, states = random_model(network, precision="single"), states_of(network)
    moved = model.with_device("cpu")
    assert moved.device == torch.device("cpu") and moved.with_precision("double").device == moved.device
    right = model.jump_energies(states.occupations, states.carriers)
    for found in (
        moved.jump_energies(states.occupations.astype(np.int64), states.carriers.tolist()),
        moved.jump_energies(np.asfortranarray(states.occupations), states.carriers),
    ):
        assert np.array_equal(found.barrier, right.barrier) and np.array_equal(found.delta_e, right.delta_e)
    none = moved.jump_energies(states.occupations[:0], states.carriers[:0])
    assert none.barrier.shape == none.delta_e.shape == (0, network.n_jumps)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no GPU that torch can use"):
            model.with_device("cuda")


# -- placement: tensors that only pretend to be on a device, which torch refuses to mix with others ------------------


def freeze(model):
    """Make what is made of the weights on the CPU."""
    return model.kra._frozen, model.kra._means, model.energy.carrier._frozen


@pytest.mark.parametrize("name", ["fcc", "diamond", "interstitial"])
@pytest.mark.parametrize("table_limit", [0, 10**7])
def test_all_tensors_of_a_model_are_on_its_device(monkeypatch, name, table_limit):
    network = NETWORKS[name]()
    model, states = random_model(network, precision="single"), states_of(network)
    freeze(model)
    with pretended_device(monkeypatch) as device:
        laid_out = DeviceModel.of(model, device=device, table_limit=table_limit)
        barrier, delta = laid_out.jump_energies(*tensors(states, device))
        assert barrier.device.type == delta.device.type == device.type and barrier.shape == (
            len(states),
            network.n_jumps,
        )


def test_a_table_left_behind_is_noticed(monkeypatch):
    network = lattice("fcc")
    model, states = random_model(network, precision="single"), states_of(network)
    freeze(model)
    monkeypatch.setattr(DeviceSites, "table", lambda self, slots: torch.as_tensor(np.maximum(slots, 0)))
    with pretended_device(monkeypatch) as device, pytest.raises(RuntimeError, match="device"):
        DeviceModel.of(model, device=device).jump_energies(*tensors(states, device))


def fit_somewhere(part, network, plan):
    """Train a fresh network for an epoch on a few states, without validation, whose errors would have to be read."""
    states, n_atoms = states_of(network), len(network.supercell.species) - 1
    occ, carriers = states.occupations, states.carriers
    ones = np.ones((len(occ), network.n_jumps))
    generator, tick = torch.Generator().manual_seed(0), lambda: None
    if part == "carrier":
        carrier = CarrierNetwork.build(CarrierEnvironment.build(network), hidden=4, layers=1)
        samples = carrier.samples(occ, carriers, network, np.cumsum(ones, axis=1), ones)
        unseen = CarrierSamples(samples.codes, samples.label, samples.target, 0 * ones)
        return carrier.fit(samples, unseen, plan, generator=generator, tick=tick)
    kra = KraModel.build(JumpEnvironment.build(network), n_atoms, hidden=4, layers=1)
    samples = kra.samples(occ, carriers, ones > 0, np.cumsum(ones, axis=1), ones, states.groups)[0]
    unseen = JumpSamples(samples.codes, samples.moving, samples.target, 0 * samples.weights, samples.groups)
    return kra.networks[0].fit_residual(samples, unseen, plan, generator=generator, tick=tick)


@pytest.mark.parametrize("part", ["carrier", "kra"])
def test_training_puts_its_tensors_where_the_plan_says(monkeypatch, part):
    network = lattice("fcc")
    # numbers of pretending tensors cannot be read: the few that are, are made up
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self: np.zeros(self.shape))
    monkeypatch.setattr(torch.Tensor, "std", lambda self: 1.0)
    monkeypatch.setattr(FrozenNetwork, "__call__", lambda self, codes, kind: np.zeros(len(codes)))
    right = InvariantNetwork.hide
    with pretended_device(monkeypatch) as device:
        plan = TrainingPlan(5, 1e-3, 0.1, 0.1, 32, device)
        assert fit_somewhere(part, network, plan)["best_epoch"] == 5
        monkeypatch.setattr(InvariantNetwork, "hide", lambda self, hot, *rest: right(self, hot, *rest).cpu())
        with pytest.raises(RuntimeError, match="device"):
            fit_somewhere(part, network, plan)


def test_a_deterministic_fit_is_the_same_fit():
    data = synthetic(lattice("fcc"), n=20)
    # without validation states what was trained is kept, whether it is better or not
    options = {"seed": 3, "hidden": 4, "epochs": 2, "validation_fraction": 0.0, "device": "cpu"}
    plain = BarrierModel.fit(data, **options)
    with deterministic():
        strict = BarrierModel.fit(data, **options)
    assert np.array_equal(plain.predict(data.states), strict.predict(data.states))


# -- on a GPU --------------------------------------------------------------------------------------------------------


@needs_cuda
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["single", "double"])
def test_a_gpu_gives_the_numbers_of_the_cpu(name, precision):
    network = NETWORKS[name]()
    model, states = random_model(network, precision=precision), states_of(network, 40)
    bound = 1e-11 if precision == "double" else 1e-5
    with deterministic():
        assert max(defects(model, states, DeviceModel.of(model, device="cuda"))) < bound
    found = model.with_device("cuda").jump_energies(states.occupations, states.carriers)
    right = model.jump_energies(states.occupations, states.carriers)
    assert np.allclose(found.barrier, right.barrier, rtol=0, atol=bound)
    assert np.allclose(found.delta_e, right.delta_e, rtol=0, atol=bound)


@needs_cuda
def test_a_fit_on_a_gpu_is_as_good_and_repeats_itself():
    data = synthetic(lattice("fcc"))
    on = [BarrierModel.fit(data, seed=3, hidden=8, epochs=25, device=where) for where in ("cpu", "cuda")]
    mae = [m.report["held_out"]["all"]["barrier"]["model"]["mae"] for m in on]
    assert mae[1] < 1.5 * mae[0]
    with deterministic():
        once, again = (BarrierModel.fit(data, seed=3, hidden=8, epochs=3, device="cuda") for _ in range(2))
    assert np.array_equal(once.predict(data.states), again.predict(data.states))


def test_a_model_whose_triplets_reach_no_site():
    network = lattice("fcc")
    model = random_model(network)
    short = PairClusters.build(network.supercell, cutoff=3.0, network=network, triplet_cutoff=0.5)
    pairs = PairEnergy(short, np.random.default_rng(0).normal(0, 0.1, short.n_features))
    whole = BarrierModel(network, replace(model.energy, pairs=pairs), model.kra).with_precision("double")
    assert defects(whole, states_of(network))[0] < 1e-12
    assert defects(model, states_of(network), DeviceModel.of(whole, device="cpu"))[0] > 1e-3
