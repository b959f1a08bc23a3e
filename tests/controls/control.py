"""One control: a defect, and the assertion that must notice it."""

from __future__ import annotations

from dataclasses import dataclass

REFUSED = "refused"
"""The package itself refuses what is wrong, before the test can compare numbers."""


@dataclass(frozen=True)
class Control:
    """One control.

    Attributes
    ----------
    defect : str
        Name in :data:`tests.controls.defects.DEFECTS`.
    assertion : str
        Node id of the test that must fail, with any of its parameters.
    by : str
        ``"assertion"``, or ``"refused"`` if an error of the package comes first, or the name of another exception,
        where a test looks for what is not there.
    slow : bool
        Takes more than a second or two.
    """

    defect: str
    assertion: str
    by: str = "assertion"
    slow: bool = False
