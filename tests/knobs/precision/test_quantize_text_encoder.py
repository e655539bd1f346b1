"""quantize_text_encoder: the linear layers of text encoders take 8 bits, and the prompt means nearly the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_target
from tiny_pipes import draw, tiny_pipe

from autotune.footprint import Component
from autotune.knobs import complete, find_knob, footprint

KNOB = find_knob("quantize_text_encoder")
VALUES = ("int8_weight_only", "fp8_weight_only")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.mark.parametrize(
    ("family", "value"), [("FluxPipeline", "int8_weight_only"), ("StableDiffusionXLPipeline", "fp8_weight_only")]
)  # T5 and CLIP, two CLIPs
def test_all_linear_layers_of_both_encoders_are_stored_in_8_bits(family: str, value: str, root: Path) -> None:
    plain = draw(tiny_pipe(family, root, dtype="bf16")[0], family)
    pipe, effects = tiny_pipe(family, root, dtype="bf16", quantize_text_encoder=value)
    encoders = (pipe.text_encoder, pipe.text_encoder_2)
    layers = [m for encoder in encoders for m in encoder.modules() if isinstance(m, torch.nn.Linear)]
    assert effects["quantize_text_encoder"].count == len(layers) > 10
    assert all(type(layer.weight.data).__module__.startswith("torchao") for layer in layers)
    assert 0 < np.abs(draw(pipe, family) - plain).mean() < 0.05
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    assert not [p for p in denoiser.parameters() if type(p.data).__module__.startswith("torchao")]


def test_the_footprint_is_that_of_the_bytes_that_are_stored() -> None:
    layers = ((64, 32, 10),)  # 10 layers of 64 inputs and 32 outputs
    made = [Component(name=n, weights=30_000, largest_layer=2048, linear=layers) for n in ("text_encoder", "unet")]
    target = make_target(components=tuple(made))
    held = footprint(complete({"dtype": "bf16", "quantize_text_encoder": "int8_weight_only"}), target)
    bytes_of = {part.component.name: part.bytes for part in held.parts}
    assert bytes_of["unet"] == 2 * 30_000
    assert bytes_of["text_encoder"] == 2 * 30_000 - 64 * 32 * 10 + 5 * 32 * 10


def test_why_not_and_clash() -> None:
    nothing = make_target(text_encoders=())
    assert KNOB.why_not("int8_weight_only", nothing) == "StableDiffusionPipeline has no text encoder"
    ready = make_target(quantized={"text_encoder": "bitsandbytes"})
    assert KNOB.why_not(VALUES[0], ready) == "the checkpoint's text_encoder is quantized already (bitsandbytes)"
    assert KNOB.why_not("int8_weight_only", make_target()) is None
    said = KNOB.clash(complete({"quantize_text_encoder": "int8_weight_only", "dtype": "fp16"}), make_target())
    assert said == "int8_weight_only multiplies before it scales, which overflows in float16"
    assert KNOB.clash(complete({"quantize_text_encoder": "fp8_weight_only", "dtype": "fp16"}), make_target()) is None
