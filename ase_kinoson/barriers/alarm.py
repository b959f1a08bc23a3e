"""An alarm that interrupts whatever runs when its time is up, a calculator that hangs included."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["TimeIsUpError", "alarm"]

_AGAIN_S = 5.0
"""Code that swallows the alarm is rung again after this time."""


class TimeIsUpError(BaseException):
    """Not an Exception: calculators and searches must not mistake it for a failed calculation."""


@contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """Raise in the middle of whatever runs when the time is up.

    Works by a signal, hence only in the main thread of a Unix process (a process worker runs its tasks there);
    elsewhere, and with ``seconds=None``, it does nothing. Compiled code that never returns to Python is not
    interrupted.

    Raises
    ------
    TimeIsUpError
    """
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = True

    def ring(number: int, frame: Any) -> None:
        if armed:
            raise TimeIsUpError(f"not finished after {seconds:g} s; the calculator hangs or is slow")

    before = signal.signal(signal.SIGALRM, ring)
    began = time.monotonic()
    delay, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:  # two blocks, because the alarm can still ring while the inner one is being left
        try:
            yield
        finally:
            armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if delay:  # somebody else's alarm
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, delay - (time.monotonic() - began)), interval)
