"""Training and kinetic Monte Carlo on a GPU, against two cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ase_kinoson.bench.cases import SYNTHETIC, five_species, random_states, synthetic_model
from ase_kinoson.bench.machine import two_threads
from ase_kinoson.bench.relaxation import field_step, training_step
from ase_kinoson.bench.row import Figure, Row, Target, rate
from ase_kinoson.bench.timing import REPEATS, sample
from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.kinetics.device_kmc import DeviceKineticMonteCarlo
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.rates import Rates

__all__ = ["compare", "gpu_row"]

NAME = "gpu"
WHAT = "Training and kinetic Monte Carlo on a GPU, against the same on two cores, each with the batch that suits it."
TARGET = 50.0


def gpu_row(quick: bool) -> Row:
    """Nothing where there is no GPU."""
    if not torch.cuda.is_available():
        return Row(NAME, WHAT, notes=("No GPU here that torch can use.",))
    states, walkers = (8192, 8192) if quick else (32_768, 65_536)
    figures = compare(torch.device("cuda"), states=states, samples=states // 64, walkers=walkers, jumps=8)
    return Row(
        NAME,
        WHAT,
        figures,
        "By arithmetic, not looked at: memory traffic of the activations (training), and of the tables of the networks "
        "and the occupants (kinetic Monte Carlo).",
        (SYNTHETIC, f"GPU: {torch.cuda.get_device_name()}. Times end when the GPU has finished."),
    )


def compare(
    device: torch.device,
    *,
    states: int,
    samples: int,
    walkers: int,
    jumps: int,
    repeats: int = REPEATS,
    fewer: int = 1,
) -> tuple[Figure, ...]:
    """Rates on a device and on two cores, and their ratios.

    Parameters
    ----------
    device
        Where the large batches go.
    states, samples, walkers
        Batches there: states of y, samples of look-ahead, walkers.
    jumps
        Of each walker.
    repeats
        Of every time.
    fewer
        Divides the batches of the two cores, for trials.
    """
    threads = two_threads()
    torch.set_num_threads(threads)
    figures: list[Figure] = []

    def both(name: str, unit: str, there: _Work, here: _Work, *, wanted: bool = True) -> None:
        found = []
        for where, work in ((device.type, there), (f"{threads} cores", here)):
            times = sample(partial(_finished, work.call, device), repeats=repeats)
            found.append(rate(f"{name}, {where}", times, work.amount, unit, threads=threads))
        target = Target(TARGET) if wanted else None
        ratio = Figure(f"{name}, ratio", found[0].value / found[1].value, "×", threads=threads, target=target)
        figures.extend([*found, ratio])

    network, place = five_species(4), str(device)
    environment = CarrierEnvironment.build(network)
    few = max(1, 256 // fewer)
    both(
        "y training step, width 24",
        "states/s",
        _Work(field_step(environment, network, 24, states, device=place)[0], states),
        _Work(field_step(environment, network, 24, few)[0], few),
    )
    few = max(1, 32 // fewer)
    both(
        "training step, one jump of look-ahead",
        "samples/s",
        _Work(training_step(network, "exact", samples, device=place), samples),
        _Work(training_step(network, "exact", few), few),
        wanted=False,
    )
    rates = Rates.of(synthetic_model(network), network, temperature_K=1173.0)
    few = max(1, 512 // fewer)
    begin = random_states(network.supercell, min(512, walkers))
    fast = DeviceKineticMonteCarlo(begin, network, rates, n_walkers=walkers, seed=0, device=device)
    slow = KineticMonteCarlo(begin, network, rates, n_walkers=few, seed=0)
    both(
        "learned kinetic Monte Carlo",
        "jumps/s",
        _Work(partial(fast.run, jumps), walkers * jumps),
        _Work(partial(slow.run, jumps), few * jumps),
    )
    return tuple(figures)


@dataclass(frozen=True)
class _Work:
    """Something to time, and how much of it there is."""

    call: Callable[[], Any]
    amount: int


def _finished(call: Callable[[], Any], device: torch.device) -> None:
    """Call, and wait until a GPU has done it."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
