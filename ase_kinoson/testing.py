"""Physical tests that every barrier source and every relaxation must pass, for those who write a new one.

Each function returns the largest defect it finds: 0 up to rounding where the physics is right. Keep a broken twin of
your model in your tests, to see that the test would notice.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.source import BarrierSource
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.relaxation import Relaxation

__all__ = ["equivariance_defect", "loop_defect", "reverse_defect", "symmetry_defect", "symmetry_operations"]


def symmetry_operations(cell: Supercell) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Space-group operations that map a supercell onto itself.

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


def equivariance_defect(relaxation: Relaxation, states: States) -> float:
    """Largest |y(gχ) − R_g y(χ)|, Å, over all operations g of the supercell and all atoms."""
    before = relaxation(states.occupations, states.carriers)
    worst = 0.0
    for image, rotation in symmetry_operations(states.supercell):
        turned = np.empty_like(states.occupations)
        turned[:, image] = states.occupations
        after = relaxation(turned, image[states.carriers])
        worst = max(worst, float(np.abs(after[:, image] - before @ rotation.T).max()))
    return worst


def symmetry_defect(source: BarrierSource, states: States) -> float:
    """Largest change of a barrier, eV, when state and jump are turned by an operation of the supercell."""
    network = source.network
    barrier = source.jump_energies(states.occupations, states.carriers).barrier
    basis = network.basis_of(states.carriers)
    worst = 0.0
    for image, rotation in symmetry_operations(states.supercell):
        turned = np.empty_like(states.occupations)
        turned[:, image] = states.occupations
        carriers = image[states.carriers]
        found = source.jump_energies(turned, carriers).barrier
        for i, b in enumerate(basis):
            own = np.flatnonzero(network.exists[b])
            moved = network.vectors[b, own] @ rotation.T
            there = network.vectors[network.basis_of(carriers[[i]])[0]]
            match = np.linalg.norm(there[None] - moved[:, None], axis=-1).argmin(axis=1)
            worst = max(worst, _largest(found[i, match], barrier[i, own]))
    return worst


def reverse_defect(source: BarrierSource, states: States) -> float:
    """Largest difference, eV, of K between a jump and its reverse, or of ΔE from antisymmetry.

    A jump that is rejected in one direction only counts as infinite.
    """
    network = source.network
    here = source.jump_energies(states.occupations, states.carriers)
    basis = network.basis_of(states.carriers)
    worst = 0.0
    for k in range(network.n_jumps):
        rows = np.flatnonzero(network.exists[basis, k])
        jumps = np.full(len(rows), k)
        new, carriers = network.apply(states.occupations[rows], states.carriers[rows], jumps)
        there = source.jump_energies(new, carriers)
        pick, back = np.arange(len(rows)), network.reverse[basis[rows], k]
        worst = max(worst, _largest(there.kra[pick, back], here.kra[rows, k]))
        worst = max(worst, _largest(there.delta_e[pick, back], -here.delta_e[rows, k]))
    return worst


def loop_defect(source: BarrierSource, *, n_loops: int = 6, seed: int = 0) -> float:
    """Largest |Σ (Q − Q of the way back)|, eV, over closed loops of jumps: detailed balance of a learned model.

    A loop is a ring of jumps of the carrier, repeated until every atom is back on its site.
    """
    network = source.network
    rng = np.random.default_rng(seed)
    states = sample_states(network.supercell, n_loops, seed=seed)
    worst = 0.0
    for n in range(n_loops):
        occ, carrier = states.occupations[[n]], states.carriers[[n]]
        start = occ.copy()
        ring = _ring(network, int(network.basis_of(carrier)[0]), rng)
        total = 0.0
        for _ in range(60):
            for k in ring:
                there = source.jump_energies(occ, carrier).barrier[0, k]
                back = network.reverse[network.basis_of(carrier)[0], k]
                occ, carrier = network.apply(occ, carrier, np.array([k]))
                total += float(there - source.jump_energies(occ, carrier).barrier[0, back])
            if np.array_equal(occ, start):
                break
        worst = max(worst, abs(total))
    return worst


def _largest(a: NDArray, b: NDArray) -> float:
    """Largest difference; jumps that are infinite on both sides agree, on one side only they do not."""
    if np.any(np.isfinite(a) != np.isfinite(b)):
        return float("inf")
    both = np.isfinite(a)
    return float(np.abs(a[both] - b[both]).max(initial=0.0))


def _ring(network: JumpNetwork, basis: int, rng: np.random.Generator, longest: int = 6) -> list[int]:
    """Jumps that lead the carrier back to where it began without stepping straight back.

    A lattice without such a ring (a chain) gives a jump and its reverse.
    """
    for _ in range(4000):
        b, path, ring = basis, [np.zeros(3)], []
        for _ in range(longest):
            k = int(rng.choice(np.flatnonzero(network.exists[b])))
            ring.append(k)
            path.append(path[-1] + network.vectors[b, k])
            b = int(network.target_basis[b, k])
            if b == basis and np.allclose(path[-1], 0.0, atol=1e-8):
                stepped_back = any(np.allclose(x, z, atol=1e-8) for (x, _), (_, z) in pairwise(pairwise(path)))
                if not stepped_back:
                    return ring
                break
    k = int(np.flatnonzero(network.exists[basis])[0])
    return [k, int(network.reverse[basis, k])]
