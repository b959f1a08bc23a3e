"""Maps by characters against the dense maps they stand for, and their derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.crystal.environment import CarrierEnvironment, EnvironmentClass
from ase_kinoson.kinosons import twofold
from ase_kinoson.kinosons.cluster_field import ClusterField
from ase_kinoson.kinosons.field import EquivariantField, _ClassField
from ase_kinoson.kinosons.galerkin import solve_linear
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.kinosons.twofold import Twofold
from ase_kinoson.validation import parent

LATTICES = {
    "fcc": lambda: parent("fcc").supercell(3),
    "wrapped fcc": lambda: parent("fcc").supercell(2),
    "diamond": lambda: parent("diamond").supercell(2),
    "hcp": lambda: ak.Alloy.from_atoms(bulk("Mg"), {"Mg": {"Ag": 0.5, "Cu": 0.5}}).supercell((4, 4, 3)),
    "square": lambda: parent("square").supercell(5),
    "one species": lambda: parent("square", {"Ag": 1.0}).supercell(5),
}


def setting(lattice):
    cell = LATTICES[lattice]()
    network = ak.JumpNetwork.from_supercell(cell)
    return cell, network, CarrierEnvironment.build(network)


def randomise(module):
    generator = torch.Generator().manual_seed(3)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)


def random_codes(n, n_sites, n_codes):
    return torch.as_tensor(np.random.default_rng(0).integers(0, n_codes, (n, n_sites)))


def dense_network(part, codes):
    """Every orientation for itself."""
    one_hot = (codes[..., None] == part.wanted).double()
    h = torch.einsum("nec,gech->ngh", one_hot, part.lift[part.in_perm]) + part.bias
    h = torch.nn.functional.silu(h)
    for mix, mean, shift in zip(part.mix, part.mean, part.shift, strict=True):
        h = h + torch.nn.functional.silu(h @ mix + h.mean(dim=1, keepdim=True) @ mean + shift)
    return part.scale * torch.einsum("gij,gsjh,ngh->nsi", part.rotations, part.project[part.out_perm], h)


def dense_clusters(part, codes):
    """One row of the map for each site and species."""
    theta = torch.cat([part.pairs, part.triplets])
    weights = theta.new_zeros((part.n_in + 1) * part.width)
    weights = weights.index_add(0, part.target, part.value * theta[part.source]).view(part.n_in + 1, -1)
    one_hot = (codes[..., None] == part.wanted).double().flatten(1)
    vectors = (one_hot @ weights[:-1] + weights[-1]).view(len(codes), part.n_out, part.n_own, 3)
    own = part.own[codes[:, part.out_sites]]
    chosen = torch.take_along_dim(vectors, own.clamp_min(0)[..., None, None], dim=2)[:, :, 0]
    return chosen * (own >= 0)[..., None]


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize(
    ("kind_of_field", "dense"), [(EquivariantField, dense_network), (ClusterField, dense_clusters)]
)
def test_blocks_are_the_dense_map(lattice, kind_of_field, dense, monkeypatch):
    cell, network, environment = setting(lattice)
    monkeypatch.setattr(twofold, "CHUNK", 7)
    options = {"hidden": 4, "n_blocks": 2} if kind_of_field is EquivariantField else {}
    field = kind_of_field(environment, network, **options).double()
    randomise(field)
    for c, kind in enumerate(environment.classes):
        part, codes = field.parts[c], random_codes(17, kind.n_sites, len(cell.species))
        found, expected = field(codes, c), dense(part, codes)
        scale = float(expected.detach().abs().max())
        assert scale > 0.01
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * scale)
        weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        parameters = list(part.parameters())
        gradients = [torch.autograd.grad((x * weight).sum(), parameters) for x in (found, expected)]
        for ours, theirs in zip(*gradients, strict=True):
            size = float(theirs.norm()) + 1.0
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * size)


def test_wrong_characters_are_not_the_dense_map():
    _, network, environment = setting("fcc")
    field = EquivariantField(environment, network, hidden=4).double()
    randomise(field)
    codes = random_codes(3, environment.classes[0].n_sites, 3)
    part = field.parts[0]
    expected = dense_network(part, codes)
    part.signs = part.signs.clone()
    part.signs[1] *= -1.0
    assert not torch.allclose(field(codes, 0), expected, atol=1e-3)


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("both", [False, True])
def test_members_commute_and_undo_themselves(lattice, both):
    _, _, environment = setting(lattice)
    kind = environment.classes[0]
    half = Twofold.of(kind, both=both)
    own = kind.rotations[half.members]
    np.testing.assert_allclose(own @ own, np.broadcast_to(np.eye(3), own.shape), atol=1e-9)
    np.testing.assert_allclose(np.einsum("aij,bjk->abik", own, own), np.einsum("bij,ajk->abik", own, own), atol=1e-9)
    np.testing.assert_array_equal(half.signs @ half.signs, half.n_members * np.eye(half.n_members))
    assert sorted(half.cosets.ravel()) == list(range(kind.n_ops))
    assert set(half.sites.ravel()) == set(range(kind.n_sites))
    # orbit and stabiliser
    distinct = np.array([len(set(column)) for column in half.sites.T])
    np.testing.assert_array_equal(distinct * half.fixed, half.n_members)
    if lattice == "fcc" and not both:
        assert half.n_members == 8


def test_gradients_do_not_depend_on_when_they_are_asked_for():
    cell, network, environment = setting("square")
    field = EquivariantField(environment, network, hidden=4)
    randomise(field)
    field.double()
    n_sites, parameters = environment.classes[0].n_sites, list(field.parameters())
    one, two = (random_codes(300, n_sites, len(cell.species)), random_codes(400, n_sites, len(cell.species)).flip(0))

    def gradient(loss, **options):
        return [g.clone() for g in torch.autograd.grad(loss, parameters, **options)]

    alone = [gradient(field(codes, 0).square().sum()) for codes in (one, two)]
    # two graphs at a time, the first asked twice
    losses = [field(codes, 0).square().sum() for codes in (one, two)]
    again = [gradient(losses[0], retain_graph=True), gradient(losses[1]), gradient(losses[0])]
    for ours, theirs in zip(again, [alone[0], alone[1], alone[0]], strict=True):
        for x, y in zip(ours, theirs, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_gradients_do_not_depend_on_the_number_of_threads(monkeypatch):
    """Chunks follow the number of threads; what was kept for the derivative lies where the chunks of the value were."""
    cell, network, environment = setting("square")
    part = EquivariantField(environment, network, hidden=4).double()
    randomise(part)
    codes, parameters = random_codes(700, environment.classes[0].n_sites, len(cell.species)), list(part.parameters())

    def loss(threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return part(codes, 0).square().sum()

    alone = torch.autograd.grad(loss(1), parameters)
    for before, after in [(1, 2), (2, 1)]:
        part(codes, 0).sum().backward()  # leaves a block behind that would be large enough for any chunks
        value = loss(before)
        monkeypatch.setattr(torch, "get_num_threads", lambda n=after: n)
        for x, y in zip(torch.autograd.grad(value, parameters), alone, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-12 * float(y.abs().max()))
    # broken twin: the block read as if its chunks were others
    value = loss(2)
    node = value.grad_fn
    while not hasattr(node, "tables"):
        node = node.next_functions[0][0]
    node.size //= 2
    wrong = torch.autograd.grad(value, parameters)
    assert not all(torch.allclose(x, y, rtol=1e-3) for x, y in zip(wrong, alone, strict=True))


@pytest.mark.parametrize("fields", [EquivariantField, ClusterField])
def test_a_gradient_refuses_codes_that_have_changed(fields):
    cell, network, environment = setting("square")
    part = fields(environment, network)
    randomise(part)
    part.double()
    codes = random_codes(5, environment.classes[0].n_sites, len(cell.species))
    value = part(codes, 0).square().sum()
    value.backward(retain_graph=True)
    codes.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("lookahead", [1, 2])
def test_frozen_gates_say_what_they_said(lookahead):
    cell, network, _ = setting("fcc")
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    made = ak.Relaxation.create(network, rates=rates, lookahead=lookahead, hidden=0)
    randomise(made.modules)
    made = made.to(torch.float64)
    objective = Objective.of(made, ak.sample_states(cell, 9, seed=0))
    pool = objective.pools[0]
    paths = made.freeze_gates(made.ball(0), pool.codes, pool.paths, chunk=4)
    frozen = replace(objective, pools=(replace(pool, paths=paths),))
    rows = torch.tensor([5, 0, 8])
    free = objective.loss(made, 0, rows)
    torch.testing.assert_close(frozen.loss(made, 0, rows), free, rtol=1e-13, atol=0)
    randomise_again = made.closure.first
    randomise_again.outlet.data.mul_(2.0)
    assert not torch.allclose(frozen.loss(made, 0, rows), objective.loss(made, 0, rows), rtol=1e-6)


def test_gates_that_are_solved_for_are_not_frozen():
    """y is linear in the last layer of a gate too."""
    cell, network, _ = setting("square")
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    made = ak.Relaxation.create(network, rates=rates, lookahead=1, form="paths", gates=4)
    objective = Objective.of(made, ak.sample_states(cell, 40, seed=0))
    objective.calibrate(made)
    before = objective.evaluate(made)[0]
    frozen = replace(
        objective,
        pools=tuple(
            replace(p, paths=made.freeze_gates(made.ball(p.basis_site), p.codes, p.paths)) for p in objective.pools
        ),
    )
    solve_linear(made, frozen, [made.closure.first.outlet])  # broken twin
    assert objective.evaluate(made)[0] == before
    solution = solve_linear(made, objective, [made.closure.first.outlet], validate=False, ridge=1e-6)
    assert solution.gain > 1e-4 * before
    assert before - objective.evaluate(made)[0] == pytest.approx(solution.gain, rel=1e-3)


def without_symmetry():
    """Three atoms in a triclinic cell: the point groups have the identity alone, and sites unlike numbers of jumps."""
    places = [[0, 0, 0], [0.31, 0.42, 0.23], [0.7, 0.15, 0.55]]
    atoms = Atoms("Ag3", scaled_positions=places, cell=[[3.7, 0, 0], [0.5, 4.0, 0], [0.3, 0.7, 4.4]], pbc=True)
    cell = ak.Alloy.from_atoms(atoms, {"Ag": {"Ag": 0.5, "Cu": 0.5}}).supercell(3)
    return cell, ak.JumpNetwork.from_supercell(cell, cutoff=3.4)


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")
def test_sites_with_unlike_numbers_of_jumps_are_trained():
    cell, network = without_symmetry()
    assert len(set(network.exists.sum(axis=1).tolist())) > 1
    options = {"n_states": 40, "form": "network", "hidden": 3, "gates": 3, "epochs": 1, "closure_epochs": 1}
    y = ak.train_relaxation(cell, network, ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), **options)
    assert y.report["trained_bound_ratio"] < y.report["untrained_bound_ratio"]
    # the scale of the rates is that of all states, not of one kind of site
    states = ak.sample_states(cell, 30, seed=0).with_weights(np.random.default_rng(1).uniform(0.1, 4.0, size=30))
    objective = Objective.of(y, states)
    objective.calibrate(y)
    logs = torch.cat([p.paths.log_rate.reshape(-1) for p in objective.pools])
    each = torch.cat([p.weights[:, None].expand_as(p.paths.log_rate).reshape(-1) for p in objective.pools])
    mean = float((each * logs).sum() / each.sum())
    assert float(y.closure.rate_mean) == pytest.approx(mean, rel=1e-5)
    for other in (logs, objective.pools[0].paths.log_rate):
        assert float(other.mean()) != pytest.approx(mean, rel=1e-3)
    own = objective.pools[0]
    escape = y.rates(states.occupations[own.rows], states.carriers[own.rows]).sum(axis=1)
    np.testing.assert_allclose(own.paths.log_rate[:, 0], np.log(escape), rtol=1e-5)


def test_without_symmetry_blocks_are_the_dense_map():
    cell, network = without_symmetry()
    environment = CarrierEnvironment.build(network)
    assert [Twofold.of(kind).n_members for kind in environment.classes] == [1, 1, 1]
    for made, dense in ((EquivariantField, dense_network), (ClusterField, dense_clusters)):
        field = made(environment, network).double()
        randomise(field)
        for c, kind in enumerate(environment.classes):
            codes = random_codes(5, kind.n_sites, len(cell.species))
            expected = dense(field.parts[c], codes)
            torch.testing.assert_close(
                field(codes, c), expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max())
            )


C2 = np.diag([-1.0, -1.0, 1.0])
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
CYCLE = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
GROUPS = {
    "C1": ([], 1),
    "C2": ([C2], 2),
    "C3": ([CYCLE], 1),
    "C4": ([TURN], 2),
    "C3v": ([CYCLE, np.eye(3)[[1, 0, 2]]], 2),
    "D3d": ([CYCLE, np.eye(3)[[1, 0, 2]], -np.eye(3)], 4),
    "T": ([CYCLE, C2], 4),
    "Oh": ([CYCLE, TURN, -np.eye(3)], 8),
}


def one_class(generators):
    """A point group and the orbits of a general point and of two on elements of symmetry."""
    group = [np.eye(3)]
    for g in group:
        for h in generators:
            if not any(np.allclose(h @ g, x) for x in group):
                group.append(h @ g)
    points = []
    for start in ([1.0, 2.0, 3.5], [1.0, 1.0, 1.0], [0.0, 0.0, 2.0]):
        for g in group:
            if not any(np.allclose(g @ start, p) for p in points):
                points.append(g @ np.array(start))
    places = np.array(points)
    moved = np.einsum("gij,ej->gei", np.array(group), places)
    permutations = np.abs(moved[:, :, None] - places).max(-1).argmin(-1)
    n = len(places)
    return EnvironmentClass(np.zeros(n, int), np.zeros((n, 3), int), places, permutations, np.array(group))


@pytest.mark.parametrize("interstitial", [False, True])
@pytest.mark.parametrize("name", GROUPS)
def test_any_point_group(name, interstitial):
    """Blocks against all orientations, equivariance, and the derivative against differences."""
    generators, members = GROUPS[name]
    kind = one_class(generators)
    assert Twofold.of(kind).n_members == members
    generator = torch.Generator().manual_seed(0)
    part = _ClassField(kind, [2, 1], 3, 2, np.arange(kind.n_sites), interstitial, generator, 1.0).double()
    randomise(part)
    codes = random_codes(2, kind.n_sites, 3)
    found, expected = part(codes.T).permute(2, 1, 0), dense_network(part, codes)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max()))
    for g, turn in enumerate(kind.rotations):
        turned = part(codes[:, kind.inverse_permutations[g]].T).permute(2, 1, 0)
        there = found @ torch.as_tensor(turn).T
        if not interstitial:
            there = there[:, kind.inverse_permutations[g]]
        torch.testing.assert_close(turned, there, rtol=0, atol=1e-11 * float(found.detach().abs().max()))
    names, values = zip(*part.named_parameters(), strict=True)

    def field(*weights):
        return torch.func.functional_call(part, dict(zip(names, weights, strict=True)), (codes.T,))

    inputs = tuple(p.detach().clone().requires_grad_() for p in values)
    assert torch.autograd.gradcheck(field, inputs, fast_mode=True)
