"""One carrier among atoms that never move: exact transport in every frozen arrangement of a large cell.

An interstitial in a frozen host, or a vacancy among atoms of one kind and blocked ones, finds the same surroundings
whenever it returns to a site. The states of one arrangement are then the positions of the carrier, and the optimal y is
one vector per site: a resistor network with the conductances π_i W_ij, whose node potentials are y (Kirchhoff 1847;
Haus and Kehr, Phys. Rep. 150, 263 (1987)). One sparse solve gives Λ and every kinoson of the arrangement exactly;
averages over arrangements have errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.rates import Rates, RateSource, check_total
from ase_kinoson.kinosons.coefficients import Averages, Composition, coefficients
from ase_kinoson.kinosons.frozen_arrangement import FrozenArrangement
from ase_kinoson.kinosons.result import EXACT, Transport
from ase_kinoson.kinosons.site_graph import SiteGraph
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.kinosons.verdict import ENUMERATED, heavy_share, rates_of_states
from ase_kinoson.kinosons.wide_rates import unseen, warn_of_unseen
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S, DEFAULT_ATTEMPT_FREQUENCY, thermal_energy

__all__ = ["StaticTransport", "static_transport"]

SAMPLED = "exact arrangements"
"""Kind of a number that is exact in every arrangement and whose error comes from sampling them."""

BUFFER = 2**25
"""Entries of the occupations that rates are asked for at a time; bounds memory."""


@dataclass(frozen=True, eq=False)
class StaticTransport(Transport):
    """Transport of one carrier in frozen arrangements; see :class:`Transport` for the rest.

    The carrier starts anywhere with its equilibrium weight, also in finite clusters, unless said otherwise.
    ``collective_correlation_factor["vacancy"]`` (or ``"carrier"``) is long-time over short-time diffusivity.

    Attributes
    ----------
    short_time_diffusivity : Quantity
        Λ with y = 0, m²/s.
    percolating_diffusivity : Quantity
        Of a carrier that starts in a cluster that wraps around the cell, m²/s; NaN where there is none.
    percolating_share : Quantity
        Weight of the positions in such clusters, 0 to 1; no unit.
    wrapping_probability : Quantity
        Share of arrangements that have such a cluster; no unit.
    n_arrangements : int
        Different arrangements that were solved.
    """

    short_time_diffusivity: Quantity = field(default_factory=lambda: Quantity(np.nan, np.nan, "m^2/s", EXACT))
    percolating_diffusivity: Quantity = field(default_factory=lambda: Quantity(np.nan, np.nan, "m^2/s", EXACT))
    percolating_share: Quantity = field(default_factory=lambda: Quantity(np.nan, np.nan, "1", EXACT))
    wrapping_probability: Quantity = field(default_factory=lambda: Quantity(np.nan, np.nan, "1", EXACT))
    n_arrangements: int = 0

    def numbers(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        names = ("short_time_diffusivity", "percolating_diffusivity", "percolating_share", "wrapping_probability")
        own = {name: getattr(self, name).as_dict() for name in names}
        return {**super().numbers(), **own, "n_arrangements": self.n_arrangements}


def static_transport(
    states: States,
    jumps: JumpNetwork,
    source: Any,
    temperature_K: float | None = None,
    *,
    moving: str | None = None,
    vacancy_fraction: float | VacancyFraction | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    kinosons: bool = True,
    n_resamples: int = 400,
    seed: int = 0,
    progress: bool = False,
) -> StaticTransport:
    """Solve for one carrier among atoms that never move: every arrangement exactly, whatever the size of the cell.

    For an interstitial in a frozen host, and for a vacancy that meets atoms of one kind and blocked ones (rate 0).
    Atoms of the kind that moves are alike, so the vacancy's own motion is the static problem; that of single atoms is
    not: for a vacancy there are no tracer coefficients in the result (see :func:`run_kmc`).

    Parameters
    ----------
    states
        Each gives the arrangement around its carrier. The carrier's position is averaged over exactly: what counts is
        the weight of the arrangement. Equilibrium states give the average over hosts at equilibrium with the carrier;
        random ones the quenched average.
    jumps
        Jumps of the carrier.
    source
        A barrier model or a lattice gas that knows all positions of the carrier.
    temperature_K
        K; not needed for a lattice gas that gives rates.
    moving
        Kind of atoms that a vacancy exchanges with; default: whose jumps have a rate above zero in ``states``.
    vacancy_fraction, attempt_frequency
        As in :func:`transport`.
    kinosons
        Also make the table of kinosons; without it memory and time are less.
    n_resamples, seed
        Of the errors, which come from resampling groups of states; NaN for a single group.
    progress
        Show a progress bar.

    Returns
    -------
    StaticTransport
        Kind ``"exact arrangements"``: exact in each, with the error of sampling them. ``"exact"`` with error 0 if the
        states are the whole state space.

    Raises
    ------
    KinosonError
        If atoms of several kinds move.
    ModelError
        If the rates break detailed balance, or clusters of sites that no jump connects have unequal sites and no
        energies that tell how they weigh.

    Notes
    -----
    Derivation: docs/derivations.md#frozen-surroundings-are-a-network-of-resistors; see also J. W. Haus and K. W. Kehr,
    Phys. Rep. 150, 263 (1987).
    """
    rates, temperature_K = rates_of_states(
        states, jumps, source, temperature_K=temperature_K, attempt_frequency=attempt_frequency
    )
    solver = _Solver(SiteGraph.of(jumps), rates, _moving_code(states, rates, moving))
    known: dict[bytes, int] = {}
    which = np.empty(len(states), dtype=np.int64)
    frozen = [solver.background(o, int(c)) for o, c in zip(states.occupations, states.carriers, strict=True)]
    for i, background in enumerate(frozen):
        which[i] = known.setdefault(background.tobytes(), len(known))
    ensemble = "equilibrium" if states.ensemble == "equilibrium" else "quenched"
    share = np.bincount(which, weights=states.weights)
    first = np.unique(which, return_index=True)[1]
    rows, parts = [], []
    for a in tqdm(range(len(known)), desc="arrangements", disable=not progress):
        solved = solver.solve(frozen[first[a]])
        own = solved.percolating_share
        rows.append((solved.matrix, solved.bare, own, float(len(solved.clusters.rings) > 0)))
        if kinosons:
            group = a if ensemble == "quenched" else int(states.groups[first[a]])
            parts.append(solver.columns(frozen[first[a]], solved, share[a], group, a * len(solver.graph)))
    matrix, bare, inside, wraps = (np.array(column)[which] for column in zip(*rows, strict=True))
    enumerated = states.source == ENUMERATED
    kind = EXACT if enumerated else SAMPLED
    boot = None
    if not enumerated:
        boot = Bootstrap.over(states.weights, states.groups, n_resamples=n_resamples, seed=seed)

    def average(x: NDArray) -> NDArray:
        return np.tensordot(states.weights, x, axes=(0, 0))[None] if boot is None else boot.rows(x)

    composition = Composition.of(states)
    n, at = len(composition.species), composition.species.index(jumps.supercell.species[solver.moving])
    collective, collective_bare = (np.zeros((len(average(matrix)), n, n, 3, 3)) for _ in range(2))
    collective[:, at, at], collective_bare[:, at, at] = average(matrix), average(bare)
    alone = jumps.mechanism == "interstitial"  # one atom is its own tracer
    averages = Averages(
        collective,
        collective_bare,
        np.einsum("raaxy->raxy", collective) if alone else None,
        np.einsum("raaxy->raxy", collective_bare) if alone else None,
        has_errors=boot is not None and boot.has_errors,
        exact=enumerated,
    )
    scale = ANGSTROM2_PER_S_TO_M2_PER_S / jumps.dimension
    long = np.einsum("rxy,xy->r", averages.vacancy, jumps.projector)
    short = np.einsum("rxy,xy->r", averages.vacancy_bare, jumps.projector)
    starts = average(inside)
    size, largest = heavy_share(states.weights * np.einsum("nxy,xy->n", matrix, jumps.projector), states.groups)
    table = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]} if parts else {}
    return StaticTransport(
        **coefficients(
            averages,
            jumps,
            composition,
            kind=kind,
            temperature_K=temperature_K,
            vacancy_fraction=vacancy_fraction,
        ),
        kinosons=KinosonTable(table, {key: _UNITS[key.split("_")[0]] for key in table if key.split("_")[0] in _UNITS}),
        drift=None,
        ensemble=ensemble,
        effective_sample_size=float(share.sum() ** 2 / np.square(share).sum()),
        contribution_sample_size=size,
        largest_share=largest,
        n_states=len(states),
        n_barriers=len(known) * int((solver.graph.targets >= 0).sum()),
        n_rejected=0,
        settings={
            "attempt_frequency": rates.attempt_frequency,
            "n_arrangements": len(known),
            "n_resamples": n_resamples,
            "seed": seed,
            "source": type(source).__name__,
            "states_source": states.source,
        },
        short_time_diffusivity=averages.quantity(short, scale=scale, unit="m^2/s", kind=kind),
        percolating_diffusivity=averages.quantity(
            np.divide(long, starts, out=np.full_like(long, np.nan), where=starts > 0),
            scale=scale,
            unit="m^2/s",
            kind=kind,
        ),
        percolating_share=averages.quantity(starts, unit="1", kind=kind),
        wrapping_probability=averages.quantity(average(wraps), unit="1", kind=kind),
        n_arrangements=len(known),
    )


_UNITS = {
    "weight": "1",
    "barrier": "eV",
    "delta": "eV",
    "rate": "1/s",
    "uncorrelated": "Å^2/s",
    "displacement": "Å",
    "kinoson": "Å^2/s",
    "tracer": "Å^2/s",
}


def _moving_code(states: States, rates: Rates, moving: str | None) -> int:
    """Species code of the atoms that move."""
    network, names = rates.network, states.supercell.species
    if network.mechanism == "interstitial":
        return int(states.occupations[0, states.carriers[0]])
    held = np.unique(states.occupations[:, network.supercell.mobile_sites])
    candidates = {int(c) for c in held if c > 0}
    if moving is not None:
        if moving not in [names[c] for c in candidates]:
            raise KinosonError(
                f"found moving={moving!r}; expected one of {[names[c] for c in sorted(candidates)]}, the atoms on the "
                "mobile sites; correct it"
            )
        return names.index(moving)
    if len(candidates) > 1:
        w = rates(states.occupations, states.carriers)
        candidates = set(np.unique(network.moving_species(states.occupations, states.carriers)[w > 0]).tolist())
    if len(candidates) != 1:
        _refuse([names[c] for c in sorted(candidates)])
    return candidates.pop()


def _refuse(found: list[str]) -> None:
    """Say that the problem is not a static one."""
    if not found:
        raise KinosonError(
            "found no jump with a rate above 0 in these states; expected atoms of one kind that move; name them with "
            "moving="
        )
    raise KinosonError(
        f"found jumps of {' and '.join(found)} with rates above 0; expected atoms of one kind that move among frozen "
        "ones, whose positions are all states; use run_kmc, or transport with a relaxation"
    )


@dataclass(frozen=True, eq=False)
class _Solver:
    """Weights and rates of all positions of the carrier in an arrangement.

    Attributes
    ----------
    graph : SiteGraph
    rates : Rates
    moving : int
        Species code of what moves: the interstitial, or the atoms that a vacancy exchanges with.
    """

    graph: SiteGraph
    rates: Rates
    moving: int

    @property
    def _vacancy(self) -> bool:
        return self.graph.network.mechanism == "vacancy"

    def background(self, occupation: NDArray, carrier: int) -> NDArray[np.int8]:
        """Occupation without the carrier, shape (n_sites,): what all of its positions have in common."""
        frozen = occupation.copy()
        frozen[carrier] = self.moving if self._vacancy else 0
        return frozen

    def solve(self, background: NDArray) -> FrozenArrangement:
        """Find weights and flows."""
        graph, opened = self.graph, self._open(background)
        w = np.zeros(graph.targets.shape)
        for part, occupations in self._positions(background, np.flatnonzero(opened)):
            w[part] = self.rates(occupations, graph.sites[part])
            mover = graph.network.moving_species(occupations, graph.sites[part])
            others = np.unique(mover[(w[part] > 0) & (mover != self.moving)])
            if len(others):
                names = graph.network.supercell.species
                _refuse([names[c] for c in sorted({self.moving, *others.tolist()})])
        faint = self._faint(background, opened, w)
        if faint is not None:
            w = np.where(faint | graph.back(faint), 0.0, w)
            warn_of_unseen(int(faint.sum()))
        back = graph.back(w)
        bonds = w > 0
        if np.any(bonds != (back > 0)):
            _unbalanced("a jump without its reverse")
        # π_i W_ij = π_j W_ji along a tree from the root of every cluster
        parent = graph.forest(bonds)
        every = np.arange(len(graph))
        safe = np.where(bonds[every, parent], parent, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.log(back[every, safe]) - np.log(w[every, safe])
        logs = graph.accumulate(parent, np.where(parent >= 0, step, 0.0))
        clusters = graph.clusters(bonds)
        roots = np.flatnonzero((parent < 0) & opened)
        known = getattr(self.rates.source, "energy", None) is not None
        if len(roots) > 1 and not known and np.abs(logs).max() > 1e-9:
            raise ModelError(
                f"found {len(roots)} clusters of sites that no jump connects, rates that favour some sites, and no "
                "energies; expected energies, which tell how the clusters weigh; pass a model that has them"
            )
        if len(roots) > 1 and known:
            offset = np.zeros(clusters.n_clusters)
            for part, occupations in self._positions(background, roots):
                offset[clusters.label[part]] = self.rates.log_weights(occupations)
            logs = logs + offset[clusters.label]
        weights = np.where(opened, np.exp(logs - logs[opened].max()), 0.0)
        weights /= weights.sum()
        flow = weights[:, None] * w
        kelvin = self.rates.temperature_K
        check_total(float(flow.sum()), allowed=True, has_barriers=faint is not None, temperature_K=kelvin)
        gap = np.abs(flow - graph.back(flow)).max(initial=0.0)
        if gap > 1e-8 * flow.max(initial=0.0):
            _unbalanced(f"relative {gap / flow.max():.1e}")
        return FrozenArrangement(graph, weights, 0.5 * (flow + graph.back(flow)), clusters)

    def _faint(self, background: NDArray, opened: NDArray, w: NDArray) -> NDArray[np.bool_] | None:
        """Jumps that a finite barrier allows and whose rate is too small for a number, shape (n, J)."""
        where = np.flatnonzero(opened)
        # on the way to a blocked site there is no jump
        exists = self.graph.both_open(opened)

        def barriers(rows: NDArray) -> NDArray | None:
            found = []
            for part, occupations in self._positions(background, where[rows]):
                energies = self.rates.energies(occupations, self.graph.sites[part])
                if energies is None or isinstance(self.rates.source, RateSource):
                    return None
                found.append(energies.barrier)
            return np.concatenate(found)

        faint = unseen(w[where], exists[where], barriers)
        if faint is None:
            return None
        whole = np.zeros(w.shape, dtype=bool)
        whole[where] = faint
        return whole

    def columns(
        self, background: NDArray, solved: FrozenArrangement, weight: float, group: int, first: int
    ) -> dict[str, NDArray[Any]]:
        """Rows of the table of kinosons: all jumps of all positions of one arrangement."""
        graph, network = self.graph, self.graph.network
        opened = self._open(background)
        rows, k = np.nonzero((graph.targets >= 0) & opened[:, None])
        barrier, delta = np.full(graph.targets.shape, np.nan), np.full(graph.targets.shape, np.nan)
        state_energy = np.full(len(graph), np.nan)
        if self.rates.energies(*self._one(background, opened)) is not None:
            for part, occupations in self._positions(background, np.flatnonzero(opened)):
                energies = self.rates.energies(occupations, graph.sites[part])
                assert energies is not None
                barrier[part], delta[part] = energies.barrier, energies.delta_e
            occupations, _ = self._one(background, opened)
            zero = self.rates.state_energies(occupations)
            thermal = thermal_energy(self.rates.temperature_K or 0.0)
            with np.errstate(divide="ignore"):
                relative = -thermal * (np.log(solved.weights) - np.log(solved.weights[np.flatnonzero(opened)[0]]))
            state_energy = relative + (0.0 if zero is None else float(zero[0]))
        d2 = 2.0 * network.dimension
        own, along = solved.weights[rows], network.projector
        w = np.divide(solved.flow[rows, k], own, out=np.zeros(len(rows)), where=own > 0)
        moved = solved.displacement[rows, k] @ along
        kinoson = w * np.square(moved).sum(axis=-1) / d2
        symbol = network.supercell.species[self.moving]
        columns: dict[str, NDArray[Any]] = {
            "state": first + rows,
            "jump": k,
            "weight": weight * own,
            "group": np.full(len(rows), group),
            "species": np.full(len(rows), symbol),
            "barrier": barrier[rows, k],
            "delta_e": delta[rows, k],
            "state_energy": state_energy[rows],
            "rate": w,
            "uncorrelated": w * np.square(graph.vectors[rows, k] @ along).sum(axis=-1) / d2,
            "displacement": np.linalg.norm(moved, axis=-1),
            "kinoson_vacancy" if self._vacancy else "kinoson_carrier": kinoson,
            f"kinoson_{symbol}": kinoson,
        }
        if not self._vacancy:
            columns[f"tracer_{symbol}"] = kinoson
        return columns

    def _open(self, background: NDArray) -> NDArray[np.bool_]:
        """Sites that the carrier may be on, shape (n,)."""
        if self._vacancy:
            return background[self.graph.sites] == self.moving
        return np.ones(len(self.graph), dtype=bool)

    def _one(self, background: NDArray, opened: NDArray) -> tuple[NDArray, NDArray]:
        part, occupations = next(self._positions(background, np.flatnonzero(opened)[:1]))
        return occupations, self.graph.sites[part]

    def _positions(self, background: NDArray, where: NDArray) -> Iterator[tuple[NDArray, NDArray]]:
        """Occupations with the carrier on given sites, some at a time, in one buffer that is used again."""
        chunk = max(1, min(len(where), BUFFER // len(background)))
        buffer = np.repeat(background[None], chunk, axis=0)
        for begin in range(0, len(where), chunk):
            part = where[begin : begin + chunk]
            here = np.arange(len(part)), self.graph.sites[part]
            buffer[here] = 0 if self._vacancy else self.moving
            yield part, buffer[: len(part)]
            buffer[here] = background[here[1]]


def _unbalanced(what: str) -> None:
    raise ModelError(
        f"the rates break detailed balance ({what}); expected π W symmetric; use energies and barriers of one model"
    )
