"""Defects and controls of tests/kinosons."""

from __future__ import annotations

from tests.controls.control import Control
from tests.controls.planting import Defect

DEFECTS: dict[str, Defect] = {}

CONTROLS: tuple[Control, ...] = ()
