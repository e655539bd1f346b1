"""Machines: what NVML and torch.cuda answer on machines with NVIDIA GPUs that are not there.

Nothing here was recorded on such a machine. The answers follow NVML's and CUDA's documentation, data sheets, and
reports of users: which question a card declines, in what order CUDA counts, what a container hides. A test that passes
here has passed on a fake.

    machine = machines.desktop_4090()
    nvml, cuda = machine.install(monkeypatch)  # the module `pynvml`, torch.cuda's functions, the environment
    machine.cards[0].sm_clock_mhz = 1300       # the state of a card is plain attributes, changed while a call runs
    machine.cards[0].declines["PowerUsage"] = pynvml.NVML_ERROR_NO_PERMISSION
    cuda.allocate(2**30)                       # what a pipe would do

| machine | what is special |
|---|---|
| `t4_slurm` | four T4s in the node; the job may open the third only, and CUDA calls it 0 |
| `desktop_4090` | a 4090 that also draws the screen: Xorg and a browser hold memory and use some per cent |
| `two_cards` | NVML (PCI order): 0 is a 3060, 1 a 4090. CUDA's own order, the fastest first, is the reverse |
| `h100_mig_container` | a 1g.10gb slice of an H100 in a container; NVML declines to tell of the whole card |
| `h100` | one H100 and nobody else: what tests of a single card begin with |
| `gb10` | DGX Spark: GPU and processor share one memory, so NVML declines to tell its size |
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pynvml as real
import pytest
from fake_nvidia import CONTEXT_BYTES, MIB, Card, FakeCuda, FakeNvml

__all__ = ["ALL", "CONTEXT_BYTES", "MIB", "Card", "FakeCuda", "FakeNvml", "Machine"]

XORG, BROWSER, HOST_PID = 4_000_001, 4_000_002, 4_000_003  # no process has these numbers


@dataclass
class Machine:
    """The cards in NVML's order (that of the PCI bus), the driver, and the variables that are set there."""

    cards: list[Card]
    driver: str
    environment: dict[str, str] = field(default_factory=dict)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> tuple[FakeNvml, FakeCuda]:
        """Until the end of the test, this process is on the machine."""
        nvml, cuda = FakeNvml(self.cards, self.driver), FakeCuda(self.cards)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        cuda.install(monkeypatch)
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        return nvml, cuda


def t4_slurm() -> Machine:
    """A node with four T4s under Slurm with cgroups: the job was given one. At full load a T4 is at its power limit."""
    cards = [
        Card(
            "Tesla T4",
            f"GPU-7400000{number}-0000-0000-0000-000000000000",
            memory_bytes=15360 * MIB,
            cuda_bytes=14914 * MIB,
            capability=(7, 5),
            multiprocessors=40,
            reachable=number == 2,
            sm_clock_mhz=1350,
            max_clock_mhz=1590,
            temperature_c=78,
            power_mw=70_000,
            power_limit_mw=70_000,
            reasons=real.nvmlClocksThrottleReasonSwPowerCap,
            declines={"ProcessUtilization": real.NVML_ERROR_NO_PERMISSION},
        )
        for number in range(4)
    ]
    return Machine(cards, "535.183.01", {"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": "4711"})


def desktop_4090() -> Machine:
    card = Card(
        "NVIDIA GeForce RTX 4090",
        "GPU-40900000-1111-2222-3333-444444444444",
        memory_bytes=24564 * MIB,
        cuda_bytes=24080 * MIB,
        capability=(8, 9),
        multiprocessors=128,
        speed=4,
        sm_clock_mhz=2730,
        max_clock_mhz=3120,
        power_limit_mw=450_000,
        graphics={XORG: 380 * MIB, BROWSER: 210 * MIB},
        utilisation=[(XORG, 4, 0), (BROWSER, 7, 0)],
    )
    return Machine([card], "575.57.08")


def two_cards() -> Machine:
    slow = Card(
        "NVIDIA GeForce RTX 3060",
        "GPU-30600000-1111-2222-3333-444444444444",
        memory_bytes=12288 * MIB,
        cuda_bytes=11909 * MIB,
        capability=(8, 6),
        multiprocessors=28,
        speed=2,
        sm_clock_mhz=1770,
        max_clock_mhz=2100,
        power_limit_mw=170_000,
    )
    fast = desktop_4090().cards[0]
    fast.graphics, fast.utilisation = {}, []
    return Machine([slow, fast], "575.57.08")


def h100_mig_container() -> Machine:
    """The container was given one slice. NVML tells nothing of the whole card's memory and processes there."""
    part = Card(
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "MIG-10000000-aaaa-bbbb-cccc-dddddddddddd",
        memory_bytes=9984 * MIB,
        cuda_bytes=9728 * MIB,
        capability=(9, 0),
        multiprocessors=16,
        listed_as=HOST_PID,
        declines=dict.fromkeys(
            (
                "CurrentClocksEventReasons",
                "CurrentClocksThrottleReasons",
                "ClockInfo",
                "MaxClockInfo",
                "Temperature",
                "PowerUsage",
                "EnforcedPowerLimit",
                "TotalEnergyConsumption",
                "ViolationStatus",
                "ProcessUtilization",
                "GraphicsRunningProcesses",
                "MPSComputeRunningProcesses",
                "MigMode",
                "MaxMigDeviceCount",
            ),
            real.NVML_ERROR_NOT_SUPPORTED,
        ),
    )
    whole = Card(
        "NVIDIA H100 80GB HBM3",
        "GPU-10000000-1111-2222-3333-444444444444",
        memory_bytes=81559 * MIB,
        cuda_bytes=81079 * MIB,
        capability=(9, 0),
        multiprocessors=132,
        slices=(part,),
        declines={
            "MemoryInfo": real.NVML_ERROR_NO_PERMISSION,
            "ComputeRunningProcesses": real.NVML_ERROR_NO_PERMISSION,
            "GraphicsRunningProcesses": real.NVML_ERROR_NO_PERMISSION,
            "MPSComputeRunningProcesses": real.NVML_ERROR_NO_PERMISSION,
            "ProcessUtilization": real.NVML_ERROR_NOT_SUPPORTED,
        },
    )
    return Machine([whole], "550.90.07", {"NVIDIA_VISIBLE_DEVICES": part.uuid})


def h100() -> Machine:
    card = Card(
        "NVIDIA H100 80GB HBM3",
        "GPU-90000000-1111-2222-3333-444444444444",
        memory_bytes=81559 * MIB,
        cuda_bytes=81079 * MIB,
        capability=(9, 0),
        multiprocessors=132,
        power_mw=300_000,
        power_limit_mw=700_000,
    )
    return Machine([card], "575.57.08")


def gb10() -> Machine:
    card = Card(
        "NVIDIA GB10",
        "GPU-61000000-1111-2222-3333-444444444444",
        memory_bytes=0,
        cuda_bytes=122_500 * MIB,
        capability=(12, 1),
        multiprocessors=48,
        integrated=True,
        sm_clock_mhz=2400,
        max_clock_mhz=3003,
        declines={
            "MemoryInfo": real.NVML_ERROR_NOT_SUPPORTED,
            "EnforcedPowerLimit": real.NVML_ERROR_NOT_SUPPORTED,
            "TotalEnergyConsumption": real.NVML_ERROR_NOT_SUPPORTED,
            "ViolationStatus": real.NVML_ERROR_NOT_SUPPORTED,
        },
    )
    return Machine([card], "580.95.05")


ALL: dict[str, Callable[[], Machine]] = {
    "t4_slurm": t4_slurm,
    "desktop_4090": desktop_4090,
    "two_cards": two_cards,
    "h100_mig_container": h100_mig_container,
    "gb10": gb10,
    "h100": h100,
}
