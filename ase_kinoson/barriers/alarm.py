"""An alarm that interrupts whatever runs when its time is up, a calculator that hangs included."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

__all__ = ["TimeIsUpError", "alarm"]

_AGAIN_S = 5.0
"""Code that swallows the alarm is rung again after this time."""
_SOON_S = 1e-3
"""A ring at a moment at which it cannot be raised is put off by this time."""


class TimeIsUpError(BaseException):
    """Not an Exception: calculators and searches must not mistake it for a failed calculation."""


class alarm:  # noqa: N801
    """Raise in the middle of whatever runs when the time is up.

    Works by a signal, hence only in the main thread of a Unix process (a process worker runs its tasks there);
    elsewhere, and with ``seconds=None``, it does nothing. Compiled code that never returns to Python is not
    interrupted. An alarm that was set before, such as one around this, rings at its own time.

    Parameters
    ----------
    seconds
        Default: no limit.

    Raises
    ------
    TimeIsUpError
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._armed = False

    def __enter__(self) -> None:
        if (
            self._seconds is None
            or not hasattr(signal, "setitimer")
            or threading.current_thread() is not threading.main_thread()
        ):
            return
        self._before = signal.getsignal(signal.SIGALRM)
        self._delay, self._interval = signal.getitimer(signal.ITIMER_REAL)
        self._began = time.monotonic()
        self._first = callable(self._before) and 0.0 < self._delay < self._seconds  # somebody else's comes first
        self._armed = True
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, self._delay if self._first else self._seconds, _AGAIN_S)

    def __exit__(self, *error: object) -> None:
        if not self._armed:
            return
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if self._before is None else self._before)
        if self._delay:
            left = self._delay - (time.monotonic() - self._began)
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left), self._interval)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        if _entering_or_leaving(frame):  # raised there it would leave the alarm set
            signal.setitimer(signal.ITIMER_REAL, _SOON_S, _AGAIN_S)
        elif self._first:
            assert self._seconds is not None and callable(self._before)
            self._first = False
            signal.setitimer(signal.ITIMER_REAL, self._seconds - self._delay, _AGAIN_S)
            self._delay, self._began = self._interval, time.monotonic()
            self._before(number, frame)
        else:
            raise TimeIsUpError(f"not finished after {self._seconds:g} s; the calculator hangs or is slow")


def _entering_or_leaving(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in (alarm.__enter__.__code__, alarm.__exit__.__code__):
            return True
        frame = frame.f_back
    return False
