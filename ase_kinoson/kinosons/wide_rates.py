"""Exact solutions where rates spread over many decades: solve, enclose the answer in two bounds, refuse if they part.

The usual solver is tried first where it has a chance, again for what it left over, and judged by its distance to the
bound from below (:mod:`.enclosure`), which trusts no solver. Where it fails, states are eliminated one by one
(:mod:`.star_mesh`), which is exact to rounding whatever the spread, and slow.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import IllConditioned, KinosonError, ModelError
from ase_kinoson.kinosons.enclosure import Expansion, Links
from ase_kinoson.kinosons.star_mesh import LARGEST, eliminate

__all__ = ["Enclosed", "enclose", "is_wide", "unseen", "warn_of_unseen"]

NARROW = 8.0
"""Decades between the strongest and the weakest link up to which the usual solver needs no check."""

HOPELESS = 13.0
"""Decades beyond which it is not tried where states are so few that elimination takes no time."""

QUICK = 100
"""So few states."""

MOST = 20_000
"""With more states no elimination is begun: it would take hours, mostly to find that it is too large."""

ROUNDS = 8
"""How often the usual solver is asked for what it left over."""

WORTH = 0.25
"""It is not asked again where it has not made the distance of the bounds smaller than this part of it."""

TIGHT = 1e-9
"""Relative distance of the two bounds that is asked of a solution."""

VANISHING = 1e-290
"""Links weaker than this part of the strongest one are next to what no floating-point number can hold."""

FEW = 2_000
"""With so many states Λ_ab of a slow and a fast species, too, is asked to have relative accuracy."""

NOTHING = 1e-280
"""A coefficient whose upper bound is below this part of the strongest link may be given as 0."""

BROKEN = 1e-6
"""Relative difference between the flow through a jump and the flow back that is no rounding."""

PlainSolver = Callable[[NDArray, NDArray, NDArray], NDArray]


@dataclass(frozen=True, eq=False)
class Enclosed:
    """A solution and how far it may be off. S blocks of three columns, one for each species.

    Attributes
    ----------
    tension : ndarray, shape (n, J, S, 3)
        δx + Δy of every jump, Å.
    relaxation : ndarray, shape (n, S, 3)
        y of every state, Å; 0 in one state of every connected part.
    matrix : ndarray, shape (S, S, 3, 3)
        ½ Σ flow t ⊗ t, the bound from above, in Å² times the unit of the flow.
    gap : ndarray, shape (S, S, 3, 3)
        The bound from below is ``matrix − gap``.
    decades : float
        Logarithm of the strongest over the weakest link.
    """

    tension: NDArray[np.float64]
    relaxation: NDArray[np.float64]
    matrix: NDArray[np.float64]
    gap: NDArray[np.float64]
    decades: float


def is_wide(flow: NDArray, lost: NDArray | None = None) -> bool:
    """Whether links spread so far that a solution has to be checked.

    Parameters
    ----------
    flow : ndarray, shape (n, J)
        Flow π W of every jump, s⁻¹.
    lost : ndarray of bool, shape (n, J), optional
        Jumps whose flow is too small for a number.
    """
    return bool(_decades(flow) > NARROW) or (lost is not None and bool(lost.any()))


def _decades(flow: NDArray) -> float:
    most = float(flow.max(initial=0.0))
    if not most > 0:
        return 0.0
    least = float(flow.min(initial=np.inf, where=flow > 0))
    return float(np.log10(most) - np.log10(least))


def unseen(flow: NDArray, exists: NDArray, barriers: Callable[[NDArray], NDArray | None]) -> NDArray[np.bool_] | None:
    """Jumps that do happen but whose flow is too small for a number, shape (n, J); None where there are none.

    Parameters
    ----------
    flow : ndarray, shape (n, J)
        π W, s⁻¹.
    exists : ndarray of bool, shape (n, J)
        Jumps of the lattice.
    barriers
        Gives the barriers (eV) of some rows, or None for rates without barriers, where a rate of 0 is meant.

    Raises
    ------
    KinosonError
        If a flow is no number.
    """
    if not np.isfinite(flow).all():
        raise KinosonError(
            f"found {int((~np.isfinite(flow)).sum())} jumps whose flow π W is inf or NaN; expected finite rates and "
            "weights; correct the barriers, the energies or the temperature"
        )
    faint = exists & (flow <= VANISHING * flow.max(initial=0.0))
    if not faint.any():
        return None
    rows = np.flatnonzero(faint.any(axis=1))
    found, lost = barriers(rows), faint & (flow > 0)
    if found is not None:
        lost[rows] |= faint[rows] & np.isfinite(found)
    return lost if lost.any() else None


def warn_of_unseen(n: int) -> None:
    """Say that jumps count as closed.

    Parameters
    ----------
    n
        How many.
    """
    warnings.warn(
        IllConditioned(
            f"found {n} jumps whose rate, times the weight of their state, is less than {VANISHING:g} of the largest; "
            "expected numbers that can be told from 0; they count as closed, and coefficients below that part of the "
            "largest are given as 0",
            number=n,
            limit=0,
            advice="raise the temperature, or close these jumps with infinite barriers",
        ),
        stacklevel=4,
    )


def enclose(
    next_state: NDArray,
    flow: NDArray,
    cells: NDArray,
    steps: Callable[[NDArray, NDArray], NDArray],
    *,
    vectors: NDArray,
    projector: NDArray,
    names: tuple[str, ...],
    carrier: str,
    plain: PlainSolver,
    lost: NDArray | None = None,
) -> Enclosed:
    """Solve for the relaxation and prove how good it is.

    Parameters
    ----------
    next_state : ndarray of int, shape (n, J)
        State after each jump, −1 where there is none.
    flow : ndarray, shape (n, J)
        π W, equal for a jump and its reverse up to rounding.
    cells : ndarray of int, shape (n, J, S, 3)
        Displacement of every species in whole cells; what is left of it must be the change of a function of the state.
    steps
        Gives the displacement in Å, shape (n, S, 3), of one jump of each state: of states and jumps.
    vectors : ndarray, shape (3, 3)
        Cell vectors (rows), Å.
    projector : ndarray, shape (3, 3)
        Onto the directions that count.
    names, carrier
        Of the blocks, and of all of them together, for messages.
    plain
        The usual solver of Σ_k flow_k (y(χ) − y(χ_k)) = rhs.
    lost : ndarray of bool, shape (n, J), optional
        Jumps whose flow is too small for a number.

    Raises
    ------
    KinosonError
        If the two bounds part.
    ModelError
        If the flow is not symmetric.

    Notes
    -----
    docs/theory.md#the-variational-principle: Λ[y] is a bound from above; that from below is W. Thomson's.
    """
    most = float(flow.max(initial=0.0)) or 1.0
    scaled = np.where(flow > VANISHING * most, flow / most, 0.0)
    n, n_species = len(flow), cells.shape[2]
    flat = cells.reshape(*flow.shape, -1)
    used = np.flatnonzero((flat != 0).any(axis=(0, 1)))
    links = Links.of(next_state, scaled, np.ascontiguousarray(flat[..., used]))
    _check_symmetry(links)
    decades = _decades(scaled)
    found = _best(links, plain, decades)
    gap = links.gap(found)
    if lost is not None:
        gap[np.diag_indices(len(used))] += VANISHING * lost.sum() * np.square(_farthest(links, found))

    def tensors(x: NDArray) -> NDArray[np.float64]:
        whole = np.zeros((3 * n_species, 3 * n_species))
        whole[np.ix_(used, used)] = x
        parts = whole.reshape(n_species, 3, n_species, 3)
        return most * np.einsum("ix,aibj,jy->abxy", vectors, parts, vectors)

    tension = np.zeros((*flow.shape, 3 * n_species))
    tension[..., used] = found
    tension = tension.reshape(*flow.shape, n_species, 3) @ vectors
    jump = links.tree.jump
    relaxation = links.tree.accumulate(steps(np.arange(n), jump) - tension[np.arange(n), jump])
    result = Enclosed(tension, relaxation, tensors(_above(links, found)), tensors(gap), decades)
    _check(result, projector, names, carrier, most, n)
    if lost is not None:
        warn_of_unseen(int(lost.sum()))
    return result


def _best(links: Links, plain: PlainSolver, decades: float) -> NDArray[np.float64]:
    """Tension of a solution that is good enough, or of the best there is."""
    n = len(links)
    if decades > HOPELESS and n <= QUICK and (exact := eliminate(links)) is not None:
        return links.tension(exact)
    found, apart = _refined(links, plain)
    if apart > TIGHT and n <= MOST and (exact := eliminate(links)) is not None:
        return links.tension(exact)
    return found


def _refined(links: Links, plain: PlainSolver) -> tuple[NDArray[np.float64], float]:
    """Tension of the usual solver, asked again for what it left over, and the relative distance of its bounds."""
    field = Expansion.of(np.zeros((len(links), links.gained.shape[-1])))
    found = links.tension(field)
    apart = _apart(links, found)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(ROUNDS):
            try:
                y = plain(links.next_state, links.flow, np.einsum("nk,nki->ni", links.flow, found))
            except (KinosonError, RuntimeError, np.linalg.LinAlgError):
                break  # the bounds tell how bad the field is
            field = field.plus(y)
            tension = links.tension(field)
            new = _apart(links, tension)
            worth = new <= WORTH * apart  # not so where it is no number
            if new < apart:
                found, apart = tension, new
            if apart <= TIGHT or not worth:
                break
    return found, apart


def _apart(links: Links, tension: NDArray) -> float:
    """Distance of the bounds of the worst coefficient, as a part of it."""
    # the error of Λ_ab is at most √(gap_aa gap_bb), and Λ_ab of a slow and a fast species is as small as the slow one
    value, gap = np.diag(_above(links, tension)), np.diag(links.gap(tension))
    moving = value[value > 0]
    strict = len(moving) > 0 and len(links) <= FEW
    ratio = float(moving.min() / moving.max()) if strict else 1.0
    some = gap > 0
    return float((gap[some] / np.maximum(ratio * value[some], np.finfo(float).tiny)).max(initial=0.0))


def _above(links: Links, tension: NDArray) -> NDArray[np.float64]:
    rows = tension.reshape(-1, tension.shape[-1])
    return 0.5 * (rows * links.flow.reshape(-1, 1)).T @ rows


def _farthest(links: Links, tension: NDArray) -> NDArray[np.float64]:
    """No jump changes y and position together by more, cells, shape (m,), for y that is 0 at every root."""
    size = np.abs(links.gained).max(axis=(0, 1), initial=0) + 1.0
    every = np.arange(len(links))
    towards = links.tree.accumulate(tension[every, links.tree.jump])
    return size + 2.0 * np.abs(towards).max(axis=0, initial=0.0)


def _check_symmetry(links: Links) -> None:
    """Compare the sum of the flows between two states with that back."""
    n = len(links)
    row, k = np.nonzero(links.flow > 0)
    column, flow = links.next_state[row, k], links.flow[row, k]
    key, place = np.unique(np.minimum(row, column) * n + np.maximum(row, column), return_inverse=True)
    there, back = (np.bincount(place, weights=flow * side, minlength=len(key)) for side in (row < column, row > column))
    worst = float((np.abs(there - back) / np.maximum(np.maximum(there, back), 1e-300)).max(initial=0.0))
    if worst > BROKEN:
        raise ModelError(
            f"the rates break detailed balance with the weights (relative {worst:.1e} in a slow jump); expected π W "
            "symmetric; use energies and barriers of one model"
        )


def _check(result: Enclosed, projector: NDArray, names: tuple[str, ...], carrier: str, most: float, n: int) -> None:
    """Refuse a solution whose bounds part for one of the species, or for all together."""
    upper, gap = (np.einsum("abxy,xy->ab", x, projector) for x in (result.matrix, result.gap))
    values = {name: (upper[a, a], gap[a, a]) for a, name in enumerate(names)}
    values[carrier] = (upper.sum(), gap.sum())
    for name, (value, apart) in values.items():
        if not (apart <= TIGHT * value or value + apart <= NOTHING * most):  # also where they are no numbers
            raise KinosonError(
                f"the flows of jumps spread over {result.decades:.0f} decades, and bounds from above and below of the "
                f"coefficient of {name} differ by {apart / value if value > 0 else np.inf:.1e} of it; expected less "
                f"than {TIGHT:g}; take a smaller cell (at most {LARGEST} states can always be solved, found {n}), or a "
                "higher temperature"
            )
