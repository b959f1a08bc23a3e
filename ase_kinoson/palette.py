"""Colours and markers of species, the same in all figures.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MARKERS", "PALETTE", "species_colors"]

PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
MARKERS = "osD^vPX*"


def species_colors(species: Iterable[str]) -> dict[str, str]:
    """One colour per species, by alphabetical order."""
    return {s: PALETTE[i % len(PALETTE)] for i, s in enumerate(sorted(set(species)))}
