"""`PairEnergy`: the energy of every occupation as a sum over sites and pairs of sites.

E(χ) = E₀ + Σ_i θ₁[class(i), s_i] + Σ_{i<j} θ₂[orbit(ij)][s_i, s_j], where the vacancy is a species like any
other, so that its binding to atoms is included. The sum over pairs runs over the periodic crystal: in a cell
smaller than the cutoff a neighbour that is listed twice counts twice, and a site interacts with its own
images. The carrier adds terms of its own (`CarrierTerms`): pairs of atoms around it and, for an interstitial
atom, the atoms around it. All of them are functions of the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.clusters import CHUNK, PairClusters
from ase_kinoson.barriers.energy_fit import EnergySet, fit_pairs, shell_cutoff
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import ModelError

__all__ = ["PairEnergy"]


@dataclass(frozen=True, eq=False)
class PairEnergy:
    """Energy of an occupation, linear in the counts of sites and pairs; an `EnergyModel`.

    Attributes
    ----------
    clusters : PairClusters
        Sites and pairs that are counted.
    coefficients : ndarray, shape (n_features,)
        eV per site, pair or carrier neighbour.
    constant : float
        eV.
    report : mapping
        How it was fitted, with errors in eV.
    """

    clusters: PairClusters
    coefficients: NDArray[np.float64]
    constant: float = 0.0
    report: Mapping[str, float | int] = field(default_factory=dict)

    # -- constructors ------------------------------

    @classmethod
    def from_interactions(
        cls,
        cell: Supercell,
        interactions: Mapping[tuple[str, str], float | Sequence[float]],
        *,
        cutoff: float | None = None,
        network: JumpNetwork | None = None,
        site_energies: Sequence[float] | None = None,
    ) -> PairEnergy:
        """Build a model alloy from pair energies.

        Parameters
        ----------
        cell
            The supercell.
        interactions
            Energy (eV) of each unordered pair of species, ``"X"`` being the vacancy; pairs not named have
            none. A sequence gives one energy per shell of neighbours (distinct length).
        cutoff
            Longest pair, Å. Default: as many shells as the longest sequence names.
        network
            Needed for interstitial alloys only. Shells of an interstitial atom are counted around its own sites.
        site_energies
            Energy (eV) of the interstitial atom on each symmetry class of its sites, in the order of the first site of
            each (as given to ``sites=``); default: none.

        Raises
        ------
        ModelError
            If a species is unknown, an energy is no finite number, or site energies are given without interstitial
            sites.
        """
        shells = max((len(np.atleast_1d(np.asarray(v))) for v in interactions.values()), default=1)
        reach = shell_cutoff(cell.alloy, shells) if cutoff is None else float(cutoff)
        clusters = PairClusters.build(cell, cutoff=reach, network=network)
        coefficients = np.zeros(clusters.n_features)
        _, shell = np.unique(np.round(clusters.table.lengths, 3), return_inverse=True)
        for (one, two), value in interactions.items():
            for symbol in (one, two):
                if symbol not in cell.species:
                    raise ModelError(
                        f"found an interaction of species {symbol!r}; expected one of {cell.species}; name "
                        f"species of the alloy"
                    )
            given = np.atleast_1d(np.asarray(value, dtype=float))
            if not np.isfinite(given).all():
                raise ModelError(
                    f"found an interaction of {value} eV between {one} and {two}; expected finite numbers; correct it"
                )
            a, b = cell.species.index(one), cell.species.index(two)
            for orbit, k in enumerate(shell):
                energy = given[0] if len(given) == 1 and cutoff is not None else given[k] if k < len(given) else 0.0
                coefficients[clusters.pair_columns[orbit, 0, a, b]] = energy
                coefficients[clusters.pair_columns[orbit, 0, b, a]] = energy
        if site_energies is not None and not cell.alloy.is_interstitial:
            raise ModelError(
                "found site_energies= for an alloy without interstitial sites; expected energies of pairs alone; leave "
                "it out"
            )
        if clusters.carrier is not None:
            own = clusters.carrier.coefficients(interactions, site_energies, everywhere=cutoff is not None)
            coefficients[clusters.carrier_offset :] = own
        return cls(clusters, coefficients)

    @classmethod
    def fit(
        cls,
        states: States,
        energies: ArrayLike | None = None,
        *,
        network: JumpNetwork | None = None,
        delta_e: ArrayLike | None = None,
        valid: ArrayLike | None = None,
        cutoff: float | None = None,
        triplet_cutoff: float | None = None,
        energy_weight: float | None = None,
        ridge: float | None = None,
    ) -> PairEnergy:
        """Fit total energies of states and energy changes of their jumps together.

        Ridge regression; all that the data do not fix (the gauge of pair energies at fixed composition) is
        left at zero.

        Parameters
        ----------
        states
            Occupations and groups; related states stay together in cross-validation.
        energies : array_like, shape (n,), optional
            Relaxed energies, eV; not finite entries are left out.
        network
            Jumps; needed with ``delta_e`` and for interstitial alloys.
        delta_e : array_like, shape (n, J), optional
            Energy changes of the jumps, eV.
        valid : array_like of bool, shape (n, J), optional
            Which of them count.
        cutoff
            Longest pair, Å; default 2.01 times the shortest jump or bond.
        triplet_cutoff
            Distance from the carrier up to which atoms are counted in pairs, Å; 0: not at all. Default: the
            sites that the carrier can jump to and those hardly farther (12 in fcc, 14 in bcc); none without
            a network.
        energy_weight
            Weight of a squared error of a total energy relative to one of an energy change. Default: the
            ratio of the variances of the two kinds of residuals, found by iteration. Total energies scatter
            much more.
        ridge
            Penalty on the squared coefficients, no unit; default chosen by cross-validation over groups.

        Raises
        ------
        ModelError
            If ``delta_e`` is given without jumps.
        """
        change = None if delta_e is None else np.asarray(delta_e, dtype=float)
        if change is not None and network is None:
            raise ModelError("found delta_e without jumps; expected both; pass network=")
        weights = None if valid is None else np.asarray(valid, dtype=float)
        total = None if energies is None else np.asarray(energies, dtype=float)
        return cls.fit_sets(
            [EnergySet(states, network, total, change, weights)],
            cutoff=cutoff,
            triplet_cutoff=triplet_cutoff,
            energy_weight=energy_weight,
            ridge=ridge,
        )

    @classmethod
    def fit_sets(
        cls,
        sets: Sequence[EnergySet],
        *,
        cutoff: float | None = None,
        triplet_cutoff: float | None = None,
        energy_weight: float | None = None,
        ridge: float | None = None,
    ) -> PairEnergy:
        """Fit several sets of states on supercells of one lattice; see :meth:`fit`.

        Total energies count within each set only: their zero may differ from set to set.

        Parameters
        ----------
        sets
            States with energies, energy changes, or both.
        cutoff, triplet_cutoff, energy_weight, ridge
            As in :meth:`fit`.
        """
        clusters, ridge_fit, constant = fit_pairs(
            sets, cutoff=cutoff, triplet_cutoff=triplet_cutoff, energy_weight=energy_weight, ridge=ridge
        )
        return cls(clusters, ridge_fit.coefficients, constant, ridge_fit.report)

    def on(self, cell: Supercell) -> PairEnergy:
        """Use the energies on another supercell of the same lattice; its species may be a subset.

        Parameters
        ----------
        cell
            The other supercell.

        Raises
        ------
        ModelError
            If it holds a species that the model does not know.
        """
        new = self.clusters.on(cell)
        if cell.species == self.supercell.species:
            return replace(self, clusters=new)
        missing = [s for s in cell.species if s not in self.supercell.species]
        if missing:
            raise ModelError(
                f"the supercell holds {missing}, which the model does not know; expected species among "
                f"{self.supercell.species}; fit a model with these species"
            )
        codes = np.array([self.supercell.species.index(s) for s in cell.species])
        old = self.clusters
        coefficients = np.zeros(new.n_features)
        coefficients[new.site_columns] = self.coefficients[old.site_columns[:, codes]]
        pairs = old.pair_columns[:, :, codes[:, None], codes[None, :]]
        coefficients[new.pair_columns] = self.coefficients[pairs]
        if new.carrier is not None and old.carrier is not None:
            for to, of in zip(new.carrier.single_columns, old.carrier.single_columns, strict=True):
                coefficients[new.carrier_offset + to] = self.coefficients[old.carrier_offset + of[:, codes]]
                coefficients[new.carrier_offset + to[0, 0]] = self.coefficients[old.carrier_offset + of[0, 0]]
            for to, of in zip(new.carrier.triplet_columns, old.carrier.triplet_columns, strict=True):
                kept = of[:, codes[:, None], codes[None, :]]
                coefficients[new.carrier_offset + to] = self.coefficients[old.carrier_offset + kept]
        return PairEnergy(new, coefficients, self.constant, self.report)

    # -- tables ------------------------------

    @property
    def supercell(self) -> Supercell:
        """The supercell of the occupations."""
        return self.clusters.supercell

    @property
    def pair_energies(self) -> NDArray[np.float64]:
        """θ₂ by pair orbit, eV, shape (n_orbits, n_species, n_species)."""
        return self.coefficients[self.clusters.pair_columns[:, 0]]

    @cached_property
    def _pair(self) -> NDArray[np.float64]:
        return np.append(self.coefficients, 0.0)[self.clusters._column_of_pair]

    @cached_property
    def _difference(self) -> NDArray[np.float64]:
        """θ₂[new, around] − θ₂[old, around], flat over (2 n_orbits + 1, old, new, around)."""
        s = self.clusters.n_species
        v = self._pair.reshape(-1, s, s)
        return (v[:, None, :, :] - v[:, :, None, :]).ravel()

    @cached_property
    def _carrier(self) -> NDArray[np.float64]:
        """Coefficients of the carrier terms, and a zero for padding."""
        return np.append(self.coefficients[self.clusters.carrier_offset :], 0.0)

    @cached_property
    def _site(self) -> NDArray[np.float64]:
        """θ₁ by site class, with a last row of zeros for sites that do not vary."""
        found = self.coefficients[self.clusters.site_columns]
        return np.concatenate([found, np.zeros((1, self.clusters.n_species))])

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Arrays that, with the cutoff and the lattice, make the model again.

        Coefficients of shape (n_features,) and the constant, eV.
        """
        return {"coefficients": self.coefficients, "constant": np.array([self.constant])}

    @classmethod
    def from_arrays(cls, clusters: PairClusters, arrays: Mapping[str, NDArray]) -> PairEnergy:
        """Undo :meth:`to_arrays`.

        Parameters
        ----------
        clusters
            Sites and pairs of the same lattice and cutoff.
        arrays
            What :meth:`to_arrays` gave, same shapes.

        Raises
        ------
        ModelError
            If there are not as many coefficients as features.
        """
        coefficients = np.asarray(arrays["coefficients"], dtype=float)
        if coefficients.shape != (clusters.n_features,):
            raise ModelError(
                f"found {coefficients.shape} energy coefficients; expected ({clusters.n_features},) for this "
                f"lattice and cutoff; "
                "the model belongs to another lattice"
            )
        return cls(clusters, coefficients, float(np.asarray(arrays["constant"]).ravel()[0]))

    # -- energies ------------------------------

    def features(self, occupations: NDArray) -> NDArray[np.float64]:
        """Counts that the coefficients multiply, shape (n, n_features), no unit.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        """
        return self.clusters.features(occupations)

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        """Return energies of occupations, eV, shape (n,).

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.

        Raises
        ------
        ModelError
            If the occupations are those of another supercell.
        """
        occ = self._checked(occupations)
        clusters, s = self.clusters, self.clusters.n_species
        basis = self.supercell.basis_index
        kind = clusters.table.site_class[basis]
        varying = np.flatnonzero(kind >= 0)
        base = clusters.pair_index[basis[varying]] * s * s
        partners = clusters.neighbors[varying]
        result = np.empty(len(occ))
        step = max(1, CHUNK // max(1, partners.size))
        for start in range(0, len(occ), step):
            part = occ[start : start + step].astype(np.int64)
            here = part[:, varying]
            pairs = self._pair[base[None] + here[:, :, None] * s + part[:, partners]]
            result[start : start + step] = 0.5 * pairs.sum(axis=(1, 2)) + self._site[kind[varying][None], here].sum(
                axis=1
            )
            if clusters.carrier is not None:
                carriers = clusters.carrier.carriers(part)
                columns = clusters.carrier.columns(part, carriers, np.arange(len(part)))
                result[start : start + step] += self._carrier[columns].sum(axis=1)
        return result + self.constant

    def swap_delta(self, occupations: NDArray, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
        """Return the energy change, eV, shape (n,), when each state exchanges the occupants of two sites.

        Cost: the neighbours of the two sites, whatever the size of the cell.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        first, second : array_like of int, shape (n,)
            The two sites of each state.

        Raises
        ------
        ModelError
            If the occupations are those of another supercell.
        """
        occ = self._checked(occupations)
        p, q = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        return self._swap(occ, np.arange(len(occ)), p, q)

    def swap_rows(
        self, occupations: NDArray, rows: NDArray, first: NDArray, second: NDArray, carriers: NDArray
    ) -> NDArray[np.float64]:
        """Return the energy change, eV, shape (m,), when some states exchange the occupants of two sites each.

        As :meth:`swap_delta`, without a copy of these states and without a search of their carriers: the cost does
        not grow with the cell.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site, of all states.
        rows : ndarray of int, shape (m,)
            The states that exchange.
        first, second : ndarray of int, shape (m,)
            The two sites of each of them.
        carriers : ndarray of int, shape (m,)
            Their carriers.

        Raises
        ------
        ModelError
            If the occupations are those of another supercell.
        """
        return self._swap(self._checked(occupations), rows, first, second, carriers)

    def jump_delta(self, occupations: NDArray, carriers: ArrayLike, network: JumpNetwork) -> NDArray[np.float64]:
        """Return the energy change of every jump, eV, shape (n, J); 0 where there is no jump.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        network
            The jumps.

        Raises
        ------
        ModelError
            If the occupations are those of another supercell.
        """
        occ, c = np.ascontiguousarray(self._checked(occupations)), np.asarray(carriers, dtype=np.int64)
        result = np.zeros((len(occ), network.n_jumps))
        step = max(1, CHUNK // 4 // (network.n_jumps * max(1, self.clusters.table.partner.shape[1])))
        table = self._swap_table(network)
        for start in range(0, len(occ), step):
            part = slice(start, start + step)
            result[part] = self._jumps(occ[part], c[part], network, table)
        return result

    def _jumps(self, occ: NDArray, c: NDArray, network: JumpNetwork, table: NDArray) -> NDArray[np.float64]:
        clusters, s, cell = self.clusters, self.clusters.n_species, self.supercell
        kinds, rows = clusters.table.site_class, np.arange(len(occ))
        targets = network.targets(c)
        exists = targets >= 0
        t = np.where(exists, targets, c[:, None])
        flat, origin = occ.reshape(-1), rows * occ.shape[1]
        own = flat[origin + c].astype(np.int64)  # what sits on the site of the carrier: nothing, or an interstitial
        moved = flat[origin[:, None] + t].astype(np.int64)
        here, there = c % cell.alloy.n_basis, t % cell.alloy.n_basis
        result = self._site[kinds[here][:, None], moved] - self._site[kinds[here], own][:, None]
        result += self._site[kinds[there], own[:, None]] - self._site[kinds[there], moved]
        # around the carrier, for every species that could come: one sum serves all jumps
        around = flat[origin[:, None] + clusters.partners(c)]
        level = self._by_partner[clusters.pair_index[here] * s + around].sum(axis=1)
        result += level[rows[:, None], moved] - level[rows, own][:, None]
        around = flat[origin[:, None, None] + clusters.partners(t)]
        first = (clusters.pair_index[there] * s + moved[..., None]) * s + own[:, None, None]
        result += self._difference[first * s + around].sum(axis=2)
        result += table[here[:, None], np.arange(t.shape[1]), own[:, None], moved]
        if clusters.carrier is not None:
            i, k = np.nonzero(exists)
            before = self._carrier[clusters.carrier.columns(occ, c, rows)].sum(axis=1)
            after = clusters.carrier.columns(occ, t[i, k], i, (c[i], t[i, k]))
            result[i, k] += self._carrier[after].sum(axis=1) - before[i]
        return np.where(exists, result, 0.0)

    @cached_property
    def _by_partner(self) -> NDArray[np.float64]:
        """θ₂ as (2 n_orbits + 1) · around rows of one column per species."""
        s = self.clusters.n_species
        return np.ascontiguousarray(self._pair.reshape(-1, s, s).transpose(0, 2, 1)).reshape(-1, s)

    def _swap_table(self, network: JumpNetwork) -> NDArray[np.float64]:
        """What the two exchanged sites add by being neighbours of each other, shape (n_basis, J, S, S).

        By basis site and jump, occupant of the carrier's site and of the target: their sums over neighbours take the
        old occupants for the new ones, and count their pair twice.
        """
        key = network.fingerprint
        known = self.__dict__.setdefault("_tables", {})
        if key not in known:
            clusters, s = self.clusters, self.clusters.n_species
            value = self._pair.reshape(-1, s, s)
            one, two = np.meshgrid(np.arange(s), np.arange(s), indexing="ij")
            found = np.zeros((*network.exists.shape, s, s))
            for b, k in np.argwhere(network.exists):
                ends = (int(b), int(network.targets(np.array([b]))[0, k]))
                for site, old, new in ((ends[0], one, two), (ends[1], two, one)):
                    basis = site % self.supercell.alloy.n_basis
                    partners = clusters.partners(np.array([site]))[0]
                    for n in np.flatnonzero(np.isin(partners, ends)):
                        before, after = (one, two) if partners[n] == ends[0] else (two, one)
                        v = value[clusters.pair_index[basis, n]]
                        right = 0.5 * (v[new, after] - v[old, before])
                        found[b, k] += right - (v[new, before] - v[old, before])
            known[key] = found
        return known[key]

    def _swap(
        self, occ: NDArray, rows: NDArray, first: NDArray, second: NDArray, carriers: NDArray | None = None
    ) -> NDArray[np.float64]:
        clusters, s = self.clusters, self.clusters.n_species
        n_basis = self.supercell.alloy.n_basis
        kinds = clusters.table.site_class
        n_sites = occ.shape[1]
        flat = np.ascontiguousarray(occ).reshape(-1)
        origin = rows * n_sites
        a, b = flat[origin + first].astype(np.int64), flat[origin + second].astype(np.int64)
        result = np.zeros(len(rows))
        table, pair = self._difference, self._pair
        for site, old, new in ((first, a, b), (second, b, a)):
            basis = site % n_basis
            result += self._site[kinds[basis], new] - self._site[kinds[basis], old]
            partners = clusters.partners(site)
            base = clusters.pair_index[basis]
            around = flat[origin[:, None] + partners]
            result += table[((base * s + old[:, None]) * s + new[:, None]) * s + around].sum(axis=1)
            # A partner that is one of the two sites changes too; its pair is in both lists (or twice in one).
            i, n = np.nonzero((partners == first[:, None]) | (partners == second[:, None]))
            if len(i):
                before = around[i, n].astype(np.int64)
                after = np.where(first[i] == second[i], before, np.where(partners[i, n] == first[i], b[i], a[i]))
                k = base[i, n]
                right = 0.5 * (pair[(k * s + new[i]) * s + after] - pair[(k * s + old[i]) * s + before])
                wrong = pair[(k * s + new[i]) * s + before] - pair[(k * s + old[i]) * s + before]
                result += np.bincount(i, right - wrong, minlength=len(rows))
        if clusters.carrier is not None:
            start = clusters.carrier.carriers(occ)[rows] if carriers is None else carriers
            near = np.flatnonzero(clusters.carrier.touched(start, first, second))
            if len(near):
                p, q, c = first[near], second[near], start[near]
                end = np.where(c == p, q, np.where(c == q, p, c))
                before = clusters.carrier.columns(occ, c, rows[near])
                after = clusters.carrier.columns(occ, end, rows[near], (p, q))
                result[near] += self._carrier[after].sum(axis=1) - self._carrier[before].sum(axis=1)
        return result

    def _checked(self, occupations: NDArray) -> NDArray:
        occ = np.asarray(occupations)
        if occ.ndim != 2 or occ.shape[1] != self.supercell.n_sites:
            raise ModelError(
                f"found occupations of shape {occ.shape}; expected (n, {self.supercell.n_sites}), the sites "
                f"of the model's "
                "supercell; move the model with .on(supercell)"
            )
        return occ
