"""Attempt frequencies: an exactly known case, convergence in the number of atoms, both directions."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.data import atomic_masses

from ase_kinoson.barriers.optimise import CountedForces, relax
from ase_kinoson.barriers.prefactor import atoms_around, partial_hessian, vineyard, vineyard_prefactors
from ase_kinoson.barriers.saddle import Hop, Host, SaddleSettings, find_saddle, relax_state
from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import BarrierError

HALF, HEIGHT, STIFF, STIFFER = 1.3, 0.7, 3.0, 2.0  # Å, eV, eV/Å², eV/Å²


def double_well(positions):
    """One atom: E = h ((x/a)² − 1)² + ½ (k + κ (1 − (x/a)²)) (y² + z²)."""
    x, y, z = positions[0]
    u, r2 = (x / HALF) ** 2, y**2 + z**2
    stiffness = STIFF + STIFFER * (1 - u)
    force = [
        -4 * HEIGHT * (u - 1) * x / HALF**2 + STIFFER * x / HALF**2 * r2,
        -stiffness * y,
        -stiffness * z,
    ]
    return HEIGHT * (u - 1) ** 2 + 0.5 * stiffness * r2, np.array([force])


def test_double_well_is_exact():
    mass = np.array([58.0])
    state = partial_hessian(double_well, np.array([[-HALF, 0.0, 0.0]]), np.array([0]), displacement=1e-4)
    saddle = partial_hessian(double_well, np.zeros((1, 3)), np.array([0]), displacement=1e-4)
    along = np.sqrt(8 * HEIGHT / HALF**2 / mass[0])
    exact = along / (2 * np.pi) * STIFF / (STIFF + STIFFER) * units.second

    def check(frequency):
        assert frequency == pytest.approx(exact, rel=1e-5)

    check(vineyard(state, saddle, mass))
    assert 1e12 < exact < 1e13
    for twin in (vineyard(state, saddle, mass / 2), vineyard(state, 1.1 * saddle, mass)):
        with pytest.raises(AssertionError):
            check(twin)


def test_wrong_points_are_refused():
    state = partial_hessian(double_well, np.array([[-HALF, 0.0, 0.0]]), np.array([0]))
    saddle = partial_hessian(double_well, np.zeros((1, 3)), np.array([0]))
    with pytest.raises(BarrierError, match="Hessian of the state"):
        vineyard(saddle, saddle, np.ones(1))
    with pytest.raises(BarrierError, match="Hessian of the saddle"):
        vineyard(state, state, np.ones(1))


@pytest.fixture(scope="module")
def jump():
    """A jump with a clear energy difference, in 31 atoms of Cu-Ni, relaxed tightly."""
    cell = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}}).supercell((2, 2, 2))
    network = JumpNetwork.from_supercell(cell)
    codes = np.concatenate([[cell.species.index(s)] * n for s, n in cell.counts[0].items()])
    occupation = np.insert(np.random.default_rng(3).permutation(codes), 0, 0)
    host = Host.from_occupation(cell, occupation)
    settings = SaddleSettings(accuracy=1e-6, fmax_initial=1e-3, fmax_final=1e-3, fmax_saddle=1e-3)
    state = relax_state(host, EMT(), settings=settings)
    hop = Hop.from_jump(network, host, 0, 1)
    return cell, network, occupation, host, hop, state, find_saddle(host, hop, state, EMT(), settings=settings)


class Morse(Calculator):
    """Morse pairs in a cubic cell, shifted so that energy and force vanish at the cutoff; knows its own Hessian."""

    implemented_properties = ("energy", "forces")
    depth, alpha, best, cutoff = 0.3429, 1.3588, 2.866, 5.3

    def pairs(self, positions, length):
        gap = positions[:, None] - positions
        gap -= length * np.rint(gap / length)
        r = np.sqrt((gap**2).sum(axis=2))
        inside = (r < self.cutoff) & (r > 0)
        r = np.where(inside, r, self.cutoff)
        e, end = np.exp(-self.alpha * (r - self.best)), np.exp(-self.alpha * (self.cutoff - self.best))
        value, last = self.depth * (e * e - 2 * e), self.depth * (end * end - 2 * end)
        slope, steep = (-2 * self.alpha * self.depth * (x * x - x) for x in (e, end))
        bend = 2 * self.alpha**2 * self.depth * (2 * e * e - e) * inside
        return gap, r, value - last - steep * (r - self.cutoff), slope - steep, bend

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        gap, r, value, slope, _ = self.pairs(self.atoms.positions, self.atoms.cell[0, 0])
        self.results = {"energy": 0.5 * float(value.sum()), "forces": -((slope / r)[:, :, None] * gap).sum(axis=1)}

    def hessian(self, positions, length):
        gap, r, _, slope, bend = self.pairs(positions, length)
        unit = gap / r[:, :, None]
        outer = unit[:, :, :, None] * unit[:, :, None, :]
        blocks = (bend - slope / r)[:, :, None, None] * outer + (slope / r)[:, :, None, None] * np.eye(3)
        full = -blocks
        every = np.arange(len(positions))
        full[every, every] = blocks.sum(axis=1)
        return full.transpose(0, 2, 1, 3).reshape(3 * len(positions), -1)


@pytest.fixture(scope="module")
def morse():
    """A jump in 107 atoms with the exact Hessians of state and saddle."""
    cell = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.62)).supercell((3, 3, 3))
    occupation = np.ones(cell.n_sites, dtype=int)
    occupation[0] = 0
    host = Host.from_occupation(cell, occupation)
    settings = SaddleSettings(fmax_initial=1e-3, fmax_final=1e-2, fmax_saddle=1e-3)
    state = relax_state(host, Morse(), settings=settings)
    hop = Hop.from_jump(JumpNetwork.from_supercell(cell), host, 0, 0)
    found = find_saddle(host, hop, state, Morse(), settings=settings)
    assert found.status == "ok" and found.n_unstable == 1
    hessians = [Morse().hessian(p, host.cell[0, 0]) for p in (state.positions, found.saddle_positions)]
    return host, hop, state, hessians


def parts(hessians, atoms):
    own = (3 * atoms[:, None] + np.arange(3)).ravel()
    return [h[np.ix_(own, own)] for h in hessians]


def test_partial_hessian_is_that_part_of_the_exact_one(morse):
    host, hop, state, hessians = morse
    some = atoms_around(host, hop, 2.7)
    assert 10 < len(some) < 30 and hop.mover in some

    def check(hessian):
        assert np.abs(hessian - parts(hessians, some)[0]).max() < 2e-3 * np.abs(hessians[0]).max()

    evaluate = CountedForces(host.atoms(), Morse())
    check(partial_hessian(evaluate, state.positions, some))
    with pytest.raises(AssertionError):
        check(partial_hessian(evaluate, state.positions, some + 1))


def test_prefactor_converges_to_the_one_of_all_atoms(morse):
    host, hop, _, hessians = morse
    masses = atomic_masses[host.numbers]
    full = vineyard(*hessians, masses, free=True)
    assert 1e12 < full < 1e14
    held = {}
    for radius in (0.5, 4.0, 5.6, 6.0):
        some = atoms_around(host, hop, radius)
        held[len(some)] = abs(np.log(vineyard(*parts(hessians, some), masses[some]) / full))
    assert list(held) == sorted(held) and min(held) == 1 and max(held) < len(masses)

    def converges(errors):
        assert errors[-1] < 0.05 < 0.3 < errors[0]

    converges(list(held.values()))
    # the twin that counts the translations of the free crystal as vibrations, however soft
    soft = [h + k * 1e-2 * np.eye(len(h)) for k, h in zip((1, 2), hessians, strict=True)]
    with pytest.raises(AssertionError):
        converges([*list(held.values())[:-1], abs(np.log(vineyard(*soft, masses) / full))])


def test_jump_and_its_reverse_share_their_prefactors(jump):
    cell, network, occupation, host, hop, state, _ = jump
    settings = SaddleSettings(prefactor="vineyard", prefactor_radius=2.0)
    forward = find_saddle(host, hop, state, EMT(), settings=settings)
    after, carrier = network.apply(occupation[None], [0], [1])
    other = Host.from_occupation(cell, after[0])
    start = relax_state(other, EMT(), settings=settings)
    back = Hop.from_jump(network, other, int(carrier[0]), int(network.reverse[0, 1]))
    backward = find_saddle(other, back, start, EMT(), settings=settings)
    assert forward.status == backward.status == "ok"
    assert forward.prefactor_calls == 18 * len(atoms_around(host, hop, 2.0))
    assert forward.search_calls + forward.verify_calls + forward.prefactor_calls == forward.force_calls

    def agree(one, two):
        assert one == pytest.approx(two, rel=2e-3)

    agree(forward.prefactor, backward.reverse_prefactor)
    agree(forward.reverse_prefactor, backward.prefactor)
    agree(forward.attempt_frequency, backward.attempt_frequency)
    assert 1e12 < forward.prefactor < 1e14
    with pytest.raises(AssertionError):  # the twin that takes the wrong end
        agree(forward.prefactor, backward.prefactor)


def test_prefactor_of_a_collapsed_point_is_nan_and_said(jump):
    _, _, _, host, hop, state, _ = jump
    begin = relax(host.atoms(state.positions), EMT())
    forward, reverse, problem = vineyard_prefactors(
        CountedForces(host.atoms(), EMT()), host, hop, (begin, begin, begin), radius=0.5
    )
    assert np.isnan(forward) and np.isnan(reverse)
    assert "saddle" in problem


class Limited(EMT):
    """EMT that gives up after a number of calls."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of licences")
        super().calculate(atoms, properties, system_changes)


@pytest.mark.parametrize("how", ["calculator", "calls"])
def test_barrier_stands_without_its_prefactor(jump, how):
    _, _, _, host, hop, state, tight = jump
    plain = find_saddle(host, hop, state, EMT())
    few = plain.force_calls + 4
    settings = SaddleSettings(prefactor="vineyard", prefactor_radius=1.0, max_calls=few if how == "calls" else None)
    calculator = Limited(few) if how == "calculator" else EMT()
    found = find_saddle(host, hop, state, calculator, settings=settings)
    assert found.status == "ok" and found.barrier == plain.barrier == pytest.approx(tight.barrier, abs=2e-3)
    assert np.isnan(found.prefactor) and np.isnan(found.reverse_prefactor)
    assert found.force_calls == plain.force_calls + found.prefactor_calls and found.prefactor_calls in (4, 5)
    assert "prefactors: failed" in found.path[-1]
    enough = find_saddle(
        host, hop, state, Limited(10**6), settings=SaddleSettings(**{**vars(settings), "max_calls": None})
    )
    assert np.isfinite(enough.prefactor)
