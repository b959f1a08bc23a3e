"""Time until something happens: processor time of a fresh Python."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from ase_kinoson.bench.row import Figure, Limit, Row

__all__ = ["import_row"]

CASES = {
    "import ase_kinoson": ("import ase_kinoson", "pass", "Python alone"),
    "ase-kinoson --help": ("from ase_kinoson.cli import main; main(['--help'])", "import ase.cli.main", "ASE's own"),
    "every public name": (
        "import ase_kinoson as ak; [getattr(ak, name) for name in ak.__all__]",
        "import torch, scipy.sparse.linalg, pydantic, ase.io, pymatgen.core",
        "torch, SciPy, pydantic, ASE and pymatgen alone",
    ),
}
"""What is timed, what it stands on, and how that is called."""


def import_row(quick: bool) -> Row:
    """Processor time of imports and of the help, beside what they stand on."""
    figures = []
    for name, (code, below, called) in CASES.items():
        if quick and name == "every public name":
            continue
        repeats = 5
        ours, theirs = [], []
        for turn in range(repeats + 1):
            pair = _processor_seconds(code), _processor_seconds(below)
            if turn:  # the first reads from disk, and compiles after an installation
                ours.append(pair[0])
                theirs.append(pair[1])
        value, least = statistics.median(ours), statistics.median(theirs)
        share = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        limit = Limit(called, least, share)
        figures.append(Figure(name, value, "s", min(ours), max(ours), repeats, limit=limit))
    return Row(
        "import",
        "Processor time of a fresh Python, s.",
        tuple(figures),
        "The libraries below: nothing slow is loaded before it is needed.",
    )


def _processor_seconds(code: str) -> float:
    """Processor time of a Python that runs some code, s."""
    before = _spent_by_children()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return _spent_by_children() - before


def _spent_by_children() -> float:
    """Processor time of all processes that have ended, s; where the system does not tell it, time that has passed."""
    try:
        import resource
    except ImportError:
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
