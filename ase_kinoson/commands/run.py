"""``ase-kinoson run``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import add_study_arguments, clean_errors, open_study


class CLICommand:
    """Do a whole study: barriers, model, states, coefficients, report.

    Everything is kept in the output folder; run the same command again to go on after an interruption, or
    after a change of the study file: only what depends on the change is computed again.

    Example:

      ase-kinoson run study.toml --out results

    Then read results/report.html; all numbers are in results/summary.json, all kinosons in
    results/kinosons.csv.
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
            result = study.run(progress=not args.quiet)
            print(result)
            print(f"written: {study.folder / 'report.html'}, summary.json, kinosons.csv, barriers.csv")
