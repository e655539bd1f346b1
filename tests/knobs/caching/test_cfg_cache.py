"""cfg_cache: skipped steps run on the half with the prompt, and the other half is what FasterCache predicts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_target
from diffusers.hooks.faster_cache import _split_low_high_freq
from tiny_pipes import draw, tiny_pipe

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.knobs.caching._cfg_cache import stronger

KNOB, VALUE = find_knob("cache"), "cfg_cache:3"
CONFIG = complete({"cache": VALUE})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in diffusers
@pytest.mark.parametrize("timestep", [950.0, 500.0, 200.0, 50.0])
@pytest.mark.parametrize("sides", [(16, 24), (15, 9)])
def test_the_prediction_is_that_of_diffusers(timestep: float, sides: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(0)
    without, with_prompt, later = (torch.randn(2, 4, *sides, generator=draws) for _ in range(3))
    ours = later + torch.fft.ifft2(stronger(torch.fft.fft2(without - with_prompt), timestep)).real
    low, high = (a - b for a, b in zip(*map(_split_low_high_freq, (without, with_prompt)), strict=True))
    low, high = low * (1.1 if 99 < timestep < 901 else 1.0), high * (1.1 if timestep < 301 else 1.0)
    parts = [kept + now for kept, now in zip((low, high), _split_low_high_freq(later), strict=True)]
    theirs = torch.fft.ifft2(torch.fft.ifftshift(sum(parts))).real
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("family", "denoiser"), [("StableDiffusionXLPipeline", "unet"), ("StableDiffusion3Pipeline", "transformer")]
)
def test_a_skipped_step_runs_on_half_of_the_batch(family: str, denoiser: str, batch: int, root: Path) -> None:
    pipe, _ = tiny_pipe(family, root, cache=VALUE)
    seen: list[int] = []
    getattr(pipe, denoiser).register_forward_pre_hook(
        lambda _, args, named: seen.append(len(args[0] if args else named["hidden_states"])), with_kwargs=True
    )
    first = draw(pipe, family, batch=batch, num_inference_steps=9)
    [skipped] = getattr(pipe, denoiser).cached_calls
    assert seen == [batch if number else 2 * batch for number in skipped]
    assert sum(skipped) >= 2
    draw(pipe, family, num_inference_steps=4)  # leaves nothing behind
    assert np.array_equal(draw(pipe, family, batch=batch, num_inference_steps=9), first)
    plain = draw(tiny_pipe(family, root)[0], family, batch=batch, num_inference_steps=9)
    assert 0 < np.abs(first - plain).mean() < 0.1


def test_a_call_without_guidance_is_as_without_it_and_shows_no_effect(root: Path) -> None:
    family = "StableDiffusionXLPipeline"
    pipe, _ = tiny_pipe(family, root, cache=VALUE)
    plain: Any = draw(tiny_pipe(family, root)[0], family, num_inference_steps=6, guidance_scale=1.0)
    assert np.array_equal(draw(pipe, family, num_inference_steps=6, guidance_scale=1.0), plain)
    with pytest.raises(NoEffect, match="cache=cfg_cache:3 had no effect here"):
        build.verify(pipe, CONFIG, None)


def test_where_it_is_not_possible() -> None:
    target = make_target(guidance_doubles=True)
    assert KNOB.why_not(VALUE, target) is None
    assert "not seen to guide by a batch of double size" in str(KNOB.why_not(VALUE, make_target()))
    assert "never runs its denoiser without" in str(KNOB.why_not(VALUE, make_target(guided_above=None)))
    unguided = target.model_copy(update={"workload": target.workload.model_copy(update={"guidance_scale": 1.0})})
    assert KNOB.why_not(VALUE, unguided) == "the workload is not guided: its guidance scale is 1"
    assert "a cache keeps outputs of a guided batch" in str(KNOB.clash(CONFIG.replace(guidance_cutoff=0.6), target))
    assert KNOB.clash(CONFIG.replace(compile="regional"), target) is None
