"""Reference barrier of one jump with any ASE calculator.

The two ends of a jump are relaxed, then one image climbs from their mid-point: up the one mode that goes down on both
sides, at first the direction between the *relaxed* ends, and down all others, by a quasi-Newton method in the metric of
bond springs of the ideal lattice. Where that fails it tries again from other points between the ends, then a plain
L-BFGS with the fixed direction tries, and a climbing-image band (Henkelman, Uberuaga and Jónsson, J. Chem. Phys. 113,
9901 (2000)) is the last resort. What was tried is part of the result.

A saddle counts when its force has converged, exactly one direction goes down from it, the moving atom lies between its
sites, and both ways down lead to the two ends. A way down may end in another minimum of the same sites: then a higher
saddle is looked for behind that minimum, the highest one is the barrier, and the result says so. Where the way behind
cannot be settled, the highest saddle known is kept and marked.

Nothing here raises for a jump that goes wrong: the result says what happened. Positions are never wrapped into the
cell, so the vector between the two ends is the minimum-image one by construction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ase_kinoson.barriers.checks import from_sites
from ase_kinoson.barriers.climb import climb, climbing_band
from ase_kinoson.barriers.hop import (
    DESCENTS,
    STATUSES,
    Hop,
    Host,
    JumpResult,
    SaddleSettings,
    StateResult,
    symbol_of,
)
from ase_kinoson.barriers.optimise import Budget, LimitReachedError, Relaxation, relax
from ase_kinoson.barriers.search import Search

__all__ = [
    "DESCENTS",
    "STATUSES",
    "Hop",
    "Host",
    "JumpResult",
    "Relaxation",
    "SaddleSettings",
    "StateResult",
    "climb",
    "climbing_band",
    "find_saddle",
    "relax",
    "relax_state",
]


# -- states and jumps ---------------------------------------------------------------------------------------------


def relax_state(
    host: Host,
    calculator: Any,
    *,
    settings: SaddleSettings | None = None,
    make_calculator: Callable[[], Any] | None = None,
) -> StateResult:
    """Relax an initial state from its ideal sites; never raises for a state that goes wrong.

    Parameters
    ----------
    host
        The state.
    calculator
        ASE calculator.
    settings
        Default: ``SaddleSettings()``.
    make_calculator
        Gives a fresh calculator where the first one fails.
    """
    settings = settings or SaddleSettings()
    began = time.perf_counter()
    search = Search(host, calculator, make_calculator, settings, Budget(None, settings.time_limit_s))
    try:
        end, (status, reason) = search.relax(
            host.positions, host.positions, host.preconditioner(settings), settings.fmax_initial, "initial state"
        )
    except LimitReachedError as error:
        end, status, reason = None, error.status, f"initial state: {error}"
    if end is not None and end.converged:
        status, reason = "ok", ""
        away = from_sites(end.positions, host.positions)
        worst = int((away / host.spacing).argmax())
        limit = settings.site_tolerance * host.spacing[worst]
        if away[worst] > limit:
            status = "unstable-start"
            reason = (
                f"the initial state relaxes away: atom {worst} ({symbol_of(host, worst)}) ends {away[worst]:.2f} Å "
                f"from its site, more than {limit:.2f} Å; all its jumps are rejected"
            )
    if end is None:
        end = Relaxation(host.positions, np.nan, np.nan, 0, False)
    return StateResult(
        status,
        reason,
        end.positions,
        end.energy,
        end.fmax,
        search.budget.calls,
        tuple(search.path),
        time.perf_counter() - began,
    )


def find_saddle(
    host: Host,
    hop: Hop,
    state: StateResult,
    calculator: Any,
    *,
    settings: SaddleSettings | None = None,
    make_calculator: Callable[[], Any] | None = None,
) -> JumpResult:
    """Relax the end of a jump and find the saddle between; never raises for a jump that goes wrong.

    Parameters
    ----------
    host, hop
        The atoms and the one that moves.
    state
        The relaxed initial state.
    calculator
        ASE calculator.
    settings
        Default: ``SaddleSettings()``.
    make_calculator
        Calculator factory; needed for the climbing-image band and for a fresh calculator after a failure.
    """
    settings = settings or SaddleSettings()
    began = time.perf_counter()
    search = Search(host, calculator, make_calculator, settings, Budget(settings.max_calls, settings.time_limit_s))
    try:
        status, reason = search.jump(hop, state)
    except LimitReachedError as error:
        status, reason = error.status, str(error)
    return JumpResult(
        status,
        reason,
        **search.known,
        energy_initial=state.energy,
        force_calls=search.budget.calls,
        verify_calls=search.verify_calls,
        prefactor_calls=search.prefactor_calls,
        path=tuple(search.path),
        wall_s=time.perf_counter() - began,
    )
