"""Files that are there whole or not at all; stages that two processes compute; jobs that are killed."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest

from ase_kinoson import stages as stages_module
from ase_kinoson.errors import KinosonError
from ase_kinoson.integrity import check_files
from ase_kinoson.stages import Stages
from ase_kinoson.study import Study
from ase_kinoson.whole_files import remove_leftovers, replace_file
from tests.faults.forks import Nursery, scratch
from tests.faults.long_victims import prepare
from tests.faults.studies import Job, in_place, killed, no_space

# -- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_the_old_one_until_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.json"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    with replace_file(tmp_path / "link") as temporary:
        temporary.write_text("a")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").read_text() == "a"


def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError, match=r"No space left.*expected free space.*a\.json") as error, replace_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(PermissionError), replace_file(path):  # of another file: as it is
        raise PermissionError(errno.EACCES, "no", "elsewhere")


HOLD = """
import os, signal, sys
from pathlib import Path
from ase_kinoson.whole_files import replace_file
with replace_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("half", flush=True)
    sys.stdin.read()
"""


def test_leftovers_of_killed_processes_are_removed_and_those_of_living_ones_are_not(tmp_path):
    path = tmp_path / "a.json"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "half\n"
    (left,) = os.listdir(tmp_path)
    assert remove_leftovers(tmp_path) == [] and os.listdir(tmp_path) == [left]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (tmp_path / ".mine.tmp").write_text("not of this package")
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / left, tmp_path / "b" / left)
    assert remove_leftovers(tmp_path) == [left] and sorted(os.listdir(tmp_path)) == [".mine.tmp", "b"]
    with replace_file(tmp_path / "b" / "other.json") as temporary:  # whoever writes there next takes it away, too
        assert os.listdir(tmp_path / "b") == [temporary.name]
        temporary.write_text("{}")
    assert os.listdir(tmp_path / "b") == ["other.json"]


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked_gets_another_name(tmp_path, monkeypatch):
    real, taken = os.open, []

    def slow(name, *args):  # the other process removes the file between its making and its lock
        handle = real(name, *args)
        if not taken and str(name).endswith(".tmp.json"):
            taken.append("")
            taken[:] = remove_leftovers(tmp_path)
        return handle

    monkeypatch.setattr(os, "open", slow)
    with replace_file(tmp_path / "a.json") as temporary:
        assert len(taken) == 1 and temporary.name != taken[0]
        with open(temporary, "r+") as handle:  # it is there, and locked
            handle.write("whole")
        assert remove_leftovers(tmp_path) == []
    assert (tmp_path / "a.json").read_text() == "whole"


# -- stages -----------------------------------------------------------------------------------------------------------


OLD_STAMP = ("fingerprint", "wall_s", "warnings")


def stage(stages, key="k", other=None):
    """One stage; another process may do something at the moments that matter."""
    path = stages.folder / "stages" / "a.json"

    def compute():
        if other == "computes":
            stage(Stages(stages.folder), key)
        return {"x": 1}

    def save(value):
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(value))

    def load():
        if other in ("begins", "changes"):
            Stages(stages.folder).begin("a")
        if other == "changes":
            Stages(stages.folder).finish("a", "another key", 0.0, [])
        return json.loads(path.read_text())

    return stages.run("a", key, title="a", compute=compute, save=save, load=load)


@pytest.mark.parametrize("other", [None, "computes", "begins"])
def test_two_processes_on_one_stage(tmp_path, other):
    stages = Stages(tmp_path)
    assert stage(stages, other=other) == {"x": 1} and stages.warnings == {"a": []}
    assert stage(Stages(tmp_path)) == {"x": 1}


def test_another_study_in_the_same_folder_is_seen(tmp_path):
    with pytest.raises(KinosonError, match="with other settings meanwhile; expected one study per folder"):
        stage(Stages(tmp_path), other="changes")


@pytest.mark.parametrize("stamp", ["new", "old"])
def test_a_text_file_of_a_stage_that_was_changed_is_seen(tmp_path, monkeypatch, stamp):
    monkeypatch.setattr(stages_module, "_PAUSE_S", 0.0)
    stage(Stages(tmp_path))
    assert [f.state for f in check_files(tmp_path)] == ["ok"]
    (tmp_path / "stages" / "a.json").write_text('{"x": 2}')
    if stamp == "old":  # of a version that knew no digests of files: nothing can be said
        file = Stages(tmp_path).stamp("a")
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k in OLD_STAMP}))
        assert stage(Stages(tmp_path)) == {"x": 2}
        return
    with pytest.raises(KinosonError, match=r"a\.json is not the file that was written.*or delete .*a\.stamp"):
        stage(Stages(tmp_path))
    assert "a.json is not the file" in check_files(tmp_path)[0].text
    (tmp_path / "stages" / "a.json").unlink()
    assert "a.json is missing" in check_files(tmp_path)[0].text


@pytest.mark.parametrize("text", ["", "{", '{"fingerprint": "k"}', "[]", '{"fingerprint": "k", "wall_s": "x"}'])
def test_half_a_stamp_is_none(tmp_path, text):
    stage(Stages(tmp_path))
    Stages(tmp_path).stamp("a").write_text(text)
    stages = Stages(tmp_path)
    assert stage(stages) == {"x": 1} and stages.resumed == []


def test_a_misspelt_calculator_is_seen_before_anything_is_written(tmp_path):
    out = prepare(tmp_path)
    text = (tmp_path / "study.toml").read_text().replace("emt.EMT", "emt.ETM")
    (tmp_path / "study.toml").write_text(text)
    study = Study.from_toml(tmp_path / "study.toml", out)
    for method in (study.run, study.barriers, study.fit):
        with pytest.raises(KinosonError, match=r"cannot import .*ETM"):
            method()
    assert not out.exists()


# -- jobs that are killed ---------------------------------------------------------------------------------------------


def test_maps_and_trajectories_are_killed():
    rng = random.Random(0)
    with scratch() as folder, Nursery(("tests.faults.long_victims:warm_small",)) as nursery:
        for what in ("points", "walks", "stream"):
            job = Job(nursery, folder, what)
            for tally, faults in ((killed(job, 3, rng), 3), (no_space(job, 1, rng), 1)):
                outcome = tally.outcome()
                assert outcome.problems == () and outcome.survived == outcome.faults >= faults
            if what == "walks":  # a package that writes in place is seen
                assert in_place(job, 4, rng).outcome().lost > 0
