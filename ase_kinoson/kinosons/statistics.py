"""Weighted averages over states with bootstrap errors.

States of one group (one chain, one arrangement) are resampled together; ratios are formed inside each resample, so
that what numerator and denominator have in common cancels in the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics.resampling import draw_groups, standard_error
from ase_kinoson.mson import decode

__all__ = ["Bootstrap", "Quantity", "rows_of_sums"]


@dataclass(frozen=True)
class Quantity:
    """A number (or array) with its error, unit and kind.

    Attributes
    ----------
    value : float or ndarray of any shape
        The number, in ``unit``.
    error : float or ndarray, shape of ``value``
        Value ± error is an interval of 68 %, in ``unit``; 0 for exact results.
    unit : str
        ``"1"`` for a number without one.
    kind : str
        ``"bound"`` (rigorous upper bound), ``"estimate"`` (no bound; error of second order in
        that of y for coefficients, of first for slopes and shares), ``"corrected"`` (residual ladder, of the model's
        rates), ``"ratio estimate"`` (the same carried over to the reference), ``"kmc"``, ``"exact"`` or
        ``"not a bound"`` (states that are no equilibrium sample); docs/error_bars.md#kinds.
    """

    value: float | NDArray[np.float64]
    error: float | NDArray[np.float64]
    unit: str
    kind: str

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        if np.ndim(self.value) == 0:
            value, error = float(self.value), float(self.error)
            if abs(error) < 1e-12 * abs(value):  # rounding of sums, not scatter
                error = 0.0
            return f"{value:.4g} ± {error:.2g}{unit} ({self.kind})"
        return f"{np.array2string(np.asarray(self.value), precision=4)}{unit} ({self.kind})"

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "value": np.asarray(self.value).tolist(),
            "error": np.asarray(self.error).tolist(),
            "unit": self.unit,
            "kind": self.kind,
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Quantity:
        """Undo :meth:`as_dict`.

        Parameters
        ----------
        d
            What :meth:`as_dict` gave; arrays are nested lists of any shape.

        Returns
        -------
        Quantity
            In the unit that ``d`` names.
        """

        def number(x: Any) -> Any:
            return np.asarray(decode(x), dtype=float) if isinstance(x, list | Mapping) else float(x)

        return cls(number(d["value"]), number(d["error"]), str(d["unit"]), str(d["kind"]))


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resampling weights over groups of states.

    Attributes
    ----------
    weights : ndarray, shape (n_states,)
        Statistical weights of the states, sum 1.
    resampled : ndarray, shape (n_resamples, n_states)
        Weights of the states in each resample, rows sum to 1.
    """

    weights: NDArray[np.float64]
    resampled: NDArray[np.float64]

    @classmethod
    def over(cls, weights: NDArray, groups: NDArray, *, n_resamples: int = 400, seed: int = 0) -> Bootstrap:
        """Draw resamples of whole groups with replacement (:func:`draw_groups`); groups without weight are not drawn.

        Raises
        ------
        StatesError
            If there are no states.
        """
        if len(weights) == 0:
            raise StatesError("found no states to average over; expected at least one; sample or compute some first")
        member = np.unique(groups, return_inverse=True)[1]
        counts = _counts(np.bincount(member, weights=weights).astype(float), n_resamples, seed)
        drawn = counts[:, member] * weights
        total = drawn.sum(axis=1, keepdims=True)
        drawn = np.where(total > 0, drawn / np.where(total > 0, total, 1.0), weights)
        return cls(np.asarray(weights) / np.sum(weights), drawn)

    @property
    def has_errors(self) -> bool:
        """Whether there are at least two groups, so that an error can be stated."""
        return len(self.resampled) > 0 and bool(np.any(np.ptp(self.resampled, axis=0) > 0))

    def means(self, values: NDArray) -> tuple[NDArray, NDArray]:
        """Weighted mean and its resamples.

        Parameters
        ----------
        values : ndarray, shape (n_states, ...)

        Returns
        -------
        mean : ndarray, shape (...)
        resampled : ndarray, shape (n_resamples, ...)
        """
        flat = np.asarray(values, dtype=float).reshape(len(self.weights), -1)
        shape = np.shape(values)[1:]
        return (self.weights @ flat).reshape(shape), (self.resampled @ flat).reshape(-1, *shape)

    def rows(self, values: NDArray) -> NDArray[np.float64]:
        """Weighted mean in row 0 and its resamples below, shape (1 + n_resamples, ...)."""
        mean, resampled = self.means(values)
        return np.concatenate([mean[None], resampled])

    def estimate(self, function: Callable[..., NDArray], *values: NDArray) -> tuple[NDArray, NDArray]:
        """Value and standard error of a function of weighted means; the error is NaN where it cannot be known."""
        pairs = [self.means(v) for v in values]
        value = np.asarray(function(*(m for m, _ in pairs)))
        if not self.has_errors:
            return value, np.full_like(np.asarray(value, dtype=float), np.nan)
        spread = np.array([function(*(r[i] for _, r in pairs)) for i in range(len(self.resampled))])
        return value, standard_error(spread)


def _counts(weights: NDArray[np.float64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each group is drawn, shape (n_resamples, n_groups), from the sums of their weights."""
    heavy = weights > 0
    counts = np.zeros((n_resamples, len(weights)))
    if heavy.any():
        counts[:, heavy] = draw_groups(int(heavy.sum()), n_resamples, np.random.default_rng(seed))
    return counts


def rows_of_sums(
    weights: NDArray[np.float64], sums: NDArray[np.float64], *, n_resamples: int = 400, seed: int = 0
) -> tuple[NDArray[np.float64], bool]:
    """What :meth:`Bootstrap.rows` gives, from sums over the states of each group.

    A resample counts each group so and so often; all that it needs of the states is their sum in each group.

    Parameters
    ----------
    weights : ndarray, shape (n_groups,)
        Sum of the weights of each group, in the order of the numbers of the groups.
    sums : ndarray, shape (n_groups, n)
        Sums of weight times value.
    n_resamples, seed
        As in :meth:`Bootstrap.over`.

    Returns
    -------
    rows : ndarray, shape (1 + n_resamples, n)
        Weighted mean and its resamples.
    has_errors : bool
        Whether there are at least two groups with a weight.
    """
    mean = sums.sum(axis=0) / weights.sum()
    counts = _counts(weights, n_resamples, seed)
    total = (counts @ weights)[:, None]
    resampled = np.where(total > 0, (counts @ sums) / np.where(total > 0, total, 1.0), mean)
    return np.concatenate([mean[None], resampled]), int((weights > 0).sum()) > 1 and n_resamples > 1
