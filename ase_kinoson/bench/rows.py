"""The rows of the table, by name, and the process that measures one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from ase_kinoson.bench.row import Row
from ase_kinoson.errors import KinosonError

__all__ = ["ROWS", "Known", "measure_here", "measure_rows"]

TIME_LIMIT_S = 300.0
"""A row that takes longer is given up."""

MARK = "ase-kinoson bench row: "
"""Begins the line of JSON that a process prints; libraries may print before."""


@dataclass(frozen=True)
class Known:
    """Where a row is measured.

    Attributes
    ----------
    module, function : str
        Takes ``quick`` and returns a `Row`.
    about : str
        For lists.
    """

    module: str
    function: str
    about: str


ROWS = {
    name: Known(f"ase_kinoson.bench.{module}", function, about)
    for name, module, function, about in (
        ("machine", "machine", "machine_row", "memory and arithmetic of this machine"),
        ("import", "startup", "import_row", "time until the package and the command answer"),
        ("saddle", "saddle", "saddle_row", "saddle search with EMT, 107 atoms, against ASE's NEB"),
        ("barriers", "barriers", "barriers_row", "barriers of a learned model"),
        ("monte-carlo", "monte_carlo", "monte_carlo_row", "exchanges of atoms with pair energies, against onsager"),
        ("environments", "environments", "environments_row", "environments of all carriers of many states"),
        ("y", "relaxation", "y_row", "y network, inference and training step"),
        ("look-ahead", "relaxation", "look_ahead_row", "training with one jump of look-ahead"),
        ("functional", "relaxation", "functional_row", "evaluation of the functional"),
        ("gas-kmc", "kmc", "gas_row", "kinetic Monte Carlo of a lattice gas, against onsager"),
        ("learned-kmc", "kmc", "learned_row", "kinetic Monte Carlo of learned barriers"),
        ("exact", "exact", "exact_row", "exact solver, against SciPy's"),
        ("five-frequency", "exact", "five_frequency_row", "dilute alloy, against onsager's Green function"),
        ("gpu", "gpu", "gpu_row", "training and kinetic Monte Carlo on a GPU"),
    )
}
"""In the order of the table."""


def measure_here(name: str, known: Known, *, quick: bool) -> Row:
    """Measure a row in this process; one that fails says why."""
    from ase_kinoson.bench.machine import peak_memory_MB

    began = time.perf_counter()
    try:
        row = getattr(import_module(known.module), known.function)(quick)
    except Exception as error:
        row = Row(name, known.about, error=_sentence(f"{type(error).__name__}: {error}"))
    return replace(row, name=name, seconds=time.perf_counter() - began, peak_memory_MB=peak_memory_MB())


def measure_rows(names: Sequence[str] | None = None, *, quick: bool = False) -> Iterator[Row]:
    """Measure rows, each in a process of its own.

    Parameters
    ----------
    names
        Of ``ROWS``; default all.
    quick
        Smaller amounts.

    Raises
    ------
    KinosonError
        If there is no such row.
    """
    wanted = list(ROWS) if names is None else list(names)
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise KinosonError(f"found the row {unknown[0]!r}; expected some of {', '.join(ROWS)}; correct the name")
    return (_in_process(name, ROWS[name], quick=quick) for name in wanted)


def _in_process(name: str, known: Known, *, quick: bool) -> Row:
    began = time.perf_counter()
    command = [sys.executable, "-m", "ase_kinoson.bench", known.module, known.function, name]
    try:
        done = subprocess.run(
            [*command, *(["quick"] if quick else [])],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        error = f"not finished within {TIME_LIMIT_S:g} s"
    else:
        for line in reversed(done.stdout.splitlines()):
            if line.startswith(MARK):
                return Row.from_dict(json.loads(line.removeprefix(MARK)))
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        error = f"the process ended with {done.returncode}: {last}"
    return Row(name, known.about, error=_sentence(error), seconds=time.perf_counter() - began)


def _environment() -> dict[str, str]:
    """One thread in libraries that read their number at the start; rows ask torch for more where they say so."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **one, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONIOENCODING": "utf-8"}


def _sentence(text: str) -> str:
    """One line, not long."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:299] + "…"
