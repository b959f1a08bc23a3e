"""Environments of the carrier, before and after every jump, of many states."""

from __future__ import annotations

import numpy as np

from ase_kinoson.bench.cases import five_species, random_states
from ase_kinoson.bench.machine import peak_memory_MB, resident_MB
from ase_kinoson.bench.row import Figure, Row, Target, seconds, with_limit
from ase_kinoson.bench.timing import in_turns
from ase_kinoson.crystal.environment import CarrierEnvironment

__all__ = ["environments_row"]

STATES = 100_000
"""The number that the target is for."""

REACH = 2.5
"""Cutoff in units of the jump: six shells of fcc, 86 sites."""


def environments_row(quick: bool) -> Row:
    """Species around the carrier of every state and of the states one jump away."""
    n = STATES // 20 if quick else STATES
    network = five_species(4)
    cell = network.supercell
    environment = CarrierEnvironment.build(network, cutoff=REACH * float(network.lengths.min()))
    n_env = environment.classes[0].n_sites
    some = random_states(cell, 1000)
    rng = np.random.default_rng(0)
    pick = rng.integers(len(some), size=n)
    occupations, carriers = some.occupations[pick], some.carriers[pick]
    before = resident_MB()
    codes = environment.jump_occupants(network, occupations, carriers)
    after = peak_memory_MB()
    source = np.ones_like(codes)
    found = in_turns(
        {
            "ours": lambda: environment.jump_occupants(network, occupations, carriers),
            "copy": source.copy,
        }
    )
    scale = STATES / n
    took = seconds("all environments", found["ours"], per=1.0 / scale, target=Target(5.0, at_least=False))
    figures = [with_limit(took, "copying the result", found["copy"].median * scale)]
    if after is not None and before is not None:
        memory = (after - before) * scale / 1e3
        figures.append(Figure("memory beyond the states", memory, "GB", target=Target(1.0, at_least=False)))
    notes = [
        f"The result is {codes.nbytes * scale / 1e6:.0f} MB, one byte per site. The memory is the "
        "growth of the process in the first call, the result included."
    ]
    if quick:
        notes.append(f"Measured with {n} states and scaled up to {STATES}: the work is linear in the states.")
    return Row(
        "environments",
        f"{STATES} states × {1 + network.n_jumps} carriers × {n_env} sites, {cell.n_sites} sites in a cell.",
        tuple(figures),
        "Random reads of single occupants: each state lies in the nearest cache, its indices do not.",
        tuple(notes),
    )
