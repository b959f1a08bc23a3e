"""The linear field: symmetry, number of coefficients, and the closed-form solution against dense least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.cluster_field import ClusterField
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda
from ase_kinoson.kinosons.galerkin import solve_linear
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.testing import equivariance_defect
from ase_kinoson.validation import parent, tiny_cell


def hcp():
    return ak.Alloy.from_atoms(bulk("Mg"), {"Mg": {"Ag": 0.5, "Cu": 0.5}}).supercell((4, 4, 3))


def b2():
    atoms = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    return ak.Alloy.from_atoms(atoms, {"Ni": {"Ni": 0.6, "Cu": 0.4}, "Al": {"Al": 0.7, "Ti": 0.3}}).supercell(3)


def carbon():
    alloy = ak.Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Fe": 0.7, "Cr": 0.3}})
    return alloy.with_interstitials("C", [[0.5, 0.5, 0.0]]).supercell(3)


CELLS = {
    "fcc": lambda: parent("fcc").supercell(3),
    "bcc": lambda: parent("bcc").supercell(4),
    "hcp": hcp,
    "diamond": lambda: parent("diamond").supercell(2),
    "honeycomb": lambda: parent("honeycomb").supercell(5),
    "square": lambda: parent("square").supercell(5),
    "B2, both mobile": b2,
    "interstitial in bcc": carbon,
}
CASES = [(name, lookahead) for name in CELLS for lookahead in (0, 1) if (name, lookahead) != ("B2, both mobile", 1)]
CASES += [(name, 2) for name in ("honeycomb", "square", "interstitial in bcc")]


def gas_of(cell):
    return ak.SpeciesRates({s: 0.1 + 0.45 * i for i, s in enumerate(cell.species[1:])})


def random_clusters(cell, lookahead, *, seed=3, **options):
    network = ak.JumpNetwork.from_supercell(cell)
    rates = ak.Rates.of(gas_of(cell), network)
    made = ak.Relaxation.create(network, rates=rates, lookahead=lookahead, form="clusters")
    if options:
        made.field = ClusterField(made.environment, network, **options)
    generator = torch.Generator().manual_seed(seed)
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    return made


@pytest.mark.parametrize(("name", "lookahead"), CASES)
def test_equivariance(name, lookahead):
    cell = CELLS[name]()
    states = sample_states(cell, 2, seed=1)
    single = random_clusters(cell, lookahead)
    double = single.to(torch.float64)
    scale = max(np.abs(double(states.occupations, states.carriers)).max(), 1.0)
    assert scale > 0.01
    assert equivariance_defect(double, states) < 1e-12 * scale
    assert equivariance_defect(single, states) < 1e-5 * scale


@pytest.mark.parametrize("name", ["fcc", "hcp", "square", "interstitial in bcc"])
def test_a_broken_table_of_orbits_is_not_equivariant(name):
    cell = CELLS[name]()
    states = sample_states(cell, 2, seed=1)
    broken = random_clusters(cell, 0).to(torch.float64)
    part = broken.field.parts[0]
    part.source = torch.roll(part.source, 1)
    assert equivariance_defect(broken, states) > 1e-3


@pytest.mark.parametrize(("name", "lookahead"), [("honeycomb", 0), ("square", 2), ("interstitial in bcc", 1)])
def test_y_is_linear_in_the_parameters(name, lookahead):
    cell = CELLS[name]()
    states = sample_states(cell, 2, seed=4)
    made = random_clusters(cell, lookahead).to(torch.float64)
    a = [p.detach().clone() for p in made.parameters()]
    b = [torch.randn(p.shape, generator=torch.Generator().manual_seed(9), dtype=p.dtype) for p in a]

    def y(x, z):
        for p, u, v in zip(made.parameters(), a, b, strict=True):
            p.data = x * u + z * v
        return made(states.occupations, states.carriers)

    assert np.abs(y(1, 0)).max() > 0.01
    np.testing.assert_allclose(y(2, -3), 2 * y(1, 0) - 3 * y(0, 1), atol=1e-12)


def rank(matrix):
    values = np.linalg.svd(matrix, compute_uv=False)
    return int((values > 1e-9 * values[0]).sum())


THREE = {"Ag": 0.4, "Cu": 0.3, "Pd": 0.3}
COUNTS = [("square", None, 1.45, 6), ("square", THREE, 1.1, 6), ("honeycomb", None, 1.8, 6), ("fcc", None, 1.05, 3)]


@pytest.mark.parametrize(("lattice", "composition", "cutoff", "size"), COUNTS)
def test_number_of_parameters(lattice, composition, cutoff, size):
    """As many coefficients as symmetric functions of two sites have dimensions: none missing, none redundant."""
    cell = parent(lattice, composition).supercell(size)
    network = ak.JumpNetwork.from_supercell(cell)
    length = network.lengths.min()
    environment = CarrierEnvironment.build(network, cutoff=cutoff * length)
    assert not environment.is_wrapped
    field = ClusterField(environment, network).double()
    kind = environment.classes[0]
    n, n_codes = kind.n_sites, len(cell.species)
    rng = np.random.default_rng(0)
    codes = rng.integers(1, n_codes, (40, n))
    distance = np.linalg.norm(kind.vectors, axis=1)
    between = np.linalg.norm(kind.vectors[:, None] - kind.vectors, axis=-1)
    close = (np.minimum(between, distance) < 1.1 * length) | np.eye(n, dtype=bool)
    inverse = np.argsort(kind.permutations, axis=1)
    functions = []
    for _ in range(field.n_parameters + 8):
        table = rng.normal(size=(n, n, n_codes, n_codes, 3)) * close[:, :, None, None, None] @ network.projector
        total = np.zeros((len(codes), n, 3))
        for g in range(kind.n_ops):
            turned = codes[:, inverse[g]]
            values = table[np.arange(n)[:, None], np.arange(n), turned[:, :, None], turned[:, None, :]].sum(axis=2)
            total += values[:, kind.permutations[g]] @ kind.rotations[g]
        functions.append(total.ravel())
    own = []
    for p in field.parameters():
        for i in range(p.numel()):
            p.data[i] = 1.0
            own.append(field(torch.as_tensor(codes), 0).detach().numpy().ravel())
            p.data[i] = 0.0
    assert rank(np.array(functions)) == field.n_parameters
    assert rank(np.array(own)) == field.n_parameters
    assert rank(np.array(own + functions)) == field.n_parameters


def tiny_problem(lookahead, form="clusters", **options):
    """All states of the tiny cell as training states."""
    _, network = tiny_cell({"Ag": 4, "Cu": 4})
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    space = StateSpace.enumerate(network)
    states = space.states(space.weights(rates), ensemble="equilibrium")
    made = ak.Relaxation.create(network, rates=rates, lookahead=lookahead, form=form, **options).to(torch.float64)
    return made, states, space, rates


def solve(relaxation, objective, **options):
    exactly = {"ridge": 0.0, "steps": 400, "tolerance": 0.0, "validate": False} | options
    return solve_linear(relaxation, objective, list(relaxation.parameters()), **exactly)


def displaced(relaxation, states):
    """δx_i + Δ_k y_i of every atom, from y of whole states: shape (n, J, n_sites, 3)."""
    network, occ, carriers = relaxation.network, states.occupations, states.carriers
    before = relaxation(occ, carriers)
    found = np.zeros((len(occ), network.n_jumps, *before.shape[1:]))
    for k in range(network.n_jumps):
        new, where = network.apply(occ, carriers, np.full(len(occ), k))
        after = relaxation(new, where)
        for m in range(len(occ)):
            goes_to = np.arange(before.shape[1])
            goes_to[carriers[m]], goes_to[where[m]] = where[m], carriers[m]
            found[m, k] = after[m][goes_to] - before[m]
            found[m, k, where[m]] -= network.vectors[0, k]
    return found


@pytest.mark.parametrize(("lookahead", "weighted"), [(0, False), (1, False), (0, True)])
def test_solution_is_that_of_dense_least_squares(lookahead, weighted):
    made, states, space, rates = tiny_problem(lookahead)
    if weighted:
        states = states.with_weights(np.random.default_rng(6).uniform(0.1, 4.0, size=len(states)))
    objective = Objective.of(made, states)
    parameters = list(made.parameters())

    # every displacement that the loss squares, as an affine function of the parameters
    w = np.sqrt(rates(states.occupations, states.carriers) * states.weights[:, None])
    bare = [
        float((w**2 * (made.network.moving_species(states.occupations, states.carriers) == a)).sum()) for a in (1, 2)
    ]

    def rows():
        moved = displaced(made, states)
        found = [(w[..., None] * moved.sum(axis=2) / sum(bare) ** 0.5).ravel()]
        for a, own in zip((1, 2), bare, strict=True):
            mine = moved * (states.occupations == a)[:, None, :, None]
            found += [(w[..., None] * mine.sum(axis=2) / own**0.5).ravel()]
            found += [(w[..., None, None] * mine / own**0.5).ravel()]
        return np.concatenate(found) / 5**0.5

    start = torch.cat([p.detach().reshape(-1) for p in parameters])

    def put(theta):
        for p, x in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
            p.data = x.reshape(p.shape).clone()

    origin = rows()
    design = []
    for i in range(len(start)):
        put(start + torch.eye(len(start), dtype=start.dtype)[i])
        design.append(rows() - origin)
    put(start)
    matrix = np.array(design).T
    best, *_ = np.linalg.lstsq(matrix, -origin, rcond=1e-10)
    lowest = np.square(origin + matrix @ best).sum()
    np.testing.assert_allclose(np.square(origin).sum(), objective.evaluate(made)[0], rtol=1e-10)

    about = solve(made, objective)
    loss = objective.evaluate(made)[0]
    np.testing.assert_allclose(loss, lowest, rtol=1e-9)
    np.testing.assert_allclose(about.gain, np.square(origin).sum() - lowest, rtol=1e-9)
    assert about.n_parameters == len(start) and about.n_states == len(states) and about.n_validation == 0

    # nothing near it is better, and the slope is gone
    value = sum(
        objective.loss(made, w, torch.arange(len(p.codes))) * len(p.codes) for w, p in enumerate(objective.pools)
    )
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, parameters)]) / len(objective)
    first = torch.as_tensor(2 * matrix.T @ origin)
    assert float(slope.norm()) < 1e-7 * float(first.norm())
    solved = torch.cat([p.detach().reshape(-1) for p in parameters])
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 0.1, 1.0):
        put(solved + size * torch.randn(len(solved), generator=generator, dtype=solved.dtype))
        assert objective.evaluate(made)[0] > loss
    put(solved)

    if weighted:
        return
    # and it bounds the exact value from above
    exact, unrelaxed, _ = exact_lambda(space, rates)
    ratios = objective.evaluate(made)[1]
    for a, symbol in enumerate(("Ag", "Cu")):
        assert ratios[symbol] > np.trace(exact[a, a]) / np.trace(unrelaxed[a, a]) - 1e-12


def test_clusters_are_tighter_than_the_scaled_bias():
    bounds = {}
    for form, lookahead in (("scaled-bias", 1), ("clusters", 0), ("clusters", 1), ("clusters", 2)):
        made, states, _, _ = tiny_problem(lookahead, form)
        objective = Objective.of(made, states)
        solve(made, objective)
        bounds[form, lookahead] = objective.evaluate(made)[0]
    assert bounds["clusters", 1] < bounds["scaled-bias", 1] - 0.05
    assert bounds["clusters", 2] < bounds["clusters", 1] < bounds["clusters", 0]


def test_scaled_bias_of_one_species():
    """Square lattice: (1 − λ/2)² + 6 λ²/16 is least at λ = 4/5, where it is 3/5."""
    cell = parent("square", {"Ag": 1.0}).supercell(5)
    network = ak.JumpNetwork.from_supercell(cell)
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 2.0}), network)
    states = sample_states(cell, 5, seed=0)
    made = ak.Relaxation.create(network, rates=rates, form="scaled-bias").to(torch.float64)
    objective = Objective.of(made, states)
    solve(made, objective)
    assert float(made.closure.factor.detach()[0, 1]) == pytest.approx(0.8, abs=1e-10)
    assert objective.evaluate(made)[1]["tracer Ag"] == pytest.approx(0.6, abs=1e-10)
    # a pair of nearest neighbours alone is the same function; more of them are better than it, but no better than exact
    for cutoff, low, high in ((1.1, 0.6 - 1e-10, 0.6 + 1e-10), (2.1, 0.47, 0.55)):
        field = ClusterField(made.environment, network, pair_cutoff=cutoff)
        pairs = ak.Relaxation(network, made.environment, field, 0, rates).to(torch.float64)
        objective = Objective.of(pairs, states)
        solve(pairs, objective)
        assert low < objective.evaluate(pairs)[1]["tracer Ag"] < high


def test_ridge_and_validation():
    made, states, _, _ = tiny_problem(1)
    objective = Objective.of(made, states)
    free = made.to(torch.float64)
    loose = solve(free, objective)
    tied = made.to(torch.float64)
    about = solve(tied, objective, ridge=1e3)
    assert about.gain < 0.1 * loose.gain
    assert about.ridge == 1e3
    chosen = made.to(torch.float64)
    about = solve(chosen, objective, ridge=1e-3, validate=True)
    assert about.n_validation > 0 and about.ridge >= 1e-3
    assert chosen.report["linear"]["ridge"] == about.ridge
    # what is solved in double precision serves a relaxation in single precision
    single = made.to(torch.float32)
    solve(single, Objective.of(single, states))
    assert single.dtype == torch.float32
    assert Objective.of(single, states).evaluate(single)[0] == pytest.approx(objective.evaluate(free)[0], abs=1e-5)


def test_training_in_closed_form():
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    gas = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    made = ak.train_relaxation(cell, network, gas, form="clusters", lookahead=1, gates=0, n_states=300, seed=1)
    assert made.form == "clusters"
    assert made.report["trained_bound_ratio"] < made.report["untrained_bound_ratio"] - 0.05
    assert made.report["linear"]["n_parameters"] == sum(p.numel() for p in made.parameters())


@pytest.mark.parametrize("options", [{}, {"reach": 0.0}, {"pair_cutoff": 1.5, "reach": 1.5}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_save_and_load(tmp_path, options, dtype):
    cell = CELLS["square"]()
    made = random_clusters(cell, 1, **options).to(dtype)
    made.report["note"] = 1
    made.save(tmp_path / "y")
    again = ak.Relaxation.load(tmp_path / "y", made.network, model=gas_of(cell))
    assert again.form == "clusters" and again.report == made.report and again.dtype == dtype
    assert again.field.reach == made.field.reach and again.field.pair_cutoff == made.field.pair_cutoff
    states = sample_states(cell, 3, seed=1)
    np.testing.assert_array_equal(again(states.occupations, states.carriers), made(states.occupations, states.carriers))


def test_cutoffs_leave_out_clusters():
    cell = CELLS["square"]()
    pairs = random_clusters(cell, 0, reach=0.0).field
    assert sum(p.triplets.numel() for p in pairs.parts) == 0
    near = random_clusters(cell, 0, pair_cutoff=1.1).field
    assert 0 < near.n_parameters < random_clusters(cell, 0).field.n_parameters
    codes = torch.as_tensor(np.random.default_rng(0).integers(1, 3, (4, near._sites[0].kind.n_sites)))
    moved = near(codes, 0).detach().norm(dim=2).amax(dim=0)
    far = torch.as_tensor(np.linalg.norm(near._sites[0].kind.vectors, axis=1) > 1.1)
    assert float(moved[far].max()) == 0.0 and float(moved[~far].min()) > 0.0
