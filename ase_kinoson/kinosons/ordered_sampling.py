"""Estimating a total from units drawn one after another without replacement, with probabilities that may learn.

Let y_u be the values of N units, known only once drawn, and c_u a guess of each that may be changed at any time. If the
m-th unit is drawn from those that remain, R, with probability q_m(u), then

    T_m = Σ_{drawn before} y + Σ_R c + (y_u − c_u)/q_m(u)

has the mean Σ y given all that happened before (D. Raj, J. Am. Stat. Assoc. 51, 269 (1956); the guess makes it a
difference estimator). Averages Σ β_m T_m with weights fixed beforehand are therefore unbiased whatever the guesses and
probabilities learned on the way, and the T_m are uncorrelated, so that their scatter gives the error.

All of this holds for a number of units fixed beforehand. Who stops when the scatter looks small stops more often while
the rare large values are still missing, which makes both the total and its error too small. The variance of T_m that a
model expects, V = Σ_R ⟨(y − c)²⟩/q, knows of values that were not drawn yet; :meth:`OrderedEstimate.planned` turns it
into the error to require as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["OrderedEstimate"]


@dataclass
class OrderedEstimate:
    """Estimates of a few totals at a time, one T_m per drawn unit.

    Attributes
    ----------
    n_units : int
        N.
    totals : list of ndarray, shape (n_quantities,)
        T_m.
    weights : list of float
        β_m, not normalised: √t/(r(r − 1)) for a unit of round t drawn from r. 1/(r(r − 1)) is optimal for equal
        probabilities; √t serves learning that is neither fast nor slow (A. B. Owen and Y. Zhou, "The square root rule
        for adaptive importance sampling", ACM Trans. Model. Comput. Simul. 30, 13 (2020)).
    drawn : ndarray, shape (n_quantities,)
        Σ of the values drawn.
    n_drawn : int
    values : list of ndarray, shape (n_quantities,)
        y of every drawn unit.
    probabilities : list of float
        q of every drawn unit.
    """

    n_units: int
    totals: list[NDArray[np.float64]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    drawn: NDArray[np.float64] | float = 0.0
    n_drawn: int = 0
    values: list[NDArray[np.float64]] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)

    def add(
        self, units: NDArray, probabilities: NDArray, values: NDArray, guesses: NDArray, remaining: NDArray, *, rnd: int
    ) -> None:
        """Take in the units of one round, in the order in which they were drawn.

        Parameters
        ----------
        units : ndarray of int, shape (m,)
        probabilities : ndarray, shape (m,)
            Of each among those that remained when it was drawn.
        values : ndarray, shape (n_quantities, m)
        guesses : ndarray, shape (n_quantities, n_units)
            As they were before the round.
        remaining : ndarray of bool, shape (n_units,)
            Units not drawn before the round.
        rnd
            Number of the round, from 1.
        """
        left = guesses[:, remaining].sum(axis=1)
        for m, unit in enumerate(units.tolist()):
            r = self.n_units - self.n_drawn
            guess = guesses[:, unit]
            if r > 1:
                self.totals.append(self.drawn + left + (values[:, m] - guess) / probabilities[m])
                self.weights.append(float(np.sqrt(rnd)) / (r * (r - 1.0)))
            left = left - guess
            self.drawn = self.drawn + values[:, m]
            self.n_drawn += 1
            self.values.append(values[:, m])
            self.probabilities.append(float(probabilities[m]))

    def revise(self, values: NDArray, known: NDArray) -> None:
        """Replace values of units drawn before, where later ones told better.

        Parameters
        ----------
        values : ndarray, shape (n_quantities, n_drawn)
            In the order in which they were drawn.
        known : ndarray of bool, shape (n_drawn,)
            Which to replace.
        """
        for m in np.flatnonzero(known).tolist():
            change = values[:, m] - self.values[m]
            if not change.any():
                continue
            self.values[m] = values[:, m]
            self.drawn = self.drawn + change
            for n, total in enumerate(self.totals[m:], start=m):
                self.totals[n] = total + (change if n > m else change / self.probabilities[m])

    @property
    def is_complete(self) -> bool:
        """Whether all units are drawn, so that the totals are known."""
        return self.n_drawn == self.n_units

    def mean(self) -> NDArray[np.float64]:
        """Estimates of the totals, shape (n_quantities,)."""
        if self.is_complete:
            return np.asarray(self.drawn)
        beta = np.array(self.weights)
        return beta @ np.array(self.totals) / beta.sum()

    def planned(self, variance: float) -> float:
        """Standard error of a total if every T_m has the variance given; 0 once all units are drawn."""
        if self.is_complete:
            return 0.0
        if len(self.weights) == 0:
            return float("inf")
        beta = np.array(self.weights)
        return float(np.sqrt(variance * (beta @ beta)) / beta.sum())

    def ratio(self, numerator: int, denominator: int) -> tuple[float, float]:
        """Ratio of two totals and its standard error, to first order."""
        total = self.mean()
        value = float(total[numerator] / total[denominator])
        if self.is_complete:
            return value, 0.0
        beta = np.array(self.weights) / np.sum(self.weights)
        if len(beta) < 2:
            return value, float("inf")
        rows = np.array(self.totals)
        residual = (rows[:, numerator] - value * rows[:, denominator]) / total[denominator]
        # the estimate is pulled to each of its terms by β_m
        return value, float(np.sqrt((beta**2 * residual**2 / (1.0 - beta)).sum()))
