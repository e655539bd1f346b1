"""Two denoisers that take turns (Wan 2.2): settings reach both, and say so. Memory settings reach the 3-D VAE."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conftest import CPU, make_target
from tiny_videos import FRAMES, SIDE, tiny_ltx, tiny_wan

from autotune.building import build
from autotune.config import Value
from autotune.footprint import Footprint
from autotune.knob import Effect
from autotune.knobs import complete, find_knob
from autotune.measure import call_pipe
from autotune.pipeline import Pipeline
from autotune.pipelines import parts, resolve
from autotune.pipelines.components import components_of
from autotune.pipelines.inspect import traits_of
from autotune.target import Target
from autotune.workload import Workload

WORKLOAD = Workload(
    prompts=("a red circle", "a blue star"), width=SIDE, height=SIDE, frames=FRAMES, steps=3, guidance_scale=3.0
)
Built = tuple[Any, dict[str, Effect]]


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    pipeline = resolve(str(tiny_wan(tmp_path_factory.mktemp("videos") / "wan", two=True)))
    return pipeline.model_copy(update={"traits": traits_of(pipeline, rehearsed=False)})


@pytest.fixture(scope="module")
def target(wan: Pipeline) -> Target:
    return make_target().model_copy(update={"pipeline": wan, "workload": WORKLOAD, "device": CPU})


@pytest.fixture
def built(wan: Pipeline) -> Callable[..., Built]:
    def build_it(**values: Value) -> Built:
        config = complete(values)
        pipe = build.load(wan, config, "cpu")
        pipe.set_progress_bar_config(disable=True)
        return pipe, build.apply(pipe, config, WORKLOAD, "cpu")

    return build_it


def drawn(pipe: Any, batch: int = 1, workload: Workload = WORKLOAD) -> np.ndarray:
    """The pixels of one call: clips x frames x height x width x 3."""
    with torch.no_grad():
        clips = call_pipe(pipe, workload, list(WORKLOAD.prompts[:batch]), list(range(batch)))
    return np.stack([np.stack([np.asarray(frame) for frame in clip.frames]) for clip in clips])  # type: ignore[union-attr]


def weight(model: Any) -> torch.Tensor:
    """Of a linear layer that settings reach."""
    return model.blocks[0].ffn.net[2].weight  # type: ignore[no-any-return]


def test_both_transformers_are_denoisers_and_take_turns(wan: Pipeline, built: Callable[..., Built]) -> None:
    assert wan.known.denoisers == ("transformer", "transformer_2")
    pipe, _ = built()
    assert list(parts.step_models(pipe)) == ["transformer", "transformer_2"]
    calls: list[str] = []
    for name, model in parts.denoisers(pipe).items():
        model.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    drawn(pipe)
    assert set(calls) == {"transformer", "transformer_2"}
    assert len(calls) == 2 * WORKLOAD.steps  # with and without the prompt


@pytest.mark.parametrize(
    ("values", "reached"),
    [
        (
            {"quantization": "int8_weight_only"},
            lambda model: "torchao" in type(model.blocks[0].ffn.net[2].weight.data).__module__,
        ),
        (
            {"layerwise_casting": "float8_e4m3fn"},
            lambda model: model.blocks[0].ffn.net[2].weight.dtype == torch.float8_e4m3fn,
        ),
        ({"qkv_fusion": True}, lambda model: model.blocks[0].attn1.fused_projections),
        ({"attention": "sdpa_math"}, lambda model: type(model.blocks[0].attn1.processor).__name__ == "Forced"),
        ({"memory_format": "channels_last"}, lambda model: model.patch_embedding.weight.stride(1) == 1),
        ({"dtype": "bf16"}, lambda model: weight(model).dtype == torch.bfloat16),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_of_the_denoiser_reaches_both_and_its_script_names_both(
    values: dict[str, Value], reached: Callable[[Any], bool], built: Callable[..., Built], target: Target
) -> None:
    pipe, effects = built(**values)
    assert [reached(model) for model in parts.denoisers(pipe).values()] == [True, True]
    (name,) = values
    assert drawn(pipe).shape == (1, FRAMES, SIDE, SIDE, 3)
    knob = find_knob(name)
    assert knob.script is not None
    script = knob.script(complete(values), target)
    assert effects[name].count > 0
    named = set(re.findall(r"\bpipe\.(\w+)", "\n".join(script.lines)))
    assert script.why_not or script.load or named >= set(target.pipeline.known.denoisers)


def test_the_footprint_has_both_and_offloading_holds_one_at_a_time(wan: Pipeline, target: Target) -> None:
    components = {component.name: component for component in components_of(wan)}
    first, second = components["transformer"], components["transformer_2"]
    assert (first.runs_each_step, second.runs_each_step) == (True, False)
    assert first.cast == second.cast > 0
    loaded = Footprint.of(tuple(components.values()))
    weighs = find_knob("quantization").weighs
    assert weighs is not None
    smaller = weighs(loaded, complete({"quantization": "int8_weight_only"}), target)
    saved = {p.component.name: p.bytes - q.bytes for p, q in zip(loaded.parts, smaller.parts, strict=True)}
    assert saved["transformer"] == saved["transformer_2"] > 0
    largest = max(part.bytes for part in loaded.parts)
    assert loaded.offloaded("model").resident_bytes == largest < loaded.weights_bytes


def test_clips_of_a_batch_are_decoded_one_at_a_time(built: Callable[..., Built]) -> None:
    (whole, _), (sliced, effects) = built(), built(vae_slicing=True)
    assert effects["vae_slicing"].count == 1
    seen: list[int] = []
    sliced.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    assert np.abs(drawn(whole, 2).astype(int) - drawn(sliced, 2)).max() <= 1
    assert set(seen) == {1}


def test_each_denoiser_has_a_cache_that_begins_anew_with_every_clip(wan: Pipeline) -> None:
    from autotune.knobs.caching import _hooked

    workload, config = WORKLOAD.model_copy(update={"steps": 8}), complete({})
    pipe = build.load(wan, config, "cpu")
    pipe.set_progress_bar_config(disable=True)
    build.apply(pipe, config, workload, "cpu")
    uncached = drawn(pipe, workload=workload)
    assert np.array_equal(drawn(pipe, workload=workload), uncached)
    _hooked.switch_on(pipe, diffusers.FirstBlockCacheConfig(threshold=0.9))
    first, counts = drawn(pipe, workload=workload), list(parts.denoiser(pipe).cached_calls[-1])
    second = drawn(pipe, workload=workload)
    assert np.array_equal(first, second)  # nothing of the clip before is reused
    assert len(counts) == 2 * workload.steps
    assert sum(map(bool, counts)) > 0
    assert all(hasattr(model, "_diffusers_hook") for model in parts.denoisers(pipe).values())


@pytest.mark.parametrize("save", [tiny_wan, tiny_ltx])
def test_a_three_dimensional_vae_decodes_in_tiles(save: Callable[[Path], Path], tmp_path: Path) -> None:
    pipeline = resolve(str(save(tmp_path / "tiny")))
    traits = traits_of(pipeline, rehearsed=False)
    assert traits.vae_tile_px is not None
    assert traits.vae_slices
    known = pipeline.model_copy(update={"traits": traits})
    large = WORKLOAD.model_copy(update={"width": 2 * traits.vae_tile_px})
    knob, target = find_knob("vae_tiling"), make_target()
    assert knob.why_not(True, target.model_copy(update={"pipeline": known, "workload": large})) is None
    small = target.model_copy(update={"pipeline": known, "workload": WORKLOAD})
    assert knob.why_not(True, small) == f"{SIDE}x{SIDE} fits in one tile of {traits.vae_tile_px} pixels"
    pipe = build.load(pipeline, complete({}), "cpu")
    assert build.apply(pipe, complete({"vae_tiling": True}), WORKLOAD, "cpu")["vae_tiling"].count == 1
    tiles: list[int] = []
    pipe.vae.decoder.register_forward_pre_hook(lambda _, given: tiles.append(given[0].shape[-1]))
    side = traits.vae_tile_px // parts.cell_px(pipe)
    latents = torch.zeros(1, pipe.transformer.config.in_channels, 1, 2, 2 * side)
    with torch.no_grad():
        pipe.vae.decode(latents)
    assert max(tiles) <= side < 2 * side
