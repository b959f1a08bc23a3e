"""What happens around a force call: nothing that changes its answer, and nothing that is done twice."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.neighborlist import primitive_neighbor_list

from ase_kinoson.barriers import preconditioner as module
from ase_kinoson.barriers.climb import _HessianModel
from ase_kinoson.barriers.optimise import CalculatorFailedError, CountedForces
from ase_kinoson.barriers.preconditioner import SpringPreconditioner


class Watched(EMT):
    """EMT that notes what ASE tells it."""

    def __init__(self):
        super().__init__()
        self.told, self.compared = [], 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        self.told.append(sorted(system_changes))
        super().calculate(atoms, properties, system_changes)


class Comparing(Watched):
    """Looks at the atoms in its own way, as some calculators do."""

    def check_state(self, atoms, tol=1e-15):
        self.compared += 1
        return super().check_state(atoms, tol)


class Stale(CountedForces):
    """The broken twin: takes what is there for the answer."""

    def _evaluate(self, positions):
        first = not self.atoms.calc.results
        energy, forces = super()._evaluate(positions if first else self.atoms.positions)
        return energy, forces


def copper(n=2, seed=0):
    atoms = bulk("Cu", cubic=True) * (n, n, n)
    del atoms[0]
    atoms.rattle(0.05, seed=seed)
    return atoms


def asked_as_ase_does(atoms, points):
    plain, answers = atoms.copy(), []
    for x in points:
        plain.calc = EMT()
        plain.positions = x
        answers.append((plain.get_potential_energy(), plain.get_forces()))
    return answers


@pytest.mark.parametrize("kind", [Watched, Comparing])
def test_each_force_call_is_one_calculation_with_the_answer_of_ase(kind):
    atoms = copper()
    rng = np.random.default_rng(0)
    points = [atoms.positions + 0.02 * rng.normal(size=(len(atoms), 3)) for _ in range(4)]
    calculator = kind()
    forces = CountedForces(atoms, calculator)
    found = [forces(x) for x in points]
    for (energy, force), (expected, ideal) in zip(found, asked_as_ase_does(atoms, points), strict=True):
        assert energy == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(force, ideal, atol=1e-12)
    assert len(calculator.told) == forces.calls == 4
    assert calculator.told[1:] == [["positions"]] * 3
    assert (calculator.compared > 0) == (kind is Comparing)
    # the answer of a point is not that of the one before
    stale = Stale(atoms, EMT())
    wrong = [stale(x)[0] for x in points]
    assert abs(wrong[-1] - found[-1][0]) > 1e-3


def test_a_calculator_used_elsewhere_in_between_is_asked_anew():
    atoms, calculator = copper(), EMT()
    forces = CountedForces(atoms, calculator)
    before = forces(atoms.positions)
    forces(atoms.positions + 0.01)
    other = copper(seed=5) * (1, 1, 2)
    other.calc = calculator
    other.get_forces()
    energy, force = forces(atoms.positions)
    assert energy == pytest.approx(before[0], rel=1e-12)
    np.testing.assert_allclose(force, before[1], atol=1e-12)
    calculator.parameters.asap_cutoff = True  # another potential: what was kept no longer holds
    calculator.reset()
    assert abs(forces(atoms.positions)[0] - energy) > 1e-6


def test_constraints_and_failures_are_those_of_ase():
    atoms = copper()
    atoms.set_constraint(FixAtoms([3]))
    forces = CountedForces(atoms, EMT())
    forces(atoms.positions)
    assert not forces(atoms.positions + 0.01 * np.arange(len(atoms))[:, None])[1][3].any()
    free = CountedForces(copper(), LennardJones(sigma=2.3, rc=5.0))
    free(atoms.positions)
    with pytest.raises(CalculatorFailedError):
        free(np.full((len(atoms), 3), np.nan))
    assert np.isfinite(free(atoms.positions)[0])


@pytest.mark.parametrize("name, n", [("fcc", 3), ("bcc", 3), ("hcp", 4)])
def test_all_pairs_are_those_of_a_neighbour_list(name, n):
    atoms = bulk("Cu", name, a=3.6 if name != "hcp" else 2.6, **({} if name == "hcp" else {"cubic": True})) * (n, n, n)
    del atoms[1]
    points, cell = atoms.positions, np.array(atoms.cell)
    pbc = np.array([True, True, False])
    reach = 3.0
    expected = primitive_neighbor_list("ijdD", pbc, cell, points, reach)
    found = module._pairs(points, cell, pbc, reach)
    order = [np.lexsort((*np.round(x[3].T, 6), x[1], x[0])) for x in (expected, found)]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one[order[0]], other[order[1]], atol=1e-12)
    # in a cell of one atom all neighbours are images of it
    single = module._pairs(np.zeros((1, 3)), np.array(bulk("Cu").cell), np.ones(3, bool), 3.0)
    assert len(single[0]) == 12


@pytest.mark.parametrize("guests", [(), (5,)])
def test_the_kept_inverse_is_that_of_the_factors(guests, monkeypatch):
    atoms = copper(3, seed=2)
    vector = np.random.default_rng(1).normal(size=(len(atoms), 3))
    place = atoms.positions[7] + [0.4, 0.4, 0.1]

    def solutions():
        springs = SpringPreconditioner(atoms.positions, atoms.cell, atoms.pbc, guests=guests)
        moved = springs.moved(7, place)
        return (
            springs.solve(vector),
            moved.solve(vector),
            moved.multiply(vector),
            moved.n_bonds,
            moved.moved(9, atoms.positions[9] + 0.3),
        )

    kept = solutions()
    monkeypatch.setattr(module, "DENSE_ATOMS", 0)
    monkeypatch.setattr(module, "ALL_PAIRS", 0)
    factors = solutions()
    for one, other in zip(kept[:4], factors[:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(kept[4].solve(vector), factors[4].solve(vector), rtol=1e-9, atol=1e-11)
    assert np.abs(kept[0] - kept[1]).max() > 1e-4  # the atom that went elsewhere is felt
    springs = SpringPreconditioner(atoms.positions, atoms.cell, atoms.pbc, guests=guests)
    np.testing.assert_allclose(springs.multiply(springs.solve(vector)), vector, atol=1e-9)


def test_one_solution_per_gradient_gives_the_steps_of_two():
    atoms = copper(2, seed=3)
    rng = np.random.default_rng(0)
    springs = SpringPreconditioner(atoms.positions, atoms.cell, atoms.pbc)
    stiff = rng.normal(size=(3 * len(atoms), 3 * len(atoms)))
    stiff = springs._hessian.toarray() + 0.05 * (stiff + stiff.T)
    tangent = rng.normal(size=(len(atoms), 3))
    tangent /= np.linalg.norm(tangent)
    model, calls = _HessianModel(springs, tangent), []
    solve = springs.solve
    springs.solve = lambda vector: calls.append(1) or solve(vector)  # type: ignore[method-assign]
    x = 0.1 * rng.normal(size=(len(atoms), 3))
    gradient = (stiff @ x.ravel()).reshape(-1, 3)
    step, _ = model.step(gradient)
    for n in range(2, 5):
        x = x + 0.3 * step
        before, gradient = gradient, (stiff @ x.ravel()).reshape(-1, 3)
        model.learn(0.3 * step, gradient)
        # the model obeys the secant equation of what it has just learned, and stays symmetric
        moved, change = model._dual @ (0.3 * step).ravel(), model._basis @ (gradient - before).ravel()
        np.testing.assert_allclose(model._hessian @ moved, change, atol=1e-9 * np.abs(change).max())
        np.testing.assert_allclose(model._hessian, model._hessian.T, atol=1e-12)
        step, _ = model.step(gradient)
        assert len(calls) == n
        inside = model._basis @ gradient.ravel()
        outside = solve(gradient).ravel() - inside @ model._basis
        np.testing.assert_allclose(model._solved.ravel() - inside @ model._basis, outside, atol=1e-12)


class Stretching(Watched):
    """Changes the cell of the atoms that it is given, as one that runs a program with cells of its own might."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if len(self.told) == 2:
            atoms.set_cell(np.array(atoms.cell) * 1.01)


class Moving(Watched):
    """Moves the atoms that it is given: the energy is asked for where they are then."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if len(self.told) == 2:
            atoms.positions[0] += 0.1


class Wrapped(Watched):
    """Somebody has put a function of his own over a method of this one object."""

    def __init__(self):
        super().__init__()
        asked = self.get_property

        def get_property(name, atoms=None, allow_calculation=True):
            self.compared += 1
            return asked(name, atoms, allow_calculation)

        self.get_property = get_property


class Hasty(CountedForces):
    """The broken twin: believes that nothing but positions ever changes."""

    def _evaluate(self, positions):
        calc = self.atoms.calc
        if calc.atoms is None:
            return super()._evaluate(positions)
        self.atoms.positions = positions
        calc.results, calc.atoms = {}, self.atoms.copy()
        calc.calculate(self.atoms, ["forces"], ["positions"])
        return calc.results["energy"], calc.results["forces"]


@pytest.mark.parametrize("kind", [Watched, Comparing, Stretching, Moving, Wrapped])
def test_calculators_are_told_and_asked_what_ase_tells_and_asks(kind):
    atoms = copper()
    rng = np.random.default_rng(2)
    points = [atoms.positions + 0.02 * rng.normal(size=(len(atoms), 3)) for _ in range(4)]
    points.insert(2, points[1])  # the same twice is computed once

    def run(by):
        calculator = kind()
        forces = by(atoms, calculator)
        return calculator, [forces(x) for x in points]

    plain, own, seen = atoms.copy(), kind(), []
    plain.calc = own
    for x in points:
        plain.positions = x
        force = plain.get_forces()
        seen.append((plain.get_potential_energy(), force))
    calculator, found = run(CountedForces)
    assert calculator.told == own.told and calculator.compared == own.compared
    for (energy, force), (expected, ideal) in zip(found, seen, strict=True):
        assert energy == expected and np.array_equal(force, ideal)
    assert run(Hasty)[0].told != own.told
