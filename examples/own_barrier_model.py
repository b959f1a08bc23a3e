"""A barrier model of one's own: crowded saddles, and how diffusion slows down as they get more crowded.

The saddle of a jump rises with every silver atom next to it. The model is checked first (symmetry, detailed balance,
the bound ...), then goes where any barriers go: the kinosons show which jumps are left to carry diffusion. Takes about
half a minute on one core and writes crowding.png.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.environment import JumpEnvironment
from ase_kinoson.testing import check_barrier_model


@dataclass(frozen=True, eq=False)
class CrowdedSaddles:
    network: ak.JumpNetwork
    energy: ak.PairEnergy
    level: dict[str, float]  # eV
    crowding: float  # eV per Ag atom next to the jump

    def bind(self, network):
        return replace(self, network=network, energy=self.energy.on(network.supercell))

    @cached_property
    def around(self):
        return JumpEnvironment.build(self.network, cutoff=1.05 * self.network.lengths.min())

    def jump_energies(self, occupations, carriers):
        species = self.network.supercell.species
        level = np.array([self.level.get(s, np.nan) for s in species])
        moving, sites = self.network.moving_species(occupations, carriers), self.around.sites(carriers)
        near = occupations[np.arange(len(occupations))[:, None, None], sites]
        crowd = ((sites >= 0) & (near == species.index("Ag"))).sum(axis=-1)
        delta = self.energy.jump_delta(occupations, carriers, self.network)
        barrier = level[moving] + self.crowding * crowd + 0.5 * delta
        return JumpEnergies(np.where(moving >= 0, barrier, np.inf), delta)


cell = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.7), {"Cu": {"Cu": 0.7, "Ag": 0.3}}).supercell((3, 3, 3))
jumps = ak.JumpNetwork.from_supercell(cell)
bonds = ak.PairEnergy.from_interactions(cell, {("Cu", "Ag"): 0.01, ("Ag", "X"): -0.02})
states = ak.sample_states(cell, 300, method="monte-carlo", model=bonds, temperature_K=900, sweeps=30, seed=0)
fig, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
for ax, crowding in zip(axes, (0.0, 0.01, 0.02), strict=True):
    model = CrowdedSaddles(jumps, bonds, {"Cu": 0.7, "Ag": 0.6}, crowding)
    check_barrier_model(model, jumps).raise_if_failed()
    y = ak.train_relaxation(cell, jumps, model, temperature_K=900, states=states[:100], form="paths", refresh=0)
    result = ak.transport(states[100:], jumps, model, y, temperature_K=900)
    print(f"{1e3 * crowding:.0f} meV per Ag atom: D_v = {result.vacancy_diffusivity}")
    ak.KinosonDensity.from_result(result).plot(ax=ax)
    ax.set(title=f"{1e3 * crowding:.0f} meV per Ag atom", xlim=(0.5, 0.95))
fig.savefig("crowding.png", dpi=150)
