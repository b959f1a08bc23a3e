"""
Obstacles and percolation
=========================

Immobile atoms block sites of a square and of a face-centred cubic lattice at random. How much do they slow diffusion
down, and which fraction of them ends it? The kinosons of every arrangement follow exactly from one linear system; they
vanish where the open sites no longer percolate. Takes about ten seconds on one core.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak

N_SAMPLES, N_FRACTIONS, N_ARRANGEMENTS = 60, 16, 4
LATTICES = {
    "square": (Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0)), (96, 96, 1), 0.592746),
    "fcc": (bulk("Cu", cubic=True), (12, 12, 12), 0.199236),
}

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for i, (name, (atoms, size, published)) in enumerate(LATTICES.items()):
    jumps = ak.JumpNetwork.from_supercell(ak.Alloy.from_atoms(atoms).supercell(size))
    threshold = ak.percolation_threshold(jumps, n_samples=N_SAMPLES, seed=0)
    print(f"{name}: p_c = {threshold.open_fraction}, published {published}")
    blocked = np.linspace(0.0, 1.0 - 0.8 * published, N_FRACTIONS)
    curve = ak.obstructed_diffusion(jumps, blocked, n_arrangements=N_ARRANGEMENTS, lookahead=(8,), seed=0)
    print(curve.to_dataframe().iloc[:, :5].to_string(index=False, float_format="%.4f"))
    curve.plot(threshold=threshold.blocked_fraction, label=name, color=f"C{i}", ax=left)
    curve.plot(quantity="percolating_share", threshold=threshold.blocked_fraction, label=name, color=f"C{i}", ax=right)
fig.savefig("percolation.png", dpi=150)
