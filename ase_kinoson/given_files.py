"""Files that people give: plain ones, not too large, and text that is text; anything else is refused in one sentence.

A pipe would wait for ever, a device never ends, and a file of a few kilobytes may unpack to gigabytes: how much is read
is settled before any of it is.
"""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import zlib
from pathlib import Path
from typing import Any

from ase_kinoson.errors import KinosonError

__all__ = ["given_bytes", "given_text", "shown", "unpacked"]

TEXT_BYTES = 2**24
"""Most that is read of settings and tables, 16 MiB."""

_PIECE = 2**20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def given_bytes(
    path: str | Path,
    *,
    expected: str,
    most: int = TEXT_BYTES,
    error: type[KinosonError] = KinosonError,
    empty: bool = False,
) -> bytes:
    """Read a plain file (or a link to one) of at most ``most`` bytes.

    Parameters
    ----------
    path
        The file; taken as it is: no pattern, address, index or ``~`` is understood.
    expected
        What the file should be, for the message.
    most
        Largest size, bytes.
    error
        Class of the error.
    empty
        Whether the file may be empty.

    Raises
    ------
    KinosonError
        Of the class ``error``, if there is no such file, it is no plain file, empty, too large or must not be read.
    """
    name = shown(str(path))
    try:
        about = os.stat(path)
        kind = next((text for is_one, text in _KINDS if is_one(about.st_mode)), None)
        if kind is not None:
            raise error(f"cannot read {name}, which is {kind}; expected {expected}; check the path")
        if about.st_size <= most:
            with open(path, "rb") as stream:  # in pieces: files of the kernel say nothing of their size
                pieces, left = [stream.read(_PIECE)], most
                while pieces[-1] and left >= len(pieces[-1]):
                    left -= len(pieces[-1])
                    pieces.append(stream.read(_PIECE))
            data = b"".join(pieces)
        if about.st_size > most or len(data) > most:
            raise error(
                f"found more than {most // 1024} KiB in {name}; expected {expected}, which is smaller; check the path"
            )
    except FileNotFoundError:
        raise error(f"found no file {name}; expected {expected}; check the path") from None
    except (OSError, ValueError) as problem:
        if isinstance(problem, KinosonError):
            raise
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise error(f"cannot read {name} ({reason}); expected {expected}; check the path") from None
    if not data and not empty:
        raise error(f"found an empty file {name}; expected {expected}; write it again")
    return data


def given_text(
    path: str | Path,
    *,
    expected: str,
    most: int = TEXT_BYTES,
    error: type[KinosonError] = KinosonError,
    empty: bool = False,
) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Parameters
    ----------
    path, expected, most, error, empty
        As in :func:`given_bytes`.

    Raises
    ------
    KinosonError
        As :func:`given_bytes`, and if it is no text in UTF-8.
    """
    data = given_bytes(path, expected=expected, most=most, error=error, empty=empty)
    return decoded(data, path, expected=expected, error=error)


def decoded(data: bytes, path: str | Path, *, expected: str, error: type[KinosonError] = KinosonError) -> str:
    """Bytes of a file as text; see :func:`given_text`."""
    name = shown(str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "text in UTF-16" if utf16 else f"the byte 0x{data[problem.start]:02x} at {problem.start}"
        raise error(
            f"found {found} in {name}, which is no UTF-8; expected {expected}; save it as text in UTF-8"
        ) from None
    if "\0" in text:
        raise error(f"found a NUL character in {name}; expected {expected}; save it as text in UTF-8")
    return text


def unpacked(
    data: bytes, kind: str, path: str | Path, *, most: int, expected: str, error: type[KinosonError] = KinosonError
) -> bytes:
    """Decompress the contents of a file, at most to ``most`` bytes.

    Parameters
    ----------
    data
        Contents.
    kind
        ``"gz"``, ``"bz2"`` or ``"xz"``.
    path, most, expected, error
        As in :func:`given_bytes`.

    Raises
    ------
    KinosonError
        Of the class ``error``, if the contents are damaged or unpack to more.
    """
    name = shown(str(path))
    found: list[bytes] = []
    left = most + 1
    try:
        while data and left > 0:  # several streams may follow each other
            tool: Any = {
                "gz": lambda: zlib.decompressobj(wbits=31),
                "bz2": bz2.BZ2Decompressor,
                "xz": lambda: lzma.LZMADecompressor(memlimit=2**28),
            }[kind]()
            found.append(tool.decompress(data, left))
            left -= len(found[-1])
            if not tool.eof and left > 0:
                raise EOFError("it ends too early")
            data = tool.unused_data
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as problem:
        raise error(
            f"cannot unpack {name} ({problem}); expected {expected}, packed by {kind}; write it again"
        ) from None
    if left <= 0:
        raise error(
            f"found more than {most // 1024} KiB packed in {name}; expected {expected}, which is smaller; unpack it "
            "and look"
        )
    return b"".join(found)


def shown(text: str, most: int = 120) -> str:
    """Text of somebody else in quotes: short, and without characters that a terminal would obey."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-most // 2 :]}"
    return repr(text)
