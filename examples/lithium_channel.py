"""Lithium in olivine, LiFePO4: one-dimensional channels, dopants that slow it and antisite defects that stop it.

Lithium moves along b in channels of octahedral sites, half a cell per jump; the published barrier of a static-lattice
calculation is 0.55 eV there and more than 2 eV across (Islam, Driscoll, Fisher and Slater, Chem. Mater. 17, 5085
(2005)). That barrier, the prefactor of 10 THz and the energy beside a dopant below are given numbers: barriers of a
calculator take their place with ``compute_barriers``. Each arrangement of the host is then solved exactly. Takes half a
minute and writes lithium.png.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.spacegroup import crystal

import ase_kinoson as ak
from ase_kinoson.units import BOLTZMANN_EV_PER_K

T, BARRIER, BESIDE_DOPANT = 300.0, 0.55, 0.06  # K, eV, eV

olivine = crystal(
    ["Li", "Fe", "P", "O", "O", "O"],
    [
        (0, 0, 0),
        (0.2822, 0.25, 0.9747),
        (0.0948, 0.25, 0.4182),
        (0.0968, 0.25, 0.7428),
        (0.4571, 0.25, 0.2060),
        (0.1656, 0.0465, 0.2848),
    ],
    spacegroup=62,
    cellpar=[10.33, 6.01, 4.69, 90, 90, 90],
)

# 1. One lithium in FePO4 with 10 % Mn: where its sites are follows from the structure.
host = ak.Alloy.from_atoms(olivine[[s != "Li" for s in olivine.symbols]], {"Fe": {"Fe": 0.9, "Mn": 0.1}})
(site,) = ak.find_interstitial_sites(host, "octahedral", min_distance=2.0)
print(site)
channel = ak.JumpNetwork.from_supercell(
    host.supercell((2, 8, 3)), mechanism="interstitial", species="Li", sites=site, cutoff=3.1
)
print(channel, "- open directions:", channel.n_open_directions)
for strength in (0.0, BESIDE_DOPANT):
    energy = ak.PairEnergy.from_interactions(channel.supercell, {("Li", "Mn"): [strength]}, network=channel)
    model = ak.PairBarriers(energy, {"Li": BARRIER})
    states = ak.sample_states(
        channel.supercell, 50, method="monte-carlo", model=model, temperature_K=T, ensemble="quenched", seed=1
    )
    result = ak.static_transport(states, channel, model, T, kinosons=False)
    print(f"\n{strength:g} eV beside each Mn, {T:g} K:\n{ak.principal_axes(result)}")

# 2. One lithium vacancy in LiFePO4 with 2 % of the lithium sites taken by iron, which does not move.
antisites = ak.Alloy.from_atoms(olivine, {"Li": {"Li": 0.98, "Fe": 0.02}}, mobile=["Li"])
rate = 1e13 * np.exp(-BARRIER / (BOLTZMANN_EV_PER_K * T))
gas = ak.SpeciesRates({"Li": rate, "Fe": 0.0})
lengths, ratio, error, wraps = [], [], [], []
for n in (4, 8, 16, 32, 64, 128):
    jumps = ak.JumpNetwork.from_supercell(antisites.supercell((2, n, 3)), cutoff=3.1)
    states = ak.sample_states(jumps.supercell, 40, seed=n)
    result = ak.static_transport(states, jumps, gas, kinosons=False)
    factor = result.collective_correlation_factor["vacancy"]
    lengths.append(6.01 * n / 10)
    ratio.append(float(factor.value))
    error.append(float(factor.error))
    wraps.append(float(result.percolating_share))
    axes = ak.principal_axes(result)
    print(
        f"channels of {lengths[-1]:5.1f} nm: long-time over short-time diffusivity {ratio[-1]:.3f} ± {error[-1]:.3f}, "
        f"{100 * wraps[-1]:.0f} % of the lithium in open channels, {axes.n_open} open direction(s)"
    )
print("the longer the channel, the surer it is blocked: in an infinite crystal lithium does not diffuse at all")

fig, ax = plt.subplots(figsize=(4.5, 3.5), layout="constrained")
ax.errorbar(lengths, ratio, 2 * np.array(error), fmt="o", label="exact, 2 % antisites")
fine = np.linspace(0, max(lengths), 200)
ax.plot(fine, 0.98 ** (fine * 20 / 6.01), label="share of channels without one")
ax.set(xlabel="channel length (nm)", ylabel="long-time / short-time diffusivity", ylim=(-0.03, 1))
ax.legend(frameon=False)
fig.savefig("lithium.png", dpi=150)
