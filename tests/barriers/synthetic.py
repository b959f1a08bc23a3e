"""Barriers of a model alloy of Cu, Ni and Pd on any lattice: stand-ins for computed ones."""

from dataclasses import dataclass

import numpy as np

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.crystal import JumpNetwork, States
from ase_kinoson.kinetics.sampling import random_occupations

INTERACTIONS = {("Cu", "Ni"): -0.04, ("X", "Pd"): -0.05, ("Pd", "Pd"): 0.03}
LEVEL = {"Cu": 0.7, "Ni": 0.8, "Pd": 0.9}


@dataclass
class Synthetic:
    """Stand-in for computed barriers."""

    states: States
    network: JumpNetwork
    barrier: np.ndarray
    delta_e: np.ndarray
    energy_initial: np.ndarray
    energy_final: np.ndarray
    valid: np.ndarray
    moving_species: np.ndarray


def synthetic(network, n=50, seed=0, noise=0.0, many_body=0.0):
    """Pair energies, and K from the moving species and the Ni atoms next to both ends (symmetric).

    ``many_body``: energy (eV) of a carrier with at least five Ni neighbours, which no pairs and triplets give.
    """
    cell = network.supercell
    rng = np.random.default_rng(seed)
    occ, carriers = random_occupations(cell, n, rng)
    states = States.from_occupations(cell, occ, carriers=carriers)
    known = {pair: e for pair, e in INTERACTIONS.items() if set(pair) <= set(cell.species)}
    truth = PairEnergy.from_interactions(cell, known)
    delta = truth.jump_delta(occ, carriers, network)
    moving = network.moving_species(occ, carriers)
    targets = network.targets(carriers)
    near = network.targets(np.arange(cell.n_sites))
    ni = cell.species.index("Ni") if "Ni" in cell.species else -1
    if many_body:
        for k in range(network.n_jumps):
            after, _ = network.apply(occ, carriers, np.full(n, k))
            delta[:, k] += many_body * ((after[np.arange(n)[:, None], near[targets[:, k]]] == ni).sum(axis=1) >= 5)
        delta -= many_body * ((occ[np.arange(n)[:, None], targets] == ni).sum(axis=1) >= 5)[:, None]
    level = np.array([LEVEL.get(s, 0.0) for s in cell.species])
    kra = np.zeros(delta.shape)
    for i in range(n):
        for k, t in enumerate(targets[i]):
            around = [s for s in (*near[carriers[i]], *near[t]) if s not in (carriers[i], t)]
            count = sum(occ[i, s] == ni for s in around)
            both = sum(occ[i, s] == ni for s in set(near[carriers[i]]) & set(near[t]))
            kra[i, k] = level[moving[i, k]] + 0.02 * count + 0.04 * (both == 2)
    barrier = kra + delta / 2 + noise * rng.normal(size=delta.shape)
    energy = truth.energies(occ)
    valid = np.ones(delta.shape, dtype=bool)
    valid[0, 0] = False
    barrier[0, 0] = np.inf
    return Synthetic(states, network, barrier, delta, energy, energy[:, None] + delta, valid, moving)
