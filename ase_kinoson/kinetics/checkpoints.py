"""Files of kinetic Monte Carlo that are not finished: written whole or not at all, and read with care.

What is read goes to loops that do not look whether an index is in its array: every array is compared with what it
replaces, and every index with its limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.npz import read_sealed, write_npz
from ase_kinoson.seals import newer
from ase_kinoson.whole_files import remove_leftovers, replace_file

__all__ = ["check_arrays", "read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: str | Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write a checkpoint; never half a file.

    Parameters
    ----------
    path
        The file.
    about
        What it is; for JSON.
    arrays
        By name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with replace_file(path) as temporary, open(temporary, "wb") as file:  # savez would add a suffix to a name
        write_npz(file, about, arrays)


def read_checkpoint(
    path: str | Path, expected: Mapping[str, Any], *, owners: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read a checkpoint.

    Parameters
    ----------
    path
        The file.
    expected
        What it must be about.
    owners
        Supercell and jumps, which know what they were called before.

    Returns
    -------
    about, arrays : dict

    Raises
    ------
    KinosonError
        If the file is damaged, or about something else.
    """
    try:
        known = expected.get("version", 1)
        about, arrays = read_sealed(path, layout=lambda found: newer(found.get("version"), known, found))
        expected = {"random": None, **expected}  # of checkpoints whose random numbers a GPU made
        given = {key: about.get(key) for key in expected}
    except Exception as error:
        raise KinosonError(
            f"cannot read the checkpoint {path} ({type(error).__name__}: {error}); expected a complete file of "
            "save(); remove it to start again"
        ) from error
    for key, value in expected.items():
        if given[key] != value and not (owners and key in owners and owners[key].goes_by(given[key])):
            raise KinosonError(
                f"the checkpoint {path} has {key}={given[key]!r}; expected {value!r}; remove it or repeat the "
                "arguments it was made with"
            )
    return about, arrays


def check_arrays(
    path: str | Path, arrays: Mapping[str, NDArray], like: Iterable[tuple[str, NDArray]], limits: Mapping[str, int]
) -> None:
    """Compare the arrays of a checkpoint with those that they replace.

    Parameters
    ----------
    path
        The file.
    arrays
        What it holds.
    like
        Name of every array that it must hold, and one of its shape and type.
    limits
        Names of arrays of indices (some may be missing in the file), and what all of these must be below.

    Raises
    ------
    KinosonError
        If an array is missing, has another shape or type, or holds an index beyond its limit.
    """
    for name, own in like:
        found = arrays.get(name)
        if found is None or found.shape != own.shape or found.dtype != own.dtype:
            said = "no array" if found is None else f"an array of shape {found.shape} and type {found.dtype}"
            raise KinosonError(
                f"the checkpoint {path} has {said} under {name}; expected shape {own.shape} and type {own.dtype}; "
                "remove it to start again"
            )
    for name, limit in limits.items():
        index = arrays.get(name)
        if index is not None and index.size and not (index.min() >= 0 and index.max() < limit):
            raise KinosonError(
                f"the checkpoint {path} has {name} from {index.min()} to {index.max()}; expected 0 to {limit - 1}; "
                "remove it to start again"
            )
