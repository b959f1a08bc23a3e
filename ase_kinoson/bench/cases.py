"""The alloys, states and barriers that rows are measured on; all are made here, without data from elsewhere."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from ase.build import bulk

from ase_kinoson.barriers.carrier_network import CarrierNetwork, NetworkEnergy
from ase_kinoson.barriers.energy import PairClusters, PairEnergy
from ase_kinoson.barriers.invariant import InvariantNetwork
from ase_kinoson.barriers.kra import KraModel
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonWarning
from ase_kinoson.kinetics.sampling import sample_states

__all__ = ["FIVE", "SYNTHETIC", "filled", "five_species", "gas_rates", "random_states", "synthetic_model"]

FIVE = ("Co", "Cr", "Fe", "Mn", "Ni")

SYNTHETIC = (
    "The barrier model has the default size for five species in fcc (K: 100 sites, 8 orientations, 32 channels; "
    "energy: 54 sites, 48 orientations, 16 channels, and pairs) and random weights of fixed seed: its speed is that of "
    "a fitted one, its barriers (0.8 eV on average, spread 0.2 eV) are nobody's."
)

SPREAD_K, SPREAD_E = 0.2, 0.5
"""Size of what the networks of the synthetic model add, eV."""


def five_species(repeat: int | tuple[int, int, int] = 4) -> JumpNetwork:
    """Vacancy jumps in an equimolar fcc alloy of five species, in conventional cells."""
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": dict.fromkeys(FIVE, 0.2)})
    cells = (repeat,) * 3 if isinstance(repeat, int) else repeat
    return JumpNetwork.from_supercell(alloy.supercell(cells))


def gas_rates() -> dict[str, float]:
    """Rates by species, s⁻¹, over four orders."""
    return {s: 10.0 ** (i - 2) for i, s in enumerate(FIVE)}


def random_states(cell: Supercell, n: int) -> States:
    """Random states, always the same ones."""
    return sample_states(cell, n, method="random", seed=0)


def filled(field: Any) -> Any:
    """Give the projection of a network of y, which starts at zero, random weights of fixed seed."""
    with torch.no_grad():
        for part in field.parts:
            part.project.normal_(generator=torch.Generator().manual_seed(0))
    return field


def synthetic_model(network: JumpNetwork) -> BarrierModel:
    """A barrier model of the default size, with random weights of fixed seed."""
    cell, bond = network.supercell, float(network.lengths.min())
    rng = np.random.default_rng(7)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        torch.manual_seed(7)
        clusters = PairClusters.build(cell, cutoff=2.01 * bond, network=network, triplet_cutoff=1.2 * bond)
        pairs = PairEnergy(clusters, 0.0075 * rng.standard_normal(clusters.n_features), 0.0)
        kra = KraModel.build(
            JumpEnvironment.build(network, cutoff=2.3 * bond), len(cell.species) - 1, hidden=32, layers=1
        )
        carrier = CarrierNetwork.build(CarrierEnvironment.build(network, cutoff=2.01 * bond), hidden=16, layers=1)
        with torch.no_grad():
            for net in kra.networks:
                net.double()
                net.linear.copy_(0.006 * torch.randn(net.linear.shape, dtype=torch.float64))
                net.readout.copy_(SPREAD_K * torch.randn(net.readout.shape, dtype=torch.float64))
            for own in carrier.networks:
                own.double()
                own.readout.copy_(SPREAD_E * torch.randn(own.readout.shape, dtype=torch.float64))
        every: list[InvariantNetwork] = [*kra.networks, *carrier.networks]
        for one in every:
            one.eval()
        # what the networks add on average differs from species to species; the means are set here
        states = random_states(cell, 64)
        moving = network.moving_species(states.occupations, states.carriers)
        found = KraModel(kra.environment, kra.networks).kra(states.occupations, states.carriers)
        wanted = np.linspace(0.6, 1.0, len(cell.species) - 1)
        for net in kra.networks:
            for atom, mean in enumerate(wanted):
                net.mean[atom] = mean - float(found[moving == atom + 1].mean())
    return BarrierModel(network, NetworkEnergy(pairs, carrier), kra, {"synthetic": True})
