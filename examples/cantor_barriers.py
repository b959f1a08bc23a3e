"""
Barriers of the Cantor alloy
============================

From barriers to what carries diffusion, without a potential. The repository holds verified barriers of CoCrFeMnNi (107
atoms and a vacancy, MEAM) for random states and for equilibrium states at 1173 K. Half of the equilibrium states, and
the random ones, train a barrier model; the other half is held out and gives the bound. Low barriers are few, and few
jumps carry most of the diffusion: manganese. Takes about twenty seconds on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ase_kinoson as ak
from ase_kinoson.plotting import species_colors

TEMPERATURE_K = 1173.0
HIDDEN, N_STATES, N_TRAJECTORIES = 0, 128, 256  # hidden units of the model's network; 0: its linear part alone

data = Path(__file__).parent / "data" / "cantor_107.npz"
random, equilibrium = (ak.load_barriers(data, name) for name in ("random", "equilibrium"))
held = np.arange(len(equilibrium)) % 2 == 0
model = ak.BarrierModel.fit([random, equilibrium[~held]], hidden=HIDDEN, seed=0)
reference = equilibrium[held]
cell, jumps = reference.states.supercell, reference.network
error = (model.predict(reference.states) - reference.barrier)[reference.valid]
print(f"{reference.n_barriers} held-out barriers, mean absolute error {np.abs(error).mean():.3f} eV")
print(ak.warren_cowley(reference.states, n_shells=1))
print(ak.sample_drift(reference, TEMPERATURE_K))

# %%
# y is trained on the model's rates and judged with the barriers held out; then the residual ladder.
settings = {"temperature_K": TEMPERATURE_K, "form": "paths", "lookahead": 1, "n_states": N_STATES}
relaxation = ak.train_relaxation(cell, jumps, model, **settings)
bound = ak.transport(reference.states, jumps, reference, relaxation, TEMPERATURE_K)
best = ak.correct(bound, model, n_steps=16, n_trajectories=N_TRAJECTORIES, tracers=False, seed=1)
print(bound, best, sep="\n")

# %%
# Left: how many jumps there are at each barrier. Right: what they contribute to D_v.
density = ak.KinosonDensity.from_result(bound)
print("share of the jumps that carries half and 90 % of D_v:", density.shares())
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
bins, style = np.linspace(0, 2, 41), {"histtype": "step", "linewidth": 1.5}
colors = species_colors(cell.species[1:])
for code, symbol in enumerate(colors, start=1):
    own = reference.valid & (reference.moving_species == code)
    left.hist(reference.barrier[own], bins=bins, color=colors[symbol], label=symbol, **style)
left.set(xlabel="barrier (eV)", ylabel="jumps", xlim=(0, 2))
left.legend(frameon=False, title="jumping atom")
density.plot(ax=right)
d_v = best.vacancy_diffusivity
right.set(title=f"$D_v$ = ({1e9 * d_v.value:.1f} ± {1e9 * d_v.error:.1f})·10⁻⁹ m²/s, {d_v.kind}")
fig.savefig("cantor_barriers.png", dpi=150)
