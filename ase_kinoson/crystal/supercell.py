"""`Supercell`: the exact site list, its translations, and Atoms ⇄ occupation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.mapping import Mapped, map_atoms, minimum_image
from ase_kinoson.crystal.site_table import SiteTable, wrapped_cells
from ase_kinoson.errors import MappingError, StructureError
from ase_kinoson.mson import Storable

__all__ = ["Mapped", "Supercell"]

MOST_REPEATS = 10**6
MOST_SITES = 2**31 - 2**16
"""More sites than this (and a margin for the coordinates of neighbours) would not fit into 32-bit integers."""


@dataclass(frozen=True, eq=False)
class Supercell(Storable):
    """A periodic cell of the parent lattice.

    Sites are numbered ``cell_index * n_basis + basis_site``.

    Attributes
    ----------
    alloy : Alloy
        The parent crystal.
    matrix : ndarray of int, shape (3, 3)
        Rows of the supercell in units of the primitive vectors.
    """

    alloy: Alloy
    matrix: NDArray[np.int64]

    @classmethod
    def from_alloy(cls, alloy: Alloy, size: ArrayLike, *, of: str = "conventional") -> Supercell:
        """Build a supercell; see :meth:`Alloy.supercell`.

        Parameters
        ----------
        alloy
            The parent crystal.
        size : array_like of int, shape (), (3,) or (3, 3)
            As in :meth:`Alloy.supercell`.
        of
            As in :meth:`Alloy.supercell`.

        Raises
        ------
        StructureError
            If the size is none, or repeats a direction that is not periodic.
        """
        try:
            given = np.array(size, dtype=float)
        except (TypeError, ValueError, OverflowError):
            given = np.array([np.nan])
        if not np.isfinite(given).all() or np.abs(given - np.rint(given)).max(initial=0.0) > 1e-9:
            raise StructureError(f"found supercell size {_said(size)}; expected integers; round them")
        if np.abs(given).max(initial=0.0) > MOST_REPEATS:
            raise StructureError(
                f"found supercell size {_said(size)}; expected at most {MOST_REPEATS} in each direction; take a "
                "smaller one"
            )
        given = np.rint(given).astype(np.int64)
        if given.ndim == 0:
            given = np.where(alloy.pbc, given, 1)
        if given.shape == (3,):
            given = np.diag(given)
        if given.shape != (3, 3) or round(np.linalg.det(given)) == 0:
            raise StructureError(
                f"found supercell size {_said(size)}; expected one integer, three integers or a "
                "non-singular 3x3 "
                "integer matrix; correct it"
            )
        if of not in ("conventional", "primitive"):
            raise StructureError(f"found of={of!r}; expected 'conventional' or 'primitive'; choose one")
        matrix = given @ alloy.conventional if of == "conventional" else given
        flat = ~alloy.pbc
        if flat.any() and (
            np.any(matrix[np.ix_(flat, alloy.pbc)])
            or np.any(matrix[np.ix_(alloy.pbc, flat)])
            or not np.array_equal(matrix[np.ix_(flat, flat)], np.eye(flat.sum()))
        ):
            raise StructureError(
                f"found supercell matrix {matrix.tolist()} for pbc={alloy.pbc.tolist()}; expected 1 along non-periodic "
                "axes; repeat periodic directions only"
            )
        n_sites = abs(round(np.linalg.det(matrix))) * alloy.n_basis
        if n_sites >= MOST_SITES:
            raise StructureError(
                f"found a supercell of {n_sites} sites; expected fewer than {MOST_SITES}, since their numbers have 31 "
                "bits; take a smaller one"
            )
        return cls(alloy, matrix)

    # -- the lattice ----------------------------------------------------------------------------------------------

    @cached_property
    def hermite(self) -> NDArray[np.int64]:
        """Upper-triangular Hermite normal form of :attr:`matrix`, shape (3, 3): same lattice, unique coordinates."""
        h = [[int(v) for v in row] for row in self.matrix]
        for col in range(3):
            while any(h[row][col] for row in range(col + 1, 3)):
                pivot = min((r for r in range(col, 3) if h[r][col]), key=lambda r: abs(h[r][col]))
                h[col], h[pivot] = h[pivot], h[col]
                for row in range(col + 1, 3):
                    q = h[row][col] // h[col][col]
                    h[row] = [a - q * b for a, b in zip(h[row], h[col], strict=True)]
            if h[col][col] < 0:
                h[col] = [-a for a in h[col]]
        return np.array(h, dtype=np.int64)

    @cached_property
    def n_cells(self) -> int:
        """Number of primitive cells."""
        return int(np.prod(np.diag(self.hermite)))

    @property
    def n_sites(self) -> int:
        """Number of sites N."""
        return self.n_cells * self.alloy.n_basis

    @cached_property
    def cell(self) -> NDArray[np.float64]:
        """Supercell vectors (rows), Å, shape (3, 3)."""
        return self.matrix @ self.alloy.cell

    @property
    def pbc(self) -> NDArray[np.bool_]:
        """Periodic directions, shape (3,)."""
        return self.alloy.pbc

    @property
    def species(self) -> tuple[str, ...]:
        """Species by code; ``species[0]`` is the empty site ``"X"``."""
        return self.alloy.species

    def cell_index(self, coordinates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the primitive cell at integer coordinates (any lattice image), shape (..., 3) → (...).

        Parameters
        ----------
        coordinates : ndarray of int, shape (..., 3)
            In units of the primitive vectors.
        """
        n = np.array(coordinates, dtype=np.int64)
        h = self.hermite
        index = np.zeros(n.shape[:-1], dtype=np.int64)
        for axis in range(3):
            q = n[..., axis] // h[axis, axis]
            n = n - q[..., None] * h[axis]
            index = index * h[axis, axis] + n[..., axis]
        return index

    def cell_coordinates(self, index: ArrayLike) -> NDArray[np.int64]:
        """Integer coordinates of primitive cells, shape (...) → (..., 3).

        Parameters
        ----------
        index : array_like of int, shape (...)
            Number of the cell.
        """
        i = np.asarray(index, dtype=np.int64)
        h = self.hermite
        return np.stack([i // (h[1, 1] * h[2, 2]), (i // h[2, 2]) % h[1, 1], i % h[2, 2]], axis=-1)

    def neighbors(self, sites: ArrayLike, basis: ArrayLike, offsets: ArrayLike) -> NDArray[np.int64]:
        """Sites reached from given sites.

        Parameters
        ----------
        sites : array_like of int, shape (n,)
            Starting sites.
        basis : array_like of int, shape (m,) or (n, m)
            Basis site of each target.
        offsets : array_like of int, shape (m, 3) or (n, m, 3)
            Cell of each target relative to the cell of the start.

        Returns
        -------
        ndarray of int, shape (n, m)
        """
        start = self.cell_coordinates(np.asarray(sites) // self.alloy.n_basis).astype(np.int32)
        cells = np.asarray(offsets)
        there = [start[:, None, axis] + cells[..., axis].astype(np.int32) for axis in range(3)]
        return wrapped_cells(self.hermite, there).astype(np.int64) * self.alloy.n_basis + np.asarray(basis)

    def site_table(self, basis: ArrayLike, cells: ArrayLike) -> SiteTable:
        """Places around basis sites, to be looked up around many sites: quicker than :meth:`neighbors` each time.

        Parameters
        ----------
        basis : array_like of int, shape (n_basis, m)
            Basis site of each place around each basis site; −1 where there is none.
        cells : array_like of int, shape (n_basis, m, 3)
            Its cell, relative to that of the basis site.
        """
        return SiteTable(self.hermite, np.asarray(basis, dtype=np.int64), np.asarray(cells, dtype=np.int64))

    def translate(self, sites: ArrayLike, by: ArrayLike) -> NDArray[np.int64]:
        """Translate sites by cell vectors; shape (...).

        Parameters
        ----------
        sites : array_like of int, shape (...)
            Sites.
        by : array_like of int, shape (..., 3)
            Cell vectors, in units of the primitive vectors.
        """
        s = np.asarray(sites, dtype=np.int64)
        moved = self.cell_coordinates(s // self.alloy.n_basis) + np.asarray(by)
        return self.cell_index(moved) * self.alloy.n_basis + s % self.alloy.n_basis

    @cached_property
    def basis_index(self) -> NDArray[np.int64]:
        """Basis site of every site, shape (n_sites,)."""
        return np.tile(np.arange(self.alloy.n_basis), self.n_cells)

    @cached_property
    def sublattice(self) -> NDArray[np.int64]:
        """Sublattice of every site, shape (n_sites,)."""
        return self.alloy.site_sublattice[self.basis_index]

    @cached_property
    def mobile_sites(self) -> NDArray[np.int64]:
        """Sites that the carrier visits, shape (n,)."""
        return np.flatnonzero(self.alloy.mobile_basis[self.basis_index])

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Ideal positions wrapped into the cell, Å, shape (n_sites, 3)."""
        coordinates = self.cell_coordinates(np.arange(self.n_cells))
        scaled = (coordinates[:, None, :] + self.alloy.scaled_positions[None]).reshape(-1, 3)
        inside = scaled @ np.linalg.inv(self.matrix)
        inside[:, self.pbc] -= np.floor(inside[:, self.pbc] + 1e-9)
        return inside @ self.cell

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the lattice and the cell."""
        return self._digest(self.alloy.fingerprint)

    @cached_property
    def former_fingerprint(self) -> str:
        """What the fingerprint was before (:class:`Alloy`)."""
        return self._digest(self.alloy.former_fingerprint)

    def goes_by(self, fingerprint: object) -> bool:
        """Whether a stored fingerprint is that of this supercell, be it one of before (:class:`Alloy`).

        Parameters
        ----------
        fingerprint
            What a file says.
        """
        return fingerprint in (self.fingerprint, self.former_fingerprint)

    def _digest(self, alloy: str) -> str:
        return hashlib.sha256((alloy + repr(self.matrix.tolist())).encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Supercell) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    # -- composition ----------------------------------------------------------------------------------------------

    @cached_property
    def counts(self) -> tuple[dict[str, int], ...]:
        """Number of atoms of each species on each sublattice, by largest remainder, with one carrier in the cell.

        A vacancy takes one site of the mobile sublattices (of the largest one, where there are several); an
        interstitial network holds its one atom.

        Raises
        ------
        StructureError
            If a sublattice would hold no atom.
        """
        result: list[dict[str, int]] = []
        n_sites = np.bincount(self.sublattice, minlength=len(self.alloy.sublattices))
        mobile = [i for i, s in enumerate(self.alloy.sublattices) if s.mobile]
        host = max(mobile, key=lambda i: n_sites[i])
        for i, sub in enumerate(self.alloy.sublattices):
            if sub.interstitial:
                result.append({sub.species[0]: int(i == host)})
                continue
            total = int(n_sites[i]) - (i == host)
            fractions = np.array([x for _, x in sub.composition])
            if sub.mobile:
                fractions = fractions / fractions.sum()
            result.append(dict(zip(sub.species, largest_remainder(fractions, total), strict=True)))
            if not any(result[-1].values()):
                raise StructureError(
                    f"sublattice {sub.name!r} has {n_sites[i]} sites in this cell and would hold no atom; expected at "
                    "least one; use a larger supercell"
                )
        return tuple(result)

    def rounding(self) -> dict[str, dict[str, float]]:
        """Composition error made by whole numbers of atoms: realised minus nominal fraction, by sublattice."""
        report: dict[str, dict[str, float]] = {}
        for sub, counts in zip(self.alloy.sublattices, self.counts, strict=True):
            if sub.interstitial:
                continue
            total = sum(counts.values())
            share = sub.occupancy
            report[sub.name] = {s: counts[s] / total - x / share for s, x in sub.composition}
        return report

    # -- Atoms ⇄ occupation ---------------------------------------------------------------------------------------

    def to_atoms(self, occupation: ArrayLike, carrier: int | None = None) -> Atoms:
        """Put atoms on the ideal sites, in the order of the sites, empty sites left out.

        Parameters
        ----------
        occupation : array_like of int, shape (n_sites,)
            Species codes.
        carrier
            If given, stored as ``atoms.info["carrier_site"]``.
        """
        codes = np.asarray(occupation)
        full = np.flatnonzero(codes > 0)
        atoms = Atoms(
            [self.species[c] for c in codes[full]], positions=self.positions[full], cell=self.cell, pbc=self.pbc
        )
        atoms.arrays["site"] = full
        if carrier is not None:
            atoms.info["carrier_site"] = int(carrier)
        return atoms

    def map_atoms(self, atoms: Atoms, *, tolerance: float | None = None) -> Mapped:
        """Map relaxed atoms back onto sites by optimal assignment.

        Thermal displacements, a rigid drift, wrapped positions and a homogeneous strain of up to 10 % are allowed.

        Parameters
        ----------
        atoms
            One carrier in the cell; any order of atoms.
        tolerance
            Largest distance of an atom from its site, Å. Default: 0.45 of the shortest distance between sites.

        Raises
        ------
        MappingError
            Says which atom is how far from a site, or what does not fit.
        """
        return map_atoms(self, atoms, tolerance=tolerance)

    def occupation_from_atoms(self, atoms: Atoms, *, tolerance: float | None = None) -> NDArray[np.int8]:
        """Return only the occupation of :meth:`map_atoms`, shape (n_sites,).

        Parameters
        ----------
        atoms, tolerance
            As in :meth:`map_atoms`.
        """
        return self.map_atoms(atoms, tolerance=tolerance).occupation

    def find_carrier(self, occupation: ArrayLike) -> int:
        """Site of the one carrier in an occupation.

        Parameters
        ----------
        occupation : array_like of int, shape (n_sites,)
            Species code of every site.

        Raises
        ------
        MappingError
            If there is not exactly one.
        """
        codes = np.asarray(occupation)
        on = codes[self.mobile_sites]
        found = self.mobile_sites[on > 0] if self.alloy.is_interstitial else self.mobile_sites[on == 0]
        if len(found) != 1:
            what = "interstitial atoms" if self.alloy.is_interstitial else "vacancies"
            raise MappingError(
                f"found {len(found)} {what} (sites {found[:5].tolist()}) among {len(self.mobile_sites)} mobile "
                "sites; expected "
                "exactly one per cell; the method treats one carrier at a time"
            )
        return int(found[0])

    def check_occupation(self, occupation: ArrayLike) -> NDArray[np.int8]:
        """Check shape and codes of occupations; return them as int8, shape (..., n_sites).

        Parameters
        ----------
        occupation : array_like of int, shape (..., n_sites)
            Species code of every site.

        Raises
        ------
        MappingError
            If shape or codes do not fit the supercell.
        """
        codes = np.asarray(occupation)
        if codes.shape[-1:] != (self.n_sites,):
            raise MappingError(
                f"found occupations of shape {codes.shape}; expected (..., {self.n_sites}); use the supercell "
                "they belong to"
            )
        if codes.size and (codes.min() < 0 or codes.max() >= len(self.species)):
            raise MappingError(
                f"found species codes from {codes.min()} to {codes.max()}; expected 0 to {len(self.species) - 1} "
                f"({self.species})"
            )
        return codes.astype(np.int8)

    def minimum_image(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Shortest periodic images of vectors, Å, shape (..., 3).

        Parameters
        ----------
        vectors : array_like, shape (..., 3)
            Å.
        """
        return minimum_image(self, np.asarray(vectors, dtype=float))

    # -- helpers --------------------------------------------------------------------------------------------------

    @cached_property
    def shortest_distance(self) -> float:
        """Shortest distance between two sites, Å."""
        from ase.neighborlist import primitive_neighbor_list

        a = self.alloy
        reach = 1.2 * float(np.linalg.norm(a.cell, axis=1).max())
        return float(primitive_neighbor_list("d", a.pbc, a.cell, a.scaled_positions @ a.cell, reach).min())

    @cached_property
    def allowed_species(self) -> NDArray[np.bool_]:
        """Marks which species code may sit on which site, shape (n_species, n_sites).

        Mobile sublattices share their species.
        """
        subs = self.alloy.sublattices
        shared = {s for sub in subs if sub.mobile and not sub.interstitial for s in sub.species}
        table = np.zeros((len(self.species), self.n_sites), dtype=bool)
        for code, symbol in enumerate(self.species):
            ok = np.array([symbol in (shared if s.mobile and not s.interstitial else s.species) for s in subs])
            table[code] = ok[self.sublattice]
        return table


def largest_remainder(fractions: ArrayLike, total: int) -> list[int]:
    """Whole numbers closest to ``fractions * total`` whose sum is that of the fractions, rounded.

    Fractions that sum to 1 give numbers that sum to ``total`` exactly. Ties go to the earlier entry.
    """
    exact = np.asarray(fractions, dtype=float) * total
    base = np.floor(exact + 1e-9).astype(int)
    missing = round(exact.sum()) - base.sum()
    order = np.argsort(-(exact - base), kind="stable")
    base[order[:missing]] += 1
    return [int(b) for b in base]


def _said(size: object) -> str:
    """What was given as a size, for messages; whole numbers of thousands of digits have no text."""
    try:
        text = str(size.tolist() if isinstance(size, np.ndarray) else size)
    except ValueError:
        return "of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}…"
