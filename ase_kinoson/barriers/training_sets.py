"""`TrainingSet`: reference barriers of one supercell, checked, weighted, and in the species codes of all sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.model_file import order_of_jumps, same_lattice
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError, ModelError

__all__ = ["TrainingBarriers", "TrainingSet", "training_sets"]


class TrainingBarriers(Protocol):
    """What a barrier model learns from; J jumps per state, eV."""

    @property
    def states(self) -> States:
        """The n states."""
        ...

    @property
    def network(self) -> JumpNetwork:
        """Their jumps."""
        ...

    @property
    def barrier(self) -> NDArray[np.float64]:
        """Barriers, eV, shape (n, J); ``inf`` where rejected."""
        ...

    @property
    def delta_e(self) -> NDArray[np.float64]:
        """Energy after minus energy before each jump, eV, shape (n, J)."""
        ...

    @property
    def energy_initial(self) -> NDArray[np.float64]:
        """Energies of the states, eV, shape (n,); NaN where unknown."""
        ...

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which barriers count, shape (n, J)."""
        ...


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Barriers of states of one supercell; n states, J jumps, eV.

    Attributes
    ----------
    states : States
        Groups are unique over all sets.
    network : JumpNetwork
    barrier, delta_e : ndarray, shape (n, J)
        0 where there is none.
    energies : ndarray, shape (n,)
        Energies of the states.
    weights : ndarray, shape (n, J)
        How much each jump counts; 0 where it has no barrier.
    keys : tuple of str
        Names of the states (:attr:`States.keys`) as they were given.
    n_rejected : int
        Jumps without a barrier.
    """

    states: States
    network: JumpNetwork
    barrier: NDArray[np.float64]
    delta_e: NDArray[np.float64]
    energies: NDArray[np.float64]
    weights: NDArray[np.float64]
    keys: tuple[str, ...]
    n_rejected: int = 0

    @property
    def kra(self) -> NDArray[np.float64]:
        """K = Q − ΔE/2, shape (n, J)."""
        return self.barrier - 0.5 * self.delta_e

    @property
    def moving(self) -> NDArray[np.int64]:
        """Species code of the moving atom, shape (n, J)."""
        return self.network.moving_species(self.states.occupations, self.states.carriers)

    def __len__(self) -> int:
        return len(self.states)

    def take(self, rows: NDArray) -> TrainingSet:
        """Some of the states."""
        return replace(
            self,
            states=self.states[rows],
            barrier=self.barrier[rows],
            delta_e=self.delta_e[rows],
            energies=self.energies[rows],
            weights=self.weights[rows],
            keys=tuple(self.keys[i] for i in np.arange(len(self))[rows]),
        )


def training_sets(
    barriers: TrainingBarriers | Sequence[TrainingBarriers], weights: ArrayLike | Sequence[ArrayLike] | None = None
) -> list[TrainingSet]:
    """Check sets of barriers of one lattice and give them common species codes.

    Sets may have lattice constants of their own; they come back on the lattice of the first.

    Parameters
    ----------
    barriers
        One set, or several of different supercells and compositions.
    weights : array_like, shape (n, J), or one for each set
        How much each jump counts, not negative.

    Raises
    ------
    BarrierError
        If there is no valid barrier, or a weight is negative or of another shape.
    ModelError
        If the sets belong to different lattices or jumps.
    """
    several = isinstance(barriers, Sequence)
    given = list(barriers) if isinstance(barriers, Sequence) else [barriers]
    if not given:
        raise BarrierError("found no sets of barriers; expected at least one; pass a Barriers or a list of them")
    if weights is None:
        factors: list[ArrayLike | None] = [None] * len(given)
    else:
        factors = list(weights) if several else [weights]  # type: ignore[arg-type,list-item]
    if len(factors) != len(given):
        raise BarrierError(f"found {len(factors)} arrays of weights for {len(given)} sets; expected one for each set")
    alloy = _union([b.states.supercell.alloy for b in given])
    first = given[0].network
    result: list[TrainingSet] = []
    shift = 0
    for one, factor in zip(given, factors, strict=True):
        order = order_of_jumps(first, one.network)
        if order is None or first.mechanism != one.network.mechanism:
            raise ModelError(
                f"found sets of different jumps ({one.network!r} and {first!r}); expected one lattice and the same "
                "jumps; fit one model for each"
            )
        own = one.states.supercell
        # sets may have lattice constants of their own: all are written on the lattice of the first
        cell = own if own.alloy == alloy else Supercell(alloy, own.matrix)
        network = first if first.supercell == cell else replace(first, supercell=cell)
        _, groups = np.unique(one.states.groups, return_inverse=True)
        codes = np.array([cell.species.index(s) for s in own.species], dtype=np.int8)
        states = replace(
            one.states,
            supercell=cell,
            occupations=codes[one.states.occupations],
            groups=groups.astype(np.int64) + shift,
        )
        shift += int(groups.max(initial=-1)) + 1
        exists = network.targets(states.carriers) >= 0
        place = order[network.basis_of(states.carriers)]
        barrier, delta, valid = (
            np.take_along_axis(np.asarray(x), place, axis=1) for x in (one.barrier, one.delta_e, one.valid)
        )
        use = valid.astype(bool) & exists & np.isfinite(barrier) & np.isfinite(delta)
        weight = _checked(factor, use, place)
        result.append(
            TrainingSet(
                states,
                network,
                np.where(use, barrier, 0.0),
                np.where(use, delta, 0.0),
                np.asarray(one.energy_initial, dtype=float),
                np.where(use, weight, 0.0),
                tuple(one.states.keys),
                int((exists & ~use).sum()),
            )
        )
    if not any((s.weights > 0).any() for s in result):
        raise BarrierError(f"found no valid barrier in {sum(map(len, result))} states; expected some; compute barriers")
    return result


def _checked(weights: ArrayLike | None, use: NDArray[np.bool_], place: NDArray[np.int64]) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(use.shape)
    w = np.asarray(weights, dtype=float)
    if w.shape != use.shape:
        raise BarrierError(f"found weights of shape {w.shape}; expected {use.shape} (states, jumps); give one per jump")
    w = np.take_along_axis(w, place, axis=1)
    if not np.all(np.isfinite(w[use]) & (w[use] >= 0)):
        raise BarrierError(
            "found weights that are negative or not finite; expected numbers of at least 0; correct them"
        )
    return w


def _union(alloys: Sequence[Alloy]) -> Alloy:
    """An alloy with the species of all: one of them where possible."""
    for alloy in alloys:
        if all(set(other.species) <= set(alloy.species) for other in alloys):
            for other in alloys:
                same_lattice(alloy, other)
            return alloy
    first = alloys[0]
    parts = []
    for k, own in enumerate(first.sublattices):
        amounts: dict[str, float] = {}
        for alloy in alloys:
            same_lattice(first, alloy)
            for symbol, x in alloy.sublattices[k].composition:
                amounts[symbol] = amounts.get(symbol, 0.0) + x / len(alloys)
        parts.append(replace(own, composition=tuple(sorted(amounts.items()))))
    return replace(first, sublattices=tuple(parts))
