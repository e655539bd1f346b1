"""sglang: the YAML file of `sglang generate --config`, with the diffusers backend."""

from pathlib import Path

from autotune.errors import UserError
from autotune.production.programs.cache_dit import ATTENTION
from autotune.production.programs.handed_on import HandedOn, Scalar, Settings, notes, yaml_file
from autotune.production.tuned_config import TunedConfig

SWITCHES = {"vae_tiling": "vae_tiling", "vae_slicing": "vae_slicing"}
BEFORE_LOADING = "sglang loads the checkpoint's own"


def hand_on(tuned: TunedConfig, name: str) -> HandedOn:
    """Raises UserError for a pipeline that sglang can't load from a folder or the hub."""
    pipeline, traits = tuned.pipeline, tuned.pipeline.known
    _require_loadable(tuned)
    settings = Settings(tuned, "sglang")
    values: dict[str, Scalar | dict[str, Scalar | list[str]]] = {"model_path": pipeline.source, "backend": "diffusers"}
    if pipeline.revision is not None and not pipeline.revision.startswith("files-"):
        values["revision"] = pipeline.revision
    values["dit_precision"] = str(tuned.config["dtype"])
    if settings.get("dtype") is not None:
        settings.take("dtype")
    for knob, argument in SWITCHES.items():
        values[argument] = settings.get(knob) is True
        if values[argument]:
            settings.take(knob)
    if traits.dispatches_attention and (kernel := ATTENTION.get(str(settings.get("attention")))):
        values["attention_backend"] = kernel
        settings.take("attention")
    if settings.get("offload") == "model":
        values["dit_cpu_offload"] = True  # with diffusers, one component means all: enable_model_cpu_offload
        settings.take("offload")
    values |= _compile(settings, has_blocks=bool(traits.repeated_blocks))
    settings.leave("cache", "sglang takes the file of --as cache-dit (cache_dit_config: FILE)")
    for knob in ("scheduler", "vae"):
        settings.leave(knob, BEFORE_LOADING)
    values |= _call(tuned)
    left = settings.left_out
    if pipeline.loras:
        left = (*left, "the LoRAs: sglang's diffusers backend loads none")
    comments = notes(f"For sglang: sglang generate --config {name}", tuned.about, left)
    return HandedOn(yaml_file(comments, values), left)


def _require_loadable(tuned: TunedConfig) -> None:
    pipeline = tuned.pipeline
    reasons = {
        "its weights are random": pipeline.weights == "random",
        "it ships with autotune": pipeline.source == "demo",
        "its checkpoint is a single file": Path(pipeline.source).suffix == ".safetensors",
        "a function of yours builds it": pipeline.factory is not None,
        "it has a ControlNet": pipeline.controlnet is not None,
        "its denoiser is a GGUF file": pipeline.gguf is not None,
        "it starts from pictures": bool(tuned.inputs),
    }
    if why := [reason for reason, holds in reasons.items() if holds]:
        raise UserError(f"sglang can't load this pipeline from a file of settings: {' and '.join(why)}.")


def _compile(settings: Settings, *, has_blocks: bool) -> dict[str, Scalar | dict[str, Scalar | list[str]]]:
    """sglang compiles the repeated blocks where the model names them, and otherwise the whole denoiser."""
    own = "regional" if has_blocks else "denoiser"
    if settings.get("compile") is None:
        return {"enable_torch_compile": False}
    if settings.get("compile") != own or settings.get("inductor_flags") or settings.get("compile_mode"):
        settings.leave("compile", f"sglang compiles what compile={own} does here, in torch's default mode")
        return {"enable_torch_compile": False}
    settings.take("compile")
    return {"enable_torch_compile": True}


def _call(tuned: TunedConfig) -> dict[str, Scalar | dict[str, Scalar | list[str]]]:
    """The arguments of a call, of the first prompt."""
    workload, traits = tuned.workload, tuned.pipeline.known
    call: dict[str, Scalar | dict[str, Scalar | list[str]]] = {
        "prompt": workload.prompts[0],
        "width": workload.width,
        "height": workload.height,
        "num_inference_steps": workload.steps,
        "seed": workload.seed,
    }
    if workload.negative_prompt is not None:
        call["negative_prompt"] = workload.negative_prompt
    if traits.guidance_argument in ("guidance_scale", "true_cfg_scale") and workload.guidance_scale is not None:
        call[traits.guidance_argument] = workload.guidance_scale
    return call
