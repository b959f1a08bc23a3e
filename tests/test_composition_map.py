"""Composition maps: limits that are exact, independence of order, resuming, and tables."""

from __future__ import annotations

import json
import os
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms

import ase_kinoson as ak
from ase_kinoson import composition_maps as module
from ase_kinoson.composition import composition_grid
from ase_kinoson.composition_maps import CompositionMap, MapPoint, MapSettings, composition_map
from ase_kinoson.units import thermal_energy

# short runs say that they are short; what they say is tested where it matters
pytestmark = pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")

SHORT = MapSettings(n_chains=64, sweeps=3, n_rounds=2, n_jumps=1280, n_walkers=128, n_resamples=100)
QUICK = MapSettings(n_chains=16, sweeps=2, n_rounds=2, n_jumps=128, n_walkers=16, n_resamples=40)


def square(composition: dict[str, float], size: int = 3) -> ak.JumpNetwork:
    """A square lattice with one vacancy."""
    atoms = Atoms("Cu", cell=[1.0, 1.0, 8.0], pbc=(True, True, False))
    alloy = ak.Alloy.from_atoms(atoms, {"Cu": composition})
    return ak.JumpNetwork.from_supercell(alloy.supercell((size, size, 1)))


@pytest.fixture(scope="module")
def jumps() -> ak.JumpNetwork:
    return square({"Ag": 0.5, "Cu": 0.5})


def near(q: ak.Quantity, value: float, sigmas: float = 4.0) -> bool:
    return abs(float(q.value) - value) <= sigmas * float(q.error) + 1e-9 * abs(value)


def rates_of(composition: dict[str, float], slow: float = 0.1) -> ak.SpeciesRates:
    """A source for every composition."""
    return ak.SpeciesRates({s: slow if s == "Ag" else 1.0 for s in composition})


@pytest.fixture(scope="module")
def line(jumps) -> CompositionMap:
    """Slow silver, fast copper, and both pure metals."""
    x = [{"Ag": 1.0}, {"Ag": 0.5, "Cu": 0.5}, {"Cu": 1.0}]
    return composition_map(jumps, rates_of, x, temperature_K=500.0, settings=SHORT, seed=2)


def test_the_ends_and_the_middle_are_exact(line):
    pure = ak.exact_transport(square({"Cu": 1.0}).supercell, square({"Cu": 1.0}), ak.SpeciesRates({"Cu": 1.0}))
    silver, mixed, copper = line.points
    for point, symbol, rate in ((silver, "Ag", 0.1), (copper, "Cu", 1.0)):
        exact = rate * pure.tracer_diffusivity["Cu"].value
        assert list(point.tracer_diffusivity) == [symbol]
        assert near(point.correlation_factor[symbol], pure.correlation_factor["Cu"].value)
        assert near(point.tracer_diffusivity[symbol], exact)
        assert not near(point.tracer_diffusivity[symbol], 1.2 * exact)
    middle = square({"Ag": 0.5, "Cu": 0.5})
    exact = ak.exact_transport(middle.supercell, middle, rates_of({"Ag": 0.5, "Cu": 0.5}))
    wrong = ak.exact_transport(middle.supercell, middle, rates_of({"Ag": 0.5, "Cu": 0.5}, slow=0.2))
    assert near(mixed.vacancy_diffusivity, exact.vacancy_diffusivity.value)
    assert not near(mixed.vacancy_diffusivity, wrong.vacancy_diffusivity.value)
    for s in ("Ag", "Cu"):
        assert near(mixed.tracer_diffusivity[s], exact.tracer_diffusivity[s].value)
        assert near(mixed.correlation_factor[s], exact.correlation_factor[s].value)
    assert not near(mixed.tracer_diffusivity["Ag"], wrong.tracer_diffusivity["Ag"].value)
    assert mixed.share["Cu"].value > 0.6
    assert mixed.share["Ag"].value + mixed.share["Cu"].value == pytest.approx(1)
    assert mixed.vacancy_diffusivity.kind == "kmc"  # a gas is no model of something else


def test_equal_rates_know_no_composition(jumps):
    x = [{"Ag": 0.25, "Cu": 0.75}, {"Ag": 0.75, "Cu": 0.25}]
    gas = ak.SpeciesRates({"Ag": 1.0, "Cu": 1.0})
    found = composition_map(jumps, gas, x, temperature_K=500.0, settings=SHORT, seed=5)
    for s in ("Ag", "Cu"):
        value, error = found.values(f"tracer {s}")
        assert abs(value[0] - value[1]) < 4 * np.hypot(*error)
    unequal = composition_map(jumps, rates_of, x, temperature_K=500.0, settings=SHORT, seed=5)
    value, error = unequal.values("tracer Cu")
    assert abs(value[0] - value[1]) > 4 * np.hypot(*error)


def test_bounds_and_the_ladder():
    jumps = square({"Ag": 0.5, "Cu": 0.5}, 4)  # so many states that those of the evaluation are fresh, for most seeds
    x = [{"Ag": 0.5, "Cu": 0.5}]
    plain = dict(n_chains=64, sweeps=3, n_rounds=4, n_jumps=0, n_resamples=100)
    bound = composition_map(jumps, rates_of, x, temperature_K=500.0, seed=1, settings=MapSettings(**plain)).points[0]
    climbed = composition_map(
        jumps, rates_of, x, temperature_K=500.0, seed=1, settings=MapSettings(**plain, n_steps=8, n_trajectories=256)
    ).points[0]
    long = MapSettings(n_chains=64, sweeps=3, n_jumps=1280, n_walkers=128)
    kmc = composition_map(jumps, rates_of, x, temperature_K=500.0, seed=1, settings=long).points[0].vacancy_diffusivity
    assert (bound.vacancy_diffusivity.kind, climbed.vacancy_diffusivity.kind) == ("bound", "corrected")
    for q, most in ((bound.vacancy_diffusivity, np.inf), (climbed.vacancy_diffusivity, 4.0)):
        z = (q.value - kmc.value) / np.hypot(q.error, kmc.error)
        assert -4 < z < most
    assert climbed.vacancy_diffusivity.value < bound.vacancy_diffusivity.value
    assert set(climbed.tail) == {"vacancy", "Ag", "Cu"} and not bound.tail


def test_the_mixture_of_the_pure_species(line):
    value, error = line.excess()
    log = np.log(line.values("vacancy")[0])
    assert value[[0, 2]] == pytest.approx([0, 0])
    assert value[1] == pytest.approx(log[1] - (log[0] + log[2]) / 2)
    assert error[1] > 0 and error[0] == 0
    with pytest.raises(ak.KinosonError, match="no point of pure Ag"):
        CompositionMap(line.species, line.points[1:]).excess()
    with pytest.raises(ak.KinosonError, match="pass both"):
        line.excess(homologous=0.6)
    with pytest.raises(ak.KinosonError, match="choose one"):
        line.values("tracer Au")


def test_numbers_depend_on_the_point_alone(jumps):
    x = [{"Ag": 0.25, "Cu": 0.75}, {"Ag": 0.5, "Cu": 0.5}, {"Cu": 1.0}]
    run = partial(composition_map, jumps, rates_of, temperature_K=500.0, settings=QUICK)
    one = run(x, seed=3)
    with ThreadPoolExecutor(2) as pool:
        other = run(x[::-1], seed=3, executor=pool)
    for p, q in zip(one.points, other.points[::-1], strict=True):
        assert timeless(p) == timeless(q)
    assert timeless(run(x[:1], seed=4).points[0]) != timeless(one.points[0])


def test_processes_give_the_same_numbers(jumps, pair_model, tmp_path):
    x = [{"Ag": 0.25, "Cu": 0.75}]
    run = partial(composition_map, jumps, pair_model, x, temperature_K=500.0, settings=QUICK, seed=3)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        far = run(executor=pool, folder=tmp_path)
    assert timeless(run().points[0]) == timeless(far.points[0])
    assert timeless(run(folder=tmp_path).points[0]) == timeless(far.points[0])


def test_two_workers_of_dask_give_the_same_bits(jumps, pair_model):
    distributed = pytest.importorskip("distributed")
    x = [{"Ag": 0.25, "Cu": 0.75}, {"Ag": 0.5, "Cu": 0.5}, {"Cu": 1.0}]
    run = partial(composition_map, jumps, pair_model, x, temperature_K=500.0, settings=QUICK, seed=3)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        far = run(executor=executor)
        assert executor.submit(int, 3).result() == 3  # the executor is the caller's
    near = run()
    assert [timeless(p) for p in far.points] == [timeless(p) for p in near.points]


def deadly(flag, composition: dict[str, float]) -> ak.SpeciesRates:
    """A source that kills its worker at one composition, the first time."""
    if composition["Ag"] == 0.5 and not flag.exists():
        flag.touch()
        os._exit(1)
    return rates_of(composition)


def test_a_worker_that_dies_loses_nothing(jumps, tmp_path):
    x = [{"Ag": 0.25, "Cu": 0.75}, {"Ag": 0.5, "Cu": 0.5}]
    run = partial(composition_map, jumps, temperature_K=500.0, settings=QUICK, seed=3)
    pool = partial(ProcessPoolExecutor, 1, mp_context=get_context("spawn"))
    found = run(partial(deadly, tmp_path / "died"), x, executor=pool)
    assert (tmp_path / "died").exists()
    assert [timeless(p) for p in found.points] == [timeless(p) for p in run(rates_of, x).points]


class Frail(Executor):
    """A pool that dies of some compositions, and takes with it what was sent after them."""

    made: ClassVar[list[Frail]] = []

    def __init__(self, deadly: dict[float, int]) -> None:
        self.deadly, self.dead, self.tried = deadly, False, []
        Frail.made.append(self)

    def submit(self, function, task):
        future = Future()
        x = dict(task.fractions)["Ag"]
        if not self.dead:
            self.tried.append(x)
            if self.deadly.get(x):
                self.deadly[x] -= 1
                self.dead = True
        if self.dead:
            future.set_exception(BrokenExecutor("died"))
        else:
            future.set_result(function(task))
        return future


def test_a_pool_is_made_anew_until_a_point_kills_it_alone(jumps, tmp_path):
    x = [{"Ag": a, "Cu": 1 - a} for a in (0.25, 0.5, 0.75)]
    run = partial(composition_map, jumps, rates_of, x, temperature_K=500.0, settings=QUICK, seed=3)
    whole = [timeless(p) for p in run().points]
    Frail.made.clear()
    assert [timeless(p) for p in run(executor=partial(Frail, {0.5: 1})).points] == whole
    assert [pool.tried for pool in Frail.made] == [[0.25, 0.5], [0.5, 0.75]]  # nothing is computed twice
    # a pool that is the caller's is not replaced; what was done is kept
    with pytest.raises(BrokenExecutor):
        run(executor=Frail({0.5: 1}), folder=tmp_path)
    assert len(list(tmp_path.glob("*500.0K.json"))) == 1
    with pytest.raises(ak.KinosonError, match=r"the point .*0.5.* kills its worker"):
        run(executor=partial(Frail, {0.5: 9}), folder=tmp_path)
    with pytest.raises(ak.KinosonError, match="found 4 as executor"):
        run(executor=4)


def timeless(point) -> dict:
    return {k: v for k, v in point.as_dict().items() if k != "seconds"}


def test_a_killed_run_goes_on(jumps, tmp_path, monkeypatch):
    x = [{"Ag": 0.25, "Cu": 0.75}, {"Ag": 0.5, "Cu": 0.5}, {"Cu": 1.0}]
    run = partial(composition_map, jumps, rates_of, x, temperature_K=500.0)
    whole = run(settings=QUICK)
    done = []

    def dies(task):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.fractions)
        return compute(task)

    compute = module.compute_point
    monkeypatch.setattr(module, "compute_point", dies)
    with pytest.raises(KeyboardInterrupt):
        run(settings=QUICK, folder=tmp_path)
    done.clear()
    again = run(settings=QUICK, folder=tmp_path)
    assert len(done) == 1  # the two that were there are not computed again
    assert [timeless(p) for p in again.points] == [timeless(p) for p in whole.points]
    with pytest.raises(ak.KinosonError, match="n_jumps is 128 there and 256 here"):
        run(settings=MapSettings(n_jumps=256, n_chains=16, sweeps=2, n_walkers=16, n_resamples=40), folder=tmp_path)
    with pytest.raises(ak.KinosonError, match="lattice constant"):
        run(settings=QUICK, folder=tmp_path, lattice_constant={"Ag": 1.1, "Cu": 1.0})
    next(tmp_path.glob("*500.0K.json")).write_text("{")
    with pytest.raises(ak.KinosonError, match="no readable JSON"):
        run(settings=QUICK, folder=tmp_path)


def test_a_folder_holds_points_of_one_source(jumps, tmp_path):
    x = [{"Ag": 0.25, "Cu": 0.75}]
    run = partial(composition_map, jumps, temperature_K=500.0, settings=QUICK, folder=tmp_path)
    one = run(partial(rates_of, slow=0.1), x)
    assert [timeless(p) for p in run(lambda x: rates_of(x), x).points] == [timeless(p) for p in one.points]
    for other in (partial(rates_of, slow=0.2), lambda x: rates_of(x, 0.101)):
        with pytest.raises(ak.KinosonError, match="source of other rates"):
            run(other, x)


def test_a_folder_knows_its_points_exactly(jumps, tmp_path):
    run = partial(composition_map, jumps, rates_of, settings=QUICK, folder=tmp_path)
    third = run([{"Ag": 1 / 3, "Cu": 2 / 3}], temperature_K=500.0)
    near_third = run([{"Ag": 0.333333, "Cu": 0.666667}], temperature_K=500.0)
    assert near_third.points[0].composition["Ag"] == 0.333333 != third.points[0].composition["Ag"]
    assert run([{"Ag": 1 / 3, "Cu": 2 / 3}], temperature_K=500.0001).temperatures_K == (500.0001,)
    # more species may come later, and change nothing
    more = run([{"Ag": 1 / 3, "Cu": 2 / 3}, {"Ag": 0.5, "Au": 0.5}], temperature_K=500.0)
    assert more.compositions()[0] == pytest.approx([1 / 3, 0, 2 / 3])
    fresh = composition_map(jumps, rates_of, [{"Ag": 1 / 3, "Cu": 2 / 3}, {"Au": 1.0}], temperature_K=500.0,
                            settings=QUICK)  # fmt: skip
    for p in (more.points[0], fresh.points[0]):
        assert p.vacancy_diffusivity == third.points[0].vacancy_diffusivity


def test_numbers_of_atoms_are_whole(jumps):
    run = partial(composition_map, jumps, rates_of, temperature_K=500.0, settings=QUICK)
    with pytest.raises(ak.KinosonError, match="no atom of Ag in a cell of 9 sites"):
        run([{"Ag": 0.01, "Cu": 0.99}])
    found = run([{"Ag": 0.3, "Cu": 0.7}, {"Ag": 0.25, "Cu": 0.75}])
    assert [p.rounding for p in found.points] == pytest.approx([5.0, 0.0])  # two of eight atoms
    p = found.points[0]
    total = 0.25 * p.tracer_diffusivity["Ag"].value + 0.75 * p.tracer_diffusivity["Cu"].value
    assert found.values("tracer")[0][0] == pytest.approx(total, rel=1e-12, abs=0)
    added = 0.25 * p.tracer_diffusivity["Ag"].error + 0.75 * p.tracer_diffusivity["Cu"].error
    assert found.values("tracer")[1][0] == pytest.approx(added, rel=1e-12, abs=0)  # one set of trajectories for both
    with pytest.raises(ak.KinosonError, match="found no temperature"):
        run([{"Cu": 1.0}], temperature_K=[])
    assert len(run([{"Cu": 1.0}], temperature_K=[500.0, 500.0]).points) == 1


def homologous_map() -> CompositionMap:
    """Arrhenius diffusion whose energies are 18 kTm of the pure metals, and 20 kTm of the alloy."""
    melting = {"Ag": 1200.0, "Cu": 1400.0}
    points = []
    for x, units in (({"Ag": 1.0, "Cu": 0.0}, 18), ({"Ag": 0.5, "Cu": 0.5}, 20), ({"Ag": 0.0, "Cu": 1.0}, 18)):
        energy = units * thermal_energy(sum(f * melting[s] for s, f in x.items()))
        d = 1e-6 * np.exp(-energy / thermal_energy(900.0))
        tracer = {s: ak.Quantity(d, 0.0, "m^2/s", "kmc") for s, f in x.items() if f}
        own = {s: ak.Quantity(energy, 0.01 * f, "eV", "estimate") for s, f in (("vacancy", 1.0), *x.items())}
        points.append(MapPoint(x, x, 900.0, 4.0, ak.Quantity(d, 0.0, "m^2/s", "kmc"), tracer, {}, {}, own))
    return CompositionMap(("Ag", "Cu"), tuple(points))


@pytest.mark.parametrize("name", ["vacancy", "tracer"])
def test_the_mixture_at_one_fraction_of_the_melting_points(name):
    found, melting = homologous_map(), {"Ag": 1200.0, "Cu": 1400.0}
    value, error = found.excess(name, melting_K=melting, homologous=0.5)
    assert value == pytest.approx([0.0, -(20 - 18) / 0.5, 0.0], rel=1e-9)
    # the errors of the energies carry the way from 900 K to half the melting point
    step = [abs(1 / thermal_energy(0.5 * t) - 1 / thermal_energy(900.0)) for t in (1300, 1200, 1400)]
    own = [0.01, 0.01, 0.01] if name == "vacancy" else [0.005, 0.01, 0.01]
    expected = np.linalg.norm([own[0] * step[0], 0.5 * own[1] * step[1], 0.5 * own[2] * step[2]])
    assert error[1] == pytest.approx(expected, rel=1e-6)
    isothermal = found.excess(name)[0][1]
    assert isothermal == pytest.approx(-(20 - 18) * 1300 / 900)  # another number than at one fraction of Tm


def test_another_temperature_needs_activation_energies(line):
    with pytest.raises(ak.KinosonError, match="no activation energies"):
        line.excess(melting_K={"Ag": 1200.0, "Cu": 1400.0}, homologous=0.5)


def test_lengths_scale_diffusivities(jumps):
    x = [{"Ag": 0.5, "Cu": 0.5}]
    one = composition_map(jumps, rates_of, x, temperature_K=500.0, settings=QUICK).points[0]
    wide = composition_map(
        jumps, rates_of, x, temperature_K=500.0, settings=QUICK, lattice_constant={"Ag": 1.3, "Cu": 1.1}
    ).points[0]
    assert wide.lattice_constant == pytest.approx(1.2)
    for p, q in ((one.vacancy_diffusivity, wide.vacancy_diffusivity),
                 (one.tracer_diffusivity["Ag"], wide.tracer_diffusivity["Ag"])):  # fmt: skip
        assert q.value == pytest.approx(1.44 * p.value, rel=1e-12, abs=0)
        assert q.error == pytest.approx(1.44 * p.error, rel=1e-12, abs=0)
    assert one.correlation_factor["Cu"].value == wide.correlation_factor["Cu"].value


def test_activation_energies_of_pure_metals(jumps, pair_model):
    found = composition_map(
        jumps, pair_model, [{"Cu": 1.0}, {"Ag": 0.5, "Cu": 0.5}], temperature_K=[600.0, 700.0], settings=QUICK
    )
    assert found.temperatures_K == (600.0, 700.0)
    pure = found.at(600.0)[0]
    assert pure.activation_energy["vacancy"].value == pytest.approx(0.5, abs=1e-6)  # K of copper
    assert pure.activation_energy["Cu"].value == pytest.approx(0.5, abs=1e-6)
    assert found.at(600.0)[1].activation_energy["Ag"].value > 0.52
    with pytest.raises(ak.KinosonError, match="expected one of"):
        found.values("vacancy")


def test_tables(line, tmp_path):
    frame = pytest.importorskip("pandas") and line.to_dataframe()
    assert len(frame) == 3
    assert frame["D*(Cu) [m^2/s per c_v]"][1] == line.points[1].tracer_diffusivity["Cu"].value
    assert np.isnan(frame["f(Cu)"][0])  # no copper there
    line.write_csv(tmp_path / "map.csv")
    head = (tmp_path / "map.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "E_a(Ag) [eV]" in head and "T [K]" in head
    line.save(tmp_path / "map.json")
    assert CompositionMap.load(tmp_path / "map.json").as_dict() == json.loads(json.dumps(line.as_dict()))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ak.KinosonError, match="no composition map"):
        CompositionMap.load(tmp_path / "other.json")


def test_bad_input_is_one_sentence(jumps):
    with pytest.raises(ak.KinosonError, match="found no compositions"):
        composition_map(jumps, rates_of, [], temperature_K=500.0)
    with pytest.raises(ak.KinosonError, match="sum to 1"):
        composition_map(jumps, rates_of, [{"Ag": 0.5}], temperature_K=500.0)
    with pytest.raises(ak.KinosonError, match="temperature"):
        composition_map(jumps, rates_of, [{"Ag": 1.0}], temperature_K=-5.0)
    with pytest.raises(ak.KinosonError, match="n_chains=2"):
        MapSettings(n_chains=2)
    with pytest.raises(ak.KinosonError, match="positive length"):
        composition_map(jumps, rates_of, [{"Ag": 1.0}], temperature_K=500.0, lattice_constant=lambda x: np.nan)
    with pytest.raises(ak.KinosonError, match="in Å"):  # nanometres
        composition_map(jumps, rates_of, [{"Ag": 1.0}], temperature_K=500.0, lattice_constant={"Ag": 0.1})


def test_pictures(line):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from ase_kinoson.composition_plots import plot_binary_map, plot_ternary_map

    axes = plot_binary_map(line, "f")
    assert axes.get_xlabel() == "Cu (at.%)"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["Ag", "Cu"]
    drawn = axes.containers[1].lines[0]
    assert drawn.get_xdata() == pytest.approx([50, 100])  # no copper at 0
    assert plot_binary_map(line, "vacancy").get_yscale() == line.plot().get_yscale() == "log"
    with pytest.raises(ak.KinosonError, match="what='D'"):
        plot_binary_map(line, "D")
    pytest.importorskip("mpltern")
    with pytest.raises(ak.KinosonError, match="three species"):
        plot_ternary_map(line)
    plt.close("all")


def test_a_triangle():
    pytest.importorskip("mpltern")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from ase_kinoson.composition_plots import plot_ternary_map

    species = ("Ag", "Au", "Cu")
    points = [
        MapPoint(x, x, 900.0, 3.6, ak.Quantity(1e-10 * np.exp(-x["Au"]), 1e-12, "m^2/s", "kmc"), {}, {}, {}, {})
        for x in composition_grid(species, 0.25)
    ]
    found = CompositionMap(species, tuple(points))
    axes = plot_ternary_map(found, species=("Cu", "Ag", "Au"))
    assert axes.get_tlabel() == "Cu" and axes.get_rlabel() == "Au"
    dots = axes.collections[-1].get_offsets()
    assert len(dots) == 15
    assert found.excess()[0] == pytest.approx(np.zeros(15), abs=1e-12)  # ln D is linear here
    plot_ternary_map(found, smooth=False)
    assert found.plot("vacancy", species=("Cu", "Ag", "Au")).get_tlabel() == "Cu"
    flat = [replace(p, vacancy_diffusivity=points[0].vacancy_diffusivity) for p in points]
    CompositionMap(species, tuple(flat)).plot("vacancy", excess=True)  # nothing to show is no error
    with pytest.raises(ak.KinosonError, match="same three species"):
        plot_ternary_map(found, species=("Cu", "Ag", "Ni"))
    plt.close("all")
