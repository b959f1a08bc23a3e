"""Defects and controls of rates, sampling, trajectories, and of the coefficients that follow from them."""

from __future__ import annotations

from tests.controls.control import REFUSED, Control
from tests.controls.floors import estimates, walkers
from tests.controls.floors.listing import caught
from tests.controls.planting import Defect, call, source

DEFECTS: dict[str, Defect] = {
    **walkers.DEFECTS,
    **estimates.DEFECTS,
    # rates
    "own attempt frequencies forgotten": call(
        "all jumps have the common one",
        "kinetics.rates:Rates._frequency",
        lambda right, self, found: self.attempt_frequency,
    ),
    "infinite barriers of zero height": source(
        "jumps that cannot be made are made",
        "kinetics.rates:rates_from_barriers",
        "barrier = np.asarray(barrier, dtype=float)",
        "barrier = np.nan_to_num(np.asarray(barrier, dtype=float), nan=np.nan, posinf=0.0)",
    ),
    "gases return with the rate forth": source(
        "rates back that a gas knows are not used",
        "kinetics.rates:Rates.with_reverse",
        "self.source.reverse_rates(occupations, carriers)",
        "w",
    ),
    "total rates averaged without weights": source(
        "all states weigh alike",
        "kinetics.rates:check_scale",
        "np.asarray(weights, dtype=float) @ np.asarray(rates, dtype=float).sum(axis=1)",
        "np.asarray(rates, dtype=float).sum(axis=1).mean()",
    ),
    "closed saddles of zero height": source(
        "infinite numbers replaced",
        "kinetics.lattice_gas:_BoundSiteBarriers.jump_energies",
        "saddle - start",
        "np.nan_to_num(saddle, posinf=0.0) - start",
    ),
    "rates of 0 have no barrier": source(
        "barrier 0 for a rate of 0", "kinetics.five_frequency:FiveFrequency._energy", "return np.inf", "return 0.0"
    ),
    "w3 and w4 exchanged": source(
        "jumps towards the solute have the rate of those away",
        "kinetics.five_frequency:FiveFrequency.bind",
        "[[w0, w4], [w3, w1]]",
        "[[w0, w3], [w4, w1]]",
    ),
    "vacancy of an exchange stays where it was": source(
        "neighbours counted around the old site",
        "kinetics.five_frequency:_Binding.swap_delta",
        "np.where(before == i, j, np.where(before == j, i, before))",
        "before",
    ),
    "jumps of unsettled barriers not told apart": source(
        "all jumps counted", "kinetics.unsettled:unsettled_shares", "own & barriers.unsettled", "own"
    ),
    # sampling and weights
    "Monte Carlo goes only downhill": source(
        "a quench",
        "kinetics.monte_carlo:MonteCarlo._attempt",
        "ok = delta <= threshold[step, active]",
        "ok = delta < 0.0",
    ),
    "Monte Carlo exchanges all sublattices": source(
        "atoms of fixed sublattices leave them",
        "kinetics.monte_carlo:MonteCarlo._pools",
        "[cell.mobile_sites]",
        "[np.arange(cell.n_sites)]",
    ),
    "attempts counted for accepted ones": source(
        "acceptance turned about",
        "kinetics.monte_carlo:MonteCarlo.report",
        "self._accepted / np.maximum(self._tried, 1)",
        "self._tried / np.maximum(self._accepted, 1)",
    ),
    "carriers of frozen arrangements anywhere": source(
        "heat bath of infinite temperature", "kinetics.heat_bath:CarrierHeatBath.__init__", ") / kT)", ") / kT * 0.0)"
    ),
    "states without energy at 0 eV": source(
        "failed relaxations take part",
        "kinetics.relaxed_energies:RelaxedEnergies.__call__",
        'if result.status == "ok" else np.nan',
        'if result.status == "ok" else 0.0',
    ),
    "blocks accepted by the clock": source(
        "random numbers without a seed",
        "kinetics.delayed_acceptance:sample_with_calculator",
        "np.random.default_rng([seed, 1])",
        "np.random.default_rng()",
    ),
    "free energies of the wrong sign of E": source(
        "exp(f + βE)", "kinetics.pooling:free_energies", "- np.outer(energies, betas)", "+ np.outer(energies, betas)"
    ),
    "pooled states without their mixture": source(
        "how states were drawn forgotten",
        "kinetics.pooling:pool_states",
        "_normalised(target - log_mixture)",
        "_normalised(target)",
    ),
    "chains of different sets taken for one": source(
        "equal numbers, one group", "kinetics.pooling:_apart", "labels + shift", "labels"
    ),
    "memory of τ blocks": source(
        "τ for 2τ", "kinetics.delayed_acceptance:_statistics", "max(1.0, 2.0 * tau)", "max(1.0, tau)"
    ),
    "scatter of chains for that of their mean": source(
        "no √n", "kinetics.monte_carlo:equilibration_z", " / np.sqrt(len(gap))", ""
    ),
    "sets of any size weigh alike": source(
        "sets of different models averaged without their sizes",
        "kinetics.pooling:pool_states",
        "share / np.square(share).sum()",
        "share",
    ),
    "drift of every species that of all": source(
        "jumps of all species counted for each",
        "kinetics.weights:energy_drift",
        "*[live & (kind == c) for c in codes]",
        "*[live for c in codes]",
    ),
    "order around the vacancy by another species": source(
        "fractions in another order",
        "kinetics.short_range_order:warren_cowley",
        "_one_minus_ratio(with_vacancy, fraction, share)",
        "_one_minus_ratio(with_vacancy, fraction[::-1], share)",
    ),
    "order of weighted groups as of equal ones": source(
        "scatter of sums, not of ratios",
        "kinetics.short_range_order:_one_minus_ratio",
        "counts - value * counts.sum(axis=axes, keepdims=True)",
        "counts - counts.mean(axis=0)",
    ),
    "groups without weight make order surer": source(
        "counted among the independent ones",
        "kinetics.short_range_order:warren_cowley",
        "weighs = share > 0",
        "weighs = share >= 0",
    ),
    "pairs at random with themselves": source(
        "n² for n(n − 1)",
        "kinetics.short_range_order:_at_random",
        "(np.outer(own, own) - np.diag(own)) / (sites[s] * max(1, sites[s] - 1))",
        "np.outer(own, own) / sites[s] ** 2",
    ),
}

CONTROLS: tuple[Control, ...] = (
    *caught(
        "kinetics/test_delayed_acceptance",
        ("blocks accepted by the clock", "executors_give_the_same_chains", "", "slow"),
        ("blocks accepted by the clock", "killed_and_resumed", "", "slow"),
        ("memory of τ blocks", "frozen_arrangements_are_no_memory"),
        ("states without energy at 0 eV", "states_without_energy_are_never_accepted"),
    ),
    *caught(
        "kinetics/test_device_kmc",
        ("device adds residence times of Γ", "equal_random_numbers_give_equal_trajectories"),
        ("device follows no atoms", "equal_random_numbers_give_equal_trajectories"),
        ("device forgets blocks that wait", "a_checkpoint_goes_from_one_engine_to_the_other", "", "slow"),
        ("device numbers walkers of each part alike", "walkers_in_parts_give_the_same_ladder"),
        (
            "device random numbers go on where they are",
            "equal_seeds_give_equal_bits_however_a_run_is_divided",
            "",
            "slow",
        ),
        ("device squares without half of the cross terms", "windows_and_burn_in_are_those_of_numpy"),
    ),
    *caught(
        "kinetics/test_extremes",
        ("a small number added to Γ", "trajectories_do_not_know_the_unit_of_time"),
        ("carriers of frozen arrangements anywhere", "equilibrium_weights_know_no_overflow"),
        ("closed saddles of zero height", "a_saddle_that_nothing_crosses_is_a_number"),
        ("device adds residence times of Γ", "pure_and_nearly_pure_lattices_are_sampled_and_run"),
        ("device draws a whole run at once", "an_interruption_between_jumps_leaves_whole_jumps"),
        ("k_BT one per cent too large", "what_is_a_temperature_is_taken"),
        ("own attempt frequencies forgotten", "a_calculator_uses_the_attempt_frequencies_of_the_jumps"),
    ),
    *caught(
        "kinetics/test_five_frequency",
        ("rates of 0 have no barrier", "a_rate_of_zero_is_no_jump"),
        ("vacancy of an exchange stays where it was", "energy_of_an_exchange"),
        ("w3 and w4 exchanged", "every_jump_has_its_rate"),
    ),
    *caught(
        "kinetics/test_kmc",
        ("atoms of paired blocks mixed up", "the_ladder_sums_the_squares_of_all_blocks"),
        ("blocks that wait are lost", "a_resumed_run_is_the_same_run"),
        ("burn-in forgotten", "burn_in_forgets_a_wrong_start"),
        ("every second block of jumps", "the_ladder_sums_the_squares_of_all_blocks"),
        ("random numbers go on where they are", "a_resumed_run_is_the_same_run"),
        ("snapshots of one group each", "walkers_of_states_without_weight_do_not_start"),
        ("species rates of another species", "the_table_of_species_rates_gives_what_rates_give"),
        ("starts without escape rates", "walkers_of_states_without_weight_do_not_start"),
        ("walkers are groups of their own", "walkers_of_states_without_weight_do_not_start"),
    ),
    *caught(
        "kinetics/test_kmc_loops",
        ("random numbers go on where they are", "walkers_stopped_in_the_middle_of_a_jump_go_no_further"),
        ("slices share a walker", "slices_hold_every_walker_once"),
    ),
    *caught(
        "kinetics/test_neighbors",
        ("neighbours drawn alike", "neighbors_are_one_jump_away_and_drawn_by_their_rates", "", "slow"),
    ),
    *caught(
        "kinetics/test_pooling",
        ("chains of different sets taken for one", "report_and_groups"),
        ("free energies of the wrong sign of E", "free_energies_are_those_of_the_partition_function"),
        ("pooled states without their mixture", "one_set_at_its_own_temperature_is_reweighted"),
        ("pooled states without their mixture", "pooled_average_is_exact_within_its_error_and_better_than_one_set"),
        ("sets of any size weigh alike", "sets_of_different_models_are_weighted_apart"),
    ),
    *caught(
        "kinetics/test_rates",
        ("gases return with the rate forth", "a_gas_may_know_its_reverse_rates_and_the_energies_of_its_states"),
        ("infinite barriers of zero height", "rejected_jumps_have_no_rate_in_either_direction"),
        ("k_BT one per cent too large", "rates_span_300_decades"),
        ("rates of the inverse Boltzmann factor", "energies_rates_and_weights_of_each_kind_of_source"),
        ("total rates averaged without weights", "the_mean_is_over_weighted_states"),
    ),
    *caught(
        "kinetics/test_recording",
        ("first state recorded", "frames_follow_every_jump"),
        ("forgotten residence-time weight", "tracers_diffuse_as_the_exact_solution_says", "", "slow"),
        ("frames in picoseconds", "states_between_jumps_do_not_change"),
        ("interstitials move what they meet", "interstitials_are_followed_in_a_host_that_stands_still"),
        ("jumps seen a frame late", "states_between_jumps_do_not_change"),
        ("mean residence times recorded", "equal_seeds_give_equal_trajectories_and_waiting_times_are_exponential"),
        ("the wrong atom is followed", "frames_follow_every_jump", REFUSED),
        ("vacancy moves with the atoms", "frames_follow_every_jump"),
    ),
    *caught(
        "kinetics/test_sampling",
        ("Monte Carlo at twice the temperature", "random_numbers_drawn_in_parts_sample_the_same_distribution"),
        ("Monte Carlo exchanges all sublattices", "counts_and_sublattices"),
        ("Monte Carlo goes only downhill", "model_without_energy"),
        ("Monte Carlo goes uphill", "interstitial_states"),
        ("attempts counted for accepted ones", "report_of_chains"),
        ("carriers of frozen arrangements anywhere", "against_enumeration"),
        ("drift of every species that of all", "energy_drift"),
        ("exchanged neighbours counted as strangers", "chains_continue"),
        ("scatter of chains for that of their mean", "drifting_chains_are_told_in_standard_errors"),
    ),
    *caught(
        "kinetics/test_short_range_order",
        ("groups without weight make order surer", "interactions_make_order"),
        ("order around the vacancy by another species", "random_cells"),
        ("order of weighted groups as of equal ones", "interactions_make_order"),
        ("pairs at random with themselves", "random_cells"),
    ),
    *caught(
        "kinetics/test_unsettled",
        ("jumps of unsettled barriers not told apart", "settled_barriers_carry_everything"),
    ),
    *caught(
        "kinosons/test_correction",
        ("model evaluated with weights of the reference", "ratio_estimate_is_closer_than_the_bound", "", "slow"),
        ("model over reference", "ratio_estimate_is_closer_than_the_bound", "", "slow"),
        ("neighbours drawn alike", "first_rung_is_unbiased", "", "slow"),
        ("neighbours drawn alike", "first_rung_with_energies", "", "slow"),
        ("ratio estimate on jumps of the model", "ratio_estimate_is_closer_than_the_bound", "", "slow"),
        ("ratio estimate without its ratio", "gas_as_a_model_of_another_gas", "", "slow"),
        ("ratio estimate without its ratio", "ratio_estimate_is_closer_than_the_bound", "", "slow"),
        ("states of energies taken for those of a gas", "states_of_energies_are_no_equilibrium_of_a_gas", "", "slow"),
    ),
    *caught(
        "kinosons/test_coverage",
        ("as many groups drawn as there are", "few_groups"),
        ("groups without weight are drawn", "groups_without_weight_are_not_drawn"),
        ("scatter of few groups taken for normal", "a_scatter_of_one_group"),
    ),
    *caught(
        "kinosons/test_finite_size",
        ("corrected bounds stay bounds", "a_corrected_bound_is_an_estimate_with_an_error"),
        ("drift of the tracer's images left out", "every_tracer_of_a_concentrated_alloy"),
        ("drift of the tracer's images left out", "solutes_of_other_rates"),
        ("error of c_v left out", "diffusivity_of_a_pure_crystal_is_that_of_the_infinite_one"),
        ("images of the tracer of the wrong sign", "solutes_of_other_rates"),
        ("images of the tracer without d", "every_tracer_of_a_concentrated_alloy"),
        ("images of the tracer without d", "images_explain_the_size_of_the_cell"),
        ("site of the vacancy left out", "diffusivity_of_a_pure_crystal_is_that_of_the_infinite_one"),
        ("sizes of cells fitted against N", "extrapolation_of_exact_cells"),
        ("sizes of cells fitted without their errors", "errors_of_the_extrapolation"),
    ),
    *caught(
        "kinosons/test_trajectories",
        ("forgotten residence-time weight", "atoms_that_cannot_move_need_no_lag"),
        ("forgotten residence-time weight", "ensembles_that_trajectories_do_not_keep", "", "slow"),
        ("forgotten residence-time weight", "interstitials_in_a_crystal_with_two_kinds_of_sites", "", "slow"),
        ("forgotten residence-time weight", "models_with_energies_agree_with_exact_solutions", "", "slow"),
        ("forgotten residence-time weight", "the_result_is_a_transport_and_serialises"),
        ("mean time taken for certain", "gases_agree_with_exact_solutions", "", "slow"),
        ("random numbers go on where they are", "checkpoints_resume_and_extend_bit_for_bit", "", "slow"),
        ("walkers of other energies are no matter", "states_of_other_energies_are_an_estimate"),
    ),
    *caught(
        "kinosons/test_vacancy_formation",
        ("error of c_v for that of its logarithm", "entropy_and_table"),
        ("formation entropy left out", "entropy_and_table"),
        ("free energy of the drawing model", "model_that_draws_arrangements_changes_nothing_when_it_is_exact"),
        ("full chemical potentials", "alloy_of_equal_atoms_is_a_pure_crystal"),
        ("full chemical potentials", "equilibrium_agrees_with_a_crystal_in_contact_with_reservoirs"),
        ("full chemical potentials", "equilibrium_agrees_with_enumeration"),
        ("identities changed the other way round", "random_alloy_agrees_with_enumeration"),
        ("integral of the first energy", "free_energy_of_the_chains_is_that_of_enumeration"),
        ("plain trapezoids of β", "free_energy_of_the_chains_is_that_of_enumeration", "", "slow"),
        ("potentials of frozen atoms by Boltzmann factors", "random_alloy_agrees_with_enumeration"),
        ("site preference turned about", "random_alloy_agrees_with_enumeration"),
        ("sites averaged by their energies", "random_alloy_agrees_with_enumeration"),
        ("sites weigh as they were drawn", "alloy_of_equal_atoms_is_a_pure_crystal"),
        (
            "stores return the energies of other states",
            "nothing_that_was_computed_is_lost_or_computed_again",
            "",
            "slow",
        ),
    ),
    *caught(
        "kinosons/test_vacancy_fraction",
        ("error of c_v left out", "error_of_the_fraction_enters_what_is_proportional_to_it"),
        ("error of c_v left out", "results_tell_the_fraction_its_error_and_source"),
    ),
    *caught(
        "kinosons/test_verdict",
        ("Monte Carlo at twice the temperature", "complete_barriers_make_a_bound", REFUSED),
        ("drift is no matter", "states_that_drift_are_no_bound"),
        ("exact y of the wrong sign", "zero_rates_do_not_break_the_exact_solver"),
        ("failed searches are no loss", "failed_searches_are_missing_data_but_unstable_ends_are_not"),
        ("groups counted by size", "one_group_that_carries_everything_is_announced"),
        ("quenched states weigh as in equilibrium", "slope_of_the_quenched_ensemble", "", "slow"),
        ("reweighting of the wrong sign", "unweighted_states_of_another_model_are_no_bound", REFUSED),
        ("states of a group taken for groups", "one_group_that_carries_everything_is_announced"),
        ("states of other energies are no matter", "unweighted_states_of_another_model_are_no_bound"),
        ("vacuum counts as a direction", "buckling_does_not_count_as_diffusion"),
    ),
)
