"""
Tracer diffusion in the Cantor alloy
====================================

D* of all five species of CoCrFeMnNi from 1073 to 1273 K, from verified barriers in the repository (107 atoms and a
vacancy, MEAM potential). A barrier does not depend on temperature; weights of the states and rates do, so that
equilibrium states drawn at 1173 K serve all three. Half of them, and random states, train a barrier model; the others
give the bound with their own barriers, and the model tells what only trajectories can tell (a ratio estimate). Kinetic
Monte Carlo of the model's rates stands beside it: the difference is what the model gets wrong.

The vacancy fraction is not known: D* is per vacancy fraction, and activation energies are those of migration. Takes
about a minute on one core.
"""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ase_kinoson as ak

DRAWN_K, TEMPERATURES_K = 1173.0, (1073.0, 1173.0, 1273.0)
N_STATES, N_WALKERS, LONG_JUMPS, N_KMC = 32, 96, 100, 200

data = Path(__file__).parent / "data" / "cantor_107.npz"
random, equilibrium = (ak.load_barriers(data, name) for name in ("random", "equilibrium"))
jumps, cell = equilibrium.network, equilibrium.states.supercell
held = np.arange(len(equilibrium)) % 2 == 0
model = ak.BarrierModel.fit([random, equilibrium[~held]], seed=0, hidden=0)
reference = equilibrium[held]
error = (model.predict(reference.states) - reference.barrier)[reference.valid]
print(f"{reference!r}: mean absolute error of the model {np.abs(error).mean():.3f} eV")

# %%
# Monte Carlo of the potential drew some states more than once. The series takes them as they were drawn.
weights = reference.states.weights
rows = np.repeat(np.arange(len(reference)), np.rint(weights / weights.min()).astype(int))
drawn, about = reference[rows], {"ensemble": "equilibrium", "temperature_K": DRAWN_K, "groups": rows}
occupations, energies = drawn.states.occupations, drawn.energy_initial
drawn = replace(drawn, states=ak.States.from_occupations(cell, occupations, model_energies=energies, **about))
training = {"form": "paths", "lookahead": 1, "n_states": N_STATES}
ladder = {"n_steps": 16, "n_trajectories": N_WALKERS, "long_jumps": LONG_JUMPS}
given = {"temperatures_K": TEMPERATURES_K, "training": training, "correct": ladder}
series = ak.temperature_series([drawn], jumps, model, **given)
print(series, *series.activation_energies().values(), sep="\n")

# %%
# The model's own coefficients, from trajectories at the temperature of the states.
states = ak.sample_states(cell, N_WALKERS, method="monte-carlo", model=model, temperature_K=DRAWN_K, seed=11)
walked = ak.run_kmc(states, jumps, model, DRAWN_K, n_walkers=N_WALKERS, n_jumps=N_KMC, seed=13)
print(walked)

fig, ax = plt.subplots(figsize=(7.4, 4.2), layout="constrained")
series.plot(["Mn", "Fe", "Cr", "Ni", "Co"], model="arrhenius", ax=ax)
ax.get_legend().set(loc="center left", bbox_to_anchor=(1.02, 0.5))
fig.savefig("cantor_diffusion.png", dpi=150)
