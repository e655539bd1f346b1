"""Strength: a call that starts from a picture runs as many steps as is said; one without a step is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TRAITS, make_target
from diffusers import DDIMScheduler, FluxImg2ImgPipeline
from tiny import DDIM
from tiny_pipes import tiny_pipe

from autotune.errors import UserError
from autotune.execution.probe import _check_strength
from autotune.knobs import complete, find_knob
from autotune.pipeline import Traits
from autotune.pipelines.call import workload_values
from autotune.pipelines.inputs import call_arguments
from autotune.pipelines.rehearsal.strength import strength_of
from autotune.target import Target
from autotune.workload import Prompts, Workload, request_workload


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strength")


def pipe_of(name: str, root: Path) -> Any:
    flux = name == "FluxImg2ImgPipeline"
    pipe: Any = tiny_pipe("FluxPipeline" if flux else name, root)[0]
    if flux:
        pipe = FluxImg2ImgPipeline(
            **{part: value for part, value in pipe.components.items() if part != "image_encoder"}
        )
    elif "XL" not in name:
        pipe.scheduler = DDIMScheduler(**DDIM)  # PNDM, the checkpoint's own, repeats a step
    pipe.set_progress_bar_config(disable=True)
    return pipe


def steps_drawn(pipe: Any, steps: int, strength: float | None) -> int:
    seen: list[int] = []
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    hook = denoiser.register_forward_hook(lambda *_: seen.append(1))
    scale = 0.0 if hasattr(pipe, "unet") else 1.0  # without guidance the denoiser runs once a step
    workload = Workload(prompts=("a",), width=32, height=32, steps=steps, guidance_scale=scale, strength=strength)
    try:
        with torch.no_grad():
            pipe(**call_arguments(pipe, workload, ["a"], [0]) | workload_values(pipe, workload))
    finally:
        hook.remove()
    return len(seen)


@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        ("StableDiffusionImg2ImgPipeline", "down"),
        ("StableDiffusionXLInpaintPipeline", "down"),  # whose default, 0.9999, leaves out a step
        ("FluxImg2ImgPipeline", "up"),
    ],
)
def test_as_many_steps_run_as_is_said_and_asking_changes_nothing(name: str, rounds: str, root: Path) -> None:
    pipe = pipe_of(name, root)
    scheduler, before = pipe.scheduler, repr(vars(pipe.scheduler))
    found = strength_of(pipe)
    assert (pipe.scheduler, repr(vars(scheduler))) == (scheduler, before)
    assert found["strength_rounds"] == rounds
    traits = TRAITS.model_copy(update=found)
    for steps, strength in ((3, None), (3, 0.4)):
        assert steps_drawn(pipe, steps, strength) == traits.steps_that_run(steps, strength), (steps, strength)


def test_a_pipe_that_takes_no_strength_is_not_asked() -> None:
    class Pipe:
        def __call__(self, prompt: str) -> None: ...

    assert strength_of(Pipe()) == {}  # type: ignore[arg-type]


def image_to_image(steps: int, strength: float | None = None, rounds: str | None = "down") -> Target:
    target = make_target()
    known = TRAITS.model_copy(update={"default_strength": 0.8, "strength_rounds": rounds})
    workload = target.workload.model_copy(update={"steps": steps, "strength": strength})
    pipeline = target.pipeline.model_copy(update={"traits": known})
    return target.model_copy(update={"workload": workload, "pipeline": pipeline})


def test_the_steps_that_run_are_said_where_they_are_others() -> None:
    assert "8 steps of which 6 run, " in image_to_image(8).calls
    assert "8 steps at strength 0.5 of which 4 run, " in image_to_image(8, 0.5).calls
    assert "8 steps at strength 1, " in image_to_image(8, 1.0).calls
    assert "8 steps, " in image_to_image(8, rounds=None).calls


def test_a_strength_that_leaves_no_step_is_one_sentence() -> None:
    target = image_to_image(1)
    with pytest.raises(UserError) as caught:
        _check_strength(target.pipeline.known, target.workload)
    assert str(caught.value) == (
        "--steps 1 at strength 0.8 is no step: StableDiffusionPipeline rounds 0.8 down to 0. Give more steps, or "
        "--strength 1."
    )
    _check_strength(image_to_image(1, rounds="up").pipeline.known, target.workload)
    with pytest.raises(UserError, match=r"--strength 0\.5: the call of StableDiffusionPipeline takes no strength"):
        _check_strength(TRAITS, image_to_image(8, 0.5).workload)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, float("nan")])
def test_a_strength_is_above_0_and_up_to_1(strength: float) -> None:
    with pytest.raises(UserError, match=r"--strength .*: give a number above 0 and up to 1"):
        request_workload(Prompts(texts=("a",)), steps=None, size=None, batch=None, strength=strength)


def test_values_that_leave_no_step_are_not_offered() -> None:
    steps, target = find_knob("steps"), image_to_image(8, 0.3)
    assert [steps.why_not(value, target) for value in (3, 4)] == ["leaves no step at strength 0.3", None]
    assert "one step" in str(find_knob("guidance_cutoff").why_not(0.6, image_to_image(6, 0.3)))


def test_the_effect_of_fewer_steps_is_how_many_ran() -> None:
    class Pipe:
        _num_timesteps = 4

    verify = find_knob("steps").verify
    assert verify is not None
    assert str(verify(Pipe(), complete({"steps": 5}), {})) == "4 denoising steps a call"


def test_studies_without_the_fields_still_load() -> None:
    stored = make_target().workload.to_json()
    assert stored.pop("strength", None) is None
    assert Workload.parse(stored, "old").strength is None
    traits = {name: value for name, value in TRAITS.to_json().items() if "strength" not in name}
    assert Traits.parse(traits, "old").default_strength is None
