"""The traits of a pipeline, read off its real classes built without weights (torch's "meta" device)."""

import inspect
from pathlib import Path
from typing import Any

import torch

from autotune.errors import UserError
from autotune.folders import read_json
from autotune.pipeline import Traits
from autotune.pipelines.loading import assemble

SUPPORTED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def traits_of(folder: Path) -> Traits:
    """What the pipeline in this folder can do. Reads configurations only; raises UserError if we can't feed it."""
    class_name = read_json(folder / "model_index.json", "pipeline").get("_class_name")
    if class_name not in SUPPORTED:
        raise UserError(f"{class_name} is not supported yet; what is: {', '.join(SUPPORTED)}.")
    pipe = assemble(folder, dtype=torch.float32, device="meta")
    denoiser: Any = pipe.unet
    vae: Any = getattr(pipe, "vae", None)
    scale = getattr(pipe, "vae_scale_factor", 8)
    call = inspect.signature(type(pipe).__call__).parameters
    side = _side(denoiser) * scale
    return Traits(
        class_name=type(pipe).__name__,
        denoiser="unet",
        denoiser_class=type(denoiser).__name__,
        vae_class=type(vae).__name__ if vae is not None else None,
        fuses_qkv=hasattr(pipe, "fuse_qkv_projections"),
        slices_attention=hasattr(denoiser, "set_attention_slice"),
        repeated_blocks=tuple(getattr(denoiser, "_repeated_blocks", None) or ()),
        attention_downsamples=tuple(sorted({downsample_of(n, denoiser) for n in transformer_blocks(denoiser)})),
        linear_shapes=tuple(sorted({(m.in_features, m.out_features) for m in _all(denoiser, torch.nn.Linear)})),
        convolutions=len(_all(denoiser, torch.nn.Conv2d)),
        vae_tile_px=getattr(vae, "tile_sample_min_size", None),
        vae_upcasts_fp16="XL" in type(pipe).__name__ and bool(getattr(vae.config, "force_upcast", False)),
        size_multiple=scale,
        default_width=side,
        default_height=side,
        default_steps=_default(call, "num_inference_steps"),
        default_guidance_scale=_default(call, "guidance_scale"),
        prompt_tokens=pipe.tokenizer.model_max_length,
    )


def transformer_blocks(denoiser: Any) -> dict[str, Any]:
    """The UNet's transformer blocks (diffusers' BasicTransformerBlock and what was derived from it), by name."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if any(cls.__name__ == "BasicTransformerBlock" for cls in type(module).__mro__)
    }


def downsample_of(block: str, denoiser: Any) -> int:
    """By how much the latent is reduced, per side, where this block of a UNet stands: 1, 2, 4 ..."""
    levels = len(denoiser.config.block_out_channels)
    part, _, rest = block.partition(".")
    index = int(rest.split(".")[0]) if rest[:1].isdigit() else 0
    depth = {"down_blocks": index, "up_blocks": levels - 1 - index}.get(part, levels - 1)
    return int(2**depth)


def _all(module: Any, cls: type) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, cls)]


def _side(denoiser: Any) -> int:
    size = denoiser.config.sample_size
    return int(size if isinstance(size, int) else size[0])


def _default(call: Any, name: str) -> Any:
    return call[name].default
