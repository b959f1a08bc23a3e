"""One store, several processes, killed at any moment: nothing lost, nothing twice."""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import ase.db
import pytest
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from ase_kinoson.barriers.agenda import Agenda
from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.database import SharedDatabase
from ase_kinoson.barriers.saddle import StateResult
from ase_kinoson.barriers.tasks import JumpTask, StateTask
from tests.barriers.bad_luck import ASKED, CHEAP, N_ROWS, same, small_study, start


@pytest.fixture(scope="module")
def study():
    return small_study(3)


@pytest.fixture(scope="module")
def plain(study):
    return compute_barriers(*study, EMT, jumps=ASKED, settings=CHEAP)


def rows(path):
    with ase.db.connect(path) as db:
        return {row.unique_id: (row.kind, row.state_key, row.get("jump_index"), row.mtime) for row in db.select()}


def wait_for_rows(path, more_than, process):
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        try:
            if path.exists() and len(rows(path)) > more_than:
                return
        except (sqlite3.Error, OSError):  # the tables are being made
            pass
        time.sleep(0.01)


def whole(path):
    """Every row once, and no page of the file damaged."""
    kept = rows(path)
    assert set(Counter(row[:3] for row in kept.values()).values()) <= {1}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT COUNT(*) FROM systems").fetchone()[0] == len(kept)
        for table in ("text_key_values", "number_key_values", "species"):
            loose = f"SELECT COUNT(*) FROM {table} WHERE id NOT IN (SELECT id FROM systems)"
            assert connection.execute(loose).fetchone()[0] == 0
    connection.close()
    return kept


def test_killed_and_interrupted_at_random_moments(study, plain, tmp_path):
    path = tmp_path / "s.db"
    rng = random.Random(3)
    kept = {}
    for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGINT):
        process = start(path, pause=0.05)  # so slow that it is caught in the middle on any machine
        wait_for_rows(path, len(kept) + (how == signal.SIGINT), process)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(how)
        err = process.communicate(timeout=60)[1]
        assert process.returncode != 0
        before, kept = kept, whole(path)
        assert before.items() <= kept.items() and len(kept) > len(before)  # nothing lost, nothing written again
    done = sum(row[0] == "jump" for row in kept.values())
    assert 1 <= done < 9 and "KeyboardInterrupt" in err
    assert f"interrupted: {done} of 9 barriers are done, kept in {path}; run again to go on" in err
    finished = compute_barriers(*study, EMT, store=path, jumps=ASKED, settings=CHEAP)
    same(finished, plain)
    assert finished.settings["cost"]["computed_now"] == N_ROWS - len(kept)
    after = whole(path)
    assert len(after) == N_ROWS and kept.items() <= after.items()


def test_two_processes_fill_one_store(study, plain, tmp_path):
    path = tmp_path / "s.db"
    both = [start(path), start(path)]
    told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    sums = {out.split()[1] for out, _ in told}
    assert sums == {repr(sum(plain.barrier[n, k] for n in ASKED for k in ASKED[n]))}
    assert len(whole(path)) == N_ROWS
    assert N_ROWS <= sum(int(out.split()[0]) for out, _ in told) <= N_ROWS + 5
    same(compute_barriers(*study, EMT, store=path, jumps=ASKED, settings=CHEAP), plain)


class Intruder(EMT):
    """EMT in the middle of whose n-th call another campaign does all the work."""

    calls, at, other = 0, 0, None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        type(self).calls += 1
        if type(self).calls == type(self).at:
            type(self).other()
        super().calculate(atoms, properties, system_changes)


@pytest.mark.parametrize("at", [5, 50])  # in a relaxation, in a search
def test_work_of_another_process_is_used(study, plain, tmp_path, at):
    path = tmp_path / "s.db"

    class Named(EMT):  # the same name, as it is the same study
        pass

    Named.__name__ = "Intruder"
    Intruder.calls, Intruder.at = 0, at
    before = []

    def other():
        before.append(len(rows(path)))
        compute_barriers(*study, Named, store=path, jumps=ASKED, settings=CHEAP)

    Intruder.other = other
    found = compute_barriers(*study, Intruder, store=path, jumps=ASKED, settings=CHEAP)
    same(found, plain)
    assert found.settings["cost"]["computed_now"] == before[0] + 1  # what was in flight
    assert (before[0] > 1) == (at == 50)
    assert len(whole(path)) == N_ROWS


# -- the order of work ----------------------------------------------------------------------------------------------


class Shared:
    """What two campaigns in lockstep have written."""

    def __init__(self):
        self.states, self.jumps = {}, set()


class Process:
    """A campaign that computes nothing."""

    def __init__(self, study, todo, shared, deaf=False):
        self.shared, self.relaxed, self.found, self.deaf = shared, {}, set(), deaf
        self.agenda = Agenda(*study, todo, self.relaxed, self.found, self.look)

    def look(self):
        if self.deaf:
            return []
        theirs = [key for key in self.shared.states if key not in self.relaxed]
        self.relaxed.update({key: self.shared.states[key] for key in theirs})
        self.found |= self.shared.jumps
        return theirs

    def finish(self, task):
        if isinstance(task, StateTask):
            self.relaxed[task.key] = StateResult("ok", "", task.host.positions, 0.0, 0.0, 1, ())
            fresh = task.key not in self.shared.states
            self.shared.states[task.key] = self.relaxed[task.key]
        else:
            assert isinstance(task, JumpTask)
            fresh = (task.key, task.jump) not in self.shared.jumps
            self.shared.jumps.add((task.key, task.jump))
            self.found.add((task.key, task.jump))
        self.agenda.finished(task, fresh=fresh or self.deaf)
        return fresh


def lockstep(study, n_processes, n_flying, deaf=False, relaxed=False):
    """Work done twice by processes that all start and finish their tasks at the same moments."""
    states, _ = study
    todo = {(key, k): (n, k) for n, key in enumerate(states.keys) for k in range(12)}
    shared = Shared()
    processes = [Process(study, todo, shared, deaf) for _ in range(n_processes)]
    if relaxed:  # a run that was killed left its states
        shared.states = {k: StateResult("ok", "", states.supercell.positions[1:], 0.0, 0.0, 1, ()) for k in states.keys}
        for process in processes:
            process.relaxed.update(shared.states)
    twice = 0
    while True:
        flying = [[task for _ in range(n_flying) if (task := p.agenda.take()) is not None] for p in processes]
        if not any(flying):
            break
        for process, tasks in zip(processes, flying, strict=True):
            twice += sum(not process.finish(task) for task in tasks)
    assert len(shared.jumps) == len(todo) and len(shared.states) == len(states)
    return twice


def test_lockstep_costs_little():
    study = small_study(4)  # 4 relaxations and 48 jumps
    assert lockstep(study, 2, 1) <= 3
    assert lockstep(study, 3, 1) <= 8
    assert lockstep(study, 2, 1, relaxed=True) <= 4
    assert lockstep(study, 2, 1, deaf=True) == 52  # the twin that does not listen does all of it twice


KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size=1")  # pages reach the file before the commit
connection.execute("BEGIN IMMEDIATE")
for k in range(3000):
    connection.execute("INSERT INTO information VALUES (?, ?)", (f"n{k}", "x" * 2000))
os.kill(os.getpid(), 9)
"""


def test_process_killed_while_it_commits(tmp_path):
    path = tmp_path / "s.db"
    SharedDatabase(path).describe({"ase_kinoson": {"a": 1}})
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert path.with_name("s.db-journal").stat().st_size > 0
    reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):  # the twin that only reads cannot clean up
        reader.execute("SELECT COUNT(*) FROM information").fetchall()
    reader.close()
    assert SharedDatabase(path).metadata() == {"ase_kinoson": {"a": 1}}
    with ase.db.connect(path) as db:
        assert db.connection.execute("SELECT COUNT(*) FROM information WHERE name LIKE 'n%'").fetchone()[0] == 0
