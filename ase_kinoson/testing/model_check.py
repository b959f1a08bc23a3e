"""All physical assertions on a barrier model at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_kinoson.barriers.source import EnergyModel
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.rates import Rates, RateSource
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.testing import assertions as a
from ase_kinoson.testing.cells import enumerable_cell, repeated
from ase_kinoson.testing.defects import bound_to
from ase_kinoson.testing.transport_assertions import assert_bound, assert_sum_rule

__all__ = ["Check", "ModelCheck", "check_barrier_model"]


@dataclass(frozen=True)
class Check:
    """One assertion and what became of it.

    Attributes
    ----------
    name : str
        What is asserted.
    passed : bool or None
        None if it was not run.
    value : float or None
        The largest defect, in ``unit``; None without a number.
    unit : str
        Of ``value``.
    message : str
        Why it failed or was not run; empty otherwise.
    """

    name: str
    passed: bool | None
    value: float | None = None
    unit: str = "eV"
    message: str = ""


@dataclass(frozen=True)
class ModelCheck:
    """What :func:`check_barrier_model` found; ``print`` it.

    Attributes
    ----------
    checks : tuple of Check
        All of them, in the order in which they ran.
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed (some may not have been run)."""
        return all(c.passed is not False for c in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(c for c in self.checks if c.passed is False)

    def raise_if_failed(self) -> None:
        """Raise `AssertionError` with one line per failed check.

        Raises
        ------
        AssertionError
            If a check failed.
        """
        __tracebackhide__ = True
        if self.failed:
            raise AssertionError("\n".join(f"{c.name}: {c.message}" for c in self.failed))

    def __str__(self) -> str:
        word = {True: "passed", False: "FAILED", None: "not run"}
        width = max(len(c.name) for c in self.checks)
        lines = []
        for c in self.checks:
            number = "" if c.value is None else f"{c.value:9.1e} {c.unit}"
            lines.append(f"{c.name:{width}}  {word[c.passed]:7}  {c.message or number}".rstrip())
        return "\n".join(lines)


def check_barrier_model(
    model: Any,
    network: JumpNetwork,
    *,
    states: States | None = None,
    temperature_K: float = 1000.0,
    relabel: Callable[[JumpNetwork, Mapping[str, str]], Any] | None = None,
    tolerance: float = a.ENERGY,
    n_states: int = 4,
    seed: int = 0,
) -> ModelCheck:
    """Run all physical assertions on a barrier model.

    Parameters
    ----------
    model
        A barrier model or a lattice gas: what ``transport`` takes.
    network : JumpNetwork
        Jumps on a supercell larger than the reach of the model.
    states : States, optional
        States to try it on; default random ones of that supercell. Give some where the model does not know all.
    temperature_K
        For the bound on an enumerable cell, K.
    relabel
        ``relabel(network, names)`` builds the model with every parameter of species ``s`` given to ``names[s]``;
        needed for the check that species are told apart by their names.
    tolerance
        Of energies, eV.
    n_states, seed
        Of the random states.

    Returns
    -------
    ModelCheck
        One entry per assertion. A check is not run where the model lacks what it needs (energies, another supercell),
        and says so.

    Examples
    --------
    >>> check_barrier_model(model, network).raise_if_failed()  # doctest: +SKIP
    """
    return ModelCheck(tuple(_run(model, network, states, temperature_K, relabel, tolerance, n_states, seed)))


def _run(
    model: Any,
    network: JumpNetwork,
    states: States | None,
    temperature_K: float,
    relabel: Callable[[JumpNetwork, Mapping[str, str]], Any] | None,
    tolerance: float,
    n_states: int,
    seed: int,
) -> Iterator[Check]:
    source = bound_to(model, network)
    if states is None:
        states = sample_states(network.supercell, n_states, seed=seed)
    first = _attempt("shapes and finite numbers", lambda: a.assert_well_formed(source, states), unit="faults")
    yield first
    if not first.passed:
        return
    given = {"tolerance": tolerance}
    yield _attempt("reproducible", lambda: a.assert_reproducible(source, states, **given))
    yield _attempt("space group", lambda: a.assert_symmetric(source, states, **given))
    yield _attempt("translations", lambda: a.assert_translation_invariant(source, states, **given))
    yield _attempt("reverse jumps", lambda: a.assert_reverse_consistent(source, states, **given))
    yield _attempt("attempt frequencies", lambda: a.assert_frequencies_match(source, states), unit="(relative)")
    if hasattr(source, "energy"):
        yield _attempt("detailed balance", lambda: a.assert_detailed_balance(source, states, **given))
    else:
        yield Check("detailed balance", None, message="the model has no energy")
    yield _attempt("closed loops", lambda: a.assert_loops_close(source, seed=seed, tolerance=tolerance))
    is_gas = isinstance(Rates.of(model, network, temperature_K=temperature_K).source, RateSource)
    if is_gas:
        yield Check("saddles above ends", None, message="the model gives rates")
    else:
        yield _attempt("saddles above ends", lambda: a.assert_saddles_above_ends(source, states), unit="eV above")
    energy = getattr(source, "energy", None)
    if isinstance(energy, EnergyModel):
        yield _attempt("swaps", lambda: a.assert_swaps_consistent(energy, states, seed=seed, **given))
    else:
        yield Check("swaps", None, message="the model has no energy with swap_delta()")
    yield _size(model, network, tolerance, n_states, seed)
    if relabel is None:
        yield Check("names of species", None, message="no relabel= given")
    else:
        symbols = network.supercell.species[1:]
        names = dict(zip(symbols, reversed(symbols), strict=True))
        yield _attempt(
            "names of species",
            lambda: a.assert_relabelling_invariant(relabel, states, names, network=network, **given),
        )
    yield from _exact(model, network, None if is_gas else temperature_K)


def _attempt(name: str, assertion: Callable[[], float], *, unit: str = "eV") -> Check:
    """Run one assertion; whatever a model raises is a failure of the model, told in its words."""
    try:
        return Check(name, True, assertion(), unit)
    except AssertionError as error:
        return Check(name, False, None, unit, str(error))
    except Exception as error:
        return Check(name, False, None, unit, f"{type(error).__name__}: {error}")


def _size(model: Any, network: JumpNetwork, tolerance: float, n_states: int, seed: int) -> Check:
    """Compare cells of at least four jumps across with cells twice as large."""
    name, cell = "larger supercell", network.supercell
    across = np.linalg.norm(cell.cell[cell.pbc], axis=1).min()
    small = repeated(cell, max(1, int(np.ceil(4.0 * network.lengths.max() / across))))
    near, far = network.with_supercell(small), network.with_supercell(repeated(small, 2))
    try:  # a model that stays on its supercell says so
        for other in (near, far):
            one = sample_states(other.supercell, 1, seed=seed)
            bound_to(model, other).jump_energies(one.occupations, one.carriers)
    except KinosonError as error:
        return Check(name, None, message=f"the model stays on its supercell: {error}")
    states = sample_states(small, n_states, seed=seed)
    return _attempt(name, lambda: a.assert_size_consistent(model, states, far, network=near, tolerance=tolerance))


def _exact(model: Any, network: JumpNetwork, temperature_K: float | None) -> Iterator[Check]:
    """The bound, and for a gas with one rate per species the sum rule, on the smallest cell that can be enumerated."""
    names = ("bound without relaxation", "bound with look-ahead", "sum rule")
    try:
        small, counts = enumerable_cell(network)
        rates = Rates.of(model, small, temperature_K=temperature_K)
        space = StateSpace.enumerate(small, counts=counts)
        found = rates(space.occupations, space.carriers)
    except KinosonError as error:
        yield from (Check(name, None, message=str(error)) for name in names)
        return
    look = Relaxation.create(small, rates=rates, lookahead=1, form="paths", gates=0)
    for name, y in zip(names, (None, look), strict=False):
        yield _attempt(name, lambda y=y: assert_bound(y, model, small, temperature_K, counts=counts), unit="Λ[0]")  # type: ignore[misc]
    moved = small.moving_species(space.occupations, space.carriers)
    species = np.unique(moved[moved >= 0])
    own = [found[moved == s] for s in species]
    if small.mechanism != "vacancy" or any(np.ptp(w) > 1e-9 * w.max() or w.min() <= 0 for w in own):
        yield Check(names[2], None, message="the model has more than one rate for a species")
        return
    if np.linalg.norm(small.vectors.sum(axis=1), axis=-1).max() > 1e-6 * small.lengths.max():
        yield Check(names[2], None, message="the jumps of a site do not sum to zero")
        return

    def sum_rule() -> float:
        matrix, bare, _ = exact_lambda(space, rates)
        index = np.ix_(species - 1, species - 1)
        return assert_sum_rule(matrix[index], bare[index], [w[0] for w in own])

    yield _attempt(names[2], sum_rule, unit="(relative)")
