"""Sending tasks to an executor and getting their results back, also when workers die."""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from queue import SimpleQueue
from typing import Any, cast

from ase_kinoson.barriers.tasks import Result, Task, Work, run_task
from ase_kinoson.errors import BarrierError

__all__ = ["Workers"]

_log = logging.getLogger(__name__)

_DEPTH = 4
"""Tasks in flight per worker: enough that none waits, few enough that little is lost."""
_UNKNOWN = 64
"""Assumed number of workers of an executor that does not tell."""
_LOOK_S = 10.0
"""An executor may grow; its size is asked for this often."""
_REFUSALS = 5
"""New executors in a row that take no task before one stops making them."""


class Workers:
    """Where tasks run.

    Parameters
    ----------
    executor
        Nothing (this process), an executor, or a callable that makes one. An executor is the caller's: it is never shut
        down. One that is made here is shut down at the end, and made anew when it dies.

    Raises
    ------
    BarrierError
        If it is something else.
    """

    def __init__(self, executor: Executor | Callable[[], Executor] | None) -> None:
        self._make: Callable[[], Executor] | None = None
        self._executor: Executor | None = None
        if hasattr(executor, "submit") and not isinstance(executor, type):
            self._executor = cast(Executor, executor)
        elif callable(executor):
            self._make = executor
        elif executor is not None:
            raise BarrierError(
                f"found {executor!r} as executor; expected a concurrent.futures.Executor, a callable that makes one, "
                "or None; pass for example ProcessPoolExecutor(4)"
            )
        self._done: SimpleQueue[Future] = SimpleQueue()
        self._flying: dict[Future, Task] = {}
        self._limit, self._looked = 0, -float("inf")
        self.deaths = 0

    def __enter__(self) -> Workers:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for future in self._flying:
            future.cancel()
        if self._make is not None and self._executor is not None:
            self._executor.shutdown(wait=kind is None, cancel_futures=True)

    def _start(self) -> None:
        self._done, self._flying = SimpleQueue(), {}
        self._looked = -float("inf")
        if self._make is not None:
            made = self._make()
            if not hasattr(made, "submit"):
                raise BarrierError(
                    f"the executor factory returned {made!r}; expected a concurrent.futures.Executor; correct it"
                )
            self._executor = made

    def call(self, function: Callable[..., Any], *arguments: Any, what: str) -> Any:
        """Call a function where the work is done, and explain why ``what`` cannot be sent there."""
        if self._executor is None:
            return function(*arguments)
        try:
            return self._executor.submit(function, *arguments).result()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if "pickle" not in str(error).lower() and "local object" not in str(error):
                raise
            raise BarrierError(
                f"{what} cannot be sent to the executor ({error}); expected something importable; define it with def "
                "at the top of a module, or use executor=None"
            ) from error
        except CancelledError as error:
            raise BrokenExecutor("it cancelled a task") from error

    def results(self, take: Callable[[], Task | None], work: Work) -> Iterator[list[tuple[Task, Result]]]:
        """Run tasks; yield those that have finished meanwhile with their results.

        Parameters
        ----------
        take
            Gives the next task; None if there is none now (a result may bring new ones).
        work
            What all tasks share.

        Raises
        ------
        BrokenExecutor
            If the executor dies and no other can be made. Where one can, the tasks in flight are tried again one by
            one, and the one that kills it a second time is recorded as failed. Executors that take no task at all are
            given up after some.
        """
        if self._executor is None:
            while (task := take()) is not None:
                yield [(task, run_task(task, work))]
            return
        suspects: deque[Task] = deque()
        refusals = 0
        while True:
            lost: list[Task] = []
            death: BaseException | None = None
            alone = bool(suspects)
            while len(self._flying) < (1 if alone else self._capacity()):
                task = suspects.popleft() if alone else take()
                if task is None:
                    break
                if task.hopeless:
                    yield [(task, run_task(task, work))]
                elif death := self._submit(task, work):
                    lost.append(task)
                    break
            if not (self._flying or lost):
                return
            refused = bool(lost)  # this task never ran, and so killed nobody
            refusals = refusals + 1 if refused else 0
            finished = []
            for future in () if death else self._landed():
                task = self._flying.pop(future)
                try:
                    finished.append((task, future.result()))
                except (BrokenExecutor, CancelledError) as error:
                    lost.append(task)
                    death = error
                except Exception as error:  # such as the KilledWorker of dask, which knows the culprit
                    reason = f"the worker failed: {type(error).__name__}: {error}"
                    finished.append((task, task.failed("calculator-failed", reason)))
            if finished:
                yield finished
            if death:
                lost += self._flying.values()
                if self._make is None or refusals >= _REFUSALS:
                    raise BrokenExecutor(str(death) or type(death).__name__) from death
                self.deaths += 1
                _log.warning("the executor died (%s); %d tasks are tried again, one by one", death, len(lost))
                self._start()
                if alone and not refused:
                    yield [(task, task.failed("calculator-failed", f"it kills its worker ({death})")) for task in lost]
                else:
                    suspects.extend(lost)

    def _landed(self) -> list[Future]:
        """Wait for a task; return all that are done."""
        landed = [self._done.get()]
        while not self._done.empty():
            landed.append(self._done.get())
        return landed

    def _submit(self, task: Task, work: Work) -> BaseException | None:
        """Send a task away; return why the executor does not take it."""
        assert self._executor is not None
        try:
            future = self._executor.submit(run_task, task, work)
        except RuntimeError as error:  # a BrokenExecutor, or "cannot schedule new futures after shutdown"
            return error
        self._flying[future] = task
        future.add_done_callback(self._done.put)
        return None

    def _capacity(self) -> int:
        """Largest number of tasks in flight."""
        if time.monotonic() - self._looked > _LOOK_S:
            self._limit, self._looked = _DEPTH * _size(self._executor), time.monotonic()
        return self._limit


def _size(executor: Any) -> int:
    """Number of workers, as far as the executor tells."""
    for name in ("_max_workers", "num_workers", "max_workers"):  # standard library, mpi4py, executorlib
        n = getattr(executor, name, None)
        if isinstance(n, int) and n > 0:
            return n
    threads = getattr(getattr(executor, "_client", None), "nthreads", None)  # dask
    return (sum(threads().values()) if callable(threads) else 0) or _UNKNOWN
