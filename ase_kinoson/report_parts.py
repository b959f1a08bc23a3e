"""Parts of the report: reading what a study wrote, and numbers as text."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ase_kinoson.errors import StudyError
from ase_kinoson.seals import newer, read_json_file, unsealed

__all__ = ["SHORT_KINDS", "floats", "kind", "prose", "read_csv", "read_summary", "show"]

Number = Mapping[str, Any]

_SUPERSCRIPT = str.maketrans("0123456789-+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺")
SHORT_KINDS = {
    "bound": "upper bound",
    "bound (diagonal), estimate (off-diagonal)": "upper bound on the diagonal, else estimate",
    "fraction of jumps that carries this share": "weighted count of jumps",
    "share of one group of states in D_v": "share of one group of states",
    "share of Λ with y = 0 on barriers that are bounds": "share for y = 0",
    "standard deviation of reference minus model": "standard deviation",
    "Kish, of contributions to D_v": "Kish, of contributions to D",
}
"""How the kinds of numbers are called in tables."""


SUMMARY = "ase_kinoson.summary"


def read_summary(path: Path) -> dict[str, Any]:
    """Read ``summary.json``."""
    try:
        summary = read_json_file(path)
    except FileNotFoundError:
        raise StudyError(
            f"found no {path.name} in {str(path.parent)!r}; expected the output folder of a finished study; "
            "run 'ase-kinoson run' first"
        ) from None
    except (OSError, ValueError) as error:
        raise StudyError(
            f"cannot read {str(path)!r} ({error}); expected the summary of a finished study; run the study again"
        ) from error
    kind = summary.get("format", SUMMARY) if isinstance(summary, dict) and "@class" not in summary else None
    if str(kind).partition("/")[0] != SUMMARY:
        raise StudyError(f"{str(path)!r} holds something else; expected the summary of a study; run the study again")
    versions = summary.get("versions")
    by = {"written_by": versions.get("ase-kinoson")} if isinstance(versions, dict) else {}
    wrong = newer(_layout(summary), 1, by) or unsealed(summary)
    if wrong:
        raise StudyError(
            f"the summary {str(path)!r}: {wrong}; expected it as the study wrote it; run 'ase-kinoson transport' "
            "again, or take 'seal' and 'digest' out of it if it was changed on purpose"
        )
    return summary


def _layout(summary: dict[str, Any]) -> int:
    """Version of the layout; those of the first versions name none."""
    number = str(summary.get("format", "")).rpartition("/")[2]
    return int(number) if number.isdecimal() and len(number) < 9 else 0


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Columns by name without unit; numbers where all entries are numbers."""
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            header, *rows = list(csv.reader(handle))
        columns = list(zip(*rows, strict=True))
    except (OSError, ValueError, IndexError) as error:
        raise StudyError(
            f"cannot read {str(path)!r} ({error}); expected the table of a finished study; run the study again"
        ) from error
    found: dict[str, np.ndarray] = {}
    for name, column in zip(header, columns, strict=False):
        try:
            values = np.array([float(x) if x else np.nan for x in column])
        except ValueError:
            values = np.array(column)
        found[name.partition(" [")[0]] = values
    return found


# -- numbers -------------------------------------------------------------------------------------------------


def _unit(unit: str) -> str:
    if unit == "1":
        return ""
    return unit.replace("^2", "²").replace("^3", "³").replace("1/s", "s⁻¹")


def _plain(value: float, error: float | None, *, signed: bool = False) -> str:
    """Digits as many as the error allows; powers of ten written out."""
    sign = "+" if signed else ""
    size = max(abs(value), 0.0 if error is None else abs(error))
    exponent = int(np.floor(np.log10(size))) if size > 0 else 0
    power = exponent if not -3 <= exponent <= 4 else 0
    v = value / 10.0**power
    if error is None:
        digits = max(0, 3 - 1 - (exponent - power))
        text = f"{v:{sign}.{digits}f}"
    else:
        e = error / 10.0**power
        digits = min(6, max(0, 1 - int(np.floor(np.log10(e))))) if e > 0 else max(0, 2 - (exponent - power))
        text = f"{v:{sign}.{digits}f} ± {e:.{digits}f}"
    if power:
        text = (f"({text})" if error is not None else text) + " × 10" + str(power).translate(_SUPERSCRIPT)
    return text.replace("-", "−")


def show(number: Number | None, *, percent: bool = False, signed: bool = False) -> str:
    """Value ± error and unit as text."""
    if number is None or number.get("value") is None:
        return "not known"
    value, error, unit = float(number["value"]), number.get("error"), str(number["unit"])
    error = None if error is None else float(error)
    if percent:
        text = _plain(100 * value, None if error is None else 100 * error, signed=signed)
        return f"{text} %" if error is None else f"({text}) %"
    if number["kind"] == "count":
        return f"{int(value)}"
    return f"{_plain(value, error, signed=signed)} {_unit(unit)}".strip()


def kind(number: Number | None) -> str:
    """What kind of number it is, in words."""
    return "" if number is None else SHORT_KINDS.get(str(number["kind"]), str(number["kind"]))


QUANTITY = re.compile(
    r"\(?[+−]?\d[\d.]*(?: ± [\d.]+)?\)?(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?(?: (?:%|K|eV²?|meV|m²/s|Å²?/s|s⁻¹|s)(?![\w]))?"
)


def prose(text: str) -> str:
    """Escape a sentence; no line ends between a number, its error and its unit."""

    def together(found: re.Match[str]) -> str:
        whole = found.group(0)
        return f"<span class='q'>{whole}</span>" if " " in whole else whole

    return QUANTITY.sub(together, escape(text, quote=False))


def floats(values: Any) -> np.ndarray:
    """Numbers of a summary as an array, NaN where it holds none."""
    return np.array([np.nan if v is None else float(v) for v in values])
