"""`DeviceLadder`: the squared displacements of `LagLadder`, summed on a device.

Within a window two halves of a block meet as a small matrix: M_jk = 1 where jump j of the first half and jump k of the
second move the same atom. The squares of a block are those of its halves and 2 Σ_jk M_jk v_j ⊗ v_k: products of small
matrices, of fixed shape, without sorting. Beyond a window atoms are kept in sorted lists. Every sum has a fixed order,
so that equal input gives equal bits.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.barriers.device_sites import put
from ase_kinoson.kinetics.lags import RETURNED, WINDOW

__all__ = ["DeviceLadder"]

CHUNK = 2**27
"""Bytes of the matrices of a window that are held at once: walkers are taken some at a time."""

_I, _J = np.triu_indices(3)


class DeviceLadder:
    """Sums of squared displacements over blocks of L = 2^level jumps; what it tells is NumPy.

    Parameters
    ----------
    n_walkers, n_species
        Numbers of walkers and of mobile species.
    n_atoms
        Atoms of a walker are numbered below this.
    device
        Where it sums.
    follow_atoms
        Whether single atoms are told apart.

    Attributes
    ----------
    n_blocks : list of int
        Blocks per walker at every level.
    """

    def __init__(
        self, n_walkers: int, n_species: int, n_atoms: int, *, device: torch.device, follow_atoms: bool = True
    ) -> None:
        self.n_walkers, self.n_species, self.n_atoms = n_walkers, n_species, n_atoms
        self.follow_atoms, self.device = follow_atoms, device
        self.n_blocks: list[int] = []
        self._collective: list[Tensor] = []
        self._tracer: list[Tensor] = []
        self._waiting: list[Tensor | None] = []
        self._moved: list[tuple[Tensor, Tensor, Tensor] | None] = []

    @property
    def lags(self) -> NDArray[np.int64]:
        """L of every level, jumps."""
        return 2 ** np.arange(len(self.n_blocks))

    @property
    def collective(self) -> list[NDArray[np.float64]]:
        """Sum over blocks of ΔR^a ⊗ ΔR^b by level, Å², shape (n_walkers, n_species, 3, n_species, 3) each."""
        shape = (self.n_walkers, self.n_species, 3, self.n_species, 3)
        return [c.cpu().numpy().reshape(shape) for c in self._collective]

    @property
    def tracer(self) -> list[NDArray[np.float64]]:
        """Sum over blocks and atoms of ΔR_i ⊗ ΔR_i by level, Å², shape (n_walkers, n_species, 6) each."""
        return [t.cpu().numpy() for t in self._tracer]

    def tracer_tensors(self, level: int) -> NDArray[np.float64]:
        """Return :attr:`tracer` of one level as full tensors, shape (n_walkers, n_species, 3, 3)."""
        found = np.empty((self.n_walkers, self.n_species, 3, 3))
        found[..., _I, _J] = found[..., _J, _I] = self._tracer[level].cpu().numpy()
        return found

    def add(self, species: Tensor, kinds: Tensor, vectors: Tensor, atoms: Tensor | None) -> None:
        """Take in the next jumps of all walkers.

        Parameters
        ----------
        species : Tensor of int, shape (WINDOW, n_walkers)
            Number of the species that moved, from 0.
        kinds : Tensor of int, shape (WINDOW, n_walkers)
            Row of ``vectors``.
        vectors : Tensor of float64, shape (n_kinds, 3)
            Å.
        atoms : Tensor of int, shape (WINDOW, n_walkers)
            Number of the atom that moved; not needed without ``follow_atoms``.
        """
        last = WINDOW.bit_length() - 1
        for level in range(last + 1):
            self._make(level)
            self.n_blocks[level] += WINDOW >> level
        step = max(1, CHUNK // (8 * WINDOW * (WINDOW // 4 + 3 * self.n_species)))
        parts = []
        for first in range(0, self.n_walkers, step):
            rows = slice(first, first + step)
            who = None if atoms is None or not self.follow_atoms else atoms[:, rows].T.contiguous()
            parts.append(self._window(rows, species[:, rows].T.long(), vectors[kinds[:, rows].T.long()], who))
        blocks = torch.cat([p[0] for p in parts])
        moved = tuple(torch.cat(x) for x in zip(*(p[1:] for p in parts), strict=True)) if self.follow_atoms else None
        level = last
        while (waiting := self._waiting[level]) is not None:
            before = self._moved[level]
            self._waiting[level] = self._moved[level] = None
            blocks = waiting + blocks
            if moved is not None:
                assert before is not None
                moved = _summed(*(torch.cat([a, b]) for a, b in zip(before, moved, strict=True)))
            level += 1
            self._make(level)
            self.n_blocks[level] += 1
            self._collective[level] += blocks[:, :, None] * blocks[:, None, :]
            if moved is not None:
                self._tracer[level] += self._squares(*moved)
        self._waiting[level], self._moved[level] = blocks, moved  # type: ignore[assignment]

    def _make(self, level: int) -> None:
        if level == len(self.n_blocks):
            n, s = self.n_walkers, self.n_species
            self.n_blocks.append(0)
            self._collective.append(torch.zeros(n, 3 * s, 3 * s, dtype=torch.float64, device=self.device))
            self._tracer.append(torch.zeros(n, s, 6, dtype=torch.float64, device=self.device))
            self._waiting.append(None)
            self._moved.append(None)

    def _window(self, rows: slice, species: Tensor, v: Tensor, atoms: Tensor | None) -> tuple[Tensor, ...]:
        """All levels of one window of some walkers: species (n, WINDOW), vectors (n, WINDOW, 3), atoms (n, WINDOW).

        Returns the displacement of the species in the window (n, 3 S) and, where atoms are told apart, theirs as lists.
        """
        n, s = len(species), self.n_species
        who = torch.arange(s, device=self.device) == species[..., None]
        single = (who[..., None] * v[:, :, None, :]).flatten(2)  # (n, WINDOW, 3 S): what the species moved by
        blocks, squares = single, (single.mT @ v).view(n, s, 3, 3)
        for level in range(WINDOW.bit_length()):
            if level:
                half, count = 2 ** (level - 1), WINDOW >> level
                blocks = blocks[:, 0::2] + blocks[:, 1::2]
                if atoms is not None:
                    a = atoms.view(n, count, 2, half)
                    same = (a[:, :, 0, :, None] == a[:, :, 1, None, :]).double()
                    met = same @ v.view(n, count, 2, half, 3)[:, :, 1]
                    first = single.view(n, count, 2, half, 3 * s)[:, :, 0]
                    cross = (first.flatten(1, 2).mT @ met.flatten(1, 2)).view(n, s, 3, 3)
                    squares = squares + cross + cross.mT
            self._collective[level][rows] += blocks.mT @ blocks
            if atoms is not None:
                self._tracer[level][rows] += squares[..., _I, _J]
        total = blocks[:, 0]
        if atoms is None:
            return (total,)
        walker = torch.arange(rows.start, rows.start + n, device=self.device)[:, None]
        key = (walker * self.n_atoms + atoms).flatten()
        return (total, *_summed(key, species.flatten(), v.flatten(0, 1)))

    def _squares(self, key: Tensor, species: Tensor, moved: Tensor) -> Tensor:
        """Sums of squares by walker and species, shape (n_walkers, S, 6); keys are sorted."""
        edges = torch.arange(self.n_walkers + 1, device=self.device) * self.n_atoms
        length = torch.searchsorted(key, edges).diff()
        square = moved[:, _I] * moved[:, _J]
        found = [
            torch.segment_reduce(square * (species == a)[:, None], "sum", lengths=length, unsafe=True)
            for a in range(self.n_species)
        ]
        return torch.stack(found, dim=1)

    # -- keeping and restoring ------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray]:
        """Everything that :meth:`restore` needs, as `LagLadder` writes it."""
        arrays: dict[str, NDArray] = {"n_blocks": np.array(self.n_blocks, dtype=np.int64)}
        collective, tracer = self.collective, self.tracer
        for level in range(len(self.n_blocks)):
            arrays[f"collective_{level}"], arrays[f"tracer_{level}"] = collective[level], tracer[level]
            waiting, moved = self._waiting[level], self._moved[level]
            if waiting is not None:
                arrays[f"waiting_{level}"] = waiting.cpu().numpy()[:, None]
            if moved is not None:
                for name, part in zip(("key", "species", "displacement"), moved, strict=True):
                    arrays[f"{name}_{level}"] = part.cpu().numpy()
        return arrays

    def restore(self, arrays: dict[str, NDArray]) -> None:
        """Undo :meth:`to_arrays`."""

        def read(name: str, shape: tuple[int, ...]) -> Tensor:
            return put(np.array(arrays[name]), self.device).reshape(shape)

        n, s = self.n_walkers, self.n_species
        self.n_blocks = arrays["n_blocks"].tolist()
        levels = range(len(self.n_blocks))
        self._collective = [read(f"collective_{level}", (n, 3 * s, 3 * s)) for level in levels]
        self._tracer = [read(f"tracer_{level}", (n, s, 6)) for level in levels]
        self._waiting = [
            read(f"waiting_{level}", (n, 3 * s)) if f"waiting_{level}" in arrays else None for level in levels
        ]
        self._moved = [
            (read(f"key_{level}", (-1,)), read(f"species_{level}", (-1,)), read(f"displacement_{level}", (-1, 3)))
            if f"key_{level}" in arrays
            else None
            for level in levels
        ]


def _summed(key: Tensor, species: Tensor, moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One entry per atom, sorted, and none for atoms that came back."""
    key, order = torch.sort(key, stable=True)
    key, length = torch.unique_consecutive(key, return_counts=True)
    total = torch.segment_reduce(moved[order], "sum", lengths=length, unsafe=True)
    species = species[order][length.cumsum(0) - length]
    away = torch.nonzero((total * total).sum(dim=1) > RETURNED)[:, 0]
    return key[away], species[away], total[away]
