"""ROCm: the AMD GPUs of this machine, as the kernel's driver (KFD) lists them. Never run on one.

In torch they are "cuda", and most of torch.cuda works for them. Found by the files of the kernel, which need no
library. Their names and memory come from torch, in the probe. NVML knows none of them: their counters come from amdsmi,
where that is installed.
"""

import os
from pathlib import Path

from autotune.device import Device
from autotune.devices.amd_card import AmdCard
from autotune.devices.compiler import fault_on_gpu
from autotune.devices.kind import Found, Kind, chosen, torch_built_for
from autotune.errors import UserError

NODES = Path("/sys/class/kfd/kfd/topology/nodes")
BY_ROCR, BY_HIP, BY_CUDA = "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"


def find_amd_gpus() -> Found:
    """The GPUs that ROCR_VISIBLE_DEVICES shows, and of these HIP_VISIBLE_DEVICES (or CUDA's), in their order."""
    here = [device for node in sorted(NODES.glob("[0-9]*"), key=lambda path: int(path.name)) for device in _gpu(node)]
    if not here:
        return Found(absent="the kernel lists none")
    if "hip" not in torch_built_for():
        return Found((), "torch is not built for them", (f"{here[0].name} is here, but this torch is no ROCm build",))
    shown = chosen(os.environ.get(BY_ROCR), [device.uuid for device in here])
    here = [here[place] for place in shown] if shown is not None else here
    shown = chosen(os.environ.get(BY_HIP, os.environ.get(BY_CUDA)), [None] * len(here))
    here = [here[place] for place in shown] if shown is not None else here
    absent = None if here else f"{BY_ROCR} or {BY_HIP} shows none"
    return Found(tuple(device.model_copy(update={"index": index}) for index, device in enumerate(here)), absent)


def _gpu(node: Path) -> list[Device]:
    """The GPU of a node of KFD's topology; none: the node is a processor."""
    try:
        pairs = (line.split() for line in (node / "properties").read_text().splitlines())
        told = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):  # a container may not read the nodes of other containers' GPUs
        return []
    version = told.get("gfx_target_version", 0)
    if not told.get("simd_count") or not version:
        return []
    name = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    uuid = f"GPU-{told['unique_id']:016x}" if told.get("unique_id") else None
    return [Device(kind="rocm", uuid=uuid, name=f"AMD {name}", memory_bytes=0, evidence=("the kernel (KFD) lists it",))]


def _environment(device: Device) -> dict[str, str]:
    if device.uuid is not None:
        return {BY_ROCR: device.uuid, BY_HIP: "0", BY_CUDA: "0"}
    shown = [word.strip() for word in os.environ.get(BY_HIP, os.environ.get(BY_CUDA, "")).split(",")]
    entry = shown[device.index] if device.index < len(shown) and shown[device.index] else str(device.index)
    return {BY_HIP: entry, BY_CUDA: entry}


def _torch_name(device: Device) -> str:
    """torch does not tell AMD's UUIDs as KFD does, so a process that sees several has to go by their order."""
    import torch

    return f"cuda:{0 if torch.cuda.device_count() == 1 else device.index}"


def _probe(device: Device, by_trial: bool) -> Device:
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"{device.name} is here, but this torch ({torch.__version__}) can't use it; use --device cpu.")
    name = _torch_name(device)
    told = torch.cuda.get_device_properties(name)
    flash = ("flash",) if torch.backends.cuda.is_flash_attention_available() else ()
    return device.model_copy(
        update={
            "name": told.name or device.name,
            "memory_bytes": int(told.total_memory),
            "shares_memory": bool(getattr(told, "is_integrated", False)),
            "multiprocessors": int(told.multi_processor_count),
            "sdpa_kernels": (*flash, "efficient", "math"),
            "compile_fault": fault_on_gpu(name, by_trial=by_trial),
            "evidence": (
                *device.evidence,
                f"torch {torch.__version__}",
                "autotune was never run on an AMD GPU",
            ),
        }
    )


def _at(index: int) -> Device:
    found = find_amd_gpus().devices
    if index >= len(found):
        raise UserError(f"--device cuda:{index}: there is no such device; found {len(found)} AMD GPUs and cpu.")
    return found[index]


ROCM = Kind(
    name="rocm",
    what="AMD GPU",
    find=find_amd_gpus,
    probe=_probe,
    torch_name=_torch_name,
    at=_at,
    environment=_environment,
    counters=lambda device: AmdCard(device.uuid),
)
