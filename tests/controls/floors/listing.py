"""Short lists of controls of the tests of one file."""

from __future__ import annotations

from tests.controls.control import Control


def caught(file: str, *rows: tuple[str, ...]) -> tuple[Control, ...]:
    """Controls of one file: rows of defect, test and perhaps by what it is caught, without ``test_`` and ``.py``.

    Parameters
    ----------
    file
        Such as ``"crystal/test_jumps"``.
    *rows : tuple of str
        ``(defect, test)`` or ``(defect, test, by)``; a fourth entry ``"slow"`` keeps it out of the test suite.
    """
    found = []
    for defect, test, *more in rows:
        by = more[0] if more and more[0] else "assertion"
        found.append(Control(defect, f"tests/{file}.py::test_{test}", by=by, slow=more[1:] == ["slow"]))
    return tuple(found)
