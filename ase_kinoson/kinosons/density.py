"""The density of kinosons: over barriers and over their own size, and what it says about temperature.

At fixed y and fixed weights of the states, Λ(β) = ∫ g(Q) e^{−βQ} dQ with g the density of kinosons over barriers.
Averages
weighted by kinosons are written ⟨·⟩_κ; cumulants of Q in that average are the derivatives of ln Λ with respect to −β.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.result import Transport
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.units import thermal_energy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DensityModel", "Histogram", "KinosonDensity"]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Share of a coefficient per interval, split by the species that jumps.

    Attributes
    ----------
    edges : ndarray, shape (n_bins + 1,)
        eV, or natural logarithm of Å²/s.
    shares : dict of ndarray, shape (n_bins,) each
        Fraction of the coefficient in each interval; all species together sum to 1.
    label : str
        What the edges are, with unit.
    """

    edges: NDArray[np.float64]
    shares: dict[str, NDArray[np.float64]]
    label: str

    @property
    def total(self) -> NDArray[np.float64]:
        """Sum over species, shape (n_bins,)."""
        return np.sum(list(self.shares.values()), axis=0)


@dataclass(frozen=True, eq=False)
class DensityModel:
    """ln Λ(T) around one temperature from the cumulants of the barrier in the kinoson average.

    ln Λ(β) = ln Λ(β₀) − (β−β₀) κ₁ + (β−β₀)² κ₂/2 − (β−β₀)³ κ₃/6

    Attributes
    ----------
    name : str
        ``"arrhenius"``, ``"gaussian"`` or ``"third cumulant"``.
    temperature_K : float
        Expansion point, K.
    log_value : float
        ln of Λ(T₀), Λ in Å²/s.
    cumulants : tuple of Quantity
        κ₁ (eV), κ₂ (eV²), κ₃ (eV³), as many as the model uses.
    """

    name: str
    temperature_K: float
    log_value: float
    cumulants: tuple[Quantity, ...]

    def predict(self, temperatures_K: ArrayLike) -> NDArray[np.float64]:
        """Return Λ(T) in Å²/s at fixed relaxation and fixed weights of the states."""
        beta = np.array([1.0 / thermal_energy(t) for t in np.atleast_1d(temperatures_K)])
        x = beta - 1.0 / thermal_energy(self.temperature_K)
        value = np.full(len(beta), self.log_value)
        for order, (q, factor) in enumerate(zip(self.cumulants, (-1.0, 0.5, -1.0 / 6.0), strict=False), start=1):
            value = value + factor * float(q.value) * x**order
        return np.exp(value)


@dataclass(frozen=True, eq=False)
class KinosonDensity:
    """Kinosons of one coefficient as a distribution.

    Attributes
    ----------
    temperature_K : float or None
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
    kind : str
        Kind of the coefficient.
    ensemble : str
        Ensemble of the states.
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

    @classmethod
    def from_result(cls, result: Transport, *, quantity: str | None = None) -> KinosonDensity:
        """Take one coefficient of a result.

        Parameters
        ----------
        result
            Output of :func:`~ase_kinoson.kinosons.transport.transport`.
        quantity
            ``"vacancy"`` (default; ``"carrier"`` for an interstitial), ``"Cu"`` for Λ_aa of a species,
            ``"tracer_Cu"`` for Λ*_a.
        """
        table = result.kinosons
        default = "kinoson_vacancy" if "kinoson_vacancy" in table.columns else "kinoson_carrier"
        name = default if quantity is None else quantity
        if name not in table.columns:
            name = f"kinoson_{name}"
        if name not in table.columns:
            known = [c for c in table.columns if c.startswith(("kinoson_", "tracer_"))]
            raise KinosonError(f"found quantity {quantity!r}; expected one of {known}; choose one")
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
        )

    @property
    def contribution(self) -> NDArray[np.float64]:
        """Weight times kinoson of each row, Å²/s; their sum is the coefficient."""
        return self.weight * self.kinoson

    @property
    def total(self) -> float:
        """The coefficient Λ, Å²/s."""
        return float(self.contribution.sum())

    def over_barrier(self, bins: int | ArrayLike = 40) -> Histogram:
        """Share of the coefficient against the barrier of the jump, eV."""
        self._need(self.barrier, "barriers")
        return self._histogram(self.barrier, bins, "barrier (eV)")

    def over_log_kinoson(self, bins: int | ArrayLike = 40) -> Histogram:
        """Share of the coefficient against ln κ, κ in Å²/s."""
        with np.errstate(divide="ignore"):
            return self._histogram(np.log(self.kinoson), bins, "ln κ (κ in Å²/s)")

    def share_by_species(self) -> dict[str, Quantity]:
        """Fraction of the coefficient carried by the jumps of each species, with error."""
        own = sorted(set(self.species.tolist()))
        columns = [np.where(self.species == s, self.kinoson, 0.0) for s in own]
        values, boot = self._per_state(self.kinoson, *columns)
        result = {}
        for i, s in enumerate(own):
            result[s] = self._quantity(boot, lambda a, b: b / a, values[:, 0], values[:, i + 1], unit="1")
        return result

    def shares(self, fractions: Sequence[float] = (0.5, 0.9)) -> dict[float, float]:
        """Smallest fraction of all jumps (weighted with their states) that carries each fraction of the coefficient."""
        order = np.argsort(-self.kinoson)
        carried = np.cumsum(self.contribution[order]) / self.total
        counted = np.cumsum(self.weight[order]) / self.weight.sum()
        return {f: float(counted[min(np.searchsorted(carried, f), len(counted) - 1)]) for f in fractions}

    # -- temperature ----------------------------------------------------------------------------------------------

    def mean_barrier(self) -> Quantity:
        """⟨Q⟩_κ, eV: the slope −∂ln Λ/∂β at fixed relaxation and fixed weights of the states."""
        self._need(self.barrier, "barriers")
        values, boot = self._per_state(self.kinoson, self.kinoson * self._finite)
        return self._quantity(boot, lambda a, b: b / a, *values.T, unit="eV")

    def activation_energy(self) -> Quantity:
        """Activation energy E_a = −∂ln Λ/∂β = ⟨Q + E⟩_κ − ⟨E⟩_π, eV, E the energy of the state.

        Λ is stationary in y, so the slope needs no derivative of y (Hellmann-Feynman); the energies account for the
        change of
        the weights of the states.

        Raises
        ------
        KinosonError
            If barriers or energies of the states are unknown.
        """
        self._need(self.barrier, "barriers")
        self._need(self.state_energy, "energies of the states")
        energy = self.state_energy - self.state_energy.mean()
        if self.ensemble == "quenched":
            energy = energy - self._group_means(energy)
        ones = self._first_rows()
        values, boot = self._per_state(
            self.kinoson, self.kinoson * (self._finite + energy), np.where(ones, energy, 0.0), np.where(ones, 1.0, 0.0)
        )
        return self._quantity(boot, lambda a, b, e, n: b / a - e / n, *values.T, unit="eV")

    def fit_models(self) -> dict[str, DensityModel]:
        """Analytic forms of Λ(T) from one to three cumulants of the barrier in the kinoson average."""
        if self.temperature_K is None:
            raise KinosonError("found a result without temperature; expected one with barriers; use a barrier model")
        self._need(self.barrier, "barriers")
        q = self._finite
        values, boot = self._per_state(*(self.kinoson * q**n for n in range(4)))

        def cumulants(m0: NDArray, m1: NDArray, m2: NDArray, m3: NDArray) -> NDArray:
            a, b, c = m1 / m0, m2 / m0, m3 / m0
            return np.array([a, b - a**2, c - 3 * a * b + 2 * a**3])

        value, error = boot.estimate(cumulants, *values.T)
        found = tuple(
            Quantity(float(v), float(e), u, "estimate")
            for v, e, u in zip(value, error, ("eV", "eV^2", "eV^3"), strict=True)
        )
        log = float(np.log(self.total))
        names = ("arrhenius", "gaussian", "third cumulant")
        return {n: DensityModel(n, self.temperature_K, log, found[: i + 1]) for i, n in enumerate(names)}

    def predict(self, temperatures_K: ArrayLike) -> NDArray[np.float64]:
        """Return Λ(T) in Å²/s from the measured density itself, at fixed relaxation and fixed weights of the states."""
        if self.temperature_K is None:
            raise KinosonError("found a result without temperature; expected one with barriers; use a barrier model")
        beta0 = 1.0 / thermal_energy(self.temperature_K)
        beta = np.array([1.0 / thermal_energy(t) for t in np.atleast_1d(temperatures_K)])
        return (self.contribution * np.exp(-np.outer(beta - beta0, self._finite))).sum(axis=1)

    # -- picture --------------------------------------------------------------------------------------------------

    def plot(self, ax: Axes | None = None, *, over: str = "barrier", bins: int = 40) -> Axes:
        """Draw the density, split by species; ``over`` is ``"barrier"`` or ``"log_kinoson"``."""
        import matplotlib.pyplot as plt

        if over not in ("barrier", "log_kinoson"):
            raise KinosonError(f"found over={over!r}; expected 'barrier' or 'log_kinoson'; choose one")
        histogram = self.over_barrier(bins) if over == "barrier" else self.over_log_kinoson(bins)
        axes: Axes = plt.subplots()[1] if ax is None else ax
        base = np.zeros(len(histogram.edges) - 1)
        width = np.diff(histogram.edges)
        for s, share in histogram.shares.items():
            axes.bar(histogram.edges[:-1], share / width, width, bottom=base, align="edge", label=s)
            base = base + share / width
        axes.set_xlabel(histogram.label)
        axes.set_ylabel("share of the coefficient per " + ("eV" if over == "barrier" else "unit of ln κ"))
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

    def _quantity(self, boot: Bootstrap, function: Callable[..., NDArray], *values: NDArray, unit: str) -> Quantity:
        """A slope or share is stationary in y where the coefficient is, but no bound: its kind is an estimate."""
        value, error = boot.estimate(function, *values)
        if self.kind == "exact":
            return Quantity(float(value), 0.0, unit, "exact")
        return Quantity(float(value), float(error), unit, "estimate" if self.kind == "bound" else self.kind)

    def _group_means(self, energy: NDArray) -> NDArray[np.float64]:
        """Weighted mean energy of the arrangement of each row, eV."""
        member = np.unique(self.group, return_inverse=True)[1]
        first = self._first_rows()
        if np.bincount(member[first]).max() < 2:
            raise KinosonError(
                "found one state per arrangement of the quenched ensemble; expected several, whose energies tell how "
                "the vacancy is distributed; sample with n_chains below the number of states"
            )
        weight = np.where(first, self.weight, 0.0)
        total = np.bincount(member, weights=weight)
        return (np.bincount(member, weights=weight * energy) / np.where(total > 0, total, 1.0))[member]

    def _first_rows(self) -> NDArray[np.bool_]:
        first = np.zeros(len(self.state), dtype=bool)
        first[np.unique(self.state, return_index=True)[1]] = True
        return first

    def _per_state(self, *columns: NDArray) -> tuple[NDArray, Bootstrap]:
        """Sums over the jumps of each state, shape (n_states, n_columns), and a bootstrap over groups of states."""
        names, member = np.unique(self.state, return_inverse=True)
        sums = np.stack([np.bincount(member, weights=c, minlength=len(names)) for c in columns], axis=1)
        first = np.unique(self.state, return_index=True)[1]
        weights = self.weight[first] / self.weight[first].sum()
        return sums, Bootstrap.over(weights, self.group[first])

    def _histogram(self, x: NDArray, bins: int | ArrayLike, label: str) -> Histogram:
        use = np.isfinite(x) & (self.contribution > 0)
        edges = np.histogram_bin_edges(x[use], bins=bins)
        own = sorted(set(self.species.tolist()))
        shares = {}
        for s in own:
            mine = use & (self.species == s)
            shares[s] = np.histogram(x[mine], bins=edges, weights=self.contribution[mine])[0] / self.total
        return Histogram(edges, shares, label)
