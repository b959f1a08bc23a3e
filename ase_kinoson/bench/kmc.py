"""Kinetic Monte Carlo, jumps per second: lattice gas and learned barriers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ase_kinoson.bench import peers
from ase_kinoson.bench.barriers import operations_per_barrier
from ase_kinoson.bench.cases import SYNTHETIC, five_species, gas_rates, random_states, synthetic_model
from ase_kinoson.bench.machine import PRODUCT, square_product, two_threads
from ase_kinoson.bench.row import Figure, Peer, Row, Target, rate, with_limit
from ase_kinoson.bench.timing import in_turns, sample
from ase_kinoson.compiled import can_compile
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lattice_gas import SpeciesRates
from ase_kinoson.kinetics.rates import Rates

__all__ = ["gas_row", "learned_row"]

GAS_WALKERS = 256
LEARNED_WALKERS = 512
PEER_CELL = 6
"""Side of the cell of the peer, in primitive cells: 216 sites, near our 256."""


def gas_row(quick: bool) -> Row:
    """Vacancy jumps in a random alloy of five species with one rate each."""
    torch.set_num_threads(1)
    network = five_species(4)
    cell = network.supercell
    rates = Rates.of(SpeciesRates(gas_rates()), network)
    states = random_states(cell, GAS_WALKERS)
    n_jumps = 256 if quick or not can_compile() else 2048
    jumps = GAS_WALKERS * n_jumps
    engines = {
        name: KineticMonteCarlo(states, network, rates, n_walkers=GAS_WALKERS, seed=0, follow_atoms=follow)
        for name, follow in (("with tracers", True), ("without tracers", False))
    }
    calls: dict[str, Callable[[], Any]] = {name: partial(e.run, n_jumps) for name, e in engines.items()}
    if can_compile():
        from ase_kinoson.kinetics.gas_loop import bare_loop

        codes = states.occupations[0].astype(np.int8)
        targets = network.targets(np.arange(cell.n_sites)).astype(np.int32)
        table = np.array([0.0, *gas_rates().values()])
        at, rng = [int(states.carriers[0])], np.random.default_rng(0)

        def bare() -> None:
            at[0] = bare_loop(codes, at[0], targets, table, rng.random(jumps))[0]

        calls["bare"] = bare
    found = in_turns(calls)
    figures, notes = [], []
    for name in engines:
        figure = rate(f"jumps {name}", found[name], jumps, "jumps/s", target=Target(1e7))
        if "bare" in found:
            figure = with_limit(figure, "a compiled loop that records nothing", jumps / found["bare"].median)
        figures.append(figure)
    if not can_compile():
        notes.append("Without numba jumps are made by NumPy, and there is no compiled loop to be the limit.")
    figures[1] = replace(figures[1], peer=_vacancy_peer(figures[1], quick))
    notes.append(
        "Followed are squared displacements over windows of many lengths, with errors; the loop that is the limit "
        "makes the same jumps of one walker, random numbers included. The Onsager package lists the transitions of the "
        f"whole cell ({12 * PEER_CELL**3} for {PEER_CELL**3} sites) before each jump of a pure crystal, in a compiled "
        "loop around its compiled sampler, and records nothing."
    )
    return Row(
        "gas-kmc",
        f"Lattice gas of five species, rates over four orders, {GAS_WALKERS} walkers on {cell.n_sites} sites, one "
        "core.",
        tuple(figures),
        "The chain of dependent look-ups of one jump (choose, exchange, look around); with tracers also the ladder of "
        "squared displacements.",
        tuple(notes),
    )


def _vacancy_peer(ours: Figure, quick: bool) -> Peer:
    """The vacancy of a pure crystal with the sampler of the Onsager package."""
    name = "onsager, MonteCarloSampler_jit.transitions"
    if not peers.installed("onsager") or not can_compile():
        return peers.absent(name, "onsager numba")
    if quick:
        return peers.left_out(name)
    n = 5000
    walk = peers.onsager_vacancy(PEER_CELL)
    found = sample(lambda: walk(n))
    value = n / found.median
    return Peer(name, peers.version("onsager"), value, ours.value / value, "pure crystal, all transitions listed anew")


def learned_row(quick: bool) -> Row:
    """Vacancy jumps with the barriers of a network."""
    network = five_species(4)
    model = synthetic_model(network)
    states = random_states(network.supercell, LEARNED_WALKERS)
    rates = Rates.of(model, network, temperature_K=1173.0)
    n_jumps = 4 if quick else 32
    jumps = LEARNED_WALKERS * n_jumps
    figures = []
    for threads in sorted({1, two_threads()}, reverse=True):
        torch.set_num_threads(threads)
        engine = KineticMonteCarlo(states, network, rates, n_walkers=LEARNED_WALKERS, seed=0)
        engine.run(2)
        found = in_turns({"ours": partial(engine.run, n_jumps), "product": square_product()})
        target = Target(50_000.0) if threads == 2 else None
        figure = rate("jumps", found["ours"], jumps, "jumps/s", threads=threads, target=target)
        work = network.n_jumps * operations_per_barrier(model, sums=False)
        best = PRODUCT / found["product"].median / work
        figures.append(with_limit(figure, "arithmetic of the last layers", best))
    return Row(
        "learned-kmc",
        f"Learned barriers of five species at 1173 K, 12 jumps each, {LEARNED_WALKERS} walkers on "
        f"{network.supercell.n_sites} sites, with tracers.",
        tuple(figures),
        "The last layers of the networks for the 12 barriers of every new state: what a jump leaves unchanged is kept.",
        (
            SYNTHETIC,
            f"The limit counts {12 * operations_per_barrier(model, sums=False) / 1e3:.0f} thousand operations per jump "
            "at the speed of a product of large matrices: the layers of both networks after their first sums, which a "
            "jump changes in few terms.",
        ),
    )


def scaled(network: JumpNetwork, n_walkers: int) -> KineticMonteCarlo:
    """A lattice gas on any cell, for growth with its size."""
    rates = Rates.of(SpeciesRates(gas_rates()), network)
    states = random_states(network.supercell, n_walkers)
    return KineticMonteCarlo(states, network, rates, n_walkers=n_walkers, seed=0)
