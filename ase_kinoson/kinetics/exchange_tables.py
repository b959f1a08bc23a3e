"""What a loop over exchanges of one state at a time reads: random numbers, and energies as flat tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.crystal.environment import CarrierEnvironment

__all__ = ["Attempts", "CarrierTables", "PairTables", "carrier_tables", "pair_tables", "sites_around", "sum_plan"]

TABLE_LIMIT = 50_000_000
"""Largest table of sites that is kept, entries."""

CHUNK = 2**16
"""Sites whose surroundings are listed at once."""

LEAF = 128
"""NumPy adds up to so many numbers in eight sums, and halves what is longer."""


class Attempts(NamedTuple):
    """Random numbers of some attempts, each of shape (steps, n_chains), and the sites they choose from.

    Attributes
    ----------
    kind : ndarray
        Below ``share``, the carrier moves; no unit.
    aim : ndarray of int64
        Which of ``mobile`` it moves to.
    first : ndarray of int64
        Which of ``sites`` exchanges; shape (1, 1) where only the carrier moves.
    second : ndarray
        In [0, 1): which other site of its pool; no unit.
    threshold : ndarray
        Largest energy change that is accepted, eV.
    mobile, sites : ndarray of int64
        Where the carrier can be; the exchangeable sites, pool by pool.
    start, size : ndarray of int64
        Where the pool of each of ``sites`` begins, and its size.
    share : float
        Share of the moves of the carrier.
    """

    kind: NDArray[np.float64]
    aim: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.float64]
    threshold: NDArray[np.float64]
    mobile: NDArray[np.int64]
    sites: NDArray[np.int64]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    share: float


class PairTables(NamedTuple):
    """Site and pair energies of a :class:`PairEnergy`.

    Attributes
    ----------
    partners : ndarray of uint16 or uint32, shape (n_sites, n)
        Pair partners of every site; 0 where padded.
    kind : ndarray of uint64, shape (n_basis, n)
        Kind of each pair.
    block : ndarray of uint32, shape (n_basis, n)
        Where ``difference`` of that kind begins.
    difference : ndarray, shape (n_kinds * S * S * S,)
        By kind, old and new occupant of the site, occupant of the partner, eV.
    pair : ndarray, shape (n_kinds * S * S,)
        By kind, occupant of the site and of the partner, eV.
    level : ndarray, shape (n_basis, S)
        Site energies, eV.
    ends, joins : ndarray of int64, shape (n_leaves + 1,) and (n_leaves,)
        How the ``n`` pair energies are added up; see :func:`sum_plan`.
    """

    partners: NDArray[np.uint16] | NDArray[np.uint32]
    kind: NDArray[np.uint64]
    block: NDArray[np.uint32]
    difference: NDArray[np.float64]
    pair: NDArray[np.float64]
    level: NDArray[np.float64]
    ends: NDArray[np.int64]
    joins: NDArray[np.int64]


class CarrierTables(NamedTuple):
    """Terms of the carrier; see :class:`~ase_kinoson.barriers.carrier.CarrierTerms`.

    Attributes
    ----------
    singles, corners : ndarray of int32, shape (n_sites, n_single) and (n_sites, n_corner)
        Sites counted one by one, and in pairs, around a carrier on every site; 0 where padded.
    own : ndarray, shape (n_basis,)
        What every carrier on a basis site has, eV.
    single : ndarray, shape (n_basis, n_single, S)
        By site and its occupant, eV.
    corner_ends : ndarray of uint64, shape (n_basis, n_pairs, 2)
        Pairs of ``corners``.
    corner_kind : ndarray of uint64, shape (n_basis, n_pairs)
        Kind of each of them.
    corner : ndarray, shape (n_kinds * S * S,)
        By kind and the two occupants, eV.
    ends, joins : ndarray of int64
        How the terms are added up; see :func:`sum_plan`.
    alone : bool
        There are sites counted one by one, so that ``own`` counts, too.
    """

    singles: NDArray[np.int32]
    corners: NDArray[np.int32]
    own: NDArray[np.float64]
    single: NDArray[np.float64]
    corner_ends: NDArray[np.uint64]
    corner_kind: NDArray[np.uint64]
    corner: NDArray[np.float64]
    ends: NDArray[np.int64]
    joins: NDArray[np.int64]
    alone: bool


def sum_plan(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How NumPy adds ``n`` numbers along a contiguous axis, so that a loop gets the same last bits.

    Parameters
    ----------
    n
        How many.

    Returns
    -------
    ends : ndarray of int64, shape (n_leaves + 1,)
        Where the leaves begin and end.
    joins : ndarray of int64, shape (n_leaves,)
        How many times, after each leaf, the last two sums are added.
    """
    ends, joins = [0], []

    def split(first: int, length: int) -> None:
        if length <= LEAF:
            ends.append(first + length)
            joins.append(0)
            return
        half = length // 2
        half -= half % 8
        split(first, half)
        split(first + half, length - half)
        joins[-1] += 1

    split(0, n)
    return np.array(ends, dtype=np.int64), np.array(joins, dtype=np.int64)


def pair_tables(energy: PairEnergy) -> PairTables | None:
    """Lay out the pair energies of a model.

    Parameters
    ----------
    energy
        On the supercell of the states.

    Returns
    -------
    PairTables or None
        None where the table of partners would be too large.
    """
    clusters, cell = energy.clusters, energy.supercell
    n, s = clusters.table.partner.shape[1], clusters.n_species
    if cell.n_sites * max(1, n) > TABLE_LIMIT:
        return None
    partners = np.zeros((cell.n_sites, n), dtype=np.uint16 if cell.n_sites <= 2**16 else np.uint32)
    for first in range(0, cell.n_sites, CHUNK):
        sites = np.arange(first, min(first + CHUNK, cell.n_sites))
        partners[sites] = clusters.partners(sites)
    return PairTables(
        partners,
        clusters.pair_index.astype(np.uint64),
        (clusters.pair_index * s**3).astype(np.uint32),
        np.ascontiguousarray(energy._difference),
        np.ascontiguousarray(energy._pair),
        np.ascontiguousarray(energy._site[clusters.table.site_class]).reshape(-1, s),
        *sum_plan(n),
    )


def carrier_tables(energy: PairEnergy) -> CarrierTables | None:
    """Lay out the carrier terms of a model.

    Parameters
    ----------
    energy
        On the supercell of the states.

    Returns
    -------
    CarrierTables or None
        None where the tables of sites would be too large.
    """
    terms, cell, s = energy.clusters.carrier, energy.supercell, energy.clusters.n_species
    n_basis = cell.alloy.n_basis
    own, single = np.zeros(n_basis), np.zeros((n_basis, 0, s))
    ends, kind = np.zeros((n_basis, 0, 2), dtype=np.uint64), np.zeros((n_basis, 0), dtype=np.uint64)
    corner, alone = np.zeros(s * s), False
    tables: list[NDArray[np.int32]] = [np.zeros((cell.n_sites, 0), dtype=np.int32)] * 2
    if terms is not None:
        value = energy._carrier
        for i, environment in enumerate((terms.single, terms.triplet)):
            if environment is not None:
                if cell.n_sites * environment.n_max > TABLE_LIMIT:
                    return None
                tables[i] = np.maximum(sites_around(environment), 0)
        if terms.single is not None:
            base, first = terms._single_base
            columns = np.where(base[..., None] >= 0, base[..., None] + np.arange(s), terms.n_features)
            own, single, alone = value[first], value[columns], True
        if terms.triplet is not None:
            found, block, flat = terms._triplet_base
            ends, kind, corner = found.astype(np.uint64), block.astype(np.uint64), value[flat]
    n_terms = (1 + single.shape[1] if alone else 0) + kind.shape[1]
    return CarrierTables(
        tables[0], tables[1], own, np.ascontiguousarray(single), ends, kind, corner, *sum_plan(n_terms), alone
    )  # fmt: skip


def sites_around(environment: CarrierEnvironment, *, padded: int = 1) -> NDArray[np.int32]:
    """Sites around a carrier on every site, shape (n_sites, n), n a multiple of ``padded``; −1 where there is none.

    Parameters
    ----------
    environment
        On the supercell of the states.
    padded
        Of which the length of a list is a multiple.
    """
    cell = environment.supercell
    width = -(-environment.n_max // padded) * padded
    result = np.full((cell.n_sites, width), -1, dtype=np.int32)
    for b in map(int, np.flatnonzero(environment.class_of_basis >= 0)):
        own = np.arange(b, cell.n_sites, cell.alloy.n_basis)
        for first in range(0, len(own), CHUNK):
            part = own[first : first + CHUNK]
            found = environment.sites(part, b)
            result[part, : found.shape[1]] = found
    return result
