"""Quantize the linear layers of the denoiser with torchao. Which of them, `quantization_filter` says.

Dynamic int8 and fp8 quantize activations on the fly and compute in 8 bits; they pay only together with compilation.
Weight-only saves memory and computes as before. Convolutions are left alone.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.knobs._linear_layers import selected
from autotune.pipelines import parts
from autotune.target import Target

CONFIGS = {
    "int8_dynamic": "Int8DynamicActivationInt8WeightConfig",
    "int8_weight_only": "Int8WeightOnlyConfig",
    "fp8_dynamic": "Float8DynamicActivationFloat8WeightConfig",
    "fp8_weight_only": "Float8WeightOnlyConfig",
}


def why_not(value: Value, target: Target) -> str | None:
    device = target.device
    if not target.pipeline.known.linear_shapes and value != "none":
        return f"{target.pipeline.known.denoiser_class} has no linear layers"
    if value == "fp8_dynamic" and device.kind == "cpu":
        return "fp8 arithmetic needs a GPU of compute capability 8.9"
    if value == "fp8_dynamic" and not device.at_least(8, 9):
        have = ".".join(map(str, device.compute_capability or ()))
        return f"fp8 arithmetic needs compute capability 8.9, this is {have}"
    if value == "int8_dynamic" and device.kind == "cuda" and not device.at_least(7, 5):
        return "int8 arithmetic needs compute capability 7.5"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    import torch
    from torchao import quantization

    denoiser = parts.denoiser(pipe)
    layers = str(config["quantization_filter"])
    chosen = [
        (name, module)
        for name, module in denoiser.named_modules()
        if isinstance(module, torch.nn.Linear) and selected(layers, (module.in_features, module.out_features))
    ]
    total = sum(p.numel() for p in denoiser.parameters())
    names = {name for name, _ in chosen}
    # Without set_inductor_config=False torchao changes Inductor's settings for the whole process, for good.
    how = getattr(quantization, CONFIGS[str(config["quantization"])])(set_inductor_config=False)
    quantization.quantize_(denoiser, how, filter_fn=lambda module, name: name in names)
    done = [module for _, module in chosen if type(module.weight.data).__module__.startswith("torchao")]
    part = sum(module.weight.numel() for module in done)
    return Effect(count=len(done), what=f"linear layers quantized, {part / total:.0%} of the denoiser's weights")


KNOB = Knob(
    name="quantization",
    stage=Stage.QUANTIZE,
    values=("none", *CONFIGS),
    changes_output=True,
    summary="8-bit linear layers of the denoiser",
    why_not=why_not,
    apply=apply,
)
