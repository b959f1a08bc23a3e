"""One carrier among atoms that never move, against enumeration, trajectories and exact results; broken twins fail."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units

import ase_kinoson as ak
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinosons.frozen_arrangement import FrozenArrangement
from ase_kinoson.kinosons.site_graph import SiteGraph
from ase_kinoson.kinosons.static_disorder import static_transport
from ase_kinoson.validation import parent

T = 600.0
GAS = ak.SpeciesRates({"Ag": 0.0, "Cu": 1.0})


def host_and_interstitial(size, n_silver, *, dimension=2):
    """H between host atoms of a square lattice or a chain, some of them silver."""
    pbc = np.arange(3) < dimension
    n = size**dimension
    atoms = Atoms("Cu", cell=np.where(pbc, 2.0, 10.0), pbc=pbc)
    host = ak.Alloy.from_atoms(atoms, {"Cu": {"Cu": 1 - n_silver / n, "Ag": n_silver / n}})
    site = np.where(pbc, 0.5, 0.0)
    cell = host.with_interstitials("H", [site]).supercell(np.where(pbc, size, 1))
    return cell, ak.JumpNetwork.from_supercell(cell, cutoff=2.1)


class Sticky:
    """Energy of H: 0.06 eV for each silver atom next to it."""

    def __init__(self, cell):
        self.cell = cell
        gap = cell.minimum_image(cell.positions[:, None] - cell.positions[None])
        self.near = np.linalg.norm(gap, axis=-1) < 1.8
        self.silver = cell.species.index("Ag")

    def energies(self, occupations):
        carriers = [self.cell.find_carrier(row) for row in occupations]
        return 0.06 * (self.near[carriers] & (occupations == self.silver)).sum(axis=1)

    def swap_delta(self, occupations, first, second):
        rows, new = np.arange(len(occupations)), occupations.copy()
        new[rows, first], new[rows, second] = occupations[rows, second], occupations[rows, first]
        return self.energies(new) - self.energies(occupations)


def pair_barriers(cell, network):
    return ak.PairBarriers(Sticky(cell), {"H": 0.4})


# -- against enumeration and trajectories ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_silver", [3, 6])
def test_vacancy_among_blocked_atoms_is_that_of_all_states(n_silver):
    cell = parent("square").supercell((4, 3, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    exact = ak.exact_transport(cell, network, GAS, counts={"Ag": n_silver, "Cu": 11 - n_silver}, tracers=False)
    found = static_transport(exact.states, network, GAS)
    assert found.vacancy_diffusivity.kind == "exact" and found.vacancy_diffusivity.error == 0
    assert float(found.vacancy_diffusivity) == pytest.approx(float(exact.vacancy_diffusivity), rel=1e-12, abs=0)
    np.testing.assert_allclose(found.lambda_matrix.value, exact.lambda_matrix.value, atol=1e-13)
    np.testing.assert_allclose(
        found.vacancy_diffusivity_tensor.value, exact.vacancy_diffusivity_tensor.value, atol=1e-33
    )
    factor = exact.collective_correlation_factor["vacancy"]
    assert float(found.collective_correlation_factor["vacancy"]) == pytest.approx(float(factor), rel=1e-12)
    assert found.tracer_diffusivity == {}
    # arrangements drawn at random agree within their error, which is not zero
    states = ak.sample_states(cell, 100, seed=1)
    if n_silver == 6:
        codes = dict(zip(cell.species, range(3), strict=True))
        assert np.all((states.occupations == codes["Ag"]).sum(axis=1) == 6)  # half of 12 sites
        drawn = static_transport(states, network, GAS).vacancy_diffusivity
        assert drawn.kind == "exact arrangements"
        assert 0 < drawn.error < 0.25 * float(drawn)
        assert abs(float(drawn) - float(exact.vacancy_diffusivity)) < 3 * drawn.error


@pytest.mark.parametrize("which", ["random", "pairs"])
def test_interstitial_in_a_frozen_host_is_that_of_all_states(which):
    cell, network = host_and_interstitial(3, 2)
    source = ak.RandomBarriers(0.5, 0.1) if which == "random" else pair_barriers(cell, network)
    exact = ak.exact_transport(cell, network, source, T)
    found = static_transport(exact.states, network, source, T)
    for q, r in (
        (found.vacancy_diffusivity, exact.vacancy_diffusivity),
        (found.tracer_diffusivity["H"], exact.tracer_diffusivity["H"]),
        (
            found.short_time_diffusivity,
            ak.transport(exact.states, network, source, temperature_K=T).vacancy_diffusivity,
        ),
    ):
        assert float(q) == pytest.approx(float(r), rel=1e-11, abs=0)
    # broken twin: the carrier anywhere with equal weight is another average where sites differ in energy
    bare = exact.kinosons["weight"] @ exact.kinosons["uncorrelated"]
    uniform = exact.kinosons["uncorrelated"].mean() * network.n_jumps
    assert (abs(uniform / bare - 1) > 0.05) == (which == "pairs")
    # the kinosons add up, and tell the activation energy of this average
    density = ak.KinosonDensity.from_result(found)
    assert density.total * 1e-20 == pytest.approx(float(found.vacancy_diffusivity), rel=1e-9, abs=0)
    own = ak.KinosonDensity.from_result(exact).activation_energy().value
    assert density.activation_energy().value == pytest.approx(own, abs=1e-9)


class AlongX:
    """A model whose jumps along y are rejected: rows of sites that no jump connects."""

    def __init__(self, model, network):
        self.model, self.network = model.bind(network), network
        self.energy = self.model.energy

    def jump_energies(self, occupations, carriers):
        found = self.model.jump_energies(occupations, carriers)
        along = np.abs(self.network.vectors[self.network.basis_of(carriers)][..., 1]) < 0.1
        return replace(found, barrier=np.where(along, found.barrier, np.inf))


def test_clusters_that_no_jump_connects_weigh_by_their_energies():
    cell, network = host_and_interstitial(3, 2)
    source = AlongX(pair_barriers(cell, network), network)
    exact = ak.exact_transport(cell, network, source, T)
    found = static_transport(exact.states, network, source, T)
    assert float(found.vacancy_diffusivity) == pytest.approx(float(exact.vacancy_diffusivity), rel=1e-11, abs=0)
    tensor = found.vacancy_diffusivity_tensor.value
    assert tensor[0, 0] > 0 == tensor[1, 1]
    # rates alone do not tell how the rows compare
    source.energy = None
    with pytest.raises(ModelError, match=r"3 clusters of sites that no jump connects.*no energies"):
        static_transport(exact.states, network, source, T)


def test_quenched_arrangements_have_the_slope_of_their_average():
    cell, network = host_and_interstitial(6, 9)
    source = pair_barriers(cell, network)
    states = ak.sample_states(cell, 3, seed=2)
    step, found = 5.0, {}
    for t in (T - step, T, T + step):
        found[t] = static_transport(states, network, source, t)
    beta = [1 / (units.kB * (T + s)) for s in (-step, step)]
    low, high = (np.log(float(found[T + s].vacancy_diffusivity)) for s in (-step, step))
    density = ak.KinosonDensity.from_result(found[T])
    assert density.activation_energy().value == pytest.approx(-(high - low) / (beta[1] - beta[0]), abs=1e-5)
    assert abs(density.mean_barrier().value - density.activation_energy().value) > 1e-3  # broken twin
    assert found[T].ensemble == "quenched" and found[T].n_arrangements == 3


@pytest.mark.filterwarnings("ignore:Ag makes 0 jumps")
def test_walkers_of_one_arrangement_agree():
    cell = parent("square", {"Ag": 0.25, "Cu": 0.75}).supercell((6, 6, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    one = ak.sample_states(cell, 1, seed=4)
    found = static_transport(one, network, GAS)
    copper = cell.species.index("Cu")
    base = one.occupations[0].copy()
    base[one.carriers[0]] = copper
    places = np.flatnonzero(base == copper)
    every = np.repeat(base[None], len(places), axis=0)
    every[np.arange(len(places)), places] = 0
    walk = ak.run_kmc(
        States.from_occupations(cell, every), network, GAS, n_jumps=1024, n_walkers=512, seed=0, tracers=False
    )
    gap = abs(float(walk.vacancy_diffusivity) - float(found.vacancy_diffusivity))
    assert gap < 3 * walk.vacancy_diffusivity.error < 0.2 * float(found.vacancy_diffusivity)
    assert abs(float(found.short_time_diffusivity) - float(walk.vacancy_diffusivity)) > 5 * gap  # broken twin: y = 0
    assert np.isnan(found.vacancy_diffusivity.error)  # one arrangement tells no error


# -- against formulas ------------------------------------------------------------------------------------------------


def test_chain_is_resistors_in_series():
    """D = a² / (⟨exp(−βE)⟩ ⟨exp(βE_saddle)⟩/ν): a mean of the sites times a mean of the saddles."""
    cell, network = host_and_interstitial(40, 16, dimension=1)
    states = ak.sample_states(cell, 1, seed=0)
    beta = 1 / (units.kB * T)
    for source in (ak.RandomBarriers(0.5, 0.1), pair_barriers(cell, network)):
        found = static_transport(states, network, source, T)
        table = found.kinosons
        right = network.vectors[network.basis_of([cell.mobile_sites[0]])[0]][table["jump"], 0] > 0
        energy = table["state_energy"][right]
        saddle = energy + table["barrier"][right]
        expected = 2.0**2 * 1e13 / (np.exp(-beta * energy).mean() * np.exp(beta * saddle).mean()) * 1e-20
        assert float(found.vacancy_diffusivity) == pytest.approx(expected, rel=1e-9, abs=0)
        assert float(found.short_time_diffusivity) > 1.1 * expected  # broken twin: resistors in parallel


def bond_network(size):
    """Square lattice whose bonds have given conductances: a function of those along x and y, shape (size, size)."""
    network = ak.JumpNetwork.from_supercell(parent("square").supercell((size, size, 1)))
    graph = SiteGraph.of(network)
    i, j = network.supercell.cell_coordinates(graph.sites)[:, :2].T
    direction = np.rint(network.vectors[0, :, :2]).astype(int)

    def tensor(along_x, along_y):
        flow = np.empty(graph.targets.shape)
        for k, (dx, dy) in enumerate(direction):
            start = (i - (dx < 0)) % size, (j - (dy < 0)) % size
            flow[:, k] = (along_x if dx else along_y)[start]
        n = len(graph)
        return FrozenArrangement.of_flow(graph, np.full(n, 1 / n), flow / n).matrix[:2, :2]

    return tensor


def test_duality_of_the_square_lattice():
    """Each bond crossed by one of inverse conductance: the tensor is the inverse, turned by 90° (Dykhne 1971)."""
    size, rng = 10, np.random.default_rng(1)
    tensor = bond_network(size)
    x, y = np.exp(2 * rng.normal(size=(2, size, size)))
    crossing_x, crossing_y = np.roll(1 / y, -1, axis=0), np.roll(1 / x, -1, axis=1)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(tensor(x, y), turn @ np.linalg.inv(tensor(crossing_x, crossing_y)) @ turn.T, rtol=1e-10)
    # broken twin: bonds that do not cross
    assert abs(np.linalg.det(tensor(x, y)) * np.linalg.det(tensor(1 / x, 1 / y)) - 1) > 1e-3


def test_random_barriers_in_two_dimensions_leave_the_mean_barrier():
    """A symmetric distribution of barriers on the square lattice changes nothing: D = a²ν exp(−Q̄/k_BT)."""
    cell, network = host_and_interstitial(24, 288)
    states = ak.sample_states(cell, 8, seed=3)
    found = static_transport(states, network, ak.RandomBarriers(0.5, 0.1), T, kinosons=False)
    expected = 4e-20 * 1e13 * np.exp(-0.5 / (units.kB * T))
    q = found.vacancy_diffusivity
    assert abs(float(q) - expected) < 3 * q.error < 0.1 * expected
    # broken twin: over short times the low barriers count most, by exp(σ²/2(k_BT)²)
    short = found.short_time_diffusivity
    assert float(short) / expected == pytest.approx(np.exp(0.5 * (0.1 / (units.kB * T)) ** 2), rel=0.1)
    assert len(found.kinosons.columns) == 0


@pytest.mark.parametrize(
    ("lattice", "sizes", "factor"), [("square", (32, 64), 1 / (np.pi - 1)), ("fcc", (4, 8), 0.78145142)]
)
def test_few_obstacles_slow_down_by_the_tracer_correlation_factor(lattice, sizes, factor):
    """D/D_free = 1 − c/f: an obstacle correlates the jumps around it as a tagged atom does."""
    slopes, sites = [], []
    for size in sizes:
        graph = SiteGraph.of(
            ak.JumpNetwork.from_supercell(parent(lattice).supercell((size, size, size if lattice == "fcc" else 1)))
        )
        opened = np.ones(len(graph), dtype=bool)
        free = np.trace(FrozenArrangement.of_open_sites(graph, opened).matrix)
        opened[7] = False
        slopes.append((1 - np.trace(FrozenArrangement.of_open_sites(graph, opened).matrix) / free) * len(graph))
        sites.append(len(graph))
    infinite = slopes[1] + (slopes[1] - slopes[0]) / (sites[1] / sites[0] - 1)
    assert infinite == pytest.approx(1 / factor, rel=1e-4)
    assert abs(slopes[0] * factor - 1) > 3e-4  # broken twin: a cell is not the infinite crystal


# -- zeros, and what is refused --------------------------------------------------------------------------------------


def test_what_does_not_wrap_carries_exactly_nothing():
    graph = SiteGraph.of(ak.JumpNetwork.from_supercell(parent("square").supercell((6, 6, 1))))
    x, y = graph.network.supercell.cell_coordinates(graph.sites)[:, :2].T
    ring = FrozenArrangement.of_open_sites(graph, (x < 3) & (y < 3) & ~((x == 1) & (y == 1)))
    assert len(ring.clusters.rings) == 0  # a ring of jumps that ends where it began is no way around the cell
    assert np.all(ring.displacement == 0) and np.all(ring.matrix == 0) and np.trace(ring.bare) > 0
    stripe = FrozenArrangement.of_open_sites(graph, (x < 2) | ((x == 2) & (y == 1)))
    assert stripe.matrix[0, 0] == 0 == stripe.matrix[0, 1] and stripe.matrix[1, 1] > 0
    dead = np.flatnonzero((x == 2) & (y == 1))[0]
    assert np.abs(stripe.displacement[dead]).max() < 1e-12
    # a stair wraps around both vectors at once, along the diagonal
    stair = FrozenArrangement.of_open_sites(graph, ((x - y) % 6 == 0) | ((x - y) % 6 == 1))
    assert stair.clusters.rings[:, 1:].tolist() in ([[1, 1, 0], [-1, -1, 0]], [[-1, -1, 0], [1, 1, 0]])
    np.testing.assert_allclose(stair.matrix[:2, :2], stair.matrix[0, 0], rtol=1e-12)
    assert stripe.percolating_share == pytest.approx(1.0) and ring.percolating_share == 0.0


def test_both_solvers_agree():
    graph = SiteGraph.of(ak.JumpNetwork.from_supercell(parent("fcc").supercell(5)))
    opened = np.random.default_rng(0).random(len(graph)) < 0.5
    direct = FrozenArrangement.of_open_sites(graph, opened).matrix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ase_kinoson.kinosons.exact.DIRECT_LIMIT", 1)
        np.testing.assert_allclose(FrozenArrangement.of_open_sites(graph, opened).matrix, direct, rtol=1e-10)


def test_bounds_fall_to_the_exact_value():
    graph = SiteGraph.of(ak.JumpNetwork.from_supercell(parent("square").supercell((8, 8, 1))))
    solved = FrozenArrangement.of_open_sites(graph, np.random.default_rng(3).random(len(graph)) < 0.7)
    bounds, exact = solved.bounds(60), np.trace(solved.matrix) / 2
    assert np.all(np.diff(bounds) <= 1e-12) and np.all(bounds >= exact - 1e-12)
    assert bounds[0] == pytest.approx(np.trace(solved.bare) / 2) and bounds[-1] == pytest.approx(exact, abs=1e-9)
    assert bounds[2] > exact + 0.05


class Lopsided:
    """Rates without detailed balance."""

    def __init__(self, network):
        self.network = network

    def jump_rates(self, occupations, carriers):
        targets = self.network.targets(carriers)
        w = np.where(targets >= 0, 1.0 + (7 * np.asarray(carriers)[:, None] + 3 * targets) % 5, 0.0)
        copper = self.network.supercell.species.index("Cu")
        return np.where(self.network.moving_species(occupations, carriers) == copper, w, 0.0)


def test_what_is_not_static_is_refused():
    cell = parent("square").supercell((4, 4, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    states = ak.sample_states(cell, 4, seed=0)
    with pytest.raises(KinosonError, match="Ag and Cu"):
        static_transport(states, network, ak.SpeciesRates({"Ag": 1e-3, "Cu": 1.0}))
    with pytest.raises(KinosonError, match="Ag and Cu"):
        static_transport(states, network, ak.SpeciesRates({"Ag": 1e-3, "Cu": 1.0}), moving="Cu")
    with pytest.raises(KinosonError, match="expected atoms of one kind"):
        static_transport(states, network, ak.SpeciesRates({"Ag": 0.0, "Cu": 0.0}))
    with pytest.raises(KinosonError, match="expected one of"):
        static_transport(states, network, GAS, moving="Ni")
    open_cell = parent("square", {"Ag": 0.2, "Cu": 0.8}).supercell((4, 4, 1))
    open_network = ak.JumpNetwork.from_supercell(open_cell)
    with pytest.raises(ModelError, match="detailed balance"):
        static_transport(ak.sample_states(open_cell, 2), open_network, Lopsided(open_network))
    nothing = static_transport(states, network, ak.SpeciesRates({"Ag": 0.0, "Cu": 0.0}), moving="Cu")
    assert float(nothing.vacancy_diffusivity) == 0 and float(nothing.wrapping_probability) == 0
    assert np.isnan(float(nothing.percolating_diffusivity))


def test_start_in_a_percolating_cluster_is_told_apart():
    cell = parent("square", {"Ag": 0.35, "Cu": 0.65}).supercell((12, 12, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    found = static_transport(ak.sample_states(cell, 6, seed=1), network, GAS)
    share = found.percolating_share
    assert 0 < float(share) < 1
    inside = float(found.percolating_diffusivity)
    assert inside * float(share) == pytest.approx(float(found.vacancy_diffusivity), rel=1e-12, abs=0)
    data = found.as_dict()
    assert data["percolating_share"]["value"] == float(share) and data["n_arrangements"] == 6
    twice = replace(ak.sample_states(cell, 6, seed=1), weights=np.repeat([1 / 3, 0.0], 3))
    fewer = static_transport(twice, network, GAS, kinosons=False)
    assert float(fewer.percolating_share) != float(share)  # weights of the states are those of the arrangements
