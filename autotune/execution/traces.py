"""What a job leaves behind: its log, bounded, and whatever processes it has started, wherever they fled.

Every process of a job carries its mark in the environment that the kernel shows (/proc/PID/environ): one that is
started inherits it, one that is forked has its parent's, and a child of the nursery has put it there (see fresh.py).
"""

import contextlib
import hashlib
import os
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

from autotune.isolation import MARK

LOG_HEAD_BYTES = 2 * 2**20
LOG_TAIL_BYTES = 2**20


def mark_of(folder: Path, parent: int | None = None) -> str:
    """The mark of the job in this folder, started by process `parent` (us): always short enough for BLANK."""
    return f"{parent or os.getpid()}:{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]}"


def marked(mark: str) -> list[int]:
    """The processes that a job has started and that still live, wherever they fled: they all carry its mark."""
    found = []
    needle = f"{MARK}={mark}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            alive = (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and needle in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def kill_marked(mark: str, *, patience_s: float = 10) -> None:
    """Kill whatever a job has left behind, until nothing is left. Raises RuntimeError where something will not die."""
    deadline = time.monotonic() + patience_s
    while left := marked(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {left} of a finished job can't be killed; they would disturb every timing")
        time.sleep(0.02)


def copy_log(source: Any, path: Path) -> None:
    """Everything that the child prints: the first LOG_HEAD_BYTES, then the last LOG_TAIL_BYTES, no matter how much.

    A full disk must not stop the reading: the child would hang on a full pipe.
    """
    tail: deque[bytes] = deque()
    head = kept = total = 0
    with source, contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while block := source.read1(65536):
            total += len(block)
            if head < LOG_HEAD_BYTES:
                with contextlib.suppress(OSError):
                    file.write(block)
                head += len(block)
                continue
            tail.append(block)
            kept += len(block)
            while kept - len(tail[0]) >= LOG_TAIL_BYTES:
                kept -= len(tail.popleft())
        if total > head + kept:
            file.write(f"\n[autotune left out {total - head - kept} bytes here]\n".encode())
        file.write(b"".join(tail))
