"""The ball of states around a state, as fixed tables.

A jump only exchanges the occupants of two sites, so every state within a few jumps of χ is a permutation of the
occupants of
χ's own window of sites, the same permutation for every χ. Atoms are labelled by the window slot they hold in χ: a
relaxation
field of any state in the ball is then a field over these labels, and Δ_k y of every single atom is a plain difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork

__all__ = ["Stencil"]


@dataclass(frozen=True, eq=False)
class Stencil:
    """States within ``depth`` jumps of a state whose carrier sits on one basis site.

    State 0 is the state itself; states are sorted by the number of jumps that reach them.

    Attributes
    ----------
    network : JumpNetwork
    basis_site : int
        Basis site of the carrier of state 0.
    depth : int
        Radius of the ball in jumps.
    window_basis : ndarray of int, shape (n_window,)
    window_cells : ndarray of int, shape (n_window, 3)
        Sites of the window relative to the carrier.
    carrier_slot : int
        Window slot of the carrier.
    carrier_basis : ndarray of int, shape (n_states,)
        Basis site of the carrier of each state.
    level : ndarray of int, shape (n_states,)
        Number of jumps that reach the state.
    environment : tuple of ndarray, shape (n_env,) per state
        For every state, the label of the occupant of each environment site of its carrier.
    next_state : ndarray of int, shape (n_inner, J)
        State after each jump, for states inside the ball (level < depth); −1 where there is no jump or the state is
        not kept.
    mover : ndarray of int, shape (n_inner, J)
        Label of the atom that each jump moves (for an interstitial: of the carrier).
    """

    network: JumpNetwork
    basis_site: int
    depth: int
    window_basis: NDArray[np.int64]
    window_cells: NDArray[np.int64]
    carrier_slot: int
    carrier_basis: NDArray[np.int64]
    level: NDArray[np.int64]
    environment: tuple[NDArray[np.int64], ...]
    next_state: NDArray[np.int64]
    mover: NDArray[np.int64]

    @classmethod
    def build(
        cls,
        environment: CarrierEnvironment,
        network: JumpNetwork,
        *,
        basis_site: int,
        depth: int,
        seen: int | None = None,
    ) -> Stencil:
        """Walk all sequences of up to ``depth`` jumps once and tabulate where every occupant goes.

        Parameters
        ----------
        environment
            Sites that a relaxation model looks at.
        network
            Jumps, on the same supercell.
        basis_site
            Where the carrier of state 0 sits.
        depth
            Radius of the ball, ≥ 1.
        seen
            Keep only states within this many jumps; default ``depth``. The jumps of all states inside ``depth`` are
            kept, so with ``seen = depth - 1`` the last of them lead to states without a number (−1).
        """
        cell = network.supercell
        root = int(basis_site)
        interstitial = network.mechanism == "interstitial"
        index: dict[tuple[int, frozenset[tuple[int, int]]], int] = {(root, frozenset()): 0}
        states: list[tuple[int, dict[int, int]]] = [(root, {})]
        level = [0]
        next_state: list[list[int]] = []
        movers: list[list[int]] = []
        m = 0
        while m < len(states):
            carrier, moved = states[m]
            if level[m] == depth:
                break
            targets = network.targets(np.array([carrier]))[0]
            line, who = [], []
            for t in targets:
                if t < 0:
                    line.append(-1)
                    who.append(-1)
                    continue
                new = dict(moved)
                at_target, at_carrier = moved.get(int(t), int(t)), moved.get(carrier, carrier)
                new[carrier], new[int(t)] = at_target, at_carrier
                new = {s: label for s, label in new.items() if s != label}
                key = (int(t), frozenset(new.items()))
                if key not in index:
                    index[key] = len(states)
                    states.append((int(t), new))
                    level.append(level[m] + 1)
                line.append(index[key])
                who.append(at_carrier if interstitial else at_target)
            next_state.append(line)
            movers.append(who)
            m += 1
        kept = sum(x <= (depth if seen is None else seen) for x in level)
        states, level = states[:kept], level[:kept]
        labels = []
        for carrier, moved in states:
            around = environment.sites(np.array([carrier]), carrier % cell.alloy.n_basis)[0]
            labels.append(np.array([moved.get(int(s), int(s)) for s in around], dtype=np.int64))
        who_array = np.array(movers, dtype=np.int64)
        window = np.unique(np.concatenate([*labels, who_array[who_array >= 0].ravel(), [root]]))
        return cls(
            network,
            root,
            depth,
            window % cell.alloy.n_basis,
            cell.cell_coordinates(window // cell.alloy.n_basis),
            int(np.searchsorted(window, root)),
            np.array([c % cell.alloy.n_basis for c, _ in states]),
            np.array(level),
            tuple(np.searchsorted(window, x) for x in labels),
            np.where(np.array(next_state) < kept, np.array(next_state, dtype=np.int64), -1),
            np.where(who_array >= 0, np.searchsorted(window, np.maximum(who_array, 0)), -1),
        )

    @property
    def n_states(self) -> int:
        """Number of distinct states in the ball."""
        return len(self.level)

    @property
    def n_window(self) -> int:
        """Number of sites in the window."""
        return len(self.window_basis)

    def window(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.int64]:
        """Species codes in the window of states whose carriers sit on :attr:`basis_site`, shape (n, n_window)."""
        c = np.asarray(carriers, dtype=np.int64)
        sites = self.network.supercell.neighbors(c, self.window_basis, self.window_cells)
        return occupations[np.arange(len(c))[:, None], sites].astype(np.int64)

    def visit(
        self, occupations: NDArray, carriers: ArrayLike, *, levels: int
    ) -> Iterator[tuple[int, NDArray, NDArray[np.int64]]]:
        """Go through all states reached by up to ``levels`` jumps, one after the other and in place.

        The arrays that are yielded change with the next step and must not be written to; nothing is copied, so that
        the cost does not grow with the supercell.

        Yields
        ------
        number : int
            State of the stencil.
        occupations : ndarray, shape (n, n_sites)
        carriers : ndarray of int, shape (n,)
        """
        occ = np.array(occupations)
        start = np.asarray(carriers, dtype=np.int64)
        rows = np.arange(len(start))
        done = self.level > levels

        def walk(m: int, c: NDArray) -> Iterator[tuple[int, NDArray, NDArray]]:
            yield m, occ, c
            if self.level[m] >= levels:
                return
            targets = self.network.targets(c)
            for k, child in enumerate(self.next_state[m]):
                # parents of the level above only: a path of that length exists to every state
                if child < 0 or done[child] or self.level[child] != self.level[m] + 1:
                    continue
                done[child] = True
                t = targets[:, k]
                here, there = occ[rows, c], occ[rows, t]
                occ[rows, c], occ[rows, t] = there, here
                yield from walk(int(child), t)
                occ[rows, c], occ[rows, t] = here, there

        done[0] = True
        yield from walk(0, start)
