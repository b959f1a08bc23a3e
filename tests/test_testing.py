"""The physical assertions: our own models pass them all, and a twin that is broken in one way fails the one for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson import testing
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda
from ase_kinoson.testing.cells import repeated
from ase_kinoson.validation import parent
from tests.barriers.synthetic import synthetic


def pair_barriers(network, names):
    """Pair energies and activations, every species by its name."""
    bonds = {(names["Ag"], names["Cu"]): -0.05, (names["Cu"], "X"): -0.03}
    energy = ak.PairEnergy.from_interactions(network.supercell, bonds)
    return ak.PairBarriers(energy, {names["Ag"]: 0.6, names["Cu"]: 0.5})


SAME = {"Ag": "Ag", "Cu": "Cu"}


class Model:
    """Pair barriers that go to any supercell, spoiled by ``spoil(source, found, occupations, carriers)``."""

    def __init__(self, spoil=None):
        self.spoil = spoil

    def bind(self, network):
        return Bound(pair_barriers(network, SAME).bind(network), self.spoil)


class Bound:
    def __init__(self, source, spoil):
        self.source, self.spoil, self.network, self.energy = source, spoil, source.network, source.energy

    def jump_energies(self, occupations, carriers):
        found = self.source.jump_energies(occupations, carriers)
        return found if self.spoil is None else self.spoil(self.source, found, occupations, np.asarray(carriers))


def add(found, extra):
    return replace(found, barrier=found.barrier + extra)


def not_a_number(source, found, occ, c):
    return replace(found, barrier=np.where(found.barrier == found.barrier.min(), np.nan, found.barrier))


NOISE = np.random.default_rng(0)


def noisy(source, found, occ, c):
    return add(found, NOISE.normal(0, 1e-3, found.barrier.shape))


def mixes_states(source, found, occ, c):
    return add(found, 0.01 * found.delta_e.mean())


def directed(source, found, occ, c):
    x = np.abs(source.network.vectors[source.network.basis_of(c)] @ [1.0, 0.3, 0.2])
    return add(found, 0.01 * x)


def by_corner(source, found, occ, c):
    return add(found, 1e-3 * (c % 3)[:, None])


def initial_state_only(source, found, occ, c):
    return add(found, 0.02 * (occ[np.arange(len(c))[:, None], source.network.targets(c)] == 1).sum(axis=1)[:, None])


def not_antisymmetric(source, found, occ, c):
    return replace(found, delta_e=found.delta_e + 1e-3)


def no_state_function(source, found, occ, c):
    """Antisymmetric ΔE that is more for one species: no energy has it."""
    delta = np.where(source.network.moving_species(occ, c) == 2, 1.2, 1.0) * found.delta_e
    return JumpEnergies(found.barrier + 0.5 * (delta - found.delta_e), delta)


def other_energy(source, found, occ, c):
    """ΔE of another state function than the one that weighs the states."""
    return JumpEnergies(found.barrier + 0.25 * found.delta_e, 1.5 * found.delta_e)


def low(source, found, occ, c):
    return add(found, -0.55)


def by_cell_size(source, found, occ, c):
    """A barrier that knows the composition of the whole cell."""
    return add(found, 0.1 * (occ == 1).mean(axis=1)[:, None])


def own_frequency(source, found, occ, c):
    return replace(found, attempt_frequency=1e13 * np.exp(found.delta_e))


@pytest.fixture(scope="module")
def square():
    return ak.JumpNetwork.from_supercell(parent("square").supercell(5))


@pytest.fixture(scope="module")
def states(square):
    return ak.sample_states(square.supercell, 4, seed=1)


ON_STATES = {
    "shapes and finite numbers": (testing.assert_well_formed, [not_a_number]),
    "reproducible": (testing.assert_reproducible, [noisy, mixes_states]),
    "space group": (testing.assert_symmetric, [directed]),
    "translations": (testing.assert_translation_invariant, [by_corner]),
    "reverse jumps": (testing.assert_reverse_consistent, [initial_state_only, not_antisymmetric]),
    "attempt frequencies": (testing.assert_frequencies_match, [own_frequency]),
    "detailed balance": (testing.assert_detailed_balance, [other_energy, no_state_function]),
    "saddles above ends": (testing.assert_saddles_above_ends, [low]),
}


@pytest.mark.parametrize("name", ON_STATES)
def test_a_broken_model_fails(name, square, states):
    assertion, twins = ON_STATES[name]
    assert assertion(Model().bind(square), states) <= 1e-10 or name == "saddles above ends"
    for spoil in twins:
        with pytest.raises(AssertionError, match=r"found .*expected .*;"):
            assertion(Model(spoil).bind(square), states)
        assert name in {c.name for c in testing.check_barrier_model(Model(spoil), square, states=states).failed}


def test_an_assertion_tells_number_and_unit(square, states):
    with pytest.raises(AssertionError, match=r"found 0\.02 eV; expected at most 1e-05 eV; ") as caught:
        testing.assert_detailed_balance(
            Bound(Model().bind(square), lambda s, f, o, c: add(f, 0.02 * (c > 7)[:, None])), states
        )
    assert "\n" not in str(caught.value)


def test_loops():
    """Three species: with two, pair energies weighed by species are still a function of the state."""
    network = ak.JumpNetwork.from_supercell(parent("square", {"Ag": 0.4, "Cu": 0.3, "Pd": 0.3}).supercell(5))
    bonds = {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03, ("Ag", "Pd"): 0.04}
    energy = ak.PairEnergy.from_interactions(network.supercell, bonds)
    source = ak.PairBarriers(energy, {"Ag": 0.6, "Cu": 0.5, "Pd": 0.7}).bind(network)
    assert testing.assert_loops_close(source) < 1e-10
    # this state function is not the one of the weights, but its loops close
    assert testing.assert_loops_close(Bound(source, other_energy)) < 1e-10
    with pytest.raises(AssertionError, match="ΔE around a closed loop"):
        testing.assert_loops_close(Bound(source, no_state_function))

    def barriers_only(source, found, occ, c):
        spoiled = no_state_function(source, found, occ, c)
        return replace(spoiled, delta_e=found.delta_e)

    with pytest.raises(AssertionError, match="barriers around a closed loop"):
        testing.assert_loops_close(Bound(source, barriers_only))
    failed = testing.check_barrier_model(Bound(source, no_state_function), network).failed
    assert {"closed loops", "detailed balance"} <= {c.name for c in failed}


def test_swaps(square, states):
    class Spoiled:
        def __init__(self, energy):
            self.energies, self.whole = energy.energies, energy.swap_delta

        def swap_delta(self, occupations, first, second):
            return 1.01 * self.whole(occupations, first, second)

    energy = Model().bind(square).energy
    assert testing.assert_swaps_consistent(energy, states) < 1e-10
    with pytest.raises(AssertionError, match="Monte Carlo"):
        testing.assert_swaps_consistent(Spoiled(energy), states)


def test_size(square, states):
    larger = square.with_supercell(repeated(square.supercell, 2))
    assert testing.assert_size_consistent(Model(), states, larger, network=square) < 1e-10
    with pytest.raises(AssertionError, match="25 and in 100 sites"):
        testing.assert_size_consistent(Model(by_cell_size), states, larger, network=square)
    assert [c.name for c in testing.check_barrier_model(Model(by_cell_size), square).failed] == ["larger supercell"]


def test_names_of_species(square, states):
    def by_number(network, names):
        first, second = network.supercell.species[1:]
        return pair_barriers(network, {"Ag": first, "Cu": second})

    names = {"Ag": "Cu", "Cu": "Ag"}
    assert testing.assert_relabelling_invariant(pair_barriers, states, names, network=square) < 1e-10
    assert testing.assert_relabelling_invariant(pair_barriers, states, {"Ag": "Zr"}, network=square) < 1e-10
    with pytest.raises(AssertionError, match="renamed"):
        testing.assert_relabelling_invariant(by_number, states, names, network=square)
    failed = testing.check_barrier_model(Model(), square, relabel=by_number).failed
    assert [c.name for c in failed] == ["names of species"]
    with pytest.raises(KinosonError, match="different one"):
        testing.relabelled(square, {"Ag": "Cu"})


def test_bound(tiny, pair_model):
    _, network = tiny

    class Spoiled(ak.Relaxation):
        """Δy that is no difference of one y."""

        def relaxed_jumps(self, basis_site, occupations, carriers):
            found = super().relaxed_jumps(basis_site, occupations, carriers)
            return replace(found, moved=0.8 * found.moved)

    rates = ak.Rates.of(pair_model, network, temperature_K=600.0)
    good, bad = (kind.create(network, rates=rates, lookahead=1, form="paths") for kind in (ak.Relaxation, Spoiled))
    given = (pair_model, network, 600.0)
    assert testing.assert_bound(None, *given) <= testing.assert_bound(good, *given) <= 0
    with pytest.raises(AssertionError, match="below the exact"):
        testing.assert_bound(bad, *given)


def test_sum_rule(tiny):
    _, network = tiny
    space = StateSpace.enumerate(network)
    matrix, bare, _ = exact_lambda(space, ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network))
    assert testing.assert_sum_rule(matrix, bare, [0.1, 1.0]) < 1e-10
    scalar = np.trace(matrix, axis1=2, axis2=3) / 2, np.trace(bare, axis1=2, axis2=3) / 2
    assert testing.assert_sum_rule(*scalar, [0.1, 1.0]) < 1e-10
    wrong_sign = matrix * np.array([[1, -1], [-1, 1]])[..., None, None]
    for spoiled, rates in ((wrong_sign, [0.1, 1.0]), (0.5 * matrix, [0.1, 1.0]), (matrix, [1.0, 0.1])):
        with pytest.raises(AssertionError, match="differs from"):
            testing.assert_sum_rule(spoiled, bare, rates)
    with pytest.raises(KinosonError, match="all rates above 0"):
        testing.assert_sum_rule(matrix, bare, [0.0, 1.0])


def test_equivariance(square, states):
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), square)
    good = ak.Relaxation.create(square, rates=rates, lookahead=1, form="paths")
    assert testing.assert_equivariant(good, states) < 1e-6
    with pytest.raises(AssertionError, match="Å"):
        testing.assert_equivariant(lambda occ, c: good(occ, c) * [1.0, 1.01, 1.0], states)


# -- our own models --------------------------------------------------------------------------------------------------


def interstitial():
    alloy = ak.Alloy.from_atoms(bulk("Fe", cubic=True)).with_interstitials("C", "octahedral")
    return ak.JumpNetwork.from_supercell(alloy.supercell(2))


OWN = {
    "pair barriers": lambda n: pair_barriers(n, SAME),
    "random barriers": lambda n: ak.RandomBarriers(mean=0.8, std=0.05, seed=3),
    "species rates": lambda n: ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}),
}


@pytest.mark.parametrize("lattice", ["honeycomb", "bcc"])
@pytest.mark.parametrize("name", OWN)
def test_own_models_pass(name, lattice):
    network = ak.JumpNetwork.from_supercell(parent(lattice).supercell(4))
    found = testing.check_barrier_model(OWN[name](network), network)
    found.raise_if_failed()
    ran = {c.name for c in found.checks if c.passed}
    assert {"space group", "closed loops", "detailed balance"} <= ran
    if name != "pair barriers":
        assert {"larger supercell", "bound with look-ahead"} <= ran
    assert ("sum rule" in ran) == (name == "species rates")


def test_site_barriers_of_an_interstitial_pass():
    network = interstitial()
    model = ak.SiteBarriers([0.0], [0.8] * network.n_classes)
    found = testing.check_barrier_model(model, network)
    found.raise_if_failed()
    assert {"larger supercell", "bound without relaxation"} <= {c.name for c in found.checks if c.passed}
    upside_down = ak.SiteBarriers([0.0], [-0.1] * network.n_classes)
    assert [c.name for c in testing.check_barrier_model(upside_down, network).failed] == ["saddles above ends"]


def test_a_fitted_model_passes():
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.4, "Ni": 0.35, "Pd": 0.25}})
    network = ak.JumpNetwork.from_supercell(alloy.supercell(3))
    model = ak.BarrierModel.fit(synthetic(network, n=30), seed=3, hidden=4, epochs=1)
    found = testing.check_barrier_model(model, network)
    found.raise_if_failed()
    assert sum(bool(c.passed) for c in found.checks) >= 12


def test_the_report(square):
    class Mute:
        """Without energies, and on one supercell only."""

        def __init__(self, network):
            self.network, self.jump_energies = network, Model().bind(network).jump_energies

    found = testing.check_barrier_model(Mute(square), square)
    assert found.passed and not found.failed
    not_run = {c.name: c.message for c in found.checks if c.passed is None}
    assert "no energy" in not_run["detailed balance"] and "stays on its supercell" in not_run["larger supercell"]
    lines = str(found).splitlines()
    assert len(lines) == len(found.checks) and any("passed" in x and x.endswith(" eV") for x in lines)
    broken = testing.check_barrier_model(Model(not_a_number), square)
    assert len(broken.checks) == 1 and not broken.passed and "FAILED" in str(broken)
    with pytest.raises(AssertionError, match="NaN in barrier"):
        broken.raise_if_failed()
    with pytest.raises(KinosonError, match="expected an attribute energy"):
        testing.assert_detailed_balance(Mute(square), ak.sample_states(square.supercell, 1))
    with pytest.raises(ModelError, match="found str"):
        testing.check_barrier_model("no model", square)


def test_the_sum_rule_is_not_asked_where_jumps_of_a_site_do_not_sum_to_zero():
    """Zigzag chains: even one species relaxes, and Σ_b Λ_ab w_a/w_b is not Λ_aa[0]."""
    sites = [[0.1, 0.25, 0.2], [0.9, 0.75, 0.8]]
    chain = Atoms("Cu2", scaled_positions=sites, cell=[[3.1, 0, 0], [0, 3.5, 0], [0.7, 0, 3.3]], pbc=True)
    alloy = ak.Alloy.from_atoms(chain, {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    network = ak.JumpNetwork.from_supercell(alloy.supercell((1, 4, 1)))
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    found = testing.check_barrier_model(gas, network)
    found.raise_if_failed()
    assert {c.name: c.message for c in found.checks if c.passed is None}["sum rule"].endswith("do not sum to zero")
    matrix, bare, _ = exact_lambda(StateSpace.enumerate(network), ak.Rates.of(gas, network))
    assert testing.sum_rule_defect(matrix, bare, [0.1, 1.0]) > 0.1
