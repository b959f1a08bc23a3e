"""`FiveFrequency`: one solute atom and one vacancy in an fcc crystal, the textbook model of dilute alloys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError, ModelError, StructureError
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY, thermal_energy

__all__ = ["FiveFrequency"]


@dataclass(frozen=True)
class FiveFrequency:
    """Five rates of vacancy jumps around one solute atom in fcc.

    The model of A. D. Lidiard and A. D. Le Claire. The vacancy next to the solute has the Boltzmann factor w4/w3 of one
    far away, as detailed balance wants. The rates are those at ``temperature_K``; they come from barriers
    Q = k_BT ln(ν/w), so that the model can stand wherever barriers can.

    Parameters
    ----------
    solute : str
        Species of the solute; the other one is the solvent.
    w0, w1, w2, w3, w4 : float
        Rates, s⁻¹: far from the solute; from one neighbour of the solute to another; exchange with the solute; from
        a neighbour of the solute to a site that is none; and the reverse of that.
    temperature_K : float
        Temperature at which the rates hold, K.
    attempt_frequency : float
        ν, s⁻¹; the one that the barriers are used with.

    Raises
    ------
    KinosonError
        If a rate is negative or not finite, or w3, w4 or the attempt frequency is not positive.

    Notes
    -----
    Exact results of a periodic cell of N sites with one solute s and one vacancy v are per vacancy. With the partition
    sum of the vacancy in units of a site far from the solute, Z = N − 13 + 12 w4/w3, the coefficients of the infinite
    dilute alloy per concentration of solute and of free vacancies are L_ss = Z Λ_ss and L_sv = Z Λ_sv =
    −Z (Λ_ss + Λ_sh), h the solvent, up to terms of order 1/N from the drift of the small cell. The solute correlation
    factor is f₂ = Λ_ss/Λ_ss[y = 0] = L_ss/(a² w2 w4/w3), with a the cubic lattice constant. These are the quantities
    that D. R. Trinkle's Onsager package (Philos. Mag. 97, 2514 (2017)) returns as ``Lss`` and ``Lsv``, to be
    multiplied by c_v c_s/k_BT; see also A. R. Allnatt and A. B. Lidiard, Atomic Transport in Solids (1993).
    """

    solute: str
    w0: float = 1.0
    w1: float = 1.0
    w2: float = 1.0
    w3: float = 1.0
    w4: float = 1.0
    temperature_K: float = 1000.0
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY

    def __post_init__(self) -> None:
        rates = {name: getattr(self, name) for name in ("w0", "w1", "w2", "w3", "w4")}
        values = np.array(list(rates.values()), dtype=float)
        if not (np.all(np.isfinite(values) & (values >= 0)) and self.w3 > 0 and self.w4 > 0):
            raise KinosonError(
                f"found rates {rates}; expected finite numbers ≥ 0 in s⁻¹, w3 and w4 above 0; correct them"
            )
        if not (np.isfinite(self.attempt_frequency) and self.attempt_frequency > 0):
            raise KinosonError(
                f"found attempt_frequency={self.attempt_frequency!r}; expected a positive number in s⁻¹; correct it"
            )
        thermal_energy(self.temperature_K)

    def bind(self, network: JumpNetwork) -> _BoundFiveFrequency:
        """Attach the model to the nearest-neighbour jumps of an fcc crystal of two species.

        Parameters
        ----------
        network
            Its jumps.

        Raises
        ------
        StructureError
            If the jumps are others.
        KinosonError
            If there are not two species, or the solute is none of them.
        """
        alloy = network.supercell.alloy
        fcc = network.mechanism == "vacancy" and (alloy.n_basis, network.dimension) == (1, 3)
        fcc = fcc and (network.n_jumps, network.n_classes) == (12, 1)
        # twelve vectors of one length L span fcc, whose sites are the crystal only if the volume is L³/√2
        if not fcc or not np.isclose(abs(np.linalg.det(alloy.cell)) * np.sqrt(2), network.lengths[0] ** 3, rtol=1e-3):
            raise StructureError(
                f"found {network!r}; expected the 12 nearest-neighbour jumps of a vacancy in fcc, the only lattice of "
                "the five-frequency model; use another lattice gas"
            )
        species = network.supercell.species
        if len(species) != 3 or self.solute not in species[1:]:
            raise KinosonError(
                f"found solute {self.solute!r} in an alloy of {species[1:]}; expected one of two species; rename it "
                "or define the alloy with solvent and solute"
            )
        w0, w1, w2, w3, w4 = (self._energy(w) for w in (self.w0, self.w1, self.w2, self.w3, self.w4))
        energy = _Binding(network, species.index(self.solute), w3 - w4)
        return _BoundFiveFrequency(network, energy, np.array([[w0, w4], [w3, w1]]), w2)

    def _energy(self, rate: float) -> float:
        """Barrier of a rate, eV."""
        if rate == 0:
            return np.inf
        return thermal_energy(self.temperature_K) * float(np.log(self.attempt_frequency / rate))


@dataclass(frozen=True, eq=False)
class _Binding:
    """Energy −ε if the vacancy is a neighbour of the solute, else 0; an `EnergyModel`."""

    network: JumpNetwork
    solute: int
    energy: float

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        codes = np.asarray(occupations)
        carriers = (codes == 0).argmax(axis=1)
        return -self.energy * self.bound(codes, carriers)

    def swap_delta(self, occupations: NDArray, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
        codes, i, j = np.asarray(occupations), np.asarray(first), np.asarray(second)
        before = (codes == 0).argmax(axis=1)
        rows = np.arange(len(codes))
        after = codes.copy()
        after[rows, i], after[rows, j] = codes[rows, j], codes[rows, i]
        carriers = np.where(before == i, j, np.where(before == j, i, before))
        return -self.energy * (self.bound(after, carriers) - self.bound(codes, before))

    def bound(self, codes: NDArray, carriers: NDArray) -> NDArray[np.float64]:
        """1 where the vacancy is a neighbour of the solute, else 0, shape (n,)."""
        if np.any((codes == self.solute).sum(axis=1) > 1):
            raise ModelError(
                "found more than one solute atom in a cell; expected at most one, the five-frequency model is that of "
                "a dilute alloy; lower the number of solute atoms or use another model"
            )
        near = codes[np.arange(len(codes))[:, None], self.network.targets(carriers)] == self.solute
        return near.any(axis=1).astype(float)


@dataclass(frozen=True, eq=False)
class _BoundFiveFrequency:
    """Barriers by whether the vacancy is a neighbour of the solute before (row) and after (column) the jump."""

    network: JumpNetwork
    energy: _Binding
    by_shell: NDArray[np.float64]
    exchange: float

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        codes, c = np.asarray(occupations), np.asarray(carriers)
        targets = self.network.targets(c)
        rows = np.arange(len(c))[:, None]
        moved = codes[rows, targets]
        before = self.energy.bound(codes, c).astype(int)[:, None]
        # neighbours of every target: a solute that exchanges itself stays a neighbour
        beyond = self.network.targets(targets.ravel()).reshape(*targets.shape, -1)
        after = (codes[rows[..., None], beyond] == self.energy.solute).any(axis=2).astype(int)
        own = moved == self.energy.solute
        after = np.where(own, before, after)
        barrier = np.where(own, self.exchange, self.by_shell[before, after])
        return JumpEnergies(barrier, -self.energy.energy * (after - before))
