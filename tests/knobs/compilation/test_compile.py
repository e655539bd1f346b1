"""compile: whole graphs that draw the eager picture, shared by blocks of a kind; and no kernel comes out of a cache.

Torch keeps the attention kernel that was current when a graph was made in neither Dynamo's guards nor the key of its
cache on disk: a trial could silently run the kernel of the trial before. Forced inside the processor, it can't.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compiled import captured, compile_in_child
from conftest import CPU, gpu, make_target
from live import built, difference, loaded, picture
from tiny_pipes import draw, tiny_pipe, tiny_traits

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.knobs.compilation._inductor import flags_of
from autotune.knobs.compilation.compile import _how
from autotune.pipelines.running import remember

KNOB = find_knob("compile")
BLOCKS = 7  # transformer blocks of the demo
FORCED = {"compile": "regional", "attention": "sdpa_math"}  # a clash for the search; `build` asks nobody


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture(scope="module")
def first_process(cache: Any) -> list[dict[str, Any]]:
    return compile_in_child(
        cache,
        {"compile": "regional"},
        {"compile": "regional", "tome_ratio": 0.5},
        {"compile": "regional", "pattern_matcher": False},
    )


@pytest.fixture(scope="module")
def second_process(cache: Any, first_process: Any) -> list[dict[str, Any]]:
    return compile_in_child(
        cache,
        FORCED,
        {"compile": "regional"},
        {**FORCED, "pattern_matcher": False},
        {"compile": "regional", "pattern_matcher": False},
        {"compile": "regional", "attention": "vanilla"},
    )


def test_regional_compilation_draws_the_eager_picture_in_whole_graphs(first_process: list[dict[str, Any]]) -> None:
    plain = first_process[0]
    assert plain["difference"] < 1e-3
    assert plain["compiled"] == BLOCKS
    assert plain["verified"]["compile"]["count"] == plain["graphs"] > 0
    assert plain["verified"]["compile"]["what"] == "graphs compiled, 0 graph breaks, 1 recompilations"


def test_blocks_of_a_kind_share_their_graphs(
    first_process: list[dict[str, Any]], second_process: list[dict[str, Any]]
) -> None:
    """Otherwise a denoiser of more blocks than Dynamo's limit of graphs for one function (8) fails to compile."""
    graphs = [seen["graphs"] for seen in (*first_process, *second_process)]
    assert graphs == [2] * 8  # one for each width


def test_token_merging_lies_inside_regional_graphs(first_process: list[dict[str, Any]]) -> None:
    merging = first_process[1]
    assert merging["difference"] < 1e-3
    assert merging["compiled"] == BLOCKS
    assert merging["verified"]["compile"]["what"] == "graphs compiled, 0 graph breaks, 1 recompilations"


def test_vanilla_attention_stays_the_formula_when_compiled(second_process: list[dict[str, Any]]) -> None:
    assert second_process[4]["kernels"] == {}
    assert second_process[4]["difference"] < 1e-3
    assert second_process[4]["verified"]["attention"]["count"] == 1


def test_the_math_kernel_that_inductor_turned_into_a_fused_one_is_no_effect(
    first_process: list[dict[str, Any]], second_process: list[dict[str, Any]]
) -> None:
    assert set(first_process[0]["kernels"]) == {"flash"}
    assert set(second_process[0]["kernels"]) == {"flash"}
    assert second_process[0]["no_effect"].startswith("attention=sdpa_math had no effect here: 0 attention calls")


def test_a_forced_kernel_runs_although_the_cache_on_disk_has_the_graph_of_another(
    first_process: list[dict[str, Any]], second_process: list[dict[str, Any]]
) -> None:
    """Where Inductor does not rewrite it: the graph of SDPA's own choice is on disk since the first process."""
    assert set(first_process[2]["kernels"]) == {"flash"}
    assert second_process[2]["kernels"] == {}  # the formula, inlined
    assert second_process[2]["difference"] < 1e-3


def test_a_forced_kernel_does_not_stay_behind_in_the_cache(second_process: list[dict[str, Any]]) -> None:
    for seen in (second_process[1], second_process[3]):
        assert set(seen["kernels"]) == {"flash"}
        assert seen["read_from_disk"] > 0
        assert seen["difference"] < 1e-3


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What would be compiled since then, and how; nothing is."""
    seen: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: seen.append((self, how)))
    monkeypatch.setattr(torch, "compile", lambda function, **how: seen.append((function, how)) or function)
    return seen


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("regional", ["BasicTransformerBlock"] * BLOCKS),
        ("denoiser", ["UNet2DConditionModel"]),
        ("denoiser+vae", ["UNet2DConditionModel", "method"]),
        ("everything", ["UNet2DConditionModel", "method", "CLIPTextModel"]),
    ],
)
def test_the_parts_asked_for_are_compiled_whole_and_counted(compiled: list[Any], value: str, kinds: list[str]) -> None:
    _, effects = built(compile=value)
    assert [type(what).__name__ for what, _ in compiled] == kinds
    assert effects["compile"].count == len(kinds)
    assert all(how["fullgraph"] and how["dynamic"] is False for _, how in compiled)


def test_merging_blocks_are_still_found(compiled: list[Any]) -> None:
    built(compile="regional", tome_ratio=0.5)
    assert [type(what).__name__ for what, _ in compiled] == ["ToMeBlock"] * BLOCKS


def test_graphs_may_break_at_the_hooks_of_model_offload_only(compiled: list[Any]) -> None:
    built(compile="denoiser", offload="model")
    assert [how["fullgraph"] for _, how in compiled] == [False]


def test_the_hooks_of_model_offload_lie_around_regions(compiled: list[Any]) -> None:
    built(compile="regional", offload="model")
    assert [how["fullgraph"] for _, how in compiled] == [True] * BLOCKS


def test_regions_stay_whole_under_model_offload() -> None:
    with captured() as counters:
        pipe, _ = built(compile="regional", offload="model")
        first, again = picture(pipe), picture(pipe)
        assert (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())) == (2, 0)
    assert max(difference(first, again), difference(first, picture(built()[0]))) < 1e-4


@pytest.mark.parametrize(("value", "kinds"), [
    ("regional", ["BasicTransformerBlock"] * 4 + ["ControlNetModel"]),
    ("denoiser", ["UNet2DConditionModel", "ControlNetModel"]),
])  # fmt: skip
def test_a_controlnet_is_compiled_with_the_denoiser(
    compiled: list[Any], value: str, kinds: list[str], root: Path
) -> None:
    _, effects = tiny_pipe("StableDiffusionControlNetPipeline", root, compile=value)
    assert [type(what).__name__ for what, _ in compiled] == kinds
    assert effects["compile"].count == len(kinds)


def test_a_controlnet_and_its_denoiser_are_wrapped_for_cuda_graphs(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """The pipeline marks the beginning of a step only if both are modules that torch.compile has wrapped."""
    from diffusers.utils.torch_utils import is_compiled_module

    def compiled_by(mode: str) -> tuple[bool, bool]:
        pipe, effects = tiny_pipe("StableDiffusionControlNetPipeline", root, compile="denoiser", compile_mode=mode)
        assert effects["compile"].count == 2
        return is_compiled_module(pipe.unet), is_compiled_module(pipe.controlnet)

    assert compiled_by("reduce-overhead") == (True, True)
    assert compiled_by("max-autotune-no-cudagraphs") == (False, False)


def test_regions_of_a_transformer_are_its_kinds_of_blocks(compiled: list[Any], root: Path) -> None:
    _, effects = tiny_pipe("FluxPipeline", root, compile="regional")
    kinds = [type(what).__name__ for what, _ in compiled]
    assert kinds == ["FluxTransformerBlock"] * 2 + ["FluxSingleTransformerBlock"] * 2
    assert effects["compile"].count == 4


def test_under_a_cache_of_blocks_the_graph_lies_inside_its_hooks(compiled: list[Any], root: Path) -> None:
    _, effects = tiny_pipe("FluxPipeline", root, compile="regional", cache="first_block:0.5")
    assert [what.__name__ for what, _ in compiled] == ["forward"] * 4
    assert effects["compile"].count == 4


def test_everything_of_sdxl_is_captured_whole(root: Path) -> None:
    """By itself, transformers breaks an encoder's first graph where its hidden states are asked for."""
    family, values = "StableDiffusionXLPipeline", {"compile": "everything"}
    with captured():
        pipe, effects = tiny_pipe(family, root, **values)
        pixels = draw(pipe, family)
        assert np.array_equal(draw(pipe, family), pixels)
        verified = build.verify(pipe, complete(values), {})["compile"]
    assert effects["compile"].count == 4
    assert str(verified) == "4 graphs compiled, 0 graph breaks, 0 recompilations"
    assert np.abs(pixels - draw(tiny_pipe(family, root)[0], family)).max() <= 1 / 255


def test_a_function_that_was_given_up_is_not_called_compiled() -> None:
    """Dynamo gives up a function at its ninth graph, and runs it as plain Python from then on."""
    config = complete({"compile": "regional"})
    with captured():
        function = torch.compile(lambda x: x + 1, dynamic=False)
        for size in range(2, 14):
            function(torch.ones(size))
        with pytest.raises(NoEffect) as caught:
            build.verify(loaded(), config, {"flash": 28})
        hooked = build.verify(loaded(), config.replace(offload="model"), {"flash": 28})
    said = "graphs compiled, 0 graph breaks, 7 recompilations"
    assert str(caught.value) == (
        f"compile=regional had no effect here: 0 {said}, and 1 functions that failed to compile and ran uncompiled"
    )
    assert str(hooked["compile"]) == f"8 {said}"


def test_mode_and_flags_reach_inductor_together(compiled: list[Any]) -> None:
    """torch.compile takes a mode or options, not both."""
    built(compile="denoiser", compile_mode="max-autotune", inductor_flags="fast_diffusion")
    [(_, how)] = compiled
    assert "mode" not in how
    mode, flags = torch._inductor.list_mode_options("max-autotune"), flags_of("fast_diffusion")
    assert how["options"] == mode | flags
    assert how["options"].keys() > flags.keys()


def test_without_mode_and_flags_inductor_keeps_its_defaults(compiled: list[Any]) -> None:
    built(compile="denoiser")
    assert compiled[0][1]["options"] is None


def test_a_pipe_in_which_no_graph_was_made_is_no_effect() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    with pytest.raises(NoEffect, match="compile=regional had no effect here: 0 graphs compiled"):
        build.verify(loaded(), complete({"compile": "regional"}), {"flash": 28})


def test_a_denoiser_that_names_no_repeated_blocks_refuses_regional_compilation() -> None:
    target = make_target(repeated_blocks=())
    assert KNOB.why_not("regional", target) == "UNet2DConditionModel has no repeated blocks"
    assert KNOB.why_not("denoiser", target) is None


def test_a_pipeline_without_a_vae_refuses_to_compile_it() -> None:
    target = make_target(vae_class=None)
    assert KNOB.why_not("denoiser+vae", target) == "StableDiffusionPipeline has no VAE"
    assert KNOB.why_not("denoiser", target) is None


def test_a_family_without_repeated_blocks_refuses_regional_compilation(root: Path) -> None:
    target = make_target(**tiny_traits("IFPipeline", root).model_dump())
    assert KNOB.why_not("regional", target) == "UNet2DConditionModel has no repeated blocks"
    assert KNOB.why_not("denoiser+vae", target) == "IFPipeline has no VAE"
    assert KNOB.why_not("everything", target) is None


@pytest.mark.parametrize(
    ("family", "block"),
    [("StableDiffusion3Pipeline", "JointTransformerBlock"), ("PixArtSigmaPipeline", "BasicTransformerBlock")],
)
def test_a_plain_list_of_equal_blocks_is_compiled_in_regions(family: str, block: str, root: Path) -> None:
    """diffusers names no repeated blocks for these."""
    target = make_target(**tiny_traits(family, root).model_dump())
    assert target.pipeline.known.repeated_blocks == (block,)
    assert KNOB.why_not("regional", target) is None
    pipe, effects = tiny_pipe(family, root, compile="regional")
    assert effects["compile"].count == 2
    assert all(b._compiled_call_impl is not None for b in pipe.transformer.transformer_blocks)
    assert KNOB.script is not None
    lines = KNOB.script(complete({"compile": "regional"}), target).lines
    assert any(f"in ('{block}',)" in line for line in lines)


def test_the_length_of_the_prompt_is_dynamic_where_prompts_are_not_padded() -> None:
    pipe, config = loaded(), complete({"compile": "regional"})
    assert _how(config, pipe)["dynamic"] is False
    remember(pipe, traits=make_target(prompt_lengths_vary=True).pipeline.known)
    assert _how(config, pipe)["dynamic"] is None


def test_of_many_lengths_the_second_compiles_the_last_graph() -> None:
    """With static shapes the ninth would raise FailOnRecompileLimitHit."""
    from torch._dynamo.testing import CompileCounter

    class Layer(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.cumsum(dim=1) * 2

    counter, layer = CompileCounter(), Layer()
    remember(layer, traits=make_target(prompt_lengths_vary=True).pipeline.known)
    how = _how(complete({"compile": "regional"}), layer)
    layer.compile(fullgraph=how["fullgraph"], dynamic=how["dynamic"], backend=counter)
    for length in range(3, 20):
        layer(torch.ones(1, length, 4))
    assert counter.frame_count == 2


def test_a_denoiser_that_no_whole_graph_can_hold_is_compiled_in_regions_alone() -> None:
    target = make_target(whole_graph_fault="the forward of X reads a value (Tensor.tolist)")
    said = "no whole graph can hold the denoiser: the forward of X reads a value (Tensor.tolist)"
    assert {v: KNOB.why_not(v, target) for v in ("denoiser", "denoiser+vae", "everything")} == dict.fromkeys(
        ("denoiser", "denoiser+vae", "everything"), said
    )
    assert KNOB.why_not("regional", target) is None


def test_a_pipeline_without_text_encoders_refuses_to_compile_them() -> None:
    said = "StableDiffusionPipeline has no text encoder"
    assert KNOB.why_not("everything", make_target(text_encoders=())) == said
    assert KNOB.why_not("everything", make_target(text_encoders=("text_encoder",))) is None


@pytest.mark.parametrize("value", ["denoiser", "denoiser+vae", "everything", "trace"])
def test_clash_of_token_merging_with_a_whole_denoiser(value: str) -> None:
    said = KNOB.clash(complete({"compile": value, "tome_ratio": 0.5}), make_target())
    assert said == "the hook of token merging breaks the graph of a whole denoiser; regional compilation supports it"
    assert KNOB.clash(complete({"compile": "regional", "tome_ratio": 0.5}), make_target()) is None
    assert KNOB.clash(complete({"compile": value}), make_target()) is None


def test_clash_of_bfloat16_with_inductor_below_8_0() -> None:
    config = complete({"compile": "regional", "dtype": "bf16"})
    assert KNOB.clash(config, make_target(gpu(7, 5))) == "Inductor skips bfloat16 below compute capability 8.0"
    assert KNOB.clash(config, make_target(gpu(8, 0))) is None
    assert KNOB.clash(config, make_target(CPU)) is None
    assert KNOB.clash(config.replace(dtype="fp16"), make_target(gpu(7, 5))) is None


def test_a_device_that_torch_cannot_compile_for_refuses_with_the_probes_reason() -> None:
    fault = "torch.compile needs a C++ compiler, and there is no g++"
    target = make_target(CPU.model_copy(update={"compile_fault": fault}))
    assert [KNOB.why_not(value, target) for value in KNOB.values] == [None, fault, fault, fault, fault]
