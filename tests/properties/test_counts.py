"""Every property has a broken twin, and what is counted is what was run."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from tests.properties import running
from tests.properties.counts import HERE, count, read, without_twin
from tests.properties.running import breaks, holds
from tests.properties.strategies import View, networks, views


@pytest.mark.parametrize("file", sorted(p.name for p in HERE.glob("test_*.py") if p.name != "test_counts.py"))
def test_every_property_has_a_broken_twin(file):
    assert without_twin((HERE / file).read_text(encoding="utf-8")) == set()


def test_a_property_without_a_twin_is_noticed():
    source = """
def test_one():
    holds(first(1), a)

def test_two():
    check = second(2)
    holds(check, a)

def test_three():
    breaks(first(3), a)

def test_four():
    holds(lambda x: None, a)
"""
    assert without_twin(source) == {"second", "test_four: its own check"}


def below(limit):
    def check(x):
        assume(x % 2 == 0)
        assert x < limit

    return check


def test_a_report_counts_the_examples_that_were_gone_through(tmp_path, monkeypatch):
    path = tmp_path / "report.jsonl"
    monkeypatch.setenv(running.REPORT, str(path))
    monkeypatch.setattr(running, "EXAMPLES", 0)
    numbers = st.integers(0, 99)
    holds(below(100), numbers, n=12)
    breaks(below(10), numbers)
    with pytest.raises(AssertionError):
        holds(below(10), numbers, n=40)
    with pytest.raises(pytest.fail.Exception):  # a twin that is not caught
        breaks(below(100), numbers)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line.get("held"), line.get("caught")) for line in lines] == [
        (True, None), (None, True), (False, None), (None, False)
    ]  # fmt: skip
    assert lines[0]["examples"] == 12  # those that were rejected are not among them
    (found,) = read(path)
    assert (found.name, found.tests, found.twins, found.caught, found.held) == ("test_counts.below", 2, 2, 1, False)
    total = count([found])
    assert total["failed"] == total["not_caught"] == ["test_counts.below"] and total["without_twin"] == []


def test_an_assertion_about_the_drawing_is_no_counterexample(monkeypatch):
    """A crystal that is stretched does not fit the supercell: what draws examples says so, and no property does."""
    right = View.of

    def stretched(self, atoms):
        found = right(self, atoms)
        found.set_cell(found.cell * 1.001, scale_atoms=True)
        return found

    monkeypatch.setattr(View, "of", stretched)
    with pytest.raises(AssertionError, match="this twin shows nothing"):
        breaks(lambda recipe, view: view.network(recipe), networks(("sc",)), views, n=3)
