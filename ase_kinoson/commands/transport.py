"""``ase-kinoson transport``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import add_study_arguments, clean_errors, open_study


class CLICommand:
    """Go as far as the transport coefficients; like run, without the report.

    Example:

      ase-kinoson transport study.toml --out results --quiet
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
            result = study.transport(progress=not args.quiet)
            print(result)
            print(f"written: {study.folder / 'summary.json'}, kinosons.csv, barriers.csv")
