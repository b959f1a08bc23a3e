"""Many barriers: resumable, through any executor, into a store."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator
from tqdm.auto import tqdm

from ase_kinoson.barriers.reference import NO_JUMP, NOT_COMPUTED, Barriers, same_lattice
from ase_kinoson.barriers.saddle import Hop, Host, JumpResult, SaddleSettings, StateResult, find_saddle, relax_state
from ase_kinoson.barriers.store import BarrierStore, Fingerprint
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import BarrierError

__all__ = ["compute_barriers"]

_log = logging.getLogger(__name__)

Factory = Callable[[], Any]


# -- what runs in the workers -------------------------------------------------------------------------------------

_own = threading.local()


def _calculator(factory: Factory, token: str) -> Any:
    """Return the calculator of this thread for one campaign, cleared of its past.

    Clearing makes results independent of what the calculator did before (neighbour lists, wave functions), hence of the
    executor.
    """
    held = getattr(_own, "held", None)
    if held is not None and held[0] == token:
        reset = getattr(held[1], "reset", None)
        if callable(reset):
            reset()
            return held[1]
    made = factory()
    _own.held = (token, made)
    return made


def _forget(token: str) -> None:
    held = getattr(_own, "held", None)
    if held is not None and held[0] == token:
        _own.held = None


def _describe(factory: Factory, token: str) -> tuple[str, dict[str, Any]]:
    """Name and plain parameters of the calculator."""
    made = _calculator(factory, token)
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


def _probe(factory: Factory, token: str, hosts: list[Host]) -> str:
    """Try one energy and its forces per host; return what went wrong."""
    for host in hosts:
        atoms = host.atoms()
        try:
            atoms.calc = _calculator(factory, token)
            atoms.get_forces()
            atoms.get_potential_energy()
        except Exception as error:
            _forget(token)
            return f"{type(error).__name__}: {error}"
    return ""


@dataclass(frozen=True, eq=False)
class _StateTask:
    state: int
    key: str
    host: Host

    def run(self, factory: Factory, token: str, settings: SaddleSettings) -> StateResult:
        calculator = _make(factory, token)
        if isinstance(calculator, str):
            empty = np.array(self.host.positions)
            return StateResult("calculator-failed", calculator, empty, np.nan, np.nan, 0, ())
        result = relax_state(self.host, calculator, settings=settings, make_calculator=factory)
        if any("failed" in step for step in result.path):
            _forget(token)
        return result


@dataclass(frozen=True, eq=False)
class _JumpTask:
    state: int
    key: str
    host: Host
    jump: int
    hop: Hop
    start: StateResult

    def run(self, factory: Factory, token: str, settings: SaddleSettings) -> JumpResult:
        calculator = _make(factory, token)
        if isinstance(calculator, str):
            return JumpResult("calculator-failed", calculator, energy_initial=self.start.energy)
        result = find_saddle(self.host, self.hop, self.start, calculator, settings=settings, make_calculator=factory)
        if any("failed" in step for step in result.path):
            _forget(token)
        return result


def _make(factory: Factory, token: str) -> Any:
    try:
        return _calculator(factory, token)
    except Exception as error:
        return f"the calculator could not be made: {type(error).__name__}: {error}"


def _run(
    task: _StateTask | _JumpTask, factory: Factory, token: str, settings: SaddleSettings
) -> StateResult | JumpResult:
    return task.run(factory, token, settings)


# -- the campaign -------------------------------------------------------------------------------------------------


def compute_barriers(
    states: States,
    network: JumpNetwork,
    calculator: Factory,
    *,
    store: str | Path | None = None,
    executor: Executor | None = None,
    settings: SaddleSettings | None = None,
    jumps: Mapping[int, Iterable[int]] | None = None,
    progress: bool = False,
) -> Barriers:
    """Reference barriers of all jumps of some states.

    Parameters
    ----------
    states
        What to compute; equal states are computed once.
    network
        The jumps.
    calculator
        A calculator *factory*: a class (``EMT``) or a callable without arguments that returns a new ASE calculator. It
        is called where the work is done; to run in other processes it must be importable there.
    store
        File (or URL) of the store. What it holds is not computed again; each result is written as it finishes.
        Default: nothing is kept on disk.
    executor
        Any ``concurrent.futures.Executor``; it is neither created nor shut down here, and results do not depend on it.
        Default: this process.
    settings
        Saddle search; default ``SaddleSettings()``.
    jumps : mapping of int to iterable of int, optional
        Compute only these jumps of these states (row of ``states`` → jump indices); others have the status
        ``"not-computed"``. Default: all.
    progress
        Show a progress bar.

    Returns
    -------
    Barriers

    Raises
    ------
    BarrierError
        If the calculator cannot be made or does not know a species, or states and jumps do not belong together. A jump
        that goes wrong does not raise; it is recorded with its reason.
    StoreError
        If the store is damaged or belongs to another study.
    """
    _check_factory(calculator)
    same_lattice(states, network)
    settings = settings or SaddleSettings()
    wanted = _wanted(states, network, jumps)
    campaign = _Campaign(states, network, calculator, executor, settings)
    try:
        name, parameters = campaign.describe()
        fingerprint = Fingerprint.of(
            states.supercell, network, calculator=name, parameters=parameters, settings=settings
        )
        kept = None if store is None else BarrierStore(store, fingerprint, title=f"reference barriers, {name}")
        campaign.run(wanted, kept, name, progress)
    finally:
        _forget(campaign.token)
    about = {
        "calculator": name,
        "parameters": parameters,
        "saddle": asdict(settings),
        "store": None if store is None else str(store),
        "force_calls_initial": int(
            sum(campaign.relaxed[k].force_calls for k in set(states.keys) & set(campaign.relaxed))
        ),
    }
    return _collect(states, network, wanted, campaign, about)


class _Campaign:
    """Tasks in flight and what came of them."""

    def __init__(
        self,
        states: States,
        network: JumpNetwork,
        factory: Factory,
        executor: Executor | None,
        settings: SaddleSettings,
    ) -> None:
        self.states, self.network, self.factory = states, network, factory
        self.executor, self.settings = executor, settings
        self.token = uuid.uuid4().hex
        self.keys = states.keys
        self.relaxed: dict[str, StateResult] = {}
        self.found: dict[tuple[str, int], JumpResult] = {}

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function where the work is done, and explain why it cannot be sent there."""
        if self.executor is None:
            return function(*arguments)
        try:
            return self.executor.submit(function, *arguments).result()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if "pickle" not in str(error).lower() and "local object" not in str(error):
                raise
            raise BarrierError(
                f"the calculator factory {self.factory!r} cannot be sent to the executor ({error}); expected "
                "something importable; "
                "define it with def at the top of a module, or use executor=None"
            ) from error
        except BrokenExecutor as error:
            raise BarrierError(_DEAD.format(error)) from error

    def describe(self) -> tuple[str, dict[str, Any]]:
        try:
            return self.call(_describe, self.factory, self.token)
        except BarrierError:
            raise
        except Exception as error:
            raise BarrierError(
                f"the calculator factory {_name(self.factory)} raised {type(error).__name__}: {error}; expected "
                "it to return an ASE "
                "calculator; call it once by hand"
            ) from error

    def run(
        self, wanted: dict[tuple[str, int], tuple[int, int]], store: BarrierStore | None, name: str, progress: bool
    ) -> None:
        if store is not None:
            self.relaxed, self.found = store.states(), store.jumps()
        todo = {key: place for key, place in wanted.items() if key not in self.found}
        bar = tqdm(
            total=len(wanted), initial=len(wanted) - len(todo), desc="barriers", unit="barrier", disable=not progress
        )
        rejected = sum(self.found[key].status != "ok" for key in wanted if key in self.found)
        _log.info("%d barriers: %d known, %d to compute with %s", len(wanted), len(wanted) - len(todo), len(todo), name)
        with bar:
            if not todo:
                return
            self.probe(name, [n for n, _ in todo.values()])
            for task, result in self.finished(todo):
                n, key, host = task.state, task.key, task.host
                carrier = int(self.states.carriers[n])
                if isinstance(result, StateResult):
                    self.relaxed[key] = result
                    if store is not None:
                        store.write_state(key, host, result, carrier=carrier)
                    if result.status != "ok":
                        _log.info("state %d: %s: %s", n, result.status, result.reason)
                    continue
                assert isinstance(task, _JumpTask)
                self.found[(key, task.jump)] = result
                if store is not None:
                    target = int(self.network.targets([carrier])[0, task.jump])
                    store.write_jump(key, task.jump, host, task.hop, result, carrier=carrier, target=target)
                if result.status != "ok":
                    rejected += 1
                    _log.info("state %d, jump %d: %s: %s", n, task.jump, result.status, result.reason)
                bar.set_postfix(rejected=rejected, refresh=False)
                bar.update()

    def probe(self, name: str, rows: list[int]) -> None:
        """Stop before a campaign of failures: one force call on states that hold all species."""
        hosts: list[Host] = []
        seen: set[int] = set()
        for n in dict.fromkeys(rows):
            species = set(np.unique(self.states.occupations[n]).tolist())
            if not species <= seen:
                seen |= species
                hosts.append(Host.from_occupation(self.states.supercell, self.states.occupations[n]))
        problem = self.call(_probe, self.factory, self.token, hosts)
        if problem:
            symbols = sorted({self.states.supercell.species[c] for c in seen} - {"X"})
            raise BarrierError(
                f"the calculator {name} fails on the ideal lattice with species {', '.join(symbols)} ({problem}); "
                "expected energies "
                "and forces; use a calculator that knows these species"
            )

    def finished(
        self, todo: dict[tuple[str, int], tuple[int, int]]
    ) -> Iterator[tuple[_StateTask | _JumpTask, StateResult | JumpResult]]:
        """Run all tasks; yield each with its result as it finishes.

        Jumps whose initial state is relaxed go first, so that states complete one after another.
        """
        of_state: dict[str, list[tuple[int, int]]] = {}
        for (key, jump), (n, _) in todo.items():
            of_state.setdefault(key, []).append((n, jump))
        ready: deque[_JumpTask] = deque()
        waiting = deque(of_state)

        def take() -> _StateTask | _JumpTask:
            while not ready:
                key = waiting.popleft()
                first = of_state[key][0][0]
                host = Host.from_occupation(self.states.supercell, self.states.occupations[first])
                if key not in self.relaxed:
                    return _StateTask(first, key, host)
                ready.extend(self.jump_tasks(key, of_state[key], host))
            return ready.popleft()

        if self.executor is None:
            while ready or waiting:
                task = take()
                result = _without_start(task) if _hopeless(task) else task.run(self.factory, self.token, self.settings)
                yield task, result
                if isinstance(task, _StateTask):
                    ready.extend(self.jump_tasks(task.key, of_state[task.key], task.host))
            return

        limit = 4 * int(getattr(self.executor, "_max_workers", 0) or os.cpu_count() or 4)
        flying: dict[Future, _StateTask | _JumpTask] = {}
        try:
            while ready or waiting or flying:
                while len(flying) < limit and (ready or waiting):
                    task = take()
                    if _hopeless(task):
                        yield task, _without_start(task)
                        continue
                    flying[self.executor.submit(_run, task, self.factory, self.token, self.settings)] = task
                if not flying:
                    continue
                future = next(as_completed(flying))
                task = flying.pop(future)
                result = future.result()
                yield task, result
                if isinstance(task, _StateTask):
                    ready.extend(self.jump_tasks(task.key, of_state[task.key], task.host))
        except BrokenExecutor as error:
            raise BarrierError(_DEAD.format(error)) from error
        finally:
            for future in flying:
                future.cancel()

    def jump_tasks(self, key: str, own: list[tuple[int, int]], host: Host) -> list[_JumpTask]:
        start = self.relaxed[key]
        return [
            _JumpTask(n, key, host, jump, Hop.from_jump(self.network, host, int(self.states.carriers[n]), jump), start)
            for n, jump in own
        ]


_DEAD = (
    "the executor died ({}); expected it to live until all barriers are done; what had finished is in the store: "
    "start a new "
    "executor and run again"
)


def _hopeless(task: _StateTask | _JumpTask) -> bool:
    return isinstance(task, _JumpTask) and task.start.status != "ok"


def _without_start(task: _StateTask | _JumpTask) -> JumpResult:
    """Result of a jump whose initial state has none."""
    assert isinstance(task, _JumpTask)
    return JumpResult(task.start.status, task.start.reason, energy_initial=task.start.energy)


def _check_factory(calculator: Any) -> None:
    if isinstance(calculator, BaseCalculator) or (
        hasattr(calculator, "get_potential_energy") and not callable(calculator)
    ):
        name = type(calculator).__name__
        raise BarrierError(
            f"found a calculator instance ({name}); expected a factory, because each worker makes its own; pass "
            f"the class {name} "
            f"itself, or a function such as lambda: {name}(...)"
        )
    if not callable(calculator):
        raise BarrierError(
            f"found {calculator!r} as calculator; expected a calculator class or a callable without arguments; "
            "pass for example EMT"
        )


def _name(factory: Any) -> str:
    return str(getattr(factory, "__qualname__", None) or repr(factory))


def _wanted(
    states: States, network: JumpNetwork, jumps: Mapping[int, Iterable[int]] | None
) -> dict[tuple[str, int], tuple[int, int]]:
    """(state key, jump) → (row, jump) of all that is asked for, each once."""
    exists = network.targets(states.carriers) >= 0 if len(states) else np.zeros((0, network.n_jumps), dtype=bool)
    keys = states.keys
    wanted: dict[tuple[str, int], tuple[int, int]] = {}
    for n, key in enumerate(keys):
        own: Iterable[int] = np.flatnonzero(exists[n]) if jumps is None else jumps.get(n, ())
        for k in own:
            if not 0 <= k < network.n_jumps or not exists[n, k]:
                raise BarrierError(
                    f"found jump {k} asked for state {n}; expected one of {np.flatnonzero(exists[n]).tolist()}; "
                    "correct jumps="
                )
            wanted.setdefault((key, int(k)), (n, int(k)))
    if jumps is not None:
        for n in jumps:
            if not 0 <= n < len(states):
                raise BarrierError(f"found state {n} in jumps=; expected 0 to {len(states) - 1}; correct it")
    return wanted


def _collect(
    states: States,
    network: JumpNetwork,
    wanted: Mapping[tuple[str, int], tuple[int, int]],
    campaign: _Campaign,
    about: Mapping[str, Any],
) -> Barriers:
    shape = (len(states), network.n_jumps)
    exists = network.targets(states.carriers) >= 0 if len(states) else np.zeros(shape, dtype=bool)
    barrier, reverse, final, fmax = (np.full(shape, v) for v in (np.inf, np.inf, np.nan, np.nan))
    status = np.where(exists, NOT_COMPUTED, NO_JUMP).astype("U24")
    calls = np.zeros(shape, dtype=np.int64)
    initial = np.full(len(states), np.nan)
    reasons: dict[tuple[int, int], str] = {}
    for n, key in enumerate(campaign.keys):
        if key in campaign.relaxed:
            relaxed = campaign.relaxed[key]
            # a state that relaxes into something else has no energy of its own, and so no weight
            initial[n] = relaxed.energy if relaxed.status == "ok" else np.nan
        for k in np.flatnonzero(exists[n]).tolist():
            if (key, k) not in wanted:
                reasons[(n, k)] = "not asked for"
                continue
            result = campaign.found[(key, k)]
            barrier[n, k], reverse[n, k] = result.barrier, result.reverse_barrier
            final[n, k], fmax[n, k] = result.energy_final, result.fmax_saddle
            status[n, k], calls[n, k] = result.status, result.force_calls
            if result.status != "ok":
                reasons[(n, k)] = result.reason
    made = Barriers.from_arrays(
        states,
        network,
        barrier,
        reverse_barrier=reverse,
        energy_initial=initial,
        energy_final=final,
        status=status,
        reasons=reasons,
        force_calls=calls,
        fmax=fmax,
        settings=about,
    )
    if made.n_rejected:
        _log.warning("%d of %d jumps have no barrier: %s", sum(made.n_rejected.values()), len(wanted), made.n_rejected)
    return made
