"""Barriers of every source: reverse jumps, closed loops, symmetry, and species and cells by other names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.geometry import minkowski_reduce
from hypothesis import assume
from hypothesis import strategies as st

import ase_kinoson as ak
from ase_kinoson import testing
from ase_kinoson.testing.cells import repeated
from tests.properties.running import breaks, holds
from tests.properties.strategies import ENERGETIC, KINDS, arrangement, models, networks, seeds

EV = 1e-9
"""Rounding of energies, eV: gases and pairs sum tens of terms, networks are evaluated in double precision."""


class Spoiled:
    """A source whose answers are changed by ``spoil(network, found, occupations, carriers)``."""

    def __init__(self, source, spoil):
        self.source, self.spoil, self.network = source, spoil, source.network
        self.energy = getattr(source, "energy", None)

    def jump_energies(self, occupations, carriers):
        found = self.source.jump_energies(occupations, carriers)
        return self.spoil(self.network, found, occupations, np.asarray(carriers))


def unsymmetrised(network, found, occ, c):
    """K that sees how crowded the neighbourhood of the start is, not that of the end."""
    around = occ[np.arange(len(c))[:, None], np.maximum(network.targets(c), 0)]
    return replace(found, barrier=found.barrier + 0.01 * around.astype(float).sum(axis=1)[:, None])


def half_delta(network, found, occ, c):
    """ΔE/2 forgotten in one direction of every jump."""
    return replace(found, delta_e=0.5 * found.delta_e)


def directed(network, found, occ, c):
    return replace(found, barrier=found.barrier + 0.01 * np.abs(network.vectors[network.basis_of(c)] @ [1.0, 0.3, 0.2]))


def by_site(network, found, occ, c):
    return replace(found, barrier=found.barrier + 1e-3 * (c // network.supercell.alloy.n_basis % 3)[:, None])


def source_of(recipe, model, spoil=None):
    source = testing.bound_to(model.make(recipe.network), recipe.network)
    return source if spoil is None else Spoiled(source, spoil)


def states_of(recipe, seed, n=3):
    occ, c = arrangement(recipe, seed, n)
    return ak.States.from_occupations(recipe.cell, occ, carriers=c)


# -- there and back ----------------------------------------------------------------------------------------------


def reverses(spoil=None):
    """Q back = Q − ΔE; K is the same and ΔE the opposite; with E a state function, E + Q is one saddle."""

    def check(recipe, model, seed):
        network, source = recipe.network, source_of(recipe, model, spoil)
        occ, c = arrangement(recipe, seed, 3)
        found, basis = source.jump_energies(occ, c), network.basis_of(c)
        assert np.array_equal(np.isfinite(found.barrier), network.exists[basis])
        assert np.all(found.delta_e[~network.exists[basis]] == 0)
        for k in range(network.n_jumps):
            rows = np.flatnonzero(network.exists[basis, k])
            after, there = network.apply(occ[rows], c[rows], np.full(len(rows), k))
            at = np.arange(len(rows)), network.reverse[basis[rows], k]
            back = source.jump_energies(after, there)
            forth = found.barrier[rows, k]
            assert np.abs(back.barrier[at] - (forth - found.delta_e[rows, k])).max(initial=0.0) < EV
            assert np.abs(back.kra[at] - found.kra[rows, k]).max(initial=0.0) < EV
            assert np.abs(back.delta_e[at] + found.delta_e[rows, k]).max(initial=0.0) < EV
            if source.energy is not None and len(rows):
                rise = source.energy.energies(after) - source.energy.energies(occ[rows])
                assert np.abs(rise - found.delta_e[rows, k]).max() < EV

    return check


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_is_consistent_with_the_jump_back(kind):
    holds(reverses(), networks(), models((kind,)), seeds, n=6)


@pytest.mark.parametrize("spoil", [unsymmetrised, half_delta])
def test_sources_that_forget_the_other_end_are_noticed(spoil):
    breaks(reverses(spoil), networks(), models(ENERGETIC), seeds)


# -- closed loops -------------------------------------------------------------------------------------------------


def loops_close(spoil=None):
    """Σ(Q − Q back) over a walk is the energy it ends with less that it began with: 0 over every closed loop."""

    def check(recipe, model, seed):
        network, source, rng = recipe.network, source_of(recipe, model, spoil), np.random.default_rng(seed)
        occ, c = arrangement(recipe, seed, 4)
        first, total = occ, np.zeros(len(c))
        rows = np.arange(len(c))
        for _ in range(8):
            basis = network.basis_of(c)
            k = np.array([rng.choice(np.flatnonzero(network.exists[b])) for b in basis])
            forth = source.jump_energies(occ, c).barrier[rows, k]
            occ, c = network.apply(occ, c, k)
            total += forth - source.jump_energies(occ, c).barrier[rows, network.reverse[basis, k]]
        rise = 0.0 if source.energy is None else source.energy.energies(occ) - source.energy.energies(first)
        assert np.abs(total - rise).max() < 10 * EV
        assert testing.loop_defect(source, n_loops=4, seed=seed) < 20 * EV

    return check


@pytest.mark.parametrize("kind", KINDS)
def test_closed_loops_sum_to_zero(kind):
    holds(loops_close(), networks(), models((kind,)), seeds, n=3)


def test_an_unsymmetrised_activation_leaves_something_in_a_loop():
    breaks(loops_close(unsymmetrised), networks(), models(ENERGETIC), seeds, n=10)


# -- symmetry -----------------------------------------------------------------------------------------------------


def symmetric(spoil=None):
    """The same after any operation of the supercell on state and jump, and after any translation."""

    def check(recipe, model, seed):
        source, states = source_of(recipe, model, spoil), states_of(recipe, seed, 2)
        assert testing.symmetry_defect(source, states) < EV
        assert testing.translation_defect(source, states) < EV
        assert testing.reproducibility_defect(source, states) < EV

    return check


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_has_the_symmetry_of_the_lattice(kind):
    holds(symmetric(), networks(most=30), models((kind,)), seeds, n=3)


@pytest.mark.parametrize("spoil", [directed, by_site])
def test_sources_that_know_directions_or_sites_are_noticed(spoil):
    breaks(symmetric(spoil), networks(most=30), models(("pairs",)), seeds)


# -- exchanges, names and sizes -------------------------------------------------------------------------------------


def swaps(deltas):
    """swap_delta is the difference of energies, whatever two sites of a sublattice trade their occupants."""

    def check(recipe, model, seed):
        assume(recipe.cell.alloy.varying_basis.any())  # an interstitial in a pure host: nothing to exchange
        energy = deltas(source_of(recipe, model).energy)
        assert testing.swap_defect(energy, states_of(recipe, seed), n_swaps=24, seed=seed) < EV

    return check


class NoPair:
    """Forgets that the two sites may be neighbours of each other."""

    def __init__(self, energy):
        self.energies, self.whole = energy.energies, energy

    def swap_delta(self, occ, first, second):
        here = self.energies(occ)
        total = np.zeros(len(occ))
        rows = np.arange(len(occ))
        for site, code in ((first, occ[rows, second]), (second, occ[rows, first])):
            one = occ.copy()
            one[rows, site] = code
            total += self.energies(one) - here
        return total


def test_exchanges_change_the_energy_by_what_they_say():
    holds(swaps(lambda energy: energy), networks(), models(ENERGETIC), seeds, n=8)


def test_exchanged_neighbours_counted_as_strangers_are_noticed():
    vacancy = ("sc", "bcc", "fcc", "hcp", "square", "triangular", "honeycomb")
    breaks(swaps(NoPair), networks(vacancy), models(("pairs",)), seeds)


def relabelled(make):
    """Species by other symbols, in another order: the same barriers of the same arrangements."""

    def check(recipe, model, seed):
        species = recipe.cell.species[1:]
        turned = np.random.default_rng(seed).permutation(species).tolist()
        names = dict(zip(species, turned, strict=True))
        build = lambda network, own: make(model, network, own)  # noqa: E731
        assert testing.relabelling_defect(build, states_of(recipe, seed), names, recipe.network) < EV

    return check


def test_symbols_are_only_names():
    # a gas of random barriers is another landscape by another name, and so is a network with random weights
    holds(
        relabelled(lambda model, network, names: model.make(network, {"X": "X", **names})),
        networks(),
        models(("rates", "pairs")),
        seeds,
        n=8,
    )


def test_numbers_that_go_by_the_alphabet_are_noticed():
    breaks(relabelled(lambda model, network, names: model.make(network)), networks(), models(("pairs",)), seeds)


def sizes(spoil=None):
    """States continued into a doubled cell: the same barriers, where no atom near the jump is an image of the carrier.

    A gas of rates looks at neighbours only. Pairs of neighbours and the random landscape reach three jumps: the cell
    must be wider.
    """

    def check(recipe, model, seed):
        network = recipe.network
        images = np.array(list(np.ndindex(3, 3, 3))) - 1
        images = images[(images != 0).any(axis=1) & ~images[:, ~recipe.cell.pbc].any(axis=1)]
        images = images @ minkowski_reduce(recipe.cell.cell, pbc=recipe.cell.pbc)[0]  # a sheared cell hides short ones
        near = np.linalg.norm(images, axis=1).min()
        assume(model.kind == "rates" or near > 3.6 * network.lengths.max())
        source = model.make(network)
        if spoil is not None:
            source = spoil(source)
        larger = network.with_supercell(repeated(recipe.cell, 2))
        assert testing.size_defect(source, states_of(recipe, seed, 2), larger, network=network, seed=seed) < EV

    return check


class KnowsTheCell:
    """Adds the share of one species in the whole cell to every barrier."""

    def __init__(self, model):
        self.model = model

    def bind(self, network):
        def share(network, found, occ, c):
            return replace(found, barrier=found.barrier + 0.1 * (occ == 1).mean(axis=1)[:, None])

        return Spoiled(testing.bound_to(self.model, network), share)


def test_gases_do_not_know_the_size_of_the_cell():
    holds(sizes(), networks(most=30), models(("rates",)), seeds, n=10)


WIDE = ("square", "triangular", "honeycomb")


def test_barriers_do_not_know_the_size_of_a_wide_cell():
    holds(sizes(), networks(WIDE, most=90), models(("random", "pairs")), seeds, n=16)


def test_a_barrier_that_knows_the_whole_cell_is_noticed():
    breaks(sizes(KnowsTheCell), networks(most=30), models(("rates",)), st.integers(0, 99))


def test_a_barrier_that_knows_the_whole_of_a_wide_cell_is_noticed():
    breaks(sizes(KnowsTheCell), networks(WIDE, most=90), models(("random", "pairs")), st.integers(0, 99), n=60)
