"""run_kmc against exact solutions of small cells; broken twins fail the same comparison."""

import json
import warnings

import numpy as np
import pytest
from ase import units

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, KinosonWarning, StatesError
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinosons import trajectories
from ase_kinoson.kinosons.slopes import LagSlopes
from ase_kinoson.kinosons.trajectories import KmcTransport, run_kmc
from ase_kinoson.validation import hcp_interstitials, tiny_cell

T = 600.0
GASES = [
    ({"Ag": 4, "Cu": 4}, {"Ag": 0.1, "Cu": 1.0}),
    ({"Ag": 4, "Cu": 4}, {"Ag": 1.0, "Cu": 1.0}),
    ({"Ag": 3, "Cu": 3, "Pd": 2}, {"Ag": 0.1, "Cu": 1.0, "Pd": 0.5}),
]


def quantities(result):
    """All coefficients that can be compared."""
    found = {"D_v": result.vacancy_diffusivity}
    for what in ("tracer_diffusivity", "correlation_factor", "collective_correlation_factor"):
        found |= {f"{what} {s}": q for s, q in getattr(result, what).items()}
    return found


def deviations(result, exact):
    """Differences from the exact values in standard errors, and the relative errors."""
    ours, theirs = quantities(result), quantities(exact)
    assert set(ours) == set(theirs)
    z = {k: (float(ours[k]) - float(theirs[k])) / ours[k].error for k in ours}
    size = {k: ours[k].error / abs(float(ours[k])) for k in ours}
    upper = np.triu_indices(len(result.species))
    gap = (result.lambda_matrix.value - exact.lambda_matrix.value) / result.lambda_matrix.error
    return np.array([*z.values(), *gap[upper]]), np.array(list(size.values()))


@pytest.fixture(scope="module")
def exact_gas():
    cell, network = tiny_cell(GASES[0][0])
    return network, ak.exact_transport(cell, network, ak.SpeciesRates(GASES[0][1]))


@pytest.mark.parametrize(("counts", "rates"), GASES)
def test_gases_agree_with_exact_solutions(counts, rates):
    cell, network = tiny_cell(counts)
    exact = ak.exact_transport(cell, network, ak.SpeciesRates(rates))
    result = run_kmc(exact.states, network, ak.SpeciesRates(rates), n_jumps=1024, n_walkers=1024, seed=2)
    z, size = deviations(result, exact)
    assert np.all(np.abs(z) < 3) and size.max() < 0.05 and np.median(size) < 0.025
    assert result.vacancy_diffusivity.kind == result.correlation_factor["Ag"].kind == "kmc"
    assert result.n_jumps_total == 1024 * 1024 and result.temperature_K is None and result.onsager_matrix is None
    # Σ_b Λ_ab w_a/w_b = Λ_aa[0], exact in any periodic cell
    w = np.array([rates[s] for s in result.species])
    rows = result.averages.collective[..., np.arange(2), np.arange(2)].sum(-1)
    bare = result.averages.collective_bare[..., np.arange(2), np.arange(2)].sum(-1)
    gap = (rows * w[:, None] / w).sum(-1) - np.einsum("raa->ra", bare)
    assert np.all(np.abs(gap[0]) < 3 * gap[1:].std(axis=0))
    # all jumps are equally long: uncorrelated, the carrier is as uncertain as its time
    uncertain = bare.sum(axis=(1, 2))
    time = result.time_per_jump
    assert np.std(uncertain[1:]) / uncertain[0] == pytest.approx(time.error / time.value, rel=0.1, abs=1e-9)


@pytest.fixture(scope="module")
def fitted(tiny, pair_model):
    """A learned model of the pair model's barriers."""
    cell, network = tiny
    states = ak.sample_states(
        cell, 60, method="monte-carlo", model=pair_model.energy, temperature_K=T, n_chains=60, sweeps=30, seed=0
    )
    source = pair_model.bind(network)
    energies = source.jump_energies(states.occupations, states.carriers)
    start = pair_model.energy.energies(states.occupations)
    barriers = ak.Barriers.from_arrays(
        states,
        network,
        energies.barrier,
        reverse_barrier=energies.reverse_barrier,
        energy_initial=start,
        energy_final=start[:, None] + energies.delta_e,
    )
    return ak.BarrierModel.fit(barriers, hidden=4, epochs=2, seed=0)


@pytest.mark.parametrize("which", ["pairs", "learned"])
def test_models_with_energies_agree_with_exact_solutions(tiny, pair_model, fitted, which):
    cell, network = tiny
    model = pair_model if which == "pairs" else fitted
    exact = ak.exact_transport(cell, network, model, T, vacancy_fraction=1e-4)
    n_jumps = 512 if which == "pairs" else 256
    result = run_kmc(exact.states, network, model, T, n_jumps=n_jumps, n_walkers=400, seed=2, vacancy_fraction=1e-4)
    z, size = deviations(result, exact)
    assert np.all(np.abs(z) < 3) and np.median(size) < 0.06
    gap = (result.onsager_matrix.value - exact.onsager_matrix.value) / result.onsager_matrix.error
    assert np.all(np.abs(gap) < 3) and result.drift.consistent
    # where the walkers end is an equilibrium sample
    assert result.snapshot.ensemble == "equilibrium" and result.snapshot.temperature_K == T
    again = ak.transport(result.snapshot, network, model, temperature_K=T)
    first = ak.transport(exact.states, network, model, temperature_K=T)
    assert (
        abs(float(again.vacancy_diffusivity) - float(first.vacancy_diffusivity)) < 3 * again.vacancy_diffusivity.error
    )


def test_interstitials_in_a_crystal_with_two_kinds_of_sites():
    """Tensor of an hcp network against the published diagonal (Onsager calculator of D. R. Trinkle)."""
    network = hcp_interstitials()
    saddles = {2.4495: 3.0, 1.8371: 1.5, 1.2247: 1.25}
    by_class = tuple(saddles[min(saddles, key=lambda x: abs(x - length))] for length in network.lengths)
    model = ak.SiteBarriers((0.0, 1.0), by_class)
    temperature = 1.0 / units.kB
    exact = ak.exact_transport(network.supercell, network, model, temperature, attempt_frequency=1.0)
    result = run_kmc(
        exact.states, network, model, temperature, attempt_frequency=1.0, n_jumps=1024, n_walkers=400, seed=0
    )
    tensor = result.vacancy_diffusivity_tensor
    reference = np.diag([1.15694147, 1.15694147, 0.705694102]) * 1e-20
    assert np.all(np.abs(tensor.value - reference) < 3.5 * tensor.error)
    assert np.all(np.diag(tensor.error) < 0.05 * np.diag(reference))
    assert "carrier" in result.lag
    # one atom is its own tracer
    assert np.allclose(result.ladder["tracer H"].value, result.ladder["H"].value, rtol=1e-9)


# -- broken twins ----------------------------------------------------------------------------------------------------


class NoResidence(KineticMonteCarlo):
    """Counts every jump alike: all take the time of the first."""

    def _jump(self):
        before = self.times.copy()
        super()._jump()
        self.times = before + (1.0 / self._start_rates).mean() * 1.1


class ForgetsNames(KineticMonteCarlo):
    """Moves species but not the names of the atoms."""

    def _jump(self):
        names = self.atoms.copy()
        super()._jump()
        self.atoms[...] = names


@pytest.mark.parametrize(("broken", "what"), [(NoResidence, "D_v"), (ForgetsNames, "correlation_factor Cu")])
def test_broken_walkers_disagree(exact_gas, monkeypatch, broken, what):
    network, exact = exact_gas
    found = []
    for engine in (KineticMonteCarlo, broken):
        monkeypatch.setattr(trajectories, "KineticMonteCarlo", engine)
        result = run_kmc(exact.states, network, ak.SpeciesRates(GASES[0][1]), n_jumps=1024, n_walkers=400, seed=0)
        one, two = quantities(result)[what], quantities(exact)[what]
        found.append(abs(float(one) - float(two)) / one.error)
    assert found[0] < 3 < 5 < found[1]


def test_lags_that_are_too_short_are_noticed(exact_gas, monkeypatch):
    """The first slope of an even lag is above the exact value by more than the noise; the choice is not."""
    network, exact = exact_gas
    gas = ak.SpeciesRates(GASES[0][1])
    result = run_kmc(exact.states, network, gas, n_jumps=1024, n_walkers=800, seed=0)
    factors = dict(exact.collective_correlation_factor)
    factors |= {f"tracer {s}": q for s, q in exact.correlation_factor.items()}
    assert set(factors) == set(result.ladder) == set(result.slopes) == set(result.lag)
    for name, factor in factors.items():
        ladder, slopes = result.ladder[name], result.slopes[name]
        assert ladder.value[0] == 1.0 and len(ladder.value) == len(result.lags) == len(slopes.value) + 1
        assert np.all(ladder.value > float(factor) - 3 * ladder.error)  # above at every lag
        assert np.all(slopes.value[1:] > float(factor) - 3.5 * slopes.error[1:])  # and the slopes of even lags too
    short = result.slopes["tracer Cu"]
    assert short.value[1] - float(factors["tracer Cu"]) > 10 * short.error[1]
    monkeypatch.setattr(LagSlopes, "choose", lambda self: np.ones(len(self.names), dtype=np.int64))
    early = run_kmc(exact.states, network, gas, n_jumps=1024, n_walkers=800, seed=0)
    assert np.abs(deviations(early, exact)[0]).max() > 10


def warnings_of(*args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_kmc(*args, **kwargs)
    return [str(w.message) for w in caught]


# -- running -----------------------------------------------------------------------------------------------------------


def same(one, two):
    return json.dumps(one.as_dict()) == json.dumps(two.as_dict())


def test_checkpoints_resume_and_extend_bit_for_bit(exact_gas, tmp_path, monkeypatch):
    network, exact = exact_gas
    gas = ak.SpeciesRates(GASES[0][1])
    given = {"n_walkers": 60, "seed": 7, "burn_in": 5, "n_resamples": 50}
    monkeypatch.setattr(trajectories, "CHECKPOINT_SECONDS", 0.0)
    whole = run_kmc(exact.states, network, gas, n_jumps=1024, **given)
    path = tmp_path / "run.npz"

    class Interrupted(KineticMonteCarlo):
        def _jump(self):
            if self.n_jumps == 700:
                raise KeyboardInterrupt
            super()._jump()

    with monkeypatch.context() as context:
        context.setattr(trajectories, "KineticMonteCarlo", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_kmc(exact.states, network, gas, n_jumps=1024, checkpoint=path, **given)
    assert path.exists()
    resumed = run_kmc(exact.states, network, gas, n_jumps=1024, checkpoint=path, **given)
    assert same(resumed, whole)
    assert same(run_kmc(exact.states, network, gas, n_jumps=1024, checkpoint=path, **given), whole)
    longer = run_kmc(exact.states, network, gas, n_jumps=2000, checkpoint=path, **given)
    assert longer.n_jumps_total == 2048 * 60
    assert same(longer, run_kmc(exact.states, network, gas, n_jumps=2048, **given))
    with pytest.raises(KinosonError, match="holds 2048 jumps"):
        run_kmc(exact.states, network, gas, n_jumps=1024, checkpoint=path, **given)
    with pytest.raises(KinosonError, match="has seed=7"):
        run_kmc(exact.states, network, gas, n_jumps=4096, checkpoint=path, **{**given, "seed": 8})


def test_ensembles_that_trajectories_do_not_keep(tiny, pair_model):
    cell, network = tiny
    quenched = ak.sample_states(
        cell, 8, method="monte-carlo", model=pair_model.energy, temperature_K=T, ensemble="quenched", seed=0
    )
    with pytest.raises(StatesError, match="quenched"):
        run_kmc(quenched, network, pair_model, T)
    random = ak.sample_states(cell, 200, seed=0)
    with pytest.raises(StatesError, match="random states"):
        run_kmc(random, network, pair_model, T)
    with pytest.warns(KinosonWarning, match="start from random states"):
        result = run_kmc(random, network, pair_model, T, n_jumps=512, n_walkers=200, burn_in=100, seed=0)
    exact = ak.exact_transport(cell, network, pair_model, T)
    assert result.vacancy_diffusivity.kind == "estimate"
    assert np.all(np.abs(deviations(result, exact)[0]) < 3)


def test_states_of_other_energies_are_an_estimate(tiny, pair_model):
    cell, network = tiny
    other = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): 0.08})
    states = ak.sample_states(
        cell, 100, method="monte-carlo", model=other, temperature_K=T, n_chains=100, sweeps=30, seed=0
    )
    with pytest.warns(KinosonWarning, match="energies that differ"):
        result = run_kmc(states, network, pair_model, T, n_jumps=128, n_walkers=100)
    assert result.vacancy_diffusivity.kind == "estimate"


def test_what_a_user_should_know_is_said(exact_gas, tiny):
    network, exact = exact_gas
    cell, _ = tiny
    said = warnings_of(exact.states, network, ak.SpeciesRates({"Ag": 0.001, "Cu": 1.0}), n_jumps=100, n_walkers=100)
    assert any("Ag makes 0.0" in s and "within 64 jumps" in s for s in said)
    said = warnings_of(ak.sample_states(cell, 1, seed=0), network, ak.SpeciesRates({"Ag": 1, "Cu": 1}), n_walkers=100)
    assert any("one group of states" in s for s in said)
    # fast atoms among slow ones: 64 jumps do not show yet how far they are confined
    large = ak.Supercell(cell.alloy, np.diag([8, 8, 1]))
    states = ak.sample_states(large, 3000, seed=0)
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    said = warnings_of(states, network.with_supercell(large), gas, n_jumps=64, n_walkers=3000)
    assert any("still falls at 64 jumps" in s for s in said)


def test_bad_input_is_one_sentence(exact_gas):
    network, exact = exact_gas
    gas = ak.SpeciesRates(GASES[0][1])
    for changes in ({"n_jumps": 0}, {"n_walkers": 1}, {"burn_in": -1}):
        with pytest.raises(KinosonError, match="expected at least 1, 2 and 0"):
            run_kmc(exact.states, network, gas, **changes)
    other = ak.Supercell(network.supercell.alloy, np.diag([3, 4, 1]))
    with pytest.raises(StatesError, match="live on a supercell of 12 sites"):
        run_kmc(ak.sample_states(other, 2, seed=0), network, gas)
    with pytest.raises(KinosonError, match="vacancy_fraction"):
        run_kmc(exact.states, network, gas, n_jumps=256, n_walkers=50, vacancy_fraction=2.0)


def test_the_result_is_a_transport_and_serialises(exact_gas):
    network, exact = exact_gas
    result = run_kmc(
        exact.states, network, ak.SpeciesRates(GASES[0][1]), n_jumps=1024, n_walkers=200, tracers=False, n_resamples=50
    )
    assert isinstance(result, KmcTransport) and isinstance(result, ak.Transport)
    assert result.tracer_diffusivity == {} and set(result.lag) == {"vacancy", "Ag", "Cu"}
    data = json.loads(json.dumps(result.as_dict()))
    assert data["lags"] == [2**k for k in range(11)] and data["time_per_jump"]["unit"] == "s"
    assert str(result).startswith("kinetic Monte Carlo: 204800 jumps of 200 walkers")
    table = result.kinosons
    assert np.isclose(
        (table["weight"] * table["uncorrelated"]).sum(), (table["weight"] * table["kinoson_vacancy"]).sum()
    )
    # residence times: ⟨τ⟩ = 1/⟨Γ⟩
    rates = ak.Rates.of(ak.SpeciesRates(GASES[0][1]), network)
    gamma = exact.states.weights @ rates(exact.states.occupations, exact.states.carriers).sum(axis=1)
    assert abs(float(result.time_per_jump) - 1 / gamma) < 3 * result.time_per_jump.error


def test_atoms_that_cannot_move_need_no_lag():
    """Blocked atoms raise no alarm about their coefficients and leave the carrier the lag of the others."""
    cell, network = tiny_cell({"Ag": 1, "Cu": 7})
    gas = ak.SpeciesRates({"Ag": 0.0, "Cu": 1.0})
    exact = ak.exact_transport(cell, network, gas)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = run_kmc(exact.states, network, gas, n_jumps=512, n_walkers=512, seed=3)
    assert not any("Ag" in str(w.message) for w in said)
    assert float(result.tracer_diffusivity["Ag"]) == 0.0
    assert result.lag["vacancy"] == result.lag["Cu"] < max(result.lags) / 4
    own, right = result.vacancy_diffusivity, exact.vacancy_diffusivity
    assert abs(float(own) - float(right)) < 3 * own.error < 0.1 * float(right)
    # broken twin: atoms that could jump, and are only very slow, are told of
    slow = ak.SpeciesRates({"Ag": 1e-7, "Cu": 1.0})
    with pytest.warns(KinosonWarning, match="Ag makes"):
        run_kmc(exact.states, network, slow, n_jumps=512, n_walkers=512, seed=3)
