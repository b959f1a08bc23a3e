"""`Alloy`: the one gate through which crystals and compositions enter."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.interstitial_sites import site_positions, symmetry_copies
from ase_kinoson.crystal.structure_files import read_cif, read_images, structure_format
from ase_kinoson.crystal.sublattice import VACANCY, Sublattice
from ase_kinoson.crystal.symmetry import SpaceGroup, check_crystal, check_finite, find_standard, primitive_cell
from ase_kinoson.errors import StructureError, VacantSites
from ase_kinoson.mson import Storable

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from ase_kinoson.crystal.supercell import Supercell

__all__ = ["Alloy", "Sublattice"]


@dataclass(frozen=True, eq=False)
class Alloy(Storable):
    """A parent crystal with sublattices and their compositions.

    Make one with :meth:`from_structure`, :meth:`from_atoms` or :meth:`from_file`.

    Attributes
    ----------
    cell : ndarray, shape (3, 3)
        Primitive lattice vectors of the average lattice (rows), Å.
    scaled_positions : ndarray, shape (n_basis, 3)
        Places of the basis sites as fractions of the primitive lattice vectors.
    site_sublattice : ndarray of int, shape (n_basis,)
        Sublattice of every basis site.
    sublattices : tuple of Sublattice
        Names and compositions.
    conventional : ndarray of int, shape (3, 3)
        Rows of the conventional cell in units of the primitive vectors.
    pbc : ndarray of bool, shape (3,)
        Periodic directions.
    """

    cell: NDArray[np.float64]
    scaled_positions: NDArray[np.float64]
    site_sublattice: NDArray[np.int64]
    sublattices: tuple[Sublattice, ...]
    conventional: NDArray[np.int64]
    pbc: NDArray[np.bool_]

    # -- the gate -------------------------------------------------------------------------------------------------

    @classmethod
    def from_structure(
        cls, structure: Structure, *, mobile: Sequence[str] | None = None, symprec: float = 1e-3
    ) -> Alloy:
        """Take a pymatgen Structure; partial site occupancies are the composition.

        Parameters
        ----------
        structure
            Ordered or disordered. Occupancies that sum to less than 1 mean vacant sites, which are reported.
        mobile
            Names of the sublattices that carry the vacancy (see :attr:`Sublattice.name`; the reduced formula of the
            site, for example ``"Cu0.7Ni0.3"``). Default: all disordered sublattices, or all if none is disordered.
        symprec
            Tolerance for symmetry, Å.

        Raises
        ------
        StructureError
            If occupancies exceed 1, a sublattice is empty or a name is unknown.
        """
        compositions: list[dict[str, float]] = []
        for site in structure:
            amounts: dict[str, float] = {}
            for specie, amount in site.species.items():
                symbol = getattr(specie, "symbol", str(specie))
                if symbol not in atomic_numbers:
                    raise StructureError(
                        f"site at {np.round(site.frac_coords, 4).tolist()} holds {specie!s}; expected chemical "
                        "elements; "
                        "replace dummy species by elements"
                    )
                amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
            compositions.append(amounts)
        pbc = np.array(getattr(structure.lattice, "pbc", (True, True, True)), dtype=bool)
        cell = np.array(structure.lattice.matrix, dtype=float)
        return cls._build(cell, np.array(structure.frac_coords, dtype=float), compositions, None, pbc, mobile, symprec)

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        composition: Mapping[str | int, Mapping[str, float]] | None = None,
        *,
        mobile: Sequence[str] | None = None,
        symprec: float = 1e-3,
    ) -> Alloy:
        """Take ASE Atoms as the parent lattice and a composition for each of its species or sublattices.

        Parameters
        ----------
        atoms
            The parent crystal; its periodic directions count. Two-dimensional lattices have ``pbc=(1, 1, 0)``.
        composition
            ``{"Cu": {"Cu": 0.5, "Ni": 0.5}}`` puts fractions of one half on the sites that hold Cu. With an integer
            array ``atoms.arrays["sublattice"]`` the keys are its values instead. Species not named stay as they are.
        mobile
            Keys of the sublattices that carry the vacancy; default as in :meth:`from_structure`.
        symprec
            Tolerance for symmetry, Å.

        Raises
        ------
        StructureError
            If there is no crystal, the Atoms come from a disordered CIF, the composition names what no site carries, or
            occupancies are none.
        """
        if "occupancy" in atoms.info:
            raise StructureError(
                "found info['occupancy']: this Atoms was read from a disordered CIF and ASE kept one element per site; "
                "expected the average composition; read the file with Alloy.from_file(path) or pass a pymatgen "
                "Structure"
            )
        check_finite(np.array(atoms.cell), atoms.positions)
        if len(atoms) == 0 or not abs(atoms.cell.volume) > 1e-6:
            raise StructureError(
                f"found {len(atoms)} atoms in a cell of volume {atoms.cell.volume:.3g} Å³; expected a crystal; "
                "set atoms.cell "
                "(give a two-dimensional lattice a vacuum along the third axis)"
            )
        keys: list[str | int]
        if "sublattice" in atoms.arrays:
            keys = [int(k) for k in atoms.arrays["sublattice"]]
        else:
            keys = list(atoms.get_chemical_symbols())
        given = dict(composition or {})
        for key in given:
            if key not in keys:
                raise StructureError(
                    f"the composition names {key!r}, which no site carries; expected one of "
                    f"{sorted(set(map(str, keys)))}; "
                    "name the species (or sublattice numbers) of the parent Atoms"
                )
        symbols = atoms.get_chemical_symbols()
        amounts = [dict(given.get(key, {symbol: 1.0})) for key, symbol in zip(keys, symbols, strict=True)]
        names = [str(key) for key in keys]
        return cls._build(
            np.array(atoms.cell), atoms.get_scaled_positions(), amounts, names, np.array(atoms.pbc), mobile, symprec
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        composition: Mapping[str | int, Mapping[str, float]] | None = None,
        *,
        mobile: Sequence[str] | None = None,
        symprec: float = 1e-3,
    ) -> Alloy:
        """Read a CIF (with partial occupancies), a POSCAR, or another structure file.

        Parameters
        ----------
        path
            CIF files go through pymatgen and keep partial occupancies; others go through ASE, and take ``composition``
            as in :meth:`from_atoms`: POSCAR and CONTCAR of VASP, extended XYZ, trajectories and databases (``.json``,
            ``.db``) of ASE, XSF, data files of LAMMPS, inputs of Quantum ESPRESSO and DFTB+. Other formats are refused,
            since some readers of ASE run programs or take names for addresses. Of several images the last one counts.
        composition, mobile, symprec
            As in :meth:`from_atoms`.

        Raises
        ------
        StructureError
            If the file is missing or no structure can be read from it, or as in :meth:`from_structure` and
            :meth:`from_atoms`.
        """
        if structure_format(path) == "cif" and composition is None:
            return cls.from_structure(read_cif(path), mobile=mobile, symprec=symprec)
        atoms = read_images(path)[0]
        if composition is not None:
            atoms.info.pop("occupancy", None)
        return cls.from_atoms(atoms, composition, mobile=mobile, symprec=symprec)

    @classmethod
    def _build(
        cls,
        cell: NDArray,
        scaled: NDArray,
        compositions: list[dict[str, float]],
        names: list[str] | None,
        pbc: NDArray,
        mobile: Sequence[str] | None,
        symprec: float,
    ) -> Alloy:
        for x, amounts in zip(scaled, compositions, strict=True):
            total = sum(amounts.values())
            where = np.round(x, 4).tolist()
            if total > 1 + 1e-6:
                raise StructureError(
                    f"the occupancies at {where} sum to {total:.6g} ({amounts}); expected at most 1; scale them"
                )
            if not amounts or total <= 1e-9:
                raise StructureError(
                    f"the site at {where} holds no atoms; expected at least one species; remove the site or give it a "
                    "composition"
                )
            for symbol, amount in amounts.items():
                if symbol not in atomic_numbers or symbol == VACANCY:
                    raise StructureError(
                        f"found species {symbol!r} at {where}; expected a chemical element; vacant sites are "
                        "written as "
                        "occupancies below 1"
                    )
                if not 0 <= amount <= 1 + 1e-6:
                    raise StructureError(
                        f"found occupancy {amount} of {symbol} at {where}; expected 0 to 1; correct it"
                    )
        table: dict[tuple, int] = {}
        kinds = np.empty(len(scaled), dtype=np.int64)
        for i, amounts in enumerate(compositions):
            clean = tuple(sorted((s, round(float(x), 8)) for s, x in amounts.items() if x > 1e-9))
            label = names[i] if names else "".join(s if x == 1 else f"{s}{x:.6g}" for s, x in clean)
            kinds[i] = table.setdefault((label, clean), len(table))
        check_crystal(cell, scaled, pbc, symprec)
        prim, basis, index = primitive_cell(cell, scaled, kinds, pbc, symprec=symprec)
        entries = list(table)
        disordered = [label for label, clean in entries if len(clean) > 1]
        chosen = set(mobile) if mobile is not None else set(disordered or [label for label, _ in entries])
        for name in chosen:
            if name not in {label for label, _ in entries}:
                raise StructureError(
                    f"mobile names the sublattice {name!r}; expected one of {[label for label, _ in entries]}; "
                    "choose from these"
                )
        sublattices = tuple(Sublattice(label, clean, mobile=label in chosen) for label, clean in entries)
        if len({s.name for s in sublattices}) != len(sublattices):
            sublattices = tuple(
                Sublattice(f"{s.name}#{i}", s.composition, mobile=s.mobile) for i, s in enumerate(sublattices)
            )
        alloy = cls(prim, basis, kinds[index], sublattices, _conventional(cell, scaled, kinds, prim, pbc, symprec), pbc)
        for sub in sublattices:
            if sub.vacant_fraction > 1e-9:
                treatment = (
                    "the supercell holds exactly one vacancy there, the atoms keep their ratio"
                    if sub.mobile
                    else "its vacant sites are placed like a further species and do not move"
                )
                warnings.warn(
                    VacantSites(
                        f"sublattice {sub.name!r} has {100 * sub.vacant_fraction:.4g} % vacant sites; {treatment}",
                        number=100 * sub.vacant_fraction,
                        limit=0,
                        unit="%",
                        advice="give occupancies that add up to 1 if this is not what you mean",
                    ),
                    stacklevel=3,
                )
        return alloy

    def with_interstitials(self, species: str, sites: Any, *, name: str = "interstitial") -> Alloy:
        """Add a network of interstitial sites for one diffusing atom; the host then carries no vacancy.

        Parameters
        ----------
        species
            Symbol of the interstitial atom.
        sites
            A kind of site (``"octahedral"``, ``"tetrahedral"``; see :func:`find_interstitial_sites`), sites found by
            that function, a list of either, or scaled positions in the conventional cell, shape (n, 3). Symmetry
            copies are added.
        name
            Name of the new sublattice.

        Returns
        -------
        Alloy
            A new alloy with the extra sublattice.

        Raises
        ------
        StructureError
            If the sites cannot be found, lie on atoms, or the alloy has interstitial sites already.
        """
        if self.is_interstitial:
            raise StructureError(
                "found an alloy that has interstitial sites already; expected the host alone; give all sites in one "
                "call, for example sites=['octahedral', 'tetrahedral']"
            )
        if species not in atomic_numbers or species == VACANCY:
            raise StructureError(f"found interstitial species {species!r}; expected a chemical element; correct it")
        cartesian = site_positions(self, sites) @ (self.conventional @ self.cell)
        start = cartesian @ np.linalg.inv(self.cell)
        orbits = symmetry_copies(self.cell, self.scaled_positions, self.site_sublattice, start, tolerance=1e-2)
        copies = np.vstack(orbits)
        host = self.scaled_positions
        gap = copies[:, None] - host[None]
        nearest = np.linalg.norm((gap - np.rint(gap)) @ self.cell, axis=-1).min()
        if nearest < 0.3:
            raise StructureError(
                f"an interstitial site lies {nearest:.3f} Å from a host site; expected an empty place; check the "
                "scaled positions"
            )
        subs = tuple(
            Sublattice(s.name, s.composition, mobile=False, interstitial=s.interstitial) for s in self.sublattices
        )
        extra = Sublattice(name, ((species, 0.0),), mobile=True, interstitial=True)
        return Alloy(
            self.cell,
            np.vstack([host, copies]),
            np.concatenate([self.site_sublattice, np.full(len(copies), len(subs))]),
            (*subs, extra),
            self.conventional,
            self.pbc,
        )

    # -- what follows from it -------------------------------------------------------------------------------------

    @property
    def n_basis(self) -> int:
        """Number of sites in the primitive cell."""
        return len(self.scaled_positions)

    @property
    def dimension(self) -> int:
        """Number of periodic directions d, as used in 1/(2d)."""
        return int(self.pbc.sum())

    @property
    def is_interstitial(self) -> bool:
        """Whether the carrier is an interstitial atom (otherwise a vacancy)."""
        return any(s.interstitial for s in self.sublattices)

    @cached_property
    def species(self) -> tuple[str, ...]:
        """Species by code: ``species[0]`` is ``"X"`` (empty), then all atoms sorted by symbol."""
        return (VACANCY, *sorted({s for sub in self.sublattices for s in sub.species}))

    @cached_property
    def space_group(self) -> SpaceGroup:
        """Operations of the average lattice on the basis sites."""
        return SpaceGroup.from_crystal(self.cell, self.scaled_positions, self.site_sublattice, self.pbc)

    @cached_property
    def mobile_basis(self) -> NDArray[np.bool_]:
        """Marks the basis sites that the carrier visits, shape (n_basis,)."""
        return np.array([self.sublattices[s].mobile for s in self.site_sublattice])

    @cached_property
    def varying_basis(self) -> NDArray[np.bool_]:
        """Marks the basis sites whose occupant differs between states, shape (n_basis,).

        Empty interstitial sites and ordered immobile sublattices carry no information.
        """
        subs = [self.sublattices[s] for s in self.site_sublattice]
        return np.array([not s.interstitial and (s.mobile or s.is_disordered) for s in subs])

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of lattice, sublattices and compositions."""
        return self._digest(0.0)

    @cached_property
    def former_fingerprint(self) -> str:
        """What the fingerprint was when the sign of zeros, which is chance, went into it; for files of that time."""
        return self._digest(-0.0)

    def _digest(self, zero: float) -> str:
        """Hash of rounded numbers plus ``zero``: 0.0 makes zeros positive, −0.0 leaves them as they are."""
        data: dict[str, Any] = {
            "cell": (np.round(self.cell, 6) + zero).tolist(),
            "sites": (np.round(self.scaled_positions, 6) + zero).tolist(),
            "sublattice": self.site_sublattice.tolist(),
            "composition": [
                [s.name, list(map(list, s.composition)), s.mobile, s.interstitial] for s in self.sublattices
            ],
            "pbc": self.pbc.tolist(),
        }
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alloy) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def supercell(self, size: ArrayLike, *, of: str = "conventional") -> Supercell:
        """Build a supercell.

        Parameters
        ----------
        size : array_like of int, shape (), (3,) or (3, 3)
            One integer, three integers, or a matrix whose rows are the new vectors.
        of
            ``"conventional"`` (default) or ``"primitive"``: the cell that ``size`` multiplies.
        """
        from ase_kinoson.crystal.supercell import Supercell

        return Supercell.from_alloy(self, size, of=of)

    def summary(self) -> str:
        """Describe lattice and sublattices in a few lines."""
        lines = [f"primitive cell: {self.n_basis} sites, {abs(np.linalg.det(self.cell)):.4f} Å³, d = {self.dimension}"]
        for i, sub in enumerate(self.sublattices):
            n = int((self.site_sublattice == i).sum())
            what = " ".join(f"{s} {x:.6g}" for s, x in sub.composition)
            role = "interstitial" if sub.interstitial else "mobile" if sub.mobile else "fixed"
            vacant = f", {100 * sub.vacant_fraction:.4g} % vacant sites" if sub.vacant_fraction > 1e-9 else ""
            lines.append(f"sublattice {sub.name}: {n} sites, {what}, {role}{vacant}")
        return "\n".join(lines)


def _conventional(
    cell: NDArray, scaled: NDArray, kinds: NDArray, primitive: NDArray, pbc: NDArray, symprec: float
) -> NDArray[np.int64]:
    """Rows of the conventional cell in primitive vectors: the user's own cell where it has the right volume."""
    own = cell @ np.linalg.inv(primitive)
    chosen = own
    if pbc.all():
        data = find_standard(cell, scaled, kinds, symprec)
        standard = np.linalg.inv(data.transformation_matrix).T @ own
        if abs(abs(np.linalg.det(standard)) - abs(np.linalg.det(own))) > 1e-3:
            chosen = standard
    whole = np.rint(chosen)
    if np.abs(whole - chosen).max() > 0.05:  # pragma: no cover - both lattices describe one crystal
        raise StructureError("the conventional cell is no multiple of the primitive one; symmetrise the structure")
    return whole.astype(np.int64)
