"""The scripts of `examples/` as a gallery: their order, their short forms, and what some of them need.

The configuration of Sphinx and the tests of the scripts share this. It imports nothing but the standard library until
it is asked what is missing.
"""

from __future__ import annotations

import ast
import builtins
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
COPIES = Path(__file__).parent / "_build" / "examples"

ORDER = (
    "first_diffusivity.py",
    "ase_calculator.py",
    "from_cif.py",
    "from_neb_results.py",
    "pure_copper.py",
    "temperature_series.py",
    "active_learning.py",
    "dask_campaign.py",
    "cantor_barriers.py",
    "cantor_diffusion.py",
    "kinosons_3d.py",
    "composition_map.py",
    "refractory.py",
    "percolation.py",
    "hydrogen_in_alloy.py",
    "lithium_channel.py",
    "own_barrier_model.py",
    "exact_small_cells.py",
)
"""Scripts as the gallery shows them, from the first steps to special cases."""

SHORT: dict[str, dict[str, Any]] = {
    "active_learning.py": {
        "N_TRAINING": 6,
        "N_RELAXATION": 10,
        "N_POOL": 40,
        "N_RUNS": 2,
        "MAX_BARRIERS": 120,
        "BATCH": 40,
    },
    "ase_calculator.py": {"N_TRAINING": 6, "N_RELAXATION": 10, "N_FRAMES": 6},
    "cantor_barriers.py": {"N_STATES": 8, "N_TRAJECTORIES": 16},
    "cantor_diffusion.py": {
        "TEMPERATURES_K": (1073.0, 1173.0),
        "N_STATES": 8,
        "N_WALKERS": 16,
        "LONG_JUMPS": 0,
        "N_KMC": 64,
    },
    "composition_map.py": {"N_STATES": 2, "STEP": 0.5, "TRAINING_STEP": 0.5, "N_WALKERS": 32, "N_JUMPS": 64},
    "dask_campaign.py": {"N_STATES": 2, "KILL_AFTER_S": 2.0},
    "exact_small_cells.py": {"SILVER": 0.04, "N_TRAINING": 10, "N_STEPS": 4, "N_WALKERS": 32, "N_JUMPS": 128},
    "first_diffusivity.py": {"N_TRAINING": 3, "N_STATES": 2, "N_RELAXATION": 10},
    "from_cif.py": {"N_TRAINING": 3, "N_STATES": 2, "N_RELAXATION": 10},
    "from_neb_results.py": {
        "N_STATES": 4,
        "SIZE": 2,
        "N_WALKERS": 32,
        "N_JUMPS": 64,
        "TEMPERATURES_K": (1000.0, 1300.0),
    },
    "hydrogen_in_alloy.py": {"N_STATES": 6, "SIZE": 4, "N_HOSTS": 4, "TEMPERATURES_K": (600.0, 900.0)},
    "kinosons_3d.py": {"VIEW": False},
    "lithium_channel.py": {"LENGTHS": (4, 8), "N_STATES": 10},
    "own_barrier_model.py": {"SIZE": 2, "N_STATES": 90, "SWEEPS": 10, "CROWDING": (0.0, 0.02)},
    "percolation.py": {"N_SAMPLES": 10, "N_FRACTIONS": 5, "N_ARRANGEMENTS": 2},
    "pure_copper.py": {"TEMPERATURES_K": (800.0, 1300.0), "SIZES": (2, 3)},
    "refractory.py": {"N_STATES": 6, "N_MODEL": 32, "N_JUMPS": 64},
    "temperature_series.py": {"TEMPERATURES_K": (900.0, 1000.0, 1100.0), "N_STATES": 12, "N_RELAXATION": 10},
}
"""Settings of the short forms: script → name of a constant → value."""

SLOW = (
    "cantor_barriers.py",
    "cantor_diffusion.py",
    "composition_map.py",
    "dask_campaign.py",
    "first_diffusivity.py",
    "from_cif.py",
    "own_barrier_model.py",
    "refractory.py",
)
"""Scripts whose short form takes more than about ten seconds."""

PACKAGES = {"dask_campaign.py": "distributed"}
"""Package that a script needs beyond the dependencies; its extra is named in `missing`."""
POTENTIALS = {"refractory.py": "nbtawmo-snap"}
"""Potential by name that a script needs."""
ALONE = ("dask_campaign.py",)
"""Scripts that start processes, which the parallel workers of sphinx-gallery cannot."""


def missing(script: str) -> str:
    """Why a script cannot run here, in words; empty if it can."""
    package = PACKAGES.get(script)
    if package and find_spec(package) is None:
        return f"found no package {package}; pip install 'ase-kinoson[dask]'"
    if script in POTENTIALS:
        import ase_kinoson as ak

        return ak.potential(POTENTIALS[script]).missing()
    return ""


def short_form(source: str, values: dict[str, Any]) -> str:
    """Source text of a script with other values of its top-level constants; lines keep their numbers.

    Raises
    ------
    ValueError
        If the script does not set one of the names at its top level, or the name is not in capitals.
    """
    lines = source.encode().splitlines(keepends=True)
    places: dict[str, ast.expr] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name):
            places[target.id] = value
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            places |= {t.id: v for t, v in zip(target.elts, value.elts, strict=True) if isinstance(t, ast.Name)}
    wrong = [name for name in values if name not in places or not name.isupper()]
    if wrong:
        known = ", ".join(name for name in places if name.isupper())
        raise ValueError(f"found settings {', '.join(wrong)}; expected constants of the script: {known}; correct SHORT")
    for name in sorted(values, key=lambda n: (places[n].lineno, places[n].col_offset), reverse=True):
        node = places[name]
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        tail = lines[last][node.end_col_offset or 0 :]
        new = lines[first][: node.col_offset] + repr(values[name]).encode() + tail
        lines[first : last + 1] = [new, *[b"\n"] * (last - first)]
    return b"".join(lines).decode()


def copy_examples(target: Path = COPIES, *, short: bool = False) -> list[str]:
    """Copy `examples/` to where the gallery runs it, so that nothing is left there, and say which scripts can run.

    Parameters
    ----------
    target
        Folder; what was in it goes.
    short
        Write the short forms.

    Returns
    -------
    list of str
        Names of the scripts that can run; the others get a note that says why they do not.
    """
    shutil.rmtree(target, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.db", "*.png", "*.html", "*.csv", "*-output", "*-map")
    shutil.copytree(EXAMPLES, target, ignore=ignored)
    shutil.copy(Path(__file__).parent / "gallery_header.rst", target / "GALLERY_HEADER.rst")
    can_run = []
    for path in sorted(target.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if short:
            text = short_form(text, SHORT.get(path.name, {}))
        if path.name in ALONE:
            text += "# sphinx_gallery_parallel = False\n"
        why = missing(path.name)
        if why:
            end = text.index('"""', 3)
            text = f"{text[:end]}\n.. note::\n\n   Not run for these pages: {why}.\n{text[end:]}"
        else:
            can_run.append(path.name)
        path.write_text(text, encoding="utf-8")
    return can_run


# -- hooks of sphinx-gallery, which takes them by name -----------------------------------------------------------------


def position(filename: str) -> tuple[int, str]:
    """Place of a script in the gallery; scripts that `ORDER` does not know come last."""
    name = Path(filename).name
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def give_file(conf: dict[str, Any], fname: str | None) -> None:
    """Let a script know its own path: sphinx-gallery runs it without ``__file__``."""
    if fname is not None:
        builtins.__file__ = str(COPIES / Path(fname).name)  # type: ignore[attr-defined]
