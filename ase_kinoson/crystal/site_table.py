"""`SiteTable`: the sites at given places around any sites of a supercell, in 32-bit integers and without a loop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TABLE_ENTRIES", "SiteTable", "wrapped_cells"]

TABLE_ENTRIES = 2**20
"""Up to this many sites times places all answers are kept (4 MB); in larger cells each is computed when asked."""


def wrapped_cells(hermite: NDArray[np.int64], coordinates: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Numbers of primitive cells at integer coordinates of any lattice image.

    Parameters
    ----------
    hermite : ndarray of int, shape (3, 3)
        Upper-triangular Hermite normal form of the supercell.
    coordinates : list of three ndarrays of int32, of one shape
        In units of the primitive vectors; overwritten.

    Returns
    -------
    ndarray of int32, of the same shape
    """
    h = hermite.tolist()
    index: NDArray[np.int32] | None = None
    for axis in range(3):
        own, size = coordinates[axis], h[axis][axis]
        if size > 1 or any(h[axis][axis + 1 :]):
            turns = own // np.int32(size)
            for other in range(axis + 1, 3):
                if h[axis][other]:
                    coordinates[other] -= turns * np.int32(h[axis][other])
            turns *= np.int32(size)
            own -= turns
        else:  # one cell along this axis, and nothing to shift along the others
            own[...] = 0
        if index is None:
            index = own
        else:
            index *= np.int32(size)
            index += own
    assert index is not None
    return index


@dataclass(frozen=True, eq=False)
class SiteTable:
    """Places around the basis sites of a lattice, looked up around sites of a supercell.

    Attributes
    ----------
    hermite : ndarray of int, shape (3, 3)
        Of the supercell.
    basis : ndarray of int, shape (n_basis, m)
        Basis site of each place; −1 where there is none.
    cells : ndarray of int, shape (n_basis, m, 3)
        Its cell, relative to that of the basis site.
    """

    hermite: NDArray[np.int64]
    basis: NDArray[np.int64]
    cells: NDArray[np.int64]

    @property
    def n_basis(self) -> int:
        """Number of basis sites."""
        return self.basis.shape[0]

    @property
    def n_places(self) -> int:
        """Number of places around each site, m."""
        return self.basis.shape[1]

    @cached_property
    def is_padded(self) -> bool:
        """Whether some basis sites have fewer places than others."""
        return bool((self.basis < 0).any())

    @property
    def n_sites(self) -> int:
        """Number of sites of the supercell."""
        return int(np.prod(np.diag(self.hermite))) * self.n_basis

    def sites(self, centers: ArrayLike) -> NDArray[np.int32]:
        """Sites around given sites, shape (..., m); −1 where there is none.

        Parameters
        ----------
        centers : array_like of int, shape (...)
            Any sites.
        """
        given = np.asarray(centers)
        if self.n_sites * self.n_places <= TABLE_ENTRIES:
            return self._table.take(given, axis=0)
        return self._compute(given.ravel()).reshape(*given.shape, self.n_places)

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        return self._compute(np.arange(self.n_sites))

    @cached_property
    def _compact(self) -> tuple[NDArray[np.int32], tuple[NDArray[np.int32], ...]]:
        return self.basis.astype(np.int32), tuple(self.cells[:, :, axis].astype(np.int32) for axis in range(3))

    def _compute(self, centers: NDArray) -> NDArray[np.int32]:
        basis, offsets = self._compact
        h = np.diag(self.hermite).tolist()
        c = centers.astype(np.int32)
        of: Any = slice(None)  # one list of places serves all sites of a lattice with one basis site
        if self.n_basis > 1:
            of = c % np.int32(self.n_basis)
            c = c // np.int32(self.n_basis)
        start = (c // np.int32(h[1] * h[2]), c // np.int32(h[2]) % np.int32(h[1]), c % np.int32(h[2]))
        sites = wrapped_cells(self.hermite, [s[:, None] + o[of] for s, o in zip(start, offsets, strict=True)])
        if self.n_basis > 1:
            sites *= np.int32(self.n_basis)
            sites += basis[of]
        if self.is_padded:
            sites[np.broadcast_to(basis[of] < 0, sites.shape)] = -1
        return sites

    def __getstate__(self) -> dict[str, Any]:
        # what can be computed again is not sent to other processes
        return {name: self.__dict__[name] for name in ("hermite", "basis", "cells")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
