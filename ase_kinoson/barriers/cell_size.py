"""Whether a cell is large enough for the field of its jumps: barriers of two sizes.

A vacancy, and an atom between two sites, strain the crystal around them; in a periodic cell they feel the strain of
their images. The energy of that falls as one over the volume of the cell, so that two sizes tell it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.errors import BarrierError, KinosonWarning, LargeError, SmallCell

__all__ = ["CellComparison", "compare_cells"]


@dataclass(frozen=True)
class CellComparison:
    """Mean barriers of a smaller and a larger cell.

    Attributes
    ----------
    n_sites : tuple of int
        Sites of the smaller and of the larger cell.
    difference : mapping of str to float
        Mean barrier in the smaller cell minus that in the larger one, of each moving species, eV.
    error : mapping of str to float
        Its standard error from the scatter among groups of states, eV; 0 where there is one arrangement only, as in
        an ordered or a pure crystal.
    warnings : tuple of KinosonWarning
        :class:`SmallCell` where a difference is larger than the limit and than twice its error; :class:`LargeError`
        where it is too uncertain to tell.
    """

    n_sites: tuple[int, int]
    difference: Mapping[str, float]
    error: Mapping[str, float]
    warnings: tuple[KinosonWarning, ...] = ()

    def left(self, species: str) -> float:
        """What the larger cell still lacks if the field falls as one over the number of sites, eV.

        Parameters
        ----------
        species
            Moving atom.
        """
        small, large = self.n_sites
        return self.difference[species] * small / (large - small)

    def __str__(self) -> str:
        small, large = self.n_sites
        lines = [f"mean barriers of {small} sites minus those of {large}:"]
        lines += [
            f"  {a}: {x:+.4f} ± {self.error[a]:.4f} eV; by 1/N the larger cell is off by {self.left(a):+.4f} eV"
            for a, x in self.difference.items()
        ]
        return "\n".join([*lines, *(f"  {w}" for w in self.warnings)])


def compare_cells(one: Barriers, other: Barriers, *, limit_eV: float = 0.02) -> CellComparison:
    """Compare the barriers of two cell sizes of one alloy, species by species.

    In an ordered crystal, or a pure one, the two cells hold the same jump, and the difference is exact. In a random
    alloy they hold different arrangements: the difference of the means has an error, which more states make smaller.

    Parameters
    ----------
    one, other
        Reference barriers of one alloy and composition in two supercells, computed with the same settings; in either
        order. Every jump counts once.
    limit_eV
        Largest difference of a mean barrier that is still good, eV.

    Returns
    -------
    CellComparison
        Its warnings are given as Python warnings too.

    Raises
    ------
    BarrierError
        If the cells have the same size, or other species or compositions; or a disordered alloy or host has fewer than
        two groups of states.

    Warns
    -----
    SmallCell
        If a mean barrier differs by more than ``limit_eV`` and by more than two standard errors.
    LargeError
        If twice the error of a difference is larger than ``limit_eV``, so that it cannot be told.
    """
    small, large = sorted((one, other), key=lambda b: b.states.supercell.n_sites)
    sizes = (small.states.supercell.n_sites, large.states.supercell.n_sites)
    if sizes[0] == sizes[1]:
        raise BarrierError(
            f"found two sets of barriers in cells of {sizes[0]} sites; expected two sizes; compute one of them in a "
            "larger supercell"
        )
    if not limit_eV > 0:
        raise BarrierError(f"found limit_eV={limit_eV}; expected a positive number; correct it")
    _same_alloy(small, large)
    difference, error = {}, {}
    parts = [_means(b) for b in (small, large)]
    for species in parts[0]:
        if species in parts[1]:
            (low, low_error), (high, high_error) = parts[0][species], parts[1][species]
            difference[species], error[species] = low - high, float(np.hypot(low_error, high_error))
    if not difference:
        raise BarrierError("found no species with barriers in both cells; expected at least one; compute more states")
    said: list[KinosonWarning] = []
    for species, gap in difference.items():
        doubt = 2.0 * error[species]
        if abs(gap) > limit_eV and abs(gap) > doubt:
            said.append(
                SmallCell(
                    f"the mean barrier of {species} in a cell of {sizes[0]} sites differs by {gap:+.4f} ± "
                    f"{error[species]:.4f} eV from that in one of {sizes[1]}; expected at most {limit_eV:g} eV",
                    number=gap,
                    limit=limit_eV,
                    unit="eV",
                    advice="use the larger cell, and compare it with a yet larger one",
                )
            )
        elif doubt > limit_eV:
            said.append(
                LargeError(
                    f"the mean barriers of {species} in cells of {sizes[0]} and {sizes[1]} sites differ by {gap:+.3f} "
                    f"± {error[species]:.3f} eV; expected an error below {0.5 * limit_eV:g} eV to tell whether the "
                    "smaller one will do",
                    number=error[species],
                    limit=0.5 * limit_eV,
                    unit="eV",
                    advice="compute barriers of more states in both cells",
                )
            )
    for warning in said:
        warnings.warn(warning, stacklevel=2)
    return CellComparison(sizes, difference, error, tuple(said))


def _means(barriers: Barriers) -> dict[str, tuple[float, float]]:
    """Mean barrier of each moving species and its standard error over groups of states, eV."""
    moving, groups = barriers.moving_species, barriers.states.groups
    names, member = np.unique(groups, return_inverse=True)
    exact = len(names) < 2 and _is_ordered(barriers)
    if len(names) < 2 and not exact:
        raise BarrierError(
            "found one group of states of an alloy; expected at least two, to know the error of a mean barrier; "
            "compute barriers of more independent states"
        )
    found = {}
    for code, symbol in enumerate(barriers.states.supercell.species):
        own = (moving == code) & barriers.valid
        if code == 0 or not own.any():
            continue
        sums = np.bincount(member, np.where(own, barriers.barrier, 0.0).sum(axis=1), minlength=len(names))
        counts = np.bincount(member, own.sum(axis=1), minlength=len(names)).astype(float)
        mean = float(sums.sum() / counts.sum())
        # of a ratio of sums over groups
        rest = sums - mean * counts
        n = len(names)
        found[symbol] = (mean, 0.0 if exact else float(np.sqrt(n / (n - 1) * np.square(rest).sum()) / counts.sum()))
    return found


def _is_ordered(barriers: Barriers) -> bool:
    """Whether every sublattice holds one species, so that all states are one arrangement; of hosts as well."""
    cell = barriers.states.supercell
    sublattice = np.asarray(cell.alloy.site_sublattice)[cell.basis_index]
    for i, about in enumerate(cell.alloy.sublattices):
        found = np.unique(barriers.states.occupations[:, sublattice == i])
        if (found > 0 if about.mobile else found >= 0).sum() > 1:  # empty sites that stay empty are an arrangement too
            return False
    return True


def _fractions(barriers: Barriers) -> dict[str, float]:
    """Mean share of each species among all atoms; in interstitial alloys among those of the host."""
    cell, on = barriers.states.supercell, barriers.states.occupations
    if cell.alloy.is_interstitial:
        on = np.delete(on, cell.mobile_sites, axis=1)  # one carrier is another share of a larger cell
    counts = {s: int((on == code).sum()) for code, s in enumerate(cell.species) if code > 0}
    total = sum(counts.values())
    return {s: x / total for s, x in counts.items() if x}


def _same_alloy(small: Barriers, large: Barriers) -> None:
    """Refuse sets that cannot be compared; whole atoms round a composition, on every sublattice."""
    a, b = _fractions(small), _fractions(large)
    gap = max((abs(a.get(s, 0.0) - b.get(s, 0.0)) for s in {*a, *b}), default=0.0)
    atoms = max(1, int((small.states.occupations[:1] > 0).sum()))
    rounding = len(small.states.supercell.alloy.sublattices) / atoms
    if set(a) != set(b) or gap > rounding + 1e-9:
        raise BarrierError(
            f"found compositions {_shown(a)} and {_shown(b)}; expected one, up to the rounding to whole atoms; compute "
            "both cells for one alloy"
        )


def _shown(fractions: Mapping[str, float]) -> str:
    return " ".join(f"{s} {100 * x:.1f} %" for s, x in fractions.items())
