"""Bands of NEB calculations as they come: files and folders of ASE, folders of VASP, objects of ASE and pymatgen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_kinoson.crystal.structure_files import read_images
from ase_kinoson.errors import BarrierError, KinosonError
from ase_kinoson.given_files import given_bytes, shown, unpacked

__all__ = ["Band", "BandError", "find_bands", "spline_top"]

SUFFIXES = (".traj", ".xyz", ".extxyz")
"""Files of a folder that are read as bands; a further ``.gz`` is allowed."""
MOST_BYTES = 2**29
"""Largest file with the images of a band, also unpacked: 512 MiB."""
_ENERGY = re.compile(r"energy\(sigma->0\)\s*=\s*([-+\d.Ee]+)")


class BandError(Exception):
    """Why a band cannot be used, with the image that shows it (None: the band as a whole)."""

    def __init__(self, image: int | None, reason: str) -> None:
        super().__init__(reason)
        self.image, self.reason = image, reason


@dataclass(frozen=True, eq=False)
class Band:
    """Images of one path, from one end to the other.

    Attributes
    ----------
    name : str
        The file, folder or place in the list that it comes from.
    images : tuple of Atoms
    energies : ndarray, shape (n_images,)
        eV.
    forces : tuple of (ndarray, shape (n_atoms, 3), or None)
        True forces, eV/Å; None where they are not known.
    folded : bool
        Whether positions are of a code that folds them into the cell, so that lattice vectors mean nothing.
    gradients : bool
        Whether the forces of images between the ends hold their component along the path.
    spline_maximum : float or None
        Highest point of the band's own spline above its first image, eV; None where it has none.
    """

    name: str
    images: tuple[Atoms, ...]
    energies: NDArray[np.float64]
    forces: tuple[NDArray[np.float64] | None, ...]
    folded: bool = False
    gradients: bool = True
    spline_maximum: float | None = None


def find_bands(source: Any, name: str = "") -> Iterator[tuple[str, Band | BandError]]:
    """Read all bands of a path, an object, or a list or mapping of such, with their names; in a fixed order."""
    if isinstance(source, (str, Path)):
        yield from _from_path(Path(source), name or str(source))
    elif hasattr(source, "structures") and hasattr(source, "energies"):
        yield _try(name or "band", _from_analysis, source)
    elif hasattr(source, "images"):  # ASE's NEB
        yield _try(name or "band", _from_images, list(source.images))
    elif isinstance(source, Mapping):
        for key, one in source.items():
            yield from find_bands(one, f"{name}{key}")
    elif isinstance(source, Sequence) and len(source) and all(isinstance(image, Atoms) for image in source):
        yield _try(name or "band", _from_images, list(source))
    elif isinstance(source, Sequence):
        for i, one in enumerate(source):
            own = str(one) if isinstance(one, (str, Path)) else f"{name or 'bands'}[{i}]"
            yield from find_bands(one, own)
    else:
        raise BarrierError(
            f"found a band of type {type(source).__name__}; expected a path, a list of Atoms, an NEB of ASE or an "
            "NEBAnalysis of pymatgen, or a list of such; pass one of them"
        )


def _try(name: str, read: Any, source: Any) -> tuple[str, Band | BandError]:
    try:
        return name, read(source, name)
    except BandError as error:
        return name, error
    except KinosonError as error:
        return name, BandError(None, f"cannot be read: {error}")
    except Exception as error:  # readers of damaged files raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return name, BandError(None, f"cannot be read ({text}); expected a complete band; write it again")


def _from_path(path: Path, name: str, above: frozenset[Path] = frozenset()) -> Iterator[tuple[str, Band | BandError]]:
    """All bands of a file or folder; a link to a folder ``above`` leads nowhere."""
    try:
        kind = "file" if path.is_file() else "folder" if path.is_dir() else ""
        inner = sorted(path.iterdir()) if kind == "folder" else []
        vasp = bool(inner and _vasp_folders(path))
        own = path.resolve()
    except (OSError, RuntimeError) as error:  # no permission, too long a name, a link to itself
        raise BarrierError(
            f"cannot read {shown(str(path))} ({error}); expected NEB results; correct the path"
        ) from error
    if kind == "file":
        yield _try(name, _from_file, path)
        return
    if not kind:
        raise BarrierError(f"found no file or folder {str(path)!r}; expected NEB results; correct the path")
    if vasp:
        yield _try(name, _from_vasp, path)
        return
    above = above | {own}
    for inside in inner:
        if inside.is_dir():
            if inside.resolve() not in above:
                yield from _from_path(inside, f"{name.rstrip('/')}/{inside.name}", above)
        elif inside.name.removesuffix(".gz").endswith(SUFFIXES):
            yield _try(f"{name.rstrip('/')}/{inside.name}", _from_file, inside)


def _from_file(path: Path, name: str) -> Band:
    return _from_images(read_images(path, every=True, most_bytes=MOST_BYTES, error=BarrierError), name)


def _from_images(images: list[Atoms], name: str) -> Band:
    images = _last_iteration(images)
    energies: list[float] = []
    forces: list[NDArray[np.float64] | None] = []
    for i, image in enumerate(images):
        try:
            energies.append(float(image.get_potential_energy()))
        except Exception as error:  # a calculator may raise anything
            raise BandError(
                i, f"it has no energy ({error}); expected one on every image, ends included; write it with the image"
            ) from error
        try:
            forces.append(np.array(image.get_forces(apply_constraint=False), dtype=float))
        except Exception:  # energies alone are enough
            forces.append(None)
    return Band(name, tuple(images), np.array(energies), tuple(forces))


def _last_iteration(images: list[Atoms]) -> list[Atoms]:
    """Images of the last step of an optimiser that wrote all images of every step: the first image stays where it is.

    The ends of a band do not move, and they differ; the first image therefore repeats with the period of the band.
    """
    first = images[0]
    same = [
        i
        for i, image in enumerate(images)
        if len(image) == len(first) and np.array_equal(image.positions, first.positions)
    ]
    period = same[1] if len(same) > 1 else len(images)
    whole = len(images) % period == 0 and same == list(range(0, len(images), period))
    return images[-period:] if whole and period > 1 else images


def _from_analysis(analysis: Any, name: str) -> Band:
    """A ``pymatgen.analysis.transition_state.NEBAnalysis``."""
    from pymatgen.io.ase import AseAtomsAdaptor

    energies = np.array(analysis.energies, dtype=float)
    if energies.shape != (len(analysis.structures),):
        raise BandError(
            None,
            f"found {len(analysis.structures)} structures and energies of shape {energies.shape}; expected one energy "
            "for each; correct the NEBAnalysis",
        )
    images = []
    for i, structure in enumerate(analysis.structures):
        if not structure.is_ordered:
            raise BandError(i, "found sites with partial occupancies; expected one atom per site; decorate the images")
        atoms = AseAtomsAdaptor.get_atoms(structure)
        images.append(Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True))
    maximum = spline_top(analysis.spline) if hasattr(analysis, "spline") else None
    return Band(name, tuple(images), energies, (None,) * len(images), folded=True, spline_maximum=maximum)


def spline_top(spline: Any) -> float:
    """Highest point of a scipy spline between its ends."""
    places = np.concatenate([spline.x, spline.derivative().roots(extrapolate=False)])
    return float(np.nanmax(spline(places[np.isfinite(places)])))


# -- VASP -----------------------------------------------------------------------------------------------------------


def _vasp_folders(path: Path) -> list[Path]:
    """The folders 00, 01, … of a VASP NEB, in order; empty if this is none."""
    folders = [p for p in path.iterdir() if p.is_dir() and re.fullmatch("[0-9]{1,6}", p.name)]
    if not any(_one_of(p, ("CONTCAR", "POSCAR", "OUTCAR")) for p in folders):
        return []
    return sorted(folders, key=lambda p: int(p.name))


def _one_of(folder: Path, names: Sequence[str]) -> Path | None:
    for stem in names:
        for file in (folder / stem, folder / f"{stem}.gz"):
            if file.is_file() and file.stat().st_size:
                return file
    return None


def _from_vasp(path: Path, name: str) -> Band:
    """A folder of folders 00 … 0N: positions of CONTCAR (or POSCAR), last energy and forces of OUTCAR."""
    folders = _vasp_folders(path)
    numbers = [int(folder.name) for folder in folders]
    if numbers != list(range(len(numbers))):
        raise BandError(
            None, f"found the folders {[f.name for f in folders]}; expected 00, 01, … without a gap; copy them all"
        )
    images, energies, forces = [], [], []
    for i, folder in enumerate(folders):
        places = _one_of(folder, ("CONTCAR", "POSCAR"))
        outcar = _one_of(folder, ("OUTCAR",))
        if places is None or outcar is None:
            missing = "OUTCAR" if outcar is None else "CONTCAR and no POSCAR"
            raise BandError(
                i, f"found no {missing} in {folder.name}; expected both in every image, ends included; copy them"
            )
        (image,) = read_images(places, kind="vasp", error=BarrierError)
        images.append(Atoms(image.numbers, positions=image.positions, cell=image.cell, pbc=True))
        energy, force = _outcar(outcar, i)
        energies.append(energy)
        forces.append(force if force is None or len(force) == len(image) else None)
    # forces of images between the ends may be those of the band, without the component along it
    return Band(name, tuple(images), np.array(energies), tuple(forces), folded=True, gradients=False)


def _outcar(path: Path, image: int) -> tuple[float, NDArray[np.float64] | None]:
    """Last energy (smearing extrapolated to zero, eV) and last forces (eV/Å) of an OUTCAR."""
    data = given_bytes(path, expected="an OUTCAR of VASP", most=MOST_BYTES, error=BarrierError)
    if path.suffix == ".gz":
        data = unpacked(data, "gz", path, most=MOST_BYTES, expected="an OUTCAR of VASP", error=BarrierError)
    text = data.decode("utf-8", errors="replace")
    found = _ENERGY.findall(text)
    if not found:
        raise BandError(
            image, f"found no energy(sigma->0) in {path.name}; expected a finished electronic step; run it again"
        )
    block = text.rpartition("TOTAL-FORCE (eV/Angst)")[2] if "TOTAL-FORCE (eV/Angst)" in text else ""
    rows = []
    for line in block.splitlines()[2:]:
        words = line.split()
        if len(words) != 6:
            break
        rows.append([float(word) for word in words[3:]])
    return float(found[-1]), np.array(rows) if rows else None
