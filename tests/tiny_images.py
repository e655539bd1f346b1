"""More tiny parts of pipelines that make pictures, by the class that names them or the pipeline that needs them so."""

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
import transformers
from tiny import FAMILIES, WIDTH, clip, unet
from tiny_clips import HEADS, WAN_VAE, byt5, made
from tiny_videos import transformer

LANGUAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 400,
    "max_position_embeddings": 4096,
}


def qwen_3_vl(name: str = "Qwen3VLForConditionalGeneration", **more: Any) -> Any:
    cls = getattr(transformers, name)
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e4, "mrope_interleaved": True}
    eye = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": WIDTH}
    eye |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    torch.manual_seed(5)
    return cls(cls.config_class(text_config=LANGUAGE | {"rope_parameters": rope} | more, vision_config=eye)).eval()


def _mistral() -> Any:
    eye = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    eye |= {"model_type": "pixtral", "image_size": 32, "patch_size": 16, "head_dim": 8}
    text = {"model_type": "mistral", **LANGUAGE}
    torch.manual_seed(5)
    return transformers.Mistral3Model(transformers.Mistral3Config(text_config=text, vision_config=eye)).eval()


def _language_model(name: str, **more: Any) -> Any:
    cls = getattr(transformers, name)
    torch.manual_seed(5)
    return cls(cls.config_class(**LANGUAGE | {"pad_token_id": 0} | more)).eval()


def _hunyuan_image(**more: Any) -> Any:
    sizes = {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1, "text_embed_dim": WIDTH}
    channels = {"in_channels": 4, "out_channels": 4}
    return transformer("HunyuanImageTransformer2DModel", **HEADS | sizes | channels | {"rope_axes_dim": (8, 8)} | more)


def _hunyuan_refiner() -> dict[str, Any]:
    shapes = {"patch_size": (1, 1, 1), "rope_axes_dim": (4, 6, 6), "in_channels": 8, "guidance_embeds": True}
    return {"transformer": _hunyuan_image(**shapes)}


def _xl() -> dict[str, Any]:
    return FAMILIES["StableDiffusionXLPipeline"]()


def _union() -> dict[str, Any]:
    parts = _xl()
    config = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 2 * WIDTH,
        "transformer_layers_per_block": (1, 2),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
        "conditioning_embedding_out_channels": (8, 32),
        "num_trans_channel": 32,
        "num_trans_head": 2,
        "num_proj_channel": 32,
    }
    return parts | {"controlnet": made("ControlNetUnionModel", **config)}


def _xl_adapted() -> dict[str, Any]:
    """An adapter of two levels fits a UNet whose first level attends."""
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    parts = _xl()
    config = {name: value for name, value in parts["unet"].config.items() if name[0] != "_"}
    return _adapted(parts | {"unet": made("UNet2DConditionModel", **config | blocks)})


def _adapted(parts: dict[str, Any]) -> dict[str, Any]:
    return parts | {"adapter": made("T2IAdapter", channels=[32, 64], num_res_blocks=1, downscale_factor=2)}


def _depth() -> dict[str, Any]:
    config = transformers.DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 16, 16],
        fusion_hidden_size=16,
        is_hybrid=False,
    )
    torch.manual_seed(6)
    sees = transformers.DPTImageProcessor(size={"height": 32, "width": 32})
    return {
        "depth_estimator": transformers.DPTForDepthEstimation(config).eval(),
        "feature_extractor": sees,
        "unet": unet(5),
    }


def _bria() -> dict[str, Any]:
    """Its call takes the VAE's 16 pixels a cell for granted."""
    deep = {"dim_mult": [1, 1, 2, 2], "temperal_downsample": [False] * 3, "patch_size": 2, "scale_factor_spatial": 16}
    return {"vae": made("AutoencoderKLWan", **WAN_VAE | deep, in_channels=12, out_channels=12)}


def _long_clip() -> Any:
    config = clip(transformers.CLIPTextModelWithProjection).config
    config.max_position_embeddings = 128  # HiDream's call reads as many tokens
    torch.manual_seed(5)
    return transformers.CLIPTextModelWithProjection(config).eval()


PARTS: Mapping[str, Callable[[], Any]] = {
    "HiDreamImageTransformer2DModel": lambda: transformer(
        "HiDreamImageTransformer2DModel",
        **HEADS,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=2 * WIDTH,
        axes_dims_rope=(8, 4, 4),
        max_resolution=(32, 32),
        llama_layers=(0, 1),
    ),
    "LlamaForCausalLM": lambda: _language_model("LlamaForCausalLM"),
    "SmolLM3ForCausalLM": lambda: _language_model("SmolLM3ForCausalLM", vocab_size=128_256),
    "AutoencoderKLHunyuanImage": lambda: made(
        "AutoencoderKLHunyuanImage",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32),
        layers_per_block=1,
        spatial_compression_ratio=4,
        sample_size=64,
        scaling_factor=0.75,
    ),
    "AutoencoderKLHunyuanImageRefiner": lambda: made(
        "AutoencoderKLHunyuanImageRefiner",
        latent_channels=4,
        block_out_channels=(16, 16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
    ),
    "HunyuanImageTransformer2DModel": lambda: _hunyuan_image(text_embed_2_dim=WIDTH),
    "AdaptiveProjectedMixGuidance": lambda: diffusers.AdaptiveProjectedMixGuidance(),
    "Krea2Transformer2DModel": lambda: transformer(
        "Krea2Transformer2DModel",
        **HEADS,
        in_channels=16,
        num_layers=2,
        num_key_value_heads=1,
        intermediate_size=64,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    ),
    "Qwen3VLModel": lambda: qwen_3_vl("Qwen3VLModel"),
    "Qwen3VLForConditionalGeneration": qwen_3_vl,
    "Mistral3Model": _mistral,
    "BriaFiboTransformer2DModel": lambda: transformer(
        "BriaFiboTransformer2DModel",
        **HEADS,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=2 * WIDTH,
        axes_dims_rope=[4, 6, 6],
        text_encoder_dim=WIDTH,
    ),
    "Ideogram4Transformer2DModel": lambda: transformer(
        "Ideogram4Transformer2DModel",
        **HEADS,
        in_channels=16,
        num_layers=2,
        intermediate_size=64,
        adaln_dim=16,
        llm_features_dim=13 * WIDTH,
        mrope_section=(4, 2, 2),
    ),
    "ZImageControlNetModel": lambda: _z_control(4),
}


def _z_control(channels: int) -> Any:
    places = {"control_layers_places": [0], "control_refiner_layers_places": [0]}
    sizes = {"control_in_dim": channels, "dim": 32, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    return transformer("ZImageControlNetModel", **places, **sizes)


# Parts that a class needs in a form of its own.
TINY: Mapping[str, Callable[[], dict[str, Any]]] = {
    "HunyuanImagePipeline": lambda: {"text_encoder_2": byt5()},
    "HunyuanImageRefinerPipeline": _hunyuan_refiner,
    "HiDreamImagePipeline": lambda: {"text_encoder": _long_clip(), "text_encoder_2": _long_clip()},
    "Krea2Pipeline": lambda: {"text_encoder_select_layers": (1, 2)},
    "Ideogram4Pipeline": lambda: {"text_encoder": qwen_3_vl("Qwen3VLModel", num_hidden_layers=36)},
    "BriaFiboPipeline": _bria,
    "BriaFiboEditPipeline": _bria,
    "StableDiffusionXLControlNetUnionPipeline": _union,
    "StableDiffusionXLControlNetUnionImg2ImgPipeline": _union,
    "StableDiffusionXLControlNetUnionInpaintPipeline": _union,
    "StableDiffusionXLAdapterPipeline": _xl_adapted,
    "StableDiffusionAdapterPipeline": lambda: _adapted({"unet": unet(4), "requires_safety_checker": False}),
    "StableDiffusionDepth2ImgPipeline": _depth,
    "ZImageControlNetInpaintPipeline": lambda: {"controlnet": _z_control(9)},
}
