"""Whether a store of barriers is as it was written: read without ``ase.db``, and without writing a byte.

Beside the digests of rows and metadata, whatever is there twice is compared: the copies of keys that ``ase.db`` selects
by, numbers of atoms, the name of a row and what it names, barriers and energies, state keys and atoms, and jumps and
their reverse.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.database import strange_content
from ase_kinoson.barriers.fingerprint import FORMAT, OLDER
from ase_kinoson.barriers.row_digest import decode_content, wrong_content, wrong_pairs
from ase_kinoson.seals import newer, parse_json, unsealed

__all__ = ["StoreReport", "check_store"]

MOST = 20
"""Damaged rows that are named one by one."""
AGREE_EV = 0.02
"""Two searches, one from either end, find the same saddle: their energies differ by less, eV."""
_NUMBERS = ("barrier", "reverse_barrier", "energy_initial", "energy_final", "energy_saddle")


@dataclass
class StoreReport:
    """What was found in a store.

    Attributes
    ----------
    rows, verified : int
        Rows, and those whose digest is that of their content.
    wrong : list of str
        What is damaged.
    notes : list of str
        What somebody should look at, though no byte need be damaged.
    """

    rows: int = 0
    verified: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Row:
    """A row as the digests want it."""

    id: int
    unique_id: str
    numbers: NDArray
    positions: NDArray
    cell: NDArray
    pbc: NDArray
    energy: float | None
    calculator: str | None
    key_value_pairs: dict[str, Any]
    data: dict[str, Any]
    size: tuple[Any, ...]

    @property
    def _keys(self) -> list[str]:
        return list(self.key_value_pairs)

    def get(self, name: str) -> Any:
        return getattr(self, name)


def check_store(path: str | Path) -> StoreReport:
    """Check an SQLite store.

    Parameters
    ----------
    path
        The file; it is opened for reading only.

    Returns
    -------
    StoreReport
        Whatever is wrong; nothing is raised for damage.
    """
    report = StoreReport()
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            connection.execute("BEGIN")  # one view of it, whoever writes meanwhile
            _check(connection, report)
    except sqlite3.OperationalError as error:
        text = " ".join(str(error).split())
        if Path(f"{path}-journal").exists():
            text += "; a process was killed while it wrote: open it once for writing, which takes that back"
        report.wrong.append(f"it cannot be read: {text}")
    except (sqlite3.Error, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        report.wrong.append(f"it is no whole database ({' '.join(str(error).split())[:200]})")
    return report


def _check(connection: sqlite3.Connection, report: StoreReport) -> None:
    answers = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
    if answers != ["ok"]:
        report.wrong.append(f"SQLite finds: {'; '.join(' '.join(a.split()) for a in answers[:3])[:300]}")
        return
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    strange = "no table 'systems'" if "systems" not in tables else strange_content(connection)
    if strange:
        report.wrong.append(f"it is no barrier store: {strange}")
        return
    found = connection.execute("SELECT value FROM information WHERE name='metadata'").fetchone()
    metadata = parse_json(found[0]) if found else {}
    about = metadata.get("ase_kinoson") if isinstance(metadata, dict) else None
    if not isinstance(about, dict):
        report.wrong.append("its metadata say nothing of barriers")
        return
    version = about.get("format")
    wrong = newer(version, FORMAT, metadata) or unsealed(metadata)
    if wrong or version not in (FORMAT, *OLDER):
        report.wrong.append(f"its metadata: {wrong or f'format {str(version)[:20]}, which is none'}")
        return
    if version in OLDER:
        report.notes.append(f"format {version} is older than {FORMAT}: 'ase-kinoson upgrade' brings it up to date")
    settings = "settings-" + hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    _check_rows(connection, report, version, settings)


# -- rows -------------------------------------------------------------------------------------------------------------


def _check_rows(connection: sqlite3.Connection, report: StoreReport, version: int, settings: str) -> None:
    from ase_kinoson.barriers.store import _KEYS

    copies = [_Copies(connection, table) for table in ("text_key_values", "number_key_values", "keys", "species")]
    names: set[str] = set()
    pairs = _Partners()
    bad = last = 0
    for values in connection.execute("SELECT * FROM systems ORDER BY id"):
        report.rows += 1
        last = int(values[0])
        beside = [copy.of(last) for copy in copies]
        try:
            row = read_row(values)
            wrong = wrong_pairs(row, _KEYS) or wrong_content(row, row.data) or _wrong_row(row, beside)
            if not wrong and version >= 2:
                wrong = _wrong_name(row, names)
            if not wrong and version == FORMAT and row.key_value_pairs.get("settings_id") != settings:
                wrong = "it belongs to other settings than the store"
            if not wrong:
                report.verified += "digest" in row.key_value_pairs
                wrong = pairs.add(row)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
            wrong = f"it cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
        if wrong:
            bad += 1
            if bad <= MOST:
                report.wrong.append(f"row {last}: {wrong}")
    if bad > MOST:
        report.wrong.append(f"and {bad - MOST} more rows")
    for copy in copies:
        if copy.orphans():
            report.wrong.append(f"the table {copy.table!r} names rows that are not there")
    top = connection.execute("SELECT seq FROM sqlite_sequence WHERE name='systems'").fetchall()
    if report.rows and (len(top) != 1 or not isinstance(top[0][0], int) or top[0][0] < last):
        report.wrong.append(f"its counter of rows does not reach the last one, {last}")
    report.notes += pairs.notes()
    if report.rows and report.verified < report.rows and not bad:
        report.notes.append(
            f"{report.rows - report.verified} rows were written before digests: damage in their numbers cannot be found"
        )


class _Copies:
    """Entries of one of the tables that ``ase.db`` selects by, row after row."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self.table = table
        what = {"keys": "key, 1", "species": "Z, n"}.get(table, "key, value")
        found = connection.execute(f"SELECT id, {what} FROM {table} ORDER BY id")
        self._groups = itertools.groupby(found, key=lambda entry: entry[0])
        self._next: tuple[Any, list[tuple[Any, Any]]] | None = None
        self._lost = 0
        self._step()

    def _step(self) -> None:
        group = next(self._groups, None)
        self._next = None if group is None else (group[0], [(entry[1], entry[2]) for entry in group[1]])

    def of(self, row: int) -> list[tuple[Any, Any]]:
        """Entries of a row; rows must be asked for in order."""
        while self._next is not None and (not isinstance(self._next[0], int) or self._next[0] < row):
            self._lost += 1
            self._step()
        if self._next is None or self._next[0] != row:
            return []
        found = self._next[1]
        self._step()
        return found

    def orphans(self) -> bool:
        """Whether there were entries of no row."""
        return self._lost > 0 or self._next is not None


def read_row(values: tuple[Any, ...]) -> _Row:
    """A row of the table ``systems``, without ``ase.db``."""
    pairs = parse_json(values[25])
    if not isinstance(pairs, dict):
        raise ValueError("no key-value pairs")
    numbers = np.frombuffer(values[5], "<i4")
    positions = np.frombuffer(values[6], "<f8").reshape(-1, 3)
    rest = (*values[9:15], *values[18:25])
    if any(value is not None for value in rest):
        raise ValueError("a column is filled that barriers do not use")
    if values[15] is not None and parse_json(values[16]) != {}:
        raise ValueError("its calculator has parameters")
    return _Row(
        int(values[0]),
        str(values[1]),
        numbers,
        positions,
        np.frombuffer(values[7], "<f8").reshape(3, 3),
        np.array([bool(int(values[8]) & bit) for bit in (1, 2, 4)]),
        values[17],
        values[15],
        pairs,
        decode_content(values[26]),
        tuple(values[27:33]),
    )


def _wrong_row(row: _Row, beside: list[list[tuple[Any, Any]]]) -> str:
    """What of a row contradicts itself."""
    from ase.data import atomic_masses

    pairs = row.key_value_pairs
    texts, numbers, keys, species = beside
    if sorted(texts) != sorted((k, v) for k, v in pairs.items() if isinstance(v, str)):
        return "its texts differ from those it is selected by"
    if sorted(numbers) != sorted((k, float(v)) for k, v in pairs.items() if not isinstance(v, str)):
        return "its numbers differ from those it is selected by"
    if sorted(k for k, _ in keys) != sorted(pairs):
        return "its keys differ from those it is selected by"
    kinds, counts = np.unique(row.numbers, return_counts=True)
    if sorted(species) != list(zip(kinds.tolist(), counts.tolist(), strict=True)):
        return "its atoms differ from those it is selected by"
    if (len(kinds) and (kinds[0] < 0 or kinds[-1] >= len(atomic_masses))) or len(row.numbers) != len(row.positions):
        return "its atoms are none"
    natoms, fmax, smax, volume, mass, charge = row.size
    volume_is = abs(float(np.linalg.det(row.cell)))
    if natoms != len(row.numbers) or fmax is not None or smax is not None or charge not in (0.0, None):
        return "its numbers of atoms, forces or charges are wrong"
    if (volume is not None and not math.isclose(volume, volume_is, rel_tol=1e-9)) or not math.isclose(
        mass, float(atomic_masses[row.numbers].sum()), rel_tol=1e-9
    ):
        return "its volume or mass is wrong"
    if not (np.isfinite(row.positions).all() and np.isfinite(row.cell).all()):
        return "its positions are not finite"
    if any(isinstance(v, float) and not math.isfinite(v) for v in pairs.values()):
        return "its numbers are not finite"
    arrays = [value for value in row.data.values() if isinstance(value, np.ndarray)]
    if any(not np.isfinite(array).all() for array in arrays):
        return "its arrays are not finite"
    return _wrong_energies(pairs, row.energy)


def _wrong_energies(pairs: Mapping[str, Any], energy: float | None) -> str:
    known = {name: float(pairs[name]) for name in _NUMBERS if name in pairs}
    kept = known.get("energy_initial" if pairs.get("kind") == "state" else "energy_saddle")
    if kept != energy:
        return f"it has the energy {energy} and names {kept}"
    if pairs.get("kind") != "jump" or pairs.get("status") != "ok":
        return ""
    if len(known) < len(_NUMBERS):
        return f"it is ok and has no {next(n for n in _NUMBERS if n not in known)}"
    for barrier, end in (("barrier", "energy_initial"), ("reverse_barrier", "energy_final")):
        wanted = known["energy_saddle"] - known[end]
        if abs(known[barrier] - wanted) > 1e-9:
            return f"its {barrier.replace('_', ' ')} is {known[barrier]:.6f} eV and its energies say {wanted:.6f} eV"
    return ""


def _wrong_name(row: _Row, names: set[str]) -> str:
    """A name is the hash of what a row is about, and there once."""
    pairs = row.key_value_pairs
    same = {"kind": pairs["kind"], "state_key": pairs["state_key"]}
    if pairs["kind"] == "jump":
        same["jump_index"] = int(pairs["jump_index"])
    elif pairs["kind"] != "state":
        return f"it is a {str(pairs['kind'])[:20]!r}, which there is not"
    if row.unique_id != hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:32]:
        return "its name is not that of what it holds"
    if row.unique_id in names:
        return "it is there twice"
    names.add(row.unique_id)
    return ""


# -- states and reverse jumps -----------------------------------------------------------------------------------------


class _Partners:
    """State keys recomputed from atoms, and the two searches of one saddle compared."""

    def __init__(self) -> None:
        self._order: tuple[int, ...] | None = None
        self._states: dict[str, NDArray[np.int8]] = {}
        self._jumps: dict[tuple[str, int, int], tuple[int, float, float]] = {}

    def add(self, row: _Row) -> str:
        """Take a row; return what is wrong with the key of a state."""
        pairs = row.key_value_pairs
        key = str(pairs["state_key"])
        if pairs["kind"] == "jump":
            if pairs["status"] == "ok" and pairs.get("descents") in (None, "both-ends"):
                ends = int(pairs["carrier_site"]), int(pairs["target_site"])
                self._jumps[(key, *ends)] = (row.id, float(pairs["barrier"]), float(pairs["reverse_barrier"]))
            return ""
        sites, kinds = np.asarray(row.data.get("sites")), row.numbers
        if sites.shape != kinds.shape or sites.dtype.kind != "i" or len(np.unique(sites)) != len(sites):
            return "its sites are none"
        n_sites = len(sites) + 1  # one vacancy; other cells are not recomputed
        if len(sites) == 0 or sites.min() < 0 or sites.max() >= n_sites:
            return ""
        if self._order is None or not set(kinds.tolist()) <= set(self._order):
            species = sorted(set(kinds.tolist()) | set(self._order or ()))
            tried = itertools.permutations(species) if len(species) <= 6 else iter(())
            self._order = next((o for o in tried if _key(_codes(sites, kinds, o, n_sites)) == key), None)
            if self._order is None:
                return ""
        codes = _codes(sites, kinds, self._order, n_sites)
        if _key(codes) != key:
            return "its atoms are not those of its state"
        self._states[key] = codes
        return ""

    def notes(self) -> list[str]:
        """Reverse jumps whose barriers differ."""
        worst, count = (0.0, 0, 0), 0
        for (key, carrier, target), (row, barrier, reverse) in self._jumps.items():
            codes = self._states.get(key)
            if codes is None or not 0 <= max(carrier, target) < len(codes):
                continue
            after = codes.copy()
            after[[carrier, target]] = after[[target, carrier]]
            partner = self._jumps.get((_key(after), target, carrier))
            if partner is None or partner[0] <= row:
                continue
            gap = max(abs(barrier - partner[2]), abs(reverse - partner[1]))
            if gap > AGREE_EV:
                count += 1
                worst = max(worst, (gap, row, partner[0]))
        if not count:
            return []
        gap, row, other = worst
        return [
            f"{count} jumps and their reverse have barriers more than {1000 * AGREE_EV:.0f} meV apart, at most "
            f"{1000 * gap:.0f} meV (rows {row} and {other}): two searches found two saddles"
        ]


def _codes(sites: NDArray, kinds: NDArray, order: tuple[int, ...], n_sites: int) -> NDArray[np.int8]:
    codes = np.zeros(n_sites, dtype=np.int8)
    codes[sites] = [order.index(z) + 1 for z in kinds.tolist()]
    return codes


def _key(codes: NDArray[np.int8]) -> str:
    from ase_kinoson.barriers.store import _PREFIX

    return _PREFIX + hashlib.sha256(codes.tobytes()).hexdigest()[:20]
