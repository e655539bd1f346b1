"""attention: the kernel asked for is the kernel that runs, and the only one. The profiler says so, not the setting."""

import logging
from typing import Any

import pytest
from conftest import CPU, gpu, make_target
from diffusers.models.attention_processor import Attention
from live import built, difference, loaded, picture, profiled_kernels

from autotune import build
from autotune.build import NoEffect
from autotune.knobs import complete, find_knob

KNOB = find_knob("attention")
ON_A_CPU = {
    "sdpa": {"flash"},
    "sdpa_flash": {"flash"},
    "sdpa_math": {"math"},
    "vanilla": set(),
    "sliced": set(),
}


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
    assert effects["attention"].count == len(blocks(pipe)) == 16
    assert len({id(block.processor) for block in blocks(pipe)}) == 16


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
    assert len({type(block.processor) for block in blocks(pipe)}) == 1


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
    assert KNOB.why_not("sdpa_flash", make_target(CPU)) == "is what SDPA runs on a CPU anyway"
    assert KNOB.why_not("sdpa_flash", make_target(gpu(8, 0))) is None


def test_a_denoiser_that_cannot_slice_refuses() -> None:
    refusal = KNOB.why_not("sliced", make_target(slices_attention=False))
    assert refusal == "UNet2DConditionModel can't slice its attention"


@pytest.mark.parametrize("value", ["vanilla", "sliced"])
def test_clash_of_processors_that_ignore_fused_projections(value: str) -> None:
    config = complete({"attention": value, "qkv_fusion": True})
    said = KNOB.clash(config, make_target())
    assert said == f"{value} attention reads the separate projections, so fusing them would be wasted"
    assert KNOB.clash(config.replace(qkv_fusion=False), make_target()) is None


@pytest.mark.parametrize("compile", ["regional", "denoiser", "denoiser+vae"])
def test_clash_of_the_math_kernel_with_compilation(compile: str) -> None:
    said = KNOB.clash(complete({"attention": "sdpa_math", "compile": compile}), make_target())
    assert said == "compiled, Inductor's fuse_attention pass turns the math kernel back into a fused one"
    assert KNOB.clash(complete({"attention": "sdpa_math"}), make_target()) is None
    assert KNOB.clash(complete({"attention": "vanilla", "compile": compile}), make_target()) is None


@pytest.mark.parametrize("value", ["sdpa_flash", "sdpa_cudnn"])
def test_clash_of_half_precision_kernels_with_float32(value: str) -> None:
    target = make_target(gpu(8, 0))
    assert KNOB.clash(complete({"attention": value}), target) == f"{value} takes float16 and bfloat16 only"
    assert KNOB.clash(complete({"attention": value, "dtype": "bf16"}), target) is None
    assert KNOB.clash(complete({"attention": "sdpa_efficient"}), target) is None
