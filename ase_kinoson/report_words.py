"""What the report says in sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ase_kinoson.errors import KinosonWarning
from ase_kinoson.report_parts import kind, prose, show

__all__ = ["carrier", "diagnosis", "lead", "reliable", "show_temperature", "summary_words", "warnings_list", "who"]

SURROGATE = 0.25
"""A reference that is farther than this from the model makes ratio estimates doubtful."""

TAIL = 0.05
"""A larger relative tail of the ladder makes them doubtful too."""


def carrier(s: Mapping[str, Any]) -> str:
    """What diffuses, in words."""
    return "vacancy" if s["jumps"]["mechanism"] == "vacancy" else "interstitial"


def who(s: Mapping[str, Any]) -> str:
    """What diffuses, as the summary calls it."""
    return "vacancy" if s["jumps"]["mechanism"] == "vacancy" else "carrier"


def lead(s: Mapping[str, Any]) -> str:
    """One sentence on what was computed."""
    subs = [
        " ".join(f"{a} {100 * x['value']:.4g} %" if x["value"] else a for a, x in sub["composition"].items())
        + (" (mobile)" if sub["mobile"] else "")
        for sub in s["alloy"]["sublattices"]
    ]
    calculator = s["settings"]["calculator"]["name"].rpartition(".")[2]
    return (
        f"{s['alloy']['file']}: {'; '.join(subs)} of the sites. Cell of {int(s['cell']['sites']['value'])} "
        f"sites with one {carrier(s)}, energies from {calculator}, {s['ensemble']} ensemble."
    )


def summary_words(s: Mapping[str, Any]) -> str:
    """The summary for somebody who reads nothing else."""
    rows = s["temperatures"]
    ends = rows if len(rows) == 1 else [rows[0], rows[-1]]
    total = sum(int(b["barriers"]["value"]) for b in s["barriers"].values())
    rejected = sum(int(n["value"]) for b in s["barriers"].values() for n in b["rejected"].values())
    basis = (
        f"All of it rests on {total} reference barriers ({int(s['force_calls']['value'])} force calls of the "
        f"calculator); {rejected} {'jump was' if rejected == 1 else 'jumps were'} rejected."
    )
    words = {
        "Whose jumps": _who_carries(s, ends),
        "How many jumps": _how_few(s, ends),
        "Which barriers": _barriers_of_carriers(s, ends),
        "How fast": " ".join(_how_fast(s, row) for row in ends),
        "From what": basis,
    }
    text = "".join(f"<dt>{name}</dt><dd>{prose(w)}</dd>" for name, w in words.items() if w)
    return (
        "<section class='words' aria-labelledby='summary'><h2 id='summary'>What carries diffusion, in plain words</h2>"
        f"<dl>{text}</dl></section>"
    )


def show_temperature(row: Mapping[str, Any]) -> str:
    """Temperature of a row of the summary."""
    return f"{row['temperature']['value']:g} K"


def _who_carries(s: Mapping[str, Any], ends: list[Mapping[str, Any]]) -> str:
    """Whose jumps carry the diffusivity, the largest share first."""
    shares = ends[0]["share_by_species"]
    order = sorted(shares, key=lambda a: -shares[a]["value"])
    if len(order) == 1:
        return f"All diffusion is that of {order[0]}: no other atom jumps."
    parts = [
        f"{a} jumps carry "
        + " and ".join(
            f"{show(row['share_by_species'][a], percent=True)}"
            + (f" of the {carrier(s)} diffusivity" if n == i == 0 else "")
            + f" at {show_temperature(row)}"
            for i, row in enumerate(ends)
            if a in row["share_by_species"]
        )
        for n, a in enumerate(order)
    ]
    sites = {a: x["value"] for sub in s["alloy"]["sublattices"] if sub["mobile"] for a, x in sub["composition"].items()}
    known = ", ".join(f"{100 * sites[a]:.4g} % {a}" for a in order if a in sites)
    return "; ".join(parts) + (f". The sites hold {known}." if known else ".")


def _how_few(s: Mapping[str, Any], ends: list[Mapping[str, Any]]) -> str:
    def of_all(share: str) -> str:
        return " and ".join(
            show(row["fraction_of_jumps"][share], percent=True)
            + (" of all jumps" if i == 0 else "")
            + f" at {show_temperature(row)}"
            for i, row in enumerate(ends)
        )

    return f"Half of the {carrier(s)} diffusivity is carried by {of_all('0.5')}; nine tenths of it by {of_all('0.9')}."


def _barriers_of_carriers(s: Mapping[str, Any], ends: list[Mapping[str, Any]]) -> str:
    parts = []
    for row in ends:
        mean, energy = row["mean_barrier"][who(s)], row["activation_energy"][who(s)]
        if mean and energy:
            every = _mean_of_all(s, row)
            parts.append(
                f"At {show_temperature(row)} the jumps that carry it have a mean barrier of {show(mean)}"
                + (f", against {every:.3f} eV of all jumps counted alike" if every is not None else "")
                + f"; the activation energy there is {show(energy)}."
            )
    return " ".join(parts)


def _mean_of_all(s: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """Plain mean of the reference barriers of one temperature, eV."""
    found = s["barriers"].get(show_temperature(row), {}).get("by_species", {}).values()
    pairs = [(r["mean"]["value"], r["barriers"]["value"]) for r in found if r["mean"]["value"] is not None]
    if not pairs or not sum(n for _, n in pairs):
        return None
    return float(np.average([q for q, _ in pairs], weights=[n for _, n in pairs]))


def _how_fast(s: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    value = row["vacancy_diffusivity"]
    best = (row.get("ratio_estimate") or {}).get("vacancy_diffusivity")
    limit = f"{'at most ' if value['kind'] == 'bound' else ''}with {show(value)} ({kind(value)})"
    if best is not None and best["kind"] == "ratio estimate":
        likely = f"most likely with {show(best)} ({kind(best)})"
        if value["kind"] == "bound" and best["value"] > value["value"]:
            below = f"the {kind(value)} of these states, {show(value)}, lies below it, which is chance: add states"
            return f"At {show_temperature(row)} the {carrier(s)} diffuses {likely}; {below}."
        limit = f"{likely} and {limit}"
    return f"At {show_temperature(row)} the {carrier(s)} diffuses {limit}."


def warnings_list(s: Mapping[str, Any]) -> str:
    """What the stages of the study warned of."""
    if not s["warnings"]:
        return "<p class='note'>No stage of the study gave a warning.</p>"
    if "cautions" in s:
        text = _grouped([(str(w["stage"]), KinosonWarning.from_dict(w)) for w in s["cautions"]])
    else:  # of a version that told sentences only
        text = "<ul>" + "".join(f"<li>{prose(str(w))}</li>" for w in s["warnings"]) + "</ul>"
    return (
        "<section class='warnings' aria-labelledby='warnings'><h2 id='warnings'>Know before you use a number</h2>"
        f"{text}</section>"
    )


def _grouped(told: list[tuple[str, KinosonWarning]]) -> str:
    """Warnings by type, each with where, the number and its limit, and what to do; advice once for those it is for."""
    groups: dict[str, dict[str, list[tuple[str, KinosonWarning]]]] = {}
    for stage, w in told:
        groups.setdefault(type(w).__name__, {}).setdefault(w.advice, []).append((stage, w))
    text = ""
    for name, by_advice in groups.items():
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
        text += f"<h3>{escape('Note' if name == KinosonWarning.__name__ else words.capitalize())}</h3>"
        for advice, found in by_advice.items():
            items = "".join(
                f"<li>{_number(w)}{prose(w.text)} <span class='where'>{escape(stage)}</span></li>" for stage, w in found
            )
            text += f"<ul>{items}</ul>" + (f"<p class='advice'>What to do: {prose(advice)}.</p>" if advice else "")
    return text


def _number(w: KinosonWarning) -> str:
    """The number of a warning and what was expected, before its sentence."""
    if w.number is None:
        return ""
    unit = "" if w.unit == "1" else f" {w.unit}"

    def written(x: float) -> str:
        return (f"{x:.3g}" if abs(x) < 1000 else f"{x:.4g}").replace("-", "−")

    limit = "" if w.limit is None else f" <span class='limit'>(limit {written(w.limit)})</span>"
    return f"<strong class='q'>{written(w.number)}{escape(unit)}</strong>{limit}: "


def reliable(s: Mapping[str, Any]) -> bool:
    """Whether the model is close enough to the reference, and the ladder long enough, for ratio estimates."""
    near, short = True, True
    for row in s["temperatures"]:
        found = row.get("correction") or {}
        for q in found.get("surrogate", {}).values():
            near &= q["value"] is not None and abs(q["value"] - 1.0) < SURROGATE
        tail = found.get("tail", {}).get(who(s), {}).get("value")
        short &= tail is None or tail < TAIL
    return bool(near and short)


def diagnosis(s: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """How much of the gap is y, how much is chance, and how far the barrier model is from the reference."""
    found = row["correction"]
    name, best = kind(row["vacancy_diffusivity"]), row["ratio_estimate"]["vacancy_diffusivity"]["value"]
    y, model = found["looseness"][who(s)]["value"], found["surrogate"].get(who(s))
    gap = row["vacancy_diffusivity"]["value"] / best
    text = (
        f"At {show_temperature(row)} the {name} of D is {_percent(gap)} the ratio estimate: on the rates of "
        f"the model the relaxation y leaves it {_percent(y)} the corrected value, which is what a better y could gain; "
        f"the evaluation states alone put it {_percent(gap / y)} many states of the model, which is chance."
    )
    if model is None or model["value"] is None:
        return text
    return text + (
        f" With the same y and states the reference barriers give a D that is {_percent(model['value'])} that of the "
        "barrier model; the ratio estimate takes that over, and its bias is a product of this error and the larger of "
        "it and y's."
    )


def _percent(factor: float) -> str:
    """A factor in words."""
    change = 100 * (factor - 1.0)
    return f"{abs(change):.{1 if abs(change) < 10 else 0}f} % {'above' if change >= 0 else 'below'}"
