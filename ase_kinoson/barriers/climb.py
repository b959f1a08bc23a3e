"""Two ways up: one preconditioned climbing image, and a climbing-image band."""

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

from ase_kinoson.barriers.preconditioner import (
    CalculatorFailedError,
    CountedForces,
    Relaxation,
    SpringPreconditioner,
    lbfgs,
)
from ase_kinoson.errors import BarrierError

__all__ = ["band_counted", "climb", "climb_counted", "climbing_band"]


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
    return Relaxation(top.positions.copy(), energy, largest, sum(f.calls for f in forces), largest <= fmax)
