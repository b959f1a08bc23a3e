"""Saddle searches with EMT: force calls, what a call costs beyond the calculator, and ASE's band beside it."""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import ase
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.mep import NEB
from ase.mep.neb import NEBOptimizer
from ase.optimize import BFGS, FIRE, LBFGS

from ase_kinoson.barriers.hop import Hop, Host, JumpResult, SaddleSettings, StateResult
from ase_kinoson.barriers.saddle import find_saddle, relax_state
from ase_kinoson.bench.cases import random_states
from ase_kinoson.bench.row import Figure, Limit, Peer, Row, Target
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["saddle_row"]

IMAGES = 5
"""Moving images of the band."""

BAND_STEPS = 300
"""The band is given up after these."""

OPTIMISERS = {"NEBOptimizer": NEBOptimizer, "LBFGS": LBFGS, "FIRE": FIRE}
"""What relaxes the band; the first needs the fewest calls and is the peer."""


class _Timed(EMT):
    """EMT that counts its calls and their time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.spent = 0, 0.0

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        super().calculate(*args, **kwargs)
        self.spent += time.perf_counter() - began
        self.calls += 1


def saddle_row(quick: bool) -> Row:
    """Barriers of Cu-Ni with EMT in a cell of 107 atoms."""
    n_jumps = 2 if quick else 6
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    network = JumpNetwork.from_supercell(alloy.supercell((3, 3, 3)))
    states, settings = random_states(network.supercell, 1), SaddleSettings()
    carrier = int(states.carriers[0])
    host = Host.from_occupation(network.supercell, states.occupations[0])
    start = relax_state(host, EMT(), settings=settings)
    hops = [Hop.from_jump(network, host, carrier, k) for k in range(0, 12, 12 // n_jumps)][:n_jumps]

    def search(hop: Hop) -> tuple[JumpResult, float, int, float]:
        """Result, time of all, calls and their time."""
        own = _Timed()
        began = time.perf_counter()
        found = find_saddle(host, hop, start, own, settings=settings, make_calculator=_Timed)
        return found, time.perf_counter() - began, own.calls, own.spent

    search(hops[0])
    found = [search(hop) for hop in hops]
    repeats = max(5, len(hops))
    timed = [search(hops[i % len(hops)]) for i in range(repeats)]
    beyond = [(total - spent) / calls for _, total, calls, spent in timed]
    inside = [spent / calls for _, _, calls, spent in timed]
    share = [100.0 * a / b for a, b in zip(beyond, inside, strict=True)]
    calls = [f.force_calls for f, *_ in found]
    searching = [f.search_calls for f, *_ in found]
    peer, others = _band_peer(host, hops, start, [f for f, *_ in found], quick=quick)
    overhead = Figure(
        "overhead per force call", statistics.median(share), "% of an EMT call", min(share), max(share), repeats,
        target=Target(5.0, at_least=False),
    )  # fmt: skip
    per_call = [1e3 * (x + y) for x, y in zip(beyond, inside, strict=True)]
    least = 1e3 * statistics.median(inside)
    own_time = Limit("the calculator's own time", least, least / statistics.median(per_call))
    figures = [
        Figure("force calls per barrier, checks included", float(statistics.median(calls)), "calls",
               min(calls), max(calls), len(calls)),
        Figure("force calls per barrier, search alone", float(statistics.median(searching)), "calls",
               min(searching), max(searching), len(calls), peer=peer),
        overhead,
        Figure("time per force call", statistics.median(per_call), "ms", min(per_call), max(per_call), repeats,
               limit=own_time),
    ]  # fmt: skip
    failed = [f.status for f, *_ in found if f.status != "ok"]
    notes = [
        f"{len(hops)} jumps of one state of Cu70Ni30 with one vacancy; the initial state is relaxed once "
        f"({start.force_calls} calls) and counted for neither side, end states are. Calls are counted, not timed: the "
        "smallest and the largest are those of single jumps."
    ]
    notes += others
    if failed:
        notes.append(f"{len(failed)} searches gave no barrier: {', '.join(sorted(set(failed)))}.")
    return Row(
        "saddle",
        "Saddle search with EMT, 107 atoms, defaults: 0.01 eV/Å at the saddle.",
        tuple(figures),
        "The calculator: what is done beside it costs a few per cent of even a cheap potential's time.",
        tuple(notes),
    )


def _band_peer(
    host: Host, hops: list[Hop], start: StateResult, found: list[JumpResult], *, quick: bool
) -> tuple[Peer, list[str]]:
    """The same jumps by ASE's climbing-image band: force calls, and how far the barriers are apart."""
    best, *others = OPTIMISERS
    name = f"ASE NEB ({IMAGES} images, improved tangent, climbing, {best})"
    theirs, ours, apart = [], [], []
    hops = hops[:1] if quick else hops
    for hop, own in zip(hops, found, strict=False):
        calls, barrier = band(host, hop, start, best)
        if barrier is not None and own.status == "ok":
            theirs.append(calls)
            ours.append(own.search_calls)
            apart.append(1e3 * abs(barrier - own.barrier))
    if not theirs:
        return Peer(name, ase.__version__, note=f"no band converged within {BAND_STEPS} steps"), []
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    note = f"barriers agree within {max(apart):.1f} meV"
    if len(theirs) < len(hops):
        note += f"; {len(hops) - len(theirs)} of {len(hops)} jumps left out, where one side gave no barrier"
    told = []
    for other in [] if quick else others:
        calls, barrier = band(host, hops[0], start, other)
        there = "no convergence" if barrier is None else f"{1e3 * abs(barrier - found[0].barrier):.1f} meV apart"
        told.append(f"The same band of the first jump with {other}: {calls} calls, {there}.")
    return Peer(name, ase.__version__, float(statistics.median(theirs)), ratio, note), told


def band(host: Host, hop: Hop, start: StateResult, optimiser: str) -> tuple[int, float | None]:
    """Force calls and barrier (eV; None if not converged) of a jump by ASE's band, its end relaxed by BFGS.

    The tolerances are those of :class:`SaddleSettings`. The band is relaxed to 0.1 eV/Å without a climbing image first,
    as is usual.
    """
    settings, calculator = SaddleSettings(), _Timed()
    first, last = host.atoms(start.positions), host.atoms(start.positions)
    last.positions[hop.mover] = host.positions[hop.mover] + hop.displacement
    last.calc = calculator
    BFGS(last, logfile=None).run(fmax=settings.fmax_final, steps=settings.max_relax_calls)
    images = [first, *(first.copy() for _ in range(IMAGES)), last]
    for image in images:
        image.calc = calculator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = NEB(images, method="improvedtangent", climb=False, allow_shared_calculator=True)
        path.interpolate("idpp")
        for climb, fmax in ((False, 0.1), (True, settings.fmax_saddle)):
            path.climb = climb
            converged = bool(OPTIMISERS[optimiser](path, logfile=None).run(fmax=fmax, steps=BAND_STEPS))
    calls = calculator.calls
    highest = max(float(image.get_potential_energy()) for image in images[1:-1])
    return calls, highest - start.energy if converged else None
