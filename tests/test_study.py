"""A short study from a CIF to a report, on a cell of 32 sites."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from ase_kinoson.cli import main
from ase_kinoson.errors import KinosonError, ModelError, StoreError, StudyError
from ase_kinoson.settings import parse_settings, read_toml, to_toml
from ase_kinoson.study import Study, load_calculator
from ase_kinoson.summary import KINDS

CIF = Path(__file__).parents[1] / "examples" / "Cu70Ni30.cif"
STUDY = """
title = "short <study>"
seed = 3
workers = 1

[alloy]
file = "alloy.cif"

[cell]
size = 2

[barriers]
fmax_initial = 0.02
fmax_final = 0.05
fmax_saddle = 0.05

[states]
training = 8
evaluation = 4
sweeps = 20

[model]
hidden = 4
epochs = 2

[relaxation]
n_states = 20
form = "paths"
closure_epochs = 1
gates = 2

[correction]
n_steps = 3
n_trajectories = 32

[transport]
temperatures_K = [1200]
n_resamples = 50
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(CIF, folder / "alloy.cif")
    (folder / "study.toml").write_text(STUDY)
    result = Study.from_toml(folder / "study.toml", folder / "out").run()
    return folder, result


@pytest.fixture
def copy(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    return folder


class Forbidden:
    """Stands in for a calculator that must not be asked."""

    def __init__(self, *args, **kwargs):
        raise AssertionError("a barrier was computed again")


def numbers(value, path=""):
    """All entries with a value, by path."""
    if isinstance(value, dict):
        if "value" in value:
            yield path, value
        else:
            for key, item in value.items():
                yield from numbers(item, f"{path}/{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers(item, f"{path}/{i}")


def test_every_stage_leaves_its_output(done):
    folder, result = done
    out = folder / "out"
    for name in ("summary.json", "kinosons.csv", "barriers.csv", "report.html", "barriers.db", "model.safetensors"):
        assert (out / name).stat().st_size > 0
    assert not list(out.rglob("*.tmp*"))
    assert result.training.n_barriers == 8 * 12
    assert result.evaluation[1200.0].n_barriers == 4 * 12
    assert result.resumed == ()
    assert "D_v" in str(result)


def test_the_summary_says_what_every_number_is(done):
    summary = json.loads((done[0] / "out" / "summary.json").read_text())
    found = dict(numbers(summary))
    assert len(found) > 80
    for path, number in found.items():
        assert {"value", "error", "unit", "kind"} <= set(number), path
        assert number["unit"] and number["kind"], path
    (row,) = summary["temperatures"]
    assert row["vacancy_diffusivity"]["unit"] == "m^2/s"
    assert row["tracer_diffusivity"]["Cu"]["unit"] == "m^2/s per c_v"
    assert row["ensemble"] == "equilibrium"
    assert sum(q["value"] for q in row["share_by_species"].values()) == pytest.approx(1.0)
    assert summary["force_calls"]["value"] == sum(b["force_calls"]["value"] for b in summary["barriers"].values())
    assert summary["versions"]["ase"]
    assert "neither fit has seen" in summary["leak_free"]


def test_the_kinosons_add_up_to_the_diffusivity(done):
    folder, result = done
    with open(folder / "out" / "kinosons.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 4 * 12
    assert {r["temperature_K [K]"] for r in rows} == {"1200"}
    total = sum(float(r["weight"]) * float(r["kinoson_vacancy [Å^2/s]"]) for r in rows)
    assert total * 1e-20 == pytest.approx(float(result.transport[1200.0].vacancy_diffusivity), rel=1e-6, abs=0)
    assert result.density[1200.0].activation_energy().unit == "eV"


def test_no_fit_has_seen_the_states_that_are_evaluated(done):
    _, result = done
    assert not set(result.training.states.keys) & set(result.evaluation[1200.0].states.keys)
    assert result.transport[1200.0].vacancy_diffusivity.kind == "bound"


def test_ratio_estimates_stand_beside_the_bounds(done):
    folder, result = done
    (row,) = json.loads((folder / "out" / "summary.json").read_text())["temperatures"]
    corrected, best, found = result.corrected[1200.0], row["ratio_estimate"], row["correction"]
    assert corrected.vacancy_diffusivity.kind == best["vacancy_diffusivity"]["kind"] == "ratio estimate"
    for own, bound in (
        (best["vacancy_diffusivity"], row["vacancy_diffusivity"]),
        (best["tracer_diffusivity"]["Ni"], row["tracer_diffusivity"]["Ni"]),
    ):
        assert own["unit"] == bound["unit"] and own["error"] > 0 and bound["kind"] == "bound"
        # four states: the model's many states correct their chance too
        assert 0.3 * bound["value"] < own["value"] < 3 * bound["value"]
    assert best["correlation_factor"]["Ni"]["kind"] == "ratio estimate"
    assert 0.5 < best["correlation_factor"]["Ni"]["value"] <= row["correlation_factor"]["Ni"]["value"]
    assert set(found["looseness"]) == set(found["tail"]) == {"vacancy", "Cu", "Ni", "tracer Cu", "tracer Ni"}
    assert set(found["surrogate"]) == {"vacancy", "Cu", "Ni"}
    assert found["ladder_jumps"]["value"] == 32 * 4
    assert found["rungs"]["vacancy"]["jumps"] == [0, 1, 3]
    assert found["plain_ladder"]["vacancy"]["jumps"] == [1, 2]
    # what is read back is what the engine gives
    ladder = corrected.ladder
    assert ladder.uncorrected.shape == ladder.collective.shape == corrected.averages.collective.shape
    rungs = ladder.rungs["vacancy"]
    assert float(corrected.diagnosis.looseness["vacancy"]) == pytest.approx(rungs.value[0] / rungs.value[rungs.chosen])
    assert {"corrected", "ratio estimate", "kmc", "bound"} <= set(KINDS)
    for path, number in numbers({key: row[key] for key in ("ratio_estimate", "correction")}):
        assert number["kind"] in KINDS, path


def test_a_study_without_the_correction_has_bounds_only(copy, monkeypatch):
    text = (copy / "study.toml").read_text().replace("[correction]", "[correction]\nenabled = false")
    (copy / "study.toml").write_text(text)
    monkeypatch.setattr("ase_kinoson.kinosons.correction.correct", lambda *a, **k: pytest.fail("it was corrected"))
    result = Study.from_toml(copy / "study.toml", copy / "out").run()
    assert result.corrected == {}
    assert result.summary["temperatures"][0]["ratio_estimate"] is None
    page = (copy / "out" / "report.html").read_text()
    assert "most likely" not in page and "so there is no best value" in page


def test_a_damaged_correction_is_refused(copy):
    path = copy / "out" / "stages" / "correction-1200K.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(KinosonError, match=r"correction-1200K\.stamp"):
        Study.from_toml(copy / "study.toml", copy / "out").transport()


def test_a_second_run_asks_no_calculator_and_finds_the_same(copy, monkeypatch):
    out = copy / "out"
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".json", ".csv", ".html")}
    monkeypatch.setattr("ase.calculators.emt.EMT", Forbidden)
    study = Study.from_toml(copy / "study.toml", out)
    result = study.run()
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".json", ".csv", ".html")} == before
    assert {"barriers-training", "model", "barriers-1200K", "relaxation-1200K", "correction-1200K"} <= set(
        result.resumed
    )


def test_a_change_recomputes_only_what_depends_on_it(copy, done, monkeypatch):
    text = (copy / "study.toml").read_text().replace("n_resamples", "vacancy_fraction = 1e-4\nn_resamples")
    (copy / "study.toml").write_text(text)
    monkeypatch.setattr("ase.calculators.emt.EMT", Forbidden)
    result = Study.from_toml(copy / "study.toml", copy / "out").run()
    assert set(result.resumed) == {
        "states-training",
        "barriers-training",
        "model",
        "states-1200K",
        "barriers-1200K",
        "relaxation-1200K",
        "correction-1200K",
    }
    new, old = (float(r.transport[1200.0].tracer_diffusivity["Cu"]) for r in (result, done[1]))
    assert new == pytest.approx(1e-4 * old, rel=1e-12, abs=0)
    assert result.transport[1200.0].tracer_diffusivity["Cu"].unit == "m^2/s"
    new, old = (float(r.corrected[1200.0].tracer_diffusivity["Cu"]) for r in (result, done[1]))
    assert new == pytest.approx(1e-4 * old, rel=1e-12, abs=0)


def test_a_lost_stage_costs_no_barrier(copy, done, monkeypatch):
    """The store still knows all barriers when the stage that collects them is lost."""
    from ase.calculators.emt import EMT

    (copy / "out" / "stages" / "barriers-1200K.stamp").unlink()
    monkeypatch.setattr(EMT, "calculate", lambda *args, **kwargs: pytest.fail("a barrier was computed again"))
    result = Study.from_toml(copy / "study.toml", copy / "out").transport()
    assert "barriers-1200K" not in result.resumed
    np.testing.assert_array_equal(result.evaluation[1200.0].barrier, done[1].evaluation[1200.0].barrier)


def test_numbers_do_not_depend_on_the_workers(done, tmp_path):
    shutil.copy(CIF, tmp_path / "alloy.cif")
    (tmp_path / "study.toml").write_text(STUDY)
    study = Study.from_toml(tmp_path / "study.toml", tmp_path / "out", workers=2)
    found = study.barriers()
    np.testing.assert_array_equal(found.barrier, done[1].training.barrier)
    np.testing.assert_array_equal(found.energy_initial, done[1].training.energy_initial)


def test_a_failing_stage_keeps_what_came_before(copy, monkeypatch):
    text = (copy / "study.toml").read_text().replace("n_states = 20", "n_states = 21")
    (copy / "study.toml").write_text(text)

    def fail(*args, **kwargs):
        raise KinosonError("found trouble; expected none; try again")

    monkeypatch.setattr("ase_kinoson.kinosons.training.train_relaxation", fail)
    study = Study.from_toml(copy / "study.toml", copy / "out")
    with pytest.raises(KinosonError, match="trouble"):
        study.run()
    monkeypatch.undo()
    assert not (copy / "out" / "stages" / "relaxation-1200K.stamp").exists()
    monkeypatch.setattr("ase.calculators.emt.EMT", Forbidden)
    assert "barriers-1200K" in Study.from_toml(copy / "study.toml", copy / "out").run().resumed


def test_a_store_of_another_study_is_refused(copy, capsys):
    text = (copy / "study.toml").read_text().replace("size = 2", "size = [2, 2, 3]")
    (copy / "study.toml").write_text(text)
    with pytest.raises(StoreError):
        Study.from_toml(copy / "study.toml", copy / "out").barriers()
    assert main(["barriers", str(copy / "study.toml"), "--out", str(copy / "out"), "--quiet"]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and "supercell" in message.splitlines()[-1]


def test_a_truncated_model_file_is_refused(copy, capsys):
    path = copy / "out" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"model\.stamp"):
        Study.from_toml(copy / "study.toml", copy / "out").fit()
    assert main(["fit", str(copy / "study.toml"), "--out", str(copy / "out"), "--quiet"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "truncated" in lines[-1] and "Traceback" not in "".join(lines)


def test_the_commands_print_their_results(copy, capsys):
    arguments = [str(copy / "study.toml"), "--out", str(copy / "out"), "--quiet"]
    assert main(["barriers", *arguments]) == 0
    assert "mean barrier (eV)" in capsys.readouterr().out
    assert main(["fit", *arguments]) == 0
    assert "MAE (meV)" in capsys.readouterr().out
    assert main(["transport", *arguments]) == 0
    assert "D_v" in capsys.readouterr().out
    assert main(["run", *arguments]) == 0
    assert "report.html" in capsys.readouterr().out


def test_rounds_of_learning_in_the_quenched_ensemble(copy):
    data = read_toml_text(STUDY)
    data["states"] |= {"rounds": 1, "per_round": 2, "evaluation": 2, "ensemble": "quenched", "arrangements": 1}
    data["transport"]["temperatures_K"] = [1000, 1300.5]
    result = Study.from_dict(data, copy / "out", base=copy, workers=2).run()
    assert "barriers-training" in result.resumed
    assert not list((copy / "out").rglob("*.tmp*"))
    assert len(result.training) == 10
    assert list(result.transport) == [1000.0, 1300.5]
    assert result.summary["ensemble"] == "quenched"
    assert result.transport[1000.0].vacancy_diffusivity.kind != "bound"
    (pair,) = result.summary["activation_energy_between"]
    assert pair["vacancy"]["unit"] == "eV"
    assert "1300.5 K" in (copy / "out" / "report.html").read_text()
    assert result.corrected == {}
    assert any("no ladder" in text for text in result.summary["warnings"])
    (caution,) = (c for c in result.summary["cautions"] if c["type"] == "NoCorrection")
    assert caution["stage"] == "correction"
    assert caution["advice"] == "use the coefficients without it"
    assert len(result.summary["cautions"]) == len(result.summary["warnings"])
    for stamp in (copy / "out" / "stages").glob("relaxation-*.stamp"):
        stamp.unlink()
    again = Study.from_dict(data, copy / "out", base=copy, workers=1).transport()
    assert not any(name.startswith("relaxation-1") for name in again.resumed)
    assert {k: v for k, v in again.summary.items() if k in ("temperatures", "barriers", "model")} == {
        k: v for k, v in result.summary.items() if k in ("temperatures", "barriers", "model")
    }


def read_toml_text(text):
    import tomllib

    return tomllib.loads(text)


# -- settings -----------------------------------------------------------------------------------------------------


def test_settings_written_as_toml_are_the_same_settings(tmp_path):
    data = read_toml_text(STUDY)
    data["alloy"]["composition"] = {"Cu": {"Cu": 0.5, "Ni": 0.5}}
    data["calculator"] = {"name": "a.b", "parameters": {"text": 'quo"te\\\n', "list": [1, 2.5], "yes": True}}
    settings = parse_settings(data)
    (tmp_path / "again.toml").write_text(to_toml(settings))
    assert parse_settings(read_toml(tmp_path / "again.toml")) == settings


def test_the_example_is_a_valid_study():
    study = Study.from_toml(CIF.with_name("cu70ni30.toml"))
    assert study.supercell.n_sites == 108
    assert study.temperatures_K == (900.0, 1050.0, 1200.0)
    assert study.folder.name == "cu70ni30-output"


def test_calculators_by_name(tmp_path):
    from ase.calculators.emt import EMT

    assert load_calculator("EMT") is EMT
    assert load_calculator("ase.calculators.emt.EMT", {"asap_cutoff": True})().parameters["asap_cutoff"]
    (tmp_path / "my_calculator_xyz.py").write_text(
        "from ase.calculators.emt import EMT\ndef make():\n    return EMT()\n"
    )
    path = list(sys.path)
    try:
        assert isinstance(load_calculator("my_calculator_xyz.make", base=tmp_path)(), EMT)
    finally:
        sys.path[:] = path
        sys.modules.pop("my_calculator_xyz", None)
    for name in ("Nonsense", "ase.calculators.emt.Nonsense", "no_such_package.Calculator", "ase.units.kB"):
        with pytest.raises(StudyError, match="calculator"):
            load_calculator(name)
