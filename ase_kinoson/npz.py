"""Reading NumPy archives that may be anybody's."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAMAGED", "read_npz"]

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
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a file raises that is damaged or something else."""


def read_npz(path: str | Path) -> dict[str, NDArray]:
    """Read all arrays of an ``.npz`` file, whatever its suffix; nothing is unpickled.

    Raises
    ------
    ValueError
        If it is no whole zip archive, or an array would have to be unpickled. A damaged file raises what ``zipfile``
        and NumPy raise of it.
    """
    with open(path, "rb") as stream:
        # else NumPy takes it for a pickle, and tells the user how to load it unsafely
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no whole zip archive")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
