"""Variants of sage and FlashAttention-3: offered where they run, set on every block. Fakes: no GPU was seen."""

from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, gpu, make_target
from diffusers.models import attention_dispatch
from tiny_pipes import tiny_pipe

from autotune.building import build
from autotune.device import Device
from autotune.knobs import complete, find_knob
from autotune.knobs.attention._backends import DISPATCHED, OF_HUB, VARLEN
from autotune.pipelines.running import remember
from autotune.target import Target

KNOB = find_knob("attention")
PACKAGES = {"flash_attn_3": "flash-attn-3", "sage_fp16": "sageattention", "sage_fp8": "sageattention"}
ON = {"flash_attn_3": gpu(9, 0), "sage_fp16": gpu(8, 0), "sage_fp8": gpu(8, 9)}


def target_of(device: Any, **versions: str) -> Any:
    target = make_target(device, dispatches_attention=True)
    return target.model_copy(
        update={"versions": target.versions | {n.replace("_", "-"): v for n, v in versions.items()}}
    )


@pytest.mark.parametrize("value", PACKAGES)
def test_it_needs_its_package_and_its_card(value: str) -> None:
    package = PACKAGES[value]
    installed = {package.replace("-", "_"): "3.0.0"}
    assert KNOB.why_not(value, target_of(ON[value], **installed)) is None
    assert KNOB.why_not(value, target_of(ON[value])) == f"the package {package} is not installed"
    assert KNOB.why_not(value, target_of(CPU, **installed)) == "needs an NVIDIA GPU"
    assert "needs compute capability" in str(KNOB.why_not(value, target_of(gpu(7, 5), **installed)))
    unreached = make_target(ON[value])
    assert str(KNOB.why_not(value, unreached)).startswith("diffusers' attention dispatcher does not support")


def test_older_and_newer_cards_than_the_kernels_are_made_for() -> None:
    assert KNOB.why_not("sage_fp8", target_of(gpu(8, 6), sageattention="2.2.0")) == (
        "needs compute capability 8.9; this GPU has 8.6"
    )
    assert KNOB.why_not("flash_attn_3", target_of(gpu(10, 0), flash_attn_3="3.0.0")) == (
        "FlashAttention-3 has kernels for compute capability 9 alone"
    )


@pytest.mark.parametrize("value", PACKAGES)
def test_clashes(value: str) -> None:
    said = KNOB.clash(complete({"attention": value, "dtype": "bf16", "compile": "regional"}), target_of(ON[value]))
    assert said == f"the kernels of {value} are no operators of torch, where a whole graph breaks"
    assert (
        KNOB.clash(complete({"attention": value}), target_of(ON[value]))
        == f"{value} supports float16 and bfloat16 only"
    )
    assert KNOB.clash(complete({"attention": value, "dtype": "bf16"}), target_of(ON[value])) is None


def test_every_block_is_set_to_the_name_that_diffusers_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check for the packages is left out, as none of them is here."""
    monkeypatch.setattr(attention_dispatch, "_check_attention_backend_requirements", lambda backend: None)
    for value in PACKAGES:
        pipe, effects = tiny_pipe("FluxPipeline", tmp_path, attention=value, dtype="bf16")
        assert effects["attention"].count == 4
        config = complete({"attention": value, "dtype": "bf16"})
        assert build.verify(pipe, config, {})["attention"].count == 4
        with pytest.raises(build.NoEffect):
            build.verify(pipe, config, {"flash": 4})  # torch's own kernel ran


MI300X = Device(kind="rocm", name="AMD Instinct MI300X", memory_bytes=192 * 10**9, sdpa_kernels=("flash", "math"))
HUB = {
    "flash_hub": gpu(8, 0),
    "flash_3_hub": gpu(9, 0),
    "flash_4_hub": gpu(10, 0),
    "sage_hub": gpu(8, 0),
    "sage_blackwell_hub": gpu(12, 0),
    "flash_varlen_hub": gpu(8, 0),
    "flash_3_varlen_hub": gpu(9, 0),
    "aiter_hub": MI300X,
}
CUT = "keeps the first keys, as many as the mask allows, which is another picture where the padding comes first"
SDPA = "is SDPA, whose kernels are forced in the processors"
ELSEWHERE = "is for a kind of device that is not supported here"
LEFT_OUT = {
    **dict.fromkeys(("flash_varlen", "_flash_varlen_3", "sage_varlen"), CUT),
    **dict.fromkeys(("native", "_native_flash", "_native_efficient", "_native_cudnn", "_native_math"), SDPA),
    **dict.fromkeys(("_native_npu", "_native_xla"), ELSEWHERE),
    "xformers": "is a value of its own, also for models that the dispatcher does not support",
}
MASKED = ((64, True, True),)  # attention of each step


def asked(device: Device, value: str, **answers: str) -> Target:
    """A target whose probe has called the kernel of this value: what failed, by number format."""
    told = device.model_copy(update={"attention": {DISPATCHED[value]: answers}})
    target = make_target(told, dispatches_attention=True, step_attention=MASKED if value in VARLEN else ())
    return target.model_copy(update={"versions": {"kernels": "0.17.2", "sageattention": "2.2.0"}})


def test_every_backend_of_the_dispatcher_is_a_value_or_has_a_reason() -> None:
    backends = {name.value for name in attention_dispatch.AttentionBackendName}
    assert backends - set(DISPATCHED.values()) == set(LEFT_OUT)


@pytest.mark.parametrize(("value", "unmasked"), VARLEN.items())
def test_kernels_for_several_lengths_are_for_models_that_give_a_mask(value: str, unmasked: str) -> None:
    with_mask = asked(HUB[value], value)
    without = with_mask.model_copy(update={"pipeline": make_target(dispatches_attention=True).pipeline})
    assert KNOB.why_not(value, with_mask) is None
    assert KNOB.why_not(value, without) == (
        f"StableDiffusionPipeline gives no attention mask, and {unmasked} is the same kernel without one"
    )
    assert "takes no attention mask" in str(KNOB.why_not(unmasked, with_mask))
    config = complete({"attention": value, "dtype": "bf16", "compile": "regional"})
    assert KNOB.clash(config, asked(gpu(8, 0), "flex")) == (
        f"{value} asks the GPU how long the longest prompt is, where a whole graph breaks"
    )


def test_aiter_is_for_amd_and_bfloat16_and_there_the_answer_to_a_tiny_call_is_all_that_counts() -> None:
    amd = MI300X
    assert KNOB.why_not("aiter_hub", asked(gpu(9, 0), "flex")) == "needs an AMD GPU"
    assert "AUTOTUNE_HUB_KERNELS=accept" in str(KNOB.why_not("aiter_hub", asked(amd, "flex")))
    assert KNOB.clash(complete({"attention": "aiter_hub"}), asked(amd, "aiter_hub")) == (
        "aiter_hub supports bfloat16 only"
    )
    assert KNOB.why_not("flash_attn", asked(amd, "flex")) == "needs an NVIDIA GPU"
    assert KNOB.why_not("flash_attn", asked(amd, "flash_attn")) is None
    broken = dict.fromkeys(("fp32", "fp16", "bf16"), "a tiny call of it fails here: RuntimeError: no kernel")
    assert KNOB.why_not("flash_attn", asked(amd, "flash_attn", **broken)) == broken["bf16"]


def test_every_kernel_of_the_hub_is_one_of_diffusers_own() -> None:
    known = {name.value for name in attention_dispatch._HUB_KERNELS_REGISTRY}
    assert set(OF_HUB) == set(HUB)
    assert set(OF_HUB.values()) <= known
    assert {name.value for name in attention_dispatch.AttentionBackendName} >= set(DISPATCHED.values())


@pytest.mark.parametrize(("value", "device"), HUB.items())
def test_a_kernel_of_the_hub_is_offered_where_it_was_loaded_and_ran(value: str, device: Device) -> None:
    unasked = asked(device, value).model_copy(update={"device": device})
    assert "AUTOTUNE_HUB_KERNELS=accept" in str(KNOB.why_not(value, unasked))
    assert KNOB.why_not(value, asked(device, value)) is None
    assert KNOB.why_not(value, unasked.model_copy(update={"versions": {}})) == "the package kernels is not installed"
    failed = asked(device, value, **dict.fromkeys(("fp32", "fp16", "bf16"), "can't be loaded: OSError: no network"))
    assert KNOB.why_not(value, failed) == "can't be loaded: OSError: no network"
    assert KNOB.why_not(value, asked(CPU, value)) == f"needs an {'AMD' if value == 'aiter_hub' else 'NVIDIA'} GPU"


def test_in_production_the_kernel_that_was_measured_is_offered_without_asking_it_again() -> None:
    target = asked(gpu(8, 0), "flex")
    pipeline = target.pipeline.model_copy(update={"part_revisions": {"flash_hub": "a" * 40}})
    assert KNOB.why_not("flash_hub", target.model_copy(update={"pipeline": pipeline})) is None


def test_what_a_tiny_call_showed_is_the_rule() -> None:
    """The tables say that sage_fp8 runs on an Ada card, and that no graph holds it. This card says otherwise."""
    config = complete({"attention": "sage_fp8", "compile": "regional", "dtype": "bf16"})
    assert KNOB.clash(config, asked(gpu(8, 9), "flex")) == (
        "the kernels of sage_fp8 are no operators of torch, where a whole graph breaks"
    )
    assert KNOB.clash(config, asked(gpu(8, 9), "sage_fp8")) is None
    told = asked(gpu(8, 9), "sage_fp8", bf16="a tiny call of it fails here: X", graph="no whole graph can hold it: Y")
    assert KNOB.clash(config, told) == "sage_fp8 with dtype=bf16: a tiny call of it fails here: X"
    assert KNOB.clash(config.replace(dtype="fp16"), told) == "sage_fp8: no whole graph can hold it: Y"
    assert KNOB.clash(config.replace(dtype="fp16", compile="off"), told) is None


def test_torchs_own_kernels_are_offered_by_what_they_answered() -> None:
    """By the tables, no kernel of cuDNN takes heads of 160. This one did."""
    device = gpu(9, 0).model_copy(update={"attention": {"_native_cudnn": {"fp32": "no"}}})
    target = make_target(device, step_attention=((160, False, True),))
    assert KNOB.why_not("sdpa_cudnn", target) is None
    none = device.model_copy(update={"attention": {"_native_cudnn": dict.fromkeys(("fp32", "fp16", "bf16"), "no")}})
    assert KNOB.why_not("sdpa_cudnn", make_target(none, step_attention=((64, False, True),))) == "no"


def test_a_kernel_of_the_hub_is_loaded_at_the_recorded_commit_and_its_commit_is_in_the_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[tuple[str, str | None]] = []

    def fetch(name: str, revision: str | None) -> str:
        asked_for.append((name, revision))
        return "c" * 40

    monkeypatch.setattr("autotune.devices.hub_kernels.fetch", fetch)
    monkeypatch.setattr(attention_dispatch, "_check_attention_backend_requirements", lambda backend: None)
    pipe, _ = tiny_pipe("FluxPipeline", tmp_path)
    remember(pipe, revisions={"_flash_3_hub": "c" * 40})
    effect = KNOB.apply(pipe, complete({"attention": "flash_3_hub"}), "cpu")  # type: ignore[misc]
    assert asked_for == [("_flash_3_hub", "c" * 40)]
    assert effect.what == "attention blocks set to flash_3_hub, the hub's kernel at cccccccccccc"
    assert effect.count == 4


def test_a_plain_script_loads_no_kernel_of_the_hub() -> None:
    assert KNOB.script is not None
    assert KNOB.script(complete({"attention": "flash_hub"}), asked(gpu(8, 0), "flash_hub")).why_not
