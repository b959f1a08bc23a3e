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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.mep import NEB
from ase.neighborlist import primitive_neighbor_list
from ase.optimize import LBFGS
from numpy.typing import NDArray

from ase_kinoson.barriers.preconditioner import (
    CalculatorFailedError,
    CountedForces,
    Relaxation,
    SpringPreconditioner,
    lbfgs,
    relax,
    spring_preconditioner,
)
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError

__all__ = [
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

STATUSES = ("ok", "unstable-start", "unstable-end", "left-site", "wrong-saddle", "not-converged", "calculator-failed")
"""What can become of a jump."""


@dataclass(frozen=True)
class SaddleSettings:
    """How tightly states are relaxed and saddles converged.

    With the defaults the barriers of a jump and of its reverse, computed in two separate searches, agree within 5 meV
    (usually 1 meV).

    Attributes
    ----------
    fmax_initial, fmax_final, fmax_saddle
        Largest force on any atom, eV/Å: of the initial state (it serves all its jumps), of the end states, and the true
        force at the saddle.
    max_relax_calls
        Force calls after which a relaxation is given up.
    max_climb_calls, max_plain_calls
        Force calls of the preconditioned climb and of the plain L-BFGS climb.
    band_images
        Moving images of the climbing-image band.
    max_band_steps
        Steps of the band (each costs ``band_images`` force calls).
    max_step
        Largest displacement of an atom in one step, Å.
    spring, transverse, diagonal
        Preconditioner: radial stiffness (eV/Å²), transverse stiffness relative to it, constant on the diagonal (eV/Å²).
    site_tolerance
        An atom has left its site when it is further from it than this fraction of the distance between sites.
    between
        The moving atom's place at the saddle, as a fraction of the way between its two sites, must lie in this range.
    energy_tolerance
        The saddle may lie this much (eV) below an end before it is refused.
    """

    fmax_initial: float = 0.005
    fmax_final: float = 0.02
    fmax_saddle: float = 0.01
    max_relax_calls: int = 200
    max_climb_calls: int = 30
    max_plain_calls: int = 80
    band_images: int = 5
    max_band_steps: int = 150
    max_step: float = 0.3
    spring: float = 2.0
    transverse: float = 0.15
    diagonal: float = 0.1
    site_tolerance: float = 0.45
    between: tuple[float, float] = (0.1, 0.9)
    energy_tolerance: float = 0.002

    def __post_init__(self) -> None:
        for name in ("fmax_initial", "fmax_final", "fmax_saddle", "max_step", "spring", "diagonal"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise BarrierError(
                    f"found {name}={getattr(self, name)!r}; expected a positive number; correct the setting"
                )
        for name in ("max_relax_calls", "max_climb_calls", "max_plain_calls", "band_images", "max_band_steps"):
            if int(getattr(self, name)) != getattr(self, name) or getattr(self, name) < 0:
                raise BarrierError(
                    f"found {name}={getattr(self, name)!r}; expected an integer of at least 0; correct it"
                )
        low, high = self.between
        if not 0 <= low < high <= 1:
            raise BarrierError(f"found between={self.between!r}; expected 0 <= low < high <= 1; correct the setting")


@dataclass(frozen=True, eq=False)
class Host:
    """The atoms of one state on their ideal sites, in the order of the sites.

    Attributes
    ----------
    numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    positions : ndarray, shape (n_atoms, 3)
        Ideal positions, Å.
    sites : ndarray of int, shape (n_atoms,)
        Site of each atom.
    spacing : ndarray, shape (n_atoms,)
        Distance from each atom's site to the nearest site of its kind (host or interstitial), Å.
    cell : ndarray, shape (3, 3)
        Å.
    pbc : ndarray of bool, shape (3,)
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    sites: NDArray[np.int64]
    spacing: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]

    @classmethod
    def from_occupation(cls, supercell: Supercell, occupation: NDArray) -> Host:
        """Put the atoms of an occupation, shape (n_sites,), on the sites of ``supercell``."""
        atoms = supercell.to_atoms(occupation)
        sites = np.flatnonzero(np.asarray(occupation) > 0)
        spacing = _basis_spacing(supercell)[supercell.basis_index[sites]]
        cell, pbc = np.array(supercell.cell), np.array(supercell.pbc, dtype=bool)
        return cls(atoms.numbers.astype(np.int64), atoms.positions.copy(), sites, spacing, cell, pbc)

    def atoms(self, positions: NDArray | None = None) -> Atoms:
        """Return Atoms at the given (default: ideal) positions, without a calculator."""
        return Atoms(
            self.numbers, positions=self.positions if positions is None else positions, cell=self.cell, pbc=self.pbc
        )

    def preconditioner(self, settings: SaddleSettings) -> SpringPreconditioner:
        """Bond springs of these atoms."""
        return spring_preconditioner(
            self.positions,
            self.cell,
            self.pbc,
            spring=settings.spring,
            transverse=settings.transverse,
            diagonal=settings.diagonal,
        )


@dataclass(frozen=True, eq=False)
class Hop:
    """One jump of one atom of a :class:`Host`.

    Attributes
    ----------
    mover
        Index of the atom that moves.
    displacement : ndarray, shape (3,)
        From its site to the other site, Å (the minimum-image vector of the jump network).
    """

    mover: int
    displacement: NDArray[np.float64]

    @classmethod
    def from_jump(cls, network: JumpNetwork, host: Host, carrier: int, jump: int) -> Hop:
        """Jump ``jump`` of the carrier on site ``carrier``.

        For a vacancy the atom on the target site moves against the jump vector onto the carrier's site; an interstitial
        atom moves along it.
        """
        vector = network.vectors[network.basis_of([carrier])[0], jump]
        if network.mechanism == "vacancy":
            site, displacement = int(network.targets([carrier])[0, jump]), -vector
        else:
            site, displacement = int(carrier), vector
        found = np.flatnonzero(host.sites == site)
        if len(found) != 1:
            raise BarrierError(
                f"jump {jump} of the carrier on site {carrier} would move an atom from site {site}, which is empty; "
                "expected an atom there; use states with one carrier"
            )
        return cls(int(found[0]), displacement.copy())


@dataclass(frozen=True, eq=False)
class StateResult:
    """A relaxed initial state.

    Attributes
    ----------
    status
        ``"ok"``, ``"unstable-start"``, ``"not-converged"`` or ``"calculator-failed"``.
    reason
        Empty if ok.
    positions : ndarray, shape (n_atoms, 3)
        Relaxed, not wrapped, Å.
    energy
        eV.
    fmax
        eV/Å.
    force_calls
    path : tuple of str
        What was tried.
    wall_s
        Seconds.
    """

    status: str
    reason: str
    positions: NDArray[np.float64]
    energy: float
    fmax: float
    force_calls: int
    path: tuple[str, ...]
    wall_s: float = 0.0


@dataclass(frozen=True, eq=False)
class JumpResult:
    """A finished search: a barrier, or the reason why there is none.

    Attributes
    ----------
    status
        One of ``STATUSES``.
    reason
        Empty if ok.
    energy_initial, energy_final, energy_saddle
        eV; NaN where not reached.
    fmax_final, fmax_saddle
        Forces reached, eV/Å; NaN where not reached.
    force_calls
        Of the end state and the saddle, failed attempts included.
    path : tuple of str
        Steps of the search with their force calls.
    saddle_positions, final_positions : ndarray, shape (n_atoms, 3), or None
        Å, not wrapped.
    wall_s
        Seconds.
    """

    status: str
    reason: str = ""
    energy_initial: float = np.nan
    energy_final: float = np.nan
    energy_saddle: float = np.nan
    fmax_final: float = np.nan
    fmax_saddle: float = np.nan
    force_calls: int = 0
    path: tuple[str, ...] = ()
    saddle_positions: NDArray[np.float64] | None = None
    final_positions: NDArray[np.float64] | None = None
    wall_s: float = field(default=0.0)

    @property
    def barrier(self) -> float:
        """Saddle minus initial energy, eV; inf if rejected."""
        return self.energy_saddle - self.energy_initial if self.status == "ok" else np.inf

    @property
    def reverse_barrier(self) -> float:
        """Saddle minus final energy, eV; inf if rejected."""
        return self.energy_saddle - self.energy_final if self.status == "ok" else np.inf


# -- climbing -----------------------------------------------------------------------------------------------------


def climb(
    initial: NDArray[np.float64],
    final: NDArray[np.float64],
    atoms: Atoms,
    calculator: Any,
    *,
    fmax: float = 0.01,
    max_calls: int = 30,
    preconditioner: SpringPreconditioner | None = None,
    max_step: float = 0.3,
) -> Relaxation:
    """Climb from the mid-point of two relaxed ends to the saddle between them.

    The force is F − 2 (F·t) t with the fixed unit vector t from ``initial`` to ``final`` (minimum image).

    Parameters
    ----------
    initial, final : ndarray, shape (n_atoms, 3)
        Relaxed ends, Å.
    atoms
        Species and cell; its positions are not used.
    calculator
        ASE calculator.
    fmax
        Largest *true* force at the saddle, eV/Å.
    max_calls
        Largest number of force calls.
    preconditioner
        As in :func:`relax`.
    max_step
        Å.

    Raises
    ------
    BarrierError
        If the calculator fails.
    """
    try:
        return _climb(CountedForces(atoms, calculator), initial, final, preconditioner, fmax, max_calls, max_step)
    except CalculatorFailedError as error:
        raise BarrierError(f"the calculator failed ({error}); expected finite energy and forces; check it") from error


def _climb(
    forces: CountedForces,
    initial: NDArray,
    final: NDArray,
    preconditioner: SpringPreconditioner | None,
    fmax: float,
    max_calls: int,
    max_step: float,
) -> Relaxation:
    away = find_mic(final - initial, forces.atoms.cell, forces.atoms.pbc)[0]
    tangent = away / np.sqrt((away**2).sum())
    return lbfgs(forces, initial + 0.5 * away, preconditioner, fmax, max_calls, max_step, tangent)


class _ImageCalculator(Calculator):
    """Passes one image of a band through :class:`CountedForces`, so that calls are counted and NaN is noticed."""

    implemented_properties = ("energy", "forces")

    def __init__(self, forces: CountedForces) -> None:
        super().__init__()
        self._evaluate = forces

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = self._evaluate(self.atoms.positions)
        self.results = {"energy": energy, "forces": forces}


def climbing_band(
    initial: Relaxation,
    final: Relaxation,
    atoms: Atoms,
    make_calculator: Callable[[], Any],
    *,
    n_images: int = 5,
    fmax: float = 0.01,
    max_steps: int = 150,
) -> Relaxation:
    """Climbing-image band between two relaxed ends, one calculator per image.

    Parameters
    ----------
    initial, final
        Relaxed ends.
    atoms
        Species and cell.
    make_calculator
        Calculator factory.
    n_images
        Moving images.
    fmax
        Largest true force on an atom of the climbing image, eV/Å; the rest of the band is not converged further.
    max_steps
        Optimiser steps.

    Returns
    -------
    Relaxation
        Of the climbing image; ``force_calls`` counts all images.
    """
    forces = [CountedForces(atoms, make_calculator()) for _ in range(n_images)]
    return _band(forces, initial, final, fmax, max_steps)


def _band(
    forces: Sequence[CountedForces], initial: Relaxation, final: Relaxation, fmax: float, max_steps: int
) -> Relaxation:
    """Climb with one moving image per item of ``forces``."""
    atoms = forces[0].atoms
    away = find_mic(final.positions - initial.positions, atoms.cell, atoms.pbc)[0]
    images = []
    for k in range(len(forces) + 2):
        image = atoms.copy()
        image.positions = initial.positions + k / (len(forces) + 1) * away
        images.append(image)
    for image, end in ((images[0], initial), (images[-1], final)):
        image.calc = SinglePointCalculator(image, energy=end.energy, forces=np.zeros((len(atoms), 3)))
    for image, counter in zip(images[1:-1], forces, strict=True):
        image.calc = _ImageCalculator(counter)
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=False)
    top, largest = images[1], np.inf
    with LBFGS(band, logfile=None, maxstep=0.1) as optimizer:
        for _ in optimizer.irun(fmax=0.2 * fmax, steps=max_steps):
            top = max(images[1:-1], key=lambda image: image.get_potential_energy())
            largest = float(np.linalg.norm(top.get_forces(), axis=1).max())
            if largest <= fmax:
                break
    energy = float(top.get_potential_energy())
    return Relaxation(top.positions.copy(), energy, largest, sum(f.calls for f in forces), largest <= fmax)


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
                f"the initial state relaxes away: atom {worst} ({_symbol(host, worst)}) ends {away[worst]:.2f} Å "
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
                ladder.append((label, partial(_climb, self.forces, *ends, springs_there, tight, limit, length)))
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
            return _band(forces, begin, end, self.settings.fmax_saddle, self.settings.max_band_steps)
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
                f"the end state relaxes away: atom {hop.mover} ({_symbol(host, hop.mover)}) ends "
                f"{away[hop.mover]:.2f} Å "
                "from the site it jumped to; both directions are rejected"
            )
        worst = int((away / host.spacing).argmax())
        return "left-site", (
            f"atom {worst} ({_symbol(host, worst)}), which does not jump, ends {away[worst]:.2f} Å from its site "
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
            return f"atom {worst} ({_symbol(host, worst)}), which does not jump, is {away[worst]:.2f} Å from its site"
        return ""


def _from_sites(positions: NDArray, ideal: NDArray, *, skip: int | None = None) -> NDArray:
    """Distance of each atom from its site after removal of a rigid drift, Å, shape (n_atoms,); 0 for ``skip``."""
    away = positions - ideal
    keep = np.arange(len(away)) != skip
    away = away - (away[keep].mean(axis=0) if keep.any() else 0.0)
    return np.where(keep, np.sqrt((away**2).sum(axis=1)), 0.0)


def _symbol(host: Host, atom: int) -> str:
    return str(host.atoms().symbols[atom])


def _basis_spacing(supercell: Supercell) -> NDArray[np.float64]:
    """Distance from each basis site to the nearest site of its kind, Å, shape (n_basis,)."""
    alloy = supercell.alloy
    interstitial = np.array([alloy.sublattices[s].interstitial for s in alloy.site_sublattice])
    spacing = np.empty(alloy.n_basis)
    reach = 1.01 * float(np.linalg.norm(alloy.cell[alloy.pbc], axis=1).max(initial=1.0))
    for kind in (False, True):
        own = np.flatnonzero(interstitial == kind)
        if len(own):
            i, d = primitive_neighbor_list("id", alloy.pbc, alloy.cell, alloy.scaled_positions[own] @ alloy.cell, reach)
            nearest = np.full(len(own), reach)
            np.minimum.at(nearest, i, d)
            spacing[own] = nearest
    return spacing
