"""One table of units and conversions.

Inside the package: eV, Å, K, s⁻¹. Constants come from :mod:`ase.units` (CODATA 2014).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from ase import units as _ase

BOLTZMANN_EV_PER_K: Final[float] = _ase.kB
"""Boltzmann constant, eV/K."""

ANGSTROM2_PER_S_TO_M2_PER_S: Final[float] = 1e-20
"""Multiply a diffusivity in Å²/s to get m²/s."""

EV_IN_JOULE: Final[float] = 1.0 / _ase.J
"""One electronvolt in joule."""

ONSAGER_TO_SI: Final[float] = 1e10 / EV_IN_JOULE
"""Multiply 1/(Å eV s) to get 1/(m J s), the unit of Onsager coefficients in three dimensions."""

DEFAULT_ATTEMPT_FREQUENCY: Final[float] = 1e13
"""Attempt frequency assumed where none is given, s⁻¹. Every result records the value used."""


def thermal_energy(temperature_K: float) -> float:
    """Return k_B·T in eV.

    Parameters
    ----------
    temperature_K
        Absolute temperature, K.

    Raises
    ------
    KinosonError
        If the temperature is not a positive finite number.
    """
    from ase_kinoson.errors import KinosonError

    kT = BOLTZMANN_EV_PER_K * _number(temperature_K)
    if not 0.0 < kT < float("inf"):
        raise KinosonError(
            f"found temperature_K={temperature_K!r}; expected a positive number of kelvin; give the absolute "
            "temperature"
        )
    return kT


def _number(given: Any) -> float:
    """A number as float, in its own unit; NaN for what only looks like one: a text, True, nothing, several.

    Parameters
    ----------
    given
        Anything; no unit is asked for.
    """
    if isinstance(given, str | bytes | bytearray | bool | np.bool_):
        return float("nan")
    try:
        return float(given)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
