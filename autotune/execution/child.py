"""A child at work: our ends of its log and of its lifeline, its time limit, and the end of it and all that is its."""

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from autotune.execution.traces import copy_log, kill_marked, mark_of
from autotune.isolation import LIFELINE, MARK


class Child(Protocol):
    """A process that leads a group of its own."""

    pid: int

    def bury(self) -> int:
        """Wait for its end; its exit status, or the signal that ended it as a negative number."""


# Starts a child whose output goes to the first file descriptor, with the second as its lifeline, in this environment.
Start = Callable[[int, int, Mapping[str, str]], Child]


class Fresh:
    """A child with an interpreter of its own."""

    def __init__(self, command: Sequence[str], log: int, lifeline: int, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lifeline],
            env={**env, LIFELINE: str(lifeline)},
        )
        self.pid = self._process.pid

    def bury(self) -> int:
        return self._process.wait()


def look_after(start: Start, folder: Path, timeout_s: float, env: Mapping[str, str]) -> int | None:
    """Start a child and see it off. Its exit status as in Child.bury, or None where its time was up.

    Ctrl-C ends it early, but never between its start and our knowing of it, nor in the middle of its end.
    """
    mark = mark_of(folder)
    (log_read, log_write), (lifeline_read, lifeline_write) = os.pipe(), os.pipe()
    # A daemon: should we be torn away from here, nobody waits for it, our lifeline closes, and the child with it.
    log = threading.Thread(target=copy_log, args=(os.fdopen(log_read, "rb"), folder / "log.txt"), daemon=True)
    child, in_time = None, False
    try:
        with _uninterrupted():
            log.start()
            try:
                child = start(log_write, lifeline_read, {**env, MARK: mark})
            finally:
                os.close(log_write)
                os.close(lifeline_read)
        in_time = _ends_within(child.pid, timeout_s)
    finally:
        with _uninterrupted():
            status = _end(child, mark, lifeline_write)
            log.join()
    return status if in_time else None


def _end(child: Child | None, mark: str, lifeline: int) -> int | None:
    """Kill the child and all that is its. The exit status of one that had ended already is its own."""
    if child is not None:
        for kill in (os.killpg, os.kill):  # both: a forked child leads no group in its very first moment
            with contextlib.suppress(ProcessLookupError):
                kill(child.pid, signal.SIGKILL)
    os.close(lifeline)
    status = child.bury() if child is not None else None
    kill_marked(mark)
    return status


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A Ctrl-C that comes meanwhile is heard at the end."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # Python code is never interrupted here
        return
    heard: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if heard:
            handler(*heard[0])


def _ends_within(pid: int, timeout_s: float) -> bool:
    """Sleep until the process has ended (True) or its time is up (False), without waking in between."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended, _, _ = select.select([watched], [], [], timeout_s)
    finally:
        os.close(watched)
    return bool(ended)
