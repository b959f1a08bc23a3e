"""Sums over the atoms of each species, and the displacements of jumps without relaxation."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.kinosons import exact, functional
from ase_kinoson.kinosons.functional import bare_displacements, jump_terms


def atom_by_atom(moved, codes, n_species):
    n, n_jumps, n_atoms, _ = moved.shape
    total = np.zeros((n, n_jumps, n_species, 3))
    squares = np.zeros((n, n_jumps, n_species, 3, 3))
    for b in range(n):
        for w in range(n_atoms):
            if codes[b, w]:
                for k in range(n_jumps):
                    v = moved[b, k, w]
                    total[b, k, codes[b, w] - 1] += v
                    squares[b, k, codes[b, w] - 1] += np.outer(v, v)
    return total, squares


@pytest.mark.parametrize("n_jumps", [4, 8, 12])
def test_each_atom_counts_for_its_species_once(n_jumps, monkeypatch):
    rng = np.random.default_rng(0)
    moved, codes = rng.normal(size=(3, n_jumps, 20, 3)), rng.integers(0, 4, size=(3, 20))
    member = (codes[:, :, None] == np.arange(1, 4)).astype(float)
    expected = atom_by_atom(moved, codes, 3)
    for one, other in zip(functional._species_moments(moved, member), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(functional, "_AS_TENSOR", [3, 4, 5, 4, 6, 7, 5, 7, 7])  # zz is not yz
    assert np.abs(functional._species_moments(moved, member)[1] - expected[1]).max() > 0.1


@pytest.mark.parametrize("mechanism", ["vacancy", "interstitial"])
def test_bare_displacements_are_those_of_the_atoms_that_jumps_move(mechanism):
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.9, cubic=True), {"Fe": {"Fe": 0.5, "Cr": 0.5}})
    if mechanism == "interstitial":
        alloy = alloy.with_interstitials("C", [[0.5, 0.5, 0]])
    network = JumpNetwork.from_supercell(alloy.supercell(3))
    cell, rng = network.supercell, np.random.default_rng(0)
    occupations = rng.integers(1, 3, size=(5, cell.n_sites), dtype=np.int8)
    carriers = rng.choice(cell.mobile_sites, size=5)
    if mechanism == "interstitial":
        occupations[:, cell.mobile_sites] = 0
    occupations[np.arange(5), carriers] = cell.species.index("C") if mechanism == "interstitial" else 0
    bare = bare_displacements(network, occupations, carriers)
    for i in range(5):
        b = network.basis_of(carriers)[i]
        for k in range(network.n_jumps):
            if not network.exists[b, k]:
                assert not bare[i, k].any()
                continue
            target = network.targets(carriers)[i, k]
            mover = occupations[i, carriers[i] if mechanism == "interstitial" else target]
            expected = np.zeros((len(cell.species) - 1, 3))
            expected[mover - 1] = network.vectors[b, k] * (1 if mechanism == "interstitial" else -1)
            np.testing.assert_array_equal(bare[i, k], expected)
    terms = jump_terms(None, occupations, carriers, network=network)
    np.testing.assert_allclose(np.trace(terms.tracer, axis1=3, axis2=4), (bare**2).sum(-1), rtol=1e-14)


def test_exact_coefficients_do_not_depend_on_how_many_states_are_listed_at_a_time(monkeypatch):
    from ase_kinoson.kinetics.lattice_gas import SpeciesRates
    from ase_kinoson.kinetics.rates import Rates
    from ase_kinoson.kinosons.state_space import StateSpace

    alloy = Alloy.from_atoms(bulk("Po", "sc", a=3.0), {"Po": {"Po": 0.8, "Bi": 0.2}})
    network = JumpNetwork.from_supercell(alloy.supercell(3))
    space = StateSpace.enumerate(network, counts={"Po": 23, "Bi": 3})
    rates = Rates.of(SpeciesRates({"Po": 1.0, "Bi": 7.0}), network)
    matrix, bare, y = exact.exact_lambda(space, rates)
    monkeypatch.setattr(exact, "CACHED", 999)
    again = exact.exact_lambda(space, rates)
    for one, other in zip((matrix, bare, y), again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * np.abs(one).max())
    assert np.trace(matrix[0, 0]) < np.trace(bare[0, 0])  # relaxation lowers the sum of squares
    # the equations of the minimum hold to the tolerance of the solver: direct and iterated solutions agree
    flow = space.weights(rates)[:, None] * rates(space.occupations, space.carriers)
    rhs = np.einsum("nk,nki->ni", flow, exact._displacements(space, slice(None)))
    left = (flow[:, :, None] * (y[:, None] - y[space.next_state]).reshape(*flow.shape, -1)).sum(axis=1) - rhs
    assert np.abs(left).max() < 1e-9 * np.abs(rhs).max()


def test_options_are_named_and_terms_cannot_be_changed():
    network = JumpNetwork.from_supercell(Alloy.from_atoms(bulk("Cu", "fcc", a=3.6), {"Cu": {"Cu": 1.0}}).supercell(2))
    occupations = np.ones((1, network.supercell.n_sites), dtype=np.int8)
    occupations[0, 0] = 0
    with pytest.raises(TypeError, match="positional"):
        jump_terms(None, occupations, [0], network)
    one, other = (jump_terms(None, occupations, [0], network=network) for _ in range(2))
    with pytest.raises(FrozenInstanceError):
        one.bare = other.bare
    assert one != other and len({one, other, one}) == 2
