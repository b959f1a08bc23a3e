"""Sublattices: sites of the parent crystal that share one average composition."""

from __future__ import annotations

from dataclasses import dataclass

from ase_kinoson.mson import Storable

__all__ = ["VACANCY", "Sublattice"]

VACANCY = "X"
"""Symbol of an empty site (ASE's symbol of atomic number 0)."""


@dataclass(frozen=True)
class Sublattice(Storable):
    """Sites of the parent crystal that share one average composition.

    Attributes
    ----------
    name
        Label used in reports and to select sublattices.
    composition : tuple of (symbol, fraction)
        Site fractions of the atoms, sorted by symbol; they sum to the occupancy of the sublattice.
    mobile
        Whether the carrier visits these sites.
    interstitial
        Whether the sites are interstitial: empty but for one diffusing atom.
    """

    name: str
    composition: tuple[tuple[str, float], ...]
    mobile: bool = True
    interstitial: bool = False

    @property
    def species(self) -> tuple[str, ...]:
        """Symbols of the atoms on this sublattice."""
        return tuple(s for s, _ in self.composition)

    @property
    def occupancy(self) -> float:
        """Fraction of the sites that hold an atom, no unit."""
        return float(sum(x for _, x in self.composition))

    @property
    def vacant_fraction(self) -> float:
        """Fraction of the sites that are empty on average, no unit."""
        empty = 1.0 - self.occupancy
        return empty if empty > 1e-6 and not self.interstitial else 0.0  # thirds do not sum to 1 exactly

    @property
    def is_disordered(self) -> bool:
        """Whether more than one kind of occupant is possible."""
        return len(self.composition) > 1 or self.vacant_fraction > 1e-9
