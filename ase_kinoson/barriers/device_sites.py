"""`DeviceSites`: reads the occupants around carriers on a device; environments are columns of what it reads."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_kinoson.barriers.surroundings import Surroundings

__all__ = ["DeviceSites", "put"]


def put(array: ArrayLike, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """An array as a tensor on a device."""
    return torch.as_tensor(np.asarray(array), dtype=dtype).to(device)


class DeviceSites:
    """Surroundings on a device.

    Parameters
    ----------
    around
        The sites; no more are asked for afterwards.
    device
        Where.
    """

    def __init__(self, around: Surroundings, device: torch.device) -> None:
        cell = around.network.supercell
        self.device, self.size, self.n_basis = device, around.size, cell.alloy.n_basis
        self.only = int(around.carriers[0]) if len(around.carriers) == 1 else None
        self._hermite = cell.hermite.tolist()
        self._basis, self._cells = (put(x, device, torch.int32) for x in around.offsets)
        self._table = None if around.table is None else put(around.table, device)

    def sites(self, carriers: Tensor) -> Tensor:
        """Sites of all slots of carriers (n,), int64, shape (n, size)."""
        if self._table is not None:
            return self._table[carriers].long()
        h, start = self._hermite, (carriers // self.n_basis).int()
        b = carriers % self.n_basis
        cells = self._cells[b]
        n0 = (start // (h[1][1] * h[2][2]))[:, None] + cells[..., 0]
        n1 = (start // h[2][2] % h[1][1])[:, None] + cells[..., 1]
        n2 = (start % h[2][2])[:, None] + cells[..., 2]
        q = torch.div(n0, h[0][0], rounding_mode="floor")
        n0, n1, n2 = n0 - q * h[0][0], n1 - q * h[0][1], n2 - q * h[0][2]
        q = torch.div(n1, h[1][1], rounding_mode="floor")
        n1, n2 = n1 - q * h[1][1], n2 - q * h[1][2]
        n2 = n2 - torch.div(n2, h[2][2], rounding_mode="floor") * h[2][2]
        return (((n0 * h[1][1] + n1) * h[2][2] + n2) * self.n_basis + self._basis[b]).long()

    def read(self, occupations: Tensor, carriers: Tensor) -> Tensor:
        """Occupants of all slots, int8, shape (n, size + 1); the last column is empty."""
        found = occupations.gather(1, self.sites(carriers))
        return torch.cat([found, torch.zeros_like(found[:, :1])], dim=1)

    def table(self, slots: NDArray) -> Tensor:
        """Slots (n_basis, ...) as a tensor for :meth:`pick`; −1 becomes the empty column."""
        return put(np.where(slots < 0, self.size, slots), self.device)

    def pick(self, codes: Tensor, basis: Tensor, slots: Tensor) -> Tensor:
        """Columns of what :meth:`read` gave, shape (n, ...), for carriers on ``basis`` (n,)."""
        shape = (len(codes), *slots.shape[1:])
        if self.only is not None:  # one list for all rows
            return codes.index_select(1, slots[self.only].flatten()).view(shape)
        return codes.gather(1, slots[basis].flatten(1)).view(shape)
