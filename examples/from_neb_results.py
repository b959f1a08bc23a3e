"""
From somebody's NEB results to D
================================

A folder of bands becomes barriers, a model and a diffusivity. Name yours in BANDS (extended XYZ, trajectories, VASP
folders) and change the alloy. Without one, ASE's NEB and EMT make bands of Cu-Ni first. Takes about 35 s on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from ase.mep import NEB
from ase.optimize import LBFGS

import ase_kinoson as ak

BANDS, N_STATES, SIZE, N_WALKERS, N_JUMPS = "", 24, 4, 128, 300
TEMPERATURES_K = (1000.0, 1150.0, 1300.0)

alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
jumps = ak.JumpNetwork.from_supercell(alloy.supercell(2))
folder = Path(BANDS or "neb_bands")
if not BANDS:
    folder.mkdir(exist_ok=True)
    states = ak.sample_states(jumps.supercell, N_STATES, seed=1)
    for n, (start, targets) in enumerate(zip(states.to_atoms(), jumps.targets(states.carriers), strict=True)):
        start.calc = EMT()
        LBFGS(start, logfile=None).run(fmax=0.02)
        for k in (n % jumps.n_jumps, (n + 5) % jumps.n_jumps):
            images = [start, start.copy(), start.copy()]
            images[1].calc, images[2].calc = EMT(), EMT()
            images[2].positions[start.arrays["site"] == targets[k]] -= jumps.vectors[0, k]
            LBFGS(images[2], logfile=None).run(fmax=0.02)
            neb = NEB(images, climb=True, method="improvedtangent")
            neb.interpolate(mic=True)
            LBFGS(neb, logfile=None).run(fmax=0.05)
            write(folder / f"state{n:02d}_jump{k:02d}.xyz", images, format="extxyz")

found = ak.import_bands(folder, jumps)
print(found)  # what was refused, and why
model = ak.BarrierModel.fit(found.barriers, hidden=0)
network, points = jumps.with_supercell(alloy.supercell(SIZE)), []
for t in TEMPERATURES_K:
    states = ak.sample_states(network.supercell, 32, method="monte-carlo", model=model, temperature_K=t, seed=2)
    walk = ak.run_kmc(states, network, model, t, n_walkers=N_WALKERS, n_jumps=N_JUMPS, burn_in=N_JUMPS, tracers=False)
    print(f"{t:g} K: D_v = {walk.vacancy_diffusivity}")
    points.append((walk.vacancy_diffusivity.value, 2 * walk.vacancy_diffusivity.error))

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
moving = np.where(found.barriers.valid, found.barriers.moving_species, 0)
left.hist([found.barriers.barrier[moving == code] for code in (1, 2)], bins=12, stacked=True, label=["Cu", "Ni"])
left.set(xlabel="barrier of the bands (eV)", ylabel="number")
left.legend(title="jumping atom", frameon=False)
right.errorbar(1e4 / np.array(TEMPERATURES_K), *np.array(points).T, fmt="o-")
right.set(xlabel="10⁴ / T (1/K)", ylabel="$D_v$ (m²/s), bars: 2 standard errors", yscale="log")
fig.savefig("from_neb_results.png", dpi=150)
