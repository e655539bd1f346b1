"""A pynvml of one card that is not there, with the real module's names, types, constants and errors.

The card's state is a set of plain attributes; a test changes them while a call is being timed. `declines` names the
questions (without nvmlDeviceGet) that the card does not answer.
"""

import os
import sys
from types import SimpleNamespace
from typing import Any

import pynvml as real
import pytest
import torch

UUID = "12345678-9abc-def0-1234-56789abcdef0"
MIB = 2**20


class FakeNvml:
    """Stands in for the module. Whatever is no function is the real module's own."""

    def __init__(self) -> None:
        self.declines: set[str] = set()
        self.reasons = 0
        self.sm_clock_mhz = 1800
        self.temperature_c = 60
        self.power_mw = 300_000
        self.energy_mj = 0
        self.violation_ns = {real.NVML_PERF_POLICY_THERMAL: 0, real.NVML_PERF_POLICY_POWER: 0}
        self.compute = {os.getpid(): 500 * MIB}
        self.graphics: dict[int, int] = {}
        self.mps: dict[int, int] = {}
        self.used_bytes = 600 * MIB
        self.utilisation: list[tuple[int, int]] = []  # process id, per cent of the multiprocessors

    def __getattr__(self, name: str) -> Any:
        found = getattr(real, name)
        if callable(found) and not isinstance(found, type):
            raise AttributeError(f"the fake has no {name}")
        return found

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._may("HandleByUUID")
        if uuid != f"GPU-{UUID}":
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return "the card"

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        self._may("CurrentClocksEventReasons", real.NVML_ERROR_FUNCTION_NOT_FOUND)
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        self._may("CurrentClocksThrottleReasons")
        return self.reasons

    def nvmlDeviceGetViolationStatus(self, device: str, perfPolicyType: int) -> Any:
        self._may("ViolationStatus")
        return real.c_nvmlViolationTime_t(referenceTime=0, violationTime=self.violation_ns[perfPolicyType])

    def nvmlDeviceGetClockInfo(self, handle: str, type: int) -> int:
        self._may("ClockInfo")
        assert type == real.NVML_CLOCK_SM
        return self.sm_clock_mhz

    def nvmlDeviceGetMaxClockInfo(self, handle: str, type: int) -> int:
        self._may("MaxClockInfo")
        return 1980

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        self._may("Temperature")
        return self.temperature_c

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        self._may("PowerUsage")
        return self.power_mw

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self._may("TotalEnergyConsumption")
        return self.energy_mj

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> Any:
        self._may("MemoryInfo")
        total = 80 * 1024 * MIB
        return real.c_nvmlMemory_t(total=total, free=total - self.used_bytes, used=self.used_bytes)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return self._running("ComputeRunningProcesses", self.compute)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:
        return self._running("GraphicsRunningProcesses", self.graphics)

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: str) -> list[Any]:
        return self._running("MPSComputeRunningProcesses", self.mps)

    def nvmlDeviceGetProcessUtilization(self, handle: str, timeStamp: int) -> list[Any]:
        self._may("ProcessUtilization")
        if not self.utilisation:  # as the binding has it
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        sample = real.c_nvmlProcessUtilizationSample_t
        return [sample(pid=pid, timeStamp=timeStamp + 1, smUtil=share) for pid, share in self.utilisation]

    def _running(self, question: str, processes: dict[int, int]) -> list[Any]:
        self._may(question)
        # The binding's own objects: it turns NVML's structures into these.
        fields = [{"pid": pid, "usedGpuMemory": held} for pid, held in processes.items()]
        return [real.nvmlFriendlyObject(one) for one in fields]

    def _may(self, question: str, error: int = real.NVML_ERROR_NOT_SUPPORTED) -> None:
        if question in self.declines:
            raise real.NVMLError(error)


class FakeCuda:
    """What torch says of the card's memory. `allocate` is what a pipe would do."""

    def __init__(self, nvml: FakeNvml) -> None:
        self.nvml = nvml
        self.context_bytes = 500 * MIB  # comes with the first question that needs it
        self.has_context = False
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = 0
        self.fraction: float | None = None

    def make_context(self) -> None:
        if not self.has_context:
            self.has_context = True
            self.nvml.used_bytes += self.context_bytes

    def allocate(self, size: int, *, keep: bool = False) -> None:
        """`size` bytes of tensors, whose place the allocator keeps; given back unless `keep`."""
        self.make_context()
        self.allocated += size
        grown = max(0, self.allocated - self.reserved)
        self.reserved += grown
        self.nvml.used_bytes += grown
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        if not keep:
            self.allocated -= size

    def reset(self, device: str) -> None:
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def empty_cache(self) -> None:
        self.nvml.used_bytes -= self.reserved - self.allocated
        self.reserved = self.allocated

    def mem_get_info(self, device: str) -> tuple[int, int]:
        self.make_context()
        total = 80 * 1024 * MIB
        return total - self.nvml.used_bytes, total

    def set_fraction(self, fraction: float, device: str) -> None:
        self.fraction = fraction

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        functions = {
            "get_device_properties": lambda device: SimpleNamespace(uuid=UUID, total_memory=79 * 1024 * MIB),
            "empty_cache": self.empty_cache,
            "synchronize": lambda device: None,
            "mem_get_info": self.mem_get_info,
            "memory_reserved": lambda device: self.reserved,
            "max_memory_reserved": lambda device: self.peak_reserved,
            "max_memory_allocated": lambda device: self.peak_allocated,
            "reset_peak_memory_stats": self.reset,
            "set_per_process_memory_fraction": self.set_fraction,
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)


def install(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeNvml, FakeCuda]:
    """A machine with this card."""
    nvml = FakeNvml()
    cuda = FakeCuda(nvml)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    cuda.install(monkeypatch)
    return nvml, cuda
