"""allocator: torch's allocator grows its segments on a CUDA device, so that memory between tensors is not lost.

Without it, a tensor that fits between no two others takes a new segment, though enough is free in sum: pictures of many
sizes then need more memory than the largest alone. The setting is one of the process, and holds for what is allocated
after the weights. Not yet seen on a GPU.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SETTING = "expandable_segments:True"
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def why_not(value: Value, target: Target) -> str | None:
    if value == "default":
        return None
    if not target.device.is_nvidia:
        return "is a setting of torch's allocator on NVIDIA GPUs"
    held = [name for name in VARIABLES if (target.environment or {}).get(name)]
    return f"the environment variable {held[0]} sets the allocator already" if held else None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    torch._C._accelerator_setAllocatorSettings(SETTING)
    return Effect(count=1, what="setting of torch's allocator")


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    import torch

    segments = torch.cuda.memory_snapshot(include_traces=False)
    return Effect(
        count=sum(bool(one.get("is_expandable")) for one in segments), what="segments of memory that can grow"
    )


def script(config: Config, target: Target) -> Script:
    return Script(lines=(f'torch._C._accelerator_setAllocatorSettings("{SETTING}")',))


KNOB = Knob(
    name="allocator",
    stage=Stage.WEIGHTS,
    values=("default", "expandable_segments"),
    changes_output=False,
    summary="can segments of GPU memory grow",
    why_not=why_not,
    apply=apply,
    verify=verify,
    reads_kernels=False,
    script=script,
)
