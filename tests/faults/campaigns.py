"""Faults in a campaign of barriers: killed at random moments, no disk, no clock, a calculator that fails.

After each fault a copy of the store is examined: whole pages, rows that can be read, no row twice, every row that the
store had said is written, every row as an undisturbed run has it. In the end the campaign is finished, and its numbers
are those of the undisturbed run to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ase.db
import numpy as np

from tests.faults.forks import PHASES, Board, Child, Nursery, scratch

_CAMPAIGN = "tests.faults.victims:campaign"
_IGNORED = ("wall_time", "digest")  # the digest is of the time, too


@dataclass(frozen=True)
class Outcome:
    """What became of one kind of fault.

    Attributes
    ----------
    name : str
    faults : int
        How many were injected.
    survived : int
        After how many nothing was lost, nothing was there twice and nothing was different.
    lost : int
        Results that were lost, there twice, damaged or different; must be 0.
    seconds : float
        Of the clock.
    moments : dict of str to int
        In what the faults hit.
    problems : tuple of str
        The first of them, in words.
    """

    name: str
    faults: int
    survived: int
    lost: int
    seconds: float
    moments: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Tally:
    """Counts faults of one kind."""

    def __init__(self, name: str) -> None:
        self.name, self.faults, self.survived, self.lost = name, 0, 0, 0
        self.moments: Counter[str] = Counter()
        self.problems: list[str] = []
        self._began = time.perf_counter()

    def count(self, moment: str, problems: list[str], faults: int = 1) -> None:
        self.faults += faults
        self.moments[moment] += faults
        self.lost += len(problems)
        self.survived += 0 if problems else faults
        self.problems += problems

    def outcome(self) -> Outcome:
        seconds = time.perf_counter() - self._began
        return Outcome(
            self.name,
            self.faults,
            self.survived,
            self.lost,
            round(seconds, 2),
            dict(sorted(self.moments.items())),
            tuple(self.problems[:5]),
        )


# -- the store ------------------------------------------------------------------------------------------------------


@dataclass
class Contents:
    """Rows of a store: what they are, their hash, and when they were written."""

    rows: dict[str, tuple[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def contents(path: Path) -> Contents:
    """Examine a copy of a store: reading it takes back what a killed process left, and that is for the next one."""
    found = Contents()
    if not path.exists():
        return found
    with tempfile.TemporaryDirectory(prefix="examined-") as folder:
        copy = Path(folder) / path.name
        for name in (path.name, f"{path.name}-journal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(name), copy.with_name(name))
        try:
            _read(copy, found)
        except Exception as error:  # whatever cannot be read is lost
            found.problems.append(f"cannot be read: {type(error).__name__}: {error}")
    return found


def _read(path: Path, found: Contents) -> None:
    connection = sqlite3.connect(path)
    try:
        for (answer,) in connection.execute("PRAGMA integrity_check").fetchall():
            if answer != "ok":
                found.problems.append(f"integrity_check: {answer}")
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if "systems" not in tables:
            return
        for table in tables & {"text_key_values", "number_key_values", "species", "keys"}:
            loose = connection.execute(
                f"SELECT COUNT(*) FROM {table} WHERE id NOT IN (SELECT id FROM systems)"
            ).fetchone()[0]
            if loose:
                found.problems.append(f"{loose} loose entries in {table}")
    finally:
        connection.close()
    with ase.db.connect(path, type="db", use_lock_file=False) as db:
        for row in db.select():
            name = f"{row.state_key.removeprefix('state-')} {row.get('jump_index', -1)}"
            if name in found.rows:
                found.problems.append(f"row {name} is there twice")
            found.rows[name] = (_hash(row), row.mtime)


def _hash(row: Any) -> str:
    """Hash of all that a row says, without times."""
    digest = hashlib.sha256()
    pairs = {k: v for k, v in row.key_value_pairs.items() if k not in _IGNORED}
    digest.update(json.dumps(pairs, sort_keys=True).encode())
    for name in sorted(row.data):
        value = row.data[name]
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    digest.update(row.positions.tobytes() + row.numbers.tobytes() + np.asarray(row.cell).tobytes())
    return digest.hexdigest()


class Life:
    """One store from its beginning to its end, with what is known of it."""

    def __init__(self, nursery: Nursery, folder: Path, plain: Plain, **options: Any) -> None:
        self.nursery, self.plain, self.options = nursery, plain, options
        self.folder = folder
        folder.mkdir()
        os.chmod(folder, 0o777)
        self.store, self.acknowledged = folder / "s.db", folder / "acknowledged"
        self._boards = 0
        self.known: dict[str, tuple[str, float]] = {}
        self.changed: set[str] = set()

    def start(self, **options: Any) -> tuple[Child, Board]:
        """A process that works on this store."""
        self._boards += 1
        file = self.folder / f"board-{self._boards}"
        board = Board(file)
        os.chmod(file, 0o666)
        self.board = board
        given = {**self.options, **options}
        child = self.nursery.start(
            _CAMPAIGN, store=str(self.store), board_file=str(file), acknowledged=str(self.acknowledged), **given
        )
        return child, board

    def problems(self, *, same: bool = True) -> list[str]:
        """What is lost, there twice or different from what an undisturbed run has, now that nobody writes."""
        found = contents(self.store)
        out = list(found.problems)
        told = set()
        with contextlib.suppress(FileNotFoundError):
            told = set(self.acknowledged.read_text().splitlines())
        if not found.problems or found.rows:
            out += [f"row {name} was acknowledged and is lost" for name in sorted(told - set(found.rows))]
            out += [f"row {name} was there and is lost" for name in sorted(set(self.known) - set(found.rows))]
        for name, (digest, when) in found.rows.items():
            if same and digest != self.plain.rows.get(name, ("", 0.0))[0]:
                out.append(f"row {name} differs from that of an undisturbed run")
            if name in self.known and self.known[name] != (digest, when) and name not in self.changed:
                out.append(f"row {name} was written again")
        self.known = found.rows
        return out

    def finish(self, **options: Any) -> list[str]:
        """Run to the end; compare with the undisturbed run."""
        child, _ = self.start(**options)
        code = child.wait()
        told = child.answer()
        if code or told.get("error"):
            return [f"the resumed run failed ({code}): {told.get('error') or child.log()[-500:]}"]
        out = self.problems()
        if set(self.known) != set(self.plain.rows):
            out.append(f"{len(self.known)} rows in the end; expected {len(self.plain.rows)}")
        if told["barriers"] != self.plain.told["barriers"] or told["status"] != self.plain.told["status"]:
            out.append("the barriers differ from those of an undisturbed run")
        if told["not_written"]:
            out.append(f"{told['not_written']} results were not written")
        return out


@dataclass(frozen=True)
class Plain:
    """An undisturbed run."""

    rows: dict[str, tuple[str, float]]
    told: dict[str, Any]


def undisturbed(nursery: Nursery, folder: Path) -> Plain:
    """Run once without any fault."""
    life = Life(nursery, folder, Plain({}, {}))
    child, _ = life.start()
    if child.wait() != 0:
        raise RuntimeError(child.log())
    found = contents(life.store)
    if found.problems:
        raise RuntimeError(found.problems[0])
    return Plain(found.rows, child.answer())


# -- kills ----------------------------------------------------------------------------------------------------------


def _until(condition: Callable[[], bool], child: Child, pause: float = 0.0003) -> None:
    turns = 0
    while not condition():
        turns += 1
        if turns % 50 == 0 and not child.alive:
            return
        time.sleep(pause)


def _kill_once(life: Life, rng: random.Random, kind: str) -> str | None:
    """Start a process and kill it at a random moment; return in what it was, None if it was faster."""
    told = life.plain.told
    if kind == "statement":
        numbers = told["in_transactions"] if rng.random() < 0.8 else list(range(1, told["statements"] + 1))
        left = 1.0 - len(life.known) / len(life.plain.rows)  # of the work
        numbers = numbers[: max(1, int(left * len(numbers)))]
        child, board = life.start(die={"statement": rng.choice(numbers)}, spill=rng.random() < 0.7)
    elif kind == "commit":
        left = 1.0 - len(life.known) / len(life.plain.rows)
        which = rng.randint(1, max(1, int(left * told["commits"])))
        after = 0 if rng.random() < 0.3 else rng.randint(1, 150)
        child, board = life.start(die={"commit": which, "after_us": after}, spill=rng.random() < 0.7)
    elif kind == "close":
        child, board = life.start(die={"close": rng.choice((1, -1)) * rng.randint(1, told["closes"])})
    else:
        child, board = life.start()
        if kind == "start":
            time.sleep(rng.uniform(0.0, 0.03))
        else:
            left = 1.0 - len(life.known) / len(life.plain.rows)
            target = rng.randint(1, max(1, int(left * told["calls"])))
            _until(lambda: board.calls >= target, child)
            time.sleep(rng.uniform(0.0, 0.005))
        child.send(signal.SIGKILL)
    if child.wait() != -signal.SIGKILL:
        return None
    hot = _is_hot(life.store)
    return PHASES[board.phase] + (", pages in the file" if hot else "")


def _is_hot(store: Path) -> bool:
    """Whether a transaction has to be taken back: its journal is in force."""
    journal = store.with_name(f"{store.name}-journal")
    return journal.exists() and journal.stat().st_size > 512


def kill_single(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random, **options: Any) -> Tally:
    """Kill single writers ``n`` times, several times in the life of each store."""
    tally = Tally("kill -9 of one writer")
    lives = 0
    while tally.faults < n:
        lives += 1
        life = Life(nursery, folder / f"single-{lives}", plain, **options)
        moments: list[str] = []
        problems: list[str] = []
        for _ in range(min(rng.randint(2, 8), n - tally.faults)):
            kind = rng.choices(("start", "work", "statement", "commit", "close"), (1, 3, 3, 3, 1))[0]
            moment = _kill_once(life, rng, kind)
            if moment is None:  # it was finished: that is no fault
                if len(life.known) == len(plain.rows):
                    break
                continue
            before = len(problems)
            problems += life.problems()
            moments.append(moment)
            tally.count(moment, problems[before:])
        ending = life.finish()
        if ending and moments:  # blame the last fault
            tally.lost += len(ending)
            tally.survived -= not problems
            tally.problems += ending
        shutil.rmtree(life.folder)
    return tally


def kill_recovery(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random) -> Tally:
    """Kill a writer in a transaction, and then those that take it back, again and again."""
    tally = Tally("kill -9 while a killed transaction is taken back")
    lives = 0
    while tally.faults < n:
        lives += 1
        life = Life(nursery, folder / f"recovery-{lives}", plain)
        child, board = life.start()
        target = rng.randint(1, plain.told["calls"])
        _until(lambda board=board, target=target: board.calls >= target, child)
        child.send(signal.SIGKILL)
        child.wait()
        life.problems()
        if not life.known:  # nothing to take back yet
            life.finish()
        nursery.start("tests.faults.victims:fill", store=str(life.store)).wait()
        nursery.start("tests.faults.victims:leave_hot", store=str(life.store)).wait()
        tally.count("transaction, pages in the file", life.problems())
        longest = _time_to_take_back_us(life.store)
        for _ in range(6):
            if tally.faults >= n or not _is_hot(life.store):
                break
            before = _digest(life.store)
            child, board = life.start(die={"after_us": rng.randint(0, longest)})
            if child.wait() != -signal.SIGKILL:
                break
            hot, touched = _is_hot(life.store), _digest(life.store) != before
            moment = "taking back" if hot and touched else "before it is taken back" if hot else "after it"
            tally.count(moment, life.problems())
        if ending := life.finish():
            tally.lost += len(ending)
            tally.survived -= 1
            tally.problems += ending
        shutil.rmtree(life.folder)
    return tally


def _time_to_take_back_us(store: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="timed-", dir=store.parent.parent) as folder:
        copy = Path(folder) / store.name
        for name in (store.name, f"{store.name}-journal"):
            shutil.copyfile(store.with_name(name), copy.with_name(name))
        began = time.perf_counter()
        connection = sqlite3.connect(copy)
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        seconds = time.perf_counter() - began
        connection.close()
    return int(1e6 * seconds)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_pairs(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random) -> Tally:
    """Kill one of two writers on one store, or both."""
    tally = Tally("kill -9 with two writers")
    lives = 0
    while tally.faults < n:
        lives += 1
        life = Life(nursery, folder / f"pair-{lives}", plain)
        faults: list[str] = []
        problems: list[str] = []
        for _ in range(4):
            if tally.faults + len(faults) >= n:
                break
            die = {"statement": rng.choice(plain.told["in_transactions"])} if rng.random() < 0.5 else None
            first, one = life.start(die=die, spill=rng.random() < 0.5)
            second, other = life.start()
            if die is None:
                target = rng.randint(1, plain.told["calls"])
                _until(lambda one=one, other=other, t=target: one.calls + other.calls >= t, first)
                time.sleep(rng.uniform(0.0, 0.005))
                first.send(signal.SIGKILL)
            else:
                first.wait()
            both = rng.random() < 0.5
            if both and second.alive:
                if die is not None:
                    time.sleep(rng.uniform(0.0, 0.02))
                second.send(signal.SIGKILL)
            ends = first.wait(), second.wait()
            killed = [b for b, code in zip((one, other), ends, strict=True) if code == -signal.SIGKILL]
            faults += [PHASES[b.phase] for b in killed]
            now = life.problems()
            if not both and ends[1] != 0:
                now.append(f"the other writer failed ({ends[1]}): {second.log()[-300:]}")
            problems += now
        problems += life.finish()
        for k, moment in enumerate(faults):
            tally.count(moment, problems if k == 0 else [])
        shutil.rmtree(life.folder)
    return tally


# -- other faults -----------------------------------------------------------------------------------------------------


def _each(tally: Tally, nursery: Nursery, folder: Path, plain: Plain, n: int) -> Iterator[tuple[Life, int]]:
    stem = "".join(c if c.isalnum() else "-" for c in tally.name)
    for k in range(n):
        life = Life(nursery, folder / f"{stem}-{k}", plain)
        yield life, k
        shutil.rmtree(life.folder, ignore_errors=True)


def interrupted(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random) -> Tally:
    """Ctrl-C at random moments: says how much is done; what was finished is written."""
    tally = Tally("Ctrl-C")
    for life, _ in _each(tally, nursery, folder, plain, n):
        child, board = life.start()
        target = rng.randint(1, plain.told["calls"] - 5)
        _until(lambda board=board, target=target: board.calls >= target, child)
        time.sleep(rng.uniform(0.0, 0.004))
        phase = board.phase
        child.send(signal.SIGINT)
        code = child.wait()
        problems = life.problems()
        if code != 130:
            problems.append(f"ended with {code} after Ctrl-C")
        elif "barriers are done, kept in" not in child.log():
            problems.append("did not say how much is done")
        tally.count(PHASES[phase], problems + life.finish())
    return tally


def full_disk(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random) -> Tally:
    """No file can grow beyond a random size, from before the first table to nearly all rows."""
    tally = Tally("disk full (limit on the size of files)")
    for life, k in _each(tally, nursery, folder, plain, n):
        size = 0 if k == 0 else rng.randint(*((1, 80_000) if k % 4 == 1 else (80_000, 125_000)))
        child, _ = life.start(largest_file=size)
        child.wait()
        problems = _after_full(child, life)
        tally.count(_how_full(child), problems + life.finish())
    return tally


def full_device(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random) -> Tally:
    """A file system of its own without free space; none where one may not be mounted."""
    tally = Tally("disk full (a file system without space)")
    for k in range(n):
        place = folder / f"device-{k}"
        place.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)], capture_output=True
        ).returncode:
            break
        try:
            life = Life(nursery, place / "life", plain)
            board = Board(life.folder / "board-1")  # what the harness itself writes is there before
            life.acknowledged.write_text("#" * 1)
            life.acknowledged.write_text("")
            del board
            fat = place / "fat"
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            fat.write_bytes(b"x" * max(0, free - 8192 - rng.randint(0, 60_000 if k % 3 == 0 else 230_000)))
            child, _ = life.start()
            child.wait()
            problems = _after_full(child, life)
            fat.unlink()
            tally.count(_how_full(child), problems + life.finish())
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
    return tally


def _after_full(child: Child, life: Life) -> list[str]:
    told = child.answer()
    problems = life.problems()
    if told.get("error"):
        if "StoreError" not in told["error"] or "\n" in told["error"]:
            problems.append(f"not one sentence: {told['error']}")
    elif not told:
        problems.append(f"the run died: {child.log()[-500:]}")
    elif told["barriers"] != life.plain.told["barriers"]:
        problems.append("the barriers differ from those of an undisturbed run")
    elif told["not_written"] and not any("could not be written" in text for text in told["warnings"]):
        problems.append("results were not written, and nothing was said")
    return problems


def _how_full(child: Child) -> str:
    told = child.answer()
    if told.get("error"):
        return "refused at the start"
    return f"warned, {told.get('not_written', '?')} not written" if told.get("not_written") else "it fitted"


def read_only(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random) -> Tally:
    """A store without permission to write, after a part of the work: by the rights of files where one is root."""
    tally = Tally("read-only store")
    for life, k in _each(tally, nursery, folder, plain, n):
        if k % 3 == 2:  # in the middle of a transaction, which nobody without the right to write can take back
            numbers = plain.told["in_transactions"]
            child, _ = life.start(die={"statement": rng.choice(numbers[len(numbers) // 4 :])}, spill=True)
        else:
            child, board = life.start()
            target = rng.randint(20, plain.told["calls"] - 1)
            _until(lambda board=board, target=target: board.calls >= target, child)
            child.send(signal.SIGKILL)
        child.wait()
        problems = life.problems()
        hot = _is_hot(life.store)
        how: dict[str, Any] = {"read_only": True}
        if os.getuid() == 0:
            how = {"user": 65534}
            life.acknowledged.touch()
            for file in life.folder.iterdir():
                os.chmod(file, 0o444 if file.name.startswith("s.db") else 0o666)
            board = Board(life.folder / f"board-{life._boards + 1}")
            os.chmod(life.folder / f"board-{life._boards + 1}", 0o666)
            os.chmod(life.folder, 0o555)
        child, _ = life.start(**how)
        child.wait()
        told = child.answer()
        if told.get("error"):
            if "StoreError" not in told["error"] or "cannot be used" not in told["error"]:
                problems.append(f"not one sentence: {told['error']}")
        elif not told:
            problems.append(f"the run died: {child.log()[-500:]}")
        else:
            if told["barriers"] != plain.told["barriers"]:
                problems.append("the barriers differ from those of an undisturbed run")
            if told["computed"] and told["not_written"] != told["computed"]:
                problems.append("rows got into a store that may only be read")
        os.chmod(life.folder, 0o777)
        for file in life.folder.iterdir():
            os.chmod(file, 0o666)
        moment = "a transaction to take back" if hot else f"{'some' if told.get('computed') else 'no'} work left"
        tally.count(moment, problems + life.problems() + life.finish())
    return tally


FAILURES = ("calculator-failed", "timed-out", "no-saddle", "wrong-saddle", "unstable-end", "unstable-initial")


def bad_calculator(
    nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random, how: str, **options: Any
) -> Tally:
    """A calculator that fails at a random call, once or from then on; then what failed is asked for again."""
    tally = Tally(f"calculator: {how}")
    for life, _ in _each(tally, nursery, folder, plain, n):
        at = rng.randint(2, plain.told["calls"] - 1)
        child, _ = life.start(calculator={"at": at, "how": how, "seconds": 1.5}, **options)
        child.wait()
        told = child.answer()
        problems = life.problems(same=False)
        if not told or told.get("error"):
            moment = "stopped"
            if how not in ("die", "segfault") and not (told and "fails on the ideal lattice" in told["error"]):
                problems.append(f"the campaign ended: {(told or {}).get('error') or child.log()[-300:]}")
        else:
            right, found = plain.told["barriers"], told["barriers"]
            wrong = [k for k, s in enumerate(told["status"]) if s == "ok" and found[k] != right[k]]
            for k in wrong:  # another way to the same saddle, or none
                if abs(float.fromhex(found[k]) - float.fromhex(right[k])) > 0.02:
                    problems.append(f"a barrier of {float.fromhex(found[k]):.4f} eV for {float.fromhex(right[k]):.4f}")
            failed = sorted({s for s in told["status"] if s != "ok"})
            moment = ", ".join(failed) or ("another way to the saddle" if wrong else "repeated within the search")
            life.changed = set(life.known)  # rows of failures are to be replaced
            if wrong or "," in moment or moment == "repeated within the search":
                tally.count(moment, problems + _close(life))
                continue
        tally.count(moment, problems + life.finish(retry=list(_retry(told))))
    return tally


def _retry(told: dict[str, Any]) -> set[str]:
    return {s for s in told.get("status", ()) if s != "ok"} | {"calculator-failed", "timed-out"}


def _close(life: Life) -> list[str]:
    """Finish where a search that was disturbed has found its way on its own: rows may differ in the last digits."""
    child, _ = life.start(retry=["calculator-failed", "timed-out"])
    if child.wait() or child.answer().get("error"):
        return [f"the resumed run failed: {child.answer().get('error') or child.log()[-300:]}"]
    out = life.problems(same=False)
    for a, b in zip(child.answer()["barriers"], life.plain.told["barriers"], strict=True):
        if abs(float.fromhex(a) - float.fromhex(b)) > 0.02:
            out.append(f"a barrier of {float.fromhex(a):.4f} eV in the end for {float.fromhex(b):.4f}")
    if set(life.known) != set(life.plain.rows):
        out.append(f"{len(life.known)} rows in the end; expected {len(life.plain.rows)}")
    return out


def clock_jumps(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random) -> Tally:
    """The clock is set by hours, forwards and backwards, while the campaign runs and before it is resumed."""
    tally = Tally("clock set by hours")
    for life, _ in _each(tally, nursery, folder, plain, n):
        steps = [rng.uniform(-5, 5) * 3600 for _ in range(40)]
        child, board = life.start(clock=steps)
        target = rng.randint(10, plain.told["calls"] - 1)
        _until(lambda board=board, target=target: board.calls >= target, child)
        child.send(signal.SIGKILL)
        child.wait()
        problems = life.problems()
        order = list(contents(life.store).rows)
        hang = {"calculator": {"at": 8, "how": "hang"}, "time_limit_s": 1.0} if rng.random() < 0.3 else {}
        if hang:
            began = time.monotonic()
            child, _ = life.start(clock=[rng.choice((-1, 1)) * 7200.0], **hang)
            child.wait()
            life.changed = set(contents(life.store).rows) - set(life.known)
            if time.monotonic() - began > 30:
                problems.append("a time limit of 1 s did not end a search")
            problems += life.problems(same=False)
            life.changed = set(life.known)
        ending = life.finish(clock=[rng.choice((-1, 1)) * 7200.0], retry=["timed-out", "calculator-failed"])
        if list(contents(life.store).rows)[: len(order)] != order:
            ending.append("the order of the rows has changed")
        tally.count("with a hang" if hang else "forwards and backwards", problems + ending)
    return tally


def dead_workers(nursery: Nursery, folder: Path, plain: Plain, n: int, rng: random.Random, pool: str) -> Tally:
    """``kill -9`` of a worker of a pool of processes, at a random moment."""
    tally = Tally(f"worker of the {pool} process pool killed")
    for life, _ in _each(tally, nursery, folder, plain, n):
        child, board = life.start(pool=pool)
        target = rng.randint(4, plain.told["calls"] - 15)
        _until(lambda board=board, target=target: board.calls >= target, child)
        workers = _children(child.pid)
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
        child.wait()
        told, problems = child.answer(), life.problems()
        moment = "went on with new workers"
        if not told:
            problems.append(f"the run died: {child.log()[-300:]}")
        elif pool == "given":
            moment = "stopped with one sentence"
            if not workers or not told["error"]:
                moment = "it was faster"
            elif "the executor died" not in told["error"] or "run again to go on" not in told["error"]:
                problems.append(f"said: {told['error']}")
        else:
            if told["error"]:
                problems.append(f"stopped: {told['error']}")
            elif told["barriers"] != plain.told["barriers"]:
                problems.append("the barriers differ from those of an undisturbed run")
            elif not told["deaths"]:
                moment = "it was faster"
        tally.count(moment, problems + life.finish())
    return tally


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def negative_controls(nursery: Nursery, folder: Path, plain: Plain, rng: random.Random) -> dict[str, Tally]:
    """Stores with a defect built in: each must be reported, at the latest by the hundredth kill."""
    return {how: _until_seen(nursery, folder / how, plain, rng, how) for how in ("late", "twice", "torn", "hasty")}


def _until_seen(nursery: Nursery, folder: Path, plain: Plain, rng: random.Random, how: str) -> Tally:
    folder.mkdir()
    for part in range(8):
        (folder / str(part)).mkdir()
        tally = kill_single(nursery, folder / str(part), plain, 12, rng, broken=how)
        if tally.lost:
            break
    return tally


def run_campaigns(scale: float, seed: int) -> Iterator[Outcome]:
    """All faults of campaigns; ``scale`` 1: 100 kills of single writers, 30 of two, at least 5 of the rest."""
    rng = random.Random(seed)

    def times(full: int) -> int:
        return max(1, round(full * scale))

    with scratch() as folder, Nursery() as nursery:
        plain = undisturbed(nursery, folder / "plain")
        here = (nursery, folder, plain)

        def bad(how: str) -> Callable[..., Tally]:
            return partial(bad_calculator, *here, times(5), rng, how)

        kinds: list[Callable[[], Tally]] = [
            partial(kill_single, *here, times(100), rng),
            partial(kill_recovery, *here, times(20), rng),
            partial(kill_pairs, *here, times(30), rng),
            partial(interrupted, *here, times(10), rng),
            partial(full_disk, *here, times(10), rng),
            partial(full_device, *here, times(5), rng),
            partial(read_only, *here, times(5), rng),
            *(bad(how) for how in ("raise", "down", "nan-forces", "nan-energy", "die", "segfault")),
            *(partial(bad(how), time_limit_s=1.0) for how in ("hang", "deaf")),
            partial(clock_jumps, *here, times(5), rng),
            *(partial(dead_workers, *here, times(5), rng, pool) for pool in ("own", "given")),
        ]
        for kind in kinds:
            yield kind().outcome()
