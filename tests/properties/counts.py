"""How many properties there are, on how many examples each held, and whether its broken twin was caught.

python -m tests.properties.counts REPORT.jsonl          # adds up what a run with KINOSON_PROPERTIES_REPORT wrote
python -m tests.properties.counts --run 100 [FILE ...]  # runs the files, 100 examples of every property and test
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Property", "count", "read", "run", "without_twin"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Property:
    """What became of one property.

    Attributes
    ----------
    name : str
        Module and function.
    tests : int
        Tests that hold it, parameters counted one by one.
    examples : int
        Examples that it went through, over all of them.
    held : bool
        Whether it held on all.
    twins : int
        Broken twins that were run.
    caught : int
        Those of them with a counterexample.
    seconds : float
        Time of all tests, s.
    """

    name: str
    tests: int
    examples: int
    held: bool
    twins: int
    caught: int
    seconds: float


def read(path: str | Path) -> list[Property]:
    """Add up the lines of a report, by property."""
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    found = []
    for name in sorted({line["property"] for line in lines}):
        own = [line for line in lines if line["property"] == name]
        held, twins = ([line for line in own if key in line] for key in ("held", "caught"))
        found.append(
            Property(
                name,
                len(held),
                sum(line["examples"] for line in held),
                all(line["held"] for line in held),
                len(twins),
                sum(line["caught"] for line in twins),
                round(sum(line["seconds"] for line in own), 1),
            )
        )
    return found


def count(properties: Sequence[Property]) -> dict[str, object]:
    """Totals, ready for JSON: numbers, the properties that failed, and the twins that were not caught."""
    return {
        "properties": len(properties),
        "examples": sum(p.examples for p in properties),
        "fewest_examples": min((p.examples for p in properties if p.tests), default=0),
        "twins": sum(p.twins for p in properties),
        "caught": sum(p.caught for p in properties),
        "failed": [p.name for p in properties if not p.held],
        "not_caught": [p.name for p in properties if p.caught < p.twins],
        "without_twin": [p.name for p in properties if not p.twins],
        "list": [asdict(p) for p in properties],
    }


def run(examples: int, files: Sequence[str] = (), *, workers: int = 0) -> dict[str, object]:
    """Run the properties in processes of their own, one file after the other, and count.

    Parameters
    ----------
    examples
        Of every test of a property, drawn anew; 0: the fixed ones of the test suite.
    files
        Names in this folder; default all.
    workers
        Of pytest-xdist; 0: none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.jsonl"
        path.touch()
        given = {"KINOSON_EXAMPLES": str(examples), "KINOSON_PROPERTIES_REPORT": str(path), "MPLBACKEND": "Agg"}
        codes = {}
        for file in files or sorted(p.name for p in HERE.glob("test_*.py")):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
            command += ["-n", str(workers)] if workers else []
            codes[file] = subprocess.run(
                command, cwd=HERE.parents[1], env={**os.environ, **given}, stdout=subprocess.DEVNULL, check=False
            ).returncode
        found = count(read(path))
    return {**found, "files_that_failed": [file for file, code in codes.items() if code]}


def without_twin(source: str) -> set[str]:
    """Functions of a test file that make a property which `holds` runs and `breaks` does not."""
    tree = ast.parse(source)
    seen: dict[str, set[str]] = {"holds": set(), "breaks": set()}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        made = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in seen:
                first: ast.AST = node.args[0]
                if isinstance(first, ast.Name):
                    first = made.get(first.id, first)
                is_made = isinstance(first, ast.Call) and isinstance(first.func, ast.Name)
                seen[node.func.id].add(first.func.id if is_made else f"{function.name}: its own check")  # type: ignore[attr-defined]
    return seen["holds"] - seen["breaks"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(run(int(sys.argv[2]), sys.argv[3:]), indent=1, ensure_ascii=False))
    else:
        print(json.dumps(count(read(sys.argv[1])), indent=1, ensure_ascii=False))
