"""All faults, for a benchmark: how many were injected, how many survived, what was lost.

``python -m tests.faults.scenarios 0.1`` runs a tenth of them and prints a table; 1 is the whole.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from tests.faults.campaigns import Outcome, negative_controls, run_campaigns, undisturbed
from tests.faults.clusters import killed_workers
from tests.faults.forks import Nursery, scratch
from tests.faults.studies import Job, in_place, run_studies

__all__ = ["Outcome", "controls", "run_all", "table"]


def run_all(
    scale: float = 1.0,
    seed: int = 0,
    *,
    clusters: bool = True,
    studies: bool = True,
    tell: Callable[[Outcome], object] = lambda outcome: None,
) -> tuple[Outcome, ...]:
    """Inject every kind of fault.

    Parameters
    ----------
    scale
        1: 100 kills of single writers, 30 with two writers, at least 5 of every other kind; smaller: a part of that.
    seed
        Of the moments.
    clusters
        Whether workers of dask are killed too. Its workers import the main module: guard it by ``__name__``.
    studies
        Whether studies, maps and all else that is no campaign is disturbed too.
    tell
        Called with every outcome as it comes.
    """
    outcomes: list[Outcome] = []
    parts: list[Iterator[Outcome]] = [run_campaigns(scale, seed)]
    parts += [_clusters(scale, seed)] if clusters else []
    parts += [run_studies(scale, seed)] if studies else []
    for outcome in chain.from_iterable(parts):
        outcomes.append(outcome)
        tell(outcome)
    return tuple(outcomes)


def _clusters(scale: float, seed: int) -> Iterator[Outcome]:
    rng = random.Random(seed)
    with scratch() as folder, Nursery() as nursery:
        plain = undisturbed(nursery, folder / "plain")
        for nanny in (True, False):
            yield killed_workers(folder, plain, max(1, round(5 * scale)), rng, nanny=nanny).outcome()


def controls(seed: int = 0) -> dict[str, Outcome]:
    """Defects that are built in: each must be reported as lost (its ``lost`` is above 0)."""
    rng = random.Random(seed)
    with scratch() as folder, Nursery() as nursery:
        plain = undisturbed(nursery, folder / "plain")
        found = {name: tally.outcome() for name, tally in negative_controls(nursery, folder, plain, rng).items()}
    with scratch() as folder, Nursery(("tests.faults.long_victims:warm_small",)) as nursery:
        found["in place"] = in_place(Job(nursery, folder, "walks"), 6, rng).outcome()
    return found


def table(outcomes: Iterable[Outcome]) -> str:
    """Faults injected and survived, one row per kind."""
    rows = [("fault", "injected", "survived", "lost", "s")]
    given = list(outcomes)
    rows += [(o.name, str(o.faults), str(o.survived), str(o.lost), f"{o.seconds:.0f}") for o in given]
    rows.append(
        (
            "all",
            str(sum(o.faults for o in given)),
            str(sum(o.survived for o in given)),
            str(sum(o.lost for o in given)),
            f"{sum(o.seconds for o in given):.0f}",
        )
    )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for name, *counts in rows:
        cells = [c.rjust(w) for c, w in zip(counts, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    told = [f"{o.name}: {text}" for o in given for text in o.problems]
    return "\n".join([*lines, *told])


if __name__ == "__main__":
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 0.05
    print(table(run_all(share, tell=lambda outcome: print(outcome, flush=True))))
    for name, outcome in controls().items():
        print(f"control {name!r}: {'reported' if outcome.lost else 'NOT SEEN'} ({outcome.lost} of {outcome.faults})")
