"""CPU watch: the share of the processor's time that other processes took while calls were timed."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from autotune.measure.disturbance import Disturbance, accepts_any
from autotune.measurement import Health

OTHERS_CPU_SHARE = 0.10  # of the usable cores' time: more than this is a disturbance
WINDOW_S = 0.5  # /proc counts in ticks of 10 ms: 50 ticks are enough to tell 10 % from 5 %
BUSY_FIELDS = (1, 2, 3, 6, 7, 8)  # of a cpu line in /proc/stat: user, nice, system, irq, softirq, steal


class _Times(NamedTuple):
    wall_s: float
    busy_s: float  # of the usable cores, by all processes
    own_s: float  # by this process group


class CpuWatch:
    """The share of the usable cores' time that others took, the hypervisor's steal included.

    Others are all processes outside this process's group. `proc` is the folder of Linux's proc file system.
    """

    window_s = WINDOW_S

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._cores = [f"cpu{core}" for core in sorted(os.sched_getaffinity(0))]
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._group: list[Path] | None = None
        self._begun: _Times | None = None
        self._others: list[tuple[float, float]] = []  # (share, seconds) of the kept windows

    def begin(self) -> None:
        if self._group is None:
            self._group = self._own_group()
        self._begun = self._times()

    def end(self, seconds: float) -> Disturbance | None:
        before, after = self._begun, self._times()
        if before is None or after is None or after.wall_s <= before.wall_s:
            return None
        wall_s = after.wall_s - before.wall_s
        others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
        share = min(1.0, max(0.0, others_s / (wall_s * len(self._cores))))
        if share > OTHERS_CPU_SHARE and not accepts_any():
            return Disturbance("contended", f"others took {share:.0%} of the usable cores' time")
        self._others.append((share, wall_s))
        return None

    def health(self) -> Health:
        seconds = sum(wall_s for _, wall_s in self._others)
        mean = sum(share * wall_s for share, wall_s in self._others) / seconds if seconds else None
        return Health(load_average=os.getloadavg()[0], others_cpu_share=mean)

    def energy_j(self) -> None:
        return None

    def _times(self) -> _Times | None:
        """The times so far; None where the kernel does not show each core."""
        lines = [line.split() for line in (self._proc / "stat").read_text().splitlines()]
        cores = {line[0]: line for line in lines if line and line[0] in self._cores}
        if len(cores) < len(self._cores):
            return None
        busy = sum(int(line[field]) for line in cores.values() for field in BUSY_FIELDS)
        own = sum(self._process_ticks(process) for process in self._group or ())
        return _Times(time.perf_counter(), busy * self._tick_s, own * self._tick_s)

    def _process_ticks(self, process: Path) -> int:
        """User and system time of a process and of its children that have ended (fields 14 to 17, see proc(5))."""
        fields = _stat(process)
        return sum(int(ticks) for ticks in fields[11:15]) if fields else 0

    def _own_group(self) -> list[Path]:
        """The processes of this process's group."""
        group = str(os.getpgrp())
        return [p for p in self._proc.glob("[0-9]*") if (fields := _stat(p)) and fields[2] == group]


def _stat(process: Path) -> list[str]:
    """The fields of /proc/N/stat after the command's name, from the 3rd on; empty where the process has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
