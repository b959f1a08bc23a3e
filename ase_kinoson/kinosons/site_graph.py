"""The sites that one carrier can visit, the jumps between them, and which clusters of sites wrap around the cell.

Where the atoms around a carrier never move, its positions are the sites themselves. A cluster of connected sites
carries current over long distances only if some ring of jumps in it ends in another periodic image of the site where it
began. Jumps count the images that they cross in whole numbers, so that this is decided without any tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["Clusters", "SiteGraph"]


@dataclass(frozen=True, eq=False)
class SiteGraph:
    """Mobile sites of a supercell and the jumps between them.

    Attributes
    ----------
    network : JumpNetwork
    sites : ndarray of int, shape (n,)
        The mobile sites; all other arrays count in their order.
    targets : ndarray of int32, shape (n, J)
        Site that each jump leads to, −1 where there is no jump.
    images : ndarray of int16, shape (n, J, 3)
        Periodic image of the supercell in which the target lies, in units of the supercell vectors.
    """

    network: JumpNetwork
    sites: NDArray[np.int64]
    targets: NDArray[np.int32]
    images: NDArray[np.int16]

    @classmethod
    def of(cls, network: JumpNetwork) -> SiteGraph:
        """List the sites and jumps of a network."""
        cell = network.supercell
        sites = cell.mobile_sites
        place = np.full(cell.n_sites, -1, dtype=np.int32)
        place[sites] = np.arange(len(sites))
        basis = network.basis_of(sites)
        start = cell.cell_coordinates(sites // cell.alloy.n_basis)
        to_images = np.linalg.inv(cell.matrix)
        targets = np.full((len(sites), network.n_jumps), -1, dtype=np.int32)
        images = np.zeros((len(sites), network.n_jumps, 3), dtype=np.int16)
        for k in range(network.n_jumps):  # one jump at a time bounds memory
            end = start + network.target_cell[basis, k]
            index = cell.cell_index(end)
            crossed = np.rint((end - cell.cell_coordinates(index)) @ to_images)
            exists = network.exists[basis, k]
            targets[exists, k] = place[index * cell.alloy.n_basis + network.target_basis[basis, k]][exists]
            images[exists, k] = crossed[exists]
        return cls(network, sites, targets, images)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def basis(self) -> NDArray[np.int64]:
        """Basis site of every site, shape (n,)."""
        return self.network.basis_of(self.sites)

    @property
    def vectors(self) -> NDArray[np.float64]:
        """Displacement of every jump, Å, shape (n, J, 3)."""
        return self.network.vectors[self.basis]

    def back(self, values: NDArray) -> NDArray:
        """Values of the reverse of every jump, shape (n, J); 0 where there is no jump."""
        basis, result = self.basis, np.zeros_like(values)
        for k in range(values.shape[1]):
            there = values[self.targets[:, k], self.network.reverse[basis, k]]
            result[:, k] = np.where(self.targets[:, k] >= 0, there, 0)
        return result

    def both_open(self, opened: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Jumps between two open sites, shape (n, J), for open sites of shape (n,)."""
        return opened[:, None] & opened[self.targets] & (self.targets >= 0)

    def clusters(self, bonds: NDArray[np.bool_]) -> Clusters:
        """Connected clusters of sites, and the rings around the cell that each of them holds.

        Parameters
        ----------
        bonds : ndarray of bool, shape (n, J)
            Jumps with a rate above zero; the reverse of each must be among them.
        """
        parent = self.forest(bonds)
        n_clusters, label = connected_components(self._adjacency(bonds), directed=False)
        rings = [np.column_stack([label[rows], ring]) for rows, _, ring in self._rings(bonds, self.unwrap(parent))]
        return Clusters(label, n_clusters, np.unique(np.concatenate(rings), axis=0))

    def forest(self, bonds: NDArray[np.bool_]) -> NDArray[np.int64]:
        """A tree in every cluster: the jump of each site towards the root, −1 at the root, shape (n,)."""
        return self._towards_roots(self._adjacency(bonds))

    def accumulate(self, parent: NDArray[np.int64], steps: NDArray) -> NDArray:
        """Sum of ``steps`` from every site along its tree to the root.

        Parameters
        ----------
        parent : ndarray of int, shape (n,)
            From :meth:`forest`.
        steps : ndarray, shape (n, ...)
            What the jump towards the root adds; 0 at roots.
        """
        every = np.arange(len(self))
        above = np.where(parent >= 0, self.targets[every, parent], every)
        total = np.array(steps)
        while True:  # each round doubles the distance that is covered
            further = above[above]
            if np.array_equal(further, above):
                return total
            total = total + total[above]
            above = further

    def unwrap(self, parent: NDArray[np.int64]) -> NDArray[np.int64]:
        """Image of every site in the cluster drawn as a tree from its root, shape (n, 3)."""
        towards = self.images[np.arange(len(self)), parent].astype(np.int64)
        return -self.accumulate(parent, np.where(parent[:, None] >= 0, towards, 0))

    def opening(self, order: NDArray[np.int64]) -> NDArray[np.float64]:
        """Number of open sites at which a cluster first wraps around the cell, along each of its vectors.

        Sites are opened one by one. A bond opens with the later one of its sites. The fundamental rings of the
        minimum spanning tree of these times open as early as rings can, so that one tree tells what a union–find
        with displacements (Newman and Ziff, Phys. Rev. E 64, 016706 (2001)) finds step by step.

        Parameters
        ----------
        order : ndarray of int, shape (n,)
            Place of every site in the order of opening, from 1 to n.

        Returns
        -------
        ndarray, shape (3,)
            Inf along vectors that are not periodic, or where the whole lattice does not wrap.
        """
        bonds = self.targets > np.arange(len(self))[:, None]  # each bond once
        time = np.maximum(order[:, None], order[self.targets])
        tree = minimum_spanning_tree(self._adjacency(bonds, time))
        images = self.unwrap(self._towards_roots((tree + tree.T).tocsr()))
        first = np.full(3, np.inf)
        for rows, k, ring in self._rings(bonds, images):
            for axis in range(3):
                around = time[rows[ring[:, axis] != 0], k].astype(float)
                first[axis] = min(first[axis], around.min(initial=np.inf))
        return first

    def _adjacency(self, bonds: NDArray[np.bool_], values: NDArray | None = None) -> sp.csr_array:
        ends = np.concatenate([[0], np.cumsum(bonds.sum(axis=1))])
        weight = np.ones(ends[-1]) if values is None else values[bonds].astype(float)
        columns, ends = self.targets[bonds].astype(np.int32), ends.astype(np.int32)  # all that SciPy 1.13 knows here
        return sp.csr_array((weight, columns, ends), shape=(len(self), len(self)))

    def _towards_roots(self, adjacency: sp.csr_array) -> NDArray[np.int64]:
        n = len(self)
        roots = np.unique(connected_components(adjacency, directed=False)[1], return_index=True)[1]
        # one search from a further point that leads to all roots
        ends = np.append(adjacency.indptr, adjacency.nnz + len(roots))
        columns = np.append(adjacency.indices, roots)
        joined = sp.csr_array((np.ones(len(columns)), columns, ends), shape=(n + 1, n + 1))
        above = breadth_first_order(joined, n)[1][:n]
        parent = (self.targets == above[:, None]).argmax(axis=1)
        parent[roots] = -1
        return parent

    def _rings(self, bonds: NDArray[np.bool_], images: NDArray[np.int64]) -> Iterator[tuple[NDArray, int, NDArray]]:
        """Bonds that close a ring around the cell: their sites, jump by jump, and the images that the ring crosses."""
        for k in range(bonds.shape[1]):
            rows = np.flatnonzero(bonds[:, k])
            ring = images[rows] + self.images[rows, k] - images[self.targets[rows, k]]
            around = ring.any(axis=1)
            yield rows[around], k, ring[around]


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of sites and whether they wrap around the cell.

    Attributes
    ----------
    label : ndarray of int, shape (n,)
        Cluster of every site.
    n_clusters : int
    rings : ndarray of int, shape (n_rings, 4)
        Cluster, and images that a ring of jumps in it crosses, in units of the supercell vectors; those of a cluster
        span all directions along which it wraps.
    """

    label: NDArray[np.int32]
    n_clusters: int
    rings: NDArray[np.int64]

    @property
    def wrapping(self) -> NDArray[np.int64]:
        """Clusters that wrap around the cell."""
        return np.unique(self.rings[:, 0])

    @property
    def percolating(self) -> NDArray[np.bool_]:
        """Marks the sites of clusters that wrap, shape (n,)."""
        return np.isin(self.label, self.wrapping)

    def directions(self, vectors: NDArray) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Wrapping clusters, each with the projector onto the directions along which it wraps, shape (3, 3).

        Parameters
        ----------
        vectors : ndarray, shape (3, 3)
            Supercell vectors (rows), Å.
        """
        for cluster in self.wrapping:
            rings = self.rings[self.rings[:, 0] == cluster, 1:]
            _, size, axes = np.linalg.svd(rings @ vectors, full_matrices=False)
            along = axes[size > 1e-9 * size[0]]
            yield int(cluster), along.T @ along
