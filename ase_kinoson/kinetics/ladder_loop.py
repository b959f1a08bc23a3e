"""Compiled sums of the lag ladder: one window of jumps of many walkers, up to the block of the whole window.

A window of 128 jumps is sorted walker by walker, in arrays that stay in the cache. What single atoms did is a list in
the order of species, atom and time, so that neighbours in the list are what the next level joins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.compiled import compiled
from ase_kinoson.kinetics.ladder_lists import grown, grown_rows, join_levels, list_moved, sum_squares

__all__ = ["sort_window"]

TILE = 16
"""Walkers whose records are fetched together: one line of 64 bytes holds 16 of them."""


@compiled(error_model="numpy")
def sort_window(
    columns: NDArray,
    kinds: NDArray,
    atoms: NDArray,
    vectors: NDArray,
    collective: NDArray,
    tracer: NDArray,
    last_block: NDArray,
    first: int,
    last: int,
    n_atoms: int,
    follow: bool,
    returned: float,
) -> tuple[NDArray, NDArray, NDArray]:
    """Add a window of jumps of walkers first … last − 1 to the sums of all levels up to the whole window.

    Parameters
    ----------
    columns, kinds, atoms : ndarray of int, shape (WINDOW, n_walkers)
        Species, kind of jump and atom of every jump.
    vectors : ndarray, shape (n_kinds, 3)
        Displacement of every kind, Å.
    collective, tracer : ndarray, shapes (n_walkers, 8, n_species, 3, n_species, 3) and (…, 6)
        Sums of every level of the ladder, Å²; are added to.
    last_block : ndarray, shape (n_walkers, 3 n_species)
        Is set to ΔR of every species over the window, Å.
    first, last
        Walkers.
    n_atoms
        Atoms of a walker are numbered below this.
    follow
        Whether single atoms are told apart.
    returned
        Atoms with a smaller squared displacement are back, Å².

    Returns
    -------
    key : ndarray of int, shape (m,)
        walker × n_atoms + atom of the atoms that moved, walkers in order.
    species : ndarray of int, shape (m,)
    displacement : ndarray, shape (m, 3)
        Å.
    """
    assert len(columns) == 128 and collective.shape[1] == 8  # loops over blocks have their lengths written out
    window, n_species, n_levels = len(columns), last_block.shape[1] // 3, collective.shape[1]
    column_of = np.empty((TILE, window), dtype=np.int64)
    kind_of = np.empty((TILE, window), dtype=np.int64)
    label_of = np.empty((TILE, window), dtype=np.int64)
    square = _squares(vectors)
    blocks = np.empty((3 * n_species, window))
    sums = np.zeros((n_levels, 3 * n_species, 3 * n_species))
    own = np.empty((n_levels, n_species, 6))
    # names met in the window are numbered as they are met, and found by a hash: nothing grows with the supercell
    table = np.empty(4 * window, dtype=np.int16)
    label, group = np.empty(window, dtype=np.int64), np.empty(window, dtype=np.int64)
    begin, end = np.zeros(n_species, dtype=np.int64), np.zeros(n_species, dtype=np.int64)
    distinct = np.zeros(n_species, dtype=np.int64)
    block = np.empty(window, dtype=np.int64)
    x, y, z = np.empty(window), np.empty(window), np.empty(window)
    used = 0
    key = np.empty(max(window, (last - first) * 32) if follow else 0, dtype=np.int64)
    species = np.empty(len(key), dtype=np.int64)
    displacement = np.empty((len(key), 3))

    for start in range(first, last, TILE):
        stop = min(start + TILE, last)
        for t in range(window):
            for walker in range(start, stop):
                column_of[walker - start, t] = columns[t, walker]
                kind_of[walker - start, t] = kinds[t, walker]
            if follow:
                for walker in range(start, stop):
                    label_of[walker - start, t] = atoms[t, walker]
        for walker in range(start, stop):
            column, kind, names = column_of[walker - start], kind_of[walker - start], label_of[walker - start]
            n_met = 0
            if follow:
                n_met = list_moved(
                    column,
                    kind,
                    names,
                    vectors,
                    table,
                    label,
                    group,
                    begin,
                    end,
                    distinct,
                    block,
                    x,
                    y,
                    z,
                )
                for a in range(n_species):
                    own[0, a] = 0.0
                    sum_squares(x, y, z, begin[a], end[a], own[0, a])
            else:
                _sum_species(column, kind, square, end, own[0])
            _add_single(own[0], collective[walker, 0])
            _fill_blocks(column, kind, vectors, end, begin, blocks)
            _dots(blocks, begin, end, sums)
            for i in range(3 * n_species):
                last_block[walker, i] = blocks[i, window - 2]
            for level in range(1, n_levels):
                _add_sums(sums[level], begin, end, collective[walker, level])
            if not follow:
                continue

            if used + n_met > len(key):
                key, species, displacement = grown(key), grown(species), grown_rows(displacement)
            for a in range(n_species):
                part = slice(begin[a], end[a])
                left = join_levels(block[part], x[part], y[part], z[part], distinct[a], own[:, a], returned)
                for e in range(begin[a], begin[a] + left):
                    if x[e] * x[e] + y[e] * y[e] + z[e] * z[e] > returned:
                        key[used], species[used] = walker * n_atoms + label[block[e]], a
                        displacement[used, 0], displacement[used, 1], displacement[used, 2] = x[e], y[e], z[e]
                        used += 1
            for level in range(n_levels):
                to = tracer[walker, level]
                for a in range(n_species):
                    for c in range(6):
                        to[a, c] += own[level, a, c]
    return key[:used].copy(), species[:used].copy(), displacement[:used].copy()


@compiled(error_model="numpy")
def _squares(vectors: NDArray) -> NDArray:
    """Products d ⊗ d of every vector: xx, xy, xz, yy, yz, zz."""
    square = np.empty((len(vectors), 6))
    for k in range(len(vectors)):
        x, y, z = vectors[k, 0], vectors[k, 1], vectors[k, 2]
        square[k, 0], square[k, 1], square[k, 2] = x * x, x * y, x * z
        square[k, 3], square[k, 4], square[k, 5] = y * y, y * z, z * z
    return square


@compiled(error_model="numpy")
def _sum_species(column: NDArray, kind: NDArray, square: NDArray, end: NDArray, sums: NDArray) -> None:
    """Squares of single jumps by species, and into ``end`` how many jumps each made."""
    sums[:] = 0.0
    end[:] = 0
    for t in range(len(column)):
        a, k = column[t], kind[t]
        end[a] += 1
        for c in range(6):
            sums[a, c] += square[k, c]


@compiled(error_model="numpy")
def _fill_blocks(
    column: NDArray, kind: NDArray, vectors: NDArray, end: NDArray, begin: NDArray, blocks: NDArray
) -> None:
    """Blocks of 2 jumps, of 4, 8 … and of all, side by side in each row; rows of species that did not move are 0."""
    half = len(column) // 2
    for i in range(len(blocks)):
        for b in range(half if end[i // 3] > begin[i // 3] else 2 * half):
            blocks[i, b] = 0.0
    for t in range(len(column)):
        row, k, b = 3 * column[t], kind[t], t >> 1
        blocks[row, b] += vectors[k, 0]
        blocks[row + 1, b] += vectors[k, 1]
        blocks[row + 2, b] += vectors[k, 2]
    for i in range(len(blocks)):
        if end[i // 3] > begin[i // 3]:
            for b in range(half - 1):
                blocks[i, half + b] = blocks[i, 2 * b] + blocks[i, 2 * b + 1]


@compiled(error_model="numpy", fastmath={"contract", "reassoc"})
def _dots(blocks: NDArray, begin: NDArray, end: NDArray, sums: NDArray) -> None:
    """Sums over the blocks of every level from 1 on of the products of two components, of species that moved.

    The numbers of blocks are written out for a window of 128 jumps: loops of known length need no rest.
    """
    for i in range(len(blocks)):
        if end[i // 3] == begin[i // 3]:
            continue
        one = blocks[i]
        for j in range(i + 1):
            if end[j // 3] == begin[j // 3]:
                continue
            two = blocks[j]
            s1 = s2 = s3 = s4 = s5 = 0.0
            for b in range(64):
                s1 += one[b] * two[b]
            for b in range(64, 96):
                s2 += one[b] * two[b]
            for b in range(96, 112):
                s3 += one[b] * two[b]
            for b in range(112, 120):
                s4 += one[b] * two[b]
            for b in range(120, 124):
                s5 += one[b] * two[b]
            s6 = one[124] * two[124] + one[125] * two[125]
            s7 = one[126] * two[126]
            sums[1, i, j] = sums[1, j, i] = s1
            sums[2, i, j] = sums[2, j, i] = s2
            sums[3, i, j] = sums[3, j, i] = s3
            sums[4, i, j] = sums[4, j, i] = s4
            sums[5, i, j] = sums[5, j, i] = s5
            sums[6, i, j] = sums[6, j, i] = s6
            sums[7, i, j] = sums[7, j, i] = s7


@compiled(error_model="numpy")
def _add_sums(sums: NDArray, begin: NDArray, end: NDArray, to: NDArray) -> None:
    """Add what species that moved have."""
    wide = len(sums)
    flat = to.reshape(wide, wide)
    for a in range(len(begin)):
        if end[a] > begin[a]:
            for b in range(len(begin)):
                if end[b] > begin[b]:
                    for i in range(3 * a, 3 * a + 3):
                        flat[i, 3 * b] += sums[i, 3 * b]
                        flat[i, 3 * b + 1] += sums[i, 3 * b + 1]
                        flat[i, 3 * b + 2] += sums[i, 3 * b + 2]


@compiled(error_model="numpy")
def _add_single(single: NDArray, to: NDArray) -> None:
    for a in range(len(single)):
        n = 0
        for i in range(3):
            for j in range(i, 3):
                to[a, i, a, j] += single[a, n]
                if i != j:
                    to[a, j, a, i] += single[a, n]
                n += 1
