"""One search: the rungs tried for one jump, until one leads to a saddle that passes the checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

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
        self.open_ends: list[tuple[Relaxation, Check]] = []
        try:
            status, reason = self.ways_up(path)
        except LimitReachedError as error:
            if not self.open_ends:
                raise
            status, reason = error.status, str(error)
        if status == "ok" or not self.open_ends or settings.side_basin == "reject":
            return status, reason
        top, check = max(self.open_ends, key=lambda known: (known[1].n_unstable == 1, known[0].energy))
        self.record(top, replace(check, unsettled=check.unsettled or reason))
        reason = check.unsettled or reason
        self.path.append(f"kept: the highest saddle known, {top.energy - state.energy:.4f} eV; {reason}")
        return self.accept(path, top)[0], reason

    def ways_up(self, path: JumpPath) -> tuple[str, str]:
        """Climb rung after rung until a saddle passes; those that belong to the jump but leave a question are kept."""
        host, settings = self.host, self.settings
        status, reason = "not-converged", "no saddle search is allowed by the settings"
        rungs = deque(self.ladder(path))
        refused: list[tuple[Relaxation, str]] = []
        ridges: list[Relaxation] = []
        spare: list[tuple[Relaxation, Check]] = []
        highest_end = max(path.begin.energy, path.end.energy)
        while rungs:
            label, run = rungs.popleft()
            self.watch(host.positions + 0.5 * (path.ideal - host.positions), path)
            found, problem = self.attempt(label, run)
            if found is None:
                status, reason = problem
                continue
            if not found.converged:
                status = "not-converged"
                reason = f"{label}: largest force {found.fmax:.3g} eV/Å, {settings.fmax_saddle:.3g} asked"
                continue
            again = next((text for old, text in refused if same_point(old, found)), "")
            wrong, top = again or self.check_saddle(path, found), found
            try:
                check = Check(wrong) if wrong or not settings.verify else self.verify(path, found)
                if not check.wrong:
                    self.open_ends.append((found, check))  # a limit may end the search behind it
                    top, check = self.beyond(path, found, check)
            except CalculatorFailedError as error:  # nothing is known of this saddle: it may be found, and pass, again
                status, reason = "calculator-failed", f"{label}: the check of the saddle: {error}{self.renew()}"
                self.path[-1] += "; the calculator failed in the check of the saddle"
                continue
            self.record(top, check if settings.verify else Check(checked=False))
            wrong = check.wrong or check.unsettled
            if not wrong:
                return self.accept(path, top)
            if check.unsettled:
                self.open_ends[-1] = (top, check)
            if check.off_ridge is not None and check.mode is not None:
                rungs.extendleft([] if ridges else self.off_ridge(path, found, check.off_ridge, check.mode))
                ridges.append(found)
            status, reason = check.status, f"{label}: {wrong}"
            verdict = "unsettled" if check.unsettled else status.replace("-", " ")
            self.path[-1] += f"; {verdict}: {'the same again' if again else wrong}"
            refused.append((found, wrong))
            if found is self.top_of_band and not self.check_saddle(path, found):
                spare.append((found, replace(check, wrong="", unsettled=f"top of a band, an upper bound; {wrong}")))
            if found.energy < highest_end and not self.check_geometry(path, found, settings.between):
                known = Check(unsettled=f"the higher end is the highest point known; of the saddle, {wrong}")
                spare.append((replace(found, energy=highest_end), known))
        if not self.open_ends:
            self.open_ends = self.bounds(path, ridges) or spare
        return status, reason

    def bounds(self, path: JumpPath, ridges: list[Relaxation]) -> list[tuple[Relaxation, Check]]:
        """Keep ridges that lead to both ends: upper bounds of a barrier whose saddle was not found."""
        found = []
        for ridge in ridges:
            try:
                check = self.verify(path, ridge, ridge=True)
            except CalculatorFailedError as error:
                check = Check(f"the calculator failed: {error}{self.renew()}")
            self.path.append(f"ways down from the ridge: {check.wrong or 'to both ends'}")
            found += [] if check.wrong else [(ridge, check)]
        return found

    def record(self, saddle: Relaxation, check: Check) -> None:
        """Note a saddle and what its check says."""
        self.known |= {
            "energy_saddle": saddle.energy,
            "fmax_saddle": saddle.fmax,
            "saddle_positions": saddle.positions,
            **check.fields(),
        }

    def off_ridge(
        self, path: JumpPath, found: Relaxation, aside: NDArray[np.float64], mode: NDArray[np.float64]
    ) -> list[tuple[str, Callable[[], Relaxation]]]:
        """Ways from a ridge to the saddles on either side of it."""
        push = aside * (_PUSH / np.sqrt((aside**2).sum(axis=1).max()))
        starts = ((_OFF_RIDGE, found.positions + push), (f"{_OFF_RIDGE}, other side", found.positions - push))
        return [(label, partial(self.climb, start, mode, path.gate)) for label, start in reversed(starts)]

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
