"""From relaxed displacements and rates of weighted states to a `Transport`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.kinetics.rates import Rates, RateSource, check_scale, rates_from_barriers
from ase_kinoson.kinetics.weights import EnergyDrift
from ase_kinoson.kinosons.coefficients import Averages, Composition, coefficients
from ase_kinoson.kinosons.functional import JumpTerms
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, Transport
from ase_kinoson.kinosons.statistics import Bootstrap
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.kinosons.verdict import heavy_share

__all__ = ["assemble", "pair_terms", "rates_and_energies", "tracer_terms"]


def rates_and_energies(
    rates: Rates, occupations: NDArray, carriers: NDArray
) -> tuple[NDArray[np.float64], JumpEnergies | None]:
    """Rates of all jumps, s⁻¹, shape (n_states, J), and the energies behind them; the source is asked once."""
    energies = rates.energies(occupations, carriers)
    if energies is None or isinstance(rates.source, RateSource):
        return rates(occupations, carriers), energies
    assert rates.temperature_K is not None
    frequency = rates._frequency(energies)
    return rates_from_barriers(energies.barrier, rates.temperature_K, attempt_frequency=frequency), energies


def pair_terms(w: NDArray, moved: NDArray, index: NDArray) -> NDArray[np.float64]:
    """½ Σ_k W_k x^a_k ⊗ x^b_k of every state, Å²/s, shape (n_states, n_species, n_species, 3, 3).

    Parameters
    ----------
    w : ndarray, shape (n_states, J)
        Rates, s⁻¹.
    moved : ndarray, shape (n_states, J, n_all_species, 3)
        Displacements, Å.
    index : ndarray of int, shape (n_species,)
        Which species.
    """
    x = moved[:, :, index]
    return 0.5 * np.einsum("nk,nkax,nkby->nabxy", w, x, x, optimize=True)


def tracer_terms(w: NDArray, squares: NDArray, index: NDArray) -> NDArray[np.float64]:
    """½ Σ_k W_k Σ_{i∈a} x_i ⊗ x_i of every state, Å²/s, shape (n_states, n_species, 3, 3).

    Parameters
    ----------
    w : ndarray, shape (n_states, J)
        Rates, s⁻¹.
    squares : ndarray, shape (n_states, J, n_all_species, 3, 3)
        Σ_{i∈a} x_i ⊗ x_i, Å².
    index : ndarray of int, shape (n_species,)
        Which species.
    """
    return 0.5 * np.einsum("nk,nkaxy->naxy", w, squares[:, :, index], optimize=True)


def assemble(
    states: States,
    jumps: JumpNetwork,
    w: NDArray,
    energies: JumpEnergies | None,
    terms: JumpTerms,
    boot: Bootstrap | None,
    *,
    kind: str,
    temperature_K: float | None,
    vacancy_fraction: float | VacancyFraction | None,
    drift: EnergyDrift | None,
    n_rejected: int,
    relaxation: Relaxation | None,
    settings: Mapping[str, Any],
    exact_tracers: Mapping[str, NDArray] | None = None,
    with_tracers: bool = True,
    state_energies: NDArray | None = None,
) -> Transport:
    """Average over states and derive every coefficient.

    Parameters
    ----------
    states, jumps
        Weighted states and their jumps.
    w : ndarray, shape (n_states, J)
        Rates, s⁻¹.
    energies
        Barriers and energy changes, or None for a gas of rates.
    terms
        Relaxed displacements of all jumps.
    boot
        Resamples for the errors; None for exact results, whose errors are 0.
    kind
        Kind of the diagonal coefficients.
    temperature_K, vacancy_fraction, drift, n_rejected, relaxation, settings
        Passed on to the result.
    exact_tracers : mapping of str to ndarray, shape (3, 3)
        Λ*_a solved elsewhere, Å²/s; default from ``terms``.
    with_tracers
        Whether tracer coefficients are wanted.
    state_energies : ndarray, shape (n_states,), optional
        Energies of the states, eV, for the table.
    """
    check_scale(w, states.weights, barrier=None if energies is None else energies.barrier, temperature_K=temperature_K)
    composition = Composition.of(states)

    def average(x: NDArray) -> NDArray:
        if boot is None:
            return np.tensordot(states.weights, x, axes=(0, 0))[None]
        return boot.rows(x)

    collective, collective_bare = (pair_terms(w, x, composition.index) for x in (terms.displacement, terms.bare))
    tracer: NDArray | None = None
    if exact_tracers is not None:
        tracer = np.array([exact_tracers[s] for s in composition.species])[None]
    elif with_tracers:
        tracer = average(tracer_terms(w, terms.tracer, composition.index))
    bare = average(collective_bare)
    averages = Averages(
        average(collective),
        bare,
        tracer,
        np.einsum("raaxy->raxy", bare),
        has_errors=boot is not None and boot.has_errors,
        exact=boot is None,
    )
    derived = coefficients(
        averages,
        jumps,
        composition,
        kind=kind,
        off_diagonal=ESTIMATE if kind == BOUND else None,
        temperature_K=temperature_K,
        vacancy_fraction=vacancy_fraction,
    )
    own = np.einsum("nabxy,xy->n", collective, jumps.projector) / jumps.dimension
    size, share_of_one = heavy_share(states.weights * own, states.groups)
    table = KinosonTable.build(states, jumps, rates=w, energies=energies, terms=terms, state_energies=state_energies)
    exists = jumps.exists[jumps.basis_of(states.carriers)]
    return Transport(
        **derived,
        kinosons=table,
        drift=drift,
        ensemble=states.ensemble,
        effective_sample_size=states.effective_sample_size,
        contribution_sample_size=size,
        largest_share=share_of_one,
        n_states=len(states),
        n_barriers=int(exists.sum()) - n_rejected,
        n_rejected=n_rejected,
        settings=settings,
        states=states,
        relaxation=relaxation,
    )
