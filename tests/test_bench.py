"""`ase-kinoson bench`: medians in turns, rows in processes of their own, what they compare; no timing is asserted."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_kinoson.bench import cases, exact, gpu, machine, monte_carlo, peers, rows, saddle, table
from ase_kinoson.bench.row import Figure, Limit, Peer, Row, Target, rate, seconds, with_limit
from ase_kinoson.bench.timing import Sample, in_turns, ratio, sample
from ase_kinoson.cli import main
from ase_kinoson.errors import KinosonError

ROOT = Path(__file__).parents[1]
TINY = {
    name: rows.Known("tests.tiny_rows", name, f"a row that is {name}") for name in "good wrong dead slow large".split()
}


@pytest.fixture
def tiny(monkeypatch):
    """The rows of the tests instead of the real ones."""
    monkeypatch.setattr(rows, "ROWS", TINY)


# -- times ------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that calls turn forward, on a machine that becomes slower: everything takes 1 % longer each time."""

    def __init__(self) -> None:
        self.now, self.pace, self.log = 0.0, 1.0, []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, time: float) -> None:
        self.log.append(name)
        self.now += time * self.pace
        self.pace *= 1.01


def test_medians_and_turns_on_a_fake_clock():
    clock = Clock()
    found = in_turns({"a": lambda: clock.work("a", 3.0), "b": lambda: clock.work("b", 1.0)}, repeats=5, clock=clock)
    assert "".join(clock.log) == "ab" * 6  # one of each is thrown away
    assert len(found["a"].values) == len(found["b"].values) == 5
    assert found["a"].median == sorted(found["a"].values)[2]
    assert found["a"].low == pytest.approx(3.0 * 1.01**2) and found["a"].high == pytest.approx(3.0 * 1.01**10)
    assert ratio(found["a"], found["b"]) == pytest.approx(3.0 / 1.01)
    # broken twin: not in turns, the drift of the machine is in the ratio
    clock = Clock()
    a = sample(lambda: clock.work("a", 3.0), repeats=5, clock=clock)
    b = sample(lambda: clock.work("b", 1.0), repeats=5, clock=clock)
    assert abs(ratio(a, b) - 3.0) > 0.1


def test_the_median_forgets_one_disturbance():
    assert Sample((1.0, 1.0, 1.0, 1.0, 50.0)).median == 1.0
    figure = rate("x", Sample((2.0, 1.0, 4.0)), 8.0, "states/s")
    assert (figure.value, figure.low, figure.high, figure.repeats) == (4.0, 2.0, 8.0, 3)
    figure = seconds("x", Sample((2.0, 1.0, 4.0)), "ms", per=10.0)
    assert (figure.value, figure.low, figure.high) == (200.0, 100.0, 400.0)


def test_targets_and_limits_know_which_way_is_better():
    assert Target(5.0).reached(6.0) and not Target(5.0).reached(4.0)
    assert Target(5.0, at_least=False).reached(4.0) and not Target(5.0, at_least=False).reached(6.0)
    assert with_limit(Figure("x", 4.0, "states/s"), "best", 8.0).limit == Limit("best", 8.0, 0.5)
    assert with_limit(Figure("x", 4.0, "s"), "best", 1.0).limit == Limit("best", 1.0, 0.25)


# -- rows in processes ------------------------------------------------------------------------------------------------


def test_a_row_comes_back_whole_and_the_failing_ones_stop_nothing(tiny, monkeypatch):
    found = {row.name: row for row in rows.measure_rows(["wrong", "dead", "good"], quick=True)}
    monkeypatch.setattr(rows, "TIME_LIMIT_S", 2.0)
    found |= {row.name: row for row in rows.measure_rows(["slow"])}
    assert found["wrong"].error == "ValueError: found nothing; expected something; bring it"
    assert found["dead"].error == "the process ended with 7: nothing was said"
    assert found["slow"].error == "not finished within 2 s"
    good = found["good"]
    assert not good.error and [f.name for f in good.figures] == ["sums", "counted", "alone"]
    sums, counted, alone = good.figures
    assert sums.repeats == 5 and sums.low <= sums.value <= sums.high
    assert sums.target.reached(sums.value) and sums.limit.share == pytest.approx(0.5)
    assert counted.peer == Peer("another", "1.0", sums.value / 4.0, 4.0, "asked kindly")
    assert alone.peer.value is None and alone.peer.note == "not installed here (pip install nope)"
    assert all(not row.figures for name, row in found.items() if name != "good")


@pytest.mark.skipif(machine.resident_MB() is None, reason="the system does not tell the memory of a process")
def test_peaks_of_memory_do_not_mix(tiny):
    kept = bytearray(300_000_000)  # of the process that starts the rows: not theirs
    kept[::4096] = b"1" * len(kept[::4096])
    large, good = rows.measure_rows(["large", "good"])
    assert 200.0 < large.peak_memory_MB < 290.0
    assert good.peak_memory_MB < 150.0


def test_unknown_rows_are_refused():
    with pytest.raises(KinosonError, match="found the row 'sadle'; expected some of machine, import, saddle"):
        rows.measure_rows(["sadle"])


def test_every_row_has_its_function():
    from importlib import import_module

    for name, known in rows.ROWS.items():
        assert callable(getattr(import_module(known.module), known.function)), name


# -- the command ------------------------------------------------------------------------------------------------------


def keys(value: object) -> set[str]:
    """Names of all entries of nested plain values."""
    if isinstance(value, dict):
        return set(value) | {k for v in value.values() for k in keys(v)}
    return {k for v in value for k in keys(v)} if isinstance(value, list) else set()


def test_the_command_prints_json(tiny, capsys):
    assert main(["bench", "--json", "--quick", "--only", "good", "wrong"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["format"], found["version"], found["quick"]) == ("ase_kinoson.bench", 1, True)
    assert set(found["machine"]) == {
        *("processor", "architecture", "system", "cores", "memory_GB", "compiled_loops", "versions"),
    }  # fmt: skip
    assert {"python", "numpy", "torch", "ase-kinoson", "numba", "onsager"} <= set(found["machine"]["versions"])
    good, wrong = found["rows"]
    assert set(good) == {
        *("name", "what", "figures", "limited_by", "notes", "seconds", "peak_memory_MB", "error"),
    }  # fmt: skip
    assert set(good["figures"][0]) == {
        *("name", "value", "unit", "low", "high", "repeats", "threads", "target", "limit", "peer", "reached"),
    }  # fmt: skip
    assert good["figures"][0]["reached"] is True and good["figures"][1]["reached"] is None
    assert set(good["figures"][0]["limit"]) == {"name", "value", "share"}
    assert set(good["figures"][1]["peer"]) == {"name", "version", "value", "ratio", "note"}
    assert wrong["figures"] == [] and wrong["error"].startswith("ValueError")
    assert Row.from_dict(good).as_dict() == good | {
        "notes": ("A note.",),
        "figures": Row.from_dict(good).as_dict()["figures"],
    }
    assert "good: " in err and "wrong: ValueError" in err
    # neither where nor on which machine
    assert str(ROOT) not in out and str(Path.home()) not in out
    assert socket.gethostname() not in out and not keys(found) & {"host", "hostname", "node", "user", "path"}


def test_the_command_prints_a_table(tiny, capsys):
    assert main(["bench", "--only", "good", "wrong", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in (
        "no figures: ValueError: found nothing; expected something; bring it",
        "≥ 1: reached",
        "limit  twice that: ",
        "50 % reached",
        "peer   another 1.0: ",
        "ratio 4 × (asked kindly)",
        "peer   no: not installed here (pip install nope)",
        "limited by: Python.",
        "A note.",
    ):
        assert text in out, text
    head, counted = (
        next(line for line in out.splitlines() if line.startswith(f"  {x} ")) for x in ("figure", "counted")
    )
    assert head.index("unit") == counted.index("calls")  # columns
    assert main(["bench", "--list"]) == 0
    assert "a row that is large" in capsys.readouterr().out


def test_exit_status(tiny, capsys, monkeypatch):
    assert main(["bench", "--only", "wrong", "--quiet"]) == 1
    assert main(["bench", "--only", "sadle"]) == 2
    assert "sadle" in capsys.readouterr().err


def test_json_becomes_a_page_table(tiny):
    measured = [*rows.measure_rows(["good", "wrong"]), Row("gpu", "No use.", notes=("No GPU here.",))]
    found = table.as_json(machine.describe(), measured, quick=False)
    lines = list(table.markdown(json.loads(json.dumps(found))))
    body = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in body}) == 1 and len(body) == 2 + 3 + 1 + 1
    assert body[2].startswith("| `good` sums |") and "another 1.0: " in body[3] and ", 4 ×" in body[3]
    assert any(line.startswith("- `good`: ") for line in lines)
    assert "no figures: ValueError" in body[5] and "| `gpu` | No GPU here. |" in body[6]
    assert lines[-1].startswith("Measured on ") and "numpy" in lines[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (0.01234, "0.0123"), (123.4, "123"), (13_713.0, "13,700"), (2.71e7, "27.1 million")],
)
def test_numbers_are_short(value, text):
    assert table.number(value) == text


# -- what is compared is the same thing -------------------------------------------------------------------------------


def test_a_real_row_a_peer_that_is_absent_and_no_gpu(monkeypatch):
    (row,) = rows.measure_rows(["import"], quick=True)
    assert not row.error and row.figures[0].name == "import ase_kinoson" and row.figures[0].limit is not None
    monkeypatch.setattr(peers, "installed", lambda package: False)
    (figure,) = monte_carlo.monte_carlo_row(True).figures
    assert figure.value > 0 and figure.peer.value is None
    assert figure.peer.note == "not installed here (pip install onsager numba)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.gpu_row(True).notes == ("No GPU here that torch can use.",)


def test_absent_packages():
    assert not peers.installed("no_such_package_at_all") and peers.version("no-such-package-at-all") == ""
    assert not peers.installed("no_such_package.inside") and peers.installed("numpy")


def test_the_gpu_row_without_a_gpu(monkeypatch):
    """The same code on the processor, in small."""
    monkeypatch.setattr(gpu, "two_threads", lambda: 1)
    before = torch.get_num_threads()
    try:
        found = gpu.compare(torch.device("cpu"), states=8, samples=2, walkers=8, jumps=1, repeats=1, fewer=32)
    finally:
        torch.set_num_threads(before)
    assert len(found) == 9 and all(np.isfinite(f.value) and f.value > 0 for f in found)
    assert [f.unit for f in found] == ["states/s"] * 2 + ["×"] + ["samples/s"] * 2 + ["×"] + ["jumps/s"] * 2 + ["×"]
    assert found[2].value == pytest.approx(found[0].value / found[1].value)


def test_the_synthetic_model_obeys_detailed_balance():
    from ase_kinoson.testing import reverse_defect

    network = cases.five_species(3)
    model = cases.synthetic_model(network)
    states = cases.random_states(network.supercell, 4)
    assert reverse_defect(model, states) < 1e-9
    again = cases.synthetic_model(network).predict(states)
    np.testing.assert_array_equal(model.predict(states), again)
    assert 0.6 < np.mean(again) < 1.0 and 0.1 < np.std(again) < 0.4
    # broken twin: K of other weights
    other = cases.synthetic_model(network)
    for net in other.kra.networks:
        net.mean += 0.1
    assert np.abs(other.predict(states) - again).min() > 0.05


def test_the_band_of_ase_has_our_barrier():
    from ase.build import bulk
    from ase.calculators.emt import EMT

    from ase_kinoson.barriers.hop import Hop, Host, SaddleSettings
    from ase_kinoson.barriers.saddle import find_saddle, relax_state
    from ase_kinoson.crystal.alloy import Alloy
    from ase_kinoson.crystal.jumps import JumpNetwork

    alloy = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    network = JumpNetwork.from_supercell(alloy.supercell(2))
    states, settings = cases.random_states(network.supercell, 1), SaddleSettings()
    host = Host.from_occupation(network.supercell, states.occupations[0])
    start = relax_state(host, EMT(), settings=settings)
    hops = [Hop.from_jump(network, host, int(states.carriers[0]), k) for k in (0, 1)]
    calls, barrier = saddle.band(host, hops[0], start, "NEBOptimizer")
    ours = [find_saddle(host, hop, start, EMT(), settings=settings, make_calculator=EMT) for hop in hops]
    assert ours[0].status == "ok"
    assert barrier == pytest.approx(ours[0].barrier, abs=0.005)
    assert calls > ours[0].search_calls
    # broken twin: the band of another jump
    assert abs(barrier - ours[1].barrier) > 0.005


def test_extrapolated_cells_are_the_infinite_crystal():
    """Reference: L_ss and L_sv of the Onsager package 1.4."""
    found = exact.extrapolated_coefficients(exact.FREQUENCIES)
    np.testing.assert_allclose(found, (3.41002218, 1.06208409), rtol=1e-3)
    other = exact.extrapolated_coefficients((1.0, 4.0, 1.1, 1.0, 4.0))
    assert abs(other[0] / 3.41002218 - 1.0) > 1e-2


@pytest.mark.skipif(not (peers.installed("onsager") and peers.installed("yaml")), reason="needs onsager")
def test_the_onsager_package_gives_its_published_numbers():
    np.testing.assert_allclose(peers.dilute_coefficients(exact.FREQUENCIES), (3.41002218, 1.06208409), rtol=1e-6)


def test_operations_are_those_of_the_shapes():
    from ase_kinoson.bench.barriers import operations_per_barrier
    from ase_kinoson.bench.relaxation import operations_in_blocks, operations_per_state
    from ase_kinoson.crystal.environment import CarrierEnvironment
    from ase_kinoson.kinosons.field import EquivariantField

    # one orientation, one channel, one site, one output, no layer: one sum of a table row, six operations of output
    assert operations_per_state(1, 1, 1, 1, n_layers=0) == 7.0
    kind = CarrierEnvironment.build(cases.five_species(4)).classes[0]
    (part,) = EquivariantField(CarrierEnvironment.build(cases.five_species(4)), cases.five_species(4), hidden=24).parts
    lift, project = part.fold()  # the blocks that are there: a product with each of them
    m, _, block = lift.shape
    products = 2 * lift.numel() + 2 * project.numel()
    signs = 2 * m * m * (2 * block + lift.shape[1] - 1) + 2 * (3 * m) ** 2 * (project.shape[1] // 3)
    layers = 2 * (2 * 48 * 24 * 24 + 2 * 24**2)
    assert operations_in_blocks(kind, 4, 24) == products + signs + layers
    assert operations_in_blocks(kind, 4, 24) < 0.8 * operations_per_state(54, 48, 54, 24)
    network = cases.five_species(3)
    model = cases.synthetic_model(network)
    k = 100 * 8 * 32 + 2 * 8 * 32 * 32 + 2 * 32**2 + 2 * 8 * 32
    f = 54 * 48 * 16 + 2 * 48 * 16 * 16 + 2 * 16**2 + 2 * 48 * 16
    assert operations_per_barrier(model) == pytest.approx(k + f * 13 / 12)
    layers = k + f - 100 * 8 * 32 - 54 * 48 * 16
    assert operations_per_barrier(model, sums=False) == pytest.approx(layers)
