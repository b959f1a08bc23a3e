"""Models and matrices that are wrong in one way, and the public assertion of `ase_kinoson.testing` for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

import ase_kinoson as ak
from ase_kinoson import testing
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda
from ase_kinoson.testing.cells import repeated
from ase_kinoson.validation import parent, tiny_cell
from tests import test_testing as twins


@dataclass(frozen=True)
class Check:
    """A public assertion, what is wrong, and both runs of it.

    Attributes
    ----------
    assertion : str
        Name in ``ase_kinoson.testing``.
    defect : str
    good, bad : callable
        The assertion on what is right, and on what is wrong.
    """

    assertion: str
    defect: str
    good: Callable[[], float]
    bad: Callable[[], Any]


@cache
def _square() -> tuple[ak.JumpNetwork, ak.States]:
    network = ak.JumpNetwork.from_supercell(parent("square").supercell(5))
    return network, ak.sample_states(network.supercell, 3, seed=1)


def _on_states(name: str, spoil: Any) -> Check:
    def run(own: Any) -> float:
        network, states = _square()
        return getattr(testing, name)(twins.Model(own).bind(network), states)

    return Check(name, spoil.__name__.replace("_", " "), partial(run, None), partial(run, spoil))


@cache
def _three() -> Any:
    network = ak.JumpNetwork.from_supercell(parent("square", {"Ag": 0.4, "Cu": 0.3, "Pd": 0.3}).supercell(5))
    bonds = {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03, ("Ag", "Pd"): 0.04}
    energy = ak.PairEnergy.from_interactions(network.supercell, bonds)
    return ak.PairBarriers(energy, {"Ag": 0.6, "Cu": 0.5, "Pd": 0.7}).bind(network)


def _barriers_only(source: Any, found: Any, occ: Any, c: Any) -> Any:
    return replace(twins.no_state_function(source, found, occ, c), delta_e=found.delta_e)


def _loops(spoil: Any) -> float:
    return testing.assert_loops_close(twins.Bound(_three(), spoil))


class _Stretched:
    """Exchanges change the energy by one per cent more than they do."""

    def __init__(self, energy: Any) -> None:
        self.energies, self.whole = energy.energies, energy.swap_delta

    def swap_delta(self, occupations: Any, first: Any, second: Any) -> Any:
        return 1.01 * self.whole(occupations, first, second)


def _swaps(spoil: Callable[[Any], Any]) -> float:
    network, states = _square()
    return testing.assert_swaps_consistent(spoil(twins.Model().bind(network).energy), states)


def _sizes(spoil: Any) -> float:
    network, states = _square()
    larger = network.with_supercell(repeated(network.supercell, 2))
    return testing.assert_size_consistent(twins.Model(spoil), states, larger, network=network)


def _by_number(network: ak.JumpNetwork, names: Any) -> Any:
    first, second = network.supercell.species[1:]
    return twins.pair_barriers(network, {"Ag": first, "Cu": second})


def _names(make: Any) -> float:
    network, states = _square()
    return testing.assert_relabelling_invariant(make, states, {"Ag": "Cu", "Cu": "Ag"}, network=network)


class _NoDifference(ak.Relaxation):
    """Δy that is the difference of no function of the state."""

    def relaxed_jumps(self, basis_site: int, occupations: Any, carriers: Any) -> Any:
        found = super().relaxed_jumps(basis_site, occupations, carriers)
        return replace(found, moved=0.8 * found.moved)


def _bound(kind: Any) -> float:
    _, network = tiny_cell({"Ag": 4, "Cu": 4})
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    y = kind.create(network, rates=rates, lookahead=1, form="paths")
    return -testing.assert_bound(y, rates.source, network)


@cache
def _solved() -> tuple[Any, Any]:
    _, network = tiny_cell({"Ag": 4, "Cu": 4})
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    return exact_lambda(StateSpace.enumerate(network), rates)[:2]


def _sum_rule(sign: float = 1.0, scale: float = 1.0, rates: tuple[float, float] = (0.1, 1.0)) -> float:
    matrix, bare = _solved()
    wrong = scale * matrix * np.array([[1, sign], [sign, 1]])[..., None, None]
    return testing.assert_sum_rule(wrong, bare, rates)


def _turning(stretch: float) -> float:
    network, states = _square()
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    y = ak.Relaxation.create(network, rates=rates, lookahead=1, form="paths")
    return testing.assert_equivariant(lambda occ, c: y(occ, c) * [1.0, stretch, 1.0], states)


CHECKS = (
    *(_on_states(assertion.__name__, spoil) for assertion, spoils in twins.ON_STATES.values() for spoil in spoils),
    Check("assert_loops_close", "no state function", partial(_loops, None), partial(_loops, twins.no_state_function)),
    Check("assert_loops_close", "barriers of no saddle", partial(_loops, None), partial(_loops, _barriers_only)),
    Check("assert_swaps_consistent", "1 % more", partial(_swaps, lambda e: e), partial(_swaps, _Stretched)),
    Check("assert_size_consistent", "by cell size", partial(_sizes, None), partial(_sizes, twins.by_cell_size)),
    Check(
        "assert_relabelling_invariant", "by number", partial(_names, twins.pair_barriers), partial(_names, _by_number)
    ),
    Check("assert_bound", "no difference", partial(_bound, ak.Relaxation), partial(_bound, _NoDifference)),
    Check("assert_sum_rule", "Λ_ab of the wrong sign", _sum_rule, partial(_sum_rule, sign=-1.0)),
    Check("assert_sum_rule", "factor 2", _sum_rule, partial(_sum_rule, scale=0.5)),
    Check("assert_sum_rule", "rates exchanged", _sum_rule, partial(_sum_rule, rates=(1.0, 0.1))),
    Check("assert_equivariant", "stretched along y", partial(_turning, 1.0), partial(_turning, 1.01)),
)
