"""`PairTable`: the symmetry-distinct pairs of sites, the clusters of a pair-interaction energy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.site_table import SiteTable
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.crystal.symmetry import PairOrbits

__all__ = ["PairTable"]


@dataclass(frozen=True, eq=False)
class PairTable:
    """Symmetry-distinct pairs of varying sites, the clusters of a pair-interaction energy.

    Attributes
    ----------
    supercell : Supercell
    partner : ndarray of int, shape (n_basis, n_max)
        Basis site of each neighbour, −1 where padded.
    cells : ndarray of int, shape (n_basis, n_max, 3)
    orbit : ndarray of int, shape (n_basis, n_max)
        Pair class (undirected), −1 where padded.
    swapped : ndarray of bool, shape (n_basis, n_max)
        Where True the pair runs against the direction of its class (matters only for pairs of inequivalent sites).
    lengths : ndarray, shape (n_orbits,)
        Å.
    site_class : ndarray of int, shape (n_basis,)
        Symmetry class of each varying basis site, −1 for others.
    """

    supercell: Supercell
    partner: NDArray[np.int64]
    cells: NDArray[np.int64]
    orbit: NDArray[np.int64]
    swapped: NDArray[np.bool_]
    lengths: NDArray[np.float64]
    site_class: NDArray[np.int64]

    @classmethod
    def build(cls, cell: Supercell, cutoff: float) -> PairTable:
        """List pairs up to ``cutoff`` Å."""
        alloy = cell.alloy
        varying = alloy.varying_basis
        pairs = PairOrbits.find(
            alloy.space_group, alloy.cell, alloy.scaled_positions, alloy.pbc, cutoff, include=varying
        )
        rows = [np.flatnonzero(pairs.start == b) for b in range(alloy.n_basis)]
        n_max = max(map(len, rows), default=0)
        partner = np.full((alloy.n_basis, n_max), -1)
        cells = np.zeros((alloy.n_basis, n_max, 3), dtype=np.int64)
        orbit = np.full((alloy.n_basis, n_max), -1)
        swapped = np.zeros((alloy.n_basis, n_max), dtype=bool)
        labels = alloy.space_group.site_orbits()
        for b, own in enumerate(rows):
            partner[b, : len(own)] = pairs.partner[own]
            cells[b, : len(own)] = pairs.cell[own]
            orbit[b, : len(own)] = pairs.undirected[own]
            swapped[b, : len(own)] = labels[pairs.start[own]] > labels[pairs.partner[own]]
        length = np.linalg.norm(pairs.vector, axis=1)
        n_orbits = int(pairs.undirected.max(initial=-1)) + 1
        lengths = np.array([length[pairs.undirected == o].mean() for o in range(n_orbits)])
        classes = np.full(alloy.n_basis, -1)
        if varying.any():
            classes[varying] = np.unique(labels[varying], return_inverse=True)[1]
        return cls(cell, partner, cells, orbit, swapped, lengths, classes)

    @property
    def n_orbits(self) -> int:
        """Number of pair classes."""
        return len(self.lengths)

    def neighbors(self, sites: ArrayLike) -> NDArray[np.int64]:
        """Pair partners of sites, shape (n, n_max); −1 where padded."""
        return self._around.sites(np.asarray(sites, dtype=np.int64)).astype(np.int64)

    @cached_property
    def _around(self) -> SiteTable:
        return self.supercell.site_table(np.where(self.orbit >= 0, self.partner, -1), self.cells)
