"""How much of a diffusivity rests on barriers that are not settled."""

from __future__ import annotations

import numpy as np

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.kinetics.rates import rates_from_barriers

__all__ = ["unsettled_shares"]


def unsettled_shares(barriers: Barriers, temperature_K: float) -> dict[str, float]:
    """Share of the uncorrelated diffusivities that jumps with unsettled barriers carry.

    Λ[0] = ½ Σ_s π_s Σ_j ω_j |δx_j|²: the parts of jumps whose barrier is that of the highest saddle known (see
    :attr:`~ase_kinoson.barriers.reference.Barriers.unsettled`) over all. If every such jump were closed, Λ[0] would
    fall by this share, and no higher saddle lowers it by more. Where only an upper bound is known it may rise.

    Parameters
    ----------
    barriers
        Barriers of equilibrium states.
    temperature_K
        K.

    Returns
    -------
    dict
        ``"carrier"`` and every species that moves → share, 0 to 1; NaN for a species without a rate.
    """
    states, network = barriers.states, barriers.network
    rates = rates_from_barriers(barriers.barrier, temperature_K)
    length = np.square(network.vectors[network.basis_of(states.carriers)]).sum(axis=-1)
    part = states.weights[:, None] * rates * np.where(barriers.valid, length, 0.0)

    def share(own: np.ndarray) -> float:
        total = float(part[own].sum())
        return float(part[own & barriers.unsettled].sum()) / total if total > 0 else float("nan")

    names = enumerate(states.supercell.species)
    found = {s: share(barriers.moving_species == c) for c, s in names if c and (barriers.moving_species == c).any()}
    return {"carrier": share(barriers.valid), **found}
