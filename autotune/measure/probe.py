"""What torch itself says of a device: can it be used, which attention kernels has it, which versions are here?"""

import platform
from importlib.metadata import version

from autotune.device import Device
from autotune.errors import UserError

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "torchao", "tomesd")


def versions() -> dict[str, str]:
    """Python's and those of the libraries that make the pictures."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def probe_device(device: Device) -> Device:
    """The device with what only torch knows. Raises UserError where this torch can't use it."""
    import torch

    if device.kind == "cpu":
        said = f"torch {torch.__version__} with {torch.get_num_threads()} threads"
        return device.model_copy(update={"sdpa_kernels": ("flash", "math"), "evidence": (*device.evidence, said)})
    if not torch.cuda.is_available():
        raise UserError(
            f"{device.name} is here, but this torch ({torch.__version__}) can't use it: install a CUDA build "
            "of torch that fits the driver, or use --device cpu."
        )
    properties = torch.cuda.get_device_properties(device.index)
    capability = torch.cuda.get_device_capability(device.index)
    kernels = [name for name, has in _kernels(capability).items() if has]
    said = f"torch {torch.__version__} built for {', '.join(torch.cuda.get_arch_list())}"
    return device.model_copy(
        update={
            "compute_capability": capability,
            "multiprocessors": properties.multi_processor_count,
            "sdpa_kernels": tuple(kernels),
            "evidence": (*device.evidence, said),
        }
    )


def _kernels(capability: tuple[int, int]) -> dict[str, bool]:
    """Which SDPA kernels can run, in float16 or bfloat16, on a GPU of this compute capability with this torch."""
    import torch

    backends = torch.backends.cuda
    return {
        "flash": capability >= (8, 0) and backends.is_flash_attention_available(),
        "efficient": True,
        "cudnn": capability >= (8, 0) and torch.backends.cudnn.is_available(),
        "math": True,
    }
