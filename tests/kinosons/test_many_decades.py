"""Exact solutions where rates spread over up to 60 decades, against rational arithmetic."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson import testing
from ase_kinoson.errors import IllConditioned, KinosonError, ModelError
from ase_kinoson.kinosons import exact, star_mesh, wide_rates
from ase_kinoson.kinosons.enclosure import Expansion, Links, accurate_sum
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda, solve_exactly
from ase_kinoson.kinosons.frozen_arrangement import FrozenArrangement
from ase_kinoson.kinosons.site_graph import SiteGraph
from ase_kinoson.validation import parent, tiny_cell
from tests.kinosons.rational_oracle import random_network, rational_lambda, rational_of_field, relative, survey

DECADES = [0, 8, 15, 30, 60]


def species_rates(symbols, decades):
    """Powers of 2 evenly spread over so many decades, the slowest first."""
    slow = np.linspace(-decades, 0, len(symbols)) if len(symbols) > 1 else np.zeros(1)
    return {s: float(2.0 ** round(x * np.log2(10))) for s, x in zip(symbols, slow, strict=True)}


def spaces(counts, decades):
    _, network = tiny_cell(counts)
    source = species_rates(list(counts), decades)
    return StateSpace.enumerate(network, counts=counts), ak.Rates.of(ak.SpeciesRates(source), network), source


def oracle(space, rates):
    """Λ_ab[x, x] of an enumerated cell in units of a cell vector squared, of states with equal weights."""
    w = np.where(space.next_state >= 0, rates(space.occupations, space.carriers), 0.0)
    steps = space.jump_cells()[..., 0]  # along x, one column for each species
    return rational_lambda(space.next_state, w, steps)


def known(counts, decades):
    """The oracle of :func:`spaces`, once for each case."""
    return _known(tuple(counts.items()), decades)


@functools.cache
def _known(counts, decades):
    return oracle(*spaces(dict(counts), decades)[:2])


def along_x(tensors, space):
    return tensors[:, :, 0, 0] * len(space) / space.network.supercell.alloy.cell[0, 0] ** 2


# -- against rational arithmetic --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decades", DECADES)
@pytest.mark.parametrize("counts", [{"Ag": 1, "Cu": 6, "Au": 1}, {"Ag": 2, "Cu": 6}, {"Ag": 8}], ids=str)
def test_every_coefficient_of_enumerated_cells(counts, decades):
    space, rates, _ = spaces(counts, decades)
    found = along_x(exact_lambda(space, rates)[0], space)
    assert relative(found, known(counts, decades)).max() < (1e-9 if decades <= 8 else 1e-12)


@pytest.mark.parametrize("decades", [30, 60])
def test_the_usual_solver_alone_fails(decades, monkeypatch):
    """Broken twin of the test above."""
    space, rates, _ = spaces({"Ag": 1, "Cu": 6, "Au": 1}, decades)
    monkeypatch.setattr(exact, "is_wide", lambda *_: False)
    with np.errstate(all="ignore"):
        found = along_x(exact_lambda(space, rates)[0], space)
    assert not relative(found, known({"Ag": 1, "Cu": 6, "Au": 1}, decades)).max() < 1e-3


@pytest.mark.parametrize("decades", [*DECADES, 90])
def test_random_networks(decades):
    rng = np.random.default_rng(decades)
    for _ in range(15):
        n, n_jumps = int(rng.integers(1, 12)), int(rng.choice([2, 4, 6]))
        next_state, flow, steps = random_network(rng, n, n_jumps, 2, decades)
        links = Links.of(next_state, flow, steps)
        tension = links.tension(star_mesh.eliminate(links))
        found, expected = wide_rates._above(links, tension), rational_lambda(next_state, flow, steps)
        apart = relative(found, expected)
        assert np.diag(apart).max() < 1e-13
        size = np.sqrt(np.outer(np.diag(found), np.diag(found)))
        assert np.all(np.diag(links.gap(tension)) <= 1e-20 * np.diag(found))
        assert np.all((apart < 1e-9) | (np.abs(found) <= 1e-14 * size))


def test_a_survey_of_networks():
    worst, gap = survey(20, seed=3, decades=60)
    assert worst < 1e-13 and gap < 1e-20


def test_few_and_many_neighbours_give_the_same(monkeypatch):
    space, rates, _ = spaces({"Ag": 2, "Cu": 6}, 30)
    values = []
    for few in (0, 4, 100):
        monkeypatch.setattr(star_mesh, "FEW", few)
        values.append(along_x(exact_lambda(space, rates)[0], space))
    np.testing.assert_allclose(values[1:], [values[0]] * 2, rtol=1e-12)


@pytest.mark.parametrize("decades", [8, 30, 60])
def test_tracers(decades):
    """One Ag among Cu: its own cloud is the collective one, and Cu has the tracer factor of a rational solution."""
    counts = {"Ag": 1, "Cu": 7}
    cell, network = tiny_cell(counts)
    source = species_rates(["Ag", "Cu"], decades)
    result = ak.exact_transport(cell, network, ak.SpeciesRates(source), counts=counts)
    three = tiny_cell({"Ag": 1, "Cu": 6, "Au": 1})[1]  # the tagged Cu as a species of its own
    space = StateSpace.enumerate(three, counts={"Ag": 1, "Cu": 6, "Au": 1})
    same = ak.Rates.of(ak.SpeciesRates({**source, "Au": source["Cu"]}), three)
    at = three.supercell.species.index("Au") - 1
    expected = float(oracle(space, same)[at][at] / len(space) * 7)  # states in which any Cu is the tagged one
    own = float(result.averages.tracer[0, result.species.index("Cu"), 0, 0]) / cell.alloy.cell[0, 0] ** 2
    assert own == pytest.approx(expected, rel=1e-11, abs=0)
    ag = result.species.index("Ag")
    assert result.averages.tracer[0, ag, 0, 0] == pytest.approx(result.averages.collective[0, ag, ag, 0, 0], rel=1e-11)


def test_the_case_that_was_silently_wrong():
    """3×3, three species, 30 decades: f(Ag) used to be 1, f(Cu) 1e64, and the sum rule broken."""
    counts = {"Ag": 2, "Cu": 5, "Au": 1}
    cell, network = tiny_cell(counts)
    factors = []
    for n in (10, 30, 60):
        source = {"Ag": 10.0**-n, "Au": 10.0 ** (-n / 2), "Cu": 1.0}
        result = ak.exact_transport(cell, network, ak.SpeciesRates(source), counts=counts, tracers=n == 30)
        w = np.array([source[s] for s in result.species])
        assert testing.sum_rule_defect(result.averages.collective[0], result.averages.collective_bare[0], w) < 1e-13
        factors.append([float(q.value) for q in result.collective_correlation_factor.values()])
        if n == 30:
            assert all(0 < float(q.value) < 1 for q in result.correlation_factor.values())
            assert result.settings["decades_of_flow"] == pytest.approx(30)
    assert np.all((np.array(factors) > 0) & (np.array(factors) <= 1 + 1e-12))
    np.testing.assert_allclose(factors[1], factors[2], rtol=1e-12)  # both are the limit
    np.testing.assert_allclose(factors[0], factors[2], rtol=1e-3)


@pytest.mark.parametrize("decades", [15, 30, 60])
def test_one_carrier_in_a_frozen_arrangement(decades):
    cell = parent("square").supercell((5, 4, 1))
    graph = SiteGraph.of(ak.JumpNetwork.from_supercell(cell))
    rng = np.random.default_rng(decades)
    w = 2.0 ** -rng.integers(0, int(decades * np.log2(10)), size=graph.targets.shape)
    w = np.maximum(w, graph.back(w))
    solved = FrozenArrangement.of_flow(graph, np.full(len(graph), 1.0 / len(graph)), w)
    expected = rational_lambda(graph.targets, w, graph.images[..., :2].astype(np.int64))
    found = solved.matrix[:2, :2] / np.outer(*[np.diag(cell.cell)[:2]] * 2)
    assert np.diag(relative(found, expected)).max() < 1e-12


# -- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [{"Ag": 0.0, "Cu": 1.0, "Au": 1e-30}, {"Ag": 0.0, "Cu": 0.0, "Au": 1e-30}], ids=str)
def test_atoms_that_never_move_among_others_that_hardly_do(rates):
    counts = {"Ag": 3, "Cu": 4, "Au": 1}
    _, network = tiny_cell(counts)
    space = StateSpace.enumerate(network, counts=counts)
    bound = ak.Rates.of(ak.SpeciesRates(rates), network)
    w = bound(space.occupations, space.carriers)
    found, bare, _ = exact_lambda(space, bound)
    expected = [[float(x) for x in row] for row in rational_lambda(space.next_state, w, space.jump_cells()[..., 0])]
    np.testing.assert_allclose(along_x(found, space), expected, rtol=1e-11, atol=1e-28 * w.max())
    names = network.supercell.species[1:]
    still = [a for a, s in enumerate(names) if rates[s] == 0]
    assert np.all(found[still] == 0) and np.all(found[:, still] == 0) and np.all(bare[still] == 0)


def test_no_rate_at_all():
    space, _, _ = spaces({"Ag": 4, "Cu": 4}, 0)
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.0, "Cu": 0.0}), space.network)
    assert np.all(exact_lambda(space, rates)[0] == 0)


def test_one_species_in_one_state():
    space, rates, _ = spaces({"Ag": 8}, 0)
    assert len(space) == 1
    matrix, bare, y = exact_lambda(space, rates)
    np.testing.assert_allclose(matrix, bare, rtol=1e-14)
    assert not y.any()


def hcp_with_barriers(saddles, energies=(0.0, 0.0)):
    """Octahedra and tetrahedra of hcp with barriers of one's choice, eV."""
    from ase_kinoson.validation import hcp_interstitials

    network = hcp_interstitials()
    lengths = np.round(
        [np.linalg.norm(network.vectors[network.jump_class == c][0]) for c in range(network.jump_class.max() + 1)], 3
    )
    order = np.argsort(-lengths)
    values = np.empty(len(lengths))
    values[order] = saddles
    return network, ak.SiteBarriers(energies, tuple(values.tolist()))


@pytest.mark.parametrize(("saddles", "temperature_K"), [((-0.5, 0.1, 0.3), 50.0), ((0.2, 2.0, 0.1), 50.0)])
def test_barriers_below_zero_and_large_ones_at_50_K(saddles, temperature_K):
    network, source = hcp_with_barriers(saddles)
    result = ak.exact_transport(network.supercell, network, source, temperature_K)
    space = StateSpace.enumerate(network)
    rates = ak.Rates.of(source, network, temperature_K=temperature_K)
    flow = space.weights(rates)[:, None] * rates(space.occupations, space.carriers)
    atom = network.supercell.species.index("H") - 1
    expected = rational_lambda(space.next_state, flow, space.jump_cells()[:, :, atom])
    cell = network.supercell.alloy.cell
    tensor = cell.T @ np.array([[float(x) for x in row] for row in expected]) @ cell
    found = result.averages.collective[0, -1, -1]
    np.testing.assert_allclose(np.diag(found), np.diag(tensor), rtol=1e-11, atol=0)
    assert np.all(np.diag(found) > 0)


def test_a_barrier_of_10_eV_at_50_K_closes_a_jump_with_a_warning():
    network, source = hcp_with_barriers((0.1, 10.0, 10.0))
    with pytest.warns(IllConditioned, match="told from 0") as caught:
        result = ak.exact_transport(network.supercell, network, source, 50.0)
    assert caught[0].message.number > 0 and "temperature" in caught[0].message.advice
    closed = ak.exact_transport(*_closed(network, source), 50.0)
    with pytest.warns(IllConditioned, match="told from 0"):
        static = ak.static_transport(all_states(network, source, 50.0), network, source, 50.0)
    np.testing.assert_allclose(static.averages.collective, closed.averages.collective, rtol=1e-12, atol=1e-40)
    np.testing.assert_allclose(result.averages.collective, closed.averages.collective, rtol=1e-12, atol=1e-40)


def _closed(network, source):
    """The same with infinite barriers, which are meant: no warning."""
    saddles = tuple(np.inf if x == 10.0 else x for x in source.saddle_energies)
    return network.supercell, network, ak.SiteBarriers(source.site_energies, saddles)


def all_states(network, source, temperature_K):
    space = StateSpace.enumerate(network)
    weights = space.weights(ak.Rates.of(source, network, temperature_K=temperature_K))
    return space.states(weights, ensemble="equilibrium", temperature_K=temperature_K)


def test_nothing_but_10_eV_at_50_K_is_refused():
    network, source = hcp_with_barriers((10.0, 10.0, 10.0))
    with pytest.raises(KinosonError, match="double precision"):
        ak.exact_transport(network.supercell, network, source, 50.0)
    with (
        pytest.raises(KinosonError, match="double precision"),
        pytest.warns(IllConditioned),
    ):
        ak.static_transport(all_states(network, source, 50.0), network, source, 50.0)
    hot = ak.exact_transport(network.supercell, network, source, 5000.0)
    assert 0 < float(hot.vacancy_diffusivity) < 1e-12


def test_rates_that_are_no_numbers_are_refused():
    space, rates, _ = spaces({"Ag": 4, "Cu": 4}, 0)
    weights = np.full(len(space), np.nan)
    with pytest.raises(KinosonError, match="inf or NaN"):
        exact_lambda(space, rates, weights=weights)


def test_slow_jumps_that_break_detailed_balance_are_refused(monkeypatch):
    space, rates, _ = spaces({"Ag": 1, "Cu": 6, "Au": 1}, 30)
    own = type(rates.source).jump_rates

    def broken(self, occupations, carriers):
        w = own(self, occupations, carriers)
        w[: len(w) // 2][w[: len(w) // 2] < 1e-20] *= 1.01  # far below what the check of fast jumps sees
        return w

    monkeypatch.setattr(type(rates.source), "jump_rates", broken)
    with pytest.raises(ModelError, match="slow jump"):
        exact_lambda(space, rates)


# -- the certificate --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decades", [0, 10, 30])
def test_the_two_bounds_enclose_the_answer_of_any_field(decades):
    rng = np.random.default_rng(1)
    seen = missed = 0
    for _ in range(12):
        next_state, flow, steps = random_network(rng, 9, 4, 1, decades)
        links = Links.of(next_state, flow, steps)
        best = star_mesh.eliminate(links).terms[0]
        truth = rational_lambda(next_state, flow, steps)[0][0]
        for noise in (1e-2, 1.0):
            y = best + noise * rng.standard_normal(best.shape)
            tension = links.tension(Expansion.of(y))
            above = rational_of_field(links.next_state, flow, links.gained[..., 0], y[:, 0])
            gap = float(links.gap(tension)[0, 0])
            assert above >= truth
            assert float(above - truth) <= gap * (1 + 1e-12)
            assert wide_rates._above(links, tension)[0, 0] == pytest.approx(float(above), rel=1e-12, abs=0)
            seen += above > truth
            # broken twin: were the links of the tree ten times as strong, the bounds would be too near to each other
            strong = replace(links, tree=replace(links.tree, flow=10.0 * links.tree.flow))
            missed += float(above - truth) > float(strong.gap(tension)[0, 0])
    assert seen > 12
    assert missed > 0


def test_a_wrong_solution_is_refused_with_its_number(monkeypatch):
    """Were the elimination not there, the usual solver's answer must not come out."""
    space, rates, _ = spaces({"Ag": 1, "Cu": 6, "Au": 1}, 30)
    monkeypatch.setattr(wide_rates, "eliminate", lambda links: None)
    monkeypatch.setattr(wide_rates, "ROUNDS", 1)
    with pytest.raises(KinosonError, match=r"30 decades.*differ by .*expected less than 1e-09"):
        exact_lambda(space, rates)


def test_many_states_with_many_neighbours_are_not_eliminated(monkeypatch):
    space, rates, _ = spaces({"Ag": 1, "Cu": 6, "Au": 1}, 30)
    monkeypatch.setattr(star_mesh, "LARGEST", 5)
    monkeypatch.setattr(star_mesh, "FEW", 4)
    monkeypatch.setattr(wide_rates, "ROUNDS", 1)
    with pytest.raises(KinosonError, match="30 decades"):
        exact_lambda(space, rates)


def test_narrow_rates_take_the_usual_way(monkeypatch):
    space, rates, _ = spaces({"Ag": 2, "Cu": 6}, 7)
    monkeypatch.setattr(exact, "enclose", None)  # not called
    assert solve_exactly(space, rates).enclosed is None


def test_bounds_decide_between_the_solvers(monkeypatch):
    """Nine decades: the usual solver, if its bounds meet; else the elimination."""
    space, rates, _ = spaces({"Ag": 1, "Cu": 6, "Au": 1}, 9)
    with monkeypatch.context() as m:
        m.setattr(wide_rates, "eliminate", None)  # not called
        usual = along_x(exact_lambda(space, rates)[0], space)
    monkeypatch.setattr(wide_rates, "HOPELESS", 0.0)
    careful = along_x(exact_lambda(space, rates)[0], space)
    np.testing.assert_allclose(usual, careful, rtol=1e-8)
    assert relative(careful, oracle(space, rates)).max() < 1e-12


def test_what_the_usual_solver_leaves_over_is_solved_for_again(monkeypatch):
    """1365 states, 9 decades: factors of a matrix in which slow rates are lost suffice, if used more than once."""
    counts = {"Ag": 12, "Cu": 2, "Ni": 1}
    network = ak.JumpNetwork.from_supercell(parent("square", {"Ag": 0.8, "Cu": 0.1, "Ni": 0.1}).supercell((4, 4, 1)))
    space = StateSpace.enumerate(network, counts=counts)
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 1e-9, "Ni": 1e-5}), network)
    careful = wide_rates.eliminate
    monkeypatch.setattr(wide_rates, "eliminate", None)  # not called
    found = exact_lambda(space, rates)[0]
    called = []
    monkeypatch.setattr(wide_rates, "eliminate", lambda links: called.append(1) or careful(links))
    monkeypatch.setattr(wide_rates, "ROUNDS", 1)  # broken twin: once is not enough
    expected = exact_lambda(space, rates)[0]
    assert called == [1]
    np.testing.assert_allclose(*(np.einsum("abxx->ab", x) for x in (found, expected)), rtol=1e-8)


def test_bounds_that_are_no_numbers_are_refused(monkeypatch):
    space, rates, _ = spaces({"Ag": 1, "Cu": 6, "Au": 1}, 30)
    monkeypatch.setattr(Links, "gap", lambda self, tension: np.full((tension.shape[-1],) * 2, np.nan))
    with pytest.raises(KinosonError, match="30 decades"):
        exact_lambda(space, rates)


def test_sums_that_cancel():
    parts = [np.array([1.0]), np.array([1e-30]), np.array([-1.0]), np.array([1e-55])]
    assert accurate_sum(parts)[0] == pytest.approx(1e-30, rel=1e-15, abs=0)
    assert sum(parts)[0] != pytest.approx(1e-30, rel=1e-15, abs=0)  # broken twin
    found = Expansion.sum(np.array([[1.0], [1e-30], [1e-55]])).terms[:, 0]
    assert found.tolist() == [1.0, 1e-30, 1e-55, 0.0]
    grown = Expansion.of(np.zeros(1))
    for x in (1e-30, -1.0, 1.0 + 2.0**-52, -(2.0**-52), 1e-60):
        grown = grown.plus(np.array([x]))
    assert accurate_sum([*grown.terms]) == pytest.approx([1e-30], rel=1e-15, abs=0)


def test_no_warning_in_ordinary_cases():
    space, rates, _ = spaces({"Ag": 2, "Cu": 6}, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact_lambda(space, rates)


@pytest.mark.parametrize(
    ("lattice", "size", "counts"),
    [
        ("honeycomb", (2, 2, 1), {"Ag": 3, "Cu": 4}),
        ("fcc", (3, 3, 3), {"Ag": 1, "Cu": 24, "Au": 1}),
        ("bcc", (3, 3, 3), {"Ag": 2, "Cu": 24}),
        ("diamond", (2, 2, 2), {"Ag": 2, "Cu": 13}),
    ],
)
def test_both_ways_agree_on_every_lattice(lattice, size, counts, monkeypatch):
    """Several basis sites, jumps that lead to the same state twice, and jumps that lead back to where they began."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ak.KinosonWarning)  # the cell is small on purpose
        network = ak.JumpNetwork.from_supercell(
            parent(lattice, dict.fromkeys(counts, 1 / len(counts))).supercell(size, of="primitive")
        )
    space = StateSpace.enumerate(network, counts=counts)
    rates = ak.Rates.of(
        ak.SpeciesRates({s: w for s, w in {"Ag": 0.01, "Cu": 1.0, "Au": 0.2}.items() if s in counts}), network
    )
    usual = solve_exactly(space, rates)
    monkeypatch.setattr(wide_rates, "NARROW", -1.0)
    monkeypatch.setattr(wide_rates, "HOPELESS", -1.0)
    monkeypatch.setattr(wide_rates, "QUICK", 10**9)
    careful = solve_exactly(space, rates)
    assert usual.enclosed is None and careful.enclosed is not None
    np.testing.assert_allclose(careful.matrix, usual.matrix, rtol=1e-10, atol=1e-12 * np.abs(usual.bare).max())
    # the y that is handed out gives the tension it came with
    own = replace(careful, enclosed=None)
    bare = exact.bare_displacements(network, space.occupations, space.carriers)
    moves = (space.next_state >= 0)[..., None, None]
    left = np.where(moves, own.displacement(space, bare) - careful.displacement(space, bare), 0.0)
    assert np.abs(left).max() < 1e-9
