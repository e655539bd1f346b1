"""cudnn_benchmark: cuDNN times its kernels for each shape of a convolution, and takes the fastest.

It does so in the first call of each shape. Its workspaces come from torch's allocator, so that they are part of the
peak memory, and can be large. The setting is one of the process (torch.backends.cudnn.benchmark). Not yet seen on a
GPU.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if not value:
        return None
    if not target.device.is_nvidia:
        return "is a setting of cuDNN, which needs an NVIDIA GPU"
    traits = target.pipeline.known
    flat, deep = traits.convolutions + traits.vae_convolutions, traits.convolutions_3d + traits.vae_convolutions_3d
    return None if flat + deep else f"{traits.class_name} has no convolutions"


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    torch.backends.cudnn.benchmark = True
    models = [model for model in (*parts.step_models(pipe).values(), parts.vae(pipe)) if model is not None]
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    count = sum(isinstance(module, kinds) for model in models for module in model.modules())
    return Effect(count=count if torch.backends.cudnn.benchmark else 0, what="convolutions whose kernels cuDNN times")


def script(config: Config, target: Target) -> Script:
    return Script(lines=("torch.backends.cudnn.benchmark = True",))


KNOB = Knob(
    name="cudnn_benchmark",
    stage=Stage.WEIGHTS,
    values=(False, True),
    changes_output=True,  # the kernels of convolutions round differently
    rounds=True,
    summary="cuDNN times its kernels and takes the fastest",
    why_not=why_not,
    apply=apply,
    script=script,
)
