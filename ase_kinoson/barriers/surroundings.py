"""`Surroundings`: all sites that the energies of a carrier's jumps depend on, listed once per basis site.

Neighbouring jumps see the same sites: the twelve jumps of an fcc vacancy look at 1,200 environment sites, of which some
200 differ. They are listed once, as offsets from the carrier; every environment is then a list of places in that list
(slots), which is the same wherever the carrier is, and which knows the exchange that a jump makes. Tables are those of
one primitive cell, so that nothing grows with the supercell.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["NOTHING", "TABLE_LIMIT", "Surroundings"]

NOTHING = -1
"""Slot of a place that holds no site."""

TABLE_LIMIT = 10_000_000
"""Largest table of surrounding sites that is kept, entries of 4 bytes; above it they are computed."""

ROWS = 4096
"""Sites treated at a time while the table is made."""


class Surroundings:
    """Sites around a carrier on each basis site, numbered as they are asked for.

    Slot 0 is the site of the carrier. Two slots never name the same site of the supercell, however small it is.

    Parameters
    ----------
    network
        Jumps on their supercell.
    table_limit
        Largest table of sites that is kept, entries.

    Attributes
    ----------
    carriers : ndarray of int, shape (n_mobile,)
        Basis sites that jumps start from. They are sites of the first primitive cell as well.
    targets : ndarray of int, shape (n_basis, J)
        Slot where each jump ends; that of the carrier where there is no jump.
    """

    def __init__(self, network: JumpNetwork, *, table_limit: int = TABLE_LIMIT) -> None:
        self.network, self.table_limit = network, table_limit
        self.carriers = np.flatnonzero(network.exists.any(axis=1))
        self._slot_of: list[dict[int, int]] = [{} for _ in range(len(network.exists))]
        for b in self.carriers:
            self._slot_of[b][int(b)] = 0
        self.targets = np.zeros(network.exists.shape, dtype=np.int64)
        for b in self.carriers:
            self.targets[b] = np.maximum(self.slots(int(b), network.targets(np.array([b]))[0]), 0)

    @property
    def size(self) -> int:
        """Largest number of slots of a basis site."""
        return max(map(len, self._slot_of))

    def slots(self, basis: int, sites: NDArray) -> NDArray[np.int64]:
        """Slots of sites around a carrier on basis site ``basis`` of the first cell; any shape, −1 stays −1."""
        known = self._slot_of[basis]
        found = [NOTHING if s < 0 else known.setdefault(s, len(known)) for s in sites.ravel().tolist()]
        return np.array(found, dtype=np.int64).reshape(sites.shape)

    def exchanged(self, basis: int, jump: int, slots: NDArray) -> NDArray[np.int64]:
        """Slots whose occupants are at ``slots`` after a jump has exchanged its two ends."""
        end = self.targets[basis, jump]
        return np.where(slots == 0, end, np.where(slots == end, 0, slots))

    # -- once all slots are asked for ------------------------------

    @cached_property
    def offsets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Basis site (n_basis, size) and cell (n_basis, size, 3), relative to the carrier's cell, of every slot."""
        cell = self.network.supercell
        n_basis = cell.alloy.n_basis
        sites = np.tile(np.arange(n_basis)[:, None], (1, self.size))  # where there is no slot: the carrier itself
        for b, known in enumerate(self._slot_of):
            sites[b, : len(known)] = list(known)
        return sites % n_basis, cell.cell_coordinates(sites // n_basis)

    @cached_property
    def table(self) -> NDArray[np.int32] | None:
        """Sites of all slots of all carriers, shape (n_sites, size); None where that would be too large."""
        n_sites = self.network.supercell.n_sites
        if n_sites * self.size > self.table_limit:
            return None
        found = np.empty((n_sites, self.size), dtype=np.int32)
        for first in range(0, n_sites, ROWS):
            part = np.arange(first, min(first + ROWS, n_sites))
            found[part] = self._sites(part)
        return found

    def _sites(self, carriers: NDArray) -> NDArray[np.int64]:
        cell = self.network.supercell
        basis, cells = self.offsets
        own = carriers % cell.alloy.n_basis
        return cell.neighbors(carriers, basis[own], cells[own])

    def read(self, occupations: NDArray, carriers: NDArray) -> NDArray[np.int8]:
        """Occupants of all slots, shape (n, size + 1); the last column is empty."""
        sites = self._sites(carriers) if self.table is None else self.table[carriers]
        found = np.zeros((len(carriers), self.size + 1), dtype=np.int8)
        found[:, :-1] = occupations[np.arange(len(carriers))[:, None], sites]
        return found
