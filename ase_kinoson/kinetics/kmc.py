"""`KineticMonteCarlo`: trajectories of many carriers, advanced together.

Residence-time algorithm (Bortz, Kalos and Lebowitz, J. Comput. Phys. 17, 10 (1975)): every step is a jump, chosen with
p_k = W_k/Γ, Γ = Σ_k W_k. The time of a jump is its mean 1/Γ, not a random number of that mean: averages are the same
and less noisy. Nothing in a step is proportional to the size of the supercell.

The step is written twice: with NumPy for all walkers at once, for rates of any kind, and as compiled loops over single
walkers (:mod:`ase_kinoson.kinetics.loops`), which make the same jumps from the same random numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, StatesError
from ase_kinoson.kinetics.checkpoints import check_arrays, read_checkpoint, write_checkpoint
from ase_kinoson.kinetics.lags import WINDOW, LagLadder
from ase_kinoson.kinetics.lattice_gas import _BoundSpeciesRates
from ase_kinoson.kinetics.loops import Board, Loop, loop_for
from ase_kinoson.kinetics.rates import LARGEST_RATE, SMALLEST_RATE, Rates

__all__ = ["KineticMonteCarlo"]

_log = logging.getLogger(__name__)

FORMAT = "ase_kinoson.KineticMonteCarlo"
VERSION = 1

CHUNK = 2**16
"""Sites or states treated at a time while preparing."""

DRAWS = 2**22
"""Random numbers drawn at a time, 32 MB."""


class KineticMonteCarlo:
    """Many walkers, each a state that jumps.

    Walkers start from the given states, drawn (systematic resampling) with probability ∝ wΓ: for equilibrium weights w
    this is the stationary measure of the chain of jumps, so that averages over jumps need no burn-in.

    Parameters
    ----------
    states
        Where to start, with weights.
    network
        Jumps on the supercell of the states.
    rates
        Rates of any state.
    n_walkers
        Number of walkers.
    seed
        Seed of the starts and of all jumps.
    follow_atoms
        Tell single atoms apart (tracers).

    Attributes
    ----------
    occupations : ndarray of int8, shape (n_walkers, n_sites)
    carriers : ndarray of int, shape (n_walkers,)
    groups : ndarray of int, shape (n_walkers,)
        Group of the state that a walker started from.
    atoms : ndarray of int32, shape (n_walkers, n_sites), or None
        Who is on a site: the site where the atom started.
    displacements : ndarray, shape (n_walkers, n_sites, 3), or None
        Unwrapped displacement of every atom since the start (or the end of the burn-in), Å.
    n_jumps : int
        Jumps of each walker, burn-in left out.
    times : ndarray, shape (n_walkers,)
        Sum of the mean residence times, s.
    ladder : LagLadder
        Squared displacements at lags of 2^level jumps, of all whole windows of ``lags.WINDOW`` jumps.
    species : ndarray of int, shape (n_species,)
        Codes of the species that can move, the order of ``ladder``.

    Raises
    ------
    StatesError
        If states and jumps do not belong together, or a state has no jump at all.
    """

    def __init__(
        self,
        states: States,
        network: JumpNetwork,
        rates: Rates,
        *,
        n_walkers: int,
        seed: int,
        follow_atoms: bool = True,
    ) -> None:
        cell = network.supercell
        if (
            states.supercell != cell
            or rates.network.supercell != cell
            or rates.network.fingerprint != network.fingerprint
        ):
            raise StatesError(
                f"found states on {states.supercell.n_sites} sites, jumps on {cell.n_sites} and rates for "
                f"{rates.network.supercell.n_sites}; expected one supercell and one network; use "
                "jumps.with_supercell(states.supercell) for both"
            )
        if n_walkers < 1 or len(states) == 0:
            raise StatesError(
                f"found {n_walkers} walkers and {len(states)} states to start from; expected at least one of each"
            )
        self.network, self.rates, self.seed, self.follow_atoms = network, rates, int(seed), bool(follow_atoms)
        self.n_walkers = int(n_walkers)
        self._rng = np.random.default_rng(seed)
        self._tables()
        gamma = self._escape_rates(states)
        start = self._draw(states.weights * gamma)
        self.occupations = states.occupations[start].astype(np.int8, order="C")
        self.carriers = states.carriers[start].astype(np.int64)
        self.groups = states.groups[start].astype(np.int64)
        self._start_rates = gamma[start]
        self.atoms: NDArray[np.int32] | None = None
        if follow_atoms:
            self.atoms = np.tile(np.arange(cell.n_sites, dtype=np.int32), (self.n_walkers, 1))
        self.burned = 0
        self._amid = False  # in the middle of a jump
        self._forget()

    def _tables(self) -> None:
        """Lay out what every step looks up."""
        network, cell = self.network, self.network.supercell
        n, n_jumps = self.n_walkers, network.n_jumps
        self._targets = np.empty((cell.n_sites, n_jumps), dtype=np.int32)
        for first in range(0, cell.n_sites, CHUNK):
            part = np.arange(first, min(first + CHUNK, cell.n_sites))
            # where there is no jump: the site itself, whose occupation does no harm
            found = network.targets(part)
            self._targets[part] = np.where(found >= 0, found, part[:, None])
        mobile = {s for sub in cell.alloy.sublattices if sub.mobile for s in sub.species}
        self.species = np.array([c for c, s in enumerate(cell.species) if c and s in mobile], dtype=np.int64)
        self._column = np.zeros(len(cell.species), dtype=np.int64)
        self._column[self.species] = np.arange(len(self.species))
        sign = 1.0 if network.mechanism == "interstitial" else -1.0
        self._vectors = (sign * network.vectors).reshape(-1, 3)
        self._by_species: NDArray[np.float64] | None = None
        if isinstance(self.rates.source, _BoundSpeciesRates):
            self._by_species = np.nan_to_num(self.rates.source.table, nan=0.0)
        self._origin = np.arange(n) * cell.n_sites

    def _forget(self) -> None:
        """Begin to measure here."""
        n, cell = self.n_walkers, self.network.supercell
        n_species, n_kinds = len(self.species), len(self._vectors)
        self.n_jumps = 0
        self.times = np.zeros(n)
        self.displacements = np.zeros((n, cell.n_sites, 3)) if self.follow_atoms else None
        self._expected = np.zeros(n * n_kinds * n_species)
        self.ladder = LagLadder(n, n_species, cell.n_sites, follow_atoms=self.follow_atoms)
        self._column_seen = np.zeros((WINDOW, n), dtype=np.int8)
        self._kind_seen = np.zeros((WINDOW, n), dtype=np.int32)
        self._atom_seen = np.zeros((WINDOW, n), dtype=np.int32) if self.follow_atoms else None

    def _escape_rates(self, states: States) -> NDArray[np.float64]:
        """Γ of all states, s⁻¹."""
        gamma = np.empty(len(states))
        step = max(1, CHUNK // self.network.n_jumps)
        for first in range(0, len(states), step):
            part = slice(first, first + step)
            gamma[part] = self.rates(states.occupations[part], states.carriers[part]).sum(axis=1)
        self._check(gamma, states.carriers, "state", states.weights > 0)
        return gamma

    def _draw(self, weights: NDArray) -> NDArray[np.int64]:
        """Systematic resampling: every state as often as its share of the walkers, up to one (Kitagawa 1996)."""
        total = np.cumsum(weights)
        at = (np.arange(self.n_walkers) + self._rng.random()) / self.n_walkers * total[-1]
        return np.minimum(np.searchsorted(total, at, side="right"), np.flatnonzero(weights > 0)[-1])

    @staticmethod
    def _check(gamma: NDArray, carriers: NDArray, what: str, matters: NDArray | bool = True) -> None:
        bad = ~((gamma >= SMALLEST_RATE) & (gamma <= LARGEST_RATE)) & matters
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            KineticMonteCarlo._refuse(gamma[i], what, i, int(carriers[i]))

    @staticmethod
    def _refuse(gamma: float, what: str, i: int, carrier: int) -> None:
        raise StatesError(
            f"found a total rate of {gamma:g} s⁻¹ in {what} {i} (carrier on site {carrier}); expected a positive "
            f"number ({SMALLEST_RATE:g} to {LARGEST_RATE:g}), because a carrier that cannot jump has no trajectory; "
            "give every state a jump with a rate, or leave such states out"
        )

    # -- jumping --------------------------------------------------------------------------------------------------

    def run(self, n_jumps: int, *, tick: Callable[[], Any] | None = None) -> None:
        """Let every walker make ``n_jumps`` jumps.

        Parameters
        ----------
        n_jumps
            Jumps of each walker.
        tick
            Called without arguments, once for each jump of all walkers; compiled loops make up to 128 at a time.

        Raises
        ------
        StatesError
            If a walker is in a state that no jump leaves.
        KinosonError
            If an earlier run was stopped in the middle of a jump.
        """
        self._refuse_half_a_jump()
        loop, left = self._fast_loop(), n_jumps
        _log.debug("%d jumps of %d walkers by %s", n_jumps, self.n_walkers, type(loop).__name__ if loop else "NumPy")
        while left > 0:
            self._amid = True
            done = 1
            if loop is None:
                self._jump()
            else:
                done = min(left, WINDOW - self.n_jumps % WINDOW, max(1, DRAWS // self.n_walkers))
                loop.run(self, self._rng.random((done, self.n_walkers)))
                self._count(done)
            self._amid = False
            left -= done
            if tick is not None:
                for _ in range(done):
                    tick()

    def _refuse_half_a_jump(self) -> None:
        """Refuse walkers that were stopped in the middle of a jump: their sums and states do not belong together."""
        if self._amid:
            raise KinosonError(
                "found walkers that were stopped in the middle of a jump, by an error or an interruption; expected "
                "whole jumps; load the last checkpoint, or start again"
            )

    @cached_property
    def _loop(self) -> Loop | None:
        return loop_for(self.rates, self.network)

    def _fast_loop(self) -> Loop | None:
        """Return the compiled loop, if it makes the jumps of this object: a subclass may jump in its own way."""
        own_way = type(self)._jump is not KineticMonteCarlo._jump
        no_table = self._by_species is None and isinstance(self.rates.source, _BoundSpeciesRates)
        return None if own_way or no_table else self._loop

    def board(self) -> Board:
        """Return the arrays that a compiled loop works on: no copies, valid until the next checkpoint is loaded."""
        follow, n = self.follow_atoms, self.n_walkers
        return Board(
            occupations=self.occupations,
            carriers=self.carriers,
            atoms=self.atoms if self.atoms is not None else np.zeros((1, 1), dtype=np.int32),
            displacements=self.displacements if self.displacements is not None else np.zeros((1, 1, 3)),
            times=self.times,
            expected=self._expected.reshape(n, len(self._vectors), len(self.species)),
            column_seen=self._column_seen,
            kind_seen=self._kind_seen,
            atom_seen=self._atom_seen if self._atom_seen is not None else np.zeros((1, 1), dtype=np.int32),
            targets=self._targets,
            column=self._column,
            vectors=self._vectors,
            n_basis=self.network.supercell.alloy.n_basis,
            interstitial=self.network.mechanism == "interstitial",
            follow=follow,
        )

    def refuse(self, walker: int, gamma: float) -> None:
        """Stop at a state that no jump leaves.

        Parameters
        ----------
        walker
            Which walker is in it.
        gamma
            Its total rate, s⁻¹.

        Raises
        ------
        StatesError
            Always.
        """
        self._refuse(gamma, "walker", walker, int(self.carriers[walker]))

    def burn_in(self, n_jumps: int, *, tick: Callable[[], Any] | None = None) -> None:
        """Jump without measuring, then begin to measure from zero.

        Parameters
        ----------
        n_jumps, tick
            As in :meth:`run`.
        """
        self.run(n_jumps, tick=tick)
        self._forget()
        self.burned += n_jumps

    def _jump(self) -> None:
        network, codes = self.network, self.occupations.reshape(-1)
        n, n_jumps = self.n_walkers, network.n_jumps
        here = self._origin + self.carriers
        targets = self._targets[self.carriers]
        sites = self._origin[:, None] + targets
        interstitial = network.mechanism == "interstitial"
        moved = np.repeat(codes[here][:, None], n_jumps, axis=1) if interstitial else codes[sites]
        if self._by_species is not None and bool(network.exists.all()) and not interstitial:
            w = self._by_species[moved]
        else:
            w = self.rates(self.occupations, self.carriers)
        up_to = np.cumsum(w, axis=1)
        gamma = up_to[:, -1]
        self._check(gamma, self.carriers, "walker")
        # just below Γ at most: the jump found has a rate
        aim = np.minimum(self._rng.random(n) * gamma, np.nextafter(gamma, 0.0))
        jump = (up_to <= aim[:, None]).sum(axis=1)
        residence = 1.0 / gamma
        self.times += residence
        kind = network.basis_of(self.carriers) * n_jumps
        column = self._column[moved]
        slot = (np.arange(n) * len(self._vectors) + kind)[:, None] + np.arange(n_jumps)
        np.add.at(self._expected, (slot * len(self.species) + column).ravel(), (w * residence[:, None]).ravel())

        rows = np.arange(n)
        kind = kind + jump
        there = sites[rows, jump]
        seen = self.n_jumps % WINDOW
        self._column_seen[seen] = column[rows, jump]
        self._kind_seen[seen] = kind
        codes[here], codes[there] = codes[there], codes[here]
        self.carriers = targets[rows, jump].astype(np.int64)
        if self.atoms is not None:
            assert self.displacements is not None and self._atom_seen is not None
            atoms = self.atoms.reshape(-1)
            atom = atoms[here if interstitial else there]
            atoms[here], atoms[there] = atoms[there], atoms[here]
            self.displacements.reshape(-1, 3)[self._origin + atom] += self._vectors[kind]
            self._atom_seen[seen] = atom
        self._count(1)

    def _count(self, done: int) -> None:
        """Count jumps, and sort a whole window of them into the ladder."""
        self.n_jumps += done
        if self.n_jumps % WINDOW == 0:
            self.ladder.add_kinds(self._column_seen, self._kind_seen, self._vectors, self._atom_seen)

    # -- what was measured ----------------------------------------------------------------------------------------

    def last_jumps(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Which atom of each walker jumped last, named by the site where it started, and by which vector.

        Returns
        -------
        atoms : ndarray of int, shape (n_walkers,)
        vectors : ndarray, shape (n_walkers, 3)
            Å.

        Raises
        ------
        KinosonError
            If there was no jump yet, or single atoms are not told apart.
        """
        if self._atom_seen is None or self.n_jumps == 0:
            raise KinosonError(
                f"found {self.n_jumps} jumps and follow_atoms={self.follow_atoms}; expected at least one jump of atoms "
                "that are told apart; call run() with follow_atoms=True"
            )
        seen = (self.n_jumps - 1) % WINDOW
        return self._atom_seen[seen].copy(), self._vectors[self._kind_seen[seen]]

    def expected_squares(self) -> NDArray[np.float64]:
        """Σ_k p_k δx_k ⊗ δx_k of the moving species, mean over the states visited, shape (n_walkers, n_species, 3, 3).

        Å² per jump. It has less noise than the squares of the jumps made.
        """
        share = self._expected.reshape(self.n_walkers, len(self._vectors), len(self.species))
        return np.einsum("nks,kx,ky->nsxy", share, self._vectors, self._vectors, optimize=True) / max(1, self.n_jumps)

    def shares(self) -> NDArray[np.float64]:
        """Share of each species in the jumps, shape (n_species,), no unit."""
        return self._expected.reshape(-1, len(self.species)).sum(axis=0) / (self.n_walkers * max(1, self.n_jumps))

    def snapshot(self, states: States, **about: Any) -> States:
        """Return where the walkers are, weighted by their residence times.

        Parameters
        ----------
        states
            The states they started from: ensemble, and energies if these have some.
        **about
            Other fields of :class:`States`.
        """
        gamma = np.asarray(self.rates(self.occupations, self.carriers)).sum(axis=1)
        energies = self.rates.state_energies(self.occupations) if states.model_energies is not None else None
        found: dict[str, Any] = {
            "ensemble": states.ensemble,
            "temperature_K": self.rates.temperature_K or states.temperature_K,
            "source": f"kinetic Monte Carlo, {self.n_walkers} walkers, {self.n_jumps} jumps each, seed {self.seed}",
            "model_energies": energies,
        }
        return States.from_occupations(
            self.network.supercell,
            self.occupations.copy(),
            carriers=self.carriers.copy(),
            weights=1.0 / gamma,
            groups=self.groups.copy(),
            **{**found, **about},
        )

    # -- files ----------------------------------------------------------------------------------------------------

    def _about(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "network": self.network.fingerprint,
            "supercell": self.network.supercell.fingerprint,
            "species": list(self.network.supercell.species),
            "seed": self.seed,
            "n_walkers": self.n_walkers,
            "follow_atoms": self.follow_atoms,
        }

    def save(self, path: str | Path) -> None:
        """Write everything that a run needs to go on as if it had not been interrupted; never half a file.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        KinosonError
            If a run was stopped in the middle of a jump.
        """
        self._refuse_half_a_jump()
        about = {
            **self._about(),
            "n_jumps": self.n_jumps,
            "burned": self.burned,
            "generator": self._rng.bit_generator.state,
        }
        arrays: dict[str, NDArray] = {name: getattr(self, name) for name in self._kept()}
        arrays |= {f"ladder_{name}": array for name, array in self.ladder.to_arrays().items()}
        write_checkpoint(path, about, {"start_rates": self._start_rates, **arrays})

    def load(self, path: str | Path) -> None:
        """Go on from a file of :meth:`save`; this object must have been made with the same arguments.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        KinosonError
            If the file is damaged, or belongs to other jumps, states, rates, walkers or another seed.
        """
        about, arrays = read_checkpoint(
            path, self._about(), owners={"network": self.network, "supercell": self.network.supercell}
        )
        kept = [(name, np.asarray(getattr(self, name))) for name in self._kept()]
        check_arrays(path, arrays, [("start_rates", self._start_rates), *kept], self._limits(arrays))
        if not np.allclose(arrays.pop("start_rates"), self._start_rates, rtol=1e-9, atol=0.0):
            raise KinosonError(
                f"the checkpoint {path} began from other states or with other rates; expected the same barriers, "
                "temperature and states; remove it or repeat the arguments it was made with"
            )
        self.ladder.restore({k.removeprefix("ladder_"): v for k, v in arrays.items() if k.startswith("ladder_")})
        for name in self._kept():
            setattr(self, name, arrays[name])
        try:
            self._rng.bit_generator.state = about["generator"]
            self.n_jumps, self.burned = int(about["n_jumps"]), int(about["burned"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise KinosonError(
                f"the checkpoint {path} holds no state of the random numbers, or no numbers of jumps "
                f"({type(error).__name__}: {error}); expected those of save(); remove it to start again"
            ) from error
        self._amid = False

    def _limits(self, names: Iterable[str]) -> dict[str, int]:
        """What the indices of a checkpoint must be below, by name."""
        n_sites, n_species = self.network.supercell.n_sites, len(self.species)
        limits = {"occupations": len(self.network.supercell.species), "carriers": n_sites, "atoms": n_sites}
        limits |= {"_atom_seen": n_sites, "_kind_seen": len(self._vectors), "_column_seen": n_species}
        limits |= {name: self.n_walkers * n_sites for name in names if name.startswith("ladder_key_")}
        return limits | {name: n_species for name in names if name.startswith("ladder_species_")}

    def _kept(self) -> tuple[str, ...]:
        names = ("occupations", "carriers", "groups", "times", "_expected", "_column_seen", "_kind_seen")
        return (*names, "atoms", "displacements", "_atom_seen") if self.follow_atoms else names
