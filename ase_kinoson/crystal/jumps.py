"""`JumpNetwork`: which exchanges the carrier can make, in symmetry classes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.passages import open_passages
from ase_kinoson.crystal.site_table import SiteTable
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.crystal.symmetry import PairOrbits
from ase_kinoson.errors import ClosedDirections, MappingError, StructureError
from ase_kinoson.mson import Storable

__all__ = ["JumpNetwork"]

NEAREST_TOLERANCE = 1.1
"""Bonds up to 10 % longer than the shortest one of a site count as nearest neighbours (non-ideal c/a of hcp)."""


@dataclass(frozen=True, eq=False)
class JumpNetwork(Storable):
    """Jumps of one carrier on a supercell.

    Jump ``k`` of a carrier on a site with basis index ``b`` is row ``[b, k]`` of the tables; where sites have fewer
    jumps
    than the maximum J, rows are padded and ``exists`` is False.

    Attributes
    ----------
    supercell : Supercell
        Where the sites are.
    exists : ndarray of bool, shape (n_basis, J)
        False where a row is padded.
    target_basis : ndarray of int, shape (n_basis, J)
        Basis site of the target.
    target_cell : ndarray of int, shape (n_basis, J, 3)
        Cell of the target relative to that of the start.
    vectors : ndarray, shape (n_basis, J, 3)
        Displacement of the carrier, Å (0 where padded).
    jump_class, directed_class : ndarray of int, shape (n_basis, J)
        Symmetry class with a jump and its reverse together, and apart; −1 where padded.
    reverse : ndarray of int, shape (n_basis, J)
        The jump of the target that leads back.
    pairs : PairOrbits
        The underlying pairs of sites.
    pair_row : ndarray of int, shape (n_basis, J)
        Row of each jump in ``pairs``.
    """

    supercell: Supercell
    exists: NDArray[np.bool_]
    target_basis: NDArray[np.int64]
    target_cell: NDArray[np.int64]
    vectors: NDArray[np.float64]
    jump_class: NDArray[np.int64]
    directed_class: NDArray[np.int64]
    reverse: NDArray[np.int64]
    pairs: PairOrbits
    pair_row: NDArray[np.int64]

    @classmethod
    def from_supercell(
        cls,
        cell: Supercell,
        *,
        cutoff: float | None = None,
        mechanism: str | None = None,
        sites: Any = None,
        species: str | None = None,
    ) -> JumpNetwork:
        """Find the jumps between the mobile sites of a supercell.

        Parameters
        ----------
        cell
            The supercell.
        cutoff
            All pairs up to this length jump, Å. Default: nearest neighbours (up to 10 % longer than the shortest
            bond of either end; for interstitials of each pair of kinds of sites). Of these an interstitial makes no
            jump that passes through an atom or over another site, and none that is squeezed where a detour over other
            sites is wider: fcc octahedra then exchange through the tetrahedra, if both are given.
        mechanism
            ``"vacancy"`` or ``"interstitial"``; default: what the alloy holds.
        sites
            With ``mechanism="interstitial"``: the interstitial sites as in :meth:`Alloy.with_interstitials` (a kind
            such as ``"octahedral"``, a list of kinds, or scaled positions in the conventional cell). They are added to
            the alloy; the states then live on ``jumps.supercell``.
        species
            Symbol of the interstitial atom; needed with ``sites``.

        Raises
        ------
        StructureError
            If no jump is found, or the cell is so small that a jump sees its own image.
        """
        if sites is not None:
            if mechanism != "interstitial" or species is None:
                raise StructureError(
                    f"found sites= with mechanism={mechanism!r} and species={species!r}; expected "
                    "mechanism='interstitial' and "
                    "the symbol of the interstitial atom; pass both"
                )
            cell = Supercell(cell.alloy.with_interstitials(species, sites), cell.matrix)
        actual = "interstitial" if cell.alloy.is_interstitial else "vacancy"
        if mechanism is not None and mechanism != actual:
            raise StructureError(
                f"found mechanism={mechanism!r} for an alloy with {actual} sites; expected {actual!r}; pass sites= for "
                "interstitials, or drop mechanism="
            )
        alloy = cell.alloy
        mobile = alloy.mobile_basis
        longer = 2.0 if alloy.is_interstitial else 1.5
        reach = float(cutoff) if cutoff is not None else longer * _longest_nearest(cell, mobile)
        pairs = PairOrbits.find(
            alloy.space_group, alloy.cell, alloy.scaled_positions, alloy.pbc, reach + 1e-6, include=mobile
        )
        length = np.linalg.norm(pairs.vector, axis=1)
        if cutoff is not None or not len(length):
            keep = np.ones(len(length), dtype=bool)
        elif alloy.is_interstitial:
            keep = open_passages(alloy, pairs, tolerance=NEAREST_TOLERANCE)
        else:
            nearest = np.array([length[pairs.start == b].min(initial=np.inf) for b in range(alloy.n_basis)])
            keep = length <= NEAREST_TOLERANCE * np.maximum(nearest[pairs.start], nearest[pairs.partner])
        kept = np.isin(pairs.undirected, pairs.undirected[keep])  # pairs that symmetry makes equal are alike
        network = cls._from_rows(cell, pairs, np.flatnonzero(kept))
        network._check_images()
        if cutoff is None and alloy.is_interstitial and network.n_open_directions < network.dimension:
            warnings.warn(
                ClosedDirections(
                    f"the jumps between nearest {'/'.join(s.name for s in alloy.sublattices if s.interstitial)} sites "
                    f"lead on in {network.n_open_directions} of {network.dimension} directions; the diffusivity across "
                    "is zero",
                    number=network.n_open_directions,
                    limit=network.dimension,
                    unit="directions",
                    advice="pass cutoff= (Å) for longer jumps, or further kinds of sites",
                ),
                stacklevel=2,
            )
        return network

    @classmethod
    def _from_rows(cls, cell: Supercell, pairs: PairOrbits, rows: NDArray) -> JumpNetwork:
        if len(rows) == 0:
            raise StructureError(
                "found no jump between mobile sites; expected at least one; increase cutoff= (Å) or check the "
                "mobile sublattices"
            )
        n_basis = cell.alloy.n_basis
        per_site = [rows[pairs.start[rows] == b] for b in range(n_basis)]
        n_jumps = max(map(len, per_site))
        exists = np.zeros((n_basis, n_jumps), dtype=bool)
        row = np.zeros((n_basis, n_jumps), dtype=np.int64)
        for b, own in enumerate(per_site):
            exists[b, : len(own)] = True
            row[b, : len(own)] = own
        position = {int(r): k for own in per_site for k, r in enumerate(own)}
        reverse = np.array([[position.get(int(pairs.reverse[r]), 0) for r in line] for line in row])

        def relabel(labels: NDArray) -> NDArray:
            return np.where(exists, np.searchsorted(np.unique(labels[rows]), labels[row]), -1)

        return cls(
            supercell=cell,
            exists=exists,
            target_basis=np.where(exists, pairs.partner[row], 0),
            target_cell=np.where(exists[..., None], pairs.cell[row], 0),
            vectors=np.where(exists[..., None], pairs.vector[row], 0.0),
            jump_class=relabel(pairs.undirected),
            directed_class=relabel(pairs.directed),
            reverse=np.where(exists, reverse, 0),
            pairs=pairs,
            pair_row=row,
        )

    def _check_images(self) -> None:
        for b in np.flatnonzero(self.exists.any(axis=1)):
            own = np.flatnonzero(self.exists[b])
            targets = self.targets(np.array([b]))[0, own]
            if b in targets or len(set(targets.tolist())) != len(targets):
                lengths = np.linalg.norm(self.supercell.cell, axis=1)
                raise StructureError(
                    f"the supercell (vectors of {np.round(lengths, 2).tolist()} Å, {self.supercell.n_sites} "
                    "sites) is so small that a "
                    "jump sees its own periodic image; expected different targets for all jumps of a site; use a "
                    "larger supercell"
                )

    def restrict(self, classes: Sequence[int]) -> JumpNetwork:
        """Keep only the jumps whose :attr:`jump_class` is listed.

        Parameters
        ----------
        classes
            Classes to keep.

        Raises
        ------
        StructureError
            If no jump is left.
        """
        chosen = np.isin(self.jump_class, np.asarray(classes)) & self.exists
        return self._from_rows(self.supercell, self.pairs, np.sort(self.pair_row[chosen]))

    def with_supercell(self, cell: Supercell) -> JumpNetwork:
        """Return the same jumps on another supercell of the same alloy.

        Parameters
        ----------
        cell
            The other supercell.

        Raises
        ------
        StructureError
            If it belongs to another alloy.
        """
        if cell.alloy != self.supercell.alloy:
            raise StructureError("the supercell belongs to another alloy; expected the same; build a new JumpNetwork")
        network = replace(self, supercell=cell)
        network._check_images()
        return network

    # -- description ----------------------------------------------------------------------------------------------

    @property
    def mechanism(self) -> str:
        """``"vacancy"`` or ``"interstitial"``."""
        return "interstitial" if self.supercell.alloy.is_interstitial else "vacancy"

    @property
    def n_jumps(self) -> int:
        """Largest number of jumps of a site, J."""
        return self.exists.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of symmetry classes (a jump and its reverse in one class)."""
        return int(self.jump_class.max()) + 1

    @property
    def dimension(self) -> int:
        """Number of periodic directions d."""
        return self.supercell.alloy.dimension

    @cached_property
    def n_open_directions(self) -> int:
        """Number of independent directions in which jumps lead on without end: 1 for a channel, 2 for a layer."""
        parent, best = np.full(self.supercell.alloy.n_basis, -1), 0
        offset = np.zeros((len(parent), 3), dtype=np.int64)
        for seed in np.flatnonzero(self.exists.any(axis=1)):
            if parent[seed] >= 0:
                continue
            parent[seed], stack, loops = seed, [int(seed)], []
            while stack:
                b = stack.pop()
                for t, n in zip(self.target_basis[b][self.exists[b]], self.target_cell[b][self.exists[b]], strict=True):
                    if parent[t] < 0:
                        parent[t], offset[t] = seed, offset[b] + n
                        stack.append(int(t))
                    loops.append(offset[b] + n - offset[t])  # the cell to which a way around leads
            best = max(best, int(np.linalg.matrix_rank(np.array(loops))))
        return best

    @cached_property
    def projector(self) -> NDArray[np.float64]:
        """Projects vectors onto the periodic directions, shape (3, 3), no unit; the identity in three dimensions."""
        vectors = self.supercell.cell[self.supercell.pbc]
        return vectors.T @ np.linalg.solve(vectors @ vectors.T, vectors)

    @cached_property
    def classes(self) -> tuple[tuple[tuple[tuple[int, int], NDArray], ...], ...]:
        """Symmetry classes as tuples of ``((i, j), dx)``: basis sites and displacement in Å."""
        groups: list[list[tuple[tuple[int, int], NDArray]]] = [[] for _ in range(self.n_classes)]
        for b, k in np.argwhere(self.exists):
            groups[self.jump_class[b, k]].append(((int(b), int(self.target_basis[b, k])), self.vectors[b, k]))
        return tuple(map(tuple, groups))

    @cached_property
    def lengths(self) -> NDArray[np.float64]:
        """Jump length of every class, Å, shape (n_classes,)."""
        norm = np.linalg.norm(self.vectors, axis=-1)
        return np.array([norm[self.jump_class == c].mean() for c in range(self.n_classes)])

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the jumps on the parent lattice (the same for every supercell of one alloy's lattice)."""
        return self._digest(0.0)

    @cached_property
    def former_fingerprint(self) -> str:
        """What the fingerprint was before (:class:`Alloy`)."""
        return self._digest(-0.0)

    def goes_by(self, fingerprint: object) -> bool:
        """Whether a stored fingerprint is that of these jumps, be it one of before (:class:`Alloy`).

        Parameters
        ----------
        fingerprint
            What a file says.
        """
        return fingerprint in (self.fingerprint, self.former_fingerprint)

    def _digest(self, zero: float) -> str:
        """Hash of rounded numbers plus ``zero``: 0.0 makes zeros positive, −0.0 leaves them as they are."""
        alloy = self.supercell.alloy
        data = repr(
            [
                (np.round(alloy.cell, 5) + zero).tolist(),
                (np.round(alloy.scaled_positions, 5) + zero).tolist(),
                alloy.mobile_basis.tolist(),
                (np.round(self.vectors, 4) + zero).tolist(),
                self.mechanism,
            ]
        )
        return hashlib.sha256(data.encode()).hexdigest()[:16]

    # -- acting on states -----------------------------------------------------------------------------------------

    def basis_of(self, carriers: ArrayLike) -> NDArray[np.int64]:
        """Basis site of carriers, shape (n,).

        Parameters
        ----------
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        return np.asarray(carriers) % self.supercell.alloy.n_basis

    def targets(self, carriers: ArrayLike) -> NDArray[np.int64]:
        """Target sites of all jumps, shape (n, J); −1 where there is no jump.

        Parameters
        ----------
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        return self._targets.sites(np.atleast_1d(np.asarray(carriers, dtype=np.int64))).astype(np.int64)

    @cached_property
    def _targets(self) -> SiteTable:
        return self.supercell.site_table(np.where(self.exists, self.target_basis, -1), self.target_cell)

    def moving_species(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.int64]:
        """Species code of the atom that each jump moves, shape (n, J); −1 where there is no jump.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        c = np.atleast_1d(np.asarray(carriers))
        t = self.targets(c)
        rows = np.arange(len(c))[:, None]
        moved = occupations[rows, t] if self.mechanism == "vacancy" else occupations[rows, c[:, None]]
        return np.where(t >= 0, moved, -1).astype(np.int64)

    def apply(self, occupations: NDArray, carriers: ArrayLike, jumps: ArrayLike) -> tuple[NDArray, NDArray[np.int64]]:
        """Carry out one jump per state.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        jumps : array_like of int, shape (n,)
            Jump of each state.

        Returns
        -------
        occupations, carriers : ndarray of int, shapes (n, n_sites) and (n,)
            New arrays.

        Raises
        ------
        MappingError
            If a jump does not exist.
        """
        c = np.asarray(carriers, dtype=np.int64)
        t = self.targets(c)[np.arange(len(c)), np.asarray(jumps)]
        if np.any(t < 0):
            raise MappingError(
                "a jump that does not exist was asked for; expected indices where exists is True; check them"
            )
        new = occupations.copy()
        rows = np.arange(len(c))
        new[rows, c], new[rows, t] = occupations[rows, t], occupations[rows, c]
        return new, t

    def __repr__(self) -> str:
        lengths = ", ".join(f"{x:.3f}" for x in self.lengths)
        return (
            f"JumpNetwork({self.mechanism}, up to {self.n_jumps} jumps per site, "
            f"{self.n_classes} classes of length {lengths} Å)"
        )


def _longest_nearest(cell: Supercell, mobile: NDArray) -> float:
    """Longest nearest-neighbour distance among the mobile sites, Å."""
    from ase.neighborlist import primitive_neighbor_list

    alloy = cell.alloy
    # no site is farther from the next one than from its own nearest image; a longer reach costs memory as its cube
    reach = 1.01 * float(np.linalg.norm(alloy.cell[alloy.pbc], axis=1).min())
    i, j, d = primitive_neighbor_list("ijd", alloy.pbc, alloy.cell, alloy.scaled_positions @ alloy.cell, reach)
    both = mobile[i] & mobile[j]
    return max(float(d[both & (i == b)].min()) for b in np.flatnonzero(mobile))
