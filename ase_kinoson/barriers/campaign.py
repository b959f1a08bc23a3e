"""Many barriers: resumable, through any executor, into a store."""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator
from tqdm.auto import tqdm

from ase_kinoson.barriers.agenda import Agenda
from ase_kinoson.barriers.end_states import end_state_drift
from ase_kinoson.barriers.fingerprint import Fingerprint
from ase_kinoson.barriers.reference import NO_JUMP, NOT_COMPUTED, Barriers, same_lattice
from ase_kinoson.barriers.saddle import STATUSES, Host, JumpResult, SaddleSettings, StateResult
from ase_kinoson.barriers.store import BarrierStore
from ase_kinoson.barriers.tasks import Factory, Result, StateTask, Task, Work, describe, forget, probe
from ase_kinoson.barriers.workers import Workers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import BarrierError, NotSaved, StoreError

__all__ = ["compute_barriers"]

_log = logging.getLogger(__name__)

Wanted = dict[tuple[str, int], tuple[int, int]]
"""(state key, jump) → (row, jump) of all that is asked for, each once."""


def compute_barriers(
    states: States,
    network: JumpNetwork,
    calculator: Factory,
    *,
    store: str | Path | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    settings: SaddleSettings | None = None,
    jumps: Mapping[int, Iterable[int]] | None = None,
    time_limit_s: float | None = None,
    retry: Collection[str] = (),
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
        File (or URL) of the store. What it holds is not computed again; each result is written as it finishes. Several
        processes may fill one store at once. Default: nothing is kept on disk.
    executor
        Any ``concurrent.futures.Executor``; it is neither created nor shut down here, and results do not depend on it.
        Or a callable that makes one, such as ``partial(ProcessPoolExecutor, 4)``: it is shut down at the end, and made
        anew when a worker dies, after which the search that kills its worker is recorded as failed and the rest goes
        on. Default: this process.
    settings
        Saddle search; default ``SaddleSettings()``.
    jumps : mapping of int to iterable of int, optional
        Compute only these jumps of these states (row of ``states`` → jump indices); others have the status
        ``"not-computed"``. Default: all.
    time_limit_s
        Largest time of one search, s; one that takes longer has the status ``"timed-out"``. A calculation that hangs
        is interrupted where signals exist: in the main thread of a Unix process, such as this one or a process worker.
        In other threads the time is looked at between force calls. Default: that of ``settings`` (no limit).
    retry
        Statuses (of ``STATUSES``) that are computed again if the store holds them, for example
        ``("calculator-failed", "timed-out")``. Default: what is in the store is final.
    progress
        Show a progress bar.

    Returns
    -------
    Barriers
        ``settings["cost"]`` tells the force calls and the time, ``settings["rejected"]`` which jumps have no barrier,
        by status, as (state, jump).

    Raises
    ------
    BarrierError
        If the calculator cannot be made or does not know a species, states and jumps do not belong together, or the
        executor dies. A jump that goes wrong does not raise; it is recorded with its reason.
    StoreError
        If the store is damaged or belongs to another study.

    Warns
    -----
    KinosonWarning
        If results cannot be written to the store any more (a full disk); the campaign goes on without.
    EndStateDrift
        If many ends of jumps do not stay where they are put, or the energies of one end state differ.
    """
    _check_factory(calculator)
    _check_retry(retry)
    same_lattice(states, network)
    settings = settings or SaddleSettings()
    if time_limit_s is not None:
        settings = replace(settings, time_limit_s=time_limit_s)
    wanted = _wanted(states, network, jumps)
    began = time.perf_counter()
    with Workers(executor) as workers:
        campaign = _Campaign(states, network, workers, Work(calculator, uuid.uuid4().hex, settings))
        try:
            name, parameters = campaign.describe()
            fingerprint = Fingerprint.of(
                states.supercell, network, calculator=name, parameters=parameters, settings=settings
            )
            if store is not None:
                campaign.store = BarrierStore(store, fingerprint, title=f"reference barriers, {name}", retry=retry)
            campaign.run(wanted, name, progress)
        finally:
            forget(campaign.work.token)
    about = {
        "calculator": name,
        "parameters": parameters,
        "saddle": asdict(settings),
        "store": None if campaign.store is None else campaign.store.name,
        "force_calls_initial": int(
            sum(campaign.relaxed[k].force_calls for k in set(states.keys) & set(campaign.relaxed))
        ),
        "cost": campaign.cost(wanted, time.perf_counter() - began),
        "rejected": campaign.rejected(wanted),
    }
    return _collect(states, network, wanted, campaign, about)


class _Campaign:
    """What is known, and how it is kept."""

    def __init__(self, states: States, network: JumpNetwork, workers: Workers, work: Work) -> None:
        self.states, self.network, self.workers, self.work = states, network, workers, work
        self.store: BarrierStore | None = None
        self.keys = states.keys
        self.relaxed: dict[str, StateResult] = {}
        self.found: dict[tuple[str, int], JumpResult] = {}
        self.missing: set[tuple[str, int]] = set()
        self.n_rejected = 0
        self.computed = 0
        self.warned = False
        self.unsaved: list[Callable[[], bool]] = []

    def describe(self) -> tuple[str, dict[str, Any]]:
        factory = self.work.factory
        try:
            return self.workers.call(describe, self.work, what=f"the calculator factory {factory!r}")
        except BrokenExecutor as error:
            raise BarrierError(_DEAD.format(error, "nothing was computed")) from error
        except BarrierError:
            raise
        except Exception as error:
            raise BarrierError(
                f"the calculator factory {_name(factory)} raised {type(error).__name__}: {error}; expected it to "
                "return an ASE calculator; call it once by hand"
            ) from error

    def run(self, wanted: Wanted, name: str, progress: bool) -> None:
        """Compute what is missing."""
        self.missing = set(wanted)
        if self.store is not None:
            self.learn(*self.store.news())
        todo = {key: place for key, place in wanted.items() if key in self.missing}
        _log.info("%d barriers: %d known, %d to compute with %s", len(wanted), len(wanted) - len(todo), len(todo), name)
        if todo:
            self.probe(name, [n for n, _ in todo.values()])
        # smoothing=0: the mean rate of what this run has done itself, so that the time left is right after a resume
        with tqdm(
            total=len(wanted),
            initial=len(wanted) - len(todo),
            desc="barriers",
            unit="barrier",
            disable=not progress,
            smoothing=0,
        ) as bar:
            agenda = Agenda(self.states, self.network, todo, self.relaxed, self.found, self.look)
            try:
                for finished in self.workers.results(agenda.take, self.work):
                    fresh = self.keep(finished)
                    for (task, _), new in zip(finished, fresh, strict=True):
                        agenda.finished(task, fresh=new)
                    bar.set_postfix(rejected=self.n_rejected, refresh=False)
                    bar.update(len(wanted) - len(self.missing) - bar.n)
            except BrokenExecutor as error:
                raise BarrierError(_DEAD.format(error, self.progress(wanted))) from error
            except KeyboardInterrupt:
                _log.warning("interrupted: %s", self.progress(wanted))
                raise
            finally:
                self.flush()

    def look(self) -> list[str]:
        """Learn what other processes have written; return the states they have relaxed."""
        if self.store is None or self.unsaved:
            return []
        try:
            states, jumps = self.store.news()
        except StoreError as error:  # writing will tell
            _log.info("no news from the store: %s", error)
            return []
        theirs = [key for key in states if key not in self.relaxed]
        self.learn(states, jumps)
        return theirs

    def learn(self, states: Mapping[str, StateResult], jumps: Mapping[tuple[str, int], JumpResult]) -> None:
        """Add to what is known."""
        for key, state in states.items():
            self.relaxed.setdefault(key, state)
        for place, jump in jumps.items():
            self.found.setdefault(place, jump)
            if place in self.missing:
                self.missing.remove(place)
                self.n_rejected += jump.status != "ok"

    def keep(self, finished: list[tuple[Task, Result]]) -> list[bool]:
        """Learn and write results; tell for each whether it was new to the store."""
        for task, result in finished:
            self.computed += 1
            carrier = int(self.states.carriers[task.state])
            if isinstance(task, StateTask):
                assert isinstance(result, StateResult)
                self.learn({task.key: result}, {})
                what = f"state {task.state}"
                if self.store is not None:
                    write = partial(self.store.write_state, task.key, task.host, result, carrier=carrier)
                    self.unsaved.append(write)
            else:
                assert isinstance(result, JumpResult)
                self.learn({}, {(task.key, task.jump): replace(result, saddle_positions=None, final_positions=None)})
                what = f"state {task.state}, jump {task.jump}"
                if self.store is not None:
                    where = (task.key, task.jump, task.host, task.hop)
                    target = int(self.network.targets([carrier])[0, task.jump])
                    write = partial(self.store.write_jump, *where, result, carrier=carrier, target=target)
                    self.unsaved.append(write)
            if result.status != "ok":
                _log.info("%s: %s: %s", what, result.status, result.reason)
        return self.flush()[-len(finished) :] or [True] * len(finished)

    def flush(self) -> list[bool]:
        """Write what is not written yet, all together; tell for each whether it was new to the store."""
        if self.store is None or not self.unsaved:
            return []
        try:
            fresh = self.store.together(self.unsaved)
        except StoreError as error:
            if not self.warned:
                self.warned = True
                warnings.warn(
                    NotSaved(
                        f"results could not be written: {error}",
                        number=len(self.unsaved),
                        limit=0,
                        unit="results",
                        advice="the campaign goes on, and tries again with every result",
                    ),
                    stacklevel=4,
                )
            return [True] * len(self.unsaved)
        self.unsaved = []
        return fresh

    def progress(self, wanted: Wanted) -> str:
        """How much is done, and where it is."""
        text = f"{len(wanted) - len(self.missing)} of {len(wanted)} barriers are done"
        if self.store is None:
            return f"{text} and lost, because no store= was given"
        lost = f"; {len(self.unsaved)} results could not be written to it" if self.unsaved else ""
        return f"{text}, kept in {self.store.name}{lost}; run again to go on"

    def cost(self, wanted: Wanted, elapsed: float) -> dict[str, Any]:
        """Force calls and time of all that was asked for, whenever it was computed, and of this run."""
        done: list[Result] = [self.found[place] for place in wanted]
        done += [self.relaxed[key] for key in {key for key, _ in wanted} if key in self.relaxed]
        return {
            "force_calls": int(sum(s.force_calls for s in done)),
            "search_s": float(sum(s.wall_s for s in done)),
            "computed_now": self.computed,
            "elapsed_s": elapsed,
            "not_written": len(self.unsaved),
            "executor_deaths": self.workers.deaths,
        }

    def rejected(self, wanted: Wanted) -> dict[str, list[list[int]]]:
        """Which jumps have no barrier: status → list of [state, jump]."""
        table: dict[str, list[list[int]]] = {}
        for place, (n, jump) in wanted.items():
            status = self.found[place].status
            if status != "ok":
                table.setdefault(status, []).append([n, jump])
        return table

    def probe(self, name: str, rows: list[int]) -> None:
        """Stop before a campaign of failures: one force call on states that hold all species."""
        hosts: list[Host] = []
        seen: set[int] = set()
        for n in dict.fromkeys(rows):
            species = set(np.unique(self.states.occupations[n]).tolist())
            if not species <= seen:
                seen |= species
                hosts.append(Host.from_occupation(self.states.supercell, self.states.occupations[n]))
        try:
            problem = self.workers.call(probe, self.work, hosts, what="the task")
        except BrokenExecutor as error:
            raise BarrierError(_DEAD.format(error, "nothing was computed")) from error
        if problem:
            symbols = sorted({self.states.supercell.species[c] for c in seen} - {"X"})
            raise BarrierError(
                f"the calculator {name} fails on the ideal lattice with species {', '.join(symbols)} ({problem}); "
                "expected energies and forces; use a calculator that knows these species"
            )


_DEAD = (
    "the executor died ({}); expected it to live until all barriers are done; {}; pass a new executor, or one that is "
    "made anew by itself, such as executor=partial(ProcessPoolExecutor, 4)"
)


def _check_retry(retry: Collection[str]) -> None:
    unknown = [retry] if isinstance(retry, str) else sorted(set(retry) - set(STATUSES[1:]))
    if unknown:
        raise BarrierError(
            f"found {unknown[0]!r} in retry; expected statuses among {', '.join(STATUSES[1:])}; give a tuple of them"
        )


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
    frequency = np.full(shape, np.nan)
    wall = np.zeros(shape)
    descents = np.full(shape, "not-checked", dtype="U12")
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
            if np.isfinite(initial[n]) and result.energy_initial != initial[n]:
                # another process relaxed this state too, and its energies differ by the rounding of its machine
                final[n, k] = initial[n] + (result.energy_final - result.energy_initial)
            status[n, k], calls[n, k] = result.status, result.force_calls
            frequency[n, k], descents[n, k] = result.attempt_frequency, result.descents
            wall[n, k] = result.wall_s
            if result.reason:
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
        attempt_frequency=frequency if np.isfinite(frequency).any() else None,
        descents=descents,
        wall_s=wall,
    )
    if made.n_rejected:
        _log.warning("%d of %d jumps have no barrier: %s", sum(made.n_rejected.values()), len(wanted), made.n_rejected)
    if made.n_unsettled:
        text = "%d of %d barriers are of the highest saddle known, and not settled; see Barriers.unsettled and reasons"
        _log.warning(text, made.n_unsettled, made.n_barriers)
    for doubt in end_state_drift(made):
        warnings.warn(doubt, stacklevel=3)
    return made
