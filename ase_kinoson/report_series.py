"""What several temperatures say together, and the vacancy fraction, as pieces of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.arrhenius_plot import draw_points, inverse_temperature_axes, plot_measured
from ase_kinoson.measured import MeasuredDiffusivity
from ase_kinoson.plotting import MARKERS
from ase_kinoson.report_parts import floats, show, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_series", "series_table", "vacancy_table"]

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
            p = model["parameters"]
            left = model["left_out"]
            misses = [
                "" if v is None else f"{v:+.3f}" + ("" if e is None else f" ± {e:.3f}")
                for v, e in zip(left["value"], left["error"], strict=True)
            ]
            lines.append(
                (
                    name if name in CARRIERS else f"D* of {name}",
                    form + (" (best)" if form == own["best"] and len(t) > 2 else ""),
                    show(p["mean_barrier"]) if "mean_barrier" in p else "",
                    show(p["variance"]) if "variance" in p else "",
                    *misses,
                )
            )
    return (
        "<h3>Forms of the temperature dependence</h3>"
        + table(
            ("of the", "form", "activation energy or mean barrier", "variance", *(f"miss at {x:g} K" for x in t)),
            lines,
            caption="ln D of all temperatures together; the miss is ln(predicted/found) with that temperature left out",
        )
        + "<p class='note'>Arrhenius is a straight line; a Gaussian spread of barriers bends it with its variance over "
        "2(k_BT)². The measured density carries kinosons and relaxation of the nearest other temperature over: it "
        "predicts an upper bound.</p>"
    )


def vacancy_table(s: Mapping[str, Any]) -> str:
    """What a calculation of the vacancy fraction found."""
    found = s.get("vacancies")
    if not found:
        return ""
    rows = found["temperatures"]
    species = list(rows[0]["by_species"])
    lines = [("vacancy site fraction c_v", *(show(r["vacancy_fraction"]) for r in rows))]
    lines.append(("−k_BT ln c_v", *(show(r["effective_energy"]) for r in rows)))
    for a in species:
        lines.append((f"mean formation energy, {a} leaves", *(show(r["formation_energies"][a]["mean"]) for r in rows)))
    for a in species:
        lines.append((f"preference for sites of {a}", *(show(r["site_preference"][a]) for r in rows)))
    lines.append(("effective number of sites", *(f"{r['effective_number']:.1f}" for r in rows)))
    said = "; ".join(found["approximations"])
    return (
        "<h3>Vacancy fraction</h3>"
        + table(("", *(f"at {r['temperature_K']:g} K" for r in rows)), lines, caption="Value ± one standard error")
        + f"<p class='note'>From {int(found['n_arrangements'])} arrangements of {int(found['n_sites'])} sites with the "
        f"same calculator. Approximations: {said}.</p>"
    )
