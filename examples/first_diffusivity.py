"""
First diffusivity
=================

From ASE's ``bulk`` and a calculator to diffusivities of a Cu-Ni alloy: sites, jumps, barriers of random states, a
barrier model, equilibrium states of it, their barriers, and an average over single jumps. The result is an upper bound
with an error, and the kinosons show which jumps carry it. A cell of 32 sites and few states keep this short; a study
takes 108 sites or more, and as many states as its error asks for. Takes about 40 seconds on one core.
"""

import matplotlib.pyplot as plt
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson.plotting import plot_barriers, plot_kinoson_density

TEMPERATURE_K = 1000.0
N_TRAINING, N_STATES = 8, 16  # states that the model learns from, and others for the result
N_RELAXATION = 128  # states of the model that y is trained on

# %%
# The alloy: a crystal of ASE, and who sits on its sites. One site is vacant, and its neighbours can jump into it.
alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.57), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
cell = alloy.supercell(2)
jumps = ak.JumpNetwork.from_supercell(cell)

# %%
# Barriers of random states, every saddle verified, and a model that learns them.
training = ak.compute_barriers(ak.sample_states(cell, N_TRAINING, seed=1), jumps, EMT)
model = ak.BarrierModel.fit(training, hidden=0)

# %%
# Diffusivities are averages over equilibrium states. The model draws them; weights carry them to the energies of EMT.
states = ak.sample_states(cell, N_STATES, method="monte-carlo", model=model, temperature_K=TEMPERATURE_K, seed=2)
barriers = ak.compute_barriers(states, jumps, EMT)
states = ak.reweight(states, barriers.energy_initial, TEMPERATURE_K)

# %%
# The relaxation y says how far each atom will still go. It is trained on the model, and the bound is taken with the
# barriers of EMT on states that neither has seen. Without c_v, D* of the atoms would be given per vacancy.
y = ak.train_relaxation(
    cell, jumps, model, temperature_K=TEMPERATURE_K, form="paths", lookahead=1, n_states=N_RELAXATION
)
result = ak.transport(states, jumps, barriers, y, TEMPERATURE_K, vacancy_fraction=1e-5)
print(result)

# %%
# How many jumps there are of each barrier, and how much of the vacancy's diffusivity they carry.
density = ak.KinosonDensity.from_result(result)
print("share of the jumps that carries half and 90 % of D_v:", density.shares())
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
moving = [cell.species[code] for code in barriers.moving_species[barriers.valid]]
plot_barriers(barriers.barrier[barriers.valid], moving, bins=16, ax=left)
plot_kinoson_density(density, bins=16, ax=right)
fig.savefig("first_diffusivity.png", dpi=150)
