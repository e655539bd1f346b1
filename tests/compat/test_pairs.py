"""Pairs of settings that fail with today's libraries are refused with the reason; pairs that work are allowed.

The pairs were found by running them (torch 2.13, diffusers 0.42, torchao 0.18, tomesd 0.1.3, DeepCache 0.1.1). For
other versions `python -m autotune.compat` shows what has changed.
"""

from typing import Any

import pytest
from compiled import captured
from conftest import CPU, gpu, make_target
from live import built, difference, picture

from autotune.device import Device
from autotune.knobs import complete
from autotune.study.space import SearchSpace

A100, T4 = gpu(8, 0), gpu(7, 5, multiprocessors=40)
GRAPHS = {"compile": "denoiser", "compile_mode": "reduce-overhead"}  # CUDA graphs
BROKEN: list[tuple[dict[str, Any], Device, dict[str, Any], str]] = [
    ({"tome_ratio": 0.5, "compile": "denoiser"}, CPU, {}, "hook of token merging breaks the graph"),
    ({"tome_ratio": 0.5}, CPU, {"attention_downsamples": (2, 4)}, "attention at the downsampling factors 2, 4 only"),
    ({"cache": "deepcache:3", "compile": "denoiser"}, CPU, {}, "only regional compilation supports"),
    ({"cache": "deepcache:3", "guidance_cutoff": 0.6}, CPU, {}, "outputs of a guided batch"),
    ({**GRAPHS, "guidance_cutoff": 0.6}, A100, {"scheduler_class": "PNDMScheduler"}, "the next CUDA graph overwrites"),
    ({**GRAPHS, "compile": "denoiser+vae", "dtype": "fp16"}, A100, {"vae_upcasts_fp16": True}, "cast to float32"),
    ({**GRAPHS, "compile": "regional", "cache": "deepcache:3"}, A100, {}, "memory of a CUDA graph"),
    ({**GRAPHS, "offload": "model"}, A100, {}, "CUDA graphs do not support offloading"),
    ({"compile": "denoiser", "offload": "sequential"}, A100, {}, "hooks of sequential offloading break"),
    ({"compile": "denoiser", "offload": "group"}, A100, {}, "hooks of group offloading break"),
    ({"compile": "denoiser", "layerwise_casting": "float8_e4m3fn"}, CPU, {}, "replaces every layer's weights"),
    ({"compile": "denoiser", "dtype": "bf16"}, T4, {}, "needs compute capability 8.0"),
    ({"qkv_fusion": True, "attention": "sliced"}, CPU, {}, "uses the separate projections"),
    ({"qkv_fusion": True}, CPU, {"fuses_qkv": False}, "does not support fused projections"),
    ({"quantization": "fp8_dynamic", "dtype": "bf16"}, A100, {}, "needs compute capability 8.9"),
    ({"quantization": "int4_weight_only", "dtype": "fp16"}, A100, {}, "supports bfloat16 only"),
    ({"quantization": "int8_weight_only", "layerwise_casting": "float8_e4m3fn"}, CPU, {}, "loses precision twice"),
]
FINE: list[dict[str, Any]] = [
    {"quantization": "int8_weight_only", "qkv_fusion": True},
    {"quantization": "int8_weight_only", "memory_format": "channels_last"},
    {"quantization": "int8_dynamic", "conv1x1_as_linear": True},
    {"layerwise_casting": "float8_e4m3fn", "qkv_fusion": True},
    {"tome_ratio": 0.5, "qkv_fusion": True},
    {"tome_ratio": 0.5, "compile": "regional"},
    {"cache": "deepcache:2", "compile": "regional"},
    {"quantization": "int8_weight_only", "compile": "denoiser"},
    {"qkv_fusion": True, "memory_format": "channels_last", "compile": "denoiser"},
]
TOLERANCE = 2e-3  # of a pixel, from 0 to 1: half a grey level


@pytest.mark.parametrize(("values", "device", "traits", "because"), BROKEN, ids=lambda x: str(x)[:60])
def test_a_broken_pair_is_refused_with_its_reason(
    values: dict[str, Any], device: Device, traits: dict[str, Any], because: str
) -> None:
    objection = SearchSpace(make_target(device, **traits), {}).objection(complete(values))
    assert objection is not None
    assert because in objection


@pytest.mark.parametrize("values", FINE, ids=str)
def test_a_fine_pair_is_allowed_and_both_act_and_the_picture_is_the_uncompiled_one(values: dict[str, Any]) -> None:
    assert SearchSpace(make_target(), {}).objection(complete(values)) is None
    plain = picture(built()[0])
    eager = picture(built(**{name: value for name, value in values.items() if name != "compile"})[0])
    with captured() as counters:
        pipe, effects = built(**values)
        made = picture(pipe)
        graphs = counters["stats"]["unique_graphs"]
    assert all(effects[name].count > 0 for name in values if name in effects)
    assert difference(made, eager) <= TOLERANCE
    assert (graphs > 0) == ("compile" in values)
    if set(values) & {"quantization", "tome_ratio", "cache", "layerwise_casting"}:
        assert difference(made, plain) > 0
