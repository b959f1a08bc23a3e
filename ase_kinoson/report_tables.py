"""Tables of the report: every cell knows its number, so that a table sorts by it and leaves as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ase_kinoson.report_parts import kind, prose, show

__all__ = ["ERRORS", "WIDE", "Cell", "cell", "percent_of", "table", "temperatures"]

ERRORS = "value ± one standard error"

LEAD = re.compile(r"\(?[+−]?\d+")
"""What stands before the decimal point."""

WIDE = 4
"""Temperatures that stand side by side on a sheet of paper."""

FEW = 6
"""Quantities that do, where there are more temperatures."""

TALL = 30
"""Rows from which on a table may go on overleaf."""

LONG = 24
"""Characters of a row's name that need a wider first column."""


@dataclass(frozen=True)
class Cell:
    """A cell that holds a number.

    Attributes
    ----------
    text : str
        As it is read.
    value, error : float or None
        In full, in ``unit``; None where it is not known.
    unit : str
        As in ``summary.json``; ``"1"`` for none.
    kind : str
        What kind of number it is.
    strong : bool
        Whether it is the number to use.
    """

    text: str
    value: float | None = None
    error: float | None = None
    unit: str = "1"
    kind: str = ""
    strong: bool = False


def cell(
    number: Mapping[str, Any] | None,
    *,
    text: str | None = None,
    percent: bool = False,
    signed: bool = False,
    strong: bool = False,
) -> Cell:
    """Cell of a number of the summary.

    Parameters
    ----------
    number
        Value, error, unit and kind.
    text
        Instead of value ± error and unit.
    percent, signed
        As :func:`~ase_kinoson.report_parts.show` takes them.
    strong
        Whether it is the number to use.
    """
    words = show(number, percent=percent, signed=signed) if text is None else text
    if number is None or number.get("value") is None:
        return Cell(words)
    error = number.get("error")
    return Cell(
        words,
        float(number["value"]),
        None if error is None else float(error),
        str(number["unit"]),
        kind(number),
        strong,
    )


def percent_of(number: Mapping[str, Any] | None) -> Cell:
    """Small share of something, two digits."""
    if number is None or number["value"] is None:
        return Cell("not known")
    return cell(number, text=f"{100 * number['value']:.2g} %")


Across = tuple[str, Sequence["str | Cell"]]
"""Name and labels of what the columns behind the first stand for, such as temperatures."""


def temperatures(s: Mapping[str, Any]) -> Across:
    """What the columns of a table by temperature stand for."""
    given = [float(row["temperature"]["value"]) for row in s["temperatures"]]
    return "temperature", [Cell(f"{t:g} K", t, unit="K") for t in given]


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    *,
    name: str,
    caption: str,
    kinds: bool = False,
    across: Across | None = None,
) -> str:
    """HTML table whose first column names the rows; all text is escaped.

    Parameters
    ----------
    head
        Names of the columns, without those of ``across``.
    rows
        Cells from left to right.
    name
        Unique in the page; makes the ids.
    caption
        What the table holds and how its errors are meant.
    kinds
        Say what kind of numbers each row holds: in a last column, or in the caption where all are alike.
    across
        What the columns behind the first stand for; where they are too many for paper, they become rows.
    """
    lines = [tuple(row) for row in rows]
    if across is not None:
        head, lines = _spread(head, lines, across)
    if kinds:
        found = [_kinds(row) for row in lines]
        if len(set(found)) == 1:
            caption = f"{caption}; kind: {found[0]}" if found[0] else caption
        else:
            head, lines = (*head, "kind"), [(*row, said) for row, said in zip(lines, found, strict=True)]
    top = "".join(f"<th scope='col'>{prose(h)}</th>" for h in head)
    widths = [_lead_width(column) for column in zip(*lines, strict=True)]
    names = [row[0].text if isinstance(row[0], Cell) else row[0] for row in lines]
    long = " class='long'" if max(map(len, names), default=0) > LONG else ""
    tall = " tall" if len(lines) > TALL else ""
    body, before = "", ""
    for first, row in zip(names, lines, strict=True):
        repeated = " class='rep'" if first == before else ""
        body += f"<tr{repeated}>{''.join(_td(i, c, widths[i]) for i, c in enumerate(row))}</tr>\n"
        before = first
    return (
        f"<div class='table{tall}'><div class='bar'>"
        f"<p class='cap' id='table-{name}'>{escape(caption, quote=False)}</p></div>"
        f"<div class='scroll' tabindex='0' role='region' aria-labelledby='table-{name}'>"
        f"<table{long} aria-labelledby='table-{name}'>\n<thead><tr>{top}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table></div></div>"
    )


def _spread(
    head: Sequence[str], lines: list[tuple[str | Cell, ...]], across: Across
) -> tuple[Sequence[str], list[tuple[str | Cell, ...]]]:
    """Put what ``across`` names into columns; where there are many, the quantities, or one line for each number."""
    what, labels = across
    n = len(labels)
    if n <= WIDE:
        words = [c.text if isinstance(c, Cell) else c for c in labels]
        return (head[0], *(f"at {w}" if what == "temperature" else w for w in words), *head[1:]), lines
    if len(head) == 1 and len(lines) <= FEW:
        names = [row[0].text if isinstance(row[0], Cell) else row[0] for row in lines]
        return (what, *names), [(label, *(row[1 + i] for row in lines)) for i, label in enumerate(labels)]
    long = [(row[0], label, row[1 + i], *row[1 + n :]) for row in lines for i, label in enumerate(labels)]
    return (head[0], what, "value", *head[1:]), long


def _kinds(row: Sequence[str | Cell]) -> str:
    return " / ".join(dict.fromkeys(c.kind for c in row if isinstance(c, Cell) and c.kind))


def _lead_width(column: Iterable[str | Cell]) -> int:
    """Width of what stands before the decimal point, where it differs from row to row; else 0."""
    found = [LEAD.match(c.text) for c in column if isinstance(c, Cell) and c.value is not None]
    lengths = {len(m.group(0)) for m in found if m}
    return max(lengths) if len(lengths) > 1 else 0


def _td(column: int, c: str | Cell, width: int) -> str:
    if not isinstance(c, Cell):
        text = escape(c, quote=False)
        return f"<th scope='row'>{text}</th>" if column == 0 else f"<td class='k'>{text}</td>"
    tag, scope = ("th", " scope='row'") if column == 0 else ("td", "")
    if c.value is None or not np.isfinite(c.value):
        return f"<{tag}{scope} class='k'>{escape(c.text, quote=False)}</{tag}>"
    data = f" data-value='{c.value!r}'"
    if c.error is not None and np.isfinite(c.error):
        data += f" data-error='{c.error!r}'"
    data += f" data-unit='{escape(c.unit, quote=True)}'"
    return f"<{tag}{scope} class='n{' best' if c.strong else ''}'{data}>{_aligned(c.text, width)}</{tag}>"


def _aligned(text: str, width: int) -> str:
    """Decimal points of a column stand below each other; a line may end before a power of ten only."""
    mantissa, times, power = text.partition(" × ")
    found = LEAD.match(mantissa) if width else None
    lead = found.group(0) if found else ""
    pad = f"<span class='lead' style='min-width:{width}ch'>{lead}</span>" if lead else ""
    first = f"<span class='q'>{pad}{escape(mantissa[len(lead) :], quote=False)}</span>"
    return first + (f" <span class='q'>× {escape(power, quote=False)}</span>" if times else "")
