"""Compiled lists of what single atoms did in a window: made in the order of species, atom and time, and joined.

Neighbours in a list are what the next level joins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.compiled import compiled
from ase_kinoson.kinetics.ladder_joins import slot_of

__all__ = ["grown", "grown_rows", "join_levels", "list_moved", "sum_squares"]


@compiled(error_model="numpy")
def list_moved(
    column: NDArray,
    kind: NDArray,
    names: NDArray,
    vectors: NDArray,
    table: NDArray,
    label: NDArray,
    group: NDArray,
    begin: NDArray,
    end: NDArray,
    distinct: NDArray,
    block: NDArray,
    x: NDArray,
    y: NDArray,
    z: NDArray,
) -> int:
    """List the jumps of one walker species by species, atom by atom, in time.

    Parameters
    ----------
    column, kind, names : ndarray of int, shape (WINDOW,)
        Species, kind and atom of every jump.
    vectors : ndarray, shape (n_kinds, 3)
        Displacement of every kind, Å.
    table : ndarray of int16, shape (2^n,)
        Room for a hash table of the atoms.
    label, group : ndarray of int, shape (WINDOW,)
        Get the atoms in the order in which they are met, and the number in it of the atom of every jump.
    begin, end, distinct : ndarray of int, shape (n_species,)
        Get where each species is in the list, and how many of its atoms are met.
    block : ndarray of int, shape (WINDOW,)
        Gets WINDOW × number of the atom + time of every entry.
    x, y, z : ndarray, shape (WINDOW,)
        Get the displacement of every entry, Å.

    Returns
    -------
    int
        Number of atoms.
    """
    window = len(column)
    n_met = 0
    place = np.zeros(window, dtype=np.int64)
    whose = np.empty(window, dtype=np.int64)
    distinct[:] = 0
    table[:] = -1
    for t in range(window):
        slot = slot_of(table, len(table) - 1, label, names[t])
        m = int(table[slot])
        if m < 0:
            m = n_met
            table[slot] = m
            label[m], whose[m] = names[t], column[t]
            distinct[column[t]] += 1
            n_met += 1
        place[m] += 1
        group[t] = m
    at = 0
    for a in range(len(begin)):
        begin[a] = at
        if distinct[a]:
            for m in range(n_met):
                if whose[m] == a:
                    count = place[m]
                    place[m] = at
                    at += count
        end[a] = at
    for t in range(window):
        m, k = group[t], kind[t]
        e = place[m]
        place[m] = e + 1
        block[e] = m * window + t
        x[e], y[e], z[e] = vectors[k, 0], vectors[k, 1], vectors[k, 2]
    return n_met


@compiled(error_model="numpy")
def join_levels(
    block: NDArray,
    x: NDArray,
    y: NDArray,
    z: NDArray,
    distinct: int,
    sums: NDArray,
    returned: float,
) -> int:
    """Join the entries of a list level by level, and sum the squares of each level.

    Parameters
    ----------
    block : ndarray of int, shape (m,)
        As of :func:`list_moved`, of one species; is overwritten with the numbers of the atoms.
    x, y, z : ndarray, shape (m,)
        Displacements, Å; are overwritten.
    distinct
        How many atoms are in the list.
    sums : ndarray, shape (n_levels, 6)
        Squares xx, xy, xz, yy, yz, zz of every level, Å²; those of level 0 are given.
    returned
        Atoms with a smaller squared displacement are back, Å².

    Returns
    -------
    int
        Entries that are left.
    """
    sums[1:] = 0.0
    count, shift = len(block), 0
    for level in range(1, len(sums)):
        shift += 1
        if level == 1 or count > distinct:
            count = _join_neighbors(block, x, y, z, count, shift, sums[level], returned)
            shift = 0
        else:  # every atom is listed once: nothing to join any more
            for c in range(6):
                sums[level, c] = sums[level - 1, c]
    for e in range(count):
        block[e] >>= shift
    return count


@compiled(error_model="numpy", fastmath={"contract"})
def _join_neighbors(
    block: NDArray,
    x: NDArray,
    y: NDArray,
    z: NDArray,
    count: int,
    shift: int,
    sums: NDArray,
    returned: float,
) -> int:
    """Join neighbours whose block becomes the same, at most two, and sum the squares; return how many are left.

    Without branches on what is found, and no entry waits for the sum of another.
    """
    joined, before = 0, -1
    u = v = w = 0.0
    xx = xy = xz = yy = yz = zz = 0.0
    following = block[0] >> shift if count else -1
    for e in range(count):
        now = following
        following = block[e + 1] >> shift if e + 1 < count else -1
        same = 1.0 if now == before else 0.0
        joined += now == before
        p, q, r = x[e] + same * u, y[e] + same * v, z[e] + same * w
        before, u, v, w = now, x[e], y[e], z[e]
        # the first of two is overwritten by both together
        away = 1.0 if now != following else 0.0
        away = away if p * p + q * q + r * r > returned else 0.0
        p, q, r = away * p, away * q, away * r
        at = np.uint64(e - joined)
        block[at], x[at], y[at], z[at] = now, p, q, r
        xx += p * p
        xy += p * q
        xz += p * r
        yy += q * q
        yz += q * r
        zz += r * r
    sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] = xx, xy, xz, yy, yz, zz
    return count - joined


@compiled(error_model="numpy", fastmath={"contract", "reassoc"})
def sum_squares(x: NDArray, y: NDArray, z: NDArray, first: int, last: int, to: NDArray) -> None:
    """Add the squares of some entries.

    Parameters
    ----------
    x, y, z : ndarray, shape (m,)
        Displacements, Å.
    first, last
        Entries first … last − 1.
    to : ndarray, shape (6,)
        xx, xy, xz, yy, yz, zz, Å²; is added to.
    """
    xx = xy = xz = yy = yz = zz = 0.0
    for e in range(first, last):
        xx += x[e] * x[e]
        xy += x[e] * y[e]
        xz += x[e] * z[e]
        yy += y[e] * y[e]
        yz += y[e] * z[e]
        zz += z[e] * z[e]
    to[0] += xx
    to[1] += xy
    to[2] += xz
    to[3] += yy
    to[4] += yz
    to[5] += zz


@compiled(error_model="numpy")
def grown(a: NDArray) -> NDArray:
    """Return a copy with twice the room.

    Parameters
    ----------
    a : ndarray, shape (m,)
    """
    new = np.empty(2 * len(a), dtype=a.dtype)
    new[: len(a)] = a
    return new


@compiled(error_model="numpy")
def grown_rows(a: NDArray) -> NDArray:
    """Return a copy with twice the room.

    Parameters
    ----------
    a : ndarray, shape (m, 3)
    """
    new = np.empty((2 * len(a), 3), dtype=a.dtype)
    new[: len(a)] = a
    return new
