"""memory_format: convolutions lie channels last, and nothing else changes."""

import torch
from conftest import make_target
from live import built, difference, picture

from autotune.knobs import find_knob


def test_every_convolution_of_denoiser_and_vae_lies_channels_last() -> None:
    pipe, effects = built(memory_format="channels_last")
    weights = [m.weight for part in (pipe.unet, pipe.vae) for m in part.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert effects["memory_format"].count == len(weights)


def test_the_layout_does_not_change_the_picture() -> None:
    assert difference(picture(built()[0]), picture(built(memory_format="channels_last")[0])) < 1e-4


def test_a_denoiser_without_convolutions_refuses() -> None:
    refusal = find_knob("memory_format").why_not("channels_last", make_target(convolutions=0))
    assert refusal == "UNet2DConditionModel has no convolutions"
