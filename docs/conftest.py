"""Run every code block of the pages and of README.md: `python -m pytest docs README.md`, from the root.

The python blocks of a page run from top to bottom as one script, in an empty folder that holds a copy of `examples/`;
its bash blocks run there too, in their turn. toml blocks are read as settings of a study. HTML comments direct it:

    <!--- skip: next "reason" --->
    <!--- skip: next if(absent("kawin"), reason="needs kawin") --->
    <!--- invisible-code-block: python
    code that readers need not see
    --->
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

os.environ.update(MPLBACKEND="Agg", OMP_NUM_THREADS="1", COLUMNS="120")  # before numpy and torch are loaded

ROOT = Path(__file__).parents[1]
BUDGET_S = {"README.md": 90.0}
"""Processor time that a page may take, s; 20 where it is not listed. More than that is shown."""

spec = importlib.util.spec_from_file_location("page_blocks", Path(__file__).with_name("blocks.py"))
assert spec is not None and spec.loader is not None
page_blocks = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = page_blocks  # dataclasses look their module up
spec.loader.exec_module(page_blocks)


def absent(*modules: str) -> bool:
    """Whether one of some modules is not installed: for conditions of skipped blocks."""
    for module in modules:
        try:
            if importlib.util.find_spec(module) is None:
                return True
        except ModuleNotFoundError:  # the package that should hold it
            return True
    return False


class Page(Document):
    """A page whose blocks are one script: the module `__main__`, so that processes find what it defines."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text, path)
        self.module = ModuleType("__main__")
        self.namespace = vars(self.module)
        self.namespace.update(absent=absent, __page__=self)


def open_page(namespace: dict) -> None:
    page = namespace["__page__"]
    page.before = Path.cwd(), sys.modules["__main__"], dict(os.environ)
    page.folder = Path(tempfile.mkdtemp(prefix=f"{Path(page.path).stem}-"))
    shutil.copytree(ROOT / "examples", page.folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    sys.modules["__main__"] = page.module
    # commands and workers of a page use this copy of the package, installed or not
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.chdir(page.folder)


def close_page(namespace: dict) -> None:
    page = namespace["__page__"]
    folder, sys.modules["__main__"], environment = page.before
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "matplotlib" in sys.modules:
        import matplotlib.pyplot as plt

        plt.close("all")
        plt.rcdefaults()
    namespace.clear()
    shutil.rmtree(page.folder, ignore_errors=True)


def run_bash(example: Example) -> str | None:
    """Run the commands of a block in the folder of the page; all must end with 0."""
    if faults := page_blocks.shell_faults(example.parsed):
        return "; ".join(faults)
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    print(found.stdout, found.stderr, sep="\n")
    if found.returncode:
        return f"{example.parsed}ended with {found.returncode}:\n{found.stdout[-2000:]}\n{found.stderr[-4000:]}"
    return None


def read_toml(example: Example) -> str | None:
    return "; ".join(page_blocks.toml_faults(example.parsed)) or None


pages = Sybil(
    [
        PythonCodeBlockParser(),
        CodeBlockParser("bash", run_bash),
        CodeBlockParser("toml", read_toml),
        SkipParser(),
    ],
    patterns=["*.md"],
    path=str(ROOT),
    setup=open_page,
    teardown=close_page,
    document_types={".md": Page},
)


class Pages:
    """What applies to README.md too, which no conftest of this folder would see."""

    collect = staticmethod(pages.pytest())

    def pytest_collect_file(self, file_path, parent):
        if file_path == ROOT / "README.md" or file_path.parent == ROOT / "docs":  # not what is built below docs
            return self.collect(file_path, parent)
        return None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        before = os.times()
        try:
            return (yield)
        finally:
            spent = sum(b - a for a, b in zip(before[:4], os.times()[:4], strict=True))
            item.user_properties.append(("processor_s", spent))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        report = yield
        if report.skipped and isinstance(report.longrepr, tuple):  # where on the page, not where in pytest
            report.longrepr = str(item.path.relative_to(ROOT)), item.example.line, report.longrepr[2]
        return report

    def pytest_terminal_summary(self, terminalreporter):
        spent = defaultdict(float)
        for report in (r for group in terminalreporter.stats.values() for r in group):
            if getattr(report, "when", None) == "call":
                spent[report.nodeid.partition("::")[0]] += dict(report.user_properties).get("processor_s", 0.0)
        if spent:
            terminalreporter.section("processor time of the pages")
        for page, seconds in sorted(spent.items()):
            over = " (over its budget)" if seconds > BUDGET_S.get(page, 20.0) else ""
            terminalreporter.write_line(f"{seconds:7.1f} s  {page}{over}")


def pytest_configure(config):
    if getattr(config.option, "dist", "no") not in ("no", "loadfile"):
        raise pytest.UsageError("the blocks of a page need one worker: add --dist loadfile")
    # other libraries' warnings are not the pages' business, those of page and package are; the package may say
    # KinosonWarning on a page, whose data are small on purpose
    own = [line for line in config.getini("filterwarnings") if line != "error"]
    for line in ("default", "error:::ase_kinoson|__main__", *own, "default::ase_kinoson.errors.KinosonWarning"):
        config.addinivalue_line("filterwarnings", line)
    config.pluginmanager.register(Pages(), "pages")
