"""The stage: parent crystals, supercells, jumps and the sites around them."""

from ase_kinoson.crystal.alloy import Alloy, Sublattice
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Mapped, Supercell

__all__ = ["Alloy", "JumpNetwork", "Mapped", "States", "Sublattice", "Supercell"]
