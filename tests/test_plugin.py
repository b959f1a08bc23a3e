"""ASE finds what is ours through entry points, and nothing of ours can break ASE."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.io.formats import UnknownFileTypeError, define_io_format, filetype, ioformats

import ase_kinoson as ak
from ase_kinoson import ase_formats, ase_plugin
from ase_kinoson.errors import BarrierError

ROOT = Path(__file__).parents[1]
ARCHIVE = ROOT / "examples" / "data" / "cantor_107.npz"
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("entry-points", {})
HEAVY = ("torch", "pymatgen", "matplotlib")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the metadata that an installation of this tree would have, whatever is installed here."""
    folder = tmp_path_factory.mktemp("installed")
    info = folder / "ase_kinoson-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ase-kinoson\nVersion: 0.1.0\nSummary: ours\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())
        for group, entries in ENTRY_POINTS.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder


QUIET = ("-W", "error", "-W", "ignore::DeprecationWarning")  # versions of others warn of other versions of others


def python(code: str, *paths: Path, options: tuple[str, ...] = QUIET) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh Python that looks for modules in some folders first."""
    before = os.environ.get("PYTHONPATH")
    where = os.pathsep.join(map(str, [*paths, ROOT, *([before] if before else [])]))
    env = {**os.environ, "PYTHONPATH": where, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, env=env, cwd=paths[-1]
    )


def ase_commands(*commands: list[str]) -> str:
    return (
        "import sys\nfrom ase.cli.main import main\n"
        f"for words in {commands!r}:\n"
        "    try:\n        main(args=words)\n"
        "    except SystemExit as stop:\n        assert not stop.code, (words, stop.code)"
    )


@pytest.fixture(scope="module")
def registered():
    """The format, also where this tree is not installed."""
    if "kinoson-barriers" not in ioformats:
        define_io_format("kinoson-barriers", **ase_formats.barriers_format._asdict(), external=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An archive of three states of a small cell, of two sets, one barrier of which is rejected."""
    alloy = ak.Alloy.from_atoms(ase.Atoms("Cu", cell=[2.5] * 3, pbc=True), {"Cu": {"Cu": 0.5, "Ni": 0.5}})
    jumps = ak.JumpNetwork.from_supercell(alloy.supercell(3))
    states = ak.sample_states(jumps.supercell, 3, seed=0)
    barrier = 0.5 + 0.01 * np.arange(18.0).reshape(3, 6)
    barrier[1, 2] = np.inf
    sets = ak.Barriers.from_arrays(states, jumps, barrier, reverse_barrier=barrier + 0.1, energy_initial=[-1.0, -2, -3])
    path = tmp_path_factory.mktemp("small") / "small.npz"
    ak.save_barriers(path, {"train": sets, "other": sets})
    return path, sets


# -- the format -----------------------------------------------------------------------------------------------------


def test_states_of_an_archive_are_atoms_with_their_barriers(small, registered):
    path, sets = small
    assert filetype(str(path)) == "kinoson-barriers"
    images = ase.io.read(path, index=":", name="train")
    assert len(images) == 3 and len(ase.io.read(path, index=":")) == 6
    for n, atoms in enumerate(images):
        ideal = sets.states.to_atoms()[n]
        assert atoms == ideal and (atoms.arrays["site"] == ideal.arrays["site"]).all()
        assert atoms.info["carrier_site"] == sets.states.carriers[n]
        assert atoms.info["energy_initial"] == -1.0 - n
        assert atoms.info["weight"] == pytest.approx(1 / 3)
        known = sets.valid[n]
        assert np.allclose(atoms.info["barriers"], np.where(known, sets.barrier[n], np.nan), equal_nan=True)
        assert np.allclose(atoms.info["reverse_barriers"] - atoms.info["barriers"], 0.1) == (n != 1)
        # every atom beside the vacancy carries the barrier of its jump, in a cell where each has one
        targets = sets.network.targets(sets.states.carriers[[n]])[0]
        for k, site in enumerate(targets):
            value = atoms.arrays["barrier"][atoms.arrays["site"] == site]
            assert np.allclose(value, sets.barrier[n, k] if known[k] else np.nan, equal_nan=True)
        assert np.isfinite(atoms.arrays["barrier"]).sum() == known.sum()
    assert not np.allclose(images[0].info["barriers"], images[2].info["barriers"])


def test_indices_and_names_are_those_of_ase(small, registered, tmp_path):
    path, sets = small
    last = ase.io.read(path)
    assert last.info["energy_initial"] == -3
    assert ase.io.read(f"{path}@1").info["energy_initial"] == -2
    assert [a.info["energy_initial"] for a in ase.io.iread(path, index="::2")] == [-1, -3, -2]
    named = tmp_path / "states.kinoson"
    ak.save_barriers(named, sets)
    assert filetype(str(named)) == filetype(str(named), read=False) == "kinoson-barriers"
    assert len(ase.io.read(named, index=":")) == 3


def test_what_goes_through_extended_xyz_comes_back(small, registered, tmp_path):
    path, sets = small
    ase.io.write(tmp_path / "states.extxyz", ase.io.read(path, index=":", name="train"))
    back = ase.io.read(tmp_path / "states.extxyz", index=":")
    assert np.allclose(back[0].info["barriers"], sets.barrier[0])
    assert np.isfinite(back[1].arrays["barrier"]).sum() == 5
    states = ak.States.read(tmp_path / "states.extxyz", sets.states.supercell)
    assert (states.occupations == sets.states.occupations).all() and (states.groups == sets.states.groups).all()


def test_an_interstitial_carries_its_lowest_barrier(tmp_path, registered):
    alloy = ak.Alloy.from_atoms(ase.Atoms("Pd", cell=[2.5] * 3, pbc=True), {"Pd": {"Pd": 1.0}})
    jumps = ak.JumpNetwork.from_supercell(
        alloy.supercell(3), mechanism="interstitial", sites=[(0.5, 0.5, 0.5)], species="H"
    )
    states = ak.sample_states(jumps.supercell, 1, seed=0)
    barrier = 0.2 + 0.1 * np.arange(jumps.n_jumps)[None]
    ak.save_barriers(tmp_path / "h.npz", ak.Barriers.from_arrays(states, jumps, barrier, reverse_barrier=barrier))
    atoms = ase.io.read(tmp_path / "h.npz")
    assert "energy_initial" not in atoms.info
    hydrogen = atoms.symbols == "H"
    assert atoms.arrays["barrier"][hydrogen] == pytest.approx([0.2])
    assert np.isnan(atoms.arrays["barrier"][~hydrogen]).all()


def test_bad_files_are_refused_in_one_sentence(small, registered, tmp_path):
    path, _ = small
    bad = tmp_path / "bad.kinoson"
    for content in (b"no archive", path.read_bytes()[:2000], b""):
        bad.write_bytes(content)
        with pytest.raises((BarrierError, UnknownFileTypeError)) as caught:
            ase.io.read(bad, index=":")
        assert "\n" not in str(caught.value) and "bad.kinoson" in str(caught.value)
    with pytest.raises(BarrierError, match=r"found the sets train, other in small.npz; expected 'test'"):
        ase.io.read(path, name="test")
    np.savez(tmp_path / "theirs.npz", head=np.array("{}"), a=np.zeros(3))
    with pytest.raises(BarrierError, match="no archive of barriers"):
        ase.io.read(tmp_path / "theirs.npz")
    np.savez(tmp_path / "others.npz", a=np.zeros(3))  # not claimed: the archives of others are theirs
    assert filetype(str(tmp_path / "others.npz")) == "npz"


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_nothing_is_unpickled(registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("bomb.npz", head=np.array([Bomb()], dtype=object))
    with pytest.raises(BarrierError, match="no archive of barriers"):
        ase.io.read("bomb.npz")
    with zipfile.ZipFile("bomb.npz") as file:
        assert b"exploded" in file.read("head.npy")
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))  # the bomb is real
    assert (tmp_path / "exploded").exists()


# -- in ASE ---------------------------------------------------------------------------------------------------------


def test_ase_finds_the_format_and_loads_nothing_slow(installed, small):
    assert set(ENTRY_POINTS) == {"ase.ioformats", "ase.plugins"}
    done = python(
        "import sys, ase.io\n"
        f"images = ase.io.read({str(small[0])!r}, index=':')\n"
        f"print(len(images), [m for m in {HEAVY!r} if m in sys.modules])\n"
        + ase_commands(["convert", str(small[0]), "out.extxyz", "-n", ":2"]),
        installed,
    )
    assert (done.stdout, done.stderr) == ("6 []\n", "")
    assert len(ase.io.read(installed / "out.extxyz", index=":")) == 2


def has_plugins() -> bool:
    try:
        return importlib.util.find_spec("ase._4.plugins") is not None
    except ModuleNotFoundError:
        return False


def test_ase_lists_the_calculators(installed):
    assert len(ase_plugin.__ase_plugins__) == (2 if has_plugins() else 0)
    if not has_plugins():
        pytest.skip("this ASE has no plugins")
    code = (
        "import sys; from ase._4.plugins import plugins\n"
        "ours = {p.name: p for p in plugins.calculators if p.package == 'ase_kinoson'}\n"
        f"print(sorted(ours), [m for m in {HEAVY!r} if m in sys.modules])\n"
        "import ase_kinoson as ak\n"
        "print(ours['KinosonCalculator'].implementation is ak.KinosonCalculator)\n"
        "print([p.name for p in plugins.io_formats if p.package == 'ase_kinoson' and p.can_read and not p.can_write])"
    )
    done = python(code, installed)
    assert done.stdout.splitlines() == [
        "['BarrierCalculator', 'KinosonCalculator'] []",
        "True",
        "['kinoson-barriers']",
    ], done.stderr


COMMANDS = (["info"], ["info", "--formats"], ["info", "--plugins"], ["--help"])


@pytest.mark.parametrize("how", ["torch", "calculators", "ase"])
def test_ase_survives_whatever_breaks_here(how, installed, tmp_path):
    """A broken torch, broken calculators of ours, plugin classes of another ASE."""
    before = "import sys\n"
    if how == "torch":
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libc10.so: cannot open shared object file')\n")
    elif how == "calculators":
        before += "sys.modules['ase_kinoson.calculators'] = None\nsys.modules['ase_kinoson.barriers'] = None\n"
    elif has_plugins():
        before += "sys.modules['ase._4.plugins.plugin'] = None\n"
    ase.io.write(tmp_path / "x.xyz", ase.Atoms("Cu"))
    code = f"{before}import ase, ase.io; assert len(ase.io.read('x.xyz')) == 1\n"
    if how == "ase":  # of which ASE itself then has none
        code += "import ase_kinoson.ase_plugin as p; assert p.__ase_plugins__ == set()\n"
        commands = (COMMANDS[0], COMMANDS[3])
    else:
        commands = tuple(c for c in COMMANDS if has_plugins() or "--plugins" not in c)
    done = python(code + ase_commands(*commands), installed, tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "usage: ase" in done.stdout
    if how != "ase" and has_plugins():
        assert "KinosonCalculator" in done.stdout and "kinoson-barriers" in done.stdout


@pytest.mark.skipif(not has_plugins(), reason="this ASE has no plugins")
def test_an_error_in_a_plugin_would_break_ase(tmp_path):
    """The broken twin: what the guard is for."""
    info = tmp_path / "wild-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wild\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ase.plugins]\nwild = wild\n")
    (tmp_path / "wild.py").write_text("raise ImportError('no torch')\n")
    done = python(ase_commands(["info", "--plugins"]), tmp_path)
    assert done.returncode != 0 and "no torch" in done.stderr
