"""Triangles of a picture of kinosons: arrows, sites, and the edges between the targets of the jumps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.kinoson_arrows import EMPTY, KinosonArrows, across, thickness

__all__ = ["GREY", "VACANCY", "Mesh", "longest", "pale", "scene", "widest"]

WIDEST = (0.065, 0.045)
"""Radius of the widest arrow in units of the longest jump: one arrow per jump, and bundles of them."""
THINNEST = 0.06
"""Arrows are drawn no thinner than this part of the widest, to stay visible."""
REACH = (1.45, 1.05)
"""Sites are drawn up to this distance from a carrier in units of the longest jump: with known atoms, and without."""
DOT = 0.06
"""Radius of a site in units of the longest jump."""
GREY, EDGE, VACANCY = "#B8B8B8", "#DADADA", "#333333"

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Vertices, shape (n, 3), and triangles, shape (m, 3)."""


def longest(arrows: KinosonArrows) -> float:
    """Length of the longest jump, Å."""
    return float(np.linalg.norm(arrows.vector, axis=1).max())


def widest(arrows: KinosonArrows) -> float:
    """Radius of the shaft of the widest arrow, Å."""
    return longest(arrows) * WIDEST[int(arrows.fan.any())]


def _radii(arrows: KinosonArrows) -> NDArray[np.float64]:
    """Radius of the shaft of each arrow, Å; 0 where nothing is drawn."""
    part = thickness(arrows.contribution)
    return np.where(part > 0, widest(arrows) * np.maximum(part, THINNEST), 0.0)


def scene(arrows: KinosonArrows, palette: Mapping[str, str], reach: float | None) -> list[tuple[Mesh, str, int]]:
    """Meshes with their colours and the rows of their arrows (−1: a site, the carrier or an edge).

    Parameters
    ----------
    arrows
        What to show.
    palette
        Colour of each species.
    reach
        Largest distance of a site from a carrier, Å; None: the default.
    """
    length = longest(arrows)
    limit = REACH[int(EMPTY in arrows.symbols)] * length if reach is None else float(reach)
    found: list[tuple[Mesh, str, int]] = []
    carriers = np.unique(np.round(arrows.start, 6), axis=0)
    distance = np.linalg.norm(arrows.positions[:, None] - carriers, axis=2).min(axis=1)
    near = (distance <= limit) & (distance > 1e-3)
    for a, b in _edges(arrows):
        found.append((_tube(a, b - a, [0.0, 1.0], [0.008 * length] * 2, sides=5), EDGE, -1))
    for place, symbol in zip(arrows.positions[near], arrows.symbols[near], strict=True):
        found.append((_ball(place, DOT * length), pale(palette.get(str(symbol), GREY)), -1))
    for place in carriers:
        own = VACANCY if arrows.mechanism == "vacancy" else palette[str(arrows.species[0])]
        found.append((_ball(place, 1.4 * DOT * length), own, -1))
    gap = 0.2 if arrows.fan.any() else 0.12  # bundles would run into each other at the carrier
    begin = arrows.start + arrows.fan + gap * arrows.vector
    for i, radius in enumerate(_radii(arrows)):
        if radius > 0:
            mesh = _arrow(begin[i], (0.88 - gap) * arrows.vector[i], float(radius))
            found.append((mesh, palette[str(arrows.species[i])], i))
    return found


def _edges(arrows: KinosonArrows) -> list[tuple[NDArray, NDArray]]:
    """Edges of the polyhedron of the targets of each site, which shows how deep in space they lie."""
    found: list[tuple[NDArray, NDArray]] = []
    for place in np.unique(np.round(arrows.start, 4), axis=0):
        own = np.abs(arrows.start - place).max(axis=1) < 1e-3
        ends = place + np.unique(np.round(arrows.vector[own], 4), axis=0)
        first, second = np.triu_indices(len(ends), 1)
        apart = np.linalg.norm(ends[first] - ends[second], axis=1)
        short = apart < 1.02 * apart.min(initial=np.inf)
        found += list(zip(ends[first[short]], ends[second[short]], strict=True))
    return found


def pale(color: str) -> str:
    """Colour of an atom of a species: that of its arrows, mixed with white."""
    from matplotlib.colors import to_hex, to_rgb

    r, g, b = (0.55 + 0.45 * x for x in to_rgb(color))
    return str(to_hex((r, g, b)))


def _arrow(tail: NDArray, vector: NDArray, radius: float) -> Mesh:
    """Shaft with a conical head."""
    length = float(np.linalg.norm(vector))
    wide = min(2.2 * radius + 0.012 * length, 0.25 * length)
    neck = 1.0 - min(2.2 * wide / length, 0.45)
    return _tube(tail, vector, [0.0, 0.0, neck, neck, 1.0], [0.0, radius, radius, wide, 0.0])


def _tube(
    tail: NDArray, vector: NDArray, along: list[float], radius: list[float], *, sides: int = 16, rings: int = 8
) -> Mesh:
    """Circles of given radii at given parts of a vector, with more between: drawing by depth orders small faces."""
    at, width = [], []
    for (a, b), (u, v) in zip(pairwise(along), pairwise(radius), strict=True):
        part = np.linspace(0.0, 1.0, max(1, round(rings * (b - a))), endpoint=False)
        at += [*(a + (b - a) * part)]
        width += [*(u + (v - u) * part)]
    at.append(along[-1])
    width.append(radius[-1])
    first, second = across(vector[None])
    angle = 2 * np.pi * np.arange(sides)[:, None] / sides
    circle = np.cos(angle) * first + np.sin(angle) * second
    vertices = np.concatenate([tail + t * vector + w * circle for t, w in zip(at, width, strict=True)])
    return vertices, _strips(len(at), sides)


def _ball(centre: NDArray, radius: float, *, sides: int = 10, rings: int = 7) -> Mesh:
    polar = np.linspace(0.0, np.pi, rings)
    angle = 2 * np.pi * np.arange(sides) / sides
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], axis=1)
    pole = np.array([0.0, 0.0, -1.0])
    vertices = np.concatenate([np.sin(t) * circle + np.cos(t) * pole for t in polar])
    return centre + radius * vertices, _strips(rings, sides)


def _strips(rings: int, sides: int) -> NDArray[np.int64]:
    """Triangles between neighbouring rings of vertices, normals outwards."""
    ring, side = (x.ravel() for x in np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij"))
    a, b = ring * sides + side, ring * sides + (side + 1) % sides
    return np.concatenate([np.stack([a, b, b + sides], axis=1), np.stack([a, b + sides, a + sides], axis=1)])
