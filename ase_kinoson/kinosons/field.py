"""The equivariant network: from the occupants around a carrier to one vector for every atom around it.

A linear filter over the one-hot environment is applied in every orientation of the point group ("lifting"); pointwise
layers act on all orientations alike, with their mean mixed in; a second filter projects back to vectors. Equivariance
holds by construction: turning the environment permutes the orientations, and the projection turns the vectors along.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ase_kinoson.crystal.environment import CarrierEnvironment, EnvironmentClass
from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["EquivariantField"]


class EquivariantField(nn.Module):
    """Vectors v_i(χ) for the atoms around the carrier, one set of weights per symmetry class of carrier sites.

    Parameters
    ----------
    environment
        Sites that the network looks at.
    network
        Jumps; the vectors belong to atoms on mobile sites (or to the interstitial itself).
    hidden
        Channels per orientation.
    n_blocks
        Number of pointwise layers.
    seed
        Seed of the initial weights. The projection starts at zero: v = 0.
    """

    one_hot: Tensor

    def __init__(
        self,
        environment: CarrierEnvironment,
        network: JumpNetwork,
        *,
        hidden: int = 24,
        n_blocks: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.hidden, self.n_blocks = hidden, n_blocks
        codes = _varying_codes(environment, network)
        table = torch.zeros(len(network.supercell.species), max(len(codes) - 1, 0))
        for column, code in enumerate(codes[1:]):
            table[code, column] = 1.0
        self.register_buffer("one_hot", table, persistent=False)
        generator = torch.Generator().manual_seed(int(seed))
        interstitial = network.mechanism == "interstitial"
        mobile = network.supercell.alloy.mobile_basis
        self.parts = nn.ModuleList(
            _ClassField(
                kind,
                table.shape[1],
                hidden,
                n_blocks,
                np.flatnonzero(mobile[kind.basis]),
                interstitial,
                generator,
                float(network.lengths.min()),
            )
            for kind in environment.classes
        )

    def forward(self, codes: Tensor, kind: int) -> Tensor:
        """Return vectors in the frame of the class, Å.

        Parameters
        ----------
        codes : Tensor of int64, shape (n, n_env)
            Species codes around the carrier.
        kind
            Symmetry class of the carrier site.

        Returns
        -------
        Tensor, shape (n, n_out, 3)
        """
        one_hot = nn.functional.embedding(codes, self.one_hot).flatten(1)
        return self.parts[kind](one_hot)


class _Folded:
    """Weights of one class spread over all orientations."""

    def __init__(self, lift: Tensor, project: Tensor) -> None:
        self.lift, self.project = lift, project


class _ClassField(nn.Module):
    in_perm: Tensor
    out_perm: Tensor
    rotations: Tensor

    def __init__(
        self,
        kind: EnvironmentClass,
        n_codes: int,
        hidden: int,
        n_blocks: int,
        slots: np.ndarray,
        interstitial: bool,
        generator: torch.Generator,
        length: float,
    ) -> None:
        super().__init__()
        # vectors in units of the jump, whatever the lattice and its group; the small factor slows the projection
        # against the filters (see docs/decisions.md)
        self.scale = 0.01 * length / math.sqrt(kind.n_ops)
        n_env, n_ops = kind.n_sites, kind.n_ops
        if interstitial:
            out_permutations = np.zeros((n_ops, 1), dtype=np.int64)
        else:
            position = np.full(n_env, -1)
            position[slots] = np.arange(len(slots))
            out_permutations = np.argsort(position[kind.permutations[:, slots]], axis=1)
        self.n_ops, self.n_out, self.hidden = n_ops, out_permutations.shape[1], hidden
        self.register_buffer(
            "in_perm", torch.as_tensor(kind.inverse_permutations.reshape(n_ops, n_env)), persistent=False
        )
        self.register_buffer("out_perm", torch.as_tensor(out_permutations), persistent=False)
        self.register_buffer("rotations", torch.as_tensor(kind.rotations, dtype=torch.float64), persistent=False)
        scale = 1.0 / math.sqrt(max(n_env * n_codes, 1) / 4.0 + 1.0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.lift = nn.Parameter(normal(n_env, n_codes, hidden) * scale)
        self.bias = nn.Parameter(normal(hidden) * 0.5)
        self.mix = nn.ParameterList(nn.Parameter(normal(hidden, hidden) / math.sqrt(hidden)) for _ in range(n_blocks))
        self.mean = nn.ParameterList(nn.Parameter(normal(hidden, hidden) / math.sqrt(hidden)) for _ in range(n_blocks))
        self.shift = nn.ParameterList(nn.Parameter(torch.zeros(hidden)) for _ in range(n_blocks))
        self.project = nn.Parameter(torch.zeros(self.n_out, 3, hidden))

    def fold(self) -> _Folded:
        # orientation g reads filter slot e at site perm_g[e]: spread over sites this is lift[inverse_perm_g[site]]
        lift = self.lift[self.in_perm]  # (g, env, code, c)
        lift = lift.permute(1, 2, 0, 3).reshape(-1, self.n_ops * self.hidden)
        rotations = self.rotations.to(self.project.dtype)
        project = torch.einsum("gij,gsjc->gcsi", rotations, self.project[self.out_perm]) * self.scale
        return _Folded(lift, project.reshape(self.n_ops * self.hidden, self.n_out * 3))

    def forward(self, one_hot: Tensor) -> Tensor:
        weights = self.fold()
        n = len(one_hot)
        h = (one_hot @ weights.lift).view(n, self.n_ops, self.hidden) + self.bias
        h = nn.functional.silu(h)
        for mix, mean, shift in zip(self.mix, self.mean, self.shift, strict=True):
            update = h @ mix + (h.mean(dim=1, keepdim=True) @ mean + shift)
            h = h + nn.functional.silu(update)
        return (h.reshape(n, -1) @ weights.project).view(n, self.n_out, 3)


def _varying_codes(environment: CarrierEnvironment, network: JumpNetwork) -> list[int]:
    """Species codes that can appear around a carrier; the first is the reference and needs no input channel."""
    cell = network.supercell
    found: set[int] = set()
    for sub in cell.alloy.sublattices:
        if sub.interstitial or not (sub.mobile or sub.is_disordered):
            continue
        found |= {cell.species.index(s) for s in sub.species}
        if sub.vacant_fraction > 0 and not sub.mobile:
            found.add(0)
    if environment.is_wrapped:
        found.add(0)
    return sorted(found, reverse=True)
