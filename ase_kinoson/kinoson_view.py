"""Kinosons in three dimensions: arrows whose colour is the species and whose thickness is the contribution.

Arrows and sites are one mesh of triangles, drawn by matplotlib for a page or by plotly for a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinoson_arrows import EMPTY, KinosonArrows
from ase_kinoson.kinoson_scene import GREY, VACANCY, Mesh, pale, scene, widest
from ase_kinoson.kinosons.result import Transport
from ase_kinoson.plotting import species_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["KinosonArrows", "plot_kinosons_3d", "view_kinosons_3d"]

LIGHT = (0.76, 0.15, 0.64)
"""Where the light comes from, for a reader who looks along −x: from above and a little from one side."""


def plot_kinosons_3d(
    arrows: KinosonArrows | Transport,
    ax: Axes | None = None,
    *,
    quantity: str | None = None,
    colors: Mapping[str, str] | None = None,
    reach: float | None = None,
    elevation: float | None = None,
    azimuth: float = -72.0,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Draw kinosons as arrows from the carrier, in perspective-free projection so that equal widths look equal.

    The cross-section of an arrow is proportional to its contribution; the legend gives the scale and stays right when
    the picture is turned or resized. Below 0.4 % of the largest contribution arrows are thin lines of one width.

    Parameters
    ----------
    arrows
        Arrows, or a result, of which the average lattice is drawn.
    ax
        Three-dimensional Axes (``projection="3d"``); default new ones.
    quantity
        Of a result, as in :meth:`KinosonArrows.average`.
    colors
        Colour of each species; default those of all figures.
    reach
        Sites up to this distance from the carrier are drawn as dots, Å; default 1.45 times the longest jump, and
        for the average lattice the sites that are reached.
    elevation, azimuth
        From where to look, degrees; default 22 above the xy plane, 55 for a lattice in this plane.
    title
        Default: what is shown, and the sum.
    legend
        Whether to draw the legends.

    Returns
    -------
    Axes

    Raises
    ------
    KinosonError
        If no arrow contributes, or ``ax`` is flat.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    shown = _arrows(arrows, quantity)
    if ax is None:
        ax = plt.figure(figsize=(6.4, 4.6), layout="constrained").add_subplot(projection="3d")
    axes: Any = ax
    if not hasattr(axes, "get_zlim"):
        raise KinosonError(
            "found flat Axes; expected three-dimensional ones; make them with plt.subplot(projection='3d') or leave "
            "ax out"
        )
    palette = colors or species_colors(shown.alloy_species)
    turn = np.radians(azimuth)
    light = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]) @ LIGHT
    polygons, paint = [], []
    for (vertices, faces), color, _ in scene(shown, palette, reach):
        corners = vertices[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        size = np.linalg.norm(normal, axis=1, keepdims=True)
        solid = size[:, 0] > 1e-12  # tips and poles hold triangles without area
        corners, normal = corners[solid], normal[solid] / size[solid]
        bright = 0.72 + 0.28 * (normal @ light)[:, None]
        polygons.append(corners)
        paint.append(np.clip(bright * np.array(to_rgb(color)), 0, 1))
    triangles, tint = np.concatenate(polygons), np.concatenate(paint)
    # edges of the colour of their face close the seams of antialiasing
    axes.add_collection3d(Poly3DCollection(triangles, facecolors=tint, edgecolors=tint, linewidths=0.25))
    above = 55.0 if shown.pbc.sum() < 3 else 22.0
    _frame(axes, triangles.reshape(-1, 3), above if elevation is None else elevation, azimuth)
    what = shown.quantity.partition("_")
    axes.set_title(title if title is not None else f"{shown.label}: {_symbol(*what)} = {_number(shown.total)} m²/s")
    if legend:
        _legends(axes, shown, palette)
    return ax


def view_kinosons_3d(
    arrows: KinosonArrows | Transport,
    *,
    quantity: str | None = None,
    colors: Mapping[str, str] | None = None,
    reach: float | None = None,
) -> Any:
    """Show kinosons in a notebook, to turn, zoom and point at; a click on a species in the legend hides it.

    Parameters
    ----------
    arrows, quantity, colors, reach
        As in :func:`plot_kinosons_3d`.

    Returns
    -------
    plotly.graph_objects.Figure
        Shown by a notebook; ``.write_html(path)`` makes a page of it.

    Raises
    ------
    KinosonError
        If plotly is missing, or no arrow contributes.
    """
    try:
        go: Any = import_module("plotly.graph_objects")
    except ImportError as error:
        raise KinosonError(
            "found no plotly; expected it for the interactive view; install it (pip install plotly) or draw with plot()"
        ) from error
    shown = _arrows(arrows, quantity)
    palette = colors or species_colors(shown.alloy_species)
    share = shown.share_by_species
    parts: dict[str, list[tuple[Mesh, str, int]]] = {s: [] for s in share}
    for part in scene(shown, palette, reach):
        parts.setdefault(str(shown.species[part[2]]) if part[2] >= 0 else "sites", []).append(part)
    figure = go.Figure()
    for name, own in parts.items():
        if not own:
            continue
        sizes = np.array([len(mesh[0]) for mesh, _, _ in own])
        first = np.cumsum(sizes) - sizes
        x, y, z = np.concatenate([mesh[0] for mesh, _, _ in own]).T
        i, j, k = np.concatenate([mesh[1] + n for n, (mesh, _, _) in zip(first, own, strict=True)]).T
        figure.add_mesh3d(
            x=x,
            y=y,
            z=z,
            i=i,
            j=j,
            k=k,
            color=GREY if name == "sites" else own[0][1],
            vertexcolor=np.repeat([color for _, color, _ in own], sizes),
            hovertext=np.repeat([_hover(shown, row) if row >= 0 else "" for _, _, row in own], sizes),
            hoverinfo="skip" if name == "sites" else "text",
            name=f"{name}  {_percent(share[name])}" if name in share else name,
            showlegend=True,
            lighting={"ambient": 0.75, "diffuse": 0.4, "specular": 0.05},
            lightposition={"x": -1000, "y": 3000, "z": -5000},  # lit from the opposite side, in its convention
        )
    corners = np.concatenate([np.stack([trace.x, trace.y, trace.z]) for trace in figure.data], axis=1)
    size = np.ptp(corners, axis=1)
    sphere = 2 * np.linalg.norm(corners - (corners.max(1) + corners.min(1))[:, None] / 2, axis=0).max()
    hidden = {"visible": False}
    figure.update_layout(
        title=f"{shown.label}: {_number(shown.total)} m²/s",
        scene={
            "aspectmode": "manual",  # "data" would leave half of the page empty
            "aspectratio": dict(zip("xyz", 2.15 * size / sphere, strict=True)),
            "camera": {"projection": {"type": "orthographic"}, "eye": {"x": 0.6, "y": -1.8, "z": 0.8}},
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
        },
        margin={"l": 0, "r": 0, "t": 40, "b": 0},
        legend={"itemsizing": "constant", "title": "moving atom"},
    )
    return figure


def _arrows(given: KinosonArrows | Transport, quantity: str | None) -> KinosonArrows:
    if isinstance(given, Transport):
        given = KinosonArrows.average(given, quantity=quantity)
    elif not isinstance(given, KinosonArrows):
        raise KinosonError(
            f"found a {type(given).__name__}; expected KinosonArrows or a result of transport(); make arrows with "
            "KinosonArrows.of_state() or .average()"
        )
    if given.total <= 0:
        raise KinosonError("found no jump that contributes; expected at least one; nothing diffuses here")
    return given


def _frame(axes: Any, points: NDArray, elevation: float, azimuth: float) -> None:
    """Equal scales, and a sphere around all points fills the axes, so that turning cuts nothing off."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    radius = 1.02 * float(np.linalg.norm(points - middle, axis=1).max())
    for setter, m in zip((axes.set_xlim, axes.set_ylim, axes.set_zlim), middle, strict=True):
        setter(m - radius, m + radius)
    axes.set_axis_off()
    axes.set_proj_type("ortho")
    axes.view_init(elev=elevation, azim=azimuth)
    axes.set_box_aspect((1, 1, 1))
    axes.apply_aspect()
    height = axes.bbox.height * 72 / axes.figure.dpi
    axes.set_box_aspect((1, 1, 1), zoom=height / (2 * radius * _points_per_angstrom(axes)))


def _legends(axes: Any, arrows: KinosonArrows, palette: Mapping[str, str]) -> None:
    from matplotlib.legend_handler import HandlerBase
    from matplotlib.lines import Line2D

    class Bar(Line2D):
        """A line as wide as the arrow that it stands for, also after the axes have changed."""

        diameter = 0.0

        def draw(self, renderer: Any) -> None:
            self.set_linewidth(self.diameter * _points_per_angstrom(axes))
            super().draw(renderer)

    class Handler(HandlerBase):
        def create_artists(self, legend, orig_handle, xdescent, ydescent, width, height, fontsize, trans):
            bar = Bar([-xdescent, width - xdescent], [(height - ydescent) / 2] * 2, color="0.35", transform=trans)
            bar.set_solid_capstyle("butt")
            bar.diameter = orig_handle.diameter
            return [bar]

    keys = []
    for value in _key_values(arrows.contribution):
        key = Bar([], [], label=_number(value, digits=0))
        key.diameter = 2 * widest(arrows) * np.sqrt(value / arrows.contribution.max())
        keys.append(key)
    share = arrows.share_by_species
    dots = [
        Line2D([], [], marker="o", linestyle="", color=palette[s], label=f"{s}  {_percent(x)}")
        for s, x in share.items()
    ]
    for s in sorted({*arrows.symbols.tolist()} - {EMPTY, *share}):
        dots.append(Line2D([], [], marker="o", linestyle="", color=pale(palette[s]), label=s))
    if arrows.mechanism == "vacancy":
        dots.append(Line2D([], [], marker="o", linestyle="", color=VACANCY, label="vacancy"))
    options = {"frameon": False, "alignment": "left"}
    first = axes.legend(handles=dots, title="moving atom", loc="upper left", bbox_to_anchor=(1.0, 0.95), **options)
    axes.add_artist(first).set_clip_on(False)  # clipped artists get no room in a layout
    axes.legend(
        handles=keys,
        title="kinoson (m²/s)",
        loc="lower left",
        bbox_to_anchor=(1.0, 0.05),
        labelspacing=0.9,
        handler_map={Bar: Handler()},
        **options,
    )


def _points_per_angstrom(axes: Any) -> float:
    """Size of one Å on the page, points: the same in all directions of the page for this projection."""
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    middle = np.array([np.mean(lim()) for lim in (axes.get_xlim, axes.get_ylim, axes.get_zlim)])
    ends = np.vstack([middle, middle + np.eye(3)])
    x, y, _ = proj_transform(*ends.T, axes.get_proj())
    page = axes.transData.transform(np.column_stack([x, y]))
    return float(np.sqrt(np.square(page[1:] - page[0]).sum() / 2) * 72 / axes.figure.dpi)


def _key_values(contribution: NDArray) -> list[float]:
    """The largest of 1, 2 or 5 times a power of ten that is reached, and the two decades below."""
    largest = float(contribution.max())
    decade = 10.0 ** np.floor(np.log10(largest))
    top = max(m for m in (1.0, 2.0, 5.0) if m * decade <= largest * (1 + 1e-9)) * decade
    return [top, top / 10, top / 100]


def _symbol(kind: str, _: str, who: str) -> str:
    if who in ("vacancy", "carrier"):
        return "Σκ"
    return f"Σκ* of {who}" if kind == "tracer" else f"Σκ of {who}"


def _number(value: float, *, digits: int = 2) -> str:
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 or share == 0 else "< 1 %"


def _hover(arrows: KinosonArrows, row: int) -> str:
    text = f"{arrows.species[row]}: {_number(arrows.contribution[row])} m²/s, {100 * arrows.share[row]:.2g} %"
    barrier = float(arrows.barrier[row])
    return f"{text}, barrier {barrier:.3f} eV" if np.isfinite(barrier) else text
