"""Memory: peak memory of this process, by phase ("load", "first", "run" and its parts).

The timed calls are not a phase: nothing is metered while they run.

On a GPU, the peak is what torch's allocator reserved, plus what the process holds on the device outside the allocator:
the CUDA context and the libraries' workspaces. NVML tells the latter; where it does not, the device's count of free
memory is used. The sum decides whether a config fits a card. On a CPU, the peak is the process's peak resident memory
(the kernel's VmHWM) above its resident memory before the pipeline was loaded.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from autotune.measure.nvml import Card
from autotune.measurement import Peaks


class MemoryMeter(Protocol):
    """Peak memory of named phases. start() ends the phase before it. A phase that begins again keeps its larger peaks.

    Ending a phase raises MemoryError where more was used than the device has.
    """

    peaks: dict[str, Peaks]

    def start(self, phase: str) -> None: ...

    def stop(self) -> None: ...

    def release(self) -> None:
        """Give back what is kept for later and not in use. Call it between phases."""


def meter_for(device: str) -> MemoryMeter:
    """The meter for a device by torch's name. Make it before this process puts anything on the device."""
    return CudaMeter(device) if device.startswith("cuda") else ResidentMeter()


def largest(peaks: Iterable[Peaks]) -> Peaks:
    """The largest of each figure, of at least one Peaks."""
    known = list(peaks)
    allocated = max((one.allocated_bytes for one in known if one.allocated_bytes is not None), default=None)
    reserved = max((one.reserved_bytes for one in known if one.reserved_bytes is not None), default=None)
    device = max(one.device_bytes for one in known)
    return Peaks(allocated_bytes=allocated, reserved_bytes=reserved, device_bytes=device)


def cap(device: str, limit_bytes: int | None) -> None:
    """Limit this process to so many bytes of a GPU; None: to what the GPU has. On a CPU nothing is capped.

    The CUDA context is subtracted from the limit; the rest caps torch's allocator, as a fraction of the card. A larger
    reservation is then an out-of-memory error, as on a smaller card. Without a cap, the drivers of Windows and WSL2
    would put the rest into system memory, where it is slow. What libraries take outside the allocator later (kernels
    loaded on first use) is not capped, but the meter counts it.

    Call this before anything is on the device. Raises MemoryError where the context alone exceeds the limit.
    """
    if not device.startswith("cuda"):
        return
    import torch

    held = _Held(device)
    total_bytes = int(torch.cuda.mem_get_info(device)[1])  # makes the context
    limit_bytes = total_bytes if limit_bytes is None else limit_bytes
    left = limit_bytes - held.outside_the_allocator()
    if left <= 0:
        raise MemoryError(f"the CUDA context alone is larger than the limit of {limit_bytes} bytes")
    torch.cuda.set_per_process_memory_fraction(min(1.0, left / total_bytes), device)


class ResidentMeter:
    """A CPU: this process's resident memory on Linux, above what it was when the meter was made."""

    def __init__(self) -> None:
        self.peaks: dict[str, Peaks] = {}
        self._phase: str | None = None
        _give_back_free_heap()
        self._before = self._status("VmRSS")

    def start(self, phase: str) -> None:
        self.stop()
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present value
        self._phase = phase

    def stop(self) -> None:
        if self._phase is not None:
            _keep(self.peaks, self._phase, Peaks(device_bytes=max(0, self._status("VmHWM") - self._before)))
        self._phase = None

    def release(self) -> None:
        """Nothing: what the C library keeps of a CPU's memory is not told apart from what is in use."""

    @staticmethod
    def _status(field: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise OSError(f"/proc/self/status has no {field}: memory can't be measured on this system")


def _give_back_free_heap() -> None:
    """Return the C library's free memory to the kernel. A pipeline that filled it would seem to need less memory.

    On the demo this is 1 to 2 MB, and more in children of the fork server. Only glibc can do this.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class CudaMeter:
    """A GPU: the peaks of torch's allocator, and what this process holds on the device outside it.

    The allocator's cache is emptied by release() only: memory reserved earlier and not given back counts in the later
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
        phase, self._phase = self._phase, None
        if phase is None:
            return
        self._cuda.synchronize(self._device)
        reserved = int(self._cuda.max_memory_reserved(self._device))
        peaks = Peaks(
            allocated_bytes=int(self._cuda.max_memory_allocated(self._device)),
            reserved_bytes=reserved,
            device_bytes=reserved + self._held.outside_the_allocator(),
        )
        _keep(self.peaks, phase, peaks)
        total_bytes = self._held.total_bytes()
        if peaks.device_bytes > total_bytes:
            raise MemoryError(
                f"{peaks.device_bytes} bytes were in use and the GPU has {total_bytes}: its driver put the rest into "
                "system memory, which is slow (as drivers do on Windows and WSL2)"
            )

    def release(self) -> None:
        self._cuda.synchronize(self._device)
        self._cuda.empty_cache()


def _keep(known: dict[str, Peaks], phase: str, peaks: Peaks) -> None:
    known[phase] = largest([peaks, *([known[phase]] if phase in known else [])])


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

    def total_bytes(self) -> int:
        """Bytes of the whole card. NVML counts what the driver keeps to itself, torch does not."""
        by_nvml = self._card.total_bytes() if self._card is not None else None
        return max(by_nvml or 0, int(self._cuda.get_device_properties(self._device).total_memory))

    def _used(self) -> int:
        """Bytes used by all processes. Without NVML torch tells, but makes the context first, so it is not counted."""
        used = self._card.used_bytes() if self._card is not None else None
        if used is not None:
            return used
        free, total = self._cuda.mem_get_info(self._device)
        return int(total - free)
