"""How a defect is planted: one change of the source of a function of the package, or another function around it.

What is planted stays in the running process; see :mod:`tests.controls.nested`. Most defects are one change of the
source of one function, which is named together with the text that it replaces; a text that is no longer there is an
error, so that no control can be empty.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import CodeType
from typing import Any


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong.

    Attributes
    ----------
    says : str
        What, in words.
    plant : callable
        Makes it so in this process.
    place, old, new : str
        Where, and the text that is replaced and by what, if it is one of a function.
    """

    says: str
    plant: Callable[[], None]
    place: str = ""
    old: str = ""
    new: str = ""

    def check(self) -> None:
        """Raise LookupError, AttributeError, NameError, SyntaxError or ValueError if it can no longer be planted."""
        if self.place:
            found = find(self.place)[2]
            if self.old:
                _rewritten(self.place, unwrapped(found), self.old, self.new)


def find(place: str) -> tuple[Any, str, Any]:
    """Owner, name and object of ``"module:name"`` or ``"module:Class.name"`` within the package."""
    module, _, path = place.partition(":")
    owner: Any = import_module(f"ase_kinoson.{module}")
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, inspect.getattr_static(owner, name)


def unwrapped(found: Any) -> Any:
    """The plain function of a method, property or decorated function."""
    for name in ("fget", "func", "__func__", "py_func"):
        if hasattr(found, name):
            return unwrapped(getattr(found, name))
    return inspect.unwrap(found)


def _once(place: str, function: Any, old: str) -> str:
    """Source of a function that holds a text once."""
    found = textwrap.dedent(inspect.getsource(function))
    if found.count(old) != 1:
        raise LookupError(f"found {old!r} {found.count(old)} times in {place}; expected once; rewrite this defect")
    return found


def _rewritten(place: str, function: Any, old: str, new: str) -> CodeType:
    """Code of a function with another text in it."""
    lines = _once(place, function, old).replace(old, new).splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("def "))  # its decorators are kept
    scope: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + "\n".join(lines[begin:])
    exec(compile(text, f"<{place}>", "exec"), function.__globals__, scope)
    code = scope[function.__name__].__code__
    if code.co_freevars != function.__code__.co_freevars:
        raise ValueError(f"found other variables from around {place}; expected the same; rewrite this defect")
    unknown = _globals_of(code) - _globals_of(function.__code__) - function.__globals__.keys() - vars(builtins).keys()
    if unknown:
        raise NameError(f"found {sorted(unknown)}, which {place} does not know; rewrite this defect")
    return code


def _globals_of(code: CodeType) -> set[str]:
    """Names that a function looks up outside of itself."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals_of(c) for c in code.co_consts if isinstance(c, CodeType)))


def rewrite(place: str, old: str, new: str) -> None:
    """Change the source of a function of the package, wherever it is used."""
    function = unwrapped(find(place)[2])
    function.__code__ = _rewritten(place, function, old, new)


def around(place: str, change: Callable[..., Any]) -> None:
    """Call ``change(right, *args, **kwargs)`` instead of a function of the package, by whatever name it is held."""
    owner, name, found = find(place)
    right = unwrapped(found)

    @functools.wraps(right)
    def wrong(*args: Any, **kwargs: Any) -> Any:
        return change(right, *args, **kwargs)

    if inspect.isclass(owner):
        for kind in (property, classmethod, staticmethod):
            if isinstance(found, kind):
                setattr(owner, name, kind(wrong))
                return
        setattr(owner, name, wrong)
        return
    for module_name, module in list(sys.modules.items()):
        if module is not None and module_name.partition(".")[0] in ("ase_kinoson", "tests"):
            for key, value in list(vars(module).items()):
                if value is found:
                    setattr(module, key, wrong)


def source(says: str, place: str, old: str, new: str) -> Defect:
    return Defect(says, lambda: rewrite(place, old, new), place, old, new)


def call(says: str, place: str, change: Callable[..., Any]) -> Defect:
    return Defect(says, lambda: around(place, change), place)
