"""Rehearsal: calls with empty weights find what classes do not say, on tiny checkpoints that showed it."""

import copy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny import FAMILIES, tiny_checkpoint
from tiny_classes import tiny_of

from autotune.pipelines import parts, resolve
from autotune.pipelines.random_weights import assemble
from autotune.pipelines.rehearsal.facts import _noting, facts_of, workload
from autotune.pipelines.rehearsal.rehearse import rehearse
from autotune.pipelines.rehearsal.schedulers import faults


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@cache
def pipe_of(name: str, root: Path) -> Any:
    folder = root / name
    checkpoint = tiny_checkpoint(name, folder) if name in FAMILIES else tiny_of(name, folder)
    return assemble(resolve(str(checkpoint)), dtype=torch.float32, device="meta")


@cache
def facts(name: str, root: Path) -> dict[str, Any]:
    return facts_of(pipe_of(name, root))


def kept(name: str, root: Path) -> set[tuple[str, str, bool, bool]]:
    return {(k.model, k.after, k.by_scheduler, k.guided) for k in facts(name, root)["kept_outputs"] if not k.negative}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("IFPipeline", {}),  # changes the shape of an operation's result in place
        ("HiDreamImagePipeline", {}),  # counts the tokens of each expert, which needs values
        ("AnyFlowFARPipeline", {}),  # flex_attention takes no empty tensors
        ("StableDiffusionXLControlNetUnionPipeline", {"given": {"control_mode": [0]}}),  # must be given it
    ],
)
def test_calls_that_need_values_or_arguments_can_be_rehearsed(name: str, given: dict[str, Any], root: Path) -> None:
    pipe = pipe_of(name, root)
    memory = dict[Any, Any]()
    for _ in range(2):  # the second finds in memory what operations gave
        assert rehearse(pipe, workload(pipe, "a", guided=True, **given), memory=memory).fault is None


def test_traits_of_a_call_that_needs_what_the_user_gives_are_known_with_it(root: Path) -> None:
    unknown = facts("EasyAnimatePipeline", root)["unknown"]
    assert "a call without weights failed (TypeError" in unknown["step_attention"]
    seen = facts_of(pipe_of("EasyAnimatePipeline", root), {}, "a grey square")
    assert seen["unknown"] == {}
    assert seen["step_attention"]


def test_two_text_encoders_whose_outputs_are_joined_and_a_cast_vae(root: Path) -> None:
    seen = facts("StableDiffusionXLPipeline", root)
    pair = ("text_encoder", "text_encoder_2", False)
    assert kept("StableDiffusionXLPipeline", root) == {(*pair, True), (*pair, False)}
    assert seen["vae_upcasts_fp16"]
    assert seen["unknown"] == {}
    assert not seen["prompt_lengths_vary"]


def test_pndm_keeps_outputs_without_guidance_alone(root: Path) -> None:
    assert kept("StableDiffusionPipeline", root) == {("unet", "unet", True, False)}
    assert not facts("StableDiffusionPipeline", root)["vae_upcasts_fp16"]


def test_an_upscaler_casts_its_vae_whatever_its_name(root: Path) -> None:
    pipe = pipe_of("StableDiffusionUpscalePipeline", root)
    seen = rehearse(pipe, workload(pipe, "a", guided=False), dtype=torch.float16)
    assert seen.decoded_in == {torch.float32}


def test_a_denoiser_that_is_called_twice_a_step_and_is_given_prompts_of_their_length(root: Path) -> None:
    seen = facts("QwenImagePipeline", root)
    assert kept("QwenImagePipeline", root) == {("transformer", "transformer", False, True)}
    assert seen["prompt_lengths_vary"]
    assert not seen["fuses_qkv"]  # diffusers' method reaches none of its modules
    assert set(seen["block_caches"]) == {
        "first_block",
        "taylorseer",
        "taylorseer_lite",
        "magcache",
        "pab",
        "fastercache",
        "dbcache",
    }
    assert "sigmas" in seen["scheduler_faults"]["dpm++_2m"]


def test_flux_calls_its_denoiser_twice_a_step_with_a_negative_prompt_alone(root: Path) -> None:
    outputs = facts("FluxPipeline", root)["kept_outputs"]
    assert {(k.model, k.after, k.negative) for k in outputs} == {("transformer", "transformer", True)}
    assert facts("FluxPipeline", root)["fuses_qkv"]
    assert set(facts("FluxPipeline", root)["scheduler_faults"]) == {"dpm++_2m", "ddim", "euler"}


def test_a_denoiser_that_reads_lengths_is_held_by_no_whole_graph(root: Path) -> None:
    seen = facts("Lumina2Pipeline", root)
    assert seen["whole_graph_fault"] == "the forward of Lumina2Transformer2DModel reads a value (Tensor.tolist)"
    assert facts("QwenImagePipeline", root)["whole_graph_fault"] is None
    assert {masked for _, masked, _ in seen["step_attention"]} == {False, True}


def test_an_encoders_output_that_each_step_is_given_as_it_is_is_read_after_the_step_before(root: Path) -> None:
    """Elsewhere it is copied once. The denoiser's second call computes nothing, as one of its shapes was remembered."""
    pipe = copy.copy(pipe_of("StableDiffusionPipeline", root))
    kind = type(pipe)

    class AsItIs(kind):  # type: ignore[misc, valid-type]
        def encode_prompt(self, *_: Any, **__: Any) -> tuple[Any, None]:
            words = self.tokenizer("a", padding="max_length", return_tensors="pt")
            return self.text_encoder(words.input_ids)[0], None

    pipe.__class__ = AsItIs
    seen = rehearse(pipe, workload(pipe, "a", guided=False))
    assert ("text_encoder", "unet", False) in seen.kept


def test_a_denoiser_that_casts_to_what_its_layers_are_stored_in_can_not_be_cast_layer_by_layer(root: Path) -> None:
    assert "Float8" in str(facts("KandinskyV22CombinedPipeline", root)["casting_fault"])
    assert facts("StableDiffusionPipeline", root)["casting_fault"] is None
    assert facts("FluxPipeline", root)["casting_fault"] is None


def test_weights_that_are_read_without_a_call_of_their_layer(root: Path) -> None:
    pipe = pipe_of("HunyuanDiTPipeline", root)
    used = rehearse(pipe, workload(pipe, "a", guided=False), until="denoised").used_directly
    assert used == {f"time_extra_emb.pooler.{name}_proj" for name in "ckqv"}
    assert facts("QwenImagePipeline", root)["used_directly"] == ()


def test_a_rehearsal_leaves_the_pipe_as_it_is_and_says_why_it_failed(root: Path) -> None:
    pipe = pipe_of("StableDiffusionPipeline", root)
    before = dict(vars(pipe)), parts.denoiser(pipe).forward

    def break_it(stand_in: Any) -> None:
        del stand_in.unet.conv_in

    seen = rehearse(pipe, workload(pipe, "a", guided=True), change=break_it)
    assert "conv_in" in str(seen.fault)
    assert (dict(vars(pipe)), parts.denoiser(pipe).forward) == before
    assert not [m for m in pipe.unet.modules() if m._forward_hooks or m._forward_pre_hooks]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({}, None),
        ({"use_karras_sigmas": True}, "other noise levels"),
        ({"use_beta_sigmas": True}, "other noise levels"),
    ],
)
def test_a_scheduler_of_other_noise_levels_is_refused(shape: dict[str, Any], said: str | None) -> None:
    """UniPC reads Karras' and beta sigmas in another way than the scheduler whose configuration it gets."""
    pipe: Any = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, **shape))
    fault = faults(pipe, [((2,), {"device": "meta"})]).get("unipc")
    assert fault == said if said is None else said in str(fault)


def test_a_scheduler_that_a_whole_call_fails_with_is_refused() -> None:
    """UniPC has no scale_noise, which FluxFill and other pipelines that start from a picture call."""
    pipe: Any = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))

    def tried(scheduler: Any) -> str | None:
        return None if hasattr(scheduler, "scale_noise") else "AttributeError: no scale_noise"

    found = faults(pipe, [((2,), {"device": "meta"})], tried)
    assert found["unipc"] == "SimpleNamespace fails with UniPCMultistepScheduler (AttributeError: no scale_noise)"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers, about its own configurations
@pytest.mark.parametrize(
    ("name", "sets", "names"),
    [
        ("StableDiffusionPAGPipeline", True, False),
        ("StableDiffusionPipeline", False, False),
        ("KandinskyV22CombinedPipeline", False, True),
    ],
)
def test_how_a_call_runs_the_denoiser_is_noted(name: str, sets: bool, names: bool, root: Path) -> None:
    pipe, replaced, named = pipe_of(name, root), list[bool](), list[bool]()
    rehearse(pipe, workload(pipe, "a", guided=True), until="given", change=_noting(replaced, named))
    assert (any(replaced), any(named), len(replaced)) == (sets, names, 1)
