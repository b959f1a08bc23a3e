"""Reference barrier of one jump with any ASE calculator.

The two ends of a jump are relaxed, then one image climbs from their mid-point: the force component along the fixed
unit vector between the *relaxed* ends is reversed, and an L-BFGS, preconditioned by bond springs of the ideal lattice,
brings the true force to zero. Where that fails a plain L-BFGS tries again, and a climbing-image band (Henkelman,
Uberuaga and Jónsson, J. Chem. Phys. 113, 9901 (2000)) is the last resort. What was tried is part of the result.

Nothing here raises for a jump that goes wrong: the result says what happened. Positions are never wrapped into the
cell, so the vector between the two ends is the minimum-image one by construction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.climb import band_counted, climb, climb_counted, climbing_band
from ase_kinoson.barriers.hop import (
    STATUSES,
    Hop,
    Host,
    JumpResult,
    SaddleSettings,
    StateResult,
    symbol_of,
)
from ase_kinoson.barriers.preconditioner import (
    CalculatorFailedError,
    CountedForces,
    Relaxation,
    SpringPreconditioner,
    lbfgs,
    relax,
)

__all__ = [
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
    search = _Search(host, calculator, make_calculator, settings)
    end, problem = search.relax(host.positions, host.preconditioner(settings), settings.fmax_initial, "initial state")
    status, reason = "ok", ""
    if end is None or not end.converged:
        status, reason = problem
    else:
        away = _from_sites(end.positions, host.positions)
        worst = int((away / host.spacing).argmax())
        if away[worst] > settings.site_tolerance * host.spacing[worst]:
            status = "unstable-start"
            reason = (
                f"the initial state relaxes away: atom {worst} ({symbol_of(host, worst)}) ends {away[worst]:.2f} Å "
                "from its "
                f"site, more than {settings.site_tolerance * host.spacing[worst]:.2f} Å; all its jumps are rejected"
            )
    if end is None:
        end = Relaxation(host.positions, np.nan, np.nan, 0, False)
    return StateResult(
        status,
        reason,
        end.positions,
        end.energy,
        end.fmax,
        search.calls,
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
    search = _Search(host, calculator, make_calculator, settings)
    result = search.jump(hop, state)
    return JumpResult(
        **result,
        energy_initial=state.energy,
        force_calls=search.calls,
        path=tuple(search.path),
        wall_s=time.perf_counter() - began,
    )


class _Search:
    """One search: its calculator, its count of force calls and its path."""

    def __init__(self, host: Host, calculator: Any, make: Callable[[], Any] | None, settings: SaddleSettings) -> None:
        self.host, self.settings, self.make = host, settings, make
        self.forces = CountedForces(host.atoms(), calculator)
        self.extra_calls = 0
        self.path: list[str] = []

    @property
    def calls(self) -> int:
        return self.forces.calls + self.extra_calls

    def attempt(self, label: str, run: Callable[[], Relaxation]) -> tuple[Relaxation | None, str]:
        """Run one step, record it, and turn a failure of the calculator into text."""
        before = self.calls
        try:
            found = run()
        except Exception as error:
            text = str(error) if isinstance(error, CalculatorFailedError) else f"{type(error).__name__}: {error}"
            self.path.append(f"{label}: calculator failed after {self.calls - before} calls")
            if self.make is not None:
                try:
                    self.forces.atoms.calc = self.make()
                except Exception as again:
                    text = f"{text}; a fresh calculator could not be made ({type(again).__name__}: {again})"
            return None, text
        verdict = "converged" if found.converged else "not converged"
        self.path.append(f"{label}: {verdict} to {found.fmax:.3g} eV/Å in {self.calls - before} calls")
        return found, ""

    def relax(
        self, start: NDArray, preconditioner: SpringPreconditioner, fmax: float, what: str
    ) -> tuple[Relaxation | None, tuple[str, str]]:
        """Relax with the springs, then plainly; return the last attempt and (status, reason) if it failed."""
        limit, step = self.settings.max_relax_calls, self.settings.max_step
        quick = min(limit, max(40, limit // 3))
        found, text = self.attempt(
            f"relax {what}", lambda: lbfgs(self.forces, start, preconditioner, fmax, quick, step)
        )
        if found is None or not found.converged:
            found, text = self.attempt(
                f"relax {what}, plain L-BFGS", lambda: lbfgs(self.forces, start, None, fmax, limit, min(step, 0.1))
            )
        if found is None:
            return None, ("calculator-failed", f"{what}: {text}")
        return found, (
            "not-converged",
            f"{what}: largest force {found.fmax:.3g} eV/Å after {found.force_calls} calls, {fmax:.3g} asked",
        )

    def jump(self, hop: Hop, state: StateResult) -> dict[str, Any]:
        """Return status, reason, energies and positions of a jump."""
        host, settings = self.host, self.settings
        springs = host.preconditioner(settings)
        ideal_end = host.positions.copy()
        ideal_end[hop.mover] += hop.displacement
        start = state.positions.copy()
        start[hop.mover] += hop.displacement
        end, problem = self.relax(
            start, springs.moved(hop.mover, ideal_end[hop.mover]), settings.fmax_final, "end state"
        )
        if end is None or not end.converged:
            return {"status": problem[0], "reason": problem[1]}
        reached = {"energy_final": end.energy, "fmax_final": end.fmax, "final_positions": end.positions}
        left = self.check_end(hop, end.positions, ideal_end)
        if left is not None:
            return {"status": left[0], "reason": left[1], **reached}
        begin = Relaxation(state.positions, state.energy, state.fmax, 0, True)
        gate = springs.moved(hop.mover, host.positions[hop.mover] + 0.5 * hop.displacement)
        step = settings.max_step
        tight = settings.fmax_saddle
        ladder: list[tuple[str, Callable[[], Relaxation]]] = []
        for label, limit, springs_there, length in (
            ("preconditioned climb", settings.max_climb_calls, gate, step),
            ("plain climb", settings.max_plain_calls, None, min(step, 0.1)),
        ):
            if limit:
                ends = (begin.positions, end.positions)
                ladder.append((label, partial(climb_counted, self.forces, *ends, springs_there, tight, limit, length)))
        if self.make is not None and settings.band_images > 0 and settings.max_band_steps > 0:
            ladder.append(("climbing-image band", partial(self.band, begin, end)))
        status, reason = "not-converged", "no saddle search is allowed by the settings"
        for label, run in ladder:
            found, text = self.attempt(label, run)
            if found is None:
                status, reason = "calculator-failed", f"{label}: {text}"
                continue
            if not found.converged:
                status = "not-converged"
                reason = f"{label}: largest force {found.fmax:.3g} eV/Å, {settings.fmax_saddle:.3g} asked"
                continue
            wrong = self.check_saddle(hop, found, begin, end, ideal_end)
            saddle = {
                "energy_saddle": found.energy,
                "fmax_saddle": found.fmax,
                "saddle_positions": found.positions,
                **reached,
            }
            if not wrong:
                return {"status": "ok", "reason": "", **saddle}
            self.path[-1] += "; wrong saddle"
            status, reason, reached = "wrong-saddle", f"{label}: {wrong}", saddle
        return {"status": status, "reason": reason, **reached}

    def band(self, begin: Relaxation, end: Relaxation) -> Relaxation:
        assert self.make is not None
        forces = [CountedForces(self.host.atoms(), self.make()) for _ in range(self.settings.band_images)]
        try:
            return band_counted(forces, begin, end, self.settings.fmax_saddle, self.settings.max_band_steps)
        finally:
            self.extra_calls += sum(f.calls for f in forces)

    def check_end(self, hop: Hop, positions: NDArray, ideal: NDArray) -> tuple[str, str] | None:
        """Say whether the end state kept its atoms on their sites."""
        host = self.host
        away = _from_sites(positions, ideal)
        out = away > self.settings.site_tolerance * host.spacing
        if not out.any():
            return None
        if out[hop.mover]:
            return "unstable-end", (
                f"the end state relaxes away: atom {hop.mover} ({symbol_of(host, hop.mover)}) ends "
                f"{away[hop.mover]:.2f} Å "
                "from the site it jumped to; both directions are rejected"
            )
        worst = int((away / host.spacing).argmax())
        return "left-site", (
            f"atom {worst} ({symbol_of(host, worst)}), which does not jump, ends {away[worst]:.2f} Å from its site "
            "in the end state"
        )

    def check_saddle(self, hop: Hop, found: Relaxation, begin: Relaxation, end: Relaxation, ideal: NDArray) -> str:
        """Return why a stationary point is not the saddle of this jump; empty if it is."""
        settings, host = self.settings, self.host
        way = end.positions[hop.mover] - begin.positions[hop.mover]
        along = float(((found.positions[hop.mover] - begin.positions[hop.mover]) * way).sum() / (way * way).sum())
        low, high = settings.between
        if not low <= along <= high:
            return f"the moving atom is at {along:.2f} of its way; expected {low:g} to {high:g}"
        below = max(begin.energy, end.energy) - found.energy
        if below > settings.energy_tolerance:
            return f"its energy is {below:.4f} eV below an end state"
        away = _from_sites(found.positions, ideal, skip=hop.mover)
        worst = int((away / host.spacing).argmax())
        if away[worst] > settings.site_tolerance * host.spacing[worst]:
            return f"atom {worst} ({symbol_of(host, worst)}), which does not jump, is {away[worst]:.2f} Å from its site"
        return ""


def _from_sites(positions: NDArray, ideal: NDArray, *, skip: int | None = None) -> NDArray:
    """Distance of each atom from its site after removal of a rigid drift, Å, shape (n_atoms,); 0 for ``skip``."""
    away = positions - ideal
    keep = np.arange(len(away)) != skip
    away = away - (away[keep].mean(axis=0) if keep.any() else 0.0)
    return np.where(keep, np.sqrt((away**2).sum(axis=1)), 0.0)
