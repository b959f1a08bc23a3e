"""Averages over sampled arrangements at one temperature: chemical potentials and vacancy fractions, resampled."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.vacancy_samples import EQUILIBRIUM, VacancySamples
from ase_kinoson.kinosons.statistics import Bootstrap
from ase_kinoson.units import thermal_energy

__all__ = ["VacancyAverages"]


class VacancyAverages:
    """Averages at one temperature; row 0 is the value, the others are resamples of arrangements.

    Parameters
    ----------
    samples
        Arrangements and changes of single atoms in them.
    temperature_K
        K.
    n_resamples, seed
        Bootstrap over groups of arrangements.

    Attributes
    ----------
    removed : ndarray of int, shape (n,)
        Species, by its place in ``samples.counts``, of each atom that was taken out.
    removal : ndarray, shape (n,)
        What that cost, eV.
    """

    def __init__(self, samples: VacancySamples, temperature_K: float, n_resamples: int, seed: int) -> None:
        self.samples, self.kT = samples, thermal_energy(temperature_K)
        good = np.isfinite(samples.energies)
        weights = good / good.sum()
        if len(good) > 1:
            boot = Bootstrap.over(weights, samples.groups, n_resamples=n_resamples, seed=seed)
            self._rows = np.concatenate([boot.weights[None], boot.resampled])
        else:
            self._rows = np.ones((1, 1))
        self.x = np.array(list(samples.counts.values())) / samples.supercell.n_sites
        codes = [samples.supercell.species.index(s) for s in samples.counts]
        changes = samples.changes
        number = np.full(len(samples.supercell.species), -1)
        number[codes] = np.arange(len(codes))
        ok = np.isfinite(changes.energy)
        out = ok & (changes.new == 0)
        self._arrangement, self.removed, self.removal = (
            changes.arrangement[out],
            number[changes.old[out]],
            changes.energy[out],
        )
        lost = [s for a, s in enumerate(samples.counts) if not np.any(self.removed == a)]
        if lost:
            raise KinosonError(
                f"found no energy of a crystal from which an atom of {' or '.join(lost)} is taken out; expected some "
                "of each species; raise sites or arrangements, and look at the calculator if energies are missing"
            )
        swap = ok & (changes.new > 0)
        self._swap = (
            changes.arrangement[swap],
            number[changes.old[swap]],
            number[changes.new[swap]],
            changes.energy[swap],
        )

    def _mean(self, which: NDArray, arrangement: NDArray, values: NDArray) -> NDArray[np.float64]:
        """Average of some values by row."""
        n = self._rows.shape[1]
        top = np.bincount(arrangement[which], values[which], minlength=n)
        count = np.bincount(arrangement[which], minlength=n).astype(float)
        with np.errstate(invalid="ignore"):
            return (self._rows @ top) / (self._rows @ count)

    def _log_mean(self, which: NDArray, arrangement: NDArray, energies: NDArray) -> NDArray[np.float64]:
        """−k_BT ln⟨exp(−E/k_BT)⟩ by row."""
        low = energies[which].min(initial=np.inf)
        return low - self.kT * np.log(self._mean(which, arrangement, np.exp(-(energies - low) / self.kT)))

    @cached_property
    def free(self) -> NDArray[np.float64]:
        """Excess free energy, eV per atom."""
        return self._rows @ np.where(np.isfinite(self.samples.free_energies), self.samples.free_energies, 0.0)

    @cached_property
    def mu(self) -> NDArray[np.float64]:
        """Excess chemical potentials, shape (rows, K)."""
        k = len(self.x)
        arrangement, old, new, energy = self._swap
        step = np.zeros((len(self._rows), k, k))
        for a in range(k):
            for b in range(k):
                if a == b:
                    continue
                which = (old == a) & (new == b)
                if not which.any():
                    names = list(self.samples.counts)
                    raise KinosonError(
                        f"found no change of {names[a]} into {names[b]}; expected some; raise swaps or arrangements"
                    )
                equilibrium = self.samples.ensemble == EQUILIBRIUM
                step[:, a, b] = (self._log_mean if equilibrium else self._mean)(which, arrangement, energy)
        # μ_b − μ_a from both directions, whose errors of order 1/N have opposite signs; then least squares over pairs
        difference = 0.5 * (step - np.swapaxes(step, 1, 2))
        relative = difference.mean(axis=1)
        return relative - (relative @ self.x)[:, None] + self.free[:, None]

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean energy to take out an atom of each species, shape (rows, K)."""
        return np.stack([self._mean(self.removed == a, self._arrangement, self.removal) for a in range(len(self.x))], 1)

    @cached_property
    def fractions(self) -> NDArray[np.float64]:
        """c_v as each species tells it, shape (rows, K)."""
        out = [self._log_mean(self.removed == a, self._arrangement, self.removal) for a in range(len(self.x))]
        return np.exp(-(np.stack(out, axis=1) + self.mu) / self.kT)

    @cached_property
    def fraction(self) -> NDArray[np.float64]:
        """Average over sites: species in the proportions of the alloy, whatever was drawn."""
        return self.fractions @ self.x

    @cached_property
    def effective_changes(self) -> float:
        """Kish's number of identity changes, of the pair of species that has the fewest; inf where means are formed."""
        _, old, new, energy = self._swap
        least = np.inf
        if self.samples.ensemble == EQUILIBRIUM:
            for a, b in np.unique(np.column_stack([old, new]), axis=0):
                own = energy[(old == a) & (new == b)]
                w = np.exp(-(own - own.min()) / self.kT)
                least = min(least, float(w.sum() ** 2 / (w**2).sum()))
        return least

    @cached_property
    def effective(self) -> float:
        """Kish's number of sites."""
        count = np.bincount(self.removed, minlength=len(self.x))
        log = -(self.removal + self.mu[0][self.removed]) / self.kT
        w = (self.x / count)[self.removed] * np.exp(log - log.max())
        return float(w.sum() ** 2 / (w**2).sum())
