"""NumPy archives: written with a digest of what they hold, and read although they may be anybody's.

Nothing is ever unpickled, no name of a member becomes a path, and what an archive announces is compared with the size
of the file before memory is taken for it.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ase_kinoson.seals import array_digest, parse_json, seal, unsealed

__all__ = ["DAMAGED", "read_npz", "read_sealed", "unseal", "write_npz"]

DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,  # an encrypted file; NotImplementedError, an unknown compression, is one
    OverflowError,
    MemoryError,  # a damaged length
    IndexError,
    SyntaxError,  # a damaged header of an array
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a file raises that is damaged or something else."""

ABOUT = "about"
MAX_MEMBERS = 20_000
MAX_SPARE = 64 * 1024**2
MAX_RATIO = 100
"""An archive may announce ``MAX_SPARE`` bytes and ``MAX_RATIO`` times its own size; zip bombs announce more."""
_NAME = re.compile(r"[^\x00-\x1f]+\.npy")
_KINDS = "biufUS"

Layout: TypeAlias = Callable[[dict[str, Any]], str]
"""Says what is wrong with the layout that a description names; asked before the digest, which a newer one may lack."""


def write_npz(
    target: str | Path | IO[bytes],
    about: Mapping[str, Any],
    arrays: Mapping[str, NDArray],
    *,
    compress: bool = False,
    name: str = ABOUT,
) -> str:
    """Write arrays and a description with the digest of both.

    Parameters
    ----------
    target
        File or open file; whoever calls takes care that it appears in one step.
    about
        Description; what JSON can hold.
    arrays
        By name.
    compress
        Deflate the arrays.
    name
        Of the description in the archive.

    Returns
    -------
    str
        The digest.
    """
    given = {key: np.asarray(array) for key, array in arrays.items()}
    head = seal(about, array_digest(given))
    save = np.savez_compressed if compress else np.savez
    save(target, **{name: np.array(json.dumps(head))}, **given)  # type: ignore[arg-type]
    return str(head["digest"])


def read_sealed(
    path: str | Path, *, name: str = ABOUT, layout: Layout | None = None
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read description and arrays, and verify their digest if there is one.

    Parameters
    ----------
    path
        The file.
    name
        Of the description in the archive.
    layout
        See :data:`Layout`.

    Raises
    ------
    ValueError
        If the digest is not that of the content; a damaged file raises one of ``DAMAGED``.
    """
    return unseal(read_npz(path), name=name, layout=layout)


def unseal(
    members: Mapping[str, NDArray], *, name: str = ABOUT, layout: Layout | None = None
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Take the description from the members of an archive, and verify the digest if there is one.

    Parameters
    ----------
    members
        Of :func:`read_npz`.
    name
        Of the description in the archive.
    layout
        See :data:`Layout`.

    Raises
    ------
    ValueError
        As :func:`read_sealed`.
    """
    arrays = dict(members)
    text = arrays.pop(name)
    if text.shape != () or text.dtype.kind != "U":
        raise ValueError(f"its description {name!r} is no text")
    about = parse_json(str(text))
    if not isinstance(about, dict):
        raise ValueError(f"its description {name!r} is no JSON object")
    wrong = (layout(about) if layout else "") or unsealed(about, array_digest(arrays))
    if wrong:
        raise ValueError(wrong)
    return about, arrays


def read_npz(path: str | Path) -> dict[str, NDArray]:
    """Read all arrays of an ``.npz`` file, whatever its suffix; nothing is unpickled.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If it is no whole zip archive, announces more than a file of its size can hold, or an array would have to be
        unpickled. A damaged file raises what ``zipfile`` and NumPy raise of it.
    """
    with open(path, "rb") as stream:
        # else NumPy takes it for a pickle, and tells the user how to load it unsafely
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no whole zip archive")
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            _refuse_bombs(members, size)
            return {member.filename[:-4]: _read_array(archive, member) for member in members}


def _refuse_bombs(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"it has {len(members)} members; at most {MAX_MEMBERS} are read")
    if len({member.filename for member in members}) != len(members):
        raise ValueError("two of its members have one name")
    for member in members:
        if not _NAME.fullmatch(member.filename) or ".." in member.filename.split("/") or member.filename[0] == "/":
            raise ValueError(f"its member {member.filename[:60]!r} is no array")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its member {member.filename[:60]!r} is compressed in an unknown way")
    total = sum(member.file_size for member in members)
    if total > MAX_SPARE + MAX_RATIO * size:
        raise ValueError(f"it announces {total} bytes in {size} bytes of file")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray:
    """One array, whose header must announce exactly what the member holds."""
    with archive.open(member) as stream:
        try:
            shape, fortran, dtype = _read_header(stream)
        except Exception as error:  # of the tokenizer and the parser that NumPy uses, and of this function
            raise ValueError(f"the header of its member {member.filename!r}: {type(error).__name__}") from error
        if dtype.hasobject:
            raise ValueError(f"its member {member.filename!r} holds pickled objects, which are never opened")
        if dtype.kind not in _KINDS or dtype.fields or dtype.subdtype:
            raise ValueError(f"its member {member.filename!r} holds {dtype}; numbers or texts are read")
        if any(not isinstance(n, int) or n < 0 for n in shape):
            raise ValueError(f"its member {member.filename!r} has the shape {shape}")
        wanted = math.prod(shape) * dtype.itemsize
        left = member.file_size - stream.tell()
        if wanted != left:
            raise ValueError(f"its member {member.filename!r} announces {wanted} bytes and holds {left}")
        data = stream.read()  # all of it: the last bytes bring the check sum of the archive into play
    if len(data) != wanted:
        raise ValueError(f"its member {member.filename!r} ends after {len(data)} of {wanted} bytes")
    if dtype.itemsize == 0:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(bytearray(data), dtype=dtype)
    if dtype.kind == "b" and flat.size and int(flat.view(np.uint8).max()) > 1:
        raise ValueError(f"its member {member.filename!r} holds truth values that are neither 0 nor 1")
    if dtype.kind == "U" and flat.size:
        points = np.frombuffer(data, dtype=np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if int(points.max()) > 0x10FFFF:
            raise ValueError(f"its member {member.filename!r} holds texts that are none")
    return flat.reshape(shape[::-1]).T if fortran and len(shape) > 1 else flat.reshape(shape)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    if version != (3, 0):
        raise ValueError(f"version {version} of the format of arrays")
    # in UTF-8; NumPy writes it for names of fields only, and has no public reader
    length = int.from_bytes(stream.read(4), "little")
    if length > 10_000:
        raise ValueError("more than 10,000 bytes")
    found = ast.literal_eval(stream.read(length).decode("utf-8"))
    return tuple(found["shape"]), bool(found["fortran_order"]), np.dtype(found["descr"])
