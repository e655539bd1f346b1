"""In a forked child: what a fresh interpreter would have of its own, and in the server: why it must not fork.

Forks differ from fresh interpreters in what they inherit. Held here: the environment (also as the kernel shows it, by
which a job's processes are found), the descriptors, the random state, and the resident memory. Not undone are the
order of sets and the layout of memory, which all children of a server share, and that more may be imported than a job
needs. Nothing is frozen (gc.freeze) on purpose: the collector's pauses would be shorter than in production.

A fork starts with the anonymous pages of its parent in its page table, but with none of the mapped files' (the code of
the libraries): they come back one by one as they are used, and would look like memory that the config needs. So those
that the server had are mapped in before anything is measured: resident memory is then what it is after a fresh
interpreter's imports. Pages that are shared with the server count in full, and still count once they are copied.
"""

import ctypes
import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from autotune.isolation import BLANK, LIFELINE, MARK

PAGE = os.sysconf("SC_PAGE_SIZE")
PR_SET_PDEATHSIG = 1

Stretch = tuple[int, int]  # first address, bytes


def fault() -> str | None:
    """Why this process must not fork, or None: it has threads, or it has touched a GPU."""
    threads = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(threads) > 1:
        return f"the libraries have started threads ({', '.join(sorted(set(threads)))})"
    if "/dev/nvidia-uvm" in Path("/proc/self/maps").read_text():
        return "the libraries have started CUDA"
    return None


def fault_of_fork() -> str | None:
    """In a fork: why it is of no use, or None. torch itself knows whether CUDA was asked for before."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda._is_in_bad_fork():
        return "the libraries have asked CUDA for its devices"
    mark = "a mark of a fork that is for nothing"
    set_mark(mark)
    if f"{MARK}={mark}\0".encode() not in Path("/proc/self/environ").read_bytes():
        return "the kernel doesn't show the environment that a process has now"
    return None


def begin(server: int, log: int, lifeline: int, env: Mapping[str, str], files: list[Stretch]) -> None:
    """Make this fork of process `server` a child as `isolate` wants it: the leader of a group of its own."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it has ended before we could say so
        os.kill(os.getpid(), signal.SIGKILL)
    os.setsid()
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.environ.clear()
    os.environ.update(env)
    os.environ[LIFELINE] = str(lifeline)
    set_mark(env[MARK])
    map_in(files)
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()  # a fresh interpreter's is different every time


def set_mark(mark: str) -> None:
    """Write the mark over the BLANK in the environment that the kernel shows of this process: /proc/self/environ.

    It lies where the process found it when it began, in memory that is ours. Raises ValueError where it isn't there.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start and env_end, see proc(5)
    shown = ctypes.string_at(start, end - start)
    at = shown.index(f"{MARK}={BLANK}\0".encode()) + len(MARK) + 1
    ctypes.memmove(start + at, mark.encode().ljust(len(BLANK), b"\0"), len(BLANK))


def files_in_memory() -> list[Stretch]:
    """The stretches of mapped files that this process has in its page table."""
    import numpy as np

    found: list[Stretch] = []
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights, _, _, inode, *_ = line.split()
            low, high = (int(address, 16) for address in span.split("-"))
            if inode == "0" or rights[0] != "r":
                continue
            entries = np.frombuffer(os.pread(pagemap.fileno(), (high - low) // PAGE * 8, low // PAGE * 8), np.uint64)
            present = (entries >> np.uint64(63)).astype(np.int8)  # bit 63: in memory
            edges = np.flatnonzero(np.diff(present, prepend=0, append=0)).reshape(-1, 2)
            found += [(low + int(a) * PAGE, int(b - a) * PAGE) for a, b in edges]
    return found


def map_in(files: list[Stretch]) -> None:
    """Read a byte of each page, which puts it into the page table of this process."""
    for start, length in files:
        _ = (ctypes.c_char * length).from_address(start)[::PAGE]
