"""How many barriers does D need? Chosen barriers against barriers of whole states taken at random.

    python benchmarks/active.py [--store FOLDER] [--seeds 20] [--states 40] [--temperature 1200] [--asap]

The Cu-Ni example (`examples/cu70ni30.toml`, EMT): a barrier model is learned from 20 random and 10 equilibrium states,
a relaxation from it; then all barriers of 40 equilibrium states of the model are computed, and D is evaluated from all
of them, and from 20 to 60 % of them, chosen by `active_barriers` and at random, over a number of seeds of the choice.
Costs are counted in barriers and in force calls. Printed as JSON. ``--asap`` uses the EMT of asap3
(compiled; its cutoff differs a little from ASE's).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson.kinetics.weights import EnergyDrift, sample_drift
from ase_kinoson.kinosons.active import active_barriers

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(folder: Path, calculator: Any, *, n_states: int, temperature_K: float) -> dict[str, Any]:
    """Model, relaxation and all reference barriers of the Cu-Ni example."""
    study = ak.Study.from_toml(EXAMPLES / "cu70ni30.toml", folder / "study")
    cell, jumps, options = study.supercell, study.jumps, study.settings.states
    store = folder / "barriers.db"
    states = ak.sample_states(cell, options.training, seed=1)
    training = ak.compute_barriers(states, jumps, calculator, store=store)
    model = ak.BarrierModel.fit(training, seed=1)
    more = ak.sample_states(
        cell, options.per_round, method="monte-carlo", model=model, temperature_K=temperature_K, seed=2
    )
    training = ak.Barriers.concatenate([training, ak.compute_barriers(more, jumps, calculator, store=store)])
    model = ak.BarrierModel.fit(training, seed=2)
    pool = ak.sample_states(cell, n_states, method="monte-carlo", model=model, temperature_K=temperature_K, seed=3)
    relaxation = ak.train_relaxation(
        cell, jumps, model, temperature_K=temperature_K, lookahead=1, n_states=320, closure_epochs=4, seed=4
    )
    reference = ak.compute_barriers(pool, jumps, calculator, store=store)
    return {"training": training, "model": model, "pool": pool, "relaxation": relaxation, "reference": reference}


def drift(barriers: ak.Barriers, temperature_K: float) -> EnergyDrift:
    """Energy drift of a sample from its own reference barriers, weighted to their energies where a model drew it."""
    states = barriers.states
    if states.model_energies is not None and states.report.get("method") != "delayed-acceptance":
        weighted = ak.reweight(states, barriers.energy_initial, temperature_K)
        barriers = ak.Barriers(weighted, *(getattr(barriers, name) for name in list(barriers.__dataclass_fields__)[1:]))
    return sample_drift(barriers, temperature_K)


def active(
    folder: Path,
    calculator: Any = EMT,
    *,
    n_states: int = 40,
    temperature_K: float = 1200.0,
    seeds: int = 20,
    share: float = 0.6,
) -> dict[str, Any]:
    """D of the Cu-Ni example from a share of the barriers, chosen and at random, against D from all.

    Returns
    -------
    dict
        D from all with its error bar; for each share the root mean square distance of D from it (relative), the
        error stated, how often it is within the error bar of D from all, and the force calls.
    """
    about = example(folder, calculator, n_states=n_states, temperature_K=temperature_K)
    reference, jumps, pool = about["reference"], about["training"].network, about["pool"]
    weighted = ak.reweight(pool, reference.energy_initial, temperature_K)
    full = ak.transport(weighted, jumps, reference, about["relaxation"], temperature_K)
    value, error = float(full.vacancy_diffusivity), float(full.vacancy_diffusivity.error)
    total = int((reference.status != "none").sum())
    result: dict[str, Any] = {
        "temperature_K": temperature_K,
        "barriers": total,
        "D": value,
        "relative_error": error / value,
        "energy_drift": str(drift(reference, temperature_K)),
        "force_calls": int(reference.force_calls.sum() + reference.settings["force_calls_initial"]),
        "runs": {},
    }
    start = ak.BarrierModel.fit(about["training"], seed=5), ak.BarrierModel.fit(about["training"], seed=6)
    for name, options in (
        ("chosen, models stay", {"fit": None}),
        ("chosen, models learn", {"training": about["training"], "fit": _refit}),
        ("random states", {"fit": None, "choice": "random"}),
    ):
        found = []
        for seed in range(seeds if "learn" not in name else max(2, seeds // 5)):
            run = active_barriers(
                pool,
                jumps,
                reference,
                temperature_K=temperature_K,
                relaxation=about["relaxation"],
                models=[about["model"], *start],
                relative_error=None,
                batch=max(12, total // 20),
                max_barriers=round(share * total),
                seed=seed,
                **options,
            )
            found.append(
                [(r.n_barriers, r.value / value, r.selection_error / value, r.force_calls) for r in run.history]
            )
        table = np.array(found)
        result["runs"][name] = [
            {
                "barriers": int(rows[:, 0].mean()),
                "share": round(float(rows[:, 0].mean()) / total, 3),
                "rms_distance": float(np.sqrt(np.mean((rows[:, 1] - 1.0) ** 2))),
                "stated_error": float(np.sqrt(np.mean(rows[:, 2] ** 2))),
                "within_error_bar": float(np.mean(np.abs(rows[:, 1] - 1.0) < error / value)),
                "force_calls": int(rows[:, 3].mean()),
            }
            for rows in table.transpose(1, 0, 2)
        ]
    wide = ak.sample_states(
        pool.supercell, 10 * n_states, method="monte-carlo", model=about["model"], temperature_K=temperature_K, seed=6
    )
    run = active_barriers(
        wide,
        jumps,
        calculator,
        temperature_K=temperature_K,
        relaxation=about["relaxation"],
        models=[about["model"], *start],
        fit=None,
        relative_error=None,
        batch=max(12, total // 20),
        max_barriers=total // 2,
        store=folder / "barriers.db",
        costs=(reference.settings["force_calls_initial"] / len(pool), float(reference.force_calls.sum()) / total),
    )
    last = run.history[-1]
    result["ten times the states"] = {
        "barriers": last.n_barriers,
        "force_calls": last.force_calls,
        "D": last.value,
        "relative_error": last.error / last.value,
        "selection_error": last.selection_error / last.value,
        "pool_error": last.pool_error / last.value,
        "random_error": last.random_error / last.value,
    }
    return result


def _refit(barriers: ak.Barriers, seed: int) -> list[ak.BarrierModel]:
    return [ak.BarrierModel.fit(barriers, seed=100 * seed + i, test_fraction=0.0) for i in range(3)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="folder that keeps barriers between runs")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--states", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=1200.0)
    parser.add_argument("--asap", action="store_true")
    chosen = parser.parse_args()
    calculator = EMT
    if chosen.asap:
        import asap3

        calculator = asap3.EMT
    warnings.simplefilter("ignore", ak.KinosonWarning)
    with tempfile.TemporaryDirectory() as temporary:
        place = chosen.store or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        print(
            json.dumps(
                active(place, calculator, n_states=chosen.states, temperature_K=chosen.temperature, seeds=chosen.seeds),
                indent=1,
            )
        )
