"""Memory of the equivariant network: one block for all that a step needs, cut into pieces and used again."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["RESERVE", "Slots", "free_memory", "room", "scratch"]


@dataclass(frozen=True)
class Slots:
    """Places in one block of memory for what one chunk of n environments leaves to the derivative."""

    n: int
    inputs: Tensor  # (m, n_orbits n_codes + 1, n)
    before: list[Tensor]  # what goes into each nonlinearity, (m, n r c)
    after: list[Tensor]  # what comes out of all but the last, (m, n r c)
    common: list[Tensor]  # sums over members, (n, r c)
    last: Tensor  # by characters, (m, n, r c)

    @staticmethod
    def per_environment(lift: Tensor, n_blocks: int) -> int:
        """Numbers kept for each environment."""
        m, n_in, width = lift.shape
        return m * n_in + (2 * n_blocks + 2) * m * width + n_blocks * width

    @classmethod
    def of(cls, memory: Tensor, lift: Tensor, n_blocks: int, start: int, n: int) -> Slots:
        """Cut the part of the chunk that begins at environment ``start`` into pieces."""
        m, n_in, width = lift.shape
        sizes = [m * n_in, *[m * width] * (2 * n_blocks + 2), *[width] * n_blocks]
        begin = start * sum(sizes)
        pieces = memory[begin : begin + n * sum(sizes)].split([n * x for x in sizes])
        waves = [x.view(m, -1) for x in pieces[1 : 2 * n_blocks + 2]]
        return cls(
            n,
            pieces[0].view(m, n_in, n),
            waves[: n_blocks + 1],
            waves[n_blocks + 1 :],
            [x.view(n, -1) for x in pieces[2 * n_blocks + 3 :]],
            pieces[2 * n_blocks + 2].view(m, n, width),
        )


def room(size: int, codes: Tensor, lift: Tensor, project: Tensor, *, keep: bool, n_blocks: int) -> int:
    """Numbers that fit everything: what chunks work with, and what they leave to the derivative."""
    m, n_in, width = lift.shape
    kept = codes.shape[1] if keep else min(size, codes.shape[1])
    work = 2 * m * (max(width, n_in) + project.shape[1])
    return size * work + kept * Slots.per_environment(lift, n_blocks)


def scratch(size: int, lift: Tensor, project: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
    """The first part of a block of memory: two waves and twice the vectors of one chunk."""
    m, n_in, width = lift.shape
    sizes = [m * size * max(width, n_in)] * 2 + [m * size * project.shape[1]] * 2
    return memory[: sum(sizes)].split(sizes)


class Reserve(threading.local):
    """One block of memory for the next step of a training: fresh pages of a processor cost more than the arithmetic.

    Every thread has its own.
    """

    limit = 1 << 28  # bytes

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []

    def take(self, like: Tensor, size: int) -> Tensor:
        """Return a flat block; a GPU has a store of its own."""
        if type(like) in (Tensor, nn.Parameter) and like.device.type == "cpu":
            try:
                block = self.blocks.pop()
            except IndexError:
                return like.new_empty(size)
            if block.dtype == like.dtype and size <= len(block):
                return block
        return like.new_empty(size)

    def give(self, block: Tensor) -> None:
        """Keep a block that is no longer needed, if it is not too large."""
        fits = block.numel() * block.element_size() <= self.limit
        larger = all(len(block) >= len(x) for x in self.blocks)
        if type(block) is Tensor and block.device.type == "cpu" and fits and larger and not block.is_inference():
            self.blocks[:] = [block]


RESERVE = Reserve()


def free_memory() -> None:
    """Give back the block of memory that this thread keeps from one step of a training to the next."""
    RESERVE.blocks.clear()
