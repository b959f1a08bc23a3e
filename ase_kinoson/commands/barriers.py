"""``ase-kinoson barriers``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import add_study_arguments, clean_errors, open_study, table


class CLICommand:
    """Compute the reference barriers of the training states only.

    Finished barriers are kept in DIR/barriers.db (an ase.db database); run the same command again to go on.

    Example:

      ase-kinoson barriers study.toml --out results --workers 8
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        add_study_arguments(parser)

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        with clean_errors(args):
            study = open_study(args)
            found = study.barriers(progress=not args.quiet)
            rows = [
                (s, f"{r['mean']:.4f}", f"{r['std']:.4f}", str(int(r["n"])), str(int(r["rejected"])))
                for s, r in found.by_species().items()
            ]
            print(table(("jumping atom", "mean barrier (eV)", "std (eV)", "barriers", "rejected"), rows))
            for reason, n in found.n_rejected.items():
                print(f"rejected: {n} {reason}")
            print(f"stored: {study.folder / 'barriers.db'}")
