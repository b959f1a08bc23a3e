"""Figures: every function takes data and ``ax=None``, returns the Axes, and never shows anything.

A species has one colour in all figures of a study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.palette import MARKERS, PALETTE, species_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ase_kinoson.kinosons.density import KinosonDensity

__all__ = [
    "MARKERS",
    "PALETTE",
    "plot_arrhenius",
    "plot_barriers",
    "plot_cumulative_shares",
    "plot_kinoson_density",
    "plot_parity",
    "plot_species_shares",
    "species_colors",
]


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(4.6, 3.4), layout="constrained")[1]


def plot_barriers(
    barrier: ArrayLike,
    species: Sequence[str] | NDArray,
    *,
    bins: int = 30,
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Histogram of reference barriers, one outline per jumping species.

    Parameters
    ----------
    barrier : array_like, shape (n,)
        eV; values that are not finite (rejected jumps) are left out.
    species : sequence of str, shape (n,)
        Who jumps.
    bins
        Number of intervals.
    colors
        Colour of each species.
    ax
        Where to draw.
    """
    axes = _axes(ax)
    q, who = np.asarray(barrier, dtype=float), np.asarray(species)
    use = np.isfinite(q)
    if not use.any():
        raise KinosonError("found no finite barrier to draw; expected at least one; compute barriers first")
    palette = colors or species_colors(who.tolist())
    edges: Any = np.histogram_bin_edges(q[use], bins=bins)
    for s in sorted(set(who[use].tolist())):
        own = q[use & (who == s)]
        axes.hist(own, edges, histtype="stepfilled", alpha=0.35, color=palette[s])
        axes.hist(own, edges, histtype="step", linewidth=1.5, color=palette[s], label=f"{s} ({len(own)} jumps)")
    axes.set_xlabel("reference barrier Q (eV)")
    axes.set_ylabel(f"jumps per {1000 * (edges[1] - edges[0]):.2g} meV")
    axes.legend(title="jumping atom", frameon=False)
    return axes


def plot_parity(
    reference: ArrayLike,
    predicted: ArrayLike,
    unseen: ArrayLike,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Barriers of the model against reference barriers, for states that the fit has used and has not seen.

    Parameters
    ----------
    reference, predicted : array_like, shape (n,)
        eV.
    unseen : array_like of bool, shape (n,)
        Marks jumps of states that no fit has seen.
    ax
        Where to draw.
    """
    axes = _axes(ax)
    x, y, new = (
        np.asarray(reference, dtype=float),
        np.asarray(predicted, dtype=float),
        np.asarray(unseen, dtype=bool),
    )
    use = np.isfinite(x) & np.isfinite(y)
    if not use.any():
        raise KinosonError("found no finite pair of barriers to draw; expected at least one; compute barriers first")
    parts = ((use & ~new, "in the fit", PALETTE[5], "o"), (use & new, "never seen by it", PALETTE[0], "x"))
    for mask, label, color, marker in parts:
        if mask.any():
            rms = 1000 * float(np.sqrt(np.mean((y[mask] - x[mask]) ** 2)))
            axes.plot(
                x[mask],
                y[mask],
                marker,
                color=color,
                markersize=3.5,
                alpha=0.6,
                markeredgewidth=1.0,
                label=f"{label}: rms {rms:.2g} meV",
            )
    low, high = min(x[use].min(), y[use].min()), max(x[use].max(), y[use].max())
    margin = 0.05 * (high - low) + 1e-3
    axes.plot([low - margin, high + margin], [low - margin, high + margin], color="0.5", linewidth=1)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    axes.set_aspect("equal")
    axes.set_xlabel("reference barrier (eV)")
    axes.set_ylabel("barrier of the model (eV)")
    axes.legend(frameon=False, loc="lower right")
    return axes


def plot_kinoson_density(
    density: KinosonDensity,
    *,
    over: str = "barrier",
    bins: int = 40,
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Which jumps carry the coefficient: its density by species, beside the distribution of all jumps.

    Parameters
    ----------
    density
        Kinosons of one coefficient.
    over
        ``"barrier"`` or ``"log_kinoson"``.
    bins
        Number of intervals.
    colors
        Colour of each species.
    ax
        Where to draw.
    """
    if over not in ("barrier", "log_kinoson"):
        raise KinosonError(f"found over={over!r}; expected 'barrier' or 'log_kinoson'; choose one")
    axes = _axes(ax)
    with np.errstate(divide="ignore"):
        x = density.barrier if over == "barrier" else np.log(density.kinoson)
    use = np.isfinite(x) & (density.weight > 0)
    edges = np.histogram_bin_edges(x[use], bins=bins)
    histogram = density.over_barrier(edges) if over == "barrier" else density.over_log_kinoson(edges)
    palette = colors or species_colors(histogram.shares)
    width = np.diff(edges)
    base = np.zeros(len(width))
    for s, share in histogram.shares.items():
        height = share / width
        axes.bar(
            edges[:-1],
            height,
            width,
            bottom=base,
            align="edge",
            color=palette[s],
            alpha=0.75,
            label=f"{s} jumps",
        )
        base = base + height
    every = np.histogram(x[use], bins=edges, weights=density.weight[use])[0] / density.weight[use].sum() / width
    axes.stairs(every, edges, color="0.45", linewidth=1.4, label="number of jumps")
    axes.set_ylim(0.0, 1.06 * max(base.max(), every.max()))
    axes.set_xlabel("barrier Q (eV)" if over == "barrier" else "ln κ   (κ in Å²/s)")
    axes.set_ylabel("share per eV" if over == "barrier" else "share per unit of ln κ")
    axes.legend(frameon=False)
    return axes


def plot_cumulative_shares(
    densities: Mapping[str, KinosonDensity],
    *,
    marks: Sequence[float] = (0.5, 0.9),
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How much of each coefficient the largest kinosons carry, against the fraction of jumps, logarithmic.

    Parameters
    ----------
    densities
        Label → kinosons of one coefficient.
    marks
        Shares to mark on each curve.
    colors
        Colour of each label.
    ax
        Where to draw.
    """
    axes = _axes(ax)
    palette = colors or {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(densities)}
    least = 1.0
    for i, (label, density) in enumerate(densities.items()):
        order = np.argsort(-density.kinoson, kind="stable")
        counted = np.cumsum(density.weight[order]) / density.weight.sum()
        carried = np.cumsum(density.contribution[order]) / density.total
        axes.step(counted, carried, where="post", color=palette[label], linewidth=1.5, label=label)
        at = density.shares(tuple(marks))
        axes.plot(list(at.values()), list(at), MARKERS[i % len(MARKERS)], color=palette[label], markersize=5)
        least = min(least, 0.1 * min(at.values()))
    for mark in marks:
        axes.axhline(mark, color="0.75", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(least, 1.0)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("fraction of jumps, largest kinosons first")
    axes.set_ylabel("share of the coefficient")
    axes.legend(frameon=False, loc="lower right")
    return axes


def plot_species_shares(
    shares: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Share of the vacancy diffusivity that the jumps of each species carry.

    Parameters
    ----------
    shares
        Label (a temperature) → species → (share, error).
    colors
        Colour of each species.
    ax
        Where to draw.
    """
    axes = _axes(ax)
    species = sorted({s for row in shares.values() for s in row})
    palette = colors or species_colors(species)
    rows = np.arange(len(shares))[::-1]
    left = np.zeros(len(rows))
    for s in species:
        value = np.array([row.get(s, (0.0, 0.0))[0] for row in shares.values()])
        axes.barh(rows, value, 0.6, left=left, color=palette[s], alpha=0.8, label=s)
        for y, start, v, (_, e) in zip(
            rows, left, value, (row.get(s, (0.0, 0.0)) for row in shares.values()), strict=True
        ):
            if v > 0.22:
                text = f"{100 * v:.0f} ± {100 * e:.0f} %" if np.isfinite(e) else f"{100 * v:.0f} %"
                axes.text(start + v / 2, y, text, ha="center", va="center", color="white", fontweight="bold")
        left = left + value
    axes.set_yticks(rows, list(shares))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the vacancy diffusivity")
    axes.legend(
        title="jumping atom",
        frameon=False,
        ncols=max(1, len(species)),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    return axes


def plot_arrhenius(
    temperatures_K: ArrayLike,
    coefficients: Mapping[str, Sequence[tuple[float, float]]],
    *,
    unit: str = "m²/s",
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Diffusivities against inverse temperature, logarithmic.

    Parameters
    ----------
    temperatures_K : array_like, shape (n,)
        K.
    coefficients
        Label → (value, error) at each temperature, all in ``unit``.
    unit
        Of the values.
    colors
        Colour of each label.
    ax
        Where to draw.
    """
    axes = _axes(ax)
    t = np.asarray(temperatures_K, dtype=float)
    order = np.argsort(t)
    x = 1000.0 / t[order]
    palette = colors or {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(coefficients)}
    for i, (label, pairs) in enumerate(coefficients.items()):
        value, error = np.array([[v, e if np.isfinite(e) else 0.0] for v, e in pairs])[order].T
        axes.errorbar(
            x,
            value,
            error,
            fmt=f"{MARKERS[i % len(MARKERS)]}-",
            color=palette[label],
            capsize=3,
            markersize=5,
            label=label,
        )
    axes.set_yscale("log")
    axes.set_xlabel("1000 K / T")
    axes.set_ylabel(f"diffusivity ({unit})")
    if len(t) == 1:
        axes.set_xlim(0.9 * x[0], 1.1 * x[0])
    axes.legend(frameon=False)
    return axes
