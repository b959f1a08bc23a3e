"""Defects and controls of tests/kinosons: exact solutions, frozen surroundings, densities, chosen barriers."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from tests.controls.control import REFUSED, Control
from tests.controls.planting import Defect, call, source


def _with_all_directions(right: Any, self: Any, name: str) -> Any:
    """Kinosons of which the way across a layer counts."""
    with mock.patch.dict(vars(self.network), projector=np.eye(3)):
        return right(self, name)


DEFECTS: dict[str, Defect] = {
    # exact solutions
    "Λ[0] of exact solutions without ½": source(
        "½ forgotten where y = 0", "kinosons.exact:solve_exactly", "bare += _outer(", "bare += 2.0 * _outer("
    ),
    "atoms that never move do": source(
        "rates of 0 replaced by small ones",
        "kinetics.lattice_gas:_BoundSpeciesRates.jump_rates",
        "self.table[moved], 0.0",
        "np.maximum(self.table[moved], 2.0**-10), 0.0",
    ),
    "conjugate gradients end too early": source(
        "at a hundredth of what they began with", "kinosons.exact:_conjugate_gradients", "TOLERANCE**2", "1e-4"
    ),
    "last choice left out": source(
        "no room for the last index",
        "kinosons.state_space:_combinations",
        "(k - taken) + 1 - first",
        "(k - taken) - first",
    ),
    "only x relaxes": source(
        "y without its other components",
        "kinosons.exact:solve_exactly",
        "y = solve_poisson(space.next_state, flow, rhs)",
        "y = solve_poisson(space.next_state, flow, rhs * (np.arange(rhs.shape[1]) % 3 == 0))",
    ),
    "star without its conductance": source(
        "shares multiplied, not the conductance", "kinosons.star_mesh:_one_by_one", "share[b] * total", "share[b]"
    ),
    "mesh with displacements turned about": source(
        "d_ji − d_ik for d_ji + d_ik",
        "kinosons.star_mesh:_together",
        "(mine - mine[:, None])",
        "(mine[:, None] - mine)",
    ),
    "½ forgotten in enclosed sums": source("½ forgotten in Λ", "kinosons.wide_rates:_above", "0.5 *", "1.0 *"),
    "thirty decades are not wide": source(
        "the usual solver, unchecked", "kinosons.wide_rates:is_wide", "> NARROW", "> 100 * NARROW"
    ),
    # frozen surroundings
    "a bond opens with the first of its sites": source(
        "the earlier of two times", "kinosons.site_graph:SiteGraph.opening", "np.maximum(", "np.minimum("
    ),
    "bounds take off too much": source(
        "twice what a step gains",
        "kinosons.frozen_arrangement:FrozenArrangement.bounds",
        "-= size**2",
        "-= 2.0 * size**2",
    ),
    "clusters weigh alike": source(
        "energies between clusters forgotten",
        "kinosons.static_disorder:_Solver.solve",
        "= self.rates.log_weights(occupations)",
        "= 0.0 * self.rates.log_weights(occupations)",
    ),
    "every cluster percolates": source(
        "finite ones taken along",
        "kinosons.site_graph:Clusters.percolating",
        "np.isin(self.label, self.wrapping)",
        "np.isin(self.label, self.label)",
    ),
    "no ring goes around the cell": source(
        "periodic images not counted", "kinosons.site_graph:SiteGraph.of", "= crossed[exists]", "= 0 * crossed[exists]"
    ),
    "percolating arrangements for percolating starts": source(
        "share of arrangements, not of sites",
        "kinosons.static_disorder:static_transport",
        "np.divide(long, starts,",
        "np.divide(long, average(wraps),",
    ),
    # tensors
    "axes from the rows of the eigenvectors": source(
        "matrix of eigenvectors turned about",
        "kinosons.principal:principal_axes",
        "axes = vectors.T[::-1]",
        "axes = vectors[::-1]",
    ),
    "axes named in columns of the lattice": source(
        "vectors in columns", "kinosons.principal:_name", "indices @ vectors", "indices @ vectors.T"
    ),
    "error of equal axes that is their sum": source(
        "no mean over a group", "kinosons.principal:principal_axes", " / len(g)) for g", ") for g"
    ),
    "half of the tensor has no error": source(
        "off-diagonal elements count once",
        "kinosons.principal:_Noise.weighted",
        "np.triu(weights) + np.tril(weights, -1).T",
        "np.triu(weights)",
    ),
    "smallest axis first": source(
        "eigenvalues in their own order", "kinosons.principal:principal_axes", "vectors.T[::-1]", "vectors.T"
    ),
    # ladder, linear y
    "Galerkin matrix without P": source(
        "⟨u u⟩ for ⟨u (1 − P) u⟩", "kinosons.ladder:_basis", "lags + 1] -= total", "lags + 1] -= 0.0 * total"
    ),
    "ladder takes off the gain alone": source(
        "θ·A θ forgotten", "kinosons.ladder:_joint_change", "row -= square", "row -= 0.0 * square"
    ),
    "powers of P longer than the trajectories": source(
        "one step too many", "kinosons.ladder:powers", "(n_steps - 1) // 2", "n_steps // 2"
    ),
    "the last item of several threads is lost": source(
        "one state fewer", "kinosons.side_by_side:on_all_cores", ".map(one, items)", ".map(one, list(items)[:-1])"
    ),
    "trajectories start without weights": source(
        "Γ for wΓ", "kinosons.moments:follow", "states.weights * escape", "escape"
    ),
    "trajectories start without escape rates": source(
        "w for wΓ", "kinosons.moments:follow", "states.weights * escape", "states.weights"
    ),
    "single atoms for all of a species": source(
        "sum of squares for square of the sum",
        "kinosons.objective:Objective.parts",
        "w, total.square().sum(0)) / bare",
        "w, squares) / bare",
    ),
    "ratio without its root": source(
        "D for √D", "kinosons.correction:_root_ratio", "np.sqrt(top / bottom)", "top / bottom"
    ),
    # energies of interstitials
    "one energy for all shells": source(
        "that of the first shell",
        "barriers.carrier:CarrierTerms.coefficients",
        "given[k] if k < len(given) else 0.0",
        "given[0]",
    ),
    "shells counted for each kind of site": source(
        "not for all of them together",
        "barriers.carrier:CarrierTerms.coefficients",
        "np.searchsorted(shells, length)",
        "np.searchsorted(np.unique(around[label]), length)",
    ),
    # normalisations
    "CASM's D* without c_v": source(
        "per vacancy", "kinosons.casm:casm_coefficients", "factor = share / own", "factor = 1.0 / own"
    ),
    "CASM's coefficients without k_BT": source(
        "L̃/Ω", "kinosons.casm:casm_coefficients", " * thermal_energy(result.temperature_K)", ""
    ),
    "calculator counts the vacuum": call(
        "all three directions", "calculators:KinosonCalculator._compute", _with_all_directions
    ),
    "errors added up": source(
        "sum for root of squares",
        "kinosons.casm:casm_coefficients",
        "np.hypot(np.asarray(q.error) * factor, np.abs(value) * relative)",
        "np.asarray(q.error) * factor + np.abs(value) * relative",
    ),
    "fractions of all sites": source(
        "immobile sites count",
        "kinosons.coefficients:Composition.of",
        "/ len(cell.mobile_sites)",
        "/ cell.n_sites",
    ),
    # densities
    "cumulants of the wrong sign": source("+βQ", "kinosons.temperature_models:_sign", "(-1) ** k", "1 ** k"),
    "displacement without Δy": source(
        "length of the bare jump",
        "kinosons.table:KinosonTable.build",
        "np.linalg.norm(carrier[rows, jumps], axis=-1)",
        "length[rows, jumps]",
    ),
    "enrichment upside down": source(
        "fraction over share", "kinosons.jump_classes:_classes", "np.divide(share, many", "np.divide(many, share"
    ),
    "error of a mean of resamples": source(
        "σ/√n of what scatters by σ itself",
        "kinosons.temperature_models:_error",
        "float(standard_error(rows[1:]))",
        "float(standard_error(rows[1:]) / np.sqrt(len(rows)))",
    ),
    "heat without energies of states": source(
        "⟨Q⟩ for ⟨Q + E⟩",
        "kinosons.temperature_curves:activation_rows",
        "(finite_barriers(density) + energy)",
        "finite_barriers(density)",
    ),
    "neighbours of the first jump": source(
        "of each state, whatever the jump",
        "kinosons.jump_classes:shell_counts",
        "counts[:] = per_state[row, jump]",
        "counts[:] = per_state[row, 0]",
    ),
    "rates stay as they are": source(
        "those of one temperature", "kinosons.temperature_curves:rate_factors", "(here - there) * q", "0.0 * q"
    ),
    "rates carried with twice the barrier": source(
        "exp(−2(β−β₀)Q)", "kinosons.temperature_curves:rate_factors", "(here - there) * q", "(here - there) * 2.0 * q"
    ),
    "shares by the number of jumps": source(
        "jumps counted, not kinosons",
        "kinosons.jump_classes:share_histogram",
        "len(own) * n + 1, density.contribution)",
        "len(own) * n + 1, density.weight)",
    ),
    "small numbers have a floor": source(
        "effective numbers in one unit",
        "kinosons.verdict:heavy_share",
        "np.ldexp(parts, -int(np.frexp(parts.max())[1]))",
        "np.maximum(parts, 1e-150)",
    ),
    "sums that are hardly numbers have shares": source(
        "divided by subnormal numbers", "kinosons.paths:_divide", "b > 1e-300", "b > 0"
    ),
    "third cumulant of wrong moments": source(
        "m₁³ once, not twice", "kinosons.temperature_curves:cumulant_models", "2 * a**3", "a**3"
    ),
    # chosen barriers
    "chosen without looking": source(
        "equal chances",
        "kinosons.active_rounds:Rounds.chances",
        "return p / p.sum()",
        "return left / left.sum()",
    ),
    "failed searches carry nothing": source(
        "rate 0 for a guess",
        "kinosons.active_rounds:Rounds.round",
        "np.where(self.asked & ~failed, factor, forecast.factor)",
        "np.where(self.asked & ~failed, factor, 0.0 * forecast.factor)",
    ),
    "states that relax away keep their weight": source(
        "they count in the mean",
        "kinosons.active_rounds:Rounds.round",
        "np.where(known.unstable, 0.0, np.where(",
        "np.where(known.unstable, 1.0, np.where(",
    ),
    "states that repeat count once": source(
        "weights of the pool forgotten",
        "kinosons.candidates:Candidates.build",
        "np.bincount(row, pool.weights, minlength=len(rows)).astype(float)",
        "np.full(len(rows), 1.0 / len(rows))",
    ),
    "what is chosen is not weighted": source(
        "1/q forgotten",
        "kinosons.ordered_sampling:OrderedEstimate.add",
        "/ probabilities[m]",
        "* r",
    ),
}


def _of(defect: str, file: str, *tests: str, by: str = "assertion", slow: bool = False) -> tuple[Control, ...]:
    """One control for each test of a file."""
    return tuple(Control(defect, f"tests/kinosons/test_{file}.py::test_{test}", by, slow) for test in tests)


CONTROLS: tuple[Control, ...] = (
    *_of("CASM's D* without c_v", "casm", "tracers_by_the_definition"),
    *_of("CASM's coefficients without k_BT", "casm", "per_volume_is_the_onsager_matrix_in_other_units"),
    *_of("Galerkin matrix without P", "ladder", "joint_ladder_lies_between_single_species_and_exact"),
    *_of("Galerkin matrix without P", "ladder", "rungs_with_exact_moments"),
    *_of(
        "Galerkin matrix without P",
        "ladder",
        "any_coefficients_give_the_functional_of_the_relaxation_they_stand_for",
    ),
    *_of("a bond opens with the first of its sites", "percolation", "channels_percolate_only_when_all_sites_are_open"),
    *_of("a bond opens with the first of its sites", "percolation", "more_neighbours_percolate_earlier"),
    *_of("a bond opens with the first of its sites", "percolation", "spanning_tree_finds_what_union_find_finds"),
    *_of("a bond opens with the first of its sites", "percolation", "thresholds_are_the_published_ones"),
    *_of("atoms that never move do", "extremes", "nothing_is_said_about_what_carries_nothing"),
    *_of("atoms that never move do", "ill_conditioned", "atoms_that_never_move_have_no_ladder_and_do_no_harm"),
    *_of("atoms that never move do", "many_decades", "no_rate_at_all"),
    *_of("axes from the rows of the eigenvectors", "principal", "values_and_axes_of_a_rotated_tensor"),
    *_of("axes named in columns of the lattice", "principal", "directions_are_named_in_the_lattice"),
    *_of("bounds take off too much", "percolation", "diffusion_ends_at_the_threshold"),
    *_of("bounds take off too much", "static_disorder", "bounds_fall_to_the_exact_value"),
    *_of("calculator counts the vacuum", "extremes", "a_calculator_counts_periodic_directions_only"),
    *_of("chosen without looking", "active", "fewer_barriers_than_at_random", slow=True),
    *_of("clusters weigh alike", "interstitials", "a_channel_in_a_disordered_host_is_exact_and_has_one_axis"),
    *_of("clusters weigh alike", "static_disorder", "clusters_that_no_jump_connects_weigh_by_their_energies"),
    *_of(
        "conjugate gradients end too early",
        "exact",
        "both_solvers_agree",
        "both_solvers_agree_for_degenerate_rates",
        "no_drift_is_left",
    ),
    *_of("conjugate gradients end too early", "static_disorder", "both_solvers_agree"),
    *_of("cumulants of the wrong sign", "density", "known_cumulants_are_found", "models_of_several_temperatures"),
    *_of("cumulants of the wrong sign", "extremes", "series_over_cold_temperatures_are_fitted"),
    *_of("displacement without Δy", "density", "displacement_of_the_carrier_gives_its_kinosons"),
    *_of("enrichment upside down", "density", "ranking_adds_up_and_finds_the_fast_jumps", slow=True),
    *_of("error of a mean of resamples", "density", "slopes_of_a_sample_have_errors", slow=True),
    *_of("error of equal axes that is their sum", "principal", "degenerate_axes_are_said_so"),
    *_of("errors added up", "casm", "the_error_of_the_vacancy_fraction_enters"),
    *_of("every cluster percolates", "interstitials", "blocked_channels_stop_long_range_diffusion"),
    *_of("every cluster percolates", "percolation", "diffusion_ends_at_the_threshold"),
    *_of(
        "every cluster percolates",
        "static_disorder",
        "start_in_a_percolating_cluster_is_told_apart",
        "what_does_not_wrap_carries_exactly_nothing",
    ),
    *_of("every jump counted twice", "active", "complete_pool_equals_transport", "own_attempt_frequencies"),
    *_of("every jump counted twice", "extremes", "every_stage_takes_the_smallest_alloys", slow=True),
    *_of("every jump counted twice", "extremes", "high_barriers_and_low_temperatures_have_numbers"),
    *_of(
        "every jump counted twice",
        "many_decades",
        "a_barrier_of_10_eV_at_50_K_closes_a_jump_with_a_warning",
        "barriers_below_zero_and_large_ones_at_50_K",
    ),
    *_of("exact y of the wrong sign", "exact", "sum_rule_of_many_states", "tracer_factor_of_infinite_crystals"),
    *_of("exact y of the wrong sign", "percolation", "diffusion_ends_at_the_threshold"),
    *_of(
        "exact y of the wrong sign",
        "static_disorder",
        "duality_of_the_square_lattice",
        "few_obstacles_slow_down_by_the_tracer_correlation_factor",
        "random_barriers_in_two_dimensions_leave_the_mean_barrier",
        "vacancy_among_blocked_atoms_is_that_of_all_states",
        "walkers_of_one_arrangement_agree",
    ),
    *_of("failed searches carry nothing", "active", "barriers_that_nobody_computed"),
    *_of("failed searches carry nothing", "active", "failed_searches_are_guessed_and_told"),
    *_of(
        "forgotten residence-time weight",
        "interstitial_ensembles",
        "bound_ladder_and_trajectories_agree_with_the_exact_solution",
        slow=True,
    ),
    *_of("fractions of all sites", "normalisation", "sites_that_do_not_move_count_for_nothing"),
    *_of("half of the tensor has no error", "principal", "independent_elements_give_the_error_of_their_spread"),
    *_of("heat without energies of states", "density", "frozen_relaxation_bounds_every_temperature"),
    *_of("heat without energies of states", "density", "hellmann_feynman_slope_is_the_finite_difference"),
    *_of("heat without energies of states", "density", "slopes_agree"),
    *_of("heat without energies of states", "static_disorder", "quenched_arrangements_have_the_slope_of_their_average"),
    *_of("k_BT one per cent too large", "normalisation", "sites_that_do_not_move_count_for_nothing"),
    *_of(
        "ladder takes off the gain alone", "ill_conditioned", "a_carrier_that_is_not_trapped_is_corrected", by=REFUSED
    ),
    *_of(
        "ladder takes off the gain alone",
        "ladder",
        "every_rung_is_a_bound",
        "noise_does_not_pose_as_a_lower_bound",
        "sum_rules_of_a_sample",
    ),
    *_of("last choice left out", "state_space", "arrangements_are_complete_distinct_and_in_lexicographic_order"),
    *_of("last choice left out", "state_space", "choices_are_those_of_itertools"),
    *_of("mesh with displacements turned about", "many_decades", "few_and_many_neighbours_give_the_same", by=REFUSED),
    *_of("neighbours of the first jump", "density", "neighbours_of_a_jump_by_hand", slow=True),
    *_of("no ring goes around the cell", "interstitials", "blocked_channels_stop_long_range_diffusion"),
    *_of(
        "no ring goes around the cell",
        "static_disorder",
        "interstitial_in_a_frozen_host_is_that_of_all_states",
        "vacancy_among_blocked_atoms_is_that_of_all_states",
        "what_does_not_wrap_carries_exactly_nothing",
    ),
    *_of("one energy for all shells", "interstitial_ensembles", "interactions_of_the_interstitial_count"),
    *_of("only x relaxes", "exact", "tensor_has_the_symmetry_of_the_lattice_and_is_positive"),
    *_of(
        "percolating arrangements for percolating starts",
        "static_disorder",
        "start_in_a_percolating_cluster_is_told_apart",
    ),
    *_of("powers of P longer than the trajectories", "ladder", "powers_fit_the_trajectories"),
    *_of("rates carried with twice the barrier", "density", "bound_curve_of_a_sample_collapses_openly", slow=True),
    *_of(
        "rates carried with twice the barrier", "density", "quenched_reweighting_keeps_the_weight_of_each_arrangement"
    ),
    *_of("rates stay as they are", "density", "models_are_cumulants_of_the_measured_density"),
    *_of("rates stay as they are", "extremes", "densities_carry_to_other_temperatures_without_overflow"),
    *_of("ratio without its root", "ill_conditioned", "pieces_of_the_ladder_without_motion"),
    *_of("reweighting of the wrong sign", "active", "rejected_jumps_and_unstable_states"),
    *_of("shares by the number of jumps", "density", "histograms_have_errors_and_counts", slow=True),
    *_of("shells counted for each kind of site", "interstitials", "energies_of_an_interstitial_count_its_neighbours"),
    *_of(
        "single atoms for all of a species",
        "ill_conditioned",
        "bound_stays_a_bound_with_dependent_clusters",
        "y_that_can_do_nothing",
    ),
    *_of("small numbers have a floor", "extremes", "effective_numbers_do_not_know_the_unit"),
    *_of("small numbers have a floor", "extremes", "a_common_barrier_is_a_common_factor"),
    *_of("smallest axis first", "principal", "a_channel_is_open_along_one_axis"),
    *_of("smallest axis first", "principal", "of_a_transport"),
    *_of("star without its conductance", "many_decades", "a_survey_of_networks", "random_networks"),
    *_of("star without its conductance", "many_decades", "tracers", by=REFUSED),
    *_of("states that relax away keep their weight", "active", "rejected_jumps_and_unstable_states"),
    *_of("states that repeat count once", "active", "states_without_weight"),
    *_of("states that repeat count once", "active", "with_a_relaxation_and_repeated_states"),
    *_of(
        "sums that are hardly numbers have shares",
        "extremes",
        "paths_of_states_that_are_hardly_left_have_no_weight",
        by="RuntimeWarning",
    ),
    *_of("the last item of several threads is lost", "side_by_side", "a_bound_has_the_same_bits"),
    *_of("third cumulant of wrong moments", "density", "models_are_cumulants_of_the_measured_density"),
    *_of("thirty decades are not wide", "many_decades", "one_carrier_in_a_frozen_arrangement"),
    *_of("thirty decades are not wide", "many_decades", "the_case_that_was_silently_wrong"),
    *_of("trajectories start without escape rates", "ladder", "exact_weights_serve_as_well_as_a_sample", slow=True),
    *_of("trajectories start without weights", "ladder", "exact_weights_serve_as_well_as_a_sample", slow=True),
    *_of("volume of the primitive cell", "normalisation", "sites_that_do_not_move_count_for_nothing"),
    *_of("what is chosen is not weighted", "active", "ordered_estimate_is_unbiased"),
    *_of("what is chosen is not weighted", "active", "unbiased_with_honest_errors", slow=True),
    *_of("Λ[0] of exact solutions without ½", "many_decades", "one_species_in_one_state"),
    *_of(
        "½ forgotten in enclosed sums",
        "many_decades",
        "atoms_that_never_move_among_others_that_hardly_do",
        "both_ways_agree_on_every_lattice",
        "bounds_decide_between_the_solvers",
        "every_coefficient_of_enumerated_cells",
        "random_networks",
        "the_case_that_was_silently_wrong",
        "the_two_bounds_enclose_the_answer_of_any_field",
        "tracers",
    ),
)
