"""``ase-kinoson check``."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import clean_errors


class CLICommand:
    """Verify stores, models, archives and summaries: say what is damaged, and what to do.

    Takes files, or folders with all that is in them. Nothing is written. Exit status: 0 all is well, 1 something is
    damaged, 2 there is nothing to check.

    Example:

      ase-kinoson check results

    Damage means that a file is not as it was written; a line that begins with 'note' is something to look at.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        parser.add_argument("paths", nargs="+", metavar="FILE", help="store, model, archive, summary, or a folder")
        parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
        parser.add_argument("--quiet", action="store_true", help="show what is not well only")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        from ase_kinoson.errors import KinosonError
        from ase_kinoson.integrity import check_files

        with clean_errors(args):
            found = [finding for path in args.paths for finding in check_files(path)]
            bad = [f for f in found if f.state == "damaged"]
            if args.json:
                print(json.dumps([f.as_dict() for f in found], indent=1, ensure_ascii=False))
            else:
                for finding in found:
                    if finding.state != "ok" or not args.quiet:
                        print(finding)
                if not args.quiet:
                    print(f"{len(found)} checked, {len(bad)} damaged")
            if not bad and all(f.state == "unknown" for f in found):
                raise KinosonError(
                    f"found nothing of this package in {', '.join(args.paths)}; expected a store, a model, an "
                    "archive, a summary or a folder with some; check the path"
                )
        if bad:
            raise SystemExit(1)
