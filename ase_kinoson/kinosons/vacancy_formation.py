"""Vacancy formation in a concentrated alloy: c_v(T) = ⟨exp(−G_f/k_BT)⟩ over the sites of sampled arrangements.

Take out the atom on site i and put it into the alloy elsewhere: G_i = E(χ without i) − E(χ) + μ_a(i) − T S_f. Here μ_a
is the *excess* chemical potential, without k_BT ln x_a: a vacancy on a given site has one parent arrangement for each
of the K species that could sit there, so that the average over sites with the full chemical potentials counts every
state K times; leaving out k_BT ln x_a takes that back exactly (docs/vacancies.md). Chemical potentials come from
changes of identity (Widom), symmetric in both directions, and Σ_a x_a μ_a = g, the excess free energy per atom.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.hop import SaddleSettings
from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import FailedCalculations, KinosonError, KinosonWarning, SmallCell, SmallSample, WrongVolume
from ase_kinoson.kinetics.perfect_crystal import atoms_only, knows_vacancies
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinetics.vacancy_samples import EQUILIBRIUM, RANDOM, VacancySamples, sample
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.vacancy_averages import VacancyAverages
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.units import thermal_energy

__all__ = ["VacancyFormation", "vacancy_formation"]

FEW = 10.0
"""Fewer effective sites than this in the exponential average are warned of."""
APART = np.log(2.0)
"""ln of the ratio of two species' c_v above which an equilibrium ensemble is warned of."""
STRAINED = 0.1
"""Pressure times site volume, eV, above which the cell is called strained."""
CALCULATED = "calculated"


def vacancy_formation(
    cell: Supercell,
    reference: Any,
    *,
    ensemble: str = RANDOM,
    temperatures_K: Sequence[float] | None = None,
    model: Any = None,
    arrangements: int = 20,
    sites: int | None = 8,
    swaps: int = 8,
    sweeps: int = 10,
    entropy_kB: float = 0.0,
    entropy_error: float = 0.0,
    store: str | Path | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    settings: SaddleSettings | None = None,
    n_resamples: int = 400,
    seed: int = 0,
) -> VacancyFormation:
    """Sample what a vacancy costs in an alloy.

    Parameters
    ----------
    cell
        Supercell; its composition counts, without a vacancy. Its lattice parameter should be that without stress.
    reference
        A calculator *factory* (``EMT``, or a callable without arguments), whose relaxed energies at constant volume are
        used; or an `EnergyModel` that knows crystals with and without a vacancy
        (:meth:`PairEnergy.from_interactions`).
    ensemble
        ``"random"``: atoms frozen in random places, at all temperatures; chemical potentials are derivatives of the
        energy of the random alloy. ``"equilibrium"``: the atoms arrange themselves at each of ``temperatures_K``, by
        Monte Carlo of ``model`` (default: ``reference``, where it is an energy model), free energies by thermodynamic
        integration from infinite temperature.
    temperatures_K
        K, for the equilibrium ensemble only.
    model
        Energy model that draws the arrangements of a calculator's equilibrium ensemble, such as one fitted to barriers;
        its free energy is corrected by the mean difference of the energies.
    arrangements
        Arrangements, each its own chain; their scatter gives the errors.
    sites
        Atoms taken out of each arrangement; None for all.
    swaps
        Atoms of each arrangement whose species is changed; not needed in a pure crystal.
    sweeps
        Monte Carlo sweeps per step of temperature.
    entropy_kB, entropy_error
        Formation entropy of vibrations and its error, in units of k_B, equal for all sites; it is not computed.
    store
        File of a barrier store: what it holds is not computed again, and each energy is written as it finishes.
    executor, settings
        As in :func:`compute_barriers`.
    n_resamples, seed
        Bootstrap over arrangements; seed of everything.

    Returns
    -------
    VacancyFormation

    Raises
    ------
    StructureError
        If the alloy has several sublattices, or is an interstitial one.
    ModelError
        If an energy model cannot know what a vacancy costs.
    KinosonError
        If the settings do not fit together.

    Warns
    -----
    KinosonWarning
        If the cell is strained, energies are missing, or few sites carry the average.

    Notes
    -----
    Belak and Van der Ven, Phys. Rev. B 91, 224306 (2015), treat the same equilibrium; identity changes follow Widom,
    J. Chem. Phys. 39, 2808 (1963).
    """
    if ensemble not in (RANDOM, EQUILIBRIUM):
        raise KinosonError(f"found ensemble={ensemble!r}; expected 'random' or 'equilibrium'; choose one")
    if arrangements < 2 or (sites is not None and sites < 1) or swaps < 1 or sweeps < 2:
        raise KinosonError(
            f"found arrangements={arrangements}, sites={sites}, swaps={swaps}, sweeps={sweeps}; expected at least 2, "
            "1, 1 and 2; raise them"
        )
    lattice = not isinstance(reference, type) and (
        isinstance(reference, EnergyModel) or (hasattr(reference, "energy") and not callable(reference))
    )
    if lattice:
        reference = knows_vacancies(reference, cell)
    sampler = None
    if ensemble == EQUILIBRIUM:
        if not temperatures_K:
            raise KinosonError(
                "found the equilibrium ensemble without temperatures_K; expected the temperatures of interest; give "
                "them"
            )
        if model is None and not lattice:
            raise KinosonError(
                "found the equilibrium ensemble of a calculator without a model; expected an energy model that draws "
                "the arrangements; fit one, or use ensemble='random'"
            )
        sampler = atoms_only(reference if model is None else model, cell)
    elif temperatures_K is not None or model is not None:
        raise KinosonError(
            "found temperatures_K or model for the random ensemble; expected neither, since its arrangements do not "
            "depend on temperature; pass ensemble='equilibrium', or leave them out"
        )
    samples = sample(
        cell,
        reference,
        model=sampler,
        temperatures_K=temperatures_K,
        arrangements=arrangements,
        sites=sites,
        swaps=swaps,
        sweeps=sweeps,
        seed=seed,
        store=store,
        executor=executor,
        settings=settings,
    )
    made = VacancyFormation(
        tuple(samples),
        float(entropy_kB),
        float(entropy_error),
        n_resamples,
        seed,
        relaxed=not lattice,
        modelled=model is not None,
    )
    for reason in made.remarks():
        warnings.warn(reason, stacklevel=2)
    return made


@dataclass(frozen=True, eq=False)
class VacancyFormation:
    """What a vacancy costs in an alloy, and how many there are.

    Attributes
    ----------
    samples : tuple of VacancySamples
        One for the random ensemble, one for each temperature of the equilibrium ensemble.
    entropy_kB, entropy_error : float
        Formation entropy of vibrations, k_B.
    n_resamples, seed : int
        Bootstrap over arrangements.
    relaxed : bool
        Whether the energies are those of a calculator.
    modelled : bool
        Whether arrangements of a calculator were drawn with another energy.

    Notes
    -----
    Formula: docs/derivations.md#vacancies-of-an-alloy-excess-potentials-not-full-ones.
    """

    samples: tuple[VacancySamples, ...]
    entropy_kB: float = 0.0
    entropy_error: float = 0.0
    n_resamples: int = 400
    seed: int = 0
    relaxed: bool = True
    modelled: bool = False
    _averages: dict[float, VacancyAverages] = field(default_factory=dict, init=False, repr=False)

    @property
    def ensemble(self) -> str:
        """``"random"`` or ``"equilibrium"``."""
        return self.samples[0].ensemble

    @property
    def species(self) -> tuple[str, ...]:
        """Species of the alloy, the order of all arrays."""
        return tuple(self.samples[0].counts)

    @property
    def composition(self) -> dict[str, float]:
        """Fraction of each species among the atoms of the cell, no unit."""
        return {s: n / self.samples[0].supercell.n_sites for s, n in self.samples[0].counts.items()}

    @property
    def temperatures_K(self) -> tuple[float, ...]:
        """Temperatures of the equilibrium ensemble, K, rising; empty for the random one, which holds for all."""
        return tuple(sorted(s.temperature_K for s in self.samples if s.temperature_K is not None))

    def at(self, temperature_K: float) -> Quantity:
        """Site fraction of vacancies c_v at a temperature, no unit.

        Parameters
        ----------
        temperature_K
            K; of the equilibrium ensemble one of :attr:`temperatures_K`.

        Raises
        ------
        KinosonError
            If the equilibrium ensemble was not sampled at this temperature.
        """
        found = self._at(temperature_K)
        return self._with_entropy(found.fraction)

    def by_species(self, temperature_K: float) -> dict[str, Quantity]:
        """c_v as the atoms of each species alone tell it; in equilibrium equal up to errors and order 1/N.

        Parameters
        ----------
        temperature_K
            K; of the equilibrium ensemble one of :attr:`temperatures_K`.

        Raises
        ------
        KinosonError
            If the equilibrium ensemble was not sampled at this temperature.
        """
        found = self._at(temperature_K)
        return {s: self._with_entropy(found.fractions[:, a]) for a, s in enumerate(self.species)}

    def site_preference(self, temperature_K: float) -> dict[str, Quantity]:
        """Share of the vacancies that atoms of each species leave, over the fraction of the species.

        Parameters
        ----------
        temperature_K
            K; of the equilibrium ensemble one of :attr:`temperatures_K`.

        Raises
        ------
        KinosonError
            If the equilibrium ensemble was not sampled at this temperature.
        """
        found = self._at(temperature_K)
        return {
            s: _quantity(found.fractions[:, a] / found.fraction, "1", CALCULATED) for a, s in enumerate(self.species)
        }

    def chemical_potentials(self, temperature_K: float) -> dict[str, Quantity]:
        """Excess chemical potentials, eV: the full ones less k_BT ln x_a, from the zero of the energies.

        Parameters
        ----------
        temperature_K
            K; of the equilibrium ensemble one of :attr:`temperatures_K`.

        Raises
        ------
        KinosonError
            If the equilibrium ensemble was not sampled at this temperature.
        """
        found = self._at(temperature_K)
        return {s: _quantity(found.mu[:, a], "eV", CALCULATED) for a, s in enumerate(self.species)}

    def formation_energies(self, temperature_K: float) -> dict[str, dict[str, Any]]:
        """Formation free energies G_i (without entropy of vibrations) by the species of the atom that leaves.

        Parameters
        ----------
        temperature_K
            K; of the equilibrium ensemble one of :attr:`temperatures_K`.

        Returns
        -------
        dict
            For each species ``mean`` (a Quantity), ``std`` (over sites) and ``n``, eV.

        Raises
        ------
        KinosonError
            If the equilibrium ensemble was not sampled at this temperature.
        """
        found = self._at(temperature_K)
        table = {}
        for a, s in enumerate(self.species):
            own = found.removed == a
            g = found.removal[own] + found.mu[0, a]
            table[s] = {
                "mean": _quantity(found.mean[:, a] + found.mu[:, a], "eV", CALCULATED),
                "std": float(g.std(ddof=1)) if own.sum() > 1 else 0.0,
                "n": int(own.sum()),
            }
        return table

    def effective_number(self, temperature_K: float) -> float:
        """Kish's number of sites that carry the average of exp(−G/k_BT): 1 where one site is all; no unit.

        Parameters
        ----------
        temperature_K
            K; of the equilibrium ensemble one of :attr:`temperatures_K`.

        Raises
        ------
        KinosonError
            If the equilibrium ensemble was not sampled at this temperature.
        """
        found = self._at(temperature_K)
        return found.effective

    def effective_energy(self, temperature_K: float) -> Quantity:
        """−k_BT ln c_v, eV: the free energy that a crystal of equal sites would need for the same c_v.

        Parameters
        ----------
        temperature_K
            K; of the equilibrium ensemble one of :attr:`temperatures_K`.

        Raises
        ------
        KinosonError
            If the equilibrium ensemble was not sampled at this temperature.
        """
        c = self.at(temperature_K)
        kT = thermal_energy(temperature_K)
        return Quantity(-kT * float(np.log(float(c))), kT * float(c.error) / float(c), "eV", CALCULATED)

    def vacancy_fraction(self) -> VacancyFraction:
        """c_v(T) as transport() takes it.

        The equilibrium ensemble is interpolated between its temperatures (a single one serves itself only).
        """
        said = f"{self.ensemble} ensemble of {self._n} arrangements of {self.samples[0].supercell.n_sites} sites"
        source = f"vacancy formation, {said}"
        if self.ensemble == RANDOM or len(self.samples) == 1:
            return VacancyFraction(_Curve(self), source, CALCULATED, composition=self.composition)
        c = [self.at(t) for t in self.temperatures_K]
        table = [self.temperatures_K, [float(q) for q in c], [float(q.error) for q in c]]
        return replace(VacancyFraction.from_table(table, source=source, kind=CALCULATED), composition=self.composition)

    # -- what to know about the numbers ------------------------------

    @property
    def pressure_energy(self) -> float:
        """Mean pressure times site volume, eV; NaN where unknown.

        At that pressure it is part of G_f; without pressure G_f differs by what the relaxation volume makes of it,
        about a tenth in a metal.
        """
        s = self.samples[0]
        known = s.pressure[np.isfinite(s.pressure)]
        return float(known.mean() * _volume(s)) if len(known) else np.nan

    @property
    def approximations(self) -> tuple[str, ...]:
        """What was left out, in words."""
        said = ["dilute: vacancies do not meet"]
        if len(self.species) > 1 and self.ensemble == RANDOM:
            said.append("atoms frozen in random places: no short-range order, also not around the vacancy")
        elif self.modelled:
            said.append("arrangements and free energy of the model, corrected by the mean difference of the energies")
        if self.relaxed:
            said.append("relaxed energies at constant volume of a periodic cell: of order 1/N from an infinite crystal")
        said.append(
            "entropy of vibrations left out"
            if self.entropy_kB == 0.0
            else f"entropy of vibrations {self.entropy_kB:g} k_B, given, equal for all sites"
        )
        return tuple(said)

    def remarks(self) -> list[KinosonWarning]:
        """What a user should know before using the numbers."""
        said: list[KinosonWarning] = []
        missing = int(sum(np.isnan(s.changes.energy).sum() for s in self.samples))
        if missing:
            total = sum(len(s.changes.energy) for s in self.samples)
            reason = next((s.report["reason"] for s in self.samples if s.report.get("reason")), "")
            said.append(
                FailedCalculations(
                    f"{missing} of {total} changes of single atoms have no energy ({reason}); expected all; they are "
                    "left out, which biases the average if they are alike",
                    number=missing,
                    limit=0,
                    unit="changes",
                    advice="compute them with other settings",
                )
            )
        if abs(self.pressure_energy) > STRAINED:
            said.append(
                WrongVolume(
                    f"the crystal is strained: pressure times site volume is {self.pressure_energy:+.3f} eV; expected "
                    f"less than {STRAINED:g} eV",
                    number=self.pressure_energy,
                    limit=STRAINED,
                    unit="eV",
                    advice="use the lattice parameter without stress at this composition",
                )
            )
        return said

    def as_dict(self, temperatures_K: Sequence[float] | None = None) -> dict[str, Any]:
        """Every number with unit, error and kind, at some temperatures.

        Parameters
        ----------
        temperatures_K
            K; default: the sampled ones.
        """
        chosen = self.temperatures_K if temperatures_K is None else tuple(temperatures_K)
        return {
            "ensemble": self.ensemble,
            "n_arrangements": self._n,
            "n_sites": self.samples[0].supercell.n_sites,
            "counts": dict(self.samples[0].counts),
            "n_energies": max(s.report.get("n_energies", 0) for s in self.samples),
            "n_failed": sum(int(np.isnan(s.changes.energy).sum()) for s in self.samples),
            "entropy_kB": self.entropy_kB,
            "approximations": list(self.approximations),
            "temperatures": [
                {
                    "temperature_K": float(t),
                    "vacancy_fraction": self.at(t).as_dict(),
                    "effective_energy": self.effective_energy(t).as_dict(),
                    "effective_number": self.effective_number(t),
                    "by_species": {s: q.as_dict() for s, q in self.by_species(t).items()},
                    "site_preference": {s: q.as_dict() for s, q in self.site_preference(t).items()},
                    "chemical_potentials": {s: q.as_dict() for s, q in self.chemical_potentials(t).items()},
                    "formation_energies": {
                        s: {**row, "mean": row["mean"].as_dict()} for s, row in self.formation_energies(t).items()
                    },
                }
                for t in chosen
            ],
        }

    def __str__(self) -> str:
        s = self.samples[0]
        atoms = " ".join(f"{n} {a}" for a, n in s.counts.items())
        lines = [f"vacancy formation: {self.ensemble} ensemble, {self._n} arrangements of {atoms}"]
        lines += [f"  approximation: {a}" for a in self.approximations]
        return "\n".join(lines)

    # -- averages ------------------------------

    @property
    def _n(self) -> int:
        return len(self.samples[0].occupations)

    def _with_entropy(self, rows: NDArray) -> Quantity:
        q = _quantity(rows, "1", CALCULATED)
        grow = float(np.exp(self.entropy_kB))
        value = float(q.value) * grow
        return Quantity(value, float(np.hypot(float(q.error) * grow, value * self.entropy_error)), "1", CALCULATED)

    def _at(self, temperature_K: float) -> VacancyAverages:
        thermal_energy(temperature_K)
        samples = self.samples[0]
        if self.ensemble == EQUILIBRIUM:
            near = [s for s in self.samples if s.temperature_K and abs(s.temperature_K - temperature_K) < 1e-6]
            if not near:
                raise KinosonError(
                    f"found temperature_K={temperature_K:g}; expected one of {list(self.temperatures_K)}, where the "
                    "equilibrium ensemble was sampled; sample there, or interpolate with vacancy_fraction()"
                )
            samples = near[0]
        key = float(temperature_K)
        if key not in self._averages:
            self._averages[key] = VacancyAverages(samples, key, self.n_resamples, self.seed)
            for reason in self._doubts(self._averages[key], key):
                warnings.warn(reason, stacklevel=4)
        return self._averages[key]

    def _doubts(self, found: VacancyAverages, temperature_K: float) -> list[KinosonWarning]:
        """Why the error of c_v is too small at a temperature."""
        said: list[KinosonWarning] = []
        if len(self.species) < 2:
            return said
        if found.effective < FEW:
            said.append(
                SmallSample(
                    f"{found.effective:.1f} sites carry the vacancy fraction at {temperature_K:g} K; expected at least "
                    f"{FEW:g}; its error is too small, and so may be the value",
                    number=found.effective,
                    limit=FEW,
                    unit="sites",
                    advice="sample more sites and arrangements",
                )
            )
        if found.effective_changes < FEW:
            said.append(
                SmallSample(
                    f"{found.effective_changes:.1f} changes of species carry the chemical potentials at "
                    f"{temperature_K:g} K; expected at least {FEW:g}; the error of c_v is too small, and so may be the "
                    "value",
                    number=found.effective_changes,
                    limit=FEW,
                    unit="changes",
                    advice="sample more swaps and arrangements",
                )
            )
        if self.ensemble == EQUILIBRIUM:
            low, high = found.fractions[0].argmin(), found.fractions[0].argmax()
            apart = np.log(found.fractions[:, high] / found.fractions[:, low])
            if apart[0] > APART and apart[0] > 3 * np.nanstd(apart[1:], ddof=1):
                said.append(
                    SmallCell(
                        f"atoms of {self.species[high]} tell {np.exp(apart[0]):.3g} times the vacancy fraction that "
                        f"those of {self.species[low]} tell at {temperature_K:g} K; expected one number; the cell is "
                        "too small, or the alloy ordered, which few changes of species see",
                        number=float(np.exp(apart[0])),
                        limit=float(np.exp(APART)),
                        advice="use a larger cell, more swaps and arrangements, or a higher temperature",
                    )
                )
        return said


def _quantity(rows: NDArray, unit: str, kind: str) -> Quantity:
    """Value in row 0, error from the others; a pure crystal has one arrangement, and no error of sampling."""
    error = float(standard_error(rows[1:][~np.isnan(rows[1:])])) if len(rows) > 2 else 0.0
    return Quantity(float(rows[0]), error, unit, kind)


def _volume(samples: VacancySamples) -> float:
    return float(abs(np.linalg.det(samples.supercell.cell))) / samples.supercell.n_sites


@dataclass(frozen=True, eq=False)
class _Curve:
    """c_v(T) of a calculation; a class, so that it travels to other processes."""

    formation: VacancyFormation

    def __call__(self, temperature: float) -> tuple[float, float]:
        c = self.formation.at(temperature)
        return float(c), float(c.error)
