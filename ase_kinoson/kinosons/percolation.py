"""Obstacles: diffusion among blocked sites, and the fraction of open sites at which it begins.

Blocked sites hold immobile atoms. Below the percolation threshold of the open sites all optimal kinosons vanish: the
carrier rattles in a finite cluster, and what its jumps contribute over short times is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.resampling import draw_groups, standard_error
from ase_kinoson.kinosons.frozen_arrangement import FrozenArrangement
from ase_kinoson.kinosons.site_graph import SiteGraph
from ase_kinoson.kinosons.static_disorder import SAMPLED
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["ObstructedDiffusion", "PercolationThreshold", "obstructed_diffusion", "percolation_threshold"]

DEFAULT_SITES = 16_384
"""Sites of the largest cell that thresholds are sampled in by default."""

EXPONENT = {1: 1.0, 2: 0.75, 3: 1.141}
"""1/ν, ν the exponent of the correlation length, by dimension: exact; exact (den Nijs 1979); Wang et al., Phys. Rev. E
87, 052107 (2013)."""

MOST_REPEATS = 8
"""Samples of a small cell for each one of the largest cell, at most."""


@dataclass(frozen=True, eq=False)
class ObstructedDiffusion:
    """Diffusion of one carrier among blocked sites, averaged over arrangements.

    The carrier starts on any open site, also in a finite cluster.

    Attributes
    ----------
    blocked : ndarray, shape (n,)
        Fraction of sites that are blocked, no unit.
    long_over_short : Quantity, value shape (n,)
        Long-time over short-time diffusivity Λ/Λ[0], no unit; 0 with error 0 where no arrangement percolates.
    long_over_free : Quantity, value shape (n,)
        Long-time diffusivity over that without obstacles, no unit.
    percolating_share : Quantity, value shape (n,)
        Share of open sites in clusters that wrap around the cell, no unit.
    wrapping_probability : Quantity, value shape (n,)
        Share of arrangements that have one, no unit.
    bounds : mapping of int to Quantity, value shape (n,) each
        Λ[y]/Λ[0] from above for the best y that looks so many jumps ahead.
    n_sites, n_arrangements : int
        Sites of the cell, and arrangements for each fraction.
    """

    blocked: NDArray[np.float64]
    long_over_short: Quantity
    long_over_free: Quantity
    percolating_share: Quantity
    wrapping_probability: Quantity
    bounds: dict[int, Quantity]
    n_sites: int
    n_arrangements: int

    def as_dict(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        return {
            "blocked": self.blocked.tolist(),
            **{name: getattr(self, name).as_dict() for name in _CURVES},
            "bounds": {str(k): q.as_dict() for k, q in self.bounds.items()},
            "n_sites": self.n_sites,
            "n_arrangements": self.n_arrangements,
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per fraction; every quantity with a column for its error."""
        import pandas

        columns = {"blocked": self.blocked}
        curves = {name: getattr(self, name) for name in _CURVES}
        for name, q in {**curves, **{f"bound_{k}": q for k, q in self.bounds.items()}}.items():
            columns[name], columns[f"{name}_error"] = np.asarray(q.value), np.asarray(q.error)
        return pandas.DataFrame(columns)

    def plot(
        self,
        *,
        quantity: str = "long_over_short",
        threshold: float | Quantity | None = None,
        label: str | None = None,
        color: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw one quantity against the blocked fraction; the bounds are broken lines.

        Parameters
        ----------
        quantity
            Name of an attribute.
        threshold
            Blocked fraction at the percolation threshold, marked by a dotted line.
        label, color
            Of the curve.
        ax
            Where to draw.

        Raises
        ------
        KinosonError
            If there is no such quantity.
        """
        from ase_kinoson.plotting import _axes

        if quantity not in _CURVES:
            raise KinosonError(f"found quantity={quantity!r}; expected one of {list(_CURVES)}; choose one")
        axes, q = _axes(ax), getattr(self, quantity)
        line = axes.errorbar(self.blocked, q.value, q.error, marker="o", ms=3.5, lw=1.2, label=label, color=color)
        known = axes.get_legend_handles_labels()[1]
        drawn = self.bounds.items() if quantity == "long_over_short" else ()
        for i, (steps, bound) in enumerate(drawn):
            name = f"y looks {steps} jump{'s' * (steps != 1)} ahead"
            style = ("--", "-.", ":")[i % 3]
            shown = None if name in known else name  # one entry for all lattices
            axes.plot(self.blocked, bound.value, style, lw=1.0, color=line[0].get_color(), alpha=0.6, label=shown)
        if threshold is not None:
            axes.axvline(float(threshold), ls=":", lw=1.0, color=line[0].get_color())
        axes.set_xlabel("blocked fraction of sites")
        axes.set_ylabel(_CURVES[quantity])
        axes.set_ylim(bottom=0.0)
        if label is not None or self.bounds:
            axes.legend(frameon=False, fontsize="small")
        return axes


_CURVES = {
    "long_over_short": "D(long times) / D(short times)",
    "long_over_free": "D(long times) / D(no obstacles)",
    "percolating_share": "open sites in percolating clusters",
    "wrapping_probability": "arrangements that percolate",
}


def obstructed_diffusion(
    jumps: JumpNetwork,
    blocked: ArrayLike,
    *,
    n_arrangements: int = 8,
    lookahead: Sequence[int] = (),
    seed: int = 0,
    progress: bool = False,
) -> ObstructedDiffusion:
    """Exact diffusion among randomly blocked sites, all jumps between open sites being equally fast.

    Parameters
    ----------
    jumps
        Jumps between the mobile sites of a cell of any crystal; finite cells round the threshold off, so take 10⁴ sites
        or more.
    blocked : array_like, shape (n,)
        Fraction of sites that are blocked, from 0 to below 1, no unit; rounded to whole sites.
    n_arrangements
        Random arrangements, the same orders of blocking for all fractions; errors come from resampling them.
    lookahead
        Also give the bound of the best y that looks so many jumps ahead: how far a local y falls short.
    seed
        Equal seeds give equal arrangements.
    progress
        Show a progress bar.

    Raises
    ------
    KinosonError
        If a fraction leaves no open site.

    Notes
    -----
    Arrangements are solved exactly, as networks of resistors:
    docs/derivations.md#frozen-surroundings-are-a-network-of-resistors.
    """
    graph = SiteGraph.of(jumps)
    given = np.atleast_1d(np.asarray(blocked, dtype=float))
    n_blocked = np.rint(np.where(np.isfinite(given), given, -1.0) * len(graph)).astype(np.int64)
    if n_arrangements < 1 or np.any((n_blocked < 0) | (n_blocked >= len(graph))):
        raise KinosonError(
            f"found blocked fractions {given.tolist()} and n_arrangements={n_arrangements}; expected fractions from 0 "
            "to below 1 that leave a site open, and at least one arrangement; correct them"
        )
    steps = sorted({int(k) for k in lookahead})
    if steps and steps[0] < 0:
        raise KinosonError(f"found lookahead={list(lookahead)}; expected numbers of jumps ≥ 0; correct it")
    along = jumps.projector
    everywhere = FrozenArrangement.of_open_sites(graph, np.ones(len(graph), dtype=bool))
    free = np.sum(everywhere.matrix * along)
    rows = np.empty((n_arrangements, len(given), 4 + len(steps)))
    rng = np.random.default_rng(seed)
    with tqdm(total=rows[..., 0].size, desc="obstacles", disable=not progress) as bar:
        for own in rows:
            order = rng.permutation(len(graph))
            for row, n in zip(own, n_blocked, strict=True):
                solved = FrozenArrangement.of_open_sites(graph, order >= n)
                share = solved.percolating_share
                bounds: NDArray = solved.bounds(max(steps))[steps] if steps else np.zeros(0)
                row[:] = [np.sum(solved.matrix * along), np.sum(solved.bare * along), share, share > 0, *bounds]
                bar.update()
    boot = Bootstrap.over(np.full(n_arrangements, 1 / n_arrangements), np.arange(n_arrangements), seed=seed)

    def ratio(values: NDArray, short: NDArray) -> NDArray:
        return np.divide(values, short, out=np.full(np.shape(values), np.nan), where=short > 0)

    def quantity(value: NDArray, error: NDArray, kind: str = SAMPLED) -> Quantity:
        return Quantity(value, error, "1", kind)

    long, short, inside, wraps, *limits = np.moveaxis(rows, 2, 0)
    return ObstructedDiffusion(
        blocked=n_blocked / len(graph),
        long_over_short=quantity(*boot.estimate(ratio, long, short)),
        long_over_free=quantity(*boot.estimate(lambda x: x / free, long)),
        percolating_share=quantity(*boot.estimate(lambda x: x, inside)),
        wrapping_probability=quantity(*boot.estimate(lambda x: x, wraps)),
        bounds={
            k: quantity(*boot.estimate(ratio, jumps.dimension * x, short), "bound")
            for k, x in zip(steps, limits, strict=True)
        },
        n_sites=len(graph),
        n_arrangements=n_arrangements,
    )


@dataclass(frozen=True, eq=False)
class PercolationThreshold:
    """Percolation threshold of the open sites of a lattice.

    Attributes
    ----------
    open_fraction : Quantity
        Fraction of open sites above which an infinite lattice percolates, no unit.
    sizes : tuple of int
        Cells along each periodic direction.
    n_sites : tuple of int
        Sites of these cells.
    thresholds : tuple of ndarray, shape (n_samples, d) each
        Fraction of open sites, no unit, at which each sample first wraps around the cell, along each of its periodic
        vectors.
    """

    open_fraction: Quantity
    sizes: tuple[int, ...]
    n_sites: tuple[int, ...]
    thresholds: tuple[NDArray[np.float64], ...] = field(repr=False)

    @property
    def blocked_fraction(self) -> Quantity:
        """Fraction of blocked sites above which long-range diffusion ends, no unit."""
        q = self.open_fraction
        return Quantity(1.0 - float(q.value), q.error, q.unit, q.kind)

    def __float__(self) -> float:
        return float(self.open_fraction)

    def as_dict(self) -> dict[str, Any]:
        """The threshold with its error, and what it was sampled on, ready for JSON."""
        return {
            "open_fraction": self.open_fraction.as_dict(),
            "blocked_fraction": self.blocked_fraction.as_dict(),
            "sizes": list(self.sizes),
            "n_sites": list(self.n_sites),
            "n_samples": [len(t) for t in self.thresholds],
        }

    def wrapping_probability(self, open_fraction: ArrayLike) -> NDArray[np.float64]:
        """Share of samples whose kinosons do not all vanish: they wrap along any direction.

        Parameters
        ----------
        open_fraction : array_like, shape (n,)
            Fraction of open sites, no unit.

        Returns
        -------
        ndarray, shape (n_sizes, n)
            No unit.
        """
        p = np.atleast_1d(np.asarray(open_fraction, dtype=float))
        first = [np.sort(t.min(axis=1)) for t in self.thresholds]
        return np.array([np.searchsorted(t, p, side="right") / len(t) for t in first])

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Wrapping probability of every size against the open fraction, with the threshold and its error.

        Parameters
        ----------
        ax
            Axes to draw on; default: new ones.
        """
        from ase_kinoson.plotting import PALETTE, _axes

        axes = _axes(ax)
        every = np.concatenate([t.min(axis=1) for t in self.thresholds])
        p = np.linspace(every.min(), every.max(), 200)
        for i, (n, share) in enumerate(zip(self.n_sites, self.wrapping_probability(p), strict=True)):
            axes.plot(p, share, lw=1.4, color=PALETTE[i % len(PALETTE)], label=f"{n} sites")
        q = self.open_fraction
        axes.axvline(float(q), ls=":", lw=1.0, color="black", label=f"$p_c$ = {float(q):.4f} ± {float(q.error):.4f}")
        error = float(q.error)
        if np.isfinite(error):
            axes.axvspan(float(q) - error, float(q) + error, color="black", alpha=0.1, lw=0)
        axes.set_xlabel("open fraction of sites")
        axes.set_ylabel("wrapping probability")
        axes.legend(frameon=False, fontsize="small")
        return axes


def percolation_threshold(
    jumps: JumpNetwork,
    sizes: Sequence[int] | None = None,
    *,
    n_samples: int = 100,
    n_resamples: int = 400,
    seed: int = 0,
    progress: bool = False,
) -> PercolationThreshold:
    """Site-percolation threshold of any lattice.

    Sites are opened one by one in random order until a cluster wraps around a cell of length L, along any direction:
    from then on the kinosons do not all vanish. The mean of these thresholds over samples goes to p_c as L^(−1/ν), with
    an exponent that all lattices of one dimension share (Stauffer and Aharony, *Introduction to Percolation Theory*,
    2nd ed., section 4.1): a straight line through the sizes gives p_c. Terms of higher order are left out; larger sizes
    make them small.

    Parameters
    ----------
    jumps
        Which sites are neighbours; its supercell does not matter.
    sizes
        Two sizes or more, in conventional cells along each periodic direction. Default: cells of about 16,000 sites
        and of half their length.
    n_samples
        Samples of the largest size; smaller ones get more, so that all take about the same time.
    n_resamples, seed
        Of the error; equal seeds give equal samples.
    progress
        Show a progress bar.

    Raises
    ------
    KinosonError
        If there are fewer than two sizes or samples, or the jumps do not connect the cells.

    Notes
    -----
    Samples: M. E. J. Newman and R. M. Ziff, Phys. Rev. Lett. 85, 4104 (2000). Checks: docs/percolation.md#thresholds.
    """
    alloy = jumps.supercell.alloy
    if sizes is None:
        per_cell = int(alloy.mobile_basis.sum() * round(abs(np.linalg.det(alloy.conventional))))
        longest = max(8, round((DEFAULT_SITES / per_cell) ** (1 / alloy.dimension)))
        sizes = (longest // 2, longest)
    chosen = tuple(sorted({int(n) for n in sizes}))
    if len(chosen) < 2 or chosen[0] < 2 or n_samples < 2:
        raise KinosonError(
            f"found sizes={tuple(sizes)} and n_samples={n_samples}; expected two different sizes from 2 cells on and "
            "at least 2 samples; add some"
        )
    graphs = [SiteGraph.of(jumps.with_supercell(alloy.supercell(np.where(alloy.pbc, size, 1)))) for size in chosen]
    n_sites = [len(graph) for graph in graphs]
    samples = [n_samples * min(MOST_REPEATS, round(n_sites[-1] / n)) for n in n_sites]
    rng = np.random.default_rng(seed)
    thresholds = []
    with tqdm(total=sum(samples), desc="percolation", disable=not progress) as bar:
        for graph, n in zip(graphs, samples, strict=True):
            first = np.empty((n, 3))
            for row in first:
                row[:] = graph.opening(rng.permutation(len(graph)) + 1)
                bar.update()
            # the m-th of n sites opens at m/(n + 1) on average where each is open with a given probability
            thresholds.append(first[:, np.isfinite(first).all(axis=0)] / (len(graph) + 1))
    dimension = min(t.shape[1] for t in thresholds)  # directions along which the lattice connects
    if dimension == 0:
        raise KinosonError(
            "the lattice does not wrap around the cell along any direction; expected jumps that connect all cells; "
            "increase cutoff= of the jumps"
        )
    earliest = [t.min(axis=1) for t in thresholds]  # along any direction: then kinosons no longer vanish
    scaled = np.array(chosen, dtype=float) ** -EXPONENT[dimension]
    weight = np.array([np.sqrt(len(t)) / max(float(t.std()), 1e-12) for t in earliest])

    def extrapolate(means: Sequence[NDArray]) -> NDArray[np.float64]:
        return np.polyfit(scaled, np.array(means), 1, w=weight)[1]

    draws = [draw_groups(len(t), n_resamples, rng) for t in earliest]
    again = extrapolate([d @ t / d.sum(axis=1) for d, t in zip(draws, earliest, strict=True)])
    found = Quantity(float(extrapolate([t.mean() for t in earliest])), float(standard_error(again)), "1", "estimate")
    return PercolationThreshold(found, chosen, tuple(n_sites), tuple(thresholds))
