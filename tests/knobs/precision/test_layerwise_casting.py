"""layerwise_casting: weights lie in 8 bits, before and after a call, and every family still draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_target
from live import built, difference, picture
from tiny_pipes import draw, tiny_pipe

from autotune.knobs import complete, find_knob
from autotune.pipelines import parts

KNOB = find_knob("layerwise_casting")
FAMILIES = {  # -> the least share of weights that must lie in 8 bits: of tiny transformers the embeddings are much
    "StableDiffusionPipeline": 0.99,
    "StableDiffusionControlNetPipeline": 0.99,
    "StableDiffusionXLPipeline": 0.99,
    "IFPipeline": 0.99,
    "FluxPipeline": 0.7,
    "StableDiffusion3Pipeline": 0.6,
    "PixArtSigmaPipeline": 0.6,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def stored(denoiser: torch.nn.Module, dtype: torch.dtype) -> int:
    return sum(p.numel() for p in denoiser.parameters() if p.dtype == dtype)


@pytest.mark.parametrize(("family", "share"), FAMILIES.items())
def test_weights_lie_in_8_bits_before_and_after_a_call(family: str, share: float, root: Path) -> None:
    pipe, effects = tiny_pipe(family, root, dtype="bf16", layerwise_casting="float8_e4m3fn")
    denoiser, effect = parts.denoiser(pipe), effects["layerwise_casting"]
    total = sum(p.numel() for p in denoiser.parameters())
    assert effect.count == stored(denoiser, torch.float8_e4m3fn) > share * total
    assert effect.what == f"weights stored in 8 bits, {effect.count / total:.0%} of the denoiser's"
    first, again = draw(pipe, family), draw(pipe, family)
    assert stored(denoiser, torch.float8_e4m3fn) == effect.count
    assert np.array_equal(first, again)


@pytest.mark.parametrize("value", ["float8_e4m3fn", "float8_e5m2"])
def test_the_picture_is_nearly_the_same(value: str) -> None:
    pipe, _ = built(layerwise_casting=value)
    assert stored(pipe.unet, getattr(torch, value)) > 0
    assert 0 < difference(picture(pipe), picture(built()[0])) < 0.3


def test_it_goes_after_what_changes_the_layers() -> None:
    pipe, effects = built(layerwise_casting="float8_e4m3fn", qkv_fusion=True, conv1x1_as_linear=True, tome_ratio=0.5)
    assert list(effects) == ["dtype", "conv1x1_as_linear", "qkv_fusion", "layerwise_casting", "tome_ratio"]
    reference, _ = built(tome_ratio=0.5)
    assert 0 < difference(picture(pipe), picture(reference)) < 0.3


def test_clash_with_quantized_weights() -> None:
    config = complete({"layerwise_casting": "float8_e5m2", "quantization": "int8_weight_only"})
    said = "layerwise_casting would store quantized weights in 8 bits, which loses precision twice"
    assert KNOB.clash(config, make_target()) == said
    assert KNOB.clash(config.replace(layerwise_casting="none"), make_target()) is None


@pytest.mark.parametrize("compile", ["regional", "denoiser", "denoiser+vae", "everything", "trace"])
def test_clash_with_compiled_graphs(compile: str) -> None:
    said = KNOB.clash(complete({"layerwise_casting": "float8_e4m3fn", "compile": compile}), make_target())
    assert said == "layerwise casting replaces every layer's weights at every call, which breaks compiled graphs"
    assert KNOB.clash(complete({"layerwise_casting": "float8_e4m3fn", "offload": "model"}), make_target()) is None


def test_it_is_not_offered_where_a_rehearsed_call_fails_with_it() -> None:
    target = make_target()
    known = target.pipeline.known.model_copy(update={"casting_fault": "RuntimeError: Expected query"})
    fails = target.model_copy(update={"pipeline": target.pipeline.model_copy(update={"traits": known})})
    knob = find_knob("layerwise_casting")
    assert knob.why_not("float8_e4m3fn", target) is None
    assert "does not work with layers that are cast (RuntimeError" in str(knob.why_not("float8_e4m3fn", fails))
    assert knob.why_not("none", fails) is None
