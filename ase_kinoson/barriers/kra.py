"""The symmetric part of a barrier, K = Q − ΔE/2, as an invariant function of the sites around a jump.

The sites around a jump are listed alike for the jump and its reverse, and the group of the jump holds the
operations that reverse it. Each network first applies one filter in all orientations of that group and ends
with the mean over them: K is the same for a jump and its reverse and for symmetry copies of an environment,
whatever the weights are.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ase_kinoson.barriers.fitting import RidgeData, fit_ridge
from ase_kinoson.crystal.environment import EnvironmentClass, JumpEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["JumpSamples", "KraModel", "KraNetwork", "SiteLookup", "single_thread"]

TABLE_LIMIT = 50_000_000
"""Largest table of environment sites that is kept, entries."""

CHUNK = 1024
"""Jumps evaluated at once."""


@contextlib.contextmanager
def single_thread(small: bool = True) -> Iterator[None]:
    """Run small tensor operations on one thread, which is faster than sharing them out."""
    before = torch.get_num_threads()
    if small and before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


class SiteLookup:
    """Occupants around jumps.

    Parameters
    ----------
    environment
        Sites around every jump.
    """

    def __init__(self, environment: JumpEnvironment) -> None:
        self.environment = environment
        cell = environment.network.supercell
        size = cell.n_sites * environment.network.n_jumps * environment.n_max
        self._table: NDArray[np.int32] | None = None
        if size <= TABLE_LIMIT:
            self._table = self._sites(np.arange(cell.n_sites)).astype(np.int32)

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
    groups : ndarray of int, shape (m,)
    """

    codes: NDArray[np.int8]
    moving: NDArray[np.int64]
    target: NDArray[np.float64]
    groups: NDArray[np.int64]

    def __getitem__(self, rows: NDArray) -> JumpSamples:
        return JumpSamples(self.codes[rows], self.moving[rows], self.target[rows], self.groups[rows])


class KraNetwork(nn.Module):
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
    """

    permutations: Tensor
    orbits: Tensor
    mean: Tensor
    linear: Tensor

    def __init__(self, environment: EnvironmentClass, n_atoms: int, *, hidden: int = 16, layers: int = 1) -> None:
        super().__init__()
        n_env, n_ops = environment.n_sites, environment.n_ops
        self.n_env, self.n_ops, self.n_atoms, self.hidden = n_env, n_ops, n_atoms, hidden
        n_orbits = int(environment.site_orbits.max(initial=-1)) + 1
        self.register_buffer("permutations", torch.as_tensor(environment.inverse_permutations), persistent=False)
        self.register_buffer("orbits", torch.as_tensor(environment.site_orbits), persistent=False)
        self.register_buffer("mean", torch.zeros(n_atoms, dtype=torch.float64))
        self.register_buffer("linear", torch.zeros(n_atoms, n_orbits, n_atoms, dtype=torch.float64))
        if hidden:
            self.filter = nn.Parameter(torch.randn(n_env, n_atoms, hidden) / max(1, n_env) ** 0.5)
            self.embedding = nn.Parameter(0.5 * torch.randn(n_atoms, hidden))
            self.gate = nn.Parameter(torch.zeros(n_atoms, hidden))
            self.own = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(layers)])
            self.mixed = nn.ModuleList([nn.Linear(hidden, hidden, bias=False) for _ in range(layers)])
            self.readout = nn.Parameter(torch.zeros(n_atoms, hidden + 1))

    def expand(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot environments, shape (m, n_env * n_atoms)."""
        table = torch.cat([torch.zeros(1, self.n_atoms), torch.eye(self.n_atoms)]).to(device=codes.device, dtype=dtype)
        return table[codes.long()].flatten(1)

    def lifted(self) -> Tensor:
        """The filter in all orientations, shape (n_env * n_atoms, n_ops * hidden)."""
        turned = self.filter[self.permutations]  # (n_ops, n_env, n_atoms, hidden)
        return turned.permute(1, 2, 0, 3).reshape(self.n_env * self.n_atoms, self.n_ops * self.hidden)

    def residual(self, hot: Tensor, moving: Tensor, *, lifted: Tensor | None = None) -> Tensor:
        """The network alone, shape (m,); ``moving`` counts atoms from 0."""
        h = (hot @ (self.lifted() if lifted is None else lifted)).view(len(hot), self.n_ops, self.hidden)
        scale, shift = 1.0 + self.gate[moving][:, None], self.embedding[moving][:, None]
        h = nn.functional.silu(torch.addcmul(shift, h, scale))
        for own, mixed in zip(self.own, self.mixed, strict=True):
            h = h + nn.functional.silu(own(h) + mixed(h.mean(dim=1, keepdim=True)))
        out = self.readout[moving]
        return (h.mean(dim=1) * out[:, :-1]).sum(dim=1) + out[:, -1]

    def baseline(self, hot: Tensor, moving: Tensor) -> Tensor:
        """Mean and linear part, float64, shape (m,)."""
        weights = self.linear[:, self.orbits].permute(1, 2, 0).reshape(self.n_env * self.n_atoms, self.n_atoms)
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
        hot = (
            self.expand(torch.as_tensor(data.codes), torch.float64)
            .numpy()
            .reshape(len(data.codes), self.n_env, n_atoms)
        )
        counts = np.zeros((len(hot), n_orbits, n_atoms))
        for orbit in range(n_orbits):
            counts[:, orbit] = hot[:, orbits == orbit].sum(axis=1)
        centre = counts.mean(axis=0)
        flat = (counts - centre).reshape(len(hot), -1)
        kind = np.eye(n_atoms)[data.moving - 1]
        level = float(data.target.mean())
        design = np.concatenate([kind, flat, (kind[:, :, None] * flat[:, None, :]).reshape(len(hot), -1)], axis=1)
        fitted = fit_ridge([RidgeData(design, data.target - level, data.groups, centred=False)], free=n_atoms)
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
        *,
        epochs: int,
        generator: torch.Generator,
        learning_rate: float,
        weight_decay: float,
        batch: int,
        dropout: float = 0.0,
        device: torch.device,
        tick: Callable[[], Any],
    ) -> dict[str, Any]:
        """Train on what the linear part leaves; keep the epoch that is best on the validation jumps.

        The linear part alone (epoch 0) stays where no epoch beats it by a standard error.
        """
        if len(train.target) == 0 or len(validation.target) == 0:
            return {"best_epoch": 0, "validation_mae": []}
        self.float()
        self.mean, self.linear = self.mean.double(), self.linear.double()
        self.to(device)
        parts = []
        for data in (train, validation):
            codes = torch.as_tensor(data.codes, device=device)
            atom = torch.as_tensor(data.moving, device=device) - 1
            base = torch.cat(
                [
                    self.baseline(self.expand(c, torch.float64), a)
                    for c, a in zip(codes.split(CHUNK), atom.split(CHUNK), strict=True)
                ]
            )
            parts.append((codes, atom, (torch.as_tensor(data.target, device=device) - base)))
        scale = float(parts[0][2].std()) if len(train.target) > 1 else 1.0
        scale = scale if scale > 1e-9 else 1.0
        optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=weight_decay)
        codes, atom, goal = parts[0]
        steps = max(1, -(-len(goal) // batch))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=learning_rate, total_steps=epochs * steps, pct_start=0.2
        )

        def errors() -> Tensor:
            with torch.no_grad():
                lifted = self.lifted()
                found = [
                    self.residual(self.expand(c, torch.float32), a, lifted=lifted).double() * scale
                    for c, a in zip(codes_check.split(CHUNK), atom_check.split(CHUNK), strict=True)
                ]
            return (torch.cat(found) - goal_check).abs()

        codes_check, atom_check, goal_check = parts[1]
        linear = errors()
        history = [float(linear.mean())]
        best, best_epoch, kept = history[0], 0, copy.deepcopy(self.state_dict())
        for epoch in range(1, epochs + 1):
            self.train()
            order = torch.randperm(len(goal), generator=generator).to(device)
            for rows in order.split(batch):
                hot = self.expand(codes[rows], torch.float32)
                if dropout > 0.0:
                    keep = torch.rand(hot.shape[0], self.n_env, generator=generator).to(device) >= dropout
                    hot = (hot.view(len(rows), self.n_env, -1) * keep[:, :, None] / (1.0 - dropout)).flatten(1)
                loss = nn.functional.smooth_l1_loss(self.residual(hot, atom[rows]), (goal[rows] / scale).float())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            self.eval()
            tick()
            now = errors()
            history.append(float(now.mean()))
            gain = linear - now
            certain = float(gain.mean()) > float(gain.std()) / len(gain) ** 0.5
            if history[-1] < best and certain:
                best, best_epoch, kept = history[-1], epoch, copy.deepcopy(self.state_dict())
        self.load_state_dict(kept)
        self.cpu().double()
        with torch.no_grad():
            self.readout.mul_(scale)
        return {"best_epoch": best_epoch, "validation_mae": [round(h, 6) for h in history]}


class KraModel:
    """K of all jumps of states.

    Parameters
    ----------
    environment
        Sites around every jump.
    networks
        One per jump class.
    """

    def __init__(self, environment: JumpEnvironment, networks: Sequence[KraNetwork]) -> None:
        self.environment = environment
        self.networks = list(networks)
        self.lookup = SiteLookup(environment)

    def samples(
        self, occupations: NDArray, carriers: NDArray, use: NDArray, target: NDArray, groups: NDArray
    ) -> list[tuple[JumpSamples, NDArray[np.int64], NDArray[np.int64]]]:
        """Environments of the jumps marked by ``use`` (n, J), by class, with their rows and jump numbers."""
        network = self.environment.network
        codes = self.lookup.codes(occupations, carriers)
        moving = network.moving_species(occupations, carriers)
        label = network.jump_class[network.basis_of(carriers)]
        result = []
        for k, net in enumerate(self.networks):
            rows, jumps = np.nonzero(use & (label == k))
            data = JumpSamples(codes[rows, jumps, : net.n_env], moving[rows, jumps], target[rows, jumps], groups[rows])
            result.append((data, rows, jumps))
        return result

    def kra(self, occupations: NDArray, carriers: NDArray) -> NDArray[np.float64]:
        """K of every jump, eV, shape (n, J); 0 where there is no jump."""
        network = self.environment.network
        result = np.zeros((len(occupations), network.n_jumps))
        step = max(1, CHUNK // network.n_jumps)
        lifted = [net.lifted().detach() if net.hidden else None for net in self.networks]
        for start in range(0, len(occupations), step):
            part = slice(start, start + step)
            occ, c = occupations[part], carriers[part]
            codes = self.lookup.codes(occ, c)
            moving = network.moving_species(occ, c)
            label = network.jump_class[network.basis_of(c)]
            for k, net in enumerate(self.networks):
                rows, jumps = np.nonzero(label == k)
                if len(rows) == 0:
                    continue
                with torch.no_grad(), single_thread(len(rows) < CHUNK // 2):
                    hot = net.expand(torch.from_numpy(codes[rows, jumps, : net.n_env]), torch.float64)
                    atom = torch.from_numpy(moving[rows, jumps]) - 1
                    values = net.baseline(hot, atom)
                    if net.hidden:
                        values = values + net.residual(hot, atom, lifted=lifted[k])
                result[start + rows, jumps] = values.numpy()
        return result

    def on(self, network: JumpNetwork) -> KraModel:
        """The same model for the same jumps on another supercell."""
        return KraModel(replace(self.environment, network=network), self.networks)

    def with_species(self, codes: NDArray) -> KraModel:
        """Keep only some species; ``codes`` are the old codes of the new atoms (from code 1)."""
        pick = torch.as_tensor(np.asarray(codes) - 1)
        networks = []
        for label, net in enumerate(self.networks):
            small = KraNetwork(
                self.environment.classes[label],
                len(pick),
                hidden=net.hidden,
                layers=len(net.own) if net.hidden else 1,
            )
            small.double()
            state = {k: v.clone() for k, v in net.state_dict().items()}
            state["mean"] = state["mean"][pick]
            state["linear"] = state["linear"][pick][:, :, pick]
            if net.hidden:
                state["filter"] = state["filter"][:, pick]
                for name in ("embedding", "gate", "readout"):
                    state[name] = state[name][pick]
            small.load_state_dict(state)
            networks.append(small)
        return KraModel(self.environment, networks)
