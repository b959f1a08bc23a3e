"""The density of kinosons: over barriers and over their own size, and what it says about temperature.

At fixed y and fixed weights of the states, Λ(β) = ∫ g(Q) e^{−βQ} dQ with g the density of kinosons over barriers.
Averages
weighted by kinosons are written ⟨·⟩_κ; cumulants of Q in that average are the derivatives of ln Λ with respect to −β.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.jump_classes import (
    Histogram,
    JumpClass,
    JumpCount,
    TopJump,
    carrying,
    carrying_jumps,
    largest,
    rank,
    share_histogram,
    shell_counts,
)
from ase_kinoson.kinosons.result import Transport
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.kinosons.temperature_curves import (
    BoundCurve,
    DensityModel,
    activation_rows,
    check_sum,
    cumulant_models,
    rate_factors,
    reweighted_curve,
)
from ase_kinoson.kinosons.temperature_models import TemperatureFits, fit_temperature_models
from ase_kinoson.mson import Storable
from ase_kinoson.palette import species_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DensityModel", "Histogram", "KinosonDensity", "carrying_jumps"]

OVER = {"barrier": "eV", "log_kinoson": "unit of ln κ", "displacement": "Å"}


@dataclass(frozen=True, eq=False)
class KinosonDensity(Storable):
    """Kinosons of one coefficient as a distribution.

    Attributes
    ----------
    temperature_K : float or None
        K; None where rates do not depend on it.
    quantity : str
        Column of the kinoson table it is made of, for example ``"kinoson_vacancy"`` or ``"tracer_Cu"``.
    kinoson : ndarray, shape (n,)
        Å²/s.
    weight : ndarray, shape (n,)
        Weight of the state of each row.
    barrier, state_energy : ndarray, shape (n,)
        eV; NaN where unknown.
    species : ndarray of str, shape (n,)
        Who jumps.
    state, group : ndarray of int, shape (n,)
        State of each row, and the group of related states it belongs to.
    kind : str
        Kind of the coefficient.
    ensemble : str
        Ensemble of the states.
    jump : ndarray of int, shape (n,), or None
        Index of the jump of each row.
    displacement : ndarray, shape (n,), or None
        |δx + Δy| of the carrier, Å.
    states : States or None
        To which ``state`` points.
    network : JumpNetwork or None
        To which ``jump`` points; needed to ask for the neighbours of a jump.

    Notes
    -----
    S. Chattopadhyay and D. R. Trinkle, Phys. Rev. Lett. 132, 186301 (2024); docs/theory.md#kinosons. The slope with
    temperature: docs/derivations.md#the-activation-energy-is-a-mean-over-kinosons.
    """

    temperature_K: float | None
    quantity: str
    kinoson: NDArray[np.float64]
    weight: NDArray[np.float64]
    barrier: NDArray[np.float64]
    state_energy: NDArray[np.float64]
    species: NDArray[Any]
    state: NDArray[np.int64]
    group: NDArray[np.int64]
    kind: str
    ensemble: str = "equilibrium"
    jump: NDArray[np.int64] | None = None
    displacement: NDArray[np.float64] | None = None
    states: States | None = field(default=None, repr=False)
    network: JumpNetwork | None = field(default=None, repr=False)

    @classmethod
    def from_result(
        cls, result: Transport, *, quantity: str | None = None, network: JumpNetwork | None = None
    ) -> KinosonDensity:
        """Take one coefficient of a result.

        Parameters
        ----------
        result
            Output of :func:`~ase_kinoson.kinosons.transport.transport`.
        quantity
            ``"vacancy"`` (default; ``"carrier"`` for an interstitial), ``"Cu"`` for Λ_aa of a species,
            ``"tracer_Cu"`` for Λ*_a.
        network
            Jumps of the result, to ask for the neighbours of a jump; default those of its relaxation.

        Raises
        ------
        KinosonError
            If the result has no such quantity.
        """
        table = result.kinosons
        default = "kinoson_vacancy" if "kinoson_vacancy" in table.columns else "kinoson_carrier"
        name = default if quantity is None else quantity
        if name not in table.columns:
            name = f"kinoson_{name}"
        if name not in table.columns:
            known = [c for c in table.columns if c.startswith(("kinoson_", "tracer_"))]
            raise KinosonError(f"found quantity {quantity!r}; expected one of {known}; choose one")
        check_sum(result, name)
        used = table["weight"] > 0
        c = {key: column[used] for key, column in table.columns.items()}
        return cls(
            result.temperature_K,
            name,
            c[name],
            c["weight"],
            c["barrier"],
            c["state_energy"],
            c["species"],
            c["state"],
            c["group"],
            result.vacancy_diffusivity.kind,
            result.ensemble,
            c.get("jump"),
            c.get("displacement"),
            result.states,
            network if network is not None or result.relaxation is None else result.relaxation.network,
        )

    @property
    def contribution(self) -> NDArray[np.float64]:
        """Weight times kinoson of each row, Å²/s, shape (n,); their sum is the coefficient."""
        return self.weight * self.kinoson

    @property
    def total(self) -> float:
        """The coefficient Λ, Å²/s."""
        return float(self.contribution.sum())

    def over_barrier(self, bins: int | ArrayLike = 40) -> Histogram:
        """Share of the coefficient against the barrier of the jump, eV.

        Parameters
        ----------
        bins : int or array_like, shape (n + 1,)
            Number of intervals, or their edges in eV.

        Raises
        ------
        KinosonError
            If the result has no barriers.
        """
        self._need(self.barrier, "barriers")
        return self._histogram(self.barrier, bins, "barrier (eV)")

    def over_log_kinoson(self, bins: int | ArrayLike = 40) -> Histogram:
        """Share of the coefficient against ln κ, κ in Å²/s.

        Parameters
        ----------
        bins : int or array_like, shape (n + 1,)
            Number of intervals, or their edges, no unit.

        Raises
        ------
        KinosonError
            If the coefficient is 0.
        """
        with np.errstate(divide="ignore"):
            return self._histogram(np.log(self.kinoson), bins, "ln κ (κ in Å²/s)")

    def over_displacement(self, bins: int | ArrayLike = 40) -> Histogram:
        """Share of the coefficient against |δx + Δy|, Å: how far a jump takes the carrier, relaxation included.

        Parameters
        ----------
        bins : int or array_like, shape (n + 1,)
            Number of intervals, or their edges in Å.

        Raises
        ------
        KinosonError
            If the density has no displacements.
        """
        if self.displacement is None:
            raise KinosonError("found no displacements in this density; expected them; make it with from_result()")
        return self._histogram(self.displacement, bins, "|δx + Δy| of the carrier (Å)")

    def over_species(self) -> dict[str, tuple[Quantity, Quantity]]:
        """Share of the coefficient, and fraction of the jumps, of each species, with errors."""
        found = rank(self, "species")
        return {row.label: (row.share, row.fraction_of_jumps) for row in sorted(found, key=lambda row: row.label)}

    def over_neighbours(
        self, species: str, *, cutoff: float | None = None, bins: int | ArrayLike | None = None
    ) -> Histogram:
        """Share of the coefficient against the fraction of a species among the atoms around the jump.

        Parameters
        ----------
        species
            Symbol to count.
        cutoff
            Sites within this distance of either end of the jump, Å; default 1.05 times the shortest jump: the first
            shell.
        bins : int or array_like, shape (n + 1,)
            Intervals of the fraction, or their edges; default one per number of atoms.

        Raises
        ------
        KinosonError
            If the species is unknown, or as :meth:`neighbours`.
        """
        names, counts = self.neighbours(cutoff=cutoff)
        if species not in names:
            raise KinosonError(f"found species {species!r}; expected one of {names}; choose one")
        size = counts.sum(axis=1)
        fraction = counts[:, names.index(species)] / np.maximum(size, 1)
        if bins is None:
            n = max(int(size.max()), 1)
            bins = (np.arange(n + 2) - 0.5) / n
        return self._histogram(fraction, bins, f"fraction of {species} around the jump")

    def neighbours(self, *, cutoff: float | None = None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Count the atoms of each species around every jump, the two ends left out.

        Parameters
        ----------
        cutoff
            As in :meth:`over_neighbours`.

        Returns
        -------
        species : tuple of str
        counts : ndarray of int, shape (n, n_species)

        Raises
        ------
        KinosonError
            If the density does not know its states and jumps.
        """
        if self.states is None or self.network is None or self.jump is None:
            raise KinosonError(
                "found a density that does not know its states and jumps; expected both; make it with "
                "KinosonDensity.from_result(result, network=jumps)"
            )
        return shell_counts(self.states, self.network, self.state, self.jump, cutoff=cutoff)

    def share_by_species(self) -> dict[str, Quantity]:
        """Fraction of the coefficient carried by the jumps of each species, no unit, with error."""
        own = sorted(set(self.species.tolist()))
        columns = [np.where(self.species == s, self.kinoson, 0.0) for s in own]
        values, boot = self.group_means(self.kinoson, *columns)
        result = {}
        for i, s in enumerate(own):
            result[s] = self._quantity(boot, lambda a, b: b / a, values[:, 0], values[:, i + 1], unit="1")
        return result

    def shares(self, fractions: Sequence[float] = (0.5, 0.9)) -> dict[float, float]:
        """Smallest fraction of all jumps (weighted with their states) that carries each fraction of the coefficient.

        Parameters
        ----------
        fractions
            Parts of the coefficient, above 0 and up to 1; no unit.

        Raises
        ------
        KinosonError
            If the coefficient is 0.
        """
        self._need_total()
        order = np.argsort(-self.kinoson)
        carried = np.cumsum(self.contribution[order]) / self.total
        counted = np.cumsum(self.weight[order]) / self.weight.sum()
        return {f: float(counted[min(np.searchsorted(carried, f), len(counted) - 1)]) for f in fractions}

    def carrying(self, fractions: Sequence[float] = (0.5, 0.9)) -> dict[float, JumpCount]:
        """How many jumps, the largest kinosons first, carry each fraction of the coefficient, with errors.

        Parameters
        ----------
        fractions
            Parts of the coefficient, above 0 and up to 1; no unit.
        """
        return carrying(self, fractions)

    def rank_classes(
        self, by: str = "barrier", *, bins: int | ArrayLike = 8, cutoff: float | None = None, n: int | None = None
    ) -> list[JumpClass]:
        """Classes of jumps by their share of the coefficient, largest first.

        Parameters
        ----------
        by
            ``"barrier"``: species and interval of the barrier; ``"neighbours"``: species and what surrounds the jump;
            ``"species"``.
        bins : int or array_like, shape (n + 1,)
            Intervals of the barrier, a number or edges in eV.
        cutoff
            As in :meth:`over_neighbours`.
        n
            Keep the first n; default all.
        """
        return rank(self, by, bins=bins, cutoff=cutoff)[:n]

    def top_jumps(self, n: int = 20) -> list[TopJump]:
        """The n single jumps with the largest share of the coefficient, the weight of their states included.

        Parameters
        ----------
        n
            How many.

        Raises
        ------
        KinosonError
            If the coefficient is 0.
        """
        self._need_total()
        return largest(self, n)

    # -- temperature ----------------------------------------------------------------------------------------------

    def mean_barrier(self) -> Quantity:
        """⟨Q⟩_κ, eV: the slope −∂ln Λ/∂β at fixed relaxation and fixed weights of the states.

        Raises
        ------
        KinosonError
            If the result has no barriers.
        """
        self._need(self.barrier, "barriers")
        values, boot = self.group_means(self.kinoson, self.kinoson * self._finite)
        return self._quantity(boot, lambda a, b: b / a, *values.T, unit="eV")

    def activation_energy(self) -> Quantity:
        """Activation energy E_a = −∂ln Λ/∂β = ⟨Q + E⟩_κ − ⟨E⟩_π, eV, E the energy of the state.

        Λ is stationary in y, so the slope needs no derivative of y (Hellmann-Feynman); the energies account for the
        change of
        the weights of the states. At a y that is not the best the slope is off by a term of first order in its error.

        Raises
        ------
        KinosonError
            If barriers or energies of the states are unknown.
        """
        self._need(self.barrier, "barriers")
        self._need(self.state_energy, "energies of the states")
        if self.ensemble == "quenched":
            self._need_arrangements()
        rows = activation_rows(self)[:, 1]
        known = len(self.groups[1]) > 1
        error = 0.0 if self.kind == "exact" else float(standard_error(rows[1:])) if known else float("nan")
        return Quantity(float(rows[0]), error, "eV", "estimate" if self.kind == "bound" else self.kind)

    @overload
    def fit_models(self, *, results: None = None) -> dict[str, DensityModel]: ...

    @overload
    def fit_models(self, *, results: Sequence[Transport]) -> TemperatureFits: ...

    def fit_models(self, *, results: Sequence[Transport] | None = None) -> dict[str, DensityModel] | TemperatureFits:
        """Analytic forms of Λ(T).

        Parameters
        ----------
        results
            Results of several temperatures to fit together, see
            :func:`~ase_kinoson.kinosons.temperature_models.fit_temperature_models`. Without them, one to three
            cumulants of the barrier in the kinoson average of this one temperature.
        """
        if results is not None:
            return fit_temperature_models(results, quantity=self.quantity)
        return cumulant_models(self)

    def predict(self, temperatures_K: ArrayLike) -> NDArray[np.float64]:
        """Λ(T) from the measured density itself, at fixed relaxation and fixed weights of the states.

        Parameters
        ----------
        temperatures_K : array_like, shape (n,)
            K.

        Returns
        -------
        ndarray, shape (n,)
            Å²/s.

        Raises
        ------
        KinosonError
            If the result has no temperature or no barriers, or jumps matter there whose rates are too small for a
            number here.
        """
        return np.array([(self.contribution * rate_factors(self, t)).sum() for t in np.atleast_1d(temperatures_K)])

    def bound_curve(self, temperatures_K: ArrayLike, *, smallest_sample: float = 10.0) -> BoundCurve:
        """Upper bound Λ_y(T) at other temperatures, with the relaxation of this one.

        Barriers give the rates at T, and energies carry the weights of the states to T, w ∝ w₀ exp(−(β−β₀)E)
        (within each arrangement for quenched states). Any y gives a bound at any T, so the curve lies above Λ(T) and
        touches it, slope included, where y is optimal.

        Parameters
        ----------
        temperatures_K : array_like, shape (n,)
            K.
        smallest_sample
            Values from fewer effective independent groups of states (1/Σw² of the weights, or of their contributions)
            are NaN: the few states that the reweighting picks are no sample.

        Returns
        -------
        BoundCurve

        Raises
        ------
        KinosonError
            If barriers or energies of the states are unknown.

        Warns
        -----
        KinosonWarning
            If the reweighting collapses at some temperature.
        """
        self._need(self.barrier, "barriers")
        self._need(self.state_energy, "energies of the states")
        return reweighted_curve(self, temperatures_K, smallest_sample=smallest_sample)

    # -- picture --------------------------------------------------------------------------------------------------

    def plot(self, ax: Axes | None = None, *, over: str = "barrier", bins: int = 40) -> Axes:
        """Draw the density, split by species.

        Parameters
        ----------
        ax
            Axes to draw on; default: new ones.
        over
            ``"barrier"``, ``"log_kinoson"`` or ``"displacement"``.
        bins
            Number of intervals.

        Raises
        ------
        KinosonError
            If ``over`` is something else, or the result does not have it.
        """
        import matplotlib.pyplot as plt

        if over not in OVER:
            raise KinosonError(f"found over={over!r}; expected one of {tuple(OVER)}; choose one")
        histogram: Histogram = getattr(self, f"over_{over}")(bins)
        axes: Axes = plt.subplots()[1] if ax is None else ax
        base = np.zeros(len(histogram.edges) - 1)
        width = np.diff(histogram.edges)
        colors = species_colors(histogram.shares)
        for s, share in histogram.shares.items():
            left = histogram.edges[:-1]
            axes.bar(left, share / width, width, bottom=base, align="edge", label=s, color=colors[s])
            base = base + share / width
        axes.set_ylim(0.0, 1.05 * float(base.max()))  # bars of no height on top of others would be the limit
        axes.set_xlabel(histogram.label)
        axes.set_ylabel(
            "share of the coefficient per " + dict(zip(OVER, ("eV", "unit of ln κ", "Å"), strict=True))[over]
        )
        axes.legend(title="jumping atom")
        return axes

    # -- helpers --------------------------------------------------------------------------------------------------

    @property
    def _finite(self) -> NDArray[np.float64]:
        return np.where(np.isfinite(self.barrier), self.barrier, 0.0)

    def _need(self, column: NDArray, what: str) -> None:
        if np.isnan(column).any():
            raise KinosonError(
                f"found no {what} in this result; expected a source that has them; use reference barriers or a model"
            )

    def _need_total(self) -> None:
        if not self.total > 0:
            raise KinosonError(
                f"found a coefficient {self.quantity!r} of {self.total:g} Å²/s; expected a positive one, because it "
                "is what shares and slopes refer to; choose the coefficient of atoms that move"
            )

    def _quantity(self, boot: Bootstrap, function: Callable[..., NDArray], *values: NDArray, unit: str) -> Quantity:
        """A slope or share is stationary in y where the coefficient is, but no bound: its kind is an estimate."""
        value, error = boot.estimate(function, *values)
        if self.kind == "exact":
            return Quantity(float(value), 0.0, unit, "exact")
        return Quantity(float(value), float(error), unit, "estimate" if self.kind == "bound" else self.kind)

    def _need_arrangements(self) -> None:
        """Refuse arrangements of one state each: their energies tell nothing of how the vacancy is distributed."""
        member = np.unique(self.group, return_inverse=True)[1]
        if np.bincount(member[self.first_rows()]).max() < 2:
            raise KinosonError(
                "found one state per arrangement of the quenched ensemble; expected several, whose energies tell how "
                "the vacancy is distributed; sample with n_chains below the number of states"
            )

    def first_rows(self) -> NDArray[np.bool_]:
        """Mark the first row of each state, shape (n,)."""
        first = np.zeros(len(self.state), dtype=bool)
        first[np.unique(self.state, return_index=True)[1]] = True
        return first

    def group_means(self, *columns: NDArray) -> tuple[NDArray[np.float64], Bootstrap]:
        """Average sums over jumps within each independent group of states.

        Parameters
        ----------
        *columns : ndarray, shape (n,)
            One value per row.

        Returns
        -------
        values : ndarray, shape (n_groups, n_columns)
            Σ over the rows of a group of weight times column, over the weight of the group.
        boot : Bootstrap
            Over groups: its weighted means of ``values`` are averages over all states.

        Raises
        ------
        KinosonError
            If the coefficient is 0.
        """
        self._need_total()
        member, weights = self.groups
        used = np.where(weights > 0, weights, 1.0)
        sums = [np.bincount(member, weights=self.weight * c, minlength=len(weights)) / used for c in columns]
        resamples = 1 if self.kind == "exact" else 400  # an exact result has many states and no errors
        boot = Bootstrap.over(weights / weights.sum(), np.arange(len(weights)), n_resamples=resamples)
        return np.stack(sums, axis=1), boot

    @cached_property
    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Group of each row, shape (n,), and weight of all states of each group, shape (n_groups,)."""
        member = np.unique(self.group, return_inverse=True)[1]
        weights = np.where(self.first_rows(), self.weight, 0.0)
        return member.astype(np.int64), np.bincount(member, weights=weights).astype(float)

    def _histogram(self, x: NDArray, bins: int | ArrayLike, label: str) -> Histogram:
        self._need_total()
        return share_histogram(self, x, bins, label)
