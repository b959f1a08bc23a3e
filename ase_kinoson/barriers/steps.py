"""The steps of a search: relaxations and ways up with one calculator, counted, guarded and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.climb import band_counted, mode_climb
from ase_kinoson.barriers.hop import Hop, Host, SaddleSettings, symbol_of
from ase_kinoson.barriers.optimise import (
    Budget,
    CalculatorFailedError,
    CountedForces,
    LimitReachedError,
    Relaxation,
    RunawayError,
    lbfgs,
)
from ase_kinoson.barriers.preconditioner import SpringPreconditioner

__all__ = ["STRAY", "JumpPath", "Steps"]

STRAY = 0.1
"""The moving atom may stray this fraction of its way beyond either site during a climb."""
_PATIENCE = 3
"""How many times the usual force calls the last climb may take."""


@dataclass(frozen=True, eq=False)
class JumpPath:
    """What is known of a jump before its saddle: the relaxed ends and the springs half-way."""

    hop: Hop
    begin: Relaxation
    end: Relaxation
    ideal: NDArray[np.float64]
    gate: SpringPreconditioner

    def along(self, positions: NDArray) -> float:
        """Place of the moving atom as a fraction of its way."""
        way = self.end.positions[self.hop.mover] - self.begin.positions[self.hop.mover]
        gone = positions[self.hop.mover] - self.begin.positions[self.hop.mover]
        return float((gone * way).sum() / (way * way).sum())


class Steps:
    """A calculator, a budget of force calls, and the record of what was done with them.

    Parameters
    ----------
    host, calculator, make, settings
        As in :func:`~ase_kinoson.barriers.saddle.find_saddle`.
    budget
        Force calls and time.
    """

    def __init__(
        self, host: Host, calculator: Any, make: Callable[[], Any] | None, settings: SaddleSettings, budget: Budget
    ) -> None:
        self.host, self.settings, self.make, self.budget = host, settings, make, budget
        self.forces = CountedForces(host.atoms(), calculator, budget=budget)
        self.path: list[str] = []
        self.known: dict[str, Any] = {}
        self.verify_calls = self.prefactor_calls = 0
        self.top_of_band: Relaxation | None = None

    def attempt(self, label: str, run: Callable[[], Relaxation]) -> tuple[Relaxation | None, tuple[str, str]]:
        """Run one step, record it, and turn its failure into a status and a reason."""
        before = self.budget.calls
        try:
            found = run()
        except LimitReachedError as error:
            self.path.append(f"{label}: stopped after {self.budget.calls - before} calls; {error}")
            raise
        except RunawayError as error:
            self.path.append(f"{label}: ran away after {self.budget.calls - before} calls")
            return None, ("not-converged", f"{label}: ran away: {error}")
        except Exception as error:
            text = str(error) if isinstance(error, CalculatorFailedError) else f"{type(error).__name__}: {error}"
            self.path.append(f"{label}: calculator failed after {self.budget.calls - before} calls")
            return None, ("calculator-failed", f"{label}: {text}{self.renew()}")
        verdict = "converged" if found.converged else "not converged"
        self.path.append(f"{label}: {verdict} to {found.fmax:.3g} eV/Å in {self.budget.calls - before} calls")
        return found, ("", "")

    def renew(self) -> str:
        """Replace a calculator that failed by a fresh one; say why there is none."""
        try:
            if self.make is not None:
                self.forces.atoms.calc = self.make()
        except Exception as error:
            return f"; a fresh calculator could not be made ({type(error).__name__}: {error})"
        return ""

    def watch(self, ideal: NDArray[np.float64], path: JumpPath | None = None) -> None:
        """End what follows as a runaway when atoms leave the neighbourhood of their sites or the energy explodes."""
        host, settings = self.host, self.settings
        first: list[float] = []
        reach = settings.runaway_distance * host.spacing

        def guard(positions: NDArray[np.float64], energy: float) -> str:
            first.append(energy)
            del first[1:]
            if energy > first[0] + settings.runaway_energy:
                return f"the energy rose by {energy - first[0]:.3g} eV"
            away = np.sqrt(((positions - ideal) ** 2).sum(axis=1))
            if (away > reach).any():
                worst = int((away / reach).argmax())
                return f"atom {worst} ({symbol_of(host, worst)}) is {away[worst]:.2f} Å from its place"
            if path is not None:
                along = path.along(positions)
                if not -STRAY <= along <= 1.0 + STRAY:
                    return f"the moving atom left the way between its sites (it is at {along:.2f} of it)"
            return ""

        self.forces.guard = guard

    def relax(
        self, start: NDArray, ideal: NDArray, springs: SpringPreconditioner, fmax: float, what: str
    ) -> tuple[Relaxation | None, tuple[str, str]]:
        """Relax with the springs, then plainly; return the last attempt and (status, reason) if it failed."""
        limit, step, accuracy = self.settings.max_relax_calls, self.settings.max_step, self.settings.accuracy
        quick = min(limit, max(40, limit // 3))
        self.watch(ideal)
        found, problem = self.attempt(
            f"relax {what}", lambda: lbfgs(self.forces, start, springs, fmax, quick, step, accuracy=accuracy)
        )
        if found is None or not found.converged:
            self.watch(ideal)
            found, problem = self.attempt(
                f"relax {what}, plain L-BFGS", lambda: lbfgs(self.forces, start, None, fmax, limit, min(step, 0.1))
            )
        if found is None:
            return None, problem
        return found, (
            "not-converged",
            f"{what}: largest force {found.fmax:.3g} eV/Å after {found.force_calls} calls, {fmax:.3g} asked",
        )

    def climb(self, start: NDArray, tangent: NDArray, gate: SpringPreconditioner) -> Relaxation:
        """One image, with springs."""
        s = self.settings
        return mode_climb(
            self.forces, start, tangent, gate, s.fmax_saddle, s.max_climb_calls, s.max_step, accuracy=s.accuracy
        )

    def plain_climb(self, start: NDArray, tangent: NDArray) -> Relaxation:
        """One image, without springs, the force along a fixed direction reversed."""
        s = self.settings
        return lbfgs(self.forces, start, None, s.fmax_saddle, s.max_plain_calls, min(s.max_step, 0.1), tangent)

    def band(self, path: JumpPath) -> Relaxation:
        """Many images, each with its calculator; where they do not converge, one climbs on from the highest."""
        assert self.make is not None
        s, atoms = self.settings, self.host.atoms()
        forces = [CountedForces(atoms, self.make(), budget=self.budget) for _ in range(s.band_images)]
        found = band_counted(forces, path.begin, path.end, s.fmax_saddle, s.max_band_steps)
        if found.converged or not s.max_climb_calls:
            self.top_of_band = found if found.converged else None
            return found
        assert found.mode is not None
        calls = _PATIENCE * s.max_climb_calls
        return mode_climb(
            self.forces, found.positions, found.mode, path.gate, s.fmax_saddle, calls, s.max_step, accuracy=s.accuracy
        )

    def climbs(
        self, path: JumpPath, starts: tuple[tuple[str, float], ...]
    ) -> list[tuple[str, Callable[[], Relaxation]]]:
        """Preconditioned climbs from points between the ends, given as names and shares of the way.

        They are counted from the lower end, so that a jump and its reverse try the same ones in the same order.
        """
        away = path.end.positions - path.begin.positions
        tangent = away / np.sqrt((away**2).sum())
        low = path.begin.energy <= path.end.energy
        return [
            (
                f"preconditioned climb{name}",
                partial(self.climb, path.begin.positions + (share if low else 1.0 - share) * away, tangent, path.gate),
            )
            for name, share in starts
            if self.settings.max_climb_calls
        ]

    def bands(self, path: JumpPath) -> list[tuple[str, Callable[[], Relaxation]]]:
        """Return the last resort, where it is allowed."""
        if self.make is None or self.settings.band_images == 0 or self.settings.max_band_steps == 0:
            return []
        return [("climbing-image band", partial(self.band, path))]
