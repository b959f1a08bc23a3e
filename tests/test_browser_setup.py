"""`make browser`: a browser for the test of the report where that needs no question, one line where it does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")


@pytest.fixture
def machine(tmp_path):
    """An empty machine: only what is put on it is there; ``apt-get`` writes down how it is called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "grep"):
        (tools / name).symlink_to(shutil.which(name))
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    shutil.copy(MAKEFILE, tmp_path)

    def add(**scripts):
        for name, text in scripts.items():
            path = tools / name.replace("_", "-")
            path.write_text(f"#!{tools / 'sh'}\n{text}\n")
            path.chmod(0o755)

    def run(system="debian", **environment):
        (tmp_path / "os-release").write_text(f"ID={system}\n")
        done = subprocess.run(
            [MAKE, "-s", "browser", "OS_RELEASE=os-release"],
            cwd=tmp_path,
            env={"PATH": str(tools), **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        log = tmp_path / "apt.log"
        return done.stdout + done.stderr, log.read_text().splitlines() if log.exists() else []

    add(id="echo 0", apt_get='echo "$*" >> apt.log')
    return add, run


def test_root_on_debian_installs_chromium(machine):
    said, calls = machine[1]()
    assert "Installing chromium" in said and len(said.splitlines()) == 1
    assert calls == ["update", "install -y --no-install-recommends chromium fonts-dejavu-core"]


@pytest.mark.parametrize(
    ("scripts", "environment"), [({"chromium": ":"}, {}), ({"mine": ":"}, {"ASE_KINOSON_BROWSER": "mine"})]
)
def test_a_browser_that_is_there_is_taken(machine, scripts, environment):
    add, run = machine
    add(**scripts)
    assert run(**environment) == ("", [])


@pytest.mark.parametrize(("scripts", "system"), [({"id": "echo 1000"}, "debian"), ({}, "ubuntu")])
def test_nothing_is_installed_elsewhere(machine, scripts, system):
    add, run = machine
    add(**scripts)
    said, calls = run(system)
    assert calls == [] and len(said.splitlines()) == 1 and "the report is not tested in a browser" in said


def test_without_a_network_it_goes_on(machine):
    add, run = machine
    add(apt_get="echo no network; exit 100")
    said, _ = run()
    assert len(said.splitlines()) == 2 and "could not be installed (see .venv/browser.log)" in said
