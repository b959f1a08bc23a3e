"""Stages of a study: computed once, written atomically, loaded when everything upstream is the same; and workers."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import BadZipFile

from ase_kinoson.errors import KinosonError, KinosonWarning
from ase_kinoson.npz import DAMAGED, read_sealed, write_npz
from ase_kinoson.seals import newer, read_json_file, seal, unsealed
from ase_kinoson.whole_files import replace_file

if TYPE_CHECKING:
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.crystal.jumps import JumpNetwork
    from ase_kinoson.crystal.states import States
    from ase_kinoson.kinosons.corrected import CorrectedTransport
    from ase_kinoson.kinosons.transport import Transport

__all__ = [
    "Stages",
    "Workers",
    "available_cores",
    "fingerprint",
    "load_barriers",
    "load_correction",
    "plain",
    "recorded_warnings",
    "replace_file",
    "save_barriers",
    "save_correction",
]

_log = logging.getLogger(__name__)
T = TypeVar("T")
STAGE = "ase_kinoson.stage"
_ATTEMPTS, _PAUSE_S = 10, 0.3
"""To read what another process is just writing."""


def fingerprint(*parts: Any) -> str:
    """Short hash of plain nested values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[KinosonWarning]]:
    """Collect our own warnings; others pass."""
    told: list[KinosonWarning] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", KinosonWarning)
        yield told
    for w in caught:
        if isinstance(w.message, KinosonWarning):
            told.append(w.message)
        else:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


class _OtherFileError(KinosonError):
    """A file is not that of its stamp."""


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass
class Stages:
    """The finished stages of a study in one folder, one stamp ``stages/<name>.stamp`` each.

    A stamp is removed before the output of its stage is written and appears after it, so that an interruption
    at any moment leaves complete stages only.

    Attributes
    ----------
    folder : Path
    on_start : callable
        Called with the title of every stage that has to be computed.
    wall_s : dict of str to float
        Time that each stage took when it was computed, s.
    warnings : dict of str to list of KinosonWarning
        What each stage warned of.
    resumed : list of str
        Stages that were loaded instead of computed.
    """

    folder: Path
    on_start: Callable[[str], None] = lambda title: None
    wall_s: dict[str, float] = field(default_factory=dict)
    warnings: dict[str, list[KinosonWarning]] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)
    _seen: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """What the stamps of this run's stages say: another process may take one away to write the same stage again."""

    def stamp(self, name: str) -> Path:
        """File that says that a stage is finished."""
        return self.folder / "stages" / f"{name}.stamp"

    def is_done(self, name: str, key: str) -> bool:
        """Whether the stage was finished with the same upstream."""
        about = self._about(name)
        if about is None or about["fingerprint"] != key:
            return False
        self._seen[name] = about
        return True

    def known(self, name: str, key: str, former: str) -> str:
        """The key of before if the stage was finished under that name, which it keeps; else the key."""
        return former if self.is_done(name, former) else key

    def _about(self, name: str) -> dict[str, Any] | None:
        """What the stamp of a stage says; None if there is none, or no whole one."""
        try:
            about = read_json_file(self.stamp(name))
            if unsealed(about):
                return None
            return {
                "fingerprint": str(about["fingerprint"]),
                "wall_s": float(about["wall_s"]),
                "warnings": [KinosonWarning.from_dict(w) for w in about["warnings"]],
                "sha256": dict(about.get("sha256", {})),
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def run(
        self,
        name: str,
        key: str,
        *,
        title: str,
        compute: Callable[[], T],
        save: Callable[[T], None],
        load: Callable[[], T],
    ) -> T:
        """Load a stage, or compute and save it.

        Parameters
        ----------
        name
            Of the stage, used as file name.
        key
            Fingerprint of everything that its output depends on.
        title
            What is being done, for people.
        compute, save, load
            Do the work, write the output, read it back. What is returned has always been read back, so that a
            resumed run sees the very same numbers.

        Raises
        ------
        KinosonError
            If the stage is to be computed and nothing can be written; and as :meth:`read`.
        """
        if self.is_done(name, key):
            self.resumed.append(name)
            return self.read(name, load)
        self._check_writable(name)
        self.on_start(title)
        started = time.perf_counter()
        with recorded_warnings() as told:
            result = compute()
        if not self.is_done(name, key):  # else another process was faster, with the same numbers
            self.begin(name)
            save(result)
            self.finish(name, key, time.perf_counter() - started, told)
        return self.read(name, load)

    def _check_writable(self, name: str) -> None:
        """Refuse to compute for weeks what cannot be kept."""
        folder = self.stamp(name).parent
        folder = folder if folder.is_dir() else self.folder
        if not os.access(folder, os.W_OK | os.X_OK):
            raise KinosonError(
                f"found no permission to write in {folder}; expected it, as the stage {name!r} is to be computed; give "
                "it, or copy the folder and name the copy with --out"
            )

    def begin(self, name: str) -> None:
        """Forget a stage whose output is about to be written."""
        self.stamp(name).parent.mkdir(parents=True, exist_ok=True)
        self.stamp(name).unlink(missing_ok=True)

    def read(self, name: str, load: Callable[[], T]) -> T:
        """Read the output of a finished stage, also while another process writes the same once more.

        Raises
        ------
        KinosonError
            If it is damaged, which says the stamp to delete to have it computed again; or if another process has
            computed it with other settings meanwhile.
        """
        stamp, own = self.stamp(name), self._seen.get(name)
        about = own or self._about(name)
        if about is None:
            raise KinosonError(f"found no whole stamp {stamp}; expected one of a finished stage; run again")
        self.wall_s[name] = about["wall_s"]
        self.warnings[name] = list(about["warnings"])
        for attempt in range(_ATTEMPTS):
            try:
                result = load()
                self._check_files(name)
            except (KinosonError, OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
                # files of one stage are written in turn, and then its stamp
                changing = self._about(name) is None or isinstance(error, _OtherFileError)
                if changing and attempt + 1 < _ATTEMPTS:
                    time.sleep(_PAUSE_S)
                    continue
                own_kind = isinstance(error, KinosonError) and not isinstance(error, _OtherFileError)
                kind = type(error) if own_kind else KinosonError
                text = str(error) or type(error).__name__
                raise kind(f"{text}; or delete {stamp} and run again to have this stage computed again") from error
            break
        now = self._about(name)
        if own is not None and now is not None and now["fingerprint"] != own["fingerprint"]:
            raise KinosonError(
                f"another process has computed the stage {name!r} in {self.folder} with other settings meanwhile; "
                "expected one study per folder; give each its own with --out, and run again"
            )
        return result

    def _files(self, name: str) -> list[Path]:
        """Files of one stage alone; models, which carry digests of their own, are those of several."""
        folder = self.stamp(name).parent
        return sorted(p for p in folder.iterdir() if p.name.startswith(f"{name}.") and p.suffix != ".stamp")

    def _check_files(self, name: str) -> None:
        """Compare them with the stamp: text files carry no digests."""
        about = self._about(name)
        if about is None:
            return
        for file in self._files(name):
            if about["sha256"].get(f"stages/{file.name}", found := _digest(file)) != found:
                raise _OtherFileError(f"{file} is not the file that was written; expected it unchanged; restore it")

    def finish(self, name: str, key: str, wall_s: float, told: list[KinosonWarning]) -> None:
        """Write the stamp of a stage whose output is complete."""
        told = list(dict.fromkeys(told))
        about = {"fingerprint": key, "wall_s": round(wall_s, 3), "warnings": [w.as_dict() for w in told]}
        about["sha256"] = {f"stages/{file.name}": _digest(file) for file in self._files(name)}
        with replace_file(self.stamp(name)) as temporary:
            temporary.write_text(json.dumps(seal(about), indent=1))
        self._seen[name] = {**about, "warnings": told}
        for warning in told:
            _log.warning("%s: %s", name, warning)


# -- worker processes ----------------------------------------------------------------------------------------


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_MAIN = threading.Lock()


@contextlib.contextmanager
def _as_children_start() -> Iterator[None]:
    """Have children start single-threaded and without running the user's script again.

    Children that are spawned import the main module first; a script without ``if __name__ == "__main__"``
    would start the study once more. All that they run here is importable by name.
    """
    with _MAIN:
        main, environment = sys.modules["__main__"], {name: os.environ.get(name) for name in _THREADS}
        sys.modules["__main__"] = types.ModuleType("__main__")
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


class Workers(ProcessPoolExecutor):
    """Single-threaded worker processes, started when first needed.

    Parameters
    ----------
    n
        Number of processes.
    """

    def __init__(self, n: int) -> None:
        super().__init__(n, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule a call; see :class:`concurrent.futures.Executor`."""
        with _as_children_start():
            return super().submit(fn, *args, **kwargs)

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> bool | None:
        """Wait for the work that is done; after an error, drop what is not."""
        if kind is not None:
            processes = list((getattr(self, "_processes", None) or {}).values())
            self.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            return None
        return super().__exit__(kind, value, traceback)


def plain(value: Any) -> Any:
    """Nested values as JSON holds them: arrays as lists, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not (value - value == 0.0):
        return None
    return value


# -- what stages leave on disk -------------------------------------------------------------------------------

_BARRIERS = (
    *("barrier", "reverse_barrier", "energy_initial", "energy_final", "status", "force_calls", "fmax"),
    *("attempt_frequency", "descents", "wall_s"),
)


def save_barriers(path: Path, barriers: Barriers) -> None:
    """Write reference barriers as NumPy arrays; their states are kept elsewhere."""
    about = {
        "reasons": [[n, k, text] for (n, k), text in barriers.reasons.items()],
        "settings": {**barriers.settings, "store": "barriers.db"},
    }
    arrays = {name: getattr(barriers, name) for name in _BARRIERS}
    _save_arrays(path, about, {name: array for name, array in arrays.items() if array is not None})


def _complete(load: Callable[..., T]) -> Callable[..., T]:
    """Whatever a reader raises of a file that is whole and holds something else becomes one sentence."""

    @functools.wraps(load)
    def read(path: Path, *args: Any) -> T:
        try:
            return load(path, *args)
        except KinosonError:
            raise
        except DAMAGED as error:
            raise KinosonError(
                f"{path} is incomplete ({type(error).__name__}: {error}); expected a stage of this study; restore it"
            ) from error

    return read


@_complete
def load_barriers(path: Path, states: States, jumps: JumpNetwork) -> Barriers:
    """Read reference barriers of states."""
    from ase_kinoson.barriers.reference import Barriers

    about, data = _load_arrays(path, "barriers")
    reasons = {(int(n), int(k)): str(text) for n, k, text in about["reasons"]}
    return Barriers.from_arrays(states, jumps, reasons=reasons, settings=about["settings"], **data)


_AVERAGES = ("collective", "collective_bare", "tracer", "tracer_bare")
_LADDER = ("collective", "tracer", "uncorrected", "uncorrected_tracer", "bare", "check_lags")
_RUNGS = ("value", "error", "gain", "gain_error")


def save_correction(path: Path, corrected: CorrectedTransport) -> None:
    """Write corrected averages, their ladder and the diagnosis; coefficients follow from them."""
    averages, ladder, diagnosis = corrected.averages, corrected.ladder, corrected.diagnosis
    assert averages is not None and ladder is not None and diagnosis is not None
    arrays = {f"averages/{name}": getattr(averages, name) for name in _AVERAGES}
    arrays |= {f"ladder/{name}": getattr(ladder, name) for name in _LADDER}
    arrays |= {f"check/{name}": rows for name, rows in ladder.check.items()}
    arrays |= {f"rungs/{name}/{part}": getattr(r, part) for name, r in ladder.rungs.items() for part in _RUNGS}
    about = {
        "kind": corrected.vacancy_diffusivity.kind,
        "has_errors": averages.has_errors,
        "settings": dict(corrected.settings),
        "rungs": {name: [r.chosen, r.tail] for name, r in ladder.rungs.items()},
        "blocks": ladder.blocks,
        "n_groups": ladder.n_groups,
        "n_jumps": ladder.n_jumps,
        "n_continued": ladder.n_continued,
        "apart": {name: list(pair) for name, pair in ladder.apart.items()},
        "looseness": {name: q.as_dict() for name, q in diagnosis.looseness.items()},
        "surrogate": {name: q.as_dict() for name, q in diagnosis.surrogate.items()},
        "warnings": [w.as_dict() for w in corrected.warnings],
    }
    _save_arrays(path, about, {name: array for name, array in arrays.items() if array is not None})


@_complete
def load_correction(path: Path, result: Transport) -> CorrectedTransport:
    """Read what :func:`save_correction` wrote of the correction of a result."""
    from ase_kinoson.kinosons.coefficients import Averages, coefficients
    from ase_kinoson.kinosons.corrected import CorrectedTransport, Diagnosis
    from ase_kinoson.kinosons.ladder import Ladder, Rungs
    from ase_kinoson.kinosons.statistics import Quantity
    from ase_kinoson.kinosons.transport import Transport

    about, data = _load_arrays(path, "the correction")
    assert result.network is not None and result.composition is not None
    averages = Averages(**{n: data.get(f"averages/{n}") for n in _AVERAGES}, has_errors=about["has_errors"])  # type: ignore[arg-type]
    parts: dict[str, Any] = {name: data.get(f"ladder/{name}") for name in _LADDER}
    rungs = {}
    for name, (chosen, tail) in about["rungs"].items():
        columns: dict[str, Any] = {part: data[f"rungs/{name}/{part}"] for part in _RUNGS}
        rungs[name] = Rungs(**columns, chosen=int(chosen), tail=float(tail))
    ladder = Ladder(
        **parts,
        rungs=rungs,
        check={name.removeprefix("check/"): rows for name, rows in data.items() if name.startswith("check/")},
        blocks=[(first, last) for first, last in about["blocks"]],
        n_groups=about["n_groups"],
        n_jumps=about["n_jumps"],
        n_continued=about.get("n_continued", 0),
        apart={name: (gap, error) for name, (gap, error) in about.get("apart", {}).items()},
    )
    diagnosis = Diagnosis(
        *({name: Quantity(**q) for name, q in about[which].items()} for which in ("looseness", "surrogate"))
    )
    kept = {f.name: getattr(result, f.name) for f in fields(Transport)}
    derived = coefficients(
        averages,
        result.network,
        result.composition,
        kind=about["kind"],
        temperature_K=result.temperature_K,
        vacancy_fraction=result.given_fraction,
    )
    if "warnings" in about:
        kept["warnings"] = tuple(KinosonWarning.from_dict(w) for w in about["warnings"])
    return CorrectedTransport(**{**kept, **derived, "settings": about["settings"]}, ladder=ladder, diagnosis=diagnosis)


def _save_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        head = {"format": STAGE, "version": 1, **json.loads(json.dumps(about, default=str))}
        write_npz(temporary, head, arrays, compress=True)


def _wrong_layout(about: Mapping[str, Any]) -> str:
    """The first files named neither format nor version."""
    version = about.get("version", 1)
    if version == 1 and about.get("format", STAGE) == STAGE:
        return ""
    return newer(version, 1, about) or f"it holds {str(about.get('format'))[:60]!r}, version {str(version)[:20]}"


def _load_arrays(path: Path, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return read_sealed(path, layout=_wrong_layout)
    except Exception as error:
        raise KinosonError(f"cannot read {path} ({error}); expected {what} of this study; restore the file") from error
