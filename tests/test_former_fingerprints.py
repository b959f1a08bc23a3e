"""Fingerprints do not know the sign of zeros, which is chance, and files from when they did are read as before."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson.barriers.fingerprint import Fingerprint
from ase_kinoson.barriers.store import BarrierStore
from ase_kinoson.errors import KinosonError, ModelError, StatesError, StoreError
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.map_folder import MapFolder, about_map
from ase_kinoson.map_point import MapSettings
from ase_kinoson.stages import Stages

HALF = {"Cu": {"Cu": 0.5, "Ni": 0.5}}


def hexagonal(noise=0.0, seed=0):
    atoms = bulk("Cu", "hcp", a=2.56, c=4.18)
    shift = noise * np.random.default_rng(seed).standard_normal((3, 3))
    atoms.set_cell(np.array(atoms.cell) + shift, scale_atoms=True)
    return ak.JumpNetwork.from_supercell(ak.Alloy.from_atoms(atoms, HALF).supercell((3, 3, 2)))


def octahedral(noise=0.0, seed=0):
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True)
    shift = noise * np.random.default_rng(seed).standard_normal((3, 3))
    atoms.set_cell(np.array(atoms.cell) + shift, scale_atoms=True)
    alloy = ak.Alloy.from_atoms(atoms).with_interstitials("C", "octahedral")
    return ak.JumpNetwork.from_supercell(alloy.supercell(3))


def former(network):
    return network._digest(-0.0)


@pytest.mark.parametrize("make", [hexagonal, octahedral])
def test_noise_of_rounding_does_not_change_a_fingerprint(make):
    plain = make()
    noisy = [make(1e-13, seed) for seed in range(6)]
    assert {n.fingerprint for n in noisy} == {plain.fingerprint}
    assert {n.supercell.fingerprint for n in noisy} == {plain.supercell.fingerprint}
    assert len({former(n) for n in noisy}) > 1  # broken twin: the sign of a zero in it
    assert make(1e-3).fingerprint != plain.fingerprint


@pytest.mark.parametrize("make", [hexagonal, octahedral])
def test_both_names_are_known_and_no_other(make):
    network = make()
    cell = network.supercell
    before = cell._digest(cell.alloy.former_fingerprint)
    assert former(network) != network.fingerprint
    for name in (network.fingerprint, former(network)):
        assert network.goes_by(name)
    for name in (cell.fingerprint, before):
        assert cell.goes_by(name)
    for name in ("", None, 3, ["x"], octahedral(1e-3).fingerprint):
        assert not network.goes_by(name) and not cell.goes_by(name)
    # with no negative zero there is one name
    cubic = ak.JumpNetwork.from_supercell(ak.Alloy.from_atoms(Atoms("Cu", cell=[3] * 3, pbc=True), HALF).supercell(3))
    assert former(cubic) == cubic.fingerprint


def test_stores_of_before_go_on(tmp_path):
    network = hexagonal()
    now = Fingerprint.of(network.supercell, network, calculator="EMT")
    then = Fingerprint(now.supercell, former(network), "EMT", {}, now.settings)
    assert then.id != now.id and now.as_dict() == {**then.as_dict(), "network": network.fingerprint}
    first = BarrierStore(tmp_path / "a.db", then)
    again = BarrierStore(tmp_path / "a.db", now)
    assert again.fingerprint.id == first.fingerprint.id == then.id  # rows that are added say the same
    other = hexagonal(1e-3)
    with pytest.raises(StoreError, match="found jump network"):
        BarrierStore(tmp_path / "a.db", Fingerprint.of(network.supercell, other, calculator="EMT"))
    with pytest.raises(StoreError, match="belongs to another study"):
        BarrierStore(tmp_path / "a.db", then.__class__.of(network.supercell, network, calculator="Other"))


def test_a_campaign_of_before_is_resumed(tmp_path, monkeypatch):
    network = hexagonal()
    states = ak.sample_states(network.supercell, 1, seed=1)
    options = {"jumps": {0: [0]}, "store": tmp_path / "s.db"}
    with monkeypatch.context() as then:
        then.setattr(ak.JumpNetwork, "fingerprint", property(former))
        first = ak.compute_barriers(states, network, EMT, **options)
    calls = []

    class Counted(EMT):
        def calculate(self, *args, **kwargs):
            calls.append(1)
            super().calculate(*args, **kwargs)

    Counted.__name__ = "EMT"
    again = ak.compute_barriers(states, network, Counted, **options)
    np.testing.assert_array_equal(again.barrier, first.barrier)
    assert not calls and np.isfinite(first.barrier[0, 0])


def test_states_relaxations_and_models_of_before_are_read(tmp_path, monkeypatch):
    network = hexagonal()
    cell = network.supercell
    inside = octahedral()
    states = ak.sample_states(inside.supercell, 2, seed=0)
    rates = ak.Rates.of(ak.SpeciesRates({"Cu": 1.0, "Ni": 2.0}), network)
    y = ak.Relaxation.create(network, rates=rates, lookahead=0, hidden=3)
    with monkeypatch.context() as then:
        then.setattr(ak.JumpNetwork, "fingerprint", property(former))
        then.setattr(ak.Supercell, "fingerprint", property(lambda own: own._digest(own.alloy.former_fingerprint)))
        states.write(tmp_path / "states.extxyz")
        y.save(tmp_path / "y")
    assert former(network) in (tmp_path / "y.json").read_text()
    read = ak.States.read(tmp_path / "states.extxyz", inside.supercell)
    assert np.array_equal(read.occupations, states.occupations)
    with pytest.raises(StatesError, match="another supercell"):
        ak.States.read(tmp_path / "states.extxyz", octahedral(1e-3).supercell)
    again = ak.Relaxation.load(tmp_path / "y", network)
    some = ak.sample_states(cell, 3, seed=2)
    assert np.array_equal(again(some.occupations, some.carriers), y(some.occupations, some.carriers))
    with pytest.raises(ModelError, match="trained on other jumps"):
        ak.Relaxation.load(tmp_path / "y", hexagonal(1e-3))


def walkers(network):
    states = ak.sample_states(network.supercell, 4, seed=1)
    rates = ak.Rates.of(ak.SpeciesRates({"Cu": 1.0, "Ni": 2.0}), network)
    return KineticMonteCarlo(states, network, rates, n_walkers=4, seed=2)


def test_checkpoints_of_before_go_on(tmp_path, monkeypatch):
    network = hexagonal()
    whole = walkers(network)
    whole.run(30)
    with monkeypatch.context() as then:
        then.setattr(ak.JumpNetwork, "fingerprint", property(former))
        half = walkers(network)
        half.run(20)
        half.save(tmp_path / "walkers.npz")
    again = walkers(network)
    again.load(tmp_path / "walkers.npz")
    again.run(10)
    assert np.array_equal(again.occupations, whole.occupations) and np.array_equal(again.times, whole.times)
    with pytest.raises(KinosonError, match="has network="):
        walkers(hexagonal(1e-3)).load(tmp_path / "walkers.npz")


def test_folders_of_maps_of_before_go_on(tmp_path):
    network, settings = hexagonal(), MapSettings()
    now = about_map(network, settings, 1)
    MapFolder(tmp_path, {**now, "jumps": former(network)})
    MapFolder(tmp_path, now, network)
    with pytest.raises(KinosonError, match="seed is 1 there and 2 here"):
        MapFolder(tmp_path, about_map(network, settings, 2), network)
    other = hexagonal(1e-3)
    with pytest.raises(KinosonError, match="jumps is"):
        MapFolder(tmp_path, about_map(other, settings, 1), other)


def test_stages_keep_the_key_of_before(tmp_path):
    stages = Stages(tmp_path)
    assert stages.known("one", "now", "then") == "now"
    stages.begin("one")
    stages.finish("one", "then", 0.0, [])
    assert stages.known("one", "now", "then") == "then"
    assert stages.known("one", "now", "other") == "now"
