"""One jump of one walker, compiled: choose it, record it, make it. The same sums in the same order as with NumPy.

Compiled loops call these functions; they are imported only where :func:`ase_kinoson.compiled.can_compile` is true.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.compiled import compiled
from ase_kinoson.kinetics.loops import Board
from ase_kinoson.kinetics.rates import LARGEST_RATE, SMALLEST_RATE

__all__ = ["choose", "make_jump"]


@compiled(inline="always")
def choose(rates: NDArray, up_to: NDArray, draw: float) -> tuple[int, float]:
    """Choose jump k with probability W_k/Γ.

    Parameters
    ----------
    rates : ndarray, shape (J,)
        W_k, s⁻¹.
    up_to : ndarray, shape (J,)
        Is overwritten with the running sums of the rates, s⁻¹.
    draw
        Random number in [0, 1).

    Returns
    -------
    jump : int
        −1 if Γ is not a positive number that its time can be taken from (1e-250 to 1e250 s⁻¹).
    gamma : float
        Γ, s⁻¹.
    """
    n_jumps = len(rates)
    gamma = 0.0
    for k in range(n_jumps):
        gamma += rates[k]
        up_to[k] = gamma
    if not (SMALLEST_RATE <= gamma <= LARGEST_RATE):
        return -1, gamma
    aim = draw * gamma
    if aim >= gamma:  # rounded up: just below Γ, so that the jump found has a rate
        aim = np.nextafter(gamma, 0.0)
    jump = 0
    for k in range(n_jumps):
        jump += up_to[k] <= aim
    return jump, gamma


@compiled()
def make_jump(board: Board, walker: int, row: int, rates: NDArray, up_to: NDArray, draw: float) -> tuple[int, float]:
    """Make one jump of one walker and record it in the board.

    Parameters
    ----------
    board
        Arrays of the engine.
    walker
        Which walker.
    row
        Row of ``column_seen``, ``kind_seen`` and ``atom_seen`` to write to.
    rates : ndarray, shape (J,)
        W_k of the state of the walker, s⁻¹, 0 where there is no jump.
    up_to : ndarray, shape (J,)
        Room for the running sums, s⁻¹.
    draw
        Random number in [0, 1).

    Returns
    -------
    jump : int
        The jump made; −1, and nothing is changed, if Γ is not a positive number.
    gamma : float
        Γ, s⁻¹.
    """
    jump, gamma = choose(rates, up_to, draw)
    if jump < 0:
        return jump, gamma
    codes = board.occupations[walker]
    carrier = board.carriers[walker]
    residence = 1.0 / gamma
    board.times[walker] += residence
    n_jumps = len(rates)
    first = (carrier % board.n_basis) * n_jumps
    own = codes[carrier]
    for k in range(n_jumps):
        moved = own if board.interstitial else codes[board.targets[carrier, k]]
        board.expected[walker, first + k, board.column[moved]] += rates[k] * residence
    there = board.targets[carrier, jump]
    kind = first + jump
    moved = own if board.interstitial else codes[there]
    board.column_seen[row, walker] = board.column[moved]
    board.kind_seen[row, walker] = kind
    codes[carrier], codes[there] = codes[there], own
    board.carriers[walker] = there
    if board.follow:
        atoms = board.atoms[walker]
        atom = atoms[carrier] if board.interstitial else atoms[there]
        atoms[carrier], atoms[there] = atoms[there], atoms[carrier]
        for x in range(3):
            board.displacements[walker, atom, x] += board.vectors[kind, x]
        board.atom_seen[row, walker] = atom
    return jump, gamma
