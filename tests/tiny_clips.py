"""More tiny parts of pipelines that make videos, by the class that names them, and by the pipeline that needs them so.

Beside tests/tiny_videos.py, which has the parts of the families that have a preset.
"""

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
import transformers
from tiny import FAMILIES, WIDTH, t5_tokenizer
from tiny_videos import PARTS as PARTS_BEFORE
from tiny_videos import WAN_VAE, transformer, umt5, wan

HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
LIKE_WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "ffn_dim": 32,
    "freq_dim": 16,
    "text_dim": WIDTH,
}
LIKE_HUNYUAN = HEADS | {
    "out_channels": 4,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "text_embed_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "rope_axes_dim": (4, 6, 6),
}


def made(name: str, **config: Any) -> Any:
    """A model of diffusers of this class."""
    torch.manual_seed(4)
    return getattr(diffusers, name)(**config).eval()


def vision(name: str = "CLIPVisionModel") -> Any:
    """A model of transformers that reads pictures of 16 x 16 pixels in patches of 8."""
    cls = getattr(transformers, name)
    sizes = {"hidden_size": WIDTH, "projection_dim": WIDTH, "intermediate_size": 32, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "image_size": 16, "patch_size": 8}
    torch.manual_seed(6)
    return cls(cls.config_class(**sizes)).eval()


def reader() -> Any:
    """Cuts a picture to what vision() reads."""
    return transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def _flowing() -> Any:
    return diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def _motion(**more: Any) -> Any:
    layers = {"motion_layers_per_block": 1, "motion_mid_block_layers_per_block": 1}
    heads = {"motion_num_attention_heads": 2, "motion_norm_num_groups": 8, "motion_max_seq_length": 16}
    return made("MotionAdapter", block_out_channels=(32, 64), **layers, **heads, **more)


def _flat_unet(name: str, **more: Any) -> Any:
    """A UNet over frames of one of diffusers' first pipelines for videos."""
    blocks = {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "block_out_channels": (16, 32),
    }
    sizes = {"layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8, "cross_attention_dim": WIDTH}
    return made(name, sample_size=16, **blocks, **sizes, **more)


def byt5() -> Any:
    """The text encoder of the letters on signs; its tokenizer needs no file."""
    config = transformers.T5Config(d_model=WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=1510)
    torch.manual_seed(5)
    return transformers.T5EncoderModel(config).eval()


def _qwen_text() -> Any:
    cls = transformers.Qwen2_5_VLTextModel
    rope = {"type": "default", "mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e4}
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 3, "vocab_size": 400}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
    torch.manual_seed(5)
    return cls(cls.config_class(**sizes, **heads, rope_parameters=rope, pad_token_id=0)).eval()


PARTS: Mapping[str, Callable[[], Any]] = {
    "MotionAdapter": _motion,
    "UNet3DConditionModel": lambda: _flat_unet("UNet3DConditionModel"),
    "AnyFlowTransformer3DModel": lambda: transformer("AnyFlowTransformer3DModel", **LIKE_WAN),
    "AnyFlowFARTransformer3DModel": lambda: transformer(
        "AnyFlowFARTransformer3DModel", **LIKE_WAN, chunk_partition=(1, 1, 1)
    ),
    "FlowMapEulerDiscreteScheduler": lambda: diffusers.FlowMapEulerDiscreteScheduler(),
    "ChronoEditTransformer3DModel": lambda: transformer(
        "ChronoEditTransformer3DModel", **LIKE_WAN | {"in_channels": 12}, image_dim=WIDTH, added_kv_proj_dim=24
    ),
    "CLIPVisionModel": vision,
    "AutoencoderKLMagvit": lambda: made(
        "AutoencoderKLMagvit",
        latent_channels=4,
        block_out_channels=[8, 8, 8, 8],
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    ),
    "EasyAnimateTransformer3DModel": lambda: transformer(
        "EasyAnimateTransformer3DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=2,
        mmdit_layers=1,
        sample_width=4,
        sample_height=4,
        time_embed_dim=16,
        text_embed_dim=WIDTH,
    ),
    "HeliosTransformer3DModel": lambda: transformer("HeliosTransformer3DModel", **LIKE_WAN, rope_dim=(4, 4, 4)),
    "HeliosScheduler": lambda: diffusers.HeliosScheduler(stages=1),
    "Qwen2_5_VLTextModel": _qwen_text,
    "ByT5Tokenizer": lambda: transformers.ByT5Tokenizer(),
    "ClassifierFreeGuidance": lambda: diffusers.ClassifierFreeGuidance(guidance_scale=5.0),
    "BaseGuidance": lambda: diffusers.ClassifierFreeGuidance(guidance_scale=5.0),
    "AutoencoderKLHunyuanVideo15": lambda: made(
        "AutoencoderKLHunyuanVideo15",
        latent_channels=4,
        block_out_channels=(16, 16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
    ),
    "HunyuanVideo15Transformer3DModel": lambda: _hunyuan_15(),
    "LatteTransformer3DModel": lambda: transformer(
        "LatteTransformer3DModel",
        **HEADS,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=32,
        attention_bias=True,
        sample_size=16,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=WIDTH,
        video_length=3,
    ),
    "AutoencoderKLMochi": lambda: made(
        "AutoencoderKLMochi",
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    ),
    "MochiTransformer3DModel": lambda: transformer(
        "MochiTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        max_sequence_length=16,
    ),
    "MotifVideoTransformer3DModel": lambda: transformer(
        "MotifVideoTransformer3DModel",
        **HEADS,
        in_channels=9,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        text_embed_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
    ),
    "SanaVideoTransformer3DModel": lambda: transformer(
        "SanaVideoTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        sample_size=8,
    ),
    "SkyReelsV2Transformer3DModel": lambda: transformer("SkyReelsV2Transformer3DModel", **LIKE_WAN),
    "WanVACETransformer3DModel": lambda: transformer(
        "WanVACETransformer3DModel", **LIKE_WAN, vace_layers=[0, 1], vace_in_channels=24
    ),
}


def _hunyuan_15(**more: Any) -> Any:
    config = {name: value for name, value in LIKE_HUNYUAN.items() if name not in ("num_single_layers", "rope_axes_dim")}
    config.pop("pooled_projection_dim")
    config |= {"in_channels": 9, "text_embed_2_dim": WIDTH, "image_embed_dim": WIDTH, "target_size": 32}
    return transformer(
        "HunyuanVideo15Transformer3DModel", **config | {"rope_axes_dim": (4, 6, 6), "task_type": "t2v"} | more
    )


def _wan_vae() -> dict[str, Any]:
    return {"vae": made("AutoencoderKLWan", **WAN_VAE)}


def _sky(**more: Any) -> dict[str, Any]:
    text = {"tokenizer": t5_tokenizer(), "text_encoder": umt5()}
    config = LIKE_WAN | more
    return {"transformer": transformer("SkyReelsV2Transformer3DModel", **config), "scheduler": _flowing(), **text}


def _image_to_clip() -> dict[str, Any]:
    """The second of the two pictures' readers looks at nothing: Wan 2.2's own has none."""
    return {"transformer": wan(in_channels=12), "image_processor": None}


def _seeing() -> dict[str, Any]:
    return {"image_encoder": vision(), "image_processor": reader(), "scheduler": _flowing()}


def _skyreels() -> dict[str, Any]:
    seeing = {"image_encoder": vision("CLIPVisionModelWithProjection"), "image_processor": reader()}
    return _sky(in_channels=12, image_dim=WIDTH, added_kv_proj_dim=24) | seeing


def hunyuan_skyreels() -> dict[str, Any]:
    return {"transformer": transformer("HunyuanVideoTransformer3DModel", **LIKE_HUNYUAN, in_channels=8)}


def _cog_image() -> dict[str, Any]:
    """Its transformer takes the picture's latents beside those of the clip."""
    config = {
        name: value for name, value in PARTS_BEFORE["CogVideoXTransformer3DModel"]().config.items() if name[0] != "_"
    }
    return {"transformer": transformer("CogVideoXTransformer3DModel", **config | {"in_channels": 8})}


def _motion_xl() -> dict[str, Any]:
    return FAMILIES["StableDiffusionXLPipeline"]()


# Parts that a class needs in a form of its own.
TINY: Mapping[str, Callable[[], dict[str, Any]]] = {
    "WanImageToVideoPipeline": _image_to_clip,
    "ChronoEditPipeline": _seeing,
    "SanaVideoPipeline": _wan_vae,
    "SanaImageToVideoPipeline": _wan_vae,
    "SkyReelsV2Pipeline": _sky,
    "SkyReelsV2DiffusionForcingPipeline": _sky,
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": _sky,
    "SkyReelsV2ImageToVideoPipeline": _skyreels,
    "CogVideoXImageToVideoPipeline": _cog_image,
    "AnimateDiffSDXLPipeline": _motion_xl,
    "HunyuanVideo15Pipeline": lambda: {"text_encoder_2": byt5()},
}
