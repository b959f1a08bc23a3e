"""What a relaxation leaves: the mean relaxed displacement of the next jump.

On the chain of jumps, r̄(χ) = Σ_k p_k (δx_k + Δ_k y) with p_k = W_k/Γ vanishes in every state where y solves the Poisson
equation. Its correlations along trajectories are all that separates Λ[y] from Λ (see :mod:`.ladder`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.functional import bare_displacements
from ase_kinoson.kinosons.relaxation import Relaxation

__all__ = ["Residuals", "residuals"]


@dataclass(frozen=True, eq=False)
class Residuals:
    """Averages over the jumps of some states, with p_k = W_k/Γ. S species in the order of ``supercell.species[1:]``.

    Attributes
    ----------
    escape : ndarray, shape (n,)
        Γ, s⁻¹.
    probability : ndarray, shape (n, J)
        p_k.
    drift : ndarray, shape (n, S, 3)
        r̄^a = Σ_k p_k (δx^a_k + Δ_k y^a), Å.
    square : ndarray, shape (n, S, S, 3, 3)
        ½ Σ_k p_k (δx^a_k + Δ_k y^a) ⊗ (δx^b_k + Δ_k y^b), Å².
    bare : ndarray, shape (n, S, S, 3, 3)
        The same with y = 0.
    tracer_square : ndarray, shape (n, S, 3, 3)
        ½ Σ_k p_k Σ_{i∈a} (δx_i + Δ_k y_i) ⊗ (δx_i + Δ_k y_i), Å².
    field : ndarray, shape (n, S, 3)
        y^a, Å.
    sites : ndarray of int, shape (n, m)
        Sites whose atoms have a drift of their own.
    atom_drift : ndarray of float32, shape (n, m, 3)
        r̄_i of the atoms on these sites, Å.
    """

    escape: NDArray[np.float64]
    probability: NDArray[np.float64]
    drift: NDArray[np.float64]
    square: NDArray[np.float64]
    bare: NDArray[np.float64]
    tracer_square: NDArray[np.float64]
    field: NDArray[np.float64]
    sites: NDArray[np.int64]
    atom_drift: NDArray[np.float32]


def residuals(
    relaxation: Relaxation | None,
    network: JumpNetwork,
    rates: Rates,
    occupations: NDArray,
    carriers: ArrayLike,
    *,
    given: NDArray | None = None,
    chunk: int = 64,
) -> Residuals:
    """Evaluate a relaxation and all of its differences on states.

    Parameters
    ----------
    relaxation
        None means y = 0.
    network
        Jumps.
    rates
        Rates of the functional.
    occupations : ndarray of int, shape (n, n_sites)
    carriers : array_like of int, shape (n,)
    given : ndarray, shape (n, J), optional
        The rates of these states where they are known already, s⁻¹.
    chunk
        States evaluated at a time; bounds memory.

    Raises
    ------
    StatesError
        If nothing can move in a state.
    """
    c = np.asarray(carriers, dtype=np.int64)
    n, n_jumps, n_species = len(c), network.n_jumps, len(network.supercell.species) - 1
    basis = network.basis_of(c)
    bare_jump = bare_displacements(network, occupations, c)
    same = given is None and relaxation is not None and relaxation.lookahead > 0 and _same(relaxation.rates, rates)
    w = np.zeros((n, n_jumps))
    if given is not None:
        w = np.asarray(given, dtype=float)
    elif not same:
        w = rates(occupations, c)
    moved = bare_jump
    tracer = np.zeros((n, n_species, 3, 3))
    field = np.zeros((n, n_species, 3))
    if relaxation is None:
        p = _probabilities(w)
        targets = network.targets(c)
        interstitial = network.mechanism == "interstitial"
        sign = 1.0 if interstitial else -1.0
        shift = sign * p[..., None] * network.vectors[basis]
        sites = (
            np.broadcast_to(c[:, None], targets.shape) if interstitial else np.where(targets >= 0, targets, c[:, None])
        )
        tracer = 0.5 * np.einsum("nk,nkax,nkay->naxy", p, bare_jump, bare_jump, optimize=True)
        atom_drift = shift.astype(np.float32)
    else:
        moved = np.zeros_like(bare_jump)
        width = 0
        parts = []
        every = np.arange(1, n_species + 1)
        for b in np.unique(basis):
            rows = np.flatnonzero(basis == b)
            for begin in range(0, len(rows), chunk):
                part = rows[begin : begin + chunk]
                found = relaxation.relaxed_jumps(int(b), occupations[part], c[part])
                if same:
                    assert found.rates is not None
                    w[part] = found.rates
                member = (found.codes[:, :, None] == every).astype(float)
                moved[part] = np.einsum("bkwx,bws->bksx", found.moved, member, optimize=True)
                share = _probabilities(w[part])
                mean = np.einsum("bk,bkwx->bwx", share, found.moved, optimize=True)
                for a in range(n_species):
                    own = (0.5 * share[..., None] * member[:, None, :, a])[..., None] * found.moved
                    own, other = (x.transpose(0, 3, 1, 2).reshape(len(part), 3, -1) for x in (own, found.moved))
                    tracer[part, a] = own @ other.swapaxes(-1, -2)
                field[part] = np.einsum("bwx,bws->bsx", found.field, member, optimize=True)
                width = max(width, found.sites.shape[1])
                parts.append((part, found.sites, mean))
        sites = np.repeat(c[:, None], width, axis=1)
        atom_drift = np.zeros((n, width, 3), dtype=np.float32)
        for part, own_sites, mean in parts:
            sites[part, : own_sites.shape[1]] = own_sites
            atom_drift[part, : own_sites.shape[1]] = mean
    escape = w.sum(axis=1)
    if not np.all(escape > 0):
        raise StatesError(
            f"found {int((escape <= 0).sum())} of {n} states in which no jump has a rate; expected states that the "
            "carrier can leave; drop them"
        )
    p = _probabilities(w)
    return Residuals(
        escape,
        p,
        np.einsum("nk,nkax->nax", p, moved),
        0.5 * np.einsum("nk,nkax,nkby->nabxy", p, moved, moved, optimize=True),
        0.5 * np.einsum("nk,nkax,nkby->nabxy", p, bare_jump, bare_jump, optimize=True),
        tracer,
        field,
        sites,
        atom_drift,
    )


def _probabilities(w: NDArray) -> NDArray[np.float64]:
    total = w.sum(axis=1, keepdims=True)
    return np.divide(w, total, out=np.zeros_like(w), where=total > 0)


def _same(one: Rates | None, other: Rates) -> bool:
    """Whether two rates are the same numbers, so that they need not be computed twice."""
    if one is None:
        return False
    alike = one.source is other.source and one.network.supercell == other.network.supercell
    return alike and one.temperature_K == other.temperature_K and one.attempt_frequency == other.attempt_frequency
