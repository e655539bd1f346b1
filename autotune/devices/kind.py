"""Kind: what the project needs to know of a kind of device. One file for each kind makes one of these."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from autotune.device import Device
from autotune.devices.amd_card import AmdCard

TORCH_VERSION = re.compile(r"^(cuda|hip|xpu)\b[^=]*=\s*'([^']+)'", re.MULTILINE)


class Found(NamedTuple):
    """What one kind found on this machine.

    devices   in the order in which `--device` counts them
    absent    why there is none, as a clause; None: there is one
    unusable  what is here but can't be used, as clauses; with it, a machine without a device is a surprise
    """

    devices: tuple[Device, ...] = ()
    absent: str | None = None
    unusable: tuple[str, ...] = ()


def only_device(device: Device) -> dict[str, str]:
    """The environment of a child process on a kind of which a machine has one: nothing is hidden."""
    return {}


@dataclass(frozen=True)
class Kind:
    """One kind of device. Only `probe` and the functions after it may load torch; they need the process to have it.

    name         Device.kind
    what         of which the error messages speak: "NVIDIA GPU"
    find         asks the machine; never raises
    probe        (device, by_trial) -> the device with what only torch knows; raises UserError where torch can't use it.
                 by_trial: a kernel is compiled, which takes seconds and must not disturb others of this process
    torch_name   (device) -> its name in torch in this process; raises UserError where torch does not see it
    at           (index) -> the device that torch counts so in this process; raises UserError where there is none
    environment  (device) -> the environment variables with which a child process sees this device alone
    counters     (device) -> its counters, for the watch; raises NoCounters. None: they are NVML's (measure/nvml.py)
    untuned      why a search can't measure on this kind, as a clause; None: it can
    """

    name: str
    what: str
    find: Callable[[], Found]
    probe: Callable[[Device, bool], Device]
    torch_name: Callable[[Device], str]
    at: Callable[[int], Device]
    environment: Callable[[Device], dict[str, str]] = only_device
    counters: Callable[[Device], AmdCard] | None = None
    untuned: str | None = None


def chosen(entries: str | None, names: Sequence[str | None]) -> list[int] | None:
    """Which devices a variable such as CUDA_VISIBLE_DEVICES shows, as positions in `names`; None: it is not set.

    names  the UUID of each device; None: not known

    An entry is a position or the beginning of a UUID. The first entry that names none, or more than one, ends the list,
    and a device that is named twice empties it, as CUDA has it.
    """
    if entries is None:
        return None
    found: list[int] = []
    for entry in (word.strip() for word in entries.split(",")):
        if entry.isdecimal():
            named = [int(entry)] if int(entry) < len(names) else []
        else:
            named = [place for place, name in enumerate(names) if entry and name and name.startswith(entry)]
        if len(named) != 1:
            break
        found += named
    return [] if len(set(found)) < len(found) else found


def torch_built_for() -> set[str]:
    """Of "cuda", "hip" and "xpu", that for which the installed torch was built. torch is not loaded."""
    from importlib.util import find_spec

    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return set()
    file = Path(spec.origin).with_name("version.py")
    return {name for name, _ in TORCH_VERSION.findall(file.read_text())} if file.exists() else set()
