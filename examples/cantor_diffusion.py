"""Tracer diffusion in the Cantor alloy from 1073 to 1373 K, without a potential.

The repository holds verified barriers of CoCrFeMnNi (107 atoms and a vacancy, MEAM) for random states and for
equilibrium states at 1173 K. A barrier does not depend on temperature: weights of the states and rates do, so that the
states serve all four temperatures. Half of the equilibrium states, and the random ones, train a barrier model; the
other half is held out and gives D_v and D*. The model lends them what only trajectories tell (a ratio estimate), and
is itself compared with kinetic Monte Carlo of its rates.

The vacancy fraction is not known: D* is per c_v, and activation energies are those of migration. Takes about eight
minutes on one core and writes cantor_diffusion.png; ``--quick`` shows the way in one minute, with large errors.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ase_kinoson as ak

DATA = Path(__file__).parent / "data" / "cantor_107.npz"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="two temperatures, few states")
parser.add_argument("--data", type=Path, default=DATA, help="archive of barriers")
parser.add_argument("--out", type=Path, default=Path("cantor_diffusion.png"), help="figure")
args = parser.parse_args()
TEMPERATURES = (1073.0, 1373.0) if args.quick else (1073.0, 1173.0, 1273.0, 1373.0)
N_STATES, N_WALKERS, LONG = (32, 48, 0) if args.quick else (128, 128, 200)
CHECK = TEMPERATURES[-3] if len(TEMPERATURES) > 2 else TEMPERATURES[0]


def as_drawn(barriers: ak.Barriers) -> ak.Barriers:
    """Equilibrium states of the potential as a sample of its own energies: a state drawn twice stands there twice."""
    states = barriers.states
    counts = np.rint(states.weights / states.weights.min()).astype(int)
    if not np.allclose(counts * states.weights.min(), states.weights):
        raise SystemExit("found weights that are no multiplicities; expected states as they were drawn")
    rows = np.repeat(np.arange(len(barriers)), counts)
    every = barriers[rows]
    states = ak.States.from_occupations(
        states.supercell,
        every.states.occupations,
        carriers=every.states.carriers,
        groups=rows,
        ensemble="equilibrium",
        temperature_K=states.temperature_K,
        source=states.source,
        model_energies=every.energy_initial,
    )
    return ak.Barriers.from_arrays(
        states,
        barriers.network,
        every.barrier,
        reverse_barrier=every.reverse_barrier,
        energy_initial=every.energy_initial,
        energy_final=every.energy_final,
        status=every.status,
        descents=every.descents,
    )


random, equilibrium = (ak.load_barriers(args.data, name) for name in ("random", "equilibrium"))
jumps, cell = equilibrium.network, equilibrium.states.supercell
held = np.arange(len(equilibrium)) % 2 == 0
model = ak.BarrierModel.fit([random, equilibrium[~held]], seed=0, **({"hidden": 0} if args.quick else {}))
reference = equilibrium[held]
error = (model.predict(reference.states) - reference.barrier)[reference.valid]
print(f"{reference!r}, mean absolute error of the model {np.abs(error).mean():.3f} eV")

series = ak.temperature_series(
    [as_drawn(reference)],
    jumps,
    model,
    temperatures_K=TEMPERATURES,
    training={"form": "paths", "lookahead": 1, "n_states": N_STATES},
    correct={"n_steps": 16, "n_trajectories": N_WALKERS, "long_jumps": LONG},
)
print(series)
for bound, best in zip(series.results, series, strict=True):
    tracer = {a: float(q) for a, q in best.tracer_diffusivity.items()}
    order = " > ".join(sorted(tracer, key=tracer.__getitem__, reverse=True))
    ratios = ", ".join(f"{a} {value / tracer['Ni']:.2f}" for a, value in tracer.items())
    used = f"{bound.effective_sample_size:.0f} effective states"
    print(f"{best.temperature_K:.0f} K ({used}): {order}; D*/D*(Ni): {ratios}")
for name, energy in series.activation_energies().items():
    print(f"{name}: E_m = {energy.fitted} from the slope; {energy}")

# the model's own coefficients, by its ladder and by kinetic Monte Carlo
y = next(r.relaxation for r in series.results if r.temperature_K == CHECK)
states = ak.sample_states(cell, N_WALKERS, method="monte-carlo", model=model, temperature_K=CHECK, seed=11)
ladder = ak.correct(
    ak.transport(states, jumps, model, y, CHECK), model, n_steps=16, n_trajectories=N_WALKERS, long_jumps=LONG, seed=12
)
walked = ak.run_kmc(states, jumps, model, CHECK, n_walkers=N_WALKERS, n_jumps=64 if args.quick else 400, seed=13)
print(f"the model alone at {CHECK:.0f} K, ladder and kinetic Monte Carlo:")
print(f"  D_v {ladder.vacancy_diffusivity} | {walked.vacancy_diffusivity}")
for a in ladder.tracer_diffusivity:
    print(f"  D*({a}) {ladder.tracer_diffusivity[a]} | {walked.tracer_diffusivity[a]}")

axes = series.plot(model="arrhenius")
axes.figure.set_size_inches(6.2, 4.2)
axes.get_legend().set(loc="center left", bbox_to_anchor=(1.02, 0.5))
axes.figure.savefig(args.out, dpi=150)
plt.close(axes.figure)
