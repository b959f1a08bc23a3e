"""How far what a barrier model is asked for lies from what it was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import FarFromTraining, KinosonWarning

__all__ = ["far_from_training", "unseen_shells"]

WORSE = 2.0
"""A model that is this many times worse than on its test states is used elsewhere than it was fitted."""
GOOD = 0.005
"""eV; errors up to this (6 % in a rate at 1000 K) are no reason to warn, however well the test states are known."""
LARGEST_SHARE = 0.1
"""Share of jumps whose surroundings were never seen above which a model extrapolates."""
SLACK = 1
"""Atoms beyond those of the fit that a model of neighbours bears; the extremes of a sample lie a little farther out."""
LEAST = 30
"""Jumps below which an error or a share says too little."""


def far_from_training(
    model: Any, asked: States | Barriers, training: States | Barriers | None = None
) -> list[KinosonWarning]:
    """Warnings that a barrier model is used far from its training data.

    Parameters
    ----------
    model
        A :class:`BarrierModel` or :class:`BarrierEnsemble`.
    asked
        States whose jumps the model is asked for; with reference barriers of them the errors themselves are compared.
    training
        States, or barriers, of the fit. Default: nothing is said of the surroundings.

    Returns
    -------
    list of FarFromTraining
        One for each that applies: the root mean square error against the reference (eV), the spread of an ensemble
        (calibrated, eV), each more than twice the error on the test states of the fit and more than 0.005 eV; more
        than a tenth of the jumps in surroundings outside those of the fit (share in %).
    """
    said: list[KinosonWarning] = []
    states = asked.states if isinstance(asked, Barriers) else asked
    known = _test_error(model)
    limit = GOOD if known is None else max(GOOD, WORSE * known)
    if isinstance(asked, Barriers) and known is not None and asked.n_barriers >= LEAST:
        error = (model.predict(states) - asked.barrier)[asked.valid]
        found = float(np.sqrt(np.mean(error**2)))
        if found > limit:
            said.append(
                FarFromTraining(
                    f"the model misses {asked.n_barriers} reference barriers by {found:.3f} eV (root mean square) and "
                    f"missed those of its test states by {known:.3f} eV; expected at most {limit:.3f} eV",
                    number=found,
                    limit=limit,
                    unit="eV",
                    advice="fit the model again with these barriers, and sample anew",
                )
            )
    if hasattr(model, "predict_with_error") and known is not None:
        mean, spread = model.predict_with_error(states)
        finite = np.isfinite(mean)
        found = float(np.sqrt(np.mean(spread[finite] ** 2))) if finite.any() else 0.0
        if finite.sum() >= LEAST and found > limit:
            said.append(
                FarFromTraining(
                    f"the models of the ensemble differ on these states so much that their error is {found:.3f} eV "
                    f"(root mean square, calibrated); on their test states it was {known:.3f} eV; expected at most "
                    f"{limit:.3f} eV",
                    number=found,
                    limit=limit,
                    unit="eV",
                    advice="add barriers of such states to the fit; active_barriers() chooses them",
                )
            )
    if training is not None:
        seen = training.states if isinstance(training, Barriers) else training
        share, n = unseen_shells(states, seen, model.network)
        if n >= LEAST and share > LARGEST_SHARE:
            said.append(
                FarFromTraining(
                    f"{100 * share:.0f} % of {n} jumps have at least two atoms of a species more or fewer beside the "
                    f"carrier than any jump of the fit; expected at most {100 * LARGEST_SHARE:.0f} %",
                    number=100 * share,
                    limit=100 * LARGEST_SHARE,
                    unit="%",
                    advice="add barriers of such states to the fit",
                )
            )
    return said


def unseen_shells(asked: States, training: States, network: JumpNetwork) -> tuple[float, int]:
    """Share of jumps whose carrier has other neighbours than in any training state.

    Others are two or more atoms of a species more, or fewer, than the most or the least beside a carrier with which an
    atom like the one that jumps changed places in training.

    Parameters
    ----------
    asked, training
        States on one supercell or two of one lattice.
    network
        The jumps.

    Returns
    -------
    share : float
        Between 0 and 1, states with their weights.
    n : int
        Number of jumps.
    """
    bounds: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    symbols = training.supercell.species
    mover, counts = _shells(training, network)
    for code in np.unique(mover[mover > 0]).tolist():
        rows = counts[(mover == code).any(axis=1)]
        bounds[symbols[code]] = (rows.min(axis=0), rows.max(axis=0))
    own = asked.supercell.species
    mover, counts = _shells(asked, network)
    order = [symbols.index(s) if s in symbols else -1 for s in own]
    outside = np.zeros(mover.shape, dtype=bool)
    for code in np.unique(mover[mover > 0]).tolist():
        here = mover == code
        if own[code] not in bounds:
            outside |= here
            continue
        low, high = (
            np.array([bound[i] if i >= 0 else 0 for i in order], dtype=np.int64) for bound in bounds[own[code]]
        )
        far: NDArray[np.bool_] = np.any((counts < low - SLACK) | (counts > high + SLACK), axis=1)
        outside |= here & far.reshape(-1, 1)
    live = mover > 0
    weights = asked.weights[:, None] * live
    total = float(weights.sum())
    return (float((weights * outside).sum() / total) if total > 0 else 0.0), int(live.sum())


def _shells(states: States, network: JumpNetwork) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Moving species of all jumps (n, J), and how many atoms of each species the carrier can exchange with (n, S)."""
    if states.supercell != network.supercell:
        network = network.with_supercell(states.supercell)
    mover = network.moving_species(states.occupations, states.carriers)
    n_codes = len(states.supercell.species)
    counts = np.stack([(mover == code).sum(axis=1) for code in range(n_codes)], axis=1)
    counts[:, 0] = 0
    return mover, counts


def _test_error(model: Any) -> float | None:
    """Root mean square error on states that no fit has seen, eV; None where it is not known, or of a handful."""
    report = getattr(model, "report", {})
    try:
        about = report["held_out"]["all"]["barrier"]["model"]
        found, n = float(about["rmse"]), int(about["n"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if np.isfinite(found) and found > 0 and n >= LEAST else None
