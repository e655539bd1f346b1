"""conv1x1_as_linear: every 1x1 convolution of the denoiser is a matrix product, quantization sees it, and the picture
stays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_target
from live import built, difference, picture
from tiny_pipes import draw, tiny_pipe, tiny_traits

from autotune.knobs import complete, find_knob

KNOB = find_knob("conv1x1_as_linear")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def shapes_1x1(module: torch.nn.Module) -> set[tuple[int, int]]:
    convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    return {(c.in_channels, c.out_channels) for c in convolutions if c.kernel_size == (1, 1)}


@pytest.mark.parametrize(
    "family",
    [
        "StableDiffusionPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionUpscalePipeline",
        "StableDiffusionXLPipeline",
        "IFPipeline",
    ],
)
def test_all_are_linear_layers_and_the_picture_stays(family: str, root: Path) -> None:
    pipe, effects = tiny_pipe(family, root, conv1x1_as_linear=True)
    assert shapes_1x1(pipe.unet) == set()
    assert effects["conv1x1_as_linear"].count >= len(tiny_traits(family, root).conv1x1_shapes) > 1
    plain = tiny_pipe(family, root)[0]
    assert np.abs(draw(pipe, family) - draw(plain, family)).max() <= 1 / 255


def test_quantization_takes_them_and_fused_projections_too() -> None:
    def quantized(**values: bool) -> tuple[int, str]:
        effect = built(quantization="int8_weight_only", **values)[1]["quantization"]
        return effect.count, effect.what

    count = built(conv1x1_as_linear=True)[1]["conv1x1_as_linear"].count
    assert count > 10
    plain, fused = quantized()[0], quantized(qkv_fusion=True)[0]
    assert quantized(conv1x1_as_linear=True)[0] == plain + count
    assert quantized(conv1x1_as_linear=True, qkv_fusion=True)[0] == fused + count
    assert count < fused < plain, "a fused projection stands for three, or two, which hold no weights any more"


def test_it_goes_with_fused_projections_and_channels_last() -> None:
    pipe, effects = built(conv1x1_as_linear=True, qkv_fusion=True, memory_format="channels_last")
    assert all(effects[name].count > 0 for name in ("conv1x1_as_linear", "qkv_fusion", "memory_format"))
    assert difference(picture(pipe), picture(built()[0])) < 1e-4


def test_a_convolution_that_skips_cells_is_left_alone() -> None:
    """torchao's function drops the stride without a word, and so changes the picture's size."""
    from types import SimpleNamespace

    unet = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1, stride=2), torch.nn.Conv2d(8, 8, 1, groups=2))
    assert KNOB.apply is not None
    effect = KNOB.apply(
        SimpleNamespace(unet=unet, components={"unet": unet}), complete({"conv1x1_as_linear": True}), "cpu"
    )
    assert effect.count == 0
    assert unet(torch.zeros(1, 8, 4, 4)).shape == (1, 8, 2, 2)


@pytest.mark.parametrize("family", ["FluxPipeline", "StableDiffusion3Pipeline", "PixArtSigmaPipeline"])
def test_a_transformer_has_none(family: str, root: Path) -> None:
    traits = tiny_traits(family, root)
    assert KNOB.why_not(True, make_target(**traits.model_dump())) == f"{traits.denoiser_class} has no 1x1 convolutions"
