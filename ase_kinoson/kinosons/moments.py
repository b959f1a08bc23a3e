"""Moments of what a relaxation leaves, along short trajectories.

c_m = ⟨r̄(0) ⊗ r̄(m)⟩ on the jump chain, whose stationary weight is πΓ: trajectories start from equilibrium states drawn
with probability ∝ wΓ, so every step of them is a sample and no step is lost to an approach to equilibrium.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.residuals import Residuals, residuals

__all__ = ["Moments", "follow", "pairs_of_neighbors"]

BATCH = 128
"""Trajectories followed at a time; bounds memory."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the trajectories of each group; averages are their ratios. S species, M lags, L check lags.

    Attributes
    ----------
    weight : ndarray, shape (n_groups,)
        Statistical weight of the trajectories.
    time : ndarray, shape (n_groups,)
        Mean residence time 1/Γ per jump, s.
    square, bare : ndarray, shape (n_groups, S, S, 3, 3)
        See :class:`Residuals`, Å².
    tracer_square : ndarray, shape (n_groups, S, 3, 3)
    moments : ndarray, shape (n_groups, M, S, S, 3, 3)
        c_m^ab, symmetric under the exchange of both pairs of indices, Å².
    tracer_moments : ndarray, shape (n_groups, M, S, 3, 3)
    check : ndarray, shape (n_groups, L, S, S, 3, 3)
        ½ (X(t) + y(t) − y(0)) ⊗ (…)/t at t = ``check_lags`` jumps, Å².
    check_lags : ndarray of int, shape (L,)
    n_jumps : int
        Jumps made by all trajectories together, that of the first state counted.
    """

    weight: NDArray[np.float64]
    time: NDArray[np.float64]
    square: NDArray[np.float64]
    bare: NDArray[np.float64]
    tracer_square: NDArray[np.float64]
    moments: NDArray[np.float64]
    tracer_moments: NDArray[np.float64]
    check: NDArray[np.float64]
    check_lags: NDArray[np.int64]
    n_jumps: int

    @property
    def n_groups(self) -> int:
        """Number of independent groups."""
        return len(self.weight)

    def resampled(self, counts: NDArray, names: tuple[str, ...] | None = None) -> dict[str, NDArray[np.float64]]:
        """Weighted means per jump for rows of group multiplicities.

        Parameters
        ----------
        counts : ndarray, shape (R, n_groups)
        names
            Sums wanted; default all of the above.

        Returns
        -------
        dict of ndarray, shape (R, ...)
            Sums divided by the weight.
        """
        total = counts @ self.weight
        total = np.where(total > 0, total, np.nan)
        found = {}
        every = (item.name for item in fields(self) if item.name not in ("weight", "check_lags", "n_jumps"))
        for name in every if names is None else names:
            values = getattr(self, name)
            flat = counts @ values.reshape(len(values), -1)
            found[name] = (flat / total[:, None]).reshape(len(counts), *values.shape[1:])
        return found


def follow(
    states: States,
    network: JumpNetwork,
    rates: Rates,
    relaxation: Relaxation | None,
    *,
    n_steps: int,
    n_trajectories: int,
    tracers: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> Moments:
    """Follow trajectories of ``n_steps`` jumps and sum up their moments.

    Parameters
    ----------
    states
        Equilibrium states of the rates, with weights.
    network, rates, relaxation
        Jumps, their rates, and what is to be corrected (None: y = 0).
    n_steps
        Jumps per trajectory: the number of lags is ``n_steps + 1``.
    n_trajectories
        Starts, drawn from the states systematically.
    tracers
        Whether tracers are wanted.
    seed
        Of starts and jumps.
    progress
        Show a bar.

    Raises
    ------
    StatesError
        If nothing can move in a state.
    """
    rng = np.random.default_rng(seed)
    escape = np.concatenate(
        [
            rates(states.occupations[i : i + 512], states.carriers[i : i + 512]).sum(axis=1)
            for i in range(0, len(states), 512)
        ]
    )
    stuck = int(((states.weights > 0) & (escape <= 0)).sum())
    if stuck:
        raise StatesError(
            f"found {stuck} states that no jump leaves; expected at least one finite barrier each; drop these states"
        )
    share = states.weights * escape
    places = (np.arange(n_trajectories) + rng.random()) / n_trajectories
    starts = np.searchsorted(np.cumsum(share) / share.sum(), places)
    starts = np.minimum(starts, len(states) - 1)
    names, member = np.unique(states.groups[starts], return_inverse=True)
    sums = _Sums(len(names), len(network.supercell.species) - 1, n_steps, tracers)
    order = rng.permutation(n_trajectories)  # so that batches are alike
    with tqdm(total=n_trajectories * (n_steps + 1), desc="ladder", unit="jump", disable=not progress) as bar:
        for first in range(0, n_trajectories, BATCH):
            part = order[first : first + BATCH]
            occ = np.array(states.occupations[starts[part]])
            carriers = np.array(states.carriers[starts[part]])
            atoms = np.tile(np.arange(occ.shape[1], dtype=np.int32), (len(part), 1))
            line: list[Residuals] = []
            who: list[NDArray] = []
            shift = np.zeros((len(part), n_steps + 1, sums.n_species, 3))
            rows = np.arange(len(part))
            species = [occ.copy()]
            for t in range(n_steps + 1):
                found = residuals(relaxation, network, rates, occ, carriers)
                line.append(found)
                if tracers:
                    who.append(atoms[rows[:, None], found.sites])
                bar.update(len(part))
                if t == n_steps:
                    break
                draw = rng.random(len(part))
                k = np.minimum((np.cumsum(found.probability, axis=1) < draw[:, None]).sum(axis=1), network.n_jumps - 1)
                shift[:, t + 1] = shift[:, t] + _displacement(network, occ, carriers, k)
                carriers = _swap(network, occ, atoms, carriers, k)
            sums.add(member[part], np.ones(len(part)), line, shift, who, species[0])
    return sums.finish(n_trajectories * (n_steps + 1))


def pairs_of_neighbors(
    states: States,
    neighbors: States,
    jumps: NDArray,
    network: JumpNetwork,
    relaxation: Relaxation | None,
    *,
    weights: NDArray,
    rates: tuple[NDArray, NDArray],
    tracers: bool = True,
) -> Moments:
    """The first two moments from states that come with one neighbour each.

    Parameters
    ----------
    states, neighbors
        Row by row, the second is the first after the jump in ``jumps``.
    jumps : ndarray of int, shape (n,)
        The jump that leads from one to the other.
    network, relaxation
        As in :func:`follow`.
    weights : ndarray, shape (n,)
        wΓ of every state times the ratio of its jump's probability to that of its draw.
    rates : tuple of ndarray, shape (n, J) each
        Rates of the states and of the neighbours, s⁻¹.
    tracers
        Whether tracers are wanted.
    """
    names, member = np.unique(states.groups, return_inverse=True)
    sums = _Sums(len(names), len(network.supercell.species) - 1, 1, tracers)
    source = Rates(None, network)
    occ, carriers = np.array(states.occupations), np.array(states.carriers)
    atoms = np.tile(np.arange(occ.shape[1], dtype=np.int32), (len(occ), 1))
    first = residuals(relaxation, network, source, occ, carriers, given=rates[0])
    who = [atoms[np.arange(len(occ))[:, None], first.sites]]
    shift = np.zeros((len(occ), 2, sums.n_species, 3))
    shift[:, 1] = _displacement(network, occ, carriers, jumps)
    species = occ.copy()
    carriers = _swap(network, occ, atoms, carriers, jumps)
    if not (np.array_equal(occ, neighbors.occupations) and np.array_equal(carriers, neighbors.carriers)):
        raise StatesError(
            "the neighbours are not the states after the jumps given; expected them row by row; draw them with "
            "draw_neighbors"
        )
    second = residuals(relaxation, network, source, occ, carriers, given=rates[1])
    who.append(atoms[np.arange(len(occ))[:, None], second.sites])
    # a pair and its reverse are equally likely: both ends are samples of the jump chain
    sums.add(member, np.asarray(weights, dtype=float), [first, second], shift, who, species)
    return sums.finish(2 * len(occ))


def _displacement(network: JumpNetwork, occ: NDArray, carriers: NDArray, k: NDArray) -> NDArray[np.float64]:
    """δx^a of one jump per state, Å, shape (n, S, 3)."""
    rows = np.arange(len(k))
    moved = network.moving_species(occ, carriers)[rows, k]
    sign = 1.0 if network.mechanism == "interstitial" else -1.0
    result = np.zeros((len(k), len(network.supercell.species) - 1, 3))
    result[rows, moved - 1] = sign * network.vectors[network.basis_of(carriers), k]
    return result


def _swap(network: JumpNetwork, occ: NDArray, atoms: NDArray, carriers: NDArray, k: NDArray) -> NDArray[np.int64]:
    """Carry out one jump per state in place; return the new carriers."""
    rows = np.arange(len(k))
    t = network.targets(carriers)[rows, k]
    for table in (occ, atoms):
        table[rows, carriers], table[rows, t] = table[rows, t], table[rows, carriers].copy()
    return t


class _Sums:
    """Accumulates the moments of trajectories."""

    def __init__(self, n_groups: int, n_species: int, n_steps: int, tracers: bool) -> None:
        self.n_species, self.n_steps, self.tracers = n_species, n_steps, tracers
        s, m = n_species, n_steps + 1
        self.check_lags = np.array([2**i for i in range(30) if 2**i <= n_steps], dtype=np.int64)
        self.weight, self.time = np.zeros(n_groups), np.zeros(n_groups)
        self.square, self.bare = np.zeros((n_groups, s, s, 3, 3)), np.zeros((n_groups, s, s, 3, 3))
        self.tracer_square = np.zeros((n_groups, s, 3, 3))
        self.moments = np.zeros((n_groups, m, s, s, 3, 3))
        self.tracer_moments = np.zeros((n_groups, m, s, 3, 3))
        self.check = np.zeros((n_groups, len(self.check_lags), s, s, 3, 3))

    def add(
        self,
        member: NDArray,
        weights: NDArray,
        line: list[Residuals],
        shift: NDArray,
        who: list[NDArray],
        occupations: NDArray,
    ) -> None:
        """Add trajectories: their residuals step by step, displacements so far, and atoms of the sites."""
        n, steps = len(member), self.n_steps
        origins = [steps + 1 - m for m in range(steps + 1)]

        def put(target: NDArray, values: NDArray) -> None:
            np.add.at(target, member, values * weights.reshape(-1, *([1] * (values.ndim - 1))))

        put(self.weight, np.ones(n))
        put(self.time, np.mean([1.0 / r.escape for r in line], axis=0))
        put(self.square, np.mean([r.square for r in line], axis=0))
        put(self.bare, np.mean([r.bare for r in line], axis=0))
        drift = np.stack([r.drift for r in line], axis=1)
        for m in range(steps + 1):
            a, b = drift[:, : origins[m]], drift[:, m : m + origins[m]]
            c = np.einsum("ntax,ntby->nabxy", a, b, optimize=True) / origins[m]
            put(self.moments[:, m], 0.5 * (c + c.transpose(0, 2, 1, 4, 3)))
        path = shift + np.stack([r.field for r in line], axis=1)
        for i, lag in enumerate(self.check_lags):
            z = path[:, lag : lag + origins[lag]] - path[:, : origins[lag]]
            c = np.einsum("ntax,ntby->nabxy", z, z, optimize=True) / (origins[lag] * 2.0 * lag)
            put(self.check[:, i], c)
        if not self.tracers:
            return
        put(self.tracer_square, np.mean([r.tracer_square for r in line], axis=0))
        labels = np.stack(who, axis=1)  # (n, T, w)
        drifts = np.stack([r.atom_drift for r in line], axis=1)
        for i in range(n):
            atoms, place = np.unique(labels[i], return_inverse=True)
            dense = np.zeros((steps + 1, len(atoms), 3), dtype=np.float32)
            np.add.at(dense, (np.arange(steps + 1)[:, None], place.reshape(steps + 1, -1)), drifts[i])
            of = occupations[i, atoms]
            for code in range(1, self.n_species + 1):
                own = dense[:, of == code]
                if own.shape[1] == 0:
                    continue
                for m in range(steps + 1):
                    one, two = own[: origins[m]].reshape(-1, 3), own[m : m + origins[m]].reshape(-1, 3)
                    product = (one.T @ two).astype(float) * (weights[i] / origins[m])
                    self.tracer_moments[member[i], m, code - 1] += 0.5 * (product + product.T)

    def finish(self, n_jumps: int) -> Moments:
        """Return the sums."""
        return Moments(
            self.weight,
            self.time,
            self.square,
            self.bare,
            self.tracer_square,
            self.moments,
            self.tracer_moments,
            self.check,
            self.check_lags,
            n_jumps,
        )
