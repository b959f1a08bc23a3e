"""How many controls there are, and how many of them are caught: what the benchmark of reliability prints."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ase_kinoson.errors import KinosonError, KinosonWarning
from tests.controls.control import REFUSED, Control
from tests.controls.nested import Server
from tests.controls.public_checks import CHECKS
from tests.controls.table import CONTROLS

ASSERTIONS = ("AssertionError", "Failed")
"""What a test raises that finds something: assert, or an error or warning that did not come."""


class NotInstalledError(Exception):
    """The test is skipped on this machine: a package that it needs is missing."""


def caught_by(server: Server, control: Control) -> bool:
    """Whether the test failed while it ran, in the way that the table says.

    Raises
    ------
    NotInstalledError
        If the test was skipped.
    """
    outcomes = server.run(control.defect, [control.assertion])
    if all(o.error == "Skipped" for o in outcomes):
        raise NotInstalledError(f"{control.assertion}: {outcomes[0].message}")
    failed = [o for o in outcomes if not o.passed and o.error != "Skipped"]
    if not failed or failed[0].when != "call":
        return False
    kind = {"assertion": ASSERTIONS, REFUSED: refusals()}.get(control.by, (control.by,))
    return failed[0].error in kind


@cache
def refusals() -> tuple[str, ...]:
    """What the package raises of bad input, or warns of; a ``TypeError`` of a defect badly planted is none of it."""
    mine = (KinosonError, KinosonWarning)
    modules = import_module("ase_kinoson.errors"), import_module("ase_kinoson.calculators")
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return tuple(value.__name__ for value in found if issubclass(value, mine))


def public_assertions() -> set[str]:
    """Names of all assertions that the package offers."""
    from ase_kinoson import testing

    return {name for name in testing.__all__ if name.startswith("assert_")}


def count(*, slow: bool = True) -> dict[str, Any]:
    """Run all controls.

    Returns
    -------
    dict
        ``controls`` and ``caught``: numbers. ``missed``: list of ``"assertion, defect"``. ``not_here``: number of those
        whose test needs what is not installed, which are none of the controls. ``defects``: number of
        defects planted. ``assertions``: number of tests and public assertions that have a control.
    """
    missed, n, not_here = [], 0, 0
    chosen = [c for c in CONTROLS if slow or not c.slow]
    with Server() as server:
        for control in chosen:
            n += 1
            try:
                ok = caught_by(server, control)
            except NotInstalledError:
                n, not_here = n - 1, not_here + 1
                continue
            except RuntimeError as error:
                ok = False
                missed.append(f"{control.assertion}, {control.defect}: {error}")
                continue
            if not ok:
                missed.append(f"{control.assertion}, {control.defect}")
    for check in CHECKS:
        n += 1
        try:
            check.bad()
            missed.append(f"{check.assertion}, {check.defect}")
        except AssertionError:
            pass
    return {
        "controls": n,
        "caught": n - len(missed),
        "missed": missed,
        "not_here": not_here,
        "defects": len({c.defect for c in chosen}) + len({c.defect for c in CHECKS}),
        "assertions": len({c.assertion for c in chosen} | {c.assertion for c in CHECKS}),
    }
