"""Fitting of a barrier model: linear energies and K, then a network on what each of them leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.barriers.carrier_network import CarrierNetwork, CarrierSamples, NetworkEnergy
from ase_kinoson.barriers.composition_range import mean_fractions
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.energy_fit import DEFAULT_REACH, EnergySet
from ase_kinoson.barriers.fitting import held_out_errors, split_groups
from ase_kinoson.barriers.invariant import TrainingPlan, single_thread
from ase_kinoson.barriers.kra import JumpSamples, KraModel
from ase_kinoson.barriers.training_sets import TrainingSet
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.device import device_of
from ase_kinoson.errors import BarrierError
from ase_kinoson.units import thermal_energy

__all__ = ["TEST", "TRAIN", "VALIDATION", "FitSettings", "fast_jumps", "fit_parts", "report_held_out", "split_sets"]

TRAIN, VALIDATION, TEST = 0, 1, 2

ENVIRONMENT_REACH = 2.3
"""Default distance from either end of a jump up to which K sees atoms, in units of the shortest jump."""

FAST = 0.1
"""Share of the jumps that counts as the fastest ones."""

WORTH = 0.02
"""Share of the error of ΔE that a network around the carrier must remove to be kept."""

DEFAULT_TEMPERATURE_K = 1000.0
"""Temperature of the report where the states have none."""


class _Movable(Protocol):
    """A model that can be used on other supercells."""

    def on(self, cell: Supercell) -> Any: ...


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted; see :meth:`~ase_kinoson.barriers.learned.BarrierModel.fit`."""

    hidden: int = 32
    layers: int = 1
    epochs: int = 30
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    dropout: float = 0.05
    batch_size: int | None = None
    energy_cutoff: float | None = None
    triplet_cutoff: float | None = None
    environment_cutoff: float | None = None
    test_fraction: float = 0.15
    validation_fraction: float = 0.15
    temperature_K: float | None = None
    device: str = "auto"


def split_sets(
    sets: Sequence[TrainingSet], validation_fraction: float, test_fraction: float, *, seed: int
) -> list[NDArray[np.int64]]:
    """Role of every state of every set: ``TRAIN``, ``VALIDATION`` or ``TEST``; groups stay together."""
    if not (0 <= validation_fraction and 0 <= test_fraction and validation_fraction + test_fraction < 1):
        raise BarrierError(
            f"found test_fraction={test_fraction} and validation_fraction={validation_fraction}; "
            f"expected at least 0 and a sum below 1; correct them"
        )
    groups = np.concatenate([s.states.groups for s in sets])
    _, validation, test = split_groups(groups, (validation_fraction, test_fraction), seed=seed)
    roles = np.full(len(groups), TRAIN)
    roles[validation], roles[test] = VALIDATION, TEST
    return np.split(roles, np.cumsum([len(s) for s in sets])[:-1])


def _pick(sets: Sequence[TrainingSet], roles: Sequence[NDArray], role: int) -> list[TrainingSet]:
    return [s.take(np.flatnonzero(r == role)) for s, r in zip(sets, roles, strict=True)]


def fit_parts(
    sets: Sequence[TrainingSet],
    roles: Sequence[NDArray[np.int64]],
    settings: FitSettings,
    *,
    seed: int,
    progress: bool = False,
) -> tuple[PairEnergy | NetworkEnergy, KraModel, dict[str, Any]]:
    """Fit energy and K; return both and how it went."""
    train, validation = _pick(sets, roles, TRAIN), _pick(sets, roles, VALIDATION)
    if not any((s.weights > 0).any() for s in train):
        raise BarrierError("found no valid barrier among the training states; expected some; compute more states")
    network = sets[0].network
    bond = float(network.lengths.min())
    hidden, where = settings.hidden, device_of(settings.device)
    pairs = PairEnergy.fit_sets(
        [
            EnergySet(s.states, s.network, s.energies, np.where(s.weights > 0, s.delta_e, np.nan), s.weights)
            for s in train
            if len(s)
        ],
        cutoff=settings.energy_cutoff,
        triplet_cutoff=settings.triplet_cutoff,
    ).on(network.supercell)
    environment = JumpEnvironment.build(network, cutoff=settings.environment_cutoff or ENVIRONMENT_REACH * bond)
    n_atoms = len(network.supercell.species) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kra = KraModel.build(environment, n_atoms, hidden=hidden, layers=settings.layers)
        reach = CarrierEnvironment.build(network, cutoff=settings.energy_cutoff or DEFAULT_REACH * bond)
        carrier = CarrierNetwork.build(reach, hidden=(hidden + 1) // 2, layers=settings.layers) if hidden else None
    plan = TrainingPlan(
        settings.epochs, settings.learning_rate, settings.weight_decay, settings.dropout, settings.batch_size, where
    )
    generator = torch.Generator().manual_seed(seed)
    total = settings.epochs * (len(kra.networks) + 1) if hidden else 0
    energy: PairEnergy | NetworkEnergy = pairs
    energy_report: dict[str, Any] = dict(pairs.report)
    with (
        tqdm(total=total, desc="barrier model", disable=not progress) as bar,
        single_thread(where.type == "cpu"),
    ):
        if carrier is not None and settings.epochs:
            own, check = (
                CarrierSamples.join([_carrier_samples(carrier, pairs, s) for s in p]) for p in (train, validation)
            )
            found = carrier.fit(own, check, plan, generator=generator, tick=bar.update)
            energy_report["network"] = found
            if found["best_epoch"] and _pays(found["validation_mae"]):
                energy = NetworkEnergy(pairs, carrier)
        reports = []
        samples = [[_kra_samples(kra, s) for s in p] for p in (train, validation)]
        for k, net in enumerate(kra.networks):
            jumps, other = (JumpSamples.join([s[k] for s in p]) for p in samples)
            one: dict[str, Any] = {"n_train": len(jumps.target), "n_validation": len(other.target)}
            if len(jumps.target):
                one.update(net.fit_linear(jumps))
                if hidden and settings.epochs:
                    one.update(net.fit_residual(jumps, other, plan, generator=generator, tick=bar.update))
            net.double().eval()
            reports.append(one)
    counts = [sum(int((s.weights > 0).sum()) for s in _pick(sets, roles, role)) for role in (TRAIN, VALIDATION, TEST)]
    groups = np.concatenate([s.states.groups for s in sets])
    report = {
        "seed": seed,
        "n_states": len(groups),
        "n_groups": len(np.unique(groups)),
        "n_barriers": sum(counts),
        "n_rejected": sum(s.n_rejected for s in sets),
        "n_train": counts[0],
        "n_validation": counts[1],
        "n_test": counts[2],
        "settings": {
            **asdict(settings),
            "energy_cutoff": pairs.clusters.cutoff,
            "triplet_cutoff": pairs.clusters.triplet_cutoff,
            "environment_cutoff": environment.cutoff,
        },
        "energy": energy_report,
        "kra": reports,
        "held_out": {},
        "compositions": [
            mean_fractions(s.states.occupations, np.full(len(s), 1.0 / len(s)), s.states.supercell.species)
            for s in sets
            if len(s)
        ],
        "training_keys": [key for s in (*train, *validation) for key in s.keys],
    }
    return energy, kra, report


def _pays(history: Sequence[float]) -> bool:
    """Whether the network of the energy is worth its time in Monte Carlo: validation errors before and after it."""
    return not history or min(history) < (1.0 - WORTH) * history[0]


def _carrier_samples(carrier: CarrierNetwork, pairs: PairEnergy, one: TrainingSet) -> CarrierSamples:
    states, cell = one.states, one.states.supercell
    left = one.delta_e - pairs.on(cell).jump_delta(states.occupations, states.carriers, one.network)
    left = np.where(one.weights > 0, left, 0.0)
    return carrier.on(cell).samples(states.occupations, states.carriers, one.network, left, one.weights)


def _kra_samples(kra: KraModel, one: TrainingSet) -> list[JumpSamples]:
    states = one.states
    return kra.on(one.network).samples(
        states.occupations, states.carriers, one.weights > 0, one.kra, one.weights, states.groups
    )


def report_held_out(
    source: _Movable,
    sets: Sequence[TrainingSet],
    roles: Sequence[NDArray[np.int64]],
    *,
    temperature_K: float | None = None,
) -> dict[str, Any]:
    """Errors on the test states: ``held_out`` by species, ``fast_jumps``; empty where there are none."""
    train, test = _pick(sets, roles, TRAIN), _pick(sets, roles, TEST)
    if not any((s.weights > 0).any() for s in test):
        return {"held_out": {}}
    found: dict[str, list[NDArray]] = {k: [] for k in ("barrier", "delta_e", "kra", "moving", "weights")}
    true: dict[str, list[NDArray]] = {k: [] for k in ("barrier", "delta_e", "kra")}
    for s in test:
        if len(s) == 0:
            continue
        seen = source.on(s.states.supercell).jump_energies(s.states.occupations, s.states.carriers)
        mask = s.weights > 0
        for name in true:
            found[name].append(getattr(seen, name)[mask])
            true[name].append(getattr(s, name)[mask])
        found["moving"].append(s.moving[mask])
        found["weights"].append(s.weights[mask])
    a = {k: np.concatenate(v) for k, v in found.items()}
    b = {k: np.concatenate(v) for k, v in true.items()}
    used = [s.weights > 0 for s in train]
    report = held_out_errors(
        sets[0].states.supercell.species,
        a["moving"],
        {k: (a[k], b[k]) for k in b},
        np.concatenate([s.moving[m] for s, m in zip(train, used, strict=True)]),
        {k: np.concatenate([getattr(s, k)[m] for s, m in zip(train, used, strict=True)]) for k in b},
        weights=a["weights"],
    )
    known = {s.states.temperature_K for s in sets} - {None}
    kelvin = temperature_K or (float(known.pop()) if len(known) == 1 else DEFAULT_TEMPERATURE_K)  # type: ignore[arg-type]
    return {"held_out": report, "fast_jumps": fast_jumps(a["barrier"], b["barrier"], kelvin)}


def fast_jumps(found: NDArray, true: NDArray, temperature_K: float) -> dict[str, float | int]:
    """Error of the logarithm of the rates of the fastest tenth of the jumps.

    ``log_rate_bias`` is the mean of ln(model / true), positive where the model is too fast. Of the jumps that are
    fastest in truth a model that shrinks towards the mean makes too slow ones; those that are fastest in the model
    look too fast by selection. Both are given.
    """
    n = max(1, round(FAST * len(true)))
    log = (true - found) / thermal_energy(temperature_K)
    by_truth, by_model = np.argsort(true, kind="stable")[:n], np.argsort(found, kind="stable")[:n]
    return {
        "temperature_K": float(temperature_K),
        "n": int(n),
        "log_rate_bias": float(log[by_truth].mean()),
        "log_rate_rms": float(np.sqrt((log[by_truth] ** 2).mean())),
        "log_rate_bias_chosen_by_model": float(log[by_model].mean()),
    }
