"""Sections of the report on jumps, barriers, checks, and how to get the numbers again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from ase_kinoson.report_parts import SHORT_KINDS, prose, show
from ase_kinoson.report_tables import ERRORS, Cell, cell, percent_of, table, temperatures
from ase_kinoson.report_words import carrier, who

__all__ = ["again", "barriers", "carriers", "kinds", "model", "trust"]


def carriers(s: Mapping[str, Any]) -> str:
    """Which jumps carry diffusion."""
    rows, what = s["temperatures"], f"{carrier(s)} diffusivity"
    species = dict.fromkeys(a for r in rows for a in r["share_by_species"])
    shares: list[tuple[str | Cell, ...]] = [
        (f"{a} jumps", *(cell(r["share_by_species"].get(a), percent=True) for r in rows)) for a in species
    ]
    few: list[tuple[str | Cell, ...]] = [
        (
            f"share of jumps that carry {100 * float(f):g} % of D",
            *(cell(r["fraction_of_jumps"][f], percent=True) for r in rows),
        )
        for f in rows[0]["fraction_of_jumps"]
    ]
    few.append(("mean barrier of what carries D", *(cell(r["mean_barrier"][who(s)]) for r in rows)))
    return (
        "<p>A <em>kinoson</em> κ is what one jump of one state contributes to the diffusivity: its rate "
        "times the square of its displacement after all that is undone by later jumps has been taken off. Their mean "
        "sum is the diffusivity.</p>"
        + table(
            ("share of D",),
            shares,
            name="shares-by-species",
            caption=f"Share of the {what} D by jumping atom: {ERRORS}",
            kinds=True,
            across=temperatures(s),
        )
        + table(
            ("quantity",),
            few,
            name="carriers",
            caption=f"How few jumps it takes, and their mean barrier, weighted by kinosons: {ERRORS}",
            kinds=True,
            across=temperatures(s),
        )
    )


def barriers(s: Mapping[str, Any]) -> str:
    """How many barriers there are, what was rejected, and their means."""
    rows = []
    for name, b in s["barriers"].items():
        rejected = ", ".join(f"{show(n)} {reason}" for reason, n in b["rejected"].items()) or "none"
        rows.append((name, cell(b["states"]), cell(b["barriers"]), rejected, cell(b["force_calls"])))
    species = [
        (name, a, cell(r["mean"]), cell(r["standard_deviation"]), cell(r["barriers"]))
        for name, b in s["barriers"].items()
        for a, r in b["by_species"].items()
    ]
    return (
        table(
            ("states", "number of states", "barriers", "rejected jumps", "force calls"),
            rows,
            name="reference-barriers",
            caption="Reference barriers: all numbers are counted",
        )
        + "<p class='note'>A rejected jump has the rate 0 in both directions. Every one is listed in "
        "<code>barriers.csv</code>, with its reason in the store <code>barriers.db</code>.</p>"
        + table(
            ("states", "jumping atom", "mean barrier", "standard deviation", "barriers"),
            species,
            name="barriers-by-species",
            caption="Barriers by jumping atom: plain mean and spread over jumps, each of which counts once",
        )
    )


def _mev(number: Mapping[str, Any], *, signed: bool = False) -> Cell:
    """A small energy, shown in meV."""
    text = f"{float(number['value']) * 1000:{'+' if signed else ''}.2f} meV".replace("-", "−")
    return cell(number, text=text)


def model(s: Mapping[str, Any]) -> str:
    """Errors of the barrier model on states that it has not seen."""
    found = [
        (f"states at {row['temperature']['value']:g} K", a, e, "")
        for row in s["temperatures"]
        for a, e in row["model_error"].items()
    ] + [("test states of the fit", a, e, "barrier_") for a, e in s["model"]["held_out"].items()]
    rows = [
        (
            where,
            a,
            _mev(e[f"{key}mae"]),
            _mev(e[f"{key}rmse"]),
            _mev(e[f"{key}bias"], signed=True),
            cell(e["barriers"]),
        )
        for where, a, e, key in found
    ]
    return (
        "<h3>Barrier model</h3>"
        + table(
            ("measured on", "jumping atom", "mean absolute error", "rms error", "mean error", "barriers"),
            rows,
            name="model-errors",
            caption="Errors of predicted barriers on states that the fit has not seen",
        )
        + f"<p class='note'>{prose(s['leak_free'])}</p>"
    )


# -- trust, and where it comes from -------------------------------------------------------------------------------


def trust(s: Mapping[str, Any]) -> str:
    """What has to hold for the numbers to mean what they say."""
    rows = s["temperatures"]

    def states(q: Mapping[str, Any], of: str = "states") -> Cell:
        return cell(q, text=f"{q['value']:.1f} {of}")

    lines: list[tuple[str | Cell, ...]] = [
        (
            "effective sample size",
            *(states(r["effective_sample_size"], f"of {int(r['n_states']['value'])} states") for r in rows),
            "close to the number of states",
        ),
        (
            "effective number of states that carry D",
            *(states(r["contribution_sample_size"]) for r in rows),
            "far more than 10 states",
        ),
        (
            "share of the heaviest state in D",
            *(cell(r["largest_share"], text=f"{100 * r['largest_share']['value']:.0f} %") for r in rows),
            "below 30 %",
        ),
        ("spread of reference minus model energies", *(cell(r["energy_difference"]) for r in rows), "well below k_BT"),
        (
            "share of D on barriers whose path is not settled",
            *(percent_of((r.get("unsettled_shares") or {}).get("carrier")) for r in rows),
            "below 5 %",
        ),
    ]
    for name in rows[0]["energy_drift"] or {}:
        label = "energy drift" if name == "total" else f"energy drift of {name} jumps"
        drifts = [(r["energy_drift"] or {}).get(name) for r in rows]
        expected = (
            "0 within three errors" if name == "total" else "near 0 (for rare jumps the error is uncertain itself)"
        )
        lines.append((label, *(cell(q, signed=True) for q in drifts), expected))
    ratios = [r["relaxation"]["bound_ratio_trained"] for r in rows]
    lines.append(("mean bound over its value for y = 0, model rates", *map(cell, ratios), "the lower the better"))
    return (
        table(
            ("check", "expected"),
            lines,
            kinds=True,
            across=temperatures(s),
            name="checks",
            caption=f"Checks: {ERRORS}; numbers without a unit are ratios",
        )
        + "<p class='note'>In equilibrium the mean energy change of a jump, weighted with rates, is zero; the energy "
        "drift measures it in units of the mean absolute energy change. The effective sample size says how many "
        "equally weighted states the weighted ones are worth.</p>"
    )


def kinds(s: Mapping[str, Any]) -> str:
    """What the kinds of numbers mean, those that occur."""
    used = json.dumps(s["temperatures"]) + json.dumps(s["activation_energy_between"]) + json.dumps(s["model"])
    items = "".join(
        f"<dt>{escape(SHORT_KINDS.get(k, k))}</dt><dd>{escape(text, quote=False)}</dd>"
        for k, text in s["kinds"].items()
        if f'"{k}"' in used or (k == "estimate" and "estimate" in used)
    )
    return f"<dl class='kinds'>{items}</dl>"


def again(s: Mapping[str, Any]) -> str:
    """Settings, seed, versions and times."""
    seed = s["settings"].get("seed")
    wall = [(name, cell(q)) for name, q in s["wall_time"].items()]
    return (
        "<p>Save this as <code>study.toml</code> beside the structure file and run "
        "<code>ase-kinoson run study.toml --out DIR</code>. Equal seeds and versions give equal numbers"
        + (
            f"; the seed of this study is {seed}, and the seeds of its stages follow from it"
            if seed is not None
            else ""
        )
        + f".</p><pre tabindex='0'><code>{escape(s['settings_toml'], quote=False)}</code></pre>"
        + "<h3>Versions</h3>"
        + table(
            ("package", "version"),
            [(name, str(v)) for name, v in s["versions"].items()],
            name="versions",
            caption="What it was computed with",
        )
        + "<h3>Time taken</h3>"
        + table(
            ("stage", "wall time"),
            wall,
            name="wall-times",
            caption="Wall time of each stage when it was computed: measured",
        )
    )
