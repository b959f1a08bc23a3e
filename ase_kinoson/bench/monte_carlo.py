"""Metropolis Monte Carlo of occupations, exchanges per second."""

from __future__ import annotations

import warnings

import torch
from ase.build import bulk

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.bench import peers
from ase_kinoson.bench.row import Peer, Row, rate
from ase_kinoson.bench.timing import in_turns, ratio
from ase_kinoson.compiled import can_compile
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.kinetics.monte_carlo import MonteCarlo
from ase_kinoson.units import thermal_energy

__all__ = ["monte_carlo_row"]

SIDE = 6
"""Cells of 6³ primitive cells: 216 sites."""

PAIR, TEMPERATURE_K, CHAINS = -0.02, 1000.0, 64


def monte_carlo_row(quick: bool) -> Row:
    """Exchanges of unlike atoms in a binary alloy with nearest-neighbour pair energies."""
    torch.set_num_threads(1)
    alloy = Alloy.from_atoms(bulk("Cu", a=1.0), {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    cell = alloy.supercell(SIDE, of="primitive")
    energy = PairEnergy.from_interactions(cell, {("Ag", "Cu"): PAIR})
    engine = MonteCarlo(cell, energy, TEMPERATURE_K, n_chains=CHAINS, seed=0)
    steps = 100 if quick else 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calls = {"ours": lambda: engine.attempt(steps)}
        name = "onsager, MonteCarloSampler_jit.MCmoves"
        here = peers.installed("onsager") and can_compile()
        theirs = 20_000
        if here and not quick:
            attempt = peers.onsager_exchanges(SIDE, PAIR, thermal_energy(TEMPERATURE_K))
            calls["theirs"] = lambda: attempt(theirs)
        found = in_turns(calls)
    tried = float(engine._tried.sum()) / 6.0  # of unlike atoms, in the warm-up and five repeats
    peer = peers.left_out(name) if here else peers.absent(name, "onsager numba")
    if "theirs" in found:
        gain = ratio(found["theirs"], found["ours"]) * tried / theirs
        value = theirs / found["theirs"].median
        peer = Peer(name, peers.version("onsager"), value, gain, "the same lattice, size, pair energy and temperature")
    figure = rate("exchanges of unlike atoms", found["ours"], tried, "exchanges/s", peer=peer)
    return Row(
        "monte-carlo",
        f"Metropolis exchanges in a binary fcc alloy, nearest-neighbour pairs, {cell.n_sites} sites, {CHAINS} chains, "
        "one core.",
        (figure,),
        "Looking up two energies per neighbour, one number at a time; without numba, starting NumPy's operations for "
        "64 chains at a time.",
    )
