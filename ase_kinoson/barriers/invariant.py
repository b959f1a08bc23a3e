"""`InvariantNetwork`: a number for the occupants of the sites around a centre, invariant under its point group.

One filter is applied to the occupants in all orientations of the group, mixed with the mean over orientations, and
averaged over them: equivalent environments get the same number, whatever the weights are. The filter is scaled by
a power of the distance of each site, so that weight decay prefers what decays like the strain field of a
misfitting atom: displacements of a point defect fall off as 1/r².
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_kinoson.crystal.environment import EnvironmentClass

__all__ = ["FrozenNetwork", "InvariantNetwork", "TrainingPlan", "single_thread", "train_network"]

DECAY = 2.0
"""Power of the distance by which the filter falls off: the displacement field of a point defect."""

CHUNK = 2048
"""Environments checked at once while training."""

CACHE = 600_000
"""Numbers per tensor at once in fast evaluation: what stays in the cache of a core."""

DEVICE_CACHE = 16_000_000
"""The same on a device, where large steps pay: 64 MB in single precision."""


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


class InvariantNetwork(nn.Module):
    """Invariant network on the sites around a centre.

    Parameters
    ----------
    environment
        Sites and group.
    n_atoms
        Number of kinds of atoms (the empty site has no weights).
    hidden
        Width; 0 leaves the network out.
    layers
        Number of mixing layers.
    kinds
        Number of kinds of centres (moving species), each with its own gates and readout.
    distances : ndarray, shape (n_env,), optional
        Distance of each site from the centre, Å; without it no site is nearer than another.
    """

    permutations: Tensor

    def __init__(
        self,
        environment: EnvironmentClass,
        n_atoms: int,
        *,
        hidden: int,
        layers: int = 1,
        kinds: int = 1,
        distances: NDArray | None = None,
    ) -> None:
        super().__init__()
        n_env = environment.n_sites
        self.n_env, self.n_ops, self.n_atoms, self.hidden, self.layers = (
            n_env, environment.n_ops, n_atoms, hidden, layers,
        )  # fmt: skip
        self.kinds = kinds
        fall = np.ones(n_env) if distances is None or n_env == 0 else (distances / distances.min()) ** -DECAY
        self.register_buffer("permutations", torch.as_tensor(environment.inverse_permutations), persistent=False)
        self.fall = torch.as_tensor(fall)  # no buffer: it keeps its precision
        if hidden:
            self.filter = nn.Parameter(torch.randn(n_env, n_atoms, hidden) / max(1, n_env) ** 0.5)
            self.embedding = nn.Parameter(0.5 * torch.randn(kinds, hidden))
            self.gate = nn.Parameter(torch.zeros(kinds, hidden))
            self.own = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(layers)])
            self.mixed = nn.ModuleList([nn.Linear(hidden, hidden, bias=False) for _ in range(layers)])
            self.readout = nn.Parameter(torch.zeros(kinds, hidden + 1))

    @property
    def folds(self) -> bool:
        """Whether gate and embedding are the same for all environments."""
        return self.kinds == 1 and self.n_env > 0

    def expand(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot environments, shape (m, n_env * n_atoms)."""
        table = torch.cat([torch.zeros(1, self.n_atoms), torch.eye(self.n_atoms)]).to(device=codes.device, dtype=dtype)
        return table[codes.long()].flatten(1)

    def lifted(self) -> Tensor:
        """The filter in all orientations, shape (n_env * n_atoms, n_ops * hidden)."""
        scaled = self.filter * self.fall.to(self.filter)[:, None, None]
        turned = scaled[self.permutations]  # (n_ops, n_env, n_atoms, hidden)
        return turned.permute(1, 2, 0, 3).reshape(self.n_env * self.n_atoms, self.n_ops * self.hidden)

    def head(self, h: Tensor, kind: Tensor | None) -> Tensor:
        """From filtered environments (m, n_ops, hidden) to the number, shape (m,); ``kind`` counts from 0."""
        if kind is None:
            h = torch.addcmul(self.embedding[0], h, 1.0 + self.gate[0])
        else:
            h = torch.addcmul(self.embedding[kind][:, None], h, 1.0 + self.gate[kind][:, None])
        h = nn.functional.silu(h)
        for own, mixed in zip(self.own, self.mixed, strict=True):
            h = h + nn.functional.silu(own(h) + mixed(h.mean(dim=1, keepdim=True)))
        out = self.readout[0 if kind is None else kind]
        pooled = h.mean(dim=1)
        return pooled @ out[:-1] + out[-1] if kind is None else (pooled * out[:, :-1]).sum(dim=1) + out[:, -1]

    def residual(self, hot: Tensor, kind: Tensor | None = None) -> Tensor:
        """The network of one-hot environments, shape (m,)."""
        return self.head((hot @ self.lifted()).view(len(hot), self.n_ops, self.hidden), kind)

    def hide(self, hot: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
        """Hide a fraction of the sites of one-hot environments."""
        if dropout <= 0.0:
            return hot
        keep = torch.rand(len(hot), self.n_env, generator=generator).to(hot.device) >= dropout
        return (hot.view(len(hot), self.n_env, -1) * keep[:, :, None] / (1.0 - dropout)).flatten(1)

    def frozen(self, dtype: torch.dtype, linear: Tensor | None = None) -> FrozenNetwork:
        """A copy for fast evaluation; ``linear`` (n_env, n_atoms, k) holds k linear functions to add as columns."""
        parts = [linear] if linear is not None else []
        net, shift = None, None
        if self.hidden:
            first = self.lifted().detach().reshape(self.n_env, self.n_atoms, self.n_ops, self.hidden)
            if self.folds:  # gate and embedding are the same for all: they go into the table
                first = first * (1.0 + self.gate[0].detach())
                shift = self.embedding[0].detach().repeat(self.n_ops)
            parts.insert(0, first.flatten(2))
            net = copy.deepcopy(self).to(dtype).eval().requires_grad_(False)
        return FrozenNetwork.of(torch.cat([p.double() for p in parts], dim=-1), dtype, net, shift)

    def take_species(self, other: InvariantNetwork, pick: Tensor, *, kinds: bool) -> None:
        """Take the weights of ``other`` for some of its species (``kinds``: its centres are species too)."""
        if not self.hidden:
            return
        of_species = {"filter": 1, **(dict.fromkeys(("embedding", "gate", "readout"), 0) if kinds else {})}
        weights = dict(other.named_parameters())
        with torch.no_grad():
            for name, own in self.named_parameters():
                old = weights[name].detach()
                own.copy_(old.index_select(of_species[name], pick) if name in of_species else old)


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """An `InvariantNetwork` as a table of what every occupant of every site adds.

    Attributes
    ----------
    table : Tensor, shape (n_env * n_codes, n_ops * hidden + k)
    n_codes : int
        Species codes, the empty site included.
    network : InvariantNetwork or None
        What comes after the table.
    """

    table: Tensor
    n_codes: int
    network: InvariantNetwork | None

    @classmethod
    def of(
        cls,
        columns: Tensor,
        dtype: torch.dtype,
        network: InvariantNetwork | None = None,
        shift: Tensor | None = None,
    ) -> FrozenNetwork:
        """Make the table of what each occupant (n_env, n_atoms, width) adds; the empty site adds nothing.

        ``shift``: what every environment has in the first columns.
        """
        table = torch.cat([torch.zeros_like(columns[:, :1]), columns], dim=1)
        if shift is not None and len(table):
            table[0, :, : len(shift)] += shift.double()  # whatever the first site holds
        return cls(table.flatten(0, 1).to(dtype).contiguous(), table.shape[1], network)

    def __call__(self, codes: NDArray, kind: NDArray | None = None) -> NDArray[np.float64]:
        """Values of environments (m, n_env) of species codes; ``kind`` counts from 0 and picks the linear column."""
        with torch.inference_mode():
            which = None if kind is None else torch.from_numpy(kind)
            return self.values(torch.from_numpy(codes), which).numpy()

    def to(self, device: torch.device) -> FrozenNetwork:
        """A copy on a device."""
        network = None if self.network is None else copy.deepcopy(self.network).to(device)
        return FrozenNetwork(self.table.to(device), self.n_codes, network)

    def values(self, codes: Tensor, kind: Tensor | None = None) -> Tensor:
        """Values of environments (m, n_env) that lie where the table does, float64, shape (m,)."""
        m, n_env = codes.shape
        result = torch.empty(m, dtype=torch.float64, device=codes.device)
        if n_env == 0:
            sums, width = self._nothing, 1
        elif codes.device.type == "cpu":
            sums, width = self._gathered, self.table.shape[1]
        else:
            sums, width = self._multiplied, max(self.table.shape)
        step = max(16, (CACHE if codes.device.type == "cpu" else DEVICE_CACHE) // max(1, width))
        for start in range(0, m, step):
            part = slice(start, start + step)
            result[part] = self._from_sums(sums(codes[part]), None if kind is None else kind[part])
        return result

    def _nothing(self, codes: Tensor) -> Tensor:
        return torch.zeros(len(codes), self.table.shape[1], dtype=self.table.dtype, device=codes.device)

    def _gathered(self, codes: Tensor) -> Tensor:
        """Sums of rows of the table, read one by one: what a core with a large cache does best."""
        first = torch.arange(0, len(self.table), self.n_codes, dtype=torch.int32, device=codes.device)
        return nn.functional.embedding_bag(codes + first, self.table, mode="sum")

    def _multiplied(self, codes: Tensor) -> Tensor:
        """The same sums as a product with a matrix of zeros and ones: what a GPU does best."""
        hot = codes[:, :, None] == torch.arange(self.n_codes, dtype=torch.int8, device=codes.device)
        return hot.flatten(1).to(self.table.dtype) @ self.table

    def _from_sums(self, found: Tensor, kind: Tensor | None) -> Tensor:
        """The network's head, with few copies, and the linear column."""
        net = self.network
        width = 0 if net is None else net.n_ops * net.hidden
        value = torch.zeros(len(found), dtype=self.table.dtype, device=found.device)
        if net is not None:
            h = found[:, :width].unflatten(1, (net.n_ops, net.hidden))
            if not net.folds:
                kind = torch.zeros(len(found), dtype=torch.int64, device=found.device) if kind is None else kind
                h = torch.addcmul(net.embedding[kind][:, None], h, (1.0 + net.gate)[kind][:, None])
            h = nn.functional.silu(h, inplace=True)
            mean = h.mean(dim=1)
            for k, (own, mixed) in enumerate(zip(net.own, net.mixed, strict=True)):
                new = nn.functional.linear(h, own.weight).add_((mixed(mean) + own.bias)[:, None])  # type: ignore[arg-type]
                new = nn.functional.silu(new, inplace=True)
                mean = mean + new.mean(dim=1)
                if k + 1 < net.layers:
                    h = h + new
            out = net.readout[0 if kind is None else kind]
            value = mean @ out[:-1] + out[-1] if kind is None else (mean * out[:, :-1]).sum(dim=1) + out[:, -1]
        if found.shape[1] > width:
            column = torch.zeros_like(found[:, :1], dtype=torch.int64) if kind is None else kind[:, None]
            value = value + found[:, width:].gather(1, column)[:, 0]
        return value


@dataclass(frozen=True)
class TrainingPlan:
    """How networks are trained: AdamW with one cycle of the learning rate, best epoch on the validation rows kept.

    Attributes
    ----------
    epochs : int
    learning_rate, weight_decay : float
        Of AdamW; one cycle with its peak after a fifth of the steps.
    dropout : float
        Fraction of the sites that is hidden in each step.
    batch : int or None
        Rows per step; default: a sixtieth of the rows, 32 to 192.
    device : torch.device
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    dropout: float
    batch: int | None
    device: torch.device

    def batch_of(self, n: int) -> int:
        """Rows per step for ``n`` rows."""
        return self.batch or int(np.clip(n // 60, 32, 192))


def train_network(
    net: nn.Module,
    plan: TrainingPlan,
    n: int,
    loss: Callable[[Tensor], Tensor],
    errors: Callable[[], tuple[Tensor, Tensor]] | None,
    *,
    batch: int,
    generator: torch.Generator,
    tick: Callable[[], Any],
) -> dict[str, Any]:
    """Train a network and leave it with the weights of its best epoch.

    Parameters
    ----------
    net
        Moved to the device of the plan and back.
    n
        Number of training rows; ``loss(rows)`` is the loss of some of them.
    errors
        Absolute errors on the validation rows and their weights; the network as it was (epoch 0) stays where no
        epoch beats it by a standard error. None: the last epoch is kept.
    batch
        Rows per step.
    """
    steps = max(1, -(-n // batch))
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=plan.learning_rate, total_steps=max(2, plan.epochs * steps), pct_start=0.2
    )
    history: list[float] = []
    best, best_epoch, kept = np.inf, 0, copy.deepcopy(net.state_dict())
    if errors is not None:
        before, weight = errors()
        share = weight / weight.sum()
        best = float((share * before).sum())
        history.append(best)
    for epoch in range(1, plan.epochs + 1):
        net.train()
        for rows in torch.randperm(n, generator=generator).to(plan.device).split(batch):
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
            schedule.step()
        net.eval()
        tick()
        if errors is None:
            best_epoch = epoch
            continue
        now, _ = errors()
        history.append(float((share * now).sum()))
        gain = before - now
        mean = float((share * gain).sum())
        error = float((share**2 * (gain - mean) ** 2).sum()) ** 0.5
        if history[-1] < best and mean > error:
            best, best_epoch, kept = history[-1], epoch, copy.deepcopy(net.state_dict())
    if errors is not None:
        net.load_state_dict(kept)
    return {"best_epoch": best_epoch, "validation_mae": [round(h, 6) for h in history]}
