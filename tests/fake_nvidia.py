"""Fake NVIDIA: a module `pynvml` and functions of torch.cuda for GPUs that are not there, see tests/machines.py."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml as real
import pytest
import torch

MIB = 2**20
CONTEXT_BYTES = 500 * MIB


@dataclass(eq=False)
class Card:
    """One GPU, or a MIG slice of one. It is its own NVML handle.

    declines      question (without nvmlDeviceGet) -> the NVML error that is raised
    reachable     False: this process may not open it
    speed         larger is faster: CUDA's own order
    cuda_bytes    torch's total_memory, a little less than NVML's
    listed_as     process id that NVML has for this process; None: it does not list it
    compute, graphics, mps   other processes: process id -> bytes
    utilisation   (process id, per cent) of NVML's samples; or with the microseconds by which they are too old
    """

    name: str
    uuid: str
    memory_bytes: int
    cuda_bytes: int
    capability: tuple[int, int]
    multiprocessors: int
    speed: int = 1
    integrated: bool = False
    reachable: bool = True
    declines: dict[str, int] = field(default_factory=dict)
    slices: tuple["Card", ...] = ()
    listed_as: int | None = field(default_factory=os.getpid)

    reasons: int = 0
    sm_clock_mhz: int = 1800
    max_clock_mhz: int = 1980
    temperature_c: int = 60
    power_mw: int = 60_000
    power_limit_mw: int = 300_000
    energy_mj: int = 0
    violation_ns: dict[int, int] = field(
        default_factory=lambda: {real.NVML_PERF_POLICY_THERMAL: 0, real.NVML_PERF_POLICY_POWER: 0}
    )
    compute: dict[int, int] = field(default_factory=dict)
    graphics: dict[int, int] = field(default_factory=dict)
    mps: dict[int, int] = field(default_factory=dict)
    utilisation: list[tuple[int, ...]] = field(default_factory=list)
    driver_bytes: int = 100 * MIB  # used by no process

    has_context: bool = False
    allocated: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    fraction: float | None = None

    @property
    def own_bytes(self) -> int:
        """What this process holds on the card."""
        return (CONTEXT_BYTES if self.has_context else 0) + self.reserved

    @property
    def used_bytes(self) -> int:
        others = sum(sum(kind.values()) for kind in (self.compute, self.graphics, self.mps))
        return self.driver_bytes + others + self.own_bytes

    def may(self, question: str) -> None:
        if question in self.declines:
            raise real.NVMLError(self.declines[question])


class FakeNvml:
    """Stands in for the module `pynvml`. Whatever is no function is the real module's own.

    fails  the error that nvmlInit raises; None: it works
    asked  the functions that were called
    """

    def __init__(self, cards: list[Card], driver: str) -> None:
        self.cards, self.driver = cards, driver
        self.fails: int | None = None
        self.declines: dict[str, int] = {}  # question (without nvml) -> error, of questions about no card
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(real, name)
        if callable(found) and not isinstance(found, type):
            raise AttributeError(f"the fake has no {name}")
        return found

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml"):
            object.__getattribute__(self, "asked").append(name)
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:
        if self.fails is not None:
            raise real.NVMLError(self.fails)

    def nvmlShutdown(self) -> None:
        pass

    def nvmlSystemGetDriverVersion(self) -> str:
        self._may("SystemGetDriverVersion")
        return self.driver

    def nvmlDeviceGetCount(self) -> int:
        """All cards of the machine, also those that may not be opened, as NVML's documentation has it."""
        self._may("DeviceGetCount")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        card = self.cards[index]
        if not card.reachable:
            raise real.NVMLError(real.NVML_ERROR_NO_PERMISSION)
        card.may("HandleByIndex")
        return card

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        for card in (*self.cards, *(part for whole in self.cards for part in whole.slices)):
            if card.uuid == uuid:
                if not card.reachable:
                    raise real.NVMLError(real.NVML_ERROR_NO_PERMISSION)
                card.may("HandleByUUID")
                return card
        raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetName(self, handle: Card) -> str:
        handle.may("Name")
        return handle.name

    def nvmlDeviceGetUUID(self, handle: Card) -> str:
        handle.may("UUID")
        return handle.uuid

    def nvmlDeviceGetCudaComputeCapability(self, handle: Card) -> list[int]:
        handle.may("CudaComputeCapability")
        return list(handle.capability)

    def nvmlDeviceGetMigMode(self, device: Card) -> list[int]:
        device.may("MigMode")
        if device.capability not in ((8, 0), (9, 0), (10, 0)):
            raise real.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)
        return [int(bool(device.slices))] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Card) -> int:
        device.may("MaxMigDeviceCount")
        return 7 if device.slices else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Card, index: int) -> Card:
        device.may("MigDeviceHandleByIndex")
        if index >= len(device.slices):
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return device.slices[index]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: Card) -> Card:
        return next(card for card in self.cards if migDevice in card.slices)

    def nvmlDeviceGetMemoryInfo(self, handle: Card, version: int | None = None) -> Any:
        handle.may("MemoryInfo")
        total, used = handle.memory_bytes, handle.used_bytes
        return real.c_nvmlMemory_t(total=total, free=total - used, used=used)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Card) -> int:
        handle.may("CurrentClocksEventReasons")
        return handle.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Card) -> int:
        handle.may("CurrentClocksThrottleReasons")
        return handle.reasons

    def nvmlDeviceGetViolationStatus(self, device: Card, perfPolicyType: int) -> Any:
        device.may("ViolationStatus")
        return real.c_nvmlViolationTime_t(referenceTime=0, violationTime=device.violation_ns[perfPolicyType])

    def nvmlDeviceGetClockInfo(self, handle: Card, type: int) -> int:
        handle.may("ClockInfo")
        return handle.sm_clock_mhz

    def nvmlDeviceGetMaxClockInfo(self, handle: Card, type: int) -> int:
        handle.may("MaxClockInfo")
        return handle.max_clock_mhz

    def nvmlDeviceGetTemperature(self, handle: Card, sensor: int) -> int:
        handle.may("Temperature")
        return handle.temperature_c

    def nvmlDeviceGetPowerUsage(self, handle: Card) -> int:
        handle.may("PowerUsage")
        return handle.power_mw

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Card) -> int:
        handle.may("EnforcedPowerLimit")
        return handle.power_limit_mw

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Card) -> int:
        handle.may("TotalEnergyConsumption")
        return handle.energy_mj

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Card) -> list[Any]:
        own = {handle.listed_as: handle.own_bytes} if handle.has_context and handle.listed_as is not None else {}
        return self._running("ComputeRunningProcesses", handle, {**handle.compute, **own})

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Card) -> list[Any]:
        return self._running("GraphicsRunningProcesses", handle, handle.graphics)

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Card) -> list[Any]:
        return self._running("MPSComputeRunningProcesses", handle, handle.mps)

    def nvmlDeviceGetProcessUtilization(self, handle: Card, timeStamp: int) -> list[Any]:
        """Real drivers also return samples older than `timeStamp`, and shares that can't be: see `utilisation`."""
        handle.may("ProcessUtilization")
        if not handle.utilisation:  # as the binding has it
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        sample = real.c_nvmlProcessUtilizationSample_t
        told = [(pid, share, sum(age)) for pid, share, *age in handle.utilisation]
        return [sample(pid=pid, timeStamp=timeStamp + 1 - age, smUtil=share) for pid, share, age in told]

    def _may(self, question: str) -> None:
        if question in self.declines:
            raise real.NVMLError(self.declines[question])

    @staticmethod
    def _running(question: str, card: Card, processes: dict[int, int]) -> list[Any]:
        card.may(question)
        # The binding's own objects: it turns NVML's structures into these.
        return [real.nvmlFriendlyObject({"pid": pid, "usedGpuMemory": held}) for pid, held in processes.items()]


class FakeCuda:
    """torch.cuda's questions about cards and their memory, for the cards that CUDA would count here and now."""

    def __init__(self, cards: list[Card]) -> None:
        self._all = cards

    @property
    def visible(self) -> list[Card]:
        """By CUDA's documentation: CUDA_DEVICE_ORDER orders the cards that can be opened, CUDA_VISIBLE_DEVICES chooses.

        The first entry that names no card ends the list. Of a card in MIG mode only the first slice is counted.
        """
        cards = [card for card in self._all if card.reachable]
        if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            cards.sort(key=lambda card: -card.speed)
        slices = [part for card in cards for part in card.slices]
        if slices:
            cards = slices[:1]
        entries = os.environ.get("CUDA_VISIBLE_DEVICES")
        if entries is None:
            return cards
        visible: list[Card] = []
        for entry in (word.strip() for word in entries.split(",")):
            if entry.isdecimal():
                named = cards[int(entry) : int(entry) + 1]
            else:
                named = [card for card in (*cards, *slices) if entry and card.uuid.startswith(entry)][:1]
            if not named or named[0] in visible:
                break
            visible += named
        return visible

    def card(self, device: Any = None) -> Card:
        word = str(device if device is not None else 0)
        return self.visible[int(word.removeprefix("cuda").lstrip(":") or 0)]

    def allocate(self, size: int, *, keep: bool = False, device: Any = None) -> None:
        """`size` bytes of tensors, whose place the allocator keeps; given back unless `keep`."""
        card = self.card(device)
        card.has_context = True
        card.allocated += size
        card.reserved = max(card.reserved, card.allocated)
        card.peak_allocated = max(card.peak_allocated, card.allocated)
        card.peak_reserved = max(card.peak_reserved, card.reserved)
        if not keep:
            card.allocated -= size

    def get_device_properties(self, device: Any = None) -> Any:
        card = self.card(device)
        return SimpleNamespace(
            name=card.name,
            uuid=card.uuid.partition("-")[2],  # torch prints it without GPU- or MIG-
            total_memory=card.cuda_bytes,
            multi_processor_count=card.multiprocessors,
            major=card.capability[0],
            minor=card.capability[1],
            is_integrated=int(card.integrated),
        )

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        card = self.card(device)
        card.has_context = True
        return max(0, card.cuda_bytes - card.used_bytes), card.cuda_bytes

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        card = self.card(device)
        card.peak_allocated, card.peak_reserved = card.allocated, card.reserved

    def empty_cache(self) -> None:
        for card in self.visible:
            card.reserved = card.allocated

    def set_fraction(self, fraction: float, device: Any = None) -> None:
        self.card(device).fraction = fraction

    def takes(self, kernel: str, head: int, name: str) -> bool:
        """As torch's sdp_utils.cpp decides, with cuDNN 9.23."""
        hopper = self.card(name).capability[0] in (9, 10)
        return head <= {"flash": 256, "cudnn": 256 if hopper else 128}[kernel]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        functions: dict[str, Callable[..., object]] = {
            "is_available": lambda: bool(self.visible),
            "device_count": lambda: len(self.visible),
            "get_device_properties": self.get_device_properties,
            "get_device_capability": lambda device=None: self.card(device).capability,
            "get_device_name": lambda device=None: self.card(device).name,
            "get_arch_list": lambda: ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
            "mem_get_info": self.mem_get_info,
            "synchronize": lambda device=None: None,
            "memory_allocated": lambda device=None: self.card(device).allocated,
            "memory_reserved": lambda device=None: self.card(device).reserved,
            "max_memory_allocated": lambda device=None: self.card(device).peak_allocated,
            "max_memory_reserved": lambda device=None: self.card(device).peak_reserved,
            "reset_peak_memory_stats": self.reset_peak_memory_stats,
            "empty_cache": self.empty_cache,
            "set_per_process_memory_fraction": self.set_fraction,
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        monkeypatch.setattr("autotune.devices.cuda._takes", self.takes)
