"""The best linear combination, in closed form.

Λ[y] is a quadratic form of y. Where y is linear in its parameters θ (factors of paths, counts of clusters), its minimum
solves one linear system, the Galerkin equations H (θ − θ₀) = −g, H the curvature and g the first gradient of the loss.
With a ridge λ that keeps θ close to θ₀ they are (H + λ) (θ − θ₀) = −g.

H is never formed. The Lanczos process, which needs gradients of the loss alone, builds an orthonormal basis in which H
is a small tridiagonal matrix; the solutions in this basis are those of conjugate gradients, for every λ at once, so
that states left out can choose λ at no cost. All of it is in double precision, whatever the relaxation is in.

Every parameter is first given a unit in which its own curvature is about 1: coefficients of slow and of fast species,
of frequent and of rare clusters differ by orders of magnitude, and neither the ridge nor the number of steps should
know.

Of several processes each sums over its own states; gradients, and with them all that follows, are summed over all.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn

from ase_kinoson.errors import IllConditioned, KinosonError
from ase_kinoson.kinosons.cluster_field import ClusterField
from ase_kinoson.kinosons.distributed import Ranks, SharedObjective
from ase_kinoson.kinosons.objective import CHUNK, Objective
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.side_by_side import on_all_cores

__all__ = ["LinearSolution", "solve_linear"]

_log = logging.getLogger(__name__)

LADDER = (1.0, 10.0, 100.0, 1000.0)
"""Ridges tried on the states left out, in units of the one asked for."""

FEW = 20
"""With this many states per parameter nothing can be overfitted and the ridge is taken as it is."""


ILL = 1e10
"""Condition number, ridge included, above which too few digits are left of a solution in double precision."""

FLAT = 1e-13
"""Curvatures below this part of the largest one are rounding."""

NOISE = 1e-13
"""A curvature below this part of the gradients it is the difference of is rounding."""

SPARSE = 4
"""One in so many chunks of states gives the units of the parameters."""

SMALL = 8
"""Up to so many parameters alike are probed one by one."""


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
        Used, relative to the curvature of each parameter.
    residual : float
        Norm of the gradient of the loss with its ridge, relative to the first gradient.
    gain : float
        Decrease of the loss on the states solved for.
    condition : float
        Largest over smallest curvature among the directions used, the ridge included; 1 where there are none.
    n_without_effect : int
        Parameters that do not change the loss, within rounding; they stay.
    n_dropped : int
        Directions of the Krylov space whose curvature is nothing but rounding; nothing moves along them.
    """

    n_parameters: int
    n_states: int
    n_validation: int
    steps: int
    ridge: float
    residual: float
    gain: float
    condition: float = 1.0
    n_without_effect: int = 0
    n_dropped: int = 0


def solve_linear(
    relaxation: Relaxation,
    objective: Objective | SharedObjective,
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
        Penalty on the squared distance from the present values, relative to the curvature of each parameter.
    steps
        Largest dimension of the Krylov space; as large as the number of parameters: no limit.
    tolerance
        Stop when five more dimensions have lowered the loss by less than this share of the whole gain.
    states
        Largest number of states used.
    validate
        Let states that are not solved for choose among larger ridges, where parameters are many.

    Returns
    -------
    LinearSolution

    Raises
    ------
    KinosonError
        If a parameter is given twice, or the gradient of the loss is no number.

    Notes
    -----
    Parameters that depend on each other (the same field twice) leave curvatures of zero. The solution has no part
    along them; any y gives a bound, so that this costs tightness at most. Where so much is lost that digits are, an
    :class:`~ase_kinoson.errors.IllConditioned` warning says so.
    """
    names = {id(p): name for name, p in relaxation.modules.named_parameters()}
    if len({id(p) for p in parameters}) < len(parameters):
        raise KinosonError("found a parameter twice; expected each once; leave out the copies")
    twin = relaxation.to(torch.float64)
    doubles = dict(twin.modules.named_parameters())
    variables = [doubles[names[id(p)]] for p in parameters]
    sizes = [p.numel() for p in variables]
    # vectors of the solution are small and stay in the memory of the host, wherever gradients are computed
    start = torch.cat([p.detach().reshape(-1) for p in variables]).cpu()
    validate = validate and len(start) * FEW > min(states, len(objective))
    used, kept = _split(objective, states, validate)
    if not any(names[id(p)].startswith(("closure.first.", "closure.second.")) for p in parameters):
        used, kept = _frozen(twin, used), _frozen(twin, kept)

    def put(theta: Tensor) -> None:
        for p, values in zip(variables, theta.split(sizes), strict=True):
            p.data = values.reshape(p.shape).to(p.device)

    def gradient(theta: Tensor, every: int = 1) -> Tensor:
        put(theta)
        total, n = torch.zeros_like(theta), theta.new_zeros(1)

        def one(chunk: tuple[int, Tensor]) -> Tensor:
            value = used.objective.loss(twin, *chunk) * len(chunk[1])
            found = torch.autograd.grad(value, variables, materialize_grads=True)
            return torch.cat([g.reshape(-1) for g in found])

        chunks = used.chunks(every)
        for (_, rows), found in zip(chunks, on_all_cores(one, chunks), strict=True):
            total += found.cpu()
            n += len(rows)
        if used.ranks.size > 1:
            total, n = used.ranks.sum(torch.cat([total, n])).split([len(total), 1])
        return total / n

    origin, some = gradient(start), gradient(start, SPARSE)
    norm, group = _norms(twin, used, variables)
    unit = _units(
        [lambda v: gradient(start + v, SPARSE) - some, lambda v: gradient(start + v) - origin],
        norm,
        group,
        (some, origin),
    )
    down = -unit * origin
    size = float(down.norm())
    if not np.isfinite(size):
        put(start)
        raise KinosonError(
            "found a gradient of the loss that is inf or NaN; expected finite rates, weights and parameters; check the "
            "barriers of the training states, or start from y = 0"
        )
    without = int((unit == 0).sum())
    if size == 0:
        put(start)
        return LinearSolution(len(start), len(used), 0, 0, ridge, 0.0, 0.0, 1.0, without)
    krylov = _Krylov(down / size, lambda v: unit * (gradient(start + unit * v) - origin))
    gains: list[float] = []
    while krylov.grow() and len(krylov.diagonal) < steps:
        gains.append(krylov.gain(ridge))
        if len(gains) > 5 and gains[-1] - gains[-6] < tolerance * gains[-1]:
            break

    ladder = [ridge * x for x in LADDER] if len(kept) else [ridge]
    losses = []
    for candidate in ladder if len(kept) else []:
        put(start + size * unit * krylov.solve(candidate)[0])
        with torch.no_grad():
            value = sum(on_all_cores(lambda c: float(kept.objective.loss(twin, *c)) * len(c[1]), kept.chunks()))
            losses.append(float(kept.ranks.sum(torch.tensor(value, dtype=torch.float64))) / len(kept))
    chosen = ladder[int(np.argmin(losses))] if losses else ridge
    x, residual = krylov.solve(chosen)
    put(start + size * unit * x)
    with torch.no_grad():
        for p, double in zip(parameters, variables, strict=True):
            p.copy_(double)
    solution = LinearSolution(
        len(start),
        len(used),
        len(kept),
        len(krylov.diagonal),
        chosen,
        residual,
        size**2 * krylov.gain(chosen, loss=True),
        krylov.condition(chosen),
        without,
        krylov.n_dropped,
    )
    if solution.condition > ILL:
        warnings.warn(
            IllConditioned(
                f"the equations of the best linear y have a condition number of {solution.condition:.1e} "
                f"({solution.n_dropped} of {solution.steps} directions without curvature were left out); expected less "
                f"than {ILL:g}",
                number=solution.condition,
                limit=ILL,
                advice="raise the ridge, or leave out fields that depend on others",
            ),
            stacklevel=2,
        )
    relaxation.report["linear"] = asdict(solution)
    _log.info("linear solution: %s", solution)
    return solution


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the states of an objective, in double precision.

    Attributes
    ----------
    objective : Objective
        Those of this process.
    places : tuple of Tensor
        Of each state of a pool its place in that pool; of several processes, in that of all of them.
    n : int
        Number of states of all processes.
    ranks : Ranks
    """

    objective: Objective
    places: tuple[Tensor, ...]
    n: int
    ranks: Ranks

    def __len__(self) -> int:
        return self.n

    def chunks(self, every: int = 1) -> list[tuple[int, Tensor]]:
        """Numbers of pools and rows in them; ``every``: one in so many chunks of each pool."""
        found = []
        for which, places in enumerate(self.places):
            rows = torch.nonzero((places // CHUNK) % every == 0)[:, 0]
            found += [(which, part) for part in rows.split(CHUNK) if len(part)]
        return found


def _split(objective: Objective | SharedObjective, states: int, validate: bool) -> tuple[_Part, _Part]:
    """States to solve for, and others that validate; the same share of every basis site, later ones validate."""
    share = min(1.0, states / len(objective))
    if validate:
        share = min(share, 0.8)
    if isinstance(objective, SharedObjective):
        local, ranks = objective.local, objective.ranks
        layout = [objective.place(i) for i in range(len(local.pools))]
        sizes = np.bincount(objective.sites)
    else:
        local, ranks = objective, Ranks()
        layout = [(torch.arange(len(pool.codes)), len(pool.codes)) for pool in local.pools]
        sizes = np.array([n for _, n in layout])

    def border(n: int) -> tuple[int, int]:
        """Numbers of the first state that is not solved for, and of the first that is left out."""
        end = min(n, max(1, round(share * n)))
        return end, min(n, end + max(1, round(0.5 * end))) if validate else end

    parts = []
    for which in range(2):
        pools, places = [], []
        for pool, (place, n) in zip(local.pools, layout, strict=True):
            first, last = (0, *border(n))[which : which + 2]
            rows = torch.nonzero((place >= first) & (place < last))[:, 0]
            pools.append(_double(pool, rows))
            places.append(place[rows] - first)
        count = sum(np.diff((0, *border(int(n))))[which] for n in sizes if n)
        parts.append(_Part(replace(local, pools=tuple(pools)), tuple(places), int(count), ranks))
    return parts[0], parts[1]


def _frozen(relaxation: Relaxation, part: _Part) -> _Part:
    """The same with gates evaluated once, for parameters that are none of theirs."""
    pools = []
    for pool in part.objective.pools:
        if pool.paths is not None:
            paths = relaxation.freeze_gates(relaxation.ball(pool.basis_site), pool.codes, pool.paths)
            pool = replace(pool, paths=paths)
        pools.append(pool)
    return replace(part, objective=replace(part.objective, pools=tuple(pools)))


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


def _norms(relaxation: Relaxation, used: _Part, variables: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean square of what each parameter adds to the field, up to a factor common to its group, and its group."""
    norms = [torch.ones(p.numel(), dtype=torch.float64) for p in variables]
    groups = [-1 - torch.arange(p.numel()) for p in variables]  # by species
    place = {id(p): i for i, p in enumerate(variables)}
    field = relaxation.field
    if isinstance(field, ClusterField):
        for kind, part in enumerate(field.parts):
            found = [torch.zeros(p.numel(), dtype=torch.float64) for p in part.parameters()]
            for pool in used.objective.pools:
                if not len(pool.codes):
                    continue
                ball = relaxation.ball(pool.basis_site)
                first = torch.nonzero(ball.states[kind] == 0)[:, 0]
                for own in first:  # one, or none where the carrier is of another class
                    for total, more in zip(
                        found, field.occurrence(pool.codes[:, ball.labels[kind][own]], kind), strict=True
                    ):
                        total += more.cpu() * len(pool.codes)
            for p, total, own in zip(part.parameters(), found, field.own_species(kind), strict=True):
                total = used.ranks.sum(total)
                norms[place[id(p)]], groups[place[id(p)]] = total / len(used), own.cpu() + kind * field.n_codes
    return torch.cat(norms), torch.cat(groups)


def _units(
    applies: Sequence[Callable[[Tensor], Tensor]], norm: Tensor, group: Tensor, origins: Sequence[Tensor]
) -> Tensor:
    """Units of the parameters in which each has a curvature of about 1; 0 for those without effect.

    A curvature is the difference of two gradients, of which ``origins`` are one; what rounding leaves of it is none.

    One probe with random signs gives the mean curvature of a large group (Hutchinson); in small ones, where signs may
    cancel, every parameter has its own. Probes without effect in the first, cheap form of the curvature try the next.
    """
    generator = torch.Generator().manual_seed(0)
    unit = torch.zeros_like(norm)
    sets = [torch.nonzero(group == g)[:, 0] for g in group.unique()]
    for members in [x for own in sets for x in (own[None] if len(own) > SMALL else own[:, None])]:
        scale = norm[members]
        if not float(scale.max()) > 0:
            continue
        # a cluster that is hardly ever seen is not to be scaled up without end
        raw = torch.where(scale > 0, (scale + 1e-3 * scale.mean()).rsqrt(), 0.0)
        signs = torch.randint(0, 2, raw.shape, generator=generator).double() * 2.0 - 1.0
        probe = torch.zeros_like(norm)
        probe[members] = signs * raw
        for apply, origin in zip(applies, origins, strict=True):
            curvature = float(probe @ apply(probe)) / len(members)
            if curvature > NOISE * float(probe.abs() @ origin.abs()) / len(members):
                unit[members] = raw / curvature**0.5
                break
    return unit


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
        values, vectors = eigh_tridiagonal(self.diagonal, self.beside[: n - 1], lapack_driver="stev")
        # directions without curvature carry no gradient either, up to rounding
        kept = values > FLAT * values.max(initial=0.0)
        return vectors[:, kept] @ (vectors[0, kept] / (values[kept] + shift)), matrix

    def _curvatures(self) -> NDArray[np.float64]:
        beside = self.beside[: len(self.diagonal) - 1]
        return np.asarray(eigh_tridiagonal(self.diagonal, beside, eigvals_only=True, lapack_driver="stev"))

    @property
    def n_dropped(self) -> int:
        """Directions of no curvature, which solutions have no part along."""
        values = self._curvatures()
        return int((values <= FLAT * values.max(initial=0.0)).sum())

    def condition(self, shift: float) -> float:
        """Largest over smallest curvature of the directions used, with a ridge."""
        values = self._curvatures()
        used = values[values > FLAT * values.max(initial=0.0)] + shift
        return float(used.max() / used.min()) if len(used) else 1.0

    def gain(self, shift: float, *, loss: bool = False) -> float:
        """Decrease of the quadratic form with its ridge, or of that without it (``loss``), for a unit gradient."""
        x, matrix = self._coordinates(shift)
        return float(x[0] - 0.5 * x @ matrix @ x) if loss else 0.5 * float(x[0])

    def solve(self, shift: float) -> tuple[Tensor, float]:
        """Solution for a ridge, and the norm of what is left of the equations."""
        x, _ = self._coordinates(shift)
        n = len(x)
        return torch.as_tensor(x) @ torch.stack(self.basis[:n]), self.beside[n - 1] * abs(float(x[-1]))
