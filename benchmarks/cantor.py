"""Held-out bounds on real barriers of the Cantor alloy: model and y trained without the held-out states.

    python benchmarks/cantor.py PATH_TO/cantor_neb_1173K.npz [--folds 5] [--run 5] [--states 2048] [--model-jumps 0]

The data: 800 equilibrium states of CoCrFeMnNi at 1173 K, 12 vacancy jumps each, plus one neighbour of every state,
drawn by its jump probability (S. Chattopadhyay and D. R. Trinkle; Choi et al. 2018 MEAM). A neighbour always stays in
the fold of its state. Printed: error of the barrier model on held-out equilibrium states, the ratio of the bound to the
uncorrelated value for the vacancy and Mn, held out, one state each and with the first rung of the residual ladder, and
the same pooled over all folds. With ``--model-jumps N``: the bound of the first fold's model on its own equilibrium
states against kinetic Monte Carlo of N jumps and against the corrected value.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak

TEMPERATURE_K = 1173.0
N_STATES = 800


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


def neighbors(states: ak.States, jumps: ak.JumpNetwork, after: ak.States) -> ak.States:
    """Neighbours for `first_rung` from the rows of the data set that are one jump on.

    Those rows are centred on the vacancy again: the jump is the one whose result, moved back, has the same occupants.
    """
    chosen = np.full(len(states), -1)
    moved = after.occupations.copy()
    carriers = after.carriers.copy()
    cell = states.supercell
    every = np.arange(cell.n_sites)
    for k in range(jumps.n_jumps):
        new, where = jumps.apply(states.occupations, states.carriers, np.full(len(states), k))
        shift = cell.cell_coordinates(where // cell.alloy.n_basis) - cell.cell_coordinates(
            after.carriers // cell.alloy.n_basis
        )
        for i in np.flatnonzero(chosen < 0):
            if np.array_equal(after.occupations[i], new[i][cell.translate(every, shift[i])]):
                chosen[i], moved[i], carriers[i] = k, new[i], where[i]
    if np.any(chosen < 0):
        raise SystemExit(f"{int((chosen < 0).sum())} neighbours are not one jump from their states")
    return ak.States.from_occupations(
        cell, moved, carriers=carriers, groups=states.groups, report={"jumps": chosen.tolist()}
    )


def main() -> None:
    """Run the folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--run", type=int, default=5, help="number of folds to run")
    parser.add_argument("--first", type=int, default=0, help="fold to begin with")
    parser.add_argument("--states", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=0, help="epochs of the network; 0: paths alone")
    parser.add_argument("--closure-epochs", type=int, default=10)
    parser.add_argument("--form", default="paths", help="paths, clusters or network")
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--lookahead", type=int, default=2)
    parser.add_argument("--deeper", type=int, default=0, help="states on which y is made one jump deeper; slow")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model-jumps", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the models and the terms of every fold")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", ak.KinosonWarning)
    cell, jumps, barriers = load(args.data)
    groups = barriers.states.groups
    fold_of = np.random.default_rng(0).permutation(np.arange(N_STATES) % args.folds)
    equilibrium = np.arange(len(groups)) < N_STATES
    parts: dict[str, list[np.ndarray]] = {"bound": [], "bare": [], "rung": [], "rung bare": []}
    for fold in range(args.first, args.first + args.run):
        out = fold_of[groups] == fold
        begin = time.perf_counter()
        model = ak.BarrierModel.fit(barriers[~out], seed=fold)
        held = barriers[out & equilibrium]
        error = model.predict(held.states) - held.barrier
        mae = np.abs(error[held.valid]).mean()
        fitted = time.perf_counter()
        relaxation = ak.train_relaxation(
            cell, jumps, model, temperature_K=TEMPERATURE_K, lookahead=args.lookahead, n_states=args.states,
            epochs=args.epochs, closure_epochs=args.closure_epochs, hidden=args.hidden, form=args.form, seed=fold,
            deeper=args.deeper,
        )  # fmt: skip
        trained = time.perf_counter()
        result = ak.transport(held.states, jumps, held, relaxation, TEMPERATURE_K)
        after = barriers[out & ~equilibrium]
        near = neighbors(held.states, jumps, after.states)
        both = ak.Barriers.from_arrays(
            _joined(held.states, near), jumps, np.concatenate([held.barrier, after.barrier]),
            reverse_barrier=np.concatenate([held.reverse_barrier, after.reverse_barrier]),
            energy_initial=np.concatenate([held.energy_initial, after.energy_initial]),
        )  # fmt: skip
        rung = ak.first_rung(held.states, near, jumps, both, relaxation, TEMPERATURE_K)
        for name, found in (("bound", result), ("rung", rung)):
            n = len(held.states)
            parts[name].append(found.averages.collective * n)
            parts[name.replace("rung", "rung ").strip() + " bare" if name == "rung" else "bare"].append(
                found.averages.collective_bare * n
            )
        print(
            f"fold {fold}: MAE {mae:.4f} eV, fit {fitted - begin:.0f} s, y {trained - fitted:.0f} s, evaluation "
            f"{time.perf_counter() - trained:.0f} s; own states {_show(relaxation.report['bound_ratios'])}; "
            f"held out {_factors(result)}; first rung {_factors(rung)}",
            flush=True,
        )
        if args.save:
            args.save.mkdir(parents=True, exist_ok=True)
            model.save(args.save / f"model{fold}")
            relaxation.save(args.save / f"y{fold}")
            np.savez(args.save / f"fold{fold}.npz", **{k: v[-1] for k, v in parts.items()}, n=len(held.states))
        if fold == args.first and args.model_jumps:
            own_model(cell, jumps, model, relaxation, args.model_jumps)
    for name in ("bound", "rung"):
        top, bottom = sum(parts[name]), sum(parts["bare" if name == "bound" else "rung bare"])
        pooled = _ratios(top, bottom, cell.species[1:])
        print(f"all folds, {name}: " + ", ".join(f"{k} {v:.3f}±{e:.3f}" for k, (v, e) in pooled.items()))


def own_model(
    cell: ak.Supercell, jumps: ak.JumpNetwork, model: ak.BarrierModel, relaxation: ak.Relaxation, n_jumps: int
) -> None:
    """Bound, ladder and kinetic Monte Carlo of the model itself."""
    states = ak.sample_states(
        cell, 1024, method="monte-carlo", model=model, temperature_K=TEMPERATURE_K, n_chains=512, seed=1234
    )
    part = states[:256]  # one jump deeper is slow; both on the same states
    for name, y in (("bound", replace(relaxation, scales=None)), ("bound, one jump deeper", relaxation)):
        if name == "bound" or relaxation.scales is not None:
            print(f"own model, {name}:", _factors(ak.transport(part, jumps, model, y, TEMPERATURE_K)), flush=True)
    begin = time.perf_counter()
    kmc = ak.run_kmc(states, jumps, model, TEMPERATURE_K, n_walkers=512, n_jumps=n_jumps // 512, seed=1, tracers=False)
    print(f"own model, KMC of {n_jumps} jumps, {time.perf_counter() - begin:.0f} s:", _factors(kmc), flush=True)
    begin = time.perf_counter()
    cheap = ak.train_relaxation(
        cell, jumps, model, temperature_K=TEMPERATURE_K, lookahead=1, form="paths", n_states=512, seed=9
    )
    start = ak.transport(states, jumps, model, cheap, TEMPERATURE_K)
    ladder = ak.correct(
        start, model, n_steps=32, n_trajectories=1024, tracers=False, long_jumps=n_jumps // 1024, seed=5
    )
    rungs = ladder.ladder.rungs["vacancy"]
    print(
        f"own model, corrected with {ladder.ladder.n_jumps} jumps and {ladder.ladder.n_continued} of walkers, "
        f"{time.perf_counter() - begin:.0f} s:", _factors(ladder),
        f"rung {rungs.chosen} {rungs.value[rungs.chosen] / rungs.value[0]:.3f} of the bound", flush=True,
    )  # fmt: skip


def _joined(one: ak.States, two: ak.States) -> ak.States:
    return ak.States.from_occupations(
        one.supercell,
        np.concatenate([one.occupations, two.occupations]),
        carriers=np.concatenate([one.carriers, two.carriers]),
        groups=np.concatenate([one.groups, two.groups]),
    )


def _ratios(top: np.ndarray, bottom: np.ndarray, species: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    a, b = (np.einsum("rabxx->rab", x) for x in (top, bottom))
    found = {"vacancy": a.sum((1, 2)) / b.sum((1, 2))}
    found |= {s: a[:, i, i] / b[:, i, i] for i, s in enumerate(species)}
    return {k: (float(v[0]), float(v[1:].std(ddof=1))) for k, v in found.items()}


def _factors(result: ak.Transport) -> str:
    return _show({k: (q.value, q.error) for k, q in result.collective_correlation_factor.items()})


def _show(ratios: dict) -> str:
    parts = []
    for k in ("vacancy", "Mn"):
        v = ratios[k]
        parts.append(f"{k} {v[0]:.3f}±{v[1]:.3f}" if isinstance(v, tuple) else f"{k} {v:.3f}")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
