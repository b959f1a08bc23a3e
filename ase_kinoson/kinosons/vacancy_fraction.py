"""`VacancyFraction`: the site fraction of vacancies c_v(T), with its error and where it comes from."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.given_files import given_text
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.units import thermal_energy

__all__ = ["VacancyFraction", "fraction_at"]

KELVIN = {"K": (1.0, 0.0), "C": (1.0, 273.15), "°C": (1.0, 273.15)}
"""Units of a temperature: K = factor · number + offset."""
FRACTION = {"1": 1.0, "%": 1e-2, "at.%": 1e-2, "ppm": 1e-6, "at.ppm": 1e-6, "ppb": 1e-9}
"""Units of a site fraction."""
SAME_COMPOSITION = 0.02
"""Largest difference of a fraction between the alloy of a calculated c_v and that of the states."""


@dataclass(frozen=True, eq=False)
class VacancyFraction:
    """Site fraction of vacancies on the mobile sites, as a function of temperature.

    Make one with :meth:`constant`, :meth:`from_formation`, :meth:`from_table`, or from a calculation with
    :func:`vacancy_formation`.

    Attributes
    ----------
    curve : callable
        Temperature (K) → (c_v, standard error).
    source : str
        Where it comes from, in words.
    kind : str
        ``"given"`` or ``"calculated"``.
    constant_in_temperature : bool
        Whether :meth:`at` needs no temperature.
    composition : mapping of str to float, or None
        Fractions of the atoms of the alloy it was calculated for.

    Notes
    -----
    What enters, and what is approximated: docs/vacancies.md#the-formula.
    """

    curve: Callable[[float], tuple[float, float]] = field(repr=False)
    source: str
    kind: str = "given"
    constant_in_temperature: bool = False
    composition: Mapping[str, float] | None = None

    @classmethod
    def constant(cls, value: float, error: float = 0.0, *, source: str = "a given number") -> VacancyFraction:
        """One number for all temperatures.

        Parameters
        ----------
        value, error
            Site fraction and its standard error, no unit.
        source
            Where the number comes from.

        Raises
        ------
        KinosonError
            If it is no site fraction.
        """
        _checked(value, error)
        return cls(_Constant(float(value), float(error)), source, constant_in_temperature=True)

    @classmethod
    def from_formation(
        cls,
        energy_eV: float,
        entropy_kB: float = 0.0,
        *,
        energy_error: float = 0.0,
        entropy_error: float = 0.0,
        source: str | None = None,
    ) -> VacancyFraction:
        """c_v = exp(S_f/k_B) exp(−E_f/k_BT).

        Parameters
        ----------
        energy_eV, energy_error
            Formation energy and its standard error, eV.
        entropy_kB, entropy_error
            Formation entropy (of vibrations) and its standard error, in units of k_B.
        source
            Where the numbers come from.

        Raises
        ------
        KinosonError
            If a number is not finite, or an error is negative.
        """
        for name, number, low in (
            ("energy_eV", energy_eV, -np.inf),
            ("entropy_kB", entropy_kB, -np.inf),
            ("energy_error", energy_error, 0.0),
            ("entropy_error", entropy_error, 0.0),
        ):
            if not (np.isfinite(number) and number >= low):
                raise KinosonError(f"found {name}={number!r}; expected a finite number, errors ≥ 0; correct it")

        curve = _Formation(float(energy_eV), float(entropy_kB), float(energy_error), float(entropy_error))
        said = f"formation energy {energy_eV:g} eV and entropy {entropy_kB:g} k_B"
        return cls(curve, said if source is None else f"{said} ({source})")

    @classmethod
    def from_table(
        cls,
        table: str | Path | Sequence[ArrayLike],
        *,
        beyond_K: float = 50.0,
        source: str | None = None,
        kind: str = "given",
    ) -> VacancyFraction:
        """Interpolate a table, linearly in ln c_v against 1/T.

        Parameters
        ----------
        table : path, or two or three array_like of shape (n,) each
            A CSV file whose header names units: ``temperature [K]``, ``vacancy_fraction [1]`` (or ``[%]``, ``[ppm]``,
            ``[ppb]``) and, if known, ``error [...]``; lines that begin with ``#`` and other columns are passed over. Or
            arrays: temperatures in K, site fractions, and their standard errors if known, taken as common to all rows.
        beyond_K
            How far beyond its ends the table is continued, K.
        source
            Where the numbers come from; default the name of the file.
        kind
            ``"given"`` or ``"calculated"``.

        Raises
        ------
        KinosonError
            If units are missing, a number is no site fraction, or there are fewer than two temperatures.
        """
        if isinstance(table, str | Path):
            columns = _read(Path(table))
            said = f"table {Path(table).name}" if source is None else source
        else:
            columns = [np.asarray(c, dtype=float).ravel() for c in table]
            said = "a given table" if source is None else source
        if len(columns) not in (2, 3) or len({len(c) for c in columns}) != 1:
            raise KinosonError(
                f"found a table of {len(columns)} columns of lengths {[len(c) for c in columns]}; expected "
                "temperatures, vacancy fractions and, if known, their errors, equally many; correct it"
            )
        order = np.argsort(columns[0])
        t, c = columns[0][order], columns[1][order]
        e = columns[2][order] if len(columns) == 3 else np.zeros(len(t))
        if len(t) < 2 or not np.all(np.diff(t) > 0) or not t[0] > 0 or not np.isfinite(t).all():
            raise KinosonError(
                f"found a table of vacancy fractions at {t.tolist()} K; expected at least two temperatures above 0, "
                "each once; give more rows, or use VacancyFraction.constant or .from_formation"
            )
        for value, error in zip(c, e, strict=True):
            _checked(float(value), float(error))

        curve = _Table(tuple(t.tolist()), tuple(c.tolist()), tuple(e.tolist()), float(beyond_K))
        return cls(curve, said, kind)

    def at(self, temperature_K: float | None = None) -> Quantity:
        """c_v at a temperature.

        Parameters
        ----------
        temperature_K
            K; not needed for a constant.

        Raises
        ------
        KinosonError
            If it is no site fraction there, the temperature is outside the table, or a temperature is missing.
        """
        if temperature_K is None and not self.constant_in_temperature:
            raise KinosonError(
                f"found a vacancy fraction that depends on temperature ({self.source}) and no temperature_K; expected "
                "both; pass temperature_K"
            )
        value, error = self.curve(np.nan if temperature_K is None else float(temperature_K))
        where = "" if temperature_K is None or self.constant_in_temperature else f" at {temperature_K:g} K"
        _checked(value, error, f"{where} from {self.source}")
        return Quantity(value, error, "1", self.kind)

    def __str__(self) -> str:
        return f"vacancy fraction from {self.source}"


def fraction_at(
    given: float | VacancyFraction | None,
    temperature_K: float | None,
    composition: Mapping[str, float] | None = None,
    *,
    within: float = SAME_COMPOSITION,
) -> tuple[Quantity, str] | None:
    """Return c_v and its source from what a user gives as ``vacancy_fraction``; None where nothing is given.

    Parameters
    ----------
    given
        A number, or c_v(T).
    temperature_K
        K.
    composition
        Fractions of the atoms of the states.
    within
        Largest difference of a fraction from the alloy that c_v was calculated for; small cells need more, since the
        vacancy stands for one of their atoms.

    Raises
    ------
    KinosonError
        If it is no site fraction, or was calculated for another alloy than that of ``composition``.
    """
    if given is None:
        return None
    if not isinstance(given, VacancyFraction):
        try:
            number = float(given)
        except (TypeError, ValueError):
            raise KinosonError(
                f"found vacancy_fraction={given!r}; expected a number or a VacancyFraction; correct it"
            ) from None
        given = VacancyFraction.constant(number)
    if given.composition is not None and composition is not None:
        names = sorted(set(given.composition) | set(composition))
        apart = max(abs(given.composition.get(s, 0.0) - composition.get(s, 0.0)) for s in names)
        if apart > within:
            raise KinosonError(
                f"found a vacancy fraction calculated for {_said(given.composition)} and states of "
                f"{_said(composition)}; expected one composition; calculate it for this alloy"
            )
    return given.at(temperature_K), given.source


# classes and no functions within functions: a fraction travels to other processes, and into JSON


@dataclass(frozen=True)
class _Constant:
    value: float
    error: float

    def __call__(self, temperature: float) -> tuple[float, float]:
        return self.value, self.error


@dataclass(frozen=True)
class _Formation:
    energy_eV: float
    entropy_kB: float
    energy_error: float
    entropy_error: float

    def __call__(self, temperature: float) -> tuple[float, float]:
        kT = thermal_energy(temperature)
        value = float(np.exp(min(self.entropy_kB - self.energy_eV / kT, 700.0)))
        return value, value * float(np.hypot(self.energy_error / kT, self.entropy_error))


@dataclass(frozen=True)
class _Table:
    temperatures: tuple[float, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    beyond_K: float

    def __call__(self, temperature: float) -> tuple[float, float]:
        t, c, e = self.temperatures, self.values, self.errors
        if not t[0] - self.beyond_K <= temperature <= t[-1] + self.beyond_K:
            raise KinosonError(
                f"found temperature_K={temperature:g}, outside the table of vacancy fractions ({t[0]:g} to "
                f"{t[-1]:g} K) by more than {self.beyond_K:g} K; expected a temperature it covers; add rows to the "
                "table (in Python, from_table(..., beyond_K=) goes on further)"
            )
        i = int(np.clip(np.searchsorted(t, temperature) - 1, 0, len(t) - 2))
        share = (1 / temperature - 1 / t[i]) / (1 / t[i + 1] - 1 / t[i])
        log = (1 - share) * np.log(c[i]) + share * np.log(c[i + 1])
        # common to both ends, as errors of c_v are taken to be: no number between is surer than they are
        relative = abs(1 - share) * e[i] / c[i] + abs(share) * e[i + 1] / c[i + 1]
        return float(np.exp(log)), float(np.exp(log) * relative)


def _said(composition: Mapping[str, float]) -> str:
    return " ".join(f"{s} {x:.3f}" for s, x in composition.items())


def _checked(value: float, error: float, where: str = "") -> None:
    if not 0 < value <= 1:
        raise KinosonError(
            f"found vacancy_fraction={value:.6g}{where}; expected a site fraction above 0 and at most 1; correct it"
        )
    if not error >= 0 and not np.isnan(error):
        raise KinosonError(f"found error={error:.6g} of a vacancy fraction; expected at least 0; correct it")


def _lines(text: str) -> list[str]:
    return [x for x in text.splitlines() if x.strip() and x.strip()[0] != "#"]


def _read(path: Path) -> list[NDArray[np.float64]]:
    """Columns of a CSV file in K and site fractions."""
    try:
        text = given_text(path, expected="a CSV file", empty=True)
        rows = [[cell.strip() for cell in row] for row in csv.reader(_lines(text))]
    except (KinosonError, csv.Error) as error:
        more = "" if isinstance(error, KinosonError) else "; expected a CSV file; correct it"
        raise KinosonError(f"cannot read the table of vacancy fractions: {error}{more}") from error
    wanted = "'temperature [K]', 'vacancy_fraction [1]' and, if known, 'error [1]'"
    found: dict[str, tuple[int, str]] = {}
    for i, head in enumerate(rows[0] if rows else []):
        match = re.fullmatch(r"(\w*)\s*(\[\s*(?P<unit>[^\]]*?)\s*\]|.*)", head)
        name = "" if match is None else match[1].lower()
        name = {"vacancy_fraction_error": "error"}.get(name, name)
        if match is None or name not in ("temperature", "vacancy_fraction", "error"):
            continue
        if match["unit"] is None:
            raise KinosonError(f"found column {head!r} without a unit in {path.name}; expected {wanted}; add the units")
        if name in found:
            raise KinosonError(f"found two columns {name!r} in {path.name}; expected one; remove or rename the other")
        found[name] = (i, match["unit"])
    for name, units in (("temperature", KELVIN), ("vacancy_fraction", FRACTION), ("error", FRACTION)):
        if name not in found and name != "error":
            raise KinosonError(
                f"found columns {rows[0] if rows else []} in {path.name}; expected {wanted}; rename or add them"
            )
        if name in found and found[name][1] not in units:
            raise KinosonError(
                f"found unit {found[name][1]!r} of {name} in {path.name}; expected one of {list(units)}; convert it"
            )
    columns = []
    for name in ("temperature", "vacancy_fraction", "error"):
        if name not in found:
            continue
        i, unit = found[name]
        try:
            numbers = np.array([float(row[i]) for row in rows[1:]])
        except (ValueError, IndexError) as error:
            raise KinosonError(
                f"cannot read column {name!r} of {path.name} ({error}); expected one number in each row; correct it"
            ) from None
        factor, offset = KELVIN[unit] if name == "temperature" else (FRACTION[unit], 0.0)
        columns.append(factor * numbers + offset)
    return columns
