"""Mapping relaxed atoms back onto the sites of a supercell, by optimal assignment."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ase_kinoson.crystal.sublattice import VACANCY
from ase_kinoson.errors import MappingError

if TYPE_CHECKING:
    from ase_kinoson.crystal.supercell import Supercell

__all__ = ["Mapped", "map_atoms", "minimum_image"]


@dataclass(frozen=True)
class Mapped:
    """Atoms assigned to the sites of a supercell.

    Attributes
    ----------
    occupation : ndarray of int8, shape (n_sites,)
        Species code of every site (0 = empty).
    carrier
        Site of the carrier.
    atom_of_site : ndarray of int, shape (n_sites,)
        Index of the atom on each site, −1 where empty.
    displacements : ndarray, shape (n_atoms, 3)
        Displacement of each atom from its site after removal of the mean drift, Å.
    """

    occupation: NDArray[np.int8]
    carrier: int
    atom_of_site: NDArray[np.int64]
    displacements: NDArray[np.float64]


def map_atoms(cell: Supercell, atoms: Atoms, *, tolerance: float | None = None) -> Mapped:
    """See :meth:`Supercell.map_atoms`."""
    if "occupancy" in atoms.info:
        raise MappingError(
            "found info['occupancy']: a disordered CIF read by ASE is an average, not an arrangement of "
            "atoms; expected "
            "one atom per site; decorate it with Alloy.from_file(path) and sample_states"
        )
    strain = np.linalg.solve(cell.cell, np.array(atoms.cell)) if abs(atoms.cell.volume) > 1e-9 else np.zeros((3, 3))
    if np.abs(strain - np.eye(3)).max() > 0.1:
        raise MappingError(
            f"found the cell {np.round(np.array(atoms.cell), 3).tolist()} Å; expected "
            f"{np.round(cell.cell, 3).tolist()} Å within "
            "10 %; use the cell vectors of the supercell, in the same orientation"
        )
    codes = _codes(cell, atoms)
    site_allowed = cell.allowed_species
    limit = 0.45 * cell.shortest_distance if tolerance is None else float(tolerance)
    base = atoms.get_scaled_positions(wrap=False) @ cell.cell
    # one site per basis site to put the first atom on: lattice translations of a drift give the same mapping
    places = np.flatnonzero(site_allowed[codes[0]]) if len(codes) else np.empty(0, dtype=np.int64)
    start = places[np.unique(cell.basis_index[places], return_index=True)[1]]
    best: tuple[float, float, NDArray, NDArray] | None = None
    anchors = [np.zeros(3)] + [cell.positions[s] - base[0] for s in start]
    for anchor in anchors:
        drift = minimum_image(cell, anchor)
        for _ in range(4):
            distance = _distances(cell, base + drift)
            sites, cost = _assign(cell, distance, codes)
            vectors = minimum_image(cell, base + drift - cell.positions[sites])
            mean = vectors.mean(axis=0)
            drift = drift - mean
            if np.abs(mean).max() < 1e-9:
                break
        vectors = minimum_image(cell, base + drift - cell.positions[sites])
        worst = float(np.linalg.norm(vectors, axis=1).max()) if cost < 1e6 else np.inf
        spread = float(np.square(vectors).sum(axis=1).mean()) if cost < 1e6 else np.inf
        if best is None or spread < best[0] - 1e-6:
            best = (spread, worst, sites, vectors)
        if best[1] < 0.125 * cell.shortest_distance:
            break  # otherwise a drift may have put planes on wrong sites within the tolerance: try the others
    assert best is not None
    _, worst, sites, vectors = best
    if not worst <= limit:
        lengths = np.linalg.norm(vectors, axis=1)
        if np.isfinite(worst):
            i = int(lengths.argmax())
            raise MappingError(
                f"atom {i} ({atoms.symbols[i]}) lies {lengths[i]:.2f} Å from its site; expected at most "
                f"{limit:.2f} Å; "
                "relax the structure, or pass a larger tolerance"
            )
        raise MappingError(
            "the atoms do not fit the sublattices (a species has fewer sites than atoms); expected the species of the "
            f"alloy on their sites, { ({s.name: s.species for s in cell.alloy.sublattices}) }; move the atoms"
        )
    occupation = np.zeros(cell.n_sites, dtype=np.int8)
    occupation[sites] = codes
    atom_of_site = np.full(cell.n_sites, -1)
    atom_of_site[sites] = np.arange(len(atoms))
    return Mapped(occupation, cell.find_carrier(occupation), atom_of_site, vectors)


def _codes(cell: Supercell, atoms: Atoms) -> NDArray[np.int8]:
    table = {s: i for i, s in enumerate(cell.species)}
    atoms_expected = cell.n_sites - 1
    for i, symbol in enumerate(atoms.get_chemical_symbols()):
        if symbol not in table or symbol == VACANCY:
            raise MappingError(
                f"atom {i} is {symbol}; expected one of {cell.species[1:]}; use the species of the alloy"
            )
    variable = any(s.interstitial or (s.vacant_fraction > 0 and not s.mobile) for s in cell.alloy.sublattices)
    if not variable and len(atoms) != atoms_expected:
        missing = cell.n_sites - len(atoms)
        found = f"{missing} vacancies" if missing > 0 else "no vacancy" if missing == 0 else "more atoms than sites"
        raise MappingError(
            f"found {len(atoms)} atoms on {cell.n_sites} sites ({found}); expected {atoms_expected}, exactly "
            "one vacancy; "
            "remove or add atoms"
        )
    if len(atoms) > cell.n_sites:
        raise MappingError(f"found {len(atoms)} atoms on {cell.n_sites} sites; expected fewer; check the supercell")
    return np.array([table[s] for s in atoms.get_chemical_symbols()], dtype=np.int8)


def minimum_image(cell: Supercell, vectors: NDArray) -> NDArray:
    """Minimum-image vectors, exact for cells of any shape: 27 images by the shortest vectors of the lattice.

    Notes
    -----
    P. Q. Nguyen and D. Stehlé, ACM Trans. Algorithms 5, 46 (2009): in a Minkowski-reduced cell the nearest image is
    among these.
    """
    box = _short_vectors(cell.cell.tobytes(), cell.pbc.tobytes())
    scaled = np.asarray(vectors) @ np.linalg.inv(box)
    scaled = np.where(cell.pbc, scaled - np.rint(scaled), scaled)
    first = scaled @ box
    metric = box @ box.T
    if np.abs(metric - np.diag(np.diag(metric))).max() < 1e-9 * metric.max():
        return first  # orthogonal cells need no other image
    ranges = [(-1, 0, 1) if p else (0,) for p in cell.pbc]
    images = np.array(list(itertools.product(*ranges))) @ box
    trial = first[..., None, :] + images
    pick = (trial**2).sum(-1).argmin(-1)
    return np.take_along_axis(trial, pick[..., None, None], axis=-2)[..., 0, :]


@lru_cache(maxsize=256)
def _short_vectors(cell: bytes, pbc: bytes) -> NDArray[np.float64]:
    """Minkowski-reduced vectors of a lattice, Å; the given ones if they are as short."""
    vectors, periodic = np.frombuffer(cell).reshape(3, 3), np.frombuffer(pbc, dtype=bool)
    reduced = np.array(minkowski_reduce(vectors, pbc=periodic)[0])
    before, after = (np.sort(np.linalg.norm(x[periodic], axis=1)) for x in (vectors, reduced))
    return vectors if np.allclose(before, after, rtol=1e-9, atol=0) else reduced


def _distances(cell: Supercell, points: NDArray) -> NDArray:
    rows = [np.linalg.norm(minimum_image(cell, p - cell.positions), axis=-1) for p in points]
    return np.array(rows).reshape(len(points), cell.n_sites)


def _assign(cell: Supercell, distance: NDArray, codes: NDArray) -> tuple[NDArray, float]:
    cost = distance**2
    cost[~cell.allowed_species[codes]] = 1e6
    rows, columns = linear_sum_assignment(cost)
    sites = np.empty(len(codes), dtype=np.int64)
    sites[rows] = columns
    return sites, float(cost[rows, columns].max(initial=0.0))
