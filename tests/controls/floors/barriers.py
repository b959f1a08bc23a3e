"""Defects and controls of tests/barriers: here energies and learned barriers, the rest in the module of searches."""

from __future__ import annotations

from tests.controls.control import Control
from tests.controls.floors import barrier_searches
from tests.controls.floors.barrier_searches import of
from tests.controls.planting import Defect, source

DEFECTS: dict[str, Defect] = {
    **barrier_searches.DEFECTS,
    "K learned with the whole barrier": source(
        "ΔE/2 not taken off", "barriers.training_sets:TrainingSet.kra", " - 0.5 * self.delta_e", ""
    ),
    "batches of another seed every time": source(
        "generator not seeded",
        "barriers.model_fit:fit_parts",
        "generator = torch.Generator().manual_seed(seed)",
        "generator = torch.Generator()\n    generator.seed()",
    ),
    "carrier terms before a jump forgotten": source(
        "energy after it for the difference",
        "barriers.energy:PairEnergy._jumps",
        "self._carrier[after].sum(axis=1) - before[i]",
        "self._carrier[after].sum(axis=1)",
    ),
    "carrier terms of the old occupants": source(
        "the jump is not made before they are counted",
        "barriers.energy:PairEnergy._jumps",
        ", i, (c[i], t[i, k]))",
        ", i)",
    ),
    "coefficients in single precision": source(
        "half of the digits lost in files",
        "barriers.energy:PairEnergy.from_arrays",
        'arrays["coefficients"], dtype=float)',
        'arrays["coefficients"], dtype="float32").astype(float)',
    ),
    "computed sites without their shear": source(
        "each axis wrapped alone",
        "barriers.device_sites:DeviceSites.sites",
        "n0 - q * h[0][0], n1 - q * h[0][1], n2 - q * h[0][2]",
        "n0 - q * h[0][0], n1, n2",
    ),
    "ends of a jump counted as strangers": source(
        "a bond within the pair changes twice",
        "barriers.energy:PairEnergy._jumps",
        "result += table[here[:, None], np.arange(t.shape[1]), own[:, None], moved]",
        "pass",
    ),
    "every pair counted twice": source(
        "½ forgotten in energies", "barriers.energy:PairEnergy.energies", "0.5 * pairs.sum", "1.0 * pairs.sum"
    ),
    "every part is the whole": source(
        "learning curve without a choice",
        "barriers.learning_curve:learning_curve",
        "order[n_check:n]",
        "order[n_check:]",
    ),
    "fastest jumps by the model": source(
        "those that look fast, not those that are",
        "barriers.model_fit:fast_jumps",
        'np.argsort(true, kind="stable")[:n], np.argsort(found, kind="stable")[:n]',
        'np.argsort(found, kind="stable")[:n], np.argsort(true, kind="stable")[:n]',
    ),
    "first member for the mean": source(
        "one model speaks for all",
        "barriers.ensemble:BarrierEnsemble.predict_with_error",
        "found.mean(axis=0), ",
        "found[0], ",
    ),
    "fractions of the species before": source(
        "empty sites counted as atoms",
        "barriers.composition_range:mean_fractions",
        "range(1, len(species))",
        "range(len(species) - 1)",
    ),
    "level of fitted energies forgotten": source(
        "the constant of uncentred features",
        "barriers.energy_fit:fit_pairs",
        "level - float(centre @ fitted.coefficients)",
        "level",
    ),
    "members that are one": source(
        "the same seed and states for all",
        "barriers.ensemble:BarrierEnsemble.fit",
        "settings, k, members, seed)\n        made.append(BarrierModel._fit(sets, roles, settings, seed=seed + k",
        "settings, 0, members, seed)\n        made.append(BarrierModel._fit(sets, roles, settings, seed=seed",
    ),
    "network sees the old occupants": source(
        "the jump is not made before it looks",
        "barriers.carrier_network:CarrierNetwork.jumps",
        "self._codes(occ, rows, targets, (start, targets))",
        "self._codes(occ, rows, targets)",
    ),
    "occupants of the next site": source(
        "sites shifted by one",
        "barriers.device_sites:DeviceSites.read",
        "self.sites(carriers))",
        "(self.sites(carriers) + 1) % occupations.shape[1])",
    ),
    "power law in units of its first point": source(
        "prefactor not scaled back",
        "barriers.learning_curve:_power_law",
        "float(b * n[0] ** c)",
        "float(b)",
    ),
    "scatter over n": source(
        "n for n − 1",
        "barriers.ensemble:BarrierEnsemble.predict_with_error",
        "ddof=1 if len(found) > 1 else 0",
        "ddof=0",
    ),
    "species by place, not by name": source(
        "codes of another cell taken for own ones",
        "barriers.energy:PairEnergy.on",
        "old.pair_columns[:, :, codes[:, None], codes[None, :]]",
        "old.pair_columns[:, :, : len(codes), : len(codes)]",
    ),
    "sum of the members": source(
        "not divided by their number",
        "barriers.device_model:DeviceModel._of_codes",
        "sum(k + 0.5 * d for k, d in energies) / n",
        "sum(k + 0.5 * d for k, d in energies)",
    ),
    "test states of their own": source(
        "a member trains on what others are tested on",
        "barriers.ensemble:_roles",
        "seed=seed)",
        "seed=seed + member)",
    ),
    "the last epoch is kept": source(
        "validation states stop nothing",
        "barriers.invariant:train_network",
        "if history[-1] < best and mean > error:",
        "if True:",
    ),
    "weights of jumps forgotten": source(
        "all jumps count alike",
        "barriers.training_sets:training_sets",
        "np.where(use, weight, 0.0)",
        "use.astype(float)",
    ),
    "ΔE/2 forgotten in learned barriers": source(
        "K alone",
        "barriers.device_model:DeviceModel._of_codes",
        "sum(k + 0.5 * d for",
        "sum(k + 0.0 * d for",
    ),
}

CONTROLS: tuple[Control, ...] = (
    *barrier_searches.CONTROLS,
    *of("K learned with the whole barrier", "ensemble.py::test_transfer_to_another_composition"),
    *of("K learned with the whole barrier", "learned.py::test_learns_and_reports", slow=True),
    *of(
        "batches of another seed every time",
        "device_model.py::test_a_deterministic_fit_is_the_same_fit",
        "learned.py::test_same_seed_same_model",
        slow=True,
    ),
    *of("carrier terms before a jump forgotten", "energy.py::test_interstitial_carrier_energy"),
    *of("carrier terms of the old occupants", "energy.py::test_triplets_around_the_carrier"),
    *of(
        "coefficients in single precision",
        "energy.py::test_other_supercells_and_species",
        "learned.py::test_round_trip",
    ),
    *of(
        "computed sites without their shear",
        "device_model.py::test_chunks_and_tables_change_nothing",
        "device_model.py::test_computed_sites_are_those_of_the_table",
    ),
    *of(
        "ends of a jump counted as strangers",
        "device_model.py::test_the_numbers_of_the_model",
        "energy.py::test_jump_delta_is_the_full_difference",
    ),
    *of("every pair counted twice", "energy.py::test_interactions_by_hand"),
    *of("every part is the whole", "ensemble.py::test_learning_curve"),
    *of("fastest jumps by the model", "ensemble.py::test_fast_jumps"),
    *of("first member for the mean", "ensemble.py::test_an_ensemble_serves_any_lattice_constant", slow=True),
    *of("fractions of the species before", "ensemble.py::test_an_ensemble_knows_its_compositions", slow=True),
    *of("k_BT one per cent too large", "ensemble.py::test_fast_jumps"),
    *of("level of fitted energies forgotten", "energy.py::test_fit_recovers_energies"),
    *of("members that are one", "ensemble.py::test_error_grows_where_nothing_was_learned", slow=True),
    *of("network sees the old occupants", "learned.py::test_network_energy_is_a_state_function"),
    *of("occupants of the next site", "device_model.py::test_large_cells_keep_no_table", slow=True),
    *of("power law in units of its first point", "ensemble.py::test_power_law_only_where_determined"),
    *of("scatter over n", "ensemble.py::test_mean_model", slow=True),
    *of("species by place, not by name", "energy.py::test_other_supercells_and_species"),
    *of("species by place, not by name", "learned.py::test_other_supercells", slow=True),
    *of("sum of the members", "device_model.py::test_of_an_ensemble_the_mean_and_of_an_energy_half_its_change"),
    *of("test states of their own", "ensemble.py::test_members_share_the_test_states_only", slow=True),
    *of("the last epoch is kept", "learned.py::test_a_network_that_learns_nothing_is_left_out", slow=True),
    *of("weights of jumps forgotten", "ensemble.py::test_weighted_report_and_zero_weights", by="KeyError", slow=True),
    *of("ΔE/2 forgotten in learned barriers", "archive.py::test_barriers_can_be_learned"),
)
