"""What the weights take is counted right: against the weights of live pipelines, byte by byte."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import gpu, make_target
from tiny import tiny_checkpoint

from autotune.footprint import Component
from autotune.knobs import complete, footprint
from autotune.pipelines import resolve
from autotune.pipelines.components import components_of
from autotune.pipelines.inspect import traits_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from fit_error import FORMATS, predicted_and_held

FAMILIES = ("PixArtSigmaPipeline", "FluxPipeline")  # buffers in no file; a T5, which float16 keeps a part of in float32


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("tiny")
    made = {family: resolve(str(tiny_checkpoint(family, root / family))) for family in FAMILIES}
    return {"demo": resolve("demo"), **made}


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_the_weights_of_every_format_are_predicted_to_the_byte(pipelines: dict[str, Any], name: str) -> None:
    parts = components_of(pipelines[name])
    outputs = sum(high * count for part in parts if part.cast for _, high, count in part.linear)
    for values in FORMATS:
        predicted, held = predicted_and_held(pipelines[name], parts, values)
        # The scale of an fp8 output is a byte smaller than that of int8, as which it is counted.
        spare = outputs if "fp8" in values.get("quantization", "") else 0
        assert predicted == held + spare, values


def test_random_weights_convert_no_buffer_and_keep_no_part_in_float32(pipelines: dict[str, Any]) -> None:
    flux = pipelines["FluxPipeline"]
    t5 = {part.name: part for part in components_of(flux)}["text_encoder_2"]
    random = {part.name: part for part in components_of(flux.model_copy(update={"weights": "random"}))}
    assert t5.kept_float32["fp16"] > 0 == t5.kept_float32.get("bf16", 0)
    assert random["text_encoder_2"].kept_float32 == {}


def test_the_components_of_sdxl_are_counted_without_its_weights_and_each_has_its_place_in_an_offload() -> None:
    parts = {part.name: part for part in components_of(resolve("sd15-controlnet", "random"))}
    assert {name: part.weights for name, part in parts.items()} == {
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "unet": 859_520_964,
        "controlnet": 361_279_120,
    }
    assert {name for name, part in parts.items() if part.runs_each_step} == {"unet", "controlnet"}
    assert {name: part.offloaded for name, part in parts.items() if part.offloaded != "in turn"} == {
        "controlnet": "at the end"
    }
    assert parts["unet"].stored_format is None


def test_the_traits_that_tell_what_fits_need_no_rehearsed_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def rehearse(*_: Any, **__: Any) -> None:
        raise AssertionError("a call is rehearsed, which takes seconds")

    monkeypatch.setattr("autotune.pipelines.rehearsal.facts.rehearse", rehearse)
    traits = traits_of(resolve("demo"), rehearsed=False)
    assert (traits.denoiser, traits.class_name) == ("unet", "StableDiffusionPipeline")


def test_a_text_encoder_counts_although_its_vocabulary_is_not_there() -> None:
    """The preset's configurations have none: with random weights it is left out, with pretrained ones it is loaded."""
    pretrained = resolve("if-stage3")
    random = pretrained.model_copy(update={"weights": "random"})
    assert "text_encoder" in {part.name for part in components_of(pretrained, random)}


UNET = Component(name="unet", weights=1000, largest_layer=100, linear=((64, 4, 2),), cast=800, runs_each_step=True)
OTHERS = (
    Component(name="text_encoder", weights=1100, largest_layer=500),
    Component(name="controlnet", weights=300, largest_layer=10, runs_each_step=True, offloaded="at the end"),
    Component(name="safety_checker", weights=50, largest_layer=10, offloaded="never"),
)


@pytest.mark.parametrize(
    ("values", "weights", "resident"),
    [
        ({}, 9800, 9800),
        ({"dtype": "bf16"}, 4900, 4900),
        ({"dtype": "bf16", "offload": "model"}, 4900, 2 * (1000 + 300 + 50)),  # the two that run each step, together
        ({"dtype": "bf16", "offload": "sequential"}, 4900, 2 * (500 + 50)),
        ({"dtype": "bf16", "offload": "group"}, 4900, 2 * 2 * 500),  # the layer that runs and the next
        ({"dtype": "bf16", "layerwise_casting": "float8_e4m3fn"}, 4100, 4100),
        ({"dtype": "bf16", "quantization": "int8_weight_only"}, 4900 - 512 + 5 * 8, 4900 - 512 + 5 * 8),
        ({"dtype": "bf16", "quantization": "int4_weight_only"}, 4900 - 768 + 2 * 2 * 8, 4900 - 768 + 2 * 2 * 8),
    ],
)
def test_what_each_setting_makes_of_the_weights(values: dict[str, Any], weights: int, resident: int) -> None:
    target = make_target(gpu(9, 0), components=(UNET, *OTHERS))
    held = footprint(complete(values), target)
    assert (held.weights_bytes, held.resident_bytes) == (weights, resident)


def test_reading_the_components_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """SDXL would take 14 GB."""
    made: list[int] = []
    original = torch.nn.Parameter.__new__

    def watched(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:
        made.append(0 if data is None or data.device.type == "meta" else data.numel())
        return original(cls, data, requires_grad)

    monkeypatch.setattr(torch.nn.Parameter, "__new__", watched)
    assert sum(part.weights for part in components_of(resolve("sdxl", "random"))) == 3_468_837_867
    assert len(made) > 1000
    assert sum(made) == 0
