"""What a measurement says: figures with their targets, limits and peers, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ase_kinoson.bench.timing import Sample

__all__ = ["Figure", "Limit", "Peer", "Row", "Target", "rate", "seconds"]

SECONDS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
"""Units of time in a second."""


@dataclass(frozen=True)
class Target:
    """What a figure shall reach.

    Attributes
    ----------
    value : float
        In the unit of the figure.
    at_least : bool
        False: at most.
    """

    value: float
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.value if self.at_least else value <= self.value


@dataclass(frozen=True)
class Limit:
    """What the machine would allow at best.

    Attributes
    ----------
    name : str
        What it is.
    value : float
        In the unit of the figure.
    share : float
        How much of it is reached, 0 to 1.
    """

    name: str
    value: float
    share: float


@dataclass(frozen=True)
class Peer:
    """The same done by another program.

    Attributes
    ----------
    name : str
        What it is.
    version : str
        Empty where it is absent.
    value : float or None
        In the unit of the figure; None where it is absent.
    ratio : float or None
        How many times better this package is.
    note : str
        How it was asked, or why it is absent.
    """

    name: str
    version: str = ""
    value: float | None = None
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes
    ----------
    name : str
    value : float
        Median over the repeats where it was timed.
    unit : str
    low, high : float or None
        Smallest and largest of the repeats.
    repeats : int
        1 for numbers that are counted and not timed.
    threads : int
    target : Target or None
    limit : Limit or None
    peer : Peer or None
    """

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    repeats: int = 1
    threads: int = 1
    target: Target | None = None
    limit: Limit | None = None
    peer: Peer | None = None


@dataclass(frozen=True)
class Row:
    """One topic.

    Attributes
    ----------
    name : str
    what : str
        One sentence.
    figures : tuple of Figure
    limited_by : str
        One sentence.
    notes : tuple of str
        What a reader of the figures has to know.
    seconds : float
        Wall time of all of it, s.
    peak_memory_MB : float or None
        Largest memory of its process.
    error : str
        Why there are no figures; empty where there are.
    """

    name: str
    what: str
    figures: tuple[Figure, ...] = ()
    limited_by: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_memory_MB: float | None = None
    error: str = field(default="")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; every figure says whether its target is reached."""
        found = asdict(self)
        for one, figure in zip(found["figures"], self.figures, strict=True):
            one["reached"] = None if figure.target is None else figure.target.reached(figure.value)
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Row:
        """Undo :meth:`as_dict`."""
        figures = []
        for one in found["figures"]:
            plain = {k: v for k, v in one.items() if k != "reached"}
            for name, kind in (("target", Target), ("limit", Limit), ("peer", Peer)):
                plain[name] = None if plain[name] is None else kind(**plain[name])
            figures.append(Figure(**plain))
        return cls(**{**found, "figures": tuple(figures), "notes": tuple(found["notes"])})


def rate(name: str, found: Sample, amount: float, unit: str, **other: Any) -> Figure:
    """Amount per time, from the times of that amount."""
    return Figure(
        name, amount / found.median, unit, amount / found.high, amount / found.low, len(found.values), **other
    )


def seconds(name: str, found: Sample, unit: str = "s", *, per: float = 1.0, **other: Any) -> Figure:
    """Time of one of ``per`` equal things, in s, ms or µs."""
    scale = SECONDS[unit] / per
    values = (found.median * scale, found.low * scale, found.high * scale)
    return Figure(name, values[0], unit, values[1], values[2], len(found.values), **other)


def with_limit(figure: Figure, name: str, value: float) -> Figure:
    """The figure beside what the machine would allow; more is better where the unit is one per time."""
    share = value / figure.value if figure.unit in SECONDS else figure.value / value
    return replace(figure, limit=Limit(name, value, share))
