"""Measure one row: ``python -m ase_kinoson.bench MODULE FUNCTION NAME [quick]``; used by ``ase-kinoson bench``."""

from __future__ import annotations

import json
import sys

from ase_kinoson.bench.rows import MARK, Known, measure_here
from ase_kinoson.stages import plain


def main(arguments: list[str]) -> None:
    """Print the row as one line of JSON."""
    module, function, name, *rest = arguments
    row = measure_here(name, Known(module, function, name), quick="quick" in rest)
    print(MARK + json.dumps(plain(row.as_dict()), ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
