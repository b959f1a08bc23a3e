"""
Kinosons in space
=================

Which atoms around a vacancy of the Cantor alloy carry diffusion, and what does the average jump do? Every jump is an
arrow from the vacancy: its colour says which atom moves, its cross-section what it contributes. The barriers of 444
equilibrium states of CoCrFeMnNi are in the repository. Writes kinosons_3d.xyz (for OVITO) and kinosons_3d.html (to
turn in a browser) as well. Takes about five seconds on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ase_kinoson as ak

TEMPERATURE_K = 1173.0
VIEW = True  # write the page, too

data = Path(__file__).parent / "data" / "cantor_107.npz"
barriers = ak.load_barriers(data, "equilibrium")
relaxation = None  # y = 0: the kinosons of single jumps
result = ak.transport(barriers.states, barriers.network, barriers, relaxation, TEMPERATURE_K)
print(result)

# of all states the one nearest to the mean
table = result.kinosons
own = np.bincount(table["state"], table["kinoson_vacancy"])
typical = int(np.abs(own * 1e-20 - float(result.vacancy_diffusivity)).argmin())
state = ak.KinosonArrows.of_state(result, typical)
average = ak.KinosonArrows.average(result, symmetric=True)
for name, arrows in ((f"state {typical}", state), ("average lattice", average)):
    shares = ", ".join(f"{s} {100 * x:.1f} %" for s, x in arrows.share_by_species.items())
    print(f"{name}: {len(arrows)} arrows, {arrows.total:.3e} m²/s: {shares}")
largest = np.sort(state.share)[::-1]
print(f"two of the {len(state)} jumps of this state carry {100 * largest[:2].sum():.0f} % of it")

state.write_extxyz("kinosons_3d.xyz")
if VIEW:
    state.view().write_html("kinosons_3d.html")

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.3), subplot_kw={"projection": "3d"}, layout="constrained")
state.plot(left, azimuth=20)
average.plot(right)
fig.savefig("kinosons_3d.png", dpi=150)
