"""From averages of relaxed displacements to all transport coefficients.

Evaluations, trajectories, residual ladders and exact solutions all end in the same averages; this is the one place
where they become D_v, D*, L_ab and correlation factors, with units and errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.vacancy_fraction import SAME_COMPOSITION, VacancyFraction, fraction_at
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S, EV_IN_JOULE, thermal_energy

__all__ = ["Averages", "Composition", "coefficients", "onsager_scale", "site_volume"]


@dataclass(frozen=True, eq=False)
class Averages:
    """Averages over states and what resampling makes of them.

    Row 0 of every array is the value, the other rows are resamples; errors are made of these
    (:func:`~ase_kinoson.kinetics.resampling.standard_error`), so that every function of the averages has an error that
    knows of common noise.

    Attributes
    ----------
    collective, collective_bare : ndarray, shape (1 + n_resamples, n_species, n_species, 3, 3)
        ½⟨Σ_k W_k (δx^a + Δ_k y^a) ⊗ (δx^b + Δ_k y^b)⟩ and the same with y = 0, Å²/s.
    tracer, tracer_bare : ndarray, shape (1 + n_resamples, n_species, 3, 3), or None
        ½⟨Σ_k W_k Σ_{i∈a} (δx_i + Δ_k y_i) ⊗ (δx_i + Δ_k y_i)⟩, Å²/s.
    has_errors : bool
        Whether the resamples tell an error.
    exact : bool
        Errors are zero.
    """

    collective: NDArray[np.float64]
    collective_bare: NDArray[np.float64]
    tracer: NDArray[np.float64] | None = None
    tracer_bare: NDArray[np.float64] | None = None
    has_errors: bool = True
    exact: bool = False

    @property
    def vacancy(self) -> NDArray[np.float64]:
        """The same for the carrier, which moves against all atoms together, shape (1 + n_resamples, 3, 3)."""
        return self.collective.sum(axis=(1, 2))

    @property
    def vacancy_bare(self) -> NDArray[np.float64]:
        """The same with y = 0."""
        return self.collective_bare.sum(axis=(1, 2))

    def quantity(
        self, rows: NDArray, *, scale: float = 1.0, relative_error: float = 0.0, unit: str, kind: str
    ) -> Quantity:
        """Make a number with its error from a value and its resamples, shape (1 + n_resamples, ...).

        ``relative_error`` is that of ``scale``; it is independent of the averages and added in quadrature. Nothing
        stays exact with it.
        """
        value = np.asarray(rows[0], dtype=float) * scale
        if self.exact:
            error = np.zeros_like(value)
        elif not self.has_errors or len(rows) < 3:
            error = np.full_like(value, np.nan)
        else:
            error = standard_error(rows[1:]) * abs(scale)
        if relative_error > 0:
            error = np.hypot(error, np.abs(value) * relative_error)
            kind = "estimate" if kind == "exact" else kind
        if value.ndim == 0:
            return Quantity(float(value), float(error), unit, kind)
        return Quantity(value, error, unit, kind)


@dataclass(frozen=True, eq=False)
class Composition:
    """Mobile species of an alloy, the order of all matrices.

    Attributes
    ----------
    species : tuple of str
    index : ndarray of int, shape (n_species,)
        Their places in ``supercell.species[1:]``.
    fractions : ndarray, shape (n_species,)
        Atoms per mobile site.
    """

    species: tuple[str, ...]
    index: NDArray[np.int64]
    fractions: NDArray[np.float64]

    @classmethod
    def of(cls, states: States) -> Composition:
        """Species that can move and that some state holds."""
        cell = states.supercell
        mobile = {s for sub in cell.alloy.sublattices if sub.mobile for s in sub.species}
        on = states.occupations[:, cell.mobile_sites]
        codes = [
            c for c in range(1, len(cell.species)) if cell.species[c] in mobile and np.any(states.occupations == c)
        ]
        share = [float(states.weights @ (on == c).sum(axis=1)) / len(cell.mobile_sites) for c in codes]
        return cls(tuple(cell.species[c] for c in codes), np.array(codes) - 1, np.array(share))


def coefficients(
    averages: Averages,
    network: JumpNetwork,
    composition: Composition,
    *,
    kind: str,
    off_diagonal: str | None = None,
    temperature_K: float | None,
    vacancy_fraction: float | VacancyFraction | None,
) -> dict[str, Any]:
    """Return the coefficients of a :class:`Transport` by the names of its attributes.

    Parameters
    ----------
    averages
        Over the species of ``composition``.
    network
        Jumps.
    composition
        Species and their fractions.
    kind
        Kind of the diagonal coefficients.
    off_diagonal
        Kind of the others, where it differs.
    temperature_K, vacancy_fraction
        As in :func:`transport`.

    Raises
    ------
    KinosonError
        If ``vacancy_fraction`` is no site fraction.

    Notes
    -----
    The error of c_v enters D*_a and L_ab, all of them alike: it drops out of their ratios. D_v, Λ_ab and correlation
    factors do not know c_v.
    """
    d = network.dimension
    vacancy = network.mechanism == "vacancy"
    atoms = dict(zip(composition.species, composition.fractions / composition.fractions.sum(), strict=True))
    # the vacancy of a small cell takes an atom away from one of the species
    within = max(SAME_COMPOSITION, 1.0 / len(network.supercell.mobile_sites))
    given = fraction_at(vacancy_fraction, temperature_K, atoms, within=within)
    per_cv = vacancy and given is None
    cv = float(given[0]) if given and vacancy else 1.0
    doubt = float(given[0].error) / cv if given and vacancy else 0.0
    unit = "m^2/s per c_v" if per_cv else "m^2/s"
    si = ANGSTROM2_PER_S_TO_M2_PER_S

    def scalar(x: NDArray) -> NDArray:
        return np.einsum("...xy,xy->...", x, network.projector) / d

    def tensor(x: NDArray) -> NDArray:
        return np.einsum("ij,...jk,kl->...il", network.projector, x, network.projector)

    def ratio(x: NDArray, y: NDArray) -> NDArray:
        return np.divide(x, y, out=np.full(np.shape(x), np.nan), where=np.asarray(y) > 0)

    make = averages.quantity
    mixed = kind if off_diagonal in (None, kind) else f"{kind} (diagonal), {off_diagonal} (off-diagonal)"
    tracer_d, tracer_tensor, factor = {}, {}, {}
    if averages.tracer is not None and averages.tracer_bare is not None:
        for a, symbol in enumerate(composition.species):
            share = cv / composition.fractions[a] * si if vacancy else si
            own, bare = averages.tracer[:, a], averages.tracer_bare[:, a]
            tracer_d[symbol] = make(scalar(own), scale=share, relative_error=doubt, unit=unit, kind=kind)
            tracer_tensor[symbol] = make(tensor(own), scale=share, relative_error=doubt, unit=unit, kind=kind)
            factor[symbol] = make(ratio(scalar(own), scalar(bare)), unit="1", kind=kind)
    pairs = scalar(averages.collective)
    bare_pairs = scalar(averages.collective_bare)
    own, bare = scalar(averages.vacancy), scalar(averages.vacancy_bare)
    collective_factor = {"vacancy" if vacancy else "carrier": make(ratio(own, bare), unit="1", kind=kind)}
    for a, symbol in enumerate(composition.species):
        collective_factor[symbol] = make(ratio(pairs[:, a, a], bare_pairs[:, a, a]), unit="1", kind=kind)
    onsager = None
    if temperature_K is not None and vacancy:
        onsager = make(
            pairs,
            scale=cv * onsager_scale(network, temperature_K),
            relative_error=doubt,
            unit=("1/(m J s)" if d == 3 else "1/(J s)" if d == 2 else "m/(J s)") + (" per c_v" if per_cv else ""),
            kind=mixed,
        )
    return {
        "species": composition.species,
        "temperature_K": temperature_K,
        "vacancy_fraction": None if given is None else float(given[0]),
        "vacancy_fraction_error": 0.0 if given is None else float(given[0].error),
        "vacancy_fraction_source": "" if given is None else given[1],
        "vacancy_diffusivity": make(own, scale=si, unit="m^2/s", kind=kind),
        "vacancy_diffusivity_tensor": make(tensor(averages.vacancy), scale=si, unit="m^2/s", kind=kind),
        "tracer_diffusivity": tracer_d,
        "tracer_diffusivity_tensor": tracer_tensor,
        "onsager_matrix": onsager,
        "lambda_matrix": make(pairs, unit="Å^2/s", kind=mixed),
        "correlation_factor": factor,
        "collective_correlation_factor": collective_factor,
        "averages": averages,
        "composition": composition,
        "network": network,
    }


def onsager_scale(network: JumpNetwork, temperature_K: float) -> float:
    """Factor from Λ_ab, Å²/s, to L_ab/c_v = Λ_ab/(Ω k_BT) in SI units."""
    to_si = ANGSTROM2_PER_S_TO_M2_PER_S / (1e-10**network.dimension * EV_IN_JOULE)
    return to_si / (site_volume(network.supercell) * thermal_energy(temperature_K))


def site_volume(cell: Supercell) -> float:
    """Volume (area, length) per mobile site, Å^d."""
    vectors = cell.cell[cell.pbc]
    return float(np.sqrt(np.linalg.det(vectors @ vectors.T))) / len(cell.mobile_sites)
