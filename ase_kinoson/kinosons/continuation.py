"""Where the ladder does not settle: walkers that go on until displacements have forgotten the start.

Near percolation a carrier may take thousands of jumps to find its way out of a cluster, and no sum of moments along
short trajectories sees that. The plain ladder ⟨|X(t) + y(t) − y(0)|²⟩/(2dt) still converges, with y = 0 at the price
of longer lags; its slopes (:mod:`.slopes`) then take the place of the rungs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.states import States
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.coefficients import Averages
from ase_kinoson.kinosons.ladder import Ladder
from ase_kinoson.kinosons.trajectories import run_kmc

__all__ = ["contradicted", "go_on", "incomplete", "unsettled"]

MISSING = 0.01
"""Tails below this part of the value are no reason to go on."""

DOUBTFUL = 0.5
"""Tails above this part of the error are a reason to go on, if walkers are asked for."""

APART = 2.5
"""Standard errors by which the plain ladder must lie lower to contradict."""


def incomplete(ladder: Ladder, name: str) -> bool:
    """Whether the tail of a quantity is more than noise."""
    rungs = ladder.rungs[name]
    value, spread = float(rungs.value[rungs.chosen]), float(rungs.error[rungs.chosen])
    return rungs.tail > 2.0 * spread and rungs.tail > MISSING * value


def contradicted(ladder: Ladder, name: str) -> bool:
    """Whether mean squared displacements say that a quantity is lower than its ladder."""
    rungs = ladder.rungs[name]
    gap, error = ladder.apart.get(name, (0.0, np.inf))
    return gap > APART * error and gap > 2.0 * MISSING * float(rungs.value[rungs.chosen])


def unsettled(ladder: Ladder) -> list[str]:
    """Names of the quantities that need longer trajectories, also where noise may yet explain the tail."""

    def missing(name: str) -> bool:
        rungs = ladder.rungs[name]
        return rungs.tail > max(MISSING * float(rungs.value[rungs.chosen]), DOUBTFUL * float(rungs.error[rungs.chosen]))

    return [name for name in ladder.rungs if missing(name) or contradicted(ladder, name)]


def go_on(
    ladder: Ladder,
    states: States,
    rates: Rates,
    *,
    n_jumps: int,
    n_walkers: int,
    tracers: bool,
    seed: int,
    progress: bool,
) -> tuple[Ladder, Averages]:
    """Take the coefficients from walkers; return the ladder with their values, and their averages.

    The walkers' Λ/Λ[0] is what is kept: the ladder's Λ[0] then gives the values that stand beside its bound.

    Parameters
    ----------
    ladder
        What was found from short trajectories.
    states
        Equilibrium states of the rates, where the walkers start.
    rates
        Of the model.
    n_jumps
        Jumps per walker.
    n_walkers, tracers, seed, progress
        As in :func:`run_kmc`.
    """
    options: dict[str, Any] = {"attempt_frequency": rates.attempt_frequency}
    found = run_kmc(
        states,
        rates.network,
        rates.source,
        rates.temperature_K,
        n_jumps=n_jumps,
        n_walkers=n_walkers,
        tracers=tracers,
        seed=seed,
        n_resamples=len(ladder.collective) - 1,
        progress=progress,
        **options,
    )
    own = found.averages
    assert own is not None
    scale = _share(ladder.bare, own.collective_bare, rates.network.projector)
    pairs = np.sqrt(scale[:, :, None] * scale[:, None, :])[..., None, None]
    tracer = None if own.tracer is None else scale[..., None, None] * own.tracer
    moved = replace(ladder, collective=pairs * own.collective, tracer=tracer, n_continued=found.n_jumps_total, apart={})
    return moved, own


def _share(top: NDArray, bottom: NDArray, projector: NDArray) -> NDArray[np.float64]:
    """Ratio of the diagonals, shape (1 + R, S); 1 where nothing moves."""
    above, below = (np.einsum("raaxy,xy->ra", x, projector) for x in (top, bottom))
    return np.divide(above, below, out=np.ones_like(above), where=below > 0)
