"""Building: knobs act in the order of the stages, one that changes nothing is an error, the call keeps its defaults."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from live import WORKLOAD, built, configurations, loaded, picture

from autotune import demo
from autotune.building import build
from autotune.building.build import NoEffect
from autotune.errors import UserError
from autotune.knob import Effect, Stage
from autotune.knobs import all_knobs, complete
from autotune.pipelines import resolve

EVERYTHING = {name: knob.values[1] for name, knob in all_knobs().items() if len(knob.values) > 1} | {"steps": 2}


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, autotune.building.build; print(sorted({'torch', 'diffusers', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the knobs applied since then, and "to" for moving the pipe; nothing is changed."""
    seen: list[str] = []

    def recorder(name: str) -> Callable[..., Effect]:
        return lambda pipe, config, device: seen.append(name) or Effect(count=1, what="things")

    knobs = {name: replace(knob, apply=knob.apply and recorder(name)) for name, knob in all_knobs().items()}
    monkeypatch.setattr(build, "all_knobs", lambda: knobs)
    return seen


class Still:
    """A pipe that only says that it was moved."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def __call__(self, num_inference_steps: int = 50) -> int:
        return num_inference_steps

    def to(self, device: str) -> None:
        self.seen.append(f"to {device}")


def test_knobs_act_in_the_order_of_their_stages(acted: list[str]) -> None:
    effects = build.apply(Still(acted), complete(EVERYTHING), WORKLOAD, "cpu")
    assert acted == list(effects)
    stages = [all_knobs()[name].stage for name in acted]
    assert stages == sorted(stages)
    assert len(set(stages)) >= 7
    for earlier, later in (
        ("qkv_fusion", "quantization"),  # fused weights can be quantized, quantized ones can't be fused
        ("qkv_fusion", "attention"),  # a kernel is forced in the processor that fusing leaves
        ("tome_ratio", "compile"),
        ("attention", "compile"),
        ("compile", "offload"),
    ):
        assert acted.index(earlier) < acted.index(later)


def test_a_knob_at_its_default_does_not_act_unless_it_acts_while_loading(acted: list[str]) -> None:
    assert list(build.apply(Still(acted), complete({}), WORKLOAD, "cuda:1")) == ["dtype"]
    assert acted == ["dtype", "to cuda:1"]


def test_the_pipe_is_moved_unless_a_knob_places_its_weights(acted: list[str]) -> None:
    build.apply(Still(acted), complete({"compile": "regional"}), WORKLOAD, "cpu")
    assert acted == ["dtype", "compile", "to cpu"]
    acted.clear()
    build.apply(Still(acted), complete({"offload": "model"}), WORKLOAD, "cpu")
    assert acted == ["dtype", "offload"]


def test_only_encoding_and_offload_place() -> None:
    placing = [knob for knob in all_knobs().values() if knob.stage is Stage.PLACEMENT]
    assert [knob.name for knob in placing if knob.modifies != "offload"] == ["encoding", "offload"]


def test_a_knob_that_changes_nothing_is_an_error_that_names_it(tmp_path: Any) -> None:
    """A UNet like SDXL's has no attention at full resolution: tomesd does nothing there, without a word."""
    folder = configurations(
        tmp_path / "tiny",
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
    )
    config = complete({"tome_ratio": 0.5})
    pipe = build.load(resolve(str(folder), "random"), config, "cpu")
    with pytest.raises(NoEffect) as caught:
        build.apply(pipe, config, WORKLOAD, "cpu")
    assert caught.value.knob == "tome_ratio"
    assert str(caught.value) == "tome_ratio=0.5 had no effect here: 0 transformer blocks merge tokens"


def test_what_only_a_call_can_show_is_an_error_too() -> None:
    with pytest.raises(NoEffect) as caught:
        build.verify(loaded(), complete({"attention": "sdpa_math"}), {"flash": 28})
    assert caught.value.knob == "attention"


def test_verifying_asks_only_knobs_that_are_not_at_their_default() -> None:
    assert build.verify(loaded(), complete({}), {}) == {}


def test_a_loading_knob_on_a_pipe_loaded_otherwise_says_how_to_load_it() -> None:
    with pytest.raises(UserError) as caught:
        built(loaded(), dtype="bf16")
    assert str(caught.value) == "dtype=bf16 must act while loading: load the pipeline with dtype=torch.bfloat16."
    with pytest.raises(UserError, match=r"dtype=fp32 must act while loading: .* dtype=torch.float32"):
        built(loaded(dtype="bf16"))


def test_a_pipe_loaded_by_hand_can_be_built_on() -> None:
    pipe = DiffusionPipeline.from_pretrained(demo.PIPELINE, dtype=torch.bfloat16)
    _, effects = built(pipe, dtype="bf16", attention="sdpa_math")
    assert set(effects) == {"dtype", "attention"}


def steps_of(pipe: Any) -> list[int]:
    """One entry for each step of each call since then."""
    seen: list[int] = []
    pipe.unet.register_forward_hook(lambda *_: seen.append(1))
    return seen


def test_a_call_with_a_prompt_alone_is_the_workloads() -> None:
    pipe, _ = built()
    workload = WORKLOAD.model_copy(update={"width": 96, "height": 32, "steps": 2})
    build.apply(pipe, complete({}), workload, "cpu")
    steps = steps_of(pipe)
    [image] = pipe("a large red circle at the top on a white background").images
    assert (image.size, len(steps)) == ((96, 32), 2)


@pytest.mark.parametrize(
    ("positional", "named", "size", "steps"),
    [
        ((), {"num_inference_steps": 1}, (64, 64), 1),
        ((), {"width": 32, "height": 48}, (32, 48), 3),
        ((32, 48), {}, (48, 32), 3),  # height first, as diffusers has it
        ((32, 48, 1), {}, (48, 32), 1),
        ((32,), {"width": 48}, (48, 32), 3),
    ],
)
def test_arguments_that_a_caller_gives_win(
    positional: tuple[int, ...], named: dict[str, int], size: tuple[int, int], steps: int
) -> None:
    pipe, _ = built()
    seen = steps_of(pipe)
    [image] = pipe("a large red circle", *positional, **named).images
    assert (image.size, len(seen)) == (size, steps)


def test_the_guidance_is_the_workloads() -> None:
    pipe, _ = built()
    assert np.array_equal(picture(pipe), picture(pipe, guidance_scale=WORKLOAD.guidance_scale))
    assert not np.array_equal(picture(pipe), picture(pipe, guidance_scale=WORKLOAD.guidance_scale + 1))


def test_a_call_knob_wins_over_the_workload() -> None:
    pipe = loaded()
    assert build.call_arguments(pipe, complete({"steps": 2}), WORKLOAD)["num_inference_steps"] == 2
    assert build.call_arguments(pipe, complete({}), WORKLOAD) == {
        "width": 64,
        "height": 64,
        "num_inference_steps": 3,
        "guidance_scale": 4.0,
    }


def test_a_default_that_the_pipeline_does_not_take_is_left_out() -> None:
    pipe = Still([])
    build.set_call_defaults(pipe, {"num_inference_steps": 7, "guidance_scale": 4.0})
    assert pipe() == 7
    assert pipe(3) == 3


def test_the_pipe_stays_of_its_class() -> None:
    pipe, _ = built()
    assert isinstance(pipe, StableDiffusionPipeline)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert type(pipe).__module__ == StableDiffusionPipeline.__module__
    assert type(pipe).__call__.__doc__ == StableDiffusionPipeline.__call__.__doc__


def test_another_pipe_of_the_class_keeps_its_own_defaults() -> None:
    built()
    other = loaded()
    assert type(other) is StableDiffusionPipeline
    assert other("a red circle", num_inference_steps=1, width=32, height=32).images[0].size == (32, 32)


def test_a_pipe_can_be_saved_and_loaded_again(tmp_path: Any) -> None:
    """Diffusers writes the class's name into the folder, and reads it back as its own."""
    pipe, _ = built(steps=2)
    pipe.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again) is StableDiffusionPipeline
    call = build.call_arguments(pipe, complete({"steps": 2}), WORKLOAD)
    assert np.array_equal(picture(again, **call), picture(pipe))


def test_building_on_a_pipe_that_was_built_takes_the_newer_defaults() -> None:
    pipe, _ = built(steps=2)
    built(pipe, steps=5)
    steps = steps_of(pipe)
    picture(pipe)
    assert len(steps) == 5


def test_the_same_config_builds_the_same_pipe() -> None:
    config: dict[str, Any] = {"qkv_fusion": True, "memory_format": "channels_last", "steps": 2}
    assert np.array_equal(picture(built(**config)[0]), picture(built(**config)[0]))
