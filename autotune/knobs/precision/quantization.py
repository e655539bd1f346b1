"""quantization: the denoiser's linear layers in 8 or 4 bits, by torchao. `quantization_filter` selects the layers.

Dynamic int8 and fp8 quantize activations during the call and compute in 8 bits; they are faster only when compiled.
Weight-only quantization saves memory and computes as before. Convolutions are not quantized.

int4 weights are packed for a kernel: "tile_packed_to_4d" on a GPU, torchao's prototype on a CPU. (torchao's plain
packing needs the package mslk.) 64 inputs share a scale. torchao silently skips layers whose inputs are not a multiple
of 64, so only layers that were really quantized are counted.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.footprint import Footprint, Part
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.precision._linear_layers import selected
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CONFIGS = {
    "int8_dynamic": "Int8DynamicActivationInt8WeightConfig",
    "int8_weight_only": "Int8WeightOnlyConfig",
    "fp8_dynamic": "Float8DynamicActivationFloat8WeightConfig",
    "fp8_weight_only": "Float8WeightOnlyConfig",
    "int4_weight_only": "Int4WeightOnlyConfig",
}
BITS = {name: 4 if name == "int4_weight_only" else 8 for name in CONFIGS}
GROUP = 64  # inputs that share a scale in int4
CPU_OUTPUTS = 16  # the CPU's int4 kernel computes this many outputs at a time


def why_not(value: Value, target: Target) -> str | None:
    device = target.device
    if not target.pipeline.known.linear_shapes and value != "none":
        return f"{target.pipeline.known.denoiser_class} has no linear layers"
    if value == "fp8_dynamic" and not device.at_least(8, 9):
        return device.capability_fault(8, 9)
    if value == "int8_dynamic" and device.kind == "cuda" and not device.at_least(7, 5):
        return device.capability_fault(7, 5)
    if value == "int4_weight_only" and device.kind == "cuda" and not device.at_least(8):
        return device.capability_fault(8)
    fits = any(_fits(str(value), shape, device.kind) for shape in target.pipeline.known.linear_shapes)
    if value == "int4_weight_only" and not fits:
        return (
            f"no linear layer of {target.pipeline.known.denoiser_class} has a multiple of {GROUP} inputs, as int4 needs"
        )
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["quantization"] == "int4_weight_only" and target.device.kind == "cuda" and config["dtype"] != "bf16":
        return "the int4 kernel supports bfloat16 only"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch
    from torchao import quantization

    denoiser = parts.denoiser(pipe)
    value, layers, kind = str(config["quantization"]), str(config["quantization_filter"]), device.partition(":")[0]
    chosen: dict[str, Any] = {}
    for name, module in denoiser.named_modules():
        if isinstance(module, torch.nn.Linear):
            shape = (module.in_features, module.out_features)
            if selected(layers, shape) and _fits(value, shape, kind):
                chosen[name] = module
    total = sum(p.numel() for p in denoiser.parameters())
    # int4 weights are packed on the GPU, others where the weights are.
    where = device if value == "int4_weight_only" and kind == "cuda" else None
    quantization.quantize_(denoiser, _how(value, kind), filter_fn=lambda module, name: name in chosen, device=where)
    done = [module for module in chosen.values() if type(module.weight.data).__module__.startswith("torchao")]
    part = sum(module.weight.numel() for module in done)
    return Effect(count=len(done), what=f"linear layers quantized, {part / total:.0%} of the denoiser's weights")


def _fits(value: str, shape: tuple[int, int], kind: str) -> bool:
    """Does a layer of this (in, out) shape fit the int4 kernel of this kind of device? Other values fit any layer."""
    if value != "int4_weight_only":
        return True
    return shape[0] % GROUP == 0 and (kind != "cpu" or shape[1] % CPU_OUTPUTS == 0)


def _how(value: str, kind: str) -> Any:
    """torchao's config for this value.

    set_inductor_config=False: otherwise torchao changes Inductor's settings for the whole process.
    """
    from torchao import quantization

    if value != "int4_weight_only":
        return getattr(quantization, CONFIGS[value])(set_inductor_config=False)
    if kind == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
    packed = {"group_size": GROUP, "int4_packing_format": "tile_packed_to_4d"}
    return quantization.Int4WeightOnlyConfig(**packed, set_inductor_config=False)


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    value, layers, kind = str(config["quantization"]), str(config.get("quantization_filter")), target.device.kind
    if value == "none":
        return footprint

    def quantized(part: Part) -> Part:
        fits = [s for s in part.component.linear if selected(layers, s[:2]) and _fits(value, s[:2], kind)]
        smaller = part.stored_smaller(sum(wide * high * count for wide, high, count in fits), BITS[value])
        scales = sum(
            high * count * (2 * wide / GROUP if value == "int4_weight_only" else 1) for wide, high, count in fits
        )
        return replace(smaller, bytes=smaller.bytes + int(scales * part.weight_bytes))

    return footprint.of_denoiser(quantized, target.pipeline.known.denoiser)


def undone_by(value: Value, change: Change) -> str | None:
    if change == "ip_adapter":
        return "has packed weights, and an IP-Adapter casts all weights of the denoiser"
    return "has packed weights, which only torchao can read" if change == "save" else None


def script(config: Config, target: Target) -> Script:
    from autotune.knobs.precision._linear_layers import SDXL_LEFT_OUT

    value, kind = str(config["quantization"]), target.device.kind
    denoiser, layers = f"pipe.{target.pipeline.known.denoiser}", str(config["quantization_filter"])
    if value == "int4_weight_only" and kind == "cpu":
        return Script(why_not="int4 on a CPU is a prototype of torchao, whose module may move in any version")
    limits = 'group_size=64, int4_packing_format="tile_packed_to_4d", ' if value == "int4_weight_only" else ""
    made = f"{CONFIGS[value]}({limits}set_inductor_config=False)"
    wanted = ["isinstance(module, torch.nn.Linear)"]
    if value == "int4_weight_only":
        wanted.append(f"module.in_features % {GROUP} == 0")
    if layers.startswith("min_features:"):
        wanted.append(f"min(module.in_features, module.out_features) >= {layers.partition(':')[2]}")
    before: tuple[str, ...] = ()
    if layers == "sdxl":
        before = (f"left_out = {sorted(SDXL_LEFT_OUT)}  # (inputs, outputs): too small to gain by it",)
        wanted += ["module.in_features > 16", "(module.in_features, module.out_features) not in left_out"]
    where = ', device="cuda"' if value == "int4_weight_only" else ""
    lines = (
        *before,
        "def is_quantized(module, name):",
        f"    return {' and '.join(wanted)}",
        "",
        f"quantize_({denoiser}, {made}, filter_fn=is_quantized{where})",
    )
    return Script(imports=(f"from torchao.quantization import {CONFIGS[value]}, quantize_",), lines=lines)


KNOB = Knob(
    name="quantization",
    stage=Stage.QUANTIZE,
    values=("none", *CONFIGS),
    changes_output=True,
    rounds=True,
    nearest={
        "fp8_dynamic": ("fp8_weight_only", "int8_weight_only"),
        "fp8_weight_only": ("int8_weight_only",),
        "int8_dynamic": ("int8_weight_only",),
        "int4_weight_only": ("int8_weight_only",),
    },
    summary="linear layers of the denoiser in 8 or 4 bits",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
