"""What several temperatures of a study say together, as numbers for ``summary.json``."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.errors import KinosonError
from ase_kinoson.measured import MeasuredDiffusivity, read_measured_diffusivity
from ase_kinoson.series import TemperatureSeries

if TYPE_CHECKING:
    from ase_kinoson.kinosons.statistics import Quantity
    from ase_kinoson.kinosons.temperature_models import TemperatureModel
    from ase_kinoson.study import Study, StudyResult

__all__ = ["between_temperatures", "measured_points", "series_of", "summarise_series"]

POINTS = 41
"""Temperatures of a fitted curve."""
REACH = 0.05
"""How far the curve goes beyond the points, as a part of their range of 1/T."""


def series_of(result: StudyResult) -> TemperatureSeries | None:
    """Return the results of a study as a series; None for one temperature."""
    if len(result.transport) < 2:
        return None
    corrected = tuple(result.corrected[t] for t in result.transport if t in result.corrected)
    whole = len(corrected) == len(result.transport)
    return TemperatureSeries(tuple(result.transport.values()), corrected if whole else ())


def between_temperatures(result: StudyResult) -> list[dict[str, Any]]:
    """Activation energies −Δln D/Δβ between neighbouring temperatures, with what their states have in common."""
    rows = []
    for low, high in pairwise(result.transport):
        pair = (result.transport[low], result.transport[high])
        row: dict[str, Any] = {"from": _number(low, "K", "given"), "to": _number(high, "K", "given")}
        row |= _slopes(TemperatureSeries(pair))
        if low in result.corrected and high in result.corrected:
            row["ratio_estimate"] = _slopes(TemperatureSeries(pair, (result.corrected[low], result.corrected[high])))
        rows.append(row)
    return rows


def _slopes(series: TemperatureSeries) -> dict[str, Any]:
    found = {}
    for name in series.names:
        energy = series.fit_models(name)["arrhenius"].parameters["mean_barrier"]
        key = name if name in ("vacancy", "carrier") else f"tracer_{name}"
        found[key] = {**energy.as_dict(), "kind": "ratio"}
    return found


def summarise_series(result: StudyResult) -> dict[str, Any] | None:
    """Forms fitted to every diffusivity, what they predict of temperatures left out, and the curve of the best."""
    series = series_of(result)
    if series is None:
        return None
    inverse = 1.0 / series.temperatures_K
    margin = REACH * np.ptp(inverse)
    curve = 1.0 / np.linspace(max(inverse.min() - margin, 0.2 * inverse.min()), inverse.max() + margin, POINTS)
    found: dict[str, Any] = {}
    for name in series.names:
        fits = series.fit_models(name)
        own = {k: m for k, m in fits.models.items() if m.parameters}
        judged = {k: m.left_out_rms for k, m in own.items() if np.isfinite(m.left_out_rms)}
        best = min(judged, key=lambda k: judged[k]) if judged else "arrhenius"
        found[name] = {
            "points": _array(series.diffusivity(name)[1]),
            "best": best,
            "curve": _array(own[best].prediction(curve)),
            "models": {k: _model(m) for k, m in fits.models.items()},
            "refused": fits.refused,
        }
    return {
        "temperatures": {"value": series.temperatures_K, "error": None, "unit": "K", "kind": "given"},
        "curve_temperatures": {"value": curve, "error": None, "unit": "K", "kind": "given"},
        "diffusivities": found,
    }


def _model(model: TemperatureModel) -> dict[str, Any]:
    return {
        "parameters": {k: q.as_dict() for k, q in model.parameters.items()},
        "left_out": {
            "value": model.left_out,
            "error": model.left_out_error,
            "unit": "1",
            "kind": "logarithm of predicted over found, at each temperature left out of the fit",
        },
    }


def measured_points(study: Study) -> list[dict[str, Any]]:
    """Measured diffusivities that the study file names, in m²/s.

    Raises
    ------
    KinosonError
        If the file is missing or cannot be read.
    """
    name = study.settings.transport.measured
    if name is None:
        return []
    try:
        table: MeasuredDiffusivity = read_measured_diffusivity(Path(study.base) / name)
    except KinosonError as error:
        raise type(error)(f"[transport] measured: {error}") from error
    return [
        {
            "species": str(species),
            "source": str(source),
            "temperature": _number(t, "K", "measured"),
            "diffusivity": {"value": float(d), "error": float(e), "unit": "m^2/s", "kind": "measured"},
        }
        for t, d, e, species, source in zip(
            table.temperature_K, table.diffusivity, table.error, table.species, table.source, strict=True
        )
    ]


def _array(q: Quantity) -> dict[str, Any]:
    return {"value": np.asarray(q.value), "error": np.asarray(q.error), "unit": q.unit, "kind": q.kind}


def _number(value: float, unit: str, kind: str) -> dict[str, Any]:
    return {"value": float(value), "error": None, "unit": unit, "kind": kind}
