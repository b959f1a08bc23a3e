"""Hostile binary files: models, stores, archives, states, kinosons, checkpoints, and the JSON files beside them.

Half of the cases damage bytes: what is then accepted must hold the very same content. The others know the format and
write new digests where there are any, so that they reach what lies behind: other values, types, shapes and names,
gigantic sizes, members that are pickles, statements that SQLite would run. These may be accepted; they must do nothing
else.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ase_kinoson.barriers.archive import load_barriers
from ase_kinoson.barriers.ensemble import BarrierEnsemble
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.store import BarrierStore
from ase_kinoson.crystal import States
from ase_kinoson.integrity import check_files
from ase_kinoson.kinosons.kinoson_files import read_kinosons
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.state_chunks import read_states
from ase_kinoson.npz import write_npz
from ase_kinoson.seals import seal
from ase_kinoson.stages import load_barriers as load_stage
from tests.fuzz.good_files import MAKERS, cell_of, files_of, fingerprint_of, network_of, states_of, walkers
from tests.fuzz.mutation import mutate_bytes, mutate_text
from tests.fuzz.running import Target

__all__ = ["ALL"]

MODE = "mode"
OLDER = Path(__file__).parents[1] / "fixtures" / "older_files.zip"
Files = dict[str, bytes]


class Payload:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, ("written",)


PICKLE = pickle.dumps(Payload())
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 10**6, 10**9, 2**31, 2**63, 10**30, -(10**9), 1e-300, 1e300, -1e300, 0.5),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        "Cu",
        "Xx",
        "..",
        "../../x",
        "/etc/passwd",
        "\x00",
        "\x1b[31m",
        "é",
    ),
    *([], {}, [[]], [1, 2, 3], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [10**6, 10**6, 10**6], {"a": 1}, "A" * 5000),
    {"__ase_objtype__": "atoms", "numbers": [1], "positions": [[0, 0, 0]]},
    {"__ndarray__": [[10**6, 10**6], "float64", [0.0]]},
    {"@module": "os", "@class": "system", "command": "touch written"},
    {"@module": "builtins", "@class": "eval", "args": ["__import__('os').mkdir('written')"]},
    {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": ["written"]}]},
)
"""What a value in a description may turn into."""


def deep(rng: random.Random) -> bytes:
    """JSON that is nested as deep as nobody reads."""
    n = rng.choice((500, 5000, 100_000))
    return b'{"format":' * (n // 2) + b"[" * n


def changed(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """A JSON value with one change somewhere."""
    inside = isinstance(value, dict | list) and len(value) > 0 and rng.random() < (0.95 if depth < 2 else 0.75)
    if not inside:
        if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
            factor = rng.choice((-1, 0, 2, 1000, 1e9, 1 + 1e-9))
            return type(value)(value * factor) if value == value and abs(value) < 1e200 else 0
        return rng.choice(VALUES)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        found = dict(value)
        kind = rng.random()
        if kind < 0.08:
            del found[key]
        elif kind < 0.12:
            found[rng.choice(("x", "", "../../x", "__class__", "digest", "format"))] = found.pop(key)
        elif kind < 0.16:
            found[key] = found[rng.choice(list(value))]
        else:
            found[key] = changed(value[key], rng, depth + 1)
        return found
    found_list = list(value)
    place = rng.randrange(len(found_list))
    kind = rng.random()
    if kind < 0.08:
        del found_list[place]
    elif kind < 0.16:
        found_list.insert(place, found_list[rng.randrange(len(value))])
    elif kind < 0.18:
        found_list *= 50
    else:
        found_list[place] = changed(value[place], rng, depth + 1)
    return found_list


def several(value: Any, rng: random.Random) -> Any:
    """One to three changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = changed(value, rng)
    return value if isinstance(value, dict) else {"a": value}


def dumped(value: Any) -> bytes:
    """JSON; lone surrogates and the like pass."""
    return json.dumps(value, indent=1).encode("utf-8", "surrogatepass")


@cache
def older() -> dict[str, bytes]:
    """Files of versions before digests."""
    with zipfile.ZipFile(OLDER) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def damaged(files: Mapping[str, bytes], rng: random.Random, others: list[bytes]) -> Files:
    """One of the files with changed bytes, or one in the place of the other."""
    found = dict(files)
    name = rng.choice(sorted(found))
    if rng.random() < 0.06:
        found[name] = rng.choice([o for o in others if o != found[name]])
    elif name.endswith(".json") and rng.random() < 0.6:
        found[name] = mutate_text(found[name], rng, others)
    elif rng.random() < 0.3:
        data = bytearray(found[name])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        found[name] = bytes(data)
    else:
        found[name] = mutate_bytes(found[name], rng, others)
    return found


# -- models -----------------------------------------------------------------------------------------------------------


def _tensors(weights: bytes, rng: random.Random) -> bytes:
    """A file of weights with another header, or other numbers."""
    kind = rng.random()
    length = int.from_bytes(weights[:8], "little")
    if kind < 0.15:
        return (
            struct.pack("<Q", rng.choice((0, 1, length + 1, len(weights), 10**9, 2**40, 2**63, 2**64 - 1)))
            + weights[8:]
        )
    if kind < 0.35:
        data = bytearray(weights)
        place = 8 + length + 8 * rng.randrange(max(1, (len(weights) - 8 - length) // 8))
        data[place : place + 8] = struct.pack("<d", rng.choice((np.nan, np.inf, 1e300, -1e300, 0.0, 1e-300)))
        return bytes(data[: len(weights)])
    head = json.loads(weights[8 : 8 + length])
    if kind < 0.8:
        head = several(head, rng)
    else:
        name = rng.choice(list(head))
        entry = dict(head[name])
        entry.update(
            rng.choice(
                (
                    {"shape": [10**6, 10**6]},
                    {"shape": [2**62, 4]},
                    {"shape": []},
                    {"dtype": rng.choice(("F16", "I64", "BOOL", "BF16", "F8_E4M3", "OBJ", "U8"))},
                    {"data_offsets": [0, 10**12]},
                    {"data_offsets": [8, 0]},
                    {"data_offsets": entry.get("data_offsets", [0, 0])[::-1]},
                )
            )
        )
        head[name] = entry
    text = dumped(head)
    return struct.pack("<Q", len(text)) + text + weights[8 + length :]


def _model_case(kinds: tuple[str, ...]) -> Callable[[random.Random], Files]:
    def make(rng: random.Random) -> Files:
        kind = rng.choice(kinds)
        files = dict(files_of(kind, "Fe" if rng.random() < 0.03 else "Cu"))
        about = next(n for n in files if n.endswith(".json"))
        weights = next(n for n in files if n.endswith(".safetensors"))
        files = {"m.json": files[about], "m.safetensors": files[weights]}
        others = [
            PICKLE,
            deep(rng),
            *(b for k in ("model", "relaxation", "ensemble") for b in files_of(k, "Fe").values()),
        ]
        way = rng.random()
        if way < 0.45:
            return {**damaged(files, rng, others), MODE: f"raw {kind}".encode()}
        if way < 0.55 and kind != "ensemble":
            stem = "layout-1/relaxation-1" if kind == "relaxation" else f"layout-1/model-1-{rng.choice((0, 3))}"
            files = {"m.json": older()[f"{stem}.json"], "m.safetensors": older()[f"{stem}.safetensors"]}
        if rng.random() < 0.4:
            files["m.safetensors"] = _tensors(files["m.safetensors"], rng)
        data = json.loads(files["m.json"])
        if rng.random() < 0.75:
            data = several(data, rng)
        if "weights_sha256" in data:
            data["weights_sha256"] = hashlib.sha256(files["m.safetensors"]).hexdigest()
        files["m.json"] = dumped(seal(data) if "digest" in data else data)
        return {**files, MODE: f"new {kind}".encode()}

    return make


def _use_model(folder: Path, reached: Callable[[], None]) -> None:
    mode, kind = (folder / MODE).read_text().split(" ", 1)
    check_files(folder / "m")
    states = states_of(2)
    found: Any
    if kind == "relaxation":
        found = Relaxation.load(folder / "m", network_of())
        reached()
        found(states.occupations, states.carriers)
    else:
        found = (BarrierEnsemble if kind == "ensemble" else BarrierModel).load(folder / "m", network_of())
        reached()
        found.jump_energies(states.occupations, states.carriers)
    if mode == "raw":
        good = files_of(kind)
        about = next(data for name, data in good.items() if name.endswith(".json"))
        weights = next(data for name, data in good.items() if name.endswith(".safetensors"))
        same = (folder / "m.safetensors").read_bytes() == weights
        assert same and json.loads((folder / "m.json").read_bytes()) == json.loads(about), "other content was accepted"


# -- stores -----------------------------------------------------------------------------------------------------------

STATEMENTS = (
    "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON systems BEGIN DELETE FROM systems; END",
    "CREATE TABLE more (id INTEGER)",
    "ALTER TABLE systems ADD COLUMN more TEXT",
    "DROP TABLE keys",
    "DROP TABLE information",
    "DELETE FROM information",
    "UPDATE information SET value='99' WHERE name='version'",
    "UPDATE information SET value='x' WHERE name='version'",
    "INSERT INTO information VALUES ('external_table_name', '[\"systems\"]')",
    "INSERT INTO information VALUES ('metadata', '{}')",
    "DELETE FROM text_key_values WHERE key='kind'",
    "DELETE FROM sqlite_sequence",
    "UPDATE systems SET numbers='text'",
    "UPDATE systems SET positions=x'00'",
    "UPDATE systems SET cell=NULL",
    "UPDATE systems SET pbc='x'",
    "UPDATE systems SET data=NULL WHERE id=2",
    "UPDATE systems SET calculator_parameters='[]'",
    'UPDATE systems SET calculator_parameters=\'{"__ase_objtype__": "atoms"}\'',
    'UPDATE systems SET key_value_pairs=\'{"__ndarray__": [[1000000, 1000000], "float64", [0]]}\' WHERE id=1',
    'UPDATE systems SET constraints=\'[{"name": "FixAtoms", "kwargs": {}}]\'',
    "UPDATE systems SET unique_id=NULL WHERE id=3",
    "UPDATE systems SET energy='x'",
    "UPDATE systems SET numbers=zeroblob(100000000) WHERE id=1",
)


def _data_blob(rng: random.Random, blob: bytes) -> bytes:
    """The ``data`` of a row with other values behind its arrays."""
    start = int.from_bytes(blob[:8], "little")
    way = rng.random()
    if way < 0.15:
        return PICKLE
    if way < 0.3:
        return struct.pack("<q", rng.choice((0, -1, 7, 2**40, len(blob), -(2**63)))) + blob[8:]
    if way < 0.4:
        return mutate_bytes(blob, rng)
    data = several(json.loads(blob[start:]), rng)
    if way < 0.7:
        shape = rng.choice(([10**6, 10**6], [2**62, 4], [-1, 3], [], [0], ["a"], [31, 3]))
        name = rng.choice(("float64", "object", "O", "V8", "U100000000", "int8", "datetime64[s]", "x"))
        data["positions"] = {"__ndarray__": [shape, name, rng.choice((8, 0, -8, 10**12, "x"))]}
    return blob[:start] + json.dumps(data).encode()


def _store_case(rng: random.Random) -> Files:
    parent = "Fe" if rng.random() < 0.03 else "Cu"
    data = files_of("store", parent)["barriers.db"]
    others = [PICKLE, deep(rng), files_of("store", "Fe")["barriers.db"], files_of("model")["model.json"]]
    way = rng.random()
    if way < 0.5:
        used = rng.random()
        if used < 0.7:  # where something is: a page has more free bytes than others
            place = rng.choice(_busy(parent))
            changes = bytearray(data)
            for k in range(place, min(len(data), place + rng.choice((1, 1, 1, 4, 64)))):
                changes[k] ^= 1 << rng.randrange(8) if rng.random() < 0.7 else rng.randrange(256)
            found = bytes(changes)
        else:
            found = mutate_bytes(data, rng, others)
        # an empty file is a new store
        return {"s.db": found or b"\x00", MODE: b"raw"}
    if way < 0.6:
        data = older()["layout-1/store-1.db"]
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "s.db"
        path.write_bytes(data)
        with closing(sqlite3.connect(path)) as connection:
            for _ in range(rng.choice((1, 1, 2))):
                _edit(connection, rng)
            connection.commit()
        found = path.read_bytes()
    if rng.random() < 0.1:
        found = mutate_bytes(found, rng, others) or b"\x00"
    return {"s.db": found, MODE: b"new"}


@cache
def _busy(parent: str) -> list[int]:
    data = files_of("store", parent)["barriers.db"]
    return [k for k in range(len(data)) if data[k]]


def _edit(connection: sqlite3.Connection, rng: random.Random) -> None:
    way = rng.random()
    try:
        if way < 0.3:
            connection.execute(rng.choice(STATEMENTS))
        elif way < 0.5:
            (text,) = connection.execute("SELECT value FROM information WHERE name='metadata'").fetchone()
            found = several(json.loads(text), rng)
            value = (
                deep(rng).decode() if rng.random() < 0.05 else json.dumps(seal(found) if "digest" in found else found)
            )
            connection.execute("UPDATE information SET value=? WHERE name='metadata'", (value,))
        else:
            row = rng.randrange(1, 9)
            text, blob = connection.execute("SELECT key_value_pairs, data FROM systems WHERE id=?", (row,)).fetchone()
            pairs = json.loads(text)
            if rng.random() < 0.6:  # without a digest nothing is known before it is read
                pairs.pop("digest", None)
                connection.execute("DELETE FROM text_key_values WHERE id=? AND key='digest'", (row,))
                connection.execute("DELETE FROM keys WHERE id=? AND key='digest'", (row,))
            if rng.random() < 0.5:
                pairs = several(pairs, rng)
            value = deep(rng).decode() if rng.random() < 0.05 else json.dumps(pairs)
            connection.execute("UPDATE systems SET key_value_pairs=? WHERE id=?", (value, row))
            if rng.random() < 0.6:
                connection.execute("UPDATE systems SET data=? WHERE id=?", (_data_blob(rng, blob), row))
    except (sqlite3.Error, TypeError, ValueError, UnicodeError, OverflowError, RecursionError):
        pass  # an edit that SQLite refuses after another one


def _results(path: Path) -> dict[Any, Any]:
    store = BarrierStore(path, fingerprint_of())
    store.news()
    len(store)
    return {**store.states(), **store.jumps(positions=True)}


def _as_bits(result: Any) -> Any:
    return {k: v.tobytes() if isinstance(v, np.ndarray) else repr(v) for k, v in vars(result).items()}


@cache
def _good_results() -> dict[Any, Any]:
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "s.db"
        path.write_bytes(files_of("store")["barriers.db"])
        return {key: _as_bits(result) for key, result in _results(path).items()}


_good_results()  # before anything is watched


def _use_store(folder: Path, reached: Callable[[], None]) -> None:
    path = folder / "s.db"
    check_files(path)
    found = _results(path)
    reached()
    if (folder / MODE).read_bytes() == b"raw":
        assert {key: _as_bits(result) for key, result in found.items()} == _good_results(), "other content was accepted"


# -- NumPy archives ---------------------------------------------------------------------------------------------------


def _member(rng: random.Random, data: bytes) -> bytes:
    """An array file with another header."""
    shape = rng.choice(
        ("(1000000, 1000000)", "(4611686018427387904, 4)", "(-1,)", "()", "(3,)", "('a',)", "(2, 2) * 9")
    )
    descr = rng.choice(
        ("'<f8'", "'|O'", "'<U100000000'", "[('a', '<f8')]", "'<M8[s]'", "'>f8'", "'|V8'", "'<i1'", "'x'")
    )
    head = rng.choice(
        (
            f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}",
            "__import__('os').mkdir('written')",
            "{" * 5000,
            "9" * 5000,
            "[" * 3000 + "]" * 3000,
            f"{{'descr': {descr}, 'fortran_order': 3, 'shape': 7}}",
        )
    ).encode()
    version = rng.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = struct.pack("<H", len(head) & 0xFFFF) if version == b"\x01\x00" else struct.pack("<I", len(head))
    if rng.random() < 0.1:
        length = b"\xff" * len(length)
    return b"\x93NUMPY" + version + length + head + data[-64:]


def _rezipped(data: bytes, rng: random.Random) -> bytes:
    """The same archive with a member more, less, or other."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    way = rng.randrange(9)
    if way == 0:
        members[name] = _member(rng, members[name])
    elif way == 1:
        stream = io.BytesIO()
        np.save(stream, np.array([Payload()], dtype=object), allow_pickle=True)
        members[name] = stream.getvalue()
    elif way == 2:
        members[rng.choice(("../../x.npy", "/etc/x.npy", "a\\..\\x.npy", "x.py", "about.npy/x.npy", ""))] = members[
            name
        ]
    elif way == 3:
        members[name] = PICKLE
    elif way == 4:
        del members[name]
    elif way == 5:
        members[name] = mutate_bytes(members[name], rng)
    elif way == 6:
        members[rng.choice(sorted(members))] = members[name]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))) as out:
        for key, value in members.items():
            out.writestr(key or "x", value)
        if way == 7:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out.writestr(name, members[name])
        if way == 8 and rng.random() < 0.3:
            head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 64)
            text = b"{'descr': '|i1', 'fortran_order': False, 'shape': (300000000,)}"
            out.writestr(zipfile.ZipInfo("bomb.npy"), b"", zipfile.ZIP_DEFLATED)
            out.writestr("z.npy", head + text.ljust(64) + _zeros(), zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


@cache
def _zeros() -> bytes:
    return bytes(100_000_000)


def _resealed(data: bytes, rng: random.Random, name: str) -> bytes:
    """The same archive with other values, and a digest of them."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = {key: archive[key] for key in archive.files}
    about = json.loads(str(arrays.pop(name))) if name in arrays else {}
    for _ in range(rng.choice((0, 1, 1, 2))):
        key = rng.choice(sorted(arrays))
        arrays[key] = _other_array(arrays[key], rng)
    if rng.random() < 0.1:
        del arrays[rng.choice(sorted(arrays))]
    if rng.random() < 0.6:
        about = several(about, rng)
    stream = io.BytesIO()
    write_npz(stream, about, arrays, name=name)
    return stream.getvalue()


def _other_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    way = rng.randrange(8)
    found = array.copy()
    if way == 0:
        return found[:-1] if found.ndim else np.zeros(3)
    if way == 1:
        return np.concatenate([found, found]) if found.ndim else found[None]
    if way == 2 and found.size and found.dtype.kind in "iu":
        found.reshape(-1)[rng.randrange(found.size)] = rng.choice((-1, 3, 100, -128, 127))
    elif way == 3 and found.size and found.dtype.kind == "f":
        found.reshape(-1)[rng.randrange(found.size)] = rng.choice((np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300))
    elif way == 4:
        return (
            found.astype(rng.choice(("f4", "i1", "i8", "U5", "S3", "?", "c8", "f2", ">f8")))
            if found.dtype.kind != "U"
            else found
        )
    elif way == 5:
        return found.T
    elif way == 6:
        return found[..., None]
    else:
        return np.zeros(rng.choice(((0,), (0, 3), (), (2, 2, 2))), dtype=found.dtype)
    return found


for _kind in MAKERS:  # before anything is watched
    files_of(_kind), files_of(_kind, "Fe") if _kind in ("store", "model", "relaxation", "ensemble", "archive") else None

NAMES = {"archive": "head"}


def _archive_case(kind: str) -> Callable[[random.Random], Files]:
    def make(rng: random.Random) -> Files:
        parent = "Fe" if rng.random() < 0.03 else "Cu"
        made = dict(change(dict(files_of(kind, parent)), rng))
        if parent == "Fe":  # whole and of another lattice: good, and not what the others are compared with
            made[MODE] = b"other"
        return made

    def change(files: dict[str, bytes], rng: random.Random) -> Files:
        others = [PICKLE, deep(rng), files_of("archive", "Fe")["some.npz"], files_of("states")["states-000000.npz"]]
        way = rng.random()
        if way < 0.45:
            found = damaged(files, rng, others)
            whole = any(data in others for data in found.values())  # a good file of another lattice
            return {**found, MODE: b"new" if whole else b"raw"}
        name = rng.choice(sorted(files))
        if not name.endswith(".npz"):
            data = several(json.loads(files[name]), rng)
            files[name] = dumped(seal(data) if "digest" in data else data)
        elif way < 0.7:
            files[name] = _rezipped(files[name], rng)
        else:
            files[name] = _resealed(files[name], rng, NAMES.get(kind, "about"))
        return {**files, MODE: b"new"}

    return make


def _read(kind: str, folder: Path) -> Any:
    if kind == "archive":
        found = load_barriers(folder / "some.npz")
        return [found.barrier, found.reverse_barrier, found.energy_initial, found.status, found.states.occupations]
    if kind == "stage":
        found = load_stage(folder / "stages" / "barriers-training.npz", states_of(3), network_of())
        return [found.barrier, found.reverse_barrier, found.energy_initial, found.status, found.force_calls]
    if kind == "states":
        return [x for s, total in read_states(folder, cell_of()) for x in (s.occupations, s.weights, s.groups, total)]
    if kind == "kinosons":
        return [x for table in read_kinosons(folder) for x in table.columns.values()]
    if kind == "checkpoint":
        run = walkers()
        run.load(folder / "run.npz")
        run.run(3)
        return [run.occupations, run.carriers, run.times, run.displacements]
    raise ValueError(kind)


@cache
def _good(kind: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as where:
        for name, data in files_of(kind).items():
            (Path(where) / name).parent.mkdir(exist_ok=True)
            (Path(where) / name).write_bytes(data)
        return [np.asarray(x).tobytes() for x in _read(kind, Path(where))]


def _use_archive(kind: str) -> Callable[[Path, Callable[[], None]], None]:
    _good(kind)  # before anything is watched

    def use(folder: Path, reached: Callable[[], None]) -> None:
        check_files(folder)
        found = _read(kind, folder)
        reached()
        if (folder / MODE).read_bytes() == b"raw":
            assert [np.asarray(x).tobytes() for x in found] == _good(kind), "other content was accepted"

    return use


# -- JSON -------------------------------------------------------------------------------------------------------------


def _json_case(kind: str) -> Callable[[random.Random], Files]:
    def make(rng: random.Random) -> Files:
        files = dict(files_of(kind))
        (name,) = files
        others = [PICKLE, deep(rng), files_of("mson")["states.json"], files_of("summary")["summary.json"]]
        if rng.random() < 0.5:
            return {**damaged(files, rng, others), MODE: b"raw"}
        files[name] = deep(rng) if rng.random() < 0.03 else dumped(seal(several(json.loads(files[name]), rng)))
        return {**files, MODE: b"new"}

    return make


def _use_summary(folder: Path, reached: Callable[[], None]) -> None:
    from ase_kinoson.report_parts import read_summary

    check_files(folder)
    found = read_summary(folder / "summary.json")
    reached()
    if (folder / MODE).read_bytes() == b"raw":
        assert found == json.loads(files_of("summary")["summary.json"]), "other content was accepted"


with tempfile.TemporaryDirectory() as _where:  # annotations are executed text, once
    (Path(_where) / "states.json").write_bytes(files_of("mson")["states.json"])
    States.load(Path(_where) / "states.json")


def _use_mson(folder: Path, reached: Callable[[], None]) -> None:
    check_files(folder)
    found = States.load(folder / "states.json")
    reached()
    if (folder / MODE).read_bytes() == b"raw":
        assert found.weights.tobytes() == states_of(3).weights.tobytes(), "other content was accepted"


MODELS = Target("models", _model_case(("model", "linear model", "ensemble")), _use_model)
RELAXATIONS = Target("relaxations", _model_case(("relaxation",)), _use_model)
STORES = Target("stores", _store_case, _use_store)
ARCHIVE = Target("archives of barriers", _archive_case("archive"), _use_archive("archive"))
STAGE = Target("stages", _archive_case("stage"), _use_archive("stage"))
CHUNKS = Target("states", _archive_case("states"), _use_archive("states"))
KINOSONS = Target("kinosons", _archive_case("kinosons"), _use_archive("kinosons"))
CHECKPOINT = Target("checkpoints", _archive_case("checkpoint"), _use_archive("checkpoint"))
SUMMARY = Target("summaries", _json_case("summary"), _use_summary)
MSON = Target("results as JSON", _json_case("mson"), _use_mson)
ALL = (MODELS, STORES, RELAXATIONS, ARCHIVE, STAGE, CHUNKS, KINOSONS, CHECKPOINT, SUMMARY, MSON)
"""Models and stores are tried most; :func:`tests.fuzz.running.run`."""
