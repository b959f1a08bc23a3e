"""What one thread keeps while it evaluates an incremental model: sums of rows, barriers of states, and room to work."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.incremental import LANES, IncrementalModel, RowNetworks, aligned

__all__ = ["Kept", "Memory", "Workspace"]

CENTRES = 512
"""Environments of carriers whose sums are kept; a power of 2."""

BONDS = 1024
"""Environments of jumps whose sums are kept; a power of 2."""

STATES = 2048
"""States whose barriers are kept; a power of 2."""


class Kept(NamedTuple):
    """Sums of rows of the environments met last.

    Attributes
    ----------
    name : ndarray of int64, shape (n,)
        Which centre; −1 for none.
    codes : ndarray of uint8, shape (n, n_words * 8)
        Occupants that the sums are of; ``words`` is the same memory as integers.
    words : ndarray of uint64, shape (n, n_words)
    sums : ndarray of int32, one axis
        Sums of place i from ``i * width`` on.
    width : int
    """

    name: NDArray[np.int64]
    codes: NDArray[np.uint8]
    words: NDArray[np.uint64]
    sums: NDArray[np.int32]
    width: int


class Memory(NamedTuple):
    """Barriers of the states met last, by what is around the carrier.

    Attributes
    ----------
    words : ndarray of uint64, shape (n, n_words)
        Occupants around the carrier, and its basis site.
    twice, delta, after : ndarray of int64, shape (n, J)
        2 Q, ΔE, and the carrier's energy after the jump, in units of 1/UNIT eV.
    rates : ndarray, shape (n, J)
        s⁻¹; left to the caller.
    own : ndarray of int64, shape (n,)
        The carrier's energy, in units of 1/UNIT eV.
    """

    words: NDArray[np.uint64]
    twice: NDArray[np.int64]
    delta: NDArray[np.int64]
    after: NDArray[np.int64]
    rates: NDArray[np.float64]
    own: NDArray[np.int64]


class Workspace(NamedTuple):
    """What one thread needs; nothing in it changes a result.

    Attributes
    ----------
    centres, bonds : Kept
    memory : Memory
    near : ndarray of uint8, shape (n_words * 8,)
        Occupants around the carrier; ``near_words`` is the same memory as integers.
    near_words : ndarray of uint64, shape (n_words,)
    codes : ndarray of uint8
        Occupants around one centre; ``words`` is the same memory.
    words : ndarray of uint64
    changed, rows : ndarray of int64
        Sites whose rows are added, then those whose rows are subtracted; which rows.
    h, out, total, shift : ndarray of float32
    come : ndarray of int64, shape (S,)
        Pair energies of every species on the carrier's site.
    counts : ndarray of int64, shape (4,)
        Evaluated states, states found in memory, rows exchanged, sums begun anew.
    """

    centres: Kept
    bonds: Kept
    memory: Memory
    near: NDArray[np.uint8]
    near_words: NDArray[np.uint64]
    codes: NDArray[np.uint8]
    words: NDArray[np.uint64]
    changed: NDArray[np.int64]
    rows: NDArray[np.int64]
    h: NDArray[np.float32]
    out: NDArray[np.float32]
    total: NDArray[np.float32]
    shift: NDArray[np.float32]
    come: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls, model: IncrementalModel, *, centres: int = CENTRES, bonds: int = BONDS, states: int = STATES
    ) -> Workspace:
        """Make room for a model.

        Parameters
        ----------
        model
            The model.
        centres, bonds, states
            How many of each are kept; powers of 2. Results do not depend on them.
        """
        sites, nets = model.sites, (model.carrier, model.kra)
        n_jumps = sites.exists.shape[1]
        near, near_words = _codes((sites.n_words,))
        n_env = max(sites.bond.shape[2], sites.centre.shape[2], -(-sites.corner.shape[2] // 8) * 8, 8)
        codes, words = _codes((n_env // 8,))
        size = max(LANES, *(int(n) * net.channels for net in nets for n in net.n_padded))
        wide = max(LANES, *(net.channels for net in nets))
        h, out = (aligned(np.zeros(size, dtype=np.float32)) for _ in range(2))
        total, shift = (aligned(np.zeros(wide, dtype=np.float32)) for _ in range(2))
        memory = Memory(
            np.full((states, sites.n_words), ~np.uint64(0)),
            np.zeros((states, n_jumps), dtype=np.int64),
            np.zeros((states, n_jumps), dtype=np.int64),
            np.zeros((states, n_jumps), dtype=np.int64),
            np.zeros((states, n_jumps)),
            np.zeros(states, dtype=np.int64),
        )
        return cls(
            _kept(model.carrier, sites.centre.shape[2], centres),
            _kept(model.kra, sites.bond.shape[2], bonds),
            memory, near, near_words, codes, words,
            np.zeros(2 * n_env, dtype=np.int64), np.zeros(2 * n_env, dtype=np.int64),
            h, out, total, shift, np.zeros(model.terms.exchange.shape[2], dtype=np.int64), np.zeros(4, dtype=np.int64),
        )  # fmt: skip


def _codes(shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Codes, and the same memory in words of 8 (at least one, so that views exist)."""
    words = np.zeros((*shape[:-1], max(1, shape[-1])), dtype=np.uint64)
    return words.view(np.uint8), words


def _kept(net: RowNetworks, n_env: int, n: int) -> Kept:
    codes, words = _codes((n, n_env // 8))
    width = int(net.n_padded.max(initial=1)) * net.channels
    return Kept(
        np.full(n, -1, dtype=np.int64), codes, words, aligned(np.zeros(max(1, n * width), dtype=np.int32)), width
    )
