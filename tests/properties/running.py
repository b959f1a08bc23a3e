"""How properties are run: few fixed examples in the test suite, many new ones on demand.

`holds` runs a property; `breaks` runs it on a twin that is wrong in one way and asks for a counterexample. With
KINOSON_PROPERTIES_REPORT=path both append what they did, one line of JSON each; tests.properties.counts adds them up.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("KINOSON_EXAMPLES", "0"))
"""Examples of every property, drawn anew each time; 0: the few fixed ones of the test suite."""

REPORT = "KINOSON_PROPERTIES_REPORT"
"""Environment variable with the file to which `holds` and `breaks` append."""

CHECKS = ("tests/properties/", "ase_kinoson/testing/")
"""Where the assertion that finds a counterexample stands."""

DRAWING = "strategies.py"
"""Assertions there are about the drawing of examples: they find nothing."""


def profile(n: int, *, twin: bool = False) -> settings:
    """Fixed examples, the same in every run, unless KINOSON_EXAMPLES asks for more; twins are not shrunk."""
    more = EXAMPLES > 0 and not twin
    return settings(
        max_examples=EXAMPLES if more else n,
        deadline=None,
        derandomize=not more,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if twin else [Phase.generate, Phase.shrink],
    )


class _Counted:
    """Calls a property on each example drawn and counts those it went through; `hypothesis.assume` rejects some."""

    def __init__(self, check: Callable[..., None]) -> None:
        self.check, self.examples, self.begun = check, 0, time.perf_counter()

    def __call__(self, drawn: tuple[Any, ...]) -> None:
        self.check(*drawn)
        self.examples += 1

    def note(self, **found: Any) -> None:
        """Append one line to the report, if one is wanted."""
        path = os.environ.get(REPORT)
        if not path:
            return
        line = {
            "property": name_of(self.check),
            "test": os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0],
            "examples": self.examples,
            "seconds": round(time.perf_counter() - self.begun, 3),
            **found,
        }
        # one write of one short line to a file opened for appending: workers do not mix up their lines
        with Path(path).open("ab", buffering=0) as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def name_of(check: Callable[..., None]) -> str:
    """Module and name of a property: of the function that makes the check, if one does."""
    check = check.func if isinstance(check, functools.partial) else check
    return f"{check.__module__.rpartition('.')[2]}.{check.__qualname__.partition('.<locals>')[0]}"


def holds(check: Callable[..., None], *strategies: st.SearchStrategy, n: int = 10) -> None:
    """Run a property on ``n`` examples."""
    counted = _Counted(check)
    held = False
    try:
        profile(n)(given(st.tuples(*strategies))(lambda drawn: counted(drawn)))()
        held = True
    finally:
        counted.note(held=held)


def breaks(check: Callable[..., None], *strategies: st.SearchStrategy, n: int = 30) -> None:
    """Ask for a counterexample among ``n`` examples: the property must see what is wrong with its subject.

    The assertion that fails must be one of the property: neither of the package nor of the drawing of examples.
    """
    counted = _Counted(check)
    caught = False
    try:
        with pytest.raises(AssertionError) as found:
            profile(n, twin=True)(given(st.tuples(*strategies))(lambda drawn: counted(drawn)))()
        where = Path(str(found.traceback[-1].path)).as_posix()
        caught = any(part in where for part in CHECKS) and not where.endswith(DRAWING)
        assert caught, f"found an assertion of {where}; expected one of the property: this twin shows nothing"
    finally:
        counted.note(caught=caught)
