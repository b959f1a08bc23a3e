"""Warren–Cowley parameters of ordered structures and of random cells."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.crystal import Alloy, States
from ase_kinoson.errors import StatesError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinetics.short_range_order import warren_cowley


def ordered(cell, is_b):
    """A perfectly ordered state with one atom taken out."""
    row = np.where(is_b, 2, 1).astype(np.int8)
    row[0] = 0
    return States.from_occupations(cell, row[None])


def fractional(cell, a):
    return np.rint(2 * cell.positions / a).astype(int)


def test_b2():
    """Unlike neighbours only: α = −1, then +1 in the second and third shell; the vacancy shifts it by ~1/n."""
    cell = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Al": 0.5, "Fe": 0.5}}).supercell(6)
    is_b = fractional(cell, 2.87)[:, 0] % 2 == 1
    order = warren_cowley(ordered(cell, is_b), n_shells=3)
    assert order.distances == pytest.approx(2.87 * np.array([np.sqrt(0.75), 1.0, np.sqrt(2.0)]))
    assert order.species == ("Al", "Fe") and order.n_groups == 1
    for shell, unlike in ((1, -1.0), (2, 1.0), (3, 1.0)):
        assert order.pair("Al", "Fe", shell=shell)[0] == pytest.approx(unlike, abs=0.01)
        assert order.pair("Fe", "Fe", shell=shell)[0] == pytest.approx(-unlike, abs=0.01)
        assert np.isnan(order.pair("Al", "Fe", shell=shell)[1])
    assert order.carrier[0] == pytest.approx([1.0, -1.0], abs=0.01)  # only Fe around the empty Al site
    # broken twin: sites told apart by another coordinate plane are not B2
    layers = fractional(cell, 2.87)[:, 0] % 4 >= 2
    assert warren_cowley(ordered(cell, layers)).pair("Al", "Fe")[0] == pytest.approx(0.0, abs=0.02)


def test_l12():
    """Cu3Au: α = −1/3 in the first shell, 1 in the second."""
    cell = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.75), {"Cu": {"Cu": 0.75, "Au": 0.25}}).supercell(6)
    is_au = (fractional(cell, 3.75) % 2 == 0).all(axis=1)
    codes = np.where(is_au, cell.species.index("Au"), cell.species.index("Cu")).astype(np.int8)
    codes[np.flatnonzero(~is_au)[0]] = 0
    order = warren_cowley(States.from_occupations(cell, codes[None]), n_shells=2)
    assert order.pair("Cu", "Au", shell=1)[0] == pytest.approx(-1 / 3, abs=0.01)
    assert order.pair("Cu", "Au", shell=2)[0] == pytest.approx(1.0, abs=0.01)
    assert order.pair("Au", "Au", shell=1)[0] == pytest.approx(1.0, abs=0.01)
    # probabilities of all pairs of a shell sum to one
    c = np.array([order.species.index("Cu"), order.species.index("Au")])
    fractions = np.array([np.mean(codes[codes > 0] == cell.species.index(s)) for s in order.species])
    total = ((1.0 - order.alpha[0]) * np.outer(fractions, fractions)).sum()
    assert total == pytest.approx(1.0) and len(c) == 2
    assert order.alpha[0] == pytest.approx(order.alpha[0].T)
    assert "Au-Cu" in str(order) and len(str(order).splitlines()) == 3


@pytest.mark.parametrize("sublattices", [1, 2])
def test_random_cells(sublattices):
    """The mean over random decorations is the exact one of the finite cell, within its error."""
    if sublattices == 1:
        alloy = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.3, "Pd": 0.2}})
        cell = alloy.supercell(3)
    else:
        atoms = bulk("CsCl", "cesiumchloride", a=2.9)
        atoms.symbols = ["Ni", "Al"]
        composition = {"Ni": {"Ni": 0.6, "Cu": 0.4}, "Al": {"Al": 0.7, "Ni": 0.3}}
        cell = Alloy.from_atoms(atoms, composition, mobile=["Ni"]).supercell(4)
    order = warren_cowley(sample_states(cell, 400, seed=1), n_shells=2)
    sharp = order.error < 1e-12  # pairs whose number cannot vary
    assert np.all(np.abs(order.alpha - order.random) < 4.5 * order.error + 1e-9)
    assert sublattices == 2 or not sharp.any()
    if sublattices == 1:
        off = ~np.eye(3, dtype=bool)
        n_atoms = cell.n_sites - 1
        assert order.random[:, off] == pytest.approx(-1 / (n_atoms - 1))
        assert np.all(np.abs(order.carrier) < 4.5 * order.carrier_error)  # around a vacancy as anywhere
    else:
        assert order.random.min() < -0.2  # the sublattices are order enough


def test_interactions_make_order():
    """Attraction of unlike atoms: α < 0 by many errors; the vacancy that likes Ni has Ni around it."""
    atoms = Atoms("Cu", cell=[2.5, 2.5, 10], pbc=(1, 1, 0))
    cell = Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell((6, 6, 1))
    energy = PairEnergy.from_interactions(cell, {("Cu", "Ni"): -0.05, ("X", "Ni"): -0.08})
    states = sample_states(cell, 120, method="monte-carlo", model=energy, temperature_K=600, sweeps=150)
    order = warren_cowley(states, n_shells=2)
    value, error = order.pair("Cu", "Ni")
    assert value < -10 * error and order.pair("Cu", "Ni", shell=2)[0] > 0
    ni = order.species.index("Ni")
    assert order.carrier[0, ni] < -5 * order.carrier_error[0, ni]
    blind = warren_cowley(sample_states(cell, 200, seed=1), n_shells=2)
    assert abs(blind.pair("Cu", "Ni")[0] - blind.random[0, 0, 1]) < 4 * blind.pair("Cu", "Ni")[1]
    # weights count: the same states, all weight on those of one half
    half = states.with_weights((np.arange(120) < 60).astype(float))
    assert half.weights[100] == 0
    assert warren_cowley(half).alpha == pytest.approx(warren_cowley(states[:60]).alpha)
    assert warren_cowley(half).error == pytest.approx(warren_cowley(states[:60]).error)
    assert warren_cowley(half).n_groups == 60
    # and their scatter is none of the order: the error grows like that of 103 equal states
    uneven = warren_cowley(states.with_weights(1.0 + np.arange(120) % 3), n_shells=2)
    assert np.mean(uneven.error / order.error) == pytest.approx(np.sqrt(120 / 103), rel=0.15)
    alone = states.with_weights((np.arange(120) < 1).astype(float))
    assert np.isnan(warren_cowley(alone).error).all()  # of one group no error is known


def test_refusals():
    cell = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell(2)
    states = sample_states(cell, 3)
    with pytest.raises(StatesError, match="its own neighbour"):
        warren_cowley(states, n_shells=12)
    with pytest.raises(StatesError, match="n_shells=0"):
        warren_cowley(states, n_shells=0)
    with pytest.raises(StatesError, match="Cu-Zn"):
        warren_cowley(states).pair("Cu", "Zn")
