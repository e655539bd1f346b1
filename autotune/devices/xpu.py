"""XPU: the Intel GPUs that torch was built for. An exported config loads on one. Never run on one."""

import os
from pathlib import Path

from autotune.device import Device
from autotune.devices.compiler import fault_on_gpu
from autotune.devices.kind import Found, Kind, torch_built_for
from autotune.errors import UserError

CARDS = Path("/sys/class/drm")
INTEL = "0x8086"  # in the PCI bus's list of makers
SELECTOR = "ZE_AFFINITY_MASK"  # of Level Zero, through which torch reaches the GPU


def find_intel_gpus() -> Found:
    """The Intel GPUs that the kernel lists, where torch was built for them: most laptops have one that it can't use."""
    if "xpu" not in torch_built_for():
        return Found(absent="torch is not built for them")
    found = []
    for card in sorted(CARDS.glob("card[0-9]*/device")):
        if "-" not in card.parent.name and _read(card / "vendor") == INTEL:
            found.append(f"Intel GPU {_read(card / 'device') or 'of an unknown model'}")
    return Found(
        tuple(
            Device(kind="xpu", index=index, name=name, memory_bytes=0, evidence=("the kernel lists it",))
            for index, name in enumerate(found)
        ),
        None if found else "the kernel lists none",
    )


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _environment(device: Device) -> dict[str, str]:
    shown = [word.strip() for word in os.environ.get(SELECTOR, "").split(",")]
    return {SELECTOR: shown[device.index] if device.index < len(shown) and shown[device.index] else str(device.index)}


def _torch_name(device: Device) -> str:
    import torch

    return f"xpu:{0 if torch.xpu.device_count() == 1 else device.index}"


def _probe(device: Device, by_trial: bool) -> Device:
    import torch

    if not torch.xpu.is_available():
        raise UserError(f"{device.name} is here, but this torch ({torch.__version__}) can't use it; use --device cpu.")
    name = _torch_name(device)
    told = torch.xpu.get_device_properties(name)
    return device.model_copy(
        update={
            "name": told.name,
            "memory_bytes": int(told.total_memory),
            "shares_memory": bool(getattr(told, "is_integrated_gpu", False)),
            "sdpa_kernels": ("math",),
            "compile_fault": fault_on_gpu(name, by_trial=by_trial),
            "evidence": (*device.evidence, f"torch {torch.__version__}", "autotune was never run on an Intel GPU"),
        }
    )


def _at(index: int) -> Device:
    found = find_intel_gpus()
    if index >= len(found.devices):
        why = found.absent or f"found {len(found.devices)}"
        raise UserError(f"--device xpu:{index}: there is no such device ({why}); use --device cpu.")
    return found.devices[index]


XPU = Kind(
    name="xpu",
    what="Intel GPU",
    find=find_intel_gpus,
    probe=_probe,
    torch_name=_torch_name,
    at=_at,
    environment=_environment,
    untuned="its memory and its disturbances are not metered, so that nothing can be tuned on it",
)
