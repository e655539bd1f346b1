"""memory_format: the memory layout of convolutions. Tensor cores need channels_last; some CPUs are slower with it."""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value == "channels_last" and not target.pipeline.known.convolutions:
        return f"{target.pipeline.known.denoiser_class} has no convolutions"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    changed = 0
    for part in filter(None, (*parts.step_models(pipe).values(), parts.vae(pipe))):
        before = {name: p.stride() for name, p in part.named_parameters()}
        part.to(memory_format=torch.channels_last)
        changed += sum(p.stride() != before[name] for name, p in part.named_parameters())
    return Effect(count=changed, what="weights laid out channels last")


def script(config: Config, target: Target) -> Script:
    traits = target.pipeline.known
    models = [
        traits.denoiser,
        *(["controlnet"] if traits.controlnet_class else []),
        *(["vae"] if traits.vae_class else []),
    ]
    return Script(lines=tuple(f"pipe.{name}.to(memory_format=torch.channels_last)" for name in models))


KNOB = Knob(
    name="memory_format",
    stage=Stage.LAYOUT,
    values=("contiguous", "channels_last"),
    changes_output=False,
    summary="layout of convolutions in memory",
    why_not=why_not,
    apply=apply,
    script=script,
)
