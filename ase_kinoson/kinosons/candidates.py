"""Jumps that could be computed next: what they would add to D, how well that is known, what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.reference import FAILED, NOT_COMPUTED, Barriers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.coefficients import Composition
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction, fraction_at
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S, DEFAULT_ATTEMPT_FREQUENCY, thermal_energy

__all__ = ["Candidates", "Forecast", "Known"]

UNKNOWN_ERROR = 0.05
"""Error (eV) assumed of a single model, until its first predictions are checked."""

PSEUDO_COUNTS = 10.0
"""Weight of the ensemble's own spread against the errors seen."""

MOST = 6.0
"""Largest variance, in (k_BT)², with which an exponential's own is computed: beyond, all are called very uncertain."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """A pool of states without repetition, and the kinosons of their jumps up to the Boltzmann factor.

    Attributes
    ----------
    states : States
        The different states of the pool.
    network : JumpNetwork
    row : ndarray of int, shape (n_pool,)
        Which of ``states`` each state of the pool is.
    pool : States
        As given.
    weight : ndarray, shape (n_states,)
    exists : ndarray of bool, shape (n_states, J)
    names : tuple of str
        Coefficients: the carrier, then tracers by species.
    kinosons : ndarray, shape (n_coefficients, n_states, J)
        w ν |δx + Δy|²/(2d) in the units of the coefficient, m²/s.
    reweighted : bool
        Whether states are weighted to the reference energies.
    temperature_K : float
    attempt_frequency : float
        ν, s⁻¹: of all jumps that have none of their own.
    """

    states: States
    network: JumpNetwork
    row: NDArray[np.int64]
    pool: States
    weight: NDArray[np.float64]
    exists: NDArray[np.bool_]
    names: tuple[str, ...]
    kinosons: NDArray[np.float64]
    reweighted: bool
    temperature_K: float
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY

    @classmethod
    def build(
        cls,
        pool: States,
        network: JumpNetwork,
        relaxation: Relaxation | None,
        temperature_K: float,
        *,
        reweighted: bool,
        attempt_frequency: float,
        vacancy_fraction: float | VacancyFraction | None,
    ) -> Candidates:
        """Evaluate the relaxed displacements of all jumps of a pool."""
        if reweighted and (pool.model_energies is None or pool.ensemble != "equilibrium"):
            raise StatesError(
                f"found a pool of the {pool.ensemble!r} ensemble "
                f"{'without' if pool.model_energies is None else 'with'} model energies; expected equilibrium states "
                "drawn with a model, to weight them; pass reweight=False for states that need no weights"
            )
        keys = pool.keys
        first = {key: n for n, key in reversed(list(enumerate(keys)))}
        rows = np.sort(np.array(list(first.values())))
        place = {keys[n]: i for i, n in enumerate(rows)}
        row = np.array([place[key] for key in keys])
        states = pool[rows]
        weight = np.bincount(row, pool.weights, minlength=len(rows)).astype(float)
        terms = jump_terms(relaxation, states.occupations, states.carriers, network=network)
        composition = Composition.of(pool)
        projector, d = network.projector, network.dimension
        moved = terms.displacement[:, :, composition.index].sum(axis=2)
        found = [np.einsum("nkx,xy,nky->nk", moved, projector, moved)]
        vacancy = network.mechanism == "vacancy"
        given = fraction_at(vacancy_fraction, temperature_K)
        cv = 1.0 if given is None else float(given[0])
        for index, share in zip(composition.index, composition.fractions, strict=True):
            own = np.einsum("nkxy,xy->nk", terms.tracer[:, :, index], projector)
            found.append(own * (cv / share if vacancy else 1.0))
        scale = attempt_frequency / (2 * d) * ANGSTROM2_PER_S_TO_M2_PER_S
        return cls(
            states,
            network,
            row,
            pool,
            weight,
            network.exists[network.basis_of(states.carriers)],
            ("vacancy" if vacancy else "carrier", *composition.species),
            np.array(found) * scale * weight[:, None],
            reweighted,
            float(temperature_K),
            float(attempt_frequency),
        )

    def effective(self, barriers: NDArray, frequency: float | NDArray | None) -> NDArray[np.float64]:
        """Barriers Q − k_BT ln(ν_k/ν), eV: with the common ν they give the rates of jumps that have their own ν_k.

        Parameters
        ----------
        barriers : ndarray
            Q, eV.
        frequency : ndarray or float or None
            ν_k, s⁻¹; NaN or None where there is only the common one.
        """
        if frequency is None:
            return barriers
        ratio = np.asarray(frequency) / self.attempt_frequency
        return barriers - thermal_energy(self.temperature_K) * np.log(np.where(np.isfinite(ratio), ratio, 1.0))

    def pooled(self, values: NDArray) -> NDArray[np.float64]:
        """Divide what belongs to different states, shape (n_states,), among those of the pool, shape (n_pool,)."""
        own = self.weight[self.row]
        return values[self.row] * np.divide(self.pool.weights, own, out=np.zeros_like(own), where=own > 0)

    def predict(self, members: Sequence[Any]) -> tuple[NDArray, NDArray]:
        """Energies of the states, shape (n_members, n_states), and effective barriers (n_members, n_states, J), eV."""
        states = self.states
        energies, barriers = [], []
        for member in members:
            rates = Rates.of(
                member, self.network, temperature_K=self.temperature_K, attempt_frequency=self.attempt_frequency
            )
            found = rates.energies(states.occupations, states.carriers)
            own = rates.state_energies(states.occupations) if self.reweighted else np.zeros(len(states))
            if found is None or own is None:
                raise StatesError(
                    f"found a model without {'barriers' if found is None else 'energies'}, {type(member).__name__}; "
                    "expected both, to weight the states; pass barrier models, or reweight=False if the pool needs none"
                )
            barriers.append(self.effective(found.barrier, rates._frequency(found)))
            energies.append(own)
        return np.array(energies), np.array(barriers)

    def factors(self, energies: NDArray, barriers: NDArray, shift: float) -> tuple[NDArray, NDArray]:
        """Boltzmann factors of kinosons, shape (n_states, J), and of states, shape (n_states,).

        exp(−(E_saddle − E_drawn)/k_BT) and exp(−(E − E_drawn)/k_BT): weighting to the reference energies and the rate
        together leave the saddle only. Without weighting, exp(−Q/k_BT) and 1.
        """
        kT = thermal_energy(self.temperature_K)
        rate = np.where(self.exists, np.exp(-np.where(np.isnan(barriers), np.inf, barriers) / kT), 0.0)
        if not self.reweighted:
            return rate, np.ones(len(self.weight))
        assert self.states.model_energies is not None
        lift = np.exp(-(energies - self.states.model_energies - shift) / kT)
        return rate * lift[:, None], lift


@dataclass(frozen=True, eq=False)
class Known:
    """What has been computed of the candidates.

    Attributes
    ----------
    energies : ndarray, shape (n_states,)
        eV; NaN where unknown.
    barriers : ndarray, shape (n_states, J)
        Effective ones, eV; inf where rejected, NaN where unknown or failed.
    relaxed, unstable : ndarray of bool, shape (n_states,)
        States that were computed, and those of them that relax into something else and so have no weight.
    failed : ndarray of bool, shape (n_states, J)
        Searches that told nothing: the guess stands for them.
    """

    energies: NDArray[np.float64]
    barriers: NDArray[np.float64]
    relaxed: NDArray[np.bool_]
    unstable: NDArray[np.bool_]
    failed: NDArray[np.bool_]

    @classmethod
    def nothing(cls, candidates: Candidates) -> Known:
        """Nothing computed yet."""
        n, jumps = candidates.exists.shape
        none = np.zeros(n, dtype=bool)
        return cls(np.full(n, np.nan), np.full((n, jumps), np.nan), none, none, np.zeros((n, jumps), dtype=bool))

    @classmethod
    def of(cls, candidates: Candidates, rows: NDArray, barriers: Barriers) -> Known:
        """Take in barriers of the candidates ``rows``."""
        n, jumps = candidates.exists.shape
        energies, values = np.full(n, np.nan), np.full((n, jumps), np.nan)
        failed = np.zeros((n, jumps), dtype=bool)
        relaxed, unstable = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        asked = candidates.exists[rows] & (barriers.status != NOT_COMPUTED)
        leaves = (barriers.status == "unstable-start").any(axis=1)
        lost = np.isin(barriers.status, FAILED) & ~leaves[:, None]
        energies[rows] = np.where(leaves, np.nan, barriers.energy_initial)
        found = candidates.effective(barriers.barrier, barriers.attempt_frequency)
        values[rows] = np.where(asked & ~lost, found, np.nan)
        failed[rows] = asked & ~leaves[:, None] & np.isnan(values[rows])
        relaxed[rows], unstable[rows] = True, leaves
        return cls(energies, values, relaxed, unstable, failed)


@dataclass(frozen=True, eq=False)
class Forecast:
    """What models expect of the candidates, given what is known.

    Attributes
    ----------
    energies : ndarray, shape (n_members, n_states)
        eV; the known ones where known.
    barriers : ndarray, shape (n_members, n_states, J)
        Effective ones, eV.
    factor : ndarray, shape (n_states, J)
        Mean Boltzmann factor of each kinoson: the guess c is ``kinosons * factor``.
    lift : ndarray, shape (n_states,)
        Mean factor of the weight of each state; exact where its energy is known.
    energy_variance, barrier_variance : ndarray, shape (n_states,) and (n_states, J)
        eV²: spread of the members, half of it replaced by its mean.
    """

    energies: NDArray[np.float64]
    barriers: NDArray[np.float64]
    factor: NDArray[np.float64]
    lift: NDArray[np.float64]
    energy_variance: NDArray[np.float64]
    barrier_variance: NDArray[np.float64]

    @classmethod
    def of(cls, candidates: Candidates, energies: NDArray, barriers: NDArray, known: Known, shift: float) -> Forecast:
        """Put together the predictions of all members and what is known."""
        everything = np.ones(len(candidates.weight), dtype=bool)
        energies = _aligned(energies, known.energies)
        q_variance, e_variance = _spread(barriers, candidates.exists), _spread(energies, everything)
        e = np.where(np.isfinite(known.energies), known.energies, energies)
        factors, lifts = zip(*(candidates.factors(*pair, shift) for pair in zip(e, barriers, strict=True)), strict=True)
        factor, lift = np.mean(factors, axis=0), np.mean(lifts, axis=0)
        factor[known.unstable], lift[known.unstable] = 0.0, 0.0
        return cls(e, barriers, factor, lift, e_variance, q_variance)


def _aligned(energies: NDArray, known: NDArray) -> NDArray[np.float64]:
    """Energies of members on one zero, that of the known ones: a common shift is no uncertainty of a ratio."""
    have = np.isfinite(known)
    if have.any():
        return energies - (energies - known)[:, have].mean(axis=1, keepdims=True)
    return energies - energies.mean(axis=1, keepdims=True) + energies.mean()


def _spread(values: NDArray, use: NDArray) -> NDArray[np.float64]:
    """Variance over members, shrunk half-way to its mean: few members do not tell more."""
    if len(values) < 2:
        return np.full(values.shape[1:], UNKNOWN_ERROR**2)
    with np.errstate(invalid="ignore"):
        variance = np.where(use, np.where(use, values, 0.0).var(axis=0, ddof=1), 0.0)
    mean = variance[use].mean()
    return 0.5 * (variance + mean) if mean > 0 else np.full(variance.shape, UNKNOWN_ERROR**2)


@dataclass
class Calibration:
    """How far the errors exceed the spread of the members, learned from predictions made before the truth was known."""

    squares: float = PSEUDO_COUNTS
    count: float = PSEUDO_COUNTS

    def add(self, errors: NDArray, variance: NDArray) -> None:
        """Take in errors (eV) with their expected variances (eV²)."""
        use = np.isfinite(errors) & (variance > 0)
        self.squares += float((errors[use] ** 2 / variance[use]).sum())
        self.count += float(use.sum())

    def relative_variance(self, variance: NDArray, kT: float) -> NDArray[np.float64]:
        """Variance of exp(−x/k_BT) relative to its squared mean, for a normal error of x."""
        return np.expm1(np.minimum(self.squares / self.count * variance / kT**2, MOST))
