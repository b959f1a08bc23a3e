"""`LagLadder`: mean squared displacements of many walkers at lags of 1, 2, 4, 8 … jumps, collected while they jump.

Two neighbouring blocks of L jumps make one of 2L, as the carries of a binary counter do. The memory of species is one
vector per lag; that of atoms is a list of those that moved in the block, so that nothing grows with the supercell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.compiled import can_compile
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.loops import over_walkers

__all__ = ["LagLadder", "WINDOW"]

WINDOW = 128
"""Jumps per walker that are collected before they are sorted into the ladder; a power of 2."""

_LOW = WINDOW.bit_length()  # levels within a window

RETURNED = 1e-12
"""Atoms whose squared displacement is below this (Å²) are back where they were."""

_I, _J = np.triu_indices(3)


class LagLadder:
    """Sums of squared displacements over blocks of L = 2^level jumps.

    Parameters
    ----------
    n_walkers, n_species
        Numbers of walkers and of mobile species.
    n_atoms
        Atoms of a walker are numbered below this.
    follow_atoms
        Whether single atoms are told apart.

    Attributes
    ----------
    n_blocks : list of int
        Blocks per walker at every level.
    collective : list of ndarray, shape (n_walkers, n_species, 3, n_species, 3) each
        Sum over blocks of ΔR^a ⊗ ΔR^b, Å².
    tracer : list of ndarray, shape (n_walkers, n_species, 6) each
        Sum over blocks and atoms i of species a of ΔR_i ⊗ ΔR_i (upper triangle xx, xy, xz, yy, yz, zz), Å².
    """

    def __init__(self, n_walkers: int, n_species: int, n_atoms: int, *, follow_atoms: bool = True) -> None:
        self.n_walkers, self.n_species, self.n_atoms = n_walkers, n_species, n_atoms
        self.follow_atoms = follow_atoms
        self.n_blocks: list[int] = []
        self.collective: list[NDArray[np.float64]] = []
        self.tracer: list[NDArray[np.float64]] = []
        self._waiting: list[NDArray[np.float64] | None] = []
        self._moved: list[_Moved | None] = []
        # the levels within a window lie side by side, for the compiled loop
        low = (n_walkers, _LOW, n_species)
        self._low_collective, self._low_tracer = np.zeros((*low, 3, n_species, 3)), np.zeros((*low, 6))

    def __getstate__(self) -> dict[str, Any]:
        # the low levels are views, which would be memories of their own in a copy
        return {**self.__dict__, "collective": self.collective[_LOW:], "tracer": self.tracer[_LOW:]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        low = range(min(_LOW, len(self.n_blocks)))
        self.collective = [self._low_collective[:, level] for level in low] + self.collective
        self.tracer = [self._low_tracer[:, level] for level in low] + self.tracer

    @property
    def lags(self) -> NDArray[np.int64]:
        """L of every level, jumps."""
        return 2 ** np.arange(len(self.n_blocks))

    def tracer_tensors(self, level: int) -> NDArray[np.float64]:
        """Return :attr:`tracer` of one level as full tensors, shape (n_walkers, n_species, 3, 3)."""
        found = np.empty((self.n_walkers, self.n_species, 3, 3))
        found[..., _I, _J] = found[..., _J, _I] = self.tracer[level]
        return found

    def add(self, species: NDArray, vectors: NDArray, atoms: NDArray | None) -> None:
        """Take in the next jumps of all walkers.

        Parameters
        ----------
        species : ndarray of int, shape (WINDOW, n_walkers)
            Number of the species that moved, from 0.
        vectors : ndarray, shape (WINDOW, n_walkers, 3)
            Displacement of the atom that moved, Å.
        atoms : ndarray of int, shape (WINDOW, n_walkers)
            Its number; not needed without ``follow_atoms``.
        """
        n, s = self.n_walkers, self.n_species
        walker = np.arange(n)
        single = np.zeros((n, WINDOW, s, 3))
        single[walker[:, None], np.arange(WINDOW)[None, :], species.T] = vectors.transpose(1, 0, 2)
        blocks = single.reshape(n, WINDOW, 3 * s)
        moved = None
        if self.follow_atoms:
            assert atoms is not None
            block = walker[:, None] * WINDOW + np.arange(WINDOW)
            key = block * self.n_atoms + atoms.T
            moved = _Moved(key.ravel(), species.T.ravel().astype(np.int64), vectors.transpose(1, 0, 2).reshape(-1, 3))
        level = 0
        while True:
            self._collect(level, blocks, moved)
            if blocks.shape[1] == 1:
                waiting, before = self._waiting[level], self._moved[level]
                if waiting is None:
                    self._waiting[level], self._moved[level] = blocks, moved
                    return
                self._waiting[level] = self._moved[level] = None
                blocks = waiting + blocks
                if moved is not None:
                    assert before is not None
                    moved = before.joined(moved).summed()
            else:
                blocks = blocks[:, 0::2] + blocks[:, 1::2]
                moved = None if moved is None else moved.paired(self.n_atoms).summed()
            level += 1

    def add_kinds(self, species: NDArray, kinds: NDArray, vectors: NDArray, atoms: NDArray | None) -> None:
        """Take in the next jumps of all walkers, whose displacements come from a table; compiled where it can be.

        Parameters
        ----------
        species : ndarray of int8, shape (WINDOW, n_walkers)
            Number of the species that moved, from 0.
        kinds : ndarray of int32, shape (WINDOW, n_walkers)
            Row of ``vectors`` of each jump.
        vectors : ndarray, shape (n_kinds, 3)
            Displacement of the atom that moves, Å.
        atoms : ndarray of int32, shape (WINDOW, n_walkers)
            Its number; not needed without ``follow_atoms``.
        """
        if not can_compile():
            return self.add(species, vectors[kinds], atoms)
        from ase_kinoson.kinetics.ladder_loop import sort_window

        n, top = self.n_walkers, WINDOW.bit_length() - 1
        for level in range(top + 1):
            self._make(level)
            self.n_blocks[level] += WINDOW >> level
        named = atoms if self.follow_atoms and atoms is not None else np.zeros((1, 1), dtype=np.int32)
        blocks = np.empty((n, 3 * self.n_species))

        def sort(first: int, last: int) -> tuple[NDArray, NDArray, NDArray]:
            return sort_window(
                species,
                kinds,
                named,
                vectors,
                self._low_collective,
                self._low_tracer,
                blocks,
                first,
                last,
                self.n_atoms,
                self.follow_atoms,
                RETURNED,
            )

        found = over_walkers(sort, n)
        moved = None
        if self.follow_atoms:
            moved = _Moved(*(found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))))
        self._carry(top, blocks[:, None, :], moved)

    def _carry(self, level: int, blocks: NDArray, moved: _Moved | None) -> None:
        """Join a block that was counted at its level with the one that waits there, and so on upwards."""
        from ase_kinoson.kinetics.ladder_joins import add_squares, join_lists

        n, s = self.n_walkers, self.n_species
        while True:
            waiting, before = self._waiting[level], self._moved[level]
            if waiting is None:
                self._waiting[level], self._moved[level] = blocks, moved
                return
            self._waiting[level] = self._moved[level] = None
            blocks = waiting + blocks
            level += 1
            self._make(level)
            self.n_blocks[level] += 1
            add_squares(blocks[:, 0], self.collective[level].reshape(n, 3 * s, 3 * s))
            if moved is not None:
                assert before is not None
                one = (before.key, before.species, before.displacement)
                two = (moved.key, moved.species, moved.displacement)
                moved = _Moved(*join_lists(*one, *two, self.tracer[level], self.n_atoms, RETURNED))

    def _make(self, level: int) -> None:
        """Make room for a level."""
        n, s = self.n_walkers, self.n_species
        if level == len(self.n_blocks):
            low = level < _LOW
            self.n_blocks.append(0)
            self.collective.append(self._low_collective[:, level] if low else np.zeros((n, s, 3, s, 3)))
            self.tracer.append(self._low_tracer[:, level] if low else np.zeros((n, s, 6)))
            self._waiting.append(None)
            self._moved.append(None)

    def _collect(self, level: int, blocks: NDArray, moved: _Moved | None) -> None:
        n, s = self.n_walkers, self.n_species
        self._make(level)
        self.n_blocks[level] += blocks.shape[1]
        self.collective[level] += np.matmul(blocks.transpose(0, 2, 1), blocks).reshape(n, s, 3, s, 3)
        if moved is not None:
            where = moved.key // (self.n_atoms * blocks.shape[1]) * s + moved.species
            d = moved.displacement
            for component, (i, j) in enumerate(zip(_I, _J, strict=True)):
                found = np.bincount(where, d[:, i] * d[:, j], minlength=n * s)
                self.tracer[level][..., component] += found.reshape(n, s)

    # -- keeping and restoring ------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray]:
        """Everything that :meth:`from_arrays` needs."""
        arrays: dict[str, NDArray] = {"n_blocks": np.array(self.n_blocks, dtype=np.int64)}
        for level in range(len(self.n_blocks)):
            arrays[f"collective_{level}"] = self.collective[level]
            arrays[f"tracer_{level}"] = self.tracer[level]
            waiting, moved = self._waiting[level], self._moved[level]
            if waiting is not None:
                arrays[f"waiting_{level}"] = waiting
            if moved is not None:
                arrays[f"key_{level}"] = moved.key
                arrays[f"species_{level}"] = moved.species
                arrays[f"displacement_{level}"] = moved.displacement
        return arrays

    def restore(self, arrays: dict[str, NDArray]) -> None:
        """Undo :meth:`to_arrays`."""
        n_blocks = np.atleast_1d(arrays.get("n_blocks", [])).tolist()
        levels = range(len(n_blocks))
        wanted = ["n_blocks", *(f"{name}_{level}" for level in levels for name in ("collective", "tracer"))]
        wanted += [
            f"{name}_{level}" for level in levels if f"key_{level}" in arrays for name in ("species", "displacement")
        ]
        missing = [name for name in wanted if name not in arrays]
        if missing:
            raise KinosonError(
                f"found a checkpoint without the array {missing[0]!r}; expected all that save() writes; remove it to "
                "start again"
            )
        self.n_blocks, self.collective, self.tracer = [], [], []
        self._waiting, self._moved = [], []
        for level in levels:
            self._make(level)
            self.n_blocks[level] = n_blocks[level]
            self.collective[level][...] = arrays[f"collective_{level}"]
            self.tracer[level][...] = arrays[f"tracer_{level}"]
        self._waiting = [arrays.get(f"waiting_{level}") for level in levels]
        self._moved = [
            _Moved(arrays[f"key_{level}"], arrays[f"species_{level}"], arrays[f"displacement_{level}"])
            if f"key_{level}" in arrays
            else None
            for level in levels
        ]


class _Moved:
    """Atoms that moved in blocks.

    Parameters
    ----------
    key : ndarray of int, shape (m,)
        (walker × blocks + block) × n_atoms + atom.
    species : ndarray of int, shape (m,)
    displacement : ndarray, shape (m, 3)
        Å.
    """

    def __init__(self, key: NDArray, species: NDArray, displacement: NDArray) -> None:
        self.key, self.species, self.displacement = key, species, displacement

    def paired(self, n_atoms: int) -> _Moved:
        """Every second block joined with the one before it; an atom may be listed more than once."""
        return _Moved(self.key // (2 * n_atoms) * n_atoms + self.key % n_atoms, self.species, self.displacement)

    def joined(self, other: _Moved) -> _Moved:
        """Both lists; an atom may be listed twice."""
        return _Moved(
            np.concatenate([self.key, other.key]),
            np.concatenate([self.species, other.species]),
            np.concatenate([self.displacement, other.displacement]),
        )

    def summed(self) -> _Moved:
        """One entry per atom and block, and none for atoms that came back."""
        if len(self.key) == 0:
            return self
        order = np.argsort(self.key, kind="stable")
        key = self.key[order]
        first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        total = np.add.reduceat(self.displacement[order], first, axis=0)
        away = np.flatnonzero(np.einsum("ix,ix->i", total, total) > RETURNED)
        return _Moved(key[first[away]], self.species[order[first[away]]], total[away])
