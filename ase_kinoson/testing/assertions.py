"""Assertions on barriers.

Each raises `AssertionError` with the number found, its unit and what to do, and returns the number otherwise. A
``source`` is bound to its jumps: ``model.bind(network)``, or :func:`~ase_kinoson.testing.bound_to`. The tolerance of
energies, 1e-5 eV, leaves room for models in single precision and changes no rate at 1000 K by more than 0.02 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ase_kinoson.barriers.source import BarrierSource, EnergyModel
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.testing import defects

ENERGY = 1e-5
"""Default tolerance of energies, eV."""


def demand(value: float, tolerance: float, unit: str, what: str, remedy: str) -> float:
    """Raise one sentence if a defect is larger than its tolerance, or no number."""
    __tracebackhide__ = True  # pytest shows the caller
    if not value <= tolerance:
        raise AssertionError(f"{what}: found {value:.3g} {unit}; expected at most {tolerance:.1g} {unit}; {remedy}")
    return value


def assert_well_formed(source: BarrierSource, states: States) -> float:
    """Shapes fit, nothing is NaN, and only jumps that exist have a finite barrier.

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.

    Returns
    -------
    float
        Number of faults, 0; no unit.

    Raises
    ------
    AssertionError
        Says what is wrong.
    """
    __tracebackhide__ = True
    wrong = defects.malformations(source, states)
    if wrong:
        raise AssertionError("; ".join(wrong) + "; correct jump_energies()")
    return 0.0


def assert_reproducible(source: BarrierSource, states: States, *, tolerance: float = ENERGY) -> float:
    """A barrier is the same when asked for again, in another order and one state at a time.

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.
    tolerance
        eV.

    Returns
    -------
    float
        Largest defect, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = defects.reproducibility_defect(source, states)
    return demand(
        value,
        tolerance,
        "eV",
        "barriers change from call to call or with the batch",
        "draw no random numbers in jump_energies() and mix no states",
    )


def assert_symmetric(source: BarrierSource, states: States, *, tolerance: float = ENERGY) -> float:
    """Barriers and ΔE are those of the state and jump turned by any space-group operation of the supercell.

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.
    tolerance
        eV.

    Returns
    -------
    float
        Largest defect, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = defects.symmetry_defect(source, states)
    return demand(
        value,
        tolerance,
        "eV",
        "barriers change when state and jump are turned by a symmetry operation",
        "let them depend on orbits of sites, never on directions or the order of sites",
    )


def assert_translation_invariant(source: BarrierSource, states: States, *, tolerance: float = ENERGY) -> float:
    """Barriers and ΔE do not change when the state is shifted by a lattice vector.

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.
    tolerance
        eV.

    Returns
    -------
    float
        Largest defect, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = defects.translation_defect(source, states)
    return demand(
        value,
        tolerance,
        "eV",
        "barriers change when the state is shifted",
        "count sites from the carrier, not from the corner of the cell",
    )


def assert_reverse_consistent(source: BarrierSource, states: States, *, tolerance: float = ENERGY) -> float:
    """A jump and its reverse have one K = Q − ΔE/2 and opposite ΔE, and are rejected together.

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.
    tolerance
        eV.

    Returns
    -------
    float
        Largest defect, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = defects.reverse_defect(source, states)
    return demand(
        value,
        tolerance,
        "eV",
        "a jump and its reverse disagree in K or −ΔE",
        "build Q = K + ΔE/2 with K of the two ends alike, ΔE the difference of one energy",
    )


def assert_detailed_balance(source: BarrierSource, states: States, *, tolerance: float = ENERGY) -> float:
    """The saddle has one energy, E + Q, from both ends: π(χ)W(χ→χ') = π(χ')W(χ'→χ).

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.
    tolerance
        eV.

    Returns
    -------
    float
        Largest defect, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    KinosonError
        If the source has no energies.
    """
    __tracebackhide__ = True
    value = defects.detailed_balance_defect(source, states)
    return demand(
        value,
        tolerance,
        "eV",
        "E + Q at a saddle differs between its two ends",
        "take ΔE from the energies in source.energy that weigh the states",
    )


def assert_saddles_above_ends(source: BarrierSource, states: States) -> float:
    """Every saddle lies above both ends of its jump: no barrier, forward or back, is negative.

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.

    Returns
    -------
    float
        Lowest height of a saddle above the higher end, eV, at least 0.

    Raises
    ------
    AssertionError
        If a saddle lies below an end.
    """
    __tracebackhide__ = True
    value = defects.saddle_defect(source, states)
    what, remedy = "a saddle lies below an end of its jump", "raise K, or let it grow with |ΔE|"
    return -demand(value, 0.0, "eV", what, remedy)


def assert_frequencies_match(source: BarrierSource, states: States, *, tolerance: float = 1e-6) -> float:
    """A jump and its reverse have one attempt frequency, where the source knows any.

    Parameters
    ----------
    source : BarrierSource
        Bound to the jumps of the states.
    states : States
        States on the supercell of the jumps.
    tolerance
        Relative, no unit.

    Returns
    -------
    float
        Largest relative difference.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    what = "attempt frequencies of a jump and its reverse differ"
    remedy = "give both one frequency and put the entropy of the states, if any, into their energies"
    return demand(defects.frequency_defect(source, states), tolerance, "(relative)", what, remedy)


def assert_swaps_consistent(energy: EnergyModel, states: States, *, tolerance: float = ENERGY, seed: int = 0) -> float:
    """``swap_delta`` of an energy model is the difference of its ``energies``.

    Parameters
    ----------
    energy : EnergyModel
        With ``energies`` and ``swap_delta``.
    states : States
        States on the supercell of the jumps.
    tolerance
        eV.
    seed
        Of the exchanges tried.

    Returns
    -------
    float
        Largest difference, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    what, remedy = "swap_delta() is not the difference of energies()", "Monte Carlo would sample other states; make one"
    return demand(defects.swap_defect(energy, states, seed=seed), tolerance, "eV", what, f"{remedy} follow the other")


def assert_loops_close(source: BarrierSource, *, n_loops: int = 24, seed: int = 0, tolerance: float = ENERGY) -> float:
    """Around closed loops of jumps Σ ΔE = 0 and Σ Q is the same in both directions.

    Parameters
    ----------
    source : BarrierSource
        Bound to jumps.
    n_loops, seed
        Loops, from random states.
    tolerance
        eV, for the sum around a loop.

    Returns
    -------
    float
        Largest sum, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    remedy = "take ΔE as the difference of one function of the state; errors of single jumps must cancel around a loop"
    barriers, energies = (float(abs(x).max()) for x in defects.loop_sums(source, n_loops, seed))
    demand(energies, tolerance, "eV", "ΔE around a closed loop of jumps does not sum to zero", remedy)
    what = "barriers around a closed loop of jumps differ between the two directions"
    return max(energies, demand(barriers, tolerance, "eV", what, remedy))


def assert_size_consistent(
    model: Any, states: States, larger: JumpNetwork, *, network: JumpNetwork, tolerance: float = ENERGY
) -> float:
    """Barriers and ΔE stay when the states are continued into a larger supercell with one carrier.

    Parameters
    ----------
    model
        A model that goes to another supercell (``bind`` or ``on``).
    states : States
        On the smaller cell, whose shortest vector exceeds the reach of the model by at least a jump.
    larger, network : JumpNetwork
        The same jumps on the larger and the smaller cell, of which the larger is a multiple.
    tolerance
        eV.

    Returns
    -------
    float
        Largest change, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = defects.size_defect(model, states, larger, network=network)
    n, m = network.supercell.n_sites, larger.supercell.n_sites
    what = f"barriers differ between the same surroundings in {n} and in {m} sites"
    remedy = "let them depend on sites near the jump only, or compare larger cells if the model reaches that far"
    return demand(value, tolerance, "eV", what, remedy)


def assert_relabelling_invariant(
    make: Callable[[JumpNetwork, Mapping[str, str]], Any],
    states: States,
    names: Mapping[str, str],
    *,
    network: JumpNetwork,
    tolerance: float = ENERGY,
) -> float:
    """Barriers stay when the species get other symbols, in the alloy and in the model.

    Parameters
    ----------
    make
        ``make(network, names)`` builds the model with every parameter of species ``s`` given to ``names[s]``.
    states : States
        States on the supercell of the jumps.
    names : mapping of str to str
        New symbols, best in another alphabetical order.
    network : JumpNetwork
        Jumps on the supercell of the states.
    tolerance
        eV.

    Returns
    -------
    float
        Largest change, eV.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = defects.relabelling_defect(make, states, names, network)
    what = f"barriers change when the species are renamed {dict(names)}"
    remedy = "look parameters up by symbol in network.supercell.species, never by the number of a species"
    return demand(value, tolerance, "eV", what, remedy)
