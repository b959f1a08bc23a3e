"""Processes that start at once, because they are forked from a warm one: to be killed by the hundred.

``python -m tests.faults.forks`` is that warm process. It reads one JSON request per line and answers each with one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PHASES = ("start", "relaxation or search", "transaction", "commit", "close", "end")
_FIELDS = ("phase", "calls", "statements", "commits", "closes", "connected")


class Board:
    """Numbers that a process writes and another reads, also after the death of the first."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.exists():
            path.write_bytes(bytes(8 * len(_FIELDS)))
        with open(path, "r+b") as handle:
            self._map = mmap.mmap(handle.fileno(), 8 * len(_FIELDS))

    def __getattr__(self, name: str) -> int:
        if name not in _FIELDS:
            raise AttributeError(name)
        return int(struct.unpack_from("q", self._map, 8 * _FIELDS.index(name))[0])

    def set(self, name: str, value: int) -> int:
        struct.pack_into("q", self._map, 8 * _FIELDS.index(name), value)
        return value

    def add(self, name: str) -> int:
        return self.set(name, getattr(self, name) + 1)

    def clear(self) -> None:
        for name in _FIELDS:
            self.set(name, 0)


class Child:
    """A forked process."""

    def __init__(self, nursery: Nursery, pid: int, answer: Path) -> None:
        self._nursery, self.pid, self._answer = nursery, pid, answer
        self.status: int | None = None

    def send(self, number: int) -> None:
        """Send a signal; the pid cannot be another's, as nobody has waited for it yet."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @property
    def alive(self) -> bool:
        if self.status is None:
            self.status = self._nursery._ask({"poll": self.pid})["status"]
        return self.status is None

    def wait(self, timeout: float = 120.0) -> int:
        """Return the exit status; negative: the signal that ended it."""
        until = time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"the process did not end within {timeout:g} s: {self.log()[-2000:]}")
            time.sleep(0.002)
        assert self.status is not None
        return self.status

    def answer(self) -> dict[str, Any]:
        """What the function returned; empty if it was killed before."""
        try:
            return dict(json.loads(self._answer.read_text()))
        except (OSError, ValueError):
            return {}

    def log(self) -> str:
        return self._answer.with_suffix(".log").read_text(errors="replace")


class Nursery:
    """A warm process that forks others.

    Parameters
    ----------
    warm
        Modules that it imports first, or ``module:function`` that it calls.
    """

    def __init__(self, warm: tuple[str, ...] = ("tests.faults.victims",)) -> None:
        self._warm = warm

    def __enter__(self) -> Nursery:
        self._folder = tempfile.TemporaryDirectory(prefix="nursery-")
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks", *self._warm],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        )
        self._ask({"hello": True})
        return self

    def __exit__(self, *rest: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)
        assert self._server.stdout is not None
        self._server.stdout.close()
        self._folder.cleanup()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("the warm process has died")
        return dict(json.loads(line))

    def start(self, function: str, **arguments: Any) -> Child:
        """Fork a process that calls ``module:function`` with arguments that JSON can hold."""
        self._count += 1
        answer = Path(self._folder.name) / f"{self._count}.json"
        request = {"function": function, "arguments": arguments, "answer": str(answer)}
        return Child(self, int(self._ask(request)["pid"]), answer)


def _serve(warm: list[str]) -> None:
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for one in warm:
        module, _, name = one.partition(":")
        found = importlib.import_module(module)
        if name:
            getattr(found, name)()
    status: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "function" in request:
            pid = os.fork()
            if pid == 0:
                talk.close()
                _run(request)
            answer = {"pid": pid}
        elif "poll" in request:
            pid = request["poll"]
            if pid not in status:
                done, code = os.waitpid(pid, os.WNOHANG)
                if done:
                    status[pid] = os.waitstatus_to_exitcode(code)
            answer = {"status": status.get(pid)}
        talk.write(json.dumps(answer) + "\n")
        talk.flush()


def _run(request: dict[str, Any]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        log = os.open(Path(request["answer"]).with_suffix(".log"), os.O_WRONLY | os.O_CREAT, 0o666)
        # opened now: later there may be no right, and no room, for it
        answer = os.open(request["answer"], os.O_WRONLY | os.O_CREAT, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        module, _, name = request["function"].partition(":")
        found = getattr(importlib.import_module(module), name)(**request["arguments"])
        with contextlib.suppress(ImportError):
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        os.write(answer, json.dumps(found).encode())
        code = 0
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that other users can enter, removed at the end."""
    memory = Path("/dev/shm")  # what a process has written outlives it there too, and nothing waits for a disk
    where = str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="faults-", dir=where) as name:
        os.chmod(name, 0o755)
        yield Path(name)


if __name__ == "__main__":
    _serve(sys.argv[1:])
