"""_groups: diffusers' group offloading, of all models or of some. A helper of the knobs about offloading."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LEAF: Mapping[str, Any] = {"offload_type": "leaf_level", "use_stream": True}
GROUPS: Mapping[str, Mapping[str, Any]] = {
    "leaf": LEAF,
    "leaf_record_stream": {**LEAF, "record_stream": True},
    "leaf_low_memory": {**LEAF, "low_cpu_mem_usage": True},
    "blocks": {"offload_type": "block_level", "num_blocks_per_group": 1, "use_stream": True},
}
DISK = "leaf_disk"  # as "leaf", from files
TO_DISK = "offload_to_disk_path"


def group_offload(pipe: "DiffusionPipeline", device: str, value: str, resident: Iterable[str] = ()) -> None:
    """Offload the pipe's models to host memory, or to files, in the groups that `value` stands for.

    resident  the components that are moved to the device and stay there
    """
    import torch

    where, kept = torch.device(device), sorted(resident)
    if value != DISK:
        pipe.enable_group_offload(where, **GROUPS[value], **({"exclude_modules": kept} if kept else {}))
        return
    folder = Path(tempfile.mkdtemp(prefix="autotune-offload-"))
    weakref.finalize(pipe, shutil.rmtree, folder, ignore_errors=True)  # also where the process ends
    for name, model in pipe.components.items():
        if isinstance(model, torch.nn.Module) and name in kept:
            model.to(where)
        elif isinstance(model, torch.nn.Module):
            # diffusers names files after layers, and takes a file that is there for its own: each model has a folder.
            _to_disk(model, where, folder / name)


def _to_disk(model: Any, where: Any, folder: Path) -> None:
    from diffusers.hooks import apply_group_offloading

    how = {"onload_device": where, TO_DISK: str(folder), **LEAF}
    if hasattr(model, "enable_group_offload"):
        model.enable_group_offload(**how)
    else:
        apply_group_offloading(module=model, **how)


def as_source(value: str) -> str:
    """The arguments as source text."""
    return ", ".join(f'{name}="{v}"' if isinstance(v, str) else f"{name}={v}" for name, v in GROUPS[value].items())
