"""Counters of an AMD GPU through a package amdsmi that is not there. No such GPU was ever seen.

The fake has the functions, fields and units of amdsmi 7.0's source.
"""

import os
import sys
from enum import Enum
from types import ModuleType
from typing import Any

import machines
import pytest

from autotune.device import Device
from autotune.devices import amd_card
from autotune.devices.amd_card import AmdCard, NoCounters
from autotune.measure.watch import watch_for
from autotune.measure.watch_cpu import HostLoad, HostWatch
from autotune.measure.watch_gpu import GpuWatch

UUID = "GPU-00000000deadbeef"
AMD = Device(kind="rocm", uuid=UUID, name="AMD gfx942", memory_bytes=2**36)
MIB = 2**20
OTHER = 4_000_000  # no process has this number


class FakeSmi(ModuleType):
    """Two GPUs: handle 0 is another, handle 1 the one with UUID."""

    class AmdSmiException(Exception):
        pass

    AmdSmiInitFlags = Enum("AmdSmiInitFlags", "INIT_AMD_GPUS")
    AmdSmiClkType = Enum("AmdSmiClkType", "GFX")
    AmdSmiMemoryType = Enum("AmdSmiMemoryType", "VRAM")
    AmdSmiTemperatureType = Enum("AmdSmiTemperatureType", "HOTSPOT")
    AmdSmiTemperatureMetric = Enum("AmdSmiTemperatureMetric", "CURRENT")

    def __init__(self) -> None:
        super().__init__("amdsmi")
        self.clock: Any = 2100
        self.activity: Any = 97
        self.power: dict[str, Any] = {"current_socket_power": "N/A", "average_socket_power": 550}
        self.others_bytes, self.microjoules, self.declined = 0, 0.0, set[str]()

    def _answer(self, name: str, handle: int, value: Any) -> Any:
        assert handle == 1 or name == "asic", "the other GPU is asked"
        if name in self.declined:
            raise self.AmdSmiException("not supported")
        return value

    def amdsmi_init(self, flag: Any) -> None:
        assert flag is self.AmdSmiInitFlags.INIT_AMD_GPUS

    def amdsmi_get_processor_handles(self) -> list[int]:
        return [0, 1]

    def amdsmi_get_gpu_asic_info(self, handle: int) -> dict[str, Any]:
        return self._answer("asic", handle, {"asic_serial": ("0x0000000000000001", "0x00000000DEADBEEF")[handle]})

    def amdsmi_get_clock_info(self, handle: int, kind: Any) -> dict[str, Any]:
        return self._answer("clock", handle, {"clk": self.clock, "max_clk": 2200})

    def amdsmi_get_gpu_activity(self, handle: int) -> dict[str, Any]:
        return self._answer("activity", handle, {"gfx_activity": self.activity})

    def amdsmi_get_power_info(self, handle: int) -> dict[str, Any]:
        return self._answer("power", handle, self.power)

    def amdsmi_get_temp_metric(self, handle: int, sensor: Any, metric: Any) -> int:
        return self._answer("temperature", handle, 71)

    def amdsmi_get_energy_count(self, handle: int) -> dict[str, Any]:
        self.microjoules += 3e6
        return self._answer(
            "energy", handle, {"energy_accumulator": self.microjoules / 15.3, "counter_resolution": 15.3}
        )

    def amdsmi_get_gpu_memory_usage(self, handle: int, kind: Any) -> int:
        return self._answer("memory", handle, 900 * MIB + self.others_bytes)

    def amdsmi_get_gpu_process_list(self, handle: int) -> list[dict[str, Any]]:
        held = {os.getpid(): 900 * MIB, OTHER: self.others_bytes}
        listed = [{"pid": pid, "memory_usage": {"vram_mem": size}} for pid, size in held.items()]
        return self._answer("processes", handle, listed)


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch) -> FakeSmi:
    machines.h100().install(monkeypatch)  # torch.cuda, which AMD's GPUs have as well
    monkeypatch.delenv("AUTOTUNE_BUSY", raising=False)
    monkeypatch.setattr(HostLoad, "end", lambda self: None)
    fake = FakeSmi()
    monkeypatch.setitem(sys.modules, "amdsmi", fake)
    return fake


def test_the_card_with_the_uuid_is_asked_and_answers_in_nvmls_units(smi: FakeSmi) -> None:
    card = AmdCard(UUID)
    assert (card.query("ClockInfo", 1), card.query("MaxClockInfo", 1)) == (2100, 2200)
    assert card.query("PowerUsage") == 550_000, "milliwatts"
    assert card.query("Temperature", 0) == 71
    first, second = card.query("TotalEnergyConsumption"), card.query("TotalEnergyConsumption")
    assert second - first == pytest.approx(3000), "millijoules"
    assert card.processes() == {os.getpid(): 900 * MIB, OTHER: 0}
    assert card.used_bytes() == 900 * MIB
    assert card.not_told == set()


def test_what_amdsmi_declines_or_has_no_word_for_is_not_told(smi: FakeSmi) -> None:
    smi.declined, smi.power = {"clock", "processes"}, {}
    card = AmdCard(UUID)
    for name in ("ClockInfo", "PowerUsage", "CurrentClocksEventReasons", "ViolationStatus"):
        assert card.query(name) is None
    assert card.processes() == {}
    expected = {"ClockInfo", "PowerUsage", "CurrentClocksEventReasons", "ViolationStatus", "ComputeRunningProcesses"}
    assert card.not_told == expected


def test_the_low_clock_of_an_idle_gpu_is_no_clock(smi: FakeSmi) -> None:
    smi.clock, smi.activity = 132, 0
    card = AmdCard(UUID)
    assert card.query("ClockInfo") is None
    assert card.not_told == set()


def test_the_watch_sees_clock_power_and_memory_and_says_what_it_can_not_see(smi: FakeSmi) -> None:
    watch = watch_for(AMD)
    assert isinstance(watch, GpuWatch)
    watch.start()
    watch.begin()
    assert watch.end(0.01) is None
    health = watch.health()
    assert health is not None
    assert (health.sm_clock_mhz, health.power_w, health.temperature_c) == (2100, 550, 71)
    assert {"CurrentClocksEventReasons", "ProcessUtilization", "ViolationStatus"} <= set(health.not_told)
    assert watch.energy_j() == pytest.approx(3)


def test_memory_that_another_process_takes_disturbs(smi: FakeSmi) -> None:
    watch = watch_for(AMD)
    watch.start()
    watch.begin()
    smi.others_bytes = 1024 * MIB
    found = watch.end(0.01)
    assert found is not None
    assert found.why == "contended"


def test_a_lower_clock_is_a_slowdown(smi: FakeSmi) -> None:
    watch = watch_for(AMD)
    watch.start()
    for clock, why in ((2100, None), (1200, "throttled")):
        smi.clock = clock
        watch.begin()
        found = watch.end(0.01)
        assert (found.why if found else None) == why


def test_without_amdsmi_the_processor_is_watched_and_the_reason_is_kept(
    smi: FakeSmi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    watch = watch_for(AMD)
    assert isinstance(watch, HostWatch)
    health = watch.health()
    assert health.not_told == ("the GPU's clocks, power and other processes: the package amdsmi is not installed",)


def test_a_library_that_can_not_be_loaded_and_a_card_that_is_not_listed_are_told(
    smi: FakeSmi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoCounters, match="0 of its 2 GPUs with the UUID GPU-0"):
        AmdCard("GPU-0000000000000007")
    monkeypatch.setattr(smi, "amdsmi_init", lambda flag: (_ for _ in ()).throw(smi.AmdSmiException("no driver")))
    with pytest.raises(NoCounters, match="no driver"):
        AmdCard(UUID)

    def broken(name: str) -> None:
        raise OSError("Could not load libamd_smi.so")

    monkeypatch.setattr(amd_card, "import_module", broken)
    with pytest.raises(NoCounters, match=r"can't be loaded \(OSError: Could not load"):
        AmdCard(UUID)
