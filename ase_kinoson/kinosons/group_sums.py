"""Sums over the states of each group, of any number of states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

__all__ = ["MAX_GROUPS", "GroupSums"]

MAX_GROUPS = 4001
"""More groups than this are pooled."""


def block_of(groups: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Block of each group, one of ``most``: as good as drawn for each, and always the same.

    The numbers of groups may say something (sorted by energy, numbered by composition). Blocks by remainder would each
    hold some of all kinds, and differ less than chance makes them: errors would be too small.

    The mixing is that of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    x = np.asarray(groups, dtype=np.int64).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(most)).astype(np.int64)


class GroupSums:
    """Sums of rows by the number of a group, of a bounded number of groups.

    Parameters
    ----------
    most
        With more groups, they are pooled into at most as many blocks from then on; see :func:`block_of`.
    """

    def __init__(self, most: int) -> None:
        self.most, self.pooled = most, False
        self.names = np.empty(0, dtype=np.int64)
        self.values = np.empty((0, 0))

    def add(self, groups: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Add rows, shape (n, m), to the sums of their groups."""
        if not self.pooled and len(np.union1d(groups, self.names)) > self.most:
            self._pool()
        self._add(block_of(groups, self.most) if self.pooled else groups, values)

    def merge(self, other: GroupSums) -> None:
        """Add the sums of other states of the same sample."""
        if not len(other.names):
            return
        if not other.pooled:
            self.add(other.names, other.values)
            return
        if not self.pooled:
            self._pool()
        self._add(other.names, other.values)  # blocks already

    def _pool(self) -> None:
        self.pooled, self.names = True, block_of(self.names, self.most)

    def _add(self, names: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        every = np.concatenate([self.names, names])
        rows = np.concatenate([self.values.reshape(len(self.values), values.shape[1]), values])
        self.names, member = np.unique(every, return_inverse=True)
        n = len(every)
        self.values = csr_array((np.ones(n), (member, np.arange(n))), shape=(len(self.names), n)) @ rows
