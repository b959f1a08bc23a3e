"""Figures of the report as inline SVG: colours follow light and dark, and equal inputs give equal text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.kinosons.density import KinosonDensity
from ase_kinoson.plotting import (
    plot_arrhenius,
    plot_barriers,
    plot_kinoson_density,
    plot_parity,
    plot_species_shares,
    species_colors,
)
from ase_kinoson.report_parts import floats, prose
from ase_kinoson.report_series import draw_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["barrier_figures", "inline_svg", "kinoson_figures", "ladder_figures", "readable", "transport_figures"]

INK = "#010203"
"""Stands for the colour of the surrounding text."""

CARRIER = "#7F7F7F"

ON_DARK = {"#0072B2": "--blue", "#737373": "--grey"}
"""Colours that the style sheet makes lighter on a dark page."""

STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def inline_svg(
    draw: Callable[[Axes], Any], *, name: str, alt: str, title: str = "", size: tuple[float, float] = (4.6, 3.3)
) -> str:
    """Draw into a figure and return it as an ``<svg>`` element.

    Parameters
    ----------
    draw
        Takes the Axes.
    name
        Unique in the page; prefix of all ids.
    alt
        What the figure shows, for those who cannot see it.
    title
        Its name in a few words; default the start of ``alt``.
    size
        Width and height, inch.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    defaults: Any = mpl.rcParamsDefault
    with mpl.rc_context({**defaults, **STYLE, "svg.hashsalt": name, "backend": mpl.rcParams["backend"]}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', text)
    for color, variable in ON_DARK.items():
        text = re.sub(color, f"var({variable}, {color})", text, flags=re.I)
    text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial, sans-serif")
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # the page has it once
    text = re.sub(r"<defs>\s*</defs>", "", text)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", text[: text.index(">") + 1])
    label = f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
    head = head.replace("<svg", f"<svg {label}", 1)
    said = escape(title or re.split("[:;,]", alt)[0], quote=False)
    words = f'<title id="{name}-title">{said}</title><desc id="{name}-desc">{escape(alt, quote=False)}</desc>'
    return head + words + re.sub(r"\n\s*\n+", "\n", text[text.index(">") + 1 :]).strip()


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{prose(caption)}</figcaption></figure>"


def _colors(s: Mapping[str, Any]) -> dict[str, str]:
    return species_colors(a for sub in s["alloy"]["sublattices"] for a in sub["composition"])


def _pair(q: Mapping[str, Any]) -> tuple[float, float]:
    return float(q["value"]), float("nan") if q["error"] is None else float(q["error"])


def transport_figures(s: Mapping[str, Any]) -> str:
    """Arrhenius plot and share of the species."""
    rows = s["temperatures"]
    t = [r["temperature"]["value"] for r in rows]
    colors = _colors(s) | {"vacancy": CARRIER, "interstitial": CARRIER, "carrier": CARRIER}
    carrier = "vacancy" if s["jumps"]["mechanism"] == "vacancy" else "interstitial"
    lines = {carrier: [_pair(r["vacancy_diffusivity"]) for r in rows]}
    lines |= {f"{a} tracer": [_pair(r["tracer_diffusivity"][a]) for r in rows] for a in rows[0]["tracer_diffusivity"]}
    palette = {label: colors[label.removesuffix(" tracer")] for label in lines}
    per = rows[0]["vacancy_fraction"] is None and carrier == "vacancy"
    unit = "m²/s; tracers per c_v" if per else "m²/s"
    kind = "Upper bounds" if rows[0]["vacancy_diffusivity"]["kind"] == "bound" else "Values"
    words = "; ".join(
        f"{label} from {pairs[0][0]:.2e} at {t[0]:g} K to {pairs[-1][0]:.2e} at {t[-1]:g} K"
        for label, pairs in lines.items()
    )
    if s.get("series"):
        svg = inline_svg(
            lambda ax: draw_series(s, colors, ax),
            name="arrhenius",
            alt=f"Logarithm of diffusivities in {unit} against inverse temperature: {words}",
        )
        said = "Best values" if s["temperatures"][0].get("ratio_estimate") else kind
        lay = " Open symbols: measured." if s.get("measured") else ""
        arrhenius = _figure(svg, f"{said} with one standard error; curves: the form that fits best.{lay}")
    else:
        svg = inline_svg(
            lambda ax: plot_arrhenius(t, lines, unit=unit, colors=palette, ax=ax),
            name="arrhenius",
            alt=f"Diffusivities in {unit} against inverse temperature: {words}",
        )
        arrhenius = _figure(svg, f"{kind} on the diffusivities with one standard error, at each temperature.")
    shares = {f"{r['temperature']['value']:g} K": {a: _pair(q) for a, q in r["share_by_species"].items()} for r in rows}
    said = "; ".join(
        f"{k}: " + ", ".join(f"{a} {100 * v[0]:.0f} %" for a, v in row.items()) for k, row in shares.items()
    )
    bars = inline_svg(
        lambda ax: _draw_shares(shares, _colors(s), carrier, ax),
        name="shares",
        alt=f"Share of the {carrier} diffusivity by jumping species: {said}",
        size=(4.6, max(2.0, 1.2 + 0.55 * len(shares))),
    )
    return arrhenius + _figure(
        bars,
        f"Share of the {carrier} diffusivity that the jumps of each species carry, ± one standard error.",
    )


def _draw_shares(shares: Mapping[str, Any], colors: Mapping[str, str], carrier: str, ax: Axes) -> None:
    """Bars whose numbers can be read on their colour, in light and dark alike."""
    from matplotlib.colors import to_rgb

    plot_species_shares(shares, colors=colors, ax=ax)
    ax.set_xlabel(f"share of the {carrier} diffusivity")
    legend = ax.get_legend()
    for bar in (*ax.patches, *(legend.legend_handles if legend else ())):
        bar.set_alpha(1.0)
    for text in ax.texts:
        x, y = text.get_position()
        under = next(b for b in ax.patches if b.get_bbox().contains(x, y))  # type: ignore[attr-defined]
        text.set_color(readable(to_rgb(under.get_facecolor())))


def readable(rgb: tuple[float, float, float]) -> str:
    """Black or white, whichever stands out more against a colour (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#FFFFFF"


def ladder_figures(s: Mapping[str, Any]) -> str:
    """Rungs of the ladder and the plain ladder, for each temperature."""
    who = "vacancy" if s["jumps"]["mechanism"] == "vacancy" else "carrier"
    colors = {f"tracer {a}": c for a, c in _colors(s).items()} | {who: CARRIER}
    parts = []
    for row in s["temperatures"]:
        t, found = float(row["temperature"]["value"]), row["correction"]
        lines = {k: r for k, r in found["rungs"].items() if k == who or k.startswith("tracer ")}
        words = "; ".join(f"{k} {r['value'][r['chosen']] / r['value'][0]:.3f}" for k, r in lines.items())
        plain = found["plain_ladder"].get(who)
        svg = inline_svg(
            lambda ax, r=lines, p=plain: _draw_ladder(r, p, who, colors, ax),  # type: ignore[misc]
            name=f"ladder-{t:g}".replace(".", "_"),
            alt=f"Residual ladder at {t:g} K: coefficient over the bound of y against the jumps that are followed; "
            f"chosen rungs: {words}",
        )
        parts.append(
            _figure(
                svg,
                f"{t:g} K, rates of the model: rung by rung down from the bound of y, ± one standard error, most of "
                "which all rungs share. Ringed: the rung chosen. Dotted: the plain ladder, a slower way to the same "
                f"number for the {who}.",
            )
        )
    return "".join(parts)


def _draw_ladder(
    rungs: Mapping[str, Any], plain: Mapping[str, Any] | None, who: str, colors: Mapping[str, str], ax: Axes
) -> None:
    """Values over that of rung 0 against the jumps that a rung needs."""
    longest = 1
    for i, (name, r) in enumerate(rungs.items()):
        n = len(r["value"])
        jumps = np.asarray(r["jumps"][:n], dtype=float)
        x = jumps * (1.0 + 0.04 * (i - (len(rungs) - 1) / 2)) + np.where(jumps == 0, 0.04 * i, 0.0)
        value, error = (floats(r[k]) / r["value"][0] for k in ("value", "error"))
        look: Any = {"color": colors[name], "marker": "os^Dv<>"[i % 7], "markersize": 4, "linewidth": 1.3, "capsize": 2}
        ax.errorbar(x, value, error, label=name, **look)
        k = int(r["chosen"])
        ax.plot(x[k], value[k], "o", markersize=11, markerfacecolor="none", markeredgecolor=colors[name])
        longest = max(longest, int(jumps[-1]))
    if plain is not None:
        top = rungs[who]["value"][0]
        value, error = (floats(plain[k]) / top for k in ("value", "error"))
        ax.errorbar(
            plain["jumps"], value, error, color=INK, linestyle=":", linewidth=1.3, marker=".", label=f"{who}, plain"
        )
        longest = max(longest, int(plain["jumps"][-1]))
    ticks = [0, *(2**i for i in range(int(np.log2(longest)) + 1))]
    ax.set_xscale("symlog", base=2, linthresh=1)
    ax.set_xticks(ticks, [str(i) for i in ticks])
    ax.minorticks_off()
    ax.set_xlim(-0.15, 1.35 * longest)
    ax.axhline(1.0, color=INK, linewidth=0.6, alpha=0.5)
    ax.set_xlabel("jumps followed (0: the bound of y)")
    ax.set_ylabel("coefficient / bound of y")
    above: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "columnspacing": 1.2, "handlelength": 1.5}
    ax.legend(frameon=False, ncols=min(4, len(rungs) + 1), **above)


def kinoson_figures(s: Mapping[str, Any], kinosons: Mapping[str, np.ndarray]) -> str:
    """Density of kinosons over barriers and over ln κ, for each temperature."""
    who = "vacancy" if s["jumps"]["mechanism"] == "vacancy" else "carrier"
    parts = []
    for row in s["temperatures"]:
        t = float(row["temperature"]["value"])
        own = np.abs(kinosons["temperature_K"] - t) < 1e-3 * t
        density = KinosonDensity(
            t,
            f"kinoson_{who}",
            kinosons[f"kinoson_{who}"][own],
            kinosons["weight"][own],
            kinosons["barrier"][own],
            kinosons["state_energy"][own],
            kinosons["species"][own],
            kinosons["state"][own].astype(int),
            kinosons["group"][own].astype(int),
            row["vacancy_diffusivity"]["kind"],
        )
        few = row["fraction_of_jumps"]["0.5"]["value"]
        for over, words in (("barrier", "over barriers"), ("log_kinoson", "over ln κ")):
            svg = inline_svg(
                lambda ax, d=density, o=over: plot_kinoson_density(d, over=o, bins=32, colors=_colors(s), ax=ax),  # type: ignore[misc]
                name=f"density-{t:g}-{over}".replace(".", "_"),
                alt=f"Density of kinosons {words} at {t:g} K, split by jumping species, beside the distribution of all "
                f"jumps; half of the "
                f"diffusivity is carried by {100 * few:.2g} % of the jumps",
            )
            parts.append(
                _figure(
                    svg,
                    f"{t:g} K: which jumps carry the diffusivity, {words}. Filled: share of the diffusivity; "
                    "line: share of the number of jumps.",
                )
            )
    return "".join(parts)


def barrier_figures(s: Mapping[str, Any], barriers: Mapping[str, np.ndarray]) -> str:
    """Barriers by species, and parity of the model."""
    ok = barriers["status"] == "ok"
    mean = "; ".join(
        f"{a} mean {np.mean(barriers['barrier'][ok & (barriers['species'] == a)]):.3f} eV"
        for a in sorted(set(barriers["species"][ok].tolist()))
    )
    histogram = inline_svg(
        lambda ax: plot_barriers(barriers["barrier"][ok], barriers["species"][ok], colors=_colors(s), ax=ax),
        name="barriers",
        alt=f"Histogram of all reference barriers by jumping species: {mean}",
    )
    unseen = barriers["set"] == "unseen"
    error = (barriers["model_barrier"] - barriers["barrier"])[ok & unseen]
    rms = float(np.sqrt(np.mean(error**2))) if len(error) else float("nan")
    parity = inline_svg(
        lambda ax: plot_parity(barriers["barrier"][ok], barriers["model_barrier"][ok], unseen[ok], ax=ax),
        name="parity",
        alt="Barriers of the model against reference barriers; rms error on states the fit has not seen "
        f"{1000 * rms:.2g} meV",
    )
    return _figure(
        histogram, "All reference barriers, training and evaluation states together; each jump counts once."
    ) + _figure(
        parity,
        "Barriers of the model against reference barriers. Crosses: the states on which the coefficients are "
        "evaluated.",
    )
