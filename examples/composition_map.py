"""
Copper-nickel from end to end
=============================

One barrier model of five compositions, each at its own lattice constant, and a map of nine. EMT stands in for a real
potential. Takes about 45 seconds on one core.
"""

import matplotlib.pyplot as plt
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak

SPECIES, TEMPERATURE_K = ("Cu", "Ni"), 1000.0
N_STATES, TRAINING_STEP, STEP = 4, 0.25, 0.125  # states per trained alloy, steps of training and map
N_WALKERS, N_JUMPS = 128, 256
parent = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.5}})


def cell_of(composition, a):
    return ak.with_composition(parent, composition, scale=a / 3.6).supercell(2)


# %%
# Lattice constants of the pure metals; between them Vegard's rule is good enough for this pair.
pure = {s: ak.relaxed_lattice_constant(cell_of({s: 1.0}, 3.6), EMT)[0] for s in SPECIES}
print(pure)

# %%
# A few random states of five compositions. A real study takes larger cells and more states, and adds states of the
# model's own equilibrium.
sets = []
for seed, x in enumerate(ak.composition_grid(SPECIES, TRAINING_STEP)):
    cell = cell_of(x, ak.vegard(x, pure))
    states = ak.sample_states(cell, 1 if max(x.values()) == 1 else N_STATES, seed=seed)
    sets.append(ak.compute_barriers(states, ak.JumpNetwork.from_supercell(cell), EMT, store=f"CuNi-{seed}.db"))
model = ak.BarrierModel.fit(sets, hidden=0, seed=0)
print(model)

# %%
# The map. Points that are in the folder are not computed again.
found = ak.composition_map(
    ak.JumpNetwork.from_supercell(parent.supercell(3)),
    model,
    ak.composition_grid(SPECIES, STEP),
    temperature_K=TEMPERATURE_K,
    lattice_constant=pure,
    settings=ak.MapSettings(n_chains=N_WALKERS, sweeps=10, n_jumps=N_JUMPS, n_walkers=N_WALKERS),
    folder="CuNi-map",
)
found.write_csv("CuNi-map.csv")

# %%
# Tracer diffusivities and correlation factors over the composition.
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
found.plot("tracer", ax=axes[0])
found.plot("f", ax=axes[1])
fig.savefig("composition_map.png", dpi=150)
