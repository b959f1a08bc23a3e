"""States: files, indexing, weights and groups."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from ase_kinoson.crystal import Alloy, States
from ase_kinoson.errors import KinosonError, MappingError, StatesError

TERNARY = {"Cu": 0.4, "Ni": 0.35, "Pd": 0.25}


def fcc(size=2, composition=TERNARY):
    return Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": composition}).supercell(size)


def carbon():
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.7, "Cr": 0.3}})
    return alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(2)


def occupations(cell, n, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, cell.n_sites), dtype=np.int8)
    for i, counts in enumerate(cell.counts):
        sites = np.flatnonzero(cell.sublattice == i)
        codes = np.repeat([cell.species.index(s) for s in counts], list(counts.values()))
        for row in rows:
            row[rng.permutation(sites)[: len(codes)]] = codes
    return rows


def some_states(cell, n=7, seed=0, **about):
    rng = np.random.default_rng(seed)
    return States.from_occupations(
        cell,
        occupations(cell, n, seed),
        weights=rng.uniform(0.1, 1.0, n),
        groups=np.arange(n) // 2,
        **about,
    )


def one_sentence(error):
    text = str(error.value)
    assert "expected" in text and "\n" not in text and len(text) < 600
    return text


@pytest.mark.parametrize("make", [fcc, carbon])
def test_extxyz_round_trip(tmp_path, make):
    cell = make()
    states = some_states(
        cell,
        ensemble="quenched",
        temperature_K=873.5,
        source='Monte Carlo of "that" model, a=b \\ 5 % %5C é',
        model_energies=np.linspace(-3, 2, 7),
        report={
            "acceptance": np.float64(0.25),
            "n": np.int64(3),
            "flag": np.bool_(True),
            "curve": np.arange(3.0),
            "nested": {"chains": np.array([4, 5]), "which": [np.int64(1), None]},
        },
    )
    path = tmp_path / "states.extxyz"
    states.write(path)
    again = States.read(path, cell)
    np.testing.assert_array_equal(again.occupations, states.occupations)
    np.testing.assert_array_equal(again.carriers, states.carriers)
    np.testing.assert_allclose(again.weights, states.weights, rtol=1e-7)
    np.testing.assert_array_equal(again.groups, states.groups)
    np.testing.assert_allclose(again.model_energies, states.model_energies, rtol=1e-7)
    assert (again.ensemble, again.temperature_K, again.source) == ("quenched", 873.5, states.source)
    assert again.report == {
        "acceptance": 0.25,
        "n": 3,
        "flag": True,
        "curve": [0.0, 1.0, 2.0],
        "nested": {"chains": [4, 5], "which": [1, None]},
    }
    assert again.keys == states.keys


def test_every_frame_is_plain_atoms_for_ase(tmp_path):
    cell = fcc()
    states = some_states(cell)
    states.write(tmp_path / "states.extxyz")
    images = ase.io.read(tmp_path / "states.extxyz", index=":")
    assert len(images) == 7 and all(len(a) == 31 for a in images)
    assert images[3].info["carrier_site"] == states.carriers[3]
    assert "model_energy" not in images[0].info
    assert States.read(tmp_path / "states.extxyz", cell).model_energies is None


def test_relaxed_atoms_of_others_are_mapped(tmp_path):
    cell = fcc()
    states = some_states(cell, 3)
    rng = np.random.default_rng(1)
    images = []
    for atoms in states.to_atoms():
        del atoms.arrays["site"]
        atoms.info.clear()
        atoms = atoms[rng.permutation(len(atoms))]
        atoms.positions += rng.normal(size=(31, 3)) * 0.05
        images.append(atoms)
    ase.io.write(tmp_path / "relaxed.extxyz", images)
    found = States.read(tmp_path / "relaxed.extxyz", cell)
    np.testing.assert_array_equal(found.occupations, states.occupations)
    assert found.ensemble == "random" and found.source == "read from relaxed.extxyz"
    np.testing.assert_allclose(found.weights, 1 / 3)
    np.testing.assert_array_equal(States.from_atoms(cell, images).occupations, states.occupations)


def test_states_of_another_supercell_are_refused(tmp_path):
    path = tmp_path / "states.extxyz"
    some_states(fcc()).write(path)
    for other in (fcc((2, 2, 3)), fcc(composition={"Cu": 0.5, "Ni": 0.25, "Pd": 0.25})):
        with pytest.raises(StatesError, match="written for another supercell") as error:
            States.read(path, other)
        one_sentence(error)


def test_site_numbers_of_another_supercell_are_refused(tmp_path):
    path = tmp_path / "single.extxyz"
    ase.io.write(path, some_states(fcc((2, 2, 3))).to_atoms())
    with pytest.raises(KinosonError) as error:
        States.read(path, fcc())
    one_sentence(error)
    ase.io.write(path, some_states(fcc(composition={"Cu": 0.5, "Au": 0.5})).to_atoms())
    with pytest.raises(KinosonError, match="Au") as error:
        States.read(path, fcc())
    one_sentence(error)


def test_unreadable_and_empty_files_are_refused(tmp_path):
    (tmp_path / "junk.extxyz").write_text("what\n")
    (tmp_path / "empty.extxyz").write_text("")
    for name in ("junk.extxyz", "empty.extxyz", "missing.extxyz"):
        with pytest.raises(StatesError) as error:
            States.read(tmp_path / name, fcc())
        one_sentence(error)


def test_indexing_by_slice_number_list_and_mask():
    states = some_states(fcc(), model_energies=np.arange(7.0))
    for index, rows in [
        (slice(1, 4), [1, 2, 3]),
        (2, [2]),
        (-1, [6]),
        ([5, 0], [5, 0]),
        (np.array([True, False] * 3 + [True]), [0, 2, 4, 6]),
    ]:
        part = states[index]
        np.testing.assert_array_equal(part.occupations, states.occupations[rows])
        np.testing.assert_array_equal(part.carriers, states.carriers[rows])
        np.testing.assert_array_equal(part.groups, states.groups[rows])
        np.testing.assert_array_equal(part.model_energies, np.arange(7.0)[rows])
        np.testing.assert_allclose(part.weights, states.weights[rows] / states.weights[rows].sum())
        assert part.ensemble == states.ensemble
    assert len(states[:0]) == 0 and len(list(states)) == 7
    assert [int(s.carriers[0]) for s in states] == states.carriers.tolist()


def test_weights_groups_and_effective_sample_size():
    states = some_states(fcc())
    assert states.weights.sum() == pytest.approx(1)
    assert states.effective_sample_size == pytest.approx(1 / (states.weights**2).sum())
    even = states.with_weights(np.full(7, 3.0), drift=0.1)
    assert even.effective_sample_size == pytest.approx(7) and even.report == {"drift": 0.1}
    assert states.report == {}
    np.testing.assert_array_equal(States.from_occupations(fcc(), states.occupations).groups, np.arange(7))


def test_keys_name_the_arrangement_only():
    states = some_states(fcc())
    assert len(set(states.keys)) == 7
    assert states[[3, 3]].keys == [states.keys[3]] * 2
    assert states.with_weights(np.ones(7)).keys == states.keys


def test_composition_is_that_of_the_atoms():
    cell = fcc(3)
    found = some_states(cell).composition()
    assert found == pytest.approx({s: n / 107 for s, n in cell.counts[0].items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ensemble": "canonical"}, "found ensemble 'canonical'"),
        ({"weights": [1.0, 2.0]}, "found weights of shape"),
        ({"groups": [0]}, "found groups of shape"),
        ({"weights": [-1.0, 1, 1, 1, 1, 1, 1]}, "negative"),
        ({"weights": [0.0] * 7}, "all zero"),
        ({"weights": [np.nan] * 7}, "not finite"),
    ],
)
def test_malformed_states_are_refused(change, message):
    with pytest.raises(StatesError, match=message) as error:
        States.from_occupations(fcc(), occupations(fcc(), 7), **change)
    one_sentence(error)


def test_states_without_or_with_two_carriers_are_refused():
    rows = occupations(fcc(), 2)
    rows[1, np.flatnonzero(rows[1])[0]] = 0
    with pytest.raises(MappingError, match="found 2 vacancies") as error:
        States.from_occupations(fcc(), rows)
    one_sentence(error)
