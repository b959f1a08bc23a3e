"""`CompositionRange`: the compositions a model was fitted on, and how far others are from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from ase_kinoson.errors import FarFromTraining, ModelError

__all__ = ["DEFAULT_LIMIT", "CompositionRange", "mean_fractions"]

DEFAULT_LIMIT = 10.0
"""Distance from the trained range, at.%, beyond which a prediction is refused."""

INSIDE = 1.0
"""Distance that counts as inside, at.%: whole numbers of atoms, and the vacancy, move compositions by that much."""


@dataclass(frozen=True, eq=False)
class CompositionRange:
    """Compositions that a model has seen.

    Attributes
    ----------
    species : tuple of str
    points : ndarray, shape (n, n_species)
        Atomic fractions of each set of training states; rows sum to 1.
    """

    species: tuple[str, ...]
    points: NDArray[np.float64]

    @classmethod
    def of(cls, model: Any) -> CompositionRange | None:
        """Range of a model, from its report; None where it does not tell."""
        report = getattr(model, "report", {}).get("compositions")
        if not report:
            return None
        species = tuple(report[0])
        return cls(species, np.array([[row[s] for s in species] for row in report]))

    def distance(self, composition: Mapping[str, float]) -> float:
        """Distance to the convex hull of the trained compositions, at.%; 0 inside.

        The share of the atoms that must become another species, ½ Σ_i |x_i − x'_i|, to the nearest mixture x' of
        trained compositions (a linear programme).
        """
        x = self._row(composition)
        n, s = self.points.shape
        # minimise ½ Σ t with −t ≤ x − Σ λ p ≤ t
        cost = np.concatenate([np.zeros(n), np.full(s, 0.5)])
        upper = np.block([[self.points.T, -np.eye(s)], [-self.points.T, -np.eye(s)]])
        sums = np.concatenate([np.ones(n), np.zeros(s)])[None]
        found = linprog(cost, A_ub=upper, b_ub=np.concatenate([x, -x]), A_eq=sums, b_eq=[1.0])
        return 100.0 * max(0.0, float(found.fun))

    def nearest(self, composition: Mapping[str, float]) -> tuple[dict[str, float], float]:
        """Nearest trained composition, and its distance in at.%."""
        gaps = 0.5 * np.abs(self.points - self._row(composition)).sum(axis=1)
        row = self.points[int(np.argmin(gaps))]
        return dict(zip(self.species, row.tolist(), strict=True)), 100.0 * float(gaps.min())

    def check(self, compositions: Sequence[Mapping[str, float]], *, limit: float = DEFAULT_LIMIT) -> list[float]:
        """Distances of compositions, at.%; one warning where some are outside.

        Parameters
        ----------
        compositions
            Atomic fractions.
        limit
            Largest distance allowed, at.%.

        Raises
        ------
        ModelError
            If a composition is farther than ``limit`` from the trained range.

        Warns
        -----
        FarFromTraining
            If a composition is outside by more than 1 at.%.
        """
        if not limit >= 0:
            raise ModelError(f"found a limit of {limit} at.%; expected at least 0; correct it")
        gaps = [self.distance(x) for x in compositions]
        if not gaps:
            return gaps
        worst = int(np.argmax(gaps))
        if gaps[worst] <= INSIDE:
            return gaps
        outside = sum(g > INSIDE for g in gaps)
        near, far = self.nearest(compositions[worst])
        many = f"{outside} of {len(gaps)} compositions outside" if len(gaps) > 1 else "a composition outside"
        text = (
            f"found {many} the trained range, by up to {gaps[worst]:.1f} at.% at {written(compositions[worst])} "
            f"(the nearest trained composition, {written(near)}, is {far:.1f} at.% away)"
        )
        if gaps[worst] > limit:
            raise ModelError(
                f"{text}; expected at most {limit:g} at.%; add barriers of such compositions to the fit, or raise the "
                "limit"
            )
        warnings.warn(
            FarFromTraining(
                f"{text}; expected compositions between those of the fit",
                number=float(gaps[worst]),
                limit=0.0,
                unit="at.%",
                advice="predictions there are extrapolated; add barriers of such compositions to the fit",
            ),
            stacklevel=3,
        )
        return gaps

    def _row(self, composition: Mapping[str, float]) -> NDArray[np.float64]:
        missing = sorted(s for s, x in composition.items() if x > 0 and s not in self.species)
        if missing:
            raise ModelError(
                f"found {missing} in a composition; expected species among {list(self.species)}, which the model "
                "knows; fit a model with these species"
            )
        return np.array([float(composition.get(s, 0.0)) for s in self.species])


def mean_fractions(occupations: NDArray, weights: NDArray, species: Sequence[str]) -> dict[str, float]:
    """Mean atomic fractions of states, by symbol; ``species[0]`` is the empty site."""
    counts = np.array([(occupations == code).sum(axis=1) for code in range(1, len(species))]) @ weights
    return dict(zip(species[1:], (counts / counts.sum()).tolist(), strict=True))


def written(composition: Mapping[str, float]) -> str:
    """A composition as text, in at.%."""
    return " ".join(f"{s}{100 * x:.3g}" for s, x in composition.items() if x > 0)
