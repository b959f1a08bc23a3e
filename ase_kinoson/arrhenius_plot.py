"""Arrhenius plot in the form in which tracer data are published: log₁₀ D against 10⁴/T, temperatures on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.measured import ZERO_CELSIUS, MeasuredDiffusivity
from ase_kinoson.plotting import MARKERS, species_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ase_kinoson.series import TemperatureSeries

__all__ = ["draw_points", "inverse_temperature_axes", "plot_measured", "plot_series"]

TOP = ("C", "K", None)
ROUND = (5, 10, 20, 25, 50, 100, 200, 250, 500)
"""Distances between temperatures on the top axis."""


def inverse_temperature_axes(
    ax: Axes | None = None, *, top: str | None = "C", melting_temperature_K: float | None = None
) -> Axes:
    """Axes for log₁₀ D (m²/s) against 10⁴/T, or T_m/T.

    Parameters
    ----------
    ax
        Where to draw.
    top
        Unit of the temperatures on the upper axis, ``"C"`` or ``"K"``; None: no upper axis.
    melting_temperature_K
        With it, T_m/T is drawn instead of 10⁴/T.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter

    if top not in TOP:
        raise KinosonError(f"found top={top!r}; expected one of {TOP}; choose one")
    axes: Axes = plt.subplots(figsize=(4.8, 4.2), layout="constrained")[1] if ax is None else ax
    axes.set_xlabel("$10^4$ K / $T$" if melting_temperature_K is None else "$T_m$ / $T$")
    axes.set_ylabel("$\\log_{10}$ $D$ (m²/s)")
    if top is not None:
        scale, zero = _scale(melting_temperature_K), ZERO_CELSIUS if top == "C" else 0.0

        def turn(x: ArrayLike) -> NDArray[np.float64]:
            return scale / np.maximum(np.asarray(x, dtype=float), 1e-9)

        upper = axes.secondary_xaxis("top", functions=(turn, turn))
        upper.set_xlabel(f"$T$ ({'°C' if top == 'C' else 'K'})")

        class Round(FixedLocator):
            """Round temperatures, about six of them, wherever the lower axis ends."""

            def __call__(self) -> Any:
                low, high = sorted(scale / np.maximum(np.array(axes.get_xlim()), 1e-9))
                low, high = low - zero, min(high, 20.0 * low) - zero
                step = next((s for s in ROUND if (high - low) / s <= 7), 1000)
                return np.arange(np.ceil(low / step) * step, high + 1e-9, step) + zero

        upper.xaxis.set_major_locator(Round([]))
        upper.xaxis.set_minor_locator(FixedLocator([]))
        upper.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t - zero:.0f}"))
    return axes


def plot_series(
    series: TemperatureSeries,
    names: Sequence[str] | None = None,
    *,
    model: str | None = "best",
    bound_from: float | None = None,
    measured: MeasuredDiffusivity | None = None,
    top: str | None = "C",
    melting_temperature_K: float | None = None,
    reach: float = 0.05,
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Arrhenius plot of a series: calculated points with error bars, a fitted curve, and measured points.

    Parameters
    ----------
    series
        Results at several temperatures.
    names
        Diffusivities, as in :meth:`TemperatureSeries.diffusivity`; default all whose unit is that of the first
        measured kind: the tracers, where c_v is known, else every one, with D* per c_v and said so.
    model
        Form of the curve: ``"arrhenius"``, ``"gaussian"``, ``"third cumulant"``, ``"best"`` (on temperatures left out;
        Arrhenius where nothing can be left out), or None for no curve.
    bound_from
        Draw also the upper bound that states and y of this temperature (K) give everywhere, dotted, where its states
        reach.
    measured
        Points to lay over it, as open symbols: those of the names drawn, and those without a species.
    top, melting_temperature_K
        As in :func:`inverse_temperature_axes`.
    reach
        How far curves go beyond the calculated points, as a part of their range of 1/T.
    colors
        Colour of each name.
    ax
        Where to draw.

    Raises
    ------
    KinosonError
        If measured points are to lie beside D* whose vacancy fraction is not known.
    """
    chosen = tuple(series.names if names is None else names)
    units = {name: series.diffusivity(name)[1].unit for name in chosen}
    if names is None and any(name in series.results[0].species and units[name] == "m^2/s" for name in chosen):
        chosen = tuple(name for name in chosen if name in series.results[0].species)
    per_fraction = [name for name in chosen if units[name] != "m^2/s"]
    if measured is not None and per_fraction:
        raise KinosonError(
            f"found D* of {', '.join(per_fraction)} per c_v beside measured points; expected m²/s; give the vacancy "
            "fraction (vacancy_fraction=), or choose other names"
        )
    axes = inverse_temperature_axes(ax, top=top, melting_temperature_K=melting_temperature_K)
    scale = _scale(melting_temperature_K)
    shapes: dict[str, str] = {}  # what the lines are, for the legend
    # the same colour for a species in every figure
    palette = dict(colors or {**species_colors(series.results[0].species), "vacancy": "0.4", "carrier": "0.4"})
    for i, name in enumerate(chosen):
        t, value = series.diffusivity(name)
        label = f"$D_v$ ({name})" if name in ("vacancy", "carrier") else f"$D^*$({name})"
        label += " / $c_v$" if name in per_fraction else ""
        marker = MARKERS[i % len(MARKERS)]
        draw_points(
            axes, scale / t, value.value, value.error, fmt=marker, color=palette[name], label=label, capsize=2.5
        )
        curve = _temperatures(t, reach)
        if model is not None and len(t) > 1:
            fits = series.fit_models(name)
            known = [k for k in fits.models if fits.models[k].parameters]
            form = _best(fits.models) if model == "best" else model
            if form not in known:
                raise KinosonError(f"found model={model!r}; expected one of {['best', *known]}; choose one")
            axes.plot(scale / curve, np.log10(fits[form].predict(curve)), color=palette[name], linewidth=1.2)
            shapes["-"] = "fit" if model == "best" else f"{form} fit"
        if bound_from is not None:
            bound = _quiet_bound(series, bound_from, curve, name)
            axes.plot(scale / curve, np.log10(bound), ":", color=palette[name], linewidth=1.4)
            shapes[":"] = f"bound with y of {bound_from:g} K"
    for style, label in shapes.items():
        axes.plot([], [], style, color="0.4", linewidth=1.2, label=label)
    if measured is not None:
        shown = np.isin(measured.species, ["", *chosen])
        plot_measured(
            measured[shown],
            colors=palette,
            melting_temperature_K=melting_temperature_K,
            ax=axes,
        )
    axes.legend(frameon=False, fontsize="small")
    return axes


def plot_measured(
    measured: MeasuredDiffusivity,
    *,
    colors: Mapping[str, str] | None = None,
    melting_temperature_K: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Measured points as open symbols, one kind per species and source.

    Parameters
    ----------
    measured
        Points.
    colors
        Colour of each species; grey where none is named.
    melting_temperature_K
        As in :func:`inverse_temperature_axes`.
    ax
        Where to draw.
    """
    axes = inverse_temperature_axes(melting_temperature_K=melting_temperature_K) if ax is None else ax
    scale = _scale(melting_temperature_K)
    kinds = sorted(set(zip(measured.species.tolist(), measured.source.tolist(), strict=True)))
    for i, (species, source) in enumerate(kinds):
        own = measured[(measured.species == species) & (measured.source == source)]
        draw_points(
            axes,
            scale / own.temperature_K,
            own.diffusivity,
            own.error,
            fmt=MARKERS[(i + 3) % len(MARKERS)],
            color=(colors or {}).get(species, "0.3"),
            markerfacecolor="none",
            label=", ".join(x for x in (species, source or "measured") if x),
            capsize=2.5,
        )
    return axes


def draw_points(axes: Axes, x: NDArray, value: ArrayLike, error: ArrayLike, **style: Any) -> None:
    """Draw points with error bars in log₁₀ D.

    Parameters
    ----------
    axes
        Of log₁₀ D.
    x : ndarray, shape (n,)
        10⁴ K/T or T_m/T.
    value, error : array_like, shape (n,)
        m²/s. A bar that would reach below zero ends near it; NaN draws none.
    **style
        Of ``Axes.errorbar``.
    """
    v, e = np.asarray(value, dtype=float), np.asarray(error, dtype=float)
    down = np.log10(v) - np.log10(np.maximum(v - e, 0.02 * v))
    axes.errorbar(x, np.log10(v), [down, np.log10(1.0 + e / v)], markersize=5, linestyle="none", **style)


def _scale(melting_temperature_K: float | None) -> float:
    if melting_temperature_K is not None and not 0 < melting_temperature_K < np.inf:
        raise KinosonError(
            f"found melting_temperature_K={melting_temperature_K!r}; expected a positive number of kelvin; correct it"
        )
    return 1e4 if melting_temperature_K is None else melting_temperature_K


def _temperatures(t: NDArray, reach: float) -> NDArray[np.float64]:
    """Temperatures of a smooth curve, evenly spaced in 1/T, K."""
    low, high = (1.0 / t).min(), (1.0 / t).max()
    margin = reach * (high - low) if len(t) > 1 else 0.1 * low
    return np.asarray(1.0 / np.linspace(max(low - margin, 0.2 * low), high + margin, 101))


def _best(models: Mapping[str, Any]) -> str:
    judged = {k: m.left_out_rms for k, m in models.items() if m.parameters and np.isfinite(m.left_out_rms)}
    return min(judged, key=lambda k: judged[k]) if judged else "arrhenius"


def _quiet_bound(series: TemperatureSeries, temperature_K: float, at: NDArray, name: str) -> NDArray[np.float64]:
    """Bound curve, NaN where its states do not reach: a line that ends there needs no warning."""
    import warnings

    from ase_kinoson.errors import KinosonWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        return series.bound_curve(temperature_K, at, name=name).value
