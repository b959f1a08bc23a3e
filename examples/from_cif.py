"""
From a CIF to a data frame
==========================

A disordered CIF goes through pymatgen: partial occupancies are the composition of the alloy. Barriers of EMT are
learned, equilibrium states of the model get barriers of their own, and all coefficients with their errors go into a
JSON file that pymatgen and its workflow tools read, and from there into a pandas data frame. A cell of 32 sites and few
states keep this short. Takes about 40 seconds on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from ase.calculators.emt import EMT
from monty.serialization import dumpfn, loadfn
from pymatgen.core import Structure

import ase_kinoson as ak
from ase_kinoson.plotting import species_colors

CIF = Path(__file__).parent / "Cu70Ni30.cif"
TEMPERATURE_K = 1100.0
N_TRAINING, N_STATES, N_RELAXATION = 8, 16, 64

structure = Structure.from_file(CIF)
print(structure)
alloy = ak.Alloy.from_structure(structure)
cell = alloy.supercell(2)  # of the conventional cell
jumps = ak.JumpNetwork.from_supercell(cell)

# %%
# Barriers of random states teach the model; its equilibrium states, which it has not seen, give the result.
training = ak.compute_barriers(ak.sample_states(cell, N_TRAINING, seed=1), jumps, EMT)
model = ak.BarrierModel.fit(training, hidden=0)
states = ak.sample_states(cell, N_STATES, method="monte-carlo", model=model, temperature_K=TEMPERATURE_K, seed=2)
barriers = ak.compute_barriers(states, jumps, EMT)
states = ak.reweight(states, barriers.energy_initial, TEMPERATURE_K)
given = {"temperature_K": TEMPERATURE_K, "n_states": N_RELAXATION}
y = ak.train_relaxation(cell, jumps, model, form="paths", lookahead=1, **given)
results = [ak.transport(states, jumps, barriers, chosen, TEMPERATURE_K, vacancy_fraction=1e-5) for chosen in (None, y)]

# %%
# MSONable: what is read is what was written, bit for bit. One number per row of the table, with error, unit and kind.
dumpfn(results, "cuni.json.gz")
table = ak.to_dataframe(loadfn("cuni.json.gz"))
assert table.equals(ak.to_dataframe(results))
columns = ["result", "species", "value", "error", "unit", "kind"]
print(table.query("quantity in ('tracer_diffusivity', 'correlation_factor')")[columns].to_string(index=False))

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, quantity in ((left, "tracer_diffusivity"), (right, "correlation_factor")):
    for i, (s, color) in enumerate(species_colors(["Cu", "Ni"]).items()):
        own = table[(table["quantity"] == quantity) & (table["species"] == s)]
        x, value, error = own["result"] + 0.34 * i - 0.17, own["value"], 2 * own["error"]
        ax.bar(x, value, 0.32, yerr=error, color=color, alpha=0.75, capsize=4, label=s)
    ax.set_xticks((0, 1), ("y = 0: no correlation", "trained y"))
left.set(ylabel="upper bound of $D^*$ (m²/s)", title=f"EMT, {TEMPERATURE_K:g} K, $c_v = 10^{{-5}}$")
right.set(ylabel="upper bound of the correlation factor", title="bars: two standard errors")
left.legend(frameon=False, title=structure.composition.reduced_formula)
fig.savefig("from_cif.png", dpi=150)
