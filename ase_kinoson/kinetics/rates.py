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

__all__ = ["RateSource", "Rates", "rates_from_barriers"]


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
        If a barrier is NaN.
    """
    barrier = np.asarray(barrier, dtype=float)
    if np.isnan(barrier).any():
        raise BarrierError(
            f"found {int(np.isnan(barrier).sum())} barriers that are NaN; expected numbers in eV (inf for no jump); "
            "remove or recompute them"
        )
    frequency = np.asarray(attempt_frequency, dtype=float)
    if not np.all((frequency > 0) & np.isfinite(frequency)):
        raise KinosonError(
            f"found attempt_frequency={attempt_frequency!r}; expected a positive number in s⁻¹; correct it"
        )
    return frequency * np.exp(-barrier / thermal_energy(temperature_K))


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
            temperature_K, attempt_frequency = source.temperature_K, source.attempt_frequency
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
        if not isinstance(source, RateSource):
            if temperature_K is None:
                raise KinosonError("found no temperature for barriers; expected temperature_K in kelvin; pass it")
            thermal_energy(temperature_K)
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
        return self.attempt_frequency if own is None else np.where(np.isfinite(own), own, self.attempt_frequency)

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
