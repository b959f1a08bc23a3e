"""Defects and controls of tests/crystal."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.controls.control import REFUSED
from tests.controls.floors.listing import caught
from tests.controls.planting import Defect, call, source


def _identity_frames(right: Any, *args: Any, **kwargs: Any) -> Any:
    """Environments of equivalent sites that are not turned into the frame of their class."""
    found = right(*args, **kwargs)
    found.frames[:] = np.eye(3)
    return found


def _rounded(right: Any, fractions: Any, total: int) -> list[int]:
    """Each number on its own, whatever they add up to."""
    return [int(n) for n in np.rint(np.asarray(fractions, dtype=float) * total)]


DEFECTS: dict[str, Defect] = {
    # the parent crystal
    "composition of the last of equal species": source(
        "site fractions of equal elements replace each other",
        "crystal.alloy:Alloy.from_structure",
        "amounts.get(symbol, 0.0) + float(amount)",
        "float(amount)",
    ),
    "cells that are not reduced": source(
        "every cell is taken for a primitive one", "crystal.symmetry:primitive_cell", "if n == 1:", "if True:"
    ),
    "sublattices mixed in the reduction": source(
        "sites of another composition are copies of each other",
        "crystal.symmetry:primitive_cell",
        "find_operations(cell, scaled, kinds, symprec)",
        "find_operations(cell, scaled, np.zeros(len(scaled), dtype=int), symprec)",
    ),
    "proper rotations alone": source(
        "a group without mirrors and inversion",
        "crystal.symmetry:SpaceGroup.from_crystal",
        "np.any(w[np.ix_(~pbc, pbc)]):",
        "np.any(w[np.ix_(~pbc, pbc)]) or np.linalg.det(w) < 0:",
    ),
    "cells of images forgotten": source(
        "an operation leaves a site in the cell of its rotated origin",
        "crystal.symmetry:SpaceGroup.apply",
        " + self.offsets[op][b]",
        "",
    ),
    "three directions always": call("1/6 for layers", "crystal.alloy:Alloy.dimension", lambda right, self: 3),
    "vacancies of fixed sublattices filled": source(
        "fractions of fixed sublattices scaled to 1", "crystal.supercell:Supercell.counts", "if sub.mobile:", "if True:"
    ),
    "the vacancy takes no site": source(
        "atoms on all sites", "crystal.supercell:Supercell.counts", "int(n_sites[i]) - (i == host)", "int(n_sites[i])"
    ),
    "numbers of atoms rounded one by one": call(
        "their sum is not the total", "crystal.supercell:largest_remainder", _rounded
    ),
    "fractions of sites for those of atoms": source(
        "the site of the vacancy counts",
        "crystal.supercell:Supercell.rounding",
        "counts[s] / total",
        "counts[s] / (total + 1)",
    ),
    # interstitial sites
    "one interstitial site of each class": source(
        "symmetry copies forgotten",
        "crystal.alloy:Alloy.with_interstitials",
        "np.vstack(orbits)",
        "np.vstack([o[:1] for o in orbits])",
    ),
    "copies without translations": source(
        "a point group for a space group",
        "crystal.interstitial_sites:symmetry_copies",
        "rotations @ special + translations:",
        "rotations @ special:",
    ),
    "copies across sublattices": source(
        "atoms of another sublattice taken for equal ones",
        "crystal.interstitial_sites:symmetry_copies",
        "find_operations(cell, scaled, kinds, 1e-3)",
        "find_operations(cell, scaled, np.zeros(len(scaled), dtype=int), 1e-3)",
    ),
    "points left beside special places": source(
        "a point near a special position stays there",
        "crystal.interstitial_sites:symmetry_copies",
        "special = x + away[np.linalg.norm(away @ cell, axis=1) < tolerance].mean(axis=0)",
        "special = x",
    ),
    "radius of the farthest atom": source(
        "a hole as wide as its longest axis",
        "crystal.interstitial_sites:_classes",
        "float(hole.distances[0])",
        "float(hole.distances[-1])",
    ),
    "corners of a hole as further holes": source(
        "vertices within an octahedron are kept",
        "crystal.interstitial_sites:_holes",
        "max(INSIDE * distances[0], SAME_PLACE)",
        "SAME_PLACE",
    ),
    # jumps
    "jumps squeezed through edges": call(
        "narrow passages are open beside wider ones",
        "crystal.passages:_has_wider_detour",
        lambda right, *args: False,
    ),
    "jumps over other sites": source(
        "sites on the way do not matter",
        "crystal.passages:open_passages",
        "if (clearance(sites[others], where[a], vector) < OVER * length[row]).any():",
        "if False:",
    ),
    "jumps a third longer than the shortest": source(
        "1.1 · 1.3",
        "crystal.passages:open_passages",
        "tolerance * shortest[family]",
        "1.3 * tolerance * shortest[family]",
    ),
    "open directions are the periodic ones": call(
        "channels lead everywhere", "crystal.jumps:JumpNetwork.n_open_directions", lambda right, self: self.dimension
    ),
    "loops without their way": source(
        "cells along the way around are not added up",
        "crystal.jumps:JumpNetwork.n_open_directions",
        "loops.append(offset[b] + n - offset[t])",
        "loops.append(n)",
    ),
    "the closest pair sets the reach": source(
        "minimum of the nearest distances", "crystal.jumps:_longest_nearest", "return max(", "return min("
    ),
    "fixed atoms as targets": source(
        "nearest atom of any kind", "crystal.jumps:_longest_nearest", "mobile[i] & mobile[j]", "mobile[i]"
    ),
    "the end with the shorter bond decides": source(
        "isolated sites lose their bonds", "crystal.jumps:JumpNetwork.from_supercell", "np.maximum(", "np.minimum("
    ),
    "a tolerance of a quarter of an ångström": source(
        "bonds are compared by their difference",
        "crystal.jumps:JumpNetwork.from_supercell",
        "NEAREST_TOLERANCE * np.maximum(",
        "0.25 + np.maximum(",
    ),
    "a cutoff without its shells": source(
        "nearest neighbours whatever the cutoff",
        "crystal.jumps:JumpNetwork.from_supercell",
        "if cutoff is not None or not len(length):",
        "if not len(length):",
    ),
    "a cutoff that falls short": source(
        "longest bonds missing", "crystal.jumps:JumpNetwork.from_supercell", "reach + 1e-6", "0.97 * reach"
    ),
    "two jumps to one site": source(
        "only jumps onto the start itself are refused",
        "crystal.jumps:JumpNetwork._check_images",
        "b in targets or len(set(targets.tolist())) != len(targets)",
        "b in targets",
    ),
    "there and back in one directed class": source(
        "unlike ends not told apart",
        "crystal.jumps:JumpNetwork._from_rows",
        "relabel(pairs.directed)",
        "relabel(pairs.undirected)",
    ),
    "lengths of a class added up": source("sum for mean", "crystal.jumps:JumpNetwork.lengths", ".mean()", ".sum()"),
    "shear forgotten around sites": source(
        "each axis wrapped alone",
        "crystal.site_table:wrapped_cells",
        "coordinates[other] -= turns * np.int32(h[axis][other])",
        "pass",
    ),
    # environments and pairs
    "environments without their frame": call(
        "equivalent sites are not turned", "crystal.environment:CarrierEnvironment.build", _identity_frames
    ),
    "fixed atoms in the environment": source(
        "sites that tell nothing are seen",
        "crystal.environment:CarrierEnvironment.build",
        "seen = alloy.varying_basis[j]",
        "seen = np.ones(len(j), dtype=bool)",
    ),
    "an environment short of a shell": source(
        "1.99 of the shortest jump", "crystal.environment:CarrierEnvironment.build", "2.01 *", "1.99 *"
    ),
    "environments from the start of the way back": source(
        "flipped jumps begin at the wrong end",
        "crystal.environment:JumpEnvironment.build",
        "if pairs.flipped[row]:",
        "if False:",
    ),
    "images of the ends are seen": source(
        "occupants that the jump exchanges",
        "crystal.environment:JumpEnvironment.table",
        "(found == carriers[:, None, None]) | (found == self.network.targets(carriers)[:, :, None])",
        "np.zeros(found.shape, dtype=bool)",
    ),
    "pairs from one end": source(
        "neighbours on earlier basis sites missing",
        "crystal.pair_table:PairTable.build",
        "np.flatnonzero(pairs.start == b)",
        "np.flatnonzero((pairs.start == b) & (pairs.partner >= b))",
    ),
    # sites and atoms
    "cells counted twice": source(
        "one axis counted by the length of another",
        "crystal.supercell:Supercell.cell_coordinates",
        "(i // h[2, 2]) % h[1, 1]",
        "(i // h[2, 2]) % h[2, 2]",
    ),
    "atoms on sites in their own order": source(
        "the assignment is sorted",
        "crystal.mapping:map_atoms",
        "occupation[sites] = codes",
        "occupation[np.sort(sites)] = codes",
    ),
    "sites of atoms for atoms of sites": source(
        "the inverse of the assignment",
        "crystal.mapping:map_atoms",
        "atom_of_site[sites] = np.arange(len(atoms))",
        "atom_of_site[: len(sites)] = sites",
    ),
    "a translation taken for a drift": source(
        "crystals are shifted by a cell",
        "crystal.mapping:map_atoms",
        "[np.zeros(3)] +",
        "[cell.alloy.cell[0]] +",
    ),
    "species stay on their sublattice": source(
        "exchange between sublattices forbidden",
        "crystal.supercell:Supercell.allowed_species",
        "(shared if s.mobile and not s.interstitial else s.species)",
        "s.species",
    ),
    # states
    "weights of selected states as they were": source(
        "not normalised again",
        "crystal.states:States.__getitem__",
        "w / w.sum() if len(w) and w.sum() > 0 else w",
        "w",
    ),
    "every state counts in full": source(
        "n for 1/Σw²",
        "crystal.states:States.effective_sample_size",
        "1.0 / np.sum(self.weights**2)",
        "len(self)",
    ),
    "vacancies in the composition": source(
        "fractions of sites",
        "crystal.states:States.composition",
        "counts / counts.sum()",
        "counts / self.supercell.n_sites",
    ),
}

CONTROLS = (
    *caught(
        "crystal/test_alloy",
        ("cells of images forgotten", "group_maps_sites_exactly"),
        ("cells that are not reduced", "from_file_reads_a_disordered_cif"),
        ("cells that are not reduced", "reduction_to_the_primitive_cell_keeps_every_site", REFUSED),
        ("composition of the last of equal species", "from_structure_strips_oxidation_states", REFUSED),
        ("one interstitial site of each class", "interstitial_sites_are_completed_by_symmetry"),
        ("proper rotations alone", "group_and_conventional_cell"),
        ("sublattices mixed in the reduction", "composition_breaks_symmetry_and_order_does_not_matter"),
        ("sublattices mixed in the reduction", "sublattice_numbers_serve_as_keys"),
        ("the vacancy takes no site", "from_structure_takes_occupancies_as_composition"),
        ("three directions always", "dimension_and_flat_lattices_keep_their_vacuum"),
        ("vacancies of fixed sublattices filled", "vacant_sites_are_reported"),
    ),
    *caught(
        "crystal/test_environment",
        ("an environment short of a shell", "number_of_sites_and_operations"),
        ("environments from the start of the way back", "a_jump_and_its_reverse_share_one_environment"),
        ("environments without their frame", "equivalent_carrier_sites_see_the_same_in_their_frames"),
        ("fixed atoms in the environment", "carrier_environment_is_complete_and_varying"),
        ("images of the ends are seen", "in_a_wrapped_cell_the_ends_of_a_jump_are_hidden_from_it"),
        ("pairs from one end", "pairs_are_counted_from_both_ends"),
        ("shear forgotten around sites", "environments_are_translation_invariant"),
    ),
    *caught(
        "crystal/test_interstitial_sites",
        ("copies across sublattices", "sublattices_split_the_sites_of_an_ordered_host"),
        ("copies without translations", "every_copy_has_the_same_surroundings"),
        ("copies without translations", "lithium_sites_of_olivine_are_found", "ValueError", "slow"),
        ("corners of a hole as further holes", "octahedra_survive_on_the_way_from_bcc_to_fcc"),
        ("jumps a third longer than the shortest", "an_octahedral_channel_says_that_it_is_one"),
        ("jumps over other sites", "no_jump_passes_through_an_atom_or_over_a_site", "", "slow"),
        ("jumps squeezed through edges", "default_jumps"),
        ("open directions are the periodic ones", "open_directions_of_layers_and_of_vacancies"),
        ("points left beside special places", "kind_and_positions_make_the_same_network"),
        ("radius of the farthest atom", "sites_of_known_crystals"),
    ),
    *caught(
        "crystal/test_jump_details",
        ("a tolerance of a quarter of an ångström", "jumps_do_not_depend_on_the_unit_of_length"),
        ("fixed atoms as targets", "fixed_atoms_are_no_neighbours"),
        ("the closest pair sets the reach", "of_sites_that_are_not_alike_the_most_isolated_one_sets_the_reach"),
        ("the end with the shorter bond decides", "each_site_has_its_own_nearest_neighbours"),
    ),
    *caught(
        "crystal/test_jump_tables",
        ("a cutoff without its shells", "a_cutoff_takes_all_pairs_up_to_it"),
        ("all jumps in one class", "classes_are_numbered_without_gaps_and_hold_equal_lengths"),
        ("all jumps in one class", "restricted_networks_keep_their_rows"),
        ("the end with the shorter bond decides", "the_end_with_the_longer_bond_decides"),
        ("there and back in one directed class", "jumps_between_unlike_sites_have_a_direction"),
        ("two jumps to one site", "two_jumps_of_a_site_lead_to_two_sites"),
    ),
    *caught(
        "crystal/test_jumps",
        ("a cutoff that falls short", "interstitials_of_hcp_have_two_kinds_of_sites"),
        ("a cutoff without its shells", "a_cutoff_adds_shells"),
        ("all jumps in one class", "classes_list_pairs_and_displacements"),
        ("shear forgotten around sites", "interstitial_in_hcp_does_not_depend_on_the_supercell", REFUSED),
    ),
    *caught(
        "crystal/test_open_directions",
        ("lengths of a class added up", "lengths_and_nearest_distance_of_unlike_sites"),
        ("loops without their way", "a_loop_through_several_sites_counts_cells_with_their_sign"),
        ("loops without their way", "open_directions"),
        ("loops without their way", "the_choice_of_the_cell_does_not_matter"),
        ("loops without their way", "where_the_cell_begins_does_not_matter"),
        ("vacuum counts as a direction", "periodic_directions_alone_count"),
    ),
    *caught(
        "crystal/test_site_table",
        ("shear forgotten around sites", "table_and_arithmetic_give_the_sites_of_the_lattice"),
    ),
    *caught(
        "crystal/test_states",
        ("atoms on sites in their own order", "relaxed_atoms_of_others_are_mapped"),
        ("every state counts in full", "weights_groups_and_effective_sample_size"),
        ("vacancies in the composition", "composition_is_that_of_the_atoms"),
        ("weights of selected states as they were", "indexing_by_slice_number_list_and_mask"),
    ),
    *caught(
        "crystal/test_supercell",
        ("a translation taken for a drift", "every_translated_state_is_found_again"),
        ("cells counted twice", "site_positions_are_distinct_and_inside"),
        ("cells that are not reduced", "non_primitive_input_keeps_orientation_and_conventional_cell", REFUSED),
        ("fractions of sites for those of atoms", "counts_leave_one_carrier"),
        ("numbers of atoms rounded one by one", "largest_remainder_sums_to_the_total_and_rounds_by_less_than_one"),
        ("numbers of atoms rounded one by one", "largest_remainder_ties_go_to_the_earlier"),
        ("sites of atoms for atoms of sites", "ideal_atoms_round_trip"),
        ("species stay on their sublattice", "mobile_species_may_exchange_between_mobile_sublattices", REFUSED),
    ),
)
