"""``ase-kinoson upgrade``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import clean_errors


class CLICommand:
    """Bring stores of barriers of an older version to the present format; a copy stays beside each.

    The copy is FILE.format-1 and so on. All is done in one transaction: after an interruption the store is as it was.
    Stop what is using the store before. Models, summaries and tables need no upgrade: they are brought to the present
    layout as they are read.

    Example:

      ase-kinoson upgrade results/barriers.db
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        parser.add_argument("stores", nargs="+", metavar="FILE", help="file of a store of barriers (SQLite)")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        from ase_kinoson.barriers.store_upgrade import upgrade_store

        with clean_errors(args):
            for path in args.stores:
                copy = upgrade_store(path)
                print(f"{path}: {'nothing to do' if copy is None else f'upgraded; the old one is kept as {copy}'}")
