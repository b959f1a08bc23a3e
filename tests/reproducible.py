"""Everything that takes a seed, run on small problems, as digests of its bits.

``python -m tests.reproducible [NAME ...]`` prints them as JSON: two processes that differ in what must not matter (the
seed of hashes, the number of threads) can be compared. Needs no pytest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.errors import KinosonWarning
from ase_kinoson.validation import tiny_cell

KELVIN = 600.0
CHEAP = SaddleSettings(verify=False)
TIMES = ("wall_time", "wall_time_s", "seconds", "time_s", "wall_s", "date", "created", "cost")
"""Keys of what a clock says."""


def digest(found: Any) -> str:
    """Hash of all bits of nested arrays, numbers and texts, in the order in which they come; clocks are left out."""
    return hashlib.sha256(b"".join(_bits(found))).hexdigest()[:16]


def _bits(x: Any) -> Iterable[bytes]:
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().numpy()
    if isinstance(x, np.ndarray) and x.dtype.kind != "O":
        yield f"{x.dtype.str}{x.shape}".encode()
        # text arrays may hold what the memory held behind the end of a word
        yield "\0".join(x.ravel().tolist()).encode() if x.dtype.kind == "U" else np.ascontiguousarray(x).tobytes()
    elif isinstance(x, float | np.floating):
        yield float(x).hex().encode()
    elif isinstance(x, Mapping):
        for key, value in x.items():
            if key not in TIMES:
                yield str(key).encode()
                yield from _bits(value)
    elif isinstance(x, list | tuple | np.ndarray):
        yield str(len(x)).encode()
        for value in x:
            yield from _bits(value)
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        yield from _bits({f.name: getattr(x, f.name) for f in dataclasses.fields(x)})
    elif x is None or isinstance(x, bool | int | str | bytes | np.integer | np.bool_):
        yield repr(x).encode()
    else:
        raise TypeError(f"found {type(x).__name__}; expected plain data; say how to take it apart")


# -- small problems ---------------------------------------------------------------------------------------------------


@cache
def square() -> tuple[ak.Supercell, ak.JumpNetwork, ak.PairBarriers]:
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03})
    return cell, network, ak.PairBarriers(energy, {"Ag": 0.6, "Cu": 0.5})


def sample(**options: Any) -> ak.States:
    cell, _, model = square()
    return ak.sample_states(cell, 24, method="monte-carlo", model=model, temperature_K=KELVIN, sweeps=10, **options)


@cache
def relaxation() -> ak.Relaxation:
    return train("clusters")


def train(form: str) -> ak.Relaxation:
    cell, network, model = square()
    options = {"n_states": 40, "hidden": 4, "gates": 4, "epochs": 2, "closure_epochs": 1, "seed": 2, "form": form}
    return ak.train_relaxation(cell, network, model, temperature_K=KELVIN, **options)


@cache
def evaluated() -> Any:
    _, network, model = square()
    return ak.transport(sample(seed=4), network, model, relaxation(), temperature_K=KELVIN, seed=3)


def states_bits(states: ak.States) -> tuple[Any, ...]:
    return states.occupations, states.carriers, states.weights, states.groups, states.model_energies, states.report


def result_bits(result: Any) -> tuple[Any, ...]:
    return result.numbers(), dict(result.kinosons.columns), result.averages.collective, dict(result.settings)


def weights_bits(model: Any) -> dict[str, Any]:
    return dict(model.modules.state_dict())


def copper_nickel() -> tuple[ak.States, ak.JumpNetwork]:
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    cell = alloy.supercell((2, 2, 2))
    return ak.sample_states(cell, 2, seed=11), ak.JumpNetwork.from_supercell(cell)


def barrier_bits(barriers: Any) -> tuple[Any, ...]:
    names = ("barrier", "reverse_barrier", "energy_initial", "energy_final", "status", "force_calls", "fmax")
    return tuple(getattr(barriers, name) for name in names)


ASKED = {0: [0, 3], 1: [4]}


def reference(executor: Any = None, **options: Any) -> tuple[Any, ...]:
    """Three barriers of an EMT alloy."""
    return barrier_bits(ak.compute_barriers(*copper_nickel(), EMT, jumps=ASKED, settings=CHEAP, executor=executor))


def streamed(executor: Any = None) -> tuple[Any, ...]:
    """A transport result of states in six chunks."""
    _, network, model = square()
    chunks = [sample(seed=s) for s in range(6)]
    found = ak.stream_transport(chunks, network, model, temperature_K=KELVIN, seed=1, executor=executor)
    return result_bits(found)


def gas_of(composition: Mapping[str, float]) -> ak.SpeciesRates:
    """Rates of a composition, for maps; importable in other processes."""
    return ak.SpeciesRates({s: {"Ag": 0.1, "Cu": 1.0}[s] for s in composition})


def mapped(executor: Any = None) -> tuple[Any, ...]:
    """Three points of a composition map."""
    from ase_kinoson.composition_maps import MapSettings, composition_map

    atoms = Atoms("Cu", cell=[1.0, 1.0, 8.0], pbc=(True, True, False))
    alloy = ak.Alloy.from_atoms(atoms, {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    jumps = ak.JumpNetwork.from_supercell(alloy.supercell((3, 3, 1)))
    x = [{"Ag": 0.25, "Cu": 0.75}, {"Ag": 0.5, "Cu": 0.5}, {"Cu": 1.0}]
    quick = MapSettings(n_chains=16, sweeps=2, n_rounds=2, n_jumps=128, n_walkers=16, n_resamples=40)
    found = composition_map(jumps, gas_of, x, temperature_K=500.0, settings=quick, seed=3, executor=executor)
    return tuple(point.as_dict() for point in found.points)


class Shuffled(Executor):
    """Waits until nobody gives it more, and does what it has in a random order.

    Parameters
    ----------
    workers
        Tasks it says to run side by side.
    seed
        Of the order.
    """

    def __init__(self, workers: int = 2, seed: int = 0) -> None:
        self._max_workers, self._random = workers, random.Random(seed)
        self._held: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._given, self._closed = threading.Condition(), False
        self.order: list[int] = []  # which of the tasks that waited was done
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._given:
            self._held.append((future, partial(function, *arguments, **options)))
            self._given.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._given:
            self._closed = True
            self._given.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._given:
                while self._given.wait(0.005):  # as long as more comes
                    pass
                if not self._held:
                    if self._closed:
                        return
                    continue
                # never the first in the queue if another one waits
                self.order.append(self._random.randrange(1, len(self._held)) if len(self._held) > 1 else 0)
                future, call = self._held.pop(self.order[-1])
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)


def density() -> dict[str, Any]:
    models = ak.KinosonDensity.from_result(evaluated()).fit_models()
    return {name: (m.log_value, m.cumulants) for name, m in models.items()}


def chosen() -> tuple[Any, ...]:
    _, network, model = square()
    energies = model.energy
    models = [ak.PairBarriers(energies, {"Ag": 0.6 + d, "Cu": 0.5 - d}) for d in (0.02, -0.03, 0.05)]
    bound = [m.bind(network) for m in models]
    pool = sample(seed=8)
    run = ak.active_barriers(
        pool, network, model, temperature_K=KELVIN, models=bound, fit=None, relative_error=None, batch=12,
        max_barriers=24, seed=5,
    )  # fmt: skip
    return dict(run.diffusivity), [dataclasses.asdict(r) for r in run.history]


def fitted() -> dict[str, Any]:
    from tests.barriers.synthetic import synthetic

    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.5, "Ni": 0.3, "Pd": 0.2}})
    network = ak.JumpNetwork.from_supercell(alloy.supercell((2, 2, 2)))
    model = ak.BarrierModel.fit(synthetic(network, n=24, noise=0.01), seed=0, hidden=4, epochs=2)
    states = ak.sample_states(network.supercell, 3, seed=9)
    found = model.jump_energies(states.occupations, states.carriers)
    return {"barrier": found.barrier, "delta": found.delta_e, "report": model.report}


def studied() -> dict[str, Any]:
    """summary.json of a study; takes most of a minute."""
    from tests.test_study import CIF, STUDY

    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        shutil.copy(CIF, here / "alloy.cif")
        (here / "study.toml").write_text(STUDY)
        ak.Study.from_toml(here / "study.toml", here / "out").run()
        found = json.loads((here / "out" / "summary.json").read_text())
        return {k: v for k, v in found.items() if k != "digest"}  # which covers the times


def trajectories(loop: bool) -> tuple[Any, ...]:
    _, network, model = square()
    source = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}) if loop else model
    kelvin = None if loop else KELVIN
    states = ak.sample_states(network.supercell, 12, seed=1) if loop else sample(seed=1)
    return result_bits(ak.run_kmc(states, network, source, kelvin, n_jumps=256, n_walkers=16, seed=7))


SHORT: dict[str, Callable[[], Any]] = {
    "sample_states, random": lambda: states_bits(ak.sample_states(square()[0], 24, seed=1)),
    "sample_states, monte-carlo": lambda: states_bits(sample(seed=1)),
    "sample_states, quenched": lambda: states_bits(sample(seed=1, ensemble="quenched", n_chains=6)),
    "BarrierModel.fit": fitted,
    "train_relaxation, clusters": lambda: weights_bits(train("clusters")),
    "train_relaxation, network": lambda: weights_bits(train("network")),
    "transport": lambda: result_bits(evaluated.__wrapped__()),
    "stream_transport": streamed,
    "correct": lambda: ak.correct(evaluated(), square()[2], n_steps=3, n_trajectories=64, seed=6).numbers(),
    "run_kmc, NumPy": lambda: trajectories(False),
    "run_kmc, compiled": lambda: trajectories(True),
    "compute_barriers": reference,
    "active_barriers": chosen,
    "KinosonDensity.fit_models": density,
    "composition_map": mapped,
}
"""Every public function with a seed, by name."""

LONG: dict[str, Callable[[], Any]] = {
    "sample_states, sqs": lambda: states_bits(ak.sample_states(square()[0], 6, method="sqs", seed=1)),
    "Study.run": studied,
}

CONTROLS: dict[str, Callable[[], Any]] = {
    "a generator without a seed": lambda: np.random.default_rng().random(3),
    "the order of a set": lambda: list({"Ag", "Au", "Cu", "Ni", "Pd", "Pt", "Co", "Cr", "Fe"}),
}
"""What is not reproducible: comparisons must see it."""


def digests(names: Iterable[str] | None = None) -> dict[str, str]:
    """Run functions and digest what they return.

    Parameters
    ----------
    names
        Of :data:`SHORT`, :data:`LONG` or :data:`CONTROLS`; default all of :data:`SHORT`.
    """
    known = SHORT | LONG | CONTROLS
    found = {}
    for name in SHORT if names is None else names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KinosonWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            found[name] = digest(known[name]())
    return found


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(json.dumps(digests(sys.argv[1:] or None)))
