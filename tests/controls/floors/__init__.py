"""Further defects and controls, floor by floor of the package; common ones are in the modules beside this folder."""

from __future__ import annotations

from tests.controls.control import Control
from tests.controls.floors import barriers, crystal, kinetics, kinosons_exact, kinosons_learned, results
from tests.controls.planting import Defect

PARTS = (crystal, barriers, kinetics, kinosons_exact, kinosons_learned, results)

DEFECTS: dict[str, Defect] = {name: defect for part in PARTS for name, defect in part.DEFECTS.items()}
CONTROLS: tuple[Control, ...] = tuple(control for part in PARTS for control in part.CONTROLS)

if len(DEFECTS) != sum(len(part.DEFECTS) for part in PARTS):
    raise ValueError("found two defects of one name; expected different names; rename one")
