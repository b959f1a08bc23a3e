"""`PairClusters`: sites, pairs and carrier terms as columns of a linear energy model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.carrier import CarrierTerms
from ase_kinoson.crystal.environment import PairTable
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import ModelError

__all__ = ["PairClusters"]

CHUNK = 2_000_000
"""Largest number of (state, site, neighbour) entries held at once."""

TABLE_LIMIT = 10_000_000
"""Largest table of pair partners that is kept, entries."""


@dataclass(frozen=True, eq=False)
class PairClusters:
    """Sites, pairs and carrier environments as columns of a linear model on one supercell.

    Attributes
    ----------
    table : PairTable
        Pairs of varying sites.
    carrier : CarrierTerms or None
        What the carrier adds to the pairs.
    cutoff : float
        Longest pair, Å.
    triplet_cutoff : float
        Distance from the carrier up to which atoms are counted in pairs, Å; 0 for none.
    """

    table: PairTable
    carrier: CarrierTerms | None = None
    cutoff: float = 0.0
    triplet_cutoff: float = 0.0

    @classmethod
    def build(
        cls,
        cell: Supercell,
        *,
        cutoff: float,
        network: JumpNetwork | None = None,
        triplet_cutoff: float = 0.0,
    ) -> PairClusters:
        """List all pairs up to ``cutoff`` (Å); interstitial alloys and triplets need the network."""
        table = PairTable.build(cell, cutoff)
        interstitial = cell.alloy.is_interstitial
        if not interstitial and triplet_cutoff <= 0:
            return cls(table, None, float(cutoff))
        if network is None:
            raise ModelError(
                "found an interstitial alloy or triplets and no jump network; expected the network that "
                "names "
                "the sites of the carrier; pass network="
            )
        carrier = CarrierTerms.build(
            cell,
            network,
            cutoff=cutoff if interstitial else None,
            triplet_cutoff=triplet_cutoff if triplet_cutoff > 0 else None,
        )
        return cls(table, carrier, float(cutoff), float(triplet_cutoff))

    def on(self, cell: Supercell) -> PairClusters:
        """The same clusters on another supercell of the same parent lattice."""
        carrier = None if self.carrier is None else self.carrier.on(cell)
        return replace(self, table=replace(self.table, supercell=cell), carrier=carrier)

    # -- columns ------------------------------

    @property
    def supercell(self) -> Supercell:
        """The supercell."""
        return self.table.supercell

    @property
    def n_species(self) -> int:
        """Number of species codes, the vacancy included."""
        return len(self.supercell.species)

    @cached_property
    def site_columns(self) -> NDArray[np.int64]:
        """Column of every (site class, species), shape (n_site_classes, n_species)."""
        n = int(self.table.site_class.max(initial=-1)) + 1
        return np.arange(n * self.n_species).reshape(n, self.n_species)

    @cached_property
    def pair_columns(self) -> NDArray[np.int64]:
        """Column of every (pair orbit, swapped or not, species, species), shape (n_orbits, 2, S, S).

        Pairs of equivalent sites do not tell their ends apart; pairs of inequivalent sites name the lower
        class first.
        """
        table, s = self.table, self.n_species
        columns = np.empty((table.n_orbits, 2, s, s), dtype=np.int64)
        first = self.site_columns.size
        for orbit in range(table.n_orbits):
            b, n = np.argwhere(table.orbit == orbit)[0]
            if table.site_class[b] == table.site_class[table.partner[b, n]]:
                upper = np.triu_indices(s)
                block = np.empty((s, s), dtype=np.int64)
                block[upper] = first + np.arange(len(upper[0]))
                block.T[upper] = block[upper]
                first += len(upper[0])
            else:
                block = first + np.arange(s * s).reshape(s, s)
                first += s * s
            columns[orbit, 0], columns[orbit, 1] = block, block.T
        return columns

    @cached_property
    def carrier_offset(self) -> int:
        """First column of the carrier terms."""
        blocks = (self.site_columns, self.pair_columns)
        return max((int(b.max()) + 1 for b in blocks if b.size), default=0)

    @cached_property
    def n_features(self) -> int:
        """Number of columns."""
        return self.carrier_offset + (0 if self.carrier is None else self.carrier.n_features)

    # -- site tables ------------------------------

    @cached_property
    def neighbors(self) -> NDArray[np.int64]:
        """Pair partners of every site, shape (n_sites, n_max); 0 where padded."""
        sites = np.arange(self.supercell.n_sites)
        return np.maximum(self.table.neighbors(sites), 0)

    def partners(self, sites: NDArray) -> NDArray[np.int64]:
        """Rows of :attr:`neighbors`, shape (n, n_max), without its table where that would be too large."""
        if self.supercell.n_sites * self.table.partner.shape[1] <= TABLE_LIMIT:
            return self.neighbors[sites]
        return np.maximum(self.table.neighbors(sites), 0)

    @cached_property
    def pair_index(self) -> NDArray[np.int64]:
        """``2 * orbit + swapped`` of every pair, shape (n_basis, n_max); ``2 * n_orbits`` where padded."""
        table = self.table
        return np.where(table.orbit >= 0, 2 * table.orbit + table.swapped, 2 * table.n_orbits)

    @cached_property
    def _column_of_pair(self) -> NDArray[np.int64]:
        """Flat (2 n_orbits + 1, S, S) table of columns; the last block is padding (``n_features``)."""
        s = self.n_species
        padding = np.full((1, s, s), self.n_features)
        return np.concatenate([self.pair_columns.reshape(-1, s, s), padding]).ravel()

    # -- features ------------------------------

    def features(self, occupations: NDArray) -> NDArray[np.float64]:
        """Counts of sites and pairs of every kind.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)

        Returns
        -------
        ndarray, shape (n, n_features)
        """
        occ = np.asarray(occupations)
        n, s, width = len(occ), self.n_species, self.n_features + 1
        basis = self.supercell.basis_index
        kind = self.table.site_class[basis]
        varying = np.flatnonzero(kind >= 0)
        base = self.pair_index[basis[varying]] * s * s
        partners = self.neighbors[varying]
        result = np.zeros((n, width))
        step = max(1, CHUNK // max(1, partners.size))
        for start in range(0, n, step):
            part = occ[start : start + step].astype(np.int64)
            row = np.arange(len(part))
            here = part[:, varying]
            index = base[None] + here[:, :, None] * s + part[:, partners]
            columns = self._column_of_pair[index].reshape(len(part), -1) + row[:, None] * width
            count = 0.5 * np.bincount(columns.ravel(), minlength=len(part) * width)
            single = self.site_columns[kind[varying][None], here] + row[:, None] * width
            count += np.bincount(single.ravel(), minlength=len(part) * width)
            if self.carrier is not None:
                extra = self.carrier.columns(part, self.carrier.carriers(part), row)
                extra = extra + self.carrier_offset + row[:, None] * width
                count += np.bincount(extra.ravel(), minlength=len(part) * width)
            result[start : start + step] = count.reshape(len(part), width)
        return result[:, :-1]

    def jump_features(self, occupations: NDArray, carriers: ArrayLike, network: JumpNetwork) -> NDArray[np.float64]:
        """Change of the features in every jump, shape (n, J, n_features); 0 where there is no jump."""
        occ, c = np.asarray(occupations), np.asarray(carriers, dtype=np.int64)
        n, n_jumps = len(occ), network.n_jumps
        result = np.zeros((n, n_jumps, self.n_features))
        step = max(1, CHUNK // (n_jumps * max(1, self.neighbors.shape[1], self.n_features)))
        for start in range(0, n, step):
            part = slice(start, start + step)
            targets = network.targets(c[part])
            rows, jumps = np.nonzero(targets >= 0)
            found = self._swap_features(occ[part], rows, c[part][rows], targets[rows, jumps])
            result[start + rows, jumps] = found
        return result

    def _swap_features(self, occ: NDArray, rows: NDArray, first: NDArray, second: NDArray) -> NDArray[np.float64]:
        """Change of the features, shape (m, n_features), when row ``rows[i]`` exchanges two sites."""
        m, s, width = len(rows), self.n_species, self.n_features + 1
        result = np.zeros(m * width)
        shift = np.arange(m)[:, None] * width
        a, b = occ[rows, first].astype(np.int64), occ[rows, second].astype(np.int64)
        for site, old, new in ((first, a, b), (second, b, a)):
            basis = site % self.supercell.alloy.n_basis
            kind = self.table.site_class[basis]
            ok = kind >= 0
            for species, sign in ((old, -1.0), (new, 1.0)):
                columns = shift[ok, 0] + self.site_columns[kind[ok], species[ok]]
                result += sign * np.bincount(columns, minlength=m * width)
            partners = self.neighbors[site]
            base = self.pair_index[basis] * s * s
            before = occ[rows[:, None], partners].astype(np.int64)
            at_first, at_second = partners == first[:, None], partners == second[:, None]
            after = np.where(at_first, b[:, None], np.where(at_second, a[:, None], before))
            weight = np.where(at_first | at_second, 0.5, 1.0).ravel()
            for species, around, sign in ((old, before, -1.0), (new, after, 1.0)):
                columns = self._column_of_pair[base + species[:, None] * s + around] + shift
                result += sign * np.bincount(columns.ravel(), weight, minlength=m * width)
        if self.carrier is not None:
            start = self.carrier.carriers(occ)[rows]
            end = np.where(start == first, second, np.where(start == second, first, start))
            before = self.carrier.columns(occ, start, rows)
            after = self.carrier.columns(occ, end, rows, (first, second))
            for found, sign in ((before, -1.0), (after, 1.0)):
                columns = (found + self.carrier_offset + shift).ravel()
                result += sign * np.bincount(columns, minlength=m * width)
        return result.reshape(m, width)[:, :-1]
