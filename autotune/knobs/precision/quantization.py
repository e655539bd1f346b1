"""quantization: the denoiser's linear layers in 8 or 4 bits, by torchao. `quantization_filter` selects the layers.

Dynamic int8 and fp8 quantize activations during the call and compute in 8 bits; they are faster only when compiled.
fp8 scales each tensor as a whole, or each of its rows ("fp8_dynamic_row"), which loses less. torch's int8 product on a
GPU needs more than 16 rows: layers that see fewer in a call, as embeddings of the timestep do, are left out. So are
layers whose weights the model reads without calling the layer.

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
from autotune.pipelines.running import traits_for, workload_for
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CONFIGS = {
    "int8_dynamic": "Int8DynamicActivationInt8WeightConfig",
    "int8_weight_only": "Int8WeightOnlyConfig",
    "fp8_dynamic": "Float8DynamicActivationFloat8WeightConfig",
    "fp8_dynamic_row": "Float8DynamicActivationFloat8WeightConfig",
    "fp8_weight_only": "Float8WeightOnlyConfig",
    "int4_weight_only": "Int4WeightOnlyConfig",
}
BITS = {name: 4 if name == "int4_weight_only" else 8 for name in CONFIGS}
INT_MM_ROWS = 16  # torch._int_mm needs more than these
GROUP = 64  # inputs that share a scale in int4
SCALE_BYTES = 5  # of each output in 8 bits: a scale in float32, and for int8 a zero point
CPU_OUTPUTS = 16  # the CPU's int4 kernel computes this many outputs at a time


def why_not(value: Value, target: Target) -> str | None:
    if value != "none" and target.lacks("torchao"):
        return target.lacks("torchao")
    device = target.device
    own = {name: target.pipeline.known.quantized.get(name) for name in target.pipeline.known.denoisers}
    name = next((name for name, how in own.items() if how is not None), None)
    if name is not None and value != "none":
        return f"the checkpoint's {name} is quantized already ({own[name]})"
    if not target.pipeline.known.linear_shapes and value != "none":
        return f"{target.pipeline.known.denoiser_class} has no linear layers"
    if value in ("fp8_dynamic", "fp8_dynamic_row") and not device.at_least(8, 9):
        return device.capability_fault(8, 9)
    if value == "int8_dynamic" and device.is_nvidia and not device.at_least(7, 5):
        return device.capability_fault(7, 5)
    if value == "int4_weight_only" and device.is_nvidia and not device.at_least(8):
        return device.capability_fault(8)
    fits = any(_fits(str(value), shape, device.kind) for shape in target.pipeline.known.linear_shapes)
    if value == "int4_weight_only" and not fits:
        return (
            f"no linear layer of {target.pipeline.known.denoiser_class} has a multiple of {GROUP} inputs, as int4 needs"
        )
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["quantization"] == "int4_weight_only" and target.device.is_nvidia and config["dtype"] != "bf16":
        return "the int4 kernel supports bfloat16 only"
    if config["quantization"] == "int4_weight_only" and config["offload"] == "group":
        return "group offloading pins the weights in memory, which int4 weights do not support"
    if config["quantization"] == "int8_weight_only" and config["dtype"] == "fp16":
        return "int8_weight_only multiplies before it scales, which overflows in float16"
    if config["quantization"] == "fp8_dynamic_row" and config["dtype"] != "bf16":
        return "fp8 with a scale for each row supports bfloat16 only"
    if config["quantization"] == "int8_dynamic" and config["compile"] == "off" and target.device.is_gpu:
        return "uncompiled, int8_dynamic waits for the GPU in each layer and falls back to float32"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch
    from torchao import quantization

    value, layers, kind = str(config["quantization"]), str(config["quantization_filter"]), device.partition(":")[0]
    left_out, why = _left_out(pipe, value, kind)
    chosen: set[torch.nn.Module] = set()
    denoisers = parts.denoisers(pipe).values()
    for name, module in (named for denoiser in denoisers for named in denoiser.named_modules()):
        if isinstance(module, torch.nn.Linear) and name not in left_out:
            shape = (module.in_features, module.out_features)
            if selected(layers, shape) and _fits(value, shape, kind):
                chosen.add(module)
    total = sum(p.numel() for denoiser in denoisers for p in denoiser.parameters())
    # On the GPU, one layer after another: a processor takes minutes for a large model. With an offload its weights stay
    # where they are, except that int4 weights can only be packed on the GPU.
    on_gpu = kind == "cuda" and (value == "int4_weight_only" or config["offload"] in ("none", "text_encoders"))
    where = device if on_gpu else None
    for denoiser in denoisers:
        quantization.quantize_(denoiser, _how(value, kind), filter_fn=lambda module, _: module in chosen, device=where)
    done = [module for module in chosen if type(module.weight.data).__module__.startswith("torchao")]
    part = sum(module.weight.numel() for module in done)
    return Effect(count=len(done), what=f"linear layers quantized, {part / total:.0%} of the denoiser's weights{why}")


def _left_out(pipe: "DiffusionPipeline", value: str, kind: str) -> tuple[set[str], str]:
    """The names of the denoiser's layers that can't be quantized whatever the filter, and the reason."""
    from autotune.pipelines.rehearsal.watch import rehearse

    traits, workload = traits_for(pipe), workload_for(pipe)
    direct = set() if traits is None else set(traits.used_directly)
    if value != "int8_dynamic" or kind == "cpu" or workload is None:
        return direct, f", {len(direct)} used directly" if direct else ""
    smallest = min(workload.shapes, key=lambda shape: shape.width * shape.height * shape.batch)
    short = workload.model_copy(update={"prompts": ("a",) * smallest.batch}).at(smallest)
    seen = rehearse(pipe, short, until="denoised")
    if seen.fault:
        return direct, f", rows not known ({seen.fault})"
    few = {name for name, rows in seen.rows.items() if rows <= INT_MM_ROWS}
    return direct | seen.used_directly | few, f", without {len(few)} of at most {INT_MM_ROWS} rows"


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
        rows = {"granularity": quantization.PerRow()} if value == "fp8_dynamic_row" else {}
        return getattr(quantization, CONFIGS[value])(**rows, set_inductor_config=False)
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
        grouped = value == "int4_weight_only"
        scales = sum(high * count * (2 * wide // GROUP if grouped else 1) for wide, high, count in fits)
        return replace(smaller, bytes=smaller.bytes + scales * (part.weight_bytes if grouped else SCALE_BYTES))

    return footprint.of_denoisers(quantized, target.pipeline.known.denoisers)


def undone_by(value: Value, change: Change) -> str | None:
    if change == "ip_adapter":
        return "has packed weights, and an IP-Adapter casts all weights of the denoiser"
    return "has packed weights, which only torchao can read" if change == "save" else None


def script(config: Config, target: Target) -> Script:
    from autotune.knobs.precision._linear_layers import SDXL_LEFT_OUT

    value, kind = str(config["quantization"]), target.device.kind
    layers = str(config["quantization_filter"])
    if value == "int4_weight_only" and kind == "cpu":
        return Script(why_not="int4 on a CPU is a prototype of torchao, whose module may move in any version")
    limits = {
        "int4_weight_only": 'group_size=64, int4_packing_format="tile_packed_to_4d", ',
        "fp8_dynamic_row": "granularity=PerRow(), ",
    }.get(value, "")
    names = f"{CONFIGS[value]}, PerRow, quantize_" if value == "fp8_dynamic_row" else f"{CONFIGS[value]}, quantize_"
    if value == "int8_dynamic" and kind != "cpu":
        return Script(why_not="the layers that see too few rows for int8 are known only when the pipeline was called")
    made = f"{CONFIGS[value]}({limits}set_inductor_config=False)"
    wanted = ["isinstance(module, torch.nn.Linear)"]
    if target.pipeline.known.used_directly:
        wanted.append(f"name not in {sorted(target.pipeline.known.used_directly)}")
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
        *(f"quantize_(pipe.{name}, {made}, filter_fn=is_quantized{where})" for name in target.pipeline.known.denoisers),
    )
    return Script(imports=(f"from torchao.quantization import {names}",), lines=lines)


KNOB = Knob(
    name="quantization",
    stage=Stage.QUANTIZE,
    values=("none", *CONFIGS),
    changes_output=True,
    rounds=True,
    nearest={
        "fp8_dynamic": ("fp8_weight_only", "int8_weight_only"),
        "fp8_dynamic_row": ("fp8_dynamic", "fp8_weight_only", "int8_weight_only"),
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
