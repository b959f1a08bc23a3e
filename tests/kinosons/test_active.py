"""Choosing barriers by what they tell of D: unbiased, honest errors, fewer barriers."""

import itertools
import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.errors import BarrierError, KinosonError, KinosonWarning, StatesError
from ase_kinoson.kinosons.active import active_barriers
from ase_kinoson.kinosons.active_reference import Reference
from ase_kinoson.kinosons.active_rounds import Rounds
from ase_kinoson.kinosons.ordered_sampling import OrderedEstimate
from ase_kinoson.units import thermal_energy

matplotlib.use("Agg")

T = 800.0
SEEDS = 40


# -- the estimator, enumerated -----------------------------------------------------------------------------------


def expectation(weigh=lambda q, n: q):
    """Mean of the estimate over all ordered draws of 3 of 5 units; probabilities and guesses learn on the way."""
    values = np.array([[1.0, 7.0, 2.0, 0.5, 3.0], [1.0, 1.0, 2.0, 1.0, 1.0]])
    mean, variance, stated = np.zeros(2), 0.0, 0.0
    for draws in itertools.permutations(range(5), 3):
        estimate, chance, left = OrderedEstimate(5), 1.0, np.ones(5, dtype=bool)
        seen = 0.0
        for rnd, unit in enumerate(draws, start=1):
            trust = (1.0 + np.arange(5) * (1.0 + seen)) * left
            q = trust / trust.sum()
            guesses = np.stack([np.linspace(0, seen, 5), np.full(5, 1.2)])
            estimate.add(
                np.array([unit]), weigh(q[[unit]], left.sum()), values[:, [unit]], guesses, left.copy(), rnd=rnd
            )
            chance *= q[unit]
            left[unit] = False
            seen += values[0, unit]
        mean += chance * estimate.mean()
        variance += chance * (estimate.mean()[0] - 13.5) ** 2
        # the error of a total is that of its ratio to a total that is known
        known = OrderedEstimate(5, [np.array([t[0], 1.0]) for t in estimate.totals], estimate.weights, 0.0, 3)
        stated += chance * known.ratio(0, 1)[1] ** 2
    return mean, variance, stated


def test_ordered_estimate_is_unbiased():
    mean, variance, stated = expectation()
    assert mean == pytest.approx([13.5, 6.0], abs=1e-12)
    assert 0.7 < stated / variance < 1.6
    biased, _, _ = expectation(lambda q, n: np.full(1, 1.0 / n))  # broken twin: choices not weighted
    assert abs(biased[0] - 13.5) > 1.0


def test_planned_error():
    """Of T_m that are independent with a known variance."""
    weights, rng = [1.0, 2.0, 0.5, 4.0], np.random.default_rng(0)
    means = [
        OrderedEstimate(9, [np.array([t]) for t in rng.normal(0.0, 3.0, 4)], weights, 0.0, 4).mean()[0]
        for _ in range(4000)
    ]
    planned = OrderedEstimate(9, [], weights, 0.0, 4).planned(9.0)
    assert np.std(means) == pytest.approx(planned, rel=0.04)
    assert abs(np.std(means) / (3.0 / np.sqrt(4)) - 1.0) > 0.1  # broken twin: as if weights were equal
    assert OrderedEstimate(4, [], weights, 0.0, 4).planned(9.0) == 0.0
    assert OrderedEstimate(9).planned(9.0) == np.inf


# -- a synthetic alloy with rough barriers ------------------------------------------------------------------------


class Rough:
    """Pair energies, and activations that are a sum of random functions of the environment."""

    def __init__(self, network, interactions, *parts):
        self.network = network
        self.energy = ak.PairEnergy.from_interactions(network.supercell, interactions)
        self.parts = [p.bind(network) for p in parts]

    def jump_energies(self, occupations, carriers):
        delta = self.energy.jump_delta(occupations, carriers, self.network)
        kra = sum(p.jump_energies(occupations, carriers).barrier for p in self.parts)
        return JumpEnergies(kra + 0.5 * delta, delta)


def interactions(seed, scale):
    noise = np.random.default_rng(seed).normal(0.0, scale, 3)
    return {("Cu", "Ni"): -0.03 + noise[0], ("X", "Ni"): -0.05 + noise[1], ("Cu", "Cu"): noise[2]}


@pytest.fixture(scope="module")
def rough():
    """Pool, jumps, truth, and four models that are off by 0.1 eV."""
    atoms = Atoms("Cu", cell=[2.5, 2.5, 10], pbc=(1, 1, 0))
    cell = ak.Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.6, "Ni": 0.4}}).supercell((6, 6, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    base = ak.RandomBarriers(0.8, 0.12, seed=1)
    truth = Rough(network, interactions(0, 0.0), base)
    models = [
        Rough(network, interactions(b, 0.01), base, ak.RandomBarriers(0.0, 0.1, seed=10 + b)) for b in range(1, 5)
    ]
    pool = ak.sample_states(
        cell, 200, method="monte-carlo", model=models[0], temperature_K=T, seed=3, sweeps=60, n_chains=50
    )
    return pool, network, truth, models


def quietly(function, *arguments, **options):
    """Call without the warnings that small pools deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        return function(*arguments, **options)


def exact(pool, network, truth):
    weighted = ak.reweight(pool, truth.energy.energies(pool.occupations), T)
    return quietly(ak.transport, weighted, network, truth, None, T)


def choose(rough, **options):
    pool, network, truth, models = rough
    options = {"models": models, "fit": None, "relative_error": None, "batch": 40, **options}
    return active_barriers(pool, network, options.pop("reference", truth), temperature_K=T, **options)


@pytest.fixture(scope="module")
def repeated(rough):
    """Values and stated errors relative to the pool's exact mean over seeds, by kind of choice; the runs."""
    value = float(exact(*rough[:3]).vacancy_diffusivity)
    found = {}
    for choice in ("active", "random"):
        seeds = range(SEEDS if choice == "active" else SEEDS // 2)
        runs = [quietly(choose, rough, choice=choice, max_barriers=120, seed=seed) for seed in seeds]
        last = [r.history[-1] for r in runs]
        found[choice] = (
            np.array([r.value for r in last]) / value,
            np.array([r.selection_error for r in last]) / value,
            runs,
        )
    return found


def test_unbiased_with_honest_errors(repeated):
    values, errors, _ = repeated["active"]
    assert abs(values.mean() - 1.0) < 3.0 * values.std(ddof=1) / np.sqrt(SEEDS)
    z = np.abs(values - 1.0) / errors
    assert 0.5 <= np.mean(z < 1) <= 0.9 and np.mean(z < 2) >= 0.85
    assert 0.6 < np.sqrt(np.mean(errors**2)) / values.std(ddof=1) < 1.7


def test_without_weights_it_is_biased(rough, repeated):
    """Broken twin: the mean of what was chosen, taken for the mean of the pool."""
    pool, _, truth, _ = rough
    value = float(exact(*rough[:3]).vacancy_diffusivity)
    plain = []
    for run in repeated["active"][2][:10]:
        state, jump = run.chosen.T
        q = truth.jump_energies(pool.occupations[state], pool.carriers[state]).barrier[np.arange(len(jump)), jump]
        rate = 1e13 * np.exp(-q / thermal_energy(T))
        plain.append(4 * rate.mean() * 2.5**2 / 4 * 1e-20 / value)
    assert np.mean(plain) > 3.0


def test_fewer_barriers_than_at_random(repeated):
    chosen, random = (np.std(repeated[c][0]) for c in ("active", "random"))
    assert chosen < random / 3.0  # as many barriers, a third of the error: an average of states would need nine times
    last = repeated["active"][2][0].history[-1]
    assert last.n_barriers == 120 and last.random_error > 2.0 * last.error
    assert repeated["random"][2][0].history[-1].n_states == 30


# -- all computed: the very numbers of transport() ----------------------------------------------------------------


@pytest.mark.parametrize("unit", ["jump", "state"])
def test_complete_pool_equals_transport(rough, unit):
    pool, network, truth, models = rough
    few = pool[:20]
    full = exact(few, network, truth)
    run = active_barriers(
        few, network, truth, temperature_K=T, models=models, fit=None, relative_error=None, batch=30, unit=unit
    )
    assert run.n_barriers == 80 and run.history[-1].selection_error == 0.0
    assert run.diffusivity["vacancy"].value == pytest.approx(float(full.vacancy_diffusivity), rel=1e-12, abs=0)
    for symbol, quantity in full.tracer_diffusivity.items():
        assert run.diffusivity[symbol].value == pytest.approx(float(quantity), rel=1e-12, abs=0)
        assert run.diffusivity[symbol].unit == quantity.unit and run.diffusivity[symbol].kind == quantity.kind
    assert run.diffusivity["vacancy"].error == pytest.approx(float(full.vacancy_diffusivity.error), rel=0.3, abs=0)
    # not weighted, it is another number
    with pytest.warns(KinosonWarning, match="drawn with model energies"):
        plain = active_barriers(
            few, network, truth, temperature_K=T, models=models, fit=None, relative_error=None, batch=80, reweight=False
        )
    assert plain.diffusivity["vacancy"].kind == "not a bound"
    wrong = quietly(ak.transport, few, network, truth, None, T)
    assert plain.diffusivity["vacancy"].value == pytest.approx(float(wrong.vacancy_diffusivity), rel=1e-12, abs=0)
    assert abs(plain.history[-1].value / run.history[-1].value - 1.0) > 1e-4


def test_with_a_relaxation_and_repeated_states(tiny, pair_model):
    """70 states up to translation: most of the pool repeats, and is computed once; and y has seen some of them."""
    cell, network = tiny
    relaxation = ak.train_relaxation(
        cell, network, pair_model, temperature_K=600.0, n_states=60, form="scaled-bias", lookahead=0, seed=2
    )
    pool = ak.sample_states(cell, 400, method="monte-carlo", model=pair_model, temperature_K=600.0, seed=1, sweeps=30)
    with pytest.warns(KinosonWarning, match="no held-out bound"):
        run = active_barriers(
            pool,
            network,
            pair_model,
            temperature_K=600.0,
            relaxation=relaxation,
            models=pair_model,
            fit=None,
            relative_error=None,
            target="Ag",
            batch=5000,
        )
    full = quietly(ak.transport, pool, network, pair_model, relaxation, 600.0)
    assert run.target == "Ag" and run.n_barriers == 4 * len(set(pool.keys)) < 1600
    for symbol, quantity in full.tracer_diffusivity.items():
        assert run.diffusivity[symbol].value == pytest.approx(float(quantity), rel=1e-9, abs=0)
        assert run.diffusivity[symbol].kind == "estimate"
    bare = quietly(ak.transport, pool, network, pair_model, None, 600.0)
    assert run.diffusivity["Ag"].value < float(bare.tracer_diffusivity["Ag"])
    with pytest.raises(KinosonError, match="target='Zn'"):
        active_barriers(pool, network, pair_model, temperature_K=600.0, models=pair_model, fit=None, target="Zn")


def computed(rough, status, **about):
    """Reference barriers of all of 20 states, some of them without."""
    pool, network, truth, _ = rough
    few = pool[:20]
    found = truth.jump_energies(few.occupations, few.carriers)
    table = np.full(found.barrier.shape, "ok", dtype="U24")
    for (n, k), text in status.items():
        table[n, k] = text
    energies = truth.energy.energies(few.occupations)
    energies[(table == "unstable-start").any(axis=1)] = np.nan
    barrier = np.where(table == "ok", found.barrier, np.inf)
    reverse = np.where(table == "ok", found.reverse_barrier, np.inf)
    return ak.Barriers.from_arrays(
        few, network, barrier, reverse_barrier=reverse, energy_initial=energies, status=table, **about
    )


def test_rejected_jumps_and_unstable_states(rough):
    """They carry nothing and weigh nothing; the same as transport() says."""
    status = {(0, 1): "unstable-end", (3, 2): "left-site", **{(5, k): "unstable-start" for k in range(4)}}
    reference = computed(rough, status)
    pool, network, _, models = rough
    run = active_barriers(
        pool[:20], network, reference, temperature_K=T, models=models, fit=None, relative_error=None, batch=13
    )
    weighted = quietly(ak.reweight, pool[:20], reference.energy_initial, T)
    assert weighted.weights[5] == 0.0
    full = quietly(ak.transport, weighted, network, reference, None, T)
    assert run.diffusivity["vacancy"].value == pytest.approx(float(full.vacancy_diffusivity), rel=1e-12, abs=0)


def test_failed_searches_are_guessed_and_told(rough):
    pool, network, truth, models = rough
    reference = computed(rough, {(0, 1): "calculator-failed", (3, 2): "not-converged"})
    whole = computed(rough, {})
    about = {"temperature_K": T, "models": models, "fit": None, "relative_error": None, "batch": 20}
    with pytest.warns(KinosonWarning, match="2 of 80 searches failed"):
        run = active_barriers(pool[:20], network, reference, **about)
    full = active_barriers(pool[:20], network, whole, **about)
    assert run.settings["n_failed"] == 2
    assert run.history[-1].value == pytest.approx(full.history[-1].value, rel=0.2, abs=0)
    assert run.history[-1].value != full.history[-1].value
    # guessed by a model that is right, they are what they would have been
    right = quietly(active_barriers, pool[:20], network, reference, **{**about, "models": truth})
    assert right.history[-1].value == pytest.approx(full.history[-1].value, rel=1e-9, abs=0)


@pytest.mark.parametrize("unit", ["jump", "state"])
@pytest.mark.parametrize("status", ["not-converged", "unstable-end"])
def test_what_the_reverse_tells(rough, monkeypatch, status, unit):
    """Two neighbouring states: a failed search takes over its reverse, a rejected one takes it along, in any order."""
    pool, network, truth, models = rough
    first = pool[:10]
    after, carrier = network.apply(first.occupations[[0]], first.carriers[[0]], [1])
    occupations = np.concatenate([first.occupations, after])
    states = ak.States.from_occupations(
        pool.supercell,
        occupations,
        carriers=np.concatenate([first.carriers, carrier]),
        ensemble="equilibrium",
        temperature_K=T,
        model_energies=truth.energy.energies(occupations),
    )
    found = truth.jump_energies(states.occupations, states.carriers)
    table = np.full(found.barrier.shape, "ok", dtype="U24")
    table[0, 1] = status
    forward, reverse = (np.where(table == "ok", q, np.inf) for q in (found.barrier, found.reverse_barrier))
    aware = ak.Barriers.from_arrays(
        states, network, forward, reverse_barrier=reverse, energy_initial=states.model_energies, status=table
    )
    assert (aware.status != table).sum() == 1
    full = float(quietly(ak.transport, states, network, aware, None, T).vacancy_diffusivity)
    # of the source itself each jump knows its own search only, as the rounds find them
    reference = replace(aware, barrier=forward, reverse_barrier=reverse, status=table)
    about = {"temperature_K": T, "models": models, "fit": None, "relative_error": None, "batch": 4, "unit": unit}

    def values():
        return [
            quietly(active_barriers, states, network, reference, seed=seed, **about).history[-1].value
            for seed in range(8)
        ]

    assert values() == pytest.approx([full] * 8, rel=1e-9, abs=0)
    monkeypatch.setattr(OrderedEstimate, "revise", lambda self, values, known: None)  # broken twin
    assert values() != pytest.approx([full] * 8, rel=1e-9, abs=0)


def test_barriers_that_nobody_computed(rough, monkeypatch):
    """They are no rates of zero: a source that lacks them is refused, an answer without them a failed search."""
    pool, network, truth, models = rough
    about = {"temperature_K": T, "models": models, "fit": None, "relative_error": None, "batch": 80}
    with pytest.raises(BarrierError, match=r"2 of 80 chosen jumps without a barrier .*; expected .*; run"):
        active_barriers(pool[:20], network, computed(rough, {(0, 1): "not-computed", (3, 2): "not-computed"}), **about)

    class Holes(Rough):
        def jump_energies(self, occupations, carriers):
            found = super().jump_energies(occupations, carriers)
            found.barrier[0, 0] = np.nan
            return found

    with pytest.raises(BarrierError, match="1 of 80 chosen jumps"):
        active_barriers(
            pool[:20], network, Holes(network, interactions(0, 0.0), ak.RandomBarriers(0.8, 0.12, seed=1)), **about
        )
    full = active_barriers(pool[:20], network, truth, **about).history[-1].value
    answer = Reference.__call__

    def silent(self, rows, asked):
        return answer(self, rows, asked & (np.arange(asked.size).reshape(asked.shape) % 4 != 1))

    monkeypatch.setattr(Reference, "__call__", silent)
    about["models"] = truth
    with pytest.warns(KinosonWarning, match="20 of 80 searches failed"):
        run = active_barriers(pool[:20], network, truth, **about)
    assert run.diffusivity["vacancy"].kind == "estimate"
    assert run.history[-1].value == pytest.approx(full, rel=1e-9, abs=0)  # guessed, by a model that is right
    # broken twin: what has no answer counts as a jump that does not exist
    monkeypatch.undo()
    table = computed(rough, {(n, 1): "left-site" for n in range(20)})
    assert active_barriers(pool[:20], network, table, **about).history[-1].value < 0.9 * full


def test_own_attempt_frequencies(rough):
    """As transport() takes them: of the jumps that have one; the common one, or that of given rates, elsewhere."""
    pool, network, truth, models = rough
    rng = np.random.default_rng(4)
    own = 1e13 * np.exp(rng.normal(0.5, 0.7, (20, 4)))
    own[rng.random(own.shape) < 0.3] = np.nan
    reference = computed(rough, {}, attempt_frequency=own)
    about = {"temperature_K": T, "fit": None, "relative_error": None, "attempt_frequency": 5e12}

    def full(source):
        weighted = ak.reweight(pool[:20], reference.energy_initial, T)
        found = quietly(ak.transport, weighted, network, source, None, T, attempt_frequency=5e12)
        return float(found.vacancy_diffusivity)

    run = active_barriers(pool[:20], network, reference, models=models, batch=80, **about)
    assert run.history[-1].value == pytest.approx(full(reference), rel=1e-12, abs=0)
    assert np.array_equal(run.barriers.attempt_frequency, np.where(np.isnan(own), 5e12, own))
    plain = active_barriers(pool[:20], network, computed(rough, {}), models=models, batch=80, **about)
    assert plain.history[-1].value == pytest.approx(full(computed(rough, {})), rel=1e-12, abs=0)
    assert plain.history[-1].value < 0.7 * run.history[-1].value  # broken twin: they are forgotten
    rates = ak.Rates.of(truth, network, temperature_K=T, attempt_frequency=2e13)
    fast = active_barriers(pool[:20], network, rates, models=models, batch=80, **about)
    assert fast.history[-1].value == pytest.approx(4.0 * plain.history[-1].value, rel=1e-12, abs=0)
    # models have them too: one that is right knows the result from the first barriers on
    right = active_barriers(pool[:20], network, reference, models=reference, max_barriers=10, batch=5, **about)
    assert right.history[-1].value == pytest.approx(run.history[-1].value, rel=1e-9, abs=0)
    wrong = active_barriers(
        pool[:20], network, reference, models=computed(rough, {}), max_barriers=10, batch=5, **about
    )
    assert abs(wrong.history[-1].value / run.history[-1].value - 1.0) > 1e-3


# -- the pool -----------------------------------------------------------------------------------------------------


def test_poor_overlap_is_told(rough):
    """Weights that leave a few states: far off by the stated errors, so that no bound is claimed."""
    _, network, truth, models = rough
    values = {}
    for name, model in (("good", truth), ("poor", Rough(network, {("Cu", "Ni"): -0.1, ("X", "Ni"): -0.05}))):
        pool = ak.sample_states(
            network.supercell, 120, method="monte-carlo", model=model.energy, temperature_K=T, seed=2, n_chains=60
        )
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", KinosonWarning)
            run = choose((pool, network, truth, models), batch=480)
        values[name] = run.diffusivity["vacancy"]
        told = " ".join(str(w.message) for w in told)
        poor = name == "poor"
        assert ("effective sample size" in told) == ("independent groups of states carries" in told) == poor
        assert values[name].kind == ("estimate" if poor else "bound")
    assert abs(values["poor"].value - values["good"].value) > 5.0 * values["poor"].error


def test_states_without_weight(rough):
    """As if they were not in the pool."""
    pool, network, truth, models = rough
    pool = pool[pool.groups < 10]
    energies = truth.energy.energies(pool.occupations)
    energies[3] = np.nan
    weighted = quietly(ak.reweight, pool, energies, T)
    errors = {}
    for name, states in (("without weight", weighted), ("left out", weighted[np.arange(len(pool)) != 3])):
        run = quietly(choose, (states, network, truth, models), batch=160, target="Ni")
        errors[name] = [q.error for q in run.diffusivity.values()]
    assert np.isfinite(errors["left out"]).all()
    assert errors["without weight"] == pytest.approx(errors["left out"], rel=1e-9, abs=0)
    full = quietly(choose, (pool, network, truth, models), batch=160)  # broken twin: the state counts
    assert full.diffusivity["vacancy"].error != pytest.approx(errors["left out"][0], rel=1e-6, abs=0)


def test_the_zero_of_energies_is_free(rough):
    """Reference energies on another zero than those of the models: neither the value nor its error notices."""
    pool, network, truth, models = rough

    class Shifted(Rough):
        def state_energies(self, occupations):
            return self.energy.energies(occupations) + 30.0

    shifted = Shifted(network, interactions(0, 0.0), ak.RandomBarriers(0.8, 0.12, seed=1))
    plain, moved = (quietly(choose, (pool, network, source, models), max_barriers=80) for source in (truth, shifted))
    for now, then in zip(moved.history, plain.history, strict=True):
        assert now.value == pytest.approx(then.value, rel=1e-6, abs=0)
        assert now.selection_error == pytest.approx(then.selection_error, rel=1e-6, abs=0)
    # broken twin: another energy in every state is another D
    steep = Rough(network, {("Cu", "Ni"): -0.04, ("X", "Ni"): -0.05}, ak.RandomBarriers(0.8, 0.12, seed=1))
    other = quietly(choose, (pool, network, steep, models), max_barriers=80)
    assert other.history[-1].value != pytest.approx(plain.history[-1].value, rel=1e-2, abs=0)


# -- the loop -----------------------------------------------------------------------------------------------------


def test_stops_at_the_requested_error(rough):
    run = choose(rough, relative_error=0.6, batch=20)
    assert run.reached and len(run.history) >= 2
    assert run.history[-1].error <= 0.6 * run.history[-1].value
    assert run.n_barriers < 400
    with pytest.warns(KinosonWarning, match="add states to the pool"):
        short = choose(rough, relative_error=0.01, batch=40)
    assert not short.reached and short.n_barriers < 800


def test_stopping_early_is_not_too_sure(rough, monkeypatch):
    """Stopped after hardly a draw by models with an error in common: luck is not taken for knowledge."""
    _, network, truth, _ = rough
    base, common = ak.RandomBarriers(0.8, 0.12, seed=1), ak.RandomBarriers(0.0, 0.06, seed=9)
    own = [ak.RandomBarriers(0.0, 0.03, seed=seed) for seed in range(10, 14)]
    models = [Rough(network, interactions(0, 0.0), base, common, part) for part in own]
    pool = ak.sample_states(network.supercell, 200, seed=1)  # at random, whose scatter is no matter here
    value = float(quietly(ak.transport, pool, network, truth, None, 500.0).vacancy_diffusivity)
    monkeypatch.setattr(Rounds, "pool_errors", lambda self, coefficient, value: (0.0, 1.0))
    about = {"temperature_K": 500.0, "models": models, "fit": None, "relative_error": 0.2, "batch": 10}

    def deviations():
        runs = [quietly(active_barriers, pool, network, truth, seed=seed, **about) for seed in range(SEEDS)]
        assert all(run.reached for run in runs)
        return np.array([(run.history[-1].value - value) / run.history[-1].error for run in runs])

    z = deviations()
    assert np.sqrt(np.mean(z**2)) < 1.1 and np.abs(z).max() < 2.5
    monkeypatch.setattr(OrderedEstimate, "planned", lambda self, variance: 0.0)  # broken twin: the scatter alone
    z = deviations()
    assert np.sqrt(np.mean(z**2)) > 1.2 and np.abs(z).max() > 2.5


def test_models_learn_from_every_round(rough):
    pool, network, truth, models = rough
    seen = []

    def fit(barriers, seed):
        seen.append((len(barriers), barriers.n_barriers))
        return models[: 1 + len(seen) % 2]  # anything may come back: the estimate stays unbiased

    training = computed(rough, {})
    run = active_barriers(
        pool[50:], network, truth, temperature_K=T, training=training, fit=fit, relative_error=None, max_barriers=90,
        batch=30,
    )  # fmt: skip
    assert [n for _, n in seen] == [80, 110, 140]
    assert run.n_barriers == 90 and run.barriers.n_barriers == 90
    assert (run.barriers.status == "not-computed").sum() == run.barriers.status.size - 90
    again = active_barriers(
        pool[50:], network, truth, temperature_K=T, training=training, fit=fit, relative_error=None, max_barriers=90,
        batch=30,
    )  # fmt: skip
    assert again.n_barriers == 90


class Counting(EMT):
    calls = 0

    def calculate(self, *args, **kwargs):
        Counting.calls += 1
        super().calculate(*args, **kwargs)


def test_with_a_calculator(tmp_path):
    """Single jumps through a store: each state relaxed once, no barrier twice, the same numbers as a campaign."""
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    cell = alloy.supercell(2)
    network = ak.JumpNetwork.from_supercell(cell)
    energy = ak.PairEnergy.from_interactions(cell, {("Cu", "Ni"): 0.01})
    model = ak.PairBarriers(energy, {"Cu": 0.75, "Ni": 0.9}).bind(network)
    pool = ak.sample_states(cell, 6, method="monte-carlo", model=energy, temperature_K=900.0, seed=1, sweeps=10)
    Counting.calls = 0
    run = quietly(
        active_barriers,
        pool,
        network,
        Counting,
        temperature_K=900.0,
        models=model,
        fit=None,
        relative_error=None,
        max_barriers=4,
        batch=2,
        store=tmp_path / "chosen.db",
    )
    rounds = len(run.history)
    assert run.n_barriers == 4 and run.history[-1].force_calls <= Counting.calls <= run.history[-1].force_calls + 6
    assert rounds == 2 and run.diffusivity["vacancy"].unit == "m^2/s"
    Counting.calls = 0
    state, jump = run.chosen[0]
    alone = ak.compute_barriers(pool[[state]], network, Counting, store=tmp_path / "chosen.db", jumps={0: [int(jump)]})
    assert Counting.calls == 0
    row = run.barriers.states.keys.index(pool.keys[state])
    assert alone.barrier[0, jump] == run.barriers.barrier[row, jump]


def test_plot(repeated):
    axes = repeated["active"][2][0].plot()
    assert len(axes.lines) == 3 and "vacancy" in axes.get_ylabel()
    axes = repeated["active"][2][0].plot(random=repeated["random"][2][0])
    assert axes.get_xlabel() == "reference barriers"
    matplotlib.pyplot.close("all")


def test_refusals(rough):
    pool, network, truth, _ = rough
    for wrong, text in (
        ({"choice": "best"}, "choice='best'"),
        ({"unit": "atom"}, "unit='atom'"),
        ({"batch": 0}, "batch=0"),
        ({"relative_error": -1.0}, "relative_error"),
        ({"models": []}, "no barrier model"),
        ({"models": None}, "neither models nor training"),
    ):
        with pytest.raises(KinosonError, match=text):
            choose(rough, **wrong)
    frozen = ak.sample_states(
        pool.supercell, 20, method="monte-carlo", model=truth, temperature_K=T, ensemble="quenched", n_chains=5
    )
    with pytest.raises(StatesError, match="'quenched' ensemble"):
        choose((frozen, network, truth, [truth]))
    blind = ak.sample_states(pool.supercell, 20, seed=1)
    with pytest.warns(KinosonWarning, match="no equilibrium sample"), pytest.warns(KinosonWarning, match="carries"):
        run = choose((blind, network, truth, [truth]), max_barriers=40)
    assert run.diffusivity["vacancy"].kind == "not a bound"
