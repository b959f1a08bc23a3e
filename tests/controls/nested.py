"""Runs tests of this suite in a process in which one defect is planted, and tells what became of them.

A server imports the package once and forks for every request, so that nothing planted stays anywhere. Nothing is
compiled there: defects are planted in NumPy's way of doing it.

    python -m tests.controls.nested DEFECT TEST [TEST ...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase_kinoson.compiled import SWITCH

ROOT = Path(__file__).parents[2]
QUIET = ("-q", "-x", "-s", "--tb=no", "--no-header", "--no-summary", "-p", "no:cacheprovider")
AGED = ("-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning")
"""Old versions of others may warn of new ones when they are imported; that is no defect planted."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test with a defect planted.

    Attributes
    ----------
    test : str
        Its node id.
    when : str
        ``"call"``, or ``"setup"`` if it did not come that far.
    passed : bool
    error : str
        Class of what was raised.
    message : str
        Its first line.
    """

    test: str
    when: str
    passed: bool
    error: str = ""
    message: str = ""


class Planting:
    """Plugin of pytest: plants after the test files are imported, as they may hold functions by name."""

    def __init__(self, defect: str) -> None:
        self.defect, self.found = defect, []

    def pytest_collection_finish(self, session: Any) -> None:
        from tests.controls.defects import DEFECTS

        if self.defect:
            DEFECTS[self.defect].plant()

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        if call.when == "call" or (call.when == "setup" and call.excinfo is not None):
            raised = call.excinfo
            name = "" if raised is None else raised.type.__name__
            said = "" if raised is None else (str(raised.value).splitlines() or [""])[0][:200]
            self.found.append([item.nodeid, call.when, raised is None, name, said])


def run_here(defect: str, tests: Sequence[str]) -> list[list[Any]]:
    """Run tests in this process, which is not good for anything else afterwards; ``""`` plants nothing."""
    import pytest

    plugin = Planting(defect)
    os.chdir(ROOT)
    # the first failure ends it; tests named by node id, all parameters of each
    code = pytest.main([*QUIET, *AGED, *tests], plugins=[plugin])
    if not plugin.found:
        raise RuntimeError(f"found no test to run among {list(tests)} (pytest ended with {code}); correct the table")
    return plugin.found


def _serve() -> None:
    """Answer requests, one line of JSON each, until there are no more."""
    import pytest
    import torch

    import ase_kinoson as ak
    import tests.controls.defects

    torch.set_num_threads(1)
    for name in ak.__all__:
        getattr(ak, name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what tests print is no answer
    os.chdir(ROOT)
    pytest.main([*QUIET, *AGED, "--collect-only", "tests/crystal/test_jumps.py"])  # imports what every run needs
    for line in sys.stdin:
        defect, tests = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(write, "w") as pipe:
                try:
                    json.dump(run_here(defect, tests), pipe)
                except BaseException as error:
                    json.dump(f"{type(error).__name__}: {error}", pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        answers.write((text or json.dumps("the process died")) + "\n")
        answers.flush()


class Server:
    """A process that runs tests with a defect planted; a context manager."""

    def __enter__(self) -> Server:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "KINOSON_PROP"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.controls.nested"],
            cwd=ROOT,
            env={**environment, "MPLBACKEND": "Agg", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", SWITCH: "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()

    def run(self, defect: str, tests: Sequence[str]) -> list[Outcome]:
        """Run tests, all parameters of each, until one fails.

        Raises
        ------
        RuntimeError
            If none was run.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([defect, list(tests)]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '"the server died"')
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return [Outcome(*one) for one in answer]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for row in run_here(sys.argv[1], sys.argv[2:]):
            print(*row)
    else:
        _serve()
