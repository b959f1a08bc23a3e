"""Sampling against exact enumeration of tiny cells; weights; the energy-drift check."""

import functools
import importlib.util
import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.errors import KinosonError, KinosonWarning, ModelError, StatesError
from ase_kinoson.kinetics.monte_carlo import equilibration_z
from ase_kinoson.kinetics.sampling import MonteCarlo, random_occupations, sample_states
from ase_kinoson.kinetics.weights import energy_drift, reweight, sample_drift
from ase_kinoson.units import thermal_energy

T = 500.0
KT = thermal_energy(T)
INTERACTIONS = {("Cu", "Ni"): -0.04, ("X", "Ni"): -0.06, ("Cu", "Cu"): 0.03}


@pytest.fixture(scope="module")
def square():
    atoms = Atoms("Cu", cell=[2.5, 2.5, 10], pbc=(1, 1, 0))
    return Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell((3, 3, 1))


@pytest.fixture(scope="module")
def everything(square):
    """All 630 states of 4 Cu, 4 Ni and the vacancy."""
    rows = []
    for vacancy in range(9):
        rest = [s for s in range(9) if s != vacancy]
        for chosen in itertools.combinations(rest, 4):
            row = np.ones(9, dtype=np.int8)
            row[list(chosen)] = 2
            row[vacancy] = 0
            rows.append(row)
    return States.from_occupations(square, rows)


@functools.cache
def jumps_on(cell):
    return JumpNetwork.from_supercell(cell)


def observables(states, energy):
    """Energy and number of Ni atoms next to the vacancy, shape (n, 2)."""
    near = jumps_on(states.supercell).targets(states.carriers)
    ni = (states.occupations[np.arange(len(states))[:, None], near] == 2).sum(axis=1)
    return np.stack([energy.energies(states.occupations), ni], axis=1)


def boltzmann(energies):
    w = np.exp(-(energies - energies.min()) / KT)
    return w / w.sum()


def quenched_exact(states, energy):
    """Mean over all arrangements of the exact mean over vacancy sites."""
    mean = np.zeros(2)
    n = states.supercell.n_sites
    for row, c in zip(states.occupations, states.carriers, strict=True):
        moved = np.tile(row, (n, 1))
        sites = np.arange(n)
        moved[sites, c] = row[sites]
        moved[sites, sites] = 0
        family = States.from_occupations(states.supercell, moved, carriers=sites)
        mean += boltzmann(energy.energies(moved)) @ observables(family, energy)
    return mean / len(states)


def deviation(values, exact, groups):
    """Distance of the mean from the exact value in standard errors over groups."""
    means = np.array([values[groups == g].mean(axis=0) for g in np.unique(groups)])
    return np.abs(means.mean(axis=0) - exact) / (means.std(axis=0, ddof=1) / np.sqrt(len(means)))


@pytest.mark.parametrize("ensemble", ["equilibrium", "quenched"])
def test_against_enumeration(square, everything, ensemble):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    if ensemble == "equilibrium":
        exact = boltzmann(energy.energies(everything.occupations)) @ observables(everything, energy)
    else:
        exact = quenched_exact(everything, energy)
    states = sample_states(
        square,
        2000,
        method="monte-carlo",
        model=energy,
        temperature_K=T,
        ensemble=ensemble,
        seed=4,
        sweeps=30,
    )
    assert states.ensemble == ensemble and states.temperature_K == T
    assert np.allclose(states.model_energies, energy.energies(states.occupations), atol=1e-9)
    assert np.all(states.occupations[np.arange(2000), states.carriers] == 0)
    assert np.all((states.occupations == 2).sum(axis=1) == 4)
    assert deviation(observables(states, energy), exact, states.groups).max() < 4
    blind = sample_states(square, 2000, seed=4)
    assert blind.ensemble == "random"
    assert deviation(observables(blind, energy), exact, blind.groups).max() > 10


def test_report_of_chains(square):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    states = sample_states(square, 60, method="monte-carlo", model=energy, temperature_K=T, n_chains=20, sweeps=40)
    assert np.array_equal(np.unique(states.groups, return_counts=True)[1], np.full(20, 3))
    report = states.report
    assert 0.05 < report["acceptance_exchange"] < 1 and 0.05 < report["acceptance_carrier"] < 1
    assert 0.2 < report["autocorrelation_sweeps"] < 10
    assert abs(report["equilibration_z"]) < 5
    assert report["sweeps"] == 48


def test_drifting_chains_are_told_in_standard_errors():
    rng = np.random.default_rng(0)
    quiet = [equilibration_z(rng.normal(size=(40, 50))) for _ in range(300)]
    assert np.std(quiet) == pytest.approx(1.0, abs=0.15) and abs(np.mean(quiet)) < 0.25
    # the last quarter lies 0.5 above the third: 10 values in each, 50 chains
    rising = rng.normal(size=(40, 50)) + np.where(np.arange(40) >= 30, 0.5, 0.0)[:, None]
    assert equilibration_z(rising) == pytest.approx(0.5 / np.sqrt(2 / 500), abs=3.0)


def test_chains_continue(square):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    chain = MonteCarlo(square, energy, T, n_chains=8, seed=1)
    chain.run(5)
    first = chain.snapshot()
    chain.run(5)
    assert chain.n_sweeps == 10
    assert np.allclose(chain.energies, energy.energies(chain.occupations), atol=1e-9)
    assert np.array_equal(first.model_energies, energy.energies(first.occupations).round(15)) or np.allclose(
        first.model_energies, energy.energies(first.occupations)
    )
    again = MonteCarlo(square, energy, T, occupations=first.occupations)
    assert np.array_equal(again.carriers, first.carriers)


def test_same_seed_same_states(square):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    for about in (
        {},
        {"method": "monte-carlo", "model": energy, "temperature_K": T, "sweeps": 3},
        {"method": "monte-carlo", "model": energy, "temperature_K": T, "ensemble": "quenched"},
    ):
        one, two, other = (sample_states(square, 20, seed=s, **about) for s in (5, 5, 6))
        assert np.array_equal(one.occupations, two.occupations)
        assert not np.array_equal(one.occupations, other.occupations)


def test_counts_and_sublattices():
    atoms = bulk("CsCl", "cesiumchloride", a=2.9)
    atoms.symbols = ["Ni", "Al"]
    composition = {"Ni": {"Ni": 0.62, "Cu": 0.38}, "Al": {"Al": 0.7, "Ti": 0.3}}
    alloy = Alloy.from_atoms(atoms, composition, mobile=["Ni"])
    cell = alloy.supercell(3)
    states = sample_states(cell, 30, seed=0)
    for number, counts in enumerate(cell.counts):
        for symbol, count in counts.items():
            on = states.occupations[:, cell.sublattice == number] == cell.species.index(symbol)
            assert np.all(on.sum(axis=1) == count)
    assert len(set(states.carriers.tolist())) > 10
    assert set(states.report["composition_rounding"]) == {"Ni", "Al"}
    energy = PairEnergy.from_interactions(cell, {("Ni", "Al"): -0.1, ("X", "Ti"): 0.05})
    cold = sample_states(cell, 10, method="monte-carlo", model=energy, temperature_K=800, sweeps=20)
    start = cell.sublattice == 0
    assert np.all(
        (cold.occupations[:, start] == cell.species.index("Al")).sum() == 0
    )  # fixed sublattices keep their atoms
    assert np.allclose(cold.model_energies, energy.energies(cold.occupations))


def test_interstitial_states():
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.6, "Cr": 0.4}})
    cell = alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(2)
    network = JumpNetwork.from_supercell(cell)
    states = sample_states(cell, 50, seed=0, network=network)
    assert np.all((states.occupations[:, cell.mobile_sites] > 0).sum(axis=1) == 1)
    rng = np.random.default_rng(0)
    energy = PairEnergy.from_interactions(cell, {("Fe", "Cr"): -0.05}, network=network)
    columns = energy.clusters.carrier_offset + energy.clusters.carrier.single_columns[0]
    energy.coefficients[columns[1, cell.species.index("Cr")]] = -0.2
    for ensemble in ("quenched", "equilibrium"):
        found = sample_states(
            cell,
            400,
            method="monte-carlo",
            model=energy,
            temperature_K=600,
            ensemble=ensemble,
            sweeps=10,
            n_chains=400,
        )
        assert np.allclose(found.model_energies, energy.energies(found.occupations), atol=1e-9)
        blind, _ = random_occupations(cell, 400, rng)
        assert found.model_energies.mean() < energy.energies(blind).mean() - 0.1


def test_model_without_energy(square):
    class Flat:
        energy = None

    states = sample_states(square, 500, method="monte-carlo", model=Flat(), temperature_K=T, sweeps=5)
    assert np.all(states.model_energies == 0)
    assert states.report["acceptance_exchange"] == 1.0
    with pytest.raises(ModelError, match="without energies"):
        sample_states(square, 2, method="monte-carlo", model=object(), temperature_K=T)


def test_refusals(square):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    with pytest.raises(StatesError, match="'magic'"):
        sample_states(square, 2, method="magic")
    with pytest.raises(StatesError, match="expected both"):
        sample_states(square, 2, method="monte-carlo", model=energy)
    with pytest.raises(StatesError, match="ensemble"):
        sample_states(square, 2, ensemble="cold")
    with pytest.raises(StatesError, match="n=0"):
        sample_states(square, 0)
    for ensemble in ("equilibrium", "quenched"):
        with pytest.raises(KinosonError, match="temperature_K=-5"):
            sample_states(square, 2, method="monte-carlo", model=energy, temperature_K=-5, ensemble=ensemble)


@pytest.mark.skipif(importlib.util.find_spec("icet") is None, reason="icet is not installed")
def test_sqs():
    alloy = Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": {"Cu": 0.75, "Ni": 0.25}})
    cell = alloy.supercell(2)
    states = sample_states(cell, 4, method="sqs", n_chains=2, seed=0)
    again = sample_states(cell, 4, method="sqs", n_chains=2, seed=0)
    assert np.array_equal(states.occupations, again.occupations)
    for symbol, count in cell.counts[0].items():
        assert np.all((states.occupations == cell.species.index(symbol)).sum(axis=1) == count)
    assert states.groups.tolist() == [0, 1, 0, 1] and states.ensemble == "random"


# -- weights ----------------------


@pytest.mark.parametrize("ensemble", ["equilibrium", "quenched"])
def test_reweighting_recovers_the_exact_average(square, everything, ensemble):
    truth = PairEnergy.from_interactions(square, INTERACTIONS)
    model = PairEnergy.from_interactions(square, {k: 0.5 * v for k, v in INTERACTIONS.items()})
    if ensemble == "equilibrium":
        exact = boltzmann(truth.energies(everything.occupations)) @ observables(everything, truth)
    else:
        exact = quenched_exact(everything, truth)
    states = sample_states(
        square,
        16000,
        method="monte-carlo",
        model=model,
        temperature_K=T,
        ensemble=ensemble,
        seed=2,
        sweeps=20,
        n_chains=800,
    )
    values = observables(states, truth)
    new = reweight(states, values[:, 0] + 7.0, T)
    assert new.weights.sum() == pytest.approx(1.0)
    assert 0.3 * 16000 < new.report["effective_sample_size"] < 16000
    block = states.groups % 20
    means = np.array([np.average(values[block == b], axis=0, weights=new.weights[block == b]) for b in range(20)])
    error = means.std(axis=0, ddof=1) / np.sqrt(20)
    assert np.all(np.abs(new.weights @ values - exact) < 4 * error)
    assert np.any(np.abs(states.weights @ values - exact) > 6 * error)
    if ensemble == "quenched":
        shares = [new.weights[states.groups == g].sum() for g in range(800)]
        assert np.allclose(shares, 1 / 800)
    with pytest.raises(StatesError, match="already"):
        reweight(new, values[:, 0], T)


def test_reweighting_refuses_and_warns(square):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    blind = sample_states(square, 10)
    with pytest.raises(StatesError, match="without model energies"):
        reweight(blind, np.zeros(10), T)
    states = sample_states(square, 20, method="monte-carlo", model=energy, temperature_K=T, sweeps=2)
    with pytest.raises(StatesError, match="one per state"):
        reweight(states, np.zeros(3), T)
    with pytest.raises(StatesError, match="drawn at"):
        reweight(states, np.zeros(20), 700.0)
    with pytest.warns(KinosonWarning, match="effective sample size"):
        reweight(states, np.random.default_rng(0).normal(0, 1.0, 20), T)
    single = sample_states(square, 20, method="monte-carlo", model=energy, temperature_K=T, ensemble="quenched")
    with pytest.warns(KinosonWarning, match="one state"):
        reweight(single, single.model_energies, T)


def jumps_of(states, energy):
    network = jumps_on(states.supercell)
    delta = energy.jump_delta(states.occupations, states.carriers, network)
    moving = network.moving_species(states.occupations, states.carriers)
    rates = np.exp(-(np.where(moving == 1, 0.5, 0.4) + delta / 2) / KT)
    return rates, delta, moving


def test_energy_drift(square, everything):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    jumps = jumps_of(everything, energy)
    exact = everything.with_weights(boltzmann(energy.energies(everything.occupations)))
    drift = energy_drift(exact, *jumps)
    assert abs(drift.value) < 1e-12
    assert set(drift.by_species) == {"Cu", "Ni"}
    assert all(abs(v) < 1e-12 for v, _ in drift.by_species.values())
    falling = energy_drift(everything, *jumps)
    assert falling.value < -0.05  # equal weights are not equilibrium
    for code, symbol in ((1, "Cu"), (2, "Ni")):  # each species by its own jumps
        own = (jumps[0] * jumps[1])[jumps[2] == code]
        assert falling.by_species[symbol][0] == pytest.approx(own.sum() / np.abs(own).sum(), rel=1e-9)
    states = sample_states(square, 1000, method="monte-carlo", model=energy, temperature_K=T, sweeps=20, n_chains=1000)
    good = energy_drift(states, *jumps_of(states, energy))
    assert good.consistent and good.n_groups == 1000 and 0 < good.error < 0.1
    blind = sample_states(square, 1000, seed=1)
    bad = energy_drift(blind, *jumps_of(blind, energy))
    assert not bad.consistent and bad.value < -3 * bad.error
    assert "energy drift" in str(bad)
    flat = energy_drift(blind, jumps_of(blind, energy)[0], np.zeros((1000, 4)), jumps[2][:1000].repeat(2, 0)[:1000])
    assert flat.value == 0 and flat.consistent
    with pytest.raises(StatesError, match="three"):
        energy_drift(blind, np.ones((3, 4)), np.ones((3, 4)), np.ones((3, 4)))


def test_groups_without_weight_make_a_drift_no_surer(square):
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    states = sample_states(square, 24, seed=2)
    few = energy_drift(states[:6], *jumps_of(states[:6], energy))
    weights = np.where(np.arange(24) < 6, 1.0, 0.0)
    many = energy_drift(states.with_weights(weights / weights.sum()), *jumps_of(states, energy))
    assert (many.value, many.n_groups) == (pytest.approx(few.value, rel=1e-12), 6)
    assert many.error == pytest.approx(few.error, rel=1e-12)
    every = energy_drift(states, *jumps_of(states, energy))  # broken twin: all of them weigh
    assert every.n_groups == 24 and every.error < 0.8 * few.error


def test_drift_of_a_sample_with_barriers(square):
    """The face of the check: barriers of a sample, a missing jump included."""
    energy = PairEnergy.from_interactions(square, INTERACTIONS)
    network = jumps_on(square)
    found = {}
    for name, states in (
        ("good", sample_states(square, 600, method="monte-carlo", model=energy, temperature_K=T, n_chains=60)),
        ("bad", sample_states(square, 600, seed=1)),
    ):
        rates, delta, _ = jumps_of(states, energy)
        forward = -KT * np.log(rates)
        barriers = Barriers.from_arrays(states, network, forward, reverse_barrier=forward - delta)
        found[name] = sample_drift(barriers, T)
        direct = energy_drift(states, rates, delta, barriers.moving_species)
        assert found[name].value == pytest.approx(direct.value) and found[name].error == pytest.approx(direct.error)
    assert found["good"].consistent and found["good"].n_groups == 60
    assert not found["bad"].consistent


class OfRows:
    """A model that is asked about some chains without a copy of them."""

    def __init__(self, model, shift=0):
        self.model, self.shift, self.asked = model, shift, 0
        self.energies, self.swap_delta, self.supercell = model.energies, model.swap_delta, model.supercell

    def swap_rows(self, occupations, rows, first, second, carriers):
        self.asked += 1
        own = occupations[(rows + self.shift) % len(occupations)]
        on = own[np.arange(len(rows)), carriers]
        assert self.shift or not on.any()  # the carriers are those of these rows
        return self.model.swap_delta(own, first, second)


def test_chains_without_copies_are_the_same_chains(square):
    model = PairEnergy.from_interactions(square, INTERACTIONS)
    plain = MonteCarlo(square, model, T, n_chains=7, seed=3)
    spared = MonteCarlo(square, OfRows(model), T, n_chains=7, seed=3)
    for chain in (plain, spared):
        chain.run(5)
    assert spared.model.asked > 0
    assert np.array_equal(plain.occupations, spared.occupations)
    np.testing.assert_array_equal(plain.energies, spared.energies)
    np.testing.assert_allclose(spared.energies, model.energies(spared.occupations), atol=1e-9)
    wrong = MonteCarlo(square, OfRows(model, shift=1), T, n_chains=7, seed=3)
    wrong.run(5)
    assert np.abs(wrong.energies - model.energies(wrong.occupations)).max() > 1e-3


def test_random_numbers_drawn_in_parts_sample_the_same_distribution(square, everything, monkeypatch):
    import ase_kinoson.kinetics.monte_carlo as module

    monkeypatch.setattr(module, "DRAWN", 100)
    model = PairEnergy.from_interactions(square, INTERACTIONS)
    chain = MonteCarlo(square, model, T, n_chains=40, seed=1)
    chain.run(20)
    kept = []
    for _ in range(40):
        chain.run(2)
        kept.append(chain.energies.copy())
    np.testing.assert_allclose(chain.energies, model.energies(chain.occupations), atol=1e-9)
    energies = model.energies(everything.occupations)
    weights = boltzmann(energies)
    means = np.mean(kept, axis=0)
    error = means.std(ddof=1) / np.sqrt(len(means))
    assert abs(means.mean() - weights @ energies) < 4 * error
    assert abs(energies.mean() - weights @ energies) > 10 * error  # random states are far away
