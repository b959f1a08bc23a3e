"""The measured rows as text: an aligned table for people, a table in Markdown for a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ase_kinoson.bench.row import Figure, Row

__all__ = ["as_json", "machine_line", "markdown", "text"]

FORMAT = "ase_kinoson.bench"
VERSION = 1

HEAD = ("figure", "threads", "value", "spread", "unit", "target", "limit", "share", "peer", "ratio")


def as_json(machine: Mapping[str, Any], rows: Sequence[Row], *, quick: bool) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "quick": quick,
        "machine": dict(machine),
        "rows": [row.as_dict() for row in rows],
    }


def number(value: float | None) -> str:
    """A few digits, with thousands set apart."""
    if value is None:
        return "-"
    if value == 0 or not value - value == 0:
        return f"{value:g}"
    if abs(value) >= 1e7:
        return f"{value / 1e6:,.3g} million"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def spread(figure: Figure) -> str:
    """Smallest to largest of the repeats."""
    if figure.low is None or figure.high is None:
        return "-"
    return f"{number(figure.low)} to {number(figure.high)}"


def cells(figure: Figure) -> list[str]:
    """The columns of ``HEAD``."""
    target, share, peer = "-", "-", "-"
    if figure.target is not None:
        sign = "≥" if figure.target.at_least else "≤"
        verdict = "reached" if figure.target.reached(figure.value) else "not reached"
        target = f"{sign} {number(figure.target.value)}: {verdict}"
    limit, ratio = "-", "-"
    if figure.limit is not None:
        limit, share = f"{figure.limit.name}: {number(figure.limit.value)}", f"{100 * figure.limit.share:.0f} %"
    if figure.peer is not None:
        peer = f"{figure.peer.name} {figure.peer.version}".strip()
        peer += f": {number(figure.peer.value)}" if figure.peer.value is not None else f": {figure.peer.note}"
        ratio = "-" if figure.peer.ratio is None else f"{number(figure.peer.ratio)} ×"
    return [
        figure.name, str(figure.threads), number(figure.value), spread(figure), figure.unit, target, limit, share, peer,
        ratio,
    ]  # fmt: skip


def text(rows: Sequence[Row]) -> Iterator[str]:
    """Lines for a terminal: figures first, then limits and peers below them."""
    every = [cells(figure)[:6] for row in rows for figure in row.figures]
    widths = [max([len(h), *(len(c[i]) for c in every)]) for i, h in enumerate(HEAD[:6])]

    def line(values: Sequence[str]) -> str:
        return ("  " + "  ".join(v.ljust(w) for v, w in zip(values, widths, strict=True))).rstrip()

    yield line(HEAD[:6])
    yield line(["-" * w for w in widths])
    for row in rows:
        memory = "" if row.peak_memory_MB is None else f", {row.peak_memory_MB:.0f} MB"
        yield ""
        yield f"{row.name} ({row.seconds:.0f} s{memory})"
        yield from textwrap.wrap(row.what, 116, initial_indent="  ", subsequent_indent="  ")
        if row.error:
            yield from textwrap.wrap(f"no figures: {row.error}", 116, initial_indent="  ", subsequent_indent="  ")
            continue
        for figure in row.figures:
            found = cells(figure)
            yield line(found[:6])
            if figure.limit is not None:
                yield f"      limit  {found[6]} {figure.unit}, {found[7]} reached"
            if figure.peer is not None:
                beside = f"peer   {found[8]}"
                if figure.peer.value is not None:
                    note = f" ({figure.peer.note})" if figure.peer.note else ""
                    beside += f" {figure.unit}; ratio {found[9]}{note}"
                yield from textwrap.wrap(beside, 116, initial_indent="      ", subsequent_indent="             ")
        told = [f"limited by: {row.limited_by}"] if row.limited_by else []
        for note in [*told, *row.notes]:
            yield from textwrap.wrap(note, 116, initial_indent="    ", subsequent_indent="    ")


def machine_line(machine: Mapping[str, Any]) -> str:
    """Machine and versions in one paragraph."""
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items() if value)
    loops = "compiled loops" if machine["compiled_loops"] else "no compiled loops"
    memory = "" if machine["memory_GB"] is None else f", {machine['memory_GB']:g} GB"
    return f"{machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}, {loops}; {versions}"


def markdown(found: Mapping[str, Any]) -> Iterator[str]:
    """A table of what :func:`as_json` gave, and the machine below it."""
    yield "| what | median (spread) | target | limit, share reached; peer, ratio |"
    yield "|---|---|---|---|"
    for one in found["rows"]:
        row = Row.from_dict(one)
        if not row.figures:
            why = f"no figures: {row.error}" if row.error else " ".join(row.notes)
            yield f"| `{row.name}` | {why} | | |"
        for n, figure in enumerate(row.figures):
            c = cells(figure)
            against = [] if figure.limit is None else [f"{c[6]}, {c[7]}"]
            if figure.peer is not None:
                against.append(c[8] if figure.peer.value is None else f"{c[8]}, {c[9]}")
            # narrow enough for a page: few columns, and the name of the row before its first figure
            name = (f"`{row.name}` " if n == 0 else "") + c[0]
            threads = "" if figure.threads == 1 else f", {figure.threads} threads"
            between = "" if c[3] == "-" else f" ({c[3]})"
            target = "" if figure.target is None else c[5]
            yield f"| {name}{threads} | {c[2]} {c[4]}{between} | {target} | {'; '.join(against)} |"
    yield ""
    yield "What limits each row now:"
    yield ""
    for row in map(Row.from_dict, found["rows"]):
        if row.figures and row.limited_by:
            yield f"- `{row.name}`: {row.limited_by}"
    yield ""
    yield f"Measured on {machine_line(found['machine'])}."
