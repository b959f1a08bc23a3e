"""Compiled loops of kinetic Monte Carlo make the jumps of the NumPy step, jump for jump; broken twins do not."""

import copy
import functools
import itertools
import json
import pickle

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal

import ase_kinoson as ak
from ase_kinoson.compiled import SWITCH, can_compile
from ase_kinoson.errors import KinosonError, ModelError, StatesError
from ase_kinoson.kinetics import kmc, loops
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lags import WINDOW, LagLadder
from ase_kinoson.kinosons import trajectories
from ase_kinoson.kinosons.trajectories import run_kmc
from ase_kinoson.npz import read_sealed, write_npz
from ase_kinoson.validation import hcp_interstitials, tiny_cell

compiled = pytest.mark.skipif(not can_compile(), reason="numba is not installed, or switched off")

MIX = {"Ag": 0.3, "Cu": 0.3, "Pd": 0.4}


class InNumpy(KineticMonteCarlo):
    """Jumps and sums with NumPy only."""

    def _fast_loop(self):
        return None

    def _count(self, done):
        self.n_jumps += done
        if self.n_jumps % WINDOW == 0:
            self.ladder.add(self._column_seen, self._vectors[self._kind_seen], self._atom_seen)


@functools.cache
def case(name):
    """Supercell, network and gas."""
    rates = {"Ag": 0.02, "Cu": 1.0, "Pd": 7.0}
    if name == "interstitial":  # sites with different numbers of jumps
        network = hcp_interstitials()
        return network.supercell, network, ak.SpeciesRates({"H": 2.0})
    if name == "square":
        cell, network = tiny_cell({"Ag": 3, "Cu": 3, "Pd": 2})
        return cell, network, ak.SpeciesRates(rates)
    if name == "two sublattices":  # with different numbers of jumps, and atoms that never move
        atoms = crystal(["Nb", "Sn"], [(0.25, 0, 0.5), (0, 0, 0)], spacegroup=223, cellpar=[5.3] * 3 + [90] * 3)
        cell = ak.Alloy.from_atoms(atoms, {"Nb": MIX, "Sn": MIX}).supercell(2)
        return cell, ak.JumpNetwork.from_supercell(cell, cutoff=3.0), ak.SpeciesRates({**rates, "Ag": 0.0})
    atoms = bulk("Mg", "hcp", a=3.2, c=5.2) if name == "hcp" else bulk("Cu", "fcc", a=3.6)
    cell = ak.Alloy.from_atoms(atoms, {str(atoms.symbols[0]): MIX}).supercell((3, 4, 3), of="primitive")
    return cell, ak.JumpNetwork.from_supercell(cell), ak.SpeciesRates(rates)


def walkers_of(name, *, kind=KineticMonteCarlo, n_walkers=21, follow_atoms=True, seed=5):
    cell, network, gas = case(name)
    states = ak.sample_states(cell, 30, seed=1)
    rates = ak.Rates.of(gas, network)
    return kind(states, network, rates, n_walkers=n_walkers, seed=seed, follow_atoms=follow_atoms)


def measured(walkers):
    """Everything that a checkpoint keeps, lists of moved atoms in the order of their keys."""
    found = {name: np.asarray(getattr(walkers, name)) for name in walkers._kept()} | walkers.ladder.to_arrays()
    for name in [n for n in found if n.startswith("key_")]:
        order = np.argsort(found[name])
        for other in (name, name.replace("key", "species"), name.replace("key", "displacement")):
            found[other] = found[other][order]
    return found


SUMMED = ("collective", "tracer", "waiting")


def gaps(one, two):
    """Names of what differs: trajectories and their sums to the last bit, sums of squares to rounding."""
    assert set(one) == set(two)
    near = {
        name: np.allclose(one[name], two[name], rtol=1e-12, atol=1e-9)
        if name.startswith(SUMMED)
        else np.array_equal(one[name], two[name])
        for name in one
    }
    return {name for name, same in near.items() if not same}


CASES = ["fcc", "hcp", "square", "two sublattices", "interstitial"]


@compiled
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_compiled_loop_makes_the_jumps_of_the_numpy_step(name, follow):
    """Interrupted at odd numbers, over the ends of windows."""
    _, network, _ = case(name)
    if name in ("two sublattices", "interstitial"):
        assert not network.exists.all()
    fast = walkers_of(name, follow_atoms=follow)
    plain = walkers_of(name, kind=InNumpy, follow_atoms=follow)
    assert fast._fast_loop() is not None
    for n_jumps in (1, 60, 3, 150, 300, 254):
        fast.run(n_jumps)
        plain.run(n_jumps)
        assert fast.n_jumps == plain.n_jumps
        assert not gaps(measured(fast), measured(plain))
    assert fast.n_jumps == 6 * WINDOW and fast.ladder.n_blocks == [768 >> k for k in range(9)] + [1]
    assert np.array_equal(fast.shares(), plain.shares())
    if follow:
        assert np.array_equal(np.array(fast.last_jumps()[1]), np.array(plain.last_jumps()[1]))


def broken(what):
    """A loop that leaves one thing undone after its jumps."""

    class Broken(KineticMonteCarlo):
        def _fast_loop(self):
            loop = super()._fast_loop()

            class Forgets:
                def run(self, engine, draws):
                    kept = getattr(engine, what).copy()
                    loop.run(engine, draws)
                    getattr(engine, what)[...] = kept

            return Forgets()

    return Broken


@compiled
@pytest.mark.parametrize("what", ["atoms", "displacements", "times", "_expected", "_kind_seen", "_column_seen"])
def test_a_loop_that_forgets_something_is_noticed(what):
    wrong, plain = (walkers_of("fcc", kind=kind) for kind in (broken(what), InNumpy))
    wrong.run(WINDOW)
    plain.run(WINDOW)
    assert gaps(measured(wrong), measured(plain)) >= {what}


@compiled
@pytest.mark.parametrize("follow", [True, False])
def test_compiled_and_numpy_runs_continue_each_other(tmp_path, follow):
    whole = walkers_of("hcp", kind=InNumpy, follow_atoms=follow)
    whole.run(700)
    for first, second in ((KineticMonteCarlo, InNumpy), (InNumpy, KineticMonteCarlo)):
        one, two = (walkers_of("hcp", kind=kind, follow_atoms=follow) for kind in (first, second))
        one.run(333)
        one.save(tmp_path / "run.npz")
        two.load(tmp_path / "run.npz")
        two.run(367)
        assert not gaps(measured(two), measured(whole))


@compiled
def test_threads_and_the_size_of_a_draw_do_not_matter(monkeypatch):
    one = walkers_of("fcc", n_walkers=300)
    one.run(300)
    monkeypatch.setattr(loops, "n_threads", lambda: 3)
    monkeypatch.setattr(kmc, "DRAWS", 7 * 300)
    slices = []
    monkeypatch.setattr(loops, "ThreadPoolExecutor", watched(loops.ThreadPoolExecutor, slices))
    three = walkers_of("fcc", n_walkers=300)
    three.run(300)
    assert slices
    first, second = measured(one), measured(three)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    other = walkers_of("fcc", n_walkers=300)  # broken twin: one draw is lost
    other._rng.random(300)
    other.run(300)
    assert not np.array_equal(measured(other)["times"], first["times"])


def watched(pool, slices):
    def make(n):
        slices.append(n)
        return pool(n)

    return make


@pytest.mark.parametrize(("n", "least", "threads"), [(1, 1, 4), (63, 1, 4), (64, 64, 2), (1000, 64, 3), (1000, 600, 3)])
def test_slices_hold_every_walker_once(monkeypatch, n, least, threads):
    monkeypatch.setattr(loops, "n_threads", lambda: threads)
    found = loops.over_walkers(lambda first, last: (first, last), n, least=least)
    assert found[0][0] == 0 and found[-1][1] == n and len(found) <= threads
    assert all(a[1] == b[0] and a[1] % loops.TILE == 0 for a, b in itertools.pairwise(found))
    assert all(last - first >= min(least, n) - loops.TILE for first, last in found)


@compiled
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
def test_a_copy_goes_on_as_the_original(copied):
    """Views of one memory must not become two memories."""
    one = walkers_of("fcc")
    one.run(300)
    two = copied(one)
    for walkers in (one, two):
        walkers.run(340)
    assert not gaps(measured(two), measured(one))
    ladder = two.ladder
    assert all(np.shares_memory(x, ladder._low_collective) for x in ladder.collective[:8])
    # broken twin: levels that are copies are not added to
    ladder.tracer[1] = ladder.tracer[1].copy()
    for walkers in (one, two):
        walkers.run(128)
    assert gaps(measured(two), measured(one)) == {"tracer_1"}


def test_random_numbers_of_a_gpu_are_not_continued_by_others(tmp_path, monkeypatch):
    walkers, about = walkers_of("fcc"), KineticMonteCarlo._about
    with monkeypatch.context() as patch:
        patch.setattr(KineticMonteCarlo, "_about", lambda self: {**about(self), "random": "on cuda"})
        walkers.save(tmp_path / "gpu.npz")
    walkers.save(tmp_path / "cpu.npz")
    with pytest.raises(KinosonError, match="has random='on cuda'; expected None"):
        walkers.load(tmp_path / "gpu.npz")
    walkers.load(tmp_path / "cpu.npz")
    monkeypatch.setattr(KineticMonteCarlo, "_about", lambda self: {**about(self), "random": "on cuda"})
    with pytest.raises(KinosonError, match="has random=None; expected 'on cuda'"):
        walkers.load(tmp_path / "cpu.npz")


@compiled
def test_a_dead_end_is_told_as_the_numpy_step_tells_it():
    said = []
    for kind in (KineticMonteCarlo, InNumpy):
        walkers = walkers_of("fcc", kind=kind)
        # no atom around some walker can move, sooner or later
        walkers._by_species = np.array([0.0, 0.0, 0.0, 7.0])
        walkers.occupations[5:][walkers.occupations[5:] == 3] = 2
        with pytest.raises(StatesError, match="total rate of 0 s⁻¹ in walker 5") as caught:
            walkers.run(WINDOW)
        said.append(str(caught.value))
    assert said[0] == said[1]


def windows_of_jumps(*, n_walkers, n_species, n_atoms, n_kinds, windows, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.choice([-1.5, 0.0, 1.5], size=(n_kinds, 3))
    for _ in range(windows):
        atoms = rng.integers(n_atoms, size=(WINDOW, n_walkers), dtype=np.int32)
        kinds = rng.integers(n_kinds, size=(WINDOW, n_walkers), dtype=np.int32)
        yield (atoms % n_species).astype(np.int8), kinds, vectors, atoms


@compiled
@pytest.mark.parametrize(
    ("n_species", "n_atoms", "n_kinds"), [(1, 1, 2), (2, 5, 6), (3, 3000, 12), (7, 40, 90), (4, 2**31 - 1, 12)]
)
def test_the_compiled_ladder_is_the_ladder(n_species, n_atoms, n_kinds):
    """Few atoms that jump all the time, and more than a window meets."""
    n_walkers, windows = 19, 5
    shape = {"n_walkers": n_walkers, "n_species": n_species, "n_atoms": n_atoms}
    one, two = (LagLadder(**shape) for _ in range(2))
    for species, kinds, vectors, atoms in windows_of_jumps(**shape, n_kinds=n_kinds, windows=windows):
        one.add(species, vectors[kinds], atoms)
        two.add_kinds(species, kinds, vectors, atoms)
    first, second = (ladder.to_arrays() for ladder in (one, two))
    for name in [n for n in second if n.startswith("key_")]:
        order = np.argsort(second[name])
        for other in (name, name.replace("key", "species"), name.replace("key", "displacement")):
            second[other] = second[other][order]
    assert not gaps(first, second)
    # broken twin: a window in another order has the same species, but other lags
    other = LagLadder(**shape)
    for species, kinds, vectors, atoms in windows_of_jumps(**shape, n_kinds=n_kinds, windows=windows):
        turned = np.roll(np.arange(WINDOW), 1)
        other.add_kinds(species[turned], kinds[turned], vectors, atoms[turned])
    near = [np.allclose(x, y) for x, y in zip(other.collective, one.collective, strict=True)]
    assert near[0] and not near[1]


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")  # runs this short
def test_without_numba_the_same_numbers(monkeypatch):
    """The switch leaves everything to NumPy."""
    cell, network, gas = case("fcc")
    states = ak.sample_states(cell, 60, seed=1)
    given = {"n_jumps": 256, "n_walkers": 60, "seed": 3, "n_resamples": 20}
    one = run_kmc(states, network, gas, **given)
    monkeypatch.setenv(SWITCH, "0")
    assert loops.loop_for(ak.Rates.of(gas, network), network) is None
    two = run_kmc(states, network, gas, **given)
    for name in ("vacancy_diffusivity", "lambda_matrix", "time_per_jump"):
        mine, other = getattr(one, name), getattr(two, name)
        assert np.allclose(mine.value, other.value, rtol=1e-10, atol=0.0)
        assert np.allclose(mine.error, other.error, rtol=1e-8, atol=0.0)
    assert one.lag == two.lag
    other = run_kmc(states, network, ak.SpeciesRates({**gas.rates, "Ag": 0.021}), **given)  # broken twin
    assert not np.allclose(one.lambda_matrix.value, other.lambda_matrix.value, rtol=1e-10, atol=0.0)


@compiled
def test_a_bare_loop_walks(monkeypatch):
    from ase_kinoson.kinetics.gas_loop import bare_loop

    walkers = walkers_of("fcc", n_walkers=1)
    codes, targets = walkers.occupations[0].copy(), walkers._targets
    draws = np.random.default_rng(0).random(500)
    start = codes.copy(), int(walkers.carriers[0]), targets
    carrier, time = bare_loop(codes, start[1], targets, walkers._by_species, draws)
    monkeypatch.setattr(walkers, "_rng", type("Drawn", (), {"random": lambda self, shape: next(self.left)})())
    walkers._rng.left = iter([draws[k : k + 1, None] for k in range(500)])
    for _ in range(500):
        walkers.run(1)
    assert carrier == walkers.carriers[0] and time == walkers.times[0]
    assert np.array_equal(codes, walkers.occupations[0])
    # broken twin: rates of other species
    assert bare_loop(*start, np.roll(walkers._by_species[1:], 1)[[0, 0, 1, 2]], draws)[1] != time


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")  # runs this short
def test_the_device_of_a_run(monkeypatch):
    cell, network, gas = case("fcc")
    states = ak.sample_states(cell, 20, seed=1)
    given = {"n_jumps": 128, "n_walkers": 20, "n_resamples": 5}
    auto, cpu = (json.dumps(run_kmc(states, network, gas, device=d, **given).as_dict()) for d in ("auto", "cpu"))
    assert auto == cpu
    with pytest.raises(ModelError, match="expected 'auto', 'cpu' or 'cuda'"):
        run_kmc(states, network, gas, device="gpu", **given)
    # few walkers stay on the processor
    monkeypatch.setattr(trajectories, "device_of", lambda name: type("Place", (), {"type": "cuda"})())
    assert json.dumps(run_kmc(states, network, gas, **given).as_dict()) == cpu


@pytest.mark.parametrize("kind", [KineticMonteCarlo, InNumpy])
def test_walkers_stopped_in_the_middle_of_a_jump_go_no_further(tmp_path, kind, monkeypatch):
    whole = walkers_of("fcc", kind=kind)
    whole.run(300)
    walkers = walkers_of("fcc", kind=kind)

    def stop():
        raise KeyboardInterrupt

    # between two jumps everything agrees
    with pytest.raises(KeyboardInterrupt):
        walkers.run(100, tick=stop)
    done = walkers.n_jumps
    assert done < 128
    walkers.save(tmp_path / "run.npz")
    with monkeypatch.context() as patch:
        patch.setattr(walkers, "_count", lambda done: stop())
        with pytest.raises(KeyboardInterrupt):
            walkers.run(1)
    assert walkers.n_jumps == done and walkers.times.sum() > 0  # the time of a jump that was not counted
    for go_on in (lambda: walkers.run(1), lambda: walkers.burn_in(1), lambda: walkers.save(tmp_path / "other.npz")):
        with pytest.raises(KinosonError, match="stopped in the middle of a jump"):
            go_on()
    walkers.load(tmp_path / "run.npz")
    walkers.run(300 - done)
    assert not gaps(measured(walkers), measured(whole))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("atoms", 10**6, "has atoms from 0 to 1000000; expected 0 to"),
        ("carriers", -1, "has carriers from -1 to"),
        ("occupations", 100, "has occupations from 0 to 100"),
        ("_kind_seen", 12, "has _kind_seen from 0 to 12; expected 0 to 11"),
        ("ladder_key_7", 10**9, "has ladder_key_7 from"),
        ("times", None, r"has an array of shape \(21,\) and type float32 under times; expected shape \(21,\) and type"),
        ("displacements", None, "has an array of shape .* and type float32 under displacements"),
        ("_column_seen", "gone", "has no array under _column_seen"),
    ],
)
def test_a_checkpoint_with_indices_beyond_its_arrays_is_refused(tmp_path, name, value, said):
    """Compiled loops would write to memory that is not theirs."""
    walkers = walkers_of("fcc")
    walkers.run(150)
    walkers.save(tmp_path / "run.npz")
    about, arrays = read_sealed(tmp_path / "run.npz")
    if value == "gone":
        del arrays[name]
    elif value is None:
        arrays[name] = arrays[name].astype(np.float32)
    else:
        arrays[name].reshape(-1)[0] = value
    write_npz(tmp_path / "bad.npz", about, arrays)  # with a digest that fits
    before = measured(walkers)
    with pytest.raises(KinosonError, match=said):
        walkers.load(tmp_path / "bad.npz")
    assert not gaps(measured(walkers), before)
    walkers.load(tmp_path / "run.npz")  # the file as it was
