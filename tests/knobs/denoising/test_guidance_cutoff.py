"""guidance_cutoff: after its share of the steps the denoiser's batch is halved, and what is left has the prompt."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conftest import make_target
from diffusers import ControlNetModel
from diffusers.callbacks import SDCFGCutoffCallback
from live import WORKLOAD, built, difference, loaded, picture
from tiny import FAMILIES
from tiny_pipes import draw, tiny_traits, tiny_workload

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.knobs.denoising.guidance_cutoff import GUIDED
from autotune.pipelines import parts
from autotune.pipelines.adapters import controlnet

KNOB = find_knob("guidance_cutoff")
TEXT = ("encoder_hidden_states", "pooled_projections", "controlnet_cond")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def components(class_name: str, nets: int = 1) -> dict[str, Any]:
    torch.manual_seed(0)
    if class_name in FAMILIES:
        return FAMILIES[class_name]()
    plain = class_name.replace("ControlNetImg2Img", "").replace("ControlNetInpaint", "").replace("ControlNet", "")
    made = FAMILIES[plain]()
    how = {"conditioning_embedding_out_channels": (8, 16)}
    made["controlnet"] = controlnet.joined([ControlNetModel.from_unet(made["unet"], **how) for _ in range(nets)])
    return made


def pipe_of(class_name: str, nets: int = 1, **values: Any) -> Any:
    pipe = getattr(diffusers, class_name)(**components(class_name, nets))
    pipe.set_progress_bar_config(disable=True)
    build.apply(pipe, complete(values), tiny_workload(class_name), "cpu")
    return pipe


class Watch:
    """What the denoiser (and a ControlNet) was called with: the batch of each call, and the text."""

    def __init__(self, model: Any) -> None:
        self.batches: list[int] = []
        self.text: dict[str, list[torch.Tensor]] = {}
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model: Any, args: Any, named: dict[str, Any]) -> None:
        sample = args[0] if args else named["sample" if "sample" in named else "hidden_states"]
        self.batches.append(len(sample))
        added = named.get("added_cond_kwargs") or {}
        for name, tensor in (named | added).items():
            if isinstance(tensor, torch.Tensor) and name in (*TEXT, "text_embeds", "time_ids"):
                self.text.setdefault(name, []).append(tensor)


ONE = [(class_name, batch, 1) for class_name in GUIDED for batch in (1, 2)]


@pytest.mark.parametrize(
    ("class_name", "batch", "nets"), [*ONE, *((name, 2, 2) for name in GUIDED if "ControlNet" in name)]
)
def test_the_batch_halves_and_keeps_the_prompts(class_name: str, batch: int, nets: int) -> None:
    pipe = pipe_of(class_name, nets, guidance_cutoff=0.4)
    pipe.scheduler = diffusers.EulerDiscreteScheduler() if hasattr(pipe, "unet") else pipe.scheduler
    models = [
        *parts.denoisers(pipe).values(),
        *(parts.joined_controlnets(pipe) or filter(None, [parts.controlnet(pipe)])),
    ]
    watches = [Watch(model) for model in models]
    steps = {"strength": 1.0} if "Img2Img" in class_name or "Inpaint" in class_name else {}
    pixels = draw(pipe, class_name, batch=batch, num_inference_steps=5, **steps)
    assert np.isfinite(pixels).all()
    for watch in watches:
        assert watch.batches == [2 * batch] * 2 + [batch] * 3
        assert watch.text
        for name, seen in watch.text.items():
            assert [len(tensor) for tensor in seen] == watch.batches, name
            assert torch.equal(seen[-1], seen[0][batch:]), name


def test_what_cannot_be_halved_is_refused(root: Path) -> None:
    for family, said in (
        ("IFPipeline", "has no callback at the end of a step"),
        ("PixArtSigmaPipeline", "has no callback at the end of a step"),
        ("StableDiffusionUpscalePipeline", "has no callback at the end of a step"),
        ("FluxPipeline", "is not among the pipelines whose guidance can end early"),
    ):
        target = make_target()
        pipeline = target.pipeline.model_copy(update={"traits": tiny_traits(family, root)})
        assert KNOB.why_not(0.6, target.model_copy(update={"pipeline": pipeline})) == f"{family} {said}"
    for family in set(GUIDED) & set(FAMILIES):
        pipeline = target.pipeline.model_copy(update={"traits": tiny_traits(family, root)})
        assert KNOB.why_not(0.6, target.model_copy(update={"pipeline": pipeline})) is None


def test_without_guidance_there_is_none_to_drop() -> None:
    target = make_target(callback_tensors=("latents", "prompt_embeds"))
    assert KNOB.why_not(0.6, target) is None
    unguided = target.model_copy(update={"workload": target.workload.model_copy(update={"guidance_scale": 1.0})})
    assert KNOB.why_not(0.6, unguided) == "the workload has no guidance to end: its guidance scale is 1"
    assert KNOB.why_not(1.0, unguided) is None


def batches(pipe: Any, **call: Any) -> list[int]:
    watch = Watch(pipe.unet)
    picture(pipe, **call)
    return watch.batches


@pytest.mark.parametrize(
    ("share", "steps", "guided"), [(0.8, 5, 4), (0.8, 10, 8), (0.4, 3, 1), (0.4, 1, 1), (0.1, 2, 1), (0.9, 2, 2)]
)
def test_the_share_is_of_the_steps_of_the_call_at_hand(share: float, steps: int, guided: int) -> None:
    pipe, _ = built(guidance_cutoff=share)
    assert batches(pipe, num_inference_steps=steps) == [2] * guided + [1] * (steps - guided)


def test_the_next_call_is_guided_again() -> None:
    pipe, _ = built(guidance_cutoff=0.6)
    watch = Watch(pipe.unet)
    one, other = picture(pipe), picture(pipe)
    assert watch.batches == [2, 2, 1] * 2
    assert difference(one, other) == 0


def test_the_picture_changes_and_stays_close() -> None:
    whole = picture(built()[0], num_inference_steps=10)
    cut = picture(built(guidance_cutoff=0.8)[0], num_inference_steps=10)
    assert difference(whole, cut) > 0
    assert np.abs(whole - cut).mean() < 0.05


def test_a_call_without_guidance_is_left_alone() -> None:
    pipe, _ = built(guidance_cutoff=0.6)
    assert batches(pipe, guidance_scale=1.0) == [1, 1, 1]
    assert difference(picture(pipe, guidance_scale=1.0), picture(loaded(), guidance_scale=1.0, **CALL)) == 0


CALL = {"num_inference_steps": WORKLOAD.steps, "width": 64, "height": 64}


def test_the_default_gives_the_pipeline_no_callback() -> None:
    assert not [name for name in build.call_arguments(loaded(), complete({}), WORKLOAD) if "callback" in name]


def test_a_callers_own_callback_runs_too() -> None:
    pipe, _ = built(guidance_cutoff=0.6)
    seen: list[tuple[int, list[str]]] = []

    def theirs(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, sorted(tensors)))
        return {"latents": tensors["latents"] * 0} if step == 2 else {}

    plain = picture(pipe)
    watch = Watch(pipe.unet)
    changed = picture(pipe, callback_on_step_end=theirs)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert watch.batches == [2, 2, 1]
    assert difference(plain, changed) > 0


def test_a_callers_tensors_are_given_as_well_as_ours() -> None:
    pipe, _ = built(guidance_cutoff=0.6)
    asked = {"callback_on_step_end_tensor_inputs": ["negative_prompt_embeds"]}
    seen: list[set[str]] = []

    def theirs(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(set(tensors))
        return tensors

    assert batches(pipe, callback_on_step_end=theirs, **asked) == [2, 2, 1]
    assert all({"negative_prompt_embeds", "latents", "prompt_embeds"} <= names for names in seen)
    assert batches(pipe, **asked) == [2, 2, 1]


def test_a_callback_of_diffusers_own_goes_with_it() -> None:
    pipe, _ = built(guidance_cutoff=0.6)
    assert batches(pipe, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.0)) == [2, 1, 1]


def test_a_caller_who_wants_no_callback_has_none() -> None:
    pipe, _ = built(guidance_cutoff=0.6)
    assert batches(pipe, callback_on_step_end=None) == [2, 2, 2]


def test_the_steps_without_guidance_are_counted_and_none_is_no_effect() -> None:
    pipe, _ = built(guidance_cutoff=0.6)
    config = complete({"guidance_cutoff": 0.6})
    picture(pipe, num_inference_steps=1)
    with pytest.raises(NoEffect, match=r"guidance_cutoff=0\.6 had no effect here: 0 steps without guidance"):
        build.verify(pipe, config, {})
    picture(pipe, num_inference_steps=5)
    assert build.verify(pipe, config, {})["guidance_cutoff"].count == 2


def test_any_share_between_none_and_all_is_a_value() -> None:
    assert [KNOB.accepts(value) for value in (0.5, 0.05, 1.0)] == [True] * 3
    assert [KNOB.accepts(value) for value in (0.0, 1, 1.5, -0.5, True, "0.5")] == [False] * 6


def test_clash_of_cuda_graphs_with_a_scheduler_that_keeps_the_denoisers_output() -> None:
    target = make_target(scheduler_class="PNDMScheduler")
    graphs = {"guidance_cutoff": 0.6, "compile": "denoiser", "compile_mode": "reduce-overhead"}
    assert KNOB.clash(complete(graphs), target) is not None
    assert KNOB.clash(complete(graphs | {"scheduler": "dpm++_2m"}), target) is None
    assert KNOB.clash(complete(graphs | {"compile_mode": "default"}), target) is None
    assert KNOB.clash(complete(graphs | {"guidance_cutoff": 1.0}), target) is None
