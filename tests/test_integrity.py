"""`ase-kinoson check`: what is damaged is found and said, what is well is left alone; files of older versions."""

import builtins
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import ase.db
import numpy as np
import pytest

from ase_kinoson.barriers.archive import load_barriers
from ase_kinoson.barriers.ensemble import BarrierEnsemble
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.migrations import MIGRATIONS, NoMigrationError, migrate
from ase_kinoson.barriers.saddle import Host, StateResult
from ase_kinoson.barriers.store import BarrierStore
from ase_kinoson.barriers.store_check import check_store, read_row
from ase_kinoson.barriers.store_upgrade import upgrade_store
from ase_kinoson.cli import main
from ase_kinoson.crystal import States
from ase_kinoson.errors import KinosonError, ModelError, StoreError
from ase_kinoson.integrity import check_files
from ase_kinoson.kinosons.kinoson_files import read_kinosons
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.state_chunks import read_states
from ase_kinoson.npz import read_sealed, write_npz
from ase_kinoson.seals import seal, unsealed
from ase_kinoson.stages import Stages
from tests.fuzz import binary_files
from tests.fuzz.bit_flips import flip_bits
from tests.fuzz.good_files import MAKERS, cell_of, files_of, fingerprint_of, network_of, states_of, walkers
from tests.fuzz.running import run

OLDER = Path(__file__).parent / "fixtures" / "older_files.zip"


def lay_out(folder, kind):
    for name, data in files_of(kind).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """Files that earlier versions of the package wrote, with what these versions read in them."""
    folder = tmp_path_factory.mktemp("older")
    zipfile.ZipFile(OLDER).extractall(folder)
    return folder


# -- flipped bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_flipped_bit_is_found_or_changes_nothing(kind):
    found = flip_bits(kind, 200 if kind == "store" else 40, seed=11)
    assert not found.missed, found
    assert found.found > 0.3 * found.tried


def test_the_search_for_missed_bits_sees_a_check_that_looks_at_nothing():
    assert len(flip_bits("relaxation", 5, check=lambda folder: []).missed) == 5
    assert flip_bits("archive", 20, check=lambda folder: []).missed


# -- what check says --------------------------------------------------------------------------------------------------


def test_everything_that_is_written_is_well(tmp_path, capsys):
    for kind in MAKERS:
        lay_out(tmp_path / kind, kind)
    found = check_files(tmp_path)
    assert {f.state for f in found} == {"ok"}, [str(f) for f in found]
    assert main(["check", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told) == len(found) and {"path", "what", "state", "text", "advice"} == set(told[0])
    assert main(["check", "--quiet", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def edit(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(*statement)
        connection.commit()


@pytest.mark.parametrize(
    ("statement", "said", "read"),
    [
        (("UPDATE systems SET energy = energy + 1e-9 WHERE id = 2",), "row 2: its atoms or arrays do not match", False),
        (("DELETE FROM text_key_values WHERE id = 3 AND key = 'kind'",), "row 3: its texts differ", False),
        (
            ("UPDATE number_key_values SET value = 0.5 WHERE id = 2 AND key = 'barrier'",),
            "row 2: its numbers differ",
            True,
        ),  # these copies serve the selections of others
        (
            ("DELETE FROM systems WHERE id = 4",),
            "names rows that are not there",
            True,
        ),  # these copies serve the selections of others
        (("UPDATE systems SET unique_id = 'x' WHERE id = 5",), "row 5: its numbers do not match its digest", False),
        (("UPDATE information SET value = replace(value, 'EMT', 'EAM') WHERE name = 'metadata'",), "changed", False),
        (("CREATE TRIGGER t AFTER INSERT ON systems BEGIN DELETE FROM systems; END",), "the trigger 't'", False),
        (("INSERT INTO information VALUES ('external_table_name', '[\"systems\"]')",), "external_table_name", False),
    ],
)
def test_what_is_wrong_in_a_store_is_said(tmp_path, capsys, statement, said, read):
    path = lay_out(tmp_path, "store") / "barriers.db"
    edit(path, statement)
    before = path.read_bytes()
    assert main(["check", str(path)]) == 1
    told = capsys.readouterr().out
    assert "DAMAGED" in told and said in told, told
    assert path.read_bytes() == before
    if read:
        assert len(read_all(path)) > 0
    else:
        with pytest.raises(StoreError, match=r"expected .*;"):  # and who reads it is told, too
            read_all(path)


def test_statistics_of_a_store_are_not_damage(tmp_path):
    """``ase db FILE --analyse``, which SQLite plans its searches with."""
    path = lay_out(tmp_path, "store") / "barriers.db"
    before = read_all(path)
    with ase.db.connect(path) as db:
        db.analyse()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM sqlite_stat1").fetchone()[0] > 0
    assert check_store(path).wrong == [] and read_all(path).keys() == before.keys()


def test_notes_of_a_user_are_not_damage(tmp_path):
    """``ase db FILE id=2 -k note=x``; a note on top of a changed number hides nothing."""
    path = lay_out(tmp_path, "store") / "barriers.db"
    before = read_all(path)
    with ase.db.connect(path) as db:
        db.update(2, note="look at this one", my=3)
    assert check_store(path).wrong == [] and read_all(path).keys() == before.keys()
    with ase.db.connect(path) as db:
        db.update(2, force_calls=db.get(2).force_calls + 1)
    assert len(check_store(path).wrong) == 1


def test_databases_have_one_zero(tmp_path):
    """SQLite gives 0.0 back for an energy of -0.0, and PostgreSQL for those of arrays, too."""
    path = lay_out(tmp_path, "store") / "barriers.db"
    store = BarrierStore(path, fingerprint_of())
    codes = states_of().occupations[0][::-1].astype(np.int8)  # a state that is not there yet
    key, host = hashlib.sha256(codes.tobytes()).hexdigest()[:20], Host.from_occupation(cell_of(), codes)
    places = host.positions.copy()
    places[0, 0] = -0.0
    empty = int(np.flatnonzero(codes == 0)[0])
    assert store.write_state(key, host, StateResult("ok", "", places, -0.0, 0.0, 1, ("a",), 1.0), carrier=empty)
    assert store.states()[key].energy == 0.0
    report = check_store(path)
    assert report.wrong == [] and report.verified == report.rows
    edit(path, ("UPDATE systems SET energy = 5e-324 WHERE id = (SELECT MAX(id) FROM systems)",))
    with pytest.raises(StoreError, match="its atoms or arrays do not match"):
        store.states()


def read_all(path):
    store = BarrierStore(path, fingerprint_of())
    store.news()
    return {**store.states(), **store.jumps(positions=True)}


def test_numbers_that_contradict_each_other_are_found_without_digests(tmp_path):
    """A barrier that is not saddle minus start: of a version without digests, or of somebody who wrote a new one."""
    path = lay_out(tmp_path, "store") / "barriers.db"
    with closing(sqlite3.connect(path)) as connection:
        for row, text in connection.execute("SELECT id, key_value_pairs FROM systems").fetchall():
            pairs = {k: v for k, v in json.loads(text).items() if k != "digest"}
            if row == 2:
                pairs["barrier"] += 0.001
                edit_number = ("UPDATE number_key_values SET value=? WHERE id=2 AND key='barrier'", (pairs["barrier"],))
                connection.execute(*edit_number)
            connection.execute("UPDATE systems SET key_value_pairs=? WHERE id=?", (json.dumps(pairs), row))
            connection.execute("DELETE FROM text_key_values WHERE id=? AND key='digest'", (row,))
            connection.execute("DELETE FROM keys WHERE id=? AND key='digest'", (row,))
        connection.commit()
    report = check_store(path)
    assert report.verified == 0 and len(report.wrong) == 1 and "its barrier is" in report.wrong[0], report


def test_mixed_up_files_are_found(tmp_path):
    """Each file is whole; together they are wrong."""
    lay_out(tmp_path / "a", "kinosons")
    shutil.copy(tmp_path / "a" / "kinosons-000000-0000.npz", tmp_path / "a" / "kinosons-000001-0000.npz")
    with pytest.raises(KinosonError, match="was written as kinosons-000000-0000"):
        list(read_kinosons(tmp_path / "a"))
    lay_out(tmp_path / "b", "states")
    shutil.copy(tmp_path / "b" / "states-000000.npz", tmp_path / "b" / "states-000001.npz")
    with pytest.raises(KinosonError, match="was written as chunk 0"):
        list(read_states(tmp_path / "b", cell_of()))
    lay_out(tmp_path / "c", "model")
    (tmp_path / "c" / "model.safetensors").write_bytes(files_of("linear model")["model.safetensors"])
    assert [f.state for f in check_files(tmp_path / "c" / "model")] == ["damaged"]
    (tmp_path / "c" / "model.safetensors").unlink()
    assert "found no file" in str(check_files(tmp_path / "c")[0])


def test_tables_belong_to_their_summary(tmp_path):
    import hashlib

    (tmp_path / "kinosons.csv").write_text("a,b\n1,2\n")
    digest = hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    data = {"format": "ase_kinoson.summary/1", "files": {"kinosons.csv": digest}}
    (tmp_path / "summary.json").write_text(json.dumps(seal(data)))
    assert [f.state for f in check_files(tmp_path)] == ["ok"]
    (tmp_path / "kinosons.csv").write_text("a,b\n1,3\n")
    assert "kinosons.csv is not the file that was written" in check_files(tmp_path)[0].text
    for name in ("../x", "/etc/passwd", "a/b/c", "c:\\x", ""):
        (tmp_path / "summary.json").write_text(json.dumps(seal({**data, "files": {name: digest}})))
        assert "none of its folder" in check_files(tmp_path)[0].text


def test_bad_usage_ends_with_two(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing of ours")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "missing"):
        assert main(["check", str(path)]) == 2
        assert "expected" in capsys.readouterr().err
    assert main(["upgrade", str(tmp_path / "notes.txt")]) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


def test_check_imports_no_calculator_and_opens_nothing_for_writing(tmp_path, monkeypatch):
    for kind in ("store", "model", "archive", "summary"):
        lay_out(tmp_path / kind, kind)
    for name in [n for n in sys.modules if n.startswith("ase_kinoson.calculators")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.open

    def watched(file, mode="r", *args, **kwargs):
        assert not set(mode) & set("wax+"), (file, mode)
        return real(file, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watched)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert {f.state for f in check_files(tmp_path)} == {"ok"}
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert not [n for n in sys.modules if n.startswith("ase_kinoson.calculators")]


# -- digests and versions ---------------------------------------------------------------------------------------------


def test_digests_say_what_they_are_of():
    data = seal({"b": 1.5, "a": [1, 2], "n": {"x": None}})
    assert unsealed(data) == "" and unsealed(dict(reversed(data.items()))) == ""
    assert unsealed(json.loads(json.dumps(data, indent=3))) == ""
    assert "damaged" in unsealed({**data, "b": np.nextafter(1.5, 2)})
    assert "only one" in unsealed({k: v for k, v in data.items() if k != "seal"})
    assert "only one" in unsealed({k: v for k, v in data.items() if k != "digest"})
    assert "version 2" in unsealed({**data, "seal": 2})
    assert unsealed({"b": 1.5}) == ""  # of a version without digests


def test_arrays_come_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(3)
    arrays = {
        "a/b": rng.normal(size=(3, 4)),
        "order": np.asfortranarray(rng.integers(0, 9, (4, 3))),
        "none": np.zeros((0, 5)),
        "one": np.array(2.5),
        "flags": rng.normal(size=7) > 0,
        "words": np.array(["Cu", "Ni", "é"]),
        "bytes": np.array([b"x", b"yz"]),
        "small": rng.normal(size=5).astype(np.float32),
        "nan": np.array([np.nan, np.inf, -0.0]),
    }
    for compress in (False, True):
        write_npz(tmp_path / "some.npz", {"format": "x"}, arrays, compress=compress)
        about, found = read_sealed(tmp_path / "some.npz")
        assert about["format"] == "x" and set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", ["model", "ensemble", "relaxation"])
def test_newer_models_name_the_version_to_install(tmp_path, kind):
    (about,) = lay_out(tmp_path, kind).glob("*.json")
    data = json.loads(about.read_text())
    about.write_text(json.dumps({**data, "version": 3, "written_by": "7.1.0"}))
    with pytest.raises(ModelError, match=r"version 3 .* at most [12]; install ase-kinoson 7\.1\.0 or newer"):
        if kind == "relaxation":
            Relaxation.load(about, network_of())
        else:
            (BarrierModel if kind == "model" else BarrierEnsemble).load(about)


def test_newer_stores_and_archives_are_refused(tmp_path):
    path = lay_out(tmp_path, "store") / "barriers.db"
    with closing(sqlite3.connect(path)) as connection:
        (text,) = connection.execute("SELECT value FROM information WHERE name='metadata'").fetchone()
        data = json.loads(text)
        data["ase_kinoson"]["format"] = 3
        connection.execute("UPDATE information SET value=? WHERE name='metadata'", (json.dumps(seal(data)),))
        connection.commit()
    with pytest.raises(StoreError, match=r"version 3 .* install ase-kinoson"):
        BarrierStore(path, fingerprint_of())
    with pytest.raises(StoreError, match=r"version 3 .* install ase-kinoson"):
        upgrade_store(path)
    assert "version 3" in str(check_files(path)[0])
    archive = lay_out(tmp_path, "archive") / "some.npz"
    head, arrays = read_sealed(archive, name="head")
    write_npz(archive, {**head, "version": 2, "written_by": "3.0"}, arrays, name="head")
    with pytest.raises(KinosonError, match=r"version 2 .* install ase-kinoson 3\.0 or newer"):
        load_barriers(archive)


# -- files of older versions ------------------------------------------------------------------------------------------


def test_files_without_digests_give_the_same_bits(older):
    """Written and read by the last version that wrote no digests."""
    folder = older / "undigested"
    expected = np.load(folder / "expected.npz")
    states = states_of(3)
    assert np.array_equal(BarrierModel.load(folder / "model" / "model").predict(states), expected["model"])
    assert np.array_equal(BarrierEnsemble.load(folder / "ensemble" / "models").predict(states), expected["ensemble"])
    relaxation = Relaxation.load(folder / "relaxation" / "relaxation", network_of())
    assert np.array_equal(relaxation(states.occupations, states.carriers), expected["relaxation"])
    found = load_barriers(folder / "archive" / "some.npz")
    assert np.array_equal(found.barrier, expected["archive"])
    assert np.array_equal(found.reverse_barrier, expected["archive_reverse"])
    with pytest.warns(Warning, match="was that of an older version"):
        weights = [chunk.weights for chunk, _ in read_states(folder / "states", cell_of())]
    assert np.array_equal(np.concatenate(weights), expected["states"])
    run = walkers()
    run.load(folder / "checkpoint" / "run.npz")
    run.run(20)
    assert np.array_equal(run.displacements, expected["checkpoint"]) and np.array_equal(run.times, expected["times"])
    store = BarrierStore(folder / "store" / "barriers.db", fingerprint_of())
    jumps = store.jumps(positions=True)
    assert np.array_equal(
        [[jumps[k].barrier, jumps[k].reverse_barrier] for k in sorted(jumps)], expected["store"], True
    )
    saddles = [jumps[k].saddle_positions for k in sorted(jumps) if jumps[k].saddle_positions is not None]
    assert np.array_equal(saddles, expected["store_saddles"])
    assert np.array_equal(States.load(folder / "mson" / "states.json").weights, expected["mson"])
    assert {f.state for f in check_files(folder)} <= {"note", "unknown"}


@pytest.mark.parametrize("hidden", [0, 3])
def test_models_of_layout_1_predict_what_they_predicted(older, hidden):
    """Weights are the same; sums run in another order since then, and single precision is the default now."""
    folder = older / "layout-1"
    model = BarrierModel.load(folder / f"model-1-{hidden}")
    expected = np.load(folder / f"model-1-{hidden}-expected.npz")
    found = model.with_precision("double").jump_energies(expected["occupations"], expected["carriers"])
    np.testing.assert_allclose(found.barrier, expected["barrier"], rtol=0, atol=2e-15)
    np.testing.assert_allclose(found.delta_e, expected["delta_e"], rtol=0, atol=2e-15)
    single = model.jump_energies(expected["occupations"], expected["carriers"]).barrier
    np.testing.assert_allclose(single, expected["barrier"], rtol=0, atol=2e-6)


def test_without_its_migration_an_old_model_would_be_wrong(older, monkeypatch):
    """The twin that only raises the number."""

    def raised(parts):
        return {**parts[0], "version": 2, "carrier": None}, parts[1]

    monkeypatch.setitem(MIGRATIONS, ("ase_kinoson.BarrierModel", 1), raised)
    expected = np.load(older / "layout-1" / "model-1-3-expected.npz")
    model = BarrierModel.load(older / "layout-1" / "model-1-3").with_precision("double")
    found = model.jump_energies(expected["occupations"], expected["carriers"])
    assert np.abs(found.barrier - expected["barrier"]).max() > 1e-4


def test_relaxations_of_layout_1_give_what_they_gave(older):
    relaxation = Relaxation.load(older / "layout-1" / "relaxation-1", network_of())
    expected = np.load(older / "layout-1" / "relaxation-1-expected.npz")
    found = relaxation(expected["occupations"], expected["carriers"])
    np.testing.assert_allclose(found, expected["y"], rtol=0, atol=1e-8)  # single precision


def test_a_store_of_format_1_is_upgraded_beside_a_copy(older, tmp_path, capsys):
    path = Path(shutil.copy(older / "layout-1" / "store-1.db", tmp_path / "s.db"))
    whole = rows_of(path)
    with pytest.raises(StoreError, match=r"older version.*run 'ase-kinoson upgrade .*', which keeps a copy"):
        BarrierStore(path, fingerprint_of())
    assert main(["upgrade", str(path)]) == 0
    assert "s.db.format-1" in capsys.readouterr().out
    assert rows_of(tmp_path / "s.db.format-1") == whole
    assert [f.state for f in check_files(path)] == ["ok"]
    assert upgrade_store(path) is None and len(list(tmp_path.iterdir())) == 2
    expected = json.loads((older / "layout-1" / "store-1-expected.json").read_text())
    jumps = []
    for row in raw_rows(path):
        pairs = row.key_value_pairs
        key = pairs["state_key"].removeprefix("state-")
        if pairs["kind"] == "state":
            assert pairs["energy_initial"].hex() == expected["states"][key]["energy"]
        elif pairs["status"] == "ok":
            jumps.append([key, pairs["jump_index"], pairs["barrier"].hex(), pairs["reverse_barrier"].hex()])
    wanted = [[k, j, b, r] for k, j, status, b, r, _ in expected["jumps"] if status == "ok"]
    assert sorted(jumps) == sorted(wanted)


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(older, tmp_path, monkeypatch):
    path = Path(shutil.copy(older / "layout-1" / "store-1.db", tmp_path / "s.db"))
    whole = path.read_bytes()
    real = MIGRATIONS["ase_kinoson barrier store", 1]

    def fails(connection):
        real(connection)
        raise sqlite3.OperationalError("disk is full")

    monkeypatch.setitem(MIGRATIONS, ("ase_kinoson barrier store", 1), fails)
    with pytest.raises(StoreError, match="it is as it was"):
        upgrade_store(path)
    assert path.read_bytes() == whole


def test_ways_that_are_not_known():
    for found in (0, 3, True, "1", None, 1.0):
        with pytest.raises(NoMigrationError):
            migrate("ase_kinoson.BarrierModel", found, 2, ({}, b""))
    with pytest.raises(NoMigrationError):
        migrate("something", 1, 2, None)


def raw_rows(path):
    with closing(sqlite3.connect(path)) as connection:
        return [read_row(values) for values in connection.execute("SELECT * FROM systems ORDER BY id")]


def rows_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM systems ORDER BY id").fetchall()


def test_damaged_stores_are_upgraded_whole_or_not_at_all(older, tmp_path):
    rng = np.random.default_rng(5)
    whole = (older / "layout-1" / "store-1.db").read_bytes()
    busy = np.flatnonzero(np.frombuffer(whole, np.uint8))
    path, refused = tmp_path / "s.db", 0
    for _ in range(25):
        data = bytearray(whole)
        for place in rng.choice(busy, rng.integers(1, 30)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            copy = upgrade_store(path)
        except StoreError as error:
            assert "\n" not in str(error)
            refused += 1
            assert path.read_bytes() == data
        else:
            assert copy is not None
        for file in tmp_path.glob("s.db?*"):
            file.unlink()
    assert refused > 10


# -- hostile files: more of them with KINOSON_FUZZ=N ------------------------------------------------------------------


@pytest.mark.parametrize("target", binary_files.ALL, ids=lambda t: t.name)
def test_hostile_files_are_refused_in_one_sentence(target):
    found = run(target, int(os.environ.get("KINOSON_FUZZ", "25")), seed=3)
    assert found.dirty == 0, found
    assert found.refused > 0


def test_the_search_for_silent_acceptance_sees_a_reader_that_verifies_nothing(monkeypatch):
    """The twin: without digests, other numbers pass for those that were saved."""
    monkeypatch.setattr("ase_kinoson.barriers.model_file.unsealed", lambda about: "")
    found = run(binary_files.RELAXATIONS, 60, seed=1)
    assert found.dirty > 0 and any("other content was accepted" in f.what for f in found.findings), found


def test_the_stamp_beside_a_model_is_a_stamp(tmp_path):
    """Models of rounds of learning lie beside the stamps of their stages."""
    stages = Stages(tmp_path)
    stages.begin("model-round-1")
    stages.stamp("model-round-1").with_suffix(".safetensors").write_bytes(b"weights")
    stages.finish("model-round-1", "key", 0.0, [])
    (found,) = check_files(stages.stamp("model-round-1"))
    assert (found.what, found.state) == ("stamp of a stage", "ok")
    stages.stamp("model-round-1").write_text("{")
    (found,) = check_files(stages.stamp("model-round-1"))
    assert (found.what, found.state) == ("stamp of a stage", "damaged")
