"""The residual ladder: a sequence of upper bounds that converges to the exact coefficients.

With r̄ what a relaxation leaves and P the kernel of the jump chain, y' = y + Σ_i θ_i u_i with u_i made of r̄, P r̄, P² r̄ …
is a better relaxation, and its bound needs the moments c_m = ⟨r̄ ⊗ P^m r̄⟩ only:

    Λ_ab[y'] = Λ_ab[y] − (1/⟨τ⟩) (θ^b·B^a + θ^a·B^b − θ^a·A θ^b),    B_i = ⟨r̄ u_i⟩,    A_ij = ⟨u_i (1 − P) u_j⟩.

The best θ solves A θ = B: the Rayleigh–Ritz value, the tightest bound that so many moments allow. Every θ gives a
bound; θ is found on some groups of trajectories and evaluated on the others (cross-fitting), so that noise in the
moments does not pose as a lower bound. The u_i are the first powers of P one by one, then averages over longer and longer blocks of
powers: slow modes need long times but few parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.moments import Moments

__all__ = ["Ladder", "Rungs", "powers"]

SINGLE = 4
"""Powers of P that are basis functions of their own; longer blocks come in pairs of 2, 4, 8 …"""

N_FOLDS = 5
NOISE = 1.0
"""Damping of the Galerkin matrix in units of the standard error of its entries."""

SLOW = 0.5
"""Power of the width of a block in the unit of its basis function."""

FLOOR = 1e-6


def powers(n_steps: int) -> list[tuple[int, int]]:
    """Blocks of powers of P that trajectories of ``n_steps`` jumps can tell: ``(first, last + 1)`` each.

    A product of two powers and one more step must not be longer than the trajectories.
    """
    largest = (n_steps - 1) // 2
    blocks: list[tuple[int, int]] = []
    first, size = 0, 1
    while first <= largest:
        if first >= SINGLE and len(blocks) % 2 == 0:
            size *= 2
        last = min(first + size, largest + 1)
        if last - first < size and blocks and size > 1:
            break
        blocks.append((first, last))
        first = last
    return blocks


@dataclass(frozen=True, eq=False)
class Rungs:
    """Bounds of one quantity, rung by rung; rung 0 is Λ[y].

    Attributes
    ----------
    value, error : ndarray, shape (n_rungs + 1,)
        Λ_qq per carrier, Å²/s.
    gain, gain_error : ndarray, shape (n_rungs,)
        What each rung takes off, from common noise.
    chosen : int
        The rung after which no gain exceeds its error.
    tail : float
        Estimate of what is still missing beyond the chosen rung, Å²/s.
    """

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    gain: NDArray[np.float64]
    gain_error: NDArray[np.float64]
    chosen: int
    tail: float


@dataclass(frozen=True, eq=False)
class Ladder:
    """Corrected averages and how they came about.

    Attributes
    ----------
    collective : ndarray, shape (1 + R, S, S, 3, 3)
        Corrected Λ_ab, Å²/s; row 0 the value, below it resamples over groups.
    tracer : ndarray, shape (1 + R, S, 3, 3), or None
    uncorrected, uncorrected_tracer, bare : ndarray
        Λ[y] and Λ[0] of the same trajectories.
    rungs : mapping of str to Rungs
        ``"vacancy"`` (``"carrier"``), each species, and ``"tracer <species>"``.
    check_lags : ndarray of int, shape (L,)
    check : mapping of str to ndarray, shape (1 + R, L)
        ⟨|X(t) + y(t) − y(0)|²⟩/(2dt): falls to Λ from above, another way to the same number.
    blocks : list of tuple of int
        Powers of P behind the rungs.
    n_trajectories_groups, n_jumps : int
    """

    collective: NDArray[np.float64]
    tracer: NDArray[np.float64] | None
    uncorrected: NDArray[np.float64]
    uncorrected_tracer: NDArray[np.float64] | None
    bare: NDArray[np.float64]
    rungs: Mapping[str, Rungs]
    check_lags: NDArray[np.int64]
    check: Mapping[str, NDArray[np.float64]]
    blocks: list[tuple[int, int]]
    n_groups: int
    n_jumps: int

    @classmethod
    def climb(
        cls,
        moments: Moments,
        index: NDArray,
        names: tuple[str, ...],
        *,
        carrier: str,
        projector: NDArray,
        dimension: int,
        n_resamples: int = 400,
        seed: int = 0,
        max_rung: int | None = None,
    ) -> Ladder:
        """Find the rung to stand on and evaluate it.

        Parameters
        ----------
        moments
            Of trajectories or pairs.
        index : ndarray of int
            Columns of the species that can move.
        names
            Their symbols.
        carrier
            Name of the carrier's quantity.
        projector, dimension
            Of the jump network.
        n_resamples, seed
            Bootstrap over groups.
        max_rung
            Go no higher.

        Raises
        ------
        KinosonError
            If there are too few independent groups.
        """
        if moments.n_groups < 2 * N_FOLDS:
            raise KinosonError(
                f"found trajectories from {moments.n_groups} independent groups of states; expected at least "
                f"{2 * N_FOLDS} to find the best scale on some and judge it on others; start from more states"
            )
        rng = np.random.default_rng(seed)
        n = moments.n_groups
        counts = np.concatenate(
            [np.ones((1, n)), rng.multinomial(n, np.full(n, 1.0 / n), size=n_resamples).astype(float)]
        )
        fold = rng.permutation(n) % N_FOLDS
        blocks = powers(moments.moments.shape[1] - 1)
        if max_rung is not None:
            blocks = blocks[:max_rung]
        grid = np.ix_(index, index)
        whole = moments.resampled(counts)
        time = whole["time"]

        def per_time(x: NDArray) -> NDArray:
            return x / time.reshape(-1, *([1] * (x.ndim - 1)))

        square = per_time(whole["square"])[:, grid[0], grid[1]]
        bare = per_time(whole["bare"])[:, grid[0], grid[1]]
        s = len(index)
        parts = []  # (others, own, weight share) of every fold
        for f in range(N_FOLDS):
            own = counts * (fold == f)
            other = counts * (fold != f)
            share = (own @ moments.weight) / (counts @ moments.weight)
            parts.append((moments.resampled(other), moments.resampled(own), share))

        def scalar(x: NDArray) -> NDArray:
            return np.einsum("...xy,xy->...", x, projector) / dimension

        # collective: one basis of all species and powers serves every species, hence the carrier
        options = []
        for top in range(len(blocks) + 1):
            change = np.zeros((len(counts), s, s, 3, 3))
            for other, own, share in parts if top else []:
                theta = _joint(other["moments"][:, :, grid[0], grid[1]], blocks[:top], projector)
                found = _joint_change(own["moments"][:, :, grid[0], grid[1]], blocks[:top], theta)
                change += np.nan_to_num(found * share[:, None, None, None, None])
            options.append(square - per_time(change))
        rungs: dict[str, Rungs] = {}
        rungs[carrier] = _choose([scalar(x.sum(axis=(1, 2))) for x in options])
        for a, name in enumerate(names):
            rungs[name] = _choose([scalar(x[:, a, a]) for x in options])
        chosen = max(r.chosen for r in rungs.values())
        rungs = {k: _at(r, chosen) for k, r in rungs.items()}
        tracer, tracer_square = None, None
        if moments.tracer_moments.any():
            tracer_square = per_time(whole["tracer_square"])[:, index]
            tracer = tracer_square.copy()
            for a, name in enumerate(names):
                own_options = []
                for top in range(len(blocks) + 1):
                    change = np.zeros((len(counts), 3, 3))
                    for other, own, share in parts if top else []:
                        c = other["tracer_moments"][:, :, index[a]][:, :, None, None]
                        theta = _joint(c, blocks[:top], projector)
                        d = own["tracer_moments"][:, :, index[a]][:, :, None, None]
                        found = _joint_change(d, blocks[:top], theta)[:, 0, 0]
                        change += np.nan_to_num(found * share[:, None, None])
                    own_options.append(tracer_square[:, a] - per_time(change))
                rungs[f"tracer {name}"] = _choose([scalar(x) for x in own_options])
                tracer[:, a] = own_options[rungs[f"tracer {name}"].chosen]
        check = per_time(whole["check"])[:, :, grid[0], grid[1]]
        plain = {carrier: scalar(check.sum(axis=(2, 3)))}
        plain |= {name: scalar(check[:, :, a, a]) for a, name in enumerate(names)}
        return cls(
            options[chosen],
            tracer,
            square,
            tracer_square,
            bare,
            rungs,
            moments.check_lags,
            plain,
            blocks[:chosen],
            n,
            moments.n_jumps,
        )


def _joint(moments: NDArray, blocks: list[tuple[int, int]], projector: NDArray) -> NDArray[np.float64]:
    """Best θ^a of all basis functions for every species, shape (R, S K, S), from moments (R, M, S, S, 3, 3)."""
    c = np.einsum("rmabxy,xy->rmab", moments, projector)
    b, a = _basis(c, blocks)
    r, k, s, _ = b.shape
    b = b.reshape(r, k * s, s)
    a = a.transpose(0, 1, 3, 2, 4).reshape(r, k * s, k * s)
    # in units of r̄ itself, not of the decayed functions: so the noise of all entries is alike, but for the averaging
    # over long blocks, whose slow modes must not drown in the ridge
    width = np.repeat([float(j - i) for i, j in blocks], s)
    size = np.tile(np.sqrt(np.einsum("raa->ra", c[:, 0])), (1, k)) / width**SLOW
    size = np.where(size > 0, size, np.inf)
    scaled = a / size[:, :, None] / size[:, None, :]
    values, vectors = np.linalg.eigh(0.5 * (scaled + scaled.transpose(0, 2, 1)))
    # directions that noise could have made are damped; any θ gives a bound, so this costs tightness only
    noise = NOISE * float(np.sqrt(scaled[1:].var(axis=0).mean())) if r > 2 else 0.0
    inverse = np.maximum(values, 0.0) / (np.square(np.maximum(values, 0.0)) + noise**2 + FLOOR**2)
    right = b / size[:, :, None]
    return np.einsum("rij,rj,rkj,rka->ria", vectors, inverse, vectors, right, optimize=True) / size[:, :, None]


def _joint_change(moments: NDArray, blocks: list[tuple[int, int]], theta: NDArray) -> NDArray[np.float64]:
    """What the coefficients take off Λ_ab, times ⟨τ⟩, shape (R, S, S, 3, 3)."""
    b, a = _basis(moments, blocks)
    r, k, s = b.shape[:3]
    t = theta.reshape(r, k, s, s)
    linear = np.einsum("rkcaxy,rkcb->rabxy", b, t, optimize=True)
    linear = linear + linear.transpose(0, 2, 1, 4, 3)
    return linear - np.einsum("rkca,rklcdxy,rldb->rabxy", t, a, t, optimize=True)


def _basis(c: NDArray, blocks: list[tuple[int, int]]) -> tuple[NDArray, NDArray]:
    """B (R, K, S, S, …) and A (R, K, K, S, S, …) of averages over blocks of powers, from moments (R, M, S, S, …)."""
    b = np.stack([c[:, i:j].mean(axis=1) for i, j in blocks], axis=1)
    rows = []
    for i, j in blocks:
        line = []
        for m, n in blocks:
            total = np.convolve(np.ones(j - i), np.ones(n - m)) / ((j - i) * (n - m))
            lags = i + m + np.arange(len(total))
            line.append(np.tensordot(total, np.moveaxis(c[:, lags] - c[:, lags + 1], 1, 0), axes=1))
        rows.append(np.stack(line, axis=1))
    return b, np.stack(rows, axis=1)


def _choose(options: list[NDArray]) -> Rungs:
    """Stop where no later rung gains more than its error."""
    table = np.array(options)  # (rungs + 1, 1 + R)
    gain = table[:-1] - table[1:]
    value, error = table[:, 0], table[:, 1:].std(axis=1, ddof=1)
    gain_error = gain[:, 1:].std(axis=1, ddof=1)
    chosen = 0
    for top in range(1, len(table)):
        total = table[chosen] - table[top]
        if total[0] > total[1:].std(ddof=1):
            chosen = top
    return Rungs(value, error, gain[:, 0], gain_error, chosen, _tail(value, chosen))


def _at(rungs: Rungs, chosen: int) -> Rungs:
    return Rungs(rungs.value, rungs.error, rungs.gain, rungs.gain_error, chosen, _tail(rungs.value, chosen))


def _tail(value: NDArray, chosen: int) -> float:
    """Remaining gain if the last gains went on falling by their common factor (Aitken)."""
    if chosen < 2:
        return float("nan")
    last, before = value[chosen - 1] - value[chosen], value[chosen - 2] - value[chosen - 1]
    if last <= 0 or before <= 0:
        return 0.0
    factor = min(last / before, 0.9)
    return float(last * factor / (1.0 - factor))
