"""Operations that commute and undo themselves, and what they save.

A linear map that commutes with a point group commutes with any subgroup A of it. If A is made of inversions, mirrors
and twofold axes that commute, its characters are signs χ(a) = ±1, and sums with these signs over the members of A turn
the map into one independent block for each character: |A| blocks of 1/|A| of the width and of the length, so that the
map costs 1/|A| as much. Cubic groups have |A| = 8. Nothing is approximated.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.crystal.environment import EnvironmentClass

__all__ = ["SignedInputs", "Twofold", "chunk_of"]

CHUNK = 256
"""Environments worked on at a time by each of up to four cores; what one chunk needs fits into their caches."""

MAX_GENERATORS = 3
"""No point group in three dimensions has more independent ones."""


@dataclass(frozen=True, eq=False)
class Twofold:
    """A subgroup A of operations that commute and undo themselves; m members, n_orbits orbits of sites under A.

    Attributes
    ----------
    members : ndarray of int, shape (m,)
        Operations of the point group; the identity comes first.
    signs : ndarray, shape (m, m)
        χ(a), one row for each character; symmetric.
    cosets : ndarray of int, shape (m, n_ops // m)
        Operation a·r for every member a and coset representative r.
    sites : ndarray of int, shape (m, n_orbits)
        Site onto which member a carries the first site of an orbit. Where that site lies on an element of symmetry,
        sites appear more than once.
    fixed : ndarray of int, shape (n_orbits,)
        Number of members that leave the first site of an orbit where it is.
    """

    members: NDArray[np.int64]
    signs: NDArray[np.float64]
    cosets: NDArray[np.int64]
    sites: NDArray[np.int64]
    fixed: NDArray[np.int64]

    @classmethod
    def of(cls, kind: EnvironmentClass, *, both: bool = False) -> Twofold:
        """Find the subgroup that makes a map cheapest; among equals the first.

        Parameters
        ----------
        kind
            The environment and its point group.
        both
            Whether the map leads from sites to sites, so that sites which appear more than once cost twice; else it
            leads from sites to operations.
        """
        product = _products(kind.rotations)
        one = int(np.flatnonzero((product == np.arange(kind.n_ops)[:, None]).all(axis=0))[0])
        halves = [g for g in range(kind.n_ops) if g != one and product[g, g] == one]
        best, found = np.inf, tuple[int, ...]()
        for count in range(MAX_GENERATORS, -1, -1):
            for chosen in combinations(halves, count):
                if any(product[a, b] != product[b, a] for a, b in combinations(chosen, 2)):
                    continue
                members = _members(product, one, chosen)
                if len(set(members)) < len(members):
                    continue
                orbits = len(np.unique(kind.permutations[members].min(axis=0))) if kind.n_sites else 0
                cost = len(members) * orbits**2 if both else orbits
                if cost < best:
                    best, found = cost, chosen
        own = np.array(_members(product, one, found), dtype=np.int64)
        n = np.arange(len(own))
        bits = (n[:, None] & n[None, :])[..., None] >> np.arange(MAX_GENERATORS) & 1
        cosets: list[NDArray] = []
        left = set(range(kind.n_ops))
        while left:
            r = min(left)
            cosets.append(product[own, r])
            left -= set(cosets[-1].tolist())
        first = np.unique(kind.permutations[own].min(axis=0)) if kind.n_sites else np.empty(0, dtype=np.int64)
        sites = kind.permutations[own][:, first]
        return cls(
            own,
            (-1.0) ** bits.sum(axis=-1),
            np.stack(cosets, axis=1),
            sites,
            (sites == first).sum(axis=0),
        )

    @property
    def n_members(self) -> int:
        """Order of the subgroup."""
        return len(self.members)

    @property
    def n_cosets(self) -> int:
        """Order of the point group divided by that of the subgroup."""
        return self.cosets.shape[1]

    def input_rows(self, n_codes: int, n_sites: int) -> NDArray[np.int64]:
        """Rows of the one-hot occupants (code, site) in the order (member, code, orbit).

        Parameters
        ----------
        n_codes
            Species that have an input channel.
        n_sites
            Sites of the environment.
        """
        return (np.arange(n_codes)[None, :, None] * n_sites + self.sites[:, None]).reshape(-1)


@dataclass(frozen=True, eq=False)
class SignedInputs:
    """Sums of the one-hot occupants over the members, with the signs of every character.

    Attributes
    ----------
    wanted : Tensor of int64, shape (n_codes,)
        Species codes that have an input channel.
    rows : Tensor of int64, shape (m n_codes n_orbits,)
        As :meth:`Twofold.input_rows` gives them.
    signs : Tensor, shape (m, m)
        χ(a).
    """

    wanted: Tensor
    rows: Tensor
    signs: Tensor

    @property
    def n_inputs(self) -> int:
        """Inputs of a character, with the one that is 1 for the first character and 0 for all others."""
        return len(self.rows) // len(self.signs) + 1

    def write(self, codes: Tensor, found: Tensor, work: Tensor) -> None:
        """Fill in the inputs of some environments.

        Parameters
        ----------
        codes : Tensor of int64, shape (n_env, n)
            Species codes around the carrier.
        found : Tensor, shape (m, n_inputs, n)
            Where they go.
        work : Tensor
            At least as many numbers, that are overwritten.
        """
        m, n = len(self.signs), codes.shape[1]
        found[:, -1] = 0.0
        found[0, -1] = 1.0
        if len(self.rows):
            one_hot = (codes.contiguous() == self.wanted[:, None, None]).to(found.dtype).view(-1, n)
            around = work[: len(self.rows) * n].view(-1, n)
            torch.index_select(one_hot, 0, self.rows, out=around)
            torch.mm(self.signs, around.view(m, -1), out=found[:, :-1].view(m, -1))


def chunk_of(codes: Tensor) -> int:
    """Environments worked on at a time; a GPU takes them all.

    Parameters
    ----------
    codes : Tensor, shape (n_env, n)
        Species codes.
    """
    cores = min(torch.get_num_threads(), 4)
    return CHUNK * cores if codes.device.type == "cpu" else max(codes.shape[1], 1)


def _products(rotations: NDArray) -> NDArray[np.int64]:
    """Number of the operation g·h, shape (n_ops, n_ops)."""
    every = np.einsum("gij,hjk->ghik", rotations, rotations)
    distance = np.abs(every[:, :, None] - rotations).max(axis=(-1, -2))
    found = distance.argmin(axis=-1)
    assert np.take_along_axis(distance, found[..., None], axis=-1).max() < 1e-3
    return found


def _members(product: NDArray, one: int, generators: tuple[int, ...]) -> list[int]:
    """All products of some commuting generators; bit i of a place says whether generator i takes part."""
    members = [one]
    for g in generators:
        members += [int(product[g, m]) for m in members]
    return members
