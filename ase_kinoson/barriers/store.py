"""Where finished barriers are kept: an ase.db database with one row per relaxed state and per finished jump.

The database is an ordinary one: ``ase db FILE -c++`` lists it, ``ase db FILE kind=jump,status=ok`` selects. Each row
is written in one transaction as soon as it is known, so an interruption at any moment loses only the searches in
flight. SQLite's own locks are used (no lock file that a killed process would leave behind).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import ase.db
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.row import AtomsRow

from ase_kinoson.barriers.saddle import Hop, Host, JumpResult, SaddleSettings, StateResult
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import StoreError

__all__ = ["BarrierStore", "Fingerprint"]

FORMAT = 1
"""Version of the schema."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
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
    "force_calls": ("Force calls", "including failed attempts", ""),
    "wall_time": ("Wall time", "", "s"),
    "settings_id": ("Settings", "hash of the fingerprint in the metadata", ""),
}


@dataclass(frozen=True)
class Fingerprint:
    """What a store belongs to.

    Attributes
    ----------
    supercell, network
        Fingerprints of :class:`Supercell` and :class:`JumpNetwork`.
    calculator
        Name of the calculator.
    parameters
        Its parameters as far as they are plain values.
    settings
        Saddle search.
    """

    supercell: str
    network: str
    calculator: str
    parameters: Mapping[str, Any]
    settings: SaddleSettings

    @classmethod
    def of(
        cls,
        supercell: Supercell,
        network: JumpNetwork,
        *,
        calculator: str,
        parameters: Mapping[str, Any] | None = None,
        settings: SaddleSettings | None = None,
    ) -> Fingerprint:
        """Fingerprint of a study."""
        return cls(
            supercell.fingerprint, network.fingerprint, calculator, dict(parameters or {}), settings or SaddleSettings()
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values, as stored."""
        return json.loads(json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, default=str))

    @property
    def id(self) -> str:
        """Short stable name."""
        return "settings-" + hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]


_NAMES = {
    "format": "format of the store",
    "supercell": "supercell or composition",
    "network": "jump network",
    "calculator": "calculator",
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

    Raises
    ------
    StoreError
        If the file is no database, damaged, or belongs to another study.
    """

    def __init__(self, path: str | Path, fingerprint: Fingerprint, *, title: str = "reference barriers") -> None:
        self.name = str(path)
        self.fingerprint = fingerprint
        url = re.match(r"^[a-z]+(\+[a-z]+)?://", self.name)
        if url is None:
            folder = Path(self.name).absolute().parent
            if not folder.is_dir():
                raise StoreError(
                    f"found no folder {str(folder)!r} for the store; expected an existing one; create it or "
                    "correct the path"
                )
        try:
            if url is None:
                self._db = ase.db.connect(self.name, type="db", use_lock_file=False, serial=True)
            else:
                self._db = ase.db.connect(self.name)
        except Exception as error:
            raise StoreError(
                f"cannot connect to the store {self.name!r} ({error}); expected a file path or a database URL "
                "known to ase.db; "
                "correct it, and install ase-db-backends for PostgreSQL or MySQL"
            ) from error
        if url is None:
            self._guard(self._inspect)
        self._guard(lambda: self._open(title))

    # -- opening --------------------------------------------------------------------------------------------------

    def _inspect(self) -> None:
        """Refuse an existing file that is no ase.db, before ASE adds its tables to it."""
        path = Path(self.name)
        if not path.exists() or path.stat().st_size == 0:
            return
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=20)
        try:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        finally:
            connection.close()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer.splitlines()[0])
        if tables and "systems" not in tables:
            raise StoreError(
                f"{self.name!r} is a database of something else (tables {tables[:4]}); expected a barrier store or no "
                "file; choose another file"
            )

    def _open(self, title: str) -> None:
        with self._db:
            metadata = self._db.metadata
            found = metadata.get("ase_kinoson")
            if found is None:
                if self._db.count() > 0:
                    raise StoreError(
                        f"{self.name!r} holds rows that are no barriers of this package; expected a barrier store "
                        "or no file; "
                        "choose another file"
                    )
                self._db.metadata = {
                    "title": title,
                    "default_columns": ["id", "kind", "state_key", "jump_index", "moving_species", "status", "barrier"],
                    "key_descriptions": {k: list(v) for k, v in _KEYS.items()},
                    "ase_kinoson": self.fingerprint.as_dict(),
                }
                return
            self._compare(found)

    def _compare(self, found: Mapping[str, Any]) -> None:
        expected = self.fingerprint.as_dict()
        for key in ("format", "supercell", "network", "calculator"):
            if found.get(key) != expected[key]:
                self._refuse(_NAMES[key], found.get(key), expected[key])
        for group, label in (("parameters", "calculator parameter"), ("settings", "saddle setting")):
            old, new = found.get(group, {}), expected[group]
            for key in sorted(set(old) | set(new)):
                if old.get(key) != new.get(key):
                    self._refuse(f"{label} {key!r}", old.get(key), new.get(key))

    def _refuse(self, what: str, found: Any, expected: Any) -> None:
        raise StoreError(
            f"the store {self.name!r} belongs to another study: found {what} {found!r}, expected {expected!r}; "
            "give another file, "
            "or delete this one to compute again"
        )

    def _guard(self, action: Callable[[], _T]) -> _T:
        """Run an action on the database; wait while another process holds it, and explain other failures."""
        delay, waited = 0.05, 0.0
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                busy = any(word in str(error).lower() for word in ("locked", "busy", "already exists"))
                if not busy or waited > 120:
                    raise StoreError(
                        f"the store {self.name!r} cannot be used ({error}); expected a writable database; check "
                        "permissions, free "
                        "space and other processes that hold it"
                    ) from error
                _log.info("store %s is locked by another process; trying again in %.2f s", self.name, delay)
                time.sleep(delay)
                waited, delay = waited + delay, min(2.0, 2 * delay)
            except (sqlite3.DatabaseError, json.JSONDecodeError, OSError, UnicodeDecodeError) as error:
                raise StoreError(
                    f"{self.name!r} is not a barrier store or is damaged ({error}); expected an SQLite database "
                    "written by this "
                    "package; restore it from a copy, or delete it and compute again"
                ) from error

    # -- reading --------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, StateResult]:
        """Relaxed initial states by state key."""
        return self._guard(lambda: {_plain_key(r): _state(r) for r in self._rows("state", data=True)})

    def jumps(self, *, positions: bool = False) -> dict[tuple[str, int], JumpResult]:
        """Finished searches by (state key, jump index).

        Parameters
        ----------
        positions
            Also read saddles and end states.
        """
        return self._guard(
            lambda: {
                (_plain_key(r), int(r.jump_index)): _jump(r, positions) for r in self._rows("jump", data=positions)
            }
        )

    def _rows(self, kind: str, *, data: bool) -> list[AtomsRow]:
        with self._db:
            return list(self._db.select(kind=kind, include_data=data))

    def __len__(self) -> int:
        def count() -> int:
            with self._db:
                return int(self._db.count(kind="jump"))

        return self._guard(count)

    # -- writing --------------------------------------------------------------------------------------------------

    def write_state(self, key: str, host: Host, result: StateResult, *, carrier: int) -> None:
        """Write a relaxed initial state, unless it is there."""
        self._write(
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
            {"path": list(result.path), "sites": host.sites, "positions": result.positions},
            self._with_energy(host.atoms(result.positions), result.energy),
            {"kind": "state", "state_key": _PREFIX + key},
        )

    def write_jump(
        self, key: str, jump: int, host: Host, hop: Hop, result: JumpResult, *, carrier: int, target: int
    ) -> None:
        """Write a finished search, unless it is there."""
        ok = result.status == "ok"
        data: dict[str, Any] = {"path": list(result.path), "mover": hop.mover}
        if result.final_positions is not None:
            data["final_positions"] = result.final_positions
        if result.saddle_positions is not None:
            data["saddle_positions"] = result.saddle_positions
        self._write(
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
                "wall_time": float(result.wall_s),
            },
            data,
            self._with_energy(host.atoms(result.saddle_positions), result.energy_saddle),
            {"kind": "jump", "state_key": _PREFIX + key, "jump_index": int(jump)},
        )

    def _with_energy(self, atoms: Atoms, energy: float) -> Atoms:
        if np.isfinite(energy):
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
            atoms.calc.name = self.fingerprint.calculator.lower()
        return atoms

    def _write(self, pairs: dict[str, Any], data: dict[str, Any], atoms: Atoms, same: dict[str, Any]) -> None:
        clean = {k: v for k, v in pairs.items() if v != "" and not (isinstance(v, float) and not np.isfinite(v))}
        clean["settings_id"] = self.fingerprint.id

        def write() -> None:
            with self._db:
                connection = getattr(self._db, "connection", None)
                if isinstance(connection, sqlite3.Connection):
                    connection.execute("BEGIN IMMEDIATE")  # look and write in one transaction
                if next(self._db.select(limit=1, include_data=False, **same), None) is None:
                    self._db.write(atoms, key_value_pairs=clean, data=data)

        self._guard(write)


def _text(reason: str) -> str:
    """Reasons are sentences; a bare number would be refused by ase.db."""
    text = " ".join(reason.split())
    return f"reason: {text}" if text and " " not in text else text


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
    )
