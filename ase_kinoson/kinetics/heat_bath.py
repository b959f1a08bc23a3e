"""The carrier alone in equilibrium with frozen atoms: exact draws, no chain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import ModelError
from ase_kinoson.kinetics.monte_carlo import swap_some
from ase_kinoson.units import thermal_energy

__all__ = ["CarrierHeatBath"]


_EXCHANGES = 2**16
"""Exchanges looked at in one go; bounds memory."""


class CarrierHeatBath:
    """Arrangements of atoms, in each of which the carrier trades places with the occupant of any mobile site.

    Parameters
    ----------
    cell
        The supercell.
    model
        Energies, eV.
    temperature_K
        K.
    arrangements : ndarray of int8, shape (n, n_sites)
        Frozen atoms, each with the carrier on some site.
    homes : ndarray of int, shape (n,)
        That site.

    Raises
    ------
    ModelError
        If an energy is no finite number.

    Attributes
    ----------
    entropy : ndarray, shape (n,)
        Number of sites over which the carrier is spread, 1/Σp².
    """

    def __init__(
        self,
        cell: Supercell,
        model: EnergyModel,
        temperature_K: float,
        arrangements: NDArray[np.int8],
        homes: NDArray[np.int64],
    ) -> None:
        kT = thermal_energy(temperature_K)
        self.arrangements, self.homes = arrangements, homes
        self._mobile = mobile = cell.mobile_sites
        self._energies = np.empty((len(homes), len(mobile)))
        base = model.energies(arrangements)
        # without swap_rows every exchange costs a copy of its state
        step = _EXCHANGES if hasattr(model, "swap_rows") else max(1, 2_000_000 // max(1, cell.n_sites))
        flat = self._energies.reshape(-1)
        for first in range(0, len(flat), step):
            rows, place = np.divmod(np.arange(first, min(first + step, len(flat))), len(mobile))
            home = homes[rows]
            delta = swap_some(model, arrangements, rows, home, mobile[place], carriers=home)
            flat[first : first + step] = base[rows] + delta
        if not np.isfinite(self._energies).all():
            raise ModelError(
                f"found {int((~np.isfinite(self._energies)).sum())} energies that are no finite numbers; expected "
                "numbers in eV; correct the energy model"
            )
        factor = np.exp(-(self._energies - self._energies.min(axis=1, keepdims=True)) / kT)
        self._total = np.cumsum(factor, axis=1)
        self.entropy = self._total[:, -1] ** 2 / (factor**2).sum(axis=1)

    def draw(
        self, rng: np.random.Generator, of: ArrayLike
    ) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float64]]:
        """Draw one state of each of the arrangements ``of``, shape (m,), with probability ∝ exp(−E/k_BT).

        Returns
        -------
        occupations : ndarray of int8, shape (m, n_sites)
        carriers : ndarray of int, shape (m,)
        energies : ndarray, shape (m,)
            eV.
        """
        chosen = np.asarray(of, dtype=np.int64)
        total = self._total[chosen]
        level = rng.random(len(chosen)) * total[:, -1]
        pick = np.minimum((total <= level[:, None]).sum(axis=1), len(self._mobile) - 1)
        sites, homes = self._mobile[pick], self.homes[chosen]
        occupations = self.arrangements[chosen]
        rows = np.arange(len(chosen))
        here, there = occupations[rows, homes].copy(), occupations[rows, sites].copy()
        occupations[rows, homes], occupations[rows, sites] = there, here
        return occupations, sites, self._energies[chosen, pick]
