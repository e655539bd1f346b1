"""cache: deep blocks are really skipped, as often as it says, and nothing of one call is left for the next."""

from pathlib import Path
from typing import Any

import copies
import diffusers
import numpy as np
import pytest
import torch
from compiled import captured
from conftest import gpu, make_target
from live import built, difference, picture, profiled_kernels
from tiny_classes import tiny_of
from tiny_pipes import draw, tiny_pipe, tiny_pipeline, tiny_traits, tiny_workload

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.measure.kernels import attention_kernels
from autotune.pipelines import parts
from autotune.pipelines.rehearsal import facts
from autotune.pipelines.running import calibrations_for
from autotune.target import Target

KNOB = find_knob("cache")
UNETS = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionUpscalePipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline",
    "IFPipeline",
    "IFSuperResolutionPipeline",
)
FROM_PICTURES = ("StableDiffusionImg2ImgPipeline", "StableDiffusionXLInpaintPipeline", "IFSuperResolutionPipeline")
FLUX = "FluxPipeline"
LOOSE, STRICT = "first_block:0.05", "first_block:0.00001"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def watched(pipe: Any) -> dict[str, int]:
    """How often the UNet and its middle block are computed since then."""
    seen = {"unet": 0, "mid": 0}

    def count(name: str) -> Any:
        return lambda *_: seen.update({name: seen[name] + 1})

    pipe.unet.conv_in.register_forward_hook(count("unet"))
    pipe.unet.mid_block.resnets[0].register_forward_hook(count("mid"))
    return seen


@pytest.mark.parametrize("family", UNETS)
def test_deepcache_computes_deep_blocks_at_every_nth_step_only(family: str, root: Path) -> None:
    pipe, effects = tiny_pipe(family, root, cache="deepcache:3")
    seen = watched(pipe)
    first = draw(pipe, family, num_inference_steps=10)
    calls, deep = seen["unet"], seen["mid"]
    assert calls >= 8  # PNDM makes one more than asked for, pipelines that start from a picture some fewer
    assert deep == -(-calls // 3)
    assert effects["cache"].count > 10
    verified = build.verify(pipe, complete({"cache": "deepcache:3"}), {})["cache"]
    assert verified.count == calls - deep
    each = verified.what.removeprefix(
        f"of {calls} calls of the denoiser in a picture reused its blocks; skipped in each: "
    )
    assert each.startswith(f"0 2x{effects['cache'].count} 0 ")
    plain = draw(tiny_pipe(family, root)[0], family, num_inference_steps=10)
    assert not np.array_equal(first, plain)


@pytest.mark.parametrize(
    ("family", "value"),
    [*((family, "deepcache:3") for family in ("StableDiffusionPipeline", *FROM_PICTURES)), (FLUX, LOOSE)],
)
def test_a_call_takes_nothing_over_from_the_one_before(family: str, value: str, root: Path) -> None:
    """A call of other length in between: by itself DeepCache counts on from where the first call began."""
    pipe, _ = tiny_pipe(family, root, cache=value)
    first = draw(pipe, family, num_inference_steps=8)
    between = draw(pipe, family, num_inference_steps=5)
    assert np.array_equal(draw(pipe, family, num_inference_steps=8), first)
    fresh, _ = tiny_pipe(family, root, cache=value)
    assert np.array_equal(draw(fresh, family, num_inference_steps=5), between)


@pytest.mark.parametrize(("family", "value"), [("StableDiffusionPipeline", "deepcache:3"), (FLUX, LOOSE)])
def test_a_call_that_was_broken_off_leaves_nothing_behind(family: str, value: str, root: Path) -> None:
    class Stop(Exception):
        pass

    def stop(pipe: Any, step: int, timestep: Any, tensors: Any) -> Any:
        raise Stop

    pipe, _ = tiny_pipe(family, root, cache=value)
    first = draw(pipe, family, num_inference_steps=6)
    with pytest.raises(Stop):
        draw(pipe, family, num_inference_steps=6, callback_on_step_end=stop)
    assert np.array_equal(draw(pipe, family, num_inference_steps=6), first)


def test_another_size_goes_with_the_same_pipe(root: Path) -> None:
    pipe, _ = built(cache="deepcache:3")
    assert picture(pipe, count=2).shape == (2, 64, 64, 3)
    assert picture(pipe, width=32).shape == (1, 64, 32, 3)


def test_a_longer_interval_skips_more_and_changes_more() -> None:
    plain = picture(built()[0], num_inference_steps=10)
    differences = []
    for value in ("deepcache:2", "deepcache:5"):
        pipe, _ = built(cache=value)
        differences.append(float(np.abs(picture(pipe, num_inference_steps=10) - plain).mean()))
    assert 0 < differences[0] < differences[1] < 0.2


def test_a_unet_without_a_middle_block_is_cached_too(root: Path) -> None:
    pipe, _ = tiny_pipe("StableDiffusionPipeline", root)
    pipe.unet.mid_block = None
    assert KNOB.apply is not None
    assert KNOB.apply(pipe, complete({"cache": "deepcache:3"}), "cpu").count > 10
    draw(pipe, "StableDiffusionPipeline", num_inference_steps=6)
    assert build.verify(pipe, complete({"cache": "deepcache:3"}), {})["cache"].count == 4


def test_deepcache_goes_with_token_merging() -> None:
    pipe, _ = built(cache="deepcache:3", tome_ratio=0.5)
    pixels = picture(pipe, num_inference_steps=6)
    assert difference(pixels, picture(pipe, num_inference_steps=6)) == 0
    assert difference(pixels, picture(built(cache="deepcache:3")[0], num_inference_steps=6)) > 1e-3


def test_first_block_skips_where_little_has_changed(root: Path) -> None:
    pipe, effects = tiny_pipe(FLUX, root, cache=LOOSE)
    assert effects["cache"].count == 3  # four blocks, the first of which is always computed
    ran: list[int] = []
    pipe.transformer.single_transformer_blocks[-1].attn.register_forward_hook(lambda *_: ran.append(1))
    pixels = draw(pipe, FLUX, num_inference_steps=9)
    verified = build.verify(pipe, complete({"cache": LOOSE}), {})["cache"]
    assert verified.count == 9 - len(ran) > 0
    what, _, each = verified.what.partition("; skipped in each: ")
    assert what == "of 9 calls of the denoiser in a picture reused its blocks"
    assert "3" in each
    assert not np.array_equal(pixels, draw(tiny_pipe(FLUX, root)[0], FLUX, num_inference_steps=9))


# Where diffusers' caches act, and how many of the modules they keep are computed in 8 steps that could all be reused.
REUSING = [
    (FLUX, "taylorseer:3"),
    (FLUX, "taylorseer_lite:3"),
    (FLUX, "pab:2"),
    (FLUX, "magcache:0.24"),
    (FLUX, "fastercache:3"),
    (FLUX, "dbcache:0.9"),
    ("StableDiffusion3Pipeline", "dbcache:0.9"),
    ("PixArtSigmaPipeline", "dbcache:0.9"),
    ("StableDiffusion3Pipeline", "magcache:0.24"),
    ("StableDiffusion3Pipeline", "taylorseer:3"),
    ("StableDiffusion3Pipeline", "pab:2"),
    ("StableDiffusionXLPipeline", "pab:2"),
    ("PixArtSigmaPipeline", "first_block:0.2"),
]


@pytest.mark.parametrize(("family", "value"), REUSING)
def test_what_is_skipped_is_not_computed_and_counted_for_each_step(family: str, value: str, root: Path) -> None:
    pipe, effects = tiny_pipe(family, root, cache=value)
    modules = effects["cache"].count
    first = draw(pipe, family, num_inference_steps=8)
    [skipped] = parts.denoiser(pipe).cached_calls
    verified = build.verify(pipe, complete({"cache": value}), None)["cache"]
    assert verified.count == sum(number > 0 for number in skipped) >= 2
    assert len(skipped) == 8
    assert skipped[0] == 0
    assert max(skipped) == modules
    plain = draw(tiny_pipe(family, root)[0], family, num_inference_steps=8)
    assert 0 < np.abs(first - plain).max() < 0.5
    draw(pipe, family, num_inference_steps=5)  # leaves nothing behind
    assert np.array_equal(draw(pipe, family, num_inference_steps=8), first)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DDPMScheduler"])
def test_steps_are_counted_where_the_scheduler_keeps_no_count(scheduler: str, root: Path) -> None:
    """PAB would take every call for the first step otherwise, and each call for another call of the same step."""
    family = "StableDiffusionXLPipeline"
    pipe, _ = tiny_pipe(family, root, own_scheduler=scheduler, cache="pab:2", scheduler_sync="default")
    assert not hasattr(pipe.scheduler, "step_index") or pipe.scheduler.step_index is None
    first = draw(pipe, family, num_inference_steps=8)
    [skipped] = pipe.unet.cached_calls
    assert len(skipped) == 8
    assert sum(number > 0 for number in skipped) >= 2
    draw(pipe, family, num_inference_steps=5)
    assert np.array_equal(draw(pipe, family, num_inference_steps=8), first)
    assert type(pipe.scheduler).__name__ == scheduler


def test_seacache_skips_where_the_latents_have_changed_little(root: Path) -> None:
    folder = root / "WanPipeline"
    pipe = diffusers.WanPipeline.from_pretrained(folder if folder.exists() else tiny_of(folder.name, folder))
    pipe.set_progress_bar_config(disable=True)
    work = tiny_workload("WanPipeline", steps=6).model_copy(update={"frames": 5})
    assert "seacache" in facts.facts_of(pipe)["block_caches"]
    effects = build.apply(pipe, complete({"cache": "seacache:0.9"}), work, "cpu")
    drawn = []
    for _ in range(2):
        with torch.no_grad():
            drawn.append(pipe("a", generator=torch.Generator().manual_seed(0), output_type="np").frames)
    [skipped] = pipe.transformer.cached_calls
    assert len(skipped) == 12, "with and without the prompt"
    assert skipped[:2] == skipped[-2:] == [0, 0], "the first and the last step are computed"
    assert max(skipped) == effects["cache"].count
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("value", ["taylorseer:3", "pab:2", "fastercache:3", "first_block:0.9", "dbcache:0.9"])
def test_the_calls_with_and_without_the_prompt_of_a_step_keep_their_own_outputs(value: str, root: Path) -> None:
    """Qwen-Image calls its transformer twice a step. With the outputs of one for both, the guidance would be lost."""
    folder = root / "QwenImagePipeline"
    pipe = diffusers.QwenImagePipeline.from_pretrained(folder if folder.exists() else tiny_of(folder.name, folder))
    pipe.set_progress_bar_config(disable=True)
    work = tiny_workload("QwenImagePipeline", steps=8).model_copy(update={"negative_prompt": "blue"})
    build.apply(pipe, complete({"cache": value}), work, "cpu")
    outputs: list[Any] = []
    pipe.transformer.register_forward_hook(lambda *a: outputs.append(a[2][0]))
    with torch.no_grad():
        pipe("a red circle", true_cfg_scale=4.0, num_inference_steps=8, generator=torch.Generator().manual_seed(0))
    assert len(outputs) == 16
    assert all(not torch.equal(outputs[i], outputs[i + 1]) for i in range(0, 16, 2))
    [skipped] = pipe.transformer.cached_calls
    assert skipped[:2] == [0, 0]
    assert any(skipped)


def test_magcache_is_calibrated_once_before_the_first_call_and_skips_less_below_a_lower_threshold(root: Path) -> None:
    counts = {}
    for value in ("magcache:0.0001", "magcache:0.9"):
        pipe, _ = tiny_pipe("StableDiffusion3Pipeline", root, cache=value)
        calls: list[int] = []
        pipe.transformer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        draw(pipe, "StableDiffusion3Pipeline", num_inference_steps=10)
        assert len(calls) == 4 + 10  # the workload has 4 steps
        draw(pipe, "StableDiffusion3Pipeline", num_inference_steps=10)
        assert len(calls) == 4 + 10 + 10
        counts[value] = sum(number > 0 for number in pipe.transformer.cached_calls[0])
        ratios = pipe.transformer.cache_note.removeprefix("; calibrated ratios ").split()
        assert len(ratios) == 4
        assert len(set(ratios)) > 1
    assert counts["magcache:0.0001"] < counts["magcache:0.9"] <= 6  # of 8 steps, at most 3 in a row
    said = build.verify(pipe, complete({"cache": "magcache:0.9"}), None)["cache"].what
    assert said.endswith("; calibrated ratios " + " ".join(ratios))


def test_known_ratios_are_taken_instead_of_a_calibration_and_draw_the_same(root: Path) -> None:
    family, config = "StableDiffusion3Pipeline", complete({"cache": "magcache:0.9"})
    first, _ = tiny_pipe(family, root, **config)
    drawn = draw(first, family)
    found = calibrations_for(first)
    assert list(found) == ["cache=magcache"]
    again = copies.load(tiny_pipeline(family, root), config)
    build.apply(again, config, tiny_workload(family), "cpu", calibrations=found)
    calls: list[int] = []
    again.transformer.register_forward_hook(lambda *_: calls.append(1))
    assert np.array_equal(draw(again, family), drawn)
    assert len(calls) == 4, "the workload's steps alone"
    assert calibrations_for(again) == found


def switched_on_by_script(pipe: Any, value: str, target: Target) -> Any:
    """The pipe, after the lines that a plain script has for this cache."""
    assert KNOB.script is not None
    part = KNOB.script(complete({"cache": value}), target)
    assert part.why_not is None
    exec("\n".join([*part.imports, *part.lines]), {"pipe": pipe})
    return pipe


@pytest.mark.parametrize("value", ["first_block:0.2", "taylorseer:3", "taylorseer_lite:3", "magcache:0.9"])
def test_the_lines_of_a_script_draw_the_same_picture_each_time(value: str, root: Path) -> None:
    pipe, _ = tiny_pipe(FLUX, root, cache=value)
    steps = tiny_workload(FLUX).steps
    drawn = draw(pipe, FLUX, num_inference_steps=steps)
    assert any(parts.denoiser(pipe).cached_calls[0])
    target = make_target(**tiny_traits(FLUX, root).model_dump())
    workload = target.workload.model_copy(update={"steps": steps})
    target = target.model_copy(update={"calibrations": calibrations_for(pipe), "workload": workload})
    plain = switched_on_by_script(tiny_pipe(FLUX, root)[0], value, target)
    for _ in range(2):
        assert np.array_equal(draw(plain, FLUX, num_inference_steps=steps), drawn)


def test_a_script_needs_a_pipeline_that_tells_its_calls_apart_and_what_was_calibrated(root: Path) -> None:
    assert KNOB.script is not None
    target = make_target(**tiny_traits("PixArtSigmaPipeline", root).model_dump())
    why = KNOB.script(complete({"cache": "first_block:0.2"}), target).why_not
    assert why == "PixArtSigmaPipeline tells diffusers no calls apart; autotune counts them by its hooks"
    target = make_target(**tiny_traits(FLUX, root).model_dump())
    why = KNOB.script(complete({"cache": "magcache:0.12"}), target).why_not
    assert why == "what is measured before the first call is not known here"


def test_layers_inside_of_compiled_blocks_are_not_decided_at_each_step() -> None:
    assert said(cache="pab:2", compile="regional") == (
        "pab decides at each step for layers inside of the blocks that are compiled"
    )
    assert said(cache="taylorseer_lite:3", compile="regional") is None
    assert said(cache="pab:2", guidance_cutoff=0.6) == (
        "a cache keeps outputs of a guided batch, so guidance can't end before the last step"
    )


def test_a_threshold_that_skips_nothing_is_no_effect(root: Path) -> None:
    pipe, _ = tiny_pipe(FLUX, root, cache=STRICT)
    draw(pipe, FLUX)
    with pytest.raises(NoEffect, match=r"cache=first_block:.* had no effect here: 0 of 4 calls of the denoiser"):
        build.verify(pipe, complete({"cache": STRICT}), {})


def test_the_latest_call_counts(root: Path) -> None:
    pipe, _ = tiny_pipe(FLUX, root, cache=LOOSE)
    draw(pipe, FLUX, num_inference_steps=5)
    draw(pipe, FLUX, num_inference_steps=9)
    whole = build.verify(pipe, complete({"cache": LOOSE}), None)["cache"]
    assert whole.count > 0
    assert "of 9 calls" in whole.what


def test_the_step_that_computes_everything_is_among_those_profiled() -> None:
    """After it a UNet may compute no attention at all for a while, and a forced kernel would seem not to have run."""
    pipe, _ = built(cache="deepcache:5", attention="sdpa_math")
    pipe.unet.up_blocks[-1].attentions = torch.nn.ModuleList(PassOn() for _ in pipe.unet.up_blocks[-1].attentions)
    kernels = profiled_kernels(pipe)
    assert set(kernels) == {"math"}
    assert build.verify(pipe, complete({"attention": "sdpa_math"}), kernels)["attention"].count > 0


@pytest.mark.parametrize("steps", [3, 4])
@pytest.mark.parametrize("value", ["pab:3", "fastercache:3"])
def test_a_forced_kernel_is_seen_where_the_first_steps_after_the_first_take_attention_from_the_cache(
    value: str, steps: int, root: Path
) -> None:
    """A flow-matching pipeline is profiled from the end of its first step; no attention is computed in the next two."""
    config = complete({"attention": "sdpa_math", "cache": value})
    pipe, _ = tiny_pipe(FLUX, root, **config)
    hooks = pipe.transformer._forward_pre_hooks.keys() | set()
    kernels = attention_kernels(pipe, lambda: draw(pipe, FLUX, num_inference_steps=steps))
    assert not pipe.transformer._forward_pre_hooks.keys() - hooks
    assert set(kernels) == {"math"}
    assert build.verify(pipe, config, kernels)["attention"].count > 0


class PassOn(torch.nn.Module):
    """No attention."""

    def forward(self, hidden_states: Any, *_: Any, **__: Any) -> Any:
        return (hidden_states,)


@pytest.mark.parametrize(
    ("family", "value", "graphs"),
    [
        ("StableDiffusionPipeline", "deepcache:3", 2),
        (FLUX, LOOSE, 3),
        (FLUX, "taylorseer_lite:3", 3),
        (FLUX, "dbcache:0.9", 3),
    ],
)
def test_it_goes_with_regional_compilation_in_whole_graphs(family: str, value: str, graphs: int, root: Path) -> None:
    """Inductor is left out: what Dynamo captures is all that matters here."""
    eager = draw(tiny_pipe(family, root, cache=value)[0], family, num_inference_steps=6)
    with captured() as counters:
        pipe, _ = tiny_pipe(family, root, cache=value, compile="regional")
        pixels = draw(pipe, family, num_inference_steps=6)
        assert np.array_equal(pixels, draw(pipe, family, num_inference_steps=6))
        assert counters["stats"]["unique_graphs"] == graphs
        assert not counters["graph_break"]
        verified = build.verify(pipe, complete({"cache": value, "compile": "regional"}), {})
    assert np.abs(pixels - eager).max() <= 1 / 255
    assert all(effect.count > 0 for effect in verified.values())


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("deepcache:2", True),
        ("deepcache:10", True),
        ("deepcache:1", False),
        ("deepcache:", False),
        ("deepcache:2.5", False),
        ("deepcache:²", False),
        ("first_block:0.2", True),
        ("first_block:0", False),
        ("first_block:1", False),
        ("first_block:nan", False),
        ("first_block:much", False),
        ("teacache:0.2", False),
        ("pab:4", True),
        ("pab:1", False),
        ("taylorseer:0.5", False),
        ("taylorseer_lite:7", True),
        (3, False),
    ],
)
def test_any_interval_and_any_threshold_is_a_value(value: str | int, is_one: bool) -> None:
    assert KNOB.accepts(value) == is_one


@pytest.mark.parametrize("family", [FLUX, "StableDiffusion3Pipeline", "PixArtSigmaPipeline", "StableDiffusionPipeline"])
def test_what_is_offered_to_whom(family: str, root: Path) -> None:
    traits = tiny_traits(family, root)
    target, kind = make_target(**traits.model_dump()), traits.denoiser_class
    deep, first = KNOB.why_not("deepcache:3", target), KNOB.why_not("first_block:0.05", target)
    assert deep == (None if family == "StableDiffusionPipeline" else f"DeepCache supports UNets, not {kind}")
    cached = (FLUX, "PixArtSigmaPipeline")  # SD3's last block gives no text, which diffusers' first-block cache reads
    assert first == (
        None if family in cached else f"diffusers' cache of this kind does not work with {kind} in {family}"
    )
    assert KNOB.why_not("dbcache:0.12", target) == (
        f"cache-dit has no adapter that works with {kind} in {family}" if family == "StableDiffusionPipeline" else None
    )
    assert (KNOB.why_not("pab:2", target) is None) == (
        family != "StableDiffusionPipeline" or "pab" in traits.block_caches
    )
    assert KNOB.why_not("taylorseer:3", target) == (
        None
        if "taylorseer" in traits.block_caches
        else f"diffusers' cache of this kind does not work with {kind} in {family}"
    )


def test_a_single_step_has_nothing_to_reuse() -> None:
    target = make_target()
    target = target.model_copy(update={"workload": target.workload.model_copy(update={"steps": 1})})
    assert KNOB.why_not("deepcache:3", target) == "needs at least 2 steps, and a call has 1"
    assert KNOB.why_not("none", target) is None


def said(**values: Any) -> str | None:
    return KNOB.clash(complete({"cache": "deepcache:3", **values}), make_target(gpu(8, 0)))


def test_clash_of_deepcache_with_guidance_that_ends_half_way() -> None:
    assert said(guidance_cutoff=0.6) == (
        "DeepCache keeps outputs of a guided batch, so guidance can't end before the last step"
    )
    assert said(guidance_cutoff=0.6, cache="first_block:0.05") is None
    assert said() is None


@pytest.mark.parametrize("compile", ["denoiser", "denoiser+vae", "everything", "trace"])
def test_clash_with_graphs_of_a_whole_denoiser(compile: str) -> None:
    assert said(compile=compile) == (
        "a cache decides at each step what to compute, which only regional compilation supports"
    )
    assert said(compile="regional") is None


def test_clash_with_cuda_graphs_and_with_streams() -> None:
    assert said(compile="regional", compile_mode="reduce-overhead") == (
        "a cache would keep outputs in the memory of a CUDA graph, which the next graph overwrites"
    )
    assert said(compile="regional", compile_mode="max-autotune-no-cudagraphs") is None
    assert said(offload="group") == (
        "group offloading prefetches layers in a fixed order, which a cache breaks by skipping blocks"
    )
    assert said(offload="model") is None


def test_what_is_kept_is_no_part_of_the_model(root: Path) -> None:
    plain, _ = tiny_pipe("StableDiffusionPipeline", root)
    pipe, _ = tiny_pipe("StableDiffusionPipeline", root, cache="deepcache:3")
    draw(pipe, "StableDiffusionPipeline")
    assert pipe.unet.state_dict().keys() == plain.unet.state_dict().keys()
    assert isinstance(pipe.unet, torch.nn.Module)


def test_libraries_that_read_arguments_by_place_are_refused_where_all_are_given_by_name() -> None:
    """DeepCache's own helper, which a script would use, and tomesd fail on Kandinsky 2.2."""
    assert KNOB.script is not None
    for names in (False, True):
        target = make_target(names_sample=names, scheduler_class="DDIMScheduler")
        assert ("by place" in str(KNOB.script(complete({"cache": "deepcache:3"}), target).why_not)) is names
        assert ("by name" in str(find_knob("tome_ratio").why_not(0.5, target))) is names
