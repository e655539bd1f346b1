"""qkv_fusion: every attention block computes its projections at once, and the picture stays."""

from conftest import make_target
from diffusers.models.attention_processor import Attention
from live import built, difference, picture

from autotune.knobs import find_knob


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
