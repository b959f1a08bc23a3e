"""Whether a stationary point is the saddle of a jump, and what lies behind a basin beside its ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.descent import UNSETTLED, UNSTABLE, Descent, descend, in_basin, soft_directions
from ase_kinoson.barriers.hop import Hop, symbol_of
from ase_kinoson.barriers.optimise import Relaxation, RunawayError, lbfgs
from ase_kinoson.barriers.steps import STRAY, JumpPath, Steps

__all__ = ["Check", "Checks", "from_sites", "same_point"]

_ARRIVED = 0.3
"""The moving atom has arrived when it is this fraction of its way, or less, from a site."""
_SAME_WAY = 0.1
"""Minima between the ends with the moving atom this close, as a fraction of its way, are relaxations of one another."""
_CHAIN = 2
"""How many minima beyond a side basin are followed."""
_SAME_PLACE, _SAME_ENERGY = 0.1, 1e-3
"""Å and eV: stationary points closer than this are one."""


@dataclass(frozen=True, eq=False)
class Check:
    """What the descents from a saddle say; ``wrong`` is empty if it belongs to the jump, else ``status`` is that of it.

    ``unsettled`` says what could not be found out about a saddle that belongs to the jump. Where more than one
    direction goes down, ``off_ridge`` is the second and ``mode`` the first of them.
    """

    wrong: str = ""
    unsettled: str = ""
    status: str = "wrong-saddle"
    n_unstable: int = -1
    sides: tuple[Relaxation | None, Relaxation | None] = (None, None)
    checked: bool = True
    off_ridge: NDArray[np.float64] | None = None
    mode: NDArray[np.float64] | None = None

    def fields(self) -> dict[str, Any]:
        """As they stand in a :class:`JumpResult`."""
        initial, final = (np.nan if side is None else side.energy for side in self.sides)
        descents = "side-basin" if any(side is not None for side in self.sides) else "both-ends"
        return {
            "descents": "not-checked" if not self.checked else UNSETTLED if self.unsettled else descents,
            "n_unstable": self.n_unstable,
            "side_initial": initial,
            "side_final": final,
        }


class Checks(Steps):
    """Steps that judge ends and saddles."""

    def verify(
        self, path: JumpPath, saddle: Relaxation, whole: JumpPath | None = None, *, ridge: bool = False
    ) -> Check:
        """Count the ways down from a saddle and follow them.

        Parameters
        ----------
        path
            Its ends are where the ways should lead.
        saddle
        whole
            The jump, where ``path`` is a part of it.
        ridge
            Follow the steeper way where two directions go down: if it leads to both ends, the energy of the point is an
            upper bound of the barrier.

        Raises
        ------
        CalculatorFailedError
            Then nothing is known of the saddle.
        """
        before = self.budget.calls
        self.watch(self.host.positions + 0.5 * (path.ideal - self.host.positions))
        try:
            return self.descents(path, saddle, whole or path, ridge=ridge)
        except RunawayError as error:
            return Check(f"the ways down from the saddle cannot be followed: {error}")
        finally:
            self.verify_calls += self.budget.calls - before

    def descents(self, path: JumpPath, saddle: Relaxation, whole: JumpPath, *, ridge: bool = False) -> Check:
        """Do the work of :meth:`verify`."""
        settings = self.settings
        curvatures, modes = soft_directions(self.forces, saddle, path.gate)
        mode, n_unstable = modes[0], int((curvatures < UNSTABLE).sum())
        if n_unstable not in ((1, 2) if ridge else (1,)):
            off_ridge, mode_of = (modes[1], mode) if n_unstable > 1 else (None, None)
            return Check(
                f"{n_unstable} directions go down from it; expected one",
                n_unstable=n_unstable,
                off_ridge=off_ridge,
                mode=mode_of,
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
                wrong = self.check_side(whole, way)
                if wrong:
                    return Check(wrong, n_unstable=n_unstable)
        reached = tuple(way.end for way in ways)
        if reached in ((0, 0), (1, 1)):
            return Check(f"both ways down lead to the {('initial', 'final')[reached[0]]} state", n_unstable=n_unstable)
        if reached[0] == 1 or reached[1] == 0:  # the mode is bent: the signs say nothing, the ends are what counts
            ways.reverse()
        sides = tuple(None if way.end == k else way.last for k, way in enumerate(ways))
        unsettled = "two directions go down from it; the barrier is an upper bound" if n_unstable > 1 else ""
        return Check(unsettled=unsettled, n_unstable=n_unstable, sides=(sides[0], sides[1]))

    def check_side(self, path: JumpPath, way: Descent) -> str:
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

    def beyond(self, path: JumpPath, saddle: Relaxation, check: Check) -> tuple[Relaxation, Check]:
        """Look for the saddles between each side basin and the end behind it; the highest one is the barrier.

        A side basin in which the moving atom has arrived is another relaxation of the same state; no jump lies behind.

        Returns
        -------
        top
            The highest saddle known.
        check
            Without side basins that turn out to be none. Its ``unsettled`` tells where what lies behind one cannot be
            found. Both sides are looked at in any case, so that a jump and its reverse know the same saddles.
        """
        top, sides, unknown = saddle, list(check.sides), []
        for k, (end, name) in enumerate(((path.begin, "initial"), (path.end, "final"))):
            side = sides[k]
            if side is None or abs(path.along(side.positions) - k) <= _ARRIVED:
                continue
            rest = replace(path, begin=side, end=end) if k else replace(path, begin=end, end=side)
            found, wrong = self.link(path, rest, (saddle,), f"side basin to {name} state")
            if not found and not wrong:
                sides[k] = None
            top = max([top, *found], key=lambda point: point.energy)
            unknown += [wrong] if wrong else []
        unsettled = f"what lies behind it is not known: {'; '.join(unknown)}" if unknown else ""
        return top, replace(check, unsettled=unsettled, sides=(sides[0], sides[1]))

    def link(
        self, path: JumpPath, rest: JumpPath, before: tuple[Relaxation, ...], where: str, depth: int = _CHAIN
    ) -> tuple[list[Relaxation], str]:
        """Find the saddles between two minima of one jump; where more minima lie between, from one to the next.

        Parameters
        ----------
        path
            The jump.
        rest
            The part of it to be linked, from one minimum to another.
        before
            Saddles that are known and lead elsewhere.
        where
            Names the part.
        depth
            How many more minima may lie between.

        Returns
        -------
        found
            Saddles of the part; none where one of its minima is a shoulder of the other.
        wrong
            Why it is not linked all the way; empty if it is.
        """
        side, end = (rest.begin, rest.end) if rest.end is path.end else (rest.end, rest.begin)
        wrong = f"{where}: no climb is allowed by the settings"
        # the saddle is near the basin where that is high
        climbs = self.climbs(rest, (("", 0.5), (" from nearer the higher end", 0.8)))
        for n, (label, run) in enumerate([*climbs, *self.bands(rest)]):
            if n == 1 and self.is_shoulder(path, side, end, where):
                return [], ""
            self.watch(self.host.positions + 0.5 * (path.ideal - self.host.positions), path)
            found, (_, problem) = self.attempt(f"{label}, {where}", run)
            if found is None:
                wrong = problem
                continue
            highest = max(before, key=lambda point: point.energy)
            problem = self.check_behind(path, rest, found, before)
            check = Check(problem) if problem else self.verify(rest, found, path)
            if not check.wrong:
                self.path[-1] += "; higher" if found.energy > highest.energy else ""
                return self.chain(path, rest, (*before, found), check, where, depth)
            self.path[-1] += f"; wrong saddle: {check.wrong}" if found.converged else ""
            wrong = f"{label}, {where}: {check.wrong}"
        return [], wrong

    def chain(
        self, path: JumpPath, rest: JumpPath, known: tuple[Relaxation, ...], check: Check, where: str, depth: int
    ) -> tuple[list[Relaxation], str]:
        """Go on where a saddle of a part of the way, the last of those known, leads to minima beside its ends."""
        found, unknown = [known[-1]], []
        for side, end in zip(check.sides, (rest.begin, rest.end), strict=True):
            near = _ARRIVED if end is path.begin or end is path.end else _SAME_WAY
            if side is None or abs(path.along(side.positions) - path.along(end.positions)) <= near:
                continue
            if not depth:
                unknown.append(f"{where}: more than {_CHAIN} minima in a row")
                continue
            part = replace(rest, begin=side, end=end) if end is rest.end else replace(rest, begin=end, end=side)
            more, wrong = self.link(path, part, known, f"next basin, {where}", depth - 1)
            found += more
            unknown += [wrong] if wrong else []
        return found, "; ".join(unknown)

    def check_behind(self, path: JumpPath, rest: JumpPath, found: Relaxation, before: tuple[Relaxation, ...]) -> str:
        """Say why a point is no saddle of the ``rest`` of a path; a higher one has to be one of the whole path."""
        if not found.converged:
            return f"largest force {found.fmax:.3g} eV/Å, {self.settings.fmax_saddle:.3g} asked"
        if any(same_point(found, other) for other in before):
            return "it is the one before the side basin"
        wrong = self.check_geometry(rest, found, (-STRAY, 1.0 + STRAY))
        if not wrong and found.energy > max(point.energy for point in before):
            wrong = self.check_saddle(path, found)
        return wrong

    def is_shoulder(self, path: JumpPath, side: Relaxation, end: Relaxation, where: str) -> bool:
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

    def check_saddle(self, path: JumpPath, found: Relaxation) -> str:
        """Return why a stationary point is not the saddle of this jump; empty if it is, as far as can be seen there."""
        wrong = self.check_geometry(path, found, self.settings.between)
        below = max(path.begin.energy, path.end.energy) - found.energy
        if not wrong and below > self.settings.energy_tolerance:
            wrong = f"its energy is {below:.4f} eV below an end state"
        return wrong

    def check_geometry(self, path: JumpPath, found: Relaxation, between: tuple[float, float]) -> str:
        """Say whether the moving atom is between its ends and all others are on their sites."""
        settings, host = self.settings, self.host
        along = path.along(found.positions)
        low, high = between
        if not low <= along <= high:
            return f"the moving atom is at {along:.2f} of its way; expected {low:g} to {high:g}"
        away = from_sites(found.positions, path.ideal, skip=path.hop.mover)
        worst = int((away / host.spacing).argmax())
        if away[worst] > settings.site_tolerance * host.spacing[worst]:
            return f"atom {worst} ({symbol_of(host, worst)}), which does not jump, is {away[worst]:.2f} Å from its site"
        return ""


def from_sites(positions: NDArray, ideal: NDArray, *, skip: int | None = None) -> NDArray:
    """Distance of each atom from its site after removal of a rigid drift, Å, shape (n_atoms,); 0 for ``skip``."""
    away = positions - ideal
    keep = np.arange(len(away)) != skip
    away = away - (away[keep].mean(axis=0) if keep.any() else 0.0)
    return np.where(keep, np.sqrt((away**2).sum(axis=1)), 0.0)


def same_point(one: Relaxation, other: Relaxation) -> bool:
    """Whether two searches ended in the same stationary point."""
    apart = float(((one.positions - other.positions) ** 2).sum(axis=1).max())
    return apart < _SAME_PLACE**2 and abs(one.energy - other.energy) < _SAME_ENERGY
