"""Single flipped bits in good files: `check_files` must find each, or the file must still hold the very same content.

What holds nothing: free bytes of database pages and of the header of SQLite, times and flags in the headers of a zip
archive. They are counted apart, by what they are, and so are the times and the last digits of volume and mass that
``ase.db`` writes into a row and nothing reads.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase_kinoson.integrity import Finding, check_files
from ase_kinoson.npz import read_npz
from tests.fuzz.good_files import MAKERS, files_of

__all__ = ["Flips", "flip_bits"]

Check = Callable[[Path], list[Finding]]


@dataclass(frozen=True)
class Flips:
    """What became of flipped bits of one kind of file.

    Attributes
    ----------
    kind : str
    tried, found : int
    harmless : dict of str to int
        Flips that changed no content, by where they were.
    missed : list of str
        Flips that changed content and were not found; must be empty.
    """

    kind: str
    tried: int
    found: int
    harmless: dict[str, int] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rest = ", ".join(f"{n} in {where}" for where, n in sorted(self.harmless.items())) or "none"
        return f"{self.kind}: {self.tried} flips, {self.found} found, harmless: {rest}; missed: {len(self.missed)}"


def flip_bits(kind: str, n: int, seed: int = 0, *, check: Check = check_files) -> Flips:
    """Flip ``n`` bits, one at a time, in the files of one kind.

    Parameters
    ----------
    kind
        One of ``MAKERS``.
    n
        Number of flips.
    seed
        Of their places.
    check
        What must find them; a twin that looks at nothing must fail.
    """
    files = files_of(kind)
    names = sorted(files)
    rng = random.Random(f"{kind}/{seed}")
    found, harmless, missed = 0, Counter[str](), []
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        whole = {name: _content(folder / name) for name in names}
        for _ in range(n):
            (name,) = rng.choices(names, [len(files[name]) for name in names])
            place = rng.randrange(8 * len(files[name]))
            changed = bytearray(files[name])
            changed[place // 8] ^= 1 << place % 8
            (folder / name).write_bytes(changed)
            if any(f.state in ("damaged", "unknown") for f in check(folder)):
                found += 1
            else:
                what = _where(whole[name], folder / name, place // 8)
                if what:
                    harmless[what] += 1
                else:
                    missed.append(f"{name}: bit {place % 8} of byte {place // 8}")
            (folder / name).write_bytes(files[name])
    return Flips(kind, n, found, dict(harmless), missed)


def _where(before: Mapping[str, Any], path: Path, byte: int) -> str:
    """Where the flip was if it changed no content; empty if it did."""
    try:
        after = _content(path)
    except Exception:
        return ""
    if after == before:
        return {".db": "free bytes of the database", ".npz": "headers of the zip archive"}.get(
            path.suffix, "the writing of a number or text"
        )
    if path.suffix == ".db" and {**after, "times": None} == {**before, "times": None}:
        return "times of rows, last digits of volumes"
    return ""


def _content(path: Path) -> dict[str, Any]:
    if path.suffix == ".db":
        return _tables(path)
    if path.suffix == ".npz":
        return {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in read_npz(path).items()}
    if path.suffix == ".json":
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {"bytes": path.read_bytes()}


def _tables(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT * FROM systems ORDER BY id").fetchall()
        # times, and volume and mass, which check compares with the atoms to nine digits, are read by nobody
        found: dict[str, Any] = {"systems": [(*row[:2], *row[5:30], row[32]) for row in rows]}
        found["times"] = [(*row[2:5], *row[30:32]) for row in rows]
        for table in ("species", "keys", "text_key_values", "number_key_values", "information"):
            found[table] = sorted(map(repr, connection.execute(f"SELECT * FROM {table}")))
        schema = connection.execute("SELECT type, tbl_name, sql FROM sqlite_master").fetchall()
        # remarks, and the names of indices, say nothing to SQLite
        found["schema"] = sorted((t, n, re.sub(r"--.*|index \S+", "", (sql or "").lower())) for t, n, sql in schema)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("kinds", nargs="*", default=list(MAKERS))
    arguments = parser.parse_args()
    for one in arguments.kinds:
        result = flip_bits(one, arguments.n, arguments.seed)
        print(result, *result.missed[:10], sep="\n   ", flush=True)
