"""One neighbour per state, drawn by the probability of its jump: what the first rung of the residual ladder needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["compute_pairs", "draw_neighbors"]


def draw_neighbors(
    states: States,
    jumps: JumpNetwork,
    source: Any,
    *,
    temperature_K: float | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    seed: int = 0,
) -> States:
    """Carry out one jump per state, drawn with probability W/Γ.

    Parameters
    ----------
    states, jumps
        States and their jumps.
    source
        Whose rates decide: barriers of the states, a model, or a gas.
    temperature_K, attempt_frequency
        As in :func:`transport`.
    seed
        Of the draws.

    Returns
    -------
    States
        Row by row the neighbour of a state, in its group; no equilibrium sample. ``report`` holds the ``jumps`` and
        their ``probabilities``.

    Raises
    ------
    StatesError
        If a state cannot be left, or lives on another supercell than the jumps.

    Notes
    -----
    What they are for: docs/derivations.md#the-first-rung-on-reference-barriers.
    """
    if states.supercell != jumps.supercell:
        raise StatesError(
            f"the states live on a supercell of {states.supercell.n_sites} sites, the jumps on one of "
            f"{jumps.supercell.n_sites}; expected the same; use jumps.with_supercell(states.supercell)"
        )
    rates = Rates.of(source, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    w = rates(states.occupations, states.carriers)
    total = w.sum(axis=1, keepdims=True)
    if not np.all(total > 0):
        raise StatesError(
            f"found {int((total <= 0).sum())} states that no jump leaves; expected at least one finite barrier each; "
            "drop these states"
        )
    p = w / total
    draw = np.random.default_rng(seed).random((len(states), 1))
    chosen = (np.cumsum(p, axis=1) < draw).sum(axis=1)
    # rounding must not choose a jump that does not exist
    chosen = np.minimum(chosen, p.shape[1] - 1 - np.argmax(p[:, ::-1] > 0, axis=1))
    occupations, carriers = jumps.apply(states.occupations, states.carriers, chosen)
    return States.from_occupations(
        states.supercell,
        occupations,
        carriers=carriers,
        weights=states.weights,
        groups=states.groups,
        source=f"one jump from each of: {states.source}",
        report={
            "jumps": chosen.tolist(),
            "probabilities": p[np.arange(len(states)), chosen].tolist(),
            "seed": int(seed),
        },
    )


def compute_pairs(
    states: States,
    jumps: JumpNetwork,
    calculator: Callable[[], Any],
    *,
    temperature_K: float,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    seed: int = 0,
    **options: Any,
) -> tuple[Barriers, States]:
    """Compute the barriers of states and of one neighbour each, drawn by the barriers just found.

    Parameters
    ----------
    states, jumps, calculator
        As in :func:`compute_barriers`.
    temperature_K, attempt_frequency
        Of the rates that decide which neighbour, K and s⁻¹.
    seed
        Of the draws: with a store, the same seed asks for the same neighbours again.
    **options
        Passed on to :func:`compute_barriers` (``store=``, ``executor=``, ``settings=``, ``progress=``).

    Returns
    -------
    barriers : Barriers
        Of the states, then of the neighbours.
    neighbors : States
        For :func:`first_rung`.

    Notes
    -----
    What they are for: docs/derivations.md#the-first-rung-on-reference-barriers.
    """
    first = compute_barriers(states, jumps, calculator, **options)
    neighbors = draw_neighbors(
        states, jumps, first, temperature_K=temperature_K, attempt_frequency=attempt_frequency, seed=seed
    )
    second = compute_barriers(neighbors, jumps, calculator, **options)
    return Barriers.concatenate([first, second]), neighbors
