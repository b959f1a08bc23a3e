"""Units, normalisations, errors and refusals of `transport`."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from ase import units
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, ModelError, StatesError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.statistics import Bootstrap
from ase_kinoson.units import EV_IN_JOULE


@pytest.fixture(scope="module")
def pure():
    """Pure Cu, 32 sites, one activation energy: everything is known in closed form."""
    cell = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6)).supercell(2)
    network = ak.JumpNetwork.from_supercell(cell)
    energy = ak.PairEnergy.from_interactions(cell, {})
    return cell, network, ak.PairBarriers(energy, {"Cu": 0.7})


def test_pure_metal_in_laboratory_units(pure):
    cell, network, model = pure
    temperature, nu, cv = 1000.0, 5e12, 1e-4
    rate = nu * np.exp(-0.7 / (units.kB * temperature))
    result = ak.exact_transport(cell, network, model, temperature, vacancy_fraction=cv, attempt_frequency=nu)
    length = 3.6e-10 / np.sqrt(2)
    expected = 12 * rate * length**2 / 6
    assert float(result.vacancy_diffusivity) == pytest.approx(expected, rel=1e-9, abs=0)
    # D* = f a² ν exp(−E/kT) c_v (a² rate = Γ l²/6), with f of the 32-site cell, per atom: x = 31/32
    f = result.correlation_factor["Cu"].value
    assert f == pytest.approx(0.811320755, abs=1e-8)
    assert float(result.tracer_diffusivity["Cu"]) == pytest.approx(f * expected * cv * 32 / 31, rel=1e-9, abs=0)
    volume = 3.6e-10**3 / 4
    onsager = expected * cv / (volume * units.kB * temperature * EV_IN_JOULE)
    assert result.onsager_matrix.value[0, 0] == pytest.approx(onsager, rel=1e-9, abs=0)
    assert result.onsager_matrix.unit == "1/(m J s)"
    assert result.tracer_diffusivity["Cu"].unit == "m^2/s"


def test_without_a_vacancy_fraction_the_unit_says_so(pure):
    cell, network, model = pure
    result = ak.exact_transport(cell, network, model, 1000.0)
    assert result.tracer_diffusivity["Cu"].unit == "m^2/s per c_v"
    assert result.onsager_matrix.unit == "1/(m J s) per c_v"
    with pytest.raises(KinosonError, match="at most 1"):
        ak.exact_transport(cell, network, model, 1000.0, vacancy_fraction=1.5)


def test_kinosons_add_up(tiny, pair_model, pair_relaxation):
    cell, network = tiny
    states = ak.exact_transport(cell, network, pair_model, 600.0).states
    result = ak.transport(states, network, pair_model, pair_relaxation, 600.0, vacancy_fraction=0.1)
    table = result.kinosons
    assert len(table) == len(states) * 4
    total = float((table["weight"] * table["kinoson_vacancy"]).sum()) * 1e-20
    assert total == pytest.approx(float(result.vacancy_diffusivity), rel=1e-12, abs=0)
    for i, s in enumerate(result.species):
        own = float((table["weight"] * table[f"kinoson_{s}"]).sum())
        assert own == pytest.approx(result.lambda_matrix.value[i, i], rel=1e-12, abs=0)
        tracer = float((table["weight"] * table[f"tracer_{s}"]).sum()) * 1e-20 * 0.1 / (4 / 9)
        assert tracer == pytest.approx(float(result.tracer_diffusivity[s]), rel=1e-12, abs=0)
    # the vacancy moves against all atoms together
    both = np.sum(result.lambda_matrix.value) * 1e-20
    assert float(result.vacancy_diffusivity) == pytest.approx(both, rel=1e-12, abs=0)
    json.dumps(result.as_dict())


def test_table_as_csv_and_dataframe(tiny, pair_model, tmp_path):
    cell, network = tiny
    states = ak.exact_transport(cell, network, pair_model, 600.0).states
    table = ak.transport(states, network, pair_model, None, 600.0).kinosons
    table.write_csv(tmp_path / "kinosons.csv")
    lines = (tmp_path / "kinosons.csv").read_text().splitlines()
    assert len(lines) == len(table) + 1
    assert "barrier [eV]" in lines[0]
    assert "tracer_Cu [Å^2/s]" in lines[0]
    assert list(table.to_dataframe().columns) == list(table.columns)


def test_bootstrap_error_of_a_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    boot = Bootstrap.over(np.full(400, 1 / 400), np.arange(400), n_resamples=1000)
    value, error = boot.estimate(lambda m: m, x)
    assert value == pytest.approx(x.mean())
    assert error == pytest.approx(x.std() / 20, rel=0.1)
    # ten copies of every state know no more: groups keep the error honest, and without them it would be too small
    copies = np.repeat(x[:40], 10)
    grouped = Bootstrap.over(np.full(400, 1 / 400), np.repeat(np.arange(40), 10), n_resamples=1000)
    naive = Bootstrap.over(np.full(400, 1 / 400), np.arange(400), n_resamples=1000)
    assert grouped.estimate(lambda m: m, copies)[1] == pytest.approx(x[:40].std() / np.sqrt(40), rel=0.15)
    assert naive.estimate(lambda m: m, copies)[1] < 0.5 * grouped.estimate(lambda m: m, copies)[1]


def test_copies_of_a_state_bring_no_information(tiny, pair_model, pair_relaxation):
    """Weighted states, and the same states listed as often as they weigh: one result, one error."""
    cell, network = tiny
    states = sample_states(cell, 30, method="monte-carlo", model=pair_model.bind(network), temperature_K=600.0, seed=4)
    times = 1 + np.arange(30) % 4
    rows = np.repeat(np.arange(30), times)
    once = states.with_weights(times.astype(float))

    def listed(groups: np.ndarray) -> ak.States:
        return ak.States.from_occupations(
            cell,
            states.occupations[rows],
            carriers=states.carriers[rows],
            groups=groups,
            ensemble=states.ensemble,
            temperature_K=600.0,
        )

    def evaluate(given: ak.States) -> ak.Transport:
        with warnings.catch_warnings():  # about the drift, which is no subject here
            warnings.simplefilter("ignore", ak.KinosonWarning)
            return ak.transport(given, network, pair_model, pair_relaxation, 600.0, n_resamples=300)

    def numbers(result: ak.Transport) -> list:
        several = (*result.tracer_diffusivity.values(), *result.correlation_factor.values())
        return [result.vacancy_diffusivity, *several, result.onsager_matrix]

    plain, weighted, grouped, naive = (
        numbers(evaluate(s)) for s in (states, once, listed(rows), listed(np.arange(len(rows))))
    )
    for p, a, b, c in zip(plain, weighted, grouped, naive, strict=True):
        np.testing.assert_allclose(b.value, a.value, rtol=1e-9)
        np.testing.assert_allclose(b.error, a.error, rtol=1e-6)
        # broken twins: copies taken as independent know too much, and weights do matter
        assert np.all(np.asarray(c.error) < 0.9 * np.asarray(a.error))
        assert np.abs(np.asarray(p.value) / np.asarray(a.value) - 1).max() > 1e-3


def test_one_state_has_no_known_error(tiny, pair_model):
    cell, network = tiny
    states = sample_states(cell, 1, method="monte-carlo", model=pair_model.bind(network), temperature_K=600.0, seed=1)
    result = ak.transport(states, network, pair_model, None, 600.0)
    assert np.isnan(result.vacancy_diffusivity.error)


def test_refusals(tiny, pair_model, pure):
    cell, network = tiny
    states = sample_states(cell, 3, seed=0)
    with pytest.raises(KinosonError, match="temperature_K"):
        ak.transport(states, network, pair_model)
    with pytest.raises(KinosonError, match="positive number of kelvin"):
        ak.transport(states, network, pair_model, None, -5.0)
    with pytest.raises(StatesError, match="supercell"):
        ak.transport(states, pure[1], pair_model, None, 600.0)
    with pytest.raises(ModelError, match="source of barriers"):
        ak.transport(states, network, "a string", None, 600.0)
    with pytest.raises(KinosonError, match="rates"):
        ak.transport(states, network, ak.SpeciesRates({"Ag": 1.0}))
    with pytest.raises(KinosonError, match="attempt_frequency"):
        ak.transport(states, network, pair_model, None, 600.0, attempt_frequency=0.0)


def test_states_that_trained_the_model_are_no_held_out_bound(tiny, pair_model):
    cell, network = tiny
    source = pair_model.bind(network)
    states = sample_states(cell, 40, method="monte-carlo", model=source, temperature_K=600.0, seed=1)
    energies = source.jump_energies(states.occupations, states.carriers)
    start = source.energy.energies(states.occupations)
    reference = ak.Barriers.from_arrays(
        states,
        network,
        energies.barrier,
        reverse_barrier=energies.reverse_barrier,
        energy_initial=start,
        energy_final=start[:, None] + energies.delta_e,
    )
    fresh = sample_states(cell, 40, method="monte-carlo", model=source, temperature_K=600.0, seed=2)
    known = set(states.keys)
    fresh = fresh[[i for i, key in enumerate(fresh.keys) if key not in known]]
    model = ak.BarrierModel.fit(reference, seed=0, epochs=2)
    relaxation = ak.Relaxation.create(network, rates=ak.Rates.of(model, network, temperature_K=600.0))
    with pytest.warns(ak.KinosonWarning, match="no held-out bound"):
        leaked = ak.transport(states, network, reference, relaxation, 600.0)
    assert leaked.vacancy_diffusivity.kind == "estimate"
    again = source.jump_energies(fresh.occupations, fresh.carriers)
    start = source.energy.energies(fresh.occupations)
    held = ak.Barriers.from_arrays(
        fresh,
        network,
        again.barrier,
        reverse_barrier=again.reverse_barrier,
        energy_initial=start,
        energy_final=start[:, None] + again.delta_e,
    )
    assert ak.transport(fresh, network, held, relaxation, 600.0).vacancy_diffusivity.kind == "bound"
