"""A field that is linear in its parameters: symmetrised counts of pairs and triplets around the carrier.

The vector of the atom on site s is a sum over clusters, with one set of coefficients for all that symmetry makes alike,

    v_s(χ) = Σ_c θ_c(σ_s) b_c(s) + Σ_e Σ_c θ_c(σ_s, σ_e) b_c(s, e),

the first over pairs (carrier, s), the second over triplets (carrier, s, e). The vectors b_c of a cluster are those that
the operations which leave it in place leave alone; operations that carry it onto another cluster turn them along, which
makes the field equivariant whatever θ is. An interstitial is itself the atom that has a vector: its clusters are the
point group alone and the pairs (carrier, e). Since [σ_e = reference] = 1 − Σ [σ_e = others], the reference species of
site e needs no coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinosons.cluster_orbits import UNIT, ClusterSites, Orbit, list_clusters
from ase_kinoson.kinosons.twofold import SignedInputs, Twofold, chunk_of

__all__ = ["ClusterField"]


class ClusterField(nn.Module):
    """Vectors v_i(χ) for the atoms around the carrier, linear in coefficients of pairs and triplets.

    Coefficients are in units of the shortest jump. They start at zero: v = 0.

    Parameters
    ----------
    environment
        Sites that the field looks at.
    network
        Jumps; the vectors belong to atoms on mobile sites (or to the interstitial itself).
    pair_cutoff
        Sites farther from the carrier than this, Å, get no vector and, for an interstitial, are not seen; default: all
        sites of the environment.
    reach
        The third site of a triplet lies within this distance of the second or of the carrier, in units of the
        shortest jump; 0: pairs only.
    """

    options: Tensor

    def __init__(
        self,
        environment: CarrierEnvironment,
        network: JumpNetwork,
        *,
        pair_cutoff: float | None = None,
        reach: float = 1.1,
    ) -> None:
        super().__init__()
        alloy, length = network.supercell.alloy, float(network.lengths.min())
        self.n_codes = len(network.supercell.species)
        code = {s: i for i, s in enumerate(network.supercell.species)}
        interstitial = network.mechanism == "interstitial"
        moving = sorted({code[s] for sub in alloy.sublattices if sub.mobile for s in sub.species}, reverse=True)
        allowed = []
        for i in alloy.site_sublattice:
            sub = alloy.sublattices[i]
            fixed = [code[s] for s in sub.species] + ([0] if sub.vacant_fraction > 0 else [])
            allowed.append(tuple(moving if sub.mobile else sorted(fixed, reverse=True)))
        # the same atoms may stand on every mobile site; empty ones are images of the carrier and no atoms
        self._sites = tuple(
            ClusterSites(
                kind,
                None if interstitial else np.flatnonzero(alloy.mobile_basis[kind.basis]),
                tuple(moving),
                tuple(allowed[b] for b in kind.basis),
                len(network.supercell.species),
                np.asarray(network.projector),
                length,
            )
            for kind in environment.classes
        )
        distance = environment.cutoff if pair_cutoff is None else float(pair_cutoff)
        cutoffs = [round(min(distance, environment.cutoff) / UNIT), round(reach * length / UNIT)]
        self.register_buffer("options", torch.tensor(cutoffs))
        self._build()

    def _build(self, dtype: torch.dtype = torch.float32) -> None:
        parts = (_ClassClusters(x, self.pair_cutoff, self.reach) for x in self._sites)
        self.parts = nn.ModuleList(parts).to(self.options.device, dtype)

    @property
    def pair_cutoff(self) -> float:
        """Å."""
        return float(self.options[0]) * UNIT

    @property
    def reach(self) -> float:
        """Å."""
        return float(self.options[1]) * UNIT

    @property
    def n_parameters(self) -> int:
        """Number of coefficients."""
        return sum(p.numel() for p in self.parameters())

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
        """Return the same with one column for each environment.

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

    @torch.no_grad()
    def occurrence(self, codes: Tensor, kind: int) -> list[Tensor]:
        """Mean over environments of the squared vectors that each coefficient of a class brings with it.

        Clusters of one coefficient count as independent of each other. Å², like ``parts[kind].parameters()``.
        """
        return cast(_ClassClusters, self.parts[kind]).occurrence(codes)

    def own_species(self, kind: int) -> list[Tensor]:
        """Number of the species that each coefficient of a class is for, like ``parts[kind].parameters()``."""
        return cast(_ClassClusters, self.parts[kind]).own_species

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # a file knows the cutoffs it was made with; whoever reads it need not
        options = state_dict.get(f"{prefix}options")
        if options is not None and not torch.equal(options.to(self.options.device), self.options):
            self.options.copy_(options)
            self._build(next((p.dtype for p in self.parameters()), torch.float32))
        super()._load_from_state_dict(state_dict, prefix, *args)


class _ClassClusters(nn.Module):
    """A linear map from the one-hot environment to all vectors, folded from the coefficients of clusters.

    It falls into blocks, one for each character of a subgroup; see :mod:`.twofold`.
    """

    wanted: Tensor
    own: Tensor
    out_sites: Tensor
    out_slots: Tensor
    out_rows: Tensor
    sites: Tensor
    rows: Tensor
    target: Tensor
    source: Tensor
    first_target: Tensor
    first: Tensor

    def __init__(self, sites: ClusterSites, pair_cutoff: float, reach: float) -> None:
        super().__init__()
        kind, slots = sites.kind, sites.slots
        others = sorted({c for codes in sites.allowed for c in codes[1:]}, reverse=True)
        column_of = {code: column for column, code in enumerate(others)}
        n_env, n_own = kind.n_sites, 1 if slots is None else len(sites.moving)
        place = np.zeros(n_env, dtype=np.int64)
        if slots is not None:
            place[slots] = np.arange(len(slots))
        self.interstitial = slots is None
        self.n_out = 1 if slots is None else len(slots)
        self.n_in = n_env * len(others)
        width = self.n_out * n_own * 3

        pairs, triplets = list_clusters(sites, pair_cutoff, reach)
        rows: list[tuple[int, int, float]] = []  # where in the dense map, which coefficient, how much
        species: list[int] = []

        def fill(orbits: Sequence[Orbit], n: int) -> int:
            """Give numbers to the coefficients of orbits and list where they stand."""
            for orbit in orbits:
                e = orbit.clusters[0, 1]
                inputs = [None] if e < 0 else [column_of[c] for c in sites.allowed[e][1:]]
                for direction in range(orbit.vectors.shape[2]):
                    for a in range(n_own):
                        for column in inputs:
                            for (s, e), v in zip(orbit.clusters, orbit.vectors[:, :, direction], strict=True):
                                line = self.n_in if column is None else e * len(others) + column
                                begin = line * width + ((0 if s < 0 else place[s]) * n_own + a) * 3
                                rows.extend((int(begin + x), n, float(v[x])) for x in np.flatnonzero(np.abs(v) > 1e-12))
                            species.append(a)
                            n += 1
            return n

        n_pairs = fill(pairs, 0)
        n_all = fill(triplets, n_pairs)
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        self.pairs = nn.Parameter(torch.zeros(n_pairs))
        self.triplets = nn.Parameter(torch.zeros(n_all - n_pairs))
        self.width = width
        half = Twofold.of(kind, both=True)
        m = half.n_members
        at = np.zeros((m, 1), dtype=np.int64) if slots is None else half.sites[:, np.isin(half.sites[0], slots)]
        # vectors at the first site of each orbit say all others
        first = {int(place[x]) * n_own: i * n_own for i, x in reversed(list(enumerate(at[0])))}
        column, vector = np.divmod(table[:, 0].astype(np.int64) % width, 3)
        near = np.isin(column - column % n_own, list(first))
        moved = np.array([first[c - c % n_own] + c % n_own for c in column[near]], dtype=np.int64)
        n_first = at.shape[1] * n_own
        self.n_own, self.first_width = n_own, 3 * n_first
        lines = table[near, 0].astype(np.int64) // width
        seen = {int(x): i for i, x in reversed(list(enumerate(at.ravel())))}
        every = [0] if slots is None else slots.tolist()
        member, orbit = np.divmod(np.array([seen[x] for x in every], dtype=np.int64), at.shape[1])
        self.own_species = list(torch.tensor(species, dtype=torch.int64).split([n_pairs, n_all - n_pairs]))
        moving = np.full(sites.n_codes, -1)
        moving[list(sites.moving)] = np.arange(len(sites.moving))
        arrays = {
            "wanted": np.array(others, dtype=np.int64),
            "own": np.zeros(0, dtype=np.int64) if slots is None else moving,
            "out_sites": np.zeros(0, dtype=np.int64) if slots is None else slots,
            "out_slots": at,
            "out_rows": ((member * 3 + np.arange(3)[:, None]) * at.shape[1] + orbit).reshape(-1),
            "sites": half.sites,
            "rows": half.input_rows(len(others), n_env),
            "target": table[:, 0].astype(np.int64),
            "source": table[:, 1].astype(np.int64),
            "first_target": lines * self.first_width + vector[near] * n_first + moved,
            "first": np.flatnonzero(near),
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.as_tensor(array), persistent=False)
        # no buffers: a change of the floating-point type must not cost digits of the geometry
        self.value = torch.as_tensor(table[:, 2] * sites.length)
        self.rotations = torch.as_tensor(kind.rotations[half.members])
        self.signs = torch.as_tensor(half.signs)
        self.share = torch.as_tensor(1.0 / (m * half.fixed))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _ClassClusters:
        super()._apply(fn, recurse)
        for name in ("value", "rotations", "signs", "share"):
            setattr(self, name, getattr(self, name).to(self.source.device))
        self.own_species = [x.to(self.source.device) for x in self.own_species]
        return self

    def fold(self) -> Tensor:
        """Return the map by characters, shape (m, n_orbits n_codes + 1, 3 n_out_orbits n_own)."""
        theta = torch.cat([self.pairs, self.triplets])
        m, n_codes = len(self.signs), len(self.wanted)
        dtype, n_in = theta.dtype, self.n_in + 1
        weights = theta.new_zeros(n_in * self.first_width)
        weights = weights.index_add(
            0, self.first_target, self.value[self.first].to(dtype) * theta[self.source[self.first]]
        )
        weights = weights.view(n_in, self.first_width)
        read = self.sites[:, None] * n_codes + torch.arange(n_codes, device=theta.device)[:, None]  # (b, code, orbit)
        n_orbits = self.sites.shape[1]
        lift = weights.index_select(0, read.reshape(-1)).view(m, n_codes, n_orbits, self.first_width)
        lift = (lift * self.share.to(dtype)[:, None]).view(m, n_codes * n_orbits * self.first_width)
        lift = (self.signs.to(dtype) @ lift).view(m, n_codes * n_orbits, self.first_width)
        return torch.cat([lift, weights[-1].expand(m, 1, -1)], dim=1)

    def forward(self, codes: Tensor) -> Tensor:
        dtype = self.pairs.dtype
        inputs = SignedInputs(self.wanted, self.rows, self.signs.to(dtype))
        tables = _Tables(inputs, self.out_rows, self.out_slots, self.own, self.rotations.to(dtype), self.n_own)
        return _Map.apply(tables, codes, self.fold()).view(3, self.n_out, -1)

    def occurrence(self, codes: Tensor) -> list[Tensor]:
        around = (codes[..., None] == self.wanted).double().flatten(1)
        around = torch.cat([around, around.new_ones((len(codes), 1))], dim=1)
        if self.interstitial:
            own = around.new_ones((len(codes), 1))
        else:
            kept = self.own[codes[:, self.out_sites]]
            own = (kept[..., None] == torch.arange(self.n_own, device=codes.device)).double().flatten(1)
        share = (around.T @ own / len(codes)).flatten()
        total = share.new_zeros(len(self.pairs) + len(self.triplets))
        total = total.index_add(0, self.source, self.value.square() * share[self.target // 3])
        return list(total.split([len(self.pairs), len(self.triplets)]))


@dataclass(frozen=True, eq=False)
class _Tables:
    """What the map needs besides its weights."""

    inputs: SignedInputs
    out_rows: Tensor  # (3 n_out) rows of the vectors among those of members and orbits
    out_slots: Tensor  # (m, n_out_orbits) sites of these
    own: Tensor  # number of each species code among those with a vector, -1 for others; empty: there is one vector
    rotations: Tensor  # (m, 3, 3)
    n_own: int

    def chosen(self, codes: Tensor) -> tuple[Tensor, Tensor] | None:
        """Number of the species on each site, and 1 where it has a vector; (m, 1, n_out_orbits, 1, n)."""
        if not len(self.own):
            return None
        kept = self.own[codes.index_select(0, self.out_slots.reshape(-1))]
        kept = kept.view(len(self.out_slots), 1, -1, 1, codes.shape[1])
        return kept.clamp_min(0), kept >= 0


class _Map(torch.autograd.Function):
    """The map with its derivative; nothing is kept for it, since all that it needs is soon found again."""

    @staticmethod
    def forward(ctx: Any, tables: _Tables, codes: Tensor, lift: Tensor) -> Tensor:
        ctx.tables, ctx.shape = tables, lift.shape
        ctx.save_for_backward(codes)
        signs, (m, n_in, width) = tables.inputs.signs, lift.shape
        size = chunk_of(codes)
        found = lift.new_empty((len(tables.out_rows), codes.shape[1]))
        waves = lift.new_empty(2, m * max(width, n_in) * size)
        given = lift.new_empty(m * n_in * size)
        for start in range(0, codes.shape[1], size):
            part = codes[:, start : start + size]
            n = part.shape[1]
            inputs = given[: m * n_in * n].view(m, n_in, n)
            first, second = (x[: m * width * n].view(m, -1) for x in waves)
            tables.inputs.write(part, inputs, waves[0])
            torch.bmm(lift.transpose(1, 2), inputs, out=first.view(m, width, n))
            torch.mm(signs, first, out=second)
            v = second.view(m, 3, -1, tables.n_own, n)
            chosen = tables.chosen(part)
            if chosen is not None:
                which, there = chosen
                v = v.gather(3, which.expand(-1, 3, -1, -1, -1)) * there
            v = torch.bmm(tables.rotations, v.reshape(m, 3, -1)).view(-1, n)
            found[:, start : start + n] = v.index_select(0, tables.out_rows)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        tables, (m, n_in, width) = ctx.tables, ctx.shape
        (codes,) = ctx.saved_tensors
        signs, size = tables.inputs.signs, chunk_of(codes)
        total = gradient.new_zeros(ctx.shape)
        waves = gradient.new_empty(2, m * max(width, n_in) * size)
        given = gradient.new_empty(m * n_in * size)
        for start in range(0, codes.shape[1], size):
            part = codes[:, start : start + size]
            n = part.shape[1]
            inputs = given[: m * n_in * n].view(m, n_in, n)
            first, second = (x[: m * width * n].view(m, -1) for x in waves)
            tables.inputs.write(part, inputs, waves[0])
            g = gradient.new_zeros((m * width // tables.n_own, n))
            g.index_copy_(0, tables.out_rows, gradient[:, start : start + n])
            g = torch.bmm(tables.rotations.transpose(1, 2), g.view(m, 3, -1)).view(m, 3, -1, 1, n)
            chosen = tables.chosen(part)
            if chosen is not None:
                which, there = chosen
                first.zero_()
                first.view(m, 3, -1, tables.n_own, n).scatter_(3, which.expand(-1, 3, -1, -1, -1), g * there)
            else:
                first = g.reshape(m, -1)
            torch.mm(signs, first, out=second)
            total.baddbmm_(inputs, second.view(m, width, n).transpose(1, 2))
        return None, None, total
