"""The stages of a study, one after another; :class:`~ase_kinoson.study.Study` is its face."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError
from ase_kinoson.stages import Stages, fingerprint, recorded_warnings, replace_file

if TYPE_CHECKING:
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.kinosons.relaxation import Relaxation
    from ase_kinoson.kinosons.transport import Transport
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
    """

    study: Study
    stages: Stages
    workers: Executor | None
    progress: bool
    keys: dict[str, str] = field(default_factory=dict)

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
        key = self.keys[name] = fingerprint(states_key, s.calculator.model_dump(), s.barriers.model_dump())

        def compute() -> Barriers:
            return compute_barriers(
                states,
                self.study.jumps,
                self.study.calculator,
                store=self.study.folder / "barriers.db",
                executor=self.workers,
                settings=SaddleSettings(**s.barriers.model_dump()),
                progress=self.progress,
            )

        return self.stages.run(
            name,
            key,
            title=f"reference barriers of {len(states)} states ({name})",
            compute=compute,
            save=lambda barriers: _save_barriers(path, barriers),
            load=lambda: _load_barriers(path, states, self.study.jumps),
        )

    def random_barriers(self) -> tuple[Barriers, str]:
        """Reference barriers of randomly decorated states."""
        from ase_kinoson.kinetics.sampling import sample_states

        study = self.study
        n = study.settings.states.training
        seed = study.seed("training states")
        key = fingerprint("random", study.jumps.fingerprint, study.supercell.fingerprint, n, seed)
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
        """Equilibrium states of the model that no fit has seen, weighted to their reference energies, with barriers."""
        from ase_kinoson.kinetics.sampling import sample_states
        from ase_kinoson.kinetics.weights import reweight

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
        found = self.reference(f"barriers-{t:g}K", states, key)
        with recorded_warnings() as texts:
            weighted = reweight(states, found.energy_initial, t)
        self.stages.warnings[f"weights-{t:g}K"] = texts
        return replace(found, states=weighted)

    def relaxations(self, model: BarrierModel, model_key: str) -> dict[float, Relaxation]:
        """Train y at every temperature, each on one thread, together if there are workers."""
        from ase_kinoson.kinosons.relaxation import Relaxation

        study = self.study
        options = study.settings.relaxation.model_dump()
        s = study.settings.states
        keys, todo = {}, []
        for t in study.temperatures_K:
            name = f"relaxation-{t:g}K"
            keys[t] = self.keys[name] = fingerprint(
                model_key, t, options, s.ensemble, s.sweeps, study.seed("relaxation", t)
            )
            if self.stages.is_done(name, keys[t]):
                self.stages.resumed.append(name)
            else:
                todo.append(t)
                self.stages.begin(name)
        if todo:
            self.stages.on_start("relaxation y at " + ", ".join(f"{t:g} K" for t in todo))
            jobs: dict[float, Callable[[], tuple[float, list[str]]]] = {}
            for t in todo:
                shown = self.progress and (self.workers is None or t == todo[-1])
                if self.workers is not None and len(todo) > 1:
                    jobs[t] = self.workers.submit(_train, study, t, shown).result
                else:
                    jobs[t] = functools.partial(_train, study, t, shown)
            for t, job in jobs.items():
                wall_s, texts = job()
                self.stages.finish(f"relaxation-{t:g}K", keys[t], wall_s, texts)
        return {
            t: self.stages.read(
                f"relaxation-{t:g}K",
                functools.partial(
                    Relaxation.load, _relaxation_path(study, t), study.jumps, model=model, temperature_K=t
                ),
            )
            for t in study.temperatures_K
        }

    def transport(self) -> StudyResult:
        """Everything up to the coefficients."""
        from ase_kinoson.kinosons.density import KinosonDensity
        from ase_kinoson.kinosons.transport import transport
        from ase_kinoson.study import StudyResult
        from ase_kinoson.summary import summarise, write_tables

        study, s = self.study, self.study.settings
        model, model_key, training = self.model()
        evaluation = {t: self.evaluation(model, model_key, t) for t in study.temperatures_K}
        relaxation = self.relaxations(model, model_key)
        results: dict[float, Transport] = {}
        for t, found in evaluation.items():
            with recorded_warnings() as texts:
                results[t] = transport(
                    found.states,
                    study.jumps,
                    found,
                    relaxation[t],
                    t,
                    vacancy_fraction=s.transport.vacancy_fraction,
                    attempt_frequency=s.transport.attempt_frequency,
                    n_resamples=s.transport.n_resamples,
                    seed=study.seed("bootstrap", t),
                )
            self.stages.warnings[f"transport-{t:g}K"] = texts
            for text in texts:
                _log.warning("transport at %g K: %s", t, text)
        density = {t: KinosonDensity.from_result(r) for t, r in results.items()}
        result = StudyResult(
            study.folder,
            {},
            results,
            density,
            training,
            evaluation,
            model,
            relaxation,
            tuple(self.stages.resumed),
        )
        result.summary.update(summarise(study, result, self.stages))
        write_tables(result)
        return result


def _train(study: Study, temperature_K: float, progress: bool) -> tuple[float, list[str]]:
    """Train y at one temperature and save it; return the time it took (s) and its warnings."""
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.kinetics.sampling import sample_states
    from ase_kinoson.kinosons.training import train_relaxation

    started = time.perf_counter()
    options = study.settings.relaxation.model_dump()
    s = study.settings.states
    seed = study.seed("relaxation", temperature_K)
    n_states = options.pop("n_states")
    model = BarrierModel.load(study.folder / "model", study.jumps)
    with recorded_warnings() as texts, one_torch_thread():
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
    return time.perf_counter() - started, texts


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


# -- barriers on disk ----------------------------------------------------------------------------------------

_ARRAYS = ("barrier", "reverse_barrier", "energy_initial", "energy_final", "status", "force_calls", "fmax")


def _save_barriers(path: Path, barriers: Barriers) -> None:
    about = {
        "reasons": [[n, k, text] for (n, k), text in barriers.reasons.items()],
        "settings": {**barriers.settings, "store": "barriers.db"},
    }
    with replace_file(path) as temporary:
        arrays = {name: getattr(barriers, name) for name in _ARRAYS}
        np.savez_compressed(temporary, about=np.array(json.dumps(about, default=str)), **arrays)


def _load_barriers(path: Path, states: States, jumps: JumpNetwork) -> Barriers:
    from ase_kinoson.barriers.reference import Barriers

    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        about = json.loads(str(data.pop("about")))
    except Exception as error:
        raise KinosonError(
            f"cannot read {path} ({error}); expected barriers of this study; restore the file"
        ) from error
    reasons = {(int(n), int(k)): str(text) for n, k, text in about["reasons"]}
    return Barriers.from_arrays(states, jumps, reasons=reasons, settings=about["settings"], **data)
