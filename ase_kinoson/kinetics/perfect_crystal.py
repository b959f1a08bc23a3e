"""Decorations of the crystal without a vacancy: random ones, Monte Carlo, and their free energy.

Everything else of the package looks at cells that hold one carrier. Here all sites are full, and the number of atoms of
each species is the composition times the number of sites.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.crystal.supercell import Supercell, largest_remainder
from ase_kinoson.errors import ModelError, StructureError
from ase_kinoson.kinetics.monte_carlo import energy_of
from ase_kinoson.units import thermal_energy

__all__ = ["PerfectChains", "atoms_only", "knows_vacancies", "perfect_counts", "random_perfect"]


def perfect_counts(cell: Supercell) -> dict[str, int]:
    """Atoms of each species in the cell without a vacancy, by largest remainder.

    Raises
    ------
    StructureError
        If the alloy is an interstitial one, has several sublattices, or sites that are vacant by composition: there the
        composition does not tell the chemical potentials.
    """
    alloy = cell.alloy
    if alloy.is_interstitial:
        raise StructureError(
            "found an interstitial alloy; expected one whose atoms move by vacancies; an interstitial needs no vacancy "
            "fraction"
        )
    if len(alloy.sublattices) != 1:
        raise StructureError(
            f"found {len(alloy.sublattices)} sublattices {[s.name for s in alloy.sublattices]}; expected one, since on "
            "several the composition does not tell the chemical potentials; give vacancy_fraction as a number, a "
            "formation energy or a table"
        )
    sub = alloy.sublattices[0]
    if sub.occupancy < 1 - 1e-9:
        raise StructureError(
            f"found sublattice {sub.name!r} with {1 - sub.occupancy:.3g} vacant sites by composition; expected full "
            "ones, whose vacancies are thermal; correct the occupancies"
        )
    names = [s for s, _ in sub.composition]
    counts = largest_remainder([x for _, x in sub.composition], cell.n_sites)
    found = {s: n for s, n in zip(names, counts, strict=True) if n}
    lost = sorted(set(names) - set(found))
    if lost:
        raise StructureError(
            f"found no atom of {lost} in a cell of {cell.n_sites} sites; expected at least one of each species; use a "
            "larger supercell"
        )
    return found


def random_perfect(cell: Supercell, n: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Decorate cells at random with the numbers of :func:`perfect_counts`, shape (n, n_sites)."""
    counts = perfect_counts(cell)
    row = np.repeat([cell.species.index(s) for s in counts], list(counts.values())).astype(np.int8)
    return rng.permuted(np.tile(row, (n, 1)), axis=1)


def knows_vacancies(model: Any, cell: Supercell) -> EnergyModel:
    """Return the energy of a model that tells crystals with and without a vacancy apart.

    Raises
    ------
    ModelError
        If it was fitted to states that all hold one vacancy.
    """
    energy = energy_of(model, cell)
    if isinstance(energy, PairEnergy) and (energy.report or energy.clusters.carrier is not None):
        raise ModelError(
            "found an energy model fitted to states that all hold one vacancy, which cannot know what a vacancy costs; "
            "expected a Hamiltonian of crystals with and without one, such as PairEnergy.from_interactions; pass the "
            "calculator, and this model as model= to draw equilibrium arrangements"
        )
    return energy


def atoms_only(model: Any, cell: Supercell) -> EnergyModel:
    """Return the part of an energy model that crystals without a vacancy have."""
    energy = energy_of(model, cell)
    if isinstance(energy, PairEnergy) and energy.clusters.carrier is not None:
        clusters = energy.clusters
        energy = PairEnergy(
            replace(clusters, carrier=None), energy.coefficients[: clusters.carrier_offset], energy.constant
        )
    return energy


class PerfectChains:
    """Independent Metropolis chains of the crystal without a vacancy, cooled together.

    Parameters
    ----------
    cell
        The supercell.
    model
        Energy model.
    n_chains
        Number of chains, each begun from a random decoration.
    seed
        Seed.

    Attributes
    ----------
    occupations : ndarray of int8, shape (n_chains, n_sites)
    energies : ndarray, shape (n_chains,)
        eV.
    beta : float
        1/eV; 0 at the beginning.
    integral : ndarray, shape (n_chains,)
        ∫₀^β E dβ' of each chain; its mean is βF + S_random/k, the excess free energy of the cell over the random
        alloy at infinite temperature, in units of k_BT.
    """

    def __init__(self, cell: Supercell, model: EnergyModel, *, n_chains: int, seed: int) -> None:
        self.supercell, self.model = cell, model
        self._rng = np.random.default_rng(seed)
        self.occupations = random_perfect(cell, n_chains, self._rng)
        self.energies = model.energies(self.occupations)
        self.beta = 0.0
        self.integral = np.zeros(n_chains)
        self._mean, self._variance = self._measure(8)

    def cool(self, temperature_K: float, *, max_step: float = 0.5, sweeps: int = 10) -> None:
        """Go on to a lower temperature, in steps of β, and integrate the energy on the way.

        Thermodynamic integration with the derivative dU/dβ = −Var(E) at both ends of each step (the corrected
        trapezoid, whose error is of fourth order in the step).

        Parameters
        ----------
        temperature_K
            K.
        max_step
            Longest step, as β times the standard deviation of the energy of a cell.
        sweeps
            Attempted exchanges per site at each step, half of them measured.
        """
        aim = 1.0 / thermal_energy(temperature_K)
        n = max(2, int(np.ceil((aim - self.beta) * np.sqrt(self._variance) / max_step)))
        for beta in np.linspace(self.beta, aim, n + 1)[1:]:
            h, self.beta = beta - self.beta, float(beta)
            self.sweep(max(1, sweeps - sweeps // 2))
            mean, variance = self._measure(max(1, sweeps // 2))
            self.integral += 0.5 * h * (self._mean + mean) - h * h / 12 * (self._variance - variance)
            self._mean, self._variance = mean, variance

    def sweep(self, n: int) -> None:
        """Attempt ``n`` exchanges per site in every chain, at the present temperature."""
        rng, (chains, sites) = self._rng, self.occupations.shape
        rows = np.arange(chains)
        for _ in range(n * sites):
            p, q = rng.integers(sites, size=(2, chains))
            a, b = self.occupations[rows, p], self.occupations[rows, q]
            i = np.flatnonzero(a != b)
            if not len(i):
                continue
            delta = self.model.swap_delta(self.occupations[i], p[i], q[i])
            ok = self.beta * delta <= rng.standard_exponential(len(i))
            i, delta = i[ok], delta[ok]
            self.occupations[i, p[i]], self.occupations[i, q[i]] = b[i], a[i]
            self.energies[i] += delta

    def _measure(self, n: int) -> tuple[NDArray[np.float64], float]:
        """Mean energy of each chain over ``n`` sweeps, and the variance of the energy within and between chains."""
        seen = []
        for _ in range(n):
            self.sweep(1)
            seen.append(self.energies.copy())
        return np.mean(seen, axis=0), float(np.var(seen))
