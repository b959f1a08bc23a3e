"""Digests of the rows of a barrier store, and reading of their contents without building objects from them.

The key ``digest`` of a row is ``v1-PAIRS-CONTENT``: one half of SHA-256 of its name and key-value pairs, one of its
atoms, energy and arrays, so that rows whose arrays are not wanted can be verified as well. Numbers enter as the bits of
64-bit floats, whatever a database made of them, and both zeros as one. Rows of versions without digests have none and
cannot be verified.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ase_kinoson.seals import parse_json

__all__ = ["PREFIX", "decode_content", "decode_plain", "row_digest", "wrong_content", "wrong_pairs"]

PREFIX = "v1-"
_HALF = 32
_DEPTH = 20


def decode_plain(text: Any, lazy: bool = False) -> Any:
    """Stand-in for the decoder of ``ase.db``, which would build objects and arrays of any announced size.

    Parameters
    ----------
    text
        JSON, or with ``lazy`` anything.
    lazy
        Leave it as it is.

    Raises
    ------
    ValueError
        If it is no JSON.
    """
    if lazy:
        return text
    return decode_content(text) if isinstance(text, bytes) else parse_json(text)


def decode_content(content: Any) -> dict[str, Any]:
    """The ``data`` of a row: plain values and arrays, nothing else.

    Parameters
    ----------
    content
        Bytes as ``ase.db`` lays them out (arrays, then JSON that says where each is), JSON, or a mapping.

    Raises
    ------
    ValueError
        If it is neither, or names objects or arrays that are not in it.
    """
    if isinstance(content, str):
        content = parse_json(content)
        buffer = b""
    elif isinstance(content, bytes | memoryview):
        buffer = bytes(content)
        start = int.from_bytes(buffer[:8], "little", signed=True)
        if not 8 <= start <= len(buffer):
            raise ValueError(f"its arrays end at byte {start} of {len(buffer)}")
        content = parse_json(buffer[start:])
        buffer = buffer[:start]
    else:
        buffer = b""
    if not isinstance(content, Mapping):
        raise ValueError("its data are no mapping")
    return {str(key): _plain(value, buffer, 0) for key, value in content.items()}


def _plain(value: Any, buffer: bytes, depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError("its data are nested too deeply")
    if isinstance(value, list):
        return [_plain(v, buffer, depth + 1) for v in value]
    if not isinstance(value, Mapping):
        return value
    found = value.get("__ndarray__")
    if found is None:
        if any(str(key).startswith("__") for key in value):
            raise ValueError(f"its data hold {sorted(map(str, value))[0][:40]!r}, which is no array")
        return {str(key): _plain(v, buffer, depth + 1) for key, v in value.items()}
    shape, name, where = found
    dtype = np.dtype(str(name))
    if dtype.kind not in "biuf" or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"its data announce an array of {str(name)[:20]!r} and shape {str(shape)[:40]}")
    size = math.prod(shape) * dtype.itemsize
    if isinstance(where, list):  # JSON keeps the numbers themselves
        array = np.array(where, dtype=dtype)
        if array.size != math.prod(shape):
            raise ValueError(f"its data announce an array of shape {str(shape)[:40]} and hold {array.size} numbers")
        return array.reshape(shape)
    if isinstance(where, bool) or not isinstance(where, int) or where < 8 or where + size > len(buffer):
        raise ValueError(f"its data announce an array of {size} bytes at byte {where} of {len(buffer)}")
    return np.frombuffer(buffer[where : where + size], dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def row_digest(name: str, pairs: Mapping[str, Any], row: Any, data: Mapping[str, Any]) -> str:
    """The digest of a row.

    Parameters
    ----------
    name
        Its ``unique_id``.
    pairs
        Its key-value pairs; ``digest`` does not count.
    row : AtomsRow
        Its atoms and energy.
    data
        Its plain values and arrays.
    """
    return f"{PREFIX}{_of_pairs(name, pairs)}-{_of_content(row, data)}"


def wrong_pairs(row: Any, known: Mapping[str, Any]) -> str:
    """Say what is wrong with name and key-value pairs of a row; empty if nothing, or if it has no digest.

    Parameters
    ----------
    row : AtomsRow
        The row.
    known
        Keys that there may be.
    """
    strange = sorted(set(row._keys) - set(known) - {"digest"})
    digest = row.key_value_pairs.get("digest")
    if digest is None:  # a changed name of a key, that of the digest too, would be a strange one
        return f"it has the key {strange[0][:40]!r}, which no barrier has" if strange else ""
    parts = _halves(digest)
    if parts is None:
        return "its digest is none"
    # somebody's notes (ase db -k) may stand beside what the digest is of
    own = {k: v for k, v in row.key_value_pairs.items() if k not in strange}
    return "" if _of_pairs(row.unique_id, own) == parts[0] else "its numbers do not match its digest"


def wrong_content(row: Any, data: Mapping[str, Any]) -> str:
    """Say what is wrong with atoms and arrays of a row; empty if nothing, or if it has no digest.

    Parameters
    ----------
    row : AtomsRow
        The row.
    data
        Its content, of :func:`decode_content`.
    """
    digest = row.key_value_pairs.get("digest")
    if digest is None:
        return ""
    parts = _halves(digest)
    if parts is None:
        return "its digest is none"
    return "" if _of_content(row, data) == parts[1] else "its atoms or arrays do not match its digest"


def _halves(digest: Any) -> tuple[str, str] | None:
    parts = digest.split("-") if isinstance(digest, str) else []
    if len(parts) != 3 or f"{parts[0]}-" != PREFIX or any(len(p) != _HALF for p in parts[1:]):
        return None
    return parts[1], parts[2]


def _of_pairs(name: str, pairs: Mapping[str, Any]) -> str:
    return _hash([str(name), {k: _canonical(v) for k, v in pairs.items() if k != "digest"}])


def _of_content(row: Any, data: Mapping[str, Any]) -> str:
    energy = row.get("energy")
    return _hash(
        [
            _canonical(np.asarray(row.numbers)),
            _canonical(np.asarray(row.positions, dtype=float)),
            _canonical(np.asarray(row.cell, dtype=float)),
            [bool(x) for x in row.pbc],
            None if energy is None else _canonical(energy),
            row.get("calculator"),
            _canonical(data),
        ]
    )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:_HALF]


def _canonical(value: Any) -> Any:
    """One form for what different databases make of one value."""
    if isinstance(value, str | None):
        return value
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        if not value or any(isinstance(v, str | Mapping | list | tuple | None) for v in value):
            return [_canonical(v) for v in value]
        value = np.array(value)
    if isinstance(value, np.ndarray):
        numbers = np.ascontiguousarray(value, dtype="<f8") + 0.0  # SQLite and PostgreSQL know one zero: -0.0 becomes it
        return ["array", list(value.shape), hashlib.sha256(numbers.tobytes()).hexdigest()]
    return (float(value) + 0.0).hex()
