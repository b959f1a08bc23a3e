"""Is a stationary point the saddle of its jump? Curvatures, ways down, side basins, runaways and limits."""

from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from ase_kinoson.barriers.descent import descend, in_basin, soft_directions
from ase_kinoson.barriers.optimise import Budget, Relaxation, relax
from ase_kinoson.barriers.preconditioner import SpringPreconditioner
from ase_kinoson.barriers.saddle import Hop, Host, SaddleSettings, climbing_band, find_saddle, relax_state
from ase_kinoson.barriers.search import Search
from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import BarrierError

JUMP = 1


class Dimple(EMT):
    """EMT with a hollow in the way of one atom; the reaction acts on the others."""

    def __init__(self, atom, place, host, depth, width):
        super().__init__()
        others = np.arange(len(host.positions)) != atom
        self.hollow = (atom, others, place - host.positions[others].mean(axis=0), depth, width)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        atom, others, place, depth, width = self.hollow
        away = self.atoms.positions[atom] - self.atoms.positions[others].mean(axis=0) - place
        energy = -depth * np.exp(-0.5 * (away @ away) / width**2)
        push = energy * away / width**2
        self.results["energy"] += energy
        self.results["forces"] = self.results["forces"] - np.where(others, 1 / others.sum(), -1.0)[:, None] * push


class Thrown(EMT):
    """EMT in which a constant force pulls one atom away."""

    def __init__(self, atom, force):
        super().__init__()
        self.pull = (atom, np.array(force))

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        atom, force = self.pull
        share = np.full((len(self.atoms), 1), -1 / (len(self.atoms) - 1))
        share[atom] = 1.0
        self.results["energy"] -= float((share * self.atoms.positions).sum(axis=0) @ force)
        self.results["forces"] = self.results["forces"] + share * force


@pytest.fixture(scope="module")
def pair():
    """A jump of a Cu-Ni cell and its reverse, as (host, hop) of both."""
    cell = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}}).supercell((2, 2, 2))
    network = JumpNetwork.from_supercell(cell)
    codes = np.concatenate([[cell.species.index(s)] * n for s, n in cell.counts[0].items()])
    occupation = np.insert(np.random.default_rng(3).permutation(codes), 0, 0)
    host = Host.from_occupation(cell, occupation)
    after, carrier = network.apply(occupation[None], [0], [JUMP])
    other = Host.from_occupation(cell, after[0])
    return (
        (host, Hop.from_jump(network, host, 0, JUMP)),
        (other, Hop.from_jump(network, other, int(carrier[0]), int(network.reverse[0, JUMP]))),
        network,
    )


def search(host, hop, factory=EMT, **settings):
    chosen = SaddleSettings(**settings)
    state = relax_state(host, factory(), settings=chosen, make_calculator=factory)
    assert state.status == "ok", state.reason
    return state, find_saddle(host, hop, state, factory(), settings=chosen, make_calculator=factory)


def both_ways(pair, **settings):
    """Forward and reverse search over the same hollow, which lies nearer the site where the forward jump ends."""
    found = []
    for (host, hop), share in zip(pair[:2], (0.55, 0.45), strict=True):
        place = host.positions[hop.mover] + share * hop.displacement
        factory = partial(Dimple, hop.mover, place, host, 0.5, 0.3)
        found.append((factory, *search(host, hop, factory, **settings)))
    return found


# -- curvatures -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quadratic():
    """A random quadratic form with two directions that go down, and springs."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    springs = SpringPreconditioner(atoms.positions, atoms.cell, atoms.pbc)
    rng = np.random.default_rng(5)
    axes = np.linalg.qr(np.column_stack([np.tile(np.eye(3), (8, 1)), rng.normal(size=(24, 21))]))[0]
    values = np.concatenate([[0, 0, 0, -4.0, -2.0], rng.uniform(2, 9, size=19)])
    hessian = (axes * values) @ axes.T

    def evaluate(positions):
        away = (positions - atoms.positions).ravel()
        return 0.5 * float(away @ hessian @ away), -(hessian @ away).reshape(-1, 3)

    mode = axes[:, 3].reshape(-1, 3)
    saddle = Relaxation(atoms.positions, 0.0, 0.0, 0, True, forces=np.zeros((8, 3)), mode=mode)
    metric = np.column_stack([springs.multiply(v.reshape(-1, 3)).ravel() for v in np.eye(24)])
    return evaluate, saddle, springs, hessian, metric


def test_curvatures_are_those_of_the_pencil(quadratic):
    evaluate, saddle, springs, hessian, metric = quadratic
    root = np.linalg.inv(np.linalg.cholesky(metric))
    exact = np.linalg.eigvalsh(root @ hessian @ root.T)
    exact = np.delete(exact, np.argsort(np.abs(exact))[:3])  # the translations

    def check(values):
        assert np.allclose(values, exact, atol=1e-6)

    values, modes = soft_directions(evaluate, saddle, springs, calls=21)
    check(values)
    assert np.allclose(hessian @ modes[0].ravel(), values[0] * metric @ modes[0].ravel(), atol=1e-5)
    with pytest.raises(AssertionError):  # the twin whose metric is not that of the springs
        check(np.sort(np.linalg.eigvalsh(hessian))[:21])


def test_two_ways_down_are_seen_with_few_calls(quadratic):
    evaluate, saddle, springs, *_ = quadratic

    def two(calls):
        values, _ = soft_directions(evaluate, saddle, springs, calls=calls)
        assert (values < -0.02).sum() == 2

    two(10)  # of 21 directions
    with pytest.raises(AssertionError):
        two(1)  # the direction of the climb alone


def test_flat_sheet_that_buckles_has_no_saddle():
    sheet = bulk("Cu", a=3.61).copy()
    sheet.set_cell([[2.4, 0, 0], [1.2, 2.0785, 0], [0, 0, 12.0]])
    sheet.positions[:] = [0, 0, 6.0]
    sheet.pbc = (True, True, False)
    cell = Alloy.from_atoms(sheet).supercell((4, 4, 1))
    network = JumpNetwork.from_supercell(cell)
    occupation = np.ones(cell.n_sites, dtype=int)
    occupation[0] = 0
    host = Host.from_occupation(cell, occupation)
    hop = Hop.from_jump(network, host, 0, 2)
    limits = {"max_plain_calls": 0, "band_images": 0}

    def accepted(**settings):
        assert search(host, hop, **limits, **settings)[1].status == "ok"

    accepted(verify=False)
    with pytest.raises(AssertionError):
        accepted()
    found = search(host, hop, **limits)[1]
    assert any("directions go down from it" in step for step in found.path)
    assert any("off the ridge" in step for step in found.path)


# -- ways down ------------------------------------------------------------------------------------------------------


def test_harmonic_basin_is_recognised(quadratic):
    _, saddle, springs, *_ = quadratic
    rng = np.random.default_rng(1)
    end = Relaxation(saddle.positions, 1.0, 0.0, 0, True)
    away = 0.1 * rng.normal(size=end.positions.shape)
    forces = -springs.multiply(away)
    energy = 1.0 - 0.5 * float((forces * away).sum())
    assert in_basin(end.positions + away, energy, forces, end, noise=1e-3)
    # a plateau, another minimum at the same distance, and a point too far away
    assert not in_basin(end.positions + away, energy, 0 * forces, end, noise=1e-3)
    assert not in_basin(end.positions + away, energy, -forces, end, noise=1e-3)
    assert not in_basin(end.positions + 10 * away, 1 + 100 * (energy - 1), 10 * forces, end, noise=1e-3)


def test_early_stop_agrees_with_the_full_descent(pair):
    host, hop = pair[0]
    state, found = search(host, hop)
    assert found.descents == "both-ends" and found.n_unstable == 1
    assert np.isnan(found.side_initial) and np.isnan(found.side_final)
    springs = host.preconditioner(SaddleSettings())
    search_ = Search(host, EMT(), None, SaddleSettings(), Budget())
    saddle = Relaxation(found.saddle_positions, found.energy_saddle, 0.0, 0, True)
    ends = [
        Relaxation(state.positions, state.energy, 0.0, 0, True),
        Relaxation(found.final_positions, found.energy_final, 0.0, 0, True),
    ]
    way = ends[1].positions - ends[0].positions
    for sign, expected in ((-1, 0), (1, 1)):
        quick = descend(search_.forces, saddle, sign * way, ends, springs)
        full = descend(search_.forces, saddle, sign * way, [], springs, fmax=0.01)
        assert quick.end == expected and quick.last.force_calls < full.last.force_calls
        assert full.end == -1 and full.settled
        assert full.last.energy == pytest.approx(ends[expected].energy, abs=2e-3)
        assert full.last.energy != pytest.approx(ends[1 - expected].energy, abs=2e-3)


def test_saddle_of_another_jump_is_noticed(pair):
    host, hop = pair[0]
    network = pair[2]
    state, own = search(host, hop)
    others = (Hop.from_jump(network, host, 0, k) for k in range(network.n_jumps) if k != JUMP)
    other = next(h for h in others if h.mover != hop.mover)
    found = find_saddle(host, other, state, EMT(), settings=SaddleSettings())

    class Misled(Search):
        """A climb that lands on the saddle of another jump, which geometry lets pass."""

        landed = found

        def climb(self, start, tangent, gate):
            positions = self.landed.saddle_positions
            energy, forces = self.forces(positions)
            mode = self.landed.final_positions - state.positions
            return Relaxation(positions, energy, 0.0, 1, True, forces=forces, mode=mode)

        def check_saddle(self, path, found):
            return ""

    settings = SaddleSettings(max_plain_calls=0, band_images=0)
    status, reason = Misled(host, EMT(), None, settings, Budget()).jump(hop, state)
    assert status == "wrong-saddle"
    assert "leaves its site" in reason or "both ways down lead to the initial state" in reason
    right = Misled(host, EMT(), None, settings, Budget())
    right.landed = own
    assert right.jump(hop, state)[0] == "ok"


def test_side_basin_is_recorded_and_the_higher_saddle_taken(pair):
    found = both_ways(pair)
    for _, _, jump in found:
        assert jump.status == "ok" and jump.descents == "side-basin" and jump.n_unstable == 1
        sides = [e for e in (jump.side_initial, jump.side_final) if np.isfinite(e)]
        assert len(sides) == 1
        # an intermediate minimum: above both ends, below the saddle
        assert max(jump.energy_initial, jump.energy_final) < sides[0] < jump.energy_saddle
    (factory, state, forward), (_, _, backward) = found
    assert forward.barrier == pytest.approx(backward.reverse_barrier, abs=2e-3)
    assert forward.reverse_barrier == pytest.approx(backward.barrier, abs=2e-3)
    host = pair[0][0]
    begin, end = (relax(host.atoms(p), factory(), fmax=0.005) for p in (state.positions, forward.final_positions))
    band = climbing_band(begin, end, host.atoms(), factory, n_images=5, fmax=0.01, max_steps=300)
    assert band.converged and forward.energy_saddle == pytest.approx(band.energy, abs=2e-3)
    assert forward.barrier != pytest.approx(forward.reverse_barrier, abs=0.02)


def test_policy_treats_a_jump_and_its_reverse_alike(pair):
    rejected = both_ways(pair, side_basin="reject")
    for _, _, jump in rejected:
        assert jump.status == "side-basin" and "another minimum" in jump.reason
        assert jump.barrier == np.inf == jump.reverse_barrier
    for _, _, jump in both_ways(pair, verify=False):
        assert jump.status == "ok" and jump.descents == "not-checked" and jump.verify_calls == 0
    # without a side basin the policy changes nothing
    assert all(search(*one, side_basin="reject")[1].status == "ok" for one in pair[:2])


# -- limits ---------------------------------------------------------------------------------------------------------


def test_runaway_is_stopped_early(pair):
    host, hop = pair[0]
    atom = hop.mover - 1
    factory = partial(Thrown, atom, [40.0, 15.0, 5.0])
    state, _ = search(host, hop)
    settings = {"max_relax_calls": 60, "band_images": 0}
    found = find_saddle(host, hop, state, factory(), settings=SaddleSettings(**settings), make_calculator=factory)
    assert found.status == "not-converged" and "ran away" in found.reason and f"atom {atom}" in found.reason
    blind = SaddleSettings(runaway_distance=1e9, runaway_energy=1e9, **settings)
    later = find_saddle(host, hop, state, factory(), settings=blind, make_calculator=factory)
    assert "ran away" not in later.reason and later.force_calls > found.force_calls


def test_limits_end_a_search_with_a_reason(pair):
    host, hop = pair[0]
    state, whole = search(host, hop)
    few = find_saddle(host, hop, state, EMT(), settings=SaddleSettings(max_calls=9), make_calculator=EMT)
    assert few.status == "not-converged" and few.force_calls == 9 and "all 9 force calls" in few.reason
    assert np.isfinite(few.energy_final) and few.barrier == np.inf
    enough = SaddleSettings(max_calls=whole.force_calls)
    assert find_saddle(host, hop, state, EMT(), settings=enough, make_calculator=EMT).status == "ok"
    late = find_saddle(host, hop, state, EMT(), settings=SaddleSettings(time_limit_s=1e-9), make_calculator=EMT)
    assert late.status == "timed-out" and "not finished within" in late.reason
    assert relax_state(host, EMT(), settings=SaddleSettings(time_limit_s=1e-9)).status == "timed-out"


@pytest.mark.parametrize(
    ("name", "value"),
    [("side_basin", "drop"), ("prefactor", "kubo"), ("max_calls", 0), ("time_limit_s", -1.0), ("accuracy", np.nan)],
)
def test_settings_are_checked(name, value):
    with pytest.raises(BarrierError, match=name):
        SaddleSettings(**{name: value})
