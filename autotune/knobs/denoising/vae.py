"""vae: the VAE that turns latents into pixels: the pipeline's own, SDXL's fp16 fix, or a tiny one (TAESD).

"fp16_fix" is SDXL's VAE in a version that does not overflow in float16. "tiny" is distilled from the original, with a
small share of its weights. The hub id or the folder of any other VAE is a value, too. The VAE is replaced while the
pipeline is loaded, so the unused one takes no memory.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TINY_TILE_PX = 512  # diffusers' AutoencoderTiny always cuts tiles of this side


def also(value: Value) -> bool:
    return isinstance(value, str) and "/" in value.strip("/")


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value == "own":
        return None
    if traits.vae_class is None:
        return f"{traits.class_name} has no VAE"
    if str(value) in traits.vae_faults:
        return traits.vae_faults[str(value)].removesuffix(".")
    if value == "fp16_fix" and not traits.vae_upcasts_fp16:
        return "the pipeline's VAE does not overflow in float16"
    if Path(str(value)).is_absolute() and not Path(str(value)).is_dir():
        return f"the folder {value} does not exist"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["vae"] == "fp16_fix" and config["dtype"] != "fp16":
        return f"vae=fp16_fix is for float16; with dtype={config['dtype']} the pipeline's own VAE does not overflow"
    if config["vae"] != "tiny" or not config["vae_tiling"]:
        return None
    side = max(max(shape.width, shape.height) for shape in target.workload.shapes)
    if side <= TINY_TILE_PX:
        return f"a picture of {side} pixels fits into one tile of the tiny VAE, which has {TINY_TILE_PX} pixels"
    if target.pipeline.known.inputs and target.pipeline.known.flow_matching:
        return "the tiny VAE encodes tiles of four channels only; these latents have sixteen"
    return None


def load(value: Value) -> dict[str, Any]:
    return {} if value == "own" else {"vae": value}


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    """Change nothing, as loading replaced the VAE. Counts the decoder's weights if it is the requested VAE."""
    vae, value = parts.vae(pipe), str(config["vae"])
    count = sum(p.numel() for p in vae.decoder.parameters()) if vae is not None and _is_requested(vae, value) else 0
    return Effect(count=count, what=f"weights in the decoder of the VAE {value}")


def _is_requested(vae: Any, value: str) -> bool:
    """Is this the VAE that `value` stands for, by its class and configuration?"""
    kind = type(vae).__name__
    if value == "tiny":
        return kind == "AutoencoderTiny"
    if value == "fp16_fix":
        return kind == "AutoencoderKL" and not vae.config.force_upcast
    loaded_from = str(getattr(vae.config, "_name_or_path", ""))
    return loaded_from == value or Path(loaded_from).resolve() == Path(value).expanduser().resolve()


TINY = {  # start of the pipeline's class name -> its tiny VAE, for plain scripts
    "StableDiffusion3": "madebyollin/taesd3",
    "StableDiffusionXL": "madebyollin/taesdxl",
    "Flux": "madebyollin/taef1",
}


def script(config: Config, target: Target) -> Script:
    value, name = str(config["vae"]), target.pipeline.known.class_name
    dtype = (
        f"torch.{'float16' if config['dtype'] == 'fp16' else 'bfloat16' if config['dtype'] == 'bf16' else 'float32'}"
    )
    if value == "own":
        return Script()
    if value not in ("tiny", "fp16_fix"):
        return Script(why_not="the class of another VAE is known only when it is loaded")
    if value == "tiny":
        own = "madebyollin/taesd" if name.startswith("StableDiffusion") else None
        source = next((tiny for begins, tiny in TINY.items() if name.startswith(begins)), own)
        if source is None:
            return Script(why_not=f"the tiny VAE for {name} is known only when the pipeline is loaded")
        kind = "AutoencoderTiny"
    else:
        source, kind = "madebyollin/sdxl-vae-fp16-fix", "AutoencoderKL"
    made = f'{kind}.from_pretrained("{source}", dtype={dtype}, use_safetensors=True)'
    lines = ("pipe.vae.register_to_config(force_upcast=False)",) if value == "fp16_fix" else ()
    return Script(imports=(f"from diffusers import {kind}",), load={"vae": made}, lines=lines)


KNOB = Knob(
    name="vae",
    stage=Stage.WEIGHTS,
    values=("own", "fp16_fix", "tiny"),
    changes_output=True,
    summary="which VAE decodes the latents",
    also=also,
    why_not=why_not,
    clash=clash,
    load=load,
    apply=apply,
    script=script,
)
