"""Compiled loop of Metropolis exchanges with the energies of a :class:`PairEnergy`.

Eight chains at a time make all their attempts, so that their states stay in the cache of the processor. Pair energies
and carrier terms are added in the order in which NumPy adds them: states and energies are those of the NumPy step, to
the last bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.vector_loops import borrowed
from ase_kinoson.compiled import compiled
from ase_kinoson.kinetics.exchange_tables import Attempts, CarrierTables, PairTables, carrier_tables, pair_tables
from ase_kinoson.kinetics.loops import TILE, over_walkers

__all__ = ["ExchangeLoop", "Scratch", "carrier_terms", "choose", "near", "pair_change"]

CHAINS = 8
"""Chains that advance together: their random numbers fill one line of the cache."""


class Scratch(NamedTuple):
    """Room of one thread for one call, and what it counts.

    Attributes
    ----------
    values, stack : ndarray
        Energies that are added up, and sums of parts of them, eV.
    corner : ndarray of uint64
        Occupants around a carrier.
    known : ndarray, shape (CHAINS,)
        Terms of the carriers of the chains that advance together, eV.
    counts : ndarray of int64, shape (2, 2)
        Exchanges of unlike occupants that were tried and accepted, each without and with moves of the carrier.
    """

    values: NDArray[np.float64]
    stack: NDArray[np.float64]
    corner: NDArray[np.uint64]
    known: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: PairTables, terms: CarrierTables) -> Scratch:
        """Make room for a model.

        Parameters
        ----------
        pairs, terms
            The model.
        """
        return cls(
            np.zeros(max(8, pairs.ends[-1], terms.ends[-1])),
            np.zeros(64),
            np.zeros(max(1, terms.corners.shape[1]), dtype=np.uint64),
            np.zeros(CHAINS),
            np.zeros((2, 2), dtype=np.int64),
        )


class ExchangeLoop:
    """Loop of the exchanges of one :class:`PairEnergy`. Make one with :meth:`of`.

    Parameters
    ----------
    pairs
        Pair energies.
    terms
        Terms of the carrier.
    """

    least = 4096
    """Attempts below which a second thread costs more than it brings."""

    def __init__(self, pairs: PairTables, terms: CarrierTables) -> None:
        self.pairs, self.terms = pairs, terms

    @classmethod
    def of(cls, energy: PairEnergy) -> ExchangeLoop | None:
        """Return the loop of an energy model.

        Parameters
        ----------
        energy
            On the supercell of the chains.

        Returns
        -------
        ExchangeLoop or None
            None for cells whose tables would be too large.
        """
        pairs, terms = pair_tables(energy), carrier_tables(energy)
        return None if pairs is None or terms is None else cls(pairs, terms)

    def run(
        self,
        occupations: NDArray[np.int8],
        carriers: NDArray[np.int64],
        energies: NDArray[np.float64],
        attempts: Attempts,
    ) -> NDArray[np.int64]:
        """Attempt exchanges in all chains; states, carriers and energies change in place.

        Results do not depend on the number of threads.

        Parameters
        ----------
        occupations : ndarray of int8, shape (n_chains, n_sites)
            Species code of every site.
        carriers : ndarray of int64, shape (n_chains,)
            Site of each carrier.
        energies : ndarray, shape (n_chains,)
            eV.
        attempts
            Their random numbers.

        Returns
        -------
        ndarray of int64, shape (2, 2)
            Exchanges of unlike occupants that were tried and accepted, each without and with moves of the carrier.
        """
        codes = occupations.view(np.uint8)
        # slices begin at multiples of CHAINS chains
        scale = TILE // CHAINS
        least = scale * max(1, self.least // max(1, len(attempts.kind)))
        found = over_walkers(
            lambda begin, end: self._advance(attempts, codes, carriers, energies, begin // scale, end // scale),
            scale * len(carriers),
            least=least,
        )
        return np.sum(found, axis=0)

    def _advance(
        self, attempts: Attempts, codes: NDArray, carriers: NDArray, energies: NDArray, first: int, last: int
    ) -> NDArray[np.int64]:
        scratch = Scratch.of(self.pairs, self.terms)
        _pair_chains(self.pairs, self.terms, scratch, attempts, codes, carriers, energies, first, last)
        return scratch.counts


@compiled(inline="always", error_model="numpy")
def _total(values: NDArray, ends: NDArray, joins: NDArray, stack: NDArray) -> float:
    """Sum of numbers in the order of NumPy."""
    depth = np.uint64(0)
    one = np.uint64(1)
    for leaf in range(len(joins)):
        at, n = np.uint64(ends[leaf]), np.uint64(ends[leaf + 1] - ends[leaf])
        if n < 8:
            found = 0.0
            for i in range(n):
                found += values[at + i]
        else:
            r0, r1, r2, r3 = values[at], values[at + 1], values[at + 2], values[at + 3]
            r4, r5, r6, r7 = values[at + 4], values[at + 5], values[at + 6], values[at + 7]
            whole = n - n % np.uint64(8)
            for i in range(np.uint64(8), whole, np.uint64(8)):
                k = at + i
                r0 += values[k]
                r1 += values[k + 1]
                r2 += values[k + 2]
                r3 += values[k + 3]
                r4 += values[k + 4]
                r5 += values[k + 5]
                r6 += values[k + 6]
                r7 += values[k + 7]
            found = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
            for i in range(whole, n):
                found += values[at + i]
        stack[depth] = found
        depth += one
        for _ in range(joins[leaf]):
            depth -= one
            stack[depth - one] += stack[depth]
    return stack[0]


@compiled(inline="always", error_model="numpy")
def pair_change(pairs: PairTables, codes: NDArray, p: Any, q: Any, a: Any, b: Any, scratch: Scratch) -> float:
    """Change of site and pair energies, eV, when sites p and q exchange their occupants a and b; as ``_swap``."""
    n_basis, s = np.uint64(len(pairs.kind)), np.uint64(pairs.level.shape[1])
    n = np.uint64(pairs.partners.shape[1])
    values, delta = scratch.values, 0.0
    partners, kind, block, level = pairs.partners, pairs.kind, pairs.block, pairs.level
    difference, pair = pairs.difference, pairs.pair
    for end in range(2):
        site, old, new = (p, a, b) if end == 0 else (q, b, a)
        basis = site % n_basis if n_basis > 1 else np.uint64(0)
        delta += level[basis, new] - level[basis, old]
        offset = (old * s + new) * s
        for i in range(n):
            values[i] = difference[offset + np.uint64(block[basis, i]) + np.uint64(codes[np.uint64(partners[site, i])])]
        delta += _total(values, pairs.ends, pairs.joins, scratch.stack)
        if near(partners, site, p, q):
            # a partner that is one of the two sites changes too; its pair is in both lists (or twice in one)
            extra = 0.0
            for i in range(n):
                other = np.uint64(partners[site, i])
                if other == p or other == q:
                    before = np.uint64(codes[other])
                    after = b if other == p else a
                    of_new, of_old = (kind[basis, i] * s + new) * s, (kind[basis, i] * s + old) * s
                    right = 0.5 * (pair[of_new + after] - pair[of_old + before])
                    extra += right - (pair[of_new + before] - pair[of_old + before])
            delta += extra
    return delta


@compiled(inline="always", error_model="numpy")
def near(table: NDArray, site: Any, p: Any, q: Any) -> bool:
    """Whether one of two sites is in the row of a site."""
    found = False
    for i in range(table.shape[1]):
        other = np.uint32(table[site, i])
        found |= (other == np.uint32(p)) | (other == np.uint32(q))
    return found


@compiled(inline="always", error_model="numpy")
def carrier_terms(terms: CarrierTables, codes: NDArray, site: Any, scratch: Scratch) -> float:
    """Terms of a carrier on a site, eV."""
    n_basis, s = np.uint64(len(terms.own)), np.uint64(terms.single.shape[2])
    basis = site % n_basis if n_basis > 1 else np.uint64(0)
    values, corner, singles, corners = scratch.values, scratch.corner, terms.singles, terms.corners
    m = np.uint64(0)
    if terms.alone:
        values[0] = terms.own[basis]
        m = np.uint64(1)
        for i in range(np.uint64(singles.shape[1])):
            values[m + i] = terms.single[basis, i, codes[np.uint64(singles[site, i])]]
        m += np.uint64(singles.shape[1])
    for i in range(np.uint64(corners.shape[1])):
        corner[i] = codes[np.uint64(corners[site, i])]
    kind, ends, table = terms.corner_kind, terms.corner_ends, terms.corner
    for i in range(np.uint64(kind.shape[1])):
        one, two = corner[ends[basis, i, 0]], corner[ends[basis, i, 1]]
        values[m + i] = table[(kind[basis, i] * s + one) * s + two]
    return _total(values, terms.ends, terms.joins, scratch.stack)


@compiled(inline="always", error_model="numpy")
def choose(attempts: Attempts, t: int, chain: Any, carrier: Any) -> tuple[bool, Any, Any]:
    """Whether the carrier moves, and the two sites of an attempt."""
    aim = np.uint64(attempts.mobile[np.uint64(attempts.aim[t, chain])])
    if attempts.kind[t, chain] < attempts.share:
        return True, carrier, aim
    i = np.uint64(attempts.first[t, chain])
    j = attempts.start[i] + np.int64(np.floor(attempts.second[t, chain] * attempts.size[i]))
    return False, np.uint64(attempts.sites[i]), np.uint64(attempts.sites[np.uint64(j)])


@compiled(error_model="numpy")
def _pair_chains(
    pairs: PairTables, terms: CarrierTables, scratch: Scratch, attempts: Attempts, occupations: NDArray,
    carriers: NDArray, energies: NDArray, first: int, last: int,
) -> None:  # fmt: skip
    """Attempts of chains first … last − 1; what was tried and accepted is counted in ``scratch``."""
    pairs, terms, scratch, attempts = borrowed((pairs, terms, scratch, attempts))
    occupations, carriers, energies = borrowed((occupations, carriers, energies))
    counts, known = scratch.counts, scratch.known
    has_terms = terms.ends[-1] > 0
    for start in range(first, last, CHAINS):
        stop = min(start + CHAINS, last)
        if has_terms:
            for chain in range(start, stop):
                known[chain - start] = carrier_terms(terms, occupations[chain], np.uint64(carriers[chain]), scratch)
        for t in range(len(attempts.kind)):
            for chain in range(start, stop):
                codes, carrier = occupations[chain], np.uint64(carriers[chain])
                moves, p, q = choose(attempts, t, chain, carrier)
                a, b = np.uint64(codes[p]), np.uint64(codes[q])
                if a == b:
                    continue
                delta = pair_change(pairs, codes, p, q, a, b, scratch)
                end = q if carrier == p else p if carrier == q else carrier
                codes[p], codes[q] = b, a
                after, touched = 0.0, False
                if has_terms:
                    touched = end != carrier or near(terms.singles, carrier, p, q)
                    touched = touched or near(terms.corners, carrier, p, q)
                    if touched:
                        after = carrier_terms(terms, codes, end, scratch)
                        delta += after - known[chain - start]
                kind = 1 if moves else 0
                counts[0, kind] += 1
                if delta <= attempts.threshold[t, chain]:
                    counts[1, kind] += 1
                    energies[chain] += delta
                    carriers[chain] = end
                    if touched:
                        known[chain - start] = after
                else:
                    codes[p], codes[q] = a, b
