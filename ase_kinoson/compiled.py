"""Whether loops can be compiled: numba is optional, and everything works without it, slower."""

from __future__ import annotations

import importlib.util
import os

__all__ = ["SWITCH", "can_compile"]

SWITCH = "ASE_KINOSON_COMPILED"
"""Environment variable; ``0`` leaves numba alone even where it is installed."""


def can_compile() -> bool:
    """Whether numba is installed and not switched off.

    Modules with compiled loops import numba at their top and are themselves imported only where this is true.

    Returns
    -------
    bool
    """
    return os.environ.get(SWITCH, "1") != "0" and importlib.util.find_spec("numba") is not None
