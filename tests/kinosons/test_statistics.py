"""Quantities as text."""

from __future__ import annotations

import ase_kinoson as ak


def test_rounding_is_no_error():
    """The last digits of a sum are no scatter; a small error is."""
    assert str(ak.Quantity(1.0, 2.2e-16, "1", "bound")) == "1 ± 0 (bound)"
    assert str(ak.Quantity(1e-30, 1e-36, "m^2/s", "kmc")) == "1e-30 ± 1e-36 m^2/s (kmc)"
    assert str(ak.Quantity(0.0, 1e-20, "eV", "estimate")) == "0 ± 1e-20 eV (estimate)"
