"""From barriers and a temperature to rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.source import BarrierSource, JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import BarrierError, KinosonError, ModelError
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY, thermal_energy

__all__ = ["RateSource", "Rates", "check_scale", "check_total", "rates_from_barriers"]

SMALLEST_RATE, LARGEST_RATE = 1e-250, 1e250
"""Total rates (s⁻¹) beyond which times, m²/s and what is made of them leave the range of double precision."""


@runtime_checkable
class RateSource(Protocol):
    """A model that gives rates directly, whatever the temperature (a lattice gas)."""

    def jump_rates(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
        """Return rates, s⁻¹, shape (n_states, J), 0 where there is no jump.

        Parameters
        ----------
        occupations : ndarray of int, shape (n_states, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n_states,)
            Site of the carrier of each state.
        """
        ...


def rates_from_barriers(
    barrier: NDArray, temperature_K: float, *, attempt_frequency: float | NDArray = DEFAULT_ATTEMPT_FREQUENCY
) -> NDArray[np.float64]:
    """Return W = ν exp(−Q/k_BT), s⁻¹; an infinite barrier gives 0.

    A rate below 5e-324 s⁻¹ is 0 as well; see :func:`check_scale`.

    Parameters
    ----------
    barrier : ndarray
        eV.
    temperature_K
        K.
    attempt_frequency
        s⁻¹; a number, or an array that broadcasts to ``barrier``.

    Raises
    ------
    BarrierError
        If a barrier is NaN, or so far below 0 that its rate is no number.
    KinosonError
        If an attempt frequency or the temperature is not a positive number.
    """
    barrier = np.asarray(barrier, dtype=float)
    if np.isnan(barrier).any():
        raise BarrierError(
            f"found {int(np.isnan(barrier).sum())} barriers that are NaN; expected numbers in eV (inf for no jump); "
            "remove or recompute them"
        )
    frequency = _frequencies(attempt_frequency)
    kT = thermal_energy(temperature_K)
    with np.errstate(over="ignore", under="ignore"):
        rates = np.asarray(frequency * np.exp(-barrier / kT))
    if not np.isfinite(rates).all():
        raise BarrierError(
            f"found a barrier of {barrier.min():g} eV, whose rate at {temperature_K:g} K exceeds all numbers; expected "
            "barriers above 0; recompute it, or leave the jump out with an infinite barrier in both directions"
        )
    return rates[()]


def _frequencies(given: float | NDArray) -> NDArray[np.float64]:
    """Attempt frequencies as an array, s⁻¹; refuses what is not positive, and texts and booleans."""
    raw = np.asarray(given)
    found = np.asarray(raw, dtype=float) if raw.dtype.kind in "iuf" else np.full(raw.shape, np.nan)
    bad = ~((found > 0) & np.isfinite(found))
    if bad.any():
        first = given if raw.ndim == 0 else float(found[bad][0])
        raise KinosonError(f"found attempt_frequency={first!r}; expected a positive number in s⁻¹; correct it")
    return found


def check_scale(
    rates: NDArray,
    weights: NDArray,
    *,
    barrier: NDArray | None = None,
    temperature_K: float | None = None,
) -> None:
    """Refuse states whose mean total rate is beyond what double precision can work with; see :func:`check_total`.

    Parameters
    ----------
    rates : ndarray, shape (n_states, J)
        s⁻¹.
    weights : ndarray, shape (n_states,)
        Weights of the states, sum 1, no unit.
    barrier : ndarray, shape (n_states, J), optional
        Barriers behind the rates, eV.
    temperature_K
        For the message, K.

    Raises
    ------
    KinosonError
        As :func:`check_total`.
    """
    mean = float(np.asarray(weights, dtype=float) @ np.asarray(rates, dtype=float).sum(axis=1))
    check_total(
        mean,
        allowed=barrier is None or bool(np.isfinite(barrier).any()),
        has_barriers=barrier is not None,
        temperature_K=temperature_K,
    )


def check_total(mean: float, *, allowed: bool, has_barriers: bool, temperature_K: float | None) -> None:
    """Refuse a mean total rate beyond what double precision can work with.

    Single jumps may have any rate, 0 included. A mean of 0 is right where no jump is allowed, or in a gas whose rates
    are all 0; of finite barriers it only says that the rates are too small for a number.

    Parameters
    ----------
    mean
        Mean over states of the total rate, s⁻¹.
    allowed
        Whether any jump has a finite barrier; with rates from no barriers: True.
    has_barriers
        Whether the rates come from barriers.
    temperature_K
        For the message, K.

    Raises
    ------
    KinosonError
        If the mean is below 1e-250 or above 1e250 s⁻¹, or no number.
    """
    if SMALLEST_RATE <= mean <= LARGEST_RATE or (mean == 0.0 and not (allowed and has_barriers)):
        return
    at = "" if temperature_K is None else f" at {temperature_K:g} K"
    raise KinosonError(
        f"found a mean total rate of {mean:.3g} s⁻¹{at}; expected {SMALLEST_RATE:g} to {LARGEST_RATE:g}, because "
        "double precision knows no numbers far beyond; correct the barriers or the temperature"
    )


@dataclass(frozen=True, eq=False)
class Rates:
    """Rates of all jumps of any state, from a barrier source or a lattice gas.

    Attributes
    ----------
    source
        A :class:`BarrierSource` or a lattice gas, bound to ``network``.
    network : JumpNetwork
        The jumps.
    temperature_K : float or None
        May be None for lattice gases that give rates directly.
    attempt_frequency : float
        s⁻¹; used with barriers whose source knows none of their own.
    """

    source: Any
    network: JumpNetwork
    temperature_K: float | None = None
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY

    @classmethod
    def of(
        cls,
        source: Any,
        network: JumpNetwork,
        *,
        temperature_K: float | None = None,
        attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    ) -> Rates:
        """Bind a source to a network and check that they belong together.

        Parameters
        ----------
        source
            Barrier model, reference barriers or lattice gas.
        network
            The jumps.
        temperature_K
            K; not needed for a lattice gas of rates.
        attempt_frequency
            s⁻¹, where the source knows none.

        Raises
        ------
        ModelError
            If the source knows other jumps, other species, or is no barrier source at all.
        KinosonError
            If barriers come without a temperature.
        """
        if isinstance(source, Rates):
            if temperature_K is not None and source.temperature_K not in (None, temperature_K):
                raise KinosonError(
                    f"found temperature_K={temperature_K} for rates of {source.temperature_K} K; expected one "
                    "temperature; pass the barrier source instead of its rates"
                )
            temperature_K = temperature_K if source.temperature_K is None else source.temperature_K
            attempt_frequency = source.attempt_frequency
            source = source.source
        if hasattr(source, "bind"):
            source = source.bind(network)
        if not isinstance(source, (BarrierSource, RateSource)):
            raise ModelError(
                f"found {type(source).__name__} as a source of barriers; expected Barriers, a BarrierModel or a "
                "lattice gas; "
                "pass one of these"
            )
        own = getattr(source, "network", network)
        if own.fingerprint != network.fingerprint:
            raise ModelError(
                f"the barrier source knows other jumps ({own!r}) than asked for ({network!r}); expected the same "
                "lattice and "
                "jumps; build both from one JumpNetwork"
            )
        if own.supercell.species != network.supercell.species:
            raise ModelError(
                f"the barrier source knows the species {own.supercell.species[1:]}; expected "
                f"{network.supercell.species[1:]}; "
                "train it on this alloy"
            )
        if own.supercell != network.supercell:
            if not hasattr(source, "on"):
                raise ModelError(
                    f"the barrier source is bound to a supercell of {own.supercell.n_sites} sites; expected the one of "
                    f"{network.supercell.n_sites} sites asked for; pass the gas itself instead of a bound one, or "
                    "barriers of these states"
                )
            source = source.on(network.supercell)  # type: ignore[union-attr]
        if temperature_K is not None:
            thermal_energy(temperature_K)
        elif not isinstance(source, RateSource):
            raise KinosonError("found no temperature for barriers; expected temperature_K in kelvin; pass it")
        return cls(source, network, temperature_K, attempt_frequency)

    def energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies | None:
        """Barriers and energy changes, or None for a lattice gas of rates.

        Parameters
        ----------
        occupations : ndarray of int, shape (n_states, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n_states,)
            Site of the carrier of each state.
        """
        if isinstance(self.source, BarrierSource):
            return self.source.jump_energies(occupations, carriers)
        return None

    def __call__(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
        """Return rates, s⁻¹, shape (n_states, J), 0 where there is no jump."""
        if isinstance(self.source, RateSource):
            return self.source.jump_rates(occupations, carriers)
        assert self.temperature_K is not None
        energies = self.source.jump_energies(occupations, carriers)
        frequency = self._frequency(energies)
        return rates_from_barriers(energies.barrier, self.temperature_K, attempt_frequency=frequency)

    def _frequency(self, energies: JumpEnergies) -> float | NDArray[np.float64]:
        """Own attempt frequencies of jumps where the source knows them, s⁻¹."""
        own = energies.attempt_frequency
        return self.attempt_frequency if own is None else np.where(np.isnan(own), self.attempt_frequency, own)

    def with_reverse(self, occupations: NDArray, carriers: ArrayLike) -> tuple[NDArray, NDArray]:
        """Rates of all jumps and of their reverses, s⁻¹, shape (n_states, J) each.

        The reverse follows from detailed balance, W_back = W exp(ΔE/k_BT): it costs nothing more.

        Parameters
        ----------
        occupations : ndarray of int, shape (n_states, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n_states,)
            Site of the carrier of each state.
        """
        energies = self.energies(occupations, carriers)
        if energies is not None:
            assert self.temperature_K is not None
            frequency = self._frequency(energies)
            return tuple(
                rates_from_barriers(q, self.temperature_K, attempt_frequency=frequency)
                for q in (energies.barrier, np.where(np.isfinite(energies.barrier), energies.reverse_barrier, np.inf))
            )  # type: ignore[return-value]
        w = self(occupations, carriers)
        if hasattr(self.source, "reverse_rates"):
            return w, self.source.reverse_rates(occupations, carriers)
        return w, w  # a gas of rates whose states all have the same energy

    def state_energies(self, occupations: NDArray) -> NDArray[np.float64] | None:
        """Energies of states, eV, shape (n_states,), with a common zero; None where the source has barriers only.

        Parameters
        ----------
        occupations : ndarray of int, shape (n_states, n_sites)
            Species code of every site.
        """
        if hasattr(self.source, "state_energies"):
            return np.asarray(self.source.state_energies(occupations), dtype=float)
        if getattr(self.source, "energy", None) is not None:
            return np.asarray(self.source.energy.energies(occupations), dtype=float)
        return np.zeros(len(occupations)) if hasattr(self.source, "energy") else None

    def log_weights(self, occupations: NDArray) -> NDArray[np.float64]:
        """Logarithm of the equilibrium weights, −E/k_BT, shape (n_states,); 0 for gases without energies.

        Parameters
        ----------
        occupations : ndarray of int, shape (n_states, n_sites)
            Species code of every site.
        """
        model = getattr(self.source, "energy", None)
        if model is None:
            return np.zeros(len(occupations))
        assert self.temperature_K is not None
        return -model.energies(occupations) / thermal_energy(self.temperature_K)
