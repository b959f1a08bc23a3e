"""Transport of states in chunks: the numbers of all states at once, whatever the chunks, in bounded memory."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, KinosonWarning, StatesError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons import streaming
from ase_kinoson.kinosons.density import KinosonDensity
from ase_kinoson.kinosons.group_sums import GroupSums, block_of
from ase_kinoson.kinosons.kinoson_files import kinoson_histogram, read_kinosons
from ase_kinoson.kinosons.state_chunks import read_states, sample_chunks, split_states, write_states
from ase_kinoson.kinosons.statistics import rows_of_sums
from ase_kinoson.kinosons.streaming import stream_transport

pytestmark = pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")
T = 600.0


@pytest.fixture(scope="module")
def weighted(tiny, pair_model) -> ak.States:
    """Monte Carlo states with unequal weights, in groups that lie anywhere among them."""
    cell, network = tiny
    states = sample_states(cell, 137, method="monte-carlo", model=pair_model.bind(network), temperature_K=T, seed=4)
    rng = np.random.default_rng(1)
    groups = 5 + 3 * rng.integers(40, size=len(states))
    return replace(states.with_weights(np.sort(rng.exponential(size=len(states)))), groups=groups)


@pytest.fixture(scope="module")
def bias(tiny, pair_model) -> ak.Relaxation:
    """A relaxation that needs no training."""
    rates = ak.Rates.of(pair_model, tiny[1], temperature_K=T)
    return ak.Relaxation.create(tiny[1], rates=rates, lookahead=1, closure="exact", form="paths")


def same(one: ak.Transport, other: ak.Transport, rtol: float = 1e-9) -> bool:
    """Whether two results have the same numbers and errors; rounding of a few digits is allowed.

    Of tensors and matrices the largest component is the measure: diffusivities in m²/s are small numbers.
    """

    def flat(x) -> list:
        if isinstance(x, dict):
            return [v for k in sorted(x) if k != "settings" for v in flat(x[k])]
        array = np.asarray(x)
        if array.dtype.kind == "f":
            return [(v, np.abs(array).max()) for v in array.ravel().tolist()]
        return [v for y in x for v in flat(y)] if isinstance(x, list) else [(x, None)]

    pairs = list(zip(flat(one.numbers()), flat(other.numbers()), strict=True))
    assert len(pairs) > 100
    assert [a for a, size in (a for a, _ in pairs) if size is None] == [
        b for b, size in (b for _, b in pairs) if size is None
    ]
    return all(abs(a - b) <= rtol * max(p, q) for (a, p), (b, q) in pairs if p is not None)


@pytest.mark.parametrize("size", [3, 10, 500])
def test_chunks_give_the_numbers_of_all_states_at_once(tiny, pair_model, bias, weighted, size):
    arguments = tiny[1], pair_model, bias, T
    whole = ak.transport(weighted, *arguments, vacancy_fraction=1e-4)
    chunked = stream_transport(split_states(weighted, size), *arguments, vacancy_fraction=1e-4)
    assert same(chunked, whole)
    assert chunked.drift.n_groups == whole.drift.n_groups == 40
    assert len(chunked.kinosons) == 0 and list(chunked.kinosons.columns) == list(whole.kinosons.columns)
    if size == 10:
        # broken twins: each chunk as heavy as any other of its size, and groups that end with the chunk
        bare = (states for states, _ in split_states(weighted, size))
        assert not same(stream_transport(bare, *arguments, vacancy_fraction=1e-4), whole, 1e-3)
        own = ((replace(s, groups=s.groups + 200 * i), w) for i, (s, w) in enumerate(split_states(weighted, size)))
        apart = stream_transport(own, *arguments, vacancy_fraction=1e-4)
        value, other = apart.vacancy_diffusivity, whole.vacancy_diffusivity
        assert value.value == pytest.approx(other.value, rel=1e-9, abs=0) and abs(value.error / other.error - 1) > 1e-3


def test_a_gas_of_rates_has_no_drift(tiny):
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    states = sample_states(tiny[0], 60, seed=2)
    whole = ak.transport(states, tiny[1], gas)
    chunked = stream_transport((states[i : i + 7] for i in range(0, 60, 7)), tiny[1], gas)
    assert chunked.drift is None and chunked.vacancy_diffusivity.kind == "bound"
    # chunks without a number weigh by their states; each state is its own group in both
    assert same(chunked, whole)


def test_many_groups_are_pooled(tiny, pair_model, weighted):
    lone = replace(weighted, groups=np.arange(len(weighted)))
    whole = ak.transport(lone, tiny[1], pair_model, None, T)
    pooled = stream_transport(split_states(lone, 20), tiny[1], pair_model, None, T, max_groups=53)
    # 137 groups leave some of 53 blocks empty
    assert 40 < pooled.settings["groups"] <= 53 and pooled.settings["groups_pooled"]
    assert pooled.effective_sample_size == pytest.approx(whole.effective_sample_size)
    a, b = pooled.vacancy_diffusivity, whole.vacancy_diffusivity
    assert a.value == pytest.approx(b.value, rel=1e-12, abs=0)
    assert 0.6 < a.error / b.error < 1.7 and a.error != b.error


def test_sums_by_group_do_not_know_the_order():
    rng = np.random.default_rng(3)
    groups, values = rng.integers(-5, 30, size=200), rng.normal(size=(200, 3))
    for most in (100, 20, 7):  # pooled never, when some are there already, and from the first chunk on
        sums = GroupSums(most)
        for i in range(0, 200, 13):
            sums.add(groups[i : i + 13], values[i : i + 13])
        assert sums.pooled == (most < 100)
        names = block_of(groups, most) if most < 100 else groups
        expected = [values[names == g].sum(axis=0) for g in np.unique(names)]
        np.testing.assert_array_equal(sums.names, np.unique(names))
        np.testing.assert_allclose(sums.values, expected, atol=1e-12)


def test_errors_of_blocks_are_those_of_groups_whatever_their_numbers_say():
    """Known variance: 20,000 values drawn independently, then numbered by size, as somebody may sort his states."""
    rng = np.random.default_rng(5)
    n, most = 20_000, 200
    values = np.sort(rng.exponential(size=n))
    rows = np.stack([np.ones(n), values], axis=1)
    known = 1.0 / np.sqrt(n)

    def error(sums: GroupSums) -> float:
        found, has_errors = rows_of_sums(sums.values[:, 0], sums.values[:, 1:], n_resamples=2000)
        assert has_errors and found[0, 0] == pytest.approx(values.mean(), rel=1e-12)
        return float(found[1:, 0].std())

    found = []
    for names in (np.arange(n), most * np.arange(n), -7 * np.arange(n), rng.permutation(n)):
        sums, parts = GroupSums(most), [GroupSums(most) for _ in range(4)]
        for part, own in zip(parts, np.array_split(np.arange(n), 4), strict=True):
            for some in np.array_split(own, 9):
                part.add(names[some], rows[some])
            sums.merge(part)
        assert sums.pooled and len(sums.names) == most
        straight = GroupSums(most)
        straight.add(names, rows)
        np.testing.assert_array_equal(sums.names, straight.names)
        np.testing.assert_allclose(sums.values, straight.values, rtol=1e-12)
        found.append(error(sums) / known)
    assert np.abs(np.array(found) - 1).max() < 0.25  # each is sure to 5 % and a little
    twin = GroupSums(most)
    twin.add(np.arange(n) % most, rows)  # broken: blocks by remainder of numbers that rise with the value
    assert error(twin) / known < 0.4


def test_kinosons_go_to_files_and_add_up(tiny, pair_model, bias, weighted, tmp_path, monkeypatch):
    arguments = tiny[1], pair_model, bias, T
    whole = ak.transport(weighted, *arguments)
    chunked = stream_transport(split_states(weighted, 30), *arguments, kinosons=tmp_path / "k")
    tables = list(read_kinosons(tmp_path / "k"))
    assert len(tables) == 5
    for name, column in whole.kinosons.columns.items():
        read = np.concatenate([t[name] for t in tables])
        if column.dtype.kind == "f":
            np.testing.assert_allclose(read, column, rtol=1e-9, atol=1e-15)
        else:
            np.testing.assert_array_equal(read, column)
    with monkeypatch.context() as smaller:  # states are numbered through the pieces of chunks too
        smaller.setattr(streaming, "PIECE", 11)
        stream_transport(split_states(weighted, 30), *arguments, kinosons=tmp_path / "pieces")
    rows = np.concatenate([t["state"] for t in read_kinosons(tmp_path / "pieces")])
    np.testing.assert_array_equal(rows, whole.kinosons["state"])
    total = sum(float((t["weight"] * t["kinoson_vacancy"]).sum()) for t in tables)
    assert total * 1e-20 == pytest.approx(chunked.vacancy_diffusivity.value, rel=1e-12, abs=0)
    edges = np.linspace(0.3, 0.9, 9)
    density = KinosonDensity.from_result(whole).over_barrier(edges)
    found = kinoson_histogram(read_kinosons(tmp_path / "k"), edges)
    for s in ("Ag", "Cu"):
        np.testing.assert_allclose(found.shares[s], density.shares[s], rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(found.errors[s], density.errors[s], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.counts, density.counts, rtol=1e-9)
    with pytest.raises(KinosonError, match="already"):
        stream_transport(split_states(weighted, 30), *arguments, kinosons=tmp_path / "k")
    (tmp_path / "k" / "kinosons.json").unlink()
    with pytest.raises(KinosonError, match="no whole set"):
        next(read_kinosons(tmp_path / "k"))
    (tmp_path / "k" / "kinosons-000001-0000.npz").unlink()
    about = {"format": "ase_kinoson.kinosons/1", "weight": 1.0, "files": 5, "units": {}}  # as versions without digests
    (tmp_path / "k" / "kinosons.json").write_text(json.dumps(about))
    with pytest.raises(KinosonError, match="found 4 files"):
        next(read_kinosons(tmp_path / "k"))


def test_workers_give_the_same_bits(tiny, pair_model, bias, weighted, tmp_path):
    arguments = tiny[1], pair_model, bias, T
    with ThreadPoolExecutor(2) as pool:
        far = stream_transport(split_states(weighted, 13), *arguments, executor=pool, kinosons=tmp_path)
    near = stream_transport(split_states(weighted, 13), *arguments)
    assert far.numbers() == near.numbers()
    total = sum(float((t["weight"] * t["kinoson_vacancy"]).sum()) for t in read_kinosons(tmp_path))
    assert total * 1e-20 == pytest.approx(near.vacancy_diffusivity.value, rel=1e-12, abs=0)
    for part in (pickle.loads(pickle.dumps(x)) for x in split_states(weighted, 80)):  # processes take what they need
        assert len(part[0]) in (80, 57)
    assert pickle.loads(pickle.dumps(bias)).lookahead == 1


def test_states_come_back_from_files(tiny, pair_model, weighted, tmp_path):
    assert write_states(tmp_path, split_states(weighted, 50)) == 137
    back = list(read_states(tmp_path, tiny[0]))
    assert [len(s) for s, _ in back] == [50, 50, 37]
    whole = ak.transport(weighted, tiny[1], pair_model, None, T)
    assert same(stream_transport(read_states(tmp_path, tiny[0]), tiny[1], pair_model, None, T), whole)
    with pytest.raises(StatesError, match="another supercell"):
        next(read_states(tmp_path, tiny[0].alloy.supercell((4, 4, 1))))
    with pytest.raises(StatesError, match="already"):  # two chunks over three would leave the third
        write_states(tmp_path, split_states(weighted, 100))
    whole_file = (tmp_path / "states-000000.npz").read_bytes()
    for at in range(60, len(whole_file), 997):  # one byte is wrong
        damaged = bytearray(whole_file)
        damaged[at] ^= 0xFF
        (tmp_path / "states-000000.npz").write_bytes(damaged)
        try:
            next(read_states(tmp_path, tiny[0]))
        except StatesError:
            pass
    (tmp_path / "states-000000.npz").write_bytes(b"no")
    with pytest.raises(StatesError, match="no whole chunk"):
        next(read_states(tmp_path, tiny[0]))
    with pytest.raises(StatesError, match="no chunks"):
        next(read_states(tmp_path / "nothing", tiny[0]))


def test_sampling_in_chunks(tiny, pair_model):
    options = {"method": "monte-carlo", "model": pair_model.bind(tiny[1]), "temperature_K": T, "n_chains": 4}
    chunks = list(sample_chunks(tiny[0], 25, size=10, seed=3, sweeps=10, **options))
    assert [len(c) for c in chunks] == [10, 10, 5]
    groups = [set(c.groups.tolist()) for c in chunks]
    assert set.union(*groups) == set(range(12)) and sum(map(len, groups)) == 12
    longer = next(sample_chunks(tiny[0], 40, size=10, seed=3, sweeps=10, **options))
    np.testing.assert_array_equal(longer.occupations, chunks[0].occupations)
    assert not np.array_equal(chunks[0].occupations, chunks[1].occupations)
    found = stream_transport(iter(chunks), tiny[1], pair_model, None, T)
    assert found.n_states == 25 and found.vacancy_diffusivity.kind == "bound"


def test_what_is_wrong_with_a_chunk_weakens_the_whole(tiny, pair_model, weighted):
    good, bad = weighted[:70], replace(weighted[70:], model_energies=weighted.model_energies[70:] ** 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", KinosonWarning)
        found = stream_transport([good, bad], tiny[1], pair_model, None, T)
    assert found.vacancy_diffusivity.kind == "not a bound"
    # a constant is no other energy
    shifted = replace(weighted, model_energies=weighted.model_energies + 1.0)
    assert stream_transport(split_states(shifted, 70), tiny[1], pair_model, None, T).vacancy_diffusivity.kind == "bound"
    assert any("differ from those of the barriers" in str(w.message) for w in caught)
    # an energy that drifts over all chunks together
    steep = weighted.with_weights(np.exp(-30 * (weighted.model_energies - weighted.model_energies.min())))
    whole = ak.transport(steep, tiny[1], pair_model, None, T)
    assert not whole.drift.consistent
    assert stream_transport(split_states(steep, 9), tiny[1], pair_model, None, T).vacancy_diffusivity.kind == (
        whole.vacancy_diffusivity.kind
    )


def test_states_that_trained_the_relaxation_are_found_in_any_chunk(tiny, pair_model, bias, weighted):
    late = weighted.keys[100]
    times = sum(key == late for key in weighted.keys)
    seen = replace(bias, report={**bias.report, "training_keys": [late]})
    whole = ak.transport(weighted, tiny[1], pair_model, seen, T)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", KinosonWarning)
        found = stream_transport(split_states(weighted, 10), tiny[1], pair_model, seen, T)
    assert whole.vacancy_diffusivity.kind == found.vacancy_diffusivity.kind == "estimate"
    told = [str(w.message) for w in caught if "trained the relaxation" in str(w.message)]
    assert len(told) == 1 and times >= 1  # once, not once per chunk
    clean = stream_transport(split_states(weighted, 10), tiny[1], pair_model, bias, T)
    assert clean.vacancy_diffusivity.kind == "bound"


def test_weights_of_a_chunk_that_sum_to_something_else(tiny, pair_model, weighted):
    good = list(split_states(weighted, 50))
    odd = [(replace(s, weights=s.weights * (3 + i)), w) for i, (s, w) in enumerate(good)]
    whole = stream_transport(good, tiny[1], pair_model, None, T)
    assert same(stream_transport(odd, tiny[1], pair_model, None, T), whole)
    broken = [(s, w * (3 + i)) for i, (s, w) in enumerate(good)]
    assert not same(stream_transport(broken, tiny[1], pair_model, None, T), whole, 1e-4)


def test_refusals(tiny, pair_model, weighted):
    with pytest.raises(StatesError, match="found no states in the chunks"):
        stream_transport([], tiny[1], pair_model, None, T)
    with pytest.raises(StatesError, match="chunk of type int"):
        stream_transport([3], tiny[1], pair_model, None, T)
    with pytest.raises(StatesError, match="sum to -1"):
        stream_transport([(weighted, -1.0)], tiny[1], pair_model, None, T)
    with pytest.raises(StatesError, match="chunks of one sample"):
        stream_transport([weighted, replace(weighted, ensemble="quenched")], tiny[1], pair_model, None, T)
    with pytest.raises(StatesError, match="weigh nothing"):
        stream_transport([(weighted, 0.0)], tiny[1], pair_model, None, T)
    moved = replace(weighted, report={"reweighted": True})
    assert stream_transport([moved], tiny[1], pair_model, None, T).n_states == 137
    with pytest.raises(StatesError, match="without the sums"):
        stream_transport([moved, moved], tiny[1], pair_model, None, T)
    assert stream_transport([(moved, 1.0), (moved, 2.0)], tiny[1], pair_model, None, T).n_states == 274
    with pytest.raises(StatesError, match="n=0"):
        next(sample_chunks(tiny[0], 0))


def test_memory_does_not_grow_with_the_number_of_chunks(tiny):
    """Traced, not timed: fifty chunks need no more than five."""
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})

    def peak(n: int) -> int:
        tracemalloc.start()
        stream_transport(sample_chunks(tiny[0], n, size=200), tiny[1], gas, max_groups=101)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(200)
    few, many = peak(1000), peak(10_000)
    assert many < 1.2 * few
