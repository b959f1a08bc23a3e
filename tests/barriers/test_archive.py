"""Archives of barriers, and what the Cantor alloy's own one must show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.barriers.archive import load_barriers, save_barriers
from ase_kinoson.errors import BarrierError, KinosonError
from ase_kinoson.kinetics.rates import rates_from_barriers

CANTOR = Path(__file__).parents[2] / "examples" / "data" / "cantor_107.npz"
TEMPERATURE_K = 1173.0


@pytest.fixture
def barriers(tiny):
    """Invented barriers, some rejected."""
    cell, network = tiny
    states = ak.sample_states(cell, 6, method="random", seed=4)
    rng = np.random.default_rng(0)
    shape = (6, network.n_jumps)
    start, end = rng.normal(-50, 0.3, 6), rng.normal(-50, 0.3, shape)
    saddle = np.maximum(start[:, None], end) + rng.uniform(0.2, 1.0, shape)
    status = np.full(shape, "ok", dtype="U24")
    status[2, 1], status[5, 0] = "wrong-saddle", "not-computed"
    good = status == "ok"
    return ak.Barriers.from_arrays(
        states,
        network,
        np.where(good, saddle - start[:, None], np.inf),
        reverse_barrier=np.where(good, saddle - end, np.inf),
        energy_initial=start,
        energy_final=end,
        status=status,
        reasons={(2, 1): "another jump"},
        force_calls=rng.integers(5, 50, shape),
        fmax=rng.uniform(0, 0.01, shape),
        settings={"calculator": "invented", "store": "somewhere.db"},
        attempt_frequency=rng.uniform(1e12, 1e13, shape),
        descents=rng.choice(["both-ends", "side-basin"], shape),
        wall_s=rng.uniform(0, 100, shape),
    )


def test_round_trip(barriers, tmp_path):
    path = tmp_path / "some.npz"
    halves = {"one": barriers[:4], "two": barriers[4:]}
    save_barriers(path, halves, about={"potential": "invented"})
    assert [p.name for p in tmp_path.iterdir()] == ["some.npz"]
    for found, expected in (
        (load_barriers(path, "one"), halves["one"]),
        (load_barriers(path, "two"), halves["two"]),
        (load_barriers(path), barriers),
    ):
        assert found.network.fingerprint == expected.network.fingerprint
        assert found.states.supercell == expected.states.supercell
        assert np.array_equal(found.states.occupations, expected.states.occupations)
        assert np.array_equal(found.states.carriers, expected.states.carriers)
        assert np.array_equal(found.status, expected.status)
        assert dict(found.reasons) == dict(expected.reasons)
        np.testing.assert_allclose(found.barrier, expected.barrier, atol=2e-6)
        np.testing.assert_allclose(found.delta_e, expected.delta_e, atol=2e-6)
        np.testing.assert_allclose(found.energy_final, expected.energy_final, atol=1e-6)
        for name in ("force_calls", "attempt_frequency", "descents"):
            assert np.array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_allclose(found.wall_s, expected.wall_s, rtol=1e-6)
        assert found.settings["about"] == {"potential": "invented"}
        assert "somewhere" not in json.dumps(dict(found.settings))  # no paths of the machine that made it
    with pytest.raises(BarrierError, match="found the sets one, two"):
        load_barriers(path, "three")


def test_weights_and_ensemble_survive(barriers, tmp_path):
    states = barriers.states
    weighted = ak.States.from_occupations(
        states.supercell,
        states.occupations,
        carriers=states.carriers,
        weights=[1, 2, 1, 3, 1, 1],
        groups=[0, 0, 1, 1, 2, 2],
        ensemble="equilibrium",
        temperature_K=700.0,
        model_energies=np.arange(6.0),
    )
    held = ak.Barriers.from_arrays(
        weighted,
        barriers.network,
        barriers.barrier,
        reverse_barrier=barriers.reverse_barrier,
        energy_initial=barriers.energy_initial,
        energy_final=barriers.energy_final,
        status=barriers.status,
    )
    save_barriers(tmp_path / "one.npz", held)
    found = load_barriers(tmp_path / "one.npz").states
    assert (found.ensemble, found.temperature_K) == ("equilibrium", 700.0)
    np.testing.assert_allclose(found.weights, weighted.weights)
    assert np.array_equal(found.groups, weighted.groups)
    assert np.array_equal(found.model_energies, weighted.model_energies)


def test_files_that_are_no_archives(barriers, tmp_path):
    path = tmp_path / "some.npz"
    with pytest.raises(BarrierError, match="found no file"):
        load_barriers(path)
    with pytest.raises(BarrierError, match="no barriers to write"):
        save_barriers(path, {})
    save_barriers(path, barriers)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(BarrierError, match="is no archive of barriers") as refused:
            load_barriers(path)
        assert "pickle" not in str(refused.value)  # nobody is told to load it unsafely
    path.write_bytes(whole)
    data = dict(np.load(path))
    head = json.loads(str(data["head"]))
    np.savez(path, **{**data, "head": np.array(json.dumps({**head, "version": 99}))})
    with pytest.raises(BarrierError, match="version 99"):
        load_barriers(path)
    np.savez(path, **{k: v for k, v in data.items() if k != "all/energy_saddle"})
    with pytest.raises(BarrierError, match="damaged"):
        load_barriers(path)
    np.savez(path, a=np.arange(3))
    with pytest.raises(BarrierError, match="is no archive of barriers"):
        load_barriers(path)


def test_barriers_without_energies_survive(barriers, tmp_path):
    path = tmp_path / "some.npz"
    given = {"reverse_barrier": barriers.reverse_barrier, "status": barriers.status}
    partly = np.where(np.arange(6) % 2, np.nan, barriers.energy_initial)
    ends = np.where(np.arange(barriers.energy_final.shape[1]) % 2, np.nan, barriers.energy_final)
    for more in ({}, {"energy_initial": partly}, {"energy_initial": barriers.energy_initial, "energy_final": ends}):
        bare = ak.Barriers.from_arrays(barriers.states, barriers.network, barriers.barrier, **given, **more)
        save_barriers(path, bare)
        found = load_barriers(path)
        assert np.array_equal(found.status, bare.status) and found.wall_s is None
        for name in ("barrier", "reverse_barrier", "energy_initial", "energy_final"):
            np.testing.assert_allclose(getattr(found, name), getattr(bare, name), atol=2e-6)  # NaN where NaN was
        data = dict(np.load(path))
        head = {k: v for k, v in json.loads(str(data["head"])).items() if k not in ("seal", "digest")}
        data["head"] = np.array(json.dumps(head))  # else the digest would refuse it first
        np.savez(path, **{k: v for k, v in data.items() if k not in ("all/barrier", "all/reverse_barrier")})
        with pytest.raises(BarrierError, match="expected finite numbers"):  # the twin that stores energies alone
            load_barriers(path)


def test_damaged_archives_are_refused_in_one_sentence(barriers, tmp_path):
    path = tmp_path / "some.npz"
    save_barriers(path, barriers)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    refused = 0
    for k in range(120):
        damaged = bytearray(whole)
        for _ in range(1 + 4 * (k % 3)):
            damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_barriers(path)
        except KinosonError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 60
    for head in ({}, {"version": 1}, {"version": 1, "sets": 3}, {"version": 1, "sets": {"a": {}}}):
        np.savez(path, head=np.array(json.dumps({"format": "ase_kinoson barriers", **head})))
        with pytest.raises(BarrierError, match=r"no archive of barriers|damaged"):
            load_barriers(path)
    with pytest.raises(BarrierError, match=r"cannot be written .*expected an existing folder"):
        save_barriers(tmp_path / "nowhere" / "some.npz", barriers)


# -- the Cantor alloy ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cantor():
    """Equilibrium and random states with their barriers."""
    return {name: load_barriers(CANTOR, name) for name in ("equilibrium", "random")}


def drift(barriers, delta_e=None):
    rates = rates_from_barriers(barriers.barrier, TEMPERATURE_K)
    change = barriers.delta_e if delta_e is None else delta_e
    return ak.energy_drift(barriers.states, rates, change, barriers.moving_species)


def test_the_data_set_says_where_it_comes_from(cantor):
    assert CANTOR.stat().st_size < 10e6
    found = cantor["equilibrium"]
    about = found.settings["about"]
    assert {"potential", "reference", "script", "seed", "temperature_K", "versions"} <= set(about)
    assert about["temperature_K"] == found.states.temperature_K == TEMPERATURE_K
    assert found.states.ensemble == "equilibrium" and cantor["random"].states.ensemble == "random"
    cell = found.states.supercell
    assert set(cell.species) == {"X", "Co", "Cr", "Fe", "Mn", "Ni"}
    for barriers in cantor.values():
        counts = np.array([np.bincount(row, minlength=6) for row in barriers.states.occupations])
        assert np.all(counts[:, 0] == 1) and counts[:, 1:].min() >= 21 and counts[:, 1:].max() <= 22


def test_equilibrium_states_do_not_drift_and_random_ones_do(cantor):
    found = drift(cantor["equilibrium"])
    assert found.n_groups >= 200
    assert found.error <= 0.12
    assert abs(found.value) <= 2.5 * found.error
    assert found.consistent
    twin = drift(cantor["random"])
    assert twin.value < -0.4 and not twin.consistent


def test_ends_saddles_and_barriers_belong_together(cantor):
    for barriers in cantor.values():
        good = barriers.valid
        forward, backward = barriers.barrier[good], barriers.reverse_barrier[good]
        difference = barriers.energy_final - barriers.energy_initial[:, None]
        np.testing.assert_allclose(forward - backward, difference[good], atol=3e-6)
        assert min(forward.min(), backward.min()) > -0.01
        # the twin: energies of another state
        assert np.nanmax(np.abs(forward - backward - np.roll(difference, 1, axis=0)[good])) > 0.1


def test_manganese_is_the_fast_species_and_stays_near_the_vacancy(cantor):
    found = cantor["equilibrium"]
    means = {s: row["mean"] for s, row in found.by_species().items()}
    assert means["Mn"] < means["Fe"] < min(means["Co"], means["Cr"], means["Ni"])
    cell = found.states.supercell
    code = cell.species.index("Mn")
    share = found.states.weights @ (found.moving_species == code).mean(axis=1)
    random = (cantor["random"].moving_species == code).mean()
    assert share > 0.22 > random > 0.17


def test_barriers_can_be_learned(cantor):
    """A linear model on four fifths of the states beats the mean of each species on the rest by far."""
    found = cantor["equilibrium"]
    held = np.arange(len(found)) % 5 == 0
    model = ak.BarrierModel.fit(found[~held], hidden=0, seed=0)
    test = found[held]
    good = test.valid
    error = np.abs(model.predict(test.states) - test.barrier)[good].mean()
    plain = np.zeros(test.barrier.shape)
    for symbol, row in found[~held].by_species().items():
        plain[test.moving_species == found.states.supercell.species.index(symbol)] = row["mean"]
    assert error < 0.75 * np.abs(plain - test.barrier)[good].mean()
