"""The command line: ``ase-kinoson COMMAND ...``, on ASE's own machinery."""

from __future__ import annotations

import logging
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]

COMMANDS = [
    (name, f"ase_kinoson.commands.{module}")
    for name, module in (
        ("run", "run"),
        ("barriers", "barriers"),
        ("fit", "fit"),
        ("transport", "transport"),
        ("report", "report"),
        ("import", "import_bands"),
        ("map", "composition_map"),
        ("validate", "validate"),
        ("check", "check"),
        ("upgrade", "upgrade"),
        ("bench", "bench"),
        ("info", "info"),
        ("completion", "completion"),
    )
]
"""Names of the commands and the modules that hold them, in the order of the help."""

DESCRIPTION = """Diffusion coefficients of disordered alloys from any ASE calculator,
with the kinosons that explain them.

Example:

  ase-kinoson run study.toml --out results

'ase-kinoson COMMAND --help' shows what a command takes, with an example."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; default those of the process.

    Returns
    -------
    int
        Exit status: 0 good, 1 a check failed, 2 bad input, 130 interrupted.
    """
    from ase.cli.main import main as ase_main

    from ase_kinoson import __version__

    warnings.showwarning = _show_warning
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("ase_kinoson")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        ase_main(
            prog="ase-kinoson",
            description=DESCRIPTION,
            version=__version__,
            commands=COMMANDS,
            hook=_parse,
            args=None if argv is None else list(argv),
        )
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 2
        return int(stop.code or 0)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        warnings.showwarning = _SHOW
    return 0


def _parse(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    """Parse the arguments; ASE's own ``help`` would end an unknown command in a traceback."""
    args = parser.parse_args(argv)
    if args.command == "help" and args.helpcommand not in (None, *(name for name, _ in COMMANDS)):
        parser.error(
            f"found no command {args.helpcommand!r}; expected one of {', '.join(name for name, _ in COMMANDS)}"
        )
    return args


_SHOW = warnings.showwarning


def _show_warning(
    message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Our own warnings are for users: one line without a place in the code."""
    from ase_kinoson.errors import KinosonWarning

    if issubclass(category, KinosonWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        _SHOW(message, category, filename, lineno, file, line)


if __name__ == "__main__":
    raise SystemExit(main())
