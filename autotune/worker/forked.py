"""Forked child: make a fork behave like a new interpreter, and find out when forking is not safe.

A fork inherits state that a new interpreter would not have. begin() resets the environment (also as the kernel shows
it, since traces.py finds a job's processes by it), the file descriptors, the random state and the resident memory.
Three differences remain: all children of a server share the iteration order of sets and the layout of memory, and more
modules may be imported than the job needs. gc.freeze is not used on purpose: it would make the garbage collector's
pauses shorter than in production.

Resident memory: a fork's page table holds the anonymous pages of its parent, but not the pages of mapped files (the
code of the libraries). Those would come back one by one when they are used, and would be counted as memory that the
config needs. So begin() maps in all file pages that the server had. Resident memory is then the same as after the
imports of a new interpreter. Pages shared with the server count in full, before and after they are copied.
"""

import contextlib
import ctypes
import os
import random
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from autotune.isolation import BLANK_MARK, LIFELINE, MARK
from autotune.worker.main import when_the_parent_dies

PAGE = os.sysconf("SC_PAGE_SIZE")

# What the drivers of NVIDIA and AMD open for a process that computes. NVML opens others; under WSL2 all that asks for a
# GPU opens the same file, so that a context can't be ruled out there once NVML was asked.
GPU_FILES = ("/dev/nvidia-uvm", "/dev/kfd", "/dev/dxg")

Span = tuple[int, int]  # a range of memory: first address, number of bytes


def fault() -> str | None:
    """Why this process must not fork: it has threads, or a context on a GPU. None where it may.

    There is no context without an open file of its driver (GPU_FILES), whichever library has made it.
    """
    threads = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(threads) > 1:
        return f"the libraries have started threads ({', '.join(sorted(set(threads)))})"
    opened = [name for name in _open_files() if name in GPU_FILES]
    return f"the libraries have opened {opened[0]}, as for a context on a GPU" if opened else None


def _open_files() -> Iterator[str]:
    """The names of all files that this process has open or mapped."""
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of os.listdir itself is closed by now
            yield os.readlink(f"/proc/self/fd/{descriptor}")
    for line in Path("/proc/self/maps").read_text().splitlines():
        yield line.partition("/")[1] + line.partition("/")[2]


def fault_of_fork() -> str | None:
    """Called in a fork: why forks of this process can't be used, or None. torch knows whether CUDA was used before."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda._is_in_bad_fork():
        return "the libraries have asked CUDA for its devices"
    mark = "a mark of the rehearsal"
    set_mark(mark)
    if f"{MARK}={mark}\0".encode() not in Path("/proc/self/environ").read_bytes():
        return "the kernel doesn't show the environment that a process has now"
    return None


def begin(server: int, log: int, lifeline: int, env: Mapping[str, str], files: list[Span]) -> None:
    """Make this fork of process `server` a child of its own: group, output, environment, memory, random state.

    log, lifeline  file descriptors of the child's output and of its lifeline
    env            the child's whole environment
    files          the file pages that the server had in memory
    """
    when_the_parent_dies(signal.SIGKILL)
    if os.getppid() != server:  # the server ended before prctl was called
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
        sys.modules["torch"].default_generator.seed()  # a new interpreter has another seed every time


def set_mark(mark: str) -> None:
    """Replace BLANK_MARK by the mark in the environment that the kernel shows of this process (/proc/self/environ).

    The kernel reads that environment from this process's own memory, so it can be overwritten. Raises ValueError where
    BLANK_MARK is not found there.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start and env_end, see proc(5)
    shown = ctypes.string_at(start, end - start)
    at = shown.index(f"{MARK}={BLANK_MARK}\0".encode()) + len(MARK) + 1
    ctypes.memmove(start + at, mark.encode().ljust(len(BLANK_MARK), b"\0"), len(BLANK_MARK))


def files_in_memory() -> list[Span]:
    """The parts of mapped files that this process has in its page table."""
    import numpy as np

    spans: list[Span] = []
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights, _, _, inode, *_ = line.split()
            low, high = (int(address, 16) for address in span.split("-"))
            if inode == "0" or rights[0] != "r":
                continue
            entries = np.frombuffer(os.pread(pagemap.fileno(), (high - low) // PAGE * 8, low // PAGE * 8), np.uint64)
            present = (entries >> np.uint64(63)).astype(np.int8)  # bit 63: in memory
            edges = np.flatnonzero(np.diff(present, prepend=0, append=0)).reshape(-1, 2)
            spans += [(low + int(a) * PAGE, int(b - a) * PAGE) for a, b in edges]
    return spans


def map_in(files: list[Span]) -> None:
    """Read one byte of each page, which puts the page into this process's page table."""
    for start, length in files:
        _ = (ctypes.c_char * length).from_address(start)[::PAGE]
