"""memory_format: convolutions lie channels last, and nothing else changes."""

from types import SimpleNamespace

import torch
from conftest import make_target
from live import built, difference, picture

from autotune.knobs import complete, find_knob


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


def test_a_vae_alone_is_reason_enough() -> None:
    """Flux's transformer has no convolutions, its VAE has."""
    why_not = find_knob("memory_format").why_not
    assert why_not("channels_last", make_target(convolutions=0, vae_convolutions=64)) is None
    assert why_not("channels_last", make_target(convolutions=0, vae_convolutions_3d=30)) is None


def test_convolutions_of_three_dimensions_lie_channels_last_too() -> None:
    """torch refuses channels_last for them."""
    vae, unet = torch.nn.Conv3d(2, 4, 3), torch.nn.Conv2d(2, 4, 3)
    pipe = SimpleNamespace(unet=unet, vae=vae, components={"unet": unet, "vae": vae})
    knob = find_knob("memory_format")
    assert knob.apply is not None
    assert knob.apply(pipe, complete({"memory_format": "channels_last"}), "cpu").count == 2
    assert vae.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert unet.weight.is_contiguous(memory_format=torch.channels_last)
    assert knob.script is not None
    lines = knob.script(complete({"memory_format": "channels_last"}), make_target(vae_convolutions_3d=1)).lines
    vae.weight.data = vae.weight.data.contiguous()
    exec("\n".join(lines), {"pipe": pipe, "torch": torch})
    assert vae.weight.is_contiguous(memory_format=torch.channels_last_3d)
