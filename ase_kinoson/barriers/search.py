"""One search: the rungs tried for one jump, what each cost, and whether its saddle is the right one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.climb import band_counted, mode_climb
from ase_kinoson.barriers.descent import UNSTABLE, Descent, descend, in_basin, soft_directions
from ase_kinoson.barriers.hop import Hop, Host, SaddleSettings, StateResult, symbol_of
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
from ase_kinoson.barriers.prefactor import vineyard_prefactors

__all__ = ["Search", "from_sites"]

_STRAY = 0.1
"""The moving atom may stray this fraction of its way beyond either site during a climb."""
_ARRIVED = 0.3
"""The moving atom has arrived when it is this fraction of its way, or less, from a site."""
_PUSH = 0.2
"""Å: how far the atom that moves most is pushed off a ridge from which two directions go down."""
_SAME_PLACE, _SAME_ENERGY = 0.1, 1e-3
"""Å and eV: stationary points closer than this are one."""
_OFF_RIDGE = "preconditioned climb off the ridge"


@dataclass(frozen=True, eq=False)
class _Path:
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


@dataclass(frozen=True, eq=False)
class _Check:
    """What the descents from a saddle say; ``wrong`` is empty if it belongs to the jump, else ``status`` is that of it.

    Where more than one direction goes down, ``off_ridge`` is the second and ``mode`` the first of them.
    """

    wrong: str = ""
    status: str = "wrong-saddle"
    n_unstable: int = -1
    sides: tuple[Relaxation | None, Relaxation | None] = (None, None)
    checked: bool = True
    off_ridge: NDArray[np.float64] | None = None
    mode: NDArray[np.float64] | None = None

    def fields(self) -> dict[str, Any]:
        """As they stand in a :class:`JumpResult`."""
        initial, final = (np.nan if side is None else side.energy for side in self.sides)
        on_side = any(side is not None for side in self.sides)
        return {
            "descents": "not-checked" if not self.checked else "side-basin" if on_side else "both-ends",
            "n_unstable": self.n_unstable,
            "side_initial": initial,
            "side_final": final,
        }


class Search:
    """One search: its calculator, its budget of force calls and its path.

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

    # -- steps ----------------------------------------------------------------------------------------------------

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

    def watch(self, ideal: NDArray[np.float64], path: _Path | None = None) -> None:
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
                if not -_STRAY <= along <= 1.0 + _STRAY:
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

    # -- a jump ---------------------------------------------------------------------------------------------------

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
        path = _Path(hop, begin, end, ideal, gate)
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
            again = next((text for old, text in refused if _same(old, found)), "")
            wrong = again or self.check_saddle(path, found)
            try:
                check = _Check(wrong) if wrong or not settings.verify else self.verify(path, found)
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
                **(check if settings.verify else _Check(checked=False)).fields(),
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

    def ladder(self, path: _Path) -> list[tuple[str, Callable[[], Relaxation]]]:
        """Ways up, cheapest first."""
        rungs = self.climbs(
            path, (("", 0.5), (" from nearer the lower end", 0.4), (" from nearer the higher end", 0.6))
        )
        if self.settings.max_plain_calls:
            away = path.end.positions - path.begin.positions
            start, tangent = path.begin.positions + 0.5 * away, away / np.sqrt((away**2).sum())
            rungs.append(("plain climb", partial(self.plain_climb, start, tangent)))
        return rungs + self.bands(path)

    def climbs(self, path: _Path, starts: tuple[tuple[str, float], ...]) -> list[tuple[str, Callable[[], Relaxation]]]:
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

    def bands(self, path: _Path) -> list[tuple[str, Callable[[], Relaxation]]]:
        """Return the last resort, where it is allowed."""
        if self.make is None or self.settings.band_images == 0 or self.settings.max_band_steps == 0:
            return []
        return [("climbing-image band", partial(self.band, path.begin, path.end))]

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

    def band(self, begin: Relaxation, end: Relaxation) -> Relaxation:
        """Many images, each with its calculator."""
        assert self.make is not None
        atoms = self.host.atoms()
        forces = [CountedForces(atoms, self.make(), budget=self.budget) for _ in range(self.settings.band_images)]
        return band_counted(forces, begin, end, self.settings.fmax_saddle, self.settings.max_band_steps)

    def accept(self, path: _Path, saddle: Relaxation) -> tuple[str, str]:
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

    # -- checks ---------------------------------------------------------------------------------------------------

    def verify(self, path: _Path, saddle: Relaxation) -> _Check:
        """Count the ways down from a saddle and follow them.

        Raises
        ------
        CalculatorFailedError
            Then nothing is known of the saddle.
        """
        before = self.budget.calls
        self.watch(self.host.positions + 0.5 * (path.ideal - self.host.positions))
        try:
            return self.descents(path, saddle)
        except RunawayError as error:
            return _Check(f"the ways down from the saddle cannot be followed: {error}")
        finally:
            self.verify_calls += self.budget.calls - before

    def descents(self, path: _Path, saddle: Relaxation) -> _Check:
        """Do the work of :meth:`verify`."""
        settings = self.settings
        curvatures, modes = soft_directions(self.forces, saddle, path.gate)
        mode, n_unstable = modes[0], int((curvatures < UNSTABLE).sum())
        if n_unstable != 1:
            ridge = (modes[1], mode) if n_unstable > 1 else (None, None)
            return _Check(
                f"{n_unstable} directions go down from it; expected one",
                n_unstable=n_unstable,
                off_ridge=ridge[0],
                mode=ridge[1],
            )
        forward = float((mode * (path.end.positions - path.begin.positions)).sum()) > 0
        ways: list[Descent] = []
        for sign in (-1.0, 1.0) if forward else (1.0, -1.0):
            way = descend(
                self.forces,
                saddle,
                sign * mode,
                (path.begin, path.end),
                path.gate,
                fmax=settings.fmax_final,
                max_calls=settings.max_relax_calls,
                max_step=settings.max_step,
                accuracy=settings.accuracy,
            )
            ways.append(way)
            if way.end < 0:
                wrong = self.check_side(path, way)
                if wrong:
                    return _Check(wrong, n_unstable=n_unstable)
        reached = tuple(way.end for way in ways)
        if reached in ((0, 0), (1, 1)):
            return _Check(f"both ways down lead to the {('initial', 'final')[reached[0]]} state", n_unstable=n_unstable)
        if reached[0] == 1 or reached[1] == 0:  # the mode is bent: the signs say nothing, the ends are what counts
            ways.reverse()
        sides = tuple(None if way.end == k else way.last for k, way in enumerate(ways))
        return _Check(n_unstable=n_unstable, sides=(sides[0], sides[1]))

    def check_side(self, path: _Path, way: Descent) -> str:
        """Say why a minimum beside the ends does not belong to the jump; empty if all atoms are on their sites."""
        if not way.settled:
            return f"a way down does not come to rest in {way.last.force_calls} force calls"
        away = from_sites(way.last.positions, path.ideal, skip=path.hop.mover)
        worst = int((away / self.host.spacing).argmax())
        if away[worst] > self.settings.site_tolerance * self.host.spacing[worst]:
            return f"a way down leads to another jump: atom {worst} ({symbol_of(self.host, worst)}) leaves its site"
        along = path.along(way.last.positions)
        if not -_ARRIVED <= along <= 1.0 + _ARRIVED:
            return f"a way down leads to another site: the moving atom ends at {along:.2f} of its way"
        return ""

    def beyond(self, path: _Path, saddle: Relaxation, check: _Check) -> tuple[Relaxation, _Check]:
        """Look for a saddle between each side basin and the end behind it; the highest one is the barrier.

        A side basin in which the moving atom has arrived is another relaxation of the same state; no jump lies behind.

        Returns
        -------
        top
            The highest saddle.
        check
            Without side basins that turn out to be none. Its ``wrong`` and ``status`` tell where what lies behind one
            cannot be found; the barrier is then not known.
        """
        top, sides = saddle, list(check.sides)
        for k, (end, name) in enumerate(((path.begin, "initial"), (path.end, "final"))):
            side = sides[k]
            if side is None or abs(path.along(side.positions) - k) <= _ARRIVED:
                continue
            rest = replace(path, begin=side, end=end) if k else replace(path, begin=end, end=side)
            where = f"side basin to {name} state"
            status, wrong = "not-converged", f"{where}: no climb is allowed by the settings"
            starts = (
                ("", 0.5),
                (" from nearer the higher end", 0.8),
            )  # the saddle is near the basin where that is high
            for n, (label, run) in enumerate([*self.climbs(rest, starts), *self.bands(rest)]):
                if n == 1 and self.is_shoulder(path, side, end, where):
                    sides[k], wrong = None, ""
                    break
                self.watch(self.host.positions + 0.5 * (path.ideal - self.host.positions), path)
                found, (status, wrong) = self.attempt(f"{label}, {where}", run)
                if found is None:
                    continue
                status, wrong = self.check_behind(path, rest, found, top)
                if not wrong:
                    top = found if found.energy > top.energy else top
                    break
                self.path[-1] += f"; wrong saddle: {wrong}" if found.converged else ""
                wrong = f"{label}, {where}: {wrong}"
            if wrong:
                return saddle, replace(check, wrong=f"what lies behind it is not known: {wrong}", status=status)
        return top, replace(check, sides=(sides[0], sides[1]))

    def check_behind(self, path: _Path, rest: _Path, found: Relaxation, top: Relaxation) -> tuple[str, str]:
        """Say why a point is not the saddle of the ``rest`` of a path.

        One lower than the ``top`` must merely exist; a higher one has to be a saddle of the whole path.
        """
        if not found.converged:
            return "not-converged", f"largest force {found.fmax:.3g} eV/Å, {self.settings.fmax_saddle:.3g} asked"
        wrong = "it is the one before the side basin" if _same(found, top) else ""
        wrong = wrong or self.check_saddle(rest, found, (-_STRAY, 1.0 + _STRAY))
        if not wrong and found.energy > top.energy:
            wrong = self.check_saddle(path, found) or self.check_unstable(path, found)
            self.path[-1] += "" if wrong else "; higher"
        return "wrong-saddle", wrong

    def is_shoulder(self, path: _Path, side: Relaxation, end: Relaxation, where: str) -> bool:
        """Whether a side basin is none: relaxed further, it leads into the end behind it."""
        reached = False

        def arrived(positions: NDArray, energy: float, forces: NDArray) -> bool:
            nonlocal reached
            reached = reached or in_basin(positions, energy, forces, end, noise=self.settings.accuracy)
            return reached

        s = self.settings
        self.watch(self.host.positions + 0.5 * (path.ideal - self.host.positions))
        before = self.budget.calls
        try:
            self.attempt(
                f"relax {where} further",
                lambda: lbfgs(
                    self.forces,
                    side.positions,
                    path.gate,
                    0.1 * s.fmax_final,
                    s.max_relax_calls,
                    s.max_step,
                    accuracy=0.1 * s.accuracy,
                    stop=arrived,
                ),
            )
        finally:
            self.verify_calls += self.budget.calls - before
        self.path[-1] += "; it is a shoulder" if reached else ""
        return reached

    def check_unstable(self, path: _Path, saddle: Relaxation) -> str:
        """Say if not exactly one direction goes down."""
        before = self.budget.calls
        try:
            n_unstable = int((soft_directions(self.forces, saddle, path.gate)[0] < UNSTABLE).sum())
        except RunawayError as error:
            return f"the ways down from the saddle cannot be counted: {error}"
        finally:
            self.verify_calls += self.budget.calls - before
        return "" if n_unstable == 1 else f"{n_unstable} directions go down from it; expected one"

    def check_end(self, hop: Hop, positions: NDArray, ideal: NDArray) -> tuple[str, str] | None:
        """Say whether the end state kept its atoms on their sites."""
        host = self.host
        away = from_sites(positions, ideal)
        out = away > self.settings.site_tolerance * host.spacing
        if not out.any():
            return None
        if out[hop.mover]:
            return "unstable-end", (
                f"the end state relaxes away: atom {hop.mover} ({symbol_of(host, hop.mover)}) ends "
                f"{away[hop.mover]:.2f} Å from the site it jumped to; both directions are rejected"
            )
        worst = int((away / host.spacing).argmax())
        return "left-site", (
            f"atom {worst} ({symbol_of(host, worst)}), which does not jump, ends {away[worst]:.2f} Å from its site "
            "in the end state"
        )

    def check_saddle(self, path: _Path, found: Relaxation, between: tuple[float, float] | None = None) -> str:
        """Return why a stationary point is not the saddle of this jump; empty if it is, as far as geometry tells."""
        settings, host = self.settings, self.host
        along = path.along(found.positions)
        low, high = between or settings.between
        if not low <= along <= high:
            return f"the moving atom is at {along:.2f} of its way; expected {low:g} to {high:g}"
        below = max(path.begin.energy, path.end.energy) - found.energy
        if below > settings.energy_tolerance:
            return f"its energy is {below:.4f} eV below an end state"
        away = from_sites(found.positions, path.ideal, skip=path.hop.mover)
        worst = int((away / host.spacing).argmax())
        if away[worst] > settings.site_tolerance * host.spacing[worst]:
            return f"atom {worst} ({symbol_of(host, worst)}), which does not jump, is {away[worst]:.2f} Å from its site"
        return ""


def _same(one: Relaxation, other: Relaxation) -> bool:
    """Whether two searches ended in the same stationary point."""
    apart = float(((one.positions - other.positions) ** 2).sum(axis=1).max())
    return apart < _SAME_PLACE**2 and abs(one.energy - other.energy) < _SAME_ENERGY


def from_sites(positions: NDArray, ideal: NDArray, *, skip: int | None = None) -> NDArray:
    """Distance of each atom from its site after removal of a rigid drift, Å, shape (n_atoms,); 0 for ``skip``."""
    away = positions - ideal
    keep = np.arange(len(away)) != skip
    away = away - (away[keep].mean(axis=0) if keep.any() else 0.0)
    return np.where(keep, np.sqrt((away**2).sum(axis=1)), 0.0)
