"""vae_tiling: the VAE decodes large pictures in overlapping tiles: bounded memory, small differences at the seams.

True takes the VAE's own tiles, as large as the pictures that it was trained on: 1024 pixels for SDXL. A number
is the side of a tile in pixels: smaller tiles take less memory, and more of the picture lies at seams.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Range, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


SMALLEST = 32  # pixels


def also(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= SMALLEST and value % 8 == 0


def why_not(value: Value, target: Target) -> str | None:
    if value and target.pipeline.known.vae_class is None:
        return f"{target.pipeline.known.class_name} has no VAE"
    own = target.pipeline.known.vae_tile_px
    tile = own if isinstance(value, bool) else value
    largest = max(target.workload.shapes, key=lambda shape: max(shape.width, shape.height))
    if value and own is None:
        return f"{target.pipeline.known.vae_class} does not support tiling"
    if value and not isinstance(value, bool) and value == own:
        return f"the VAE's own tiles have {own} pixels, which is vae_tiling=true"
    if value and isinstance(tile, int) and max(largest.width, largest.height) <= tile:
        return f"{largest.width}x{largest.height} fits in one tile of {tile} pixels"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    vae = parts.vae(pipe)
    assert vae is not None, "why_not refuses a pipe without a VAE"
    side = config["vae_tiling"]
    if isinstance(side, bool):
        vae.enable_tiling()
        return Effect(count=int(vae.use_tiling), what="VAE set to tiling")
    set_tile(vae, int(side))
    return Effect(count=int(vae.use_tiling), what=f"VAE set to tiles of {side} pixels")


def set_tile(vae: Any, side: int) -> None:
    """Decode in tiles of this side, which overlap by a quarter. VAEs of videos and of pictures name it differently."""
    if hasattr(vae, "tile_latent_min_size"):
        vae.enable_tiling()
        factor = int(vae.tile_sample_min_size) // int(vae.tile_latent_min_size)
        vae.tile_sample_min_size, vae.tile_latent_min_size = side, side // factor
    else:
        vae.enable_tiling(tile_sample_min_height=side, tile_sample_min_width=side)
        if hasattr(vae, "tile_sample_stride_height"):  # CogVideoX' VAE overlaps by a share of its own
            vae.tile_sample_stride_height = vae.tile_sample_stride_width = side - side // 4


def script(config: Config, target: Target) -> Script:
    vae, side = f"pipe.{target.pipeline.known.vae_name}", config["vae_tiling"]
    if isinstance(side, bool):
        return Script(lines=(f"{vae}.enable_tiling()",))
    stride = int(side) - int(side) // 4
    lines = (
        f"if hasattr({vae}, 'tile_latent_min_size'):",
        f"    {vae}.enable_tiling()",
        f"    factor = {vae}.tile_sample_min_size // {vae}.tile_latent_min_size",
        f"    {vae}.tile_sample_min_size, {vae}.tile_latent_min_size = {side}, {side} // factor",
        "else:",
        f"    {vae}.enable_tiling(tile_sample_min_height={side}, tile_sample_min_width={side})",
        f"    if hasattr({vae}, 'tile_sample_stride_height'):  # of what a tile adds",
        f"        {vae}.tile_sample_stride_height = {vae}.tile_sample_stride_width = {stride}",
    )
    return Script(lines=lines)


KNOB = Knob(
    name="vae_tiling",
    stage=Stage.PATCH,
    values=(False, True, 512, 256),
    changes_output=True,
    summary="decode large pictures in tiles of this side",
    nearest={512: (True,), 256: (512, True)},
    ranges=lambda target: (Range(low=128, high=1024, step=8),),
    also=also,
    why_not=why_not,
    apply=apply,
    script=script,
)
