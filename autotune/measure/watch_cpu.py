"""Watching a processor: which share of its time other processes had while calls were timed."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from autotune.measure.disturbance import Disturbance, accepts_any
from autotune.measurement import Health

OTHERS_CPU_SHARE = 0.10  # of the usable cores: more than this disturbs
WINDOW_S = 0.5  # /proc counts in ticks of 10 ms: 50 of them tell a tenth from a twentieth
BUSY_FIELDS = (1, 2, 3, 6, 7, 8)  # of a cpu line in /proc/stat: user, nice, system, irq, softirq, steal


class _Times(NamedTuple):
    wall_s: float
    busy_s: float  # of the cores that we may use, whoever used them
    ours_s: float


class CpuWatch:
    """Which share of the cores that we may use was others' (the hypervisor's steal among it).

    Ours is what our process group took; in it are our own children. `proc` is the folder that Linux keeps it in.
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
            self._group = self._our_group()
        self._begun = self._times()

    def end(self, seconds: float) -> Disturbance | None:
        begun, now = self._begun, self._times()
        if begun is None or now is None or now.wall_s <= begun.wall_s:
            return None
        wall_s = now.wall_s - begun.wall_s
        others_s = (now.busy_s - begun.busy_s) - (now.ours_s - begun.ours_s)
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
        """None where the kernel doesn't show its cores."""
        lines = [line.split() for line in (self._proc / "stat").read_text().splitlines()]
        cores = {line[0]: line for line in lines if line and line[0] in self._cores}
        if len(cores) < len(self._cores):
            return None
        busy = sum(int(line[field]) for line in cores.values() for field in BUSY_FIELDS)
        ours = sum(self._process_ticks(process) for process in self._group or ())
        return _Times(time.perf_counter(), busy * self._tick_s, ours * self._tick_s)

    def _process_ticks(self, process: Path) -> int:
        """User's and system's time of a process and of its children that have ended (fields 14 to 17, see proc(5))."""
        fields = _stat(process)
        return sum(int(ticks) for ticks in fields[11:15]) if fields else 0

    def _our_group(self) -> list[Path]:
        ours = str(os.getpgrp())
        return [p for p in self._proc.glob("[0-9]*") if (fields := _stat(p)) and fields[2] == ours]


def _stat(process: Path) -> list[str]:
    """The fields of /proc/N/stat after the command's name, from the 3rd on; empty where the process has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
