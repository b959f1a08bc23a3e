"""One small good file of every binary or JSON kind that the package writes, made once."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import bulk

from ase_kinoson.barriers.archive import save_barriers
from ase_kinoson.barriers.carrier_network import CarrierNetwork, NetworkEnergy
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.ensemble import BarrierEnsemble
from ase_kinoson.barriers.kra import KraModel
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.barriers.saddle import Hop, Host, JumpResult, StateResult
from ase_kinoson.barriers.store import BarrierStore, Fingerprint
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment

__all__ = ["cell_of", "files_of", "fingerprint_of", "gas_of", "model_of", "network_of", "states_of", "walkers"]


@cache
def network_of(parent: str = "Cu") -> JumpNetwork:
    """Jumps of a cell of 32 (fcc) or 16 (bcc) sites."""
    species = {"Cu": ("Cu", "Ni"), "Fe": ("Fe", "Cr")}[parent]
    alloy = Alloy.from_atoms(bulk(parent, cubic=True), {parent: dict.fromkeys(species, 0.5)})
    return JumpNetwork.from_supercell(alloy.supercell((2, 2, 2)))


def cell_of(parent: str = "Cu"):
    """Its supercell."""
    return network_of(parent).supercell


def fingerprint_of(parent: str = "Cu") -> Fingerprint:
    """Of a store of these jumps."""
    return Fingerprint.of(cell_of(parent), network_of(parent), calculator="EMT", parameters={"asap_cutoff": False})


@cache
def states_of(n: int = 3, parent: str = "Cu") -> States:
    """States with a vacancy each."""
    rng = np.random.default_rng(4)
    cell = cell_of(parent)
    rows = []
    for _ in range(n):
        row = rng.integers(1, 3, cell.n_sites).astype(np.int8)
        row[rng.integers(cell.n_sites)] = 0
        rows.append(row)
    return States.from_occupations(cell, rows, weights=rng.uniform(0.5, 1.5, n))


def fill_store(path: Path, parent: str = "Cu", *, n_jumps: int = 4) -> None:
    """Two states with some jumps each; one search failed, and one jump has its reverse."""
    cell, network = cell_of(parent), network_of(parent)
    rng = np.random.default_rng(1)
    store = BarrierStore(path, fingerprint_of(parent))
    first = states_of(1, parent).occupations[0]
    start = int(np.flatnonzero(first == 0)[0])
    end = int(network.targets(np.array([start]))[0, 0])
    second = first.copy()
    second[[start, end]] = second[[end, start]]
    saddle = 0.8
    for row, carrier, energy in ((first, start, 0.1), (second, end, 0.15)):
        host = Host.from_occupation(cell, row)
        (key,) = States.from_occupations(cell, row[None]).keys
        places = host.positions + rng.normal(scale=0.05, size=host.positions.shape)
        store.write_state(
            key, host, StateResult("ok", "", places, energy, 0.004, 9, ("relaxed",), 1.5), carrier=carrier
        )
        targets = network.targets(np.array([carrier]))[0]
        back = int(np.flatnonzero(targets == (start if carrier == end else end))[0])
        for jump in dict.fromkeys((back, *range(n_jumps - 1))):
            hop = Hop.from_jump(network, host, carrier, jump)
            final = 0.25 - energy if jump == back else energy + float(rng.normal(scale=0.1))
            top = saddle if jump == back else final + 0.7 + float(rng.uniform(0, 0.2))
            more: dict[str, Any] = {"verify_calls": 5, "descents": "both-ends", "n_unstable": 1}
            more |= {"prefactor": 5e12, "reverse_prefactor": 7e12}
            result = JumpResult(
                "ok", "", energy, final, top, 0.011, 0.0037, 16, ("a", "b"), places + 0.01, places - 0.01, 2.5, **more
            )
            if jump == n_jumps - 2 and carrier == end:
                result = JumpResult("not-converged", "largest force 0.3", energy, force_calls=88, path=("a",))
            store.write_jump(key, jump, host, hop, result, carrier=carrier, target=int(targets[jump]))


@cache
def model_of(parent: str = "Cu", *, hidden: int = 4, carrier: bool = True, seed: int = 3) -> BarrierModel:
    """A model of random weights: as large as one that was fitted."""
    network = network_of(parent)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    bond = float(network.lengths.min())
    reach = 1.6 * bond
    clusters = PairClusters.build(
        network.supercell, cutoff=reach, network=network, triplet_cutoff=1.2 * bond if carrier else 0.0
    )
    energy: Any = PairEnergy(clusters, rng.normal(scale=0.02, size=clusters.n_features), 0.3)
    if carrier:
        around = CarrierNetwork.build(CarrierEnvironment.build(network, cutoff=reach), hidden=2, layers=1)
        for net in around.networks:
            net.double()
        energy = NetworkEnergy(energy, around)
    kra = KraModel.build(JumpEnvironment.build(network, cutoff=reach), 2, hidden=hidden, layers=1)
    with torch.no_grad():
        for net in kra.networks:
            net.double()
            net.mean.copy_(torch.tensor([0.6, 0.7]))
            if hidden:
                net.readout.normal_(0, 0.01)
    return BarrierModel(network, energy, kra, {"n_barriers": 12, "training_keys": ["a", "b"]})


def _relaxation(parent: str):
    from ase_kinoson.kinosons.relaxation import Relaxation

    made = Relaxation.create(network_of(parent), lookahead=0, cutoff=3.0, hidden=4, n_blocks=1, seed=2)
    made.report = {"n_training_states": 7}
    return made


def gas_of():
    """Rates of a lattice gas."""
    from ase_kinoson.kinetics.lattice_gas import SpeciesRates
    from ase_kinoson.kinetics.rates import Rates

    return Rates.of(SpeciesRates({"Cu": 1e9, "Ni": 3e9}), network_of(), temperature_K=900.0)


def walkers(seed: int = 5):
    """A run of kinetic Monte Carlo of a few walkers."""
    from ase_kinoson.kinetics.kmc import KineticMonteCarlo

    return KineticMonteCarlo(states_of(3), network_of(), gas_of(), n_walkers=4, seed=seed)


def barriers_of(parent: str = "Cu") -> Barriers:
    """Barriers of the states."""
    states, network = states_of(3, parent), network_of(parent)
    rng = np.random.default_rng(9)
    shape = (len(states), network.n_jumps)
    start = rng.normal(size=shape[0])
    end = start[:, None] + rng.normal(scale=0.1, size=shape)
    saddle = np.maximum(end, start[:, None]) + rng.uniform(0.4, 0.8, shape)
    return Barriers.from_arrays(
        states,
        network,
        saddle - start[:, None],
        reverse_barrier=saddle - end,
        energy_initial=start,
        energy_final=end,
    )


@cache
def files_of(kind: str, parent: str = "Cu") -> dict[str, bytes]:
    """Contents of the files of one kind, by name."""
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        MAKERS[kind](folder, parent)
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _kinosons(folder: Path, parent: str) -> None:
    from ase_kinoson.kinosons.kinoson_files import close_folder, write_table
    from ase_kinoson.kinosons.table import KinosonTable

    rng = np.random.default_rng(7)
    for chunk in range(2):
        n = 12
        columns = {
            "state": np.arange(n),
            "jump": np.arange(n) % 4,
            "group": np.arange(n) // 3,
            "weight": rng.uniform(size=n),
            "species": np.array(["Cu", "Ni"] * (n // 2)),
            "barrier": rng.uniform(0.5, 1, n),
            "displacement": rng.uniform(2, 3, n),
            "vacancy": rng.uniform(size=n),
            "kinoson_vacancy": rng.uniform(size=n),
            "tracer_Cu": rng.uniform(size=n),
            "tracer_Ni": rng.uniform(size=n),
        }
        write_table(folder, KinosonTable(columns, {"barrier": "eV"}), chunk, 0)
    close_folder(folder, weight=11.0, files=2, units={"barrier": "eV"})


def _states(folder: Path, parent: str) -> None:
    from ase_kinoson.kinosons.state_chunks import split_states, write_states

    write_states(folder, split_states(states_of(4, parent), 2))


def _checkpoint(folder: Path, parent: str) -> None:
    run = walkers()
    run.run(5)
    run.save(folder / "run.npz")


def _stage(folder: Path, parent: str) -> None:
    from ase_kinoson.stages import save_barriers as save_stage

    save_stage(folder / "stages" / "barriers-training.npz", barriers_of(parent))


def _summary(folder: Path, parent: str) -> None:
    import json

    from ase_kinoson.seals import seal

    number = {"value": 1.23456789e-13, "error": 4.5e-15, "unit": "m^2/s", "kind": "bound"}
    data = {"format": "ase_kinoson.summary/1", "title": "a study", "temperatures": [{"temperature": number}]}
    data |= {"versions": {"ase-kinoson": "0.1.0"}, "warnings": ["alloy: some words"], "files": {}}
    (folder / "summary.json").write_text(json.dumps(seal(data), indent=1))


def _ensemble(folder: Path, parent: str) -> None:
    members = tuple(model_of(parent, seed=s) for s in (3, 4))
    BarrierEnsemble(members, 1.5, {"note": "random"}).save(folder / "models")


def _mson(folder: Path, parent: str) -> None:
    barriers_of(parent).states.save(folder / "states.json")


MAKERS = {
    "store": lambda folder, parent: fill_store(folder / "barriers.db", parent),
    "model": lambda folder, parent: model_of(parent).save(folder / "model"),
    "linear model": lambda folder, parent: model_of(parent, hidden=0, carrier=False).save(folder / "model"),
    "ensemble": _ensemble,
    "relaxation": lambda folder, parent: _relaxation(parent).save(folder / "relaxation"),
    "archive": lambda folder, parent: save_barriers(folder / "some.npz", barriers_of(parent)),
    "stage": _stage,
    "states": _states,
    "kinosons": _kinosons,
    "checkpoint": _checkpoint,
    "summary": _summary,
    "mson": _mson,
}
"""By kind: writes the files of one kind into a folder."""
