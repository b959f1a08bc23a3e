"""How hostile files are tried: each is accepted, or refused in one clear sentence, and nothing else happens.

A target makes files from a random generator and uses them as a user would. A case is dirty if it ends in anything but
the package's own error, takes too long or too much memory, writes or deletes anything, executes or unpickles anything,
opens a connection, starts a process, or leaves the working folder or the import path changed.

Cases are numbered: (target, seed, number) gives the same files again (:func:`make_case`). Needs no pytest; Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ase_kinoson.errors import KinosonError

__all__ = ["Finding", "Outcome", "Target", "make_case", "replay", "run", "run_apart"]

LONGEST = 1500
"""Characters of a sentence that somebody can still read."""
KEPT = 8
"""Findings that are kept, one of each kind and place."""

Files = Mapping[str, bytes]
"""Contents by name; a name may have folders."""


@dataclass(frozen=True)
class Target:
    """What is tried.

    Attributes
    ----------
    name : str
    make : callable
        ``make(rng)`` with a ``random.Random``: the files of one case (a mapping of names to bytes).
    use : callable
        ``use(folder, reached)``: what a user does with the files; calls ``reached()`` when the parser is passed.
    seconds : float
        Processor time that one case may take; five times as much on the clock.
    megabytes : int
        Memory that one case may take more than there is at its start.
    refusals : tuple of exception types
        What counts as a refusal.
    prepare : callable or None
        ``prepare(folder)``: makes what is no plain file (links, pipes, folders), after the files are written.
    loads_code : bool
        Whether executing text is what the target is asked to do.
    """

    name: str
    make: Callable[[random.Random], Files]
    use: Callable[[Path, Callable[[], None]], Any]
    seconds: float = 10.0
    megabytes: int = 1024
    refusals: tuple[type[BaseException], ...] = (KinosonError,)
    prepare: Callable[[Path, random.Random], None] | None = None
    loads_code: bool = False


@dataclass(frozen=True)
class Finding:
    """A dirty case: its number (with the seed it gives the files again), what happened, and where."""

    case: int
    kind: str
    what: str
    where: str = ""
    saved: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of the cases of one target.

    Attributes
    ----------
    target : str
    seed, cases : int
    accepted, refused, dirty : int
        Their sum is the number of cases; the last must be 0.
    beyond : int
        Cases that passed the parser.
    kinds : dict of str to int
        Dirty cases by kind: crash, unclear, slow, memory, written, code, process, network, state, died.
    findings : tuple of Finding
        The first of each kind and place.
    seconds : float
        Processor time.
    longest : float
        The longest case, s of processor time.
    """

    target: str
    seed: int
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    dirty: int = 0
    beyond: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    longest: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.target}: {self.cases} cases, {self.accepted} accepted, {self.refused} refused, {self.dirty} dirty; "
            f"{self.beyond} passed the parser; {self.seconds:.1f} s, longest {self.longest:.2f} s"
        ]
        lines += [f"  case {f.case}: {f.kind}: {f.what[:300]} {f.where} {f.saved}".rstrip() for f in self.findings]
        return "\n".join(lines)


def make_case(target: Target, seed: int, number: int) -> Files:
    """The files of one case."""
    return target.make(random.Random(f"{seed}/{number}"))


def run(
    target: Target,
    n_cases: int,
    seed: int = 0,
    *,
    first: int = 0,
    keep: Path | None = None,
    on_case: Callable[[int], None] | None = None,
) -> Outcome:
    """Try ``n_cases`` cases from number ``first`` on, in this process and its main thread.

    Files of dirty cases are written to ``keep``. A crash of compiled code ends the process: :func:`run_apart`.
    """
    found = Outcome(target.name, seed)
    kinds: Counter[str] = Counter()
    findings: dict[tuple[str, str], Finding] = {}
    begin = time.process_time()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory_folder()) as parent:
        for number in range(first, first + n_cases):
            if on_case is not None:
                on_case(number)
            rng = random.Random(f"{seed}/{number}")
            files = target.make(rng)
            start = time.process_time()
            beyond, finding = _one(target, files, Path(parent) / "case", rng)
            took = time.process_time() - start
            dirty = finding is not None and finding.kind != "refused"
            found = replace(
                found,
                cases=found.cases + 1,
                accepted=found.accepted + (finding is None),
                refused=found.refused + (finding is not None and not dirty),
                dirty=found.dirty + dirty,
                beyond=found.beyond + beyond,
                longest=max(found.longest, took),
            )
            if finding is not None and dirty:
                kinds[finding.kind] += 1
                key = (finding.kind, finding.where or finding.what[:60])
                if key not in findings and len(findings) < KEPT:
                    saved = _save(files, keep / f"{target.name}-{seed}-{number}") if keep is not None else ""
                    findings[key] = replace(finding, case=number, saved=saved)
    return replace(found, kinds=dict(kinds), findings=tuple(findings.values()), seconds=time.process_time() - begin)


def replay(target: Target, files: Files, *, seed: int = 0) -> Finding | None:
    """Try given files; None: accepted; kind ``"refused"``: refused cleanly; anything else is dirty."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory_folder()) as parent:
        return _one(target, files, Path(parent) / "case", random.Random(seed))[1]


# -- one case ---------------------------------------------------------------------------------------------------------


class _TooLong(BaseException):
    """Not an Exception: nothing must catch it on its way."""


def _one(target: Target, files: Files, folder: Path, rng: random.Random) -> tuple[bool, Finding | None]:
    _lay_out(files, folder)
    if target.prepare is not None:
        target.prepare(folder, rng)
    before, here, path = _listing(folder), os.getcwd(), list(sys.path)
    passed: list[bool] = []
    finding: Finding | None = None
    peak = _peak_mb()
    try:
        with _watched() as events, _memory_limit(target.megabytes), _time_limit(target.seconds):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.use(folder, lambda: passed.append(True))
    except _TooLong as error:
        finding = Finding(0, "slow", f"more than {target.seconds:g} s", _place(error))
    except target.refusals as error:
        finding = _judge(error)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        kind = "memory" if _ran_out(error) else "crash"
        finding = Finding(0, kind, f"{type(error).__name__}: {str(error)[:300]}", _place(error))
    harmless = finding is None or finding.kind == "refused"
    if harmless and _peak_mb() - peak > target.megabytes:
        finding = Finding(0, "memory", f"the process grew by {_peak_mb() - peak:.0f} MB")
    after = _listing(folder)
    if harmless and after != before:
        changed = sorted({*after.items()} ^ {*before.items()})
        finding = Finding(0, "written", f"changed in the folder: {sorted({name for name, _ in changed})}")
    for kind, what in events:
        if harmless and not (kind == "code" and target.loads_code):
            finding = Finding(0, kind, what)
            break
    if os.getcwd() != here or sys.path != path:
        if harmless:
            finding = Finding(0, "state", "the working folder or the import path is another one now")
        os.chdir(here)
        sys.path[:] = path
    return bool(passed), finding


def _judge(error: BaseException) -> Finding:
    """A refusal must be one sentence that a user can act on, and must not come from running out of memory."""
    text = " ".join(str(error).split())
    if _ran_out(error):
        return Finding(0, "memory", f"refused after memory ran out: {text[:200]}", _place(error))
    reason = ""
    if not text:
        reason = "no text"
    elif len(text) > LONGEST:
        reason = f"{len(text)} characters"
    elif "Traceback" in text:
        reason = "a traceback"
    elif not text.isprintable():
        reason = "characters that a terminal obeys"
    elif "expected" not in text or ";" not in text:
        reason = "not what was expected and what to do"
    if reason:
        return Finding(0, "unclear", f"{reason}: {text[:300]!r}", _place(error))
    return Finding(0, "refused", text)


def _ran_out(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    """Innermost line, and the innermost of the package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "ase_kinoson" in f.filename]
    picked = dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in (*own[-1:], *frames[-1:]))
    return "at " + " > ".join(picked) if picked else ""


def _lay_out(files: Files, folder: Path) -> None:
    if folder.exists():
        for inside, folders, _ in os.walk(folder):
            for name in ["", *folders]:
                with contextlib.suppress(OSError):
                    os.chmod(os.path.join(inside, name), 0o700, follow_symlinks=False)
        shutil.rmtree(folder)
    folder.mkdir()
    for name, data in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _listing(folder: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for inside, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            about = os.lstat(os.path.join(inside, name))
            place = os.path.relpath(os.path.join(inside, name), folder)
            found[place] = (about.st_mode, about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def _save(files: Files, place: Path) -> str:
    for name, data in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return str(place)


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# -- limits -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Processor time, and the clock for what waits (a pipe without a writer)."""

    def stop(number: int, frame: Any) -> None:
        raise _TooLong

    kinds = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 5 * seconds))
    old = [signal.signal(number, stop) for number, _, _ in kinds]
    try:
        for _, timer, limit in kinds:
            signal.setitimer(timer, limit)
        yield
    finally:
        for (number, timer, _), handler in zip(kinds, old, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextlib.contextmanager
def _memory_limit(megabytes: int) -> Iterator[None]:
    """Address space of this process, from what it has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as stream:
        now = int(stream.read().split()[0]) * resource.getpagesize()
    wanted = now + megabytes * 2**20
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- what Python tells of its own doings (an audit hook cannot be taken away, so there is one, mostly asleep) ---------

_events: list[tuple[str, str]] | None = None
_hooked = False
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_KINDS = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link"), "written"),
    **dict.fromkeys(("os.truncate", "os.chmod", "os.chown", "shutil.rmtree", "shutil.copyfile"), "written"),
    **dict.fromkeys(("tempfile.mkstemp", "tempfile.mkdtemp"), "written"),
    **dict.fromkeys(("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"), "process"),
    **dict.fromkeys(("subprocess.Popen", "os.startfile", "pty.spawn", "os.kill"), "process"),
    **dict.fromkeys(("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"), "network"),
    **dict.fromkeys(("pickle.find_class", "marshal.loads"), "code"),
}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is None:
        return
    kind = _KINDS.get(event)
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and isinstance(path, (str, bytes)):
            text = os.fsdecode(path)
            if text != os.devnull and "__pycache__" not in text and not _of_scipy(text):
                _events.append(("written", f"opened for writing: {text}"))
        return
    if event == "exec":
        name = getattr(arguments[0], "co_filename", "")
        if name == "<string>" and not _importing():
            _events.append(("code", f"executed text: {arguments[0].co_names[:5]}"))
        return
    if kind is None or (event == "marshal.loads" and _importing()):
        return
    if kind == "written" and ("__pycache__" in str(arguments[0]) or _of_scipy(arguments[0])):
        return
    _events.append((kind, f"{event} {arguments!r}"[:200]))


def _of_scipy(path: Any) -> bool:
    """Old SciPy keeps what Qhull says in a temporary file of its own, which it removes."""
    if not isinstance(path, (str, bytes)):
        return False
    path = os.fsdecode(path)
    return os.path.dirname(path) == tempfile.gettempdir() and os.path.basename(path).startswith("scipy-")


def _importing() -> bool:
    """Modules that are imported for the first time execute text (dataclasses, named tuples)."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


@contextlib.contextmanager
def _watched() -> Iterator[list[tuple[str, str]]]:
    global _events, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _events = mine = []
    try:
        yield mine
    finally:
        _events = None


# -- a process of its own ---------------------------------------------------------------------------------------------


def run_apart(
    place: str, n_cases: int, seed: int = 0, *, first: int = 0, keep: Path | None = None, most_deaths: int = 5
) -> Outcome:
    """As :func:`run` in a process of its own; if compiled code kills it, the case is dirty and a new one goes on.

    ``place``: ``"tests.fuzz.text_files:STUDY"``, an importable module and the name of the target in it.
    """
    begin, end = first, first + n_cases
    parts: list[Outcome] = []
    deaths: list[Finding] = []
    while begin < end and len(deaths) < most_deaths:
        outcome, status, number = _child(place, begin, end, seed, keep)
        if outcome is None:
            deaths.append(Finding(number, "died", f"the process ended with status {status}"))
            outcome = _child(place, begin, number, seed, keep)[0]  # what died with it
        else:
            number = end
        parts += [] if outcome is None else [outcome]
        begin = number + 1
    return _sum(place, seed, parts, deaths)


def _child(place: str, begin: int, end: int, seed: int, keep: Path | None) -> tuple[Outcome | None, int, int]:
    """Outcome (None: the process died), status, and the case it was at."""
    if end <= begin:
        return None, 0, begin
    with tempfile.TemporaryDirectory() as folder:
        progress, result = Path(folder) / "progress", Path(folder) / "outcome"
        command = [sys.executable, "-m", "tests.fuzz.running", place, "--cases", str(end - begin)]
        command += ["--seed", str(seed), "--first", str(begin), "--progress", str(progress), "--out", str(result)]
        command += [] if keep is None else ["--keep", str(keep)]
        status = subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
        outcome = outcome_of(json.loads(result.read_text())) if result.is_file() else None
        return outcome, status, int(progress.read_text() or begin) if progress.is_file() else begin


def outcome_of(data: Mapping[str, Any]) -> Outcome:
    """An outcome from plain values (``dataclasses.asdict``)."""
    return Outcome(**{**data, "findings": tuple(Finding(**f) for f in data["findings"])})


def _sum(place: str, seed: int, parts: list[Outcome], deaths: list[Finding]) -> Outcome:
    kinds = sum((Counter(p.kinds) for p in parts), Counter())
    kinds.update(["died"] * len(deaths))

    def total(name: str) -> Any:
        return sum(getattr(p, name) for p in parts)

    return Outcome(
        parts[0].target if parts else place,
        seed,
        cases=total("cases") + len(deaths),
        accepted=total("accepted"),
        refused=total("refused"),
        dirty=total("dirty") + len(deaths),
        beyond=total("beyond"),
        kinds=dict(kinds),
        findings=(*(f for p in parts for f in p.findings), *deaths),
        seconds=float(total("seconds")),
        longest=max((p.longest for p in parts), default=0.0),
    )


def load_target(place: str) -> Target:
    """``module:NAME``."""
    module, _, name = place.partition(":")
    target = getattr(importlib.import_module(module), name)
    assert isinstance(target, Target)
    return target


def main() -> int:
    """``python -m tests.fuzz.running MODULE:TARGET --cases N``; exit status 1 if a case is dirty."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("target")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--progress", type=Path)
    args = parser.parse_args()

    def note(number: int) -> None:
        args.progress.write_text(str(number))

    outcome = run(
        load_target(args.target),
        args.cases,
        args.seed,
        first=args.first,
        keep=args.keep,
        on_case=note if args.progress else None,
    )
    if args.out is None:
        print(outcome)
    else:
        args.out.write_text(json.dumps(asdict(outcome)))
    return 1 if outcome.dirty else 0


if __name__ == "__main__":
    from tests.fuzz.running import main as imported  # not the copy of this module that is called __main__

    raise SystemExit(imported())
