"""CUDA: the NVIDIA GPUs of this machine, as NVML lists them."""

import os
from typing import Any

from autotune.device import Device


def find_nvidia_gpus() -> list[Device]:
    """The GPUs that torch would count, in its order. Empty without an NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_nvidia_gpu(pynvml, handle, index) for index, handle in enumerate(_visible(pynvml, handles))]
    finally:
        pynvml.nvmlShutdown()


def _visible(nvml: Any, handles: list[Any]) -> list[Any]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, in its order. torch counts only these; NVML counts all.

    An entry that names no GPU, and everything after it, is ignored, as CUDA does.
    """
    entries = os.environ.get("CUDA_VISIBLE_DEVICES")
    if entries is None:
        return handles
    visible = []
    for entry in entries.split(","):
        named = [
            handle
            for index, handle in enumerate(handles)
            if entry.strip() == str(index)
            or (entry.startswith("GPU-") and str(nvml.nvmlDeviceGetUUID(handle)).startswith(entry.strip()))
        ]
        if len(named) != 1:
            break
        visible += named
    return visible


def _nvidia_gpu(nvml: Any, handle: Any, index: int) -> Device:
    driver = str(nvml.nvmlSystemGetDriverVersion())
    capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Device(
        kind="cuda",
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=(int(capability[0]), int(capability[1])),
        driver=driver,
        evidence=(f"NVML lists it, driver {driver}",),
    )


def nvml_state() -> str:
    """Why no GPU was found, in a few words, for an error message."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    pynvml.nvmlShutdown()
    return "NVML lists none"
