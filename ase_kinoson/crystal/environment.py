"""Sites around a carrier and around a jump, and how the point group permutes them.

Environments of symmetry-equivalent sites are listed in corresponding order, each in the frame of its class, so that
one set
of weights serves the whole class. A frame is the rotation that carries the representative onto the site.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.pair_table import PairTable
from ase_kinoson.crystal.site_table import SiteTable
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.crystal.symmetry import NO_GROUP, SpaceGroup
from ase_kinoson.errors import StructureError

__all__ = ["CarrierEnvironment", "EnvironmentClass", "JumpEnvironment", "PairTable"]

CACHED = 2**17
"""Occupants looked up at a time: with their places they stay in the cache of a processor."""


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
            b, n, v = j[own], cells[own], vectors[own]
            stay = [op for op in range(group.n_ops) if group.basis_map[op, rep] == rep]
            zero = [group.offsets[op, rep] for op in stay]
            more = _missing(group, b, n, stay, zero)
            if len(more):
                apart = (alloy.scaled_positions[more[:, 0]] + more[:, 1:] - alloy.scaled_positions[rep]) @ alloy.cell
                b, n, v = np.append(b, more[:, 0]), np.concatenate([n, more[:, 1:]]), np.concatenate([v, apart])
            order = np.lexsort((*np.round(-v.T[::-1], 4), np.round(np.linalg.norm(v, axis=1), 4)))
            b, n, v = b[order], n[order], v[order]
            perms_array = _permutations(group, b, n, stay, zero)
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

    @cached_property
    def is_wrapped(self) -> bool:
        """Whether the environment is larger than the supercell, so that some sites appear twice."""
        for b in np.flatnonzero(self.class_of_basis >= 0):
            found = self.sites(np.array([b]), int(b))[0]
            if b in found or len(np.unique(found)) != len(found):
                return True
        return False

    @property
    def n_max(self) -> int:
        """Largest number of sites around a carrier."""
        return max((kind.n_sites for kind in self.classes), default=0)

    @cached_property
    def table(self) -> SiteTable:
        """Sites around carriers on any basis sites, in the order of the class; padded where a class has fewer."""
        basis = np.full((len(self.basis), self.n_max), -1)
        cells = np.zeros((*basis.shape, 3), dtype=np.int64)
        for b in np.flatnonzero(self.class_of_basis >= 0):
            basis[b, : len(self.basis[b])], cells[b, : len(self.basis[b])] = self.basis[b], self.cells[b]
        return self.supercell.site_table(basis, cells)

    def occupants(
        self, occupations: NDArray[np.int8], carriers: ArrayLike, *, chunk: int | None = None
    ) -> NDArray[np.int8]:
        """Species codes around one carrier per state, on any basis sites.

        Parameters
        ----------
        occupations : ndarray of int8, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        chunk
            States treated at a time, which bounds memory; default: as many as stay in the cache of a processor.

        Returns
        -------
        ndarray of int8, shape (n, n_max)
            In the order of the class of the carrier's basis site; 0 where a class has fewer sites.
        """
        c = np.asarray(carriers, dtype=np.int64)
        return self._gather(occupations, c[:, None], chunk)[:, 0]

    def jump_occupants(
        self, network: JumpNetwork, occupations: NDArray[np.int8], carriers: ArrayLike, *, chunk: int | None = None
    ) -> NDArray[np.int8]:
        """Species codes around the carrier of each state and, after each of its jumps, around the new place.

        The carrier and the atom on its target have exchanged places in what is seen after a jump.

        Parameters
        ----------
        network
            Jumps on the supercell of the environment.
        occupations : ndarray of int8, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        chunk
            States treated at a time, which bounds memory; default: as many as stay in the cache of a processor.

        Returns
        -------
        ndarray of int8, shape (n, 1 + J, n_max)
            The state itself, then each jump; 0 where there is no jump or a class has fewer sites.
        """
        c = np.asarray(carriers, dtype=np.int64)
        where = np.concatenate([c[:, None], network.targets(c)], axis=1)
        return self._gather(occupations, where, chunk, None if self.is_wrapped else self._places_back(network))

    def _places_back(self, network: JumpNetwork) -> NDArray[np.int64]:
        """Where the start of each jump stands among the sites around its target, shape (n_basis, J); −1 if nowhere."""
        around = self.table
        same = around.basis[network.target_basis] == np.arange(len(around.basis))[:, None, None]
        same &= (around.cells[network.target_basis] == -network.target_cell[:, :, None, :]).all(axis=3)
        return np.where(same.any(axis=2) & network.exists, same.argmax(axis=2), -1)

    def _gather(
        self, occupations: NDArray[np.int8], where: NDArray[np.int64], chunk: int | None, back: NDArray | None = None
    ) -> NDArray[np.int8]:
        """Occupants around sites (n, k), after the carrier, on the first one, exchanged places with that of each."""
        n, k = where.shape
        found = np.empty((n, k, self.n_max), dtype=np.int8)
        step = chunk or max(1, CACHED // max(1, k * self.n_max))
        for begin in range(0, n, step):
            part = slice(begin, begin + step)
            self._gather_part(np.ascontiguousarray(occupations[part], dtype=np.int8), where[part], back, found[part])
        return found

    def _gather_part(
        self, occupations: NDArray[np.int8], where: NDArray[np.int64], back: NDArray | None, found: NDArray[np.int8]
    ) -> None:
        n, k = where.shape
        first, there = (np.arange(n) * occupations.shape[1])[:, None], np.maximum(where, 0)
        flat, c = occupations.reshape(-1), where[:, :1]
        sites = self.table.sites(there.ravel())
        index = np.add(sites.reshape(n, -1), first, dtype=np.intp)
        if self.table.is_padded:
            np.maximum(index, 0, out=index)
        flat.take(index.reshape(found.shape), out=found, mode="clip")  # "raise" would make a copy
        if k > 1:
            here, moved = flat[first + c], flat[first + there]
            if back is None:  # in a small cell both ends may be seen, more than once
                around = sites.reshape(found.shape)
                at_start = around == c[:, :, None]
                np.copyto(found, here[:, :, None], where=around == there[:, :, None])
                np.copyto(found, moved[:, :, None], where=at_start)
            else:
                place = back[c[:, 0] % self.supercell.alloy.n_basis]
                row, jump = np.nonzero(place >= 0)
                found[row, jump + 1, place[row, jump]] = moved[row, jump + 1]
            found[where < 0] = 0
        if self.table.is_padded:
            found[(sites < 0).reshape(found.shape)] = 0


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
            stay, zero = _keeping(group, a, c, n)
            more = _missing(group, b, m, stay, zero)
            b, m = np.append(b, more[:, 0]), np.concatenate([m, more[:, 1:]])
            middle = (alloy.scaled_positions[a] + alloy.scaled_positions[c] + n) / 2
            v = (alloy.scaled_positions[b] + m - middle) @ alloy.cell
            order = np.lexsort((*np.round(-v.T[::-1], 4), np.round(np.linalg.norm(v, axis=1), 4)))
            b, m, v = b[order], m[order], v[order]
            rot, perms_array = _distinct(group.cartesian[stay], _permutations(group, b, m, stay, zero))
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
        return self.table.sites(c).reshape(len(c), *self.basis.shape[1:]).astype(np.int64)

    @cached_property
    def table(self) -> SiteTable:
        """The jumps of a site side by side; images of the two ends are those of every carrier on the basis site."""
        n_basis, cell = len(self.basis), self.network.supercell
        basis, cells = self.basis.reshape(n_basis, -1), self.cells.reshape(n_basis, -1, 3)
        carriers = np.arange(n_basis)
        found = cell.neighbors(carriers, basis, cells).reshape(self.basis.shape)
        ends = (found == carriers[:, None, None]) | (found == self.network.targets(carriers)[:, :, None])
        return cell.site_table(np.where(ends.reshape(n_basis, -1), -1, basis), cells)


def _distinct(rotations: NDArray, permutations: NDArray) -> tuple[NDArray, NDArray]:
    """Drop operations that repeat another in rotation and permutation."""
    keys = np.concatenate([np.round(rotations.reshape(len(rotations), -1), 6), permutations], axis=1)
    _, first = np.unique(keys + 0.0, axis=0, return_index=True)
    first = np.sort(first)
    return rotations[first], permutations[first]


def _keeping(group: SpaceGroup, start: int, end: int, cell: NDArray) -> tuple[list[int], list[NDArray[np.int64]]]:
    """Operations that map a jump onto itself or its reverse, and the cell in which each puts the start of it."""
    operations, origins = [], []
    for op in range(group.n_ops):
        (p,), (o,) = group.apply(op, [start], np.zeros((1, 3), int))
        (q,), (r,) = group.apply(op, [end], [cell])
        same = (p, q) == (start, end) and np.array_equal(r - o, cell)
        if same or ((p, q) == (end, start) and np.array_equal(r - o, -cell)):
            operations.append(op)
            origins.append(o if same else r)
    return operations, origins


def _images(
    group: SpaceGroup, basis: NDArray, cells: NDArray, operations: list[int], origins: list[NDArray]
) -> Iterator[list[tuple[int, ...]]]:
    """Images of sites under each operation that leaves a site or a jump where it is, but for a translation."""
    for op, origin in zip(operations, origins, strict=True):
        b, n = group.apply(op, basis, cells)
        yield [(x, *y) for x, y in zip(b.tolist(), (n - origin).tolist(), strict=True)]


def _missing(
    group: SpaceGroup, basis: NDArray, cells: NDArray, operations: list[int], origins: list[NDArray]
) -> NDArray[np.int64]:
    """Sites (basis, cell) that symmetry makes equal to listed ones and that are not listed, shape (n, 4).

    There are some where a crystal is symmetric within a tolerance only and a cutoff falls on a shell of neighbours.
    """
    every = {key for keys in _images(group, basis, cells, operations, origins) for key in keys}
    listed = {(x, *y) for x, y in zip(basis.tolist(), cells.tolist(), strict=True)}
    return np.array(sorted(every - listed), dtype=np.int64).reshape(-1, 4)


def _permutations(
    group: SpaceGroup, basis: NDArray, cells: NDArray, operations: list[int], origins: list[NDArray]
) -> NDArray[np.int64]:
    """Where each operation takes each site, shape (n_operations, n_sites)."""
    row = {(x, *y): e for e, (x, y) in enumerate(zip(basis.tolist(), cells.tolist(), strict=True))}
    images = _images(group, basis, cells, operations, origins)
    found = np.array([[row.get(key, -1) for key in keys] for keys in images], dtype=np.int64)
    if np.any(found < 0):
        raise StructureError(NO_GROUP)
    return found.reshape(len(operations), len(basis))
