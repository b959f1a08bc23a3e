"""Results as JSON in the MSONable convention of the Materials Project, and back.

monty's convention is a dictionary whose ``"@module"`` and ``"@class"`` say what to build from it; pymatgen, fireworks,
jobflow and maggma read and write it (``dumpfn``, ``loadfn``, ``MontyEncoder``, ``MontyDecoder``). :class:`Storable`
does it for frozen dataclasses of numbers, arrays, containers and other dataclasses: every float comes back bit for
bit, tuples come back as tuples. Numbers that are not finite are written as ``NaN`` and ``Infinity``, as Python's json
does.
"""

from __future__ import annotations

import collections.abc
import json
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from monty.json import MSONable

from ase_kinoson.errors import KinosonError, KinosonWarning
from ase_kinoson.seals import newer, read_json_file, seal, unsealed
from ase_kinoson.whole_files import replace_file

__all__ = ["Storable", "build", "decode", "encode", "encode_fields", "label"]

PACKAGE = __name__.partition(".")[0]
SCHEMA = 1
"""Version of the layout of these dictionaries."""
T = TypeVar("T")


class Storable(MSONable):
    """Mixin that makes a frozen dataclass MSONable.

    Fields named in the class attribute ``not_stored`` are left out and come back as their defaults.
    """

    not_stored: typing.ClassVar[tuple[str, ...]] = ()

    def as_dict(self) -> dict[str, Any]:
        """All stored fields, with what it takes to build the object again, ready for JSON."""
        return {**label(type(self)), **encode_fields(self)}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Self:
        """Undo :meth:`as_dict`.

        Parameters
        ----------
        d
            What :meth:`as_dict` gave, also after JSON.

        Raises
        ------
        KinosonError
            If fields are missing.
        """
        return build(cls, d)

    def save(
        self,
        json_path: os.PathLike | str,
        mkdir: bool = True,
        json_kwargs: dict | None = None,
        pickle_kwargs: dict | None = None,
        strict: bool = True,
    ) -> None:
        """Write one JSON file; monty's own method would put what JSON cannot hold into a pickle beside it.

        Parameters
        ----------
        json_path
            The file.
        mkdir
            Make the folder.
        json_kwargs
            Of :func:`json.dumps`.
        pickle_kwargs
            Not used.
        strict
            Refuse to write over a file.

        Raises
        ------
        FileExistsError
            If the file exists and ``strict``.
        KinosonError
            If a field holds what JSON cannot.
        """
        path, text = Path(json_path), json.dumps(seal(self.as_dict()), **(json_kwargs or {}))
        if strict and path.exists():
            raise FileExistsError(f"found {path}; expected no file of this name; pass strict=False to write over it")
        if mkdir:
            path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, file_path: os.PathLike | str) -> Self:
        """Read a file of :meth:`save`; no pickle is ever opened.

        Parameters
        ----------
        file_path
            The file.

        Raises
        ------
        KinosonError
            If it is damaged, was changed, is of a newer version or holds something else.
        """
        try:
            data = read_json_file(Path(file_path))
            if not isinstance(data, dict):
                raise ValueError("it holds no object")
            wrong = _wrong_layout(data) or unsealed(data)
        except ValueError as error:
            wrong = str(error)
        if wrong:
            raise KinosonError(
                f"cannot read {file_path}: {wrong}; expected a file of save() as it was written; save it again"
            )
        try:
            return cls.from_dict(data)
        except KinosonError:
            raise
        except Exception as error:  # whatever the fields of a class make of values that are none
            raise KinosonError(
                f"cannot read {file_path} ({type(error).__name__}: {error}); expected a {cls.__name__} of save(); save "
                "it again"
            ) from error


def encode(value: Any) -> Any:
    """Plain JSON types of a value; arrays and dataclasses carry ``"@module"`` and ``"@class"``."""
    if isinstance(value, np.ndarray):
        # the form that monty gives arrays
        found = {"@module": "numpy", "@class": "array", "dtype": str(value.dtype), "data": value.tolist()}
        return found if value.size else {**found, "shape": list(value.shape)}  # lists of nothing do not tell it
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) and not isinstance(value, type):
        return {**label(type(value)), **encode_fields(value)}
    if isinstance(value, KinosonWarning):
        return {**label(type(value)), **value.as_dict()}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise KinosonError(
        f"found a {type(value).__name__} that JSON cannot hold; expected numbers, text, arrays or containers of them; "
        "leave it out of the settings"
    )


def encode_fields(value: Any) -> dict[str, Any]:
    """Fields of a dataclass that are stored, encoded, by name."""
    left_out = getattr(value, "not_stored", ())
    return {f.name: encode(getattr(value, f.name)) for f in fields(value) if f.init and f.name not in left_out}


def build(cls: type[T], data: Mapping[str, Any]) -> T:
    """Make a dataclass from its encoded fields; keys that are no fields are passed over."""
    known: Any = cls
    hints = _hints(known)
    given = {f.name: decode(data[f.name], hints[f.name]) for f in fields(known) if f.name in data}
    try:
        return cls(**given)
    except TypeError as error:
        raise KinosonError(
            f"found fields {sorted(given)} for {cls.__name__} ({error}); expected those that as_dict() writes; write "
            "the object again"
        ) from None


def decode(value: Any, hint: Any = Any) -> Any:
    """Undo :func:`encode`; ``hint``, the annotation of a field, tells tuples from lists."""
    if isinstance(value, Mapping) and "@class" in value:
        return _decode_labelled(value)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        fitting = [h for h in inner if _fits(value, h)]
        return decode(value, fitting[0] if fitting else Any)
    if isinstance(value, Mapping):
        if is_dataclass(hint):  # from an encoder that does not label what is nested
            return build(hint, value)  # type: ignore[arg-type]
        if hint is KinosonWarning:
            return KinosonWarning.from_dict(value)
        within = inner[1] if len(inner) == 2 else Any
        number = len(inner) == 2 and inner[0] is int  # JSON makes text of whole numbers that are keys
        return {int(k) if number else k: decode(v, within) for k, v in value.items()}
    if isinstance(value, list | tuple):
        if origin is tuple:
            each = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
            return tuple(decode(v, h) for v, h in zip(value, each, strict=True))
        if origin is np.ndarray:
            return np.asarray(value)
        return [decode(v, inner[0] if inner else Any) for v in value]
    return value


def _decode_labelled(value: Mapping[str, Any]) -> Any:
    """Build what ``"@module"`` and ``"@class"`` name: an array or a class of this package, nothing else."""
    module, name = str(value.get("@module")), str(value["@class"])
    if module == "numpy" and name == "array":
        array = np.array(value["data"], dtype=value["dtype"])
        return array if array.size or "shape" not in value else array.reshape(value["shape"])
    if module.partition(".")[0] == PACKAGE:
        try:
            found = getattr(import_module(module), name, None)
        except ImportError:
            found = None  # of another version of the package
        if isinstance(found, type) and is_dataclass(found):
            return build(found, value)
        if isinstance(found, type) and issubclass(found, KinosonWarning):
            return KinosonWarning.from_dict(value)
    raise KinosonError(
        f"found a {name} of {module} in stored data; expected arrays and results of {PACKAGE}; read it with the tool "
        "that wrote it"
    )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value can be of this member of a union."""
    if value is None:
        return hint is type(None)
    kind = typing.get_origin(hint) or hint
    if isinstance(value, Mapping):
        return is_dataclass(kind) or kind in (dict, Mapping, collections.abc.Mapping)
    if isinstance(value, list | tuple):
        return kind in (tuple, list, np.ndarray, collections.abc.Sequence)
    return isinstance(kind, type) and (isinstance(value, kind) or (kind is float and isinstance(value, int)))


def _wrong_layout(data: Mapping[str, Any]) -> str:
    """The first files named no version of their layout."""
    version = data.get("@schema", SCHEMA)
    if version == SCHEMA:
        return ""
    by = {"written_by": data.get("@version")}
    return newer(version, SCHEMA, by) or f"it has version {str(version)[:20]!r} of its layout"


def label(cls: type) -> dict[str, Any]:
    """The keys that say what to build from a dictionary."""
    version = getattr(import_module(PACKAGE), "__version__", "unknown")
    return {"@module": cls.__module__, "@class": cls.__name__, "@version": version, "@schema": SCHEMA}


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)
