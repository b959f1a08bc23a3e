"""`MapPoint`: diffusion coefficients of one composition at one temperature, and how they are computed."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ase_kinoson.barriers.invariant import single_thread
from ase_kinoson.composition import Fractions, with_composition
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, KinosonWarning
from ase_kinoson.kinetics.monte_carlo import random_occupations
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.correction import correct
from ase_kinoson.kinosons.density import KinosonDensity
from ase_kinoson.kinosons.result import ESTIMATE, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.training import train_relaxation
from ase_kinoson.kinosons.trajectories import run_kmc
from ase_kinoson.kinosons.transport import transport
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = [
    "MapPoint",
    "MapSettings",
    "PointTask",
    "compute_point",
    "probe",
    "realised_fractions",
    "same_rates",
]

MOST = 10**8
_ALONE = threading.Lock()
"""Warnings are caught, and threads of torch counted, for a process as a whole: its threads take turns."""


@dataclass(frozen=True)
class MapSettings:
    """What is done at every point of a map.

    Diffusivities come from trajectories of the source's rates where there are any (``n_jumps``), else from the residual
    ladder (``n_steps``), else they are the upper bounds of y. Activation energies and shares are those of the kinosons,
    of y, in any case.

    Attributes
    ----------
    n_chains, sweeps, n_rounds
        Monte Carlo: independent chains, sweeps before the first states, and how often a state is taken of each chain.
    closure_epochs
        Training of the factors of the paths of y, on the states of every second chain.
    n_jumps, n_walkers
        Kinetic Monte Carlo; 0 jumps: none.
    n_steps, n_trajectories
        Residual ladder, from the states of the chains that did not train y; 0 steps: none.
    attempt_frequency
        s⁻¹, of barriers whose source knows none of their own.
    n_resamples
        Bootstrap over chains.

    Raises
    ------
    KinosonError
        If a number is too small to work with, or so large that all memory would not do.
    """

    n_chains: int = 256
    sweeps: int = 20
    n_rounds: int = 2
    closure_epochs: int = 0
    n_jumps: int = 768
    n_walkers: int = 192
    n_steps: int = 0
    n_trajectories: int = 512
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY
    n_resamples: int = 200

    def __post_init__(self) -> None:
        small = {"n_chains": 10, "sweeps": 1, "n_rounds": 1, "closure_epochs": 0, "n_jumps": 0, "n_walkers": 2}
        for name, least in (small | {"n_steps": 0, "n_trajectories": 1}).items():
            if not getattr(self, name) >= least:
                raise KinosonError(f"found {name}={getattr(self, name)}; expected at least {least}; raise it")
        for name, value in asdict(self).items():
            if name != "attempt_frequency" and not value <= MOST:
                raise KinosonError(f"found {name}={value}; expected at most {MOST}; lower it")
        if not 0 < self.attempt_frequency < np.inf:
            raise KinosonError(
                f"found attempt_frequency={self.attempt_frequency}; expected a finite number above 0; correct it"
            )


@dataclass(frozen=True, eq=False)
class MapPoint:
    """Diffusion coefficients of one composition at one temperature.

    Attributes
    ----------
    composition : dict of str to float
        Nominal fractions of the mobile sublattice; species with 0 included.
    realised : dict of str to float
        Fractions of the atoms of the cell: whole numbers of atoms.
    temperature_K : float
    lattice_constant : float
        Å; all diffusivities are those of a cell with this one.
    vacancy_diffusivity : Quantity
        D_v, m²/s.
    tracer_diffusivity, correlation_factor : dict of Quantity
        Of every species present; D* in m²/s, per c_v.
    share : dict of Quantity
        Share of the jumps of each species in D_v (its kinosons).
    activation_energy : dict of Quantity
        −∂ln D/∂β of ``"vacancy"`` and of the tracers of every species, eV (Hellmann-Feynman); empty for rates without
        barriers. The share of c_v is not in it, and what y lacks is not in its error.
    distance : float or None
        From the trained range of the model, at.%; None where it is unknown.
    tail : dict of float
        What the residual ladder may still miss, relative; empty without one.
    seconds : float
        Processor time.
    remarks : tuple of str
        Warnings of this point, as sentences.
    probe : tuple of float
        Fingerprint of the rates of the source, see :func:`probe`.
    warnings : tuple of KinosonWarning
        The same with their types, numbers and advice.
    """

    composition: dict[str, float]
    realised: dict[str, float]
    temperature_K: float
    lattice_constant: float
    vacancy_diffusivity: Quantity
    tracer_diffusivity: dict[str, Quantity]
    correlation_factor: dict[str, Quantity]
    share: dict[str, Quantity]
    activation_energy: dict[str, Quantity]
    distance: float | None = None
    tail: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    probe: tuple[float, ...] = ()
    warnings: tuple[KinosonWarning, ...] = ()

    @property
    def rounding(self) -> float:
        """Share of the atoms of the cell that are of another species than the composition asks for, at.%."""
        gaps = [abs(self.realised.get(s, 0.0) - x) for s, x in self.composition.items()]
        return 50.0 * float(sum(gaps))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        groups = ("tracer_diffusivity", "correlation_factor", "share", "activation_energy")
        return {
            "composition": self.composition,
            "realised": self.realised,
            "temperature_K": self.temperature_K,
            "lattice_constant_A": self.lattice_constant,
            "vacancy_diffusivity": self.vacancy_diffusivity.as_dict(),
            **{name: {s: q.as_dict() for s, q in getattr(self, name).items()} for name in groups},
            "distance_at_percent": self.distance,
            "tail": self.tail,
            "seconds": self.seconds,
            "remarks": list(self.remarks),
            "warnings": [w.as_dict() for w in self.warnings],
            "probe": list(self.probe),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MapPoint:
        """Undo :meth:`as_dict`."""
        groups = ("tracer_diffusivity", "correlation_factor", "share", "activation_energy")
        return cls(
            dict(data["composition"]),
            dict(data["realised"]),
            data["temperature_K"],
            data["lattice_constant_A"],
            Quantity(**data["vacancy_diffusivity"]),
            **{name: {s: Quantity(**q) for s, q in data[name].items()} for name in groups},
            distance=data["distance_at_percent"],
            tail=dict(data["tail"]),
            seconds=data["seconds"],
            remarks=tuple(data["remarks"]),
            warnings=tuple(KinosonWarning.from_dict(w) for w in data.get("warnings", ())),
            probe=tuple(data.get("probe", ())),
        )


@dataclass(frozen=True, eq=False)
class PointTask:
    """All that a worker needs for one point.

    Attributes
    ----------
    jumps : JumpNetwork
        On the parent cell.
    source
        Barrier model, lattice gas, or a callable of the composition that returns one.
    fractions : tuple of (symbol, fraction)
    temperature_K : float
    lattice_constant, scale : float
        Å, and in units of that of the parent cell.
    settings : MapSettings
    seed : tuple of int
        Entropy of the point.
    distance : float or None
    """

    jumps: JumpNetwork
    source: Any
    fractions: Fractions
    temperature_K: float
    lattice_constant: float
    scale: float
    settings: MapSettings
    seed: tuple[int, ...]
    distance: float | None = None


def realised_fractions(cell: Supercell) -> dict[str, float]:
    """Fractions of the atoms of the mobile sublattice of a cell: whole numbers of atoms."""
    atoms = next(c for sub, c in zip(cell.alloy.sublattices, cell.counts, strict=True) if sub.mobile)
    total = sum(atoms.values())
    return {a: n / total for a, n in atoms.items()}


def source_at(source: Any, composition: Mapping[str, float]) -> Any:
    """The source of one composition: itself, or what the callable returns for it."""
    known = hasattr(source, "bind") or hasattr(source, "jump_energies") or hasattr(source, "jump_rates")
    return source(dict(composition)) if callable(source) and not known else source


def compute_point(task: PointTask) -> MapPoint:
    """Sample states, train y and evaluate one point.

    Only the arrangement of the atoms enters barriers and rates, so that all is done at the lattice constant of the
    parent cell; diffusivities scale with the square of the lattice constant, correlation factors and activation
    energies do not.
    """
    begin = time.process_time()
    s = task.settings
    with _ALONE, warnings.catch_warnings(record=True) as caught, single_thread():
        warnings.simplefilter("always", KinosonWarning)
        result, bound, realised, own = _evaluate(task, s)
    told = tuple(w.message for w in caught if isinstance(w.message, KinosonWarning))
    label = " of the model" if own else ""

    def scaled(q: Quantity, factor: float = 1.0) -> Quantity:
        return Quantity(float(q.value) * factor, float(q.error) * factor, q.unit, q.kind + label)

    area = task.scale**2
    present = result.species
    energies: dict[str, Quantity] = {}
    density = KinosonDensity.from_result(bound)
    if np.isfinite(density.barrier).all() and np.isfinite(density.state_energy).all():
        for name in ("vacancy", *present):
            one = density if name == "vacancy" else KinosonDensity.from_result(bound, quantity=f"tracer_{name}")
            q = one.activation_energy()
            energies[name] = Quantity(float(q.value), float(q.error), q.unit, ESTIMATE + label)
    share = density.share_by_species()
    tail = {}
    if hasattr(result, "tail"):
        names = {"vacancy": "vacancy", **{a: f"tracer {a}" for a in present}}
        tail = {name: result.tail(key) for name, key in names.items()}
    return MapPoint(
        dict(task.fractions),
        realised,
        task.temperature_K,
        task.lattice_constant,
        scaled(result.vacancy_diffusivity, area),
        {a: scaled(result.tracer_diffusivity[a], area) for a in present},
        {a: scaled(result.correlation_factor[a]) for a in present},
        {a: Quantity(float(q.value), float(q.error), q.unit, ESTIMATE + label) for a, q in share.items()},
        energies,
        distance=task.distance,
        tail=tail,
        seconds=time.process_time() - begin,
        remarks=tuple(str(w) for w in told),
        warnings=told,
        probe=probe(task),
    )


def _bound(task: PointTask) -> Rates:
    """Rates of a point, at the lattice constant of the parent cell."""
    parent = task.jumps.supercell
    cell = type(parent)(with_composition(parent.alloy, task.fractions), parent.matrix)
    return Rates.of(
        source_at(task.source, dict(task.fractions)),
        replace(task.jumps, supercell=cell),
        temperature_K=task.temperature_K,
        attempt_frequency=task.settings.attempt_frequency,
    )


def probe(task: PointTask) -> tuple[float, ...]:
    """Fingerprint of the rates of a source at one composition: what it says of a few fixed arrangements.

    A name says little of what a function or a file does. One number per arrangement, the logarithms of the rates of
    its jumps with fixed random weights; rounding errors leave them the same to 1e-6 or so, another source does not.
    """
    with single_thread():
        rates = _bound(task)
        cell = rates.network.supercell
        occupations, carriers = random_occupations(cell, 8, np.random.default_rng(0))
        found = rates(occupations, carriers)
    weights = np.random.default_rng(1).normal(size=found.shape)
    return tuple((weights * np.log(np.where(found > 0, found, 1.0))).sum(axis=1).tolist())


def same_rates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two fingerprints are of one source; networks in single precision differ by 1e-6 eV among machines."""
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=1e-6, atol=2e-4))


def _evaluate(task: PointTask, s: MapSettings) -> tuple[Transport, Transport, dict[str, float], bool]:
    rates = _bound(task)
    jumps, cell = rates.network, rates.network.supercell
    chains, training, paths, resampling = (int(v) for v in np.random.SeedSequence(task.seed).generate_state(4))
    states = sample_states(
        cell,
        s.n_chains * s.n_rounds,
        method="monte-carlo",
        model=rates.source,
        temperature_K=task.temperature_K,
        n_chains=s.n_chains,
        sweeps=s.sweeps,
        seed=chains,
    )
    odd = states.groups % 2 == 1
    y = train_relaxation(
        cell,
        jumps,
        rates.source,
        temperature_K=rates.temperature_K,
        states=states[~odd],
        form="paths",
        lookahead=1,
        epochs=0,
        closure_epochs=s.closure_epochs,
        attempt_frequency=s.attempt_frequency,
        seed=training,
        device="cpu",  # the numbers of a point must not depend on where it is computed
    )
    with warnings.catch_warnings():
        if s.n_jumps or s.n_steps:  # what weakens a bound is of interest only where it is the result
            warnings.simplefilter("ignore", KinosonWarning)
        bound = transport(
            states[odd],
            jumps,
            rates.source,
            y,
            task.temperature_K,
            attempt_frequency=s.attempt_frequency,
            n_resamples=s.n_resamples,
            seed=resampling,
        )
    result: Transport = bound
    if s.n_jumps:
        result = run_kmc(
            states,
            jumps,
            rates.source,
            task.temperature_K,
            n_jumps=s.n_jumps,
            n_walkers=s.n_walkers,
            attempt_frequency=s.attempt_frequency,
            n_resamples=s.n_resamples,
            seed=paths,
        )
    elif s.n_steps:
        result = correct(
            bound,
            rates.source,
            n_steps=s.n_steps,
            n_trajectories=s.n_trajectories,
            n_resamples=s.n_resamples,
            seed=paths,
        )
    # what a barrier model says is true of its rates only; a gas is its own truth
    return result, bound, realised_fractions(cell), hasattr(rates.source, "training_keys")
