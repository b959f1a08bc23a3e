"""Compiled loop of Metropolis exchanges with the energies of a :class:`NetworkEnergy`.

The network is evaluated only where an exchange touches what is around the carrier. Its first layer is a sum of rows of
integers that follows the chain, as in :mod:`ase_kinoson.barriers.incremental`: its value is a function of the state
alone, and differs from that of the NumPy step by the rounding of single precision.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ase_kinoson.barriers.carrier_network import NetworkEnergy
from ase_kinoson.barriers.incremental import LANES, RowNetworks, _rows, aligned
from ase_kinoson.barriers.incremental_loops import _head, _refresh
from ase_kinoson.barriers.incremental_work import Kept
from ase_kinoson.barriers.vector_loops import borrowed
from ase_kinoson.compiled import compiled
from ase_kinoson.kinetics.exchange_loop import (
    CHAINS,
    ExchangeLoop,
    Scratch,
    carrier_terms,
    choose,
    near,
    pair_change,
)
from ase_kinoson.kinetics.exchange_tables import TABLE_LIMIT, Attempts, CarrierTables, PairTables, sites_around

__all__ = ["NetworkExchangeLoop"]

WORD = 8
"""Codes are compared in words of so many."""


class NetworkExchangeLoop(ExchangeLoop):
    """Loop of the exchanges of one :class:`NetworkEnergy`. Make one with :meth:`of_network`.

    Parameters
    ----------
    pairs
        Loop of the pair energies.
    network
        The network, by class of carrier sites.
    around : ndarray of int32, shape (n_sites, n)
        Sites around a carrier on every site; −1 where there is none.
    label : ndarray of int64, shape (n_basis,)
        Class of every basis site.
    """

    least = 64

    def __init__(
        self, pairs: ExchangeLoop, network: RowNetworks, around: NDArray[np.int32], label: NDArray[np.int64]
    ) -> None:
        super().__init__(pairs.pairs, pairs.terms)
        self.network, self.around, self.label = network, around, label
        self._free: list[Room] = []

    @classmethod
    def of_network(cls, energy: NetworkEnergy) -> NetworkExchangeLoop | None:
        """Return the loop of an energy model.

        Parameters
        ----------
        energy
            On the supercell of the chains.

        Returns
        -------
        NetworkExchangeLoop or None
            None for networks in double precision or without hidden channels, and for cells whose tables would be too
            large.
        """
        environment, n_sites = energy.carrier.environment, energy.supercell.n_sites
        if energy.carrier.dtype != torch.float32 or not 0 < environment.n_max * n_sites <= TABLE_LIMIT:
            return None
        pairs = ExchangeLoop.of(energy.pairs)
        network = _rows(energy.carrier.networks, len(energy.supercell.species))
        if pairs is None or network.channels == 0:
            return None
        label = np.maximum(environment.class_of_basis, 0).astype(np.int64)
        return cls(pairs, network, sites_around(environment, padded=WORD), label)

    def _advance(
        self, attempts: Attempts, codes: NDArray, carriers: NDArray, energies: NDArray, first: int, last: int
    ) -> NDArray[np.int64]:
        scratch = Scratch.of(self.pairs, self.terms)
        room = self._free.pop() if self._free else Room.of(self.network, self.around.shape[1])
        try:
            _network_chains(
                self.pairs, self.terms, self.network, self.around, self.label, room, scratch, attempts, codes,
                carriers, energies, first, last,
            )  # fmt: skip
        finally:
            self._free.append(room)
        return scratch.counts


class Room(NamedTuple):
    """What one thread needs for the networks of a tile of chains; see ``incremental_work.Workspace``."""

    kept: Kept
    codes: NDArray[np.uint8]
    words: NDArray[np.uint64]
    changed: NDArray[np.int64]
    rows: NDArray[np.int64]
    h: NDArray[np.float32]
    out: NDArray[np.float32]
    total: NDArray[np.float32]
    shift: NDArray[np.float32]
    counts: NDArray[np.int64]
    learned: NDArray[np.float64]
    home: NDArray[np.int64]

    @classmethod
    def of(cls, net: RowNetworks, n_sites: int) -> Room:
        n = 2 * CHAINS
        words = np.zeros((n + 1, n_sites // WORD), dtype=np.uint64)
        width = int(net.n_padded.max(initial=1)) * net.channels
        kept = Kept(
            np.full(n, -1, dtype=np.int64), words[:n].view(np.uint8), words[:n],
            aligned(np.zeros(n * width, dtype=np.int32)), width,
        )  # fmt: skip
        size = max(LANES, width)
        h, out, total, shift = (aligned(np.zeros(size, dtype=np.float32)) for _ in range(4))
        changed, rows = (np.zeros(2 * n_sites, dtype=np.int64) for _ in range(2))
        return cls(
            kept, words[n].view(np.uint8), words[n], changed, rows, h, out, total, shift,
            np.zeros(4, dtype=np.int64), np.zeros(CHAINS), np.zeros(CHAINS, dtype=np.int64),
        )  # fmt: skip


@compiled(inline="always", error_model="numpy")
def _network_energy(
    net: RowNetworks, around: NDArray, label: Any, room: Any, codes: NDArray, slot: int, s: int
) -> float:
    """Energy that the network gives to what is on some sites, eV; ``slot`` says where its sums are kept."""
    own = room.codes
    for i in range(len(around)):
        own[i] = codes[around[i]] if around[i] >= 0 else np.uint8(0)
    place = _refresh(net, room.kept, room, label * 2 * CHAINS + slot, label, s)
    return _head(net, room.kept, room, place, label, 0)


@compiled(error_model="numpy")
def _network_chains(
    pairs: PairTables, terms: CarrierTables, net: RowNetworks, around: NDArray, label: NDArray, room: Any,
    scratch: Scratch, attempts: Attempts, occupations: NDArray, carriers: NDArray, energies: NDArray, first: int,
    last: int,
) -> None:  # fmt: skip
    """As ``_pair_chains``, with a network."""
    pairs, terms, net, room, scratch, attempts = borrowed((pairs, terms, net, room, scratch, attempts))
    occupations, carriers, energies = borrowed((occupations, carriers, energies))
    around, label = borrowed((around, label))
    counts, known, learned, home = scratch.counts, scratch.known, room.learned, room.home
    s, n_basis = pairs.level.shape[1], np.uint64(len(label))
    for start in range(first, last, CHAINS):
        stop = min(start + CHAINS, last)
        room.kept.name[:] = -1
        home[:] = 0
        for chain in range(start, stop):
            i, codes, site = chain - start, occupations[chain], np.uint64(carriers[chain])
            known[i] = carrier_terms(terms, codes, site, scratch)
            learned[i] = _network_energy(net, around[site], label[site % n_basis], room, codes, 2 * i + home[i], s)
        for t in range(len(attempts.kind)):
            for chain in range(start, stop):
                i, codes, carrier = chain - start, occupations[chain], np.uint64(carriers[chain])
                moves, p, q = choose(attempts, t, chain, carrier)
                a, b = np.uint64(codes[p]), np.uint64(codes[q])
                if a == b:
                    continue
                delta = pair_change(pairs, codes, p, q, a, b, scratch)
                end = q if carrier == p else p if carrier == q else carrier
                codes[p], codes[q] = b, a
                after, value, slot = known[i], learned[i], home[i]
                if end != carrier or near(terms.singles, carrier, p, q) or near(terms.corners, carrier, p, q):
                    after = carrier_terms(terms, codes, end, scratch)
                    delta += after - known[i]
                if end != carrier or near(around, carrier, p, q):
                    # what is around another site is kept apart, for the case that the carrier stays
                    slot = slot if end == carrier else 1 - slot
                    value = _network_energy(net, around[end], label[end % n_basis], room, codes, 2 * i + slot, s)
                    delta += value - learned[i]
                kind = 1 if moves else 0
                counts[0, kind] += 1
                if delta <= attempts.threshold[t, chain]:
                    counts[1, kind] += 1
                    energies[chain] += delta
                    carriers[chain] = end
                    known[i], learned[i], home[i] = after, value, slot
                else:
                    codes[p], codes[q] = a, b
