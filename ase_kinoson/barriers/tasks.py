"""What runs in the workers: one state or one jump, with a calculator made there and a limit on the time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_kinoson.barriers.alarm import TimeIsUpError, alarm
from ase_kinoson.barriers.saddle import Hop, Host, JumpResult, SaddleSettings, StateResult, find_saddle, relax_state

__all__ = ["Factory", "JumpTask", "Result", "StateTask", "Task", "Work", "describe", "forget", "probe", "run_task"]

_log = logging.getLogger(__name__)

Factory = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Work:
    """What all tasks of a campaign share.

    Attributes
    ----------
    factory
        Makes a calculator.
    token
        Name of the campaign; a worker keeps one calculator per campaign and thread.
    settings
        Of the saddle search, its limit of time included.
    """

    factory: Factory
    token: str
    settings: SaddleSettings


# -- the calculator of this thread --------------------------------------------------------------------------------

_own = threading.local()


def _calculator(work: Work) -> Any:
    """Return the calculator of this thread for one campaign, cleared of its past.

    Clearing makes results independent of what the calculator did before (neighbour lists, wave functions), hence of the
    executor.
    """
    held = getattr(_own, "held", None)
    if held is not None and held[0] == work.token:
        reset = getattr(held[1], "reset", None)
        if callable(reset):
            reset()
            return held[1]
    made = work.factory()
    _own.held = (work.token, made)
    return made


def forget(token: str) -> None:
    """Drop the calculator that this thread holds for a campaign."""
    held = getattr(_own, "held", None)
    if held is not None and held[0] == token:
        _own.held = None


def describe(work: Work) -> tuple[str, dict[str, Any]]:
    """Name and plain parameters of the calculator."""
    made = _calculator(work)
    parameters = getattr(made, "parameters", None)
    plain = {str(k): _plain(v) for k, v in dict(parameters).items()} if isinstance(parameters, Mapping) else {}
    return type(made).__name__, plain


def _plain(value: Any) -> Any:
    """JSON-like value; objects without one are known by their type only (addresses would differ between runs)."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else f"<{type(value).__name__}>"


def probe(work: Work, hosts: list[Host]) -> str:
    """Try one energy and its forces per host; return what went wrong."""
    for host in hosts:
        atoms = host.atoms()
        try:
            atoms.calc = _calculator(work)  # a model that takes long to load is no slow calculation
            with alarm(work.settings.time_limit_s):
                atoms.get_forces()
                atoms.get_potential_energy()
        except TimeIsUpError as error:
            forget(work.token)
            return str(error)
        except Exception as error:
            forget(work.token)
            return f"{type(error).__name__}: {error}"
    return ""


# -- tasks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StateTask:
    """Relax one state (row ``state`` of the campaign's states)."""

    state: int
    key: str
    host: Host

    hopeless = False

    def run(self, work: Work, calculator: Any) -> StateResult:
        """Relax."""
        return relax_state(self.host, calculator, settings=work.settings, make_calculator=work.factory)

    def failed(self, status: str, reason: str, wall_s: float = 0.0) -> StateResult:
        """Result without an energy."""
        return StateResult(status, reason, np.array(self.host.positions), np.nan, np.nan, 0, (), wall_s)


@dataclass(frozen=True, eq=False)
class JumpTask:
    """Find the saddle of one jump of a relaxed state."""

    state: int
    key: str
    host: Host
    jump: int
    hop: Hop
    start: StateResult

    @property
    def hopeless(self) -> bool:
        """Whether the state could not be relaxed."""
        return self.start.status != "ok"

    def run(self, work: Work, calculator: Any) -> JumpResult:
        """Search."""
        return find_saddle(
            self.host, self.hop, self.start, calculator, settings=work.settings, make_calculator=work.factory
        )

    def failed(self, status: str, reason: str, wall_s: float = 0.0) -> JumpResult:
        """Result without a barrier."""
        return JumpResult(status, reason, energy_initial=self.start.energy, wall_s=wall_s)


Task = StateTask | JumpTask
Result = StateResult | JumpResult


def run_task(task: Task, work: Work) -> Result:
    """Run a task; whatever goes wrong becomes part of its result."""
    if isinstance(task, JumpTask) and task.hopeless:
        return task.failed(task.start.status, task.start.reason)
    began = time.perf_counter()
    try:
        calculator = _calculator(work)  # the time limit is one of the search, not of loading a model
        with alarm(work.settings.time_limit_s):
            result = task.run(work, calculator)
    except TimeIsUpError as error:
        forget(work.token)
        return task.failed("timed-out", str(error), time.perf_counter() - began)
    except Exception as error:
        forget(work.token)
        _log.warning("state %d: the search raised", task.state, exc_info=True)
        return task.failed("calculator-failed", f"{type(error).__name__}: {error}", time.perf_counter() - began)
    if result.status in ("calculator-failed", "timed-out") or any("failed" in step for step in result.path):
        forget(work.token)
    return result
