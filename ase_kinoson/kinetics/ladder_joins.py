"""Compiled sums of the lag ladder above the window: two neighbouring blocks of every walker become one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.compiled import compiled

__all__ = ["add_squares", "join_lists", "slot_of"]


@compiled(error_model="numpy", inline="always")
def slot_of(table: NDArray, mask: int, names: NDArray, name: int) -> int:
    """Find a name in a hash table.

    Parameters
    ----------
    table : ndarray of int, shape (2^n,) or longer
        Places of names in ``names``, −1 where a slot is free.
    mask
        2^n − 1.
    names : ndarray of int, shape (m,)
    name
        What to look for.

    Returns
    -------
    int
        Its slot, or the free slot where it belongs.
    """
    slot = (name * 2654435761 >> 8) & mask
    while table[slot] >= 0 and names[table[slot]] != name:
        slot = (slot + 1) & mask
    return slot


@compiled(error_model="numpy")
def join_lists(
    key: NDArray,
    species: NDArray,
    displacement: NDArray,
    key_2: NDArray,
    species_2: NDArray,
    displacement_2: NDArray,
    tracer: NDArray,
    n_atoms: int,
    returned: float,
) -> tuple[NDArray, NDArray, NDArray]:
    """Join what atoms did in two neighbouring blocks, and add the squares to the sums of the level of both together.

    Parameters
    ----------
    key, key_2 : ndarray of int, shape (m,)
        walker × n_atoms + atom, walkers in order.
    species, species_2 : ndarray of int, shape (m,)
    displacement, displacement_2 : ndarray, shape (m, 3)
        Å.
    tracer : ndarray, shape (n_walkers, n_species, 6)
        Å²; is added to.
    n_atoms
        Atoms of a walker are numbered below this.
    returned
        Atoms with a smaller squared displacement are back and left out, Å².

    Returns
    -------
    key, species, displacement : ndarray
        Of both together.
    """
    n, n_2 = len(key), len(key_2)
    table = np.empty(64, dtype=np.int64)
    new_key = np.empty(n + n_2, dtype=np.int64)
    new_species = np.empty(n + n_2, dtype=np.int64)
    new = np.empty((n + n_2, 3))
    used, i, j = 0, 0, 0
    while i < n or j < n_2:
        walker = (key[i] if j == n_2 or (i < n and key[i] < key_2[j]) else key_2[j]) // n_atoms
        begin, end = used, (walker + 1) * n_atoms
        while i < n and key[i] < end:
            new_key[used], new_species[used] = key[i], species[i]
            new[used, 0], new[used, 1], new[used, 2] = displacement[i, 0], displacement[i, 1], displacement[i, 2]
            used += 1
            i += 1
        middle, size = used, 16
        while size < 2 * (middle - begin):
            size *= 2
        if size > len(table):
            table = np.empty(size, dtype=np.int64)
        table[:size] = -1
        for at in range(begin, middle):
            table[slot_of(table, size - 1, new_key, new_key[at])] = at
        while j < n_2 and key_2[j] < end:
            at = table[slot_of(table, size - 1, new_key, key_2[j])]
            if at < 0:
                at = used
                new_key[at], new_species[at] = key_2[j], species_2[j]
                new[at, 0] = new[at, 1] = new[at, 2] = 0.0
                used += 1
            for c in range(3):
                new[at, c] += displacement_2[j, c]
            j += 1
        keep = begin
        for at in range(begin, used):
            x, y, z = new[at, 0], new[at, 1], new[at, 2]
            if x * x + y * y + z * z > returned:
                a = new_species[at]
                new_key[keep], new_species[keep] = new_key[at], a
                new[keep, 0], new[keep, 1], new[keep, 2] = x, y, z
                keep += 1
                tracer[walker, a, 0] += x * x
                tracer[walker, a, 1] += x * y
                tracer[walker, a, 2] += x * z
                tracer[walker, a, 3] += y * y
                tracer[walker, a, 4] += y * z
                tracer[walker, a, 5] += z * z
        used = keep
    return new_key[:used].copy(), new_species[:used].copy(), new[:used].copy()


@compiled(error_model="numpy")
def add_squares(blocks: NDArray, collective: NDArray) -> None:
    """Add ΔR ⊗ ΔR of one block of every walker.

    Parameters
    ----------
    blocks : ndarray, shape (n_walkers, 3 n_species)
        ΔR, Å.
    collective : ndarray, shape (n_walkers, 3 n_species, 3 n_species)
        Å²; is added to.
    """
    n_walkers, wide = blocks.shape
    for walker in range(n_walkers):
        for i in range(wide):
            p = blocks[walker, i]
            for j in range(wide):
                collective[walker, i, j] += p * blocks[walker, j]
