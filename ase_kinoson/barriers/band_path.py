"""Whether a band is one jump of one atom, which, and what its barrier is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.utils.forcecurve import fit_raw
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from ase_kinoson.barriers.band_files import Band, BandError, spline_top
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import MappingError

__all__ = ["BandJump", "BandLimits", "jump_of_band"]

SITE_TOLERANCE = 0.45
"""An atom is on its site up to this fraction of the shortest distance between sites, as in `Supercell.map_atoms`."""
SAME_CELL = 1e-4
"""Relative difference up to which the cells of two images are one: a band has one cell."""
NOISE = 2e-3
"""eV: energies along a band that are closer than this are not told apart."""


@dataclass(frozen=True)
class BandLimits:
    """What a band must fulfil; see :func:`~ase_kinoson.barriers.bands.import_bands`."""

    barrier: str = "highest"
    fmax: float | None = None
    cell_tolerance: float = 0.01
    unwrap: bool = False


@dataclass(frozen=True, eq=False)
class BandJump:
    """The jump that a band is; energies in eV, forces in eV/Å.

    ``occupations`` (shape (2, n_sites)), ``carriers``, ``jumps`` and ``energies`` hold the state at either end, the
    jump that leads from it to the other end, and its energy. ``saddle`` is the energy of the highest image or of the
    maximum of the spline, ``spline`` how far that maximum lies above the highest image, ``fmax`` the largest force on
    an atom of the highest image (NaN where unknown), ``last`` the number of the last image.
    """

    name: str
    occupations: NDArray[np.int8]
    carriers: tuple[int, int]
    jumps: tuple[int, int]
    energies: tuple[float, float]
    saddle: float
    spline: float
    highest: int
    last: int
    fmax: float
    mover: int
    symbol: str


def jump_of_band(band: Band, jumps: JumpNetwork, limits: BandLimits) -> BandJump:
    """Check a band and map it onto a jump.

    Raises
    ------
    BandError
        Says which image does not fit, and why.
    """
    cell = jumps.supercell
    if len(band.images) < 3:
        raise BandError(
            None,
            f"found {len(band.images)} image{'s' * (len(band.images) != 1)}; expected at least 3 (two ends and one "
            "between); put all images of a band in one file",
        )
    _check_images(band, cell, limits)
    positions = _continuous(band, cell, limits)
    sites, occupations, carriers, home = _ends(band, positions, jumps)
    movers = np.flatnonzero(sites[0] != sites[1])
    k = _jump(band, positions, jumps, sites, occupations, carriers, movers)
    mover = int(movers[0])
    back = int(jumps.reverse[jumps.basis_of([carriers[0]])[0], k])
    _check_between(band, positions, home, cell, mover)
    highest = _check_energies(band)
    fmax = _check_forces(band, positions, highest, limits)
    spline = _spline_maximum(band, positions)
    top = float(band.energies[highest])
    return BandJump(
        band.name,
        occupations,
        carriers,
        (k, back),
        (float(band.energies[0]), float(band.energies[-1])),
        max(spline, top) if limits.barrier == "spline" else top,
        spline - top,
        highest,
        len(band.images) - 1,
        fmax,
        mover,
        str(band.images[0].symbols[mover]),
    )


# -- atoms and cells -------------------------------------------------------------------------------------------------


def _check_images(band: Band, cell: Supercell, limits: BandLimits) -> None:
    """Atoms, order and cell of every image."""
    first = band.images[0]
    for i, image in enumerate(band.images):
        if len(image) != len(first):
            raise BandError(i, f"found {len(image)} atoms and {len(first)} in image 0; expected the same atoms")
        different = np.flatnonzero(image.numbers != first.numbers)
        if len(different):
            a = int(different[0])
            raise BandError(
                i,
                f"atom {a} is {image.symbols[a]} and {first.symbols[a]} in image 0; expected the same order of atoms "
                "in all images; build both ends from one structure and run the band again",
            )
        if not np.array_equal(image.pbc, cell.pbc):
            raise BandError(
                i, f"found pbc {image.pbc.tolist()}; expected {cell.pbc.tolist()}; write the cell with the images"
            )
        own, wanted = np.array(image.cell)[cell.pbc], cell.cell[cell.pbc]
        lengths = np.linalg.norm(wanted, axis=1)
        strain = float((np.linalg.norm(own - wanted, axis=1) / lengths).max())
        if strain > limits.cell_tolerance:
            raise BandError(
                i,
                f"found the cell {np.round(own, 3).tolist()} Å; expected {np.round(wanted, 3).tolist()} Å within "
                f"{100 * limits.cell_tolerance:g} %; build the supercell with the lattice constant and the cell "
                "vectors of the bands",
            )
        reference = np.array(first.cell)[cell.pbc]
        if (np.linalg.norm(own - reference, axis=1) / lengths).max() > SAME_CELL:
            raise BandError(i, "its cell differs from that of image 0; expected one cell; run the band at fixed cell")
        if not np.all(np.isfinite(image.positions)) or not np.isfinite(band.energies[i]):
            raise BandError(i, "found a position or an energy that is not a number; expected numbers; run it again")


def _continuous(band: Band, cell: Supercell, limits: BandLimits) -> NDArray[np.float64]:
    """Positions of all images in the supercell, Å, shape (n_images, n_atoms, 3), without jumps by lattice vectors."""
    if np.all(cell.pbc):  # a small strain is taken out
        raw = np.array([image.cell.scaled_positions(image.positions) @ cell.cell for image in band.images])
    else:
        raw = np.array([image.positions for image in band.images])
    result = [raw[0]]
    for i in range(1, len(raw)):
        step = raw[i] - raw[i - 1]
        shortest = cell.minimum_image(step)
        far = np.flatnonzero(np.linalg.norm(step - shortest, axis=1) > 1e-3)
        if len(far) and not (band.folded or limits.unwrap):
            a = int(far[0])
            vector = np.rint(np.linalg.solve(cell.cell.T, step[a] - shortest[a])).astype(int).tolist()
            raise BandError(
                i,
                f"atom {a} ({band.images[0].symbols[a]}) jumps by the lattice vector {vector} from image {i - 1}; "
                "expected a path of minimum images; run the band again from ends that are minimum images, or pass "
                "unwrap=True if positions were only folded into the cell when they were written",
            )
        result.append(result[-1] + shortest)
    way = result[-1] - result[0]
    around = np.linalg.norm(way - cell.minimum_image(way), axis=1)
    if around.max() > 1e-3:
        # what interpolation without minimum images makes of an end that was folded into the cell
        a = int(around.argmax())
        raise BandError(
            len(raw) - 1,
            f"atom {a} ({band.images[0].symbols[a]}) has moved {np.linalg.norm(way[a]):.2f} Å along the path, the long "
            f"way around the cell; expected the minimum image, {np.linalg.norm(cell.minimum_image(way[a])):.2f} Å; run "
            "the band again from ends that are minimum images (in ASE: interpolate(mic=True))",
        )
    return np.array(result)


# -- sites and the jump ----------------------------------------------------------------------------------------------


def _ends(
    band: Band, positions: NDArray, jumps: JumpNetwork
) -> tuple[NDArray[np.int64], NDArray[np.int8], tuple[int, int], NDArray[np.float64]]:
    """Site of every atom at both ends, shape (2, n_atoms), the states there, and where the sites of image 0 lie."""
    cell = jumps.supercell
    image = band.images[0].copy()
    image.set_cell(cell.cell)
    image.positions = positions[0]
    try:
        mapped = cell.map_atoms(image)
    except MappingError as error:
        raise BandError(0, str(error)) from error
    first = np.empty(len(image), dtype=np.int64)
    on = mapped.atom_of_site >= 0
    first[mapped.atom_of_site[on]] = np.flatnonzero(on)
    codes = mapped.occupation[first]
    # the same frame for both ends: atom by atom, drift of the lattice (a median: few atoms move far) taken out
    start = cell.positions[first] + mapped.displacements
    moved = positions[-1] - positions[0]
    end = start + moved - np.median(moved, axis=0)
    distance = np.array([np.linalg.norm(cell.minimum_image(p - cell.positions), axis=1) for p in end])
    distance[~cell.allowed_species[codes]] = np.inf
    last = distance.argmin(axis=1)
    nearest = distance[np.arange(len(end)), last]
    a = int(nearest.argmax())
    if nearest[a] > SITE_TOLERANCE * cell.shortest_distance:
        raise BandError(
            len(positions) - 1,
            f"atom {a} ({image.symbols[a]}) lies {nearest[a]:.2f} Å from the nearest site; expected at most "
            f"{SITE_TOLERANCE * cell.shortest_distance:.2f} Å; relax the end",
        )
    shared = np.flatnonzero(np.bincount(last, minlength=cell.n_sites) > 1)
    if len(shared):
        pair = np.flatnonzero(last == shared[0]).tolist()
        raise BandError(
            len(positions) - 1,
            f"atoms {pair} are both at site {int(shared[0])}; expected one atom on a site; the jump does not lead to "
            "the vacancy: relax the end, or leave the band out",
        )
    occupation = np.zeros(cell.n_sites, dtype=np.int8)
    occupation[last] = codes
    try:
        carrier = cell.find_carrier(occupation)
    except MappingError as error:
        raise BandError(len(positions) - 1, str(error)) from error
    home = positions[0] - mapped.displacements
    return np.array([first, last]), np.array([mapped.occupation, occupation]), (mapped.carrier, carrier), home


def _jump(
    band: Band,
    positions: NDArray,
    jumps: JumpNetwork,
    sites: NDArray,
    occupations: NDArray,
    carriers: tuple[int, int],
    movers: NDArray,
) -> int:
    """Index of the jump that leads from the first end to the last."""
    last = len(positions) - 1
    symbols = band.images[0].symbols
    matches = np.flatnonzero(jumps.targets([carriers[0]])[0] == carriers[1])
    jump = int(matches[0]) if len(matches) else -1
    single = jump >= 0 and np.array_equal(
        jumps.apply(occupations[:1], np.array([carriers[0]]), [jump])[0][0], occupations[1]
    )
    if not len(movers):
        raise BandError(last, "every atom is on the site that it has in image 0; expected one atom on another site")
    if len(movers) > 1:
        some = ", ".join(f"{a} ({symbols[a]})" for a in movers[:4].tolist()) + ("…" if len(movers) > 4 else "")
        hint = (
            "as a set of atoms it is one jump, so that the order of the atoms differs from image 0: build both ends "
            "from one structure and run the band again"
            if single
            else "split the path at its minima into bands of one jump each"
        )
        raise BandError(last, f"{len(movers)} atoms have changed sites: {some}; expected one; {hint}")
    if single:
        return jump
    a = int(movers[0])
    length = float(np.linalg.norm(positions[-1, a] - positions[0, a]))
    start, end = sites[:, a].tolist()
    if jumps.mechanism == "vacancy" and end != carriers[0]:
        raise BandError(
            last,
            f"atom {a} ({symbols[a]}) goes to site {end} and the vacancy is on site {carriers[0]}; expected a jump into"
            " the vacancy; leave the band out",
        )
    lengths = ", ".join(f"{x:.2f}" for x in jumps.lengths)
    raise BandError(
        last,
        f"atom {a} ({symbols[a]}) moves {length:.2f} Å, from site {start} to site {end}, and the carrier is not next "
        f"to it; expected a jump of {lengths} Å; split the path into bands of one jump each, or build the network with "
        "a longer cutoff=",
    )


def _check_between(band: Band, positions: NDArray, home: NDArray, cell: Supercell, mover: int) -> None:
    """Atoms stay near their sites in images between the ends; the moving one between its two."""
    drift = np.median(positions - positions[0], axis=1)
    way = positions[-1, mover] - drift[-1] - positions[0, mover]
    for i in range(1, len(positions) - 1):
        away = np.linalg.norm(positions[i] - drift[i] - home, axis=1)
        away[mover] = 0.0
        a = int(away.argmax())
        if away[a] > SITE_TOLERANCE * cell.shortest_distance:
            raise BandError(
                i,
                f"atom {a} ({band.images[0].symbols[a]}) lies {away[a]:.2f} Å from its site while atom {mover} jumps; "
                f"expected at most {SITE_TOLERANCE * cell.shortest_distance:.2f} Å; the order of the atoms differs "
                "from image 0, or more than one atom moves: run the band again",
            )
        middle = np.linalg.norm(positions[i, mover] - drift[i] - positions[0, mover] - 0.5 * way)
        if middle > 0.75 * np.linalg.norm(way):
            raise BandError(
                i,
                f"atom {mover} ({band.images[0].symbols[mover]}) lies {middle:.2f} Å from the middle of its jump of "
                f"{np.linalg.norm(way):.2f} Å; expected a place between its two sites; run the band again",
            )


# -- energies and forces ---------------------------------------------------------------------------------------------


def _check_energies(band: Band) -> int:
    """The highest image; the energies go up to it from either end."""
    e = band.energies
    top = int(e.argmax())
    last = len(e) - 1
    if top in (0, last) or e[top] - max(e[0], e[-1]) < NOISE:
        end = 0 if e[0] > e[-1] else last
        raise BandError(
            end,
            f"this end is as high as any image between ({e[end]:.4f} eV, highest {e[1:-1].max():.4f} eV); expected a "
            "maximum between the ends; add images or a climbing one, or relax the end",
        )
    for end, side in ((0, range(1, top)), (last, range(top + 1, last))):
        low = min(side, key=lambda i: e[i], default=end)
        if e[low] < e[end] - NOISE:
            raise BandError(
                end,
                f"image {low} lies {e[end] - e[low]:.4f} eV below this end; expected ends that are the minima of the "
                "path; relax the end and run the band again",
            )
    return top


def _check_forces(band: Band, positions: NDArray, highest: int, limits: BandLimits) -> float:
    """Largest force on an atom of the highest image; refuse forces above the limit there and at the ends."""
    force = band.forces[highest]
    own = float("nan") if force is None else float(np.linalg.norm(force, axis=1).max())
    if limits.fmax is None:
        return own
    last = len(band.images) - 1
    for i in (0, highest, last):
        force = band.forces[i]
        if force is None:
            raise BandError(i, f"its forces are not known; expected forces for fmax={limits.fmax:g}; leave fmax= out")
        if i == highest and limits.barrier == "spline" and band.gradients:
            along = positions[i + 1] - positions[i - 1]
            along /= np.linalg.norm(along)
            force = force - (force * along).sum() * along
        worst = float(np.linalg.norm(force, axis=1).max())
        if worst > limits.fmax:
            what = "highest image" if i == highest else "end"
            raise BandError(
                i,
                f"the largest force of this {what} is {worst:.3f} eV/Å; expected at most {limits.fmax:g}; converge it, "
                "with a climbing image if the highest one does not climb, or pass a larger fmax=",
            )
    return own


def _spline_maximum(band: Band, positions: NDArray) -> float:
    """Energy of the highest point of a curve through the images, eV.

    That of an ``NEBAnalysis`` itself; with true forces the cubic pieces of ``NEBTools.get_barrier``; else the cubic
    spline of ``NEBAnalysis``, flat at both ends.
    """
    if band.spline_maximum is not None:
        return float(band.energies[0]) + band.spline_maximum
    try:
        return _curve_top(band, positions)
    except (np.linalg.LinAlgError, ValueError) as error:  # images that coincide
        raise BandError(
            None, f"no curve goes through its images ({error}); expected images that follow each other; write it again"
        ) from error


def _curve_top(band: Band, positions: NDArray) -> float:
    e = band.energies
    if band.gradients and all(force is not None for force in band.forces):
        return float(e[0] + fit_raw(e, band.forces, positions.copy()).fit_energies.max())
    steps = np.sqrt(np.square(np.diff(positions, axis=0)).sum(axis=(1, 2)))
    path = np.concatenate([[0.0], np.cumsum(np.maximum(steps, 1e-9))])
    return float(e[0]) + spline_top(CubicSpline(path, e - e[0], bc_type=((1, 0.0), (1, 0.0))))
