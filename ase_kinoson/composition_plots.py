"""Figures of a `CompositionMap`: lines of binaries and ternary diagrams.

As in :mod:`ase_kinoson.plotting`, every function takes data and ``ax=None``, returns the Axes and never shows anything.
Ternary axes come from mpltern (the optional extra ``maps``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.composition_maps import CompositionMap
from ase_kinoson.errors import KinosonError
from ase_kinoson.plotting import MARKERS, species_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_binary_map", "plot_ternary_map"]

LABELS = {
    "vacancy": "$D_v$ (m²/s)",
    "tracer": "$D^*/c_v$ (m²/s)",
    "f": "tracer correlation factor",
    "share": "share of $D_v$",
    "energy": "activation energy (eV)",
}


def plot_binary_map(
    found: CompositionMap,
    what: str = "tracer",
    *,
    temperature_K: float | None = None,
    along: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Lines over the composition of a binary, one per species, with error bars.

    Parameters
    ----------
    found
        A map whose points hold two species.
    what
        ``"vacancy"``, ``"tracer"``, ``"f"``, ``"share"`` or ``"energy"``.
    temperature_K
        None: the only one.
    along
        Species on the axis; default the last one.
    ax
        Axes to draw on; default new ones.
    """
    x = found.compositions(temperature_K)
    used = [s for s, column in zip(found.species, x.T, strict=True) if column.any()]
    if len(used) != 2:
        raise KinosonError(
            f"found a map of {len(used)} species; expected 2 for lines; use a ternary diagram or a table"
        )
    if what not in LABELS:
        raise KinosonError(f"found what={what!r}; expected one of {list(LABELS)}; choose one")
    goal = along or used[-1]
    if goal not in used:
        raise KinosonError(f"found along={goal!r}; expected one of {used}; choose one")
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(4.6, 3.4), layout="constrained")[1]
    percent = 100 * x[:, found.species.index(goal)]
    order = np.argsort(percent)
    colors = species_colors(used)
    names = ["vacancy"] if what == "vacancy" else [f"{what} {s}" for s in used]
    if what == "energy":
        names.insert(0, "energy vacancy")
    for n, name in enumerate(names):
        value, error = found.values(name, temperature_K)
        who = name.partition(" ")[2] or "vacancy"
        shown = order[np.isfinite(value[order])]
        ax.errorbar(
            percent[shown],
            value[shown],
            error[shown],
            fmt=f"{MARKERS[n]}-",
            color=colors.get(who, "#444444"),
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=who,
        )
    if what in ("vacancy", "tracer"):
        ax.set_yscale("log")
    ax.set_xlim(-2, 102)
    ax.set_xlabel(f"{goal} (at.%)")
    ax.set_ylabel(LABELS[what])
    if len(names) > 1:
        ax.legend(frameon=False)
    return ax


def plot_ternary_map(
    found: CompositionMap,
    name: str = "vacancy",
    *,
    temperature_K: float | None = None,
    species: Sequence[str] | None = None,
    excess: bool = False,
    smooth: bool = True,
    ax: Any = None,
) -> Any:
    """Colours over the triangle of three species; dots are the points that were computed.

    Parameters
    ----------
    found
        A map whose points hold three species.
    name
        As in :meth:`CompositionMap.values`. Diffusivities are drawn as log10.
    temperature_K
        None: the only one.
    species
        Species at the top, the left and the right corner; default in alphabetical order.
    excess
        Draw ln D minus the mixture of the pure species instead, see :meth:`CompositionMap.excess`.
    smooth
        Interpolate between points; otherwise colour the points only.
    ax
        Axes of mpltern (``plt.subplot(projection="ternary")``); default new ones.

    Raises
    ------
    KinosonError
        If the map does not hold three species, or mpltern is missing.
    """
    try:
        import mpltern  # noqa: F401 - registers the projection
    except ImportError as error:
        raise KinosonError(
            "found no mpltern, which draws ternary axes; expected the extra 'maps'; pip install 'ase-kinoson[maps]'"
        ) from error
    x = found.compositions(temperature_K)
    used = [s for s, column in zip(found.species, x.T, strict=True) if column.any()]
    corners = list(species or used)
    if len(used) != 3 or sorted(corners) != sorted(used):
        raise KinosonError(
            f"found a map of {used} and the corners {corners}; expected the same three species; use a table for more"
        )
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(5.4, 4.4)).add_subplot(projection="ternary")
    top, left, right = (x[:, found.species.index(s)] for s in corners)
    kind, _, who = name.partition(" ")
    if excess:
        value = found.excess(name, temperature_K)[0]
        label = f"ln {'$D_v$' if name == 'vacancy' else '$D^*$'} − mixture of the pure species"
        largest = float(np.nanmax(np.abs(value))) or 1.0
        style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
        levels = np.linspace(-largest, largest, 15)
    else:
        value = found.values(name, temperature_K)[0]
        label = LABELS[kind] + (f", {who}" if who else "")
        if kind in ("vacancy", "tracer"):
            value, label = np.log10(value), f"log10 {label}"
        style = {"cmap": "viridis"}
        levels = np.linspace(np.nanmin(value), np.nanmax(value) + 1e-9, 15)
    known = np.isfinite(value)
    sites = (top[known], left[known], right[known])
    if smooth and known.sum() > 3:
        drawn = ax.tricontourf(*sites, value[known], levels=levels, **style)
        ax.scatter(*sites, s=5, color="black", linewidths=0, clip_on=False, zorder=5)
    else:
        drawn = ax.scatter(*sites, c=value[known], s=40, clip_on=False, zorder=5, **style)
    ax.set_tlabel(corners[0])
    ax.set_llabel(corners[1])
    ax.set_rlabel(corners[2])
    for axis in (ax.taxis, ax.laxis, ax.raxis):
        axis.set_major_formatter(lambda v, _: f"{100 * v:.0f}")
    bar = ax.figure.colorbar(drawn, ax=ax, pad=0.14, shrink=0.8, format="%.2f")
    bar.set_label(label)
    return ax
