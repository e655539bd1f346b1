"""tiny_checkpoint(): save a checkpoint of any family with random weights: real classes, real files, about 1 MB.

`tiny_checkpoint("StableDiffusionXLPipeline", folder)` saves one; FAMILIES lists the classes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from autotune import demo

WIDTH = 32  # of the text encoders
ALPHAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM = {**ALPHAS, "clip_sample": False, "set_alpha_to_one": False}


def tiny_checkpoint(class_name: str, folder: Path, **changes: Any) -> Path:
    """Save a tiny pipeline of this class, with the components in `changes` replaced; returns its folder."""
    torch.manual_seed(0)
    made = FAMILIES[class_name]() | changes
    getattr(diffusers, class_name)(**made).save_pretrained(folder)
    return folder


def _stable_diffusion(*, channels_in: int = 4, scheduler: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "vae": vae(),
        "unet": unet(channels_in),
        "text_encoder": clip(CLIPTextModel),
        "tokenizer": clip_tokenizer(),
        "scheduler": scheduler or PNDMScheduler(**ALPHAS, skip_prk_steps=True, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **more,
    }


def _xl() -> dict[str, Any]:
    denoiser = unet(
        4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        cross_attention_dim=2 * WIDTH,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return {
        "vae": vae(force_upcast=True, scaling_factor=0.13025),
        "unet": denoiser,
        "text_encoder": clip(CLIPTextModel),
        "text_encoder_2": clip(CLIPTextModelWithProjection),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": EulerDiscreteScheduler(**ALPHAS, steps_offset=1),
        "feature_extractor": None,
        "image_encoder": None,
    }


def _controlled() -> dict[str, Any]:
    made = _stable_diffusion()
    return made | {"controlnet": ControlNetModel.from_unet(made["unet"], conditioning_embedding_out_channels=(8, 16))}


def _if_stage(channels_in: int, **more: Any) -> dict[str, Any]:
    blocks = {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    }
    denoiser = unet(
        channels_in,
        out_channels=6,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        resnet_skip_time_act=True,
        act_fn="gelu",
        encoder_hid_dim=WIDTH,
        class_embed_type="timestep" if channels_in == 6 else None,
        sample_size=32 if channels_in == 6 else 16,
        **blocks,
    )
    steps = {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range", "prediction_type": "epsilon"}
    return {
        "tokenizer": t5_tokenizer(),
        "text_encoder": t5(),
        "unet": denoiser,
        "scheduler": DDPMScheduler(**steps, thresholding=True, sample_max_value=1.5),
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
        **more,
    }


def _if_second_stage() -> dict[str, Any]:
    return _if_stage(6, image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"))


def _upscaler() -> dict[str, Any]:
    made = _stable_diffusion(channels_in=7, scheduler=DDIMScheduler(**DDIM, prediction_type="v_prediction"))
    del made["requires_safety_checker"]
    made |= {"unet": unet(7, num_class_embeds=1000), "vae": vae(scaling_factor=0.08333)}
    return made | {"low_res_scheduler": DDPMScheduler(**ALPHAS), "watermarker": None, "max_noise_level": 350}


def _flux() -> dict[str, Any]:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    # With random weights the output differs much from step to step. Trained weights differ little, as caches need.
    with torch.no_grad():
        transformer.x_embedder.weight.mul_(0.1)
        transformer.time_text_embed.timestep_embedder.linear_2.weight.mul_(0.1)
    return {
        "vae": vae(shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False),
        "transformer": transformer,
        "text_encoder": clip(CLIPTextModel),
        "text_encoder_2": t5(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _sd3() -> dict[str, Any]:
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=32,
    )
    return {
        "vae": vae(shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False),
        "transformer": transformer,
        "text_encoder": clip(CLIPTextModelWithProjection),
        "text_encoder_2": clip(CLIPTextModelWithProjection),
        "text_encoder_3": t5(2 * WIDTH),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "tokenizer_3": t5_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _pixart() -> dict[str, Any]:
    transformer = PixArtTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        use_additional_conditions=False,
    )
    return {
        "vae": vae(),
        "transformer": transformer,
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": DPMSolverMultistepScheduler(),
    }


FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionImg2ImgPipeline": _stable_diffusion,
    "StableDiffusionInpaintPipeline": lambda: _stable_diffusion(channels_in=9),
    "StableDiffusionControlNetPipeline": _controlled,
    "StableDiffusionUpscalePipeline": _upscaler,
    "StableDiffusionXLPipeline": _xl,
    "StableDiffusionXLImg2ImgPipeline": _xl,
    "StableDiffusionXLInpaintPipeline": _xl,
    "IFPipeline": lambda: _if_stage(3),
    "IFSuperResolutionPipeline": _if_second_stage,
    "FluxPipeline": _flux,
    "StableDiffusion3Pipeline": _sd3,
    "PixArtSigmaPipeline": _pixart,
}


def unet(channels_in: int, **changes: Any) -> UNet2DConditionModel:
    settings: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": channels_in,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**settings | changes).eval()


def vae(**changes: Any) -> AutoencoderKL:
    """An autoencoder of two levels, so that a latent is two pixels wide; its tiles are 32 pixels wide."""
    settings: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 32,
    }
    return AutoencoderKL(**settings | changes).eval()


def tiny_vae(**changes: Any) -> AutoencoderTiny:
    """A tiny VAE that can replace `vae()`."""
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), **changes).eval()


def clip(cls: Any) -> Any:
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return cls(config).eval()


def clip_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo.PIPELINE / "tokenizer")


def t5(width: int = WIDTH) -> T5EncoderModel:
    config = T5Config(
        d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=300, feed_forward_proj="gated-gelu"
    )
    torch.manual_seed(5)  # the same weights in every pipeline, as in published pipelines
    return T5EncoderModel(config).eval()


def t5_tokenizer() -> T5TokenizerFast:
    """A tokenizer whose vocabulary is the letters."""
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -2.0)]
    letters += [(chr(code), -3.0) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(letters, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0, model_max_length=77)
