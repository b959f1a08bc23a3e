"""What the field makes of the Onsager matrix: vacancy wind, intrinsic diffusion and interdiffusion.

Every number is a function of the averages behind a :class:`Transport`, formed inside each resample, so that noise
common to numerator and denominator cancels in its error. Sizes of cells are treated in
:mod:`ase_kinoson.kinosons.finite_size`.

Sources: A. R. Allnatt and A. B. Lidiard, *Atomic Transport in Solids* (Cambridge 1993), for the Onsager form;
J. R. Manning, Phys. Rev. B 4, 1111 (1971), for the vacancy wind in concentrated alloys; L. S. Darken, Trans. AIME 175,
184 (1948). The vacancies are in local equilibrium: they carry no chemical force of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.coefficients import Averages, Composition
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, EXACT, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S

__all__ = [
    "Interdiffusion",
    "Scalars",
    "VacancyWind",
    "derived_kind",
    "interdiffusion",
    "intrinsic_diffusivities",
    "scalars",
    "vacancy_wind",
]


@dataclass(frozen=True, eq=False)
class Scalars:
    """Scalar averages of a vacancy mechanism and their resamples, Å²/s per vacancy.

    Attributes
    ----------
    averages : Averages
        Turns rows into numbers with errors.
    composition : Composition
        Species and their fractions.
    pairs : ndarray, shape (1 + n_resamples, n, n)
        Λ_ab.
    tracer : ndarray, shape (1 + n_resamples, n), or None
        Λ*_a.
    dimension : int
        Number of periodic directions d.
    projector : ndarray, shape (3, 3)
        Onto the periodic directions.
    kind : str
        Of numbers derived from these.
    """

    averages: Averages
    composition: Composition
    pairs: NDArray[np.float64]
    tracer: NDArray[np.float64] | None
    dimension: int
    projector: NDArray[np.float64]
    kind: str

    @property
    def against_vacancy(self) -> NDArray[np.float64]:
        """Λ_av = −Σ_b Λ_ab, shape (1 + n_resamples, n)."""
        return -self.pairs.sum(axis=2)

    @property
    def vacancy(self) -> NDArray[np.float64]:
        """Λ_vv, shape (1 + n_resamples,)."""
        return self.pairs.sum(axis=(1, 2))


@dataclass(frozen=True, eq=False)
class VacancyWind:
    """How vacancies and atoms drive each other.

    Attributes
    ----------
    drag_ratio : dict of Quantity
        G_a = L_av/L_aa = −Σ_b L_ab/L_aa of each species. Positive: the species is dragged along with the vacancies,
        down the same gradient; −1: it only exchanges with them (no pair of jumps is correlated). For a dilute solute B
        in A, G_B = −1 − L_AB/L_BB, with L_AB/L_BB the *wind coefficient* of the older literature: drag where it is
        below −1.
    wind_factor : dict of Quantity or None
        Of a binary: r_a = D_a/(φ D*_a) = (Λ_aa − Λ_ab x_a/x_b)/Λ*_a, what the vacancy wind makes of the intrinsic
        diffusivity D_a. 1 for atoms that differ in nothing but their name. None for other numbers of species, or
        without tracers.
    darken_manning_factor : Quantity or None
        S in D̃ = (x_B D*_A + x_A D*_B) φ S: 1 for equal atoms; with Manning's formulas between 1 and 1/f.
    """

    drag_ratio: dict[str, Quantity]
    wind_factor: dict[str, Quantity] | None
    darken_manning_factor: Quantity | None

    def as_dict(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        factors, s = self.wind_factor, self.darken_manning_factor
        return {
            "drag_ratio": {a: q.as_dict() for a, q in self.drag_ratio.items()},
            "wind_factor": None if factors is None else {a: q.as_dict() for a, q in factors.items()},
            "darken_manning_factor": None if s is None else s.as_dict(),
        }


@dataclass(frozen=True, eq=False)
class Interdiffusion:
    """Chemical diffusion in a binary by vacancies.

    Attributes
    ----------
    intrinsic : dict of Quantity
        D_A and D_B, m²/s (per c_v without a vacancy fraction).
    coefficient : Quantity
        Interdiffusion coefficient D̃ = x_B D_A + x_A D_B.
    kirkendall : Quantity
        D_A − D_B, first species minus second; the lattice moves with v = (D_A − D_B) ∇x_A.
    thermodynamic_factor : tuple of (float, float)
        φ and its error, as given.
    darken_manning_factor : Quantity or None
        S, see :class:`VacancyWind`; None without tracers.
    """

    intrinsic: dict[str, Quantity]
    coefficient: Quantity
    kirkendall: Quantity
    thermodynamic_factor: tuple[float, float]
    darken_manning_factor: Quantity | None

    def as_dict(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        s = self.darken_manning_factor
        return {
            "intrinsic_diffusivity": {a: q.as_dict() for a, q in self.intrinsic.items()},
            "interdiffusion_coefficient": self.coefficient.as_dict(),
            "kirkendall_difference": self.kirkendall.as_dict(),
            "thermodynamic_factor": {"value": self.thermodynamic_factor[0], "error": self.thermodynamic_factor[1]},
            "darken_manning_factor": None if s is None else s.as_dict(),
        }


def derived_kind(kind: str) -> str:
    """Kind of a function of several coefficients: a difference or quotient of bounds is no bound."""
    return ESTIMATE if kind == BOUND else kind


def scalars(result: Transport, *, what: str = "this quantity") -> Scalars:
    """Take the scalar averages out of a result of a vacancy mechanism.

    Parameters
    ----------
    result
        From an evaluation, an exact solution, or trajectories.
    what
        Named in the error.

    Raises
    ------
    KinosonError
        If the result is that of an interstitial or does not hold its averages.
    """
    if "vacancy" not in result.collective_correlation_factor:
        raise KinosonError(
            f"found a result of an interstitial for {what}; expected jumps of a vacancy, whose exchanges couple the "
            "species; use its diffusivity and tracer coefficients directly"
        )
    own, composition = result.averages, result.composition
    if own is None or composition is None:
        raise KinosonError(
            f"found a result without its averages for {what}; expected those that transport() keeps; evaluate again"
        )
    projector, d = np.eye(3), 0
    if result.states is not None:
        cell = result.states.supercell
        vectors = cell.cell[cell.pbc]
        projector, d = vectors.T @ np.linalg.solve(vectors @ vectors.T, vectors), cell.alloy.dimension
    else:  # Λ_ab is the trace over d
        d = round(float(np.trace(own.collective[0].sum(axis=(0, 1))) / np.sum(result.lambda_matrix.value)))
    pairs = np.einsum("rabxy,xy->rab", own.collective, projector) / d
    tracer = None if own.tracer is None else np.einsum("raxy,xy->ra", own.tracer, projector) / d
    return Scalars(own, composition, pairs, tracer, d, projector, derived_kind(result.vacancy_diffusivity.kind))


def vacancy_wind(result: Transport) -> VacancyWind:
    """Drag ratios of all species; wind factors and the Darken-Manning factor S of a binary.

    Parameters
    ----------
    result
        Transport coefficients of a vacancy mechanism.

    Returns
    -------
    VacancyWind

    Raises
    ------
    KinosonError
        If the result is that of an interstitial.

    Notes
    -----
    In a cell of N sites the factors differ from those of the infinite crystal by O(1/N), because tracer coefficients
    do: see :func:`~ase_kinoson.kinosons.finite_size.finite_size_corrected`.

    J. R. Manning, Phys. Rev. B 4, 1111 (1971); the Onsager form as in A. R. Allnatt and A. B. Lidiard, Atomic Transport
    in Solids, Cambridge University Press (1993).
    """
    own = scalars(result, what="the vacancy wind")
    make, kind, species = own.averages.quantity, own.kind, own.composition.species
    diagonal = np.einsum("raa->ra", own.pairs)
    drag = _divide(own.against_vacancy, diagonal)
    ratios = {a: make(drag[:, i], unit="1", kind=kind) for i, a in enumerate(species)}
    if len(species) != 2 or own.tracer is None:
        return VacancyWind(ratios, None, None)
    intrinsic, tracer, x = _binary(own)
    assert tracer is not None
    factors = _divide(intrinsic, tracer)
    return VacancyWind(
        ratios,
        {a: make(factors[:, i], unit="1", kind=kind) for i, a in enumerate(species)},
        make(_divide(intrinsic @ x[::-1], tracer @ x[::-1]), unit="1", kind=kind),
    )


def intrinsic_diffusivities(
    result: Transport, thermodynamic_factor: float | tuple[float, float]
) -> dict[str, Quantity]:
    """Intrinsic diffusivities of a binary, in the frame of the lattice.

    D_A = k_BT Ω (L_AA/x_A − L_AB/x_B) φ = c_v (Λ_AA/x_A − Λ_AB/x_B) φ, and the same with A and B exchanged
    (Allnatt and Lidiard 1993, vacancies in equilibrium). In the random alloy with one rate per species the sum rule
    Σ_b Λ_ab w_a/w_b = Λ_aa[0] makes D_A/D_B = w_A/w_B exactly.

    Parameters
    ----------
    result
        Transport coefficients of a binary and a vacancy. Without its ``vacancy_fraction`` the numbers are per c_v.
    thermodynamic_factor : float or (float, float)
        φ = ∂ln a_A/∂ln x_A, 1 for an ideal solution, equal for both species; or φ and its standard error. It is that
        of the alloy and the temperature of the result.

    Returns
    -------
    dict of Quantity
        m²/s; no bounds, since they are differences.

    Raises
    ------
    KinosonError
        If the alloy is no binary, the mechanism no vacancy, or φ not positive.

    Notes
    -----
    A. R. Allnatt and A. B. Lidiard, Atomic Transport in Solids, Cambridge University Press (1993); in units:
    docs/units.md#from-l-to-intrinsic-diffusivities-and-mobilities.
    """
    return interdiffusion(result, thermodynamic_factor).intrinsic


def interdiffusion(result: Transport, thermodynamic_factor: float | tuple[float, float]) -> Interdiffusion:
    """Interdiffusion coefficient, intrinsic diffusivities and Kirkendall difference of a binary.

    D̃ = x_B D_A + x_A D_B with the D of :func:`intrinsic_diffusivities`; x are fractions of the atoms.

    Parameters
    ----------
    result, thermodynamic_factor
        As in :func:`intrinsic_diffusivities`.

    Returns
    -------
    Interdiffusion

    Raises
    ------
    KinosonError
        If the alloy is no binary, the mechanism no vacancy, or φ not positive.

    Notes
    -----
    L. S. Darken, Trans. AIME 175, 184 (1948); J. R. Manning, Phys. Rev. B 4, 1111 (1971); the Onsager form as in A. R.
    Allnatt and A. B. Lidiard, Atomic Transport in Solids, Cambridge University Press (1993).
    """
    phi, error = _factor(thermodynamic_factor)
    own = scalars(result, what="interdiffusion")
    species = own.composition.species
    if len(species) != 2:
        raise KinosonError(
            f"found {len(species)} mobile species {species}; expected a binary, where one thermodynamic factor tells "
            "the chemical forces; combine onsager_matrix with your own forces"
        )
    cv = result.vacancy_fraction
    unit = "m^2/s per c_v" if cv is None else "m^2/s"
    doubt = 0.0 if cv is None else result.vacancy_fraction_error / cv
    scale = phi * (1.0 if cv is None else cv) * ANGSTROM2_PER_S_TO_M2_PER_S
    intrinsic, _, x = _binary(own)

    def make(rows: NDArray) -> Quantity:
        found = own.averages.quantity(rows, scale=scale, relative_error=doubt, unit=unit, kind=own.kind)
        if error == 0.0:
            return found
        spread = float(np.hypot(float(found.error), abs(float(found.value)) * error / phi))
        # a measured φ leaves nothing exact
        return Quantity(found.value, spread, unit, ESTIMATE if own.kind == EXACT else own.kind)

    return Interdiffusion(
        {a: make(intrinsic[:, i]) for i, a in enumerate(species)},
        make(intrinsic @ x[::-1]),
        make(intrinsic[:, 0] - intrinsic[:, 1]),
        (phi, error),
        vacancy_wind(result).darken_manning_factor,
    )


def _binary(own: Scalars) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]]:
    """Rows of D_a/(c_v φ) and D*_a/c_v in Å²/s, shape (1 + n_resamples, 2), and fractions of the atoms, shape (2,)."""
    share = own.composition.fractions
    mixed = own.pairs[:, 0, 1]
    intrinsic = np.stack(
        [own.pairs[:, 0, 0] / share[0] - mixed / share[1], own.pairs[:, 1, 1] / share[1] - mixed / share[0]], axis=1
    )
    return intrinsic, None if own.tracer is None else own.tracer / share, share / share.sum()


def _divide(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    return np.divide(x, y, out=np.full(np.shape(x), np.nan), where=np.asarray(y) > 0)


def _factor(given: float | tuple[float, float]) -> tuple[float, float]:
    try:
        value, error = (float(g) for g in given) if isinstance(given, tuple | list) else (float(given), 0.0)
    except (TypeError, ValueError):
        value, error = float("nan"), float("nan")
    if not (np.isfinite(value) and value > 0 and np.isfinite(error) and error >= 0):
        raise KinosonError(
            f"found thermodynamic_factor={given!r}; expected a number above 0, or such a number and its error; give 1 "
            "for an ideal solution"
        )
    return value, error
