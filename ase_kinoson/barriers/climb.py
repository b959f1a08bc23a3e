"""Two ways up: one preconditioned climbing image, and a climbing-image band.

The single image keeps a model of the Hessian in the metric of the springs: the identity, with the direction between the
two ends reversed, improved by every pair of gradients (the TS-BFGS update of Hermes, Sargsyan, Najm and Zádor, J. Chem.
Theory Comput. 15, 6536 (2019)). It goes up the one mode that the model says goes down and down all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.mep import NEB
from ase.optimize import LBFGS
from numpy.typing import NDArray

from ase_kinoson.barriers.optimise import CalculatorFailedError, CountedForces, Relaxation, lbfgs
from ase_kinoson.barriers.preconditioner import SpringPreconditioner
from ase_kinoson.errors import BarrierError

__all__ = ["band_counted", "climb", "climb_counted", "climbing_band", "mode_climb"]

_FIRST_REACH = 0.2
"""Å: largest displacement of an atom in the first step of a climb."""
_LEAST_REACH = 0.05
_LEAST_CURVATURE = 0.1
"""In units of the springs: softer modes are treated as being this stiff, so that their steps stay finite."""


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

    With springs the climb follows the mode that goes down, beginning with the direction t from ``initial`` to ``final``
    (minimum image); without them the force is F − 2 (F·t) t with fixed unit vector t throughout.

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
        return climb_counted(
            CountedForces(atoms, calculator), initial, final, preconditioner, fmax, max_calls, max_step
        )
    except CalculatorFailedError as error:
        raise BarrierError(f"the calculator failed ({error}); expected finite energy and forces; check it") from error


def climb_counted(
    forces: CountedForces,
    initial: NDArray,
    final: NDArray,
    preconditioner: SpringPreconditioner | None,
    fmax: float,
    max_calls: int,
    max_step: float,
) -> Relaxation:
    """Climb like :func:`climb`, with a calculator whose calls are counted; its failure passes through."""
    away = find_mic(final - initial, forces.atoms.cell, forces.atoms.pbc)[0]
    tangent = away / np.sqrt((away**2).sum())
    middle = initial + 0.5 * away
    if preconditioner is None:
        return lbfgs(forces, middle, None, fmax, max_calls, max_step, tangent)
    return mode_climb(forces, middle, tangent, preconditioner, fmax, max_calls, max_step)


def mode_climb(
    evaluate: Callable[[NDArray], tuple[float, NDArray]],
    start: NDArray,
    tangent: NDArray,
    springs: SpringPreconditioner,
    fmax: float,
    max_calls: int,
    max_step: float,
    *,
    accuracy: float = np.inf,
) -> Relaxation:
    """Quasi-Newton search of a saddle: up one mode, which is ``tangent`` at first, and down all others."""
    model = _HessianModel(springs, tangent)
    x = np.array(start, dtype=float)
    before: NDArray | None = None
    reach = min(_FIRST_REACH, max_step)
    energy, largest, left, call, converged = np.nan, np.inf, np.nan, 0, False
    forces = np.zeros_like(x)
    while call < max_calls:
        call += 1
        energy, forces = evaluate(x)
        largest, gradient = float(np.sqrt((forces**2).sum(axis=1).max())), -forces
        if before is not None:
            moved = x - before
            surprise = model.learn(moved, gradient)
            length = _longest(moved)
            if surprise > 0.8:  # the model did not foresee the change of the gradient: it is trusted less far
                reach = max(_LEAST_REACH, 0.6 * length)
            elif surprise < 0.4:
                reach = min(max_step, max(reach, 1.5 * length))
        before = x
        step, left = model.step(gradient)
        converged = largest <= fmax and left <= accuracy
        if converged or call == max_calls:
            break
        length = _longest(step)
        x = x + (step if length <= reach else step * (reach / length))
    return Relaxation(x, float(energy), largest, call, converged, left, forces, model.mode)


def _longest(displacement: NDArray) -> float:
    return float(np.sqrt((displacement**2).sum(axis=1).max()))


class _HessianModel:
    """Hessian in the metric of the springs P: the identity outside a small space, a small matrix inside.

    The space is spanned by the steps taken and by P⁻¹ times the changes of the gradient; ``_basis`` holds P-orthonormal
    vectors of it, ``_dual`` their products with P, both of shape (m, 3 n_atoms).
    """

    def __init__(self, springs: SpringPreconditioner, tangent: NDArray) -> None:
        self._springs = springs
        self._basis = self._dual = np.empty((0, tangent.size))
        self._hessian = self._absolute = np.empty((0, 0))
        self._followed = np.empty(0)
        self._gradient = self._solved = np.zeros(tangent.shape)
        self._include(tangent, springs.multiply(tangent))
        self._hessian[0, 0], self._followed[0] = -1.0, 1.0

    @property
    def mode(self) -> NDArray[np.float64]:
        """Unit vector of the mode that is followed upwards, shape (n_atoms, 3)."""
        mode = (self._followed @ self._basis).reshape(-1, 3)
        return mode / np.sqrt((mode**2).sum())

    def _include(self, vector: NDArray, image: NDArray) -> None:
        """Add a vector, whose product with P is ``image``, to the space."""
        v, pv = vector.ravel(), image.ravel()
        size = float(v @ pv)
        for _ in range(2):  # once more for the rounding
            share = self._dual @ v
            v, pv = v - share @ self._basis, pv - share @ self._dual
        rest = float(v @ pv)
        if rest <= 1e-8 * size:
            return
        self._basis = np.vstack([self._basis, v / np.sqrt(rest)])
        self._dual = np.vstack([self._dual, pv / np.sqrt(rest)])
        self._hessian, self._absolute = _bordered(self._hessian), _bordered(self._absolute)
        self._followed = np.append(self._followed, 0.0)

    def learn(self, moved: NDArray, gradient: NDArray) -> float:
        """Take in the gradient after a displacement; return how wrong its predicted change was, relative to it."""
        change, solved = gradient - self._gradient, self._springs.solve(gradient)
        self._include(moved, self._springs.multiply(moved))
        self._include(solved - self._solved, change)  # one solution per gradient serves the change and the step
        self._gradient, self._solved = gradient, solved
        s, y = self._dual @ moved.ravel(), self._basis @ change.ravel()
        wrong = y - self._hessian @ s
        bent = self._absolute @ s
        along, size = float(s @ y), float(s @ bent)
        u = (along * y + size * bent) / (along**2 + size**2)
        cross = np.outer(u, wrong)
        self._hessian = self._hessian + cross + cross.T - float(wrong @ s) * np.outer(u, u)
        return float(np.linalg.norm(wrong) / max(float(np.linalg.norm(y)), 1e-300))

    def step(self, gradient: NDArray) -> tuple[NDArray, float]:
        """Return the step to the saddle, Å, and the energy between here and there, eV, without regard to sign."""
        if gradient is not self._gradient:
            self._gradient, self._solved = gradient, self._springs.solve(gradient)
        inside = self._basis @ gradient.ravel()
        values, vectors = np.linalg.eigh(self._hessian)
        self._absolute = (vectors * np.abs(values)) @ vectors.T
        follow = 0 if values[0] < 0 else int(np.argmax(np.abs(self._followed @ vectors)))
        self._followed = vectors[:, follow]
        share = vectors.T @ inside
        move = -share / np.maximum(np.abs(values), _LEAST_CURVATURE)
        move[follow] *= -1.0
        outside = self._solved.ravel() - inside @ self._basis
        step = ((vectors @ move) @ self._basis - outside).reshape(-1, 3)
        left = 0.5 * float(np.abs(share * move).sum() + gradient.ravel() @ outside)
        return step, left


def _bordered(matrix: NDArray) -> NDArray:
    """The matrix with one more row and column, those of the identity."""
    larger = np.zeros((len(matrix) + 1, len(matrix) + 1))
    larger[:-1, :-1], larger[-1, -1] = matrix, 1.0
    return larger


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
    return band_counted(forces, initial, final, fmax, max_steps)


def band_counted(
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
    calls = sum(counter.calls for counter in forces)
    place = next(k for k, image in enumerate(images) if image is top)
    mode = images[place + 1].positions - images[place - 1].positions
    mode = mode / np.sqrt((mode**2).sum())
    return Relaxation(top.positions.copy(), energy, largest, calls, largest <= fmax, forces=top.get_forces(), mode=mode)
