"""States drawn at several temperatures, pooled and weighted to any temperature between them.

A barrier does not depend on temperature: only the weights of the states and the rates do. With n_i states drawn at
β_i with model energies E, all states together are a sample of the mixture Σ_i n_i exp(f_i − β_i E), so that

    w(T) ∝ exp(−β E_ref) / Σ_i n_i exp(f_i − β_i E)

carries them to the reference energies at any T: multiple importance sampling with the balance heuristic (Veach and
Guibas, SIGGRAPH 1995), whose f_i = −ln Z_i solve the equations of MBAR (Shirts and Chodera, J. Chem. Phys. 129,
124105 (2008)).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, NotAtEquilibrium, SmallSample, StatesError
from ase_kinoson.units import thermal_energy

__all__ = ["free_energies", "pool_states"]

MARGINAL = 0.3
"""Share of the independent groups of states that must be left for a pool to pass without a warning."""

APART = 5.0
"""Standard errors between the mean energy of a set and what the other sets say of it, beyond which a warning is due."""

OVERLAP = 10.0
"""Effective states of the other sets that are needed to say anything about a set."""


@overload
def pool_states(
    sets: Sequence[Barriers], temperature_K: float, *, smallest_sample: float = ..., one_model: bool = ...
) -> Barriers: ...


@overload
def pool_states(
    sets: Sequence[tuple[States, ArrayLike]],
    temperature_K: float,
    *,
    smallest_sample: float = ...,
    one_model: bool = ...,
) -> States: ...


def pool_states(
    sets: Sequence[Any], temperature_K: float, *, smallest_sample: float = 10.0, one_model: bool = True
) -> Barriers | States:
    """Weight states that were drawn at several temperatures to the reference energies at one.

    One set alone is reweighted from its own temperature to another.

    Parameters
    ----------
    sets : sequence of Barriers, or of (States, array_like of shape (n_states,))
        Equilibrium states from Monte Carlo at one temperature each, as they were drawn, with their reference energies
        (eV; those of :class:`Barriers` are its ``energy_initial``). States whose energy is not finite get weight 0.
        Draw every set with a seed of its own: equal seeds make chains at different temperatures alike.
    temperature_K
        To which the states are weighted, K; any, as long as enough states are left.
    smallest_sample
        Effective number of independent groups of states (chains) below which the pool is refused; half of all groups
        where there are fewer than twice that many.
    one_model
        Whether all sets were drawn with the same energy model, so that each knows how likely the states of the others
        were: the mixture of all sets. If not, every set is weighted on its own, w ∝ exp(−βE_ref + β_i E_i), and the
        sets are averaged in proportion to their effective sample sizes.

    Returns
    -------
    Barriers or States
        All states, as of an equilibrium sample at ``temperature_K``; barriers where barriers were given. States of
        different sets stay in different groups. ``report`` gains ``effective_sample_size`` (states),
        ``effective_groups``, and ``pooled``: a list with ``temperature_K``, ``n_states``, ``share`` (of the weight)
        and ``effective_sample_size`` of each set.

    Raises
    ------
    StatesError
        If hardly any state is left at this temperature, or a set is no equilibrium sample as it was drawn.
    KinosonError
        If ``smallest_sample`` is not positive.

    Warns
    -----
    KinosonWarning
        If less than 30 % of the groups are left, or the sets contradict each other.

    Notes
    -----
    Weights are self-normalised, which biases averages by about one part in the effective sample size.

    The equations are those of MBAR, M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008); derivation:
    docs/derivations.md#states-of-several-temperatures.
    """
    if len(sets) == 0:
        raise StatesError("found no states to pool; expected at least one set; sample or compute some first")
    parts = [_part(one) for one in sets]
    _check(parts)
    beta = 1.0 / thermal_energy(temperature_K)
    drawn = np.array([1.0 / thermal_energy(s.temperature_K) for s, _ in parts if s.temperature_K is not None])
    member = np.repeat(np.arange(len(parts)), [len(s) for s, _ in parts])
    reference = np.concatenate([e for _, e in parts])
    sampled = np.concatenate([np.asarray(s.model_energies) for s, _ in parts])
    known = np.isfinite(reference)
    if not known.any():
        raise StatesError("found no finite reference energy; expected one per state; compute barriers first")
    groups = _apart([s for s, _ in parts])
    target = np.where(known, -beta * (reference - reference[known].mean()), -np.inf)
    sampled = sampled - sampled.mean()
    about: dict[str, Any] = {"reweighted": True}
    if one_model:
        counts, free = np.bincount(member), free_energies(sampled, drawn, member)
        log_mixture = _log_mixture(sampled, drawn, counts, free)
        weights = _normalised(target - log_mixture)
        _compare(sampled, drawn, member, groups, counts, free)
        of_model = _normalised(-beta * sampled - log_mixture)
        # of the model itself they are as good as drawn; for ratios to the model others are as the model weights them
        about = (
            {} if np.allclose(weights, of_model, rtol=1e-5, atol=0.0) else about | {"drawn_weights": of_model.tolist()}
        )
    else:
        weights = np.zeros(len(member))
        for i in range(len(parts)):
            own = member == i
            if known[own].any():
                share = _normalised(target[own] + drawn[i] * sampled[own])
                weights[own] = share / np.square(share).sum()
    result = _joined([s for s, _ in parts], groups, weights, temperature_K)
    report = _report(result, member, parts)
    _judge(report, result, parts, smallest_sample)
    result = result.with_weights(result.weights, **about, **report)
    if isinstance(sets[0], Barriers):
        return replace(Barriers.concatenate(list(sets)), states=result)
    return result


def free_energies(
    energies: NDArray[np.float64], betas: NDArray[np.float64], member: NDArray[np.int64]
) -> NDArray[np.float64]:
    """f_i = −ln Z_i of several temperatures of one energy, from states drawn at each; f_0 = 0.

    They minimise the convex Σ_n ln Σ_i n_i exp(f_i − β_i E_n) − Σ_i n_i f_i, whose gradient vanishes where the
    equations of MBAR hold (Shirts and Chodera 2008, eq. C1; the form of Tan et al., J. Chem. Phys. 136, 144102 (2012)).

    Parameters
    ----------
    energies : ndarray, shape (n,)
        eV, of all states.
    betas : ndarray, shape (n_sets,)
        1/eV.
    member : ndarray of int, shape (n,)
        Set of each state.

    Returns
    -------
    ndarray, shape (n_sets,)
    """
    counts = np.bincount(member, minlength=len(betas))
    if len(betas) == 1:
        return np.zeros(1)
    mean = np.bincount(member, weights=energies, minlength=len(betas)) / counts
    # start with dF/dβ = ⟨E⟩, integrated from one temperature to the next by trapezoids
    order = np.argsort(betas)
    start = np.zeros(len(betas))
    steps = 0.5 * np.diff(betas[order]) * (mean[order][1:] + mean[order][:-1])
    start[order[1:]] = np.cumsum(steps)
    start -= start[0]

    def shares(free: NDArray) -> tuple[NDArray, NDArray]:
        log = np.log(counts) + np.concatenate([[0.0], free]) - np.outer(energies, betas)
        top = logsumexp(log, axis=1)
        return np.exp(log - top[:, None]), top

    def value(free: NDArray) -> float:
        return float(shares(free)[1].sum() - counts[1:] @ free)

    def slope(free: NDArray) -> NDArray:
        return (shares(free)[0].sum(axis=0) - counts)[1:]

    def curvature(free: NDArray) -> NDArray:
        p = shares(free)[0][:, 1:]
        return np.diag(p.sum(axis=0)) - p.T @ p

    # trust-exact stops at the norm of the slope, which is in units of states
    found = minimize(value, start[1:], jac=slope, hess=curvature, method="trust-exact", options={"gtol": 1e-8})
    return np.concatenate([[0.0], found.x])


def _log_mixture(energies: NDArray, betas: NDArray, counts: NDArray, free: NDArray) -> NDArray[np.float64]:
    """Logarithm of Σ_i n_i exp(f_i − β_i E), shape (n,)."""
    return np.asarray(logsumexp(np.log(counts) + free - np.outer(energies, betas), axis=1))


def _normalised(log: NDArray) -> NDArray[np.float64]:
    weights = np.exp(log - log.max())
    return weights / weights.sum()


def _part(one: Any) -> tuple[States, NDArray[np.float64]]:
    if isinstance(one, Barriers):
        return one.states, np.asarray(one.energy_initial, dtype=float)
    states, energies = one
    reference = np.asarray(energies, dtype=float)
    if reference.shape != (len(states),):
        raise StatesError(
            f"found {reference.shape} reference energies for {len(states)} states; expected one per state; compute "
            "them all"
        )
    return states, reference


def _check(parts: list[tuple[States, NDArray]]) -> None:
    first = parts[0][0]
    seen: set[tuple[float | None, bytes]] = set()
    for i, (states, _) in enumerate(parts):
        if states.supercell != first.supercell:
            raise StatesError(
                f"found set {i} on a supercell of {states.supercell.n_sites} sites beside one of "
                f"{first.supercell.n_sites}; expected one supercell and composition; pool sets of one study"
            )
        if states.ensemble != "equilibrium" or states.model_energies is None or states.temperature_K is None:
            raise StatesError(
                f"found set {i} of the {states.ensemble!r} ensemble at {states.temperature_K} K "
                f"{'without' if states.model_energies is None else 'with'} model energies; expected Monte Carlo "
                "states of the equilibrium ensemble, whose probabilities are known; sample with "
                "method='monte-carlo', and evaluate quenched states at their own temperature"
            )
        if states.report.get("reweighted") or np.ptp(states.weights) > 1e-9 * states.weights.max():
            raise StatesError(
                f"found weighted states in set {i}; expected states as they were drawn; pool those, before reweight()"
            )
        key = (states.temperature_K, states.occupations.tobytes())
        if key in seen:
            raise StatesError(f"found set {i} twice; expected different states; pass every set once")
        seen.add(key)


def _apart(sets: list[States]) -> NDArray[np.int64]:
    """Group of every state; equal numbers in different sets are different groups."""
    found, shift = [], 0
    for states in sets:
        labels = np.unique(states.groups, return_inverse=True)[1]
        found.append(labels + shift)
        shift += int(labels.max(initial=-1)) + 1
    return np.concatenate(found).astype(np.int64)


def _joined(sets: list[States], groups: NDArray, weights: NDArray, temperature_K: float) -> States:
    at = ", ".join(f"{s.temperature_K:g} K" for s in sets)
    return States.from_occupations(
        sets[0].supercell,
        np.concatenate([s.occupations for s in sets]),
        carriers=np.concatenate([s.carriers for s in sets]),
        weights=weights,
        groups=groups,
        ensemble="equilibrium",
        temperature_K=float(temperature_K),
        source=f"pooled from {at}: " + "; ".join(dict.fromkeys(s.source for s in sets)),
        model_energies=np.concatenate([np.asarray(s.model_energies) for s in sets]),
    )


def _report(pooled: States, member: NDArray, parts: list[tuple[States, NDArray]]) -> dict[str, Any]:
    mass = np.bincount(pooled.groups, weights=pooled.weights)
    by_set = []
    for i, (states, _) in enumerate(parts):
        w = pooled.weights[member == i]
        by_set.append(
            {
                "temperature_K": float(states.temperature_K or np.nan),
                "n_states": len(states),
                "share": float(w.sum()),
                "effective_sample_size": float(w.sum() ** 2 / np.square(w).sum()) if np.any(w > 0) else 0.0,
            }
        )
    return {
        "effective_sample_size": pooled.effective_sample_size,
        "effective_groups": float(1.0 / np.square(mass).sum()),
        "pooled": by_set,
    }


def _judge(report: dict[str, Any], pooled: States, parts: list[tuple[States, NDArray]], smallest_sample: float) -> None:
    if not smallest_sample > 0:
        raise KinosonError(f"found smallest_sample={smallest_sample}; expected a positive number; correct it")
    n, left, t = len(np.unique(pooled.groups)), report["effective_groups"], pooled.temperature_K
    limit = min(smallest_sample, 0.5 * n)
    drawn = ", ".join(f"{x:g}" for x in sorted({s.temperature_K or np.nan for s, _ in parts}))
    if left < limit:
        raise StatesError(
            f"found {left:.1f} effective independent groups of {n} when states drawn at {drawn} K are weighted to "
            f"{t:g} K; expected at least {limit:g}; sample states at temperatures nearer to it, fit a better energy "
            "model, or lower smallest_sample"
        )
    if left < MARGINAL * n and left < 3.0 * limit:
        warnings.warn(
            SmallSample(
                f"{left:.1f} effective independent groups of {n} are left when states drawn at {drawn} K are weighted "
                f"to {t:g} K; expected at least {min(MARGINAL * n, 3.0 * limit):.3g}; errors there are large and "
                "uncertain",
                number=left,
                limit=min(MARGINAL * n, 3.0 * limit),
                unit="groups",
                advice="sample states at temperatures nearer to it",
            ),
            stacklevel=3,
        )


def _compare(
    energies: NDArray, betas: NDArray, member: NDArray, groups: NDArray, counts: NDArray, free: NDArray
) -> None:
    """Warn where the mean model energy of a set is not what the other sets, weighted to it, say."""
    for i, beta in enumerate(betas):
        own = member == i
        if own.all():
            return
        others = np.arange(len(betas)) != i
        mixture = _log_mixture(energies, betas[others], counts[others], free[others])  # of which the others are samples
        weights = _normalised(np.where(own, -np.inf, -beta * energies - mixture))
        here, there = _mean(energies[own], groups[own], np.ones(int(own.sum()))), _mean(energies, groups, weights)
        error = float(np.hypot(here[1], there[1]))
        if there[2] >= OVERLAP and error > 0 and abs(here[0] - there[0]) > APART * error:
            warnings.warn(
                NotAtEquilibrium(
                    f"the mean model energy of set {i} differs by {here[0] - there[0]:+.3f} ± {error:.3f} eV from what "
                    "the other sets say; expected sets of one energy model, each in equilibrium",
                    number=here[0] - there[0],
                    limit=APART * error,
                    unit="eV",
                    advice="sample longer, or pass one_model=False for sets of different models",
                ),
                stacklevel=3,
            )
            return


def _mean(values: NDArray, groups: NDArray, weights: NDArray) -> tuple[float, float, float]:
    """Weighted mean, its standard error over groups, and the effective number of groups."""
    member = np.unique(groups, return_inverse=True)[1]
    total = weights.sum()
    mean = float(weights @ values / total)
    mass = np.bincount(member, weights=weights) / total
    gap = np.bincount(member, weights=weights * (values - mean)) / total
    n = max(len(mass), 2)
    return mean, float(np.sqrt(np.square(gap).sum() * n / (n - 1))), float(1.0 / np.square(mass).sum())
