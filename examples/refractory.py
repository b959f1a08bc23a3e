"""
Vacancy jumps in refractory NbTaMoW
===================================

Barriers of the bcc alloy NbTaMoW with the SNAP potential of Li et al. (npj Comput. Mater. 6, 70 (2020)), by name. It
needs LAMMPS and the parameter files of a KIM model; without them the script says how to get them, and ends. Barriers
of each species spread over half an electronvolt or more. A model of them shows which jumps carry diffusion, and its
trajectories give D*. How good this potential is for saddles is not checked here. Takes about a minute on one core.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.plotting import species_colors

POTENTIAL, SPECIES, TEMPERATURE_K = "nbtawmo-snap", ("Nb", "Ta", "Mo", "W"), 2000.0
N_STATES, N_MODEL, N_JUMPS = 32, 128, 400

potential = ak.potential(POTENTIAL)
if missing := potential.missing():
    print(f"The potential of this script is not here: {missing}.")
    raise SystemExit


def cell_of(a):  # 54 sites, one of them vacant: eight jumps per state
    return ak.Alloy.from_atoms(bulk("Nb", cubic=True, a=a), {"Nb": dict.fromkeys(SPECIES, 0.25)}).supercell(3)


# %%
# The lattice constant is that of the potential.
a, error = ak.relaxed_lattice_constant(cell_of(3.24), potential, n_cells=4)
print(f"lattice constant {a:.3f} ± {error:.3f} Å")
cell = cell_of(a)
jumps = ak.JumpNetwork.from_supercell(cell)
barriers = ak.compute_barriers(ak.sample_states(cell, N_STATES, seed=1), jumps, potential, store="refractory.db")
print(barriers)
for species, row in barriers.by_species().items():
    print(f"{species}: {row['mean']:.2f} eV, spread {row['std']:.2f} eV, {row['n']} jumps, {row['rejected']} rejected")

# %%
# Everything from here on is of the model: its error bars hold no error of the model itself.
model = ak.BarrierModel.fit(barriers, hidden=0)
drawn = {"method": "monte-carlo", "temperature_K": TEMPERATURE_K, "seed": 2}
states = ak.sample_states(cell, N_MODEL, model=model, **drawn)
result = ak.transport(states, jumps, model, None, TEMPERATURE_K)
walked = ak.run_kmc(states, jumps, model, TEMPERATURE_K, n_walkers=N_MODEL, n_jumps=N_JUMPS, seed=3)
print(walked)
fig, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
values = [barriers.barrier[barriers.valid & (barriers.moving_species == k)] for k in range(1, 5)]
names, colors = zip(*species_colors(cell.species[1:]).items(), strict=True)
axes[0].hist(values, bins=16, stacked=True, label=names, color=colors)
axes[0].set(xlabel="barrier of SNAP (eV)", ylabel="jumps of random states")
axes[0].legend(title="jumping atom", frameon=False)
ak.KinosonDensity.from_result(result).plot(ax=axes[1])
value, bar = np.array([(float(q.value), 2 * float(q.error)) for q in walked.tracer_diffusivity.values()]).T
axes[2].bar(names, value, yerr=bar, color=colors)
axes[2].set(yscale="log", ylabel="D* per $c_v$ (m²/s), bars: 2 standard errors", title=f"model, {TEMPERATURE_K:g} K")
fig.savefig("refractory.png", dpi=150)
