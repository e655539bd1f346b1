"""quantization: the layers that the filter takes are quantized, those alone, and no setting of the process changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, gpu, make_target
from live import WORKLOAD, built, difference, loaded, picture
from tiny_pipes import draw, tiny_pipe
from torchao.quantization import quantize_

from autotune.knobs import complete, find_knob
from autotune.knobs.precision._linear_layers import selected
from autotune.knobs.precision._methods import all_methods
from autotune.knobs.precision._torchao import how
from autotune.knobs.precision.quantization import _left_out
from autotune.pipelines import parts
from autotune.pipelines.running import remember
from autotune.workload import Shape

KNOB = find_knob("quantization")
STORED = {"int8_dynamic": torch.int8, "int8_weight_only": torch.int8, "fp8_weight_only": torch.float8_e4m3fn}

every_format = pytest.mark.parametrize("value", STORED)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def stored(weight: Any) -> int:
    """The bytes of a weight that torchao has quantized: those of the tensors that it is made of."""
    made = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
    return sum(tensor.numel() * tensor.element_size() for tensor in made)


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
        for value in (*STORED, "int4_weight_only"):
            built(quantization=value)
        assert inductor.get_config_copy() == before


def test_fused_projections_are_quantized_too() -> None:
    pipe, effects = built(qkv_fusion=True, quantization="int8_weight_only")
    fused = [m for name, m in pipe.unet.named_modules() if name.endswith((".to_qkv", ".to_kv"))]
    assert len(fused) == 14
    assert all(hasattr(m.weight, "qdata") for m in fused)
    replaced = 7 * 3 + 7 * 2  # those of 7 self-attentions and of 7 cross-attentions hold no weights any more
    assert effects["quantization"].count == 80 - replaced + 14
    assert 0 < difference(picture(built()[0]), picture(pipe)) < 0.15


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_int4_takes_the_layers_that_divide_into_its_groups(dtype: str) -> None:
    """torchao skips those whose inputs don't, and fails on those whose outputs don't."""
    plain = linear_layers(built(dtype=dtype)[0])
    fits = [m.in_features % 64 == 0 and m.out_features % 16 == 0 for m in plain]
    pipe, effects = built(dtype=dtype, quantization="int4_weight_only")
    layers = linear_layers(pipe)
    assert [hasattr(m.weight, "qdata") for m in layers] == fits
    assert effects["quantization"].count == sum(fits) > len(fits) / 2
    packed_weights = [m.weight for m in layers if hasattr(m.weight, "qdata")]
    packed = [weight.qdata for weight in packed_weights]
    weights = sum(m.weight.numel() for m, fit in zip(plain, fits, strict=True) if fit)
    assert sum(q.numel() * q.element_size() for q in packed) == weights // 2
    total = sum(p.numel() for p in built()[0].unet.parameters())
    plain_bytes = plain[0].weight.element_size()
    held = f"{sum(map(stored, packed_weights)):,} bytes instead of {plain_bytes * weights:,}"
    part = f"{weights / total:.0%} of the denoiser's weights"
    assert effects["quantization"].what == f"linear layers quantized, {part}, in {held}"
    assert 0 < difference(picture(built(dtype=dtype)[0]), picture(pipe)) < 0.4


@pytest.mark.parametrize(
    ("family", "value"),
    [
        *(("StableDiffusionXLPipeline", value) for value in (*STORED, "int4_weight_only")),
        *(("FluxPipeline", value) for value in (*STORED, "int4_weight_only")),
        ("IFPipeline", "int8_dynamic"),
        ("StableDiffusion3Pipeline", "int8_dynamic"),
        ("PixArtSigmaPipeline", "int8_dynamic"),
    ],
)
def test_what_is_counted_is_what_is_quantized_in_every_family(family: str, value: str, root: Path) -> None:
    pipe, effects = tiny_pipe(family, root, dtype="bf16", quantization=value)
    layers = [m for m in parts.denoiser(pipe).modules() if isinstance(m, torch.nn.Linear)]
    done = [m for m in layers if hasattr(m.weight, "qdata")]
    assert effects["quantization"].count == len(done) > 0
    assert len(done) == len(layers) or value == "int4_weight_only"
    assert np.isfinite(draw(pipe, family)).all()


def test_int4_is_packed_for_the_kernel_of_the_device() -> None:
    on_a_gpu, on_a_cpu = how("int4_weight_only", "cuda"), how("int4_weight_only", "cpu")
    assert (on_a_gpu.int4_packing_format, on_a_gpu.group_size) == ("tile_packed_to_4d", 64)
    assert (type(on_a_cpu).__name__, on_a_cpu.group_size) == ("PrototypeInt4WeightOnlyConfig", 64)
    assert not on_a_gpu.set_inductor_config
    assert not on_a_cpu.set_inductor_config


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"quantization": "int8_weight_only"}, "cuda:0"),
        ({"quantization": "int8_weight_only", "offload": "model"}, None),
        ({"quantization": "int4_weight_only", "offload": "model"}, "cuda:0"),
    ],
)
def test_layers_are_quantized_on_the_gpu_unless_offloading_decides_where_they_are(
    values: dict[str, str], where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr("torchao.quantization.quantize_", lambda *_, device, **__: asked.append(device))
    KNOB.apply(loaded(), complete(values), "cuda:0")
    KNOB.apply(loaded(), complete(values), "cpu")
    assert asked == [where, None]


def test_int4_is_refused_where_its_kernel_is_missing_or_takes_no_layer() -> None:
    assert KNOB.why_not("int4_weight_only", make_target(gpu(7, 5))) == "needs compute capability 8.0; this GPU has 7.5"
    assert KNOB.why_not("int4_weight_only", make_target(gpu(8, 0))) is None
    assert KNOB.why_not("int4_weight_only", make_target(CPU)) is None
    needed = "a multiple of 64 inputs and of 16 outputs"
    odd = f"no linear layer of UNet2DConditionModel has {needed}, as int4_weight_only needs"
    assert KNOB.why_not("int4_weight_only", make_target(CPU, linear_shapes=((32, 64), (64, 8)))) == odd
    assert KNOB.why_not("int4_weight_only", make_target(gpu(8, 0), linear_shapes=((32, 64), (64, 8)))) is None


def test_clash_of_int4_on_a_gpu_with_all_but_bfloat16() -> None:
    config = complete({"quantization": "int4_weight_only", "dtype": "fp16"})
    assert KNOB.clash(config, make_target(gpu(8, 0))) == "the int4 kernel supports bfloat16 only"
    assert KNOB.clash(config.replace(dtype="bf16"), make_target(gpu(8, 0))) is None
    assert KNOB.clash(config.replace(dtype="fp32"), make_target(CPU)) is None
    assert KNOB.clash(config.replace(quantization="int8_dynamic", compile="regional"), make_target(gpu(8, 0))) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quantization": "int8_dynamic"}, "uncompiled, int8_dynamic waits for the GPU"),
        ({"quantization": "int8_dynamic", "compile": "regional"}, None),
        ({"quantization": "int8_weight_only", "dtype": "fp16"}, "overflows in float16"),
        ({"quantization": "int8_weight_only", "dtype": "bf16"}, None),
        ({"quantization": "int4_weight_only", "dtype": "bf16", "offload": "group"}, "pins the weights"),
        ({"quantization": "int4_weight_only", "dtype": "bf16", "offload": "model"}, None),
        ({"quantization": "fp8_dynamic_row", "dtype": "fp16"}, "supports bfloat16 only"),
        ({"quantization": "fp8_dynamic_row", "dtype": "bf16"}, None),
    ],
)
def test_clashes_on_a_gpu(values: dict[str, Any], said: str | None) -> None:
    clash = KNOB.clash(complete(values), make_target(gpu(9, 0)))
    assert clash == said if said is None else said in str(clash)


def test_weights_in_eight_bits_overflow_in_float16_and_not_in_bfloat16() -> None:
    """Why int8_weight_only is refused in float16: the product is made before it is scaled. The true output is 32."""
    outputs = {}
    for dtype in (torch.float16, torch.bfloat16):
        layer = torch.nn.Linear(4096, 4, bias=False).to(dtype)
        torch.nn.init.constant_(layer.weight, 1 / 128)
        quantize_(layer, how("int8_weight_only", "cpu"))
        outputs[dtype] = layer(torch.ones(1, 4096, dtype=dtype)).float()
    assert outputs[torch.float16].isinf().all()
    assert torch.allclose(outputs[torch.bfloat16], torch.tensor(32.0), rtol=0.02)


def test_group_offload_would_pin_int4_weights_which_their_class_can_not() -> None:
    layer = torch.nn.Linear(64, 16, bias=False).bfloat16()
    quantize_(layer, how("int4_weight_only", "cpu"))
    with pytest.raises(NotImplementedError):
        layer.weight.data.pin_memory()


def test_layers_that_see_one_row_a_picture_are_left_out_of_int8_on_a_gpu() -> None:
    """torch._int_mm needs more than 16 rows. The rows are counted in a call with empty weights, on any machine."""
    pipe = loaded()
    remember(pipe, workload=WORKLOAD)
    names, said = _left_out(pipe, complete({}), all_methods()["int8_dynamic"], "cuda")
    assert {"time_embedding.linear_1", "time_embedding.linear_2"} <= names
    assert any(name.endswith("time_emb_proj") for name in names)
    assert not any(".attn1." in name for name in names if name.startswith("down_blocks.0"))
    assert said == f", without {len(names)} of at most 16 rows"
    assert _left_out(pipe, complete({}), all_methods()["int8_weight_only"], "cuda") == (set(), "")
    assert next(pipe.unet.parameters()).device.type == "cpu"  # the pipe stays as it is


@pytest.mark.parametrize(
    ("values", "batch", "also", "left_out"),
    [
        ({}, 10, (), False),  # 20 rows in each step
        ({"guidance_cutoff": 0.6}, 10, (), True),  # 10 rows in the last steps
        ({"guidance_start": 0.2}, 10, (), True),  # 10 rows in the first steps
        ({"cache": "cfg_cache:3"}, 10, (), True),  # 10 rows in most later steps
        ({"guidance_cutoff": 0.6}, 20, (), False),
        ({}, 10, (Shape(width=512, height=512, batch=1),), True),  # the smaller batch has the larger pictures
    ],
)
def test_the_rows_are_the_fewest_of_any_step_and_size(
    values: dict[str, Any], batch: int, also: tuple[Shape, ...], left_out: bool
) -> None:
    """Of the embedding of the timestep, which has a row for each picture, and with guidance two."""
    pipe = loaded()
    remember(pipe, workload=WORKLOAD.model_copy(update={"batch": batch, "also": also}))
    names, _ = _left_out(pipe, complete(values), all_methods()["int8_dynamic"], "cuda")
    assert ("time_embedding.linear_1" in names) == left_out


def test_layers_whose_weights_are_read_directly_stay_as_they_are() -> None:
    pipe = loaded()
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    traits = make_target(used_directly=(name,)).pipeline.known
    remember(pipe, workload=WORKLOAD, traits=traits)
    assert KNOB.apply is not None
    effect = KNOB.apply(pipe, complete({"quantization": "int8_weight_only"}), "cpu")
    assert effect.what.endswith(", 1 used directly")
    assert type(pipe.unet.get_submodule(name).weight.data) is torch.Tensor


def test_eight_bit_arithmetic_is_refused_where_the_hardware_has_none() -> None:
    assert KNOB.why_not("fp8_dynamic", make_target(CPU)) == "needs an NVIDIA GPU of compute capability 8.9"
    assert KNOB.why_not("fp8_dynamic", make_target(gpu(8, 0))) == ("needs compute capability 8.9; this GPU has 8.0")
    assert KNOB.why_not("fp8_dynamic", make_target(gpu(8, 9))) is None
    assert KNOB.why_not("int8_dynamic", make_target(gpu(7, 0))) == "needs compute capability 7.5; this GPU has 7.0"
    assert KNOB.why_not("int8_dynamic", make_target(gpu(7, 5))) is None
    assert KNOB.why_not("int8_weight_only", make_target(gpu(7, 0))) is None


def test_a_denoiser_without_linear_layers_refuses() -> None:
    target = make_target(linear_shapes=())
    assert KNOB.why_not("int8_weight_only", target) == "UNet2DConditionModel has no linear layers"
    assert KNOB.why_not("none", target) is None
