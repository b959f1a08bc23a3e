"""What barriers cost and how right they are.

    python benchmarks/barriers.py saddle [--cases cunipdpt cantor ...] [--states 3] [--jumps 12] [--bands 6]
    python benchmarks/barriers.py drift [--data examples/data/cantor_107.npz]
    python benchmarks/barriers.py learned DATA ...        # as benchmarks/learned.py
    python benchmarks/barriers.py active ...              # as benchmarks/active.py

``saddle``: force calls per barrier (exact counts), processor time, what the checks of the saddles say, and on a subset
the difference from a climbing-image band of 7 images at the same force. Cases whose potential this machine lacks are
skipped and named. Prints one JSON object per case, then a table. ``drift``: whether the energy drifts where a data set
was sampled, for each of its sets.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.barriers.potentials import potential
from ase_kinoson.barriers.preconditioner import spring_preconditioner
from ase_kinoson.barriers.saddle import (
    Hop,
    Host,
    JumpResult,
    Relaxation,
    SaddleSettings,
    StateResult,
    climbing_band,
    find_saddle,
    relax,
    relax_state,
)
from ase_kinoson.kinetics.weights import sample_drift

HERE = Path(__file__).parent
BAND_IMAGES = 7
AGREE_EV = 0.005


@dataclass(frozen=True)
class Case:
    """A random alloy with one vacancy."""

    cell: Atoms
    composition: dict[str, float]
    size: tuple[int, int, int]
    potentials: tuple[str, ...]
    """Names to try in turn."""
    target_calls: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def calculator(self) -> tuple[str, Callable[[], Any]] | None:
        """First potential that this machine has."""
        for name in self.potentials:
            factory = potential(name)
            try:
                factory()
            except Exception:
                continue
            return name, factory
        return None


def _equal(*symbols: str) -> dict[str, float]:
    return dict.fromkeys(symbols, 1.0 / len(symbols))


CANTOR = _equal("Co", "Ni", "Cr", "Fe", "Mn")
SI = "lammps:snap:Si_Zuo_JPCA2020.snapcoeff:Si_Zuo_JPCA2020.snapparam"
MGAL = "lammps:meam:library.meam:AlSiMgCuFe.meam:AlS,SiS,MgS,CuS,FeS"
CASES = {
    "cunipdpt": Case(
        bulk("Cu", cubic=True, a=3.7312), _equal("Cu", "Ni", "Pd", "Pt"), (3, 3, 3), ("asap3-emt", "emt"), 18
    ),
    "cuni": Case(bulk("Cu", cubic=True, a=3.58), {"Cu": 0.7, "Ni": 0.3}, (3, 3, 3), ("asap3-emt", "emt"), 18),
    "cantor": Case(bulk("Ni", cubic=True, a=3.595), CANTOR, (3, 3, 3), ("cantor-meam",), 32),
    "cantor-499": Case(bulk("Ni", cubic=True, a=3.595), CANTOR, (5, 5, 5), ("cantor-meam",), 40),
    "nbtawmo": Case(bulk("W", cubic=True, a=3.24), _equal("Nb", "Ta", "W", "Mo"), (4, 4, 4), ("nbtawmo-snap",), 40),
    "mg-hcp": Case(bulk("Mg", a=3.18, c=5.16), {"Mg": 1.0}, (4, 4, 3), ("lammps:eam/fs:Mg_mm.eam.fs",), 40),
    "zr-hcp": Case(bulk("Zr", a=3.23, c=5.17), {"Zr": 1.0}, (4, 4, 3), ("lammps:eam/fs:Zr_mm.eam.fs",), 40),
    # a rough one: some jumps of this potential push another atom over
    "mgal-hcp": Case(bulk("Mg", a=3.2, c=5.2), {"Mg": 0.85, "Al": 0.15}, (4, 4, 3), (MGAL,), 40),
    "si-diamond": Case(bulk("Si", cubic=True, a=5.47), {"Si": 1.0}, (2, 2, 2), (SI,), 40),
    "ge-diamond": Case(bulk("Ge", cubic=True, a=5.76), {"Ge": 1.0}, (2, 2, 2), (SI.replace("Si", "Ge"),), 40),
}


# -- saddle searches ----------------------------------------------------------------------------------------------


def random_hosts(case: Case, n: int, seed: int) -> tuple[ak.JumpNetwork, list[Host]]:
    """Random states with the vacancy on site 0."""
    key = case.cell.get_chemical_symbols()[0]
    cell = ak.Alloy.from_atoms(case.cell, {key: case.composition}).supercell(case.size)
    codes = np.concatenate([np.full(count, cell.species.index(s)) for s, count in cell.counts[0].items()])
    rng = np.random.default_rng(seed)
    hosts = [Host.from_occupation(cell, np.insert(rng.permutation(codes), 0, 0)) for _ in range(n)]
    return ak.JumpNetwork.from_supercell(cell), hosts


def band_barrier(
    host: Host, state: StateResult, found: JumpResult, make: Callable[[], Any], settings: SaddleSettings
) -> tuple[float, int, bool]:
    """Barrier (eV) of a band between the same ends, relaxed tightly; its force calls; converged or not."""
    springs = spring_preconditioner(
        host.positions,
        host.cell,
        host.pbc,
        spring=settings.spring,
        transverse=settings.transverse,
        diagonal=settings.diagonal,
    )
    ends: list[Relaxation] = [
        relax(host.atoms(p), make(), fmax=0.002, preconditioner=springs)
        for p in (state.positions, found.final_positions)
    ]
    band = climbing_band(
        ends[0], ends[1], host.atoms(), make, n_images=BAND_IMAGES, fmax=settings.fmax_saddle, max_steps=400
    )
    return band.energy - state.energy, band.force_calls, band.converged


def saddle(name: str, n_states: int, n_jumps: int, n_bands: int, seed: int) -> dict[str, Any] | None:
    """One case; None where its potential is missing."""
    case = CASES[name]
    chosen = case.calculator()
    if chosen is None:
        return None
    potential_name, make = chosen
    settings = SaddleSettings(**case.settings)
    network, hosts = random_hosts(case, n_states, seed)
    calculator = make()
    found: list[JumpResult] = []
    differences: list[tuple[float, bool]] = []
    band_calls: list[int] = []
    initial_calls = unconverged = 0
    cpu = 0.0
    for host in hosts:
        began = time.process_time()
        state = relax_state(host, calculator, settings=settings, make_calculator=make)
        cpu += time.process_time() - began
        initial_calls += state.force_calls
        if state.status != "ok":
            continue
        for jump in range(min(n_jumps, network.n_jumps)):
            hop = Hop.from_jump(network, host, 0, jump)
            began = time.process_time()
            result = find_saddle(host, hop, state, calculator, settings=settings, make_calculator=make)
            cpu += time.process_time() - began
            found.append(result)
            if result.status == "ok" and len(differences) + unconverged < n_bands:
                energy, calls, converged = band_barrier(host, state, result, make, settings)
                if converged:
                    band_calls.append(calls)
                    differences.append((result.barrier - energy, result.descents == "both-ends"))
                else:
                    unconverged += 1
    ok = [r for r in found if r.status == "ok"]
    off = np.array([d for d, _ in differences])
    lower = np.array([d < -AGREE_EV and sure for d, sure in differences], dtype=bool)
    return {
        "case": name,
        "potential": potential_name,
        "atoms": len(hosts[0].positions),
        "barriers": len(found),
        "search_calls": _mean([r.search_calls for r in found]),
        "search_calls_median": float(np.median([r.search_calls for r in found])),
        "target_calls": case.target_calls,
        "verify_calls": _mean([r.verify_calls for r in found]),
        "initial_calls_per_state": initial_calls / len(hosts),
        "cpu_s_per_barrier": cpu / max(1, len(found)),
        "mean_barrier_eV": _mean([r.barrier for r in ok]),
        "status": dict(Counter(r.status for r in found)),
        "descents": dict(Counter(r.descents for r in ok)),
        "rungs": dict(Counter(len([p for p in r.path if "climb" in p]) for r in found)),
        "bands": len(differences),
        "bands_not_converged": unconverged,
        "band_calls": _mean(band_calls),
        "within_5_meV": float((np.abs(off) <= AGREE_EV).mean()) if len(off) else None,
        "within_5_meV_or_verified_lower": float(((np.abs(off) <= AGREE_EV) | lower).mean()) if len(off) else None,
        "mean_abs_difference_meV": float(1e3 * np.abs(off).mean()) if len(off) else None,
        "largest_differences_meV": [round(1e3 * float(d), 2) for d in sorted(off, key=abs)[::-1][:5]],
    }


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None


# -- command line -------------------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """Rows as aligned text."""
    lines = [list(columns.values())]
    for row in rows:
        cells = [row.get(key) for key in columns]
        lines.append([f"{c:.4g}" if isinstance(c, float) else "-" if c is None else str(c) for c in cells])
    width = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, width, strict=True)) for line in lines)


def run_saddle(arguments: argparse.Namespace) -> None:
    rows = []
    for name in arguments.cases or CASES:
        row = saddle(name, arguments.states, arguments.jumps, arguments.bands, arguments.seed)
        if row is None:
            print(json.dumps({"case": name, "skipped": f"none of {', '.join(CASES[name].potentials)} is installed"}))
            continue
        print(json.dumps(row), flush=True)
        rows.append(row)
    columns = {
        "case": "case",
        "atoms": "atoms",
        "barriers": "barriers",
        "search_calls": "calls",
        "target_calls": "target",
        "verify_calls": "checks",
        "cpu_s_per_barrier": "s/barrier",
        "bands": "bands",
        "within_5_meV": "within 5 meV",
        "within_5_meV_or_verified_lower": "or lower",
        "band_calls": "band calls",
    }
    print(table(rows, columns))


def run_drift(arguments: argparse.Namespace) -> None:
    """Print the drift of every set, in units of the mean absolute energy change per jump."""
    for name in arguments.sets:
        barriers = ak.load_barriers(arguments.data, name)
        temperature_K = barriers.states.temperature_K or 1173.0
        found = sample_drift(barriers, temperature_K)
        print(f"{name}: {len(barriers)} states, {barriers.n_barriers} barriers, {temperature_K:g} K: {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("saddle", help="cost and accuracy of saddle searches")
    sub.add_argument("--cases", nargs="+", choices=list(CASES), help="default: all")
    sub.add_argument("--states", type=int, default=3)
    sub.add_argument("--jumps", type=int, default=12, help="of each state")
    sub.add_argument("--bands", type=int, default=6, help="barriers compared with a 7-image band")
    sub.add_argument("--seed", type=int, default=1)
    sub.set_defaults(run=run_saddle)
    sub = commands.add_parser("drift", help="energy drift of a data set of reference barriers")
    sub.add_argument("--data", type=Path, default=HERE.parent / "examples" / "data" / "cantor_107.npz")
    sub.add_argument("--sets", nargs="+", default=["equilibrium", "random"])
    sub.set_defaults(run=run_drift)
    for name in ("learned", "active"):
        commands.add_parser(name, help=f"what benchmarks/{name}.py measures", add_help=False)
    arguments, rest = parser.parse_known_args()
    if hasattr(arguments, "run"):
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.run(arguments)
    else:
        name = next(a for a in sys.argv[1:] if a in ("learned", "active"))
        sys.argv = [f"{HERE / name}.py", *rest]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
