"""What is released: the version, the changelog, types for users, and a wheel that works without the repository."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import ase_kinoson as ak

ROOT = Path(__file__).parents[1]
THIRD_PARTIES = ("-W", "ignore:Set OLD_ERROR_HANDLING to false:DeprecationWarning")
"""Of spglib 2.7 and later, as in pyproject.toml."""


def run(*words: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed, in a folder that is not the repository."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"MPLBACKEND": "Agg"} | variables
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def python(code: str, *options: str) -> str:
    """What a fresh Python prints that imports the package of this tree."""
    return run(sys.executable, *options, "-c", code, cwd=ROOT).stdout.strip()


# -- import ---------------------------------------------------------------------------------------------------------

HEAVY = ("torch", "pymatgen", "matplotlib", "pandas", "scipy", "ase", "numpy")


def test_import_is_quiet_and_loads_nothing_and_every_name_is_there():
    code = (
        "import sys, ase_kinoson as ak\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])\n"
        "assert len(set(ak.__all__)) == len(ak.__all__) > 80 and set(ak.__all__) <= set(dir(ak))\n"
        "print([n for n in ak.__all__ if getattr(ak, n) is None or n not in vars(ak)])\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    before, names, after = python(code, "-W", "error", *THIRD_PARTIES).splitlines()
    assert (before, names) == ("[]", "[]")
    assert "'torch'" in after and "'ase'" in after  # what the first list would show
    assert "matplotlib" not in after and "pymatgen" not in after
    with pytest.raises(AttributeError, match="no_such"):
        ak.no_such  # noqa: B018


# -- the version and the changelog ----------------------------------------------------------------------------------


def test_the_version_is_that_of_the_installation(monkeypatch):
    code = "import ase_kinoson as ak; print(ak.__version__)"
    try:
        assert python(code) == ak.__version__ == version("ase-kinoson")
    except PackageNotFoundError:
        assert ak.__version__ == "0+unknown"
    assert re.match(r"\d+(\.\d+)*", ak.__version__)
    # a tree that nobody installed
    alone = "import importlib.metadata as m, sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; " + code
    assert python(alone, "-S") == "0+unknown"


HEADING = re.compile(r"^## \[(?:Unreleased|(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$)")
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def faults(changelog: str) -> list[str]:
    """What is not as in keepachangelog.com 1.1.0."""
    wrong, versions, dates = [], [], []
    for line in changelog.splitlines():
        if line.startswith("## "):
            found = HEADING.match(line)
            if not found or (found[1] is None and line != "## [Unreleased]"):
                wrong.append(f"{line}: expected ## [Unreleased] or ## [1.2.3] - 2026-01-31")
            elif found[1] is None and versions:
                wrong.append(f"{line}: expected first")
            elif found[1]:
                versions.append(tuple(map(int, found[1].split("."))))
                dates.append(found[2])
        elif line.startswith("### ") and line[4:] not in SECTIONS:
            wrong.append(f"{line}: expected one of {SECTIONS}")
    if versions != sorted(set(versions), reverse=True) or dates != sorted(dates, reverse=True):
        wrong.append(f"versions {versions} of {dates}: expected the newest first")
    return wrong


def test_the_changelog_is_one():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert faults(text) == []
    good = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-31\n\n### Added\n\n## [0.1.0] - 2026-11-21\n"
    assert faults(good) == []
    for old, new in (
        ("- 2027-01-31", "- unreleased (2026-11-21)"),
        ("[0.2.0]", "[0.1.0]"),
        ("2027", "2025"),
        ("### Added", "### New"),
        ("## [Unreleased]\n\n## [0.2.0] - 2027-01-31", "## [0.2.0] - 2027-01-31\n\n## [Unreleased]"),
    ):
        assert len(faults(good.replace(old, new))) == 1, new


def test_tags_are_in_the_changelog():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and the repository")
    done = subprocess.run(["git", "tag", "--list", "v*"], capture_output=True, text=True, cwd=ROOT)
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [tag for tag in done.stdout.split() if f"## [{tag[1:]}]" not in text] == []


def test_the_citation_names_the_newest_release():
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None and cited[1] == (released or ["0.1.0"])[0]


# -- types ----------------------------------------------------------------------------------------------------------


def functions(public: str, what: object):
    """A public function, or the public methods and properties that a class defines in this package."""
    if inspect.isfunction(what):
        yield public, what
    elif inspect.isclass(what):
        own = [c for c in what.__mro__ if c.__module__.startswith("ase_kinoson")]
        for cls in own:
            for name, member in vars(cls).items():
                if name.startswith("_") and not (name == "__init__" and not dataclasses.is_dataclass(cls)):
                    continue
                found = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
                found = getattr(found, "func", found)  # of a cached property
                if inspect.isfunction(found):
                    yield f"{public}.{name}", found


def untyped(name: str, function) -> list[str]:
    """Parameters and results without annotation."""
    signature = inspect.signature(function)
    wrong = [
        f"{name}({p.name})"
        for n, p in enumerate(signature.parameters.values())
        if p.annotation is p.empty and not (n == 0 and p.name in ("self", "cls", "d"))
    ]
    return wrong + ([f"{name} ->"] if signature.return_annotation is signature.empty else [])


@pytest.mark.parametrize("public", ak.__all__)
def test_everything_public_is_annotated(public):
    assert [fault for name, f in functions(public, getattr(ak, public)) for fault in untyped(name, f)] == []


def test_missing_annotations_are_found():
    class Half:
        def method(self, x, y: int) -> int: ...

        @property
        def bare(self): ...

        @classmethod
        def make(cls, n: int): ...

    Half.__module__ = "ase_kinoson.half"
    found = [fault for name, f in functions("Half", Half) for fault in untyped(name, f)]
    assert found == ["Half.method(x)", "Half.bare ->", "Half.make ->"]
    assert len(list(functions("Transport", ak.Transport))) > 3


# -- the wheel ------------------------------------------------------------------------------------------------------


def has(*modules: str) -> bool:
    return all(importlib.util.find_spec(m) is not None for m in modules)


needs_tools = pytest.mark.skipif(not has("hatchling", "hatch_vcs", "pip"), reason="needs hatchling, hatch-vcs and pip")


def copied(to: Path) -> Path:
    """The tree without git, as in a downloaded archive."""
    to.mkdir()
    for name in ("ase_kinoson", "tests", "examples", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "_build", "auto_examples"))
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in (".md", ".toml", ".cff", ".txt", "") and path.name != ".git":
            shutil.copy(path, to)
    return to


def version_of(tree: Path) -> str:
    return run(sys.executable, "-m", "hatchling", "version", cwd=tree).stdout.strip()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copied(tmp_path_factory.mktemp("release") / "tree")


@pytest.mark.slow
@needs_tools
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_version_is_the_tag(tmp_path):
    """In a repository, in an archive of it, and in an sdist."""
    tree = copied(tmp_path / "tree")
    shutil.rmtree(tree / "docs")  # smaller; the version is asked for, nothing is built yet
    assert version_of(tree) == "0.1.0.dev0"

    def git(*words: str) -> None:
        name = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "init.defaultBranch=main")
        run("git", *name, *words, cwd=tree, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1")

    git("init", "-q")
    git("add", "pyproject.toml", "README.md", "LICENSE", "ase_kinoson/__init__.py")
    git("commit", "-q", "-m", "first")
    assert re.match(r"0\.1(\.0)?\.dev\d+", version_of(tree))
    (tree / ".gitignore").write_text("*\n")
    git("tag", "v0.3.0")
    assert version_of(tree) == "0.3.0"
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", cwd=tree)
    with tarfile.open(tree / "dist" / "ase_kinoson-0.3.0.tar.gz") as file:
        file.extractall(tmp_path / "sdist", filter="data")
    assert version_of(tmp_path / "sdist" / "ase_kinoson-0.3.0") == "0.3.0"
    git("commit", "-q", "--allow-empty", "-m", "second")
    assert version_of(tree).startswith("0.3.1.dev1")


@pytest.fixture(scope="module")
def wheel(tree):
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist", cwd=tree)
    (found,) = (tree / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with nothing but the wheel, that borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "v", cwd=folder)
    own = folder / "v" / ("Scripts" if os.name == "nt" else "bin")
    site = Path(run(own / "python", "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).stdout.strip())
    # what a .pth file adds is searched last, and the .pth files in there (such as that of this tree) are not read
    (site / "borrowed.pth").write_text(
        "\n".join(p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")) + "\n"
    )
    pip = (sys.executable, "-m", "pip", "--python", own / "python", "install", "-q", "--no-deps", "--no-index")
    run(*pip, "--disable-pip-version-check", wheel, cwd=folder)
    return folder, own, site


@pytest.mark.slow
@needs_tools
def test_what_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
        assert file.read(f"{info}/entry_points.txt").count(b"ase_kinoson") >= 3
        metadata = file.read(f"{info}/METADATA").decode()
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "ase_kinoson").rglob("*") if p.is_file()}
    package = {p for p in package if "__pycache__" not in p}
    assert {n for n in names if not n.startswith(info)} == package
    assert {"ase_kinoson/py.typed", "ase_kinoson/templates/report.css", f"{info}/licenses/LICENSE"} <= names
    assert "Requires-Python: >=3.11" in metadata and "Typing :: Typed" in metadata
    assert "Name: ase-kinoson" in metadata and "Version: 0.1.0.dev0" in metadata


@pytest.mark.slow
@needs_tools
def test_the_wheel_works_alone(environment):
    folder, own, site = environment
    where = run(own / "python", "-c", "import ase_kinoson as ak; print(ak.__file__, ak.__version__)", cwd=folder).stdout
    assert str(site) in where and where.split()[-1] == "0.1.0.dev0"
    assert run(own / "ase-kinoson", "--version", cwd=folder).stdout == "ase-kinoson-0.1.0.dev0\n"
    assert "0.1.0.dev0" in run(own / "ase-kinoson", "info", cwd=folder).stdout
    archive = ROOT / "examples" / "data" / "cantor_107.npz"
    code = f"import ase.io, sys; print(len(ase.io.read({str(archive)!r}, index=':10')), 'torch' in sys.modules)"
    assert run(own / "python", "-W", "error", "-c", code, cwd=folder).stdout == "10 False\n"


USER = """
import ase_kinoson as ak
from ase.build import bulk

alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
cell = alloy.supercell(3)
jumps = ak.JumpNetwork.from_supercell(cell)
states = ak.sample_states(cell, 4, seed=0)
gas = ak.SpeciesRates({"Cu": 1.0, "Ni": 2.0})
y = ak.train_relaxation(cell, jumps, gas, temperature_K=1000.0)
reveal_type(ak.transport(states, jumps, gas, y, temperature_K=1000.0))
reveal_type(ak.transport(states, jumps, gas, y, temperature_K=1000.0).vacancy_diffusivity)
reveal_type(ak.__version__)
"""
FOREIGN = {"plot_kinosons_3d", "to_dataframe", "view_kinosons_3d"}
"""What returns an object of matplotlib, pandas or plotly, which are passed over here."""
MYPY = """[mypy]
strict = true
follow_imports = silent
[mypy-ase.*,matplotlib.*,monty.*,pandas.*,pydantic.*,pymatgen.*,scipy.*,spglib.*,torch.*]
follow_imports = skip
follow_imports_for_stubs = true
"""


@pytest.mark.slow
@needs_tools
@pytest.mark.skipif(not has("mypy"), reason="needs mypy")
def test_a_user_gets_types(environment):
    folder, own, site = environment
    (folder / "mypy.ini").write_text(MYPY)
    (folder / "user.py").write_text(USER + "".join(f"reveal_type(ak.{name})\n" for name in ak.__all__))
    words = (own / "python", "-m", "mypy", "--config-file", "mypy.ini", "user.py")
    out = run(*words, cwd=folder, MYPYPATH="").stdout
    found = re.findall(r'Revealed type is "(.*)"', out)
    assert found[:3] == [
        "ase_kinoson.kinosons.result.Transport",
        "ase_kinoson.kinosons.statistics.Quantity",
        "str",
    ]
    assert len(found) == 3 + len(ak.__all__)
    returns = {name: text.rpartition("-> ")[2] for name, text in zip(ak.__all__, found[3:], strict=True)}
    assert {name for name, text in returns.items() if text in ("", "Any")} == FOREIGN
    (site / "ase_kinoson" / "py.typed").unlink()
    env = {**os.environ, "MYPYPATH": ""}
    broken = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=folder, env=env)
    assert broken.returncode != 0 and "py.typed" in broken.stdout
