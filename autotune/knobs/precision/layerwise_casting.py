"""layerwise_casting: the denoiser's weights are stored in 8 bits, and each layer is cast back before it computes.

The weights take half the memory of bfloat16 on any device. Calls are slower and the quality is a little lower. Norms
and the embeddings that diffusers names keep their format. Unlike with `quantization`, the arithmetic does not change.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.footprint import Footprint
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value == "none":
        return None
    fault = target.pipeline.known.casting_fault
    return target.denoiser_is_quantized or (fault and f"the denoiser does not work with layers that are cast ({fault})")


def clash(config: Config, target: Target) -> str | None:
    if config["layerwise_casting"] == "none":
        return None
    if config["quantization"] != "none":
        return "layerwise_casting would store quantized weights in 8 bits, which loses precision twice"
    if config["compile"] != "off":
        return "layerwise casting replaces every layer's weights at every call, which breaks compiled graphs"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    stored, denoisers = getattr(torch, str(config["layerwise_casting"])), parts.denoisers(pipe).values()
    for denoiser in denoisers:
        denoiser.enable_layerwise_casting(storage_dtype=stored, compute_dtype=denoiser.dtype)
    sizes = [(p.numel(), p.dtype) for denoiser in denoisers for p in denoiser.parameters()]
    count = sum(size for size, dtype in sizes if dtype == stored)
    share = count / sum(size for size, _ in sizes)
    return Effect(count=count, what=f"weights stored in 8 bits, {share:.0%} of the denoiser's")


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    if config["layerwise_casting"] == "none":
        return footprint
    return footprint.of_denoisers(lambda p: p.stored_smaller(p.component.cast, 8), target.pipeline.known.denoisers)


def undone_by(value: Value, change: Change) -> str | None:
    if change == "ip_adapter":
        return "stores weights in 8 bits, and an IP-Adapter casts all weights of the denoiser back"
    return "stores weights in 8 bits, which can't be restored" if change == "save" else None


def script(config: Config, target: Target) -> Script:
    stored, denoisers = f"torch.{config['layerwise_casting']}", [f"pipe.{n}" for n in target.pipeline.known.denoisers]
    hows = {denoiser: f"storage_dtype={stored}, compute_dtype={denoiser}.dtype" for denoiser in denoisers}
    return Script(lines=tuple(f"{denoiser}.enable_layerwise_casting({how})" for denoiser, how in hows.items()))


KNOB = Knob(
    name="layerwise_casting",
    stage=Stage.QUANTIZE,
    values=("none", "float8_e4m3fn", "float8_e5m2"),
    changes_output=True,
    rounds=True,
    summary="weights of the denoiser stored in 8 bits",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
