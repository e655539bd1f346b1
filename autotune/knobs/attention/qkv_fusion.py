"""Fuse the query, key and value projections of each attention block into one matrix product.

Keeps the separate weights beside the fused ones, so memory grows a little. Must come before quantization.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target


def why_not(value: Value, target: Target) -> str | None:
    if value and not target.pipeline.known.fuses_qkv:
        return f"{target.pipeline.known.denoiser_class} can't fuse its projections"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    from diffusers import AutoencoderKL

    vae = parts.vae(pipe)
    fused = [parts.denoiser(pipe), *([vae] if isinstance(vae, AutoencoderKL) else [])]
    for model in fused:
        model.fuse_qkv_projections()
    blocks = [m for model in fused for m in model.modules()]
    return Effect(count=sum(getattr(m, "fused_projections", False) for m in blocks), what="attention blocks fused")


def script(config: Config, target: Target) -> Script:
    traits = target.pipeline.known
    lines = [f"pipe.{traits.denoiser}.fuse_qkv_projections()"]
    if traits.vae_class == "AutoencoderKL" and config["vae"] != "tiny":
        lines.append("pipe.vae.fuse_qkv_projections()")
    return Script(lines=tuple(lines))


KNOB = Knob(
    name="qkv_fusion",
    stage=Stage.SURGERY,
    values=(False, True),
    changes_output=False,
    summary="one matrix product for query, key and value",
    why_not=why_not,
    apply=apply,
    script=script,
)
