"""Where finished barriers are kept: an ase.db database with one row per relaxed state and per finished jump.

The database is an ordinary one: ``ase db FILE -c++`` lists it, ``ase db FILE kind=jump,status=ok`` selects. Each row
is written in one transaction as soon as it is known, so an interruption at any moment loses only the searches in
flight. The ``unique_id`` of a row is a hash of what it describes, and the database refuses a second one: nothing is
there twice, whoever writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.core import now
from ase.db.row import AtomsRow

from ase_kinoson.barriers.database import SharedDatabase
from ase_kinoson.barriers.fingerprint import Fingerprint
from ase_kinoson.barriers.saddle import Hop, Host, JumpResult, StateResult
from ase_kinoson.errors import StoreError

__all__ = ["BarrierStore", "Fingerprint"]

_PREFIX = "state-"  # ase.db refuses strings that look like numbers, and a hash can be one

_KEYS = {
    "kind": ("Kind of row", "'state' (relaxed initial state) or 'jump' (finished search)", ""),
    "state_key": ("State", "hash of the occupation", ""),
    "jump_index": ("Jump", "row of the jump network for this carrier site", ""),
    "carrier_site": ("Carrier site", "site of the vacancy or interstitial", ""),
    "target_site": ("Target site", "site to which the carrier jumps", ""),
    "moving_species": ("Moving species", "element of the atom that moves", ""),
    "status": ("Status", "'ok' or why there is no barrier", ""),
    "reason": ("Reason", "what happened, in words", ""),
    "barrier": ("Barrier", "saddle minus initial energy", "eV"),
    "reverse_barrier": ("Reverse barrier", "saddle minus final energy", "eV"),
    "energy_initial": ("Initial energy", "relaxed initial state", "eV"),
    "energy_final": ("Final energy", "relaxed end state", "eV"),
    "energy_saddle": ("Saddle energy", "", "eV"),
    "force_initial": ("Initial force", "largest force of the initial state", "eV/Å"),
    "force_final": ("Final force", "largest force of the end state", "eV/Å"),
    "force_saddle": ("Saddle force", "largest true force at the saddle", "eV/Å"),
    "force_calls": ("Force calls", "including failed attempts, checks and prefactors", ""),
    "verify_calls": ("Checking calls", "force calls that checked the saddle", ""),
    "prefactor_calls": ("Prefactor calls", "force calls of the prefactors", ""),
    "descents": ("Ways down", "'both-ends', 'side-basin', 'unsettled' or 'not-checked'", ""),
    "side_initial": ("Initial side basin", "energy of the minimum found instead of the initial state", "eV"),
    "side_final": ("Final side basin", "energy of the minimum found instead of the end state", "eV"),
    "n_unstable": ("Unstable directions", "directions that go down from the saddle; -1 if not checked", ""),
    "prefactor": ("Prefactor", "Vineyard attempt frequency", "1/s"),
    "reverse_prefactor": ("Reverse prefactor", "Vineyard attempt frequency of the reverse jump", "1/s"),
    "wall_time": ("Wall time", "", "s"),
    "settings_id": ("Settings", "hash of the fingerprint in the metadata", ""),
}


class BarrierStore:
    """A database of finished barriers of one study.

    Parameters
    ----------
    path
        File of an SQLite database (made if missing), or the URL of a database that ``ase.db`` knows
        (``postgresql://...``, with ase-db-backends).
    fingerprint
        The study; a store of another one is refused.
    title
        Shown by ase.db.
    retry
        Rows with these statuses count as missing and may be written again.

    Attributes
    ----------
    name
        The path, or the URL without its password.

    Raises
    ------
    StoreError
        If the file is no database, damaged, or belongs to another study or to another version of this package.
    """

    def __init__(
        self,
        path: str | Path,
        fingerprint: Fingerprint,
        *,
        title: str = "reference barriers",
        retry: Iterable[str] = (),
    ) -> None:
        self.fingerprint = fingerprint
        self.retry = frozenset(retry)
        self._base = SharedDatabase(path)
        self._last: int | None = None
        self.name = self._base.name
        found = self._base.metadata()
        if "ase_kinoson" not in found:
            found = self._base.describe(
                {
                    "title": title,
                    "default_columns": ["id", "kind", "state_key", "jump_index", "moving_species", "status", "barrier"],
                    "key_descriptions": {k: list(v) for k, v in _KEYS.items()},
                    "ase_kinoson": fingerprint.as_dict(),
                }
            )
        difference = fingerprint.difference(found["ase_kinoson"])
        if difference:
            raise StoreError(
                f"the store {self.name!r} {difference}; give another file, or delete this one to compute again"
            )

    # -- reading --------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, StateResult]:
        """Relaxed initial states by state key."""
        return {_plain_key(r): _state(r) for r in self._rows("state", data=True)}

    def jumps(self, *, positions: bool = False) -> dict[tuple[str, int], JumpResult]:
        """Finished searches by (state key, jump index).

        Parameters
        ----------
        positions
            Also read saddles and end states.
        """
        return {(_plain_key(r), int(r.jump_index)): _jump(r, positions) for r in self._rows("jump", data=positions)}

    def news(self) -> tuple[dict[str, StateResult], dict[tuple[str, int], JumpResult]]:
        """Return states and jumps (without positions) written since the last call, by this process or another."""

        def read() -> list[AtomsRow]:
            with self._base.reading() as db:
                rows = list(db.select([("id", ">", self._last or 0)], include_data=False))
                return [db.get(id=row.id) if row.kind == "state" else row for row in rows]

        rows = self._base.guard(read)
        first = self._last is None  # what failed while we were busy has just been tried
        self._last = max([self._last or 0, *(int(row.id) for row in rows)])
        known = [row for row in rows if not (first and row.status in self.retry)]
        states = {_plain_key(r): _state(r) for r in known if r.kind == "state"}
        return states, {(_plain_key(r), int(r.jump_index)): _jump(r, False) for r in known if r.kind == "jump"}

    def _rows(self, kind: str, *, data: bool) -> list[AtomsRow]:
        def read() -> list[AtomsRow]:
            with self._base.reading() as db:
                return [row for row in db.select(kind=kind, include_data=data) if row.status not in self.retry]

        return self._base.guard(read)

    def __len__(self) -> int:
        def count() -> int:
            with self._base.reading() as db:
                return int(db.count(kind="jump"))

        return self._base.guard(count)

    # -- writing --------------------------------------------------------------------------------------------------

    def write_state(self, key: str, host: Host, result: StateResult, *, carrier: int) -> bool:
        """Write a relaxed initial state, unless it is there; return whether it was written."""
        return self._write(
            {
                "kind": "state",
                "state_key": _PREFIX + key,
                "carrier_site": int(carrier),
                "status": result.status,
                "reason": _text(result.reason),
                "energy_initial": result.energy,
                "force_initial": result.fmax,
                "force_calls": int(result.force_calls),
                "wall_time": float(result.wall_s),
            },
            {"path": [_clean(step) for step in result.path], "sites": host.sites, "positions": result.positions},
            self._with_energy(host.atoms(result.positions), result.energy),
            {"kind": "state", "state_key": _PREFIX + key},
        )

    def write_jump(
        self, key: str, jump: int, host: Host, hop: Hop, result: JumpResult, *, carrier: int, target: int
    ) -> bool:
        """Write a finished search, unless it is there; return whether it was written."""
        ok = result.status == "ok"
        data: dict[str, Any] = {"path": [_clean(step) for step in result.path], "mover": hop.mover}
        if result.final_positions is not None:
            data["final_positions"] = result.final_positions
        if result.saddle_positions is not None:
            data["saddle_positions"] = result.saddle_positions
        return self._write(
            {
                "kind": "jump",
                "state_key": _PREFIX + key,
                "jump_index": int(jump),
                "carrier_site": int(carrier),
                "target_site": int(target),
                "moving_species": str(host.atoms().symbols[hop.mover]),
                "status": result.status,
                "reason": _text(result.reason),
                "barrier": result.barrier if ok else np.nan,
                "reverse_barrier": result.reverse_barrier if ok else np.nan,
                "energy_initial": result.energy_initial,
                "energy_final": result.energy_final,
                "energy_saddle": result.energy_saddle,
                "force_final": result.fmax_final,
                "force_saddle": result.fmax_saddle,
                "force_calls": int(result.force_calls),
                "verify_calls": int(result.verify_calls),
                "prefactor_calls": int(result.prefactor_calls),
                "descents": result.descents,
                "side_initial": float(result.side_initial),
                "side_final": float(result.side_final),
                "n_unstable": int(result.n_unstable),
                "prefactor": float(result.prefactor),
                "reverse_prefactor": float(result.reverse_prefactor),
                "wall_time": float(result.wall_s),
            },
            data,
            self._with_energy(host.atoms(result.saddle_positions), result.energy_saddle),
            {"kind": "jump", "state_key": _PREFIX + key, "jump_index": int(jump)},
        )

    def together(self, writes: Iterable[Callable[[], bool]]) -> list[bool]:
        """Do several of the above in one transaction, which costs little more than one; all of them, or none."""
        actions = list(writes)

        def write() -> list[bool]:
            with self._base.writing():
                return [one() for one in actions]

        return self._base.guard(write)

    def _with_energy(self, atoms: Atoms, energy: float) -> Atoms:
        if np.isfinite(energy):
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
            atoms.calc.name = self.fingerprint.calculator.lower()
        return atoms

    def _write(self, pairs: dict[str, Any], data: dict[str, Any], atoms: Atoms, same: dict[str, Any]) -> bool:
        clean = {k: v for k, v in pairs.items() if v != "" and not (isinstance(v, float) and not np.isfinite(v))}
        clean["settings_id"] = self.fingerprint.id
        row = AtomsRow(atoms)
        row.unique_id = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:32]
        row.ctime, row.user = now(), None

        def write() -> bool:
            with self._base.writing() as db:
                there = next(db.select(unique_id=row.unique_id, include_data=False), None)
                if there is not None and there.status not in self.retry:
                    return False
                db.write(row, key_value_pairs=clean, data=data, id=None if there is None else there.id)
                return True

        return self._base.guard(write)


def _text(reason: str) -> str:
    """Reasons are sentences; a bare number would be refused by ase.db."""
    text = " ".join(_clean(reason).split())
    return f"reason: {text}" if text and " " not in text else text


def _clean(text: str) -> str:
    """Replace what a database refuses in a text: bytes that are none, and zeros."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _plain_key(row: AtomsRow) -> str:
    return str(row.state_key).removeprefix(_PREFIX)


def _state(row: AtomsRow) -> StateResult:
    return StateResult(
        status=row.status,
        reason=row.get("reason", ""),
        positions=np.array(row.data["positions"], dtype=float),
        energy=float(row.get("energy_initial", np.nan)),
        fmax=float(row.get("force_initial", np.nan)),
        force_calls=int(row.force_calls),
        path=tuple(row.data["path"]),
        wall_s=float(row.wall_time),
    )


def _jump(row: AtomsRow, positions: bool) -> JumpResult:
    def array(name: str) -> np.ndarray | None:
        return np.array(row.data[name], dtype=float) if positions and name in row.data else None

    return JumpResult(
        status=row.status,
        reason=row.get("reason", ""),
        energy_initial=float(row.get("energy_initial", np.nan)),
        energy_final=float(row.get("energy_final", np.nan)),
        energy_saddle=float(row.get("energy_saddle", np.nan)),
        fmax_final=float(row.get("force_final", np.nan)),
        fmax_saddle=float(row.get("force_saddle", np.nan)),
        force_calls=int(row.force_calls),
        path=tuple(row.data["path"]) if positions else (),
        saddle_positions=array("saddle_positions"),
        final_positions=array("final_positions"),
        wall_s=float(row.wall_time),
        verify_calls=int(row.get("verify_calls", 0)),
        prefactor_calls=int(row.get("prefactor_calls", 0)),
        descents=row.get("descents", "not-checked"),
        side_initial=float(row.get("side_initial", np.nan)),
        side_final=float(row.get("side_final", np.nan)),
        n_unstable=int(row.get("n_unstable", -1)),
        prefactor=float(row.get("prefactor", np.nan)),
        reverse_prefactor=float(row.get("reverse_prefactor", np.nan)),
    )
