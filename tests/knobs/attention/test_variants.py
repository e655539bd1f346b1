"""Variants of sage and FlashAttention-3: offered where they run, set on every block. Fakes: no GPU was seen."""

from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, gpu, make_target
from diffusers.models import attention_dispatch
from tiny_pipes import tiny_pipe

from autotune.building import build
from autotune.knobs import complete, find_knob

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
