"""qkv_fusion: every attention block computes its projections at once, and the picture stays."""

import copy

import torch
from conftest import make_target
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from live import built, difference, picture

from autotune.knobs import find_knob
from autotune.knobs.attention._fused import REPLACED, drop_replaced


def test_every_attention_block_is_fused_and_counted() -> None:
    pipe, effects = built(qkv_fusion=True)
    blocks = [m for part in (pipe.unet, pipe.vae) for m in part.modules() if isinstance(m, Attention)]
    assert all(block.fused_projections for block in blocks)
    assert effects["qkv_fusion"].count == len(blocks) == 16


def test_the_fused_products_run() -> None:
    pipe, _ = built(qkv_fusion=True)
    ran = []
    for name, module in pipe.unet.named_modules():
        if name.endswith((".to_qkv", ".to_kv", ".to_q", ".to_k", ".to_v")):
            module.register_forward_hook(lambda *_, name=name: ran.append(name.rpartition(".")[2]))
    picture(pipe)
    # self-attention reads to_qkv alone; cross-attention has its query from elsewhere
    assert set(ran) == {"to_qkv", "to_kv", "to_q"}
    assert ran.count("to_q") == ran.count("to_kv")


def test_fusing_does_not_change_the_picture() -> None:
    assert difference(picture(built()[0]), picture(built(qkv_fusion=True)[0])) < 1e-4


def test_a_pipeline_without_fused_projections_refuses() -> None:
    refusal = find_knob("qkv_fusion").why_not(True, make_target(fuses_qkv=False))
    assert refusal == "UNet2DConditionModel does not support fused projections"


def test_the_projections_that_are_replaced_hold_no_weights_and_are_not_quantized() -> None:
    plain, (pipe, effects) = built()[0], built(qkv_fusion=True, quantization="int8_weight_only")
    block = next(m for m in pipe.unet.modules() if isinstance(m, Attention) and not m.is_cross_attention)
    crossed = next(m for m in pipe.unet.modules() if isinstance(m, Attention) and m.is_cross_attention)
    assert not [name for name, _ in block.named_parameters() if name.startswith(("to_q.", "to_k.", "to_v."))]
    assert [name for name, _ in crossed.named_parameters() if name.startswith("to_q.")], "its query is not in to_kv"
    layers = [m for m in pipe.unet.modules() if isinstance(m, torch.nn.Linear)]
    assert effects["quantization"].count == len(layers)
    weights = [sum(p.numel() for p in one.unet.parameters()) for one in (plain, built(qkv_fusion=True)[0])]
    assert weights[0] == weights[1], "fusing takes no memory"


def test_a_pipe_that_is_unfused_later_draws_as_before() -> None:
    pipe = built(qkv_fusion=True)[0]
    before = picture(pipe)
    pipe.unet.unfuse_qkv_projections()
    pipe.unet.set_attn_processor(AttnProcessor2_0())
    assert difference(before, picture(pipe)) < 1e-4
    assert difference(before, picture(copy.deepcopy(pipe))) < 1e-4


def test_what_is_replaced_has_its_part_of_the_weights() -> None:
    block = Attention(
        query_dim=16, heads=2, dim_head=8, bias=True, added_kv_proj_dim=16, added_proj_bias=True, context_pre_only=False
    )
    own = {name: getattr(block, name) for names in REPLACED.values() for name in names}
    with torch.no_grad():
        block.fuse_projections()
    inputs = torch.randn(3, 5, 16)
    expected = {name: one(inputs) for name, one in own.items()}
    assert drop_replaced(block) == 6
    for name, one in own.items():
        part = getattr(block, name)
        assert torch.allclose(part(inputs), expected[name], atol=1e-6)
        assert torch.equal(part.weight, one.weight)
        assert torch.equal(part.bias, one.bias)
    assert drop_replaced(block) == 0, "once"
