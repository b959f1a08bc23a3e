"""``ase-kinoson bench``."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import clean_errors


class CLICommand:
    """Measure the speed of this installation on this machine, beside targets, limits of the machine and peers.

    Example:

      ase-kinoson bench --only saddle gas-kmc

    Each row is measured in a process of its own; the machine should do nothing else. Times are medians of repeats.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        from ase_kinoson.bench.rows import ROWS

        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        parser.add_argument(
            "--only", nargs="+", choices=tuple(ROWS), metavar="NAME", help="a number of rows by name (default: all)"
        )
        parser.add_argument("--quick", action="store_true", help="smaller amounts: about a minute, less precise")
        parser.add_argument("--list", action="store_true", help="show the names of the rows and measure nothing")
        parser.add_argument("--quiet", action="store_true", help="show no line per finished row")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        from ase_kinoson.bench.rows import ROWS, measure_rows
        from ase_kinoson.commands.common import table

        with clean_errors(args):
            if args.list:
                print(table(("row", "what"), [(name, known.about) for name, known in ROWS.items()]))
                return
            rows, began = [], time.perf_counter()
            for row in measure_rows(args.only, quick=args.quick):
                rows.append(row)
                if not args.quiet:
                    print(f"{row.name}: {row.error or f'{row.seconds:.0f} s'}", file=sys.stderr, flush=True)
            spent = time.perf_counter() - began
            from ase_kinoson.bench.machine import describe
            from ase_kinoson.bench.table import as_json, machine_line, text
            from ase_kinoson.stages import plain

            machine = describe()
            if args.json:
                print(json.dumps(plain(as_json(machine, rows, quick=args.quick)), indent=1, ensure_ascii=False))
            else:
                print("\n".join(text(rows)))
                print(f"\n{machine_line(machine)}\n{len(rows)} rows in {spent:.0f} s")
        if all(row.error for row in rows):
            raise SystemExit(1)
