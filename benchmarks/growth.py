"""Growth: cost per state from 10² to 10⁶ sites, and time and memory with the number of states.

    python benchmarks/growth.py [--quick] [--json]

The first table: fcc cells of five species with one vacancy and ever more sites; the cost per state, jump or barrier is
that of the surroundings and shall not grow. The second: transport of ever more states of one cell that come in chunks;
time shall be linear, and memory that of a chunk. Every line is measured in a process of its own: its peak memory is of
that line alone. Printed is the median of five repeats after one that is thrown away (second table: one run).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

SIDES = (3, 6, 14, 30, 63)
"""Conventional cells along an edge: 108 to 1,000,188 sites."""

STATES = (1_000, 10_000, 100_000, 1_000_000)
HEADS = {
    "cell": ("sites", "environments (µs/state)", "jump terms (ms/state)", "learned barriers (µs/barrier)",
             "lattice-gas KMC (ns/jump)", "its walkers", "states (MB)", "peak (MB)"),
    "states": ("states", "transport (µs/state)", "states as one array (MB)", "peak (MB)"),
}  # fmt: skip


def cell(side: int) -> list[float]:
    """One line of the first table."""
    import numpy as np
    import torch

    from ase_kinoson.bench.cases import filled, five_species, gas_rates, random_states, synthetic_model
    from ase_kinoson.bench.machine import peak_memory_MB
    from ase_kinoson.bench.timing import sample
    from ase_kinoson.crystal.environment import CarrierEnvironment
    from ase_kinoson.kinetics.kmc import KineticMonteCarlo
    from ase_kinoson.kinetics.lattice_gas import SpeciesRates
    from ase_kinoson.kinetics.rates import Rates
    from ase_kinoson.kinosons.functional import jump_terms
    from ase_kinoson.kinosons.relaxation import Relaxation

    torch.set_num_threads(1)
    network = five_species(side)
    n_sites = network.supercell.n_sites
    n = 32
    states = random_states(network.supercell, n)
    occupations, carriers = states.occupations, states.carriers
    environment = CarrierEnvironment.build(network)
    around = sample(lambda: environment.jump_occupants(network, occupations, carriers)).median / n
    relaxation = Relaxation.create(network, lookahead=0, hidden=24)
    filled(relaxation.field)
    terms = sample(lambda: jump_terms(relaxation, occupations, carriers)).median / n
    model = synthetic_model(network)
    barriers = sample(lambda: model.jump_energies(occupations, carriers)).median / n / network.n_jumps
    walkers = 16
    engine = KineticMonteCarlo(
        states, network, Rates.of(SpeciesRates(gas_rates()), network), n_walkers=walkers, seed=0, follow_atoms=False
    )
    jumps = sample(lambda: engine.run(20_000)).median / (20_000 * walkers)
    return [
        n_sites, 1e6 * around, 1e3 * terms, 1e6 * barriers, 1e9 * jumps, walkers, occupations.nbytes / 1e6,
        peak_memory_MB() or np.nan,
    ]  # fmt: skip


def states(n: int) -> list[float]:
    """One line of the second table."""
    import time
    import warnings

    import numpy as np
    import torch

    from ase_kinoson.bench.cases import five_species, gas_rates
    from ase_kinoson.bench.machine import peak_memory_MB
    from ase_kinoson.kinetics.lattice_gas import SpeciesRates
    from ase_kinoson.kinosons.state_chunks import sample_chunks
    from ase_kinoson.kinosons.streaming import stream_transport

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    network = five_species(3)
    gas = SpeciesRates(gas_rates())

    def run(m: int) -> None:
        chunks = sample_chunks(network.supercell, m, size=10_000, seed=1, method="random")
        stream_transport(chunks, network, gas, n_resamples=50)

    run(1_000)
    began = time.perf_counter()
    run(n)
    took = time.perf_counter() - began
    return [n, 1e6 * took / n, n * network.supercell.n_sites / 1e6, peak_memory_MB() or np.nan]


def in_process(kind: str, value: int) -> list[float]:
    """A line, measured by a fresh Python with one thread."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--line", kind, str(value)]
    out = subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True, check=True).stdout
    return list(json.loads(out.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave the largest ones out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--line", nargs=2, metavar=("KIND", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.line:
        kind, value = options.line
        print(json.dumps({"cell": cell, "states": states}[kind](int(value))))
        return
    less = -2 if options.quick else None
    found = {
        kind: [in_process(kind, n) for n in values[:less]] for kind, values in (("cell", SIDES), ("states", STATES))
    }
    if options.json:
        print(json.dumps({"heads": HEADS, **found}, indent=1, ensure_ascii=False))
        return
    for kind, lines in found.items():
        print("| " + " | ".join(HEADS[kind]) + " |")
        print("|" + "---|" * len(HEADS[kind]))
        for line in lines:
            print("| " + " | ".join(f"{x:,.0f}" if x >= 100 or x == int(x) else f"{x:.3g}" for x in line) + " |")
        print()


if __name__ == "__main__":
    main()
