"""Exact transport coefficients of enumerable state spaces, by one sparse linear system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.rates import Rates, RateSource, check_total
from ase_kinoson.kinosons.assembly import assemble
from ase_kinoson.kinosons.functional import JumpTerms, bare_displacements
from ase_kinoson.kinosons.result import EXACT, Transport
from ase_kinoson.kinosons.state_space import StateSpace, mobile_counts
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.kinosons.wide_rates import Enclosed, enclose, is_wide, unseen
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["StateSpace", "exact_lambda", "exact_tracer", "exact_transport"]

DIRECT_LIMIT = 2_000
"""Largest state space solved by factorisation, whose factors are nearly dense; larger ones by conjugate gradients."""

DIRECT_WIDE = 8_000
"""The same where rates spread over many decades: conjugate gradients are slow there, and leave more over."""

TOLERANCE = 1e-11
"""Relative residual of conjugate gradients."""

MAX_STEPS = 50_000
"""Most steps of conjugate gradients."""

CACHED = 2**12
"""States whose displacements are listed at a time: they stay in the cache of a processor."""


def exact_transport(
    cell: Supercell,
    jumps: JumpNetwork,
    source: Any,
    temperature_K: float | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    vacancy_fraction: float | VacancyFraction | None = None,
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

    Notes
    -----
    D. R. Trinkle, Phys. Rev. Lett. 121, 235901 (2018): the minimum solves the Poisson equation of
    docs/theory.md#the-variational-principle.
    """
    if jumps.supercell != cell:
        jumps = jumps.with_supercell(cell)
    rates = Rates.of(source, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    space = StateSpace.enumerate(jumps, counts=counts, limit=limit)
    weights = space.weights(rates)
    solved = solve_exactly(space, rates, weights=weights)
    states = space.states(weights, ensemble="equilibrium", temperature_K=temperature_K, source="enumerated")
    bare = bare_displacements(jumps, space.occupations, space.carriers)
    displacement = solved.displacement(space, bare)
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
        settings={
            "attempt_frequency": attempt_frequency,
            "n_states": len(space),
            "source": type(source).__name__,
            **({} if solved.enclosed is None else {"decades_of_flow": round(solved.enclosed.decades, 1)}),
        },
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
    solved = solve_exactly(space, rates, weights=weights)
    return solved.matrix, solved.bare, solved.relaxation


@dataclass(frozen=True, eq=False)
class ExactSolution:
    """Solution of the Poisson equation of every species; see :func:`exact_lambda`.

    Attributes
    ----------
    matrix, bare : ndarray, shape (n_species, n_species, 3, 3)
        Å²/s.
    relaxation : ndarray, shape (n_states, n_species, 3)
        y, Å.
    enclosed : Enclosed or None
        Bounds and relaxed displacements where rates spread over many decades: there y is not told accurately enough.
    """

    matrix: NDArray[np.float64]
    bare: NDArray[np.float64]
    relaxation: NDArray[np.float64]
    enclosed: Enclosed | None

    def displacement(self, space: StateSpace, bare: NDArray) -> NDArray[np.float64]:
        """δx + Δy of every jump, Å, shape (n_states, J, n_species, 3).

        Parameters
        ----------
        space
            The states.
        bare : ndarray, shape (n_states, J, n_species, 3)
            δx, Å.
        """
        if self.enclosed is not None:
            return self.enclosed.tension
        y, valid = self.relaxation, (space.next_state >= 0)[..., None, None]
        return bare + np.where(valid, y[space.next_state] - y[:, None], 0.0)


def solve_exactly(
    space: StateSpace, rates: Rates, *, weights: NDArray | None = None, last: bool = False
) -> ExactSolution:
    """As :func:`exact_lambda`, with the relaxed displacements.

    Parameters
    ----------
    space, rates, weights
        As there.
    last
        Where rates spread over many decades, solve for the last species only; the rest of the matrix is 0.

    Raises
    ------
    KinosonError
        If rates spread so far that the solution cannot be told to 1e-9.
    ModelError
        If the rates break detailed balance.
    """
    pi = space.weights(rates) if weights is None else np.asarray(weights)
    n, n_species = len(space), len(space.network.supercell.species) - 1
    flow = np.empty(space.next_state.shape)
    rhs = np.empty((n, 3 * n_species))
    bare = np.zeros((3 * n_species, 3 * n_species))
    for part in _slices(n):
        w = np.where(space.next_state[part] >= 0, rates(space.occupations[part], space.carriers[part]), 0.0)
        flow[part] = pi[part, None] * w
        displacement = _displacements(space, part)
        rhs[part] = np.einsum("nk,nki->ni", flow[part], displacement)
        bare += _outer(flow[part], displacement)
    lost = unseen(flow, space.next_state >= 0, lambda rows: _barriers(space, rates, rows))
    _check_detailed_balance(space, flow)

    def tensors(x: NDArray) -> NDArray[np.float64]:
        return np.ascontiguousarray(x.reshape(n_species, 3, n_species, 3).transpose(0, 2, 1, 3))

    if is_wide(flow, lost):
        check_total(float(flow.sum()), allowed=True, has_barriers=lost is not None, temperature_K=rates.temperature_K)
        cells = space.jump_cells()
        if last:
            cells[:, :, :-1] = 0
        cell = space.network.supercell
        enclosed = enclose(
            space.next_state,
            flow,
            cells,
            lambda rows, k: _displacements(space, rows)[np.arange(len(rows)), k].reshape(len(rows), n_species, 3),
            vectors=cell.alloy.cell,
            projector=space.network.projector,
            names=cell.species[1:],
            carrier="vacancy" if space.network.mechanism == "vacancy" else "carrier",
            plain=partial(solve_poisson, direct=True if n <= DIRECT_WIDE else None),
            lost=lost,
        )
        return ExactSolution(enclosed.matrix, tensors(bare), enclosed.relaxation, enclosed)
    y = solve_poisson(space.next_state, flow, rhs)
    matrix = np.zeros_like(bare)
    for part in _slices(n):
        # padded jumps have no flow, whatever state −1 is
        matrix += _outer(flow[part], _displacements(space, part) + y[space.next_state[part]] - y[part, None])
    return ExactSolution(tensors(matrix), tensors(bare), y.reshape(n, n_species, 3), None)


def _barriers(space: StateSpace, rates: Rates, rows: NDArray) -> NDArray | None:
    energies = rates.energies(space.occupations[rows], space.carriers[rows])
    return None if energies is None or isinstance(rates.source, RateSource) else energies.barrier


def _slices(n: int) -> Iterator[slice]:
    return (slice(begin, min(begin + CACHED, n)) for begin in range(0, n, CACHED))


def _displacements(space: StateSpace, part: slice | NDArray) -> NDArray[np.float64]:
    """δx of every jump of some states, Å, shape (n, J, 3 n_species)."""
    bare = bare_displacements(space.network, space.occupations[part], space.carriers[part])
    return bare.reshape(*bare.shape[:2], -1)


def _outer(flow: NDArray, moved: NDArray) -> NDArray[np.float64]:
    """½ Σ flow · moved ⊗ moved over states and jumps."""
    flat = moved.reshape(-1, moved.shape[-1])
    return 0.5 * (flat * flow.reshape(-1, 1)).T @ flat


def _check_detailed_balance(space: StateSpace, flow: NDArray) -> None:
    """Compare the flow through every jump with the flow back."""
    basis, largest, worst = space.network.basis_of(space.carriers), max(flow.max(), 1e-300), 0.0
    for k in range(flow.shape[1]):
        back = flow[space.next_state[:, k], space.network.reverse[basis, k]]
        worst = max(worst, np.abs(np.where(space.next_state[:, k] >= 0, flow[:, k] - back, 0.0)).max())
    if worst > 1e-8 * largest:
        raise ModelError(
            f"the rates break detailed balance with the weights (relative {worst / largest:.1e}); expected "
            "π W symmetric; use energies and barriers of one model"
        )


def solve_poisson(
    next_state: NDArray, flow: NDArray, rhs: NDArray, *, direct: bool | None = None
) -> NDArray[np.float64]:
    """Solve Σ_k flow_k (y(χ) − y(χ_k)) = rhs; y is free up to a constant in each connected part.

    The unknowns are scaled by the square root of the total flow Γ of their states, which leaves I − P with P
    symmetric.

    Parameters
    ----------
    next_state : ndarray of int, shape (n_states, J)
        State after each jump; any where the flow is zero.
    flow : ndarray, shape (n_states, J)
        π W, equal for a jump and its reverse.
    rhs : ndarray, shape (n_states, m)
    direct
        Factorise, or iterate; default by the number of states. The factors of planar graphs stay sparse.

    Returns
    -------
    ndarray, shape (n_states, m)
    """
    n = len(flow)
    total = flow.sum(axis=1)
    scale = np.divide(1.0, np.sqrt(total), out=np.zeros(n), where=total > 0)
    matrix = transfer_matrix(next_state, flow, scale)
    label = connected_components(matrix, directed=False)[1]
    # rounding leaves a little along the constants, which no y can remove
    constant, scaled = np.sqrt(total), rhs * scale[:, None]
    norm = np.bincount(label, weights=total)
    for column in scaled.T:
        overlap = np.bincount(label, weights=constant * column)
        column -= constant * np.divide(overlap, norm, out=np.zeros_like(norm), where=norm > 0)[label]
    vectors, mixing = _independent(scaled)
    if vectors.shape[1] == 0:
        return np.zeros_like(rhs)
    if direct is None:
        direct = n <= DIRECT_LIMIT
    solved = _factorise(matrix, label, vectors) if direct else _conjugate_gradients(matrix, vectors)
    return (solved * scale[:, None]) @ mixing


def transfer_matrix(next_state: NDArray, flow: NDArray, scale: NDArray) -> sp.csr_array:
    """P = Γ^(−1/2) (π W) Γ^(−1/2), symmetric, shape (n_states, n_states)."""
    n = len(flow)
    keep = flow > 0  # a rate of zero connects nothing
    ends = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int32 if flow.size < 2**31 else np.int64)
    columns = next_state[keep]
    values = flow[keep]
    values *= scale[columns]
    values *= np.repeat(scale, np.diff(ends))
    return sp.csr_array((values, columns.astype(ends.dtype, copy=False), ends), shape=(n, n))


def _independent(rhs: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal columns and the coefficients that give the right-hand sides back, shapes (n, r) and (r, m).

    Right-hand sides are often dependent: with one rate per species those of all species sum to zero when divided by
    the rates, and a flat lattice has none along its normal.
    """
    norm = np.linalg.norm(rhs, axis=0)
    scaled = rhs / np.where(norm > 0, norm, 1.0)
    q, r = np.linalg.qr(scaled)
    left, size, right = np.linalg.svd(r)
    rank = int((size > 1e-13 * len(norm)).sum())
    return q @ left[:, :rank], size[:rank, None] * right[:rank] * norm


def _factorise(matrix: sp.csr_array, label: NDArray, rhs: NDArray) -> NDArray[np.float64]:
    """Solve (I − P) x = rhs with x = 0 in the first state of every connected part."""
    n = len(rhs)
    first = np.unique(label, return_index=True)[1]
    free = np.setdiff1d(np.arange(n), first)
    if len(free) == 0:
        return np.zeros_like(rhs)
    solution = np.zeros_like(rhs)
    a = (sp.eye_array(n, format="csr") - matrix)[free][:, free]
    # positive definite: the diagonal serves as pivots
    factors = splu(a.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    solution[free] = factors.solve(rhs[free])
    return solution


def _conjugate_gradients(matrix: sp.csr_array, rhs: NDArray) -> NDArray[np.float64]:
    """Solve (I − P) x = rhs, all columns side by side, each with steps of its own.

    A search space shared by the columns saves few steps and breaks down where symmetry lets one column end early.
    """
    residual = np.array(rhs.T, order="C")  # one column after the other in memory
    x = np.zeros_like(residual)
    size = np.einsum("in,in->i", residual, residual)
    goal = size * TOLERANCE**2
    direction = residual.copy()
    image = np.empty_like(residual)
    for _ in range(MAX_STEPS):
        active = size > goal
        if not active.any():
            return np.ascontiguousarray(x.T)
        for one, own in zip(image, direction, strict=True):
            np.subtract(own, matrix @ own, out=one)
        curvature = np.einsum("in,in->i", direction, image)
        active &= curvature > 0
        step = np.divide(size, curvature, out=np.zeros_like(size), where=active)[:, None]
        x += step * direction
        image *= step
        residual -= image
        new = np.einsum("in,in->i", residual, residual)
        direction *= np.divide(new, size, out=np.zeros_like(size), where=active)[:, None]
        direction += residual
        size = new
    raise KinosonError(
        f"conjugate gradients did not converge in {MAX_STEPS} steps for {len(rhs)} states; expected rates of similar "
        "size; use a smaller cell"
    )


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
        rates = Rates.of(source, network, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
        shadow = _ShadowRates(rates, len(cell.species), cell.species.index(symbol))
        solved = solve_exactly(space, shadow, last=True)  # type: ignore[arg-type]
        result[symbol], bare[symbol] = n * solved.matrix[-1, -1], n * solved.bare[-1, -1]
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
    """Rates and weights of the states with the tag removed."""

    rates: Rates
    tagged: int
    plain: int

    def _untag(self, occupations: NDArray) -> NDArray:
        return np.where(occupations == self.tagged, np.int8(self.plain), occupations)

    def __call__(self, occupations: NDArray, carriers: NDArray) -> NDArray:
        return self.rates(self._untag(occupations), carriers)

    def energies(self, occupations: NDArray, carriers: NDArray) -> JumpEnergies | None:
        return self.rates.energies(self._untag(occupations), carriers)

    def log_weights(self, occupations: NDArray) -> NDArray:
        return self.rates.log_weights(self._untag(occupations))

    @property
    def source(self) -> Any:
        return self.rates.source

    @property
    def temperature_K(self) -> float | None:
        return self.rates.temperature_K
