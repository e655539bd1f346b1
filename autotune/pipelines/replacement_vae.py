"""Replacement VAE: a VAE that takes the place of a pipeline's own: TAESD, SDXL's fp16 fix, or any other."""

import json
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import locate
from autotune.pipelines.random_weights import randomize

if TYPE_CHECKING:
    import torch

# Value of the knob `vae` -> the VAE for latents of (channels, scaling factor)
REPLACEMENT_VAES = {
    "tiny": {
        (4, 0.18215): "madebyollin/taesd",
        (4, 0.13025): "madebyollin/taesdxl",
        (16, 1.5305): "madebyollin/taesd3",
        (16, 0.3611): "madebyollin/taef1",
    },
    "fp16_fix": {(4, 0.13025): "madebyollin/sdxl-vae-fp16-fix"},
}
PIXELS_PER_CELL = 8  # the side of a latent cell, for all of REPLACEMENT_VAES
NO_REPLACEMENT = "no such VAE is known for these latents"


def vae_fault(pipeline: Pipeline, value: str, config: Any) -> str | None:
    """Why the VAE of this value of the knob `vae` is not available, as a clause; None: it is. May download it.

    config  that of the pipeline's own VAE
    """
    source = _source(value, config)
    if source is None:
        return NO_REPLACEMENT
    if value == "fp16_fix" and not getattr(config, "force_upcast", False):
        return "the pipeline's VAE does not overflow in float16"
    if pipeline.weights == "random":
        return None
    if _latent(config)[1] != PIXELS_PER_CELL:
        return NO_REPLACEMENT
    try:
        locate.part_folder(source)
    except UserError as error:
        return str(error).removesuffix(".")
    return None


def load_vae(
    pipeline: Pipeline,
    value: str,
    own: Any,
    dtype: "torch.dtype",
    device: str,
    local_files_only: bool,
    drawn_on: str | None = None,
) -> "torch.nn.Module":
    """The VAE of this value of the knob `vae`. Raises UserError where it can't be loaded or does not fit.

    value  a key of REPLACEMENT_VAES, a hub id or a folder
    own    the pipeline's own VAE; None: it has none

    Random weights end on `device`; `drawn_on` is where they are drawn, see random_weights.randomize.
    """
    if own is None:
        raise UserError(f"{pipeline.name} has no VAE that vae={value} could replace.")
    if pipeline.weights == "random" and value in REPLACEMENT_VAES:
        return randomize(_maker(value, own.config), dtype, device, drawn_on)
    source = _source(value, own.config)
    if source is None:
        raise UserError(f"vae={value}: {NO_REPLACEMENT}.")
    folder = locate.part_folder(source, local_files_only=local_files_only)
    try:
        class_name = json.loads((folder / "config.json").read_text())["_class_name"]
        vae = getattr(import_module("diffusers"), class_name).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"the VAE {source!r} can't be loaded: {str(error).splitlines()[0]}") from error
    if not hasattr(vae, "decode"):
        raise UserError(f"{source!r} is a {class_name}, no VAE.")
    vae.register_to_config(_name_or_path=source)  # the hub id, not the folder in the hub's cache
    if value == "fp16_fix":
        vae.register_to_config(force_upcast=False)
    if _latent(vae.config) != _latent(own.config):
        its, needed = ("{} channels, {} pixels a cell".format(*_latent(c)) for c in (vae.config, own.config))
        raise UserError(f"the VAE {source!r} decodes latents of {its}; those of {pipeline.name} have {needed}.")
    return vae


def _source(value: str, config: Any) -> str | None:
    """The hub id or folder of the VAE; None: none is known for the latents of the own VAE's `config`."""
    key = _latent(config)[0], float(getattr(config, "scaling_factor", None) or 1.0)
    return REPLACEMENT_VAES[value].get(key) if value in REPLACEMENT_VAES else value


def _latent(config: Any) -> tuple[int, int]:
    """The channels of a VAE's latents, and the side of a latent cell in pixels."""
    levels: Any = getattr(config, "block_out_channels", None) or getattr(config, "encoder_block_out_channels", ())
    return int(getattr(config, "latent_channels", 0)), int(2 ** (len(levels) - 1))


def _maker(value: str, own: Any) -> "Callable[[], torch.nn.Module]":
    """A function that makes the VAE for random weights: for the latents of the own VAE's configuration `own`.

    It is as large as the real one where both have the same number of levels.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny

    if value == "fp16_fix":
        return lambda: AutoencoderKL.from_config({**own, "force_upcast": False})
    levels = len(own.block_out_channels)
    blocks = [1, *[3] * (levels - 1)]
    return lambda: AutoencoderTiny(
        encoder_block_out_channels=[64] * levels,
        decoder_block_out_channels=[64] * levels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
        latent_channels=own.latent_channels,
    )
