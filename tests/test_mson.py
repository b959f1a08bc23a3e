"""Round trips of public classes through JSON in the MSONable convention; twins that lose something fail them."""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
import pytest
from monty.json import MontyDecoder, MontyEncoder, MSONable
from monty.serialization import dumpfn, loadfn

import ase_kinoson as ak
from ase_kinoson import mson
from ase_kinoson.errors import KinosonError

T = 600.0


def same(a, b):
    """Equal bit for bit at any depth, types of containers included."""
    if dataclasses.is_dataclass(a):
        left_out = getattr(a, "not_stored", ())
        return type(a) is type(b) and all(
            json.dumps(a.settings) == json.dumps(b.settings)  # free-form: what JSON knows of them
            if f.name == "settings"
            else same(getattr(a, f.name), getattr(b, f.name))
            for f in dataclasses.fields(a)
            if f.name not in left_out
        )
    if isinstance(a, np.ndarray):
        equal_nan = a.dtype.kind == "f"
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=equal_nan)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and np.isnan(a):
        return isinstance(b, float) and np.isnan(b)
    return a == b


def there_and_back(value):
    return json.loads(json.dumps(value, cls=MontyEncoder), cls=MontyDecoder)


@pytest.fixture(scope="module")
def states(tiny, pair_model):
    return ak.sample_states(
        tiny[0], 30, method="monte-carlo", model=pair_model.energy, temperature_K=T, n_chains=30, sweeps=20, seed=0
    )


@pytest.fixture(scope="module")
def results(tiny, pair_model, states):
    """One result of every kind."""
    _, network = tiny
    given = {"temperature_K": T, "vacancy_fraction": 1e-4}
    one = ak.transport(states, network, pair_model, n_resamples=20, **given)
    with pytest.warns(ak.KinosonWarning):
        corrected = ak.correct(one, pair_model, n_steps=8, n_resamples=20, seed=0)
    kmc = ak.run_kmc(states, network, pair_model, n_jumps=128, n_walkers=30, n_resamples=20, **given)
    return {
        "transport": one,
        "corrected": corrected,
        "kmc": kmc,
        "exact": ak.exact_transport(tiny[0], network, pair_model, **given),
    }


@pytest.mark.parametrize("which", ["transport", "corrected", "kmc", "exact"])
def test_results_come_back_bit_for_bit(results, which, tmp_path):
    result = results[which]
    assert isinstance(result, MSONable)
    loaded = there_and_back(result)
    assert type(loaded) is type(result) and same(result, loaded)
    # every number of as_dict() stays where it was, for those who read it without this package
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["vacancy_diffusivity"]["value"] == float(result.vacancy_diffusivity)
    assert plain["@class"] == type(result).__name__ and plain["temperature_K"] == T
    # containers of results through monty's files
    dumpfn({"results": [result]}, tmp_path / "results.json.gz")
    assert same(loadfn(tmp_path / "results.json.gz")["results"][0], result)


def test_what_is_derived_from_a_loaded_result_is_the_same_with_its_errors(results, states, tiny, pair_model):
    result = results["transport"]
    loaded = there_and_back(result)
    assert same(ak.vacancy_wind(loaded), ak.vacancy_wind(result))
    assert same(ak.interdiffusion(loaded, (1.2, 0.1)), ak.interdiffusion(result, (1.2, 0.1)))
    one, two = (ak.KinosonDensity.from_result(r, network=r.network) for r in (result, loaded))
    assert same(one.activation_energy(), two.activation_energy())
    assert np.array_equal(one.neighbours()[1], two.neighbours()[1])
    others = ak.transport(states, tiny[1], pair_model, temperature_K=T, n_resamples=20)
    others = [dataclasses.replace(others, temperature_K=t) for t in (700.0, 800.0)]
    before = ak.fit_temperature_models([result, *others])
    after = ak.fit_temperature_models([loaded, *map(there_and_back, others)])
    assert same(before, after) and np.isfinite(before.log_error).all()
    assert loaded.relaxation is None
    # without the resamples there would be nothing to derive from
    with pytest.raises(KinosonError, match="without its averages"):
        ak.vacancy_wind(dataclasses.replace(loaded, averages=None))


def test_densities_come_back(results):
    density = ak.KinosonDensity.from_result(results["transport"], network=results["transport"].network)
    loaded = there_and_back(density)
    assert isinstance(density, MSONable) and same(density, loaded)
    assert same(density.mean_barrier(), loaded.mean_barrier())
    assert np.array_equal(loaded.over_neighbours("Ag").shares["Cu"], density.over_neighbours("Ag").shares["Cu"])


def test_quantities_come_back():
    for q in (
        ak.Quantity(0.1 + 0.2, float("nan"), "m^2/s", "kmc"),
        ak.Quantity(np.array([[1 / 3, 2.0]]), np.zeros((1, 2)), "Å^2/s", "exact"),
    ):
        assert same(there_and_back(q), q) and same(ak.Quantity.from_dict(q.as_dict()), q)
        assert same(ak.Quantity.from_dict(json.loads(json.dumps(q.as_dict()))), q)


@pytest.mark.parametrize("broken", ["digits", "tuples", "resamples"])
def test_what_loses_something_is_noticed(results, monkeypatch, broken):
    encode = mson.encode

    def loses(value):
        if broken == "digits" and isinstance(value, float):
            return round(value, 12 - int(np.floor(np.log10(abs(value))))) if value else value
        found = encode(value)
        if broken == "resamples" and isinstance(value, np.ndarray) and value.ndim > 3:
            found["data"] = found["data"][:1]
        return found

    if broken == "tuples":
        monkeypatch.setattr(mson, "_hints", lambda cls: dict.fromkeys([f.name for f in dataclasses.fields(cls)], None))
    else:
        monkeypatch.setattr(mson, "encode", loses)
    assert not same(there_and_back(results["transport"]), results["transport"])


def test_only_own_classes_are_built_and_bad_input_is_one_sentence(results):
    data = results["exact"].as_dict()
    data["fields"]["drift"] = {"@module": "subprocess", "@class": "Popen", "args": ["true"]}
    with pytest.raises(KinosonError, match="found a Popen of subprocess"):
        ak.Transport.from_dict(data)
    data["fields"]["drift"] = {"@module": "ase_kinoson.future", "@class": "Drift"}
    with pytest.raises(KinosonError, match=r"found a Drift of ase_kinoson\.future"):
        ak.Transport.from_dict(data)
    with pytest.raises(KinosonError, match="expected those that as_dict"):
        ak.Transport.from_dict({})
    with pytest.raises(KinosonError, match="found a function that JSON cannot hold"):
        dataclasses.replace(results["exact"], settings={"x": there_and_back}).as_dict()
