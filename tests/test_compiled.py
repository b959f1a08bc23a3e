"""Compiled code is that of the sources as they are now, wherever it is kept; what cannot be kept is compiled anew."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import ase_kinoson
from ase_kinoson import compiled as module
from ase_kinoson.compiled import SOURCES, can_compile, compiled
from ase_kinoson.errors import KinosonWarning

needs_numba = pytest.mark.skipif(not can_compile(), reason="numba is not installed, or switched off")

ROOT = Path(ase_kinoson.__file__).parent
DECORATORS = {"compiled", "njit", "jit", "_intrinsic", "intrinsic"}


def taken_from(path):
    """Modules of the package whose names the compiled functions of a module use; None where none is compiled."""
    tree = ast.parse(path.read_text())
    origin = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ase_kinoson."):
            origin |= {
                a.asname or a.name: node.module.removeprefix("ase_kinoson.").replace(".", "/") for a in node.names
            }
    found, any_compiled = set(), False
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            marks = {n.attr if isinstance(n, ast.Attribute) else n.id for d in node.decorator_list for n in ast.walk(d)
                     if isinstance(n, ast.Attribute | ast.Name)}  # fmt: skip
            if marks & DECORATORS:
                any_compiled = True
                found |= {origin[n.id] for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in origin}
    return found if any_compiled else None


def test_all_sources_of_compiled_code_are_asked():
    """Functions, constants and named tuples that compiled functions take from other modules."""
    used = {}
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).with_suffix("").as_posix()
        if name.split("/")[0] not in ("bench", "compiled"):
            found = taken_from(path)
            if found is not None:
                used |= {name: name} | {other: name for other in found}
    assert {"kinetics/loops", "kinetics/jump_step", "barriers/vector_loops", "barriers/incremental"} <= set(used)
    assert set(used) <= set(SOURCES)
    assert all((ROOT / f"{name}.py").is_file() for name in SOURCES)


CALLER = """
import numba
from ase_kinoson.compiled import compiled
from ase_kinoson.called import one

@compiled()
def ours():
    return one()

@numba.njit(cache=True)
def theirs():
    return one()
"""
CALLED = """
import numba

@numba.njit
def one():
    return {}
"""
ASK = """
import sys, ase_kinoson, ase_kinoson.compiled
ase_kinoson.__path__.append(sys.argv[1])
ase_kinoson.compiled.SOURCES = ("called", "caller")
from ase_kinoson.caller import ours, theirs
print(ours(), theirs(), sum(ours.stats.cache_hits.values()))
"""


@needs_numba
def test_a_change_in_another_module_is_noticed(tmp_path):
    """The broken twin is numba's own cache, which asks for the file of the caller only."""
    (tmp_path / "caller.py").write_text(CALLER)

    def said(number):
        (tmp_path / "called.py").write_text(CALLED.format(number))
        run = subprocess.run([sys.executable, "-c", ASK, str(tmp_path)], capture_output=True, text=True, check=True)
        return [int(x) for x in run.stdout.split()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        assert said(1) == [1, 1, 0]
        assert said(1) == [1, 1, 1]  # nothing changed: nothing is compiled
        assert said(2) == [2, 1, 0]
    assert list((tmp_path / "kept").rglob("*.tmp")) == []


def double(x):
    return 2 * x


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder for compiled code."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


@needs_numba
def test_damaged_files_are_no_files(kept):
    assert compiled()(double)(3) == 6
    (file,) = kept.rglob("*.nbc")
    again = compiled()(double)
    assert again(3) == 6 and sum(again.stats.cache_hits.values()) == 1
    file.write_bytes(file.read_bytes()[:-50])
    again = compiled()(double)
    assert again(3) == 6 and sum(again.stats.cache_hits.values()) == 0
    file.write_bytes(b"nonsense")
    assert compiled()(double)(3) == 6


@needs_numba
def test_code_of_another_stamp_is_replaced(kept, monkeypatch):
    compiled()(double)(3)
    monkeypatch.setattr(module, "_stamp", lambda: "another version")
    again = compiled()(double)
    assert again(3) == 6 and sum(again.stats.cache_hits.values()) == 0
    assert len(list(kept.rglob("*.nbc"))) == 1
    again = compiled()(double)
    assert again(3) == 6 and sum(again.stats.cache_hits.values()) == 1


@needs_numba
def test_without_a_folder_nothing_is_kept(kept, monkeypatch):
    import numba
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled()(double)(3) == 6
    with pytest.raises(RuntimeError, match="no locator available"):  # the broken twin
        numba.njit(cache=True)(double)
    # another numba, which keeps code in its own way
    monkeypatch.setattr(caching, "FunctionCache", lambda function: object())
    assert compiled()(double)(3) == 6


@needs_numba
def test_a_full_disk_does_not_end_a_run(kept, monkeypatch):
    import numba
    from numba.core import caching

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    assert compiled()(double)(3) == 6
    with pytest.raises(OSError, match="No space left"):  # the broken twin
        numba.njit(cache=True)(double)(3)


@needs_numba
def test_two_that_write_at_once_do_not_mix_up_their_code(tmp_path):
    """Both find an empty folder, and the second is in between the first one's index and its code."""
    from numba.core.caching import IndexDataCacheFile

    one, two = (module._CodeFiles(tmp_path / "f", "now") for _ in range(2))
    two.save("float", "code of float")
    one.save("int", "code of int")
    assert (two.load("float"), two.load("int")) == ("code of float", "code of int")
    # the broken twin: numba's files, numbered as they come
    first, second = (IndexDataCacheFile(str(tmp_path), "g", "now") for _ in range(2))
    write = first._save_data
    second._load_index = dict

    def interrupted(name, data):
        second.save("float", "code of float")
        write(name, data)

    first._save_data = interrupted
    first.save("int", "code of int")
    assert first.load("float") == "code of int"


@needs_numba
def test_what_switches_numba_off(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # loops in plain Python are slower than NumPy
    assert not can_compile()
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    assert can_compile()


def test_a_numba_that_does_not_work_is_told_and_left_alone(monkeypatch):
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    monkeypatch.delenv(module.SWITCH, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "numba", None)
    module._numba_works.cache_clear()
    try:
        with pytest.warns(KinosonWarning, match="numba is installed and cannot be imported"):
            assert not can_compile()
        assert not can_compile()
    finally:
        module._numba_works.cache_clear()
