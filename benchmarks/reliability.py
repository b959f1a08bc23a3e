"""How reliable the package is, counted.

    pip install -e ".[measure,test,fast,sqs,dask,maps]"
    python benchmarks/reliability.py --quick          # a twentieth of everything, about a quarter of an hour
    python benchmarks/reliability.py                  # everything, two hours on two cores
    python benchmarks/reliability.py --only files     # one part; --out FILE keeps what was found as JSON

The parts: faults that are injected into campaigns and studies; hostile and broken files; bits flipped in stored files;
properties with random examples, and their broken twins; tests that must fail when the physics is broken; mutants of
three central files; how often a 68 % interval holds the truth. Needs a checkout: the parts live in tests/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TEXT = ("STUDY", "CIF", "EXTXYZ", "OTHERS", "TABLES", "STATES", "BANDS", "ARGUMENTS")
BINARY = (
    "MODELS",
    "STORES",
    "RELAXATIONS",
    "ARCHIVE",
    "STAGE",
    "CHUNKS",
    "KINOSONS",
    "CHECKPOINT",
    "SUMMARY",
    "MSON",
)
MANY, FEW = 10_000, 1_000
"""Cases: of what users give and share (studies, CIF, extxyz, models, stores), and of everything else."""
WIDELY_SHARED = ("STUDY", "CIF", "EXTXYZ", "MODELS", "STORES")


@dataclass(frozen=True)
class Part:
    """What one part found: a Markdown table, a sentence for the list at the end, whether all is well, the details."""

    name: str
    table: str
    says: str
    good: bool
    details: Any


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def faults(scale: float, seed: int, jobs: int) -> Part:
    """Kill, starve and confuse campaigns and studies; resume; compare."""
    from tests.faults import scenarios

    found = scenarios.run_all(scale, seed, tell=tell)
    planted = scenarios.controls(seed)
    rows = [(o.name, o.faults, o.survived, o.lost) for o in found]
    blind = [name for name, outcome in planted.items() if not outcome.lost]
    n, survived, lost = (sum(getattr(o, field) for o in found) for field in ("faults", "survived", "lost"))
    says = f"faults: {n} injected, {survived} survived, {lost} results lost; "
    says += f"{len(planted) - len(blind)} of {len(planted)} planted losses reported"
    problems = [text for o in found for text in o.problems]
    shown = table(("fault", "injected", "survived", "lost"), rows) + "".join(f"\n{p}" for p in problems)
    return Part("faults", shown, says, survived == n and lost == 0 and not blind, [*found, planted])


def files(scale: float, seed: int, jobs: int) -> Part:
    """Give hostile and broken files, and look at what happens."""
    from concurrent.futures import ThreadPoolExecutor

    from tests.fuzz.running import run_apart

    places = [(f"tests.fuzz.text_files:{name}", name) for name in TEXT]
    places += [(f"tests.fuzz.binary_files:{name}", name) for name in BINARY]

    def one(place: tuple[str, str]):
        cases = MANY if place[1] in WIDELY_SHARED else FEW
        outcome = run_apart(place[0], max(20, round(cases * scale)), seed)
        tell(str(outcome).splitlines()[0])
        return outcome

    with ThreadPoolExecutor(jobs) as pool:  # each is a process of its own
        found = list(pool.map(one, places))
    rows = [(o.target, o.cases, o.accepted, o.refused, o.dirty, o.beyond, f"{o.longest:.1f}") for o in found]
    n, accepted, refused, dirty = (sum(getattr(o, f) for o in found) for f in ("cases", "accepted", "refused", "dirty"))
    says = f"files: {n} tried, {refused} refused in one sentence, {accepted} accepted, {dirty} anything else"
    head = ("file", "cases", "accepted", "refused", "anything else", "passed the parser", "longest, s")
    shown = table(head, rows) + "".join(f"\n{o}" for o in found if o.dirty)
    return Part("files", shown, says, dirty == 0, found)


def bits(scale: float, seed: int, jobs: int) -> Part:
    """Flip single bits of stored files; ``ase-kinoson check`` must find them."""
    from tests.fuzz.bit_flips import flip_bits
    from tests.fuzz.good_files import MAKERS

    found = [flip_bits(kind, max(20, round(500 * scale)), seed) for kind in MAKERS]
    rows = [
        (f.kind, f.tried, f.found, ", ".join(f"{n} in {where}" for where, n in f.harmless.items()), len(f.missed))
        for f in found
    ]
    missed = sum(len(f.missed) for f in found)
    says = f"flipped bits: {sum(f.tried for f in found)}, {sum(f.found for f in found)} found by check; "
    says += f"{missed} changed the content and were not found"
    head = ("file", "bits flipped", "found by check", "no content changed", "content changed, not found")
    return Part("bits", table(head, rows), says, missed == 0, found)


def properties(scale: float, seed: int, jobs: int) -> Part:
    """Draw examples for every property; the broken twins must be caught."""
    from tests.properties import counts

    found = counts.run(max(10, round(100 * scale)), workers=jobs)
    says = f"properties: {found['properties']} with {found['examples']} examples, {len(found['failed'])} failed; "
    says += f"{found['caught']} of {found['twins']} broken twins caught"
    good = not (found["failed"] or found["not_caught"] or found["files_that_failed"])
    rows = [
        (p["name"], p["tests"], p["examples"], "yes" if p["held"] else "NO", f"{p['caught']} of {p['twins']}")
        for p in found["list"]
    ]
    return Part("properties", table(("property", "tests", "examples", "held", "twins caught"), rows), says, good, found)


def controls(scale: float, seed: int, jobs: int) -> Part:
    """Break the physics; the tests must fail."""
    from tests.controls.counts import count

    found = count()
    says = f"negative controls: {found['caught']} of {found['controls']} broken models and estimators failed their test"
    rows = [(k, v) for k, v in found.items() if isinstance(v, int)]
    shown = table(("controls", "number"), rows) + "".join(f"\nmissed: {m}" for m in found["missed"])
    return Part("controls", shown, says, not found["missed"], found)


def mutants(scale: float, seed: int, jobs: int) -> Part:
    """Change the code a little; the tests must fail."""
    sample = 0 if scale >= 1 else max(5, round(250 * scale))
    with tempfile.TemporaryDirectory() as folder:  # it forks: not from a process that has run threads
        out = Path(folder) / "mutants.json"
        command = [sys.executable, str(ROOT / "benchmarks/mutants.py"), "--jobs", str(jobs), "--out", str(out)]
        command += ["--sample", str(sample), "--seed", str(seed)]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
        sys.path.insert(0, str(ROOT / "benchmarks"))
        import mutants as own

        found = [own.Mutant(**row) for row in json.loads(out.read_text())]
    by_file = [[m for m in found if m.file == file] for file in own.FILES]
    dead = [sum(m.end in ("killed", "timed out") for m in part) for part in by_file]
    good = all(d >= 0.9 * len(part) for d, part in zip(dead, by_file, strict=True))
    says = f"mutants: {sum(dead)} of {len(found)} killed ({100 * sum(dead) / len(found):.1f} %)"
    return Part("mutants", own.table(found), says, good, found)


def intervals(scale: float, seed: int, jobs: int) -> Part:
    """Repeat with other seeds; count how often the interval holds the truth."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import interval_coverage as own

    found = own.measure(max(10, round(200 * scale)), seed=seed)
    rows: dict[tuple[str, str, int], list] = {}
    for c in found:
        rows.setdefault((c.gas, c.kind, c.n_states), []).append(c)
    # what the printed intervals are meant for; the others are shown, and told apart
    judged = [c for c in found if c.gas != "heavy" and c.n_states >= 30 and c.kind in own.KINDS]
    inside = sum(0.60 <= c.share <= 0.76 for c in judged)
    mean = 100 * sum(c.share for c in judged) / max(len(judged), 1)
    says = f"intervals: {mean:.1f} % of the 68 % intervals hold the truth, mean of {len(judged)} coefficients of "
    says += f"samples of 30 states or more; {inside} of them in 60-76 %"
    shown = "\n".join(["```", own.HEAD, *(own.line(tuple(group)) for group in rows.values()), "```"])
    return Part("intervals", shown, says, 60 <= mean <= 76, found)


PARTS: dict[str, Callable[[float, int, int], Part]] = {
    f.__name__: f for f in (faults, files, bits, properties, controls, mutants, intervals)
}


def tell(what: object) -> None:
    """Progress, not part of the result."""
    print(what, file=sys.stderr, flush=True)


def plain(value: Any) -> Any:
    """For JSON."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def main() -> int:
    """Run the parts; exit code 1 if one of them found something."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything")
    parser.add_argument("--scale", type=float, help="1 is everything")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file with all that was found")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    scale = args.scale if args.scale is not None else 0.05 if args.quick else 1.0
    found, seconds = [], {}
    for name in args.only:
        tell(f"-- {name}")
        begin = time.time()
        part = PARTS[name](scale, args.seed, args.jobs)
        seconds[name] = round(time.time() - begin)
        found.append(part)
        print(f"\n## {name}\n\n{part.table}\n", flush=True)
        if args.out:  # after each part: a later one may be interrupted
            args.out.write_text(json.dumps([asdict(p) | {"seconds": seconds[p.name]} for p in found], default=plain))
    print("\n## In short\n")
    for part in found:
        print(f"- {part.says} ({seconds[part.name]} s): {'all well' if part.good else 'LOOK ABOVE'}")
    return 0 if all(part.good for part in found) else 1


if __name__ == "__main__":
    sys.exit(main())
