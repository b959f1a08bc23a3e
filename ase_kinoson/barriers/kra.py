"""The symmetric part of a barrier, K = Q − ΔE/2, as an invariant function of the sites around a jump.

The sites around a jump are listed alike for the jump and its reverse, and the group of the jump holds the
operations that reverse it: K is the same for a jump and its reverse and for symmetry copies of an environment,
whatever the weights are.
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

from ase_kinoson.barriers.fitting import RidgeData, fit_ridge
from ase_kinoson.barriers.invariant import (
    CHUNK,
    FrozenNetwork,
    InvariantNetwork,
    TrainingPlan,
    single_thread,
    train_network,
)
from ase_kinoson.crystal.environment import EnvironmentClass, JumpEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["JumpSamples", "KraModel", "KraNetwork", "SiteLookup", "single_thread"]

TABLE_LIMIT = 50_000_000
"""Largest table of environment sites that is kept, entries."""


class SiteLookup:
    """Occupants around jumps.

    Parameters
    ----------
    environment
        Sites around every jump.
    """

    def __init__(self, environment: JumpEnvironment) -> None:
        self.environment = environment

    @cached_property
    def _table(self) -> NDArray[np.int32] | None:
        """Sites around all jumps, made when they are first asked for; None where that would be too much."""
        cell = self.environment.network.supercell
        size = cell.n_sites * self.environment.network.n_jumps * self.environment.n_max
        return self._sites(np.arange(cell.n_sites)).astype(np.int32) if size <= TABLE_LIMIT else None

    def _sites(self, carriers: NDArray) -> NDArray[np.int64]:
        """Sites, −1 where padded and where a small cell shows an image of one of the two ends."""
        sites = self.environment.sites(carriers)
        ends = self.environment.network.targets(carriers)
        own = (sites == carriers[:, None, None]) | (sites == ends[:, :, None])
        return np.where(own, -1, sites)

    def codes(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.int8]:
        """Occupants around every jump, shape (n, J, n_max); 0 where there is nothing to see."""
        c = np.asarray(carriers, dtype=np.int64)
        sites = self._sites(c) if self._table is None else self._table[c]
        around = sites + (np.arange(len(c)) * occupations.shape[1])[:, None, None]
        found = np.ascontiguousarray(occupations).reshape(-1)[np.where(sites < 0, 0, around)]
        return np.where(sites < 0, 0, found).astype(np.int8)


@dataclass(frozen=True)
class JumpSamples:
    """Environments of some jumps of one class.

    Attributes
    ----------
    codes : ndarray of int8, shape (m, n_env)
        Species around the jump; 0 for empty sites.
    moving : ndarray of int, shape (m,)
        Species code of the atom that moves.
    target : ndarray, shape (m,)
        K, eV.
    weights : ndarray, shape (m,)
        How much each counts.
    groups : ndarray of int, shape (m,)
    """

    codes: NDArray[np.int8]
    moving: NDArray[np.int64]
    target: NDArray[np.float64]
    weights: NDArray[np.float64]
    groups: NDArray[np.int64]

    def __getitem__(self, rows: NDArray) -> JumpSamples:
        return JumpSamples(
            self.codes[rows], self.moving[rows], self.target[rows], self.weights[rows], self.groups[rows]
        )

    @classmethod
    def join(cls, parts: Sequence[JumpSamples]) -> JumpSamples:
        """All samples of some sets."""
        names = ("codes", "moving", "target", "weights", "groups")
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


class KraNetwork(InvariantNetwork):
    """K of one class of jumps: a mean for each moving species, linear counts, and an invariant network.

    Parameters
    ----------
    environment
        Sites and group of the class.
    n_atoms
        Number of kinds of atoms (the empty site has no weights).
    hidden
        Width of the network; 0 leaves it out.
    layers
        Number of mixing layers.
    distances : ndarray, shape (n_env,), optional
        Distance of each site from the nearer end, Å.
    """

    orbits: Tensor
    mean: Tensor
    linear: Tensor

    def __init__(
        self,
        environment: EnvironmentClass,
        n_atoms: int,
        *,
        hidden: int = 16,
        layers: int = 1,
        distances: NDArray | None = None,
    ) -> None:
        super().__init__(environment, n_atoms, hidden=hidden, layers=layers, kinds=n_atoms, distances=distances)
        n_orbits = int(environment.site_orbits.max(initial=-1)) + 1
        self.register_buffer("orbits", torch.as_tensor(environment.site_orbits), persistent=False)
        self.register_buffer("mean", torch.zeros(n_atoms, dtype=torch.float64))
        self.register_buffer("linear", torch.zeros(n_atoms, n_orbits, n_atoms, dtype=torch.float64))

    def columns(self) -> Tensor:
        """Linear part by site, species there and moving species, shape (n_env, n_atoms, n_atoms)."""
        return self.linear[:, self.orbits].permute(1, 2, 0)

    def baseline(self, hot: Tensor, moving: Tensor) -> Tensor:
        """Mean and linear part, float64, shape (m,)."""
        weights = self.columns().reshape(self.n_env * self.n_atoms, self.n_atoms)
        return self.mean[moving] + (hot @ weights).gather(1, moving[:, None])[:, 0]

    def forward(self, codes: Tensor, moving: Tensor) -> Tensor:
        """K, eV, shape (m,), float64; codes (m, n_env), moving species codes (m,)."""
        hot = self.expand(codes, torch.float64)
        atom = moving.long() - 1
        result = self.baseline(hot, atom)
        return result + self.residual(hot, atom) if self.hidden else result

    # -- fitting ------------------------------

    def fit_linear(self, data: JumpSamples) -> dict[str, float | int]:
        """Ridge on counts by orbit: one part common to all moving species and one for each."""
        orbits, n_atoms = self.orbits.numpy(), self.n_atoms
        n_orbits = self.linear.shape[1]
        counts = np.zeros((len(data.codes), n_orbits, n_atoms))
        for orbit in range(n_orbits):
            there = data.codes[:, orbits == orbit]
            for atom in range(n_atoms):
                counts[:, orbit, atom] = (there == atom + 1).sum(axis=1)
        centre = counts.mean(axis=0)
        flat = (counts - centre).reshape(len(counts), -1)
        kind = np.eye(n_atoms)[data.moving - 1]
        level = float(np.average(data.target, weights=data.weights))
        design = np.concatenate([kind, flat, (kind[:, :, None] * flat[:, None, :]).reshape(len(flat), -1)], axis=1)
        rows = RidgeData(design, data.target - level, data.groups, centred=False, weights=data.weights)
        fitted = fit_ridge([rows], free=n_atoms)
        theta = fitted.coefficients
        size = flat.shape[1]
        own = theta[n_atoms + size :].reshape(n_atoms, size) + theta[None, n_atoms : n_atoms + size]
        self.linear.copy_(torch.as_tensor(own.reshape(n_atoms, n_orbits, n_atoms)))
        self.mean.copy_(torch.as_tensor(theta[:n_atoms] + level - own @ centre.ravel()))
        return fitted.report

    def fit_residual(
        self,
        train: JumpSamples,
        validation: JumpSamples,
        plan: TrainingPlan,
        *,
        generator: torch.Generator,
        tick: Callable[[], Any],
    ) -> dict[str, Any]:
        """Train on what the linear part leaves; see :func:`~ase_kinoson.barriers.invariant.train_network`."""
        if len(train.target) == 0:
            return {"best_epoch": 0, "validation_mae": []}
        self.float()
        self.mean, self.linear = self.mean.double(), self.linear.double()
        self.to(plan.device)
        linear = FrozenNetwork.of(self.columns().cpu(), torch.float64)
        left = []
        for data in (train, validation):
            known = self.mean.cpu().numpy()[data.moving - 1] + linear(data.codes, data.moving - 1)
            left.append(torch.as_tensor(data.target - known).to(plan.device))
        scale = float(left[0].std()) if len(train.target) > 1 else 1.0
        scale = scale if scale > 1e-9 else 1.0
        codes, check = (torch.as_tensor(d.codes).to(plan.device) for d in (train, validation))
        atom, atom_check = (torch.as_tensor(d.moving - 1).to(plan.device) for d in (train, validation))
        weight = torch.as_tensor(train.weights / train.weights.mean()).to(plan.device).float()

        def loss(rows: Tensor) -> Tensor:
            hot = self.hide(self.expand(codes[rows], torch.float32), plan.dropout, generator)
            error = self.residual(hot, atom[rows]) - (left[0][rows] / scale).float()
            return (
                weight[rows] * nn.functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")
            ).mean()

        def errors() -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                found = [
                    self.residual(self.expand(c, torch.float32), a).double() * scale
                    for c, a in zip(check.split(CHUNK), atom_check.split(CHUNK), strict=True)
                ]
            return (torch.cat(found) - left[1]).abs().cpu(), torch.as_tensor(validation.weights)

        report = train_network(
            self, plan, len(codes), loss, errors if validation.weights.sum() > 0 else None,
            batch=plan.batch_of(len(codes)), generator=generator, tick=tick,
        )  # fmt: skip
        self.cpu().double()
        with torch.no_grad():
            self.readout.mul_(scale)
        return report


class KraModel:
    """K of all jumps of states.

    Parameters
    ----------
    environment
        Sites around every jump.
    networks
        One per jump class; not to be changed afterwards.
    dtype
        Precision of predictions: ``torch.float32`` or ``torch.float64``.
    """

    def __init__(
        self, environment: JumpEnvironment, networks: Sequence[KraNetwork], dtype: torch.dtype = torch.float32
    ) -> None:
        self.environment = environment
        self.networks = list(networks)
        self.lookup = SiteLookup(environment)
        self.dtype = dtype

    @classmethod
    def build(cls, environment: JumpEnvironment, n_atoms: int, *, hidden: int, layers: int) -> KraModel:
        """A model with fresh weights."""
        return cls(
            environment,
            [
                KraNetwork(kind, n_atoms, hidden=hidden, layers=layers, distances=reach)
                for kind, reach in zip(environment.classes, environment.distances, strict=True)
            ],
        )

    @cached_property
    def _frozen(self) -> list[FrozenNetwork]:
        return [net.frozen(self.dtype, net.columns()) for net in self.networks]

    @cached_property
    def _means(self) -> list[NDArray[np.float64]]:
        # a copy: tensors that are sent to another process move to shared memory, and a view would be left behind
        return [net.mean.detach().numpy().copy() for net in self.networks]

    def samples(
        self,
        occupations: NDArray,
        carriers: NDArray,
        use: NDArray,
        target: NDArray,
        weights: NDArray,
        groups: NDArray,
    ) -> list[JumpSamples]:
        """Environments of the jumps marked by ``use`` (n, J), by class."""
        network = self.environment.network
        codes = self.lookup.codes(occupations, carriers)
        moving = network.moving_species(occupations, carriers)
        label = network.jump_class[network.basis_of(carriers)]
        result = []
        for k, net in enumerate(self.networks):
            rows, jumps = np.nonzero(use & (label == k))
            pick = (rows, jumps)
            result.append(
                JumpSamples(codes[rows, jumps, : net.n_env], moving[pick], target[pick], weights[pick], groups[rows])
            )
        return result

    def kra(self, occupations: NDArray, carriers: NDArray) -> NDArray[np.float64]:
        """K of every jump, eV, shape (n, J); 0 where there is no jump."""
        network = self.environment.network
        result = np.zeros((len(occupations), network.n_jumps))
        step = max(1, CHUNK // network.n_jumps)
        for start in range(0, len(occupations), step):
            part = slice(start, start + step)
            occ, c = occupations[part], carriers[part]
            codes = self.lookup.codes(occ, c)
            kind = network.moving_species(occ, c) - 1
            label = network.jump_class[network.basis_of(c)]
            for k, net in enumerate(self.networks):
                rows, jumps = np.nonzero(label == k)
                if len(rows):
                    atoms = kind[rows, jumps]
                    with single_thread(len(rows) < CHUNK // 2):
                        values = self._frozen[k](codes[rows, jumps, : net.n_env], atoms)
                    result[start + rows, jumps] = self._means[k][atoms] + values
        return result

    def on(self, network: JumpNetwork) -> KraModel:
        """The same model for the same jumps on another supercell."""
        return KraModel(replace(self.environment, network=network), self.networks, self.dtype)

    def with_precision(self, dtype: torch.dtype) -> KraModel:
        """The same model, evaluated in another precision."""
        return self if dtype == self.dtype else KraModel(self.environment, self.networks, dtype)

    def with_species(self, codes: NDArray) -> KraModel:
        """Keep only some species; ``codes`` are the old codes of the new atoms (from code 1)."""
        pick = torch.as_tensor(np.asarray(codes) - 1)
        networks = []
        for net, kind, reach in zip(self.networks, self.environment.classes, self.environment.distances, strict=True):
            small = KraNetwork(kind, len(pick), hidden=net.hidden, layers=net.layers, distances=reach).double()
            small.take_species(net, pick, kinds=True)
            small.mean.copy_(net.mean[pick])
            small.linear.copy_(net.linear[pick][:, :, pick])
            networks.append(small)
        return KraModel(self.environment, networks, self.dtype)
