"""
Kinosons as an ASE calculator
=============================

``KinosonCalculator`` answers for any ``Atoms`` with a vacancy, in any order and off their sites: barriers, rates, the
relaxation y of every atom, and kinosons. Left: what the jumps of one vacancy add to diffusion, without and with y; fast
jumps lose what they give back. Right: the jumps of all frames of a file; those that fall back at once (low reverse
barrier) add little. The model is learned from barriers of CoCrFeMnNi in the repository. Takes 15 seconds on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.io import read, write

import ase_kinoson as ak
from ase_kinoson.plotting import species_colors

DATA = Path(__file__).parent / "data" / "cantor_107.npz"
TEMPERATURE_K, N_TRAINING, N_RELAXATION, N_FRAMES = 1173.0, 60, 64, 40

training = ak.load_barriers(DATA, "random")[:N_TRAINING]
cell, jumps = training.states.supercell, training.network
model = ak.BarrierModel.fit(training, hidden=0)
given = {"model": model, "temperature_K": TEMPERATURE_K}
y = ak.train_relaxation(cell, jumps, form="paths", lookahead=1, n_states=N_RELAXATION, **given)

# %%
# Atoms from somewhere else: frames of a file, relaxed (here: rattled by 0.05 Å), in another order.
rng = np.random.default_rng(0)
frames = ak.sample_states(cell, N_FRAMES, method="monte-carlo", seed=1, **given).to_atoms()
for atoms in frames:
    atoms.rattle(0.05, rng=rng)
write("frames.extxyz", [atoms[rng.permutation(len(atoms))] for atoms in frames], columns=["symbols", "positions"])

# %%
# The calculator gives an energy as ASE asks for it, and its own quantities by name.
calc, rows = ak.KinosonCalculator(model, y, temperature_K=TEMPERATURE_K), []
names = ("barriers", "reverse_barriers", "kinosons", "rates", "jump_vectors", "moving_atoms")
for atoms in read("frames.extxyz", ":"):
    atoms.calc = calc
    forward, reverse, kinosons, rates, vectors, moving = (calc.get_property(name, atoms) for name in names)
    bare = rates * (vectors**2).sum(axis=1) / 6  # Å²/s: the kinosons with y = 0
    rows.append((forward, reverse, kinosons * 1e-20, bare * 1e-20, np.array(atoms.symbols)[moving]))
print(f"energy of the last frame: {atoms.get_potential_energy():.3f} eV (the zero is the model's)")

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
forward, _, kinosons, bare, symbols = rows[0]
order, x, color = np.argsort(forward), np.arange(len(forward)), species_colors(cell.species[1:])
left.bar(x, bare[order], color="0.85", label="with y = 0")
left.bar(x, kinosons[order], 0.5, color=[color[s] for s in symbols[order]], label="with y, colour of the atom")
left.set(xlabel="jumps of one vacancy: barrier (eV), moving atom", ylabel="kinoson (m²/s)", yscale="log")
left.set_xticks(x, [f"{forward[k]:.2f}\n{symbols[k]}" for k in order], fontsize=8)
forward, reverse, kinosons, _, symbols = (np.concatenate(part) for part in zip(*rows, strict=True))
right.scatter(forward, reverse, 2 + 600 * kinosons / kinosons.max(), [color[s] for s in symbols], alpha=0.6, lw=0)
right.set(xlabel="forward barrier (eV)", ylabel="reverse barrier (eV)", title="area: kinoson", aspect="equal")
right.legend([plt.Line2D([], [], ls="", marker="o", color=c) for c in color.values()], color, frameon=False)
left.legend(frameon=False)
fig.savefig("ase_calculator.png", dpi=150)
