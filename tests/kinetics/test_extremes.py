"""Rates over hundreds of decades, barriers and temperatures that are no numbers, the smallest crystals.

Either the numbers are right or one sentence says why there are none.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.errors import BarrierError, KinosonError, ModelError, StatesError
from ase_kinoson.kinetics.device_kmc import DeviceKineticMonteCarlo
from ase_kinoson.kinetics.heat_bath import CarrierHeatBath
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.monte_carlo import MonteCarlo
from ase_kinoson.kinetics.rates import LARGEST_RATE, SMALLEST_RATE, Rates
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.units import BOLTZMANN_EV_PER_K, thermal_energy
from ase_kinoson.validation import tiny_cell

NONSENSE = (0, -1.0, float("nan"), float("inf"), True, np.True_, "300", b"300", None, [300.0, 400.0], 5e-324)
QUIET = "ignore::ase_kinoson.errors.KinosonWarning"


def pair_model(cell, first, second, bond=-0.01):
    energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): bond, ("Cu", "X"): 0.6 * bond})
    return ak.PairBarriers(energy, {"Ag": first, "Cu": second})


def draw(cell, model, kelvin, n=24, **options):
    return ak.sample_states(cell, n, method="monte-carlo", model=model, temperature_K=kelvin, **options)


@pytest.mark.parametrize("kelvin", NONSENSE)
def test_what_is_no_temperature_is_refused(tiny, kelvin):
    _, network = tiny
    with pytest.raises(KinosonError, match="positive number of kelvin"):
        thermal_energy(kelvin)
    if kelvin is not None:  # which a gas of rates may go without
        with pytest.raises(KinosonError, match="positive number of kelvin"):
            Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}), network, temperature_K=kelvin)


@pytest.mark.parametrize("kelvin", [50, 5000.0, np.float32(300), np.int64(300), np.array(300.0)])
def test_what_is_a_temperature_is_taken(kelvin):
    assert thermal_energy(kelvin) == BOLTZMANN_EV_PER_K * float(kelvin)


# -- gases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gas",
    [
        ak.SpeciesRates({"Ag": np.nan, "Cu": 1.0}),
        ak.SpeciesRates({"Ag": np.inf, "Cu": 1.0}),
        ak.RandomBarriers(mean=np.nan),
        ak.RandomBarriers(std=-0.1),
        ak.RandomBarriers(std=np.inf),
        ak.SiteBarriers((np.nan,), (1.0,)),
        ak.SiteBarriers((np.inf,), (1.0,)),
        ak.SiteBarriers((0.0,), (np.nan,)),
        ak.SiteBarriers((0.0,), (-np.inf,)),
        ak.PairBarriers(None, {"Ag": np.nan, "Cu": 0.5}),
        ak.PairBarriers(None, {"Ag": -np.inf, "Cu": 0.5}),
    ],
)
def test_gases_of_what_is_no_number_are_refused(tiny, gas):
    with pytest.raises(KinosonError, match=r"found .*; expected .*numbers.*; correct them"):
        gas.bind(tiny[1])


def test_a_saddle_that_nothing_crosses_is_a_number(tiny):
    _, network = tiny
    bound = ak.SiteBarriers((0.0,), (np.inf,)).bind(network)
    assert np.all(np.isinf(bound.jump_energies(np.zeros((2, 9)), [0, 1]).barrier))


# -- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kelvin", [1.0, 50.0, 5000.0, 1e6])
def test_equilibrium_weights_know_no_overflow(tiny, kelvin):
    """A vacancy at 1 K with bonds of 30 eV: factors of exp(±10⁶)."""
    cell, _ = tiny
    model = pair_model(cell, 1.0, 1.0, bond=-30.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ak.errors.KinosonWarning)
        cold = draw(cell, model, kelvin, 12, ensemble="quenched", n_chains=3, seed=1)
        chain = draw(cell, model, kelvin, 12, sweeps=5, seed=1)
    for states in (cold, chain):
        assert np.isfinite(states.model_energies).all() and states.weights.sum() == pytest.approx(1.0)
    # in each arrangement the vacancy is where the energy is lowest, once kT is far below all gaps
    if kelvin <= 50.0:
        for group in np.unique(cold.groups):
            own = cold.model_energies[cold.groups == group]
            assert np.ptp(own) < 1e-9


def test_weights_of_energies_that_are_far_apart_are_formed_in_logarithms(tiny):
    cell, _ = tiny
    states = draw(cell, pair_model(cell, 1.0, 1.0), 50.0, 8, sweeps=5, seed=1)
    kT, n = thermal_energy(50.0), len(states)
    gaps = np.linspace(0.0, 1.0, n)
    expected = np.exp(-gaps / kT)
    for zero in (0.0, 1e4, -1e4):  # a common energy whose Boltzmann factor no number holds
        with pytest.warns(ak.errors.KinosonWarning, match="effective sample size"):
            found = ak.reweight(states, states.model_energies + gaps + zero, 50.0).weights
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-7 if zero == 0 else 1e-5, atol=1e-300)
    with np.errstate(over="ignore", invalid="ignore"):  # broken twin: factors without a common one taken out
        naive = np.exp(-(gaps - 1e4) / kT)
        assert not np.isfinite(naive / naive.sum()).all()


@pytest.mark.parametrize("energy", [np.nan, np.inf, -np.inf])
def test_bonds_that_are_no_numbers_are_refused(tiny, energy):
    with pytest.raises(ModelError, match="between Ag and Cu; expected finite numbers"):
        ak.PairEnergy.from_interactions(tiny[0], {("Ag", "Cu"): energy})


def test_what_monte_carlo_lacks_is_one_line(tiny):
    cell, _ = tiny
    for options in ({"model": pair_model(cell, 0.5, 0.5)}, {"temperature_K": 300.0}):
        with pytest.raises(StatesError, match="expected both") as caught:
            ak.sample_states(cell, 4, method="monte-carlo", **options)
        assert "\n" not in str(caught.value)


class Holes:
    """Energies that are NaN for some occupations."""

    def __init__(self, cell, bad=lambda occupations: occupations[:, 0] == 0):
        self.bad = bad

    def energies(self, occupations):
        return np.where(self.bad(occupations), np.nan, 0.0)

    def swap_delta(self, occupations, first, second):
        after = occupations.copy()
        rows = np.arange(len(after))
        after[rows, first], after[rows, second] = occupations[rows, second], occupations[rows, first]
        return self.energies(after) - self.energies(occupations)


def test_energies_that_are_no_numbers_are_refused(tiny):
    """They would be exchanges that are never accepted, or a vacancy that always sits on the first site."""
    cell, _ = tiny
    with pytest.raises(ModelError, match="energy of nan eV in chain"):
        MonteCarlo(cell, Holes(cell), 600.0, n_chains=40, seed=0)
    start = np.array([[1, 0, 1, 1, 1, 2, 2, 2, 2]])
    with pytest.raises(ModelError, match="energy changes that are NaN"):
        MonteCarlo(cell, Holes(cell), 600.0, occupations=start, seed=0).run(5)
    with pytest.raises(ModelError, match="no finite numbers"):
        CarrierHeatBath(cell, Holes(cell), 600.0, start.astype(np.int8), np.array([1]))


def test_a_species_that_rounds_to_no_atom_makes_no_quasirandom_cell():
    pytest.importorskip("icet")
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.995, "Ni": 0.005}})
    with pytest.raises(StatesError, match="no disorder"):
        ak.sample_states(alloy.supercell(2), 3, method="sqs", seed=0)


# -- kinetic Monte Carlo ----------------------------------------------------------------------------------------------


def engines(states, network, rates, **options):
    """The NumPy step, the compiled loop (where there is one) and the device engine on the processor."""
    slow = KineticMonteCarlo(states, network, rates, seed=3, **options)
    slow._loop = None
    yield slow
    yield KineticMonteCarlo(states, network, rates, seed=3, **options)
    yield DeviceKineticMonteCarlo(states, network, rates, seed=3, device="cpu", random="numpy", **options)


def test_trajectories_do_not_know_the_unit_of_time(tiny):
    """Rates from 1e-240 to 1e240 s⁻¹: the same jumps, and times that are those of 1 s⁻¹ to rounding."""
    cell, network = tiny
    states = ak.sample_states(cell, 10, seed=1)

    def run(unit):
        gas = ak.SpeciesRates({"Ag": 1.0 * unit, "Cu": 0.3 * unit})
        rates = Rates.of(gas, network)
        for engine in engines(states, network, rates, n_walkers=16):
            engine.run(130)
            yield engine

    for one, *others in zip(*(run(unit) for unit in (1.0, 1e-240, 1e240)), strict=True):
        for other, unit in zip(others, (1e-240, 1e240), strict=True):
            assert np.array_equal(one.occupations, other.occupations)
            np.testing.assert_allclose(other.times * unit, one.times, rtol=1e-12)


@pytest.mark.parametrize("rate", [SMALLEST_RATE / 1e3, 4e-310, LARGEST_RATE * 1e3])
def test_residence_times_that_no_number_holds_are_refused(tiny, rate):
    cell, network = tiny
    rates = Rates.of(ak.SpeciesRates({"Ag": rate, "Cu": rate}), network)
    states = ak.sample_states(cell, 4, seed=1)
    for kind in (KineticMonteCarlo, DeviceKineticMonteCarlo):
        options = {"device": "cpu"} if kind is DeviceKineticMonteCarlo else {}
        with pytest.raises(StatesError, match=r"total rate of .* expected a positive number \(1e-250 to 1e\+250\)"):
            kind(states, network, rates, n_walkers=4, seed=0, **options)


@pytest.mark.parametrize("slow", [1e-260, 1e260, np.nan])
def test_a_walker_that_comes_to_such_a_state_is_stopped_by_every_engine(tiny, slow):
    cell, network = tiny
    rates = Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}), network)
    for engine in engines(ak.sample_states(cell, 8, seed=2), network, rates, n_walkers=8):
        if isinstance(engine, DeviceKineticMonteCarlo):
            of = engine._on_device._of
            engine._on_device._of = lambda *state, of=of: of(*state) * slow
        else:
            engine._by_species = engine._by_species * slow
        with pytest.raises(StatesError, match=r"total rate of .* in walker 0"):
            engine.run(3)
        with pytest.raises(KinosonError, match="middle of a jump"):
            engine.run(1)
        with pytest.raises(KinosonError, match="middle of a jump"):
            engine.save("never-written.npz")


def test_a_device_run_that_was_stopped_is_not_saved(tiny, tmp_path, monkeypatch):
    cell, network = tiny
    rates = Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 0.3}), network)
    engine = DeviceKineticMonteCarlo(
        ak.sample_states(cell, 4, seed=1), network, rates, n_walkers=4, seed=0, device="cpu"
    )
    engine.run(7)
    engine.save(tmp_path / "good.npz")

    def interrupted(values, here, there):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ase_kinoson.kinetics.device_kmc._exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.run(1)
    for refused in (lambda: engine.run(1), lambda: engine.save(tmp_path / "bad.npz")):
        with pytest.raises(KinosonError, match="middle of a jump"):
            refused()
    assert not (tmp_path / "bad.npz").exists()
    engine.load(tmp_path / "good.npz")
    engine.run(1)
    assert engine.n_jumps == 8


def stopped_between_jumps(engine):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(5, tick=stop)


def test_an_interruption_between_jumps_leaves_whole_jumps(tiny, tmp_path):
    cell, network = tiny
    rates = Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 0.3}), network)
    states = ak.sample_states(cell, 4, seed=1)
    engine = DeviceKineticMonteCarlo(states, network, rates, n_walkers=4, seed=0, device="cpu")
    stopped_between_jumps(engine)
    engine.run(4)
    whole = DeviceKineticMonteCarlo(states, network, rates, n_walkers=4, seed=0, device="cpu")
    whole.run(5)
    assert np.array_equal(engine.occupations, whole.occupations) and np.array_equal(engine.times, whole.times)


@pytest.mark.filterwarnings(QUIET)
def test_a_carrier_that_shuttles_in_pairs_goes_nowhere():
    """Sites joined in pairs only: D = 0, and no average may turn that into NaN or into a warning about nothing."""
    places = [[0, 0, 0], [0.31, 0.42, 0.23]]
    atoms = Atoms("Ag2", scaled_positions=places, cell=[[3.7, 0, 0], [0.5, 4.0, 0], [0.3, 0.7, 4.4]], pbc=True)
    cell = ak.Alloy.from_atoms(atoms, {"Ag": {"Ag": 0.5, "Cu": 0.5}}).supercell(2)
    network = ak.JumpNetwork.from_supercell(cell, cutoff=2.545)
    assert network.exists.sum(axis=1).tolist() == [1, 1]
    model = pair_model(cell, 0.5, 0.6)
    states = draw(cell, model, 900.0, 20, sweeps=5, seed=1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = ak.run_kmc(states, network, model, 900.0, n_jumps=256, n_walkers=16, seed=1)
    assert result.vacancy_diffusivity.value == pytest.approx(0.0, abs=1e-30)
    assert all(abs(float(q)) < 1e-30 for q in result.tracer_diffusivity.values())
    assert not [w for w in seen if "independent groups of walkers carries" in str(w.message)]
    # broken twin: with one more class of jumps the carrier gets away
    other = ak.JumpNetwork.from_supercell(cell, cutoff=2.6)
    free = ak.run_kmc(states, other, model, 900.0, n_jumps=256, n_walkers=16, seed=1)
    assert free.vacancy_diffusivity.value > 1e-12


def test_errors_do_not_know_the_unit():
    """Squares of small numbers underflow: an error of 0 would pass for certainty."""
    rows = np.random.default_rng(0).normal(1.0, 0.1, (50, 3))
    for unit in (2.0**-900, 2.0**900):
        np.testing.assert_allclose(standard_error(rows * unit) / unit, standard_error(rows), rtol=1e-12)
    with np.errstate(under="ignore"):  # broken twin
        assert np.all((rows * 2.0**-900).std(axis=0) == 0.0)


# -- calculators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n in ("temperature_K", "attempt_frequency") for v in NONSENSE if v is not None][:20]
)
def test_parameters_of_calculators_that_are_no_numbers_are_refused(tiny, name, value):
    if value == 5e-324:
        return
    with pytest.raises(KinosonError, match=f"found {name}="):
        ak.BarrierCalculator(ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0}), jumps=tiny[1], **{name: value})


def test_a_calculator_uses_the_attempt_frequencies_of_the_jumps(tiny):
    cell, network = tiny
    states = ak.sample_states(cell, 1, seed=2)
    barrier, own = np.full((1, 4), 0.5), np.full((1, 4), np.nan)
    own[0, 1] = 3e12
    known = ak.Barriers.from_arrays(states, network, barrier, reverse_barrier=barrier, attempt_frequency=own)
    atoms = cell.to_atoms(states.occupations[0])
    rates = ak.BarrierCalculator(known, temperature_K=900.0).get_property("rates", atoms)
    assert rates == pytest.approx(np.array([1e13, 3e12, 1e13, 1e13]) * np.exp(-0.5 / thermal_energy(900.0)), rel=1e-12)


def test_barriers_beyond_all_numbers_are_one_sentence_to_a_calculator(tiny):
    cell, network = tiny
    atoms = cell.to_atoms(ak.sample_states(cell, 1, seed=2).occupations[0])
    calc = ak.BarrierCalculator(pair_model(cell, -5.0, -5.0), temperature_K=50.0, jumps=network)
    with pytest.raises(KinosonError, match="exceeds all numbers"):
        calc.get_property("rates", atoms)
    calc.set(temperature_K=5000.0)
    assert np.all(calc.get_property("rates", atoms) > 1e13)


def test_barrier_errors_name_the_temperature():
    with pytest.raises(BarrierError, match=r"barrier of -5 eV, whose rate at 50 K"):
        ak.kinetics.rates.rates_from_barriers(np.array([1.0, -5.0]), 50.0)


@pytest.mark.filterwarnings(QUIET)
def test_learned_barriers_in_single_precision_have_seven_digits():
    """And rates at 50 K four: an error of 1e-7 eV is one of 3e-5 k_BT there."""
    pytest.importorskip("numba")
    from tests.barriers.test_incremental import model_of

    single, double = (model_of("fcc", precision=p) for p in ("single", "double"))
    states = ak.sample_states(single.supercell, 6, seed=1)
    one, two = (m.jump_energies(states.occupations, states.carriers) for m in (single, double))
    known = np.isfinite(two.barrier)
    gap = np.abs(one.barrier - two.barrier)[known]
    assert 1e-9 < gap.max() < 1e-6
    assert np.abs(one.delta_e - two.delta_e)[known].max() < 1e-6
    w = [ak.kinetics.rates.rates_from_barriers(e.barrier[known], 50.0) for e in (one, two)]
    np.testing.assert_allclose(w[0], w[1], rtol=3e-4)
    # broken twin: half precision
    coarse = two.barrier[known].astype(np.float16)
    assert np.abs(coarse - two.barrier[known]).max() > 1e-5


# -- the smallest crystals --------------------------------------------------------------------------------------------


def test_cells_that_are_too_small_are_refused():
    for of in ("conventional", "primitive"):
        cell = ak.Alloy.from_atoms(bulk("Cu", cubic=of == "conventional")).supercell(1, of=of)
        with pytest.raises(KinosonError, match="use a larger supercell"):
            ak.JumpNetwork.from_supercell(cell)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("counts", [{"Cu": 8}, {"Ag": 1, "Cu": 7}])
def test_pure_and_nearly_pure_lattices_are_sampled_and_run(counts):
    cell, network = tiny_cell(counts)
    energy = ak.PairEnergy.from_interactions(cell, {("Cu", "X"): -0.02})
    model = ak.PairBarriers(energy, dict.fromkeys(counts, 0.6))
    sets = [ak.sample_states(cell, 8, seed=1), draw(cell, model, 900.0, 8, sweeps=5, seed=1)]
    sets.append(draw(cell, model, 900.0, 8, ensemble="quenched", seed=1))
    for states in sets:
        assert len(states) == 8
        assert {s: round(x * 8) for s, x in states.composition().items()} == counts
    results = []
    for engine in engines(sets[1], network, Rates.of(model, network, temperature_K=900.0), n_walkers=16):
        engine.run(128)
        results.append((engine.occupations, engine.times))
    for occupations, times in results[1:]:
        assert np.array_equal(occupations, results[0][0])
        np.testing.assert_allclose(times, results[0][1], rtol=1e-12)
