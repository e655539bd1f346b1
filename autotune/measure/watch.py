"""The watch: is the device undisturbed while a call is timed? Others' work and throttling falsify a number in silence.

`begin()` and `end()` go around each sample (or around several short ones, together at least `window_s` long); `end()`
says what was wrong, if anything. With AUTOTUNE_BUSY=accept it never does, for machines that are never idle: then
`health()` still records what was seen.
"""

from typing import Protocol

from autotune.device import Device
from autotune.measure.disturbance import Disturbance
from autotune.measure.watch_cpu import CpuWatch
from autotune.measurement import Health


class Watch(Protocol):
    window_s: float  # at least so long is what one `end` judges

    def begin(self) -> None: ...

    def end(self, seconds: float) -> Disturbance | None:
        """What disturbed the calls since `begin`, which took so long; None: they can be kept."""

    def health(self) -> Health | None:
        """Of the device while the kept calls were timed; None: it doesn't tell."""

    def energy_j(self) -> float | None:
        """What the kept calls took, all together; None: the device doesn't tell."""


def watch_for(device: Device) -> Watch:
    if device.kind == "cpu":
        return CpuWatch()
    import pynvml

    from autotune.measure.watch_gpu import GpuWatch

    try:
        return GpuWatch(device.torch_name)
    except pynvml.NVMLError:
        return Unwatched()


class Unwatched:
    """Of a device that NVML does not know: nothing is judged, and its health is unknown."""

    window_s = 0.0

    def begin(self) -> None:
        pass

    def end(self, seconds: float) -> None:
        return None

    def health(self) -> None:
        return None

    def energy_j(self) -> None:
        return None
