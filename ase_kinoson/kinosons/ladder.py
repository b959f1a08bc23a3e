"""The residual ladder: a sequence of upper bounds that converges to the exact coefficients.

With r̄ what a relaxation leaves and P the kernel of the jump chain, y' = y + Σ_i θ_i u_i with u_i made of r̄, P r̄, P² r̄ …
is a better relaxation, and its bound needs the moments c_m = ⟨r̄ ⊗ P^m r̄⟩ only:

    Λ_ab[y'] = Λ_ab[y] − (1/⟨τ⟩) (θ^b·B^a + θ^a·B^b − θ^a·A θ^b),    B_i = ⟨r̄ u_i⟩,    A_ij = ⟨u_i (1 − P) u_j⟩.

The best θ solves A θ = B: the Rayleigh–Ritz value, the tightest bound that so many moments allow. Every θ gives a
bound; θ is found on some groups of trajectories and evaluated on the others (cross-fitting), so that noise in the
moments does not pose as a lower bound. The u_i are the first powers of P one by one, then averages over longer and
longer blocks of powers: slow modes need long times but few parameters.

What may still be missing, the tail, has two sources: modes slower than the trajectories, judged by what the last rung
gained, and noise that keeps θ from its best, judged by what θ from half of the groups does worse. The tail enters the
errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.resampling import draw_groups
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

CANCELLED = 1e-9
"""What is left of a bound below this part of it is rounding of the moments that are taken off."""

CHUNK = 64
"""Resamples whose matrices are held at a time; bounds memory."""


ROWS_OF_TAIL = 65
"""Resamples that tell the noise where only the tail is wanted."""


SLOWEST = 0.85
"""Largest factor between the gains of two doublings of time with which the tail is summed up."""


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
        Estimate of what is still missing below the chosen rung, Å²/s; 0 where nothing points to it.
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
    n_groups, n_jumps : int
        Independent groups of trajectories, and jumps made.
    apart : mapping of str to (float, float)
        Distance of the ladder from the slope of the plain ladder between its two longest lags, and its error, Å²/s.
    n_continued : int
        Jumps of the walkers that :attr:`collective` and :attr:`tracer` come from where the rungs did not settle; 0:
        they are those of the chosen rung.
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
    apart: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n_continued: int = 0

    def refuse_rounding(self) -> None:
        """Refuse values that are differences of nearly equal numbers.

        Raises
        ------
        KinosonError
            If the ladder takes nearly all of a bound off, so that what is left is rounding, of either sign.
        """
        for name, rungs in self.rungs.items():
            bound, value = float(rungs.value[0]), float(rungs.value[rungs.chosen])
            if not np.isfinite([bound, value]).all():
                raise KinosonError(
                    f"found a ladder of {name} that leads from {bound:.3g} to {value:.3g} Å²/s; expected numbers; "
                    "check the rates of the model"
                )
            if bound > 0 and value <= CANCELLED * bound:
                raise KinosonError(
                    f"the ladder of {name} takes the bound down to {value / bound:.1e} of it; expected more than "
                    f"{CANCELLED:g}, below which numbers of this size are rounding; the carrier is trapped: take "
                    "exact_transport on a small cell, let walkers go on with long_jumps=, or keep the bound"
                )

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
        widen: bool = True,
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
        widen
            Whether the tail enters the errors; what a bound misses is no error of the bound.

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
        counts = np.concatenate([np.ones((1, n)), draw_groups(n, n_resamples, rng).astype(float)])
        fold = rng.permutation(n) % N_FOLDS
        blocks = powers(moments.moments.shape[1] - 1)
        if max_rung is not None:
            blocks = blocks[:max_rung]
        grid = np.ix_(index, index)
        whole = moments.resampled(counts, ("time", "square", "bare", "tracer_square", "check"))
        time = whole["time"]

        def per_time(x: NDArray) -> NDArray:
            return x / time.reshape(-1, *([1] * (x.ndim - 1)))

        def scalar(x: NDArray) -> NDArray:
            return np.einsum("...xy,xy->...", x, projector) / dimension

        square = per_time(whole["square"])[:, grid[0], grid[1]]
        bare = per_time(whole["bare"])[:, grid[0], grid[1]]
        folds = [fold == f for f in range(N_FOLDS)]

        # collective: one basis of all species and powers serves every species, hence the carrier
        change = _cross_fitted(
            moments.moments[:, :, grid[0], grid[1]], moments.weight, counts, folds, blocks, projector
        )
        options = [square, *(square - per_time(x) for x in change)]
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
                own = moments.tracer_moments[:, :, index[a], None, None]
                change = _cross_fitted(own, moments.weight, counts, folds, blocks, projector)[:, :, 0, 0]
                own_options = [tracer_square[:, a], *(tracer_square[:, a] - per_time(x) for x in change)]
                rungs[f"tracer {name}"] = _choose([scalar(x) for x in own_options])
                tracer[:, a] = own_options[rungs[f"tracer {name}"].chosen]
        # what θ found on half of the groups does worse is about what more groups would still gain
        few, half = counts[:ROWS_OF_TAIL], rng.permutation(n) % 2 == 0
        collective = options[chosen].copy()
        if chosen:
            moved = moments.moments[:, :, grid[0], grid[1]]
            less = (
                square[0]
                - _cross_fitted(moved, moments.weight, few, folds, blocks[:chosen], projector, half)[-1, 0] / time[0]
            )
            worse = {carrier: scalar((less - collective[0]).sum(axis=(0, 1)))}
            worse |= {name: scalar(less[a, a] - collective[0, a, a]) for a, name in enumerate(names)}
            rungs |= {k: _with_tail(rungs[k], float(v), blocks) for k, v in worse.items()}
        for a, name in enumerate(names if tracer is not None else ()):
            assert tracer is not None and tracer_square is not None
            key, top = f"tracer {name}", rungs[f"tracer {name}"].chosen
            if top:
                own = moments.tracer_moments[:, :, index[a], None, None]
                change = _cross_fitted(own, moments.weight, few, folds, blocks[:top], projector, half)[-1, 0, 0, 0]
                less = tracer_square[0, a] - change / time[0] - tracer[0, a]
                rungs[key] = _with_tail(rungs[key], float(scalar(less)), blocks)
        check = per_time(whole["check"])[:, :, grid[0], grid[1]]
        plain = {carrier: scalar(check.sum(axis=(2, 3)))}
        plain |= {name: scalar(check[:, :, a, a]) for a, name in enumerate(names)}
        found = {carrier: scalar(options[chosen].sum(axis=(1, 2)))}
        found |= {name: scalar(options[chosen][:, a, a]) for a, name in enumerate(names)}
        apart = {key: _apart(rows, plain[key]) for key, rows in found.items()} if plain[carrier].shape[1] > 1 else {}
        luck = rng.standard_normal(n_resamples)
        scale = np.stack([_widened(rungs[name], luck) for name in names], axis=1)
        if widen:
            collective[1:] *= np.sqrt(scale[:, :, None] * scale[:, None, :])[..., None, None]
        if widen and tracer is not None:
            tracer[1:] *= np.stack([_widened(rungs[f"tracer {name}"], luck) for name in names], axis=1)[..., None, None]
        return cls(
            collective,
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
            apart,
        )


def _cross_fitted(
    moments: NDArray,
    weight: NDArray,
    counts: NDArray,
    folds: list[NDArray],
    blocks: list[tuple[int, int]],
    projector: NDArray,
    fit: NDArray | None = None,
) -> NDArray[np.float64]:
    """What every rung takes off Λ_ab, times ⟨τ⟩, shape (K, R, S, S, 3, 3), from sums (n_groups, M, S, S, 3, 3).

    Each fold of groups is judged with the coefficients that the other folds found; ``fit`` marks groups that may help
    to find them (default: all).
    """
    change = np.zeros((len(blocks), len(counts), *moments.shape[2:]))
    traces = np.einsum("gmabxy,xy->gmab", moments, projector, optimize=True)
    total = counts @ weight
    for own in folds:
        use = ~own if fit is None else ~own & fit
        theta = _joint(_means(traces[use], weight[use], counts[:, use]), blocks)
        part, part_weight = moments[own], weight[own]
        for first in range(0, len(counts), CHUNK):
            rows = slice(first, first + CHUNK)
            multiple = counts[rows][:, own]
            share = (multiple @ part_weight) / total[rows]
            found = _joint_change(_means(part, part_weight, multiple), blocks, [t[rows] for t in theta])
            change[:, rows] += np.nan_to_num(found * share[:, None, None, None, None])
    return change


def _means(values: NDArray, weight: NDArray, counts: NDArray) -> NDArray[np.float64]:
    """Weighted means of sums over groups, NaN where no group is left, shape (R, ...)."""
    total = counts @ weight
    total = np.where(total > 0, total, np.nan)
    flat = counts @ values.reshape(len(values), -1)
    return (flat / total[:, None]).reshape(len(counts), *values.shape[1:])


def _joint(c: NDArray, blocks: list[tuple[int, int]]) -> list[NDArray[np.float64]]:
    """Best θ^a for every species of the first 1, 2 … K blocks, shapes (R, S K, S), from traces of c_m, (R, M, S, S)."""
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
    scaled = 0.5 * (scaled + scaled.transpose(0, 2, 1))
    right = b / size[:, :, None]
    known = np.isfinite(scaled.reshape(r, -1).sum(axis=1))  # resamples without any group to fit
    scaled[~known], right[~known] = 0.0, 0.0
    size[~known] = np.inf
    several = known[1:].sum() > 1
    variance = scaled[1:][known[1:]].var(axis=0) if several else np.zeros(scaled.shape[1:])
    theta = []
    for n in range(s, k * s + 1, s):
        values, vectors = np.linalg.eigh(scaled[:, :n, :n])
        # directions that noise could have made are damped; any θ gives a bound, so this costs tightness only
        noise = NOISE**2 * float(variance[:n, :n].mean())
        values = np.maximum(values, 0.0)
        inverse = values / (np.square(values) + noise + FLOOR**2)
        projected = vectors.transpose(0, 2, 1) @ right[:, :n]
        theta.append(vectors @ (inverse[:, :, None] * projected) / size[:, :n, None])
    return theta


def _joint_change(moments: NDArray, blocks: list[tuple[int, int]], theta: list[NDArray]) -> NDArray[np.float64]:
    """What the coefficients take off Λ_ab, times ⟨τ⟩, shape (K, R, S, S, 3, 3): one row for each θ."""
    b, a = _basis(moments, blocks)
    r, k, s = b.shape[:3]
    b = b.reshape(r, k * s, s * 9)
    a = np.ascontiguousarray(a.transpose(0, 1, 3, 2, 4, 5, 6)).reshape(r, k * s, k * s, 9)
    change = np.empty((len(theta), r, s, s, 3, 3))
    for row, t in zip(change, theta, strict=True):
        n = t.shape[1]
        left = t.transpose(0, 2, 1)
        linear = (left @ b[:, :n]).reshape(r, s, s, 3, 3)
        half = (left @ a[:, :n, :n].reshape(r, n, n * 9)).reshape(r, s, n, 9)
        square = half.transpose(0, 1, 3, 2).reshape(r, s * 9, n) @ t
        row[:] = linear + linear.transpose(0, 2, 1, 4, 3)
        row -= square.reshape(r, s, 3, 3, s).transpose(0, 1, 4, 2, 3)
    return change


def _basis(c: NDArray, blocks: list[tuple[int, int]]) -> tuple[NDArray, NDArray]:
    """B (R, K, S, S, …) and A (R, K, K, S, S, …) of averages over blocks of powers, from moments (R, M, S, S, …)."""
    k, n_lags = len(blocks), c.shape[1]
    single = np.zeros((k, n_lags))
    pairs = np.zeros((k, k, n_lags))
    for row, (i, j) in enumerate(blocks):
        single[row, i:j] = 1.0 / (j - i)
        for column, (m, n) in enumerate(blocks):
            total = np.convolve(np.ones(j - i), np.ones(n - m)) / ((j - i) * (n - m))
            lags = i + m + np.arange(len(total))
            pairs[row, column, lags] += total
            pairs[row, column, lags + 1] -= total
    flat = c.reshape(len(c), n_lags, -1)
    b, a = single @ flat, pairs.reshape(k * k, n_lags) @ flat
    return b.reshape(len(c), k, *c.shape[2:]), a.reshape(len(c), k, k, *c.shape[2:])


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
    return Rungs(value, error, gain[:, 0], gain_error, chosen, 0.0)


def _at(rungs: Rungs, chosen: int) -> Rungs:
    return replace(rungs, chosen=chosen)


def _with_tail(rungs: Rungs, worse: float, blocks: list[tuple[int, int]]) -> Rungs:
    """Add up what slow modes and noise may still hide.

    Slow modes: what the last doubling of the time gained, and all further doublings if gains went on changing by the
    same factor. A mode so slow that it does not show within the trajectories cannot be seen by any such estimate.
    """
    ends = np.array([last for _, last in blocks])
    full, half, quarter = (int((ends <= ends[-1] / f).sum()) for f in (1, 2, 4))
    value = rungs.value
    slow = max(float(value[rungs.chosen] - value[full]), 0.0)
    gain = float(value[half] - value[full])
    noise = float(np.sqrt(np.square(rungs.gain_error[half:full]).sum()))
    if quarter == 0 or quarter == half:  # too short to compare doublings
        slow += max(gain, 0.0) if rungs.chosen == full else 0.0
    elif gain > 3.0 * noise:
        before = max(float(value[quarter] - value[half]), gain)
        factor = min(gain / before, SLOWEST)
        slow += gain * factor / (1.0 - factor)
    elif gain > noise:
        slow += gain
    return replace(rungs, tail=slow + max(worse, 0.0))


def _apart(rows: NDArray, plain: NDArray) -> tuple[float, float]:
    """How far the plain ladder lies below, and the error of that.

    ⟨|X(t) + y(t) − y(0)|²⟩ = 2dΛt + const. once correlations have died out, so that 2Λ(t) − Λ(t/2) is Λ but for noise.
    """
    gap = rows - (2.0 * plain[:, -1] - plain[:, -2])
    return float(gap[0]), float(gap[1:].std(ddof=1))


def _widened(rungs: Rungs, luck: NDArray) -> NDArray[np.float64]:
    """Factors for resamples that widen their spread by the tail; none where nothing is left to widen."""
    value = float(rungs.value[rungs.chosen])
    return np.maximum(1.0 + (rungs.tail / value if value > 0 else 0.0) * luck, 0.05)
