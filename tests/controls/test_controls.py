"""Each physical assertion fails where the physics is wrong, and what is wrong is really planted."""

from __future__ import annotations

import os

import pytest

from tests.controls import floors
from tests.controls.control import Control
from tests.controls.counts import NotInstalledError, caught_by, public_assertions, refusals
from tests.controls.defects import DEFECTS
from tests.controls.nested import ROOT, Server
from tests.controls.planting import source
from tests.controls.public_checks import CHECKS
from tests.controls.table import CONTROLS, NAMED

ALL = os.environ.get("KINOSON_CONTROLS") == "all"
"""All controls take a quarter of an hour; the test suite runs the quick ones of the mistakes made most easily."""

OFTEN = {
    *NAMED,
    "detailed balance broken",
    "every jump counted twice",
    "factor d forgotten",
    "jump vector of the wrong sign",
    "k_BT one per cent too large",
    "relaxed jumps that are no difference",
    "translation drift",
}


def chosen():
    """All of them, or the first quick one of each defect that is made often."""
    if ALL:
        return list(CONTROLS)
    first: dict[str, Control] = {}
    for control in CONTROLS:
        if control.defect in OFTEN and not control.slow and control.by == "assertion":
            first.setdefault(control.defect, control)
    return list(first.values())


@pytest.fixture(scope="module")
def server():
    if not hasattr(os, "fork"):
        pytest.skip("planting defects takes processes that can be forked")
    with Server() as running:
        yield running


@pytest.mark.parametrize(
    "control",
    [c for c in CONTROLS if ALL or not (c.slow or c in floors.CONTROLS)],
    ids=lambda c: f"{c.assertion.rpartition('::')[2]}, {c.defect}",
)
def test_the_assertion_notices_the_defect(control, server):
    try:
        failed = caught_by(server, control)
    except NotInstalledError as missing:
        pytest.skip(str(missing))
    assert failed, f"{control.assertion} passes with a defect planted: {DEFECTS[control.defect].says}"


def test_a_control_that_is_not_caught_is_seen(server):
    """Nothing planted, and a defect that has nothing to do with the assertion."""
    test = "tests/crystal/test_jumps.py::test_number_of_jumps_and_classes"
    assert not caught_by(server, Control("", test))
    assert not caught_by(server, Control("k_BT one per cent too large", test))


def test_a_control_that_fails_for_another_reason_is_seen(server):
    """A refusal is not an assertion, nor an accident of planting a refusal."""
    test = "tests/crystal/test_minimum_image.py::test_atoms_of_a_skewed_cell_are_found"
    assert not caught_by(server, Control("wrong minimum image", test))
    assert caught_by(server, Control("wrong minimum image", test, by="refused"))
    assert not caught_by(server, Control("wrong minimum image", test, by="TypeError"))
    assert {"BarrierError", "AtomsMappingError", "LooseBound"} <= set(refusals())
    assert not {"TypeError", "NameError", "ImportError", "AssertionError"} & set(refusals())


def test_a_control_that_does_not_run_is_an_error(server):
    with pytest.raises(RuntimeError, match="found no test to run"):
        server.run("", ["tests/crystal/test_jumps.py::test_of_nothing"])


@pytest.mark.parametrize("part", floors.PARTS, ids=lambda part: part.__name__.rpartition(".")[2])
def test_no_control_of_a_floor_is_stale(part):
    """Those that are not run every time: the text that is replaced is there, and so is the test."""
    for name, defect in part.DEFECTS.items():
        try:
            defect.check()
        except (LookupError, AttributeError, NameError, SyntaxError, ValueError) as problem:
            raise AssertionError(f"{name!r} cannot be planted: {problem}") from problem
    for control in part.CONTROLS:
        file, _, name = control.assertion.partition("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), control.assertion
    with pytest.raises(LookupError, match="expected once"):
        source("none", "units:thermal_energy", "a text that is not there", "").check()
    with pytest.raises(NameError, match="no_such_name"):  # a defect that crashes is no wrong number
        source("none", "units:thermal_energy", "return", "no_such_name; return").check()


def test_defects_that_must_be_there_are_planted_and_none_is_idle():
    planted = {control.defect for control in CONTROLS}
    assert set(NAMED) <= planted
    assert planted == set(DEFECTS)
    assert {control.defect for control in chosen()} >= OFTEN


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: f"{c.assertion}, {c.defect}")
def test_a_public_assertion_notices_the_defect(check):
    assert check.good() >= 0  # and tells a number where all is well
    with pytest.raises(AssertionError, match=r"found .*expected .*;"):
        check.bad()


def test_every_public_assertion_has_a_control():
    assert {check.assertion for check in CHECKS} == public_assertions()
