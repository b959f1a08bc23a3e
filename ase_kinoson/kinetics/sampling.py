"""States to average over: random, special quasirandom, and Monte Carlo of a model's energies."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from tqdm import tqdm

from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonWarning, ModelError, StatesError
from ase_kinoson.kinetics.sqs import sqs_occupations
from ase_kinoson.units import thermal_energy

__all__ = ["MonteCarlo", "random_occupations", "sample_states"]

METHODS = ("random", "sqs", "monte-carlo")
CARRIER_SHARE = 0.2
"""Share of the attempted exchanges that move the carrier."""

MAX_CHAINS = 200
EQUILIBRATION_P = 1e-5
"""Drifts of the energy less probable than this are reported; Student's t over the chains."""


def random_occupations(cell: Supercell, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Decorate cells at random with the exact numbers of :attr:`Supercell.counts`.

    Atoms stay on their nominal sublattice. The vacancy takes a random site of the sublattice that ``counts``
    leaves one atom short; vacant sites of fixed sublattices are placed at random; an interstitial atom takes
    any of its sites.

    Returns
    -------
    occupations : ndarray of int8, shape (n, n_sites)
    carriers : ndarray of int, shape (n,)
    """
    occupations = np.zeros((n, cell.n_sites), dtype=np.int8)
    for number, (sub, counts) in enumerate(zip(cell.alloy.sublattices, cell.counts, strict=True)):
        if sub.interstitial:
            continue
        sites = np.flatnonzero(cell.sublattice == number)
        atoms = np.repeat([cell.species.index(s) for s in counts], list(counts.values())).astype(np.int8)
        row = np.zeros(len(sites), dtype=np.int8)
        row[: len(atoms)] = atoms
        occupations[:, sites] = rng.permuted(np.tile(row, (n, 1)), axis=1)
    if cell.alloy.is_interstitial:
        carriers = rng.choice(cell.mobile_sites, size=n)
        symbol = next(s.species[0] for s in cell.alloy.sublattices if s.interstitial)
        occupations[np.arange(n), carriers] = cell.species.index(symbol)
    else:
        mobile = cell.mobile_sites
        carriers = mobile[(occupations[:, mobile] == 0).argmax(axis=1)]
    return occupations, carriers.astype(np.int64)


def sample_states(
    cell: Supercell,
    n: int,
    *,
    method: str = "random",
    seed: int = 0,
    model: Any = None,
    temperature_K: float | None = None,
    ensemble: str = "equilibrium",
    n_chains: int | None = None,
    sweeps: int = 100,
    network: JumpNetwork | None = None,
    progress: bool = False,
) -> States:
    """Make states of a supercell with one carrier.

    Parameters
    ----------
    cell
        The supercell.
    n
        Number of states.
    method
        ``"random"``: exact composition, random places. ``"sqs"``: special quasirandom cells from icet (an
        optional package) with the vacancy at a random site. ``"monte-carlo"``: states of the model's
        ensemble. Only the last one is an average over which Λ is a diffusivity.
    seed
        Equal seeds give equal states.
    model
        For Monte Carlo: an `EnergyModel`, or anything whose ``energy`` is one (a `BarrierModel`); ``energy``
        None means that all states have the same energy.
    temperature_K
        For Monte Carlo, K.
    ensemble
        ``"equilibrium"``: all atoms of exchangeable sites exchange at T, independent Metropolis chains from
        random starts. ``"quenched"``: atoms are frozen in a random arrangement and only the carrier
        equilibrates: it trades places with the occupant of any mobile site (none included), drawn with
        exp(−E/k_BT); exact, no chain. In an interstitial alloy whose hosts are ordered the two are the same.
    n_chains
        Number of independent chains (arrangements for ``"quenched"``, cells for ``"sqs"``), the ``groups``
        of the result. Default: one per state, up to 200 chains for the equilibrium ensemble and 5 SQS cells.
        Give the quenched ensemble several states per arrangement where it shall be reweighted.
    sweeps
        Attempted exchanges per site before the first states are taken; further states of a chain follow
        every tenth of that.
    network
        Jumps; their supercell must be ``cell``.
    progress
        Show a progress bar.

    Returns
    -------
    States
        With ``model_energies`` for Monte Carlo, and in ``report`` the rounding of the composition,
        acceptance, equilibration and autocorrelation.
    """
    if method not in METHODS:
        raise StatesError(f"found method={method!r}; expected one of {METHODS}; choose one")
    if ensemble not in ("equilibrium", "quenched"):
        raise StatesError(f"found ensemble={ensemble!r}; expected 'equilibrium' or 'quenched'; choose one")
    if n < 1:
        raise StatesError(f"found n={n} states; expected at least one; raise n")
    if network is not None and network.supercell != cell:
        raise StatesError(
            "found a jump network on another supercell; expected one on the cell of the states; pass "
            "network.supercell as cell"
        )
    report: dict[str, Any] = {"method": method, "seed": int(seed), "composition_rounding": cell.rounding()}
    rng = np.random.default_rng(seed)
    if method == "random":
        occupations, carriers = random_occupations(cell, n, rng)
        return States.from_occupations(
            cell, occupations, carriers=carriers, source=f"random decoration, seed {seed}", report=report
        )
    if method == "sqs":
        cells = min(n, 5 if n_chains is None else n_chains)
        occupations, groups = sqs_occupations(cell, n, cells, seed=seed, progress=progress)
        return States.from_occupations(
            cell,
            occupations,
            groups=groups,
            source=f"{cells} SQS by icet, vacancy at random, seed {seed}",
            report=report,
        )
    if model is None or temperature_K is None:
        raise StatesError(
            f"found model={model!r} and temperature_K={temperature_K!r} for Monte Carlo; expected both; pass "
            f"model= and temperature_K="
        )
    if ensemble == "quenched":
        return _quenched(cell, n, rng, model, temperature_K, min(n, n_chains or n), seed, report)
    chains = min(n, n_chains or MAX_CHAINS)
    chain = MonteCarlo(cell, model, temperature_K, n_chains=chains, seed=seed)
    rounds = -(-n // chains)
    spacing = max(1, sweeps // 10)
    with tqdm(total=sweeps + (rounds - 1) * spacing, desc="Monte Carlo", unit="sweep", disable=not progress) as bar:
        chain.run(sweeps, tick=bar.update)
        kept = [chain.snapshot()]
        for _ in range(rounds - 1):
            chain.run(spacing, tick=bar.update)
            kept.append(chain.snapshot())
    about = chain.report()
    if 2.0 * student.sf(abs(about["equilibration_z"]), max(1, chains - 1)) < EQUILIBRATION_P:
        warnings.warn(
            f"the energy of the Monte Carlo chains still drifts ({about['equilibration_z']:.1f} standard "
            f"errors between the third and "
            f"the last quarter of {chain.n_sweeps} sweeps); the states are not at equilibrium; raise sweeps",
            KinosonWarning,
            stacklevel=2,
        )
    energies = [s.model_energies for s in kept if s.model_energies is not None]
    return States.from_occupations(
        cell,
        np.concatenate([s.occupations for s in kept])[:n],
        carriers=np.concatenate([s.carriers for s in kept])[:n],
        groups=np.concatenate([s.groups for s in kept])[:n],
        ensemble="equilibrium",
        temperature_K=float(temperature_K),
        source=kept[0].source,
        model_energies=np.concatenate(energies)[:n],
        report={**report, **about},
    )


class MonteCarlo:
    """Independent canonical Metropolis chains, advanced together.

    One attempt per chain and step: two sites of one pool of exchangeable sites (all mobile sites; each
    disordered fixed sublattice) trade occupants, or the carrier trades places with any mobile site. Both
    proposals are symmetric.

    Parameters
    ----------
    cell
        The supercell.
    model
        As in :func:`sample_states`.
    temperature_K
        K.
    n_chains
        Number of chains, each started from a random decoration.
    seed
        Seed of starts and moves.
    occupations : array_like of int, shape (n_chains, n_sites), optional
        Starting states instead.

    Attributes
    ----------
    occupations : ndarray of int8, shape (n_chains, n_sites)
    carriers : ndarray of int, shape (n_chains,)
    energies : ndarray, shape (n_chains,)
        eV.
    n_sweeps : int
        Sweeps done; one sweep attempts as many exchanges as there are exchangeable sites.
    """

    def __init__(
        self,
        cell: Supercell,
        model: Any,
        temperature_K: float,
        *,
        n_chains: int = 64,
        seed: int = 0,
        occupations: ArrayLike | None = None,
    ) -> None:
        self.supercell = cell
        self.model = _energy_of(model, cell)
        self.temperature_K = float(temperature_K)
        self._beta = 1.0 / thermal_energy(temperature_K)
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        if occupations is None:
            self.occupations, self.carriers = random_occupations(cell, n_chains, self._rng)
        else:
            self.occupations = cell.check_occupation(np.atleast_2d(np.asarray(occupations))).copy()
            self.carriers = np.array([cell.find_carrier(row) for row in self.occupations], dtype=np.int64)
        self.energies = self.model.energies(self.occupations)
        self._pools()
        self.n_sweeps = 0
        self._accepted = np.zeros(2, dtype=np.int64)
        self._tried = np.zeros(2, dtype=np.int64)
        self._trace: list[NDArray[np.float64]] = []

    def _pools(self) -> None:
        """Lay out the exchangeable sites pool by pool."""
        cell, alloy = self.supercell, self.supercell.alloy
        pools = [] if alloy.is_interstitial else [cell.mobile_sites]
        for number, sub in enumerate(alloy.sublattices):
            if not sub.mobile and not sub.interstitial and sub.is_disordered:
                pools.append(np.flatnonzero(cell.sublattice == number))
        self._sites = np.concatenate([*pools, np.empty(0, dtype=np.int64)]).astype(np.int64)
        sizes = np.array([len(p) for p in pools], dtype=np.int64)
        self._size = np.repeat(sizes, sizes)
        self._first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        self._steps = max(1, len(self._sites) + (len(cell.mobile_sites) if alloy.is_interstitial else 0))
        self._share = CARRIER_SHARE if len(self._sites) else 1.0

    def run(self, sweeps: int, *, progress: bool = False, tick: Any = None) -> None:
        """Advance all chains by a number of sweeps."""
        with tqdm(total=sweeps, desc="Monte Carlo", unit="sweep", disable=not progress) as bar:
            for _ in range(sweeps):
                self._sweep()
                self.n_sweeps += 1
                self._trace.append(self.energies.copy())
                bar.update()
                if tick is not None:
                    tick()

    def _sweep(self) -> None:
        rng, mobile = self._rng, self.supercell.mobile_sites
        n, steps = len(self.occupations), self._steps
        of_carrier = rng.random((steps, n)) < self._share
        aim = mobile[rng.integers(len(mobile), size=(steps, n))]
        if len(self._sites):
            i = rng.integers(len(self._sites), size=(steps, n))
            j = self._first[i] + np.floor(rng.random((steps, n)) * self._size[i]).astype(np.int64)
            start, end = self._sites[i], np.where(of_carrier, aim, self._sites[j])
        else:
            start, end = aim, aim
        threshold = -np.log1p(-rng.random((steps, n))) / self._beta
        rows = np.arange(n)
        for step in range(steps):
            carrier_move = of_carrier[step]
            p = np.where(carrier_move, self.carriers, start[step])
            q = end[step]
            a, b = self.occupations[rows, p], self.occupations[rows, q]
            active = np.flatnonzero(a != b)
            if len(active) == 0:
                continue
            p, q, a, b = p[active], q[active], a[active], b[active]
            delta = self.model.swap_delta(self.occupations[active], p, q)
            ok = delta <= threshold[step, active]
            kind = carrier_move[active].astype(int)
            self._tried += np.bincount(kind, minlength=2)
            self._accepted += np.bincount(kind[ok], minlength=2)
            done, p, q, a, b = active[ok], p[ok], q[ok], a[ok], b[ok]
            self.occupations[done, p], self.occupations[done, q] = b, a
            self.energies[done] += delta[ok]
            here = self.carriers[done]
            self.carriers[done] = np.where(here == p, q, np.where(here == q, p, here))

    def snapshot(self) -> States:
        """Return the present states; groups are the chain numbers."""
        return States.from_occupations(
            self.supercell,
            self.occupations.copy(),
            carriers=self.carriers.copy(),
            ensemble="equilibrium",
            temperature_K=self.temperature_K,
            source=f"Monte Carlo, {len(self.occupations)} chains, {self.n_sweeps} sweeps, seed {self.seed}",
            model_energies=self.energies.copy(),
            report=self.report(),
        )

    def report(self) -> dict[str, Any]:
        """Acceptance, equilibration and autocorrelation.

        ``equilibration_z`` compares the mean energies of the third and the last quarter of the sweeps, in
        standard errors over chains; ``autocorrelation_sweeps`` is the integrated autocorrelation time of the
        energy in the second half.
        """
        trace = np.array(self._trace).reshape(-1, len(self.occupations))
        half = trace[len(trace) // 2 :]
        z = 0.0
        if len(half) >= 4 and half.shape[1] > 1:
            middle = len(half) // 2
            gap = half[middle:].mean(axis=0) - half[:middle].mean(axis=0)
            error = gap.std(ddof=1) / np.sqrt(len(gap))
            z = float(gap.mean() / error) if error > 1e-12 else 0.0
        share = self._accepted / np.maximum(self._tried, 1)
        return {
            "chains": len(self.occupations),
            "sweeps": self.n_sweeps,
            "acceptance_exchange": float(share[0]),
            "acceptance_carrier": float(share[1]),
            "equilibration_z": z,
            "autocorrelation_sweeps": _autocorrelation(half),
            "mean_energy_eV": float(half.mean()) if len(half) else float(self.energies.mean()),
        }


class _NoEnergy:
    """All states have the same energy."""

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        return np.zeros(len(occupations))

    def swap_delta(self, occupations: NDArray, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
        return np.zeros(len(occupations))


def _energy_of(model: Any, cell: Supercell) -> EnergyModel:
    """Find the energy of a model, on the given supercell."""
    if not isinstance(model, EnergyModel):
        if not hasattr(model, "energy"):
            raise ModelError(
                f"found a model of type {type(model).__name__} without energies; expected an EnergyModel or "
                f"a model with .energy; "
                "fit a BarrierModel first"
            )
        model = model.energy
    if model is None:
        return _NoEnergy()
    if not isinstance(model, EnergyModel):
        raise ModelError(
            f"found an energy of type {type(model).__name__}; expected energies() and swap_delta(); see EnergyModel"
        )
    own = getattr(model, "supercell", cell)
    return model.on(cell) if own != cell and hasattr(model, "on") else model


def _quenched(
    cell: Supercell,
    n: int,
    rng: np.random.Generator,
    model: Any,
    temperature_K: float,
    arrangements: int,
    seed: int,
    report: dict[str, Any],
) -> States:
    energy = _energy_of(model, cell)
    kT = thermal_energy(temperature_K)
    start, home = random_occupations(cell, arrangements, rng)
    base = energy.energies(start)
    mobile = cell.mobile_sites
    groups = np.arange(n) % arrangements
    sites = np.empty(n, dtype=np.int64)
    values = np.empty(n)
    entropy = np.empty(arrangements)
    step = max(1, 2_000_000 // (len(mobile) * max(1, cell.n_sites)))
    for first in range(0, arrangements, step):
        part = np.arange(first, min(first + step, arrangements))
        repeated = np.repeat(start[part], len(mobile), axis=0)
        delta = energy.swap_delta(repeated, np.repeat(home[part], len(mobile)), np.tile(mobile, len(part)))
        delta = delta.reshape(len(part), len(mobile))
        boltzmann = np.exp(-(delta - delta.min(axis=1, keepdims=True)) / kT)
        total = np.cumsum(boltzmann, axis=1)
        share = boltzmann / total[:, -1:]
        entropy[part] = 1.0 / (share**2).sum(axis=1)
        for row in np.flatnonzero(np.isin(groups, part)):
            k = groups[row] - first
            pick = min(int(np.searchsorted(total[k], rng.random() * total[k, -1], side="right")), len(mobile) - 1)
            sites[row], values[row] = mobile[pick], base[groups[row]] + delta[k, pick]
    occupations = start[groups]
    rows = np.arange(n)
    old = home[groups]
    occupations[rows, old], occupations[rows, sites] = start[groups, sites], start[groups, old]
    return States.from_occupations(
        cell,
        occupations,
        carriers=sites,
        groups=groups,
        ensemble="quenched",
        temperature_K=float(temperature_K),
        source=f"random arrangements, carrier by heat bath, seed {seed}",
        model_energies=values,
        report={**report, "arrangements": arrangements, "effective_carrier_sites": float(entropy.mean())},
    )


def _autocorrelation(trace: NDArray) -> float:
    """Integrated autocorrelation time (in samples) of a trace (n_times, n_chains); Sokal's window."""
    if len(trace) < 4:
        return float("nan")
    x = trace - trace.mean()
    variance = float((x**2).mean())
    if variance < 1e-18:
        return 0.5
    tau = 0.5
    for lag in range(1, len(x)):
        tau += float((x[lag:] * x[:-lag]).mean()) / variance
        if lag >= 5.0 * tau:
            break
    return tau
