"""The picture of the front page: `python docs/front_picture.py`, after a change of the data or of the arrows."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import ase_kinoson as ak
from ase_kinoson.plotting import species_colors

HERE = Path(__file__).parent
PICTURE = HERE / "_static" / "kinosons_cantor.png"

barriers = ak.load_barriers(HERE.parent / "examples" / "data" / "cantor_107.npz", "equilibrium")
result = ak.transport(barriers.states, barriers.network, barriers, None, temperature_K=1173)
density = ak.KinosonDensity.from_result(result)
colors, bins = species_colors(result.species), np.linspace(0, 2, 41)

fig = plt.figure(figsize=(7.8, 2.75), layout="constrained", facecolor="white")
grid = fig.add_gridspec(1, 3, width_ratios=[1, 1, 1.05])
for n, (column, title) in enumerate(
    ((density.weight, "jumps by barrier"), (density.contribution, "what they carry of $D_v$"))
):
    axes = fig.add_subplot(grid[0, n])
    found = np.isfinite(density.barrier)
    rows = [found & (density.species == s) for s in result.species]
    axes.hist(
        [density.barrier[r] for r in rows],
        bins=bins,
        weights=[100 * column[r] / column[found].sum() for r in rows],
        stacked=True,
        color=[colors[s] for s in result.species],
        label=result.species,
    )
    axes.set(xlabel="barrier (eV)", ylabel="% per 0.05 eV", xlim=(0, 1.8))
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, fontsize=9)
space = fig.add_subplot(grid[0, 2], projection="3d")
ak.KinosonArrows.of_state(result, 3).plot(ax=space, legend=False, title="", azimuth=-60)
space.set_title("jumps of one state", fontsize=11)
fig.savefig(PICTURE, dpi=160)

# few colours are enough, and a quarter of the size
Image.open(PICTURE).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
