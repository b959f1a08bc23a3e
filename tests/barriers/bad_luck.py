"""A small study, and calculators for which things go wrong; importable in other processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.crystal import Alloy, JumpNetwork, States

ASKED = {0: [0, 1, 3, 5, 7], 1: [1, 4, 8], 2: [0]}
N_ROWS = 3 + 9
CHEAP = SaddleSettings(verify=False)

PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what runs in the background deaf to it
from ase.calculators import emt
from ase_kinoson.barriers.campaign import compute_barriers
from tests.barriers.bad_luck import CHEAP, small_study
class EMT(emt.EMT):
    def calculate(self, *arguments, **options):
        time.sleep(float(sys.argv[2]))
        super().calculate(*arguments, **options)
asked = {asked}
found = compute_barriers(*small_study(3), EMT, store=sys.argv[1], jumps=asked, settings=CHEAP)
print(found.settings["cost"]["computed_now"], repr(sum(found.barrier[n, k] for n in asked for k in asked[n])))
"""


def small_study(n=2):
    """``n`` states of 31 atoms of Cu-Ni, and their jumps."""
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    cell = alloy.supercell((2, 2, 2))
    rng = np.random.default_rng(11)
    codes = np.concatenate([[cell.species.index(s)] * n for s, n in cell.counts[0].items()])
    rows = [np.insert(rng.permutation(codes), place, 0) for place in (0, 9, 17, 30)[:n]]
    return States.from_occupations(cell, rows), JumpNetwork.from_supercell(cell)


def same(one, other):
    """All numbers are the same to the last bit."""
    for name in ("barrier", "reverse_barrier", "energy_initial", "energy_final", "status", "force_calls", "fmax"):
        a, b = getattr(one, name), getattr(other, name)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name


def trap(states, network, jump):
    """The atom of state 0 that makes a jump, and its site."""
    site = int(network.targets(states.carriers)[0, jump])
    return int((states.occupations[0, :site] > 0).sum()), states.supercell.positions[site].tolist()


class Trapped(EMT):
    """EMT with which something happens while one atom is off its site, if a file exists."""

    def __init__(self, atom, ideal, how, flag):
        super().__init__()
        self.trap = (atom, np.array(ideal), how, flag)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        atom, ideal, how, flag = self.trap
        if how == "collapse":  # a spring between it and all others pulls it home
            self.centre = getattr(self, "centre", self.atoms.positions.mean(axis=0))
            away = self.atoms.positions[atom] - ideal - (self.atoms.positions.mean(axis=0) - self.centre)
            self.results["energy"] += 4.0 * (away**2).sum()
            self.results["forces"][atom] -= 8.0 * away
            self.results["forces"] += 8.0 * away / len(self.atoms)
        if np.linalg.norm(self.atoms.positions[atom] - ideal) < 0.8 or not os.path.exists(flag):
            return
        if how == "die":
            os._exit(9)
        if how == "hang":
            try:
                time.sleep(60)
            except Exception:  # as careless code does
                pass
        if how == "raise":
            raise RuntimeError("did not converge")


def start(path, pause=0.005):
    """A process that computes the jumps ``ASKED``; it prints how many rows it computed, and the sum of the barriers.

    Each force call takes ``pause`` seconds longer than it must.
    """
    root = Path(__file__).parents[2]
    code = PROGRAM.format(asked=ASKED)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(pause)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
