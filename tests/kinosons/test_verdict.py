"""A number is called a bound only where it is one."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units

import ase_kinoson as ak
from ase_kinoson.errors import BarrierError, KinosonError, StatesError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.kinosons.verdict import heavy_share

T = 600.0


@pytest.fixture(scope="module")
def drawn(tiny, pair_model):
    cell, network = tiny
    source = pair_model.bind(network)
    return sample_states(cell, 600, method="monte-carlo", model=source, temperature_K=T, seed=11, n_chains=200)


def reference(states, network, model, *, status=None):
    """Barriers of a model, as if they were computed."""
    source = model.bind(network)
    energies = source.jump_energies(states.occupations, states.carriers)
    start = source.energy.energies(states.occupations)
    lost = np.zeros(energies.barrier.shape, bool) if status is None else status != "ok"
    return ak.Barriers.from_arrays(
        states,
        network,
        np.where(lost, np.inf, energies.barrier),
        reverse_barrier=np.where(lost, np.inf, energies.reverse_barrier),
        energy_initial=start,
        energy_final=start[:, None] + energies.delta_e,
        status=status,
    )


def statuses(states, network, name, jump=0):
    status = np.full((len(states), network.n_jumps), "ok", dtype="U24")
    status[::7, jump] = name
    return status


def test_complete_barriers_make_a_bound(tiny, pair_model, drawn):
    _, network = tiny
    result = ak.transport(drawn, network, reference(drawn, network, pair_model), None, T)
    assert result.vacancy_diffusivity.kind == "bound"
    assert 1 < result.contribution_sample_size <= 600


@pytest.mark.parametrize(
    ("status", "kind"), [("not-converged", "estimate"), ("calculator-failed", "estimate"), ("unstable-end", "bound")]
)
def test_failed_searches_are_missing_data_but_unstable_ends_are_not(tiny, pair_model, drawn, status, kind):
    _, network = tiny
    found = reference(drawn, network, pair_model, status=statuses(drawn, network, status))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ak.transport(drawn, network, found, None, T)
    texts = [str(w.message) for w in caught]
    if any("drifts" in text for text in texts):  # a rejected class of jumps may unbalance the energies: then no bound
        kind = "not a bound"
    assert result.vacancy_diffusivity.kind == kind
    assert any("searches failed" in text for text in texts) == (status != "unstable-end")
    # searches that failed from one end only are no loss; ends that are not stable are closed from both
    spared = len(found.settings.get("taken_from_reverse", ()))
    assert result.n_rejected + spared >= -(-len(drawn) // 7)
    assert result.n_rejected > 0 and (spared == 0) == (status == "unstable-end")


def test_jumps_that_were_not_computed_are_refused(tiny, pair_model, drawn):
    _, network = tiny
    found = reference(drawn, network, pair_model, status=statuses(drawn, network, "not-computed"))
    with pytest.raises(BarrierError, match="were not computed"):
        ak.transport(drawn, network, found, None, T)


def test_unweighted_states_of_another_model_are_no_bound(tiny, pair_model):
    cell, network = tiny
    rough = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.04}), {"Ag": 0.6, "Cu": 0.5})
    states = sample_states(cell, 400, method="monte-carlo", model=rough.bind(network), temperature_K=T, seed=4)
    found = reference(states, network, pair_model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ak.transport(states, network, found, None, T)
    assert any("call reweight" in str(w.message) for w in caught)
    assert result.vacancy_diffusivity.kind == "not a bound"
    weighted = ak.reweight(states, found.energy_initial, T)
    assert ak.transport(weighted, network, found, None, T).vacancy_diffusivity.kind == "bound"


def test_states_that_drift_are_no_bound(tiny, pair_model):
    """Random states that are called equilibrium ones: their energy falls."""
    cell, network = tiny
    states = replace(sample_states(cell, 400, seed=1), ensemble="equilibrium")
    with pytest.warns(ak.KinosonWarning, match="energy drifts"):
        result = ak.transport(states, network, pair_model, None, T)
    assert result.vacancy_diffusivity.kind == "not a bound" and result.drift.value < 0


def test_temperatures_must_agree(tiny, pair_model, drawn):
    cell, network = tiny
    with pytest.raises(StatesError, match="600 K for rates at 900 K"):
        ak.transport(drawn, network, pair_model, None, 900.0)
    with pytest.raises(StatesError, match="600 K for rates at 900 K"):
        ak.train_relaxation(cell, network, pair_model, temperature_K=900.0, states=drawn)
    rates = ak.Rates.of(pair_model, network, temperature_K=T)
    with pytest.raises(KinosonError, match="one temperature"):
        ak.transport(drawn, network, rates, None, 900.0)
    a = ak.transport(drawn, network, rates, None, T).vacancy_diffusivity
    b = ak.transport(drawn, network, pair_model, None, T).vacancy_diffusivity
    assert float(a) == float(b)


def test_states_that_trained_y_are_no_held_out_bound(tiny, pair_model, drawn):
    cell, network = tiny
    y = ak.train_relaxation(cell, network, pair_model, temperature_K=T, states=drawn, epochs=1, hidden=4)
    with pytest.warns(ak.KinosonWarning, match="no held-out bound"):
        assert ak.transport(drawn, network, pair_model, y, T).vacancy_diffusivity.kind == "estimate"


def test_one_group_that_carries_everything_is_announced():
    size, share = heavy_share(np.array([1.0, 1.0, 1.0, 97.0]), np.arange(4))
    assert share == pytest.approx(0.97)
    assert size < 1.1
    size, share = heavy_share(np.ones(10), np.arange(10))
    assert (size, share) == (pytest.approx(10.0), pytest.approx(0.1))
    size, share = heavy_share(np.ones(10), np.arange(10) // 5)  # states of one group are one
    assert (size, share) == (pytest.approx(2.0), pytest.approx(0.5))


def test_zero_rates_do_not_break_the_exact_solver(tiny):
    cell, network = tiny
    frozen = ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 0.0, "Cu": 1.0}))
    almost = ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 1e-9, "Cu": 1.0}))
    assert frozen.lambda_matrix.value[0, 0] == pytest.approx(0.0, abs=1e-12)
    # an atom that never moves blocks its site: a little less than the limit of slow exchange
    assert 0 < frozen.lambda_matrix.value[1, 1] <= almost.lambda_matrix.value[1, 1] * (1 + 1e-6)


def test_slope_of_the_quenched_ensemble(tiny, pair_model):
    cell, network = tiny
    space = StateSpace.enumerate(network)

    def value(temperature: float) -> float:
        rates = ak.Rates.of(pair_model, network, temperature_K=temperature)
        w = rates(space.occupations, space.carriers)
        length = np.square(network.vectors[0]).sum(-1)
        return float(space.weights(rates, ensemble="quenched") @ (w @ length))

    low, high = 595.0, 605.0
    beta = [1 / (units.kB * t) for t in (low, high)]
    slope = -(np.log(value(high)) - np.log(value(low))) / (beta[1] - beta[0])
    states = sample_states(
        cell,
        12_000,
        method="monte-carlo",
        model=pair_model.bind(network),
        temperature_K=T,
        ensemble="quenched",
        n_chains=300,
        seed=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ak.KinosonWarning)
        result = ak.transport(states, network, pair_model, None, T)
    energy = ak.KinosonDensity.from_result(result).activation_energy()
    assert abs(energy.value - slope) < 3 * energy.error + 1e-3
    one = sample_states(
        cell, 50, method="monte-carlo", model=pair_model.bind(network), temperature_K=T, ensemble="quenched", seed=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ak.KinosonWarning)
        single = ak.KinosonDensity.from_result(ak.transport(one, network, pair_model, None, T))
    with pytest.raises(KinosonError, match="one state per arrangement"):
        single.activation_energy()


def test_buckling_does_not_count_as_diffusion():
    """A honeycomb sheet buckled out of its plane has the correlation factors of the flat one."""

    def sheet(height: float) -> ak.Transport:
        atoms = Atoms(
            "C2",
            cell=[[3**0.5, 0, 0], [-(3**0.5) / 2, 1.5, 0], [0, 0, 12]],
            scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5 + height / 12]],
            pbc=(1, 1, 0),
        )
        cell = ak.Alloy.from_atoms(atoms, {"C": {"Ag": 0.5, "Cu": 0.5}}).supercell((3, 3, 1))
        network = ak.JumpNetwork.from_supercell(cell)
        counts = {"Ag": cell.n_sites - 2, "Cu": 1}
        return ak.exact_transport(cell, network, ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}), counts=counts, tracers=False)

    flat, buckled = sheet(0.0), sheet(0.4)
    assert float(flat.collective_correlation_factor["vacancy"]) == pytest.approx(1.0)
    assert float(buckled.collective_correlation_factor["vacancy"]) == pytest.approx(1.0)
    assert float(buckled.vacancy_diffusivity) == pytest.approx(float(flat.vacancy_diffusivity), rel=1e-9, abs=0)
    assert buckled.collective_correlation_factor["Cu"].value == pytest.approx(
        flat.collective_correlation_factor["Cu"].value, rel=1e-9
    )
