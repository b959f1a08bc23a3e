"""Physical assertions for those who bring their own barrier model, relaxation or solver.

`check_barrier_model` runs all that concern barriers and returns a small report. Each assertion is a function of its
own, ``assert_…``, which raises an `AssertionError` with the number found and returns that number otherwise; what it
measures is a function ``…_defect``. Keep a broken twin of your model in your tests, to see that the test would notice.
"""

from ase_kinoson.testing.assertions import (
    assert_detailed_balance,
    assert_frequencies_match,
    assert_loops_close,
    assert_relabelling_invariant,
    assert_reproducible,
    assert_reverse_consistent,
    assert_saddles_above_ends,
    assert_size_consistent,
    assert_swaps_consistent,
    assert_symmetric,
    assert_translation_invariant,
    assert_well_formed,
)
from ase_kinoson.testing.cells import enumerable_cell, relabelled, symmetry_operations
from ase_kinoson.testing.defects import (
    bound_to,
    detailed_balance_defect,
    energy_loop_defect,
    frequency_defect,
    loop_defect,
    relabelling_defect,
    reproducibility_defect,
    reverse_defect,
    saddle_defect,
    size_defect,
    swap_defect,
    symmetry_defect,
    translation_defect,
)
from ase_kinoson.testing.model_check import Check, ModelCheck, check_barrier_model
from ase_kinoson.testing.transport_assertions import assert_bound, assert_equivariant, assert_sum_rule
from ase_kinoson.testing.transport_defects import bound_defect, equivariance_defect, sum_rule_defect

__all__ = [
    "Check",
    "ModelCheck",
    "assert_bound",
    "assert_detailed_balance",
    "assert_equivariant",
    "assert_frequencies_match",
    "assert_loops_close",
    "assert_relabelling_invariant",
    "assert_reproducible",
    "assert_reverse_consistent",
    "assert_saddles_above_ends",
    "assert_size_consistent",
    "assert_sum_rule",
    "assert_swaps_consistent",
    "assert_symmetric",
    "assert_translation_invariant",
    "assert_well_formed",
    "bound_defect",
    "bound_to",
    "check_barrier_model",
    "detailed_balance_defect",
    "energy_loop_defect",
    "enumerable_cell",
    "equivariance_defect",
    "frequency_defect",
    "loop_defect",
    "relabelled",
    "relabelling_defect",
    "reproducibility_defect",
    "reverse_defect",
    "saddle_defect",
    "size_defect",
    "sum_rule_defect",
    "swap_defect",
    "symmetry_defect",
    "symmetry_operations",
    "translation_defect",
]
