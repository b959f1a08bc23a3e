"""`learning_curve`: error of a barrier model against the number of barriers it learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import curve_fit
from tqdm import tqdm

from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.model_fit import TEST, TRAIN, VALIDATION, FitSettings, split_sets
from ase_kinoson.barriers.training_sets import TrainingBarriers, training_sets
from ase_kinoson.errors import BarrierError, ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LearningCurve", "PowerLaw", "learning_curve"]


@dataclass(frozen=True)
class PowerLaw:
    """MAE = a + b n^−c with standard errors; n counts barriers.

    Attributes
    ----------
    a, b, c : float
        eV, eV, 1.
    a_error, c_error : float
    """

    a: float
    b: float
    c: float
    a_error: float
    c_error: float

    def __call__(self, n: ArrayLike) -> NDArray[np.float64]:
        """MAE of models from ``n`` barriers, eV."""
        return self.a + self.b * np.asarray(n, dtype=float) ** -self.c

    def barriers_for(self, mae: float) -> float:
        """Number of barriers for an error, eV; ``inf`` where the law never gets there."""
        return float((self.b / (mae - self.a)) ** (1 / self.c)) if mae > self.a else float("inf")


@dataclass(frozen=True)
class LearningCurve:
    """Held-out errors of models from more and more barriers.

    Attributes
    ----------
    n_barriers : ndarray, shape (n_sizes,)
        Barriers that trained the model or stopped its training, mean over repeats.
    mae, error : ndarray, shape (n_sizes,)
        Mean absolute error of the barriers of held-out states, and its standard error over held-out groups, eV.
    baseline : float
        MAE of the mean barrier of each moving species, eV.
    law : PowerLaw or None
        None where the errors do not determine one.
    report : dict
        Numbers of every single fit.
    """

    n_barriers: NDArray[np.float64]
    mae: NDArray[np.float64]
    error: NDArray[np.float64]
    baseline: float
    law: PowerLaw | None
    report: dict[str, Any] = field(default_factory=dict)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curve, its power law and the error of the species means; return the Axes."""
        if ax is None:
            from matplotlib import pyplot as plt

            _, ax = plt.subplots()
        ax.errorbar(self.n_barriers, 1e3 * self.mae, 1e3 * self.error, fmt="o", label="held out")
        if self.law is not None:
            n = np.geomspace(self.n_barriers.min(), 4 * self.n_barriers.max(), 100)
            text = f"{1e3 * self.law.a:.0f} + {1e3 * self.law.b:.0f} n$^{{-{self.law.c:.2f}}}$"
            ax.plot(n, 1e3 * self.law(n), "-", label=text)
        ax.axhline(1e3 * self.baseline, color="0.6", linestyle=":", label="species means")
        ax.set(xscale="log", xlabel="barriers", ylabel="mean absolute error (meV)", ylim=(0, None))
        ax.legend(frameon=False)
        return ax


def learning_curve(
    barriers: TrainingBarriers | Sequence[TrainingBarriers],
    sizes: Sequence[float] = (0.1, 0.2, 0.4, 0.7, 1.0),
    *,
    repeats: int = 1,
    test_fraction: float = 0.2,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> LearningCurve:
    """Fit models to growing parts of the barriers and measure all on the same held-out states.

    Parameters
    ----------
    barriers
        As in :meth:`BarrierModel.fit`.
    sizes
        Share of the groups that are not held out, above 0 and at most 1, of each fit; no unit.
    repeats
        Random choices of each part (a smaller part lies within the larger ones of the same repeat).
    test_fraction
        Share of the groups that is held out.
    seed
        Seed of all choices.
    progress
        Show a progress bar.
    **options
        As in :meth:`BarrierModel.fit`.

    Raises
    ------
    BarrierError
        If a size is not usable or there are too few groups.
    ModelError
        If an option is unknown.
    """
    shares = sorted({float(s) for s in sizes})
    if not shares or shares[0] <= 0 or shares[-1] > 1:
        raise BarrierError(f"found sizes={list(sizes)}; expected shares above 0 and at most 1; correct them")
    if repeats < 1 or not 0 < test_fraction < 1:
        raise BarrierError(
            f"found repeats={repeats} and test_fraction={test_fraction}; expected at least 1 and a share between 0 "
            "and 1; correct them"
        )
    unknown = sorted(set(options) - set(FitSettings.__dataclass_fields__))
    if unknown:
        raise ModelError(f"found options {unknown}; expected those of BarrierModel.fit; correct them")
    settings = FitSettings(**options)
    sets = training_sets(barriers)
    roles = np.concatenate(split_sets(sets, 0.0, test_fraction, seed=seed))
    groups = np.concatenate([s.states.groups for s in sets])
    cuts = np.cumsum([len(s) for s in sets])[:-1]
    labels = np.unique(groups[roles == TRAIN])
    counts = np.zeros((repeats, len(shares)))
    found: list[list[NDArray]] = [[] for _ in shares]
    baseline = []
    bar = tqdm(total=repeats * len(shares), desc="learning curve", disable=not progress)
    for r in range(repeats):
        order = np.random.default_rng([seed, r]).permutation(labels)
        for k, share in enumerate(shares):
            n = max(2, round(share * len(labels)))
            n_check = 0 if settings.validation_fraction == 0 else max(1, round(settings.validation_fraction * n))
            own = np.full(len(groups), -1)
            own[np.isin(groups, order[n_check:n])] = TRAIN
            own[np.isin(groups, order[:n_check])] = VALIDATION
            own[roles == TEST] = TEST
            model = BarrierModel._fit(sets, np.split(own, cuts), settings, seed=seed + r)
            counts[r, k] = model.report["n_train"] + model.report["n_validation"]
            found[k].append(_by_group(model, sets, np.split(own, cuts)))
            baseline.append(model.report["held_out"]["all"]["barrier"]["baseline"]["mae"])
            bar.update()
    bar.close()
    mean = [np.mean(f, axis=0) for f in found]  # (n_groups, 2): sum of errors, number
    mae = np.array([m[:, 0].sum() / m[:, 1].sum() for m in mean])
    error = np.array(
        [np.sqrt(((m[:, 0] - x * m[:, 1]) ** 2).sum()) / m[:, 1].sum() for m, x in zip(mean, mae, strict=True)]
    )
    n = counts.mean(axis=0)
    singles = [[float(f[:, 0].sum() / f[:, 1].sum()) for f in of] for of in found]
    return LearningCurve(
        n, mae, error, float(np.mean(baseline)), _power_law(n, mae, error), {"mae": singles, "seed": seed}
    )


def _by_group(model: BarrierModel, sets: Sequence[Any], roles: Sequence[NDArray]) -> NDArray[np.float64]:
    """Sum of absolute errors and number of barriers of every held-out group, shape (n_groups, 2)."""
    table: dict[int, NDArray] = {}
    for s, role in zip(sets, roles, strict=True):
        test = s.take(np.flatnonzero(role == TEST))
        if len(test) == 0:
            continue
        gap = np.where(test.weights > 0, model.predict(test.states) - test.barrier, 0.0)
        for g, row, use in zip(test.states.groups, np.abs(gap), test.weights > 0, strict=True):
            table[int(g)] = table.get(int(g), np.zeros(2)) + np.array([row[use].sum(), use.sum()])
    return np.array([table[g] for g in sorted(table)])


def _power_law(n: NDArray, mae: NDArray, error: NDArray) -> PowerLaw | None:
    """The law where it is determined: at least four sizes, exponent known to half of itself, errors that fall."""
    if len(n) < 4 or mae[-1] >= mae[0]:
        return None
    # errors of different sizes come from the same held-out states and move together: equal relative weights
    try:
        theta, cov = curve_fit(
            lambda x, a, b, c: a + b * (x / n[0]) ** -c,
            n, mae, p0=(0.5 * mae[-1], mae[0] - 0.5 * mae[-1], 0.5), bounds=([0, 0, 0.05], [mae[-1], 10 * mae[0], 3]),
            sigma=mae,
        )  # fmt: skip
    except RuntimeError:
        return None
    a, b, c = (float(x) for x in theta)
    a_error, _, c_error = (float(x) for x in np.sqrt(np.diag(cov)))
    if not np.isfinite(c_error) or c_error > 0.5 * c:
        return None
    return PowerLaw(a, float(b * n[0] ** c), c, a_error, c_error)
