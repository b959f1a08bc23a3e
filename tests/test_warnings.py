"""Every warning that matters comes where it must, with the right number, and not where it must not."""

from __future__ import annotations

import ast
import json
import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.optimize import LBFGS

import ase_kinoson as ak
from ase_kinoson import errors
from ase_kinoson.barriers.cell_size import compare_cells
from ase_kinoson.barriers.end_states import end_state_drift
from ase_kinoson.barriers.training_distance import far_from_training, unseen_shells
from ase_kinoson.errors import (
    EndStateDrift,
    FarFromTraining,
    FewKinosons,
    KinosonError,
    KinosonWarning,
    LargeError,
    NotAtEquilibrium,
    NotConverged,
    SmallCell,
    SmallSample,
)
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.corrected import _far as surrogate_doubts
from ase_kinoson.kinosons.transport import doubts
from ase_kinoson.report_words import warnings_list
from ase_kinoson.stages import Stages, recorded_warnings
from ase_kinoson.validation import tiny_cell

PACKAGE = Path(ak.__file__).parent
T = 600.0
EVERY = [
    c
    for c in vars(errors).values()
    if isinstance(c, type) and issubclass(c, KinosonWarning) and c is not KinosonWarning
]


def told(function, *args, kind=KinosonWarning, **kwargs):
    """Result of a call, and the warnings of one type that it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **kwargs)
    return result, [w.message for w in caught if isinstance(w.message, kind)]


# -- the types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", EVERY)
def test_a_warning_survives_pickle_and_json(made):
    w = made("found 3; expected 5", number=3, limit=5, unit="states", advice="add states")
    assert str(w) == "found 3; expected 5; add states"
    assert isinstance(w, UserWarning)
    for again in (pickle.loads(pickle.dumps(w)), KinosonWarning.from_dict(json.loads(json.dumps(w.as_dict())))):
        assert type(again) is made
        assert again == w
        assert hash(again) == hash(w)
    assert made("found 3; expected 5", number=4, limit=5, unit="states", advice="add states") != w
    assert w.as_dict()["type"] == made.__name__


def test_a_sentence_alone_is_a_warning_as_ever():
    with pytest.warns(KinosonWarning, match="text") as caught:
        warnings.warn("text", KinosonWarning, stacklevel=1)
    (w,) = (c.message for c in caught)
    assert (w.number, w.limit, w.advice, w.text) == (None, None, "", "text")
    assert KinosonWarning.from_dict("text") == w
    assert KinosonWarning("text", number=float("nan"), limit=float("inf")) == w


def test_what_is_no_warning_is_refused_and_an_unknown_type_is_kept_as_text():
    with pytest.raises(KinosonError, match="expected a sentence or a mapping"):
        KinosonWarning.from_dict(3)
    w = KinosonWarning.from_dict({"type": "Exception", "text": "a", "number": "b"})
    assert (type(w), str(w), w.number) == (KinosonWarning, "a", None)


def plain_calls(source: str) -> list[int]:
    """Lines that warn of a sentence without a type of its own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "warn":
            names = [a.id for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Name)]
            made = [a.func.id for a in node.args if isinstance(a, ast.Call) and isinstance(a.func, ast.Name)]
            if "KinosonWarning" in [*names, *made]:
                found.append(node.lineno)
    return found


def test_every_warning_of_the_package_has_a_type():
    assert {p.name: plain_calls(p.read_text()) for p in PACKAGE.rglob("*.py") if plain_calls(p.read_text())} == {}
    # negative control: what it looks for is found
    assert plain_calls("import warnings\nwarnings.warn('a', KinosonWarning)\nwarnings.warn(KinosonWarning('a'))") == [
        2,
        3,
    ]
    assert len(EVERY) > 15


def test_every_type_is_on_the_page():
    page = (PACKAGE.parent / "docs" / "warnings.md").read_text(encoding="utf-8")
    missing = [made.__name__ for made in EVERY if f"`{made.__name__}`" not in page]
    assert missing == []


# -- states ------------------------------------------------------------------------------------------------------------


def gained(states, network, model):
    """⟨Σ W ΔE⟩ / ⟨Σ W |ΔE|⟩, jump by jump."""
    rates = ak.Rates.of(model, network, temperature_K=T)
    w = rates(states.occupations, states.carriers)
    change = model.bind(network).jump_energies(states.occupations, states.carriers).delta_e
    top = sum(p * w[n, k] * change[n, k] for n, p in enumerate(states.weights) for k in range(network.n_jumps))
    size = sum(p * w[n, k] * abs(change[n, k]) for n, p in enumerate(states.weights) for k in range(network.n_jumps))
    return top / size


def test_states_that_are_not_at_equilibrium_are_told_by_their_drift(tiny, pair_model):
    cell, network = tiny
    states = sample_states(cell, 300, seed=1)
    result, found = told(ak.transport, states, network, pair_model, None, T, kind=NotAtEquilibrium)
    (w,) = found
    assert w.number == pytest.approx(gained(states, network, pair_model), rel=1e-9, abs=0)
    assert abs(w.number) > w.limit > 0
    assert w.limit == pytest.approx(3 * result.drift.error, rel=1e-6, abs=0)
    assert w in result.warnings
    assert "NotAtEquilibrium" in str(result)


def test_equilibrium_states_do_not_drift(tiny, pair_model):
    cell, network = tiny
    states = sample_states(cell, 300, method="monte-carlo", model=pair_model.bind(network), temperature_K=T, seed=1)
    result, found = told(ak.transport, states, network, pair_model, None, T)
    assert found == []
    assert result.warnings == ()
    assert "know before" not in str(result)


def test_too_few_effective_states_after_reweighting(tiny, pair_model):
    cell, network = tiny
    states = sample_states(cell, 60, method="monte-carlo", model=pair_model.bind(network), temperature_K=T, seed=2)
    far = states.model_energies + np.linspace(0.0, 3.0, 60)
    weighted, (w,) = told(ak.reweight, states, far, T, kind=SmallSample)
    p = np.exp(-np.linspace(0.0, 3.0, 60) / (8.617333262e-5 * T))
    assert w.number == pytest.approx(p.sum() ** 2 / (p**2).sum(), rel=1e-6, abs=0)
    assert w.limit == pytest.approx(18.0)
    assert weighted.effective_sample_size == pytest.approx(w.number)
    assert told(ak.reweight, states, states.model_energies + np.linspace(0.0, 0.01, 60), T)[1] == []


def test_a_result_of_four_states_says_so(tiny, pair_model):
    cell, network = tiny
    model = pair_model.bind(network)
    few = sample_states(cell, 4, method="monte-carlo", model=model, temperature_K=T, seed=5)
    _, found = told(ak.transport, few, network, pair_model, None, T, kind=SmallSample)
    assert [w.number for w in found] == [4.0]
    assert found[0].limit == 5
    more = sample_states(cell, 40, method="monte-carlo", model=model, temperature_K=T, seed=5)
    assert told(ak.transport, more, network, pair_model, None, T, kind=SmallSample)[1] == []


def stand_in(contributions):
    """What ``doubts`` looks at, of a result whose groups contribute this."""
    c = np.asarray(contributions, dtype=float)
    none = SimpleNamespace(value=1.0, error=0.0)
    return SimpleNamespace(
        largest_share=float(c.max() / c.sum()),
        contribution_sample_size=float(c.sum() ** 2 / (c**2).sum()),
        effective_sample_size=float(len(c)),
        states=None,
        species=("Ag", "Cu"),
        relaxation=None,
        vacancy_diffusivity=SimpleNamespace(kind="bound"),
        collective_correlation_factor={"vacancy": none},
        kinosons={"barrier": np.full(2, np.nan), "weight": np.ones(2), "uncorrelated": np.ones(2)},
    )


def test_one_state_that_carries_the_diffusivity(tiny, pair_model):
    cell, network = tiny
    model = pair_model.bind(network)
    states = sample_states(cell, 50, method="monte-carlo", model=model, temperature_K=T, seed=3)
    result, found = told(ak.transport, states, network, pair_model, None, T, kind=FewKinosons)
    assert found == []
    energies = model.jump_energies(states.occupations, states.carriers)
    start = model.energy.energies(states.occupations)
    barrier = energies.barrier.copy()
    reverse = energies.reverse_barrier.copy()
    barrier[7] -= 0.4  # one state with four fast jumps
    reverse[7] -= 0.4
    one = ak.Barriers.from_arrays(states, network, barrier, reverse_barrier=reverse, energy_initial=start)
    result, (w,) = told(ak.transport, states, network, one, None, T, kind=FewKinosons)
    table = result.kinosons
    kappa = table["weight"] * table["uncorrelated"]
    assert w.number == pytest.approx(100 * kappa[table["state"] == 7].sum() / kappa.sum(), rel=1e-6, abs=0)
    assert w.number > w.limit == 30.0


def test_a_few_groups_of_many_that_carry_the_diffusivity():
    heavy = [1.0] * 4 + [0.005] * 96
    (w,) = doubts(stand_in(heavy), 100, has_errors=True)
    assert isinstance(w, FewKinosons)
    assert w.number == pytest.approx((4 + 0.48) ** 2 / (4 + 96 * 0.005**2))
    assert w.limit == 10
    assert doubts(stand_in(np.ones(100)), 100, has_errors=True) == []
    # control: where every group counts alike, few groups are no sign of a tail
    assert doubts(stand_in(np.ones(8)), 8, has_errors=True) == []


# -- barriers and models -----------------------------------------------------------------------------------------------


class Model:
    """A barrier model that is off by so much on states that it has not seen, and errs by so much on its test states."""

    def __init__(self, network, barrier, spread=None, *, rmse=0.02, n=200):
        self.network, self.barrier = network, barrier
        self.report = {"held_out": {"all": {"barrier": {"model": {"rmse": rmse, "n": n}}}}}
        if spread is not None:
            self.predict_with_error = lambda states: (self.barrier, np.full(self.barrier.shape, spread))

    def predict(self, states):
        return self.barrier


@pytest.fixture(scope="module")
def reference(tiny, pair_model):
    """Barriers of the pair model, as if they were computed."""
    cell, network = tiny
    model = pair_model.bind(network)
    states = sample_states(cell, 40, method="monte-carlo", model=model, temperature_K=T, seed=9)
    energies = model.jump_energies(states.occupations, states.carriers)
    start = model.energy.energies(states.occupations)
    return ak.Barriers.from_arrays(
        states,
        network,
        energies.barrier,
        energy_initial=start,
        energy_final=start[:, None] + energies.delta_e,
    )


def test_a_model_that_is_worse_than_on_its_test_states_is_far_from_its_training(reference):
    off = np.where(np.arange(reference.barrier.size).reshape(reference.barrier.shape) % 2, 0.05, -0.07)
    (w,) = far_from_training(Model(reference.network, reference.barrier + off), reference)
    assert isinstance(w, FarFromTraining)
    assert w.number == pytest.approx(np.sqrt(0.5 * (0.05**2 + 0.07**2)), rel=1e-9, abs=0)
    assert (w.limit, w.unit) == (pytest.approx(0.04), "eV")
    assert far_from_training(Model(reference.network, reference.barrier + 0.3 * off), reference) == []
    # what the error on test states was is not known from a handful
    assert far_from_training(Model(reference.network, reference.barrier + off, n=5), reference) == []


def test_an_ensemble_that_disagrees_is_far_from_its_training(reference):
    (w,) = far_from_training(Model(reference.network, reference.barrier, 0.09), reference.states)
    assert (w.number, w.limit) == (pytest.approx(0.09), pytest.approx(0.04))
    assert far_from_training(Model(reference.network, reference.barrier, 0.03), reference.states) == []


class Disagreeing:
    """An ensemble whose members differ by so much."""

    def __init__(self, model, spread):
        self.model, self.spread, self.network = model, spread, model.network
        self.energy = model.energy
        self.report = {"held_out": {"all": {"barrier": {"model": {"rmse": 0.02, "n": 200}}}}}

    def bind(self, network):
        return self

    def jump_energies(self, occupations, carriers):
        return self.model.jump_energies(occupations, carriers)

    def predict_with_error(self, states):
        barrier = self.jump_energies(states.occupations, states.carriers).barrier
        return barrier, np.full(barrier.shape, self.spread)


@pytest.mark.parametrize(("spread", "numbers"), [(0.07, [0.07]), (0.02, [])])
def test_transport_asks_an_ensemble_how_far_it_is(tiny, pair_model, reference, spread, numbers):
    model = Disagreeing(pair_model.bind(tiny[1]), spread)
    _, found = told(ak.transport, reference.states, tiny[1], model, None, T)
    assert [(type(w), w.number) for w in found] == [(FarFromTraining, pytest.approx(x)) for x in numbers]


@pytest.mark.parametrize(
    ("ratio", "error", "limits"),
    [(1.4, 0.05, [1.25]), (0.6, 0.05, [0.75]), (1.2, 0.01, []), (1.4, 0.3, []), (1.0, 0, [])],
)
def test_a_model_whose_diffusivity_is_not_that_of_the_reference(ratio, error, limits):
    found = surrogate_doubts({"vacancy": ak.Quantity(ratio, error, "1", "estimate")})
    assert [(type(w), w.number, w.limit) for w in found] == [(FarFromTraining, ratio, x) for x in limits]
    assert surrogate_doubts({}) == []


def test_surroundings_that_no_fit_has_seen(reference):
    network, states = reference.network, reference.states
    mover = network.moving_species(states.occupations, states.carriers)
    code = states.supercell.species.index("Ag")
    silver = (mover == code).sum(axis=1)
    share, n = unseen_shells(states, states[silver == 1], network)
    # of four neighbours one is silver in the few states; two atoms more are three or four, and none fewer is possible
    assert n == mover.size
    assert share == pytest.approx(np.mean(silver >= 3))
    few = states[silver == 0]  # in which no silver jumps at all
    share, _ = unseen_shells(states, few, network)
    assert share == pytest.approx(np.mean((mover == code) | (silver >= 2)[:, None]))
    assert share > 0.1
    assert unseen_shells(states, states, network)[0] == 0.0
    (w,) = far_from_training(Model(network, reference.barrier), states, few)
    assert w.number == pytest.approx(100 * share)
    assert far_from_training(Model(network, reference.barrier), states, reference) == []


def test_end_states_that_drift(tiny, reference):
    _, network = tiny
    states = reference.states
    after, carriers = network.apply(states.occupations[:1], states.carriers[:1], [0])
    back = int(network.reverse[network.basis_of(states.carriers[:1])[0], 0])
    both = ak.States.from_occupations(states.supercell, np.concatenate([states.occupations[:1], after]))
    assert both.carriers[1] == carriers[0]
    barrier = np.full((2, network.n_jumps), 0.6)
    start = np.array([0.0, 0.1])
    change = np.zeros_like(barrier)
    change[0, 0], change[1, back] = 0.1, -0.1

    def made(end):
        delta = change.copy()
        delta[0, 0] = end
        final = start[:, None] + delta
        status = np.full(barrier.shape, "not-computed", dtype="U24")
        status[0, 0] = status[1, back] = "ok"
        return ak.Barriers.from_arrays(
            both,
            network,
            barrier,
            energy_initial=start,
            energy_final=final,
            reverse_barrier=barrier - delta,
            status=status,
        )

    assert end_state_drift(made(0.1)) == []
    (w,) = end_state_drift(made(0.1 + 0.037))
    assert isinstance(w, EndStateDrift)
    assert (w.number, w.limit, w.unit) == (pytest.approx(0.037, rel=1e-6), 0.01, "eV")


@pytest.mark.parametrize(("n_lost", "warned"), [(30, True), (8, False)])
def test_ends_that_relax_away(reference, n_lost, warned):
    shape = reference.barrier.shape
    status = np.full(shape, "ok", dtype="U24")
    status.reshape(-1)[:n_lost] = "unstable-end"
    one = ak.Barriers.from_arrays(
        reference.states,
        reference.network,
        np.where(status == "ok", 0.6, np.inf),
        reverse_barrier=np.where(status == "ok", 0.6, np.inf),
        energy_initial=np.zeros(len(reference)),
        status=status,
    )
    found = [w for w in end_state_drift(one) if w.unit == "%"]
    lost = (one.status == "unstable-end").sum()
    assert [w.number for w in found] == ([pytest.approx(100 * lost / one.status.size)] if warned else [])


# -- cells -------------------------------------------------------------------------------------------------------------


def copper(n, lattice_constant=3.61):
    cell = ak.Alloy.from_atoms(bulk("Cu", "fcc", a=lattice_constant, cubic=True)).supercell(n)
    jumps = ak.JumpNetwork.from_supercell(cell)
    return ak.compute_barriers(sample_states(cell, 1, seed=0), jumps, EMT, jumps={0: [0]})


def copper_by_symmetry(n, lattice_constant=3.61):
    """Barrier of the vacancy in copper by ASE alone: half way, symmetry keeps the atom on the saddle."""
    atoms = bulk("Cu", "fcc", a=lattice_constant, cubic=True) * (n, n, n)
    ends = []
    for half in (False, True):
        one = atoms.copy()
        step = one.positions[1] - one.positions[0]
        if half:
            one.positions[1] -= 0.5 * step
        del one[0]
        one.calc = EMT()
        LBFGS(one, logfile=None).run(fmax=0.005, steps=200)
        ends.append(one.get_potential_energy())
    return ends[1] - ends[0]


def test_a_cell_that_is_too_small_is_told_by_a_larger_one():
    small, large = copper(2), copper(3)
    gap = copper_by_symmetry(2) - copper_by_symmetry(3)
    assert abs(gap) > 0.001
    found, (w,) = told(compare_cells, large, small, limit_eV=0.0005)
    assert isinstance(w, SmallCell)
    assert w.number == pytest.approx(gap, abs=2e-4)
    assert w.unit == "eV"
    assert found.warnings == (w,)
    assert found.n_sites == (32, 108)
    assert found.error == {"Cu": 0.0}
    assert found.left("Cu") == pytest.approx(w.number * 32 / (108 - 32))
    assert told(compare_cells, small, large)[1] == []
    with pytest.raises(KinosonError, match="expected two sizes"):
        compare_cells(small, small)


def alloyed(n, shift, seed):
    """Barriers of a random gas with a mean that depends on the cell."""
    cell, network = tiny_cell({"Ag": 4, "Cu": 4}) if n == 3 else larger()
    states = sample_states(cell, 30, seed=seed)
    rng = np.random.default_rng(seed)
    barrier = 0.6 + shift + 0.03 * rng.normal(size=(30, network.n_jumps))
    return ak.Barriers.from_arrays(states, network, barrier, reverse_barrier=barrier, energy_initial=np.zeros(30))


def larger():
    small, _ = tiny_cell({"Ag": 4, "Cu": 4})
    cell = ak.Supercell.from_alloy(small.alloy, (6, 6, 1), of="primitive")
    return cell, ak.JumpNetwork.from_supercell(cell)


def test_cells_of_an_alloy_are_compared_within_the_errors_of_their_means():
    found, said = told(compare_cells, alloyed(3, 0.08, 1), alloyed(6, 0.0, 2))
    assert {type(w) for w in said} == {SmallCell}
    assert all(abs(w.number - 0.08) < 4 * found.error["Ag"] for w in said)
    assert 0.002 < found.error["Ag"] < 0.02
    # a true difference of nothing, and one that cannot be told
    assert [w for w in told(compare_cells, alloyed(3, 0.0, 1), alloyed(6, 0.0, 2))[1] if isinstance(w, SmallCell)] == []
    _, unsure = told(compare_cells, alloyed(3, 0.0, 1), alloyed(6, 0.0, 2), limit_eV=0.004)
    assert {type(w) for w in unsure} == {LargeError}


def carrier_in(host, n, n_states):
    """Barriers of hydrogen in copper, or in a random alloy of it; all alike."""
    alloy = ak.Alloy.from_atoms(bulk("Cu", "fcc", a=3.61), composition=host)
    jumps = ak.JumpNetwork.from_supercell(alloy.supercell(n), mechanism="interstitial", species="H", sites="octahedral")
    barrier = np.full((n_states, jumps.n_jumps), 0.4)
    return ak.Barriers.from_arrays(
        sample_states(jumps.supercell, n_states, seed=1),
        jumps,
        barrier + 0.1 * np.arange(n_states)[:, None],
        reverse_barrier=barrier,
        energy_initial=np.zeros(n_states),
    )


def test_the_host_of_a_carrier_counts_when_cells_are_compared():
    pure, _ = told(compare_cells, carrier_in(None, 2, 1), carrier_in(None, 3, 1))
    assert pure.error == {"H": 0.0}
    mixed = {"Cu": {"Cu": 0.5, "Ni": 0.5}}
    with pytest.raises(KinosonError, match="found one group of states"):  # one arrangement of many says no error
        compare_cells(carrier_in(mixed, 2, 1), carrier_in(mixed, 3, 1))
    several, _ = told(compare_cells, carrier_in(mixed, 2, 4), carrier_in(mixed, 3, 4))
    assert several.error["H"] == pytest.approx(np.sqrt(2) * 0.1 * np.std(np.arange(4), ddof=1) / 2, rel=1e-6)
    with pytest.raises(KinosonError, match="expected one, up to the rounding"):
        compare_cells(carrier_in(None, 2, 1), carrier_in(mixed, 3, 4))


# -- relaxation --------------------------------------------------------------------------------------------------------


def test_groups_are_counted_where_weights_told_of_states(tiny, pair_model):
    """Reweighting counts states; three independent groups are few, however many states each has."""
    cell, network = tiny
    model = pair_model.bind(network)
    states = sample_states(cell, 60, method="monte-carlo", model=model, temperature_K=T, n_chains=3, sweeps=200, seed=3)
    states = ak.reweight(states, model.energy.energies(states.occupations), T)
    for groups, number in ((states.groups, [3]), (np.arange(60), [])):
        own = replace(states, groups=groups)
        _, found = told(ak.transport, own, network, pair_model, None, T, kind=SmallSample)
        assert [w.number for w in found] == number


def test_a_training_that_was_too_short_says_so(tiny):
    cell, network = tiny
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    options = {"form": "network", "n_states": 200, "hidden": 8, "seed": 1}
    y, found = told(ak.train_relaxation, cell, network, gas, lookahead=0, epochs=2, kind=NotConverged, **options)
    (w,) = found
    history = y.report["history"]
    assert w.number == pytest.approx(100 * (1 - min(history[-2:]) / min(history[:-1])), rel=1e-6, abs=0)
    assert w.number > w.limit == 1.0
    _, found = told(ak.train_relaxation, cell, network, gas, lookahead=0, epochs=24, kind=NotConverged, **options)
    assert found == []


# -- where they are collected ------------------------------------------------------------------------------------------


def test_stages_keep_types_numbers_and_advice(tmp_path):
    w = SmallSample("found 3; expected 5", number=3, limit=5, unit="states", advice="add states")

    def compute():
        warnings.warn(w, stacklevel=1)
        warnings.warn("a sentence", KinosonWarning, stacklevel=1)
        return 1

    stages = Stages(tmp_path)
    stages.run("one", "key", title="", compute=compute, save=lambda x: None, load=lambda: 1)
    again = Stages(tmp_path)
    assert again.run("one", "key", title="", compute=compute, save=lambda x: None, load=lambda: 2) == 2
    assert again.warnings["one"] == stages.warnings["one"] == [w, KinosonWarning("a sentence")]
    # a stamp of an older version holds sentences
    stamp = again.stamp("one")
    about = json.loads(stamp.read_text())
    about = {k: about[k] for k in ("fingerprint", "wall_s")} | {"warnings": ["an old sentence"]}
    stamp.write_text(json.dumps(about))
    old = Stages(tmp_path)
    old.run("one", "key", title="", compute=compute, save=lambda x: None, load=lambda: 2)
    assert old.warnings["one"] == [KinosonWarning("an old sentence")]


def test_only_our_own_warnings_are_recorded():
    with pytest.warns(DeprecationWarning, match="other"), recorded_warnings() as found:
        warnings.warn(SmallSample("few", number=1), stacklevel=1)
        warnings.warn("other", DeprecationWarning, stacklevel=1)
    assert found == [SmallSample("few", number=1)]


def test_the_report_groups_them_with_number_limit_and_advice():
    made = [
        ("weights-600K", SmallSample("few <states>", number=3.14159, limit=5, unit="states", advice="add states")),
        ("model-600K", FarFromTraining("far", number=0.09, limit=0.04, unit="eV", advice="fit again")),
        ("weights-900K", SmallSample("fewer", number=2, limit=5, unit="states", advice="add states")),
    ]
    summary = {"warnings": [f"{s}: {w}" for s, w in made], "cautions": [{"stage": s, **w.as_dict()} for s, w in made]}
    page = warnings_list(summary)
    assert re.findall("<h3>(.*?)</h3>", page) == ["Small sample", "Far from training"]
    assert page.count("add states") == 1  # advice once for those it is for
    assert page.index("few &lt;states&gt;") < page.index("fewer") < page.index("add states") < page.index("far")
    for text in ("3.14 states", "limit 5", "0.09 eV", "limit 0.04", "weights-900K", "What to do: fit again"):
        assert text in page
    # a summary of an older version
    assert "few &lt;states&gt;" in warnings_list({"warnings": summary["warnings"]})
    assert "No stage" in warnings_list({"warnings": [], "cautions": []})


def test_a_result_keeps_its_warnings_in_json(tiny, pair_model):
    cell, network = tiny
    result, _ = told(ak.transport, sample_states(cell, 60, seed=1), network, pair_model, None, T)
    assert result.warnings
    again = ak.Transport.from_dict(json.loads(json.dumps(result.as_dict())))
    assert again.warnings == result.warnings


def test_the_command_line_prints_the_sentence(capsys):
    from ase_kinoson.cli import _show_warning

    w = SmallSample("found 3; expected 5", number=3, limit=5, advice="add states")
    _show_warning(w, type(w), "file", 1)
    assert capsys.readouterr().err == "note: found 3; expected 5; add states\n"
