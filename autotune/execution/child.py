"""Child process: start it, log its output, enforce its limits, kill it with all its descendants."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from autotune.execution.host_limit import LOOK_EVERY_S, HostLimit
from autotune.execution.traces import copy_log, kill_marked, mark_of, state_of
from autotune.isolation import LIFELINE, MARK

KILL_PATIENCE_S = 60.0  # the kernel may take so long to end a process
LOG_PATIENCE_S = 2.0


class Stuck(Exception):
    """Processes of a job that the kernel can't end: they wait in a driver. The message is a clause about them."""


class Child(Protocol):
    """A process that leads its own process group."""

    pid: int

    def reap(self) -> int:
        """Wait until the process has ended. Returns its exit status; -N where signal N killed it."""


# start(log, lifeline, env) starts a child. The child writes its output to the file descriptor `log`.
Start = Callable[[int, int, Mapping[str, str]], Child]


class SpawnedChild:
    """A child that is a new Python interpreter."""

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

    def reap(self) -> int:
        return self._process.wait()


def supervise(
    start: Start, folder: Path, timeout_s: float, env: Mapping[str, str], *, host_limit: bool = False
) -> int | None:
    """Start a child, wait until it ends or its time is up, and kill whatever is left of it.

    Returns the exit status as Child.reap does, or None after a timeout. Ctrl-C ends the child early. It is held back
    while the child is being started or killed, so that no child is lost. Raises Stuck where it can't be killed.

    host_limit  kill it, and raise TooLarge, when it holds more of the host's memory than is free now
    """
    mark = mark_of(folder)
    (log_read, log_write), (lifeline_read, lifeline_write) = os.pipe(), os.pipe()
    # A daemon thread: if this process dies, it is not waited for, the lifeline closes, and the child is killed.
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
        in_time = _ends_within(child.pid, timeout_s, HostLimit(child.pid) if host_limit else None)
    finally:
        with _uninterrupted():
            try:
                status = _kill(child, mark, lifeline_write)
            except Stuck:
                log.join(LOG_PATIENCE_S)  # the process that is left holds the log's pipe open
                raise
            log.join()
    return status if in_time else None


def _kill(child: Child | None, mark: str, lifeline: int) -> int | None:
    """Kill the child and all its descendants. A child that has already ended keeps its own exit status."""
    if child is not None:
        for kill in (os.killpg, os.kill):  # both: a forked child does not lead a group until it has called setsid
            with contextlib.suppress(ProcessLookupError):
                kill(child.pid, signal.SIGKILL)
    os.close(lifeline)
    # Freeing all of a GPU's memory and all pinned memory takes seconds. A driver that hangs never gives it back.
    if child is not None and not _ends_within(child.pid, KILL_PATIENCE_S):
        raise Stuck(f"process {child.pid} {state_of(child.pid)}")
    status = child.reap() if child is not None else None
    left = kill_marked(mark)
    if left:
        raise Stuck(", ".join(f"process {pid} {state_of(pid)}" for pid in left))
    return status


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back a Ctrl-C until the block has ended."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # Python calls signal handlers in the main thread only
        return
    received: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            handler(*received[0])


def _ends_within(pid: int, timeout_s: float, limit: HostLimit | None = None) -> bool:
    """Sleep until the process has ended (True) or its time is up (False). Raises TooLarge where it is above the limit.

    Without a limit it never polls, which would disturb timings on the processor.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            ended, _, _ = select.select([process], [], [], left_s if limit is None else min(left_s, LOOK_EVERY_S))
            if ended or limit is None or left_s == 0.0:
                break
            limit.check()
    finally:
        os.close(process)
    return bool(ended)
