"""Peak memory, by phase ("load", "first", "run").

On a GPU: what torch's allocator reserved at its peak, plus what the process holds on the device beyond it (the CUDA
context and libraries' workspaces, by NVML where it tells, otherwise by the device's own free-memory count). That sum
decides whether a config fits a card. On a CPU: the process's own peak resident memory, as the kernel keeps it
(VmHWM), above its resident memory before the pipeline was loaded. Neither costs the timed calls anything.
"""

import os
from pathlib import Path
from typing import Protocol


class MemoryMeter(Protocol):
    """Peaks of named phases, in bytes. `start` ends the phase before it."""

    peaks: dict[str, int]

    def start(self, phase: str) -> None: ...

    def stop(self) -> None: ...


def meter_for(device: str) -> MemoryMeter:
    return CudaMeter(device) if device.startswith("cuda") else ResidentMeter()


class ResidentMeter:
    """This process's resident memory on Linux, above what it was when the meter was made."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._phase: str | None = None
        self._before = self._status("VmRSS")

    def start(self, phase: str) -> None:
        self.stop()
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
        self._phase = phase

    def stop(self) -> None:
        if self._phase is not None:
            self.peaks[self._phase] = max(0, self._status("VmHWM") - self._before)
        self._phase = None

    @staticmethod
    def _status(field: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise OSError(f"/proc/self/status has no {field}: memory can't be measured on this system")


class CudaMeter:
    """torch's reserved peak plus everything else that this process holds on the device."""

    def __init__(self, device: str) -> None:
        import torch

        self.peaks: dict[str, int] = {}
        self._cuda, self._device = torch.cuda, torch.device(device)
        self._phase: str | None = None
        self._free_before = self._free()

    def start(self, phase: str) -> None:
        self.stop()
        self._cuda.reset_peak_memory_stats(self._device)
        self._phase = phase

    def stop(self) -> None:
        if self._phase is not None:
            self._cuda.synchronize(self._device)
            reserved = self._cuda.memory_reserved(self._device)
            beyond = max(0, self._held() - reserved)
            self.peaks[self._phase] = self._cuda.max_memory_reserved(self._device) + beyond
        self._phase = None

    def _held(self) -> int:
        """Bytes that this process holds now."""
        import pynvml

        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{self._cuda.get_device_properties(self._device).uuid}")
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == os.getpid() and process.usedGpuMemory is not None:
                    return int(process.usedGpuMemory)
        except pynvml.NVMLError:
            return self._free_before - self._free()
        return self._free_before - self._free()  # in a container NVML may not know us by our own number

    def _free(self) -> int:
        return int(self._cuda.mem_get_info(self._device)[0])
