"""`Study`: one object from alloy to report, resumable.

The way of the data: random states → reference barriers → barrier model → equilibrium states of the model at
each temperature → their reference barriers and weights → relaxation y, trained on states of the model →
transport with the *reference* barriers → residual ladder on the model's rates, which carries the bounds over to
ratio estimates. No fit sees a state on which coefficients are evaluated.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from ase_kinoson.barriers.potentials import is_potential, potential
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, StudyError
from ase_kinoson.pipeline import Pipeline, one_torch_thread, say
from ase_kinoson.settings import StudySettings, parse_settings, read_toml
from ase_kinoson.stages import Stages, Workers, available_cores
from ase_kinoson.whole_files import remove_leftovers

if TYPE_CHECKING:
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.kinosons.corrected import CorrectedTransport
    from ase_kinoson.kinosons.density import KinosonDensity
    from ase_kinoson.kinosons.relaxation import Relaxation
    from ase_kinoson.kinosons.transport import Transport

__all__ = ["Study", "StudyResult", "load_calculator"]

_log = logging.getLogger(__name__)

MOST_WORKERS = 4096
MOST_SITES = 10**6
"""Most sites of the supercell of a study."""


@dataclass(frozen=True, eq=False)
class StudyResult:
    """What a study found.

    Attributes
    ----------
    folder : Path
        Where everything is written.
    summary : dict
        What ``summary.json`` holds: every number with value, error, unit and kind.
    transport : dict of float to Transport
        Coefficients by temperature (K).
    density : dict of float to KinosonDensity
        Kinosons of the vacancy (carrier) by temperature (K).
    training : Barriers
        Reference barriers that the model learned from.
    evaluation : dict of float to Barriers
        Reference barriers of the states on which coefficients are evaluated.
    model : BarrierModel
    relaxation : dict of float to Relaxation
    corrected : dict of float to CorrectedTransport
        Ratio estimates by temperature (K); empty where the correction is not enabled.
    resumed : tuple of str
        Stages that were loaded instead of computed.
    """

    folder: Path
    summary: dict[str, Any]
    transport: dict[float, Transport]
    density: dict[float, KinosonDensity]
    training: Barriers
    evaluation: dict[float, Barriers]
    model: BarrierModel
    relaxation: dict[float, Relaxation]
    corrected: dict[float, CorrectedTransport] = field(default_factory=dict)
    resumed: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = []
        for t, found in self.transport.items():
            lines.append(str(found))
            if t in self.corrected:
                lines += [line for line in str(self.corrected[t]).splitlines() if line.startswith("  D")]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Study:
    """A study: settings, and the folder that holds what is known so far.

    Attributes
    ----------
    settings : StudySettings
        What the study file says.
    base : Path
        Folder that relative paths of the settings start from.
    folder : Path
        Output folder.
    """

    settings: StudySettings
    base: Path
    folder: Path

    @classmethod
    def from_toml(cls, path: str | Path, out: str | Path | None = None, *, workers: int | None = None) -> Study:
        """Read a study file.

        Parameters
        ----------
        path
            TOML; its keys are those of :class:`~ase_kinoson.settings.StudySettings`.
        out
            Output folder; default ``<name>-output`` beside the file.
        workers
            Number of processes, instead of what the file says.

        Raises
        ------
        StudyError
            Says in one sentence what is wrong with the file.
        """
        path = Path(path)
        settings = parse_settings(read_toml(path), name=path.name)
        folder = path.with_name(f"{path.stem}-output") if out is None else Path(out)
        return cls._with(settings, path.parent, folder, workers)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], out: str | Path, *, base: str | Path = ".", workers: int | None = None
    ) -> Study:
        """Take the settings as nested values.

        Parameters
        ----------
        data
            The tables of a study file.
        out
            Folder of the results.
        base
            Folder that relative paths start from.
        workers
            Parallel workers; default those of the settings.

        Raises
        ------
        StudyError
            If a setting is wrong, or there is less than one worker.
        """
        return cls._with(parse_settings(data), Path(base), Path(out), workers)

    @classmethod
    def _with(cls, settings: StudySettings, base: Path, folder: Path, workers: int | None) -> Study:
        if workers is not None:
            if not 1 <= workers <= MOST_WORKERS:
                raise StudyError(f"found {workers} workers; expected at least one, at most {MOST_WORKERS}; correct it")
            settings = settings.model_copy(update={"workers": int(workers)})
        return cls(settings, base, folder)

    # -- what the settings mean ------------------------------------------------------------------------------

    @cached_property
    def alloy(self) -> Alloy:
        """The crystal and its composition."""
        s = self.settings.alloy
        composition: Any = s.composition or None
        return Alloy.from_file(self.base / s.file, composition, mobile=s.mobile, symprec=s.symprec)

    @property
    def supercell(self) -> Supercell:
        """The supercell of all states."""
        return self.jumps.supercell

    @cached_property
    def jumps(self) -> JumpNetwork:
        """The jumps: exchanges with a vacancy, or those of an interstitial atom.

        Raises
        ------
        StudyError
            If the supercell has more than a million sites.
        """
        cell = self.alloy.supercell(self.settings.cell.size, of=self.settings.cell.of)
        if cell.n_sites > MOST_SITES:
            raise StudyError(
                f"[cell] size: found a supercell of {cell.n_sites} sites; expected at most {MOST_SITES}, since every "
                "barrier is computed in it; take a smaller one"
            )
        s = self.settings.jumps
        if s.species is None:
            return JumpNetwork.from_supercell(cell, cutoff=s.cutoff)
        return JumpNetwork.from_supercell(
            cell, cutoff=s.cutoff, mechanism="interstitial", sites=s.sites, species=s.species
        )

    @property
    def temperatures_K(self) -> tuple[float, ...]:
        """Temperatures in rising order, K."""
        return tuple(sorted(self.settings.transport.temperatures_K))

    @property
    def n_workers(self) -> int:
        """Number of processes."""
        return self.settings.workers or available_cores()

    @cached_property
    def calculator(self) -> Callable[[], Any]:
        """The calculator factory."""
        return load_calculator(self.settings.calculator.name, self.settings.calculator.parameters, base=self.base)

    def seed(self, *label: Any) -> int:
        """Seed of one stage, from the seed of the study.

        Parameters
        ----------
        *label
            What names the stage.
        """
        entropy = [self.settings.seed, crc32(repr(label).encode())]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)

    # -- running ---------------------------------------------------------------------------------------------

    def barriers(self, *, progress: bool = False) -> Barriers:
        """Reference barriers of the first training states only.

        Parameters
        ----------
        progress
            Show progress bars.
        """
        with self._open(progress) as run:
            return run.random_barriers()[0]

    def fit(self, *, progress: bool = False) -> BarrierModel:
        """Go as far as the barrier model.

        Parameters
        ----------
        progress
            Show progress bars.
        """
        with self._open(progress) as run:
            return run.model()[0]

    def transport(self, *, progress: bool = False) -> StudyResult:
        """Go as far as the coefficients; writes ``summary.json``, ``kinosons.csv`` and ``barriers.csv``.

        Parameters
        ----------
        progress
            Show progress bars.
        """
        with self._open(progress, evaluation=True) as run:
            return run.transport()

    def run(self, progress: bool = False) -> StudyResult:
        """Do everything that is not done yet, and write the report.

        Parameters
        ----------
        progress
            Show what is being done.

        Raises
        ------
        KinosonError
            What went wrong; all stages before stay in the folder, and running again goes on from there.
        """
        from ase_kinoson.report import build_report

        result = self.transport(progress=progress)
        build_report(result.folder)
        return result

    def _check_files(self, evaluation: bool) -> None:
        """Read what the study file names before the output folder is made: a refusal leaves nothing behind."""
        from ase_kinoson.series_summary import measured_points
        from ase_kinoson.vacancy_stage import check_vacancy_fraction

        _ = self.jumps
        if evaluation:
            measured_points(self)
            check_vacancy_fraction(self)

    def _check_calculator(self, evaluation: bool) -> None:
        """Find a misspelt calculator before anything is computed; a finished study is read without it."""
        s, stages = self.settings.states, Stages(self.folder)
        temperatures = [f"{t:g}K" for t in self.temperatures_K]
        names = ["training", *(temperatures if evaluation else ())]
        for r in range(1, s.rounds + 1):
            names += [f"round-{r}-{t}" for t in temperatures[: s.per_round]]
        if not all(stages.stamp(f"barriers-{name}").is_file() for name in names):
            _ = self.calculator

    @contextlib.contextmanager
    def _open(self, progress: bool, *, evaluation: bool = False) -> Iterator[Pipeline]:
        self._check_files(evaluation)
        self._check_calculator(evaluation)
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "stages"):
            remove_leftovers(folder)
        with contextlib.ExitStack() as stack:
            workers = stack.enter_context(Workers(self.n_workers)) if self.n_workers > 1 else None
            stack.enter_context(one_torch_thread())
            yield Pipeline(self, Stages(self.folder, say if progress else _log.info), workers, progress)


def load_calculator(
    name: str, parameters: Mapping[str, Any] | None = None, *, base: str | Path = "."
) -> Callable[[], Any]:
    """Find a calculator factory by name.

    Parameters
    ----------
    name
        A real potential (see :func:`~ase_kinoson.barriers.potentials.recipes.potential`),
        ``"package.module.Factory"``, or a name that ASE knows, such as ``"EMT"``.
    parameters
        Keyword arguments for the factory.
    base
        Folder that is searched too if the module is not installed; only if it holds the module, and a note says so.

    Raises
    ------
    StudyError
        If there is no such module or factory, it cannot be imported or does not take the parameters, or a potential is
        not installed (with the command that installs it).
    """
    from ase.calculators.calculator import get_calculator_class, names

    advice = (
        "give a potential that ase-kinoson info lists, or an importable factory such as 'ase.calculators.emt.EMT', and "
        "install what it needs"
    )
    given = dict(parameters or {})
    try:
        if is_potential(name):
            known = potential(name, **given)
            if missing := known.missing():
                raise StudyError(f"[calculator] name: found {name!r}, which does not run here: {missing}")
            return known
        if "." in name and all(part.replace("-", "_").isidentifier() for part in name.split(".")):
            module_name, _, attribute = name.rpartition(".")
            factory = _imported(module_name, attribute, Path(base))
        elif name.lower() in names:
            factory = get_calculator_class(name.lower())
        else:
            raise StudyError(
                f"[calculator] name: found {name!r}, which ASE does not know; expected a calculator; {advice}"
            )
    except KinosonError:
        raise
    except (Exception, SystemExit) as error:  # a module of the user may raise anything
        what = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise StudyError(
            f"[calculator] name: cannot import {name!r} ({what}); expected a calculator; {advice}"
        ) from error
    if not callable(factory):
        raise StudyError(
            f"[calculator] name: {name!r} is no class or function; expected a calculator factory; {advice}"
        )
    signature = None
    with contextlib.suppress(ValueError):  # what is compiled may have none
        signature = inspect.signature(factory, follow_wrapped=False)  # a wrapper may fill in arguments
    try:
        if signature is not None:
            signature.bind(**given)
    except TypeError as error:
        raise StudyError(
            f"[calculator] parameters: found {sorted(given)} ({error}); expected arguments of {name}; correct them"
        ) from error
    return functools.partial(factory, **given) if given else factory


def _imported(module_name: str, attribute: str, base: Path) -> Any:
    """Attribute of a module that is installed, or lies in the folder of the study, which is said then."""
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        local, top = base.resolve(), module_name.partition(".")[0]
        there = (local / f"{top}.py").is_file() or (local / top).is_dir()
        if error.name != top or str(local) in sys.path or not there:
            raise
    _log.warning("the calculator is taken from the module %s in the folder of the study, %s", top, local)
    sys.path.append(str(local))
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except BaseException:
        sys.path.remove(str(local))
        raise
