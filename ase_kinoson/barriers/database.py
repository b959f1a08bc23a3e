"""One ase.db database that several processes, killed at any moment, may fill at once.

SQLite's own locks are used (no lock file that a killed process would leave behind), and an advisory lock of PostgreSQL,
whose back-end reads the number of a new row from a counter that all writers share. A transaction is written wholly or
not at all.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import ase.db

from ase_kinoson.barriers.row_digest import decode_plain
from ase_kinoson.errors import KinosonError, StoreError
from ase_kinoson.seals import parse_json

__all__ = ["SharedDatabase"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PATIENCE_S = 120.0
"""How long to wait for a database that another process holds, or for a server that restarts."""
_LOCK = 0x6B696E6F
"""Number of the advisory lock."""
_PASSING = ("OperationalError", "InterfaceError", "AdminShutdown", "CannotConnectNow", "DeadlockDetected")
"""Errors of a server that go away when one waits."""


@cache
def _tables() -> dict[str, list[str]]:
    """Tables that this version of ``ase.db`` makes, and their columns."""
    from ase.db.sqlite import init_statements

    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in init_statements:
            connection.execute(statement)
        names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: _columns(connection, name) for name in names}


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]


def strange_content(connection: sqlite3.Connection) -> str:
    """Say what a database holds that ``ase.db`` has not made; empty if nothing.

    Views and triggers would be run, and further tables be read, by whoever opens it.

    Parameters
    ----------
    connection
        To an SQLite database.
    """
    for kind, name, table in connection.execute("SELECT type, name, tbl_name FROM sqlite_master"):
        if str(name).startswith("sqlite_stat"):  # of 'ase db --analyse'; nobody else may use such names
            continue
        if kind not in ("table", "index") or table not in _tables():
            return f"the {kind} {str(name)[:40]!r}"
    for table, columns in _tables().items():
        if _columns(connection, table) != columns:
            return f"other columns in the table {table!r}"
    names = [str(row[0]) for row in connection.execute("SELECT name FROM information")]
    if sorted(names) not in (["metadata", "version"], ["version"]):
        return f"the information {sorted(set(names) - {'metadata', 'version'})[:3]}"
    version = str(connection.execute("SELECT value FROM information WHERE name='version'").fetchone()[0])
    return "" if version.isdecimal() and len(version) < 9 else f"the version {version[:20]!r}"


class SharedDatabase:
    """An ase.db database.

    Parameters
    ----------
    path
        File of an SQLite database (made if missing), or the URL of a database that ``ase.db`` knows.

    Attributes
    ----------
    name
        The path, or the URL without its password.

    Raises
    ------
    StoreError
        If it cannot be connected to, is damaged, or is no ase.db.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.remote = re.match(r"^[a-z]+(\+[a-z]+)?://", self.path) is not None
        self.name = re.sub(r"//([^:/@]*):[^@/]*@", r"//\1:***@", self.path) if self.remote else self.path
        self._patience = 0.1 if self.remote else PATIENCE_S  # a wrong address shall be told at once
        if not self.remote:
            folder = Path(self.path).absolute().parent
            if not folder.is_dir():
                raise StoreError(
                    f"found no folder {str(folder)!r} for the store; expected an existing one; create it or correct "
                    "the path"
                )
        try:
            if self.remote:
                self._db = ase.db.connect(self.path)
            else:
                self._db = ase.db.connect(self.path, type="db", use_lock_file=False, serial=True)
                self._db.decode = decode_plain  # ase.db's own builds any object that a row names
        except Exception as error:
            raise StoreError(
                f"cannot connect to the store {self.name!r} ({error}); expected a file path or a database URL known "
                "to ase.db; correct it, and install ase-db-backends and psycopg2-binary for PostgreSQL"
            ) from error
        if not self.remote and self.guard(self._is_new):
            self.guard(self._make_tables)
        if self.remote:
            self.guard(self._make_tables)

    def _is_new(self) -> bool:
        """Refuse an existing file that is no ase.db, before ASE adds its tables to it.

        Opened for writing where that is allowed: only so can SQLite take back what a killed process left half-written.
        """
        path = Path(self.path)
        if not path.exists() or path.stat().st_size == 0:
            return True
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)
        try:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            strange = strange_content(connection) if answer == "ok" and "systems" in tables else ""
        finally:
            connection.close()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer.splitlines()[0])
        if tables and "systems" in tables and strange:
            raise StoreError(
                f"{self.name!r} holds {strange}, which no barrier store has; expected the tables of ase.db alone; "
                "choose another file"
            )
        if tables and "systems" not in tables:
            raise StoreError(
                f"{self.name!r} is a database of something else (tables {tables[:4]}); expected a barrier store or no "
                "file; choose another file"
            )
        return not tables

    def _make_tables(self) -> None:
        with self.writing() as db:
            db.count()

    # -- transactions ---------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Give the connected ``ase.db`` database."""
        try:
            with self._db as db:
                connection = db.connection
                if not hasattr(connection, "rollback"):  # ase-db-backends 0.11: an error would hide behind this one
                    connection.rollback = connection.con.rollback
                yield db
        finally:
            left, self._db.connection = self._db.connection, None
            if left is not None:  # a commit that failed (a full disk) leaves it open; closing takes everything back
                left.close()

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Give the connected database to this process alone; committed when the outermost call ends."""
        if self._db.connection is not None:
            yield self._db
            return
        with self.reading() as db:
            if db.type == "db":
                db.connection.execute("BEGIN IMMEDIATE")
            elif db.type == "postgresql":
                db.connection.cursor().execute(f"SELECT pg_advisory_lock({_LOCK})")  # until the connection closes
            yield db

    def guard(self, action: Callable[[], _T]) -> _T:
        """Run an action; wait while another process holds the database, and explain other failures.

        Within a transaction it does nothing: only the whole of it can be tried again, on a new connection.

        Raises
        ------
        StoreError
            If the database cannot be used.
        """
        if self._db.connection is not None:
            return action()
        delay, began = 0.05, time.monotonic()
        while True:
            try:
                result = action()
                self._patience = PATIENCE_S
                return result
            except StoreError:
                raise
            except Exception as error:
                if not self._known(error):
                    raise
                if not self._passes(error) or time.monotonic() - began > self._patience:
                    self._patience = min(self._patience, 1.0)  # who goes on without it shall not wait every time
                    raise StoreError(self._explain(error)) from error
                _log.info("store %s: %s; trying again in %.2f s", self.name, error, delay)
                time.sleep(delay)
                delay = min(2.0, 2 * delay)

    @staticmethod
    def _known(error: Exception) -> bool:
        if type(error).__module__.split(".")[0] in ("psycopg2", "pymysql"):
            return True
        return isinstance(error, sqlite3.DatabaseError | ValueError | OSError | UnicodeDecodeError) and not isinstance(
            error, KinosonError
        )

    @staticmethod
    def _passes(error: Exception) -> bool:
        if isinstance(error, sqlite3.Error):
            return isinstance(error, sqlite3.OperationalError) and any(
                word in str(error).lower() for word in ("locked", "busy", "already exists")
            )
        return type(error).__name__ in _PASSING

    def _explain(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        if self.remote or isinstance(error, sqlite3.OperationalError | PermissionError):
            return (
                f"the store {self.name!r} cannot be used ({text}); expected a writable database; check permissions, "
                "free space and other processes that hold it"
            )
        return (
            f"{self.name!r} is not a barrier store or is damaged ({text}); expected an SQLite database written by this "
            "package; restore it from a copy, or delete it and compute again"
        )

    # -- the metadata ---------------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """Return what :meth:`describe` wrote; empty if nothing."""

        def read() -> dict[str, Any]:
            with self.reading() as db:
                return self._read_metadata(db)

        return self.guard(read)

    def describe(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Write the metadata, unless another process was faster; return what is there.

        Raises
        ------
        StoreError
            If the database holds rows already, which then belong to something else.
        """

        def write() -> dict[str, Any]:
            with self.writing() as db:
                found = self._read_metadata(db)
                if "ase_kinoson" in found:
                    return found
                cursor = db.connection.cursor()
                cursor.execute("SELECT COUNT(*) FROM systems")
                if cursor.fetchone()[0] > 0:
                    raise StoreError(
                        f"{self.name!r} holds rows that are no barriers of this package; expected a barrier store or "
                        "no file; choose another file"
                    )
                cursor.execute("DELETE FROM information WHERE name='metadata'")
                cursor.execute("INSERT INTO information VALUES (?, ?)", ("metadata", json.dumps(metadata)))
                return metadata

        return self.guard(write)

    @staticmethod
    def _read_metadata(db: Any) -> dict[str, Any]:
        cursor = db.connection.cursor()
        cursor.execute("SELECT value FROM information WHERE name='metadata'")
        row = cursor.fetchone()
        if not row:
            return {}
        found = parse_json(row[0])
        if not isinstance(found, dict):
            raise sqlite3.DatabaseError("its metadata are no mapping")
        return found
