"""Relaxed energies of states, each computed once: with a calculator through an executor, or from an energy model."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.saddle import Host, SaddleSettings, StateResult
from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.barriers.store import BarrierStore, Fingerprint
from ase_kinoson.barriers.tasks import StateTask, Work, describe, forget
from ase_kinoson.barriers.workers import Workers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError

__all__ = ["RelaxedEnergies"]

UNSTABLE = "unstable-start"
"""Status of a state whose atoms leave their sites; other statuses than this and ``"ok"`` are failures."""

_DEAD = (
    "the executor died ({}); expected it to live until the chains are done; what had finished is in the store: start "
    "a new executor and run again"
)


class RelaxedEnergies:
    """Energies of states, looked up before they are computed; a context manager, which ends what it started.

    Parameters
    ----------
    cell
        The supercell.
    reference
        A calculator *factory* (a class such as ``EMT``, or a callable without arguments), or an `EnergyModel`, or
        anything with such an ``energy``.
    network
        Jumps; only the store knows of them. Default: nearest neighbours.
    store
        File of a barrier store: what it holds is not computed again, each state is written as it finishes, and
        :func:`compute_barriers` finds these states relaxed. Default: memory only.
    executor
        As in :func:`compute_barriers`; one state per task.
    settings
        How states are relaxed.

    Attributes
    ----------
    n_states : int
        Distinct states asked for.
    force_calls : int
        What they cost, whenever it was spent; 0 for an energy model.
    n_unstable, n_failed : int
        States that have no energy: their atoms leave their sites, or the calculation failed.
    reason : str
        Why the last of them has none.
    """

    def __init__(
        self,
        cell: Supercell,
        reference: Any,
        *,
        network: JumpNetwork | None = None,
        store: str | Path | None = None,
        executor: Executor | Callable[[], Executor] | None = None,
        settings: SaddleSettings | None = None,
    ) -> None:
        self.supercell = cell
        if not isinstance(reference, type) and isinstance(getattr(reference, "energy", None), EnergyModel):
            reference = reference.energy
        self._model = reference if not isinstance(reference, type) and isinstance(reference, EnergyModel) else None
        self._work = Work(reference, uuid.uuid4().hex, settings or SaddleSettings())
        self._workers = Workers(executor)
        self._seen: dict[str, tuple[float, str, int]] = {}
        self._known: dict[str, StateResult] = {}
        self._network, self._path = network, store
        self._store: BarrierStore | None = None
        self.reason = ""
        if self._model is None and not callable(reference):
            raise BarrierError(
                f"found {reference!r} as reference; expected a calculator class, a callable without arguments that "
                "returns a calculator, or an energy model; pass for example EMT"
            )

    def __enter__(self) -> Self:
        self._workers.__enter__()
        if self._model is not None:
            return self
        factory = self._work.factory
        try:
            name, parameters = self._workers.call(describe, self._work, what=f"the calculator factory {factory!r}")
        except BarrierError:
            raise
        except BrokenExecutor as error:
            raise BarrierError(_DEAD.format(error)) from error
        except Exception as error:
            raise BarrierError(
                f"the calculator factory {factory!r} raised {type(error).__name__}: {error}; expected it to return an "
                "ASE calculator; call it once by hand"
            ) from error
        if self._path is None:
            return self
        jumps = JumpNetwork.from_supercell(self.supercell) if self._network is None else self._network
        about = Fingerprint.of(
            self.supercell, jumps, calculator=name, parameters=parameters, settings=self._work.settings
        )
        self._store = BarrierStore(self._path, about, title=f"reference barriers, {name}")
        self._known = self._store.states()
        return self

    def __exit__(self, *about: Any) -> None:
        forget(self._work.token)
        self._workers.__exit__(*about)

    def __call__(self, states: States) -> NDArray[np.float64]:
        """Return the energies of states, eV, shape (n_states,); NaN where a state has none."""
        keys = states.keys
        new = {key: n for n, key in enumerate(keys) if key not in self._seen}
        if new and self._model is not None:
            values = self._model.energies(states.occupations[list(new.values())])
            self._seen.update({k: (float(v), "ok", 0) for k, v in zip(new, values, strict=True)})
        elif new:
            for key, result in self._results(states, new):
                if key not in self._known:
                    self._known[key] = result
                    if self._store is not None:
                        host = Host.from_occupation(self.supercell, states.occupations[new[key]])
                        self._store.write_state(key, host, result, carrier=int(states.carriers[new[key]]))
                energy = result.energy if result.status == "ok" else np.nan
                self.reason = result.reason or self.reason
                self._seen[key] = (energy, result.status, result.force_calls)
        return np.array([self._seen[key][0] for key in keys])

    def _results(self, states: States, new: Mapping[str, int]) -> Iterator[tuple[str, StateResult]]:
        """Known results, then those that have to be computed as they finish."""
        yield from ((key, self._known[key]) for key in new if key in self._known)
        todo = iter(
            [
                StateTask(n, key, Host.from_occupation(self.supercell, states.occupations[n]))
                for key, n in new.items()
                if key not in self._known
            ]
        )
        try:
            for finished in self._workers.results(lambda: next(todo, None), self._work):
                for task, result in finished:
                    assert isinstance(result, StateResult)
                    yield task.key, result
        except BrokenExecutor as error:
            raise BarrierError(_DEAD.format(error)) from error

    @property
    def n_states(self) -> int:
        """Distinct states asked for."""
        return len(self._seen)

    @property
    def force_calls(self) -> int:
        """Force calls of these states."""
        return sum(calls for _, _, calls in self._seen.values())

    @property
    def n_unstable(self) -> int:
        """States whose atoms leave their sites."""
        return sum(status == UNSTABLE for _, status, _ in self._seen.values())

    @property
    def n_failed(self) -> int:
        """States whose calculation failed."""
        return sum(status not in ("ok", UNSTABLE) for _, status, _ in self._seen.values())
