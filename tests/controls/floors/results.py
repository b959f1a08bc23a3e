"""Defects and controls of compositions, maps and series of them, calculators, pictures and studies."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from tests.controls.control import REFUSED
from tests.controls.floors.listing import caught
from tests.controls.planting import Defect, call, source


def _single(right: Any, value: Any) -> Any:
    """Numbers in single precision."""
    if isinstance(value, np.ndarray) and value.dtype == float:
        value = value.astype(np.float32).astype(float)
    return right(value)


def _twice_the_kinosons(right: Any, self: Any, name: str) -> Any:
    """Those of the carrier."""
    found = right(self, name)
    return {k: 2.0 * v if k == "kinosons" else v for k, v in found.items()}


_NUMBER = itertools.count()


def _counted(right: Any, *args: Any) -> Any:
    """Every point has the next seed."""
    return (*right(*args), next(_NUMBER))


def _mean_barrier(right: Any, self: Any) -> Any:
    """Energies of the states left out."""
    return self.mean_barrier()


def _with_thermal_energy(right: Any, self: Any) -> Any:
    """Slope of the rates of gases, whose prefactors go like T."""
    from ase_kinoson.units import thermal_energy

    found = right(self)
    return replace(found, value=found.value + thermal_energy(self.temperature_K))


def _independent(right: Any, results: Any, n: int) -> Any:
    """Errors of c_v drawn anew at each temperature."""
    found = right(results, n)
    rng = np.random.default_rng(0)
    return np.array([np.concatenate([row[:1], rng.permutation(row[1:])]) for row in found])


DEFECTS: dict[str, Defect] = {
    # compositions and lattice constants
    "compositions without all species left out": source(
        "corners and edges of a grid missing",
        "composition:composition_grid",
        "sorted(rows, reverse=True)]",
        "sorted(rows, reverse=True) if min(row) > 0]",
    ),
    "a factor of the volume for that of the lengths": source(
        "lengths by its third root", "composition:with_composition", "*= scale", "*= scale ** (1 / 3)"
    ),
    "volumes mixed for lengths": source(
        "third root of the mean volume",
        "composition:vegard",
        "sum(x * float(lattice_constants[s]) for s, x in present.items()) / total",
        "(sum(x * float(lattice_constants[s]) ** 3 for s, x in present.items()) / total) ** (1 / 3)",
    ),
    "ratio of volumes for that of lengths": source(
        "third root forgotten", "composition:relaxed_lattice_constant", " ** (1.0 / cell.alloy.dimension)", ""
    ),
    "the vacancy stays in the cell": source(
        "cells of a lattice constant with a hole", "composition:relaxed_lattice_constant", "row[carrier] = fill", "pass"
    ),
    "both sides of an exchange counted": source(
        "½ forgotten in distances", "barriers.composition_range:CompositionRange.distance", "0.5)]", "1.0)]"
    ),
    "the vacancy among the atoms": source(
        "fractions of sites in the trained range",
        "barriers.composition_range:mean_fractions",
        "counts / counts.sum()",
        "counts / occupations.shape[1] / weights.sum()",
    ),
    "jumps of the training lattice": source(
        "vectors are not scaled along", "barriers.model_file:on_lattice", "if scale != 1.0:", "if False:"
    ),
    "codes of each set for those of all": source(
        "species numbered anew in each set",
        "barriers.training_sets:training_sets",
        "codes[one.states.occupations]",
        "one.states.occupations",
    ),
    "ratio of volumes for a lattice constant": source(
        "third root forgotten",
        "barriers.model_file:same_lattice",
        "lengths[1] / lengths[0])",
        "(lengths[1] / lengths[0]) ** 3)",
    ),
    # JSON
    "digits lost in files": call("single precision", "mson:encode", _single),
    # calculators
    "kinosons of a calculator of twice the size": call(
        "1/d instead of 1/(2d)", "calculators:KinosonCalculator._compute", _twice_the_kinosons
    ),
    "jumps that do not exist": source(
        "padded rows are jumps",
        "calculators:BarrierCalculator._compute",
        "np.flatnonzero(self.network.exists[basis])",
        "np.arange(self.network.n_jumps)",
    ),
    "barriers of other jumps": source(
        "in the opposite order",
        "calculators:BarrierCalculator._compute",
        "found.barrier[0, jumps]",
        "found.barrier[0, jumps[::-1]]",
    ),
    "one attempt frequency for all": source(
        "10 THz whatever is asked for",
        "calculators:BarrierCalculator._rates",
        'float(self.parameters["attempt_frequency"])',
        "1e13",
    ),
    "atoms of other jumps": source(
        "in the opposite order", "calculators:BarrierCalculator._compute", "else targets", "else targets[::-1]"
    ),
    "look-ahead without rates there": source(
        "equal rates on the other supercell",
        "calculators:_relaxation_on",
        "relaxation.on(network, rates)",
        "replace(relaxation.on(network, rates), lookahead=0)",
    ),
    # tracer data
    "heat of activation of the wrong sign": source(
        "ln D = ln D0 + Q/RT", "exchange:_arrhenius", "-(x - middle)", "(x - middle)"
    ),
    "lines without weights": source(
        "all points count alike, errors are one",
        "exchange:_arrhenius",
        "d / error if known",
        "np.ones(len(t)) if known",
    ),
    "mobility with RT in eV": source("k_B for R", "exchange:mobilities", "(GAS_CONSTANT *", "(8.617333e-5 *"),
    "the interstitial in its host": source(
        "fractions of the atoms that move",
        "exchange:_host",
        'if network.mechanism == "vacancy":',
        "if True:",
    ),
    # arrows
    "sums over states for means": source(
        "weights of states forgotten",
        "kinoson_arrows:KinosonArrows.average",
        "gather(density.contribution)",
        "gather(density.kinoson)",
    ),
    "barriers of states that weigh alike": source(
        "mean barrier of all rows",
        "kinoson_arrows:KinosonArrows.average",
        "gather(density.contribution * np",
        "gather(density.kinoson * np",
    ),
    "classes summed for their mean": source(
        "every jump carries its class", "kinoson_arrows:_class_means", ".mean(axis=0)", ".sum(axis=0)"
    ),
    "all carriers on one basis site": source(
        "arrows of different sites in one", "kinoson_arrows:_basis", "network.basis_of(", "0 * network.basis_of("
    ),
    "sites not about the centre": source(
        "arrows and sites with different origins",
        "kinoson_arrows:_average_sites",
        "- own[mobile[0]] - centre)",
        "- own[mobile[0]])",
    ),
    "arrows shifted along themselves": source(
        "a fan in the plane of the arrow",
        "kinoson_arrows:KinosonArrows.fan",
        "across(along)",
        "along, across(along)[1]",
    ),
    "diameters like contributions": source(
        "square root forgotten", "kinoson_arrows:thickness", "np.sqrt(contribution / largest)", "contribution / largest"
    ),
    "two directions of the page for one": source(
        "½ forgotten in the scale of a picture", "kinoson_view:_points_per_angstrom", ".sum() / 2)", ".sum())"
    ),
    # temperature series
    "mean barrier for activation energy": call(
        "without the energies of the states", "kinosons.density:KinosonDensity.activation_energy", _mean_barrier
    ),
    "activation energy with k_BT": call(
        "prefactors that go like T", "kinosons.density:KinosonDensity.activation_energy", _with_thermal_energy
    ),
    "errors of c_v independent": call("drawn anew at each temperature", "series:_noise_of_fraction", _independent),
    "predictions without the error of c_v": source(
        "of the carried kinosons alone",
        "series:TemperatureSeries.predict_left_out",
        "np.hypot(model.prediction_error[i], doubt)",
        "model.prediction_error[i]",
    ),
    "noise of the same states independent": source(
        "every result has its own", "kinosons.temperature_models:_decoupled", "default_rng(like)", "default_rng(i)"
    ),
    "natural logarithms in a plot": source(
        "ln D on an axis of log₁₀ D", "arrhenius_plot:draw_points", "np.log10(v), [down", "np.log(v), [down"
    ),
    "degrees Celsius for kelvin": source("273.15 forgotten", "measured:_points", " + t_unit", ""),
    "training from cold to hot": source(
        "each y starts from that of a lower temperature",
        "series:temperature_series",
        "for t in temperatures_K}, reverse=True)",
        "for t in temperatures_K})",
    ),
    "states of one temperature alone": source(
        "nothing is pooled", "series:temperature_series", "if pool or abs(", "if abs("
    ),
    "digits lost in tables": call(
        "two digits",
        "summary:_text",
        lambda right, column: [f"{x:.2g}" if isinstance(x, float) else str(x) for x in column],
    ),
    "factors loosened": source(
        "bounds times their looseness",
        "summary:_ratio_estimate",
        "float(factor.value) / float(loose[name].value)",
        "float(factor.value) * float(loose[name].value)",
    ),
    # maps
    "seeds counted on": call("numbers depend on what came before", "composition_maps:_entropy", _counted),
    "diffusivities mixed for their logarithms": source(
        "D − Σ x D", "composition_maps:CompositionMap.excess", "np.log(level), noise / level", "level, noise"
    ),
    "another temperature the wrong way": source(
        "exp(+E/k_BT)", "composition_maps:CompositionMap._shift", "-energy * step", "energy * step"
    ),
    "lengths for areas": source("D ∝ a", "map_point:compute_point", "task.scale**2", "task.scale"),
    "nominal fractions for those of the cell": source(
        "atoms that are not there", "composition_maps:_value", "(p.realised[s], p", "(p.composition[s], p"
    ),
}

CONTROLS = (
    *caught(
        "test_calculators",
        ("atoms of other jumps", "moving_atoms_lie_where_the_carrier_jumps"),
        ("barriers of other jumps", "a_learned_model_and_reference_barriers_serve_too"),
        ("jumps that do not exist", "padded_jumps_do_not_appear"),
        ("kinosons of a calculator of twice the size", "values_are_those_of_model_and_functional"),
        ("look-ahead without rates there", "a_relaxation_is_carried_to_another_supercell"),
        ("moving species of the carrier's site", "a_gas_of_rates_gives_rates_and_kinosons_only"),
        ("one attempt frequency for all", "parameters_are_part_of_the_state"),
    ),
    *caught(
        "test_composition",
        ("a factor of the volume for that of the lengths", "another_composition_of_one_parent"),
        ("both sides of an exchange counted", "compositions_outside_are_told_of_and_refused", REFUSED),
        ("both sides of an exchange counted", "distances_are_those_of_exchanged_atoms"),
        ("codes of each set for those of all", "lattice_constants_of_the_training_sets_do_not_matter", "", "slow"),
        ("compositions without all species left out", "a_grid_holds_every_composition_once"),
        ("jumps of the training lattice", "a_model_serves_any_lattice_constant", "", "slow"),
        ("ratio of volumes for a lattice constant", "other_lattices_are_refused", REFUSED),
        ("ratio of volumes for that of lengths", "a_random_cell_relaxes_to_a_lattice_constant_of_its_own"),
        ("the vacancy among the atoms", "the_range_of_a_compound_counts_all_atoms"),
        ("the vacancy stays in the cell", "cells_of_a_lattice_constant_hold_whole_hosts"),
        ("volumes mixed for lengths", "vegard_mixes_in_proportion"),
    ),
    *caught(
        "test_composition_map",
        ("activation energy with k_BT", "activation_energies_of_pure_metals", "", "slow"),
        ("another temperature the wrong way", "the_mixture_at_one_fraction_of_the_melting_points"),
        ("diffusivities mixed for their logarithms", "a_triangle", "", "slow"),
        ("diffusivities mixed for their logarithms", "the_mixture_of_the_pure_species", "", "slow"),
        ("lengths for areas", "lengths_scale_diffusivities", "", "slow"),
        ("nominal fractions for those of the cell", "numbers_of_atoms_are_whole", "", "slow"),
        ("relaxed jumps that are no difference", "bounds_and_the_ladder", "", "slow"),
        ("seeds counted on", "a_killed_run_goes_on", "", "slow"),
        ("seeds counted on", "a_pool_is_made_anew_until_a_point_kills_it_alone", "", "slow"),
        ("seeds counted on", "a_worker_that_dies_loses_nothing", "", "slow"),
        ("seeds counted on", "numbers_depend_on_the_point_alone", "", "slow"),
        ("seeds counted on", "processes_give_the_same_numbers", "", "slow"),
        ("seeds counted on", "two_workers_of_dask_give_the_same_bits", "", "slow"),
    ),
    *caught(
        "test_exchange",
        ("heat of activation of the wrong sign", "values_are_those_of_the_results"),
        ("lines without weights", "errors_of_an_arrhenius_line_are_those_of_its_points"),
        ("mobility with RT in eV", "mobilities_and_csv"),
        ("the interstitial in its host", "an_interstitial_stands_in_no_configuration"),
    ),
    *caught(
        "test_kinoson_view",
        ("all carriers on one basis site", "average_knows_rows_of_one_basis_site_and_species", "", "slow"),
        ("arrows shifted along themselves", "only_arrows_of_one_jump_stand_apart", "", "slow"),
        ("barriers of states that weigh alike", "relaxed_displacements_and_tracers_count", "", "slow"),
        ("classes summed for their mean", "arrows_of_the_average_lattice_add_up_to_the_diffusivity", "", "slow"),
        ("diameters like contributions", "extended_xyz_of_average_and_of_interstitials", "", "slow"),
        ("sites not about the centre", "all_jumps_lead_to_drawn_sites", "", "slow"),
        ("sums over states for means", "frozen_arrangements_have_an_average", "", "slow"),
        ("two directions of the page for one", "the_scale_of_the_legend_is_that_of_the_arrows", "", "slow"),
    ),
    *caught(
        "test_mson_crystal",
        ("digits lost in files", "alloys_cells_and_jumps_come_back"),
        ("digits lost in files", "states_and_their_order_come_back"),
    ),
    *caught(
        "test_series",
        ("degrees Celsius for kelvin", "measured_points_come_with_their_units", "", "slow"),
        ("errors a third of what they are", "errors_of_predictions_are_the_scatter_of_repeats", "", "slow"),
        ("errors of c_v independent", "error_of_c_v_is_common_to_all_temperatures", "", "slow"),
        ("mean barrier for activation energy", "activation_energies_agree_with_the_slopes", "", "slow"),
        ("natural logarithms in a plot", "arrhenius_plot_holds_points_curve_bound_and_measured", "", "slow"),
        ("noise of the same states independent", "noise_is_common_to_all_results_of_the_same_states", "", "slow"),
        ("predictions without the error of c_v", "a_prediction_has_the_error_of_c_v_like_the_value_itself", "", "slow"),
        ("states of one temperature alone", "pooled_barriers_give_the_exact_series", "", "slow"),
        ("training from cold to hot", "training_goes_from_hot_to_cold", "", "slow"),
    ),
    *caught(
        "test_study",
        ("digits lost in tables", "the_kinosons_add_up_to_the_diffusivity", "", "slow"),
        ("factors loosened", "ratio_estimates_stand_beside_the_bounds", "", "slow"),
    ),
    *caught(
        "test_testing",
        ("K without the group of its jump", "a_fitted_model_passes", "", "slow"),
    ),
)
