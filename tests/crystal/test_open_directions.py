"""In how many directions jumps lead on, on lattices where counting loops by hand is easy."""

import numpy as np
import pytest
from ase import Atoms

from ase_kinoson.crystal import Alloy, JumpNetwork


def network(cell, positions, size, *, cutoff=None, pbc=True):
    atoms = Atoms(f"Cu{len(positions)}", scaled_positions=positions, cell=cell, pbc=pbc)
    alloy = Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Ni": 0.5}})
    return JumpNetwork.from_supercell(alloy.supercell(size, of="primitive"), cutoff=cutoff)


WIDE = [3.0, 5.0, 7.0]
ACROSS = [[0.1, 0, 0], [0.9, 0, 0]]  # 0.6 Å through the face of the cell, 2.4 Å inside it
CORNER = [[0.05, 0.05, 0.05], [0.95, 0.05, 0.05], [0.05, 0.95, 0.05]]  # one island around a corner

# cell, positions, longest jump, directions
CASES = {
    "chain": ([3.0, 5.0, 7.0], [[0, 0, 0]], 3.1, 1),
    "layer": ([3.0, 5.0, 7.0], [[0, 0, 0]], 5.1, 2),
    "block": ([3.0, 5.0, 7.0], [[0, 0, 0]], 7.1, 3),
    "pairs inside the cell": (WIDE, [[0.4, 0, 0], [0.6, 0, 0]], 1.0, 0),
    "pairs through a face": (WIDE, ACROSS, 1.0, 0),
    "pairs joined to a chain": (WIDE, ACROSS, 2.45, 1),
    "island around a corner": (WIDE, CORNER, 0.9, 0),
    "islands joined to a chain": (WIDE, CORNER, 2.75, 1),
    "a chain beside isolated pairs": (
        [3.0, 9.0, 9.0],
        [[0.0, 0.1, 0.5], [0.5, 0.1, 0.5], [0.0, 0.6, 0.05], [0.0, 0.6, 0.95]],
        1.6,
        1,
    ),
    "pairs beside a chain, listed the other way": (
        [3.0, 9.0, 9.0],
        [[0.0, 0.6, 0.05], [0.0, 0.6, 0.95], [0.0, 0.1, 0.5], [0.5, 0.1, 0.5]],
        1.6,
        1,
    ),
    "chains along two directions that never meet": (
        [3.0, 3.0, 9.0],
        [[0.0, 0.0, 0.1], [0.5, 0.0, 0.1], [0.0, 0.0, 0.6], [0.0, 0.5, 0.6]],
        1.6,
        1,
    ),
    "a slanted chain": ([[2.0, 0, 1.0], [0, 5.0, 0], [0.0, 0, 6.0]], [[0.1, 0, 0], [0.6, 0, 0]], 1.2, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_open_directions(name):
    cell, positions, cutoff, expected = CASES[name]
    assert network(cell, positions, (6, 4, 3), cutoff=cutoff).n_open_directions == expected


@pytest.mark.parametrize("shift", [[0.0, 0.0, 0.0], [0.3, 0.4, 0.2], [0.93, 0.97, 0.51], [0.5, 0.93, 0.93]])
@pytest.mark.parametrize("name", ["pairs through a face", "island around a corner", "islands joined to a chain"])
def test_where_the_cell_begins_does_not_matter(name, shift):
    cell, positions, cutoff, expected = CASES[name]
    moved = (np.array(positions) + shift) % 1.0
    assert network(cell, moved, (6, 4, 3), cutoff=cutoff).n_open_directions == expected


def test_a_loop_through_several_sites_counts_cells_with_their_sign():
    # a ladder of four sites along x that closes on the next cell: one direction, however it is walked
    positions = [[0.0, 0, 0], [0.25, 0, 0], [0.5, 0, 0], [0.75, 0, 0]]
    assert network([4.0, 5.0, 6.0], positions, (3, 3, 3), cutoff=1.1).n_open_directions == 1
    # a ring of four around the corner of the cell closes on itself
    ring = [[0.9, 0.9, 0], [0.1, 0.9, 0], [0.1, 0.1, 0], [0.9, 0.1, 0]]
    assert network([4.0, 4.0, 6.0], ring, (3, 3, 3), cutoff=0.85).n_open_directions == 0
    assert network([4.0, 4.0, 6.0], ring, (3, 3, 3), cutoff=3.25).n_open_directions == 2


def test_periodic_directions_alone_count():
    flat = network([3.0, 3.0, 9.0], [[0, 0, 0.5]], (3, 3, 1), pbc=(True, True, False))
    assert flat.n_open_directions == flat.dimension == 2
    np.testing.assert_allclose(flat.projector, np.diag([1.0, 1.0, 0.0]), atol=1e-12)
    slanted = network([[3.0, 0, 1.0], [0, 3.0, 0], [0, 0, 9.0]], [[0, 0, 0.5]], (3, 3, 1), pbc=(True, True, False))
    inside = slanted.supercell.cell[:2]
    np.testing.assert_allclose(inside @ slanted.projector, inside, atol=1e-9)
    np.testing.assert_allclose(slanted.projector @ np.cross(*inside), 0.0, atol=1e-9)
    assert np.trace(slanted.projector) == pytest.approx(2.0)


def test_lengths_and_nearest_distance_of_unlike_sites():
    # sites of one kind 2.0 Å apart along x, rows 5 Å apart; the longest of the nearest distances sets the reach
    found = network([2.0, 5.0, 5.0], [[0, 0, 0]], (4, 3, 3))
    np.testing.assert_allclose(found.lengths, [2.0])
    assert found.exists.sum() == 2
    assert "JumpNetwork(vacancy, up to 2 jumps per site, 1 classes of length 2.000 Å)" == repr(found)


def test_the_choice_of_the_cell_does_not_matter():
    """One crystal in sheared cells, whose jumps then lead several cells on, and around loops back."""
    chain = [[0.1, 0, 0], [0.33, 0, 0], [0.6, 0, 0], [0.85, 0, 0]]  # uneven, so that no smaller cell does
    ring = [[0.9, 0.9, 0], [0.1, 0.9, 0], [0.1, 0.1, 0], [0.9, 0.1, 0]]
    cell = np.diag([4.0, 4.0, 6.0])
    for positions, cutoff, expected in ((chain, 1.2, 1), (ring, 0.85, 0), (ring, 3.25, 2)):
        for shear in (
            [[1, 0, 0], [-2, 1, 0], [0, 0, 1]],
            [[1, 3, 0], [0, 1, 0], [1, -2, 1]],
            [[2, 3, 0], [1, 2, 0], [-1, 0, 1]],
        ):
            matrix = np.array(shear)
            assert round(np.linalg.det(matrix)) == 1
            inside = (np.array(positions) @ np.linalg.inv(matrix)) % 1.0
            found = network(
                matrix @ cell, inside, np.linalg.inv(matrix).round().astype(int) @ np.diag([3, 3, 3]), cutoff=cutoff
            )
            assert found.n_open_directions == expected
