"""Which jumps matter: where the coefficient lies, which classes and single jumps carry it, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.environment import JumpEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity

if TYPE_CHECKING:
    from ase_kinoson.kinosons.density import KinosonDensity
    from ase_kinoson.kinosons.result import Transport

__all__ = [
    "Histogram",
    "JumpClass",
    "JumpCount",
    "TopJump",
    "carrying",
    "carrying_jumps",
    "largest",
    "rank",
    "share_histogram",
    "shell_counts",
]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Share of a coefficient per interval, split by the species that jumps.

    Attributes
    ----------
    edges : ndarray, shape (n_bins + 1,)
        eV, natural logarithm of Å²/s, Å, or a fraction.
    shares : dict of ndarray, shape (n_bins,) each
        Fraction of the coefficient in each interval; all species together sum to 1.
    label : str
        What the edges are, with unit.
    errors : dict of ndarray, shape (n_bins,) each
        Standard errors of the shares; 0 for exact results, NaN where they cannot be known.
    total_error : ndarray, shape (n_bins,), or None
        Standard error of the sum over species.
    counts : ndarray, shape (n_bins,), or None
        Fraction of the number of jumps in each interval, weighted with their states.
    """

    edges: NDArray[np.float64]
    shares: dict[str, NDArray[np.float64]]
    label: str
    errors: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    total_error: NDArray[np.float64] | None = None
    counts: NDArray[np.float64] | None = None

    @property
    def total(self) -> NDArray[np.float64]:
        """Sum over species, shape (n_bins,)."""
        return np.sum(list(self.shares.values()), axis=0)


@dataclass(frozen=True)
class JumpCount:
    """How many jumps carry a part of a coefficient.

    Attributes
    ----------
    fraction_of_jumps : Quantity
        Of all jumps, weighted with their states.
    number : Quantity
        Of the jumps in the table (each state with its own).
    """

    fraction_of_jumps: Quantity
    number: Quantity


@dataclass(frozen=True)
class JumpClass:
    """Jumps of one sort and what they carry.

    Attributes
    ----------
    label : str
        For example ``"Cu, 0.4 to 0.5 eV"`` or ``"Cu in 4Ag 2Cu"``.
    species : str
        Who jumps.
    share : Quantity
        Fraction of the coefficient.
    fraction_of_jumps : Quantity
        Fraction of all jumps, weighted with their states.
    enrichment : Quantity
        Ratio of the two: mean kinoson of the class over the mean of all jumps.
    mean_barrier : float
        Weighted with kinosons, eV; NaN without barriers.
    n_jumps : int
        Rows of the table.
    """

    label: str
    species: str
    share: Quantity
    fraction_of_jumps: Quantity
    enrichment: Quantity
    mean_barrier: float
    n_jumps: int


@dataclass(frozen=True)
class TopJump:
    """One jump of one state.

    Attributes
    ----------
    state, jump : int
        Indices of the state and of its jump; ``jump`` is −1 where unknown.
    species : str
        Who jumps.
    barrier : float
        eV; NaN without barriers.
    kinoson : float
        Å²/s.
    weight : float
        Of the state.
    share : float
        Fraction of the coefficient; one with a large share says that there are too few states.
    """

    state: int
    jump: int
    species: str
    barrier: float
    kinoson: float
    weight: float
    share: float


def shell_counts(
    states: States, network: JumpNetwork, state: NDArray, jump: NDArray, *, cutoff: float | None = None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Count the atoms of each species around jumps, the two ends left out.

    Parameters
    ----------
    states, network
        States and their jumps.
    state, jump : ndarray of int, shape (n,)
        Which jumps.
    cutoff
        Sites within this distance of either end, Å; default 1.05 times the shortest jump.

    Returns
    -------
    species : tuple of str
    counts : ndarray of int, shape (n, n_species)
    """
    if states.supercell != network.supercell:
        network = network.with_supercell(states.supercell)
    reach = 1.05 * float(network.lengths.min()) if cutoff is None else float(cutoff)
    environment = JumpEnvironment.build(network, cutoff=reach)
    own, row = np.unique(state, return_inverse=True)
    codes = range(1, len(states.supercell.species))
    counts = np.zeros((len(state), len(codes)), dtype=np.int64)
    per_state = np.zeros((len(own), network.n_jumps, len(codes)), dtype=np.int64)
    for begin in range(0, len(own), 4096):  # bounds memory
        part = own[begin : begin + 4096]
        sites = environment.sites(states.carriers[part])
        occupants = states.occupations[part][np.arange(len(part))[:, None, None], sites]
        for i, code in enumerate(codes):
            per_state[begin : begin + 4096, :, i] = ((occupants == code) & (sites >= 0)).sum(axis=2)
    counts[:] = per_state[row, jump]
    present = np.asarray(counts.any(axis=0))
    names = tuple(s for s, here in zip(states.supercell.species[1:], present.tolist(), strict=True) if here)
    return names, counts[:, present]


def rank(
    density: KinosonDensity, by: str, *, bins: int | ArrayLike = 8, cutoff: float | None = None
) -> list[JumpClass]:
    """Classes of jumps by their share, see :meth:`KinosonDensity.rank_classes`."""
    who = density.species.astype(str)
    if by == "species":
        labels = who
    elif by == "barrier":
        if np.isnan(density.barrier).any():
            raise KinosonError(
                "found no barriers in this result; expected a source that has them; rank by 'neighbours' or 'species'"
            )
        use = np.isfinite(density.barrier) & (density.contribution > 0)
        edges = np.histogram_bin_edges(density.barrier[use], bins=bins)
        place = np.searchsorted(edges, density.barrier, side="right")
        place[density.barrier == edges[-1]] -= 1  # the last interval is closed
        texts = [f"below {edges[0]:.3g} eV", *(f"{a:.3g} to {b:.3g} eV" for a, b in pairwise(edges))]
        labels = np.char.add(np.char.add(who, ", "), np.array([*texts, f"above {edges[-1]:.3g} eV"])[place])
    elif by == "neighbours":
        symbols, counts = density.neighbours(cutoff=cutoff)
        kinds, which = np.unique(counts, axis=0, return_inverse=True)
        names = [" ".join(f"{n}{a}" for a, n in zip(symbols, row, strict=True) if n) for row in kinds]
        labels = np.char.add(np.char.add(who, " in "), np.array(names)[which.ravel()])
    else:
        raise KinosonError(f"found by={by!r}; expected 'barrier', 'neighbours' or 'species'; choose one")
    found = _classes(density, labels)
    return sorted(found, key=lambda row: -float(row.share))


def _classes(density: KinosonDensity, labels: NDArray) -> list[JumpClass]:
    names, first, member = np.unique(labels, return_index=True, return_inverse=True)
    sums, boot = _grouped(density, member, len(names), density.contribution)
    counts, _ = _grouped(density, member, len(names), density.weight)
    share = _fractions(boot.rows(sums))
    many = _fractions(boot.rows(counts))
    rich = np.divide(share, many, out=np.full_like(share, np.nan), where=many > 0)
    finite = np.where(np.isfinite(density.barrier), density.barrier, 0.0)
    carried = np.bincount(member, weights=density.contribution)
    barrier = np.bincount(member, weights=density.contribution * finite)
    unknown = np.isnan(density.barrier).any()
    size = np.bincount(member)
    return [
        JumpClass(
            str(names[i]),
            str(density.species[first[i]]),
            _quantity(density, boot, share[:, i]),
            _quantity(density, boot, many[:, i]),
            _quantity(density, boot, rich[:, i]),
            float("nan") if unknown or carried[i] <= 0 else float(barrier[i] / carried[i]),
            int(size[i]),
        )
        for i in range(len(names))
    ]


def largest(density: KinosonDensity, n: int) -> list[TopJump]:
    """Single jumps by their share, see :meth:`KinosonDensity.top_jumps`."""
    order = np.argsort(-density.contribution, kind="stable")[:n]
    jump = np.full(len(density.state), -1) if density.jump is None else density.jump
    return [
        TopJump(
            int(density.state[i]),
            int(jump[i]),
            str(density.species[i]),
            float(density.barrier[i]),
            float(density.kinoson[i]),
            float(density.weight[i]),
            float(density.contribution[i] / density.total),
        )
        for i in order
    ]


def carrying(density: KinosonDensity, fractions: Sequence[float] = (0.5, 0.9)) -> dict[float, JumpCount]:
    """How many jumps carry fractions of the coefficient, see :meth:`KinosonDensity.carrying`."""
    wanted = np.array([float(f) for f in fractions])
    if not np.all((wanted > 0) & (wanted <= 1)):
        raise KinosonError(f"found fractions {list(fractions)}; expected numbers above 0 and at most 1; correct them")
    order = np.argsort(-density.kinoson, kind="stable")
    member, weights = density.groups
    contribution, weight, member = density.contribution[order], density.weight[order], member[order]
    rows = [_count(contribution, weight, np.ones(len(order)), wanted)]
    resamples = 1 if density.kind == "exact" else 200
    boot = Bootstrap.over(weights / weights.sum(), np.arange(len(weights)), n_resamples=resamples)
    if density.kind != "exact" and boot.has_errors:
        times = boot.resampled / weights  # up to a factor, how often each group was drawn
        for drawn in times:
            repeat = drawn[member]
            rows.append(_count(contribution * repeat, weight * repeat, repeat / drawn[drawn > 0].min(), wanted))
    found = np.array(rows)
    return {
        float(f): JumpCount(_quantity(density, boot, found[:, i, 0]), _quantity(density, boot, found[:, i, 1]))
        for i, f in enumerate(fractions)
    }


def carrying_jumps(result: Transport, fractions: Sequence[float] = (0.5, 0.9)) -> dict[str, dict[float, JumpCount]]:
    """How many jumps carry each fraction of every coefficient of a result: vacancy, species and tracers, with errors.

    Parameters
    ----------
    result : Transport
        With a table of kinosons.
    fractions : sequence of float
        Parts of each coefficient, above 0 and up to 1; no unit.

    Returns
    -------
    dict of str to dict of float to JumpCount
        By column of the kinoson table (``"kinoson_vacancy"``, ``"kinoson_Cu"``, ``"tracer_Cu"`` ...), then fraction.

    Notes
    -----
    Definition and error: docs/derivations.md#shares-of-jumps-and-classes.
    """
    from ase_kinoson.kinosons.density import KinosonDensity

    found = {}
    for name in result.kinosons.columns:
        if not name.startswith(("kinoson_", "tracer_")):
            continue
        try:
            density = KinosonDensity.from_result(result, quantity=name)
        except KinosonError:  # an exact solution lists no kinosons of tracers
            continue
        if density.total > 0:
            found[name] = density.carrying(fractions)
    return found


def _count(contribution: NDArray, weight: NDArray, times: NDArray, wanted: NDArray) -> NDArray[np.float64]:
    """Fraction and number of jumps, largest first, that reach each wanted fraction, shape (n_fractions, 2)."""
    carried = np.cumsum(contribution)
    at = np.minimum(np.searchsorted(carried, wanted * carried[-1] * (1 - 1e-12)), len(carried) - 1)
    counted = np.cumsum(weight)
    return np.stack([counted[at] / counted[-1], np.cumsum(times)[at]], axis=1)


def share_histogram(density: KinosonDensity, x: NDArray, bins: int | ArrayLike, label: str) -> Histogram:
    """Share of the coefficient per interval of ``x``, shape (n,), by jumping species, with errors."""
    use = np.isfinite(x) & (density.contribution > 0)
    edges = np.histogram_bin_edges(x[use], bins=bins)
    own = sorted(set(density.species.tolist()))
    n = len(edges) - 1
    place = np.searchsorted(edges, x, side="right") - 1
    place[x == edges[-1]] = n - 1
    inside = use & (place >= 0) & (place < n)
    code = np.searchsorted(np.array(own), density.species.astype(str))
    cell = np.where(inside, code * n + place, len(own) * n)  # the last class is what lies outside
    sums, boot = _grouped(density, cell, len(own) * n + 1, density.contribution)
    rows = _fractions(boot.rows(sums))[:, :-1].reshape(-1, len(own), n)
    known = np.isfinite(x)
    counts = np.histogram(x[known], bins=edges, weights=density.weight[known])[0] / density.weight.sum()
    return Histogram(
        edges,
        {s: rows[0, i] for i, s in enumerate(own)},
        label,
        {s: _spread(density, boot, rows[:, i]) for i, s in enumerate(own)},
        _spread(density, boot, rows.sum(axis=1)),
        counts,
    )


def _grouped(
    density: KinosonDensity, member: NDArray, n: int, values: NDArray
) -> tuple[NDArray[np.float64], Bootstrap]:
    """Sums of values per class within each group, over the weight of the group, shape (n_groups, n)."""
    group, weights = density.groups
    flat = np.bincount(group * n + member, weights=values, minlength=len(weights) * n).reshape(len(weights), n)
    # an exact result needs no resamples
    resamples = 1 if density.kind == "exact" else 400
    boot = Bootstrap.over(weights / weights.sum(), np.arange(len(weights)), n_resamples=resamples)
    return flat / np.where(weights > 0, weights, 1.0)[:, None], boot


def _fractions(rows: NDArray) -> NDArray[np.float64]:
    total = rows.sum(axis=1, keepdims=True)
    return np.divide(rows, total, out=np.full_like(rows, np.nan), where=total > 0)


def _spread(density: KinosonDensity, boot: Bootstrap, rows: NDArray) -> NDArray[np.float64]:
    """Standard error from a value and its resamples, rows along the first axis."""
    if density.kind == "exact":
        return np.zeros(rows.shape[1:])
    if not boot.has_errors or len(rows) < 3:
        return np.full(rows.shape[1:], np.nan)
    lost = np.isnan(rows[1:]).sum(axis=0) > 0.5 * (len(rows) - 1)  # a class that most resamples do not hold
    known = np.where(lost, 0.0, rows[1:])
    if np.isnan(known).any():  # of a class, the resamples that hold it
        flat = known.reshape(len(known), -1)
        error = np.array([standard_error(x[~np.isnan(x)]) for x in flat.T]).reshape(known.shape[1:])
    else:
        error = standard_error(known)
    return np.where(lost, np.nan, error)


def _quantity(density: KinosonDensity, boot: Bootstrap, rows: NDArray) -> Quantity:
    """A share is no bound: its kind is an estimate."""
    kind = "estimate" if density.kind == "bound" else density.kind
    return Quantity(float(rows[0]), float(_spread(density, boot, rows)), "1", kind)
