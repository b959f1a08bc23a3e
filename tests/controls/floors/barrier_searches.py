"""Defects and controls of searches, of sets of barriers and of bands in tests/barriers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from tests.controls.control import REFUSED, Control
from tests.controls.planting import Defect, call, rewrite, source

NEEDED = {
    "test_a_campaign_gives_the_same_barriers_in_other_processes": "lammps",
    "test_dask_gives_the_same_bits": "distributed",
    "test_directions_that_are_not_periodic": "lammps",
    "test_equal_to_the_calculator_of_ase": "lammps",
    "test_exchanged_species_are_seen": "lammps",
    "test_forces_and_stress_are_derivatives_of_the_energy": "lammps",
    "test_results_do_not_depend_on_what_was_computed_before": "lammps",
    "test_scripts_and_files_of_the_folder": "lammps",
    "test_the_same_crystal_has_the_same_energy": "lammps",
    "test_vasp_folders_and_nebanalysis": "pymatgen",
}
"""Packages without which a test is skipped, so that there is nothing to control."""


def of(defect: str, *tests: str, by: str = "assertion", slow: bool = False) -> Iterator[Control]:
    """Controls of tests in tests/barriers, named without the common part of their node ids."""
    for test in tests:
        if all(find_spec(package) for name, package in NEEDED.items() if name in test):
            yield Control(defect, f"tests/barriers/test_{test}", by=by, slow=slow)


def _kept_by_positions(right: Any, self: Any, positions: Any) -> Any:
    """Answers kept by the positions, whatever else has changed."""
    kept = self.__dict__.setdefault("_kept_answers", {})
    key = positions.tobytes()
    if key not in kept:
        kept[key] = right(self, positions)
    return kept[key]


def _tight_and_periodic() -> None:
    from ase_kinoson.barriers.potentials import lammps

    lammps.PAD = 0.5
    rewrite("barriers.potentials.lammps:LammpsCalculator._start", '"p" if p else "f" for', '"p" for')


def _exchanged_ends(right: Any, *args: Any, **kwargs: Any) -> Any:
    from dataclasses import replace

    way = right(*args, **kwargs)
    return replace(way, end={0: 1, 1: 0}.get(way.end, way.end))


DEFECTS: dict[str, Defect] = {
    "K of computed barriers is the barrier": source(
        "half the sum of both",
        "barriers.reference:Barriers.kra",
        "0.5 * (self.barrier[self.valid] + self.reverse_barrier[self.valid])",
        "self.barrier[self.valid]",
    ),
    "a limit loses the saddle": source(
        "what was found before it is forgotten",
        "barriers.search:Search.jump",
        "if not self.open_ends:\n",
        "if True:\n",
    ),
    "a saddle anywhere": source(
        "the place of the moving atom is not looked at",
        "barriers.checks:Checks.check_geometry",
        "if not low <= along <= high:",
        "if False:",
    ),
    "answers kept by positions": call(
        "another potential, the old energy", "barriers.optimise:CountedForces._evaluate", _kept_by_positions
    ),
    "archives without weights": source(
        "all states weigh alike", "barriers.archive:load_barriers", 'weights=own["weights"]', "weights=None"
    ),
    "bonds across the vacuum": source(
        "nearest images along directions without any",
        "barriers.preconditioner:_pairs",
        "np.rint(away @ inverse * pbc)",
        "np.rint(away @ inverse)",
    ),
    "bonds without images": source(
        "neighbours across the faces of the cell left out",
        "barriers.preconditioner:_pairs",
        "away -= np.rint(away @ inverse * pbc) @ cell",
        "pass",
    ),
    "both ways over the same height": source(
        "reverse barrier of a band from its first end",
        "barriers.bands:_collect",
        "height[end], height[1 - end]",
        "height[0], height[1]",
    ),
    "calls of a band not counted": source(
        "its images have a budget of their own", "barriers.steps:Steps.band", ", budget=self.budget) for _", ") for _"
    ),
    "ends of a way down exchanged": call("it reached the other", "barriers.descent:descend", _exchanged_ends),
    "energy of one atom": source(
        "for that of all",
        "barriers.potentials.lammps:LammpsCalculator._read",
        'float(lmp.extract_compute("thermo_pe", 0, 0))',
        'float(lmp.extract_compute("thermo_pe", 0, 0)) / n',
    ),
    "first energy of an OUTCAR": source(
        "that of an earlier step", "barriers.band_files:_outcar", "found[-1]", "found[0]"
    ),
    "force along the way removed": source(
        "nudged, not reversed", "barriers.optimise:lbfgs", "true - 2.0 * (true", "true - 1.0 * (true"
    ),
    "forces in the frame of LAMMPS": source(
        "not turned back",
        "barriers.potentials.lammps:LammpsCalculator._read",
        'box.prism.vector_to_ase(np.array(lmp.numpy.extract_atom("f")[:n]))',
        'np.array(lmp.numpy.extract_atom("f")[:n])',
    ),
    "forces of held atoms": source(
        "constraints are not asked for",
        "barriers.optimise:CountedForces._evaluate",
        "and not atoms.constraints ",
        "",
    ),
    "half of an update": source(
        "Hessian not symmetrised", "barriers.climb:_HessianModel.learn", "cross + cross.T", "cross"
    ),
    "highest image for the spline": source(
        "the curve is not looked at",
        "barriers.band_path:jump_of_band",
        'max(spline, top) if limits.barrier == "spline" else top',
        "top",
    ),
    "jumps that are not there": source(
        "padding taken for jumps",
        "barriers.reference:Barriers.from_arrays",
        'state_of = np.where(exists, np.where(state_of == NO_JUMP, "rejected", state_of), NO_JUMP).astype("U24")',
        "pass",
    ),
    "mean force for the largest": source(
        "saddles that are not stationary",
        "barriers.climb:mode_climb",
        "float(np.sqrt((forces**2).sum(axis=1).max()))",
        "float(np.sqrt((forces**2).sum(axis=1)).mean() / 5)",
    ),
    "moving atom of the wrong direction": source(
        "it moves with the vacancy, or against its jump",
        "barriers.hop:Hop.from_jump",
        "return cls(int(found[0]), displacement.copy())",
        "return cls(int(found[0]), -displacement)",
    ),
    "no image climbs": source(
        "an elastic band without a climbing image", "barriers.climb:band_counted", "climb=True", "climb=False"
    ),
    "no space around a cluster": Defect("atoms see images where there are none", _tight_and_periodic),
    "nobody leaves a site": source(
        "distances from sites are not looked at",
        "barriers.checks:from_sites",
        "np.where(keep, np.sqrt((away**2).sum(axis=1)), 0.0)",
        "np.zeros(len(away))",
    ),
    "old springs stay": source(
        "where the atom was", "barriers.preconditioner:_MovedSprings.__init__", "gained - lost", "gained"
    ),
    "options that do not arrive": source(
        "EMT with its default cutoff", "barriers.potentials.recipes:_emt", "EMT(**options)", "EMT()"
    ),
    "positions to 1e-7 Å": source(
        "where LAMMPS holds atoms already",
        "barriers.potentials.lammps:LammpsCalculator._place",
        'held.extract_atom("x")[: len(types)] = box.positions(atoms)',
        'held.extract_atom("x")[: len(types)] = np.round(box.positions(atoms), 7)',
    ),
    "rejected one way only": source(
        "the way back stays open",
        "barriers.reference:Barriers.from_arrays",
        "np.where(valid, backward, np.inf)",
        "backward",
    ),
    "rows as they come": source(
        "states not looked up", "barriers.reference:Barriers.rows", "found.append(match[0])", "found.append(n)"
    ),
    "saddle counted from the end": source(
        "archives with reverse barriers for barriers",
        "barriers.archive:save_barriers",
        "(barriers.energy_initial[:, None] + barriers.barrier).round(DIGITS)",
        "(barriers.energy_final + barriers.barrier).round(DIGITS)",
    ),
    "shear stress of another order": source(
        "that of LAMMPS",
        "barriers.potentials.lammps:LammpsCalculator._read",
        "[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]",
        "[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]",
    ),
    "side basins of one side only": source(
        "that before the initial state is not seen",
        "barriers.checks:Check.fields",
        "any(side is not None for side in self.sides)",
        "self.sides[1] is not None",
    ),
    "species that stay": source(
        "atoms that were there before",
        "barriers.potentials.lammps:LammpsCalculator._place",
        'held.extract_atom("type")[: len(types)] = types',
        "pass",
    ),
    "springs without their own ends": source(
        "sign of the blocks between atoms",
        "barriers.preconditioner:_matrix",
        "[-blocks.ravel(), blocks.ravel()]",
        "[blocks.ravel(), blocks.ravel()]",
    ),
    "states weigh by their set alone": source(
        "weights of joined states forgotten",
        "barriers.reference:Barriers.concatenate",
        "p.states.weights * len(p)",
        "p.states.weights",
    ),
    "stored saddles to 1 meV": source(
        "digits lost in the store",
        "barriers.store:_jump",
        'energy_saddle=float(row.get("energy_saddle", np.nan))',
        'energy_saddle=round(float(row.get("energy_saddle", np.nan)), 3)',
    ),
    "the first step of a trajectory": source(
        "a band before it is optimised", "barriers.band_files:_last_iteration", "images[-period:]", "images[:period]"
    ),
    "the lower saddle counts": source(
        "behind a side basin", "barriers.checks:Checks.beyond", "top = max([top, *found]", "top = min([top, *found]"
    ),
    "translated states are others": source(
        "the carrier is not brought to one cell",
        "barriers.bands:_keys",
        "_translated(cell, occupation, -_cell_of(cell, carrier)).tobytes(), int(carrier % cell.alloy.n_basis)",
        "occupation.tobytes(), int(carrier)",
    ),
    "workers search more loosely": source(
        "settings do not travel",
        "barriers.workers:Workers._submit",
        "submit(run_task, task, work)",
        "submit(run_task, task, type(work)(work.factory, work.token, "
        "type(work.settings)(fmax_saddle=0.05, accuracy=0.01)))",
    ),
}

CONTROLS: tuple[Control, ...] = (
    *of("K of computed barriers is the barrier", "campaign.py::test_all_jumps_of_a_state", slow=True),
    *of("a limit loses the saddle", "descent.py::test_limit_behind_a_side_basin_does_not_lose_the_barrier"),
    *of(
        "a saddle anywhere",
        "faults.py::test_saddle_that_is_none_of_the_jump",
        "saddle.py::test_stationary_point_outside_the_jump_is_refused",
    ),
    *of("answers kept by positions", "force_calls.py::test_a_calculator_used_elsewhere_in_between_is_asked_anew"),
    *of("archives without weights", "archive.py::test_weights_and_ensemble_survive"),
    *of("bonds across the vacuum", "force_calls.py::test_all_pairs_are_those_of_a_neighbour_list"),
    *of(
        "bonds without images",
        "force_calls.py::test_the_kept_inverse_is_that_of_the_factors",
        "saddle.py::test_springs_are_the_inverse_of_a_symmetric_positive_matrix",
    ),
    *of("both ways over the same height", "bands.py::test_any_lattice"),
    *of(
        "both ways over the same height",
        "bands.py::test_both_directions_of_a_band_are_entries_of_their_states",
        slow=True,
    ),
    *of("calls of a band not counted", "saddle.py::test_force_calls_are_all_counted"),
    *of("ends of a way down exchanged", "descent.py::test_early_stop_agrees_with_the_full_descent"),
    *of(
        "energy of one atom",
        "potentials.py::test_equal_to_the_calculator_of_ase",
        "potentials.py::test_forces_and_stress_are_derivatives_of_the_energy",
        "potentials.py::test_scripts_and_files_of_the_folder",
    ),
    *of("first energy of an OUTCAR", "bands.py::test_vasp_folders_and_nebanalysis", by=REFUSED, slow=True),
    *of("force along the way removed", "saddle.py::test_every_rung_of_the_ladder_finds_the_same_saddle", slow=True),
    *of("forces in the frame of LAMMPS", "potentials.py::test_the_same_crystal_has_the_same_energy"),
    *of("forces of held atoms", "force_calls.py::test_constraints_and_failures_are_those_of_ase"),
    *of("half of an update", "force_calls.py::test_one_solution_per_gradient_gives_the_steps_of_two"),
    *of("highest image for the spline", "bands.py::test_highest_image_or_spline", slow=True),
    *of("jumps that are not there", "campaign.py::test_padded_jumps_do_not_exist"),
    *of("mean force for the largest", "saddle.py::test_saddle_is_stationary_and_lies_between"),
    *of(
        "moving atom of the wrong direction",
        "saddle.py::test_interstitial_atom_moves_along_the_jump",
        "saddle.py::test_two_dimensional_lattice",
    ),
    *of(
        "moving species of the carrier's site",
        "archive.py::test_manganese_is_the_fast_species_and_stays_near_the_vacancy",
    ),
    *of("no image climbs", "saddle.py::test_climb_equals_a_climbing_image_band"),
    *of("no space around a cluster", "potentials.py::test_directions_that_are_not_periodic"),
    *of(
        "nobody leaves a site",
        "descent.py::test_saddle_of_another_jump_is_noticed",
        "faults.py::test_end_state_that_collapses",
        "saddle.py::test_end_state_that_relaxes_away",
        "saddle.py::test_initial_state_that_relaxes_away",
        "saddle.py::test_other_atom_that_leaves_its_site",
    ),
    *of(
        "old springs stay",
        "saddle.py::test_springs_after_one_atom_moved_equal_springs_built_there",
        "saddle.py::test_springs_of_an_interstitial_leave_its_host_bound_and_are_stiff_where_it_is_squeezed",
    ),
    *of("options that do not arrive", "potentials.py::test_emt_by_name_is_that_of_ase"),
    *of("positions to 1e-7 Å", "potentials.py::test_results_do_not_depend_on_what_was_computed_before"),
    *of("rejected one way only", "campaign.py::test_rejected_jumps_are_closed_in_lookups"),
    *of("rows as they come", "campaign.py::test_lookup_by_occupation"),
    *of("saddle counted from the end", "archive.py::test_round_trip"),
    *of(
        "saddle counted from the end",
        "bands.py::test_jumps_without_a_band_are_neither_rejected_nor_infinitely_high",
        slow=True,
    ),
    *of(
        "shear stress of another order",
        "potentials.py::test_equal_to_the_calculator_of_ase",
        "potentials.py::test_forces_and_stress_are_derivatives_of_the_energy",
    ),
    *of("side basins of one side only", "descent.py::test_policy_treats_a_jump_and_its_reverse_alike"),
    *of("species that stay", "potentials.py::test_exchanged_species_are_seen"),
    *of(
        "springs without their own ends",
        "saddle.py::test_springs_are_the_inverse_of_a_symmetric_positive_matrix",
        "saddle.py::test_springs_save_force_calls",
    ),
    *of("states weigh by their set alone", "campaign.py::test_parts_and_sums"),
    *of("stored saddles to 1 meV", "store.py::test_what_is_written_is_read_bit_by_bit"),
    *of(
        "stored saddles to 1 meV",
        "campaign.py::test_interrupted_campaign_resumes",
        "faults.py::test_full_disk",
        "shared_store.py::test_work_of_another_process_is_used",
        slow=True,
    ),
    *of("the first step of a trajectory", "bands.py::test_the_last_step_of_an_optimisers_trajectory_counts", slow=True),
    *of("the lower saddle counts", "descent.py::test_side_basin_is_recorded_and_the_higher_saddle_taken", slow=True),
    *of("translated states are others", "bands.py::test_a_translated_band_belongs_to_the_same_states", slow=True),
    *of(
        "workers search more loosely",
        "campaign.py::test_processes_give_the_same_bits",
        "campaign.py::test_threads_give_the_same_bits",
        "executors.py::test_any_object_that_submits_is_an_executor",
        "executors.py::test_dask_gives_the_same_bits",
        "executors.py::test_task_that_an_executor_refuses_is_tried_again",
        "potentials.py::test_a_campaign_gives_the_same_barriers_in_other_processes",
        slow=True,
    ),
)

DEFECTS = {name: DEFECTS[name] for name in DEFECTS if any(control.defect == name for control in CONTROLS)}
