"""c_v from formation energies and chemical potentials, against sums over all decorations of small cells."""

from __future__ import annotations

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from scipy.optimize import fsolve

import ase_kinoson as ak
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.errors import KinosonError, KinosonWarning, MappingError, ModelError, StructureError
from ase_kinoson.kinetics.perfect_crystal import PerfectChains, atoms_only, perfect_counts, random_perfect
from ase_kinoson.kinosons.vacancy_formation import VacancyFormation, vacancy_formation
from ase_kinoson.units import BOLTZMANN_EV_PER_K

# sixteen sites are few: species differ by order 1/N
pytestmark = pytest.mark.filterwarnings("ignore:atoms of .* times the vacancy fraction")

N = 4
PAIRS = np.array([[0.0, 0.02, -0.05], [0.02, -0.30, -0.38], [-0.05, -0.38, -0.34]])
"""Nearest-neighbour energies of vacancy, Cu and Ni, eV."""
NAMES = {
    (a, b): PAIRS[i, j] for i, a in enumerate(("X", "Cu", "Ni")) for j, b in enumerate(("X", "Cu", "Ni")) if i <= j
}


def square(composition: dict[str, float]) -> ak.Supercell:
    atoms = Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0))
    return ak.Alloy.from_atoms(atoms, {"Cu": composition}).supercell((N, N, 1))


# -- enumeration, which shares nothing with the package -----------------------------------------------------------


@pytest.fixture(scope="module")
def decorations() -> tuple[np.ndarray, ...]:
    """Energies and numbers of Cu of all decorations of the 4×4 square lattice, full and with site 0 empty."""
    sites = np.arange(N * N).reshape(N, N)
    bonds = np.concatenate([[sites.ravel(), np.roll(sites, -1, axis).ravel()] for axis in (0, 1)], axis=1)

    def all_of(free: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(list(itertools.product([1, 2], repeat=free)), dtype=np.int8)
        rows = np.pad(rows, ((0, 0), (N * N - free, 0)))
        return PAIRS[rows[:, bonds[0]], rows[:, bonds[1]]].sum(axis=1), (rows == 1).sum(axis=1)

    return *all_of(N * N), *all_of(N * N - 1)


def fixed_composition(decorations: tuple[np.ndarray, ...], copper: int, t: float) -> tuple[float, dict[str, float]]:
    """c_v = Z(one atom of a less, a vacancy)/(N Z) exp(−μ_a/kT) for each a, and their average."""
    beta = 1 / (BOLTZMANN_EV_PER_K * t)
    e0, cu0, e1, cu1 = decorations
    x = copper / N**2

    def z(e: np.ndarray, cu: np.ndarray, number: int) -> float:
        return float(np.exp(-beta * e[cu == number]).sum())

    ways = [np.sum(cu0 == k) for k in range(N * N + 1)]
    free = -np.log(z(e0, cu0, copper)) / beta / N**2
    # per atom, Stirling: ln of the number of decorations is N times the entropy of mixing in an infinite crystal only
    mixing = x * np.log(x) + (1 - x) * np.log(1 - x)
    free += (np.log(ways[copper]) / N**2 + mixing) / beta
    up, down = (z(e0, cu0, copper + d) / ways[copper + d] for d in (1, -1))
    gap = -0.5 / beta * np.log(up / down) + np.log(x / (1 - x)) / beta
    mu = {"Cu": free + (1 - x) * gap, "Ni": free - x * gap}
    by = {s: z(e1, cu1, copper - (s == "Cu")) / z(e0, cu0, copper) * np.exp(-beta * mu[s]) for s in mu}
    return x * by["Cu"] + (1 - x) * by["Ni"], by


def fixed_potentials(decorations: tuple[np.ndarray, ...], x: float, t: float) -> float:
    """c_v of a crystal that exchanges atoms with a reservoir and chooses its number of sites: grand potential zero."""
    beta = 1 / (BOLTZMANN_EV_PER_K * t)
    e0, cu0, e1, cu1 = decorations

    def conditions(mu: np.ndarray) -> list[float]:
        log = -beta * e0 + beta * (mu[0] * cu0 + mu[1] * (N * N - cu0))
        z = np.exp(log - log.max())
        return [(log.max() + np.log(z.sum())) / N**2, float((z * cu0).sum() / z.sum() / N**2 - x)]

    begin = e0.mean() / N**2 + np.log([x, 1 - x]) / beta
    mu = fsolve(conditions, begin, xtol=1e-12)
    assert np.abs(conditions(mu)).max() < 1e-9
    return float(np.exp(-beta * e1 + beta * (mu[0] * cu1 + mu[1] * (N * N - 1 - cu1))).sum())


@pytest.fixture(scope="module")
def alloy() -> tuple[ak.Supercell, ak.PairEnergy]:
    cell = square({"Cu": 0.25, "Ni": 0.75})
    return cell, ak.PairEnergy.from_interactions(cell, NAMES)


@pytest.fixture(scope="module")
def equilibrium(alloy: tuple[ak.Supercell, ak.PairEnergy]) -> VacancyFormation:
    cell, energy = alloy
    temperatures = [900.0, 1800.0]
    return vacancy_formation(
        cell,
        energy,
        ensemble="equilibrium",
        temperatures_K=temperatures,
        arrangements=400,
        sites=None,
        swaps=16,
        seed=1,
    )


def agree(estimate: ak.Quantity, exact: float) -> bool:
    """Within three standard errors and five percent."""
    return abs(float(estimate) - exact) < min(3 * float(estimate.error), 0.05 * exact)


@pytest.mark.parametrize("t", [900.0, 1800.0])
def test_equilibrium_agrees_with_enumeration(
    decorations: tuple[np.ndarray, ...], equilibrium: VacancyFormation, t: float
) -> None:
    exact, by = fixed_composition(decorations, 4, t)
    estimate = equilibrium.at(t)
    assert agree(estimate, exact)
    for s, q in equilibrium.by_species(t).items():
        assert abs(float(q) - by[s]) < 4 * float(q.error) < 0.2 * by[s]
    # broken twins: the full chemical potentials count every state as often as there are species ...
    assert not agree(replace(estimate, value=2 * float(estimate)), exact)
    # ... and these two take the energy for the free energy, or the identity changes the wrong way round
    (sample,) = (s for s in equilibrium.samples if s.temperature_K == t)
    flat = replace(sample, free_energies=sample.energies / N**2)
    changes = sample.changes
    flipped = replace(changes, energy=np.where(changes.new > 0, -changes.energy, changes.energy))
    for wrong in (flat, replace(sample, changes=flipped)):
        broken = replace(equilibrium, samples=(wrong,))
        by_species = broken.by_species(t)
        assert not (agree(broken.at(t), exact) and all(abs(float(by_species[s]) - by[s]) < 0.1 * by[s] for s in by))


def test_equilibrium_agrees_with_a_crystal_in_contact_with_reservoirs(
    decorations: tuple[np.ndarray, ...], equilibrium: VacancyFormation
) -> None:
    """No combinatorial factor enters there; composition fluctuates, which differs by order 1/N."""
    exact = fixed_potentials(decorations, 0.25, 1800.0)
    assert float(equilibrium.at(1800.0)) == pytest.approx(exact, rel=0.05, abs=0)
    assert 2 * float(equilibrium.at(1800.0)) != pytest.approx(exact, rel=0.05, abs=0)


def test_random_alloy_agrees_with_enumeration(
    decorations: tuple[np.ndarray, ...], alloy: tuple[ak.Supercell, ak.PairEnergy]
) -> None:
    cell, energy = alloy
    made = vacancy_formation(cell, energy, arrangements=600, sites=None, swaps=16, seed=2)
    e0, cu0, _, _ = decorations
    u = {k: float(e0[cu0 == k].mean()) for k in (3, 4, 5)}
    gap = 0.5 * (u[5] - u[3])
    mu = {1: u[4] / 16 + 0.75 * gap, 2: u[4] / 16 - 0.25 * gap}
    rows = np.array([r for r in itertools.product([1, 2], repeat=16) if r.count(1) == 4])
    ring = [(0, 1), (0, 3), (0, 4), (0, 12)]  # neighbours of site 0
    out = sum(PAIRS[0, rows[:, j]] - PAIRS[rows[:, 0], rows[:, j]] for _, j in ring)
    g = out + np.array([mu[c] for c in rows[:, 0]])
    for t in (600.0, 1200.0):
        exact = float(np.exp(-g / (BOLTZMANN_EV_PER_K * t)).mean())
        assert agree(made.at(t), exact)
        table = made.formation_energies(t)
        for s, code in (("Cu", 1), ("Ni", 2)):
            own = g[rows[:, 0] == code]
            assert abs(float(table[s]["mean"]) - own.mean()) < 4 * float(table[s]["mean"].error) < 0.05
            assert table[s]["std"] == pytest.approx(own.std(), rel=0.05)
            found = made.chemical_potentials(t)[s]
            assert abs(float(found) - mu[code]) < 4 * float(found.error) < 0.05
            # frozen at random, the atoms know no temperature
            assert float(found) == pytest.approx(float(made.chemical_potentials(900.0)[s]), rel=1e-12)
            share = float(np.exp(-own / (BOLTZMANN_EV_PER_K * t)).mean()) / exact
            found = made.site_preference(t)[s]
            assert abs(float(found) - share) < 4 * float(found.error) < 0.3 * share
    mean = -BOLTZMANN_EV_PER_K * 600.0 * np.log(float(made.at(600.0)))
    assert mean < g.mean() - 0.01  # cheap sites carry the average: the mean energy alone is wrong


def test_alloy_of_equal_atoms_is_a_pure_crystal() -> None:
    """Three names for one atom: c_v = exp(−u/kT) whatever the composition, in both ensembles."""
    cell = square({"Cu": 0.25, "Ni": 0.5, "Pd": 0.25})
    energy = ak.PairEnergy.from_interactions(
        cell, {(a, b): -0.4 for a, b in itertools.combinations_with_replacement(("Cu", "Ni", "Pd"), 2)}
    )
    exact = np.exp(-0.8 / (BOLTZMANN_EV_PER_K * 1000.0))  # four bonds cut, two made
    given: list[dict[str, Any]] = [{}, {"ensemble": "equilibrium", "temperatures_K": [1000.0]}]
    for settings in given:
        made = vacancy_formation(cell, energy, arrangements=6, sites=8, swaps=12, seed=0, **settings)
        assert float(made.at(1000.0)) == pytest.approx(exact, rel=1e-9, abs=0)
        assert all(float(q) == pytest.approx(1.0, rel=1e-9) for q in made.site_preference(1000.0).values())
        # species weigh by composition, however many of their sites were drawn
        drawn = {s: row["n"] for s, row in made.formation_energies(1000.0).items()}
        alike = 1 / sum(x**2 / drawn[s] for s, x in made.composition.items())
        assert made.effective_number(1000.0) == pytest.approx(alike, rel=1e-9) and alike < sum(drawn.values()) - 0.1


def test_free_energy_of_the_chains_is_that_of_enumeration(
    decorations: tuple[np.ndarray, ...], alloy: tuple[ak.Supercell, ak.PairEnergy]
) -> None:
    cell, energy = alloy
    chains = PerfectChains(cell, energy, n_chains=200, seed=5)
    chains.cool(700.0)
    e0, cu0, _, _ = decorations
    beta = 1 / (BOLTZMANN_EV_PER_K * 700.0)
    exact = -np.log(np.exp(-beta * e0[cu0 == 4]).mean())
    error = chains.integral.std(ddof=1) / np.sqrt(200)
    assert abs(chains.integral.mean() - exact) < 4 * error < 0.2
    assert abs(beta * e0[cu0 == 4].mean() - exact) > 6 * error
    boltzmann = np.exp(-beta * e0[cu0 == 4])
    assert chains.energies.mean() == pytest.approx(
        (boltzmann @ e0[cu0 == 4]) / boltzmann.sum(), abs=4 * chains.energies.std() / np.sqrt(200)
    )
    assert np.allclose(chains.energies, energy.energies(chains.occupations))
    assert np.all((chains.occupations == 1).sum(axis=1) == 4)
    # two long steps: the slope of the energy at their ends is counted in
    few = PerfectChains(cell, energy, n_chains=400, seed=5)
    few.cool(400.0, max_step=4.0, sweeps=20)
    exact = -np.log(np.exp(-e0[cu0 == 4] / (BOLTZMANN_EV_PER_K * 400.0)).mean())
    assert abs(few.integral.mean() - exact) < 4 * few.integral.std(ddof=1) / np.sqrt(400) < 0.15


def test_entropy_and_table(equilibrium: VacancyFormation) -> None:
    warm = replace(equilibrium, entropy_kB=1.5, entropy_error=0.3)
    for t in (900.0, 1800.0):
        q, plain = warm.at(t), equilibrium.at(t)
        assert float(q) == pytest.approx(np.exp(1.5) * float(plain), rel=1e-12, abs=0)
        assert float(q.error) / float(q) == pytest.approx(np.hypot(float(plain.error) / float(plain), 0.3), rel=1e-9)
        effective, kT = warm.effective_energy(t), BOLTZMANN_EV_PER_K * t
        assert np.exp(-float(effective) / kT) == pytest.approx(float(q), rel=1e-12, abs=0)
        assert float(effective.error) == pytest.approx(kT * float(q.error) / float(q), rel=1e-12, abs=0)
    curve = warm.vacancy_fraction()
    assert float(curve.at(900.0)) == pytest.approx(float(warm.at(900.0)), rel=1e-9, abs=0)
    assert float(warm.at(900.0)) < float(curve.at(1200.0)) < float(warm.at(1800.0))
    with pytest.raises(KinosonError, match="expected one of"):
        warm.at(1200.0)
    found = warm.as_dict()
    assert [row["temperature_K"] for row in found["temperatures"]] == [900.0, 1800.0]
    assert any("given" in a for a in found["approximations"])
    assert "dilute" in str(warm)


def test_a_rare_species_is_taken_out_too() -> None:
    """One copper atom among sixteen: each arrangement tells what it costs to take it out."""
    cell = square({"Cu": 1 / 16, "Ni": 15 / 16})
    energy = ak.PairEnergy.from_interactions(cell, NAMES)
    made = vacancy_formation(cell, energy, arrangements=12, sites=2, swaps=8, seed=1)
    assert {s: row["n"] for s, row in made.formation_energies(1800.0).items()} == {"Cu": 12, "Ni": 12}
    whole = vacancy_formation(cell, energy, arrangements=12, sites=None, swaps=8, seed=1)
    assert abs(float(made.at(1800.0)) - float(whole.at(1800.0))) < 4 * float(made.at(1800.0).error)
    # broken twin: sites without regard to species, which miss it in a few arrangements
    with pytest.raises(KinosonError, match="an atom of Cu is taken out"):
        vacancy_formation(cell, energy, arrangements=3, sites=1, swaps=8, seed=2).at(1800.0)


def test_an_ordered_alloy_is_warned_of() -> None:
    """Each of few antisites decides on the chemical potentials, or none was met: all sites agree, and are wrong."""
    cell = square({"Cu": 0.5, "Ni": 0.5})
    energy = ak.PairEnergy.from_interactions(cell, NAMES)
    made = vacancy_formation(
        cell, energy, ensemble="equilibrium", temperatures_K=[300.0, 450.0, 2000.0], arrangements=60, swaps=16, seed=0
    )
    with pytest.warns(KinosonWarning, match="Cu tell .* times the vacancy fraction that those of Ni"):
        made.at(300.0)
    assert made.effective_number(300.0) > 100  # what the sites say shows nothing
    with pytest.warns(KinosonWarning, match="changes of species carry the chemical potentials at 450 K"):
        made.at(450.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.at(2000.0)


def test_few_sites_are_warned_of(alloy: tuple[ak.Supercell, ak.PairEnergy]) -> None:
    made = vacancy_formation(*alloy, arrangements=8, sites=1, swaps=4, seed=0)
    with pytest.warns(KinosonWarning, match="sites carry the vacancy fraction"):
        made.at(300.0)
    assert made.effective_number(300.0) <= 8
    many = vacancy_formation(*alloy, arrangements=8, sites=16, swaps=4, seed=0)
    many.at(900.0)  # warnings are errors here
    assert 10 < many.effective_number(900.0) <= 8 * 16


# -- with a calculator --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copper() -> ak.Supercell:
    return ak.Alloy.from_atoms(bulk("Cu", a=3.59, cubic=True)).supercell((2, 2, 2))


def test_formation_energy_is_that_of_two_relaxations(copper: ak.Supercell) -> None:
    made = vacancy_formation(copper, EMT)
    full = bulk("Cu", a=3.59, cubic=True).repeat(2)
    full.calc = EMT()
    hole = full.copy()
    del hole[5]
    hole.calc = EMT()
    BFGS(hole, logfile=None).run(fmax=0.002)
    exact = hole.get_potential_energy() - full.get_potential_energy() * 31 / 32
    found = made.effective_energy(1000.0)
    assert float(found) == pytest.approx(exact, abs=5e-4) and float(found.error) == 0.0
    assert abs(hole.get_potential_energy() - full.get_potential_energy() - exact) > 10 * 5e-4  # without μ
    assert abs(made.pressure_energy) < 1e-2


def test_pure_copper_end_to_end() -> None:
    """D* = f a² ν exp(−E_m/kT) c_v to 1 %, through the public face."""
    t, nu, a = 1000.0, 5e12, 3.59
    alloy = ak.Alloy.from_atoms(bulk("Cu", a=a, cubic=True))
    cells = [alloy.supercell((n, n, n)) for n in (2, 3)]
    jumps = [ak.JumpNetwork.from_supercell(c) for c in cells]
    vacancies = vacancy_formation(cells[0], EMT).vacancy_fraction()
    states = ak.sample_states(cells[0], 1)
    barriers = ak.compute_barriers(states, jumps[0], EMT, jumps={0: [0]})
    model = ak.SiteBarriers([0.0], [barriers.barrier[0, 0]])
    periodic = [
        ak.exact_transport(c, j, model, t, vacancy_fraction=vacancies, attempt_frequency=nu)
        for c, j in zip(cells, jumps, strict=True)
    ]
    infinite = ak.extrapolate([ak.finite_size_corrected(p) for p in periodic])
    kT = BOLTZMANN_EV_PER_K * t
    formula = (a * 1e-10) ** 2 * nu * np.exp(-barriers.barrier[0, 0] / kT) * float(vacancies.at(t))
    assert float(infinite.tracer_diffusivity["Cu"]) == pytest.approx(0.78145142 * formula, rel=0.01, abs=0)
    assert float(periodic[0].tracer_diffusivity["Cu"]) > 1.02 * 0.78145142 * formula  # the cell as it is
    assert 0.6 < barriers.barrier[0, 0] < 0.9 and 1e-7 < float(vacancies.at(t)) < 1e-5


class Failing(EMT):
    """Counts its calls, and fails after some."""

    calls = 0
    limit = 10**9

    def calculate(self, *arguments: Any, **options: Any) -> None:
        type(self).calls += 1
        if type(self).calls > type(self).limit:
            raise KeyboardInterrupt
        super().calculate(*arguments, **options)


def test_nothing_that_was_computed_is_lost_or_computed_again(tmp_path: Path) -> None:
    cell = ak.Alloy.from_atoms(bulk("Cu", a=3.57, cubic=True), {"Cu": {"Cu": 0.75, "Ni": 0.25}}).supercell((2, 2, 2))
    settings: dict[str, Any] = {"arrangements": 2, "sites": 2, "swaps": 2, "seed": 3}
    whole = vacancy_formation(cell, EMT, **settings)
    Failing.calls, Failing.limit = 0, 25
    with pytest.raises(KeyboardInterrupt):
        vacancy_formation(cell, Failing, store=tmp_path / "v.db", **settings)
    Failing.calls, Failing.limit = 0, 10**9
    resumed = vacancy_formation(cell, Failing, store=tmp_path / "v.db", **settings)
    rest = Failing.calls
    assert 0 < rest < resumed.samples[0].report["force_calls"] + len(resumed.samples[0].pressure)
    again = vacancy_formation(cell, Failing, store=tmp_path / "v.db", **settings)
    assert Failing.calls - rest == len(again.samples[0].pressure)  # stresses are not kept
    with ThreadPoolExecutor(2) as pool:
        threads = vacancy_formation(cell, EMT, executor=pool, **settings)
    with pytest.warns(KinosonWarning, match="sites carry"):
        value = float(whole.at(1000.0))
    for other in (resumed, again, threads):
        assert np.allclose(other.samples[0].changes.energy, whole.samples[0].changes.energy, rtol=0, atol=1e-9)
        with pytest.warns(KinosonWarning, match="sites carry"):
            assert float(other.at(1000.0)) == pytest.approx(value, rel=1e-6, abs=0)


def test_model_that_draws_arrangements_changes_nothing_when_it_is_exact(
    alloy: tuple[ak.Supercell, ak.PairEnergy],
) -> None:
    cell, energy = alloy
    shifted = replace(energy, constant=3.0)
    given: dict[str, Any] = {"ensemble": "equilibrium", "temperatures_K": [900.0], "arrangements": 20, "sites": 4}
    alone = vacancy_formation(cell, energy, **given)
    drawn = vacancy_formation(cell, energy, model=shifted, **given)
    assert float(drawn.at(900.0)) == pytest.approx(float(alone.at(900.0)), rel=1e-9, abs=0)
    assert any("corrected by the mean difference" in a for a in drawn.approximations)


def test_energy_of_a_model_of_states_with_a_vacancy(alloy: tuple[ak.Supercell, ak.PairEnergy]) -> None:
    """What it adds around its vacancy is no part of a crystal without one."""
    cell, energy = alloy
    jumps = ak.JumpNetwork.from_supercell(cell)
    around = PairClusters.build(cell, cutoff=1.1, network=jumps, triplet_cutoff=1.1)
    extra = np.random.default_rng(0).normal(size=around.n_features - around.carrier_offset)
    model = replace(energy, clusters=around, coefficients=np.concatenate([energy.coefficients, extra]))
    full = random_perfect(cell, 5, np.random.default_rng(1))
    assert np.allclose(atoms_only(model, cell).energies(full), energy.energies(full), rtol=0, atol=1e-12)
    assert np.abs(model.energies(full) - energy.energies(full)).max() > 0.1
    with pytest.raises(ModelError, match="which cannot know what a vacancy costs"):
        vacancy_formation(cell, model)


# -- bad input ----------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(alloy: tuple[ak.Supercell, ak.PairEnergy]) -> None:
    cell, energy = alloy
    for settings, said in (
        ({"ensemble": "hot"}, "'random' or 'equilibrium'"),
        ({"arrangements": 1}, "arrangements=1"),
        ({"ensemble": "equilibrium"}, "without temperatures_K"),
        ({"temperatures_K": [900.0]}, "random ensemble"),
    ):
        with pytest.raises(KinosonError, match=said):
            vacancy_formation(cell, energy, **settings)  # type: ignore[arg-type]
    with pytest.raises(KinosonError, match="without a model"):
        vacancy_formation(cell, EMT, ensemble="equilibrium", temperatures_K=[900.0])
    with pytest.raises(ModelError, match="which cannot know what a vacancy costs"):
        vacancy_formation(cell, replace(energy, report={"n_states": 10}))
    with pytest.raises(StructureError, match="at least one of each species"):
        vacancy_formation(square({"Cu": 0.99, "Ni": 0.01}), energy)
    two = ak.Alloy.from_atoms(bulk("NaCl", "rocksalt", a=5.6), {"Na": {"Cu": 0.5, "Ni": 0.5}, "Cl": {"Ag": 1.0}})
    with pytest.raises(StructureError, match="found 2 sublattices"):
        vacancy_formation(two.supercell((2, 2, 2)), EMT)
    carbon = ak.Alloy.from_atoms(bulk("Fe", cubic=True)).with_interstitials("C", [[0.5, 0.5, 0.0]])
    with pytest.raises(StructureError, match="interstitial"):
        vacancy_formation(carbon.supercell((2, 2, 2)), EMT)


def test_a_crystal_without_a_vacancy_is_no_state(alloy: tuple[ak.Supercell, ak.PairEnergy]) -> None:
    cell, _ = alloy
    full = random_perfect(cell, 3, np.random.default_rng(0))
    assert perfect_counts(cell) == {"Cu": 4, "Ni": 12} and np.all((full == 1).sum(axis=1) == 4)
    with pytest.raises(MappingError, match="found 0 vacancies"):
        ak.States.from_occupations(cell, full)
