"""What runs in the processes that are killed: one small campaign, watched, with faults on demand."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sqlite3
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import ase.calculators.emt
import ase.db.core
import ase.db.sqlite
import numpy as np
from ase.calculators.calculator import all_changes

from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.barriers.store import BarrierStore
from tests.barriers.bad_luck import ASKED, small_study
from tests.faults.forks import Board

LOOSE = SaddleSettings(verify=False, fmax_initial=0.05, fmax_final=0.1, fmax_saddle=0.1)
N_ROWS = 3 + sum(len(jumps) for jumps in ASKED.values())
STUDY = small_study(3)

board: Board | None = None
fault: dict[str, Any] = {}
in_transactions: list[int] = []


class EMT(ase.calculators.emt.EMT):
    """EMT that counts its calls; at one of them something goes wrong."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        calls = board.add("calls") if board is not None else 0
        now = fault and calls == fault["at"]
        if fault and calls >= fault["at"] and fault["how"] == "down":
            raise RuntimeError("no licence")
        if now and fault["how"] == "raise":
            raise RuntimeError("did not converge")
        if now and fault["how"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if now and fault["how"] == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if now and fault["how"] == "hang":
            try:
                time.sleep(60)
            except Exception:  # as careless code does
                pass
        if now and fault["how"] == "deaf":  # compiled code that does not come back for a while
            _c_loop(fault["seconds"])
        if fault.get("pause"):
            time.sleep(fault["pause"])
        super().calculate(atoms, properties, system_changes)
        if now and fault["how"] == "nan-forces":
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)
        if now and fault["how"] == "nan-energy":
            self.results["energy"] = self.results["free_energy"] = float("nan")
            self.results["energies"] = np.full(len(self.atoms), np.nan)
        if now and fault["how"] == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)


def _c_loop(seconds: float) -> None:
    import hashlib

    began = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 100_000)
    once = time.perf_counter() - began
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", max(1, int(100_000 * seconds / once)))


class Watched(sqlite3.Connection):
    """A connection that tells what it does; the process dies at a statement or a close, if asked to."""

    die: dict[str, int] = {}

    def watch(self) -> Watched:
        self.set_trace_callback(self._statement)
        assert board is not None
        if (
            board.add("connected") == 1 and "after_us" in self.die and "commit" not in self.die
        ):  # the next call takes back what a killed one left
            threading.Thread(target=_die_soon, args=(1e-6 * self.die["after_us"],), daemon=True).start()
        return self

    def _statement(self, text: str) -> None:
        assert board is not None
        word = text.split(None, 1)[0].upper()
        if word in ("BEGIN", "COMMIT"):
            board.set("phase", 2 if word == "BEGIN" else 3)
        number = board.add("statements")
        if word == "COMMIT" and board.add("commits") == self.die.get("commit"):
            # before it begins, or somewhere in it: on a disk in memory it takes some tens of microseconds
            delay = 1e-6 * self.die["after_us"]
            if delay:
                threading.Thread(target=_die_soon, args=(delay,), daemon=True).start()
            else:
                _die_soon(delay)
        if board.phase in (2, 3):
            in_transactions.append(number)
        if number == self.die.get("statement"):
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        assert board is not None
        last = board.phase
        board.set("phase", 4)
        closes = board.add("closes")
        if closes == self.die.get("close"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().close()
        if -closes == self.die.get("close"):
            os.kill(os.getpid(), signal.SIGKILL)
        board.set("phase", 1 if last else 0)


def _die_soon(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def campaign(
    *,
    store: str,
    board_file: str,
    acknowledged: str | None = None,
    die: dict[str, int] | None = None,
    spill: bool = False,
    calculator: dict[str, Any] | None = None,
    broken: str = "",
    largest_file: int | None = None,
    user: int | None = None,
    read_only: bool = False,
    clock: list[float] | None = None,
    pool: str = "",
    retry: list[str] | None = None,
    time_limit_s: float | None = None,
) -> dict[str, Any]:
    """Compute the jumps ``ASKED``; return what was found and said.

    Parameters
    ----------
    store, board_file
        Files.
    acknowledged
        File that gets a line for every row of which the store has said that it is written.
    die
        Dies before this ``statement`` of SQL, at this ``close`` of the database (negative: after it), or some
        microseconds ``after_us`` it has opened the database.
    spill
        Pages reach the file before the commit, as those of large transactions do.
    calculator
        What goes wrong ``at`` which call, and ``how``.
    broken
        Name of a defect that is built in, for negative controls.
    largest_file
        Bytes that a file may have.
    user
        Number of the user to become.
    read_only
        Open the database for reading only.
    clock
        Steps that the clock makes, s: one after the other, at each time it is asked.
    pool
        ``"own"`` (a callable), ``"given"``: a pool of two processes.
    retry, time_limit_s
        Of the campaign.
    """
    global board, fault
    board, fault = Board(board_file), calculator or {}
    logging.basicConfig(level=logging.WARNING)
    Watched.die = die or {}

    plain_connect = sqlite3.connect

    def connect(name: Any, **options: Any) -> Watched:
        if read_only:
            name, options["uri"] = f"{Path(store).absolute().as_uri()}?mode=ro", True
        connection = plain_connect(name, **options, factory=Watched)
        if spill:
            connection.execute("PRAGMA cache_size=1")
        return connection.watch()

    sqlite3.connect = connect  # type: ignore[assignment]
    if broken:
        _break(broken)
    if acknowledged is not None:
        _acknowledge(acknowledged)
    if clock:
        _jump(clock)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    told: dict[str, Any] = {"error": None, "warnings": []}
    executor: Any = None
    if pool:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        executor = partial(ProcessPoolExecutor, 2, mp_context=multiprocessing.get_context("fork"))
        if pool == "given":
            executor = executor()
    board.set("phase", 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = compute_barriers(
                *STUDY,
                EMT,
                store=store,
                jumps=ASKED,
                settings=LOOSE,
                retry=retry or (),
                time_limit_s=time_limit_s,
                executor=executor,
            )
        except ValueError as error:  # KinosonError
            told["error"] = f"{type(error).__name__}: {error}"
        else:
            places = [(n, k) for n in ASKED for k in ASKED[n]]
            told["barriers"] = [found.barrier[p].hex() for p in places]
            told["status"] = [str(found.status[p]) for p in places]
            told["computed"] = found.settings["cost"]["computed_now"]
            told["not_written"] = found.settings["cost"]["not_written"]
            told["deaths"] = found.settings["cost"]["executor_deaths"]
            told["reasons"] = list(found.reasons.values())
    told["warnings"] = [f"{w.category.__name__}: {w.message}" for w in caught]
    told["calls"], told["statements"], told["closes"] = board.calls, board.statements, board.closes
    told["commits"] = board.commits
    told["in_transactions"] = in_transactions
    board.set("phase", 5)
    return told


def _acknowledge(path: str) -> None:
    """Note, where no death can take it back, what the store says is written."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    together = BarrierStore.together

    def all_of_them(self: Any, writes: Any) -> list[bool]:
        given = list(writes)
        done = together(self, given)
        names = [(w.args[0], w.args[1] if w.func.__name__ == "write_jump" else -1) for w in given]
        os.write(handle, "".join(f"{key} {jump}\n" for key, jump in names).encode())
        return done

    BarrierStore.together = all_of_them  # type: ignore[method-assign]


def _break(how: str) -> None:
    """Build in a defect."""
    write, together = BarrierStore._write, BarrierStore.together
    if how == "late":  # says "written" and writes later, as a cache does
        held: list[Any] = []

        def late(self: Any, writes: Any) -> list[bool]:
            held.extend(writes)
            if len(held) < 4:
                return [True] * len(list(writes))
            done = together(self, held)
            held.clear()
            return done

        BarrierStore.together = late  # type: ignore[method-assign]
    elif how == "twice":  # a store without a rule of one row per result

        def again(self: Any, pairs: Any, data: Any, atoms: Any, same: Any) -> bool:
            return write(self, pairs, data, atoms, {**same, "when": time.perf_counter()})

        BarrierStore._write = again  # type: ignore[method-assign]
        BarrierStore.news = lambda self: ({}, {})  # type: ignore[method-assign]
    elif how == "torn":  # a row in two transactions: first its numbers, then the rest

        def torn(self: Any, writes: Any) -> list[bool]:
            for one in writes:
                together(self, [one])
                with self._base.writing() as db:
                    row = db.connection.execute("SELECT MAX(id) FROM systems").fetchone()[0]
                    data = db.connection.execute("SELECT data FROM systems WHERE id=?", (row,)).fetchone()[0]
                    db.connection.execute("UPDATE systems SET data=? WHERE id=?", (b"", row))
                with self._base.reading() as db:  # takes its time between the two
                    for _ in range(40):
                        db.connection.execute("SELECT COUNT(*) FROM systems").fetchone()
                with self._base.writing() as db:
                    db.connection.execute("UPDATE systems SET data=? WHERE id=?", (data, row))
            return [True]

        BarrierStore.together = torn  # type: ignore[method-assign]
    elif how == "hasty":  # no rollback journal: what is half written stays half written
        connect = ase.db.sqlite.SQLite3Database._connect

        def hasty(self: Any) -> Any:
            connection = connect(self)
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA cache_size=1")
            return connection

        ase.db.sqlite.SQLite3Database._connect = hasty
    else:
        raise ValueError(how)


def _jump(steps: list[float]) -> None:
    """A clock that is set while the campaign runs."""
    real, left, shift = time.time, list(steps), [0.0]

    def now() -> float:
        if left:
            shift[0] += left.pop(0)
        return real() + shift[0]

    time.time = now
    ase.db.core.time = now


def fill(*, store: str) -> dict[str, Any]:
    """Have a store with some megabytes, so that a transaction on it takes time to be taken back: a fat index."""
    connection = sqlite3.connect(store)
    connection.execute("CREATE INDEX fat ON systems (hex(zeroblob(250000)) || mtime)")
    connection.commit()
    connection.close()
    return {}


def leave_hot(*, store: str) -> dict[str, Any]:
    """Die in the middle of a transaction of which half is in the file."""
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA cache_size=1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE systems SET mtime = mtime + 1.0, ctime = 0.0")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
