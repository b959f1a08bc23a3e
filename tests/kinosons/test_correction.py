"""From bounds to coefficients: corrected values, ratio estimates, the first rung on reference barriers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import units

import ase_kinoson as ak
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.errors import BarrierError, KinosonError, KinosonWarning, ModelError, StatesError
from ase_kinoson.kinetics.neighbors import draw_neighbors
from ase_kinoson.kinosons import moments as moments_module
from ase_kinoson.kinosons import transport as transport_module
from ase_kinoson.kinosons.correction import correct
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.kinosons.first_rung import first_rung
from ase_kinoson.kinosons.functional import JumpTerms, jump_terms
from ase_kinoson.kinosons.ladder import _joint, _joint_change
from ase_kinoson.kinosons.residuals import Residuals, residuals
from ase_kinoson.validation import hcp_interstitials, tiny_cell

T = 600.0
GAS = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})


def quiet(function, *args, **options):
    """Call without warnings about loose bounds and small samples, which are the subject here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        return function(*args, **options)


def equilibrium(states: ak.States) -> ak.States:
    """Random states of a gas are its equilibrium."""
    return replace(states, ensemble="equilibrium")


def numbers(result) -> dict[str, tuple[float, float]]:
    """Diagonal coefficients with errors by name."""
    q = result.vacancy_diffusivity
    found = {"vacancy": (float(q), float(q.error))}
    for i, s in enumerate(result.species):
        found[s] = (float(result.lambda_matrix.value[i, i]), float(result.lambda_matrix.error[i, i]))
    found |= {f"tracer {s}": (float(q), float(q.error)) for s, q in result.tracer_diffusivity.items()}
    return found


@pytest.fixture(scope="module")
def gas_exact(tiny):
    return ak.exact_transport(*tiny, GAS)


@pytest.fixture(scope="module")
def gas_bound(tiny):
    cell, network = tiny
    return quiet(ak.transport, equilibrium(ak.sample_states(cell, 1000, seed=3)), network, GAS)


@pytest.fixture(scope="module")
def pair_states(tiny, pair_model):
    cell, _ = tiny
    return ak.sample_states(
        cell, 1000, method="monte-carlo", model=pair_model, temperature_K=T, seed=5, n_chains=500, sweeps=30
    )


@pytest.fixture(scope="module")
def pair_exact(tiny, pair_model):
    return ak.exact_transport(*tiny, pair_model, T)


def agrees(ours, exact, *, largest_error: float) -> None:
    theirs = numbers(exact)
    assert set(numbers(ours)) == set(theirs)
    for name, (value, error) in numbers(ours).items():
        assert abs(value - theirs[name][0]) < 3 * error, name
        assert error < largest_error * theirs[name][0], name


def test_corrected_gas_agrees_with_exact(gas_bound, gas_exact):
    ours = quiet(correct, gas_bound, GAS, n_steps=64, n_trajectories=800, seed=1, n_resamples=100)
    agrees(ours, gas_exact, largest_error=0.03)
    assert ours.vacancy_diffusivity.kind == ours.lambda_matrix.kind == "corrected"
    assert all(q.kind == "corrected" for q in ours.tracer_diffusivity.values())
    off, error = ours.lambda_matrix.value[0, 1], ours.lambda_matrix.error[0, 1]
    assert abs(off - gas_exact.lambda_matrix.value[0, 1]) < 3 * error < 0.3 * off
    assert ours.diagnosis.looseness["vacancy"].value == pytest.approx(0.55 / 0.3718189, rel=0.05)
    assert ours.diagnosis.surrogate == {}
    assert 0 <= ours.tail("vacancy") < 0.05
    assert ours.as_dict()["ladder"]["vacancy"]["chosen"] == ours.ladder.rungs["vacancy"].chosen > 0
    # broken twin: the bound does not agree
    with pytest.raises(AssertionError):
        agrees(gas_bound, gas_exact, largest_error=0.03)


def test_walkers_go_on_where_short_trajectories_see_no_end(tiny):
    cell, network = tiny
    gas = ak.SpeciesRates({"Ag": 1e-3, "Cu": 1.0})
    exact = ak.exact_transport(cell, network, gas)
    bound = quiet(ak.transport, equilibrium(ak.sample_states(cell, 1000, seed=3)), network, gas)
    options = dict(n_steps=6, n_trajectories=1024, seed=1, n_resamples=100)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        short = correct(bound, gas, **options)
    assert any("long_jumps=" in str(w.message) for w in said)
    ours = quiet(correct, bound, gas, long_jumps=8192, **options)
    assert ours.ladder.n_continued == 1024 * 8192
    assert short.ladder.n_continued == 0
    agrees(ours, exact, largest_error=0.06)
    # broken twin: the short ladder alone does not know better than this
    with pytest.raises(AssertionError):
        agrees(short, exact, largest_error=0.06)
    assert ours.tail("Cu") == 0.0 < short.tail("Cu")
    # a ladder that is at its end needs no walkers
    calm = quiet(ak.transport, bound.states, network, GAS)
    settled = quiet(correct, calm, GAS, n_steps=128, n_trajectories=2000, tracers=False, long_jumps=128, seed=1)
    assert settled.ladder.n_continued == 0
    with pytest.raises(KinosonError, match="long_jumps=-1"):
        correct(bound, gas, long_jumps=-1)


def test_corrected_model_with_energies_agrees_with_exact(tiny, pair_model, pair_states, pair_exact):
    bound = quiet(ak.transport, pair_states, tiny[1], pair_model, None, T)
    ours = quiet(correct, bound, pair_model, n_steps=32, n_trajectories=1000, seed=2, n_resamples=100)
    agrees(ours, pair_exact, largest_error=0.05)
    assert ours.temperature_K == T
    with pytest.raises(AssertionError):
        agrees(bound, pair_exact, largest_error=0.05)
    # broken twin: trajectories from random states are not those of equilibrium
    flat = replace(pair_states, **_random_rows(tiny[0], len(pair_states)))
    wrong = quiet(correct, bound, pair_model, n_steps=8, states=flat, seed=2, n_resamples=100, tracers=False)
    right = quiet(correct, bound, pair_model, n_steps=8, seed=2, n_resamples=100, tracers=False)
    bare = numbers(quiet(ak.transport, pair_states, tiny[1], pair_model, None, T))["vacancy"]
    ours_bare = [np.einsum("abxx->", x.ladder.bare[0]) / 2e20 for x in (wrong, right)]
    assert abs(ours_bare[0] - bare[0]) > 3 * bare[1] > abs(ours_bare[1] - bare[0])


def _random_rows(cell, n):
    drawn = ak.sample_states(cell, n, seed=11)
    return {"occupations": drawn.occupations, "carriers": drawn.carriers, "groups": np.arange(n)}


def test_interstitial_in_hcp_has_its_tensor():
    """Pairs of close tetrahedral sites flicker, which must not count along c."""
    network, thermal = hcp_interstitials(), 1.0 / units.kB
    saddles = {2.4495: 4.0, 1.8371: 3.0, 1.2247: 1.5}
    by_class = tuple(saddles[min(saddles, key=lambda x: abs(x - length))] for length in network.lengths)
    model = ak.SiteBarriers((0.0, 1.0), by_class)
    exact = ak.exact_transport(network.supercell, network, model, thermal, attempt_frequency=1.0)
    tensor = np.diag(np.asarray(exact.vacancy_diffusivity_tensor.value))
    weights = exact.states.weights
    rows = np.random.default_rng(2).choice(len(weights), size=1200, p=weights)
    states = replace(exact.states[rows], weights=np.full(1200, 1 / 1200), groups=np.arange(1200), source="drawn")
    bound = quiet(ak.transport, states, network, model, None, thermal, attempt_frequency=1.0)
    ours = quiet(correct, bound, model, n_steps=32, n_trajectories=1200, states=states, seed=3, n_resamples=100)

    def deviations(result):
        q = result.vacancy_diffusivity_tensor
        return (np.diag(np.asarray(q.value)) - tensor) / np.diag(np.asarray(q.error))

    assert np.abs(deviations(ours)).max() < 3
    q = ours.vacancy_diffusivity_tensor
    value, error = np.asarray(q.value), np.asarray(q.error)
    assert np.all(np.diag(error) < 0.06 * tensor)
    off = ~np.eye(3, dtype=bool)
    assert np.all(np.abs(value[off]) <= 4 * error[off] + 1e-9 * tensor.max())
    assert set(ours.ladder.rungs) == {"carrier", "H", "tracer H"}
    assert ours.vacancy_diffusivity.kind == "corrected"
    # broken twin: uncorrelated jumps are far off along c
    assert deviations(bound)[2] > 3


@pytest.fixture(scope="module")
def reference(tiny):
    """Another alloy than the pair model: other energies and other activations."""
    energy = ak.PairEnergy.from_interactions(tiny[0], {("Ag", "Cu"): -0.04, ("Cu", "X"): -0.04})
    return ak.PairBarriers(energy, {"Ag": 0.62, "Cu": 0.49})


def test_ratio_estimate_is_closer_than_the_bound(tiny, pair_model, pair_states, reference):
    cell, network = tiny
    exact = numbers(ak.exact_transport(cell, network, reference, T))
    weighted = quiet(ak.reweight, pair_states, reference.energy.energies(pair_states.occupations), T)
    bound = quiet(ak.transport, weighted, network, reference, None, T)
    options = {"n_steps": 24, "n_trajectories": 800, "seed": 4}
    paired = quiet(correct, bound, pair_model, **options)
    lone = replace(weighted, model_energies=None, report={})
    unpaired = quiet(correct, quiet(ak.transport, lone, network, reference, None, T), pair_model, **options)
    loose, close, far = numbers(bound), numbers(paired), numbers(unpaired)
    for name, (value, error) in close.items():
        assert abs(value - exact[name][0]) < abs(loose[name][0] - exact[name][0]), name
        assert abs(value - exact[name][0]) < 0.3 * abs(loose[name][0] - exact[name][0]) + 3 * error, name
    assert close["vacancy"][1] < far["vacancy"][1]
    assert close["Cu"][1] < far["Cu"][1]
    for result in (paired, unpaired):
        assert result.vacancy_diffusivity.kind == "ratio estimate"
        assert set(result.diagnosis.surrogate) == {"vacancy", "Ag", "Cu"}
    # what the model gets wrong: both bounds on the states as they were drawn, and weighted to the reference
    of_model = quiet(ak.transport, pair_states, network, pair_model, None, T).vacancy_diffusivity
    share = float(bound.vacancy_diffusivity) / float(of_model)
    assert float(paired.diagnosis.surrogate["vacancy"]) == pytest.approx(share, rel=1e-9)
    bare, own = (np.einsum("aaxx->a", x.averages.collective_bare[0]) for x in (paired, bound))
    np.testing.assert_allclose(bare, own, rtol=0.05)
    # broken twin: the value of the model instead of its gain
    model = numbers(ak.exact_transport(cell, network, pair_model, T))
    assert any(abs(model[name][0] - exact[name][0]) > 3 * close[name][1] for name in model)


def test_gas_as_a_model_of_another_gas(tiny, gas_bound, gas_exact):
    ours = quiet(correct, gas_bound, ak.SpeciesRates({"Ag": 0.13, "Cu": 0.9}), n_steps=24, seed=1, tracers=False)
    exact, loose = numbers(gas_exact), numbers(gas_bound)
    for name in ("vacancy", "Ag", "Cu"):
        value, error = numbers(ours)[name]
        assert abs(value - exact[name][0]) < 0.5 * abs(loose[name][0] - exact[name][0]) + 2 * error
    assert ours.vacancy_diffusivity.kind == "ratio estimate"
    assert ours.tracer_diffusivity == {}


def test_states_of_energies_are_no_equilibrium_of_a_gas(tiny, pair_model, pair_states):
    """A gas samples states of its own; those of the model would make its ladder wrong."""
    bound = quiet(ak.transport, pair_states, tiny[1], pair_model, None, T)
    ours = quiet(correct, bound, GAS, n_steps=4, n_trajectories=1000, tracers=False)
    bare = np.einsum("rabxx->r", ours.ladder.bare) / 2
    assert abs(bare[0] - 0.55) < 3.5 * bare[1:].std()
    # broken twin: made to start from the states of the model
    wrong = quiet(correct, bound, GAS, n_steps=4, n_trajectories=1000, states=pair_states, tracers=False)
    bare = np.einsum("rabxx->r", wrong.ladder.bare) / 2
    assert abs(bare[0] - 0.55) > 3.5 * bare[1:].std()


# -- the first rung ------------------------------------------------------------------------------------------------


def exact_first_rung(network, model, temperature_K=None) -> np.ndarray:
    """Λ_ab after one rung with exact moments and y = 0, Å²/s."""
    space = StateSpace.enumerate(network)
    rates = ak.Rates.of(model, network, temperature_K=temperature_K)
    found = residuals(None, network, rates, space.occupations, space.carriers)
    weight = space.weights(rates) * found.escape
    time = 1 / weight.sum()
    after = np.einsum("nk,nkax->nax", found.probability, found.drift[space.next_state])
    c = np.array([np.einsum("n,nax,nby->abxy", weight * time, found.drift, x) for x in (found.drift, after)])[None]
    theta = _joint(np.einsum("rmabxx->rmab", c), [(0, 1)])
    square = np.einsum("n,nabxy->abxy", weight * time, found.square)
    return np.einsum("abxx->ab", square - _joint_change(c, [(0, 1)], theta)[0, 0]) / 2 / time


@pytest.fixture(scope="module")
def held_out(tiny):
    return equilibrium(ak.sample_states(tiny[0], 3000, seed=9))


def gap(result, exact) -> float:
    """Largest deviation of the diagonal and the vacancy in standard errors."""
    d = (np.diag(result.lambda_matrix.value) - np.diag(exact)) / np.diag(result.lambda_matrix.error)
    q = result.vacancy_diffusivity
    return float(np.abs([*d, (float(q) * 1e20 - exact.sum()) / (float(q.error) * 1e20)]).max())


def test_first_rung_is_unbiased(tiny, held_out, gas_exact):
    _, network = tiny
    exact = exact_first_rung(network, GAS)
    ours = quiet(first_rung, held_out, draw_neighbors(held_out, network, GAS, seed=1), network, GAS)
    assert gap(ours, exact) < 3.0
    assert float(ours.vacancy_diffusivity) * 1e20 > 0.3718189  # a bound
    assert ours.vacancy_diffusivity.kind == "bound"
    assert ours.lambda_matrix.kind.startswith("bound (diagonal)")
    # broken twin: without the rung
    assert gap(ours, np.diag([0.05, 0.5])) > 3.0
    # neighbours drawn with other probabilities are weighted back
    other = draw_neighbors(held_out, network, ak.SpeciesRates({"Ag": 0.3, "Cu": 1.0}), seed=1)
    assert gap(quiet(first_rung, held_out, other, network, GAS), exact) < 3.0
    # broken twin: taken for neighbours that the rates themselves drew
    silent = replace(other, report={"jumps": other.report["jumps"]})
    assert gap(quiet(first_rung, held_out, silent, network, GAS), exact) > 3.0


def test_first_rung_with_energies(tiny, pair_model, pair_states):
    _, network = tiny
    neighbors = draw_neighbors(pair_states, network, pair_model, temperature_K=T, seed=3)
    ours = quiet(first_rung, pair_states, neighbors, network, pair_model, None, T)
    assert gap(ours, exact_first_rung(network, pair_model, T)) < 3.0
    assert ours.vacancy_diffusivity.kind == "bound"
    assert len(ours.ladder.rungs["vacancy"].value) == 2


def test_wrong_neighbors_are_refused(tiny, held_out):
    _, network = tiny
    states = held_out[:40]
    neighbors = draw_neighbors(states, network, GAS, seed=1)
    order = np.roll(np.arange(40), 1)
    report = neighbors.report
    cases = [
        (neighbors[order], "not the states after the jumps"),
        (replace(neighbors, report={}), "without the jumps"),
        (neighbors[:39], "40 states and 39 neighbours"),
        (draw_neighbors(held_out[:60], network, GAS, seed=1)[:40], "60 jumps in the report of 40"),
        (replace(neighbors, report={**report, "jumps": [9] * 40}), "jumps 9 to 9"),
        (replace(neighbors, report={**report, "probabilities": [0.0] * 40}), "probabilities of jumps"),
    ]
    for wrong, sentence in cases:
        with pytest.raises(StatesError, match=sentence) as caught:
            quiet(first_rung, states, wrong, network, GAS)
        assert "expected" in str(caught.value)
    with pytest.raises(KinosonError, match="8 independent groups"):
        quiet(first_rung, states[:8], draw_neighbors(states[:8], network, GAS, seed=1), network, GAS)
    other = network.with_supercell(network.supercell.alloy.supercell((4, 3, 1)))
    with pytest.raises(StatesError, match="supercell"):
        draw_neighbors(states, other, GAS)


# -- coverage ------------------------------------------------------------------------------------------------------


class Table:
    """Residuals and jump terms of all 630 states of the tiny cell, evaluated once and looked up."""

    def __init__(self, network, rates, relaxation):
        self.network, space = network, StateSpace.enumerate(network)
        cell = network.supercell
        occ, carriers = [], []
        for site in range(cell.n_sites):
            to = cell.translate(np.arange(cell.n_sites), cell.cell_coordinates(site))
            image = np.empty_like(space.occupations)
            image[:, to] = space.occupations
            occ.append(image)
            carriers.append(to[space.carriers])
        occ, carriers = np.concatenate(occ), np.concatenate(carriers)
        self.place = {row.tobytes(): i for i, row in enumerate(occ)}
        self.residuals = residuals(relaxation, network, rates, occ, carriers)
        self.terms = jump_terms(relaxation, occ, carriers, network=network)

    def _take(self, table, occupations):
        rows = np.array([self.place[row.tobytes()] for row in occupations])
        return {name: values[rows] for name, values in vars(table).items()}

    def look_up_residuals(self, relaxation, network, rates, occupations, carriers):
        return Residuals(**self._take(self.residuals, occupations))

    def look_up_terms(self, relaxation, occupations, carriers, *, network):
        return JumpTerms(**self._take(self.terms, occupations))


def test_intervals_cover_the_exact_value(tiny, gas_exact, monkeypatch):
    """Of 40 repeats, the 68 % interval should hold the exact value in 22 to 32."""
    cell, network = tiny
    rates = ak.Rates.of(GAS, network)
    y = ak.Relaxation.create(network, rates=rates, lookahead=1)
    table = Table(network, rates, y)
    monkeypatch.setattr(moments_module, "residuals", table.look_up_residuals)
    monkeypatch.setattr(transport_module, "jump_terms", table.look_up_terms)
    names = ("vacancy", "Ag", "Cu")
    exact = numbers(gas_exact)
    ours, loose = [], []
    for seed in range(40):
        states = ak.sample_states(cell, 300, seed=100 + seed)
        bound = quiet(ak.transport, states, network, GAS, y, seed=seed, n_resamples=100)
        options = {"n_steps": 24, "n_trajectories": 300, "tracers": False}
        made = quiet(correct, bound, GAS, seed=seed, **options)
        for found, result in ((ours, made), (loose, bound)):
            found.append([(numbers(result)[n][0] - exact[n][0], numbers(result)[n][1]) for n in names])
    gap, error = np.moveaxis(np.array(ours), 2, 0)
    covered = np.mean(np.abs(gap) < error, axis=0)
    assert np.all((covered >= 0.55) & (covered <= 0.80)), covered
    assert np.abs(gap / error).max() < 4.5
    assert np.abs(np.mean(gap / error, axis=0)).max() < 0.5
    gap_loose, error_loose = np.moveaxis(np.array(loose), 2, 0)
    assert (gap_loose / error_loose).min() > -3.5
    # broken twins: errors halved; the bound taken for the value
    assert np.all(np.mean(np.abs(gap) < 0.33 * error, axis=0) < 0.55)
    assert np.any(np.mean(np.abs(gap_loose) < error_loose, axis=0) < 0.55)


# -- bad input -----------------------------------------------------------------------------------------------------


def test_bad_input_is_one_sentence(tiny, gas_bound, pair_model, pair_states):
    cell, network = tiny
    other_cell, other = tiny_cell({"Ag": 6, "Cu": 2})
    larger = cell.alloy.supercell((4, 3, 1))
    few = quiet(ak.transport, gas_bound.states[:5], network, GAS)
    pair_bound = quiet(ak.transport, pair_states[:50], network, pair_model, None, T)
    elsewhere = ak.SiteBarriers((0.0, 1.0), (3.0, 1.5, 1.25)).bind(hcp_interstitials())
    cases = [
        (gas_bound, GAS, {"n_steps": 0}, KinosonError, "n_steps=0"),
        (gas_bound, GAS, {"n_trajectories": -3}, KinosonError, "n_trajectories=-3"),
        (gas_bound, GAS, {"n_trajectories": 0}, KinosonError, "n_trajectories=0"),
        (few, GAS, {"n_steps": 2, "n_trajectories": 20}, KinosonError, "5 independent groups"),
        (replace(gas_bound, states=None), GAS, {}, KinosonError, "without its states"),
        (gas_bound, elsewhere, {}, ModelError, "other jumps"),
        (gas_bound, ak.SpeciesRates({"Ag": 1.0, "Pd": 1.0}), {}, KinosonError, "mobile species"),
        (gas_bound, object(), {}, ModelError, "source of barriers"),
        (gas_bound, GAS, {"states": ak.sample_states(larger, 12, seed=0)}, StatesError, "9 sites"),
        (gas_bound, ak.SpeciesRates({"Ag": 0.0, "Cu": 1.0}), {}, StatesError, "no jump leaves"),
        (replace(pair_bound, temperature_K=0.0), pair_model, {}, KinosonError, "temperature_K"),
        (replace(pair_bound, temperature_K=-300.0), pair_model, {}, KinosonError, "temperature_K"),
        (pair_bound, pair_model, {"states": ak.sample_states(cell, 20, seed=0)}, StatesError, "random states"),
        (pair_bound, _Broken(network), {"states": pair_states[:50]}, BarrierError, "NaN"),
    ]
    assert other_cell != cell and other.supercell != network.supercell
    for result, model, options, error, sentence in cases:
        with pytest.raises(error, match=sentence) as caught:
            quiet(correct, result, model, **options)
        assert "expected" in str(caught.value), sentence
    with pytest.raises(BarrierError, match="NaN"):
        draw_neighbors(pair_states, network, _Broken(network), temperature_K=T)
    with pytest.raises(KinosonError, match="temperature_K"):
        draw_neighbors(pair_states, network, pair_model, temperature_K=0.0)
    with pytest.raises(StatesError, match="no jump leaves"):
        draw_neighbors(gas_bound.states, network, ak.SpeciesRates({"Ag": 0.0, "Cu": 1.0}))


class _Broken:
    """A barrier source that fails."""

    def __init__(self, network):
        self.network = network

    def jump_energies(self, occupations, carriers):
        shape = (len(carriers), self.network.n_jumps)
        return JumpEnergies(np.full(shape, np.nan), np.zeros(shape))


def test_model_states_of_another_alloy(tiny, pair_model):
    """Sampled from the composition of the alloy, they would correct coefficients of other atoms."""
    cell, network = tiny
    states = ak.sample_states(cell, 40, seed=3)
    other = states.occupations.copy()
    for row in other:
        row[np.flatnonzero(row == cell.species.index("Ag"))[0]] = cell.species.index("Cu")
    about = {"ensemble": "equilibrium", "temperature_K": 600.0}
    for occupations, refused in ((other, True), (states.occupations, False)):
        drawn = ak.States.from_occupations(cell, occupations, carriers=states.carriers, **about)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = ak.transport(drawn, network, pair_model, None, 600.0)
            if not refused:
                assert ak.correct(result, pair_model, n_steps=2, n_trajectories=40).vacancy_diffusivity.value > 0
                continue
            with pytest.raises(StatesError, match="expected one composition; pass"):
                ak.correct(result, pair_model, n_steps=2, n_trajectories=40)
