"""Compiled loop of a learned barrier model: barriers follow the trajectory instead of being evaluated from scratch.

One walker makes all its jumps before the next one begins, so that what is kept around it serves them all. Results do
not depend on what is kept.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.incremental import UNIT, IncrementalModel, RowNetworks
from ase_kinoson.barriers.incremental_loops import evaluate, look_around, recall
from ase_kinoson.barriers.incremental_sites import Sites, Terms
from ase_kinoson.barriers.incremental_work import Workspace
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.vector_loops import borrowed
from ase_kinoson.compiled import compiled
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinetics.jump_step import make_jump
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lags import WINDOW
from ase_kinoson.kinetics.loops import Board, over_walkers
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.units import thermal_energy

__all__ = ["LearnedLoop"]


class LearnedLoop:
    """Loop of one :class:`BarrierModel`; see :class:`~ase_kinoson.kinetics.loops.Loop`.

    Make one with :meth:`of`.

    Parameters
    ----------
    model
        The model as arrays.
    attempt_frequency
        s⁻¹.
    temperature_K
        K.
    """

    def __init__(self, model: IncrementalModel, *, attempt_frequency: float, temperature_K: float) -> None:
        self.model = model
        self.attempt_frequency, self.temperature_K = float(attempt_frequency), float(temperature_K)
        self._free: list[Workspace] = []

    def __getstate__(self) -> dict[str, Any]:
        # room to work has two views of one memory, which would be two memories in a copy
        return {**self.__dict__, "_free": []}

    @classmethod
    def of(cls, rates: Rates, network: JumpNetwork) -> LearnedLoop | None:
        """Return the loop of a barrier model.

        Parameters
        ----------
        rates
            Rates of any state.
        network
            The jumps, on the supercell of the walkers.

        Returns
        -------
        LearnedLoop or None
            None for other sources, interstitials, double precision, and cells whose tables would be too large.
        """
        model = rates.source
        if type(model) is not BarrierModel or rates.temperature_K is None:
            return None
        if sys.byteorder != "little":  # compiled loops load two numbers as one and take them apart
            return None
        if model.supercell != network.supercell or model.network.fingerprint != network.fingerprint:
            return None
        found = IncrementalModel.of(model)
        if found is None:
            return None
        return cls(found, attempt_frequency=rates.attempt_frequency, temperature_K=rates.temperature_K)

    def run(self, engine: KineticMonteCarlo, draws: NDArray[np.float64]) -> None:
        """Make ``len(draws)`` jumps of every walker.

        Parameters
        ----------
        engine
            The walkers.
        draws : ndarray, shape (m, n_walkers)
            Random numbers in [0, 1), no unit.

        Raises
        ------
        StatesError
            If the total rate of a walker is not a positive number.
        """
        board, row = engine.board(), engine.n_jumps % WINDOW
        least = max(1, 64 // max(1, len(draws)))

        def work(first: int, last: int) -> tuple[int, int, float]:
            try:
                room = self._free.pop()
            except IndexError:  # all of them are in use by other threads
                room = Workspace.of(self.model)
            try:
                m = self.model
                return _jump_walkers(
                    m.sites, m.terms, m.carrier, m.kra, room, board, draws, row, first, last,
                    self.attempt_frequency, thermal_energy(self.temperature_K),
                )  # fmt: skip
            finally:
                self._free.append(room)

        # as a step of all walkers finds it: the earliest jump, then the first walker
        step, walker, gamma = min(over_walkers(work, engine.n_walkers, least=least))
        if step < len(draws):
            engine.refuse(walker, gamma)


@compiled()
def _jump_walkers(
    sites: Sites, terms: Terms, carrier: RowNetworks, kra: RowNetworks, work: Workspace, board: Board, draws: NDArray,
    row: int, first: int, last: int, frequency: float, thermal: float,
) -> tuple[int, int, float]:  # fmt: skip
    """Jumps of walkers first … last − 1; return jump, walker and Γ of the first dead end, or the number of jumps."""
    sites, terms, carrier, kra, work, board = borrowed((sites, terms, carrier, kra, work, board))
    m, n_jumps = len(draws), sites.exists.shape[1]
    memory, up_to = work.memory, np.empty(n_jumps)
    end, at, total, zero = m, last, 0.0, np.int64(0)
    for walker in range(first, last):
        back, known, energy = np.int64(-1), (zero, zero, zero), zero
        for t in range(m):
            site = board.carriers[walker]
            basis = look_around(sites, board.occupations[walker], site, work)
            place, found = recall(work)
            rates = memory.rates[place]
            if found:
                work.counts[1] += 1
            else:
                evaluate(sites, terms, carrier, kra, work, site, basis, place, back, known, energy)
                for k in range(n_jumps):
                    rates[k] = 0.0
                    if sites.exists[basis, k]:
                        rates[k] = frequency * np.exp(-0.5 * memory.twice[place, k] / UNIT / thermal)
            k, gamma = make_jump(board, walker, row + t, rates, up_to, draws[t, walker])
            if k < 0:
                if t < end:
                    end, at, total = t, walker, gamma
                break
            # the jump back has the same K and the opposite ΔE, and leads to the energy of now
            back, change = sites.back[basis, k], memory.delta[place, k]
            known = (memory.twice[place, k] - 2 * change, -change, memory.own[place])
            energy = memory.after[place, k]
    return end, at, total
