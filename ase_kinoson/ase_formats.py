"""What ASE reads of ours: ``ase.io.read``, ``ase gui`` and ``ase convert`` open archives of barriers.

ASE imports this module whenever ``ase.io`` is imported, so it imports nothing heavy by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.utils.plugins import ExternalIOFormat

if TYPE_CHECKING:
    from ase import Atoms

    from ase_kinoson.barriers.reference import Barriers

__all__ = ["barriers_format", "read_kinoson_barriers"]

barriers_format = ExternalIOFormat(
    desc="ase_kinoson archive of barriers",
    code="+S",
    module="ase_kinoson.ase_formats",
    ext=["kinoson"],
    # NumPy's zip archives begin with the name of their first array; `.npz` alone would claim those of everybody
    magic_regex=rb"PK\x03\x04.{26}head\.npy",
)
"""Entry point ``kinoson-barriers`` of the group ``ase.ioformats``."""


def read_kinoson_barriers(filename: str, index: slice | int = -1, name: str | None = None) -> Iterator[Atoms]:
    """Read the states of an archive that :func:`~ase_kinoson.barriers.archive.save_barriers` wrote.

    Nothing is unpickled.

    Parameters
    ----------
    filename
        The archive.
    index
        Which states.
    name
        Which set of the archive; default: all sets, one after the other.

    Yields
    ------
    Atoms
        On the ideal sites. In ``info``: ``carrier_site``, ``weight``, ``group``; ``energy_initial`` (eV, of the relaxed
        state) where it is known; ``barriers`` and ``reverse_barriers`` (eV, one per jump of the lattice). In
        ``arrays``: ``site``, and ``barrier`` (eV), the lowest barrier of a jump of this atom. Not a number: no jump, or
        none that was accepted.

    Raises
    ------
    BarrierError
        If the file is damaged, no such archive, or has no such set.
    """
    from ase_kinoson.barriers.archive import load_barriers

    found = load_barriers(filename, name)
    rows = range(len(found))[index]
    for row in [rows] if isinstance(rows, int) else rows:
        yield _atoms(found, row)


def _atoms(found: Barriers, row: int) -> Atoms:
    """One state with its barriers."""
    from ase_kinoson.barriers.archive import DIGITS

    states, network = found.states, found.network
    carrier = int(states.carriers[row])
    atoms = states.supercell.to_atoms(states.occupations[row], carrier)
    about: dict[str, Any] = {"weight": float(states.weights[row]), "group": int(states.groups[row])}
    if np.isfinite(found.energy_initial[row]):
        about["energy_initial"] = float(found.energy_initial[row])
    barrier = np.where(found.valid[row], found.barrier[row], np.nan)
    # the digits of the archive; sums of floats leave more
    about["barriers"] = barrier.round(DIGITS)
    about["reverse_barriers"] = np.where(found.valid[row], found.reverse_barrier[row], np.nan).round(DIGITS)
    atoms.info.update(about)
    targets = network.targets(np.array([carrier]))[0]
    moving = np.full(len(targets), carrier) if network.mechanism == "interstitial" else targets
    lowest = np.full(states.supercell.n_sites, np.nan)
    known = np.isfinite(barrier)
    np.fmin.at(lowest, moving[known], barrier[known])
    atoms.arrays["barrier"] = lowest.round(DIGITS)[atoms.arrays["site"]]
    return atoms
