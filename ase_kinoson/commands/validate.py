"""``ase-kinoson validate``."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import clean_errors, table


class CLICommand:
    """Compare this installation with exact and published numbers; exit status 1 if one fails.

    Example:

      ase-kinoson validate --json
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        parser.add_argument("--quiet", action="store_true", help="no progress bar")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        from ase_kinoson.stages import plain
        from ase_kinoson.validation import run_validation

        with clean_errors(args):
            rows = list(run_validation(progress=not args.quiet))
            if args.json:
                print(
                    json.dumps(
                        plain([{**r.as_dict(), "passed": r.passed} for r in rows]),
                        indent=1,
                        ensure_ascii=False,
                    )
                )
            else:
                lines = [
                    (
                        r.name,
                        f"{r.ours:.9g}",
                        f"{r.reference:.9g}",
                        f"{r.tolerance:.1e}",
                        r.unit,
                        "pass" if r.passed else "FAIL",
                    )
                    for r in rows
                ]
                print(table(("check", "ours", "reference", "tolerance", "unit", "verdict"), lines))
                print(f"{sum(bool(r.passed) for r in rows)} of {len(rows)} passed")
        if not all(r.passed for r in rows):
            raise SystemExit(1)
