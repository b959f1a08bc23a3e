"""Percolation thresholds and obstructed diffusion against union–find, exact kinosons and published thresholds."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase import Atoms

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.exact import solve_poisson
from ase_kinoson.kinosons.frozen_arrangement import FrozenArrangement
from ase_kinoson.kinosons.percolation import obstructed_diffusion, percolation_threshold
from ase_kinoson.kinosons.site_graph import SiteGraph
from ase_kinoson.validation import parent

TRIANGULAR = Atoms("Cu", cell=[[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 10]], pbc=(1, 1, 0))


def lattice(name, size, **about):
    alloy = ak.Alloy.from_atoms(TRIANGULAR) if name == "triangular" else parent(name)
    return ak.JumpNetwork.from_supercell(alloy.supercell(np.where(alloy.pbc, size, 1)), **about)


def first_wrap(graph, order):
    """Open sites when a cluster first wraps: union–find with displacements, site by site."""
    n = len(graph)
    root, image = np.arange(n), np.zeros((n, 3), dtype=int)  # image of a site relative to its root
    first = np.full(3, np.inf)
    opened = np.zeros(n, dtype=bool)
    for time, i in enumerate(np.argsort(order), start=1):
        opened[i] = True
        for k, j in enumerate(graph.targets[i]):
            if j < 0 or not opened[j]:
                continue
            gap = image[i] + graph.images[i, k] - image[j]  # by which j's cluster must be moved
            if root[i] == root[j]:
                first[(gap != 0) & (first > time)] = time
            else:
                other = root == root[j]
                image[other] += gap
                root[other] = root[i]
    return first


@pytest.mark.parametrize(("name", "size"), [("square", 6), ("triangular", 5), ("honeycomb", 5), ("fcc", 3), ("bcc", 3)])
def test_spanning_tree_finds_what_union_find_finds(name, size):
    graph = SiteGraph.of(lattice(name, size))
    rng = np.random.default_rng(0)
    for _ in range(6):
        order = rng.permutation(len(graph)) + 1
        first = graph.opening(order)
        np.testing.assert_array_equal(first, first_wrap(graph, order))
        # the clusters just before and then agree
        wraps = [len(graph.clusters(graph.both_open(order <= m)).rings) > 0 for m in (first.min() - 1, first.min())]
        assert wraps == [False, True]


def kinosons_without_clusters(graph, opened):
    """Sum of the optimal kinosons by the solver alone, which knows nothing of rings."""
    weights = opened / opened.sum()
    flow = np.where(graph.both_open(opened), weights[:, None], 0.0)
    y = solve_poisson(graph.targets, flow, np.einsum("nk,nkx->nx", flow, graph.vectors), direct=True)
    moved = graph.vectors + y[graph.targets] - y[:, None]
    return 0.5 * np.sum(flow * np.square(moved).sum(axis=-1))


@pytest.mark.parametrize(("name", "size"), [("square", 12), ("triangular", 9), ("fcc", 4)])
def test_arrangements_percolate_exactly_when_their_kinosons_do_not_vanish(name, size):
    graph = SiteGraph.of(lattice(name, size))
    rng = np.random.default_rng(2)
    for _ in range(4):
        order = rng.permutation(len(graph)) + 1
        first = int(graph.opening(order).min())
        assert kinosons_without_clusters(graph, order <= first - 1) < 1e-20
        assert kinosons_without_clusters(graph, order <= first) > 1e-6
        solved = FrozenArrangement.of_open_sites(graph, order <= first)
        moved = np.square(solved.displacement).sum(axis=-1)
        assert np.trace(solved.matrix) == pytest.approx(kinosons_without_clusters(graph, order <= first), rel=1e-9)
        # dead ends carry none: at the threshold one thin ring of sites carries all
        carrying = (moved > 1e-16).any(axis=1)
        assert 0 < carrying.sum() < 0.8 * (order <= first).sum()
        # broken twin: any ring of open sites, whether it goes around the cell or not, is no sign of diffusion
        blind = SiteGraph(graph.network, graph.sites, graph.targets, np.zeros_like(graph.images))
        assert np.all(np.isinf(blind.opening(order)))


@pytest.mark.parametrize(
    ("name", "sizes", "published"),
    [
        ("square", (16, 32), 0.592746),
        ("triangular", (16, 32), 0.5),
        ("sc", (6, 12), 0.311608),
        ("fcc", (4, 8), 0.199236),
    ],
)
def test_thresholds_are_the_published_ones(name, sizes, published):
    found = percolation_threshold(lattice(name, sizes[0]), sizes, n_samples=60, seed=1)
    q = found.open_fraction
    assert abs(float(q) - published) < 3 * q.error < 0.08 * published
    assert float(found.blocked_fraction) == pytest.approx(1 - float(found))
    # the larger cell wraps more steeply
    low, high = found.wrapping_probability([0.92 * published, 1.08 * published]).T
    assert low.max() < 0.6 < high.min() and high[1] - low[1] > high[0] - low[0]
    assert found.n_sites[0] < found.n_sites[1] and len(found.thresholds[0]) > len(found.thresholds[1]) == 60


def test_more_neighbours_percolate_earlier():
    """Square lattice with second neighbours: 0.407254, the complement of the square lattice's own threshold."""
    network = lattice("square", 8, cutoff=1.5)
    q = percolation_threshold(network, (12, 24), n_samples=60, seed=0).open_fraction
    assert abs(float(q) - (1 - 0.592746)) < 3 * q.error
    assert abs(float(q) - 0.592746) > 10 * q.error  # broken twin: nearest neighbours only


def test_diffusion_ends_at_the_threshold():
    network = lattice("square", 24)
    curve = obstructed_diffusion(network, [0.0, 0.15, 0.3, 0.6], n_arrangements=4, lookahead=(0, 2, 6), seed=0)
    ratio = curve.long_over_short
    assert ratio.value[0] == pytest.approx(1.0) and ratio.error[0] < 1e-12
    assert np.all(np.diff(ratio.value) < 0) and ratio.value[-1] == 0 == ratio.error[-1]
    # the first obstacles act alone: D/D_free = 1 − (π − 1) c, and of that 1 − c are missing jumps
    assert curve.long_over_free.value[1] == pytest.approx(1 - (np.pi - 1) * 0.15, abs=0.08)
    np.testing.assert_allclose(curve.long_over_free.value[:2] / (1 - curve.blocked[:2]), ratio.value[:2], rtol=0.02)
    assert curve.wrapping_probability.value.tolist() == [1, 1, 1, 0] and curve.percolating_share.value[-1] == 0
    # bounds from above that look further are tighter, and no local one sees the threshold
    limits = [curve.bounds[k].value for k in (0, 2, 6)]
    np.testing.assert_allclose(limits[0], 1.0)
    assert np.all(limits[0] >= limits[1] - 1e-12) and np.all(limits[1] >= limits[2] - 1e-12)
    assert np.all(limits[2] >= ratio.value - 1e-12) and limits[2][-1] > 0.01
    again = obstructed_diffusion(network, [0.3], n_arrangements=4, seed=0).long_over_short
    assert again.value[0] == pytest.approx(ratio.value[2], rel=1e-12)
    other = obstructed_diffusion(network, [0.3], n_arrangements=8, seed=5).long_over_short
    assert abs(other.value[0] - ratio.value[2]) < 4 * np.hypot(other.error[0], ratio.error[2])


def test_curves_are_written_and_drawn():
    network = lattice("triangular", 8)
    curve = obstructed_diffusion(network, [0.1, 0.4], n_arrangements=3, lookahead=(1,))
    table = curve.to_dataframe()
    assert list(table.columns[:3]) == ["blocked", "long_over_short", "long_over_short_error"] and len(table) == 2
    assert "bound_1_error" in table.columns
    assert curve.as_dict()["bounds"]["1"]["kind"] == "bound"
    axes = curve.plot(threshold=0.5, label="triangular")
    assert curve.plot(quantity="percolating_share", ax=axes) is axes
    found = percolation_threshold(network, (6, 12), n_samples=10)
    assert "open fraction" in found.plot().get_xlabel()
    assert found.as_dict()["n_sites"] == [36, 144] and found.as_dict()["open_fraction"]["error"] > 0
    plt.close("all")


def test_channels_percolate_only_when_all_sites_are_open():
    """A chain has p_c = 1; cells of one length of it wrap when the last site opens."""
    chain = ak.Alloy.from_atoms(Atoms("Cu", cell=[2, 10, 10], pbc=(1, 0, 0)))
    network = ak.JumpNetwork.from_supercell(chain.supercell((8, 1, 1)), cutoff=2.1)
    found = percolation_threshold(network, (20, 40), n_samples=5)
    assert float(found) == pytest.approx(1.0, abs=2e-3)
    assert found.thresholds[1].shape == (5, 1) and np.all(found.thresholds[1] == 40 / 41)


def test_bad_input_is_refused():
    network = lattice("square", 6)
    for blocked in ([1.0], [-0.1], [np.nan], [0.999]):
        with pytest.raises(KinosonError, match="leave a site open"):
            obstructed_diffusion(network, blocked)
    with pytest.raises(KinosonError, match="at least one arrangement"):
        obstructed_diffusion(network, [0.1], n_arrangements=0)
    with pytest.raises(KinosonError, match="lookahead"):
        obstructed_diffusion(network, [0.1], lookahead=[-1])
    with pytest.raises(KinosonError, match="two different sizes"):
        percolation_threshold(network, (8,))
    with pytest.raises(KinosonError, match="choose one"):
        obstructed_diffusion(network, [0.1], n_arrangements=1).plot(quantity="speed")
