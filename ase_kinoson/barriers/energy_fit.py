"""Ridge regression of pair energies on total energies and energy changes of several sets of states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray

from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.fitting import Ridge, RidgeData, fit_ridge
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import ModelError

__all__ = ["DEFAULT_REACH", "EnergySet", "fit_pairs", "shell_cutoff", "triplet_reach"]

DEFAULT_REACH = 2.01
"""Default cutoff of pairs and carrier environments in units of the shortest jump: 54 sites in fcc, 58 in
bcc."""


@dataclass(frozen=True, eq=False)
class EnergySet:
    """Energies of states of one supercell.

    Attributes
    ----------
    states : States
    network : JumpNetwork or None
        Their jumps.
    energies : ndarray or None, shape (n,)
        eV; not finite entries are left out.
    delta_e : ndarray or None, shape (n, J)
        Energy changes of the jumps, eV; not finite entries are left out.
    weights : ndarray or None, shape (n, J)
        How much each change counts; 0: not at all.
    """

    states: States
    network: JumpNetwork | None
    energies: NDArray[np.float64] | None
    delta_e: NDArray[np.float64] | None
    weights: NDArray[np.float64] | None = None


def fit_pairs(
    sets: Sequence[EnergySet],
    *,
    cutoff: float | None,
    triplet_cutoff: float | None,
    energy_weight: float | None,
    ridge: float | None,
) -> tuple[PairClusters, Ridge, float]:
    """Clusters, coefficients and constant; see :meth:`PairEnergy.fit`."""
    cell, network = sets[0].states.supercell, sets[0].network
    if cutoff is None:
        bond = float(network.lengths.min()) if network is not None else shell_cutoff(cell.alloy, 1) / 1.001
        cutoff = DEFAULT_REACH * bond
    if triplet_cutoff is None:
        triplet_cutoff = 0.0 if network is None else triplet_reach(network)
    clusters = PairClusters.build(cell, cutoff=cutoff, network=network, triplet_cutoff=triplet_cutoff)
    changes: list[RidgeData] = []
    totals: list[RidgeData] = []
    first_group = 0
    for part in sets:
        states, own = part.states, clusters.on(part.states.supercell)
        _, groups = np.unique(states.groups, return_inverse=True)
        groups = groups + first_group
        first_group = int(groups.max(initial=first_group - 1)) + 1
        if part.delta_e is not None and part.network is not None:
            weight = np.ones(part.delta_e.shape) if part.weights is None else part.weights
            use = np.isfinite(part.delta_e) & (part.network.targets(states.carriers) >= 0) & (weight > 0)
            rows, jumps = np.nonzero(use)
            design = own.jump_features(states.occupations, states.carriers, part.network)[rows, jumps]
            changes.append(RidgeData(design, part.delta_e[rows, jumps], groups[rows], False, weight[rows, jumps]))
        if part.energies is not None:
            some = np.flatnonzero(np.isfinite(part.energies))
            if len(some):
                design = own.features(states.occupations[some])
                totals.append(RidgeData(design, part.energies[some], groups[some], True))
    if not any(len(b.target) for b in (*changes, *totals)):
        raise ModelError("found no energies to fit; expected finite energies or energy changes; compute barriers first")
    blocks = [RidgeData.join(b) for b in (changes, totals) if sum(len(x.target) for x in b)]
    fitted = fit_ridge(blocks, weight=energy_weight, ridge=ridge)
    constant = 0.0
    if totals:
        centre, level = totals[0].centres()
        constant = level - float(centre @ fitted.coefficients)
    return clusters, fitted, constant


def shell_cutoff(alloy: Alloy, shells: int) -> float:
    """Slightly more than the length of the ``shells``-th shell of varying sites, Å."""
    varying = alloy.varying_basis
    reach = 1.01 * float(np.linalg.norm(alloy.cell[alloy.pbc], axis=1).max())
    while True:
        i, j, d = primitive_neighbor_list("ijd", alloy.pbc, alloy.cell, alloy.scaled_positions @ alloy.cell, reach)
        lengths = np.unique(np.round(d[varying[i] & varying[j]], 3))
        if len(lengths) > shells or not varying.any():
            return float(lengths[shells - 1]) * 1.001 + 1e-3 if varying.any() else reach
        reach *= 1.5


def triplet_reach(network: JumpNetwork) -> float:
    """Default distance from the carrier up to which atoms are counted in pairs, Å."""
    interstitial = network.supercell.alloy.is_interstitial
    return float((1.45 if interstitial else 1.2) * network.lengths.min())
