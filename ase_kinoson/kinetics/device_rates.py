"""`DeviceRates`: rates of all jumps, computed on a device from occupations that lie there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ase_kinoson.barriers.carrier_network import NetworkEnergy
from ase_kinoson.barriers.device_model import DeviceModel
from ase_kinoson.barriers.device_sites import put
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.ensemble import BarrierEnsemble
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.errors import ModelError
from ase_kinoson.kinetics.lattice_gas import _BoundPairBarriers, _BoundSiteBarriers, _BoundSpeciesRates
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.units import thermal_energy

__all__ = ["DeviceRates"]


class DeviceRates:
    """Rates of all jumps of any state, on a device; the same numbers as :class:`Rates` to rounding.

    Parameters
    ----------
    rates
        Rates of learned barriers, or of a lattice gas (`SpeciesRates`, `PairBarriers` of pair energies,
        `SiteBarriers`).
    device
        Where.
    chunk
        States evaluated at once by learned barriers; default as in :meth:`DeviceModel.of`.

    Raises
    ------
    ModelError
        If the source can be evaluated on the CPU only.
    """

    def __init__(self, rates: Rates, device: torch.device, *, chunk: int | None = None) -> None:
        self.rates, self.device, self.chunk = rates, device, chunk
        self._of = self._prepare(rates.source)

    def __call__(self, occupations: Tensor, carriers: Tensor, moved: Tensor) -> Tensor:
        """Rates, s⁻¹, float64, shape (n, J); 0 where there is no jump.

        Parameters
        ----------
        occupations : Tensor of int8, shape (n, n_sites)
        carriers : Tensor of int64, shape (n,)
        moved : Tensor of int64, shape (n, J)
            Species code of the atom that each jump moves; anything where there is no jump.
        """
        return self._of(occupations, carriers, moved)

    def _put(self, array: object) -> Tensor:
        return put(np.asarray(array), self.device)

    def _prepare(self, source: object) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        network = self.rates.network
        n_basis, exists = network.supercell.alloy.n_basis, self._put(network.exists)
        if isinstance(source, _BoundSpeciesRates):
            table, everywhere = self._put(np.nan_to_num(source.table, nan=0.0)), bool(network.exists.all())

            def by_species(occupations: Tensor, carriers: Tensor, moved: Tensor) -> Tensor:
                found = table[moved]
                return found if everywhere else found * exists[carriers % n_basis]

            return by_species
        assert self.rates.temperature_K is not None or not hasattr(source, "jump_energies")
        beta = 1.0 / thermal_energy(self.rates.temperature_K or 1.0)
        frequency = self.rates.attempt_frequency
        if isinstance(source, _BoundSiteBarriers):
            basis = np.arange(n_basis)
            barrier = source.jump_energies(np.empty((n_basis, 0)), basis).barrier
            fixed = self._put(frequency * np.exp(-barrier * beta))
            return lambda occupations, carriers, moved: fixed[carriers % n_basis]
        if isinstance(source, _BoundPairBarriers) and isinstance(source.energy, (PairEnergy, NetworkEnergy)):
            model = DeviceModel.of(source.energy, network, device=self.device, chunk=self.chunk)
            level = self._put(np.nan_to_num(source.table, nan=0.0))
            return lambda occupations, carriers, moved: (
                frequency * torch.exp(-beta * (model.jump_energies(occupations, carriers)[0] + level[moved]))
            )
        if isinstance(source, (BarrierModel, BarrierEnsemble)):
            learned = DeviceModel.of(source, device=self.device, chunk=self.chunk)
            return lambda occupations, carriers, moved: (
                frequency * torch.exp(-beta * learned.jump_energies(occupations, carriers)[0])
            )
        raise ModelError(
            f"found rates of {type(source).__name__.removeprefix('_Bound')} to be computed on a device; expected a "
            "BarrierModel, a BarrierEnsemble or a lattice gas of species, pairs or sites; pass device='cpu'"
        )
