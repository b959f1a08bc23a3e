"""Where finished barriers are kept: an ase.db database with one row per relaxed state and per finished jump.

The database is an ordinary one: ``ase db FILE -c++`` lists it, ``ase db FILE kind=jump,status=ok`` selects. Each row
is written in one transaction as soon as it is known, so an interruption at any moment loses only the searches in
flight. The ``unique_id`` of a row is a hash of what it describes, and the database refuses a second one: nothing is
there twice, whoever writes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.core import now
from ase.db.row import AtomsRow

from ase_kinoson.barriers.database import SharedDatabase
from ase_kinoson.barriers.fingerprint import FORMAT, OLDER, Fingerprint
from ase_kinoson.barriers.row_digest import decode_content, row_digest, wrong_content, wrong_pairs
from ase_kinoson.barriers.saddle import Hop, Host, JumpResult, StateResult
from ase_kinoson.errors import StoreError
from ase_kinoson.seals import newer, package_version, seal, unsealed

__all__ = ["BarrierStore", "Fingerprint"]

_Read = TypeVar("_Read")
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError, MemoryError)
_ADVICE = "'ase-kinoson check' names all that is wrong: restore the store from a copy, or delete the rows it names"
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
    "digest": ("Digest", "hashes of the row, which show whether it is as it was written", ""),
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
        self.retry = frozenset(retry)
        self._base = SharedDatabase(path)
        self._last: int | None = None
        self.name = self._base.name
        found = self._whole(self._base.metadata())
        if "ase_kinoson" not in found:
            found = self._base.describe(
                seal(
                    {
                        "title": title,
                        "default_columns": [
                            *("id", "kind", "state_key", "jump_index"),
                            "moving_species",
                            "status",
                            "barrier",
                        ],
                        "key_descriptions": {k: list(v) for k, v in _KEYS.items()},
                        "written_by": package_version(),
                        "ase_kinoson": fingerprint.as_dict(),
                    }
                )
            )
        self.fingerprint = fingerprint = fingerprint.as_stored(found["ase_kinoson"])
        difference = fingerprint.difference(found["ase_kinoson"])
        if difference:
            advice = "give another file, or delete this one to compute again"
            if found["ase_kinoson"].get("format") in OLDER:
                advice = f"run 'ase-kinoson upgrade {self.name}', which keeps a copy, or give another file"
            raise StoreError(f"the store {self.name!r} {difference}; {advice}")

    def _whole(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Refuse metadata that are newer, or damaged."""
        about = metadata.get("ase_kinoson", {})
        known = isinstance(about, dict)
        later = newer(about.get("format"), FORMAT, metadata) if known else ""
        if later:  # nothing is damaged: nothing to restore or to delete
            raise StoreError(f"the store {self.name!r} {later}, or give another file")
        wrong = unsealed(metadata)
        if not known or wrong:
            raise StoreError(
                f"the metadata of the store {self.name!r} cannot be used: {wrong or 'they say nothing of barriers'}; "
                f"expected those it was made with; {_ADVICE}"
            )
        return metadata

    # -- reading --------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, StateResult]:
        """Relaxed initial states by state key."""
        return {_plain_key(r): self._read(_state, r) for r in self._rows("state", data=True)}

    def jumps(self, *, positions: bool = False) -> dict[tuple[str, int], JumpResult]:
        """Finished searches by (state key, jump index).

        Parameters
        ----------
        positions
            Also read saddles and end states.
        """
        read = partial(_jump, positions=positions)
        return {self._read(_jump_key, r): self._read(read, r) for r in self._rows("jump", data=positions)}

    def news(self) -> tuple[dict[str, StateResult], dict[tuple[str, int], JumpResult]]:
        """Return states and jumps (without positions) written since the last call, by this process or another."""

        def read() -> list[AtomsRow]:
            with self._base.reading() as db:
                rows = self._verified(db.select([("id", ">", self._last or 0)], include_data=False))
                return [self._verified([db.get(id=row.id)])[0] if row.kind == "state" else row for row in rows]

        rows = self._base.guard(read)
        first = self._last is None  # what failed while we were busy has just been tried
        self._last = max([self._last or 0, *(int(row.id) for row in rows)])
        known = [row for row in rows if not (first and row.status in self.retry)]
        states = {_plain_key(r): self._read(_state, r) for r in known if r.kind == "state"}
        brief = partial(_jump, positions=False)
        return states, {self._read(_jump_key, r): self._read(brief, r) for r in known if r.kind == "jump"}

    def _rows(self, kind: str, *, data: bool) -> list[AtomsRow]:
        def read() -> list[AtomsRow]:
            with self._base.reading() as db:
                total, states, jumps = db.count(), db.count(kind="state"), db.count(kind="jump")
                if states + jumps != total:  # damaged tables, by which rows are selected, would hide some
                    raise StoreError(
                        f"the store {self.name!r} has {total} rows and finds {states} states and {jumps} jumps among "
                        f"them; expected all; {_ADVICE}"
                    )
                rows = self._verified(db.select(kind=kind, include_data=data))
                return [row for row in rows if row.status not in self.retry]

        return self._base.guard(read)

    def _verified(self, rows: Iterable[AtomsRow]) -> list[AtomsRow]:
        """Rows that are as they were written, as far as they have a digest."""

        def wrong(row: AtomsRow) -> str:
            text = wrong_pairs(row, _KEYS) or ("" if row.kind in ("state", "jump") else "it is of no known kind")
            if not text and not (isinstance(row.get("status"), str) and isinstance(row.get("state_key"), str)):
                text = "its status or state is no text"
            if text or not row._data:
                return text
            row._data = decode_content(row._data)
            return wrong_content(row, row._data)

        found = []
        try:
            for row in rows:
                text = wrong(row)
                if text:
                    raise StoreError(
                        f"row {row.get('id')} of the store {self.name!r} is damaged: {text}; expected it as it was "
                        f"written; {_ADVICE}"
                    )
                found.append(row)
        except (StoreError, sqlite3.Error):
            raise
        except _UNREADABLE as error:
            raise StoreError(
                f"the store {self.name!r} holds a row that cannot be read ({type(error).__name__}: {error}); expected "
                f"rows as they were written; {_ADVICE}"
            ) from error
        return found

    def _read(self, read: Callable[[AtomsRow], _Read], row: AtomsRow) -> _Read:
        """Take a result from a row."""
        try:
            return read(row)
        except _UNREADABLE as error:
            raise StoreError(
                f"row {row.get('id')} of the store {self.name!r} is incomplete ({type(error).__name__}: {error}); "
                f"expected all of a barrier; {_ADVICE}"
            ) from error

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
        clean["digest"] = row_digest(row.unique_id, clean, row, data)

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


def _jump_key(row: AtomsRow) -> tuple[str, int]:
    return _plain_key(row), int(row.jump_index)


def _state(row: AtomsRow) -> StateResult:
    return StateResult(
        status=row.status,
        reason=row.get("reason", ""),
        positions=np.array(row._data["positions"], dtype=float),
        energy=float(row.get("energy_initial", np.nan)),
        fmax=float(row.get("force_initial", np.nan)),
        force_calls=int(row.force_calls),
        path=tuple(row._data["path"]),
        wall_s=float(row.wall_time),
    )


def _jump(row: AtomsRow, positions: bool) -> JumpResult:
    def array(name: str) -> np.ndarray | None:
        return np.array(row._data[name], dtype=float) if positions and name in row._data else None

    return JumpResult(
        status=row.status,
        reason=row.get("reason", ""),
        energy_initial=float(row.get("energy_initial", np.nan)),
        energy_final=float(row.get("energy_final", np.nan)),
        energy_saddle=float(row.get("energy_saddle", np.nan)),
        fmax_final=float(row.get("force_final", np.nan)),
        fmax_saddle=float(row.get("force_saddle", np.nan)),
        force_calls=int(row.force_calls),
        path=tuple(row._data["path"]) if positions else (),
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
