"""`Barriers`: reference barriers of all jumps of a set of states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.descent import UNSETTLED
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import BarrierError

__all__ = ["Barriers"]

NO_JUMP = "none"
"""Status where a site has fewer jumps than the network's maximum J."""
NOT_COMPUTED = "not-computed"
"""Status of a jump that was not asked for."""
FAILED = ("wrong-saddle", "not-converged", "timed-out", "calculator-failed", "unstable-start")
"""Status of a jump whose rate is unknown because its search came to nothing."""
BAD_LUCK = ("wrong-saddle", "not-converged", "timed-out", "calculator-failed")
"""Status of a jump that another search may still find, such as the one from its other end."""
ROUNDING = 1e-5
"""eV: paths that differ by less are one."""
REVERSE_REJECTED = "reverse-rejected"
"""Status of a jump whose reverse, computed from its own state, was rejected."""


@dataclass(frozen=True, eq=False)
class Barriers:
    """Barriers of all jumps of some states, rejected ones included; a `BarrierSource`.

    Make one with :func:`ase_kinoson.barriers.campaign.compute_barriers` or :meth:`from_arrays`.

    Attributes
    ----------
    states : States
        The states.
    network : JumpNetwork
        Their jumps.
    barrier, reverse_barrier : ndarray, shape (n_states, J)
        Forward and reverse barrier of the same path, eV; ``inf`` where there is no jump or it is rejected.
    energy_initial : ndarray, shape (n_states,)
        Relaxed initial state, eV; NaN if unknown.
    energy_final : ndarray, shape (n_states, J)
        Relaxed end state, eV; NaN if unknown.
    status : ndarray of str, shape (n_states, J)
        ``"ok"``, ``"none"`` where no jump exists, ``"not-computed"`` where it was not asked for, or why it is rejected.
    reasons : mapping of (state, jump) to str
        The reason of each rejection, in words, and what is not settled where a barrier is :attr:`unsettled`.
    force_calls : ndarray of int, shape (n_states, J)
        All of a jump: end state, ways up, checks, prefactors; the initial states' are in
        ``settings["force_calls_initial"]``.
    fmax : ndarray, shape (n_states, J)
        Force reached at the saddle, eV/Å; NaN where there is none.
    settings : mapping
        How they were computed; ``"taken_from_reverse"`` names jumps whose own search failed and whose path was found
        from the other end.
    attempt_frequency : ndarray, shape (n_states, J), or None
        Geometric mean of the Vineyard prefactors of each jump and its reverse, s⁻¹; NaN where unknown. None where one
        attempt frequency serves all.
    descents : ndarray of str, shape (n_states, J), or None
        Where the ways down from each saddle lead: one of ``ase_kinoson.barriers.hop.DESCENTS``; ``"unsettled"`` where
        the barrier is that of the highest saddle known. None where unknown.
    wall_s : ndarray, shape (n_states, J), or None
        Time that each search took, s. None where unknown.
    """

    states: States
    network: JumpNetwork
    barrier: NDArray[np.float64]
    reverse_barrier: NDArray[np.float64]
    energy_initial: NDArray[np.float64]
    energy_final: NDArray[np.float64]
    status: NDArray[np.str_]
    reasons: Mapping[tuple[int, int], str]
    force_calls: NDArray[np.int64]
    fmax: NDArray[np.float64]
    settings: Mapping[str, Any] = field(default_factory=dict)
    attempt_frequency: NDArray[np.float64] | None = None
    descents: NDArray[np.str_] | None = None
    wall_s: NDArray[np.float64] | None = None

    @classmethod
    def from_arrays(
        cls,
        states: States,
        network: JumpNetwork,
        barrier: ArrayLike,
        *,
        reverse_barrier: ArrayLike | None = None,
        energy_initial: ArrayLike | None = None,
        energy_final: ArrayLike | None = None,
        status: ArrayLike | None = None,
        reasons: Mapping[tuple[int, int], str] | None = None,
        force_calls: ArrayLike | None = None,
        fmax: ArrayLike | None = None,
        settings: Mapping[str, Any] | None = None,
        attempt_frequency: ArrayLike | None = None,
        descents: ArrayLike | None = None,
        wall_s: ArrayLike | None = None,
    ) -> Barriers:
        """Check arrays and complete what follows from others.

        Parameters
        ----------
        states, network
            What the barriers belong to.
        barrier : array_like, shape (n_states, J)
            eV; ``inf`` where rejected.
        reverse_barrier : array_like, shape (n_states, J), optional
            eV; default from ``energy_initial`` and ``energy_final``.
        energy_initial : array_like, shape (n_states,), optional
            eV; default NaN.
        energy_final : array_like, shape (n_states, J), optional
            eV; default from the two barriers.
        status : array_like of str, shape (n_states, J), optional
            Default ``"ok"`` where finite, ``"rejected"`` where not.
        reasons, settings
            See the class.
        force_calls : array_like of int, shape (n_states, J), optional
            Default 0.
        fmax : array_like, shape (n_states, J), optional
            eV/Å; default NaN.
        attempt_frequency : array_like, shape (n_states, J), optional
            s⁻¹; see the class.
        descents : array_like of str, shape (n_states, J), optional
            See the class.
        wall_s : array_like, shape (n_states, J), optional
            s; see the class.

        Raises
        ------
        BarrierError
            If shapes do not match, or an accepted barrier is not a number.
        """
        same_lattice(states, network)
        n, n_jumps = len(states), network.n_jumps
        forward = _array("barrier", barrier, (n, n_jumps))
        exists = network.exists[network.basis_of(states.carriers)] if n else np.zeros((0, n_jumps), dtype=bool)
        start = _array("energy_initial", np.full(n, np.nan) if energy_initial is None else energy_initial, (n,))
        if status is None:
            state_of = np.where(np.isposinf(forward), "rejected", "ok").astype("U24")
        else:
            state_of = np.asarray(status).astype("U24")
            if state_of.shape != (n, n_jumps):
                raise BarrierError(
                    f"found status of shape {state_of.shape}; expected {(n, n_jumps)} (states, jumps); give one "
                    "per jump"
                )
        state_of = np.where(exists, np.where(state_of == NO_JUMP, "rejected", state_of), NO_JUMP).astype("U24")
        valid = state_of == "ok"
        if reverse_barrier is not None:
            backward = _array("reverse_barrier", reverse_barrier, (n, n_jumps))
        elif energy_final is not None and energy_initial is not None:
            backward = forward - (_array("energy_final", energy_final, (n, n_jumps)) - start[:, None])
        else:
            raise BarrierError(
                "found neither reverse_barrier nor energy_initial and energy_final; expected the reverse "
                "barriers (eV) of the "
                "same paths; pass one or the other"
            )
        for name, values in (("barrier", forward), ("reverse_barrier", backward)):
            bad = np.argwhere(valid & ~np.isfinite(values))
            if len(bad):
                i, k = bad[0].tolist()
                raise BarrierError(
                    f"found {name}[{i}, {k}] = {values[i, k]} ({len(bad)} such values); expected finite numbers "
                    "in eV where the "
                    "status is 'ok'; use inf for rejected jumps"
                )
        forward, backward = np.where(valid, forward, np.inf), np.where(valid, backward, np.inf)
        difference = np.zeros_like(forward)
        difference[valid] = forward[valid] - backward[valid]
        if energy_final is None:
            end = np.where(valid, start[:, None] + difference, np.nan)
        else:
            end = _array("energy_final", energy_final, (n, n_jumps))
            known = valid & np.isfinite(end) & np.isfinite(start)[:, None]
            worst = np.abs(np.where(known, end - start[:, None] - difference, 0.0)).max(initial=0.0)
            if worst > 1e-6:
                raise BarrierError(
                    f"forward minus reverse barriers differ from the energy differences by up to {worst:.3g} eV; "
                    "expected both from "
                    "the same path; compute them together"
                )
        calls = np.zeros((n, n_jumps)) if force_calls is None else _array("force_calls", force_calls, (n, n_jumps))
        forces = np.full((n, n_jumps), np.nan) if fmax is None else _array("fmax", fmax, (n, n_jumps))
        marks = np.asarray("not-checked" if descents is None else descents).astype("U12")
        marks = np.broadcast_to(marks, (n, n_jumps)) if descents is None else marks.reshape(n, n_jumps)
        made = cls(
            states,
            network,
            forward,
            backward,
            start,
            end,
            state_of,
            {key: text for key, text in (reasons or {}).items() if not valid[key] or (marks == UNSETTLED)[key]},
            calls.astype(np.int64),
            forces,
            dict(settings or {}),
            None if attempt_frequency is None else _array("attempt_frequency", attempt_frequency, (n, n_jumps)),
            None if descents is None else marks,
            None if wall_s is None else _array("wall_s", wall_s, (n, n_jumps)),
        )
        return made._reject_reverses()

    def _reject_reverses(self) -> Barriers:
        """Treat a jump and its reverse alike where both states are in the set: rates stay symmetric.

        A search that merely failed takes the path that the search from the other end found; where an end is not stable,
        the reverse is rejected too. Of two paths the settled one counts; if neither is, the higher one.
        """
        rows = self._row_of
        forward, backward, status = self.barrier.copy(), self.reverse_barrier.copy(), self.status.copy()
        final = self.energy_final.copy()
        frequency = None if self.attempt_frequency is None else self.attempt_frequency.copy()
        marks = None if self.descents is None else self.descents.copy()
        reasons, taken = dict(self.reasons), []
        s, network = self.states, self.network
        unsure = self.unsettled
        for n, k in np.argwhere(
            ~np.isin(self.status, ["ok", NO_JUMP, NOT_COMPUTED, REVERSE_REJECTED]) | unsure
        ).tolist():
            after, carrier = network.apply(s.occupations[[n]], s.carriers[[n]], [k])
            back = int(network.reverse[network.basis_of(s.carriers[[n]])[0], k])
            for m in rows.get((_key(after[0]), int(carrier[0])), ()):
                if status[m, back] != "ok":
                    continue
                if unsure[n, k] or self.status[n, k] in BAD_LUCK:
                    higher = forward[m, back] + backward[m, back] > forward[n, k] + backward[n, k] + ROUNDING
                    if status[n, k] != "ok" or (unsure[n, k] and (not unsure[m, back] or higher)):
                        status[n, k], forward[n, k], backward[n, k] = "ok", backward[m, back], forward[m, back]
                        final[n, k] = self.energy_initial[n] + forward[n, k] - backward[n, k]
                        if frequency is not None:
                            frequency[n, k] = frequency[m, back]
                        reasons.pop((n, k), None)
                        if marks is not None and self.descents is not None:
                            marks[n, k] = self.descents[m, back]
                            reasons |= {(n, k): reasons[m, back]} if (m, back) in reasons else {}
                        taken.append([n, k])
                    continue
                status[m, back] = REVERSE_REJECTED
                forward[m, back] = backward[m, back] = np.inf
                reasons[(m, back)] = f"its reverse, jump {k} of state {n}, is rejected ({self.status[n, k]})"
        settings = {**self.settings, "taken_from_reverse": taken} if taken else self.settings
        return replace(
            self,
            barrier=forward,
            reverse_barrier=backward,
            energy_final=final,
            status=status,
            reasons=reasons,
            settings=settings,
            attempt_frequency=frequency,
            descents=marks,
        )

    # -- what is known --------------------------------------------------------------------------------------------

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Marks jumps that have a barrier, shape (n_states, J)."""
        return self.status == "ok"

    @cached_property
    def unsettled(self) -> NDArray[np.bool_]:
        """Marks barriers of the highest saddle known, where it is not settled that none is higher, shape (n_states, J).

        The way behind a basin beside the ends could not be found, or only an upper bound of the saddle is known.
        """
        return self.valid & (self.descents == UNSETTLED) if self.descents is not None else np.zeros_like(self.valid)

    @property
    def n_unsettled(self) -> int:
        """Number of barriers that are :attr:`unsettled`."""
        return int(self.unsettled.sum())

    @cached_property
    def delta_e(self) -> NDArray[np.float64]:
        """Energy after minus energy before the jump, eV, shape (n_states, J); NaN where invalid."""
        result = np.full(self.barrier.shape, np.nan)
        result[self.valid] = self.barrier[self.valid] - self.reverse_barrier[self.valid]
        return result

    @cached_property
    def kra(self) -> NDArray[np.float64]:
        """Kinetically resolved activation Q − ΔE/2, eV, shape (n_states, J); NaN where invalid."""
        result = np.full(self.barrier.shape, np.nan)
        result[self.valid] = 0.5 * (self.barrier[self.valid] + self.reverse_barrier[self.valid])
        return result

    @cached_property
    def moving_species(self) -> NDArray[np.int64]:
        """Species code of the moving atom, shape (n_states, J); −1 where there is no jump."""
        return self.network.moving_species(self.states.occupations, self.states.carriers)

    @property
    def n_barriers(self) -> int:
        """Number of jumps with a barrier."""
        return int(self.valid.sum())

    def missing(self, occupations: NDArray, carriers: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Jumps of states that have no barrier for want of data, not because an end state is unstable.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.

        Returns
        -------
        failed, not_computed : ndarray of bool, shape (n, J)
            Searches that failed (calculator, convergence, wrong saddle; every jump of a state that did not relax), and
            jumps that nobody asked for. Their rates are unknown, and leaving them out lowers every coefficient.
        """
        status = self.status[self.rows(occupations, carriers)]
        return np.isin(status, FAILED), status == NOT_COMPUTED

    @property
    def n_rejected(self) -> dict[str, int]:
        """Number of rejected jumps by status; those not asked for are not among them."""
        names, counts = np.unique(self.status[~np.isin(self.status, ["ok", NO_JUMP, NOT_COMPUTED])], return_counts=True)
        return {str(name): int(count) for name, count in zip(names, counts, strict=True)}

    def by_species(self) -> dict[str, dict[str, float]]:
        """Mean and standard deviation of the barriers (eV, every jump counts once) of each moving species.

        Returns
        -------
        dict
            Symbol → ``{"mean", "std", "n", "rejected"}``; mean and std (eV) are NaN without a valid jump.
        """
        table = {}
        for code, symbol in enumerate(self.states.supercell.species):
            own = self.moving_species == code
            if code == 0 or not own.any():
                continue
            values = self.barrier[own & self.valid]
            table[symbol] = {
                "mean": float(values.mean()) if len(values) else np.nan,
                "std": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
                "n": len(values),
                "rejected": int((own & ~self.valid & (self.status != NOT_COMPUTED)).sum()),
            }
        return table

    def __len__(self) -> int:
        return len(self.states)

    def __repr__(self) -> str:
        lost = sum(self.n_rejected.values())
        unsure = f", {self.n_unsettled} unsettled" if self.n_unsettled else ""
        return f"Barriers({len(self)} states, {self.n_barriers} barriers, {lost} rejected{unsure})"

    # -- looking up -----------------------------------------------------------------------------------------------

    @cached_property
    def _row_of(self) -> dict[tuple[bytes, int], list[int]]:
        table: dict[tuple[bytes, int], list[int]] = {}
        for n, (row, carrier) in enumerate(zip(self.states.occupations, self.states.carriers, strict=True)):
            table.setdefault((_key(row), int(carrier)), []).append(n)
        return table

    def rows(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.int64]:
        """Rows of this set that hold given states, shape (n,).

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.

        Raises
        ------
        BarrierError
            Names the first state that is missing.
        """
        found = []
        wanted = zip(np.atleast_2d(occupations), np.atleast_1d(np.asarray(carriers)), strict=True)
        for n, (row, carrier) in enumerate(wanted):
            match = self._row_of.get((_key(row), int(carrier)))
            if match is None:
                raise BarrierError(
                    f"state {n} (carrier on site {int(carrier)}) is not among the {len(self)} states with "
                    "reference barriers; "
                    "expected states that were computed; run compute_barriers on it, or use a learned barrier model"
                )
            found.append(match[0])
        return np.array(found, dtype=np.int64)

    def state_energies(self, occupations: NDArray) -> NDArray[np.float64]:
        """Relaxed energies of states, eV, shape (n_states,), looked up by their occupations.

        Parameters
        ----------
        occupations : ndarray of int, shape (n_states, n_sites)
            Species code of every site.

        Raises
        ------
        BarrierError
            If a state is not in the set.
        """
        codes = np.atleast_2d(np.asarray(occupations))
        carriers = [self.states.supercell.find_carrier(row) for row in codes]
        return self.energy_initial[self.rows(codes, carriers)]

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        """Energies of all jumps of states of this set; see :class:`~ase_kinoson.barriers.source.BarrierSource`.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        rows = self.rows(occupations, carriers)
        own = None if self.attempt_frequency is None else self.attempt_frequency[rows]
        return JumpEnergies(self.barrier[rows], np.nan_to_num(self.delta_e[rows], nan=0.0), own)

    # -- parts and sums -------------------------------------------------------------------------------------------

    def __getitem__(self, index: slice | ArrayLike) -> Barriers:
        """Select states by slice, index array or mask."""
        rows = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
        rows = np.flatnonzero(rows) if rows.dtype == bool else np.atleast_1d(rows).astype(int)
        rows = np.arange(len(self))[rows]
        return Barriers(
            self.states[rows],
            self.network,
            self.barrier[rows],
            self.reverse_barrier[rows],
            self.energy_initial[rows],
            self.energy_final[rows],
            self.status[rows],
            {(m, k): t for m, n in enumerate(rows) for (i, k), t in self.reasons.items() if i == n},
            self.force_calls[rows],
            self.fmax[rows],
            self.settings,
            None if self.attempt_frequency is None else self.attempt_frequency[rows],
            None if self.descents is None else self.descents[rows],
            None if self.wall_s is None else self.wall_s[rows],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Barriers]) -> Barriers:
        """Join sets of the same jumps on the same supercell; weights keep their ratios within a part.

        Each part keeps the share of the weight that its number of states has; groups of different parts stay apart.

        Parameters
        ----------
        parts
            The sets.

        Raises
        ------
        BarrierError
            If there are no sets, or their supercells or jumps differ.
        """
        if not parts:
            raise BarrierError("found no barriers to join; expected at least one set; pass a non-empty list")
        first = parts[0]
        for other in parts[1:]:
            if (
                other.network.fingerprint != first.network.fingerprint
                or other.states.supercell != first.states.supercell
            ):
                raise BarrierError(
                    "the sets belong to different supercells or jump networks; expected the same; join only sets "
                    "of one study"
                )
        groups, shift = [], 0
        for part in parts:
            _, labels = np.unique(part.states.groups, return_inverse=True)
            groups.append(labels + shift)
            shift += int(labels.max(initial=-1)) + 1
        energies = [p.states.model_energies for p in parts]
        same = {(p.states.ensemble, p.states.temperature_K) for p in parts}
        ensemble, temperature = same.pop() if len(same) == 1 else ("random", None)
        states = States.from_occupations(
            first.states.supercell,
            np.concatenate([p.states.occupations for p in parts]),
            carriers=np.concatenate([p.states.carriers for p in parts]),
            weights=np.concatenate([p.states.weights * len(p) for p in parts]),
            groups=np.concatenate(groups),
            ensemble=ensemble,
            temperature_K=temperature,
            source="; ".join(dict.fromkeys(p.states.source for p in parts)),
            model_energies=None
            if any(e is None for e in energies)
            else np.concatenate([e for e in energies if e is not None]),
        )
        offsets = np.cumsum([0] + [len(p) for p in parts])
        reasons = {(n + int(o), k): t for p, o in zip(parts, offsets, strict=False) for (n, k), t in p.reasons.items()}
        return cls(
            states,
            first.network,
            np.concatenate([p.barrier for p in parts]),
            np.concatenate([p.reverse_barrier for p in parts]),
            np.concatenate([p.energy_initial for p in parts]),
            np.concatenate([p.energy_final for p in parts]),
            np.concatenate([p.status for p in parts]).astype("U24"),
            reasons,
            np.concatenate([p.force_calls for p in parts]),
            np.concatenate([p.fmax for p in parts]),
            dict(first.settings),
            _joined([p.attempt_frequency for p in parts]),
            _joined([p.descents for p in parts]),
            _joined([p.wall_s for p in parts]),
        )._reject_reverses()


def _joined(arrays: list[NDArray | None]) -> NDArray | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


def _key(row: NDArray) -> bytes:
    return np.asarray(row).astype(np.int8).tobytes()


def _array(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise BarrierError(
            f"{name} holds values that are no numbers ({error}); expected an array of {shape}; correct it"
        ) from error
    if array.shape != shape:
        raise BarrierError(
            f"found {name} of shape {array.shape}; expected {shape} (states, jumps); give one value per jump"
        )
    return array


def same_lattice(states: States, network: JumpNetwork) -> None:
    """Raise if states and jumps live on different supercells."""
    if states.supercell != network.supercell:
        raise BarrierError(
            f"the states live on a supercell of {states.supercell.n_sites} sites and the jumps on another of "
            f"{network.supercell.n_sites}; expected the same supercell and composition; sample the states on "
            "jumps.supercell"
        )
