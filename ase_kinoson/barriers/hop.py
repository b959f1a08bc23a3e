"""What a saddle search takes and gives: the atoms of a state, one jump of one of them, settings and results."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray

from ase_kinoson.barriers.descent import UNSETTLED
from ase_kinoson.barriers.preconditioner import (
    SpringPreconditioner,
    spring_preconditioner,
)
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError

__all__ = [
    "DESCENTS",
    "STATUSES",
    "Hop",
    "Host",
    "JumpResult",
    "SaddleSettings",
    "StateResult",
    "basis_spacing",
    "symbol_of",
]

STATUSES = (
    "ok",
    "unstable-start",
    "unstable-end",
    "left-site",
    "wrong-saddle",
    "side-basin",
    "not-converged",
    "timed-out",
    "calculator-failed",
)
"""What can become of a jump."""
DESCENTS = ("both-ends", "side-basin", UNSETTLED, "not-checked")
"""Where the two ways down from a saddle lead: both into the ends of the jump, at least one into another minimum.

``"unsettled"``: the barrier is that of the highest saddle known, and it is not settled that none is higher.
"""


@dataclass(frozen=True)
class SaddleSettings:
    """How tightly states are relaxed and saddles converged.

    With the defaults the barriers of a jump and of its reverse, computed in two separate searches, agree within 5 meV
    (usually 1 meV).

    Attributes
    ----------
    accuracy
        Energy, eV, that may be left in an end state or a saddle, as the optimiser estimates it (½ F·H⁻¹·F). Unlike a
        force it means the same in cells of any size; both are asked for.
    fmax_initial, fmax_final, fmax_saddle
        Largest force on any atom, eV/Å: of the initial state (it serves all its jumps), of the end states, and the true
        force at the saddle.
    verify
        Whether a saddle is checked: that exactly one direction goes down there, and that both ways down lead to the two
        ends. A saddle that leads to another jump is refused; the next way up is tried.
    side_basin
        What becomes of a jump one of whose ways down ends in another minimum of the *same* sites: ``"keep"`` it,
        marked in ``JumpResult.descents``, or ``"reject"`` it (status ``"side-basin"``). Both ways are looked at, so
        that a jump and its reverse are treated alike. Rejecting biases: in rough landscapes the jumps with side basins
        have other barriers than the rest. With ``"keep"`` a jump whose way behind a side basin cannot be found, or of
        which only an upper bound is known, is kept with the highest saddle known and marked ``"unsettled"``.
    prefactor
        ``"constant"`` computes none (one assumed attempt frequency serves all jumps); ``"vineyard"`` computes that of
        each jump from Hessians of the atoms around it, by 18 force calls per atom.
    prefactor_radius
        Atoms this far (Å) from either site or the saddle of the moving atom vibrate; the others are held.
    max_calls
        Force calls of one jump, all attempts and checks together; None for no limit.
    time_limit_s
        Wall time of one search, s, checked between force calls; None for no limit.
    runaway_distance, runaway_energy
        A search is given up when an atom is further from its ideal place than this, in units of the distance between
        sites, or the energy is that much (eV) above where it began.
    max_relax_calls
        Force calls after which a relaxation is given up.
    max_climb_calls, max_plain_calls
        Force calls of each preconditioned climb and of the plain L-BFGS climb.
    band_images
        Moving images of the climbing-image band.
    max_band_steps
        Steps of the band (each costs ``band_images`` force calls).
    max_step
        Largest displacement of an atom in one step, Å.
    spring, transverse, diagonal
        Preconditioner: radial stiffness (eV/Å²), transverse stiffness relative to it, constant on the diagonal (eV/Å²).
    site_tolerance
        An atom has left its site when it is further from it than this fraction of the distance between sites.
    between
        The moving atom's place at the saddle, as a fraction of the way between its two sites, must lie in this range.
    energy_tolerance
        The saddle may lie this much (eV) below an end before it is refused.

    Raises
    ------
    BarrierError
        If a setting is out of its range.
    """

    accuracy: float = 0.0005
    fmax_initial: float = 0.005
    fmax_final: float = 0.02
    fmax_saddle: float = 0.01
    max_relax_calls: int = 200
    max_climb_calls: int = 40
    max_plain_calls: int = 80
    band_images: int = 5
    max_band_steps: int = 150
    max_step: float = 0.3
    spring: float = 2.0
    transverse: float = 0.15
    diagonal: float = 0.1
    site_tolerance: float = 0.45
    between: tuple[float, float] = (0.1, 0.9)
    energy_tolerance: float = 0.002
    verify: bool = True
    side_basin: str = "keep"
    prefactor: str = "constant"
    prefactor_radius: float = 4.0
    max_calls: int | None = None
    time_limit_s: float | None = None
    runaway_distance: float = 1.5
    runaway_energy: float = 20.0

    def __post_init__(self) -> None:
        positive = ["accuracy", "fmax_initial", "fmax_final", "fmax_saddle", "max_step", "spring", "diagonal"]
        positive += ["prefactor_radius", "runaway_distance", "runaway_energy"]
        positive += [name for name in ("max_calls", "time_limit_s") if getattr(self, name) is not None]
        for name in positive:
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise BarrierError(
                    f"found {name}={getattr(self, name)!r}; expected a positive number; correct the setting"
                )
        for name in ("max_relax_calls", "max_climb_calls", "max_plain_calls", "band_images", "max_band_steps"):
            if int(getattr(self, name)) != getattr(self, name) or getattr(self, name) < 0:
                raise BarrierError(
                    f"found {name}={getattr(self, name)!r}; expected an integer of at least 0; correct it"
                )
        for name, choices in (("side_basin", ("keep", "reject")), ("prefactor", ("constant", "vineyard"))):
            if getattr(self, name) not in choices:
                raise BarrierError(
                    f"found {name}={getattr(self, name)!r}; expected {' or '.join(map(repr, choices))}; correct it"
                )
        low, high = self.between
        if not 0 <= low < high <= 1:
            raise BarrierError(f"found between={self.between!r}; expected 0 <= low < high <= 1; correct the setting")


@dataclass(frozen=True, eq=False)
class Host:
    """The atoms of one state on their ideal sites, in the order of the sites.

    Attributes
    ----------
    numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    positions : ndarray, shape (n_atoms, 3)
        Ideal positions, Å.
    sites : ndarray of int, shape (n_atoms,)
        Site of each atom.
    spacing : ndarray, shape (n_atoms,)
        Distance from each atom's site to the nearest site of its kind (host or interstitial), Å.
    cell : ndarray, shape (3, 3)
        Å.
    pbc : ndarray of bool, shape (3,)
    guests : ndarray of int
        Indices of the interstitial atoms.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    sites: NDArray[np.int64]
    spacing: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    guests: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def from_occupation(cls, supercell: Supercell, occupation: NDArray) -> Host:
        """Put the atoms of an occupation, shape (n_sites,), on the sites of ``supercell``."""
        atoms = supercell.to_atoms(occupation)
        sites = np.flatnonzero(np.asarray(occupation) > 0)
        spacing = basis_spacing(supercell)[supercell.basis_index[sites]]
        cell, pbc = np.array(supercell.cell), np.array(supercell.pbc, dtype=bool)
        interstitial = np.array([s.interstitial for s in supercell.alloy.sublattices])[supercell.sublattice[sites]]
        guests = np.flatnonzero(interstitial)
        return cls(atoms.numbers.astype(np.int64), atoms.positions.copy(), sites, spacing, cell, pbc, guests)

    def atoms(self, positions: NDArray | None = None) -> Atoms:
        """Return Atoms at the given (default: ideal) positions, without a calculator."""
        where = self.positions if positions is None else positions
        return Atoms(numbers=self.numbers, positions=where, cell=self.cell, pbc=self.pbc)

    def preconditioner(self, settings: SaddleSettings) -> SpringPreconditioner:
        """Bond springs of these atoms."""
        return spring_preconditioner(
            self.positions,
            self.cell,
            self.pbc,
            spring=settings.spring,
            transverse=settings.transverse,
            diagonal=settings.diagonal,
            guests=self.guests,
        )


@dataclass(frozen=True, eq=False)
class Hop:
    """One jump of one atom of a :class:`Host`.

    Attributes
    ----------
    mover
        Index of the atom that moves.
    displacement : ndarray, shape (3,)
        From its site to the other site, Å (the minimum-image vector of the jump network).
    """

    mover: int
    displacement: NDArray[np.float64]

    @classmethod
    def from_jump(cls, network: JumpNetwork, host: Host, carrier: int, jump: int) -> Hop:
        """Jump ``jump`` of the carrier on site ``carrier``.

        For a vacancy the atom on the target site moves against the jump vector onto the carrier's site; an interstitial
        atom moves along it.
        """
        vector = network.vectors[network.basis_of([carrier])[0], jump]
        if network.mechanism == "vacancy":
            site, displacement = int(network.targets([carrier])[0, jump]), -vector
        else:
            site, displacement = int(carrier), vector
        found = np.flatnonzero(host.sites == site)
        if len(found) != 1:
            raise BarrierError(
                f"jump {jump} of the carrier on site {carrier} would move an atom from site {site}, which is empty; "
                "expected an atom there; use states with one carrier"
            )
        return cls(int(found[0]), displacement.copy())


@dataclass(frozen=True, eq=False)
class StateResult:
    """A relaxed initial state.

    Attributes
    ----------
    status
        ``"ok"``, ``"unstable-start"``, ``"not-converged"`` or ``"calculator-failed"``.
    reason
        Empty if ok.
    positions : ndarray, shape (n_atoms, 3)
        Relaxed, not wrapped, Å.
    energy
        eV.
    fmax
        eV/Å.
    force_calls
    path : tuple of str
        What was tried.
    wall_s
        Seconds.
    """

    status: str
    reason: str
    positions: NDArray[np.float64]
    energy: float
    fmax: float
    force_calls: int
    path: tuple[str, ...]
    wall_s: float = 0.0


@dataclass(frozen=True, eq=False)
class JumpResult:
    """A finished search: a barrier, or the reason why there is none.

    Attributes
    ----------
    status
        One of ``STATUSES``.
    reason
        Empty if ok and settled.
    energy_initial, energy_final, energy_saddle
        eV; NaN where not reached.
    fmax_final, fmax_saddle
        Forces reached, eV/Å; NaN where not reached.
    force_calls
        All of them: end state, saddle, failed attempts, checks and prefactor.
    verify_calls, prefactor_calls
        The part that checked the saddle, and the part of the prefactor.
    descents
        One of ``DESCENTS``.
    side_initial, side_final : float
        Energy, eV, of the minimum in which the way down towards the initial and towards the final state ended, where it
        is not that state; NaN where it is, or where it was not checked.
    n_unstable
        Number of directions found to go down from the saddle (1 for a saddle); −1 if not checked.
    prefactor, reverse_prefactor
        Vineyard attempt frequencies of the jump and of its reverse, s⁻¹; NaN when not asked for.
    path : tuple of str
        Steps of the search with their force calls.
    saddle_positions, final_positions : ndarray, shape (n_atoms, 3), or None
        Å, not wrapped.
    wall_s
        Seconds.
    """

    status: str
    reason: str = ""
    energy_initial: float = np.nan
    energy_final: float = np.nan
    energy_saddle: float = np.nan
    fmax_final: float = np.nan
    fmax_saddle: float = np.nan
    force_calls: int = 0
    path: tuple[str, ...] = ()
    saddle_positions: NDArray[np.float64] | None = None
    final_positions: NDArray[np.float64] | None = None
    wall_s: float = field(default=0.0)
    verify_calls: int = 0
    prefactor_calls: int = 0
    descents: str = "not-checked"
    side_initial: float = np.nan
    side_final: float = np.nan
    n_unstable: int = -1
    prefactor: float = np.nan
    reverse_prefactor: float = np.nan

    @property
    def search_calls(self) -> int:
        """Force calls of the end state and of all ways up that were tried."""
        return self.force_calls - self.verify_calls - self.prefactor_calls

    @property
    def attempt_frequency(self) -> float:
        """Geometric mean of both prefactors, s⁻¹; NaN when not asked for.

        It is equal for a jump and its reverse, so that rates with it keep detailed balance with the energies of the
        states.
        """
        return float(np.sqrt(self.prefactor * self.reverse_prefactor))

    @property
    def barrier(self) -> float:
        """Saddle minus initial energy, eV; inf if rejected."""
        return self.energy_saddle - self.energy_initial if self.status == "ok" else np.inf

    @property
    def reverse_barrier(self) -> float:
        """Saddle minus final energy, eV; inf if rejected."""
        return self.energy_saddle - self.energy_final if self.status == "ok" else np.inf


# -- climbing -----------------------------------------------------------------------------------------------------


def symbol_of(host: Host, atom: int) -> str:
    """Chemical symbol of an atom."""
    return chemical_symbols[host.numbers[atom]]


@lru_cache(maxsize=8)
def basis_spacing(supercell: Supercell) -> NDArray[np.float64]:
    """Distance from each basis site to the nearest site of its kind, Å, shape (n_basis,); kept, not to be changed."""
    alloy = supercell.alloy
    interstitial = np.array([alloy.sublattices[s].interstitial for s in alloy.site_sublattice])
    spacing = np.empty(alloy.n_basis)
    reach = 1.01 * float(np.linalg.norm(alloy.cell[alloy.pbc], axis=1).max(initial=1.0))
    for kind in (False, True):
        own = np.flatnonzero(interstitial == kind)
        if len(own):
            i, d = primitive_neighbor_list("id", alloy.pbc, alloy.cell, alloy.scaled_positions[own] @ alloy.cell, reach)
            nearest = np.full(len(own), reach)
            np.minimum.at(nearest, i, d)
            spacing[own] = nearest
    spacing.flags.writeable = False
    return spacing
