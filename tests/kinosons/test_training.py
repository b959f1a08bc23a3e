"""What a relaxation is trained on and what it looks ahead to, against explicit sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ase_kinoson as ak
from ase_kinoson.kinetics.monte_carlo import MonteCarlo
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons import training
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.validation import PARENTS, parent

GAS = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})


def train(states: ak.States, network: ak.JumpNetwork, **options) -> ak.Relaxation:
    return ak.train_relaxation(
        states.supercell, network, GAS, states=states, hidden=4, n_blocks=1, batch_size=8, seed=7, **options
    )


def with_rows(states: ak.States, rows: NDArray, other: ak.States) -> ak.States:
    """The same states with some of them replaced; weights and groups stay."""
    occupations, carriers = states.occupations.copy(), states.carriers.copy()
    occupations[rows], carriers[rows] = other.occupations[rows], other.carriers[rows]
    return ak.States.from_occupations(
        states.supercell,
        occupations,
        carriers=carriers,
        weights=states.weights,
        groups=states.groups,
        ensemble=states.ensemble,
    )


def lopsided(cell: ak.Supercell, n: int) -> ak.States:
    """Copies of one state with a single Cu beside the vacancy, so that nearly all jumps go one way and back."""
    row = [cell.species.index(s) for s in ("Cu", "Cu", "Cu", "Ag", "X", "Ag", "Cu", "Ag", "Ag")]
    return ak.States.from_occupations(cell, np.tile(row, (n, 1)))


def test_states_of_weight_zero_have_no_say(tiny):
    cell, network = tiny
    states = sample_states(cell, 60, seed=1)
    weights = np.random.default_rng(2).uniform(0.2, 3.0, size=60)
    zero = np.arange(60) % 3 == 0
    weights[zero] = 0.0
    states = states.with_weights(weights)
    swapped = with_rows(states, np.flatnonzero(zero), lopsided(cell, 60))
    first, second = train(states, network, epochs=2), train(swapped, network, epochs=2)
    np.testing.assert_allclose(first.report["history"], second.report["history"], rtol=1e-6)
    for a, b in zip(first.field.parameters(), second.field.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-6)
    # broken twin: the same states with a weight change the bound
    even = np.full(60, 1.0)
    pair = [train(s.with_weights(even), network, epochs=0).report["history"][0] for s in (states, swapped)]
    assert abs(pair[0] - pair[1]) > 1e-2


def buckled() -> ak.Supercell:
    """Honeycomb whose two sites lie 0.8 Å apart in height."""
    atoms = PARENTS["honeycomb"]()
    atoms.positions[1, 2] += 0.8
    return ak.Alloy.from_atoms(atoms, {"C": {"Ag": 0.5, "Cu": 0.5}}).supercell((3, 3, 1))


@pytest.mark.parametrize("lattice", ["square", "honeycomb", "buckled honeycomb"])
def test_the_loss_is_the_mean_of_all_relative_bounds(lattice):
    cell = buckled() if lattice == "buckled honeycomb" else parent(lattice).supercell((3, 3, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    weights = np.random.default_rng(5).uniform(0.1, 4.0, size=40)
    states = sample_states(cell, 40, seed=4).with_weights(weights)
    y = ak.Relaxation.create(network, rates=ak.Rates.of(GAS, network), lookahead=1, hidden=4)
    generator = torch.Generator().manual_seed(3)
    for p in y.field.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2
    y = y.to(torch.float64)
    loss, named = Objective.of(y, states).evaluate(y)

    def bounds(of: ak.States) -> float:
        result = ak.transport(of, network, GAS, y, n_resamples=2)
        factors = [*result.collective_correlation_factor.values(), *result.correlation_factor.values()]
        assert len(factors) == 5
        return float(np.mean([float(q) for q in factors]))

    assert loss == pytest.approx(bounds(states), rel=1e-9)
    assert loss == pytest.approx(np.mean(list(named.values())), rel=1e-12)
    assert abs(loss - bounds(states.with_weights(np.ones(40)))) > 1e-3


def test_validation_states_are_never_trained_on(tiny, monkeypatch):
    cell, network = tiny
    groups = np.repeat(100 + 7 * np.arange(10), 4)
    made = sample_states(cell, 40, seed=3)
    states = ak.States.from_occupations(cell, made.occupations, carriers=made.carriers, groups=groups)
    masks, prepared = [], []
    held_out, prepare = training._held_out, Objective.of

    def spy_mask(*args, **kwargs):
        masks.append(held_out(*args, **kwargs))
        return masks[-1]

    def spy_states(relaxation, part, *args, **kwargs):
        prepared.append(part)
        return prepare(relaxation, part, *args, **kwargs)

    monkeypatch.setattr(training, "_held_out", spy_mask)
    monkeypatch.setattr(training.Objective, "of", staticmethod(spy_states))
    first = train(states, network, epochs=0, closure_epochs=0)
    (held,) = masks
    fitted, checked = prepared
    assert (len(fitted), len(checked)) == (32, 8)
    assert (first.report["n_training_states"], first.report["n_validation_states"]) == (32, 8)
    assert not set(fitted.groups.tolist()) & set(checked.groups.tolist())
    assert len(set(checked.groups.tolist())) == 2
    # other validation states judge the steps differently and change none of them
    assert first.report["history"][1] < first.report["history"][0]
    other = with_rows(states, np.flatnonzero(held), sample_states(cell, 40, seed=11))
    second = train(other, network, epochs=0, closure_epochs=0)
    assert second.report["history"][1] < second.report["history"][0]
    assert first.report["history"] != second.report["history"]
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())
    # broken twin: other training states do
    third = train(
        with_rows(states, np.flatnonzero(~held), sample_states(cell, 40, seed=11)), network, epochs=0, closure_epochs=0
    )
    assert third.report["history"][1] < third.report["history"][0]
    pairs = zip(first.parameters(), third.parameters(), strict=True)
    assert max(float((a - b).detach().abs().max()) for a, b in pairs) > 1e-5


def explicit_sum(
    network: ak.JumpNetwork,
    occupation: NDArray,
    carrier: int,
    steps: int,
    rim: Callable[[NDArray, int], NDArray],
) -> NDArray[np.float64]:
    """y of every atom, at the site it holds in the first state, by carrying out all sequences of jumps.

    y(χ) = Σ_k p_k(χ) (δx_k + y(χ_k)), and ``rim`` after the last step. Atoms are followed by numbers.
    """
    rates = {"Ag": 0.1, "Cu": 1.0}
    symbols = network.supercell.species
    y = np.zeros((len(occupation), 3))

    def walk(occ: NDArray, who: NDArray, vacancy: int, probability: float, left: int) -> None:
        """``who[site]`` is the atom on a site, numbered by its site in the first state."""
        if left == 0:
            y[who] += probability * rim(occ, vacancy)
            return
        targets = network.targets(np.array([vacancy]))[0]
        basis = vacancy % network.supercell.alloy.n_basis
        w = np.array([rates[symbols[occ[t]]] for t in targets])
        for k, t in enumerate(targets):
            p = probability * w[k] / w.sum()
            y[who[t]] -= p * network.vectors[basis, k]  # the atom moves against the vacancy
            new_occ, new_who = occ.copy(), who.copy()
            new_occ[[vacancy, t]], new_who[[vacancy, t]] = occ[[t, vacancy]], who[[t, vacancy]]
            walk(new_occ, new_who, int(t), p, left - 1)

    walk(occupation, np.arange(len(occupation)), carrier, 1.0, steps)
    return y


# a vacancy that looks 3.1 Å far in a cell of 3 Å sees its own images
@pytest.mark.parametrize(("size", "cutoff"), [(3, 3.1), (5, 2.1)])
@pytest.mark.parametrize("trained", [False, True])
def test_lookahead_one_is_the_sum_over_all_jumps(size, cutoff, trained):
    lookahead = 1
    cell = parent("square").supercell((size, size, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    states = sample_states(cell, 2, seed=6)
    rates = ak.Rates.of(GAS, network)
    y = ak.Relaxation.create(network, rates=rates, lookahead=lookahead, cutoff=cutoff, hidden=4).to(torch.float64)
    if trained:
        generator = torch.Generator().manual_seed(3)
        for p in y.field.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.3
    assert y.environment.is_wrapped == (size == 3)
    plain = ak.Relaxation(network, y.environment, y.field, 0)

    def rim(occupation: NDArray, carrier: int) -> NDArray:
        return plain(occupation[None], [carrier])[0]

    ours = y(states.occupations, states.carriers)
    for n in range(len(states)):
        expected = explicit_sum(network, states.occupations[n], int(states.carriers[n]), lookahead, rim)
        assert not expected[states.carriers[n]].any()
        np.testing.assert_allclose(ours[n], expected, atol=1e-12)
        # broken twin: one step less is another field
        less = explicit_sum(network, states.occupations[n], int(states.carriers[n]), lookahead - 1, rim)
        assert np.abs(ours[n] - less).max() > 1e-3


@pytest.mark.parametrize(("size", "cutoff"), [(3, 3.1), (5, 2.1)])
def test_lookahead_two_solves_the_poisson_equation_on_a_state_and_its_neighbours(size, cutoff):
    cell = parent("square").supercell((size, size, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    states = sample_states(cell, 2, seed=6)
    rates = ak.Rates.of(GAS, network)
    y = ak.Relaxation.create(network, rates=rates, lookahead=2, closure="exact", cutoff=cutoff, hidden=4)
    y = y.to(torch.float64)
    generator = torch.Generator().manual_seed(3)
    for p in y.field.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.3
    plain = ak.Relaxation(network, y.environment, y.field, 0)

    def residual(occupation: NDArray, carrier: int, own: NDArray, stop_early: bool) -> NDArray:
        """Σ_k p_k (δx_k + y(χ_k)) − y(χ), y(χ_k) from one more such step that knows y(χ)."""

        def rim(occ: NDArray, vacancy: int) -> NDArray:
            if vacancy == carrier and np.array_equal(occ, occupation):
                return own  # the jump back: of the atoms as they were
            return plain(occ[None], [vacancy])[0]

        return explicit_sum(network, occupation, carrier, 1 if stop_early else 2, rim) - own

    ours = y(states.occupations, states.carriers)
    for n in range(len(states)):
        args = states.occupations[n], int(states.carriers[n]), ours[n]
        assert np.abs(residual(*args, False)).max() < 1e-12
        assert np.abs(residual(*args, True)).max() > 1e-3  # broken twin: with the rim one jump nearer


def test_closed_form_is_the_minimum(tiny):
    """Scaled bias: the factor of each species is where the gradient of its own bounds vanishes."""
    cell, network = tiny
    states = sample_states(cell, 200, seed=4)
    y = ak.train_relaxation(cell, network, GAS, states=states, form="scaled-bias", lookahead=1, ridge=0.0, seed=1)
    held = training._held_out(states, np.random.default_rng(1))
    objective = Objective.of(y, states[~held])
    factor = y.closure.factor
    assert factor.shape == (1, 3) and not torch.allclose(factor[:, 1:], torch.ones(1, 2), atol=0.02)
    best, _ = objective.evaluate(y)
    for code in (1, 2):
        for step in (-0.05, 0.05):
            with torch.no_grad():
                factor[0, code] += step
                assert objective.evaluate(y)[0] > best
                factor[0, code] -= step


def test_fresh_states_replace_old_ones(tiny, pair_model):
    """Training states go on by Monte Carlo: other states, the same ensemble and number, chains kept apart."""
    cell, network = tiny
    rates = ak.Rates.of(pair_model, network, temperature_K=1000.0)
    states = sample_states(
        cell, 60, method="monte-carlo", model=rates.source, temperature_K=1000.0, n_chains=20, seed=2
    )
    y = ak.Relaxation.create(network, rates=rates, lookahead=1, hidden=0)
    fresh = training._Fresh(states, y, 0.5, seed=3)
    before = set(states.keys)
    objective = fresh.renew()
    assert len(objective) == len(fresh.states) == 60
    np.testing.assert_array_equal(fresh.states.occupations[:30], states.occupations[30:])
    assert len(set(fresh.states[30:].keys) - before) > 10
    # each chain goes on from its own last state, at the temperature of the states
    names = np.unique(states.groups)
    last = np.array([states.occupations[states.groups == g][-1] for g in names])
    chain = MonteCarlo(cell, rates.source, 1000.0, seed=3, occupations=last)
    for begin, end in ((30, 50), (50, 60)):
        chain.run(training.REFRESH_SWEEPS)
        np.testing.assert_array_equal(fresh.states.occupations[begin:end], chain.occupations[: end - begin])
        np.testing.assert_array_equal(fresh.states.groups[begin:end], names[: end - begin])
    fresh.renew()  # chains take turns
    assert np.unique(fresh.states.groups, return_counts=True)[1].tolist() == [3] * 20


def test_fresh_states_count_as_seen(tiny, pair_model, monkeypatch):
    cell, network = tiny
    chains = []

    class Kept(training._Fresh):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            chains.append(self)

    monkeypatch.setattr(training, "_Fresh", Kept)
    y = ak.train_relaxation(
        cell,
        network,
        pair_model,
        temperature_K=1000.0,
        n_states=30,
        form="network",
        lookahead=1,
        gates=0,
        hidden=4,
        epochs=3,
        refresh=0.5,
        seed=1,
    )
    (chain,) = chains
    assert len(chain.keys) > 10
    assert chain.keys <= set(y.report["training_keys"])


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")  # the steps are too large on purpose
def test_the_weights_kept_are_the_best_on_the_validation_states(tiny):
    cell, network = tiny
    options = {"form": "network", "epochs": 4, "learning_rate": 2.0, "gates": 0}
    for seed in range(1, 6):  # where it ends depends on the version of torch
        report = train(sample_states(cell, 60, seed=seed), network, **options).report
        if min(report["history"]) < 0.99 * report["history"][-1]:
            break
    assert min(report["history"]) < 0.99 * report["history"][-1]
    ratios = list(report["bound_ratios"].values())
    assert np.mean(ratios) == pytest.approx(min(report["history"]), rel=1e-6)
    assert report["trained_bound_ratio"] == min(report["history"])


@pytest.mark.filterwarnings("ignore:.*no held-out bound")  # a tiny cell has few distinct states
@pytest.mark.filterwarnings("ignore:.*worse than none")  # the rates that y was trained on are wrong on purpose
def test_fine_tuning_lowers_the_reference_bound_and_keeps_the_split(tiny):
    """A relaxation of wrong rates learns from the right ones; the states used count as seen."""
    cell, network = tiny
    wrong = ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0})
    y = ak.train_relaxation(cell, network, wrong, n_states=200, epochs=2, hidden=8, lookahead=1, seed=1)
    states = sample_states(cell, 400, seed=7)
    equal = ak.States.from_occupations(
        cell, states.occupations, carriers=states.carriers, ensemble="equilibrium", groups=states.groups
    )
    train_part, test_part = equal[:300], equal[300:]
    tuned = ak.fine_tune(y, train_part, GAS, epochs=10, seed=2)
    before, after = (
        float(ak.transport(test_part, network, GAS, r).collective_correlation_factor["vacancy"]) for r in (y, tuned)
    )
    assert after < before - 0.1  # the rates it was trained with lower it by 0.02
    assert set(train_part.keys) <= set(tuned.report["training_keys"])
    assert not set(train_part.keys) <= set(y.report["training_keys"])
    assert set(y.report["training_keys"]) <= set(tuned.report["training_keys"])  # what was seen stays seen


def test_a_relaxation_moves_to_another_temperature(tiny, pair_model):
    """Rates enter as they are, but gates know only the rates they saw: without a new scale they make things worse."""
    cell, network = tiny
    y = ak.train_relaxation(cell, network, pair_model, temperature_K=1000.0, n_states=400, form="paths", seed=1)
    cold = 300.0
    states = sample_states(cell, 400, method="monte-carlo", model=pair_model.bind(network), temperature_K=cold, seed=2)
    moved = y.at(cold, states)
    assert moved.rates.temperature_K == cold and y.rates.temperature_K == 1000.0
    stale = ak.Relaxation(**{**vars(y), "rates": moved.rates, "_balls": {}})
    exact = ak.exact_transport(cell, network, pair_model, cold)

    def bound(relaxation: ak.Relaxation) -> float:
        return float(ak.transport(exact.states, network, pair_model, relaxation, cold).vacancy_diffusivity)

    late = bound(stale)
    again = ak.train_relaxation(
        cell, network, pair_model, temperature_K=cold, states=states, form="paths", start=y, seed=1
    )
    value = float(exact.vacancy_diffusivity)
    assert value * (1 - 1e-7) <= bound(again) <= bound(moved) * 1.02 < late


def test_a_device_that_is_not_there_is_refused(tiny):
    cell, network = tiny
    if not torch.cuda.is_available():
        with pytest.raises(ak.KinosonError, match="found device='cuda'"):
            train(sample_states(cell, 40, seed=1), network, device="cuda")
    with pytest.raises(ak.KinosonError, match="found device='gpu'"):
        train(sample_states(cell, 40, seed=1), network, device="gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("form", ["network", "clusters"])
def test_training_on_a_gpu_gives_the_same_relaxation(tiny, form):
    cell, network = tiny
    options = {"form": form, "lookahead": 1, "gates": 4, "epochs": 2, "closure_epochs": 1}
    here, there = (
        train(sample_states(cell, 60, seed=1), network, device=device, **options) for device in ("cpu", "cuda")
    )
    assert there.device.type == "cpu"
    np.testing.assert_allclose(there.report["history"], here.report["history"], rtol=1e-3)
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-2)
