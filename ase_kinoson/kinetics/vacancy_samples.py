"""`VacancySamples`: what it costs to take out one atom, or to change its species, in sampled arrangements."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.hop import SaddleSettings
from ase_kinoson.barriers.tasks import Work
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.perfect_crystal import PerfectChains, perfect_counts
from ase_kinoson.kinetics.relaxed_energies import RelaxedEnergies

__all__ = ["Changes", "Decorations", "VacancySamples", "draw_changes", "sample"]

RANDOM, EQUILIBRIUM = "random", "equilibrium"
"""Ensembles."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Changes:
    """Single atoms taken out or exchanged for another species.

    Attributes
    ----------
    arrangement : ndarray of int, shape (n,)
        Row of the arrangement that is changed.
    site : ndarray of int, shape (n,)
    old, new : ndarray of int, shape (n,)
        Species codes; 0 is a vacancy.
    energy : ndarray, shape (n,)
        Energy after minus energy before, eV; NaN where it could not be computed.
    """

    arrangement: NDArray[np.int64]
    site: NDArray[np.int64]
    old: NDArray[np.int64]
    new: NDArray[np.int64]
    energy: NDArray[np.float64]

    def applied(self, occupations: NDArray) -> NDArray[np.int8]:
        """Return the changed arrangements, shape (n, n_sites)."""
        made = occupations[self.arrangement].copy()
        made[np.arange(len(made)), self.site] = self.new
        return made


@dataclass(frozen=True, eq=False)
class VacancySamples:
    """Arrangements of the crystal without a vacancy, and changes of single atoms in them.

    Attributes
    ----------
    supercell : Supercell
    counts : dict of int
        Atoms of each species in the cell.
    ensemble : str
        ``"random"`` or ``"equilibrium"``.
    temperature_K : float or None
        Of the equilibrium ensemble.
    occupations : ndarray of int8, shape (n, n_sites)
    groups : ndarray of int, shape (n,)
        Arrangements with equal numbers come from one chain.
    energies : ndarray, shape (n,)
        eV per cell.
    free_energies : ndarray, shape (n,)
        Excess free energy over an ideal solution, eV per atom, as the chain of each arrangement tells it; the mean
        counts. In the random ensemble it is the energy per atom.
    changes : Changes
        Atoms taken out, and atoms exchanged for another species.
    pressure : ndarray, shape (n,)
        eV/Å³; NaN where not known.
    report : dict
    """

    supercell: Supercell
    counts: dict[str, int]
    ensemble: str
    temperature_K: float | None
    occupations: NDArray[np.int8]
    groups: NDArray[np.int64]
    energies: NDArray[np.float64]
    free_energies: NDArray[np.float64]
    changes: Changes
    pressure: NDArray[np.float64]
    report: dict[str, Any] = field(default_factory=dict)


def draw_changes(
    cell: Supercell, occupations: NDArray, *, sites: int | None, swaps: int, rng: np.random.Generator
) -> Changes:
    """Choose atoms to take out and identities to change.

    Parameters
    ----------
    cell, occupations
        Arrangements without a vacancy.
    sites
        Atoms taken out of each arrangement, each from another site; None for all. One of each species is among them
        where there are enough: averages are formed species by species.
    swaps
        Identities changed in each arrangement; ordered pairs of species take turns.
    rng
        Random numbers.
    """
    codes = [cell.species.index(s) for s in perfect_counts(cell)]
    pairs = [(a, b) for a in codes for b in codes if a != b]
    found: list[tuple[int, int, int, int]] = []
    turn = 0
    for n, row in enumerate(occupations):
        # in a pure crystal translations make all sites of one kind equal
        chosen = np.arange(cell.alloy.n_basis)
        if pairs:
            chosen = rng.permutation(cell.n_sites)
            if sites is not None and sites >= len(codes):
                ahead = np.zeros(len(chosen), dtype=bool)
                ahead[[np.argmax(row[chosen] == c) for c in codes]] = True
                chosen = np.concatenate([chosen[ahead], chosen[~ahead]])
            chosen = chosen[:sites]
        found += [(n, int(i), int(row[i]), 0) for i in chosen]
        for _ in range(swaps if pairs else 0):
            a, b = pairs[turn % len(pairs)]
            turn += 1
            found.append((n, int(rng.choice(np.flatnonzero(row == a))), a, b))
    table = np.array(found, dtype=np.int64).reshape(-1, 4)
    return Changes(table[:, 0], table[:, 1], table[:, 2], table[:, 3], np.full(len(table), np.nan))


class Decorations(RelaxedEnergies):
    """Relaxed energies of any occupation: without a vacancy, with one, with other numbers of atoms.

    Each is computed once and kept in the store, where compute_barriers() finds those with a vacancy.
    """

    def of(self, occupations: NDArray) -> NDArray[np.float64]:
        """Return energies, eV, shape (n,); NaN where an occupation has none."""
        return self(self._named(occupations))

    def _named(self, occupations: NDArray) -> States:
        """Occupations as states, for their keys; the carrier is −1 where there is not one vacancy."""
        n, empty = len(occupations), np.asarray(occupations) == 0
        holes = np.where(empty.sum(axis=1) == 1, empty.argmax(axis=1), -1)
        return States(self.supercell, occupations, holes, np.ones(n), np.arange(n))

    def pressures(self, occupations: NDArray) -> NDArray[np.float64]:
        """Return pressures of relaxed occupations, eV/Å³, shape (n,); NaN where the calculator knows no stress."""
        if self._model is not None or not bool(np.all(self.supercell.pbc)):
            return np.full(len(occupations), np.nan)
        found = []
        for key, row in zip(self._named(occupations).keys, occupations, strict=True):
            atoms = self.supercell.to_atoms(row)
            known = self._known.get(key)
            if known is None or known.status != "ok":
                found.append(np.nan)
                continue
            atoms.positions = known.positions
            try:
                found.append(self._workers.call(_pressure, self._work, atoms, what="the calculator"))
            except Exception as error:
                _log.info("no pressure: %s", error)
                found.append(np.nan)
        return np.array(found)


def _pressure(work: Work, atoms: Any) -> float:
    atoms.calc = work.factory()
    return -float(atoms.get_stress(voigt=False).trace()) / 3


def sample(
    cell: Supercell,
    reference: Any,
    *,
    model: Any,
    temperatures_K: Sequence[float] | None,
    arrangements: int,
    sites: int | None,
    swaps: int,
    sweeps: int,
    seed: int,
    store: str | Path | None,
    executor: Executor | Callable[[], Executor] | None,
    settings: SaddleSettings | None,
    pressures: int = 3,
) -> list[VacancySamples]:
    """Sample arrangements, take atoms out and change species.

    Parameters
    ----------
    cell
        The supercell.
    reference
        Calculator factory or energy model: energies of all arrangements.
    model
        Energy model that draws equilibrium arrangements; None for the random ensemble.
    temperatures_K
        Of the equilibrium ensemble.
    arrangements, sites, swaps, sweeps, seed, store, executor, settings
        As in :func:`vacancy_formation`.
    pressures
        In how many arrangements the pressure is looked at.
    """
    counts = perfect_counts(cell)
    rng = np.random.default_rng(np.random.SeedSequence([int(seed), 1]))
    chains = PerfectChains(cell, model or _Nothing(), n_chains=arrangements, seed=seed)
    found = []
    with Decorations(cell, reference, store=store, executor=executor, settings=settings) as decorations:
        for t in sorted(temperatures_K, reverse=True) if model is not None and temperatures_K else [None]:
            if t is not None:
                chains.cool(t, sweeps=sweeps)
            occupations = chains.occupations.copy()
            if len(counts) == 1:
                occupations = occupations[:1]  # a pure crystal has one arrangement
            todo = draw_changes(cell, occupations, sites=sites, swaps=swaps, rng=rng)
            values = decorations.of(np.concatenate([occupations, todo.applied(occupations)]))
            energies, changed = values[: len(occupations)], values[len(occupations) :]
            if not np.isfinite(energies).any():
                raise KinosonError(
                    f"found no arrangement whose energy could be computed ({decorations.reason}); expected at least "
                    "one; look at the calculator"
                )
            free = energies / cell.n_sites
            if t is not None:
                own = chains.energies
                free = chains.integral / chains.beta / cell.n_sites + (energies - own) / cell.n_sites
            found.append(
                VacancySamples(
                    cell,
                    counts,
                    RANDOM if t is None else EQUILIBRIUM,
                    t,
                    occupations,
                    np.arange(len(occupations)),
                    energies,
                    free,
                    Changes(todo.arrangement, todo.site, todo.old, todo.new, changed - energies[todo.arrangement]),
                    decorations.pressures(occupations[:pressures]),
                    {
                        "n_failed": decorations.n_failed,
                        "n_unstable": decorations.n_unstable,
                        "force_calls": decorations.force_calls,
                        "n_energies": decorations.n_states,
                        "reason": decorations.reason,
                    },
                )
            )
    return found


class _Nothing:
    """All arrangements have the same energy."""

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        return np.zeros(len(occupations))

    def swap_delta(self, occupations: NDArray, first: Any, second: Any) -> NDArray[np.float64]:
        return np.zeros(len(occupations))
