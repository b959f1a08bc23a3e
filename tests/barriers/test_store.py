"""The store: what it refuses, and that nothing is lost or changed by writing and reading."""

import sqlite3
from functools import partial

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.barriers.saddle import Hop, Host, JumpResult, SaddleSettings, StateResult
from ase_kinoson.barriers.store import BarrierStore, Fingerprint
from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import StoreError


@pytest.fixture(scope="module")
def study():
    cell = Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell((2, 2, 2))
    network = JumpNetwork.from_supercell(cell)
    occupation = np.insert(np.arange(cell.n_sites - 1) % 2 + 1, 0, 0)
    host = Host.from_occupation(cell, occupation)
    return cell, network, host, Hop.from_jump(network, host, 0, 1)


@pytest.fixture
def fingerprint(study):
    return Fingerprint.of(study[0], study[1], calculator="EMT", parameters={"asap_cutoff": False})


def results(host):
    rng = np.random.default_rng(1)
    places = [host.positions + rng.normal(scale=0.1, size=host.positions.shape) for _ in range(3)]
    state = StateResult("ok", "", places[0], rng.normal(), 0.0041, 9, ("relaxed",), 1.5)
    more = {"verify_calls": 5, "prefactor_calls": 3, "descents": "side-basin", "side_final": 0.3, "n_unstable": 1}
    more |= {"prefactor": 5e12, "reverse_prefactor": 7e12}
    jump = JumpResult(
        "ok", "", state.energy, *rng.normal(size=2), 0.011, 0.0037, 16, ("a", "b"), *places[1:], 2.5, **more
    )
    lost = JumpResult("not-converged", "largest force 0.3", state.energy, force_calls=88, path=("a",))
    return state, jump, lost


def fill(store, host, hop):
    state, jump, lost = results(host)
    store.write_state("12345678901234567890", host, state, carrier=0)
    store.write_jump("12345678901234567890", 1, host, hop, jump, carrier=0, target=5)
    store.write_jump("12345678901234567890", 2, host, hop, lost, carrier=0, target=6)
    return state, jump, lost


def test_what_is_written_is_read_bit_by_bit(tmp_path, study, fingerprint):
    path = tmp_path / "s.db"
    state, jump, lost = fill(BarrierStore(path, fingerprint), *study[2:])
    again = BarrierStore(path, fingerprint)
    key = "12345678901234567890"  # a hash that looks like a number, which ase.db would refuse
    read = again.states()[key]
    assert np.array_equal(read.positions, state.positions)
    assert (read.energy, read.fmax, read.force_calls, read.path) == (state.energy, state.fmax, 9, ("relaxed",))
    jumps = again.jumps(positions=True)
    assert set(jumps) == {(key, 1), (key, 2)} and len(again) == 2
    names = ["status", "barrier", "reverse_barrier", "energy_saddle", "fmax_saddle", "force_calls", "path"]
    names += ["verify_calls", "prefactor_calls", "descents", "side_final", "n_unstable", "prefactor"]
    for name in [*names, "reverse_prefactor", "attempt_frequency", "wall_s"]:
        assert getattr(jumps[key, 1], name) == getattr(jump, name)
    assert np.array_equal(jumps[key, 1].saddle_positions, jump.saddle_positions)
    assert jumps[key, 2].status == "not-converged" and jumps[key, 2].reason == lost.reason
    assert jumps[key, 2].barrier == np.inf and np.isnan(jumps[key, 2].energy_saddle)


def test_it_is_an_ordinary_database(tmp_path, study, fingerprint):
    path = tmp_path / "s.db"
    _, jump, _ = fill(BarrierStore(path, fingerprint), *study[2:])
    with ase.db.connect(path) as db:
        rows = list(db.select(kind="jump", status="ok"))
        metadata = db.metadata
    assert [row.barrier for row in rows] == [jump.barrier]
    assert rows[0].energy == jump.energy_saddle and rows[0].calculator == "emt"
    assert np.array_equal(rows[0].toatoms().positions, jump.saddle_positions)
    assert metadata["key_descriptions"]["barrier"][2] == "eV"
    assert metadata["ase_kinoson"]["calculator"] == "EMT"


def test_nothing_is_written_twice(tmp_path, study, fingerprint):
    store = BarrierStore(tmp_path / "s.db", fingerprint)
    fill(store, *study[2:])
    fill(BarrierStore(tmp_path / "s.db", fingerprint), *study[2:])
    assert len(store) == 2
    with ase.db.connect(tmp_path / "s.db") as db:
        assert db.count() == 3


def test_store_of_another_study_is_refused(tmp_path, study, fingerprint):
    cell, network = study[:2]
    path = tmp_path / "s.db"
    BarrierStore(path, fingerprint)
    larger = cell.alloy.supercell((3, 3, 3))
    others = {
        "supercell": Fingerprint.of(larger, network, calculator="EMT", parameters={"asap_cutoff": False}),
        "jump network": Fingerprint.of(
            cell, JumpNetwork.from_supercell(larger, cutoff=3.7), calculator="EMT", parameters={"asap_cutoff": False}
        ),
        "calculator 'EMT', expected 'LJ'": Fingerprint.of(cell, network, calculator="LJ"),
        "parameter 'asap_cutoff' False, expected True": Fingerprint.of(
            cell, network, calculator="EMT", parameters={"asap_cutoff": True}
        ),
        "setting 'fmax_saddle' 0.01, expected 0.05": Fingerprint.of(
            cell,
            network,
            calculator="EMT",
            parameters={"asap_cutoff": False},
            settings=SaddleSettings(fmax_saddle=0.05),
        ),
    }
    for text, other in others.items():
        with pytest.raises(StoreError, match="belongs to another study") as error:
            BarrierStore(path, other)
        assert text in str(error.value)
        assert "another file" in str(error.value) and "\n" not in str(error.value)
    BarrierStore(path, fingerprint)


def test_truncated_and_foreign_files_are_refused(tmp_path, study, fingerprint):
    path = tmp_path / "s.db"
    fill(BarrierStore(path, fingerprint), *study[2:])
    whole = path.read_bytes()
    for share in (0.9, 0.5, 0.1, 0.001):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(StoreError, match=r"damaged.*delete it"):
            BarrierStore(path, fingerprint).jumps()
    path.write_bytes(whole)
    assert len(BarrierStore(path, fingerprint)) == 2
    text = tmp_path / "notes.db"
    text.write_text("these are my notes, and no database\n" * 100)
    with pytest.raises(StoreError, match="not a barrier store"):
        BarrierStore(text, fingerprint)
    assert text.read_text().startswith("these are my notes")


def test_databases_of_something_else_are_left_alone(tmp_path, study, fingerprint):
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()
    before = other.read_bytes()
    with pytest.raises(StoreError, match="something else"):
        BarrierStore(other, fingerprint)
    assert other.read_bytes() == before
    atoms = tmp_path / "atoms.db"
    with ase.db.connect(atoms) as db:
        db.write(Atoms("Cu"))
    with pytest.raises(StoreError, match="no barriers of this package"):
        BarrierStore(atoms, fingerprint)


def test_missing_folder_is_named(tmp_path, fingerprint):
    with pytest.raises(StoreError, match="no folder"):
        BarrierStore(tmp_path / "nowhere" / "s.db", fingerprint)


def test_news_are_told_once(tmp_path, study, fingerprint):
    mine, other = (BarrierStore(tmp_path / "s.db", fingerprint) for _ in range(2))
    assert mine.news() == ({}, {})
    fill(other, *study[2:])
    states, jumps = mine.news()
    key = "12345678901234567890"
    assert set(states) == {key} and set(jumps) == {(key, 1), (key, 2)}
    assert np.array_equal(states[key].positions, other.states()[key].positions)
    assert mine.news() == ({}, {})


def test_writing_together_is_all_or_nothing(tmp_path, study, fingerprint):
    host, hop = study[2:]
    state, jump, _ = results(host)
    store = BarrierStore(tmp_path / "s.db", fingerprint)
    store.write_state("abc", host, state, carrier=0)

    def again():
        return store.write_state("abc", host, state, carrier=0)

    def new():
        return store.write_jump("abc", 1, host, hop, jump, carrier=0, target=5)

    def broken():
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(StoreError, match="disk is full"):
        store.together([again, new, broken])
    assert len(store) == 0 and set(store.states()) == {"abc"}
    assert store.together([again, new]) == [False, True]
    assert len(store) == 1


def test_failures_are_written_again_if_asked(tmp_path, study, fingerprint):
    host, hop = study[2:]
    _, jump, lost = results(host)
    path = tmp_path / "s.db"
    store = BarrierStore(path, fingerprint)
    store.write_jump("abc", 1, host, hop, lost, carrier=0, target=5)
    assert not store.write_jump("abc", 1, host, hop, jump, carrier=0, target=5)
    again = BarrierStore(path, fingerprint, retry=["not-converged"])
    assert again.jumps() == {} and again.news() == ({}, {})
    assert again.write_jump("abc", 1, host, hop, jump, carrier=0, target=5)
    assert not again.write_jump("abc", 1, host, hop, lost, carrier=0, target=5)  # what is good stays
    (found,) = BarrierStore(path, fingerprint).jumps(positions=True).values()
    assert (found.status, found.reason, found.barrier) == ("ok", "", jump.barrier)
    assert np.array_equal(found.saddle_positions, jump.saddle_positions) and len(again) == 1


def test_locked_database_is_waited_for(tmp_path, study, fingerprint, monkeypatch):
    store = BarrierStore(tmp_path / "s.db", fingerprint)
    real, failures = store._base._db.write, [2]

    def write(*arguments, **keywords):
        if failures[0]:
            failures[0] -= 1
            raise sqlite3.OperationalError("database is locked")
        return real(*arguments, **keywords)

    monkeypatch.setattr(store._base._db, "write", write)
    state = results(study[2])[0]
    store.write_state("abc", study[2], state, carrier=0)
    assert failures == [0] and set(store.states()) == {"abc"}

    def full(*arguments, **keywords):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store._base._db, "write", full)
    with pytest.raises(StoreError, match="disk is full"):
        store.write_state("abd", study[2], state, carrier=0)
    assert set(store.states()) == {"abc"}


def test_server_that_restarts_within_a_transaction_is_waited_for(tmp_path, study, fingerprint, monkeypatch):
    lost = type("InterfaceError", (Exception,), {"__module__": "psycopg2"})
    store = BarrierStore(tmp_path / "s.db", fingerprint)
    state = results(study[2])[0]
    real, dead, calls = store._base._db.write, [], []

    def write(*arguments, **keywords):
        calls.append(1)
        dead.append(store._base._db.connection)
        if dead[-1] is dead[0]:
            raise lost("connection already closed")
        return real(*arguments, **keywords)

    monkeypatch.setattr(store._base._db, "write", write)
    both = [partial(store.write_state, key, study[2], state, carrier=0) for key in ("abc", "abd")]
    assert store.together(one for one in both) == [True, True]
    assert len(calls) == 3 and set(store.states()) == {"abc", "abd"}  # one attempt on the dead connection
    dead.clear()
    monkeypatch.setattr(store._base, "_patience", 0.0)
    with pytest.raises(StoreError, match="connection already closed"):
        store.write_state("abe", study[2], state, carrier=0)


@pytest.mark.parametrize("text", ["cannot read /data/\udcff/POTCAR", "a\0b c", "1.0", "\udcff"])
def test_any_text_can_be_a_reason(tmp_path, study, fingerprint, text):
    store = BarrierStore(tmp_path / "s.db", fingerprint)
    host = study[2]
    state = StateResult("calculator-failed", text, host.positions, np.nan, np.nan, 0, (text,))
    assert store.write_state("abc", host, state, carrier=0)
    read = store.states()["abc"]
    plain = text.replace("\udcff", "?").replace("\0", " ")
    assert read.reason.removeprefix("reason: ") == plain == read.path[0]
