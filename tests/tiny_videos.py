"""Tiny parts of pipelines that make videos: 3-D VAEs and transformers over time, by the class that names them.

`tiny_wan(folder)` and `tiny_ltx(folder)` save whole checkpoints; `two=True` is Wan 2.2's two transformers that take
turns.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tiny import WIDTH, t5, t5_tokenizer

FRAMES, SIDE = 5, 32  # of the clips that tests draw

WAN_VAE = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 1, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 4,
}
LTX_VAE = {
    "latent_channels": 8,
    "block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "spatio_temporal_scaling": (True, True, False, False),
    "decoder_spatio_temporal_scaling": (True, True, False, False),
    "patch_size": 2,
}


def transformer(name: str, seed: int = 7, **config: Any) -> Any:
    """A transformer of diffusers whose weights are all set, also those that its class leaves as they are."""
    torch.manual_seed(seed)
    made = getattr(diffusers, name)(**config).eval()
    for parameter in made.parameters():
        torch.nan_to_num_(parameter.data)
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter.data, std=0.1)
    return made


def wan(seed: int = 7, **more: Any) -> Any:
    config = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "num_layers": 2}
    config |= {"ffn_dim": 32, "freq_dim": 16, "text_dim": WIDTH}
    return transformer("WanTransformer3DModel", seed, **config | more)


def ltx() -> Any:
    config = {"num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32, "caption_channels": WIDTH}
    return transformer("LTXVideoTransformer3DModel", in_channels=8, out_channels=8, num_layers=2, **config)


def umt5() -> Any:
    torch.manual_seed(3)
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 400}
    return transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes)).eval()


def _made(name: str, **config: Any) -> Any:
    torch.manual_seed(4)
    return getattr(diffusers, name)(**config).eval()


PARTS: Mapping[str, Callable[[], Any]] = {
    "AutoencoderKLWan": lambda: _made("AutoencoderKLWan", **WAN_VAE),
    "WanTransformer3DModel": wan,
    "AutoencoderKLLTXVideo": lambda: _made("AutoencoderKLLTXVideo", **LTX_VAE),
    "LTXVideoTransformer3DModel": ltx,
    "AutoencoderKLCogVideoX": lambda: _made(
        "AutoencoderKLCogVideoX",
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=4 * SIDE,  # its tiles are half as large: in tiles of 2 latents it draws another size
        sample_width=4 * SIDE,
    ),
    "CogVideoXTransformer3DModel": lambda: transformer(
        "CogVideoXTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=WIDTH,
        num_layers=2,
        sample_height=SIDE // 8,
        sample_width=SIDE // 8,
        sample_frames=FRAMES,
    ),
    "CogVideoXDDIMScheduler": lambda: diffusers.CogVideoXDDIMScheduler(),
    "AutoencoderKLHunyuanVideo": lambda: _made(
        "AutoencoderKLHunyuanVideo",
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    ),
    "HunyuanVideoTransformer3DModel": lambda: transformer(
        "HunyuanVideoTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
    ),
}


def tiny_wan(folder: Path, *, two: bool = False) -> Path:
    """Save a tiny WanPipeline; `two`: with a second transformer, which makes the last steps."""
    second = {"transformer_2": wan(8), "boundary_ratio": 0.875} if two else {}
    pipe = diffusers.WanPipeline(
        vae=PARTS["AutoencoderKLWan"](),
        transformer=wan(),
        text_encoder=umt5(),
        tokenizer=t5_tokenizer(),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **second,
    )
    pipe.save_pretrained(folder)
    return folder


def tiny_ltx(folder: Path) -> Path:
    """Save a tiny LTXPipeline."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    parts = {"vae": PARTS["AutoencoderKLLTXVideo"](), "transformer": ltx(), "scheduler": scheduler}
    diffusers.LTXPipeline(**parts, text_encoder=t5(), tokenizer=t5_tokenizer()).save_pretrained(folder)
    return folder
