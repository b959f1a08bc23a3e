"""Training on several processes: each holds a share of the states, and gradients are summed over all of them.

The loss is an average over states. Every process has the sum over its own states of a batch, divided by the number of
states of the whole batch; the sum over processes is the gradient that one process would have, to rounding. Batches,
validation and random numbers are those of one process, whatever the number of processes.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.kinosons.relaxation import Relaxation

__all__ = ["Ranks", "SharedObjective", "join_processes"]


@contextmanager
def join_processes(backend: str | None = None) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; leave them at the end of the block.

    Inside of it :func:`train_relaxation` and :func:`fine_tune` share their states out over all processes: call them in
    all of them, with the same arguments. Without torchrun there is one process, and nothing is different.

    Parameters
    ----------
    backend
        Of ``torch.distributed``; default ``gloo`` on processors, and ``nccl`` for what lies on GPUs. Each process takes
        the GPU of its local rank.

    Yields
    ------
    Ranks
        Which process this is; let the first one alone write files.

    Raises
    ------
    KinosonError
        If the processes cannot be joined.

    Notes
    -----
    A process that fails inside of the block leaves the group; those that wait for it then fail too, and torchrun ends
    them all.
    """
    known = dist.is_available() and dist.is_initialized()
    if known or "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield Ranks.present()
        return
    if not dist.is_available():
        raise KinosonError(
            f"found {os.environ['WORLD_SIZE']} processes and a PyTorch without torch.distributed; expected one with "
            "it; install it, or start one process"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend = backend or ("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        raise KinosonError(
            f"found RANK={os.environ['RANK']} of {os.environ['WORLD_SIZE']} processes, which {backend} cannot join "
            f"({error}); expected them to reach each other; start them by torchrun, or unset RANK"
        ) from error
    try:
        yield Ranks.present()
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, and which of them this one is.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def present(cls) -> Ranks:
        """Those of the process group of ``torch.distributed``; one where there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process shows progress and writes files."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        """Sum of a tensor over all processes, the same bits in each.

        Parameters
        ----------
        x : Tensor of any shape
            Of equal shape everywhere; it is left alone.
        """
        if self.size == 1:
            return x
        there = self._carried(x)
        dist.all_reduce(there)
        dist.broadcast(there, 0)  # what is decided by a sum must be decided alike
        return there.to(x.device)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace the gradient of each parameter by its sum over all processes, in one message.

        Parameters
        ----------
        parameters
            In the same order everywhere.
        """
        if self.size == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        there = self._carried(torch.cat([g.reshape(-1) for g in parts]))
        dist.all_reduce(there)
        total = there.to(parts[0].device).split([g.numel() for g in parts])
        for p, g in zip(parameters, total, strict=True):
            p.grad = g.reshape(p.shape).clone()

    def equalise(self, parameters: Iterable[Tensor]) -> None:
        """Give all processes the values of the first, so that rounding on unlike machines cannot add up.

        Parameters
        ----------
        parameters
            In the same order everywhere.
        """
        if self.size == 1:
            return
        for p in parameters:
            there = self._carried(p.detach())
            dist.broadcast(there, 0)
            p.data.copy_(there)

    def union(self, names: set[str]) -> set[str]:
        """Names that some process has.

        Parameters
        ----------
        names
            Those of this process.
        """
        if self.size == 1:
            return names
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, names)
        return set().union(*found)

    def agree(self, **arguments: Any) -> None:
        """Make sure that all processes were called with the same arguments.

        Parameters
        ----------
        **arguments
            Whatever can be sent and compared; numbers may differ by rounding.

        Raises
        ------
        KinosonError
            In every process, if they differ.
        """
        if self.size == 1:
            return
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, arguments)
        for rank, theirs in enumerate(every):
            for name in sorted({*every[0], *theirs}):
                first, other = every[0].get(name), theirs.get(name)
                rounded = isinstance(first, float) and isinstance(other, float)
                if not (math.isclose(first, other, rel_tol=1e-4, abs_tol=1e-12) if rounded else first == other):
                    raise KinosonError(
                        f"found {name}={first!r} in process 0 and {other!r} in process {rank}; expected every process "
                        "to be called with the same arguments; choose them before the processes part"
                    )

    @staticmethod
    def _carried(x: Tensor) -> Tensor:
        """A copy where the backend can reach it: NCCL alone knows GPUs only."""
        if x.device.type == "cpu" and dist.get_backend() == "nccl":
            return x.to("cuda", copy=True)
        return x.clone()


@dataclass(frozen=True, eq=False)
class SharedObjective:
    """Λ[y]/Λ[0] of states that are shared out over processes; used like an :class:`Objective` of all of them.

    Attributes
    ----------
    local : Objective
        States of this process, in the units of all states.
    ranks : Ranks
    sites : ndarray of int, shape (n_states,)
        Basis sites of the carriers of all states.
    rows : ndarray of int, shape (n_local,)
        Which of them are here.
    """

    local: Objective
    ranks: Ranks
    sites: NDArray[np.int64]
    rows: NDArray[np.int64]
    # by number of a basis site: the local pool, and its row for each state with that basis site (-1: elsewhere)
    _local: list[tuple[int | None, Tensor]] = field(init=False, repr=False)
    _places: dict[int, tuple[Tensor, int]] = field(init=False, repr=False)

    @classmethod
    def of(
        cls,
        ranks: Ranks,
        relaxation: Relaxation,
        share: States,
        rows: NDArray[np.int64],
        n: int,
        *,
        weight: float,
        rates: Rates | None = None,
    ) -> SharedObjective:
        """Look the states of this process up, and agree on the units.

        Parameters
        ----------
        ranks
            All processes; each calls this.
        relaxation
            Any relaxation of the same form.
        share
            States of this process; there may be none.
        rows : ndarray of int, shape (n_local,)
            Their places among all states.
        n
            Number of all states.
        weight
            Share of these states in the weight of all.
        rates
            As in :meth:`Objective.of`.
        """
        network = relaxation.network
        sites = torch.zeros(n, dtype=torch.int64)
        sites[torch.as_tensor(rows)] = torch.as_tensor(network.basis_of(share.carriers))
        sums = np.zeros(len(network.supercell.species))
        local = None
        if len(share):
            # a share has its own mean weight and its own unit of rates; those of all states are sums of both
            local = Objective.of(relaxation, share) if rates is None else Objective.of(relaxation, share, rates=rates)
            sums = weight * local.escape * np.concatenate([[1.0], local.bare])
        sums = ranks.sum(torch.as_tensor(sums)).numpy()
        escape, bare = float(sums[0]), sums[1:] / sums[0]
        if local is None:
            local = Objective((), escape, bare)
        else:
            units = local.escape / escape, weight * n / len(share)
            pools = tuple(
                replace(pool, rates=pool.rates * units[0], weights=pool.weights * units[1]) for pool in local.pools
            )
            local = replace(local, pools=pools, escape=escape, bare=bare)
        return cls(local, ranks, ranks.sum(sites).numpy(), np.asarray(rows))

    def __post_init__(self) -> None:
        found = {p.basis_site: i for i, p in enumerate(self.local.pools)}
        local: list[tuple[int | None, Tensor]] = []
        places = {}
        for b in np.unique(self.sites):
            every, pool = np.flatnonzero(self.sites == b), found.get(int(b))
            where = torch.full((len(every),), -1)
            if pool is not None:
                here = torch.as_tensor(np.searchsorted(every, self.rows[self.local.pools[pool].rows]))
                where[here] = torch.arange(len(here))
                places[pool] = here, len(every)
            local.append((pool, where))
        # frozen: what is derived is set once
        object.__setattr__(self, "_local", local)
        object.__setattr__(self, "_places", places)

    def __len__(self) -> int:
        return len(self.sites)

    def place(self, which: int) -> tuple[Tensor, int]:
        """Places of the states of a local pool among all states with that basis site, and the number of those."""
        return self._places[which]

    def calibrate(self, relaxation: Relaxation) -> None:
        """Take the scale of the rates that gates see from all states; see :meth:`Closure.calibrate`."""
        closure = relaxation.closure
        assert closure is not None
        rate, back = [], []
        for pool in self.local.pools:
            if (paths := pool.paths) is not None:
                rate.append((paths.log_rate, pool.weights[:, None].expand_as(paths.log_rate)))
                exists = paths.probability > 0
                back.append((paths.log_back[exists], pool.weights[:, None, None].expand_as(paths.log_back)[exists]))
        for name, parts in (("rate", rate), ("back", back)):
            if (found := _moments(self.ranks, parts)) is not None:
                for what, value in zip(("mean", "scale"), found, strict=True):
                    buffer = getattr(closure, f"{name}_{what}")
                    setattr(closure, f"{name}_{what}", value.to(buffer))

    def batches(self, size: int, rng: np.random.Generator) -> list[tuple[int, Tensor]]:
        """Shuffled batches as :meth:`Objective.batches` makes them of all states.

        Parameters
        ----------
        size
            States of a batch, of all processes together.
        rng
            In the same state everywhere.
        """
        found = []
        for which in range(len(self._local)):
            order = torch.as_tensor(rng.permutation(len(self._local[which][1])))
            found += [(which, rows) for rows in order.split(size)]
        return [found[i] for i in rng.permutation(len(found))]

    def loss(self, relaxation: Relaxation, which: int, rows: Tensor) -> Tensor:
        """What the states of this process add to the mean over a batch; it is 0 without a graph if there are none.

        Parameters
        ----------
        relaxation
            The relaxation that learns.
        which, rows
            A batch of :meth:`batches`.
        """
        pool, where = self._local[which]
        here = where[rows]
        here = here[here >= 0]
        if pool is None or len(here) == 0:
            return torch.zeros(())
        return self.local.parts(relaxation, pool, here).mean() / len(rows)

    def evaluate(self, relaxation: Relaxation) -> tuple[float, dict[str, float]]:
        """Loss over all states, and Λ_q[y]/Λ_q[0] by name; see :meth:`Objective.evaluate`."""
        n = sum(len(pool.codes) for pool in self.local.pools)
        named: dict[str, float] = {}
        if n:
            _, named = self.local.evaluate(relaxation)
        symbols = [relaxation.network.supercell.species[1:][a] for a in np.flatnonzero(self.local.bare > 0)]
        who = "vacancy" if relaxation.network.mechanism == "vacancy" else "carrier"
        names = [who, *symbols, *(f"tracer {s}" for s in symbols)]
        mine = torch.tensor([named.get(name, 0.0) * n / len(self) for name in names], dtype=torch.float64)
        total = self.ranks.sum(mine)
        return float(total.mean()), dict(zip(names, total.tolist(), strict=True))


def share_out(
    ranks: Ranks, relaxation: Relaxation, states: States, owner: NDArray[np.int64], *, rates: Rates | None = None
) -> Objective | SharedObjective:
    """Objective of states that every process knows; ``owner``: which process takes which."""
    if ranks.size == 1:
        return Objective.of(relaxation, states) if rates is None else Objective.of(relaxation, states, rates=rates)
    rows = np.flatnonzero(owner == ranks.rank)
    weight = float(states.weights[rows].sum() / states.weights.sum())
    return SharedObjective.of(ranks, relaxation, states[rows], rows, len(states), weight=weight, rates=rates)


def owners(groups: NDArray[np.int64], ranks: Ranks) -> NDArray[np.int64]:
    """Process of every state: groups stay together, and processes have about equal numbers of states.

    Raises
    ------
    StatesError
        If there are fewer groups than processes.
    """
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < ranks.size:
        raise StatesError(
            f"found {ranks.size} processes for {len(names)} groups of training states; expected at least one group "
            "each; start fewer processes, or sample more chains"
        )
    load, who = np.zeros(ranks.size, dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    for g in np.argsort(-counts, kind="stable"):
        who[g] = np.argmin(load)
        load[who[g]] += counts[g]
    return who[member]


def summary(states: States, rates: Rates) -> dict[str, Any]:
    """What tells states and rates apart, for :meth:`Ranks.agree`."""
    named = hashlib.sha256("".join(states.keys).encode() + np.asarray(states.groups, dtype=np.int64).tobytes())
    place = np.arange(1.0, len(states) + 1.0)
    return {
        "network": rates.network.fingerprint,
        "n_states": len(states),
        "states": named.hexdigest()[:16],
        "weights": float(states.weights @ place),
        "temperature_K": rates.temperature_K,
        "rates of the first state": float(rates(states.occupations[:1], states.carriers[:1]).sum()),
    }


class Columns:
    """Random numbers for all Monte Carlo chains, of which this process uses those of its own.

    The stream of a chain then does not depend on how many processes there are. Drawing costs little beside what is
    done with the numbers.
    """

    def __init__(self, rng: np.random.Generator, n: int, own: NDArray[np.int64]) -> None:
        self.rng, self.n, self.own = rng, n, own

    def random(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Uniform in [0, 1), shape (steps, n_own)."""
        return self.rng.random((size[0], self.n))[:, self.own]

    def integers(self, high: int, size: tuple[int, int]) -> NDArray[np.int64]:
        """Uniform from 0 to ``high`` − 1, shape (steps, n_own)."""
        return self.rng.integers(high, size=(size[0], self.n))[:, self.own]


def _moments(ranks: Ranks, parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
    """Weighted mean and standard deviation over all processes, the latter not below 0.5; None without any weight."""
    first = torch.zeros(2, dtype=torch.float64)
    for x, w in parts:
        first += torch.stack([w.double().sum(), (w * x).double().sum()]).cpu()
    first = ranks.sum(first)
    if not first[0] > 0:
        return None
    mean = first[1] / first[0]
    square = torch.zeros(1, dtype=torch.float64)
    for x, w in parts:
        square += (w.double() * (x.double() - mean.to(x.device)).square()).sum().cpu()
    return mean, (ranks.sum(square)[0] / first[0]).sqrt().clamp_min(0.5)
