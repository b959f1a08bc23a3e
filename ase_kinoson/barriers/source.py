"""What everything above the barriers asks of them: one Protocol, whoever answers.

Reference barriers (saddle searches), learned barriers and model lattice gases all implement `BarrierSource`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["BarrierSource", "EnergyModel", "JumpEnergies"]


@dataclass(frozen=True)
class JumpEnergies:
    """Energies of all jumps of some states.

    Attributes
    ----------
    barrier : ndarray, shape (n_states, J)
        eV; ``inf`` where there is no such jump or where it is rejected (in both directions).
    delta_e : ndarray, shape (n_states, J)
        Energy after minus energy before the jump, eV; 0 where there is no jump.
    attempt_frequency : ndarray, shape (n_states, J), or None
        s⁻¹, the same for a jump and its reverse; NaN where only the common one is known. None: that one everywhere.
    """

    barrier: NDArray[np.float64]
    delta_e: NDArray[np.float64]
    attempt_frequency: NDArray[np.float64] | None = None

    @property
    def kra(self) -> NDArray[np.float64]:
        """Kinetically resolved activation K = Q − ΔE/2, eV, shape (n_states, J): equal for a jump and its reverse."""
        return self.barrier - 0.5 * self.delta_e

    @property
    def reverse_barrier(self) -> NDArray[np.float64]:
        """Barrier of the jump back, eV, shape (n_states, J)."""
        return self.barrier - self.delta_e


@runtime_checkable
class BarrierSource(Protocol):
    """Anything that knows the barriers of the jumps of a state."""

    @property
    def network(self) -> JumpNetwork:
        """The jumps it knows."""
        ...

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        """Return energies of all jumps of states.

        Parameters
        ----------
        occupations : ndarray of int, shape (n_states, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n_states,)
            Site of the carrier of each state.
        """
        ...


@runtime_checkable
class EnergyModel(Protocol):
    """An energy of every occupation, local enough that exchanging two sites is cheap."""

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        """Return energies, eV, shape (n,); the zero is common to all states.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        """
        ...

    def swap_delta(self, occupations: NDArray, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
        """Return the energy change, eV, shape (n,), when each state exchanges the occupants of two sites.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        first, second : array_like of int, shape (n,)
            The two sites of each state.
        """
        ...
