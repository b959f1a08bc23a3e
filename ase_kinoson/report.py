"""The report: one HTML file that opens without a network, on a phone, in the dark and on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson import report_figures as figures
from ase_kinoson.errors import StudyError
from ase_kinoson.report_parts import SHORT_KINDS, kind, read_csv, read_summary, show, table
from ase_kinoson.report_series import series_table, vacancy_table
from ase_kinoson.stages import replace_file

if TYPE_CHECKING:
    from ase_kinoson.study import StudyResult

__all__ = ["build_report"]


SURROGATE = 0.25
"""A reference that is farther than this from the model makes ratio estimates doubtful."""

NOISY = 2.0
"""A ratio estimate with a larger error than this many times that of its bound is not worth its name."""

TAIL = 0.05
"""A larger relative tail of the ladder makes them doubtful too."""


def build_report(source: str | Path | StudyResult) -> Path:
    """Write ``report.html`` from what a study left in its folder.

    Parameters
    ----------
    source
        The output folder, or the result of a study.

    Returns
    -------
    Path
        The report; equal inputs give equal files.

    Raises
    ------
    StudyError
        If the folder does not hold the output of a finished study.
    """
    folder = Path(source) if isinstance(source, str | Path) else source.folder
    summary = read_summary(folder / "summary.json")
    kinosons = read_csv(folder / "kinosons.csv")
    barriers = read_csv(folder / "barriers.csv")
    try:
        page = _page(summary, kinosons, barriers)
    except (KeyError, TypeError, IndexError) as error:
        raise StudyError(
            f"the files in {str(folder)!r} do not belong together ({type(error).__name__}: {error}); "
            "expected those of one finished "
            "study; run the study again"
        ) from error
    path = folder / "report.html"
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


# -- the page ------------------------------------------------------------------------------------------------


def _page(s: Mapping[str, Any], kinosons: dict[str, np.ndarray], barriers: dict[str, np.ndarray]) -> str:
    css = resources.files("ase_kinoson").joinpath("templates", "report.css").read_text(encoding="utf-8")
    title = escape(str(s["title"]))
    parts = [
        f"<h1>{title}</h1>",
        f"<p class='lead'>{escape(_lead(s))}</p>",
        "<section class='words' aria-label='Summary in plain words'>"
        + "".join(f"<p>{escape(w)}</p>" for w in _words(s))
        + "</section>",
        _warnings(s),
        "<h2>Coefficients</h2>",
        _coefficients(s),
        "<div class='figures'>" + figures.transport_figures(s) + "</div>",
        _correction(s),
        _activation(s),
        series_table(s),
        vacancy_table(s),
        _onsager(s),
        "<h2>Which jumps carry diffusion</h2>",
        _carriers(s),
        "<div class='figures'>" + figures.kinoson_figures(s, kinosons) + "</div>",
        "<h2>Barriers</h2>",
        _barriers(s),
        "<div class='figures'>" + figures.barrier_figures(s, barriers) + "</div>",
        _model(s),
        "<h2>Can the numbers be trusted?</h2>",
        _trust(s),
        "<h2>What the kinds of numbers mean</h2>",
        _kinds(s),
        "<h2>How to get these numbers again</h2>",
        _again(s),
    ]
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta name='color-scheme' content='light dark'>\n"
        "<link rel='icon' href='data:,'>\n"
        f"<title>{title}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _carrier(s: Mapping[str, Any]) -> str:
    return "vacancy" if s["jumps"]["mechanism"] == "vacancy" else "interstitial"


def _who(s: Mapping[str, Any]) -> str:
    return "vacancy" if s["jumps"]["mechanism"] == "vacancy" else "carrier"


def _lead(s: Mapping[str, Any]) -> str:
    subs = [
        " ".join(f"{a} {100 * x['value']:.4g} %" for a, x in sub["composition"].items())
        + (" (mobile)" if sub["mobile"] else "")
        for sub in s["alloy"]["sublattices"]
    ]
    calculator = s["settings"]["calculator"]["name"].rpartition(".")[2]
    return (
        f"{s['alloy']['file']}: {'; '.join(subs)} of the sites. Cell of {int(s['cell']['sites']['value'])} "
        f"sites with one {_carrier(s)}, "
        f"energies from {calculator}, {s['ensemble']} ensemble."
    )


def _words(s: Mapping[str, Any]) -> list[str]:
    """The summary for somebody who reads nothing else."""
    words = []
    for row in s["temperatures"]:
        t = f"{row['temperature']['value']:g} K"
        shares = sorted(row["share_by_species"].items(), key=lambda x: -x[1]["value"])
        few = row["fraction_of_jumps"]
        carried = ", ".join(f"{a} jumps carry {show(q, percent=True)}" for a, q in shares)
        value = row["vacancy_diffusivity"]
        most = "at most " if value["kind"] == "bound" else ""
        best = (row.get("ratio_estimate") or {}).get("vacancy_diffusivity")
        sure = best is not None and best["kind"] == "ratio estimate"
        likely = f", most likely with {show(best)} ({kind(best)})" if sure else ""
        words.append(
            f"At {t} the {_carrier(s)} diffuses with {most}{show(value)} ({kind(value)}){likely}. Of it, {carried}. "
            "Half of it is "
            f"carried by {show(few['0.5'], percent=True)} of all jumps, 90 % of it by {show(few['0.9'], percent=True)}."
        )
        mean, energy = row["mean_barrier"][_who(s)], row["activation_energy"][_who(s)]
        if mean and energy:
            words.append(
                f"The jumps that carry it at {t} have a mean barrier of {show(mean)}; the activation energy "
                f"there is {show(energy)}."
            )
    total = sum(int(b["barriers"]["value"]) for b in s["barriers"].values())
    rejected = sum(int(n["value"]) for b in s["barriers"].values() for n in b["rejected"].values())
    words.append(
        f"All of it rests on {total} reference barriers ({int(s['force_calls']['value'])} force calls of the "
        "calculator); "
        f"{rejected} jumps were rejected."
    )
    return words


def _warnings(s: Mapping[str, Any]) -> str:
    if not s["warnings"]:
        return "<p class='note'>No stage of the study gave a warning.</p>"
    items = "".join(f"<li>{escape(str(w))}</li>" for w in s["warnings"])
    return (
        "<section class='warnings' aria-label='Warnings'><strong>Know before you use a number</strong>"
        f"<ul>{items}</ul></section>"
    )


def _at(s: Mapping[str, Any]) -> list[str]:
    """Column heads: the temperatures."""
    return [f"at {row['temperature']['value']:g} K" for row in s["temperatures"]]


UPPER, BEST = "rigorous upper limit", "best value: publish this one"


def _uses(s: Mapping[str, Any], line: list[Mapping[str, Any]], bounds: list[Mapping[str, Any]], *, best: bool) -> str:
    """What a line of numbers is good for; ``bounds`` is the line above."""
    if best:
        if any(q["kind"] != "ratio estimate" for q in line):
            return "no best value: the states are at fault"
        if any((q["error"] or 0.0) > NOISY * (b["error"] or np.inf) for q, b in zip(line, bounds, strict=True)):
            return "too noisy: use the bound"
        return BEST if _reliable(s) else "best value, with care: see below"
    return UPPER if all(q["kind"] == "bound" for q in line) else "no limit"


def _reliable(s: Mapping[str, Any]) -> bool:
    """Whether the model is close enough to the reference, and the ladder long enough, for ratio estimates."""
    near, short = True, True
    for row in s["temperatures"]:
        found = row.get("correction") or {}
        for q in found.get("surrogate", {}).values():
            near &= q["value"] is not None and abs(q["value"] - 1.0) < SURROGATE
        tail = found.get("tail", {}).get(_who(s), {}).get("value")
        short &= tail is None or tail < TAIL
    return bool(near and short)


def _coefficients(s: Mapping[str, Any]) -> str:
    rows, who, first = s["temperatures"], _who(s), s["temperatures"][0]
    names = [("vacancy_diffusivity", "", f"{_carrier(s)} diffusivity D")]
    names += [("tracer_diffusivity", a, f"tracer diffusivity D* of {a}") for a in first["tracer_diffusivity"]]
    names += [("correlation_factor", a, f"tracer correlation factor f of {a}") for a in first["correlation_factor"]]
    names.append(("collective_correlation_factor", who, f"correlation factor of the {_carrier(s)}"))
    corrected = all(r.get("ratio_estimate") for r in rows)
    lines: list[tuple[str, ...]] = []
    above: list[Mapping[str, Any]] = []
    for key, a, name in names:
        for best in (False, True) if corrected else (False,):
            found = [r["ratio_estimate"][key] if best else r[key] for r in rows]
            line = [q[a] if a else q for q in found]
            above = line if not best else above
            use = (_uses(s, line, above, best=best),) if corrected else ()
            lines.append((name, *map(show, line), " / ".join(dict.fromkeys(map(kind, line))), *use))
    fraction = first["vacancy_fraction"]
    per = (
        "Coefficients of atoms are given per vacancy site fraction c_v: multiply them by the c_v of your material."
        if fraction is None
        else "Coefficients of atoms hold the vacancy site fraction c_v = "
        + ", ".join(f"{show(r['vacancy_fraction'])} {at}" for r, at in zip(rows, _at(s), strict=True))
        + f" ({fraction['kind']}), with its error."
    )
    limit = kind(first["vacancy_diffusivity"])
    why = (
        f"Publish the ratio estimate as the value, and the {limit} beside it"
        + (" as the rigorous limit" if limit == "upper bound" else "")
        + f". The ratio estimate is the {limit} times what the residual ladder takes off on the rates of the barrier "
        "model; it is no bound, but its bias is only of second order in the error of that model."
        + ("" if _reliable(s) else " Here the model is far from the reference, or the ladder too short: see below.")
        if corrected
        else f"Publish the {limit} as what it is: no residual ladder was climbed, so there is no best value."
    )
    return (
        table(
            ("coefficient", *_at(s), "kind", *(("use it as",) if corrected else ())),
            lines,
            caption="Value ± one standard error",
        )
        + f"<p><strong>Which number to publish?</strong> {escape(why)}</p>"
        + "<p class='note'>Errors come from a bootstrap over states. Upper bounds are on the coefficient of this "
        "very alloy model: this "
        "calculator, this periodic cell with one carrier, these states as weighted; a better relaxation y "
        "could only lower them. Correlation "
        f"factors compare a coefficient to that of uncorrelated jumps and have no unit. {escape(per)} All "
        "jumps have the attempt frequency "
        f"{escape(show(first['attempt_frequency']))} (assumed).</p>"
    )


def _correction(s: Mapping[str, Any]) -> str:
    """How far the bounds lie above the best values, whose that is, and the rungs."""
    rows = s["temperatures"]
    if not all(r.get("correction") for r in rows):
        return ""
    who, found = _who(s), [r["correction"] for r in rows]
    words = [_diagnosis(s, row) for row in rows]
    names = {who: f"{_carrier(s)} diffusivity"} | {
        f"tracer {a}": f"tracer diffusivity of {a}" for a in rows[0]["tracer_diffusivity"]
    }
    lines = [
        (f"bound over corrected value, model rates: {name}", *(show(f["looseness"].get(key)) for f in found), "near 1")
        for key, name in names.items()
    ]
    lines += [
        (
            f"reference over model, same y: {_carrier(s) if key == who else key}",
            *(show(f["surrogate"].get(key)) for f in found),
            f"within {100 * SURROGATE:.0f} % of 1",
        )
        for key in found[0]["surrogate"]
    ]
    lines += [
        (
            f"still missing below the last rung: {name}",
            *(_share(f["tail"].get(key)) for f in found),
            f"below {100 * TAIL:.0f} %",
        )
        for key, name in names.items()
    ]
    lines.append(("jumps followed for the ladder", *(show(f["ladder_jumps"]) for f in found), ""))
    return (
        "<h3>From bounds to best values</h3>"
        + "".join(f"<p>{escape(w)}</p>" for w in words)
        + table(("diagnosis", *_at(s), "expected"), lines, caption="Value ± one standard error, none with a unit")
        + "<div class='figures'>"
        + figures.ladder_figures(s)
        + "</div>"
    )


def _share(number: Mapping[str, Any] | None) -> str:
    return "not known" if number is None or number["value"] is None else f"{100 * number['value']:.2g} %"


def _diagnosis(s: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """How much of the gap is y, how much is chance, and how far the barrier model is from the reference."""
    who, found = _who(s), row["correction"]
    name, best = kind(row["vacancy_diffusivity"]), row["ratio_estimate"]["vacancy_diffusivity"]["value"]
    y, model = found["looseness"][who]["value"], found["surrogate"].get(who)
    gap = row["vacancy_diffusivity"]["value"] / best
    text = (
        f"At {row['temperature']['value']:g} K the {name} of D is {_percent(gap)} the ratio estimate: on the rates of "
        f"the model the relaxation y leaves it {_percent(y)} the corrected value, which is what a better y could gain; "
        f"the evaluation states alone put it {_percent(gap / y)} many states of the model, which is chance."
    )
    if model is None or model["value"] is None:
        return text
    return text + (
        f" With the same y and states the reference barriers give a D that is {_percent(model['value'])} that of the "
        "barrier model; the ratio estimate takes that over, and what it gets wrong is of second order in it."
    )


def _percent(factor: float) -> str:
    """A factor in words."""
    change = 100 * (factor - 1.0)
    return f"{abs(change):.{1 if abs(change) < 10 else 0}f} % {'above' if change >= 0 else 'below'}"


def _slopes(pair: Mapping[str, Any]) -> Mapping[str, Any]:
    """Slopes of the ratio estimates where there are any, else of the bounds."""
    return pair.get("ratio_estimate") or pair


def _activation(s: Mapping[str, Any]) -> str:
    names = {_who(s): f"{_carrier(s)} diffusivity"} | {
        f"tracer_{a}": f"tracer diffusivity of {a}" for a in s["temperatures"][0]["tracer_diffusivity"]
    }
    pairs = s["activation_energy_between"]
    head = [f"from ln D, {p['from']['value']:g} K to {p['to']['value']:g} K" for p in pairs]
    rows = [
        (
            name,
            *(show(row["activation_energy"].get(key)) for row in s["temperatures"]),
            *(show(_slopes(pair).get(key)) for pair in pairs),
        )
        for key, name in names.items()
    ]
    return (
        "<h3>Activation energies</h3>"
        + table(("of the", *(f"from kinosons {x}" for x in _at(s)), *head), rows, caption="Value ± one standard error")
        + "<p class='note'>From kinosons: the mean of barrier plus state energy, weighted by kinosons, minus the "
        "mean state energy "
        "(Hellmann-Feynman); one temperature is enough. From ln D: the slope between two temperatures, of the ratio "
        "estimates if there are any. "
        "Neither is a bound. The formation energy of the vacancy is in none of them, but for the slopes of D* where "
        "c_v depends on temperature.</p>"
    )


def _onsager(s: Mapping[str, Any]) -> str:
    blocks = []
    pairs = [(row, q) for row in s["temperatures"] for q in (row, row.get("ratio_estimate"))]
    for row, source in pairs:
        q = source["onsager_matrix"] if source else None
        if not q:
            continue
        species = row["species"]
        rows = [
            (
                a,
                *(
                    show({"value": v, "error": e, "unit": q["unit"], "kind": q["kind"]})
                    for v, e in zip(q["value"][i], q["error"][i], strict=True)
                ),
            )
            for i, a in enumerate(species)
        ]
        blocks.append(
            table(
                ("", *species),
                rows,
                caption=f"Onsager matrix L at {row['temperature']['value']:g} K: {kind(q)}",
            )
        )
    return "<h3>Onsager coefficients</h3>" + "".join(blocks) if blocks else ""


def _carriers(s: Mapping[str, Any]) -> str:
    rows, what = s["temperatures"], f"{_carrier(s)} diffusivity"
    lines = [
        (f"share of the {what} that {a} jumps carry", *(show(r["share_by_species"].get(a), percent=True) for r in rows))
        for a in dict.fromkeys(a for r in rows for a in r["share_by_species"])
    ]
    lines += [
        (
            f"share of all jumps that carry {100 * float(f):g} % of it",
            *(show(r["fraction_of_jumps"][f], percent=True) for r in rows),
        )
        for f in rows[0]["fraction_of_jumps"]
    ]
    lines.append(
        ("mean barrier, weighted by what each jump carries", *(show(r["mean_barrier"][_who(s)]) for r in rows))
    )
    return (
        "<p>A <em>kinoson</em> κ is what one jump of one state contributes to the diffusivity: its rate "
        "times the square of its "
        "displacement after all that is undone by later jumps has been taken off. Their mean sum is the "
        "diffusivity.</p>" + table(("quantity", *_at(s)), lines, caption="Value ± one standard error")
    )


def _barriers(s: Mapping[str, Any]) -> str:
    rows = []
    for name, b in s["barriers"].items():
        rejected = ", ".join(f"{show(n)} {reason}" for reason, n in b["rejected"].items()) or "none"
        rows.append((name, show(b["states"]), show(b["barriers"]), rejected, show(b["force_calls"])))
    species = [
        (name, a, show(r["mean"]), show(r["standard_deviation"]), show(r["barriers"]))
        for name, b in s["barriers"].items()
        for a, r in b["by_species"].items()
    ]
    return (
        table(("states", "number of states", "barriers", "rejected jumps", "force calls"), rows)
        + "<p class='note'>A rejected jump has the rate 0 in both directions. Every one is listed in "
        "<code>barriers.csv</code>, with its reason "
        "in the store <code>barriers.db</code>.</p>"
        + table(
            ("states", "jumping atom", "mean barrier", "standard deviation", "barriers"),
            species,
            caption="Each jump counts once",
        )
    )


def _meV(number: Mapping[str, Any], *, signed: bool = False) -> str:
    """A small energy."""
    value = float(number["value"]) * 1000
    return f"{value:{'+' if signed else ''}.2f} meV".replace("-", "−")


def _model(s: Mapping[str, Any]) -> str:
    rows = [
        (
            f"states at {row['temperature']['value']:g} K",
            a,
            _meV(e["mae"]),
            _meV(e["rmse"]),
            _meV(e["bias"], signed=True),
            e,
        )
        for row in s["temperatures"]
        for a, e in row["model_error"].items()
    ]
    rows += [
        (
            "test states of the fit",
            a,
            _meV(e["barrier_mae"]),
            _meV(e["barrier_rmse"]),
            _meV(e["barrier_bias"], signed=True),
            e,
        )
        for a, e in s["model"]["held_out"].items()
    ]
    return (
        "<h3>Barrier model</h3>"
        + table(
            ("measured on", "jumping atom", "mean absolute error", "rms error", "mean error", "barriers"),
            [(*row[:-1], show(row[-1]["barriers"])) for row in rows],
            caption="Errors of predicted barriers on states that the fit has not seen",
        )
        + f"<p class='note'>{escape(s['leak_free'])}</p>"
    )


def _trust(s: Mapping[str, Any]) -> str:
    rows = s["temperatures"]
    lines: list[tuple[str, ...]] = [
        (
            "effective sample size",
            *(f"{r['effective_sample_size']['value']:.1f} of {int(r['n_states']['value'])} states" for r in rows),
            "close to the number of states",
        ),
        (
            "effective number of states that carry D",
            *(f"{r['contribution_sample_size']['value']:.1f} states" for r in rows),
            "far more than 10 states",
        ),
        (
            "share of the heaviest state in D",
            *(f"{100 * r['largest_share']['value']:.0f} %" for r in rows),
            "below 30 %",
        ),
        ("spread of reference minus model energies", *(show(r["energy_difference"]) for r in rows), "well below k_BT"),
        (
            "share of D on barriers whose path is not settled",
            *(_share((r.get("unsettled_shares") or {}).get("carrier")) for r in rows),
            "below 5 %",
        ),
    ]
    for name in rows[0]["energy_drift"] or {}:
        label = "energy drift" if name == "total" else f"energy drift of {name} jumps"
        drifts = [(r["energy_drift"] or {}).get(name) for r in rows]
        expected = (
            "0 within three errors" if name == "total" else "near 0 (for rare jumps the error is uncertain itself)"
        )
        lines.append((label, *(show(q, signed=True) for q in drifts), expected))
    ratios = [r["relaxation"]["bound_ratio_trained"] for r in rows]
    lines.append(("mean bound over its value for y = 0, model rates", *map(show, ratios), "the lower the better"))
    return (
        table(("check", *_at(s), "expected"), lines, caption="None of these numbers but the energies has a unit")
        + "<p class='note'>In equilibrium the mean energy change of a jump, weighted with rates, is zero; the energy "
        "drift measures it in "
        "units of the mean absolute energy change. The effective sample size says how many equally weighted "
        "states the weighted ones are "
        "worth.</p>"
    )


def _kinds(s: Mapping[str, Any]) -> str:
    used = json.dumps(s["temperatures"]) + json.dumps(s["activation_energy_between"]) + json.dumps(s["model"])
    items = "".join(
        f"<dt>{escape(SHORT_KINDS.get(k, k))}</dt><dd>{escape(text)}</dd>"
        for k, text in s["kinds"].items()
        if f'"{k}"' in used or (k == "estimate" and "estimate" in used)
    )
    return f"<dl class='kinds'>{items}</dl>"


def _again(s: Mapping[str, Any]) -> str:
    wall = [(name, show(q)) for name, q in s["wall_time"].items()]
    versions = [(name, str(v)) for name, v in s["versions"].items()]
    return (
        "<p>Save this as <code>study.toml</code> beside the structure file and run "
        "<code>ase-kinoson run study.toml --out DIR</code>. Equal seeds and versions give equal numbers.</p>"
        f"<pre><code>{escape(s['settings_toml'])}</code></pre>"
        + "<h3>Versions</h3>"
        + table(("package", "version"), versions)
        + "<h3>Time taken</h3>"
        + table(("stage", "wall time when it was computed"), wall)
    )
