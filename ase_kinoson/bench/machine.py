"""What the machine is, and how fast its memory and its arithmetic are."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ase_kinoson.bench.row import Figure, Row, rate
from ase_kinoson.bench.timing import in_turns

__all__ = ["PRODUCT", "describe", "machine_row", "peak_memory_MB", "resident_MB", "square_product", "two_threads"]

SQUARE = 1024
"""Side of the matrices whose product tells the speed of the arithmetic."""

PRODUCT = 2.0 * SQUARE**3
"""Additions and multiplications of such a product."""


def describe() -> dict[str, Any]:
    """Processor, cores, memory, GPUs and versions; neither names of machines nor paths."""
    from importlib import metadata

    from ase_kinoson.compiled import can_compile
    from ase_kinoson.stages import available_cores
    from ase_kinoson.summary import versions

    found = versions()
    for name in ("numba", "scipy", "onsager"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": available_cores(),
        "memory_GB": _memory_GB(),
        "compiled_loops": can_compile(),
        "versions": found,
    }


def _processor() -> str:
    """Name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _memory_GB() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory_MB() -> float | None:
    """Largest resident memory of this process so far, libraries included.

    Linux tells that of this program alone; what ``getrusage`` says there may be that of the process which started it.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e6 if sys.platform == "darwin" else 1e3)


def resident_MB() -> float | None:
    """Resident memory of this process now; None where the system does not tell it."""
    return _status("VmRSS")


def _status(name: str) -> float | None:
    """A number that Linux tells of this process, MB."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1000
    except OSError:
        pass
    return None


def two_threads() -> int:
    """Two, or one where there is one core."""
    from ase_kinoson.stages import available_cores

    return min(2, available_cores())


def square_product(dtype: Any = None) -> Callable[[], Any]:
    """A product of two matrices of side ``SQUARE``, single precision unless told otherwise: ``PRODUCT`` operations."""
    import torch

    a = torch.rand(SQUARE, SQUARE, dtype=dtype or torch.float32, generator=torch.Generator().manual_seed(0))
    return partial(torch.matmul, a, a, out=torch.empty_like(a))


def machine_row(quick: bool) -> Row:
    """Memory and arithmetic of this machine, on one and on two threads."""
    import torch

    figures: list[Figure] = []
    n = 4_000_000 if quick else 16_000_000
    b, c = torch.rand(n, dtype=torch.float64), torch.rand(n, dtype=torch.float64)
    a = torch.empty_like(b)
    products = {"single": square_product(), "double": square_product(torch.float64)}
    for threads in sorted({1, two_threads()}):
        torch.set_num_threads(threads)
        found = in_turns({"triad": partial(torch.add, b, c, alpha=3.0, out=a), **products})
        figures.append(rate("memory, triad", found["triad"], 24.0 * n / 1e9, "GB/s", threads=threads))
        for name in products:
            title = f"matrix product, {name} precision"
            figures.append(rate(title, found[name], PRODUCT / 1e9, "GFLOP/s", threads=threads))
    return Row(
        "machine",
        f"Memory traffic of a = b + s·c on arrays of {n * 8 / 1e6:.0f} MB, and products of matrices of side {SQUARE}.",
        tuple(figures),
        "The memory and the arithmetic units themselves: other rows take their limits from such measurements.",
    )
