"""Sums over the states of each group, of any number of states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

__all__ = ["MAX_GROUPS", "GroupSums"]

MAX_GROUPS = 4001
"""More groups than this are pooled; a prime, so that numbers with a common factor still spread."""


class GroupSums:
    """Sums of rows by the number of a group, of a bounded number of groups.

    Parameters
    ----------
    most
        With more groups, those with the same remainder of their number are one from then on.
    """

    def __init__(self, most: int) -> None:
        self.most, self.pooled = most, False
        self.names = np.empty(0, dtype=np.int64)
        self.values = np.empty((0, 0))

    def add(self, groups: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Add rows, shape (n, m), to the sums of their groups."""
        names = np.unique(groups)
        if not self.pooled and len(names) + len(self.names) > self.most:
            self._pool(len(np.union1d(names, self.names)) > self.most)
        every = np.concatenate([self.names, groups % self.most if self.pooled else groups])
        rows = np.concatenate([self.values.reshape(len(self.values), values.shape[1]), values])
        self.names, member = np.unique(every, return_inverse=True)
        n = len(every)
        self.values = csr_array((np.ones(n), (member, np.arange(n))), shape=(len(self.names), n)) @ rows

    def merge(self, other: GroupSums) -> None:
        """Add the sums of other states of the same sample."""
        if other.pooled and not self.pooled:
            self._pool(True)
        if len(other.names):
            self.add(other.names, other.values)

    def _pool(self, needed: bool) -> None:
        if needed:
            self.pooled, self.names = True, self.names % self.most
