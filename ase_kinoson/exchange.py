"""Tracer diffusivities and mobilities for CALPHAD-type fitting: CSV, and data sets for ESPEI and kawin.

The data sets follow ESPEI's schema of single-phase data ("non-equilibrium thermochemical data" in its documentation;
``espei.datasets.check_dataset`` is the rule) with the outputs that ``kawin.mobility_fitting`` reads. What we rely on:

- ``components`` and ``phases`` are lists of upper-case names; ``VA`` is the vacancy, and every component but ``VA``
  stands in some configuration.
- ``conditions`` holds ``P`` (Pa) and ``T`` (K); ``values`` has the shape (pressures, temperatures, configurations).
- ``solver`` holds ``sublattice_site_ratios``, ``sublattice_configurations`` and ``sublattice_occupancies``: one entry
  per sublattice, a name for one occupant and an alphabetic list, with as many occupancies, for several.
- ``output`` is ``TRACER_DIFF_<element>`` (D*, m²/s), ``TRACER_D0_<element>`` (m²/s) or ``TRACER_Q_<element>`` (J/mol),
  with D* = D0 exp(−Q/RT). kawin fits RT ln D* = RT ln D0 − Q, the parameter of the mobility M = D*/(RT).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.corrected import network_of
from ase_kinoson.kinosons.dataframe import atom_fractions
from ase_kinoson.kinosons.result import ESTIMATE, EXACT, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.units import BOLTZMANN_EV_PER_K, EV_IN_JOULE
from ase_kinoson.whole_files import replace_file

__all__ = ["OUTPUTS", "mobilities", "tracer_datasets", "write_tracer_csv", "write_tracer_datasets"]

GAS_CONSTANT = BOLTZMANN_EV_PER_K * EV_IN_JOULE * ase.units.mol
"""R, J/(mol K)."""

OUTPUTS = ("TRACER_DIFF", "TRACER_D0", "TRACER_Q")

ATMOSPHERE = 101325.0
"""Pa."""

SAME_COMPOSITION = 6
"""Digits of fractions that tell compositions apart."""


def mobilities(result: Transport) -> dict[str, Quantity]:
    """Atomic mobilities M_a = D*_a/(RT) of a result, mol m²/(J s).

    Parameters
    ----------
    result
        With a temperature and absolute diffusivities.

    Raises
    ------
    KinosonError
        If diffusivities are per site fraction of vacancies, or there is no temperature or no tracer.

    Notes
    -----
    M = D*/(RT); conventions: docs/exchange.md#tracer-diffusivities-and-mobilities-for-calphad-assessments.
    """
    factor = 1.0 / (GAS_CONSTANT * _temperature(result))
    return {
        a: Quantity(float(q) * factor, float(q.error) * factor, "mol m^2/(J s)", q.kind)
        for a, q in _absolute(result).items()
    }


def write_tracer_csv(results: Transport | Sequence[Transport], path: str | Path) -> None:
    """Write tracer diffusivities and mobilities as CSV, one row per result and species, units in the header.

    Columns: temperature, species, D* and its error, M = D*/(RT) and its error, RT ln(D*/(m²/s)) and its error (the
    quantity that CALPHAD assessments expand in composition), kind, c_v, and the fractions of the mobile atoms.

    Parameters
    ----------
    results
        One or several temperatures and alloys.
    path
        The file; it is replaced in one step.

    Raises
    ------
    KinosonError
        As in :func:`mobilities`.
    """
    given = _listed(results)
    rows: list[dict[str, Any]] = []
    for result in given:
        t, mobile, fractions = _temperature(result), mobilities(result), atom_fractions(result)
        for a, q in _absolute(result).items():
            d, error = float(q), float(q.error)
            rows.append(
                {
                    "temperature [K]": t,
                    "species": a,
                    "tracer_diffusivity [m^2/s]": d,
                    "tracer_diffusivity_error [m^2/s]": error,
                    "mobility [mol m^2/(J s)]": float(mobile[a]),
                    "mobility_error [mol m^2/(J s)]": float(mobile[a].error),
                    "RT_ln_D [J/mol]": GAS_CONSTANT * t * float(np.log(d)) if d > 0 else float("-inf"),
                    "RT_ln_D_error [J/mol]": GAS_CONSTANT * t * error / d if d > 0 else float("nan"),
                    "kind": q.kind,
                    "vacancy_fraction [1]": result.vacancy_fraction,
                    **{f"x_{s} [1]": x for s, x in fractions.items()},
                }
            )
    header = list(dict.fromkeys(key for row in rows for key in row))
    path = Path(path)
    with replace_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, header, restval=0.0)  # a species that is not named has the fraction 0
        writer.writeheader()
        writer.writerows(rows)


def tracer_datasets(
    results: Transport | Sequence[Transport],
    *,
    phase: str,
    site_ratios: Sequence[float] = (1.0, 1.0),
    outputs: Sequence[str] | None = None,
    species: Sequence[str] | None = None,
    reference: str = "ase_kinoson",
    pressure_Pa: float = ATMOSPHERE,
) -> list[dict[str, Any]]:
    """Tracer diffusivities as data sets that ESPEI checks and kawin fits.

    Parameters
    ----------
    results
        One or several temperatures and alloys. Those of one composition are put together.
    phase
        Name of the phase in the database, for example ``"FCC_A1"``.
    site_ratios
        Number of sites of each sublattice of the phase in the database: the alloy fills the first one, vacancies the
        others (in CALPHAD databases FCC_A1 has (1, 1) and BCC_A2 (1, 3)).
    outputs
        Which of :data:`OUTPUTS`; default all, D0 and Q where a composition has two temperatures or more: kawin advises
        to fit to these two. They come from a least-squares line of ln D* against 1/T, weighted with the errors where
        all are known, and stand at the middle of the range of 1/T.
    species
        Which species; default all that move.
    reference
        Stored as ``"reference"``.
    pressure_Pa
        Pa.

    Returns
    -------
    list of dict
        Data sets ready for JSON. Beside ESPEI's keys they hold ``"errors"`` (one standard error or null, the shape of
        ``"values"``) and ``"kind"``, which ESPEI passes over.

    Raises
    ------
    KinosonError
        If diffusivities are per site fraction of vacancies or not positive, a composition has a temperature twice, or
        several sublattices hold atoms.
    """
    wanted = OUTPUTS if outputs is None else tuple(outputs)
    unknown = [o for o in wanted if o not in OUTPUTS]
    if unknown:
        raise KinosonError(f"found outputs {unknown}; expected some of {OUTPUTS}; choose from these")
    groups: dict[tuple[tuple[str, float], ...], list[Transport]] = {}
    for result in _listed(results):
        key = tuple((a, round(x, SAME_COMPOSITION)) for a, x in sorted(_host(result).items()))
        groups.setdefault(key, []).append(result)
    found = []
    for composition, own in groups.items():
        own = sorted(own, key=_temperature)
        t = np.array([_temperature(r) for r in own])
        if len(np.unique(t)) < len(t):
            raise KinosonError(
                f"found temperatures {t.tolist()} K for one composition; expected each once; drop or average results"
            )
        frame = _frame(dict(composition), phase, site_ratios, reference)
        moving = [a for a in own[0].tracer_diffusivity if species is None or a in species]
        missing = [] if species is None else [a for a in species if a not in moving]
        if missing:
            raise KinosonError(f"found no tracer diffusivity of {missing}; expected some of {moving}; name these")
        for a in moving:
            quantities = [_absolute(r)[a] for r in own]
            d, error = np.array([float(q) for q in quantities]), np.array([float(q.error) for q in quantities])
            if not np.all(d > 0):
                raise KinosonError(
                    f"found D* of {a} = {d.min():.3g} m²/s; expected positive numbers, because mobilities are fitted "
                    "as logarithms; leave the species out with species="
                )
            kind = next(iter({q.kind for q in quantities})) if len({q.kind for q in quantities}) == 1 else ESTIMATE
            rows: list[tuple[str, NDArray, NDArray, NDArray, str]] = [("TRACER_DIFF", t, d, error, kind)]
            if len(t) > 1:
                middle, (d0, d0_error), (q, q_error) = _arrhenius(t, d, error)
                rows.append(("TRACER_D0", middle, d0, d0_error, EXACT if kind == EXACT else ESTIMATE))
                rows.append(("TRACER_Q", middle, q, q_error, EXACT if kind == EXACT else ESTIMATE))
            for name, at, values, errors, how in rows:
                if name in wanted:
                    found.append(
                        {
                            **frame,
                            "conditions": {"P": [pressure_Pa], "T": at.tolist()},
                            "output": f"{name}_{a.upper()}",
                            "values": values.reshape(1, -1, 1).tolist(),
                            "errors": [[[float(e) if np.isfinite(e) else None] for e in errors]],
                            "kind": how,
                        }
                    )
    return found


def write_tracer_datasets(
    results: Transport | Sequence[Transport], folder: str | Path, *, phase: str, **options: Any
) -> list[Path]:
    """Write the data sets of :func:`tracer_datasets`, one JSON file each, as ESPEI wants them.

    Parameters
    ----------
    results, phase, **options
        As in :func:`tracer_datasets`.
    folder
        Made if it does not exist.

    Returns
    -------
    list of Path
        For example ``CuNi-TRACER_DIFF_CU-0.json``; the number tells compositions apart.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, int] = {}
    paths = []
    for data in tracer_datasets(results, phase=phase, **options):
        stem = "".join(c.capitalize() for c in data["components"] if c != "VA") + f"-{data['output']}"
        number = numbers[stem] = numbers.get(stem, -1) + 1
        path = folder / f"{stem}-{number}.json"
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _listed(results: Transport | Sequence[Transport]) -> list[Transport]:
    given = [results] if isinstance(results, Transport) else list(results)
    if not given:
        raise KinosonError("found no results; expected at least one; pass what transport() or correct() return")
    return given


def _temperature(result: Transport) -> float:
    if result.temperature_K is None:
        raise KinosonError(
            "found a result without temperature; expected one in kelvin, because mobilities are D*/(RT); evaluate "
            "barriers at a temperature"
        )
    return float(result.temperature_K)


def _absolute(result: Transport) -> dict[str, Quantity]:
    """Tracer diffusivities in m²/s."""
    if not result.tracer_diffusivity:
        raise KinosonError("found a result without tracer diffusivities; expected some; evaluate with tracers")
    if any(q.unit != "m^2/s" for q in result.tracer_diffusivity.values()):
        raise KinosonError(
            "found tracer diffusivities per c_v; expected absolute ones in m²/s, which is what experiments and "
            "assessments hold; pass vacancy_fraction= to the evaluation"
        )
    return result.tracer_diffusivity


def _host(result: Transport) -> dict[str, float]:
    """Composition of the one sublattice of atoms: the mobile one, or the host of an interstitial."""
    network = network_of(result)
    solid = [s for s in network.supercell.alloy.sublattices if not s.interstitial]
    if len(solid) != 1:
        raise KinosonError(
            f"found {len(solid)} sublattices of atoms ({', '.join(s.name for s in solid)}); expected one, because the "
            "model of an ordered phase is a choice of the database; build its data sets from to_dataframe()"
        )
    if network.mechanism == "vacancy":
        return atom_fractions(result)
    share = solid[0].occupancy
    return {a: x / share for a, x in solid[0].composition}


def _frame(composition: dict[str, float], phase: str, site_ratios: Sequence[float], reference: str) -> dict[str, Any]:
    """The part of a data set that says what was measured on."""
    names = sorted(composition, key=str.upper)
    fractions = np.array([composition[a] for a in names])
    fractions = (fractions / fractions.sum()).tolist()
    upper = [a.upper() for a in names]
    one = len(names) == 1
    empty = len(site_ratios) - 1
    return {
        "components": sorted([*upper, "VA"]),
        "phases": [phase],
        "solver": {
            "mode": "manual",
            "sublattice_site_ratios": [float(r) for r in site_ratios],
            "sublattice_configurations": [[upper[0] if one else upper, *["VA"] * empty]],
            "sublattice_occupancies": [[1.0 if one else fractions, *[1.0] * empty]],
        },
        "reference": reference,
    }


def _arrhenius(
    t: NDArray, d: NDArray, error: NDArray
) -> tuple[NDArray, tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """Least squares of ln D* = ln D0 − Q/RT: temperature at the middle of 1/T, D0 (m²/s), Q (J/mol) with errors.

    Errors are those that the errors of D* make; NaN where these are not known.
    """
    x = 1.0 / (GAS_CONSTANT * t)
    known = bool(np.all(np.isfinite(error) & (error > 0)))
    weight = d / error if known else np.ones(len(t))
    middle = x.mean()
    design = np.stack([np.ones(len(t)), -(x - middle)], axis=1) * weight[:, None]
    covariance = np.linalg.inv(design.T @ design)
    at_middle, slope = covariance @ design.T @ (np.log(d) * weight)
    if not known:
        spread = 0.0 if np.all(error == 0) else np.nan
        covariance = covariance * spread
    log_d0 = at_middle + slope * middle
    toward = np.array([1.0, middle])
    d0_error = np.exp(log_d0) * np.sqrt(toward @ covariance @ toward)
    where = np.array([1.0 / (GAS_CONSTANT * 0.5 * (x.min() + x.max()))])
    return (
        where,
        (np.array([np.exp(log_d0)]), np.array([d0_error])),
        (np.array([slope]), np.array([np.sqrt(covariance[1, 1])])),
    )
