"""Parameter files inside an installed KIM model, read without the KIM API.

A KIM model is a shared library with its parameter files inside; a schema (version 2, of kim-api 2) says where.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ase.calculators.calculator import CalculatorSetupError

__all__ = ["KimModel", "find_model", "parameter_files"]

INSTALL = "apt-get install openkim-models libkim-api-dev"
LIBRARY = ("libkim-api-portable-model.so", "libkim-api-portable-model.dylib")
SCHEMA_VERSION = 2


class _File(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("length", ctypes.c_uint),
        ("content", ctypes.POINTER(ctypes.c_ubyte)),
    )


class _Schema(ctypes.Structure):
    _fields_ = (
        ("item_type", ctypes.c_int),
        ("item_name", ctypes.c_char_p),
        ("language", ctypes.c_int),
        ("create", ctypes.c_void_p),
        ("driver", ctypes.c_char_p),
        ("specification", ctypes.c_void_p),
        ("n_parameter_files", ctypes.c_int),
        ("parameter_files", ctypes.POINTER(_File)),
        ("n_metadata_files", ctypes.c_int),
        ("metadata_files", ctypes.POINTER(_File)),
    )


@dataclass(frozen=True)
class KimModel:
    """A portable model of KIM.

    Attributes
    ----------
    name
        Extended KIM ID.
    driver
        Extended KIM ID of its driver; empty if it stands alone.
    files : tuple of (str, bytes)
        Parameter files in their order.
    """

    name: str
    driver: str
    files: tuple[tuple[str, bytes], ...]


def parameter_files(name: str) -> dict[str, bytes]:
    """Parameter files of an installed KIM model: name → content; see `find_model`."""
    return dict(find_model(name).files)


@cache
def find_model(name: str) -> KimModel:
    """Read an installed portable model of KIM.

    Parameters
    ----------
    name
        Extended KIM ID, such as ``"SNAP_LiChenZheng_2019_NbTaWMo__MO_560387080449_000"``.

    Raises
    ------
    CalculatorSetupError
        If it is not installed, or its library cannot be read.
    """
    paths = [folder / name / library for folder in _folders() for library in LIBRARY]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise CalculatorSetupError(
            f"found no KIM model {name!r}; expected an extended KIM ID of an installed model; {INSTALL}, or "
            f"kim-api-collections-management install user {name}"
        )
    try:
        library = ctypes.CDLL(str(path))
        version = ctypes.c_int.in_dll(library, "kim_shared_library_schema_version").value
        if version != SCHEMA_VERSION:
            raise ValueError(f"its schema has version {version}, not {SCHEMA_VERSION}")
        schema = _Schema.in_dll(library, "kim_shared_library_schema")
        files = [schema.parameter_files[k] for k in range(schema.n_parameter_files)]
        content = tuple((f.name.decode(), ctypes.string_at(f.content, f.length)) for f in files)
        return KimModel(name, (schema.driver or b"").decode(), content)
    except (OSError, ValueError) as error:
        raise CalculatorSetupError(
            f"cannot read the KIM model {path} ({error}); expected one for kim-api 2; install it again: {INSTALL}"
        ) from error


@cache
def _folders() -> tuple[Path, ...]:
    """Folders of portable models: those named to the KIM API, the user's, and where installers put them."""
    found = [Path(p) for p in os.environ.get("KIM_API_PORTABLE_MODELS_DIR", "").split(os.pathsep) if p]
    found += sorted(Path.home().glob(".kim-api/*/portable-models-dir"))
    for prefix in (Path(sys.prefix), Path(sys.base_prefix), Path("/usr"), Path("/usr/local"), Path("/opt/homebrew")):
        for pattern in ("lib/kim-api", "lib/*-linux-gnu/kim-api", "lib64/kim-api"):
            found += sorted(prefix.glob(f"{pattern}/portable-models"))
    return tuple(dict.fromkeys(found))
