"""Diffusion coefficients of disordered alloys from any ASE calculator, with the kinosons that explain them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from ase_kinoson.barriers.archive import load_barriers, save_barriers
    from ase_kinoson.barriers.bands import ImportedBands, import_bands
    from ase_kinoson.barriers.campaign import compute_barriers
    from ase_kinoson.barriers.cell_size import CellComparison, compare_cells
    from ase_kinoson.barriers.energy import PairEnergy
    from ase_kinoson.barriers.ensemble import BarrierEnsemble
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.barriers.learning_curve import learning_curve
    from ase_kinoson.barriers.potentials import Potential, potential
    from ase_kinoson.barriers.reference import Barriers
    from ase_kinoson.barriers.saddle import SaddleSettings
    from ase_kinoson.calculators import BarrierCalculator, KinosonCalculator
    from ase_kinoson.composition import composition_grid, relaxed_lattice_constant, vegard, with_composition
    from ase_kinoson.composition_maps import CompositionMap, MapSettings, composition_map
    from ase_kinoson.crystal.alloy import Alloy, Sublattice
    from ase_kinoson.crystal.interstitial_sites import InterstitialSite, find_interstitial_sites
    from ase_kinoson.crystal.jumps import JumpNetwork
    from ase_kinoson.crystal.states import States
    from ase_kinoson.crystal.supercell import Supercell
    from ase_kinoson.errors import KinosonError, KinosonWarning
    from ase_kinoson.exchange import mobilities, tracer_datasets, write_tracer_csv, write_tracer_datasets
    from ase_kinoson.kinetics.delayed_acceptance import sample_with_calculator
    from ase_kinoson.kinetics.five_frequency import FiveFrequency
    from ase_kinoson.kinetics.kmc import KineticMonteCarlo
    from ase_kinoson.kinetics.lattice_gas import PairBarriers, RandomBarriers, SiteBarriers, SpeciesRates
    from ase_kinoson.kinetics.neighbors import compute_pairs, draw_neighbors
    from ase_kinoson.kinetics.pooling import pool_states
    from ase_kinoson.kinetics.rates import Rates
    from ase_kinoson.kinetics.recording import KmcTrajectory, record_trajectory
    from ase_kinoson.kinetics.sampling import sample_states
    from ase_kinoson.kinetics.short_range_order import ShortRangeOrder, warren_cowley
    from ase_kinoson.kinetics.unsettled import unsettled_shares
    from ase_kinoson.kinetics.weights import energy_drift, reweight, sample_drift
    from ase_kinoson.kinoson_arrows import KinosonArrows
    from ase_kinoson.kinoson_view import plot_kinosons_3d, view_kinosons_3d
    from ase_kinoson.kinosons.active import ActiveResult, active_barriers
    from ase_kinoson.kinosons.casm import CasmCoefficients, casm_coefficients
    from ase_kinoson.kinosons.corrected import CorrectedTransport
    from ase_kinoson.kinosons.correction import correct
    from ase_kinoson.kinosons.dataframe import to_dataframe
    from ase_kinoson.kinosons.deeper import deepen
    from ase_kinoson.kinosons.density import KinosonDensity
    from ase_kinoson.kinosons.derived import interdiffusion, intrinsic_diffusivities, vacancy_wind
    from ase_kinoson.kinosons.distributed import join_processes
    from ase_kinoson.kinosons.exact import exact_transport
    from ase_kinoson.kinosons.finite_size import extrapolate, finite_size_corrected
    from ase_kinoson.kinosons.first_rung import first_rung
    from ase_kinoson.kinosons.jump_classes import carrying_jumps
    from ase_kinoson.kinosons.kinoson_files import kinoson_histogram, read_kinosons
    from ase_kinoson.kinosons.percolation import (
        ObstructedDiffusion,
        PercolationThreshold,
        obstructed_diffusion,
        percolation_threshold,
    )
    from ase_kinoson.kinosons.principal import PrincipalAxes, principal_axes
    from ase_kinoson.kinosons.relaxation import Relaxation
    from ase_kinoson.kinosons.result import Transport
    from ase_kinoson.kinosons.state_chunks import read_states, sample_chunks, split_states, write_states
    from ase_kinoson.kinosons.static_disorder import StaticTransport, static_transport
    from ase_kinoson.kinosons.statistics import Quantity
    from ase_kinoson.kinosons.streaming import stream_transport
    from ase_kinoson.kinosons.temperature_models import compare_slopes, fit_temperature_models
    from ase_kinoson.kinosons.training import fine_tune, train_relaxation
    from ase_kinoson.kinosons.trajectories import KmcTransport, run_kmc
    from ase_kinoson.kinosons.transport import transport
    from ase_kinoson.kinosons.vacancy_formation import VacancyFormation, vacancy_formation
    from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
    from ase_kinoson.measured import MeasuredDiffusivity, read_measured_diffusivity
    from ase_kinoson.series import TemperatureSeries, temperature_series
    from ase_kinoson.study import Study

_PLACES = {
    "ActiveResult": "kinosons.active",
    "Alloy": "crystal.alloy",
    "BarrierCalculator": "calculators",
    "BarrierEnsemble": "barriers.ensemble",
    "BarrierModel": "barriers.learned",
    "Barriers": "barriers.reference",
    "CasmCoefficients": "kinosons.casm",
    "CellComparison": "barriers.cell_size",
    "CompositionMap": "composition_maps",
    "CorrectedTransport": "kinosons.corrected",
    "FiveFrequency": "kinetics.five_frequency",
    "ImportedBands": "barriers.bands",
    "InterstitialSite": "crystal.interstitial_sites",
    "JumpNetwork": "crystal.jumps",
    "KineticMonteCarlo": "kinetics.kmc",
    "KinosonArrows": "kinoson_arrows",
    "KinosonCalculator": "calculators",
    "KinosonDensity": "kinosons.density",
    "KinosonError": "errors",
    "KinosonWarning": "errors",
    "KmcTrajectory": "kinetics.recording",
    "KmcTransport": "kinosons.trajectories",
    "MapSettings": "composition_maps",
    "MeasuredDiffusivity": "measured",
    "ObstructedDiffusion": "kinosons.percolation",
    "PairBarriers": "kinetics.lattice_gas",
    "PairEnergy": "barriers.energy",
    "PercolationThreshold": "kinosons.percolation",
    "Potential": "barriers.potentials",
    "PrincipalAxes": "kinosons.principal",
    "Quantity": "kinosons.statistics",
    "RandomBarriers": "kinetics.lattice_gas",
    "Rates": "kinetics.rates",
    "Relaxation": "kinosons.relaxation",
    "SaddleSettings": "barriers.saddle",
    "ShortRangeOrder": "kinetics.short_range_order",
    "SiteBarriers": "kinetics.lattice_gas",
    "SpeciesRates": "kinetics.lattice_gas",
    "States": "crystal.states",
    "StaticTransport": "kinosons.static_disorder",
    "Study": "study",
    "Sublattice": "crystal.alloy",
    "Supercell": "crystal.supercell",
    "TemperatureSeries": "series",
    "Transport": "kinosons.result",
    "VacancyFormation": "kinosons.vacancy_formation",
    "VacancyFraction": "kinosons.vacancy_fraction",
    "active_barriers": "kinosons.active",
    "carrying_jumps": "kinosons.jump_classes",
    "casm_coefficients": "kinosons.casm",
    "compare_cells": "barriers.cell_size",
    "compare_slopes": "kinosons.temperature_models",
    "composition_grid": "composition",
    "composition_map": "composition_maps",
    "compute_barriers": "barriers.campaign",
    "compute_pairs": "kinetics.neighbors",
    "correct": "kinosons.correction",
    "deepen": "kinosons.deeper",
    "draw_neighbors": "kinetics.neighbors",
    "energy_drift": "kinetics.weights",
    "exact_transport": "kinosons.exact",
    "extrapolate": "kinosons.finite_size",
    "find_interstitial_sites": "crystal.interstitial_sites",
    "fine_tune": "kinosons.training",
    "finite_size_corrected": "kinosons.finite_size",
    "first_rung": "kinosons.first_rung",
    "fit_temperature_models": "kinosons.temperature_models",
    "import_bands": "barriers.bands",
    "interdiffusion": "kinosons.derived",
    "intrinsic_diffusivities": "kinosons.derived",
    "join_processes": "kinosons.distributed",
    "kinoson_histogram": "kinosons.kinoson_files",
    "learning_curve": "barriers.learning_curve",
    "load_barriers": "barriers.archive",
    "mobilities": "exchange",
    "obstructed_diffusion": "kinosons.percolation",
    "percolation_threshold": "kinosons.percolation",
    "plot_kinosons_3d": "kinoson_view",
    "pool_states": "kinetics.pooling",
    "potential": "barriers.potentials",
    "principal_axes": "kinosons.principal",
    "read_kinosons": "kinosons.kinoson_files",
    "read_measured_diffusivity": "measured",
    "read_states": "kinosons.state_chunks",
    "record_trajectory": "kinetics.recording",
    "relaxed_lattice_constant": "composition",
    "reweight": "kinetics.weights",
    "run_kmc": "kinosons.trajectories",
    "sample_chunks": "kinosons.state_chunks",
    "sample_drift": "kinetics.weights",
    "sample_states": "kinetics.sampling",
    "sample_with_calculator": "kinetics.delayed_acceptance",
    "save_barriers": "barriers.archive",
    "split_states": "kinosons.state_chunks",
    "static_transport": "kinosons.static_disorder",
    "stream_transport": "kinosons.streaming",
    "temperature_series": "series",
    "to_dataframe": "kinosons.dataframe",
    "tracer_datasets": "exchange",
    "train_relaxation": "kinosons.training",
    "transport": "kinosons.transport",
    "unsettled_shares": "kinetics.unsettled",
    "vacancy_formation": "kinosons.vacancy_formation",
    "vacancy_wind": "kinosons.derived",
    "vegard": "composition",
    "view_kinosons_3d": "kinoson_view",
    "warren_cowley": "kinetics.short_range_order",
    "with_composition": "composition",
    "write_states": "kinosons.state_chunks",
    "write_tracer_csv": "exchange",
    "write_tracer_datasets": "exchange",
}

__all__ = [
    "ActiveResult",
    "Alloy",
    "BarrierCalculator",
    "BarrierEnsemble",
    "BarrierModel",
    "Barriers",
    "CasmCoefficients",
    "CellComparison",
    "CompositionMap",
    "CorrectedTransport",
    "FiveFrequency",
    "ImportedBands",
    "InterstitialSite",
    "JumpNetwork",
    "KineticMonteCarlo",
    "KinosonArrows",
    "KinosonCalculator",
    "KinosonDensity",
    "KinosonError",
    "KinosonWarning",
    "KmcTrajectory",
    "KmcTransport",
    "MapSettings",
    "MeasuredDiffusivity",
    "ObstructedDiffusion",
    "PairBarriers",
    "PairEnergy",
    "PercolationThreshold",
    "Potential",
    "PrincipalAxes",
    "Quantity",
    "RandomBarriers",
    "Rates",
    "Relaxation",
    "SaddleSettings",
    "ShortRangeOrder",
    "SiteBarriers",
    "SpeciesRates",
    "States",
    "StaticTransport",
    "Study",
    "Sublattice",
    "Supercell",
    "TemperatureSeries",
    "Transport",
    "VacancyFormation",
    "VacancyFraction",
    "active_barriers",
    "carrying_jumps",
    "casm_coefficients",
    "compare_cells",
    "compare_slopes",
    "composition_grid",
    "composition_map",
    "compute_barriers",
    "compute_pairs",
    "correct",
    "deepen",
    "draw_neighbors",
    "energy_drift",
    "exact_transport",
    "extrapolate",
    "find_interstitial_sites",
    "fine_tune",
    "finite_size_corrected",
    "first_rung",
    "fit_temperature_models",
    "import_bands",
    "interdiffusion",
    "intrinsic_diffusivities",
    "join_processes",
    "kinoson_histogram",
    "learning_curve",
    "load_barriers",
    "mobilities",
    "obstructed_diffusion",
    "percolation_threshold",
    "plot_kinosons_3d",
    "pool_states",
    "potential",
    "principal_axes",
    "read_kinosons",
    "read_measured_diffusivity",
    "read_states",
    "record_trajectory",
    "relaxed_lattice_constant",
    "reweight",
    "run_kmc",
    "sample_chunks",
    "sample_drift",
    "sample_states",
    "sample_with_calculator",
    "save_barriers",
    "split_states",
    "static_transport",
    "stream_transport",
    "temperature_series",
    "to_dataframe",
    "tracer_datasets",
    "train_relaxation",
    "transport",
    "unsettled_shares",
    "vacancy_formation",
    "vacancy_wind",
    "vegard",
    "view_kinosons_3d",
    "warren_cowley",
    "with_composition",
    "write_states",
    "write_tracer_csv",
    "write_tracer_datasets",
]


def __getattr__(name: str) -> Any:
    # names are imported when first used: `import ase_kinoson` stays fast although torch and pymatgen are not
    if name == "__version__":
        value: Any = _installed_version()
    elif name in _PLACES:
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _installed_version() -> str:
    """Version that was installed; a source tree that is not installed does not know its own."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ase-kinoson")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
