"""Memory: peak memory of this process, by phase ("load", "first", "run").

The timed calls are not a phase: nothing is metered while they run.

On a GPU, the peak is what torch's allocator reserved, plus what the process holds on the device outside the allocator:
the CUDA context and the libraries' workspaces. NVML tells the latter; where it does not, the device's count of free
memory is used. The sum decides whether a config fits a card. On a CPU, the peak is the process's peak resident memory
(the kernel's VmHWM) above its resident memory before the pipeline was loaded.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from autotune.measure.nvml import Card
from autotune.measurement import Peaks


class MemoryMeter(Protocol):
    """Peak memory of named phases. start() ends the phase before it."""

    peaks: dict[str, Peaks]

    def start(self, phase: str) -> None: ...

    def stop(self) -> None: ...

    def aside(self) -> AbstractContextManager[None]:
        """Memory that is taken inside the block, and kept, is not counted as the pipe's. No phase may be open."""


def meter_for(device: str) -> MemoryMeter:
    """The meter for a device by torch's name. Make it before this process puts anything on the device."""
    return CudaMeter(device) if device.startswith("cuda") else ResidentMeter()


def cap(device: str, limit_bytes: int) -> None:
    """Limit this process to so many bytes of a GPU. On a CPU nothing is capped.

    The CUDA context is subtracted from the limit; the rest caps torch's allocator, as a fraction of the card. A larger
    reservation is then an out-of-memory error, as on a smaller card. What libraries take outside the allocator later
    (kernels loaded on first use) is not capped, but the meter counts it.

    Call this before anything is on the device. Raises MemoryError where the context alone exceeds the limit.
    """
    if not device.startswith("cuda"):
        return
    import torch

    held = _Held(device)
    total_bytes = int(torch.cuda.mem_get_info(device)[1])  # makes the context
    left = limit_bytes - held.outside_the_allocator()
    if left <= 0:
        raise MemoryError(f"the CUDA context alone is larger than the limit of {limit_bytes} bytes")
    torch.cuda.set_per_process_memory_fraction(min(1.0, left / total_bytes), device)


class ResidentMeter:
    """A CPU: this process's resident memory on Linux, above what it was when the meter was made."""

    def __init__(self) -> None:
        self.peaks: dict[str, Peaks] = {}
        self._phase: str | None = None
        self._before = self._status("VmRSS")

    def start(self, phase: str) -> None:
        self.stop()
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present value
        self._phase = phase

    def stop(self) -> None:
        if self._phase is not None:
            self.peaks[self._phase] = Peaks(device_bytes=max(0, self._status("VmHWM") - self._before))
        self._phase = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        before = self._status("VmRSS")
        yield
        self._before += max(0, self._status("VmRSS") - before)

    @staticmethod
    def _status(field: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise OSError(f"/proc/self/status has no {field}: memory can't be measured on this system")


class CudaMeter:
    """A GPU: the peaks of torch's allocator, and what this process holds on the device outside it.

    The allocator's cache is not emptied between phases: memory reserved earlier and not given back counts in the later
    phases, too.
    """

    def __init__(self, device: str) -> None:
        import torch

        self.peaks: dict[str, Peaks] = {}
        self._held = _Held(device)
        self._cuda, self._device = torch.cuda, device
        self._phase: str | None = None

    def start(self, phase: str) -> None:
        self.stop()
        self._cuda.reset_peak_memory_stats(self._device)
        self._phase = phase

    def stop(self) -> None:
        if self._phase is not None:
            self._cuda.synchronize(self._device)
            reserved = int(self._cuda.max_memory_reserved(self._device))
            self.peaks[self._phase] = Peaks(
                allocated_bytes=int(self._cuda.max_memory_allocated(self._device)),
                reserved_bytes=reserved,
                device_bytes=reserved + self._held.outside_the_allocator(),
            )
        self._phase = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Counts the memory all the same: a CUDA graph may be recorded inside, which the pipe needs."""
        yield


class _Held:
    """What this process holds on a GPU. Make it before the CUDA context, which is a part of that."""

    def __init__(self, device: str) -> None:
        import pynvml
        import torch

        self._cuda, self._device = torch.cuda, device
        self._card: Card | None
        try:
            self._card = Card(device)
        except pynvml.NVMLError:
            self._card = None
        self._used_before = self._used()

    def outside_the_allocator(self) -> int:
        """Bytes held now by the context, libraries' workspaces and other allocators."""
        by_nvml = self._card.processes().get(os.getpid(), 0) if self._card is not None else 0
        reserved = int(self._cuda.memory_reserved(self._device))
        # In a container NVML may list this process by another id, or another process by this id.
        held = by_nvml if by_nvml >= max(reserved, 1) else self._used() - self._used_before
        return max(0, held - reserved)

    def _used(self) -> int:
        """Bytes used by all processes. Without NVML torch tells, but makes the context first, so it is not counted."""
        used = self._card.used_bytes() if self._card is not None else None
        if used is not None:
            return used
        free, total = self._cuda.mem_get_info(self._device)
        return int(total - free)
