"""A calculator for the workers of a cluster: slow enough to be caught in the middle of a search."""

from __future__ import annotations

import time

import ase.calculators.emt
from ase.calculators.calculator import all_changes


class EMT(ase.calculators.emt.EMT):
    """EMT that takes its time."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        time.sleep(0.01)
        super().calculate(atoms, properties, system_changes)
