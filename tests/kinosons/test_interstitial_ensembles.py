"""Frozen hosts: an interstitial leaves its host as it is, so trajectories keep quenched arrangements."""

import numpy as np
import pytest
from ase.build import bulk

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import KinosonWarning, ModelError, StatesError
from ase_kinoson.kinetics.lattice_gas import PairBarriers
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.correction import correct
from ase_kinoson.kinosons.exact import StateSpace, exact_transport
from ase_kinoson.kinosons.static_disorder import static_transport
from ase_kinoson.kinosons.trajectories import run_kmc
from ase_kinoson.kinosons.transport import transport

T = 700.0


@pytest.fixture(scope="module")
def carbon():
    """C on the octahedral sites of a cell of eight Fe-Cr atoms: 70 hosts, small enough to enumerate."""
    alloy = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.5, "Cr": 0.5}})
    network = JumpNetwork.from_supercell(
        alloy.supercell(2, of="primitive"), mechanism="interstitial", sites="octahedral", species="C"
    )
    energy = PairEnergy.from_interactions(network.supercell, {("C", "Cr"): [0.12, -0.05]}, network=network)
    return network, PairBarriers(energy, {"C": 0.4})


@pytest.fixture(scope="module")
def quenched(carbon):
    network, model = carbon
    return sample_states(
        network.supercell,
        600,
        method="monte-carlo",
        model=model,
        temperature_K=T,
        ensemble="quenched",
        n_chains=200,
        seed=2,
    )


def test_interactions_of_the_interstitial_count(carbon):
    network, model = carbon
    states = sample_states(network.supercell, 20, seed=0)
    values = model.energy.energies(states.occupations)
    assert np.ptp(values) > 0.1  # 0.12 eV per Cr at a/2, −0.05 eV per Cr at a/√2
    assert set(np.round(values / 0.01).astype(int).tolist()) <= {12 * i - 5 * j for i in range(3) for j in range(5)}
    kinds = PairEnergy.from_interactions(network.supercell, {}, network=network, site_energies=[0.7])
    assert kinds.energies(states.occupations) == pytest.approx(np.full(20, 0.7))


def test_site_energies_belong_to_interstitials(carbon):
    network, _ = carbon
    with pytest.raises(ModelError, match="found 2 site energies; expected 1"):
        PairEnergy.from_interactions(network.supercell, {}, network=network, site_energies=[0.0, 0.1])
    host = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.5, "Cr": 0.5}})
    with pytest.raises(ModelError, match="without interstitial sites"):
        PairEnergy.from_interactions(host.supercell(2), {("Fe", "Cr"): 0.1}, site_energies=[0.0])


def test_exact_weights_of_frozen_hosts(carbon, quenched):
    network, model = carbon
    space = StateSpace.enumerate(network)
    rates = Rates.of(model, network, temperature_K=T)
    whole = {
        e: static_transport(
            space.states(space.weights(rates, ensemble=e), ensemble=e, temperature_K=T, source="enumerated"),
            network,
            model,
            T,
        ).vacancy_diffusivity
        for e in ("equilibrium", "quenched")
    }
    exact = exact_transport(network.supercell, network, model, T).vacancy_diffusivity
    assert whole["equilibrium"].value == pytest.approx(exact.value, rel=1e-9, abs=0)
    drawn = static_transport(quenched, network, model, T).vacancy_diffusivity
    assert abs(drawn.value - whole["quenched"].value) < 3 * drawn.error
    assert abs(drawn.value - whole["equilibrium"].value) > 5 * drawn.error


def test_bound_ladder_and_trajectories_agree_with_the_exact_solution(carbon, quenched):
    network, model = carbon
    exact = static_transport(quenched, network, model, T).vacancy_diffusivity
    bound = transport(quenched, network, model, None, T)
    assert bound.vacancy_diffusivity.kind == "bound" and bound.drift.consistent
    assert bound.vacancy_diffusivity.value > 1.05 * exact.value
    with pytest.warns(KinosonWarning, match="loose"):
        ladder = correct(bound, model, n_steps=32, seed=1).vacancy_diffusivity
    kmc = run_kmc(quenched, network, model, T, n_walkers=400, n_jumps=1024, seed=3).vacancy_diffusivity
    above = bound.vacancy_diffusivity.value - exact.value
    for found in (ladder, kmc):
        width = 3 * np.hypot(found.error, exact.error) + 0.01 * exact.value
        assert abs(found.value - exact.value) < width < above  # the bound would not pass


def test_a_vacancy_does_not_keep_quenched_atoms(tiny, pair_model):
    cell, network = tiny
    states = sample_states(
        cell, 20, method="monte-carlo", model=pair_model, temperature_K=600.0, ensemble="quenched", seed=0
    )
    with pytest.raises(StatesError, match="quenched"):
        run_kmc(states, network, pair_model, 600.0, n_walkers=4, n_jumps=64)
    with pytest.raises(StatesError, match="quenched"):
        correct(transport(states, network, pair_model, None, 600.0), pair_model, n_steps=2)
