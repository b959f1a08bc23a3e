"""Attempt frequency of one jump from the vibrations of the atoms around it.

G. H. Vineyard, J. Phys. Chem. Solids 3, 121 (1957): ν* = Π ν_i / Π' ν'_i, the frequencies of the state over those of
its saddle without the unstable one. The atoms beyond a radius are held, which leaves 3 m frequencies of m atoms in the
state and 3 m − 1 at the saddle.

A jump and its reverse share the saddle but not the state, and harmonic entropies of states are not part of the energies
that weigh them. Rates that keep detailed balance with these energies therefore use the geometric mean of both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import units
from ase.data import atomic_masses
from ase.geometry import find_mic
from numpy.typing import NDArray

from ase_kinoson.barriers.hop import Hop, Host
from ase_kinoson.barriers.optimise import Relaxation
from ase_kinoson.errors import BarrierError

__all__ = ["atoms_around", "partial_hessian", "vineyard", "vineyard_prefactors"]

_NO_STIFFNESS = 1e-3
"""A translation is free when its curvature is below this fraction of the mean one."""


def atoms_around(host: Host, hop: Hop, radius: float) -> NDArray[np.int64]:
    """Atoms within a radius of the segment between the two sites of a jump, the moving atom included.

    Parameters
    ----------
    host, hop
        The atoms on their sites, and the jump.
    radius
        Å.

    Returns
    -------
    ndarray of int, shape (n_around,)
        Ascending.
    """
    away = find_mic(host.positions - host.positions[hop.mover], host.cell, host.pbc)[0]
    length = float(hop.displacement @ hop.displacement)
    share = np.clip(away @ hop.displacement / length, 0.0, 1.0)
    near = np.linalg.norm(away - share[:, None] * hop.displacement, axis=1) <= radius
    # the minimum image of an atom may lie behind the moving one although another lies beside its new site
    near |= find_mic(away - hop.displacement, host.cell, host.pbc)[1] <= radius
    near[hop.mover] = True
    return np.flatnonzero(near)


def partial_hessian(
    evaluate: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    positions: NDArray[np.float64],
    atoms: NDArray[np.int64],
    *,
    displacement: float = 0.01,
) -> NDArray[np.float64]:
    """Second derivatives of the energy by central differences of forces, symmetrised.

    Parameters
    ----------
    evaluate
        Gives energy (eV) and forces (eV/Å) at positions.
    positions : ndarray, shape (n_atoms, 3)
        Å.
    atoms : ndarray of int, shape (m,)
        Those that move; 6 m force calls.
    displacement
        Å.

    Returns
    -------
    ndarray, shape (3 m, 3 m)
        eV/Å².
    """
    rows = []
    for atom in atoms:
        for axis in range(3):
            sides = []
            for sign in (1.0, -1.0):
                moved = positions.copy()
                moved[atom, axis] += sign * displacement
                sides.append(evaluate(moved)[1][atoms].ravel())
            rows.append((sides[1] - sides[0]) / (2.0 * displacement))
    hessian = np.array(rows)
    return 0.5 * (hessian + hessian.T)


def vineyard(
    state: NDArray[np.float64], saddle: NDArray[np.float64], masses: NDArray[np.float64], *, free: bool = False
) -> float:
    """Attempt frequency from two Hessians, s⁻¹.

    Parameters
    ----------
    state, saddle : ndarray, shape (3 m, 3 m)
        eV/Å².
    masses : ndarray, shape (m,)
        Atomic mass units.
    free
        Whether no atom is held, so that the three translations have no stiffness and are left out.

    Raises
    ------
    BarrierError
        If the state has a direction that goes down, or the saddle not exactly one.
    """
    root = np.sqrt(np.repeat(np.asarray(masses, dtype=float), 3))
    logarithm = 0.0
    for hessian, expected, sign, name in ((state, 0, 0.5, "state"), (saddle, 1, -0.5, "saddle")):
        dynamical = hessian / np.outer(root, root)
        if free:
            moving = np.tile(np.eye(3), (len(masses), 1)) * root[:, None]
            rest = np.linalg.qr(moving, mode="complete")[0][:, 3:]
            dynamical = rest.T @ dynamical @ rest
        values = np.linalg.eigvalsh(dynamical)
        down = int((values <= 0).sum())
        if down != expected:
            raise BarrierError(
                f"found {down} directions that go down in the Hessian of the {name}; expected {expected}; relax it "
                "further, or take a larger radius"
            )
        logarithm += sign * float(np.log(values[expected:]).sum())
    return float(np.exp(logarithm)) / (2.0 * np.pi) * units.second


def vineyard_prefactors(
    evaluate: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    host: Host,
    hop: Hop,
    points: tuple[Relaxation, Relaxation, Relaxation],
    *,
    radius: float,
) -> tuple[float, float, str]:
    """Attempt frequencies of a jump and of its reverse.

    Parameters
    ----------
    evaluate
        Gives energy and forces.
    host, hop
        The atoms and the one that moves.
    points
        Initial state, saddle and final state.
    radius
        Å; see :func:`atoms_around`.

    Returns
    -------
    forward, reverse : float
        s⁻¹; NaN where the Hessians are not those of a state and a saddle.
    problem : str
        Why; empty if all is well.
    """
    atoms = atoms_around(host, hop, radius)
    masses = atomic_masses[host.numbers[atoms]]
    initial, saddle, final = (partial_hessian(evaluate, point.positions, atoms) for point in points)
    free = False
    if len(atoms) == len(host.positions):
        shift = np.tile(np.eye(3), (len(atoms), 1)) / np.sqrt(len(atoms))
        free = bool(np.abs(shift.T @ initial @ shift).max() < _NO_STIFFNESS * np.trace(initial) / len(initial))
    found, problems = [], []
    for state in (initial, final):
        try:
            found.append(vineyard(state, saddle, masses, free=free))
        except BarrierError as error:
            found.append(np.nan)
            problems.append(str(error))
    return found[0], found[1], "; ".join(dict.fromkeys(problems))
