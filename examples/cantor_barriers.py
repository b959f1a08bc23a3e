"""From barriers of the Cantor alloy to diffusion coefficients, without a potential.

The repository holds verified barriers of CoCrFeMnNi (107 atoms, MEAM) for random states and for equilibrium states at
1173 K. Half of the equilibrium states, and the random ones, train a barrier model; the other half is held out and gives
the bound. Takes about two minutes on one core and writes cantor.png.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ase_kinoson as ak

T = 1173.0
DATA = Path(__file__).parent / "data" / "cantor_107.npz"

random, equilibrium = (ak.load_barriers(DATA, name) for name in ("random", "equilibrium"))
held = np.arange(len(equilibrium)) % 2 == 0
model = ak.BarrierModel.fit([random, equilibrium[~held]], seed=0)
reference = equilibrium[held]
error = (model.predict(reference.states) - reference.barrier)[reference.valid]
print(f"{reference.n_barriers} held-out barriers, mean absolute error {np.abs(error).mean():.3f} eV")
print(ak.warren_cowley(reference.states, n_shells=1))
print(ak.sample_drift(reference, T))

relaxation = ak.train_relaxation(
    reference.states.supercell, reference.network, model, temperature_K=T, form="paths", lookahead=1, n_states=512
)
bound = ak.transport(reference.states, reference.network, reference, relaxation, T)
print(bound)
best = ak.correct(bound, model, n_steps=16, n_trajectories=512, tracers=False, seed=1)
print(best)

density = ak.KinosonDensity.from_result(bound)
print("share of the jumps that carries half and 90 % of D_v:", density.shares())
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for code, symbol in enumerate(reference.states.supercell.species[1:], start=1):
    own = reference.valid & (reference.moving_species == code)
    left.hist(reference.barrier[own], bins=np.linspace(0, 2, 41), histtype="step", color=f"C{code - 1}", label=symbol)
left.set(xlabel="barrier (eV)", ylabel="jumps")
left.legend(frameon=False)
density.plot(ax=right)
fig.savefig("cantor.png", dpi=150)
