"""What several temperatures say together, and the vacancy fraction, as pieces of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.arrhenius_plot import draw_points, inverse_temperature_axes, plot_measured
from ase_kinoson.measured import MeasuredDiffusivity
from ase_kinoson.plotting import MARKERS
from ase_kinoson.report_parts import floats, prose
from ase_kinoson.report_tables import ERRORS, WIDE, Cell, cell, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_series", "measured_table", "series_table", "vacancy_table"]

CARRIERS = ("vacancy", "carrier")


def shown_names(s: Mapping[str, Any]) -> list[str]:
    """Diffusivities of the figure: those of atoms where c_v is known, else all."""
    found = s["series"]["diffusivities"]
    absolute = [n for n, d in found.items() if n not in CARRIERS and d["points"]["unit"] == "m^2/s"]
    return absolute or list(found)


def draw_series(s: Mapping[str, Any], colors: Mapping[str, str], ax: Axes) -> Axes:
    """log₁₀ D against 10⁴/T: points, fitted curves, and measured points where D* is in m²/s."""
    inverse_temperature_axes(ax)
    series, names = s["series"], shown_names(s)
    t, curve = floats(series["temperatures"]["value"]), floats(series["curve_temperatures"]["value"])
    for i, name in enumerate(names):
        own = series["diffusivities"][name]
        label = f"$D$ ({name})" if name in CARRIERS else f"$D^*$({name})"
        label += "" if own["points"]["unit"] == "m^2/s" else " / $c_v$"
        value, error = floats(own["points"]["value"]), floats(own["points"]["error"])
        style = {"fmt": MARKERS[i % len(MARKERS)], "color": colors[name], "label": label, "capsize": 2.5}
        draw_points(ax, 1e4 / t, value, error, **style)
        ax.plot(1e4 / curve, np.log10(floats(own["curve"]["value"])), color=colors[name], linewidth=1.2)
    if all(series["diffusivities"][n]["points"]["unit"] == "m^2/s" for n in names) and s.get("measured"):
        points = s["measured"]
        plot_measured(
            MeasuredDiffusivity(
                temperature_K=floats([p["temperature"]["value"] for p in points]),
                diffusivity=floats([p["diffusivity"]["value"] for p in points]),
                error=floats([p["diffusivity"]["error"] for p in points]),
                species=np.array([p["species"] for p in points]),
                source=np.array([p["source"] for p in points]),
            ),
            colors=colors,
            ax=ax,
        )
    ax.legend(frameon=False, fontsize="small")
    return ax


def series_table(s: Mapping[str, Any]) -> str:
    """Forms fitted to all temperatures, and how far they miss a temperature left out."""
    if not s.get("series"):
        return ""
    t = s["series"]["temperatures"]["value"]
    lines = []
    for name, own in s["series"]["diffusivities"].items():
        for form, model in own["models"].items():
            p, left = model["parameters"], model["left_out"]
            misses = [_miss(v, e) for v, e in zip(left["value"], left["error"], strict=True)]
            lines.append(
                (
                    name if name in CARRIERS else f"D* of {name}",
                    form + (" (best)" if form == own["best"] and len(t) > 2 else ""),
                    cell(p["mean_barrier"]) if "mean_barrier" in p else "",
                    cell(p["variance"]) if "variance" in p else "",
                    *(misses if len(t) <= WIDE else [_rms(left["value"])]),
                )
            )
    heads = [f"miss at {x:g} K" for x in t] if len(t) <= WIDE else ["rms miss"]
    return (
        "<h3>Forms of the temperature dependence</h3>"
        + table(
            ("of the", "form", "activation energy or mean barrier", "variance", *heads),
            lines,
            kinds=True,
            name="forms",
            caption="Forms fitted to ln D of all temperatures together: value ± one standard error; the miss, without "
            "unit, is ln(predicted/found) with that temperature left out",
        )
        + "<p class='note'>Arrhenius is a straight line; a Gaussian spread of barriers bends it with its variance over "
        "2(k_BT)². The measured density carries kinosons and relaxation of the nearest other temperature over: it "
        "predicts an upper bound.</p>"
    )


def _miss(value: float | None, error: float | None) -> Cell | str:
    if value is None:
        return ""
    text = f"{value:+.3f}" + ("" if error is None else f" ± {error:.3f}")
    return Cell(text.replace("-", "−"), float(value), error)


def _rms(values: list[float | None]) -> Cell | str:
    """Root mean square of the misses, where there are too many temperatures for one column each."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    rms = float(np.sqrt(np.mean(np.square(known))))
    return Cell(f"{rms:.3f}", rms)


def measured_table(s: Mapping[str, Any]) -> str:
    """Measured diffusivities that the study file names."""
    points = s.get("measured")
    if not points:
        return ""
    lines = [(p["species"] or "not said", cell(p["temperature"]), cell(p["diffusivity"]), p["source"]) for p in points]
    return "<h3>Measured diffusivities</h3>" + table(
        ("species", "temperature", "diffusivity", "source"),
        lines,
        name="measured",
        caption="Measured, from the file that the study names: value ± error where one is given",
    )


def vacancy_table(s: Mapping[str, Any]) -> str:
    """What a calculation of the vacancy fraction found."""
    found = s.get("vacancies")
    if not found:
        return ""
    rows = found["temperatures"]
    species = list(rows[0]["by_species"])
    at = ("temperature", [Cell(f"{r['temperature_K']:g} K", float(r["temperature_K"]), unit="K") for r in rows])
    effective = [Cell(f"{r['effective_number']:.1f} sites", float(r["effective_number"]), kind="Kish") for r in rows]
    fraction: list[tuple[str | Cell, ...]] = [
        ("vacancy site fraction c_v", *(cell(r["vacancy_fraction"]) for r in rows)),
        ("−k_BT ln c_v", *(cell(r["effective_energy"]) for r in rows)),
        ("effective number of sites", *effective),
    ]
    formation: list[tuple[str | Cell, ...]] = [
        (f"{a} leaves", *(cell(r["formation_energies"][a]["mean"]) for r in rows)) for a in species
    ]
    preference: list[tuple[str | Cell, ...]] = [
        (f"sites of {a}", *(cell(r["site_preference"][a]) for r in rows)) for a in species
    ]
    said = "; ".join(found["approximations"])
    return (
        "<h3>Vacancy fraction</h3>"
        + table(
            ("quantity",),
            fraction,
            name="vacancies",
            caption=f"Vacancy fraction, without unit, and its energy: {ERRORS}",
            kinds=True,
            across=at,
        )
        + table(
            ("mean formation energy",),
            formation,
            name="formation-energies",
            caption=f"Mean formation energy by the atom that leaves: {ERRORS}",
            kinds=True,
            across=at,
        )
        + table(
            ("preference of the vacancy",),
            preference,
            name="site-preference",
            caption=f"Preference of the vacancy for the sites of a species, without unit: {ERRORS}",
            kinds=True,
            across=at,
        )
        + "<p class='note'>"
        + prose(
            f"From {int(found['n_arrangements'])} arrangements of {int(found['n_sites'])} sites with the same "
            f"calculator. Approximations: {said}."
        )
        + "</p>"
    )
