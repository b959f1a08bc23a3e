"""Assertions on relaxations and transport matrices, as :mod:`.assertions` for barriers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.testing.assertions import demand
from ase_kinoson.testing.transport_defects import bound_defect, equivariance_defect, sum_rule_defect

__all__ = ["assert_bound", "assert_equivariant", "assert_sum_rule"]


def assert_equivariant(relaxation: Relaxation, states: States, *, tolerance: float = 1e-4) -> float:
    """A relaxation turns with the state under every operation of the supercell.

    Parameters
    ----------
    relaxation : Relaxation
        Or anything that is called with occupations and carriers and returns y, Å, shape (n_states, n_sites, 3).
    states : States
        States on the supercell of the jumps.
    tolerance
        Å.

    Returns
    -------
    float
        Largest |y(gχ) − R_g y(χ)|, Å.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = equivariance_defect(relaxation, states)
    what, remedy = "the relaxation does not turn with the state", "build it from vectors to sites and invariant weights"
    return demand(value, tolerance, "Å", what, remedy)


def assert_bound(
    relaxation: Relaxation | None,
    model: Any,
    network: JumpNetwork,
    temperature_K: float | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    tolerance: float = 1e-6,
) -> float:
    """Λ[y] of every species, and of the vacancy, is not below the exact Λ of an enumerable cell.

    Parameters
    ----------
    relaxation : Relaxation or None
        On ``network``; None means y = 0.
    model
        A barrier model or lattice gas.
    network : JumpNetwork
        Jumps on a small cell, for example of :func:`~ase_kinoson.testing.enumerable_cell`.
    temperature_K
        K; not needed for a gas of rates.
    counts : mapping, optional
        Atoms of each species on the mobile sites.
    tolerance
        In units of Λ[0].

    Returns
    -------
    float
        Largest (Λ − Λ[y])/Λ[0], no unit.

    Raises
    ------
    AssertionError
        If it is larger than the tolerance.
    """
    __tracebackhide__ = True
    value = bound_defect(relaxation, model, network, temperature_K, counts=counts)
    what = "Λ[y] lies below the exact Λ, which no relaxation can"
    remedy = "take Δy as the difference of one y in the states before and after, moved along with the atoms"
    return demand(value, tolerance, "Λ[0]", what, remedy)


def assert_sum_rule(matrix: ArrayLike, bare: ArrayLike, rates: ArrayLike, *, tolerance: float = 1e-6) -> float:
    """Σ_b Λ_ab w_a/w_b = Λ_aa[0] in a random alloy with one rate w_a per species.

    It holds where the jump vectors of every site sum to zero.

    Parameters
    ----------
    matrix, bare : array_like, shape (n_species, n_species) or (n_species, n_species, 3, 3)
        Λ_ab and its value with y = 0, in one unit.
    rates : array_like, shape (n_species,)
        w_a, s⁻¹.
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
    value = sum_rule_defect(matrix, bare, rates)
    what = "Σ_b Λ_ab w_a/w_b differs from Λ_aa[0]"
    remedy = "check the normalisation and the signs of Λ_ab, a ≠ b, and that all states have the same energy"
    return demand(value, tolerance, "(relative)", what, remedy)
