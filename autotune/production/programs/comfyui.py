"""comfyui: a workflow of ComfyUI in the format of its API, for a UNet that a checkpoint in one file holds.

ComfyUI has code of its own for models and samplers, and draws its noise otherwise: pictures of a seed are others, and
the figures of the measurement don't hold there. The node of LoRAs, the tiles and the samplers are those of its
repository.
"""

import json
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.production.programs.handed_on import HandedOn, Settings
from autotune.production.tuned_config import TunedConfig

SAMPLERS = {
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "LCMScheduler": "lcm",
    "UniPCMultistepScheduler": "uni_pc",
}
TILE = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}  # the node's defaults
AT_START = "is an option of ComfyUI's start, not of a workflow"

Node = dict[str, Any]


def hand_on(tuned: TunedConfig, name: str) -> HandedOn:
    """Raises UserError for a pipeline that the plain workflow is not for."""
    sampler = _sampler(tuned)
    settings, workload = Settings(tuned, "ComfyUI"), tuned.workload
    left = [_checkpoint_words(tuned)]
    nodes: dict[str, Node] = {
        "checkpoint": _node("CheckpointLoaderSimple", ckpt_name=_file_name(tuned.pipeline.source))
    }
    model, clip = ["checkpoint", 0], ["checkpoint", 1]
    for number, (where, weight) in enumerate(tuned.pipeline.loras.values()):
        lora = {"lora_name": _file_name(where), "strength_model": weight, "strength_clip": weight}
        nodes[f"lora_{number}"] = _node("LoraLoader", model=model, clip=clip, **lora)
        model, clip = [f"lora_{number}", 0], [f"lora_{number}", 1]
    if isinstance(ratio := settings.get("tome_ratio"), float):
        settings.take("tome_ratio")
        nodes["tome"] = _node("TomePatchModel", model=model, ratio=ratio)
        model = ["tome", 0]
    if (
        settings.get("compile") == "denoiser"
        and not settings.get("compile_mode")
        and not settings.get("inductor_flags")
    ):
        settings.take("compile")
        nodes["compile"] = _node("TorchCompileModel", model=model, backend="inductor")
        model = ["compile", 0]
    nodes["positive"] = _node("CLIPTextEncode", text=workload.prompts[0], clip=clip)
    nodes["negative"] = _node("CLIPTextEncode", text=workload.negative_prompt or "", clip=clip)
    size = {"width": workload.width, "height": workload.height, "batch_size": workload.batch}
    nodes["noise"] = _node("EmptyLatentImage", **size)
    if settings.get("scheduler") is not None:
        settings.take("scheduler")
    steps = {"seed": workload.seed, "steps": workload.steps, "cfg": workload.guidance_scale or 1.0, "denoise": 1.0}
    ends = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["noise", 0]}
    nodes["sample"] = _node("KSampler", model=model, sampler_name=sampler, scheduler="normal", **steps, **ends)
    decode: Node = {"samples": ["sample", 0], "vae": ["checkpoint", 2]}
    if settings.get("vae_tiling"):
        settings.take("vae_tiling")
        nodes["decode"] = _node("VAEDecodeTiled", **decode, **TILE)
    else:
        nodes["decode"] = _node("VAEDecode", **decode)
    nodes["save"] = _node("SaveImage", filename_prefix="autotune", images=["decode", 0])
    for knob in ("dtype", "attention", "offload", "memory_format", "tf32"):
        settings.leave(knob, AT_START)
    left += [*settings.left_out, "the spacing of the steps: the workflow has ComfyUI's 'normal'"]
    return HandedOn(json.dumps(nodes, indent=2) + "\n", tuple(left))


def _node(kind: str, **inputs: Any) -> Node:
    return {"class_type": kind, "inputs": inputs}


def _sampler(tuned: TunedConfig) -> str:
    """ComfyUI's name of the scheduler. Raises UserError for a pipeline that the plain workflow is not for."""
    traits, pipeline = tuned.pipeline.known, tuned.pipeline
    scheduler = scheduler_of(tuned.config, tuned.target)
    reasons = {
        f"its denoiser is a {traits.denoiser_class}": traits.denoiser != "unet",
        "it has no VAE": traits.vae_class is None,
        "it starts from pictures": bool(tuned.inputs),
        "it has a ControlNet": pipeline.controlnet is not None,
        "its denoiser is a GGUF file": pipeline.gguf is not None,
        "its weights are random": pipeline.weights == "random",
        "it ships with autotune": pipeline.source == "demo",
        "a function of yours builds it": pipeline.factory is not None,
        f"ComfyUI has no sampler like {scheduler}": scheduler not in SAMPLERS,
    }
    if why := [reason for reason, holds in reasons.items() if holds]:
        raise UserError(
            f"--as comfyui writes the workflow of a UNet from text to pictures, and not for this: {' and '.join(why)}."
        )
    return SAMPLERS[scheduler]


def _file_name(source: str) -> str:
    """The file that ComfyUI lists in its folder of models: a file's own name, or one after the hub id or folder."""
    name = Path(source.rstrip("/")).name
    return name if Path(name).suffix == ".safetensors" else f"{name}.safetensors"


def _checkpoint_words(tuned: TunedConfig) -> str:
    name = _file_name(tuned.pipeline.source)
    return f"the weights: ComfyUI looks for models/checkpoints/{name}, the checkpoint in one file"
