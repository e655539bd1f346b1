"""Peak memory, by phase ("load", "first", "run"). The timed calls are no phase: nothing is metered while they run.

On a GPU: what torch's allocator reserved at its peak, plus what the process holds on the device beyond it (the CUDA
context and libraries' workspaces, by NVML where it tells, otherwise by the device's own free-memory count). That sum
decides whether a config fits a card. On a CPU: the process's own peak resident memory, as the kernel keeps it
(VmHWM), above its resident memory before the pipeline was loaded.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from autotune.measure.nvml import Card
from autotune.measurement import Peaks


class MemoryMeter(Protocol):
    """Peaks of named phases. `start` ends the phase before it."""

    peaks: dict[str, Peaks]

    def start(self, phase: str) -> None: ...

    def stop(self) -> None: ...

    def aside(self) -> AbstractContextManager[None]:
        """What our own tools take inside it, and keep, is not the pipe's. No phase may be open."""


def meter_for(device: str) -> MemoryMeter:
    """To be made before anything is on the device: what it holds then is not ours."""
    return CudaMeter(device) if device.startswith("cuda") else ResidentMeter()


def cap(device: str, limit_bytes: int) -> None:
    """Let this process take at most so many bytes of a GPU that may be larger. On a CPU nothing is capped.

    torch's allocator gets what is left of the limit when the CUDA context is made, as a fraction of the card: from
    there on a larger reservation is an out-of-memory error, as on a smaller card. What libraries take beyond the
    allocator later (kernels that are loaded on first use) is not held back; the meter counts it.

    To be called before anything is on the device. Raises MemoryError where the context alone is larger.
    """
    if not device.startswith("cuda"):
        return
    import torch

    held = _Held(device)
    total_bytes = int(torch.cuda.mem_get_info(device)[1])  # makes the context
    left = limit_bytes - held.beyond_the_allocator()
    if left <= 0:
        raise MemoryError(f"the CUDA context alone is larger than the limit of {limit_bytes} bytes")
    torch.cuda.set_per_process_memory_fraction(min(1.0, left / total_bytes), device)


class ResidentMeter:
    """This process's resident memory on Linux, above what it was when the meter was made."""

    def __init__(self) -> None:
        self.peaks: dict[str, Peaks] = {}
        self._phase: str | None = None
        self._before = self._status("VmRSS")

    def start(self, phase: str) -> None:
        self.stop()
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
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
    """torch's peaks, and its reserved peak plus everything else that this process holds on the device.

    The allocator's cache is left as it is between phases: what was reserved before and not given back is held on the
    card in this phase, too.
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
                device_bytes=reserved + self._held.beyond_the_allocator(),
            )
        self._phase = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Counted all the same: a CUDA graph may be recorded inside, and what is needed must not look smaller."""
        yield


class _Held:
    """What this process holds on a GPU. To be made before its CUDA context is, which is a part of it."""

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

    def beyond_the_allocator(self) -> int:
        """Bytes, now: the context, libraries' workspaces, other allocators."""
        known = self._card.processes().get(os.getpid(), 0) if self._card is not None else 0
        reserved = int(self._cuda.memory_reserved(self._device))
        # In a container NVML may not know us by our own number, and another process by ours.
        held = known if known >= max(reserved, 1) else self._used() - self._used_before
        return max(0, held - reserved)

    def _used(self) -> int:
        """By everybody. Where NVML doesn't tell, torch does, but asking makes the context: that is then missing."""
        used = self._card.used_bytes() if self._card is not None else None
        if used is not None:
            return used
        free, total = self._cuda.mem_get_info(self._device)
        return int(total - free)
