"""Transport coefficients from kinetic Monte Carlo trajectories of any barrier source."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.device import device_of
from ase_kinoson.errors import (
    FewKinosons,
    KinosonError,
    KinosonWarning,
    ModelError,
    NotAtEquilibrium,
    SmallSample,
    StatesError,
)
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lags import WINDOW
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinetics.weights import EnergyDrift, energy_drift
from ase_kinoson.kinosons.coefficients import Composition, coefficients
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.result import ESTIMATE, KMC, Transport
from ase_kinoson.kinosons.slopes import LagSlopes
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.kinosons.verdict import HEAVY_SHARE, heavy_share, rates_of_states
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["KmcTransport", "run_kmc"]

CHECKPOINT_SECONDS = 60.0
"""Time between two writes of a checkpoint."""

DEVICE_WALKERS = 4096
"""With fewer walkers than these, a GPU waits for its own commands, and the processor is as quick."""


@dataclass(frozen=True, eq=False)
class KmcTransport(Transport):
    """Transport coefficients from trajectories, with their ladder of lags; see :class:`Transport` for the rest.

    Keys of the ladders are ``"vacancy"`` (or ``"carrier"``), each species, and ``"tracer <species>"``.

    Attributes
    ----------
    lags : ndarray of int, shape (n_lags,)
        Jumps.
    ladder : mapping of str to Quantity, value shape (n_lags,)
        MSD(L)/(L MSD(1)): Λ/Λ[0] from above at every lag, exact for L → ∞ only.
    slopes : mapping of str to Quantity, value shape (n_lags − 1,)
        [MSD(2L) − MSD(L)]/(L MSD(1)): Λ/Λ[0] as it is derived.
    lag : mapping of str to int
        The lag L whose slope gave each coefficient; Λ_ab takes the longer of two.
    n_jumps_total : int
        Jumps of all walkers that count.
    time_per_jump : Quantity
        ⟨τ⟩, s.
    snapshot : States or None
        Where the walkers are at the end, weighted by residence times: states of the same ensemble.
    """

    lags: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    ladder: Mapping[str, Quantity] = field(default_factory=dict)
    slopes: Mapping[str, Quantity] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=dict)
    n_jumps_total: int = 0
    time_per_jump: Quantity = field(default_factory=lambda: Quantity(np.nan, np.nan, "s", KMC))
    snapshot: States | None = field(default=None, repr=False)

    def numbers(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        return {
            **super().numbers(),
            "lags": self.lags.tolist(),
            "ladder": {name: q.as_dict() for name, q in self.ladder.items()},
            "slopes": {name: q.as_dict() for name, q in self.slopes.items()},
            "lag": dict(self.lag),
            "n_jumps_total": self.n_jumps_total,
            "time_per_jump": self.time_per_jump.as_dict(),
        }

    def __str__(self) -> str:
        longest = max(self.lag.values(), default=0)
        first = (
            f"kinetic Monte Carlo: {self.n_jumps_total} jumps of {self.n_states} walkers, lags up to {longest} jumps"
        )
        return "\n".join([first, *super().__str__().splitlines()[1:]])


def run_kmc(
    states: States,
    jumps: JumpNetwork,
    source: Any,
    temperature_K: float | None = None,
    *,
    n_jumps: int = 1000,
    n_walkers: int = 256,
    burn_in: int = 0,
    seed: int = 0,
    tracers: bool = True,
    vacancy_fraction: float | VacancyFraction | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    checkpoint: str | Path | None = None,
    n_resamples: int = 400,
    progress: bool = False,
    device: str = "auto",
) -> KmcTransport:
    """Run kinetic Monte Carlo and derive all transport coefficients.

    Parameters
    ----------
    states
        Equilibrium states of the source's energies, with weights; walkers start from them, drawn with probability
        ∝ wΓ, and need no burn-in.
    jumps
        Jumps of the carrier.
    source
        A barrier model or a lattice gas: it must know every state that a walker may come to.
    temperature_K
        K; not needed for a lattice gas that gives rates.
    n_jumps
        Jumps of each walker, rounded up to a multiple of 128.
    n_walkers
        Walkers that are advanced together; errors come from resampling them.
    burn_in
        Jumps of each walker before anything is measured, for states that are no equilibrium sample.
    seed
        Seed of the walkers and of the resampling.
    tracers
        Also follow single atoms.
    vacancy_fraction, attempt_frequency, n_resamples
        As in :func:`transport`.
    checkpoint
        File that the run is written to every minute and at its end, and resumed from if it exists; an interrupted run
        gives the same numbers as one in one go, and a longer one goes on from a shorter one.
    progress
        Show a progress bar.
    device
        ``"cpu"``, ``"cuda"`` (a GPU, with random numbers of its own), or ``"auto"``: a GPU if there is one, it knows
        the rates, and there are walkers enough to fill it (4096); else the processor, in as many threads as torch uses.

    Raises
    ------
    StatesError
        If the states are of an ensemble that trajectories do not keep, or a state has no jump.
    KinosonError
        If the checkpoint belongs to another run.
    ModelError
        If there is no such device, or the rates cannot be computed there.

    Notes
    -----
    Residence-time algorithm: A. B. Bortz, M. H. Kalos and J. L. Lebowitz, J. Comput. Phys. 17, 10 (1975). Slopes at a
    lag: docs/derivations.md#slopes-of-mean-squared-displacements.
    """
    if n_jumps < 1 or n_walkers < 2 or burn_in < 0:
        raise KinosonError(
            f"found n_jumps={n_jumps}, n_walkers={n_walkers} and burn_in={burn_in}; expected at least 1, 2 and 0; "
            "correct them"
        )
    rates, temperature_K = rates_of_states(
        states, jumps, source, temperature_K=temperature_K, attempt_frequency=attempt_frequency
    )
    kind, reasons = _ensemble(states, rates, burn_in)
    engine = _engine(states, jumps, rates, device=device, n_walkers=n_walkers, seed=seed, follow_atoms=tracers)
    _advance(engine, -(-n_jumps // WINDOW) * WINDOW, burn_in, checkpoint, progress)
    snapshot = engine.snapshot(states)
    w = rates(snapshot.occupations, snapshot.carriers)
    energies = rates.energies(snapshot.occupations, snapshot.carriers)
    drift = None
    if energies is not None:
        moving = jumps.moving_species(snapshot.occupations, snapshot.carriers)
        drift = energy_drift(snapshot, w, energies.delta_e, moving, seed=seed)
        if not drift.consistent:
            kind = ESTIMATE
            reasons.append(_drift_reason(drift))
    groups = engine.groups
    if len(np.unique(groups)) == 1:
        groups = np.arange(n_walkers)
        reasons.append(
            SmallSample(
                "all walkers start from one group of states; expected several; the errors do not know how groups "
                "differ",
                number=1,
                limit=2,
                unit="groups",
                advice="start from more independent states",
            )
        )
    boot = Bootstrap.over(np.full(n_walkers, 1.0 / n_walkers), groups, n_resamples=n_resamples, seed=seed)
    # next to a carrier, and with rate 0 everywhere
    mover, names = jumps.moving_species(snapshot.occupations, snapshot.carriers), states.supercell.species
    still = set(np.unique(mover[mover > 0]).tolist()) - set(mover[w > 0].tolist())
    blocked = [names[c] for c, x in zip(engine.species, engine.shares(), strict=True) if int(c) in still and x == 0]
    moments = LagSlopes(engine, boot, Composition.of(snapshot), blocked=blocked)
    levels = moments.choose()
    reasons += moments.remarks()
    averages = moments.averages(levels)
    derived = coefficients(
        averages,
        jumps,
        moments.composition,
        kind=kind,
        temperature_K=temperature_K,
        vacancy_fraction=vacancy_fraction,
    )
    size, largest = heavy_share(moments.squares(int(levels[0]) + 1)[:, 0] / n_walkers, groups)
    if boot.has_errors and size > 0 and largest > HEAVY_SHARE:  # nothing carries a coefficient of 0
        reasons.append(
            FewKinosons(
                f"one of {len(np.unique(groups))} independent groups of walkers carries {100 * largest:.0f} % of the "
                f"vacancy diffusivity; expected less than {100 * HEAVY_SHARE:.0f} %; its error bar is too small",
                number=100 * largest,
                limit=100 * HEAVY_SHARE,
                unit="%",
                advice="start from more independent states",
            )
        )
    exists = jumps.exists[jumps.basis_of(snapshot.carriers)]
    rejected = 0 if energies is None else int((exists & ~np.isfinite(energies.barrier)).sum())
    ladder, slopes = moments.curves(kind)
    result = KmcTransport(
        **derived,
        kinosons=KinosonTable.build(
            snapshot,
            jumps,
            rates=w,
            energies=energies,
            terms=jump_terms(None, snapshot.occupations, snapshot.carriers, network=jumps),
            state_energies=snapshot.model_energies,
        ),
        drift=drift,
        ensemble=states.ensemble,
        effective_sample_size=snapshot.effective_sample_size,
        contribution_sample_size=size,
        largest_share=largest,
        n_states=n_walkers,
        n_barriers=int(exists.sum()) - rejected,
        n_rejected=rejected,
        settings={
            "attempt_frequency": rates.attempt_frequency,
            "n_jumps": engine.n_jumps,
            "n_walkers": n_walkers,
            "burn_in": burn_in,
            "seed": seed,
            "n_resamples": n_resamples,
            "source": type(source).__name__,
            "states_source": states.source,
        },
        states=snapshot,
        lags=engine.ladder.lags,
        ladder=ladder,
        slopes=slopes,
        lag={name: 2 ** int(level) for name, level in zip(moments.names, levels, strict=True)},
        n_jumps_total=engine.n_jumps * n_walkers,
        time_per_jump=averages.quantity(moments.time, unit="s", kind=kind),
        snapshot=snapshot,
        warnings=tuple(reasons),
    )
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
    return result


def _engine(states: States, jumps: JumpNetwork, rates: Rates, *, device: str, **given: Any) -> KineticMonteCarlo:
    """Walkers on a device."""
    place = device_of(device)
    if place.type == "cpu" or (device == "auto" and given["n_walkers"] < DEVICE_WALKERS):
        return KineticMonteCarlo(states, jumps, rates, **given)
    from ase_kinoson.kinetics.device_kmc import DeviceKineticMonteCarlo

    try:
        return DeviceKineticMonteCarlo(states, jumps, rates, device=place, **given)
    except ModelError:
        if device != "auto":
            raise
        return KineticMonteCarlo(states, jumps, rates, **given)


def _ensemble(states: States, rates: Rates, burn_in: int) -> tuple[str, list[KinosonWarning]]:
    """Refuse ensembles that jumps do not keep; return the kind of the result and what to say about it."""
    if states.ensemble == "quenched" and rates.network.mechanism == "vacancy":  # an interstitial keeps its host
        raise StatesError(
            "found states of the quenched ensemble; expected equilibrium states, because the atoms of a trajectory "
            "move and the arrangement is not kept; sample with ensemble='equilibrium'"
        )
    source = rates.source
    has_energies = hasattr(source, "state_energies") or getattr(source, "energy", None) is not None
    if states.ensemble == "random" and has_energies:
        if burn_in == 0:
            raise StatesError(
                "found random states for a source with energies; expected equilibrium states; sample with "
                "method='monte-carlo', or pass burn_in= and check that longer ones change nothing"
            )
        return ESTIMATE, [
            NotAtEquilibrium(
                f"the walkers start from random states and forget them in {burn_in} jumps at best; the result is an "
                "estimate",
                number=burn_in,
                unit="jumps",
                advice="start from equilibrium states, or check that a longer burn_in changes nothing",
            )
        ]
    if states.ensemble != "random" and states.model_energies is not None and not states.report.get("reweighted"):
        energies = rates.state_energies(states.occupations)
        gap = 0.0 if energies is None else float(np.std(energies - states.model_energies))
        if gap > 1e-6:
            return ESTIMATE, [
                NotAtEquilibrium(
                    f"the states were drawn with energies that differ from those of the source by {gap:.3f} eV "
                    "(standard deviation); expected equilibrium states of the source",
                    number=gap,
                    limit=0,
                    unit="eV",
                    advice="call reweight(states, energies, temperature_K) first",
                )
            ]
    return KMC, []


def _drift_reason(drift: EnergyDrift) -> NotAtEquilibrium:
    return NotAtEquilibrium(
        f"the energy still drifts by {drift.value:+.2f} ± {drift.error:.2f} of the mean energy change per jump where "
        "the walkers are at the end; expected 0 in equilibrium",
        number=drift.value,
        limit=drift.limit,
        advice="start from equilibrium states or raise burn_in",
    )


def _advance(
    engine: KineticMonteCarlo, n_jumps: int, burn_in: int, checkpoint: str | Path | None, progress: bool
) -> None:
    """Jump, or go on from a checkpoint, up to ``n_jumps`` per walker."""
    resumed = checkpoint is not None and Path(checkpoint).exists()
    if resumed:
        assert checkpoint is not None
        engine.load(checkpoint)
        if engine.burned != burn_in:
            raise KinosonError(
                f"the checkpoint {checkpoint} began after a burn-in of {engine.burned} jumps; expected "
                f"burn_in={burn_in}; pass the same, or remove it"
            )
        if engine.n_jumps > n_jumps:
            raise KinosonError(
                f"the checkpoint {checkpoint} holds {engine.n_jumps} jumps per walker; expected at most "
                f"n_jumps={n_jumps}; raise n_jumps, or remove it"
            )
    total = n_jumps - engine.n_jumps + (0 if resumed else burn_in)
    with tqdm(total=total, desc="kinetic Monte Carlo", unit="jump", disable=not progress) as bar:
        if not resumed and burn_in:
            engine.burn_in(burn_in, tick=bar.update)
        written = time.monotonic()
        while engine.n_jumps < n_jumps:
            engine.run(min(WINDOW, n_jumps - engine.n_jumps), tick=bar.update)
            if checkpoint is not None and (
                engine.n_jumps == n_jumps or time.monotonic() - written > CHECKPOINT_SECONDS
            ):
                engine.save(checkpoint)
                written = time.monotonic()
