"""Barriers of chosen jumps of a pool, from a calculator or from a source of barriers."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.reference import NO_JUMP, NOT_COMPUTED, Barriers
from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.barriers.source import BarrierSource
from ase_kinoson.errors import BarrierError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.candidates import Candidates

__all__ = ["Reference", "is_source"]

TYPICAL_CALLS = (25.0, 16.0)
"""Force calls of a relaxed state and of a jump, where no barriers tell."""


def is_source(reference: Any) -> bool:
    """Whether a reference is a source of barriers, not a calculator factory."""
    return isinstance(reference, BarrierSource | Rates) or hasattr(reference, "bind")


class Reference:
    """Barriers of chosen jumps, from a calculator or a source."""

    def __init__(
        self,
        candidates: Candidates,
        reference: Any,
        store: str | Path | None,
        executor: Executor | None,
        settings: SaddleSettings | None,
    ) -> None:
        self.candidates, self.factory = candidates, reference
        self.options: dict[str, Any] = {"store": store, "executor": executor, "settings": settings}
        self.source: Any = None
        if is_source(reference):
            self.rates = Rates.of(
                reference,
                candidates.network,
                temperature_K=candidates.temperature_K,
                attempt_frequency=candidates.attempt_frequency,
            )
            self.source = self.rates.source

    def __call__(self, rows: NDArray, asked: NDArray) -> Barriers:
        """All barriers asked for up to now: rows of the candidates (n,) and jumps (n, J).

        Raises
        ------
        BarrierError
            If a source has no answer to what it is asked.
        """
        states, network = self.candidates.states[rows], self.candidates.network
        if self.source is None:
            wanted = {n: np.flatnonzero(asked[n]).tolist() for n in range(len(rows))}
            return compute_barriers(states, network, self.factory, jumps=wanted, **self.options)
        found = self.source.jump_energies(states.occupations, states.carriers)
        unknown = np.isnan(found.barrier)
        if hasattr(self.source, "missing"):
            unknown |= self.source.missing(states.occupations, states.carriers)[1]
        if (unknown & asked).any():
            raise BarrierError(
                f"found {int((unknown & asked).sum())} of {int(asked.sum())} chosen jumps without a barrier in the "
                "reference; expected all jumps of all states of the pool; run compute_barriers on it without jumps=, "
                "or pass the calculator"
            )
        start = self.rates.state_energies(states.occupations)
        frequency = self.rates._frequency(found)
        common = np.ndim(frequency) == 0 and frequency == self.candidates.attempt_frequency
        status = np.where(np.isfinite(found.barrier), "ok", "rejected").astype("U24")
        calls, about = None, {}
        if isinstance(self.source, Barriers):
            own = self.source.rows(states.occupations, states.carriers)
            status, calls = self.source.status[own], np.where(asked, self.source.force_calls[own], 0)
            about = {"force_calls_initial": round(self.costs(None)[0] * len(rows)) if calls.any() else 0}
        status = np.where(asked | (status == NO_JUMP), status, NOT_COMPUTED)
        forward = np.where(status == "ok", found.barrier, np.inf)
        return Barriers.from_arrays(
            states,
            network,
            forward,
            reverse_barrier=np.where(status == "ok", forward - found.delta_e, np.inf),
            energy_initial=start,
            status=status,
            force_calls=calls,
            settings=about,
            attempt_frequency=None if common else np.broadcast_to(frequency, asked.shape),
        )

    def costs(self, training: Barriers | None) -> tuple[float, float]:
        """Force calls of a relaxed state and of a jump, as far as barriers tell."""
        if self.source is not None and not isinstance(self.source, Barriers):
            return 0.0, 1.0
        known = self.source if isinstance(self.source, Barriers) else training
        if known is None or not known.valid.any() or known.force_calls[known.valid].mean() == 0:
            return TYPICAL_CALLS
        states = known.settings.get("force_calls_initial", TYPICAL_CALLS[0] * len(known)) / len(set(known.states.keys))
        return float(states), float(known.force_calls[known.valid].mean())
