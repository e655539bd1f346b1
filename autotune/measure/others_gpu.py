"""Others on a GPU: the memory and the computing time that other processes take, as NVML tells them.

NVML's samples of utilisation are not to be trusted as they are: drivers return samples of before, of processes that are
no more, and shares such as 37100 %. On a desktop, the compositor and the browser always use a little: what they used
before is the floor above which others disturb.
"""

import os
import statistics
import time
from collections.abc import Iterator, Set
from typing import NamedTuple

from autotune.devices.amd_card import AmdCard
from autotune.measure.disturbance import Disturbance
from autotune.measure.nvml import Card

GROWTH_BYTES = 256 * 2**20
UTILISATION = 5  # per cent of the multiprocessors' time above the floor
FLOOR_S = 10.0  # how long before the watch began its samples tell the floor
FLOOR_MOST = 20  # per cent: who used more than that is no desktop but another job


class Use(NamedTuple):
    """Of others during one sample. None: they can't be told from this process.

    growth_bytes  of the process that took the most memory since the series began
    utilisation   of the busiest process, per cent
    floor         what that process used before, per cent
    """

    held_bytes: int | None
    growth_bytes: int
    utilisation: float | None
    floor: float


class OthersOnGpu:
    """Watches one GPU. Make it before this process puts work on the GPU."""

    def __init__(self, card: Card | AmdCard, device: str) -> None:
        """`device` is torch's name of the GPU."""
        self._card, self._device = card, device
        self._before: dict[int | None, int] = {}
        self._known: Set[int] = set(card.processes())
        self._floor: dict[int, float] = {}
        for pid, shares in self._shares(_now_us() - round(FLOOR_S * 1e6)).items():
            self._floor[pid] = min(float(max(shares)), FLOOR_MOST)
        self._began_us = 0

    def start(self) -> None:
        """A new series of samples begins: what others hold now was there before."""
        self._before = self._held()

    def begin(self) -> None:
        self._began_us, self._known = _now_us(), set(self._card.processes())

    def end(self) -> Use:
        """What others used since begin()."""
        held = self._held()
        self._known = {*self._known, *self._card.processes()}
        apart = None not in held
        means = {pid: statistics.fmean(shares) for pid, shares in self._shares(self._began_us).items()} if apart else {}
        busiest = max(means, key=lambda pid: means[pid] - self._floor.get(pid, 0.0), default=None)
        return Use(
            held_bytes=sum(held.values()) if apart else None,
            growth_bytes=max((now - self._before.get(who, 0) for who, now in held.items()), default=0),
            utilisation=None if not apart else 0.0 if busiest is None else means[busiest],
            floor=self._floor.get(busiest, 0.0) if busiest is not None else 0.0,
        )

    def _held(self) -> dict[int | None, int]:
        """Process id -> bytes on the card, of each process but this one.

        In a container NVML may list this process by another id, so that others can't be told from it. Then the only
        key is None, with all bytes on the card outside this process's allocator. Their growth still comes from others.
        """
        import torch

        known, reserved = self._card.processes(), torch.cuda.memory_reserved(self._device)
        if _lists_this_process(known, reserved):
            return {pid: held for pid, held in known.items() if pid != os.getpid()}
        used = self._card.used_bytes()
        return {None: 0 if used is None else used - reserved}

    def _shares(self, since_us: int) -> dict[int, list[int]]:
        """Process id -> per cents of NVML's samples since then that can be true, of each known process but this one."""
        shares: dict[int, list[int]] = {}
        for pid, at_us, share in self._samples(since_us):
            if pid != os.getpid() and pid in self._known and at_us >= since_us and 0 <= share <= 100:
                shares.setdefault(pid, []).append(share)
        return shares

    def _samples(self, since_us: int) -> Iterator[tuple[int, int, int]]:
        nvml = self._card.nvml
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(self._card.handle, since_us)
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND):  # these two: no sample since then
                self._card.not_told.add("ProcessUtilization")
            return
        for sample in samples:
            yield int(sample.pid), int(sample.timeStamp), int(sample.smUtil)


def disturbance_by(use: Use) -> Disturbance | None:
    """What is wrong with a sample in which others used so much; None: nothing."""
    if use.growth_bytes > GROWTH_BYTES:
        return Disturbance("contended", f"others took {use.growth_bytes / 2**20:.0f} MiB more of the GPU's memory")
    if use.utilisation is not None and use.utilisation > use.floor + UTILISATION:
        before = f", {use.floor:.0f}% before" if use.floor else ""
        return Disturbance("contended", f"another process used {use.utilisation:.0f}% of the GPU{before}")
    return None


def _now_us() -> int:
    """The present, as NVML counts it: microseconds since 1970."""
    return time.time_ns() // 1000


def _lists_this_process(processes: dict[int, int], reserved_bytes: int) -> bool:
    """Is this process's id listed, and does it mean this process? In a container it may be a host process's id."""
    held = processes.get(os.getpid())
    return held is not None and (held == 0 or held >= reserved_bytes)
