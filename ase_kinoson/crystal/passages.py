"""Which jumps between interstitial sites are open: none through an atom or over another site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase_kinoson.crystal.alloy import Alloy
    from ase_kinoson.crystal.symmetry import PairOrbits

__all__ = ["clearance", "open_passages"]

BLOCKED = 0.5
"""A line that comes this close to an atom, in units of the radius of the smaller end, passes through it."""
OVER = 0.2
"""A line passes over a site that is this near, in units of the length of the line."""
WIDER = 1.01
"""A detour must be 1 % wider to be preferred."""


def clearance(points: NDArray, start: NDArray, vector: NDArray) -> NDArray[np.float64]:
    """Distance of points, shape (n, 3), from the line segment ``start`` + t ``vector``, 0 ≤ t ≤ 1; shape (n,)."""
    t = np.clip((points - start) @ vector / (vector @ vector), 0.0, 1.0)
    return np.asarray(np.linalg.norm(points - start - t[:, None] * vector, axis=1))


def open_passages(alloy: Alloy, pairs: PairOrbits, *, tolerance: float) -> NDArray[np.bool_]:
    """Choose the jumps of an interstitial among pairs of sites, shape (n_pairs,).

    Parameters
    ----------
    alloy
        Host with interstitial sites.
    pairs
        Pairs of interstitial sites.
    tolerance
        For each pair of symmetry classes of sites, pairs up to this many times as long as the shortest are candidates.

    Notes
    -----
    A candidate is dropped if its straight line comes closer to an atom than half the radius of the smaller hole, passes
    over another site, or is narrower than every line of a detour over sites that are closer to both ends than these
    are to each other. In a close-packed lattice this leaves the jumps through faces that two polyhedra share and drops
    those through shared edges. Decided once per symmetry class, so that all copies and reversals are treated alike.
    """
    kinds = alloy.space_group.site_orbits()
    length = np.linalg.norm(pairs.vector, axis=1)
    ends = np.sort(np.stack([kinds[pairs.start], kinds[pairs.partner]], axis=1), axis=1)
    _, family = np.unique(ends, axis=0, return_inverse=True)
    family = family.ravel()
    shortest = np.full(family.max() + 1, np.inf)
    np.minimum.at(shortest, family, length)
    candidate = length <= tolerance * shortest[family]
    atoms, sites = _around(alloy, float(length.max()))
    where = alloy.scaled_positions @ alloy.cell
    narrow = np.zeros(len(pairs.representative))
    for label, row in enumerate(pairs.representative):
        narrow[label] = clearance(atoms, where[pairs.start[row]], pairs.vector[row]).min()
    width = narrow[pairs.undirected]
    radius = np.array([np.linalg.norm(atoms - x, axis=1).min() for x in where[alloy.mobile_basis]])
    hole = np.full(alloy.n_basis, np.inf)
    hole[alloy.mobile_basis] = radius
    keep = np.zeros(len(narrow), dtype=bool)
    for label, row in enumerate(pairs.representative):
        a, b, vector = pairs.start[row], pairs.partner[row], pairs.vector[row]
        if not candidate[row] or narrow[label] < BLOCKED * min(hole[a], hole[b]):
            continue
        others = np.linalg.norm(sites - where[a], axis=1) > 1e-3
        others &= np.linalg.norm(sites - where[a] - vector, axis=1) > 1e-3
        if (clearance(sites[others], where[a], vector) < OVER * length[row]).any():
            continue
        keep[label] = not _has_wider_detour(pairs, width, length, int(row))
    return np.asarray(keep[pairs.undirected] & candidate)


def _has_wider_detour(pairs: PairOrbits, width: NDArray, length: NDArray, row: int) -> bool:
    """Whether wider, shorter jumps over sites between the ends of a pair join them."""
    enough = (width > WIDER * width[row]) & (length < length[row] - 1e-6)
    steps = {b: np.flatnonzero(enough & (pairs.start == b)) for b in np.unique(pairs.start[enough])}
    stack, seen = [(int(pairs.start[row]), np.zeros(3))], [np.zeros(3)]
    while stack:
        basis, here = stack.pop()
        for step in steps.get(basis, ()):
            there = here + pairs.vector[step]
            rest = float(np.linalg.norm(pairs.vector[row] - there))
            if rest < 1e-3:
                return True
            between = max(rest, float(np.linalg.norm(there))) < length[row] - 1e-6
            if between and np.linalg.norm(np.array(seen) - there, axis=1).min() > 1e-3:
                seen.append(there)
                stack.append((int(pairs.partner[step]), there))
    return False


def _around(alloy: Alloy, reach: float) -> tuple[NDArray, NDArray]:
    """Atoms and interstitial sites in and around the primitive cell, Å, as far as jumps reach."""
    cell = alloy.cell
    far = 2.0 * reach + 0.5 * np.linalg.norm(cell, axis=1).sum()
    heights = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    n = np.where(alloy.pbc, np.ceil(far / heights), 0).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-k, k + 1) for k in n), indexing="ij"), axis=-1).reshape(-1, 3)
    host = np.array([not alloy.sublattices[s].interstitial for s in alloy.site_sublattice])
    atoms, sites = (
        ((shifts[:, None] + alloy.scaled_positions[mask][None]) @ cell).reshape(-1, 3) for mask in (host, ~host)
    )
    return atoms, sites
