"""The stages of a study, one after another; :class:`~ase_kinoson.study.Study` is its face."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonWarning, NoCorrection, SmallSample, StatesError
from ase_kinoson.stages import (
    Stages,
    Workers,
    fingerprint,
    load_barriers,
    load_correction,
    recorded_warnings,
    replace_file,
    save_barriers,
    save_correction,
)
from ase_kinoson.vacancy_stage import check_vacancy_fraction, study_vacancy_fraction

if TYPE_CHECKING:
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.kinosons.corrected import CorrectedTransport
    from ase_kinoson.kinosons.relaxation import Relaxation
    from ase_kinoson.kinosons.transport import Transport
    from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
    from ase_kinoson.study import Study, StudyResult

__all__ = ["Pipeline", "one_torch_thread", "say"]

_log = logging.getLogger(__name__)


@dataclass
class Pipeline:
    """One pass through the stages.

    Attributes
    ----------
    study : Study
    stages : Stages
    workers : Executor or None
        Where barriers are computed; None for this process.
    progress : bool
        Whether to show bars.
    keys : dict of str to str
        Fingerprints of the stages so far.
    vacancies : dict or None
        What a calculation of the vacancy fraction found.
    """

    study: Study
    stages: Stages
    workers: Executor | None
    progress: bool
    keys: dict[str, str] = field(default_factory=dict)
    vacancies: dict[str, Any] | None = None

    # -- barriers --------------------------------------------------------------------------------------------

    def states(self, name: str, key: str, title: str, sample: Callable[[], States]) -> States:
        """States of one stage, kept as extended XYZ."""
        path = self.study.folder / "stages" / f"{name}.extxyz"
        self.keys[name] = key

        def save(states: States) -> None:
            with replace_file(path) as temporary:
                states.write(temporary)

        return self.stages.run(
            name,
            key,
            title=title,
            compute=sample,
            save=save,
            load=lambda: States.read(path, self.study.supercell),
        )

    def reference(self, name: str, states: States, states_key: str) -> Barriers:
        """Reference barriers of states; all sets of a study share one store."""
        from ase_kinoson.barriers.campaign import compute_barriers
        from ase_kinoson.barriers.saddle import SaddleSettings

        s = self.study.settings
        path = self.study.folder / "stages" / f"{name}.npz"
        search = s.barriers.model_dump()
        options = {k: search.pop(k) for k in ("time_limit_s", "retry")}
        key = self.keys[name] = fingerprint(states_key, s.calculator.model_dump(), search, options["retry"])

        def compute() -> Barriers:
            return compute_barriers(
                states,
                self.study.jumps,
                self.study.calculator,
                store=self.study.folder / "barriers.db",
                # workers that crash are replaced, and the task that killed them is recorded
                executor=None if self.workers is None else functools.partial(Workers, self.study.n_workers),
                settings=SaddleSettings(**search),
                progress=self.progress,
                **options,
            )

        return self.stages.run(
            name,
            key,
            title=f"reference barriers of {len(states)} states ({name})",
            compute=compute,
            save=lambda barriers: save_barriers(path, barriers),
            load=lambda: load_barriers(path, states, self.study.jumps),
        )

    def random_barriers(self) -> tuple[Barriers, str]:
        """Reference barriers of randomly decorated states."""
        from ase_kinoson.kinetics.sampling import sample_states

        study = self.study
        n = study.settings.states.training
        seed = study.seed("training states")
        key = fingerprint("random", study.jumps.fingerprint, study.supercell.fingerprint, n, seed)
        before = fingerprint("random", study.jumps.former_fingerprint, study.supercell.former_fingerprint, n, seed)
        key = self.stages.known("states-training", key, before)
        states = self.states(
            "states-training",
            key,
            f"{n} random states",
            lambda: sample_states(study.supercell, n, method="random", seed=seed),
        )
        return self.reference("barriers-training", states, key), self.keys["barriers-training"]

    # -- model -----------------------------------------------------------------------------------------------

    def fitted(self, name: str, path: Path, parts: list[Barriers], upstream: list[str]) -> tuple[BarrierModel, str]:
        """Barrier model of several sets of barriers, saved as ``path``."""
        from ase_kinoson.barriers.learned import BarrierModel
        from ase_kinoson.barriers.reference import Barriers

        options = self.study.settings.model.model_dump()
        seed = self.study.seed("model")
        key = self.keys[name] = fingerprint(upstream, options, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        model = self.stages.run(
            name,
            key,
            title=f"barrier model of {sum(p.n_barriers for p in parts)} barriers ({name})",
            compute=lambda: BarrierModel.fit(Barriers.concatenate(parts), seed=seed, progress=self.progress, **options),
            save=lambda m: m.save(path),
            load=lambda: BarrierModel.load(path, self.study.jumps),
        )
        return model, key

    def model(self) -> tuple[BarrierModel, str, Barriers]:
        """Reference barriers, rounds of learning, and the final model."""
        from ase_kinoson.barriers.reference import Barriers
        from ase_kinoson.kinetics.sampling import sample_states

        study, s = self.study, self.study.settings.states
        first, key = self.random_barriers()
        parts, upstream = [first], [key]
        temperatures = study.temperatures_K
        for r in range(1, s.rounds + 1):
            model, key = self.fitted(f"model-round-{r}", study.folder / "stages" / f"model-round-{r}", parts, upstream)
            share = np.bincount(np.arange(s.per_round) % len(temperatures), minlength=len(temperatures))
            for t, n in zip(temperatures, share.tolist(), strict=True):
                if n == 0:
                    continue
                name, seed = f"round-{r}-{t:g}K", study.seed("round", r, t)
                states_key = fingerprint(key, t, n, s.ensemble, s.sweeps, seed)
                states = self.states(
                    f"states-{name}",
                    states_key,
                    f"{n} equilibrium states of the model at {t:g} K (round {r} of learning)",
                    functools.partial(
                        sample_states,
                        study.supercell,
                        n,
                        method="monte-carlo",
                        seed=seed,
                        model=model,
                        temperature_K=t,
                        ensemble=s.ensemble,
                        sweeps=s.sweeps,
                        progress=self.progress,
                    ),
                )
                parts.append(self.reference(f"barriers-{name}", states, states_key))
                upstream.append(self.keys[f"barriers-{name}"])
        model, key = self.fitted("model", study.folder / "model", parts, upstream)
        return model, key, Barriers.concatenate(parts)

    # -- evaluation ------------------------------------------------------------------------------------------

    def evaluation(self, model: BarrierModel, model_key: str, t: float) -> Barriers:
        """Equilibrium states of the model that no fit has seen, as they were drawn, with reference barriers."""
        from ase_kinoson.kinetics.sampling import sample_states

        study, s = self.study, self.study.settings.states
        seed = study.seed("evaluation", t)
        chains = (s.arrangements or max(2, s.evaluation // 8)) if s.ensemble == "quenched" else None
        key = fingerprint(model_key, t, s.evaluation, s.ensemble, chains, s.sweeps, seed)
        states = self.states(
            f"states-{t:g}K",
            key,
            f"{s.evaluation} {s.ensemble} states of the model at {t:g} K",
            lambda: sample_states(
                study.supercell,
                s.evaluation,
                method="monte-carlo",
                seed=seed,
                model=model,
                temperature_K=t,
                ensemble=s.ensemble,
                n_chains=chains,
                sweeps=s.sweeps,
                progress=self.progress,
            ),
        )
        return self.reference(f"barriers-{t:g}K", states, key)

    def weighted(self, drawn: Mapping[float, Barriers], t: float) -> Barriers:
        """Evaluation states with the weights of their reference energies at one temperature.

        A barrier does not depend on temperature, so that the states of all temperatures serve each, as far as
        their weights reach.
        """
        from ase_kinoson.kinetics.pooling import pool_states
        from ase_kinoson.kinetics.weights import reweight

        own, pooled = drawn[t], None
        told: list[KinosonWarning] = []
        s = self.study.settings.states
        if s.pool and s.ensemble == "equilibrium" and len(drawn) > 1:
            try:
                with recorded_warnings() as told:
                    pooled = pool_states(list(drawn.values()), t)
            except StatesError as error:
                text = f"the states of all temperatures do not serve {t:g} K, which is left with its own: {error}"
                told = [SmallSample(text, number=len(own.states), unit="states")]
        if pooled is None:
            with recorded_warnings() as more:
                pooled = replace(own, states=reweight(own.states, own.energy_initial, t))
            told = [*told, *more]
        self.stages.warnings[f"weights-{t:g}K"] = told
        return pooled

    def relaxations(self, model: BarrierModel, model_key: str) -> dict[float, Relaxation]:
        """Train y at every temperature, each on one thread, together if there are workers."""
        study, s = self.study, self.study.settings
        keys = {
            # one seed for all: noise of training that differs from one to the next would be a slope
            t: fingerprint(
                model_key, t, s.relaxation.model_dump(), s.states.ensemble, s.states.sweeps, study.seed("relaxation")
            )
            for t in study.temperatures_K
        }
        if s.relaxation.warm_start:
            hotter, upstream = None, ""
            for t in sorted(keys, reverse=True):
                keys[t] = upstream = fingerprint(keys[t], upstream)
                self.together("relaxation", "relaxation y", {t: keys[t]}, functools.partial(_train, start_K=hotter))
                hotter = t
        else:
            self.together("relaxation", "relaxation y", keys, _train)
        return {t: self.relaxation(model, t) for t in study.temperatures_K}

    def relaxation(self, model: BarrierModel, t: float) -> Relaxation:
        """Read the relaxation of one temperature."""
        from ase_kinoson.kinosons.relaxation import Relaxation

        path = _relaxation_path(self.study, t)
        return self.stages.read(
            f"relaxation-{t:g}K",
            lambda: Relaxation.load(path, self.study.jumps, model=model, temperature_K=t),
        )

    def coefficients(
        self, found: Barriers, relaxation: Relaxation, t: float, vacancy_fraction: VacancyFraction | None
    ) -> Transport:
        """Evaluate the functional with reference barriers."""
        from ase_kinoson.kinosons.transport import transport

        s = self.study.settings.transport
        with recorded_warnings() as told:
            result = transport(
                found.states,
                self.study.jumps,
                found,
                relaxation,
                t,
                vacancy_fraction=vacancy_fraction,
                attempt_frequency=s.attempt_frequency,
                n_resamples=s.n_resamples,
                seed=self.study.seed("bootstrap"),
            )
        self.stages.warnings[f"transport-{t:g}K"] = told
        return result

    def corrections(self, results: dict[float, Transport]) -> dict[float, CorrectedTransport]:
        """Climb the residual ladder on the model's rates at every temperature, together if there are workers."""
        study, s = self.study, self.study.settings
        if not s.correction.enabled:
            return {}
        if s.states.ensemble == "quenched" and study.jumps.mechanism == "vacancy":
            self.stages.warnings["correction"] = [
                NoCorrection(
                    "found the quenched ensemble; expected the equilibrium one for ratio estimates: atoms move along "
                    "trajectories, and frozen ones have no ladder",
                    advice="use the coefficients without it",
                )
            ]
            return {}
        keys = {
            t: fingerprint(
                self.keys[f"relaxation-{t:g}K"],
                s.states.pool,
                [self.keys[f"barriers-{x:g}K"] for x in results],
                s.correction.model_dump(),
                s.transport.attempt_frequency,
                s.transport.n_resamples,
                study.seed("bootstrap"),
                _correction_seed(study, t),
            )
            for t in results
        }
        self.together("correction", "residual ladder", keys, _correct)
        return {
            t: self.stages.read(
                f"correction-{t:g}K", functools.partial(load_correction, _correction_path(study, t), result)
            )
            for t, result in results.items()
        }

    def together(
        self,
        what: str,
        title: str,
        keys: dict[float, str],
        job: Callable[[Study, float, bool], tuple[float, list[KinosonWarning]]],
    ) -> None:
        """Have a job write its output at every temperature where it is not done; side by side if there are workers."""
        todo = []
        for t, key in keys.items():
            name = f"{what}-{t:g}K"
            self.keys[name] = key
            if self.stages.is_done(name, key):
                self.stages.resumed.append(name)
            else:
                todo.append(t)
                self.stages.begin(name)
        if not todo:
            return
        self.stages.on_start(f"{title} at " + ", ".join(f"{t:g} K" for t in todo))
        results: dict[float, Callable[[], tuple[float, list[KinosonWarning]]]] = {}
        for t in todo:
            shown = self.progress and (self.workers is None or t == todo[-1])
            if self.workers is not None and len(todo) > 1:
                results[t] = self.workers.submit(job, self.study, t, shown).result
            else:
                results[t] = functools.partial(job, self.study, t, shown)
        for t, result in results.items():
            wall_s, told = result()
            self.stages.finish(f"{what}-{t:g}K", keys[t], wall_s, told)

    def transport(self) -> StudyResult:
        """Everything up to the coefficients."""
        from ase_kinoson.barriers.training_distance import far_from_training
        from ase_kinoson.kinosons.density import KinosonDensity
        from ase_kinoson.series_summary import measured_points
        from ase_kinoson.study import StudyResult
        from ase_kinoson.summary import summarise, write_tables

        study = self.study
        # what is wrong with the user's tables shows before hours of barriers
        measured_points(study)
        check_vacancy_fraction(study)
        model, model_key, training = self.model()
        evaluation = {t: self.evaluation(model, model_key, t) for t in study.temperatures_K}
        weighted = {t: self.weighted(evaluation, t) for t in evaluation}
        relaxation = self.relaxations(model, model_key)
        fraction = study_vacancy_fraction(self, model, model_key)
        results = {t: self.coefficients(found, relaxation[t], t, fraction) for t, found in weighted.items()}
        for t in results:
            self.stages.warnings[f"model-{t:g}K"] = told = far_from_training(model, evaluation[t], training)
            for warning in [*told, *self.stages.warnings[f"transport-{t:g}K"]]:
                _log.warning("transport at %g K: %s", t, warning)
        result = StudyResult(
            study.folder,
            {},
            results,
            {t: KinosonDensity.from_result(r) for t, r in results.items()},
            training,
            evaluation,
            model,
            relaxation,
            self.corrections(results),
            tuple(self.stages.resumed),
        )
        result.summary.update(summarise(study, result, self.stages, vacancies=self.vacancies))
        write_tables(result)
        return result


def _train(
    study: Study, temperature_K: float, progress: bool, *, start_K: float | None = None
) -> tuple[float, list[KinosonWarning]]:
    """Train y at one temperature and save it; return the time it took (s) and its warnings.

    With ``start_K`` it starts from the relaxation of that temperature.
    """
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.kinetics.sampling import sample_states
    from ase_kinoson.kinosons.relaxation import Relaxation
    from ase_kinoson.kinosons.training import train_relaxation

    started = time.perf_counter()
    options = study.settings.relaxation.model_dump()
    s = study.settings.states
    seed = study.seed("relaxation")
    n_states = options.pop("n_states")
    options.pop("warm_start")
    model = BarrierModel.load(study.folder / "model", study.jumps)
    if start_K is not None:
        path = _relaxation_path(study, start_K)
        options["start"] = Relaxation.load(path, study.jumps, model=model, temperature_K=start_K)
    with recorded_warnings() as told, one_torch_thread():
        states = sample_states(
            study.supercell,
            n_states,
            method="monte-carlo",
            seed=seed,
            model=model,
            temperature_K=temperature_K,
            ensemble=s.ensemble,
            sweeps=s.sweeps,
            progress=progress,
        )
        relaxation = train_relaxation(
            study.supercell,
            study.jumps,
            model,
            temperature_K=temperature_K,
            states=states,
            seed=seed,
            progress=progress,
            **options,
        )
    relaxation.save(_relaxation_path(study, temperature_K))
    return time.perf_counter() - started, told


def _correct(study: Study, temperature_K: float, progress: bool) -> tuple[float, list[KinosonWarning]]:
    """Correct the coefficients of one temperature and save them; return the time it took (s) and its warnings.

    All that came before is read from the folder, so that it runs in any process.
    """
    from ase_kinoson.kinetics.sampling import sample_states
    from ase_kinoson.kinosons.correction import correct

    started = time.perf_counter()
    s = study.settings
    seed = _correction_seed(study, temperature_K)
    run = Pipeline(study, Stages(study.folder), None, False)
    with one_torch_thread():
        model, key, _ = run.model()
        drawn = {t: run.evaluation(model, key, t) for t in study.temperatures_K}
        found = run.weighted(drawn, temperature_K)
        # c_v enters when the file is read: another one costs no second ladder
        result = run.coefficients(found, run.relaxation(model, temperature_K), temperature_K, None)
        with recorded_warnings() as told:
            starts = sample_states(
                study.supercell,
                s.correction.n_trajectories,
                method="monte-carlo",
                seed=seed,
                model=model,
                temperature_K=temperature_K,
                ensemble=s.states.ensemble,
                sweeps=s.states.sweeps,
                progress=progress,
            )
            corrected = correct(
                result,
                model,
                n_steps=s.correction.n_steps,
                n_trajectories=s.correction.n_trajectories,
                states=starts,
                long_jumps=s.correction.long_jumps,
                n_resamples=s.transport.n_resamples,
                seed=seed,
                progress=progress,
            )
    save_correction(_correction_path(study, temperature_K), corrected)
    return time.perf_counter() - started, told


def _correction_seed(study: Study, temperature_K: float) -> int:
    return study.seed("correction", temperature_K, study.settings.correction.seed)


def _correction_path(study: Study, temperature_K: float) -> Path:
    return study.folder / "stages" / f"correction-{temperature_K:g}K.npz"


def _relaxation_path(study: Study, temperature_K: float) -> Path:
    # Relaxation files take their suffix from the stem: no dots in it.
    return study.folder / f"relaxation-{temperature_K:g}K".replace(".", "_")


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have torch use one thread, so that sums do not depend on the number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def say(title: str) -> None:
    """Show what is being done."""
    sys.stderr.write(f"» {title}\n")
    sys.stderr.flush()
