"""Faults in what runs for longer than a campaign: studies, maps, rounds of learning, trajectories, streams of states.

Each is killed at random moments of its time and at random steps of writing its files, and run again until it ends. Then
every file it leaves is that of an undisturbed run, but for the times that it took.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.campaigns import Outcome, Tally, contents
from tests.faults.forks import Child, Nursery, scratch
from tests.faults.long_victims import prepare

WARM = ("tests.faults.long_victims:warm",)
_RUN = "tests.faults.long_victims:run"
_TIMES = re.compile(
    r"(wall|elapsed|search)(_s|_time)$|^seconds$|computed_now|executor_deaths|digest|sha256$|^(trained|began)_|_s$"
)
JOBS = ("study", "points", "rounds", "walks", "stream")


def leavings(folder: Path) -> dict[str, Any]:
    """All that a job has left, file by file, without times."""
    found: dict[str, Any] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(file.relative_to(folder))
        if name.split("/")[-1] in ("count",) or name.endswith("-journal"):
            continue
        if file.suffix == ".db":
            there = contents(file)
            found[name] = [there.problems, {k: v[0] for k, v in there.rows.items()}]
        elif file.suffix in (".json", ".stamp"):
            found[name] = _timeless(json.loads(file.read_text()))
        elif file.suffix == ".npz":
            with np.load(file) as arrays:
                found[name] = {
                    key: _timeless(json.loads(str(arrays[key])))
                    if arrays[key].ndim == 0 and key == "about"
                    else (arrays[key].dtype.str, arrays[key].shape, arrays[key].tobytes())
                    for key in arrays.files
                    if not _TIMES.search(key)
                }
        elif file.suffix == ".html":
            before, _, after = file.read_text().partition("<h3>Time taken")
            found[name] = before + after.partition("</table>")[2]
        else:
            found[name] = file.read_bytes()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _TIMES.search(str(k))}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of files that are missing, too many, or different."""
    out = [f"{name} is missing" for name in sorted(set(other) - set(one))]
    out += [f"{name} is left over" for name in sorted(set(one) - set(other))]
    return out + [f"{name} differs" for name in sorted(set(one) & set(other)) if one[name] != other[name]]


class Job:
    """One of the jobs, and what an undisturbed run of it leaves."""

    def __init__(self, nursery: Nursery, folder: Path, what: str) -> None:
        self.nursery, self.folder, self.what, self._n = nursery, folder, what, 0
        (folder / "count").unlink(missing_ok=True)
        there = self.fresh()
        began = time.perf_counter()
        child = self.start(there, count=str(folder / "count"))
        if child.wait() != 0 or child.answer()["error"]:
            raise RuntimeError(child.answer().get("error") or child.log())
        self.seconds = time.perf_counter() - began
        counted = folder / "count"
        self.steps = int(counted.read_text()) if counted.exists() else 0
        self.left = leavings(there)
        shutil.rmtree(there)

    def fresh(self) -> Path:
        """A folder with nothing but what the user gives."""
        self._n += 1
        there = self.folder / f"{self.what}-{self._n}"
        prepare(there)
        return there

    def start(self, there: Path, **options: Any) -> Child:
        return self.nursery.start(_RUN, what=self.what, folder=str(there), **options)

    def finish(self, there: Path) -> list[str]:
        """Run to the end, and compare."""
        child = self.start(there)
        if child.wait() != 0 or child.answer().get("error"):
            return [f"the resumed run failed: {child.answer().get('error') or child.log()[-500:]}"]
        return self.compare(there)

    def compare(self, there: Path) -> list[str]:
        try:
            return differences(leavings(there), self.left)
        except Exception as error:
            return [f"what it left cannot be read: {type(error).__name__}: {error}"]


def killed(job: Job, n: int, rng: random.Random, **options: Any) -> Tally:
    """``kill -9`` at random moments, several times before the end."""
    tally = Tally(f"kill -9 of {NAMES[job.what]}")
    while tally.faults < n:
        there = job.fresh()
        moments: list[str] = []
        for _ in range(min(rng.randint(1, 4), n - tally.faults)):
            if job.steps and rng.random() < 0.5:
                child = job.start(there, die=rng.randint(1, job.steps), **options)
                moment = "at a step of writing"
            else:
                child = job.start(there, **options)
                time.sleep(rng.uniform(0.0, job.seconds))
                child.send(signal.SIGKILL)
                moment = "at a random time"
            if child.wait() == -signal.SIGKILL:
                half = any(".tmp" in p.name for p in there.rglob(".*"))
                moments.append(moment + (", a file half written" if half else ""))
        problems = job.finish(there)
        for k, moment in enumerate(moments):
            tally.count(moment, problems if k == 0 else [])
        if not moments:  # it was faster each time
            tally.problems += problems
            tally.lost += len(problems)
        shutil.rmtree(there)
    return tally


def interrupted(job: Job, n: int, rng: random.Random) -> Tally:
    """Ctrl-C at random moments: no temporary file is left."""
    tally = Tally(f"Ctrl-C in {NAMES[job.what]}")
    while tally.faults < n:
        there = job.fresh()
        child = job.start(there)
        time.sleep(rng.uniform(0.0, 0.9) * job.seconds)
        child.send(signal.SIGINT)
        code, problems = child.wait(), []
        if code not in (0, 130):
            problems.append(f"ended with {code}: {child.log()[-300:]}")
        if any(".tmp" in p.name for p in there.rglob(".*")):
            problems.append("temporary files are left")
        tally.count("it was faster" if code == 0 else "at a random time", problems + job.finish(there))
        shutil.rmtree(there)
    return tally


def no_space(job: Job, n: int, rng: random.Random) -> Tally:
    """No space from a random step of writing on: one sentence that names the file; then there is space again."""
    tally = Tally(f"disk full in {NAMES[job.what]}")
    for _ in range(n):
        there = job.fresh()
        child = job.start(there, full=rng.randint(1, max(1, job.steps)))
        child.wait()
        said, problems = child.answer().get("error") or "", []
        if not said:
            problems.append(f"nothing was said: {child.log()[-300:]}")
        elif "No space left" not in said or "\n" in said or str(there) not in said:
            problems.append(f"said: {said}")
        if any(".tmp" in p.name for p in there.rglob(".*")):
            problems.append("temporary files are left")
        tally.count("while a file is written", problems + job.finish(there))
        shutil.rmtree(there)
    return tally


def no_right(job: Job, n: int, rng: random.Random) -> Tally:
    """A folder without the right to write in it, after a part of the work."""
    tally = Tally(f"read-only folder of {NAMES[job.what]}")
    for _ in range(n):
        there = job.fresh()
        child = job.start(there)
        time.sleep(rng.uniform(0.2, 0.9) * job.seconds)
        child.send(signal.SIGKILL)
        child.wait()
        _rights(there, 0o555, 0o444)
        before = sorted(str(p) for p in there.rglob("*"))
        child = job.start(there, user=65534 if os.getuid() == 0 else None)
        child.wait()
        said, problems = child.answer().get("error") or "", []
        # a folder of kinosons that is not whole, and cannot be deleted now, is refused as it is
        if "\n" in said or (
            said and not re.search("ermission|cannot be used|read-?only|expected an empty folder", said)
        ):
            problems.append(f"said: {said}")
        elif not said and not child.answer():
            problems.append(f"it died: {child.log()[-300:]}")
        if sorted(str(p) for p in there.rglob("*")) != before:
            problems.append("something was written")
        _rights(there, 0o755, 0o644)
        tally.count("after a part of the work", problems + job.finish(there))
        shutil.rmtree(there)
    return tally


def _rights(folder: Path, of_folders: int, of_files: int) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.chmod(path, of_folders if path.is_dir() else of_files)


def two_at_once(job: Job, n: int, rng: random.Random) -> Tally:
    """Two processes in one folder from the start; now and then one is killed."""
    tally = Tally(f"two processes on {NAMES[job.what]}")
    for _ in range(n):
        there = job.fresh()
        both = [job.start(there), job.start(there, delay=rng.choice((0.0, rng.uniform(0.0, 0.5 * job.seconds))))]
        kill = rng.random() < 0.3
        if kill:
            time.sleep(rng.uniform(0.0, job.seconds))
            both[0].send(signal.SIGKILL)
        problems = []
        for child in both:
            code = child.wait(300)
            error = child.answer().get("error")
            if error or code not in (0, -signal.SIGKILL):
                problems.append(f"one of them stopped: {error or child.log()[-300:]}")
        tally.count("one is killed" if kill else "side by side", problems + job.compare(there))
        shutil.rmtree(there)
    return tally


def half_files(job: Job, n: int, rng: random.Random) -> Tally:
    """A file is cut short behind the back of a finished job: one sentence that says what to do, never other numbers."""
    tally = Tally(f"half a file in {NAMES[job.what]}")
    there = job.fresh()
    problems = job.finish(there)
    files = [p for p in sorted(there.rglob("*")) if p.is_file() and p.suffix in (".npz", ".safetensors", ".stamp")]
    files += [p for p in sorted(there.rglob("*.json")) if p.name != "summary.json"]
    for k in range(n):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(whole[: rng.randint(0, max(0, len(whole) - 1))])
        child = job.start(there)
        child.wait()
        said, own = child.answer().get("error") or "", problems if k == 0 else []
        if said and ("\n" in said or not re.search("expected|delete|restore|remove|again", said)):
            own.append(f"said: {said}")
        if not child.answer():
            own.append(f"it died at half of {file.name}: {child.log()[-300:]}")
        if said:
            file.write_bytes(whole)
        tally.count("refused with a sentence" if said else "computed again", own + job.finish(there))
    shutil.rmtree(there)
    return tally


NAMES = {
    "study": "a study",
    "points": "a composition map",
    "rounds": "rounds of learning",
    "walks": "trajectories with a checkpoint",
    "stream": "a stream of states",
}


def in_place(job: Job, n: int, rng: random.Random) -> Tally:
    """The negative control: a package that writes its files in place."""
    return killed(job, n, rng, torn=True)


def run_studies(scale: float, seed: int) -> Iterator[Outcome]:
    """All faults of what runs for longer; ``scale`` 1: 10 kills of a study, 5 and more of each of the rest."""
    rng = random.Random(seed)

    def times(full: int) -> int:
        return max(1, round(full * scale))

    with scratch() as folder, Nursery(WARM) as nursery:
        for what in JOBS:
            job = Job(nursery, folder, what)
            yield killed(job, times(10), rng).outcome()
            if what == "study":
                yield two_at_once(job, times(5), rng).outcome()
                yield half_files(job, times(10), rng).outcome()
                yield interrupted(job, times(5), rng).outcome()
            if what != "rounds":
                yield no_space(job, times(5), rng).outcome()
            yield no_right(job, times(5), rng).outcome()
