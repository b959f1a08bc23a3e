"""`LagSlopes`: transport coefficients from mean squared displacements at lags of 1, 2, 4, 8 … jumps.

Walkers start in the stationary state of the chain of jumps, P its transition matrix, ⟨τ⟩ = 1/⟨Γ⟩ the mean time of a
jump, and y* the exact relaxation. The displacement over L jumps is then a martingale plus y*(0) − y*(L), and both are
uncorrelated because the chain is reversible, so that

    MSD(L) = ⟨|ΔR(L)|²⟩ = 2dΛ L⟨τ⟩ + 2⟨y*·(1 − P^L) y*⟩.

Hence MSD(L)/(2dL⟨τ⟩) is above Λ at every lag, but only by something that falls like 1/L. The slope

    Λ(L) = [MSD(2L) − MSD(L)]/(2dL⟨τ⟩) = Λ + ⟨y*·P^L (1 − P^L) y*⟩/(dL⟨τ⟩)

has lost the constant. For even L, P^L has no negative eigenvalue: Λ(L) too is above Λ, falls monotonically with L = 2,
4, 8 …, and does so exponentially once P^L has decayed. The lag used is twice the shortest whose slope is not above
those of the next longer ones by more than the noise, for each species on its own: slow ones need longer lags.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonWarning, SlowModes, SmallSample
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.coefficients import Averages, Composition
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity

__all__ = ["LagSlopes"]

JUMPS_PER_LAG = 4
"""Jumps of a species that a lag must hold on average."""

AGREE = 2.0
"""A slope is above that of a longer lag if it is so by this many standard errors of the difference."""

COMPARED = 3
"""Number of longer lags that a slope is compared with: those beyond have several times its noise."""


class LagSlopes:
    """Slopes of mean squared displacements, the choice of their lags, and what follows from them.

    Parameters
    ----------
    engine
        Walkers that have jumped.
    boot
        Resamples of walkers.
    composition
        Species wanted.
    blocked
        Species that cannot jump: nothing about them needs a lag.

    Attributes
    ----------
    names : list of str
        ``"vacancy"`` (or ``"carrier"``), each species, and ``"tracer <species>"`` if atoms were followed.
    time : ndarray, shape (1 + n_resamples,)
        ⟨τ⟩ and its resamples, s.
    scalar : ndarray, shape (1 + n_resamples, n_levels, n_names)
        MSD(L) and its resamples, Å².
    shares : ndarray, shape (n_species,)
        Share of each species in the jumps.
    falling : list of str
        Names whose slopes no lag has settled; filled by :meth:`choose`.
    """

    def __init__(
        self, engine: KineticMonteCarlo, boot: Bootstrap, composition: Composition, *, blocked: Collection[str] = ()
    ) -> None:
        self.engine, self.boot, self.composition = engine, boot, composition
        self.blocked = frozenset(blocked)
        network = engine.network
        self.network, self.ladder = network, engine.ladder
        self.index = np.searchsorted(engine.species, composition.index + 1)
        self.names = ["vacancy" if network.mechanism == "vacancy" else "carrier", *composition.species]
        if engine.follow_atoms:
            self.names += [f"tracer {s}" for s in composition.species]
        self.falling: list[str] = []
        self.shares = engine.shares()[self.index]
        self.time = boot.rows(engine.times / engine.n_jumps)
        self.n_levels = len(engine.ladder.n_blocks)
        self.scalar = np.stack([boot.rows(self.squares(level)) for level in range(self.n_levels)], axis=1)

    def pairs(self, level: int) -> NDArray[np.float64]:
        """Mean of ΔR^a ⊗ ΔR^b over blocks, Å², shape (n_walkers, n_species, 3, n_species, 3)."""
        found = self.ladder.collective[level] / self.ladder.n_blocks[level]
        return found[:, self.index][:, :, :, self.index]

    def tensors(self, level: int) -> NDArray[np.float64]:
        """Mean of Σ_i ΔR_i ⊗ ΔR_i over blocks, Å², shape (n_walkers, n_species, 3, 3)."""
        return self.ladder.tracer_tensors(level)[:, self.index] / self.ladder.n_blocks[level]

    def squares(self, level: int) -> NDArray[np.float64]:
        """Mean squared displacements over blocks, Å², shape (n_walkers, n_names)."""
        along = self.network.projector
        pairs = np.einsum("naxby,xy->nab", self.pairs(level), along)
        parts = [pairs.sum(axis=(1, 2))[:, None], np.einsum("naa->na", pairs)]
        if self.engine.follow_atoms:
            parts.append(np.einsum("naxy,xy->na", self.tensors(level), along))
        return np.concatenate(parts, axis=1)

    def slope(self, level: int) -> NDArray[np.float64]:
        """[MSD(2L) − MSD(L)]/L, Å² per jump, and its resamples, shape (1 + n_resamples, n_names)."""
        return (self.scalar[:, level + 1] - self.scalar[:, level]) / 2**level

    def curves(self, kind: str) -> tuple[dict[str, Quantity], dict[str, Quantity]]:
        """Both in units of MSD(1): MSD(L)/L and its slope."""
        first = self.scalar[:, :1]
        per_lag = _ratio(self.scalar / self.ladder.lags[:, None], first)
        slope = _ratio(np.stack([self.slope(level) for level in range(self.n_levels - 1)], axis=1), first)
        made = []
        for rows in (per_lag, slope):
            error = standard_error(rows[1:]) if self.boot.has_errors else np.full(rows.shape[1:], np.nan)
            made.append({n: Quantity(rows[0, :, i], error[:, i], "1", kind) for i, n in enumerate(self.names)})
        return made[0], made[1]

    def choose(self) -> NDArray[np.int64]:
        """Level of the lag of every name.

        Twice the shortest whose slope is not above those of longer lags by more than the noise, and that holds several
        jumps of the species: correlations between its jumps cannot show in a block that holds one. Doubling
        halves an excess that hides in the noise, or more, unless its mode is slow against L, which longer lags show.
        The carrier gets the longest of all species, see :meth:`averages`.
        """
        last = self.n_levels - 2
        slopes = np.stack([_ratio(self.slope(level), self.scalar[:, 0]) for level in range(self.n_levels - 1)])
        chosen = np.empty(len(self.names), dtype=np.int64)
        for i in range(1, len(self.names)):
            who = (i - 1) % len(self.index)
            if self.composition.species[who] in self.blocked:
                chosen[i] = 1
                continue
            share = self.shares[who]
            lowest = int(np.clip(np.ceil(np.log2(JUMPS_PER_LAG / max(share, 1e-300))) - 1, 1, last))
            for level in range(lowest, last + 1):
                excess = slopes[level, :, i] - slopes[level + 1 : level + 1 + COMPARED, :, i]
                error = excess[:, 1:].std(axis=1, ddof=1)
                if level == last and lowest < last:
                    self.falling.append(self.names[i])
                if not np.any(excess[:, 0] > AGREE * error + 1e-12):  # nor with NaN, of species that never moved
                    break
            chosen[i] = min(level + 1, last)
        # the carrier is the sum over all pairs
        chosen[0] = chosen[1 : 1 + len(self.index)].max()
        return chosen

    def averages(self, levels: NDArray[np.int64]) -> Averages:
        """Averages for :func:`coefficients` from the slopes at chosen levels; Λ_ab takes the longer of two lags.

        The number of jumps that a species happened to make is noise that the mean over visited states does not have;
        its displacements are scaled by the root of the ratio of both, which changes the expectation by a term of
        second order only.
        """
        boot, index, n = self.boot, self.index, len(self.index)
        bare = boot.rows(self.engine.expected_squares()[:, index])
        made = boot.rows(np.einsum("naxay->naxy", self.pairs(0)))
        along = self.network.projector
        scale = np.sqrt(_ratio(np.einsum("raxy,xy->ra", bare, along), np.einsum("raxy,xy->ra", made, along), empty=1.0))
        half = 0.5 / self.time
        own = levels[1 : 1 + n]
        collective = np.empty((len(half), n, n, 3, 3))
        longer = np.maximum(own[:, None], own[None, :])
        for k in np.unique(longer).tolist():
            rows = boot.rows(self.pairs(k + 1) - self.pairs(k)) / 2**k
            a, b = np.nonzero(longer == k)
            collective[:, a, b] = rows[:, a, :, b].swapaxes(0, 1)
        collective *= (half[:, None, None] * scale[:, :, None] * scale[:, None, :])[..., None, None]
        collective_bare = np.zeros_like(collective)
        collective_bare[:, np.arange(n), np.arange(n)] = half[:, None, None, None] * bare
        tracer = None
        if self.engine.follow_atoms:
            tracer = np.empty((len(half), n, 3, 3))
            for one, k in enumerate(levels[1 + n :].tolist()):
                rows = boot.rows(self.tensors(k + 1)[:, one] - self.tensors(k)[:, one]) / 2**k
                tracer[:, one] = (half * scale[:, one] ** 2)[:, None, None] * rows
        return Averages(
            collective,
            collective_bare,
            tracer,
            None if tracer is None else half[:, None, None, None] * bare,
            has_errors=boot.has_errors,
        )

    def remarks(self) -> list[KinosonWarning]:
        """Warnings of species that hardly moved, and of slopes that no lag has settled."""
        longest = 2 ** (self.n_levels - 2)
        falling: list[KinosonWarning] = [
            SlowModes(
                f"the slope of {name} still falls at {longest} jumps, the longest lag; expected a plateau: its "
                "coefficients may be too large",
                number=longest,
                unit="jumps",
                advice="raise n_jumps",
            )
            for name in self.falling
        ]
        return falling + [
            SmallSample(
                f"{s} makes {x * longest:.2g} jumps within {longest} jumps of the carrier, the longest lag; expected "
                f"at least {JUMPS_PER_LAG}, so that its jumps can show how they are correlated: its coefficients may "
                "be too large",
                number=x * longest,
                limit=JUMPS_PER_LAG,
                unit="jumps",
                advice="raise n_jumps",
            )
            for s, x in zip(self.composition.species, self.shares, strict=True)
            if x * longest < JUMPS_PER_LAG and s not in self.blocked
        ]


def _ratio(x: NDArray, y: NDArray, *, empty: float = np.nan) -> NDArray[np.float64]:
    """Return x/y, and ``empty`` where y is 0."""
    y = np.broadcast_to(y, x.shape)
    return np.divide(x, y, out=np.full(x.shape, empty), where=y > 0)
