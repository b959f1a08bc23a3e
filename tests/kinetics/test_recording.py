"""Recorded trajectories: exact at any time, the right diffusivities, readable by ASE, pymatgen and its analyser."""

import ase.io
import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.recording import KmcTrajectory, record_trajectory
from ase_kinoson.validation import hcp_interstitials, parent, tiny_cell

RATES = {"Ag": 0.1e12, "Cu": 1e12}
"""Rates of the size that molecular dynamics sees: pymatgen's analyser counts in femtoseconds."""


@pytest.fixture(scope="module")
def square():
    """8×8 square lattice with a vacancy and one long trajectory."""
    cell = parent("square", {"Ag": 0.5, "Cu": 0.5}).supercell((8, 8, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    states = ak.sample_states(cell, 20, seed=0)
    return states, network, record_trajectory(states, network, ak.SpeciesRates(RATES), n_frames=600, seed=1)


def test_frames_follow_every_jump(square):
    states, network, run = square
    cell = network.supercell
    frames = run.to_atoms()
    assert len(frames) == 601 and run.frame_times[0] == 0.0 and np.all(np.diff(run.frame_times) > 0)
    occupation = np.zeros(cell.n_sites, dtype=np.int8)
    occupation[run.sites] = [cell.species.index(s) for s in run.symbols]
    # the start is one of the states, drawn with its weight
    assert any(np.array_equal(occupation, row) for row in states.occupations)
    only = states.with_weights((np.arange(20) == 13).astype(float))
    other = record_trajectory(only, network, ak.SpeciesRates(RATES), n_frames=1)
    assert np.array_equal(other.sites, np.flatnonzero(states.occupations[13])) and other.carrier == states.carriers[13]
    carrier = run.carrier
    for before, after, mover in zip(frames[:100], frames[1:], run.movers, strict=False):
        step = after.positions - before.positions
        assert np.flatnonzero(np.abs(step).sum(axis=1)).tolist() == [mover]  # one atom moves, by a jump length
        assert np.isclose(np.linalg.norm(step), network.lengths[0])
        mapped = cell.map_atoms(after)
        new = np.flatnonzero(mapped.occupation[cell.mobile_sites] == 0)
        assert len(new) == 1 and cell.mobile_sites[new[0]] in network.targets([carrier])[0]
        carrier = int(cell.mobile_sites[new[0]])
    assert np.allclose(frames[-1].info["vacancy_displacement"], -run.vectors.sum(axis=0))


def test_states_between_jumps_do_not_change(square):
    _, _, run = square
    ends = run.displacements()
    middle = 0.5 * (run.frame_times[1:] + run.frame_times[:-1])
    assert np.array_equal(run.displacements(middle), ends[:-1])
    assert np.array_equal(run.displacements(np.nextafter(run.times, 0.0)), ends[:-1])
    assert np.array_equal(run.displacements([2.0 * run.times[-1]])[0], ends[-1])
    coarse = KmcTrajectory(**{**vars(run), "jumps_per_frame": 100})
    assert coarse.n_frames == 6 and np.array_equal(coarse.displacements(), ends[::100])
    even = run.even_times(50)
    assert len(even) == 51 and np.allclose(np.diff(even), even[1]) and even[-1] == run.times[-1]
    assert run.time_step(50) == pytest.approx(1e15 * even[1]) and run.time_step(50, unit_s=1e-12) < run.time_step(50)


def test_equal_seeds_give_equal_trajectories_and_waiting_times_are_exponential(square):
    states, network, run = square
    again = record_trajectory(states, network, ak.SpeciesRates(RATES), n_frames=600, seed=1)
    other = record_trajectory(states, network, ak.SpeciesRates(RATES), n_frames=600, seed=2)
    assert np.array_equal(again.times, run.times) and not np.array_equal(other.times, run.times)
    equal = record_trajectory(states, network, ak.SpeciesRates({"Ag": 1e12, "Cu": 1e12}), n_frames=600, seed=0)
    waits = np.diff(equal.times, prepend=0.0) * 4e12  # Γ of four equal neighbours
    assert abs(waits.mean() - 1.0) < 4 / np.sqrt(600) and abs(waits.std() - 1.0) < 4 * np.sqrt(2 / 600)


# -- diffusivities -----------------------------------------------------------------------------------------------------


def slopes(displacements, times, n_blocks):
    """[MSD(2t) − MSD(t)]/(2dt) of every stretch of a trajectory, t a fraction of its length, shape (n_blocks,)."""
    size = (len(times) - 1) // n_blocks
    found = []
    for n in range(n_blocks):
        part = displacements[n * size : (n + 1) * size + 1]
        lag = size // 4
        one, two = (np.square(part[k:] - part[:-k]).sum(axis=-1).mean() for k in (lag, 2 * lag))
        found.append((two - one) / (4 * lag * times[1]))
    return np.array(found)


@pytest.mark.parametrize("positions", ["unwrapped", "wrapped"])
def test_tracers_diffuse_as_the_exact_solution_says(positions):
    """Frames as a reader of the file sees them; wrapped into the cell they do not diffuse at all."""
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    gas = ak.SpeciesRates(RATES)
    exact = ak.exact_transport(cell, network, gas, vacancy_fraction=1 / 9)
    run = record_trajectory(exact.states, network, gas, n_frames=12000, seed=3)
    times = run.even_times(6000)
    frames = cell.positions[run.sites] + run.displacements(times)
    if positions == "wrapped":
        scaled = frames @ np.linalg.inv(cell.cell)
        frames = (scaled - np.floor(scaled + 1e-9)) @ cell.cell
    off = []
    for species, d in exact.tracer_diffusivity.items():
        own = [i for i, s in enumerate(run.symbols) if s == species]
        parts = slopes(frames[:, own], times, 30) * 1e-20
        off.append((parts.mean() - float(d)) / (parts.std(ddof=1) / np.sqrt(len(parts))))
        assert positions == "wrapped" or parts.std(ddof=1) / np.sqrt(len(parts)) < 0.15 * float(d)
    assert np.abs(off).max() < 3.0 if positions == "unwrapped" else np.abs(off).min() > 5.0


def test_interstitials_are_followed_in_a_host_that_stands_still():
    network = hcp_interstitials()
    states = ak.sample_states(network.supercell, 3, seed=0)
    run = record_trajectory(states, network, ak.SpeciesRates({"H": 1e12}), n_frames=50, seed=0)
    moved = run.displacements()[-1]
    hydrogen = run.symbols.index("H")
    assert np.all(moved[[i for i in range(len(run.symbols)) if i != hydrogen]] == 0.0)
    assert np.all(run.movers == hydrogen) and "vacancy_displacement" not in run.to_atoms()[0].info
    given = run.analyzer_input("H")
    assert {site.specie.symbol for site in given["structure"]} == {"H", "Mg"}  # the host is the framework
    np.testing.assert_allclose(given["displacements"][hydrogen, -1], moved[hydrogen], rtol=1e-12)


# -- files and other tools ---------------------------------------------------------------------------------------------


def test_extxyz_keeps_everything(square, tmp_path):
    _, _, run = square
    run.write(tmp_path / "run.extxyz", run.even_times(20))
    read = ase.io.read(tmp_path / "run.extxyz", ":")
    ours = run.to_atoms(run.even_times(20))
    assert len(read) == 21
    for a, b in zip(ours, read, strict=True):
        assert a.get_chemical_symbols() == b.get_chemical_symbols() and np.array_equal(a.pbc, b.pbc)
        assert np.allclose(a.positions, b.positions, atol=1e-7) and np.allclose(a.cell, b.cell)
        assert np.allclose(a.arrays["displacement"], b.arrays["displacement"], atol=1e-7)
        assert b.info["time_s"] == pytest.approx(a.info["time_s"], rel=1e-12, abs=0)
        assert b.info["n_jumps"] == a.info["n_jumps"]
        assert np.allclose(b.info["vacancy_displacement"], a.info["vacancy_displacement"])


def test_structures_keep_their_sites_and_have_a_framework(square):
    _, network, run = square
    whole = run.to_structures(n_frames=200)
    assert len(whole) == 201 and {s.specie.symbol for s in whole[0]} == {"Ag", "Cu"}
    part = run.to_structures("Cu", 200)
    names = [s.specie.symbol for s in part[0]]
    assert names.count("X") == 1 and set(names) == {"Cu", "X"}
    assert all([s.specie.symbol for s in frame] == names for frame in part)
    assert all(np.array_equal(frame.frac_coords[-1], np.zeros(3)) for frame in part)
    own = [i for i, s in enumerate(run.symbols) if s == "Cu"]
    moved = (part[-1].frac_coords - part[0].frac_coords)[:-1] @ network.supercell.cell
    assert np.allclose(moved, run.displacements([run.times[-1]])[0, own])


def test_the_analyser_of_pymatgen_agrees(square):
    analyzer = pytest.importorskip("pymatgen.analysis.diffusion.analyzer").DiffusionAnalyzer
    _, _, run = square
    n = 300
    times = run.even_times(n)
    for species in ("Ag", "Cu"):
        own = [i for i, s in enumerate(run.symbols) if s == species]
        msd = np.square(run.displacements(times)[:, own]).sum(axis=-1).mean(axis=1)
        slope = np.polyfit(times, msd, 1)[0] / 6 * 1e-16  # cm²/s
        direct = analyzer(**run.analyzer_input(species, n), smoothed=False)
        listed = analyzer.from_structures(
            run.to_structures(species, n), species, 300.0, run.time_step(n), 1, smoothed=False
        )
        for found in (direct, listed):
            assert np.allclose(found.msd, msd, atol=1e-8)
            assert found.diffusivity == pytest.approx(slope, rel=1e-6, abs=0)
            assert found.max_framework_displacement == 0.0
        # its smoothing by default, in a unit of time that it can count in
        unit = times[1] / 1000
        smooth = analyzer(**run.analyzer_input(species, n, unit_s=unit), min_obs=2 * len(own))
        assert 0.2 * slope < smooth.diffusivity * 1e-15 / unit < 5 * slope
    # without a framework that stands still, what the other species does is taken for drift
    biased = analyzer.from_structures(run.to_structures(n_frames=n), "Ag", 300.0, run.time_step(n), 1, smoothed=False)
    honest = analyzer(**run.analyzer_input("Ag", n), smoothed=False)
    assert abs(biased.diffusivity / honest.diffusivity - 1.0) > 0.01


def test_bad_input_is_one_sentence(square):
    states, network, run = square
    gas = ak.SpeciesRates(RATES)
    with pytest.raises(KinosonError, match="found n_frames=0"):
        record_trajectory(states, network, gas, n_frames=0)
    with pytest.raises(KinosonError, match="found species 'Au'"):
        run.to_structures("Au")
    with pytest.raises(KinosonError, match="times that do not increase"):
        run.displacements([1.0, 0.0])
    with pytest.raises(KinosonError, match="expected at least 1; raise it"):
        run.even_times(0)
    cell, small = tiny_cell({"Ag": 4, "Cu": 4})
    crowded = record_trajectory(ak.sample_states(cell, 5, seed=0), small, gas, n_frames=300)
    with pytest.raises(KinosonError, match="of the cell between two frames"):
        crowded.to_structures("Cu", 20)
    engine = ak.KineticMonteCarlo(states, network, ak.Rates.of(gas, network), n_walkers=2, seed=0)
    with pytest.raises(KinosonError, match="found 0 jumps"):
        engine.last_jumps()
