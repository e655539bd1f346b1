"""memory_format: the memory layout of convolutions. Tensor cores need channels_last; some CPUs are slower with it.

It concerns the models that run each step and the VAE, whichever has convolutions. Those of three dimensions get torch's
channels_last_3d.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    denoiser = traits.convolutions + traits.convolutions_3d
    if value == "channels_last" and not denoiser + traits.vae_convolutions + traits.vae_convolutions_3d:
        return f"{traits.denoiser_class} has no convolutions"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    changed = 0
    for part in filter(None, (*parts.step_models(pipe).values(), parts.vae(pipe))):
        for weight in part.parameters():
            before = weight.stride()
            if weight.dim() in (4, 5):
                layout = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
                weight.data = weight.data.to(memory_format=layout)
            changed += weight.stride() != before
    return Effect(count=changed, what="weights laid out channels last")


def script(config: Config, target: Target) -> Script:
    traits = target.pipeline.known
    models = dict.fromkeys(traits.denoisers, traits.convolutions_3d)
    models |= {"controlnet": 0} if traits.controlnet_class else {}
    models |= {traits.vae_name: traits.vae_convolutions_3d} if traits.vae_class else {}
    lines: list[str] = []
    for name, of_three_dimensions in models.items():
        if not of_three_dimensions:
            lines.append(f"pipe.{name}.to(memory_format=torch.channels_last)")
            continue
        lines += [
            f"for weight in pipe.{name}.parameters():",
            "    if weight.dim() in (4, 5):",
            "        layout = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d",
            "        weight.data = weight.data.to(memory_format=layout)",
        ]
    return Script(lines=tuple(lines))


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
