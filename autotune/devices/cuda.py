"""NVIDIA GPUs, as NVML lists them."""

import os
from typing import Any

from autotune.device import Device


def find_nvidia_gpus() -> list[Device]:
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
    """The GPUs that CUDA_VISIBLE_DEVICES lets through, in its order: torch counts these, NVML counts all.

    CUDA ignores whatever follows the first entry that it can't find, and so do we.
    """
    words = os.environ.get("CUDA_VISIBLE_DEVICES")
    if words is None:
        return handles
    visible = []
    for word in words.split(","):
        found = [
            handle
            for index, handle in enumerate(handles)
            if word.strip() == str(index)
            or (word.startswith("GPU-") and str(nvml.nvmlDeviceGetUUID(handle)).startswith(word.strip()))
        ]
        if len(found) != 1:
            break
        visible += found
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
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    pynvml.nvmlShutdown()
    return "NVML lists none"
