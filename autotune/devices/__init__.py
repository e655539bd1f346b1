"""Devices: find the accelerators of this machine. One file for each kind (cuda.py, rocm.py, xpu.py, mps.py, cpu.py).

Devices are found without torch: GPUs through NVML or the kernel's files, the processor through /proc. What only torch
can tell (whether it can use the card, which kernels its build has) is added by probe.py in a child process. Nothing
outside this folder asks for a kind by its name.
"""

import logging
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from autotune.device import Device
from autotune.devices.cpu import CPU
from autotune.devices.cuda import CUDA
from autotune.devices.kind import Found, Kind
from autotune.devices.mps import MPS
from autotune.devices.rocm import ROCM
from autotune.devices.xpu import XPU
from autotune.errors import UserError

KINDS: dict[str, Kind] = {kind.name: kind for kind in (CUDA, ROCM, XPU, MPS, CPU)}  # the best first
WORDS = re.compile(
    r"(?P<type>cpu|mps|(?P<counted>cuda|xpu))(?(counted)(:(?P<index>[0-9]+))?)|(?P<uuid>(GPU|MIG)-[\w/-]+)"
)


def find_devices() -> list[Device]:
    """Every GPU that can be asked, then the processor. What can't be used is no reason to fail: see find_device."""
    return [device for kind in KINDS.values() for device in kind.find().devices]


def unusable() -> list[str]:
    """What is here but can't be used, and why, as clauses: cards that may not be opened, a driver without NVML."""
    return [clause for kind in KINDS.values() for clause in kind.find().unusable]


def find_device(word: str | None) -> Device:
    """The device that `--device` names; None: the first GPU, or the processor without one.

    word  `cuda`, `cuda:1`, `xpu`, `mps`, `cpu`, or the beginning of a GPU's UUID. `cpu` asks nothing of any GPU.

    Raises UserError where there is no such device. Where a GPU is here but can't be used, and none was named, a warning
    says why the processor is taken.
    """
    if word is None:
        return _first([kind.find() for kind in KINDS.values()])
    type_, index, uuid = parse_word(word)
    kinds = [kind for name, kind in KINDS.items() if type_ in (None, _torch_type(name))]
    found = {kind.what: kind.find() for kind in kinds}
    devices = [device for one in found.values() for device in one.devices]
    for device in devices:
        if device.index == index if uuid is None else (device.uuid or "").startswith(uuid):
            return device
    gpus = [f"{d.word} ({d.name}{f', {d.uuid}' if uuid else ''})" for d in devices if d.is_gpu]
    if gpus:
        raise UserError(f"--device {word}: there is no such device; found {', '.join(gpus)} and cpu.")
    raise UserError(f"--device {word}: no {_absent(found)}; use --device cpu.")


def parse_word(word: str) -> tuple[str | None, int, str | None]:
    """(torch's type of device, index, None) or (None, 0, UUID) of a word for `--device`. Raises UserError."""
    parts = WORDS.fullmatch(word)
    if parts is None:
        raise UserError(f"--device takes cuda, cuda:N or cpu, not {word!r} (also xpu, mps, and a GPU's UUID).")
    return parts["type"], int(parts["index"] or 0), parts["uuid"]


def kind_of(device: Device) -> Kind:
    """What the project knows of the kind of this device."""
    return KINDS[device.kind]


def environment(device: Device) -> dict[str, str]:
    """The environment variables with which a child process sees this device alone, as torch's device 0."""
    return kind_of(device).environment(device)


def torch_name(device: Device) -> str:
    """torch's name of this device in this process, which may see others: a GPU is looked up by its UUID. Loads torch.

    Raises UserError where torch does not see it.
    """
    return kind_of(device).torch_name(device)


def current_device(name: str) -> AbstractContextManager[object]:
    """Inside, the device of this name in torch is the current one: streams and kernels without a name go there."""
    if not name.startswith("cuda"):
        return nullcontext()
    import torch

    found: AbstractContextManager[object] = torch.cuda.device(name)
    return found


def device_at(name: str) -> Device:
    """The device that torch calls so in this process, such as "cuda:1": that is not NVML's order. Loads torch.

    Takes a UUID as well. Raises UserError where there is none.
    """
    type_, index, uuid = parse_word(name)
    if uuid is not None or type_ == "cpu":
        return find_device(name)
    kinds = [kind for own, kind in KINDS.items() if type_ == _torch_type(own)]
    return next((kind for kind in kinds if kind.find().devices), kinds[0]).at(index)


def _torch_type(kind: str) -> str:
    return Device(kind=kind, name="", memory_bytes=0).torch_type


def _first(found: Iterable[Found]) -> Device:
    found = list(found)
    device = next(device for one in found for device in one.devices)
    unusable = [clause for one in found for clause in one.unusable]
    if not device.is_gpu and unusable:
        logging.getLogger("autotune").warning("no GPU is used, the processor is: %s.", "; ".join(unusable))
    return device


def _absent(found: dict[str, Found]) -> str:
    """Why there is no device of these kinds, the first of which is the usual one."""
    usual, first = next(iter(found.items()))
    why = [first.absent, *(clause for one in found.values() for clause in one.unusable if clause != first.absent)]
    return f"{usual} was found here ({'; '.join(clause for clause in why if clause)})"
