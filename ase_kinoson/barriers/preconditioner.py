"""Bond springs of the ideal lattice: the first guess of the Hessian of every relaxation, climb and descent.

All searches on one lattice share the springs, so each costs few force calls.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property

import numpy as np
from ase.geometry import find_mic
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, csc_matrix, identity
from scipy.sparse.linalg import SuperLU, splu

__all__ = ["SpringPreconditioner", "spring_preconditioner"]

BOND_TOLERANCE = 1.2
"""Pairs up to 20 % longer than the shortest bond of either atom carry a spring (both shells of bcc)."""

ALL_PAIRS = 300
"""Up to this many atoms all pairs are looked at, which is quicker than a neighbour list."""

DENSE_ATOMS = 128
"""Up to this many atoms the inverse itself is kept: it is no larger than the factors, and quicker to multiply with."""

ROOMY, EDGE, SQUEEZED = 0.612, 0.55, 40.0
"""An interstitial bond shorter by a part x than in a close-packed tetrahedron (0.612 of a host bond) is exp(40 x)
times as stiff: so carbon sits between two neighbours of bcc iron (10 times). Those shorter than 0.55 are no bonds of a
site but lie halfway across an edge, where no path leads; they stay soft.
"""


class SpringPreconditioner:
    """Inverse of a matrix of bond springs, factorised once.

    Every bond of unit vector ``e`` adds ``k (e eᵀ + τ (1 − e eᵀ))`` to the Hessian of its two atoms; a constant on the
    diagonal keeps translations finite. The sparse factorisation is a single-threaded one, so the result does not
    depend on how many threads a linear-algebra library uses.

    Parameters
    ----------
    positions : array_like, shape (n_atoms, 3)
        Ideal positions of the atoms, Å.
    cell : array_like, shape (3, 3)
        Å.
    pbc : array_like of bool, shape (3,)
    spring
        Radial stiffness k, eV/Å².
    transverse
        Transverse stiffness τ in units of the radial one.
    diagonal
        Added to the diagonal, eV/Å².
    guests : array_like of int
        Interstitial atoms: they have bonds with the atoms around them, stiffer the shorter they are, but do not hide
        the bonds of their hosts.
    """

    def __init__(
        self,
        positions: ArrayLike,
        cell: ArrayLike,
        pbc: ArrayLike,
        *,
        spring: float = 2.0,
        transverse: float = 0.15,
        diagonal: float = 0.1,
        guests: ArrayLike = (),
    ) -> None:
        self.positions = np.asarray(positions, dtype=float)
        self.cell = np.asarray(cell, dtype=float)
        self.pbc = np.asarray(pbc, dtype=bool)
        self._stiffness = (float(spring), float(transverse), float(diagonal))
        self._guests = np.zeros(len(self.positions), dtype=bool)
        self._guests[np.asarray(guests, dtype=np.int64)] = True
        self._bonds, self._host_bond = _all_bonds(self.positions, self.cell, self.pbc, self._guests)
        self._kept: dict[int, NDArray[np.float64]] = {}

    @property
    def n_bonds(self) -> int:
        """Number of springs."""
        return len(self._bonds[0]) // 2

    @cached_property
    def _hessian(self) -> csc_matrix:
        return _matrix(len(self.positions), *self._bonds[:2], self._blocks(*self._bonds), self._stiffness[2])

    def _blocks(self, i: NDArray, j: NDArray, vectors: NDArray) -> NDArray:
        """Stiffness of each bond, eV/Å², shape (n_bonds, 3, 3)."""
        spring, transverse, _ = self._stiffness
        length = np.linalg.norm(vectors, axis=1)
        unit = vectors / length[:, None]
        blocks = spring * (transverse * np.eye(3) + (1.0 - transverse) * unit[:, :, None] * unit[:, None, :])
        if self._guests.any():
            part = length / (ROOMY * self._host_bond)
            squeezed = (self._guests[i] | self._guests[j]) & (part < 1.0) & (part > EDGE / ROOMY)
            stiffer = np.where(squeezed, np.exp(SQUEEZED * (1.0 - part)), 1.0)
            blocks = blocks * stiffer[:, None, None]
        return blocks

    @cached_property
    def _factor(self) -> SuperLU:
        return splu(
            self._hessian,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    @cached_property
    def _dense_inverse(self) -> NDArray[np.float64] | None:
        n = len(self.positions)
        return np.ascontiguousarray(self._factor.solve(np.eye(3 * n))) if n <= DENSE_ATOMS else None

    def moved(self, atom: int, position: ArrayLike) -> SpringPreconditioner:
        """Return the springs after one atom went elsewhere: only its own bonds are found anew, nothing is factorised.

        Parameters
        ----------
        atom
            Index of the atom.
        position : array_like, shape (3,)
            Its new place, Å.
        """
        return _MovedSprings(self, atom, position)

    def solve(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply by the inverse of the spring matrix, shape (n_atoms, 3) → (n_atoms, 3), Å²/eV times the input."""
        flat = np.ascontiguousarray(vector).ravel()
        if self._dense_inverse is not None:
            return np.einsum("ij,j->i", self._dense_inverse, flat).reshape(-1, 3)  # no BLAS: one thread
        return self._factor.solve(flat).reshape(-1, 3)

    def multiply(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply by the spring matrix, shape (n_atoms, 3) → (n_atoms, 3), eV/Å² times the input."""
        return (self._hessian @ np.ascontiguousarray(vector).ravel()).reshape(-1, 3)

    def _columns(self, atom: int) -> NDArray[np.float64]:
        """Columns of the inverse that belong to one atom, shape (3 n_atoms, 3); kept, because many jumps share them."""
        if self._dense_inverse is not None:
            return self._dense_inverse[:, 3 * atom : 3 * atom + 3]
        found = self._kept.get(atom)
        if found is None:
            unit = np.zeros((3 * len(self.positions), 3))
            unit[3 * atom + np.arange(3), np.arange(3)] = 1.0
            found = np.column_stack([self.solve(column.reshape(-1, 3)).ravel() for column in unit.T])
            self._kept[atom] = found
        return found


class _MovedSprings(SpringPreconditioner):
    """Springs of which those of one atom have changed: the inverse follows from the old one (Woodbury's identity)."""

    _dense_inverse = None

    def __init__(self, base: SpringPreconditioner, atom: int, position: ArrayLike) -> None:
        self.positions = base.positions.copy()
        self.positions[atom] = position
        self.cell, self.pbc, self._stiffness = base.cell, base.pbc, base._stiffness
        self._base, self._kept = base, {}
        self._guests, self._host_bond = base._guests, base._host_bond
        i, j, vectors = base._bonds
        old = (i == atom) | (j == atom)
        near, away = _around(self.positions, atom, self.cell, self.pbc)
        here = np.full(len(near), atom)
        new = (np.append(here, near), np.append(near, here), np.concatenate([away, -away]))
        self._exchanged = old, new
        # the change is a small matrix on the atom, its old neighbours and its new ones
        touched = np.unique(np.concatenate([[atom], i[old], near]))
        place = np.full(len(self.positions), -1)
        place[touched] = np.arange(len(touched))
        gained, lost = (
            _dense(len(touched), place[first], place[second], self._blocks(first, second, bond))
            for first, second, bond in (new, (i[old], j[old], vectors[old]))
        )
        self._change = gained - lost
        self._rows = (3 * touched[:, None] + np.arange(3)).ravel()
        self._inverse = np.concatenate([base._columns(int(t)) for t in touched], axis=1)
        inner = np.eye(len(self._rows)) + self._change @ self._inverse[self._rows]
        self._kernel = np.linalg.solve(inner, self._change)

    @cached_property
    def _bonds(self) -> tuple[NDArray, NDArray, NDArray]:  # type: ignore[override]
        """All springs; only needed where one more atom moves."""
        old, new = self._exchanged
        i, j, vectors = (np.concatenate([kept[~old], own]) for kept, own in zip(self._base._bonds, new, strict=True))
        return i, j, vectors

    def solve(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        before = self._base.solve(vector)
        return before - (self._inverse @ (self._kernel @ before.ravel()[self._rows])).reshape(-1, 3)

    def multiply(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        result = self._base.multiply(vector).ravel()
        result[self._rows] += self._change @ np.asarray(vector).ravel()[self._rows]
        return result.reshape(-1, 3)


def _bonds(points: NDArray, cell: NDArray, pbc: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Directed bonds i → j with their vectors; every pair is listed both ways."""
    n = len(points)
    empty = np.empty(0, dtype=np.int64)
    if n < 2:
        return empty, empty, np.empty((0, 3))
    heights = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    reach = 1.5 * (abs(np.linalg.det(cell)) / n) ** (1 / 3)
    while True:
        i, j, d, vectors = _pairs(points, cell, pbc, reach)
        nearest = np.full(n, np.inf)
        np.minimum.at(nearest, i, d)
        longest = BOND_TOLERANCE * nearest[np.isfinite(nearest)].max(initial=0.0)
        if (np.isfinite(nearest).all() and longest <= reach) or reach > 2 * max(heights.max(), 10.0):
            break
        reach *= 1.4
    keep = (d <= BOND_TOLERANCE * np.minimum(nearest[i], nearest[j])) | (
        d <= 1.001 * np.maximum(nearest[i], nearest[j])
    )
    keep &= i != j
    return i[keep], j[keep], vectors[keep]


def _pairs(points: NDArray, cell: NDArray, pbc: NDArray, reach: float) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Directed pairs up to a distance, with distances and vectors, as ``primitive_neighbor_list("ijdD", …)``."""
    n, inverse = len(points), np.linalg.inv(cell)
    if n > ALL_PAIRS or reach >= _unique_reach(inverse, pbc):
        i, j, d, vectors = primitive_neighbor_list("ijdD", pbc, cell, points, reach)
        return i, j, d, vectors
    away = points[None, :, :] - points[:, None, :]
    away -= np.rint(away @ inverse * pbc) @ cell
    square = (away**2).sum(axis=2)
    np.fill_diagonal(square, np.inf)
    i, j = np.nonzero(square < reach**2)
    return i, j, np.sqrt(square[i, j]), away[i, j]


def _unique_reach(inverse: NDArray, pbc: NDArray) -> float:
    """Half the narrowest distance between faces of the cell: rounding of fractions finds every shorter vector, Å."""
    return float(0.5 / np.sqrt((inverse[:, pbc] ** 2).sum(axis=0).max(initial=1e-300)))


def _all_bonds(
    points: NDArray, cell: NDArray, pbc: NDArray, guests: NDArray[np.bool_]
) -> tuple[tuple[NDArray, NDArray, NDArray], float]:
    """Bonds of the host as if there were no guests, those of the guests, and the shortest bond of the host, Å."""
    host = np.flatnonzero(~guests)
    i, j, vectors = _bonds(points[host], cell, pbc)
    shortest = float(np.linalg.norm(vectors, axis=1).min(initial=np.inf))
    i, j = host[i], host[j]
    for atom in np.flatnonzero(guests):
        near, away = _around(points, int(atom), cell, pbc)
        here = np.full(len(near), atom)
        i, j = np.concatenate([i, here, near]), np.concatenate([j, near, here])
        vectors = np.concatenate([vectors, away, -away])
    return (i, j, vectors), shortest


def _around(points: NDArray, atom: int, cell: NDArray, pbc: NDArray) -> tuple[NDArray, NDArray]:
    """Atoms that have a bond with one atom, and the vectors to them."""
    if len(points) < 2:
        return np.empty(0, np.int64), np.empty((0, 3))
    inverse = np.linalg.inv(cell)
    away = points - points[atom]
    away = away - np.rint(away @ inverse * pbc) @ cell
    length = np.sqrt((away**2).sum(axis=1))
    length[atom] = np.inf
    if BOND_TOLERANCE * length.min() >= _unique_reach(inverse, pbc):
        away, length = find_mic(points - points[atom], cell, pbc)
        length[atom] = np.inf
    near = np.flatnonzero(length <= BOND_TOLERANCE * length.min())
    return near, away[near]


def _dense(n: int, i: NDArray, j: NDArray, blocks: NDArray) -> NDArray:
    """Matrix of directed bonds i → j among n atoms, shape (3 n, 3 n)."""
    matrix = np.zeros((n, n, 3, 3))
    np.add.at(matrix, (i, j), -blocks)
    np.add.at(matrix, (i, i), blocks)
    return matrix.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def _matrix(n: int, i: NDArray, j: NDArray, blocks: NDArray, diagonal: float) -> csc_matrix:
    axis = np.arange(3)
    row = np.broadcast_to(3 * i[:, None, None] + axis[None, :, None], blocks.shape)
    column = np.broadcast_to(3 * j[:, None, None] + axis[None, None, :], blocks.shape)
    own = np.broadcast_to(3 * i[:, None, None] + axis[None, None, :], blocks.shape)
    data = np.concatenate([-blocks.ravel(), blocks.ravel()])
    rows = np.concatenate([row.ravel(), row.ravel()])
    columns = np.concatenate([column.ravel(), own.ravel()])
    return (coo_matrix((data, (rows, columns)), shape=(3 * n, 3 * n)) + diagonal * identity(3 * n)).tocsc()


_CACHE: OrderedDict[tuple, SpringPreconditioner] = OrderedDict()
_CACHE_SIZE = 8


def spring_preconditioner(
    positions: NDArray[np.float64],
    cell: ArrayLike,
    pbc: ArrayLike,
    *,
    spring: float,
    transverse: float,
    diagonal: float,
    guests: ArrayLike = (),
) -> SpringPreconditioner:
    """Return the :class:`SpringPreconditioner` of these ideal positions, factorised once per process and lattice."""
    c, p = np.asarray(cell, dtype=float), np.asarray(pbc, dtype=bool)
    own = np.asarray(guests, dtype=np.int64)
    arrays = (np.asarray(positions, dtype=float), c, p, own)
    key = (*(a.tobytes() for a in arrays), spring, transverse, diagonal)
    found = _CACHE.pop(key, None)
    if found is None:
        found = SpringPreconditioner(
            positions, c, p, spring=spring, transverse=transverse, diagonal=diagonal, guests=own
        )
    _CACHE[key] = found
    while len(_CACHE) > _CACHE_SIZE:
        _CACHE.popitem(last=False)
    return found
