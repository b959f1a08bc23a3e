"""State spaces small enough to enumerate, solved by one sparse linear system.

States that differ by a translation of the supercell are one state: the carrier sits in the first primitive cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import comb, prod
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg, splu

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["StateSpace", "exact_lambda"]

DIRECT_LIMIT = 20_000
"""Largest state space solved by factorisation; larger ones by conjugate gradients."""


@dataclass(frozen=True, eq=False)
class StateSpace:
    """All states of a supercell, with the graph of jumps between them.

    Attributes
    ----------
    network : JumpNetwork
    occupations : ndarray of int8, shape (n_states, n_sites)
    carriers : ndarray of int, shape (n_states,)
    next_state : ndarray of int, shape (n_states, J)
        State after each jump, −1 where there is none.
    """

    network: JumpNetwork
    occupations: NDArray[np.int8]
    carriers: NDArray[np.int64]
    next_state: NDArray[np.int64]

    @classmethod
    def enumerate(
        cls, network: JumpNetwork, *, counts: Mapping[str, int] | None = None, limit: int = 5_000_000
    ) -> StateSpace:
        """List all arrangements.

        Parameters
        ----------
        network
            Jumps and supercell.
        counts
            Atoms of each species on the mobile sites; default from the composition of the alloy.
        limit
            Largest number of states allowed.

        Raises
        ------
        KinosonError
            If there are more states than ``limit`` or the counts do not fill the sites.
        """
        cell = network.supercell
        alloy = cell.alloy
        pools = _pools(cell, counts)
        starts = np.flatnonzero(alloy.mobile_basis)
        total = len(starts) * prod(_arrangements(len(sites) - pool_carrier, c) for sites, c, pool_carrier in pools)
        if total > limit:
            raise KinosonError(
                f"the cell has {total} states; expected at most {limit} to enumerate; use a smaller cell or run "
                "trajectories"
            )
        rows, carriers = [], []
        code = {s: i for i, s in enumerate(cell.species)}
        for start in starts:
            parts = []
            for sites, c, pool_carrier in pools:
                free = sites[sites != start] if pool_carrier else sites
                parts.append((free, list(_multiset(len(free), {code[s]: n for s, n in c.items() if n}))))
            for choice in itertools.product(*(p for _, p in parts)):
                row = np.zeros(cell.n_sites, dtype=np.int8)
                for (free, _), values in zip(parts, choice, strict=True):
                    row[free] = values
                if alloy.is_interstitial:
                    row[start] = code[_interstitial_species(cell)]
                rows.append(row)
                carriers.append(start)
        occupations = np.array(rows, dtype=np.int8)
        return cls._link(network, occupations, np.array(carriers, dtype=np.int64))

    @classmethod
    def _link(cls, network: JumpNetwork, occupations: NDArray, carriers: NDArray) -> StateSpace:
        cell = network.supercell
        rng = np.random.default_rng(12345)
        table = rng.integers(0, 2**64, size=(cell.n_sites, len(cell.species) + 1), dtype=np.uint64)
        marks = rng.integers(0, 2**64, size=cell.n_sites, dtype=np.uint64)
        sites = np.arange(cell.n_sites)

        def key(occ: NDArray, carrier: NDArray) -> NDArray[np.uint64]:
            values = marks[carrier].copy()
            for s in sites:
                values += table[s, occ[:, s]]
            return values

        keys = key(occupations, carriers)
        order = np.argsort(keys)
        ordered = keys[order]
        if np.any(ordered[1:] == ordered[:-1]):  # pragma: no cover - 64-bit hash
            raise KinosonError("two states share one hash; expected distinct states; report this cell")
        next_state = np.full((len(keys), network.n_jumps), -1, dtype=np.int64)
        for start in np.unique(carriers):
            own = np.flatnonzero(carriers == start)
            targets = network.targets(np.array([start]))[0]
            for k in np.flatnonzero(targets >= 0):
                moved, carrier = network.apply(occupations[own], carriers[own], np.full(len(own), k))
                shift = cell.cell_coordinates(targets[k] // cell.alloy.n_basis)
                moved = moved[:, cell.translate(sites, shift)]
                carrier = carrier % cell.alloy.n_basis
                found = order[np.minimum(np.searchsorted(ordered, key(moved, carrier)), len(order) - 1)]
                next_state[own, k] = found
        return cls(network, occupations, carriers, next_state)

    def __len__(self) -> int:
        return len(self.occupations)

    def weights(self, rates: Rates, *, ensemble: str = "equilibrium") -> NDArray[np.float64]:
        """Return exact weights of the states, shape (n_states,), normalised.

        ``"equilibrium"``: Boltzmann weights. ``"random"``: equal weights. ``"quenched"``: a random arrangement with
        the vacancy
        on site c0; the vacancy is then moved to site i by exchanging it with the occupant of i, with probability
        proportional
        to the Boltzmann weight of the result, over all mobile i (vacancy mechanism only).
        """
        if ensemble == "random":
            return np.full(len(self), 1.0 / len(self))
        logs = rates.log_weights(self.occupations)
        boltzmann = np.exp(logs - logs.max())
        if ensemble == "equilibrium":
            return boltzmann / boltzmann.sum()
        if ensemble != "quenched" or self.network.mechanism != "vacancy":
            raise KinosonError(
                f"found ensemble {ensemble!r} for a {self.network.mechanism}; expected 'equilibrium', 'random', "
                "or 'quenched' for "
                "vacancies; choose one"
            )
        cell = self.network.supercell
        result = np.zeros(len(self))
        images: list[NDArray] = []
        full = self._key_lookup()
        for site in cell.mobile_sites:
            moved = self.occupations.copy()
            rows = np.arange(len(self))
            moved[rows, self.carriers], moved[rows, site] = self.occupations[:, site], 0
            images.append(full(moved, np.full(len(self), site)))
        table = np.array(images)
        share = boltzmann[table]
        share /= share.sum(axis=0)
        np.add.at(result, table.ravel(), share.ravel())
        return result / result.sum()

    def _key_lookup(self) -> Any:
        cell = self.network.supercell
        index = {
            (int(c), row.tobytes()): i for i, (c, row) in enumerate(zip(self.carriers, self.occupations, strict=True))
        }
        sites = np.arange(cell.n_sites)

        def find(occ: NDArray, carriers: NDArray) -> NDArray[np.int64]:
            found = np.empty(len(occ), dtype=np.int64)
            for i, (row, c) in enumerate(zip(occ, carriers, strict=True)):
                shift = cell.cell_coordinates(c // cell.alloy.n_basis)
                found[i] = index[(int(c % cell.alloy.n_basis), row[cell.translate(sites, shift)].tobytes())]
            return found

        return find

    def states(self, weights: NDArray, **about: Any) -> States:
        """All states as :class:`States` with the given weights."""
        return States.from_occupations(
            self.network.supercell, self.occupations, carriers=self.carriers, weights=weights, **about
        )


def exact_lambda(
    space: StateSpace, rates: Rates, *, weights: NDArray | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Solve the Poisson equation of every species and return exact collective transport coefficients.

    Parameters
    ----------
    space
        Enumerated states.
    rates
        Rates that obey detailed balance with the weights.
    weights
        Equilibrium weights; default from ``rates``.

    Returns
    -------
    matrix : ndarray, shape (n_species, n_species, 3, 3)
        Λ_ab per carrier as Cartesian tensors, Å²/s: ``trace / d`` is the scalar Λ_ab. Species in the order of
        ``supercell.species[1:]``.
    bare : ndarray, same shape
        The same with y = 0.
    relaxation : ndarray, shape (n_states, n_species, 3)
        y^a of every state, Å.

    Notes
    -----
    Trinkle, Phys. Rev. Lett. 121, 235901 (2018): the minimiser obeys Σ_k W_k (δx_k + Δ_k y) = 0.
    """
    network = space.network
    n, n_jumps = space.next_state.shape
    w = np.array(rates(space.occupations, space.carriers))
    w[space.next_state < 0] = 0.0
    pi = space.weights(rates) if weights is None else np.asarray(weights)
    displacement = _displacements(network, space)
    rows = np.repeat(np.arange(n), n_jumps)
    columns = space.next_state.ravel()
    keep = columns >= 0
    flow = (pi[:, None] * w).ravel()
    w_matrix = sp.coo_array((flow[keep], (rows[keep], columns[keep])), shape=(n, n)).tocsr()
    asymmetry = abs(w_matrix - w_matrix.T).max() if n > 1 else 0.0
    if asymmetry > 1e-8 * max(flow.max(), 1e-300):
        raise ModelError(
            f"the rates break detailed balance with the weights (relative {asymmetry / flow.max():.1e}); expected "
            "π W symmetric; "
            "use energies and barriers of one model"
        )
    a = sp.diags_array(np.asarray(w_matrix.sum(axis=1)).ravel()) - w_matrix
    rhs = np.einsum("n,nk,nksx->nsx", pi, w, displacement).reshape(n, -1)
    y = _solve(a.tocsc(), w_matrix, rhs).reshape(n, displacement.shape[2], 3)
    moved = displacement + np.where((space.next_state >= 0)[..., None, None], y[space.next_state] - y[:, None], 0.0)
    matrix = 0.5 * np.einsum("n,nk,nkax,nkby->abxy", pi, w, moved, moved, optimize=True)
    bare = 0.5 * np.einsum("n,nk,nkax,nkby->abxy", pi, w, displacement, displacement, optimize=True)
    return matrix, bare, y


def _displacements(network: JumpNetwork, space: StateSpace) -> NDArray[np.float64]:
    """δx^a of every jump, shape (n_states, J, n_species, 3), Å."""
    moved = network.moving_species(space.occupations, space.carriers)
    dx = network.vectors[network.basis_of(space.carriers)]
    n_species = len(network.supercell.species) - 1
    hit = moved[..., None] == np.arange(1, n_species + 1)
    sign = 1.0 if network.mechanism == "interstitial" else -1.0
    return sign * hit[..., None] * dx[:, :, None, :]


def _solve(a: sp.csc_array, graph: sp.csr_array, rhs: NDArray) -> NDArray[np.float64]:
    """Solve the singular symmetric system, one constant per connected component fixed."""
    n = a.shape[0]
    n_parts, label = connected_components(graph, directed=False)
    y = np.zeros_like(rhs)
    if n <= DIRECT_LIMIT:
        first = np.array([np.flatnonzero(label == c)[0] for c in range(n_parts)])
        free = np.setdiff1d(np.arange(n), first)
        if len(free):
            y[free] = splu(a[free][:, free].tocsc()).solve(rhs[free])
        return y
    diagonal = a.diagonal()
    inverse = sp.diags_array(np.where(diagonal > 0, 1.0 / np.where(diagonal > 0, diagonal, 1.0), 0.0))
    for column in range(rhs.shape[1]):
        if np.abs(rhs[:, column]).max() == 0.0:
            continue
        solution, failed = cg(a, rhs[:, column], rtol=1e-11, maxiter=20_000, M=inverse)
        if failed:
            raise KinosonError(
                f"conjugate gradients did not converge in 20000 steps for {n} states; expected a connected state "
                "space; use a "
                "smaller cell"
            )
        y[:, column] = solution
    return y


def exact_tracer(
    network: JumpNetwork,
    source: Any,
    *,
    counts: Mapping[str, int] | None = None,
    temperature_K: float | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    limit: int = 5_000_000,
) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Return exact tracer coefficients Λ*_a and their bare values as tensors, shape (3, 3) each, Å²/s.

    One atom of the species is told apart from its kind by a species code of its own; Λ*_a is the number of atoms of
    the species
    times the coefficient of the tagged one.
    """
    cell = network.supercell
    given = _mobile_counts(cell, counts)
    result, bare = {}, {}
    for symbol, n in given.items():
        if n == 0:
            continue
        tagged = _TaggedCell.tag(cell, symbol)
        own = network.with_supercell(cell)
        own = replace(own, supercell=tagged)
        left = {**given, symbol: n - 1, _TaggedCell.mark: 1}
        space = StateSpace.enumerate(own, counts=left, limit=limit)
        plain = space.occupations.copy()
        plain[plain == len(cell.species)] = cell.species.index(symbol)
        rates = Rates.of(source, network, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
        shadow = _ShadowRates(rates, plain, space.carriers)
        logs = rates.log_weights(plain)
        weights = np.exp(logs - logs.max())
        matrix, zero, _ = exact_lambda(space, shadow, weights=weights / weights.sum())  # type: ignore[arg-type]
        result[symbol], bare[symbol] = n * matrix[-1, -1], n * zero[-1, -1]
    return result, bare


@dataclass(frozen=True, eq=False)
class _TaggedCell(Supercell):
    """A supercell with one more species code: the tagged atom."""

    tagged: str = ""
    mark = "tagged"

    @classmethod
    def tag(cls, cell: Supercell, symbol: str) -> _TaggedCell:
        return cls(cell.alloy, cell.matrix, symbol)

    @property
    def species(self) -> tuple[str, ...]:
        return (*self.alloy.species, self.mark)


@dataclass(frozen=True, eq=False)
class _ShadowRates:
    """Rates of the states with the tag removed."""

    rates: Rates
    occupations: NDArray
    carriers: NDArray

    def __call__(self, occupations: NDArray, carriers: NDArray) -> NDArray:
        del occupations, carriers
        return self.rates(self.occupations, self.carriers)


def _interstitial_species(cell: Supercell) -> str:
    return next(s.species[0] for s in cell.alloy.sublattices if s.interstitial)


def _mobile_counts(cell: Supercell, counts: Mapping[str, int] | None) -> dict[str, int]:
    total: dict[str, int] = {}
    for sub, own in zip(cell.alloy.sublattices, cell.counts, strict=True):
        if sub.mobile and not sub.interstitial:
            for s, n in own.items():
                total[s] = total.get(s, 0) + n
    if counts is None:
        return total
    n_sites = len(cell.mobile_sites) - 1
    if sum(counts.values()) != n_sites or min(counts.values()) < 0:
        raise KinosonError(
            f"found counts {dict(counts)}, {sum(counts.values())} atoms; expected {n_sites} on the mobile sites "
            "next to one "
            "vacancy; correct them"
        )
    return dict(counts)


def _pools(cell: Supercell, counts: Mapping[str, int] | None) -> list[tuple[NDArray, dict[str, int], bool]]:
    """Groups of sites whose occupants permute: the mobile sites (with the carrier), and each fixed sublattice."""
    pools: list[tuple[NDArray, dict[str, int], bool]] = []
    if not cell.alloy.is_interstitial:
        pools.append((cell.mobile_sites, _mobile_counts(cell, counts), True))
    for i, (sub, own) in enumerate(zip(cell.alloy.sublattices, cell.counts, strict=True)):
        if not sub.mobile:
            pools.append((np.flatnonzero(cell.sublattice == i), own, False))
    return pools


def _arrangements(n_sites: int, counts: Mapping[str, int]) -> int:
    total, left = 1, n_sites
    for n in counts.values():
        total, left = total * comb(left, n), left - n
    return total


def _multiset(n_sites: int, counts: Mapping[int, int]) -> Iterator[NDArray[np.int8]]:
    """All arrangements of species codes on ``n_sites`` sites; sites left over are empty."""
    order = sorted(counts.items(), key=lambda item: -item[1])
    if sum(counts.values()) == n_sites and order:
        fill, order = order[0][0], order[1:]
    else:
        fill = 0

    def place(values: NDArray, left: list[tuple[int, int]]) -> Iterator[NDArray]:
        if not left:
            yield values
            return
        code, n = left[0]
        free = np.flatnonzero(values == -1)
        for chosen in itertools.combinations(free, n):
            new = values.copy()
            new[list(chosen)] = code
            yield from place(new, left[1:])

    for values in place(np.full(n_sites, -1, dtype=np.int8), order):
        done = values.copy()
        done[done == -1] = fill
        yield done
