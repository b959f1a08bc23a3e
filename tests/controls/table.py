"""Which physical assertion must notice which defect."""

from __future__ import annotations

from tests.controls import floors
from tests.controls.control import REFUSED, Control

__all__ = ["CONTROLS", "NAMED"]

NAMED = (
    "unsymmetrised K",
    "forgotten residence-time weight",
    "train/test leak",
    "y evaluated on training states",
    "species swapped in the tracer gather",
    "wrong minimum image",
)
"""Mistakes that are easily made and hard to see in a result: each must be planted, whatever else is."""

CONTROLS = (
    *floors.CONTROLS,
    Control(
        "Boltzmann weights forgotten",
        "tests/crystal/test_jumps.py::test_interstitial_in_hcp_has_the_exact_tensor",
        by=REFUSED,
    ),
    Control(
        "Boltzmann weights forgotten",
        "tests/kinosons/test_interstitial_ensembles.py::test_exact_weights_of_frozen_hosts",
        by=REFUSED,
    ),
    Control(
        "K with the whole ΔE",
        "tests/properties/test_barriers.py::test_every_source_is_consistent_with_the_jump_back",
        slow=True,
    ),
    Control("K with the whole ΔE", "tests/test_testing.py::test_own_models_pass"),
    Control("K without the group of its jump", "tests/barriers/test_learned.py::test_symmetry_by_construction"),
    Control("K without the group of its jump", "tests/test_testing.py::test_own_models_pass"),
    Control("Monte Carlo at twice the temperature", "tests/kinetics/test_sampling.py::test_against_enumeration"),
    Control("Monte Carlo goes uphill", "tests/kinetics/test_sampling.py::test_against_enumeration"),
    Control("Monte Carlo goes uphill", "tests/kinetics/test_short_range_order.py::test_interactions_make_order"),
    Control(
        "Onsager coefficients without k_BT",
        "tests/kinosons/test_derived.py::test_formulas_against_onsager_coefficients_in_si",
    ),
    Control(
        "Onsager coefficients without k_BT",
        "tests/kinosons/test_normalisation.py::test_onsager_coefficients_of_planes_and_chains",
    ),
    Control("a jump is its own reverse", "tests/crystal/test_jumps.py::test_a_jump_and_its_reverse_restore_the_state"),
    Control(
        "a jump is its own reverse", "tests/crystal/test_jump_tables.py::test_every_entry_is_that_of_its_pair_of_sites"
    ),
    Control("all jumps in one class", "tests/crystal/test_jumps.py::test_number_of_jumps_and_classes"),
    Control("all jumps in one class", "tests/crystal/test_jumps.py::test_restrict_keeps_whole_classes_and_reverses"),
    Control(
        "all jumps in one class",
        "tests/crystal/test_jump_tables.py::test_bonds_up_to_a_tenth_longer_than_the_shortest_are_jumps",
    ),
    Control("angular frequency for frequency", "tests/barriers/test_prefactor.py::test_double_well_is_exact"),
    Control(
        "atoms move with the vacancy",
        "tests/kinosons/test_functional.py::test_bare_displacements_are_those_of_the_atoms_that_jumps_move",
    ),
    Control(
        "atoms move with the vacancy",
        "tests/kinosons/test_stencil.py::test_zero_look_ahead_and_zero_weights_give_bare_jumps",
    ),
    Control(
        "atoms move with the vacancy",
        "tests/kinosons/test_jump_terms.py::test_jump_terms_are_those_of_single_atoms_followed_from_site_to_site",
    ),
    Control(
        "barrier of the way back of the wrong sign",
        "tests/properties/test_kinetics.py::test_rates_balance_the_weights",
        slow=True,
    ),
    Control("cells wrapped without their shear", "tests/crystal/test_supercell.py::test_translations_form_a_group"),
    Control(
        "cells wrapped without their shear",
        "tests/crystal/test_supercell.py::test_hermite_indexing_is_that_of_the_lattice",
    ),
    Control("detailed balance broken", "tests/kinetics/test_lattice_gas.py::test_pair_barriers_obey_detailed_balance"),
    Control("detailed balance broken", "tests/test_testing.py::test_own_models_pass"),
    Control(
        "drift of all atoms not removed",
        "tests/crystal/test_supercell.py::test_displaced_shuffled_wrapped_strained_atoms_round_trip",
    ),
    Control("drift without weights of states", "tests/kinetics/test_sampling.py::test_energy_drift"),
    Control("drift without weights of states", "tests/properties/test_kinetics.py::test_nothing_drifts_in_equilibrium"),
    Control(
        "energies without the group of their site", "tests/barriers/test_learned.py::test_symmetry_by_construction"
    ),
    Control("energies without the group of their site", "tests/kinosons/test_relaxation.py::test_equivariance"),
    Control("errors a third of what they are", "tests/kinosons/test_transport.py::test_bootstrap_error_of_a_mean"),
    Control(
        "errors a third of what they are",
        "tests/kinosons/test_density.py::test_bootstrap_error_is_the_scatter_of_independent_samples",
    ),
    Control("errors a third of what they are", "tests/kinosons/test_derived.py::test_errors_come_from_the_resamples"),
    Control("every jump counted twice", "tests/kinosons/test_transport.py::test_pure_metal_in_laboratory_units"),
    Control("every jump counted twice", "tests/kinosons/test_transport.py::test_kinosons_add_up", slow=True),
    Control("every jump counted twice", "tests/kinosons/test_casm.py::test_the_definition_of_van_der_ven"),
    Control("exact jumps counted twice", "tests/crystal/test_jumps.py::test_interstitial_in_hcp_has_the_exact_tensor"),
    Control("exact y of the wrong sign", "tests/kinosons/test_exact.py::test_tiny_random_alloys"),
    Control("exact y of the wrong sign", "tests/kinosons/test_exact.py::test_tracer_factor_of_finite_cells"),
    Control(
        "exact y of the wrong sign",
        "tests/kinosons/test_percolation.py::test_arrangements_percolate_exactly_when_their_kinosons_do_not_vanish",
    ),
    Control("exact y of the wrong sign", "tests/kinosons/test_static_disorder.py::test_chain_is_resistors_in_series"),
    Control(
        "exchanged neighbours counted as strangers",
        "tests/barriers/test_energy.py::test_swap_delta_is_the_full_difference",
    ),
    Control("factor d forgotten", "tests/kinosons/test_transport.py::test_pure_metal_in_laboratory_units"),
    Control("factor d forgotten", "tests/kinosons/test_transport.py::test_kinosons_add_up", slow=True),
    Control("factor d forgotten", "tests/kinosons/test_exact.py::test_tiny_random_alloys"),
    Control("factor d forgotten", "tests/kinosons/test_interstitials.py::test_carbon_in_iron"),
    Control(
        "forgotten residence-time weight", "tests/kinosons/test_trajectories.py::test_gases_agree_with_exact_solutions"
    ),
    Control("jump vector of the wrong sign", "tests/crystal/test_jumps.py::test_targets_lie_at_the_jump_vectors"),
    Control(
        "jump vector of the wrong sign", "tests/crystal/test_jumps.py::test_reverse_of_reverse_and_opposite_vectors"
    ),
    Control("jump vector of the wrong sign", "tests/crystal/test_jumps.py::test_jumps_are_closed_under_the_group"),
    Control("jump vector of the wrong sign", "tests/kinosons/test_exact.py::test_hcp_interstitial_tensor"),
    Control(
        "jump vector of the wrong sign",
        "tests/crystal/test_jump_tables.py::test_every_entry_is_that_of_its_pair_of_sites",
    ),
    Control(
        "jumps drawn from equal probabilities",
        "tests/kinetics/test_kmc.py::test_time_averages_are_equilibrium_averages_from_the_first_jump",
    ),
    Control(
        "jumps drawn from equal probabilities",
        "tests/kinosons/test_trajectories.py::test_gases_agree_with_exact_solutions",
    ),
    Control(
        "jumps drawn from equal probabilities",
        "tests/kinetics/test_snapshots.py::test_residence_times_weigh_the_states_that_walkers_are_in",
    ),
    Control("k_BT one per cent too large", "tests/kinetics/test_lattice_gas.py::test_rates_from_barriers"),
    Control(
        "k_BT one per cent too large", "tests/crystal/test_jumps.py::test_carbon_in_iron_has_the_published_prefactor"
    ),
    Control(
        "k_BT one per cent too large", "tests/kinosons/test_vacancy_fraction.py::test_formation_energy_and_entropy"
    ),
    Control("k_BT one per cent too large", "tests/kinosons/test_interstitials.py::test_carbon_in_iron"),
    Control(
        "k_BT one per cent too large",
        "tests/kinosons/test_density.py::test_hellmann_feynman_slope_is_the_finite_difference",
    ),
    Control("k_BT one per cent too large", "tests/kinetics/test_rates.py::test_rates_are_those_of_the_formula"),
    Control("kinosons of twice the size", "tests/kinosons/test_transport.py::test_kinosons_add_up", slow=True),
    Control(
        "kinosons of twice the size",
        "tests/kinosons/test_density.py::test_density_integrates_to_the_coefficient",
        by=REFUSED,
    ),
    Control(
        "kinosons of twice the size",
        "tests/properties/test_kinosons.py::test_the_exact_solution_is_a_transport_matrix_and_the_sum_of_its_kinosons",
    ),
    Control("masses forgotten", "tests/barriers/test_prefactor.py::test_double_well_is_exact"),
    Control(
        "moving species of the carrier's site",
        "tests/kinosons/test_functional.py::test_bare_displacements_are_those_of_the_atoms_that_jumps_move",
    ),
    Control(
        "moving species of the carrier's site", "tests/kinosons/test_exact.py::test_tiny_random_alloys", by=REFUSED
    ),
    Control("moving species of the carrier's site", "tests/kinosons/test_onsager_oracle.py::test_five_frequency_table"),
    Control(
        "moving species of the carrier's site",
        "tests/crystal/test_jump_tables.py::test_the_atom_that_moves_is_the_one_at_the_other_end",
    ),
    Control(
        "only the nearest image by axes", "tests/crystal/test_minimum_image.py::test_images_are_the_nearest_of_all"
    ),
    Control("order of the wrong sign", "tests/kinetics/test_short_range_order.py::test_b2"),
    Control("order of the wrong sign", "tests/kinetics/test_short_range_order.py::test_l12"),
    Control(
        "quenched states weigh as in equilibrium",
        "tests/kinosons/test_state_space.py::test_quenched_weights_move_the_vacancy_only",
    ),
    Control(
        "quenched weights over all arrangements",
        "tests/kinetics/test_sampling.py::test_reweighting_recovers_the_exact_average",
    ),
    Control(
        "rates of the inverse Boltzmann factor",
        "tests/kinosons/test_variational.py::test_monte_carlo_states_agree_with_enumeration",
        slow=True,
    ),
    Control(
        "relaxed jumps that are no difference",
        "tests/kinosons/test_variational.py::test_every_y_is_an_upper_bound",
        slow=True,
    ),
    Control(
        "relaxed jumps that are no difference",
        "tests/test_calculators.py::test_kinosons_follow_from_the_relaxation_before_and_after_every_jump",
    ),
    Control(
        "relaxed jumps that are no difference",
        "tests/kinosons/test_stencil.py::test_differences_equal_those_from_scratch",
    ),
    Control(
        "relaxed jumps that are no difference",
        "tests/kinosons/test_jump_terms.py::test_jump_terms_are_those_of_single_atoms_followed_from_site_to_site",
    ),
    Control(
        "residence times forgotten in expected squares",
        "tests/kinosons/test_trajectories.py::test_gases_agree_with_exact_solutions",
    ),
    Control(
        "reweighting of the wrong sign",
        "tests/kinosons/test_variational.py::test_reweighting_repairs_a_wrong_model",
        slow=True,
    ),
    Control(
        "reweighting of the wrong sign", "tests/kinetics/test_sampling.py::test_reweighting_recovers_the_exact_average"
    ),
    Control(
        "site energy of the wrong end",
        "tests/crystal/test_jumps.py::test_interstitial_in_hcp_has_the_exact_tensor",
        by=REFUSED,
    ),
    Control(
        "site energy of the wrong end",
        "tests/kinosons/test_interstitials.py::test_hcp_tensor_with_sites_and_jumps_found_from_the_structure",
        by=REFUSED,
    ),
    Control(
        "sites of cells counted in another order",
        "tests/crystal/test_supercell.py::test_hermite_indexing_is_that_of_the_lattice",
    ),
    Control(
        "sites of cells counted in another order",
        "tests/crystal/test_supercell.py::test_neighbors_are_translation_invariant_and_where_they_should_be",
    ),
    Control(
        "snapshots without residence times",
        "tests/kinetics/test_snapshots.py::test_residence_times_weigh_the_states_that_walkers_are_in",
    ),
    Control(
        "species swapped in the tracer gather",
        "tests/kinosons/test_functional.py::test_each_atom_counts_for_its_species_once",
    ),
    Control(
        "species swapped in the tracer gather",
        "tests/properties/test_kinosons.py::test_any_relaxation_bounds_the_matrix_and_the_tracers",
        slow=True,
    ),
    Control(
        "species swapped in the tracer gather",
        "tests/kinosons/test_stencil.py::test_differences_equal_those_from_scratch",
    ),
    Control(
        "species swapped in the tracer gather",
        "tests/kinosons/test_jump_terms.py::test_jump_terms_are_those_of_single_atoms_followed_from_site_to_site",
    ),
    Control(
        "starts without escape rates",
        "tests/kinetics/test_kmc.py::test_time_averages_are_equilibrium_averages_from_the_first_jump",
    ),
    Control(
        "starts without escape rates",
        "tests/kinetics/test_snapshots.py::test_residence_times_weigh_the_states_that_walkers_are_in",
    ),
    Control(
        "states resampled one by one",
        "tests/kinosons/test_transport.py::test_copies_of_a_state_bring_no_information",
        slow=True,
    ),
    Control(
        "sum over atoms with the wrong sign",
        "tests/kinosons/test_derived.py::test_random_alloy_sum_rule_fixes_the_drag_ratio",
    ),
    Control("sum over atoms with the wrong sign", "tests/kinosons/test_derived.py::test_a_bound_solute_is_dragged"),
    Control("tagged atom counts once", "tests/kinosons/test_exact.py::test_tiny_tracers"),
    Control("temperature in degrees Celsius", "tests/kinosons/test_exact.py::test_hcp_interstitial_tensor"),
    Control("the atom that moved stays", "tests/crystal/test_jumps.py::test_a_jump_and_its_reverse_restore_the_state"),
    Control(
        "the atom that moved stays",
        "tests/kinosons/test_state_space.py::test_every_jump_leads_to_the_state_it_makes",
        by="KeyError",
    ),
    Control(
        "the atom that moved stays",
        "tests/crystal/test_jump_tables.py::test_the_atom_that_moves_is_the_one_at_the_other_end",
    ),
    Control("the wrong atom is followed", "tests/kinetics/test_kmc.py::test_atoms_are_where_their_displacements_lead"),
    Control(
        "tracer jumps counted twice", "tests/kinosons/test_transport.py::test_kinosons_add_up", by=REFUSED, slow=True
    ),
    Control("train/test leak", "tests/barriers/test_leaks.py::test_what_is_tested_on_is_never_trained_on"),
    Control(
        "train/validation leak",
        "tests/kinosons/test_training.py::test_validation_states_are_never_trained_on",
        slow=True,
    ),
    Control("translation drift", "tests/kinosons/test_relaxation.py::test_equivariance"),
    Control("translation drift", "tests/kinosons/test_stencil.py::test_y_is_translation_invariant"),
    Control("unsymmetrised K", "tests/kinetics/test_lattice_gas.py::test_pair_barriers_obey_detailed_balance"),
    Control("unsymmetrised K", "tests/test_testing.py::test_own_models_pass"),
    Control(
        "unsymmetrised K",
        "tests/properties/test_barriers.py::test_every_source_is_consistent_with_the_jump_back",
        slow=True,
    ),
    Control(
        "vacancy wind of the wrong sign",
        "tests/kinosons/test_derived.py::test_equal_atoms_interdiffuse_like_tracers_without_common_drift",
    ),
    Control(
        "vacancy wind of the wrong sign",
        "tests/kinosons/test_derived.py::test_intrinsic_diffusivities_of_a_random_alloy_go_like_the_rates",
    ),
    Control(
        "vacuum counts as a direction",
        "tests/kinosons/test_normalisation.py::test_only_the_plane_counts_in_a_buckled_layer",
    ),
    Control(
        "vacuum counts as a direction",
        "tests/crystal/test_jump_tables.py::test_projectors_keep_what_lies_in_the_periodic_directions",
    ),
    Control(
        "volume of the primitive cell",
        "tests/kinosons/test_derived.py::test_formulas_against_onsager_coefficients_in_si",
    ),
    Control(
        "volume of the primitive cell",
        "tests/kinosons/test_normalisation.py::test_onsager_coefficients_of_planes_and_chains",
    ),
    Control("walkers turned about", "tests/kinetics/test_kmc.py::test_atoms_are_where_their_displacements_lead"),
    Control(
        "walkers turned about",
        "tests/properties/test_kinetics.py::test_atoms_are_conserved_and_where_their_displacements_say",
    ),
    Control(
        "weights of states forgotten",
        "tests/kinosons/test_variational.py::test_reweighting_repairs_a_wrong_model",
        slow=True,
    ),
    Control(
        "weights of states forgotten",
        "tests/properties/test_kinosons.py::test_any_relaxation_bounds_averages_over_states_of_unlike_weight",
        slow=True,
    ),
    Control(
        "wrong minimum image",
        "tests/crystal/test_supercell.py::test_displaced_shuffled_wrapped_strained_atoms_round_trip",
        by=REFUSED,
    ),
    Control(
        "wrong minimum image",
        "tests/test_calculators.py::test_displaced_shuffled_drifted_atoms_give_the_same_in_their_order",
        by=REFUSED,
    ),
    Control(
        "wrong minimum image", "tests/test_kinoson_view.py::test_vectors_are_minimum_images_and_species_those_that_move"
    ),
    Control("wrong minimum image", "tests/crystal/test_minimum_image.py::test_images_are_the_nearest_of_all"),
    Control(
        "wrong minimum image", "tests/crystal/test_minimum_image.py::test_atoms_of_a_skewed_cell_are_found", by=REFUSED
    ),
    Control(
        "y evaluated on training states",
        "tests/kinosons/test_transport.py::test_states_that_trained_the_model_are_no_held_out_bound",
        slow=True,
    ),
    Control(
        "y evaluated on training states",
        "tests/kinosons/test_verdict.py::test_states_that_trained_y_are_no_held_out_bound",
        slow=True,
    ),
    Control(
        "y evaluated on training states",
        "tests/kinosons/test_streaming.py::test_states_that_trained_the_relaxation_are_found_in_any_chunk",
    ),
    Control("zz taken for yz", "tests/kinosons/test_functional.py::test_each_atom_counts_for_its_species_once"),
)
