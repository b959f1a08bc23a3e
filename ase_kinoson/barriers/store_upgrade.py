"""Stores of older formats become stores of this one: in one transaction, after a copy was made beside them."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from ase_kinoson.barriers.fingerprint import FORMAT, OLDER
from ase_kinoson.barriers.migrations import MIGRATIONS, NoMigrationError, migrate
from ase_kinoson.barriers.row_digest import row_digest
from ase_kinoson.barriers.store_check import read_row
from ase_kinoson.errors import StoreError
from ase_kinoson.seals import newer, package_version, parse_json, seal

__all__ = ["KIND", "upgrade_store"]

KIND = "ase_kinoson barrier store"


def upgrade_store(path: str | Path) -> Path | None:
    """Bring an SQLite store to the present format.

    Barriers, energies and positions stay as they are, bit for bit. Two rows of one state or one jump, which format 1
    allowed, become one: the later one, which is what that version read.

    Parameters
    ----------
    path
        The file. Nothing else should be using it.

    Returns
    -------
    Path or None
        The copy of what was there; None if there was nothing to do.

    Raises
    ------
    StoreError
        If it is no store, damaged, of a newer version, or there is no way to the present format. The file is then as
        it was.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"found no file {str(path)!r}; expected a barrier store; check the path")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            try:
                version = _version(connection, path)
                if version == FORMAT:
                    connection.execute("ROLLBACK")
                    return None
                copy = _copy(path, version)
                migrate(KIND, version, FORMAT, connection)
                answer = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
                if answer != ["ok"]:
                    raise sqlite3.DatabaseError(answer[0])
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    except NoMigrationError:
        raise StoreError(
            f"found no way from format {version} of the store {str(path)!r} to {FORMAT}; expected one of {OLDER}; "
            "give another file"
        ) from None
    except StoreError:
        raise
    except (sqlite3.Error, ValueError, TypeError, KeyError, OSError) as error:
        raise StoreError(
            f"the store {str(path)!r} cannot be upgraded ({type(error).__name__}: {' '.join(str(error).split())}); "
            "expected a whole database that may be written, and room for a copy; it is as it was: run 'ase-kinoson "
            "check' on it"
        ) from error
    return copy


def _version(connection: sqlite3.Connection, path: Path) -> int:
    answer = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
    if answer != ["ok"]:
        raise sqlite3.DatabaseError(answer[0])
    row = connection.execute("SELECT value FROM information WHERE name='metadata'").fetchone()
    metadata = parse_json(row[0]) if row else {}
    about = metadata.get("ase_kinoson") if isinstance(metadata, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise StoreError(f"{str(path)!r} holds no barriers; expected a barrier store; choose another file")
    wrong = newer(about["format"], FORMAT, metadata)
    if wrong:
        raise StoreError(f"the store {str(path)!r} {wrong}")
    return int(about["format"])


def _copy(path: Path, version: int) -> Path:
    """A copy that is whole on the disk before anything is changed; it never replaces one that is there."""
    target = next(
        place
        for n in range(1, 1000)
        if not (place := path.with_name(f"{path.name}.format-{version}{f'-{n}' if n > 1 else ''}")).exists()
    )
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # another connection reads while the first one holds the lock for writing: nobody changes it meanwhile
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=20)) as source,
            closing(sqlite3.connect(part)) as sink,
        ):
            source.backup(sink)
        handle = os.open(part, os.O_RDWR)  # Windows syncs no file that is open for reading only
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _store_1(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Rows get names, made from what they are about, and digests; of two about the same the later one stays."""
    found = connection.execute("SELECT value FROM information WHERE name='metadata'").fetchone()
    metadata: dict[str, Any] = json.loads(found[0])
    about = {**metadata["ase_kinoson"], "format": 2}
    about["settings"] = {k: v for k, v in about.get("settings", {}).items() if k not in ("time_limit_s", "max_calls")}
    settings = "settings-" + hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    last: dict[str, int] = {}
    rows: list[tuple[int, str]] = []
    for row, text in connection.execute("SELECT id, key_value_pairs FROM systems ORDER BY id"):
        pairs = parse_json(text)
        same = {"kind": pairs["kind"], "state_key": pairs["state_key"]}
        if pairs["kind"] == "jump":
            same["jump_index"] = int(pairs["jump_index"])
        name = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:32]
        rows.append((row, name))
        last[name] = row
    twice = Counter(name for _, name in rows)
    for row, name in rows:
        if twice[name] > 1 and last[name] != row:
            for table in ("species", "keys", "text_key_values", "number_key_values", "systems"):
                connection.execute(f"DELETE FROM {table} WHERE id=?", (row,))
            continue
        values = connection.execute("SELECT * FROM systems WHERE id=?", (row,)).fetchone()
        own = read_row(values)
        pairs = {**own.key_value_pairs, "settings_id": settings}
        pairs["digest"] = row_digest(name, pairs, own, own.data)
        connection.execute(
            "UPDATE systems SET unique_id=?, key_value_pairs=? WHERE id=?", (name, json.dumps(pairs), row)
        )
        connection.execute("UPDATE text_key_values SET value=? WHERE id=? AND key='settings_id'", (settings, row))
        connection.execute("INSERT INTO text_key_values VALUES ('digest', ?, ?)", (pairs["digest"], row))
        connection.execute("INSERT INTO keys VALUES ('digest', ?)", (row,))
    metadata["ase_kinoson"] = about
    metadata = seal({**metadata, "written_by": package_version()})
    connection.execute("UPDATE information SET value=? WHERE name='metadata'", (json.dumps(metadata),))
    return connection


MIGRATIONS[(KIND, 1)] = _store_1
