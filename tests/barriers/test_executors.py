"""Executors: the same bits from all of them, and what becomes of a campaign whose workers die."""

import multiprocessing
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
from ase.calculators.emt import EMT

from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.workers import _size
from ase_kinoson.errors import BarrierError
from tests.barriers.bad_luck import Trapped, same, small_study, trap

ASKED = {0: [0, 3, 7], 1: [1]}


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.fixture(scope="module")
def plain(study):
    return compute_barriers(*study, EMT, jumps=ASKED)


def pool():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


class Minimal:
    """The least an executor can be; it finishes a task when two more have come, so out of order."""

    def __init__(self):
        self.held = []

    def submit(self, function, *arguments):
        future = Future()
        self.held.append((future, function, arguments))
        if len(self.held) == 1 or function.__name__ != "run_task":
            self.finish()
        return future

    def finish(self):
        while self.held:
            future, function, arguments = self.held.pop()
            future.set_result(function(*arguments))


def test_dask_gives_the_same_bits(study, plain, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        found = compute_barriers(*study, EMT, executor=executor, jumps=ASKED, store=tmp_path / "s.db")
        same(found, plain)
        assert executor.submit(int, 3).result() == 3  # the executor is the caller's


def test_any_object_that_submits_is_an_executor(study, plain):
    same(compute_barriers(*study, EMT, executor=Minimal(), jumps=ASKED), plain)
    with pytest.raises(BarrierError, match="found 4 as executor; expected"):
        compute_barriers(*study, EMT, executor=4)
    with pytest.raises(BarrierError, match="executor factory returned 0"):
        compute_barriers(*study, EMT, executor=int)


def test_number_of_workers_is_asked_for():
    assert _size(SimpleNamespace(_max_workers=3)) == 3
    assert _size(SimpleNamespace(num_workers=5)) == 5
    assert _size(SimpleNamespace(_max_workers=None, max_workers=7)) == 7
    assert _size(SimpleNamespace(_client=SimpleNamespace(nthreads=lambda: {"a": 4, "b": 2}))) == 6
    assert _size(SimpleNamespace(_client=SimpleNamespace(nthreads=lambda: {}))) > 6  # none yet: let the cluster grow


def test_search_that_kills_its_worker_is_recorded_and_the_rest_goes_on(study, plain, tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    factory = partial(Trapped, *trap(*study, 3), "die", str(flag))
    found = compute_barriers(*study, factory, executor=pool, jumps=ASKED, store=tmp_path / "s.db")
    assert found.n_rejected == {"calculator-failed": 1} and found.settings["rejected"] == {
        "calculator-failed": [[0, 3]]
    }
    assert "it kills its worker" in found.reasons[(0, 3)]
    assert (found.barrier[found.valid] == plain.barrier[found.valid]).all() and found.n_barriers == 3
    assert found.settings["cost"]["executor_deaths"] == 2  # once in company, once alone
    with pool() as executor:
        hangs = partial(Trapped, *trap(*study, 3), "hang", str(flag))
        slow = compute_barriers(*study, hangs, executor=executor, jumps={0: [3]}, time_limit_s=1.0)
        assert slow.status[0, 3] == "timed-out"
        # a given executor is not ours to make anew: one sentence, and what is done is done
        with pytest.raises(BarrierError, match=r"executor died.*3 of 4 barriers are done, kept in .*s\.db"):
            compute_barriers(
                *study, factory, executor=executor, jumps=ASKED, store=tmp_path / "s.db", retry=["calculator-failed"]
            )
    flag.unlink()
    again = compute_barriers(*study, factory, jumps=ASKED, store=tmp_path / "s.db", retry=["calculator-failed"])
    same(again, plain)
    assert again.settings["cost"]["computed_now"] == 1


class Choosy:
    """An executor that refuses tasks; the first of them dies, the second refuses once, or all refuse always."""

    _max_workers = 2

    def __init__(self, made, always):
        made.append(self)
        self.number, self.always, self.tasks = len(made), always, 0

    def submit(self, function, *arguments):
        self.tasks += function.__name__ == "run_task"
        future = Future()
        if self.number == 1 and self.tasks > 3:
            future.set_exception(BrokenExecutor("the node is gone"))
        elif (self.number == 2 and self.tasks == 2) or (self.number > 1 and self.always):
            raise BrokenExecutor("an idle worker was killed")
        else:
            future.set_result(function(*arguments))
        return future

    def shutdown(self, **_):
        pass


def test_task_that_an_executor_refuses_is_tried_again(study, plain):
    made = []
    found = compute_barriers(*study, EMT, executor=partial(Choosy, made, False), jumps=ASKED)
    same(found, plain)
    assert found.settings["cost"]["executor_deaths"] == len(made) - 1 >= 2
    made.clear()
    with pytest.raises(BarrierError, match=r"executor died \(an idle worker was killed\).*pass a new executor"):
        compute_barriers(*study, EMT, executor=partial(Choosy, made, True), jumps=ASKED)
    assert 3 < len(made) < 20
