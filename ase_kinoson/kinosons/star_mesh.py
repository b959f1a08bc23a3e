"""Elimination of states one by one, without subtracting rates: exact to rounding whatever their spread.

Eliminating the node i of a network of conductances leaves links between its neighbours j and k of conductance
c_ji c_ik/Σ_l c_il (star–mesh transformation; for Markov chains W. K. Grassmann, M. I. Taksar and D. P. Heyman, Oper.
Res. 33, 1107 (1985)). A displacement d along links is carried over just as well: the new link gains d_ji + d_ik, and
two links between the same nodes make one whose displacement is their mean, weighted with their conductances. All
conductances are sums and products of positive numbers, and all displacements means of those there were, so that every
number keeps its own relative accuracy. The field follows backwards: y_i is the mean of d_ij + y_j.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.kinosons.enclosure import Expansion, Links

__all__ = ["LARGEST", "eliminate"]

LARGEST = 2_000
"""States left with many links each that are still eliminated; time goes with the cube, memory with the square."""

FEW = 24
"""A state with so many neighbours is eliminated link by link; those with more, all in one matrix."""


def eliminate(links: Links) -> Expansion | None:
    """Find y of every state, cells, shape (n, m), for displacements that are zero along the tree.

    Parameters
    ----------
    links
        States and jumps.

    Returns
    -------
    Expansion or None
        None if too many states are left after those with few neighbours.
    """
    near = _neighbours(links)
    steps = _one_by_one(near)
    left = np.array(sorted(i for i, own in enumerate(near) if own), dtype=np.int64)
    if len(left) > LARGEST:
        return None
    _together(near, left, steps, links.gained.shape[-1])
    return _back(steps, len(links), links.gained.shape[-1])


_Neighbours = list[dict[int, tuple[float, NDArray[np.float64]]]]
"""Of every state the conductance to each neighbour, and the displacement on the way there."""

_Step = tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""A state that was eliminated, its neighbours, their shares of its conductance, the displacements (m, k) to them."""


def _neighbours(links: Links) -> _Neighbours:
    """All links; several between two states are one."""
    near: _Neighbours = [{} for _ in range(len(links))]
    row, k = np.nonzero((links.flow > 0) & (links.next_state != np.arange(len(links))[:, None]))
    column, flow, gained = links.next_state[row, k], links.flow[row, k], links.gained[row, k].astype(float)
    for i, j, c, d in zip(row.tolist(), column.tolist(), flow.tolist(), gained, strict=True):
        if i < j:  # the link back is the same
            _join(near, i, j, c, d)
    return near


def _join(near: _Neighbours, i: int, j: int, c: float, d: NDArray) -> None:
    """Add a link beside the one there is."""
    if j in near[i]:
        old, before = near[i][j]
        # both terms keep their own relative accuracy, which d + share (before − d) would not
        d = old / (old + c) * before + c / (old + c) * d
        c += old
    near[i][j] = (c, d)
    near[j][i] = (c, -d)


def _one_by_one(near: _Neighbours) -> list[_Step]:
    """Eliminate states with few neighbours, those with the fewest first."""
    steps: list[_Step] = []
    queue = [(len(own), i) for i, own in enumerate(near) if own]
    heapq.heapify(queue)
    while queue and queue[0][0] <= FEW:
        degree, i = heapq.heappop(queue)
        if degree != len(near[i]) or degree == 0:
            continue  # it has others by now, or none and is a root
        own, near[i] = near[i], {}
        names = list(own)
        total = sum(c for c, _ in own.values())
        share = [c / total for c, _ in own.values()]
        gained = [d for _, d in own.values()]
        for j in names:
            del near[j][i]
        for a, j in enumerate(names):
            for b in range(a):
                c = share[a] * share[b] * total
                if c > 0:
                    _join(near, j, names[b], c, gained[b] - gained[a])
        for j in names:
            heapq.heappush(queue, (len(near[j]), j))
        steps.append((i, np.array(names), np.array(share), np.array(gained).T))
    return steps


def _together(near: _Neighbours, left: NDArray, steps: list[_Step], m: int) -> None:
    """Eliminate what is left, with matrices; ``steps`` grows."""
    n = len(left)
    place = {int(i): at for at, i in enumerate(left)}
    dense, moved = np.zeros((n, n)), np.zeros((m, n, n))
    for at, i in enumerate(left):
        for j, (c, d) in near[int(i)].items():
            dense[at, place[j]], moved[:, at, place[j]] = c, d
    for last in range(n - 1, 0, -1):
        own, total = moved[:, last, :last].copy(), dense[last, :last].sum()
        if not total > 0:
            continue
        share = dense[last, :last] / total
        steps.append((int(left[last]), left[:last], share, own))
        new = np.multiply.outer(share, share) * total
        np.fill_diagonal(new, 0.0)
        old = dense[:last, :last]
        both = old + new
        some = np.where(both > 0, both, 1.0)
        new /= some
        old /= some
        for d, mine in zip(moved[:, :last, :last], own, strict=True):
            d *= old
            d += new * (mine - mine[:, None])
        dense[:last, :last] = both


def _back(steps: list[_Step], n: int, m: int) -> Expansion:
    """Fields from the last state eliminated to the first."""
    terms = Expansion.of(np.zeros((n, m))).terms
    for i, near, share, own in reversed(steps):
        r = int(share.argmax())
        nearest = terms[:, near[r]]
        # differences from the nearest state are small where links are fast, and stay accurate
        apart = Expansion(terms[:, near]).minus(Expansion(nearest[:, None]), (own - own[:, r, None]).T)
        terms[:, i] = Expansion.sum(np.stack([*nearest, own[:, r], share @ apart])).terms
    return Expansion(terms)
