"""Repeated measurements: medians, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Sample", "in_turns", "ratio", "sample"]

REPEATS = 5
"""Repeats of every measurement, after one run that is thrown away."""


@dataclass(frozen=True)
class Sample:
    """Times of one call, s, in the order in which they were taken.

    Attributes
    ----------
    values : tuple of float
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, s."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """Shortest, s."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Longest, s."""
        return max(self.values)


def in_turns(
    calls: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = REPEATS,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Sample]:
    """Time several calls in turns: A, B, A, B and so on.

    What the machine does beside falls on all of them alike. Runs of the warm-up compile, fill caches and touch memory
    for the first time; their times are thrown away.

    Parameters
    ----------
    calls
        What to time, by name.
    repeats
        Times that count, of each.
    warmup
        Runs of each before.
    clock
        Seconds since any moment.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = clock()
            call()
            times[name].append(clock() - began)
    return {name: Sample(tuple(values)) for name, values in times.items()}


def sample(
    call: Callable[[], Any],
    *,
    repeats: int = REPEATS,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Sample:
    """Time one call; arguments as those of :func:`in_turns`."""
    return in_turns({"": call}, repeats=repeats, warmup=warmup, clock=clock)[""]


def ratio(a: Sample, b: Sample) -> float:
    """Median over the turns of the time of ``a`` over that of ``b``."""
    return statistics.median(x / y for x, y in zip(a.values, b.values, strict=True))
