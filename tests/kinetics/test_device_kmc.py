"""DeviceKineticMonteCarlo: the trajectories of KineticMonteCarlo from its random numbers, known physics from its own,
all tensors on one device; broken twins fail the same checks."""

import numpy as np
import pytest
import torch
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.device import deterministic
from ase_kinoson.errors import KinosonError, ModelError, StatesError
from ase_kinoson.kinetics import device_ladder
from ase_kinoson.kinetics.device_kmc import DeviceKineticMonteCarlo
from ase_kinoson.kinetics.device_ladder import DeviceLadder
from ase_kinoson.kinetics.device_rates import DeviceRates
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lags import WINDOW
from tests.barriers.test_device_model import two_classes
from tests.barriers.test_learned import lattice, random_model
from tests.kinetics.test_kmc import excess, space  # noqa: F401
from tests.pretended_device import pretended_device

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


def gas(network):
    rates = {s: 10.0**-k for k, s in enumerate(network.supercell.species[1:])}
    mobile = {s for sub in network.supercell.alloy.sublattices if sub.mobile for s in sub.species}
    return ak.SpeciesRates({s: rate for s, rate in rates.items() if s in mobile})


def pairs(network):
    cell = network.supercell
    energy = ak.PairEnergy.from_interactions(cell, {tuple(cell.species[1:3]): -0.05}, network=network)
    return ak.PairBarriers(energy, dict.fromkeys(gas(network).rates, 0.5))


def sites(network):
    return ak.SiteBarriers((0.0, 0.1), tuple(0.3 + 0.1 * k for k in range(network.n_classes)))


CASES = {
    "gas, fcc": ("fcc", gas),
    "gas, two sites": ("hcp", gas),
    "gas, interstitial": ("interstitial", gas),
    "pairs": ("hcp", pairs),
    "sites": (
        "two classes",
        lambda network: ak.SiteBarriers((0.0, 0.1), tuple(0.3 + 0.1 * k for k in range(network.n_classes))),
    ),
    "learned, fcc": ("fcc", random_model),
    "learned, two sites": ("hcp", random_model),
    "learned, interstitial": ("interstitial", random_model),
    "learned, two classes": ("two classes", random_model),
}


def engines(case, device="cpu", n_walkers=8, **options):
    """The same walkers in NumPy and on a device."""
    name, source = CASES[case]
    network = two_classes() if name == "two classes" else lattice(name)
    rates = ak.Rates.of(source(network), network, temperature_K=None if "gas" in case else 2000.0)
    states = ak.sample_states(network.supercell, 8, method="random", seed=1)
    given = {"n_walkers": n_walkers, "seed": 5, **options}
    on_device = DeviceKineticMonteCarlo(states, network, rates, device=device, random="numpy", **given)
    return KineticMonteCarlo(states, network, rates, **given), on_device


def compare(one, two, rel=1e-10):
    for name in ("occupations", "carriers", "groups", "_column_seen", "_kind_seen", "atoms", "_atom_seen"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None and b is None) or (np.array_equal(a, b) and a.dtype == b.dtype), name
    for name in ("times", "_expected", "displacements"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None and b is None) or np.allclose(a, b, rtol=rel, atol=1e-12), name
    assert one.n_jumps == two.n_jumps and one.ladder.n_blocks == two.ladder.n_blocks
    for level in range(len(one.ladder.n_blocks)):
        assert np.allclose(one.ladder.collective[level], two.ladder.collective[level], rtol=rel, atol=1e-8)
        assert np.allclose(one.ladder.tracer_tensors(level), two.ladder.tracer_tensors(level), rtol=rel, atol=1e-8)
    assert np.allclose(one.expected_squares(), two.expected_squares(), rtol=rel, atol=1e-12)
    assert np.allclose(one.shares(), two.shares(), rtol=rel)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_equal_random_numbers_give_equal_trajectories(case, device):
    one, two = engines(case, device)
    for n_jumps in (1, 20):
        one.run(n_jumps), two.run(n_jumps)
        compare(one, two)
    if one.follow_atoms:
        assert all(np.array_equal(a, b) for a, b in zip(one.last_jumps(), two.last_jumps(), strict=True))
    states = ak.sample_states(one.network.supercell, 8, method="random", seed=1)
    assert np.allclose(one.snapshot(states).weights, two.snapshot(states).weights)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("follow", [True, False])
def test_windows_and_burn_in_are_those_of_numpy(device, follow):
    one, two = engines("gas, two sites", device, follow_atoms=follow)
    for engine in (one, two):
        engine.burn_in(50)
        engine.run(3 * WINDOW + 7)
    assert one.ladder.n_blocks[-1] == 1 and one.burned == two.burned == 50
    compare(one, two)


def test_walkers_in_parts_give_the_same_ladder(monkeypatch):
    _, whole = engines("gas, fcc")
    whole.run(2 * WINDOW)
    monkeypatch.setattr(device_ladder, "CHUNK", 1)  # read when a window ends: one walker at a time from here on
    _, parts = engines("gas, fcc")
    parts.run(2 * WINDOW)
    assert parts.n_walkers > 1
    compare(whole, parts)


def test_a_checkpoint_goes_from_one_engine_to_the_other(tmp_path):
    one, two = engines("gas, two sites")
    one.run(2 * WINDOW + 30)
    one.save(tmp_path / "run.npz")
    two.load(tmp_path / "run.npz")
    one.run(WINDOW)
    two.run(WINDOW)
    compare(one, two)
    two.save(tmp_path / "run.npz")
    again, _ = engines("gas, two sites")
    again.load(tmp_path / "run.npz")
    one.run(WINDOW), again.run(WINDOW)
    compare(one, again)


# -- its own random numbers ------------------------------------------------------------------------------------------


def self_diffusion(device, n_walkers=600, seed=0, engine=DeviceKineticMonteCarlo):
    """Walkers of a vacancy in a pure fcc crystal."""
    cell = ak.Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 1.0}}).supercell(4)
    network = ak.JumpNetwork.from_supercell(cell)
    rates = ak.Rates.of(ak.SpeciesRates({"Cu": 1.0}), network)
    states = ak.sample_states(cell, 4, method="random", seed=0)
    return engine(states, network, rates, n_walkers=n_walkers, seed=seed, device=device)


def correlation(walkers, level=6):
    """Tracer correlation factor between lags of 2^level and twice as many jumps, and its standard error."""
    squares = [np.trace(walkers.ladder.tracer_tensors(k)[:, 0], axis1=1, axis2=2) for k in (level, level + 1)]
    mean = [s / n for s, n in zip(squares, walkers.ladder.n_blocks[level:], strict=False)]
    found = (mean[1] - mean[0]) / 2**level / (walkers.network.lengths[0] ** 2)
    return found.mean(), found.std(ddof=1) / np.sqrt(len(found))


class ForgetsNames(DeviceKineticMonteCarlo):
    """Moves species but not the names of the atoms."""

    def _step(self, uniform):
        names = self.resident["atoms"].clone()
        super()._step(uniform)
        self.resident["atoms"] = names


@pytest.mark.parametrize("device", DEVICES)
def test_the_tracer_correlation_of_fcc(device):
    """0.7815 (Montet, Phys. Rev. B 7, 650 (1973)); 256 sites and the finite lag add less than the error."""
    walkers = self_diffusion(device)
    walkers.run(2 * WINDOW)
    found, error = correlation(walkers)
    assert error < 0.01 and abs(found - 0.7815) < 3 * error
    broken = self_diffusion(device, engine=ForgetsNames)
    broken.run(2 * WINDOW)
    found, error = correlation(broken)
    assert abs(found - 0.7815) > 10 * error


class StartsFromWeights(DeviceKineticMonteCarlo):
    """Forgets that a jump chain visits states in proportion to wΓ."""

    def _draw(self, weights):
        return super()._draw(weights / self._gamma)

    def _escape_rates(self, states):
        self._gamma = super()._escape_rates(states)
        return self._gamma


@pytest.mark.parametrize("device", DEVICES)
def test_time_averages_are_equilibrium_averages_from_the_first_jump(space, device):  # noqa: F811
    states, rates = space
    found = []
    for engine in (DeviceKineticMonteCarlo, StartsFromWeights):
        walkers = engine(states, rates.network, rates, n_walkers=8000, seed=3, device=device)
        found.append(np.abs(excess(walkers, states, rates, 6)))
    assert np.all(found[0] < 3) and found[1].max() > 5


@pytest.mark.parametrize("device", DEVICES)
def test_equal_seeds_give_equal_bits_however_a_run_is_divided(device, tmp_path):
    walkers = [self_diffusion(device, n_walkers=40, seed=seed) for seed in (1, 1, 2)]
    with deterministic():
        walkers[0].run(WINDOW + 4)
    walkers[1].run(100)
    walkers[1].save(tmp_path / "run.npz")
    walkers[1] = self_diffusion(device, n_walkers=40, seed=1)
    walkers[1].load(tmp_path / "run.npz")
    walkers[1].run(WINDOW - 96)
    walkers[2].run(WINDOW + 4)
    compare(walkers[0], walkers[1], rel=0.0)
    assert not np.array_equal(walkers[0].carriers, walkers[2].carriers)
    given = self_diffusion(device, n_walkers=40, seed=1)
    given.random = "numpy"
    with pytest.raises(KinosonError, match=r"cannot read the checkpoint|has random="):
        walkers[0].load(save(given, tmp_path / "other.npz"))


def save(engine, path):
    engine.save(path)
    return path


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_a_walker_that_cannot_jump_is_named(device):
    network = lattice("fcc")
    source = ak.SpeciesRates({"Cu": 1.0, "Ni": 0.0, "Pd": 0.0})
    states = ak.sample_states(network.supercell, 8, method="random", seed=1)
    rates = ak.Rates.of(source, network)
    walkers = DeviceKineticMonteCarlo(states, network, rates, n_walkers=4, seed=0, device=device)
    occupations = walkers.occupations
    occupations[2] = np.where(occupations[2] > 0, 2, 0)  # all Ni
    walkers.occupations = occupations
    where = int(walkers.carriers[2])
    with pytest.raises(StatesError, match=rf"found a total rate of 0 s⁻¹ in walker 2 \(carrier on site {where}\)"):
        walkers.run(5)


def test_bad_input_is_one_sentence():
    network = lattice("fcc")
    states = ak.sample_states(network.supercell, 8, method="random", seed=1)
    rugged = ak.Rates.of(ak.RandomBarriers(), network, temperature_K=1000.0)
    with pytest.raises(ModelError, match="found rates of RandomBarriers to be computed on a device; expected"):
        DeviceKineticMonteCarlo(states, network, rugged, n_walkers=4, seed=0, device="cpu")
    with pytest.raises(KinosonError, match="found random='dice'; expected 'device' or 'numpy'"):
        DeviceKineticMonteCarlo(states, network, rugged, n_walkers=4, seed=0, device="cpu", random="dice")


# -- placement -------------------------------------------------------------------------------------------------------


def moved(engine, device):
    """Put an engine that was made on the CPU on a device."""
    engine.device = device
    engine.resident = {k: None if t is None else t.to(device) for k, t in engine.resident.items()}
    for name, value in vars(engine).items():
        if isinstance(value, torch.Tensor):
            setattr(engine, name, value.to(device))
    engine._on_device = DeviceRates(engine.rates, device)
    ladder = engine.ladder
    engine.ladder = DeviceLadder(
        ladder.n_walkers, ladder.n_species, ladder.n_atoms, device=device, follow_atoms=ladder.follow_atoms
    )
    return engine


@pytest.mark.parametrize("case", ["gas, two sites", "pairs", "learned, fcc", "learned, interstitial"])
def test_a_jump_leaves_nothing_on_the_processor(monkeypatch, case):
    _, engine = engines(case)
    engine.run(1)
    if "learned" in case:
        model = engine.rates.source
        assert model.kra._frozen and model.kra._means and model.energy.carrier._frozen
    engine.n_jumps = WINDOW - 2
    # how many atoms a list holds depends on numbers, which are not there
    monkeypatch.setattr(device_ladder, "_summed", lambda *lists: lists)
    with pretended_device(monkeypatch) as device:
        moved(engine, device)
        for _ in range(2):
            engine._step(torch.rand(engine.n_walkers, dtype=torch.float64, device=device))
        assert all(t is None or t.device.type == device.type for t in engine.resident.values())
        assert engine.ladder.n_blocks[-1] == 1 and engine.ladder._tracer[-1].device.type == device.type
        engine._vector_table = engine._vector_table.cpu()
        with pytest.raises(RuntimeError, match="device"):
            engine._step(torch.rand(engine.n_walkers, dtype=torch.float64, device=device))
