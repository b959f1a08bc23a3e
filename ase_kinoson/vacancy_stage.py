"""The vacancy fraction of a study: given, from a table, or computed with the calculator and kept in the folder."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.seals import read_json_file, seal, unsealed
from ase_kinoson.stages import Workers, fingerprint, plain, replace_file

if TYPE_CHECKING:
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.pipeline import Pipeline
    from ase_kinoson.study import Study

__all__ = ["CALCULATED", "check_vacancy_fraction", "study_vacancy_fraction"]

CALCULATED = "vacancies"
"""Name of the stage and of its file."""


def check_vacancy_fraction(study: Study) -> None:
    """Refuse what the study file says of c_v before anything is computed.

    Raises
    ------
    KinosonError
        If a table cannot be read or does not cover the temperatures, c_v is no site fraction at one of them, or it
        cannot be calculated for this alloy.
    """
    from ase_kinoson.kinetics.perfect_crystal import perfect_counts

    given = _given(study)
    if given is not None:
        for t in study.temperatures_K:
            given.at(t)
    elif study.settings.vacancies.arrangements is not None:
        perfect_counts(study.supercell)


def study_vacancy_fraction(run: Pipeline, model: BarrierModel, model_key: str) -> VacancyFraction | None:
    """Return c_v(T) as the study file says, or None where it says nothing.

    Parameters
    ----------
    run
        One pass through the stages; keeps what a calculation found.
    model, model_key
        Barrier model, whose energies draw the arrangements of an equilibrium ensemble, and its fingerprint.

    Raises
    ------
    KinosonError
        If a table cannot be read, or the calculation fails.
    """
    given = _given(run.study)
    if given is not None or run.study.settings.vacancies.arrangements is None:
        return given
    return _fraction(_computed(run, model, model_key))


def _given(study: Study) -> VacancyFraction | None:
    """c_v as the study file gives it; None where it is to be calculated, or nothing is said."""
    s, own = study.settings, study.settings.vacancies
    if s.transport.vacancy_fraction is not None:
        return VacancyFraction.constant(s.transport.vacancy_fraction)
    if own.fraction is not None:
        return VacancyFraction.constant(own.fraction, own.fraction_error)
    if own.formation_energy_eV is not None:
        return VacancyFraction.from_formation(
            own.formation_energy_eV, own.formation_entropy_kB, energy_error=own.formation_energy_error_eV
        )
    if own.table is not None:
        try:
            return VacancyFraction.from_table(study.base / own.table)
        except KinosonError as error:
            raise type(error)(f"[vacancies] table: {error}") from error
    return None


def _computed(run: Pipeline, model: BarrierModel, model_key: str) -> dict[str, Any]:
    """c_v and what belongs to it at every temperature of the study, from the calculator."""
    study = run.study
    s, own = study.settings, study.settings.vacancies
    seed = study.seed(CALCULATED)
    equilibrium = own.ensemble == "equilibrium"
    search = {k: v for k, v in s.barriers.model_dump().items() if k not in ("time_limit_s", "retry")}
    key, before = (
        fingerprint(
            own.model_dump(),
            search,
            s.calculator.model_dump(),
            name,
            study.temperatures_K,
            seed,
            model_key if equilibrium else None,
        )
        for name in (study.supercell.fingerprint, study.supercell.former_fingerprint)
    )
    key = run.stages.known(CALCULATED, key, before)
    path = study.folder / "stages" / f"{CALCULATED}.json"

    def compute() -> dict[str, Any]:
        from ase_kinoson.barriers.saddle import SaddleSettings
        from ase_kinoson.kinosons.vacancy_formation import vacancy_formation

        found = vacancy_formation(
            study.supercell,
            study.calculator,
            ensemble=own.ensemble,
            temperatures_K=study.temperatures_K if equilibrium else None,
            model=model if equilibrium else None,
            arrangements=own.arrangements or 2,
            sites=own.sites,
            swaps=own.swaps,
            entropy_kB=own.formation_entropy_kB,
            store=study.folder / "vacancies.db",
            settings=SaddleSettings(**search),
            executor=None if run.workers is None else functools.partial(Workers, study.n_workers),
            seed=seed,
        )
        return found.as_dict(study.temperatures_K) | {"source": found.vacancy_fraction().source}

    def save(found: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary:
            text = json.dumps(seal(plain(found)), indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    def load() -> dict[str, Any]:
        data = dict(read_json_file(path))
        wrong = unsealed(data)
        if wrong:
            raise KinosonError(f"{path}: {wrong}; expected the vacancies of this study; restore the file")
        return {key: value for key, value in data.items() if key not in ("seal", "digest")}

    title = f"vacancy fraction from {own.arrangements} arrangements"
    found = run.stages.run(CALCULATED, key, title=title, compute=compute, save=save, load=load)
    run.vacancies = found
    return found


def _fraction(found: dict[str, Any]) -> VacancyFraction:
    """c_v(T) from what the stage kept: nothing but the temperatures of the study is asked for."""
    rows = found["temperatures"]
    known = {float(r["temperature_K"]): r["vacancy_fraction"] for r in rows}

    def curve(temperature: float) -> tuple[float, float]:
        if temperature not in known:
            raise KinosonError(
                f"found {temperature:g} K for a vacancy fraction calculated at {sorted(known)} K; expected one of "
                "these; add the temperature to the study file"
            )
        row = known[temperature]
        return float(row["value"]), float(row["error"])

    return VacancyFraction(curve, str(found["source"]), "calculated")
