"""Defects and controls of tests/kinosons: relaxations, their training, states in chunks."""

from __future__ import annotations

from tests.controls.control import REFUSED, Control
from tests.controls.planting import Defect, call, source

DEFECTS: dict[str, Defect] = {
    # the functional
    "chunks of jumps of the first carriers": source(
        "each chunk is written over the first",
        "kinosons.functional:jump_terms",
        "displacement[part], tracer[part] =",
        "displacement[rows[: len(part)]], tracer[rows[: len(part)]] =",
    ),
    "exact flows of the first chunk": source(
        "every chunk of states flows like the first",
        "kinosons.exact:solve_exactly",
        "_outer(flow[part], _displacements(space, part) +",
        "_outer(flow[: len(flow[part])], _displacements(space, part) +",
    ),
    "interstitials move against their jumps": source(
        "sign of δx", "kinosons.functional:bare_displacements", "sign = 1.0 if", "sign = -1.0 if"
    ),
    # paths and the ball
    "coefficients without symmetry": source(
        "clusters have vectors in any direction",
        "kinosons.cluster_orbits:_invariant_vectors",
        "projector @ rotations.mean(axis=0)",
        "projector",
    ),
    "cutoff of clusters ignored": source(
        "sites count however far they are",
        "kinosons.cluster_orbits:list_clusters",
        "distance <= pair_cutoff + UNIT",
        "distance <= np.inf",
    ),
    "followed jumps the wrong way": source(
        "atoms move with the vacancy on the paths", "kinosons.ball:Ball.build", "else -1.0", "else 1.0"
    ),
    "gates in a linear form": source(
        "clusters with learned factors of paths",
        "kinosons.relaxation:Relaxation.create",
        "gates or 0",
        "gates or 32",
    ),
    "labels of sites for those of atoms": source(
        "atoms have the labels of the sites that they left",
        "kinosons.stencil:Stencil.build",
        "moved.get(int(t), int(t)), moved",
        "int(t), moved",
    ),
    "paths of equal probability": source(
        "rates do not count on the paths",
        "kinosons.paths:Paths.of",
        "p = _divide(w, total[..., None])",
        "p = _divide((w > 0) * 1.0, (w > 0).sum(axis=-1)[..., None])",
    ),
    # maps by characters
    "characters of one generator": source(
        "other generators have no sign",
        "kinosons.twofold:Twofold.of",
        "bits.sum(axis=-1)",
        "bits[..., 0]",
    ),
    "constant of the filters forgotten": source(
        "the input that is 1 is 0", "kinosons.twofold:SignedInputs.write", "found[0, -1] = 1.0", "found[0, -1] = 0.0"
    ),
    "derivative from what lies in memory": source(
        "activations of another graph",
        "kinosons.field:_Network.backward",
        "_evaluate(tables, codes, lift, project, layers, memory, size=size, keep=True)",
        "pass",
    ),
    "fields that see no occupants": source(
        "all sites look alike",
        "kinosons.twofold:SignedInputs.write",
        ".to(found.dtype).view(-1, n)",
        ".to(found.dtype).view(-1, n) * 0.0",
    ),
    # closed forms and training
    "copies share their weights": source(
        "another precision changes the first",
        "kinosons.relaxation:Relaxation.to",
        "copy.deepcopy(self.field)",
        "self.field",
    ),
    "chains of training stand still": source(
        "fresh states are old ones", "kinosons.training:_Fresh.renew", "self.chain.run(REFRESH_SWEEPS)", "pass"
    ),
    "fine-tuned on rates of the model": source(
        "reference barriers forgotten in the functional",
        "kinosons.training:fine_tune",
        "owners(states[~held].groups, ranks), rates=rates)",
        "owners(states[~held].groups, ranks))",
    ),
    "half a step to the minimum": source(
        "½ forgotten in the curvature",
        "kinosons.galerkin:solve_linear",
        "lambda v: unit * (gradient(start + unit * v) - origin)",
        "lambda v: 2.0 * unit * (gradient(start + unit * v) - origin)",
    ),
    "ridge forgotten in the solution": source(
        "H for H + λ", "kinosons.galerkin:_Krylov._coordinates", "values[kept] + shift", "values[kept]"
    ),
    "uphill to the minimum": source("H θ = g", "kinosons.galerkin:solve_linear", "-unit * origin", "unit * origin"),
    "batches without a seed": source(
        "no training is like another",
        "kinosons.training:train_relaxation",
        "rng = np.random.default_rng(seed)",
        "rng = np.random.default_rng()",
    ),
    "random numbers of one's own chains": source(
        "streams depend on the number of processes",
        "kinosons.distributed:Columns.random",
        "self.rng.random((size[0], self.n))[:, self.own]",
        "self.rng.random((size[0], len(self.own)))",
    ),
    "states shared out one by one": source(
        "groups are torn", "kinosons.distributed:owners", "who[member]", "np.arange(len(member)) % ranks.size"
    ),
    "weights in half precision": call(
        "files lose digits",
        "kinosons.relaxation_files:save",
        lambda right, tensors: right(
            {k: v.half().to(v.dtype) if v.is_floating_point() else v for k, v in tensors.items()}
        ),
    ),
    "closed form without weights of states": source(
        "all states weigh alike",
        "kinosons.galerkin:_double",
        "weights=pool.weights[rows].double()",
        "weights=torch.ones(len(rows), dtype=torch.float64)",
    ),
    "fine-tuned states alone count as seen": source(
        "those of the training are forgotten",
        "kinosons.training:fine_tune",
        "{*before, *states.keys}",
        "{*states.keys}",
    ),
    "fresh states not told as seen": source(
        "bounds on them would be no held-out ones",
        "kinosons.training:train_relaxation",
        "{*states.keys, *(ranks.union(chain.keys) if chain is not None else ())}",
        "{*states.keys}",
    ),
    "weights of the last epoch kept": source(
        "however bad they are", "kinosons.training:_Run.note", "if value < self.best:", "if True:"
    ),
    "chains do not take turns": source(
        "the first chains have most states",
        "kinosons.training:_Fresh.renew",
        "(self.next + len(turn)) % len(self.groups)",
        "0",
    ),
    "fresh states in groups of others": source(
        "chains are mixed up",
        "kinosons.training:_Fresh.renew",
        "groups.append(self.groups[here])",
        "groups.append(np.roll(self.groups[here], 1))",
    ),
    "fresh states of the wrong temperature": source(
        "training goes on at 4 T",
        "kinosons.training:_Fresh.__init__",
        "states.temperature_K,\n",
        "4.0 * states.temperature_K,\n",
    ),
    "processes filled as groups come": source(
        "small groups first",
        "kinosons.distributed:owners",
        'np.argsort(-counts, kind="stable")',
        "np.arange(len(counts))",
    ),
    "scale of rates without weights": source(
        "all states weigh alike",
        "kinosons.closure:Closure.calibrate",
        "weights[:, None].expand_as(paths.log_rate).reshape(-1)",
        "torch.ones_like(paths.log_rate).reshape(-1)",
    ),
    # one jump more
    "factors of the height of sites": source(
        "all three directions count", "kinosons.deeper:deepen", "(moved @ along, change @ along)", "(moved, change)"
    ),
    "factors without weights of states": source(
        "all states weigh alike", "kinosons.deeper:deepen", "base.rates * states.weights[part, None]", "base.rates"
    ),
    "atoms change places in the residual": source(
        "sites are taken for atoms",
        "kinosons.deeper:_parts",
        "x[:, [around.start, end]] = x[:, [end, around.start]]",
        "pass",
    ),
    "residual of jumps, not of time": source(
        "all jumps weigh alike",
        "kinosons.deeper:_parts",
        'np.einsum("nk,nkwx->nwx", p, found.moved, optimize=True)',
        "found.moved.mean(axis=1)",
    ),
    "residual of the wrong sign": source("y − θ r̄", "kinosons.deeper:deepen", "-np.linalg.solve", "np.linalg.solve"),
    # states in chunks
    "chunks weigh alike": source(
        "a small chunk as heavy as a large one", "kinosons.state_chunks:with_total", "float(len(states)) if", "1.0 if"
    ),
    "chunks from one seed": source(
        "all are the same states", "kinosons.state_chunks:sample_chunks", "[int(seed), number]", "[int(seed), 0]"
    ),
    "chunks summed as they come": source(
        "the last worker first",
        "kinosons.streaming:_in_order",
        "yield flying.popleft().result()\n        while",
        "yield flying.pop().result()\n        while",
    ),
    "composition of chunks without their weight": source(
        "atoms per state of a sum of weights",
        "kinosons.streaming:_Job.result",
        "found.atoms[here] / found.weight",
        "found.atoms[here] / found.n",
    ),
    "pieces of a chunk numbered alike": source(
        "states of unlike pieces have one number",
        "kinosons.streaming:_evaluate",
        "before += min(PIECE, len(states) - begin)",
        "pass",
    ),
    "energies compared with their constant": source(
        "mean for standard deviation",
        "kinosons.verdict:_energy_gap",
        "np.std((energies - states.model_energies)[known])",
        "np.abs(np.mean((energies - states.model_energies)[known]))",
    ),
    "energies of other states not seen": call(
        "any energies will do", "kinosons.verdict:_energy_gap", lambda right, *args: 0.0
    ),
    "errors of blocks without their weights": source(
        "resamples are not divided by their own weight",
        "kinosons.statistics:rows_of_sums",
        "(counts @ weights)[:, None]",
        "np.full((len(counts), 1), weights.sum())",
    ),
    "one state has an error": source(
        "an error of zero where there is none",
        "kinosons.statistics:Bootstrap.has_errors",
        "np.any(np.ptp(self.resampled, axis=0) > 0)",
        "True",
    ),
    "pooled groups keep their names": source(
        "sums before pooling are not pooled",
        "kinosons.group_sums:GroupSums._pool",
        "block_of(self.names, self.most)",
        "self.names",
    ),
    "sums of chunks lost in files": source(
        "chunks weigh by their states",
        "kinosons.state_chunks:write_states",
        '"total": total',
        '"total": float(len(states))',
    ),
    "weights of a file sum to one": source(
        "sum of the chunk forgotten in kinosons",
        "kinosons.streaming:_Job.piece",
        "weights=weights,",
        "weights=states.weights[part],",
    ),
    "drift downhill not seen": source(
        "drift for its size", "kinetics.weights:EnergyDrift.consistent", "abs(self.value)", "self.value"
    ),
    "factors rounded in files": source(
        "six digits of the jump more",
        "kinosons.relaxation_files:save_relaxation",
        "relaxation.scales.tolist()",
        "relaxation.scales.round(6).tolist()",
    ),
    "matrices by their diagonals": source(
        "L_aa for L_ab",
        "kinosons.dataframe:_rows",
        "np.asarray(matrix.value)[i, j]",
        "np.asarray(matrix.value)[i, i]",
    ),
}

CONTROLS: tuple[Control, ...] = (
    Control(
        "atoms change places in the residual",
        "tests/kinosons/test_deeper.py::test_displacements_are_differences_of_the_field",
    ),
    Control("batches without a seed", "tests/kinosons/test_variational.py::test_training_is_reproducible", slow=True),
    Control("chains do not take turns", "tests/kinosons/test_training.py::test_fresh_states_replace_old_ones"),
    Control("chains of training stand still", "tests/kinosons/test_training.py::test_fresh_states_replace_old_ones"),
    Control("characters of one generator", "tests/kinosons/test_twofold.py::test_members_commute_and_undo_themselves"),
    Control("chunks from one seed", "tests/kinosons/test_streaming.py::test_sampling_in_chunks"),
    Control(
        "chunks of jumps of the first carriers",
        "tests/kinosons/test_jump_terms.py::test_states_may_be_taken_in_parts_and_in_any_order",
    ),
    Control("chunks of jumps of the first carriers", "tests/kinosons/test_stencil.py::test_chunks_do_not_matter"),
    Control("chunks summed as they come", "tests/kinosons/test_streaming.py::test_workers_give_the_same_bits"),
    Control("chunks weigh alike", "tests/kinosons/test_streaming.py::test_a_gas_of_rates_has_no_drift"),
    Control(
        "closed form without weights of states",
        "tests/kinosons/test_cluster_field.py::test_solution_is_that_of_dense_least_squares",
        slow=True,
    ),
    Control("coefficients without symmetry", "tests/kinosons/test_cluster_field.py::test_number_of_parameters"),
    Control(
        "composition of chunks without their weight",
        "tests/kinosons/test_streaming.py::test_chunks_give_the_numbers_of_all_states_at_once",
    ),
    Control("constant of the filters forgotten", "tests/kinosons/test_twofold.py::test_any_point_group"),
    Control("constant of the filters forgotten", "tests/kinosons/test_twofold.py::test_blocks_are_the_dense_map"),
    Control(
        "constant of the filters forgotten",
        "tests/kinosons/test_twofold.py::test_without_symmetry_blocks_are_the_dense_map",
    ),
    Control(
        "copies share their weights", "tests/kinosons/test_devices.py::test_a_copy_elsewhere_leaves_the_first_alone"
    ),
    Control("cutoff of clusters ignored", "tests/kinosons/test_cluster_field.py::test_cutoffs_leave_out_clusters"),
    Control(
        "derivative from what lies in memory",
        "tests/kinosons/test_twofold.py::test_gradients_do_not_depend_on_when_they_are_asked_for",
    ),
    Control("drift downhill not seen", "tests/kinosons/test_variational.py::test_random_states_are_called_no_bound"),
    Control(
        "energies compared with their constant",
        "tests/kinosons/test_streaming.py::test_what_is_wrong_with_a_chunk_weakens_the_whole",
    ),
    Control(
        "energies of other states not seen",
        "tests/kinosons/test_streaming.py::test_what_is_wrong_with_a_chunk_weakens_the_whole",
    ),
    Control("errors of blocks without their weights", "tests/kinosons/test_streaming.py::test_many_groups_are_pooled"),
    Control(
        "exact flows of the first chunk",
        "tests/kinosons/test_functional.py::test_exact_coefficients_do_not_depend_on_how_many_states_are_listed_at_a_time",
    ),
    Control(
        "factors of the height of sites",
        "tests/kinosons/test_deeper.py::test_factors_are_those_of_the_weighted_states_along_the_layer",
    ),
    Control("factors rounded in files", "tests/kinosons/test_deeper.py::test_files_and_refusals"),
    Control(
        "factors without weights of states",
        "tests/kinosons/test_deeper.py::test_factors_are_those_of_the_weighted_states_along_the_layer",
    ),
    Control(
        "fields that see no occupants",
        "tests/kinosons/test_cluster_field.py::test_clusters_are_tighter_than_the_scaled_bias",
    ),
    Control(
        "fine-tuned on rates of the model",
        "tests/kinosons/test_training.py::test_fine_tuning_lowers_the_reference_bound_and_keeps_the_split",
        slow=True,
    ),
    Control(
        "fine-tuned states alone count as seen",
        "tests/kinosons/test_training.py::test_fine_tuning_lowers_the_reference_bound_and_keeps_the_split",
        slow=True,
    ),
    Control(
        "followed jumps the wrong way",
        "tests/kinosons/test_relaxation.py::test_lookahead_one_without_network_is_the_bias",
    ),
    Control("followed jumps the wrong way", "tests/kinosons/test_stencil.py::test_differences_with_rates_of_species"),
    Control(
        "followed jumps the wrong way", "tests/kinosons/test_stencil.py::test_differences_with_the_network_on_the_rim"
    ),
    Control("fresh states in groups of others", "tests/kinosons/test_training.py::test_fresh_states_replace_old_ones"),
    Control(
        "fresh states not told as seen", "tests/kinosons/test_training.py::test_fresh_states_count_as_seen", slow=True
    ),
    Control(
        "fresh states of the wrong temperature", "tests/kinosons/test_training.py::test_fresh_states_replace_old_ones"
    ),
    Control("gates in a linear form", "tests/kinosons/test_cluster_field.py::test_y_is_linear_in_the_parameters"),
    Control("half a step to the minimum", "tests/kinosons/test_cluster_field.py::test_scaled_bias_of_one_species"),
    Control(
        "half a step to the minimum",
        "tests/kinosons/test_cluster_field.py::test_solution_is_that_of_dense_least_squares",
        slow=True,
    ),
    Control("half a step to the minimum", "tests/kinosons/test_training.py::test_closed_form_is_the_minimum"),
    Control(
        "interstitials move against their jumps",
        "tests/kinosons/test_jump_terms.py::test_without_a_relaxation_one_atom_moves_by_the_jump",
    ),
    Control(
        "kinosons of twice the size",
        "tests/properties/test_kinosons.py::test_an_interstitial_in_a_pure_host_sees_no_sites_at_all",
    ),
    Control(
        "labels of sites for those of atoms",
        "tests/kinosons/test_stencil.py::test_states_of_the_ball_are_those_the_jumps_reach",
    ),
    Control("matrices by their diagonals", "tests/kinosons/test_dataframe.py::test_every_coefficient_is_one_row"),
    Control(
        "one state has an error", "tests/kinosons/test_transport.py::test_one_state_has_no_known_error", by=REFUSED
    ),
    Control(
        "paths of equal probability",
        "tests/kinosons/test_relaxation.py::test_lookahead_one_without_network_is_the_bias",
    ),
    Control(
        "paths of equal probability", "tests/kinosons/test_training.py::test_lookahead_one_is_the_sum_over_all_jumps"
    ),
    Control(
        "paths of equal probability",
        "tests/kinosons/test_training.py::test_lookahead_two_solves_the_poisson_equation_on_a_state_and_its_neighbours",
    ),
    Control(
        "pieces of a chunk numbered alike", "tests/kinosons/test_streaming.py::test_kinosons_go_to_files_and_add_up"
    ),
    Control(
        "pooled groups keep their names", "tests/kinosons/test_streaming.py::test_sums_by_group_do_not_know_the_order"
    ),
    Control("processes filled as groups come", "tests/kinosons/test_distributed.py::test_groups_are_shared_out_whole"),
    Control(
        "random numbers of one's own chains",
        "tests/kinosons/test_distributed.py::test_a_chain_has_one_stream_for_any_number_of_processes",
    ),
    Control(
        "residual of jumps, not of time",
        "tests/kinosons/test_deeper.py::test_interstitials_in_a_crystal_of_several_sites",
    ),
    Control("residual of the wrong sign", "tests/kinosons/test_deeper.py::test_training_ends_one_jump_deeper"),
    Control(
        "ridge forgotten in the solution", "tests/kinosons/test_cluster_field.py::test_ridge_and_validation", slow=True
    ),
    Control(
        "scale of rates without weights",
        "tests/kinosons/test_twofold.py::test_sites_with_unlike_numbers_of_jumps_are_trained",
        slow=True,
    ),
    Control("states shared out one by one", "tests/kinosons/test_distributed.py::test_groups_are_shared_out_whole"),
    Control("sums of chunks lost in files", "tests/kinosons/test_streaming.py::test_states_come_back_from_files"),
    Control(
        "uphill to the minimum",
        "tests/kinosons/test_cluster_field.py::test_training_in_closed_form",
        by=REFUSED,
        slow=True,
    ),
    Control("weights in half precision", "tests/kinosons/test_cluster_field.py::test_save_and_load"),
    Control("weights in half precision", "tests/kinosons/test_relaxation.py::test_save_and_load"),
    Control("weights of a file sum to one", "tests/kinosons/test_streaming.py::test_kinosons_go_to_files_and_add_up"),
    Control(
        "weights of the last epoch kept",
        "tests/kinosons/test_training.py::test_the_weights_kept_are_the_best_on_the_validation_states",
        slow=True,
    ),
)
