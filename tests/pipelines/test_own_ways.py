"""Own ways: what single classes do otherwise, and how a pipe is asked for it: frames, guidance, pictures, parts."""

import copy
import functools
import types
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_videos import PARTS

from autotune.errors import UserError
from autotune.pipelines import call, inputs, parts
from autotune.pipelines.classes import names_class
from autotune.pipelines.inspect import _frames_multiple
from autotune.pipelines.random_weights import component
from autotune.pipelines.rehearsal.rehearse import _quiet, missing_package
from autotune.pipelines.rehearsal.watch import anew
from autotune.workload import Workload

WORKLOAD = Workload(prompts=("a", "b"), width=32, height=32, steps=2, guidance_scale=3.0)


@pytest.mark.parametrize(("vae", "multiple"), [("AutoencoderKLCogVideoX", 8), ("AutoencoderKLHunyuanVideo", 4)])
def test_the_vae_is_asked_how_many_frames_a_clip_has(vae: str, multiple: int) -> None:
    """Two latent frames of CogVideoX are 8 frames, three are 9: 5 can't be made, which is said before a search."""
    pipe: Any = types.SimpleNamespace(vae=PARTS[vae]().to("meta"), vae_scale_factor_temporal=4)
    assert _frames_multiple(pipe) == multiple


@pytest.mark.parametrize(
    "name", ["vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor"]
)
def test_the_frames_of_a_latent_frame_have_names_in_another_order(name: str) -> None:
    pipe: Any = types.SimpleNamespace(**{name: 6}, vae=object(), vae_spatial_scale_factor=16)
    assert (parts.cell_frames(pipe), parts.cell_px(pipe)) == (6, 16)


@pytest.mark.parametrize(
    ("spec", "yes"),
    [(["diffusers", "AutoencoderKL"], True), ([None, None], True), ([1, 2], False), ([2, 5, 8], False), ("x", False)],
)
def test_an_index_may_have_lists_that_are_settings(spec: object, yes: bool) -> None:
    assert names_class(spec) is yes


def test_one_scale_takes_the_place_of_a_schedule_of_scales() -> None:
    taken = ("guidance_scale", "guidance_schedule")
    assert call.guidance_of(WORKLOAD, "guidance_scale", taken) == {"guidance_scale": 3.0, "guidance_schedule": None}
    assert call.guidance_of(WORKLOAD, "guidance_scale", taken[:1]) == {"guidance_scale": 3.0}
    own = WORKLOAD.model_copy(update={"call": {"guidance_schedule": [7.0, 3.0]}})
    assert call.guidance_of(own, "guidance_scale", taken) == {}


def test_a_schedules_first_scale_is_the_default() -> None:
    pipe = object.__new__(diffusers.Ideogram4Pipeline)
    assert call.default_guidance(pipe) == 7.0
    assert call.default_guidance(object.__new__(diffusers.StableDiffusionPipeline)) == 7.5


def test_a_call_of_one_prompt_gets_one_picture_and_of_two_a_list() -> None:
    """WanImageToVideo refuses a list."""
    pipe = diffusers.WanImageToVideoPipeline.__new__(diffusers.WanImageToVideoPipeline)
    object.__setattr__(pipe, "_internal_dict", {})
    parts_of: Any = types.SimpleNamespace(text_encoder=None)
    made = [_pictures(pipe, parts_of, count) for count in (1, 2)]
    assert made[0].size == (32, 32)
    assert [picture.size for picture in made[1]] == [(32, 32)] * 2


def _pictures(pipe: Any, parts_of: Any, count: int) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "picture_arguments", lambda _: {"image": "photo"})
        patch.setattr(inputs, "reads_no_prompt", lambda _: False)
        return inputs.call_arguments(pipe, WORKLOAD, list("ab"[:count]), list(range(count)))["image"]


def test_a_copy_of_a_scheduler_steps_by_itself() -> None:
    """SkyReels-V2 copies its scheduler for each latent frame. A watched step of the first must not be the copy's."""
    scheduler, seen = diffusers.FlowMatchEulerDiscreteScheduler(), list[Any]()

    def watch(step: Any) -> Any:
        @functools.wraps(step)
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(self)
            return step(self, *args, **kwargs)

        return watched

    scheduler.step = parts.rebound(scheduler, "step", watch)
    copied = copy.deepcopy(scheduler)
    copied.set_timesteps(2)
    copied.step(torch.zeros(1), copied.timesteps[0], torch.zeros(1))
    assert seen == [copied]
    assert copied.step_index == 1
    assert scheduler.step_index is None


def test_a_rehearsed_call_may_ask_for_autocast_of_its_weights_device() -> None:
    before = torch.autocast
    with _quiet(), torch.autocast("meta", torch.float32):
        pass
    assert torch.autocast is before


def test_an_output_whose_keys_are_numbers_is_madeanew() -> None:
    """Z-Image's ControlNet gives a dict of layers."""
    assert list(anew({0: torch.ones(1), 3: torch.ones(2)})) == [0, 3]


def test_a_call_that_lacks_a_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers imports ftfy where it is installed, and calls of PRX and Wan use it without a look."""
    missing = NameError("name 'ftfy' is not defined", name="ftfy")
    assert missing_package(missing) is None
    monkeypatch.setattr("diffusers.utils.import_utils.is_ftfy_available", lambda: False)
    assert missing_package(missing) == "ftfy"
    assert missing_package(NameError("name 'x' is not defined", name="x")) is None
    assert missing_package(ValueError("ftfy")) is None


def test_a_processor_that_lacks_a_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(folder: Path) -> None:
        raise ImportError("\nQwen2VLVideoProcessor requires the Torchvision library but it was not found.\nSee")

    monkeypatch.setattr(diffusers.DDIMScheduler, "from_pretrained", lacking)
    with pytest.raises(UserError) as told:
        component(tmp_path / "processor", ["diffusers", "DDIMScheduler"], torch.float32, "meta")
    assert str(told.value) == (
        "the pipeline's processor (DDIMScheduler) lacks a package: "
        "Qwen2VLVideoProcessor requires the Torchvision library but it was not found."
    )
