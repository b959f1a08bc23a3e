"""Compiled loops of kinetic Monte Carlo: what one must do, which one fits, and how walkers are shared among threads.

Without numba there is none, and :class:`KineticMonteCarlo` makes the same jumps with NumPy, from the same random
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.compiled import can_compile
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinetics.lattice_gas import _BoundSpeciesRates
from ase_kinoson.kinetics.rates import Rates

if TYPE_CHECKING:
    from ase_kinoson.kinetics.kmc import KineticMonteCarlo

__all__ = ["Board", "Loop", "loop_for", "over_walkers"]

Found = TypeVar("Found")

TILE = 64
"""Slices of walkers begin at multiples of this, so that two threads never write to one line of the cache."""


class Board(NamedTuple):
    """Arrays of a :class:`KineticMonteCarlo` (not copies) that a compiled loop reads and writes.

    Attributes
    ----------
    occupations : ndarray of int8, shape (n_walkers, n_sites)
    carriers : ndarray of int64, shape (n_walkers,)
    atoms : ndarray of int32, shape (n_walkers, n_sites); (1, 1) without ``follow``
    displacements : ndarray, shape (n_walkers, n_sites, 3); (1, 1, 3) without ``follow``
        Å.
    times : ndarray, shape (n_walkers,)
        s.
    expected : ndarray, shape (n_walkers, n_kinds, n_species)
        Sum over the states visited of the probability of every kind of jump, by the species that it moves.
    column_seen, kind_seen, atom_seen : ndarray of int8, int32 and int32, shape (WINDOW, n_walkers)
        Jumps made since the window began; ``atom_seen`` of shape (1, 1) without ``follow``.
    targets : ndarray of int32, shape (n_sites, J)
        Target of every jump; the site itself where there is no jump.
    column : ndarray of int64, shape (n_codes,)
        Column of ``expected`` of each species code.
    vectors : ndarray, shape (n_kinds, 3)
        Displacement of the atom that moves, by kind = basis site × J + jump, Å.
    n_basis : int
        A site has basis site ``site % n_basis``.
    interstitial : bool
        The atom that moves is the carrier itself, not the one on the target.
    follow : bool
        Single atoms are told apart.
    """

    occupations: NDArray[np.int8]
    carriers: NDArray[np.int64]
    atoms: NDArray[np.int32]
    displacements: NDArray[np.float64]
    times: NDArray[np.float64]
    expected: NDArray[np.float64]
    column_seen: NDArray[np.int8]
    kind_seen: NDArray[np.int32]
    atom_seen: NDArray[np.int32]
    targets: NDArray[np.int32]
    column: NDArray[np.int64]
    vectors: NDArray[np.float64]
    n_basis: int
    interstitial: bool
    follow: bool


class Loop(Protocol):
    """Makes jumps of all walkers of a :class:`KineticMonteCarlo`, as its NumPy step does."""

    def run(self, engine: KineticMonteCarlo, draws: NDArray[np.float64]) -> None:
        """Make ``len(draws)`` jumps of every walker.

        Everything in ``engine.board()`` is updated: states, times, expected squares, and what was seen, from row
        ``engine.n_jumps % WINDOW`` on. The engine counts the jumps and fills its ladder afterwards. Results do not
        depend on the number of threads.

        Parameters
        ----------
        engine
            The walkers.
        draws : ndarray, shape (m, n_walkers)
            Uniform random numbers in [0, 1), one per jump, no unit; m jumps never cross the end of a window.

        Raises
        ------
        StatesError
            If the total rate of a walker is not a positive number (``engine.refuse(walker, gamma)``).
        """
        ...


def loop_for(rates: Rates, network: JumpNetwork) -> Loop | None:
    """Return a compiled loop for these rates, or None where only the NumPy step makes these jumps.

    Parameters
    ----------
    rates
        Rates of any state.
    network
        The jumps, on the supercell of the walkers.
    """
    if not can_compile():
        return None
    if isinstance(rates.source, _BoundSpeciesRates):
        from ase_kinoson.kinetics.gas_loop import GasLoop

        return GasLoop(rates, network)
    if hasattr(rates.source, "jump_energies"):
        from ase_kinoson.kinetics.learned_loop import LearnedLoop

        return LearnedLoop.of(rates, network)
    return None


def over_walkers(work: Callable[[int, int], Found], n_walkers: int, *, least: int = TILE) -> list[Found]:
    """Call ``work(first, last)`` on slices of the walkers, in as many threads as torch uses; it must release the GIL.

    Parameters
    ----------
    work
        Treats walkers first … last − 1.
    n_walkers
        Number of walkers.
    least
        A slice has at least so many walkers, rounded up to a multiple of :data:`TILE`.

    Returns
    -------
    list
        What the calls returned, in the order of the walkers.
    """
    tiles = -(-n_walkers // TILE)
    slices = min(tiles * TILE // max(least, TILE), n_threads()) if n_walkers > least else 1
    if slices <= 1:
        return [work(0, n_walkers)]
    edges = [min(tiles * k // slices * TILE, n_walkers) for k in range(slices + 1)]
    with ThreadPoolExecutor(slices) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))


def n_threads() -> int:
    """Threads that torch uses for its own loops; importing it late keeps the start of a small run short."""
    import torch

    return int(torch.get_num_threads())
