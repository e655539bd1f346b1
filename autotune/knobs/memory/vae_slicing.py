"""vae_slicing: the VAE decodes a batch one picture at a time, which lowers the peak memory."""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value and target.pipeline.known.vae_class is None:
        return f"{target.pipeline.known.class_name} has no VAE"
    if value and not target.pipeline.known.vae_slices:
        return f"{target.pipeline.known.vae_class} does not support slicing"
    if value and all(shape.batch == 1 for shape in target.workload.shapes):
        return "needs a batch of at least 2; this workload has 1"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    vae = parts.vae(pipe)
    assert vae is not None, "why_not refuses a pipe without a VAE"
    vae.enable_slicing()
    return Effect(count=int(vae.use_slicing), what="VAE set to slicing")


def script(config: Config, target: Target) -> Script:
    return Script(lines=(f"pipe.{target.pipeline.known.vae_name}.enable_slicing()",))


KNOB = Knob(
    name="vae_slicing",
    stage=Stage.PATCH,
    values=(False, True),
    changes_output=False,
    summary="decode a batch one picture at a time",
    why_not=why_not,
    apply=apply,
    script=script,
)
