"""One barrier: physics, fall-backs, and what is recorded when things go wrong."""

from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.geometry import find_mic

from ase_kinoson.barriers.optimise import CountedForces, lbfgs
from ase_kinoson.barriers.preconditioner import SpringPreconditioner
from ase_kinoson.barriers.saddle import (
    Hop,
    Host,
    SaddleSettings,
    climb,
    climbing_band,
    find_saddle,
    relax,
    relax_state,
)
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.errors import BarrierError

AGREE = 0.005  # eV


def lattice(size=(2, 2, 2), a=3.58, composition=None, symbol="Cu"):
    alloy = Alloy.from_atoms(bulk(symbol, cubic=True, a=a), composition)
    cell = alloy.supercell(size)
    return cell, JumpNetwork.from_supercell(cell)


def random_state(cell, seed, carrier=0):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([[cell.species.index(s)] * n for s, n in cell.counts[0].items()])
    occupation = np.insert(rng.permutation(codes), carrier, 0)
    return States.from_occupations(cell, occupation)


def search(cell, network, occupation, carrier, jump, *, factory=EMT, settings=None):
    host = Host.from_occupation(cell, occupation)
    state = relax_state(host, factory(), settings=settings, make_calculator=factory)
    hop = Hop.from_jump(network, host, carrier, jump)
    return host, state, hop, find_saddle(host, hop, state, factory(), settings=settings, make_calculator=factory)


@pytest.fixture(scope="module")
def cuni():
    cell, network = lattice(composition={"Cu": {"Cu": 0.7, "Ni": 0.3}})
    return cell, network, random_state(cell, 3)


@pytest.fixture(scope="module")
def one(cuni):
    """A jump with a clear energy difference."""
    cell, network, states = cuni
    for jump in range(network.n_jumps):
        found = search(cell, network, states.occupations[0], 0, jump)
        if found[3].status == "ok" and abs(found[3].energy_final - found[3].energy_initial) > 0.05:
            return jump, *found
    raise AssertionError("no such jump")


class Tethered(EMT):
    """EMT in which one atom is drawn to a place in the crystal; the reaction acts on all, so that nothing drifts."""

    def __init__(self, atom, host, place, stiffness=5.0):
        super().__init__()
        self.tether = (atom, np.array(place) - host.positions.mean(axis=0), stiffness)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        atom, place, stiffness = self.tether
        away = self.atoms.positions[atom] - self.atoms.positions.mean(axis=0) - place
        self.results["energy"] += 0.5 * stiffness * float(away @ away)
        self.results["forces"] = self.results["forces"] + stiffness * away / len(self.atoms)
        self.results["forces"][atom] -= stiffness * away


class Failing(EMT):
    """EMT that raises or returns NaN once an atom is far from where it began."""

    def __init__(self, atom, point, how):
        super().__init__()
        self.trap = (atom, np.array(point), how)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        atom, point, how = self.trap
        if np.linalg.norm(self.atoms.positions[atom] - point) > 0.5:
            if how == "raise":
                raise RuntimeError("lost atoms")
            self.results["forces"] = self.results["forces"] * np.nan


# -- physics --------------------------------------------------------------------------------------------------------


def test_copper_in_107_atoms_has_its_known_barrier():
    cell, network = lattice((3, 3, 3), a=3.61)
    occupation = np.ones(cell.n_sites, dtype=int)
    occupation[5] = 0
    _, _, _, found = search(cell, network, occupation, 5, 7)
    assert found.status == "ok", found.reason
    assert found.barrier == pytest.approx(0.76, abs=AGREE)
    assert found.reverse_barrier == pytest.approx(found.barrier, abs=1e-3)
    assert found.search_calls <= 18
    assert found.descents == "both-ends" and found.n_unstable == 1
    # a start that skips the climb is not the barrier
    atoms = Host.from_occupation(cell, occupation).atoms((found.final_positions + found.saddle_positions) / 2)
    atoms.calc = EMT()
    with pytest.raises(AssertionError):
        assert atoms.get_potential_energy() - found.energy_initial == pytest.approx(0.76, abs=AGREE)


def test_forward_and_reverse_computed_separately_agree(cuni, one):
    cell, network, states = cuni
    jump, _, _, _, forward = one
    after, carrier = network.apply(states.occupations, states.carriers, [jump])
    back = int(network.reverse[0, jump])
    _, _, _, backward = search(cell, network, after[0], int(carrier[0]), back)

    def agree(reverse_barrier):
        assert reverse_barrier == pytest.approx(backward.barrier, abs=AGREE)

    agree(forward.reverse_barrier)
    assert forward.barrier == pytest.approx(backward.reverse_barrier, abs=AGREE)
    with pytest.raises(AssertionError):  # the twin that takes the wrong end
        agree(forward.energy_saddle - forward.energy_initial)


def test_climb_equals_a_climbing_image_band(one):
    _, host, state, _, found = one
    atoms = host.atoms()
    begin = relax(host.atoms(state.positions), EMT(), fmax=0.002)
    end = relax(host.atoms(found.final_positions), EMT(), fmax=0.002)
    band = climbing_band(begin, end, atoms, EMT, n_images=3, fmax=0.01)
    assert band.converged
    assert found.energy_saddle == pytest.approx(band.energy, abs=1e-3)
    assert band.force_calls > 3 * found.search_calls


def test_climb_takes_the_minimum_image(one):
    _, host, state, _, found = one
    atoms, calculator = host.atoms(), EMT()
    wrapped = found.final_positions + np.arange(len(atoms))[:, None] % 2 * host.cell[0]

    def energy(result):
        assert result.converged
        assert result.energy == pytest.approx(found.energy_saddle, abs=1e-3)

    energy(climb(state.positions, wrapped, atoms, calculator, preconditioner=host.preconditioner(SaddleSettings())))
    away = wrapped - state.positions  # the twin without minimum image
    start, tangent = state.positions + away / 2, away / np.linalg.norm(away)
    springs = host.preconditioner(SaddleSettings())
    with pytest.raises(AssertionError):
        energy(lbfgs(CountedForces(atoms, calculator), start, springs, 0.01, 30, 0.3, tangent))


def test_saddle_is_stationary_and_lies_between(one):
    _, host, state, hop, found = one
    atoms = host.atoms(found.saddle_positions)
    atoms.calc = EMT()
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 0.01
    way = found.final_positions[hop.mover] - state.positions[hop.mover]
    along = (found.saddle_positions[hop.mover] - state.positions[hop.mover]) @ way / (way @ way)
    assert 0.3 < along < 0.7
    assert found.barrier > 0 and found.reverse_barrier > 0
    # exactly one atom moves by a jump length
    moved = np.linalg.norm(found.final_positions - state.positions, axis=1)
    assert (moved > 1.5).sum() == 1


# -- fall-backs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "last"),
    [
        ({"max_climb_calls": 3}, "plain climb"),
        ({"max_climb_calls": 3, "max_plain_calls": 3, "band_images": 3}, "climbing-image band"),
    ],
)
def test_every_rung_of_the_ladder_finds_the_same_saddle(one, limits, last):
    _, host, state, hop, found = one
    other = find_saddle(host, hop, state, EMT(), settings=SaddleSettings(**limits), make_calculator=EMT)
    assert other.status == "ok"
    assert other.path[-1].startswith(last) and "converged" in other.path[-1]
    assert other.path[1].startswith("preconditioned climb: not converged")
    assert other.energy_saddle == pytest.approx(found.energy_saddle, abs=1e-3)
    assert other.force_calls > found.force_calls


def test_unconverged_saddle_is_recorded(one):
    _, host, state, hop, _ = one
    settings = SaddleSettings(max_climb_calls=2, max_plain_calls=0, band_images=0)
    found = find_saddle(host, hop, state, EMT(), settings=settings, make_calculator=EMT)
    assert found.status == "not-converged" and "largest force" in found.reason
    assert found.barrier == np.inf == found.reverse_barrier


def test_force_calls_are_all_counted(one):
    _, host, state, hop, _ = one
    calls = []

    class Counting(EMT):
        def calculate(self, *arguments, **keywords):
            calls.append(1)
            super().calculate(*arguments, **keywords)

    settings = SaddleSettings(max_climb_calls=3, max_plain_calls=3, band_images=3)
    found = find_saddle(host, hop, state, Counting(), settings=settings, make_calculator=Counting)
    assert found.force_calls == len(calls)


# -- bad luck -------------------------------------------------------------------------------------------------------


def test_end_state_that_relaxes_away(cuni):
    cell, network, states = cuni
    host = Host.from_occupation(cell, states.occupations[0])
    hop = Hop.from_jump(network, host, 0, 0)
    factory = partial(Tethered, hop.mover, host, host.positions[hop.mover])
    found = search(cell, network, states.occupations[0], 0, 0, factory=factory)[3]
    assert found.status == "unstable-end"
    assert f"atom {hop.mover}" in found.reason and "both directions" in found.reason
    assert found.barrier == np.inf == found.reverse_barrier


def test_other_atom_that_leaves_its_site(cuni):
    cell, network, states = cuni
    host = Host.from_occupation(cell, states.occupations[0])
    hop = Hop.from_jump(network, host, 0, 0)
    way, gap = find_mic(host.positions[hop.mover] - host.positions, host.cell, host.pbc)
    far = find_mic(host.positions - cell.positions[0], host.cell, host.pbc)[1]
    other = int(np.flatnonzero(np.isclose(gap, 3.58 / np.sqrt(2)) & (far > 3.0))[0])
    factory = partial(Tethered, other, host, host.positions[other] + way[other], 1.0)
    _, state, _, found = search(cell, network, states.occupations[0], 0, 0, factory=factory)
    assert state.status == "ok"
    assert found.status == "left-site", (found.status, found.reason)
    assert f"atom {other}" in found.reason


def test_initial_state_that_relaxes_away(cuni):
    cell, network, states = cuni
    host = Host.from_occupation(cell, states.occupations[0])
    hop = Hop.from_jump(network, host, 0, 0)
    factory = partial(Tethered, hop.mover, host, host.positions[hop.mover] + hop.displacement)
    state = relax_state(host, factory(), make_calculator=factory)
    assert state.status == "unstable-start"
    assert f"atom {hop.mover}" in state.reason and "all its jumps are rejected" in state.reason


@pytest.mark.parametrize(("how", "text"), [("raise", "lost atoms"), ("nan", "NaN")])
def test_calculator_that_fails(cuni, how, text):
    cell, network, states = cuni
    host = Host.from_occupation(cell, states.occupations[0])
    hop = Hop.from_jump(network, host, 0, 0)
    factory = partial(Failing, hop.mover, host.positions[hop.mover], how)
    found = search(cell, network, states.occupations[0], 0, 0, factory=factory)[3]
    assert found.status == "calculator-failed" and text in found.reason
    assert any("failed" in step for step in found.path)


def test_stationary_point_outside_the_jump_is_refused(one):
    _, host, state, hop, _ = one
    settings = SaddleSettings(between=(0.0, 0.1), band_images=0)
    found = find_saddle(host, hop, state, EMT(), settings=settings, make_calculator=EMT)
    assert found.status == "wrong-saddle" and "of its way" in found.reason


def test_direct_calls_explain_a_failing_calculator(cuni):
    _, _, states = cuni
    host = Host.from_occupation(states.supercell, states.occupations[0])
    with pytest.raises(BarrierError, match="the calculator failed"):
        relax(host.atoms(host.positions), Failing(0, [1e3, 0, 0], "nan"))


def test_settings_are_checked():
    with pytest.raises(BarrierError, match="fmax_final"):
        SaddleSettings(fmax_final=-1.0)
    with pytest.raises(BarrierError, match="between"):
        SaddleSettings(between=(0.9, 0.1))
    with pytest.raises(BarrierError, match="band_images"):
        SaddleSettings(band_images=-1)


# -- other lattices -------------------------------------------------------------------------------------------------


def test_two_dimensional_lattice():
    sheet = bulk("Cu", a=3.61).copy()
    sheet.set_cell([[2.55, 0, 0], [1.275, 2.2084, 0], [0, 0, 12.0]])
    sheet.positions[:] = [0, 0, 6.0]
    sheet.pbc = (True, True, False)
    cell = Alloy.from_atoms(sheet).supercell((4, 4, 1))
    network = JumpNetwork.from_supercell(cell)
    occupation = np.ones(cell.n_sites, dtype=int)
    occupation[0] = 0
    found = search(cell, network, occupation, 0, 2)[3]
    assert found.status == "ok", found.reason
    assert 0.1 < found.barrier < 2.0
    assert found.barrier == pytest.approx(found.reverse_barrier, abs=2e-3)


def test_interstitial_atom_moves_along_the_jump():
    cell = Alloy.from_atoms(bulk("Pd", cubic=True)).supercell((2, 2, 2))
    network = JumpNetwork.from_supercell(
        cell, mechanism="interstitial", sites=[[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]], species="H"
    )
    cell = network.supercell
    occupation = np.where(np.isin(np.arange(cell.n_sites), cell.mobile_sites), 0, cell.species.index("Pd"))
    carrier = int(cell.mobile_sites[0])
    occupation[carrier] = cell.species.index("H")
    host = Host.from_occupation(cell, occupation)
    hop = Hop.from_jump(network, host, carrier, 0)
    assert host.numbers[hop.mover] == 1
    target = int(network.targets([carrier])[0, 0])
    gap = host.positions[hop.mover] + hop.displacement - cell.positions[target]
    assert np.abs(gap @ np.linalg.inv(cell.cell) - np.rint(gap @ np.linalg.inv(cell.cell))).max() < 1e-9
    found = search(cell, network, occupation, carrier, 0)[3]
    assert found.status in ("ok", "unstable-end", "not-converged")
    assert found.status == "ok" or found.reason


def test_jump_without_an_atom_is_refused(cuni):
    cell, network, states = cuni
    host = Host.from_occupation(cell, states.occupations[0])
    with pytest.raises(BarrierError, match="empty"):
        Hop.from_jump(network, host, int(network.targets([0])[0, 0]), int(network.reverse[0, 0]))


# -- springs --------------------------------------------------------------------------------------------------------


def test_springs_are_the_inverse_of_a_symmetric_positive_matrix(cuni):
    cell, _, _ = cuni
    springs = SpringPreconditioner(cell.positions, cell.cell, cell.pbc)
    assert springs.n_bonds == 6 * cell.n_sites
    basis = np.eye(3 * cell.n_sites)
    inverse = np.array([springs.solve(v.reshape(-1, 3)).ravel() for v in basis])
    assert np.allclose(inverse, inverse.T, atol=1e-12)
    values = 1 / np.linalg.eigvalsh(inverse)
    assert values.min() == pytest.approx(0.1, rel=1e-6)  # a rigid translation meets the diagonal alone
    translation = np.ones((cell.n_sites, 1)) * [1.0, 2.0, 3.0]
    assert np.allclose(springs.solve(translation), translation / 0.1)


def test_springs_after_one_atom_moved_equal_springs_built_there(cuni):
    cell, network, states = cuni
    host = Host.from_occupation(cell, states.occupations[0])
    hop = Hop.from_jump(network, host, 0, 0)
    place = host.positions.copy()
    place[hop.mover] += hop.displacement
    moved = host.preconditioner(SaddleSettings()).moved(hop.mover, place[hop.mover])
    built = SpringPreconditioner(place, host.cell, host.pbc)
    vector = np.random.default_rng(0).normal(size=place.shape)
    assert np.allclose(moved.solve(vector), built.solve(vector), atol=1e-10)


def test_springs_save_force_calls(cuni):
    _, _, states = cuni
    host = Host.from_occupation(states.supercell, states.occupations[0])
    quick = relax(host.atoms(), EMT(), preconditioner=host.preconditioner(SaddleSettings()))
    plain = relax(host.atoms(), EMT())
    assert quick.converged and plain.converged
    assert quick.energy == pytest.approx(plain.energy, abs=1e-4)
    assert quick.force_calls < plain.force_calls


def test_springs_of_an_interstitial_leave_its_host_bound_and_are_stiff_where_it_is_squeezed():
    cell = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True)).with_interstitials("C", "octahedral").supercell(3)
    network = JumpNetwork.from_supercell(cell)
    carrier = int(cell.mobile_sites[0])
    occupation = np.where(np.isin(np.arange(cell.n_sites), cell.mobile_sites), 0, cell.species.index("Fe"))
    occupation[carrier] = cell.species.index("C")
    host = Host.from_occupation(cell, occupation)
    assert host.numbers[host.guests].tolist() == [6]
    springs = host.preconditioner(SaddleSettings())
    iron = np.flatnonzero(host.numbers == 26)
    alone = SpringPreconditioner(host.positions[iron], host.cell, host.pbc)
    assert springs.n_bonds == alone.n_bonds + 2  # two atoms at a/2, the next four are 41 % farther
    blind = SpringPreconditioner(host.positions, host.cell, host.pbc)
    assert blind.n_bonds < alone.n_bonds  # taken for an atom of the lattice, carbon hides bonds of iron
    hop = Hop.from_jump(network, host, carrier, 0)
    axis = host.positions - host.positions[hop.mover]
    near = np.linalg.norm(cell.minimum_image(axis), axis=1)
    bond = cell.minimum_image(axis)[np.flatnonzero((near > 0) & (near < 1.5))[0]]
    push = np.zeros_like(host.positions)
    push[hop.mover] = bond / np.linalg.norm(bond)
    assert (push * springs.multiply(push)).sum() > 5 * (push * blind.multiply(push)).sum()
    place = host.positions.copy()
    place[hop.mover] += hop.displacement
    moved = springs.moved(hop.mover, place[hop.mover])
    built = SpringPreconditioner(place, host.cell, host.pbc, guests=host.guests)
    vector = np.random.default_rng(0).normal(size=place.shape)
    assert np.allclose(moved.solve(vector), built.solve(vector), atol=1e-10)
    assert np.allclose(moved.multiply(vector), built.multiply(vector), atol=1e-10)
