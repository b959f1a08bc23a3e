"""The ASE face: right numbers for the atoms at hand, caching, errors, and nothing of ASE broken."""

import copy
import pickle

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import (
    BaseCalculator,
    CalculationFailed,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_properties,
)
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.calculators import BarrierCalculator, KinosonCalculator
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.errors import KinosonError, MappingError
from ase_kinoson.kinetics.lattice_gas import PairBarriers, RandomBarriers, SiteBarriers, SpeciesRates
from ase_kinoson.kinetics.rates import Rates, rates_from_barriers
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.relaxation import Relaxation

torch.set_num_threads(1)
HALF = {"Cu": 0.5, "Ni": 0.5}
T = 900.0


def fcc(size=2, composition=HALF):
    alloy = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": composition})
    return JumpNetwork.from_supercell(alloy.supercell(size))


def honeycomb():
    cell = [[2.5, 0, 0], [-1.25, 2.165063509461097, 0], [0, 0, 12]]
    places = [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
    atoms = Atoms("Cu2", scaled_positions=places, cell=cell, pbc=(1, 1, 0))
    return JumpNetwork.from_supercell(Alloy.from_atoms(atoms, {"Cu": HALF}).supercell((4, 4, 1)))


def nickel_aluminium():
    b2 = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    return JumpNetwork.from_supercell(Alloy.from_atoms(b2, {"Ni": {"Ni": 0.6, "Cu": 0.4}}).supercell(4))


def carbon():
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.7, "Cr": 0.3}})
    return JumpNetwork.from_supercell(alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(3))


def pair_model(network):
    pairs = {("Cu", "Ni"): 0.04, ("Cu", "X"): -0.05}
    energy = PairEnergy.from_interactions(network.supercell, pairs)
    return PairBarriers(energy, {"Cu": 0.7, "Ni": 0.9}).bind(network)


def random_relaxation(network, rates=None, *, lookahead=0):
    relaxation = Relaxation.create(network, rates=rates, lookahead=lookahead, hidden=4, n_blocks=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in relaxation.field.parts:
            part.project.copy_(torch.randn(part.project.shape, generator=generator))
    return relaxation.to(torch.float64)


def occupation(cell, seed):
    rng = np.random.default_rng(seed)
    row = np.zeros(cell.n_sites, dtype=np.int8)
    for i, counts in enumerate(cell.counts):
        sites = np.flatnonzero(cell.sublattice == i)
        codes = np.repeat([cell.species.index(s) for s in counts], list(counts.values()))
        row[rng.permutation(sites)[: len(codes)]] = codes
    return row


def some_atoms(network, seed=0):
    return network.supercell.to_atoms(occupation(network.supercell, seed))


def kinoson_calculator(network, *, lookahead=1, **options):
    model = pair_model(network) if "Ni" in network.supercell.species and "Al" not in network.supercell.species else None
    model = model or RandomBarriers(seed=2).bind(network)
    rates = Rates.of(model, network, temperature_K=T)
    return KinosonCalculator(model, random_relaxation(network, rates, lookahead=lookahead), temperature_K=T, **options)


def one_sentence(error):
    text = str(error.value)
    assert "expected" in text or "expects" in text
    assert "\n" not in text and ";" in text and len(text) < 600
    return text


@pytest.fixture
def copper():
    """Atoms of a 32-site Cu-Ni cell with a KinosonCalculator."""
    network = fcc()
    atoms = some_atoms(network)
    atoms.calc = kinoson_calculator(network)
    return atoms


NETWORKS = {"fcc": fcc, "honeycomb": honeycomb, "B2, one mobile": nickel_aluminium, "interstitial": carbon}


# -- the numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(NETWORKS))
def test_values_are_those_of_model_and_functional(name):
    network = NETWORKS[name]()
    cell = network.supercell
    atoms = some_atoms(network, 3)
    calc = atoms.calc = kinoson_calculator(network)
    row = cell.occupation_from_atoms(atoms)
    carrier = np.array([cell.find_carrier(row)])
    jumps = np.flatnonzero(network.exists[network.basis_of(carrier)[0]])
    found = calc.source.jump_energies(row[None], carrier)
    barrier = found.barrier[0, jumps]
    np.testing.assert_allclose(calc.get_property("barriers", atoms), barrier)
    np.testing.assert_allclose(calc.get_property("delta_e", atoms), found.delta_e[0, jumps])
    np.testing.assert_allclose(calc.get_property("reverse_barriers", atoms), found.reverse_barrier[0, jumps])
    rates = rates_from_barriers(barrier, T)
    np.testing.assert_allclose(calc.get_property("rates", atoms), rates)
    vectors = calc.get_property("jump_vectors", atoms)
    np.testing.assert_allclose(vectors, network.vectors[network.basis_of(carrier)[0], jumps])
    terms = jump_terms(calc.relaxation, row[None], carrier)
    total = terms.displacement[0, jumps].sum(axis=1)
    d = network.dimension
    np.testing.assert_allclose(calc.get_property("kinosons", atoms), rates * (total**2).sum(axis=1) / (2 * d))
    by_species = calc.get_property("kinosons_by_species", atoms)
    mobile = {"C"} if name == "interstitial" else {"Cu", "Ni"}
    assert set(by_species) == mobile
    for symbol, values in by_species.items():
        own = terms.displacement[0, jumps, cell.species.index(symbol) - 1]
        np.testing.assert_allclose(values, rates * (own**2).sum(axis=1) / (2 * d))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_kinosons_follow_from_the_relaxation_before_and_after_every_jump(name):
    """Carry every jump out on the Atoms and ask again: W|δx + Δy|²/(2d), and energies, barriers, moving atoms agree."""
    network = NETWORKS[name]()
    atoms = some_atoms(network, 1)
    calc = kinoson_calculator(network)
    vectors, moving = calc.get_property("jump_vectors", atoms), calc.get_property("moving_atoms", atoms)
    rates, kinosons = calc.get_property("rates", atoms), calc.get_property("kinosons", atoms)
    delta, reverse = calc.get_property("delta_e", atoms), calc.get_property("reverse_barriers", atoms)
    before = calc.get_property("relaxation", atoms)
    has_energy = "energy" in calc.implemented_properties
    energy = calc.get_potential_energy(atoms) if has_energy else 0.0
    assert before.shape == (len(atoms), 3)
    sign = 1.0 if network.mechanism == "interstitial" else -1.0
    for k, i in enumerate(moving):
        new = atoms.copy()
        new.positions[i] += sign * vectors[k]
        after = calc.get_property("relaxation", new)
        step = after - before
        step[i] += sign * vectors[k]
        np.testing.assert_allclose(kinosons[k], rates[k] * (step.sum(axis=0) ** 2).sum() / (2 * network.dimension))
        back = np.flatnonzero(
            (calc.get_property("moving_atoms", new) == i)
            & (np.abs(calc.get_property("jump_vectors", new) + vectors[k]).max(axis=1) < 1e-9)
        )
        assert len(back) == 1
        np.testing.assert_allclose(calc.get_property("barriers", new)[back[0]], reverse[k])
        if has_energy:
            np.testing.assert_allclose(calc.get_potential_energy(new) - energy, delta[k], atol=1e-12)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_displaced_shuffled_drifted_atoms_give_the_same_in_their_order(name):
    network = NETWORKS[name]()
    cell = network.supercell
    calc = kinoson_calculator(network)
    atoms = some_atoms(network, 2)
    wanted = {p: calc.get_property(p, atoms) for p in calc.extra_properties}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(atoms))
        other = atoms[order]
        other.positions += rng.normal(size=(len(atoms), 3)) * 0.02 * network.lengths.min()
        other.positions += rng.uniform(-9, 9, 3) * cell.pbc
        other.wrap()
        found = {p: calc.get_property(p, other) for p in calc.extra_properties}
        for name_ in ("barriers", "reverse_barriers", "delta_e", "rates", "jump_vectors", "kinosons"):
            np.testing.assert_allclose(found[name_], wanted[name_], rtol=1e-9, atol=1e-12, err_msg=name_)
        np.testing.assert_array_equal(order[found["moving_atoms"]], wanted["moving_atoms"])
        np.testing.assert_allclose(found["relaxation"], wanted["relaxation"][order], atol=1e-12)
        for symbol, values in found["kinosons_by_species"].items():
            np.testing.assert_allclose(values, wanted["kinosons_by_species"][symbol], rtol=1e-9)


def test_moving_atoms_lie_where_the_carrier_jumps(copper):
    cell = copper.calc.network.supercell
    row = cell.occupation_from_atoms(copper)
    vacancy = cell.positions[cell.find_carrier(row)]
    vectors = copper.calc.get_property("jump_vectors", copper)
    reached = copper.positions[copper.calc.get_property("moving_atoms")]
    np.testing.assert_allclose(cell.minimum_image(reached - vacancy), vectors, atol=1e-9)


def test_padded_jumps_do_not_appear():
    metal = Atoms("Mg2", scaled_positions=[[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]], cell=[3, 3, 4.9, 90, 90, 120])
    metal.pbc = True
    alloy = Alloy.from_atoms(metal).with_interstitials("H", [[0, 0, 0], [1 / 3, 2 / 3, 5 / 8]])
    network = JumpNetwork.from_supercell(alloy.supercell((3, 3, 2)), cutoff=2.5)
    gas = SiteBarriers((0.0, 0.2), (0.5, 0.6, 0.7, 0.9))
    calc = BarrierCalculator(gas, jumps=network, temperature_K=T)
    cell = network.supercell
    for site in cell.mobile_sites[:6]:
        row = occupation(cell, 0)
        row[cell.find_carrier(row)] = 0
        row[site] = cell.species.index("H")
        atoms = cell.to_atoms(row)
        n = int(network.exists[site % alloy.n_basis].sum())
        for name in calc.extra_properties:
            assert len(calc.get_property(name, atoms)) == n
        assert np.isfinite(calc.get_property("barriers", atoms)).all()
        assert set(atoms.symbols[calc.get_property("moving_atoms", atoms)]) == {"H"}
        assert calc.get_potential_energy(atoms) == pytest.approx(0.0 if n == 8 else 0.2)


# -- models -----------------------------------------------------------------------------------------------------


def test_a_gas_of_rates_gives_rates_and_kinosons_only():
    network = fcc()
    atoms = some_atoms(network)
    relaxation = random_relaxation(network)
    for calc in (
        BarrierCalculator(SpeciesRates({"Cu": 2.0, "Ni": 1.0}), jumps=network),
        KinosonCalculator(SpeciesRates({"Cu": 2.0, "Ni": 1.0}), relaxation, temperature_K=None),
    ):
        assert calc.implemented_properties == [] and "barriers" not in calc.extra_properties
        moving = calc.get_property("moving_atoms", atoms)
        np.testing.assert_array_equal(
            calc.get_property("rates", atoms), np.where(atoms.symbols[moving] == "Cu", 2.0, 1.0)
        )
        for name in ("barriers", "reverse_barriers", "delta_e"):
            with pytest.raises(PropertyNotImplementedError, match="gives rates only") as error:
                calc.get_property(name, atoms)
            one_sentence(error)
        atoms.calc = calc
        with pytest.raises(PropertyNotImplementedError, match="without energies") as error:
            atoms.get_potential_energy()
        one_sentence(error)
    assert calc.get_property("kinosons", atoms).shape == (12,)


def test_a_learned_model_and_reference_barriers_serve_too():
    network = fcc()
    cell = network.supercell
    gas = pair_model(network)
    states = States.from_occupations(cell, [occupation(cell, s) for s in range(12)])
    found = gas.jump_energies(states.occupations, states.carriers)
    barriers = Barriers.from_arrays(
        states,
        network,
        found.barrier,
        reverse_barrier=found.reverse_barrier,
        energy_initial=gas.energy.energies(states.occupations),
    )
    model = BarrierModel.fit(barriers, hidden=0, seed=0)
    atoms = cell.to_atoms(states.occupations[4])
    for source in (model, barriers):
        calc = KinosonCalculator(source, random_relaxation(network), temperature_K=T)
        wanted = source.jump_energies(states.occupations[[4]], states.carriers[[4]]).barrier[0]
        np.testing.assert_allclose(calc.get_property("barriers", atoms), wanted)
        atoms.calc = calc
        assert np.isfinite(atoms.get_potential_energy())
    assert atoms.get_potential_energy() == pytest.approx(float(barriers.energy_initial[4]))
    unknown = some_atoms(network, 99)
    with pytest.raises(CalculationFailed, match="not among the 12 states") as error:
        calc.get_property("barriers", unknown)
    assert isinstance(error.value, KinosonError)
    one_sentence(error)
    without = BarrierCalculator(
        Barriers.from_arrays(states, network, found.barrier, reverse_barrier=found.reverse_barrier)
    )
    with pytest.raises(CalculationFailed, match="knows no energy") as error:
        without.get_potential_energy(atoms)
    one_sentence(error)
    bigger = some_atoms(fcc((2, 2, 3)))
    calc = BarrierCalculator(model, supercell=cell.alloy.supercell((2, 2, 3)), temperature_K=T)
    assert calc.get_property("barriers", bigger).shape == (12,)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_relaxation_is_carried_to_another_supercell(lookahead):
    small, large = fcc(4), fcc((4, 4, 5))
    gas = SpeciesRates({"Cu": 2.0, "Ni": 1.0})
    made = random_relaxation(small, Rates.of(gas, small), lookahead=lookahead)
    direct = random_relaxation(large, Rates.of(gas, large), lookahead=lookahead)
    atoms = some_atoms(large)
    if lookahead:
        with pytest.raises(CalculatorSetupError, match="bound to a supercell of 256 sites") as error:
            KinosonCalculator(gas, made, supercell=large.supercell)
        one_sentence(error)
        made.rates = Rates(gas, small)  # an unbound gas can follow
    calc = KinosonCalculator(gas, made, supercell=large.supercell)
    wanted = KinosonCalculator(gas, direct).get_property("kinosons", atoms)
    np.testing.assert_allclose(calc.get_property("kinosons", atoms), wanted, rtol=1e-10)
    assert calc.get_property("relaxation", atoms).shape == (319, 3)


def test_a_relaxation_of_a_wrapped_cell_does_not_go_to_a_large_one():
    gas = SpeciesRates({"Cu": 2.0, "Ni": 1.0})
    with pytest.raises(CalculatorSetupError, match="fit into both cells") as error:
        KinosonCalculator(gas, random_relaxation(fcc(2)), jumps=fcc(4))
    one_sentence(error)


# -- ASE is not broken ------------------------------------------------------------------------------------------


def test_standard_properties_only_in_results(copper):
    calc = copper.calc
    assert isinstance(calc, BaseCalculator)
    for name in calc.extra_properties:
        calc.get_property(name, copper)
    assert calc.results == {}
    energy = copper.get_potential_energy()
    assert copper.get_potential_energy(force_consistent=True) == energy
    assert set(calc.results) == {"energy", "free_energy"} <= set(all_properties)
    assert set(calc.extra_results) == set(calc.extra_properties)
    assert set(calc.implemented_properties).isdisjoint(calc.extra_properties)
    assert dict(calc.export_properties()) == {"energy": energy, "free_energy": energy}
    single = SinglePointCalculator(copper, **calc.results)
    assert single.get_property("energy", copper) == energy


def test_atoms_get_properties(copper):
    copper.calc.get_property("barriers", copper)
    found = copper.get_properties(["energy", "free_energy"])
    assert found["energy"] == found["free_energy"] == copper.get_potential_energy()
    other = some_atoms(copper.calc.network, 5)
    other.calc = copper.calc
    moved = other.get_properties(["energy"])["energy"]
    assert moved != found["energy"] and moved == other.get_potential_energy()
    assert copper.get_potential_energy() == found["energy"]


@pytest.mark.parametrize("method", ["get_forces", "get_stress", "get_charges", "get_magnetic_moments"])
def test_other_standard_properties_are_not_implemented(copper, method):
    with pytest.raises(PropertyNotImplementedError) as error:
        getattr(copper, method)()
    assert "barriers" in one_sentence(error)


@pytest.mark.parametrize("with_energy", [True, False])
def test_writers_and_readers(tmp_path, with_energy):
    network = fcc()
    atoms = some_atoms(network)
    if with_energy:
        atoms.calc = kinoson_calculator(network)
        energy = atoms.get_potential_energy()
    else:
        atoms.calc = BarrierCalculator(SpeciesRates({"Cu": 2.0, "Ni": 1.0}), jumps=network)
    atoms.calc.get_property("rates", atoms)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    ase.io.write(tmp_path / "a.traj", atoms)
    ase.io.write(tmp_path / "a.json", atoms)
    ase.io.write(tmp_path / "a.cif", atoms)
    with Trajectory(tmp_path / "b.traj", "w", atoms) as trajectory:
        trajectory.write()
    with ase.db.connect(tmp_path / "a.db") as db:
        db.write(atoms, data={"barriers": atoms.calc.get_property("rates", atoms)})
        row = db.get(1)
    read = [ase.io.read(tmp_path / name) for name in ("a.extxyz", "a.traj", "a.json", "b.traj")] + [row.toatoms()]
    for other in read:
        assert list(other.symbols) == list(atoms.symbols)
        np.testing.assert_allclose(other.positions, atoms.positions, atol=1e-7)
        if with_energy:
            assert other.get_potential_energy() == pytest.approx(energy, abs=1e-7)
        assert np.all(atoms.calc.get_property("rates", other) == atoms.calc.get_property("rates", atoms))
    assert row.calculator == ("kinosoncalculator" if with_energy else "barriercalculator")
    if with_energy:
        assert row.calculator_parameters["temperature_K"] == T
        assert row.calculator_parameters["lookahead"] == 1


def test_todict_is_plain(copper):
    import json

    about = copper.calc.todict()
    assert json.loads(json.dumps(about)) == about
    assert about["temperature_K"] == T and about["attempt_frequency"] == 1e13 and about["model"] == "PairBarriers"
    assert about["species"] == ["Cu", "Ni"] and "tolerance" not in about
    assert copper.calc.name == "kinosoncalculator"


def test_copies_are_independent(copper):
    wanted = copper.calc.get_property("kinosons", copper)
    for other in (copy.deepcopy(copper), pickle.loads(pickle.dumps(copper))):
        np.testing.assert_array_equal(other.calc.get_property("kinosons", other), wanted)
        other.calc.set(temperature_K=300.0)
        assert other.calc.get_property("kinosons", other).sum() < wanted.sum()
        np.testing.assert_array_equal(copper.calc.get_property("kinosons", copper), wanted)
    assert copper.copy().calc is None


# -- caching ----------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(copper, monkeypatch):
    """Atoms whose calculator counts how often it maps and asks its model."""
    calls = {"map": 0, "model": 0}
    cell_type, source_type = type(copper.calc.network.supercell), type(copper.calc.source)
    mapping, energies = cell_type.map_atoms, source_type.jump_energies

    def map_atoms(self, *args, **kwargs):
        calls["map"] += 1
        return mapping(self, *args, **kwargs)

    def jump_energies(self, occupations, carriers):
        calls["model"] += len(carriers) == 1
        return energies(self, occupations, carriers)

    monkeypatch.setattr(cell_type, "map_atoms", map_atoms)
    monkeypatch.setattr(source_type, "jump_energies", jump_energies)
    return copper, calls


def test_everything_is_computed_once(counted):
    atoms, calls = counted
    for _ in range(3):
        atoms.get_potential_energy()
        for name in ("barriers", "rates", "delta_e", "jump_vectors", "moving_atoms"):
            atoms.calc.get_property(name, atoms)
    assert calls == {"map": 1, "model": 1}


def test_changed_atoms_clear_both_stores(counted):
    atoms, calls = counted
    calc = atoms.calc
    atoms.get_potential_energy()
    calc.get_property("barriers", atoms)
    assert not calc.calculation_required(atoms, ["energy", "barriers"])
    assert calc.calculation_required(atoms, ["rates"])
    atoms.positions[0] += 0.01
    assert calc.calculation_required(atoms, ["energy"]) and calc.calculation_required(atoms, ["barriers"])
    assert calc.get_property("barriers", atoms, allow_calculation=False) is None
    atoms.get_potential_energy()  # a standard property clears ours ...
    assert calc.extra_results == {} and "energy" in calc.results
    assert calc.get_property("barriers", atoms, False) is None
    atoms.positions[0] += 0.01
    calc.get_property("barriers", atoms)  # ... and ours clear the standard ones
    assert calc.results == {} and set(calc.extra_results) == {"barriers", "reverse_barriers", "delta_e"}
    assert calls["map"] == 3


def test_returned_arrays_are_copies(copper):
    calc = copper.calc
    calc.get_property("barriers", copper)[:] = 0
    calc.get_property("kinosons_by_species", copper)["Cu"][:] = -1
    assert calc.get_property("barriers", copper).min() > 0
    assert calc.get_property("kinosons_by_species", copper)["Cu"].min() >= 0


def test_without_atoms_the_last_ones_are_meant(copper):
    with pytest.raises(CalculatorSetupError, match="found no atoms") as error:
        copper.calc.get_property("barriers")
    one_sentence(error)
    wanted = copper.calc.get_property("barriers", copper)
    np.testing.assert_array_equal(copper.calc.get_property("barriers"), wanted)
    copper.calc.set(temperature_K=500)
    np.testing.assert_allclose(copper.calc.get_property("rates"), rates_from_barriers(wanted, 500))


def test_parameters_are_part_of_the_state(copper):
    calc = copper.calc
    barrier = calc.get_property("barriers", copper)
    calc.get_property("kinosons", copper)
    assert calc.set(temperature_K=T) == {} and "kinosons" in calc.extra_results
    assert calc.set(temperature_K=600, attempt_frequency=5e12) == {"temperature_K": 600, "attempt_frequency": 5e12}
    assert calc.extra_results == {} and calc.results == {}
    wanted = rates_from_barriers(barrier, 600, attempt_frequency=5e12)
    np.testing.assert_allclose(calc.get_property("rates", copper), wanted)
    calc.parameters["temperature_K"] = 700
    assert calc.calculation_required(copper, ["rates"])
    wanted = rates_from_barriers(barrier, 700, attempt_frequency=5e12)
    np.testing.assert_allclose(calc.get_property("rates", copper), wanted)
    calc.parameters["temperature_K"] = -1
    for _ in range(2):
        with pytest.raises(CalculatorSetupError, match="temperature_K=-1"):
            calc.get_property("rates", copper)


def test_a_failure_leaves_nothing_stale(copper):
    calc = copper.calc
    calc.get_property("barriers", copper)
    bad = copper[1:]
    for _ in range(2):
        with pytest.raises(MappingError):
            calc.get_property("barriers", bad)
    assert calc.results == {} and calc.extra_results == {}
    assert calc.get_property("barriers", copper).shape == (12,)


def test_rates_need_a_temperature_and_barriers_do_not():
    network = fcc()
    calc = BarrierCalculator(pair_model(network))
    atoms = some_atoms(network)
    assert calc.get_property("barriers", atoms).shape == (12,) and "rates" in calc.extra_properties
    with pytest.raises(PropertyNotImplementedError, match="found no temperature") as error:
        calc.get_property("rates", atoms)
    one_sentence(error)
    calc.set(temperature_K=800)
    assert calc.get_property("rates", atoms).min() > 0


# -- refusals ---------------------------------------------------------------------------------------------------


def test_unknown_properties_are_named(copper):
    with pytest.raises(PropertyNotImplementedError, match="found the property 'barrier'") as error:
        copper.calc.get_property("barrier", copper)
    assert "'barriers'" in one_sentence(error)
    plain = BarrierCalculator(copper.calc.source, temperature_K=T)
    with pytest.raises(PropertyNotImplementedError, match="'kinosons'"):
        plain.get_property("kinosons", copper)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature_K": 0}, "temperature_K=0"),
        ({"temperature_K": -300.0}, "temperature_K=-300"),
        ({"temperature_K": "hot"}, "temperature_K='hot'"),
        ({"temperature_K": float("nan")}, "temperature_K=nan"),
        ({"temperature_K": True}, "temperature_K=True"),
        ({"attempt_frequency": 0}, "attempt_frequency=0"),
        ({"attempt_frequency": None}, "attempt_frequency=None"),
        ({"tolerance": -1}, "tolerance=-1"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    network = fcc()
    for make in (
        lambda: BarrierCalculator(pair_model(network), **options),
        lambda: KinosonCalculator(pair_model(network), random_relaxation(network), **options),
        lambda: BarrierCalculator(pair_model(network)).set(**options),
    ):
        with pytest.raises(CalculatorSetupError, match=message) as error:
            make()
        assert isinstance(error.value, KinosonError)
        one_sentence(error)
    with pytest.raises(CalculatorSetupError, match="parameter 'temperature'") as error:
        BarrierCalculator(pair_model(network)).set(temperature=300)
    one_sentence(error)


def test_no_model_or_no_relaxation_is_refused():
    network = fcc()
    for model in (None, "model.json", 3.0):
        with pytest.raises(CalculatorSetupError, match="as model") as error:
            BarrierCalculator(model)
        one_sentence(error)
        with pytest.raises(CalculatorSetupError) as error:
            KinosonCalculator(model, random_relaxation(network))
        one_sentence(error)
    with pytest.raises(CalculatorSetupError, match="bound to no jumps") as error:
        BarrierCalculator(SpeciesRates({"Cu": 1.0, "Ni": 1.0}))
    one_sentence(error)
    with pytest.raises(CalculatorSetupError, match="NoneType as relaxation") as error:
        KinosonCalculator(pair_model(network), None)
    one_sentence(error)
    with pytest.raises(CalculatorSetupError, match=r"found rates for \['Cu'\]") as error:
        BarrierCalculator(SpeciesRates({"Cu": 1.0}), jumps=network)
    one_sentence(error)


def test_model_and_relaxation_must_belong_together():
    network = fcc()
    longer = JumpNetwork.from_supercell(fcc(3).supercell, cutoff=3.7)
    with pytest.raises(CalculatorSetupError, match="found a relaxation for") as error:
        KinosonCalculator(pair_model(network), random_relaxation(longer))
    one_sentence(error)
    ternary = fcc(composition={"Cu": 0.5, "Ni": 0.3, "Pd": 0.2})
    with pytest.raises(CalculatorSetupError, match="Pd") as error:
        KinosonCalculator(pair_model(network), random_relaxation(ternary))
    one_sentence(error)
    with pytest.raises(CalculatorSetupError, match="other jumps") as error:
        BarrierCalculator(pair_model(network), jumps=longer)
    one_sentence(error)


def test_supercells_must_belong_to_the_model():
    network = fcc()
    with pytest.raises(CalculatorSetupError, match="bound to a supercell of 32 sites") as error:
        BarrierCalculator(pair_model(network), supercell=fcc(3).supercell)
    one_sentence(error)
    with pytest.raises(CalculatorSetupError, match="another alloy") as error:
        BarrierCalculator(pair_model(network), supercell=honeycomb().supercell)
    with pytest.raises(CalculatorSetupError, match="expected one of them") as error:
        BarrierCalculator(pair_model(network), supercell=network.supercell, jumps=network)
    one_sentence(error)


def test_atoms_that_do_not_map_are_refused(copper):
    far = copper.copy()
    far.positions[7] += [1.2, 0.3, 0.0]
    gold = copper.copy()
    gold.symbols[2] = "Au"
    average = copper.copy()
    average.info["occupancy"] = {}
    wrong = copper.copy()
    wrong.set_cell(copper.cell * 1.3)
    for atoms, message in [
        (far, r"atom 7 \((Cu|Ni)\) lies 1\.\d\d Å"),
        (gold, "atom 2 is Au"),
        (average, "occupancy"),
        (wrong, "found the cell"),
        (copper[2:], "3 vacancies"),
    ]:
        copper.calc.reset()
        for name in ("barriers", "energy", "kinosons"):
            with pytest.raises(MappingError, match=message) as error:
                copper.calc.get_property(name, atoms)
            assert isinstance(error.value, CalculatorSetupError)
            one_sentence(error)
    copper.calc.set(tolerance=1.4)
    assert copper.calc.get_property("barriers", far).shape == (12,)
