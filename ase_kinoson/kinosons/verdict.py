"""What an evaluation may be called.

A bound needs equilibrium states of the very energies whose barriers are used, all of these barriers, and states that no
fit has seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import (
    BarrierError,
    FailedCalculations,
    KinosonWarning,
    NotAtEquilibrium,
    SeenStates,
    StatesError,
)
from ase_kinoson.kinetics.rates import Rates, RateSource
from ase_kinoson.kinetics.weights import EnergyDrift
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, NO_BOUND

__all__ = ["check_temperature", "judge", "rates_of_states"]

ENUMERATED = "enumerated"
"""Source of states that are the whole state space, not a sample."""

HEAVY_SHARE = 0.3
"""Share of one independent group in the vacancy diffusivity above which its error bar cannot be trusted."""


def check_temperature(states: States, temperature_K: float | None) -> None:
    """Refuse states that were drawn at another temperature than the rates have.

    Raises
    ------
    StatesError
    """
    drawn = states.temperature_K
    if states.ensemble == "random" or drawn is None or temperature_K is None:
        return
    if abs(drawn - temperature_K) > 1e-6:
        raise StatesError(
            f"found states drawn at {drawn:g} K for rates at {temperature_K:g} K; expected one temperature; sample "
            "states at each temperature, or carry these over with pool_states()"
        )


def rates_of_states(
    states: States, jumps: JumpNetwork, source: Any, *, temperature_K: float | None, attempt_frequency: float
) -> tuple[Rates, float | None]:
    """Rates of the jumps of some states, and their temperature (K; of a gas of rates the one given).

    Raises
    ------
    StatesError
        If states and jumps do not belong together, or the states were drawn at another temperature.
    """
    if states.supercell != jumps.supercell:
        raise StatesError(
            f"the states live on a supercell of {states.supercell.n_sites} sites, the jumps on one of "
            f"{jumps.supercell.n_sites}; expected the same; use jumps.with_supercell(states.supercell)"
        )
    rates = Rates.of(source, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    if not isinstance(rates.source, RateSource):
        temperature_K = rates.temperature_K
        check_temperature(states, temperature_K)
    return rates, temperature_K


def judge(
    states: States, rates: Rates, barriers: Any, relaxation: Relaxation | None, drift: EnergyDrift | None
) -> tuple[str, list[KinosonWarning]]:
    """Decide on the kind of the diagonal coefficients.

    Returns
    -------
    kind : str
    reasons : list of KinosonWarning
        Everything that a user should know.

    Raises
    ------
    BarrierError
        If barriers of some jumps were never computed.
    """
    reasons: list[KinosonWarning] = []
    kind = {"equilibrium": BOUND, "random": NO_BOUND}.get(states.ensemble, ESTIMATE)
    if states.ensemble == "quenched" and rates.network.mechanism == "interstitial":
        kind = BOUND  # the host stays as it is: each arrangement is an equilibrium of its own
    if (
        states.ensemble == "random"
        and isinstance(rates.source, RateSource)
        and getattr(rates.source, "energy", None) is None
    ):
        kind = BOUND  # of a gas all states are equally likely

    def weaken(to: str, reason: KinosonWarning) -> None:
        nonlocal kind
        kind = NO_BOUND if NO_BOUND in (kind, to) else to
        reasons.append(reason)

    if hasattr(rates.source, "missing"):
        failed, never = rates.source.missing(states.occupations, states.carriers)
        if never.any():
            raise BarrierError(
                f"found {int(never.sum())} jumps of these states whose barriers were not computed; expected all jumps "
                "of a state; run compute_barriers without jumps="
            )
        lost = float(states.weights @ failed.sum(axis=1))
        if lost > 0:
            weaken(
                ESTIMATE,
                FailedCalculations(
                    f"{int(failed.sum())} barrier searches failed ({lost:.2g} jumps per state on average) and count as "
                    "rates of zero, which lowers the coefficients",
                    number=int(failed.sum()),
                    limit=0,
                    unit="searches",
                    advice="see Barriers.reasons, and compute them with other settings",
                ),
            )
    seen = _seen(states, rates, barriers, relaxation)
    if seen:
        weaken(
            ESTIMATE,
            SeenStates(
                f"{seen} of {len(states)} states trained the relaxation or the barrier model behind it; the result is "
                "no held-out bound",
                number=seen,
                limit=0,
                unit="states",
                advice="compute barriers of fresh states",
            ),
        )
    gap = _energy_gap(states, rates)
    if gap > 1e-6:
        weaken(
            NO_BOUND,
            NotAtEquilibrium(
                f"the states were drawn with model energies that differ from those of the barriers by {gap:.3f} eV "
                "(standard deviation); expected weights of the energies used",
                number=gap,
                limit=0,
                unit="eV",
                advice="call reweight(states, barriers.energy_initial, temperature_K) first",
            ),
        )
    if drift is not None and not drift.consistent:
        weaken(
            NO_BOUND,
            NotAtEquilibrium(
                f"the energy drifts by {drift.value:+.2f} ± {drift.error:.2f} of the mean energy change per jump; "
                f"expected 0 in equilibrium; these {states.ensemble} states are no equilibrium sample of the barriers "
                "used",
                number=drift.value,
                limit=drift.limit,
                advice="sample longer, or reweight() the states to the energies of the barriers",
            ),
        )
    return kind, reasons


def heavy_share(contributions: NDArray, groups: NDArray) -> tuple[float, float]:
    """Effective number of independent groups in a sum, and the largest share of one.

    Parameters
    ----------
    contributions : ndarray, shape (n_states,)
        Weight times value of every state.
    groups : ndarray of int, shape (n_states,)
    """
    member = np.unique(groups, return_inverse=True)[1]
    parts = np.bincount(member, weights=contributions)
    total = parts.sum()
    if not total > 0:
        return 0.0, 1.0
    near_one = np.ldexp(parts, -int(np.frexp(parts.max())[1]))  # squares of small rates would underflow
    return float(near_one.sum() ** 2 / np.square(near_one).sum()), float(parts.max() / total)


def _seen(states: States, rates: Rates, barriers: Any, relaxation: Relaxation | None) -> int:
    """Number of states that a fit behind y has seen; a model judged by its own barriers is its own reference."""
    if relaxation is None or states.source == ENUMERATED:
        return 0
    keys = set(relaxation.report.get("training_keys", ()))
    own = relaxation.rates.source if relaxation.rates is not None else None
    if own is not None and own is not rates.source and not hasattr(barriers, "training_keys"):
        keys |= set(getattr(own, "training_keys", ()))
    return sum(k in keys for k in states.keys) if keys else 0


def _energy_gap(states: States, rates: Rates) -> float:
    """Spread between the energies of the barriers and those the states were drawn with, eV; 0 if weights are right."""
    if states.ensemble != "equilibrium" or states.model_energies is None or states.report.get("reweighted"):
        return 0.0
    energies = rates.state_energies(states.occupations)
    if energies is None:
        return 0.0
    known = np.isfinite(energies)
    return float(np.std((energies - states.model_energies)[known])) if known.any() else 0.0
