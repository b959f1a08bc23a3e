"""Evaluating the variational functional on weighted states."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.training_distance import far_from_training
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import FewKinosons, KinosonWarning, LooseBound, NoBarrier, SmallSample, StatesError
from ase_kinoson.kinetics.weights import energy_drift
from ase_kinoson.kinosons.assembly import assemble, rates_and_energies
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import NO_BOUND, Transport
from ase_kinoson.kinosons.statistics import Bootstrap
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.kinosons.verdict import HEAVY_SHARE, judge, rates_of_states
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["Transport", "transport"]

FEW_STATES = 5
"""Effective, independent states below which an error bar is a guess: it is itself uncertain by 1/√(2(n − 1))."""
FEW_GROUPS = 10
"""Effective groups behind D_v below which its error bar is made by a few."""
MANY_GROUPS = 20
"""Groups of states from which on that is not for want of states alone."""
ASKED = 128
"""States on which the models of an ensemble are compared."""
BARE_SHARE = 0.01
"""Share of the uncorrelated diffusivity from jumps without a barrier that passes without a warning."""


def transport(
    states: States,
    jumps: JumpNetwork,
    barriers: Any,
    relaxation: Relaxation | None = None,
    temperature_K: float | None = None,
    *,
    vacancy_fraction: float | VacancyFraction | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    n_resamples: int = 400,
    seed: int = 0,
) -> Transport:
    """Evaluate the variational functional and derive all transport coefficients.

    Parameters
    ----------
    states
        Equilibrium states of the energies that belong to the barriers, with weights. For a rigorous bound, no fit
        may have
        seen them.
    jumps
        Jumps of the carrier.
    barriers
        Reference barriers of these states, a barrier model, or a lattice gas.
    relaxation
        Any relaxation y; None means y = 0 (uncorrelated jumps).
    temperature_K
        K.
    vacancy_fraction
        Site fraction of vacancies c_v on the mobile sites, a number or a :class:`VacancyFraction` whose error enters
        those of D* and L_ab; without it, coefficients of atoms are per c_v.
    attempt_frequency
        s⁻¹; one number for all jumps.
    n_resamples, seed
        Bootstrap over groups of states.

    Raises
    ------
    StatesError
        If states and jumps do not belong together.
    BarrierError
        If a state has no barriers.

    Notes
    -----
    D. R. Trinkle, Phys. Rev. Lett. 121, 235901 (2018); docs/theory.md#the-variational-principle. Why reference barriers
    and y of a model still give a bound: docs/derivations.md#the-bound-on-reference-barriers.
    """
    rates, temperature_K = rates_of_states(
        states, jumps, barriers, temperature_K=temperature_K, attempt_frequency=attempt_frequency
    )
    check_relaxation(relaxation, jumps)
    w, energies = rates_and_energies(rates, states.occupations, states.carriers)
    terms = jump_terms(relaxation, states.occupations, states.carriers, network=jumps)
    drift, rejected = None, 0
    if energies is not None:
        moving = jumps.moving_species(states.occupations, states.carriers)
        drift = energy_drift(states, w, energies.delta_e, moving, seed=seed)
        rejected = int((jumps.exists[jumps.basis_of(states.carriers)] & ~np.isfinite(energies.barrier)).sum())
    kind, reasons = judge(states, rates, barriers, relaxation, drift)
    boot = Bootstrap.over(states.weights, states.groups, n_resamples=n_resamples, seed=seed)
    result = assemble(
        states,
        jumps,
        w,
        energies,
        terms,
        boot,
        kind=kind,
        temperature_K=temperature_K,
        vacancy_fraction=vacancy_fraction,
        drift=drift,
        n_rejected=rejected,
        relaxation=relaxation,
        state_energies=rates.state_energies(states.occupations),
        settings={
            "attempt_frequency": rates.attempt_frequency,
            "n_resamples": n_resamples,
            "seed": seed,
            "lookahead": relaxation.lookahead if relaxation else None,
            "deeper": relaxation is not None and relaxation.scales is not None,
            "source": type(barriers).__name__,
            "states_source": states.source,
        },
    )
    if hasattr(barriers, "predict_with_error"):
        reasons += far_from_training(barriers, states[: min(len(states), ASKED)])
    reasons += doubts(result, len(np.unique(states.groups)), has_errors=boot.has_errors)
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
    return replace(result, warnings=tuple(reasons))


def check_relaxation(relaxation: Relaxation | None, jumps: JumpNetwork) -> None:
    """Refuse a relaxation of other jumps or another supercell.

    Raises
    ------
    StatesError
    """
    if relaxation is not None and relaxation.network.fingerprint != jumps.fingerprint:
        raise StatesError("the relaxation was trained on other jumps; expected the same network; train it again")
    if relaxation is not None and relaxation.network.supercell != jumps.supercell:
        raise StatesError(
            "the relaxation belongs to another supercell; expected that of the states; load or train it with "
            "jumps on that supercell"
        )


def doubts(result: Transport, n_groups: int, *, has_errors: bool) -> list[KinosonWarning]:
    """Everything about the numbers of a result that a user should know."""
    reasons: list[KinosonWarning] = []
    if has_errors and result.contribution_sample_size > 0 and result.largest_share > HEAVY_SHARE:
        reasons.append(
            FewKinosons(
                f"one of {n_groups} independent groups of states carries "
                f"{100 * result.largest_share:.0f} % of the vacancy diffusivity; expected less than "
                f"{100 * HEAVY_SHARE:.0f} %; its error bar is too small, and so may be the value",
                number=100 * result.largest_share,
                limit=100 * HEAVY_SHARE,
                unit="%",
                advice="add states",
            )
        )
    elif has_errors and n_groups >= MANY_GROUPS and 0 < result.contribution_sample_size < FEW_GROUPS:
        reasons.append(
            FewKinosons(
                f"the vacancy diffusivity rests on {result.contribution_sample_size:.1f} effective groups of states of "
                f"{n_groups}; expected at least {FEW_GROUPS}; its error bar is made by a few rare ones, and may be too "
                "small",
                number=result.contribution_sample_size,
                limit=FEW_GROUPS,
                unit="groups",
                advice="add states, or draw them where the fast jumps are with active_barriers()",
            )
        )
    few = round(result.effective_sample_size, 1) < FEW_STATES
    # of few states reweight() has told already; it does not count groups
    told = few and result.states is not None and result.states.report.get("reweighted")
    size = min(result.effective_sample_size, n_groups)
    if has_errors and not told and round(size, 1) < FEW_STATES and len(result.species) > 1:
        reasons.append(
            SmallSample(
                f"the averages rest on {size:.1f} effective, independent states; expected at least {FEW_STATES}; the "
                "error bars are themselves uncertain by a third or more",
                number=size,
                limit=FEW_STATES,
                unit="states",
                advice="compute barriers of more independent states, or sample with energies nearer to theirs",
            )
        )
    if len(result.kinosons):  # of states in chunks it is told from sums
        table = result.kinosons
        reasons += without_barrier(table["barrier"], table["weight"] * table["uncorrelated"])
    if result.relaxation is not None and result.vacancy_diffusivity.kind != NO_BOUND:
        reasons += _worse_than_none(result)
    return reasons


def without_barrier(barrier: NDArray, part: NDArray) -> list[KinosonWarning]:
    """Say where jumps of no barrier carry the result: their rates are those of no activated jump.

    Parameters
    ----------
    barrier : ndarray, shape (n,)
        Of jumps, eV; NaN where the source has none.
    part : ndarray, shape (n,)
        Their contributions without relaxation, in any unit.
    """
    none = barrier <= 0.0
    return carried_without_barrier(
        int(none.sum()), float(barrier[none].min(initial=0.0)), float(part[none].sum()), float(part.sum())
    )


def carried_without_barrier(n: int, lowest: float, part: float, total: float) -> list[KinosonWarning]:
    """:func:`without_barrier` of n jumps with barriers down to ``lowest`` (eV) that make ``part`` of ``total``."""
    share = part / total if total > 0 else 0.0
    if share <= BARE_SHARE:
        return []
    return [
        NoBarrier(
            f"{n} jumps have a barrier of 0 or less, the lowest {lowest:.3f} eV, and carry "
            f"{100 * share:.0f} % of the vacancy diffusivity without relaxation; expected less than "
            f"{100 * BARE_SHARE:.0f} %, because such jumps are faster than the attempt frequency",
            number=100 * share,
            limit=100 * BARE_SHARE,
            unit="%",
            advice="look at them: a model is far from its data there, or one end of the jump is no stable state",
        )
    ]


def _worse_than_none(result: Transport) -> list[KinosonWarning]:
    """Say where y = 0 would be a tighter bound, which costs nothing to see."""
    factors = {**result.collective_correlation_factor}
    factors |= {f"tracer {s}": q for s, q in result.correlation_factor.items()}
    bad = [name for name, q in factors.items() if q.value > 1.05 + 2.0 * np.nan_to_num(float(q.error))]
    if not bad:
        return []
    return [
        LooseBound(
            f"the relaxation makes the bound of {', '.join(bad)} worse than none does; expected a factor below 1; it "
            "was trained on other rates or another temperature",
            number=max(float(factors[name].value) for name in bad),
            limit=1,
            advice="train it here with start=, or use Relaxation.at()",
        )
    ]
