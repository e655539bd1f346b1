"""Several ControlNets: which classes take them, a picture and a weight for each, and knobs that act on all of them."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conftest import make_target
from diffusers import ControlNetModel
from tiny import FAMILIES, tiny_checkpoint, unet
from tiny_pipes import draw, tiny_workload

from autotune.building import build
from autotune.errors import UserError
from autotune.execution.probe import _checked_call
from autotune.knobs import complete, find_knob
from autotune.pipeline import Pipeline
from autotune.pipelines import inputs, parts, resolve
from autotune.pipelines.adapters import controlnet
from autotune.pipelines.inspect import assembled
from autotune.pipelines.loading import load
from autotune.workload import Prompts, WorkloadRequest

ARGUMENT = "controlnet_conditioning_scale"
CLASSES = [
    f"{plain}ControlNet{task}Pipeline"
    for plain in ("StableDiffusion", "StableDiffusionXL")
    for task in ("", "Img2Img", "Inpaint")
]


def net(config: Any, seed: int) -> Any:
    """A ControlNet that changes the picture: untrained ones end in zeros."""
    torch.manual_seed(seed)
    made = ControlNetModel.from_unet(config, conditioning_embedding_out_channels=(8, 16))
    for weight in made.controlnet_mid_block.parameters():
        torch.nn.init.normal_(weight)
    return made


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controlnets")
    tiny_checkpoint("StableDiffusionPipeline", folder / "checkpoint")
    for seed, name in enumerate(("one", "two")):
        net(unet(4), seed).save_pretrained(folder / name)
    return folder


def named(here: Path, *words: str, **more: Any) -> Pipeline:
    return resolve(str(here / "checkpoint"), controlnet=[str(here / word) for word in words], **more)


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_class_that_takes_several_draws_prompts_together_as_alone(class_name: str) -> None:
    """Most refuse lists within the list of control pictures, in which each prompt would have its own."""
    plain = class_name.partition("ControlNet")[0] + "Pipeline"
    torch.manual_seed(0)
    made = FAMILIES[plain]()
    made["controlnet"] = controlnet.joined([net(made["unet"], seed) for seed in (0, 1)])
    pipe = getattr(diffusers, class_name)(**made)
    pipe.set_progress_bar_config(disable=True)
    controlnet.check(type(pipe), 2)
    build.apply(pipe, complete({}), tiny_workload(class_name), "cpu")
    steps = {"num_inference_steps": 2, **({"strength": 1.0} if "g2I" in class_name or "Inp" in class_name else {})}
    together, alone = (draw(pipe, class_name, batch=batch, **steps) for batch in (2, 1))
    assert np.abs(together[0] - alone[0]).max() < 1.5 / 255, "of one level at most: a batch of two rounds otherwise"
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_a_class_that_takes_one_or_none_of_this_kind_says_so() -> None:
    controlnet.check(diffusers.BlipDiffusionControlNetPipeline, 1)
    with pytest.raises(UserError, match="BlipDiffusionControlNetPipeline takes one ControlNet, and --controlnet is gi"):
        controlnet.check(diffusers.BlipDiffusionControlNetPipeline, 2)
    with pytest.raises(UserError, match="FluxControlNetPipeline takes a ControlNet of another kind"):
        controlnet.check(diffusers.FluxControlNetPipeline, 2)


def test_one_controlnet_is_loaded_as_it_is_and_its_weight_is_a_number(here: Path) -> None:
    pipeline = named(here, "one:0.5")
    pipe = load(pipeline, dtype=torch.float32, device="cpu")
    assert type(pipe.controlnet) is ControlNetModel
    assert controlnet.weights(pipe, pipeline) == {"controlnet_weight": 0.5, "more_controlnets": {}}
    assert _checked_call(pipeline, call_of(pipe), request()) == {ARGUMENT: 0.5}


def test_one_without_a_weight_has_the_calls_default_beside_one_that_has_it(here: Path) -> None:
    """Where none has a weight, the call is left to its default, as in studies of earlier versions."""
    pipeline = named(here, "one:0.5", "two", task="inpainting")
    assert controlnet.weights(assembled(pipeline), pipeline)["more_controlnets"] == {str(here / "two"): 0.5}
    unweighted = named(here, "one", "two")
    assert controlnet.weights(assembled(unweighted), unweighted) == {}
    assert _checked_call(unweighted, call_of(assembled(unweighted)), request(call={ARGUMENT: 0.3})) == {ARGUMENT: 0.3}


def test_a_weight_and_the_argument_that_it_stands_for_are_not_both_given(here: Path) -> None:
    pipeline = named(here, "one:0.5")
    with pytest.raises(UserError, match=f"--call {ARGUMENT}: the weights of --controlnet set this argument"):
        _checked_call(pipeline, call_of(assembled(pipeline)), request(call={ARGUMENT: 0.3}))


def request(**changes: Any) -> WorkloadRequest:
    return WorkloadRequest(prompts=Prompts(texts=("a",)), **changes)


def call_of(pipe: Any) -> Any:
    """Traits of which only the call's are real."""
    from autotune.pipelines import call

    return make_target(call_arguments=call.settable(pipe)).pipeline.known


def test_random_weights_need_the_configurations_alone(here: Path) -> None:
    pipe = load(named(here, "one", "two", weights="random"), dtype=torch.float32, device="cpu")
    assert (type(pipe.controlnet).__name__, parts.control_pictures(pipe)) == ("MultiControlNetModel", 2)
    assert inputs.picture_arguments(pipe) == {"image": "edges"}


@pytest.mark.parametrize(
    ("values", "acts"),
    [
        ({"attention": "vanilla"}, lambda m: type(getattr(m, "processor", None)).__name__ == "AttnProcessor"),
        ({"attention": "sliced"}, lambda m: type(getattr(m, "processor", None)).__name__ == "SlicedAttnProcessor"),
        ({"attention": "sdpa_math"}, lambda m: type(getattr(m, "processor", None)).__name__ == "Forced"),
        (
            {"memory_format": "channels_last"},
            lambda m: (
                isinstance(m, torch.nn.Conv2d)
                and m.kernel_size != (1, 1)
                and m.weight.is_contiguous(memory_format=torch.channels_last)
            ),
        ),
    ],
    ids=["vanilla", "sliced", "sdpa_math", "channels_last"],
)
def test_a_knob_acts_in_each_of_them(here: Path, values: dict[str, Any], acts: Any) -> None:
    pipe = load(named(here, "one", "two"), dtype=torch.float32, device="cpu")
    build.apply(pipe, complete(values), tiny_workload("StableDiffusionControlNetPipeline"), "cpu")
    counts = [sum(map(acts, one.modules())) for one in (pipe.unet, *parts.joined_controlnets(pipe))]
    assert all(counts), counts
    assert counts[1] == counts[2]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_they_are_compiled_as_one_whole_graph(here: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by Dynamo and run as it is: what Inductor makes of a graph is tested elsewhere."""
    pipe = load(named(here, "one", "two"), dtype=torch.float32, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    plain = draw(pipe, "StableDiffusionControlNetPipeline", batch=2, num_inference_steps=2)
    compiled = torch.compile

    def traced(model: Any, **how: Any) -> Any:
        return compiled(model, **{**how, "backend": "eager", "options": None})

    monkeypatch.setattr(torch, "compile", traced)
    config = complete({"compile": "denoiser", "compile_mode": mode})
    find_knob("compile").apply(pipe, config, "cpu")  # type: ignore[misc]
    assert np.abs(draw(pipe, "StableDiffusionControlNetPipeline", batch=2, num_inference_steps=2) - plain).max() < 1e-5
    assert parts.control_pictures(pipe) == 2
