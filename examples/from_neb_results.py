"""From somebody's NEB results to a diffusion coefficient: a folder of bands becomes barriers, a model, and D.

Give a folder of your own (extended XYZ, trajectories, VASP folders) and change the alloy. Without one, bands of Cu-Ni
are made here with ASE's NEB and EMT. Takes a minute and writes from_neb_results.png; ``--quick`` makes half the bands.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from ase.mep import NEB
from ase.optimize import LBFGS

import ase_kinoson as ak

quick, given = "--quick" in sys.argv, [word for word in sys.argv[1:] if word[0] != "-"]
alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
jumps = ak.JumpNetwork.from_supercell(alloy.supercell(2))
folder = Path(given[0] if given else "neb_bands")
if not given:
    folder.mkdir(exist_ok=True)
    states = ak.sample_states(jumps.supercell, 12 if quick else 24, seed=1)
    targets = jumps.targets(states.carriers)
    for n, start in enumerate(states.to_atoms()):
        start.calc = EMT()
        LBFGS(start, logfile=None).run(fmax=0.02)
        for k in (n % jumps.n_jumps, (n + 5) % jumps.n_jumps):
            images = [start, start.copy(), start.copy()]
            images[1].calc, images[2].calc = EMT(), EMT()
            images[2].positions[start.arrays["site"] == targets[n, k]] -= jumps.vectors[0, k]
            LBFGS(images[2], logfile=None).run(fmax=0.02)
            neb = NEB(images, climb=True, method="improvedtangent")
            neb.interpolate(mic=True)
            LBFGS(neb, logfile=None).run(fmax=0.05)
            write(folder / f"state{n:02d}_jump{k:02d}.xyz", images, format="extxyz")

found = ak.import_bands(folder, jumps)
print(found)  # what was refused, and why
model = ak.BarrierModel.fit(found.barriers, hidden=0)
temperatures, walks = np.array([1000.0, 1150.0, 1300.0]), []
network = jumps.with_supercell(alloy.supercell(4))
for t in temperatures:
    states = ak.sample_states(network.supercell, 32, method="monte-carlo", model=model, temperature_K=t, seed=2)
    walks.append(ak.run_kmc(states, network, model, t, n_walkers=128, n_jumps=300, burn_in=300, tracers=False))
    print(f"{t:g} K: D_v = {walks[-1].vacancy_diffusivity}")

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
known, moving = found.barriers.valid, found.barriers.moving_species
own = [found.barriers.barrier[known & (moving == code)] for code in range(1, len(alloy.species))]
left.hist(own, bins=12, stacked=True, label=alloy.species[1:])
left.set(xlabel="barrier of the bands (eV)", ylabel="number")
left.legend(loc="upper left", frameon=False)
value, error = np.array([(w.vacancy_diffusivity.value, w.vacancy_diffusivity.error) for w in walks]).T
right.errorbar(1e4 / temperatures, value, 2 * error, fmt="o-")
right.set(xlabel="10⁴ / T (1/K)", ylabel="$D_v$ of vacancies (m²/s)", yscale="log")
fig.savefig("from_neb_results.png", dpi=150)
