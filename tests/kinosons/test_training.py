"""What a relaxation is trained on and what it looks ahead to, against explicit sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ase_kinoson as ak
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons import training
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
    pools, scale = training._prepare(y, states, np.random.default_rng(0))
    loss = training._evaluate(y, pools, scale, 16)

    def bounds(of: ak.States) -> float:
        result = ak.transport(of, network, GAS, y, n_resamples=2)
        factors = [*result.collective_correlation_factor.values(), *result.correlation_factor.values()]
        assert len(factors) == 5
        return float(np.mean([float(q) for q in factors]))

    assert loss == pytest.approx(bounds(states), rel=1e-9)
    assert abs(loss - bounds(states.with_weights(np.ones(40)))) > 1e-3


def test_validation_states_are_never_trained_on(tiny, monkeypatch):
    cell, network = tiny
    groups = np.repeat(100 + 7 * np.arange(10), 4)
    made = sample_states(cell, 40, seed=3)
    states = ak.States.from_occupations(cell, made.occupations, carriers=made.carriers, groups=groups)
    masks, prepared = [], []
    held_out, prepare = training._held_out, training._prepare

    def spy_mask(*args, **kwargs):
        masks.append(held_out(*args, **kwargs))
        return masks[-1]

    def spy_states(relaxation, part, *args, **kwargs):
        prepared.append(part)
        return prepare(relaxation, part, *args, **kwargs)

    monkeypatch.setattr(training, "_held_out", spy_mask)
    monkeypatch.setattr(training, "_prepare", spy_states)
    first = train(states, network, epochs=1)
    (held,) = masks
    fitted, checked = prepared
    assert (len(fitted), len(checked)) == (32, 8)
    assert (first.report["n_training_states"], first.report["n_validation_states"]) == (32, 8)
    assert not set(fitted.groups.tolist()) & set(checked.groups.tolist())
    assert len(set(checked.groups.tolist())) == 2
    # other validation states judge the steps differently and change none of them
    assert first.report["history"][1] < first.report["history"][0]
    other = with_rows(states, np.flatnonzero(held), sample_states(cell, 40, seed=11))
    second = train(other, network, epochs=1)
    assert second.report["history"][1] < second.report["history"][0]
    assert first.report["history"] != second.report["history"]
    for a, b in zip(first.field.parameters(), second.field.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())
    # broken twin: other training states do
    third = train(with_rows(states, np.flatnonzero(~held), sample_states(cell, 40, seed=11)), network, epochs=1)
    assert third.report["history"][1] < third.report["history"][0]
    pairs = zip(first.field.parameters(), third.field.parameters(), strict=True)
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
@pytest.mark.parametrize("lookahead", [1, 2, 3])
@pytest.mark.parametrize("trained", [False, True])
def test_lookahead_is_the_sum_over_all_sequences_of_jumps(size, cutoff, lookahead, trained):
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
