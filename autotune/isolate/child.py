"""A child at work: our ends of its log and of its lifeline, its time limit, and the end of it and all that is its."""

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from autotune.isolate.traces import copy_log, kill_marked, mark_of
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
    """Start a child and see it off. Its exit status as in Child.bury, or None where its time was up."""
    mark = mark_of(folder)
    (log_read, log_write), (lifeline_read, lifeline_write) = os.pipe(), os.pipe()
    try:
        child = start(log_write, lifeline_read, {**env, MARK: mark})
    except BaseException:
        os.close(log_read)
        os.close(lifeline_write)
        raise
    finally:
        os.close(log_write)
        os.close(lifeline_read)
    log = threading.Thread(target=copy_log, args=(os.fdopen(log_read, "rb"), folder / "log.txt"))
    log.start()
    in_time = False
    try:
        in_time = _ends_within(child.pid, timeout_s)
    finally:
        for kill in (os.killpg, os.kill):  # both: a forked child leads no group in its very first moment
            with contextlib.suppress(ProcessLookupError):
                kill(child.pid, signal.SIGKILL)
        os.close(lifeline_write)
        status = child.bury()
        kill_marked(mark)
        log.join()
    return status if in_time else None


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
