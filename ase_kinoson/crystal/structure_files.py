"""Structure files as people give them: which formats are read, and how far a file is believed.

The format follows from the name, or else from the contents, and is one of a few whose readers neither run, import nor
unpickle anything. ASE knows many more, and would also take a name for a pattern, a database address or an index.
What a file announces is compared with what it holds before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sqlite3
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols

from ase_kinoson.errors import KinosonError, StructureError
from ase_kinoson.given_files import decoded, given_bytes, shown, unpacked

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["FORMATS", "MOST_ATOMS", "read_cif", "read_images", "structure_format"]

FORMATS = {
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "vasp",
    ".poscar": "vasp",
    ".contcar": "vasp",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".traj": "traj",
    ".json": "json",
    ".db": "db",
    ".xsf": "xsf",
    ".lmp": "lammps-data",
    ".data": "lammps-data",
    ".lammps-data": "lammps-data",
    ".pwi": "espresso-in",
    ".gen": "gen",
}
"""Suffixes and the names that ASE has for their formats; a further ``.gz``, ``.bz2`` or ``.xz`` is allowed."""

PACKED = {".gz": "gz", ".bz2": "bz2", ".xz": "xz"}
_WORDS = (("POSCAR", "vasp"), ("CONTCAR", "vasp"))
_MAGIC = ((b"- of Ulm", "traj"), (b"SQLite format 3\0", "db"))
_BINARY = ("traj", "db")

MOST_BYTES = 2**26
"""Largest structure file, 64 MiB; files with the images of bands may be eight times as large."""
MOST_CIF_BYTES = 2**22
"""Largest CIF, 4 MiB: pymatgen takes a minute for it."""
MOST_ATOMS = 200_000
"""Most atoms of one image."""
NEAREST_MASS = 0.3
"""Masses of a LAMMPS data file name an element if they are this near to it, u, and half as near to no other."""
MOST_DEPTH = 60
"""Of nested lists in a JSON database."""

Expected = "a structure file (CIF, POSCAR, extended XYZ, ASE trajectory or database, ...)"


def structure_format(path: str | Path, head: bytes = b"") -> str | None:
    """Format of a structure file by its name, or else by its first bytes; None if it is none that is read.

    Parameters
    ----------
    path
        The file; a suffix of compression is passed over.
    head
        Its first bytes, unpacked.
    """
    name = Path(path).name
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    known = FORMATS.get(Path(name).suffix.lower())
    if known is not None:
        return known
    for word, kind in _WORDS:
        if word in name:
            return kind
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"\d+[ \t]*\r?\n", first):
        return "extxyz"
    if re.match(rb"&(control|system)\b", first, re.IGNORECASE):
        return "espresso-in"
    return "cif" if re.match(rb"(#[^\n]*\n\s*)*data_", first) else None


def read_images(
    path: str | Path,
    *,
    every: bool = False,
    kind: str | None = None,
    most_bytes: int = MOST_BYTES,
    error: type[KinosonError] = StructureError,
) -> list[Atoms]:
    """Read the last image of a structure file, or all of them.

    Parameters
    ----------
    path
        The file.
    every
        All images instead of the last one.
    kind
        Format, one of the values of ``FORMATS``; default :func:`structure_format`.
    most_bytes
        Largest size of the file, and of what is packed in it.
    error
        Class of the error.

    Returns
    -------
    list of Atoms
        At least one.

    Raises
    ------
    KinosonError
        Of the class ``error``, if the file is missing, damaged, none of the formats, or too large.
    """
    path = Path(path)
    name = shown(path.name)
    data = _contents(path, most_bytes, error)
    kind = kind or structure_format(path, data[:2000])
    if kind is None:
        raise error(
            f"found {name}, of no known format; expected {Expected}; convert it with 'ase convert', or give it one of "
            f"the suffixes {' '.join(FORMATS)}"
        )
    try:
        source: Any
        if kind == "db":
            _check_database(path, data)
            source = str(path.resolve())  # absolute, so that no name looks like the address of a server
        else:
            text = "" if kind in _BINARY else _text(data, path, kind, error)
            source = io.BytesIO(data) if kind in _BINARY else io.StringIO(text)
            if kind == "cif":  # ASE wants bytes of it
                source = io.BytesIO(text.encode("utf-8"))
        # ASE sorts the atoms of LAMMPS by their numbers, but types that are names it leaves where they are
        kinds: dict[str, dict[str, Any]] = {"db": {"type": "db"}, "lammps-data": {"sort_by_id": False}}
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            images = ase.io.read(source, index=":" if every else -1, format=kind, **kinds.get(kind, {}))
        images = images if isinstance(images, list) else [images]
        if not images:
            raise ValueError("it holds no structure")
        if kind == "lammps-data":
            images = [atoms[np.argsort(atoms.arrays["id"], kind="stable")] for atoms in images]
        for atoms in images:
            if len(atoms) > MOST_ATOMS:
                raise ValueError(f"it holds {len(atoms)} atoms; at most {MOST_ATOMS} are read")
            if len(atoms) and not (atoms.numbers.min() >= 0 and atoms.numbers.max() < len(chemical_symbols)):
                raise ValueError("an atomic number is that of no element")
            if kind == "lammps-data":
                _check_elements(atoms, text)
    except KinosonError:
        raise
    except Exception as problem:  # readers of damaged files raise anything
        raise error(_cannot_read("ASE", path, problem)) from problem
    return images


def read_cif(path: str | Path) -> Structure:
    """Read the first structure of a CIF with its partial occupancies.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    StructureError
        If the file is missing, damaged, too large, or occupancies exceed 1.
    """
    from pymatgen.io.cif import CifParser

    path = Path(path)
    try:
        text = _text(_contents(path, MOST_CIF_BYTES, StructureError), path, "cif", StructureError)
    except ValueError as problem:
        if isinstance(problem, KinosonError):
            raise
        raise StructureError(_cannot_read("pymatgen", path, problem)) from None
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            return CifParser(io.StringIO(text)).parse_structures(primitive=False)[0]
        except Exception as problem:
            failed = problem
    above = False
    if any("occupanc" in str(w.message) for w in caught) or "occupanc" in str(failed):
        # pymatgen says of occupancies above 1 only that there is no structure
        with warnings.catch_warnings(), contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            CifParser(io.StringIO(text), occupancy_tolerance=1e6).parse_structures(primitive=False)
            above = True
        if above:
            raise StructureError(
                f"found occupancies above 1 in {shown(path.name)}; expected the occupancies of a site to sum to at "
                "most 1; correct _atom_site_occupancy"
            ) from failed
    raise StructureError(_cannot_read("pymatgen", path, failed)) from failed


def _cannot_read(who: str, path: Path, problem: Exception) -> str:
    reason = " ".join(str(problem).split()) or type(problem).__name__
    reason = reason if len(reason) <= 200 else reason[:200] + "…"
    reason = "".join(c if c.isprintable() else "?" for c in reason)
    return f"{who} cannot read {shown(path.name)} ({reason}); expected {Expected}; check the file, or write it again"


def _contents(path: Path, most: int, error: type[KinosonError]) -> bytes:
    data = given_bytes(path, expected=Expected, most=most, error=error)
    packed = PACKED.get(path.suffix.lower())
    if packed is not None:
        data = unpacked(data, packed, path, most=most, expected=Expected, error=error)
    return data


def _text(data: bytes, path: Path, kind: str, error: type[KinosonError]) -> str:
    if kind == "cif" and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):  # older ones have names of authors in Latin-1
        data = data.decode("utf-8-sig", errors="replace").encode()
    text = decoded(data, path, expected=Expected, error=error)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if kind == "extxyz":
        _check_extxyz(text)
    elif kind == "json":
        _check_json(text)
    elif kind == "cif":
        _check_cif(text)
    else:
        _check_counts(text, kind)
    return text


# -- what a file announces, against what it holds ---------------------------------------------------------------------

_COLUMNS = re.compile(r"[A-Za-z]:\s*([-+\w.]+)")
_HEADER = re.compile(r"Properties\s*=\s*(\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE)


def _check_extxyz(text: str) -> None:
    """The number of atoms of every frame and of columns: ASE believes both."""
    lines = text.split("\n")
    at = 0
    while at < len(lines) and lines[at].strip():
        try:
            n = int(lines[at])
        except ValueError:
            raise ValueError(f"found {shown(lines[at], 40)} for a number of atoms in line {at + 1}") from None
        rest = len(lines) - at - 2
        if not 0 < n <= min(rest, MOST_ATOMS):
            raise ValueError(
                f"found {shown(lines[at].strip(), 40)} for the number of atoms in line {at + 1}, where {max(rest, 0)} "
                f"lines follow and at most {MOST_ATOMS} atoms are read"
            )
        comment = lines[at + 1]
        if len(comment) > 10**6:
            raise ValueError(f"found a comment of {len(comment)} characters in line {at + 2}")
        for header in _HEADER.findall(comment):
            words = header.strip("\"'").split(":")[2::3]
            if not all(re.fullmatch(r"\d{1,3}", word.strip()) for word in words):
                raise ValueError(f"found columns {shown(header, 80)} in line {at + 2}")
        at += 2 + n
        while at < len(lines) and lines[at].lstrip().startswith("VEC"):
            at += 1


_COUNT = re.compile(r"(?<![\w.+-])\+?\d[\d_]{6,}(?![\w.])")


def _check_counts(text: str, kind: str) -> None:
    """Whole numbers beyond any count of atoms; of a POSCAR also the sum of its counts: ASE takes memory for them."""
    lines = text.split("\n")
    found = _COUNT.search("\n".join(lines[0 if kind == "gen" else 1 :]))  # the first line is a comment of most
    if found:
        raise ValueError(f"found the number {shown(found.group(), 40)}, which is that of no atoms")
    for line in lines[5:7] if kind == "vasp" else ():
        words = line.split("!")[0].split()
        total = sum(int(word) for word in words if word.isdecimal())
        if total > len(lines):
            raise ValueError(f"found {total} atoms announced in {len(lines)} lines")


_LABELS = re.compile(r"^[ \t]*Atom Type Labels\b.*\n\s*\n((?:[ \t]*\d+[ \t]+\S.*\n?)+)", re.MULTILINE)
_UNITS = re.compile(r"\bunits = (\w+)")


def _check_elements(atoms: Atoms, text: str) -> None:
    """LAMMPS numbers its types: ASE takes the nearest mass, or else type 1 for hydrogen and so on, without a word."""
    units = _UNITS.search(text.partition("\n")[0])  # so LAMMPS itself begins its files
    if units and units.group(1) not in ("metal", "real"):
        raise ValueError(f"its units are those of the style {units.group(1)}; write it in units of metal")
    rows = (line.split() for block in _LABELS.findall(text) for line in block.splitlines() if line.strip())
    labels = {int(row[0]): row[1] for row in rows}
    named = bool(labels) and set(labels.values()) <= set(chemical_symbols[1:])
    if not atoms.has("masses"):
        if not named:
            raise ValueError("it says of no type which element it is: add a section Masses, or element names as labels")
        return
    kinds = zip(atoms.numbers.tolist(), atoms.get_masses().tolist(), atoms.arrays["type"].tolist(), strict=True)
    for number, mass, kind in set(kinds):
        off = np.sort(np.abs(atomic_masses[1:] - mass))
        if not (number and off[0] <= NEAREST_MASS and off[1] >= 2 * off[0]):  # 1 u, or no number, is X for ASE
            raise ValueError(f"a mass of {mass:g} u is that of no element, or of more than one")
        symbol = chemical_symbols[number]
        if named and symbol not in ([labels[kind]] if kind in labels else labels.values()):  # 0: types are names
            raise ValueError(f"a mass of {mass:g} u is that of {symbol}, which no label names")


def _check_json(text: str) -> None:
    """How deep lists are nested: Python's reader has no limit of its own but the stack."""
    depth = deepest = 0
    for part in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        if part in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif part in "]}":
            depth -= 1
    if deepest > MOST_DEPTH:
        raise ValueError(f"its lists are nested {deepest} deep")
    if not isinstance(json.loads(text), dict):
        raise ValueError("it holds no JSON object")


_DECIMAL = re.compile(r"(?<![\w.])[-+]?\d*\.\d+")


def _check_cif(text: str) -> None:
    """Operations times sites are made before sites that coincide are merged."""
    for line in text.splitlines():
        if len(line) > 10**5:
            raise ValueError("a line has more than 100,000 characters")
    operations = max(1, len(re.findall(r"^[^\n]*[xX][^\n]*,[^\n]*[yY][^\n]*,[^\n]*[zZ]", text, re.MULTILINE)))
    lines = text.count("\n")
    sites = sum(3 <= len(_DECIMAL.findall(line)) <= 5 for line in text.splitlines())
    # each site is compared with those before it, under each operation, and all that are made with one another
    if lines > 100_000 or lines * operations > 10**7 or sites**2 * operations > 2 * 10**7 or sites * operations > 8000:
        raise ValueError(f"it has {lines} lines, about {sites} sites and {operations} symmetry operations")


def _check_database(path: Path, data: bytes) -> None:
    """ASE would make the tables of a database that has none, and SQLite would go back to before an unfinished write."""
    if not data.startswith(b"SQLite format 3\0") or len(data) < 100:
        raise ValueError("it is no SQLite database")
    for end in ("-journal", "-wal"):
        if path.with_name(path.name + end).exists():
            raise ValueError(f"beside it is {path.name + end}: it is being written, or a write was not finished")
    if 2 in data[18:20]:
        raise ValueError("its journal is a write-ahead log; turn it off by PRAGMA journal_mode=DELETE")
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as found:
        tables = {name for (name,) in found.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        other = found.execute("SELECT COUNT(*) FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone()[0]
    if not {"systems", "information"} <= tables:
        raise ValueError("it is no database of ASE")
    if other:
        raise ValueError("it has views or triggers, which no database of ASE has")
