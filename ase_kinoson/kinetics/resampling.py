"""Drawing groups of states anew, and the standard error that the drawn averages tell.

From n independent groups n − 2 are drawn with replacement. The scatter of such an average is larger than that of n
drawn ones by √(n/(n − 2)): √(n/(n − 1)) is what a variance from n groups lacks, and the rest is Student's t of n − 1
degrees of freedom at 68 %, to a few parts in a thousand from n = 4 on.

Where few groups make the scatter, it is uncertain for that reason as well. The excess kurtosis of the resamples counts
them: k = Σδ⁴/(Σδ²)² − 3/n, with δ what each group moves the average by. It takes the place of the inverse of the
degrees of freedom.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

__all__ = ["draw_groups", "standard_error"]

ONE_SIGMA = float(ndtr(1.0))
"""Probability below +1 standard deviation of a normal variable."""


def draw_groups(n: int, n_resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each group is in each resample, shape (n_resamples, n): rows sum to n − 2, at least 1.

    Parameters
    ----------
    n
        Number of groups.
    n_resamples
        Number of resamples.
    rng
        Source of random numbers.

    Notes
    -----
    B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, Chapman and Hall (1993).
    """
    return rng.multinomial(max(n - 2, 1), np.full(n, 1.0 / n), size=n_resamples)


def standard_error(resampled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-width of a symmetric interval of 68 % from resamples of :func:`draw_groups`.

    The standard deviation of the resamples, times Student's t of 1/k degrees of freedom at 68 % with k their excess
    kurtosis: 1 where many groups make the scatter, 1.84 where it is a single one. Of R resamples k is known to
    √(24/R); smaller ones are damped.

    Parameters
    ----------
    resampled : ndarray, shape (n_resamples, ...)
        A number in each resample; one row for each.

    Returns
    -------
    ndarray, shape (...)
        In the unit of the numbers; NaN for fewer than two resamples, or if one of them is NaN.

    Notes
    -----
    Why kurtosis and not skewness: at one standard deviation the skewness of the data drops out of the coverage of a
    symmetric interval to first order in 1/n, P. Hall, Ann. Stat. 16, 927 (1988). That 1/k stands for the degrees of
    freedom is a choice: it was measured on sums of rates (docs/error_bars.md).
    """
    rows = np.asarray(resampled, dtype=float)
    if len(rows) < 2:
        return np.full(rows.shape[1:], np.nan)
    apart = rows - rows.mean(axis=0)
    largest = np.abs(apart).max(axis=0)
    apart = apart / np.where(largest > 0, largest, 1.0)  # powers of m²/s would underflow
    variance = np.square(apart).mean(axis=0)
    kurtosis = np.square(np.square(apart)).mean(axis=0) / np.where(variance > 0, np.square(variance), 1.0) - 3.0
    excess = np.maximum(kurtosis, 0.0)
    excess = np.clip(np.square(excess) / (excess + np.sqrt(24.0 / len(rows))), 1e-6, 1.0)
    deviation = largest * np.sqrt(variance * (len(rows) / (len(rows) - 1.0)))
    return np.asarray(deviation * stdtrit(1.0 / excess, ONE_SIGMA))
