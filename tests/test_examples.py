"""Every script of `examples/` runs in its short form and draws its picture; the gallery knows all of them."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(p.name for p in EXAMPLES.glob("*.py"))
MAX_LINES = 60

spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
assert spec is not None and spec.loader is not None
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


def faults(name: str, source: str) -> list[str]:
    """What keeps a script out of the gallery, or makes a bad page of it."""
    found = []
    lines = source.splitlines()
    if len(lines) > MAX_LINES:
        found.append(f"{len(lines)} lines; at most {MAX_LINES}")
    tree = ast.parse(source)
    doc = (ast.get_docstring(tree) or "").splitlines()
    if len(doc) < 4 or doc[1] != "=" * len(doc[0]) or doc[2] or not source.startswith('"""'):
        found.append("no docstring that begins with a title, a line of = as long as the title, and an empty line")
    if "Takes" not in " ".join(doc) and "takes" not in " ".join(doc):
        found.append("does not say how long it takes")
    body = tree.body[-1].body if isinstance(tree.body[-1], ast.If) else tree.body
    picture = Path(name).stem + ".png"
    if not re.search(rf'\.savefig\("{picture}", dpi=\d+\)$', ast.unparse(body[-1]).replace("'", '"')):
        found.append(f'does not end with savefig("{picture}", dpi=...)')
    if source.count("savefig(") != 1:
        found.append("not exactly one picture")
    if "subplots(" in "".join(re.split(r"^# %%", source, flags=re.MULTILINE)[:-1]):
        found.append("begins its figure before the last block, after which the gallery closes it")
    return found


def colour(path: Path) -> float:
    """Share of the pixels of a picture that are neither white, grey nor black: data, rather than empty axes."""
    pixels = plt.imread(path)[..., :3]
    return float(np.mean(np.ptp(pixels, axis=-1) > 0.1))


def run(folder: Path, name: str, **values: object) -> subprocess.CompletedProcess[str]:
    """Run a script with other settings in a copy of its folder."""
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__", "*.db", "*.png", "*-map"))
    (folder / name).write_text(gallery.short_form((EXAMPLES / name).read_text(encoding="utf-8"), values), "utf-8")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=500,
        check=False,
    )


# -- their form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_form(name):
    assert faults(name, (EXAMPLES / name).read_text(encoding="utf-8")) == []


def test_bad_forms_are_found():
    good = '"""\nTitle\n=====\n\nTakes a second.\n"""\n\nfig, ax = plt.subplots()\nfig.savefig("x.png", dpi=150)\n'
    assert faults("x.py", good) == []
    assert faults("x.py", good.replace("fig.", 'if __name__ == "__main__":\n    fig.')) == []
    for bad in (
        good.replace("=====", "===="),
        good.replace("=====\n\n", "=====\n"),
        good.replace("Takes", "For"),
        good.replace("fig, ax", "\n" * 60 + "fig, ax"),
        good + "print(1)\n",
        good.replace("x.png", "y.png"),
        good.replace("fig.savefig", 'fig.savefig("z.png")\nfig.savefig'),
        good.replace("fig.savefig", "# %%\nfig.savefig"),
    ):
        assert len(faults("x.py", bad)) == 1, bad


def test_the_gallery_knows_all_of_them():
    assert sorted(gallery.ORDER) == SCRIPTS
    assert [gallery.position(f"/somewhere/{n}") for n in gallery.ORDER] == sorted(map(gallery.position, SCRIPTS))
    assert gallery.position("new.py") > max(map(gallery.position, SCRIPTS))
    for name, values in gallery.SHORT.items():
        gallery.short_form((EXAMPLES / name).read_text(encoding="utf-8"), values)
    assert {*gallery.PACKAGES, *gallery.POTENTIALS, *gallery.ALONE, *gallery.SLOW} <= set(SCRIPTS)


def test_short_forms_keep_everything_else():
    source = 'A, B = 1, 2  # é\nC = (\n    1,\n    2,\n)\nD = {"a": 1}\nA_late = lower = A\n'
    short = gallery.short_form(source, {"B": 7, "C": (5,)})
    values: dict[str, object] = {}
    exec(short, values)
    assert (values["A"], values["B"], values["C"], values["D"]) == (1, 7, (5,), {"a": 1})
    assert len(short.splitlines()) == len(source.splitlines()) and "# é" in short
    for wrong in ("E", "lower", "A_late"):
        with pytest.raises(ValueError, match=f"found settings {wrong}; expected constants of the script: A, B, C, D"):
            gallery.short_form(source, {wrong: 1})


def test_what_cannot_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "missing", lambda name: "no such thing" if name == "percolation.py" else "")
    can_run = gallery.copy_examples(tmp_path / "copies", short=True)
    assert sorted([*can_run, "percolation.py"]) == SCRIPTS
    doc = ast.get_docstring(ast.parse((tmp_path / "copies" / "percolation.py").read_text(encoding="utf-8")))
    assert doc is not None and doc.endswith("Not run for these pages: no such thing.")
    assert "Not run" not in (tmp_path / "copies" / "pure_copper.py").read_text(encoding="utf-8")
    assert (tmp_path / "copies" / "data").is_dir() and (tmp_path / "copies" / "GALLERY_HEADER.rst").is_file()


# -- their runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in gallery.SLOW)) for n in SCRIPTS])
def test_short_form_runs(name, tmp_path):
    if why := gallery.missing(name):
        pytest.skip(why)
    done = run(tmp_path / "examples", name, **gallery.SHORT.get(name, {}))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip(), "it printed nothing"
    pictures = sorted(p.name for p in (tmp_path / "examples").rglob("*.png"))
    assert pictures == [Path(name).stem + ".png"]
    assert colour(tmp_path / "examples" / pictures[0]) > 1e-3, "its picture shows nothing"


def test_empty_pictures_are_found(tmp_path):
    figure = Figure()
    figure.savefig(tmp_path / "blank.png")
    ax = figure.subplots()
    ax.set(xlabel="x", ylabel="y")
    figure.savefig(tmp_path / "axes.png")
    assert colour(tmp_path / "blank.png") == colour(tmp_path / "axes.png") == 0.0
    ax.plot([0, 1], [0, 1])
    figure.savefig(tmp_path / "line.png")
    assert colour(tmp_path / "line.png") > 1e-3


def test_an_absent_potential_is_one_sentence(tmp_path):
    done = run(tmp_path / "examples", "refractory.py", POTENTIAL="kim:SNAP_not_here__MO_000000000000_000")
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == 1 and "install" in done.stdout
    assert not list((tmp_path / "examples").glob("*.png"))


def test_a_failing_script_is_noticed(tmp_path):
    done = run(tmp_path / "examples", "percolation.py", N_SAMPLES=-1)
    assert done.returncode != 0
