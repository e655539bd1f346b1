"""Decode a batch of latents one picture at a time: less memory at the peak."""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.target import Target


def why_not(value: Value, target: Target) -> str | None:
    if value and target.pipeline.known.vae_class is None:
        return f"{target.pipeline.known.class_name} has no VAE"
    if value and all(shape.batch == 1 for shape in target.workload.shapes):
        return "a batch of 1 has nothing to slice"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    pipe.vae.enable_slicing()
    return Effect(count=int(pipe.vae.use_slicing), what="VAE set to slicing")


def script(config: Config, target: Target) -> Script:
    return Script(lines=("pipe.vae.enable_slicing()",))


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
