"""Whether a stationary point is the saddle of a jump: one direction goes down, and both ways down lead to its ends.

The curvatures come from finite differences of forces in a small space that holds the direction of the climb (Davidson's
method in the metric of the springs), the ways down from the L-BFGS that relaxes states. A descent stops as soon as it
is clear where it leads: near a known end, in a region where energy and forces are those of the harmonic basin of that
end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.optimise import Relaxation, lbfgs
from ase_kinoson.barriers.preconditioner import SpringPreconditioner

__all__ = ["UNSETTLED", "UNSTABLE", "Descent", "descend", "in_basin", "soft_directions"]

Evaluate = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]

UNSETTLED = "unsettled"
"""Where the ways down lead from the highest saddle known of a jump, if it is not settled that none is higher."""
UNSTABLE = -0.005
"""Curvatures below this, in units of the springs, go down; finite differences are uncertain by less."""
_DIFFERENCE = 0.02
"""Å: largest displacement of an atom in a finite difference of forces."""
_PUSH = 0.15
"""Å: largest displacement of an atom in the first step down."""
_NEAR = 0.45
"""Å: no atom may be further from its place in an end state to be in its basin."""
_HARMONIC = 0.25
"""Largest relative deviation of the energy from the harmonic one within the basin of an end."""
_NOISE = 0.002
"""eV that energies may be off in addition, because ends are not relaxed to the bottom."""
_SAME = 0.01
"""eV: minima that differ by less, with no atom further than ``_NEAR``, are the same."""


@dataclass(frozen=True, eq=False)
class Descent:
    """One way down.

    Attributes
    ----------
    end
        Index of the end state that it reaches; −1 if it reaches none.
    settled
        Whether it reached an end or came to rest elsewhere.
    last : Relaxation
        Where it was left.
    """

    end: int
    settled: bool
    last: Relaxation


def soft_directions(
    evaluate: Evaluate, saddle: Relaxation, springs: SpringPreconditioner, *, calls: int = 6, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest curvatures at a stationary point, relative to the springs.

    Solves H v = λ P v, P the springs, in a space of ``calls`` vectors. It begins with ``saddle.mode`` and with a random
    direction on the atoms that move in it, so that a second way down is found even where symmetry forbids the climb to
    see it. The values are upper bounds: a negative one is proof of a way down.

    Parameters
    ----------
    evaluate
        Gives energy and forces.
    saddle
        With ``forces`` and ``mode``.
    springs
        Metric.
    calls
        Force calls, one per direction; up to twice as many before it is said that nothing goes down.
    seed
        Of the random direction.

    Returns
    -------
    curvatures : ndarray, shape (n_directions,)
        Ascending, dimensionless.
    modes : ndarray, shape (n_directions, n_atoms, 3)
        Unit vectors.
    """
    assert saddle.mode is not None and saddle.forces is not None
    shape = saddle.positions.shape
    noise = np.random.default_rng(seed).normal(size=shape) * np.sqrt((saddle.mode**2).sum(axis=1))[:, None]
    waiting = [saddle.mode, springs.solve(noise)]
    # translations, which have no stiffness of their own, are kept out
    shift = np.tile(np.eye(3), (1, len(noise))) / np.sqrt(float(springs.multiply(np.ones(shape))[:, 0].sum()))
    shift = shift[: 0 if len(noise) == 1 else 3]  # a single atom moves in a field
    pushed = np.array([springs.multiply(row.reshape(shape)).ravel() for row in shift]).reshape(shift.shape)
    basis, dual, images = (np.empty((0, saddle.positions.size)) for _ in range(3))
    values, ritz = np.empty(0), np.empty((0, 0))
    for call in range(min(2 * calls, saddle.positions.size)):
        if call >= calls and values[0] < UNSTABLE:
            break
        if waiting:
            v = waiting.pop(0).ravel()
        else:  # the lowest is known from the climb: expand by the residual of the second, unless the lowest is in doubt
            k = min(1, len(values) - 1) if values[0] < UNSTABLE else 0
            v = springs.solve((ritz[:, k] @ (images - values[k] * dual)).reshape(shape)).ravel()
        pv = springs.multiply(v.reshape(shape)).ravel()
        size = float(v @ pv)
        for _ in range(2):  # once more for the rounding
            share, rigid = dual @ v, pushed @ v
            v, pv = v - share @ basis - rigid @ shift, pv - share @ dual - rigid @ pushed
        rest = float(v @ pv)
        if rest <= 1e-10 * size:
            continue
        v, pv = v / np.sqrt(rest), pv / np.sqrt(rest)
        width = _DIFFERENCE / float(np.sqrt((v.reshape(shape) ** 2).sum(axis=1).max()))
        _, forces = evaluate(saddle.positions + width * v.reshape(shape))
        basis, dual = np.vstack([basis, v]), np.vstack([dual, pv])
        images = np.vstack([images, (saddle.forces - forces).ravel() / width])
        small = basis @ images.T
        values, ritz = np.linalg.eigh(0.5 * (small + small.T))
    modes = (ritz.T @ basis).reshape(-1, *shape)
    return values, modes / np.sqrt((modes**2).sum(axis=(1, 2)))[:, None, None]


def in_basin(positions: NDArray, energy: float, forces: NDArray, end: Relaxation, *, noise: float) -> bool:
    """Say whether a point lies in the harmonic basin of a minimum.

    There E − E₀ = ½ F·(x₀ − x); in the basin of another minimum the forces point elsewhere, or vanish.

    Parameters
    ----------
    positions, energy, forces
        The point, Å, eV, eV/Å.
    end
        The minimum.
    noise
        Energy, eV, that was allowed to be left in the end.
    """
    away = end.positions - positions
    if float((away**2).sum(axis=1).max()) > _NEAR**2:
        return False
    above, harmonic = energy - end.energy, 0.5 * float((forces * away).sum())
    return abs(above - harmonic) <= _HARMONIC * max(above, 0.0) + noise + _NOISE


def descend(
    evaluate: Evaluate,
    saddle: Relaxation,
    direction: NDArray[np.float64],
    ends: Sequence[Relaxation],
    springs: SpringPreconditioner,
    *,
    fmax: float = 0.05,
    max_calls: int = 100,
    max_step: float = 0.3,
    accuracy: float = 0.002,
) -> Descent:
    """Go down from a saddle until it is clear where the way leads.

    Parameters
    ----------
    evaluate
        Gives energy and forces.
    saddle
        Where to begin.
    direction : ndarray, shape (n_atoms, 3)
        First displacement; its length does not matter.
    ends
        Known minima.
    springs
        Preconditioner.
    fmax, max_calls, max_step, accuracy
        Of the relaxation, as in :class:`~ase_kinoson.barriers.hop.SaddleSettings`.
    """
    reached = -1

    def arrived(positions: NDArray, energy: float, forces: NDArray) -> bool:
        nonlocal reached
        if energy < saddle.energy:
            for k, end in enumerate(ends):
                if in_basin(positions, energy, forces, end, noise=accuracy):
                    reached = k
        return reached >= 0

    start = saddle.positions + direction * (_PUSH / float(np.sqrt((direction**2).sum(axis=1).max())))
    last = lbfgs(evaluate, start, springs, fmax, max_calls, max_step, accuracy=accuracy, stop=arrived)
    if reached < 0 and last.converged:
        for k, end in enumerate(ends):
            away = float(((end.positions - last.positions) ** 2).sum(axis=1).max())
            if away <= _NEAR**2 and abs(end.energy - last.energy) <= _SAME:
                reached = k
    return Descent(reached, reached >= 0 or last.converged, last)
