"""Device probe: what torch says of a device. Can torch use it, which attention kernels run, which versions?"""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autotune.device import Device
from autotune.errors import UserError
from autotune.job import DeviceJob

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "torchao", "tomesd", "peft", "DeepCache")
OPTIONAL = ("xformers", "flash-attn", "sageattention", "kernels")  # attention kernels of other packages


def run_device_job(job: DeviceJob, folder: Path) -> dict[str, Any]:
    """The job's device with torch's answers, as JSON. Raises UserError where torch can't use it."""
    return probe_device(job.device).to_json()


def versions() -> dict[str, str]:
    """Package -> version: Python, the libraries that draw the pictures, and the installed optional packages."""
    found = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    for name in OPTIONAL:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def probe_device(device: Device) -> Device:
    """The device with what only torch knows. Raises UserError where this torch can't use the device."""
    import torch

    if device.kind == "cpu":
        evidence = f"torch {torch.__version__} with {torch.get_num_threads()} threads"
        found = {"sdpa_kernels": ("flash", "math"), "compile_fault": _compile_fault()}
        return device.model_copy(update={**found, "evidence": (*device.evidence, evidence)})
    if not torch.cuda.is_available():
        raise UserError(
            f"{device.name} was found, but this torch ({torch.__version__}) can't use it: install a CUDA build "
            "of torch that fits the driver, or use --device cpu."
        )
    from torch.utils._triton import has_triton

    properties = torch.cuda.get_device_properties(device.index)
    capability = torch.cuda.get_device_capability(device.index)
    kernels = [name for name, has in _kernels(capability).items() if has]
    evidence = f"torch {torch.__version__} built for {', '.join(torch.cuda.get_arch_list())}"
    return device.model_copy(
        update={
            "compute_capability": capability,
            "multiprocessors": properties.multi_processor_count,
            "sdpa_kernels": tuple(kernels),
            "compile_fault": None if has_triton() else "torch.compile needs Triton, which does not work here",
            "evidence": (*device.evidence, evidence),
        }
    )


def _compile_fault() -> str | None:
    """Why Inductor can't compile for this processor, or None."""
    import torch

    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"torch.compile needs a C++ compiler, and there is no {compiler}"
    if any(letter.isspace() for letter in torch.__file__):
        return "torch lies in a folder with a space in its name, from where Inductor can't link"
    return None


def _kernels(capability: tuple[int, int]) -> dict[str, bool]:
    """SDPA kernel -> can it run in float16 or bfloat16 on a GPU of this compute capability, with this torch?"""
    import torch

    backends = torch.backends.cuda
    return {
        "flash": capability >= (8, 0) and backends.is_flash_attention_available(),
        "efficient": True,
        "cudnn": capability >= (8, 0) and torch.backends.cudnn.is_available(),
        "math": True,
    }
