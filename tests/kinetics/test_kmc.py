"""KineticMonteCarlo: time averages are equilibrium averages, atoms keep their names, a resumed run is the same run;
broken twins fail the same checks."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, StatesError
from ase_kinoson.kinetics.kmc import KineticMonteCarlo
from ase_kinoson.kinetics.lags import WINDOW, LagLadder
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.validation import tiny_cell

T = 600.0
GAS = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})


@pytest.fixture(scope="module")
def space(tiny, pair_model):
    """All states of the tiny cell with their equilibrium weights, and the rates of the pair model."""
    _, network = tiny
    enumerated = StateSpace.enumerate(network)
    rates = ak.Rates.of(pair_model, network, temperature_K=T)
    weights = enumerated.weights(rates)
    return enumerated.states(weights, ensemble="equilibrium", temperature_K=T), rates


@pytest.fixture(scope="module")
def gas(tiny):
    """All states of the tiny cell for rates that know the species only."""
    _, network = tiny
    rates = ak.Rates.of(GAS, network)
    enumerated = StateSpace.enumerate(network)
    return enumerated.states(enumerated.weights(rates), ensemble="equilibrium"), rates


class StartsFromWeights(KineticMonteCarlo):
    """Forgets that a jump chain visits states in proportion to wΓ."""

    def _draw(self, weights):
        return super()._draw(weights / self._gamma)

    def _escape_rates(self, states):
        self._gamma = super()._escape_rates(states)
        return self._gamma


class ForgetsNames(KineticMonteCarlo):
    """Moves species but not the names of the atoms."""

    def _jump(self):
        names = self.atoms.copy()
        super()._jump()
        self.atoms[...] = names


def excess(walkers, states, rates, n_jumps, *, weight=True):
    """Mean energy and mean Γ along the trajectories, in standard errors from the equilibrium averages.

    Γ is an average over time of Γ, which is 1/⟨τ⟩ and knows whether the start was stationary.
    """
    value = np.zeros((3, walkers.n_walkers))
    for _ in range(n_jumps):
        gamma = rates(walkers.occupations, walkers.carriers).sum(axis=1)
        tau = 1.0 / gamma if weight else np.ones_like(gamma)
        value += np.stack([tau, tau * rates.state_energies(walkers.occupations), tau * gamma])
        walkers.run(1)
    exact_gamma = rates(states.occupations, states.carriers).sum(axis=1)
    found = []
    for above, exact in ((value[1], rates.state_energies(states.occupations)), (value[2], exact_gamma)):
        mean = states.weights @ exact
        residual = (above - mean * value[0]) / value[0].mean()
        found.append(residual.mean() / (residual.std(ddof=1) / np.sqrt(len(residual))))
    return np.array(found)


def test_time_averages_are_equilibrium_averages_from_the_first_jump(space):
    states, rates = space
    walkers = KineticMonteCarlo(states, rates.network, rates, n_walkers=8000, seed=3)
    assert np.all(np.abs(excess(walkers, states, rates, 6)) < 3)
    walkers = KineticMonteCarlo(states, rates.network, rates, n_walkers=2000, seed=4)
    assert np.all(np.abs(excess(walkers, states, rates, 30)) < 3)


def test_forgotten_residence_times_are_noticed(space):
    states, rates = space
    walkers = KineticMonteCarlo(states, rates.network, rates, n_walkers=2000, seed=3)
    assert np.all(np.abs(excess(walkers, states, rates, 30, weight=False)) > 5)


def test_a_start_from_the_weights_alone_is_noticed(space):
    states, rates = space
    walkers = StartsFromWeights(states, rates.network, rates, n_walkers=8000, seed=3)
    assert np.abs(excess(walkers, states, rates, 6)).max() > 5


def test_burn_in_forgets_a_wrong_start(space):
    states, rates = space
    walkers = StartsFromWeights(states, rates.network, rates, n_walkers=2000, seed=3)
    walkers.burn_in(60)
    assert walkers.n_jumps == 0 and not walkers.times.any()
    assert np.all(np.abs(excess(walkers, states, rates, 6)) < 3)


def lattice_defect(walkers):
    """Largest distance of an atom from the site it is on: start + displacement, modulo the supercell; Å."""
    cell = walkers.network.supercell
    row, site = np.nonzero(walkers.occupations > 0)
    atom = walkers.atoms[row, site]
    gap = cell.positions[atom] + walkers.displacements[row, atom] - cell.positions[site]
    return np.linalg.norm(cell.minimum_image(gap), axis=1).max()


@pytest.mark.parametrize("lattice", ["fcc", "hcp"])
def test_atoms_are_where_their_displacements_lead(lattice):
    atoms = bulk("Mg", "hcp", a=3.2, c=5.2) if lattice == "hcp" else bulk("Mg", "fcc", a=4.0)
    cell = ak.Alloy.from_atoms(atoms, {"Mg": {"Ag": 0.5, "Cu": 0.5}}).supercell((3, 4, 3), of="primitive")
    network = ak.JumpNetwork.from_supercell(cell)
    states = ak.sample_states(cell, 20, seed=0)
    for source, temperature in ((GAS, None), (ak.RandomBarriers(), 900.0)):
        rates = ak.Rates.of(source, network, temperature_K=temperature)
        walkers = KineticMonteCarlo(states, network, rates, n_walkers=20, seed=1)
        before = walkers.occupations.copy()
        walkers.run(60)
        assert lattice_defect(walkers) < 1e-9
        assert np.abs(walkers.displacements).max() > 1.0
        for row in range(20):  # an atom is of one species for ever
            full = walkers.occupations[row] > 0
            assert np.array_equal(walkers.occupations[row, full], before[row, walkers.atoms[row, full]])
        assert np.array_equal(walkers.occupations[np.arange(20), walkers.carriers], np.zeros(20))
    broken = ForgetsNames(states, network, rates, n_walkers=20, seed=1)
    broken.run(60)
    assert lattice_defect(broken) > 1.0


def test_the_table_of_species_rates_gives_what_rates_give(gas):
    states, rates = gas
    short = KineticMonteCarlo(states, rates.network, rates, n_walkers=30, seed=4)
    long = KineticMonteCarlo(states, rates.network, rates, n_walkers=30, seed=4)
    long._by_species = None
    for walkers in (short, long):
        walkers.run(40)
    assert np.array_equal(short.occupations, long.occupations) and np.array_equal(short.times, long.times)


def test_the_ladder_sums_the_squares_of_all_blocks():
    """Against a direct sum over the stored path."""
    n, n_species, n_atoms, windows = 3, 2, 5, 6
    rng = np.random.default_rng(0)
    kind = np.arange(n_atoms) % n_species
    ladder = LagLadder(n, n_species, n_atoms)
    path = np.zeros((1, n, n_atoms, 3))
    for _ in range(windows):
        atoms = rng.integers(n_atoms, size=(WINDOW, n))
        vectors = rng.choice([-1.0, 0.0, 1.0], size=(WINDOW, n, 3))
        step = np.zeros((WINDOW, n, n_atoms, 3))
        step[np.arange(WINDOW)[:, None], np.arange(n), atoms] = vectors
        path = np.concatenate([path, path[-1] + np.cumsum(step, axis=0)])
        ladder.add(kind[atoms], vectors, atoms)
    assert ladder.lags.tolist() == [2**k for k in range(10)]
    for level, lag in enumerate(ladder.lags):
        blocks = np.diff(path[::lag], axis=0)
        assert ladder.n_blocks[level] == len(blocks) == windows * WINDOW // lag
        own = np.stack([blocks[:, :, kind == a].sum(axis=2) for a in range(n_species)], axis=2)
        assert np.allclose(ladder.collective[level], np.einsum("bnax,bncy->naxcy", own, own))
        each = [np.einsum("bnix,bniy->nxy", *[blocks[:, :, kind == a]] * 2) for a in range(n_species)]
        assert np.allclose(ladder.tracer_tensors(level), np.stack(each, axis=1))


def arrays_of(walkers):
    names = walkers._kept()
    return {n: getattr(walkers, n) for n in names} | walkers.ladder.to_arrays()


@pytest.mark.parametrize("follow", [True, False])
def test_a_resumed_run_is_the_same_run(space, tmp_path, follow):
    states, rates = space
    made = {"n_walkers": 12, "seed": 5, "follow_atoms": follow}
    whole = KineticMonteCarlo(states, rates.network, rates, **made)
    whole.run(700)
    first = KineticMonteCarlo(states, rates.network, rates, **made)
    first.run(333)
    first.save(tmp_path / "run.npz")
    second = KineticMonteCarlo(states, rates.network, rates, **made)
    second.load(tmp_path / "run.npz")
    assert second.n_jumps == 333
    second.run(367)
    one, two = arrays_of(whole), arrays_of(second)
    assert set(one) == set(two)
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_a_checkpoint_of_another_run_is_refused(space, gas, tmp_path):
    states, rates = space
    path = tmp_path / "run.npz"

    def make(rates=rates, states=states, **changes):
        return KineticMonteCarlo(states, rates.network, rates, **{"n_walkers": 12, "seed": 5, **changes})

    make().save(path)
    for changes, word in (({"seed": 6}, "seed"), ({"n_walkers": 13}, "n_walkers"), ({"follow_atoms": False}, "follow")):
        with pytest.raises(KinosonError, match=f"has {word}"):
            make(**changes).load(path)
    hotter = ak.Rates.of(rates.source, rates.network, temperature_K=T + 1)
    for other in (make(hotter), make(gas[1], gas[0])):
        with pytest.raises(KinosonError, match="other states or with other rates"):
            other.load(path)
    cell, network = tiny_cell({"Ag": 3, "Cu": 3, "Pd": 2})
    third = ak.Rates.of(ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0, "Pd": 1.0}), network)
    with pytest.raises(KinosonError, match=r"has supercell|has network|has species"):
        make(third, ak.sample_states(cell, 2, seed=0)).load(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(KinosonError, match="cannot read the checkpoint"):
        make().load(path)


def test_bad_input_is_one_sentence(tiny, gas):
    states, rates = gas
    cell, network = tiny
    stuck = ak.Rates.of(ak.SpeciesRates({"Ag": 0.0, "Cu": 0.0}), network)
    with pytest.raises(StatesError, match="total rate of 0"):
        KineticMonteCarlo(states, network, stuck, n_walkers=2, seed=0)
    with pytest.raises(StatesError, match="0 walkers"):
        KineticMonteCarlo(states, network, rates, n_walkers=0, seed=0)
    other = ak.Supercell(cell.alloy, np.diag([3, 4, 1]))
    with pytest.raises(StatesError, match="one supercell"):
        KineticMonteCarlo(ak.sample_states(other, 2, seed=0), network, rates, n_walkers=2, seed=0)


def test_a_walker_that_runs_into_a_dead_end_says_so(gas):
    states, rates = gas
    walkers = KineticMonteCarlo(states, rates.network, rates, n_walkers=4, seed=0)
    walkers._by_species = np.zeros(3)
    with pytest.raises(StatesError, match="in walker 0"):
        walkers.run(1)


def test_walkers_of_states_without_weight_do_not_start(gas):
    states, rates = gas
    states = replace(states, groups=np.arange(len(states)) // 7)
    weights = np.zeros(len(states))
    weights[[3, 8]] = 0.25, 0.75
    walkers = KineticMonteCarlo(states.with_weights(weights), rates.network, rates, n_walkers=400, seed=0)
    gamma = rates(states.occupations[[3, 8]], states.carriers[[3, 8]]).sum(axis=1)
    share = weights[[3, 8]] * gamma / (weights[[3, 8]] @ gamma)
    assert abs((walkers.groups == states.groups[3]).sum() - 400 * share[0]) <= 1
    assert set(walkers.groups) == set(states.groups[[3, 8]]) == {0, 1}
    walkers.run(3)
    assert np.array_equal(walkers.snapshot(states).groups, walkers.groups)  # walkers of one group stay so


@pytest.mark.parametrize("source", ["species", "pairs"])
def test_nothing_in_a_jump_grows_with_the_supercell(source):
    """One million sites: what a jump allocates is what its neighbourhood needs."""
    alloy = ak.Alloy.from_atoms(bulk("Cu", "fcc", a=3.6), {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    cell = alloy.supercell(100, of="primitive")
    network = ak.JumpNetwork.from_supercell(cell)
    rng = np.random.default_rng(0)
    occupation = rng.integers(1, 3, size=(1, cell.n_sites)).astype(np.int8)
    occupation[0, 7] = 0
    states = ak.States.from_occupations(cell, occupation, carriers=[7], ensemble="equilibrium")
    model, temperature = GAS, None
    if source == "pairs":
        energy = ak.PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.02, ("Cu", "X"): -0.03})
        model, temperature = ak.PairBarriers(energy, {"Ag": 0.6, "Cu": 0.5}), 900.0
    rates = ak.Rates.of(model, network, temperature_K=temperature)
    tracemalloc.start()
    try:
        walkers = KineticMonteCarlo(states, network, rates, n_walkers=4, seed=0)
        walkers.run(3)
        assert tracemalloc.get_traced_memory()[1] < 1e9
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        walkers.run(WINDOW)
        assert tracemalloc.get_traced_memory()[1] - before < 0.5 * cell.n_sites
    finally:
        tracemalloc.stop()
    assert len(set(walkers.carriers)) > 1 and walkers.n_jumps == WINDOW + 3
