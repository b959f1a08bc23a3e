"""Preconditioned optimisation: bond springs of the ideal lattice as the first guess of the Hessian of an L-BFGS.

Relaxations and climbs of one lattice share the springs, so each costs few force calls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, identity
from scipy.sparse.linalg import SuperLU, splu

from ase_kinoson.errors import BarrierError

__all__ = [
    "CalculatorFailedError",
    "CountedForces",
    "Relaxation",
    "SpringPreconditioner",
    "lbfgs",
    "relax",
    "spring_preconditioner",
]

BOND_TOLERANCE = 1.2
"""Pairs up to 20 % longer than the shortest bond of either atom carry a spring (both shells of bcc)."""


class SpringPreconditioner:
    """Inverse of a matrix of bond springs, factorised once.

    Every bond of unit vector ``e`` adds ``k (e eᵀ + τ (1 − e eᵀ))`` to the Hessian of its two atoms; a constant on the
    diagonal keeps translations finite. The sparse factorisation is a single-threaded one, so the result does not
    depend on how many threads a linear-algebra library uses.

    Parameters
    ----------
    positions : array_like, shape (n_atoms, 3)
        Ideal positions of the atoms, Å.
    cell : array_like, shape (3, 3)
        Å.
    pbc : array_like of bool, shape (3,)
    spring
        Radial stiffness k, eV/Å².
    transverse
        Transverse stiffness τ in units of the radial one.
    diagonal
        Added to the diagonal, eV/Å².
    """

    def __init__(
        self,
        positions: ArrayLike,
        cell: ArrayLike,
        pbc: ArrayLike,
        *,
        spring: float = 2.0,
        transverse: float = 0.15,
        diagonal: float = 0.1,
    ) -> None:
        self.positions = np.asarray(positions, dtype=float)
        self.cell = np.asarray(cell, dtype=float)
        self.pbc = np.asarray(pbc, dtype=bool)
        self._stiffness = (float(spring), float(transverse), float(diagonal))
        self._bonds = _bonds(self.positions, self.cell, self.pbc)

    @property
    def n_bonds(self) -> int:
        """Number of springs."""
        return len(self._bonds[0]) // 2

    @cached_property
    def _factor(self) -> SuperLU:
        return splu(
            _matrix(len(self.positions), *self._bonds, *self._stiffness),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def moved(self, atom: int, position: ArrayLike) -> SpringPreconditioner:
        """Return the springs after one atom went elsewhere: only its own bonds are found anew.

        Parameters
        ----------
        atom
            Index of the atom.
        position : array_like, shape (3,)
            Its new place, Å.
        """
        new = object.__new__(SpringPreconditioner)
        new.positions = self.positions.copy()
        new.positions[atom] = position
        new.cell, new.pbc, new._stiffness = self.cell, self.pbc, self._stiffness
        i, j, vectors = self._bonds
        rest = (i != atom) & (j != atom)
        away, length = find_mic(new.positions - new.positions[atom], self.cell, self.pbc)
        length[atom] = np.inf
        own = (
            np.flatnonzero(length <= BOND_TOLERANCE * length.min(initial=np.inf))
            if len(length) > 1
            else rest.nonzero()[0]
        )
        here = np.full(len(own), atom)
        new._bonds = (
            np.concatenate([i[rest], here, own]),
            np.concatenate([j[rest], own, here]),
            np.concatenate([vectors[rest], away[own], -away[own]]),
        )
        return new

    def solve(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply by the inverse of the spring matrix, shape (n_atoms, 3) → (n_atoms, 3), Å²/eV times the input."""
        return self._factor.solve(np.ascontiguousarray(vector).ravel()).reshape(-1, 3)


def _bonds(points: NDArray, cell: NDArray, pbc: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Directed bonds i → j with their vectors; every pair is listed both ways."""
    n = len(points)
    empty = np.empty(0, dtype=np.int64)
    if n < 2:
        return empty, empty, np.empty((0, 3))
    heights = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    reach = 1.5 * (abs(np.linalg.det(cell)) / n) ** (1 / 3)
    while True:
        i, j, d, vectors = primitive_neighbor_list("ijdD", pbc, cell, points, reach)
        nearest = np.full(n, np.inf)
        np.minimum.at(nearest, i, d)
        longest = BOND_TOLERANCE * nearest[np.isfinite(nearest)].max(initial=0.0)
        if (np.isfinite(nearest).all() and longest <= reach) or reach > 2 * max(heights.max(), 10.0):
            break
        reach *= 1.4
    keep = (d <= BOND_TOLERANCE * np.minimum(nearest[i], nearest[j])) | (
        d <= 1.001 * np.maximum(nearest[i], nearest[j])
    )
    keep &= i != j
    return i[keep], j[keep], vectors[keep]


def _matrix(
    n: int, i: NDArray, j: NDArray, vectors: NDArray, spring: float, transverse: float, diagonal: float
) -> coo_matrix:
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    outer = unit[:, :, None] * unit[:, None, :]
    blocks = spring * (transverse * np.eye(3) + (1.0 - transverse) * outer)
    axis = np.arange(3)
    row = np.broadcast_to(3 * i[:, None, None] + axis[None, :, None], blocks.shape)
    column = np.broadcast_to(3 * j[:, None, None] + axis[None, None, :], blocks.shape)
    own = np.broadcast_to(3 * i[:, None, None] + axis[None, None, :], blocks.shape)
    data = np.concatenate([-blocks.ravel(), blocks.ravel()])
    rows = np.concatenate([row.ravel(), row.ravel()])
    columns = np.concatenate([column.ravel(), own.ravel()])
    return (coo_matrix((data, (rows, columns)), shape=(3 * n, 3 * n)) + diagonal * identity(3 * n)).tocsc()


_MEMORY = 30
_PLAIN_STIFFNESS = 50.0
"""eV/Å²: without springs the first Hessian is this constant."""

_CACHE: OrderedDict[tuple, SpringPreconditioner] = OrderedDict()
_CACHE_SIZE = 8


def spring_preconditioner(
    positions: NDArray[np.float64],
    cell: ArrayLike,
    pbc: ArrayLike,
    *,
    spring: float,
    transverse: float,
    diagonal: float,
) -> SpringPreconditioner:
    """Return the :class:`SpringPreconditioner` of these ideal positions, factorised once per process and lattice."""
    c, p = np.asarray(cell, dtype=float), np.asarray(pbc, dtype=bool)
    key = (np.asarray(positions, dtype=float).tobytes(), c.tobytes(), p.tobytes(), spring, transverse, diagonal)
    found = _CACHE.pop(key, None)
    if found is None:
        found = SpringPreconditioner(positions, c, p, spring=spring, transverse=transverse, diagonal=diagonal)
    _CACHE[key] = found
    while len(_CACHE) > _CACHE_SIZE:
        _CACHE.popitem(last=False)
    return found


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
        Whether ``fmax`` is below what was asked.
    """

    positions: NDArray[np.float64]
    energy: float
    fmax: float
    force_calls: int
    converged: bool


class CalculatorFailedError(Exception):
    """The calculator raised, or returned something that is not a number."""


class CountedForces:
    """Energies and forces of one set of atoms, counted and checked."""

    def __init__(self, atoms: Atoms, calculator: Any) -> None:
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self.calls = 0

    def __call__(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return energy (eV) and forces (eV/Å) at positions, shape (n_atoms, 3)."""
        self.calls += 1
        try:
            self.atoms.positions = positions
            forces = np.array(self.atoms.get_forces(), dtype=float)
            energy = float(self.atoms.get_potential_energy())
        except Exception as error:
            raise CalculatorFailedError(f"{type(error).__name__}: {error}") from error
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise CalculatorFailedError("the calculator returned NaN or infinite energy or forces")
        return energy, forces


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
) -> Relaxation:
    """Two-loop L-BFGS; with a tangent the force along it is reversed."""
    x = np.array(start, dtype=float)
    memory: list[tuple[NDArray, NDArray, float]] = []
    before: tuple[NDArray, NDArray] | None = None
    energy, largest, call = np.nan, np.inf, 0
    while call < max_calls:
        call += 1
        energy, force = evaluate(x)
        largest = float(np.sqrt((force**2).sum(axis=1).max()))
        if largest <= fmax:
            break
        if call == max_calls:
            break
        if tangent is not None:
            force = force - 2.0 * (force * tangent).sum() * tangent
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
        length = float(np.sqrt((step**2).sum(axis=1).max()))
        x = x + (step if length <= max_step else step * (max_step / length))
    return Relaxation(x, float(energy), largest, call, largest <= fmax)
