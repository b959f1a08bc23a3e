"""Diffusion coefficients of disordered alloys from any ASE calculator, with the kinosons that explain them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ase_kinoson.barriers.campaign import compute_barriers
    from ase_kinoson.barriers.energy import PairEnergy
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.barriers.saddle import SaddleSettings
    from ase_kinoson.calculators import BarrierCalculator, KinosonCalculator
    from ase_kinoson.crystal.alloy import Alloy, Sublattice
    from ase_kinoson.crystal.jumps import JumpNetwork
    from ase_kinoson.crystal.states import States
    from ase_kinoson.crystal.supercell import Supercell
    from ase_kinoson.errors import KinosonError, KinosonWarning
    from ase_kinoson.kinetics.five_frequency import FiveFrequency
    from ase_kinoson.kinetics.lattice_gas import PairBarriers, RandomBarriers, SiteBarriers, SpeciesRates
    from ase_kinoson.kinetics.rates import Rates
    from ase_kinoson.kinetics.sampling import sample_states
    from ase_kinoson.kinetics.weights import energy_drift, reweight
    from ase_kinoson.kinosons.density import KinosonDensity
    from ase_kinoson.kinosons.exact import exact_transport
    from ase_kinoson.kinosons.relaxation import Relaxation
    from ase_kinoson.kinosons.result import Transport
    from ase_kinoson.kinosons.statistics import Quantity
    from ase_kinoson.kinosons.training import fine_tune, train_relaxation
    from ase_kinoson.kinosons.transport import transport
    from ase_kinoson.study import Study

_PLACES = {
    "Alloy": "crystal.alloy",
    "BarrierCalculator": "calculators",
    "BarrierModel": "barriers.learned",
    "Barriers": "barriers.reference",
    "FiveFrequency": "kinetics.five_frequency",
    "JumpNetwork": "crystal.jumps",
    "KinosonCalculator": "calculators",
    "KinosonDensity": "kinosons.density",
    "KinosonError": "errors",
    "KinosonWarning": "errors",
    "PairBarriers": "kinetics.lattice_gas",
    "PairEnergy": "barriers.energy",
    "Quantity": "kinosons.statistics",
    "RandomBarriers": "kinetics.lattice_gas",
    "Rates": "kinetics.rates",
    "Relaxation": "kinosons.relaxation",
    "SaddleSettings": "barriers.saddle",
    "SiteBarriers": "kinetics.lattice_gas",
    "SpeciesRates": "kinetics.lattice_gas",
    "States": "crystal.states",
    "Study": "study",
    "Sublattice": "crystal.alloy",
    "Supercell": "crystal.supercell",
    "Transport": "kinosons.result",
    "compute_barriers": "barriers.campaign",
    "energy_drift": "kinetics.weights",
    "exact_transport": "kinosons.exact",
    "fine_tune": "kinosons.training",
    "reweight": "kinetics.weights",
    "sample_states": "kinetics.sampling",
    "train_relaxation": "kinosons.training",
    "transport": "kinosons.transport",
}

__all__ = [
    "Alloy",
    "BarrierCalculator",
    "BarrierModel",
    "Barriers",
    "FiveFrequency",
    "JumpNetwork",
    "KinosonCalculator",
    "KinosonDensity",
    "KinosonError",
    "KinosonWarning",
    "PairBarriers",
    "PairEnergy",
    "Quantity",
    "RandomBarriers",
    "Rates",
    "Relaxation",
    "SaddleSettings",
    "SiteBarriers",
    "SpeciesRates",
    "States",
    "Study",
    "Sublattice",
    "Supercell",
    "Transport",
    "compute_barriers",
    "energy_drift",
    "exact_transport",
    "fine_tune",
    "reweight",
    "sample_states",
    "train_relaxation",
    "transport",
]


def __getattr__(name: str) -> Any:
    # names are imported when first used: `import ase_kinoson` stays fast although torch and pymatgen are not
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
