"""Phenomenological coefficients in the normalisation of CASM.

Sources: A. Van der Ven, H.-C. Yu, G. Ceder and K. Thornton, Prog. Mater. Sci. 55, 61 (2010), with
L̃_ab = ⟨(ΣΔR_a)·(ΣΔR_b)⟩/(2dtM) over M crystal sites and L_ab = L̃_ab/(Ω k_BT), Ω the volume per site; and, for what
the kinetic Monte Carlo of CASM writes, ``misc/diffusion_calculations.hh`` of CASMcode_clexmonte: its ``L_isotropic``
is L̃, because the atoms that it divides by are all occupants that it follows, a vacancy (a molecule of one atom ``Va``)
among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.coefficients import site_volume
from ase_kinoson.kinosons.corrected import network_of
from ase_kinoson.kinosons.result import ESTIMATE, EXACT, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S, thermal_energy

__all__ = ["CasmCoefficients", "casm_coefficients"]


@dataclass(frozen=True, eq=False)
class CasmCoefficients:
    """Coefficients of a vacancy mechanism as CASM defines them; lengths in Å, energies in eV.

    Attributes
    ----------
    species : tuple of str
        Order of the matrices.
    per_site : Quantity, value shape (n, n)
        L̃_ab = ⟨(ΣΔR_a)·(ΣΔR_b)⟩/(2dtM) = c_v Λ_ab, M the number of mobile sites: ``L_isotropic`` of clexmonte, Å²/s.
    per_volume : Quantity, value shape (n, n), or None
        L_ab = L̃_ab/(Ω k_BT), Å^(2−d)/(eV s): fluxes in atoms per area and time against gradients of chemical
        potentials in eV. None without a temperature.
    tracer : dict of Quantity
        ``D_tracer_isotropic``, D*_a = ⟨ΔR²⟩/(2dt) per atom, Å²/s.
    vacancy_fraction : float or None
        c_v that all of this is for; without it, all is per c_v.
    """

    species: tuple[str, ...]
    per_site: Quantity
    per_volume: Quantity | None
    tracer: dict[str, Quantity]
    vacancy_fraction: float | None

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the upper triangle in CASM's order, for example ``"A,A"``, ``"A,B"``, ``"B,B"``."""
        return tuple(f"{a},{b}" for i, a in enumerate(self.species) for b in self.species[i:])

    def unrolled(self, matrix: Quantity) -> Quantity:
        """Upper triangle of a matrix in the order of :attr:`components`, value shape (n (n + 1)/2,).

        Parameters
        ----------
        matrix
            ``per_site`` or ``per_volume``, in any unit.

        Returns
        -------
        Quantity, value shape (n (n + 1)/2,)
            In the unit of the matrix.
        """
        upper = np.triu_indices(len(self.species))
        return Quantity(np.asarray(matrix.value)[upper], np.asarray(matrix.error)[upper], matrix.unit, matrix.kind)

    def as_dict(self) -> dict[str, Any]:
        """Every number by its name in clexmonte, with component names, unit, error and kind, ready for JSON."""
        tracer = {
            "component_names": list(self.tracer),
            **{key: [q.as_dict()[key] for q in self.tracer.values()] for key in ("value", "error")},
            "unit": next((q.unit for q in self.tracer.values()), "Å^2/s"),
            "kind": next((q.kind for q in self.tracer.values()), ""),
        }
        matrices = {"L_isotropic": self.per_site, "L_per_volume": self.per_volume}
        return {
            "vacancy_fraction": self.vacancy_fraction,
            **{
                name: None if q is None else {"component_names": list(self.components), **self.unrolled(q).as_dict()}
                for name, q in matrices.items()
            },
            "D_tracer_isotropic": tracer,
        }


def casm_coefficients(result: Transport, *, vacancy_fraction: float | None = None) -> CasmCoefficients:
    """Convert a result to the coefficients that CASM defines.

    Parameters
    ----------
    result
        Transport coefficients of a vacancy mechanism.
    vacancy_fraction
        c_v to express them for, for example one over the number of sites of the cell that a CASM run used; default
        that of the result. Coefficients of a cell with one vacancy are those of dilute vacancies: proportional to c_v.

    Returns
    -------
    CasmCoefficients
        clexmonte samples squares of displacements over finite times, which lie above their long-time limit given here.

    Raises
    ------
    KinosonError
        If the mechanism is no vacancy, or c_v is no site fraction.

    Notes
    -----
    A. Van der Ven, H.-C. Yu, G. Ceder and K. Thornton, Prog. Mater. Sci. 55, 61 (2010);
    docs/exchange.md#phenomenological-coefficients-as-casm-defines-them.
    """
    network = network_of(result)
    if network.mechanism != "vacancy":
        raise KinosonError(
            "found a result of an interstitial; expected jumps of a vacancy; lambda_matrix is L_isotropic per "
            "interstitial atom as it stands"
        )
    cv, doubt = vacancy_fraction, 0.0
    if cv is None and result.vacancy_fraction is not None:
        cv, doubt = result.vacancy_fraction, result.vacancy_fraction_error / result.vacancy_fraction
    if cv is not None and not 0 < cv <= 1:
        raise KinosonError(f"found vacancy_fraction={cv}; expected a site fraction above 0 and at most 1; correct it")
    suffix, share = (" per c_v", 1.0) if cv is None else ("", float(cv))

    def scaled(q: Quantity, factor: float, unit: str, relative: float) -> Quantity:
        value = np.asarray(q.value) * factor
        error = np.hypot(np.asarray(q.error) * factor, np.abs(value) * relative)
        kind = ESTIMATE if relative > 0 and q.kind == EXACT else q.kind
        if value.ndim == 0:
            return Quantity(float(value), float(error), unit + suffix, kind)
        return Quantity(value, error, unit + suffix, kind)

    site = scaled(result.lambda_matrix, share, "Å^2/s", doubt)
    volume = None
    if result.temperature_K is not None:
        d = network.dimension
        unit = {3: "1/(Å eV s)", 2: "1/(eV s)", 1: "Å/(eV s)"}[d]
        ratio = share / (site_volume(network.supercell) * thermal_energy(result.temperature_K))
        volume = scaled(result.lambda_matrix, ratio, unit, doubt)
    # D* of the result is for its own c_v, or per c_v, and its error holds that of c_v
    own = 1.0 if result.vacancy_fraction is None else result.vacancy_fraction
    factor = share / own / ANGSTROM2_PER_S_TO_M2_PER_S
    held = result.vacancy_fraction_error / own
    tracer = {}
    for a, q in result.tracer_diffusivity.items():
        error = np.sqrt(np.maximum(np.square(q.error) - np.square(np.asarray(q.value) * held), 0.0))
        tracer[a] = scaled(Quantity(q.value, error, q.unit, q.kind), factor, "Å^2/s", doubt)
    return CasmCoefficients(result.species, site, volume, tracer, cv)
