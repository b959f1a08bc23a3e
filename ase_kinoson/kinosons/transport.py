"""From kinosons to transport coefficients with errors and kinds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, KinosonWarning, StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinetics.weights import EnergyDrift, energy_drift
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda, exact_tracer
from ase_kinoson.kinosons.functional import JumpTerms, bare_displacements, jump_terms
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.units import (
    ANGSTROM2_PER_S_TO_M2_PER_S,
    DEFAULT_ATTEMPT_FREQUENCY,
    EV_IN_JOULE,
    thermal_energy,
)

__all__ = ["Transport", "exact_transport", "transport"]

BOUND, ESTIMATE, EXACT, NO_BOUND = "bound", "estimate", "exact", "not a bound"


@dataclass(frozen=True, eq=False)
class Transport:
    """Transport coefficients of one temperature.

    Every number is a :class:`Quantity` with value, error, unit and kind. Coefficients of atoms are proportional to
    the site
    fraction of vacancies c_v; without ``vacancy_fraction`` they are given per c_v, and their unit says so.

    Attributes
    ----------
    species : tuple of str
        Mobile species, the order of all matrices.
    temperature_K : float or None
    vacancy_diffusivity : Quantity
        D_v = Λ_vv (for an interstitial: its diffusivity).
    vacancy_diffusivity_tensor : Quantity, value shape (3, 3)
    tracer_diffusivity : dict of Quantity
        D*_a = (c_v / x_a) Λ*_a of each species.
    tracer_diffusivity_tensor : dict of Quantity, value shape (3, 3) each
    onsager_matrix : Quantity, value shape (n, n)
        L_ab = c_v Λ_ab / (Ω k_BT); its diagonal is a bound. None without a temperature.
    lambda_matrix : Quantity, value shape (n, n)
        Λ_ab per carrier, Å²/s.
    correlation_factor : dict of Quantity
        Tracer correlation factors f_a = Λ*_a[y] / Λ*_a[0].
    collective_correlation_factor : dict of Quantity
        Λ_qq[y] / Λ_qq[0] for ``"vacancy"`` and each species.
    kinosons : KinosonTable
    drift : EnergyDrift or None
        Energy drift of the states; zero in equilibrium.
    ensemble : str
    effective_sample_size : float
    n_states, n_barriers, n_rejected : int
        How many states, valid barriers and rejected jumps went in.
    vacancy_fraction : float or None
    settings : mapping
        What is needed to repeat the evaluation.
    """

    species: tuple[str, ...]
    temperature_K: float | None
    vacancy_diffusivity: Quantity
    vacancy_diffusivity_tensor: Quantity
    tracer_diffusivity: dict[str, Quantity]
    tracer_diffusivity_tensor: dict[str, Quantity]
    onsager_matrix: Quantity | None
    lambda_matrix: Quantity
    correlation_factor: dict[str, Quantity]
    collective_correlation_factor: dict[str, Quantity]
    kinosons: KinosonTable
    drift: EnergyDrift | None
    ensemble: str
    effective_sample_size: float
    n_states: int
    n_barriers: int
    n_rejected: int
    vacancy_fraction: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    states: States | None = field(default=None, repr=False)
    relaxation: Relaxation | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        return {
            "temperature_K": self.temperature_K,
            "species": list(self.species),
            "ensemble": self.ensemble,
            "n_states": self.n_states,
            "effective_sample_size": self.effective_sample_size,
            "n_reference_barriers": self.n_barriers,
            "n_rejected_jumps": self.n_rejected,
            "vacancy_fraction": self.vacancy_fraction,
            "vacancy_diffusivity": self.vacancy_diffusivity.as_dict(),
            "vacancy_diffusivity_tensor": self.vacancy_diffusivity_tensor.as_dict(),
            "tracer_diffusivity": {s: q.as_dict() for s, q in self.tracer_diffusivity.items()},
            "tracer_diffusivity_tensor": {s: q.as_dict() for s, q in self.tracer_diffusivity_tensor.items()},
            "onsager_matrix": self.onsager_matrix.as_dict() if self.onsager_matrix else None,
            "lambda_matrix": self.lambda_matrix.as_dict(),
            "correlation_factor": {s: q.as_dict() for s, q in self.correlation_factor.items()},
            "collective_correlation_factor": {s: q.as_dict() for s, q in self.collective_correlation_factor.items()},
            "energy_drift": _drift_dict(self.drift) if self.drift else None,
            "settings": dict(self.settings),
        }

    def __str__(self) -> str:
        at = f" at {self.temperature_K:g} K" if self.temperature_K else ""
        lines = [f"transport{at}: {self.n_states} states ({self.ensemble}), {self.n_barriers} barriers"]
        lines.append(f"  D_v  = {self.vacancy_diffusivity}")
        lines += [f"  D*({s}) = {q}" for s, q in self.tracer_diffusivity.items()]
        lines += [f"  f({s}) = {q}" for s, q in self.correlation_factor.items()]
        return "\n".join(lines)


def transport(
    states: States,
    jumps: JumpNetwork,
    barriers: Any,
    relaxation: Relaxation | None = None,
    temperature_K: float | None = None,
    *,
    vacancy_fraction: float | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    n_resamples: int = 400,
    seed: int = 0,
) -> Transport:
    """Evaluate the variational functional and derive all transport coefficients.

    Parameters
    ----------
    states
        Equilibrium states of the energies that belong to the barriers, with weights. For a rigorous bound, no fit
        may have
        seen them.
    jumps
        Jumps of the carrier.
    barriers
        Reference barriers of these states, a barrier model, or a lattice gas.
    relaxation
        Any relaxation y; None means y = 0 (uncorrelated jumps).
    temperature_K
        K.
    vacancy_fraction
        Site fraction of vacancies c_v on the mobile sites; without it, coefficients of atoms are per c_v.
    attempt_frequency
        s⁻¹; one number for all jumps.
    n_resamples, seed
        Bootstrap over groups of states.

    Raises
    ------
    StatesError
        If states and jumps do not belong together.
    BarrierError
        If a state has no barriers.
    """
    if states.supercell != jumps.supercell:
        raise StatesError(
            f"the states live on a supercell of {states.supercell.n_sites} sites, the jumps on one of "
            f"{jumps.supercell.n_sites}; "
            "expected the same; use jumps.with_supercell(states.supercell)"
        )
    if relaxation is not None and relaxation.network.fingerprint != jumps.fingerprint:
        raise StatesError("the relaxation was trained on other jumps; expected the same network; train it again")
    if relaxation is not None and relaxation.network.supercell != states.supercell:
        raise StatesError(
            "the relaxation belongs to another supercell; expected that of the states; load or train it with "
            "jumps on that supercell"
        )
    rates = Rates.of(barriers, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    energies = rates.energies(states.occupations, states.carriers)
    w = rates(states.occupations, states.carriers)
    terms = jump_terms(relaxation, states.occupations, states.carriers, network=jumps)
    seen = _seen(barriers, relaxation, states)
    kind = (
        BOUND
        if states.ensemble == "equilibrium" and not seen
        else NO_BOUND
        if states.ensemble == "random"
        else ESTIMATE
    )
    if seen:
        warnings.warn(
            f"{seen} of {len(states)} states were used to train the barrier model behind the relaxation; the "
            "result is no held-out "
            "bound; compute barriers of fresh states",
            KinosonWarning,
            stacklevel=2,
        )
    drift = None
    if energies is not None:
        moving = jumps.moving_species(states.occupations, states.carriers)
        drift = energy_drift(states, w, energies.delta_e, moving, seed=seed)
        if not drift.consistent:
            warnings.warn(
                f"the energy drifts by {drift.value:+.2f} ± {drift.error:.2f} of the mean energy change per jump; "
                "expected 0 in "
                f"equilibrium; these {states.ensemble} states are no equilibrium sample of the barriers used",
                KinosonWarning,
                stacklevel=2,
            )
    boot = Bootstrap.over(states.weights, states.groups, n_resamples=n_resamples, seed=seed)
    rejected = 0
    if energies is not None:
        rejected = int((jumps.exists[jumps.basis_of(states.carriers)] & ~np.isfinite(energies.barrier)).sum())
    return _assemble(
        states,
        jumps,
        w,
        energies,
        terms,
        boot,
        kind=kind,
        temperature_K=temperature_K,
        vacancy_fraction=vacancy_fraction,
        drift=drift,
        n_rejected=rejected,
        relaxation=relaxation,
        state_energies=rates.state_energies(states.occupations),
        settings={
            "attempt_frequency": attempt_frequency,
            "n_resamples": n_resamples,
            "seed": seed,
            "lookahead": relaxation.lookahead if relaxation else None,
            "source": type(barriers).__name__,
            "states_source": states.source,
        },
    )


def exact_transport(
    cell: Supercell,
    jumps: JumpNetwork,
    source: Any,
    temperature_K: float | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    vacancy_fraction: float | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    tracers: bool = True,
    limit: int = 2_000_000,
) -> Transport:
    """Enumerate all states of a small cell and solve for the exact coefficients.

    Parameters
    ----------
    cell, jumps
        Supercell and its jumps.
    source
        Barrier model or lattice gas.
    temperature_K
        K; not needed for a lattice gas that gives rates.
    counts
        Atoms of each species on the mobile sites; default from the composition.
    vacancy_fraction, attempt_frequency
        As in :func:`transport`.
    tracers
        Also solve for the tracers (as many times more states as a species has atoms).
    limit
        Largest number of states.
    """
    if jumps.supercell != cell:
        jumps = jumps.with_supercell(cell)
    rates = Rates.of(source, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    space = StateSpace.enumerate(jumps, counts=counts, limit=limit)
    weights = space.weights(rates)
    _, _, y = exact_lambda(space, rates, weights=weights)
    states = space.states(weights, ensemble="equilibrium", temperature_K=temperature_K, source="enumerated")
    bare = bare_displacements(jumps, space.occupations, space.carriers)
    valid = (space.next_state >= 0)[..., None, None]
    displacement = bare + np.where(valid, y[space.next_state] - y[:, None], 0.0)
    tracer = bare[..., :, None] * bare[..., None, :]
    exact_values = None
    if tracers and jumps.mechanism == "vacancy":
        exact_values, _ = exact_tracer(
            jumps, source, counts=counts, temperature_K=temperature_K, attempt_frequency=attempt_frequency, limit=limit
        )
    elif jumps.mechanism == "interstitial":
        tracer = displacement[..., :, None] * displacement[..., None, :]
    return _assemble(
        states,
        jumps,
        rates(space.occupations, space.carriers),
        rates.energies(space.occupations, space.carriers),
        JumpTerms(displacement, tracer, bare),
        None,
        kind=EXACT,
        temperature_K=temperature_K,
        vacancy_fraction=vacancy_fraction,
        drift=None,
        n_rejected=0,
        relaxation=None,
        settings={"attempt_frequency": attempt_frequency, "n_states": len(space), "source": type(source).__name__},
        exact_tracers=exact_values,
        state_energies=rates.state_energies(space.occupations),
        with_tracers=tracers or jumps.mechanism == "interstitial",
    )


def _drift_dict(drift: EnergyDrift) -> dict[str, Any]:
    species = {s: {"value": v, "error": e, "unit": "1"} for s, (v, e) in drift.by_species.items()}
    return {
        "value": drift.value,
        "error": drift.error,
        "unit": "1",
        "consistent": drift.consistent,
        "by_species": species,
    }


def _seen(barriers: Any, relaxation: Relaxation | None, states: States) -> int:
    """Number of states that the barrier model behind the relaxation was trained on.

    Only reference barriers make a held-out bound; a model evaluated with its own barriers is its own reference.
    """
    if relaxation is None or relaxation.rates is None:
        return 0
    source = relaxation.rates.source
    keys = set(getattr(source, "training_keys", ()))
    if not keys or barriers is source or getattr(barriers, "training_keys", None) is not None:
        return 0
    return sum(k in keys for k in states.keys)


def _assemble(
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
    trace = "...xx->..."

    def scalar(x: NDArray) -> NDArray:
        return np.einsum(trace, x) / d

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
            tracer_d[symbol] = Quantity(float(np.trace(tensor) / d * share), 0.0, unit, EXACT)
            tracer_tensor[symbol] = Quantity(tensor * share, np.zeros((3, 3)), unit, EXACT)
            factor[symbol] = Quantity(float(np.trace(tensor) / np.trace(bare)), 0.0, "1", EXACT)
            continue
        tracer_d[symbol] = quantity(scalar, own, scale=share, unit=unit)
        tracer_tensor[symbol] = quantity(lambda x: x, own, scale=share, unit=unit)
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
    table = KinosonTable.build(states, jumps, rates=w, energies=energies, terms=terms, state_energies=state_energies)
    exists = jumps.exists[jumps.basis_of(states.carriers)]
    return Transport(
        species=species,
        temperature_K=temperature_K,
        vacancy_diffusivity=quantity(scalar, vv, scale=si, unit="m^2/s"),
        vacancy_diffusivity_tensor=quantity(lambda x: x, vv, scale=si, unit="m^2/s"),
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
