"""Forms of Λ(T) fitted to results of several temperatures together, and activation energies between them.

With β = 1/k_BT: Arrhenius is a density of kinosons at one barrier, a Gaussian density gives
ln Λ = ln Λ₀ − βQ̄ + β²σ²/2, and further cumulants go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.result import ESTIMATE, EXACT, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.temperature_curves import (
    ORDERS,
    activation_rows,
    betas,
    curve_rows,
    finite_barriers,
    lambda_value,
)

if TYPE_CHECKING:
    from ase_kinoson.crystal.states import States
    from ase_kinoson.kinosons.density import KinosonDensity

__all__ = [
    "SlopeComparison",
    "TemperatureFits",
    "TemperatureModel",
    "compare_slopes",
    "fit_logs",
    "fit_temperature_models",
    "log_rows",
]

SMALLEST_SAMPLE = 10.0
"""Effective groups of states below which the measured density predicts nothing."""


MEASURED = "measured density"
"""Λ_y(T) from the kinosons and y of the nearest other temperature: nothing is fitted, and the curve lies above Λ(T)."""


@dataclass(frozen=True, eq=False)
class TemperatureModel:
    """One form of Λ(T) and how well it does.

    Attributes
    ----------
    name : str
        ``"arrhenius"``, ``"gaussian"``, ``"third cumulant"`` or ``"measured density"``.
    parameters : dict of Quantity
        ``log_prefactor`` (ln Λ₀, Λ in Å²/s), ``mean_barrier`` Q̄ (eV; for ``"arrhenius"`` the activation energy),
        ``variance`` σ² (eV²; negative where the Arrhenius plot bends the other way), ``third_cumulant`` (eV³). Empty
        for the measured density.
    n_parameters : int
    rms_residual : float
        Of ln Λ at the temperatures of the fit.
    left_out : ndarray, shape (n_temperatures,)
        ln Λ predicted without this temperature minus ln Λ; NaN where too few are left, or where the states of no other
        temperature reach it (measured density).
    left_out_error : ndarray, shape (n_temperatures,)
        Standard error of this difference, with what the noise of the prediction and of the value have in common.
    prediction_error : ndarray, shape (n_temperatures,)
        Standard error of ln Λ predicted without this temperature.
    left_out_rms : float
        Their root mean square, the criterion to choose by; NaN where it cannot be formed.
    aicc : float
        Akaike's criterion with the correction for few data (Hurvich and Tsai 1989), from χ² where errors are known and
        from the residuals otherwise; NaN for fewer than two temperatures more than parameters.
    unit : str
        Of the coefficient.
    coefficients : ndarray, shape (1 + n_resamples, n_parameters)
        Of β^0, β^1 … in ln Λ, and those of the resamples; empty for the measured density.
    """

    name: str
    parameters: dict[str, Quantity]
    n_parameters: int
    rms_residual: float
    left_out: NDArray[np.float64]
    left_out_error: NDArray[np.float64]
    prediction_error: NDArray[np.float64]
    left_out_rms: float
    aicc: float
    unit: str = "Å^2/s"
    coefficients: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)), repr=False)

    @property
    def z_scores(self) -> NDArray[np.float64]:
        """Differences at temperatures left out in standard errors, shape (n_temperatures,); NaN where unknown."""
        known = self.left_out_error > 0
        return np.where(known, self.left_out / np.where(known, self.left_out_error, 1.0), np.nan)

    def predict(self, temperatures_K: ArrayLike) -> NDArray[np.float64]:
        """Return Λ(T) in :attr:`unit`, shape (n,)."""
        return np.exp(self._rows(temperatures_K)[0])

    def prediction(self, temperatures_K: ArrayLike) -> Quantity:
        """Return Λ(T) with its error, from the fits of the resamples: arrays of shape (n,)."""
        rows = self._rows(temperatures_K)
        value = np.exp(rows[0])
        error = value * standard_error(rows[1:]) if len(rows) > 2 else np.full_like(value, np.nan)
        return Quantity(value, error, self.unit, ESTIMATE)

    def _rows(self, temperatures_K: ArrayLike) -> NDArray[np.float64]:
        if not self.parameters:
            raise KinosonError(
                "found the measured density, which has no parameters; expected a fitted model; call "
                "KinosonDensity.predict or bound_curve of the nearest temperature"
            )
        return self.coefficients @ np.vander(betas(temperatures_K), self.n_parameters, increasing=True).T


@dataclass(frozen=True, eq=False)
class TemperatureFits:
    """Models of one coefficient fitted to several temperatures.

    Attributes
    ----------
    quantity : str
        As in :meth:`KinosonDensity.from_result`.
    temperatures_K : ndarray, shape (n,)
    log_value, log_error : ndarray, shape (n,)
        ln Λ (Λ in :attr:`unit`) and its standard error.
    models : dict of TemperatureModel
    refused : dict of str
        Models that were not fitted, and why.
    best : str or None
        The model with the smallest error on temperatures left out, where at least two models have one.
    unit : str
    """

    quantity: str
    temperatures_K: NDArray[np.float64]
    log_value: NDArray[np.float64]
    log_error: NDArray[np.float64]
    models: dict[str, TemperatureModel]
    refused: dict[str, str]
    best: str | None
    unit: str = "Å^2/s"

    def __getitem__(self, name: str) -> TemperatureModel:
        return self.models[name]

    def __str__(self) -> str:
        lines = [f"ln Λ of {self.quantity} at {len(self.temperatures_K)} temperatures, best: {self.best or 'unknown'}"]
        for m in self.models.values():
            own = ", ".join(f"{k} {q}" for k, q in m.parameters.items())
            lines.append(
                f"  {m.name}: rms {m.rms_residual:.2g}, left out {m.left_out_rms:.2g}, AICc {m.aicc:.4g}; {own}"
            )
        return "\n".join([*lines, *(f"  {name}: {why}" for name, why in self.refused.items())])


@dataclass(frozen=True)
class SlopeComparison:
    """The activation energy between two temperatures in two ways.

    Attributes
    ----------
    temperatures_K : tuple of (float, float)
    finite_difference : Quantity
        −Δln Λ/Δβ, eV.
    hellmann_feynman : Quantity
        Mean of ⟨Q + E⟩_κ − ⟨E⟩_π at the two temperatures, eV: the same up to the third power of Δβ, where y is optimal.
    difference : Quantity
        Hellmann-Feynman minus finite difference, eV. Both come from the same states, so that the error of sampling
        this difference is much smaller than those of the two; it knows nothing of terms in Δβ³ and of y.
    """

    temperatures_K: tuple[float, float]
    finite_difference: Quantity
    hellmann_feynman: Quantity
    difference: Quantity


def fit_temperature_models(results: Sequence[Transport], *, quantity: str | None = None) -> TemperatureFits:
    """Fit forms of Λ(T) to results of several temperatures together.

    The models are polynomials of ln Λ in β = 1/k_BT: Arrhenius (two parameters), a Gaussian density of barriers
    (three) and its third cumulant (four). Beside them stands the measured density of kinosons, which predicts each
    temperature from the nearest other one without any parameter: kinosons, states and relaxation of that one, carried
    over as in :meth:`KinosonDensity.bound_curve`, so that the prediction is an upper bound and lies above Λ(T) by what
    a better relaxation would gain. Errors come from refitting the resamples of all results.

    Parameters
    ----------
    results
        One alloy at two or more temperatures.
    quantity
        As in :meth:`KinosonDensity.from_result`; default the vacancy (carrier) diffusivity.

    Returns
    -------
    TemperatureFits
        A model with more parameters than temperatures is refused. With as many it runs through all points and cannot be
        judged.

    Raises
    ------
    KinosonError
        If there are fewer than two temperatures or the coefficient is unknown.

    Notes
    -----
    What the models assume: docs/temperature.md#a-series; slopes:
    docs/derivations.md#the-activation-energy-is-a-mean-over-kinosons.
    """
    from ase_kinoson.kinosons.density import KinosonDensity

    own = sorted(results, key=lambda r: r.temperature_K or 0.0)
    t = np.array([r.temperature_K or np.nan for r in own], dtype=float)
    if np.isnan(t).any() or len(np.unique(t)) < 2 or len(np.unique(t)) < len(t):
        raise KinosonError(
            f"found results at temperatures {t.tolist()} K; expected two or more different ones, one result each; "
            "evaluate at more temperatures"
        )
    rows = log_rows(own, quantity)
    densities: list[KinosonDensity] | str
    try:
        densities = [KinosonDensity.from_result(r, quantity=quantity) for r in own]
    except KinosonError as error_found:
        densities = str(error_found)
    return fit_logs(_column(own[0], quantity), t, rows, [r.vacancy_diffusivity.kind for r in own], densities=densities)


def fit_logs(
    name: str,
    temperatures_K: NDArray[np.float64],
    rows: Sequence[NDArray[np.float64]],
    kinds: Sequence[str],
    *,
    densities: list[KinosonDensity] | str = "",
    unit: str = "Å^2/s",
) -> TemperatureFits:
    """Fit forms of ln Λ(T), see :func:`fit_temperature_models`.

    Parameters
    ----------
    name
        Of the coefficient.
    temperatures_K : ndarray, shape (n,)
        Ascending.
    rows : sequence of ndarray, shape (1 + n_resamples,) each
        Logarithm of the coefficient at each temperature and its resamples.
    kinds
        Kind of each value.
    densities
        Kinosons at each temperature, whose coefficients may differ from the values by a known factor; or why there are
        none.
    unit
        Of the coefficient.
    """
    t = temperatures_K
    n_rows = min(map(len, rows))
    logs = np.stack([r[:n_rows] for r in rows], axis=1)  # (1 + n_resamples, n_temperatures)
    error = np.array([_error(r, kind) for r, kind in zip(rows, kinds, strict=True)])
    beta = betas(t)
    models: dict[str, TemperatureModel] = {}
    refused: dict[str, str] = {}
    for form, order in ORDERS.items():
        if order + 1 > len(t):
            refused[form] = f"it has {order + 1} parameters for {len(t)} temperatures; add temperatures"
        else:
            models[form] = _fit(form, order, beta, logs, error, unit, exact=all(k == EXACT for k in kinds))
    try:
        if isinstance(densities, str):
            raise KinosonError(densities)
        models[MEASURED] = _measured(densities, t, error, unit)
    except KinosonError as error_found:
        refused[MEASURED] = str(error_found)
    judged = {k: m.left_out_rms for k, m in models.items() if np.isfinite(m.left_out_rms)}
    best = min(judged, key=lambda k: judged[k]) if len(judged) > 1 else None
    return TemperatureFits(name, t, logs[0], error, models, refused, best, unit)


def compare_slopes(results: Sequence[Transport], *, quantity: str | None = None) -> list[SlopeComparison]:
    """Activation energies between neighbouring temperatures: Hellmann-Feynman beside the finite difference.

    Parameters
    ----------
    results
        One alloy at two or more temperatures, with barriers and energies of the states.
    quantity
        As in :meth:`KinosonDensity.from_result`.

    Returns
    -------
    list of SlopeComparison
        One per pair of neighbouring temperatures. A difference beyond its error says that the temperatures are far
        apart, the relaxation is not near its optimum, or the states are no equilibrium sample; only one that is not
        small against the errors of the two matters to them.

    Raises
    ------
    KinosonError
        If there are fewer than two different temperatures.

    Notes
    -----
    Derivation: docs/derivations.md#the-activation-energy-is-a-mean-over-kinosons.
    """
    from ase_kinoson.kinosons.density import KinosonDensity

    own = sorted(results, key=lambda r: r.temperature_K or 0.0)
    if len(own) < 2 or any(r.temperature_K is None for r in own):
        raise KinosonError(
            f"found {len(own)} results, some perhaps without temperature; expected two or more temperatures; evaluate "
            "at more temperatures"
        )
    densities = [KinosonDensity.from_result(r, quantity=quantity) for r in own]
    logs = [rows[0] for rows in log_rows(own, quantity)]
    kinds = [d.activation_energy().kind for d in densities]  # refuses what has no energies
    # ln Λ and the activation energy of the same resamples: what they have in common drops out of their difference
    both = _decoupled([activation_rows(d) for d in densities], [d.states for d in densities])
    found = []
    for (a, la, ra, kind), (b, lb, rb, _) in pairwise(zip(densities, logs, both, kinds, strict=True)):
        assert a.temperature_K is not None
        assert b.temperature_K is not None
        gap = betas(a.temperature_K)[0] - betas(b.temperature_K)[0]
        if gap <= 0:
            raise KinosonError(f"found {a.temperature_K:g} K twice; expected different temperatures; drop one result")
        n = min(len(ra), len(rb))
        slope, energy = (rb[:n, 0] - ra[:n, 0]) / gap, 0.5 * (ra[:n, 1] + rb[:n, 1])
        finite = (lb - la) / gap
        errors = [_error(x, kind) for x in (slope, energy, energy - slope)]
        values = (finite, float(energy[0]), float(energy[0]) - finite)
        found.append(
            SlopeComparison(
                (a.temperature_K, b.temperature_K),
                *(Quantity(value, error, "eV", kind) for value, error in zip(values, errors, strict=True)),
            )
        )
    return found


def _fit(
    name: str, order: int, beta: NDArray, logs: NDArray, error: NDArray, unit: str, *, exact: bool
) -> TemperatureModel:
    known = bool(np.all(np.isfinite(error) & (error > 0)))
    weight = 1.0 / error if known else np.ones(len(beta))
    n, k = len(beta), order + 1
    coefficients = _polynomial(beta, logs, weight, order)
    residual = logs[0] - np.vander(beta, k, increasing=True) @ coefficients[0]
    left, left_error, own_error = np.full((3, n), np.nan)
    if n > k:
        for i in range(n):
            keep = np.arange(n) != i
            said = _polynomial(beta[keep], logs[:, keep], weight[keep], order) @ beta[i] ** np.arange(k)
            gap = said - logs[:, i]
            left[i] = gap[0]
            left_error[i], own_error[i] = (
                0.0 if exact else standard_error(x[1:]) if len(x) > 2 else np.nan for x in (gap, said)
            )
    signs = np.array([_sign(j) for j in range(k)])
    values = coefficients * signs
    spread = np.zeros(k) if exact else standard_error(values[1:]) if len(values) > 2 else np.full(k, np.nan)
    names = (("log_prefactor", "1"), ("mean_barrier", "eV"), ("variance", "eV^2"), ("third_cumulant", "eV^3"))
    parameters = {
        what: Quantity(float(v), float(e), unit, ESTIMATE)
        for (what, unit), v, e in zip(names, values[0], spread, strict=False)
    }
    rms = float(np.sqrt(np.mean(residual**2)))
    # without errors the width of the residuals is one more parameter
    count = k if known else k + 1
    misfit = float(np.sum((residual * weight) ** 2)) if known else n * float(np.log(max(rms, 1e-300) ** 2))
    aicc = misfit + 2 * count + 2 * count * (count + 1) / (n - count - 1) if n > count + 1 else float("nan")
    left_rms = float(np.sqrt(np.mean(left**2)))
    return TemperatureModel(name, parameters, k, rms, left, left_error, own_error, left_rms, aicc, unit, coefficients)


def _measured(densities: list[KinosonDensity], t: NDArray, error: NDArray, unit: str) -> TemperatureModel:
    """Each temperature from the kinosons, states and y of its nearest neighbour."""
    for density in densities:
        finite_barriers(density)  # refuses a density without barriers
    beta = betas(t)
    gap = np.abs(beta[:, None] - beta) + np.where(np.eye(len(t)), np.inf, 0.0)
    left, left_error, own_error = np.full((3, len(t)), np.nan)
    for i, j in enumerate(gap.argmin(axis=1)):
        there, here = densities[j], densities[i]
        if np.isnan(there.state_energy).any():
            raise KinosonError(
                "found no energies of the states; expected them to carry weights; use reference barriers"
            )
        rows, size = curve_rows(there, t[[i]])
        if there.kind != EXACT and size[0] < SMALLEST_SAMPLE:
            continue  # too few states reach this temperature
        found = np.log(rows[:, 0])
        left[i] = found[0] - np.log(here.total)
        own_error[i] = 0.0 if there.kind == EXACT else standard_error(found[1:])
        if there.kind == EXACT:
            left_error[i] = 0.0
        elif there.states is not None and _alike(there.states, here.states):
            left_error[i] = standard_error((found - np.log(curve_rows(here, t[[i]])[0][:, 0]))[1:])
        else:
            left_error[i] = np.hypot(own_error[i], error[i])
    left_rms = float(np.sqrt(np.mean(left**2)))
    return TemperatureModel(MEASURED, {}, 0, float("nan"), left, left_error, own_error, left_rms, float("nan"), unit)


def _polynomial(beta: NDArray, logs: NDArray, weight: NDArray, order: int) -> NDArray[np.float64]:
    """Weighted least squares for every row of ``logs``: coefficients of β^0, β^1 ..., shape (n_rows, order + 1)."""
    centre, scale = beta.mean(), np.ptp(beta) or 1.0  # powers of β itself are nearly parallel
    x = (beta - centre) / scale
    design = np.vander(x, order + 1, increasing=True) * weight[:, None]
    found = np.linalg.lstsq(design, (logs * weight).T, rcond=None)[0]
    turn = np.zeros((order + 1, order + 1))  # ((β − centre)/scale)^j in powers of β
    for j in range(order + 1):
        turn[j, : j + 1] = np.polynomial.polynomial.polypow([-centre / scale, 1 / scale], j)
    return found.T @ turn


def _sign(k: int) -> float:
    """A cumulant κ_k enters ln Λ as (−β)^k κ_k/k!; this factor brings the coefficient of β^k to κ_k and back."""
    return float((-1) ** k * factorial(k))


def _column(result: Transport, quantity: str | None) -> str:
    """Name of a coefficient in the table of kinosons."""
    columns = result.kinosons.columns
    default = "kinoson_vacancy" if "kinoson_vacancy" in columns else "kinoson_carrier"
    name = default if quantity is None else quantity
    return name if name in columns else f"kinoson_{name}"


def log_rows(results: Sequence[Transport], quantity: str | None = None) -> list[NDArray[np.float64]]:
    """Logarithm of Λ (Å²/s) of several results and its resamples, shape (1 + n_resamples,) each.

    Their noise is common only where the states are. Resamples of different states are drawn with equal seeds: shuffled,
    they are as independent as the states.
    """
    rows = [_log_rows(r, _column(r, quantity)) for r in results]
    return _decoupled(rows, [r.states for r in results])


def _decoupled(rows: Sequence[NDArray[np.float64]], states: Sequence[States | None]) -> list[NDArray[np.float64]]:
    """Shuffle resamples, shape (1 + n_resamples, ...) each, alike where the states are the same and else apart."""
    found = []
    for i, (row, own) in enumerate(zip(rows, states, strict=True)):
        # the first result with the same states
        like = next((j for j in range(i) if own is not None and _alike(own, states[j])), i)
        order = np.arange(1, len(row))
        if like > 0:
            order = np.random.default_rng(like).permutation(order)
        found.append(row[np.concatenate([[0], order]).astype(int)])
    return found


def _alike(a: States, b: States | None) -> bool:
    """Whether two sets of states are the same ones, so that their noise is common."""
    return b is not None and np.array_equal(a.occupations, b.occupations) and np.array_equal(a.groups, b.groups)


def _log_rows(result: Transport, name: str) -> NDArray[np.float64]:
    """Logarithm of Λ and its resamples, shape (1 + n_resamples,)."""
    own, composition, value = result.averages, result.composition, lambda_value(result, name)
    if own is None or composition is None or value is None:
        known = [c for c in result.kinosons.columns if c.startswith(("kinoson_", "tracer_"))]
        raise KinosonError(
            f"found coefficient {name!r} that a result does not hold with its averages; expected one of {known}; "
            "choose one, or evaluate again"
        )
    if not value > 0:
        raise KinosonError(
            f"found Λ = {value:.3g} Å²/s for {name}; expected a positive coefficient; choose another one"
        )
    kind, _, who = name.partition("_")
    if who in ("vacancy", "carrier"):
        tensors = own.vacancy
    else:
        a = composition.species.index(who)
        tensors = own.collective[:, a, a] if kind == "kinoson" or own.tracer is None else own.tracer[:, a]
    # the scale (dimension, periodic plane) comes from the value itself
    rows = np.einsum("rxx->r", tensors)
    rows = rows * (value / rows[0])
    return np.log(np.where(rows > 0, rows, value))


def _error(rows: NDArray, kind: str) -> float:
    if kind == EXACT:
        return 0.0
    return float(standard_error(rows[1:])) if len(rows) > 2 and np.ptp(rows[1:]) > 0 else float("nan")
