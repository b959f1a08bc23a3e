"""Negative controls of the fuzzing itself: what must not happen is planted, and must be seen."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ase_kinoson.errors import KinosonError
from tests.fuzz.mutation import mutate
from tests.fuzz.running import Target, make_case, replay, run

SENTENCE = "found this; expected that; correct it"


def refuse(folder, reached):
    reached()
    raise KinosonError(SENTENCE)


def write(folder, reached):
    (folder / "new").write_text("x")


def write_and_refuse(folder, reached):
    (folder / "a").write_bytes(b"other")
    raise KinosonError(SENTENCE)


def write_elsewhere(folder, reached):
    with tempfile.TemporaryDirectory():
        pass


def hide_memory(folder, reached):
    try:
        bytes(2**31)
    except Exception as error:
        raise KinosonError(SENTENCE) from error


PLANTED = {
    "crash": lambda folder, reached: [][1],
    "written": write,
    "written, refused": write_and_refuse,
    "written, elsewhere": write_elsewhere,
    "written, removed": lambda folder, reached: (folder / "a").unlink(),
    "slow": lambda folder, reached: [None for _ in iter(int, 1)],
    "slow, waiting": lambda folder, reached: time.sleep(60),
    "memory": lambda folder, reached: bytes(2**31),
    "memory, hidden": hide_memory,
    "code": lambda folder, reached: eval("1 + 1"),
    "code, unpickled": lambda folder, reached: pickle.loads(b"cos\ngetcwd\n."),
    "process": lambda folder, reached: subprocess.run(["true"], check=True),
    "state": lambda folder, reached: sys.path.append("x"),
    "state, folder": lambda folder, reached: os.chdir("/"),
    "unclear": lambda folder, reached: (_ for _ in ()).throw(KinosonError("no")),
    "unclear, long": lambda folder, reached: (_ for _ in ()).throw(PlainError(SENTENCE + 5000 * "x")),
    "unclear, terminal": lambda folder, reached: (_ for _ in ()).throw(PlainError(SENTENCE + "\x1b[31m")),
}


class PlainError(KinosonError):
    """Without the clean-up of the base class."""

    def __init__(self, text: str) -> None:
        ValueError.__init__(self, text)


def target(use, **options) -> Target:
    return Target("planted", lambda rng: {"a": rng.randbytes(20)}, use, **options)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_defect_is_dirty(kind, tmp_path):
    seconds = 0.2 if "slow" in kind else 20.0
    found = run(target(PLANTED[kind], seconds=seconds, megabytes=512), 2, keep=tmp_path)
    assert (found.cases, found.dirty, found.accepted, found.refused) == (2, 2, 0, 0)
    assert list(found.kinds) == [kind.partition(",")[0]]
    assert Path(found.findings[0].saved, "a").read_bytes() == make_case(target(None), 0, 0)["a"]


def test_refusals_and_acceptance_are_told_apart():
    found = run(target(refuse), 5)
    assert (found.refused, found.beyond, found.dirty) == (5, 5, 0)
    found = run(target(lambda folder, reached: (folder / "a").read_bytes()), 5)
    assert (found.accepted, found.beyond, found.dirty) == (5, 0, 0)
    assert replay(target(refuse), {"a": b""}).what == SENTENCE


def test_a_case_is_the_same_again():
    one = target(refuse)
    assert make_case(one, 3, 7) == make_case(one, 3, 7) != make_case(one, 3, 8)


def test_mutations_change_and_repeat():
    data = b"a = 1\nb = [1, 2, 3]\n" * 5
    made = [mutate(data, random.Random(i)) for i in range(200)]
    assert made == [mutate(data, random.Random(i)) for i in range(200)]
    assert sum(m != data for m in made) > 180 and len(set(made)) > 150
