"""vae_tiling: the VAE decodes large pictures in overlapping tiles: bounded memory, small differences at the seams."""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value and target.pipeline.known.vae_class is None:
        return f"{target.pipeline.known.class_name} has no VAE"
    tile = target.pipeline.known.vae_tile_px
    largest = max(target.workload.shapes, key=lambda shape: max(shape.width, shape.height))
    if value and tile is None:
        return f"{target.pipeline.known.vae_class} does not support tiling"
    if value and tile is not None and max(largest.width, largest.height) <= tile:
        return f"{largest.width}x{largest.height} fits in one tile of {tile} pixels"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    vae = parts.vae(pipe)
    assert vae is not None, "why_not refuses a pipe without a VAE"
    vae.enable_tiling()
    return Effect(count=int(vae.use_tiling), what="VAE set to tiling")


def script(config: Config, target: Target) -> Script:
    return Script(lines=(f"pipe.{target.pipeline.known.vae_name}.enable_tiling()",))


KNOB = Knob(
    name="vae_tiling",
    stage=Stage.PATCH,
    values=(False, True),
    changes_output=True,
    summary="decode large pictures in tiles",
    why_not=why_not,
    apply=apply,
    script=script,
)
