"""What a study leaves behind as numbers: ``summary.json``, ``kinosons.csv`` and ``barriers.csv``."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.errors import KinosonError, KinosonWarning, VacantSites
from ase_kinoson.kinetics.unsettled import unsettled_shares
from ase_kinoson.kinosons.density import KinosonDensity
from ase_kinoson.kinosons.ladder import powers
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.seals import seal
from ase_kinoson.series_summary import between_temperatures, measured_points, summarise_series
from ase_kinoson.settings import to_toml
from ase_kinoson.stages import Stages, plain, replace_file

if TYPE_CHECKING:
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.crystal.alloy import Alloy
    from ase_kinoson.kinosons.corrected import CorrectedTransport
    from ase_kinoson.kinosons.transport import Transport
    from ase_kinoson.study import Study, StudyResult

__all__ = ["FORMAT", "KINDS", "summarise", "versions", "write_tables"]

FORMAT = "ase_kinoson.summary/1"
"""Layout of summary.json; the number goes up when a key is renamed or removed."""

KINDS = {
    "bound": (
        "upper bound on the true coefficient of this cell, these energies and the states as weighted: the "
        "relaxation y can only "
        "make it too large; the statistical error comes on top"
    ),
    "estimate": (
        "no bound, but an error without a known sign: of second order in the error of y for coefficients, of first "
        "order for slopes and shares; or what a bound needs is missing (failed searches, frozen atoms around a "
        "vacancy, states that a fit has seen); the statistical error comes on top"
    ),
    "corrected": (
        "the bound after the residual ladder on the rates of the model: without the excess that y leaves, but for the "
        "tail given; it is of the model's barriers"
    ),
    "ratio estimate": (
        "the bound with reference barriers times corrected value over bound with the model's: no bound, but the best "
        "value; its bias is a product of two small errors, that of the model and that of the model or of y"
    ),
    "kmc": "from trajectories of kinetic Monte Carlo, with their statistical error",
    "ratio": "quotient of two bounds or estimates, itself no bound",
    "exact": "solved exactly",
    "not a bound": "the states are no equilibrium sample of the energies whose barriers were used",
    "count": "counted",
    "statistics": "average over the states with its statistical error",
    "held-out error": "measured on states that the fit has not seen",
}
"""What the kinds of numbers mean."""

PACKAGES = (
    "ase-kinoson",
    "ase",
    "numpy",
    "scipy",
    "torch",
    "spglib",
    "pymatgen",
    "pydantic",
    "safetensors",
    "matplotlib",
)
PARITY = ("fit", "unseen")


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it stands on."""
    import ase_kinoson

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "ase-kinoson":
                found[name] = ase_kinoson.__version__
    return found


def number(value: float, unit: str, kind: str, error: float | None = None) -> dict[str, Any]:
    """A number as the summary holds it."""
    return {"value": value, "error": error, "unit": unit, "kind": kind}


def summarise(
    study: Study, result: StudyResult, stages: Stages, *, vacancies: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Collect every number of a study with value, error, unit and kind.

    Parameters
    ----------
    study
        Settings and lattice.
    result
        Coefficients, barriers and models.
    stages
        Wall times and warnings.
    vacancies
        What a calculation of the vacancy fraction found.

    Returns
    -------
    dict
        JSON values only.
    """
    s = study.settings
    cell, alloy = study.supercell, study.supercell.alloy
    unseen = {t: _model_errors(result, b) for t, b in result.evaluation.items()}
    told = [("alloy", w) for w in _vacant_sites(alloy)]
    told += [(stage, w) for stage, found in stages.warnings.items() for w in found]
    data = {
        "format": FORMAT,
        "title": s.title or f"Study of {s.alloy.file}",
        "alloy": {
            "file": s.alloy.file,
            "sublattices": [
                {
                    "name": sub.name,
                    "mobile": sub.mobile,
                    "composition": {a: number(x, "1", "site fraction") for a, x in sub.composition},
                }
                for sub in alloy.sublattices
            ],
            "composition_rounding": {
                name: {a: number(x, "1", "realised minus nominal fraction") for a, x in own.items()}
                for name, own in cell.rounding().items()
            },
        },
        "cell": {
            "sites": number(cell.n_sites, "1", "count"),
            "lengths": [number(x, "Å", "given") for x in np.linalg.norm(cell.cell, axis=1)],
        },
        "jumps": {
            "mechanism": study.jumps.mechanism,
            "per_site": number(study.jumps.n_jumps, "1", "count"),
            "lengths": [number(x, "Å", "given") for x in study.jumps.lengths],
        },
        "ensemble": s.states.ensemble,
        "temperatures": [_at_temperature(result, t, unseen[t], s.correction.n_steps) for t in result.transport],
        "activation_energy_between": between_temperatures(result),
        "series": summarise_series(result),
        "measured": measured_points(study),
        "vacancies": vacancies,
        "model": {
            "reference_barriers": number(result.model.report["n_barriers"], "1", "count"),
            "held_out": _held_out(result.model.report.get("held_out", {})),
        },
        "barriers": {
            "training": _counts(result.training),
            **{f"{t:g} K": _counts(b) for t, b in result.evaluation.items()},
        },
        "force_calls": number(
            sum(_force_calls(b) for b in (result.training, *result.evaluation.values())), "1", "count"
        ),
        "leak_free": (
            "The barrier model was fitted to the training states only, and y was trained on Monte Carlo "
            "states of that model. The "
            "coefficients are evaluated with reference barriers on states drawn afresh afterwards, which "
            "neither fit has seen."
        ),
        "kinds": KINDS,
        "warnings": [f"{stage}: {warning}" for stage, warning in told],
        "cautions": [{"stage": stage, **warning.as_dict()} for stage, warning in told],
        "wall_time": {name: number(t, "s", "measured") for name, t in stages.wall_s.items()},
        "settings": s.model_dump(exclude_none=True),
        "settings_toml": to_toml(s),
        "versions": versions(),
    }
    return plain(data)


def _vacant_sites(alloy: Alloy) -> list[KinosonWarning]:
    """Occupancies below 1 are said, not passed over."""
    return [
        VacantSites(
            f"{100 * sub.vacant_fraction:.4g} % of the sites of sublattice {sub.name} are vacant in the input; "
            + (
                "the cell holds exactly one vacancy there"
                if sub.mobile
                else "they are placed at random and do not move"
            ),
            number=100 * sub.vacant_fraction,
            limit=0,
            unit="%",
        )
        for sub in alloy.sublattices
        if sub.vacant_fraction > 1e-9
    ]


def _at_temperature(result: StudyResult, t: float, unseen: dict[str, Any], n_steps: int) -> dict[str, Any]:
    transport = result.transport[t]
    found = transport.numbers()
    settings = found.pop("settings")
    found.pop("energy_drift")
    drift = transport.drift
    own = result.evaluation[t]
    report = own.states.report
    sampled = own.states.model_energies
    assert transport.states is not None and sampled is not None
    trained = result.relaxation[t].report
    densities = {"vacancy" if "vacancy" in result.density[t].quantity else "carrier": result.density[t]} | {
        f"tracer_{a}": KinosonDensity.from_result(transport, quantity=f"tracer_{a}") for a in transport.species
    }
    for key, kind in (
        ("n_states", "count"),
        ("n_reference_barriers", "count"),
        ("n_rejected_jumps", "count"),
    ):
        found[key] = number(found[key], "1", kind)
    found["temperature"] = number(found.pop("temperature_K"), "K", "given")
    found["effective_sample_size"] = number(found["effective_sample_size"], "1", "Kish")
    found["contribution_sample_size"] = number(found["contribution_sample_size"], "1", "Kish, of contributions to D_v")
    found["largest_share"] = number(found["largest_share"], "1", "share of one group of states in D_v")
    fraction = found["vacancy_fraction"]
    doubt, where = found.pop("vacancy_fraction_error"), found.pop("vacancy_fraction_source")
    found["vacancy_fraction"] = None if fraction is None else number(fraction, "1", where, doubt)
    corrected = result.corrected.get(t)
    return found | {
        "ratio_estimate": None if corrected is None else _ratio_estimate(corrected, transport),
        "correction": None if corrected is None else _correction(corrected, n_steps),
        "attempt_frequency": number(settings["attempt_frequency"], "1/s", "given"),
        "energy_drift": None
        if drift is None
        else {
            "total": number(drift.value, "1", "statistics", drift.error),
            **{a: number(v, "1", "statistics", e) for a, (v, e) in drift.by_species.items()},
        },
        "energy_difference": number(
            float(np.nanstd(own.energy_initial - sampled)), "eV", "standard deviation of reference minus model"
        ),
        "unsettled_shares": {
            a: number(x, "1", "share of Λ with y = 0 on barriers that are bounds")
            for a, x in unsettled_shares(own, t).items()
        },
        "pooled": [
            {
                "temperature": number(entry["temperature_K"], "K", "given"),
                "states": number(entry["n_states"], "1", "count"),
                "share": number(entry["share"], "1", "share of the weight"),
                "effective_sample_size": number(entry["effective_sample_size"], "1", "Kish"),
            }
            for entry in transport.states.report.get("pooled", [])
        ],
        "states_source": settings["states_source"],
        "sampling": {
            k.removesuffix("_eV").removesuffix("_sweeps"): number(
                v, "eV" if k.endswith("_eV") else "sweeps" if k.endswith("sweeps") else "1", "statistics"
            )
            for k, v in report.items()
            if isinstance(v, int | float) and not isinstance(v, bool) and k not in ("seed", "effective_sample_size")
        },
        "relaxation": {
            "form": result.relaxation[t].form,
            "lookahead_steps": number(result.relaxation[t].lookahead, "1", "given"),
            "training_states": number(trained.get("n_training_states", 0), "1", "count"),
            "bound_ratio_untrained": number(trained.get("untrained_bound_ratio", float("nan")), "1", "model rates"),
            "bound_ratio_trained": number(trained.get("trained_bound_ratio", float("nan")), "1", "model rates"),
        },
        "model_error": unseen,
        "activation_energy": {name: _estimate(d.activation_energy) for name, d in densities.items()},
        "mean_barrier": {name: _estimate(d.mean_barrier) for name, d in densities.items()},
        "fraction_of_jumps": {
            f"{share:g}": number(x, "1", "fraction of jumps that carries this share")
            for share, x in result.density[t].shares((0.5, 0.9)).items()
        },
        "share_by_species": {
            a: {**q.as_dict(), "kind": "ratio"} for a, q in result.density[t].share_by_species().items()
        },
    }


COEFFICIENTS = (
    "vacancy_diffusivity",
    "vacancy_diffusivity_tensor",
    "tracer_diffusivity",
    "tracer_diffusivity_tensor",
    "onsager_matrix",
    "lambda_matrix",
)


def _ratio_estimate(corrected: CorrectedTransport, bound: Transport) -> dict[str, Any]:
    """The coefficients of the row once more, after the residual ladder.

    Correlation factors are those of the bound over its looseness, so that numerator and denominator stay averages
    over the same states.
    """
    found = corrected.numbers()
    assert corrected.diagnosis is not None
    loose = corrected.diagnosis.looseness

    def tightened(factor: Quantity, name: str) -> dict[str, Any]:
        value = float(factor.value) / float(loose[name].value)
        relative = np.hypot(
            float(factor.error) / float(factor.value), float(loose[name].error) / float(loose[name].value)
        )
        return number(value, "1", corrected.vacancy_diffusivity.kind, abs(value) * float(relative))

    return {name: found[name] for name in COEFFICIENTS} | {
        "correlation_factor": {a: tightened(q, f"tracer {a}") for a, q in bound.correlation_factor.items()},
        "collective_correlation_factor": {a: tightened(q, a) for a, q in bound.collective_correlation_factor.items()},
    }


def _correction(corrected: CorrectedTransport, n_steps: int) -> dict[str, Any]:
    """What the ladder took and found, and whose the gap is."""
    ladder, diagnosis = corrected.ladder, corrected.diagnosis
    assert ladder is not None and diagnosis is not None
    return {
        "looseness": {name: q.as_dict() for name, q in diagnosis.looseness.items()},
        "surrogate": {name: q.as_dict() for name, q in diagnosis.surrogate.items()},
        "tail": {name: number(corrected.tail(name), "1", "estimate") for name in ladder.rungs},
        "ladder_jumps": number(ladder.n_jumps, "1", "count"),
        "continued_jumps": number(ladder.n_continued, "1", "count"),
        "independent_groups": number(ladder.n_groups, "1", "count"),
        "rungs": {
            name: {
                # a rung needs the product of its two longest powers, and one step more
                "jumps": [0, *(2 * last - 1 for _, last in powers(n_steps)[: len(rungs.gain)])],
                "value": rungs.value,
                "error": rungs.error,
                "gain_error": rungs.gain_error,
                "chosen": rungs.chosen,
                "unit": "Å^2/s",
                "kind": "corrected",
            }
            for name, rungs in ladder.rungs.items()
        },
        "plain_ladder": {
            name: {
                "jumps": ladder.check_lags,
                "value": rows[0],
                "error": rows[1:].std(axis=0, ddof=1),
                "unit": "Å^2/s",
                "kind": "corrected",
            }
            for name, rows in ladder.check.items()
        },
    }


def _estimate(function: Callable[[], Quantity]) -> dict[str, Any] | None:
    """A mean over kinosons, itself no bound; None where it is not defined (a state whose energy is unknown)."""
    try:
        return {**function().as_dict(), "kind": "estimate"}
    except KinosonError:
        return None


def _force_calls(barriers: Barriers) -> int:
    return int(barriers.force_calls.sum()) + int(barriers.settings.get("force_calls_initial", 0))


def _counts(barriers: Barriers) -> dict[str, Any]:
    return {
        "states": number(len(barriers), "1", "count"),
        "barriers": number(barriers.n_barriers, "1", "count"),
        "rejected": {reason: number(n, "1", "count") for reason, n in barriers.n_rejected.items()},
        "force_calls": number(_force_calls(barriers), "1", "count"),
        "unsettled": number(barriers.n_unsettled, "1", "count"),
        "side_basins": None
        if barriers.descents is None
        else number(int((barriers.descents == "side-basin").sum()), "1", "count"),
        "by_species": {
            symbol: {
                "mean": number(row["mean"], "eV", "plain mean over jumps"),
                "standard_deviation": number(row["std"], "eV", "spread over jumps"),
                "barriers": number(row["n"], "1", "count"),
                "rejected": number(row["rejected"], "1", "count"),
            }
            for symbol, row in barriers.by_species().items()
        },
    }


def _held_out(report: dict[str, Any]) -> dict[str, Any]:
    """Errors on the model's own test states, by species."""
    rows: dict[str, Any] = {}
    for symbol, entry in report.items():
        rows[symbol] = {
            f"{what}_{measure}": number(entry[what]["model"][measure], "eV", "held-out error")
            for what in ("barrier", "delta_e")
            for measure in ("mae", "rmse", "bias")
        }
        rows[symbol]["barrier_rmse_of_mean"] = number(entry["barrier"]["baseline"]["rmse"], "eV", "held-out error")
        rows[symbol]["barriers"] = number(entry["barrier"]["model"]["n"], "1", "count")
    return rows


def _model_errors(result: StudyResult, barriers: Barriers) -> dict[str, Any]:
    """Errors of the model on the evaluation states, none of which it has seen."""
    valid = barriers.valid
    error = (result.model.predict(barriers.states) - barriers.barrier)[valid] if valid.any() else np.zeros(0)
    moving = barriers.moving_species[valid]
    rows = {}
    for code, symbol in enumerate(barriers.states.supercell.species):
        own = error if code == 0 else error[moving == code]
        if len(own) == 0:
            continue
        rows["all" if code == 0 else symbol] = {
            "mae": number(float(np.abs(own).mean()), "eV", "held-out error"),
            "rmse": number(float(np.sqrt((own**2).mean())), "eV", "held-out error"),
            "bias": number(float(own.mean()), "eV", "held-out error"),
            "barriers": number(len(own), "1", "count"),
        }
    return rows


# -- tables --------------------------------------------------------------------------------------------------


def write_tables(result: StudyResult) -> None:
    """Write ``kinosons.csv``, ``barriers.csv`` and, last, ``summary.json``, each in one step."""
    _write_kinosons(result)
    _write_barriers(result)
    tables = {name: _sha256(result.folder / name) for name in ("kinosons.csv", "barriers.csv")}
    result.summary.update(seal({**result.summary, "files": tables}))
    with replace_file(result.folder / "summary.json") as temporary:
        text = json.dumps(result.summary, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with replace_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _text(column: Any) -> list[str]:
    values = np.asarray(column)
    return [f"{x:.8g}" for x in values] if values.dtype.kind == "f" else [str(x) for x in values]


def _write_kinosons(result: StudyResult) -> None:
    names = list(dict.fromkeys(n for r in result.transport.values() for n in r.kinosons.columns))
    units = {n: u for r in result.transport.values() for n, u in r.kinosons.units.items()}
    header = ["temperature_K [K]", *(f"{n} [{units[n]}]" if units.get(n, "1") != "1" else n for n in names)]

    def rows() -> Iterable[Iterable[Any]]:
        for t, found in result.transport.items():
            columns = [_text(found.kinosons[n]) for n in names]
            yield from ((f"{t:g}", *row) for row in zip(*columns, strict=True))

    _write_csv(result.folder / "kinosons.csv", header, rows())


def _write_barriers(result: StudyResult) -> None:
    header = [
        "set",
        "temperature_K [K]",
        "state",
        "jump",
        "species",
        "status",
        "barrier [eV]",
        "reverse_barrier [eV]",
        "model_barrier [eV]",
        "force_calls",
    ]

    def rows() -> Iterable[Iterable[Any]]:
        sets: list[tuple[str, str, Barriers]] = [(PARITY[0], "", result.training)]
        sets += [(PARITY[1], f"{t:g}", b) for t, b in result.evaluation.items()]
        for name, t, b in sets:
            predicted = result.model.predict(b.states)
            symbols = b.states.supercell.species
            for n, k in np.argwhere(b.moving_species >= 0):
                yield (
                    name,
                    t,
                    n,
                    k,
                    symbols[b.moving_species[n, k]],
                    b.status[n, k],
                    f"{b.barrier[n, k]:.8g}",
                    f"{b.reverse_barrier[n, k]:.8g}",
                    f"{predicted[n, k]:.8g}",
                    b.force_calls[n, k],
                )

    _write_csv(result.folder / "barriers.csv", header, rows())
