"""Temperature series: a rough landscape, where Arrhenius fails, and Cu70Ni30 with EMT, where two slopes agree.

    python benchmarks/series.py rough [--lattice fcc] [--states 3000] [--seed 0]
    python benchmarks/series.py alloy [--store FILE] [--states 24] [--seed 0]

`rough`: RandomBarriers of 0.8 ± 0.15 eV. Every model is fitted without one temperature and predicts it; printed is
ln(predicted/found) in percent and in standard errors, once with states of each temperature on its own (independent
errors), once with all states at all temperatures (common errors, which cancel). `alloy`: D_v and D* at five
temperatures from reference barriers pooled over them; printed are the effective states of each temperature with and
without pooling, and the Hellmann-Feynman activation energies beside the slopes of the series. asap3's EMT is used where
it is installed, ASE's elsewhere. All numbers as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.kinetics.weights import reweight
from ase_kinoson.series import TemperatureSeries, temperature_series

PARENTS = {
    "square": (Atoms("Cu", cell=[2.5, 2.5, 10], pbc=(1, 1, 0)), (6, 6, 1)),
    "sc": (bulk("Cu", "sc", a=2.5), (5, 5, 5)),
    "fcc": (bulk("Cu", cubic=True), (3, 3, 3)),
}


def rough(options: argparse.Namespace) -> dict[str, Any]:
    """RandomBarriers: temperatures left out."""
    parent, size = PARENTS[options.lattice]
    cell = ak.Alloy.from_atoms(parent, {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell(size)
    jumps = ak.JumpNetwork.from_supercell(cell)
    gas = ak.RandomBarriers(mean=0.8, std=0.15, seed=1)
    settings = {
        "temperatures_K": (700.0, 800.0, 900.0, 1050.0, 1250.0, 1500.0),
        "n_states": options.states,
        "sampling": {"sweeps": 3, "n_chains": options.states},
        "seed": options.seed,
    }
    # the closed form alone: y is good enough, and as good at one temperature as at the next
    training = {"lookahead": 1, "n_states": options.training, "epochs": 0, "closure_epochs": 0}
    apart = temperature_series(gas, jumps, pool=False, training=training, **settings)
    relaxations = {r.temperature_K: r.relaxation for r in apart.results}
    pooled = temperature_series(gas, jumps, relaxations=relaxations, **{**settings, "n_states": options.states // 3})
    return {"lattice": options.lattice, "own states": _left_out(apart), "pooled": _left_out(pooled)}


def _left_out(series: TemperatureSeries) -> dict[str, Any]:
    value = series.diffusivity()[1]
    found: dict[str, Any] = {
        "temperatures [K]": series.temperatures_K.tolist(),
        "D_v [m2/s]": value.value.tolist(),
        "error [%]": (100 * value.error / value.value).round(2).tolist(),
    }
    for row in series.predict_left_out():
        own = found.setdefault(row.model, {"off [%]": [], "z": []})
        own["off [%]"].append(round(100 * float(np.log(float(row.predicted) / float(row.found))), 2))
        own["z"].append(round(row.z_score, 2))
    return found


def alloy(options: argparse.Namespace) -> dict[str, Any]:
    """Cu70Ni30: pooled reference barriers."""
    try:
        from asap3 import EMT
    except ImportError:
        from ase.calculators.emt import EMT
    began = time.perf_counter()
    cell = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}}).supercell(3)
    jumps = ak.JumpNetwork.from_supercell(cell)
    temperatures = (800.0, 900.0, 1000.0, 1150.0, 1300.0)

    def barriers(states: ak.States) -> ak.Barriers:
        return ak.compute_barriers(states, jumps, EMT, store=options.store, progress=sys.stderr.isatty())

    parts = [barriers(ak.sample_states(cell, 30, seed=options.seed))]
    model = ak.BarrierModel.fit(parts, seed=options.seed)
    for i, t in enumerate(temperatures[::2]):
        parts.append(barriers(_sample(cell, model, t, 10, options.seed + 100 + i)))
    model = ak.BarrierModel.fit(parts, seed=options.seed)
    sets = [
        barriers(_sample(cell, model, t, options.states, options.seed + 200 + i)) for i, t in enumerate(temperatures)
    ]
    spent = time.perf_counter() - began
    training = {"lookahead": 1, "n_states": 320, "closure_epochs": 4, "epochs": 2}
    pooled = temperature_series(sets, jumps, model, training=training, seed=options.seed)
    relaxations = {r.temperature_K: r.relaxation for r in pooled.results}
    apart = temperature_series(sets, jumps, relaxations=relaxations, pool=False, seed=options.seed)
    found: dict[str, Any] = {
        "temperatures [K]": list(temperatures),
        "states of each": options.states,
        "barriers [s]": round(spent),
        "series [s]": round(time.perf_counter() - began - spent),
        "effective states, own": [
            round(reweight(s.states, s.energy_initial, t).effective_sample_size, 1)
            for s, t in zip(sets, temperatures, strict=True)
        ],
        "effective states, pooled": [round(r.effective_sample_size, 1) for r in pooled.results],
        "drift in errors": [round(r.drift.value / r.drift.error, 2) for r in pooled.results if r.drift],
    }
    for name in pooled.names:
        found[name] = {"own": _slopes(apart, name), "pooled": _slopes(pooled, name)}
    return found


def _sample(cell: ak.Supercell, model: ak.BarrierModel, t: float, n: int, seed: int) -> ak.States:
    return ak.sample_states(cell, n, method="monte-carlo", model=model, temperature_K=t, seed=seed, sweeps=200)


def _slopes(series: TemperatureSeries, name: str) -> dict[str, Any]:
    value, energy = series.diffusivity(name)[1], series.activation_energies()[name]
    return {
        "D": [f"{v:.4g} ± {e:.2g}" for v, e in zip(value.value, value.error, strict=True)],
        "kind": value.kind,
        "Hellmann-Feynman [eV]": [
            f"{v:.4f} ± {e:.4f}"
            for v, e in zip(energy.hellmann_feynman.value, energy.hellmann_feynman.error, strict=True)
        ],
        "slope of the series [eV]": str(energy.fitted),
        "difference of neighbouring slopes [eV]": [
            f"{float(s.difference):+.4f} ± {float(s.difference.error):.4f}" for s in energy.slopes
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rough", "alloy"))
    parser.add_argument("--lattice", choices=tuple(PARENTS), default="fcc")
    parser.add_argument("--states", type=int, help="default 3000 (rough), 24 (alloy)")
    parser.add_argument("--training", type=int, default=512, help="training states of y (rough)")
    parser.add_argument("--store", help="barrier store of the alloy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.states = options.states or {"rough": 3000, "alloy": 24}[options.part]
    torch.set_num_threads(1)
    warnings.simplefilter("once", ak.KinosonWarning)
    began = time.perf_counter()
    found = {"rough": rough, "alloy": alloy}[options.part](options)
    print(json.dumps({**found, "wall_s": round(time.perf_counter() - began)}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
