"""The space group of a crystal as exact integer maps of its sites.

A site is written ``(b, n)``: basis site ``b`` of the primitive cell and the integer cell vector ``n``.
Every operation of the group maps ``(b, n)`` to ``(basis_map[b], W n + offset[b])`` without rounding.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import spglib
from ase.geometry import minkowski_reduce
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import StructureError

__all__ = [
    "PairOrbits",
    "SpaceGroup",
    "check_crystal",
    "check_finite",
    "find_operations",
    "find_standard",
    "primitive_cell",
]


MOST_SITES = 4000
"""Most sites of a crystal; the search for its symmetry takes a minute there."""
MOST_PAIRS = 2e5
"""Most pairs of sites within a cutoff."""
LENGTHS = (0.1, 1e4)
"""Shortest and longest cell vector, Å."""
LARGEST = 1e6
FLATTEST = 1e-3
"""Smallest volume of a cell in units of that of the box of its lengths."""


def check_finite(cell: NDArray, positions: NDArray) -> None:
    """Refuse numbers that are none, or so large that their squares are none."""
    largest = np.abs(np.concatenate([np.ravel(cell), np.ravel(positions)])).max()  # NaN if one is
    if not largest <= LARGEST:
        raise StructureError(
            f"found {largest:.3g} in the cell or the positions; expected finite numbers of at most {LARGEST:g}; "
            "correct the structure"
        )


def check_crystal(cell: NDArray, scaled: NDArray, pbc: NDArray, symprec: float) -> None:
    """Refuse what no crystal is; spglib ends the process over a cell that is not finite, or never ends.

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Cell vectors (rows), Å.
    scaled : ndarray, shape (n, 3)
        Scaled positions.
    pbc : ndarray of bool, shape (3,)
        Periodic directions.
    symprec
        Tolerance, Å.

    Raises
    ------
    StructureError
        If no direction is periodic, the cell is not finite, flat, tiny or huge, or there are too many sites.
    """
    check_finite(cell, scaled)
    if not np.any(pbc):
        raise StructureError(
            "found no periodic direction (pbc); expected a crystal; write pbc into the file, or set atoms.pbc"
        )
    lengths = np.linalg.norm(cell, axis=1)
    if lengths.min() < LENGTHS[0] or lengths.max() > LENGTHS[1]:
        raise StructureError(
            f"found cell vectors of {lengths.min():.3g} to {lengths.max():.3g} Å; expected {LENGTHS[0]:g} to "
            f"{LENGTHS[1]:g} Å; correct the cell"
        )
    if abs(np.linalg.det(cell)) < FLATTEST * lengths.prod():
        raise StructureError(
            f"found a cell of volume {abs(np.linalg.det(cell)):.3g} Å³ with vectors of {lengths[0]:.3g}, "
            f"{lengths[1]:.3g} and {lengths[2]:.3g} Å; expected one that is not flat; correct the cell"
        )
    shortest = np.linalg.norm(minkowski_reduce(cell, pbc=pbc)[0][np.asarray(pbc)], axis=1).min()
    if shortest < LENGTHS[0]:
        raise StructureError(
            f"found a site {shortest:.3g} Å from its own periodic image; expected at least {LENGTHS[0]:g} Å; correct "
            "the vectors of the cell or the angles between them"
        )
    if len(scaled) > MOST_SITES:
        raise StructureError(
            f"found {len(scaled)} sites; expected a crystal of at most {MOST_SITES}; give its unit cell, and make the "
            "supercell from that"
        )
    if not 0 < symprec < 0.25 * lengths.min():
        raise StructureError(
            f"found symprec={symprec:g} Å; expected a tolerance above 0 and far below the cell vectors "
            f"({lengths.min():.3g} Å); choose 1e-3 or so"
        )


def find_operations(cell: NDArray, scaled: NDArray, kinds: NDArray, symprec: float) -> tuple[NDArray, NDArray]:
    """Rotations (n, 3, 3) and translations (n, 3) of a crystal, in scaled coordinates.

    Raises
    ------
    StructureError
        If spglib cannot make sense of the crystal.
    """
    data = find_standard(cell, scaled, kinds, symprec)
    return data.rotations, data.translations


def find_standard(cell: NDArray, scaled: NDArray, kinds: NDArray, symprec: float) -> spglib.SpglibDataset:
    """Symmetry data set of spglib; ``kinds`` are whole numbers ≥ 0 that tell sites apart."""
    with warnings.catch_warnings():
        # spglib announces a change of its error handling at every call; both ways end in the message below
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            data = spglib.get_symmetry_dataset((cell, scaled, np.asarray(kinds) + 1), symprec=symprec)
        except Exception:
            data = None
    if data is None:
        raise StructureError(
            f"spglib found no symmetry for a cell with {len(scaled)} sites at symprec={symprec} Å; expected distinct "
            "sites in a non-degenerate cell; check for overlapping sites or a zero cell vector"
        )
    return data


@dataclass(frozen=True)
class SpaceGroup:
    """Operations of a space group on the sites of a primitive cell.

    Attributes
    ----------
    rotations : ndarray, shape (n_ops, 3, 3)
        Integer rotation matrices W on cell coordinates (column convention, ``n' = W n``).
    cartesian : ndarray, shape (n_ops, 3, 3)
        The same rotations on Cartesian column vectors.
    basis_map : ndarray, shape (n_ops, n_basis)
        Basis site on which each basis site lands.
    offsets : ndarray, shape (n_ops, n_basis, 3)
        Cell in which the image of ``(b, 0)`` lands.
    """

    rotations: NDArray[np.int64]
    cartesian: NDArray[np.float64]
    basis_map: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def n_ops(self) -> int:
        """Number of operations (modulo lattice translations)."""
        return len(self.rotations)

    def apply(self, op: int, basis: ArrayLike, cells: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Map sites by one operation.

        Parameters
        ----------
        op
            Index of the operation.
        basis : array_like of int, shape (n,)
        cells : array_like of int, shape (n, 3)

        Returns
        -------
        basis, cells
            Images, same shapes.
        """
        b = np.asarray(basis, dtype=np.int64)
        n = np.asarray(cells, dtype=np.int64)
        return self.basis_map[op][b], n @ self.rotations[op].T + self.offsets[op][b]

    def site_orbits(self) -> NDArray[np.int64]:
        """Label of the symmetry orbit of every basis site, shape (n_basis,), counted from 0."""
        first = self.basis_map.min(axis=0)
        _, labels = np.unique(first, return_inverse=True)
        return labels.astype(np.int64)

    @classmethod
    def from_crystal(
        cls, cell: NDArray, scaled: NDArray, kinds: ArrayLike, pbc: ArrayLike, *, symprec: float = 1e-3
    ) -> SpaceGroup:
        """Find the operations of a primitive crystal with spglib.

        Parameters
        ----------
        cell : ndarray, shape (3, 3)
            Primitive lattice vectors (rows), Å.
        scaled : ndarray, shape (n_basis, 3)
            Scaled positions.
        kinds : array_like of int, shape (n_basis,)
            Equal numbers mark sites that carry the same average occupation.
        pbc : array_like of bool, shape (3,)
            Operations that mix periodic and non-periodic directions are dropped.
        symprec
            Tolerance, Å.
        """
        kinds = np.asarray(kinds)
        rotations, translations = find_operations(cell, scaled, kinds, symprec)
        pbc = np.asarray(pbc, dtype=bool)
        lattice = cell.T
        keep_w, keep_b, keep_o, keep_c = [], [], [], []
        for w, t in zip(rotations, translations, strict=True):
            if np.any(w[np.ix_(pbc, ~pbc)]) or np.any(w[np.ix_(~pbc, pbc)]):
                continue
            image = scaled @ w.T + t
            delta = image[:, None, :] - scaled[None, :, :]
            shift = np.rint(delta)
            distance = np.linalg.norm((delta - shift) @ cell, axis=-1)
            distance[kinds[:, None] != kinds[None, :]] = np.inf
            target = distance.argmin(axis=1)
            rows = np.arange(len(scaled))
            if distance[rows, target].max() > 10 * symprec or len(set(target)) != len(scaled):
                continue
            keep_w.append(w)
            keep_b.append(target)
            keep_o.append(shift[rows, target])
            keep_c.append(lattice @ w @ np.linalg.inv(lattice))
        return cls(
            np.array(keep_w, dtype=np.int64),
            np.array(keep_c),
            np.array(keep_b, dtype=np.int64),
            np.array(keep_o, dtype=np.int64),
        )


def primitive_cell(
    cell: NDArray, scaled: NDArray, kinds: NDArray, pbc: NDArray, *, symprec: float = 1e-3
) -> tuple[NDArray, NDArray, NDArray]:
    """Reduce a crystal to a primitive cell without rotating or idealising it.

    Returns
    -------
    cell : ndarray, shape (3, 3)
    scaled : ndarray, shape (n_basis, 3)
    index : ndarray of int, shape (n_basis,)
        For each primitive basis site, one site of the input that it stands for.
    """
    rotations, translations = find_operations(cell, scaled, kinds, symprec)
    identity = np.all(rotations == np.eye(3, dtype=int), axis=(1, 2))
    shifts = translations[identity]
    shifts = shifts - np.rint(shifts)
    shifts = shifts[np.all(np.abs(shifts[:, ~pbc] @ cell[~pbc]) < symprec, axis=1)] if (~pbc).any() else shifts
    n = len(shifts)
    if n == 1:
        return cell, scaled - np.floor(scaled + 1e-9), np.arange(len(scaled))
    corners = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    vectors = (shifts[:, None, :] + corners[None, :, :]).reshape(-1, 3)
    length = np.linalg.norm(vectors @ cell, axis=1)
    order = np.lexsort((*(-np.round(vectors.T, 6)), np.round(length, 6)))
    candidates = vectors[order][length[order] > symprec]
    fixed = [np.eye(3)[i] for i in range(3) if not pbc[i]]
    flat = (
        np.abs(candidates[:, ~pbc]).max(axis=1, initial=0.0) < 1e-9 if (~pbc).any() else np.ones(len(candidates), bool)
    )
    candidates = candidates[flat][:120]
    for trio in itertools.combinations(candidates, 3 - len(fixed)):
        rows = list(trio)
        for axis in range(3):
            if not pbc[axis]:
                rows.insert(axis, np.eye(3)[axis])
        fractional = np.array(rows)
        det = np.linalg.det(fractional)
        if abs(abs(det) * n - 1.0) < 1e-3:
            if det < 0:
                swap = [i for i in range(3) if pbc[i]][:2]
                fractional[swap] = fractional[swap[::-1]]
                if len(swap) < 2:
                    fractional[swap] *= -1
            break
    else:  # pragma: no cover - a lattice always has a short basis
        raise StructureError("no primitive cell found; expected a lattice; check the cell vectors")
    primitive = fractional @ cell
    reduced = scaled @ np.linalg.inv(fractional)
    reduced = reduced - np.floor(reduced + 1e-6)
    index: list[int] = []
    for i, x in enumerate(reduced):
        delta = reduced[index] - x if index else np.empty((0, 3))
        same = np.linalg.norm((delta - np.rint(delta)) @ primitive, axis=1) < 10 * symprec
        if not np.any(same):
            index.append(i)
    if len(index) * n != len(scaled):
        raise StructureError(
            f"{len(scaled)} sites do not fall into {n} translated copies; expected an exact average lattice; "
            "symmetrise the structure or lower symprec"
        )
    return primitive, reduced[index], np.array(index)


NO_GROUP = (
    "the symmetry operations that were found form no group; expected those of a crystal; symmetrise the structure, or "
    "lower symprec"
)


@dataclass(frozen=True)
class PairOrbits:
    """All pairs of sites within a cutoff, classified by the space group.

    One row per directed pair ``(b, 0) → (partner, cell)``, sorted by ``b``, then length.

    Attributes
    ----------
    start, partner : ndarray of int, shape (n_pairs,)
    cell : ndarray of int, shape (n_pairs, 3)
    vector : ndarray, shape (n_pairs, 3)
        Å.
    directed, undirected : ndarray of int, shape (n_pairs,)
        Class labels without and with the reversal of a pair; sorted by length.
    operation : ndarray of int, shape (n_pairs,)
        One group operation that maps the representative of the undirected class onto this pair ...
    flipped : ndarray of bool, shape (n_pairs,)
        ... with its two ends exchanged where True.
    reverse : ndarray of int, shape (n_pairs,)
        Row of the reversed pair.
    representative : ndarray of int, shape (n_undirected,)
        Row of the representative of every undirected class.
    """

    start: NDArray[np.int64]
    partner: NDArray[np.int64]
    cell: NDArray[np.int64]
    vector: NDArray[np.float64]
    directed: NDArray[np.int64]
    undirected: NDArray[np.int64]
    operation: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    reverse: NDArray[np.int64]
    representative: NDArray[np.int64]

    @classmethod
    def find(
        cls,
        group: SpaceGroup,
        cell: NDArray,
        scaled: NDArray,
        pbc: NDArray,
        cutoff: float,
        *,
        include: NDArray | None = None,
    ) -> PairOrbits:
        """List and classify all pairs shorter than ``cutoff`` (Å) between the sites marked by ``include``.

        Where a crystal is symmetric within a tolerance only, pairs that symmetry makes equal may lie on both sides of
        the cutoff; all of them are then taken.
        """
        # about as many as in a ball of this radius; a cell with vacuum has fewer
        estimate = len(scaled) ** 2 * 4.19 * float(cutoff) ** 3 / abs(np.linalg.det(cell))
        if not estimate < MOST_PAIRS:
            raise StructureError(
                f"found a cutoff of {cutoff:.4g} Å, with about {estimate:.1e} pairs in the primitive cell; expected at "
                f"most {MOST_PAIRS:.0e} pairs; take a smaller cutoff"
            )
        i, j, vectors, cells = primitive_neighbor_list(
            "ijDS", pbc, cell, scaled @ cell, float(cutoff), use_scaled_positions=False
        )
        if include is not None:
            mask = include[i] & include[j]
            i, j, vectors, cells = i[mask], j[mask], vectors[mask], cells[mask]
        return cls._classified(group, cell, scaled, np.column_stack([i, j, cells]).astype(np.int64), vectors)

    @classmethod
    def _classified(
        cls,
        group: SpaceGroup,
        cell: NDArray,
        scaled: NDArray,
        ends: NDArray[np.int64],
        vectors: NDArray,
        *,
        whole: bool = False,
    ) -> PairOrbits:
        """Classes of pairs (start, partner, cell of the partner), shape (n, 5), and of those that symmetry adds."""
        i, j, cells = ends[:, 0], ends[:, 1], ends[:, 2:]
        length = np.round(np.linalg.norm(vectors, axis=1), 4)
        order = np.lexsort((*np.round(-vectors.T[::-1], 4), length, i))
        i, j, vectors, cells, length = i[order], j[order], vectors[order], cells[order], length[order]
        row = {(a, b, *c): r for r, (a, b, c) in enumerate(zip(i.tolist(), j.tolist(), cells.tolist(), strict=True))}
        n = len(i)
        missing: set[tuple[int, ...]] = set()

        def rows(first: NDArray, second: NDArray, apart: NDArray) -> list[int]:
            keys = [(a, b, *c) for a, b, c in zip(first.tolist(), second.tolist(), apart.tolist(), strict=True)]
            found = [row.get(key, -1) for key in keys]
            if -1 in found:
                missing.update(key for key, r in zip(keys, found, strict=True) if r < 0)
            return found

        reverse = np.array(rows(j, i, -cells), dtype=np.int64)
        directed, undirected = np.full(n, -1), np.full(n, -1)
        operation, flipped = np.zeros(n, int), np.zeros(n, bool)
        images = np.empty((group.n_ops, n), dtype=np.int64)
        for op in range(group.n_ops):
            b0, n0 = group.apply(op, i, np.zeros((n, 3), int))
            b1, n1 = group.apply(op, j, cells)
            images[op] = rows(b0, b1, n1 - n0)
        if missing and whole:
            raise StructureError(NO_GROUP)
        if missing:
            more = np.array(sorted(missing | {(b, a, -x, -y, -z) for a, b, x, y, z in missing}), dtype=np.int64)
            more = more[[tuple(key) not in row for key in more.tolist()]]
            apart = (scaled[more[:, 1]] + more[:, 2:] - scaled[more[:, 0]]) @ cell
            every = np.concatenate([np.column_stack([i, j, cells]), more]), np.concatenate([vectors, apart])
            return cls._classified(group, cell, scaled, *every, whole=True)
        n_directed = 0
        representative: list[int] = []
        for r in np.lexsort((np.arange(n), length)):
            if directed[r] < 0:
                directed[np.unique(images[:, r])] = n_directed
                n_directed += 1
            if undirected[r] < 0:
                for op in range(group.n_ops):
                    for target, flip in ((images[op, r], False), (reverse[images[op, r]], True)):
                        if undirected[target] < 0:
                            undirected[target], operation[target], flipped[target] = len(representative), op, flip
                representative.append(int(r))
        return cls(
            i,
            j,
            cells,
            vectors,
            directed,
            undirected,
            operation,
            flipped,
            reverse,
            np.array(representative, dtype=np.int64),
        )
