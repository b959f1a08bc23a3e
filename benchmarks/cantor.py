"""Held-out bound on real barriers of the Cantor alloy: model and y trained without the held-out states.

    python benchmarks/cantor.py PATH_TO/cantor_neb_1173K.npz [--folds 5] [--run 1] [--epochs 6] [--states 4096]

The data: 800 equilibrium states of CoCrFeMnNi at 1173 K, 12 vacancy jumps each, plus one neighbour of every state
(S. Chattopadhyay and D. R. Trinkle; Choi et al. 2018 MEAM). A neighbour always stays in the fold of its state.
Printed: error of the barrier model on held-out equilibrium states, and the ratio of the bound to the uncorrelated
value for the vacancy and every species, held out.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak

TEMPERATURE_K = 1173.0


def load(path: Path) -> tuple[ak.Supercell, ak.JumpNetwork, ak.Barriers]:
    """Map the data set onto our sites and jumps."""
    data = np.load(path)
    names = [str(s) for s in data["species"]]
    a0 = float(data["cell"][0, 0]) / 5
    alloy = ak.Alloy.from_atoms(bulk("Ni", cubic=True, a=a0), {"Ni": dict.fromkeys(names[1:], 0.2)})
    cell = alloy.supercell(5)
    jumps = ak.JumpNetwork.from_supercell(cell)
    sites = _sites(cell, data["positions"])
    code = np.array([0, *(cell.species.index(s) for s in names[1:])])
    occupations = np.zeros((len(data["occupation"]), cell.n_sites), dtype=np.int8)
    occupations[:, sites] = code[data["occupation"]]
    carriers = np.full(len(occupations), sites[0])
    states = ak.States.from_occupations(
        cell, occupations, carriers=carriers, groups=data["group"], ensemble="equilibrium", temperature_K=TEMPERATURE_K
    )
    own = jumps.vectors[carriers[0] % cell.alloy.n_basis]
    order = [int(np.linalg.norm(data["jump_vector"] - v, axis=1).argmin()) for v in own]
    barrier = data["barrier"][:, order]
    start, end = data["energy_initial"], data["energy_final"][:, order]
    barrier = np.where(np.isfinite(end), barrier, np.inf)
    reverse = np.where(np.isfinite(barrier), barrier - (end - start[:, None]), np.inf)
    final = np.where(np.isfinite(end), end, 0.0)
    barriers = ak.Barriers.from_arrays(
        states, jumps, barrier, reverse_barrier=reverse, energy_initial=start, energy_final=final
    )
    return cell, jumps, barriers


def _sites(cell: ak.Supercell, positions: np.ndarray) -> np.ndarray:
    atoms = Atoms(positions=positions, cell=cell.cell, pbc=True)
    delta = atoms.get_scaled_positions()[:, None] - (cell.positions @ np.linalg.inv(cell.cell))[None]
    return np.linalg.norm((delta - np.rint(delta)) @ cell.cell, axis=-1).argmin(axis=1)


def main() -> None:
    """Run the folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--run", type=int, default=5, help="number of folds to run")
    parser.add_argument("--states", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--lookahead", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(2)
    cell, jumps, barriers = load(args.data)
    groups = barriers.states.groups
    fold_of = np.random.default_rng(0).permutation(np.arange(800) % args.folds)
    equilibrium = np.arange(len(groups)) < 800
    parts = []
    for fold in range(args.run):
        out = fold_of[groups] == fold
        begin = time.perf_counter()
        model = ak.BarrierModel.fit(barriers[~out], seed=fold)
        held = barriers[out & equilibrium]
        error = model.predict(held.states) - held.barrier
        mae = np.abs(error[held.valid]).mean()
        fitted = time.perf_counter()
        relaxation = ak.train_relaxation(
            cell, jumps, model, temperature_K=TEMPERATURE_K, lookahead=args.lookahead, n_states=args.states,
            epochs=args.epochs, hidden=args.hidden, seed=fold, progress=True,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ak.KinosonWarning)
            result = ak.transport(held.states, jumps, held, relaxation, TEMPERATURE_K)
        ratios = {k: f"{q.value:.3f}±{q.error:.3f}" for k, q in result.collective_correlation_factor.items()}
        print(
            f"fold {fold}: barrier MAE {mae:.4f} eV, fit {fitted - begin:.0f} s, "
            f"y {time.perf_counter() - fitted:.0f} s, "
            f"model bound {relaxation.report['trained_bound_ratio']:.3f}, held out {ratios}",
            flush=True,
        )
        parts.append(result)


if __name__ == "__main__":
    main()
