"""Files that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there leftovers stay
    fcntl = None  # type: ignore[assignment]

__all__ = ["remove_leftovers", "replace_file"]

_CLEANED: set[Path] = set()
"""Folders in which this process has looked for leftovers."""
_LEFTOVER = re.compile(r"^\..+\.\d+-[0-9a-f]{8}\.tmp(\.\w+)?$")


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it replaces ``path`` in one step.

    The bytes are on the disk before the name is: after a power cut too there is the old file or the new one. The
    temporary file is locked while it is written, so that :func:`remove_leftovers` knows those of killed processes.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError
        If it cannot be written (a full disk, no permission); names the file. What was there is still there.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()  # the link stays one
    if path.exists() and not path.is_file():  # a pipe, a terminal: nothing to replace
        yield path
        return
    if path.parent not in _CLEANED:  # once: some folders get thousands of files
        _CLEANED.add(path.parent)
        remove_leftovers(path.parent)
    temporary, held = path, -1
    try:
        temporary, held = _own_file(path)
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        if os.name != "nt":
            with contextlib.suppress(OSError):  # some file systems sync no folders
                _to_disk(path.parent)
    except OSError as error:
        own = temporary == path or error.filename in (None, str(temporary), temporary)  # or there is none yet
        if error.errno is None or not own:
            raise
        reason = f"{error.strerror or error}; expected free space in a folder that may be written; see to it, try again"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        if temporary != path:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if held >= 0:
            os.close(held)


def _own_file(path: Path) -> tuple[Path, int]:
    """An empty file beside ``path`` and what holds its lock, -1 where there are none."""
    while True:
        # two hosts, or two containers, may have the same process numbers
        temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
        held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if fcntl is None:
            os.close(held)
            return temporary, -1
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process took it for a leftover before it was locked
            os.close(held)
            continue
        except OSError:  # a file system without locks
            return temporary, held
        if temporary.exists():
            return temporary, held
        os.close(held)


def _to_disk(path: Path) -> None:
    # by its name: whoever wrote it may have put another file in its place
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove what killed processes left of :func:`replace_file` in a folder.

    Parameters
    ----------
    folder
        The folder; those in it are left alone.

    Returns
    -------
    list of str
        Names of the files removed. Files that a process still writes stay.
    """
    removed: list[str] = []
    if fcntl is None:
        return removed
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if not _LEFTOVER.match(file.name):
                continue
            with contextlib.suppress(OSError):
                handle = os.open(file, os.O_RDWR)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.unlink()
                    removed.append(file.name)
                finally:
                    os.close(handle)
    return removed
