"""Sites around a carrier and around a jump, and how the point group permutes them.

Environments of symmetry-equivalent sites are listed in corresponding order, each in the frame of its class, so that
one set
of weights serves the whole class. A frame is the rotation that carries the representative onto the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell

__all__ = ["CarrierEnvironment", "EnvironmentClass", "JumpEnvironment", "PairTable"]


@dataclass(frozen=True)
class EnvironmentClass:
    """The environment of one symmetry class and its point group.

    Attributes
    ----------
    basis : ndarray of int, shape (n_env,)
        Basis site of each environment site of the representative.
    cells : ndarray of int, shape (n_env, 3)
        Its cell, relative to that of the representative.
    vectors : ndarray, shape (n_env, 3)
        Position relative to the centre of the representative, Å.
    permutations : ndarray of int, shape (n_ops, n_env)
        Operation g carries environment site e onto site ``permutations[g, e]``.
    rotations : ndarray, shape (n_ops, 3, 3)
        Cartesian rotation of each operation.
    """

    basis: NDArray[np.int64]
    cells: NDArray[np.int64]
    vectors: NDArray[np.float64]
    permutations: NDArray[np.int64]
    rotations: NDArray[np.float64]

    @property
    def n_sites(self) -> int:
        """Number of sites around the centre."""
        return len(self.basis)

    @property
    def n_ops(self) -> int:
        """Order of the point group."""
        return len(self.rotations)

    @cached_property
    def site_orbits(self) -> NDArray[np.int64]:
        """Label of the orbit of each environment site under the point group, shape (n_env,)."""
        if self.n_sites == 0:
            return np.empty(0, dtype=np.int64)
        return np.unique(self.permutations.min(axis=0), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def inverse_permutations(self) -> NDArray[np.int64]:
        """``inverse_permutations[g, permutations[g, e]] == e``, shape (n_ops, n_env)."""
        return np.argsort(self.permutations, axis=1)


@dataclass(frozen=True, eq=False)
class CarrierEnvironment:
    """Sites with varying occupants within a cutoff of the carrier.

    Attributes
    ----------
    supercell : Supercell
    cutoff : float
        Å.
    classes : tuple of EnvironmentClass
        One per symmetry class of mobile basis sites.
    class_of_basis : ndarray of int, shape (n_basis,)
        −1 where the carrier never is.
    basis : tuple of ndarray, shape (n_env,) each
        Environment of every basis site, in the order of its class.
    cells : tuple of ndarray, shape (n_env, 3) each
    frames : ndarray, shape (n_basis, 3, 3)
        Rotation from the representative of the class to the site.
    """

    supercell: Supercell
    cutoff: float
    classes: tuple[EnvironmentClass, ...]
    class_of_basis: NDArray[np.int64]
    basis: tuple[NDArray[np.int64], ...]
    cells: tuple[NDArray[np.int64], ...]
    frames: NDArray[np.float64]

    @classmethod
    def build(cls, network: JumpNetwork, *, cutoff: float | None = None) -> CarrierEnvironment:
        """List the sites around every carrier site.

        Parameters
        ----------
        network
            Jumps; they fix the mobile sites and the default cutoff.
        cutoff
            Å; default twice the shortest jump (54 sites in fcc, 58 in bcc).
        """
        cell = network.supercell
        alloy = cell.alloy
        group = alloy.space_group
        reach = 2.01 * float(network.lengths.min()) if cutoff is None else float(cutoff)
        i, j, vectors, cells = primitive_neighbor_list(
            "ijDS", alloy.pbc, alloy.cell, alloy.scaled_positions @ alloy.cell, reach
        )
        seen = alloy.varying_basis[j]
        i, j, vectors, cells = i[seen], j[seen], vectors[seen], cells[seen].astype(np.int64)
        orbits = np.where(alloy.mobile_basis, group.site_orbits(), -1)
        frames = np.tile(np.eye(3), (alloy.n_basis, 1, 1))
        class_of_basis = np.full(alloy.n_basis, -1)
        basis: list[NDArray] = [np.empty(0, int)] * alloy.n_basis
        listed: list[NDArray] = [np.empty((0, 3), int)] * alloy.n_basis
        classes: list[EnvironmentClass] = []
        for label in np.unique(orbits[orbits >= 0]):
            rep = int(np.flatnonzero(orbits == label)[0])
            own = np.flatnonzero(i == rep)
            order = own[
                np.lexsort((*np.round(-vectors[own].T[::-1], 4), np.round(np.linalg.norm(vectors[own], axis=1), 4)))
            ]
            b, n, v = j[order], cells[order], vectors[order]
            stay = [op for op in range(group.n_ops) if group.basis_map[op, rep] == rep]
            row = {(int(x), *map(int, y)): e for e, (x, y) in enumerate(zip(b, n, strict=True))}
            perms = []
            for op in stay:
                b1, n1 = group.apply(op, b, n)
                n1 = n1 - group.offsets[op, rep]
                perms.append([row[(int(x), *map(int, y))] for x, y in zip(b1, n1, strict=True)])
            perms_array = np.array(perms, dtype=np.int64).reshape(len(stay), len(b))
            rotations, perms_array = _distinct(group.cartesian[stay], perms_array)
            for site in np.flatnonzero(orbits == label):
                op = next(q for q in range(group.n_ops) if group.basis_map[q, rep] == site)
                if site == rep:
                    op = next(q for q in stay if np.allclose(group.rotations[q], np.eye(3)))
                b1, n1 = group.apply(op, b, n)
                basis[site], listed[site] = b1, n1 - group.offsets[op, rep]
                frames[site] = group.cartesian[op]
                class_of_basis[site] = len(classes)
            classes.append(EnvironmentClass(b, n, v, perms_array, rotations))
        return cls(cell, reach, tuple(classes), class_of_basis, tuple(basis), tuple(listed), frames)

    def sites(self, carriers: ArrayLike, basis_site: int) -> NDArray[np.int64]:
        """Environment sites of carriers that all sit on one basis site, shape (n, n_env)."""
        return self.supercell.neighbors(carriers, self.basis[basis_site], self.cells[basis_site])

    @property
    def is_wrapped(self) -> bool:
        """Whether the environment is larger than the supercell, so that some sites appear twice."""
        for b in np.flatnonzero(self.class_of_basis >= 0):
            found = self.sites(np.array([b]), int(b))[0]
            if b in found or len(np.unique(found)) != len(found):
                return True
        return False


@dataclass(frozen=True, eq=False)
class JumpEnvironment:
    """Sites with varying occupants around a jump, the two ends left out; a jump and its reverse share one list.

    Attributes
    ----------
    network : JumpNetwork
    cutoff : float
        Sites within this distance of either end, Å.
    classes : tuple of EnvironmentClass
        One per jump class; its group holds the operations that map the jump onto itself or its reverse.
    basis : ndarray of int, shape (n_basis, J, n_max)
        Environment of every jump, in the order of its class, padded with −1.
    cells : ndarray of int, shape (n_basis, J, n_max, 3)
    """

    network: JumpNetwork
    cutoff: float
    classes: tuple[EnvironmentClass, ...]
    basis: NDArray[np.int64]
    cells: NDArray[np.int64]

    @classmethod
    def build(cls, network: JumpNetwork, *, cutoff: float | None = None) -> JumpEnvironment:
        """List the sites around every jump; ``cutoff`` in Å, default 1.75 times the shortest jump."""
        cell = network.supercell
        alloy = cell.alloy
        group = alloy.space_group
        pairs = network.pairs
        reach = 1.75 * float(network.lengths.min()) if cutoff is None else float(cutoff)
        i, j, _, shifts = primitive_neighbor_list(
            "ijDS", alloy.pbc, alloy.cell, alloy.scaled_positions @ alloy.cell, reach
        )
        seen = alloy.varying_basis[j]
        i, j, shifts = i[seen], j[seen], shifts[seen].astype(np.int64)
        classes: list[EnvironmentClass] = []
        lists: list[tuple[NDArray, NDArray]] = []
        for label in range(network.n_classes):
            b0, k0 = np.argwhere(network.jump_class == label)[0]
            row = int(network.pair_row[b0, k0])
            rep = int(pairs.representative[pairs.undirected[row]])
            a, c, n = int(pairs.start[rep]), int(pairs.partner[rep]), pairs.cell[rep]
            sites: dict[tuple[int, ...], None] = {}
            for end, origin in ((a, np.zeros(3, int)), (c, n)):
                for x, y in zip(j[i == end], shifts[i == end] + origin, strict=True):
                    sites[(int(x), *map(int, y))] = None
            for own in ((a, 0, 0, 0), (c, *map(int, n))):
                sites.pop(own, None)
            keys = list(sites)
            b = np.array([s[0] for s in keys], dtype=np.int64)
            m = np.array([s[1:] for s in keys], dtype=np.int64).reshape(-1, 3)
            middle = (alloy.scaled_positions[a] + alloy.scaled_positions[c] + n) / 2
            v = (alloy.scaled_positions[b] + m - middle) @ alloy.cell
            order = np.lexsort((*np.round(-v.T[::-1], 4), np.round(np.linalg.norm(v, axis=1), 4)))
            b, m, v = b[order], m[order], v[order]
            index = {(int(x), *map(int, y)): e for e, (x, y) in enumerate(zip(b, m, strict=True))}
            rotations, perms = [], []
            for op in range(group.n_ops):
                ends = [group.apply(op, [s], [t]) for s, t in ((a, np.zeros(3, int)), (c, n))]
                (p,), (o,) = ends[0][0], ends[0][1]
                (q,), (r,) = ends[1][0], ends[1][1]
                if (p, q) == (a, c) and np.array_equal(r - o, n):
                    shift = o
                elif (p, q) == (c, a) and np.array_equal(r - o, -n):
                    shift = r
                else:
                    continue
                b1, m1 = group.apply(op, b, m)
                perms.append([index[(int(x), *map(int, y))] for x, y in zip(b1, m1 - shift, strict=True)])
                rotations.append(group.cartesian[op])
            perms_array = np.array(perms, dtype=np.int64).reshape(len(perms), len(b))
            rot, perms_array = _distinct(np.array(rotations), perms_array)
            classes.append(EnvironmentClass(b, m, v, perms_array, rot))
            lists.append((b, m))
        n_max = max(c.n_sites for c in classes)
        shape = (*network.exists.shape, n_max)
        basis = np.full(shape, -1)
        cells = np.zeros((*shape, 3), dtype=np.int64)
        for x, k in np.argwhere(network.exists):
            label = network.jump_class[x, k]
            row = int(network.pair_row[x, k])
            b, m = lists[label]
            op = int(pairs.operation[row])
            b1, m1 = group.apply(op, b, m)
            rep = int(pairs.representative[pairs.undirected[row]])
            start, begin = group.apply(op, [pairs.start[rep]], [[0, 0, 0]])
            if pairs.flipped[row]:
                start, begin = group.apply(op, [pairs.partner[rep]], [pairs.cell[rep]])
            assert start[0] == x
            basis[x, k, : len(b)] = b1
            cells[x, k, : len(b)] = m1 - begin[0]
        return cls(network, reach, tuple(classes), basis, cells)

    @property
    def n_max(self) -> int:
        """Largest number of environment sites of a jump."""
        return self.basis.shape[2]

    @cached_property
    def distances(self) -> tuple[NDArray[np.float64], ...]:
        """By class: distance of each environment site from the nearer end of the jump, Å, shape (n_env,)."""
        pairs = self.network.pairs
        result = []
        for label, kind in enumerate(self.classes):
            b, k = np.argwhere(self.network.jump_class == label)[0]
            row = pairs.representative[pairs.undirected[self.network.pair_row[b, k]]]
            half = pairs.vector[row] / 2
            result.append(np.minimum(*(np.linalg.norm(kind.vectors - end, axis=1) for end in (half, -half))))
        return tuple(result)

    def sites(self, carriers: ArrayLike) -> NDArray[np.int64]:
        """Environment sites of all jumps of carriers, shape (n, J, n_max); −1 where padded.

        In a cell smaller than the environment, periodic images of the two ends are −1 as well: their occupants are
        exchanged by the jump, and a jump must look the same from both ends.
        """
        c = np.asarray(carriers, dtype=np.int64)
        b = self.network.basis_of(c)
        flat = self.cells[b].reshape(len(c), -1, 3)
        found = self.network.supercell.neighbors(c, self.basis[b].reshape(len(c), -1), flat).reshape(
            self.basis[b].shape
        )
        ends = (found == c[:, None, None]) | (found == self.network.targets(c)[:, :, None])
        return np.where((self.basis[b] >= 0) & ~ends, found, -1)


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
        from ase_kinoson.crystal.symmetry import PairOrbits

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
        s = np.asarray(sites, dtype=np.int64)
        b = s % self.supercell.alloy.n_basis
        found = self.supercell.neighbors(s, self.partner[b], self.cells[b])
        return np.where(self.orbit[b] >= 0, found, -1)


def _distinct(rotations: NDArray, permutations: NDArray) -> tuple[NDArray, NDArray]:
    """Drop operations that repeat another in rotation and permutation."""
    keys = np.concatenate([np.round(rotations.reshape(len(rotations), -1), 6), permutations], axis=1)
    _, first = np.unique(keys + 0.0, axis=0, return_index=True)
    first = np.sort(first)
    return rotations[first], permutations[first]
