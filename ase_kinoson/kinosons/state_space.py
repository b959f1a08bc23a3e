"""State spaces small enough to enumerate.

States that differ by a translation of the supercell are one state: the carrier sits in the first primitive cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.rates import Rates

__all__ = ["StateSpace", "mobile_counts"]

CHUNK = 2**16
"""States treated at a time; bounds memory."""


@dataclass(frozen=True, eq=False)
class StateSpace:
    """All states of a supercell, with the graph of jumps between them.

    Attributes
    ----------
    network : JumpNetwork
    occupations : ndarray of int8, shape (n_states, n_sites)
    carriers : ndarray of int, shape (n_states,)
    next_state : ndarray of int32, shape (n_states, J)
        State after each jump, −1 where there is none.
    """

    network: JumpNetwork
    occupations: NDArray[np.int8]
    carriers: NDArray[np.int64]
    next_state: NDArray[np.int32]

    @classmethod
    def enumerate(
        cls, network: JumpNetwork, *, counts: Mapping[str, int] | None = None, limit: int = 5_000_000
    ) -> StateSpace:
        """List all arrangements.

        Parameters
        ----------
        network
            Jumps and supercell.
        counts
            Atoms of each species on the mobile sites; default from the composition of the alloy.
        limit
            Largest number of states allowed.

        Raises
        ------
        KinosonError
            If there are more states than ``limit`` or the counts do not fill the sites.
        """
        cell = network.supercell
        alloy = cell.alloy
        pools = _pools(cell, counts)
        starts = np.flatnonzero(alloy.mobile_basis)
        total = len(starts) * prod(_arrangements(len(sites) - pool_carrier, c) for sites, c, pool_carrier in pools)
        if total > limit:
            raise KinosonError(
                f"the cell has {total} states; expected at most {limit} to enumerate; use a smaller cell or run "
                "trajectories"
            )
        parts, carriers = [], []
        code = {s: i for i, s in enumerate(cell.species)}
        for start in starts:
            block = np.zeros((1, cell.n_sites), dtype=np.int8)
            for sites, c, pool_carrier in pools:
                free = sites[sites != start] if pool_carrier else sites
                choices = _multiset(len(free), {code[s]: n for s, n in c.items() if n})
                n_before = len(block)
                block = np.repeat(block, len(choices), axis=0)
                block[:, free] = np.tile(choices, (n_before, 1))
            if alloy.is_interstitial:
                block[:, start] = code[_interstitial_species(cell)]
            parts.append(block)
            carriers.append(np.full(len(block), start, dtype=np.int64))
        occupations = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return cls._link(network, occupations, np.concatenate(carriers))

    @classmethod
    def _link(cls, network: JumpNetwork, occupations: NDArray, carriers: NDArray) -> StateSpace:
        n_basis = network.supercell.alloy.n_basis
        lookup = _Lookup.build(network.supercell, occupations, carriers)
        next_state = np.full((len(carriers), network.n_jumps), -1, dtype=np.int32)
        linked = ~network.exists
        for start in np.unique(carriers):
            own = np.flatnonzero(carriers == start)
            for k, target in enumerate(network.targets(np.array([start]))[0]):
                if linked[start, k]:
                    continue
                found = lookup.exchange(own, int(target))
                next_state[own, k] = found
                # every jump has its reverse: one look-up serves both
                end, back = int(target) % n_basis, network.reverse[start, k]
                next_state[found, back] = own
                linked[start, k] = linked[end, back] = True
        return cls(network, occupations, carriers, next_state)

    def __len__(self) -> int:
        return len(self.occupations)

    def weights(self, rates: Rates, *, ensemble: str = "equilibrium") -> NDArray[np.float64]:
        """Return exact weights of the states, shape (n_states,), normalised.

        ``"equilibrium"``: Boltzmann weights. ``"random"``: equal weights. ``"quenched"``: a random arrangement with
        the vacancy
        on site c0; the vacancy is then moved to site i by exchanging it with the occupant of i, with probability
        proportional
        to the Boltzmann weight of the result, over all mobile i (vacancy mechanism only).
        """
        if ensemble == "random":
            return np.full(len(self), 1.0 / len(self))
        logs = rates.log_weights(self.occupations)
        boltzmann = np.exp(logs - logs.max())
        if ensemble == "equilibrium":
            return boltzmann / boltzmann.sum()
        if ensemble != "quenched":
            raise KinosonError(
                f"found ensemble {ensemble!r}; expected 'equilibrium', 'random' or 'quenched'; choose one"
            )
        lookup = _Lookup.build(self.network.supercell, self.occupations, self.carriers)
        sites = self.network.supercell.mobile_sites
        images = np.empty((len(sites), len(self)), dtype=np.int32)
        total = np.zeros(len(self))
        groups = [np.flatnonzero(self.carriers == start) for start in np.unique(self.carriers)]
        for own in groups:
            for image, site in zip(images, sites, strict=True):
                image[own] = lookup.exchange(own, int(site))
                total[own] += boltzmann[image[own]]
        result = sum(np.bincount(image, weights=boltzmann[image] / total, minlength=len(self)) for image in images)
        return np.asarray(result) / np.sum(result)

    def jump_cells(self) -> NDArray[np.int64]:
        """Displacements of every jump in primitive cells, shape (n_states, J, n_species, 3).

        What the basis adds is the change of a function of the state, the sum of the basis positions of the atoms of a
        species, and drops out of every coefficient. Whole numbers close rings without rounding.
        """
        network = self.network
        mover = network.moving_species(self.occupations, self.carriers)
        sign = 1 if network.mechanism == "interstitial" else -1
        cells = np.zeros((*mover.shape, len(network.supercell.species) - 1, 3), dtype=np.int64)
        row, k = np.nonzero(mover > 0)
        cells[row, k, mover[row, k] - 1] = sign * network.target_cell[network.basis_of(self.carriers)[row], k]
        return cells

    def states(self, weights: NDArray, **about: Any) -> States:
        """All states as :class:`States` with the given weights."""
        about.setdefault("source", "enumerated")
        return States.from_occupations(
            self.network.supercell, self.occupations, carriers=self.carriers, weights=weights, **about
        )


def _interstitial_species(cell: Supercell) -> str:
    return next(s.species[0] for s in cell.alloy.sublattices if s.interstitial)


def mobile_counts(cell: Supercell, counts: Mapping[str, int] | None) -> dict[str, int]:
    """Atoms of each species on the mobile sites next to one vacancy; given ones are checked.

    Raises
    ------
    KinosonError
        If the given counts do not fill the sites.
    """
    total: dict[str, int] = {}
    for sub, own in zip(cell.alloy.sublattices, cell.counts, strict=True):
        if sub.mobile and not sub.interstitial:
            for s, n in own.items():
                total[s] = total.get(s, 0) + n
    if counts is None:
        return total
    n_sites = len(cell.mobile_sites) - 1
    if sum(counts.values()) != n_sites or min(counts.values()) < 0:
        raise KinosonError(
            f"found counts {dict(counts)}, {sum(counts.values())} atoms; expected {n_sites} on the mobile sites "
            "next to one "
            "vacancy; correct them"
        )
    return dict(counts)


def _pools(cell: Supercell, counts: Mapping[str, int] | None) -> list[tuple[NDArray, dict[str, int], bool]]:
    """Groups of sites whose occupants permute: the mobile sites (with the carrier), and each fixed sublattice."""
    pools: list[tuple[NDArray, dict[str, int], bool]] = []
    if not cell.alloy.is_interstitial:
        pools.append((cell.mobile_sites, mobile_counts(cell, counts), True))
    for i, (sub, own) in enumerate(zip(cell.alloy.sublattices, cell.counts, strict=True)):
        if not sub.mobile:
            pools.append((np.flatnonzero(cell.sublattice == i), own, False))
    return pools


def _arrangements(n_sites: int, counts: Mapping[str, int]) -> int:
    total, left = 1, n_sites
    for n in counts.values():
        total, left = total * comb(left, n), left - n
    return total


def _multiset(n_sites: int, counts: Mapping[int, int]) -> NDArray[np.int8]:
    """All arrangements of species codes on ``n_sites`` sites, one per row; sites left over are empty.

    The most frequent species fills what the others leave; those are placed one after the other, each in
    lexicographic order.
    """
    order = sorted(counts.items(), key=lambda item: -item[1])
    fill = 0
    if sum(counts.values()) == n_sites and order:
        (fill, _), *order = order
    rows = np.full((1, n_sites), -1, dtype=np.int8)
    for code, n in order:
        free = _columns(rows == -1)
        chosen = _combinations(free.shape[1], n)
        rows = np.repeat(rows, len(chosen), axis=0)
        where = np.arange(len(rows))
        for column in chosen.T:
            rows[where, free[:, column].ravel()] = code
    rows[rows == -1] = fill
    return rows


def _combinations(n: int, k: int) -> NDArray[np.int32]:
    """All choices of ``k`` of ``n`` indices in lexicographic order, shape (n choose k, k)."""
    chosen = np.zeros((1, 0), dtype=np.int32)
    for taken in range(k):
        first = chosen[:, -1] + 1 if taken else np.zeros(1, dtype=np.int32)
        # the next index leaves room for those still to come
        room = n - (k - taken) + 1 - first
        ends = np.cumsum(room)
        step = np.arange(ends[-1], dtype=np.int64) - np.repeat(ends - room, room)
        chosen = np.column_stack([np.repeat(chosen, room, axis=0), np.repeat(first, room) + step]).astype(np.int32)
    return chosen


def _columns(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Columns of the entries that are True, equally many in every row, shape (n_rows, n_true)."""
    n_true = int(mask[0].sum())
    found = np.empty((len(mask), n_true), dtype=np.int32)
    for begin in range(0, len(mask), CHUNK):
        part = mask[begin : begin + CHUNK]
        found[begin : begin + CHUNK] = np.nonzero(part)[1].reshape(len(part), n_true)
    return found


@dataclass(frozen=True, eq=False)
class _Lookup:
    """Finds states by a sum of one random number per site and occupant; translations permute the numbers.

    The most frequent occupant of a site counts as 0, so that only the other sites have to be summed.

    Attributes
    ----------
    cell : Supercell
    occupations, carriers : ndarray
        All states.
    slots : ndarray of int, shape (n_states, n_marked)
        ``site * n_codes + code`` of the sites with another occupant than the most frequent one.
    table : ndarray of uint64, shape (n_sites, n_codes)
    keys : ndarray of uint64, shape (n_states,)
        Sorted.
    order : ndarray of int, shape (n_states,)
        State of each key.
    """

    cell: Supercell
    occupations: NDArray[np.int8]
    carriers: NDArray[np.int64]
    slots: NDArray[np.int32]
    table: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    order: NDArray[np.int64]

    @classmethod
    def build(cls, cell: Supercell, occupations: NDArray, carriers: NDArray) -> _Lookup:
        n_codes = int(occupations.max()) + 1
        table = np.random.default_rng(12345).integers(0, 2**64, size=(cell.n_sites, n_codes), dtype=np.uint64)
        common = np.zeros(cell.n_sites, dtype=np.int8)
        mobile = np.isin(np.arange(cell.n_sites), cell.mobile_sites)
        for pool in [mobile, *(cell.sublattice == i for i in np.unique(cell.sublattice[~mobile]))]:
            common[pool] = np.bincount(occupations[0, pool]).argmax()
        table[np.arange(cell.n_sites), common] = 0
        sites = _columns(occupations != common)
        slots = (sites * n_codes + np.take_along_axis(occupations, sites, axis=1)).astype(np.int32)
        keys = _sums(table, slots)
        order = np.argsort(keys)
        keys = keys[order]
        if np.any(keys[1:] == keys[:-1]):  # pragma: no cover - 64-bit hash
            raise KinosonError("two states share one hash; expected distinct states; report this cell")
        return cls(cell, occupations, carriers, slots, table, keys, order)

    def exchange(self, rows: NDArray, target: int) -> NDArray[np.int64]:
        """States after the carrier of each given state, on one site for all, exchanged places with ``target``."""
        start, cell = int(self.carriers[rows[0]]), self.cell
        shift = cell.cell_coordinates(target // cell.alloy.n_basis)
        table = np.empty_like(self.table)
        table[cell.translate(np.arange(cell.n_sites), shift)] = self.table
        here, there = self.occupations[rows, start], self.occupations[rows, target]
        key = _sums(table, self.slots[rows])
        key += table[start, there] + table[target, here] - table[start, here] - table[target, there]
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        if np.any(self.keys[place] != key):  # pragma: no cover - the list of states is complete
            raise KinosonError("a jump leads to a state that is not listed; expected all states; report this cell")
        return self.order[place]


def _sums(table: NDArray[np.uint64], slots: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Sum of the table over the slots of each state, modulo 2⁶⁴, shape (n_states,)."""
    flat, total = table.ravel(), np.zeros(len(slots), dtype=np.uint64)
    for column in slots.T:
        total += flat[column]
    return total
