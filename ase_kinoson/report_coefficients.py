"""Sections of the report on coefficients: bounds, best values, activation energies, Onsager matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ase_kinoson import report_figures as figures
from ase_kinoson.report_parts import kind, prose, show
from ase_kinoson.report_tables import ERRORS, Cell, cell, percent_of, table, temperatures
from ase_kinoson.report_words import SURROGATE, TAIL, carrier, diagnosis, reliable, show_temperature, who

__all__ = ["activation", "coefficients", "correction", "onsager"]

NOISY = 2.0
"""A ratio estimate with a larger error than this many times that of its bound is not worth its name."""


def coefficients(s: Mapping[str, Any]) -> str:
    """Diffusivities and correlation factors, bound and best value side by side, and which of them to publish."""
    first, corrected = s["temperatures"][0], all(r.get("ratio_estimate") for r in s["temperatures"])
    diffusivities = [("vacancy_diffusivity", "", f"{carrier(s)} diffusivity D")]
    diffusivities += [("tracer_diffusivity", a, f"tracer diffusivity D* of {a}") for a in first["tracer_diffusivity"]]
    factors = [("correlation_factor", a, f"tracer correlation factor f of {a}") for a in first["correlation_factor"]]
    factors.append(("collective_correlation_factor", who(s), f"correlation factor of the {carrier(s)}"))
    said = "; in bold the value to publish" if corrected else ""
    return (
        _side_by_side(s, diffusivities, name="diffusivities", caption=f"Diffusivities: {ERRORS}{said}")
        + _side_by_side(s, factors, name="correlation-factors", caption=f"Correlation factors, without unit: {ERRORS}")
        + f"<p><strong>Which number to publish?</strong> {prose(_which(s, corrected))}</p>"
        + f"<p class='note'>{prose(_conditions(s))}</p>"
    )


def _side_by_side(s: Mapping[str, Any], names: list[tuple[str, str, str]], *, name: str, caption: str) -> str:
    """One line per coefficient and temperature."""
    rows = s["temperatures"]
    corrected = all(r.get("ratio_estimate") for r in rows)
    kinds = {kind(_pick(r, key, a)) for key, a, _ in names for r in rows}
    best_kinds = {kind(_pick(r["ratio_estimate"], key, a)) for key, a, _ in names for r in rows if corrected}
    lines: list[tuple[str | Cell, ...]] = []
    for key, a, label in names:
        bounds = [_pick(r, key, a) for r in rows]
        bests = [_pick(r["ratio_estimate"], key, a) for r in rows] if corrected else []
        use = _use(s, bests, bounds)
        for i, row in enumerate(rows):
            line: list[str | Cell] = [label, cell(row["temperature"])]
            line.append(cell(bounds[i], strong=use.startswith("upper bound")))
            if corrected:
                line.append(cell(bests[i], strong=use.startswith("ratio estimate")))
            if len(kinds) > 1:
                line.append(kind(bounds[i]))
            lines.append((*line, *((use,) if corrected else ())))
    head = ["coefficient", "temperature", next(iter(kinds)) if len(kinds) == 1 else "value"]
    head += [next(iter(best_kinds)) if len(best_kinds) == 1 else "ratio estimate"] if corrected else []
    head += ["kind of the value"] if len(kinds) > 1 else []
    return table([*head, *(["publish"] if corrected else [])], lines, name=name, caption=caption)


def _pick(source: Mapping[str, Any], key: str, species: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = source[key][species] if species else source[key]
    return found


def _use(s: Mapping[str, Any], best: list[Mapping[str, Any]], bounds: list[Mapping[str, Any]]) -> str:
    """Which number of a coefficient to publish, the same at all temperatures."""
    if not best:
        return ""
    if any(q["kind"] != "ratio estimate" for q in best):
        return "neither: the states are at fault"
    if any((q["error"] or 0.0) > NOISY * (b["error"] or np.inf) for q, b in zip(best, bounds, strict=True)):
        return f"{kind(bounds[0])}: ratio too noisy"
    return "ratio estimate" if reliable(s) else "ratio estimate with care, see below"


def _which(s: Mapping[str, Any], corrected: bool) -> str:
    limit = kind(s["temperatures"][0]["vacancy_diffusivity"])
    if not corrected:
        return f"Publish the {limit} as what it is: no residual ladder was climbed, so there is no best value."
    return (
        f"Publish the ratio estimate as the value, and the {limit} beside it"
        + (" as the rigorous limit" if limit == "upper bound" else "")
        + f". The ratio estimate is the {limit} times what the residual ladder takes off on the rates of the barrier "
        "model; it is no bound, but its bias is a product of two small errors: the model's, and the model's or y's."
        + ("" if reliable(s) else " Here the model is far from the reference, or the ladder too short: see below.")
    )


def _conditions(s: Mapping[str, Any]) -> str:
    rows, first = s["temperatures"], s["temperatures"][0]
    fraction = first["vacancy_fraction"]
    per = (
        "There is one interstitial in the cell, and no vacancy fraction enters."
        if who(s) != "vacancy"
        else "Coefficients of atoms are given per vacancy site fraction c_v: multiply them by the c_v of your material."
        if fraction is None
        else "Coefficients of atoms hold the vacancy site fraction c_v = "
        + ", ".join(f"{show(r['vacancy_fraction'])} at {show_temperature(r)}" for r in rows)
        + f" ({fraction['kind']}), with its error."
    )
    return (
        "Errors come from a bootstrap over states. Upper bounds are on the coefficient of this very alloy model: this "
        "calculator, this periodic cell with one carrier, these states as weighted; a better relaxation y could only "
        f"lower them. Correlation factors compare a coefficient to that of uncorrelated jumps and have no unit. {per} "
        + (
            f"Jumps have Vineyard's attempt frequencies, and {show(first['attempt_frequency'])} where one is unknown."
            if s["settings"]["barriers"]["prefactor"] == "vineyard"
            else f"All jumps have the attempt frequency {show(first['attempt_frequency'])} (assumed)."
        )
    )


def correction(s: Mapping[str, Any]) -> str:
    """How far the bounds lie above the best values, whose that is, and the rungs."""
    rows = s["temperatures"]
    if not all(r.get("correction") for r in rows):
        return ""
    found = [r["correction"] for r in rows]
    names = {who(s): f"{carrier(s)} diffusivity"} | {
        f"tracer {a}": f"tracer diffusivity of {a}" for a in rows[0]["tracer_diffusivity"]
    }
    collective = {
        key: f"{carrier(s)} diffusivity" if key == who(s) else f"collective diffusion of {key}"
        for key in found[0]["surrogate"]
    }
    parts: list[tuple[str, str, dict[str, str], Callable[..., Cell]]] = [
        (
            "looseness",
            f"What y leaves: bound over corrected value, both on the rates of the model; expected near 1; {ERRORS}",
            names,
            cell,
        ),
        (
            "surrogate",
            "What the model gets wrong: reference over model with the same y and states; expected within "
            f"{100 * SURROGATE:.0f} % of 1; {ERRORS}",
            collective,
            cell,
        ),
        (
            "tail",
            f"What the ladder may still miss below its last rung, as a share; expected below {100 * TAIL:.0f} %",
            names,
            percent_of,
        ),
    ]
    tables = [
        table(
            ("of the",),
            [(label, *(show_it(f[part].get(key)) for f in found)) for key, label in labels.items()],
            name=part,
            caption=caption,
            kinds=True,
            across=temperatures(s),
        )
        for part, caption, labels, show_it in parts
    ]
    jumps = ", ".join(f"{show(r['correction']['ladder_jumps'])} at {show_temperature(r)}" for r in rows)
    return (
        "<h3>From bounds to best values</h3>"
        + "".join(f"<p>{prose(diagnosis(s, row))}</p>" for row in rows)
        + "".join(tables)
        + f"<p class='note'>{prose(f'Jumps followed for the ladder: {jumps}.')}</p>"
        + "<div class='figures'>"
        + figures.ladder_figures(s)
        + "</div>"
    )


def activation(s: Mapping[str, Any]) -> str:
    """Activation energies from kinosons and from slopes; those of the ratio estimates where there are any."""
    names = {who(s): f"{carrier(s)} diffusivity"} | {
        f"tracer_{a}": f"tracer diffusivity of {a}" for a in s["temperatures"][0]["tracer_diffusivity"]
    }
    pairs = s["activation_energy_between"]
    own: list[tuple[str | Cell, ...]] = [
        (name, *(cell(row["activation_energy"].get(key)) for row in s["temperatures"])) for key, name in names.items()
    ]
    slopes: list[tuple[str | Cell, ...]] = [
        (name, *(cell((pair.get("ratio_estimate") or pair).get(key)) for pair in pairs)) for key, name in names.items()
    ]
    between = [f"{p['from']['value']:g} to {p['to']['value']:g} K" for p in pairs]
    parts = [
        table(
            ("of the",),
            own,
            name="activation-energies",
            caption=f"From kinosons: {ERRORS}",
            kinds=True,
            across=temperatures(s),
        )
    ]
    if pairs:
        caption = f"From ln D, slopes between two temperatures: {ERRORS}"
        parts.append(
            table(("of the",), slopes, name="slopes", caption=caption, kinds=True, across=("between", between))
        )
    return (
        "<h3>Activation energies</h3>"
        + "".join(parts)
        + "<p class='note'>From kinosons: the mean of barrier plus state energy, weighted by kinosons, minus the mean "
        "state energy (Hellmann-Feynman); one temperature is enough. From ln D: the slope between two temperatures, of "
        "the ratio estimates if there are any. Neither is a bound."
        + (
            " The formation energy of the vacancy is in none of them, but for the slopes of D* where c_v depends on "
            "temperature."
            if who(s) == "vacancy"
            else ""
        )
        + "</p>"
    )


def onsager(s: Mapping[str, Any]) -> str:
    """Onsager coefficients, one line per pair of species and temperature."""
    rows = [r for r in s["temperatures"] if r.get("onsager_matrix")]
    if not rows:
        return ""
    best = all((r.get("ratio_estimate") or {}).get("onsager_matrix") for r in rows)
    sources = [[r["onsager_matrix"], *([r["ratio_estimate"]["onsager_matrix"]] if best else [])] for r in rows]
    symmetric = all(np.allclose(q["value"], np.transpose(q["value"]), rtol=1e-6) for qs in sources for q in qs)
    species = rows[0]["species"]
    n = len(species)
    lines: list[tuple[str | Cell, ...]] = [
        (
            f"L of {species[i]} and {species[j]}" if i != j else f"L of {species[i]}",
            cell(row["temperature"]),
            *(
                cell({"value": q["value"][i][j], "error": q["error"][i][j], "unit": q["unit"], "kind": q["kind"]})
                for q in qs
            ),
        )
        for i in range(n)
        for j in range(n)
        if i <= j or not symmetric
        for row, qs in zip(rows, sources, strict=True)
    ]
    return "<h3>Onsager coefficients</h3>" + table(
        ("coefficient", "temperature", *(kind(q) for q in sources[0])),
        lines,
        name="onsager",
        caption=f"Onsager matrix{', which is symmetric' if symmetric and n > 1 else ''}: {ERRORS}",
    )
