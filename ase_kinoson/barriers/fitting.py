"""Ridge regression, splits by groups that do not leak, and errors on what was held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ase_kinoson.errors import BarrierError

__all__ = ["Ridge", "RidgeData", "fit_ridge", "held_out_errors", "split_groups"]

PENALTIES = tuple(float(p) for p in 10.0 ** np.arange(-2.0, 4.1, 0.5))
DEFAULT_PENALTY = 10.0
FOLDS = 5


@dataclass(frozen=True)
class RidgeData:
    """Rows of one kind.

    Attributes
    ----------
    design : ndarray, shape (n, n_features)
    target : ndarray, shape (n,)
    groups : ndarray of int, shape (n,)
    centred : bool
        Whether a constant is fitted along with these rows.
    weights : ndarray, shape (n,), optional
        Weight of each squared error; equal weights by default. Their mean does not matter.
    """

    design: NDArray[np.float64]
    target: NDArray[np.float64]
    groups: NDArray[np.int64]
    centred: bool
    weights: NDArray[np.float64] | None = None

    @cached_property
    def relative_weights(self) -> NDArray[np.float64]:
        """Weights with mean 1."""
        n = len(self.target)
        return np.ones(n) if self.weights is None else self.weights / self.weights.mean()

    @classmethod
    def join(cls, parts: Sequence[RidgeData]) -> RidgeData:
        """Rows of several sets as one kind; each set keeps its own constant, which is taken out here."""
        if len(parts) == 1:
            return parts[0]
        means = [p.centres() for p in parts]
        return cls(
            np.concatenate([p.design - m[0] for p, m in zip(parts, means, strict=True)]),
            np.concatenate([p.target - m[1] for p, m in zip(parts, means, strict=True)]),
            np.concatenate([p.groups for p in parts]),
            False,
            np.concatenate([np.ones(len(p.target)) if p.weights is None else p.weights for p in parts]),
        )

    def centres(self) -> tuple[NDArray[np.float64], float]:
        """Weighted mean row and target, zero where no constant is fitted."""
        if not self.centred:
            return np.zeros(self.design.shape[1]), 0.0
        w = self.relative_weights / len(self.target)
        return w @ self.design, float(w @ self.target)


@dataclass(frozen=True)
class Ridge:
    """Coefficients, the constant of the centred rows, and how they were found."""

    coefficients: NDArray[np.float64]
    constant: float
    report: dict[str, float | int] = field(default_factory=dict)


def split_groups(groups: ArrayLike, fractions: Sequence[float], *, seed: int) -> list[NDArray[np.int64]]:
    """Split rows into parts that share no group.

    Parameters
    ----------
    groups : array_like of int, shape (n,)
    fractions
        Share of the groups that each part after the first gets; at least one group where the share is not 0.
    seed
        Seed of the shuffle.

    Returns
    -------
    list of ndarray
        Row indices of the first part (what is left) and of each further part.
    """
    g = np.asarray(groups)
    labels = np.unique(g)
    order = np.random.default_rng(seed).permutation(len(labels))
    sizes = [0 if f <= 0 else max(1, round(f * len(labels))) for f in fractions]
    if len(labels) - sum(sizes) < 1:
        raise BarrierError(
            f"found {len(labels)} independent groups of states; expected at least {sum(sizes) + 1} to train, "
            f"validate and test on "
            "different ones; compute more states, or set the fractions to 0"
        )
    parts, first = [], 0
    for size in sizes:
        parts.append(np.flatnonzero(np.isin(g, labels[order[first : first + size]])))
        first += size
    return [np.flatnonzero(np.isin(g, labels[order[first:]])), *parts]


def fit_ridge(
    blocks: Sequence[RidgeData],
    *,
    weight: float | None = None,
    ridge: float | None = None,
    free: int = 0,
    iterations: int = 3,
) -> Ridge:
    """Fit one set of coefficients to one or two kinds of rows.

    Parameters
    ----------
    blocks
        The first kind has weight 1 and decides the penalty.
    weight
        Weight of the second kind; default: ratio of the mean squared held-out residuals, iterated.
    ridge
        Penalty on the squared coefficients; default by five-fold cross-validation over groups.
    free
        The first ``free`` coefficients are hardly penalised.
    """
    n_features = blocks[0].design.shape[1]
    labels = np.unique(np.concatenate([b.groups for b in blocks]))
    folds = min(FOLDS, len(labels))
    fold_of = np.random.default_rng(0).permutation(np.arange(len(labels)) % folds)
    means = [b.centres() for b in blocks]
    root = [np.sqrt(b.relative_weights) for b in blocks]
    x = [(b.design - m[0]) * r[:, None] for b, m, r in zip(blocks, means, root, strict=True)]
    y = [(b.target - m[1]) * r for b, m, r in zip(blocks, means, root, strict=True)]
    fold = [fold_of[np.searchsorted(labels, b.groups)] for b in blocks]
    grams = [[x[k][fold[k] == f].T @ x[k][fold[k] == f] for f in range(folds)] for k in range(len(blocks))]
    sides = [[x[k][fold[k] == f].T @ y[k][fold[k] == f] for f in range(folds)] for k in range(len(blocks))]
    shape = np.ones(n_features)
    shape[:free] = 1e-4

    def held_out(penalty: float, w: Sequence[float]) -> list[float]:
        errors = [0.0] * len(blocks)
        for f in range(folds):
            gram = sum(w[k] * sum(g for i, g in enumerate(grams[k]) if i != f) for k in range(len(blocks)))
            side = sum(w[k] * sum(g for i, g in enumerate(sides[k]) if i != f) for k in range(len(blocks)))
            theta = _solve(np.asarray(gram), np.asarray(side), penalty * shape)
            for k in range(len(blocks)):
                own = fold[k] == f
                errors[k] += float(np.sum((y[k][own] - x[k][own] @ theta) ** 2))
        return [e / len(t) for e, t in zip(errors, y, strict=True)]

    second = 1.0 if weight is None else float(weight)
    if weight is None and len(blocks) == 2:
        second = min(1.0, float(np.var(y[0])) / max(float(np.var(y[1])), 1e-12))
    chosen = DEFAULT_PENALTY if ridge is None else float(ridge)
    errors = [float("nan")] * len(blocks)
    if folds >= 2:
        for _ in range(iterations if (weight is None and len(blocks) == 2) else 1):
            w = [1.0, second][: len(blocks)]
            trials = [chosen] if ridge is not None else list(PENALTIES)
            scores = [held_out(p, w) for p in trials]
            best = int(np.argmin([s[0] for s in scores]))
            chosen, errors = trials[best], scores[best]
            if weight is None and len(blocks) == 2:
                second = float(np.clip(errors[0] / max(errors[1], 1e-12), 1e-6, 1.0))
    w = [1.0, second][: len(blocks)]
    gram = sum(w[k] * sum(grams[k]) for k in range(len(blocks)))
    side = sum(w[k] * sum(sides[k]) for k in range(len(blocks)))
    theta = _solve(np.asarray(gram), np.asarray(side), chosen * shape)
    constant = 0.0
    for b, m in zip(blocks, means, strict=True):
        if b.centred:
            constant = m[1] - float(m[0] @ theta)
    report: dict[str, float | int] = {"penalty": chosen, "folds": folds, "rows": sum(len(t) for t in y)}
    names = ["change", "total"] if len(blocks) == 2 else ["target"]
    for name, e in zip(names, errors, strict=True):
        report[f"cross_validated_rmse_{name}"] = float(np.sqrt(e))
    if len(blocks) == 2:
        report["weight_total"] = second
    return Ridge(theta, constant, report)


def _solve(gram: NDArray, side: NDArray, penalty: NDArray) -> NDArray[np.float64]:
    matrix = gram + np.diag(penalty)
    try:
        return cho_solve(cho_factor(matrix), side)
    except LinAlgError:
        return np.linalg.lstsq(matrix, side, rcond=None)[0]


def held_out_errors(
    species: tuple[str, ...],
    moving: NDArray,
    test: Mapping[str, tuple[NDArray, NDArray]],
    train_moving: NDArray,
    train: Mapping[str, NDArray],
    *,
    weights: NDArray | None = None,
) -> dict[str, Any]:
    """Errors of the model and of the mean of each species, for all jumps and by moving species.

    With unequal ``weights`` (n,) each summary also holds ``weighted_mae`` and ``weighted_bias``.
    """

    def summary(error: NDArray, weight: NDArray | None) -> dict[str, float | int]:
        found: dict[str, float | int] = {
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
            "bias": float(error.mean()),
            "n": len(error),
        }
        if weight is not None and weight.sum() > 0:
            found["weighted_mae"] = float(np.average(np.abs(error), weights=weight))
            found["weighted_bias"] = float(np.average(error, weights=weight))
        return found

    given = weights is not None and len(weights) > 0 and float(np.ptp(weights)) > 0

    result: dict[str, Any] = {}
    for code in (0, *range(1, len(species))):
        rows = np.ones(len(moving), dtype=bool) if code == 0 else moving == code
        if not rows.any():
            continue
        entry = {}
        weight = weights[rows] if given and weights is not None else None
        for name, (found, true) in test.items():
            overall = float(train[name].mean())
            means = np.array(
                [
                    train[name][train_moving == c].mean() if np.any(train_moving == c) else overall
                    for c in range(len(species))
                ]
            )
            entry[name] = {
                "model": summary((found - true)[rows], weight),
                "baseline": summary((means[moving] - true)[rows], weight),
            }
        result["all" if code == 0 else species[code]] = entry
    return result
