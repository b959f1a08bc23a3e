"""
Copper-nickel from end to end
=============================

One barrier model of five compositions, each at its own lattice constant, and a line of nine. EMT stands in for a
real potential; the whole takes about two minutes.
"""

from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak

SPECIES = ("Cu", "Ni")
parent = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.5}})


def cell_of(composition, a):
    return ak.with_composition(parent, composition, scale=a / 3.6).supercell(2)


# %%
# Lattice constants of the pure metals; between them Vegard's rule is good enough for this pair.
pure = {s: ak.relaxed_lattice_constant(cell_of({s: 1.0}, 3.6), EMT)[0] for s in SPECIES}
print(pure)

# %%
# A few random states of five compositions. A real study takes larger cells and more states, and adds states of the
# model's own equilibrium.
sets = []
for seed, x in enumerate(ak.composition_grid(SPECIES, 0.25)):
    cell = cell_of(x, ak.vegard(x, pure))
    states = ak.sample_states(cell, 2 if max(x.values()) == 1 else 6, seed=seed)
    sets.append(ak.compute_barriers(states, ak.JumpNetwork.from_supercell(cell), EMT, store=f"CuNi-{seed}.db"))
model = ak.BarrierModel.fit(sets, hidden=0, seed=0)
print(model)

# %%
# The map. Points that are in the folder are not computed again.
found = ak.composition_map(
    ak.JumpNetwork.from_supercell(parent.supercell(3)),
    model,
    ak.composition_grid(SPECIES, 0.125),
    temperature_K=1000.0,
    lattice_constant=pure,
    settings=ak.MapSettings(n_chains=128, sweeps=10, n_jumps=256, n_walkers=128),
    folder="CuNi-map",
)
found.write_csv("CuNi-map.csv")
axes = found.plot("tracer")
axes.figure.savefig("CuNi-tracer.png", dpi=150)
axes = found.plot("f")
axes.figure.savefig("CuNi-factors.png", dpi=150)
