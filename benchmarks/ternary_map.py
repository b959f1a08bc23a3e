"""A composition map of Cu-Ni-Pd (EMT): 66 points from one store of barriers.

    python benchmarks/ternary_map.py barriers --store DIR [--workers 2]
    python benchmarks/ternary_map.py fit      --store DIR
    python benchmarks/ternary_map.py map      --store DIR --out DIR [--workers 2] [--step 0.1]

`barriers` relaxes a lattice constant for each of 21 compositions (multiples of 20 %) and five more that no fit sees,
computes barriers of random cells at these lattice constants, fits a first model, and adds barriers of its equilibrium
states at 1000 K. What is in DIR is not computed again. `fit` measures how well one model knows them all, with and
without left-out compositions. `map` makes the map and its pictures. asap3's EMT is used where it is installed, ASE's
otherwise (the same potential, about 12 times slower).
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.composition import as_fractions, composition_grid, relaxed_lattice_constant, vegard, with_composition
from ase_kinoson.composition_maps import CompositionMap, MapSettings, composition_map

SPECIES = ("Cu", "Ni", "Pd")
START = {"Cu": 3.59, "Ni": 3.49, "Pd": 3.88}
PARENT = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": dict.fromkeys(SPECIES, 1 / 3)})
TRAINED = composition_grid(SPECIES, 0.2)
CHECKED = [dict(zip(SPECIES, x, strict=True)) for x in (
    (0.5, 0.3, 0.2), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (0.7, 0.3, 0.0), (0.33, 0.33, 0.34),
)]  # fmt: skip
TEMPERATURE_K = 1000.0
QUICK = MapSettings(n_chains=128, sweeps=10, n_jumps=256, n_walkers=128)


def emt() -> object:
    """asap3's EMT, or ASE's."""
    try:
        from asap3 import EMT

        return EMT(verbose=False)
    except ImportError:
        from ase.calculators.emt import EMT

        return EMT()


def name(composition: dict[str, float]) -> str:
    """File name of a composition."""
    return "-".join(f"{s}{100 * composition[s]:.0f}" for s in SPECIES)


def lattice_constants(folder: Path) -> dict[str, float]:
    """Relaxed lattice constants of all compositions, Å, kept in a file."""
    file = folder / "lattice_constants.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    for x in (*TRAINED, *CHECKED):
        if name(x) not in known:
            alloy = with_composition(PARENT, as_fractions(x, SPECIES), scale=vegard(x, START) / 3.6)
            known[name(x)] = relaxed_lattice_constant(alloy.supercell(3), emt, n_cells=2)[0]
            file.write_text(json.dumps(known, indent=1))
    return known


def cell_of(composition: dict[str, float], a: float, size: int = 3) -> ak.Supercell:
    """A cell of one composition at its own lattice constant."""
    return with_composition(PARENT, as_fractions(composition, SPECIES), scale=a / 3.6).supercell(size)


def compute(folder: Path, executor: Executor | None) -> None:
    """Fill the store."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    a = lattice_constants(folder)
    pure = {s: a[name({t: float(t == s) for t in SPECIES})] for s in SPECIES}
    print(f"lattice constants of the pure metals {pure}, {time.perf_counter() - begin:.0f} s", flush=True)
    worst = max((abs(a[name(x)] - vegard(x, pure)), name(x)) for x in TRAINED)
    print(f"largest deviation from Vegard's rule: {worst[0]:.4f} Å at {worst[1]}", flush=True)
    for kind, n in (("random", 16), ("equilibrium", 12)):
        model = None
        for k, x in enumerate((*TRAINED, *CHECKED)):
            file = folder / f"{name(x)}-{kind}.npz"
            if file.is_file():
                continue
            cell = cell_of(x, a[name(x)])
            jumps = ak.JumpNetwork.from_supercell(cell)
            corner = max(x.values()) == 1.0
            if kind == "equilibrium" and corner:
                continue
            if kind == "random":
                states = ak.sample_states(cell, 2 if corner else n, seed=k)
            else:
                model = model or ak.BarrierModel.fit(load(folder, TRAINED, ("random",)), seed=0)
                states = ak.sample_states(
                    cell, n, method="monte-carlo", model=model.on(cell), temperature_K=TEMPERATURE_K, seed=k, sweeps=25
                )
            done = ak.compute_barriers(states, jumps, emt, store=folder / "store" / f"{name(x)}.db", executor=executor)
            ak.save_barriers(file, {kind: done})
            print(f"{file.stem}: {int(done.valid.sum())} barriers, {time.perf_counter() - begin:.0f} s", flush=True)


def load(folder: Path, compositions: list[dict[str, float]], kinds: tuple[str, ...]) -> list[ak.Barriers]:
    """Barriers of some compositions."""
    files = [folder / f"{name(x)}-{kind}.npz" for x in compositions for kind in kinds]
    return [ak.load_barriers(f) for f in files if f.is_file()]


def fit(folder: Path, *, kinds: tuple[str, ...] = ("random", "equilibrium"), **options: object) -> ak.BarrierModel:
    """One model of all trained compositions."""
    return ak.BarrierModel.fit(load(folder, TRAINED, kinds), seed=0, temperature_K=TEMPERATURE_K, **options)


def errors(model: ak.BarrierModel, barriers: ak.Barriers) -> tuple[float, float, float]:
    """Mean absolute error, mean error, and the spread of the barriers; eV."""
    valid = barriers.valid
    wrong = model.predict(barriers.states)[valid] - barriers.barrier[valid]
    return float(np.abs(wrong).mean()), float(wrong.mean()), float(barriers.barrier[valid].std())


def report_fit(folder: Path) -> ak.BarrierModel:
    """Fit, save, and say how good the model is on compositions that it has never seen."""
    begin = time.perf_counter()
    model = fit(folder)
    model.save(folder / "model")
    print(f"{model}, {time.perf_counter() - begin:.0f} s")
    print("| left-out composition | states | MAE (eV) | mean error (eV) | spread of the barriers (eV) |")
    print("|---|---|---|---|---|")
    for x in CHECKED:
        for kind in ("random", "equilibrium"):
            for one in load(folder, [x], (kind,)):
                mae, mean, spread = errors(model, one)
                print(f"| {name(x)} | {kind} | {mae:.4f} | {mean:+.4f} | {spread:.3f} |", flush=True)
    return model


def draw(found: CompositionMap, out: Path) -> None:
    """Pictures and tables."""
    import matplotlib

    matplotlib.use("Agg")
    from ase_kinoson.composition_plots import plot_ternary_map

    found.write_csv(out / "map.csv")
    found.save(out / "map.json")
    names = [
        "vacancy",
        "tracer",
        "energy vacancy",
        *(f"{kind} {s}" for kind in ("tracer", "f", "share") for s in SPECIES),
    ]
    for what, excess in (*((n, False) for n in names), ("vacancy", True), ("tracer", True)):
        axes = plot_ternary_map(found, what, excess=excess)
        axes.figure.savefig(out / f"{what.replace(' ', '_')}{'_excess' if excess else ''}.png", dpi=120)


def make(folder: Path, out: Path, step: float, executor: Executor | None, settings: MapSettings) -> None:
    """The map."""
    out.mkdir(parents=True, exist_ok=True)
    file = folder / "model.json"
    model = ak.BarrierModel.load(folder / "model") if file.is_file() else report_fit(folder)
    known = json.loads((folder / "lattice_constants.json").read_text())
    pure = {s: known[name({t: float(t == s) for t in SPECIES})] for s in SPECIES}
    jumps = ak.JumpNetwork.from_supercell(PARENT.supercell(3))
    begin = time.perf_counter()
    found = composition_map(
        jumps,
        model,
        composition_grid(SPECIES, step),
        temperature_K=TEMPERATURE_K,
        lattice_constant=pure,
        folder=out / "points",
        executor=executor,
        settings=settings,
        progress=True,
    )
    spent = sum(p.seconds for p in found.points)
    print(f"{found}: {spent:.0f} s of processor time, {time.perf_counter() - begin:.0f} s")
    for what in ("vacancy", *(f"tracer {s}" for s in SPECIES)):
        value, error = found.values(what)
        with np.errstate(invalid="ignore"):
            print(f"relative error of {what}: median {np.nanmedian(error / value):.3f}, largest "
                  f"{np.nanmax(error / value):.3f}")  # fmt: skip
    draw(found, out)


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step_name", choices=("barriers", "fit", "map"), metavar="barriers|fit|map")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("ternary_map"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--step", type=float, default=0.1)
    parser.add_argument("--quick", action="store_true", help="a quarter of the effort, with larger errors")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ak.KinosonWarning)
    executor = ProcessPoolExecutor(args.workers) if args.workers > 1 else None
    try:
        if args.step_name == "barriers":
            compute(args.store, executor)
        elif args.step_name == "fit":
            report_fit(args.store)
        else:
            make(args.store, args.out, args.step, executor, QUICK if args.quick else MapSettings())
    finally:
        if executor is not None:
            executor.shutdown()


if __name__ == "__main__":
    main()
