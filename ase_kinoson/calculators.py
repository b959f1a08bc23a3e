"""The ASE face: barriers, rates, relaxation and kinosons of the atoms at hand.

Both calculators keep ``implemented_properties`` and ``results`` to what ASE knows (energy and free energy,
where the model has an energy), so that every ASE writer, reader and database works. Their own quantities are
asked for by name, ``atoms.calc.get_property("barriers", atoms)``; the names are in ``extra_properties``, the
cached values in ``extra_results``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    BaseCalculator,
    CalculationFailed,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)
from numpy.typing import NDArray

from ase_kinoson.barriers.source import BarrierSource, JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Mapped, Supercell
from ase_kinoson.errors import KinosonError, MappingError, ModelError
from ase_kinoson.kinetics.rates import Rates, RateSource, rates_from_barriers
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = [
    "AtomsMappingError",
    "BarrierCalculator",
    "CalculatorInputError",
    "KinosonCalculator",
    "ModelCalculationError",
]

_ENERGY = ("energy", "free_energy")
_BARRIERS = ("barriers", "reverse_barriers", "delta_e")
_GEOMETRY = ("jump_vectors", "moving_atoms")
_KINOSONS = ("kinosons", "kinosons_by_species")


class CalculatorInputError(KinosonError, CalculatorSetupError):
    """A calculator is given a model, relaxation or parameter that it cannot use."""


class AtomsMappingError(MappingError, CalculatorSetupError):
    """The atoms do not map onto the sites of the calculator's supercell."""


class ModelCalculationError(KinosonError, CalculationFailed):
    """A model fails for these atoms."""


@contextmanager
def _as_ase_errors() -> Iterator[None]:
    """Turn our errors into classes that are ASE's as well; the message stays."""
    try:
        yield
    except CalculatorSetupError:
        raise
    except MappingError as error:
        raise AtomsMappingError(str(error)) from error
    except KinosonError as error:
        raise ModelCalculationError(str(error)) from error


class BarrierCalculator(BaseCalculator):
    """Barriers of all jumps of the carrier in an Atoms object.

    Atoms may come in any order, relaxed, drifted or wrapped: they are mapped onto the sites of the supercell,
    and every result refers to the given atoms. Jump vectors are those of the ideal lattice.

    Parameters
    ----------
    model
        A :class:`BarrierModel`, reference barriers, or a lattice gas.
    temperature_K
        For ``"rates"``, K; not needed for a lattice gas that gives rates directly.
    attempt_frequency
        s⁻¹.
    tolerance
        Largest distance of an atom from its site, Å; default as in :meth:`Supercell.map_atoms`.
    supercell
        Another supercell of the model's alloy; default that of the model.
    jumps
        Jumps on another supercell, in place of ``supercell``; needed for a lattice gas that is not bound yet.

    Attributes
    ----------
    implemented_properties : list of str
        ``energy`` and ``free_energy`` (equal; eV, the zero is the model's), or nothing.
    extra_properties : tuple of str
        What else :meth:`get_property` answers. n_jumps counts the jumps that exist for the carrier:

        - ``barriers``, ``reverse_barriers``, ``delta_e``: eV, shape (n_jumps,); barriers are ``inf`` where a
          jump is rejected;
        - ``rates``: s⁻¹, shape (n_jumps,);
        - ``jump_vectors``: displacement of the carrier, Å, shape (n_jumps, 3);
        - ``moving_atoms``: index into the atoms of the atom that moves, shape (n_jumps,).
    parameters : dict
        ``temperature_K``, ``attempt_frequency`` and ``tolerance``; changing one, here or by :meth:`set`,
        clears the results.

    Raises
    ------
    CalculatorInputError
        Bad model or parameter; a :class:`KinosonError` and ASE's ``CalculatorSetupError`` at once.
    """

    implemented_properties: list[str] = [*_ENERGY]  # noqa: RUF012 - ASE's own declaration; instances narrow it
    extra_properties: tuple[str, ...] = (*_BARRIERS, "rates", *_GEOMETRY)

    def __init__(
        self,
        model: Any,
        *,
        temperature_K: float | None = None,
        attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
        tolerance: float | None = None,
        supercell: Supercell | None = None,
        jumps: JumpNetwork | None = None,
    ) -> None:
        super().__init__(
            parameters={
                "temperature_K": temperature_K,
                "attempt_frequency": attempt_frequency,
                "tolerance": tolerance,
            }
        )
        self._check(self.parameters)
        self.network = _choose_network(model, supercell, jumps)
        self.source = _source_on(model, self.network)
        self.extra_results: dict[str, Any] = {}
        self._mapped: Mapped | None = None
        self._energies: JumpEnergies | None = None
        self._seen: dict[str, Any] = {}
        self.implemented_properties = [*_ENERGY] if self._has_energy else []
        has_barriers = isinstance(self.source, BarrierSource)
        self.extra_properties = tuple(p for p in self._extra_names() if has_barriers or p not in _BARRIERS)

    # -- ASE's side ------------------------------------------------------------------------------------------

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property, ASE's or one of :attr:`extra_properties`; arrays are copies.

        Parameters
        ----------
        name
            Name of the property.
        atoms
            Default: the atoms of the last calculation.
        allow_calculation
            If False, return None unless the value is cached.

        Raises
        ------
        PropertyNotImplementedError
            If the model cannot give it.
        AtomsMappingError, ModelCalculationError
            If the atoms do not fit, or the model fails.
        CalculatorInputError
            If there are no atoms.
        """
        reason = self._why_not(name)
        if reason is not None:
            raise PropertyNotImplementedError(reason)
        if atoms is None:
            atoms = self.atoms
            if atoms is None:
                raise CalculatorInputError(
                    f"found no atoms to calculate {name!r} for; expected an Atoms object; "
                    f"pass it as get_property({name!r}, atoms)"
                )
        if not allow_calculation and self.calculation_required(atoms, [name]):
            return None
        self.calculate(atoms, [name])
        return _copy(self.results[name] if name in self.results else self.extra_results[name])

    def calculate(
        self,
        atoms: Atoms,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill :attr:`results` and :attr:`extra_results` with the properties asked for.

        What is cached for the same atoms and parameters is kept.

        Parameters
        ----------
        atoms
            The atoms, in any order.
        properties
            Names; default those of ASE that the model has.
        system_changes
            As ASE passes it; not trusted but found again.

        Raises
        ------
        PropertyNotImplementedError
            If the model cannot give a property.
        CalculatorInputError
            If a parameter is unknown or not positive.
        AtomsMappingError, ModelCalculationError
            If the atoms do not fit, or the model fails.
        """
        if self.check_state(atoms):
            self.reset()
            self.atoms = atoms.copy()
            self._seen = dict(self.parameters)
        for name in self.implemented_properties if properties is None else properties:
            reason = self._why_not(name)
            if reason is not None:
                raise PropertyNotImplementedError(reason)
            if name not in self.results and name not in self.extra_results:
                with _as_ase_errors():
                    self._check(self.parameters)
                    found = self._compute(name)
                (self.results if name in _ENERGY else self.extra_results).update(found)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation; a changed parameter counts as changed atoms.

        Parameters
        ----------
        atoms
            The atoms at hand.
        tol
            As in ASE: largest change that does not count, in the unit of what changed.
        """
        changes: list[str] = super().check_state(atoms, tol=tol)
        return changes or ([*all_changes] if self.parameters != self._seen else [])

    def calculation_required(self, atoms: Atoms, properties: Sequence[str]) -> bool:
        """Return whether any of the properties is not cached for these atoms.

        Parameters
        ----------
        atoms
            The atoms at hand.
        properties
            Names.
        """
        known = self.results.keys() | self.extra_results.keys()
        return bool(self.check_state(atoms)) or any(name not in known for name in properties)

    def reset(self) -> None:
        """Forget the atoms and all results."""
        self.atoms = None
        self._clear()

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Change parameters and return those that differ; results are cleared if any does.

        Parameters
        ----------
        **parameters
            ``temperature_K``, ``attempt_frequency`` or ``tolerance``; see the class.

        Raises
        ------
        CalculatorInputError
            If a parameter is unknown or has a bad value.
        """
        self._check({**self.parameters, **parameters})
        changed = {k: v for k, v in parameters.items() if self.parameters[k] != v}
        self.parameters.update(changed)
        if changed:
            self._clear()
        return changed

    def todict(self) -> dict[str, Any]:
        """Return the parameters, and which model, jumps and species; ASE's writers store them."""
        plain = {k: float(v) for k, v in self.parameters.items() if v is not None}
        species = list(self.network.supercell.species[1:])
        return {**plain, "model": self._model_name, "network": self.network.fingerprint, "species": species}

    # -- the work --------------------------------------------------------------------------------------------

    @property
    def _has_energy(self) -> bool:
        return getattr(self.source, "energy", None) is not None or hasattr(self.source, "state_energies")

    @property
    def _model_name(self) -> str:
        return type(self.source).__name__.removeprefix("_Bound")

    def _clear(self) -> None:
        self.results: dict[str, Any] = {}
        self.extra_results = {}
        self._mapped = None
        self._energies = None

    def _why_not(self, name: str) -> str | None:
        """Why a property cannot be had, in one sentence; None if it can."""
        what, extra = self._model_name, self._extra_names()
        if name in _ENERGY:
            if self._has_energy:
                return None
            return (
                f"found a {what} without energies; {name!r} expects a model that has an energy; ask for one of {extra}"
            )
        if name not in extra:
            return (
                f"found the property {name!r}, which a {type(self).__name__} does not have; expected one of "
                f"{(*self.implemented_properties, *extra)}; ask for one of these"
            )
        if name in _BARRIERS and not isinstance(self.source, BarrierSource):
            return (
                f"found a {what}, which gives rates only; {name!r} expects a model of barriers; ask for "
                "'rates' or use such a model"
            )
        needs_rates = (name == "rates" or name in _KINOSONS) and not isinstance(self.source, RateSource)
        if needs_rates and self.parameters.get("temperature_K") is None:
            return (
                f"found no temperature; {name!r} expects temperature_K in kelvin; set it with "
                "calc.set(temperature_K=...)"
            )
        return None

    def _extra_names(self) -> tuple[str, ...]:
        return tuple(type(self).extra_properties)

    def _check(self, parameters: Mapping[str, Any]) -> None:
        known = ("temperature_K", "attempt_frequency", "tolerance")
        for name, value in parameters.items():
            if name not in known:
                raise CalculatorInputError(f"found the parameter {name!r}; expected one of {known}; correct the name")
            if value is None and name != "attempt_frequency":
                continue
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not (number and 0.0 < float(value) < float("inf")):
                unit = {"temperature_K": "K", "attempt_frequency": "1/s", "tolerance": "Å"}[name]
                raise CalculatorInputError(f"found {name}={value!r}; expected a positive number in {unit}; correct it")

    def _state(self) -> tuple[Mapped, NDArray[np.int8], NDArray[np.int64]]:
        """Map the atoms once; return the mapping, occupation (1, n_sites) and carrier (1,)."""
        if self._mapped is None:
            tolerance = self.parameters["tolerance"]
            self._mapped = self.network.supercell.map_atoms(self.atoms, tolerance=tolerance)
        return self._mapped, self._mapped.occupation[None], np.array([self._mapped.carrier])

    def _compute(self, name: str) -> dict[str, Any]:
        """Compute one property and what comes with it."""
        mapped, occupation, carrier = self._state()
        basis = int(self.network.basis_of(carrier)[0])
        jumps = np.flatnonzero(self.network.exists[basis])
        if name in _ENERGY:
            energies = Rates(self.source, self.network).state_energies(occupation)
            if energies is None or not np.isfinite(energies[0]):
                raise ModelCalculationError(
                    f"the {self._model_name} knows no energy of this state; expected a number in eV; ask for "
                    f"{self._extra_names()[0]!r}, or use a model with energies"
                )
            energy = float(energies[0])
            return {"energy": energy, "free_energy": energy}
        if name in _BARRIERS:
            found = self._jump_energies()
            barrier, delta = found.barrier[0, jumps], found.delta_e[0, jumps]
            return {"barriers": barrier, "reverse_barriers": barrier - delta, "delta_e": delta}
        if name in _GEOMETRY:
            targets = self.network.targets(carrier)[0, jumps]
            interstitial = self.network.mechanism == "interstitial"
            sites = np.full(len(jumps), mapped.carrier) if interstitial else targets
            moving = mapped.atom_of_site[sites]
            return {"jump_vectors": self.network.vectors[basis, jumps], "moving_atoms": moving}
        return {"rates": self._rates()[jumps]}

    def _jump_energies(self) -> JumpEnergies:
        if self._energies is None:
            _, occupation, carrier = self._state()
            self._energies = self.source.jump_energies(occupation, carrier)
        return self._energies

    def _rates(self) -> NDArray[np.float64]:
        """Rates of all jumps, padded ones included, s⁻¹, shape (J,)."""
        if isinstance(self.source, RateSource):
            _, occupation, carrier = self._state()
            return self.source.jump_rates(occupation, carrier)[0]
        temperature_K = float(self.parameters["temperature_K"])
        frequency = float(self.parameters["attempt_frequency"])
        found = self._jump_energies()
        own = Rates(self.source, self.network, temperature_K, frequency)._frequency(found)
        return rates_from_barriers(found.barrier, temperature_K, attempt_frequency=own)[0]


class KinosonCalculator(BarrierCalculator):
    """Barriers, rates, relaxation and kinosons of the atoms at hand.

    Parameters
    ----------
    model
        As in :class:`BarrierCalculator`.
    relaxation : Relaxation
        For the same jumps and species; on another supercell it is carried over.
    temperature_K
        Of the rates in the kinosons, K. The relaxation keeps the temperature it was made for: any one is
        admissible.
    attempt_frequency, tolerance, supercell, jumps
        As in :class:`BarrierCalculator`.

    Attributes
    ----------
    extra_properties : tuple of str
        Those of :class:`BarrierCalculator`, and

        - ``relaxation``: y of every atom, Å, shape (n_atoms, 3), in the order of the atoms;
        - ``kinosons``: W |δx + Δy|²/(2d) of the carrier, Å²/s, shape (n_jumps,); their sum is what this state
          adds to the mean that is the carrier's diffusivity;
        - ``kinosons_by_species``: the same for all atoms of one species together, a dict of the symbols
          of the mobile species to arrays of shape (n_jumps,).

    Raises
    ------
    CalculatorInputError
        If the relaxation is none or belongs to other jumps; and as in :class:`BarrierCalculator`.
    """

    extra_properties = (*BarrierCalculator.extra_properties, "relaxation", *_KINOSONS)

    def __init__(
        self,
        model: Any,
        relaxation: Relaxation,
        *,
        temperature_K: float | None = 1000.0,
        attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
        tolerance: float | None = None,
        supercell: Supercell | None = None,
        jumps: JumpNetwork | None = None,
    ) -> None:
        if not isinstance(relaxation, Relaxation):
            raise CalculatorInputError(
                f"found {type(relaxation).__name__} as relaxation; expected a Relaxation; make one with "
                "train_relaxation or Relaxation.create"
            )
        if jumps is None and getattr(model, "network", None) is None:
            jumps = relaxation.network if supercell is None else _network_on(relaxation.network, supercell)
            supercell = None
        super().__init__(
            model,
            temperature_K=temperature_K,
            attempt_frequency=attempt_frequency,
            tolerance=tolerance,
            supercell=supercell,
            jumps=jumps,
        )
        self.relaxation = _relaxation_on(relaxation, self.network)

    def todict(self) -> dict[str, Any]:
        """Return the parameters, what the model is, and the look-ahead of the relaxation."""
        return {**super().todict(), "lookahead": self.relaxation.lookahead}

    def _compute(self, name: str) -> dict[str, Any]:
        if name == "relaxation":
            mapped, occupation, carrier = self._state()
            filled = np.flatnonzero(mapped.atom_of_site >= 0)
            y = np.zeros((len(self.atoms), 3))
            y[mapped.atom_of_site[filled]] = self.relaxation(occupation, carrier)[0, filled]
            return {"relaxation": y}
        if name not in _KINOSONS:
            return super()._compute(name)
        _, occupation, carrier = self._state()
        jumps = np.flatnonzero(self.network.exists[self.network.basis_of(carrier)[0]])
        weight = self._rates()[jumps] / (2.0 * self.network.dimension)
        moved = jump_terms(self.relaxation, occupation, carrier).displacement[0, jumps]
        moved = moved @ self.network.projector  # only periodic directions count in the 1/(2d)
        squares = np.square(moved).sum(axis=-1)
        alloy = self.network.supercell.alloy
        mobile = {s for sub in alloy.sublattices if sub.mobile for s in sub.species}
        return {
            "kinosons": weight * np.square(moved.sum(axis=1)).sum(axis=-1),
            "kinosons_by_species": {s: weight * squares[:, a] for a, s in enumerate(alloy.species[1:]) if s in mobile},
        }


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v.copy() for k, v in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def _network_on(network: JumpNetwork, supercell: Supercell) -> JumpNetwork:
    try:
        return network if network.supercell == supercell else network.with_supercell(supercell)
    except KinosonError as error:
        raise CalculatorInputError(str(error)) from error


def _choose_network(model: Any, supercell: Supercell | None, jumps: JumpNetwork | None) -> JumpNetwork:
    """Jumps on the supercell that the atoms will be mapped on."""
    if supercell is not None and jumps is not None:
        raise CalculatorInputError(
            "found supercell= and jumps=; expected one of them; drop supercell=, the jumps have one"
        )
    if jumps is None:
        jumps = getattr(model, "network", None)
    if jumps is None:
        if model is None or not (hasattr(model, "bind") or isinstance(model, (BarrierSource, RateSource))):
            raise CalculatorInputError(
                f"found {type(model).__name__} as model; expected a BarrierModel, reference barriers or a "
                "lattice gas; pass one of these"
            )
        raise CalculatorInputError(
            f"found a {type(model).__name__} that is bound to no jumps; expected to know them; pass "
            "jumps=, a JumpNetwork"
        )
    return jumps if supercell is None else _network_on(jumps, supercell)


def _source_on(model: Any, network: JumpNetwork) -> Any:
    """Bind the model to the jumps and check that they belong together."""
    try:
        source = Rates.of(model, network, temperature_K=1000.0).source
    except KinosonError as error:
        raise CalculatorInputError(str(error)) from error
    own = getattr(source, "network", network)
    if own.supercell != network.supercell:
        raise CalculatorInputError(
            f"the model is bound to a supercell of {own.supercell.n_sites} sites; expected one of "
            f"{network.supercell.n_sites} sites; build the gas, and a relaxation that uses it, on that supercell"
        )
    return source


def _relaxation_on(relaxation: Relaxation, network: JumpNetwork) -> Relaxation:
    """Carry a relaxation over to another supercell of the same jumps."""
    if relaxation.network.supercell == network.supercell and relaxation.network.fingerprint == network.fingerprint:
        return relaxation
    rates = relaxation.rates if relaxation.lookahead > 0 else None
    try:
        relaxation.check(network)
        if rates is not None:
            rates = replace(rates, source=_source_on(rates.source, network), network=network)
        return relaxation.on(network, rates)
    except ModelError as error:
        raise CalculatorInputError(str(error)) from error
