"""Diffusion coefficients of disordered alloys from any ASE calculator, with the kinosons that explain them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ase_kinoson.barriers.archive import load_barriers, save_barriers
    from ase_kinoson.barriers.campaign import compute_barriers
    from ase_kinoson.barriers.energy import PairEnergy
    from ase_kinoson.barriers.ensemble import BarrierEnsemble
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.barriers.learning_curve import learning_curve
    from ase_kinoson.barriers.potentials import Potential, potential
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.barriers.saddle import SaddleSettings
    from ase_kinoson.calculators import BarrierCalculator, KinosonCalculator
    from ase_kinoson.crystal.alloy import Alloy, Sublattice
    from ase_kinoson.crystal.jumps import JumpNetwork
    from ase_kinoson.crystal.states import States
    from ase_kinoson.crystal.supercell import Supercell
    from ase_kinoson.errors import KinosonError, KinosonWarning
    from ase_kinoson.kinetics.delayed_acceptance import sample_with_calculator
    from ase_kinoson.kinetics.five_frequency import FiveFrequency
    from ase_kinoson.kinetics.kmc import KineticMonteCarlo
    from ase_kinoson.kinetics.lattice_gas import PairBarriers, RandomBarriers, SiteBarriers, SpeciesRates
    from ase_kinoson.kinetics.neighbors import compute_pairs, draw_neighbors
    from ase_kinoson.kinetics.rates import Rates
    from ase_kinoson.kinetics.sampling import sample_states
    from ase_kinoson.kinetics.short_range_order import ShortRangeOrder, warren_cowley
    from ase_kinoson.kinetics.weights import energy_drift, reweight, sample_drift
    from ase_kinoson.kinosons.active import ActiveResult, active_barriers
    from ase_kinoson.kinosons.corrected import CorrectedTransport
    from ase_kinoson.kinosons.correction import correct
    from ase_kinoson.kinosons.deeper import deepen
    from ase_kinoson.kinosons.density import KinosonDensity
    from ase_kinoson.kinosons.derived import interdiffusion, intrinsic_diffusivities, vacancy_wind
    from ase_kinoson.kinosons.exact import exact_transport
    from ase_kinoson.kinosons.finite_size import extrapolate, finite_size_corrected
    from ase_kinoson.kinosons.first_rung import first_rung
    from ase_kinoson.kinosons.jump_classes import carrying_jumps
    from ase_kinoson.kinosons.relaxation import Relaxation
    from ase_kinoson.kinosons.result import Transport
    from ase_kinoson.kinosons.statistics import Quantity
    from ase_kinoson.kinosons.temperature_models import compare_slopes, fit_temperature_models
    from ase_kinoson.kinosons.training import fine_tune, train_relaxation
    from ase_kinoson.kinosons.trajectories import KmcTransport, run_kmc
    from ase_kinoson.kinosons.transport import transport
    from ase_kinoson.study import Study

_PLACES = {
    "ActiveResult": "kinosons.active",
    "Alloy": "crystal.alloy",
    "BarrierCalculator": "calculators",
    "BarrierEnsemble": "barriers.ensemble",
    "BarrierModel": "barriers.learned",
    "Barriers": "barriers.reference",
    "CorrectedTransport": "kinosons.corrected",
    "FiveFrequency": "kinetics.five_frequency",
    "JumpNetwork": "crystal.jumps",
    "KineticMonteCarlo": "kinetics.kmc",
    "KinosonCalculator": "calculators",
    "KinosonDensity": "kinosons.density",
    "KinosonError": "errors",
    "KinosonWarning": "errors",
    "KmcTransport": "kinosons.trajectories",
    "PairBarriers": "kinetics.lattice_gas",
    "PairEnergy": "barriers.energy",
    "Potential": "barriers.potentials",
    "Quantity": "kinosons.statistics",
    "RandomBarriers": "kinetics.lattice_gas",
    "Rates": "kinetics.rates",
    "Relaxation": "kinosons.relaxation",
    "SaddleSettings": "barriers.saddle",
    "ShortRangeOrder": "kinetics.short_range_order",
    "SiteBarriers": "kinetics.lattice_gas",
    "SpeciesRates": "kinetics.lattice_gas",
    "States": "crystal.states",
    "Study": "study",
    "Sublattice": "crystal.alloy",
    "Supercell": "crystal.supercell",
    "Transport": "kinosons.result",
    "active_barriers": "kinosons.active",
    "carrying_jumps": "kinosons.jump_classes",
    "compare_slopes": "kinosons.temperature_models",
    "compute_barriers": "barriers.campaign",
    "compute_pairs": "kinetics.neighbors",
    "correct": "kinosons.correction",
    "deepen": "kinosons.deeper",
    "draw_neighbors": "kinetics.neighbors",
    "energy_drift": "kinetics.weights",
    "exact_transport": "kinosons.exact",
    "extrapolate": "kinosons.finite_size",
    "fine_tune": "kinosons.training",
    "finite_size_corrected": "kinosons.finite_size",
    "first_rung": "kinosons.first_rung",
    "fit_temperature_models": "kinosons.temperature_models",
    "interdiffusion": "kinosons.derived",
    "intrinsic_diffusivities": "kinosons.derived",
    "learning_curve": "barriers.learning_curve",
    "load_barriers": "barriers.archive",
    "potential": "barriers.potentials",
    "reweight": "kinetics.weights",
    "run_kmc": "kinosons.trajectories",
    "sample_drift": "kinetics.weights",
    "sample_states": "kinetics.sampling",
    "sample_with_calculator": "kinetics.delayed_acceptance",
    "save_barriers": "barriers.archive",
    "train_relaxation": "kinosons.training",
    "transport": "kinosons.transport",
    "vacancy_wind": "kinosons.derived",
    "warren_cowley": "kinetics.short_range_order",
}

__all__ = [
    "ActiveResult",
    "Alloy",
    "BarrierCalculator",
    "BarrierEnsemble",
    "BarrierModel",
    "Barriers",
    "CorrectedTransport",
    "FiveFrequency",
    "JumpNetwork",
    "KineticMonteCarlo",
    "KinosonCalculator",
    "KinosonDensity",
    "KinosonError",
    "KinosonWarning",
    "KmcTransport",
    "PairBarriers",
    "PairEnergy",
    "Potential",
    "Quantity",
    "RandomBarriers",
    "Rates",
    "Relaxation",
    "SaddleSettings",
    "ShortRangeOrder",
    "SiteBarriers",
    "SpeciesRates",
    "States",
    "Study",
    "Sublattice",
    "Supercell",
    "Transport",
    "active_barriers",
    "carrying_jumps",
    "compare_slopes",
    "compute_barriers",
    "compute_pairs",
    "correct",
    "deepen",
    "draw_neighbors",
    "energy_drift",
    "exact_transport",
    "extrapolate",
    "fine_tune",
    "finite_size_corrected",
    "first_rung",
    "fit_temperature_models",
    "interdiffusion",
    "intrinsic_diffusivities",
    "learning_curve",
    "load_barriers",
    "potential",
    "reweight",
    "run_kmc",
    "sample_drift",
    "sample_states",
    "sample_with_calculator",
    "save_barriers",
    "train_relaxation",
    "transport",
    "vacancy_wind",
    "warren_cowley",
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
