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
    """Index tensors of one stencil, ready for torch. M states of level ≤ 1, J jumps.

    Fields of these M states are tensors of shape (3, M n_window, n): one row for each labelled atom, one column for
    each state asked for, so that rows are moved as a whole.
    """

    stencil: Stencil
    n_first: int  # M
    states: tuple[Tensor, ...]  # per class: states of that class that the network sees
    labels: tuple[Tensor, ...]  # per class: (M_c, n_env) labels of the environment
    out_labels: tuple[Tensor, ...]  # per class: (M_c, n_out) labels the vectors belong to
    frames: tuple[Tensor | None, ...]  # per class: (M_c, 3, 3); None: all are the identity
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
        device: torch.device | str = "cpu",
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
        dtype, device
            Of vectors, and where all tensors are.
        """
        depth = lookahead + 1
        seen = depth if lookahead < 2 or far else 2
        stencil = Stencil.build(environment, network, basis_site=basis_site, depth=depth, seen=seen)
        kinds = environment.class_of_basis[stencil.carrier_basis]
        mobile = network.supercell.alloy.mobile_basis
        interstitial = network.mechanism == "interstitial"
        first = int((stencil.level <= 1).sum())
        ends = stencil.next_state[:first]  # of paths of one jump
        if far:
            ends = np.where(ends[..., None] >= 0, stencil.next_state[ends], -1).reshape(first, -1)

        def place(x: NDArray) -> Tensor:
            return torch.as_tensor(x, device=device)

        def vectors(x: NDArray) -> Tensor:
            return torch.as_tensor(x, dtype=dtype, device=device)

        states, labels, outs, frames, edges = [], [], [], [], []
        for c, kind in enumerate(environment.classes):
            own = np.flatnonzero(kinds == c)
            env = np.array([stencil.environment[m] for m in own], dtype=np.int64).reshape(len(own), kind.n_sites)
            slots = np.flatnonzero(mobile[kind.basis])
            out = np.full((len(own), 1), stencil.carrier_slot) if interstitial else env[:, slots]
            number = np.full(stencil.n_states, -1)
            number[own] = np.arange(len(own))
            end = np.where(ends >= 0, number[ends], -1)
            start, path = np.nonzero(end >= 0)
            frame = environment.frames[stencil.carrier_basis[own]]
            states.append(place(own))
            labels.append(place(env))
            outs.append(place(out))
            frames.append(None if np.array_equal(frame, np.broadcast_to(np.eye(3), frame.shape)) else vectors(frame))
            edges.append((place(start), place(path), place(end[start, path])))
        n_inner = len(stencil.next_state)
        sign = 1.0 if interstitial else -1.0
        return cls(
            stencil,
            first,
            tuple(states),
            tuple(labels),
            tuple(outs),
            tuple(frames),
            tuple(edges),
            vectors(sign * network.vectors[stencil.carrier_basis[:n_inner]]),
            place(np.maximum(stencil.mover, 0)),
            place(np.maximum(stencil.next_state, 0)),
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
    """Return δx_i + Δ_k y_i of the labelled atoms, Å, shape (3, J, n_window, n).

    Parameters
    ----------
    ball
        Tables of the stencil.
    y : Tensor, shape (3, n_first, n_window, n)
        Output of :meth:`Relaxation.ball_fields`.
    """
    moved = y.index_select(1, ball.next_state[0]) - y[:, :1]
    n_jumps, width, n = moved.shape[1:]
    shift = ball.jump_vectors[0].to(moved.dtype).T[:, :, None].expand(-1, -1, n)
    rows = torch.arange(n_jumps, device=y.device) * width + ball.mover[0]
    return moved.view(3, -1, n).index_add_(1, rows, shift).view(3, n_jumps, width, n)
