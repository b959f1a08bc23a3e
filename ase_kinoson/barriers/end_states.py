"""Whether end states of jumps stay where they are put, and have one energy each."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ase_kinoson.barriers.reference import NO_JUMP, NOT_COMPUTED, Barriers
from ase_kinoson.errors import EndStateDrift, KinosonWarning

__all__ = ["end_state_drift", "end_state_gap"]

UNSTABLE = ("unstable-start", "unstable-end")
"""Statuses of jumps one of whose ends relaxes into another arrangement."""
LARGEST_SHARE = 0.1
"""Share of such jumps above which the lattice, or the cell, is in doubt."""
LEAST = 3
"""So many of them at least: one in a handful tells nothing."""
LARGEST_GAP = 0.01
"""eV between energies of one end state; 12 % in a rate at 1000 K."""


def end_state_drift(barriers: Barriers) -> list[KinosonWarning]:
    """Warnings of end states that drift.

    Parameters
    ----------
    barriers
        Of any states, in the units of :class:`Barriers`.

    Returns
    -------
    list of EndStateDrift
        One where more than a tenth of the jumps have an end that relaxes into another arrangement (share in %), one
        where the energies of one end state, reached by several jumps, differ by more than 0.01 eV (gap in eV).
    """
    said: list[KinosonWarning] = []
    tried = ~np.isin(barriers.status, (NO_JUMP, NOT_COMPUTED))
    gone = int(np.isin(barriers.status, UNSTABLE).sum())
    if gone >= LEAST and gone > LARGEST_SHARE * tried.sum():
        share = 100.0 * gone / int(tried.sum())
        said.append(
            EndStateDrift(
                f"{gone} of {int(tried.sum())} jumps begin or end in an arrangement that relaxes into another one "
                f"({share:.0f} %); expected at most {100 * LARGEST_SHARE:.0f} %",
                number=share,
                limit=100 * LARGEST_SHARE,
                unit="%",
                advice="look at Barriers.reasons; compute at the relaxed lattice constant, in a larger cell, or leave "
                "out compositions at which the lattice is not stable",
            )
        )
    gap, end = end_state_gap(barriers)
    if gap > LARGEST_GAP:
        said.append(
            EndStateDrift(
                f"the energies of one end state, reached by several jumps, differ by {gap:.3f} eV (jump {end[1]} of "
                f"state {end[0]} is one of them); expected at most {LARGEST_GAP:g} eV",
                number=gap,
                limit=LARGEST_GAP,
                unit="eV",
                advice="relax the ends more tightly (SaddleSettings.fmax_final), and see whether they are one minimum",
            )
        )
    return said


def end_state_gap(barriers: Barriers) -> tuple[float, tuple[int, int]]:
    """Largest difference between the energies that several jumps give one end state.

    Parameters
    ----------
    barriers
        Of any states; where an end state is one of them, its own relaxed energy counts too.

    Returns
    -------
    gap : float
        eV; 0 where no end state is met twice.
    jump : tuple of int
        State and jump of the highest of the energies; (−1, −1) where there is none.
    """
    states, network = barriers.states, barriers.network
    rows, jumps = np.nonzero(barriers.valid & np.isfinite(barriers.energy_final))
    met: dict[tuple[bytes, int], list[tuple[float, int, int]]] = defaultdict(list)
    if len(rows):
        after, carriers = network.apply(states.occupations[rows], states.carriers[rows], jumps)
        for row, carrier, n, k in zip(after, carriers, rows.tolist(), jumps.tolist(), strict=True):
            met[row.tobytes(), int(carrier)].append((float(barriers.energy_final[n, k]), n, k))
        for n, (row, carrier) in enumerate(zip(states.occupations.astype(after.dtype), states.carriers, strict=True)):
            key = (row.tobytes(), int(carrier))
            if key in met and np.isfinite(barriers.energy_initial[n]):
                met[key].append((float(barriers.energy_initial[n]), n, -1))
    worst, where = 0.0, (-1, -1)
    for found in met.values():
        gap = max(found)[0] - min(found)[0]
        if gap > worst:
            _, n, k = max(one for one in found if one[2] >= 0)
            worst, where = gap, (n, k)
    return worst, where
