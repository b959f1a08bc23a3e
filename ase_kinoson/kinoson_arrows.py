"""`KinosonArrows`: jumps as arrows in space, each with what it contributes.

The carrier is where an arrow begins and the arrow is its jump; a vacancy exchanges with an atom that moves the other
way, and the species of the arrow is the one of that atom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.density import KinosonDensity
from ase_kinoson.kinosons.result import Transport
from ase_kinoson.mson import Storable
from ase_kinoson.plotting import species_colors
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["EMPTY", "KinosonArrows"]

EMPTY = "X"
"""Symbol of a site that any of several species may hold."""

FAN = 0.11
"""Distance of arrows of one jump from their common axis, in units of its length."""


@dataclass(frozen=True, eq=False)
class KinosonArrows(Storable):
    """Jumps and their kinosons, with the sites around them; the origin is the carrier.

    Attributes
    ----------
    start : ndarray, shape (n, 3)
        Site of the carrier before the jump, Å.
    vector : ndarray, shape (n, 3)
        Displacement of the carrier on the ideal lattice, Å; the exchanged atom moves by the opposite.
    contribution : ndarray, shape (n,)
        m²/s. Of a state: its kinosons, whose mean over states is the coefficient. Of the average lattice: they add up
        to the coefficient.
    species : ndarray of str, shape (n,)
        Who moves.
    barrier : ndarray, shape (n,)
        eV, weighted with kinosons where an arrow stands for many jumps; NaN without barriers.
    atom : ndarray of int, shape (n,)
        Row of the moving atom in ``positions``; −1 where the carrier itself moves or the atom is an average.
    positions : ndarray, shape (m, 3)
        Atoms (of the average lattice: sites) around the carrier, nearest periodic images, Å.
    symbols : ndarray of str, shape (m,)
        Their species; ``"X"`` for a site of the average lattice that several may hold.
    cell : ndarray, shape (3, 3)
        Supercell vectors (rows), Å.
    pbc : ndarray of bool, shape (3,)
        Periodic directions.
    mechanism : str
        ``"vacancy"`` or ``"interstitial"``.
    quantity : str
        Column of the kinoson table.
    label : str
        What is shown, for titles.
    alloy_species : tuple of str
        All species of the alloy, which fix the colours.

    Raises
    ------
    KinosonError
        If arrays do not have one row per contribution, or a contribution is negative or not finite.
    """

    start: NDArray[np.float64]
    vector: NDArray[np.float64]
    contribution: NDArray[np.float64]
    species: NDArray[Any]
    barrier: NDArray[np.float64]
    atom: NDArray[np.int64]
    positions: NDArray[np.float64]
    symbols: NDArray[Any]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    mechanism: str
    quantity: str
    label: str
    alloy_species: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.contribution)
        shapes = {name: np.shape(getattr(self, name)) for name in ("start", "vector", "species", "barrier", "atom")}
        wanted = {name: (n, 3) if name in ("start", "vector") else (n,) for name in shapes}
        wrong = [f"{name} {shapes[name]}" for name in shapes if shapes[name] != wanted[name]]
        if wrong:
            raise KinosonError(
                f"found {', '.join(wrong)} for {n} contributions; expected one row for each; give as many of all"
            )
        if n and not (np.all(np.isfinite(self.contribution)) and self.contribution.min() >= 0):
            raise KinosonError(
                "found contributions that are negative or not finite; expected kinosons, which are neither; correct "
                "the rates they come from"
            )

    @classmethod
    def of_state(cls, result: Transport, state_index: int, *, quantity: str | None = None) -> KinosonArrows:
        """All jumps of one state, the atoms around the carrier as they are in it.

        Parameters
        ----------
        result
            Output of :func:`~ase_kinoson.kinosons.transport.transport`, or of another way to a coefficient that keeps
            states.
        state_index
            Which state; negative numbers count from the end.
        quantity
            As in :meth:`KinosonDensity.from_result`: default the vacancy (or carrier), ``"Cu"``, ``"tracer_Cu"``.

        Raises
        ------
        KinosonError
            If the result does not hold its states, or there is no such state.
        """
        network = _network(result)
        states = result.states
        if states is None:
            raise KinosonError(
                "found a result that does not hold its states; expected them, to know which atoms are around; evaluate "
                "states with transport() or exact_transport()"
            )
        if not -len(states) <= state_index < len(states):
            raise KinosonError(
                f"found state_index={state_index}; expected a number below {len(states)}, the states of the result; "
                "choose one"
            )
        i = int(state_index) % len(states)
        if states.weights[i] <= 0:
            raise KinosonError(f"found state {i} of weight 0; expected one that counts; choose another")
        density = KinosonDensity.from_result(result, quantity=quantity)
        cell = network.supercell
        here = density.state == i
        jump = _jump(density)[here]
        carrier = int(states.carriers[i])
        basis = int(network.basis_of(carrier))
        vector = network.vectors[basis, jump]
        target = network.targets(carrier)[0, jump]
        around = cell.minimum_image(cell.positions - cell.positions[carrier])
        around[target] = vector  # a long jump may end at a farther image
        codes = states.occupations[i]
        full = np.flatnonzero((codes > 0) & (np.arange(len(codes)) != carrier))
        row = np.full(len(codes), -1)
        row[full] = np.arange(len(full))
        return cls(
            start=np.zeros_like(vector),
            vector=vector,
            contribution=density.kinoson[here] * ANGSTROM2_PER_S_TO_M2_PER_S,
            species=density.species[here].astype(str),
            barrier=density.barrier[here],
            atom=row[target] if network.mechanism == "vacancy" else np.full(len(jump), -1),
            positions=around[full],
            symbols=np.array(cell.species)[codes[full]],
            cell=cell.cell,
            pbc=np.asarray(cell.pbc),
            mechanism=network.mechanism,
            quantity=density.quantity,
            label=f"state {i}",
            alloy_species=tuple(cell.species[1:]),
        )

    @classmethod
    def average(cls, result: Transport, *, quantity: str | None = None, symmetric: bool = False) -> KinosonArrows:
        """Jumps of the average lattice: one arrow per basis site, jump and moving species.

        Parameters
        ----------
        result
            Any result with kinosons.
        quantity
            As in :meth:`of_state`.
        symmetric
            Give all jumps of a symmetry class their mean, which takes noise out where the states are few. The sum
            stays.

        Returns
        -------
        KinosonArrows
            Arrows begin at the basis sites of one primitive cell; their contributions add up to the coefficient.

        Raises
        ------
        KinosonError
            If the result has no table of kinosons or no jumps, or lacks its states on a lattice of several mobile sites
            per cell.
        """
        network = _network(result)
        density = KinosonDensity.from_result(result, quantity=quantity)
        basis = _basis(result, network, density.state)
        jump = _jump(density)
        names, code = np.unique(density.species.astype(str), return_inverse=True)
        shape = (*network.exists.shape, len(names))
        flat = np.ravel_multi_index((basis, jump, code), shape)

        def gather(values: NDArray) -> NDArray[np.float64]:
            return np.bincount(flat, weights=values, minlength=int(np.prod(shape))).reshape(shape)

        carried = gather(density.contribution)
        height = gather(density.contribution * np.where(np.isfinite(density.barrier), density.barrier, 0.0))
        if symmetric:
            carried, height = (_class_means(x, network) for x in (carried, height))
        b, k, a = np.nonzero((carried > 0) & network.exists[..., None])
        contribution = carried[b, k, a]
        start, around, symbols = _average_sites(network)
        unknown = np.isnan(density.barrier).any()
        return cls(
            start=start[b],
            vector=network.vectors[b, k],
            contribution=contribution * ANGSTROM2_PER_S_TO_M2_PER_S,
            species=names[a],
            barrier=np.full(len(a), np.nan) if unknown else height[b, k, a] / contribution,
            atom=np.full(len(a), -1),
            positions=around,
            symbols=symbols,
            cell=network.supercell.cell,
            pbc=np.asarray(network.supercell.pbc),
            mechanism=network.mechanism,
            quantity=density.quantity,
            label="average lattice",
            alloy_species=tuple(network.supercell.species[1:]),
        )

    def __len__(self) -> int:
        return len(self.contribution)

    @property
    def total(self) -> float:
        """Sum of the contributions, m²/s."""
        return float(self.contribution.sum())

    @property
    def share(self) -> NDArray[np.float64]:
        """Contribution of each arrow over their sum, shape (n,), no unit; 0 where nothing contributes."""
        return self.contribution / self.total if self.total > 0 else np.zeros(len(self))

    @property
    def share_by_species(self) -> dict[str, float]:
        """Part of the sum that the jumps of each species carry, no unit."""
        return {s: float(self.share[self.species == s].sum()) for s in sorted(set(self.species.tolist()))}

    @property
    def fan(self) -> NDArray[np.float64]:
        """Shift of arrows that would lie on each other, Å, shape (n, 3).

        The largest stays on their common axis, the others stand around it.
        """
        shift = np.zeros_like(self.vector)
        place = np.round(np.hstack([self.start, self.vector]), 4) + 0.0
        bundle = np.unique(place, axis=0, return_inverse=True)[1].ravel()
        for i in range(bundle.max(initial=-1) + 1):
            own = np.flatnonzero(bundle == i)
            along = self.vector[own[:1]]
            others = np.delete(own, self.contribution[own].argmax())
            first, second = across(along)
            angle = 2 * np.pi * np.arange(len(others))[:, None] / max(len(others), 1)
            shift[others] = FAN * np.linalg.norm(along) * (np.cos(angle) * first + np.sin(angle) * second)
        return shift

    # -- elsewhere ------------------------------------------------------------------------------------------------

    def to_atoms(self, *, scaled: bool = False, colors: Mapping[str, str] | None = None) -> Atoms:
        """Atoms with the jumps as arrays.

        An atom that jumps carries its own arrow. Where there is no such atom (an interstitial with several jumps, the
        average lattice) one particle is added per arrow, of the species that moves, where its move begins.

        Parameters
        ----------
        scaled
            Shorten arrows by (contribution / largest)^½; default all have the length of the jump.
        colors
            Colour of each species; default those of all figures.

        Returns
        -------
        Atoms
            Arrays ``disp``: displacement of the moving atom, Å, 0 for atoms that do not jump; ``kinoson`` (Å²/s, as
            the table; its sum is ``info["total_m2_per_s"]`` times 10²⁰) and ``share`` (of the sum);
            ``vector_color``: red, green and blue from 0 to 1. ``info["origin"]`` puts the carrier in the middle of the
            cell.
        """
        from matplotlib.colors import to_rgb

        vacancy = self.mechanism == "vacancy"
        move = -self.vector if vacancy else self.vector
        if scaled:
            move = move * thickness(self.contribution)[:, None]
        begin = self.start + self.fan + (self.vector if vacancy else 0.0)
        added = np.flatnonzero(self.atom < 0)
        row = self.atom.copy()
        row[added] = len(self.positions) + np.arange(len(added))
        symbols = [*self.symbols.tolist(), *self.species[added].tolist()]
        palette = colors or species_colors(self.alloy_species)
        atoms = Atoms(symbols, np.vstack([self.positions, begin[added]]), cell=self.cell, pbc=self.pbc)
        disp, kinoson, share = np.zeros((len(atoms), 3)), np.zeros(len(atoms)), np.zeros(len(atoms))
        disp[row], share[row] = move, self.share
        kinoson[row] = self.contribution / ANGSTROM2_PER_S_TO_M2_PER_S
        for name, values in (("disp", disp), ("kinoson", kinoson), ("share", share)):
            atoms.set_array(name, values)
        atoms.set_array("vector_color", np.array([to_rgb(palette.get(s, "0.6")) for s in symbols]))
        atoms.info |= {
            "total_m2_per_s": self.total,
            "quantity": self.quantity,
            "shown": self.label,
            "origin": np.where(self.pbc, 1.0, 0.0) @ self.cell / -2,
        }
        return atoms

    def write_extxyz(self, path: str | Path, *, scaled: bool = False, colors: Mapping[str, str] | None = None) -> None:
        """Write :meth:`to_atoms` as extended XYZ, read by OVITO and ``ase.io.read``.

        OVITO maps the columns ``disp`` to its property Displacement and ``vector_color`` to Vector Color. Tick
        *Displacements* under *Visual elements* of the pipeline; arrows begin at their atoms with *Alignment: Base*. It
        draws all arrows equally wide: show contributions by length with ``scaled=True``, or by *Color mapping* of
        ``share``.

        Parameters
        ----------
        path
            Of the file.
        scaled, colors
            As in :meth:`to_atoms`.
        """
        atoms = self.to_atoms(scaled=scaled, colors=colors)
        names = ["symbols", "positions", "disp", "kinoson", "share", "vector_color"]
        ase.io.write(path, atoms, format="extxyz", columns=names)

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw with matplotlib, as :func:`plot_kinosons_3d` does.

        Parameters
        ----------
        ax
            Axes to draw on, in three dimensions; default: new ones.
        **options
            As in :func:`plot_kinosons_3d`.
        """
        from ase_kinoson.kinoson_view import plot_kinosons_3d

        return plot_kinosons_3d(self, ax, **options)

    def view(self, **options: Any) -> Any:
        """Show in a notebook, as :func:`view_kinosons_3d` does.

        Parameters
        ----------
        **options
            As in :func:`view_kinosons_3d`.
        """
        from ase_kinoson.kinoson_view import view_kinosons_3d

        return view_kinosons_3d(self, **options)


def across(along: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two unit vectors at right angles to each vector and to each other, shape (n, 3) each."""
    unit = along / np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(unit).argmin(axis=1)]
    first = np.cross(unit, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return first, np.cross(unit, first)


def thickness(contribution: NDArray) -> NDArray[np.float64]:
    """Diameter of arrows whose cross-section is proportional to the contribution, the widest 1, shape (n,)."""
    largest = contribution.max(initial=0.0)
    return np.sqrt(contribution / largest) if largest > 0 else np.zeros(len(contribution))


def _network(result: Transport) -> JumpNetwork:
    network = getattr(result, "network", None)
    if network is None:
        raise KinosonError(
            f"found a {type(result).__name__} without its jumps; expected a result of transport() or a similar "
            "function; evaluate the states again"
        )
    return network


def _jump(density: KinosonDensity) -> NDArray[np.int64]:
    if density.jump is None or not len(density.jump):
        raise KinosonError("found no jumps in the table of kinosons; expected them; evaluate with kinosons=True")
    return density.jump


def _basis(result: Transport, network: JumpNetwork, state: NDArray) -> NDArray[np.int64]:
    """Basis site of the carrier of each row, shape (n,)."""
    if result.states is not None:
        return network.basis_of(result.states.carriers[state])
    mobile = np.flatnonzero(network.exists.any(axis=1))
    if len(mobile) > 1:
        raise KinosonError(
            f"found a result that does not hold its states, on a lattice of {len(mobile)} mobile sites per cell; "
            "expected states, to know where the carrier was; evaluate them with transport() or exact_transport()"
        )
    return np.full(len(state), mobile[0])


def _class_means(values: NDArray, network: JumpNetwork) -> NDArray[np.float64]:
    """Mean over the jumps of each directed class, same shape (n_basis, J, n_species)."""
    mean = np.zeros_like(values)
    for c in np.unique(network.directed_class[network.exists]):
        own = network.exists & (network.directed_class == c)
        mean[own] = values[own].mean(axis=0)
    return mean


def _average_sites(network: JumpNetwork) -> tuple[NDArray, NDArray, NDArray]:
    """Where the carrier may be in one primitive cell (by basis site), and all sites around with their symbols."""
    cell, alloy = network.supercell, network.supercell.alloy
    mobile = np.flatnonzero(network.exists.any(axis=1))
    own = alloy.scaled_positions @ alloy.cell
    start = cell.minimum_image(own - own[mobile[0]])
    centre = start[mobile].mean(axis=0)
    around = cell.minimum_image(cell.positions - own[mobile[0]] - centre)
    kinds = [sub.species[0] if len(sub.species) == 1 and not sub.interstitial else EMPTY for sub in alloy.sublattices]
    return start - centre, around, np.array(kinds)[cell.sublattice]
