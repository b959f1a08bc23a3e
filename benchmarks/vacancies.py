"""Vacancy fraction of alloys: against enumeration, and of Cu70Ni30 with EMT at three temperatures.

    python benchmarks/vacancies.py [--cases enumeration alloy] [--arrangements 24] [--store vacancies.db]

Enumeration: all 65,536 decorations of a 4x4 square lattice without a vacancy and all 32,768 with one at a given site,
at fixed composition, and at fixed chemical potentials (zero grand potential of the crystal without vacancies); larger
cells tell how far the fixed composition of a small cell is from an infinite crystal. Alloy: 108 sites, lattice
parameter without stress, relaxed energies. Prints one JSON object; numbers carry their standard errors.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.optimize import brentq, fsolve

import ase_kinoson as ak
from ase_kinoson.units import BOLTZMANN_EV_PER_K

T_LATTICE = 900.0
PAIRS = np.array([[0.0, 0.02, -0.05], [0.02, -0.30, -0.36], [-0.05, -0.36, -0.34]])
"""Nearest-neighbour energies of vacancy, Cu and Ni, eV."""


def square(n: int, copper: float = 0.5) -> ak.Supercell:
    """n×n sites of a square lattice."""
    atoms = Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0))
    return ak.Alloy.from_atoms(atoms, {"Cu": {"Cu": copper, "Ni": 1 - copper}}).supercell((n, n, 1))


def decorations(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Energies and numbers of Cu of all decorations, without a vacancy and with one at site 0."""
    sites = np.arange(n * n).reshape(n, n)
    bonds = np.concatenate([[sites.ravel(), np.roll(sites, -1, axis).ravel()] for axis in (0, 1)], axis=1)

    def all_of(free: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(list(itertools.product([1, 2], repeat=free)), dtype=np.int8)
        rows = np.pad(rows, ((0, 0), (n * n - free, 0)))
        return PAIRS[rows[:, bonds[0]], rows[:, bonds[1]]].sum(axis=1), (rows == 1).sum(axis=1)

    return *all_of(n * n), *all_of(n * n - 1)


def enumerated(n: int, copper: float, t: float) -> dict[str, float]:
    """c_v from sums over all decorations."""
    beta, sites = 1 / (BOLTZMANN_EV_PER_K * t), n * n
    e0, cu0, e1, cu1 = decorations(n)
    own = round(copper * sites)

    def mean(e: np.ndarray, cu: np.ndarray, number: int) -> float:
        return float(np.exp(-beta * e[cu == number]).mean())

    g = -np.log(mean(e0, cu0, own)) / beta / sites
    gap = -0.5 / beta * np.log(mean(e0, cu0, own + 1) / mean(e0, cu0, own - 1))
    mu = {"Cu": g + (1 - copper) * gap, "Ni": g - copper * gap}
    by = {s: mean(e1, cu1, own - (s == "Cu")) / mean(e0, cu0, own) * float(np.exp(-beta * mu[s])) for s in ("Cu", "Ni")}

    def conditions(m: np.ndarray) -> list[float]:
        log = -beta * e0 + beta * (m[0] * cu0 + m[1] * (sites - cu0))
        z = np.exp(log - log.max())
        return [(log.max() + np.log(z.sum())) / sites, float((z * cu0).sum() / z.sum() / sites - copper)]

    m = fsolve(conditions, [mu["Cu"] + np.log(copper) / beta, mu["Ni"] + np.log(1 - copper) / beta], xtol=1e-12)
    grand = float(np.exp(-beta * e1 + beta * (m[0] * cu1 + m[1] * (sites - 1 - cu1))).sum())
    return {"fixed_composition": copper * by["Cu"] + (1 - copper) * by["Ni"], "fixed_potentials": grand, **by}


def number(q: ak.Quantity) -> list[float]:
    """Value and error."""
    return [float(q.value), float(q.error)]


def enumeration() -> dict[str, Any]:
    """Estimates beside enumeration, then in larger cells."""
    found: dict[str, Any] = {"temperature_K": T_LATTICE}
    names = {
        (a, b): PAIRS[i, j] for i, a in enumerate(("X", "Cu", "Ni")) for j, b in enumerate(("X", "Cu", "Ni")) if i <= j
    }
    for copper in (0.5, 0.25):
        rows: dict[str, Any] = {"enumerated_16": enumerated(4, copper, T_LATTICE)}
        for n, arrangements, sites in ((4, 800, None), (8, 300, 32), (12, 200, 64)):
            cell = square(n, copper)
            made = ak.vacancy_formation(
                cell,
                ak.PairEnergy.from_interactions(cell, names),
                ensemble="equilibrium",
                temperatures_K=[T_LATTICE],
                arrangements=arrangements,
                sites=sites,
                swaps=32,
                seed=1,
            )
            by = {s: number(q) for s, q in made.by_species(T_LATTICE).items()}
            rows[f"estimated_{n * n}"] = {"vacancy_fraction": number(made.at(T_LATTICE)), **by}
        found[f"Cu{copper:g}"] = rows
    return found


def lattice_parameter(composition: dict[str, float], seed: int = 0) -> float:
    """Lattice parameter (Å) at which random arrangements are without stress."""

    def pressure(a: float) -> float:
        cell = ak.Alloy.from_atoms(bulk("Cu", a=a, cubic=True), {"Cu": composition}).supercell((3, 3, 3))
        atoms = cell.to_atoms(np.repeat(np.arange(1, 3), [76, 32])[np.random.default_rng(seed).permutation(108)])
        atoms.calc = EMT()
        return float(atoms.get_stress()[:3].mean())

    return float(brentq(pressure, 3.4, 3.7, xtol=1e-4))


def alloy(arrangements: int, store: str | None) -> dict[str, Any]:
    """Cu70Ni30, EMT."""
    composition = {"Cu": 0.7, "Ni": 0.3}
    a = lattice_parameter(composition)
    cell = ak.Alloy.from_atoms(bulk("Cu", a=a, cubic=True), {"Cu": composition}).supercell((3, 3, 3))
    began = time.perf_counter()
    made = ak.vacancy_formation(cell, EMT, arrangements=arrangements, sites=12, swaps=8, store=store, seed=0)
    seconds = time.perf_counter() - began
    report = {k: v for k, v in made.samples[0].report.items() if k != "reason"}
    return {
        "lattice_parameter_A": a,
        "seconds": round(seconds, 1),
        "energies": report,
        "pressure_energy_eV": made.pressure_energy,
        **made.as_dict([800.0, 1000.0, 1200.0]),
    }


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["enumeration", "alloy"], choices=["enumeration", "alloy"])
    parser.add_argument("--arrangements", type=int, default=24)
    parser.add_argument("--store", default=None)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    if "enumeration" in given.cases:
        found["enumeration"] = enumeration()
    if "alloy" in given.cases:
        found["Cu70Ni30"] = alloy(given.arrangements, given.store)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
