"""
Small cells, solved exactly
===========================

All states of a small cell can be listed, and its transport coefficients follow from one linear system. Copper with
12 % of silver, which attracts the vacancy and jumps faster, is solved in this way in a cell of 27 sites. Beside it
stands what larger cells need: upper bounds without and with a trained relaxation y, the residual ladder that begins at
the second and goes down to the exact value, and kinetic Monte Carlo. Takes about 20 seconds on one core.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import ase_kinoson as ak

TEMPERATURE_K, SILVER = 900.0, 0.12
N_TRAINING, N_STEPS, N_WALKERS, N_JUMPS = 128, 24, 1024, 512

cell = ak.Alloy.from_atoms(bulk("Cu", a=3.7), {"Cu": {"Ag": SILVER, "Cu": 1 - SILVER}}).supercell(3, of="primitive")
jumps = ak.JumpNetwork.from_supercell(cell)
bonds = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): 0.02, ("Ag", "X"): -0.03})  # eV; X is the vacancy
model = ak.PairBarriers(bonds, {"Ag": 0.55, "Cu": 0.7})
exact = ak.exact_transport(cell, jumps, model, TEMPERATURE_K)
print(exact)

# averages here go over all states with their exact weights: it does not matter that y was trained on some of them
warnings.filterwarnings("ignore", message=".*trained the relaxation", category=ak.KinosonWarning)
every, given = exact.states, {"temperature_K": TEMPERATURE_K}
y = ak.train_relaxation(cell, jumps, model, form="paths", lookahead=1, n_states=N_TRAINING, **given)
bound = ak.transport(every, jumps, model, y, **given)
ladder = ak.correct(bound, model, n_steps=N_STEPS, n_trajectories=N_WALKERS, seed=1)
walks = ak.run_kmc(every, jumps, model, n_walkers=N_WALKERS, n_jumps=N_JUMPS, seed=2, **given)
bare = ak.transport(every, jumps, model, None, **given)

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
names = {"vacancy": "$D_v$", **{a: f"$D^*$({a})" for a in exact.species}}
true = {a: float(exact.tracer_diffusivity.get(a, exact.vacancy_diffusivity)) for a in names}
for i, (a, label) in enumerate(names.items()):
    rungs = ladder.ladder.rungs[a if a == "vacancy" else f"tracer {a}"]
    per_site = 1.0 if a == "vacancy" else exact.composition.fractions[exact.species.index(a)]
    scale = 1e-20 / per_site / true[a]  # Λ in Å²/s per carrier to D in m²/s, over the exact one
    x = np.arange(len(rungs.value)) + 0.1 * (i - 1)
    left.errorbar(x, rungs.value * scale, 2 * rungs.error * scale, fmt="sDo"[i] + "-", ms=4, color=f"C{i}", label=label)
methods = {"bound,\ny = 0": bare, "bound,\ntrained y": bound, "ladder": ladder, "kinetic\nMonte Carlo": walks}
for n, result in enumerate(methods.values()):
    for i, a in enumerate(names):
        found = result.tracer_diffusivity.get(a, result.vacancy_diffusivity)
        error = float(found.error) if n > 1 else 0.0  # bounds are averages over all states, walks are samples
        right.errorbar(n + 0.15 * (i - 1), float(found) / true[a], 2 * error / true[a], fmt="sDo"[i], color=f"C{i}")
for ax in (left, right):
    ax.axhline(1, color="0.5", lw=1, zorder=0)
left.set(xlabel="rung of the ladder (0: bound, trained y)", ylabel="$D$ / exact $D$")
left.legend(frameon=False, title="bars: two standard errors")
right.set(ylabel="$D$ / exact $D$", xticks=range(len(methods)), xticklabels=methods)
fig.savefig("exact_small_cells.png", dpi=150)
