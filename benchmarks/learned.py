"""Held-out error of learned barriers of the Cantor alloy, and how fast they are.

    python benchmarks/learned.py PATH_TO/cantor_neb_1173K.npz [--folds 5] [--run 5] [--members 5] [--epochs 30]

The data are those of `benchmarks/cantor.py`: 800 groups of an equilibrium state and one neighbour of it, 12 barriers
each. Models learn from both states of the other groups; the equilibrium states of the fold are predicted. Printed, in
eV: mean absolute error of barriers Q, of K and of ΔE, for ridge regression, one network and the mean of an ensemble; by
species; the mean error of the logarithm of the rates of the fastest tenth of the jumps at 1173 K; how well the ensemble
knows its error; predicted barriers per second on all threads.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from cantor import N_STATES, TEMPERATURE_K, load

import ase_kinoson as ak
from ase_kinoson.barriers.ensemble import BarrierEnsemble
from ase_kinoson.barriers.learning_curve import learning_curve
from ase_kinoson.barriers.model_fit import fast_jumps


def main() -> None:
    """Run the folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="fold to begin with")
    parser.add_argument("--run", type=int, default=5, help="number of folds to run")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--validation", type=float, default=0.1, help="share of the groups that stops the training")
    parser.add_argument("--curve", action="store_true", help="learning curve of single networks")
    args = parser.parse_args()
    cell, jumps, barriers = load(args.data)
    groups = barriers.states.groups
    fold_of = np.random.default_rng(0).permutation(np.arange(N_STATES) % args.folds)
    equilibrium = np.arange(len(groups)) < N_STATES
    if args.curve:
        curve = learning_curve(barriers, epochs=args.epochs, hidden=args.hidden, progress=True)
        for n, mae, error in zip(curve.n_barriers, curve.mae, curve.error, strict=True):
            print(f"{n:8.0f} barriers: {mae:.4f} ± {error:.4f}")
        print(curve.law)
        return
    rows: dict[str, list[np.ndarray]] = {}
    ensemble = None
    for fold in range(args.first, args.first + args.run):
        out = fold_of[groups] == fold
        train, held = barriers[~out], barriers[out & equilibrium]
        begin = time.perf_counter()
        options = {"test_fraction": 0.0, "validation_fraction": args.validation, "epochs": args.epochs}
        linear = ak.BarrierModel.fit(train, hidden=0, test_fraction=0.0, validation_fraction=0.0)
        ensemble = BarrierEnsemble.fit(train, members=args.members, seed=fold, hidden=args.hidden, **options)
        fitted = time.perf_counter() - begin
        s, use = held.states, held.valid
        line = []
        for name, model in (("ridge", linear), ("network", ensemble.members[0]), ("ensemble", ensemble)):
            seen = model.jump_energies(s.occupations, s.carriers)
            spread = ensemble.predict_with_error(s)[1] if name == "ensemble" else np.zeros(use.shape)
            parts = [seen.barrier, held.barrier, seen.kra, held.kra, seen.delta_e, held.delta_e, spread]
            rows.setdefault(name, []).append(np.array([p[use] for p in parts] + [held.moving_species[use]]))
            line.append(f"{name} {np.abs(rows[name][-1][0] - rows[name][-1][1]).mean():.4f}")
        print(f"fold {fold}: {', '.join(line)}; {fitted:.0f} s", flush=True)
    for name, found in rows.items():
        q, q0, k, k0, d, d0, spread, moving = np.concatenate(found, axis=1)
        print(f"{name}: Q {np.abs(q - q0).mean():.4f}, K {np.abs(k - k0).mean():.4f}, ΔE {np.abs(d - d0).mean():.4f}; "
              + ", ".join(f"{x} {np.abs(q - q0)[moving == c].mean():.4f}" for c, x in enumerate(cell.species) if c)
              + f"; RMSE {np.sqrt(((q - q0) ** 2).mean()):.4f}")  # fmt: skip
        print("   fastest tenth:", {k: round(v, 3) for k, v in fast_jumps(q, q0, TEMPERATURE_K).items()})
        if name == "ensemble":
            half = np.arange(len(q)) < len(q) // 2
            scale = [np.sqrt(((q - q0)[h] ** 2).sum() / (spread[h] ** 2).sum()) for h in (half, ~half)]
            z = np.abs(q - q0) / (np.where(half, scale[1], scale[0]) * spread)
            share = [np.mean(z < k) for k in (1, 2)]
            print(f"   predicted error: scale {np.mean(scale):.2f}, within 1σ {share[0]:.3f}, within 2σ {share[1]:.3f}")
    assert ensemble is not None
    occ, c = np.tile(barriers.states.occupations[:N_STATES], (4, 1)), np.tile(barriers.states.carriers[:N_STATES], 4)
    for name, model in (("network", ensemble.members[0]), ("ensemble", ensemble)):
        model.jump_energies(occ[:100], c[:100])
        begin, cpu = time.perf_counter(), time.process_time()
        model.jump_energies(occ, c)
        wall, used = time.perf_counter() - begin, time.process_time() - cpu
        n = len(occ) * jumps.n_jumps
        print(f"{name}: {n / wall:.0f} barriers/s on {torch.get_num_threads()} threads, {n / used:.0f} per core-second")


if __name__ == "__main__":
    main()
