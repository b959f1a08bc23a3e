"""Mutation testing: how many small changes of the code do the tests see?

    pip install cosmic-ray coverage
    python benchmarks/mutants.py                        # the three files, all mutants
    python benchmarks/mutants.py --sample 50 --jobs 1   # a random part of them
    python benchmarks/mutants.py --out mutants.json
    python benchmarks/mutants.py --again mutants.json   # those that survived there

Mutants are those of cosmic-ray (another operator, a number one larger or smaller, a comparison turned, a loop that
does not run, a decorator removed). Every mutant runs in a forked process that imports the changed module instead of
the file, so nothing on disk changes; the tests are those that reach the changed line, the quickest first, and then the
others of :data:`FILES` (a test may use what an earlier one has built). Changes of annotations are left out: nothing
evaluates them. A mutant is killed when a test fails or runs out of time.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

KINOSONS = ("test_functional", "test_jump_terms", "test_variational", "test_transport")
KINETICS = ("test_rates", "test_extremes", "test_lattice_gas", "test_kmc")
FILES = {
    "ase_kinoson/kinosons/functional.py": (
        *(f"tests/kinosons/{name}.py" for name in KINOSONS),
        "tests/properties/test_kinosons.py",
    ),
    "ase_kinoson/kinetics/rates.py": (
        *(f"tests/kinetics/{name}.py" for name in KINETICS),
        "tests/properties/test_kinetics.py",
    ),
    "ase_kinoson/crystal/jumps.py": ("tests/crystal", "tests/properties/test_crystal.py"),
}
"""What is mutated, and the tests that answer for it; others that would see a mutant too are slower."""

BROKEN = 70
"""Exit code of a child that an accident of this file ended, which is no kill; those of pytest are smaller."""
LIMIT_S, LIMIT_TIMES = 10.0, 5.0
"""CPU time of one mutant: so many seconds and so many times what its tests take; then it is stopped."""


@dataclass(frozen=True)
class Mutant:
    """One change: cosmic-ray's operator and its occurrence, where it is, and what became of it."""

    file: str
    operator: str
    occurrence: int
    line: int
    end: str = ""
    seconds: float = 0.0


# -- mutants ----------------------------------------------------------------------------------------------------------


def mutants_of(file: str) -> list[Mutant]:
    """All mutants of a file outside annotations."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast_from_path(ROOT / file)))
    silent = _annotations(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    found = []
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():
            continue  # operators that want to know names of variables
        positions = (p for node in nodes for p in operator().mutation_positions(node))
        for k, (begin, _) in enumerate(positions):
            if not any(first <= tuple(begin) < last for first, last in silent):
                found.append(Mutant(file, name, k, begin[0]))
    return found


def _annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    spans = []
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            part = getattr(node, field, None)
            if part is not None:
                spans.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return spans


def source_of(mutant: Mutant) -> str:
    """The mutated source; that of the file where the operator is empty."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    if not mutant.operator:
        return text
    changed = mutate_code(text, get_operator(mutant.operator)(), mutant.occurrence)
    assert changed is not None and changed != text
    return changed


class Replacement(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module from other source than that of its file."""

    def __init__(self, file: str, source: str) -> None:
        super().__init__(file.removesuffix(".py").replace("/", "."), str(ROOT / file))
        self.source = source

    def find_spec(self, fullname, path=None, target=None):
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def get_code(self, fullname):
        return compile(self.source, self.path, "exec", dont_inherit=True)


# -- tests ------------------------------------------------------------------------------------------------------------


class Watch:
    """Which tests reach which lines, and how long each takes."""

    def __init__(self, coverage) -> None:
        self.coverage, self.seconds = coverage, {}

    def pytest_runtest_logstart(self, nodeid, location):
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def pytest_code(arguments: Sequence[str], plugins: Sequence[object] = ()) -> int:
    """Run pytest quietly in this process; its exit code."""
    import pytest

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        fixed = ["-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder}/tests"]
        return int(pytest.main([*fixed, *arguments], plugins=list(plugins)))


def reach(file: str, tests: Sequence[str], where: Path) -> None:
    """Write to ``where``: the tests that reach each line of a file, and the seconds of each test (runs in a child)."""
    import coverage

    measured = coverage.Coverage(data_file=None, include=[str(ROOT / file)], config_file=False)
    watch = Watch(measured)
    measured.start()
    code = pytest_code(tests, [watch])
    measured.stop()
    data = measured.get_data()
    lines = data.contexts_by_lineno(str(ROOT / file))
    found = {line: sorted(c for c in contexts if c) for line, contexts in lines.items()}
    where.write_text(json.dumps({"code": code, "lines": found, "seconds": watch.seconds}))


@dataclass(frozen=True)
class Reach:
    """Tests by line of a file, and their seconds."""

    lines: dict[int, list[str]]
    seconds: dict[str, float]

    def tests(self, tree: ast.AST, line: int) -> tuple[list[str], list[str]]:
        """Tests of the statement that a line is part of, the quickest file first, and all others."""
        first, last = line, line
        for node in ast.walk(tree):
            if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
                inner = not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.For | ast.While | ast.With)
                if inner:
                    first, last = node.lineno, node.end_lineno or line
        near = {t for k in range(first, last + 1) for t in self.lines.get(k, [])}
        far = set(self.seconds) - near
        return self._sorted(near), self._sorted(far)

    def limit_s(self, tests: Iterable[str]) -> float:
        """CPU time for tests, without that of the start."""
        return LIMIT_TIMES * sum(self.seconds.get(t, 0.0) for t in tests)

    def _sorted(self, tests: Iterable[str]) -> list[str]:
        cost: collections.Counter[str] = collections.Counter()
        for test in tests:
            cost[test.split("::")[0]] += self.seconds.get(test, 0.0)
        return sorted(tests, key=lambda t: (cost[t.split("::")[0]], self.seconds.get(t, 0.0)))


# -- running ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forked(work) -> Iterator[tuple[int, int]]:
    """A forked process that runs ``work() -> exit code``: its pid and a pipe that closes when it ends."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            os.close(reading)
            os.setpgid(0, 0)
            code = work()
        finally:
            os._exit(code)
    os.close(writing)
    try:
        yield pid, reading
    finally:
        os.close(reading)


def in_a_child(work) -> int:
    """Run ``work`` in a forked process and wait for its exit code."""
    with forked(work) as (pid, _):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def try_mutant(mutant: Mutant, tests: Iterable[Sequence[str]], known: Reach) -> int:
    """Import the mutant and run the tests, one group after the other (in a child); 0 if it survives."""
    import resource

    sys.meta_path.insert(0, Replacement(mutant.file, source_of(mutant)))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    limit_s = LIMIT_S
    for group in tests:
        limit_s += known.limit_s(group)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), resource.RLIM_INFINITY))
        by_file: dict[str, list[str]] = {}
        for test in group:  # a file of tests takes longer to import than most tests take: no more files than needed
            by_file.setdefault(test.split("::")[0], []).append(test)
        for part in by_file.values():
            if code := pytest_code(part):
                return code
    return 0


def outcomes(todo: Iterable[tuple[Mutant, tuple[list[str], list[str]]]], known: Reach, jobs: int) -> Iterator[Mutant]:
    """Run mutants, ``jobs`` at a time."""
    queue, running = collections.deque(todo), {}
    while queue or running:
        while queue and len(running) < jobs:
            mutant, tests = queue.popleft()
            limit = LIMIT_S + known.limit_s(known.seconds)
            child = forked(lambda m=mutant, t=tests: try_mutant(m, t, known))
            pid, pipe = child.__enter__()
            running[pipe] = (mutant, child, pid, time.monotonic(), limit)
        ready, _, _ = select.select(list(running), [], [], 1.0)
        for pipe in list(running):
            mutant, child, pid, start, limit = running[pipe]
            late = time.monotonic() - start > 8 * limit  # it waits for something
            if late:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            if pipe in ready or late:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what the tests started
                child.__exit__(None, None, None)
                del running[pipe]
                end = {0: "survived", BROKEN: "not tried"}.get(code, "timed out" if code < 0 else "killed")
                yield Mutant(**{**asdict(mutant), "end": end, "seconds": round(time.monotonic() - start, 2)})


def third_party() -> list[str]:
    """Modules that the package and the tests load from elsewhere; loaded once, before any process is forked."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "modules"

        def look() -> int:
            import ase_kinoson

            for name in ase_kinoson.__all__:
                getattr(ase_kinoson, name)
            own = ("ase_kinoson", "tests", "__main__", "benchmarks")
            where.write_text("\n".join(m for m in sys.modules if m.split(".")[0] not in own))
            return 0

        in_a_child(look)
        return where.read_text().split("\n")


def prepare(file: str, tests: Sequence[str]) -> Reach:
    """The tests that reach a file; they must pass."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "reach.json"

        def run() -> int:
            reach(file, tests, where)
            return 0

        in_a_child(run)
        found = json.loads(where.read_text())
    if found["code"] != 0:
        raise SystemExit(f"the tests of {file} fail without a change; mend them first")
    return Reach({int(k): v for k, v in found["lines"].items()}, found["seconds"])


def check_unchanged(file: str, known: Reach) -> None:
    """The tests must pass with the file as it is, run as they are for a mutant: else every kill is in doubt."""
    (same,) = outcomes([(Mutant(file, "", 0, 0), known.tests(ast.parse(""), 0))], known, 1)
    if same.end != "survived":
        raise SystemExit(f"the tests of {file} end as of a mutant ({same.end}) without a change; mend them first")


def measure(
    files: Sequence[str] = tuple(FILES),
    *,
    jobs: int = 2,
    sample: int = 0,
    seed: int = 0,
    only: Sequence[Mutant] | None = None,
    progress: bool = False,
) -> tuple[Mutant, ...]:
    """Run mutants of files and return them with their ends.

    Parameters
    ----------
    files
        Keys of :data:`FILES`.
    jobs
        Processes.
    sample
        So many of each file, drawn with ``seed``; 0: all.
    seed
        Of the sample.
    only
        Mutants to be tried, instead of all.
    progress
        Print a line for every survivor as it is found, and how far it is.
    """
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", ASE_KINOSON_COMPILED="0", PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    for name in third_party():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    done: list[Mutant] = []
    for file in files:
        known, tree = prepare(file, FILES[file]), ast.parse((ROOT / file).read_text(encoding="utf-8"))
        chosen = mutants_of(file)
        if only is not None:
            there = {(m.operator, m.occurrence, m.line) for m in chosen}
            chosen = [m for m in only if m.file == file]
            if not there.issuperset((m.operator, m.occurrence, m.line) for m in chosen):
                raise SystemExit(f"{file} has changed since its mutants were listed; try all of them")
        check_unchanged(file, known)
        if sample:
            chosen = random.Random(seed).sample(chosen, min(sample, len(chosen)))
        tried = outcomes(((m, known.tests(tree, m.line)) for m in chosen), known, jobs)
        for count, mutant in enumerate(tried, start=1):
            done.append(mutant)
            if progress and mutant.end in ("survived", "not tried"):
                print(f"{mutant.file}:{mutant.line} {mutant.operator} #{mutant.occurrence} {mutant.end}", flush=True)
            if progress and count % 50 == 0:
                print(f"{mutant.file}: {count} of {len(chosen)}", file=sys.stderr, flush=True)
        check_unchanged(file, known)  # a disk that is full by now fails every test
    return tuple(done)


def table(mutants: Sequence[Mutant]) -> str:
    """Markdown: mutants and what became of them, by file."""
    lines = ["| file | mutants | killed | out of time | survived | killed, % |", "|---|---|---|---|---|---|"]
    for file in dict.fromkeys(m.file for m in mutants):
        ends = collections.Counter(m.end for m in mutants if m.file == file)
        n, dead = sum(ends.values()), ends["killed"] + ends["timed out"]
        lines.append(
            f"| {file} | {n} | {ends['killed']} | {ends['timed out']} | {n - dead} | {100 * dead / max(n, 1):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sample", type=int, default=0, help="mutants of each file; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=Path, help="JSON file of an earlier run: only what survived there")
    parser.add_argument("--out", type=Path, help="JSON file with every mutant")
    args = parser.parse_args()
    begin, only = time.time(), None
    if args.again:
        only = [Mutant(**m) for m in json.loads(args.again.read_text()) if m["end"] in ("survived", "not tried")]
    found = measure(args.files, jobs=args.jobs, sample=args.sample, seed=args.seed, only=only, progress=True)
    if args.out:
        args.out.write_text(json.dumps([asdict(m) for m in found], indent=1))
    print(table(found))
    print(f"{len(found)} mutants in {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
