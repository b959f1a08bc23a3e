"""How properties are run: few fixed examples in the test suite, many new ones on demand.

`holds` runs a property; `breaks` runs it on a twin that is wrong in one way and asks for a counterexample.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("KINOSON_EXAMPLES", "0"))
"""Examples of every property, drawn anew each time; 0: the few fixed ones of the test suite."""


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


def holds(check: Callable[..., None], *strategies: st.SearchStrategy, n: int = 10) -> None:
    """Run a property on ``n`` examples."""

    @profile(n)
    @given(st.tuples(*strategies))
    def run(drawn: tuple[Any, ...]) -> None:
        check(*drawn)

    run()


def breaks(check: Callable[..., None], *strategies: st.SearchStrategy, n: int = 30) -> None:
    """Ask for a counterexample among ``n`` examples: the property must see what is wrong with its subject."""

    @profile(n, twin=True)
    @given(st.tuples(*strategies))
    def run(drawn: tuple[Any, ...]) -> None:
        check(*drawn)

    with pytest.raises(AssertionError):
        run()
