"""Interstitial sites found from the structure: the holes between the atoms of the average lattice.

The distance to the nearest atom, as a function of the place, has its maxima at vertices of the Voronoi diagram: the
centres of tetrahedra, octahedra and larger cages. One well-known site is no maximum: the octahedral site of bcc lies
halfway between two second neighbours, in the middle of a face of the Voronoi cell, where the distance is smallest
along the line between these two atoms and largest across it. Both kinds of points are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, Voronoi, cKDTree

from ase_kinoson.crystal.symmetry import find_operations, find_standard
from ase_kinoson.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from ase_kinoson.crystal.alloy import Alloy

__all__ = ["InterstitialSite", "find_interstitial_sites", "site_positions", "symmetry_copies"]

SAME_PLACE = 0.02
"""Å: points closer than this are one."""
SHELL = 1.02
"""Atoms up to 2 % farther than the nearest one touch the same hole."""
STRETCHED = 1.5
"""An octahedron may have its farthest corner this many times as far as its nearest one (bcc: √2)."""
BENT = 20.0
"""Degrees by which the axes of an octahedron may deviate from straight lines at right angles."""
INSIDE = 0.25
"""A vertex closer to the centre of an octahedron than this part of its radius is a corner of that hole."""
NAMES = {4: "tetrahedral", 8: "cubic"}


@dataclass(frozen=True, eq=False)
class InterstitialSite:
    """One kind of interstitial site with all its symmetry copies.

    Attributes
    ----------
    kind
        ``"octahedral"``, ``"tetrahedral"``, ``"cubic"``, … or, for example, ``"5-coordinated"``.
    label
        Kind, multiplicity in the standard conventional cell and Wyckoff letter as spglib gives them
        (``"octahedral 4b"``; the letter depends on the choice of origin).
    positions : ndarray, shape (n, 3)
        All copies, as fractions of the conventional lattice vectors of the alloy.
    radius
        Distance to the nearest atom, Å.
    distances : ndarray, shape (coordination,)
        Distances to the atoms around the site, Å.
    neighbors : tuple of str
        Names of the sublattices of these atoms, in the same order.
    """

    kind: str
    label: str
    positions: NDArray[np.float64]
    radius: float
    distances: NDArray[np.float64]
    neighbors: tuple[str, ...]

    @property
    def coordination(self) -> int:
        """Number of atoms around the site."""
        return len(self.distances)

    @property
    def multiplicity(self) -> int:
        """Number of copies in the conventional cell."""
        return len(self.positions)

    @property
    def position(self) -> NDArray[np.float64]:
        """One copy, as fractions of the conventional lattice vectors, shape (3,)."""
        return np.asarray(self.positions[0])

    def __str__(self) -> str:
        where = ", ".join(f"{x:.4g}" for x in self.position)
        return f"{self.label} at ({where}): {self.coordination} atoms, radius {self.radius:.4g} Å"


def find_interstitial_sites(
    structure: Alloy | Structure | Atoms,
    kind: str | Sequence[str] | None = None,
    *,
    min_distance: float = 0.0,
) -> tuple[InterstitialSite, ...]:
    """Find the interstitial sites of a crystal, one entry per symmetry class.

    Parameters
    ----------
    structure
        The host. What counts is the average lattice: all species of a sublattice are one kind of atom. Interstitial
        sites that an alloy already has do not count as atoms.
    kind
        ``"octahedral"``, ``"tetrahedral"``, another kind, or several; default: all that are found.
    min_distance
        Smallest distance of a site from the atoms, Å.

    Returns
    -------
    tuple of InterstitialSite
        In the order of ``kind``, then by radius, largest first.

    Raises
    ------
    StructureError
        If the crystal is not periodic in three directions or has no site of the kind; the message lists what it has.

    Notes
    -----
    Candidates are the vertices of the Voronoi diagram (centres of empty spheres that touch at least four atoms) that
    are maxima of the distance to the atoms, and the centres of its faces. A candidate is octahedral if its six nearest
    atoms lie in pairs on three lines at right angles (within 20°), the farthest at most 1.5 times as far as the
    nearest: this covers bcc (2 atoms at a/2, 4 at a/√2) and every tetragonal lattice between bcc and fcc.
    """
    alloy = _as_alloy(structure)
    if not alloy.pbc.all():
        raise StructureError(
            f"found pbc={alloy.pbc.tolist()}; expected a crystal that is periodic in three directions; give the "
            "scaled positions of the sites instead"
        )
    found = _classes(alloy, min_distance)
    if kind is None:
        return tuple(found)
    wanted = [kind] if isinstance(kind, str) else list(kind)
    for name in wanted:
        if name not in {site.kind for site in found}:
            there = "; ".join(map(str, found)) or "no sites at all"
            raise StructureError(
                f"found no {name!r} interstitial site at least {min_distance:g} Å from all atoms; expected one of: "
                f"{there}; choose from these or give scaled positions"
            )
    return tuple(site for name in wanted for site in found if site.kind == name)


def symmetry_copies(
    cell: NDArray, scaled: NDArray, kinds: NDArray, points: NDArray, *, tolerance: float = SAME_PLACE
) -> list[NDArray[np.float64]]:
    """Distinct copies of points under the space group of a crystal.

    Parameters
    ----------
    cell, scaled, kinds
        The crystal: vectors (Å), scaled positions and kinds of its atoms.
    points : ndarray, shape (n, 3)
        Scaled positions.
    tolerance
        Å; a point this close to a special position is moved there.

    Returns
    -------
    list of ndarray, shape (n_copies, 3)
        One array per class, in the order of the first point of each; scaled positions in [0, 1).
    """
    rotations, translations = find_operations(cell, scaled, kinds, 1e-3)
    orbits: list[NDArray[np.float64]] = []
    seen = np.empty((0, 3))
    for x in np.asarray(points, dtype=float):
        if _is_near(seen, x, cell, tolerance):
            continue
        away = rotations @ x + translations - x
        away -= np.rint(away)
        special = x + away[np.linalg.norm(away @ cell, axis=1) < tolerance].mean(axis=0)
        copies = np.empty((0, 3))
        for image in rotations @ special + translations:
            image = (image + 1e-6) % 1.0 - 1e-6
            if not _is_near(copies, image, cell, tolerance):
                copies = np.vstack([copies, image])
        orbits.append(copies)
        seen = np.vstack([seen, copies])
    return orbits


def site_positions(alloy: Alloy, sites: Any) -> NDArray[np.float64]:
    """Scaled positions in the conventional cell for what a user may give as ``sites``, shape (n, 3).

    Parameters
    ----------
    alloy
        The host.
    sites
        Scaled positions, a kind (``"octahedral"``), :class:`InterstitialSite`, or a list of kinds or sites.

    Raises
    ------
    StructureError
        If a kind is not there, or the positions are no finite numbers in rows of three.
    """
    given = [sites] if isinstance(sites, (str, InterstitialSite)) else list(sites)
    if given and all(isinstance(s, (str, InterstitialSite)) for s in given):
        found: list[InterstitialSite] = []
        for s in given:
            found += find_interstitial_sites(alloy, s) if isinstance(s, str) else [s]
        return np.array([s.position for s in found])
    try:
        positions = np.atleast_2d(np.asarray(sites, dtype=float))
    except (TypeError, ValueError):
        positions = np.empty((0, 0))
    if positions.ndim != 2 or positions.shape[1:] != (3,) or not len(positions) or not np.isfinite(positions).all():
        raise StructureError(
            f"found interstitial sites {sites!r}; expected a kind such as 'octahedral', sites of "
            "find_interstitial_sites, or rows of three scaled positions; correct them"
        )
    return positions


# -- the search ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Hole:
    kind: str
    place: NDArray[np.float64]
    distances: NDArray[np.float64]
    atoms: NDArray[np.int64]


def _classes(alloy: Alloy, min_distance: float) -> list[InterstitialSite]:
    """Symmetry classes of holes, largest first."""
    host = np.array([not alloy.sublattices[s].interstitial for s in alloy.site_sublattice])
    scaled, kinds = alloy.scaled_positions[host], alloy.site_sublattice[host]
    points, basis = _surroundings(alloy.cell, scaled)
    tree = cKDTree(points)
    holes = _holes(alloy.cell, points, basis, tree)
    if not holes:
        return []
    inverse = np.linalg.inv(alloy.cell)
    conventional = alloy.conventional @ alloy.cell
    result = []
    for copies in symmetry_copies(alloy.cell, scaled, kinds, np.array([h.place for h in holes]) @ inverse):
        hole = next(h for h in holes if _is_near(copies, h.place @ inverse, alloy.cell, SAME_PLACE))
        if hole.distances[0] < min_distance:
            continue
        positions = _fill(copies, alloy.cell, conventional)
        result.append(
            InterstitialSite(
                hole.kind,
                f"{hole.kind} {_wyckoff(alloy.cell, scaled, kinds, copies)}",
                positions,
                float(hole.distances[0]),
                hole.distances,
                tuple(alloy.sublattices[kinds[a]].name for a in hole.atoms),
            )
        )
    return sorted(result, key=lambda s: (-round(s.radius, 4), s.multiplicity, *np.round(s.position, 4)))


def _surroundings(cell: NDArray, scaled: NDArray) -> tuple[NDArray, NDArray]:
    """Atoms in and around one cell, far enough that the Voronoi diagram in the cell is that of the crystal."""
    # no place is farther from the nearest atom than half the sum of the cell vectors
    reach = np.linalg.norm(cell, axis=1).sum()
    heights = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    n = np.ceil(reach / heights).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-k, k + 1) for k in n), indexing="ij"), axis=-1).reshape(-1, 3)
    points = ((shifts[:, None] + scaled[None]) @ cell).reshape(-1, 3)
    basis = np.tile(np.arange(len(scaled)), len(shifts))
    near = np.linalg.norm(points - 0.5 * cell.sum(axis=0), axis=1) < 1.5 * reach
    return points[near], basis[near]


def _holes(cell: NDArray, points: NDArray, basis: NDArray, tree: cKDTree) -> list[_Hole]:
    """All holes of one cell: octahedra first, then maxima of the distance that are not corners of these."""
    diagram = Voronoi(points)
    pairs = points[diagram.ridge_points]
    vertices = _once(diagram.vertices, cell)
    middles = _once(pairs.mean(axis=1), cell)
    octahedra: list[_Hole] = []
    for place in np.vstack([vertices, middles]):
        hole = _octahedron(place, points, basis, tree)
        if hole is not None and _distance(hole.place, octahedra, cell) > SAME_PLACE:
            octahedra.append(hole)
    others: list[_Hole] = []
    for place in vertices:
        distances, near = tree.query(place, k=min(64, len(points)))
        touching = distances <= SHELL * distances[0]
        inside = _distance(place, octahedra, cell) < max(INSIDE * distances[0], SAME_PLACE)
        if inside or not _is_maximum(points[near[touching]] - place):
            continue
        n = int(touching.sum())
        others.append(_Hole(NAMES.get(n, f"{n}-coordinated"), place, distances[touching], basis[near[touching]]))
    return octahedra + others


def _octahedron(place: NDArray, points: NDArray, basis: NDArray, tree: cKDTree) -> _Hole | None:
    """The octahedron around a place, at its centre; None if its six nearest atoms form none."""
    distances, near = tree.query(place, k=7)
    if distances[0] < SAME_PLACE or distances[5] > STRETCHED * distances[0] or distances[6] < SHELL * distances[5]:
        return None
    centre = points[near[:6]].mean(axis=0)
    vectors = points[near[:6]] - centre
    length = np.linalg.norm(vectors, axis=1)
    if length.min() < SAME_PLACE:
        return None
    angles = np.degrees(np.arccos(np.clip((vectors @ vectors.T) / np.outer(length, length), -1.0, 1.0)))
    opposite = angles > 180.0 - BENT
    right = np.abs(angles - 90.0) < BENT
    if not (opposite.sum(axis=1) == 1).all() or not (opposite | right | np.eye(6, dtype=bool)).all():
        return None
    order = np.argsort(length, kind="stable")
    if length[order[-1]] > STRETCHED * length[order[0]]:
        return None
    return _Hole("octahedral", centre, length[order], basis[near[:6]][order])


def _is_maximum(vectors: NDArray) -> bool:
    """Whether a place lies inside the polyhedron of the atoms that touch its empty sphere, shape (n, 3)."""
    if len(vectors) < 4 or np.linalg.matrix_rank(vectors, tol=1e-3) < 3:
        return False
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    return bool(ConvexHull(unit).equations[:, -1].max() < -1e-3)


def _once(places: NDArray, cell: NDArray) -> NDArray:
    """Places wrapped into the cell, each once, shape (n, 3)."""
    scaled = places @ np.linalg.inv(cell)
    scaled = scaled[np.all((scaled > -0.05) & (scaled < 1.05), axis=1)]
    scaled = (scaled + 1e-6) % 1.0 - 1e-6
    kept = np.empty((0, 3))
    for x in scaled:
        if not _is_near(kept, x, cell, SAME_PLACE):
            kept = np.vstack([kept, x])
    return kept @ cell


def _is_near(known: NDArray, x: NDArray, cell: NDArray, tolerance: float) -> bool:
    delta = known - x
    return bool(np.any(np.linalg.norm((delta - np.rint(delta)) @ cell, axis=1) < tolerance))


def _distance(place: NDArray, holes: list[_Hole], cell: NDArray) -> float:
    """Distance of a place from the nearest of some holes, Å."""
    if not holes:
        return np.inf
    delta = (np.array([h.place for h in holes]) - place) @ np.linalg.inv(cell)
    return float(np.linalg.norm((delta - np.rint(delta)) @ cell, axis=1).min())


def _fill(copies: NDArray, cell: NDArray, conventional: NDArray) -> NDArray[np.float64]:
    """Scaled positions of all copies in the conventional cell, shape (n, 3), nearest to the origin first."""
    inverse = np.linalg.inv(conventional)
    n = int(np.ceil(np.abs(conventional @ np.linalg.inv(cell)).sum()))
    shifts = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    scaled = ((shifts[:, None] + copies[None]).reshape(-1, 3) @ cell) @ inverse
    scaled = scaled[np.all((scaled > -1e-5) & (scaled < 1.0 - 1e-5), axis=1)]
    scaled = np.where(np.abs(scaled) < 1e-5, 0.0, scaled)
    order = np.lexsort((*np.round(-scaled, 5).T, np.round(scaled.sum(axis=1), 5)))
    return np.asarray(scaled[order])


def _wyckoff(cell: NDArray, scaled: NDArray, kinds: NDArray, copies: NDArray) -> str:
    """Multiplicity and Wyckoff letter in the standard conventional cell."""
    data = find_standard(
        cell, np.vstack([scaled, copies]), np.concatenate([kinds, np.full(len(copies), kinds.max() + 1)]), 1e-3
    )
    scale = round(abs(np.linalg.det(data.std_lattice)) / abs(np.linalg.det(cell)))
    return f"{len(copies) * scale}{data.wyckoffs[len(scaled)]}"


def _as_alloy(structure: Alloy | Structure | Atoms) -> Alloy:
    from ase_kinoson.crystal.alloy import Alloy

    if isinstance(structure, Alloy):
        return structure
    if isinstance(structure, Atoms):
        return Alloy.from_atoms(structure)
    if not hasattr(structure, "lattice"):
        raise StructureError(
            f"found a {type(structure).__name__}; expected an Alloy, a pymatgen Structure or ASE Atoms; convert it"
        )
    return Alloy.from_structure(structure)
