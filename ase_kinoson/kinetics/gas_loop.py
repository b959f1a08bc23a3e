"""Compiled loop of a lattice gas whose rates depend on the species that jumps only (:class:`SpeciesRates`).

One walker makes all its jumps before the next one begins, so that its state stays in the cache of the processor.
Walkers are taken in tiles, so that a line of random numbers or of records is fetched once for several walkers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.compiled import compiled
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lags import WINDOW
from ase_kinoson.kinetics.loops import Board, over_walkers
from ase_kinoson.kinetics.rates import LARGEST_RATE, SMALLEST_RATE, Rates

__all__ = ["GasLoop", "bare_loop"]

TILE = 16
"""Walkers whose random numbers and records are moved together: one line of 64 bytes holds 16 records."""

READ_AHEAD = 1024
"""Names and displacements of the atoms of a walker are read in order before it jumps, up to so many sites."""


class GasLoop:
    """Loop of one :class:`SpeciesRates` gas; see :class:`~ase_kinoson.kinetics.loops.Loop`.

    Parameters
    ----------
    rates
        Rates of the gas.
    network
        The jumps.
    """

    def __init__(self, rates: Rates, network: JumpNetwork) -> None:
        self.rates, self.network = rates, network

    def run(self, engine: KineticMonteCarlo, draws: NDArray[np.float64]) -> None:
        """Make ``len(draws)`` jumps of every walker.

        Parameters
        ----------
        engine
            The walkers.
        draws : ndarray, shape (m, n_walkers)
            Random numbers in [0, 1), no unit.

        Raises
        ------
        StatesError
            If the total rate of a walker is not a positive number.
        """
        board, row = engine.board(), engine.n_jumps % WINDOW
        table = engine._by_species
        assert table is not None
        # without a sign no index can be counted from the end
        board = board._replace(
            occupations=board.occupations.view(np.uint8),
            targets=board.targets.view(np.uint32),
            atoms=board.atoms.view(np.uint32),
        )
        # below some thousand jumps, a second thread costs more than it brings
        least = max(1, 4096 // len(draws))
        ends = over_walkers(
            lambda first, last: _jump_walkers(board, table, draws, row, first, last), engine.n_walkers, least=least
        )
        # as a step of all walkers finds it: the earliest jump, then the first walker
        step, walker, gamma, _ = min(ends)
        if step < len(draws):
            engine.refuse(walker, gamma)


@compiled(error_model="numpy")
def _jump_walkers(
    board: Board, table: NDArray, draws: NDArray, row: int, first: int, last: int
) -> tuple[int, int, float, float]:
    """Jumps of walkers first … last − 1; return jump, walker and Γ of the first dead end, or the number of jumps.

    The last number means nothing: it keeps the compiler from leaving out what was read ahead.
    """
    m, n_jumps = len(draws), board.targets.shape[1]
    n_basis, interstitial, follow = board.n_basis, board.interstitial, board.follow
    targets, vectors = board.targets, board.vectors
    column = board.column.astype(np.uint8)
    drawn = np.empty((TILE, m))
    kinds = np.empty((TILE, m), dtype=np.int32)
    columns = np.empty((TILE, m), dtype=np.int8)
    movers = np.empty((TILE, m), dtype=np.int32)
    rates, up_to = np.empty(n_jumps), np.empty(n_jumps)
    seen = np.empty(n_jumps, dtype=np.uint8)
    end, at, total, read = m, last, 0.0, 0.0
    for start in range(first, last, TILE):
        stop = min(start + TILE, last)
        for t in range(m):
            for walker in range(start, stop):
                drawn[walker - start, t] = draws[t, walker]
        for walker in range(start, stop):
            i = walker - start
            codes, expected = board.occupations[walker], board.expected[walker]
            atoms, displaced = board.atoms[walker if follow else 0], board.displacements[walker if follow else 0]
            if follow and len(atoms) <= READ_AHEAD:
                read += _read(atoms, displaced.reshape(-1))
            draw, kind, col, mover = drawn[i], kinds[i], columns[i], movers[i]
            carrier, time = np.uint32(board.carriers[walker]), board.times[walker]
            for t in range(m):
                around = targets[carrier]
                own = codes[carrier]
                gamma = 0.0
                if interstitial:
                    for k in range(n_jumps):
                        # without a jump the target is the site itself
                        rates[k] = 0.0 if around[k] == carrier else table[own]
                        gamma += rates[k]
                        up_to[k], seen[k] = gamma, column[own]
                else:
                    for k in range(n_jumps):
                        moved = codes[around[k]]
                        rate = table[moved]
                        gamma += rate
                        rates[k], up_to[k], seen[k] = rate, gamma, column[moved]
                if not (SMALLEST_RATE <= gamma <= LARGEST_RATE):
                    if t < end:
                        end, at, total = t, walker, gamma
                    break
                aim = draw[t] * gamma
                if aim >= gamma:  # rounded up: just below Γ, so that the jump found has a rate
                    aim = np.nextafter(gamma, 0.0)
                jump = 0
                for k in range(n_jumps):
                    jump += up_to[k] <= aim
                residence = 1.0 / gamma
                time += residence
                base = np.uint32(0) if n_basis == 1 else np.uint32(carrier % np.uint32(n_basis) * np.uint32(n_jumps))
                for k in range(n_jumps):
                    expected[base + np.uint32(k), seen[k]] += rates[k] * residence
                there = around[jump]
                row_of = base + np.uint32(jump)
                kind[t] = row_of
                col[t] = seen[jump]
                codes[carrier], codes[there] = codes[there], own
                if follow:
                    atom = atoms[carrier] if interstitial else atoms[there]
                    atoms[carrier], atoms[there] = atoms[there], atoms[carrier]
                    mover[t] = atom
                    displaced[atom, 0] += vectors[row_of, 0]
                    displaced[atom, 1] += vectors[row_of, 1]
                    displaced[atom, 2] += vectors[row_of, 2]
                carrier = there
            board.carriers[walker], board.times[walker] = carrier, time
        for t in range(m):
            for walker in range(start, stop):
                board.kind_seen[row + t, walker] = kinds[walker - start, t]
                board.column_seen[row + t, walker] = columns[walker - start, t]
            if follow:
                for walker in range(start, stop):
                    board.atom_seen[row + t, walker] = movers[walker - start, t]
    return end, at, total, read


@compiled(error_model="numpy")
def _read(atoms: NDArray, displaced: NDArray) -> float:
    """Touch every line of 64 bytes in order: memory brings them in one stream, jumps would ask for one at a time."""
    read = 0.0
    for s in range(0, len(atoms), 16):
        read += atoms[s]
    for s in range(0, len(displaced), 8):
        read += displaced[s]
    return read


@compiled(error_model="numpy")
def bare_loop(codes: NDArray, carrier: int, targets: NDArray, rates: NDArray, draws: NDArray) -> tuple[int, float]:
    """Vacancy jumps of one walker and nothing else: what a compiled loop that records nothing reaches.

    Parameters
    ----------
    codes : ndarray of int8, shape (n_sites,)
        Species code of every site; is changed.
    carrier
        Site of the vacancy.
    targets : ndarray of int32, shape (n_sites, J)
        Target of every jump.
    rates : ndarray, shape (n_codes,)
        Rate of each species code, s⁻¹.
    draws : ndarray, shape (m,)
        Random numbers in [0, 1), one per jump, no unit.

    Returns
    -------
    carrier : int
        Where the vacancy ends.
    time : float
        Sum of the mean residence times, s.
    """
    n_jumps = targets.shape[1]
    up_to = np.empty(n_jumps)
    time = 0.0
    for draw in draws:
        around = targets[carrier]
        gamma = 0.0
        for k in range(n_jumps):
            gamma += rates[codes[around[k]]]
            up_to[k] = gamma
        aim = draw * gamma
        jump = 0
        for k in range(n_jumps - 1):
            jump += up_to[k] <= aim
        time += 1.0 / gamma
        there = around[jump]
        codes[carrier], codes[there] = codes[there], codes[carrier]
        carrier = there
    return carrier, time
