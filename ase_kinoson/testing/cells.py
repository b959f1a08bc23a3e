"""Cells and states that the physical tests compare with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, StructureError
from ase_kinoson.kinosons.state_space import StateSpace, mobile_counts

__all__ = ["enumerable_cell", "relabelled", "repeated", "symmetry_operations"]


def symmetry_operations(cell: Supercell) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Space-group operations that map a supercell onto itself.

    Parameters
    ----------
    cell
        The supercell.

    Returns
    -------
    list of (image, rotation)
        ``image[i]`` is the site on which site ``i`` lands, shape (n_sites,); ``rotation`` is Cartesian, shape (3, 3).
    """
    group = cell.alloy.space_group
    coordinates = cell.cell_coordinates(np.arange(cell.n_sites) // cell.alloy.n_basis)
    found = []
    for op in range(group.n_ops):
        turned = cell.matrix @ group.rotations[op].T @ np.linalg.inv(cell.matrix)
        if np.allclose(turned, np.rint(turned), atol=1e-8):
            basis, cells = group.apply(op, cell.basis_index, coordinates)
            found.append((cell.cell_index(cells) * cell.alloy.n_basis + basis, group.cartesian[op]))
    return found


def repeated(cell: Supercell, times: int) -> Supercell:
    """Return the supercell repeated along each periodic direction."""
    return replace(cell, matrix=np.where(cell.pbc, times, 1)[:, None] * cell.matrix)


def embedded(states: States, larger: Supercell, *, seed: int = 0) -> States:
    """Continue states periodically into a larger cell, with one carrier only.

    The images of the carrier get random atoms (a vacancy) or stay empty (an interstitial).
    """
    small = states.supercell
    n_basis = small.alloy.n_basis
    origin = small.cell_index(larger.cell_coordinates(np.arange(larger.n_cells)))
    source = (origin[:, None] * n_basis + np.arange(n_basis)).ravel()
    occ = states.occupations[:, source].copy()
    cells = small.cell_coordinates(states.carriers // n_basis)
    carriers = larger.cell_index(cells) * n_basis + states.carriers % n_basis
    rng = np.random.default_rng(seed)
    for row, old, new in zip(occ, states.carriers, carriers, strict=True):
        images = np.flatnonzero(source == old)
        images = images[images != new]
        if small.alloy.is_interstitial:
            row[images] = 0
        else:
            row[images] = rng.choice(np.unique(row[larger.mobile_sites][row[larger.mobile_sites] > 0]), len(images))
    return States.from_occupations(larger, occ, carriers=carriers)


def relabelled(network: JumpNetwork, names: Mapping[str, str]) -> JumpNetwork:
    """Return the same jumps in an alloy whose species carry other symbols.

    Parameters
    ----------
    network : JumpNetwork
        The jumps.
    names : mapping of str to str
        New symbol of each species that gets one; two species must not get the same.

    Raises
    ------
    KinosonError
        If two species get one symbol.
    """
    cell = network.supercell
    new = [names.get(s, s) for s in cell.species[1:]]
    if len(set(new)) != len(new):
        raise KinosonError(f"found new symbols {new}; expected a different one for each species; correct them")
    subs = [
        replace(sub, composition=tuple(sorted((names.get(s, s), x) for s, x in sub.composition)))
        for sub in cell.alloy.sublattices
    ]
    return replace(network, supercell=Supercell(replace(cell.alloy, sublattices=tuple(subs)), cell.matrix))


def enumerable_cell(network: JumpNetwork, *, limit: int = 3000) -> tuple[JumpNetwork, dict[str, int] | None]:
    """Find the smallest cell that holds the jumps, with one or two atoms of the less frequent species.

    Parameters
    ----------
    network : JumpNetwork
        The jumps, on a cell of any size.
    limit : int
        Largest number of states; species are left out until there are so few.

    Returns
    -------
    network : JumpNetwork
        The same jumps on that cell.
    counts : dict or None
        Atoms of each species for :meth:`StateSpace.enumerate`; None for an interstitial.

    Raises
    ------
    KinosonError
        If no cell has so few states.
    """
    alloy = network.supercell.alloy
    sizes = product(*[range(1, 5) if periodic else (1,) for periodic in alloy.pbc])
    for size in sorted(sizes, key=lambda s: (int(np.prod(s)), max(s))):
        try:
            found = network.with_supercell(Supercell(alloy, np.diag(np.array(size))))
            choices = _dilute(found.supercell)
        except StructureError:  # too small for the jumps or for the composition
            continue
        for counts in choices:
            try:
                StateSpace.enumerate(found, counts=counts, limit=limit)
            except KinosonError:
                continue
            return found, counts
        raise KinosonError(
            f"the smallest cell that holds the jumps, {size} primitive cells, has more than {limit} states; expected "
            "fewer; pass limit= or enumerate a cell of your own"
        )
    raise KinosonError("found no cell of up to 4×4×4 primitive cells that holds the jumps; expected one; make your own")


def _dilute(cell: Supercell) -> list[dict[str, int] | None]:
    """Numbers of atoms on the mobile sites, from many states to few."""
    if cell.alloy.is_interstitial:
        return [None]
    nominal = mobile_counts(cell, None)
    n_sites = len(cell.mobile_sites) - 1
    main, *others = sorted(nominal, key=lambda s: -nominal[s])
    choices: list[dict[str, int] | None] = []
    for n, kept in [(2, len(others)), *((1, k) for k in range(len(others), -1, -1))]:
        if n * kept < n_sites:
            few = {s: n if s in others[:kept] else 0 for s in others}
            choices.append({main: n_sites - n * kept, **few})
    return choices
