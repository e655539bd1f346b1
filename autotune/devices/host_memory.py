"""Host memory: how much memory this machine has, how much is free, and what this process holds.

Everything is read from /proc and /sys/fs/cgroup, without torch. A container's limit is that of a cgroup: the smallest
limit of the cgroup that a process is in, and of those around it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
NO_LIMIT = 2**60  # version 1 of cgroups writes "no limit" as a number near 2**63


def status_bytes(field: str) -> int | None:
    """A field of /proc/self/status such as VmHWM, in bytes; None: the system does not tell."""
    return _kilobytes(Path("/proc/self/status"), field)


def held_bytes(pid: int) -> int | None:
    """What this process holds that no file on the disk holds, in memory or swapped out; None: the system does not tell.

    Shared memory is part of it. Files that are mapped are not: the kernel drops them when they are in the way.
    """
    status = Path(f"/proc/{pid}/status")
    try:
        found = re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", status.read_text(), re.MULTILINE)
    except OSError:  # it has ended
        return None
    return sum(map(int, found)) * 1024 if found else None


def total_bytes() -> int | None:
    """The machine's memory, or what this container may take of it; None: the system does not tell."""
    return _least(_kilobytes(Path("/proc/meminfo"), "MemTotal"), cgroup_limit_bytes())


def free_bytes() -> int | None:
    """What a process can take without swapping, by the kernel's estimate and the cgroup's limit; None: not known."""
    left = [limit - used for limit, used in _cgroup_limits()]
    return _least(_kilobytes(Path("/proc/meminfo"), "MemAvailable"), *left)


def cgroup_limit_bytes() -> int | None:
    """The smallest memory limit of the cgroups that this process is in; None: no limit."""
    return _least(*(limit for limit, _ in _cgroup_limits()))


def _cgroup_limits() -> Iterator[tuple[int, int]]:
    """(limit, what is in use and can't be given back) of each cgroup around this process that has a limit, in bytes."""
    membership = Path("/proc/self/cgroup")
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = CGROUPS / controllers
        second = ("memory.max", "memory.current")  # of version 2, which names no controllers
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else second
        here = top / path.lstrip("/")
        for folder in (here, *here.parents):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None and limit < NO_LIMIT:
                yield limit, max(0, used - _reclaimable(folder))
            if folder == top:
                break


def _reclaimable(folder: Path) -> int:
    """Bytes of files that the kernel keeps in memory for this cgroup and drops when they are in the way."""
    statistics = folder / "memory.stat"
    text = statistics.read_text() if statistics.exists() else ""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _number(path: Path) -> int | None:
    """The number in a file; None: no such file, or the word "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _kilobytes(path: Path, field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found[1]) * 1024 if found else None


def _least(*known: int | None) -> int | None:
    return min((value for value in known if value is not None), default=None)
