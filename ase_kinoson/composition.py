"""Compositions: points of a simplex, cells that hold them, and their lattice constants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.alloy import Alloy, Sublattice
from ase_kinoson.crystal.sublattice import VACANCY
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError, KinosonError
from ase_kinoson.kinetics.monte_carlo import random_occupations

__all__ = ["Fractions", "as_fractions", "composition_grid", "relaxed_lattice_constant", "vegard", "with_composition"]

Fractions = tuple[tuple[str, float], ...]
"""Symbols and their fractions, in a fixed order of symbols; they sum to 1."""

MOST_POINTS = 100_000
"""Most compositions of a grid."""


def composition_grid(species: Sequence[str], step: float = 0.1) -> list[dict[str, float]]:
    """All compositions whose fractions are multiples of a step, corners and edges included.

    Parameters
    ----------
    species
        Symbols; the order of the fractions.
    step
        1 over a whole number, no unit. n species and 1/step = m give C(m + n − 1, n − 1) points: 66 for three and 0.1.

    Returns
    -------
    list of dict
        Fraction of each species, no unit, from the first pure species to the last; neighbours in the list are mostly
        neighbours in composition.

    Raises
    ------
    KinosonError
        If a species is named twice, the step does not divide 1, or there would be more than 100,000 compositions.
    """
    names = list(species)
    if len(names) < 2 or len(set(names)) != len(names):
        raise KinosonError(f"found species {names} for a grid; expected at least two different ones; name them once")
    parts = round(1.0 / step) if 0 < step <= 1 else 0
    if parts < 1 or abs(parts * step - 1.0) > 1e-6:
        raise KinosonError(f"found step={step}; expected 1 over a whole number, such as 0.1; choose one")
    points = math.comb(parts + len(names) - 1, len(names) - 1)
    if points > MOST_POINTS:
        raise KinosonError(
            f"found step={step} for {len(names)} species, which makes {points} compositions; expected at most "
            f"{MOST_POINTS}; choose a larger step"
        )
    rows = []
    for bars in itertools.combinations(range(parts + len(names) - 1), len(names) - 1):
        ends = (-1, *bars, parts + len(names) - 1)
        rows.append(tuple(b - a - 1 for a, b in itertools.pairwise(ends)))
    return [{s: n / parts for s, n in zip(names, row, strict=True)} for row in sorted(rows, reverse=True)]


def as_fractions(composition: Mapping[str, float], species: Sequence[str]) -> Fractions:
    """Check a composition and write it in the order of ``species``, absent ones as 0.

    Raises
    ------
    KinosonError
        If fractions are negative, do not sum to 1, or name a species that is not listed.
    """
    unknown = sorted(set(composition) - set(species))
    if unknown:
        raise KinosonError(f"found {unknown} in a composition; expected species among {list(species)}; rename them")
    x = np.array([float(composition.get(s, 0.0)) for s in species])
    if not np.all(np.isfinite(x)) or x.min(initial=0.0) < -1e-9 or abs(x.sum() - 1.0) > 1e-6:
        raise KinosonError(
            f"found the composition {dict(composition)}; expected fractions of at least 0 that sum to 1; correct them"
        )
    x = np.clip(x, 0.0, None)
    return tuple((s, round(float(v), 10)) for s, v in zip(species, x / x.sum(), strict=True))


def with_composition(alloy: Alloy, composition: Mapping[str, float] | Fractions, *, scale: float = 1.0) -> Alloy:
    """The same parent crystal with another composition on its mobile sublattice, stretched by a factor.

    Species with fraction 0, and those of ``alloy`` that a mapping leaves out, stay known: compositions of one parent
    share their species codes.

    Parameters
    ----------
    alloy : Alloy
        With one mobile sublattice.
    composition : mapping of str to float, or pairs of (symbol, fraction)
        Site fractions on that sublattice, summing to 1.
    scale : float
        Factor of all periodic lattice vectors, no unit.

    Returns
    -------
    Alloy

    Raises
    ------
    KinosonError
        If the crystal has several mobile sublattices, or an interstitial one, or fractions do not sum to 1.
    """
    mobile = [k for k, s in enumerate(alloy.sublattices) if s.mobile]
    if len(mobile) != 1 or alloy.is_interstitial:
        raise KinosonError(
            f"found {len(mobile)} mobile sublattices{' and an interstitial' if alloy.is_interstitial else ''}; "
            "expected one on which a vacancy moves; evaluate other crystals one composition at a time"
        )
    old = alloy.sublattices[mobile[0]]
    if isinstance(composition, Mapping):
        composition = as_fractions(composition, sorted({*composition, *(a for a in old.species if a != VACANCY)}))
    subs = list(alloy.sublattices)
    subs[mobile[0]] = Sublattice(old.name, tuple(sorted(composition)), mobile=True)
    cell = alloy.cell.copy()
    cell[alloy.pbc] *= scale
    return replace(alloy, cell=cell, sublattices=tuple(subs))


def vegard(composition: Mapping[str, float], lattice_constants: Mapping[str, float]) -> float:
    """Lattice constant by Vegard's rule, Σ x_i a_i.

    L. Vegard, Z. Phys. 5, 17 (1921); alloys of atoms of very different size deviate by up to about 1 %.

    Parameters
    ----------
    composition : mapping of str to float
        Fraction of each species; they need not sum to 1 exactly and are normalised.
    lattice_constants : mapping of str to float
        Of each pure species on the same lattice, Å (or another unit: the result has the same).

    Returns
    -------
    float
        Å.

    Raises
    ------
    KinosonError
        If a species has no lattice constant, or one is not positive.
    """
    present = {s: float(x) for s, x in composition.items() if x > 0}
    missing = sorted(set(present) - set(lattice_constants))
    if missing or not present:
        raise KinosonError(
            f"found no lattice constant of {missing or 'any species'}; expected one for each of {sorted(present)}; "
            "add them"
        )
    bad = {s: lattice_constants[s] for s in present if not lattice_constants[s] > 0}
    if bad:
        raise KinosonError(f"found lattice constants {bad}; expected positive lengths; correct them")
    total = sum(present.values())
    return sum(x * float(lattice_constants[s]) for s, x in present.items()) / total


def relaxed_lattice_constant(
    cell: Supercell, calculator: Callable[[], Any], *, n_cells: int = 1, seed: int = 0, fmax: float = 0.02
) -> tuple[float, float]:
    """Lattice constant at zero pressure of random arrangements: atoms and volume relax, the shape stays.

    Parameters
    ----------
    cell
        Supercell with the composition; its lattice constant is the start.
    calculator
        Factory of an ASE calculator with stresses.
    n_cells, seed
        Number of random arrangements, and their seed. The cells hold no vacancy: its site gets the most abundant
        species of its sublattice. Nor do they hold an interstitial atom.
    fmax
        Largest force and stress component left, eV/Å.

    Returns
    -------
    value, error : float
        Length of the first conventional vector, Å, and its standard error over arrangements (NaN for one).

    Raises
    ------
    BarrierError
        If a cell does not relax.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import LBFGS

    occupations, carriers = random_occupations(cell, n_cells, np.random.default_rng(seed))
    if cell.alloy.is_interstitial:
        fill = 0  # the host alone
    else:
        atoms = next(c for sub, c in zip(cell.alloy.sublattices, cell.counts, strict=True) if sub.mobile)
        fill = cell.species.index(max(atoms, key=lambda s: atoms[s]))
    length = float(np.linalg.norm((cell.alloy.conventional @ cell.alloy.cell)[0]))
    found: NDArray[np.float64] = np.empty(n_cells)
    for n, (row, carrier) in enumerate(zip(occupations, carriers, strict=True)):
        row[carrier] = fill
        image = cell.to_atoms(row)
        image.calc = calculator()
        before = float(image.cell.volume)
        if not LBFGS(FrechetCellFilter(image, hydrostatic_strain=True), logfile=None).run(fmax=fmax, steps=500):
            raise BarrierError(
                f"a random cell of {len(image)} atoms did not relax in 500 steps; expected forces below {fmax} eV/Å; "
                "start from a better lattice constant or raise fmax"
            )
        found[n] = length * (float(image.cell.volume) / before) ** (1.0 / cell.alloy.dimension)
    error = float(found.std(ddof=1) / np.sqrt(n_cells)) if n_cells > 1 else float("nan")
    return float(found.mean()), error
