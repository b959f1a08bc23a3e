"""Exact transport coefficients of enumerable state spaces, by one sparse linear system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg, splu

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.assembly import assemble
from ase_kinoson.kinosons.functional import JumpTerms, bare_displacements
from ase_kinoson.kinosons.result import EXACT, Transport
from ase_kinoson.kinosons.state_space import StateSpace, mobile_counts
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["StateSpace", "exact_lambda", "exact_tracer", "exact_transport"]

DIRECT_LIMIT = 20_000
"""Largest state space solved by factorisation; larger ones by conjugate gradients."""


def exact_transport(
    cell: Supercell,
    jumps: JumpNetwork,
    source: Any,
    temperature_K: float | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    vacancy_fraction: float | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    tracers: bool = True,
    limit: int = 2_000_000,
) -> Transport:
    """Enumerate all states of a small cell and solve for the exact coefficients.

    Parameters
    ----------
    cell, jumps
        Supercell and its jumps.
    source
        Barrier model or lattice gas.
    temperature_K
        K; not needed for a lattice gas that gives rates.
    counts
        Atoms of each species on the mobile sites; default from the composition.
    vacancy_fraction, attempt_frequency
        As in :func:`transport`.
    tracers
        Also solve for the tracers (as many times more states as a species has atoms).
    limit
        Largest number of states.
    """
    if jumps.supercell != cell:
        jumps = jumps.with_supercell(cell)
    rates = Rates.of(source, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    space = StateSpace.enumerate(jumps, counts=counts, limit=limit)
    weights = space.weights(rates)
    _, _, y = exact_lambda(space, rates, weights=weights)
    states = space.states(weights, ensemble="equilibrium", temperature_K=temperature_K, source="enumerated")
    bare = bare_displacements(jumps, space.occupations, space.carriers)
    valid = (space.next_state >= 0)[..., None, None]
    displacement = bare + np.where(valid, y[space.next_state] - y[:, None], 0.0)
    tracer = bare[..., :, None] * bare[..., None, :]
    exact_values = None
    if tracers and jumps.mechanism == "vacancy":
        exact_values, _ = exact_tracer(
            jumps, source, counts=counts, temperature_K=temperature_K, attempt_frequency=attempt_frequency, limit=limit
        )
    elif jumps.mechanism == "interstitial":
        tracer = displacement[..., :, None] * displacement[..., None, :]
    return assemble(
        states,
        jumps,
        rates(space.occupations, space.carriers),
        rates.energies(space.occupations, space.carriers),
        JumpTerms(displacement, tracer, bare),
        None,
        kind=EXACT,
        temperature_K=temperature_K,
        vacancy_fraction=vacancy_fraction,
        drift=None,
        n_rejected=0,
        relaxation=None,
        settings={"attempt_frequency": attempt_frequency, "n_states": len(space), "source": type(source).__name__},
        exact_tracers=exact_values,
        state_energies=rates.state_energies(space.occupations),
        with_tracers=tracers or jumps.mechanism == "interstitial",
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
    displacement = bare_displacements(network, space.occupations, space.carriers)
    rows = np.repeat(np.arange(n), n_jumps)
    columns = space.next_state.ravel()
    keep = columns >= 0
    flow = (pi[:, None] * w).ravel()
    w_matrix = sp.coo_array((flow[keep], (rows[keep], columns[keep])), shape=(n, n)).tocsr()
    w_matrix.eliminate_zeros()  # a rate of zero connects nothing
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
    given = mobile_counts(cell, counts)
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
