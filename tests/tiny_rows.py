"""Rows that the tests measure in processes of their own: quick ones, and some that go wrong."""

from __future__ import annotations

import os
import time

from ase_kinoson.bench import peers
from ase_kinoson.bench.row import Figure, Peer, Row, Target, rate, with_limit
from ase_kinoson.bench.timing import sample


def good(quick: bool) -> Row:
    """A rate with everything that a figure can have."""
    print("a library that talks")
    found = sample(lambda: sum(range(1000 if quick else 2000)), repeats=5)
    figure = rate("sums", found, 1000.0, "numbers/s", target=Target(1.0))
    figure = with_limit(figure, "twice that", 2.0 * figure.value)
    peer = Peer("another", "1.0", figure.value / 4.0, 4.0, "asked kindly")
    return Row(
        "x",
        "Sums of numbers.",
        (
            figure,
            Figure("counted", 3.0, "calls", peer=peer),
            Figure("alone", 1.0, "s", peer=peers.absent("no", "nope")),
        ),
        "Python.",
        ("A note.",),
    )


def wrong(quick: bool) -> Row:
    """Something raises."""
    raise ValueError("found nothing;\nexpected something; bring it")


def dead(quick: bool) -> Row:
    """The process ends."""
    print("half a line", flush=True)
    os._exit(7)


def slow(quick: bool) -> Row:
    """Takes too long."""
    time.sleep(60.0)
    return Row("x", "")


def large(quick: bool) -> Row:
    """Needs 200 MB."""
    kept = bytearray(200_000_000)
    kept[::4096] = b"1" * len(kept[::4096])
    return Row("x", "Memory.", (Figure("bytes", float(len(kept)), "B"),))
