"""Obstacles: how immobile atoms slow diffusion down, and the fraction of them that ends it.

Sites of a square and of a face-centred cubic lattice are blocked at random. The kinosons of every arrangement follow
exactly from one linear system; they vanish where the open sites no longer percolate. Takes about half a minute on one
core and writes percolation.png.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak

LATTICES = {
    "square": (Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0)), (96, 96, 1), 0.592746),
    "fcc": (bulk("Cu", cubic=True), (12, 12, 12), 0.199236),
}

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for i, (name, (atoms, size, published)) in enumerate(LATTICES.items()):
    jumps = ak.JumpNetwork.from_supercell(ak.Alloy.from_atoms(atoms).supercell(size))
    threshold = ak.percolation_threshold(jumps, n_samples=60, seed=0)
    print(f"{name}: p_c = {threshold.open_fraction}, published {published}")
    blocked = np.linspace(0.0, 1.0 - 0.8 * published, 16)
    curve = ak.obstructed_diffusion(jumps, blocked, n_arrangements=4, lookahead=(8,), seed=0)
    print(curve.to_dataframe().iloc[:, :5].to_string(index=False, float_format="%.4f"))
    curve.plot(threshold=threshold.blocked_fraction, label=name, color=f"C{i}", ax=left)
    curve.plot(quantity="percolating_share", threshold=threshold.blocked_fraction, label=name, color=f"C{i}", ax=right)
fig.savefig("percolation.png", dpi=150)
