"""How accurate the engine is, on cases whose answer is known.

    python benchmarks/accuracy.py [--cases sr306 sr409 sr434 sr256 random exact] [--threads 2]

Slow/fast lattice gas on fcc, 8x8x8 primitive cells with one vacancy, against long kinetic Monte Carlo runs; a rugged
landscape of random barriers against kinetic Monte Carlo made here, with the number of jumps either needs; small cells
and dilute alloys that are exact. For the Cantor alloy see cantor.py. Seconds are wall time on this machine, with the
number of threads asked for.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace

import numpy as np
import torch
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.validation import run_validation

# Λ_FF/Λ_FF[0], tracer f_F, tracer f_S with standard errors (None: not known well), from long kinetic Monte Carlo runs
REFERENCE = {
    (306, 1e-3): ((0.562, 0.003), (0.257, 0.001), None),
    (409, 1e-3): ((0.0585, 0.0005), (0.0188, 0.0001), None),
    (434, 1e-3): ((0.0163, 0.0001), (0.0083, 0.0001), None),
    (256, 1e-2): ((0.722, 0.003), (0.421, 0.002), (0.915, 0.004)),
    (256, 1e-1): ((0.774, 0.004), (0.549, 0.002), (0.894, 0.003)),
    (256, 1.0): ((0.892, 0.004), (0.7836, 0.0002), (0.7833, 0.0002)),
}
FCC_8 = 4 * (1 - np.eye(3, dtype=int))
"""8x8x8 primitive cells in units of the conventional one."""


def slow_fast(n_slow: int, rate: float) -> tuple[ak.Supercell, ak.JumpNetwork, ak.SpeciesRates]:
    """511 atoms on 512 sites: copper is fast (rate 1), nickel slow."""
    share = n_slow / 511
    alloy = ak.Alloy.from_atoms(bulk("Cu", "fcc", a=np.sqrt(2.0)), {"Cu": {"Cu": 1 - share, "Ni": share}})
    cell = alloy.supercell(FCC_8)
    return cell, ak.JumpNetwork.from_supercell(cell), ak.SpeciesRates({"Cu": 1.0, "Ni": rate})


def random_states(cell: ak.Supercell, n: int, seed: int) -> ak.States:
    """Equilibrium states of a gas whose states all have the same energy."""
    made = ak.sample_states(cell, n, seed=seed)
    return ak.States.from_occupations(cell, made.occupations, carriers=made.carriers, ensemble="equilibrium")


def line(case: str, quantity: str, found: ak.Quantity | float, wanted: str, note: str = "") -> None:
    """Print one row of the table."""
    text = f"{found.value:.4g} ± {found.error:.2g}" if isinstance(found, ak.Quantity) else f"{found:.4g}"
    print(f"| {case} | {quantity} | {text} | {wanted} | {note} |", flush=True)


def run_slow_fast(
    n_slow: int,
    rate: float,
    *,
    n_steps: int,
    n_trajectories: int,
    tracers: bool,
    lookahead: int = 2,
    long_jumps: int = 0,
    **training: object,
) -> None:
    """Bound and corrected value of one slow/fast gas."""
    cell, jumps, gas = slow_fast(n_slow, rate)
    case = f"{n_slow} slow, rate {rate:g}"
    collective, f_fast, f_slow = REFERENCE[n_slow, rate]
    begin = time.perf_counter()
    # the rates of a gas are those of its atoms: gates have nothing to learn that clusters do not know
    y = ak.train_relaxation(
        cell,
        jumps,
        gas,
        states=random_states(cell, 2048, 11),
        lookahead=lookahead,
        closure_epochs=0,
        seed=0,
        **training,
    )
    trained = time.perf_counter() - begin
    begin = time.perf_counter()
    bound = ak.transport(random_states(cell, 4096, 12), jumps, gas, y)
    wanted = f"{collective[0]} ± {collective[1]}"
    line(case, "Λ_FF/Λ_FF[0], bound", bound.collective_correlation_factor["Cu"], wanted, f"training {trained:.0f} s")
    # the ladder finds what one jump more finds, and the plain relaxation is cheaper to follow
    plain = replace(y, scales=None)
    start = ak.transport(random_states(cell, n_trajectories, 13), jumps, gas, plain)
    result = ak.correct(
        start, gas, n_steps=n_steps, n_trajectories=n_trajectories, tracers=tracers, long_jumps=long_jumps, seed=1
    )
    note = (
        f"{result.ladder.n_jumps} jumps, {result.ladder.n_continued:.1e} of walkers,"
        f" rung {result.ladder.rungs['Cu'].chosen}, tail {100 * result.tail('Cu'):.1f} %,"
        f" {time.perf_counter() - begin:.0f} s, loose by {result.diagnosis.looseness['Cu'].value:.2f}"
    )
    line(case, "Λ_FF/Λ_FF[0], corrected", result.collective_correlation_factor["Cu"], wanted, note)
    if tracers:
        for name, symbol, known in (("f_F", "Cu", f_fast), ("f_S", "Ni", f_slow)):
            text = "" if known is None else f"{known[0]} ± {known[1]}"
            tail = f"tail {100 * result.tail(f'tracer {symbol}'):.1f} %"
            line(case, f"{name}, corrected", result.correlation_factor[symbol], text, tail)


def run_trajectories(n_slow: int, rate: float, *, n_jumps: int, n_walkers: int = 1024) -> None:
    """The same gas by kinetic Monte Carlo, tracers included."""
    cell, jumps, gas = slow_fast(n_slow, rate)
    case = f"{n_slow} slow, rate {rate:g}"
    collective, f_fast, f_slow = REFERENCE[n_slow, rate]
    begin = time.perf_counter()
    kmc = ak.run_kmc(random_states(cell, n_walkers, 31), jumps, gas, n_walkers=n_walkers, n_jumps=n_jumps, seed=3)
    note = f"{kmc.n_jumps_total:.1e} jumps, {time.perf_counter() - begin:.0f} s"
    factor = kmc.collective_correlation_factor["Cu"]
    line(case, "Λ_FF/Λ_FF[0], KMC", factor, f"{collective[0]} ± {collective[1]}", note)
    for name, symbol, known in (("f_F", "Cu", f_fast), ("f_S", "Ni", f_slow)):
        text = "" if known is None else f"{known[0]} ± {known[1]}"
        line(case, f"{name}, KMC", kmc.correlation_factor[symbol], text)


def run_random(std: float = 0.15, temperature_K: float = 1000.0) -> None:
    """Corrected value against kinetic Monte Carlo in a rugged landscape, and the jumps either needs."""
    alloy = ak.Alloy.from_atoms(bulk("Cu", "fcc", a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.5}})
    cell = alloy.supercell(4)
    jumps = ak.JumpNetwork.from_supercell(cell)
    gas = ak.RandomBarriers(mean=0.8, std=std, seed=0)
    begin = time.perf_counter()
    y = ak.train_relaxation(
        cell, jumps, gas, temperature_K=temperature_K, states=random_states(cell, 2048, 21), form="paths", seed=0
    )
    line("random barriers", "training", time.perf_counter() - begin, "", "s")
    states = random_states(cell, 1536, 22)
    begin = time.perf_counter()
    start = ak.transport(states, jumps, gas, y, temperature_K)
    line("random barriers", "Λ_vv/Λ_vv[0], bound", start.collective_correlation_factor["vacancy"], "")
    result = ak.correct(start, gas, n_steps=12, n_trajectories=1536, tracers=False, seed=1)
    ladder_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    kmc = ak.run_kmc(states, jumps, gas, temperature_K, n_walkers=1024, n_jumps=2560, tracers=False, seed=2)
    kmc_seconds = time.perf_counter() - begin
    one, two = result.vacancy_diffusivity, kmc.vacancy_diffusivity
    line("random barriers", "D_v, corrected / KMC", ak.Quantity(
        one.value / two.value, one.value / two.value * np.hypot(one.error / one.value, two.error / two.value), "1", ""
    ), "1 ± 0.01", f"tail {100 * result.tail('vacancy'):.1f} %")  # fmt: skip
    jumps_equal = kmc.n_jumps_total * (two.error / two.value) ** 2 / (one.error / one.value) ** 2
    line("random barriers", "jumps of KMC over those of the ladder at equal error",
         jumps_equal / result.ladder.n_jumps, "≥ 5",
         f"{result.ladder.n_jumps} and {kmc.n_jumps_total} jumps, errors {one.error / one.value:.4f} and "
         f"{two.error / two.value:.4f}; seconds at equal error {kmc_seconds * jumps_equal / kmc.n_jumps_total:.0f} "
         f"against {ladder_seconds:.0f}")  # fmt: skip


def main() -> None:
    """Run the cases asked for."""
    cases = ("exact", "sr306", "sr409", "sr434", "sr256", "random")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(cases), choices=cases)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", ak.KinosonWarning)
    print("| case | quantity | found | known | note |\n|---|---|---|---|---|")
    if "exact" in args.cases:
        checks = run_validation()
        line("exact and published numbers", "checks passed", sum(c.passed for c in checks), str(len(checks)))
    if "sr306" in args.cases:
        run_slow_fast(306, 1e-3, n_steps=64, n_trajectories=1024, tracers=False, cutoff=2.46, deeper=256)
        run_trajectories(306, 1e-3, n_jumps=32768)
    if "sr256" in args.cases:
        for rate in (1.0, 0.1, 0.01):
            run_slow_fast(256, rate, n_steps=64, n_trajectories=1024, tracers=False, lookahead=1)
            run_trajectories(256, rate, n_jumps=32768)
    if "random" in args.cases:
        run_random()
    for n_slow in (409, 434):
        if f"sr{n_slow}" in args.cases:
            # no local relaxation is tight here, and no short trajectory sees the way out of a cluster: walkers go on
            run_slow_fast(
                n_slow,
                1e-3,
                n_steps=64,
                n_trajectories=1024,
                tracers=True,
                lookahead=1,
                form="scaled-bias",
                long_jumps=131072,
            )


if __name__ == "__main__":
    main()
