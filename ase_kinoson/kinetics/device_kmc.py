"""`DeviceKineticMonteCarlo`: the walkers of `KineticMonteCarlo`, advanced together on a device.

Every array that a jump reads or writes lies there: occupations, names and displacements of the atoms, times, expected
squares, and the ladder. A jump is some 50 operations on all walkers at once, so that 10⁴ to 10⁶ of them pay. No two
walkers write to one place, nor do two jumps of one: sums have one order, and equal seeds give equal bits on one
device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.barriers.device_sites import put
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.device import device_of
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.device_ladder import DeviceLadder
from ase_kinoson.kinetics.device_rates import DeviceRates
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lags import WINDOW
from ase_kinoson.kinetics.rates import LARGEST_RATE, SMALLEST_RATE, Rates

__all__ = ["DeviceKineticMonteCarlo"]

STATES = 2**16
"""States whose rates are computed at once while preparing."""


class _OnDevice:
    """An attribute that lies on the device: reading it copies it to NumPy, setting it copies it back."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, engine: DeviceKineticMonteCarlo | None, owner: type | None = None) -> Any:
        if engine is None:
            return self
        found = engine.resident.get(self.name)
        return None if found is None else found.cpu().numpy()

    def __set__(self, engine: DeviceKineticMonteCarlo, value: Any) -> None:
        if value is not None and not isinstance(value, Tensor):
            value = put(np.array(value), engine.device)
        engine.resident[self.name] = value


class DeviceKineticMonteCarlo(KineticMonteCarlo):
    """Many walkers on a device, with the face of :class:`KineticMonteCarlo`; attributes are copied when they are read.

    Parameters
    ----------
    states, network, rates, n_walkers, seed, follow_atoms
        As for :class:`KineticMonteCarlo`.
    device
        As in :func:`~ase_kinoson.device.device_of`.
    random
        ``"device"``: random numbers are made on the device. ``"numpy"``: they are those of
        :class:`KineticMonteCarlo`, drawn on the CPU and copied: equal seeds then give its trajectories, to the rounding
        of the rates, and either continues a checkpoint of the other.
    chunk
        States that learned barriers are evaluated for at once; it bounds their memory.

    Attributes
    ----------
    device : torch.device
    resident : dict of Tensor
        Arrays on the device, by name of the attribute.

    Raises
    ------
    ModelError
        If the rates cannot be computed on a device, or there is no such device.
    KinosonError
        If ``random`` is another name.
    """

    ladder: Any
    occupations = _OnDevice()
    carriers = _OnDevice()
    atoms = _OnDevice()
    displacements = _OnDevice()
    times = _OnDevice()
    _expected = _OnDevice()
    _column_seen = _OnDevice()
    _kind_seen = _OnDevice()
    _atom_seen = _OnDevice()

    def __init__(
        self,
        states: States,
        network: JumpNetwork,
        rates: Rates,
        *,
        n_walkers: int,
        seed: int,
        follow_atoms: bool = True,
        device: str | torch.device = "auto",
        random: str = "device",
        chunk: int | None = None,
    ) -> None:
        if random not in ("device", "numpy"):
            raise KinosonError(f"found random={random!r}; expected 'device' or 'numpy'; choose one")
        self.device, self.random = device_of(device), random
        self.resident: dict[str, Tensor | None] = {}
        if self.device.type != "cpu" and hasattr(rates.source, "with_device"):
            rates = replace(rates, source=rates.source.with_device(self.device))  # for the snapshot
        self._on_device = DeviceRates(rates, self.device, chunk=chunk)
        self._generator = torch.Generator(self.device).manual_seed(int(seed))
        super().__init__(states, network, rates, n_walkers=n_walkers, seed=seed, follow_atoms=follow_atoms)

    def _tables(self) -> None:
        super()._tables()
        network = self.network
        self._dead = torch.full((self.n_walkers,), -1, dtype=torch.int64, device=self.device)
        self._dead_rate = torch.zeros(self.n_walkers, dtype=torch.float64, device=self.device)
        self._target_table, self._column_table, self._vector_table = (
            put(x, self.device) for x in (self._targets, self._column, self._vectors)
        )
        self._slots = torch.arange(network.n_jumps, device=self.device)
        self._moves_itself = network.mechanism == "interstitial"

    def _forget(self) -> None:
        n, n_sites = self.n_walkers, self.network.supercell.n_sites
        n_species, n_kinds = len(self.species), len(self._vectors)

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        self.n_jumps = 0
        self.times = zeros(n)
        self.displacements = zeros(n, n_sites, 3) if self.follow_atoms else None
        self._expected = zeros(n * n_kinds * n_species)
        self.ladder = DeviceLadder(n, n_species, n_sites, device=self.device, follow_atoms=self.follow_atoms)
        self._column_seen = zeros(WINDOW, n, dtype=torch.int8)
        self._kind_seen = zeros(WINDOW, n, dtype=torch.int32)
        self._atom_seen = zeros(WINDOW, n, dtype=torch.int32) if self.follow_atoms else None

    def _rates_of(self, occupations: NDArray, carriers: NDArray) -> NDArray[np.float64]:
        """Γ of states, s⁻¹, shape (n,)."""
        gamma = np.empty(len(carriers))
        for first in range(0, len(carriers), STATES):
            part = slice(first, first + STATES)
            occ = put(np.ascontiguousarray(occupations[part], dtype=np.int8), self.device)
            c = put(np.asarray(carriers[part], dtype=np.int64), self.device)
            _, moved, _ = self._around(occ, c)
            gamma[part] = self._on_device(occ, c, moved).sum(dim=1).cpu().numpy()
        return gamma

    def _escape_rates(self, states: States) -> NDArray[np.float64]:
        gamma = self._rates_of(states.occupations, states.carriers)
        self._check(gamma, states.carriers, "state", states.weights > 0)
        return gamma

    # -- jumping --------------------------------------------------------------------------------------------------

    def run(self, n_jumps: int, *, tick: Callable[[], Any] | None = None) -> None:
        """Let every walker make ``n_jumps`` jumps; see :meth:`KineticMonteCarlo.run`.

        A walker that cannot jump is noticed at the end of a window or of the run, because asking after every jump would
        let the device wait.

        Parameters
        ----------
        n_jumps, tick
            As in :meth:`KineticMonteCarlo.run`.

        Raises
        ------
        StatesError
            If a walker is in a state that no jump leaves.
        KinosonError
            If an earlier run was stopped in the middle of a jump.
        """
        self._refuse_half_a_jump()
        left = n_jumps
        while left:
            done = min(left, WINDOW - self.n_jumps % WINDOW)
            draws = None
            if self.random == "numpy":
                draws = put(self._rng.random((done, self.n_walkers)), self.device)
            with torch.no_grad():
                for k in range(done):
                    self._amid = True
                    self._step(self._uniform() if draws is None else draws[k])
                    self._amid = False
                    if tick is not None:
                        tick()
            self._check_alive()
            left -= done

    def _jump(self) -> None:
        self.run(1)

    def _uniform(self) -> Tensor:
        """One random number per walker: their order does not depend on how a run is divided."""
        return torch.rand(self.n_walkers, generator=self._generator, dtype=torch.float64, device=self.device)

    def _around(self, occupations: Tensor, carriers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Targets of all jumps, species codes they move, and what is on the targets: int64, shape (n, J) each."""
        targets = self._target_table[carriers].long()
        near = occupations.gather(1, targets).long()
        if not self._moves_itself:
            return targets, near, near
        return targets, occupations.gather(1, carriers[:, None]).long().expand_as(near), near

    def _step(self, uniform: Tensor) -> None:
        """Let every walker jump once; nothing here waits for the device."""
        held = self.resident
        occ, c, times, expected = held["occupations"], held["carriers"], held["times"], held["_expected"]
        columns, kinds = held["_column_seen"], held["_kind_seen"]
        assert occ is not None and c is not None and times is not None and expected is not None
        assert columns is not None and kinds is not None
        targets, moved, _ = self._around(occ, c)
        w = self._on_device(occ, c, moved)
        up_to = w.clone()
        for k in range(1, w.shape[1]):  # in this order: a scan of the device may add in another one
            up_to[:, k] += up_to[:, k - 1]
        gamma = up_to[:, -1]
        self._note_dead(gamma, c)
        aim = torch.minimum(uniform * gamma, torch.nextafter(gamma, torch.zeros_like(gamma)))
        jump = (up_to <= aim[:, None]).sum(dim=1).clamp_(max=w.shape[1] - 1)[:, None]
        residence = 1.0 / gamma
        times += residence
        first = c % self.network.supercell.alloy.n_basis * w.shape[1]
        column = self._column_table[moved]
        slot = (first[:, None] + self._slots) * len(self.species) + column
        sums = expected.view(self.n_walkers, -1)
        sums.scatter_(1, slot, sums.gather(1, slot) + w * residence[:, None])

        seen = self.n_jumps % WINDOW
        here, there = c[:, None], targets.gather(1, jump)
        kind = first[:, None] + jump
        columns[seen] = column.gather(1, jump)[:, 0]
        kinds[seen] = kind[:, 0]
        _exchange(occ, here, there)
        held["carriers"] = there[:, 0]
        atoms, displacements, names = held["atoms"], held["displacements"], held["_atom_seen"]
        if atoms is not None:
            assert displacements is not None and names is not None
            atom = atoms.gather(1, here if self._moves_itself else there).long()
            _exchange(atoms, here, there)
            place = atom[..., None].expand(-1, -1, 3)
            moves = self._vector_table[kind]
            displacements.scatter_(1, place, displacements.gather(1, place) + moves)
            names[seen] = atom[:, 0]
        self.n_jumps += 1
        if self.n_jumps % WINDOW == 0:
            self.ladder.add(columns, kinds, self._vector_table, names)

    def _note_dead(self, gamma: Tensor, carriers: Tensor) -> None:
        """Remember which walkers cannot jump, and where, without asking the device."""
        new = ~((gamma >= SMALLEST_RATE) & (gamma <= LARGEST_RATE)) & (self._dead < 0)
        self._dead = torch.where(new, carriers, self._dead)
        self._dead_rate = torch.where(new, gamma, self._dead_rate)

    def _check_alive(self) -> None:
        dead = self._dead >= 0
        if bool(dead.any()):
            self._amid = True  # what these walkers did since is no trajectory
            gamma = torch.where(dead, self._dead_rate, 1.0)
            self._check(gamma.cpu().numpy(), self._dead.cpu().numpy(), "walker")

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything that a run needs to go on; see :meth:`KineticMonteCarlo.save`.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        StatesError
            If a walker is in a state that no jump leaves.
        KinosonError
            If a run was stopped in the middle of a jump.
        """
        self._refuse_half_a_jump()
        self._check_alive()
        super().save(path)

    def load(self, path: str | Path) -> None:
        """Go on from a file of :meth:`save`; see :meth:`KineticMonteCarlo.load`.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        KinosonError
            If the file is damaged, or belongs to other jumps, states, rates, walkers or another seed.
        """
        super().load(path)
        self._dead.fill_(-1)

    @property
    def _generator_state(self) -> NDArray[np.uint8]:
        return self._generator.get_state().numpy()

    @_generator_state.setter
    def _generator_state(self, state: NDArray[np.uint8]) -> None:
        self._generator.set_state(torch.from_numpy(np.array(state)))

    def _about(self) -> dict[str, Any]:
        about = super()._about()
        return about if self.random == "numpy" else {**about, "random": f"on {self.device.type}"}

    def _kept(self) -> tuple[str, ...]:
        kept = super()._kept()
        return kept if self.random == "numpy" else (*kept, "_generator_state")


def _exchange(values: Tensor, here: Tensor, there: Tensor) -> None:
    """Exchange two entries of every row; indices of shape (n, 1)."""
    one, two = values.gather(1, here), values.gather(1, there)
    values.scatter_(1, here, two)
    values.scatter_(1, there, one)
