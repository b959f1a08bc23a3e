"""What a campaign computes next, beside other processes that fill the same store.

There are no locks and no claims that a killed process could leave behind. A process that finds that another one has
relaxed a state, or has written a result first, leaves this state to it and comes back when nothing else is to be done;
then it takes the jumps from their other end, and asks for news before each. So what is computed twice is bounded by
what is in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping

from ase_kinoson.barriers.saddle import Hop, Host, StateResult
from ase_kinoson.barriers.tasks import JumpTask, StateTask, Task
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States

__all__ = ["Agenda"]


class Agenda:
    """The tasks of a campaign in their order: jumps whose state is relaxed first, so that states become complete.

    Parameters
    ----------
    states, network
    todo
        (state key, jump) → (row, jump) of what is missing.
    relaxed, found
        What is known; they grow while the campaign runs.
    look
        Asks what other processes have done; returns the states that they have relaxed.
    """

    def __init__(
        self,
        states: States,
        network: JumpNetwork,
        todo: Mapping[tuple[str, int], tuple[int, int]],
        relaxed: Mapping[str, StateResult],
        found: Container[tuple[str, int]],
        look: Callable[[], Iterable[str]],
    ) -> None:
        self.states, self.network = states, network
        self.relaxed, self.found, self.look = relaxed, found, look
        self.row: dict[str, int] = {}
        self.jumps: dict[str, list[int]] = {}
        for key, jump in todo:
            self.row.setdefault(key, todo[key, jump][0])
            self.jumps.setdefault(key, []).append(jump)
        self.ready: deque[JumpTask] = deque()
        self.waiting = deque(self.row)
        self.theirs: set[str] = set()
        self.later: list[str] = []

    def take(self) -> Task | None:
        """Return the next task; None if there is none before a result comes."""
        self.theirs.update(self.look())
        while True:
            while self.ready:
                task = self.ready.popleft()
                if (task.key, task.jump) not in self.found:
                    return task
            if self.waiting:
                key = self.waiting.popleft()
                if key in self.theirs:
                    self.later.append(key)
                    continue
            elif self.later:
                key = self.later.pop()
            else:
                return None
            if key not in self.relaxed:
                return StateTask(self.row[key], key, self._host(key))
            self._begin(key)

    def finished(self, task: Task, *, fresh: bool) -> None:
        """Note that a task is done; ``fresh`` is False if another process had its result first."""
        if isinstance(task, JumpTask):
            if not fresh and task.key not in self.theirs:
                self.theirs.add(task.key)
                self.ready = deque(other for other in self.ready if other.key != task.key)
                self.later.append(task.key)
        elif fresh and task.key not in self.theirs:
            self._begin(task.key)
        else:
            self.theirs.add(task.key)
            self.later.append(task.key)

    def _begin(self, key: str) -> None:
        host, start, row = self._host(key), self.relaxed[key], self.row[key]
        carrier = int(self.states.carriers[row])
        order = self.jumps[key][:: -1 if key in self.theirs else 1]
        self.ready.extend(
            JumpTask(row, key, host, jump, Hop.from_jump(self.network, host, carrier, jump), start) for jump in order
        )

    def _host(self, key: str) -> Host:
        return Host.from_occupation(self.states.supercell, self.states.occupations[self.row[key]])
