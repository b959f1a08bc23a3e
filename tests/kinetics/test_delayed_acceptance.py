"""Delayed acceptance against exact enumeration, with a model that is wrong on purpose; interruption; bad luck."""

import itertools
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.stats import chi2

import ase_kinoson as ak
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.crystal import Alloy, States
from ase_kinoson.errors import BarrierError, KinosonWarning, StatesError
from ase_kinoson.kinetics import delayed_acceptance
from ase_kinoson.kinetics.delayed_acceptance import sample_with_calculator
from ase_kinoson.kinetics.relaxed_energies import RelaxedEnergies
from ase_kinoson.units import thermal_energy

T = 500.0
KT = thermal_energy(T)
TRUTH = {("Cu", "Ni"): -0.04, ("X", "Ni"): -0.06, ("Cu", "Cu"): 0.03}
WRONG = {("Cu", "Ni"): -0.01, ("X", "Ni"): 0.05, ("Cu", "Cu"): 0.02}


@pytest.fixture(scope="module")
def square():
    atoms = Atoms("Cu", cell=[2.5, 2.5, 10], pbc=(1, 1, 0))
    return Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell((3, 3, 1))


@pytest.fixture(scope="module")
def everything(square):
    """All 630 states of 4 Cu, 4 Ni and the vacancy."""
    rows = []
    for vacancy in range(9):
        rest = [s for s in range(9) if s != vacancy]
        for chosen in itertools.combinations(rest, 4):
            row = np.ones(9, dtype=np.int8)
            row[list(chosen)] = 2
            row[vacancy] = 0
            rows.append(row)
    return States.from_occupations(square, rows)


@pytest.fixture(scope="module")
def copper():
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    return alloy.supercell(2)


def chi_square(states, everything, truth):
    """p-value of the counts of energy levels against their exact probabilities; one state per chain."""
    levels = np.round(truth.energies(everything.occupations), 9)
    names, level = np.unique(levels, return_inverse=True)
    weights = np.exp(-(levels - levels.min()) / KT)
    expected = np.bincount(level, weights / weights.sum()) * len(states)
    counts = np.bincount(np.searchsorted(names, np.round(truth.energies(states.occupations), 9) - 1e-10))
    counts = np.pad(counts, (0, len(names) - len(counts)))
    rare = expected < 5
    expected = np.append(expected[~rare], expected[rare].sum())
    counts = np.append(counts[~rare], counts[rare].sum())
    keep = expected > 0
    statistic = ((counts - expected)[keep] ** 2 / expected[keep]).sum()
    return chi2.sf(statistic, keep.sum() - 1)


def draw(square, reference, **about):
    options = {"n_chains": 1500, "sweeps": 5, "block_sweeps": 0.5, "burn_in": 25, "spacing": 1, "seed": 3, **about}
    model = PairEnergy.from_interactions(square, WRONG)
    return sample_with_calculator(square, 1500, reference, model=model, temperature_K=T, **options)


def test_exact_with_a_wrong_model(square, everything):
    truth = PairEnergy.from_interactions(square, TRUTH)
    states = draw(square, truth)
    assert chi_square(states, everything, truth) > 1e-3
    assert np.allclose(states.model_energies, truth.energies(states.occupations), atol=1e-12)
    assert np.all(states.weights == states.weights[0]) and states.ensemble == "equilibrium"
    assert 0.2 < states.report["acceptance"] < 0.95
    assert states.report["force_calls"] == 0 and 300 < states.report["relaxed_states"] <= 630
    drift = ak.energy_drift(states, *_jumps(states, truth))
    assert drift.consistent


def test_without_the_correction_it_is_the_wrong_ensemble(square, everything, monkeypatch):
    """Broken twins: every block accepted; and the energy difference accepted without the model's part."""
    truth = PairEnergy.from_interactions(square, TRUTH)
    model = PairEnergy.from_interactions(square, WRONG)
    with monkeypatch.context() as patch:
        patch.setattr(RelaxedEnergies, "__call__", lambda self, states: model.energies(states.occupations))
        states = draw(square, truth)
    assert states.report["acceptance"] == 1.0
    assert chi_square(states, everything, truth) < 1e-12
    assert not ak.energy_drift(states, *_jumps(states, truth)).consistent

    class Forgetful(delayed_acceptance._Blocks):
        def _present(self):
            occupations, carriers, energies = super()._present()
            return occupations, carriers, np.zeros_like(energies)

    monkeypatch.setattr(delayed_acceptance, "_Blocks", Forgetful)
    assert chi_square(draw(square, truth), everything, truth) < 1e-6


def _jumps(states, energy):
    network = ak.JumpNetwork.from_supercell(states.supercell)
    delta = energy.jump_delta(states.occupations, states.carriers, network)
    moving = network.moving_species(states.occupations, states.carriers)
    return np.exp(-(np.where(moving == 1, 0.5, 0.4) + delta / 2) / KT), delta, moving


def test_quenched(square):
    """The carrier alone: within each arrangement the reference energies rule."""
    truth = PairEnergy.from_interactions(square, TRUTH)
    states = draw(square, truth, ensemble="quenched", n_chains=30, spacing=2, burn_in=10)
    model = PairEnergy.from_interactions(square, WRONG)
    gaps, blind = [], []
    for group in range(30):
        own = states[states.groups == group]
        row, c = own.occupations[0], own.carriers[0]
        family = np.tile(row, (9, 1))
        # the family of an arrangement: its home is where the carrier came from; find it from two members
        others = {int(x) for x in own.carriers}
        homes = [
            h
            for h in range(9)
            if all(_returned(own.occupations[i], own.carriers[i], h, row, c) for i in range(len(own)))
        ]
        family = np.tile(_swapped(row, c, homes[0]), (9, 1))
        family = np.array([_swapped(f, homes[0], s) for s, f in enumerate(family)])
        energies = truth.energies(family)
        weights = np.exp(-(energies - energies.min()) / KT)
        gaps.append(own.model_energies.mean() - weights @ energies / weights.sum())
        of_model = model.energies(family)
        wrong = np.exp(-(of_model - of_model.min()) / KT)
        blind.append(wrong @ energies / wrong.sum() - weights @ energies / weights.sum())
        assert len(others) > 1
    assert states.report["independent_states"] == 30
    error = np.std(gaps, ddof=1) / np.sqrt(len(gaps))
    assert abs(np.mean(gaps)) < 4 * error
    assert np.mean(blind) > 8 * error


def test_frozen_arrangements_are_no_memory():
    """Chains that fluctuate fast around energies of their own: short memory, but one independent state each."""
    rng = np.random.default_rng(1)
    trace = rng.normal(0.0, 1.0, 40) + 0.2 * rng.normal(0.0, 1.0, (50, 40))
    frozen = delayed_acceptance._statistics(trace, [], 400, "quenched")
    assert frozen["autocorrelation_blocks"] < 1.0 and frozen["independent_states"] == 40
    assert delayed_acceptance._statistics(trace, [], 25, "quenched")["independent_states"] == 25
    # broken twin: the arrangements taken for slow fluctuations, and every block for a state of its own
    assert delayed_acceptance._statistics(trace, [], 400, "equilibrium")["autocorrelation_blocks"] > 5.0
    fast = trace - trace.mean(axis=0)
    assert delayed_acceptance._statistics(fast, [], 400, "equilibrium")["independent_states"] == 400
    # chains whose memory is known: τ = 1/2 + ρ + ρ² + …, and 2τ blocks make one state
    slow = np.zeros((1000, 40))
    for step in range(1, len(slow)):
        slow[step] = 0.8 * slow[step - 1] + 0.6 * rng.normal(size=40)
    found = delayed_acceptance._statistics(slow, [], 40_000, "equilibrium")
    assert found["autocorrelation_blocks"] == pytest.approx(4.5, rel=0.1)
    assert found["independent_states"] == pytest.approx(40_000 / 9, rel=0.1)


def _swapped(row, i, j):
    new = row.copy()
    new[[i, j]] = row[[j, i]]
    return new


def _returned(row, carrier, home, other, other_carrier):
    return np.array_equal(_swapped(row, carrier, home), _swapped(other, other_carrier, home))


class Counting(EMT):
    """EMT that counts, and kills its process at a given call."""

    calls = 0
    stop = None

    def calculate(self, *args, **kwargs):
        Counting.calls += 1
        if Counting.stop is not None and Counting.calls > Counting.stop:
            os.kill(os.getpid(), signal.SIGKILL)
        super().calculate(*args, **kwargs)


def chains(copper, reference, **about):
    model = PairEnergy.from_interactions(copper, {("Cu", "Ni"): -0.01, ("X", "Ni"): 0.02})
    options = {"n_chains": 3, "sweeps": 3, "block_sweeps": 0.2, "burn_in": 1, "spacing": 1, "seed": 5, **about}
    return sample_with_calculator(copper, 6, reference, model=model, temperature_K=900.0, **options)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_killed_and_resumed(copper, tmp_path):
    Counting.calls, Counting.stop = 0, None
    whole = chains(copper, Counting, store=tmp_path / "whole.db")
    total = Counting.calls
    assert whole.report["force_calls"] == total
    Counting.calls, Counting.stop = 0, total // 2
    child = multiprocessing.get_context("fork").Process(
        target=chains, args=(copper, Counting), kwargs={"store": tmp_path / "part.db"}
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    Counting.stop = None
    Counting.calls = 0
    resumed = chains(copper, Counting, store=tmp_path / "part.db")
    assert 0 < Counting.calls < 0.7 * total  # what was in flight is done again, nothing else
    assert np.array_equal(resumed.occupations, whole.occupations)
    assert np.array_equal(resumed.model_energies, whole.model_energies)
    assert str(resumed.report) == str(whole.report)
    Counting.calls = 0
    assert np.array_equal(chains(copper, Counting, store=tmp_path / "part.db").model_energies, whole.model_energies)
    assert Counting.calls == 0
    # barriers of these states find them relaxed
    network = ak.JumpNetwork.from_supercell(copper)
    kept = whole[[0]]
    barriers = ak.compute_barriers(kept, network, Counting, store=tmp_path / "whole.db", jumps={0: [0]})
    assert barriers.energy_initial[0] == kept.model_energies[0]
    assert Counting.calls <= barriers.force_calls.sum() + 1  # one call probes the calculator


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_executors_give_the_same_chains(copper, make):
    alone = chains(copper, EMT)
    with make(2) as executor:
        shared = chains(copper, EMT, executor=executor)
    assert np.array_equal(alone.occupations, shared.occupations)
    assert np.array_equal(alone.model_energies, shared.model_energies)


class Fragile(EMT):
    """EMT that fails on states whose vacancy has a Ni atom on the first site."""

    def calculate(self, atoms=None, *args, **kwargs):
        if atoms.numbers[0] == 28:
            raise RuntimeError("no energy here")
        super().calculate(atoms, *args, **kwargs)


def test_states_without_energy_are_never_accepted(copper, tmp_path):
    with pytest.warns(KinosonWarning, match="could not be relaxed"):
        states = chains(copper, Fragile, n_chains=3, burn_in=5, block_sweeps=1.0)
    assert states.report["rejected_failed"] > 0 and states.report["rejected_unstable"] == 0
    assert all(a.numbers[0] != 28 for a in states.to_atoms())
    with pytest.raises(StatesError, match=r"3 of 3 states have no relaxed energy .*never"):
        chains(copper, Broken)


class Broken(EMT):
    def calculate(self, *args, **kwargs):
        raise RuntimeError("never")


def test_refusals(square):
    truth = PairEnergy.from_interactions(square, TRUTH)
    for wrong, text in (
        ({"n_chains": 0}, "n_chains=0"),
        ({"spacing": 0}, "spacing=0"),
        ({"block_sweeps": 0.0}, "block_sweeps=0"),
        ({"ensemble": "warm"}, "ensemble='warm'"),
    ):
        with pytest.raises(StatesError, match=text):
            draw(square, truth, **wrong)
    with pytest.raises(BarrierError, match="calculator class"):
        draw(square, 3.0)


def test_a_factory_that_cannot_travel(copper):
    with ProcessPoolExecutor(1) as executor, pytest.raises(BarrierError, match="cannot be sent to the executor"):
        chains(copper, lambda: EMT(), executor=executor)
