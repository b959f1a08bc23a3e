"""Coefficients, training and densities at the ends of the scale: right, or one sentence."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, KinosonWarning, NoBarrier
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.kinosons.paths import InnerRates, Paths
from ase_kinoson.kinosons.verdict import heavy_share
from ase_kinoson.units import thermal_energy
from ase_kinoson.validation import PARENTS, tiny_cell

QUIET = "ignore::ase_kinoson.errors.KinosonWarning"
pytestmark = pytest.mark.filterwarnings(QUIET)
SMALL = {"n_states": 40, "lookahead": 1, "hidden": 4, "gates": 4, "closure_epochs": 1, "seed": 0}


def pair_model(cell, shift, bond=-0.01):
    """Barriers of about ``shift`` eV."""
    energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): bond, ("Cu", "X"): 0.6 * bond})
    return ak.PairBarriers(energy, {"Ag": shift, "Cu": shift - 0.05})


def draw(cell, model, kelvin, n=24, seed=1):
    return ak.sample_states(cell, n, method="monte-carlo", model=model, temperature_K=kelvin, sweeps=10, seed=seed)


def numbers(result):
    """All coefficients and their errors: names to arrays."""
    found = {"D_v": result.vacancy_diffusivity, "Λ": result.lambda_matrix, "f_v": None, "L": result.onsager_matrix}
    found["f_v"] = result.collective_correlation_factor["vacancy"]
    found |= {f"D* {s}": q for s, q in result.tracer_diffusivity.items()}
    return {name: (np.asarray(q.value), np.asarray(q.error)) for name, q in found.items() if q is not None}


def scale_free(one, other, factor, rtol=1e-9):
    """Assert that all numbers and all errors differ by a factor, which correlation factors do not have."""
    for name, (value, error) in numbers(one).items():
        by = 1.0 if name == "f_v" else factor
        there, spread = numbers(other)[name]
        assert np.all((error > 0) == (spread > 0)), name
        np.testing.assert_allclose(there / by, value, rtol=rtol, err_msg=name)
        np.testing.assert_allclose(spread / by, error, rtol=rtol, atol=1e-12 * np.abs(value).max(), err_msg=name)
    assert other.contribution_sample_size == pytest.approx(one.contribution_sample_size, rel=rtol)
    assert other.largest_share == pytest.approx(one.largest_share, rel=rtol)


@pytest.mark.parametrize("shift", [0.4, 2.0])
def test_a_common_barrier_is_a_common_factor(tiny, shift):
    """+0.4 eV at 50 K is 40 decades, +2 eV 200: values, errors and effective numbers are those of the same states."""
    cell, network = tiny
    low, high = pair_model(cell, 0.5), pair_model(cell, 0.5 + shift)
    states = draw(cell, low, 50.0)
    factor = np.exp(-shift / thermal_energy(50.0))
    results = [ak.transport(states, network, m, temperature_K=50.0) for m in (low, high)]
    scale_free(*results, factor)
    with pytest.raises(AssertionError):  # the twin whose errors are formed from squares
        broken = results[1]
        averages = broken.averages
        naive = np.zeros(()) + (averages.vacancy[1:].std() if shift > 1 else 0.0)
        scale_free(
            results[0],
            replace(broken, vacancy_diffusivity=replace(broken.vacancy_diffusivity, error=float(naive) * 1e-20)),
            factor,
        )


def test_training_does_not_know_the_unit_of_time(tiny):
    """Rates of 1e-60 of what they are: the relaxation is the same, its learned gates included."""
    cell, network = tiny
    model = pair_model(cell, 0.5, -0.05)
    found = [
        ak.train_relaxation(cell, network, model, temperature_K=600.0, attempt_frequency=nu, **SMALL)
        for nu in (1e13, 1e-47)
    ]
    ratios = [y.report["trained_bound_ratio"] for y in found]
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-4)
    # broken twin: gates that take all rates below 1e-30 for none
    states = draw(cell, model, 600.0, 3)
    inner = found[1].inner_rates(0, states.occupations, states.carriers)
    paths = found[1].paths(found[1].ball(0), inner)
    assert float(paths.log_rate.max()) < np.log(1e-30) and float(paths.log_rate.std()) > 0.01


@pytest.mark.parametrize(("first", "second", "kelvin"), [(0.5, 10.0, 50.0), (1.0, 0.9, 50.0)])
def test_the_bound_holds_over_hundreds_of_decades(tiny, first, second, kelvin):
    """All states with their weights: Λ[y] is above Λ, though rates within one state differ by up to 900 decades."""
    cell, network = tiny
    energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.01, ("Cu", "X"): -0.006})
    model = ak.PairBarriers(energy, {"Ag": first, "Cu": second})
    y = ak.train_relaxation(cell, network, model, temperature_K=kelvin, **SMALL)
    space = StateSpace.enumerate(network)
    weights = space.weights(ak.Rates.of(model, network, temperature_K=kelvin))
    every = space.states(weights, ensemble="equilibrium", temperature_K=kelvin, source="enumerated")
    exact = ak.exact_transport(cell, network, model, temperature_K=kelvin, tracers=False).vacancy_diffusivity.value
    bound = ak.transport(every, network, model, y, temperature_K=kelvin).vacancy_diffusivity.value
    bare = ak.transport(every, network, model, temperature_K=kelvin).vacancy_diffusivity.value
    assert exact <= bound * (1 + 1e-6) and bound < bare
    # broken twin: the rare states carry the diffusivity, and a sample of the common ones alone is far below
    common = every[weights > 3e-3]  # 98.6 % of the weight
    assert ak.transport(common, network, model, y, temperature_K=kelvin).vacancy_diffusivity.value < 0.9 * exact


def test_paths_of_states_that_are_hardly_left_have_no_weight(tiny):
    """Sums of subnormal rates have no shares: dividing by them gives infinity, and infinity times 0 NaN."""
    cell, network = tiny
    y = ak.Relaxation.create(
        network, lookahead=2, rates=ak.Rates.of(pair_model(cell, 0.5), network, temperature_K=600.0)
    )
    stencil = y.ball(0).stencil
    n = len(stencil.next_state)
    rates = np.ones((1, n, network.n_jumps))
    rates[:, 1:] = 1e-310  # the neighbours are left by the jump back and by jumps that hardly have a rate
    back = np.nonzero(stencil.next_state[:n] == 0)
    rates[0, back[0], back[1]] = 1.0
    for scale in (1.0, 1e-200):
        paths = Paths.of(stencil, network, InnerRates(rates * scale, rates * scale), jumps=2, dtype=torch.float64)
        for tensor in (paths.probability, paths.direct, paths.onward, paths.log_rate, paths.log_exit):
            assert bool(torch.isfinite(tensor).all())


# -- what has no number -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("barrier", "kelvin"), [(10.0, 50.0), (3.0, 50.0), (10.0, 150.0)])
def test_rates_below_all_numbers_are_one_sentence_everywhere(tiny, barrier, kelvin):
    cell, network = tiny
    model = pair_model(cell, barrier)
    states = draw(cell, model, kelvin)
    calls = {
        "transport": lambda: ak.transport(states, network, model, temperature_K=kelvin),
        "stream": lambda: ak.stream_transport([states], network, model, temperature_K=kelvin),
        "train": lambda: ak.train_relaxation(cell, network, model, temperature_K=kelvin, **SMALL),
        "kmc": lambda: ak.run_kmc(states, network, model, kelvin, n_jumps=128, n_walkers=8),
        "exact": lambda: ak.exact_transport(cell, network, model, temperature_K=kelvin),
    }
    for name, call in calls.items():
        with pytest.raises(KinosonError, match=r"total rate of|no jump with a positive rate") as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400, name


@pytest.mark.parametrize(("barrier", "kelvin"), [(10.0, 1000.0), (10.0, 5000.0), (30.0, 1000.0), (1.0, 50.0)])
def test_high_barriers_and_low_temperatures_have_numbers(tiny, barrier, kelvin):
    """Λ[0] of one bond-free alloy is ν exp(−Q/kT)/4 per jump in closed form."""
    cell, network = tiny
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {}), {"Ag": barrier, "Cu": barrier})
    states = draw(cell, model, kelvin, 8)
    result = ak.transport(states, network, model, temperature_K=kelvin)
    expected = 1e13 * np.exp(-barrier / thermal_energy(kelvin)) * 4 / 4 * 1e-20
    assert result.vacancy_diffusivity.value == pytest.approx(expected, rel=1e-9, abs=0)
    kmc = ak.run_kmc(states, network, model, kelvin, n_jumps=128, n_walkers=16)
    assert kmc.time_per_jump.value == pytest.approx(1e-20 / expected / 4, rel=1e-9, abs=0)
    exact = ak.exact_transport(cell, network, model, temperature_K=kelvin)
    assert exact.vacancy_diffusivity.value == pytest.approx(expected, rel=1e-6, abs=0)


def test_jumps_that_never_happen_beside_others_that_do(tiny):
    """Cu needs 10 eV at 50 K: its rate is 0 in double precision, its coefficients are 0, those of Ag are numbers."""
    cell, network = tiny
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.01}), {"Ag": 0.5, "Cu": 10.0})
    states = draw(cell, model, 50.0)
    result = ak.transport(states, network, model, temperature_K=50.0)
    assert result.tracer_diffusivity["Cu"].value == 0.0 and result.tracer_diffusivity["Ag"].value > 1e-60
    density = ak.KinosonDensity.from_result(result, quantity="tracer_Cu")
    for ask in (
        density.mean_barrier,
        density.activation_energy,
        density.fit_models,
        density.shares,
        density.top_jumps,
        density.share_by_species,
        lambda: density.over_barrier(4),
    ):
        with pytest.raises(KinosonError, match="coefficient 'tracer_Cu' of 0 Å²/s; expected a positive one"):
            ask()
    assert all(np.isnan(share.value) for share, _ in density.over_species().values())
    # what is 0 here tells nothing about a temperature at which it is not
    everything = ak.KinosonDensity.from_result(result)
    assert everything.predict([50.0, 60.0])[0] == pytest.approx(everything.total, rel=1e-12, abs=0)
    for ask in (everything.predict, everything.bound_curve):
        with pytest.raises(KinosonError, match="evaluate at a higher temperature"):
            ask([50.0, 900.0])
    # nor is infinity times 0 anything
    with np.errstate(over="ignore", invalid="ignore"):
        gap = 1.0 / thermal_energy(50.0) - 1.0 / thermal_energy(900.0)
        naive = everything.contribution * np.exp(gap * everything.barrier)
    assert np.isnan(naive).any()


@pytest.mark.parametrize("kelvin", [50.0, 300.0, 5000.0])
def test_densities_carry_to_other_temperatures_without_overflow(tiny, kelvin):
    cell, network = tiny
    model = pair_model(cell, 2.0)
    result = ak.transport(draw(cell, model, kelvin), network, model, temperature_K=kelvin)
    density = ak.KinosonDensity.from_result(result)
    found = density.predict([50.0, 300.0, 5000.0])
    assert np.isfinite(found).all() and np.all(np.diff(np.log(found)) > 1.0)
    models = density.fit_models()
    assert float(density.mean_barrier()) == pytest.approx(1.975, abs=0.06)
    for form in models.values():
        assert np.isfinite(form.log_value)
        assert form.predict([kelvin])[0] == pytest.approx(density.total, rel=1e-9, abs=0)


def test_series_over_cold_temperatures_are_fitted(tiny):
    cell, network = tiny
    model = pair_model(cell, 2.0)
    results = [
        ak.transport(draw(cell, model, t), network, model, temperature_K=t) for t in (50.0, 70.0, 120.0, 400.0, 5000.0)
    ]
    fits = ak.fit_temperature_models(results)
    slope = fits["arrhenius"].parameters["mean_barrier"]
    assert float(slope.value) == pytest.approx(1.95, abs=0.03)
    assert np.isfinite(fits.log_error).all() and np.all(fits.log_error > 0)


def test_effective_numbers_do_not_know_the_unit():
    parts = np.array([1.0, 2.0, 3.0, 4.0])
    for unit in (2.0**-900, 2.0**-530, 1.0, 2.0**900):
        assert heavy_share(parts * unit, np.arange(4)) == (100.0 / 30.0, 0.4)
    assert heavy_share(np.zeros(3), np.arange(3)) == (0.0, 1.0)


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_about_what_carries_nothing(tiny):
    cell, network = tiny
    states = ak.sample_states(cell, 6, seed=1)
    result = ak.transport(states, network, ak.SpeciesRates({"Ag": 0.0, "Cu": 0.0}))
    assert result.vacancy_diffusivity.value == 0.0


# -- jumps without a barrier ------------------------------------------------------------------------------------------


def test_jumps_without_a_barrier_are_told(tiny):
    cell, network = tiny
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.02}), {"Ag": -0.2, "Cu": 0.1})
    states = draw(cell, model, 900.0, 40)
    with pytest.warns(NoBarrier, match=r"have a barrier of 0 or less, the lowest -0\.\d+ eV") as seen:
        ak.transport(states, network, model, temperature_K=900.0)
    told = next(w.message for w in seen if isinstance(w.message, NoBarrier))
    assert told.limit == 1.0 and 50.0 < told.number <= 100.0 and told.unit == "%"
    with pytest.warns(NoBarrier) as seen:  # and of states in chunks, from their sums
        ak.stream_transport([states[:13], states[13:]], network, model, temperature_K=900.0)
    again = next(w.message for w in seen if isinstance(w.message, NoBarrier))
    assert again.text == told.text and again.number == pytest.approx(told.number, rel=1e-12)
    # broken twin: barriers above 0 are not worth a word, nor are rates that have none
    for fine in (pair_model(cell, 0.5), ak.SpeciesRates({"Ag": 1.0, "Cu": 2.0})):
        some = ak.sample_states(cell, 8, seed=0) if isinstance(fine, ak.SpeciesRates) else draw(cell, fine, 900.0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", KinosonWarning)
            ak.transport(some, network, fine, temperature_K=900.0)
            ak.stream_transport([some[:3], some[3:]], network, fine, temperature_K=900.0)
        assert not [w for w in said if issubclass(w.category, NoBarrier)]


# -- the smallest crystals --------------------------------------------------------------------------------------------


def test_jumps_without_a_barrier_are_weighed_along_the_layer():
    """Jumps of a buckled layer lead up and down too: that is no diffusion, in chunks or not."""
    atoms = PARENTS["honeycomb"]()
    atoms.positions[1, 2] += 1.2
    cell = ak.Alloy.from_atoms(atoms, {"C": {"Ag": 0.5, "Cu": 0.5}}).supercell((4, 4, 1))
    network = ak.JumpNetwork.from_supercell(cell, cutoff=2.6)
    energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.2}, cutoff=1.95)
    model = ak.PairBarriers(energy, {"Ag": 0.05, "Cu": 0.1})
    states = draw(cell, model, 900.0, 12)
    table = ak.transport(states, network, model, temperature_K=900.0).kinosons
    with pytest.warns(NoBarrier) as seen:
        ak.stream_transport([states[:5], states[5:]], network, model, temperature_K=900.0)
    told = next(w.message for w in seen if isinstance(w.message, NoBarrier))

    def share(part):
        return 100 * float(part[table["barrier"] <= 0].sum() / part.sum())

    assert told.number == pytest.approx(share(table["weight"] * table["uncorrelated"]), rel=1e-9)
    # broken twin: jumps of their whole length
    length = np.linalg.norm(network.vectors[network.basis_of(states.carriers[table["state"]]), table["jump"]], axis=-1)
    assert told.number != pytest.approx(share(table["weight"] * table["rate"] * length**2), abs=1.0)


def chain():
    cell = ak.Alloy.from_atoms(Atoms("Cu", cell=[2.5, 10, 10], pbc=(1, 0, 0))).supercell((3, 1, 1))
    return cell, ak.JumpNetwork.from_supercell(cell)


@pytest.mark.parametrize(
    "make",
    [chain, lambda: tiny_cell({"Cu": 8}), lambda: tiny_cell({"Ag": 1, "Cu": 7})],
    ids=["chain", "square", "one Ag"],
)
def test_every_stage_takes_the_smallest_alloys(make):
    cell, network = make()
    names = [s for s in ("Ag", "Cu") if s in cell.species]
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {("Cu", "X"): -0.02}), dict.fromkeys(names, 0.6))
    y = ak.train_relaxation(cell, network, model, temperature_K=900.0, **(SMALL | {"n_states": 12}))
    states = draw(cell, model, 900.0, 12, seed=5)
    result = ak.transport(states, network, model, y, temperature_K=900.0)
    exact = ak.exact_transport(cell, network, model, temperature_K=900.0)
    assert result.vacancy_diffusivity.value >= exact.vacancy_diffusivity.value * (1 - 1e-6)
    for s in names:
        assert result.tracer_diffusivity[s].value >= 0.9 * exact.tracer_diffusivity[s].value
    corrected = ak.correct(result, model, n_steps=2)
    assert corrected.vacancy_diffusivity.value == pytest.approx(exact.vacancy_diffusivity.value, rel=0.15, abs=0)
    density = ak.KinosonDensity.from_result(result)
    assert float(density.activation_energy()) == pytest.approx(0.6, abs=0.02)
    assert all(np.isfinite(float(q.value)) for q in density.fit_models()["third cumulant"].cumulants)
    atoms = cell.to_atoms(states.occupations[0])
    calc = ak.KinosonCalculator(model, y, temperature_K=900.0, jumps=network)
    own = result.kinosons["kinoson_vacancy"][result.kinosons["state"] == 0]
    assert calc.get_property("kinosons", atoms) == pytest.approx(own, rel=1e-6, abs=0)
    single = ak.transport(states[[0]], network, model, y, temperature_K=900.0)
    assert np.isnan(single.vacancy_diffusivity.error) and single.vacancy_diffusivity.value > 0


def test_a_calculator_counts_periodic_directions_only():
    """A buckled layer: what an atom does across it is no diffusion."""
    places = [[1 / 3, 2 / 3, 0.47], [2 / 3, 1 / 3, 0.53]]
    atoms = Atoms(
        "Cu2", scaled_positions=places, cell=[[2.5, 0, 0], [-1.25, 2.165063509461097, 0], [0, 0, 12]], pbc=(1, 1, 0)
    )
    cell = ak.Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Ag": 0.5}}).supercell((3, 3, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    assert np.abs(network.vectors[..., 2]).max() > 0.5
    model = pair_model(cell, 0.5)
    y = ak.Relaxation.create(network, rates=ak.Rates.of(model, network, temperature_K=900.0), lookahead=1)
    states = draw(cell, model, 900.0, 2)
    table = ak.transport(states, network, model, y, temperature_K=900.0).kinosons
    first = table["state"] == 0
    calc = ak.KinosonCalculator(model, y, temperature_K=900.0, jumps=network)
    image = cell.to_atoms(states.occupations[0])
    assert calc.get_property("kinosons", image) == pytest.approx(table["kinoson_vacancy"][first], rel=1e-6, abs=0)
    for s, own in calc.get_property("kinosons_by_species", image).items():
        assert own == pytest.approx(table[f"kinoson_{s}"][first], rel=1e-6, abs=1e-9 * own.max())


# -- single and double precision --------------------------------------------------------------------------------------


def digits(one, other):
    """Decimal digits that two sets of numbers share, the worst of them."""
    gap = np.abs(np.asarray(one) - other).max() / np.abs(other).max()
    return -np.log10(max(float(gap), 1e-16))


def test_single_precision_is_double_precision_to_so_many_digits(tiny, pair_model):
    """Networks are trained and evaluated in single precision, sums are formed in double precision."""
    cell, network = tiny
    states = draw(cell, pair_model, 600.0, 40)
    single = ak.train_relaxation(cell, network, pair_model, temperature_K=600.0, **(SMALL | {"lookahead": 2}))
    double = single.to(torch.float64)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    fields = [y(states.occupations, states.carriers) for y in (single, double)]
    found = [ak.transport(states, network, pair_model, y, temperature_K=600.0) for y in (single, double)]
    assert 5.0 < digits(*fields) < 9.0
    assert digits(found[0].lambda_matrix.value, found[1].lambda_matrix.value) > 6.0
    for s in ("Ag", "Cu"):
        assert digits(found[0].tracer_diffusivity[s].value, found[1].tracer_diffusivity[s].value) > 6.0
    # broken twin: half precision has three
    half = fields[1].astype(np.float16)
    assert digits(half, fields[1]) < 5.0
