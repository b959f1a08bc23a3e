"""
Lithium in the channels of olivine
==================================

In LiFePO4 lithium moves along b in channels of octahedral sites, half a cell per jump; the published barrier of a
static-lattice calculation is 0.55 eV there and more than 2 eV across (Islam, Driscoll, Fisher and Slater, Chem. Mater.
17, 5085 (2005)). That barrier, the prefactor of 10 THz and the energy beside a dopant are given numbers here. Each
arrangement is solved exactly: dopants slow lithium down, iron on its sites stops it. Takes about five seconds.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.spacegroup import crystal

import ase_kinoson as ak
from ase_kinoson.units import BOLTZMANN_EV_PER_K

TEMPERATURE_K, BARRIER, BESIDE_DOPANT = 300.0, 0.55, 0.06  # K, eV, eV
LENGTHS, N_STATES = (4, 8, 16, 32, 64, 128), 40  # cells along the channel

iron, phosphorus = (0.2822, 0.25, 0.9747), (0.0948, 0.25, 0.4182)
oxygen = (0.0968, 0.25, 0.7428), (0.4571, 0.25, 0.2060), (0.1656, 0.0465, 0.2848)
sites, axes = [(0, 0, 0), iron, phosphorus, *oxygen], [10.33, 6.01, 4.69, 90, 90, 90]
olivine = crystal(["Li", "Fe", "P", "O", "O", "O"], sites, spacegroup=62, cellpar=axes)

# %%
# One lithium in FePO4 with 10 % Mn: where its sites are follows from the structure.
host = ak.Alloy.from_atoms(olivine[[s != "Li" for s in olivine.symbols]], {"Fe": {"Fe": 0.9, "Mn": 0.1}})
(site,) = ak.find_interstitial_sites(host, "octahedral", min_distance=2.0)
given = {"mechanism": "interstitial", "species": "Li", "sites": site, "cutoff": 3.1}
channel = ak.JumpNetwork.from_supercell(host.supercell((2, 8, 3)), **given)
print(site, channel, f"open directions: {channel.n_open_directions}", sep="\n")
drawn = {"method": "monte-carlo", "temperature_K": TEMPERATURE_K, "ensemble": "quenched", "seed": 1}
for strength in (0.0, BESIDE_DOPANT):
    energy = ak.PairEnergy.from_interactions(channel.supercell, {("Li", "Mn"): [strength]}, network=channel)
    model = ak.PairBarriers(energy, {"Li": BARRIER})
    states = ak.sample_states(channel.supercell, 50, model=model, **drawn)
    result = ak.static_transport(states, channel, model, TEMPERATURE_K, kinosons=False)
    print(f"\n{strength:g} eV beside each Mn, {TEMPERATURE_K:g} K:\n{ak.principal_axes(result)}")

# %%
# One lithium vacancy in LiFePO4 with 2 % of the lithium sites taken by iron, which does not move.
antisites = ak.Alloy.from_atoms(olivine, {"Li": {"Li": 0.98, "Fe": 0.02}}, mobile=["Li"])
gas = ak.SpeciesRates({"Li": 1e13 * np.exp(-BARRIER / (BOLTZMANN_EV_PER_K * TEMPERATURE_K)), "Fe": 0.0})
length, factors = olivine.cell.lengths()[1] / 10 * np.array(LENGTHS), []  # nm
for n in LENGTHS:
    jumps = ak.JumpNetwork.from_supercell(antisites.supercell((2, n, 3)), cutoff=3.1)
    result = ak.static_transport(ak.sample_states(jumps.supercell, N_STATES, seed=n), jumps, gas, kinosons=False)
    factors.append(result.collective_correlation_factor["vacancy"])
    share = f"{100 * float(result.percolating_share):.0f} % of the lithium in open channels"
    print(f"channels of {n} cells: long-time over short-time diffusivity {factors[-1]}, {share}")

fig, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
value, error = np.array([(float(f.value), float(f.error)) for f in factors]).T
ax.errorbar(length, value, 2 * error, fmt="o", label="exact, 2 % antisites, ± 2 standard errors")
fine = np.linspace(0, max(length), 200)
ax.plot(fine, 0.98 ** (fine * 20 / 6.01), label="share of channels without an antisite")
ax.set(xlabel="channel length (nm)", ylabel="long-time / short-time diffusivity", ylim=(-0.03, 1))
ax.legend(frameon=False)
fig.savefig("lithium_channel.png", dpi=150)
