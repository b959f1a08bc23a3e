"""`record_trajectory`: one walker, jump by jump, for tools that analyse trajectories.

A trajectory is a list of jumps (when, who, where to), from which the state at any time follows exactly: it is constant
between two jumps. Frames can therefore be taken after every so many jumps or on an even grid of times, which tools for
molecular dynamics expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.sublattice import VACANCY
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY
from ase_kinoson.whole_files import replace_file

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["KmcTrajectory", "record_trajectory"]

FEMTOSECOND = 1e-15
"""s."""

LONGEST_STEP = 0.5
"""Atoms must move by less than this part of the cell between two frames: it is all that can be told from wrapped
positions."""


@dataclass(frozen=True, eq=False)
class KmcTrajectory:
    """Every jump of one walker; atoms keep their place in all arrays.

    Attributes
    ----------
    supercell : Supercell
        Where the sites are.
    mechanism : str
        ``"vacancy"`` or ``"interstitial"``.
    symbols : tuple of str, length n_atoms
        Species of the atoms.
    sites : ndarray of int, shape (n_atoms,)
        Where the atoms start.
    carrier : int
        Site where the vacancy (or the interstitial) starts.
    times : ndarray, shape (n_jumps,)
        When each jump happens, s; the trajectory starts at 0.
    movers : ndarray of int, shape (n_jumps,)
        Which atom jumps.
    vectors : ndarray, shape (n_jumps, 3)
        By how much it is displaced, Å.
    jumps_per_frame : int
        Jumps between two frames.
    temperature_K : float or None
        K; None where rates do not depend on it.
    """

    supercell: Supercell
    mechanism: str
    symbols: tuple[str, ...]
    sites: NDArray[np.int64]
    carrier: int
    times: NDArray[np.float64]
    movers: NDArray[np.int64]
    vectors: NDArray[np.float64]
    jumps_per_frame: int
    temperature_K: float | None = None

    @property
    def n_frames(self) -> int:
        """Frames after the start, ``jumps_per_frame`` jumps apart."""
        return len(self.times) // self.jumps_per_frame

    @property
    def frame_times(self) -> NDArray[np.float64]:
        """Time of the start and after every ``jumps_per_frame`` jumps, s, shape (n_frames + 1,)."""
        return np.concatenate([[0.0], self.times[self.jumps_per_frame - 1 :: self.jumps_per_frame]])

    def even_times(self, n_frames: int | None = None) -> NDArray[np.float64]:
        """An even grid from the start to the last jump, s, shape (n_frames + 1,).

        Parameters
        ----------
        n_frames
            Intervals; default as many as there are frames.

        Raises
        ------
        KinosonError
            If there is less than one interval.
        """
        n = self.n_frames if n_frames is None else int(n_frames)
        if n < 1:
            raise KinosonError(f"found n_frames={n_frames}; expected at least 1; raise it")
        return np.linspace(0.0, self.times[-1], n + 1)

    def displacements(self, times: ArrayLike | None = None) -> NDArray[np.float64]:
        """Unwrapped displacements of all atoms since the start.

        Parameters
        ----------
        times : array_like, shape (n,), optional
            s, increasing; default :attr:`frame_times`.

        Returns
        -------
        ndarray, shape (n, n_atoms, 3)
            Å.

        Raises
        ------
        KinosonError
            If the times do not increase.
        """
        t = self.frame_times if times is None else np.asarray(times, dtype=float)
        if t.ndim != 1 or np.any(np.diff(t) < 0):
            raise KinosonError("found times that do not increase; expected a sorted list of seconds; sort it")
        steps = np.zeros((len(t) + 1, len(self.symbols), 3))
        # a jump is seen from the first frame on that is not before it; the row too many takes jumps after the last one
        np.add.at(steps, (np.searchsorted(t, self.times, side="left"), self.movers), self.vectors)
        return np.cumsum(steps[:-1], axis=0)

    def to_atoms(self, times: ArrayLike | None = None) -> list[Atoms]:
        """Frames as Atoms with unwrapped positions, in one order.

        Parameters
        ----------
        times : array_like, shape (n,), optional
            As in :meth:`displacements`.

        Returns
        -------
        list of Atoms
            ``arrays["displacement"]`` since the start, Å; ``info["time_s"]``, ``info["n_jumps"]`` and, of a vacancy,
            ``info["vacancy_displacement"]``. ASE's ``time`` would be in its own unit.
        """
        t = self.frame_times if times is None else np.asarray(times, dtype=float)
        start = self.supercell.positions[self.sites]
        counts = np.searchsorted(self.times, t, side="right")
        images = []
        for now, n_jumps, moved in zip(t, counts, self.displacements(t), strict=True):
            atoms = Atoms(self.symbols, positions=start + moved, cell=self.supercell.cell, pbc=self.supercell.pbc)
            atoms.arrays["displacement"] = moved
            atoms.info.update(time_s=float(now), n_jumps=int(n_jumps))
            if self.mechanism == "vacancy":
                atoms.info["vacancy_displacement"] = -moved.sum(axis=0)
            images.append(atoms)
        return images

    def write(self, path: str | Path, times: ArrayLike | None = None) -> None:
        """Write frames as extended XYZ; see :meth:`to_atoms` for what they hold.

        Parameters
        ----------
        path
            The file.
        times : array_like, shape (n,), optional
            As in :meth:`displacements`.
        """
        images = self.to_atoms(times)
        if self.temperature_K is not None:
            for atoms in images:
                atoms.info["temperature_K"] = self.temperature_K
        with replace_file(path) as temporary:
            ase.io.write(temporary, images, format="extxyz")

    def to_structures(self, species: str | None = None, n_frames: int | None = None) -> list[Structure]:
        """Frames on an even grid of times as pymatgen Structures with one order of sites.

        Parameters
        ----------
        species
            Keep the mobile atoms of this species only, and as a fixed framework all atoms that cannot move or, where
            there is none, one dummy atom ``X`` at the origin. Without it, all atoms are kept and nothing is added.
        n_frames
            Frames after the start; default :attr:`n_frames`.

        Raises
        ------
        KinosonError
            If the species does not move, or an atom moves by half the cell between two frames, so that the analyser
            could not follow it.

        Notes
        -----
        ``DiffusionAnalyzer.from_structures(trajectory.to_structures("Cu"), "Cu", temperature_K,
        trajectory.time_step(), 1, smoothed=False)`` takes every other species for the framework and subtracts its
        mean displacement as drift. Where all species move it would subtract what is no drift, and with a single
        species it fails: hence the fixed framework. See :meth:`analyzer_input` for its units.
        """
        cell = self.supercell
        keep, framework = self._chosen(species)
        moved = self.displacements(self.even_times(n_frames))[:, keep]
        step = np.abs(np.diff(moved, axis=0) @ np.linalg.inv(cell.cell))[..., cell.pbc].max(initial=0.0)
        if step >= LONGEST_STEP:
            raise KinosonError(
                f"found an atom that moves by {step:.2f} of the cell between two frames; expected less than "
                f"{LONGEST_STEP:g}, because positions in a periodic cell tell no more; raise n_frames or take a larger "
                "cell, or use analyzer_input(), which keeps displacements"
            )
        return self._structures(keep, framework, moved)

    def analyzer_input(
        self, species: str, n_frames: int | None = None, *, unit_s: float = FEMTOSECOND
    ) -> dict[str, Any]:
        """Arguments of pymatgen-analysis-diffusion's ``DiffusionAnalyzer`` that belong to this trajectory.

        ``DiffusionAnalyzer(**trajectory.analyzer_input("Cu"), smoothed=False)``: it gets unwrapped displacements, so
        that frames may be as far apart as one likes. Its ``diffusivity`` is in cm²/s and always divided by 6 t:
        multiply by 3/2 on a two-dimensional lattice. It is that of the cell, whose site fraction of vacancies is one
        over its mobile sites.

        The analyser thinks in molecular dynamics: it replaces slopes below 1e-15 Å²/fs by that number
        (D < 1.7e-21 m²/s), and with ``smoothed="max"`` (its default) it fails where frames are more than 1000 fs
        apart. ``unit_s`` lets another unit pose as its femtosecond, for example a thousandth of the time between
        frames; multiply its diffusivities by 1e-15/unit_s then.

        Parameters
        ----------
        species, n_frames
            As in :meth:`to_structures`.
        unit_s
            s.

        Raises
        ------
        KinosonError
            If the species is none that moves.
        """
        keep, framework = self._chosen(species)
        moved = self.displacements(self.even_times(n_frames))[:, keep]
        if framework:
            moved = np.concatenate([moved, np.zeros((len(moved), 1, 3))], axis=1)
        return {
            "structure": self._structures(keep, framework, np.zeros((1, len(keep), 3)))[0],
            "displacements": moved.transpose(1, 0, 2),
            "specie": species,
            # it only enters conductivities, which then are no numbers
            "temperature": np.nan if self.temperature_K is None else self.temperature_K,
            "time_step": self.time_step(n_frames, unit_s=unit_s),
            "step_skip": 1,
        }

    def time_step(self, n_frames: int | None = None, *, unit_s: float = FEMTOSECOND) -> float:
        """Time between two frames of the even grid, in units of ``unit_s`` (default fs).

        Parameters
        ----------
        n_frames
            As in :meth:`even_times`.
        unit_s
            s.
        """
        return float(self.even_times(n_frames)[1]) / unit_s

    def _chosen(self, species: str | None) -> tuple[NDArray[np.int64], bool]:
        """Atoms of one mobile species and all that cannot move, and whether they need a dummy framework."""
        if species is None:
            return np.arange(len(self.symbols)), False
        moves = np.isin(self.sites, self.supercell.mobile_sites)
        own = np.array([s == species for s in self.symbols]) & moves
        if not own.any():
            names = sorted({s for s, m in zip(self.symbols, moves, strict=True) if m})
            raise KinosonError(f"found species {species!r}; expected one that moves, of {names}; choose one")
        return np.flatnonzero(own | ~moves), bool(moves.all())

    def _structures(self, keep: NDArray, framework: bool, moved: NDArray) -> list[Structure]:
        from pymatgen.core import DummySpecies, Lattice, Structure

        cell = self.supercell
        scaled = (cell.positions[self.sites[keep]] + moved) @ np.linalg.inv(cell.cell)
        labels: list[Any] = [self.symbols[i] for i in keep]
        if framework:
            labels.append(DummySpecies(VACANCY))
            scaled = np.concatenate([scaled, np.zeros((len(scaled), 1, 3))], axis=1)
        lattice = Lattice(cell.cell)
        return [Structure(lattice, labels, frame) for frame in scaled]


def record_trajectory(
    states: States,
    jumps: JumpNetwork,
    source: Any,
    temperature_K: float | None = None,
    *,
    n_frames: int,
    jumps_per_frame: int = 1,
    seed: int = 0,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
) -> KmcTrajectory:
    """Record every jump of one walker.

    Residence times are drawn from their exponential distribution, so that the trajectory is one of the Markov process
    itself (:func:`~ase_kinoson.kinosons.trajectories.run_kmc` takes their means, which averages need).

    Parameters
    ----------
    states
        Where to start: one state is drawn with its weight.
    jumps
        Jumps on the supercell of the states.
    source
        A barrier model or a lattice gas.
    temperature_K
        K; not needed for a lattice gas that gives rates.
    n_frames, jumps_per_frame
        The walker makes n_frames × jumps_per_frame jumps, all of which are kept: frames can be taken at other times,
        too.
    seed
        Of the start, the jumps and the residence times.
    attempt_frequency
        s⁻¹, for sources that know none of their own.

    Returns
    -------
    KmcTrajectory

    Raises
    ------
    KinosonError
        If the numbers are not positive.
    StatesError
        If states and jumps do not belong together, or a state has no jump.
    """
    if n_frames < 1 or jumps_per_frame < 1:
        raise KinosonError(
            f"found n_frames={n_frames} and jumps_per_frame={jumps_per_frame}; expected at least 1 each; raise them"
        )
    rates = Rates.of(source, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    child, own = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(own)
    # the engine draws by weight and rate, the measure of jumps; one start by weight alone is the measure of time
    start = states[[int(rng.choice(len(states), p=states.weights))]] if len(states) else states
    engine = KineticMonteCarlo(start, jumps, rates, n_walkers=1, seed=int(child.generate_state(1)[0]))
    cell = jumps.supercell
    sites = np.flatnonzero(engine.occupations[0] > 0)
    symbols = tuple(cell.species[c] for c in engine.occupations[0, sites])
    carrier = int(engine.carriers[0])
    place = np.full(cell.n_sites, -1)
    place[sites] = np.arange(len(sites))
    n_jumps = n_frames * jumps_per_frame
    elapsed, movers, vectors = np.zeros(n_jumps), np.zeros(n_jumps, dtype=np.int64), np.zeros((n_jumps, 3))
    for n in range(n_jumps):
        engine.run(1)
        atom, vector = engine.last_jumps()
        elapsed[n], movers[n], vectors[n] = engine.times[0], atom[0], vector[0]
    times = np.cumsum(np.diff(elapsed, prepend=0.0) * rng.exponential(size=n_jumps))
    return KmcTrajectory(
        cell,
        jumps.mechanism,
        symbols,
        sites,
        carrier,
        times,
        place[movers],
        vectors,
        int(jumps_per_frame),
        rates.temperature_K,
    )
