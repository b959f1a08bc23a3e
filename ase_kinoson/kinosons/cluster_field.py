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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_kinoson.crystal.environment import CarrierEnvironment, EnvironmentClass
from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["ClusterField"]

UNIT = 1e-6
"""Cutoffs are stored as whole multiples of this, Å."""


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
            _Sites(
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
        self.parts = nn.ModuleList(parts).to(dtype)

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
        if options is not None and not torch.equal(options, self.options):
            self.options.copy_(options)
            self._build(next((p.dtype for p in self.parameters()), torch.float32))
        super()._load_from_state_dict(state_dict, prefix, *args)


@dataclass(frozen=True, eq=False)
class _Sites:
    """What the clusters of one class are made of."""

    kind: EnvironmentClass
    slots: NDArray[np.int64] | None  # environment sites that get a vector; None: the carrier itself
    moving: tuple[int, ...]  # species codes of atoms with a vector
    allowed: tuple[tuple[int, ...], ...]  # species codes that environment sites may hold; the first is the reference
    n_codes: int
    projector: NDArray[np.float64]
    length: float


class _ClassClusters(nn.Module):
    """One dense linear map from the one-hot environment to all vectors, folded from the coefficients of clusters."""

    one_hot: Tensor
    own: Tensor
    out_slots: Tensor
    target: Tensor
    source: Tensor

    def __init__(self, sites: _Sites, pair_cutoff: float, reach: float) -> None:
        super().__init__()
        kind, slots = sites.kind, sites.slots
        others = sorted({c for codes in sites.allowed for c in codes[1:]}, reverse=True)
        one_hot = torch.zeros(sites.n_codes, len(others))
        own = torch.zeros(sites.n_codes, len(sites.moving))
        for flags, codes in ((one_hot, others), (own, sites.moving)):
            for column, code in enumerate(codes):
                flags[code, column] = 1.0
        column_of = {code: column for column, code in enumerate(others)}
        n_env, n_own = kind.n_sites, 1 if slots is None else len(sites.moving)
        place = np.zeros(n_env, dtype=np.int64)
        if slots is not None:
            place[slots] = np.arange(len(slots))
        self.interstitial = slots is None
        self.n_out = 1 if slots is None else len(slots)
        self.n_in = n_env * len(others)
        width = self.n_out * n_own * 3

        pairs, triplets = _list_clusters(sites, pair_cutoff, reach)
        rows: list[tuple[int, int, float]] = []  # where in the dense map, which coefficient, how much
        species: list[int] = []

        def fill(orbits: Sequence[_Orbit], n: int) -> int:
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
        self.own_species = list(torch.tensor(species, dtype=torch.int64).split([n_pairs, n_all - n_pairs]))
        arrays = {
            "one_hot": one_hot,
            "own": own,
            "out_slots": torch.zeros(0, dtype=torch.int64) if slots is None else torch.as_tensor(slots),
            "target": torch.as_tensor(table[:, 0].astype(np.int64)),
            "source": torch.as_tensor(table[:, 1].astype(np.int64)),
        }
        # no buffer: a change of the floating-point type must not cost digits of the geometry
        self.value = torch.as_tensor(table[:, 2] * sites.length)
        for name, array in arrays.items():
            self.register_buffer(name, array, persistent=False)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Return the dense map, shape (n_in, width), and its constant, shape (width,)."""
        theta = torch.cat([self.pairs, self.triplets])
        weights = theta.new_zeros((self.n_in + 1) * self.width)
        weights = weights.index_add(0, self.target, self.value.to(theta.dtype) * theta[self.source])
        weights = weights.view(self.n_in + 1, self.width)
        return weights[:-1], weights[-1]

    def forward(self, codes: Tensor) -> Tensor:
        weights, constant = self.fold()
        n = len(codes)
        around = nn.functional.embedding(codes, self.one_hot).flatten(1)
        vectors = torch.addmm(constant, around, weights)
        if self.interstitial:
            return vectors.view(n, 1, 3)
        own = nn.functional.embedding(codes[:, self.out_slots], self.own)
        if own.shape[2] == 1:
            return vectors.view(n, self.n_out, 3) * own
        chosen = vectors.view(n, *own.shape[1:], 3).gather(2, own.argmax(2)[..., None, None].expand(-1, -1, 1, 3))
        return chosen[:, :, 0] * own.sum(2, keepdim=True)

    def occurrence(self, codes: Tensor) -> list[Tensor]:
        around = nn.functional.embedding(codes, self.one_hot.double()).flatten(1)
        around = torch.cat([around, around.new_ones((len(codes), 1))], dim=1)
        if self.interstitial:
            own = around.new_ones((len(codes), 1))
        else:
            own = nn.functional.embedding(codes[:, self.out_slots], self.own.double()).flatten(1)
        share = (around.T @ own / len(codes)).flatten()
        total = share.new_zeros(len(self.pairs) + len(self.triplets))
        total = total.index_add(0, self.source, self.value.square() * share[self.target // 3])
        return list(total.split([len(self.pairs), len(self.triplets)]))


@dataclass(frozen=True, eq=False)
class _Orbit:
    """Clusters that symmetry makes alike.

    Attributes
    ----------
    clusters : ndarray of int, shape (n_clusters, 2)
        Environment sites s and e; −1: the carrier, or none.
    vectors : ndarray, shape (n_clusters, 3, n_directions)
        Orthonormal vectors that go with each cluster.
    """

    clusters: NDArray[np.int64]
    vectors: NDArray[np.float64]


def _list_clusters(sites: _Sites, pair_cutoff: float, reach: float) -> tuple[list[_Orbit], list[_Orbit]]:
    """Orbits of clusters of one site and of two sites; for an interstitial: of none and of one."""
    position = sites.kind.vectors
    distance = np.linalg.norm(position, axis=1)
    near = np.flatnonzero(distance <= pair_cutoff + UNIT)
    if sites.slots is None:
        return _orbits(sites, np.array([[-1, -1]])), _orbits(sites, np.stack([np.full(len(near), -1), near], axis=1))
    slots = np.intersect1d(sites.slots, near)
    # images of the carrier among the sites of a small cell are never atoms, but which they are the cell decides
    between = np.linalg.norm(position[slots, None] - position[None], axis=-1)
    close = np.minimum(between, distance[None]) <= reach + UNIT
    close[np.arange(len(slots)), slots] = False
    close &= np.array([len(codes) > 1 for codes in sites.allowed], dtype=bool)[None]
    s, e = np.nonzero(close)
    return (
        _orbits(sites, np.stack([slots, np.full(len(slots), -1)], axis=1)),
        _orbits(sites, np.stack([slots[s], e], axis=1)),
    )


def _orbits(sites: _Sites, clusters: NDArray[np.int64]) -> list[_Orbit]:
    kind = sites.kind
    n_env = kind.n_sites
    # one more column, so that index −1 stays where it is
    permutations = np.concatenate([kind.permutations, np.full((kind.n_ops, 1), -1)], axis=1)
    images = permutations[:, clusters]  # (op, cluster, 2)
    keys = (images[..., 0] + 1) * (n_env + 1) + images[..., 1] + 1
    own = (clusters[:, 0] + 1) * (n_env + 1) + clusters[:, 1] + 1
    first = keys.min(axis=0)
    found = []
    for key in np.unique(first):
        members = np.flatnonzero(first == key)
        rep = members[own[members] == key][0]
        stay = keys[:, rep] == key
        basis = _invariant_vectors(
            kind.rotations[stay], sites.projector, kind.vectors[clusters[rep][clusters[rep] >= 0]]
        )
        if basis.shape[1] == 0:
            continue
        carry = [int(np.flatnonzero(keys[:, rep] == own[m])[0]) for m in members]
        found.append(_Orbit(clusters[members], kind.rotations[carry] @ basis))
    return found


def _invariant_vectors(rotations: NDArray, projector: NDArray, along: NDArray) -> NDArray[np.float64]:
    """Orthonormal vectors that all rotations leave alone, shape (3, n); the first ones lie along the given ones.

    The choice depends on the geometry only, never on a numerical library: files rely on it.
    """
    average = projector @ rotations.mean(axis=0)
    basis: list[NDArray] = []
    for v in [*along, *np.eye(3)]:
        size = np.linalg.norm(v)
        left = average @ v / max(size, 1e-12)
        for b in basis:
            left = left - (b @ left) * b
        if np.linalg.norm(left) > 1e-3:
            basis.append(left / np.linalg.norm(left))
    return np.array(basis).reshape(-1, 3).T
