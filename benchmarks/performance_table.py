"""Write measured tables into docs/performance.md, between its marks.

    ase-kinoson bench --json > bench.json
    python benchmarks/growth.py --json > growth.json
    python benchmarks/performance_table.py --bench bench.json --growth growth.json

Nothing else on the page is touched. Without files nothing changes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase_kinoson.bench.table import markdown, number

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def growth(found: dict[str, Any]) -> Iterator[str]:
    """Both tables of growth.py."""
    for kind in ("cell", "states"):
        yield "| " + " | ".join(found["heads"][kind]) + " |"
        yield "|" + "---|" * len(found["heads"][kind])
        for first, *others in found[kind]:
            yield "| " + " | ".join([f"{first:,.0f}", *(number(x) for x in others)]) + " |"
        yield ""


def between_marks(page: str, name: str, lines: list[str]) -> str:
    """The page with new lines between two marks."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    if begin not in page or end not in page:
        raise SystemExit(
            f"found no marks of {name!r} in {PAGE.name}; expected {begin.strip()} and {end}; put them back"
        )
    body = "\n" + "\n".join(lines).strip() + "\n\n"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: begin + body + end, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", metavar="FILE")
    parser.add_argument("--growth", metavar="FILE")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    if options.bench:
        page = between_marks(page, "bench", list(markdown(json.loads(Path(options.bench).read_text(encoding="utf-8")))))
    if options.growth:
        page = between_marks(page, "growth", list(growth(json.loads(Path(options.growth).read_text(encoding="utf-8")))))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
