"""Work on several states at a time: one Python thread for each core, and each core for itself.

The tensors of a training step are small. Cores that share every operation on them wait for each other thousands of
times a second; cores that each have their own states meet once a step. torch lets other threads run while it computes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

import torch

__all__ = ["n_side_by_side", "on_all_cores", "threads_for_a_while"]

In = TypeVar("In")
Out = TypeVar("Out")

MOST = 8
"""Threads: more would wait for the interpreter, and each needs memory of its own."""

_pools: list[ThreadPoolExecutor] = []


def on_all_cores(work: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    """Return ``work(item)`` of every item, in order.

    Inside of :func:`threads_for_a_while` items are worked on side by side, else one after the other.

    Parameters
    ----------
    work
        Does not change what others read.
    items
        Anything.
    """
    if not _pools:
        return [work(item) for item in items]
    learns = torch.is_grad_enabled()

    def one(item: In) -> Out:
        with torch.set_grad_enabled(learns):  # each thread has a switch of its own
            return work(item)

    return list(_pools[-1].map(one, items))


def n_side_by_side() -> int:
    """Return the number of items that :func:`on_all_cores` works on at a time."""
    return _pools[-1]._max_workers if _pools else 1


@contextmanager
def threads_for_a_while(device: torch.device) -> Iterator[None]:
    """Start as many threads as torch may use, up to eight, one core for each; end them, and what they keep, afterwards.

    Parameters
    ----------
    device
        Where tensors are; on a GPU there is nothing to start.
    """
    before = torch.get_num_threads()
    n = min(before, MOST)
    if n == 1 or device.type != "cpu" or _pools:
        yield
        return
    pool = ThreadPoolExecutor(n, initializer=_use_one_core)
    # all threads must be there before the number is set back: it counts for the thread that sets it, and for new ones
    meet = Barrier(n)
    list(pool.map(lambda _: meet.wait(), range(n)))
    torch.set_num_threads(before)
    _pools.append(pool)
    try:
        yield
    finally:
        _pools.remove(pool)
        pool.shutdown()


def _use_one_core() -> None:
    torch.get_num_threads()  # a thread that is asked for the first time takes the number of all others
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # threads do not come along
    os.register_at_fork(after_in_child=_pools.clear)
