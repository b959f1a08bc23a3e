"""What the commands share: arguments of a study, and errors as one sentence."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase_kinoson.errors import KinosonError

if TYPE_CHECKING:
    from ase_kinoson.study import Study

__all__ = [
    "add_study_arguments",
    "add_study_file",
    "add_workers",
    "clean_errors",
    "open_study",
    "refuse_to_overwrite",
    "table",
]


def add_study_file(parser: ArgumentParser) -> None:
    """Add the study file."""
    parser.add_argument("study", metavar="STUDY", help="study file (TOML)")


def add_workers(parser: ArgumentParser) -> None:
    """Add the number of processes."""
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: all cores)")


def add_study_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of all commands that work on a study."""
    add_study_file(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="output folder, also where to go on from (default: NAME-output beside the study)",
    )
    add_workers(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars, results only")


def open_study(args: Namespace) -> Study:
    """Read the study that the arguments name."""
    from ase_kinoson.study import Study

    return Study.from_toml(args.study, args.out, workers=args.workers)


@contextlib.contextmanager
def clean_errors(args: Namespace) -> Iterator[None]:
    """Turn what a user can mend into one sentence and exit status 2; ``-T`` shows the traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(_interrupted(args)) from None
    except (KinosonError, OSError) as error:
        if getattr(args, "traceback", False) or isinstance(error, BrokenPipeError):
            raise
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        # not an error of ASE's command line, which would add how the whole program is used
        raise SystemExit(f"ase-kinoson: error: {' '.join(text.split())}") from error


def _interrupted(args: Namespace) -> int:
    import sys

    print("interrupted; what was finished is kept: run the same command again to go on", file=sys.stderr)
    return 130


def refuse_to_overwrite(path: str, force: bool) -> Path:
    """Return the path of a file to write; one that exists is replaced only on demand."""
    found = Path(path)
    if found.exists() and not force:
        raise KinosonError(f"found {found}, which exists; expected a new file; name another one or add --force")
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text in columns."""
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [head, *rows]]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
