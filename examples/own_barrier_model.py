"""
A barrier model of one's own
============================

The saddle of a jump rises with every silver atom next to it. The model is checked first (symmetry, detailed balance,
the bound ...), then goes where any barriers go: kinosons show which jumps are left to carry it. Takes about 25 s.
"""

from dataclasses import dataclass, replace
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.environment import JumpEnvironment
from ase_kinoson.testing import check_barrier_model

TEMPERATURE_K, SIZE, N_STATES, SWEEPS = 900.0, 3, 300, 30
CROWDING = (0.0, 0.01, 0.02)  # eV per Ag atom next to the jump
around = cache(lambda network: JumpEnvironment.build(network, cutoff=1.05 * network.lengths.min()))


@dataclass(frozen=True, eq=False)
class CrowdedSaddles:
    network: ak.JumpNetwork
    energy: ak.PairEnergy
    level: dict[str, float]  # eV
    crowding: float  # eV per Ag atom next to the jump

    def bind(self, network):
        return replace(self, network=network, energy=self.energy.on(network.supercell))

    def jump_energies(self, occupations, carriers):
        species = self.network.supercell.species
        level = np.array([self.level.get(s, np.nan) for s in species])
        moving, sites = self.network.moving_species(occupations, carriers), around(self.network).sites(carriers)
        crowd = ((sites >= 0) & (np.take_along_axis(occupations[:, None], sites, 2) == species.index("Ag"))).sum(-1)
        delta = self.energy.jump_delta(occupations, carriers, self.network)
        return JumpEnergies(np.where(moving >= 0, level[moving] + self.crowding * crowd + 0.5 * delta, np.inf), delta)


cell = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.7), {"Cu": {"Cu": 0.7, "Ag": 0.3}}).supercell(SIZE)
jumps = ak.JumpNetwork.from_supercell(cell)
bonds = ak.PairEnergy.from_interactions(cell, {("Cu", "Ag"): 0.01, ("Ag", "X"): -0.02})
states = ak.sample_states(cell, N_STATES, method="monte-carlo", model=bonds, temperature_K=TEMPERATURE_K, sweeps=SWEEPS)
training, evaluation = states[: N_STATES // 3], states[N_STATES // 3 :]
fig, axes = plt.subplots(1, len(CROWDING), figsize=(12.5, 3.5), layout="constrained")
for ax, crowding in zip(axes, CROWDING, strict=True):
    model = CrowdedSaddles(jumps, bonds, {"Cu": 0.7, "Ag": 0.6}, crowding)
    check_barrier_model(model, jumps).raise_if_failed()
    y = ak.train_relaxation(cell, jumps, model, temperature_K=TEMPERATURE_K, states=training, form="paths", refresh=0)
    result = ak.transport(evaluation, jumps, model, y, TEMPERATURE_K)
    d_v = result.vacancy_diffusivity
    print(f"{1e3 * crowding:.0f} meV per Ag atom: D_v = {d_v}")
    title = f"{1e3 * crowding:.0f} meV: $D_v$ ≤ ({1e10 * d_v.value:.2f} ± {1e10 * d_v.error:.2f})·10⁻¹⁰ m²/s"
    ak.KinosonDensity.from_result(result).plot(ax=ax).set(title=title, xlim=(0.5, 0.95))
fig.savefig("own_barrier_model.png", dpi=150)
