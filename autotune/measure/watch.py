"""Watch: tells whether the device was disturbed while a call was timed, by throttling or by other processes.

start() begins a series of calls, such as those at one size. begin() and end() surround each timed call, or several
short ones that take at least `window_s` seconds together. end() returns the disturbance, if there was one. With
AUTOTUNE_BUSY=accept, for machines that are never idle, it returns none, but health() still records what was observed.
"""

from typing import Protocol

from autotune.device import Device
from autotune.devices import kind_of
from autotune.devices.amd_card import NoCounters
from autotune.measure.disturbance import Disturbance
from autotune.measure.watch_cpu import CpuWatch, HostWatch
from autotune.measurement import Health


class Watch(Protocol):
    """Watches one device. The state and the energy are those of the series that start() began."""

    window_s: float  # calls are judged together until they take so many seconds

    def start(self) -> None:
        """Forget the calls so far: what was learned from them does not hold for those that follow."""

    def begin(self) -> None: ...

    def end(self, seconds: float) -> Disturbance | None:
        """What disturbed the calls since begin(), which took so many seconds; None: they can be kept."""

    def health(self) -> Health | None:
        """The device's health while the kept calls were timed; None: not known."""

    def energy_j(self) -> float | None:
        """The energy of all kept calls together, in joules; None: not known."""


def watch_for(device: Device) -> Watch:
    """The watch of this device."""
    if not device.is_gpu:
        return CpuWatch()
    import pynvml

    from autotune.measure.nvml import Card
    from autotune.measure.watch_gpu import GpuWatch

    counters = kind_of(device).counters
    try:
        return GpuWatch(device.torch_name, counters(device) if counters else Card(device.torch_name))
    except (NoCounters, pynvml.NVMLError) as error:
        return HostWatch(not_told=(f"the GPU's clocks, power and other processes: {error}",))
