"""From a periodic cell with one vacancy to the infinite crystal.

Why a cell differs. An atom that is told apart (a tracer) has images, one in every copy of the cell, and all of them
move as it does: the vacancy that one of them displaces soon meets the others. The theory of this module goes beyond
the papers on the variational principle; it was checked on exact cells (see the tests).

Let the cell hold n_a atoms of species a, λ* = Λ*_a/n_a be the coefficient of one of them, λ_v = Λ_av/n_a its
correlation with the vacancy, Λ_av = −Σ_b Λ_ab. Far from the tracer, the density of the vacancy, seen from the tracer,
obeys a diffusion equation with coefficient Λ_vv, and each jump of the tracer is a dipole in it: the vacancy moves by
its own step and, in the frame of the tracer, back by that of the tracer, so that the strength of the dipole is
λ_v − λ*. At wave vector k the relaxation of the vacancy around the tracer takes (k̂·(λ_v − λ*))²/(k̂·Λ_vv·k̂) from λ*.
The sum over images leaves out k = 0 where the infinite crystal has an integral, so that the cell has too much by

    Λ*_a(cell) − Λ*_a(∞) = (Λ*_a − Λ_av)² / (d n_a Λ_vv)          up to higher orders of 1/N.

For one species and equal rates this is (1 + f)²/(d N) in f: 1.058/N in fcc, 0.911/N in sc, 1.076/N in the square
lattice. The *drift of the centre of mass* (tracer displacements relative to that of all N − 1 atoms, −R_v/(N−1))
gives the similar 1/N there, but for other rates it is wrong: the lattice does not move because the fast atoms do, and a
slow solute, nailed to its site, would seem to diffuse.

The collective Λ_ab and Λ_vv need no such correction: they are sums over all atoms, displacements are counted in the
frame of the lattice, and Σ_b Λ_ab = −Λ_av and the sum rule of the random alloy hold in every cell. What is left in them
is of order 1/N too (fixed composition, images of arrangements) but has no closed form: extrapolate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.derived import scalars
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, EXACT, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S

__all__ = ["Extrapolation", "extrapolate", "finite_size_corrected"]


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """Coefficients of the infinite crystal, c₀ in c(N) = c₀ + c₁/N.

    Attributes
    ----------
    n_sites : tuple of int
        Mobile sites N of each cell.
    species : tuple of str
    temperature_K : float or None
    vacancy_fraction : float or None
    vacancy_diffusivity : Quantity
    tracer_diffusivity, correlation_factor, collective_correlation_factor : dict of Quantity
    lambda_matrix : Quantity, value shape (n, n)
    onsager_matrix : Quantity, value shape (n, n), or None
    slopes : mapping of str to Quantity
        c₁ by the name of the coefficient (``"tracer_diffusivity Cu"`` ...), in its unit.
    reduced_chi_squared : mapping of str to float or ndarray
        χ² over the degrees of freedom; well above 1: the law c₀ + c₁/N does not hold for these cells. NaN with two
        cells or without errors.
    """

    n_sites: tuple[int, ...]
    species: tuple[str, ...]
    temperature_K: float | None
    vacancy_fraction: float | None
    vacancy_diffusivity: Quantity
    tracer_diffusivity: dict[str, Quantity]
    correlation_factor: dict[str, Quantity]
    collective_correlation_factor: dict[str, Quantity]
    lambda_matrix: Quantity
    onsager_matrix: Quantity | None
    slopes: dict[str, Quantity]
    reduced_chi_squared: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        tables = ("tracer_diffusivity", "correlation_factor", "collective_correlation_factor")
        return {
            "n_sites": list(self.n_sites),
            "species": list(self.species),
            "temperature_K": self.temperature_K,
            "vacancy_fraction": self.vacancy_fraction,
            "vacancy_diffusivity": self.vacancy_diffusivity.as_dict(),
            **{name: {a: q.as_dict() for a, q in getattr(self, name).items()} for name in tables},
            "lambda_matrix": self.lambda_matrix.as_dict(),
            "onsager_matrix": None if self.onsager_matrix is None else self.onsager_matrix.as_dict(),
            "slopes": {name: q.as_dict() for name, q in self.slopes.items()},
            "reduced_chi_squared": {k: np.asarray(v).tolist() for k, v in self.reduced_chi_squared.items()},
        }


def finite_size_corrected(result: Transport) -> Transport:
    """Free tracer coefficients of what the periodic images of the tracer add.

    Λ*_a − (Λ*_a − Λ_av)²/(d n_a Λ_vv), as tensors Λ*_a − λ Λ_vv⁻¹ λᵀ/(d n_a) with λ = Λ*_a − Λ_av; see the notes at the
    top of this module. ``tracer_diffusivity``, its tensors and ``correlation_factor`` change; the collective
    coefficients and the table of kinosons stay as they are.

    Parameters
    ----------
    result
        Coefficients of a vacancy mechanism in a periodic cell.

    Returns
    -------
    Transport
        A corrected bound, and a corrected exact number of a cell, is an ``"estimate"``; other kinds stay.

    Raises
    ------
    KinosonError
        If the result is that of an interstitial, has no tracers or no states, or is corrected already.

    Notes
    -----
    Exact to order 1/N for a solute on its own and for atoms of equal rates; in a concentrated alloy the dependence of
    Λ*_a on composition adds a term that one result cannot tell. Half A, half B on a square lattice with rates 0.1 and 1
    (trajectories, errors 0.002 and 0.0005), N = 25, 49, 169: f_A = 0.705, 0.676, 0.658 and f_B = 0.203, 0.184, 0.172;
    corrected 0.671, 0.659, 0.653 and 0.173, 0.170, 0.169: two thirds or more of the error are gone. The trace does not
    depend on the shape of the cell; single components of the tensor of an elongated cell do, and are corrected as in a
    compact one.

    Derivation: docs/derivations.md#tracers-in-a-periodic-cell.
    """
    own = scalars(result, what="a correction for the size of the cell")
    if own.averages.tracer is None or own.averages.tracer_bare is None:
        raise KinosonError(
            "found a result without tracer coefficients; expected them, since only they are corrected; "
            "evaluate with tracers"
        )
    if result.settings.get("finite_size_corrected"):
        raise KinosonError("found coefficients that are corrected already; expected those of the cell; pass these")
    counts = _atoms(result)
    d, flat = own.dimension, own.projector
    collective = np.einsum("ij,rabjk,kl->rabil", flat, own.averages.collective, flat)
    inverse = np.linalg.pinv(collective.sum(axis=(1, 2)), hermitian=True)
    bare = np.einsum("raxy,xy->ra", own.averages.tracer_bare, flat) / d
    tracer = own.averages.tracer.copy()
    cv = result.vacancy_fraction
    doubt = 0.0 if cv is None else result.vacancy_fraction_error / cv
    # the one vacancy of the cell leaves (N − 1)/N atoms per site, a dilute one none of them out
    atoms = own.composition.fractions / own.composition.fractions.sum()
    unit = "m^2/s per c_v" if cv is None else "m^2/s"
    kind = ESTIMATE if own.kind in (BOUND, EXACT) else own.kind
    make = own.averages.quantity
    diffusivity, tensors, factors = {}, {}, {}
    for a, symbol in enumerate(own.composition.species):
        in_plane = flat @ tracer[:, a] @ flat
        pull = in_plane + collective[:, a].sum(axis=1)  # Λ*_a − Λ_av
        tracer[:, a] -= pull @ inverse @ np.swapaxes(pull, 1, 2) / (d * counts[a])
        tensor = flat @ tracer[:, a] @ flat
        value = np.einsum("rxx->r", tensor) / d
        scale = (1.0 if cv is None else cv) / atoms[a] * ANGSTROM2_PER_S_TO_M2_PER_S
        diffusivity[symbol] = make(value, scale=scale, relative_error=doubt, unit=unit, kind=kind)
        tensors[symbol] = make(tensor, scale=scale, relative_error=doubt, unit=unit, kind=kind)
        factors[symbol] = make(value / bare[:, a], unit="1", kind=kind)
    return replace(
        result,
        tracer_diffusivity=diffusivity,
        tracer_diffusivity_tensor=tensors,
        correlation_factor=factors,
        averages=replace(own.averages, tracer=tracer),
        settings={**result.settings, "finite_size_corrected": True},
    )


def extrapolate(results: Sequence[Transport]) -> Extrapolation:
    """Fit c₀ + c₁/N to results of cells of different sizes, by weighted least squares.

    Parameters
    ----------
    results
        At least two sizes; one alloy, composition, temperature and vacancy fraction; cells of one shape. Results from
        :func:`finite_size_corrected` converge faster.

    Returns
    -------
    Extrapolation
        Its numbers are estimates. Weights are 1/error² where every cell has an error, and equal otherwise. Errors are
        those of the results carried through the fit, times the root of the reduced χ² where that is above 1. Where the
        cells have no errors (exact solutions), three or more sizes give an error from the scatter about the line; two
        give none (NaN).

    Raises
    ------
    KinosonError
        If there are fewer than two sizes or the results do not belong together.

    Notes
    -----
    What goes as 1/N, and what does not: docs/theory.md#finite-cells.
    """
    found = list(results)
    sizes = _comparable(found)
    first = found[0]
    slopes: dict[str, Quantity] = {}
    chi: dict[str, Any] = {}

    def fit(name: str, quantities: list[Quantity]) -> Quantity:
        value, error, misfit = _line(
            1.0 / np.array(sizes, dtype=float),
            np.array([q.value for q in quantities], dtype=float),
            np.array([q.error for q in quantities], dtype=float),
        )
        kind = ESTIMATE if all(q.kind != "not a bound" for q in quantities) else "not a bound"
        scalar = value[0].ndim == 0
        pair = [
            Quantity(float(v) if scalar else v, float(e) if scalar else e, quantities[0].unit, kind)
            for v, e in zip(value, error, strict=True)
        ]
        slopes[name], chi[name] = pair[1], float(misfit) if scalar else misfit
        return pair[0]

    def each(name: str) -> dict[str, Quantity]:
        keys = [k for k in getattr(first, name) if all(k in getattr(r, name) for r in found)]
        return {k: fit(f"{name} {k}", [getattr(r, name)[k] for r in found]) for k in keys}

    onsager = [r.onsager_matrix for r in found if r.onsager_matrix is not None]
    return Extrapolation(
        tuple(sizes),
        first.species,
        first.temperature_K,
        first.vacancy_fraction,
        fit("vacancy_diffusivity", [r.vacancy_diffusivity for r in found]),
        each("tracer_diffusivity"),
        each("correlation_factor"),
        each("collective_correlation_factor"),
        fit("lambda_matrix", [r.lambda_matrix for r in found]),
        fit("onsager_matrix", onsager) if len(onsager) == len(found) else None,
        slopes,
        chi,
    )


def _atoms(result: Transport) -> NDArray[np.float64]:
    """Mean number of atoms of each species on the mobile sites, shape (n_species,)."""
    states, composition = result.states, result.composition
    if states is None or composition is None:
        raise KinosonError(
            "found a result without its states; expected them, since they tell the size of the cell; evaluate again"
        )
    on = states.occupations[:, states.supercell.mobile_sites]
    return np.array([states.weights @ (on == c + 1).sum(axis=1) for c in composition.index])


def _comparable(results: list[Transport]) -> list[int]:
    """Numbers of mobile sites of results that belong together."""
    sizes = []
    for r in results:
        if r.states is None:
            raise KinosonError(
                "found a result without its states; expected them, since they tell the size of the cell; evaluate again"
            )
        sizes.append(len(r.states.supercell.mobile_sites))
    if len(set(sizes)) < 2:
        raise KinosonError(
            f"found results of cells of {sorted(set(sizes))} mobile sites; expected at least two sizes to extrapolate "
            "from; evaluate a larger cell"
        )
    a = results[0]
    for b in results[1:]:
        for what in ("species", "temperature_K", "vacancy_fraction", "ensemble"):
            if getattr(a, what) != getattr(b, what):
                raise KinosonError(
                    f"found results of {what}={getattr(a, what)!r} and {getattr(b, what)!r}; expected one; "
                    "extrapolate them apart"
                )
        if bool(a.settings.get("finite_size_corrected")) != bool(b.settings.get("finite_size_corrected")):
            raise KinosonError("found corrected and uncorrected results; expected one sort; correct all or none")
    rounding = 1.0 / (min(sizes) - 1) + 1e-9  # whole atoms
    shares = np.array([_atoms(r) / _atoms(r).sum() for r in results])
    if results[0].collective_correlation_factor.keys() >= {"vacancy"} and np.ptp(shares, axis=0).max() > rounding:
        raise KinosonError(
            f"found compositions that differ by {np.ptp(shares, axis=0).max():.3f}; expected one composition up to the "
            "rounding to whole atoms; choose cells that hold it"
        )
    return sizes


def _line(x: NDArray, y: NDArray, sigma: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Weighted fit y = c₀ + c₁ x along the first axis: coefficients and errors, shape (2, ...), and reduced χ²."""
    known = np.all(np.isfinite(sigma) & (sigma > 0), axis=0)
    w = np.where(known, 1.0 / np.where(known, sigma, 1.0) ** 2, 1.0)
    x = x.reshape(-1, *[1] * (y.ndim - 1))
    s = w.sum(axis=0)
    centre = (w * x).sum(axis=0) / s
    spread = (w * (x - centre) ** 2).sum(axis=0)
    slope_of = w * (x - centre) / spread  # c₁ = Σ slope_of · y
    value_of = w / s - centre * slope_of
    c0, c1 = (value_of * y).sum(axis=0), (slope_of * y).sum(axis=0)
    free = len(y) - 2
    misfit = (w * (y - c0 - c1 * x) ** 2).sum(axis=0) / free if free else np.full(np.shape(c0), np.nan)
    noise = np.where(known, sigma, np.sqrt(misfit))
    grow = np.where(known & (misfit > 1), np.sqrt(np.where(misfit > 1, misfit, 1.0)), 1.0)
    errors = [np.sqrt((part**2 * noise**2).sum(axis=0)) * grow for part in (value_of, slope_of)]
    return np.array([c0, c1]), np.array(errors), np.where(known, misfit, np.nan)
