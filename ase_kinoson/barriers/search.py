"""One search: the rungs tried for one jump, until one leads to a saddle that passes the checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np

from ase_kinoson.barriers.checks import Check, Checks, same_point
from ase_kinoson.barriers.hop import Hop, StateResult
from ase_kinoson.barriers.optimise import CalculatorFailedError, LimitReachedError, Relaxation
from ase_kinoson.barriers.prefactor import vineyard_prefactors
from ase_kinoson.barriers.steps import JumpPath

__all__ = ["Search"]

_PUSH = 0.2
"""Å: how far the atom that moves most is pushed off a ridge from which two directions go down."""
_OFF_RIDGE = "preconditioned climb off the ridge"


class Search(Checks):
    """The search for one state or one jump; see :class:`Steps` for its parameters."""

    def jump(self, hop: Hop, state: StateResult) -> tuple[str, str]:
        """Find the saddle of a jump; return status and reason. What was found on the way is in ``known``."""
        host, settings = self.host, self.settings
        springs = host.preconditioner(settings)
        ideal = host.positions.copy()
        ideal[hop.mover] += hop.displacement
        start = state.positions.copy()
        start[hop.mover] += hop.displacement
        end, problem = self.relax(
            start, ideal, springs.moved(hop.mover, ideal[hop.mover]), settings.fmax_final, "end state"
        )
        if end is None or not end.converged:
            return problem
        self.known = {"energy_final": end.energy, "fmax_final": end.fmax, "final_positions": end.positions}
        left = self.check_end(hop, end.positions, ideal)
        if left is not None:
            return left
        begin = Relaxation(state.positions, state.energy, state.fmax, 0, True)
        gate = springs.moved(hop.mover, host.positions[hop.mover] + 0.5 * hop.displacement)
        path = JumpPath(hop, begin, end, ideal, gate)
        status, reason = "not-converged", "no saddle search is allowed by the settings"
        rungs = deque(self.ladder(path))
        refused: list[tuple[Relaxation, str]] = []
        on_ridge = False
        while rungs:
            label, run = rungs.popleft()
            self.watch(host.positions + 0.5 * (ideal - host.positions), path)
            found, problem = self.attempt(label, run)
            if found is None:
                status, reason = problem
                continue
            if not found.converged:
                status = "not-converged"
                reason = f"{label}: largest force {found.fmax:.3g} eV/Å, {settings.fmax_saddle:.3g} asked"
                continue
            again = next((text for old, text in refused if same_point(old, found)), "")
            wrong = again or self.check_saddle(path, found)
            try:
                check = Check(wrong) if wrong or not settings.verify else self.verify(path, found)
                if not check.wrong:
                    found, check = self.beyond(path, found, check)
            except CalculatorFailedError as error:  # nothing is known of this saddle: it may be found, and pass, again
                status, reason = "calculator-failed", f"{label}: the check of the saddle: {error}{self.renew()}"
                self.path[-1] += "; the calculator failed in the check of the saddle"
                continue
            self.known |= {
                "energy_saddle": found.energy,
                "fmax_saddle": found.fmax,
                "saddle_positions": found.positions,
                **(check if settings.verify else Check(checked=False)).fields(),
            }
            if not check.wrong:
                return self.accept(path, found)
            if check.off_ridge is not None and check.mode is not None and not on_ridge:
                on_ridge = True
                start = found.positions + _PUSH * check.off_ridge / np.sqrt((check.off_ridge**2).sum(axis=1).max())
                rungs.appendleft((_OFF_RIDGE, partial(self.climb, start, check.mode, path.gate)))
            status, reason = check.status, f"{label}: {check.wrong}"
            self.path[-1] += f"; {status.replace('-', ' ')}: {'the same again' if again else check.wrong}"
            if status != "calculator-failed":
                refused.append((found, check.wrong))
        return status, reason

    def ladder(self, path: JumpPath) -> list[tuple[str, Callable[[], Relaxation]]]:
        """Ways up, cheapest first."""
        rungs = self.climbs(
            path, (("", 0.5), (" from nearer the lower end", 0.4), (" from nearer the higher end", 0.6))
        )
        if self.settings.max_plain_calls:
            away = path.end.positions - path.begin.positions
            start, tangent = path.begin.positions + 0.5 * away, away / np.sqrt((away**2).sum())
            rungs.append(("plain climb", partial(self.plain_climb, start, tangent)))
        return rungs + self.bands(path)

    def accept(self, path: JumpPath, saddle: Relaxation) -> tuple[str, str]:
        """Decide on a side basin by the policy, and add the prefactors."""
        if self.settings.side_basin == "reject" and self.known["descents"] == "side-basin":
            depth = max(saddle.energy - e for e in (self.known["side_initial"], self.known["side_final"]) if e == e)
            return "side-basin", f"a way down from the saddle ends in another minimum, {depth:.3f} eV below it"
        if self.settings.prefactor == "vineyard":
            before = self.budget.calls
            self.forces.guard = None
            points, radius = (path.begin, saddle, path.end), self.settings.prefactor_radius
            try:
                forward, reverse, problem = vineyard_prefactors(self.forces, self.host, path.hop, points, radius=radius)
            except (CalculatorFailedError, LimitReachedError) as error:  # the barrier stands without it
                forward, reverse, problem = np.nan, np.nan, f"failed: {error}"
            finally:
                self.prefactor_calls = self.budget.calls - before
            self.known |= {"prefactor": forward, "reverse_prefactor": reverse}
            self.path.append(f"prefactors: {problem or 'done'} in {self.prefactor_calls} calls")
        return "ok", ""
