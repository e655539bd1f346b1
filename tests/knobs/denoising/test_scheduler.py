"""scheduler: the steps are the other scheduler's, and lead to the same picture where there are many of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_target
from tiny_pipes import draw, tiny_pipe, tiny_pipeline, tiny_traits

from autotune.knobs import find_knob
from autotune.knobs.denoising._schedulers import CLASSES
from autotune.target import Target

KNOB = find_knob("scheduler")
LATENTS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "PixArtSigmaPipeline")
PIXELS = ("IFPipeline", "IFSuperResolutionPipeline")
FROM_PICTURES = (
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionUpscalePipeline",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def target_of(family: str, root: Path) -> Target:
    target = make_target()
    pipeline = tiny_pipeline(family, root).model_copy(update={"traits": tiny_traits(family, root)})
    return target.model_copy(update={"pipeline": pipeline})


def offered(family: str, root: Path) -> list[Any]:
    return [value for value in KNOB.values if not KNOB.why_not(value, target_of(family, root))]


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("family", LATENTS)
def test_many_steps_of_any_scheduler_lead_to_the_same_picture(family: str, root: Path) -> None:
    """They solve the same equation. DDIM clips what it predicts unless it is told that these are latents."""
    pictures = {}
    for value in offered(family, root):
        pipe, effects = tiny_pipe(family, root, scheduler=value)
        pictures[value] = draw(pipe, family, num_inference_steps=40)
        assert value == "own" or effects["scheduler"].count == 1
        assert value == "own" or type(pipe.scheduler).__name__ == CLASSES[value]
    assert len(pictures) >= 4
    for value, picture in pictures.items():
        assert mean_difference(picture, pictures["own"]) < 0.02, value


@pytest.mark.parametrize("family", ["FluxPipeline", "StableDiffusion3Pipeline"])
def test_flow_matching_goes_with_schedulers_that_know_its_straight_paths(family: str, root: Path) -> None:
    values = offered(family, root)
    assert values == (["own", "unipc"] if family == "FluxPipeline" else ["own", "dpm++_2m", "unipc"])
    own = draw(tiny_pipe(family, root)[0], family, num_inference_steps=20)
    for value in values[1:]:
        other = draw(tiny_pipe(family, root, scheduler=value)[0], family, num_inference_steps=20)
        assert 0 < mean_difference(own, other) < 0.01


@pytest.mark.parametrize("family", PIXELS)
def test_a_learned_variance_is_cut_off_and_pixels_stay_in_range(family: str, root: Path) -> None:
    """DDPM draws noise at each step, so the others are compared with each other."""
    assert offered(family, root) == ["own", "dpm++_2m", "unipc"]
    pictures = []
    for value in ("dpm++_2m", "unipc"):
        pipe, _ = tiny_pipe(family, root, scheduler=value)
        pictures.append(draw(pipe, family, num_inference_steps=20))
    assert mean_difference(*pictures) < 0.02


@pytest.mark.parametrize("family", FROM_PICTURES)
def test_every_scheduler_that_is_offered_draws_from_pictures_too(family: str, root: Path) -> None:
    own = draw(tiny_pipe(family, root)[0], family, num_inference_steps=20)
    values = offered(family, root)[1:]
    assert values
    for value in values:
        other = draw(tiny_pipe(family, root, scheduler=value)[0], family, num_inference_steps=20)
        assert 0 < mean_difference(own, other) < 0.04, value


@pytest.mark.parametrize(
    ("family", "second"),
    [
        ("IFSuperResolutionPipeline", "image_noising_scheduler"),
        ("StableDiffusionUpscalePipeline", "low_res_scheduler"),
    ],
)
def test_a_second_scheduler_stays_as_it_is(family: str, second: str, root: Path) -> None:
    pipe, _ = tiny_pipe(family, root, scheduler="dpm++_2m")
    assert type(getattr(pipe, second)).__name__ == "DDPMScheduler"
    assert type(pipe.scheduler).__name__ == "DPMSolverMultistepScheduler"


def test_thresholding_is_taken_over(root: Path) -> None:
    pipe, _ = tiny_pipe("IFPipeline", root, scheduler="unipc")
    assert pipe.scheduler.config.thresholding
    assert pipe.scheduler.config.sample_max_value == 1.5


def test_the_noise_levels_are_the_pipelines_own(root: Path) -> None:
    for value in ("own", *CLASSES):
        pipe, _ = tiny_pipe("StableDiffusionPipeline", root, scheduler=value)
        levels = pipe.scheduler.config
        assert (levels.beta_start, levels.beta_end, levels.beta_schedule) == (0.00085, 0.012, "scaled_linear")


def test_the_own_one_by_its_name_is_refused() -> None:
    target = make_target(scheduler_class="DDIMScheduler", compatible_schedulers=tuple(CLASSES.values()))
    assert KNOB.why_not("ddim", target) == "is the pipeline's own scheduler"
    assert KNOB.why_not("euler", target) is None
    named = target.model_copy(update={"pipeline": target.pipeline.model_copy(update={"scheduler": CLASSES["euler"]})})
    assert KNOB.why_not("euler", named) == "is the pipeline's own scheduler"
    assert KNOB.why_not("ddim", named) is None


def test_strangers_are_refused() -> None:
    target = make_target(scheduler_class="CogVideoXDPMScheduler", compatible_schedulers=("DDIMScheduler",))
    assert KNOB.why_not("ddim", target) is None
    said = KNOB.why_not("euler", target)
    assert said == "EulerDiscreteScheduler is not among the schedulers compatible with StableDiffusionPipeline"


def test_pixels_need_a_scheduler_that_thresholds() -> None:
    target = make_target(scheduler_class="DDPMScheduler", compatible_schedulers=tuple(CLASSES.values()), vae_class=None)
    for value in ("ddim", "euler"):
        assert "does not keep pixels in their range" in str(KNOB.why_not(value, target))
