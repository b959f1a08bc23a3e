"""The compiled loop of a learned model makes the jumps of the NumPy step, whatever is kept or shared out."""

import copy
import pickle

import numpy as np
import pytest
import torch

from ase_kinoson import sample_states
from ase_kinoson.barriers.incremental_work import Workspace
from ase_kinoson.compiled import SWITCH, can_compile
from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.loops import loop_for
from ase_kinoson.kinetics.rates import Rates

if not can_compile():
    pytest.skip("numba is not installed or switched off", allow_module_level=True)

from ase_kinoson.kinetics.learned_loop import LearnedLoop
from tests.barriers.test_incremental import model_of

MEASURED = ("occupations", "carriers", "times", "_expected", "atoms", "displacements", "_kind_seen", "_atom_seen")


def engine_of(case, n_walkers=8, *, follow=True, precision="single", loop=True):
    model = model_of(case, precision=precision)
    states = sample_states(model.supercell, 4, seed=5)
    rates = Rates.of(model, model.network, temperature_K=1200)
    engine = KineticMonteCarlo(states, model.network, rates, n_walkers=n_walkers, seed=1, follow_atoms=follow)
    if not loop:
        engine._loop = None
    return engine


def same(one, two):
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in MEASURED)


@pytest.mark.parametrize("case", ["fcc", "wrapped", "hcp", "sublattices", "deep"])
def test_jumps_are_those_of_the_numpy_step(case):
    fast, slow = engine_of(case), engine_of(case, loop=False)
    assert isinstance(fast._loop, LearnedLoop)
    for engine in (fast, slow):
        engine.run(20)
    for name in MEASURED:
        one, two = getattr(fast, name), getattr(slow, name)
        if name in ("times", "_expected"):
            assert np.allclose(one, two, rtol=1e-5, atol=1e-5 * np.abs(two).max())
        else:
            assert np.array_equal(one, two)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
def test_a_copy_goes_on_as_the_original(copied):
    one = engine_of("fcc")
    one.run(30)
    two = copied(one)
    for engine in (one, two):
        engine.run(30)
    assert same(one, two)
    # broken twin: room to work whose two views of one memory are two memories finds states that are others
    two._loop._free = [copy.deepcopy(one._loop._free[0])]
    for engine in (one, two):
        engine.run(30)
    assert not same(one, two)


def test_another_temperature_makes_other_jumps():
    """The broken twin: the comparison above sees rates that differ."""
    fast, slow = engine_of("fcc"), engine_of("fcc", loop=False)
    fast._loop.temperature_K = 1400.0
    for engine in (fast, slow):
        engine.run(20)
    assert not np.array_equal(fast.occupations, slow.occupations)


def test_results_do_not_depend_on_threads_or_on_what_is_kept():
    before, engines = torch.get_num_threads(), []
    try:
        for threads, pieces, kept in ((1, (20,), None), (2, (20,), None), (1, (3, 8, 9), None), (1, (20,), 4)):
            torch.set_num_threads(threads)
            engine = engine_of("fcc", 130)
            if kept:
                engine._loop._free.append(Workspace.of(engine._loop.model, centres=kept, bonds=kept, states=kept))
            for n in pieces:
                engine.run(n)
            engines.append(engine)
    finally:
        torch.set_num_threads(before)
    assert all(same(engines[0], other) for other in engines[1:])
    other = engine_of("fcc", 130)
    other._rng = np.random.default_rng(9)
    other.run(20)
    assert not same(engines[0], other)


def test_states_are_found_again():
    engine = engine_of("fcc", 4)
    engine.run(64)
    evaluated, recalled = engine._loop._free[0].counts[:2]
    assert evaluated + recalled == 4 * 64
    assert recalled > 0


def test_without_single_atoms():
    plain, followed = engine_of("fcc", follow=False), engine_of("fcc")
    for engine in (plain, followed):
        engine.run(20)
    assert np.array_equal(plain.occupations, followed.occupations)


def test_a_dead_end_is_refused():
    engine = engine_of("fcc")
    engine._loop.attempt_frequency = 0.0
    with pytest.raises(StatesError, match="total rate of 0 s⁻¹ in walker 0"):
        engine.run(3)


def test_where_there_is_no_such_loop(monkeypatch):
    assert engine_of("fcc", precision="double")._loop is None
    engine = engine_of("fcc")
    monkeypatch.setenv(SWITCH, "0")
    assert loop_for(engine.rates, engine.network) is None
