"""Other programs that do the same, where they are installed; none is required.

The Onsager package of D. R. Trinkle (PyPI ``onsager``, version 1.4) was written before NumPy 2, which dropped the name
``np.Inf`` that its compiled sampler uses; the name is put back before it is loaded.
"""

from __future__ import annotations

from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.bench.row import Peer

__all__ = ["absent", "dilute_coefficients", "installed", "left_out", "onsager_exchanges", "onsager_vacancy", "version"]

REACH = 0.8
"""Nearest neighbours of fcc, in units of the cubic lattice constant."""


def installed(package: str) -> bool:
    """Whether a package can be imported, as far as can be told without loading it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def version(package: str) -> str:
    """Version, or an empty text."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def absent(name: str, package: str) -> Peer:
    """What a row says of a peer that is not there."""
    return Peer(name, note=f"not installed here (pip install {package})")


def left_out(name: str) -> Peer:
    """What a quick row says of a peer whose compilation takes longer than the row."""
    return Peer(name, note="left out with --quick: compiling it takes longer than the row")


def _onsager(module: str) -> Any:
    if not hasattr(np, "Inf"):
        np.Inf = np.inf  # type: ignore[attr-defined]  # noqa: NPY201
    return import_module(f"onsager.{module}")


def _sampler(n: int, order: int, pair: float, occupation: NDArray[np.int64]) -> Any:
    """Compiled sampler of fcc with n³ primitive cells, a pair energy (eV), and jumps of occupied into empty sites."""
    crystal, cluster, supercell = (_onsager(name) for name in ("crystal", "cluster", "supercell"))
    fcc = crystal.Crystal.FCC(1.0, "A")
    clusters = cluster.makeclusters(fcc, REACH, order)
    values = np.zeros(len(clusters) + 1)
    if order > 1:
        values[1] = pair
    jumps = fcc.jumpnetwork(0, REACH)
    cell = supercell.ClusterSupercell(fcc, n * np.eye(3, dtype=int))
    extra = {} if order > 1 else {"chem": 0, "jumpnetwork": jumps, "KRAvalues": np.full(len(jumps), 0.5)}
    sampler = cluster.MonteCarloSampler(cell, np.zeros(0), clusters, values, **extra)
    sampler.start(occupation)
    return cluster.MonteCarloSampler_jit(**cluster.MonteCarloSampler_param(sampler))


def onsager_exchanges(n: int, pair: float, kT: float) -> Any:
    """A function that attempts m exchanges of unlike atoms in fcc with n³ sites and pair energies (eV)."""
    rng = np.random.default_rng(0)
    sampler = _sampler(n, 2, pair, rng.permutation(np.arange(n**3) % 2))

    def attempt(m: int) -> None:
        empty, full = rng.integers(sampler.Nunocc, size=m), rng.integers(sampler.Nocc, size=m)
        sampler.MCmoves(empty, full, -kT * np.log1p(-rng.random(m)))

    return attempt


def onsager_vacancy(n: int) -> Any:
    """A function that lets the one empty site of fcc with n³ sites jump m times, in a compiled loop.

    The sampler lists the transitions of the whole cell, of which those into the empty site are allowed.
    """
    import numba

    occupation = np.ones(n**3, dtype=int)
    occupation[0] = 0
    sampler = _sampler(n, 1, 0.0, occupation)

    @numba.njit
    def walk(sampler, draws):  # numba reads no annotations
        """Jumps in the order of the draws; returns their time."""
        time = 0.0
        for draw in draws:
            ends, barriers, _ = sampler.transitions()
            total = 0.0
            for k in range(len(barriers)):
                if barriers[k] < np.inf:
                    total += np.exp(-barriers[k])
            time += 1.0 / total
            aim = draw * total
            for k in range(len(barriers)):
                if barriers[k] < np.inf:
                    aim -= np.exp(-barriers[k])
                    if aim < 0.0:
                        sampler.update(ends[k, 1], ends[k, 0])
                        break
        return time

    rng = np.random.default_rng(0)
    return lambda m: walk(sampler, rng.random(m))


def dilute_coefficients(w: tuple[float, float, float, float, float]) -> tuple[float, float]:
    """L_ss and L_sv of the five-frequency model in infinite fcc with a = 1, by its vacancy-mediated calculator."""
    crystal, calculator = _onsager("crystal"), _onsager("OnsagerCalc")
    fcc = crystal.Crystal.FCC(1.0)
    diffuser = calculator.VacancyMediated(fcc, 0, fcc.sitelist(0), fcc.jumpnetwork(0, REACH), 1)
    w0, w1, w2, w3, w4 = w
    bound = w4 / w3
    zero, near = "+0.000,+0.000,+0.000", "+0.000,-1.000,+0.000"
    tags = {
        f"v:{zero}": (1.0, 0.0),
        f"s:{zero}": (1.0, 0.0),
        f"s:{zero}-v:{near}": (bound, 0.0),
        f"omega0:v:{zero}^v:+0.000,+0.000,+1.000": (w0, 0.0),
        f"omega2:s:{zero}-v:+0.000,+0.000,-1.000^s:{zero}-v:+0.000,+0.000,+1.000": (w2 * bound, 0.0),
        f"omega1:s:{zero}-v:{near}^v:+0.000,-1.000,+1.000": (w1 * bound, 0.0),
        f"omega1:s:{zero}-v:-1.000,+0.000,+1.000^v:-1.000,+0.000,+2.000": (w4, 0.0),
        f"omega1:s:{zero}-v:+0.000,+0.000,+1.000^v:+0.000,+0.000,+2.000": (w4, 0.0),
        f"omega1:s:{zero}-v:+1.000,-1.000,+0.000^v:+1.000,-1.000,+1.000": (w4, 0.0),
    }
    found = diffuser.Lij(*diffuser.preene2betafree(1.0, **diffuser.tags2preene(tags)))
    return float(found[1][0, 0]), float(found[2][0, 0])
