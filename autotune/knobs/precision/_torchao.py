"""_torchao: linear layers in 8 or 4 bits, by torchao: weights alone, or what a layer is given as well ("dynamic").

Dynamic methods quantize activations during the call and compute in 8 or 4 bits; they are faster only when compiled.
fp8 scales each tensor as a whole, or each of its rows ("fp8_dynamic_row"), which loses less. torch's int8 product on a
GPU needs more than 16 rows: layers that see fewer in a call, as embeddings of the timestep do, are left out.
Weight-only methods save memory and compute as before.

int4 weights are packed for a kernel: "tile_packed_to_4d" on a GPU, torchao's prototype on a CPU. (torchao's plain
packing needs the package mslk.) 64 inputs share a scale.

mxfp8 and nvfp4 are the formats of NVIDIA's Blackwell: 32 or 16 inputs share a scale of 8 bits. torchao has them as a
prototype. Not yet seen on a GPU: mxfp8_dynamic, nvfp4_dynamic.
"""

from collections.abc import Collection
from typing import Any

from autotune.config import Config
from autotune.knobs.precision._methods import Method, Shape
from autotune.target import Target

INT_MM_ROWS = 16  # torch._int_mm needs more than these
GROUP = 64  # inputs that share a scale in int4
CPU_OUTPUTS = 16  # the CPU's int4 kernel computes this many outputs at a time
MX_BLOCK, NVFP4_BLOCK = 32, 16  # inputs that share a scale
MX_FORMATS = "torchao.prototype.mx_formats"
# value -> its class, the module that has it where that is not torchao.quantization, and its arguments as source text
CONFIGS: dict[str, tuple[str, str, str]] = {
    "int8_dynamic": ("Int8DynamicActivationInt8WeightConfig", "", ""),
    "int8_weight_only": ("Int8WeightOnlyConfig", "", ""),
    "fp8_dynamic": ("Float8DynamicActivationFloat8WeightConfig", "", ""),
    "fp8_dynamic_row": ("Float8DynamicActivationFloat8WeightConfig", "", "granularity=PerRow()"),
    "fp8_weight_only": ("Float8WeightOnlyConfig", "", ""),
    "int4_weight_only": (
        "Int4WeightOnlyConfig", "", f'group_size={GROUP}, int4_packing_format="tile_packed_to_4d"'
    ),
    "mxfp8_dynamic": ("MXDynamicActivationMXWeightConfig", MX_FORMATS, ""),
    "nvfp4_dynamic": ("NVFP4DynamicActivationNVFP4WeightConfig", MX_FORMATS, "use_triton_kernel=False"),
}  # fmt: skip


def why_not(target: Target) -> str | None:
    return target.lacks("torchao")


def why_not_int8(target: Target) -> str | None:
    fault = target.device.capability_fault(7, 5) if target.device.is_nvidia else None
    return target.lacks("torchao") or fault


def why_not_int4(target: Target) -> str | None:
    fault = target.device.capability_fault(8) if target.device.is_nvidia else None
    return target.lacks("torchao") or fault


def why_not_fp8(target: Target) -> str | None:
    return target.lacks("torchao") or target.device.capability_fault(8, 9)


def why_not_blackwell(target: Target) -> str | None:
    return target.lacks("torchao") or target.device.capability_fault(10)


def clash_int8(config: Config, target: Target) -> str | None:
    if config["compile"] == "off" and target.device.is_gpu:
        return "uncompiled, int8_dynamic waits for the GPU in each layer and falls back to float32"
    return None


def clash_int8_weights(config: Config, target: Target) -> str | None:
    if config["dtype"] == "fp16":
        return "int8_weight_only multiplies before it scales, which overflows in float16"
    return None


def clash_fp8_row(config: Config, target: Target) -> str | None:
    return "fp8 with a scale for each row supports bfloat16 only" if config["dtype"] != "bf16" else None


def clash_int4(config: Config, target: Target) -> str | None:
    if target.device.is_nvidia and config["dtype"] != "bf16":
        return "the int4 kernel supports bfloat16 only"
    if config["offload"] == "group":
        return "group offloading pins the weights in memory, which int4 weights do not support"
    return None


def clash_blackwell(config: Config, target: Target) -> str | None:
    if config["dtype"] != "bf16":
        return "torchao's kernels for mxfp8 and nvfp4 give bfloat16 only"
    if config["offload"] == "group":
        return "group offloading pins the weights in memory, which mxfp8 and nvfp4 weights do not support"
    return None


def multiples_of_int8(kind: str) -> Shape:
    return (1, 1) if kind == "cpu" else (8, 8)  # others are computed in float32


def multiples_of_fp8(kind: str) -> Shape:
    return (16, 16)


def multiples_of_int4(kind: str) -> Shape:
    return (GROUP, CPU_OUTPUTS if kind == "cpu" else 1)


def multiples_of_mxfp8(kind: str) -> Shape:
    return (MX_BLOCK, 16)


def multiples_of_nvfp4(kind: str) -> Shape:
    return (NVFP4_BLOCK, NVFP4_BLOCK)


def how(value: str, kind: str) -> Any:
    """torchao's config for this value.

    set_inductor_config=False: otherwise torchao changes Inductor's settings for the whole process.
    """
    from importlib import import_module

    from torchao import quantization

    if value == "int4_weight_only" and kind == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
    arguments: dict[str, Any] = {
        "fp8_dynamic_row": {"granularity": quantization.PerRow()},
        "int4_weight_only": {"group_size": GROUP, "int4_packing_format": "tile_packed_to_4d"},
        "nvfp4_dynamic": {"use_triton_kernel": False},  # that kernel needs the package mslk
    }.get(value, {})
    name, module, _ = CONFIGS[value]
    if module:
        return getattr(import_module(module), name)(**arguments)
    return getattr(quantization, name)(**arguments, set_inductor_config=False)


def _of(value: str, **more: Any) -> Method:
    """The method of this value, which differs from others of torchao in `more`."""
    name, module, arguments = CONFIGS[value]

    def quantize(model: Any, names: Collection[str], where: str | None, kind: str) -> set[str]:
        from torchao import quantization

        chosen = set(names)
        quantization.quantize_(model, how(value, kind), filter_fn=lambda _, name: name in chosen, device=where)
        # torchao leaves out what it can't quantize, without a word.
        held = {name: type(model.get_submodule(name).weight.data).__module__ for name in chosen}
        return {name for name, module in held.items() if module.startswith("torchao")}

    def lines(model: str, kind: str) -> tuple[str, ...]:
        given = ", ".join(part for part in (arguments, "" if module else "set_inductor_config=False") if part)
        where = ', device="cuda"' if more.get("on_gpu") else ""
        return (f"quantize_({model}, {name}({given}), filter_fn=is_quantized{where})",)

    found = ["quantize_", *([] if module else [name]), *(["PerRow"] if "PerRow" in arguments else [])]
    names = ", ".join(sorted(found, key=str.lower))
    imports = (*([f"from {module} import {name}"] if module else []), f"from torchao.quantization import {names}")
    of_rows = {"bits": 8, "scale_bytes": lambda wide, high, plain: 5 * high}  # a float32, and for int8 a zero point
    return Method(
        **{"why_not": why_not, **of_rows, **more},
        name=value, package="torchao", quantize=quantize, imports=imports, lines=lines,
    )  # fmt: skip


def rows_of_int8(kind: str) -> int:
    return -1 if kind == "cpu" else INT_MM_ROWS


def no_script_for_int8(kind: str) -> str | None:
    if kind == "cpu":
        return None
    return "the layers that see too few rows for int8 are known only when the pipeline was called"


def no_script_for_int4(kind: str) -> str | None:
    if kind != "cpu":
        return None
    return "int4 on a CPU is a prototype of torchao, whose module may move in any version"


METHODS = (
    _of("int8_dynamic", why_not=why_not_int8, clash=clash_int8, multiples=multiples_of_int8, more_rows=rows_of_int8,
        for_words=False, nearest=("int8_weight_only",), no_script=no_script_for_int8),
    _of("int8_weight_only", clash=clash_int8_weights),
    _of("fp8_dynamic", why_not=why_not_fp8, multiples=multiples_of_fp8, for_words=False,
        nearest=("fp8_weight_only", "int8_weight_only")),
    _of("fp8_dynamic_row", why_not=why_not_fp8, clash=clash_fp8_row, multiples=multiples_of_fp8, for_words=False,
        nearest=("fp8_dynamic", "fp8_weight_only", "int8_weight_only")),
    _of("fp8_weight_only", nearest=("int8_weight_only",)),
    _of("int4_weight_only", bits=4, scale_bytes=lambda wide, high, plain: 2 * wide / GROUP * high * plain,
        why_not=why_not_int4, clash=clash_int4, multiples=multiples_of_int4, on_gpu=True,
        nearest=("bnb_nf4", "int8_weight_only"), no_script=no_script_for_int4),
    _of("mxfp8_dynamic", scale_bytes=lambda wide, high, plain: wide / MX_BLOCK * high, why_not=why_not_blackwell,
        clash=clash_blackwell, multiples=multiples_of_mxfp8, on_gpu=True, for_words=False,
        nearest=("fp8_dynamic_row", "fp8_dynamic", "fp8_weight_only", "int8_weight_only")),
    _of("nvfp4_dynamic", bits=4, scale_bytes=lambda wide, high, plain: wide / NVFP4_BLOCK * high + 4,
        why_not=why_not_blackwell, clash=clash_blackwell, multiples=multiples_of_nvfp4, on_gpu=True,
        for_words=False, nearest=("int4_weight_only", "bnb_nf4", "int8_weight_only")),
)  # fmt: skip
