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
from torch import Tensor

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinosons.relaxation import Relaxation, _Ball

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


def relaxed_displacements(ball: _Ball, y: Tensor, codes: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
    """Return δx_i + Δ_k y_i of the labelled atoms and who is of which species.

    Parameters
    ----------
    ball
        Tables of the stencil.
    y : Tensor, shape (n, n_first, n_window, 3)
        Output of :meth:`Relaxation.ball_fields`.
    codes : Tensor of int64, shape (n, n_window)
    species : Tensor of int64, shape (n_species,)
        Species codes to tell apart.

    Returns
    -------
    moved : Tensor, shape (n, J, n_window, 3)
        Å.
    member : Tensor, shape (n, n_window, n_species)
        1 where the labelled atom is of the species.
    """
    children = ball.next_state[0]
    moved = y[:, children] - y[:, :1]
    jumps = torch.arange(len(children))
    shift = torch.zeros_like(moved[:1])
    shift[0, jumps, ball.mover[0]] = ball.jump_vectors[0].to(moved.dtype)
    moved = moved + shift
    member = (codes[:, :, None] == species).to(moved.dtype)
    return moved, member


def species_sums(moved: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the atoms of each species.

    Returns
    -------
    total : Tensor, shape (n, J, n_species, 3)
        Displacement of the species, Å.
    squares : Tensor, shape (n, J, n_species)
        Sum of the squared displacements of its atoms, Å².
    """
    total = torch.einsum("bkwx,bws->bksx", moved, member)
    squares = torch.einsum("bkw,bws->bks", moved.square().sum(-1), member)
    return total, squares


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
    species = torch.arange(1, len(network.supercell.species))
    for b in np.unique(basis):
        ball = relaxation.ball(int(b))
        rows = np.flatnonzero(basis == b)
        for begin in range(0, len(rows), chunk):
            part = rows[begin : begin + chunk]
            occ = occupations[part]
            codes = torch.as_tensor(ball.stencil.window(occ, c[part]))
            paths = relaxation.paths(ball, relaxation.inner_rates(int(b), occ, c[part]))
            y = relaxation.ball_fields(ball, codes, paths)
            moved, member = relaxed_displacements(ball, y, codes, species)
            moved, member = moved.double(), member.double()
            displacement[part] = torch.einsum("bkwx,bws->bksx", moved, member).numpy()
            tracer[part] = torch.einsum("bkwx,bkwy,bws->bksxy", moved, moved, member).numpy()
    missing = ~network.exists[basis]
    displacement[missing] = 0.0
    tracer[missing] = 0.0
    return JumpTerms(displacement, tracer, bare)


def bare_displacements(network: JumpNetwork, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
    """δx^a_k of every jump, Å, shape (n_states, J, n_species, 3): −dx for the atom that a vacancy exchanges with."""
    moved = network.moving_species(occupations, carriers)
    hit = moved[..., None] == np.arange(1, len(network.supercell.species))
    sign = 1.0 if network.mechanism == "interstitial" else -1.0
    return sign * hit[..., None] * network.vectors[network.basis_of(carriers)][:, :, None, :]
