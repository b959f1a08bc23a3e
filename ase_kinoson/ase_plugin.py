"""What ASE 3.29 and later list of ours among their plugins: the two calculators.

ASE loads the modules of the group ``ase.plugins`` without a net: an error here would break ``ase info --plugins`` for
everybody. Its plugin classes are experimental, and older versions have none: whatever goes wrong leaves the set empty.
The calculators are imported when somebody asks for them, not before.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

__all__: list[str] = []

CITATION = "Chattopadhyay and Trinkle, Phys. Rev. Lett. 132, 186301 (2024); Trinkle, ibid. 121, 235901 (2018)"


def _calculators() -> set[Any]:
    from ase._4.plugins.plugin import CalculatorPlugin

    return {
        CalculatorPlugin(name, citation=CITATION, implementation=f"ase_kinoson.calculators.{name}")
        for name in ("BarrierCalculator", "KinosonCalculator")
    }


__ase_plugins__: set[Any] = set()
with suppress(Exception):
    __ase_plugins__ = _calculators()
