"""Exact transport in rational arithmetic: the oracle of solvers for rates that spread over many decades."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ase_kinoson.kinosons.enclosure import Links
from ase_kinoson.kinosons.star_mesh import eliminate


def rational_lambda(next_state, flow, steps):
    """½ Σ flow (d + Δy) ⊗ (d + Δy) at its minimum, as fractions, a list of lists, shape (m, m).

    Parameters
    ----------
    next_state : ndarray of int, shape (n, J)
    flow : ndarray, shape (n, J)
        Equal for a jump and its reverse; taken as the exact value of the float.
    steps : ndarray of int, shape (n, J, m)
    """
    n, _, m = steps.shape
    matrix = [{} for _ in range(n)]
    right = [[Fraction(0)] * m for _ in range(n)]
    bare = [[Fraction(0)] * m for _ in range(m)]
    for i, k in zip(*np.nonzero(flow > 0), strict=True):
        c, j, d = Fraction(float(flow[i, k])), int(next_state[i, k]), [int(x) for x in steps[i, k]]
        for a in range(m):
            right[i][a] += c * d[a]
            for b in range(m):
                bare[a][b] += c * d[a] * d[b] / 2
        matrix[i][i] = matrix[i].get(i, 0) + c
        matrix[i][j] = matrix[i].get(j, 0) - c
    first = [list(row) for row in right]
    pivot = [False] * n
    for i in range(n):  # Gaussian elimination; the last state of every connected part has no equation of its own
        own = {j: x for j, x in matrix[i].items() if x != 0}
        pivot[i] = i in own
        if not pivot[i]:
            continue
        for j in own:
            if j > i:
                factor = matrix[j].get(i, 0) / own[i]
                for k, x in own.items():
                    matrix[j][k] = matrix[j].get(k, 0) - factor * x
                matrix[j].pop(i, None)
                right[j] = [x - factor * r for x, r in zip(right[j], right[i], strict=True)]
    y = [[Fraction(0)] * m for _ in range(n)]
    for i in reversed(range(n)):
        if pivot[i]:
            known = [(j, x) for j, x in matrix[i].items() if j > i]
            for a in range(m):
                y[i][a] = (right[i][a] - sum(x * y[j][a] for j, x in known)) / matrix[i][i]
    return [[bare[a][b] - sum(first[i][a] * y[i][b] for i in range(n)) for b in range(m)] for a in range(m)]


def rational_of_field(next_state, flow, steps, field):
    """½ Σ flow (d + Δy)² of a given field, shape (n,), as a fraction: a bound from above of one component."""
    y = [Fraction(float(v)) for v in field]
    total = Fraction(0)
    for i, k in zip(*np.nonzero(flow > 0), strict=True):
        total += Fraction(float(flow[i, k])) * (int(steps[i, k]) + y[int(next_state[i, k])] - y[i]) ** 2 / 2
    return total


def random_network(rng, n, n_jumps, m, decades, closed=0.05):
    """A graph of ``n`` states with ``n_jumps`` jumps each, several between two states and from one to itself allowed.

    Returns
    -------
    next_state, flow, steps
        Conductances are powers of 2 over so many decades, some are 0; displacements −1, 0 and 1.
    """
    ends = rng.permutation(np.repeat(np.arange(n), n_jumps)).reshape(-1, 2)
    slot = np.zeros(n, dtype=int)
    next_state, flow = np.full((n, n_jumps), -1), np.zeros((n, n_jumps))
    steps = np.zeros((n, n_jumps, m), dtype=np.int64)
    for one, other in ends:
        conductance = 0.0 if rng.random() < closed else 2.0 ** -rng.integers(0, int(decades * np.log2(10)) + 1)
        step = rng.integers(-1, 2, size=m)
        for start, end, sign in ((one, other, 1), (other, one, -1)):
            k = slot[start]
            slot[start] += 1
            next_state[start, k], flow[start, k], steps[start, k] = end, conductance, sign * step
    return next_state, flow, steps


def relative(found, exact):
    """Relative difference of floats from fractions, elementwise; 0 where both are 0."""
    found = np.atleast_2d(found)
    result = np.zeros(found.shape)
    for a, row in enumerate(exact):
        for b, value in enumerate(row):
            if value == 0:
                result[a, b] = 0.0 if abs(found[a, b]) == 0 else np.inf
            else:
                result[a, b] = abs(float((Fraction(float(found[a, b])) - value) / value))
    return result


def survey(n_networks, *, seed=0, decades=60):
    """Solve random networks and compare with rational arithmetic.

    Parameters
    ----------
    n_networks
        How many; 1 to 12 states each, conductances over ``decades`` decades, two displacements.

    Returns
    -------
    worst, gap : float
        Largest relative error of a diagonal coefficient, and largest relative distance of the two bounds.
    """
    rng, worst, widest = np.random.default_rng(seed), 0.0, 0.0
    for _ in range(n_networks):
        n, n_jumps = int(rng.integers(1, 13)), int(rng.choice([2, 4, 6]))
        next_state, flow, steps = random_network(rng, n, n_jumps, 2, decades)
        links = Links.of(next_state, flow, steps)
        tension = links.tension(eliminate(links))
        rows = tension.reshape(-1, 2)
        found = 0.5 * (rows * flow.reshape(-1, 1)).T @ rows
        worst = max(worst, float(np.diag(relative(found, rational_lambda(next_state, flow, steps))).max()))
        gap, own = np.diag(links.gap(tension)), np.diag(found)
        widest = max(widest, float(np.divide(gap, own, out=np.zeros(2), where=own > 0).max()))
    return worst, widest
