"""A call gets what its class takes: the prompt by name, the size, the steps and the guidance, lists as copies."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CPU, TRAITS
from tiny_classes import tiny_of

from autotune.building import build
from autotune.errors import UserError
from autotune.execution.probe import _checked_call, _guidance
from autotune.knobs import complete
from autotune.measure import call_pipe
from autotune.pipeline import Pipeline
from autotune.pipelines import call, parts, resolve
from autotune.pipelines.inspect import traits_of
from autotune.target import Target
from autotune.workload import Prompts, Workload, WorkloadRequest

LIVE = (
    "ZImagePipeline",
    "FluxKontextPipeline",
    "Flux2KleinPipeline",
    "QwenImagePipeline",
    "SanaSprintPipeline",
    "StableDiffusionPipeline",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {name: tiny_of(name, root / name) for name in LIVE}


def workload_of(pipeline: Pipeline, **changes: Any) -> Workload:
    traits = pipeline.known
    return Workload(
        prompts=("a red circle", "a blue star"),
        width=32,
        height=48,
        steps=2,
        guidance_scale=traits.default_guidance_scale,
        negative_prompt=traits.default_negative_prompt,
    ).model_copy(update=changes)


@cache
def probed(folder: Path) -> Pipeline:
    pipeline = resolve(str(folder)).model_copy(update={"scorer": None})
    return pipeline.model_copy(update={"traits": traits_of(pipeline)})


def built(pipeline: Pipeline, workload: Workload) -> Any:
    pipe = build.load(pipeline, complete({}), "cpu")
    build.apply(pipe, complete({}), workload, "cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.usefixtures("no_grad")
def test_prompts_stay_as_they_were_where_a_pipe_writes_into_its_lists(folders: dict[str, Path]) -> None:
    pipeline = probed(folders["ZImagePipeline"])
    workload = workload_of(pipeline, batch=2, negative_prompt="blurred")
    pipe, prompts, seeds = built(pipeline, workload), ["a red circle", "a blue star"], [0, 1]
    first = call_pipe(pipe, workload, prompts, seeds)
    mine = list(prompts)
    pipe(mine)
    assert mine == prompts == ["a red circle", "a blue star"]
    assert [a.tobytes() for a in first] == [b.tobytes() for b in call_pipe(pipe, workload, prompts, seeds)]


@pytest.mark.usefixtures("no_grad")
@pytest.mark.parametrize("name", ["FluxKontextPipeline", "Flux2KleinPipeline", "StableDiffusionPipeline"])
def test_a_single_text_is_the_prompt_and_the_picture_has_the_requested_size(
    folders: dict[str, Path], name: str
) -> None:
    pipeline = probed(folders[name])
    workload = workload_of(pipeline)
    output = built(pipeline, workload)("a red circle")
    assert output.images[0].size == (32, 48)


def test_qwen_image_is_guided_by_true_cfg_scale_with_a_blank_negative_prompt(folders: dict[str, Path]) -> None:
    pipeline = probed(folders["QwenImagePipeline"])
    assert (pipeline.known.guidance_argument, pipeline.known.default_guidance_scale) == ("true_cfg_scale", 4.0)
    filled = _guidance(pipeline, pipeline.known, WorkloadRequest(prompts=Prompts(texts=("a",))))
    assert filled == {"guidance_scale": 4.0, "negative_prompt": " "}
    pipe = build.load(pipeline, complete({}), "cpu")
    values = call.workload_values(pipe, workload_of(pipeline))
    assert values["true_cfg_scale"] == 4.0
    assert "guidance_scale" not in values
    runs = []
    pipe.transformer.register_forward_hook(lambda *_: runs.append(1))
    build.apply(pipe, complete({}), workload_of(pipeline, guidance_scale=4.0), "cpu")
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pipe("a red circle")
    assert len(runs) == 4  # two steps, each with the prompt and without


@pytest.mark.usefixtures("no_grad")
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_sana_sprint_takes_any_number_of_steps(folders: dict[str, Path], steps: int) -> None:
    pipeline = probed(folders["SanaSprintPipeline"])
    workload = workload_of(pipeline, steps=steps, height=64)
    pipe = built(pipeline, workload)
    assert pipe("a red circle").images[0].size == (32, 64)


def test_a_distilled_checkpoint_is_known_by_its_configuration(folders: dict[str, Path]) -> None:
    klein, sd = (probed(folders[name]) for name in ("Flux2KleinPipeline", "StableDiffusionPipeline"))
    assert klein.known.guidance_fault is not None
    assert "is_distilled" in klein.known.guidance_fault
    assert (klein.known.guided_above, klein.known.default_guidance_scale) == (None, 1.0)
    assert (sd.known.guidance_fault, sd.known.guided_above, sd.known.default_guidance_scale) == (None, 1.0, 7.5)


def test_the_default_size_of_a_class_without_a_sample_size_is_what_a_call_decides(folders: dict[str, Path]) -> None:
    traits = probed(folders["ZImagePipeline"]).known
    assert (traits.default_width, traits.default_height) == (1024, 1024)


def test_a_turbo_checkpoint_called_with_guidance_gets_a_sentence() -> None:
    pipeline = Pipeline(name="x", source="x/y", traits=TRAITS)

    def doubt(steps: int, scale: float) -> str | None:
        workload = Workload(prompts=("a",), width=64, height=64, steps=steps, guidance_scale=scale)
        return Target(pipeline=pipeline, workload=workload, device=CPU, versions={}).doubt

    assert doubt(1, 5.0) == "1 step at guidance 5: turbo and lightning checkpoints are called with --guidance 0."
    assert doubt(1, 0.0) is None
    assert doubt(30, 5.0) is None


def request(**changes: Any) -> WorkloadRequest:
    return WorkloadRequest(prompts=Prompts(texts=("a",)), **changes)


@pytest.mark.parametrize(
    ("call_given", "message"),
    [
        ({"clip_skp": 1}, "no such argument to set, did you mean 'clip_skip'"),
        ({"num_inference_steps": 3}, "--steps sets this argument"),
        ({"guidance_scale": 3}, "--guidance sets this argument"),
        ({"prompt_embeds": "weighted.safetensors"}, "give prompt_embeds to the pipe that autotune.load returns"),
    ],
)
def test_call_takes_only_arguments_of_the_signature_that_no_option_sets(
    call_given: dict[str, Any], message: str
) -> None:
    traits = TRAITS.model_copy(update={"call_arguments": ("clip_skip", "guidance_rescale")})
    with pytest.raises(UserError, match=message):
        _checked_call(Pipeline(name="x", source="x/y"), traits, request(call=call_given))


def test_guidance_and_negative_prompt_are_refused_where_the_call_takes_none() -> None:
    traits = TRAITS.model_copy(update={"guidance_argument": None, "takes_negative_prompt": False})
    for given in ({"guidance": 3.0}, {"negative_prompt": "a"}):
        with pytest.raises(UserError, match="takes no"):
            _guidance(Pipeline(name="x", source="x/y"), traits, request(**given))


@pytest.mark.usefixtures("no_grad")
def test_further_arguments_reach_the_call_and_unknown_ones_are_refused(folders: dict[str, Path]) -> None:
    pipeline = probed(folders["StableDiffusionPipeline"])
    plain, other = (built(pipeline, workload_of(pipeline, call=given)) for given in ({}, {"guidance_rescale": 0.7}))
    pixels = [
        pipe("a red circle", generator=torch.Generator().manual_seed(0)).images[0].tobytes() for pipe in (plain, other)
    ]
    assert pixels[0] != pixels[1]
    with pytest.raises(UserError, match="takes no 'guidance_rescal'"):
        built(pipeline, workload_of(pipeline, call={"guidance_rescal": 0.7}))


@pytest.mark.usefixtures("no_grad")
def test_a_negative_prompt_is_given_for_each_prompt(folders: dict[str, Path]) -> None:
    pipeline = probed(folders["StableDiffusionPipeline"])
    pipe = built(pipeline, workload_of(pipeline, batch=2, negative_prompt="a blue star"))
    assert len(pipe(["a red circle", "a green tree"]).images) == 2
    assert len(pipe("a red circle").images) == 1


def test_a_tokenizer_is_found_inside_a_processor() -> None:
    reader = SimpleNamespace(model_max_length=77)
    pipe: Any = SimpleNamespace(components={"tokenizer": SimpleNamespace(tokenizer=reader), "processor": None})
    assert parts.tokenizer(pipe) is reader
