"""The equivariant network: from the occupants around a carrier to one vector for every atom around it.

A linear filter over the one-hot environment is applied in every orientation of the point group ("lifting"); pointwise
layers act on all orientations alike, with their mean mixed in; a second filter projects back to vectors. Equivariance
holds by construction: turning the environment permutes the orientations, and the projection turns the vectors along.

The two filters fall into independent blocks (see :mod:`.twofold`), and the derivative is written out by hand, in chunks
that stay in the cache of a processor. Both change the cost only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ase_kinoson.crystal.environment import CarrierEnvironment, EnvironmentClass
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinosons.field_memory import RESERVE, Slots, room, scratch
from ase_kinoson.kinosons.twofold import SignedInputs, Twofold, chunk_of

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
        generator = torch.Generator().manual_seed(int(seed))
        interstitial = network.mechanism == "interstitial"
        mobile = network.supercell.alloy.mobile_basis
        self.parts = nn.ModuleList(
            _ClassField(
                kind,
                codes[1:],
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
        return self.columns(codes.T, kind).permute(2, 1, 0)

    def columns(self, codes: Tensor, kind: int) -> Tensor:
        """Return the same with one column for each environment, as they lie in memory.

        Parameters
        ----------
        codes : Tensor of int64, shape (n_env, n)
            Species codes around the carrier.
        kind
            Symmetry class of the carrier site.

        Returns
        -------
        Tensor, shape (3, n_out, n)
        """
        return self.parts[kind](codes)


class _ClassField(nn.Module):
    in_perm: Tensor
    out_perm: Tensor
    wanted: Tensor
    cosets: Tensor
    rows: Tensor
    out_sites: Tensor
    out_rows: Tensor
    signs: Tensor
    sites: Tensor
    share: Tensor

    def __init__(
        self,
        kind: EnvironmentClass,
        codes: list[int],
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
        n_env, n_ops, n_codes = kind.n_sites, kind.n_ops, len(codes)
        half = Twofold.of(kind)
        m = half.n_members
        if interstitial:
            out_permutations = np.zeros((n_ops, 1), dtype=np.int64)
            out_sites = np.zeros((m, 1), dtype=np.int64)
        else:
            position = np.full(n_env, -1)
            position[slots] = np.arange(len(slots))
            out_permutations = np.argsort(position[kind.permutations[:, slots]], axis=1)
            out_sites = position[half.sites[:, position[half.sites[0]] >= 0]]
        self.n_ops, self.n_out, self.hidden = n_ops, out_permutations.shape[1], hidden
        # where each vector first appears among those of members and orbits
        place = {int(s): i for i, s in reversed(list(enumerate(out_sites.ravel())))}
        first = np.array([place[s] for s in range(self.n_out)], dtype=np.int64)
        member, orbit = np.divmod(first, out_sites.shape[1])
        out_rows = (member * 3 + np.arange(3)[:, None]) * out_sites.shape[1] + orbit
        tables: dict[str, NDArray] = {
            "in_perm": kind.inverse_permutations.reshape(n_ops, n_env),
            "out_perm": out_permutations,
            "wanted": np.array(codes, dtype=np.int64),
            "cosets": half.cosets,
            "rows": half.input_rows(n_codes, n_env),
            "sites": half.sites,
            "out_sites": out_sites,
            "out_rows": out_rows.reshape(-1),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.as_tensor(table), persistent=False)
        # no buffers: a change of the floating-point type must not cost digits of the geometry
        self.rotations = torch.as_tensor(kind.rotations, dtype=torch.float64)
        self.signs = torch.as_tensor(half.signs, dtype=torch.float64)
        self.share = torch.as_tensor(1.0 / (m * half.fixed), dtype=torch.float64)
        scale = 1.0 / math.sqrt(max(n_env * n_codes, 1) / 4.0 + 1.0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.lift = nn.Parameter(normal(n_env, n_codes, hidden) * scale)
        self.bias = nn.Parameter(normal(hidden) * 0.5)
        self.mix = nn.ParameterList(nn.Parameter(normal(hidden, hidden) / math.sqrt(hidden)) for _ in range(n_blocks))
        self.mean = nn.ParameterList(nn.Parameter(normal(hidden, hidden) / math.sqrt(hidden)) for _ in range(n_blocks))
        self.shift = nn.ParameterList(nn.Parameter(torch.zeros(hidden)) for _ in range(n_blocks))
        self.project = nn.Parameter(torch.zeros(self.n_out, 3, hidden))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _ClassField:
        super()._apply(fn, recurse)
        for name in ("rotations", "signs", "share"):
            setattr(self, name, getattr(self, name).to(self.in_perm.device))
        return self

    def fold(self) -> tuple[Tensor, Tensor]:
        """Filters by characters: lifting (m, n_orbits n_codes + 1, r c) and projection (m, 3 n_orbits, r c)."""
        m, n_cosets = self.cosets.shape
        dtype, hidden = self.project.dtype, self.hidden
        n_codes = self.lift.shape[1]
        representatives = self.cosets[0]
        signs = self.signs.to(dtype)
        # orientation g reads filter slot e at site perm_g[e]: spread over sites this is lift[inverse_perm_g[site]]
        read, n_orbits = self.in_perm[representatives][:, self.sites], self.sites.shape[1]  # (r, a, o)
        lift = self.lift.index_select(0, read.reshape(-1)).view(n_cosets, m, n_orbits, n_codes * hidden)
        lift = (lift * self.share.to(dtype)[:, None]).movedim(1, 0).reshape(m, n_cosets * n_orbits * n_codes * hidden)
        lift = (signs @ lift).view(m, n_cosets, n_orbits, n_codes, hidden).permute(0, 3, 2, 1, 4)
        lift = lift.reshape(m, n_codes * n_orbits, n_cosets * hidden)
        # the bias is the filter of an input that is 1 for the character that is 1 everywhere and 0 for all others
        bias = self.bias.repeat(n_cosets).expand(m, 1, -1)
        lift = torch.cat([lift, bias], dim=1)
        write = self.out_perm[representatives][:, self.out_sites]
        project = self.project.index_select(0, write.reshape(-1)).view(n_cosets, m, -1, 3, hidden)
        rotations = self.rotations.to(dtype)[self.cosets] * self.scale
        project = torch.einsum("arij,raojc->aiorc", rotations, project).reshape(m, -1)
        return lift, (signs @ project).view(m, -1, n_cosets * hidden)

    def forward(self, codes: Tensor) -> Tensor:
        m, n_cosets = self.cosets.shape
        dtype = self.project.dtype
        signs = self.signs.to(dtype)
        # from characters back to members, and the vectors of each turned along
        turn = torch.einsum("aij,xa->aixj", self.rotations[self.cosets[:, 0]], self.signs) / m
        inputs = SignedInputs(self.wanted, self.rows, signs)
        tables = _Tables(inputs, self.out_rows, turn.reshape(3 * m, 3 * m).to(dtype), self.n_ops, n_cosets)
        layers = [x for layer in zip(self.mix, self.mean, self.shift, strict=True) for x in layer]
        lift, project = self.fold()
        if torch.is_grad_enabled():
            found = _Network.apply(tables, codes, lift, project, *layers)
        else:
            size = chunk_of(codes)
            memory = RESERVE.take(lift, room(size, codes, lift, project, keep=False, n_blocks=len(self.mix)))
            found = _evaluate(tables, codes, lift, project, layers, memory, size=size, keep=False)
            RESERVE.give(memory)
        return found.view(3, self.n_out, -1)


@dataclass(frozen=True, eq=False)
class _Tables:
    """What the network needs besides its weights."""

    inputs: SignedInputs
    out_rows: Tensor  # (3 n_out) rows of the vectors among those of members and orbits
    turn: Tensor  # (3 m, 3 m) from characters to members, and the vectors of each turned along
    n_ops: int
    n_cosets: int

    @property
    def signs(self) -> Tensor:
        return self.inputs.signs


class _Network(torch.autograd.Function):
    """The network with its derivative. Activations are laid out as (member, environment, coset, channel)."""

    @staticmethod
    def forward(ctx: Any, tables: _Tables, codes: Tensor, lift: Tensor, project: Tensor, *layers: Tensor) -> Tensor:
        ctx.tables = tables
        ctx.save_for_backward(codes, lift, project, *layers)
        # chunks of the derivative must be those of the value, even if it is asked for with other numbers of threads
        ctx.size = chunk_of(codes)
        ctx.memory = RESERVE.take(lift, room(ctx.size, codes, lift, project, keep=True, n_blocks=len(layers) // 3))
        return _evaluate(tables, codes, lift, project, layers, ctx.memory, size=ctx.size, keep=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        tables, size = ctx.tables, ctx.size
        codes, lift, project, *layers = ctx.saved_tensors
        memory, ctx.memory = ctx.memory, None
        if memory is None:  # a second time through the same graph
            memory = RESERVE.take(lift, room(size, codes, lift, project, keep=True, n_blocks=len(layers) // 3))
            _evaluate(tables, codes, lift, project, layers, memory, size=size, keep=True)
        n_cosets, signs, n_blocks = tables.n_cosets, tables.signs, len(layers) // 3
        m, _, width = lift.shape
        hidden, turns = width // n_cosets, len(tables.turn)
        means = [x.repeat(1, n_cosets) / tables.n_ops for x in layers[1::3]]
        grads = [torch.zeros_like(x) for x in (lift, project, *layers)]
        g_lift, g_project, *g_layers = grads
        *work, wide_rows, turned_rows = scratch(size, lift, project, memory)
        behind = memory[2 * len(wide_rows) + 2 * len(work[0]) :]
        wide_rows.zero_()
        for start in range(0, codes.shape[1], size):
            slots = Slots.of(behind, lift, n_blocks, start, min(size, codes.shape[1] - start))
            n = slots.n
            g_h, g_u = (x[: m * n * width].view(m, -1) for x in work)
            wide, turned = (x[: m * project.shape[1] * n] for x in (wide_rows, turned_rows))
            if n < size:
                wide.zero_()
            wide.view(-1, n).index_copy_(0, tables.out_rows, gradient[:, start : start + n])
            torch.mm(tables.turn.T, wide.view(turns, -1), out=turned.view(turns, -1))
            turned = turned.view(m, -1, n)
            g_project.baddbmm_(turned, slots.last)
            torch.bmm(turned.transpose(1, 2), project, out=g_u.view(m, n, width))
            torch.mm(signs, g_u, out=g_h)
            for i in reversed(range(n_blocks)):
                torch.ops.aten.silu_backward.grad_input(g_h, slots.before[i + 1], grad_input=g_u)
                flat = g_u.view(-1, hidden)
                g_layers[3 * i].addmm_(slots.after[i].view(-1, hidden).T, flat)
                g_common = g_u.sum(0).view(n, width)
                every = slots.common[i].view(n, n_cosets, hidden).sum(1)
                g_layers[3 * i + 1] += (every.T @ g_common).view(hidden, n_cosets, hidden).sum(1)
                g_layers[3 * i + 2] += g_common.sum(0).view(n_cosets, hidden).sum(0)
                g_h.view(-1, hidden).addmm_(flat, layers[3 * i].T)
                g_h += (g_common @ means[i].T).repeat(1, n_cosets).view(-1)
            torch.ops.aten.silu_backward.grad_input(g_h, slots.before[0], grad_input=g_u)
            torch.mm(signs, g_u, out=g_h)
            g_lift.baddbmm_(slots.inputs, g_h.view(m, n, width))
        for i in range(n_blocks):
            g_layers[3 * i + 1] /= tables.n_ops
        RESERVE.give(memory)
        return None, None, *grads


def _evaluate(
    tables: _Tables,
    codes: Tensor,
    lift: Tensor,
    project: Tensor,
    layers: Sequence[Tensor],
    memory: Tensor,
    *,
    size: int,
    keep: bool,
) -> Tensor:
    """Vectors, one column for each environment, in chunks of ``size``.

    With ``keep`` what the derivative needs is left in ``memory``.
    """
    n_cosets, signs, n_blocks = tables.n_cosets, tables.signs, len(layers) // 3
    m, _, width = lift.shape
    hidden, turns = width // n_cosets, len(tables.turn)
    found = lift.new_empty((len(tables.out_rows), codes.shape[1]))
    # one filter row for every column of (coset, channel): what is common to all orientations enters once
    means = [x.repeat(1, n_cosets) / tables.n_ops for x in layers[1::3]]
    shifts = [x.repeat(n_cosets) for x in layers[2::3]]
    work, _, *rows = scratch(size, lift, project, memory)
    behind = memory[sum(len(x) for x in rows) + 2 * len(work) :]
    for start in range(0, codes.shape[1], size):
        slots = Slots.of(behind, lift, n_blocks, start if keep else 0, min(size, codes.shape[1] - start))
        n = slots.n
        tables.inputs.write(codes[:, start : start + n], slots.inputs, work)
        wave = work[: m * n * width].view(m, -1)
        torch.bmm(slots.inputs.transpose(1, 2), lift, out=wave.view(m, n, width))
        torch.mm(signs, wave, out=slots.before[0])
        for i in range(n_blocks):
            u, h, common = slots.before[i], slots.after[i], slots.common[i]
            torch.ops.aten.silu.out(u, out=h)
            if i:
                h += slots.after[i - 1]
            torch.sum(h, 0, out=common.view(-1))
            torch.mm(h.view(-1, hidden), layers[3 * i], out=slots.before[i + 1].view(-1, hidden))
            every = common.view(n, n_cosets, hidden).sum(1)
            slots.before[i + 1].add_(torch.addmm(shifts[i], every, means[i]).view(-1))
        torch.ops.aten.silu.out(slots.before[-1], out=wave)
        if n_blocks:
            wave += slots.after[-1]
        torch.mm(signs, wave, out=slots.last.view(m, -1))
        v, turned = (x[: m * project.shape[1] * n] for x in rows)
        torch.bmm(project, slots.last.transpose(1, 2), out=v.view(m, -1, n))
        torch.mm(tables.turn, v.view(turns, -1), out=turned.view(turns, -1))
        found[:, start : start + n] = turned.view(-1, n).index_select(0, tables.out_rows)
    return found


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
