"""From relaxed displacements and rates to all transport coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.weights import EnergyDrift
from ase_kinoson.kinosons.functional import JumpTerms
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, EXACT, Transport
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.kinosons.verdict import heavy_share
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S, EV_IN_JOULE, thermal_energy

__all__ = ["assemble"]


def assemble(
    states: States,
    jumps: JumpNetwork,
    w: NDArray,
    energies: JumpEnergies | None,
    terms: JumpTerms,
    boot: Bootstrap | None,
    *,
    kind: str,
    temperature_K: float | None,
    vacancy_fraction: float | None,
    drift: EnergyDrift | None,
    n_rejected: int,
    relaxation: Relaxation | None,
    settings: Mapping[str, Any],
    exact_tracers: Mapping[str, NDArray] | None = None,
    with_tracers: bool = True,
    state_energies: NDArray | None = None,
) -> Transport:
    """Average over states and derive every coefficient.

    Parameters
    ----------
    states, jumps
        Weighted states and their jumps.
    w : ndarray, shape (n_states, J)
        Rates, s⁻¹.
    energies
        Barriers and energy changes, or None for a gas of rates.
    terms
        Relaxed displacements of all jumps.
    boot
        Resamples for the errors; None for exact results, whose errors are 0.
    kind
        Kind of the diagonal coefficients.
    temperature_K, vacancy_fraction, drift, n_rejected, relaxation, settings
        Passed on to the result.
    exact_tracers : mapping of str to ndarray, shape (3, 3)
        Λ*_a solved elsewhere, Å²/s; default from ``terms``.
    with_tracers
        Whether tracer coefficients are wanted.
    state_energies : ndarray, shape (n_states,), optional
        Energies of the states, eV, for the table.
    """
    cell = states.supercell
    alloy = cell.alloy
    d = jumps.dimension
    vacancy = jumps.mechanism == "vacancy"
    mobile = {s for sub in alloy.sublattices if sub.mobile for s in sub.species}
    present = [c for c in range(1, len(cell.species)) if cell.species[c] in mobile and np.any(states.occupations == c)]
    species = tuple(cell.species[c] for c in present)
    index = np.array(present) - 1

    def pair(x: NDArray) -> NDArray:
        return 0.5 * np.einsum("nk,nkax,nkby->nabxy", w, x[:, :, index], x[:, :, index], optimize=True)

    collective, collective_bare = pair(terms.displacement), pair(terms.bare)
    tracer = 0.5 * np.einsum("nk,nkaxy->naxy", w, terms.tracer[:, :, index], optimize=True)
    tracer_bare = np.einsum("naaxy->naxy", collective_bare)

    def scalar(x: NDArray) -> NDArray:
        return np.einsum("...xy,xy->...", x, jumps.projector) / d

    def tensor_of(x: NDArray) -> NDArray:
        return np.einsum("ij,...jk,kl->...il", jumps.projector, x, jumps.projector)

    def estimate(function: Callable[..., NDArray], *values: NDArray) -> tuple[NDArray, NDArray]:
        if boot is not None:
            return boot.estimate(function, *values)
        value = np.asarray(function(*(np.tensordot(states.weights, v, axes=(0, 0)) for v in values)))
        return value, np.zeros_like(value, dtype=float)

    def quantity(
        function: Callable[..., NDArray], *values: NDArray, scale: float = 1.0, unit: str, of: str = kind
    ) -> Quantity:
        value, error = estimate(function, *values)
        value, error = value * scale, error * abs(scale)
        return Quantity(float(value), float(error), unit, of) if value.ndim == 0 else Quantity(value, error, unit, of)

    def ratio(x: NDArray, y: NDArray) -> NDArray:
        return (
            np.divide(x, y, out=np.full(np.shape(x), np.nan), where=np.asarray(y) > 0)
            if np.ndim(x)
            else np.asarray(x / y if y > 0 else np.nan)
        )

    second_order = ESTIMATE if kind == BOUND else kind
    vv, vv_bare = collective.sum(axis=(1, 2)), collective_bare.sum(axis=(1, 2))
    per_cv = vacancy and vacancy_fraction is None
    cv = 1.0 if not vacancy or vacancy_fraction is None else float(vacancy_fraction)
    if not 0 < cv <= 1:
        raise KinosonError(
            f"found vacancy_fraction={vacancy_fraction}; expected a site fraction above 0 and at most 1; correct it"
        )
    unit = "m^2/s per c_v" if per_cv else "m^2/s"
    si = ANGSTROM2_PER_S_TO_M2_PER_S
    n_mobile = len(cell.mobile_sites)
    tracer_d, tracer_tensor, factor = {}, {}, {}
    for a, symbol in enumerate(species):
        if not with_tracers:
            break
        fraction = (
            float(states.weights @ (states.occupations[:, cell.mobile_sites] == present[a]).sum(axis=1)) / n_mobile
        )
        share = cv / fraction * si if vacancy else si
        own, own_bare = tracer[:, a], tracer_bare[:, a]
        if exact_tracers is not None:
            tensor = exact_tracers[symbol]
            bare = np.tensordot(states.weights, own_bare, axes=(0, 0))
            tracer_d[symbol] = Quantity(float(scalar(tensor) * share), 0.0, unit, EXACT)
            tracer_tensor[symbol] = Quantity(tensor_of(tensor) * share, np.zeros((3, 3)), unit, EXACT)
            factor[symbol] = Quantity(float(ratio(scalar(tensor), scalar(bare))), 0.0, "1", EXACT)
            continue
        tracer_d[symbol] = quantity(scalar, own, scale=share, unit=unit)
        tracer_tensor[symbol] = quantity(tensor_of, own, scale=share, unit=unit)
        factor[symbol] = quantity(lambda x, y: ratio(scalar(x), scalar(y)), own, own_bare, unit="1")
    who = "vacancy" if vacancy else "carrier"
    collective_factor = {who: quantity(lambda x, y: ratio(scalar(x), scalar(y)), vv, vv_bare, unit="1")}
    for a, symbol in enumerate(species):
        collective_factor[symbol] = quantity(
            lambda x, y: ratio(scalar(x), scalar(y)), collective[:, a, a], collective_bare[:, a, a], unit="1"
        )
    onsager = None
    if temperature_K is not None and vacancy:
        volume = _site_volume(cell)
        to_si = si / (1e-10**d * EV_IN_JOULE)
        onsager = quantity(
            scalar,
            collective,
            scale=cv / (volume * thermal_energy(temperature_K)) * to_si,
            unit=("1/(m J s)" if d == 3 else "1/(J s)" if d == 2 else "m/(J s)") + (" per c_v" if per_cv else ""),
            of=f"{kind} (diagonal), {second_order} (off-diagonal)" if kind == BOUND else kind,
        )
    size, share_of_one = heavy_share(states.weights * scalar(vv), states.groups)
    table = KinosonTable.build(states, jumps, rates=w, energies=energies, terms=terms, state_energies=state_energies)
    exists = jumps.exists[jumps.basis_of(states.carriers)]
    return Transport(
        species=species,
        temperature_K=temperature_K,
        vacancy_diffusivity=quantity(scalar, vv, scale=si, unit="m^2/s"),
        vacancy_diffusivity_tensor=quantity(tensor_of, vv, scale=si, unit="m^2/s"),
        tracer_diffusivity=tracer_d,
        tracer_diffusivity_tensor=tracer_tensor,
        onsager_matrix=onsager,
        lambda_matrix=quantity(
            scalar,
            collective,
            unit="Å^2/s",
            of=f"{kind} (diagonal), {second_order} (off-diagonal)" if kind == BOUND else kind,
        ),
        correlation_factor=factor,
        collective_correlation_factor=collective_factor,
        kinosons=table,
        drift=drift,
        ensemble=states.ensemble,
        effective_sample_size=states.effective_sample_size,
        contribution_sample_size=size,
        largest_share=share_of_one,
        n_states=len(states),
        n_barriers=int(exists.sum()) - n_rejected,
        n_rejected=n_rejected,
        vacancy_fraction=vacancy_fraction,
        settings=settings,
        states=states,
        relaxation=relaxation,
    )


def _site_volume(cell: Supercell) -> float:
    """Volume (area, length) per mobile site, Å^d."""
    vectors = cell.cell[cell.pbc]
    return float(np.sqrt(np.linalg.det(vectors @ vectors.T))) / len(cell.mobile_sites)
