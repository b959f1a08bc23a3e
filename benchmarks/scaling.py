"""Unit costs behind docs/scaling.md: states in chunks, learned barriers, Monte Carlo, and the store of barriers.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--states 1e6] [--model FILE]

Processor time of one thread, CoCrFeMnNi in cells of 108 sites. Without --model one is fitted to the barriers that come
with the package. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson.kinetics.monte_carlo import MonteCarlo
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.kinosons.state_chunks import sample_chunks
from ase_kinoson.kinosons.streaming import stream_transport

T = 1173.0
SPECIES = ("Co", "Cr", "Fe", "Mn", "Ni")
DATA = Path(__file__).parents[1] / "examples" / "data" / "cantor_107.npz"


def seconds(work: Callable[[], object]) -> float:
    """Processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_MB() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gas_rows(n: int) -> dict[str, float]:
    """A gas of rates: the cost of all but barriers, and the memory of many states."""
    cell = ak.Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": dict.fromkeys(SPECIES, 0.2)}).supercell(3)
    jumps = ak.JumpNetwork.from_supercell(cell)
    gas = ak.SpeciesRates({s: 10.0 ** (i - 2) for i, s in enumerate(SPECIES)})
    y = ak.Relaxation.create(jumps, rates=ak.Rates.of(gas, jumps), lookahead=1, closure="exact", form="paths")
    found = {"peak before, MB": peak_MB()}
    stream_transport(sample_chunks(cell, 4096, seed=1), jumps, gas)
    found["gas, y = 0, states/s"] = n / seconds(lambda: stream_transport(sample_chunks(cell, n), jumps, gas))
    found[f"peak after {n} states, MB"] = peak_MB()
    few = 20_000
    found["gas, one jump ahead, states/s"] = few / seconds(
        lambda: stream_transport(sample_chunks(cell, few), jumps, gas, y)
    )
    with tempfile.TemporaryDirectory() as folder:
        stream_transport(sample_chunks(cell, few), jumps, gas, kinosons=Path(folder) / "k")
        found["kinosons, bytes/state"] = sum(f.stat().st_size for f in (Path(folder) / "k").iterdir()) / few
    return found


def learned_rows(model: ak.BarrierModel) -> dict[str, float]:
    """Learned barriers: evaluation with and without look-ahead, Monte Carlo, and what training looks up."""
    cell = model.supercell.alloy.supercell(3)
    jumps, here = model.network.with_supercell(cell), model.on(cell)
    states = ak.sample_states(cell, 2000, seed=0)
    rates = ak.Rates.of(here, jumps, temperature_K=T)
    found = {}
    for ahead, n in ((None, 2000), (1, 400), (2, 48)):
        y = None
        if ahead is not None:
            y = ak.Relaxation.create(jumps, rates=rates, lookahead=ahead, closure="exact", form="paths")
        stream_transport([states[:8]], jumps, here, y, T)
        cost = seconds(lambda y=y, n=n: stream_transport([states[:n]], jumps, here, y, T))
        found[f"learned, {'y = 0' if ahead is None else f'{ahead} ahead'}, states/s"] = n / cost
    for ahead, n in ((1, 64), (2, 16)):
        y = ak.Relaxation.create(jumps, rates=rates, lookahead=ahead, form="network", gates=32)
        begin = time.process_time()
        pools = Objective.of(y, states[:n]).pools
        found[f"looked up for training, {ahead} ahead, ms/state"] = 1e3 * (time.process_time() - begin) / n
        tensors = [t for p in pools for t in (p.codes, p.rates, p.weights, *vars(p.paths).values())]
        size = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
        found[f"looked up for training, {ahead} ahead, bytes/state"] = size / n
    chains = MonteCarlo(cell, here, T, n_chains=200)
    chains.attempt(20)
    steps = chains.sweep_length
    found["Monte Carlo, learned, attempts/s"] = 200 * steps / seconds(lambda: chains.attempt(steps))
    return found


def store_rows() -> dict[str, float]:
    """A store of barriers: bytes per row (EMT, 108 sites)."""
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.5}})
    cell = alloy.supercell(3)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "s.db"
        few = {i: range(6) for i in range(2)}
        ak.compute_barriers(ak.sample_states(cell, 2), ak.JumpNetwork.from_supercell(cell), EMT, store=file, jumps=few)
        return {"store, bytes/row": file.stat().st_size / 14}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=float, default=1e5, help="states of the gas (default: 1e5)")
    parser.add_argument("--model", help="barrier model, without its suffix (default: one is fitted)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ak.KinosonWarning)
    found = gas_rows(int(args.states))
    model = (
        ak.BarrierModel.fit(ak.load_barriers(DATA, "equilibrium"), seed=0)
        if args.model is None
        else ak.BarrierModel.load(args.model)
    )
    found |= learned_rows(model) | store_rows()
    print(json.dumps({k: float(f"{v:.4g}") for k, v in found.items()}, indent=1))


if __name__ == "__main__":
    main()
