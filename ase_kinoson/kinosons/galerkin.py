"""The best linear combination, in closed form.

Λ[y] is a quadratic form of y. Where y is linear in its parameters θ (factors of paths, counts of clusters), its minimum
solves one linear system, the Galerkin equations H (θ − θ₀) = −g, H the curvature and g the first gradient of the loss.
With a ridge λ that keeps θ close to θ₀ they are (H + λ) (θ − θ₀) = −g.

H is never formed. The Lanczos process, which needs gradients of the loss alone, builds an orthonormal basis in which H
is a small tridiagonal matrix; the solutions in this basis are those of conjugate gradients, for every λ at once, so that
states left out can choose λ at no cost. All of it is in double precision, whatever the relaxation is in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_kinoson.kinosons.objective import CHUNK, Objective
from ase_kinoson.kinosons.relaxation import Relaxation

__all__ = ["LinearSolution", "solve_linear"]

_log = logging.getLogger(__name__)

LADDER = (1.0, 10.0, 100.0, 1000.0)
"""Ridges tried on the states left out, in units of the one asked for."""

FEW = 20
"""With this many states per parameter nothing can be overfitted and the ridge is taken as it is."""


@dataclass(frozen=True)
class LinearSolution:
    """How a linear system was solved.

    Attributes
    ----------
    n_parameters, n_states : int
        Size of the system, and states its averages are taken over.
    n_validation : int
        Further states that chose the ridge; 0: it was taken as given.
    steps : int
        Dimension of the Krylov space.
    ridge : float
        Used, relative to the mean curvature.
    curvature : float
        Mean curvature of the loss.
    residual : float
        Norm of the gradient of the loss with its ridge, relative to the first gradient.
    gain : float
        Decrease of the loss on the states solved for.
    """

    n_parameters: int
    n_states: int
    n_validation: int
    steps: int
    ridge: float
    curvature: float
    residual: float
    gain: float


def solve_linear(
    relaxation: Relaxation,
    objective: Objective,
    parameters: Sequence[nn.Parameter],
    *,
    ridge: float = 1e-4,
    steps: int = 120,
    tolerance: float = 1e-4,
    states: int = 1024,
    validate: bool = True,
) -> LinearSolution:
    """Set parameters that y is linear in to the minimum of the loss; all others stay.

    Parameters
    ----------
    relaxation
        Changed in place; its ``report["linear"]`` says how it was solved.
    objective
        Training states.
    parameters
        Parameters of the relaxation.
    ridge
        Penalty on the squared distance from the present values, relative to the mean curvature.
    steps
        Largest dimension of the Krylov space; as large as the number of parameters: no limit.
    tolerance
        Stop when ten more dimensions have lowered the loss by less than this share of the whole gain.
    states
        Largest number of states used.
    validate
        Let states that are not solved for choose among larger ridges, where parameters are many.

    Returns
    -------
    LinearSolution
    """
    names = {id(p): name for name, p in relaxation.modules.named_parameters()}
    twin = relaxation.to(torch.float64)
    doubles = dict(twin.modules.named_parameters())
    variables = [doubles[names[id(p)]] for p in parameters]
    sizes = [p.numel() for p in variables]
    start = torch.cat([p.detach().reshape(-1) for p in variables])
    validate = validate and len(start) * FEW > min(states, len(objective))
    used, kept = _split(objective, states, validate)

    def put(theta: Tensor) -> None:
        for p, values in zip(variables, theta.split(sizes), strict=True):
            p.data = values.reshape(p.shape)

    def gradient(theta: Tensor) -> Tensor:
        put(theta)
        total = torch.zeros_like(theta)
        for which, rows in used.chunks():
            value = used.objective.loss(twin, which, rows) * len(rows)
            found = torch.autograd.grad(value, variables, materialize_grads=True)
            total += torch.cat([g.reshape(-1) for g in found])
        return total / len(used)

    origin = gradient(start)
    size = float(origin.norm())
    if not size > 0:
        return LinearSolution(len(start), len(used), 0, 0, ridge, 0.0, 0.0, 0.0)
    curvature = _mean_curvature(lambda v: gradient(start + v) - origin, len(start))
    krylov = _Krylov(-origin / size, lambda v: gradient(start + v) - origin)
    gains: list[float] = []
    while krylov.grow() and len(krylov.diagonal) < steps:
        gains.append(krylov.gain(ridge * curvature))
        if len(gains) > 10 and gains[-1] - gains[-11] < tolerance * gains[-1]:
            break

    ladder = [ridge * x for x in LADDER] if len(kept) else [ridge]
    losses = []
    for candidate in ladder if len(kept) else []:
        put(start + size * krylov.solve(candidate * curvature)[0])
        with torch.no_grad():
            losses.append(
                sum(float(kept.objective.loss(twin, w, rows)) * len(rows) for w, rows in kept.chunks()) / len(kept)
            )
    chosen = ladder[int(np.argmin(losses))] if losses else ridge
    x, residual = krylov.solve(chosen * curvature)
    put(start + size * x)
    with torch.no_grad():
        for p, double in zip(parameters, variables, strict=True):
            p.copy_(double)
    solution = LinearSolution(
        len(start),
        len(used),
        len(kept),
        len(krylov.diagonal),
        chosen,
        curvature,
        residual,
        size**2 * krylov.gain(chosen * curvature, loss=True),
    )
    relaxation.report["linear"] = asdict(solution)
    _log.info("linear solution: %s", solution)
    return solution


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the states of an objective, in double precision."""

    objective: Objective

    def __len__(self) -> int:
        return len(self.objective)

    def chunks(self) -> list[tuple[int, Tensor]]:
        pools = self.objective.pools
        return [(w, rows) for w, pool in enumerate(pools) for rows in torch.arange(len(pool.codes)).split(CHUNK)]


def _split(objective: Objective, states: int, validate: bool) -> tuple[_Part, _Part]:
    """States to solve for, and others that validate; the same share of every basis site, later ones validate."""
    share = min(1.0, states / len(objective))
    if validate:
        share = min(share, 0.8)
    first, second = [], []
    for pool in objective.pools:
        n = len(pool.codes)
        end = min(n, max(1, round(share * n)))
        more = min(n, end + max(1, round(0.5 * end))) if validate else end
        first.append(_double(pool, torch.arange(end)))
        second.append(_double(pool, torch.arange(end, more)))
    return _Part(replace(objective, pools=tuple(first))), _Part(replace(objective, pools=tuple(second)))


def _double(pool: Any, rows: Tensor) -> Any:
    paths = None if pool.paths is None else pool.paths[rows]
    if paths is not None:
        paths = replace(paths, **{k: x.double() for k, x in vars(paths).items() if x is not None})
    return replace(
        pool,
        rows=pool.rows[rows.numpy()],
        codes=pool.codes[rows],
        paths=paths,
        rates=pool.rates[rows].double(),
        weights=pool.weights[rows].double(),
    )


def _mean_curvature(apply: Any, n: int) -> float:
    """Trace of the curvature over the number of parameters, from random signs (Hutchinson)."""
    signs = torch.randint(0, 2, (3, n), generator=torch.Generator().manual_seed(0)).double() * 2.0 - 1.0
    return max(sum(float(v @ apply(v)) for v in signs) / (len(signs) * n), 0.0)


class _Krylov:
    """Orthonormal basis of span{b, H b, H² b, …} and H in it; each vector is kept orthogonal to all others."""

    def __init__(self, first: Tensor, apply: Any) -> None:
        self.apply = apply
        self.basis = [first]
        self.diagonal: list[float] = []
        self.beside: list[float] = []

    def grow(self) -> bool:
        """Go one dimension on; False where there is none left."""
        v = self.basis[-1]
        w = self.apply(v)
        self.diagonal.append(float(v @ w))
        known = torch.stack(self.basis)
        for _ in range(2):
            w = w - known.T @ (known @ w)
        left = float(w.norm())
        self.beside.append(left)
        if len(self.basis) == len(w) or left < 1e-11 * max(self.diagonal):
            return False
        self.basis.append(w / left)
        return True

    def _coordinates(self, shift: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        n = len(self.diagonal)
        matrix = np.diag(self.diagonal) + np.diag(self.beside[: n - 1], 1) + np.diag(self.beside[: n - 1], -1)
        values, vectors = np.linalg.eigh(matrix)
        # directions without curvature carry no gradient either, up to rounding
        kept = values > 1e-13 * values.max(initial=0.0)
        return vectors[:, kept] @ (vectors[0, kept] / (values[kept] + shift)), matrix

    def gain(self, shift: float, *, loss: bool = False) -> float:
        """Decrease of the quadratic form with its ridge, or of that without it (``loss``), for a unit gradient."""
        x, matrix = self._coordinates(shift)
        return float(x[0] - 0.5 * x @ matrix @ x) if loss else 0.5 * float(x[0])

    def solve(self, shift: float) -> tuple[Tensor, float]:
        """Solution for a ridge, and the norm of what is left of the equations."""
        x, _ = self._coordinates(shift)
        n = len(x)
        return torch.as_tensor(x) @ torch.stack(self.basis[:n]), self.beside[n - 1] * abs(float(x[-1]))
