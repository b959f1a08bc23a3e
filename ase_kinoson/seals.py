"""Digests that files carry of their own content, and versions of their layout.

A sealed description (a JSON object) holds ``"seal": 1`` and ``"digest"``, the SHA-256 of all its other entries in one
canonical form: keys sorted, no spaces, numbers as Python writes them. Both are there or none, so that no single
damaged byte can take the digest away unnoticed. Files of versions without digests stay readable; nothing can be
verified in them. A digest finds damage and files that were mixed up; it is no signature, since whoever changes a file
on purpose can write a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_JSON",
    "SEAL",
    "array_digest",
    "digest_of",
    "newer",
    "other_layout",
    "package_version",
    "parse_json",
    "read_json_file",
    "seal",
    "unsealed",
]

SEAL = 1
"""Version of the digests."""

MAX_JSON = 512 * 1024**2
"""Largest JSON file that is read, bytes; descriptions of models and summaries have less than a hundredth of it."""


def digest_of(data: Mapping[str, Any], extra: str = "") -> str:
    """SHA-256 of a description without its own digest.

    Parameters
    ----------
    data
        What JSON can hold.
    extra
        Digest of what belongs to it but is kept elsewhere.
    """
    rest = {str(k): v for k, v in data.items() if k != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{text}{extra}".encode()).hexdigest()


def seal(data: Mapping[str, Any], extra: str = "") -> dict[str, Any]:
    """Return a description with its digest.

    Parameters
    ----------
    data
        What JSON can hold.
    extra
        As in :func:`digest_of`.
    """
    # through JSON first: what is read back has texts as keys and lists instead of tuples
    known = json.loads(json.dumps({k: v for k, v in data.items() if k not in ("seal", "digest")}))
    known["seal"] = SEAL
    known["digest"] = digest_of(known, extra)
    return known


def unsealed(data: Mapping[str, Any], extra: str = "") -> str:
    """Say what is wrong with the digest of a description; empty if it is right, or if there is none.

    Parameters
    ----------
    data
        As read.
    extra
        As in :func:`digest_of`.
    """
    has = "seal" in data, "digest" in data
    if has == (False, False):
        return ""
    if has != (True, True):
        return "it holds only one of 'seal' and 'digest'"
    version = data["seal"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return f"its seal is {version!r}, which is no version"
    if version > SEAL:
        return f"its seal has version {version}, and this version of ase-kinoson knows {SEAL}"
    found = digest_of(data, extra)
    if found != data["digest"]:
        return f"it is damaged or was changed (digest {found[:12]}, written {str(data['digest'])[:12]})"
    return ""


def array_digest(arrays: Mapping[str, NDArray]) -> str:
    """SHA-256 of arrays with their names, types and shapes.

    Parameters
    ----------
    arrays
        By name.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(json.dumps([name, array.dtype.str, list(np.shape(arrays[name]))]).encode())
        total.update(hashlib.sha256(array.reshape(-1).view(np.uint8).data if array.size else b"").digest())
    return total.hexdigest()


def package_version() -> str:
    """Version of this package, as files name it."""
    return str(getattr(import_module(__name__.partition(".")[0]), "__version__", "unknown"))


def newer(found: Any, known: int, data: Mapping[str, Any]) -> str:
    """Say which version of the package reads a file whose layout is newer than the known one; empty if it is not.

    Parameters
    ----------
    found
        Version of the layout of the file.
    known
        Newest version that is known here.
    data
        The description, which may name the version of the package that wrote it.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found <= known:
        return ""
    by = data.get("written_by")
    which = f"ase-kinoson {by}" if isinstance(by, str) and len(by) < 40 and by.isprintable() else "the ase-kinoson"
    return (
        f"has version {found} of its layout; expected at most {known}; install {which}"
        f"{' or newer' if by else ' that wrote it, or a newer one'}"
    )


def other_layout(data: Any, known: str) -> str:
    """Say what is wrong with the ``"format"`` of a description, such as ``ase_kinoson.states/1``; empty if it is right.

    Parameters
    ----------
    data
        The description.
    known
        The newest format that is known here.
    """
    kind, _, version = known.partition("/")
    found = data.get("format") if isinstance(data, Mapping) else None
    if found == known:
        return ""
    if not isinstance(found, str) or found.partition("/")[0] != kind or not found.partition("/")[2].isdecimal():
        return f"holds the format {str(found)[:60]!r}; expected {known!r}; check the path, or copy it again"
    number = int(found.partition("/")[2][:9])
    return newer(number, int(version), data) or f"has version {number} of its layout; expected {version}; copy it again"


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; whatever is wrong is a ``ValueError``.

    Parameters
    ----------
    text
        UTF-8 if bytes.

    Raises
    ------
    ValueError
        If it is no JSON, nested too deeply, or holds a key twice.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two keys of one name would let two readers see different things."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def read_json_file(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file of at most ``MAX_JSON`` bytes.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is too large or no JSON.
    """
    size = os.stat(path).st_size
    if size > MAX_JSON:
        raise ValueError(f"{size / 1024**2:.0f} MiB of JSON; at most {MAX_JSON // 1024**2} are read")
    return parse_json(Path(path).read_bytes())
