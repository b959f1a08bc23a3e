"""`CarrierTerms`: the energy of the carrier among the atoms around it, as columns of a linear model.

Atoms next to a vacancy relax into it, so that their energy is no sum over pairs. The leading correction
counts the pairs of atoms near the carrier (the triplets carrier-atom-atom): a state function, like
everything here. An interstitial atom in addition interacts with each atom around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.environment import CarrierEnvironment, EnvironmentClass
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import ModelError

__all__ = ["CarrierTerms", "find_carriers"]


@dataclass(frozen=True, eq=False)
class CarrierTerms:
    """Counts of atoms, and of pairs of atoms, around the carrier.

    Attributes
    ----------
    single : CarrierEnvironment or None
        Sites counted one by one; interstitial alloys only (for a vacancy the pair table does this).
    triplet : CarrierEnvironment or None
        Sites counted in pairs.
    """

    single: CarrierEnvironment | None
    triplet: CarrierEnvironment | None

    @classmethod
    def build(
        cls, cell: Supercell, network: JumpNetwork, *, cutoff: float | None, triplet_cutoff: float | None
    ) -> CarrierTerms:
        """List the sites within each cutoff (Å; None leaves that part out)."""
        single, triplet = (
            None if reach is None else replace(CarrierEnvironment.build(network, cutoff=reach), supercell=cell)
            for reach in (cutoff, triplet_cutoff)
        )
        return cls(single, triplet)

    def on(self, cell: Supercell) -> CarrierTerms:
        """The same terms on another supercell of the same lattice."""
        single, triplet = (None if e is None else replace(e, supercell=cell) for e in (self.single, self.triplet))
        return CarrierTerms(single, triplet)

    @property
    def supercell(self) -> Supercell:
        """The supercell."""
        environment = self.single or self.triplet
        assert environment is not None
        return environment.supercell

    # -- columns, counted from 0 ------------------------------

    @cached_property
    def single_columns(self) -> tuple[NDArray[np.int64], ...]:
        """By class of carrier sites: orbits × species, shape (1 + n_orbits, S).

        Row 0 is the carrier itself (only its first column counts).
        """
        result, first, s = [], 0, len(self.supercell.species)
        for kind in () if self.single is None else self.single.classes:
            rows = 1 + int(kind.site_orbits.max(initial=-1)) + 1
            result.append(first + np.arange(rows * s).reshape(rows, s))
            first += rows * s
        return tuple(result)

    @cached_property
    def _pairs(self) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]], ...]:
        """By class: pairs of environment sites (n, 2), their orbit (n,), which orbits are symmetric."""
        return tuple(_pair_orbits(kind) for kind in (() if self.triplet is None else self.triplet.classes))

    @cached_property
    def triplet_columns(self) -> tuple[NDArray[np.int64], ...]:
        """By class of carrier sites: pair orbit × species × species, shape (n_orbits, S, S)."""
        s = len(self.supercell.species)
        first = sum(block.size for block in self.single_columns)
        upper = np.triu_indices(s)
        result = []
        for _, _, symmetric in self._pairs:
            block = np.empty((len(symmetric), s, s), dtype=np.int64)
            for orbit, same in enumerate(symmetric):
                if same:
                    block[orbit][upper] = first + np.arange(len(upper[0]))
                    block[orbit].T[upper] = block[orbit][upper]
                    first += len(upper[0])
                else:
                    block[orbit] = first + np.arange(s * s).reshape(s, s)
                    first += s * s
            result.append(block)
        return tuple(result)

    @cached_property
    def n_features(self) -> int:
        """Number of columns."""
        blocks = [b for b in (*self.single_columns, *self.triplet_columns) if b.size]
        return max((int(b.max()) + 1 for b in blocks), default=0)

    def coefficients(
        self,
        interactions: Mapping[tuple[str, str], float | Sequence[float]],
        site_energies: Sequence[float] | None = None,
        *,
        everywhere: bool = False,
    ) -> NDArray[np.float64]:
        """Coefficients of given energies of an interstitial atom, eV, shape (n_features,).

        Parameters
        ----------
        interactions
            Energy of each unordered pair of species, or one per shell; pairs without the interstitial atom do not
            count. A shell is a distinct distance from any of its sites.
        site_energies
            Energy of the atom itself on each class of its sites, in the order of the first basis site of each.
        everywhere
            A single energy holds for all shells, not for the first alone.

        Raises
        ------
        ModelError
            If the number of site energies is not that of the classes.
        """
        result = np.zeros(self.n_features)
        if self.single is None:
            return result
        cell, env = self.supercell, self.single
        order = list(dict.fromkeys(int(c) for c in env.class_of_basis if c >= 0))
        if site_energies is not None:
            if len(site_energies) != len(order):
                raise ModelError(
                    f"found {len(site_energies)} site energies; expected {len(order)}, one per class of interstitial "
                    "sites; correct site_energies="
                )
            for energy, label in zip(site_energies, order, strict=True):
                result[self.single_columns[label][0, 0]] = energy
        atom = next(sub.species[0] for sub in cell.alloy.sublattices if sub.interstitial)
        around = [np.round(np.linalg.norm(kind.vectors, axis=1), 3) for kind in env.classes]
        shells = np.unique(np.concatenate([np.empty(0), *around]))
        for pair, value in interactions.items():
            if atom not in pair:
                continue
            other = cell.species.index(pair[0] if pair[1] == atom else pair[1])
            given = np.atleast_1d(np.asarray(value, dtype=float))
            for label, kind in enumerate(env.classes):
                for orbit, length in zip(kind.site_orbits, around[label], strict=True):
                    k = 0 if everywhere and len(given) == 1 else int(np.searchsorted(shells, length))
                    result[self.single_columns[label][1 + orbit, other]] = given[k] if k < len(given) else 0.0
        return result

    # -- tables by basis site ------------------------------

    @cached_property
    def _single_base(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First column of each environment site (n_basis, n_env), −1 if padded; of the carrier (n_basis,)."""
        env = self.single
        assert env is not None
        n_env = max((c.n_sites for c in env.classes), default=0)
        base = np.full((len(env.class_of_basis), n_env), -1)
        own = np.full(len(env.class_of_basis), self.n_features)
        for b in np.flatnonzero(env.class_of_basis >= 0):
            label = env.class_of_basis[b]
            base[b, : env.classes[label].n_sites] = self.single_columns[label][1 + env.classes[label].site_orbits, 0]
            own[b] = self.single_columns[label][0, 0]
        return base, own

    @cached_property
    def _triplet_base(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Ends of each pair (n_basis, n_pairs, 2), its block (n_basis, n_pairs), and flat columns."""
        env = self.triplet
        assert env is not None
        s = len(self.supercell.species)
        sizes = [len(t) for t in self.triplet_columns]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        padding = np.full((1, s, s), self.n_features)
        columns = np.concatenate([*self.triplet_columns, padding]).ravel()
        n_pairs = max((len(p[0]) for p in self._pairs), default=0)
        ends = np.zeros((len(env.class_of_basis), n_pairs, 2), dtype=np.int64)
        block = np.full((len(env.class_of_basis), n_pairs), starts[-1])
        for b in np.flatnonzero(env.class_of_basis >= 0):
            label = env.class_of_basis[b]
            pairs, orbit, _ = self._pairs[label]
            ends[b, : len(pairs)] = pairs
            block[b, : len(pairs)] = starts[label] + orbit
        return ends, block, columns

    @cached_property
    def _sites(self) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """Environment of every carrier site, shape (n_sites, n_env) each; 0 where padded."""
        return tuple(None if e is None else _site_table(e) for e in (self.single, self.triplet))  # type: ignore[return-value]

    # -- acting on occupations ------------------------------

    def carriers(self, occupations: NDArray) -> NDArray[np.int64]:
        """Sites of the carriers, shape (n,)."""
        return find_carriers(self.supercell, occupations)

    def columns(
        self,
        occupations: NDArray,
        carriers: NDArray,
        rows: NDArray,
        swap: tuple[NDArray, NDArray] | None = None,
    ) -> NDArray[np.int64]:
        """Columns that the carriers of some rows switch on, shape (n, m); padding is ``n_features``.

        With ``swap`` the occupants of two sites per row are exchanged first.
        """
        b = carriers % self.supercell.alloy.n_basis
        parts = []
        occupants: list[NDArray[np.int64] | None] = []
        for table in self._sites:
            if table is None:
                occupants.append(None)
                continue
            sites = table[carriers]
            if swap is not None:
                first, second = swap[0][:, None], swap[1][:, None]
                sites = np.where(sites == first, second, np.where(sites == second, first, sites))
            occupants.append(occupations[rows[:, None], sites].astype(np.int64))
        if occupants[0] is not None:
            base, own = self._single_base
            parts += [own[b][:, None], np.where(base[b] >= 0, base[b] + occupants[0], self.n_features)]
        if occupants[1] is not None:
            ends, block, columns = self._triplet_base
            s = len(self.supercell.species)
            pick = np.arange(len(b))[:, None]
            one, two = occupants[1][pick, ends[b, :, 0]], occupants[1][pick, ends[b, :, 1]]
            parts.append(columns[(block[b] * s + one) * s + two])
        return np.concatenate(parts, axis=1)

    def touched(self, carriers: NDArray, first: NDArray, second: NDArray) -> NDArray[np.bool_]:
        """Whether an exchange of two sites can change the columns, shape (n,)."""
        result = (carriers == first) | (carriers == second)
        for table in self._sites:
            if table is not None:
                sites = table[carriers]
                result |= ((sites == first[:, None]) | (sites == second[:, None])).any(axis=1)
        return result


def find_carriers(cell: Supercell, occupations: NDArray) -> NDArray[np.int64]:
    """Sites of the carriers of occupations (n, n_sites), shape (n,)."""
    mobile = cell.mobile_sites
    full = (occupations if len(mobile) == occupations.shape[1] else occupations[:, mobile]) > 0
    return mobile[(full if cell.alloy.is_interstitial else ~full).argmax(axis=1)]


def _site_table(env: CarrierEnvironment) -> NDArray[np.int64]:
    n_env = max((c.n_sites for c in env.classes), default=0)
    cell = env.supercell
    found = np.zeros((cell.n_sites, n_env), dtype=np.int64)
    for b in np.flatnonzero(env.class_of_basis >= 0):
        own = np.flatnonzero(cell.basis_index == b)
        sites = env.sites(own, int(b))
        found[own, : sites.shape[1]] = sites
    return found


def _pair_orbits(kind: EnvironmentClass) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs of environment sites (n, 2), their orbit (n,), and which orbits do not tell ends apart.

    Where the two ends belong to different site orbits the lower orbit comes first.
    """
    n = kind.n_sites
    orbit = np.full((n, n), -1)
    symmetric: list[bool] = []
    for a in range(n):
        for b in range(a + 1, n):
            if orbit[a, b] < 0:
                one, two = kind.permutations[:, a], kind.permutations[:, b]
                orbit[one, two] = orbit[two, one] = len(symmetric)
                symmetric.append(bool(kind.site_orbits[a] == kind.site_orbits[b]))
    pairs = np.argwhere(np.triu(np.ones((n, n), dtype=bool), 1))
    turn = kind.site_orbits[pairs[:, 0]] > kind.site_orbits[pairs[:, 1]]
    ordered = np.where(turn[:, None], pairs[:, ::-1], pairs)
    return ordered, orbit[pairs[:, 0], pairs[:, 1]], np.array(symmetric, dtype=bool)
