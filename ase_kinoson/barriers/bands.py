"""`import_bands`: NEB results of others become reference barriers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.band_files import Band, BandError, find_bands
from ase_kinoson.barriers.band_path import BandJump, BandLimits, jump_of_band
from ase_kinoson.barriers.reference import NO_JUMP, NOT_COMPUTED, Barriers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError, FailedCalculations

__all__ = ["ImportedBand", "ImportedBands", "RefusedBand", "import_bands"]

BARRIERS = ("highest", "spline")
"""Where the saddle energy comes from: the highest image, or the maximum of a spline through all."""


@dataclass(frozen=True)
class ImportedBand:
    """A band that became a jump and its reverse.

    Attributes
    ----------
    name : str
        The file, folder or place in the list.
    state, jump : int
        Row of the barriers and index of the jump from its first end.
    reverse_state, reverse_jump : int
        The same from its last end.
    species : str
        Element of the atom that moves.
    atom : int
        Its index in the images.
    barrier, reverse_barrier : float
        eV.
    highest : int
        The highest image.
    spline : float
        How far the maximum of a spline lies above the highest image, eV: more than a few meV tell that no image is at
        the saddle.
    fmax : float
        Largest force on an atom of the highest image, eV/Å; NaN if unknown.
    """

    name: str
    state: int
    jump: int
    reverse_state: int
    reverse_jump: int
    species: str
    atom: int
    barrier: float
    reverse_barrier: float
    highest: int
    spline: float
    fmax: float


@dataclass(frozen=True)
class RefusedBand:
    """A band that was not used.

    Attributes
    ----------
    name : str
    image : int or None
        The image that shows why, counted from 0; None where it is the band as a whole.
    reason : str
    """

    name: str
    image: int | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.image is None else f", image {self.image}"
        return f"{self.name}{where}: {self.reason}"


@dataclass(frozen=True, eq=False)
class ImportedBands:
    """What became of the bands; every one is in ``bands`` or in ``refused``.

    Attributes
    ----------
    barriers : Barriers
        One row per state at an end of a band; jumps without a band are ``"not-computed"``.
    bands : tuple of ImportedBand
        Those that became a jump and its reverse.
    refused : tuple of RefusedBand
        Those that were not used, with the reason.
    """

    barriers: Barriers
    bands: tuple[ImportedBand, ...]
    refused: tuple[RefusedBand, ...]

    def __str__(self) -> str:
        first = (
            f"{len(self.bands)} bands became {self.barriers.n_barriers} barriers of {len(self.barriers)} states; "
            f"{len(self.refused)} refused"
        )
        return "\n".join([first, *(f"  {refused}" for refused in self.refused)])


def import_bands(
    bands: Any,
    jumps: JumpNetwork,
    *,
    barrier: str = "highest",
    fmax: float | None = None,
    energy_tolerance: float = 0.01,
    cell_tolerance: float = 0.01,
    unwrap: bool = False,
) -> ImportedBands:
    """Turn NEB results into reference barriers.

    Each band gives two barriers: that of its jump in the state at its first end, and that of the reverse jump in the
    state at its last end. Ends that are the same state, also after a lattice translation, become one row, on the sites
    of the band that comes first. States of bands that hang together are of one group.

    Parameters
    ----------
    bands
        A trajectory, extended XYZ file or database of ASE (of an optimiser's trajectory the last step counts), a folder
        of such files (``.traj``, ``.xyz``, ``.extxyz``) or of folders, a VASP folder with ``00`` … ``0N``, a list of
        Atoms with energies, an ``NEB`` of ASE, an ``NEBAnalysis`` of pymatgen, or a list or mapping of these.
    jumps
        The jumps on the supercell of the bands, with its lattice constant.
    barrier
        ``"highest"``: saddle energy of the highest image, right for climbing images and a lower bound otherwise.
        ``"spline"``: of the highest point of a curve through the images: the spline of an ``NEBAnalysis``, the cubic
        pieces of :meth:`ase.mep.NEBTools.get_barrier` where all true forces are known, else a cubic spline that is flat
        at both ends, as in ``NEBAnalysis``.
    fmax
        Refuse bands whose ends or highest image have a larger force on an atom, eV/Å; with ``barrier="spline"`` only
        the part across the path counts at the highest image. Default: not looked at.
    energy_tolerance
        How much the energies of one state may differ between bands, eV. A band that disagrees with half or more of the
        bands of a state is refused.
    cell_tolerance
        Largest relative difference between the cell vectors of a band and those of the supercell.
    unwrap
        Accept bands of ASE in which an atom jumps by a lattice vector between images, by its shortest way. Positions
        of VASP and pymatgen are always read so, because they are folded into the cell.

    Returns
    -------
    ImportedBands
        ``.barriers``, ``.bands`` and ``.refused``. Energies are those of the files; of VASP that with the smearing
        extrapolated to zero.

    Raises
    ------
    BarrierError
        If a path does not exist, no band is found, or an argument is wrong.

    Warns
    -----
    KinosonWarning
        If bands are refused.

    Notes
    -----
    Refused is, with the image and the reason: another cell, species or number of atoms; an order of the atoms that
    changes; a path that is not one of minimum images; an end that is no state with one carrier; more or other moves
    than one jump of the network; an end that is not a minimum of the path, or no maximum between; forces above
    ``fmax``; energies that contradict other bands; and of several bands of one jump all but the lowest.
    """
    if barrier not in BARRIERS:
        raise BarrierError(f"found barrier={barrier!r}; expected 'highest' or 'spline'; choose one")
    for name, value in (("fmax", fmax), ("energy_tolerance", energy_tolerance), ("cell_tolerance", cell_tolerance)):
        if value is not None and not 0 <= value < np.inf:
            raise BarrierError(f"found {name}={value}; expected a finite number of at least 0; correct it")
    limits = BandLimits(barrier, fmax, cell_tolerance, unwrap)
    found: list[BandJump] = []
    refused: list[RefusedBand] = []
    for name, band in find_bands(bands):
        try:
            if not isinstance(band, Band):
                raise band
            found.append(jump_of_band(band, jumps, limits))
        except BandError as error:
            refused.append(RefusedBand(name, error.image, error.reason))
    if not found and not refused:
        raise BarrierError(
            f"found no band in {bands!s:.80}; expected trajectories (.traj, .xyz, .extxyz) or VASP folders 00, 01, …; "
            "pass the folder that holds them"
        )
    keys = [_keys(jumps, one) for one in found]
    keep = _agreeing(found, keys, energy_tolerance, refused)
    keep = _lowest(found, keys, keep, refused)
    imported = _collect([found[i] for i in keep], [keys[i] for i in keep], jumps, barrier, refused)
    if refused:
        warnings.warn(
            FailedCalculations(
                f"{len(refused)} of {len(refused) + len(imported.bands)} bands are refused; the first: {refused[0]}",
                number=len(refused),
                limit=0,
                unit="bands",
                advice="see .refused",
            ),
            stacklevel=2,
        )
    return imported


Key = tuple[bytes, int]


def _keys(jumps: JumpNetwork, one: BandJump) -> tuple[Key, Key]:
    """A name of the state at either end that lattice translations leave alone: the carrier is brought to cell 0."""
    cell = jumps.supercell
    names = [
        (_translated(cell, occupation, -_cell_of(cell, carrier)).tobytes(), int(carrier % cell.alloy.n_basis))
        for occupation, carrier in zip(one.occupations, one.carriers, strict=True)
    ]
    return names[0], names[1]


def _cell_of(cell: Supercell, site: int) -> NDArray[np.int64]:
    return cell.cell_coordinates(site // cell.alloy.n_basis)


def _translated(cell: Supercell, occupation: NDArray[np.int8], by: NDArray[np.int64]) -> NDArray[np.int8]:
    """The occupation moved by a vector of the lattice, in cells."""
    return occupation[cell.translate(np.arange(cell.n_sites), -by)]


def _agreeing(
    found: Sequence[BandJump], keys: Sequence[tuple[Key, Key]], tolerance: float, refused: list[RefusedBand]
) -> list[int]:
    """Bands whose end energies agree with those of most bands of the same states."""
    at: dict[Key, list[tuple[int, int]]] = {}
    for i, ends in enumerate(keys):
        for end, key in enumerate(ends):
            at.setdefault(key, []).append((i, end))
    keep = []
    for i, (one, ends) in enumerate(zip(found, keys, strict=True)):
        for end, key in enumerate(ends):
            others = [(found[j].energies[e], found[j].name) for j, e in at[key] if (j, e) != (i, end)]
            against = [(energy, name) for energy, name in others if abs(energy - one.energies[end]) > tolerance]
            if 2 * len(against) > len(others):  # with itself, no more than half agree
                break
        else:
            keep.append(i)
            continue
        energy, name = against[0]
        refused.append(
            RefusedBand(
                one.name,
                one.last if end else 0,
                f"its state has {one.energies[end]:.4f} eV here and {energy:.4f} eV in {name}; expected one energy "
                f"within {tolerance:g} eV; relax this state in both with the same settings, or leave the wrong band "
                "out",
            )
        )
    return keep


def _lowest(
    found: Sequence[BandJump], keys: Sequence[tuple[Key, Key]], keep: Sequence[int], refused: list[RefusedBand]
) -> list[int]:
    """Of several bands of one jump, in either direction, the one with the lowest saddle."""
    best: dict[tuple[Key, int], int] = {}
    for i in keep:
        for key, jump in zip(keys[i], found[i].jumps, strict=True):
            j = best.setdefault((key, jump), i)
            if found[i].saddle < found[j].saddle:
                best[(key, jump)] = i
    left = []
    for i in keep:
        one = found[i]
        j = best[(keys[i][0], one.jumps[0])]
        if j == i:
            left.append(i)
            continue
        refused.append(
            RefusedBand(
                one.name,
                one.highest,
                f"the band is the same jump as {found[j].name}, whose saddle is {one.saddle - found[j].saddle:.4f} eV "
                "lower; expected one band per jump and its reverse; the lower one counts",
            )
        )
    return left


def _collect(
    found: Sequence[BandJump],
    keys: Sequence[tuple[Key, Key]],
    jumps: JumpNetwork,
    barrier: str,
    refused: Sequence[RefusedBand],
) -> ImportedBands:
    cell = jumps.supercell
    row_of: dict[Key, int] = {}
    occupations: list[NDArray[np.int8]] = []
    carriers: list[int] = []
    energies: list[float] = []
    for one, ends in zip(found, keys, strict=True):
        # where an end is known already, the other one follows it to its place
        shift = next(
            (
                _cell_of(cell, carriers[row_of[key]]) - _cell_of(cell, one.carriers[end])
                for end, key in enumerate(ends)
                if key in row_of
            ),
            np.zeros(3, dtype=np.int64),
        )
        for end, key in enumerate(ends):
            if key not in row_of:
                row_of[key] = len(carriers)
                occupations.append(_translated(cell, one.occupations[end], shift))
                carriers.append(int(cell.translate(one.carriers[end], shift)))
                energies.append(one.energies[end])
    group = list(range(len(carriers)))
    for a, b in keys:
        one_of, other = group[row_of[a]], group[row_of[b]]
        group = [one_of if g == other else g for g in group]
    states = States.from_occupations(
        cell,
        np.array(occupations, dtype=np.int8).reshape(-1, cell.n_sites),
        carriers=np.array(carriers, dtype=np.int64),
        groups=np.array(group, dtype=np.int64),
        source="imported bands",
    )
    shape = (len(carriers), jumps.n_jumps)
    exists = jumps.exists[jumps.basis_of(states.carriers)]
    forward, backward, fmax = (np.full(shape, value) for value in (np.inf, np.inf, np.nan))
    status = np.where(exists, NOT_COMPUTED, NO_JUMP).astype("U24")
    bands = []
    for one, ends in zip(found, keys, strict=True):
        rows = [row_of[key] for key in ends]
        height = [one.saddle - energy for energy in one.energies]
        for end in (0, 1):
            place = rows[end], one.jumps[end]
            forward[place], backward[place], status[place] = height[end], height[1 - end], "ok"
            fmax[place] = one.fmax
        bands.append(
            ImportedBand(
                one.name,
                rows[0],
                one.jumps[0],
                rows[1],
                one.jumps[1],
                one.symbol,
                one.mover,
                height[0],
                height[1],
                one.highest,
                one.spline,
                one.fmax,
            )
        )
    barriers = Barriers.from_arrays(
        states,
        jumps,
        forward,
        reverse_barrier=backward,
        energy_initial=np.array(energies, dtype=float),
        status=status,
        reasons={(n, k): "no band of this jump" for n, k in np.argwhere(status == NOT_COMPUTED).tolist()},
        fmax=fmax,
        settings={
            "source": "imported bands",
            "barrier": barrier,
            "bands": [one.name for one in bands],
            "refused": [str(one) for one in refused],
        },
    )
    return ImportedBands(barriers, tuple(bands), tuple(refused))
