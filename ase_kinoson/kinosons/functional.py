"""The variational functional and its terms, the kinosons.

    Λ_ab[y] = 1/(2d) ⟨ Σ_k W_k (δx^a_k + Δ_k y^a)·(δx^b_k + Δ_k y^b) ⟩,     Δ_k y = y(χ_k) − y(χ)

(Trinkle, Phys. Rev. Lett. 121, 235901 (2018)); for tracers the square of every single atom is summed,

    Λ*_a[y] = 1/(2d) ⟨ Σ_k W_k Σ_{i∈a} |δx_i + Δ_k y_i|² ⟩.

One field y_i over atoms serves both: y^a = Σ_{i∈a} y_i, and the vacancy moves by −Σ_a of the atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinosons.relaxation import Relaxation

__all__ = ["JumpTerms", "jump_terms"]


@dataclass(frozen=True, eq=False)
class JumpTerms:
    """Relaxed displacements of every jump of some states.

    Attributes
    ----------
    displacement : ndarray, shape (n_states, J, n_species, 3)
        δx^a_k + Δ_k y^a of all atoms of a species together, Å; species in the order of ``supercell.species[1:]``.
    tracer : ndarray, shape (n_states, J, n_species, 3, 3)
        Σ_{i∈a} (δx_i + Δ_k y_i) ⊗ (δx_i + Δ_k y_i), Å².
    bare : ndarray, shape (n_states, J, n_species, 3)
        δx^a_k, the same with y = 0, Å.
    """

    displacement: NDArray[np.float64]
    tracer: NDArray[np.float64]
    bare: NDArray[np.float64]


@torch.no_grad()
def jump_terms(
    relaxation: Relaxation | None,
    occupations: NDArray,
    carriers: ArrayLike,
    *,
    network: JumpNetwork | None = None,
    chunk: int = 64,
) -> JumpTerms:
    """Evaluate the relaxed displacement of every jump.

    Parameters
    ----------
    relaxation
        Any relaxation; None means y = 0.
    occupations : ndarray of int, shape (n_states, n_sites)
    carriers : array_like of int, shape (n_states,)
    network
        Needed only with ``relaxation=None``.
    chunk
        States evaluated at a time; bounds memory.
    """
    if relaxation is not None:
        network = relaxation.network
    assert network is not None
    c = np.asarray(carriers, dtype=np.int64)
    basis = network.basis_of(c)
    bare = bare_displacements(network, occupations, c)
    if relaxation is None:
        return JumpTerms(bare, bare[..., :, None] * bare[..., None, :], bare)
    displacement = np.zeros_like(bare)
    tracer = np.zeros((*bare.shape, 3))
    every = np.arange(1, len(network.supercell.species))
    for b in np.unique(basis):
        rows = np.flatnonzero(basis == b)
        for begin in range(0, len(rows), chunk):
            part = rows[begin : begin + chunk]
            found = relaxation.relaxed_jumps(int(b), occupations[part], c[part])
            member = (found.codes[:, :, None] == every).astype(float)
            displacement[part], tracer[part] = _species_moments(found.moved, member)
    missing = ~network.exists[basis]
    displacement[missing] = 0.0
    tracer[missing] = 0.0
    return JumpTerms(displacement, tracer, bare)


def _species_moments(moved: NDArray, member: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of v and of v ⊗ v over the atoms of each species, shapes (n, J, n_species, 3) and (n, J, n_species, 3, 3).

    One matrix product per state: the three components and their six products side by side, atoms against species.
    """
    n, n_jumps, n_atoms, _ = moved.shape
    terms = np.empty((n, n_jumps, 9, n_atoms))
    terms[:, :, :3] = moved.swapaxes(2, 3)
    for row, (x, y) in enumerate(_PRODUCTS, start=3):
        np.multiply(terms[:, :, x], terms[:, :, y], out=terms[:, :, row])
    sums = (terms.reshape(n, n_jumps * 9, n_atoms) @ member).reshape(n, n_jumps, 9, -1).swapaxes(2, 3)
    return sums[..., :3], sums[..., _AS_TENSOR].reshape(*sums.shape[:3], 3, 3)


_PRODUCTS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_AS_TENSOR = [3, 4, 5, 4, 6, 7, 5, 7, 8]


def bare_displacements(network: JumpNetwork, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
    """δx^a_k of every jump, Å, shape (n_states, J, n_species, 3): −dx for the atom that a vacancy exchanges with."""
    moved = network.moving_species(occupations, carriers)
    vectors = network.vectors[network.basis_of(carriers)]
    bare = np.zeros((*moved.shape, len(network.supercell.species) - 1, 3))
    row, jump = np.nonzero(moved > 0)
    sign = 1.0 if network.mechanism == "interstitial" else -1.0
    bare[row, jump, moved[row, jump] - 1] = sign * vectors[row, jump]
    return bare
