"""Weights that carry states from a model's ensemble to the reference energies, and a check."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import SmallSample, StatesError
from ase_kinoson.kinetics.rates import rates_from_barriers
from ase_kinoson.kinetics.resampling import draw_groups, standard_error
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY, thermal_energy

__all__ = ["EnergyDrift", "energy_drift", "reweight", "sample_drift"]

SIGMAS = 3.0
NEGLIGIBLE = 1e-10
"""Energy changes below this (eV) are rounding."""


def reweight(states: States, reference_energies: ArrayLike, temperature_K: float) -> States:
    """Weight states that were drawn with model energies to reference energies.

    w ∝ exp(−(E_ref − E_model)/k_BT), self-normalised: over all states in the equilibrium ensemble; within
    each group (arrangement of the atoms) in the quenched ensemble, where each group keeps its total weight.

    Parameters
    ----------
    states
        From Monte Carlo of a model at the same temperature; not yet reweighted.
    reference_energies : array_like, shape (n_states,)
        eV; a common constant does not matter. States whose energy is not finite get weight 0.
    temperature_K
        K.

    Returns
    -------
    States
        With new weights; ``report`` gains ``effective_sample_size`` and ``energy_difference_std_eV``.

    Raises
    ------
    StatesError
        If the states were not drawn with a model at this temperature, are weighted already, or have not one energy
        each.

    Warns
    -----
    KinosonWarning
        If the effective sample size is below 30 % of the states or below 5, or no group of a quenched
        ensemble holds two states.

    Notes
    -----
    Derivation: docs/derivations.md#states-drawn-with-another-energy.
    """
    kT = thermal_energy(temperature_K)
    reference = np.asarray(reference_energies, dtype=float)
    if states.ensemble == "random" or states.model_energies is None:
        raise StatesError(
            f"found states of the {states.ensemble!r} ensemble "
            f"{'without' if states.model_energies is None else 'with'} model energies; "
            "expected Monte Carlo states, whose probabilities are known; sample with method='monte-carlo'"
        )
    if states.report.get("reweighted"):
        raise StatesError("found states that are reweighted already; expected states as they were drawn; weight those")
    if reference.shape != (len(states),):
        raise StatesError(
            f"found {reference.shape} reference energies for {len(states)} states; expected one per state; "
            f"compute them all"
        )
    if states.temperature_K is not None and abs(states.temperature_K - temperature_K) > 1e-6:
        raise StatesError(
            f"found temperature_K={temperature_K} for states drawn at {states.temperature_K} K; expected the "
            "same; draw states at each temperature, or carry these over with pool_states()"
        )
    known = np.isfinite(reference)
    if not known.any():
        raise StatesError("found no finite reference energy; expected one per state; compute barriers first")
    difference = np.where(known, reference - states.model_energies, 0.0)
    weights = np.zeros(len(states))
    together = states.groups if states.ensemble == "quenched" else np.zeros(len(states), dtype=np.int64)
    for label in np.unique(together):
        own = (together == label) & known & (states.weights > 0)
        if own.any():
            factor = states.weights[own] * np.exp(-(difference[own] - difference[own].min()) / kT)
            weights[own] = factor / factor.sum() * states.weights[together == label].sum()
    result = states.with_weights(weights)
    size = result.effective_sample_size
    spread = float(np.std(difference[known]))
    before = states.effective_sample_size
    if size < 0.3 * before or round(size, 1) < 5.0:  # as printed
        warnings.warn(
            SmallSample(
                f"the effective sample size after reweighting is {size:.1f} of {len(states)} states (energies "
                f"differ by {spread:.3f} eV, k_BT is {kT:.3f} eV); expected at least 30 % and 5",
                number=size,
                limit=max(0.3 * before, 5.0),
                unit="states",
                advice="fit the model again with these energies and sample anew",
            ),
            stacklevel=2,
        )
    elif states.ensemble == "quenched" and (bias := _normalisation_bias(states, weights)) > 0.02:
        warnings.warn(
            SmallSample(
                f"weights normalised within arrangements of few states bias averages by about {100 * bias:.0f} %; "
                "expected at most 2 %",
                number=100 * bias,
                limit=2.0,
                unit="%",
                advice="sample more states per arrangement (a smaller n_chains)",
            ),
            stacklevel=2,
        )
    elif states.ensemble == "quenched" and np.bincount(np.unique(states.groups, return_inverse=True)[1]).max() < 2:
        warnings.warn(
            SmallSample(
                "every arrangement of the quenched ensemble has one state, so that weights cannot change; "
                "expected several per arrangement",
                number=1,
                limit=2,
                unit="states",
                advice="sample with n_chains smaller than n",
            ),
            stacklevel=2,
        )
    about = {
        "reweighted": True,
        "drawn_weights": states.weights.tolist(),
        "effective_sample_size": size,
        "energy_difference_std_eV": spread,
    }
    return result.with_weights(result.weights, **about)


def _normalisation_bias(states: States, weights: NDArray[np.float64]) -> float:
    """Relative bias of self-normalised weights, cv²/m for m states per arrangement, averaged over arrangements."""
    found = []
    for label in np.unique(states.groups):
        w = weights[states.groups == label]
        if len(w) > 1 and w.sum() > 0:
            found.append((len(w) * np.square(w).sum() / w.sum() ** 2 - 1.0) / len(w))
    return float(np.mean(found)) if found else 0.0


@dataclass(frozen=True)
class EnergyDrift:
    """Mean energy gained per jump, in units of the mean absolute energy change: zero in equilibrium.

    Attributes
    ----------
    value : float
        ⟨Σ_k W_k ΔE_k⟩ / ⟨Σ_k W_k |ΔE_k|⟩, between −1 and 1.
    error : float
        Bootstrap over groups; ``inf`` where there is one group only.
    by_species : mapping of str to (float, float)
        Value and error for the jumps of each species.
    n_groups : int
        Number of independent groups.
    """

    value: float
    error: float
    by_species: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n_groups: int = 0

    @property
    def limit(self) -> float:
        """Largest size of a total drift that is zero within three errors, in the unit of the drift."""
        return SIGMAS * self.error + 1e-9

    @property
    def consistent(self) -> bool:
        """Whether the total drift is zero within three errors (those of rare species are themselves uncertain)."""
        return bool(abs(self.value) <= self.limit)

    def __str__(self) -> str:
        parts = [f"{s} {v:+.3f} ± {e:.3f}" for s, (v, e) in self.by_species.items()]
        return f"energy drift {self.value:+.3f} ± {self.error:.3f} ({', '.join(parts)})"


def energy_drift(
    states: States,
    rates: ArrayLike,
    delta_e: ArrayLike,
    moving_species: ArrayLike,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> EnergyDrift:
    """Check that weighted states are an equilibrium average of the very rates used.

    In equilibrium every jump is as frequent as its reverse, which changes the energy by the opposite amount,
    so that ⟨Σ_k W_k ΔE_k⟩ = 0, in total and for the jumps of each species.

    Parameters
    ----------
    states
        With weights and groups.
    rates : array_like, shape (n_states, J)
        s⁻¹; 0 where there is no jump.
    delta_e : array_like, shape (n_states, J)
        eV; ignored where the rate is 0.
    moving_species : array_like of int, shape (n_states, J)
        Species code of the atom that moves.
    n_bootstrap, seed
        Resamples of whole groups.

    Returns
    -------
    EnergyDrift
        The drift, no unit, with its error: in total and of each species.

    Raises
    ------
    StatesError
        If the arrays do not have one row per state and one shape.

    Notes
    -----
    Derivation: docs/derivations.md#the-energy-drift-tells-equilibrium.
    """
    w = np.asarray(rates, dtype=float)
    change = np.asarray(delta_e, dtype=float)
    kind = np.asarray(moving_species)
    if w.ndim != 2 or len(w) != len(states) or change.shape != w.shape or kind.shape != w.shape:
        raise StatesError(
            f"found rates {w.shape}, delta_e {change.shape} and moving_species {kind.shape} for "
            f"{len(states)} states; expected three "
            "arrays (n_states, n_jumps); pass those of the same states"
        )
    live = w > 0
    gain = np.where(live, w, 0.0) * np.where(live & (np.abs(change) > NEGLIGIBLE), change, 0.0)
    size = np.abs(gain)
    labels, index = np.unique(states.groups, return_inverse=True)
    weighs = np.bincount(index, states.weights, minlength=len(labels)) > 0  # a group of no weight tells nothing
    codes = [c for c in range(1, len(states.supercell.species)) if np.any(live & (kind == c))]
    masks = [live, *[live & (kind == c) for c in codes]]
    sums = np.zeros((2, len(masks), len(labels)))
    for m, mask in enumerate(masks):
        for k, what in enumerate((gain, size)):
            sums[k, m] = np.bincount(
                index, states.weights * np.where(mask, what, 0.0).sum(axis=1), minlength=len(labels)
            )
    sums, n_groups = sums[:, :, weighs], int(weighs.sum())
    value = _ratio(sums.sum(axis=-1))
    error = np.full(len(masks), np.inf)
    if n_groups > 1:
        draws = draw_groups(n_groups, n_bootstrap, np.random.default_rng(seed)).astype(float)
        error = standard_error(_ratio(sums @ draws.T).T)
    named = {states.supercell.species[c]: (float(value[1 + i]), float(error[1 + i])) for i, c in enumerate(codes)}
    return EnergyDrift(float(value[0]), float(error[0]), named, n_groups)


def sample_drift(
    barriers: Barriers,
    temperature_K: float,
    *,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> EnergyDrift:
    """Energy drift of a sample from its own barriers: zero if it is an equilibrium sample of their energies.

    The error is by blocking: whole groups of states (chains) are resampled. Jumps without a barrier count as absent.

    Parameters
    ----------
    barriers
        Reference barriers of all jumps of weighted states.
    temperature_K
        K.
    attempt_frequency
        s⁻¹.
    n_bootstrap, seed
        Resamples of whole groups.

    Notes
    -----
    Derivation: docs/derivations.md#the-energy-drift-tells-equilibrium.
    """
    rates = rates_from_barriers(barriers.barrier, temperature_K, attempt_frequency=attempt_frequency)
    change = np.nan_to_num(barriers.delta_e, nan=0.0)
    return energy_drift(barriers.states, rates, change, barriers.moving_species, n_bootstrap=n_bootstrap, seed=seed)


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """First over second entry, 0 where both vanish."""
    return np.where(sums[1] > 0, sums[0] / np.where(sums[1] > 0, sums[1], 1.0), 0.0)
