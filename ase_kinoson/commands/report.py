"""``ase-kinoson report``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import clean_errors


class CLICommand:
    """Build report.html again from the files of a finished study.

    Example:

      ase-kinoson report results
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        parser.add_argument("folder", metavar="DIR", help="output folder of a study")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        from ase_kinoson.report import build_report

        with clean_errors(args):
            print(f"written: {build_report(args.folder)}")
