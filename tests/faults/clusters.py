"""Workers of a dask cluster that are killed while a campaign runs on them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from tests.faults.campaigns import Plain, Tally, contents


def killed_workers(folder: Path, plain: Plain, n: int, rng: random.Random, *, nanny: bool) -> Tally:
    """``kill -9`` of one of two workers at a random moment; with a nanny it comes back.

    The campaign is not told: dask gives the searches of the dead worker to the other one.
    """
    import distributed

    from ase_kinoson.barriers.campaign import compute_barriers
    from tests.barriers.bad_luck import ASKED
    from tests.faults.victims import LOOSE, STUDY
    from tests.faults.workers import EMT

    tally = Tally(f"dask worker killed, {'with' if nanny else 'without'} a nanny")
    for k in range(n):
        store = folder / f"dask-{nanny}-{k}.db"
        problems: list[str] = []
        with contextlib.ExitStack() as stack:
            options = {"dashboard_address": None, "threads_per_worker": 1, "n_workers": 0 if not nanny else 2}
            cluster = stack.enter_context(distributed.LocalCluster(processes=True, **options))
            client = stack.enter_context(distributed.Client(cluster))
            alone = [] if nanny else [_worker(cluster.scheduler_address) for _ in range(2)]
            for process in alone:
                stack.callback(_end, process)
            client.wait_for_workers(2, timeout=60)
            pids = list(client.run(os.getpid).values())
            client.run(_import)
            found: list[Any] = []

            def kill(pids: list[int] = pids, store: Path = store, k: int = k) -> None:
                until, rows = time.monotonic() + 30, rng.randint(0, 8)
                while time.monotonic() < until and len(contents(store).rows) < rows:
                    time.sleep(0.01)
                os.kill(pids[k % 2], signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(
                    compute_barriers(
                        *STUDY, EMT, store=store, jumps=ASKED, settings=LOOSE, executor=client.get_executor()
                    )
                )
            killer.join()
        places = [(i, j) for i in ASKED for j in ASKED[i]]
        if [found[0].barrier[p].hex() for p in places] != plain.told["barriers"]:
            problems.append("the barriers differ from those of an undisturbed run")
        there = contents(store)
        problems += there.problems
        if {name: row[0] for name, row in there.rows.items()} != {name: row[0] for name, row in plain.rows.items()}:
            problems.append("the rows differ from those of an undisturbed run")
        tally.count("one of two workers", problems)
    return tally


def _import() -> None:
    import tests.faults.workers  # noqa: F401


def _worker(address: str) -> Any:
    """A worker without a nanny, as a queue starts one."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "distributed.cli.dask_worker", address]
    return subprocess.Popen(
        [*command, "--no-nanny", "--nthreads", "1", "--no-dashboard"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _end(process: Any) -> None:
    process.kill()
    process.wait()
