"""guidance_start: the first steps run on the half of the batch that has the prompt, as a call without guidance does."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from conftest import make_target
from live import WORKLOAD, built, difference, loaded, picture
from tiny_pipes import draw, tiny_pipe, tiny_workload

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.pipelines.rehearsal.facts import begins_with_the_prompt, guidance_doubles
from autotune.pipelines.rehearsal.rehearse import rehearse

KNOB = find_knob("guidance_start")
CONFIG = complete({"guidance_start": 0.4})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def batches(denoiser: Any, seen: list[int]) -> None:
    denoiser.register_forward_pre_hook(
        lambda _, args, named: seen.append(len(args[0] if args else named["hidden_states"])), with_kwargs=True
    )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("family", "denoiser"),
    [
        ("StableDiffusionXLPipeline", "unet"),
        ("StableDiffusion3Pipeline", "transformer"),
        ("StableDiffusionControlNetPipeline", "unet"),
    ],
)
def test_the_batch_of_the_first_steps_is_half_and_doubles_then(
    family: str, denoiser: str, batch: int, root: Path
) -> None:
    pipe, _ = tiny_pipe(
        family, root, own_scheduler=None if denoiser == "transformer" else "DDIMScheduler", guidance_start=0.4
    )
    seen: list[int] = []
    batches(getattr(pipe, denoiser), seen)
    pixels = draw(pipe, family, batch=batch, num_inference_steps=5)
    assert np.isfinite(pixels).all()
    assert seen == [batch] * 2 + [2 * batch] * 3
    assert build.verify(pipe, CONFIG, None)["guidance_start"].count == 2


def test_the_share_is_of_the_steps_that_run_where_a_call_starts_from_a_picture(root: Path) -> None:
    family = "StableDiffusionImg2ImgPipeline"
    pipe, _ = tiny_pipe(family, root, own_scheduler="DDIMScheduler", guidance_start=0.4)
    seen: list[int] = []
    batches(pipe.unet, seen)
    draw(pipe, family, num_inference_steps=10, strength=0.5)
    assert seen == [1] * 2 + [2] * 3


def test_steps_without_guidance_are_those_of_a_call_without_it() -> None:
    late, _ = built(guidance_start=0.9)
    assert (
        difference(
            picture(late, num_inference_steps=1, guidance_scale=4.0),
            picture(built()[0], num_inference_steps=1, guidance_scale=1.0),
        )
        < 1e-5
    )


def test_with_a_cutoff_the_guided_steps_are_an_interval() -> None:
    pipe, _ = built(guidance_start=0.2, guidance_cutoff=0.6)
    seen: list[int] = []
    batches(pipe.unet, seen)
    first = picture(pipe, num_inference_steps=10)
    assert seen == [1] * 2 + [2] * 4 + [1] * 4
    assert difference(first, picture(pipe, num_inference_steps=10)) == 0, "the next call begins anew"
    assert difference(first, picture(built()[0], num_inference_steps=10)) > 0


def test_what_is_compiled_gets_the_half_batch() -> None:
    """The batch is halved outside of it: a graph of each size (seen once with compile=denoiser: two whole graphs)."""
    pipe, seen = loaded(), []

    def compiled(*args: Any, **kwargs: Any) -> Any:
        seen.append(len(args[0]))
        return pipe.unet._call_impl(*args, **kwargs)

    vars(pipe.unet)["_compiled_call_impl"] = compiled
    picture(built(pipe, guidance_start=0.4)[0])
    assert seen == [1, 2, 2]


def test_a_call_without_guidance_is_left_alone_and_has_no_effect() -> None:
    pipe, _ = built(guidance_start=0.4)
    seen: list[int] = []
    batches(pipe.unet, seen)
    picture(pipe, guidance_scale=1.0)
    assert seen == [1, 1, 1]
    with pytest.raises(NoEffect, match=r"guidance_start=0.4 had no effect here: 0 first steps without guidance"):
        build.verify(pipe, CONFIG, None)


def test_the_probe_sees_which_pipelines_double_the_batch(root: Path) -> None:
    found = {}
    for family in ("StableDiffusion3Pipeline", "FluxPipeline"):
        pipe, _ = tiny_pipe(family, root)
        calls = [rehearse(pipe, tiny_workload(family, guidance_scale=s), until="denoised") for s in (5.0, 0.0)]
        found[family] = guidance_doubles(pipe, *calls)
    assert found == {"StableDiffusion3Pipeline": True, "FluxPipeline": False}


def test_pipelines_whose_second_half_has_no_prompt_are_known() -> None:
    found = {
        name: begins_with_the_prompt(getattr(diffusers, name))
        for name in ("LuminaPipeline", "StableCascadeDecoderPipeline", "StableDiffusionXLPipeline", "SanaPipeline")
    }
    assert found == {
        "LuminaPipeline": True,
        "StableCascadeDecoderPipeline": True,
        "StableDiffusionXLPipeline": False,
        "SanaPipeline": False,
    }


def test_where_it_is_not_possible() -> None:
    target = make_target(guidance_doubles=True)
    assert KNOB.why_not(0.1, target) is None
    assert KNOB.why_not(0.01, target) == "is less than one of the 20 steps"
    assert "not seen to guide by a batch of double size" in str(KNOB.why_not(0.1, make_target()))
    assert "never runs its denoiser without" in str(KNOB.why_not(0.1, make_target(guided_above=None)))
    unguided = target.model_copy(update={"workload": target.workload.model_copy(update={"guidance_scale": 1.0})})
    assert KNOB.why_not(0.1, unguided) == "the workload has no guidance that could begin later: its guidance scale is 1"
    assert KNOB.clash(complete({"guidance_start": 0.4, "guidance_cutoff": 0.4}), target) == (
        "no step would be guided: guidance begins at 0.4 of 20 steps, and ends at 0.4"
    )
    assert "a cache keeps outputs" in str(KNOB.clash(complete({"guidance_start": 0.1, "cache": "deepcache:3"}), target))
    assert KNOB.clash(complete({"guidance_start": 0.1, "guidance_cutoff": 0.6}), target) is None
    assert WORKLOAD.steps == 3


def test_shares_that_are_the_same_step_leave_none_guided() -> None:
    target = make_target(guidance_doubles=True)
    close = complete({"guidance_start": 0.39, "guidance_cutoff": 0.4})
    assert "no step would be guided" in str(KNOB.clash(close, target))
    assert "no step would be guided" in str(KNOB.clash(complete({"guidance_start": 0.6, "steps": 1}), target))
    few = complete({"guidance_start": 0.1, "steps": 4})
    assert KNOB.clash(few, target) == "guidance_start=0.1 is less than one of 4 steps"


def test_the_steps_that_run_follow_a_strength_among_the_arguments_of_the_call() -> None:
    """As files of earlier versions have it; the call's own default is another one."""
    target = make_target(guidance_doubles=True, default_strength=0.8, strength_rounds="down")
    workload = target.workload.model_copy(update={"call": {"strength": 0.5}})
    few = complete({"guidance_start": 0.15, "steps": 6})
    assert KNOB.clash(few, target) is None
    said = "guidance_start=0.15 is less than one of 3 steps"
    assert KNOB.clash(few, target.model_copy(update={"workload": workload})) == said
