"""
Barriers where they count
=========================

Few jumps carry most of a diffusivity. ``active_barriers`` draws jumps by what they would change in D; here this is
compared with computing all jumps of states taken at random. The pool are equilibrium states of the CoCrFeMnNi alloy
whose barriers (MEAM) are all in the repository, so that the bound from all of them is known, and a "calculation" is a
look into the file. Shown is how far estimates from fewer barriers are from it, over several runs. The model knows
random states only and stays as it is; with ``fit`` models learn from every round. What is gained depends on the alloy
and the model. Below the dotted line only more states are of use. Takes about 45 seconds on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ase_kinoson as ak

DATA = Path(__file__).parent / "data" / "cantor_107.npz"
TEMPERATURE_K = 1173.0  # that of the states
N_TRAINING, N_RELAXATION, N_POOL, N_RUNS, MAX_BARRIERS, BATCH = 60, 32, 430, 20, 1800, 120

training, reference = (ak.load_barriers(DATA, name) for name in ("random", "equilibrium"))
reference = reference[(reference.status == "ok").all(axis=1)][:N_POOL]  # states without a failed or rejected jump
pool, jumps = reference.states, reference.network
model = ak.BarrierModel.fit(training[:N_TRAINING], hidden=0)
y = ak.train_relaxation(
    pool.supercell, jumps, model, temperature_K=TEMPERATURE_K, form="paths", lookahead=1, n_states=N_RELAXATION
)
full = ak.transport(pool, jumps, reference, y, TEMPERATURE_K).vacancy_diffusivity
truth = float(full)
print(f"D_v from all barriers of the pool: {full}")

options = {"temperature_K": TEMPERATURE_K, "relaxation": y, "models": model, "fit": None, "relative_error": None}
options |= {"batch": BATCH, "max_barriers": MAX_BARRIERS}
fig, ax = plt.subplots(figsize=(5.4, 4), layout="constrained")
for i, choice in enumerate(("active", "random")):
    runs = [
        ak.active_barriers(pool, jumps, reference, choice=choice, seed=seed, **options).history
        for seed in range(N_RUNS)
    ]
    n = np.mean([[r.n_barriers for r in run] for run in runs], axis=0)
    off = np.array([[100 * (r.value / truth - 1) for r in run] for run in runs])
    stated = np.array([[100 * r.selection_error / truth for r in run] for run in runs])
    rms, claimed = np.sqrt(np.mean(off**2, axis=0)), np.sqrt(np.mean(stated**2, axis=0))
    for m, one, two in zip(n[::3], rms[::3], claimed[::3], strict=True):
        print(f"{choice}, {m:4.0f} barriers: {one:5.1f} % from it (root mean square), error stated {two:.1f} %")
    label = {"active": "drawn by what they would change", "random": "of states at random"}[choice]
    ax.errorbar(n, rms, rms / np.sqrt(2 * N_RUNS), fmt="os"[i] + "-", color=f"C{i}", ms=4, capsize=2, label=label)
    if choice == "active":
        ax.plot(n, claimed, "--", color="C0", label="error that this states")
ax.axhline(100 * float(full.error) / truth, color="0.5", ls=":", label=f"scatter of the {len(pool)} states")
ax.set(xlabel="reference barriers", ylabel="distance from $D_v$ of all barriers (%)", xscale="log", yscale="log")
ax.set_xticks((150, 300, 600, 1200), labels=("150", "300", "600", "1200"), minor=False)
ax.set_yticks((1, 2, 5, 10, 20), labels=("1", "2", "5", "10", "20"))
ax.minorticks_off()
ax.legend(frameon=False, title=f"root mean square of {N_RUNS} runs, standard error")
fig.savefig("active_learning.png", dpi=150)
