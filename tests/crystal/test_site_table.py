"""Sites around sites, by table and by arithmetic, and the occupants that environments find there."""

import pickle

import numpy as np
import pytest
from ase.build import bulk

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.crystal import site_table as module
from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.site_table import SiteTable
from ase_kinoson.errors import StructureError

from .test_environment import BUILT, CASES

SMALL = {
    # the environment sees itself through the walls of these
    "small fcc": lambda: JumpNetwork.from_supercell(
        Alloy.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True), {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell(2)
    ),
    "small hcp": lambda: JumpNetwork.from_supercell(
        Alloy.from_atoms(bulk("Mg", "hcp", a=3.2, c=5.2), {"Mg": {"Mg": 0.5, "Al": 0.5}}).supercell((3, 3, 2))
    ),
}


@pytest.fixture(params=[*CASES, *SMALL])
def network(request):
    if request.param not in BUILT:
        BUILT[request.param] = {**CASES, **SMALL}[request.param]()
    return BUILT[request.param]


def plainly(cell, center, basis, cells):
    """Sites one after the other, with integers of any size."""
    inverse = np.linalg.inv(cell.matrix)
    home = {}
    for index in range(cell.n_cells):
        home[tuple(np.rint((cell.cell_coordinates(index) @ inverse % 1.0) * 1e6).astype(int) % 10**6)] = index
    found = []
    for b, shift in zip(basis, cells, strict=True):
        at = (cell.cell_coordinates(center // cell.alloy.n_basis) + shift) @ inverse % 1.0
        found.append(-1 if b < 0 else home[tuple(np.rint(at * 1e6).astype(int) % 10**6)] * cell.alloy.n_basis + b)
    return found


def states_of(network, n, seed=0):
    cell, rng = network.supercell, np.random.default_rng(seed)
    occupations = rng.integers(1, len(cell.species), size=(n, cell.n_sites), dtype=np.int8)
    carriers = rng.choice(cell.mobile_sites, size=n)
    occupations[np.arange(n), carriers] = len(cell.species) - 1 if cell.alloy.is_interstitial else 0
    return occupations, carriers


def seen_plainly(env, network, occupations, carriers, *, exchange=True):
    """Environments of the states and of the states that :meth:`JumpNetwork.apply` makes."""
    n, n_jumps = len(carriers), network.n_jumps
    found = np.zeros((n, 1 + n_jumps, env.n_max), dtype=np.int8)
    for i in range(n):
        for k in range(1 + n_jumps):
            occ, c = occupations[i : i + 1], carriers[i : i + 1]
            if k:
                if not network.exists[network.basis_of(c)[0], k - 1]:
                    continue
                after, c = network.apply(occ, c, [k - 1])
                occ = after if exchange else occ
            sites = env.sites(c, int(network.basis_of(c)[0]))[0]
            found[i, k, : len(sites)] = occ[0, sites]
    return found


@pytest.mark.parametrize("kept", [True, False])
def test_table_and_arithmetic_give_the_sites_of_the_lattice(network, kept, monkeypatch):
    monkeypatch.setattr(module, "TABLE_ENTRIES", 2**20 if kept else 0)
    cell = network.supercell
    table = CarrierEnvironment.build(network).table
    table = SiteTable(table.hermite, table.basis, table.cells)
    for center in np.random.default_rng(1).choice(cell.mobile_sites, size=3):
        b = center % cell.alloy.n_basis
        assert table.sites([center])[0].tolist() == plainly(cell, center, table.basis[b], table.cells[b])
    shifted = SiteTable(table.hermite, table.basis, table.cells + np.array([1, 0, 0]))
    some = cell.mobile_sites[:20]
    if cell.hermite[0, 0] > 1:
        assert not np.array_equal(shifted.sites(some), table.sites(some))
    both = table.sites(some.reshape(2, -1) if len(some) % 2 == 0 else some[None])
    assert np.array_equal(both.reshape(len(some), -1), table.sites(some))


def test_occupants_after_each_jump_are_those_of_the_state_it_leads_to(network):
    env = CarrierEnvironment.build(network)
    occupations, carriers = states_of(network, 4)
    expected = seen_plainly(env, network, occupations, carriers)
    found = env.jump_occupants(network, occupations, carriers)
    assert found.dtype == np.int8
    assert np.array_equal(found, expected)
    assert np.array_equal(env.jump_occupants(network, occupations, carriers, chunk=1), expected)
    assert np.array_equal(env.occupants(occupations, carriers), expected[:, 0])
    if not network.supercell.alloy.is_interstitial:  # an interstitial does not see its own empty site
        broken = seen_plainly(env, network, occupations, carriers, exchange=False)
        assert not np.array_equal(found, broken)


def test_what_can_be_computed_again_is_not_sent():
    network = CASES["fcc"]()
    before = len(pickle.dumps(network))
    network.targets(np.arange(10))
    assert len(pickle.dumps(network)) < before + 10_000
    again = pickle.loads(pickle.dumps(network))
    assert np.array_equal(again.targets(np.arange(10)), network.targets(np.arange(10)))


def exactly(hermite, n_basis, center, basis, cells):
    """Sites by integers of any size."""
    h = [[int(x) for x in row] for row in hermite]
    cell, b = divmod(int(center), n_basis)
    start = [cell // (h[1][1] * h[2][2]), cell // h[2][2] % h[1][1], cell % h[2][2]]
    found = []
    for partner, shift in zip(basis[b], cells[b], strict=True):
        at = [x + int(d) for x, d in zip(start, shift, strict=True)]
        for axis in range(3):
            turns = at[axis] // h[axis][axis]
            at = [x - turns * (y if i >= axis else 0) for i, (x, y) in enumerate(zip(at, h[axis], strict=True))]
        index = (at[0] * h[1][1] + at[1]) * h[2][2] + at[2]
        found.append(-1 if partner < 0 else index * n_basis + int(partner))
    return found


@pytest.mark.parametrize("side", [7, 463, 810])
def test_sites_of_very_large_and_sheared_cells(side):
    rng = np.random.default_rng(side)
    n_basis, n_places = 4, 86
    hermite = np.array([[side, side // 2, 3], [0, side, side - 1], [0, 0, side]])
    basis = rng.integers(-1, n_basis, size=(n_basis, n_places))
    cells = rng.integers(-9, 10, size=(n_basis, n_places, 3))
    table = SiteTable(hermite, basis, cells)
    assert table.n_sites == n_basis * side**3 < 2**31
    centers = np.array([0, 1, table.n_sites // 3, table.n_sites - 1])
    found = table.sites(centers)
    assert found.tolist() == [exactly(hermite, n_basis, c, basis, cells) for c in centers]
    # broken twin: a cell that is not sheared
    straight = SiteTable(np.diag(np.diag(hermite)), basis, cells)
    assert not np.array_equal(straight.sites(centers), found)
    if side == 810:  # places times sites do not fit into 32 bits, and are not formed
        assert table.n_sites * n_places > 2**32 and found.max() > 2**30


def test_cells_that_32_bits_cannot_number_are_refused():
    alloy = Alloy.from_atoms(bulk("Cu", a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.5}})
    with pytest.raises(StructureError, match="expected fewer than"):
        alloy.supercell(1300, of="primitive")
    assert alloy.supercell(1200, of="primitive").n_sites == 1200**3
