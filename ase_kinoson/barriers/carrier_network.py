"""`NetworkEnergy`: pair energies plus an invariant network on the environment of the carrier.

E = E_pairs + f(sites around the carrier). Atoms relax into a vacancy, and around it misfit is paid for
differently; this many-body part is what pair energies leave of ΔE. f is a function of the state, so that closed
loops of jumps still sum to zero, and it changes only where an exchange touches the environment of the carrier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ase_kinoson.barriers.carrier import find_carriers
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.invariant import FrozenNetwork, InvariantNetwork, TrainingPlan, single_thread, train_network
from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell

__all__ = ["CarrierNetwork", "CarrierSamples", "NetworkEnergy"]

SMALL = 1024
"""Environments below which one thread is faster."""

STATES = 2048
"""Jumps whose environments are listed at once."""


@dataclass(frozen=True)
class CarrierSamples:
    """Carrier environments before and after the jumps of some states.

    Attributes
    ----------
    codes : ndarray of int8, shape (n, 1 + J, n_max)
        Occupants around the carrier: of the state, and after each jump.
    label : ndarray of int, shape (n, 1 + J)
        Class of the carrier's site.
    target : ndarray, shape (n, J)
        Energy change that f shall give, eV.
    weights : ndarray, shape (n, J)
        How much each counts; 0 where there is no value.
    """

    codes: NDArray[np.int8]
    label: NDArray[np.int64]
    target: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __getitem__(self, rows: NDArray) -> CarrierSamples:
        return CarrierSamples(self.codes[rows], self.label[rows], self.target[rows], self.weights[rows])

    @classmethod
    def join(cls, parts: Sequence[CarrierSamples]) -> CarrierSamples:
        """All samples of some sets."""
        names = ("codes", "label", "target", "weights")
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


class CarrierNetwork:
    """A network f on the environment of the carrier.

    Parameters
    ----------
    environment
        Sites around every carrier site, and the supercell.
    networks
        One per class of carrier sites; not to be changed afterwards, except by :meth:`fit`.
    dtype
        Precision of predictions.
    """

    def __init__(
        self,
        environment: CarrierEnvironment,
        networks: Sequence[InvariantNetwork],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.environment = environment
        self.networks = list(networks)
        self.dtype = dtype

    @classmethod
    def build(cls, environment: CarrierEnvironment, *, hidden: int, layers: int) -> CarrierNetwork:
        """A model with fresh weights."""
        n_atoms = len(environment.supercell.species) - 1
        networks = [
            InvariantNetwork(
                kind, n_atoms, hidden=hidden, layers=layers, distances=np.linalg.norm(kind.vectors, axis=1)
            )
            for kind in environment.classes
        ]
        return cls(environment, networks)

    # -- environments ------------------------------

    def _sites(self, carriers: NDArray) -> NDArray[np.int32]:
        """Sites around carriers, shape (..., n_max); −1 where a class has fewer."""
        return self.environment.table.sites(carriers)

    def _label(self, carriers: NDArray) -> NDArray[np.int64]:
        return self.environment.class_of_basis[carriers % self.environment.supercell.alloy.n_basis]

    def _codes(
        self, occ: NDArray, rows: NDArray, carriers: NDArray, swap: tuple[NDArray, NDArray] | None = None
    ) -> NDArray[np.int8]:
        """Occupants around carriers, shape (..., n_max), after ``swap`` exchanged two sites of each row."""
        sites = self._sites(carriers)
        flat = np.ascontiguousarray(occ).reshape(-1)
        origin = rows * occ.shape[1]
        found = flat[origin[..., None] + sites]
        if swap is not None:
            first, second = swap
            found = np.where(sites == first[..., None], flat[origin + second][..., None], found)
            found = np.where(sites == second[..., None], flat[origin + first][..., None], found)
        return found.astype(np.int8, copy=False)

    @cached_property
    def _frozen(self) -> list[FrozenNetwork]:
        return [net.frozen(self.dtype) for net in self.networks]

    def values(self, codes: NDArray[np.int8], label: NDArray) -> NDArray[np.float64]:
        """Values of f for environments (m, n_max) on sites of some classes, eV, shape (m,)."""
        with single_thread(len(codes) < SMALL):
            if len(self.networks) == 1:
                return self._frozen[0](codes)
            result = np.zeros(len(codes))
            for k, net in enumerate(self.networks):
                rows = np.flatnonzero(label == k)
                result[rows] = self._frozen[k](codes[rows, : net.n_env])
            return result

    # -- energies ------------------------------

    def energies(self, occ: NDArray) -> NDArray[np.float64]:
        """Values of f for occupations, eV, shape (n,)."""
        carriers = find_carriers(self.environment.supercell, occ)
        return self.values(self._codes(occ, np.arange(len(occ)), carriers), self._label(carriers))

    def swap(
        self,
        occ: NDArray,
        first: NDArray,
        second: NDArray,
        rows: NDArray | None = None,
        carriers: NDArray | None = None,
    ) -> NDArray[np.float64]:
        """Change of f when each state, or each of some ``rows``, exchanges two sites, eV, shape (n,)."""
        own = np.arange(len(occ)) if rows is None else rows
        if carriers is None:
            carriers = find_carriers(self.environment.supercell, occ)[own]
        here = self._sites(carriers)
        near = (carriers == first) | (carriers == second)
        near |= ((here == first[:, None]) | (here == second[:, None])).any(axis=1)
        seen = np.flatnonzero(near)
        c, p, q, rows = carriers[seen], first[seen], second[seen], own[seen]
        end = np.where(c == p, q, np.where(c == q, p, c))
        codes = np.concatenate([self._codes(occ, rows, c), self._codes(occ, rows, end, (p, q))])
        values = self.values(codes, np.concatenate([self._label(c), self._label(end)]))
        result = np.zeros(len(own))
        result[seen] = values[len(seen) :] - values[: len(seen)]
        return result

    def jumps(self, occ: NDArray, carriers: NDArray, network: JumpNetwork) -> tuple[NDArray[np.int8], NDArray]:
        """Environments before and after every jump, shape (n, 1 + J, n_max), and their classes (n, 1 + J).

        Where there is no jump: the environment before.
        """
        targets = network.targets(carriers)
        targets = np.where(targets >= 0, targets, carriers[:, None])
        rows = np.broadcast_to(np.arange(len(occ))[:, None], targets.shape)
        start = np.broadcast_to(carriers[:, None], targets.shape)
        before = self._codes(occ, np.arange(len(occ)), carriers)[:, None]
        after = self._codes(occ, rows, targets, (start, targets))
        ends = np.concatenate([carriers[:, None], targets], axis=1)
        return np.concatenate([before, after], axis=1), self._label(ends)

    def jump_delta(self, occ: NDArray, carriers: NDArray, network: JumpNetwork) -> NDArray[np.float64]:
        """Change of f in every jump, eV, shape (n, J); 0 where there is no jump."""
        codes, label = self.jumps(occ, carriers, network)
        values = self.values(codes.reshape(label.size, -1), label.ravel()).reshape(label.shape)
        return values[:, 1:] - values[:, :1]

    # -- fitting ------------------------------

    def samples(
        self, occ: NDArray, carriers: NDArray, network: JumpNetwork, target: NDArray, weights: NDArray
    ) -> CarrierSamples:
        """Environments of states and of what their jumps lead to."""
        return CarrierSamples(*self.jumps(occ, carriers, network), target, weights)

    def fit(
        self,
        train: CarrierSamples,
        validation: CarrierSamples,
        plan: TrainingPlan,
        *,
        generator: torch.Generator,
        tick: Callable[[], Any],
    ) -> dict[str, Any]:
        """Train on energy changes; see :func:`~ase_kinoson.barriers.invariant.train_network`."""
        known = train.weights > 0
        if not known.any():
            return {"best_epoch": 0, "validation_mae": []}
        scale = float(train.target[known].std())
        scale = scale if scale > 1e-9 else 1.0
        nets = nn.ModuleList(self.networks).float().to(plan.device)
        data = [[torch.as_tensor(x).to(plan.device) for x in (d.codes, d.label)] for d in (train, validation)]
        goal = torch.as_tensor(train.target / scale).to(plan.device).float()
        weight = torch.as_tensor(train.weights / train.weights[known].mean()).to(plan.device).float()

        def change(codes: Tensor, label: Tensor, dropout: float) -> Tensor:
            flat, of = codes.flatten(0, 1), label.flatten()
            if len(self.networks) == 1:  # without asking the device which rows these are
                net = self.networks[0]
                value = net.residual(net.hide(net.expand(flat, torch.float32), dropout, generator)).view(label.shape)
                return value[:, 1:] - value[:, :1]
            value = torch.zeros(len(flat), device=plan.device)
            for k, net in enumerate(self.networks):
                rows = torch.nonzero(of == k)[:, 0]
                hot = net.hide(net.expand(flat[rows, : net.n_env], torch.float32), dropout, generator)
                value = value.index_add(0, rows, net.residual(hot))
            value = value.view(label.shape)
            return value[:, 1:] - value[:, :1]

        def loss(rows: Tensor) -> Tensor:
            error = change(data[0][0][rows], data[0][1][rows], plan.dropout) - goal[rows]
            penalty = nn.functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")
            return (weight[rows] * penalty).sum() / known.sum() * len(goal) / len(rows)

        def errors() -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                found = [
                    change(c, x, 0.0).double().cpu() * scale
                    for c, x in zip(data[1][0].split(128), data[1][1].split(128), strict=True)
                ]
            wrong = (torch.cat(found) - torch.as_tensor(validation.target)).abs()
            return wrong.flatten(), torch.as_tensor(validation.weights).flatten()

        per_state = max(1, round(known.sum() / len(known)))
        report = train_network(
            nets, plan, len(goal), loss, errors if validation.weights.sum() > 0 else None,
            batch=max(1, plan.batch_of(int(known.sum())) // per_state), generator=generator, tick=tick,
        )  # fmt: skip
        nets.cpu().double()
        for net in self.networks:
            net.eval()
            with torch.no_grad():
                net.readout.mul_(scale)
        self.__dict__.pop("_frozen", None)
        return report

    def with_precision(self, dtype: torch.dtype) -> CarrierNetwork:
        """The same network, evaluated in another precision."""
        return self if dtype == self.dtype else CarrierNetwork(self.environment, self.networks, dtype)

    # -- elsewhere ------------------------------

    def on(self, cell: Supercell) -> CarrierNetwork:
        """The same network on another supercell; its species may be a subset."""
        own = self.environment.supercell.species
        environment = replace(self.environment, supercell=cell)
        if cell.species == own:
            return CarrierNetwork(environment, self.networks, self.dtype)
        pick = torch.as_tensor([own.index(s) - 1 for s in cell.species[1:]])
        first = self.networks[0]
        small = CarrierNetwork.build(environment, hidden=first.hidden, layers=first.layers)
        for net, old in zip(small.networks, self.networks, strict=True):
            net.double().take_species(old, pick, kinds=False)
        return CarrierNetwork(environment, small.networks, self.dtype)


@dataclass(frozen=True, eq=False)
class NetworkEnergy:
    """Energy of an occupation: pairs, and a network around the carrier; an `EnergyModel`.

    Attributes
    ----------
    pairs : PairEnergy
    carrier : CarrierNetwork
    """

    pairs: PairEnergy
    carrier: CarrierNetwork

    @property
    def supercell(self) -> Supercell:
        """The supercell of the occupations."""
        return self.pairs.supercell

    @property
    def clusters(self) -> PairClusters:
        """The clusters of the pair part."""
        return self.pairs.clusters

    @property
    def report(self) -> dict[str, Any]:
        """How the pair part was fitted."""
        return dict(self.pairs.report)

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        """Return energies, eV, shape (n,), of occupations of shape (n, n_sites)."""
        return self.pairs.energies(occupations) + self.carrier.energies(np.asarray(occupations))

    def swap_delta(self, occupations: NDArray, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
        """Return the energy change, eV, shape (n,), when each state exchanges the occupants of two sites."""
        p, q = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        return self.pairs.swap_delta(occupations, p, q) + self.carrier.swap(np.asarray(occupations), p, q)

    def swap_rows(
        self, occupations: NDArray, rows: NDArray, first: NDArray, second: NDArray, carriers: NDArray
    ) -> NDArray[np.float64]:
        """Energy change when some states exchange the occupants of two sites each; see :meth:`PairEnergy.swap_rows`."""
        delta = self.pairs.swap_rows(occupations, rows, first, second, carriers)
        return delta + self.carrier.swap(occupations, first, second, rows, carriers)

    def jump_delta(self, occupations: NDArray, carriers: ArrayLike, network: JumpNetwork) -> NDArray[np.float64]:
        """Return the energy change of every jump, eV, shape (n, J); 0 where there is no jump."""
        occ, c = np.asarray(occupations), np.asarray(carriers, dtype=np.int64)
        result = self.pairs.jump_delta(occ, c, network)
        step = max(1, STATES // network.n_jumps)
        for start in range(0, len(occ), step):
            part = slice(start, start + step)
            result[part] += self.carrier.jump_delta(occ[part], c[part], network)
        return result

    def on(self, cell: Supercell) -> NetworkEnergy:
        """Use the energies on another supercell of the same lattice; its species may be a subset."""
        return NetworkEnergy(self.pairs.on(cell), self.carrier.on(cell))
