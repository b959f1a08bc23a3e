"""Measured diffusivities read from a table, to lay over calculated ones."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.given_files import given_text

__all__ = ["MeasuredDiffusivity", "read_measured_diffusivity"]

ZERO_CELSIUS = 273.15
TEMPERATURE = {"K": 0.0, "C": ZERO_CELSIUS, "°C": ZERO_CELSIUS, "degC": ZERO_CELSIUS}
"""What to add to get kelvin."""

DIFFUSIVITY = {"m2/s": 1.0, "cm2/s": 1e-4}
"""What to multiply with to get m²/s."""

HEADER = re.compile(r"^\s*(?P<name>[^\[(]*?)\s*(?:[\[(]\s*(?P<unit>[^\])]*?)\s*[\])])?\s*$")
EXPECTED = "columns 'temperature [K]' (or [C]) and 'diffusivity [m2/s]' (or [cm2/s])"


@dataclass(frozen=True, eq=False)
class MeasuredDiffusivity:
    """Measured points.

    Attributes
    ----------
    temperature_K : ndarray, shape (n,)
        K.
    diffusivity, error : ndarray, shape (n,)
        m²/s; the error is NaN where none is given.
    species, source : ndarray of str, shape (n,)
        Who diffuses and who measured; empty where not given.
    """

    temperature_K: NDArray[np.float64]
    diffusivity: NDArray[np.float64]
    error: NDArray[np.float64]
    species: NDArray[Any]
    source: NDArray[Any]

    def __len__(self) -> int:
        return len(self.temperature_K)

    def __getitem__(self, index: Any) -> MeasuredDiffusivity:
        """Select points by slice, index array or mask."""
        return MeasuredDiffusivity(*(np.atleast_1d(getattr(self, f.name)[index]) for f in fields(self)))

    def of(self, species: str) -> MeasuredDiffusivity:
        """Points of one species.

        Parameters
        ----------
        species
            Symbol.
        """
        return self[self.species == species]


def read_measured_diffusivity(path: str | Path) -> MeasuredDiffusivity:
    """Read measured diffusivities from a CSV file whose header names every unit.

    Parameters
    ----------
    path
        A header line with ``temperature [K]`` (or ``[C]``) and ``diffusivity [m2/s]`` (or ``[cm2/s]``), and perhaps
        ``error`` with a unit of its own, ``species`` and ``source``, in any order. Lines that begin with ``#``, empty
        ones and other columns are passed over.

    Returns
    -------
    MeasuredDiffusivity
        In K and m²/s.

    Raises
    ------
    KinosonError
        If the file cannot be read, a column or a unit is missing or unknown, or a value is no positive number.
    """
    text = given_text(path, expected="a CSV file with measured diffusivities", empty=True)
    try:
        return _points(text, path)
    except csv.Error as error:
        raise KinosonError(f"cannot read {path} ({error}); expected {EXPECTED}; correct it") from error


def _points(text: str, path: str | Path) -> MeasuredDiffusivity:
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    if len(lines) < 2:
        raise KinosonError(f"found no measured points in {path}; expected {EXPECTED} and one line per point; add them")
    columns = _header(next(csv.reader([lines[0][1]], skipinitialspace=True)), path)
    t_unit = _unit(columns, "temperature", TEMPERATURE, path)
    d_unit = _unit(columns, "diffusivity", DIFFUSIVITY, path)
    e_unit = _unit(columns, "error", DIFFUSIVITY, path) if "error" in columns else 1.0
    rows = []
    for number, line in lines[1:]:
        cells = next(csv.reader([line], skipinitialspace=True))

        def cell(name: str, cells: list[str] = cells) -> str:
            i = columns[name][0] if name in columns else len(cells)
            return cells[i].strip() if i < len(cells) else ""

        t = _number(cell("temperature"), "temperature", path, number) + t_unit
        d = _number(cell("diffusivity"), "diffusivity", path, number) * d_unit
        e = _number(cell("error"), "error", path, number) * e_unit if cell("error") else np.nan
        if not (0 < t < np.inf and 0 < d < np.inf) or e < 0 or e == np.inf:
            raise KinosonError(
                f"found {line.strip()[:200]!r} in line {number} of {path}; expected a temperature above 0 K, a "
                "diffusivity above 0 and an error that is not negative; correct it"
            )
        rows.append((t, d, e, cell("species"), cell("source")))
    return MeasuredDiffusivity(*(np.array(column) for column in zip(*rows, strict=True)))


def _header(cells: list[str], path: str | Path) -> dict[str, tuple[int, str | None]]:
    columns: dict[str, tuple[int, str | None]] = {}
    for i, text in enumerate(cells):
        match = HEADER.match(text)
        name = match["name"].strip().lower() if match else text.strip().lower()
        if name in columns and name in ("temperature", "diffusivity", "error", "species", "source"):
            raise KinosonError(f"found two columns {name!r} in {path}; expected one; remove or rename the other")
        columns[name] = (i, match["unit"] if match else None)
    missing = [name for name in ("temperature", "diffusivity") if name not in columns]
    if missing:
        raise KinosonError(
            f"found the columns {[c.strip() for c in cells]} in {path}; expected {EXPECTED}; rename them"
        )
    return columns


def _unit(columns: dict[str, tuple[int, str | None]], name: str, known: dict[str, float], path: str | Path) -> float:
    unit = columns[name][1]
    if unit is None:
        raise KinosonError(
            f"found the column {name!r} without a unit in {path}; expected one of {list(known)}; write "
            f"'{name} [{next(iter(known))}]' in the header"
        )
    plain = unit.replace("²", "2").replace("^", "").replace("**", "")
    if plain not in known:
        raise KinosonError(f"found the unit {unit!r} of {name!r} in {path}; expected one of {list(known)}; convert it")
    return known[plain]


def _number(text: str, name: str, path: str | Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise KinosonError(
            f"found {name} {text[:200]!r} in line {line} of {path}; expected a number; correct it"
        ) from None
