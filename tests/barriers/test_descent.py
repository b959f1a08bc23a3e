"""Is a stationary point the saddle of its jump? Curvatures, ways down, side basins, runaways and limits."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from scipy.interpolate import CubicHermiteSpline

from ase_kinoson.barriers import checks as checks_module
from ase_kinoson.barriers.descent import descend, in_basin, soft_directions
from ase_kinoson.barriers.optimise import Budget, LimitReachedError, Relaxation, relax
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


# -- one atom on a line ---------------------------------------------------------------------------------------------

LENGTH = 3.0
TWO = ((0.0, 0.0), (0.7, 0.5), (1.5, 0.2), (2.3, 0.8), (3.0, 0.0))
"""Place (Å) and energy (eV) of minima and maxima: a lower and a higher barrier with a minimum between."""


class Line(Calculator):
    """A chain of given minima and maxima along x, repeated, and springs across it; may fail at its n-th call."""

    implemented_properties = ("energy", "forces")
    stiff = 4.0

    def __init__(self, points, fails_at=None):
        super().__init__()
        x, e = np.array(points).T
        x, e = np.concatenate([x - LENGTH, x, x + LENGTH]), np.tile(e, 3)
        own = np.unique(x, return_index=True)[1]
        self.curve = CubicHermiteSpline(x[own], e[own], 0 * e[own])
        self.fails_at, self.calls = fails_at, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("no self-consistency")
        x, y, z = self.atoms.positions[0]
        energy = float(self.curve(x)) + 0.5 * self.stiff * (y**2 + z**2)
        self.results = {"energy": energy, "forces": -np.array([[self.curve(x, 1), self.stiff * y, self.stiff * z]])}


def along_the_line(points, *, back=False, fails_at=None, kind=Search, calculator=Line, **settings):
    """Search for the jump over the line, or its reverse; return the search, its status and its reason."""
    begin, way = (LENGTH, -LENGTH) if back else (0.0, LENGTH)
    cell, place = np.diag([30.0, 30.0, 30.0]), np.array([[begin, 0.0, 0.0]])
    host = Host(np.array([29]), place, np.zeros(1, dtype=int), np.array([LENGTH]), cell, np.zeros(3, dtype=bool))
    chosen = SaddleSettings(**settings)
    state = relax_state(host, calculator(points), settings=chosen)
    make = partial(calculator, points)
    search_ = kind(host, calculator(points, fails_at), make, chosen, Budget(chosen.max_calls))
    try:
        return search_, *search_.jump(Hop(0, np.array([way, 0.0, 0.0])), state)
    except LimitReachedError as error:
        return search_, error.status, str(error)


class Careless(Search):
    """Takes the saddle it has where one climb behind a side basin fails."""

    def climbs(self, path, starts):
        whole = np.abs(path.end.positions - path.begin.positions).max() > 0.9 * LENGTH
        return super().climbs(path, starts if whole else starts[:1])

    def bands(self, path):
        return []

    def beyond(self, path, saddle, check):
        top, after = super().beyond(path, saddle, check)
        return saddle if after.unsettled else top, replace(after, unsettled="")


def test_jump_over_a_side_basin_and_its_reverse_see_the_same_barrier():
    def alike(kind, points=TWO, **settings):
        tops = []
        for back in (False, True):
            search_, status, _ = along_the_line(points, back=back, kind=kind, **settings)
            tops.append(search_.known["energy_saddle"] if status == "ok" else np.inf)
        assert tops[0] == pytest.approx(tops[1], abs=1e-4) and tops[0] == pytest.approx(points[3][1], abs=1e-4)

    for limit in (4, 5, 6, 40):  # a climb behind the side basin that does not converge has its own second chances
        alike(Search, max_climb_calls=limit)
    alike(Search, (*TWO[:3], (2.3, 0.5015), TWO[4]))  # by little, but higher
    with pytest.raises(AssertionError):
        alike(Careless, max_climb_calls=5)


class Blocked(Search):
    """Finds nothing behind a side basin."""

    def check_behind(self, path, rest, found, before):
        return "blocked"


class First(Blocked):
    """Keeps the saddle that it found first."""

    def beyond(self, path, saddle, check):
        top, after = super().beyond(path, saddle, check)
        return (self.open_ends[0][0] if after.unsettled else top), after


def test_highest_saddle_known_is_kept_where_the_way_behind_a_side_basin_is_not_found():
    low = (*TWO[:4], (3.0, -0.1))  # so that forward and reverse barrier differ

    def kept(kind, points=low):
        tops = []
        for back in (False, True):
            search_, status, reason = along_the_line(points, back=back, kind=kind)
            assert status == "ok" and search_.known["descents"] == "unsettled"
            assert "what lies behind it is not known" in reason and "blocked" in reason
            assert any("kept: the highest saddle known" in step for step in search_.path)
            tops.append(search_.known["energy_saddle"])
        assert tops[0] == pytest.approx(tops[1], abs=1e-4)
        assert tops[0] == pytest.approx(max(e for _, e in points), abs=1e-4)

    kept(Blocked)
    kept(Blocked, ((0.0, 0.0), (0.7, 0.8), (1.5, 0.2), (2.3, 0.5), (3.0, -0.1)))
    with pytest.raises(AssertionError):  # the twin that keeps a lower one
        kept(First)
    # settled jumps do not carry the mark, and who rejects side basins gets none of them
    assert along_the_line(low)[0].known["descents"] == "side-basin"
    assert along_the_line(low, kind=Blocked, side_basin="reject")[1] == "wrong-saddle"


def test_limit_behind_a_side_basin_does_not_lose_the_barrier():
    whole = along_the_line(TWO)[0].budget.calls
    found = [along_the_line(TWO, max_calls=n) for n in range(1, whole + 1)]
    status = [s for _, s, _ in found]
    first = status.index("ok")
    assert status == ["not-converged"] * first + ["ok"] * (whole - first) and first < whole - 1
    assert [s.known["descents"] for s, *_ in found[first:]] == ["unsettled"] * (whole - first - 1) + ["side-basin"]
    assert all(s.known["energy_saddle"] >= 0.5 - 1e-4 for s, *_ in found[first:])


class Ridge(Line):
    """A line whose middle is a ridge: the way across it is soft, and goes down on both sides."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x, y, _ = self.atoms.positions[0]
        share, slope = np.sin(np.pi * x / LENGTH) ** 2, np.pi / LENGTH * np.sin(2 * np.pi * x / LENGTH)
        depth = -2.1 * y**2 + 0.5 * y**4  # with the springs across the line: down by 0.005 eV to both sides
        self.results["energy"] += share * depth
        self.results["forces"] = self.results["forces"] - np.array(
            [[slope * depth, share * (-4.2 * y + 2.0 * y**3), 0.0]]
        )


def test_upper_bounds_are_kept_where_no_saddle_passes():
    one = ((0.0, 0.0), (1.5, 0.5), (3.0, -0.1))

    class Straight(Search):
        """Does not leave a ridge."""

        def off_ridge(self, path, found, aside, mode):
            return []

    class Elsewhere(Straight):
        """Sees every way down lead to another jump."""

        def check_side(self, path, way):
            return "a way down leads to another jump"

        def descents(self, *arguments, **options):
            return replace(super().descents(*arguments, **options), wrong="a way down leads to another jump")

    def kept(kind, calculator, **settings):
        for back in (False, True):
            search_, status, reason = along_the_line(one, back=back, kind=kind, calculator=calculator, **settings)
            assert status == "ok" and search_.known["descents"] == "unsettled" and "upper bound" in reason
            assert search_.known["energy_saddle"] == pytest.approx(0.5, abs=1e-3)

    settled, status, _ = along_the_line(one, calculator=Ridge)
    assert status == "ok" and settled.known["descents"] == "both-ends" and settled.known["energy_saddle"] < 0.499
    kept(Straight, Ridge)
    kept(Elsewhere, Line)  # the top of a band between the ends
    with pytest.raises(AssertionError):
        kept(Elsewhere, Line, band_images=0)
    with pytest.raises(AssertionError):  # a ridge from which the ways do not lead to the ends
        kept(Elsewhere, Ridge, band_images=0)


def test_end_above_the_saddles_found_is_the_highest_point_known():
    """A high end in a hollow so narrow that every climb misses the saddle before it."""
    high = ((0.0, 0.0), (1.5, 0.3), (2.2, 0.1), (2.9, 0.51), (3.0, 0.5))

    class Near(Search):
        """Finds nothing in the last tenth of the way."""

        def check_geometry(self, path, found, between):
            along = path.along(found.positions)
            return super().check_geometry(path, found, between) or ("" if 0.1 < along < 0.9 else "too near")

    def kept(kind):
        for back in (False, True):
            search_, status, reason = along_the_line(high, back=back, kind=kind)
            assert status == "ok" and search_.known["descents"] == "unsettled" and "higher end" in reason
            assert search_.known["energy_saddle"] == pytest.approx(0.5, abs=1e-3)

    class Below(Near):
        """Takes the saddle that lies below the end."""

        def check_saddle(self, path, found):
            return self.check_geometry(path, found, self.settings.between)

    kept(Near)
    with pytest.raises(AssertionError):
        kept(Below)


def test_several_minima_in_a_row_are_followed_to_the_highest_saddle():
    row = ((0.0, 0.0), (0.5, 0.4), (1.0, 0.2), (1.3, 0.5), (1.6, 0.2), (1.8, 0.9), (2.05, 0.3), (2.45, 0.6), (3.0, 0.0))

    class Short(Search):
        def chain(self, path, rest, known, check, where, depth):
            return [known[-1]], ""

    def highest(kind):
        for back in (False, True):
            search_, status, _ = along_the_line(row, back=back, kind=kind)
            assert status == "ok" and search_.known["descents"] == "side-basin", search_.path
            assert search_.known["energy_saddle"] == pytest.approx(0.9, abs=1e-3), search_.path

    highest(Search)
    with pytest.raises(AssertionError):  # the twin that trusts the first saddle behind a side basin
        highest(Short)


def test_shoulder_is_no_side_basin():
    """A way down that is left on a flat piece of the slope, because forces are small there."""
    slope = ((0.0, 0.0), (1.5, 0.5), (2.3, 0.8), (3.0, 0.0))
    loose = {"fmax_final": 0.2, "accuracy": 0.02}

    def one_barrier(kind):
        for back in (False, True):
            search_, status, _ = along_the_line(slope, back=back, kind=kind, **loose)
            assert any("it is a shoulder" in step for step in search_.path) or kind is not Search
            assert status == "ok" and search_.known["energy_saddle"] == pytest.approx(0.8, abs=1e-3)
            assert search_.known["descents"] == "both-ends"

    one_barrier(Search)

    class Trusting(Search):
        def is_shoulder(self, path, side, end, where):
            return False

    with pytest.raises(AssertionError):
        one_barrier(Trusting)


def test_one_failed_calculation_changes_no_barrier():
    plain = along_the_line(TWO)[0]
    known = []
    for call in range(1, plain.budget.calls + 1):
        search_, status, reason = along_the_line(TWO, fails_at=call)
        known.append(search_.known.get("energy_saddle"))
        assert status == "ok" and known[-1] == pytest.approx(0.8, abs=1e-4), (call, status, reason, search_.path)
        assert any("failed" in step for step in search_.path)  # so that the calculator is dropped

    twins = [along_the_line(TWO, fails_at=k, kind=Careless)[0] for k in range(1, plain.budget.calls + 1)]
    assert any(twin.known["energy_saddle"] < 0.6 for twin in twins)


def test_failing_check_is_no_wrong_saddle(pair):
    host, hop = pair[0]
    state, plain = search(host, hop)

    class Late(EMT):
        """Fails at one call, or from it on."""

        def __init__(self, first, last):
            super().__init__()
            self.bad, self.calls = (first, last), 0

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            self.calls += 1
            if self.bad[0] <= self.calls <= self.bad[1]:
                raise RuntimeError("no self-consistency")
            super().calculate(atoms, properties, system_changes)

    first = plain.force_calls - plain.verify_calls + 2
    once = find_saddle(host, hop, state, Late(first, first), make_calculator=EMT)
    assert once.status == "ok" and once.energy_saddle == pytest.approx(plain.energy_saddle, abs=1e-3)
    assert "the calculator failed in the check of the saddle" in once.path[1] and len(once.path) == 3
    alone = find_saddle(host, hop, state, Late(first, 10**9))  # nobody makes a fresh one
    assert alone.status == "calculator-failed" and "no self-consistency" in alone.reason


def test_sides_belong_to_the_ends_they_lie_at(monkeypatch):
    """A bent mode gives the ways down in the wrong order; what counts is where they lead."""
    plain = along_the_line(TWO)[0]

    def turned(evaluate, saddle, direction, *arguments, **options):
        return descend(evaluate, saddle, -direction, *arguments, **options)

    def right():
        search_, status, _ = along_the_line(TWO)
        assert status == "ok" and search_.known["energy_saddle"] == pytest.approx(0.8, abs=1e-4)
        assert search_.known["descents"] == "side-basin"
        for name in ("side_initial", "side_final"):
            assert search_.known[name] == pytest.approx(plain.known[name], abs=1e-4, nan_ok=True)

    monkeypatch.setattr(checks_module, "descend", turned)
    right()

    def kept(self, *arguments, **options):  # the twin that believes the signs
        check = real(self, *arguments, **options)
        return replace(check, sides=check.sides[::-1])

    real = Search.descents
    monkeypatch.setattr(Search, "descents", kept)
    with pytest.raises(AssertionError):
        right()
