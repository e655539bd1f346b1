"""Traces of a job: its log, of bounded size, and the processes that it started.

Every process of a job carries the job's mark in the environment that the kernel shows (/proc/PID/environ). Its
descendants inherit the mark, even those that leave the process group or the session. A child of the fork server writes
the mark there itself (worker/forked.py).
"""

import contextlib
import hashlib
import os
import signal
import time
from collections import deque
from io import BufferedReader
from pathlib import Path

from autotune.isolation import MARK

LOG_HEAD_BYTES = 2 * 2**20
LOG_TAIL_BYTES = 2**20


def mark_of(folder: Path, parent: int | None = None) -> str:
    """The mark of the job in this folder. `parent`: the process that starts it (None: this one)."""
    return f"{parent or os.getpid()}:{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]}"


def marked(mark: str) -> list[int]:
    """The ids of the running processes that carry this mark."""
    found = []
    entry = f"{MARK}={mark}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            running = (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if running and entry in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def kill_marked(mark: str, *, patience_s: float = 10) -> list[int]:
    """Kill every process of a job, again and again until none is left. Returns those left after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while left := marked(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def state_of(pid: int) -> str:
    """What a process that does not end is doing, as a clause: "waits in the kernel (state D, in nvidia_close)"."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        where = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return "does not end"
    inside = f", in {where}" if where not in ("", "0") else ""
    return f"waits in the kernel (state D{inside})" if state == "D" else f"does not end (state {state}{inside})"


def copy_log(source: BufferedReader, path: Path) -> None:
    """Copy what the child prints into a file: the first LOG_HEAD_BYTES and the last LOG_TAIL_BYTES.

    Reads `source` to its end and closes it. A full disk does not stop the reading: the child would hang on a full pipe.
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
