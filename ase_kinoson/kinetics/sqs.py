"""Special quasirandom cells, from icet (optional)."""

from __future__ import annotations

import contextlib
import io
import logging

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import StatesError

__all__ = ["sqs_occupations"]


def sqs_occupations(
    cell: Supercell, n: int, cells: int, *, seed: int = 0, n_steps: int = 3000, progress: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Decorate a supercell with the pair correlations of the random alloy, then take out one atom.

    Parameters
    ----------
    cell
        The supercell; vacancy mechanism, no vacant sites on fixed sublattices.
    n
        Number of states.
    cells
        Number of different quasirandom cells; the vacancy sits at another random site in each state.
    seed
        Seed.
    n_steps
        Monte Carlo steps of icet's annealing.

    Returns
    -------
    occupations : ndarray of int8, shape (n, n_sites)
    groups : ndarray of int, shape (n,)
        Which quasirandom cell a state is made of.

    Source: A. van de Walle et al., Calphad 42, 13 (2013), as implemented in icet.
    """
    try:
        from icet import ClusterSpace
        from icet.tools.structure_generation import generate_sqs_from_supercells
    except ImportError as error:
        raise StatesError(
            "method='sqs' found no icet; expected the optional package; install it with: pip install ase-kinoson[sqs]"
        ) from error
    alloy = cell.alloy
    # a rare species may round to no atom at all, and leave its sublattice without disorder
    present = [
        [s for s in sub.species if c.get(s, 0) > 0] for sub, c in zip(alloy.sublattices, cell.counts, strict=True)
    ]
    disordered = [i for i, s in enumerate(alloy.sublattices) if len(s.composition) > 1 and len(present[i]) > 1]
    kinds = [set(alloy.sublattices[i].species) for i in disordered]
    fixed_vacant = any(s.vacant_fraction > 1e-9 and not s.mobile for s in alloy.sublattices)
    mixed = any(kinds[i] & kinds[j] for i in range(len(kinds)) for j in range(i))
    if alloy.is_interstitial or fixed_vacant or mixed or not disordered:
        raise StatesError(
            "method='sqs' found an interstitial alloy, vacant fixed sites, sublattices that share species, "
            "or no disorder (in cells of this size); expected "
            "disordered sublattices with species of their own; use method='random' or 'monte-carlo'"
        )
    counts = [dict(c) for c in cell.counts]
    sizes = np.bincount(cell.sublattice, minlength=len(counts))
    host = next(i for i, c in enumerate(counts) if sum(c.values()) == sizes[i] - 1)
    nominal = dict(alloy.sublattices[host].composition)
    share = sum(nominal.values())
    extra = max(counts[host], key=lambda s: nominal[s] / share * sizes[host] - counts[host][s])
    counts[host][extra] += 1
    choices = [list(s.species) if i in disordered else present[i][:1] for i, s in enumerate(alloy.sublattices)]
    primitive = Atoms(
        [choices[s][0] for s in alloy.site_sublattice],
        scaled_positions=alloy.scaled_positions,
        cell=alloy.cell,
        pbc=True,
    )
    allowed = [choices[s] for s in alloy.site_sublattice]
    ideal = Atoms([allowed[b][0] for b in cell.basis_index], positions=cell.positions, cell=cell.cell, pbc=True)
    length = float(np.min(primitive.repeat(2).get_all_distances(mic=True)[~np.eye(8 * len(primitive), dtype=bool)]))
    rng = np.random.default_rng(seed)
    decorated = []
    logging.getLogger("icet").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        space = ClusterSpace(primitive, [2.05 * length, 1.05 * length], allowed)
        letters = {
            frozenset(s.chemical_symbols): s.symbol for s in space.get_sublattices(ideal) if len(s.chemical_symbols) > 1
        }
    target = {
        letters[frozenset(alloy.sublattices[i].species)]: {s: c / sizes[i] for s, c in counts[i].items()}
        for i in disordered
    }
    concentrations = target if len(target) > 1 else next(iter(target.values()))
    for _ in tqdm(range(cells), desc="SQS", disable=not progress):
        with contextlib.redirect_stdout(io.StringIO()):
            found = generate_sqs_from_supercells(
                space, [ideal.copy()], concentrations, n_steps=n_steps, random_seed=int(rng.integers(2**31))
            )
        symbols = found.get_chemical_symbols()
        gaps = cell.minimum_image(found.positions[:, None] - cell.positions)
        order = np.linalg.norm(gaps, axis=-1).argmin(axis=1)
        row = np.empty(cell.n_sites, dtype=np.int8)
        row[order] = [cell.species.index(s) for s in symbols]
        decorated.append(row)
    groups = np.arange(n) % cells
    occupations = np.array(decorated)[groups]
    candidates = (cell.sublattice == host)[None] & (occupations == cell.species.index(extra))
    for row, can in zip(occupations, candidates, strict=True):
        row[rng.choice(np.flatnonzero(can))] = 0
    return occupations, groups
