"""Coefficients of results as a tidy table: one number per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.result import Transport
from ase_kinoson.kinosons.statistics import Quantity

if TYPE_CHECKING:
    import pandas

__all__ = ["COLUMNS", "atom_fractions", "to_dataframe"]

COLUMNS = (
    "temperature_K",
    "quantity",
    "species",
    "other_species",
    "component",
    "value",
    "error",
    "unit",
    "kind",
    "vacancy_fraction",
)
AXES = "xyz"


def to_dataframe(results: Transport | Sequence[Transport]) -> pandas.DataFrame:
    """All coefficients of one or several results, one number per row.

    Parameters
    ----------
    results
        A result, or several: temperatures, alloys.

    Returns
    -------
    pandas.DataFrame
        Columns ``result`` (0, 1, … in the order given), ``temperature_K``, ``quantity`` (name of the attribute),
        ``species`` (``"vacancy"`` for the vacancy), ``other_species`` (of a pair), ``component`` (``"xy"`` of a
        tensor), ``value``, ``error`` (one standard error), ``unit``, ``kind``, ``vacancy_fraction``, and
        ``x_<species>``, the fraction among the mobile atoms. Empty cells are None or NaN.

    Raises
    ------
    KinosonError
        If something else than results is given.
    """
    import pandas

    given = [results] if isinstance(results, Transport) else list(results)
    for found in given:
        if not isinstance(found, Transport):
            raise KinosonError(
                f"found a {type(found).__name__} among the results; expected Transport; pass what transport(), "
                "correct(), run_kmc() or exact_transport() return"
            )
    rows = []
    for n, result in enumerate(given):
        about: dict[str, Any] = {
            "temperature_K": result.temperature_K,
            "vacancy_fraction": result.vacancy_fraction,
            **{f"x_{a}": x for a, x in atom_fractions(result).items()},
        }
        rows += [{"result": n, **about, **row} for row in _rows(result)]
    order = ["result", *COLUMNS]
    table = pandas.DataFrame(rows, columns=None if rows else order)
    return table[[*order, *(c for c in table.columns if c not in order)]]


def atom_fractions(result: Transport) -> dict[str, float]:
    """Fraction of each species among the mobile atoms of a result; empty where it does not know its composition."""
    if result.composition is None:
        return {}
    share = result.composition.fractions / result.composition.fractions.sum()
    return dict(zip(result.composition.species, share.tolist(), strict=True))


def _rows(result: Transport) -> Iterator[dict[str, Any]]:
    carrier = "vacancy" if "vacancy" in result.collective_correlation_factor else result.species[0]
    yield from _of("vacancy_diffusivity", carrier, result.vacancy_diffusivity)
    yield from _of("vacancy_diffusivity_tensor", carrier, result.vacancy_diffusivity_tensor)
    for name in (
        "tracer_diffusivity",
        "tracer_diffusivity_tensor",
        "correlation_factor",
        "collective_correlation_factor",
    ):
        for species, quantity in getattr(result, name).items():
            yield from _of(name, species, quantity)
    for name, matrix in (("onsager_matrix", result.onsager_matrix), ("lambda_matrix", result.lambda_matrix)):
        if matrix is None:
            continue
        for i, a in enumerate(result.species):
            for j, b in enumerate(result.species):
                value, error = np.asarray(matrix.value)[i, j], np.asarray(matrix.error)[i, j]
                pair = Quantity(float(value), float(error), matrix.unit, matrix.kind)
                yield from _of(name, a, pair, other=b)


def _of(name: str, species: str, quantity: Quantity, *, other: str | None = None) -> Iterator[dict[str, Any]]:
    value, error = np.asarray(quantity.value), np.asarray(quantity.error)
    for at in np.ndindex(value.shape):
        yield {
            "quantity": name,
            "species": species,
            "other_species": other,
            "component": "".join(AXES[i] for i in at) or None,
            "value": float(value[at]),
            "error": float(error[at]),
            "unit": quantity.unit,
            "kind": quantity.kind,
        }
