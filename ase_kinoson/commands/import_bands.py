"""``ase-kinoson import``."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import add_study_file, clean_errors, refuse_to_overwrite, table


class CLICommand:
    """Turn NEB results of any code into an archive of barriers, and say what is refused and why.

    Alloy, cell and jumps are those of the study file; its lattice constant and supercell must be those of the bands.

    Example:

      ase-kinoson import study.toml neb_bands --out bands.npz

    In Python, load_barriers("bands.npz") gives barriers that BarrierModel.fit learns from. Exit status 1 if no band
    could be used; nothing is written then.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        add_study_file(parser)
        parser.add_argument(
            "bands",
            nargs="+",
            metavar="BANDS",
            help="file with the images of a band (extended XYZ, trajectory), folder of such files, or VASP folder",
        )
        parser.add_argument(
            "--out", metavar="FILE", default="bands.npz", help="archive to write (default: %(default)s)"
        )
        parser.add_argument(
            "--barrier",
            choices=("highest", "spline"),
            default="highest",
            help="saddle energy: the highest image, or the highest point of a curve through all (default: %(default)s)",
        )
        parser.add_argument(
            "--fmax", type=float, metavar="F", help="refuse bands with larger forces, eV/Å (default: not looked at)"
        )
        parser.add_argument(
            "--energy-tolerance",
            type=float,
            metavar="E",
            default=0.01,
            help="how much the energies of one state may differ between bands, eV (default: %(default)s)",
        )
        parser.add_argument(
            "--unwrap", action="store_true", help="accept atoms that jump by a lattice vector between images"
        )
        parser.add_argument("--force", action="store_true", help="replace FILE if it exists")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        from ase_kinoson.barriers.archive import save_barriers
        from ase_kinoson.barriers.bands import import_bands
        from ase_kinoson.errors import KinosonWarning
        from ase_kinoson.study import Study

        with clean_errors(args):
            out = refuse_to_overwrite(args.out, args.force)
            jumps = Study.from_toml(args.study).jumps
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", KinosonWarning)  # what is refused is printed
                found = import_bands(
                    args.bands if len(args.bands) > 1 else args.bands[0],
                    jumps,
                    barrier=args.barrier,
                    fmax=args.fmax,
                    energy_tolerance=args.energy_tolerance,
                    unwrap=args.unwrap,
                )
            rows = [
                (b.name, b.species, f"{b.barrier:.4f}", f"{b.reverse_barrier:.4f}", f"{1000 * b.spline:.1f}")
                for b in found.bands
            ]
            if rows:
                save_barriers(out, found.barriers, about={"bands": [b.name for b in found.bands]})
                head = ("band", "moving atom", "barrier (eV)", "reverse (eV)", "curve above highest image (meV)")
                print(table(head, rows))
            print(found)
            if rows:
                print(f"written: {out}")
        if not rows:
            raise SystemExit(1)
