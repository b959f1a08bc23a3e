"""The report: one HTML file that opens without a network, on a phone, in the dark and on paper."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson import report_figures as figures
from ase_kinoson.errors import StudyError
from ase_kinoson.stages import replace_file

if TYPE_CHECKING:
    from ase_kinoson.study import StudyResult

__all__ = ["build_report"]

Number = Mapping[str, Any]

_SUPERSCRIPT = str.maketrans("0123456789-+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺")
SHORT_KINDS = {
    "bound": "upper bound",
    "bound (diagonal), estimate (off-diagonal)": "upper bound on the diagonal, else estimate",
}


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
    summary = _read_summary(folder / "summary.json")
    kinosons = _read_csv(folder / "kinosons.csv")
    barriers = _read_csv(folder / "barriers.csv")
    try:
        page = _page(summary, kinosons, barriers)
    except (KeyError, TypeError, IndexError) as error:
        raise StudyError(
            f"the files in {str(folder)!r} do not belong together ({type(error).__name__}: {error}); expected those of one finished "
            "study; run the study again"
        ) from error
    path = folder / "report.html"
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(
            f"found no {path.name} in {str(path.parent)!r}; expected the output folder of a finished study; run 'ase-kinoson run' first"
        ) from None
    except (OSError, ValueError) as error:
        raise StudyError(
            f"cannot read {str(path)!r} ({error}); expected the summary of a finished study; run the study again"
        ) from error
    if not isinstance(summary, dict):
        raise StudyError(
            f"{str(path)!r} holds something else; expected the summary of a study; run the study again"
        )
    return summary


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    """Columns by name without unit; numbers where all entries are numbers."""
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            header, *rows = list(csv.reader(handle))
        columns = list(zip(*rows, strict=True))
    except (OSError, ValueError, IndexError) as error:
        raise StudyError(
            f"cannot read {str(path)!r} ({error}); expected the table of a finished study; run the study again"
        ) from error
    table: dict[str, np.ndarray] = {}
    for name, column in zip(header, columns, strict=False):
        try:
            values = np.array([float(x) if x else np.nan for x in column])
        except ValueError:
            values = np.array(column)
        table[name.partition(" [")[0]] = values
    return table


# -- numbers ------------------------------------------------------------------------------------------------------


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
        digits = min(6, max(0, 1 - int(np.floor(np.log10(e))))) if e > 0 else max(0, 3 - (exponent - power))
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


def _kind(number: Number | None) -> str:
    return "" if number is None else SHORT_KINDS.get(str(number["kind"]), str(number["kind"]))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    top = "".join(f"<th scope='col'>{escape(h)}</th>" for h in head)
    body = "".join(
        "<tr>"
        + "".join(
            f"<th scope='row'>{escape(c)}</th>"
            if i == 0
            else f"<td class='{'n' if any(x.isdigit() for x in c) else 'k'}'>{escape(c)}</td>"
            for i, c in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<div class='scroll' tabindex='0' role='group' aria-label='{escape(caption or head[0])}'><table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


# -- the page -----------------------------------------------------------------------------------------------------


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
        _activation(s),
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
        f"{s['alloy']['file']}: {'; '.join(subs)} of the sites. Cell of {int(s['cell']['sites']['value'])} sites with one {_carrier(s)}, "
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
        words.append(
            f"At {t} the {_carrier(s)} diffuses with at most {show(row['vacancy_diffusivity'])} "
            f"({_kind(row['vacancy_diffusivity'])}). Of it, {carried}. Half of it is carried by {show(few['0.5'], percent=True)} of all "
            f"jumps, 90 % of it by {show(few['0.9'], percent=True)}."
            if row["vacancy_diffusivity"]["kind"] == "bound"
            else f"At {t} the {_carrier(s)} diffuses with {show(row['vacancy_diffusivity'])} ({_kind(row['vacancy_diffusivity'])}). Of it, "
            f"{carried}. Half of it is carried by {show(few['0.5'], percent=True)} of all jumps, 90 % of it by "
            f"{show(few['0.9'], percent=True)}."
        )
        mean, energy = row["mean_barrier"][_who(s)], row["activation_energy"][_who(s)]
        if mean and energy:
            words.append(
                f"The jumps that carry it at {t} have a mean barrier of {show(mean)}; the activation energy there is {show(energy)}."
            )
    total = sum(int(b["barriers"]["value"]) for b in s["barriers"].values())
    rejected = sum(int(n["value"]) for b in s["barriers"].values() for n in b["rejected"].values())
    words.append(
        f"All of it rests on {total} reference barriers ({int(s['force_calls']['value'])} force calls of the calculator); "
        f"{rejected} jumps were rejected."
    )
    return words


def _warnings(s: Mapping[str, Any]) -> str:
    if not s["warnings"]:
        return "<p class='note'>No stage of the study gave a warning.</p>"
    items = "".join(f"<li>{escape(str(w))}</li>" for w in s["warnings"])
    return f"<section class='warnings' aria-label='Warnings'><strong>Know before you use a number</strong><ul>{items}</ul></section>"


def _at(s: Mapping[str, Any]) -> list[str]:
    """Column heads: the temperatures."""
    return [f"at {row['temperature']['value']:g} K" for row in s["temperatures"]]


def _coefficients(s: Mapping[str, Any]) -> str:
    rows, who, first = s["temperatures"], _who(s), s["temperatures"][0]
    lines = [(f"{_carrier(s)} diffusivity D", [r["vacancy_diffusivity"] for r in rows])]
    for a in first["tracer_diffusivity"]:
        lines.append((f"tracer diffusivity D* of {a}", [r["tracer_diffusivity"][a] for r in rows]))
    for a in first["correlation_factor"]:
        lines.append((f"tracer correlation factor f of {a}", [r["correlation_factor"][a] for r in rows]))
    factors = [r["collective_correlation_factor"][who] for r in rows]
    lines.append((f"correlation factor of the {_carrier(s)}", factors))
    fraction = first["vacancy_fraction"]
    per = (
        "Coefficients of atoms are given per vacancy site fraction c_v: multiply them by the c_v of your material."
        if fraction is None
        else f"Coefficients of atoms are for a vacancy site fraction c_v = {show(fraction)}."
    )
    return (
        _table(
            ("coefficient", *_at(s), "kind"),
            [(name, *map(show, q), " / ".join(dict.fromkeys(map(_kind, q)))) for name, q in lines],
            caption="Value ± one standard error",
        )
        + "<p class='note'>Errors come from a bootstrap over states. Upper bounds are on the coefficient of this very alloy model: this "
        "calculator, this periodic cell with one carrier, these states as weighted; a better relaxation y could only lower them. Correlation "
        f"factors compare a coefficient to that of uncorrelated jumps and have no unit. {escape(per)} All jumps have the attempt frequency "
        f"{escape(show(first['attempt_frequency']))} (assumed).</p>"
    )


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
            *(show(pair[key if key in pair else "vacancy"]) for pair in pairs),
        )
        for key, name in names.items()
    ]
    return (
        "<h3>Activation energies</h3>"
        + _table(("of the", *(f"from kinosons {x}" for x in _at(s)), *head), rows, caption="Value ± one standard error")
        + "<p class='note'>From kinosons: the mean of barrier plus state energy, weighted by kinosons, minus the mean state energy "
        "(Hellmann-Feynman); one temperature is enough. From ln D: the slope between two temperatures. Neither is a bound. The formation "
        "energy of the vacancy is not included.</p>"
    )


def _onsager(s: Mapping[str, Any]) -> str:
    blocks = []
    for row in s["temperatures"]:
        q = row["onsager_matrix"]
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
            _table(
                ("", *species),
                rows,
                caption=f"Onsager matrix L at {row['temperature']['value']:g} K: {_kind(q)}",
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
        (f"share of all jumps that carry {100 * float(f):g} % of it", *(show(r["fraction_of_jumps"][f], percent=True) for r in rows))
        for f in rows[0]["fraction_of_jumps"]
    ]
    lines.append(
        ("mean barrier, weighted by what each jump carries", *(show(r["mean_barrier"][_who(s)]) for r in rows))
    )
    return (
        "<p>A <em>kinoson</em> κ is what one jump of one state contributes to the diffusivity: its rate times the square of its "
        "displacement after all that is undone by later jumps has been taken off. Their mean sum is the diffusivity.</p>"
        + _table(("quantity", *_at(s)), lines, caption="Value ± one standard error")
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
        _table(("states", "number of states", "barriers", "rejected jumps", "force calls"), rows)
        + "<p class='note'>A rejected jump has the rate 0 in both directions. Every one is listed with its reason in <code>barriers.csv</code> "
        "and in the store <code>barriers.db</code>.</p>"
        + _table(
            ("states", "jumping atom", "mean barrier", "standard deviation", "barriers"),
            species,
            caption="Each jump counts once",
        )
    )


def _model(s: Mapping[str, Any]) -> str:
    rows = [
        (
            f"states at {row['temperature']['value']:g} K",
            a,
            show(e["mae"]),
            show(e["rmse"]),
            show(e["bias"], signed=True),
            show(e["barriers"]),
        )
        for row in s["temperatures"]
        for a, e in row["model_error"].items()
    ]
    rows += [
        (
            "test states of the fit",
            a,
            show(e["barrier_mae"]),
            show(e["barrier_rmse"]),
            show(e["barrier_bias"], signed=True),
            show(e["barriers"]),
        )
        for a, e in s["model"]["held_out"].items()
    ]
    return (
        "<h3>Barrier model</h3>"
        + _table(
            ("measured on", "jumping atom", "mean absolute error", "rms error", "mean error", "barriers"),
            rows,
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
        ("spread of reference minus model energies", *(show(r["energy_difference"]) for r in rows), "well below k_BT"),
    ]
    for name in rows[0]["energy_drift"] or {}:
        label = "energy drift" if name == "total" else f"energy drift of {name} jumps"
        drifts = [(r["energy_drift"] or {}).get(name) for r in rows]
        lines.append((label, *(show(q, signed=True) for q in drifts), "0 within three errors"))
    ratios = [r["relaxation"]["bound_ratio_trained"] for r in rows]
    lines.append(("mean bound over its value for y = 0, model rates", *map(show, ratios), "the lower the better"))
    return (
        _table(("check", *_at(s), "expected"), lines, caption="None of these numbers but the energies has a unit")
        + "<p class='note'>In equilibrium the mean energy change of a jump, weighted with rates, is zero; the energy drift measures it in "
        "units of the mean absolute energy change. The effective sample size says how many equally weighted states the weighted ones are "
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
        + _table(("package", "version"), versions)
        + "<h3>Time taken</h3>"
        + _table(("stage", "wall time when it was computed"), wall)
    )
