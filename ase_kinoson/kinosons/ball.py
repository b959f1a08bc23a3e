"""The ball of states around a state, as index tensors, and the displacements of the jumps in its middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinosons.stencil import Stencil

__all__ = ["Ball", "RelaxedJumps", "relaxed_displacements"]


@dataclass(frozen=True, eq=False)
class Ball:
    """Index tensors of one stencil, ready for torch. M states of level ≤ 1, J jumps."""

    stencil: Stencil
    states: tuple[Tensor, ...]  # per class: states of that class that the network sees
    labels: tuple[Tensor, ...]  # per class: (M_c, n_env) labels of the environment
    out_labels: tuple[Tensor, ...]  # per class: (M_c, n_out) labels the vectors belong to
    frames: tuple[Tensor, ...]  # per class: (M_c, 3, 3)
    edges: tuple[tuple[Tensor, Tensor, Tensor], ...]  # per class: start, path, place of the end among the states
    jump_vectors: Tensor  # (n_inner, J, 3) displacement of the labelled atom
    mover: Tensor  # (n_inner, J)
    next_state: Tensor  # (n_inner, J)

    @classmethod
    def build(
        cls,
        environment: CarrierEnvironment,
        network: JumpNetwork,
        basis_site: int,
        *,
        lookahead: int,
        far: bool,
        dtype: torch.dtype,
    ) -> Ball:
        """Tables of the states around a carrier on ``basis_site``.

        Parameters
        ----------
        environment, network
            What a field sees, and the jumps.
        basis_site
            Where the carrier is.
        lookahead
            Jumps that are followed.
        far
            Whether the field stands on the rim of a ball of two jumps.
        dtype
            Of vectors.
        """
        depth = lookahead + 1
        seen = depth if lookahead < 2 or far else 2
        stencil = Stencil.build(environment, network, basis_site=basis_site, depth=depth, seen=seen)
        kinds = environment.class_of_basis[stencil.carrier_basis]
        mobile = network.supercell.alloy.mobile_basis
        interstitial = network.mechanism == "interstitial"
        states, labels, outs, frames, edges = [], [], [], [], []
        first = int((stencil.level <= 1).sum())
        ends = stencil.next_state[:first]  # of paths of one jump
        if far:
            ends = np.where(ends[..., None] >= 0, stencil.next_state[ends], -1).reshape(first, -1)
        for c, kind in enumerate(environment.classes):
            own = np.flatnonzero(kinds == c)
            env = np.array([stencil.environment[m] for m in own], dtype=np.int64).reshape(len(own), kind.n_sites)
            slots = np.flatnonzero(mobile[kind.basis])
            out = np.full((len(own), 1), stencil.carrier_slot) if interstitial else env[:, slots]
            place = np.full(stencil.n_states, -1)
            place[own] = np.arange(len(own))
            end = np.where(ends >= 0, place[ends], -1)
            start, path = np.nonzero(end >= 0)
            states.append(torch.as_tensor(own))
            labels.append(torch.as_tensor(env))
            outs.append(torch.as_tensor(out))
            frames.append(torch.as_tensor(environment.frames[stencil.carrier_basis[own]], dtype=dtype))
            edges.append((torch.as_tensor(start), torch.as_tensor(path), torch.as_tensor(end[start, path])))
        n_inner = len(stencil.next_state)
        vectors = network.vectors[stencil.carrier_basis[:n_inner]]
        sign = 1.0 if interstitial else -1.0
        return cls(
            stencil,
            tuple(states),
            tuple(labels),
            tuple(outs),
            tuple(frames),
            tuple(edges),
            torch.as_tensor(sign * vectors, dtype=dtype),
            torch.as_tensor(np.maximum(stencil.mover, 0)),
            torch.as_tensor(np.maximum(stencil.next_state, 0)),
        )


@dataclass(frozen=True, eq=False)
class RelaxedJumps:
    """Relaxed displacements of the atoms around some carriers; m sites around each, J jumps.

    Attributes
    ----------
    sites : ndarray of int, shape (n, m)
        Sites whose atoms may move.
    codes : ndarray of int, shape (n, m)
        Their species codes before the jump; 0: nothing there.
    field : ndarray, shape (n, m, 3)
        y_i of these atoms, Å.
    moved : ndarray, shape (n, J, m, 3)
        δx_i + Δ_k y_i, Å.
    rates : ndarray, shape (n, J), or None
        Model rates of the jumps, s⁻¹, where the look-ahead needed them.
    """

    sites: NDArray[np.int64]
    codes: NDArray[np.int64]
    field: NDArray[np.float64]
    moved: NDArray[np.float64]
    rates: NDArray[np.float64] | None


def relaxed_displacements(ball: Ball, y: Tensor) -> Tensor:
    """Return δx_i + Δ_k y_i of the labelled atoms, Å, shape (n, J, n_window, 3).

    Parameters
    ----------
    ball
        Tables of the stencil.
    y : Tensor, shape (n, n_first, n_window, 3)
        Output of :meth:`Relaxation.ball_fields`.
    """
    children = ball.next_state[0]
    moved = y[:, children] - y[:, :1]
    jumps = torch.arange(len(children))
    shift = torch.zeros_like(moved[:1])
    shift[0, jumps, ball.mover[0]] = ball.jump_vectors[0].to(moved.dtype)
    return moved + shift
