"""attention: the kernel asked for is the kernel that runs, and the only one. The profiler says so, not the setting."""

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from compiled import captured
from conftest import CPU, gpu, make_target
from diffusers.models import attention_dispatch
from diffusers.models.attention_processor import Attention
from live import built, difference, loaded, picture, profiled_kernels
from tiny_pipes import draw, tiny_pipe, tiny_traits

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.knobs.attention._sage import as_operator
from autotune.measure.kernels import attention_kernels
from autotune.pipelines import parts
from autotune.target import Target

KNOB = find_knob("attention")
ON_A_CPU = {
    "sdpa": {"flash"},
    "sdpa_flash": {"flash"},
    "sdpa_math": {"math"},
    "vanilla": set(),
    "sliced": set(),
}


# Family -> the ways to compute its attention that need nothing but torch, on a CPU.
IN_FAMILIES = {
    "StableDiffusionControlNetPipeline": ("sdpa_math", "vanilla", "sliced"),
    "StableDiffusionXLPipeline": ("sdpa_math", "vanilla", "sliced"),
    "IFPipeline": ("sdpa_math", "vanilla", "sliced"),
    "FluxPipeline": ("sdpa_math",),
    "StableDiffusion3Pipeline": ("sdpa_math",),
    "PixArtSigmaPipeline": ("sdpa_math", "vanilla"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def target_of(family: str, root: Path, device: Any = CPU, **versions: str) -> Target:
    target = make_target(device, **tiny_traits(family, root).model_dump())
    return target.model_copy(update={"versions": versions})


def blocks(pipe: Any) -> list[Any]:
    return [m for part in (pipe.unet, pipe.vae) for m in part.modules() if isinstance(m, Attention)]


@pytest.mark.parametrize(("value", "kernels"), ON_A_CPU.items())
def test_a_forced_kernel_is_the_kernel_that_runs(value: str, kernels: set[str]) -> None:
    pipe, _ = built(attention=value)
    seen = profiled_kernels(pipe)
    assert set(seen) == kernels
    verified = build.verify(pipe, complete({"attention": value}), seen)
    assert all(effect.count > 0 for effect in verified.values())
    assert set(verified) == ({"attention"} if value != "sdpa" else set())


@pytest.mark.parametrize("value", [value for value in ON_A_CPU if value != "sdpa"])
def test_the_way_to_compute_attention_does_not_change_the_picture(value: str) -> None:
    assert difference(picture(built()[0]), picture(built(attention=value)[0])) < 1e-4


@pytest.mark.parametrize("value", ["sdpa_math", "vanilla"])
def test_every_block_is_set_and_counted_and_has_a_processor_of_its_own(value: str) -> None:
    pipe, effects = built(attention=value)
    assert len({id(block.processor) for block in blocks(pipe)}) == len(blocks(pipe)) == 16
    assert effects["attention"].count == (14 if value == "sdpa_math" else 16)  # no kernel is forced in the VAE


def test_no_kernel_is_forced_in_the_vae_whose_head_is_too_large_for_the_fast_ones() -> None:
    pipe, _ = built(attention="sdpa_math")
    forced = {type(block.processor).__name__ for block in pipe.unet.modules() if hasattr(block, "processor")}
    own = {type(block.processor).__name__ for block in pipe.vae.modules() if hasattr(block, "processor")}
    assert (forced, own) == ({"Forced"}, {"AttnProcessor2_0"})


@pytest.mark.parametrize(
    ("value", "device", "seen", "said"),
    [
        ("sdpa_flash", (8, 0), (256, False, True), None),
        ("sdpa_flash", (8, 0), (512, False, True), "the flash kernel takes heads of at most 256"),
        ("sdpa_flash", (8, 0), (64, True, True), "the flash kernel takes no attention mask"),
        ("sdpa_cudnn", (8, 0), (160, False, True), "the cudnn kernel takes heads of at most 128"),
        ("sdpa_cudnn", (9, 0), (160, False, True), "the cudnn kernel takes heads of at most 128"),
        ("sdpa_cudnn", (9, 0), (36, False, True), "the cudnn kernel takes heads of a multiple of 8"),
        ("sdpa_efficient", (8, 0), (512, True, True), None),
        ("sdpa_efficient", (8, 0), (64, False, False), "calls SDPA outside of attention processors"),
        ("flash_attn", (8, 0), (64, True, True), "the flash_attn kernel takes no attention mask"),
    ],
)
def test_a_kernel_is_offered_for_the_heads_and_masks_of_each_step(
    value: str, device: tuple[int, int], seen: tuple[int, bool, bool], said: str | None
) -> None:
    installed = {"flash-attn": "2.8.0"}
    target = make_target(gpu(*device), step_attention=(seen,), dispatches_attention=True)
    answer = KNOB.why_not(value, target.model_copy(update={"versions": installed}))
    assert answer == said if said is None else said in str(answer)


@pytest.mark.parametrize(("told", "offered"), [({"cudnn": 256}, True), ({"cudnn": 128}, False), ({}, False)])
def test_the_largest_head_is_what_torch_says_of_this_gpu(told: dict[str, int], offered: bool) -> None:
    """256 on an H100 needs a cuDNN and a torch that can; by its compute capability alone it is not offered."""
    device = gpu(9, 0).model_copy(update={"sdpa_heads": told})
    assert (KNOB.why_not("sdpa_cudnn", make_target(device, step_attention=((256, False, True),))) is None) == offered


def test_flex_is_not_offered_on_a_cpu() -> None:
    assert KNOB.why_not("flex", make_target(dispatches_attention=True)) == "torch's flex attention is made for GPUs"


def test_sage_attention_lies_in_a_whole_graph_as_one_operator() -> None:
    """The real function launches kernels by hand, where Dynamo breaks the graph. The package is not installed here."""
    calls: list[float] = []

    def sageattn(q: Any, k: Any, v: Any, tensor_layout: str, is_causal: bool, sm_scale: float) -> Any:
        torch._dynamo.graph_break()
        calls.append(sm_scale)
        return q + k + v

    dispatch = SimpleNamespace(sageattn=sageattn)
    as_operator(dispatch)
    wrapped = dispatch.sageattn
    as_operator(dispatch)
    assert dispatch.sageattn is wrapped
    tensor = torch.ones(1, 2, 3, 16)
    whole = torch.compile(lambda x: wrapped(q=x, k=x, v=x, tensor_layout="NHD") * 2, fullgraph=True, backend="eager")
    assert torch.equal(whole(tensor), torch.full_like(tensor, 6.0))
    assert calls == [0.25]


def test_sliced_attention_is_counted_in_the_denoiser() -> None:
    pipe, effects = built(attention="sliced")
    sliced = [p for p in pipe.unet.attn_processors.values() if type(p).__name__ == "SlicedAttnProcessor"]
    assert effects["attention"].count == len(sliced) == 14


def test_a_forced_kernel_goes_with_fused_projections() -> None:
    pipe, _ = built(attention="sdpa_math", qkv_fusion=True)
    ran: list[str] = []
    for name, module in pipe.unet.named_modules():
        if name.endswith(".to_qkv"):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    assert set(profiled_kernels(pipe)) == {"math"}
    assert len(set(ran)) == 7
    assert difference(picture(pipe), picture(built()[0])) < 1e-4


def test_a_forced_kernel_goes_with_token_merging() -> None:
    pipe, _ = built(attention="sdpa_math", tome_ratio=0.5)
    assert set(profiled_kernels(pipe)) == {"math"}
    assert difference(picture(pipe), picture(built(tome_ratio=0.5)[0])) < 1e-4


def test_processors_of_a_kind_have_one_class_so_that_compiled_blocks_share_graphs() -> None:
    pipe, _ = built(attention="sdpa_math")
    assert len({type(m.processor) for m in pipe.unet.modules() if hasattr(m, "processor")}) == 1


def test_a_forced_processor_stays_of_its_kind_and_keeps_its_state() -> None:
    pipe = loaded()
    plain = type(blocks(pipe)[0].processor)
    for block in blocks(pipe):
        block.processor.mark = id(block)
    built(pipe, attention="sdpa_math")
    assert all(isinstance(block.processor, plain) for block in blocks(pipe))
    assert all(block.processor.mark == id(block) for block in blocks(pipe))


def test_forcing_a_kernel_in_one_pipe_leaves_another_alone() -> None:
    built(attention="sdpa_math")
    assert set(profiled_kernels(built()[0])) == {"flash"}


@pytest.mark.parametrize("value", ["sdpa_math", "vanilla"])
def test_no_argument_of_diffusers_is_lost_on_the_way(value: str, caplog: pytest.LogCaptureFixture) -> None:
    """diffusers reads a processor's signature, and drops with a warning what it does not find (such as `temb`)."""
    pipe, _ = built(attention=value, qkv_fusion=value == "sdpa_math")
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        picture(pipe)
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records] == []


def test_a_kernel_that_did_not_run_alone_is_no_effect() -> None:
    pipe, config = loaded(), complete({"attention": "sdpa_math"})
    for seen in ({"flash": 28}, {"math": 14, "flash": 14}, {}):
        with pytest.raises(NoEffect, match="attention=sdpa_math had no effect here: 0 attention calls by the math"):
            build.verify(pipe, config, seen)


def test_a_formula_that_ran_as_a_kernel_is_no_effect() -> None:
    with pytest.raises(NoEffect, match="28 flash"):
        build.verify(loaded(), complete({"attention": "vanilla"}), {"flash": 28})


def test_a_kernel_that_torch_has_not_here_is_refused() -> None:
    assert KNOB.why_not("sdpa_cudnn", make_target(CPU)) == "torch has no cudnn kernel for this device"
    assert KNOB.why_not("sdpa_efficient", make_target(CPU)) == "torch has no efficient kernel for this device"
    assert KNOB.why_not("sdpa_math", make_target(CPU)) is None
    assert KNOB.why_not("sdpa_cudnn", make_target(gpu(8, 0))) is None


def test_the_default_by_another_name_is_refused() -> None:
    assert KNOB.why_not("sdpa_flash", make_target(CPU)) == "is the kernel that SDPA chooses on a CPU anyway"
    assert KNOB.why_not("sdpa_flash", make_target(gpu(8, 0))) is None


def test_a_denoiser_that_cannot_slice_refuses() -> None:
    refusal = KNOB.why_not("sliced", make_target(slices_attention=False))
    assert refusal == "UNet2DConditionModel does not support attention slicing"


@pytest.mark.parametrize("value", ["vanilla", "sliced"])
def test_clash_of_processors_that_ignore_fused_projections(value: str) -> None:
    config = complete({"attention": value, "qkv_fusion": True})
    said = KNOB.clash(config, make_target())
    assert said == f"{value} attention uses the separate projections, so qkv_fusion would have no effect"
    assert KNOB.clash(config.replace(qkv_fusion=False), make_target()) is None


@pytest.mark.parametrize("compile", ["regional", "denoiser", "denoiser+vae"])
def test_clash_of_the_math_kernel_with_compilation(compile: str) -> None:
    said = KNOB.clash(complete({"attention": "sdpa_math", "compile": compile}), make_target())
    assert said == "Inductor's fuse_attention pass replaces the math kernel by a fused one"
    assert KNOB.clash(complete({"attention": "sdpa_math"}), make_target()) is None
    assert KNOB.clash(complete({"attention": "vanilla", "compile": compile}), make_target()) is None


@pytest.mark.parametrize("value", ["sdpa_flash", "sdpa_cudnn", "flash_attn", "sage"])
def test_clash_of_half_precision_kernels_with_float32(value: str) -> None:
    target = make_target(gpu(8, 0))
    assert KNOB.clash(complete({"attention": value}), target) == f"{value} supports float16 and bfloat16 only"
    assert KNOB.clash(complete({"attention": value, "dtype": "bf16"}), target) is None
    assert KNOB.clash(complete({"attention": "sdpa_efficient"}), target) is None


@pytest.mark.parametrize(("family", "value"), [(f, v) for f, values in IN_FAMILIES.items() for v in values])
def test_it_acts_in_every_family_and_the_picture_stays(family: str, value: str, root: Path) -> None:
    pipe, effects = tiny_pipe(family, root, attention=value)
    assert KNOB.why_not(value, target_of(family, root)) is None
    seen = attention_kernels(pipe, lambda: draw(pipe, family, num_inference_steps=3))
    assert set(seen) == ON_A_CPU[value]
    verified = build.verify(pipe, complete({"attention": value}), seen)["attention"]
    assert min(verified.count, effects["attention"].count) > 0
    assert np.abs(draw(pipe, family) - draw(tiny_pipe(family, root)[0], family)).max() <= 1 / 255


def test_a_controlnets_attention_is_set_with_the_denoisers(root: Path) -> None:
    pipe, effects = tiny_pipe("StableDiffusionControlNetPipeline", root, attention="vanilla")
    everywhere = [p for m in (pipe.unet, pipe.controlnet, pipe.vae) for p in m.attn_processors.values()]
    assert {type(p).__name__ for p in everywhere} == {"AttnProcessor"}
    assert effects["attention"].count == len(everywhere)


@pytest.mark.parametrize(
    ("family", "compile", "graphs"),
    [
        ("StableDiffusionControlNetPipeline", "denoiser+vae", 3),
        ("IFPipeline", "denoiser", 1),
        ("FluxPipeline", "regional", 3),
        ("StableDiffusion3Pipeline", "denoiser", 1),
        ("PixArtSigmaPipeline", "denoiser", 1),
    ],
)
def test_a_forced_kernel_lies_in_whole_graphs_of_every_family(
    family: str, compile: str, graphs: int, root: Path
) -> None:
    """`fullgraph` raises where a graph breaks; Inductor is left out."""
    eager = draw(tiny_pipe(family, root)[0], family)
    with captured() as counters:
        pixels = draw(tiny_pipe(family, root, attention="sdpa_math", compile=compile)[0], family)
        assert counters["stats"]["unique_graphs"] == graphs
        assert not counters["graph_break"]
    assert np.abs(pixels - eager).max() <= 1 / 255


@pytest.mark.parametrize("value", ["flash_attn", "sage", "flex"])
def test_what_the_dispatcher_does_not_reach_is_refused(value: str, root: Path) -> None:
    versions = {"flash-attn": "2.8.3", "sageattention": "2.2.0"}
    for family in IN_FAMILIES:
        said = KNOB.why_not(value, target_of(family, root, gpu(9, 0), **versions))
        kind = tiny_traits(family, root).denoiser_class
        unreached = f"diffusers' attention dispatcher does not support {kind}"
        assert said == (None if family == "FluxPipeline" else unreached)


@pytest.mark.parametrize(
    ("value", "package", "old", "new"),
    [
        ("xformers", "xformers", "0.0.28.post3", "0.0.35"),
        ("flash_attn", "flash-attn", "2.5.9", "2.7.4.post1"),
        ("sage", "sageattention", "1.0.6", "2.2.0+cu130"),
    ],
)
def test_a_package_must_be_there_and_new_enough(value: str, package: str, old: str, new: str, root: Path) -> None:
    def said(device: Any, **versions: str) -> str | None:
        return KNOB.why_not(value, target_of("FluxPipeline", root, device, **versions))

    assert said(CPU, **{package: new}) == "needs an NVIDIA GPU"
    assert said(gpu(9, 0)) == f"the package {package} is not installed"
    assert str(said(gpu(9, 0), **{package: old})).startswith(f"diffusers needs {package} ")
    assert str(said(gpu(9, 0), **{package: old})).endswith(f"; {old} is installed")
    assert said(gpu(9, 0), **{package: new}) is None
    turing = None if value == "xformers" else "needs compute capability 8.0; this GPU has 7.5"
    assert said(gpu(7, 5), **{package: new}) == turing


def test_xformers_knows_most_kinds_of_attention(root: Path) -> None:
    for family in IN_FAMILIES:
        assert KNOB.why_not("xformers", target_of(family, root, gpu(8, 0), xformers="0.0.35")) is None
    strange = make_target(gpu(8, 0), attention_processors=("SanaLinearAttnProcessor2_0",), denoiser_class="Sana")
    assert KNOB.why_not("xformers", strange) == "diffusers has no xFormers attention for Sana"


def test_xformers_is_asked_for_by_diffusers_own_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs a GPU: here the blocks only take its processors."""
    from diffusers.models.attention_processor import XFormersAttnProcessor

    def enable(block: Any, valid: bool, attention_op: Any = None) -> None:
        block.set_processor(XFormersAttnProcessor())

    monkeypatch.setattr(Attention, "set_use_memory_efficient_attention_xformers", enable)
    pipe, effects = built(attention="xformers")
    assert effects["attention"].count == len(blocks(pipe)) == 16
    config = complete({"attention": "xformers"})
    assert build.verify(pipe, config, {})["attention"].count == 14
    assert build.verify(pipe, config, {"xformers": 28})["attention"].count == 28
    with pytest.raises(NoEffect):
        build.verify(pipe, config, {"xformers": 14, "flash": 14})
    with pytest.raises(NoEffect):
        build.verify(loaded(), config, {})


def test_a_dispatched_kernel_is_set_on_the_processors_and_nowhere_else(root: Path) -> None:
    """diffusers' own `set_attention_backend` makes it the default of every model that is built later."""
    default = attention_dispatch._AttentionBackendRegistry.get_active_backend()
    pipe, effects = tiny_pipe("FluxPipeline", root, attention="flex")
    assert effects["attention"].count == 4
    assert {m.processor._attention_backend for m in parts.denoiser(pipe).modules() if hasattr(m, "processor")} == {
        "flex"
    }
    assert attention_dispatch._AttentionBackendRegistry.get_active_backend() == default
    other, _ = tiny_pipe("FluxPipeline", root)
    kernels = attention_kernels(other, lambda: draw(other, "FluxPipeline", num_inference_steps=3))
    assert set(kernels) == {"flash"}


def test_flex_draws_the_same_picture_and_is_recognised(root: Path) -> None:
    pipe, _ = tiny_pipe("FluxPipeline", root, attention="flex")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile", UserWarning)
        pixels = draw(pipe, "FluxPipeline")
        seen = attention_kernels(pipe, lambda: draw(pipe, "FluxPipeline", num_inference_steps=3))
    assert np.abs(pixels - draw(tiny_pipe("FluxPipeline", root)[0], "FluxPipeline")).max() <= 1 / 255
    assert set(seen) == {"flex"}
    config = complete({"attention": "flex"})
    assert build.verify(pipe, config, seen)["attention"].count == seen["flex"]
    assert build.verify(pipe, config, {})["attention"].count == 4  # compiled for a CPU it has no name of its own
    with pytest.raises(NoEffect, match="seen: 8 flash"):
        build.verify(pipe, config, {"flash": 8})


def test_a_missing_package_is_an_error_and_no_other_kernel(root: Path) -> None:
    with pytest.raises(RuntimeError, match="missing package"):
        tiny_pipe("FluxPipeline", root, attention="flash_attn")


def test_clash_of_flex_with_running_uncompiled() -> None:
    config = complete({"attention": "flex"})
    assert KNOB.clash(config, make_target()) == "flex attention is a slow formula unless it is compiled"
    assert KNOB.clash(config.replace(compile="regional"), make_target()) is None


def test_clash_of_a_forced_kernel_with_tracing() -> None:
    config = complete({"attention": "sdpa_cudnn", "compile": "trace", "dtype": "fp16"})
    said = "a traced graph does not keep the attention kernel that was forced while it was traced"
    assert KNOB.clash(config, make_target()) == said
    assert KNOB.clash(config.replace(attention="vanilla"), make_target()) is None


def test_clash_of_xformers_with_fused_projections_where_its_processors_replace_those_that_read_them() -> None:
    config = complete({"attention": "xformers", "qkv_fusion": True})
    said = "xformers attention uses the separate projections, so qkv_fusion would have no effect"
    assert KNOB.clash(config, make_target()) == said
    assert KNOB.clash(config, make_target(dispatches_attention=True)) is None
