"""Which sites a barrier model looks at around a carrier, and its pair terms, as tables of integers."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.carrier_network import NetworkEnergy
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.supercell import Supercell

__all__ = ["Sites", "Terms", "sites_of", "terms_of"]

TABLE_LIMIT = 50_000_000
"""Largest table of sites that is kept, entries."""

CHUNK = 2**14
"""Sites whose surroundings are listed at once."""

WORD = 8
"""Codes are compared in words of so many."""


class Sites(NamedTuple):
    """Sites around every carrier site, each listed once, and the environments as places in that list.

    In the list of a site its first place is the site itself; place ``n_near`` stands for no site (code 0), and place
    ``n_near + 1`` holds the basis site.

    Attributes
    ----------
    near : ndarray of int32, shape (n_sites, n_near)
    targets : ndarray of int64, shape (n_basis, J + 1)
        Place of each target, and of the site itself (0).
    back, canonical : ndarray of int64, shape (n_basis, J)
        The jump that leads back; number of the jump among the undirected ones of its first end.
    exists, forward : ndarray of bool, shape (n_basis, J)
        Whether there is a jump; whether the carrier is the first end of it.
    bond_class : ndarray of int64, shape (n_basis, J)
        Class of the jump.
    bond : ndarray of uint16, shape (n_basis, J, n_words * 8)
        Places of the sites around a jump, listed alike from both ends.
    site_class : ndarray of int64, shape (n_basis, J + 1)
        Class of each target as the site of a carrier, and of the site itself.
    centre : ndarray of uint16, shape (n_basis, J + 1, n_words * 8)
        Places of the sites around each target, and around the site itself.
    corner : ndarray of uint16, shape (n_basis, J + 1, n_corners)
        Places of the sites that are counted in pairs.
    partner : ndarray of uint16, shape (n_basis, J + 1, n_partners)
        Places of the pair partners of each target, and of the site itself.
    n_bonds, n_words : int
        Undirected jumps per site; length of the list in words of 8 codes.
    """

    near: NDArray[np.int32]
    targets: NDArray[np.int64]
    back: NDArray[np.int64]
    canonical: NDArray[np.int64]
    exists: NDArray[np.bool_]
    forward: NDArray[np.bool_]
    bond_class: NDArray[np.int64]
    bond: NDArray[np.uint16]
    site_class: NDArray[np.int64]
    centre: NDArray[np.uint16]
    corner: NDArray[np.uint16]
    partner: NDArray[np.uint16]
    n_bonds: int
    n_words: int


class Terms(NamedTuple):
    """Pair energies and terms of the carrier, in units of 1/UNIT eV.

    Attributes
    ----------
    pair : ndarray of int64, shape (n_kinds * S * S,)
        By kind of pair, occupant of the site and of its partner.
    partner_kind : ndarray of uint64, shape (n_basis, J + 1, n_partners)
        Kind of each pair of the targets, and of the site itself.
    exchange : ndarray of int64, shape (n_basis, J, S)
        What the sums over partners miss when an atom of some species jumps, site energies included.
    corner_ends : ndarray of uint64, shape (n_basis, J + 1, n_pairs, 2)
        Pairs of corners, by centre.
    corner_kind : ndarray of uint64, shape (n_basis, J + 1, n_pairs)
    corner_pair : ndarray of int64, shape (n_corner_kinds * S * S,)
    """

    pair: NDArray[np.int64]
    partner_kind: NDArray[np.uint64]
    exchange: NDArray[np.int64]
    corner_ends: NDArray[np.uint64]
    corner_kind: NDArray[np.uint64]
    corner_pair: NDArray[np.int64]


def _parts(model: BarrierModel) -> tuple[PairEnergy, NetworkEnergy | None]:
    energy = model.energy
    return (energy.pairs, energy) if isinstance(energy, NetworkEnergy) else (energy, None)


def _ends(model: BarrierModel, basis: int) -> NDArray[np.int64]:
    """Targets of the carrier on a basis site of the first cell (−1 where there is none), and its own site."""
    return np.append(model.network.targets(np.array([basis]))[0], basis)


def sites_of(model: BarrierModel) -> Sites | None:
    """List the sites around every carrier site.

    Parameters
    ----------
    model
        On the supercell of the states.

    Returns
    -------
    Sites or None
        None for interstitials, and where the table would be too large.
    """
    network, cell = model.network, model.supercell
    pairs, whole = _parts(model)
    terms = pairs.clusters.carrier
    if network.mechanism != "vacancy" or (terms is not None and terms.single is not None):
        return None
    n_basis, n_jumps = network.exists.shape
    clusters = pairs.clusters
    inside: list[list[int]] = []
    lists: list[dict[str, list[NDArray]]] = []
    forward, canonical = np.zeros((2, n_basis, n_jumps), dtype=np.int64)
    n_bonds = 1
    for b in range(n_basis):
        rank = 0
        for k in map(int, np.flatnonzero(network.exists[b])):
            other = (int(network.target_basis[b, k]), int(network.reverse[b, k]))
            if (b, k) <= other:
                forward[b, k], canonical[b, k] = 1, rank
                rank += 1
        n_bonds = max(n_bonds, rank)
    for b, k in np.argwhere(network.exists & (forward == 0)):
        canonical[b, k] = canonical[network.target_basis[b, k], network.reverse[b, k]]
    for b in range(n_basis):
        ends = _ends(model, b)
        found: dict[str, list[NDArray]] = {"bond": [], "centre": [], "corner": [], "partner": []}
        for k, end in enumerate(map(int, ends)):
            if k < n_jumps:
                found["bond"].append(_bond(model, b, k, bool(forward[b, k])))
            there = end % n_basis
            if end < 0 or not network.exists[there].any():
                for name in ("centre", "corner", "partner"):
                    found[name].append(np.empty(0, dtype=np.int64))
                continue
            found["centre"].append(_around(whole.carrier.environment if whole else None, end))
            found["corner"].append(_around(terms.triplet if terms is not None else None, end))
            partners = clusters.partners(np.array([end]))[0]
            found["partner"].append(np.where(clusters.pair_index[there] < 2 * clusters.table.n_orbits, partners, -1))
        seen = [b, *ends[ends >= 0]]
        seen += [int(s) for part in found.values() for line in part for s in line if s >= 0]
        inside.append(list(dict.fromkeys(int(s) for s in seen)) if network.exists[b].any() else [b])
        lists.append(found)
    n_near = max(map(len, inside))
    if cell.n_sites * n_near > TABLE_LIMIT or n_near > 2**14 or n_basis > 127:
        return None
    place = [{site: i for i, site in enumerate(listed)} for listed in inside]

    def places(name: str, n: int, padded: int = 1) -> NDArray[np.uint16]:
        width = max((len(line) for found in lists for line in found[name]), default=0)
        result = np.full((n_basis, n, -(-width // padded) * padded), n_near, dtype=np.uint16)
        for b, found in enumerate(lists):
            if network.exists[b].any():
                for k, line in enumerate(found[name]):
                    result[b, k, : len(line)] = [place[b].get(int(s), n_near) for s in line]
        return result

    targets = np.zeros((n_basis, n_jumps + 1), dtype=np.int64)
    site_class = np.zeros((n_basis, n_jumps + 1), dtype=np.int64)
    for b, k in np.argwhere(network.exists):
        targets[b, k] = place[b][int(_ends(model, int(b))[k])]
    if whole is not None:
        of_basis = whole.carrier.environment.class_of_basis
        site_class[:, :-1] = np.where(network.exists, of_basis[network.target_basis], 0)
        site_class[:, -1] = np.maximum(of_basis, 0)
    return Sites(
        _near(cell, inside, n_near),
        targets,
        network.reverse.astype(np.int64),
        canonical,
        network.exists.copy(),
        forward > 0,
        np.maximum(network.jump_class, 0).astype(np.int64),
        places("bond", n_jumps, WORD),
        site_class,
        places("centre", n_jumps + 1, WORD),
        places("corner", n_jumps + 1),
        places("partner", n_jumps + 1),
        n_bonds,
        -(-(n_near + 2) // WORD),
    )


def _bond(model: BarrierModel, b: int, k: int, forward: bool) -> NDArray[np.int64]:
    """Sites around a jump in the order of its canonical direction; −1 where there is nothing to see."""
    network = model.network
    if not network.exists[b, k]:
        return np.empty(0, dtype=np.int64)
    start = b if forward else int(network.targets(np.array([b]))[0, k])
    jump = k if forward else int(network.reverse[b, k])
    sites = model.kra.environment.sites(np.array([start]))[0, jump]
    return sites[: model.kra.networks[network.jump_class[b, k]].n_env]


def _around(environment: CarrierEnvironment | None, site: int) -> NDArray[np.int64]:
    """Environment of one site; nothing without an environment."""
    if environment is None:
        return np.empty(0, dtype=np.int64)
    basis = site % environment.supercell.alloy.n_basis
    return environment.sites(np.array([site]), basis)[0]


def _near(cell: Supercell, inside: list[list[int]], n_near: int) -> NDArray[np.int32]:
    """What is around every site: the lists of the first cell, moved."""
    n_basis = cell.alloy.n_basis
    result = np.empty((cell.n_sites, n_near), dtype=np.int32)
    for b, listed in enumerate(inside):
        sites = np.array(listed + [b] * (n_near - len(listed)))
        cells = cell.cell_coordinates(sites // n_basis) - cell.cell_coordinates(b // n_basis)
        own = np.arange(b, cell.n_sites, n_basis)
        for first in range(0, len(own), CHUNK):
            part = own[first : first + CHUNK]
            result[part] = cell.neighbors(part, sites % n_basis, cells)
    return result


def terms_of(model: BarrierModel, unit: float) -> Terms:
    """Return the pair part of the energy as integers.

    Parameters
    ----------
    model
        On the supercell of the states.
    unit
        Integers that make one eV.
    """
    pairs, _ = _parts(model)
    network, s = model.network, len(model.species)
    n_basis, n_jumps = network.exists.shape
    # even integers: half of a pair that is listed twice is an integer, too
    whole = replace(pairs, coefficients=2.0 * np.rint(0.5 * unit * pairs.coefficients))
    clusters, carrier = whole.clusters, whole.clusters.carrier
    kinds = clusters.table.site_class
    there = np.append(np.where(network.exists, network.target_basis, 0), np.arange(n_basis)[:, None], axis=1)
    level = np.append(whole.coefficients[clusters.site_columns], np.zeros((1, s)), axis=0)
    exchange = whole._swap_table(network)[:, :, 0, :]  # the carrier's site is empty
    for b, k in np.argwhere(network.exists):
        start, end = level[kinds[b]], level[kinds[there[b, k]]]
        exchange[b, k] += start - start[0] + end[0] - end
    n_pairs = 0
    ends = np.zeros((n_basis, 0, 2), dtype=np.int64)
    block = np.zeros((n_basis, 0), dtype=np.int64)
    corner = np.zeros((1, s, s))
    if carrier is not None and carrier.triplet is not None:
        ends, block, columns = carrier._triplet_base
        n_pairs = block.shape[1]
        corner = np.append(whole.coefficients[clusters.carrier_offset :], 0.0)[columns].reshape(-1, s, s)
    return Terms(
        np.rint(whole._pair).astype(np.int64).ravel(),
        clusters.pair_index[there].astype(np.uint64),
        np.rint(exchange).astype(np.int64),
        ends[there].reshape(n_basis, n_jumps + 1, n_pairs, 2).astype(np.uint64),
        block[there].reshape(n_basis, n_jumps + 1, n_pairs).astype(np.uint64),
        np.rint(corner).astype(np.int64).ravel(),
    )
