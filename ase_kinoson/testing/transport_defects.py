"""How far a relaxation or a solver is from what the variational principle asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.testing.cells import symmetry_operations

__all__ = ["bound_defect", "equivariance_defect", "sum_rule_defect"]


def equivariance_defect(relaxation: Relaxation, states: States) -> float:
    """Largest |y(gχ) − R_g y(χ)|, Å, over all operations g of the supercell and all atoms.

    Parameters
    ----------
    relaxation
        On the jumps of the states.
    states
        States on the supercell of these jumps.
    """
    before = relaxation(states.occupations, states.carriers)
    worst = 0.0
    for image, rotation in symmetry_operations(states.supercell):
        turned = np.empty_like(states.occupations)
        turned[:, image] = states.occupations
        after = relaxation(turned, image[states.carriers])
        worst = max(worst, float(np.abs(after[:, image] - before @ rotation.T).max()))
    return worst


def bound_defect(
    relaxation: Relaxation | None,
    model: Any,
    network: JumpNetwork,
    temperature_K: float | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    limit: int = 5000,
) -> float:
    """Largest (Λ_exact − Λ[y])/Λ[0] of any species or of all atoms together: not above 0, whatever y is.

    Parameters
    ----------
    relaxation : Relaxation or None
        On ``network``; None means y = 0.
    model
        A barrier model or lattice gas, whose rates obey detailed balance.
    network : JumpNetwork
        Jumps on a cell that can be enumerated, for example of :func:`~ase_kinoson.testing.enumerable_cell`.
    temperature_K
        K; not needed for a gas of rates.
    counts : mapping, optional
        Atoms of each species on the mobile sites.
    limit
        Largest number of states.

    Raises
    ------
    KinosonError
        If there are more states.
    ModelError
        If the rates break detailed balance.

    Notes
    -----
    D. R. Trinkle, Phys. Rev. Lett. 121, 235901 (2018). The bound is lost where Δy is not the difference of one
    function of the state.
    """
    rates = Rates.of(model, network, temperature_K=temperature_K)
    space = StateSpace.enumerate(network, counts=counts, limit=limit)
    weights = space.weights(rates)
    exact, bare, _ = exact_lambda(space, rates, weights=weights)
    terms = jump_terms(relaxation, space.occupations, space.carriers, network=network)
    flow = weights[:, None] * np.where(space.next_state >= 0, rates(space.occupations, space.carriers), 0.0)
    found = 0.5 * np.einsum("nk,nkai,nkbi->ab", flow, terms.displacement, terms.displacement, optimize=True)
    exact, bare = (np.trace(x, axis1=2, axis2=3) for x in (exact, bare))
    gaps = [*np.diag(exact - found), (exact - found).sum()]
    scale = [*np.diag(bare), bare.sum()]
    return float(max(gap / size for gap, size in zip(gaps, scale, strict=True) if size > 0))


def sum_rule_defect(matrix: ArrayLike, bare: ArrayLike, rates: ArrayLike) -> float:
    """Largest |Σ_b Λ_ab w_a/w_b − Λ_aa[0]|/Λ_aa[0] of a random alloy with one rate w_a per species.

    Parameters
    ----------
    matrix : array_like, shape (n_species, n_species) or (n_species, n_species, 3, 3)
        Λ_ab in any unit, for instance of :func:`~ase_kinoson.kinosons.exact.exact_lambda` or of your own solver.
    bare : array_like, shape of ``matrix``
        The same with y = 0, in the unit of ``matrix``.
    rates : array_like, shape (n_species,)
        w_a, s⁻¹, all positive.

    Raises
    ------
    KinosonError
        If the shapes do not fit or a rate is not positive.

    Notes
    -----
    L. K. Moleko and A. R. Allnatt, Philos. Mag. A 58, 677 (1988). Exact in any periodic cell, even a tiny one, if all
    states have the same energy and the jump vectors of every site sum to zero, as they do on all lattices whose sites
    are centres of symmetry.
    """
    found, zero, w = np.asarray(matrix, dtype=float), np.asarray(bare, dtype=float), np.asarray(rates, dtype=float)
    if found.ndim == 4 and found.shape == zero.shape:
        found, zero = np.trace(found, axis1=2, axis2=3), np.trace(zero, axis1=2, axis2=3)
    if found.shape != (len(w), len(w)) or zero.shape != found.shape or not np.all(w > 0):
        raise KinosonError(
            f"found matrices of shapes {np.shape(matrix)} and {np.shape(bare)} and rates {w.tolist()}; expected one "
            "row and column per rate, all rates above 0; correct them"
        )
    total = (found * w[:, None] / w[None, :]).sum(axis=1)
    return float(np.abs(total / np.diag(zero) - 1.0).max())
