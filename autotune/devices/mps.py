"""MPS: the GPU of an Apple processor. An exported config loads on it; nothing is measured on it. Never run on one."""

import ctypes
import ctypes.util
import platform
import sys

from autotune.device import Device
from autotune.devices.cpu import machine_bytes
from autotune.devices.kind import Found, Kind
from autotune.errors import UserError

COMPILE_FAULT = "Inductor's kernels for Apple's GPUs are a prototype"


def find_apple_gpu() -> Found:
    """The GPU of this processor. It uses the machine's memory."""
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return Found(absent="this is no Mac with an Apple processor")
    return Found(
        (
            Device(
                kind="mps",
                name=_brand(),
                memory_bytes=machine_bytes(),
                shares_memory=True,
                evidence=("macOS on an Apple processor",),
            ),
        )
    )


def _brand() -> str:
    """The processor's name, such as "Apple M3 Max"."""
    system, size = ctypes.CDLL(ctypes.util.find_library("c")), ctypes.c_size_t(256)
    brand = ctypes.create_string_buffer(size.value)
    declined = system.sysctlbyname(b"machdep.cpu.brand_string", brand, ctypes.byref(size), None, 0)
    return "an Apple processor" if declined else brand.value.decode()


def _probe(device: Device, by_trial: bool) -> Device:
    import torch

    if not torch.backends.mps.is_available():
        raise UserError(f"{device.name}: this torch ({torch.__version__}) can't use its GPU; use --device cpu.")
    evidence = (*device.evidence, f"torch {torch.__version__}", "autotune was never run on an Apple GPU")
    return device.model_copy(update={"sdpa_kernels": ("math",), "compile_fault": COMPILE_FAULT, "evidence": evidence})


def _at(index: int) -> Device:
    found = find_apple_gpu()
    if index or not found.devices:
        raise UserError(f"--device mps: there is no such device ({found.absent}); use --device cpu.")
    return found.devices[0]


MPS = Kind(
    name="mps",
    what="Apple GPU",
    find=find_apple_gpu,
    probe=_probe,
    torch_name=lambda device: "mps",
    at=_at,
    untuned="its memory and its disturbances are not metered, so that nothing can be tuned on it",
)
