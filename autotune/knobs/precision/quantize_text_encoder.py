"""quantize_text_encoder: the linear layers of the text encoders in 8 or 4 bits, by several packages.

T5-XXL and language models take as much memory as the denoiser, and run once a call. Only weights are quantized: they
are turned back for each product, so that a call is as exact as the weights are. Embeddings keep their format, and so
does a last layer that shares its weights with them. The methods are those of `quantization`.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.footprint import Footprint, Part
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.precision._linear_layers import quantized, script_of
from autotune.knobs.precision._methods import all_methods
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

METHODS_FOR_WORDS = {name: method for name, method in all_methods().items() if method.for_words}


def why_not(value: Value, target: Target) -> str | None:
    method, traits = METHODS_FOR_WORDS.get(str(value)), target.pipeline.known
    if method is None:
        return None
    if not traits.text_encoders:
        return f"{traits.class_name} has no text encoder"
    held = {name: traits.quantized[name] for name in traits.text_encoders if name in traits.quantized}
    if held:
        name, how = next(iter(held.items()))
        return f"the checkpoint's {name} is quantized already ({how})"
    why, kind = method.why_not(target), target.device.kind
    known = [part for part in traits.components if part.name in traits.text_encoders]
    if why is None and known and not any(method.fits(s[:2], kind) for part in known for s in part.linear):
        return f"no linear layer of the text encoders has {method.size_needed(kind)}, as {value} needs"
    return why


def clash(config: Config, target: Target) -> str | None:
    method = METHODS_FOR_WORDS.get(str(config["quantize_text_encoder"]))
    if method is None:
        return None
    moved = "group" if config["offload"] == "text_encoders" else config["offload"]  # of the text encoders, by layers
    return method.clash(config.replace(offload=moved, **_compiled(config)), target)


def _compiled(config: Config) -> dict[str, Value]:
    """`compile` as it concerns text encoders: off, unless they are compiled."""
    chosen = "text_encoder" in str(config.get("compile_encoders", "none"))
    return {} if chosen or config["compile"] == "everything" else {"compile": "off"}


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    method, kind = METHODS_FOR_WORDS[str(config["quantize_text_encoder"])], device.partition(":")[0]
    # On the GPU, one layer after another, as the denoiser's layers.
    where = device if kind == "cuda" and (method.on_gpu or config["offload"] == "none") else None
    return quantized(parts.text_encoders(pipe), method, where, kind, whose="the text encoders'")


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    method, kind = METHODS_FOR_WORDS.get(str(config["quantize_text_encoder"])), target.device.kind
    if method is None:
        return footprint

    def smaller(part: Part) -> Part:
        return method.weighs(part, [shape for shape in part.component.linear if method.fits(shape[:2], kind)])

    return footprint.of_denoisers(smaller, target.pipeline.known.text_encoders)


def undone_by(value: Value, change: Change) -> str | None:
    package = METHODS_FOR_WORDS[str(value)].package
    return f"has packed weights, which only {package} can read" if change == "save" else None


def script(config: Config, target: Target) -> Script:
    method = METHODS_FOR_WORDS[str(config["quantize_text_encoder"])]
    return script_of(method, target.device.kind, [f"pipe.{name}" for name in target.pipeline.known.text_encoders])


KNOB = Knob(
    name="quantize_text_encoder",
    stage=Stage.QUANTIZE,
    values=("none", *METHODS_FOR_WORDS),
    changes_output=True,
    rounds=True,
    nearest={
        name: tuple(other for other in method.nearest if other in METHODS_FOR_WORDS)
        for name, method in METHODS_FOR_WORDS.items()
        if method.nearest
    },
    summary="linear layers of the text encoders in 8 or 4 bits",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
