"""qkv_fusion: the query, key and value projections of each attention block become one matrix product.

Fusing comes before quantization. diffusers keeps the separate weights beside the fused ones; here they are let go of
before anything is quantized (_fused.py).
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.attention._fused import drop_replaced
from autotune.knobs.attention._processors import beside_adapter, weighted_processors, would_replace
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value and (fault := beside_adapter(target)):
        return fault
    if value and target.denoiser_is_quantized:
        return target.denoiser_is_quantized
    if value and not target.pipeline.known.fuses_qkv:
        return f"{target.pipeline.known.denoiser_class} does not support fused projections"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    from diffusers import AutoencoderKL

    vae = parts.vae(pipe)
    fused = [*parts.denoisers(pipe).values(), *([vae] if isinstance(vae, AutoencoderKL) else [])]
    for model in fused:
        _fuse(model)
    blocks = [m for model in fused for m in model.modules()]
    return Effect(count=sum(getattr(m, "fused_projections", False) for m in blocks), what="attention blocks fused")


def _fuse(model: Any) -> None:
    """Raises UserError, with the model as it was, where fusing replaces attention processors that hold weights."""
    processors, weighted = dict(model.attn_processors), weighted_processors(model)
    model.fuse_qkv_projections()
    if len(weighted_processors(model)) < len(weighted):
        model.unfuse_qkv_projections()
        model.set_attn_processor(processors)
        raise would_replace("qkv_fusion=True")
    drop_replaced(model)


def undone_by(value: Value, change: Change) -> str | None:
    if change == "lora":
        return "computes with fused weights, which a LoRA does not change"
    if change == "save":
        return "has added fused weights, which diffusers would not load again"
    return "acts in the attention processors, which would be replaced"


def script(config: Config, target: Target) -> Script:
    traits = target.pipeline.known
    lines = [f"pipe.{name}.fuse_qkv_projections()" for name in traits.denoisers]
    if traits.vae_class == "AutoencoderKL" and config["vae"] != "tiny":
        lines.append(f"pipe.{traits.vae_name}.fuse_qkv_projections()")
    return Script(lines=tuple(lines))


KNOB = Knob(
    name="qkv_fusion",
    stage=Stage.SURGERY,
    values=(False, True),
    changes_output=False,
    summary="one matrix product for query, key and value",
    why_not=why_not,
    apply=apply,
    undone_by=undone_by,
    script=script,
)
