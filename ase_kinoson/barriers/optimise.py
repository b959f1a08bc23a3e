"""Counted and guarded force calls, and the L-BFGS that relaxes with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from ase_kinoson.barriers.alarm import TimeIsUpError
from ase_kinoson.barriers.preconditioner import SpringPreconditioner
from ase_kinoson.errors import BarrierError

__all__ = [
    "Budget",
    "CalculatorFailedError",
    "CountedForces",
    "LimitReachedError",
    "Relaxation",
    "RunawayError",
    "lbfgs",
    "relax",
]

_MEMORY = 30
_PLAIN_STIFFNESS = 50.0
"""eV/Å²: without springs the first Hessian is this constant."""


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Where an optimisation ended.

    Attributes
    ----------
    positions : ndarray, shape (n_atoms, 3)
        Å.
    energy
        eV.
    fmax
        Largest true force on an atom, eV/Å.
    force_calls
    converged
        Whether the force, and the energy left where that was asked, are below what was asked.
    energy_left
        Energy still to be gained, eV, as the optimiser's own quadratic model has it (½ F·H⁻¹·F); NaN if unknown.
    forces : ndarray, shape (n_atoms, 3), or None
        True forces at ``positions``, eV/Å.
    mode : ndarray, shape (n_atoms, 3), or None
        Unit vector of the direction that a climb believes to go down on both sides.
    """

    positions: NDArray[np.float64]
    energy: float
    fmax: float
    force_calls: int
    converged: bool
    energy_left: float = np.nan
    forces: NDArray[np.float64] | None = None
    mode: NDArray[np.float64] | None = None


# -- force calls --------------------------------------------------------------------------------------------------


class CalculatorFailedError(Exception):
    """The calculator raised, or returned something that is not a number."""


class RunawayError(Exception):
    """The atoms or the energy left the neighbourhood in which a search makes sense."""


class LimitReachedError(Exception):
    """The force calls or the time of a search are used up."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Budget:
    """Force calls and time of one search, shared by all calculators that it uses.

    Parameters
    ----------
    max_calls
        Default: no limit.
    time_limit_s
        Wall time from now, checked before each force call. Default: no limit.
    """

    def __init__(self, max_calls: int | None = None, time_limit_s: float | None = None) -> None:
        self.calls = 0
        self._max_calls, self._limit_s = max_calls, time_limit_s
        self._began = time.monotonic()

    def spend(self) -> None:
        """Count one force call; raise :class:`LimitReachedError` if none is left."""
        if self._max_calls is not None and self.calls >= self._max_calls:
            raise LimitReachedError("not-converged", f"all {self._max_calls} force calls allowed for a jump are used")
        if self._limit_s is not None and time.monotonic() - self._began > self._limit_s:
            reason = f"not finished within {self._limit_s:g} s ({self.calls} force calls)"
            raise LimitReachedError("timed-out", reason)
        self.calls += 1


class CountedForces:
    """Energies and forces of one set of atoms, counted and checked.

    Attributes
    ----------
    calls
        Force calls so far.
    guard
        Called with positions and energy after each call; a text that it returns ends the search as a runaway.
    """

    def __init__(self, atoms: Atoms, calculator: Any, *, budget: Budget | None = None) -> None:
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self.calls = 0
        self.guard: Callable[[NDArray[np.float64], float], str] | None = None
        self._budget = budget or Budget()
        self._last: Atoms | None = None

    def __call__(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return energy (eV) and forces (eV/Å) at positions, shape (n_atoms, 3)."""
        self._budget.spend()
        self.calls += 1
        try:
            energy, forces = self._evaluate(positions)
        except TimeIsUpError as error:
            raise LimitReachedError("timed-out", str(error)) from None
        except Exception as error:
            raise CalculatorFailedError(f"{type(error).__name__}: {error}") from error
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise CalculatorFailedError("the calculator returned NaN or infinite energy or forces")
        problem = self.guard(positions, energy) if self.guard is not None else ""
        if problem:
            raise RunawayError(problem)
        return energy, forces

    def _evaluate(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Ask the calculator as :meth:`Atoms.get_forces` does, without its comparisons of the atoms where they can.

        ASE compares all arrays of the atoms with those of the last call, once for the forces and once for the energy:
        a good part of a millisecond. Here only positions change from call to call, unless the calculator changes more.
        """
        atoms, calc = self.atoms, self.atoms.calc
        plain = type(atoms) is Atoms and not atoms.constraints and _asks_plainly(calc)
        last = calc.atoms if plain else None
        atoms.positions = positions
        if last is self._last and last is not None and _alike(last, atoms) and (last.positions != positions).any():
            calc.results, calc.atoms = {}, atoms.copy() if calc.use_cache else None
            calc.calculate(atoms, ["forces"], ["positions"])
            found = calc.results["forces"] if "forces" in calc.results else atoms.get_forces()
        else:
            found = atoms.get_forces()
        forces = np.array(found, dtype=float)  # a calculator may use the same array again
        last = self._last = calc.atoms if plain else None
        known = last is not None and "energy" in calc.results and _alike(last, atoms)
        if known and (calc.atoms.positions == atoms.positions).all():
            energy = calc.results["energy"]
        else:
            energy = atoms.get_potential_energy()
            self._last = calc.atoms if plain else None
        return float(energy), forces


_PLAIN = ("get_property", "check_state", "reset", "get_forces", "get_potential_energy")


def _asks_plainly(calculator: Any) -> bool:
    """Whether a calculator looks up and keeps what it last computed in the way of ASE's base class."""
    kind = type(calculator)
    return (
        issubclass(kind, Calculator)
        and all(getattr(kind, name) is getattr(Calculator, name) for name in _PLAIN)
        and vars(calculator).keys().isdisjoint(_PLAIN)
        and "energy" in calculator.implemented_properties
        and "positions" not in calculator.ignored_changes
    )


def _alike(one: Atoms, other: Atoms) -> bool:
    """Whether two atoms differ in positions at most, as ASE compares them but without tolerance."""
    return (
        one.arrays.keys() == other.arrays.keys()
        and bool((one.cell.array == other.cell.array).all() and (one.pbc == other.pbc).all())
        and all(np.array_equal(x, other.arrays[name]) for name, x in one.arrays.items() if name != "positions")
    )


# -- relaxing -----------------------------------------------------------------------------------------------------


def relax(
    atoms: Atoms,
    calculator: Any,
    *,
    fmax: float = 0.005,
    max_calls: int = 200,
    preconditioner: SpringPreconditioner | None = None,
    max_step: float = 0.3,
) -> Relaxation:
    """Relax the positions by L-BFGS (Nocedal and Wright, Numerical Optimization, alg. 7.4).

    Parameters
    ----------
    atoms
        Start; not changed.
    calculator
        ASE calculator.
    fmax
        Largest force on an atom, eV/Å.
    max_calls
        Largest number of force calls.
    preconditioner
        Initial inverse Hessian; default a constant.
    max_step
        Å.

    Raises
    ------
    BarrierError
        If the calculator fails.
    """
    forces = CountedForces(atoms, calculator)
    try:
        return lbfgs(forces, atoms.positions.copy(), preconditioner, fmax, max_calls, max_step)
    except CalculatorFailedError as error:
        raise BarrierError(f"the calculator failed ({error}); expected finite energy and forces; check it") from error


def lbfgs(
    evaluate: Callable[[NDArray], tuple[float, NDArray]],
    start: NDArray,
    preconditioner: SpringPreconditioner | None,
    fmax: float,
    max_calls: int,
    max_step: float,
    tangent: NDArray | None = None,
    *,
    accuracy: float = np.inf,
    stop: Callable[[NDArray, float, NDArray], bool] | None = None,
) -> Relaxation:
    """Two-loop L-BFGS; with a tangent the force along it is reversed.

    Converged when the largest force is at most ``fmax`` and the energy left, ½ F·H⁻¹·F, at most ``accuracy`` (eV).
    ``stop(positions, energy, forces)`` ends it early, unconverged.
    """
    x = np.array(start, dtype=float)
    memory: list[tuple[NDArray, NDArray, float]] = []
    before: tuple[NDArray, NDArray] | None = None
    energy, largest, left, call, converged = np.nan, np.inf, np.nan, 0, False
    true = np.zeros_like(x)
    while call < max_calls:
        call += 1
        energy, true = evaluate(x)
        largest = float(np.sqrt((true**2).sum(axis=1).max()))
        force = true if tangent is None else true - 2.0 * (true * tangent).sum() * tangent
        if before is not None:
            s, y = x - before[0], before[1] - force
            curvature = float((s * y).sum())
            if curvature > 1e-10:
                memory = [*memory[1 - _MEMORY :], (s, y, 1.0 / curvature)]
        before = (x, force)
        q, factors = force, []
        for s, y, rho in reversed(memory):
            factors.append(rho * float((s * q).sum()))
            q = q - factors[-1] * y
        step = q / _PLAIN_STIFFNESS if preconditioner is None else preconditioner.solve(q)
        for (s, y, rho), factor in zip(memory, reversed(factors), strict=True):
            step = step + s * (factor - rho * float((y * step).sum()))
        left = 0.5 * float((force * step).sum())
        converged = largest <= fmax and left <= accuracy
        if converged or call == max_calls or (stop is not None and stop(x, energy, true)):
            break
        length = float(np.sqrt((step**2).sum(axis=1).max()))
        x = x + (step if length <= max_step else step * (max_step / length))
    return Relaxation(x, float(energy), largest, call, converged, left, true, tangent)
