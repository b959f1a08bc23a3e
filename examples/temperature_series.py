"""
A series of temperatures
========================

Upper bounds of the tracer diffusivities of a model alloy at four temperatures. States of all temperatures serve each of
them, with weights, so that the noise of D is common to the points and nearly cancels in the slope of the line.
Activation energies follow in two ways: from differences of ln D, and at each single temperature from the kinosons and
the energies of the states (Hellmann-Feynman). Energies are those of pairs of neighbours; computed
barriers go in as ``ak.temperature_series([barriers, ...], jumps, model)``. Takes about 20 seconds on one core.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.plotting import species_colors

TEMPERATURES_K = (800.0, 950.0, 1150.0, 1400.0)
N_STATES, N_RELAXATION = 200, 64  # of each temperature: states for D, and others that y is trained on

cell = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.57), {"Cu": {"Cu": 0.7, "Ni": 0.3}}).supercell(3)
jumps = ak.JumpNetwork.from_supercell(cell)
bonds = ak.PairEnergy.from_interactions(cell, {("Cu", "Ni"): 0.02, ("Ni", "X"): 0.03})  # eV; X is the vacancy
model = ak.PairBarriers(bonds, {"Cu": 0.75, "Ni": 0.95})

# %%
# Vacancies with a formation energy, so that D* is in m²/s. Its error would be common to all temperatures.
vacancies = VacancyFraction.from_formation(1.2)
series = ak.temperature_series(
    model,
    jumps,
    temperatures_K=TEMPERATURES_K,
    n_states=N_STATES,
    sampling={"sweeps": 30},
    training={"form": "paths", "lookahead": 1, "n_states": N_RELAXATION},
    vacancy_fraction=vacancies,
)
print(series)
energies = series.activation_energies()
for energy in energies.values():
    print(energy)

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
series.plot(["Cu", "Ni"], ax=left, top="K")
for i, (name, color) in enumerate(species_colors(["Cu", "Ni"]).items()):
    energy = energies[name]
    local = energy.hellmann_feynman  # of migration; the formation energy of vacancies is not in it
    right.errorbar(
        energy.temperatures_K, local.value, 2 * local.error, fmt="os"[i], color=color, label=f"{name}, kinosons"
    )
    between = [np.mean(s.temperatures_K) for s in energy.slopes]
    value, error = np.array([(s.finite_difference.value, s.finite_difference.error) for s in energy.slopes]).T
    right.errorbar(between, value, 2 * error, fmt="os"[i], mfc="w", color=color, label=f"{name}, slope between points")
    right.axhline(float(energy.fitted) - float(energy.vacancy), color=color, lw=1, ls="--")
right.axhline(np.nan, color="0.4", lw=1, ls="--", label="straight line through all")
right.set(xlabel="temperature (K)", ylabel="migration energy, two standard errors (eV)")
right.legend(frameon=False, fontsize="small", loc="center right", bbox_to_anchor=(1, 0.3))
fig.savefig("temperature_series.png", dpi=150)
