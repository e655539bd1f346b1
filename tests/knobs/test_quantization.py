"""quantization: the layers that the filter takes are 8-bit, those alone, and no setting of the process changes."""

from typing import Any

import pytest
import torch
from conftest import CPU, gpu, make_target
from live import built, difference, picture

from autotune.knobs import find_knob
from autotune.knobs._linear_layers import selected

KNOB = find_knob("quantization")
STORED = {"int8_dynamic": torch.int8, "int8_weight_only": torch.int8, "fp8_weight_only": torch.float8_e4m3fn}

every_format = pytest.mark.parametrize("value", STORED)


def linear_layers(pipe: Any) -> list[torch.nn.Linear]:
    return [m for m in pipe.unet.modules() if isinstance(m, torch.nn.Linear)]


@every_format
def test_linear_layers_hold_eight_bits_and_the_picture_stays_close(value: str) -> None:
    pipe, effects = built(quantization=value)
    layers = linear_layers(pipe)
    assert {layer.weight.qdata.dtype for layer in layers} == {STORED[value]}
    assert effects["quantization"].count == len(layers) == 80
    assert 0 < difference(picture(built()[0]), picture(pipe)) < 0.15


@pytest.mark.parametrize("layers", ["all", "min_features:128", "min_features:256", "sdxl"])
def test_as_many_layers_are_quantized_as_the_filter_takes(layers: str) -> None:
    plain = linear_layers(built()[0])
    taken = [selected(layers, (m.in_features, m.out_features)) for m in plain]
    pipe, effects = built(quantization="int8_weight_only", quantization_filter=layers)
    assert [hasattr(m.weight, "qdata") for m in linear_layers(pipe)] == taken
    assert effects["quantization"].count == sum(taken) > 0


def test_no_setting_of_inductor_changes() -> None:
    """torchao by itself turns four of them on, for the whole process and for good."""
    import torch._inductor.config as inductor

    its_own = ("coordinate_descent_tuning", "coordinate_descent_check_all_directions", "force_fuse_int_mm_with_mul")
    with inductor.patch({**dict.fromkeys(its_own, False), "triton.unique_kernel_names": False}):
        before = inductor.get_config_copy()
        for value in STORED:
            built(quantization=value)
        assert inductor.get_config_copy() == before


def test_fused_projections_are_quantized_too() -> None:
    pipe, effects = built(qkv_fusion=True, quantization="int8_weight_only")
    fused = [m for name, m in pipe.unet.named_modules() if name.endswith((".to_qkv", ".to_kv"))]
    assert len(fused) == 14
    assert all(hasattr(m.weight, "qdata") for m in fused)
    assert effects["quantization"].count == 80 + 14
    assert 0 < difference(picture(built()[0]), picture(pipe)) < 0.15


def test_eight_bit_arithmetic_is_refused_where_the_hardware_has_none() -> None:
    assert KNOB.why_not("fp8_dynamic", make_target(CPU)) == "fp8 arithmetic needs a GPU of compute capability 8.9"
    assert KNOB.why_not("fp8_dynamic", make_target(gpu(8, 0))) == (
        "fp8 arithmetic needs compute capability 8.9, this is 8.0"
    )
    assert KNOB.why_not("fp8_dynamic", make_target(gpu(8, 9))) is None
    assert KNOB.why_not("int8_dynamic", make_target(gpu(7, 0))) == "int8 arithmetic needs compute capability 7.5"
    assert KNOB.why_not("int8_dynamic", make_target(gpu(7, 5))) is None
    assert KNOB.why_not("int8_weight_only", make_target(gpu(7, 0))) is None


def test_a_denoiser_without_linear_layers_refuses() -> None:
    target = make_target(linear_shapes=())
    assert KNOB.why_not("int8_weight_only", target) == "UNet2DConditionModel has no linear layers"
    assert KNOB.why_not("none", target) is None
