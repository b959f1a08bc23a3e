"""One jump deeper: y + θ r̄ evaluated in full."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonWarning, ModelError, StatesError
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.validation import PARENTS, hcp_interstitials

GAS = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})


def bias(network: ak.JumpNetwork, model, temperature_K: float | None = None, **options) -> ak.Relaxation:
    rates = ak.Rates.of(model, network, temperature_K=temperature_K)
    return ak.Relaxation.create(network, rates=rates, form="paths", gates=0, **options)


def value(states, network, model, y, temperature_K=None) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        found = ak.transport(states, network, model, y, temperature_K, n_resamples=2)
    return {"vacancy": float(found.vacancy_diffusivity)} | {
        s: float(found.tracer_diffusivity[s]) for s in found.species
    }


def by_hand(y: ak.Relaxation, scales, occ, carriers):
    """y + θ r̄ of every site, from y of the states and of their neighbours alone."""
    network = y.network
    assert y.rates is not None
    rates = y.rates(occ, carriers)
    p = rates / rates.sum(axis=1, keepdims=True)
    own = y(occ, carriers)
    mean = np.zeros_like(own)
    rows = np.arange(len(occ))
    vacancy = network.mechanism == "vacancy"
    for k in range(network.n_jumps):
        there = network.exists[network.basis_of(carriers), k]
        after, where = network.apply(occ[there], carriers[there], np.full(there.sum(), k))
        behind = y(after, where)
        r, begin, end = rows[there], carriers[there], where
        i = np.arange(len(r))
        behind[i, begin], behind[i, end] = behind[i, end].copy(), behind[i, begin].copy()
        change = behind - own[there]
        vectors = network.vectors[network.basis_of(begin), k]
        change[i, end if vacancy else begin] += -vectors if vacancy else vectors
        mean[there] += p[there, k, None, None] * change
    return own + np.concatenate([[0.0], scales])[occ][..., None] * mean


@pytest.mark.parametrize("lookahead", [1, 2])
def test_field_is_that_of_the_states_and_their_neighbors(tiny, pair_model, lookahead):
    cell, network = tiny
    y = bias(network, pair_model, 600.0, lookahead=lookahead)
    y.scales = np.array([0.7, 0.4])
    states = ak.sample_states(cell, 20, seed=3)
    ours = y(states.occupations, states.carriers)
    plain = replace(y, scales=None, _balls={}, _around={})
    wanted = by_hand(plain, y.scales, states.occupations, states.carriers)
    np.testing.assert_allclose(ours, wanted, atol=2e-6)
    # broken twin: one factor for all
    assert np.abs(ours - by_hand(plain, [0.7, 0.7], states.occupations, states.carriers)).max() > 1e-3


def test_interstitials_in_a_crystal_of_several_sites():
    network = hcp_interstitials()
    cell, model = network.supercell, ak.SiteBarriers((0.0, 0.2), tuple(0.5 + 0.1 * k for k in range(network.n_classes)))
    y = bias(network, model, 800.0, lookahead=1)
    y.scales = np.full(len(cell.species) - 1, 0.6)
    states = ak.sample_states(cell, 8, seed=1)
    plain = replace(y, scales=None, _balls={}, _around={})
    wanted = by_hand(plain, y.scales, states.occupations, states.carriers)
    np.testing.assert_allclose(y(states.occupations, states.carriers), wanted, atol=2e-6)


def test_displacements_are_differences_of_the_field(tiny, pair_model):
    cell, network = tiny
    y = bias(network, pair_model, 600.0, lookahead=1)
    y.scales = np.array([0.5, 0.9])
    states = ak.sample_states(cell, 6, seed=4)
    terms = jump_terms(y, states.occupations, states.carriers)
    rows = np.arange(6)
    own = y(states.occupations, states.carriers)
    for k in range(network.n_jumps):
        after, where = network.apply(states.occupations, states.carriers, np.full(6, k))
        behind = y(after, where)
        behind[rows, where], behind[rows, states.carriers] = behind[rows, states.carriers].copy(), 0.0
        change = behind - own
        change[rows, where] -= network.vectors[network.basis_of(states.carriers), k]
        for a in range(2):
            mine = states.occupations == a + 1
            np.testing.assert_allclose(terms.displacement[:, k, a], (change * mine[..., None]).sum(axis=1), atol=2e-6)


def test_deeper_is_tighter_and_still_a_bound(tiny):
    cell, network = tiny
    space = StateSpace.enumerate(network)
    states = space.states(np.full(len(space), 1.0 / len(space)), ensemble="equilibrium")
    exact = value_of_exact(ak.exact_transport(cell, network, GAS))
    y = bias(network, GAS, lookahead=1)
    deep = ak.deepen(y, states)
    plain, found = value(states, network, GAS, y), value(states, network, GAS, deep)
    for name, limit in exact.items():
        assert limit <= found[name] * (1 + 1e-6), name
    assert sum(found[n] / plain[n] for n in found) < len(found) - 0.1
    # no other factors are better, in sum
    for step in ([0.1, 0.0], [0.0, 0.1], [-0.1, 0.1]):
        other = replace(deep, scales=deep.scales + step, _balls={}, _around={})
        assert total(value(states, network, GAS, other), plain) > total(found, plain)
    # broken twin: the residual with the wrong sign
    wrong = replace(deep, scales=-deep.scales, _balls={}, _around={})
    assert total(value(states, network, GAS, wrong), plain) > len(found) + 0.1


def test_factors_are_those_of_the_weighted_states_along_the_layer(tiny):
    """States without weight have no say, and neither has the height of the sites of a layer."""
    cell, network = tiny
    states = ak.sample_states(cell, 30, seed=2)
    first = np.arange(30) < 10
    y = bias(network, GAS, lookahead=1)
    own = ak.deepen(y, states[first]).scales
    np.testing.assert_allclose(ak.deepen(y, states.with_weights(first.astype(float))).scales, own, rtol=1e-9)
    assert np.abs(ak.deepen(y, states).scales - own).max() > 1e-3

    def factors(height: float) -> np.ndarray:
        atoms = PARENTS["honeycomb"]()
        atoms.positions[1, 2] += height
        sheet = ak.Alloy.from_atoms(atoms, {"C": {"Ag": 0.5, "Cu": 0.5}}).supercell((4, 4, 1))
        along = bias(ak.JumpNetwork.from_supercell(sheet), GAS, lookahead=1)
        return ak.deepen(along, ak.sample_states(sheet, 20, seed=5)).scales

    np.testing.assert_allclose(factors(0.8), factors(0.0), rtol=1e-6)


def test_training_ends_one_jump_deeper(tiny):
    cell, network = tiny
    options = dict(form="paths", lookahead=1, gates=0, n_states=100, seed=1)
    plain, deep = (ak.train_relaxation(cell, network, GAS, deeper=n, **options) for n in (0, 40))
    assert plain.scales is None
    assert deep.scales.shape == (2,)
    states = ak.sample_states(cell, 200, seed=9)
    assert value(states, network, GAS, deep)["vacancy"] < 0.97 * value(states, network, GAS, plain)["vacancy"]


def value_of_exact(result) -> dict[str, float]:
    return {"vacancy": float(result.vacancy_diffusivity)} | {
        s: float(result.tracer_diffusivity[s]) for s in result.species
    }


def total(found: dict[str, float], unit: dict[str, float]) -> float:
    return sum(found[n] / unit[n] for n in found)


def test_files_and_refusals(tiny, tmp_path):
    cell, network = tiny
    states = ak.sample_states(cell, 30, seed=6)
    y = bias(network, GAS, lookahead=1)
    deep = ak.deepen(y, states)
    deep.save(tmp_path / "y")
    again = ak.Relaxation.load(tmp_path / "y", network, model=GAS)
    np.testing.assert_array_equal(again(states.occupations, states.carriers), deep(states.occupations, states.carriers))
    assert set(states.keys) <= set(again.report["training_keys"])
    plain = ak.Relaxation.create(network, rates=ak.Rates.of(GAS, network), lookahead=0, hidden=4, seed=1)
    ak.deepen(plain, states).save(tmp_path / "z")
    again = ak.Relaxation.load(tmp_path / "z", network, model=GAS)
    assert again(states.occupations, states.carriers).any()
    with pytest.raises(ModelError, match="fine-tune that one"):
        ak.fine_tune(deep, states, GAS)
    with pytest.raises(ModelError, match="one jump more already"):
        ak.deepen(deep, states)
    with pytest.raises(ModelError, match="no model rates"):
        ak.deepen(ak.Relaxation.create(network, lookahead=0), states)
    with pytest.raises(StatesError, match="sites"):
        ak.deepen(y, ak.sample_states(cell.alloy.supercell((4, 3, 1)), 3, seed=0))
