"""Model alloys with exact detailed balance: rates and barriers without any saddle search.

All of them are made without a lattice and bound to one with ``bind(network)``, which every function that takes a
model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.environment import JumpEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError

__all__ = ["PairBarriers", "RandomBarriers", "SiteBarriers", "SpeciesRates"]


def _by_code(values: Mapping[str, float], network: JumpNetwork, what: str) -> NDArray[np.float64]:
    species = network.supercell.species
    unknown = set(values) - set(species[1:])
    table = np.full(len(species), np.nan)
    for code, symbol in enumerate(species):
        if symbol in values:
            table[code] = values[symbol]
    needed = {s for sub in network.supercell.alloy.sublattices if sub.mobile for s in sub.species}
    missing = sorted(needed - set(values))
    if missing or unknown:
        raise KinosonError(
            f"found {what} for {sorted(values)}; expected one for each mobile species {sorted(needed)}; add or rename"
        )
    if any(np.isnan(float(values[s])) for s in needed):
        raise KinosonError(f"found {what} {dict(values)}; expected numbers; correct them")
    return table


@dataclass(frozen=True)
class SpeciesRates:
    """Lattice gas whose every exchange has the rate of the atom that moves; all states have equal energy.

    Parameters
    ----------
    rates : mapping
        Rate of each species, s⁻¹; 0 for atoms that never move (obstacles).
    """

    rates: Mapping[str, float]

    def bind(self, network: JumpNetwork) -> _BoundSpeciesRates:
        """Attach the gas to a network of jumps.

        Parameters
        ----------
        network
            The jumps.

        Raises
        ------
        KinosonError
            If the rates are not those of the mobile species, or one is negative or no finite number.
        """
        table = _by_code(self.rates, network, "rates")
        known = table[~np.isnan(table)]
        if not np.all((known >= 0) & np.isfinite(known)):
            raise KinosonError(f"found rates {dict(self.rates)}; expected finite numbers ≥ 0 in s⁻¹; correct them")
        return _BoundSpeciesRates(network, table)


@dataclass(frozen=True, eq=False)
class _BoundSpeciesRates:
    network: JumpNetwork
    table: NDArray[np.float64]
    energy: None = None

    def jump_rates(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
        moved = self.network.moving_species(occupations, carriers)
        return np.where(moved >= 0, self.table[moved], 0.0)


@dataclass(frozen=True)
class RandomBarriers:
    """Rugged landscape: states of equal energy, barriers drawn from a Gaussian.

    The draw is a hash of the moving species and of the occupants around the jump, taken over all operations that map
    the jump
    onto itself or its reverse, so that a jump, its reverse and all symmetric copies have one barrier.

    Parameters
    ----------
    mean, std
        Mean and standard deviation of the barriers, eV.
    seed
        Another seed is another landscape.
    cutoff
        Reach of the dependence around the jump, Å; default as in :class:`JumpEnvironment`.
    """

    mean: float = 0.8
    std: float = 0.1
    seed: int = 0
    cutoff: float | None = None

    def bind(self, network: JumpNetwork) -> _BoundRandomBarriers:
        """Attach the landscape to a network of jumps.

        Parameters
        ----------
        network
            The jumps.

        Raises
        ------
        KinosonError
            If mean or standard deviation is no finite number, or the latter negative.
        """
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std >= 0):
            raise KinosonError(
                f"found barriers of mean {self.mean} and standard deviation {self.std}; expected finite numbers in eV, "
                "the latter ≥ 0; correct them"
            )
        return _BoundRandomBarriers(network, JumpEnvironment.build(network, cutoff=self.cutoff), self)


@dataclass(frozen=True, eq=False)
class _BoundRandomBarriers:
    network: JumpNetwork
    environment: JumpEnvironment
    gas: RandomBarriers
    energy: None = None

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        c = np.asarray(carriers)
        sites = self.environment.sites(c)
        codes = np.where(sites >= 0, occupations[np.arange(len(c))[:, None, None], sites] + 1, 0).astype(np.int64)
        moved = self.network.moving_species(occupations, c)
        labels = self.network.jump_class[self.network.basis_of(c)]
        rng = np.random.default_rng(self.gas.seed)
        n_codes = len(self.network.supercell.species) + 1
        barrier = np.full(moved.shape, np.inf)
        for label, kind in enumerate(self.environment.classes):
            table = rng.integers(0, 2**64, size=(kind.n_sites, n_codes), dtype=np.uint64)
            salt = rng.integers(0, 2**64, size=n_codes, dtype=np.uint64)
            rows, jumps = np.nonzero(labels == label)
            own = codes[rows, jumps, : kind.n_sites]
            best = np.full(len(rows), np.iinfo(np.uint64).max, dtype=np.uint64)
            slots = np.arange(kind.n_sites)
            for perm in kind.permutations:
                best = np.minimum(best, table[slots, own[:, perm]].sum(axis=1, dtype=np.uint64))
            mixed = _scramble(best + salt[moved[rows, jumps]])
            uniform = (mixed >> np.uint64(11)).astype(float) * 2.0**-53 + 2.0**-54
            barrier[rows, jumps] = self.gas.mean + self.gas.std * ndtri(uniform)
        return JumpEnergies(barrier, np.zeros_like(barrier))


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of the splitmix64 generator (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class PairBarriers:
    """Barriers Q = K + ΔE/2 from an energy model and one kinetically resolved activation K per species.

    Parameters
    ----------
    energy
        An :class:`~ase_kinoson.barriers.source.EnergyModel`.
    kra : mapping
        K of each mobile species, eV; inf for atoms that never move.
    """

    energy: Any
    kra: Mapping[str, float]

    def bind(self, network: JumpNetwork) -> _BoundPairBarriers:
        """Attach the model to a network of jumps.

        Parameters
        ----------
        network
            The jumps.

        Raises
        ------
        KinosonError
            If the barriers are not those of the mobile species, or one is NaN or −inf.
        """
        if any(k == -np.inf for k in self.kra.values()):
            raise KinosonError(
                f"found activations {dict(self.kra)}; expected numbers in eV, or inf for atoms that never move; "
                "correct them"
            )
        cell, energy = network.supercell, self.energy
        if getattr(energy, "supercell", cell) != cell and hasattr(energy, "on"):
            energy = energy.on(cell)
        return _BoundPairBarriers(network, energy, _by_code(self.kra, network, "activations"))


@dataclass(frozen=True, eq=False)
class _BoundPairBarriers:
    network: JumpNetwork
    energy: Any
    table: NDArray[np.float64]

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        c = np.asarray(carriers)
        targets = self.network.targets(c)
        moved = self.network.moving_species(occupations, c)
        if hasattr(self.energy, "jump_delta"):  # which copies no occupations
            delta = self.energy.jump_delta(occupations, c, self.network)
        else:
            delta = np.zeros(targets.shape)
            rows, jumps = np.nonzero(targets >= 0)
            delta[rows, jumps] = self.energy.swap_delta(occupations[rows], c[rows], targets[rows, jumps])
        barrier = np.where(moved >= 0, self.table[moved] + 0.5 * delta, np.inf)
        return JumpEnergies(barrier, delta)


@dataclass(frozen=True)
class SiteBarriers:
    """One carrier on an otherwise empty or pure lattice: an energy per kind of site, a saddle energy per kind of jump.

    Parameters
    ----------
    site_energies : sequence of float
        Energy of the carrier on each symmetry class of mobile sites (in the order of the first basis site), eV.
    saddle_energies : sequence of float
        Energy at the saddle of each jump class (``network.jump_class``), eV.
    """

    site_energies: tuple[float, ...]
    saddle_energies: tuple[float, ...]

    def bind(self, network: JumpNetwork) -> _BoundSiteBarriers:
        """Attach the model to a network of jumps.

        Parameters
        ----------
        network
            The jumps.

        Raises
        ------
        KinosonError
            If there is not one energy per class of sites and of jumps, or one is NaN or −inf, or a site has inf.
        """
        alloy = network.supercell.alloy
        mobile = alloy.mobile_basis
        orbits = alloy.space_group.site_orbits()
        labels = np.full(alloy.n_basis, -1)
        labels[mobile] = np.unique(orbits[mobile], return_inverse=True)[1]
        n_kinds = labels.max() + 1
        if len(self.site_energies) != n_kinds or len(self.saddle_energies) != network.n_classes:
            raise KinosonError(
                f"found {len(self.site_energies)} site and {len(self.saddle_energies)} saddle energies; expected "
                f"{n_kinds} and "
                f"{network.n_classes}, one per symmetry class; see JumpNetwork.classes"
            )
        saddles = np.array(self.saddle_energies, dtype=float)
        if not np.isfinite(np.array(self.site_energies, dtype=float)).all() or not np.all(saddles > -np.inf):
            raise KinosonError(
                f"found site energies {self.site_energies} and saddle energies {self.saddle_energies}; expected "
                "finite numbers in eV, or inf for saddles that nothing crosses; correct them"
            )
        return _BoundSiteBarriers(network, _SiteEnergy(network, np.array([*self.site_energies, np.nan])[labels]), self)


@dataclass(frozen=True, eq=False)
class _SiteEnergy:
    network: JumpNetwork
    by_basis: NDArray[np.float64]

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        carriers = [self.network.supercell.find_carrier(row) for row in occupations]
        return self.by_basis[self.network.basis_of(carriers)]


@dataclass(frozen=True, eq=False)
class _BoundSiteBarriers:
    network: JumpNetwork
    energy: _SiteEnergy
    gas: SiteBarriers

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        b = self.network.basis_of(carriers)
        start = self.energy.by_basis[b][:, None]
        end = self.energy.by_basis[self.network.target_basis[b]]
        exists = self.network.exists[b]
        saddle = np.array(self.gas.saddle_energies)[self.network.jump_class[b]]
        return JumpEnergies(np.where(exists, saddle - start, np.inf), np.where(exists, end - start, 0.0))
