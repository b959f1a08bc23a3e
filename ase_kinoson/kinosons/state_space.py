"""State spaces small enough to enumerate.

States that differ by a translation of the supercell are one state: the carrier sits in the first primitive cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True, eq=False)
class StateSpace:
    """All states of a supercell, with the graph of jumps between them.

    Attributes
    ----------
    network : JumpNetwork
    occupations : ndarray of int8, shape (n_states, n_sites)
    carriers : ndarray of int, shape (n_states,)
    next_state : ndarray of int, shape (n_states, J)
        State after each jump, −1 where there is none.
    """

    network: JumpNetwork
    occupations: NDArray[np.int8]
    carriers: NDArray[np.int64]
    next_state: NDArray[np.int64]

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
        rows, carriers = [], []
        code = {s: i for i, s in enumerate(cell.species)}
        for start in starts:
            parts = []
            for sites, c, pool_carrier in pools:
                free = sites[sites != start] if pool_carrier else sites
                parts.append((free, list(_multiset(len(free), {code[s]: n for s, n in c.items() if n}))))
            for choice in itertools.product(*(p for _, p in parts)):
                row = np.zeros(cell.n_sites, dtype=np.int8)
                for (free, _), values in zip(parts, choice, strict=True):
                    row[free] = values
                if alloy.is_interstitial:
                    row[start] = code[_interstitial_species(cell)]
                rows.append(row)
                carriers.append(start)
        occupations = np.array(rows, dtype=np.int8)
        return cls._link(network, occupations, np.array(carriers, dtype=np.int64))

    @classmethod
    def _link(cls, network: JumpNetwork, occupations: NDArray, carriers: NDArray) -> StateSpace:
        cell = network.supercell
        rng = np.random.default_rng(12345)
        table = rng.integers(0, 2**64, size=(cell.n_sites, len(cell.species) + 1), dtype=np.uint64)
        marks = rng.integers(0, 2**64, size=cell.n_sites, dtype=np.uint64)
        sites = np.arange(cell.n_sites)

        def key(occ: NDArray, carrier: NDArray) -> NDArray[np.uint64]:
            values = marks[carrier].copy()
            for s in sites:
                values += table[s, occ[:, s]]
            return values

        keys = key(occupations, carriers)
        order = np.argsort(keys)
        ordered = keys[order]
        if np.any(ordered[1:] == ordered[:-1]):  # pragma: no cover - 64-bit hash
            raise KinosonError("two states share one hash; expected distinct states; report this cell")
        next_state = np.full((len(keys), network.n_jumps), -1, dtype=np.int64)
        for start in np.unique(carriers):
            own = np.flatnonzero(carriers == start)
            targets = network.targets(np.array([start]))[0]
            for k in np.flatnonzero(targets >= 0):
                moved, carrier = network.apply(occupations[own], carriers[own], np.full(len(own), k))
                shift = cell.cell_coordinates(targets[k] // cell.alloy.n_basis)
                moved = moved[:, cell.translate(sites, shift)]
                carrier = carrier % cell.alloy.n_basis
                found = order[np.minimum(np.searchsorted(ordered, key(moved, carrier)), len(order) - 1)]
                next_state[own, k] = found
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
        if ensemble != "quenched" or self.network.mechanism != "vacancy":
            raise KinosonError(
                f"found ensemble {ensemble!r} for a {self.network.mechanism}; expected 'equilibrium', 'random', "
                "or 'quenched' for "
                "vacancies; choose one"
            )
        cell = self.network.supercell
        result = np.zeros(len(self))
        images: list[NDArray] = []
        full = self._key_lookup()
        for site in cell.mobile_sites:
            moved = self.occupations.copy()
            rows = np.arange(len(self))
            moved[rows, self.carriers], moved[rows, site] = self.occupations[:, site], 0
            images.append(full(moved, np.full(len(self), site)))
        table = np.array(images)
        share = boltzmann[table]
        share /= share.sum(axis=0)
        np.add.at(result, table.ravel(), share.ravel())
        return result / result.sum()

    def _key_lookup(self) -> Any:
        cell = self.network.supercell
        index = {
            (int(c), row.tobytes()): i for i, (c, row) in enumerate(zip(self.carriers, self.occupations, strict=True))
        }
        sites = np.arange(cell.n_sites)

        def find(occ: NDArray, carriers: NDArray) -> NDArray[np.int64]:
            found = np.empty(len(occ), dtype=np.int64)
            for i, (row, c) in enumerate(zip(occ, carriers, strict=True)):
                shift = cell.cell_coordinates(c // cell.alloy.n_basis)
                found[i] = index[(int(c % cell.alloy.n_basis), row[cell.translate(sites, shift)].tobytes())]
            return found

        return find

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


def _multiset(n_sites: int, counts: Mapping[int, int]) -> Iterator[NDArray[np.int8]]:
    """All arrangements of species codes on ``n_sites`` sites; sites left over are empty."""
    order = sorted(counts.items(), key=lambda item: -item[1])
    if sum(counts.values()) == n_sites and order:
        fill, order = order[0][0], order[1:]
    else:
        fill = 0

    def place(values: NDArray, left: list[tuple[int, int]]) -> Iterator[NDArray]:
        if not left:
            yield values
            return
        code, n = left[0]
        free = np.flatnonzero(values == -1)
        for chosen in itertools.combinations(free, n):
            new = values.copy()
            new[list(chosen)] = code
            yield from place(new, left[1:])

    for values in place(np.full(n_sites, -1, dtype=np.int8), order):
        done = values.copy()
        done[done == -1] = fill
        yield done
