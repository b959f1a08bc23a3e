"""Upper and lower bounds of what a relaxation gives, whatever the spread of the rates.

The states are nodes and the jumps links of conductance c = π W, along which a displacement d is gained. A field y
leaves the tension t = d + Δy, and Σ c t ⊗ t is a bound of Λ from above. Currents f without sources bound it from below
(Thomson): with f = c t + δ the two bounds are Σ δ ⊗ δ/c apart, whoever found y. Here δ runs along the tree of the
strongest links. Through every link of that tree it is the sum of c t over the links that lead out of one side, none
of them stronger than the link of the tree, so that slow currents are never sought in the rounding of fast ones.

Displacements are counted in whole cells and d is first made zero along the tree, which is a choice of the zero of y.
Links of a fast cluster that closes no ring then have d = 0 with no rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

__all__ = ["Expansion", "Links", "Tree", "accurate_sum"]

TERMS = 4
"""Numbers whose sum is one value of y: fast links need the differences of nearly equal ones."""

ROUNDING = 2.0**-51
"""Relative error of a term of a sum, with a margin."""


@dataclass(frozen=True, eq=False)
class Expansion:
    """Values as sums of several floating-point numbers, each what is left after the ones before.

    Attributes
    ----------
    terms : ndarray, shape (TERMS, ...)
        Largest first.
    """

    terms: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray) -> Expansion:
        """Take plain numbers.

        Parameters
        ----------
        values : ndarray
            Any shape, any unit.
        """
        terms = np.zeros((TERMS, *np.shape(values)))
        terms[0] = values
        return cls(terms)

    @classmethod
    def sum(cls, parts: NDArray) -> Expansion:
        """Add plain numbers exactly.

        Parameters
        ----------
        parts : ndarray, shape (n, m)
            The ``n`` numbers of each of ``m`` sums.
        """
        terms = np.empty((TERMS, parts.shape[1]))
        for i, column in enumerate(parts.T.tolist()):
            for k in range(TERMS):
                terms[k, i] = math.fsum(column)
                column.append(-terms[k, i])
        return cls(terms)

    def __getitem__(self, index: Any) -> Expansion:
        return Expansion(self.terms[:, index])

    def plus(self, values: NDArray) -> Expansion:
        """The sum with plain numbers, as an expansion; what is smaller than its last term is lost.

        Parameters
        ----------
        values : ndarray
            Of the same shape.

        Notes
        -----
        J. R. Shewchuk, Discrete Comput. Geom. 18, 305 (1997), Grow-Expansion.
        """
        total, errors = np.asarray(values, dtype=float), []
        for term in self.terms[::-1]:
            new = total + term
            virtual = new - total
            errors.append((total - (new - virtual)) + (term - virtual))
            total = new
        return Expansion(np.stack([total, *errors[:0:-1]]))

    def minus(self, other: Expansion, *more: NDArray) -> NDArray[np.float64]:
        """The difference of two expansions plus some plain numbers, as plain numbers.

        Parameters
        ----------
        other
            Of the same shape, or one that broadcasts.
        *more : ndarray
            Of the same shape.
        """
        return accurate_sum([*self.terms, *(-other.terms), *more])


def accurate_sum(parts: Sequence[NDArray]) -> NDArray[np.float64]:
    """Sum as if computed with ``TERMS`` times the digits.

    Parameters
    ----------
    parts : sequence of ndarray
        Numbers to add, of shapes that broadcast.

    Notes
    -----
    T. Ogita, S. M. Rump and S. Oishi, SIAM J. Sci. Comput. 26, 1955 (2005), algorithm SumK.
    """
    p = [np.asarray(x, dtype=float) for x in parts]
    for _ in range(TERMS - 1):
        for i in range(1, len(p)):
            a, b = p[i], p[i - 1]
            total = a + b
            virtual = total - a
            p[i], p[i - 1] = total, (a - (total - virtual)) + (b - virtual)
    rest = p[0]
    for x in p[1:]:
        rest = rest + x
    return np.asarray(rest)


@dataclass(frozen=True, eq=False)
class Tree:
    """The tree of the strongest links of every connected part, found as a minimum spanning tree.

    Attributes
    ----------
    parent, jump, depth : ndarray of int, shape (n,)
        The next state towards the root, the jump that leads there, and how many jumps away the root is; a root is its
        own parent.
    flow : ndarray, shape (n,)
        Conductance of that jump; 0 for roots.
    """

    parent: NDArray[np.int64]
    jump: NDArray[np.int64]
    depth: NDArray[np.int64]
    flow: NDArray[np.float64]

    @classmethod
    def of(cls, next_state: NDArray, flow: NDArray) -> Tree:
        """Find the tree.

        Parameters
        ----------
        next_state : ndarray of int, shape (n, J)
            State after each jump.
        flow : ndarray, shape (n, J)
            Conductances, equal for a jump and its reverse up to rounding; 0: no jump.
        """
        n = len(flow)
        row, k = np.nonzero(flow > 0)
        column = next_state[row, k].astype(np.int64)
        apart = row != column
        row, k, column = row[apart], k[apart], column[apart]
        value = flow[row, k]
        order = np.lexsort((-value, column, row))  # of several jumps between two states the strongest
        row, k, column, value = row[order], k[order], column[order], value[order]
        first = np.append(True, (np.diff(row) != 0) | (np.diff(column) != 0)) if len(row) else np.zeros(0, dtype=bool)
        row, k, column, value = row[first], k[first], column[first], value[first]
        rank = 1.0 + np.unique(-value, return_inverse=True)[1]
        graph = sp.csr_matrix((rank, (row.astype(np.int32), column.astype(np.int32))), shape=(n, n))
        tree = minimum_spanning_tree(graph)
        roots = np.unique(connected_components(graph, directed=False)[1], return_index=True)[1]
        every = np.concatenate([tree.tocoo().row, np.full(len(roots), n)]).astype(np.int32)
        ends = np.concatenate([tree.tocoo().col, roots]).astype(np.int32)
        joined = sp.csr_matrix((np.ones(len(every)), (every, ends)), shape=(n + 1, n + 1))
        above = breadth_first_order(joined, n, directed=False)[1]
        parent = above[:n].astype(np.int64)
        parent[roots] = roots
        inner = np.flatnonzero(parent != np.arange(n))
        at = np.searchsorted(row * np.int64(n) + column, inner * np.int64(n) + parent[inner])
        jump, strength = np.zeros(n, dtype=np.int64), np.zeros(n)
        jump[inner], strength[inner] = k[at], value[at]
        flat = cls(parent, jump, np.zeros(n, dtype=np.int64), strength)
        return replace(flat, depth=flat.accumulate(np.ones(n, dtype=np.int64)))

    def accumulate(self, steps: NDArray) -> NDArray:
        """Sum of ``steps`` from every state along the tree to its root, shape of ``steps``.

        Parameters
        ----------
        steps : ndarray, shape (n, ...)
            What the jump of each state towards the root adds.
        """
        total, above = np.array(steps), self.parent
        total[self.parent == np.arange(len(above))] = 0
        while True:  # each round doubles the distance that is covered
            further = above[above]
            if np.array_equal(further, above):
                return total
            total = total + total[above]
            above = further


@dataclass(frozen=True, eq=False)
class Links:
    """States as nodes, jumps as links.

    Attributes
    ----------
    next_state : ndarray of int, shape (n, J)
        State after each jump; any where there is none.
    flow : ndarray, shape (n, J)
        Conductance π W of every jump, in units of the largest.
    gained : ndarray of int, shape (n, J, m)
        Displacement of every jump in whole cells, zero along the tree.
    offset : ndarray of int, shape (n, m)
        What was added to y for that.
    exists : ndarray of bool, shape (n, J)
        Jumps of the lattice, also those without a flow.
    tree : Tree
    """

    next_state: NDArray[np.int64]
    flow: NDArray[np.float64]
    gained: NDArray[np.int64]
    offset: NDArray[np.int64]
    exists: NDArray[np.bool_]
    tree: Tree

    @classmethod
    def of(cls, next_state: NDArray, flow: NDArray, steps: NDArray) -> Links:
        """Choose the zero of y.

        Parameters
        ----------
        next_state : ndarray of int, shape (n, J)
            State after each jump, −1 where there is none.
        flow : ndarray, shape (n, J)
            Conductances in units of the largest.
        steps : ndarray of int, shape (n, J, m)
            Displacements in whole cells.
        """
        tree = Tree.of(next_state, flow)
        target = np.maximum(next_state, 0).astype(np.int64)
        every = np.arange(len(flow))
        offset = tree.accumulate(steps[every, tree.jump])
        gained = steps + offset[target] - offset[:, None]
        gained[next_state < 0] = 0
        return cls(target, flow, gained, offset, np.asarray(next_state >= 0), tree)

    def __len__(self) -> int:
        return len(self.flow)

    def tension(self, field: Expansion) -> NDArray[np.float64]:
        """Tension d + Δy of every jump, cells, shape (n, J, m).

        Parameters
        ----------
        field : Expansion, shape (n, m)
            y for displacements that are zero along the tree.
        """
        found = np.empty(self.gained.shape)
        for k in range(self.flow.shape[1]):  # one jump at a time bounds memory
            change = field[self.next_state[:, k]].minus(field, self.gained[:, k])
            found[:, k] = np.where(self.exists[:, k, None], change, 0.0)
        return found

    def gap(self, tension: NDArray) -> NDArray[np.float64]:
        """Largest distance between the bound of a tension and the exact value, shape (m, m), as ½ Σ flow t ⊗ t.

        Parameters
        ----------
        tension : ndarray, shape (n, J, m)
            From :meth:`tension`.

        Returns
        -------
        ndarray, shape (m, m)
            Positive semidefinite; what rounding may hide is on its diagonal.
        """
        row, k = np.nonzero((self.flow > 0) & (self.next_state > np.arange(len(self))[:, None]))
        here, there = row.copy(), self.next_state[row, k]
        current = self.flow[row, k, None] * tension[row, k]
        through, size = np.zeros((2, len(self), tension.shape[-1]))
        tree = self.tree
        while len(here):
            up = tree.depth[here] >= tree.depth[there]
            node = np.where(up, here, there)
            np.add.at(through, node, np.where(up[:, None], current, -current))
            np.add.at(size, node, np.abs(current))
            here, there = np.where(up, tree.parent[here], here), np.where(up, there, tree.parent[there])
            left = here != there
            here, there, current = here[left], there[left], current[left]
        own = tree.flow > 0
        through, size, root = through[own], size[own], np.sqrt(tree.flow[own])[:, None]
        scaled = through / root
        return scaled.T @ scaled + np.diag(np.square(ROUNDING * size / root).sum(axis=0))
