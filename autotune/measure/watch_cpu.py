"""CPU watch: the share of the processor's time that other processes took while calls were timed.

A GPU's calls are watched for it, too: where the processor can't launch the work fast enough, it decides the time. There
cores are many and one thread launches, so others disturb only where this thread had to wait for a core.
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from autotune.measure.disturbance import Disturbance, accepts_any
from autotune.measurement import Health

OTHERS_CPU_SHARE = 0.10  # of the usable cores' time: more than this is a disturbance
WAITED_SHARE = 0.02  # of a GPU call's time: the thread that launches may wait so long for a core
WINDOW_S = 0.5  # /proc counts in ticks of 10 ms: 50 ticks are enough to tell 10 % from 5 %
BUSY_FIELDS = (1, 2, 3, 6, 7, 8)  # of a cpu line in /proc/stat: user, nice, system, irq, softirq, steal


class _Times(NamedTuple):
    wall_s: float
    busy_s: float | None  # of the usable cores, by all processes; None: the kernel does not show each core
    own_s: float  # by this process group
    ran_s: float  # this thread on a core, by the scheduler
    waited_s: float  # this thread ready to run, without a core


class HostUse(NamedTuple):
    """The processor during one sample. None: not known.

    others_share  of the usable cores' time that others took
    waited_share  of the sample's time that this thread, which launches the work, waited for a core
    """

    wall_s: float
    others_share: float | None
    waited_share: float | None


class HostLoad:
    """The share of the usable cores' time that others took, the hypervisor's steal included.

    Others are all processes outside this process's group. `proc` is the folder of Linux's proc file system.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._cores = [f"cpu{core}" for core in sorted(os.sched_getaffinity(0))]
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._group: list[Path] | None = None
        self._begun: _Times | None = None
        self._kept: list[HostUse] = []

    def start(self) -> None:
        """A new series of samples begins. Processes that this one started before it are its own."""
        self._group, self._kept = self._own_group(), []

    def begin(self) -> None:
        if self._group is None:
            self.start()
        self._begun = self._times()

    def end(self) -> HostUse | None:
        """The use since begin(); None: no time went by."""
        before, after = self._begun, self._times()
        if before is None or after.wall_s <= before.wall_s:
            return None
        wall_s, others_share, waited_share = after.wall_s - before.wall_s, None, None
        if before.busy_s is not None and after.busy_s is not None:
            others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
            others_share = min(1.0, max(0.0, others_s / (wall_s * len(self._cores))))
        if after.ran_s > before.ran_s:  # some kernels have the file and count nothing
            waited_share = min(1.0, (after.waited_s - before.waited_s) / wall_s)
        return HostUse(wall_s, others_share, waited_share)

    def keep(self, use: HostUse | None) -> None:
        if use is not None:
            self._kept.append(use)

    def health(self) -> Health:
        """Of the kept samples of this series."""
        return Health(
            load_average=os.getloadavg()[0],
            others_cpu_share=_mean([(use.others_share, use.wall_s) for use in self._kept]),
            waited_share=_mean([(use.waited_share, use.wall_s) for use in self._kept]),
        )

    def _times(self) -> _Times:
        lines = [line.split() for line in (self._proc / "stat").read_text().splitlines()]
        cores = {line[0]: line for line in lines if line and line[0] in self._cores}
        busy = sum(int(line[field]) for line in cores.values() for field in BUSY_FIELDS) * self._tick_s
        own = sum(self._process_ticks(process) for process in self._group or ()) * self._tick_s
        all_cores = len(cores) == len(self._cores)
        return _Times(time.perf_counter(), busy if all_cores else None, own, *self._scheduled_s())

    def _scheduled_s(self) -> tuple[float, float]:
        """Seconds that this thread has run, and waited for a core (proc's schedstat, in nanoseconds)."""
        try:
            text = (self._proc / "self" / "task" / str(threading.get_native_id()) / "schedstat").read_text()
        except OSError:  # the kernel does not keep them
            return 0.0, 0.0
        ran, waited, *_ = text.split()
        return int(ran) / 1e9, int(waited) / 1e9

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


def _mean(shares: Sequence[tuple[float | None, float]]) -> float | None:
    """The mean of shares with their seconds as weights; None: none is known."""
    known = [(share, seconds) for share, seconds in shares if share is not None]
    return sum(share * seconds for share, seconds in known) / sum(s for _, s in known) if known else None


class HostWatch:
    """Watches the processor while a GPU computes the calls, where the GPU itself can't be watched."""

    window_s = 0.0

    def __init__(self, proc: Path = Path("/proc"), not_told: tuple[str, ...] = ()) -> None:
        """`not_told`: what can't be seen of the device, in words."""
        self._host, self._not_told = HostLoad(proc), not_told

    def start(self) -> None:
        self._host.start()

    def begin(self) -> None:
        self._host.begin()

    def end(self, seconds: float) -> Disturbance | None:
        use = self._host.end()
        disturbance = None if accepts_any() else self._disturbance(use)
        if disturbance is None:
            self._host.keep(use)
        return disturbance

    def _disturbance(self, use: HostUse | None) -> Disturbance | None:
        return kept_waiting(use)

    def health(self) -> Health:
        return self._host.health().model_copy(update={"not_told": self._not_told})

    def energy_j(self) -> None:
        return None


class CpuWatch(HostWatch):
    """Watches the processor while it computes the calls."""

    window_s = WINDOW_S

    def _disturbance(self, use: HostUse | None) -> Disturbance | None:
        share = use.others_share if use else None
        if share is None or share <= OTHERS_CPU_SHARE:
            return None
        return Disturbance("contended", f"others took {share:.0%} of the usable cores' time")

    def health(self) -> Health:
        return super().health().model_copy(update={"waited_share": None})  # many threads compute, not this one alone


def kept_waiting(use: HostUse | None) -> Disturbance | None:
    """Did others keep the thread waiting that launches a GPU's work? None: no, or too little to matter.

    Where the kernel does not tell how long the thread waited, others' share of the cores alone decides.
    """
    if use is None or use.others_share is None or use.others_share <= OTHERS_CPU_SHARE:
        return None
    if use.waited_share is not None and use.waited_share <= WAITED_SHARE:
        return None
    waited = "" if use.waited_share is None else f", and the GPU's work waited {use.waited_share:.0%} of it for a core"
    return Disturbance("contended", f"others took {use.others_share:.0%} of the usable cores' time{waited}")
