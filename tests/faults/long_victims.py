"""What runs in the processes that are killed: a study, a map, rounds of learning, trajectories, a stream of states."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson import whole_files
from ase_kinoson.composition_maps import MapSettings, composition_map
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons import trajectories
from ase_kinoson.kinosons.active import active_barriers
from ase_kinoson.kinosons.state_chunks import read_states, split_states, write_states
from ase_kinoson.kinosons.streaming import stream_transport
from ase_kinoson.report import build_report
from ase_kinoson.study import Study

torch.set_num_threads(1)
CIF = Path(__file__).parents[2] / "examples" / "Cu70Ni30.cif"
STUDY = """
title = "a study that is killed"
seed = 3
workers = 1

[alloy]
file = "alloy.cif"

[cell]
size = 2

[calculator]
name = "ase.calculators.emt.EMT"

[barriers]
fmax_initial = 0.05
fmax_final = 0.1
fmax_saddle = 0.1
verify = false

[states]
training = {least}
evaluation = 2
sweeps = 5

[model]
hidden = 2
epochs = 1

[relaxation]
n_states = 10
form = "paths"
lookahead = 1
closure_epochs = 1
gates = 2

[correction]
n_steps = 3
n_trajectories = 32

[transport]
temperatures_K = [1200]
n_resamples = 20
"""


def prepare(folder: Path, text: str | None = None) -> Path:
    """Write the study file; return the folder of its output."""
    from ase_kinoson.settings import LEAST_STATES

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CIF, folder / "alloy.cif")
    (folder / "study.toml").write_text((text or STUDY).format(least=LEAST_STATES))
    return folder / "out"


def _watch_files(die: int | None, full: int | None, torn: bool, count: str | None) -> None:
    """Count the steps of writing files; die at one of them, or have no space from one on."""
    steps = [0]
    to_disk, replace = whole_files._to_disk, os.replace

    def step(path: Any) -> None:
        steps[0] += 1
        if count is not None:
            Path(count).write_text(str(steps[0]))
        if full is not None and steps[0] >= full:
            raise OSError(28, "No space left on device")
        if steps[0] == die:
            if os.path.isfile(path):  # what had reached the file so far
                os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def watched_to_disk(path: Any) -> None:
        if os.path.isdir(path):
            return to_disk(path)
        step(path)
        return to_disk(path)

    def watched_replace(source: Any, target: Any) -> None:
        step("")
        replace(source, target)
        step("")

    whole_files._to_disk = watched_to_disk
    os.replace = watched_replace  # type: ignore[assignment]
    if torn:  # a package that writes in place: for negative controls
        import contextlib

        @contextlib.contextmanager
        def in_place(path: Any) -> Any:
            yield Path(path)
            step(path)

        import sys

        for module in list(sys.modules.values()):
            if getattr(module, "replace_file", None) is whole_files.replace_file and module is not whole_files:
                module.replace_file = in_place  # type: ignore[attr-defined]


def run(
    *,
    what: str,
    folder: str,
    die: int | None = None,
    full: int | None = None,
    torn: bool = False,
    count: str | None = None,
    user: int | None = None,
    delay: float = 0.0,
) -> dict[str, Any]:
    """Run one of the jobs below in a folder; return its numbers, or its one sentence."""
    _watch_files(die, full, torn, count)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    time.sleep(delay)
    try:
        return {"numbers": run_job(what, Path(folder)), "error": None}
    except (KinosonError, OSError) as error:
        return {"numbers": None, "error": f"{type(error).__name__}: {error}"}


def warm(*jobs: str) -> None:
    """Have everything imported and compiled, so that what is forked is quick."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        logging.disable(logging.CRITICAL)
        for what in jobs or JOBS:
            run_job(what, Path(name))
        logging.disable(logging.NOTSET)


def warm_small() -> None:
    """The same without the study."""
    warm("points", "walks", "stream")


def run_job(what: str, folder: Path) -> Any:
    """Run a job without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return JOBS[what](folder)


def study(folder: Path) -> Any:
    """``ase-kinoson run``."""
    result = Study.from_toml(folder / "study.toml", folder / "out").run()
    return [float(t.vacancy_diffusivity).hex() for t in result.transport.values()]


def report(folder: Path) -> Any:
    """``ase-kinoson report``."""
    build_report(folder / "out")
    return None


def _square(composition: dict[str, float]) -> ak.JumpNetwork:
    atoms = Atoms("Cu", cell=[1.0, 1.0, 8.0], pbc=(True, True, False))
    alloy = ak.Alloy.from_atoms(atoms, {"Cu": composition})
    return ak.JumpNetwork.from_supercell(alloy.supercell((3, 3, 1)))


def _rates(composition: dict[str, float]) -> ak.SpeciesRates:
    return ak.SpeciesRates({s: 0.1 if s == "Ag" else 1.0 for s in composition})


def points(folder: Path) -> Any:
    """A composition map."""
    x = [{"Ag": k / 3, "Cu": 1.0 - k / 3} for k in range(4)]
    x = [{s: v for s, v in one.items() if v > 0} for one in x]
    effort = MapSettings(n_chains=16, sweeps=2, n_rounds=2, n_jumps=32, n_walkers=16, n_resamples=20)
    found = composition_map(
        _square({"Ag": 0.5, "Cu": 0.5}), _rates, x, temperature_K=500.0, settings=effort, folder=folder / "points"
    )
    found.save(folder / "map.json")
    found.write_csv(folder / "map.csv")
    return [v.hex() for pair in found.values("vacancy") for v in pair.tolist()]


def rounds(folder: Path) -> Any:
    """Rounds of active learning, with a store."""
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    cell = alloy.supercell(2)
    network = ak.JumpNetwork.from_supercell(cell)
    energy = ak.PairEnergy.from_interactions(cell, {("Cu", "Ni"): 0.01})
    model = ak.PairBarriers(energy, {"Cu": 0.75, "Ni": 0.9}).bind(network)
    pool = ak.sample_states(cell, 6, method="monte-carlo", model=energy, temperature_K=900.0, seed=1, sweeps=10)
    found = active_barriers(
        pool,
        network,
        EMT,
        temperature_K=900.0,
        models=model,
        fit=None,
        relative_error=None,
        max_barriers=6,
        batch=2,
        store=folder / "chosen.db",
        settings=ak.SaddleSettings(verify=False, fmax_initial=0.05, fmax_final=0.1, fmax_saddle=0.1),
    )
    return [
        [[r.value.hex(), r.error.hex(), r.force_calls] for r in found.history],
        [[int(v) for v in row] for row in found.chosen],
        float(found.diffusivity["vacancy"]).hex(),
    ]


def walks(folder: Path) -> Any:
    """Kinetic Monte Carlo with a checkpoint after every window."""
    trajectories.CHECKPOINT_SECONDS = 0.0
    jumps = _square({"Ag": 0.5, "Cu": 0.5})
    gas = _rates({"Ag": 0.5, "Cu": 0.5})
    states = ak.sample_states(jumps.supercell, 16, seed=0)
    found = ak.run_kmc(
        states, jumps, gas, 500.0, n_jumps=4096, n_walkers=16, seed=4, n_resamples=20, checkpoint=folder / "walk.npz"
    )
    return [float(found.vacancy_diffusivity).hex(), float(found.vacancy_diffusivity.error).hex()]


def stream(folder: Path) -> Any:
    """States into files, and their kinosons into others."""
    jumps = _square({"Ag": 0.5, "Cu": 0.5})
    gas = _rates({"Ag": 0.5, "Cu": 0.5})
    if not (folder / "states" / "states.json").exists():  # as the page of docs says: what is not whole is written anew
        shutil.rmtree(folder / "states", ignore_errors=True)
        write_states(folder / "states", split_states(ak.sample_states(jumps.supercell, 60, seed=0), 10))
    if not (folder / "kinosons" / "kinosons.json").exists():
        shutil.rmtree(folder / "kinosons", ignore_errors=True)
    else:
        return "done"
    found = stream_transport(
        read_states(folder / "states", jumps.supercell), jumps, gas, kinosons=folder / "kinosons", n_resamples=20
    )
    return [float(found.vacancy_diffusivity).hex(), float(found.vacancy_diffusivity.error).hex()]


JOBS = {"study": study, "report": report, "points": points, "rounds": rounds, "walks": walks, "stream": stream}
