"""Transport coefficients of more states than fit into memory: chunk by chunk, with sums per group of states.

Averages, their resamples, the drift and the diagnostics of a result need nothing of the single states but sums over
the states of each group, so that it does not matter how many states there are. Kinosons go to files as they come.
"""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.barriers.workers import _size as n_workers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonWarning, StatesError
from ase_kinoson.kinetics.rates import Rates, RateSource, check_total
from ase_kinoson.kinetics.resampling import draw_groups, standard_error
from ase_kinoson.kinetics.weights import NEGLIGIBLE, EnergyDrift
from ase_kinoson.kinosons.assembly import pair_terms, rates_and_energies, tracer_terms
from ase_kinoson.kinosons.coefficients import Averages, Composition, coefficients
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.group_sums import MAX_GROUPS, GroupSums
from ase_kinoson.kinosons.kinoson_files import close_folder, empty_folder, write_table
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, NO_BOUND, Transport
from ase_kinoson.kinosons.state_chunks import Chunk, with_total
from ase_kinoson.kinosons.statistics import rows_of_sums
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.kinosons.transport import carried_without_barrier, check_relaxation, doubts
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.kinosons.verdict import check_temperature, heavy_share, judge, rates_of_states
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["stream_transport"]

PIECE = 2048
"""States evaluated at a time, whatever the size of a chunk: some 40 MB with five species."""


def stream_transport(
    chunks: Iterable[Chunk],
    jumps: JumpNetwork,
    barriers: Any,
    relaxation: Relaxation | None = None,
    temperature_K: float | None = None,
    *,
    vacancy_fraction: float | VacancyFraction | None = None,
    kinosons: str | Path | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    n_resamples: int = 400,
    seed: int = 0,
    max_groups: int = MAX_GROUPS,
    executor: Executor | None = None,
    progress: bool = False,
) -> Transport:
    """As :func:`transport`, of states that come in chunks: any number of them in the same memory.

    Parameters
    ----------
    chunks : iterable of States, or of (States, float)
        From a generator, from files (:func:`read_states`) or from a sampler (:func:`sample_chunks`). The weights of
        ``States`` sum to 1 in each chunk. The number beside them is their sum in a unit common to all chunks; without
        it a chunk weighs as many as it has states, which is right for states that were drawn with equal weights.
        States whose groups have equal numbers are one group, also from chunk to chunk.
    jumps
        Jumps of the carrier.
    barriers
        Barrier model, lattice gas, or reference barriers of all these states.
    relaxation
        Any relaxation y; None means y = 0.
    temperature_K
        K.
    vacancy_fraction
        Site fraction of vacancies, as in :func:`transport`.
    kinosons
        Folder for the kinosons, which :func:`read_kinosons` reads; workers must be able to write there. None: they are
        not kept.
    attempt_frequency
        s⁻¹; one number for all jumps.
    n_resamples, seed
        Bootstrap over groups of states.
    max_groups
        Largest number of groups whose sums are kept. With more of them, groups are pooled into blocks, to which they
        belong as if by chance: averages stay the same, and errors are those of blocks of groups, as true, and sure to
        about 1/√(2 · ``max_groups``). ``contribution_sample_size`` and ``largest_share`` are then those of blocks too.
    executor
        Any ``concurrent.futures.Executor``, such as that of a dask client: chunks are evaluated by its workers, and a
        few are on the way at any time. The numbers are the same to the last bit. A worker that dies ends the call with
        the error of the executor, and leaves a folder of kinosons that is not whole and is refused.
    progress
        Show a bar.

    Returns
    -------
    Transport
        The numbers of :func:`transport` of all states at once, to rounding. Its table of kinosons has no rows, and
        ``states`` is None.

    Raises
    ------
    StatesError
        If there are no chunks, they do not belong together, or states and jumps do not; or if several chunks were
        reweighted, each on its own, and come without the sums of their weights.
    BarrierError
        If a state has no barriers.
    KinosonError
        If the folder for kinosons holds some already.

    Notes
    -----
    A resample of groups draws each group c_g times: its mean is Σ_g c_g S_g / Σ_g c_g W_g with S_g and W_g the sums of
    weight times value and of weight in the group (Efron and Tibshirani 1993); docs/scaling.md#states-in-chunks.
    """
    check_relaxation(relaxation, jumps)
    folder = None if kinosons is None else empty_folder(kinosons)
    job: _Job | None = None
    found = _Sums.none(jumps, max_groups)

    def calls() -> Iterator[tuple[States, float, int, int]]:
        """Chunks that are not empty, with the number of states before each, and its own number."""
        nonlocal job
        before = number = own_norm = 0
        for chunk in chunks:
            states, total = with_total(chunk)
            if not len(states):
                continue
            own_norm += chunk is states and states.ensemble == "equilibrium" and bool(states.report.get("reweighted"))
            if own_norm > 1:
                raise StatesError(
                    "found chunks of reweighted states without the sums of their weights; expected pairs of states and "
                    "the sum of exp(-(E_ref - E_model)/k_BT) over them, in a unit common to all; yield these, or cut "
                    "states that were reweighted together with split_states()"
                )
            if job is None:
                rates, kelvin = rates_of_states(
                    states, jumps, barriers, temperature_K=temperature_K, attempt_frequency=attempt_frequency
                )
                first = states[: min(len(states), 64)]
                job = _Job(jumps, rates, kelvin, barriers, relaxation, first, max_groups, folder)
            yield states, total, before, number
            before, number = before + len(states), number + 1

    with tqdm(desc="states", unit="state", disable=not progress) as bar:
        for part in _in_order(calls(), lambda *call: (_evaluate, job, *call), executor):
            found.merge(part)
            bar.update(part.n)
    if job is None:
        raise StatesError("found no states in the chunks; expected at least one; a generator can be used up once")
    if found.table is None:
        raise StatesError("found chunks that weigh nothing; expected a sum of weights above 0; correct their sums")
    result, reasons = job.result(found, vacancy_fraction=vacancy_fraction, n_resamples=n_resamples, seed=seed)
    if folder is not None:
        close_folder(folder, weight=found.weight, files=found.files, units=found.table.units)
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
    return result


@dataclass(eq=False)
class _Sums:
    """All that is kept of some states.

    ``groups`` holds per group: weight, pairs, pairs with y = 0, tracers, energy gained and its size by species.
    ``bare``: contributions without relaxation, Å²/s times weight, of jumps with a barrier of 0 or less, and of all.
    """

    groups: GroupSums
    present: NDArray[np.bool_]
    live: NDArray[np.bool_]
    atoms: NDArray[np.float64]
    weight: float = 0.0
    squares: float = 0.0
    n: int = 0
    n_jumps: int = 0
    rejected: int = 0
    escape: float = 0.0
    bare: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    n_bare: int = 0
    lowest: float = 0.0
    files: int = 0
    has_energies: bool = False
    kind: str = BOUND
    reasons: dict[KinosonWarning, int] = field(default_factory=dict)
    table: KinosonTable | None = None

    @classmethod
    def none(cls, jumps: JumpNetwork, max_groups: int) -> _Sums:
        n = len(_mobile(jumps))
        return cls(GroupSums(max_groups), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool), np.zeros(n))

    def weaken(self, kind: str, reasons: Iterable[KinosonWarning]) -> None:
        """Keep the weaker kind, and count the reasons; those that differ in their numbers only are told once."""
        self.kind = max(self.kind, kind, key=(BOUND, ESTIMATE, NO_BOUND).index)
        told = {_wording(known): known for known in self.reasons}
        for reason in reasons:
            known = told.setdefault(_wording(reason), reason)
            self.reasons[known] = self.reasons.get(known, 0) + 1

    def merge(self, other: _Sums) -> None:
        """Add what is known of other states."""
        self.groups.merge(other.groups)
        self.present |= other.present
        self.live |= other.live
        self.atoms += other.atoms
        for name in ("weight", "squares", "n", "n_jumps", "rejected", "escape", "bare", "n_bare", "files"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lowest = min(self.lowest, other.lowest)
        self.has_energies |= other.has_energies
        self.weaken(other.kind, [reason for reason, times in other.reasons.items() for _ in range(times)])
        if self.table is None:
            self.table = other.table


@dataclass(frozen=True, eq=False)
class _Job:
    """What all chunks share."""

    jumps: JumpNetwork
    rates: Rates
    temperature_K: float | None
    barriers: Any
    relaxation: Relaxation | None
    first: States
    max_groups: int
    folder: Path | None

    def piece(self, states: States, total: float, part: slice, row: int, names: tuple[int, int], found: _Sums) -> None:
        """Add the states of a slice; ``row``: number of the first among all, ``names``: of its file."""
        occupations, carriers, jumps = states.occupations[part], states.carriers[part], self.jumps
        weights = states.weights[part] * total
        codes, n = _mobile(jumps), len(weights)
        w, energies = rates_and_energies(self.rates, occupations, carriers)
        terms = jump_terms(self.relaxation, occupations, carriers, network=jumps)
        exists = jumps.exists[jumps.basis_of(carriers)]
        drift = np.zeros((n, 2, len(codes)))
        if energies is not None:
            found.has_energies = True
            found.rejected += int((exists & ~np.isfinite(energies.barrier)).sum())
            own = exists & (energies.barrier <= 0.0)
            along = jumps.vectors[jumps.basis_of(carriers)] @ jumps.projector
            part_of = w * np.square(along).sum(axis=-1) * weights[:, None]
            found.bare += [part_of[own].sum(), part_of[exists].sum()]
            found.n_bare += int(own.sum())
            found.lowest = min(found.lowest, float(energies.barrier[own].min(initial=0.0)))
            moving, change = jumps.moving_species(occupations, carriers), np.asarray(energies.delta_e, dtype=float)
            live = w > 0
            gain = np.where(live, w, 0.0) * np.where(live & (np.abs(change) > NEGLIGIBLE), change, 0.0)
            for i, c in enumerate(codes):
                own = live & (moving == c)
                found.live[i] |= own.any()
                drift[:, 0, i] = np.where(own, gain, 0.0).sum(axis=1)
                drift[:, 1, i] = np.where(own, np.abs(gain), 0.0).sum(axis=1)
        values = [
            np.ones((n, 1)),
            *(pair_terms(w, x, codes - 1).reshape(n, -1) for x in (terms.displacement, terms.bare)),
            tracer_terms(w, terms.tracer, codes - 1).reshape(n, -1),
            drift.reshape(n, -1),
        ]
        found.groups.add(states.groups[part], np.concatenate(values, axis=1) * weights[:, None])
        on = occupations[:, jumps.supercell.mobile_sites]
        for i, c in enumerate(codes):
            found.atoms[i] += float(weights @ (on == c).sum(axis=1)) / on.shape[1]
            found.present[i] |= bool(np.any(occupations == c))
        found.weight += float(weights.sum())
        found.escape += float(weights @ w.sum(axis=1))
        found.squares += float(np.square(weights).sum())
        found.n += n
        found.n_jumps += int(exists.sum())
        if (self.folder is None and found.table is not None) or not weights.sum() > 0:
            return
        own_energies = None if states.model_energies is None else states.model_energies[part]
        table = KinosonTable.build(
            replace(
                states,
                occupations=occupations,
                carriers=carriers,
                weights=weights,
                groups=states.groups[part],
                model_energies=own_energies,
            ),
            jumps,
            rates=w,
            energies=energies,
            terms=terms,
            state_energies=self.rates.state_energies(occupations),
        )
        if found.table is None:  # an empty one says which columns there would be
            found.table = KinosonTable({k: x[:0].copy() for k, x in table.columns.items()}, table.units)
        if self.folder is not None:
            write_table(self.folder, KinosonTable({**table.columns, "state": table["state"] + row}, {}), *names)
            found.files += 1

    def result(
        self, found: _Sums, *, vacancy_fraction: float | VacancyFraction | None, n_resamples: int, seed: int
    ) -> tuple[Transport, list[KinosonWarning]]:
        """Derive everything from the sums."""
        check_total(
            found.escape / found.weight,
            allowed=not found.has_energies or found.rejected < found.n_jumps,
            has_barriers=found.has_energies,
            temperature_K=self.temperature_K,
        )
        codes, d = _mobile(self.jumps), self.jumps.dimension
        m, sums = len(codes), found.groups.values
        group_weights = sums[:, 0]
        parts = np.split(sums[:, 1:], np.cumsum([9 * m * m, 9 * m * m, 9 * m]), axis=1)
        weighs = group_weights > 0
        drift = self._drift(parts[3].reshape(-1, 2, m)[weighs], found.live, seed) if found.has_energies else None
        reasons = [
            r if times == 1 else r.with_text(f"{r.text} (so or alike in {times} chunks)")
            for r, times in found.reasons.items()
        ]
        if drift is not None and not drift.consistent:
            # asked of a few states: what they are themselves was told above
            more, said = judge(self.first, self.rates, self.barriers, self.relaxation, drift)
            found.weaken(more, [])
            reasons.append(said[-1])
        kind = found.kind
        rows, has_errors = rows_of_sums(
            group_weights, np.concatenate(parts[:3], axis=1), n_resamples=n_resamples, seed=seed
        )
        a, b, c = np.split(rows, np.cumsum([9 * m * m, 9 * m * m]), axis=1)
        here = np.flatnonzero(found.present)
        collective, bare = (x.reshape(-1, m, m, 3, 3)[:, here][:, :, here] for x in (a, b))
        tracer, tracer_bare = c.reshape(-1, m, 3, 3)[:, here], np.einsum("raaxy->raxy", bare)
        names = self.jumps.supercell.species
        composition = Composition(
            tuple(names[k] for k in codes[here]), codes[here] - 1, found.atoms[here] / found.weight
        )
        derived = coefficients(
            Averages(collective, bare, tracer, tracer_bare, has_errors=has_errors),
            self.jumps,
            composition,
            kind=kind,
            off_diagonal=ESTIMATE if kind == BOUND else None,
            temperature_K=self.temperature_K,
            vacancy_fraction=vacancy_fraction,
        )
        own = np.einsum("gabxy,xy->g", parts[0].reshape(-1, m, m, 3, 3), self.jumps.projector) / d
        size, largest = heavy_share(own, np.arange(len(own)))
        assert found.table is not None
        result = Transport(
            **derived,
            kinosons=found.table,
            drift=drift,
            ensemble=self.first.ensemble,
            effective_sample_size=found.weight**2 / found.squares,
            contribution_sample_size=size,
            largest_share=largest,
            n_states=found.n,
            n_barriers=found.n_jumps - found.rejected,
            n_rejected=found.rejected,
            settings={
                "attempt_frequency": self.rates.attempt_frequency,
                "n_resamples": n_resamples,
                "seed": seed,
                "lookahead": self.relaxation.lookahead if self.relaxation else None,
                "deeper": self.relaxation is not None and self.relaxation.scales is not None,
                "source": type(self.barriers).__name__,
                "states_source": self.first.source,
                "groups": len(group_weights),
                "groups_pooled": found.groups.pooled,
            },
            relaxation=self.relaxation,
        )
        reasons += doubts(result, len(group_weights), has_errors=has_errors)
        reasons += carried_without_barrier(found.n_bare, found.lowest, *map(float, found.bare))
        return replace(result, warnings=tuple(reasons)), reasons

    def _drift(self, sums: NDArray, live: NDArray[np.bool_], seed: int, n_bootstrap: int = 1000) -> EnergyDrift:
        """What :func:`energy_drift` finds, from sums per group, shape (n_groups, 2, n_species)."""

        def ratio(x: NDArray) -> NDArray:
            return np.where(x[1] > 0, x[0] / np.where(x[1] > 0, x[1], 1.0), 0.0)

        codes = np.flatnonzero(live)
        every = np.concatenate([sums.sum(axis=2, keepdims=True), sums[:, :, codes]], axis=2).transpose(1, 2, 0)
        value, n = ratio(every.sum(axis=-1)), every.shape[-1]
        error = np.full(len(value), np.inf)
        if n > 1:
            draws = draw_groups(n, n_bootstrap, np.random.default_rng(seed)).astype(float)
            error = standard_error(ratio(every @ draws.T).T)
        names = self.jumps.supercell.species
        named = {names[_mobile(self.jumps)[c]]: (float(value[1 + i]), float(error[1 + i])) for i, c in enumerate(codes)}
        return EnergyDrift(float(value[0]), float(error[0]), named, n)


def _evaluate(job: _Job, states: States, total: float, before: int, number: int) -> _Sums:
    """Evaluate a chunk, here or in a worker."""
    if states.supercell != job.jumps.supercell or states.ensemble != job.first.ensemble:
        raise StatesError(
            f"found a chunk of the {states.ensemble!r} ensemble on {states.supercell.n_sites} sites after one of "
            f"the {job.first.ensemble!r} ensemble on {job.first.supercell.n_sites}; expected chunks of one "
            "sample; average over each on its own"
        )
    if not isinstance(job.rates.source, RateSource):
        check_temperature(states, job.temperature_K)
    norm = float(states.weights.sum())
    if abs(norm - 1.0) > 1e-9:  # made by hand
        states = states.with_weights(states.weights)
    found = _Sums.none(job.jumps, job.max_groups)
    found.weaken(*judge(states, job.rates, job.barriers, job.relaxation, None))
    for piece, begin in enumerate(range(0, len(states), PIECE)):
        job.piece(states, total, slice(begin, begin + PIECE), before, (number, piece), found)
        before += min(PIECE, len(states) - begin)
    return found


def _in_order(
    calls: Iterable[tuple[Any, ...]], bind: Callable[..., tuple[Any, ...]], executor: Executor | None
) -> Iterator[Any]:
    """Results of calls in the order of the calls, so that sums do not depend on who is first; few are on the way."""
    if executor is None:
        for call in calls:
            function, *arguments = bind(*call)
            yield function(*arguments)
        return
    flying: deque[Any] = deque()
    try:
        for call in calls:
            flying.append(executor.submit(*bind(*call)))
            while len(flying) >= 2 * n_workers(executor):
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        for future in flying:
            future.cancel()


def _wording(reason: KinosonWarning) -> str:
    """A reason without its numbers."""
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", str(reason))


def _mobile(jumps: JumpNetwork) -> NDArray[np.int64]:
    """Codes of the species that can move."""
    cell = jumps.supercell
    mobile = {s for sub in cell.alloy.sublattices if sub.mobile for s in sub.species}
    return np.array([c for c in range(1, len(cell.species)) if cell.species[c] in mobile])
