"""quantize_text_encoder: the linear layers of the text encoders in 8 bits, by torchao.

T5-XXL and language models take as much memory as the denoiser, and run once a call. Only weights are quantized: they
are turned back for each product, so that a call is as exact as the weights are. Embeddings keep their format, and so
does a last layer that shares its weights with them.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.footprint import Footprint, Part
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CONFIGS = {"int8_weight_only": "Int8WeightOnlyConfig", "fp8_weight_only": "Float8WeightOnlyConfig"}
SCALE_BYTES = 5  # of each output: a scale in float32, and for int8 a zero point


def why_not(value: Value, target: Target) -> str | None:
    if value == "none":
        return None
    traits = target.pipeline.known
    if not traits.text_encoders:
        return f"{traits.class_name} has no text encoder"
    held = {name: traits.quantized[name] for name in traits.text_encoders if name in traits.quantized}
    if held:
        name, how = next(iter(held.items()))
        return f"the checkpoint's {name} is quantized already ({how})"
    return target.lacks("torchao")


def clash(config: Config, target: Target) -> str | None:
    if config["quantize_text_encoder"] == "int8_weight_only" and config["dtype"] == "fp16":
        return "int8 weights are multiplied before they are scaled, which overflows in float16"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch
    from torchao import quantization

    how = getattr(quantization, CONFIGS[str(config["quantize_text_encoder"])])(set_inductor_config=False)
    encoders = parts.text_encoders(pipe).values()
    total = sum(p.numel() for encoder in encoders for p in encoder.parameters())
    done: list[Any] = []
    for encoder in encoders:
        shared = id(encoder.get_input_embeddings().weight)
        layers = [m for m in encoder.modules() if isinstance(m, torch.nn.Linear) and id(m.weight) != shared]
        chosen = set(map(id, layers))
        quantization.quantize_(encoder, how, filter_fn=lambda module, _, chosen=chosen: id(module) in chosen)
        done += [module for module in layers if type(module.weight.data).__module__.startswith("torchao")]
    share = sum(module.weight.numel() for module in done) / max(1, total)
    return Effect(count=len(done), what=f"linear layers quantized, {share:.0%} of the text encoders' weights")


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    if config["quantize_text_encoder"] == "none":
        return footprint

    def quantized(part: Part) -> Part:
        shapes = part.component.linear
        smaller = part.stored_smaller(sum(wide * high * count for wide, high, count in shapes), 8)
        return replace(smaller, bytes=smaller.bytes + sum(SCALE_BYTES * high * count for _, high, count in shapes))

    return footprint.of_denoisers(quantized, target.pipeline.known.text_encoders)


def undone_by(value: Value, change: Change) -> str | None:
    return "has packed weights, which only torchao can read" if change == "save" else None


def script(config: Config, target: Target) -> Script:
    name = CONFIGS[str(config["quantize_text_encoder"])]
    encoders = ", ".join(f"pipe.{encoder}" for encoder in target.pipeline.known.text_encoders)
    lines = (
        f"for encoder in ({encoders},):",
        "    embeddings = encoder.get_input_embeddings().weight  # a last layer that shares them keeps its format",
        "    def is_quantized(module, name):",
        "        return isinstance(module, torch.nn.Linear) and module.weight is not embeddings",
        "",
        f"    quantize_(encoder, {name}(set_inductor_config=False), filter_fn=is_quantized)",
    )
    return Script(imports=(f"from torchao.quantization import {name}, quantize_",), lines=lines)


KNOB = Knob(
    name="quantize_text_encoder",
    stage=Stage.QUANTIZE,
    values=("none", *CONFIGS),
    changes_output=True,
    rounds=True,
    nearest={"fp8_weight_only": ("int8_weight_only",)},
    summary="linear layers of the text encoders in 8 bits",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
