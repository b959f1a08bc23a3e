"""The first rung of the residual ladder on reference barriers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import BarrierError, FailedCalculations, StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.coefficients import Averages
from ase_kinoson.kinosons.corrected import CorrectedTransport, climb, diagonal, finish
from ase_kinoson.kinosons.moments import pairs_of_neighbors
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, ESTIMATE
from ase_kinoson.kinosons.transport import transport
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction

__all__ = ["first_rung"]


def first_rung(
    states: States,
    neighbors: States,
    jumps: JumpNetwork,
    barriers: Any,
    relaxation: Relaxation | None = None,
    temperature_K: float | None = None,
    *,
    vacancy_fraction: float | VacancyFraction | None = None,
    attempt_frequency: float | None = None,
    n_resamples: int = 400,
    seed: int = 0,
) -> CorrectedTransport:
    """Correct a bound with reference barriers of one neighbour per state.

    The first rung of the ladder needs c₀ and c₁ only: the barriers of a state and those of one neighbour, drawn by the
    probability of its jump (:func:`draw_neighbors`). It is a bound again, of the relaxation y + θ r̄ with θ fitted on
    other groups of states than those it is evaluated on.

    Parameters
    ----------
    states
        Equilibrium states, held out from all fits, with weights.
    neighbors
        Their neighbours, row by row.
    jumps
        Jumps of the carrier.
    barriers
        Barriers of both, or any source.
    relaxation, temperature_K, vacancy_fraction, attempt_frequency, n_resamples, seed
        As in :func:`transport`.

    Returns
    -------
    CorrectedTransport
        Of kind ``"bound"`` where the evaluation of the states alone is one.

    Raises
    ------
    StatesError
        If states and neighbours do not belong together, or a neighbour was reached by a jump that the barriers forbid.
    BarrierError
        If barriers of the neighbours were not computed.

    Notes
    -----
    Derivation: docs/derivations.md#the-first-rung-on-reference-barriers.
    """
    options: dict[str, Any] = {} if attempt_frequency is None else {"attempt_frequency": attempt_frequency}
    result = transport(
        states,
        jumps,
        barriers,
        relaxation,
        temperature_K,
        vacancy_fraction=vacancy_fraction,
        n_resamples=n_resamples,
        seed=seed,
        **options,
    )
    rates = Rates.of(barriers, jumps, temperature_K=temperature_K, **options)
    w = rates(states.occupations, states.carriers)
    chosen, drawn = _chosen(states, neighbors, w.shape[1])
    rows = np.arange(len(states))
    escape = w.sum(axis=1)
    if not np.all(w[rows, chosen] > 0):
        raise StatesError(
            "a neighbour was reached by a jump that the barriers do not allow; expected jumps with a finite barrier; "
            "draw the neighbours with these barriers"
        )
    weights = states.weights * w[rows, chosen] / (drawn if drawn is not None else w[rows, chosen] / escape)
    kind, lost = result.vacancy_diffusivity.kind, 0
    if hasattr(rates.source, "missing"):
        failed, never = rates.source.missing(neighbors.occupations, neighbors.carriers)
        if never.any():
            raise BarrierError(
                f"found {int(never.sum())} jumps of the neighbours whose barriers were not computed; expected all "
                "jumps of a neighbour; run compute_barriers without jumps="
            )
        lost = int(failed.sum())
        if lost and kind == BOUND:
            kind = ESTIMATE
            warnings.warn(
                FailedCalculations(
                    f"{lost} barrier searches of the neighbours failed and count as rates of zero; expected none",
                    number=lost,
                    limit=0,
                    unit="searches",
                    advice="see Barriers.reasons, and compute them with other settings",
                ),
                stacklevel=2,
            )
    after = rates(neighbors.occupations, neighbors.carriers)
    assert result.composition is not None
    moments = pairs_of_neighbors(
        states, neighbors, chosen, jumps, relaxation, weights=weights / weights.sum(), rates=(w, after)
    )
    ladder = climb(moments, jumps, result.composition, n_resamples, seed, 1, widen=False)
    ladder.refuse_rounding()
    averages = Averages(ladder.collective, ladder.bare, ladder.tracer, diagonal(ladder.bare))
    more = int((jumps.exists[jumps.basis_of(neighbors.carriers)] & (after > 0)).sum())
    made = finish(result, jumps, averages, ladder, kind, {})
    return replace(made, n_barriers=result.n_barriers + more, n_rejected=result.n_rejected)


def _chosen(states: States, neighbors: States, n_jumps: int) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Jumps that lead from states to neighbours, and the probabilities they were drawn with, if noted."""
    if len(states) != len(neighbors):
        raise StatesError(
            f"found {len(states)} states and {len(neighbors)} neighbours; expected one neighbour per state, row by row"
        )
    about = neighbors.report
    if "jumps" not in about:
        raise StatesError(
            "found neighbours without the jumps that led to them; expected States made by draw_neighbors(), or a "
            "report with 'jumps'; draw them again"
        )
    chosen = np.asarray(about["jumps"], dtype=np.int64)
    drawn = None if about.get("probabilities") is None else np.asarray(about["probabilities"], dtype=float)
    for name, noted in (("jumps", chosen), ("probabilities", drawn)):
        if noted is not None and noted.shape != (len(states),):
            raise StatesError(
                f"found {noted.size} {name} in the report of {len(neighbors)} neighbours; expected one each; draw the "
                "neighbours after selecting states, not before"
            )
    if np.any((chosen < 0) | (chosen >= n_jumps)):
        raise StatesError(
            f"found jumps {chosen.min()} to {chosen.max()} in the report of the neighbours; expected 0 to "
            f"{n_jumps - 1}; draw the neighbours on these jumps"
        )
    if drawn is not None and not np.all((drawn > 0) & (drawn <= 1)):
        raise StatesError(
            "found probabilities of jumps in the report of the neighbours that are not above 0 and at most 1; expected "
            "those of the draws; draw the neighbours again"
        )
    return chosen, drawn
