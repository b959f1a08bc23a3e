"""Λ(T) from the kinosons of one temperature: cumulants of the barrier, and reweighted states.

With β = 1/k_BT and the density of kinosons g, Λ(β) = ∫ g(Q) e^{−βQ} dQ at fixed relaxation and fixed weights of the
states. The true Λ(T) also has the weights of the states and the best relaxation change.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError, SmallSample
from ase_kinoson.kinetics.resampling import draw_groups, standard_error
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, EXACT, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S, thermal_energy

if TYPE_CHECKING:
    from ase_kinoson.kinosons.density import KinosonDensity

__all__ = [
    "BoundCurve",
    "DensityModel",
    "activation_rows",
    "betas",
    "check_sum",
    "cumulant_models",
    "curve_rows",
    "finite_barriers",
    "lambda_value",
    "rate_factors",
    "reweighted_curve",
]

SMALLEST_EXPONENT = 680.0
"""Barriers above so many k_BT have rates that double precision may not know."""

ORDERS = {"arrhenius": 1, "gaussian": 2, "third cumulant": 3}
"""How many cumulants of the barrier each form of ln Λ(β) has."""


@dataclass(frozen=True, eq=False)
class DensityModel:
    """ln Λ(T) around one temperature from the cumulants of the barrier in the kinoson average.

    ln Λ(β) = ln Λ(β₀) − (β−β₀) κ₁ + (β−β₀)² κ₂/2 − (β−β₀)³ κ₃/6

    Attributes
    ----------
    name : str
        ``"arrhenius"``, ``"gaussian"`` or ``"third cumulant"``.
    temperature_K : float
        Expansion point, K.
    log_value : float
        ln of Λ(T₀), Λ in Å²/s.
    cumulants : tuple of Quantity
        κ₁ (eV), κ₂ (eV²), κ₃ (eV³), as many as the model uses.
    """

    name: str
    temperature_K: float
    log_value: float
    cumulants: tuple[Quantity, ...]

    def predict(self, temperatures_K: ArrayLike) -> NDArray[np.float64]:
        """Return Λ(T) in Å²/s at fixed relaxation and fixed weights of the states."""
        beta = np.array([1.0 / thermal_energy(t) for t in np.atleast_1d(temperatures_K)])
        x = beta - 1.0 / thermal_energy(self.temperature_K)
        value = np.full(len(beta), self.log_value)
        for order, (q, factor) in enumerate(zip(self.cumulants, (-1.0, 0.5, -1.0 / 6.0), strict=False), start=1):
            value = value + factor * float(q.value) * x**order
        return np.exp(value)


@dataclass(frozen=True, eq=False)
class BoundCurve:
    """Λ_y(T) with the relaxation of one temperature.

    Attributes
    ----------
    temperatures_K : ndarray, shape (n,)
    value, error : ndarray, shape (n,)
        Å²/s; NaN where the reweighting collapses.
    effective_sample_size : ndarray, shape (n,)
        Effective independent groups of states at each temperature: the smaller of Kish's 1/Σw² of their weights
        and of what they contribute to Λ.
    kind : str
        ``"bound"`` where the coefficient is one (the statistical error comes on top); self-normalised weights bias it
        by about one part in the effective sample size.
    """

    temperatures_K: NDArray[np.float64]
    value: NDArray[np.float64]
    error: NDArray[np.float64]
    effective_sample_size: NDArray[np.float64]
    kind: str


def cumulant_models(density: KinosonDensity) -> dict[str, DensityModel]:
    """Forms of Λ(T) about one temperature, see :meth:`KinosonDensity.fit_models`."""
    if density.temperature_K is None:
        raise KinosonError("found a result without temperature; expected one with barriers; use a barrier model")
    q = finite_barriers(density)
    values, boot = density.group_means(*(density.kinoson * q**n for n in range(4)))

    def cumulants(m0: NDArray, m1: NDArray, m2: NDArray, m3: NDArray) -> NDArray:
        a, b, c = m1 / m0, m2 / m0, m3 / m0
        return np.array([a, b - a**2, c - 3 * a * b + 2 * a**3])

    value, error = boot.estimate(cumulants, *values.T)
    if density.kind == EXACT:
        error = np.zeros_like(value)
    found = tuple(
        Quantity(float(v), float(e), u, ESTIMATE) for v, e, u in zip(value, error, ("eV", "eV^2", "eV^3"), strict=True)
    )
    log = float(np.log(density.total))
    return {n: DensityModel(n, density.temperature_K, log, found[:k]) for n, k in ORDERS.items()}


def reweighted_curve(
    density: KinosonDensity, temperatures_K: ArrayLike, *, smallest_sample: float = 10.0
) -> BoundCurve:
    """Λ_y(T) from reweighted states, see :meth:`KinosonDensity.bound_curve`."""
    t = np.atleast_1d(np.asarray(temperatures_K, dtype=float))
    rows, size = curve_rows(density, t)
    exact = density.kind == EXACT
    listed = exact or (density.states is not None and density.states.source == "enumerated")  # nothing can collapse
    kept = np.full(len(t), True) if listed else size >= smallest_sample
    n = len(density.groups[1])
    spread = np.zeros(len(t)) if exact else standard_error(rows[1:]) if n > 1 else np.full(len(t), np.nan)
    value, error = np.where(kept, rows[0], np.nan), np.where(kept, spread, np.nan)
    lost = t[np.isnan(value)]
    if len(lost):
        left = float(size[np.isnan(value)].min())
        warnings.warn(
            SmallSample(
                f"states of {density.temperature_K:g} K tell nothing about {', '.join(f'{x:g}' for x in lost)} K: "
                f"{left:.1f} effective groups of states are left of {n}; expected at least {smallest_sample:g}",
                number=left,
                limit=smallest_sample,
                unit="groups",
                advice="sample states at temperatures nearer to these",
            ),
            stacklevel=3,
        )
    kind = BOUND if density.kind in (BOUND, EXACT) else density.kind
    return BoundCurve(t, value, error, size, kind)


def curve_rows(density: KinosonDensity, temperatures_K: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Λ_y(T) with the relaxation of one temperature, resampled.

    Parameters
    ----------
    density
        Kinosons of one temperature, with energies of the states.
    temperatures_K : array_like, shape (n,)

    Returns
    -------
    rows : ndarray, shape (1 + n_resamples, n)
        Å²/s; the value in row 0.
    effective_sample_size : ndarray, shape (n,)
        As in :class:`BoundCurve`.
    """
    if density.temperature_K is None:
        raise KinosonError("found a result without temperature; expected one with barriers; use a barrier model")
    t = np.atleast_1d(np.asarray(temperatures_K, dtype=float))
    member, weights = density.groups
    n = len(weights)
    first = density.first_rows()
    state_group = member[first]
    counts = np.ones((1, n)) if density.kind == EXACT else np.concatenate([np.ones((1, n)), _draws(n)])
    rows, size = np.empty((len(counts), len(t))), np.empty(len(t))
    for i, x in enumerate(betas(t) - betas(density.temperature_K)[0]):
        factor = -x * density.state_energy
        # the largest factor, of each arrangement where it is normalised on its own, becomes 1: no overflow
        top = np.full(n, -np.inf)
        np.maximum.at(top, member, factor)
        carried = density.weight * np.exp(factor - (top[member] if density.ensemble == "quenched" else top.max()))
        if density.ensemble == "quenched":  # each arrangement keeps its weight
            own = np.bincount(state_group, weights=carried[first], minlength=n)
            carried = carried * (weights / own)[member]
        mass = np.bincount(state_group, weights=carried[first], minlength=n)
        share = np.bincount(member, weights=carried * density.kinoson * rate_factors(density, t[i]), minlength=n)
        within = np.bincount(state_group, weights=carried[first] ** 2, minlength=n)
        # arrangements of many states can collapse inside without losing weight
        kept = mass.sum() ** 2 / within.sum() if density.ensemble == "quenched" else _kish(mass)
        size[i] = min(kept, _kish(share))
        rows[:, i] = (counts @ share) / (counts @ mass)
    return rows, size


def rate_factors(density: KinosonDensity, temperature_K: float) -> NDArray[np.float64]:
    """Rates at another temperature over those at that of the density, exp(−(β−β₀)Q), no unit, shape (n,).

    Parameters
    ----------
    density
        Kinosons of one temperature.
    temperature_K
        The other one, K.

    Raises
    ------
    KinosonError
        If the density has no temperature or no barriers, or a jump has a rate there but not here, where it is below
        all numbers.
    """
    if density.temperature_K is None:
        raise KinosonError("found a result without temperature; expected one with barriers; use a barrier model")
    q, here, there = finite_barriers(density), betas(density.temperature_K)[0], betas(temperature_K)[0]
    lost = (density.weight > 0) & (q * here > SMALLEST_EXPONENT) & (q * there < SMALLEST_EXPONENT)
    if lost.any():
        raise KinosonError(
            f"found jumps of {q[lost].min():g} eV, whose rates at {density.temperature_K:g} K are below all numbers of "
            f"double precision but not at {temperature_K:g} K; expected rates to start from; evaluate at a higher "
            "temperature"
        )
    return np.exp(np.minimum((here - there) * q, SMALLEST_EXPONENT))


def activation_rows(density: KinosonDensity) -> NDArray[np.float64]:
    """Return ln Λ (Λ in Å²/s) and the activation energy (eV) in columns, and below them those of resamples.

    Returns
    -------
    ndarray, shape (1 + n_resamples, 2)
    """
    energy = density.state_energy - density.state_energy.mean()
    first = density.first_rows()
    if density.ensemble == "quenched":  # each arrangement keeps its weight
        member, weights = density.groups
        inside = np.bincount(member, weights=np.where(first, density.weight * energy, 0.0), minlength=len(weights))
        energy = energy - (inside / np.where(weights > 0, weights, 1.0))[member]
    values, boot = density.group_means(
        density.kinoson,
        density.kinoson * (finite_barriers(density) + energy),
        np.where(first, energy, 0.0),
        np.where(first, 1.0, 0.0),
    )
    total, heat, mean, ones = boot.rows(values).T
    return np.column_stack([np.log(total), heat / total - mean / ones])


def finite_barriers(density: KinosonDensity) -> NDArray[np.float64]:
    """Barriers, eV; 0 for rejected jumps, whose rate is zero."""
    if np.isnan(density.barrier).any():
        raise KinosonError(
            "found no barriers in this result; expected a source that has them; use reference barriers or a model"
        )
    return np.where(np.isfinite(density.barrier), density.barrier, 0.0)


def betas(temperatures_K: ArrayLike) -> NDArray[np.float64]:
    """Return 1/k_BT, 1/eV, shape (n,)."""
    return np.array([1.0 / thermal_energy(float(x)) for x in np.atleast_1d(temperatures_K)])


def lambda_value(result: Transport, name: str) -> float | None:
    """Λ of a result by its column in the table of kinosons, Å²/s; None where the result does not hold it."""
    kind, _, who = name.partition("_")
    composition = result.composition
    if kind == "kinoson" and who in ("vacancy", "carrier"):
        return float(result.vacancy_diffusivity) / ANGSTROM2_PER_S_TO_M2_PER_S
    if composition is None or who not in composition.species:
        return None
    a = composition.species.index(who)
    if kind == "kinoson":
        return float(np.asarray(result.lambda_matrix.value)[a, a])
    if kind != "tracer" or who not in result.tracer_diffusivity:
        return None
    value = float(result.tracer_diffusivity[who]) / ANGSTROM2_PER_S_TO_M2_PER_S
    if "vacancy" not in result.collective_correlation_factor:
        return value
    cv = 1.0 if result.vacancy_fraction is None else result.vacancy_fraction
    return value * float(composition.fractions[a]) / cv  # D*_a = (c_v/x_a) Λ*_a


def check_sum(result: Transport, name: str) -> None:
    """Refuse terms that do not add up to the coefficient: not every way to it lists its kinosons."""
    value = lambda_value(result, name)
    if value is None or result.settings.get("finite_size_corrected"):  # a corrected result has the table of its cell
        return
    table = float(result.kinosons["weight"] @ result.kinosons[name])
    if abs(table - value) > 1e-6 * abs(value):
        raise KinosonError(
            f"found {name} terms that add up to {table:.4g} Å²/s in the table and a coefficient of {value:.4g} Å²/s; "
            "expected kinosons of that coefficient, which trajectories, and exact solutions for tracers, do not list; "
            "evaluate the states with transport() and a relaxation"
        )


def _kish(x: NDArray) -> float:
    if not np.any(x > 0):
        return 0.0
    x = np.ldexp(x, -int(np.frexp(x.max())[1]))  # squares of small rates would underflow
    return float(x.sum() ** 2 / np.square(x).sum())


def _draws(n: int) -> NDArray[np.float64]:
    """How often each group is drawn in each of 400 resamples."""
    return draw_groups(n, 400, np.random.default_rng(0)).astype(float)
