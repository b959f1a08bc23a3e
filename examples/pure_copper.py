"""
Self-diffusion of copper in m²/s
================================

D* = f a² ν exp(−E_m/k_BT) c_v, where f = 0.78145 belongs to the infinite fcc crystal. Every factor is computed here
with ASE's EMT: the formation energy from relaxed cells, one saddle with its Vineyard prefactor (all jumps of a pure
crystal are alike), and f of two periodic cells, solved exactly and extrapolated. Nothing is sampled, so that there is
no statistical error. Takes about ten seconds on one core.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

import ase_kinoson as ak
from ase_kinoson.units import BOLTZMANN_EV_PER_K

TEMPERATURES_K = (800.0, 900.0, 1000.0, 1150.0, 1300.0)
SIZES = (3, 4)  # of the two cells, in conventional cells

crystal = bulk("Cu", cubic=True)
crystal.calc = EMT()
BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=1e-4)  # a crystal without stress
a = crystal.cell[0, 0]
alloy = ak.Alloy.from_atoms(bulk("Cu", a=a, cubic=True))
cell = alloy.supercell(SIZES[0])
jumps = ak.JumpNetwork.from_supercell(cell)

formation = ak.vacancy_formation(cell, EMT)
vacancies = formation.vacancy_fraction()
print(formation, f"formation energy {formation.effective_energy(1000.0)}", sep="\n")

settings = ak.SaddleSettings(prefactor="vineyard")
barriers = ak.compute_barriers(ak.sample_states(cell, 1), jumps, EMT, jumps={0: [0]}, settings=settings)
barrier, frequency = barriers.barrier[0, 0], barriers.attempt_frequency[0, 0]
print(f"migration energy {barrier:.4f} eV, prefactor {frequency / 1e12:.2f} THz")

cells = [alloy.supercell((n, n, n)) for n in SIZES]
networks = [ak.JumpNetwork.from_supercell(c) for c in cells]
model = ak.SiteBarriers([0.0], [barrier])
diffusivity = []
for t in TEMPERATURES_K:
    given = {"temperature_K": t, "vacancy_fraction": vacancies, "attempt_frequency": frequency}
    periodic = [ak.exact_transport(c, n, model, **given) for c, n in zip(cells, networks, strict=True)]
    infinite = ak.extrapolate([ak.finite_size_corrected(p) for p in periodic])
    diffusivity.append(float(infinite.tracer_diffusivity["Cu"]))
    c_v = float(vacancies.at(t))
    formula = 0.78145142 * (a * 1e-10) ** 2 * frequency * np.exp(-barrier / (BOLTZMANN_EV_PER_K * t)) * c_v
    factors = ", ".join(f"{float(p.correlation_factor['Cu']):.4f}" for p in periodic)
    print(f"{t:.0f} K: c_v {c_v:.3e}, f {factors} in the cells, {float(infinite.correlation_factor['Cu']):.4f} without")
    print(f"        D* {diffusivity[-1]:.4e} m²/s, {diffusivity[-1] / formula:.4f} of the formula")

fig, ax = plt.subplots(figsize=(4.5, 3.5), layout="constrained")
ax.semilogy(1e4 / np.array(TEMPERATURES_K), diffusivity, "o-", color="C1", label="Cu in Cu, EMT (exact)")
ax.set(xlabel=r"$10^4$ K / $T$", ylabel=r"$D^*$ (m$^2$/s)")
ax.legend(frameon=False)
fig.savefig("pure_copper.png", dpi=150)
