"""The stencil: differences of y from its tables equal those of y evaluated on both states from scratch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.kinetics.lattice_gas import RandomBarriers, SpeciesRates
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.relaxation import Relaxation

torch.set_num_threads(1)
HALF = {"Cu": 0.6, "Ni": 0.4}
HEXAGON = [[2.5, 0, 0], [-1.25, 2.165063509461097, 0], [0, 0, 12]]


def flat(cell, positions=((0.0, 0.0, 0.0),)):
    return Atoms(f"Cu{len(positions)}", scaled_positions=positions, cell=cell, pbc=(1, 1, 0))


def vacancy(atoms, size, composition=None, **options):
    cell = Alloy.from_atoms(atoms, composition or {"Cu": HALF}, **options).supercell(size)
    return JumpNetwork.from_supercell(cell)


def b2():
    atoms = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    return vacancy(atoms, 3, {"Ni": {"Ni": 0.6, "Cu": 0.4}, "Al": {"Al": 0.7, "Ti": 0.3}})


def carbon():
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.7, "Cr": 0.3}})
    return JumpNetwork.from_supercell(alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(3))


NETWORKS = {
    "fcc, 32 sites": lambda: vacancy(bulk("Cu", "fcc", a=3.6, cubic=True), 2),
    "fcc, 108 sites": lambda: vacancy(bulk("Cu", "fcc", a=3.6, cubic=True), 3),
    "hcp": lambda: vacancy(bulk("Cu", "hcp", a=2.6, c=4.1), (3, 3, 2)),
    "honeycomb": lambda: vacancy(flat(HEXAGON, ((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5))), (4, 4, 1)),
    "square, 3x3": lambda: vacancy(flat([1, 1, 10]), (3, 3, 1), {"Cu": {"Cu": 0.4, "Ni": 0.4, "Pd": 0.2}}),
    "B2, both mobile": b2,
    "interstitial in bcc": carbon,
}
# the ball of two look-ahead steps is large on dense lattices
CASES = [(name, lookahead) for name in NETWORKS for lookahead in (0, 1, 2)]
CASES += [(name, 2) for name in NETWORKS if name not in ("fcc, 108 sites", "B2, both mobile")]


def random_states(network, n, seed):
    cell = network.supercell
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, cell.n_sites), dtype=np.int8)
    for i, counts in enumerate(cell.counts):
        sites = np.flatnonzero(cell.sublattice == i)
        codes = np.repeat([cell.species.index(s) for s in counts], list(counts.values()))
        for row in rows:
            row[rng.permutation(sites)[: len(codes)]] = codes
    return rows, np.array([cell.find_carrier(row) for row in rows])


def random_relaxation(network, lookahead, *, seed=0, gas=None, closure="learned"):
    """A relaxation with random weights in double precision: y is far from zero everywhere."""
    rates = Rates.of(gas or RandomBarriers(seed=seed), network, temperature_K=1000.0)
    relaxation = Relaxation.create(
        network, rates=rates, lookahead=lookahead, hidden=4, n_blocks=1, seed=seed, closure=closure, gates=5
    )
    relaxation = relaxation.to(torch.float64)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        if relaxation.closure is not None:
            for p in relaxation.closure.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5)
        for part in relaxation.field.parts:
            part.project.copy_(torch.randn(part.project.shape, generator=generator, dtype=torch.float64))
    return relaxation


def from_scratch(relaxation, occupations, carriers):
    """δx^a + Δy^a and Σ (δx_i + Δy_i)⊗(δx_i + Δy_i) from y of whole states, one jump at a time."""
    network = relaxation.network
    n_species = len(network.supercell.species) - 1
    displacement = np.zeros((len(carriers), network.n_jumps, n_species, 3))
    tracer = np.zeros((*displacement.shape, 3))
    before = relaxation(occupations, carriers)
    interstitial = network.mechanism == "interstitial"
    for k in range(network.n_jumps):
        rows = np.flatnonzero(network.exists[network.basis_of(carriers), k])
        if not len(rows):
            continue
        new, where = network.apply(occupations[rows], carriers[rows], np.full(len(rows), k))
        after = relaxation(new, where)
        for m, row in enumerate(rows):
            start, end = carriers[row], where[m]
            dx = network.vectors[start % network.supercell.alloy.n_basis, k]
            goes_to = np.arange(network.supercell.n_sites)
            goes_to[start], goes_to[end] = end, start
            moved = after[m][goes_to] - before[row]
            moved[start if interstitial else end] += dx if interstitial else -dx
            for a in range(n_species):
                own = moved[occupations[row] == a + 1]
                displacement[row, k, a] = own.sum(axis=0)
                tracer[row, k, a] = own.T @ own
    return displacement, tracer


def check_differences(relaxation, *, n=3, seed=5):
    occupations, carriers = random_states(relaxation.network, n, seed)
    terms = jump_terms(relaxation, occupations, carriers)
    displacement, tracer = from_scratch(relaxation, occupations, carriers)
    assert np.abs(displacement - terms.bare).max() > 0.05  # y is not zero
    np.testing.assert_allclose(terms.displacement, displacement, rtol=0, atol=1e-12)
    np.testing.assert_allclose(terms.tracer, tracer, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "lookahead"), CASES)
def test_differences_equal_those_from_scratch(name, lookahead):
    check_differences(random_relaxation(NETWORKS[name](), lookahead), n=2 if lookahead == 2 else 4)


@pytest.mark.parametrize("name", ["honeycomb", "square, 3x3", "interstitial in bcc"])
def test_differences_with_the_network_on_the_rim(name):
    check_differences(random_relaxation(NETWORKS[name](), 2, closure="exact"), n=2)


def test_differences_with_rates_of_species():
    network = NETWORKS["square, 3x3"]()
    gas = SpeciesRates({"Cu": 0.1, "Ni": 1.0, "Pd": 0.0})
    check_differences(random_relaxation(network, 2, gas=gas))


@pytest.mark.parametrize("what", ["labels", "out_labels", "jump_vectors", "next_state"])
@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_the_check_sees_broken_tables(what, lookahead):
    relaxation = random_relaxation(NETWORKS["honeycomb"](), lookahead)
    check_differences(relaxation)
    for basis in (0, 1):
        ball = relaxation.ball(basis)
        if what in ("labels", "out_labels"):
            # states other than the first read their neighbours' labels shifted by one
            shifted = tuple(
                torch.where((own == 0)[:, None], table, torch.roll(table, 1, dims=1))
                for own, table in zip(ball.states, getattr(ball, what), strict=True)
            )
            broken = replace(ball, **{what: shifted})
        elif what == "jump_vectors":
            broken = replace(ball, jump_vectors=ball.jump_vectors * (1 + 1e-6))
        else:
            broken = replace(ball, next_state=torch.roll(ball.next_state, 1, dims=1))
        relaxation._balls[basis, relaxation.dtype] = broken
    with pytest.raises(AssertionError):
        check_differences(relaxation)


def test_zero_look_ahead_and_zero_weights_give_bare_jumps():
    network = NETWORKS["hcp"]()
    occupations, carriers = random_states(network, 3, 0)
    relaxation = Relaxation.create(network, lookahead=0).to(torch.float64)
    terms = jump_terms(relaxation, occupations, carriers)
    np.testing.assert_allclose(terms.displacement, terms.bare, atol=1e-14)
    none = jump_terms(None, occupations, carriers, network=network)
    np.testing.assert_array_equal(none.displacement, none.bare)
    np.testing.assert_allclose(
        (-none.displacement.sum(axis=2)), network.vectors[network.basis_of(carriers)], atol=1e-14
    )


def test_chunks_do_not_matter():
    relaxation = random_relaxation(NETWORKS["honeycomb"](), 1)
    occupations, carriers = random_states(relaxation.network, 9, 0)
    whole = jump_terms(relaxation, occupations, carriers)
    parts = jump_terms(relaxation, occupations, carriers, chunk=2)
    np.testing.assert_allclose(parts.displacement, whole.displacement, atol=1e-13)
    np.testing.assert_allclose(parts.tracer, whole.tracer, atol=1e-13)


@pytest.mark.parametrize("name", ["fcc, 32 sites", "honeycomb", "square, 3x3", "interstitial in bcc"])
def test_states_of_the_ball_are_those_the_jumps_reach(name):
    relaxation = random_relaxation(NETWORKS[name](), 1)
    network = relaxation.network
    occupations, carriers = random_states(network, 3, 1)
    cell = network.supercell
    for basis in np.unique(network.basis_of(carriers)):
        rows = np.flatnonzero(network.basis_of(carriers) == basis)
        stencil = relaxation.ball(int(basis)).stencil
        assert stencil.level[0] == 0 and np.all(np.diff(stencil.level) >= 0)
        occ = np.full((len(rows), stencil.n_states, cell.n_sites), -1)
        where = np.full((len(rows), stencil.n_states), -1)
        visited = []
        for m, o, c in stencil.visit(occupations[rows], carriers[rows], levels=2):
            occ[:, m], where[:, m] = o, c
            visited.append(m)
        assert sorted(visited) == list(range(stencil.n_states))  # all of them, none twice
        np.testing.assert_array_equal(where % cell.alloy.n_basis, np.tile(stencil.carrier_basis, (len(rows), 1)))
        codes = stencil.window(occupations[rows], carriers[rows])
        for m in range(stencil.n_states):
            # the environment of every state, read through the labels of the first
            around = relaxation.environment.sites(where[:, m], int(stencil.carrier_basis[m]))
            np.testing.assert_array_equal(
                codes[:, stencil.environment[m]], occ[np.arange(len(rows))[:, None], m, around]
            )
        for m in range(len(stencil.next_state)):
            for k in np.flatnonzero(stencil.next_state[m] >= 0):
                new, there = network.apply(occ[:, m], where[:, m], np.full(len(rows), k))
                np.testing.assert_array_equal(new, occ[:, stencil.next_state[m, k]])
                np.testing.assert_array_equal(there, where[:, stencil.next_state[m, k]])
                moved = network.moving_species(occ[:, m], where[:, m])[:, k]
                np.testing.assert_array_equal(codes[:, stencil.mover[m, k]], moved)


@pytest.mark.parametrize("name", ["fcc, 108 sites", "hcp", "square, 3x3"])
def test_y_is_translation_invariant(name):
    relaxation = random_relaxation(NETWORKS[name](), 1)
    cell = relaxation.network.supercell
    occupations, carriers = random_states(relaxation.network, 2, 2)
    sites = cell.translate(np.arange(cell.n_sites), np.array([1, 2, 1]) * cell.pbc)
    moved = np.empty_like(occupations)
    moved[:, sites] = occupations
    y, shifted = relaxation(occupations, carriers), relaxation(moved, sites[carriers])
    np.testing.assert_allclose(shifted[:, sites], y, atol=1e-12)
