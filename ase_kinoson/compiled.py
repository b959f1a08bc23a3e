"""Whether loops can be compiled, and how: numba is optional, and everything works without it, slower.

Compiled code is kept on disk. Numba asks only the file of a function whether the code is still that of its source; a
function of another file that is compiled into it is not looked at, and after an upgrade old code would run. Here all
sources that compiled code is made of are asked (:data:`SOURCES`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import pickle
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from ase_kinoson.errors import SlowFallback

__all__ = ["SOURCES", "SWITCH", "can_compile", "compiled"]

SWITCH = "ASE_KINOSON_COMPILED"
"""Environment variable; ``0`` leaves numba alone even where it is installed."""

SOURCES = (
    "compiled",
    "barriers/incremental",
    "barriers/incremental_loops",
    "barriers/incremental_sites",
    "barriers/incremental_work",
    "barriers/vector_loops",
    "kinetics/exchange_loop",
    "kinetics/exchange_network",
    "kinetics/exchange_tables",
    "kinetics/gas_loop",
    "kinetics/jump_step",
    "kinetics/ladder_joins",
    "kinetics/ladder_loop",
    "kinetics/ladder_lists",
    "kinetics/learned_loop",
    "kinetics/loops",
    "kinetics/rates",
)
"""Modules with compiled code, and with the constants and named tuples that it is compiled with."""

SETTINGS = ("NUMBA_BOUNDSCHECK", "NUMBA_DEBUGINFO", "NUMBA_OPT")
"""Environment variables that change the code that numba makes."""

Function = TypeVar("Function", bound=Callable[..., Any])


def can_compile() -> bool:
    """Whether numba is installed, works, and is not switched off (by :data:`SWITCH` or ``NUMBA_DISABLE_JIT``).

    Modules with compiled loops import numba at their top and are themselves imported only where this is true.

    Returns
    -------
    bool
    """
    if os.environ.get(SWITCH, "1") == "0" or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return False
    return importlib.util.find_spec("numba") is not None and _numba_works()


@functools.cache
def _numba_works() -> bool:
    try:
        import numba  # noqa: F401
    except Exception as error:  # a NumPy that is too new for it, say
        warnings.warn(
            SlowFallback(
                f"numba is installed and cannot be imported ({type(error).__name__}: {error}); expected a version that "
                "fits",
                advice=f"everything works, slower: upgrade numba, or set {SWITCH}=0",
            ),
            stacklevel=3,
        )
        return False
    return True


def compiled(**options: Any) -> Callable[[Function], Function]:
    """Compile a function when it is called, without holding the lock of the interpreter; keep the code on disk.

    Where numba keeps its own (``NUMBA_CACHE_DIR``, the folder of the module, or that of the user); where none can be
    written to, the code is compiled anew in every process. Code of other sources than :data:`SOURCES` are now is not
    used.

    Parameters
    ----------
    **options
        Of ``numba.njit``, such as ``error_model`` and ``inline``.

    Returns
    -------
    callable
        Decorates a function.
    """
    import numba

    def decorate(function: Function) -> Function:
        dispatcher: Any = numba.njit(nogil=True, **options)(function)
        if options.get("inline") != "always":
            try:
                dispatcher._cache = _DiskCache(function)
            except Exception:  # no folder can be written to, or this numba keeps its code in another way
                pass
        return cast(Function, dispatcher)

    return decorate


class _DiskCache:
    """What a function of numba asks for its code: numba's own, on files of our own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        from numba.core.caching import FunctionCache

        self._numba = cast(Any, FunctionCache(function))
        if not hasattr(self._numba, "_cache_file"):
            raise NotImplementedError
        path = Path(self._numba.cache_path) / f"{self._numba._impl.filename_base}.kinoson"
        self._numba._cache_file = _CodeFiles(path, _stamp())

    @property
    def cache_path(self) -> str:
        return str(self._numba.cache_path)

    def load_overload(self, signature: Any, context: Any) -> Any:
        try:
            return self._numba.load_overload(signature, context)
        except Exception:  # a damaged file is no file
            return None

    def save_overload(self, signature: Any, code: Any) -> None:
        try:
            self._numba.save_overload(signature, code)
        except OSError:  # a full disk must not end a run
            pass

    def flush(self) -> None:
        self._numba._cache_file.flush()


class _CodeFiles:
    """Code of one function: a file for each signature, so that processes that write at once do not mix them up.

    Parameters
    ----------
    path
        How the files begin.
    stamp
        Of the sources; code with another stamp is not used, and overwritten.
    """

    def __init__(self, path: Path, stamp: str) -> None:
        self.path, self.stamp = path, stamp

    def _file(self, key: Any) -> Path:
        return self.path.with_name(f"{self.path.name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc")

    def load(self, key: Any) -> Any:
        try:
            with open(self._file(key), "rb") as file:
                if pickle.load(file) != self.stamp:  # before the rest, which another numba may not be able to read
                    return None
                kept, code = pickle.load(file)
        except FileNotFoundError:
            return None
        return code if kept == key else None

    def save(self, key: Any, code: Any) -> None:
        from numba.core.serialize import dumps

        draft = self.path.with_name(f"{self.path.name}-{uuid.uuid4().hex[:16]}.tmp")
        try:
            draft.write_bytes(pickle.dumps(self.stamp) + dumps((key, code)))
            os.replace(draft, self._file(key))
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def flush(self) -> None:
        for file in self.path.parent.glob(f"{self.path.name}-*.nbc"):
            file.unlink(missing_ok=True)


@functools.cache
def _stamp() -> str:
    """Digest of all sources, of the versions of package and numba, and of what changes its code."""
    import numba

    import ase_kinoson

    found = hashlib.sha256(f"{ase_kinoson.__version__} {numba.__version__}".encode())
    for name in SETTINGS:
        found.update(f" {name}={os.environ.get(name, '')}".encode())
    for name in SOURCES:
        source = importlib.util.find_spec(f"{__package__}.{name.replace('/', '.')}")
        if source is None or source.origin is None:
            raise FileNotFoundError(name)
        found.update(hashlib.sha256(Path(source.origin).read_bytes()).digest())
    return found.hexdigest()
