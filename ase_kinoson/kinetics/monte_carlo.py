"""Canonical Monte Carlo of an energy model: independent Metropolis chains, advanced together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.compiled import can_compile
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import ModelError
from ase_kinoson.kinetics.exchange_tables import Attempts
from ase_kinoson.units import thermal_energy

if TYPE_CHECKING:
    from ase_kinoson.kinetics.exchange_loop import ExchangeLoop

__all__ = [
    "MonteCarlo",
    "autocorrelation_time",
    "energy_of",
    "equilibration_z",
    "random_occupations",
    "swap_some",
]

CARRIER_SHARE = 0.2
"""Share of the attempted exchanges that move the carrier."""
DRAWN = 2**22
"""Attempts whose random numbers are drawn at a time; bounds memory."""


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


class MonteCarlo:
    """Independent canonical Metropolis chains, advanced together.

    With numba the attempts of a :class:`~ase_kinoson.barriers.energy.PairEnergy` and of a
    :class:`~ase_kinoson.barriers.carrier_network.NetworkEnergy` are made in compiled loops, from the same random
    numbers; energies of the latter differ by the rounding of single precision.

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
        self.model = energy_of(model, cell)
        self.temperature_K = float(temperature_K)
        self._beta = 1.0 / thermal_energy(temperature_K)
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        self._loop: ExchangeLoop | None = None
        self._loop_of: Any = None  # the model whose loop this is
        if occupations is None:
            self.occupations, self.carriers = random_occupations(cell, n_chains, self._rng)
            self.energies = self.model.energies(self.occupations)
        else:
            self.restart(occupations)
        self._check_energies()
        self._pools()
        self.n_sweeps = 0
        self._accepted = np.zeros(2, dtype=np.int64)
        self._tried = np.zeros(2, dtype=np.int64)
        self._trace: list[NDArray[np.float64]] = []

    def restart(self, occupations: ArrayLike, carriers: ArrayLike | None = None) -> None:
        """Go on from other states, shape (n_chains, n_sites); counts and trace stay."""
        cell = self.supercell
        self.occupations = cell.check_occupation(np.atleast_2d(np.asarray(occupations))).copy()
        if carriers is None:
            carriers = [cell.find_carrier(row) for row in self.occupations]
        self.carriers = np.array(carriers, dtype=np.int64)
        self.energies = self.model.energies(self.occupations)

    def _check_energies(self) -> None:
        """Refuse energies that are no numbers: exchanges with such states would be rejected without a word."""
        bad = np.flatnonzero(~np.isfinite(self.energies))
        if len(bad):
            raise ModelError(
                f"found an energy of {self.energies[bad[0]]} eV in chain {int(bad[0])}; expected finite numbers; "
                "correct the energy model"
            )

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
                self.attempt(self.sweep_length)
                self.n_sweeps += 1
                self._trace.append(self.energies.copy())
                bar.update()
                if tick is not None:
                    tick()

    @property
    def sweep_length(self) -> int:
        """Attempts of one sweep."""
        return self._steps

    def attempt(self, steps: int) -> None:
        """Attempt a fixed number of exchanges in every chain.

        Each attempt chooses its sites regardless of what came before, so that any fixed number of them is
        reversible with respect to the model's distribution: what delayed acceptance asks of a proposal.
        """
        block = max(1, DRAWN // len(self.occupations))
        for done in range(0, steps, block):
            self._attempt(min(block, steps - done))

    def _attempt(self, steps: int) -> None:
        """Attempt exchanges whose random numbers are drawn at once."""
        rng, mobile = self._rng, self.supercell.mobile_sites
        n = len(self.occupations)
        kind = rng.random((steps, n))
        aim = rng.integers(len(mobile), size=(steps, n))
        some = len(self._sites) > 0
        i = rng.integers(len(self._sites), size=(steps, n)) if some else np.zeros((1, 1), dtype=np.int64)
        other = rng.random((steps, n)) if some else np.zeros((1, 1))
        threshold = rng.random((steps, n))
        np.log1p(np.negative(threshold, out=threshold), out=threshold)
        np.divide(np.negative(threshold, out=threshold), self._beta, out=threshold)
        loop = self._compiled()
        if loop is not None:
            drawn = Attempts(
                kind, aim, i, other, threshold, mobile, self._sites, self._first, self._size, self._share
            )  # fmt: skip
            tried, accepted = loop.run(self.occupations, self.carriers, self.energies, drawn)
            self._tried += tried
            self._accepted += accepted
            return
        of_carrier, end = kind < self._share, mobile[aim]
        start = end
        if some:
            j = self._first[i] + np.floor(other * self._size[i]).astype(np.int64)
            start, end = self._sites[i], np.where(of_carrier, end, self._sites[j])
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
            delta = swap_some(self.model, self.occupations, active, p, q, carriers=self.carriers[active])
            if np.isnan(delta).any():
                raise ModelError(
                    f"found {int(np.isnan(delta).sum())} energy changes that are NaN; expected numbers in eV; correct "
                    "the energy model"
                )
            ok = delta <= threshold[step, active]
            kind = carrier_move[active].astype(int)
            self._tried += np.bincount(kind, minlength=2)
            self._accepted += np.bincount(kind[ok], minlength=2)
            done, p, q, a, b = active[ok], p[ok], q[ok], a[ok], b[ok]
            self.occupations[done, p], self.occupations[done, q] = b, a
            self.energies[done] += delta[ok]
            here = self.carriers[done]
            self.carriers[done] = np.where(here == p, q, np.where(here == q, p, here))

    def _compiled(self) -> ExchangeLoop | None:
        """The compiled loop of the model, if there is one and the arrays are those it takes."""
        if self._loop_of is not self.model:
            self._loop, self._loop_of = _loop(self.model, self.supercell), self.model
        arrays = ((self.occupations, np.int8), (self.carriers, np.int64), (self.energies, np.float64))
        fit = all(array.dtype == kind and array.flags.c_contiguous for array, kind in arrays)
        return self._loop if fit else None

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
        share = self._accepted / np.maximum(self._tried, 1)
        return {
            "chains": len(self.occupations),
            "sweeps": self.n_sweeps,
            "acceptance_exchange": float(share[0]),
            "acceptance_carrier": float(share[1]),
            "equilibration_z": equilibration_z(trace),
            "autocorrelation_sweeps": autocorrelation_time(half),
            "mean_energy_eV": float(half.mean()) if len(half) else float(self.energies.mean()),
        }


def _loop(model: EnergyModel, cell: Supercell) -> ExchangeLoop | None:
    """Compiled loop of a model; what it needs is loaded only for a model that may have one."""
    if not can_compile() or getattr(model, "supercell", None) != cell:
        return None
    if type(model) is PairEnergy:
        from ase_kinoson.kinetics.exchange_loop import ExchangeLoop

        return ExchangeLoop.of(model)
    if type(model).__name__ == "NetworkEnergy":
        from ase_kinoson.barriers.carrier_network import NetworkEnergy
        from ase_kinoson.kinetics.exchange_network import NetworkExchangeLoop

        return NetworkExchangeLoop.of_network(model) if type(model) is NetworkEnergy else None
    return None


class _NoEnergy:
    """All states have the same energy."""

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        return np.zeros(len(occupations))

    def swap_delta(self, occupations: NDArray, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
        return np.zeros(len(occupations))


def swap_some(
    model: EnergyModel, occupations: NDArray, rows: NDArray, first: NDArray, second: NDArray, *, carriers: NDArray
) -> NDArray[np.float64]:
    """Energy change when some states exchange the occupants of two sites each, eV, shape (m,).

    A model with ``swap_rows`` is spared the copies of the states and the search of their carriers, whose cost grows
    with the cell.
    """
    of_rows = getattr(model, "swap_rows", None)
    if of_rows is None:
        return model.swap_delta(occupations[rows], first, second)
    return np.asarray(of_rows(occupations, rows, first, second, carriers))


def energy_of(model: Any, cell: Supercell) -> EnergyModel:
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


def equilibration_z(trace: NDArray) -> float:
    """Mean of the last minus the third quarter of a trace (n_times, n_chains), in standard errors over chains."""
    half = trace[len(trace) // 2 :]
    if len(half) < 4 or half.shape[1] < 2:
        return 0.0
    middle = len(half) // 2
    gap = half[middle:].mean(axis=0) - half[:middle].mean(axis=0)
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    return float(gap.mean() / error) if error > 1e-12 else 0.0


def autocorrelation_time(trace: NDArray) -> float:
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
