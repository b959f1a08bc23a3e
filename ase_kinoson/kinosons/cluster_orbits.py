"""Clusters of one and of two sites around a carrier that symmetry makes alike, and the vectors that go with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.environment import EnvironmentClass

__all__ = ["UNIT", "ClusterSites", "Orbit", "list_clusters"]

UNIT = 1e-6
"""Cutoffs are stored as whole multiples of this, Å."""


@dataclass(frozen=True, eq=False)
class ClusterSites:
    """What the clusters of one class of carrier sites are made of.

    Attributes
    ----------
    kind : EnvironmentClass
    slots : ndarray of int, or None
        Environment sites that get a vector; None: the carrier itself.
    moving : tuple of int
        Species codes of atoms with a vector.
    allowed : tuple of tuple of int
        Species codes that each environment site may hold; the first is the reference.
    n_codes : int
        Number of species codes.
    projector : ndarray, shape (3, 3)
        On the directions in which anything moves.
    length : float
        Of the shortest jump, Å.
    """

    kind: EnvironmentClass
    slots: NDArray[np.int64] | None
    moving: tuple[int, ...]
    allowed: tuple[tuple[int, ...], ...]
    n_codes: int
    projector: NDArray[np.float64]
    length: float


@dataclass(frozen=True, eq=False)
class Orbit:
    """Clusters that symmetry makes alike.

    Attributes
    ----------
    clusters : ndarray of int, shape (n_clusters, 2)
        Environment sites s and e; −1: the carrier, or none.
    vectors : ndarray, shape (n_clusters, 3, n_directions)
        Orthonormal vectors that go with each cluster.
    """

    clusters: NDArray[np.int64]
    vectors: NDArray[np.float64]


def list_clusters(sites: ClusterSites, pair_cutoff: float, reach: float) -> tuple[list[Orbit], list[Orbit]]:
    """List the orbits of clusters of one site and of two sites; for an interstitial: of none and of one.

    Parameters
    ----------
    sites
        What the clusters are made of.
    pair_cutoff
        Sites farther from the carrier than this are left out, Å.
    reach
        A third site lies within this distance of the second or of the carrier, Å.

    Returns
    -------
    pairs, triplets : list of Orbit
    """
    position = sites.kind.vectors
    distance = np.linalg.norm(position, axis=1)
    near = np.flatnonzero(distance <= pair_cutoff + UNIT)
    if sites.slots is None:
        return _orbits(sites, np.array([[-1, -1]])), _orbits(sites, np.stack([np.full(len(near), -1), near], axis=1))
    slots = np.intersect1d(sites.slots, near)
    # images of the carrier among the sites of a small cell are never atoms, but which they are the cell decides
    between = np.linalg.norm(position[slots, None] - position[None], axis=-1)
    close = np.minimum(between, distance[None]) <= reach + UNIT
    close[np.arange(len(slots)), slots] = False
    close &= np.array([len(codes) > 1 for codes in sites.allowed], dtype=bool)[None]
    s, e = np.nonzero(close)
    return (
        _orbits(sites, np.stack([slots, np.full(len(slots), -1)], axis=1)),
        _orbits(sites, np.stack([slots[s], e], axis=1)),
    )


def _orbits(sites: ClusterSites, clusters: NDArray[np.int64]) -> list[Orbit]:
    kind = sites.kind
    n_env = kind.n_sites
    # one more column, so that index −1 stays where it is
    permutations = np.concatenate([kind.permutations, np.full((kind.n_ops, 1), -1)], axis=1)
    images = permutations[:, clusters]  # (op, cluster, 2)
    keys = (images[..., 0] + 1) * (n_env + 1) + images[..., 1] + 1
    own = (clusters[:, 0] + 1) * (n_env + 1) + clusters[:, 1] + 1
    first = keys.min(axis=0)
    found = []
    for key in np.unique(first):
        members = np.flatnonzero(first == key)
        rep = members[own[members] == key][0]
        stay = keys[:, rep] == key
        basis = _invariant_vectors(
            kind.rotations[stay], sites.projector, kind.vectors[clusters[rep][clusters[rep] >= 0]]
        )
        if basis.shape[1] == 0:
            continue
        carry = [int(np.flatnonzero(keys[:, rep] == own[m])[0]) for m in members]
        found.append(Orbit(clusters[members], kind.rotations[carry] @ basis))
    return found


def _invariant_vectors(rotations: NDArray, projector: NDArray, along: NDArray) -> NDArray[np.float64]:
    """Orthonormal vectors that all rotations leave alone, shape (3, n); the first ones lie along the given ones.

    The choice depends on the geometry only, never on a numerical library: files rely on it.
    """
    average = projector @ rotations.mean(axis=0)
    basis: list[NDArray] = []
    for v in [*along, *np.eye(3)]:
        size = np.linalg.norm(v)
        left = average @ v / max(size, 1e-12)
        for b in basis:
            left = left - (b @ left) * b
        if np.linalg.norm(left) > 1e-3:
            basis.append(left / np.linalg.norm(left))
    return np.array(basis).reshape(-1, 3).T
