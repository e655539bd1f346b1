"""Devices: find the accelerators of this machine. One file for each kind (cuda.py, cpu.py).

Devices are found without torch: GPUs through NVML, the processor through /proc. What only torch can tell (whether it
can use the card, which kernels its build has) is added by probe.py in a child process.
"""

import re

from autotune.device import Device
from autotune.devices.cpu import find_processor
from autotune.devices.cuda import find_nvidia_gpus, nvml_state
from autotune.errors import UserError


def find_devices() -> list[Device]:
    """Every NVIDIA GPU that NVML lists, then the processor."""
    return [*find_nvidia_gpus(), find_processor()]


def find_device(word: str | None) -> Device:
    """The device that `--device` names (`cuda`, `cuda:1`, `cpu`); None: the first GPU, or the processor without one.

    Raises UserError where there is no such device.
    """
    devices = find_devices()
    if word is None:
        return devices[0]
    kind, _, index = word.partition(":")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", word):
        raise UserError(f"--device takes cuda, cuda:N or cpu, not {word!r}.")
    for device in devices:
        if device.kind == kind and device.index == int(index or 0):
            return device
    cards = [f"cuda:{d.index} ({d.name})" for d in devices if d.kind == "cuda"]
    raise UserError(
        f"--device {word}: there is no such device; found {', '.join(cards)} and cpu."
        if cards
        else f"--device {word}: no NVIDIA GPU was found here ({nvml_state()}); use --device cpu."
    )
